"""A column of BigQuery: what is asked for in its place, and the Arrow type that it arrives in. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from dinmo_dbt.rows.forms import TYPE_IN_WAREHOUSE
from dinmo_dbt.warehouse.query import quote

# By the names that schemas have, those of the older dialect too.
_TYPES = {
    **dict.fromkeys(("INTEGER", "INT64"), pa.int64()),
    **dict.fromkeys(("FLOAT", "FLOAT64"), pa.float64()),
    **dict.fromkeys(("BOOLEAN", "BOOL"), pa.bool_()),
    "STRING": pa.utf8(),
    "BYTES": pa.binary(),
    "NUMERIC": pa.decimal128(38, 9),
    "BIGNUMERIC": pa.decimal256(76, 38),
    "DATE": pa.date32(),
    "TIME": pa.time64("us"),
    "DATETIME": pa.timestamp("us"),
    "TIMESTAMP": pa.timestamp("us", "UTC"),
    "JSON": pa.utf8(),
    "GEOGRAPHY": pa.utf8(),  # as WKT
}
_STRUCTS = frozenset({"RECORD", "STRUCT"})
# All but what comes as no text, or as no number that holds it whole: INTERVAL, RANGE, and what is yet to be.
_AS_THEY_ARE = {*_TYPES, *_STRUCTS} - {"BIGNUMERIC"}
_PLAIN_NAME = re.compile(r"[A-Za-z_]\w*", re.ASCII)


@dataclass(frozen=True, slots=True)
class Column:
    """`asked` is SQL; `is_json`: it arrives as JSON's text; `is_stored`: it can be asked for without a query."""

    field: pa.Field
    asked: str
    is_json: bool
    is_stored: bool


def column_of(described: Any) -> Column:
    """Of a `SchemaField`."""
    name, kind, is_list = str(described.name), _kind(described), _is_list(described)
    in_place = kind in _AS_THEY_ARE
    quoted = quote(name, "bigquery")
    is_text = not is_list and kind != "STRING" and _TYPES.get(kind, pa.utf8()) == pa.utf8() and kind not in _STRUCTS
    metadata = {TYPE_IN_WAREHOUSE: kind.lower().encode()} if is_text else None
    return Column(
        field=pa.field(name, _type(described), metadata=metadata),
        asked=quoted if in_place else f"{_texts(quoted) if is_list else _text(quoted)} as {quoted}",
        is_json=kind == "JSON",
        is_stored=in_place and _PLAIN_NAME.fullmatch(name) is not None,
    )


def _kind(described: Any) -> str:
    return str(described.field_type).upper()


def _is_list(described: Any) -> bool:
    return str(described.mode).upper() == "REPEATED"


def _type(described: Any) -> pa.DataType:
    if _kind(described) in _STRUCTS:
        single = pa.struct([(str(each.name), _type(each)) for each in described.fields])
    else:
        single = _TYPES.get(_kind(described), pa.utf8())
    return pa.list_(single) if _is_list(described) else single


def _text(value: str) -> str:
    return f"cast({value} as string)"


def _texts(value: str) -> str:
    each, place = "dinmo_element", "dinmo_place"
    return f"array(select {_text(each)} from unnest({value}) as {each} with offset as {place} order by {place})"
