"""DuckDB: read-only where it can be, streamed without a copy, the file's lock given back on close.

dbt-duckdb keeps one environment for the whole process in its connection manager. We make our own, so that two
warehouses don't close each other, and it dies with us.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from dinmo_dbt.warehouse.dbt_profile import as_dbt_runs
from dinmo_dbt.warehouse.profiles import Chosen
from dinmo_dbt.warehouse.query import BATCH_ROWS, Cause, QueryRefused, column_list, first_rows, one_line, select

LOCK_WAIT_S = 10.0
LOCK_POLL_S = 0.1

# Messages of these kinds speak of names and statements; all others may quote a row's value.
_ABOUT_NAMES = ("Catalog", "Binder", "Parser", "Permission", "IO", "Connection", "Dependency", "Interrupt")
_SCHEME = re.compile(r"^[A-Za-z][\w+.-]*:")


class DuckDB:
    """Engine for `type: duckdb`. `read_write_because` is '' when the file is open read-only."""

    def __init__(self, credentials: Any, project_dir: Path, _chosen: Chosen) -> None:
        if credentials.remote:
            raise QueryRefused(Cause.UNREADABLE, "a DuckDB behind `remote:` can't be read; point `path:` at the file")
        credentials.keep_open = True  # `close` is ours to call
        credentials.retries = None  # so are the retries; dbt-duckdb's print to stdout
        if not _is_elsewhere(credentials.path):
            # DuckDB opens its write-ahead log by this path long after we have left the project's folder.
            credentials.path = str(project_dir / Path(credentials.path).expanduser())
        self.path: str = credentials.path
        self.read_write_because = ""
        self._project_dir = project_dir
        self._environment = self._open(credentials)
        self._handles: list[Any] = []
        self._readers: list[pa.RecordBatchReader] = []

    def schema(self, relation_name: str) -> pa.Schema:
        handle = self._handle()
        try:
            return self._run(handle, first_rows("*", relation_name, None, 0, "duckdb")).schema
        finally:
            self._done(handle)

    def batches(self, relation_name: str, columns: Sequence[str], where: str | None) -> Iterator[pa.RecordBatch]:
        handle = self._handle()
        try:
            reader = self._run(handle, select(column_list(columns, "duckdb"), relation_name, where))
        except QueryRefused:
            self._done(handle)
            raise
        self._readers.append(reader)
        return self._each(handle, reader)

    def _each(self, handle: Any, reader: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
        try:
            for batch in reader:
                if batch.num_rows:
                    yield batch
        except (duckdb.Error, OSError, pa.ArrowException) as error:
            raise _refused(error) from error
        finally:
            if reader in self._readers:
                self._readers.remove(reader)
                reader.close()
            self._done(handle)

    def count(self, relation_name: str, where: str | None) -> int:
        return int(self._value(select("count(*)", relation_name, where)))

    def _value(self, sql: str) -> Any:
        handle = self._handle()
        try:
            return handle.cursor().sql(sql).fetchall()[0][0]
        except duckdb.Error as error:
            raise _refused(error) from error
        finally:
            self._done(handle)

    def version(self) -> str:
        access = f"read-write: {self.read_write_because}" if self.read_write_because else "read-only"
        return f"DuckDB {self._value('select version()')}, {self.path} ({access})"

    def close(self) -> None:
        for reader in self._readers:  # an unread result holds the file as the connection does
            reader.close()
        self._readers.clear()
        for handle in self._handles:
            handle.close()
        self._handles.clear()
        self._environment.close()

    def _handle(self) -> Any:
        """One for each statement, with the profile's settings: an unread result blocks its cursor."""
        handle = self._environment.handle()
        cursor = handle.cursor()
        # A view over `read_parquet('data/x.parquet')` means the project's folder, as it does to dbt.
        if not cursor.sql("select current_setting('file_search_path')").fetchall()[0][0]:
            folder = str(self._project_dir).replace("'", "''")
            cursor.execute(f"set file_search_path = '{folder}'")
        # Else a name that the database does not have may find a Python variable of ours.
        cursor.execute("set python_enable_replacements = false")
        self._handles.append(handle)
        return handle

    def _done(self, handle: Any) -> None:
        if handle in self._handles:
            self._handles.remove(handle)
            handle.close()

    def _run(self, handle: Any, sql: str) -> pa.RecordBatchReader:
        cursor = handle.cursor()
        try:
            # `execute` would copy all rows before the first batch; `sql` streams (measured on DuckDB 2.0).
            relation = cursor.sql(sql)
            if hasattr(relation, "to_arrow_reader"):
                return relation.to_arrow_reader(BATCH_ROWS)
            return relation.fetch_record_batch(BATCH_ROWS)
        except (duckdb.Error, pa.ArrowException) as error:
            raise _refused(error) from error

    def _open(self, credentials: Any) -> Any:
        """The database, read-only if that can be. Waits up to LOCK_WAIT_S for another process's lock."""
        config = dict(credentials.config_options or {})
        if _no_read_only(credentials):
            self.read_write_because = _no_read_only(credentials)
        elif "access_mode" not in {str(key).lower() for key in config}:
            credentials.config_options = {**config, "access_mode": "READ_ONLY"}
        deadline = time.monotonic() + LOCK_WAIT_S
        while True:
            try:
                return self._try_open(credentials)
            except QueryRefused as refused:
                waiting = refused.cause is Cause.LOCKED and time.monotonic() < deadline
                final = refused.cause is not Cause.OTHER or credentials.config_options == (config or None)
                if final and not waiting:
                    raise
                if not waiting:
                    self.read_write_because = refused.message
                    credentials.config_options = config or None
            time.sleep(LOCK_POLL_S)

    def _try_open(self, credentials: Any) -> Any:
        from dbt.adapters.duckdb import environments
        from dbt_common.exceptions import DbtBaseException

        with as_dbt_runs(self._project_dir):
            environment = None
            try:
                environment = environments.create(credentials)
                environment.handle().close()
            except (duckdb.Error, DbtBaseException, RuntimeError, OSError) as error:
                if environment is not None:
                    environment.close()
                raise _refused(error) from error
            return environment


