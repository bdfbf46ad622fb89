"""BigQuery: a whole table by the Storage Read API, anything else by a query job within the profile's limits.

Both give Arrow. Where the Storage Read API can't be had, the same rows come by REST, as JSON and several times slower.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from dinmo_dbt.warehouse.bigquery import errors
from dinmo_dbt.warehouse.bigquery.columns import Column, column_of
from dinmo_dbt.warehouse.casting import fitted
from dinmo_dbt.warehouse.dbt_adapter import DbtAdapter
from dinmo_dbt.warehouse.profiles import Chosen
from dinmo_dbt.warehouse.query import BATCH_ROWS, Cause, QueryRefused, select

REACH_S = 30.0  # in which the service is to be reached; Google's own default is ten minutes
SESSION_S = 30.0  # after which rows come by REST: a firewall may let nothing but HTTP through
CANCEL_S = 10.0
_JOB_CREATION_S = 60.0  # dbt's own default
_FEW_ROWS = 10_000  # that come with a query's answer, or soon after: less than the start of a session


@dataclass(frozen=True)
class _Relation:
    """A relation's columns, and Google's own `Table` if it is one and no view."""

    columns: tuple[Column, ...]
    table: Any = None

    @property
    def schema(self) -> pa.Schema:
        return pa.schema([each.field for each in self.columns])

    def columns_of(self, names: Sequence[str]) -> list[Column]:
        known = {each.field.name: each for each in self.columns}
        unknown = [name for name in names if name not in known]
        if unknown:
            raise QueryRefused(Cause.OTHER, f"there is no column {', '.join(unknown)}")
        return [known[name] for name in names]


class BigQuery:
    """Engine for `type: bigquery`, over the client that dbt makes."""

    def __init__(self, credentials: Any, project_dir: Path, chosen: Chosen) -> None:
        self._dbt = DbtAdapter(credentials, project_dir, chosen, errors.read)
        self._relations: dict[str, _Relation] = {}
        self._jobs: dict[int, Any] = {}  # that run now, in whatever thread
        self._storage: Any = None
        self._making = threading.Lock()
        with self._dbt.errors(connecting=True):  # else the service is first asked when a model is read
            self._dry_run("select 1")

    def schema(self, relation_name: str) -> pa.Schema:
        self._relations[relation_name] = self._relation(relation_name)
        return self._relations[relation_name].schema

    def batches(self, relation_name: str, columns: Sequence[str], where: str | None) -> Iterator[pa.RecordBatch]:
        relation = self._relations.get(relation_name) or self._relation(relation_name)
        found = relation.columns_of(columns)
        is_whole = not (where and where.strip())
        if relation.table is not None and is_whole and all(column.is_stored for column in found):
            return self._each(self._rows_of_table(relation.table, columns), "", found)
        sql = select(", ".join(column.asked for column in found), relation_name, where)
        return self._each(self._rows_of_query(sql), sql, found)

    def count(self, relation_name: str, where: str | None) -> int:
        sql = select("count(*)", relation_name, where)
        with self._dbt.errors(sql):
            ((counted,),) = self._result(self._job(sql))
        return int(counted)

    def version(self) -> str:
        with self._dbt.errors():
            self._dry_run("select 1")
        way = "the Storage Read API" if self._storage_client() else f"REST, slowly: {_why_rest(self._dbt.credentials)}"
        return f"BigQuery, project {self._dbt.handle().project} (rows by {way})"

    def tables(self, schema: str) -> None:
        """None: its transactions are whole scripts, and no key is enforced."""

    def interrupt(self) -> None:
        for job in tuple(self._jobs.values()):
            _cancel(job)
        self._close_storage()

    def close(self) -> None:
        self._close_storage()
        self._dbt.close()

    def _relation(self, relation_name: str) -> _Relation:
        from google.cloud.bigquery import TableReference

        handle, sql = self._dbt.handle(), select("*", relation_name, None)
        with self._dbt.errors(sql):
            reference = TableReference.from_string(relation_name.replace("`", ""), default_project=handle.project)
            table = handle.get_table(reference, timeout=REACH_S, retry=_soon())
            if table.table_type == "TABLE":
                return _Relation(tuple(map(column_of, table.schema)), table)
            # A view is listed with the columns that it had when it was made.
            return _Relation(tuple(map(column_of, self._dry_run(sql).schema)))

    def _rows_of_table(self, table: Any, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """By no query, so that nothing is billed as one."""
        with self._dbt.errors():
            stored = self._stored(table.reference, columns)
            if stored is not None:
                return stored
            fields = [field for field in table.schema if field.name in columns]
            rows = self._dbt.handle().list_rows(table, selected_fields=fields, page_size=BATCH_ROWS)
            return (batch.select(columns) for batch in rows.to_arrow_iterable())

    def _rows_of_query(self, sql: str) -> Iterator[pa.RecordBatch]:
        with self._dbt.errors(sql):
            job = self._job(sql)
            rows = self._result(job)
            stored = None
            if rows.total_rows is None or rows.total_rows > _FEW_ROWS:
                stored = self._stored(job.destination, [field.name for field in rows.schema])
            given: Iterator[pa.RecordBatch] = rows.to_arrow_iterable() if stored is None else stored
            return given

    def _each(self, rows: Iterator[pa.RecordBatch], sql: str, columns: Sequence[Column]) -> Iterator[pa.RecordBatch]:
        schema = pa.schema([column.field for column in columns])
        json_columns = {column.field.name for column in columns if column.is_json}
        with self._dbt.errors(sql):
            for batch in rows:
                for start in range(0, batch.num_rows, BATCH_ROWS):
                    yield fitted(batch.slice(start, BATCH_ROWS), schema, json_columns)

    def _stored(self, table: Any, columns: Sequence[str]) -> Iterator[pa.RecordBatch] | None:
        """The rows by the Storage Read API; None where it can't be had: then they come by REST."""
        client = self._storage_client()
        if client is None:
            return None
        from google.api_core.exceptions import GoogleAPIError
        from google.auth.exceptions import GoogleAuthError
        from google.cloud.bigquery_storage_v1 import types

        packed = types.ArrowSerializationOptions.CompressionCodec.LZ4_FRAME
        options = {"selected_fields": columns, "arrow_serialization_options": {"buffer_compression": packed}}
        asked = types.ReadSession(table=table.to_bqstorage(), data_format=types.DataFormat.ARROW, read_options=options)
        parent = f"projects/{self._dbt.handle().project}"
        try:
            session = client.create_read_session(
                parent=parent, read_session=asked, max_stream_count=1, retry=None, timeout=SESSION_S
            )
        except (GoogleAPIError, GoogleAuthError):
            return None
        return _streamed(client, session, columns)

    def _storage_client(self) -> Any:
        with self._making:
            if self._storage is None:
                self._storage = storage_client(self._dbt.handle(), self._dbt.credentials)
            return self._storage

    def _close_storage(self) -> None:
        with self._making:
            if self._storage is not None:
                self._storage.transport.close()
                self._storage = None

    def _dry_run(self, sql: str) -> Any:
        """Nothing is read, and nothing is billed."""
        from google.cloud.bigquery import QueryJobConfig

        config = QueryJobConfig(use_legacy_sql=False, dry_run=True)
        return self._dbt.handle().query(sql, job_config=config, timeout=REACH_S, retry=_soon(), job_retry=None)

    def _job(self, sql: str) -> Any:
        """As dbt would start it, by the profile."""
        from google.cloud.bigquery import QueryJobConfig
        from google.cloud.bigquery.retry import DEFAULT_JOB_RETRY

        given = self._dbt.credentials
        config = QueryJobConfig(use_legacy_sql=False, priority=(given.priority or "interactive").upper())
        config.labels = _labels()
        if given.maximum_bytes_billed:
            config.maximum_bytes_billed = given.maximum_bytes_billed
        if given.job_execution_timeout_seconds:
            config.job_timeout_ms = given.job_execution_timeout_seconds * 1000
        again = DEFAULT_JOB_RETRY if given.job_retries else None
        if again and given.job_retry_deadline_seconds:
            again = again.with_timeout(given.job_retry_deadline_seconds)
        created_s = given.job_creation_timeout_seconds or _JOB_CREATION_S
        return self._dbt.handle().query(sql, job_config=config, timeout=created_s, job_retry=again)

    def _result(self, job: Any) -> Any:
        """Its rows, once it is done. A job that nobody waits for any more would still be billed."""
        self._jobs[id(job)] = job
        try:
            return job.result(timeout=self._dbt.credentials.job_execution_timeout_seconds)
        except BaseException:
            _cancel(job)
            raise
        finally:
            del self._jobs[id(job)]


