"""Tables of our own in the user's warehouse: one schema, transactions, statements with `?` for parameters.

The only place that writes to a warehouse, and only into that schema. `state` says what the tables are.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from dinmo_dbt.codes import (
    HELD_BY_ANOTHER,
    NO_STATE_IN_WAREHOUSE,
    STATE_CONNECTION_LOST,
    STATE_NOT_OPENED,
    STATE_NOT_WRITABLE,
)
from dinmo_dbt.errors import ConfigError, StateError
from dinmo_dbt.warehouse.query import Cause, QueryRefused, quote

LOCK_WAIT_S = 10
# A process that is paused within a transaction keeps others out for no longer than this.
IDLE_MAX_S = 60
_PAGE_ROWS = 500
_COLUMNS = (
    "SELECT table_name, column_name, data_type FROM information_schema.columns "
    "WHERE table_schema = ? AND table_catalog = current_database()"
)

_TABLES = "SELECT table_schema, table_name FROM information_schema.tables WHERE table_catalog = current_database()"


@dataclass
class Rows:
    """What a statement answered: rows by column name, or how many it changed."""

    found: list[dict[str, Any]] = field(default_factory=list)
    rowcount: int = 0

    def fetchone(self) -> dict[str, Any] | None:
        return self.found[0] if self.found else None

    def fetchall(self) -> list[dict[str, Any]]:
        return self.found


class Tables(ABC):
    """One schema of one warehouse. A transaction within a transaction is part of it; other threads wait."""

    def __init__(self, schema: str, database: str) -> None:
        self.schema = schema
        self.place = f"schema {schema} of {database}"
        self.quoted: Callable[[str], str] = lambda _: ""  # the database's own words, where they are asked for
        self._lock = threading.RLock()
        self._open: Any = None

    @contextmanager
    def transaction(self) -> Iterator[Tables]:
        """Statements that hold together: all of them, or none. StateError if the database refuses."""
        with self._lock:
            if self._open is not None:
                yield self
                return
            with self._refusals():
                self._open = self._begin()
            done = False
            try:
                yield self
                with self._refusals():
                    self._end(self._open, commit=True)
                done = True
            finally:
                cursor, self._open = self._open, None
                if not done:
                    self._end(cursor, commit=False)

    def execute(self, statement: str, parameters: Sequence[Any] = (), /) -> Rows:
        with self._refusals():
            return self._run(self._open, statement, [_plain(value) for value in parameters])

    def executemany(self, statement: str, parameters: Iterable[Sequence[Any]], /) -> None:
        rows = [[_plain(value) for value in row] for row in parameters]
        with self._refusals():
            for start in range(0, len(rows), _PAGE_ROWS):
                self._run_many(self._open, statement, rows[start : start + _PAGE_ROWS])

    def make(self, tables: dict[str, str], rows: dict[str, str], indexes: Sequence[str]) -> None:
        """The schema and its tables if they are missing, and the rows of `meta` that a new one begins with."""
        with self.transaction():
            self._make_alone()
            if not self._has_schema():
                self.execute(f"CREATE SCHEMA {quote(self.schema, 'postgres')}")
            self._use()
            if not self.exists():
                for name, columns in tables.items():
                    self.execute(f"CREATE TABLE {name} ({columns})")
                self.index(indexes)
                self.executemany("INSERT INTO meta VALUES (?, ?)", list(rows.items()))

    def exists(self) -> bool:
        """Whether our tables are there, and may be seen by this user."""
        with self.transaction():
            return bool(self.execute(self._EXISTS, (self.schema,)).fetchall())

    def schemas_with(self, tables: Iterable[str]) -> list[str]:
        """The schemas beside this one that have tables of all these names."""
        wanted = set(tables)
        found: dict[str, set[str]] = {}
        with self.transaction():
            for row in self.execute(_TABLES).found:
                found.setdefault(row["table_schema"], set()).add(row["table_name"])
        return sorted(schema for schema, names in found.items() if wanted <= names)

    def columns(self) -> dict[str, dict[str, str]]:
        """What each table of the schema has: its columns, and what the database calls their types."""
        found: dict[str, dict[str, str]] = {}
        with self.transaction():
            for row in self.execute(_COLUMNS, (self.schema,)).found:
                found.setdefault(row["table_name"], {})[row["column_name"]] = row["data_type"]
        return found

    def close(self) -> None:  # noqa: B027 - most have none of their own
        """Close the connection, if it is of its own; the next transaction opens another."""

    def now(self) -> float:
        """The warehouse's own clock, in seconds since the epoch."""
        return float(self.execute(self._NOW).found[0]["now"])

    @contextmanager
    def _refusals(self) -> Iterator[None]:
        try:
            yield
        except QueryRefused as refused:
            error = _state_error(refused, self)
            error.whole = self.quoted(refused.whole)
            raise error from None

    here = False  # whether it is a file of this machine, and so are all processes that can be at it

    _EXISTS = ""
    _NOW = ""

    @abstractmethod
    def index(self, statements: Sequence[str]) -> None: ...
    @abstractmethod
    def _begin(self) -> Any: ...
    @abstractmethod
    def _end(self, cursor: Any, *, commit: bool) -> None: ...
    @abstractmethod
    def _run(self, cursor: Any, statement: str, parameters: list[Any]) -> Rows: ...
    @abstractmethod
    def _run_many(self, cursor: Any, statement: str, rows: list[list[Any]]) -> None: ...
    @abstractmethod
    def _has_schema(self) -> bool: ...
    @abstractmethod
    def _use(self) -> None:
        """From here on names without a schema are of ours."""

    @abstractmethod
    def _make_alone(self) -> None:
        """Of two processes that make the tables one waits for the other."""


def unsupported(adapter_type: str) -> ConfigError:
    return ConfigError(
        NO_STATE_IN_WAREHOUSE,
        f"state can't be kept in a {adapter_type} warehouse; DuckDB and Postgres can",
        where="dinmo.yml: state.warehouse",
        hint="keep it in a folder, state: {location: .dinmo}, or in a bucket, state: {location: s3://bucket/dinmo}",
    )


def _plain(value: Any) -> Any:
    """A str that is an enum's member as what it says."""
    return str(value) if isinstance(value, str) else value


def _state_error(refused: QueryRefused, tables: Tables) -> StateError:
    where, schema = tables.place, tables.schema
    match refused.cause:
        case Cause.DENIED:
            return StateError(
                STATE_NOT_WRITABLE,
                f"no permission for the state: {refused.said()}",
                where=where,
                hint=f"make the schema and grant it: create schema {schema}; grant usage, create on schema {schema} "
                "to the user of this target",
            )
        case Cause.LOCKED:
            reason = refused.said() or "another process writes it"
            return StateError(HELD_BY_ANOTHER, f"the state can't be reached: {reason}", where=where, hint="try again")
        case Cause.LOST:
            return StateError(
                STATE_CONNECTION_LOST,
                f"the connection to the state was lost: {refused.said()}",
                where=where,
                hint="run again: what was sent meanwhile is settled first",
            )
        case _:
            return StateError(STATE_NOT_OPENED, f"the state can't be used: {refused.said()}", where=where)
