"""Arrow columns -> canonical values -> Salesforce's text, and the values that can't be sent. Vectorised, pure.

Canonical is what would be sent, in the Salesforce field's own type; change detection compares canonical values with
the canonical values Salesforce last acknowledged, never with what Salesforce echoes. The canonical type of a field
is part of the state format.
"""

from __future__ import annotations

import json
import re
from enum import IntEnum

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dinmo_dbt.config.declaration import listed
from dinmo_dbt.destination import Field

TEXT_TYPES = frozenset({"string", "textarea", "email", "url", "phone", "picklist", "multipicklist", "combobox"})
ID_TYPES = frozenset({"id", "reference"})
NUMBER_TYPES = frozenset({"int", "long", "double", "currency", "percent"})
SUPPORTED_TYPES = TEXT_TYPES | ID_TYPES | NUMBER_TYPES | {"boolean", "date", "datetime", "time"}

DECIMAL = pa.decimal128(38, 18)
DATETIME = pa.timestamp("ms", "UTC")
TIME = pa.time32("ms")

# What Bulk API 2.0 reads as null; as a text value it can't travel in a CSV file.
BULK_NULL = "#N/A"

Reasons = npt.NDArray[np.uint8]
Doubles = npt.NDArray[np.float64]
Positions = npt.NDArray[np.int64]


class Reason(IntEnum):
    """Why a value can't be sent; stored as a number, shown by its code."""

    OK = 0
    LENGTH = 1
    CONTROL = 2
    PICKLIST = 3
    ID_FORM = 4
    ID_CHECKSUM = 5
    NOT_FINITE = 6
    NUMBER_RANGE = 7
    NOT_WHOLE = 8
    DATE_RANGE = 9
    BULK_NULL_TEXT = 10
    NUMBER_SCALE = 11
    ROW_SIZE = 12
    CHOICE = 13
    TIME_RANGE = 14
    UNREADABLE = 15
    NUMBER_DIGITS = 16

    @property
    def code(self) -> str:
        return "V-" + self.name.replace("_", "-")

    @property
    def message(self) -> str:
        return _REASON_TEXT[self]


_REASON_TEXT = {
    Reason.OK: "",
    Reason.LENGTH: "the text is longer than the field allows",
    Reason.CONTROL: "the text holds a control character",
    Reason.PICKLIST: "the value is not in the field's restricted picklist",
    Reason.ID_FORM: "the value is not a Salesforce id of 15 or 18 characters",
    Reason.ID_CHECKSUM: "the id's last three characters do not fit the first fifteen",
    Reason.NOT_FINITE: "the number is NaN or infinite",
    Reason.NUMBER_RANGE: "the number has more integer digits than the field or the API takes",
    Reason.NOT_WHOLE: "the field takes whole numbers only",
    Reason.DATE_RANGE: "the date lies outside 1700-01-01 to 4000-12-31, or as text outside the years 1 to 9999",
    Reason.BULK_NULL_TEXT: "the text #N/A means null in Bulk API 2.0, and this row can only travel by it",
    Reason.NUMBER_SCALE: "the number has more than 18 decimal places",
    Reason.ROW_SIZE: "the row has more than the 400,000 characters of Bulk API 2.0, and can only travel by it",
    Reason.CHOICE: "a choice holds a semicolon, or is itself a list: it can't be told from several choices",
    Reason.TIME_RANGE: "the time lies outside 00:00 to 23:59:59.999",
    Reason.NUMBER_DIGITS: "Salesforce keeps numbers as doubles, and would change this one: an id goes in a text field",
    Reason.UNREADABLE: "the warehouse holds a value that its column's type has no place for here",
}


def why_unfit(reason: Reason, field: Field | None, longest: int = 0) -> str:
    """A reason's message with what the field takes, and with the length of the longest text that it refused."""
    if reason is Reason.LENGTH and field is not None and field.length:
        told = f", and the longest has {longest:,}" if longest else ""
        return f"{reason.message}: it takes {field.length:,} characters{told}"
    if reason is Reason.PICKLIST and field is not None and field.picklist:
        return f"{reason.message}: {listed(field.picklist, most=5)}"
    return reason.message


def canonical_type(field: Field) -> pa.DataType:
    """The Arrow type that holds values of `field`."""
    if field.type in NUMBER_TYPES:
        return DECIMAL
    return {"boolean": pa.bool_(), "date": pa.date32(), "datetime": DATETIME, "time": TIME}.get(field.type, pa.utf8())


