"""Arrow columns -> canonical values -> Salesforce's text, and the values that can't be sent. Vectorised, pure.

Canonical is what would be sent, in the Salesforce field's own type; change detection compares canonical values with
the canonical values Salesforce last acknowledged, never with what Salesforce echoes. The canonical type of a field
is part of the state format.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from dinmo_dbt.destination import Field
from dinmo_dbt.rows.arrow import (
    DATETIME,
    DECIMAL,
    TIME,
    is_list_of_simple,
    is_number,
    is_simple,
    is_text,
    plain,
    plain_type,
    readable,
)
from dinmo_dbt.rows.datetimes import canonical_times, datetime_text, floor, in_years, milliseconds, time_text
from dinmo_dbt.rows.numbers import NUMBER_TYPES, canonical_numbers, decimal_text, from_floats
from dinmo_dbt.rows.reasons import Reasons
from dinmo_dbt.rows.texts import BULK_NULL, ID_TYPES, TEXT_TYPES, canonical_ids, ordered, sent_text, unix_newlines

SUPPORTED_TYPES = TEXT_TYPES | ID_TYPES | NUMBER_TYPES | {"boolean", "date", "datetime", "time"}


def canonical_type(field: Field) -> pa.DataType:
    """The Arrow type that holds values of `field`."""
    if field.type in NUMBER_TYPES:
        return DECIMAL
    return {"boolean": pa.bool_(), "date": pa.date32(), "datetime": DATETIME, "time": TIME}.get(field.type, pa.utf8())


def why_not(source: pa.DataType, field: Field) -> str | None:
    """Why a model column of type `source` can never feed `field`, as a sentence; None if it can."""
    if field.type not in SUPPORTED_TYPES:
        return f"fields of type {field.type} can't be written; map their parts instead"
    source = plain_type(source)
    if pa.types.is_null(source):
        return None
    if field.type in TEXT_TYPES:
        simple = is_simple(source)
        accepted = simple or (field.type == "multipicklist" and is_list_of_simple(source))
    elif field.type in ID_TYPES:
        accepted = is_text(source)
    elif field.type in NUMBER_TYPES:
        accepted = is_number(source)
    elif field.type == "boolean":
        accepted = pa.types.is_boolean(source)
    elif field.type == "date":
        accepted = pa.types.is_date(source)
    elif field.type == "datetime":
        accepted = pa.types.is_timestamp(source) or pa.types.is_date(source)
    else:
        accepted = pa.types.is_time(source)
    if accepted:
        return None
    return f"a column of type {source} can't feed a field of type {field.type}: cast it in the model's SQL"


def canonical(array: pa.Array, field: Field, *, keep_nulls: bool = False) -> tuple[pa.Array, Reasons | None]:
    """The column in `canonical_type(field)`, and a `Reason` a row (None: all are fine).

    A value that can't be sent becomes null with its reason. '' is null. A checkbox has no null: null is false there
    unless `keep_nulls`. The pair of types must have passed `why_not`.
    """
    array = plain(array)
    if pa.types.is_null(array.type):
        array = pa.nulls(len(array), canonical_type(field))
    if field.type in TEXT_TYPES:
        return sent_text(array, field)
    if field.type in ID_TYPES:
        return canonical_ids(array)
    if field.type in NUMBER_TYPES:
        return canonical_numbers(array, field)
    if field.type == "boolean":
        return (array if keep_nulls or array.null_count == 0 else pc.fill_null(array, False)), None
    if field.type == "date":
        return in_years(array.cast(pa.date32(), safe=False), 86_400_000)
    if field.type == "datetime":
        return in_years(milliseconds(array), 1)
    return canonical_times(array)


def fold(array: pa.Array, field: Field) -> pa.Array:
    """Match values as Salesforce compares them: text trimmed, case folded where the field ignores case.

    SOQL compares without case unless the field is case-sensitive; an upsert only for unique fields that ignore case.
    Folding too much only refuses a twin too early, so matching folds whenever describe says case does not count.
    """
    if not pa.types.is_string(array.type):
        return array
    trimmed = pc.utf8_trim_whitespace(array)
    trimmed = pc.if_else(pc.equal(trimmed, ""), pa.scalar(None, pa.utf8()), trimmed)
    return trimmed if field.case_sensitive or field.type in ID_TYPES else pc.utf8_lower(trimmed)


def text(array: pa.Array, field: Field) -> pa.Array:
    """Canonical values as Salesforce reads them, in CSV and (quoted or not) in JSON; nulls stay null.

    Numbers in plain notation, dates `2024-01-31`, dateTimes `2024-01-31T08:00:00.000Z`, times `08:00:00.000Z`,
    booleans true/false.
    """
    if field.type in NUMBER_TYPES:
        return decimal_text(array)
    if field.type == "datetime":
        return datetime_text(array)
    if field.type == "time":
        return time_text(array)
    return array if pa.types.is_string(array.type) else array.cast(pa.utf8())


def from_text(array: pa.Array, field: Field) -> pa.Array:
    """Salesforce's text as canonical values: '' and #N/A are null, numbers also as `9.1E8`; unreadable is null.

    Numbers are read as doubles and so carry 15 significant digits: compare them in `echo_form`.
    """
    trimmed = pc.utf8_trim_whitespace(array)
    empty = pc.or_(pc.equal(trimmed, ""), pc.equal(trimmed, BULK_NULL))
    trimmed = pc.if_else(empty, pa.scalar(None, pa.utf8()), trimmed)
    if field.type in NUMBER_TYPES:
        numbers = readable(trimmed, r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$").cast(pa.float64())
        return from_floats(numbers)[0]
    if field.type == "boolean":
        lower = pc.utf8_lower(trimmed)
        return readable(lower, "^(true|false|1|0)$").cast(pa.bool_())
    if field.type == "date":
        return readable(trimmed, r"^\d{4}-\d\d-\d\d$").cast(pa.date32())
    if field.type == "datetime":
        form = r"^\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d{1,3})?(Z|[+-]\d\d:?\d\d)$"
        return readable(trimmed, form).cast(DATETIME)
    if field.type == "time":
        clock = readable(pc.utf8_rtrim(trimmed, "Z"), r"^([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d{1,3})?$")
        # Arrow casts no text to a time of day: it is read as a moment of the first day.
        moment = pc.binary_join_element_wise("1970-01-01T", clock, "").cast(pa.timestamp("ms"))
        return moment.cast(pa.int64()).cast(pa.int32()).cast(TIME)
    if field.type in ID_TYPES:
        return canonical_ids(trimmed)[0]
    return pc.utf8_lower(trimmed) if field.type == "email" else trimmed


def echo_form(array: pa.Array, field: Field) -> pa.Array:
    """Canonical values with everything removed that Salesforce may change when it echoes a row.

    Both sides of a join on results go through it: text trimmed with newlines `\\n` and '' null, e-mail in lower
    case, numbers to 15 significant digits, dateTimes to the second.
    """
    if field.type in NUMBER_TYPES:
        return from_floats(array.cast(pa.float64()))[0]
    if field.type == "datetime":
        return floor(array, 1000)
    if pa.types.is_string(array.type) and field.type not in ID_TYPES:
        trimmed = pc.utf8_trim_whitespace(unix_newlines(array))
        trimmed = pc.if_else(pc.equal(trimmed, ""), pa.scalar(None, pa.utf8()), trimmed)
        return pc.utf8_lower(trimmed) if field.type == "email" else trimmed
    return array


def held_form(array: pa.Array, field: Field) -> pa.Array:
    """Canonical values with everything removed that Salesforce may change when it stores them.

    Both sides of a comparison with what Salesforce holds go through it: `echo_form`, a checkbox without null, listed
    values without case, several of them as a set.
    """
    echo = echo_form(array, field)
    if field.type == "boolean":
        return pc.fill_null(echo, False)
    if field.type in ("picklist", "multipicklist"):
        # A value that is listed in another case is stored as it is listed.
        echo = pc.utf8_lower(echo)
    return ordered(echo) if field.type == "multipicklist" else echo
