"""Snowflake: Arrow chunks by the connector that dbt opened, in the types that Snowflake describes before the first.

Each chunk has types of its own: numbers are packed as narrowly as its values allow. So the description of the statement
decides, and every chunk is cast to it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa

from dinmo_dbt.warehouse.casting import fitted
from dinmo_dbt.warehouse.dbt_adapter import DbtAdapter
from dinmo_dbt.warehouse.profiles import Chosen
from dinmo_dbt.warehouse.query import BATCH_ROWS, Cause, QueryRefused, column_list, select
from dinmo_dbt.warehouse.snowflake import errors
from dinmo_dbt.warehouse.snowflake.columns import Column, column_of

CANCEL_S = 3


class Snowflake:
    """Engine for `type: snowflake`. One session a thread, as in dbt; its cursors may be read side by side."""

    def __init__(self, credentials: Any, project_dir: Path, chosen: Chosen) -> None:
        self._dbt = DbtAdapter(credentials, project_dir, chosen, errors.read)
        self._running: list[Any] = []  # cursors
        self._is_cancelled = False

    def schema(self, relation_name: str) -> pa.Schema:
        return pa.schema([column.field for column in self._columns(select("*", relation_name, None))])

    def batches(self, relation_name: str, columns: Sequence[str], where: str | None) -> Iterator[pa.RecordBatch]:
        found = self._columns(select(column_list(columns, "snowflake"), relation_name, where))
        sql = select(", ".join(column.asked for column in found), relation_name, where)
        return self._each(self._execute(sql), sql, found)

    def _each(self, cursor: Any, sql: str, columns: Sequence[Column]) -> Iterator[pa.RecordBatch]:
        schema = pa.schema([column.field for column in columns])
        json_columns = {column.field.name for column in columns if column.is_json}
        try:
            with self._dbt.errors(sql):
                tables = cursor.fetch_arrow_batches()
            while True:
                with self._dbt.errors(sql):
                    table = next(tables, None)
                if table is None:
                    return
                for batch in table.to_batches(BATCH_ROWS):
                    yield fitted(batch, schema, json_columns)
        finally:
            self._done(cursor)

    def count(self, relation_name: str, where: str | None) -> int:
        return int(self._value(select("count(*)", relation_name, where)))

    def version(self) -> str:
        at = self._dbt.credentials
        return f"Snowflake {self._value('select current_version()')}, {at.account}/{at.database}"

    def tables(self, schema: str) -> None:
        """None: the state is kept elsewhere until its statements have been tried on a real account."""

    def interrupt(self) -> None:
        """The main thread hears signals itself; but the statements would run on, and be paid for."""
        if self._running and not self._is_cancelled:
            self._is_cancelled = True
            threading.Thread(target=self._cancel, args=(self._running[0].connection,), daemon=True).start()

    def close(self) -> None:
        for cursor in list(self._running):
            self._done(cursor)
        self._dbt.close()

    def _cancel(self, connection: Any) -> None:
        sql = f"select system$cancel_all_queries({connection.session_id})"
        with suppress(Exception):  # the command ends in any case
            connection.cursor().execute(sql, timeout=CANCEL_S)

    def _columns(self, sql: str) -> list[Column]:
        """Of a statement that is described and not run: no virtual warehouse has to be awake for it."""
        cursor = self._cursor()
        try:
            with self._dbt.errors(sql):
                return [column_of(described) for described in cursor.describe(sql)]
        finally:
            self._done(cursor)

    def _value(self, sql: str) -> Any:
        cursor = self._execute(sql)
        try:
            with self._dbt.errors(sql):
                return cursor.fetchone()[0]
        finally:
            self._done(cursor)

    def _execute(self, sql: str) -> Any:
        cursor = self._cursor()
        try:
            with self._dbt.errors(sql):
                return cursor.execute(sql)
        except BaseException:
            self._done(cursor)
            raise

    def _cursor(self) -> Any:
        connection = self._dbt.handle()
        # Else NUMBER(10, 2) comes as a double. The connector has no other way to say so after `connect`.
        connection._arrow_number_to_decimal = True
        if not connection.arrow_number_to_decimal:
            raise QueryRefused(Cause.UNREADABLE, "this version of snowflake-connector-python gives decimals as doubles")
        cursor = connection.cursor()
        self._running.append(cursor)
        return cursor

    def _done(self, cursor: Any) -> None:
        if cursor in self._running:
            self._running.remove(cursor)
            cursor.close()
