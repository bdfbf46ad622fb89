"""A block put into YAML that somebody wrote: lines are added, none is changed. Pure.

What comes out is read again: the values are those from before with the block among them, or nothing is given.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import yaml

from dinmo_dbt.config import document

_SECTIONS = ("models", "seeds", "snapshots")


def inserted(text: str, name: str, lines: Sequence[str]) -> str | None:
    """The properties file with `lines` (the `dinmo` key and what is under it) as `config.meta.dinmo` of a model, seed
    or snapshot. None where that can't be done by adding lines: the file is in flow style, has tabs or aliases there,
    does not name the model, or it has a block already."""
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        before = document.of_dbt(text.encode())
        place = _place(root, name)
        if place is None:
            return None
        after = _with_lines(
            text, place[0], textwrap.indent("\n".join([*place[1], *_deeper(lines, len(place[1]))]), place[2])
        )
        found = document.of_dbt(after.encode())
        wanted = _with_block(before, name, yaml.safe_load("\n".join(lines))["dinmo"])
    except (yaml.YAMLError, ValueError, TypeError, KeyError, AttributeError):
        return None
    return after if found == wanted else None


def new_file(name: str, section: str, lines: Sequence[str]) -> str:
    """A properties file of that model, seed or snapshot alone; `name` as YAML has it."""
    head = f"{section}:\n  - name: {name}\n    config:\n      meta:\n"
    return head + textwrap.indent("\n".join(lines), " " * 8) + "\n"


def _deeper(lines: Sequence[str], levels: int) -> list[str]:
    return ["  " * levels + line for line in lines]


def _place(root: yaml.Node | None, name: str) -> tuple[int, list[str], str] | None:
    """Before which line, under which keys that are not there yet, and how deep."""
    entry = _entry(root, name)
    if entry is None or entry.flow_style:
        return None
    holder: yaml.MappingNode = entry
    after: yaml.Node = next(value for key, value in entry.value if key.value == "name")
    for missing, key in ((["config:", "  meta:"], "config"), (["meta:"], "meta"), ([], "dinmo")):
        found = next(((k, v) for k, v in holder.value if k.value == key), None)
        if found is None:
            return after.end_mark.line + 1, missing, " " * holder.value[0][0].start_mark.column
        if not isinstance(found[1], yaml.MappingNode) or found[1].flow_style or not found[1].value:
            return None
        holder, after = found[1], found[0]
    return None


def _entry(root: yaml.Node | None, name: str) -> yaml.MappingNode | None:
    if not isinstance(root, yaml.MappingNode):
        return None
    for section, entries in root.value:
        if section.value in _SECTIONS and isinstance(entries, yaml.SequenceNode):
            for entry in entries.value:
                if isinstance(entry, yaml.MappingNode) and any(
                    key.value == "name" and value.value == name for key, value in entry.value
                ):
                    return entry
    return None


def _with_lines(text: str, line: int, added: str) -> str:
    end = "\r\n" if "\r\n" in text else "\n"
    lines = text.splitlines(keepends=True)
    if lines and not lines[-1].endswith(("\n", "\r")):
        lines[-1] += end
    return "".join([*lines[:line], *(f"{each}{end}" for each in added.splitlines()), *lines[line:]])


def _unshared(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _unshared(each) for key, each in value.items()}
    return [_unshared(each) for each in value] if isinstance(value, list) else value


def _with_block(values: dict[str, Any], name: str, block: object) -> dict[str, Any]:
    """The values with the block added to the model, as dbt would read them."""
    values = _unshared(values)  # what an alias repeats is one value in memory
    for section in _SECTIONS:
        entries = values.get(section)
        for entry in entries if isinstance(entries, list) else ():
            if entry.get("name") == name:
                entry.setdefault("config", {}).setdefault("meta", {})["dinmo"] = block
                return values
    raise KeyError(name)
