"""Dates, times and moments: their range, and their text. Vectorised, pure."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dinmo_dbt.rows.arrow import DATETIME, TIME, fixed_text, readable
from dinmo_dbt.rows.reasons import Reason, Reasons, reasons_of, without

# The first day and the last one, from 1970-01-01.
_YEARS = -98_615, 741_807  # 1700-01-01 to 4000-12-31
YEARS_OF_TEXT = -719_162, 2_932_896  # 0001-01-01 to 9999-12-31: four digits


def milliseconds(array: pa.Array) -> pa.Array:
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


def floor(array: pa.Array, milliseconds: int) -> pa.Array:
    return pc.multiply(_floor_divided(array.cast(pa.int64()), milliseconds), milliseconds).cast(array.type)


def in_years(array: pa.Array, ms_a_unit: int, days: tuple[int, int] = _YEARS) -> tuple[pa.Array, Reasons | None]:
    per_day = 86_400_000 // ms_a_unit
    numbers = array.cast(pa.int32() if pa.types.is_date32(array.type) else pa.int64()).cast(pa.int64())
    outside = pc.or_(pc.less(numbers, days[0] * per_day), pc.greater_equal(numbers, (days[1] + 1) * per_day))
    return without(array, reasons_of(outside, Reason.DATE_RANGE))


def canonical_times(array: pa.Array) -> tuple[pa.Array, Reasons | None]:
    """time32[ms], floored."""
    width = np.dtype(f"<i{array.type.bit_width // 8}")
    per_ms = {"s": 0, "ms": 1, "us": 1000, "ns": 1_000_000}[array.type.unit]
    numbers = array.cast(pa.int32() if width.itemsize == 4 else pa.int64()).cast(pa.int64())
    whole = pc.multiply(numbers, 1000) if per_ms == 0 else _floor_divided(numbers, per_ms)
    outside = pc.or_(pc.less(whole, 0), pc.greater_equal(whole, 86_400_000))
    whole, reasons = without(whole, reasons_of(outside, Reason.TIME_RANGE))
    return whole.cast(pa.int32()).cast(TIME), reasons


def date_from_text(array: pa.Array) -> pa.Array:
    return readable(array, r"^\d{4}-\d\d-\d\d$").cast(pa.date32())


def datetime_from_text(array: pa.Array) -> pa.Array:
    form = r"^\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d{1,3})?(Z|[+-]\d\d:?\d\d)$"
    return readable(array, form).cast(DATETIME)


def time_from_text(array: pa.Array) -> pa.Array:
    clock = readable(pc.utf8_rtrim(array, "Z"), r"^([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d{1,3})?$")
    # Arrow casts no text to a time of day: it is read as a moment of the first day.
    moment = pc.binary_join_element_wise("1970-01-01T", clock, "").cast(pa.timestamp("ms"))
    return moment.cast(pa.int64()).cast(pa.int32()).cast(TIME)


def datetime_text(array: pa.Array) -> pa.Array:
    # Arrow's own is 23 characters for each year of four digits: 2024-01-31 08:00:00.000.
    text = array.cast(pa.timestamp("ms")).fill_null(0).cast(pa.utf8())
    offsets = np.frombuffer(text.buffers()[1], "<i4")[text.offset : text.offset + len(text) + 1]
    octets = np.frombuffer(text.buffers()[2] or b"", np.uint8)[offsets[0] : offsets[-1]]
    characters = np.empty((len(text), 24), np.uint8)
    characters[:, :23] = octets.reshape(-1, 23)
    characters[:, 10], characters[:, 23] = ord("T"), ord("Z")
    return fixed_text(characters, array)


def time_text(array: pa.Array) -> pa.Array:
    numbers = array.cast(pa.int32()).fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
    characters = np.tile(np.frombuffer(b"00:00:00.000Z", np.uint8), (len(numbers), 1))
    _clock(characters, 0, numbers)
    return fixed_text(characters, array)


def _clock(characters: npt.NDArray[np.uint8], at: int, milliseconds: npt.NDArray[np.int64]) -> None:
    seconds, thousandths = np.divmod(milliseconds, 1000)
    minutes, second = np.divmod(seconds, 60)
    hour, minute = np.divmod(minutes, 60)
    for position, number, width in ((0, hour, 2), (3, minute, 2), (6, second, 2), (9, thousandths, 3)):
        write_digits(characters, at + position, number, width)


def write_digits(characters: npt.NDArray[np.uint8], at: int, numbers: npt.NDArray[np.int64], width: int) -> None:
    for position in range(width - 1, -1, -1):
        numbers, digit = np.divmod(numbers, 10)
        characters[:, at + position] = digit + ord("0")
