"""A column of Databricks: the Arrow type that its values are put in. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

import pyarrow as pa

from dinmo_dbt.rows.forms import TYPE_IN_WAREHOUSE

_PLAIN: dict[str, pa.DataType] = {
    "boolean": pa.bool_(),
    **dict.fromkeys(("tinyint", "smallint", "int", "bigint"), pa.int64()),
    "float": pa.float32(),
    "double": pa.float64(),
    "date": pa.date32(),
    "timestamp": pa.timestamp("us", "UTC"),
    "timestamp_ntz": pa.timestamp("us"),
    "binary": pa.binary(),
    "void": pa.null(),
}
_DECIMAL = re.compile(r"decimal\((\d+),\s*(-?\d+)\)")
_NESTED = re.compile(r"(?:array|map|struct)<|variant")


@dataclass(frozen=True, slots=True)
class Column:
    """`is_json`: it is put in JSON's text."""

    field: pa.Field
    is_json: bool = False


def column_of(name: str, written: str) -> Column:
    """From a row of DESCRIBE QUERY: the type as Databricks writes it."""
    kind = written.strip().lower()
    if kind in _PLAIN:
        return Column(pa.field(name, _PLAIN[kind]))
    if decimal := _DECIMAL.fullmatch(kind):
        return Column(pa.field(name, pa.decimal128(int(decimal[1]), int(decimal[2]))))
    if kind.startswith("interval"):
        return Column(pa.field(name, pa.utf8(), metadata={TYPE_IN_WAREHOUSE: b"interval"}))
    return Column(pa.field(name, pa.utf8()), is_json=bool(_NESTED.match(kind)))
