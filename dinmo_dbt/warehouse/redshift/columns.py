"""A column of Redshift: the Arrow type that its values are put in. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from dinmo_dbt.rows.forms import TYPE_IN_WAREHOUSE
from dinmo_dbt.warehouse.dbapi import WIDE_DECIMAL

# By type oid, as in redshift_connector.utils.oids.
_PLAIN: dict[int, pa.DataType] = {
    16: pa.bool_(),
    20: pa.int64(),
    21: pa.int64(),
    23: pa.int64(),
    26: pa.int64(),
    700: pa.float32(),
    701: pa.float64(),
    1082: pa.date32(),
    1083: pa.time64("us"),
    1114: pa.timestamp("us"),
    1184: pa.timestamp("us", "UTC"),
}
_NUMERIC, _CHAR, _SUPER = 1700, 1042, 4000
# Text in a way of its own, and the name that a change from or to it is reported by.
_NAMED = {
    1188: b"interval",
    1190: b"interval",
    1266: b"timetz",
    3000: b"geometry",
    3001: b"geography",
    6551: b"varbyte",
}
_HEADER = 4  # of a numeric's modifier, before its precision and scale


@dataclass(frozen=True, slots=True)
class Column:
    """`is_json`: it arrives as JSON's text; `is_padded`: with the blanks of its width."""

    field: pa.Field
    is_json: bool = False
    is_padded: bool = False


def column_of(described: Mapping[str, Any]) -> Column:
    """From one column of the server's RowDescription, as redshift_connector keeps it."""
    name, oid = str(described["label"], "utf-8"), described["type_oid"]
    if oid in _PLAIN:
        return Column(pa.field(name, _PLAIN[oid]))
    if oid == _NUMERIC:
        modifier = described["type_modifier"] - _HEADER
        return Column(
            pa.field(name, WIDE_DECIMAL if modifier < 0 else pa.decimal128(modifier >> 16, modifier & 0xFFFF))
        )
    named = {TYPE_IN_WAREHOUSE: _NAMED[oid]} if oid in _NAMED else None
    return Column(pa.field(name, pa.utf8(), metadata=named), is_json=oid == _SUPER, is_padded=oid == _CHAR)
