"""Databricks: Arrow tables by the connector that dbt opened, in the types that DESCRIBE QUERY gives before the first.

The connector's own description has one word for both kinds of timestamp, and none for what an array holds.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa

from dinmo_dbt.warehouse.casting import fitted
from dinmo_dbt.warehouse.databricks import errors
from dinmo_dbt.warehouse.databricks.columns import Column, column_of
from dinmo_dbt.warehouse.dbt_adapter import DbtAdapter
from dinmo_dbt.warehouse.profiles import Chosen
from dinmo_dbt.warehouse.query import BATCH_ROWS, Cause, QueryRefused, column_list, select


class Databricks:
    """Engine for `type: databricks`. One session a thread, as in dbt; its cursors may be read side by side."""

    def __init__(self, credentials: Any, project_dir: Path, chosen: Chosen) -> None:
        self._dbt = DbtAdapter(credentials, project_dir, chosen, errors.read)
        self._running: list[Any] = []  # cursors
        self._is_cancelled = False

    def schema(self, relation_name: str) -> pa.Schema:
        return pa.schema([column.field for column in self._columns(select("*", relation_name, None))])

    def batches(self, relation_name: str, columns: Sequence[str], where: str | None) -> Iterator[pa.RecordBatch]:
        sql = select(column_list(columns, "databricks"), relation_name, where)
        found = self._columns(sql)
        return self._each(self._execute(sql), sql, found)

    def _each(self, cursor: Any, sql: str, columns: Sequence[Column]) -> Iterator[pa.RecordBatch]:
        schema = pa.schema([column.field for column in columns])
        json_columns = {column.field.name for column in columns if column.is_json}
        try:
            while (table := self._fetched(cursor, sql)).num_rows:
                for batch in table.to_batches(BATCH_ROWS):
                    yield fitted(batch, schema, json_columns)
        finally:
            self._done(cursor)

    def _fetched(self, cursor: Any, sql: str) -> pa.Table:
        with self._dbt.errors(sql):
            table = cursor.fetchmany_arrow(BATCH_ROWS)
        if not isinstance(table, pa.Table):
            raise QueryRefused(Cause.UNREADABLE, "this cluster gives no Arrow; a SQL warehouse does")
        return table

    def count(self, relation_name: str, where: str | None) -> int:
        return int(self._rows(select("count(*)", relation_name, where))[0][0])

    def version(self) -> str:
        at = self._dbt.credentials
        return f"Databricks {self._rows('select current_version().dbsql_version')[0][0] or ''}, {at.host}/{at.database}"

    def tables(self, schema: str) -> None:
        """None: the state is kept elsewhere until its statements have been tried on a real workspace."""

    def interrupt(self) -> None:
        """The main thread hears signals itself; but the statements would run on, and be paid for."""
        if self._running and not self._is_cancelled:
            self._is_cancelled = True
            threading.Thread(target=self._cancel, args=(list(self._running),), daemon=True).start()

    def close(self) -> None:
        for cursor in list(self._running):
            self._done(cursor)
        self._dbt.close()

    def _cancel(self, cursors: Sequence[Any]) -> None:
        for cursor in cursors:
            with suppress(Exception):  # the command ends in any case
                cursor.cancel()

    def _columns(self, sql: str) -> list[Column]:
        return [column_of(name, kind) for name, kind, *_ in self._rows(f"describe query {sql}")]

    def _rows(self, sql: str) -> list[Any]:
        cursor = self._execute(sql)
        try:
            with self._dbt.errors(sql):
                return list(cursor.fetchall())
        finally:
            self._done(cursor)

    def _execute(self, sql: str) -> Any:
        connection = getattr(self._dbt.handle(), "_conn", None)
        if connection is None:
            raise QueryRefused(Cause.UNREADABLE, "this version of dbt-databricks can't be read: take 1.10 or newer")
        with self._dbt.errors(sql):
            cursor = connection.cursor()
        self._running.append(cursor)
        try:
            with self._dbt.errors(sql):
                return cursor.execute(sql)
        except BaseException:
            self._done(cursor)
            raise

    def _done(self, cursor: Any) -> None:
        if cursor in self._running:
            self._running.remove(cursor)
            with suppress(Exception):  # the server may have closed it
                cursor.close()