def why_not(source: pa.DataType, field: Field) -> str | None:
    """Why a model column of type `source` can never feed `field`, as a sentence; None if it can."""
    if field.type not in SUPPORTED_TYPES:
        return f"fields of type {field.type} can't be written; map their parts instead"
    source = _plain_type(source)
    if pa.types.is_null(source):
        return None
    if field.type in TEXT_TYPES:
        simple = _is_simple(source)
        accepted = simple or (field.type == "multipicklist" and _is_list_of_simple(source))
    elif field.type in ID_TYPES:
        accepted = _is_text(source)
    elif field.type in NUMBER_TYPES:
        accepted = _is_number(source)
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
        return _text(array, field)
    if field.type in ID_TYPES:
        return _ids(array)
    if field.type in NUMBER_TYPES:
        return _numbers(array, field)
    if field.type == "boolean":
        return (array if keep_nulls or array.null_count == 0 else pc.fill_null(array, False)), None
    if field.type == "date":
        return _in_years(array.cast(pa.date32(), safe=False), 86_400_000)
    if field.type == "datetime":
        return _in_years(_milliseconds(array), 1)
    return _times(array)


def unkept(source: pa.Array, array: pa.Array, field: Field) -> Reasons | None:
    """Numbers whose whole part a double changes, as `canonical` gives reasons; `array`: canonical, of `source`."""
    if field.type not in NUMBER_TYPES or pa.types.is_null(source.type):
        return None
    is_double = pa.types.is_floating(source.type)
    # Below these a double's 15 decimal digits, and a whole number, are kept as they are.
    large = pc.fill_null(pc.greater_equal(pc.abs(array), _decimal(10**15 if is_double else 2**53)), False)
    if not pc.any(large).as_py():
        return None
    places = np.flatnonzero(large.to_numpy(zero_copy_only=False))
    whole = [int(value) for value in array.take(pa.array(places)).to_pylist()]
    given = _doubles(source).take(pa.array(places)).to_pylist() if is_double else whole
    changed = np.zeros(len(array), np.bool_)
    changed[places] = [not number % 1 and number != int(float(sent)) for number, sent in zip(given, whole, strict=True)]
    return _reasons(changed, Reason.NUMBER_DIGITS)


def unreadable_mark(column: str) -> str:
    """The name of the boolean column that a batch of a model's rows has beside `column` where the warehouse holds a
    value that the column's Arrow type has no place for: true there, and `column` is null. No database has such a name.
    """
    return f"\0unreadable {column}"


def unreadable(batch: pa.RecordBatch, column: str) -> Reasons | None:
    """The rows of the batch whose value of `column` can't be read, as `canonical` gives reasons."""
    mark = unreadable_mark(column)
    return _reasons(batch.column(mark), Reason.UNREADABLE) if mark in batch.schema.names else None


# Types, as far as they decide how a value is written


TYPE_IN_WAREHOUSE = b"type"  # metadata of a text column whose type there is no text's: its name


def type_name(column: pa.Field) -> str:
    """A model column's type in words; the same for types that hold the same values alike, such as int32 and int64."""
    named = (column.metadata or {}).get(TYPE_IN_WAREHOUSE)
    if named is not None:
        return str(named, "utf-8")
    source = _plain_type(column.type)
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
    return "text" if _is_text(source) else str(source).partition("<")[0]


def key_form(column: pa.Field) -> str:
    """How keys of that type are written: types of one form give equal values the same text."""
    name = type_name(column)
    if name in ("whole number", "float") or pa.types.is_decimal(_plain_type(column.type)):
        return "number"
    return {"timestamp with time zone": "datetime", "timestamp": "datetime"}.get(name, name)


def text_form(column: pa.Field, field: Field) -> str:
    """The same for a column that feeds `field`; '' where the field's own type decides."""
    if field.type not in TEXT_TYPES:
        return ""
    source = _plain_type(column.type)
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
        return _decimal_text(array)
    if field.type == "datetime":
        return _datetime_text(array)
    if field.type == "time":
        return _time_text(array)
    return array if pa.types.is_string(array.type) else array.cast(pa.utf8())


