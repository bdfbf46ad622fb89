"""`dinmo` blocks that no activation comes of: misspelt, at a place that dbt does not hand on, or for no model. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from typing import Any

from dinmo_dbt.artifacts.manifest import Manifest, Node
from dinmo_dbt.codes import BLOCK_OF_NO_MODEL, BLOCK_OF_OLDER_VERSION, MISPLACED_BLOCK, NOT_A_MODEL, YAML_DUPLICATE_KEY
from dinmo_dbt.config.declaration import Path as KeyPath
from dinmo_dbt.config.declaration import did_you_mean, show
from dinmo_dbt.config.meta import NotActivated
from dinmo_dbt.config.written import RESOURCES, Key, Written
from dinmo_dbt.errors import Problem
from dinmo_dbt.model import Model

# What a section of a properties file lists, in a person's words; and what its block would belong to.
_KINDS = {
    "sources": ("a source", "write it at a model that selects from it: `select * from {{ source('...', '...') }}`"),
    "exposures": ("an exposure", "write it at the model that the exposure depends on"),
    "macros": ("a macro", "write it at a model"),
    "metrics": ("a metric", "write it at a model that has the rows to send"),
    "semantic_models": ("a semantic model", "write it at the model that it is of"),
    "saved_queries": ("a saved query", "write it at a model that has its rows"),
    "analyses": ("an analysis", "make a model of it: an analysis has no relation"),
    "unit_tests": ("a unit test", "write it at the model that it tests"),
    "data_tests": ("a test", "write it at the model that it tests"),
    "tests": ("a test", "write it at the model that it tests"),
    "groups": ("a group", "write it at a model"),
    "functions": ("a function", "write it at a model"),
}


def misplaced(written: Written, manifest: Manifest, stale: Collection[str] = ()) -> list[NotActivated]:
    """What is written and is nothing; of files that were changed since the manifest was made (`stale`) only what no
    manifest could make right."""
    found: list[NotActivated] = []
    named: set[tuple[str, str]] = set()
    handed_on: list[tuple[str, tuple[str, ...], str]] = []
    for key in written.keys:
        if _is_generated(key) or key.file in stale:
            continue
        problem = _in_place(key, manifest) if key.is_in_place else _out_of_place(key)
        if problem is not None:
            found.append(_left(key, manifest, problem))
            named |= {(key.file, name) for name in key.names}
            named |= {(key.file, _ANY_TEST) for part in key.path if part in _TESTS}
            handed_on += [key.handed] if key.handed else []
    strays = [
        each
        for each in manifest.strays
        if not named & {(_file(each), name) for name in _names(each)}
        if not any(_is_of(each, *of) for of in handed_on)
    ]
    return [*strays, *found, *_older_versions(manifest)]


def _is_of(stray: NotActivated, kind: str, way: tuple[str, ...], word: str) -> bool:
    """Whether a resource has a block of another name by that `+meta` of dbt_project.yml."""
    is_below = stray.model.unique_id.startswith(f"{kind}.") and stray.model.fqn[: len(way)] == way
    return is_below and stray.meta_path.endswith(f".config.meta.{word}")


_TESTS = ("data_tests", "tests")
_ANY_TEST = "test."


def _file(stray: NotActivated) -> str:
    return stray.meta_path.partition(": ")[0]


def _names(stray: NotActivated) -> tuple[str, ...]:
    """Its name; and of a test, whose name nobody wrote, what stands for any."""
    return (stray.model.name, *((_ANY_TEST,) if stray.model.unique_id.startswith("test.") else ()))


def owned(written: Written, node: Node) -> Key | None:
    """The block of dbt_project.yml that reaches a node, the nearest first; None where another one is the node's."""
    reaching = [
        key
        for key in written.keys
        if key.folder and key.folder[0] == node.resource_type and node.fqn[: len(key.folder[1])] == key.folder[1]
    ]
    return max(reaching, key=lambda key: len(key.path), default=None)


def given_twice(written: Written, kind: str, name: str) -> list[Problem]:
    """Keys that stand twice in the block of a resource, or the block itself: dbt keeps the last without a word, so no
    manifest tells."""
    found: list[Problem] = []
    first: dict[tuple[str, KeyPath], int] = {}
    for key in written.keys:
        if key.resource != (kind, name):
            continue
        twice = [((*key.path[-1:], *path), before, line) for path, before, line in key.twice]
        before = first.setdefault((key.file, key.path), key.line)
        if before != key.line:
            twice.append((key.path[-1:], before, key.line))
        for path, before, line in twice:
            message = (
                f"the key {show(path[-1])} is given twice, on lines {before} and {line}: the first counts for nothing"
            )
            hint = "keep one" + (
                f"; one column for several fields: {path[-1]}: [{_fed(key.value, path[1:])}, ...]"
                if len(path) > 1 and path[-2] == "fields"
                else ""
            )
            found.append(Problem(YAML_DUPLICATE_KEY, message, f"{key.file}:{line}: {key.place}", hint))
    return found


