"""Numbers: decimals and doubles of 15 digits, as Salesforce keeps them. Vectorised, pure."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dinmo_dbt.destination import Field
from dinmo_dbt.rows.arrow import DECIMAL, readable
from dinmo_dbt.rows.reasons import Reason, Reasons, merge, reasons_of, without

Doubles = npt.NDArray[np.float64]
Words = npt.NDArray[np.uint64]


def unkept(source: pa.Array, array: pa.Array) -> Reasons | None:
    """Numbers whose whole part a double changes, as `canonical` gives reasons; `array`: canonical, of `source`."""
    if pa.types.is_null(source.type):
        return None
    is_double = pa.types.is_floating(source.type)
    # Below these a double's 15 decimal digits, and a whole number, are kept as they are.
    large = pc.fill_null(pc.greater_equal(pc.abs(array), decimal_of(10**15 if is_double else 2**53)), False)
    if not pc.any(large).as_py():
        return None
    places = np.flatnonzero(large.to_numpy(zero_copy_only=False))
    whole = [int(value) for value in array.take(pa.array(places)).to_pylist()]
    given = doubles(source).take(pa.array(places)).to_pylist() if is_double else whole
    changed = np.zeros(len(array), np.bool_)
    changed[places] = [not number % 1 and number != int(float(sent)) for number, sent in zip(given, whole, strict=True)]
    return reasons_of(changed, Reason.NUMBER_DIGITS)


ANY_NUMBER = Field(name="", label="", type="double")
_POWERS = np.array([float(f"1e{power}") for power in range(19)])
# Below the first a double of 15 digits has 18 places, and from each on one less.
_BOUNDS = np.array([float(f"1e{power}") for power in range(-3, 20)])
_MOST = 9.999999999999993e19  # the largest double that fifteen digits do not round up to 10^20
_MILLION = 1e6


def canonical_numbers(array: pa.Array, field: Field) -> tuple[pa.Array, Reasons | None]:
    if pa.types.is_floating(array.type):
        values, reasons = from_floats(doubles(array))
    elif pa.types.is_decimal(array.type):
        values, reasons = _from_decimals(array)
    else:
        values, reasons = _from_integers(array), None
    integer_digits = field.precision - field.scale if field.precision else 0
    if 0 < integer_digits < 20:
        outside = pc.greater_equal(pc.abs(values), decimal_of(10**integer_digits))
        reasons = merge(reasons, reasons_of(outside, Reason.NUMBER_RANGE))
    return without(values, reasons)


def canonical_whole(array: pa.Array, _field: Field, *, below: int) -> tuple[pa.Array, Reasons | None]:
    """Whole numbers from -`below` on."""
    values, reasons = canonical_numbers(array, ANY_NUMBER)
    fraction = pc.not_equal(values, pc.trunc(values))
    reasons = merge(reasons, reasons_of(fraction, Reason.NOT_WHOLE))
    outside = pc.or_(pc.greater_equal(values, decimal_of(below)), pc.less(values, decimal_of(-below)))
    return without(values, merge(reasons, reasons_of(outside, Reason.NUMBER_RANGE)))


def from_text(array: pa.Array) -> pa.Array:
    """Canonical numbers of Salesforce's text, also `9.1E8`: 15 digits of each; null where it is none."""
    return from_floats(readable(array, r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$").cast(pa.float64()))[0]


def exact_from_text(array: pa.Array) -> pa.Array:
    """The same to the last digit of a text in plain notation."""
    return pc.coalesce(readable(array, r"^[+-]?\d{1,20}(\.\d{1,18})?$").cast(DECIMAL), from_text(array))


def constant(value: Any) -> pa.Array | None:
    """One row of a number, or of its digits, which are text where YAML would not keep them; None if it is no number."""
    if isinstance(value, bool):
        return None
    if isinstance(value, float):
        return pa.array([value])
    plain = re.fullmatch(r"[+-]?[0-9]{1,20}(\.[0-9]{1,18})?", str(value))
    return pa.array([Decimal(plain[0])]) if plain else None


def decimal_of(number: int) -> pa.Scalar:
    return pa.scalar(Decimal(number), DECIMAL)


def _from_integers(array: pa.Array) -> pa.Array:
    if pa.types.is_uint64(array.type):
        return array.cast(DECIMAL)
    return _scaled(_filled(array).astype(np.int64), 18, array)


def _from_decimals(array: pa.Array) -> tuple[pa.Array, Reasons | None]:
    kind, power = array.type, 18 - array.type.scale
    if pa.types.is_decimal128(kind) and kind.precision < 19 and power in range(20):
        # So few digits are in the lower word alone; what a null has there is of no account.
        return _scaled(_words(array)[:, 0], power, array), None
    reasons = None
    if kind.scale < 0:
        array = array.cast(pa.decimal256(76, 0))  # Arrow compares none of a negative scale
    if kind.precision - kind.scale > 20:
        too_large = pc.greater_equal(pc.abs(array), pa.scalar(Decimal(10**20), array.type))
        reasons = reasons_of(too_large, Reason.NUMBER_RANGE)
    if kind.scale >= 19:
        finer = pc.not_equal(array, pc.round(array, ndigits=18, round_mode="towards_zero"))
        reasons = merge(reasons, reasons_of(finer, Reason.NUMBER_SCALE))
    fine, reasons = without(array, reasons)
    return fine.cast(DECIMAL), reasons


def _filled(array: pa.Array) -> npt.NDArray[Any]:
    """Its numbers, 0 for null."""
    numbers: npt.NDArray[Any] = array.fill_null(0).to_numpy()
    return numbers


def _words(array: pa.Array) -> npt.NDArray[np.int64]:
    """128-bit decimals as two words each, the lower first."""
    return np.frombuffer(array.buffers()[1], "<i8").reshape(-1, 2)[array.offset : array.offset + len(array)]


def doubles(array: pa.Array) -> pa.Array:
    """Doubles; a narrower float as its shortest decimal, as databases show it: 0.1, not 0.100000001490116."""
    return array if pa.types.is_float64(array.type) else array.cast(pa.utf8()).cast(pa.float64())


def from_floats(array: pa.Array) -> tuple[pa.Array, Reasons | None]:
    """Doubles as the nearest decimal of 15 significant digits (at most 18 decimal places), exactly.

    `whole` is the 15-digit integer nearest to value * 10^places, found with the product's rounding error made good
    (Dekker's two-product), so that ties and last digits come out as decimal arithmetic would give them.
    """
    numbers = _filled(array)
    not_finite, too_large = ~np.isfinite(numbers), np.abs(numbers) > _MOST
    reasons = merge(reasons_of(not_finite, Reason.NOT_FINITE), reasons_of(too_large, Reason.NUMBER_RANGE))
    numbers = np.where(not_finite | too_large, 0.0, numbers)

    millionths = _millionths(numbers)
    if millionths is not None:
        return without(_scaled(millionths, 12, array), reasons)
    whole, places = _fifteen_digits(numbers)
    return without(_decimals(_times_power_of_ten(whole, 18 - places), array), reasons)


def _decimals(words: tuple[Words, Words], like: pa.Array) -> pa.Array:
    """Canonical numbers of their 128 bits, null where `like` is."""
    unscaled = np.stack(words, axis=1)
    values = pa.Array.from_buffers(DECIMAL, len(unscaled), [None, pa.py_buffer(unscaled)])
    return pc.if_else(pc.is_valid(like), values, pa.scalar(None, DECIMAL)) if like.null_count else values


def _scaled(whole: npt.NDArray[np.int64], power: int, like: pa.Array) -> pa.Array:
    """whole * 10^power as canonical numbers, power 0 to 19."""
    return _decimals(_multiply(*_signed(whole), np.uint64(10**power)), like)


def _millionths(numbers: Doubles) -> npt.NDArray[np.int64] | None:
    """The quick way for a column of decimals with up to 6 places, as most are; None if one of them is not.

    A whole number below 10^15 that gives the double back when divided by 10^6 is its one decimal of 15 digits.
    """
    millionths = np.rint(numbers * _MILLION)
    if not ((millionths / _MILLION == numbers) & (np.abs(millionths) < 1e15)).all():
        return None
    return millionths.astype(np.int64)


def _fifteen_digits(numbers: Doubles) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Each double as a whole number of 15 digits and its decimal places."""
    places = 18 - np.searchsorted(_BOUNDS, np.abs(numbers), side="right")
    return _nearest_whole(numbers, places), places


def _nearest_whole(numbers: Doubles, places: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The whole number nearest to numbers * 10^places, ties to even; results stay below 10^16."""
    factor = _POWERS[np.maximum(places, 0)]
    divisor = _POWERS[np.maximum(-places, 0)]
    product = numbers * factor
    whole = np.rint(product / divisor)
    back = whole * divisor
    rest = (product - back) - _product_error(whole, divisor, back) + _product_error(numbers, factor, product)
    # Product and quotient of a tie are exact, so rint took the even one.
    away = np.abs(rest) * 2 > divisor
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


def _times_power_of_ten(whole: npt.NDArray[np.int64], power: npt.NDArray[np.int64]) -> tuple[Words, Words]:
    """whole * 10^power as 128-bit two's complement, low word first; |whole| < 10^16, power 0 to 23."""
    first = np.power(np.uint64(10), np.minimum(power, 11).astype(np.uint64))
    second = np.power(np.uint64(10), np.maximum(power - 11, 0).astype(np.uint64))
    return _multiply(*_multiply(*_signed(whole), first), second)


def _signed(whole: npt.NDArray[np.int64]) -> tuple[Words, Words]:
    """Two's complement in 128 bits, low word first."""
    return whole.view(np.uint64), (whole >> 63).view(np.uint64)


def _multiply(low: Words, high: Words, factor: Words | np.uint64) -> tuple[Words, Words]:
    """(low, high) * factor modulo 2^128, by 32-bit halves."""
    half, mask = np.uint64(32), np.uint64(2**32 - 1)
    a0, a1 = low & mask, low >> half
    b0, b1 = factor & mask, factor >> half
    upper = a1 * b0 + (a0 * b0 >> half)
    middle = a0 * b1 + (upper & mask)
    return low * factor, high * factor + a1 * b1 + (upper >> half) + (middle >> half)


def decimal_text(array: pa.Array) -> pa.Array:
    """Plain notation: no exponent, no trailing zeros, `0` for zero."""
    if len(array) == 0:
        return pa.array([], pa.utf8())
    millionths = _whole_millionths(array)
    if millionths is None:
        return _long_decimal_text(array)
    whole, rest = (part.view(np.int64) for part in np.divmod(np.abs(millionths).view(np.uint64), np.uint64(10**6)))
    if not rest.any():
        text = pa.array(np.sign(millionths) * whole).cast(pa.utf8())
    else:
        text = pc.binary_join_element_wise(pa.array(whole).cast(pa.utf8()), _fractions(rest), "")
        negative = millionths < 0
        if negative.any():
            text = pc.binary_join_element_wise(pc.if_else(pa.array(negative), "-", ""), text, "")
    return pc.if_else(pc.is_valid(array), text, pa.scalar(None, pa.utf8())) if array.null_count else text


def _whole_millionths(array: pa.Array) -> npt.NDArray[np.int64] | None:
    """Canonical numbers as millionths, 0 for null; None if one of them is none, or takes more than 64 bits."""
    try:
        scaled = array.cast(pa.decimal128(38, 6))
        whole = pa.Array.from_buffers(pa.decimal128(38, 0), len(scaled), scaled.buffers(), offset=scaled.offset)
        return _filled(whole.cast(pa.int64()))
    except pa.ArrowInvalid:
        return None


def _fractions(millionths: npt.NDArray[np.int64]) -> pa.Array:
    """`.5` for 500,000: what follows the whole number, without trailing zeros; '' for 0."""
    hundredths, finer = np.divmod(millionths, 10**4)
    if not finer.any():
        return _HUNDREDTHS.take(pa.array(hundredths))
    digits = pc.utf8_lpad(pa.array(millionths).cast(pa.utf8()), 6, padding="0")
    return _unpadded(pc.binary_join_element_wise("", digits, "."))


def _unpadded(text: pa.Array) -> pa.Array:
    return pc.utf8_rtrim(pc.utf8_rtrim(text, "0"), ".")


_HUNDREDTHS = _unpadded(pa.array([f".{number:02}" for number in range(100)]))


def _long_decimal_text(array: pa.Array) -> pa.Array:
    text = array.cast(pa.utf8())
    # Arrow writes an exponent below 1e-6 and for zero: those are written from their unscaled integer.
    small = pc.less(pc.abs(array), pa.scalar(Decimal("0.00001"), DECIMAL))
    if pc.any(small).as_py():
        unscaled = pa.array(_words(array)[:, 0])
        decimals = pc.utf8_lpad(pc.abs(unscaled).cast(pa.utf8()), 18, padding="0")
        sign = pc.if_else(pc.less(unscaled, 0), "-0.", "0.")
        text = pc.if_else(small, pc.binary_join_element_wise(sign, decimals, ""), text)
    return _unpadded(text)