def from_text(array: pa.Array, field: Field) -> pa.Array:
    """Salesforce's text as canonical values: '' and #N/A are null, numbers also as `9.1E8`; unreadable is null.

    Numbers are read as doubles and so carry 15 significant digits: compare them in `echo_form`.
    """
    trimmed = pc.utf8_trim_whitespace(array)
    empty = pc.or_(pc.equal(trimmed, ""), pc.equal(trimmed, BULK_NULL))
    trimmed = pc.if_else(empty, pa.scalar(None, pa.utf8()), trimmed)
    if field.type in NUMBER_TYPES:
        numbers = _readable(trimmed, r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$").cast(pa.float64())
        return _from_floats(numbers)[0]
    if field.type == "boolean":
        lower = pc.utf8_lower(trimmed)
        return _readable(lower, "^(true|false|1|0)$").cast(pa.bool_())
    if field.type == "date":
        return _readable(trimmed, r"^\d{4}-\d\d-\d\d$").cast(pa.date32())
    if field.type == "datetime":
        form = r"^\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d{1,3})?(Z|[+-]\d\d:?\d\d)$"
        return _readable(trimmed, form).cast(DATETIME)
    if field.type == "time":
        clock = _readable(pc.utf8_rtrim(trimmed, "Z"), r"^([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d{1,3})?$")
        # Arrow casts no text to a time of day: it is read as a moment of the first day.
        moment = pc.binary_join_element_wise("1970-01-01T", clock, "").cast(pa.timestamp("ms"))
        return moment.cast(pa.int64()).cast(pa.int32()).cast(TIME)
    if field.type in ID_TYPES:
        return _ids(trimmed)[0]
    return pc.utf8_lower(trimmed) if field.type == "email" else trimmed


def echo_form(array: pa.Array, field: Field) -> pa.Array:
    """Canonical values with everything removed that Salesforce may change when it echoes a row.

    Both sides of a join on results go through it: text trimmed with newlines `\\n` and '' null, e-mail in lower
    case, numbers to 15 significant digits, dateTimes to the second.
    """
    if field.type in NUMBER_TYPES:
        return _from_floats(array.cast(pa.float64()))[0]
    if field.type == "datetime":
        return _floor(array, 1000)
    if pa.types.is_string(array.type) and field.type not in ID_TYPES:
        trimmed = pc.utf8_trim_whitespace(_unix_newlines(array))
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
    return _ordered(echo) if field.type == "multipicklist" else echo


def _ordered(array: pa.Array) -> pa.Array:
    """Multi-select picklists are sets: their values in one order, each once."""
    chosen = [
        None if text is None else sorted({part.strip() for part in text.split(";")}) for text in array.to_pylist()
    ]
    return pa.array([None if parts is None else ";".join(parts) for parts in chosen], pa.utf8())


# Arrow types


def _plain_type(source: pa.DataType) -> pa.DataType:
    if pa.types.is_dictionary(source):
        return source.value_type
    return pa.utf8() if isinstance(source, pa.UuidType) else source


def plain(array: pa.Array) -> pa.Array:
    """Text as utf8, whatever Arrow layout the adapter gave it."""
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    if isinstance(array.type, pa.UuidType):
        return _uuid_text(array)
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    return array.cast(pa.utf8()) if _is_text(array.type) and not pa.types.is_string(array.type) else array


def _is_text(source: pa.DataType) -> bool:
    return bool(pa.types.is_string(source) or pa.types.is_large_string(source) or pa.types.is_string_view(source))


def _is_number(source: pa.DataType) -> bool:
    return bool(pa.types.is_integer(source) or pa.types.is_floating(source) or pa.types.is_decimal(source))


def _is_simple(source: pa.DataType) -> bool:
    """Whether one value of it has one text."""
    if pa.types.is_temporal(source):
        return not (pa.types.is_duration(source) or pa.types.is_interval(source))
    return bool(_is_text(source) or _is_number(source) or pa.types.is_boolean(source))


def _is_list(source: pa.DataType) -> bool:
    views = pa.types.is_list_view(source) or pa.types.is_large_list_view(source)
    sized = pa.types.is_fixed_size_list(source)
    return bool(pa.types.is_list(source) or pa.types.is_large_list(source) or sized or views)


def _is_list_of_simple(source: pa.DataType) -> bool:
    if not _is_list(source):
        return False
    element = _plain_type(source.value_type)
    return pa.types.is_null(element) or _is_simple(element)


def _uuid_text(array: pa.Array) -> pa.Array:
    raw = array.storage.fill_null(bytes(16)) if array.null_count else array.storage
    octets = np.frombuffer(raw.buffers()[1], np.uint8)[array.offset * 16 : (array.offset + len(array)) * 16]
    digits = np.frombuffer(b"0123456789abcdef", np.uint8)
    pairs = np.stack([digits[octets >> 4], digits[octets & 15]], axis=1).reshape(-1, 32)
    dash = np.full((len(array), 1), ord("-"), np.uint8)
    parts = [pairs[:, 0:8], dash, pairs[:, 8:12], dash, pairs[:, 12:16], dash, pairs[:, 16:20], dash, pairs[:, 20:32]]
    return _fixed_text(np.hstack(parts), array)


def _fixed_text(characters: npt.NDArray[np.uint8], like: pa.Array) -> pa.Array:
    """A utf8 array from rows of ASCII bytes, null where `like` is."""
    count, width = characters.shape
    offsets = np.arange(0, (count + 1) * width, width, dtype=np.int32)
    array = pa.StringArray.from_buffers(count, pa.py_buffer(offsets), pa.py_buffer(np.ascontiguousarray(characters)))
    return array if like.null_count == 0 else pc.if_else(pc.is_valid(like), array, pa.scalar(None, pa.utf8()))


def _readable(array: pa.Array, form: str) -> pa.Array:
    return pc.if_else(pc.match_substring_regex(array, form), array, pa.scalar(None, pa.utf8()))


def _reasons(bad: pa.Array | npt.NDArray[np.bool_], reason: Reason) -> Reasons | None:
    flags = bad if isinstance(bad, np.ndarray) else pc.fill_null(bad, False).to_numpy(zero_copy_only=False)
    return flags.astype(np.uint8) * np.uint8(reason) if flags.any() else None


def _merge(first: Reasons | None, second: Reasons | None) -> Reasons | None:
    if first is None or second is None:
        return second if first is None else first
    return np.where(first != 0, first, second)


def _without(array: pa.Array, reasons: Reasons | None) -> tuple[pa.Array, Reasons | None]:
    if reasons is None:
        return array, None
    return pc.if_else(pa.array(reasons == 0), array, pa.scalar(None, array.type)), reasons


# Text


_BLANKS = " \t\n\r"
"""What Salesforce takes away at the ends of a text as it saves it (Apex guide: strings "can never include leading and
trailing whitespace"), as far as a text may hold it. U+00A0 stays."""


def _text(array: pa.Array, field: Field) -> tuple[pa.Array, Reasons | None]:
    array, reasons = _choices(array) if field.type == "multipicklist" else as_text(array)
    if _has_control_bytes(array):
        array = _unix_newlines(array)
        control = pc.match_substring_regex(array, r"[\x00-\x08\x0b\x0c\x0e-\x1f]")
        reasons = _merge(reasons, _reasons(control, Reason.CONTROL))
    array = _trimmed(array)
    if field.length and _longest_bytes(array) > field.length:
        reasons = _merge(reasons, _reasons(pc.greater(pc.utf8_length(array), field.length), Reason.LENGTH))
    if field.restricted_picklist:
        reasons = _merge(reasons, _reasons(_not_listed(array, field), Reason.PICKLIST))
    return _without(array, reasons)


def _trimmed(array: pa.Array) -> pa.Array:
    """As Salesforce saves it: without blanks at its ends; what is then empty is null."""
    octets, lengths = _text_bytes(array), _byte_lengths(array)
    ends = np.cumsum(lengths)[lengths > 0]
    starts = ends - lengths[lengths > 0]
    if (octets[starts] <= 32).any() or (octets[ends - 1] <= 32).any():
        array = pc.utf8_trim(array, characters=_BLANKS)
    elif (lengths > 0).all():
        return array
    return pc.if_else(pc.equal(array, ""), pa.scalar(None, pa.utf8()), array)


def _choices(array: pa.Array) -> tuple[pa.Array, Reasons | None]:
    """Choices joined by semicolons, each without blanks at its ends; one that is null or empty is none."""
    if _is_list(array.type):
        elements = plain(pc.list_flatten(array))
        elements = pa.nulls(len(elements), pa.utf8()) if pa.types.is_null(elements.type) else elements
        return _joined_choices(array, elements, pc.list_parent_indices(array).to_numpy())
    array, reasons = as_text(array)
    if pc.any(pc.match_substring_regex(array, _JSON)).as_py():
        read = [_json_choices(text) for text in array.to_pylist()]
        lists = pa.array([each if isinstance(each, list) else None for each in read], pa.list_(pa.utf8()))
        joined, bad = _choices(lists)
        nested = np.array([each is _NESTED for each in read])
        reasons = _merge(_merge(reasons, bad), _reasons(nested, Reason.CHOICE))
        array = pc.if_else(pc.is_valid(lists), joined, array)
    if pc.any(pc.match_substring(array, ";")).as_py():
        array = pc.replace_substring_regex(array, pattern=r"[ \t\n\r]*;[ \t\n\r;]*", replacement=";")
        array = pc.utf8_trim(array, characters=";" + _BLANKS)
    return array, reasons


def _joined_choices(lists: pa.Array, elements: pa.Array, parents: Positions) -> tuple[pa.Array, Reasons | None]:
    """`parents`: the list that each of the elements is in, ascending."""
    elements, odd = as_text(elements)
    elements = _trimmed(elements)
    odd = _merge(odd, _reasons(pc.match_substring(elements, ";"), Reason.CHOICE))
    reasons = None
    if odd is not None:
        reasons = np.zeros(len(lists), np.uint8)
        reasons[parents[odd != 0]] = odd[odd != 0]
    there = pc.is_valid(elements).to_numpy(zero_copy_only=False)
    counts = np.bincount(parents[there], minlength=len(lists))
    offsets = pa.array(np.concatenate([[0], np.cumsum(counts)]).astype(np.int32))
    joined = pc.binary_join(pa.ListArray.from_arrays(offsets, elements.drop_null()), ";")
    return pc.if_else(pa.array(counts > 0), joined, pa.scalar(None, pa.utf8())), reasons


_JSON = r"(?s)^\s*(\[.*\]|\{.*\})\s*$"
_NESTED = object()


def _json_choices(text: str | None) -> list[str | None] | object:
    """The plain values of a JSON array, as warehouses without lists write one; None for a text that is none."""
    if text is None or not re.match(_JSON, text):
        return None
    try:
        read = json.loads(text, parse_int=str, parse_float=str, parse_constant=str)
    except (ValueError, RecursionError):
        return None
    if not isinstance(read, list) or any(isinstance(each, list | dict) for each in read):
        return _NESTED
    return [str(each).lower() if isinstance(each, bool) else each for each in read]


def as_text(array: pa.Array) -> tuple[pa.Array, Reasons | None]:
    """Any simple column as text; a value that has none is null, with its reason."""
    kind = array.type
    if pa.types.is_string(kind):
        return array, None
    if pa.types.is_floating(kind):
        numbers, reasons = _from_floats(_doubles(array))
        return _decimal_text(numbers), reasons
    if pa.types.is_timestamp(kind):
        moments, reasons = _in_years(_milliseconds(array), 1, _YEARS_OF_TEXT)
        return _datetime_text(moments), reasons
    if pa.types.is_date(kind):
        days, reasons = _in_years(array.cast(pa.date32(), safe=False), 86_400_000, _YEARS_OF_TEXT)
        return days.cast(pa.utf8()), reasons
    if pa.types.is_time(kind):
        clocks, reasons = _times(array)
        return _time_text(clocks), reasons
    if pa.types.is_decimal(kind) and kind.scale > 6:
        numbers, reasons = _numbers(array, _ANY_NUMBER)
        return _decimal_text(numbers), reasons
    return array.cast(pa.utf8()), None


def _text_bytes(array: pa.Array) -> npt.NDArray[np.uint8]:
    _, offsets_buffer, data = array.buffers()
    if len(array) == 0:
        return np.empty(0, np.uint8)
    offsets = np.frombuffer(offsets_buffer, "<i4")
    return np.frombuffer(data, np.uint8)[offsets[array.offset] : offsets[array.offset + len(array)]]


def _has_control_bytes(array: pa.Array) -> bool:
    octets = _text_bytes(array)
    low = octets[octets < 32]
    return bool(((low != 10) & (low != 9)).any())


def _byte_lengths(array: pa.Array) -> Positions:
    if len(array) == 0:
        return np.empty(0, np.int64)
    offsets = np.frombuffer(array.buffers()[1], "<i4")[array.offset : array.offset + len(array) + 1]
    return np.diff(offsets).astype(np.int64)


def _longest_bytes(array: pa.Array) -> int:
    return int(_byte_lengths(array).max(initial=0))


def _unix_newlines(array: pa.Array) -> pa.Array:
    # Bulk jobs declare LF line ends, and a CR inside a quoted value of such a job fails the whole job; JSON would
    # keep it. One form for both, so that the same row gives the same record by either API.
    if not (_text_bytes(array) == 13).any():
        return array
    return pc.replace_substring(pc.replace_substring(array, "\r\n", "\n"), "\r", "\n")


def _not_listed(array: pa.Array, field: Field) -> pa.Array:
    listed = pa.array(field.picklist, pa.utf8())
    if field.type != "multipicklist":
        return pc.and_(pc.is_valid(array), pc.invert(pc.is_in(array, value_set=listed)))
    parts = pc.split_pattern(array, ";")
    unlisted = pc.invert(pc.is_in(parts.flatten(), value_set=listed)).to_numpy(zero_copy_only=False)
    bad = np.zeros(len(array), np.bool_)
    bad[pc.list_parent_indices(parts).to_numpy()[unlisted]] = True
    return pa.array(bad)


# Ids: 15 characters, then three that encode which of them are upper case (five a character)

_SUFFIX = np.frombuffer(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ012345", np.uint8)


def _ids(array: pa.Array) -> tuple[pa.Array, Reasons | None]:
    trimmed = pc.utf8_trim_whitespace(array)
    trimmed = pc.if_else(pc.equal(trimmed, ""), pa.scalar(None, pa.utf8()), trimmed)
    shaped = pc.fill_null(pc.match_substring_regex(trimmed, "^[0-9A-Za-z]{15}([0-9A-Za-z]{3})?$"), True)
    reasons = _reasons(pc.invert(shaped), Reason.ID_FORM)
    sound = pc.if_else(shaped, trimmed, pa.scalar(None, pa.utf8()))
    padded = pc.utf8_rpad(pc.fill_null(sound, ""), width=18, padding=" ")
    characters = _text_bytes(padded).reshape(-1, 18)
    upper = (characters[:, :15] >= ord("A")) & (characters[:, :15] <= ord("Z"))
    suffix = _SUFFIX[(upper.reshape(-1, 3, 5) * np.array([1, 2, 4, 8, 16])).sum(axis=2)]
    # The suffix itself is not case-sensitive: it says only which of the first fifteen are upper case.
    given = characters[:, 15:]
    given = np.where((given >= ord("a")) & (given <= ord("z")), given - 32, given)
    wrong = (given[:, 0] != ord(" ")) & (given != suffix).any(axis=1)
    reasons = _merge(reasons, _reasons(wrong, Reason.ID_CHECKSUM))
    return _without(_fixed_text(np.hstack([characters[:, :15], suffix]), sound), reasons)


# Numbers

_ANY_NUMBER = Field(name="", label="", type="double")
_DIGITS = 15
_POWERS = np.array([float(f"1e{power}") for power in range(22)])


def _numbers(array: pa.Array, field: Field) -> tuple[pa.Array, Reasons | None]:
    if pa.types.is_floating(array.type):
        values, reasons = _from_floats(_doubles(array))
    elif pa.types.is_decimal(array.type):
        values, reasons = _from_decimals(array)
    else:
        values, reasons = array.cast(DECIMAL), None
    integer_digits = field.precision - field.scale if field.precision else 0
    if field.type in ("int", "long"):
        fraction = pc.not_equal(values, pc.trunc(values))
        reasons = _merge(reasons, _reasons(fraction, Reason.NOT_WHOLE))
        integer_digits = 0
        limit = 2**31 if field.type == "int" else 2**63
        outside = pc.or_(pc.greater_equal(values, _decimal(limit)), pc.less(values, _decimal(-limit)))
        reasons = _merge(reasons, _reasons(outside, Reason.NUMBER_RANGE))
    if 0 < integer_digits < 20:
        outside = pc.greater_equal(pc.abs(values), _decimal(10**integer_digits))
        reasons = _merge(reasons, _reasons(outside, Reason.NUMBER_RANGE))
    return _without(values, reasons)


def _decimal(number: int) -> pa.Scalar:
    return pa.scalar(number, pa.decimal128(38, 0)).cast(DECIMAL)


def _from_decimals(array: pa.Array) -> tuple[pa.Array, Reasons | None]:
    kind = array.type
    if kind.scale <= 18 and kind.precision - kind.scale <= 20:
        return array.cast(DECIMAL), None
    wide = array.cast(pa.decimal256(76, max(kind.scale, 18)))
    too_large = pc.greater_equal(pc.abs(wide), pa.scalar(10**20, pa.decimal256(76, 0)).cast(wide.type))
    reasons = _reasons(too_large, Reason.NUMBER_RANGE)
    if kind.scale > 18:
        finer = pc.not_equal(wide, pc.round(wide, ndigits=18))
        reasons = _merge(reasons, _reasons(finer, Reason.NUMBER_SCALE))
    wide, reasons = _without(wide, reasons)
    return wide.cast(DECIMAL), reasons


def _doubles(array: pa.Array) -> pa.Array:
    """Doubles; a narrower float as its shortest decimal, as databases show it: 0.1, not 0.100000001490116."""
    return array if pa.types.is_float64(array.type) else array.cast(pa.utf8()).cast(pa.float64())


def _from_floats(array: pa.Array) -> tuple[pa.Array, Reasons | None]:
    """Doubles as the nearest decimal of 15 significant digits (at most 18 decimal places), exactly.

    `whole` is the 15-digit integer nearest to value * 10^places, found with the product's rounding error made good
    (Dekker's two-product), so that ties and last digits come out as decimal arithmetic would give them.
    """
    numbers = array.fill_null(0.0).to_numpy(zero_copy_only=False) if array.null_count else array.to_numpy()
    finite = np.isfinite(numbers)
    too_large = finite & (np.abs(numbers) >= 1e20)
    reasons = _merge(_reasons(~finite, Reason.NOT_FINITE), _reasons(too_large, Reason.NUMBER_RANGE))
    numbers = np.where(finite & ~too_large, numbers, 0.0)

    whole, places = _short_decimals(numbers) or _fifteen_digits(numbers)
    rounded_up = np.abs(whole) * _POWERS[np.maximum(-places, 0)] >= 1e20
    reasons = _merge(reasons, _reasons(rounded_up, Reason.NUMBER_RANGE))
    whole = np.where(rounded_up, 0, whole)

    unscaled = _times_power_of_ten(whole, 18 - places)
    values = pa.Array.from_buffers(DECIMAL, len(whole), [None, pa.py_buffer(unscaled)])
    if array.null_count:
        values = pc.if_else(pc.is_valid(array), values, pa.scalar(None, DECIMAL))
    return _without(values, reasons)


def _short_decimals(numbers: Doubles) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]] | None:
    """The quick way for a column of decimals with up to 6 places, as most are; None if one of them is not.

    A whole number below 10^15 that gives the double back when divided by 10^6 is its one decimal of 15 digits.
    """
    millionths = np.rint(numbers * 1e6)
    if not ((millionths / 1e6 == numbers) & (np.abs(millionths) < 1e15)).all():
        return None
    return millionths.astype(np.int64), np.full(len(numbers), 6)


