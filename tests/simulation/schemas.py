"""State in a schema of a warehouse. One DuckDB file, or one database of a Postgres server, is for many histories.

A process has transactions in it: it can end or stop before each, and before and after each commit of one that writes;
a commit, or the answer to it, can be lost. Processes of one machine know which of them are gone; on several, only the
lease tells. Time is the warehouse's own, which nobody sets.
"""

from __future__ import annotations

import errno
import itertools
import os
import random
import re
import shutil
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import duckdb
import psycopg2
from mounted_org import OneClock

from dinmo_dbt.clock import Clock
from dinmo_dbt.state import WarehouseState, warehouse
from dinmo_dbt.state.lease import Holder
from dinmo_dbt.state.marks import Marks
from dinmo_dbt.state.tables import HISTORY_INDEXES
from dinmo_dbt.state.warehouse import WarehouseFiles
from dinmo_dbt.warehouse.duckdb import DuckDBTables
from dinmo_dbt.warehouse.postgres import tables as postgres
from dinmo_dbt.warehouse.postgres.tables import PostgresTables
from dinmo_dbt.warehouse.query import Cause, QueryRefused
from dinmo_dbt.warehouse.tables import Tables

from .places import IN_FLIGHT, NO_STATES, Damage, Place, Told
from .process import Process, current

if TYPE_CHECKING:
    from postgres_server import Postgres

SCHEMA = "state"
POSTGRES_WAIT_S = 0.1
PART_BYTES = 3000  # of a file: most have more than one part
_ALL = warehouse.WarehouseState.own_tables
MEANINGS = (
    "UPDATE run SET detail = substr(detail, 2)", "UPDATE run SET detail = '[]'", "UPDATE run SET status = 'x'",
    """UPDATE run SET detail = '{"counts": []}'""", "UPDATE activity SET invocations = '{}'", "DROP TABLE standing",
    "UPDATE run SET not_delivered = 'x'", "DROP TABLE run",
)  # fmt: skip
_WRITES = re.compile(r"INSERT|UPDATE|DELETE|CREATE|DROP")


class Engine(ABC):
    """`place`: how errors name it. `has_one_user`: of its transactions one is open at a time."""

    has_one_user = False
    user: Tables | None = None  # who has an open transaction, if there can be but one

    def __init__(self, clock: OneClock) -> None:
        self.clock = clock
        self.schemas: set[str] = set()
        self._own: dict[str, Tables] = {}
        self.open = ExitStack()
        self.open.enter_context(patch.object(warehouse, "PART_BYTES", PART_BYTES))

    @abstractmethod
    def tables(self, *, here: bool) -> Tables:
        """As a process has them."""

    @abstractmethod
    def others(self, schema: str) -> Tables:
        """As somebody else has them, whatever processes do."""

    def own(self, schema: str) -> Tables:
        if schema not in self._own:
            self._own[schema] = self.others(schema)
        return self._own[schema]

    def clear(self) -> None:
        for schema in (SCHEMA, *self.schemas):
            self.drop(schema)
        self.schemas.clear()

    def drop(self, schema: str) -> None:
        with self.own("main").transaction() as connection:
            connection.execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE")
        self._own.pop(schema, None)  # it knows whether there is one

    def copy(self, schema: str, to: str) -> None:
        self.schemas.add(to)
        self.drop(to)
        with self.own(to).transaction() as tables:
            tables.make(_ALL, {}, HISTORY_INDEXES)
            for name in self.names(schema):
                tables.execute(f"INSERT INTO {to}.{name} SELECT * FROM {schema}.{name}")

    def names(self, schema: str) -> list[str]:
        """Of those of our tables that are there."""
        asked = "SELECT table_name AS name FROM information_schema.tables WHERE table_schema = ?"
        with self.own(schema).transaction() as connection:
            there = {row["name"] for row in connection.execute(asked, (schema,)).fetchall()}
        return [name for name in _ALL if name in there]

    def ask(self, statement: str, parameters: tuple[object, ...] = ()) -> list[Any]:
        with self.own(SCHEMA).transaction() as connection:
            return connection.execute(statement, parameters).fetchall()


