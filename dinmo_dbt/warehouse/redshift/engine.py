"""Redshift: rows through a cursor on the server, in types that Redshift describes before the first.

redshift_connector keeps a whole result in memory before it gives the first row, and has no Arrow. So rows are fetched a
thousand at a time, which is all that a cluster of one node gives. A session has one such cursor: a read takes a
connection of its own.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dinmo_dbt.warehouse.casting import fitted
from dinmo_dbt.warehouse.dbapi import batch_of
from dinmo_dbt.warehouse.dbt_adapter import DbtAdapter
from dinmo_dbt.warehouse.profiles import Chosen
from dinmo_dbt.warehouse.query import column_list, select
from dinmo_dbt.warehouse.redshift import errors
from dinmo_dbt.warehouse.redshift.columns import Column, column_of

FETCH_ROWS = 1_000
FETCHES = 10  # in a batch


class Redshift:
    """Engine for `type: redshift`. Connections for reads are opened when needed and kept until `close`."""

    def __init__(self, credentials: Any, project_dir: Path, chosen: Chosen) -> None:
        self._dbt = DbtAdapter(credentials, project_dir, chosen, errors.read)
        self._idle: list[Any] = []
        self._reading: list[Any] = []
        self._names = itertools.count(1)

    def schema(self, relation_name: str) -> pa.Schema:
        return pa.schema([column.field for column in self._columns(select("*", relation_name, None))])

    def batches(self, relation_name: str, columns: Sequence[str], where: str | None) -> Iterator[pa.RecordBatch]:
        sql = select(column_list(columns, "redshift"), relation_name, where)
        found = self._columns(sql)
        connection = self._idle.pop() if self._idle else self._dbt.another()
        self._reading.append(connection)
        # A new name each time: the connector remembers the columns of a statement by its text.
        name = f"dinmo_rows_{next(self._names)}"
        declared = f"declare {name} cursor for {sql}"
        try:
            with self._dbt.errors(declared):
                connection.autocommit = True  # or it would begin a transaction of its own
                cursor = connection.cursor()
                cursor.execute("begin read only")
                cursor.execute(declared)
            first = self._fetched(cursor, name, declared)
        except BaseException:
            self._done(connection)
            raise
        return self._each(connection, cursor, name, declared, found, first)

    def _each(
        self, connection: Any, cursor: Any, name: str, sql: str, columns: Sequence[Column], rows: list[Any]
    ) -> Iterator[pa.RecordBatch]:
        schema = pa.schema([column.field for column in columns])
        json_columns = {column.field.name for column in columns if column.is_json}
        try:
            while rows:
                batch = _unpadded(batch_of(rows, schema), columns)
                yield fitted(batch, batch.schema, json_columns)
                rows = self._fetched(cursor, name, sql) if len(rows) == FETCHES * FETCH_ROWS else []
        finally:
            self._done(connection)

    def _fetched(self, cursor: Any, name: str, sql: str) -> list[Any]:
        """The rows of a batch; fewer at the end."""
        rows: list[Any] = []
        with self._dbt.errors(sql):
            for _ in range(FETCHES):
                cursor.execute(f"fetch forward {FETCH_ROWS} from {name}")
                rows += (found := cursor.fetchall())
                if len(found) < FETCH_ROWS:
                    break
        return rows

    def count(self, relation_name: str, where: str | None) -> int:
        return int(self._value(select("count(*)", relation_name, where)))

    def version(self) -> str:
        at = self._dbt.credentials
        return f"{self._value('select version()')}, {at.host}/{at.database}"

    def tables(self, schema: str) -> None:
        """None: the state is kept elsewhere until its statements have been tried on a real cluster."""

    def interrupt(self) -> None:
        """Nothing: the thread that reads waits at a socket, where it hears signals."""

    def close(self) -> None:
        for connection in list(self._reading):
            self._done(connection)
        for connection in self._idle:
            with suppress(Exception):  # the server may have closed it
                connection.close()
        self._idle.clear()
        self._dbt.close()

    def _done(self, connection: Any) -> None:
        """The cursor ends with its transaction."""
        if connection not in self._reading:
            return
        self._reading.remove(connection)
        try:
            connection.cursor().execute("rollback")
        except Exception:  # noqa: BLE001 - whatever the driver says of a connection that is of no use any more
            with suppress(Exception):
                connection.close()
        else:
            self._idle.append(connection)

    def _columns(self, sql: str) -> list[Column]:
        described = f"select * from ({sql}) as described limit 0"
        return [column_of(column) for column in self._run(described).ps["row_desc"]]

    def _value(self, sql: str) -> Any:
        return self._run(sql).fetchone()[0]

    def _run(self, sql: str) -> Any:
        with self._dbt.errors(sql):
            connection = self._dbt.handle()
            connection.autocommit = True
            return connection.cursor().execute(sql)


def _unpadded(batch: pa.RecordBatch, columns: Sequence[Column]) -> pa.RecordBatch:
    for position, column in enumerate(columns):
        if column.is_padded:
            text = pc.utf8_rtrim(batch.column(position), characters=" ")
            batch = batch.set_column(position, column.field, text)
    return batch
