"""Postgres: COPY as CSV on dbt's own psycopg2 connection, parsed by Arrow: no Python object for any row.

Three times faster than a server-side cursor, with the profile's own authentication and TLS. Every statement runs in
a READ ONLY transaction that ends with it; no session setting is left to the next user of a pooler's connection.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg2
import pyarrow as pa

from dinmo_dbt.text.redaction import Foreign
from dinmo_dbt.warehouse.dbt_profile import as_dbt_runs
from dinmo_dbt.warehouse.postgres.columns import KNOWN, NAMED, Column, column_of
from dinmo_dbt.warehouse.postgres.copy import Copy
from dinmo_dbt.warehouse.postgres.errors import refused
from dinmo_dbt.warehouse.postgres.tables import PostgresTables
from dinmo_dbt.warehouse.profiles import Chosen
from dinmo_dbt.warehouse.query import Cause, QueryRefused, column_list, select


class Postgres:
    """Engine for `type: postgres`. Connections are opened when needed and kept until `close`; one read, one each."""

    def __init__(self, credentials: Any, project_dir: Path, _chosen: Chosen) -> None:
        self._credentials = credentials
        self._project_dir = project_dir
        self._idle: list[Any] = []
        self._reads: list[Copy] = []
        self._give_back(self._open())

    def schema(self, relation_name: str) -> pa.Schema:
        """A column whose values are written in a way of its own has the name of its type as metadata, `type`."""
        return pa.schema([column.field for column in self._columns(select("*", relation_name, None))])

    def batches(self, relation_name: str, columns: Sequence[str], where: str | None) -> Iterator[pa.RecordBatch]:
        found = self._columns(select(column_list(columns, "postgres"), relation_name, where))
        sql = select(", ".join(column.asked for column in found), relation_name, where)
        read = Copy(self._taken(), sql, pa.schema([column.field for column in found]))
        self._reads.append(read)
        return self._each(read)

    def _each(self, read: Copy) -> Iterator[pa.RecordBatch]:
        try:
            yield from read.batches()
        finally:
            self._end(read)

    def count(self, relation_name: str, where: str | None) -> int:
        return int(self._value(select("count(*)", relation_name, where)))

    def version(self) -> str:
        at = f"{self._credentials.host}:{self._credentials.port}/{self._credentials.database}"
        return f"{self._value('select version()')}, {at}"

    def interrupt(self) -> None:
        """Nothing: the thread that reads waits at a pipe, where it hears signals."""

    def close(self) -> None:
        for read in list(self._reads):
            self._end(read)
        for connection in self._idle:
            connection.close()
        self._idle.clear()

    def _end(self, read: Copy) -> None:
        if read in self._reads:
            self._reads.remove(read)
            if read.end():
                self._give_back(read.connection)
            else:
                read.connection.close()

    def _columns(self, sql: str) -> list[Column]:
        described = f"select * from ({sql}) as described limit 0"
        with self._transaction(described) as cursor:
            cursor.execute(described)
            found = cursor.description
            unknown = {column.type_code for column in found} - KNOWN
            if unknown:
                cursor.execute(NAMED, (sorted(unknown),))
            named = {oid: (name, elements) for oid, name, elements in cursor.fetchall()} if unknown else {}
            return [column_of(column, *named.get(column.type_code, ("", ""))) for column in found]

    def _value(self, sql: str) -> Any:
        with self._transaction(sql) as cursor:
            cursor.execute(sql)
            return cursor.fetchone()[0]

    def tables(self, schema: str) -> PostgresTables:
        """Our own tables in that schema, over a connection of their own that may write."""
        return PostgresTables(schema, f"{self._credentials.database} (Postgres)", self._open)

    @contextmanager
    def _transaction(self, sql: str) -> Iterator[Any]:
        connection = self._taken()
        try:
            with connection.cursor() as cursor:
                yield cursor
        except psycopg2.Error as error:
            raise refused(error, sql) from error
        finally:
            self._give_back(connection)

    def _taken(self) -> Any:
        return self._idle.pop() if self._idle else self._open()

    def _server(self) -> str:
        given = self._credentials
        return f"{given.host}, port {given.port}, database {given.database}, as {given.user}"

    def _give_back(self, connection: Any) -> None:
        with suppress(psycopg2.Error):
            connection.rollback()
        if connection.closed:
            return
        self._idle.append(connection)

    def _open(self) -> Any:
        from dbt.adapters.contracts.connection import Connection
        from dbt.adapters.postgres.connections import PostgresConnectionManager
        from dbt_common.exceptions import DbtBaseException

        with as_dbt_runs(self._project_dir):
            try:
                wanted = Connection(type="postgres", name="dinmo", credentials=self._credentials)
                connection = PostgresConnectionManager.open(wanted).handle
                connection.commit()  # keeps the profile's `role`, which a rollback would undo
                connection.set_client_encoding("UTF8")
                connection.set_session(readonly=True)
            except (psycopg2.Error, DbtBaseException) as error:
                foreign = Foreign(str(error), link=True)
                raise QueryRefused(Cause.OTHER, f"can't connect to {self._server()}", foreign) from error
            return connection