class _Seams:
    """Mixed into `Tables`: what a simulated process does with them passes through its seams."""

    _engine: Engine
    _wrote = False

    def now(self) -> float:
        return float(self._engine.clock.now())

    def _begin(self) -> Any:
        process = current()
        if process is not None:
            process.around("begin", lambda: None)
            self._reach(process)
        if self._engine.has_one_user and self._engine.user not in (None, self):
            raise QueryRefused(Cause.LOCKED, "the file is locked by another process")
        self._wrote = False
        begun = super()._begin()  # type: ignore[misc]
        self._engine.user = self  # type: ignore[assignment]
        return begun

    def _run(self, cursor: Any, statement: str, parameters: list[Any]) -> Any:
        self._note(statement)
        return super()._run(cursor, statement, parameters)  # type: ignore[misc]

    def _run_many(self, cursor: Any, statement: str, rows: list[list[Any]]) -> None:
        self._note(statement)
        super()._run_many(cursor, statement, rows)  # type: ignore[misc]

    def _note(self, statement: str) -> None:
        process = current()
        if not _WRITES.match(statement) or process is None or process.dead:
            return
        self._wrote = True
        self._reach(process)

    def _end(self, cursor: Any, *, commit: bool) -> None:
        process, act = current(), partial(super()._end, cursor, commit=commit)  # type: ignore[misc]
        try:
            if commit and process is not None and self._wrote:
                self._commit(process, act)
            else:
                act()
        finally:
            self._engine.user = None

    def _commit(self, process: Process, act: Callable[[], None]) -> None:
        late = process.bad is not None and process.bad.late
        try:
            process.access("commit")
        except OSError as error:
            if error.errno == errno.EIO and late:
                process.around("commit", act)
            raise _refusal(error.errno or 0) from None
        if process.bad is not None and process.bad.kind == "full" and process.accesses > process.bad.at:
            process.hurt = not process.leaving
            raise _refusal(errno.ENOSPC)
        process.around("commit", act)

    def _reach(self, process: Process) -> None:
        """The connection is lost: for good, or a new one can be had."""
        bad = process.bad
        if bad is None or bad.kind != "lost":
            return
        number, process.accesses = process.accesses, process.accesses + 1
        if number >= bad.at:
            process.hurt = not process.leaving
            process.bad = None if bad.late else bad
            raise _refusal(errno.EIO)


def _refusal(number: int) -> QueryRefused:
    match number:
        case errno.EROFS:
            return QueryRefused(Cause.DENIED, "it can only be read")
        case errno.ENOSPC:
            return QueryRefused(Cause.OTHER, "its disk is full")
        case _:
            return QueryRefused(Cause.LOST, "the connection was closed")


class _DuckDBTables(_Seams, DuckDBTables):
    def __init__(self, engine: DuckDBFile, *, here: bool) -> None:
        cursor = _Cursor(engine.file)  # a new one for each transaction takes as long as the transaction
        super().__init__(SCHEMA, "warehouse.duckdb", lambda: cursor, lambda _: None, here=here)
        self._engine = engine
        self._lock = threading.RLock()  # threads are processes here


class DuckDBFile(Engine):
    has_one_user = True

    def __init__(self, folder: Path, clock: OneClock) -> None:
        super().__init__(clock)
        path = str(folder / "warehouse.duckdb")
        self.file = self.open.enter_context(closing(duckdb.connect(path, config={"threads": 1})))

    def tables(self, *, here: bool) -> Tables:
        return _DuckDBTables(self, here=here)

    def others(self, schema: str) -> Tables:
        made = DuckDBTables(schema, "warehouse.duckdb", lambda: _Cursor(self.file), lambda _: None, here=True)
        made._lock = threading.RLock()
        return made


class _Cursor:
    """A connection with one cursor."""

    def __init__(self, file: Any) -> None:
        self._own = file.cursor()

    def cursor(self) -> Any:
        return self._own


class _PostgresTables(_Seams, PostgresTables):
    def __init__(self, engine: PostgresDatabase) -> None:
        super().__init__(SCHEMA, "Postgres", engine.connect)
        self._engine = engine


class PostgresDatabase(Engine):
    """A database of its own in that server. Of what another process has locked nobody waits for long."""

    def __init__(self, server: Postgres, clock: OneClock) -> None:
        super().__init__(clock)
        self._server, self._name = server, f"simulated{os.getpid()}"
        self._connections: list[Any] = []
        server.run(f"CREATE DATABASE {self._name}")
        self.open.callback(self.clear)
        self.open.enter_context(patch.object(postgres, "LOCK_WAIT_S", POSTGRES_WAIT_S))

    def connect(self) -> Any:
        made = psycopg2.connect(
            host="127.0.0.1", port=self._server.port, user="owner", password=self._server.password, dbname=self._name
        )
        self._connections.append(made)
        return made

    def clear(self) -> None:
        super().clear()
        self._own.clear()
        while self._connections:
            self._connections.pop().close()

    def tables(self, *, here: bool) -> Tables:
        return _PostgresTables(self)

    def others(self, schema: str) -> Tables:
        return PostgresTables(schema, "Postgres", self.connect)


class _Files(WarehouseFiles):
    """With copies in what the process has of a disk."""

    def __init__(self, tables: Tables, spare: Path, exists: Callable[[], bool]) -> None:
        self._tables, self._spare, self._exists = tables, spare, exists

    @property
    def _scratch(self) -> Path:  # type: ignore[override]
        process = current()
        return process.disk if process else self._spare


class SchemaState(Told, WarehouseState):
    """State in a schema. A process of the same machine that has ended is gone."""

    def __init__(self, place: Schema, clock: Clock, marks: Marks, target: str) -> None:
        super().__init__(place.engine.tables(here=not place.is_shared), place.spare, clock, marks, target=target)
        self.files = _Files(self.tables, place.spare, self.exists)  # type: ignore[arg-type]
        self._place = place

    def take(self, connection: Any, lock: Any, own: Any, holder: Holder) -> Any:
        process = current()
        if process is not None:
            self._place.holders[holder.lock_id] = process
        return super().take(connection, lock, own, holder)

    def _is_gone(self, holder: Holder) -> bool:
        process = self._place.holders.get(holder.lock_id)
        return self.tables.here and process is not None and process.is_over