def _fifteen_digits(numbers: Doubles) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Each double as a whole number of 15 digits and its decimal places."""
    magnitude = np.abs(numbers)
    exponent = np.floor(np.log10(np.maximum(magnitude, 1e-9))).astype(np.int64)
    # log10 rounds: next to a power of ten its floor may be one off, and the comparison with the power decides.
    power = np.maximum(exponent, 0)
    corrected = power - (magnitude < _POWERS[power]) + (magnitude >= _POWERS[power + 1])
    exponent = np.where(exponent == power, corrected, exponent)
    places = np.clip(_DIGITS - 1 - exponent, -5, 18)
    return _nearest_whole(numbers, places), places


def _nearest_whole(numbers: Doubles, places: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The whole number nearest to numbers * 10^places, ties to even; results stay below 10^16."""
    factor = _POWERS[np.maximum(places, 0)]
    divisor = _POWERS[np.maximum(-places, 0)]
    product = numbers * factor
    whole = np.rint(product / divisor)
    back = whole * divisor
    rest = (product - back) - _product_error(whole, divisor, back) + _product_error(numbers, factor, product)
    tie_from_odd = (np.abs(rest) * 2 == divisor) & (np.fmod(whole, 2) != 0)
    away = (np.abs(rest) * 2 > divisor) | tie_from_odd
    nearest: npt.NDArray[np.int64] = (whole + np.where(away, np.sign(rest), 0)).astype(np.int64)
    return nearest


