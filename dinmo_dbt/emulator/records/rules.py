"""From text to stored values, a column at a time: what Salesforce accepts in a field, and what it says if not.

REST, collections and Bulk all come through a type's `accept`, so one value has one meaning on every surface. Text
comes in as an Arrow column in which null asks for null; storage forms come out: text, double, int64, or ISO
text for dates (`2024-01-31`) and times (`2024-01-31T12:00:00`, UTC). Sources: wire reference §3.6, §4.2, §5.3.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dinmo_dbt.emulator.errors import ApiError, RowError
from dinmo_dbt.emulator.soql.java import java_double

Errors = dict[int, list[RowError]]

# Java's String.trim: everything up to U+0020. U+00A0 survives. Per field type: unverified.
_BLANKS = "".join(chr(c) for c in range(33))
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.A)
_INTEGER = re.compile(r"[+-]?\d+", re.A)
_DATE = re.compile(r"(\d{4})-(\d\d)-(\d\d)(Z|[+-]\d\d:?\d\d)?", re.A)
_DATETIME_PATTERN = r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?(Z|[+-]\d\d:?\d\d)$"
_DATETIME = re.compile(r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d)(?::(\d\d)(?:\.(\d+))?)?(Z|[+-]\d\d:?\d\d)?", re.A)
_TIME = re.compile(r"(\d\d):(\d\d):(\d\d)(?:\.(\d{1,3})\d*)?Z?", re.A)
_EMAIL = re.compile(r"[^\s@,;:<>()\[\]\"\\]+@[^\s@,;:<>()\[\]\"\\.]+(\.[^\s@,;:<>()\[\]\"\\.]+)+")
_YEARS = (1700, 4000)  # Salesforce keeps dates from 1700 to 4000; the text for others is unverified


class Kind(Protocol):
    """What is asked of a field's type here: the name of its XML type, and whether one of its values is several."""

    @property
    def xsd(self) -> str: ...
    @property
    def holds_several(self) -> bool: ...


class Option(Protocol):
    """A value of a picklist."""

    @property
    def value(self) -> str: ...
    @property
    def active(self) -> bool: ...


