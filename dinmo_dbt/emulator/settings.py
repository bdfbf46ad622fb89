"""Settings out of JSON: a frozen dataclass with some of its fields changed, or a refusal that names the key."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

from dinmo_dbt.emulator.errors import EmulatorError

T = TypeVar("T")


def changed(before: T, given: Mapping[str, Any], what: str) -> T:
    """`before` with the given fields. A field takes the type it has: an int is a float too, a bool is no number."""
    fields = {f.name: getattr(before, f.name) for f in dataclasses.fields(before)}  # type: ignore[arg-type]
    for key, value in given.items():
        if key not in fields:
            raise EmulatorError(f"{what}: unknown key {key}. Known: {', '.join(fields)}")
        kind = type(fields[key])
        if isinstance(value, bool) != (kind is bool) or not isinstance(value, (int, float) if kind is float else kind):
            raise EmulatorError(f"{what}: {key} must be {kind.__name__}, not {value!r}")
    return dataclasses.replace(before, **{k: type(fields[k])(v) for k, v in given.items()})  # type: ignore[type-var]
