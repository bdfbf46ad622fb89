"""Stored values as the API prints them: JSON for REST, text for Bulk's CSV.

REST prints doubles with a point and dateTimes as `...000+0000`; Bulk prints Java's doubles and `...000Z`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dinmo_dbt.emulator.schema.definitions import NUMBER_TYPES, TEXT_TYPES, Field
from dinmo_dbt.emulator.store import Store


def json_value(store: Store, field: Field, value: Any) -> Any:
    """A stored value as REST prints it. Whether large doubles are printed in E notation is unverified."""
    if value is None:
        return False if field.type == "boolean" else None
    match field.type:
        case "id" | "reference":
            return store.codec.encode(value)
        case "boolean":
            return bool(value)
        case "datetime":
            return f"{value}.000+0000"
        case _:
            return value


def csv_text(store: Store, field: Field, values: list[Any]) -> pa.Array:
    """Stored values as Bulk prints them; null is the empty string."""
    if field.type in TEXT_TYPES or field.type in ("date", "time"):
        return pc.fill_null(pa.array(values, pa.string()), "")
    if field.type in ("id", "reference"):
        rids = np.array([-1 if v is None else v for v in values], np.int64)
        return pc.fill_null(store.codec.encode_many(rids), "")
    if field.type in NUMBER_TYPES:
        return pc.fill_null(java_doubles(pa.array(values, pa.float64())), "")
    if field.type == "datetime":
        return pc.fill_null(pc.binary_join_element_wise(pa.array(values, pa.string()), ".000Z", ""), "")
    if field.type == "boolean":
        return pa.array(["true" if v else "false" for v in values], pa.string())
    return pa.array(["" if v is None else str(v) for v in values], pa.string())


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
