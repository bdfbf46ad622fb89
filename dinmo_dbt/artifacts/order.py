"""Activations in the order in which their objects refer to each other: parents first. Pure."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Mapping

from dinmo_dbt.activation import Activation
from dinmo_dbt.codes import OBJECTS_IN_A_CIRCLE
from dinmo_dbt.errors import Problem


def order(activations: Iterable[Activation], references: Callable[[Activation], set[str]]) -> tuple[Activation, ...]:
    """Parents first: an activation comes after those that write an object it refers to; else sorted by name.

    `references` names the objects behind an activation's lookups, in any case. In a cycle the first by name goes
    first; `cycles` says so.
    """
    return _ordered(activations, references)[0]


def cycles(activations: Iterable[Activation], references: Callable[[Activation], set[str]]) -> tuple[Problem, ...]:
    """A note for each cycle of lookups that `order` had to break."""
    return _ordered(activations, references)[1]


def _ordered(
    activations: Iterable[Activation], references: Callable[[Activation], set[str]]
) -> tuple[tuple[Activation, ...], tuple[Problem, ...]]:
    by_name = {activation.name: activation for activation in sorted(activations, key=lambda a: a.name)}
    writers: dict[tuple[str, str], list[str]] = {}
    for activation in by_name.values():
        writers.setdefault((activation.destination, activation.object.lower()), []).append(activation.name)
    # An object that refers to itself orders nothing: its rows are ordered inside each activation.
    waits_for = {
        name: {
            writer
            for reference in references(activation)
            if reference.lower() != activation.object.lower()
            for writer in writers.get((activation.destination, reference.lower()), [])
        }
        for name, activation in by_name.items()
    }
    placed: list[str] = []
    notes: list[Problem] = []
    while waits_for:
        ready = [name for name, parents in waits_for.items() if not parents]
        if not ready:
            cycle = _cycle(waits_for)
            message = f"lookups go in a circle: {' -> '.join([*cycle, cycle[0]])}"
            first = min(cycle)
            hint = f"{first} goes first; rows whose parent is not there yet follow on the next run"
            notes.append(Problem(OBJECTS_IN_A_CIRCLE, message, by_name[first].meta_path, hint))
            ready = [first]
        name = heapq.nsmallest(1, ready)[0]
        placed.append(name)
        del waits_for[name]
        for parents in waits_for.values():
            parents.discard(name)
    return tuple(by_name[name] for name in placed), tuple(notes)


def _cycle(waits_for: Mapping[str, set[str]]) -> list[str]:
    """One cycle among activations that all wait for another: follow first parents until one comes again."""
    name, path = min(waits_for), list[str]()
    while name not in path:
        path.append(name)
        name = min(waits_for[name])
    return path[path.index(name) :]
