"""A column of Postgres: what is asked for in its place, and the Arrow type that it arrives in. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from dinmo_dbt.rows.forms import TYPE_IN_WAREHOUSE
from dinmo_dbt.warehouse.query import quote

WIDE_DECIMAL = pa.decimal256(76, 38)
# By type oid (pg_type.dat). `float4` prints the shortest text that is exact, and 0.1 read as a double stays 0.1.
# Arrays are lists of their elements' text. Everything else is text as Postgres prints it (docs/values.md).
PLAIN: dict[int, pa.DataType] = {
    16: pa.bool_(),
    20: pa.int64(),
    21: pa.int16(),
    23: pa.int32(),
    26: pa.int64(),
    700: pa.float64(),
    701: pa.float64(),
}
_FROM_TEXT: dict[int, pa.DataType] = {
    17: pa.binary(),
    1082: pa.date32(),
    1083: pa.time64("us"),
    1114: pa.timestamp("us"),
    1184: pa.timestamp("us", "UTC"),
}
_NUMERIC = 1700
KNOWN = frozenset({*PLAIN, *_FROM_TEXT, _NUMERIC, 19, 25, 1042, 1043})
# What is asked for in the column's place. A cast to text takes the blanks that pad a `character` (manual, 8.3). Of json
# and jsonb (9.16): a string without its quotes, null for JSON's null, anything else as it is written.
_ASKED = {790: "{0}::numeric", 1042: "{0}::text", 114: "{0} #>> '{{}}'", 3802: "{0} #>> '{{}}'"}
_ARRAY = "to_json({0}::text[])::text"
# Of json[] and jsonb[]: each element as a json column is asked for; lists and objects in it stay such, and are refused.
_JSON_ARRAYS = frozenset({199, 3807})
_JSON_ARRAY = (
    f"case when {{0}} is null then null when array_ndims({{0}}) > 1 then {_ARRAY} else "
    "(select coalesce(json_agg(case json_typeof(dinmo_element::json) when 'null' then null "
    "when 'array' then dinmo_element::json when 'object' then dinmo_element::json "
    "else to_json(dinmo_element #>> '{{}}') end order by dinmo_position), '[]')::text "
    "from unnest({0}) with ordinality as dinmo_elements (dinmo_element, dinmo_position)) end"
)
LIST = pa.list_(pa.utf8())
# Of other types: the name where values are written in a way of its own, so in neither a text's nor an enum's
# (pg_type.typcategory) nor uuid's (2950), and the kind of an array's elements (pg_type.typtype).
NAMED = (
    "select own.oid::bigint, case when own.typcategory in ('S', 'E') or own.oid = 2950 then '' "
    "else format_type(own.oid, null) end, case own.typcategory when 'A' then element.typtype::text else '' end "
    "from pg_catalog.pg_type own left join pg_catalog.pg_type element on element.oid = own.typelem "
    "where own.oid = any(%s::oid[])"
)


@dataclass(frozen=True, slots=True)
class Column:
    field: pa.Field
    asked: str


def column_of(described: Any, name: str, elements: str) -> Column:
    """`name` and `elements` as `NAMED` gives them."""
    quoted, code = quote(described.name, "postgres"), described.type_code
    array = _JSON_ARRAY if code in _JSON_ARRAYS else _ARRAY
    asked = array if elements else _ASKED.get(code, "{0}")
    if elements:
        kind = pa.list_(pa.struct([])) if elements == "c" else LIST
    elif code == _NUMERIC:
        kind = _decimal_type(described)
    elif asked.endswith("::numeric"):
        kind = WIDE_DECIMAL
    else:
        kind = PLAIN.get(code) or _FROM_TEXT.get(code) or pa.utf8()
    field = pa.field(described.name, kind, metadata={TYPE_IN_WAREHOUSE: name} if name else None)
    return Column(field, f"{asked.format(quoted)} as {quoted}")


def _decimal_type(described: Any) -> pa.DataType:
    precision, scale = described.precision, described.scale
    # Without a precision the scale is each value's own, and means nothing here.
    if precision and precision <= 38 and scale is not None and 0 <= scale <= precision:
        return pa.decimal128(precision, scale)
    return WIDE_DECIMAL
