"""Doubles as Java prints them."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc


def java_doubles(numbers: pa.Array) -> pa.Array:
    """`java_double` of a column. Arrow prints the same digits as Python, but whole numbers without a point."""
    size = pc.abs(numbers)
    plain = pc.or_(pc.equal(size, 0.0), pc.and_(pc.greater_equal(size, 1e-3), pc.less(size, 1e7)))
    text = pc.cast(numbers, pa.string())
    text = pc.if_else(pc.match_substring(text, "."), text, pc.binary_join_element_wise(text, ".0", ""))
    if pc.all(plain).as_py() in (True, None):
        return text
    rest = [java_double(n) for n in numbers.filter(pc.invert(plain)).to_pylist()]
    return pc.replace_with_mask(text, pc.invert(plain), pa.array(rest, pa.string()))


def java_double(number: float) -> str:
    """Java's Double.toString: `250.0`, `9.12260031E8`, `1.0E-4`."""
    size = abs(number)
    if size == 0 or 1e-3 <= size < 1e7:
        return repr(float(number))
    digits, _, exponent = repr(float(number)).partition("e")
    sign = "-" if digits.startswith("-") else ""
    digits = digits.lstrip("-")
    whole, _, fraction = digits.partition(".")
    power = int(exponent or 0)
    text = whole + fraction
    stripped = text.lstrip("0")
    power += len(whole) - 1 - (len(text) - len(stripped))
    mantissa = stripped.rstrip("0") or "0"
    return f"{sign}{mantissa[0]}.{mantissa[1:] or '0'}E{power}"
