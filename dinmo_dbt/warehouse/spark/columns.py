"""A column of Spark: what is asked for in its place, and the Arrow type that it arrives in. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from dinmo_dbt.rows.forms import TYPE_IN_WAREHOUSE
from dinmo_dbt.warehouse.query import quote

# By the names that Spark's own types have (`DataType.typeName`).
_PLAIN = {
    "string": pa.utf8(),
    "char": pa.utf8(),
    "varchar": pa.utf8(),
    "boolean": pa.bool_(),
    **dict.fromkeys(("byte", "short", "integer", "long"), pa.int64()),
    "float": pa.float32(),
    "double": pa.float64(),
    "date": pa.date32(),
    "timestamp": pa.timestamp("us", "UTC"),
    "timestamp_ntz": pa.timestamp("us"),
    "time": pa.time64("us"),
    "binary": pa.binary(),
}
# Arrow has no place for these in Spark, or in Salesforce: no value of theirs is asked for.
_NESTED = {"map": pa.map_(pa.utf8(), pa.utf8()), "struct": pa.struct([])}


@dataclass(frozen=True, slots=True)
class Column:
    """`asked` is SQL; `is_json`: it arrives as JSON's text."""

    field: pa.Field
    asked: str
    is_json: bool = False


def column_of(described: Any) -> Column:
    """Of a `StructField`."""
    name, kind = str(described.name), described.dataType
    quoted = quote(name, "spark")
    if (arrow := _type(kind)) is not None:
        return Column(pa.field(name, arrow), quoted)
    named = {TYPE_IN_WAREHOUSE: str(kind.typeName()).encode()}
    is_json = kind.typeName() == "variant"
    text = f"to_json({quoted})" if is_json else f"cast({quoted} as string)"
    return Column(pa.field(name, pa.utf8(), metadata=named), f"{text} as {quoted}", is_json)


def _type(kind: Any) -> pa.DataType | None:
    """None for what is asked for as text: intervals, VARIANT, and what is yet to be."""
    name = kind.typeName()
    if name == "decimal":
        return pa.decimal128(kind.precision, kind.scale)
    if name == "array":
        element = _type(kind.elementType)
        return None if element is None else pa.list_(element)
    return _PLAIN.get(name, _NESTED.get(name))
