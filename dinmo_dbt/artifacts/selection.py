"""`--select` and `--exclude` over activations, with dbt's own meaning: space is union, comma is intersection.

A term is an activation's name, a model's name, a folder (`marts`, `marts.finance`, `path:models/marts`) or `tag:`, with
`*` in any. A term that selects nothing is an error, never an empty run: a typo in `--exclude` would sync too much.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

from dinmo_dbt.activation import Activation
from dinmo_dbt.codes import NOTHING_SELECTED, SELECTION_GRAPH, SELECTION_METHOD
from dinmo_dbt.config.declaration import near, show
from dinmo_dbt.config.meta import NotActivated
from dinmo_dbt.errors import UsageError

METHODS = ("fqn", "path", "tag")
Declared = Activation | NotActivated
"""What can be chosen: one that is wrong, too, so that its own mistake is reported, and not that there is none."""


def select(
    declared: Iterable[Declared], select: Sequence[str] = (), exclude: Sequence[str] = ()
) -> tuple[Declared, ...]:
    """What any of `select` names (all, without it) and none of `exclude`, in the order given."""
    known = tuple(declared)
    everything = set(range(len(known)))
    chosen = _union(known, select, "--select") if any(term.split() for term in select) else everything
    chosen -= _union(known, exclude, "--exclude")
    if known and not chosen:
        raise UsageError(NOTHING_SELECTED, "no activation is left after --exclude")
    return tuple(known[number] for number in sorted(chosen))


def _union(known: tuple[Declared, ...], terms: Sequence[str], flag: str) -> set[int]:
    """Where in `known` those are that the terms name."""
    chosen: set[int] = set()
    for term in (word for text in terms for word in text.split()):
        parts = _parts(term, flag)
        found = {number for number, each in enumerate(known) if all(_matches(each, part) for part in parts)}
        if not found:
            raise UsageError(
                NOTHING_SELECTED, f"{flag} {show(term)} matches no activation{_near(known, term)}", hint=_names(known)
            )
        chosen |= found
    return chosen


def _parts(term: str, flag: str) -> list[tuple[str, str]]:
    """Each comma-separated part as method and value; a bare one has no method."""
    parts = []
    for part in term.split(","):
        # dbt's graph operators: +model, 2+model, model+, model+3, @model
        if re.match(r"@|[0-9]*\+", part) or re.search(r"\+[0-9]*$", part):
            message = f"{flag} {show(part)}: graph operators (+, @) are not supported here"
            raise UsageError(SELECTION_GRAPH, message, hint="an activation follows its own model only: name the model")
        method, colon, value = part.partition(":")
        if not part or (colon and not value):
            raise UsageError(SELECTION_METHOD, f"{flag} {show(term)}: a part is empty")
        if colon and method not in METHODS:
            message = f"{flag} {show(part)}: the method {show(method)} is not supported here"
            raise UsageError(
                SELECTION_METHOD, message, hint=f"supported: names, folders, {', '.join(m + ':' for m in METHODS)}"
            )
        parts.append((method, value) if colon else ("", part))
    return parts


def _matches(activation: Declared, part: tuple[str, str]) -> bool:
    method, value = part
    match method:
        case "tag":
            return any(fnmatchcase(tag, value) for tag in activation.model.tags)
        case "path":
            return _in_path(activation.model.file, value)
        case "fqn":
            return _in_folder(activation, value)
    if "/" in value or re.search(r"\.(sql|py|csv|ya?ml)$", value):
        return _in_path(activation.model.file, value)
    return fnmatchcase(activation.name, value) or _in_folder(activation, value)


def _in_path(file: str, value: str) -> bool:
    """Whether the model's file is that path, below that folder, or matches that pattern; or its bare name does."""
    path, wanted = PurePosixPath(file), value.removeprefix("./").rstrip("/")
    places = [str(place) for place in (path, *path.parents)]
    return any(fnmatchcase(place, wanted) for place in places) or fnmatchcase(path.name, wanted)


def _in_folder(activation: Declared, value: str) -> bool:
    """dbt's rule: the model's name, or the first parts of its fully qualified name with or without the package."""
    if fnmatchcase(activation.model.name, value):
        return True
    wanted = value.split(".")
    for fqn in (activation.model.fqn, activation.model.fqn[1:]):
        flat = [part for segment in fqn for part in segment.split(".")]
        wild = next((i for i, part in enumerate(wanted) if "*" in part or "?" in part or "[" in part), len(wanted))
        if len(flat) >= len(wanted) and flat[:wild] == wanted[:wild]:
            rest = ".".join(wanted[wild:])
            if not rest or fnmatchcase(".".join(flat[wild:]), rest):
                return True
    return False


def _near(known: tuple[Declared, ...], term: str) -> str:
    words = {
        word
        for a in known
        for word in (a.name, a.model.name, *a.model.fqn[1:], *(f"tag:{tag}" for tag in a.model.tags))
    }
    found = near(term, sorted(words), count=3)
    return f"; did you mean {' or '.join(show(word) for word in found)}?" if found else ""


def _names(known: tuple[Declared, ...]) -> str:
    names = [a.name for a in known]
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return f"activations: {', '.join(names[:10])}{more}" if names else "the project declares no activation"
