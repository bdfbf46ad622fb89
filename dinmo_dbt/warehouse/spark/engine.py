"""Spark: a session in this process (`method: session`), whose executors hand Arrow on as bytes, a partition at a time.

`toArrow` would hold all rows at once, and rows one by one take fifty times as long.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa

from dinmo_dbt.warehouse.casting import fitted
from dinmo_dbt.warehouse.dbt_adapter import DbtAdapter
from dinmo_dbt.warehouse.profiles import Chosen
from dinmo_dbt.warehouse.query import column_list, select
from dinmo_dbt.warehouse.spark import errors
from dinmo_dbt.warehouse.spark.columns import Column, column_of


class SparkSession:
    """Engine for `type: spark` with `method: session`, over the session that dbt makes, or finds."""

    def __init__(self, credentials: Any, project_dir: Path, chosen: Chosen) -> None:
        self._dbt = DbtAdapter(credentials, project_dir, chosen, errors.read)
        with self._dbt.errors(connecting=True):
            self._dbt.handle().cursor().execute("select 1")  # dbt makes the session with the first statement
            from pyspark.sql import SparkSession as Session

            self._session: Any = Session.builder.getOrCreate()
            context = self._session.sparkContext
            if context.master.startswith("local"):  # its Python is else whatever `python3` is
                context.pythonExec = sys.executable
            # Both would print what a query or a task failed at: a row's value may be in it.
            logging.getLogger("SQLQueryContextLogger").disabled = True
            context.setLogLevel("OFF")

    def schema(self, relation_name: str) -> pa.Schema:
        return pa.schema([column.field for column in self._columns("*", relation_name, None)])

    def batches(self, relation_name: str, columns: Sequence[str], where: str | None) -> Iterator[pa.RecordBatch]:
        found = self._columns(column_list(columns, "spark"), relation_name, where)
        sql = select(", ".join(column.asked for column in found), relation_name, where)
        with self._dbt.errors(sql):
            rows = self._session.sql(sql).mapInArrow(_as_bytes(), "batch binary").toLocalIterator()
        return self._each(rows, sql, found)

    def _each(self, rows: Iterator[Any], sql: str, columns: Sequence[Column]) -> Iterator[pa.RecordBatch]:
        schema = pa.schema([column.field for column in columns])
        json_columns = {column.field.name for column in columns if column.is_json}
        with self._dbt.errors(sql):
            for row in rows:
                for batch in pa.ipc.open_stream(pa.py_buffer(row.batch)):
                    if batch.num_rows:
                        yield fitted(batch, schema, json_columns)

    def count(self, relation_name: str, where: str | None) -> int:
        sql = select("count(*)", relation_name, where)
        with self._dbt.errors(sql):
            return int(self._session.sql(sql).first()[0])

    def version(self) -> str:
        with self._dbt.errors():
            return f"Spark {self._session.sql('select version()').first()[0].split()[0]}, a session in this process"

    def tables(self, schema: str) -> None:
        """None: a table of Parquet has no transactions."""

    def interrupt(self) -> None:
        with suppress(Exception):  # it has ended already
            self._session.sparkContext.cancelAllJobs()

    def close(self) -> None:
        """The session stays: it is the process's, and others may read by it."""
        self._dbt.close()

    def _columns(self, what: str, relation_name: str, where: str | None) -> list[Column]:
        """As Spark plans the statement; nothing runs."""
        sql = select(what, relation_name, where)
        with self._dbt.errors(sql):
            return [column_of(field) for field in self._session.sql(sql).schema.fields]


def _as_bytes() -> Callable[[Iterator[Any]], Iterator[Any]]:
    """What executors do with each batch. A function made here goes to them whole: they need pyarrow, not dinmo-dbt."""

    def as_bytes(batches: Iterator[Any]) -> Iterator[Any]:
        import pyarrow as pa

        for batch in batches:
            sink = pa.BufferOutputStream()
            with pa.ipc.new_stream(sink, batch.schema) as writer:
                writer.write_batch(batch)
            sent = pa.array([sink.getvalue().to_pybytes()], pa.binary())
            yield pa.RecordBatch.from_arrays([sent], names=["batch"])

    return as_bytes
