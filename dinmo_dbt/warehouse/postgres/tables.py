"""Our own tables in the user's Postgres."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import psycopg2
import psycopg2.extras

from dinmo_dbt.warehouse.postgres.errors import refused
from dinmo_dbt.warehouse.query import quote
from dinmo_dbt.warehouse.tables import IDLE_MAX_S, LOCK_WAIT_S, Rows, Tables


class PostgresTables(Tables):
    """`Tables` in READ COMMITTED transactions: the first statement of a writer takes the lock on its row."""

    _EXISTS = (
        "SELECT 1 AS found FROM information_schema.tables WHERE table_schema = ? AND table_name = 'meta' "
        "AND table_catalog = current_database()"
    )
    _NOW = "SELECT extract(epoch from clock_timestamp())::double precision AS now"

    def __init__(self, schema: str, database: str, opened: Callable[[], Any]) -> None:
        super().__init__(schema, database)
        self._opened = opened
        self._connection: Any = None

    def _begin(self) -> Any:
        for attempt in (1, 2):  # a connection that idled while jobs ran may be gone: then a new one
            if self._connection is None or self._connection.closed:
                self._connection = self._opened()
                self._connection.set_session(readonly=False)
            try:
                cursor = self._connection.cursor(cursor_factory=psycopg2.extras.RealDictCursor)
                cursor.execute(
                    f"set local lock_timeout = '{LOCK_WAIT_S}s'; "
                    f"set local idle_in_transaction_session_timeout = '{IDLE_MAX_S}s'; "
                    f"set local search_path to {quote(self.schema, 'postgres')}"
                )
            except psycopg2.Error as error:
                self._connection.close()
                if attempt == 2:
                    raise refused(error, "") from error
            else:
                return cursor
        raise AssertionError("unreachable: the last attempt returns or raises")

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()

    def _end(self, cursor: Any, *, commit: bool) -> None:
        cursor.close()
        try:
            if commit:
                self._connection.commit()
            else:
                self._connection.rollback()
        except psycopg2.Error as error:
            self._connection.close()
            if commit:
                raise refused(error, "") from error

    def _run(self, cursor: Any, statement: str, parameters: list[Any]) -> Rows:
        try:
            cursor.execute(statement.replace("?", "%s"), parameters)
            return Rows(list(cursor.fetchall()) if cursor.description else [], cursor.rowcount)
        except psycopg2.Error as error:
            raise refused(error, "") from error

    def _run_many(self, cursor: Any, statement: str, rows: list[list[Any]]) -> None:
        try:
            psycopg2.extras.execute_batch(cursor, statement.replace("?", "%s"), rows)
        except psycopg2.Error as error:
            raise refused(error, "") from error

    def _has_schema(self) -> bool:
        return bool(
            self.execute("SELECT 1 AS found FROM pg_catalog.pg_namespace WHERE nspname = ?", (self.schema,)).found
        )

    def _use(self) -> None:
        """The transaction's search path is ours already, and finds the schema once it is there."""

    def index(self, statements: Sequence[str]) -> None:
        for statement in statements:
            self.execute(statement)

    def _make_alone(self) -> None:
        self.execute("SELECT pg_advisory_xact_lock(hashtext(?))", (f"dinmo-dbt {self.schema}",))
