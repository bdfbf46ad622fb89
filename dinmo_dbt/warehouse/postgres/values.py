"""Values as Postgres writes them in CSV, in Arrow's types, and where one can't be had. Pure."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable
from contextlib import suppress
from decimal import ROUND_UP, Decimal, InvalidOperation, localcontext

import pyarrow as pa
import pyarrow.compute as pc

from dinmo_dbt.rows.reasons import unreadable_mark
from dinmo_dbt.warehouse.postgres.columns import LIST, WIDE_DECIMAL
from dinmo_dbt.warehouse.query import one_by_one

_DECIMAL_END = Decimal("9" * 38)
_FINEST = Decimal(1).scaleb(-38)
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def convert(block: pa.RecordBatch, schema: pa.Schema, *, whole: bool) -> pa.RecordBatch:
    """In the types of `schema`, with `unreadable_mark`s; `whole`: all text is known to be UTF-8."""
    arrays, fields = [], list(schema)
    marks: list[pa.Array] = []
    for column, field in zip(block.columns, schema, strict=True):
        values, bad = _from_text(column, field.type, whole=whole)
        arrays.append(values)
        if bad is not None:
            marks.append(bad)
            fields.append(pa.field(unreadable_mark(field.name), pa.bool_()))
    return pa.RecordBatch.from_arrays([*arrays, *marks], schema=pa.schema(fields))


def _from_text(column: pa.Array, kind: pa.DataType, *, whole: bool) -> tuple[pa.Array, pa.Array | None]:
    """The values, and where one can't be had in that type: it is null there."""
    if column.type == kind and (whole or not pa.types.is_string(kind)):
        return column, None
    if not (pa.types.is_binary(kind) or pa.types.is_list(kind) or pa.types.is_string(kind)):
        with suppress(pa.ArrowInvalid):
            if pa.types.is_time(kind):
                return pc.binary_join_element_wise("1970-01-01", column, " ").cast(pa.timestamp("us")).cast(kind), None
            return column.cast(kind), None
    # A block with a value that Arrow has no form for: rare, and then value by value.
    one, stored = _ONE_VALUE[kind.id]
    found, bad = [], []
    for raw in column.cast(pa.binary()).to_pylist():
        try:
            found.append(None if raw is None else one(raw.decode()))
            bad.append(False)
        except (ValueError, InvalidOperation):
            found.append(None)
            bad.append(True)
    try:
        values = pa.array(found, stored or kind)
    except pa.ArrowInvalid:
        values, bad = one_by_one(found, kind, bad)
    return values.cast(kind) if stored else values, pa.array(bad) if any(bad) else None


def _decimal(text: str) -> Decimal:
    """What is beyond 38 digits becomes a number that no Salesforce field takes. ValueError for NaN and infinity."""
    number = Decimal(text)
    if not number.is_finite():
        raise ValueError(text)
    if number.copy_abs() > _DECIMAL_END:
        return _DECIMAL_END
    with localcontext() as context:
        context.prec = 76
        # Away from zero, so that more decimal places than can be sent never round to a number that can.
        return number.quantize(_FINEST, rounding=ROUND_UP) if _places(number) > 38 else number


def _places(number: Decimal) -> int:
    exponent = number.as_tuple().exponent
    return -exponent if isinstance(exponent, int) else 0


def _date(text: str) -> int:
    try:
        return dt.date.fromisoformat(text).toordinal() - _EPOCH.toordinal()
    except ValueError:
        return 1 - 2**31 if _is_early(text) else 2**31 - 1


def _timestamp(text: str) -> int:
    try:
        at = dt.datetime.fromisoformat(text)  # also offsets with seconds, which Arrow has no form for
    except ValueError:
        return 1 - 2**63 if _is_early(text) else 2**63 - 1
    return ((at.replace(tzinfo=dt.UTC) if at.tzinfo is None else at) - _EPOCH) // dt.timedelta(microseconds=1)


def _is_early(text: str) -> bool:
    return text.startswith("-") or text.endswith(" BC")


def _time(text: str) -> int:
    if text.startswith("24:"):
        return 86_400_000_000
    at = dt.time.fromisoformat(text)
    return ((at.hour * 60 + at.minute) * 60 + at.second) * 1_000_000 + at.microsecond


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text.removeprefix("\\x"))


def _list(text: str) -> list[str | None]:
    """An array's elements. ValueError for one of several dimensions, or of JSON with lists or objects in it."""
    elements: list[str | None] = json.loads(text)
    if any(isinstance(each, list | dict) for each in elements):
        raise ValueError
    return elements


# By the Arrow type: how one value is read, and from which type it is cast.
_ONE_VALUE: dict[int, tuple[Callable[[str], object], pa.DataType | None]] = {
    pa.decimal128(1, 0).id: (_decimal, None),
    WIDE_DECIMAL.id: (_decimal, None),
    pa.date32().id: (_date, pa.int32()),
    pa.timestamp("us").id: (_timestamp, pa.int64()),
    pa.time64("us").id: (_time, pa.int64()),
    pa.binary().id: (_bytes, None),
    pa.utf8().id: (str, None),
    LIST.id: (_list, None),
}