def storage_client(handle: Any, credentials: Any) -> Any:
    """A client of the Storage Read API with dbt's credentials; None where there is none to be had."""
    return None if _why_rest(credentials) else handle._ensure_bqstorage_client()


def _why_rest(credentials: Any) -> str:
    """Why there can be no client of the Storage Read API; '' if there can."""
    if getattr(credentials, "api_endpoint", None):  # since dbt-bigquery 1.9; nobody says where its other half is
        return "the profile names an api_endpoint"
    try:
        import google.cloud.bigquery_storage  # noqa: F401
    except ImportError:
        return "google-cloud-bigquery-storage is not installed"
    return ""


def _streamed(client: Any, session: Any, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """One message at a time: the service waits until it was taken. The columns come in the table's order."""
    schema = pa.ipc.read_schema(pa.py_buffer(session.arrow_schema.serialized_schema))
    for stream in session.streams:
        for message in client.read_rows(stream.name):
            sent = pa.py_buffer(message.arrow_record_batch.serialized_record_batch)
            yield pa.ipc.read_record_batch(sent, schema).select(columns)


def _soon() -> Any:
    """Tried again, but not for long."""
    from google.cloud.bigquery.retry import DEFAULT_RETRY

    return DEFAULT_RETRY.with_timeout(REACH_S)


def _cancel(job: Any) -> None:
    with suppress(Exception):  # it is done already, or can't be reached
        job.cancel(retry=None, timeout=CANCEL_S)


def _labels() -> dict[str, str]:
    from dbt_common.invocation import get_invocation_id

    return {"dbt_invocation_id": get_invocation_id()}