def _product_error(a: Doubles, b: Doubles, product: Doubles) -> Doubles:
    def halves(x: Doubles) -> tuple[Doubles, Doubles]:
        scaled = x * 134217729.0  # 2^27 + 1
        high = scaled - (scaled - x)
        return high, x - high

    a_high, a_low = halves(a)
    b_high, b_low = halves(b)
    return ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low


def _times_power_of_ten(whole: npt.NDArray[np.int64], power: npt.NDArray[np.int64]) -> npt.NDArray[np.uint64]:
    """whole * 10^power as 128-bit two's complement, low word first; |whole| < 10^16, power 0 to 23."""
    negative = whole < 0
    magnitude = np.abs(whole).astype(np.uint64)
    first = np.power(np.uint64(10), np.minimum(power, 11).astype(np.uint64))
    second = np.power(np.uint64(10), np.maximum(power - 11, 0).astype(np.uint64))
    low, high = _multiply(magnitude, np.zeros_like(magnitude), first)
    low, high = _multiply(low, high, second)
    low, high = np.where(negative, ~low + np.uint64(1), low), np.where(negative, ~high + (low == 0), high)
    return np.stack([low, high], axis=1)


def _multiply(
    low: npt.NDArray[np.uint64], high: npt.NDArray[np.uint64], factor: npt.NDArray[np.uint64]
) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
    """(low, high) * factor modulo 2^128, by 32-bit halves; factor < 2^40."""
    half, mask = np.uint64(32), np.uint64(2**32 - 1)
    a0, a1 = low & mask, low >> half
    b0, b1 = factor & mask, factor >> half
    p00, p01, p10, p11 = a0 * b0, a0 * b1, a1 * b0, a1 * b1
    middle = (p00 >> half) + (p01 & mask) + (p10 & mask)
    new_low = (p00 & mask) | (middle << half)
    carry = p11 + (p01 >> half) + (p10 >> half) + (middle >> half)
    return new_low, high * factor + carry


