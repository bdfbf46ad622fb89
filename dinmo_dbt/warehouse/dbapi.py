"""Every other adapter: rows through the driver's DB-API cursor. Correct, and several times slower than the others.

A cursor describes its columns in the driver's own words, so the Arrow types come from a sample of the relation's
values, fixed before the first batch; a column that is null in the sample is looked up on its own. A later value that
does not fit its column's type makes its row invalid.
"""

from __future__ import annotations

import datetime as dt
import itertools
import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pyarrow as pa

from dinmo_dbt.rows.reasons import unreadable_mark
from dinmo_dbt.text.redaction import SQLSTATES, Foreign
from dinmo_dbt.warehouse.dbt_profile import as_dbt_runs
from dinmo_dbt.warehouse.profiles import Chosen
from dinmo_dbt.warehouse.query import Cause, QueryRefused, column_list, first_rows, one_by_one, quote, select

FETCH_ROWS = 10_000
SAMPLE_ROWS = 1_000

_DECIMAL = pa.decimal256(76, 38)
_MISSING = re.compile(r"does not exist|doesn't exist|not found|NOT_FOUND|Invalid object name", re.IGNORECASE)
_DENIED = re.compile(r"permission|denied|not authori[sz]ed|insufficient privilege", re.IGNORECASE)


class DbApi:
    """Engine for adapters whose connection has a DB-API cursor. One dbt connection a thread, as in dbt."""

    def __init__(self, credentials: Any, project_dir: Path, chosen: Chosen) -> None:
        from dbt.adapters.factory import get_adapter_class_by_name

        self._type: str = credentials.type
        self._project_dir = project_dir
        self._schemas: dict[str, pa.Schema] = {}
        self._names = itertools.count()
        with _driver_errors(connecting=True), as_dbt_runs(project_dir):
            required = _required_config(credentials, chosen)
            self._adapter = get_adapter_class_by_name(self._type)(required, get_context("spawn"))
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
        sql = select(column_list(columns, self._type), relation_name, where)
        return _batches(self._execute(sql), sql, pa.schema([known.field(name) for name in columns]))

    def count(self, relation_name: str, where: str | None) -> int:
        return int(self._rows(select("count(*)", relation_name, where))[0][0])

    def version(self) -> str:
        self._rows("select 1")
        return f"{self._type}, {self._adapter.config.credentials.database}"

    def tables(self, schema: str) -> None:
        """None: nothing is written by a driver whose transactions we can't try."""

    def interrupt(self) -> None:
        """Nothing: the DB-API has no word for it."""

    def close(self) -> None:
        with _driver_errors():
            self._adapter.cleanup_connections()
            close_all = getattr(type(self._adapter.connections), "close_all_connections", None)
            if close_all is not None:
                close_all()

    def _sampled(self, relation_name: str) -> pa.Schema:
        sql = first_rows("*", relation_name, None, SAMPLE_ROWS, self._type)
        cursor = self._execute(sql)
        with _driver_errors(sql):
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
        name = quote(column, self._type)
        return [row[0] for row in self._rows(first_rows(name, relation_name, f"{name} is not null", 1, self._type))]

    def _rows(self, sql: str) -> list[Any]:
        cursor = self._execute(sql)
        with _driver_errors(sql):
            return list(cursor.fetchall())

    def _execute(self, sql: str) -> Any:
        cursor = self._cursor()
        with _driver_errors(sql):
            # PEP 249 does not say what execute returns; DuckDB's rows are on that object.
            result = cursor.execute(sql)
            return result if hasattr(result, "fetchmany") else cursor

    def _cursor(self) -> Any:
        connections = self._adapter.connections
        if connections.get_if_exists() is None:
            with as_dbt_runs(self._project_dir):
                connections.set_connection_name(f"dinmo-{next(self._names)}")
                _ = connections.get_thread_connection().handle
        handle = connections.get_thread_connection().handle
        if not hasattr(handle, "cursor"):
            raise QueryRefused(Cause.UNREADABLE, f"{self._type} can't be read yet: its dbt connection has no cursor")
        return handle.cursor()


def _batches(cursor: Any, sql: str, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    converters = [_converter(column.type) for column in schema]
    while rows := _fetched(cursor, sql):
        arrays, marks = [], {}
        for position, (column, convert) in enumerate(zip(schema, converters, strict=True)):
            array, bad = _column([row[position] for row in rows], column.type, convert)
            arrays.append(array)
            if bad is not None:
                marks[unreadable_mark(column.name)] = bad
        yield pa.RecordBatch.from_arrays([*arrays, *marks.values()], names=[*schema.names, *marks])


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


def _fetched(cursor: Any, sql: str) -> list[Any]:
    with _driver_errors(sql):
        return list(cursor.fetchmany(FETCH_ROWS))


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
            _DECIMAL if any(abs(value) >= 2**63 for value in values) else pa.decimal128(38, 0) if wide else pa.int64()
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
        return pa.decimal128(precision, scale) if precision else _DECIMAL
    return _DECIMAL


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


@contextmanager
def _driver_errors(sql: str = "", *, connecting: bool = False) -> Iterator[None]:
    """Any driver's exceptions in our words: drivers are unknown here, and so are their classes."""
    try:
        yield
    except QueryRefused:
        raise
    except Exception as error:
        state = next((known for known in map(_state, _causes(error)) if known), "")
        foreign = Foreign(str(error), type(error).__name__, state, sql, link=connecting)
        message = "can't connect" if connecting else ""
        raise QueryRefused(Cause.OTHER if connecting else _cause(foreign), message, foreign) from error


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error and what dbt, or the driver, made it of."""
    for _ in range(8):
        if error is None:
            return
        yield error
        error = error.__cause__ or error.__context__


def _state(error: BaseException) -> str:
    """The SQLSTATE that the driver gives beside the text, if it is a known one."""
    given = (getattr(error, name, None) for name in ("sqlstate", "pgcode"))
    return next((state for state in given if isinstance(state, str) and state in SQLSTATES), "")


def _cause(foreign: Foreign) -> Cause:
    """By the code; where the driver has none, by the words in the text, which decide the hint and no more."""
    if foreign.code:
        by_code = {"42P01": Cause.MISSING, "42S02": Cause.MISSING, "3F000": Cause.MISSING, "42501": Cause.DENIED}
        return by_code.get(foreign.code, Cause.OTHER)
    if _MISSING.search(foreign.text):
        return Cause.MISSING
    return Cause.DENIED if _DENIED.search(foreign.text) else Cause.OTHER


def _required_config(credentials: Any, chosen: Chosen) -> Any:
    """dbt-adapters' `AdapterRequiredConfig`, without a project."""
    from dbt.adapters.contracts.connection import QueryComment

    @dataclass
    class Required:
        credentials: Any
        profile_name: str
        target_name: str
        threads: int = 1
        project_name: str = "dinmo"
        query_comment: Any = field(default_factory=lambda: QueryComment(comment=""))
        cli_vars: dict[str, Any] = field(default_factory=dict)
        target_path: str = "target"
        log_cache_events: bool = False

    return Required(credentials, chosen.profile, chosen.target)
