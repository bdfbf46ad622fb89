"""One connection to the target's warehouse, and a relation's schema, rows and count from it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from dinmo_dbt.codes import (
    CONNECTION_BROKE,
    DATABASE_BUSY,
    NO_TABLE,
    QUERY_REFUSED,
    TABLE_DENIED,
    VALUE_UNREADABLE,
    WAREHOUSE_NOT_REACHED,
)
from dinmo_dbt.errors import WarehouseError
from dinmo_dbt.warehouse import dbt_profile, plain_duckdb, profiles
from dinmo_dbt.warehouse.query import Cause, QueryRefused, rows_of, why_not_condition
from dinmo_dbt.warehouse.tables import Tables, unsupported

if TYPE_CHECKING:
    import pyarrow as pa

_CODES = {
    Cause.MISSING: NO_TABLE,
    Cause.NO_DATABASE: WAREHOUSE_NOT_REACHED,
    Cause.LOCKED: DATABASE_BUSY,
    Cause.DENIED: TABLE_DENIED,
    Cause.OTHER: QUERY_REFUSED,
    Cause.UNREADABLE: VALUE_UNREADABLE,
    Cause.LOST: CONNECTION_BROKE,
}


@dataclass(frozen=True, slots=True)
class Connected:
    """What the connection is to. `database` is None for warehouses that have none."""

    adapter_type: str
    profile: str
    target: str
    database: str | None
    schema: str


class Engine(Protocol):
    """One kind of database. Every method raises QueryRefused; several reads may be open at once."""

    def schema(self, relation_name: str) -> pa.Schema:
        """Names and types of the relation's columns, without reading its rows."""
        ...

    def batches(self, relation_name: str, columns: Sequence[str], where: str | None) -> Iterator[pa.RecordBatch]:
        """The rows, streamed, in the types of `schema`. The statement has started, or failed, when this returns."""
        ...

    def count(self, relation_name: str, where: str | None) -> int: ...

    def version(self) -> str: ...

    def tables(self, schema: str) -> Tables | None:
        """Tables of our own in that schema; None if this kind of database can't keep any yet."""
        ...

    def interrupt(self) -> None:
        """From another thread: a read whose driver does not let the main thread hear signals fails now."""
        ...

    def close(self) -> None:
        """Give the connections back; repeatable. Open reads end."""
        ...


