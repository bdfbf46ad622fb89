"""Activations of one dbt target that write one object of one org: where one could spoil what another keeps. Pure."""

from __future__ import annotations

from collections.abc import Callable, Container, Hashable, Iterable, Sequence
from itertools import combinations

from dinmo_dbt.activation import Activation, Mode
from dinmo_dbt.codes import FIELD_OF_SEVERAL, REMOVES_ANOTHERS_RECORDS
from dinmo_dbt.errors import Problem


def removals(activations: Iterable[Activation], org_of: Callable[[str], Hashable]) -> list[Problem]:
    """Where an activation could delete records that another one keeps, and neither says that this is meant.

    `org_of`: what tells the orgs of two destinations apart. A runner beside it looks at each record all the same: one
    that another activation's state holds is never deleted or set.
    """
    found = []
    for one, other in _pairs(activations, org_of):
        for remover, keeper in ((one, other), (other, one)):
            if _is_meant(one, other) or not _could_delete(remover, keeper):
                continue
            what = "deletes records" if remover.mode is Mode.DELETE else "on_removed: delete"
            found.append(
                Problem(
                    REMOVES_ANOTHERS_RECORDS,
                    f"{remover.name} ({what}) and {keeper.name} write one object, {remover.object}: a record that "
                    f"{keeper.name} keeps could be deleted. {keeper.name} is at {keeper.meta_path}",
                    remover.meta_path,
                    f"if it is meant: shares_object_with: [{keeper.name}] on {remover.name}; a record that "
                    f"{keeper.name} holds is left alone then. Else: on_removed: ignore, or another object",
                )
            )
    return found


def same_fields(
    activations: Sequence[Activation], org_of: Callable[[str], Hashable], among: Container[str]
) -> list[Problem]:
    """Fields that several activations write, in records that more than one may match: a note for the fields of the same
    ones, for the last one wins. `among`: one of them has to be of these."""
    writers: dict[tuple[Hashable, str, str], dict[str, Activation]] = {}
    for one, other in _pairs(activations, org_of):
        if not _is_meant(one, other) and not one.mode is other.mode is Mode.INSERT:
            for name in _written(one) & _written(other):
                place = (org_of(one.destination), one.object.lower(), name)
                writers.setdefault(place, {}).update({one.name: one, other.name: other})
    fields: dict[tuple[str, ...], list[str]] = {}
    for (_, _, name), those in sorted(writers.items(), key=str):
        fields.setdefault(tuple(sorted(those)), []).append(name)
    by_name = {activation.name: activation for activation in activations}
    found = []
    for names, written in fields.items():
        first, *others = (by_name[name] for name in names)
        if any(name in among for name in names):
            listed, places = ", ".join(names[1:]), ", ".join(each.meta_path for each in others)
            they = f"{first.name}, {listed} all" if len(others) > 1 else f"{first.name} and {listed} both"
            found.append(
                Problem(
                    FIELD_OF_SEVERAL,
                    f"{they} write {', '.join(written)} of {first.object}: of a record that more than one of them has, "
                    f"the one that runs last decides. The others are at {places}",
                    first.meta_path,
                    f"if their rows are apart, or it is meant: shares_object_with: [{listed}] on {first.name}",
                )
            )
    return found


def _pairs(
    activations: Iterable[Activation], org_of: Callable[[str], Hashable]
) -> Sequence[tuple[Activation, Activation]]:
    enabled = [activation for activation in activations if activation.enabled]
    return [
        (one, other)
        for one, other in combinations(enabled, 2)
        if one.object.lower() == other.object.lower() and org_of(one.destination) == org_of(other.destination)
    ]


def _is_meant(one: Activation, other: Activation) -> bool:
    return other.name in one.shares_object_with or one.name in other.shares_object_with


def _could_delete(remover: Activation, keeper: Activation) -> bool:
    """`mode: delete` goes by a match, not by who made the record. `on_removed` deletes what its own activation made or
    adopted: another one has such a record only if it matches records, as an insert does not."""
    if keeper.mode is Mode.DELETE:
        return False
    if remover.mode is Mode.DELETE:
        return True
    return remover.on_removed == "delete" and keeper.mode is not Mode.INSERT


def _written(activation: Activation) -> set[str]:
    if activation.mode is Mode.DELETE:
        return set()
    fields = {mapped.field.lower() for mapped in activation.fields}
    fields |= {name.lower() for name, _ in (*activation.constants, *activation.on_removed_set)}
    return fields