def _fed(value: Any, path: KeyPath) -> str:
    for part in path:
        if isinstance(value, dict):
            value = value.get(part)
        else:
            value = value[part] if isinstance(value, list) and isinstance(part, int) else None
    return value if isinstance(value, str) else "Field__c"


def _is_generated(key: Key) -> bool:
    return isinstance(key.value, dict) and key.value.get("generated") is True


def _in_place(key: Key, manifest: Manifest) -> Problem | None:
    """Why a block at a right place is nobody's."""
    every = [*manifest.nodes.values(), *manifest.disabled, *manifest.others]
    if key.folder is not None:
        kind, way = key.folder
        if any(node.resource_type == kind and node.fqn[: len(way)] == way for node in every):
            return None
        ways = {".".join(node.fqn[:n]) for node in every if node.resource_type == kind for n in range(1, 6)}
        message = f"no {kind} is under {show('.'.join(way))}{did_you_mean('.'.join(way), sorted(ways))}"
        return Problem(
            BLOCK_OF_NO_MODEL, message, key.where, "the way is the project's or package's name, then folders"
        )
    assert key.resource is not None
    kind, name = key.resource
    names = {node.name for node in every if node.resource_type == kind}
    if name in names:
        return None
    elsewhere = next((node.resource_type for node in every if node.name == name), None)
    if elsewhere:
        section = next(section for section, each in RESOURCES.items() if each == elsewhere)
        hint = f"move it under `{section}:`"
        return Problem(BLOCK_OF_NO_MODEL, f"{show(name)} is a {elsewhere}, not a {kind}", key.where, hint)
    message = f"the project has no {kind} {show(name)}{did_you_mean(name, sorted(names))}"
    return Problem(BLOCK_OF_NO_MODEL, message, key.where, "correct the name; a new one is known after `dbt parse`")


def _out_of_place(key: Key) -> Problem:
    section = str(key.path[0]) if key.path else ""
    if key.is_in_project_file:
        nothing = "nothing is read here" if key.handed else "dbt hands nothing on from here"
        return Problem(MISPLACED_BLOCK, f"{nothing}{_misspelt(key)}", key.where, _in_project_file(key))
    kind = next((part for part in reversed(key.path) if part in _KINDS), None)
    if kind is not None:
        what, hint = _KINDS[str(kind)]
        message = f"only models, seeds and snapshots can be activated, not {what}"
        return Problem(NOT_A_MODEL, message, key.where, f"{hint}, under {_RIGHT}")
    name = key.names[0] if key.names else ""
    if "columns" in key.path:
        hint = f"write it at {show(name)} itself, under {_RIGHT}, and name the column there, under `fields`"
        return Problem(MISPLACED_BLOCK, "a column can't be activated, its model can", key.where, hint)
    place = f"write it under {section} > {name} > {_RIGHT}" if section in RESOURCES and name else f"under {_RIGHT}"
    return Problem(MISPLACED_BLOCK, f"nothing is read here{_misspelt(key)}", key.where, place)


_RIGHT = "config > meta > dinmo"


def _misspelt(key: Key) -> str:
    word, above, further = (*reversed(key.path[-3:]), "", "")[:3]
    if word in ("activation", "activations"):
        is_other = "meta" in str(further) and isinstance(above, str)
        return f": {show(above)} is not `dinmo`" if is_other else ": `dinmo` is missing above it"
    return "" if word == "dinmo" else f": {show(word)} is not `dinmo`"


def _in_project_file(key: Key) -> str:
    way = [str(part) for part in key.path[:-1]]
    if not way or way[0] not in RESOURCES:
        return "write it under models: (or seeds:, snapshots:), the project's name, folders, then +meta: {dinmo: ...}"
    kept = [part for part in way if part.lstrip("+") not in ("meta", "config")]
    message = f"write {' > '.join([*kept, '+meta', 'dinmo'])}"
    return message if key.handed else f"{message}: `+meta` with its plus sign"


def _left(key: Key, manifest: Manifest, problem: Problem) -> NotActivated:
    """So that who selects the model meets it."""
    name = next((name for name in key.names if name), key.file)
    nodes: Iterable[Node] = (node for node in manifest.nodes.values() if node.name == name)
    node = next(iter(nodes), None)
    model = replace(node, file=key.file) if node else Model("", name, "", "", (), (), key.file)
    return NotActivated(name, model, key.where, (problem,))


def _older_versions(manifest: Manifest) -> Iterator[NotActivated]:
    """Blocks of their own that versions have which are not the latest."""
    latest = {node.name: node for node in manifest.nodes.values() if node.is_latest}
    for node in manifest.nodes.values():
        newest = latest.get(node.name)
        if node.is_latest or node.block is None or (newest is not None and node.block == newest.block):
            continue
        message = f"only the latest version of {show(node.name)} is activated, and this block is of {node.unique_id}"
        hint = "write it at the latest version, or at the model itself"
        problem = Problem(BLOCK_OF_OLDER_VERSION, message, node.meta_path, hint)
        yield NotActivated(node.name, node, node.meta_path, (problem,))
