"""The types of columns, as far as they decide how an equal value is written. Pure."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from dinmo_dbt.destination import Field
from dinmo_dbt.rows.arrow import is_text, plain_type
from dinmo_dbt.rows.field_types import type_of

TYPE_IN_WAREHOUSE = b"type"  # metadata of a text column whose type there is no text's: its name


def type_name(column: pa.Field) -> str:
    """A model column's type in words; the same for types that hold the same values alike, such as int32 and int64."""
    named = (column.metadata or {}).get(TYPE_IN_WAREHOUSE)
    if named is not None:
        return str(named, "utf-8")
    source = plain_type(column.type)
    if pa.types.is_integer(source):
        return "whole number"
    if pa.types.is_floating(source):
        return "float"
    if pa.types.is_decimal(source):
        return f"decimal({source.scale})"
    if pa.types.is_date(source):
        return "date"
    if pa.types.is_timestamp(source):
        return "timestamp with time zone" if source.tz else "timestamp"
    if pa.types.is_time(source):
        return "time"
    if pa.types.is_boolean(source):
        return "boolean"
    return "text" if is_text(source) else str(source).partition("<")[0]


def key_form(column: pa.Field) -> str:
    """How keys of that type are written: types of one form give equal values the same text."""
    name = type_name(column)
    if name in ("whole number", "float") or pa.types.is_decimal(plain_type(column.type)):
        return "number"
    return {"timestamp with time zone": "datetime", "timestamp": "datetime"}.get(name, name)


def text_form(column: pa.Field, field: Field) -> str:
    """The same for a column that feeds `field`; '' where the field's own type decides."""
    if not type_of(field).is_text:
        return ""
    source = plain_type(column.type)
    if pa.types.is_decimal(source) and 0 < source.scale <= 6:
        return f"number.{source.scale}"
    return key_form(column)


def in_form(text: pa.Array, form: str) -> pa.Array:
    """Texts of values as a column of that form writes the same values; a text that is no such value stays as it is."""
    if form == "date":
        return pc.replace_substring_regex(text, pattern=_MIDNIGHT, replacement=r"\1")
    if form == "datetime":
        read = pc.extract_regex(text, pattern=_MOMENT)
        day, clock, fraction = (read.field(name) for name in ("day", "clock", "fraction"))
        clock = pc.if_else(pc.equal(clock, ""), "00:00:00", clock)
        thousandths = pc.utf8_slice_codeunits(pc.utf8_rpad(fraction, 3, padding="0"), 0, 3)
        moment = pc.binary_join_element_wise(pc.binary_join_element_wise(day, clock, "T"), thousandths, ".")
        # A struct's children know nothing of its nulls.
        return pc.if_else(pc.is_valid(read), pc.binary_join_element_wise(moment, "Z", ""), text)
    if form.startswith("number"):
        return _number_in_form(text, int(form.partition(".")[2] or 0))
    if form == "boolean":
        lower = pc.utf8_lower(text)
        return pc.if_else(pc.is_in(lower, value_set=pa.array(["true", "false"])), lower, text)
    return text


_MIDNIGHT = r"^(\d{4}-\d\d-\d\d)[T ]00:00(?::00(?:\.0+)?)?(?:Z|[+]00(?::?00)?)?$"
_MOMENT = (
    r"^(?P<day>\d{4}-\d\d-\d\d)(?:[T ](?P<clock>\d\d:\d\d:\d\d)(?:\.(?P<fraction>\d{1,9}))?)?(?:Z|[+]00(?::?00)?)?$"
)


def _number_in_form(text: pa.Array, places: int) -> pa.Array:
    read = pc.extract_regex(text, pattern=r"^(?P<sign>-?)0*(?P<whole>\d+)(?:\.(?P<fraction>\d*?)0*)?$")
    sign, whole, fraction = (read.field(name) for name in ("sign", "whole", "fraction"))
    longer = pc.greater(pc.utf8_length(fraction), places)
    padded = pc.utf8_rpad(fraction, places, padding="0") if places else fraction
    point = pc.if_else(pc.equal(padded, ""), "", ".")
    number = pc.binary_join_element_wise(sign, whole, point, padded, "")
    sound = pc.and_(pc.is_valid(read), pc.invert(pc.and_(longer, places > 0)))
    return pc.if_else(sound, number, text)
