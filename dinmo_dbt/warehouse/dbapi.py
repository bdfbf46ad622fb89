"""Every other adapter: rows through the driver's DB-API cursor. Correct, and several times slower than the others.

A cursor describes its columns in the driver's own words, so the Arrow types come from a sample of the relation's
values, fixed before the first batch; a column that is null in the sample is looked up on its own. A later value that
does not fit its column's type makes its row invalid.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa

from dinmo_dbt.rows.reasons import unreadable_mark
from dinmo_dbt.warehouse.dbt_adapter import DbtAdapter
from dinmo_dbt.warehouse.profiles import Chosen
from dinmo_dbt.warehouse.query import Cause, QueryRefused, column_list, first_rows, one_by_one, quote, select

FETCH_ROWS = 10_000
SAMPLE_ROWS = 1_000

WIDE_DECIMAL = pa.decimal256(76, 38)


class DbApi:
    """Engine for adapters whose connection has a DB-API cursor. One dbt connection a thread, as in dbt."""

    def __init__(self, credentials: Any, project_dir: Path, chosen: Chosen) -> None:
        self._dbt = DbtAdapter(credentials, project_dir, chosen)
        self._schemas: dict[str, pa.Schema] = {}
        self._cursor()

    def schema(self, relation_name: str) -> pa.Schema:
        if relation_name not in self._schemas:
            self._schemas[relation_name] = self._sampled(relation_name)
        return self._schemas[relation_name]

    def batches(self, relation_name: str, columns: Sequence[str], where: str | None) -> Iterator[pa.RecordBatch]:
        known = self.schema(relation_name)
        unknown = [name for name in columns if name not in known.names]
        if unknown:
            raise QueryRefused(Cause.OTHER, f"there is no column {', '.join(unknown)}")
        sql = select(column_list(columns, self._dbt.type), relation_name, where)
        return self._batches(self._execute(sql), sql, pa.schema([known.field(name) for name in columns]))

    def count(self, relation_name: str, where: str | None) -> int:
        return int(self._rows(select("count(*)", relation_name, where))[0][0])

    def version(self) -> str:
        self._rows("select 1")
        return f"{self._dbt.type}, {self._dbt.credentials.database}"

    def tables(self, schema: str) -> None:
        """None: nothing is written by a driver whose transactions we can't try."""

    def interrupt(self) -> None:
        """Nothing: the DB-API has no word for it."""

    def close(self) -> None:
        self._dbt.close()

    def _sampled(self, relation_name: str) -> pa.Schema:
        sql = first_rows("*", relation_name, None, SAMPLE_ROWS, self._dbt.type)
        cursor = self._execute(sql)
        with self._dbt.errors(sql):
            rows = cursor.fetchall()
            described = cursor.description
        fields = []
        for position, column in enumerate(described):
            values = [row[position] for row in rows if row[position] is not None]
            if not values and len(rows) == SAMPLE_ROWS:
                values = self._first_value(relation_name, column[0])
            fields.append(pa.field(column[0], _type(values, column)))
        return pa.schema(fields)

    def _first_value(self, relation_name: str, column: str) -> list[Any]:
        name = quote(column, self._dbt.type)
        return [row[0] for row in self._rows(first_rows(name, relation_name, f"{name} is not null", 1, self._dbt.type))]

    def _rows(self, sql: str) -> list[Any]:
        cursor = self._execute(sql)
        with self._dbt.errors(sql):
            return list(cursor.fetchall())

    def _execute(self, sql: str) -> Any:
        cursor = self._cursor()
        with self._dbt.errors(sql):
            # PEP 249 does not say what execute returns; DuckDB's rows are on that object.
            result = cursor.execute(sql)
            return result if hasattr(result, "fetchmany") else cursor

    def _cursor(self) -> Any:
        handle = self._dbt.handle()
        if not hasattr(handle, "cursor"):
            message = f"{self._dbt.type} can't be read yet: its dbt connection has no cursor"
            raise QueryRefused(Cause.UNREADABLE, message)
        # dbt-spark wraps the driver's connection, and its wrapper gives all rows at once or none.
        return (handle.handle if self._dbt.type == "spark" else handle).cursor()

    def _batches(self, cursor: Any, sql: str, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        while rows := self._fetched(cursor, sql):
            yield batch_of(rows, schema)

    def _fetched(self, cursor: Any, sql: str) -> list[Any]:
        with self._dbt.errors(sql):
            return list(cursor.fetchmany(FETCH_ROWS))


def batch_of(rows: Sequence[Any], schema: pa.Schema) -> pa.RecordBatch:
    """Rows as a driver gives them, in the types of `schema`, with `unreadable_mark`s."""
    arrays, marks = [], {}
    for position, column in enumerate(schema):
        array, bad = _column([row[position] for row in rows], column.type, _converter(column.type))
        arrays.append(array)
        if bad is not None:
            marks[unreadable_mark(column.name)] = bad
    return pa.RecordBatch.from_arrays([*arrays, *marks.values()], names=[*schema.names, *marks])


def _column(
    values: Sequence[Any], kind: pa.DataType, convert: Callable[[Any], Any]
) -> tuple[pa.Array, pa.Array | None]:
    """The values in the type that the relation's first ones had, and where one does not fit: it is null there."""
    try:
        return pa.array([None if value is None else convert(value) for value in values], kind), None
    except _UNFIT:
        converted: list[Any] = []
        for value in values:
            try:
                converted.append(None if value is None else convert(value))
            except _UNFIT:
                converted.append(_NO_VALUE)
        array, bad = one_by_one(converted, kind, [value is _NO_VALUE for value in converted])
        return array, pa.array(bad)


_NO_VALUE = object()
_UNFIT = (pa.ArrowException, ArithmeticError, AttributeError, TypeError, ValueError)


def _type(values: list[Any], described: Any) -> pa.DataType:
    kinds = {type(value) for value in values}
    if not kinds:
        return pa.null()
    if kinds == {bool}:
        return pa.bool_()
    if kinds <= {int}:
        digits = described[4] if len(described) > 4 else None
        wide = isinstance(digits, int) and digits > 18
        return (
            WIDE_DECIMAL
            if any(abs(value) >= 2**63 for value in values)
            else pa.decimal128(38, 0)
            if wide
            else pa.int64()
        )
    if kinds <= {int, Decimal}:
        return _decimal_type(described)
    if kinds <= {int, float, Decimal}:
        return pa.float64()
    if all(issubclass(kind, dt.datetime) for kind in kinds):
        return pa.timestamp("us", "UTC") if any(value.tzinfo for value in values) else pa.timestamp("us")
    if kinds == {dt.date}:
        return pa.date32()
    if kinds == {dt.time} and not any(value.tzinfo for value in values):
        return pa.time64("us")
    if kinds <= {bytes, bytearray, memoryview}:
        return pa.binary()
    return pa.utf8()


def _decimal_type(described: Any) -> pa.DataType:
    precision, scale = (described[4], described[5]) if len(described) > 5 else (None, None)
    if isinstance(precision, int) and isinstance(scale, int) and 0 <= scale <= precision <= 38:
        return pa.decimal128(precision, scale) if precision else WIDE_DECIMAL
    return WIDE_DECIMAL


def _converter(kind: pa.DataType) -> Callable[[Any], Any]:
    """How a driver's value becomes one of the Arrow type; one of `_UNFIT` where it would lose something."""
    if pa.types.is_string(kind):
        return _text
    if pa.types.is_floating(kind):
        return _float
    if pa.types.is_decimal(kind):
        return Decimal
    if pa.types.is_binary(kind):
        return bytes
    if pa.types.is_timestamp(kind):
        return _in_utc if kind.tz else _moment
    accepted = {pa.bool_(): bool, pa.int64(): int, pa.date32(): dt.date, pa.time64("us"): dt.time}.get(kind)
    return lambda value: _exactly(value, accepted)


def _exactly(value: Any, kind: type | None) -> Any:
    """A value of that very class: a bool is no number, a datetime no date, and a time with a zone has one to lose."""
    if type(value) is not kind or getattr(value, "tzinfo", None) is not None:
        raise TypeError(type(value).__name__)
    return value


def _float(value: Any) -> float:
    number = float(value)
    if isinstance(value, int) and int(number) != value:
        raise ValueError("a whole number of more digits than a float holds")
    return number


def _moment(value: dt.datetime) -> dt.datetime:
    """Without a zone, which is UTC."""
    return _in_utc(value).replace(tzinfo=None)


def _text(value: Any) -> str:
    if isinstance(value, dict | list | tuple):
        return json.dumps(value, default=str, ensure_ascii=False)
    return str(value)


def _in_utc(value: dt.datetime) -> dt.datetime:
    return value.replace(tzinfo=dt.UTC) if value.tzinfo is None else value.astimezone(dt.UTC)