class Described(Protocol):
    """What is asked of a field here; the schema's is one."""

    @property
    def name(self) -> str: ...
    @property
    def label(self) -> str: ...
    @property
    def type(self) -> str: ...
    @property
    def kind(self) -> Kind: ...
    @property
    def length(self) -> int: ...
    @property
    def precision(self) -> int: ...
    @property
    def scale(self) -> int: ...
    @property
    def picklist(self) -> Sequence[Option]: ...
    @property
    def restricted_picklist(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a column came from, which decides how a value that can't be read is refused.

    Bulk refuses the row and names the column by its position; a collection refuses the record (CumulusCI #3283);
    a single record in JSON is the whole request.
    """

    csv_column: int | None = None
    collection: bool = False

    def parser_error(self, message: str) -> RowError:
        """JSON that can't be read. `message` ends where the position follows, which is not known here."""
        if self.collection:  # Salesforce does not know it either
            place = "[Source: N/A; line: -1, column: -1][line:-1, column:-1]"
            return RowError("JSON_PARSER_ERROR", f"{message} {place}")
        raise ApiError(400, "JSON_PARSER_ERROR", f"{message} [line:1, column:1]")

    def unreadable(self, field: Described, text: str, token: str = "VALUE_STRING") -> RowError:  # noqa: S107
        if self.csv_column is None:
            return self.parser_error(
                f"Cannot deserialize instance of {field.type} from {token} value {text} or request may be missing a "
                "required field at"
            )
        if field.kind.xsd == "boolean":  # exact Bulk wording unverified
            reason = f"'{text}' is not valid for type xsd:boolean, should be '0', '1', 'true' or 'false'"
        else:
            reason = f"'{text}' is not a valid value for the type xsd:{field.kind.xsd}"
        return RowError("INVALID_FIELD", f"Failed to deserialize field at col {self.csv_column}. Due to, {reason}")


Accept = Callable[[Described, pa.Array, Origin, Errors], pa.Array]


def _trimmed(text: pa.Array) -> pa.Array:
    """Without surrounding blanks; what is then empty is null."""
    text = pc.utf8_trim(text, characters=_BLANKS)
    empty = pc.equal(pc.binary_length(text), 0)
    if pc.any(empty).as_py():
        text = pc.if_else(empty, pa.scalar(None, pa.string()), text)
    return text


def text(field: Described, given: pa.Array, _origin: Origin, errors: Errors) -> pa.Array:
    return _kept(field, _trimmed(given), errors)


def email(field: Described, given: pa.Array, _origin: Origin, errors: Errors) -> pa.Array:
    given = _trimmed(given)
    for row, value in _rows(given, _not(pc.match_substring_regex(given, f"^{_EMAIL.pattern}$"))):
        _add(errors, row, "INVALID_EMAIL_ADDRESS", f"{field.label}: invalid email address: {value}", field)
    return _kept(field, pc.utf8_lower(given), errors)


def _kept(field: Described, text: pa.Array, errors: Errors) -> pa.Array:
    if field.picklist and field.restricted_picklist:
        _restricted(field, text, errors)
    if field.length:
        # Characters are counted as code points; whether Salesforce counts UTF-16 units is unverified.
        longest = pc.max(pc.binary_length(text)).as_py() or 0
        if longest > field.length:
            for row, value in _rows(text, pc.greater(pc.utf8_length(text), field.length)):
                message = f"{field.label}: data value too large: {value} (max length={field.length})"
                _add(errors, row, "STRING_TOO_LONG", message, field)
    return text


def _restricted(field: Described, text: pa.Array, errors: Errors) -> None:
    """A restricted picklist takes API values only; whether case matters is unverified (here it does).

    An unrestricted one takes any text. That Salesforce keeps unknown values as inactive ones, and whether it gives a
    text the case of the value it is like, is not imitated.
    """
    allowed = {v.value for v in field.picklist if v.active}
    if field.kind.holds_several:
        wrong = pa.array([v is not None and not allowed.issuperset(v.split(";")) for v in text.to_pylist()])
    else:
        wrong = _not(pc.is_in(text, value_set=pa.array(sorted(allowed), pa.string())))
    for row, value in _rows(text, wrong):
        message = f"{field.label}: bad value for restricted picklist field: {value}"
        _add(errors, row, "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST", message, field)


def double(field: Described, text: pa.Array, origin: Origin, errors: Errors) -> pa.Array:
    text = _trimmed(text)
    try:
        numbers = pc.cast(text, pa.float64())
        plain = bool(pc.all(pc.is_finite(numbers)).as_py() in (True, None))
    except pa.ArrowInvalid:
        plain = False
    if not plain:
        numbers = _each(field, text, _float_of, origin, errors, pa.float64())
    # Numbers are never rounded to the field's scale; too many integer digits are refused (HELP 000387302).
    limit = 10.0 ** ((field.precision or 18) - field.scale)
    largest = pc.max(pc.abs(numbers)).as_py()
    if largest is not None and largest >= limit:
        for row, value in _rows(numbers, pc.greater_equal(pc.abs(numbers), limit)):
            message = f"{field.label}: value outside of valid range on numeric field: {java_double(value)}"
            _add(errors, row, "NUMBER_OUTSIDE_VALID_RANGE", message, field)
    return numbers


def boolean(field: Described, text: pa.Array, origin: Origin, errors: Errors) -> pa.Array:
    """A boolean is never null: null asks for false (inferred from describe, nillable false)."""
    text = _trimmed(text)
    folded = pc.fill_null(pc.ascii_lower(text), "false")
    yes = pc.is_in(folded, value_set=pa.array(["true", "1"]))
    known = pc.is_in(folded, value_set=pa.array(["true", "1", "false", "0"]))
    for row, value in _rows(text, pc.invert(known)):
        errors.setdefault(row, []).append(origin.unreadable(field, value))
    return pc.cast(yes, pa.int64())


def day(field: Described, text: pa.Array, origin: Origin, errors: Errors) -> pa.Array:
    text = _trimmed(text)
    shaped = pc.all(pc.match_substring_regex(text, r"^(1[7-9]|[23])\d{2,3}-\d\d-\d\d$")).as_py() in (True, None)
    if shaped:
        try:
            return pc.cast(pc.cast(text, pa.date32()), pa.string())
        except pa.ArrowInvalid:
            pass  # some value is no day of the calendar: the loop below finds it
    return _each(field, text, _date_of, origin, errors, pa.string())


def moment(field: Described, text: pa.Array, origin: Origin, errors: Errors) -> pa.Array:
    text = _trimmed(text)
    if pc.all(pc.match_substring_regex(text, _DATETIME_PATTERN)).as_py() in (True, None):
        try:
            moments = pc.cast(text, pa.timestamp("us", tz="UTC"))
            years = pc.min_max(pc.year(moments)).as_py()
            if years["min"] is None or (_YEARS[0] <= years["min"] and years["max"] <= _YEARS[1]):
                whole = pc.floor_temporal(pc.cast(moments, pa.timestamp("us")), unit="second")
                # Stored at second precision (unverified); floored, so 1969 does not move to 1970.
                plain = pc.cast(pc.cast(whole, pa.timestamp("s")), pa.string())
                return pc.replace_substring(plain, " ", "T", max_replacements=1)
        except pa.ArrowInvalid:
            pass  # some value is no moment: the loop below finds it
    return _each(field, text, _datetime_of, origin, errors, pa.string())


def whole(field: Described, text: pa.Array, origin: Origin, errors: Errors) -> pa.Array:
    return _each(field, _trimmed(text), _int_of, origin, errors, pa.int64())


def clock(field: Described, text: pa.Array, origin: Origin, errors: Errors) -> pa.Array:
    return _each(field, _trimmed(text), _time_of, origin, errors, pa.string())


def _each(
    field: Described, text: pa.Array, of: Callable[[str], Any], origin: Origin, errors: Errors, kind: pa.DataType
) -> pa.Array:
    """Row by row, where the column as a whole could not be cast or has no vector form."""
    values: list[Any] = []
    for row, value in enumerate(text.to_pylist()):
        stored = None
        if value is not None:
            try:
                stored = of(value)
            except _OutOfRangeError:
                message = f"{field.label}: value outside of valid range on numeric field: {value}"
                _add(errors, row, "NUMBER_OUTSIDE_VALID_RANGE", message, field)
            except _NotOfTypeError:
                message = f"{field.label}: value not of required type: {value}"
                _add(errors, row, "INVALID_TYPE_ON_FIELD_IN_RECORD", message, field)
            except ValueError:
                errors.setdefault(row, []).append(origin.unreadable(field, value))
        values.append(stored)
    return pa.array(values, kind)


class _OutOfRangeError(ValueError):
    pass


class _NotOfTypeError(ValueError):
    pass


def _float_of(text: str) -> float:
    if _NUMBER.fullmatch(text) is None:
        raise ValueError(text)
    number = float(text)
    if math.isinf(number):
        raise _OutOfRangeError(text)
    return number


def _int_of(text: str) -> int:
    if _INTEGER.fullmatch(text) is None:
        if _NUMBER.fullmatch(text) is not None:
            raise _NotOfTypeError(text)
        raise ValueError(text)
    number = int(text)
    if not -(2**31) <= number < 2**31:
        raise _OutOfRangeError(text)
    return number


def _date_of(text: str) -> str:
    found = _DATE.fullmatch(text)
    if found is None:
        raise ValueError(text)
    day = date(int(found[1]), int(found[2]), int(found[3]))
    if not _YEARS[0] <= day.year <= _YEARS[1]:
        raise ValueError(text)
    return day.isoformat()


def _datetime_of(text: str) -> str:
    found = _DATETIME.fullmatch(text)
    if found is None:
        raise ValueError(text)
    year, month, day, hour, minute = (int(found[i]) for i in range(1, 6))
    moment = datetime(year, month, day, hour, minute, int(found[6] or 0), tzinfo=UTC)
    zone = found[8]
    if zone not in (None, "Z"):
        digits = zone[1:].replace(":", "")
        shift = timedelta(hours=int(digits[:2]), minutes=int(digits[2:]))
        try:
            moment = moment - shift if zone[0] == "+" else moment + shift
        except OverflowError as error:
            raise ValueError(text) from error
    if not _YEARS[0] <= moment.year <= _YEARS[1]:
        raise ValueError(text)
    return moment.strftime("%Y-%m-%dT%H:%M:%S")


def _time_of(text: str) -> str:
    found = _TIME.fullmatch(text)
    if found is None:
        raise ValueError(text)
    time(int(found[1]), int(found[2]), int(found[3]))
    return f"{found[1]}:{found[2]}:{found[3]}.{(found[4] or '').ljust(3, '0')}Z"


def _not(mask: pa.Array) -> pa.Array:
    return pc.invert(mask)


def _rows(values: pa.Array, wrong: pa.Array) -> Iterator[tuple[int, Any]]:
    """The rows where `wrong` is true (null is not), with their values."""
    if not pc.any(wrong).as_py():
        return
    for row in np.flatnonzero(pc.fill_null(wrong, False).to_numpy(zero_copy_only=False)).tolist():
        value = values[row].as_py()
        if value is not None:
            yield row, value


def _add(errors: Errors, row: int, code: str, message: str, field: Described) -> None:
    errors.setdefault(row, []).append(RowError(code, message, (field.name,)))
