"""Values that YAML made of bare words: what stands in the file, and what was read of it. Pure.

dbt hands on what it read: of `0755` a manifest has 493, of `2026-01-05 10:00:00` the text 2026-01-05T10:00:00.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from dinmo_dbt.activation import Activation
from dinmo_dbt.codes import WRONG_TYPE, YAML_MISREAD
from dinmo_dbt.config.declaration import Path as KeyPath
from dinmo_dbt.config.declaration import dotted, is_another_number, misread, show
from dinmo_dbt.config.written import Key
from dinmo_dbt.errors import Problem
from dinmo_dbt.text.whole_text import as_yaml


def bare_words(keys: Iterable[Key], activation: Activation) -> Mapping[str, str]:
    """`constants.FIELD` and `on_removed.set.FIELD` of the activation: the bare text of which its value was read, where
    that is another one. `keys`: the blocks that its model is given. What is rendered, or quoted, is not in it."""
    found: dict[str, str] = {}
    sent: list[tuple[KeyPath, Any]] = [(("constants", field), value) for field, value in activation.constants]
    sent += [(("on_removed", "set", field), value) for field, value in activation.on_removed_set]
    for key in keys:
        for way, value in sent:
            bare = next((key.bare[path] for path in key.bare if _is_at(path, way, activation)), None)
            if bare is not None and bare[0] != value and _may_be(value, *bare):
                found[dotted(way)] = bare[0]
    return found


def other_numbers(keys: Iterable[Key], activation: Activation) -> Iterator[Problem]:
    """Numbers within the blocks that aren't what stands there, in decimal, wherever they stand."""
    for key in keys:
        for path, (text, value) in key.bare.items():
            is_here = path[:1] not in (("activation",), ("activations",)) or _is_at(
                path, path[_depth(path) :], activation
            )
            if is_here and is_another_number(text, value):
                message, hint = misread(text, value)
                where = key.where_of(path)
                yield Problem(YAML_MISREAD, message, where, hint)


def other_columns(keys: Iterable[Key], activation: Activation) -> Iterator[Problem]:
    """Columns whose names are not what stands there, because YAML makes something else of a bare word."""
    for key in keys:
        for path, (text, is_date) in key.bare_keys.items():
            way = path[_depth(path) :]
            if not is_date and way[:1] in (("fields",), ("match",)) and len(way) == 2 and _is_at(path, way, activation):
                where = key.where_of(path)
                message = f"YAML reads {show(text)} as {show(path[-1])}, so that is the column's name"
                yield Problem(WRONG_TYPE, message, where, f"put the name in quotes: {as_yaml(text)}")


def dates(keys: Iterable[Key]) -> Iterator[tuple[str, str]]:
    """Keys that YAML takes for dates, which dbt-core can't write into its manifest: the place of each, and its text."""
    for key in keys:
        for path, (text, is_date) in key.bare_keys.items():
            if is_date:
                yield key.where_of(path), text


def _depth(path: KeyPath) -> int:
    return 2 if path[:1] == ("activations",) else 1


def _is_at(path: KeyPath, way: KeyPath, activation: Activation) -> bool:
    """Whether a path of a block is that way of this activation."""
    depth = _depth(path)
    return path[depth:] == way and activation.meta_path.endswith(f".{dotted(path[:depth])}")


def _may_be(value: Any, text: str, reading: Any) -> bool:
    """Whether dbt has read that value of the bare text: by YAML 1.1, as `reading` is, or by 1.2."""
    if isinstance(reading, float) and not math.isfinite(reading):
        return value is None or isinstance(value, float)
    if isinstance(reading, dt.date):
        return value in (reading.isoformat(), str(reading))
    if value == reading and isinstance(value, bool) == isinstance(reading, bool):
        return True
    return isinstance(reading, str) and isinstance(value, int | float) and value in _by_another_yaml(text)


def _by_another_yaml(text: str) -> Iterator[float]:
    """`1e3` and `0o17` are numbers in YAML 1.2."""
    for made in (float, lambda digits: int(digits, 0)):
        try:
            yield made(text)
        except ValueError:
            continue