def _is_elsewhere(path: str) -> bool:
    """In memory, in MotherDuck, in a lake: not a file of this machine."""
    return path.startswith(":") or bool(_SCHEME.match(path))


def _no_read_only(credentials: Any) -> str:
    if credentials.path.startswith(":memory:"):
        return "it is in memory"
    if credentials.is_motherduck:
        return "MotherDuck decides itself"
    return ""


def _refused(error: Exception) -> QueryRefused:
    text = str(error)
    kind = text.split(" Error:", 1)[0]
    message = one_line(text, redact=kind not in _ABOUT_NAMES)
    if holder := re.search(r"Conflicting lock is held in (\S+) \(PID (\d+)\)", text):
        file = re.search(r'lock on file "([^"]+)"', text)
        name = file.group(1) if file else "the DuckDB file"
        program = Path(holder.group(1)).name
        return QueryRefused(
            Cause.LOCKED,
            f"{name} is locked by process {holder.group(2)} ({program}); waited {LOCK_WAIT_S:.0f} s for it",
        )
    if "Could not set lock on file" in text:
        return QueryRefused(Cause.LOCKED, f"{message}; waited {LOCK_WAIT_S:.0f} s for it")
    if "database does not exist" in text:
        return QueryRefused(Cause.NO_DATABASE, message)
    if kind == "Permission" or "Permission denied" in text:
        return QueryRefused(Cause.DENIED, message)
    if kind in ("Catalog", "Binder") and re.match(r"(Catalog|Binder) Error: (Table|Schema|Catalog)\b.*not exist", text):
        return QueryRefused(Cause.MISSING, message)
    return QueryRefused(Cause.OTHER, message)
