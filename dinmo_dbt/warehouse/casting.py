"""A driver's batch in the types that were promised before it came. Pure.

Drivers narrow numbers batch by batch, give nanoseconds where the promise is microseconds, and lists where it is JSON as
text. A value that the promised type has no place for is null, and marked beside it: nothing is rounded in silence but
what is smaller than a microsecond.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Container

import pyarrow as pa
import pyarrow.compute as pc

from dinmo_dbt.rows.reasons import unreadable_mark

_WIDEST = 76
_IN_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
# A column's values in another type; ArrowInvalid if one of them has no place there.
_Conversion = Callable[[pa.Array], pa.Array]


def fitted(batch: pa.RecordBatch, schema: pa.Schema, json_columns: Container[str] = ()) -> pa.RecordBatch:
    """The batch's columns, by their place, in the names and types of `schema`, with `unreadable_mark`s.

    Of `json_columns`, text or lists of it, a text comes without its quotes, JSON's null as null, as everywhere.
    A table is cut by its `to_batches`, which copies nothing; nor does this, where the types agree.
    """
    arrays, fields, marks = [], list(schema), []
    for column, field in zip(batch.columns, schema, strict=True):
        values, bad = _in_type(column, field.type)
        arrays.append(_plain_json(values) if field.name in json_columns else values)
        if bad is not None:
            marks.append(bad)
            fields.append(pa.field(unreadable_mark(field.name), pa.bool_()))
    return pa.RecordBatch.from_arrays([*arrays, *marks], schema=pa.schema(fields))


def _in_type(column: pa.Array, kind: pa.DataType) -> tuple[pa.Array, pa.Array | None]:
    """The values, and where one has no place in that type: it is null there."""
    if column.type == kind:
        return column, None
    if pa.types.is_null(column.type):
        return pa.nulls(len(column), kind), None
    try:
        values, bad = _halved(column, kind, _conversion(column.type, kind))
    except (pa.ArrowNotImplementedError, pa.ArrowTypeError):  # no value of the one is a value of the other
        values, bad = pa.nulls(len(column), kind), column.is_valid()
    return values, bad if bad is not None and pc.any(bad).as_py() else None


def _halved(column: pa.Array, kind: pa.DataType, convert: _Conversion) -> tuple[pa.Array, pa.Array | None]:
    """Arrow says that a column holds an unfit value, not which one: halves are tried until it stands alone."""
    try:
        return convert(column), None
    except pa.ArrowInvalid:
        if len(column) == 1:
            return pa.nulls(1, kind), pa.array([True])
        middle = len(column) // 2
        parts = column.slice(0, middle), column.slice(middle)
        halves = [_halved(part, kind, convert) for part in parts]
        marks = [
            pa.array([False] * len(part)) if bad is None else bad for part, (_, bad) in zip(parts, halves, strict=True)
        ]
        return pa.concat_arrays([values for values, _ in halves]), pa.concat_arrays(marks)


def _conversion(given: pa.DataType, kind: pa.DataType) -> _Conversion:
    if pa.types.is_timestamp(given) and pa.types.is_timestamp(kind):
        return lambda column: _in_unit(column.cast(pa.int64()), given.unit, kind.unit).cast(kind)
    if pa.types.is_time(given) and pa.types.is_time(kind):
        whole = pa.int32() if pa.types.is_time32(given) else pa.int64()
        return lambda column: _in_unit(column.cast(whole).cast(pa.int64()), given.unit, kind.unit).cast(kind)
    if pa.types.is_integer(given) and pa.types.is_decimal(kind):
        # Arrow takes the type's digits for the values': an int64 is refused by decimal(10) whatever it holds.
        return lambda column: column.cast(pa.decimal256(_WIDEST, kind.scale)).cast(kind)
    if pa.types.is_nested(given) and pa.types.is_string(kind):
        return _json_texts
    return lambda column: column.cast(kind)


def _in_unit(count: pa.Array, given: str, wanted: str) -> pa.Array:
    """Whole numbers of one unit of time in another: downwards to the unit before, never towards 1970."""
    finer, coarser = _IN_SECOND[given], _IN_SECOND[wanted]
    if finer <= coarser:
        return pc.multiply_checked(count, coarser // finer)
    step = finer // coarser
    whole = pc.divide(count, step)
    is_past = pc.less(pc.subtract(count, pc.multiply(whole, step)), 0)
    return pc.subtract(whole, is_past.cast(pa.int64()))


def _json_texts(column: pa.Array) -> pa.Array:
    try:
        values = column.to_pylist(maps_as_pydicts="strict")
        return pa.array([None if value is None else _json_text(value) for value in values], pa.utf8())
    except (ArithmeticError, KeyError, ValueError) as error:  # a moment or a number that Python has no object for
        raise pa.ArrowInvalid(type(error).__name__) from error


def _json_text(value: object) -> str:
    return json.dumps(value, default=str, ensure_ascii=False, separators=(",", ":"))


def _plain_json(text: pa.Array) -> pa.Array:
    """Texts of JSON, or lists of them: a string as it is meant, null where it is null, anything else as written."""
    if pa.types.is_list(text.type):
        lists = text.to_pylist()
        return pa.array([each if each is None else list(map(_meant, each)) for each in lists], text.type)
    is_string = pc.starts_with(text, '"')
    if not pc.any(is_string).as_py() and not pc.any(pc.equal(text, "null")).as_py():
        return text
    return pa.array([_meant(value) for value in text.to_pylist()], text.type)


def _meant(text: str | None) -> str | None:
    if text is None or text == "null":
        return None
    if not text.startswith('"'):
        return text
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, str) else text