class Warehouse:
    """A target's warehouse, read only but for `tables`. Made by `connect`; a context manager; it holds locks."""

    def __init__(
        self, *, connected: Connected, profiles_file: Path, engine: Engine, quoted: Callable[[str], str]
    ) -> None:
        self.connected = connected
        self.profiles_file = profiles_file
        self._engine = engine
        self._quoted = quoted
        self._columns: dict[str, list[str]] = {}

    def schema(self, relation_name: str) -> pa.Schema:
        """The relation's column names, exactly as the database has them, and the Arrow types `read` will give."""
        with self._said_plainly(relation_name, None):
            schema = self._engine.schema(relation_name)
        self._columns[relation_name] = schema.names
        return schema

    def read(self, relation_name: str, columns: Sequence[str], where: str | None) -> Iterator[pa.RecordBatch]:
        """The rows for which `where` holds: all of them, streamed in batches of about 32K rows.

        Columns come in the order asked; names must be the exact ones of `schema`. No order of rows is promised. A value
        that its column's type has no place for is null, and marked beside it (`values.unreadable_mark`).
        """
        assert columns, "a read names its columns"
        with self._said_plainly(relation_name, where):
            self._check(where)
            batches = self._engine.batches(relation_name, columns, where)
        return self._each(batches, relation_name, where)

    def _each(
        self, batches: Iterator[pa.RecordBatch], relation_name: str, where: str | None
    ) -> Iterator[pa.RecordBatch]:
        with self._said_plainly(relation_name, where):
            yield from batches

    def count(self, relation_name: str, where: str | None) -> int:
        """How many rows `read` would give."""
        with self._said_plainly(relation_name, where):
            self._check(where)
            return self._engine.count(relation_name, where)

    def query_for(
        self, relation_name: str, where: str | None, columns: Sequence[str], rows: Sequence[Sequence[object]]
    ) -> str:
        """A query that a person may run: of the rows that `read` would give, those with these values."""
        condition = rows_of(columns, rows, self.connected.adapter_type)
        if not where or not where.strip():
            return f"select * from {relation_name} where {condition}"
        one_line = "\n" not in where.strip() and "--" not in where
        given = f"({where.strip()})" if one_line else f"(\n{where}\n)"
        return f"select * from {relation_name} where {given} and ({condition})"

    def ping(self) -> str:
        """The database's product and version, asked of the database now."""
        with self._said_plainly("the version", None):
            return self._engine.version()

    def tables(self, schema: str) -> Tables:
        """Tables of our own in a schema of this warehouse, for state. ConfigError DB713 if it can't keep any."""
        with self._said_plainly(f"schema {schema}", None):
            tables = self._engine.tables(schema)
        if tables is None:
            raise unsupported(self.connected.adapter_type)
        tables.quoted = self._quoted
        return tables

    def interrupt(self) -> None:
        """Let open reads fail; for another thread than the one that reads. It writes nothing, and raises nothing."""
        self._engine.interrupt()

    def close(self) -> None:
        self._engine.close()

    def __enter__(self) -> Warehouse:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _check(self, where: str | None) -> None:
        refusal = why_not_condition(where, self.connected.adapter_type) if where else None
        if refusal:
            raise QueryRefused(Cause.OTHER, refusal)

    def _is_there(self, relation_name: str) -> bool:
        try:
            self._engine.schema(relation_name)
        except QueryRefused:
            return False
        return True

    @contextmanager
    def _said_plainly(self, relation_name: str, where: str | None) -> Iterator[None]:
        try:
            yield
        except QueryRefused as refused:
            # The driver's own exception may quote a row's value: it must not follow ours into a log.
            said, target = refused.said(self._columns.get(relation_name, ()), where), self.connected.target
            if refused.cause is Cause.MISSING and where and self._is_there(relation_name):
                error = _missing_in_condition(said, relation_name, where, target)
            else:
                error = _warehouse_error(refused.cause, said, relation_name, where, target)
            error.whole = self._quoted(refused.whole)
            if refused.whole and not error.whole:
                error.add_hint("--show-values shows the database's own words, row values included")
            raise error from None


def connect(
    project_dir: Path,
    *,
    profiles_dir: Path | None,
    profile: str | None,
    target: str | None,
    vars: Mapping[str, object],
    env: Mapping[str, str],
    writes: bool = False,
    show_values: bool = False,
) -> Warehouse:
    """Open the connection dbt would open for that target. Raises ConfigError or WarehouseError, DB7xx.

    `writes`: `tables` will be asked for. A DuckDB file is then opened for writing, and no other process can read it.
    `show_values`: an error also carries the database's own words, row values included (`DinmoError.whole`).

    Where dbt is needed, its imports take more than a second. Safe to call from a thread.
    """
    project_dir = project_dir.absolute()
    chosen = profiles.choose(project_dir, profiles_dir, profile, target, env, vars=vars)
    credentials: Any = plain_duckdb.credentials(chosen.written, env)
    if credentials is None:
        with dbt_profile.as_dbt_runs(project_dir):
            credentials = dbt_profile.credentials(project_dir, chosen, vars, env)
    connected = Connected(
        adapter_type=credentials.type,
        profile=chosen.profile,
        target=chosen.target,
        database=credentials.database or None,
        schema=credentials.schema,
    )
    quoted = partial(_quoted, credentials=credentials, env=env) if show_values else _withheld
    try:
        engine = _engine(credentials, writes)(credentials, project_dir, chosen)
    except QueryRefused as refused:
        message = dbt_profile.scrub(refused.said(), credentials, env)
        code = WAREHOUSE_NOT_REACHED if refused.cause in _ON_THE_WAY else _CODES[refused.cause]
        where = f"{chosen.file}: {chosen.profile}.outputs.{chosen.target}"
        refusal = WarehouseError(code, message, where=where, hint=_CONNECT_HINTS.get(refused.cause, _DEBUG))
        refusal.whole = quoted(refused.whole)
        raise refusal from None
    return Warehouse(connected=connected, profiles_file=chosen.file, engine=engine, quoted=quoted)