def _decimal_text(array: pa.Array) -> pa.Array:
    """Plain notation: no exponent, no trailing zeros, `0` for zero."""
    if len(array) == 0:
        return pa.array([], pa.utf8())
    plain = pc.utf8_rtrim(pc.utf8_rtrim(array.cast(pa.utf8()), "0"), ".")
    # Arrow writes an exponent below 1e-6 and for zero: those are written from their unscaled integer.
    words = np.frombuffer(array.buffers()[1], "<i8").reshape(-1, 2)[array.offset : array.offset + len(array)]
    low = words[:, 0]  # not by its absolute value, which for the least of them is itself
    small = (words[:, 1] == low >> 63) & (low > -(10**13)) & (low < 10**13)
    if not small.any():
        return plain
    unscaled = pa.array(np.where(small, low, 0))
    decimals = pc.utf8_rtrim(pc.utf8_lpad(pc.abs(unscaled).cast(pa.utf8()), 18, padding="0"), "0")
    sign = pc.if_else(pc.less(unscaled, 0), "-0.", "0.")
    tiny = pc.if_else(pc.equal(unscaled, 0), "0", pc.binary_join_element_wise(sign, decimals, ""))
    return pc.if_else(pc.and_(pa.array(small), pc.is_valid(array)), tiny, plain)


