"""State in tables of the user's own warehouse, for runners without a disk.

The same tables as a local state's, and one more for the files, in parts. There is no OS lock: the lease alone decides
who writes, in one transaction and by the warehouse's clock. A runner that is lost keeps others out until its lease has
run out; then the next one settles what it left, whose spools are in the warehouse too.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from dinmo_dbt.clock import Clock
from dinmo_dbt.durable import make_folder
from dinmo_dbt.errors import StateError
from dinmo_dbt.state import activity
from dinmo_dbt.state.copied import Place, PlaceKind
from dinmo_dbt.state.damage import START_AGAIN, history_damaged, other_format, state_damaged
from dinmo_dbt.state.expendable import salvaged
from dinmo_dbt.state.files import Files, Stored, stored, write_whole
from dinmo_dbt.state.lease import LAPSED, Holder, held_error, holder_of, this_process
from dinmo_dbt.state.marks import Marks
from dinmo_dbt.state.shape import columns, kind_of
from dinmo_dbt.state.state_id import OWN, StateId
from dinmo_dbt.state.storage import Lock
from dinmo_dbt.state.store import Store
from dinmo_dbt.state.tables import FORMAT, HISTORY, HISTORY_INDEXES, TABLES, Connection

if TYPE_CHECKING:
    import pyarrow as pa

PART_BYTES = 4 << 20
_FILE = """
  folder TEXT NOT NULL, name TEXT NOT NULL, part BIGINT NOT NULL, content BYTEA NOT NULL,
  PRIMARY KEY (folder, name, part)"""
_KEYS = {"run": ("id",), "activity": ("target", "name"), "standing": ("target", "name", "kind"), "notice": ("id",)}
_FREE = f"(lease_owner IS NULL OR {LAPSED})"


class Tables(Protocol):
    """A schema of the warehouse, as `dinmo_dbt.warehouse` gives it. Every method may raise StateError."""

    place: str
    schema: str
    here: bool  # it is a file of this machine, and so are all processes that can be at it

    def transaction(self) -> AbstractContextManager[Any]:
        """A `Connection`; a transaction within a transaction is part of it."""

    def exists(self) -> bool: ...
    def make(self, tables: dict[str, str], rows: dict[str, str], indexes: Sequence[str]) -> None: ...
    def columns(self) -> dict[str, dict[str, str]]: ...
    def index(self, statements: Sequence[str]) -> None: ...
    def now(self) -> float: ...
    def close(self) -> None: ...


class WarehouseState(Store):
    """State in a schema of the warehouse; the first run makes it. `scratch`: a folder for copies of its files."""

    own_tables: ClassVar[dict[str, str]] = {**TABLES, **HISTORY, "file": _FILE}

    def __init__(self, tables: Tables, scratch: Path, clock: Clock, marks: Marks | None = None, *, target: str) -> None:
        self.tables, self.clock, self.marks, self.target = tables, clock, marks or Marks(), target
        self.location = tables.place
        self.files: Files = WarehouseFiles(tables, scratch, self.exists)
        self._there = False
        self._remains: Any = None  # of a damaged history, in memory: what readers have until somebody writes
        self._others: set[str] | None = None  # tables that are not as we make them, once that was looked at

    def exists(self, *, history: bool = False) -> bool:  # noqa: ARG002
        self._there = self._there or self.tables.exists()
        return self._there

    @contextmanager
    def connection(self, *, writing: bool, history: bool = False) -> Iterator[Connection]:
        if history and self._remains is not None and not writing:
            yield self._remains
            return
        if writing and not self.exists():
            lineage = secrets.token_hex(16)
            meta = {"format": str(FORMAT), "lineage": lineage}
            self.tables.make(self.own_tables, meta, HISTORY_INDEXES)
        with self.tables.transaction() as connection:
            found = self._format(connection)
            if found != FORMAT:
                raise other_format("the state", found, FORMAT, self.tables.place, START_AGAIN)
            self._refuse_other_tables(history=history)
            if history and self._remains is not None:
                self._put_aside(connection)
            yield connection

    def _refuse_other_tables(self, *, history: bool) -> None:
        if self._others is None:
            there = self.tables.columns()
            self._others = {
                name
                for name, declared in self.own_tables.items()
                if {column: kind_of(named) for column, named in there.get(name, {}).items()} != columns(declared)
            }
        if self._others - HISTORY.keys():
            raise state_damaged(self.tables.place)
        if history and self._remains is None and self._others:
            raise history_damaged(self.tables.place)

    def _format(self, connection: Connection) -> int:
        row = connection.execute("SELECT value FROM meta WHERE key = 'format'").fetchone()
        found = row["value"] if row else ""
        if not (found.isdecimal() and int(found)):
            raise state_damaged(self.tables.place)
        return int(found)

    def start_anew(self) -> int | None:
        if not self.exists():
            return None
        with self.tables.transaction() as connection:
            found = self._format(connection)
            if found == FORMAT:
                return None
            if found > FORMAT:
                raise other_format("the state", found, FORMAT, self.tables.place, START_AGAIN)
            held = connection.execute(
                "SELECT name, lease_owner FROM activation WHERE lease_owner IS NOT NULL AND lease_until >= ?",
                (self.tables.now(),),
            ).fetchall()
            for row in held:
                if not self._is_gone(holder_of(row["lease_owner"])):
                    raise held_error(row["name"], None)
            for name in self.own_tables:
                connection.execute(f"DROP TABLE IF EXISTS {name}")
        self._there = False
        return found

    @contextmanager
    def exclusive(self, own: StateId) -> Iterator[Lock]:
        """Nothing is held here: who takes the lease is the writer. A process of this machine that is gone has none."""
        if self.exists():
            self.mend()
        held = next((held for held in self.held(own.name) if held.id == own), None) if self.tables.here else None
        yield Lock("" if held is not None and self._is_gone(held.holder) else _FREE)

    def _is_gone(self, holder: Holder) -> bool:
        return self.tables.here and holder.lives is False

    @contextmanager
    def _alone(self, what: str) -> Iterator[None]:
        """By a lease: of a process that was killed, the next one waits until it has run out."""
        own = StateId("", "", what)
        with self.exclusive(own) as lock, self.connection(writing=True) as connection:
            epoch = self.take(connection, lock, own, this_process(self.clock.now()))["epoch"]
        try:
            yield
        finally:
            with suppress(StateError), self.connection(writing=True) as connection:  # else it runs out
                connection.execute(
                    f"UPDATE activation SET lease_owner = NULL, lease_until = NULL WHERE {OWN} AND epoch = ?",
                    (*own, epoch),
                )

    def now(self, connection: Connection) -> float:  # noqa: ARG002
        return self.tables.now()

    def forget_lock(self, own: StateId) -> None:
        """There is none but the lease."""

    @property
    def place(self) -> Place:
        return Place(PlaceKind.WAREHOUSE, self.tables.schema)

    @property
    def history_place(self) -> str:
        return self.tables.place

    def salvage_history(self) -> int:
        with self.tables.transaction() as connection:
            there = self.tables.columns()  # a statement that fails may end the transaction, and with it the others
            self._remains, lost = salvaged(connection, HISTORY, activity.CHECKS, without=HISTORY.keys() - there.keys())
        self._tell_of_damage(lost)
        return lost

    def _put_aside(self, connection: Connection) -> None:
        """Rows that can't be read go, as text, to a table of their own; so do all of a table that is not as we make it,
        which is made again."""
        connection.execute("CREATE TABLE IF NOT EXISTS damaged (name TEXT NOT NULL, content TEXT NOT NULL)")
        for name in sorted(self._others or ()):
            self._make_anew(connection, name)
        for name in HISTORY:
            for row in connection.execute(f"SELECT * FROM {name}").fetchall():
                try:
                    activity.CHECKS[name](row)
                except (ValueError, TypeError, KeyError, AttributeError):
                    own = [(column, row[column]) for column in _KEYS[name]]
                    connection.execute("INSERT INTO damaged VALUES (?, ?)", (name, json.dumps(dict(row), default=str)))
                    where = " AND ".join(f"{column} = ?" for column, _ in own)
                    connection.execute(f"DELETE FROM {name} WHERE {where}", tuple(value for _, value in own))
        self._remains, self._others = None, None

    def _make_anew(self, connection: Connection, name: str) -> None:
        if name in self.tables.columns():
            rows = connection.execute(f"SELECT * FROM {name}").fetchall()
            damaged = [(name, json.dumps(dict(row), default=str)) for row in rows]
            connection.executemany("INSERT INTO damaged VALUES (?, ?)", damaged)
            connection.execute(f"DROP TABLE {name}")
        connection.execute(f"CREATE TABLE {name} ({HISTORY[name]})")
        self.tables.index([index for index in HISTORY_INDEXES if f" ON {name} " in index])
        for row in self._remains.execute(f"SELECT * FROM {name}").fetchall():
            connection.execute(f"INSERT INTO {name} VALUES ({', '.join('?' * len(row))})", tuple(row))

    # A database answers for its own pages: only whether the tables are ours is asked.

    def take_back(self) -> None:
        """The database does that by itself."""

    def mend(self) -> None:
        with self.connection(writing=True):
            pass

    def check(self) -> None:
        if self.exists():
            with self.connection(writing=False):
                pass

    def rest(self) -> None:
        """Nothing to note."""

    def close(self) -> None:
        self.tables.close()


class WarehouseFiles:
    """`Files` as rows of a table, each a part of one; read from copies in a scratch folder. `exists`: whether there is
    such a table yet."""

    def __init__(self, tables: Tables, scratch: Path, exists: Callable[[], bool]) -> None:
        self._tables, self._scratch, self._exists = tables, scratch, exists

    def put(self, folder: str, name: str, write: Callable[[pa.NativeFile], None]) -> Stored:
        path = make_folder(self._scratch / folder) / name
        write_whole(path, write)
        with self._tables.transaction() as connection, path.open("rb") as file:
            connection.execute("DELETE FROM file WHERE folder = ? AND name = ?", (folder, name))
            part = 0
            while content := file.read(PART_BYTES):
                connection.execute("INSERT INTO file VALUES (?, ?, ?, ?)", (folder, name, part, content))
                part += 1
        return stored(path)

    def fetch(self, folder: str, names: Iterable[str]) -> Path:
        place = make_folder(self._scratch / folder)
        for name in names:
            if not (place / name).exists():
                self._copy_of(folder, name, place / name)
        return place

    def _copy_of(self, folder: str, name: str, path: Path) -> None:
        with self._tables.transaction() as connection:
            parts = connection.execute(
                "SELECT part FROM file WHERE folder = ? AND name = ? ORDER BY part", (folder, name)
            ).fetchall()
            if not parts:
                return

            def write(sink: pa.NativeFile) -> None:
                for part in parts:
                    row = connection.execute(
                        "SELECT content FROM file WHERE folder = ? AND name = ? AND part = ?",
                        (folder, name, part["part"]),
                    ).fetchone()
                    sink.write(bytes(row["content"]))

            write_whole(path, write)

    def names(self, folder: str) -> list[str]:
        if not self._exists():
            return []
        with self._tables.transaction() as connection:
            rows = connection.execute("SELECT DISTINCT name FROM file WHERE folder = ?", (folder,)).fetchall()
        return sorted(row["name"] for row in rows)

    def remove(self, folder: str, names: Iterable[str]) -> None:
        for name in names:
            with self._tables.transaction() as connection:
                connection.execute("DELETE FROM file WHERE folder = ? AND name = ?", (folder, name))
            (self._scratch / folder / name).unlink(missing_ok=True)

    def copy(self, folder: str, to: str) -> None:
        with self._tables.transaction() as connection:
            connection.execute(
                "INSERT INTO file SELECT ?, name, part, content FROM file WHERE folder = ?", (to, folder)
            )