def _withheld(whole: str) -> str:  # noqa: ARG001 - the one of the two that tells nothing
    return ""


def _quoted(whole: str, *, credentials: Any, env: Mapping[str, str]) -> str:
    """A database's words, row values included, but never a secret."""
    return f"the database said: {dbt_profile.scrub(whole, credentials, env)}" if whole else ""


def _engine(credentials: Any, writes: bool) -> Callable[[Any, Path, profiles.Chosen], Engine]:
    """`DbApi` reads whatever has no reader of its own."""
    match credentials.type:
        case "duckdb":
            from dinmo_dbt.warehouse.duckdb import DuckDB

            return partial(DuckDB, writes=writes)
        case "postgres":
            from dinmo_dbt.warehouse.postgres.engine import Postgres

            return Postgres
        case "snowflake":
            from dinmo_dbt.warehouse.snowflake.engine import Snowflake

            return Snowflake
        case "databricks":
            from dinmo_dbt.warehouse.databricks.engine import Databricks

            return Databricks
        case "redshift":
            from dinmo_dbt.warehouse.redshift.engine import Redshift

            return Redshift
        case "bigquery":
            from dinmo_dbt.warehouse.bigquery.engine import BigQuery

            return BigQuery
        case "spark" if credentials.method == "session":
            from dinmo_dbt.warehouse.spark.engine import SparkSession

            return SparkSession
        case _:
            from dinmo_dbt.warehouse.dbapi import DbApi

            return DbApi


_ON_THE_WAY = (Cause.LOST, Cause.MISSING, Cause.OTHER)  # nothing was read yet that could be missing or get lost
_DEBUG = "`dbt debug` tests the same connection"
_CONNECT_HINTS = {
    Cause.NO_DATABASE: "build the models in this target first (dbt build), or choose another with --target",
    Cause.LOCKED: "let that process end (a running dbt, a notebook, a database browser), then run again",
}


def _missing_in_condition(said: str, relation_name: str, where: str, target: str) -> WarehouseError:
    """The relation itself is there, so it is another one that is not."""
    return WarehouseError(
        NO_TABLE,
        f"a relation that the condition on {relation_name} names can't be found: {said}",
        hint=f"check the condition: {' '.join(where.split())}. Was all that it names built in target '{target}'?",
    )


def _warehouse_error(cause: Cause, said: str, relation_name: str, where: str | None, target: str) -> WarehouseError:
    match cause:
        case Cause.MISSING:
            message = f"{relation_name} can't be found: {said}"
            hint = f"was it built in target '{target}'? Run dbt build --target {target}"
        case Cause.DENIED:
            message = f"no permission to read {relation_name}: {said}"
            hint = "grant select on it (dbt's `grants` config) to the user of this target"
        case Cause.LOST:
            message = f"the connection was lost while {relation_name} was read: {said}"
            hint = "nothing was sent for these rows; run again"
        case Cause.LOCKED:
            message = f"{relation_name} can't be read: {said}"
            hint = "nothing was sent for these rows; let that process end, then run again"
        case _:
            message = f"{relation_name} can't be read: {said}"
            hint = f"check the condition of the segment: {' '.join(where.split())}" if where else ""
    return WarehouseError(_CODES[cause], message, hint=hint)