# Dates and times

# The first day and the last one, from 1970-01-01.
_YEARS = -98_615, 741_807  # 1700-01-01 to 4000-12-31
_YEARS_OF_TEXT = -719_162, 2_932_896  # 0001-01-01 to 9999-12-31: four digits


def _milliseconds(array: pa.Array) -> pa.Array:
    """timestamp[ms, UTC], floored; a naive timestamp is UTC, a date is its midnight."""
    if pa.types.is_date(array.type):
        days = array.cast(pa.date32(), safe=False).cast(pa.int32()).cast(pa.int64())
        return _checked_product(days, 86_400_000).cast(DATETIME)
    numbers = array.cast(pa.int64())
    unit = array.type.unit
    if unit == "s":
        return _checked_product(numbers, 1000).cast(DATETIME)
    per_ms = {"ms": 1, "us": 1000, "ns": 1_000_000}[unit]
    return _floor_divided(numbers, per_ms).cast(DATETIME)


def _checked_product(numbers: pa.Array, factor: int) -> pa.Array:
    """Clipped before it is multiplied: what lies outside the range of years is refused later, never wrapped."""
    bound = 2**62 // factor
    clipped = pc.max_element_wise(pc.min_element_wise(numbers, bound, skip_nulls=False), -bound, skip_nulls=False)
    return pc.multiply(clipped, factor)


