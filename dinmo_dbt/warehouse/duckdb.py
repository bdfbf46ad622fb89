"""DuckDB: read-only where it can be, streamed without a copy, the file held only while a statement reads it.

dbt-duckdb keeps one environment for the whole process in its connection manager. We make our own, so that two
warehouses don't close each other, and it dies with us.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from dinmo_dbt.rows.reasons import unreadable_mark
from dinmo_dbt.text.redaction import Foreign
from dinmo_dbt.warehouse.dbt_profile import as_dbt_runs
from dinmo_dbt.warehouse.plain_duckdb import PlainCredentials, PlainEnvironment
from dinmo_dbt.warehouse.profiles import Chosen
from dinmo_dbt.warehouse.query import BATCH_ROWS, Cause, QueryRefused, column_list, first_rows, quote, select
from dinmo_dbt.warehouse.tables import Rows, Tables

LOCK_WAIT_S = 10.0
LOCK_POLL_S = 0.1

# A message that breaks off within a character of a value reaches us as an error of decoding it.
_ERRORS = (duckdb.Error, UnicodeDecodeError)
# DuckDB's exceptions, as its messages call them.
_KINDS = {
    f"{name.replace(' ', '')}Exception": f"{name} Error"
    for name in (
        "Binder",
        "Catalog",
        "Connection",
        "Constraint",
        "Conversion",
        "Data",
        "Dependency",
        "Fatal",
        "HTTP",
        "IO",
        "Internal",
        "Interrupt",
        "Invalid Input",
        "Invalid Type",
        "Not Implemented",
        "Operational",
        "Out Of Memory",
        "Out Of Range",
        "Parser",
        "Permission",
        "Programming",
        "Sequence",
        "Serialization",
        "Syntax",
        "Transaction",
        "Type Mismatch",
    )
}
_MISSING = re.compile(r"(?:Catalog|Binder) Error: (?:Table|Schema|Catalog)\b.*not exist")
_HOLDER = re.compile(r"\(PID (\d{1,10})\)")
_SCHEME = re.compile(r"^[A-Za-z][\w+.-]*:")


class DuckDB:
    """Engine for `type: duckdb`. `read_write_because` is '' when the file is open read-only."""

    def __init__(self, credentials: Any, project_dir: Path, _chosen: Chosen, *, writes: bool = False) -> None:
        if credentials.remote:
            raise QueryRefused(Cause.UNREADABLE, "a DuckDB behind `remote:` can't be read; point `path:` at the file")
        credentials.keep_open = True  # `close` is ours to call
        credentials.retries = None  # so are the retries; dbt-duckdb's print to stdout
        if not _is_elsewhere(credentials.path):
            # DuckDB opens its write-ahead log by this path long after we have left the project's folder.
            credentials.path = str(project_dir / Path(credentials.path).expanduser())
        self.path: str = credentials.path
        self.read_write_because = "state is kept in it" if writes else ""
        self._place = credentials.path.partition("?")[0]  # MotherDuck's token is in what follows
        self._project_dir = project_dir
        self._credentials = credentials
        self._handles: list[Any] = []
        self._taking = threading.RLock()  # what follows, by the threads of a run: its reader's, its lease's
        self._running: dict[int, Any] = {}  # the cursor that a handle's read runs on
        self._readers: list[pa.RecordBatchReader] = []
        self._environment: Any = self._open(credentials)
        self._let_go()

    def schema(self, relation_name: str) -> pa.Schema:
        handle = self._handle()
        try:
            asked = self._asked(handle, first_rows("*", relation_name, None, 0, "duckdb"))
            read = self._run(handle, first_rows(asked.columns, relation_name, None, 0, "duckdb")).schema
            return asked.schema(read)
        finally:
            self._done(handle)

    def batches(self, relation_name: str, columns: Sequence[str], where: str | None) -> Iterator[pa.RecordBatch]:
        handle, sql = self._handle(), select(column_list(columns, "duckdb"), relation_name, where)
        try:
            asked = self._asked(handle, sql)
            sql = select(asked.columns, relation_name, where)
            reader = self._run(handle, sql)
        except QueryRefused:
            self._done(handle)
            raise
        self._readers.append(reader)
        return self._each(handle, reader, sql, asked)

    def _each(self, handle: Any, reader: pa.RecordBatchReader, sql: str, asked: _Asked) -> Iterator[pa.RecordBatch]:
        try:
            for batch in reader:
                if batch.num_rows:
                    yield asked.read(batch)
        except (*_ERRORS, OSError, pa.ArrowException) as error:
            raise _refused(error, sql) from error
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
        except _ERRORS as error:
            raise _refused(error, sql) from error
        finally:
            self._done(handle)

    def version(self) -> str:
        access = f"read-write: {self.read_write_because}" if self.read_write_because else "read-only"
        return f"DuckDB {self._value('select version()')}, {self._place} ({access})"

    def tables(self, schema: str) -> DuckDBTables:
        """Our own tables in that schema of the database, over this process's one connection to it."""
        return DuckDBTables(schema, self._place, self._handle, self._done, here=not _is_shared(self.path))

    def interrupt(self) -> None:
        for cursor in tuple(self._running.values()):
            with suppress(duckdb.Error):  # it was closed meanwhile
                cursor.interrupt()

    def close(self) -> None:
        for reader in self._readers:  # an unread result holds the file as the connection does
            reader.close()
        self._readers.clear()
        for handle in self._handles:
            handle.close()
        self._handles.clear()
        self._running.clear()
        if self._environment is not None:
            self._environment.close()
            self._environment = None

    def _let_go(self) -> None:
        """Give the file back once no statement reads it: a dbt that is to write it fails as long as we have it."""
        if not self._handles and not _is_elsewhere(self.path):
            self.close()

    def _handle(self) -> Any:
        """One for each statement, with the profile's settings: an unread result blocks its cursor."""
        with self._taking:
            if self._environment is None:
                self._environment = self._open(self._credentials)
            handle = self._environment.handle()
            self._handles.append(handle)
        cursor = handle.cursor()
        # A view over `read_parquet('data/x.parquet')` means the project's folder, as it does to dbt.
        if not cursor.sql("select current_setting('file_search_path')").fetchall()[0][0]:
            folder = str(self._project_dir).replace("'", "''")
            cursor.execute(f"set file_search_path = '{folder}'")
        # Else a name that the database does not have may find a Python variable of ours.
        cursor.execute("set python_enable_replacements = false")
        return handle

    def _done(self, handle: Any) -> None:
        with self._taking:
            if handle in self._handles:
                self._handles.remove(handle)
                self._running.pop(id(handle), None)
                handle.close()
                self._let_go()

    def _run(self, handle: Any, sql: str) -> pa.RecordBatchReader:
        cursor = self._running[id(handle)] = handle.cursor()
        try:
            # `execute` would copy all rows before the first batch; `sql` streams (measured on DuckDB 2.0).
            relation = cursor.sql(sql)
            if hasattr(relation, "to_arrow_reader"):
                return relation.to_arrow_reader(BATCH_ROWS)
            return relation.fetch_record_batch(BATCH_ROWS)
        except (*_ERRORS, pa.ArrowException) as error:
            raise _refused(error, sql) from error

    def _asked(self, handle: Any, sql: str) -> _Asked:
        """How the columns of that query are to be asked for, by DuckDB's own types."""
        try:
            relation = handle.cursor().sql(sql)
            return _Asked(tuple(zip(relation.columns, map(str, relation.types), strict=True)))
        except _ERRORS as error:
            raise _refused(error, sql) from error

    def _open(self, credentials: Any) -> Any:
        """The database, read-only if that can be. Waits up to LOCK_WAIT_S for another process's lock."""
        config = dict(credentials.config_options or {})
        if self.read_write_because:
            pass
        elif _no_read_only(credentials):
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
                    self.read_write_because = refused.said()
                    credentials.config_options = config or None
            time.sleep(LOCK_POLL_S)

    def _try_open(self, credentials: Any) -> Any:
        create: Callable[[Any], Any] = PlainEnvironment
        errors: tuple[type[Exception], ...] = (duckdb.Error, RuntimeError, OSError, ImportError)
        if not isinstance(credentials, PlainCredentials):
            from dbt.adapters.duckdb import environments
            from dbt_common.exceptions import DbtBaseException

            create, errors = environments.create, (*errors, DbtBaseException)
        with as_dbt_runs(self._project_dir):
            environment = None
            try:
                environment = create(credentials)
                environment.handle().close()
            except errors as error:
                if environment is not None:
                    environment.close()
                raise _not_opened(error, [self.path, *_attached(credentials)]) from error
            return environment


