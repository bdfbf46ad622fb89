"""A column of Snowflake: what is asked for in its place, and the Arrow type that it arrives in. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from dinmo_dbt.rows.forms import TYPE_IN_WAREHOUSE
from dinmo_dbt.warehouse.query import quote

# The numbers by which the connector's description names types ("Python Connector API", type codes).
_FIXED, _VECTOR = 0, 16
_PLAIN: dict[int, pa.DataType] = {
    1: pa.float64(),
    2: pa.utf8(),
    3: pa.date32(),
    11: pa.binary(),
    12: pa.time64("us"),
    13: pa.bool_(),
}
_TIMESTAMPS = {4: "timestamp_ntz", 6: "timestamp_ltz", 7: "timestamp_tz", 8: "timestamp_ntz"}
_JSON = frozenset({5, 9, 10, _VECTOR, 17})  # VARIANT, OBJECT, ARRAY, VECTOR, MAP
_INTERVALS = frozenset({19, 20})
_MICROSECONDS = 6  # digits of a second
_INT64_DIGITS = 18


@dataclass(frozen=True, slots=True)
class Column:
    """`asked` is SQL; `is_json`: it arrives as JSON's text."""

    field: pa.Field
    asked: str
    is_json: bool = False


def column_of(described: Any) -> Column:
    """From one entry of `cursor.description`."""
    name, code, precision, scale = described[0], described[1], described[4], described[5]
    quoted = quote(name, "snowflake")
    if code in _PLAIN:
        return Column(pa.field(name, _PLAIN[code]), quoted)
    if code in _TIMESTAMPS:
        kind = pa.timestamp("us", None if _TIMESTAMPS[code] == "timestamp_ntz" else "UTC")
        # Of nanoseconds the connector gives only 1677 to 2262, and beyond refuses the chunk or wraps the value.
        fits = scale is not None and scale <= _MICROSECONDS
        return Column(
            pa.field(name, kind), quoted if fits else f"cast({quoted} as {_TIMESTAMPS[code]}({_MICROSECONDS}))"
        )
    if code == _FIXED and precision and scale is not None:
        whole = scale == 0 and precision <= _INT64_DIGITS
        return Column(pa.field(name, pa.int64() if whole else pa.decimal128(precision, scale)), quoted)
    if code == _FIXED or code in _INTERVALS:  # a type that this connector has no number for, such as DECFLOAT
        named = {TYPE_IN_WAREHOUSE: b"interval" if code in _INTERVALS else b"other"}
        return Column(pa.field(name, pa.utf8(), metadata=named), f"cast({quoted} as varchar)")
    return Column(pa.field(name, pa.utf8()), quoted, is_json=code in _JSON)