def _floor_divided(numbers: pa.Array, divisor: int) -> pa.Array:
    if divisor == 1:
        return numbers
    whole = np.frombuffer(numbers.buffers()[1], "<i8")[numbers.offset : numbers.offset + len(numbers)] // divisor
    return pa.array(whole, mask=pc.is_null(numbers).to_numpy(zero_copy_only=False))


def _floor(array: pa.Array, milliseconds: int) -> pa.Array:
    return pc.multiply(_floor_divided(array.cast(pa.int64()), milliseconds), milliseconds).cast(array.type)


def _in_years(array: pa.Array, ms_a_unit: int, days: tuple[int, int] = _YEARS) -> tuple[pa.Array, Reasons | None]:
    per_day = 86_400_000 // ms_a_unit
    numbers = array.cast(pa.int32() if pa.types.is_date32(array.type) else pa.int64()).cast(pa.int64())
    outside = pc.or_(pc.less(numbers, days[0] * per_day), pc.greater_equal(numbers, (days[1] + 1) * per_day))
    return _without(array, _reasons(outside, Reason.DATE_RANGE))


def _times(array: pa.Array) -> tuple[pa.Array, Reasons | None]:
    """time32[ms], floored."""
    width = np.dtype(f"<i{array.type.bit_width // 8}")
    per_ms = {"s": 0, "ms": 1, "us": 1000, "ns": 1_000_000}[array.type.unit]
    numbers = array.cast(pa.int32() if width.itemsize == 4 else pa.int64()).cast(pa.int64())
    whole = pc.multiply(numbers, 1000) if per_ms == 0 else _floor_divided(numbers, per_ms)
    outside = pc.or_(pc.less(whole, 0), pc.greater_equal(whole, 86_400_000))
    whole, reasons = _without(whole, _reasons(outside, Reason.TIME_RANGE))
    return whole.cast(pa.int32()).cast(TIME), reasons


def _datetime_text(array: pa.Array) -> pa.Array:
    numbers = array.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False)
    days, rest = np.divmod(numbers, 86_400_000)
    dates = days.astype("datetime64[D]")
    years = dates.astype("datetime64[Y]")
    months = dates.astype("datetime64[M]")
    template = np.frombuffer(b"0000-00-00T00:00:00.000Z", np.uint8)
    characters = np.tile(template, (len(numbers), 1))
    _digits(characters, 0, years.astype(np.int64) + 1970, 4)
    _digits(characters, 5, (months - years.astype("datetime64[M]")).astype(np.int64) + 1, 2)
    _digits(characters, 8, (dates - months.astype("datetime64[D]")).astype(np.int64) + 1, 2)
    _clock(characters, 11, rest)
    return _fixed_text(characters, array)


def _time_text(array: pa.Array) -> pa.Array:
    numbers = array.cast(pa.int32()).fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
    characters = np.tile(np.frombuffer(b"00:00:00.000Z", np.uint8), (len(numbers), 1))
    _clock(characters, 0, numbers)
    return _fixed_text(characters, array)


def _clock(characters: npt.NDArray[np.uint8], at: int, milliseconds: npt.NDArray[np.int64]) -> None:
    seconds, thousandths = np.divmod(milliseconds, 1000)
    minutes, second = np.divmod(seconds, 60)
    hour, minute = np.divmod(minutes, 60)
    for position, number, width in ((0, hour, 2), (3, minute, 2), (6, second, 2), (9, thousandths, 3)):
        _digits(characters, at + position, number, width)


def _digits(characters: npt.NDArray[np.uint8], at: int, numbers: npt.NDArray[np.int64], width: int) -> None:
    for position in range(width - 1, -1, -1):
        numbers, digit = np.divmod(numbers, 10)
        characters[:, at + position] = digit + ord("0")