class Schema(Place):
    """`engine` is made when a history begins."""

    commits = 25

    def __init__(self, home: Path, seed: int, made: Callable[[], Engine], kind: str) -> None:
        self.home, self._made = home, made
        self.spare = home / "spare"
        self.is_shared = kind == "postgres" or random.Random(f"schema {seed}").random() < 0.5
        told = "Postgres" if kind == "postgres" else "a DuckDB file"
        self.said = f"; the state is in {told}, used by {'several machines' if self.is_shared else 'one machine'}"
        self.holders: dict[str, Process] = {}
        self._numbers = itertools.count(1)

    @property
    def engine(self) -> Engine:
        return self._made()

    def new(self) -> None:
        self.engine.clear()

    def exists(self) -> bool:
        return self.engine.own(SCHEMA).exists()

    def disk(self) -> Path:
        made = self.home / f"scratch{next(self._numbers):04}"
        made.mkdir()
        return made

    def fault(self, kind: str) -> str:
        return "lost" if kind == "rename" else kind

    def has_written(self, process: Process) -> bool:
        return "commit" in process.seen

    def store(self, clock: Clock, marks: Marks, target: str) -> SchemaState:
        return SchemaState(self, clock, marks, target)

    def copy(self, name: str) -> None:
        self.engine.copy(SCHEMA, name)

    def has(self, name: str) -> bool:
        return name in self.engine.schemas

    def put_back(self, name: str) -> None:
        self.engine.copy(name, SCHEMA)

    def drop(self, name: str) -> None:
        self.engine.drop(name)
        self.engine.schemas.discard(name)

    def files(self) -> Iterator[Path]:
        return (Path(row["folder"], row["name"]) for row in self.engine.ask("SELECT DISTINCT folder, name FROM file"))

    def spools(self) -> set[str]:
        return {row["spool"].rpartition("/")[2] for row in self.engine.ask(IN_FLIGHT)}

    def written(self) -> Path:
        folder = self.home / "written"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for name in self.engine.names(SCHEMA):
            if name not in ("file", "daily"):  # hashes of keys, in letters that may by chance be a value's
                rows = self.engine.ask(f"SELECT * FROM {name}")
                (folder / f"{name}.txt").write_text("\n".join(str(list(row.values())) for row in rows))
        for row in self.engine.ask("SELECT folder, name, content FROM file ORDER BY folder, name, part"):
            path = folder / row["folder"] / row["name"]
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("ab") as file:
                file.write(bytes(row["content"]))
        return folder

    def contents(self) -> dict[str, Any]:
        names = self.engine.names(SCHEMA)
        return {name: sorted(map(_plain, self.engine.ask(f"SELECT * FROM {name}"))) for name in names}

    def bend(self, chance: random.Random, damages: random.Random) -> Damage:
        what = chance.choice(("a file", "the journal", "the history", "all of it"))
        files = self.engine.ask("SELECT folder, name, part FROM file ORDER BY folder, name, part")
        if what == "all of it" and self.has("older"):
            self.put_back("older")
            return Damage("an older copy comes back", of_history=False, comes_back=True)
        if what == "the history":
            return Damage(self._executed(damages.choice(MEANINGS)), of_history=True, comes_back=False)
        if what == "the journal" or not files:
            return Damage(self._executed(damages.choice(NO_STATES)), of_history=False, comes_back=False)
        return Damage(self._bend_file(chance, chance.choice(files)), of_history=False, comes_back=False)

    def _executed(self, statement: str, parameters: tuple[object, ...] = ()) -> str:
        with self.engine.own(SCHEMA).transaction() as connection:
            connection.execute(statement, parameters)
        return statement

    def _bend_file(self, chance: random.Random, part: Any) -> str:
        own, where = tuple(part.values()), "WHERE folder = ? AND name = ? AND part = ?"
        content = bytearray(self.engine.ask(f"SELECT content FROM file {where}", own)[0]["content"])
        place = chance.randrange(len(content))
        how = chance.choice(("a bit flips", "it is cut", "it is gone"))
        if how == "it is gone":
            self._executed(f"DELETE FROM file {where}", own)
        else:
            content[place] ^= 1 << chance.randrange(8)
            bent = bytes(content[:place]) if how == "it is cut" else bytes(content)
            self._executed(f"UPDATE file SET content = ? {where}", (bent, *own))
        return f"{how}, part {part['part']} of {part['folder']}/{part['name']}"

    def is_of_history(self, where: str) -> bool:
        return where.startswith(self.engine.own(SCHEMA).place)


def _plain(row: dict[str, Any]) -> str:
    return str([bytes(value) if isinstance(value, memoryview) else value for value in row.values()])