# Of which DuckDB's Arrow keeps less than the value: the zone of a time, the digits beyond 38, the bits' text.
_AS_TEXT = frozenset({"TIME WITH TIME ZONE", "UHUGEINT", "BIGNUM", "BIT"})
_WIDE = pa.decimal256(76, 0)


def _json_text(value: str) -> str:
    """A string without its quotes, null for JSON's null, anything else as it is written."""
    text = f"when 'VARCHAR' then json_extract_string({value}, '$') when 'NULL' then null"
    return f"case json_type({value}) {text} else cast({value} as varchar) end"


@dataclass(frozen=True)
class _Asked:
    """The columns of one query: name and DuckDB's own type."""

    types: tuple[tuple[str, str], ...]

    @property
    def columns(self) -> str:
        return ", ".join(self._column(*column) for column in self.types)

    def _column(self, name: str, kind: str) -> str:
        quoted = quote(name, "duckdb")
        if kind == "JSON":
            return f"{_json_text(quoted)} as {quoted}"
        if re.fullmatch(r"JSON\[\d*\]", kind):
            text = _json_text("dinmo_element")
            return f"[{text} for dinmo_element in cast({quoted} as json[])] as {quoted}"
        element, brackets, _ = kind.partition("[")
        if element not in _AS_TEXT:
            return quoted
        return f"cast({quoted} as varchar{'[]' if brackets and kind.count('[') == 1 else ''}) as {quoted}"

    def schema(self, read: pa.Schema) -> pa.Schema:
        """As `read` gives them, of the columns as they come."""
        fields = [
            pa.field(field.name, _WIDE if kind in ("UHUGEINT", "BIGNUM") else field.type)
            for field, (_, kind) in zip(read, self.types, strict=True)
        ]
        return pa.schema(fields)

    def read(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """In the types of `schema`, with `unreadable_mark`s."""
        schema = self.schema(batch.schema)
        arrays, fields, marks = [], list(schema), []
        for array, field in zip(batch.columns, schema, strict=True):
            bad = None
            if array.type != field.type:
                # Text of a whole number that may have more digits than Arrow's widest decimal.
                fits = pc.less_equal(pc.utf8_length(array), 76)
                bad = pc.fill_null(pc.invert(fits), False) if pc.any(pc.invert(fits)).as_py() else None
                array = pc.if_else(fits, array, pa.scalar(None, pa.utf8())).cast(field.type)
            arrays.append(array)
            if bad is not None:
                marks.append(bad)
                fields.append(pa.field(unreadable_mark(field.name), pa.bool_()))
        return pa.RecordBatch.from_arrays([*arrays, *marks], schema=pa.schema(fields))


_LOCKS: dict[str, threading.RLock] = {}  # by the file


class DuckDBTables(Tables):
    """`Tables` of a file that is ours for as long as a transaction lasts. `here`: it is a file of this machine."""

    _EXISTS = (
        "SELECT 1 AS found FROM information_schema.tables WHERE table_schema = ? AND table_name = 'meta' "
        "AND table_catalog = current_database()"
    )
    _NOW = "SELECT epoch(get_current_timestamp()) AS now"

    def __init__(
        self, schema: str, database: str, take: Callable[[], Any], give: Callable[[Any], None], *, here: bool
    ) -> None:
        super().__init__(schema, database)
        self.here, self._take, self._give = here, take, give
        self._catalog, self._is_there = "", False  # which it is, and whether our schema was seen: asked once
        # Two writers of one file wait for one another where they are processes, so they do where they are threads.
        self._lock = _LOCKS.setdefault(database, self._lock)

    def _begin(self) -> Any:
        handle = self._take()
        try:
            cursor = handle.cursor()
            if not self._catalog:
                self._catalog = self._run(cursor, "SELECT current_database() AS name", []).found[0]["name"]
            self._run(cursor, "BEGIN TRANSACTION", [])
            self._is_there = self._is_there or self._open_schema(cursor)
            if self._is_there:
                self._run(cursor, self._use_statement, [])
        except BaseException:
            self._give(handle)
            raise
        self._handle = handle
        return cursor

    def _end(self, cursor: Any, *, commit: bool) -> None:
        if commit:
            self._run(cursor, "COMMIT", [])
        else:
            with suppress(QueryRefused):  # a failed statement has rolled it back already
                self._run(cursor, "ROLLBACK", [])
        self._give(self._handle)

    def _run(self, cursor: Any, statement: str, parameters: list[Any]) -> Rows:
        try:
            answer = cursor.execute(statement, parameters) if parameters else cursor.execute(statement)
            answer = answer if hasattr(answer, "fetchall") else cursor
            names = [column[0] for column in answer.description or ()]
            rows = [dict(zip(names, row, strict=True)) for row in answer.fetchall()] if names else []
            return Rows(rows, rows[0]["Count"] if names == ["Count"] and rows else 0)  # of an INSERT, UPDATE or DELETE
        except _ERRORS as error:
            raise _refused(error, statement) from error

    def _run_many(self, cursor: Any, statement: str, rows: list[list[Any]]) -> None:
        head, values, tail = statement.partition("VALUES ")
        end = tail.find(")") + 1
        if not values:
            for row in rows:
                self._run(cursor, statement, row)
        elif rows:  # one statement for all: row by row is a hundred times slower
            every = ", ".join([tail[:end]] * len(rows))
            self._run(cursor, f"{head}VALUES {every}{tail[end:]}", [value for row in rows for value in row])

    def _has_schema(self) -> bool:
        return self._open_schema(self._open)

    def _open_schema(self, cursor: Any) -> bool:
        statement = "SELECT 1 AS found FROM duckdb_schemas() WHERE schema_name = ? AND database_name = ?"
        return bool(self._run(cursor, statement, [self.schema, self._catalog]).found)

    @property
    def _use_statement(self) -> str:
        return f"USE {quote(self._catalog, 'duckdb')}.{quote(self.schema, 'duckdb')}"

    def _use(self) -> None:
        self.execute(self._use_statement)

    def index(self, statements: Sequence[str]) -> None:
        """None: a column of many rows is looked through in no time."""

    def _make_alone(self) -> None:
        """One process has the file at a time."""


def _is_elsewhere(path: str) -> bool:
    """In memory, in MotherDuck, in a lake: not a file of this machine."""
    return path.startswith(":") or bool(_SCHEME.match(path))


def _is_shared(path: str) -> bool:
    return _is_elsewhere(path) and not path.startswith(":memory:")


def _no_read_only(credentials: Any) -> str:
    if credentials.path.startswith(":memory:"):
        return "it is in memory"
    if credentials.is_motherduck:
        return "MotherDuck decides itself"
    return ""


def _refused(error: Exception, sql: str) -> QueryRefused:
    """A statement's error. Only the class tells the cause: the text may be a value's."""
    kind = _kind(error)
    text = error.object.decode(errors="replace") if isinstance(error, UnicodeDecodeError) else str(error)
    foreign = Foreign(text, kind, sql=sql)
    if kind == "Permission Error":
        return QueryRefused(Cause.DENIED, "", foreign)
    missing = _MISSING.match(foreign.text) if kind in ("Catalog Error", "Binder Error") else None
    return QueryRefused(Cause.MISSING if missing else Cause.OTHER, "", foreign)


def _kind(error: Exception) -> str:
    """DuckDB's name of the error: of its class or, where Arrow passed it on, of its first words."""
    by_class = _KINDS.get(type(error).__name__, "")
    return by_class or next((kind for kind in _KINDS.values() if str(error).startswith(kind)), type(error).__name__)


def _not_opened(error: Exception, paths: Sequence[str]) -> QueryRefused:
    """The database could not be opened: no row was looked at, and its words are about files and locks."""
    text = str(error)
    path = next((each for each in paths if each in text), paths[0]).partition("?")[0]  # MotherDuck's token is in it
    foreign = Foreign(text, _kind(error), link=True)
    if "Could not set lock on file" in text:
        by = f" by process {found[1]}{_program(found[1])}" if (found := _HOLDER.search(text)) else ""
        return QueryRefused(Cause.LOCKED, f"{path} is locked{by}; waited {LOCK_WAIT_S:.0f} s for it")
    if "database does not exist" in text:
        return QueryRefused(Cause.NO_DATABASE, f"{path} can't be opened: the database does not exist")
    if "Permission denied" in text:
        return QueryRefused(Cause.DENIED, f"{path} can't be opened: permission denied")
    return QueryRefused(Cause.OTHER, f"{path} can't be opened", foreign)


def _attached(credentials: Any) -> list[str]:
    return [str(each.path) for each in credentials.attach or () if each.path]


def _program(pid: str) -> str:
    """What the system, not the message, says the process runs; '' where it does not say."""
    try:
        return f" ({Path(f'/proc/{pid}/comm').read_text(encoding='utf-8').strip()})"
    except (OSError, UnicodeDecodeError):
        return ""
