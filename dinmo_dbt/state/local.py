"""State in a local folder: SQLite for the journal and everything small, Parquet for snapshots, Arrow for spools.

Every commit writes its file first (whole, synced, renamed), then moves the pointer in SQLite in the same transaction
as the results. A file that no pointer names is left from a crash and goes at the next locked start.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import secrets
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dinmo_dbt.durable import discard, make_folder, sync_folder
from dinmo_dbt.errors import StateError, unwritable
from dinmo_dbt.state import activity
from dinmo_dbt.state.files import LocalFiles, refuse_network, stored, write_note
from dinmo_dbt.state.journal import bent, snapshot_place
from dinmo_dbt.state.lease import held_error
from dinmo_dbt.state.marks import Marks
from dinmo_dbt.state.store import FORMAT, TABLES, Connection, Lock, Store
from dinmo_dbt.sync import Clock

LOCK_WAIT_S = 10.0
_RUN_INDEX = "CREATE INDEX run_of ON run (name, started)"
_INDEXES = f"CREATE INDEX batch_of ON batch (org_id, name, state); {_RUN_INDEX};"
_OVERDUE = "lease_until < ?"


class LocalState(Store):
    """A state folder. Reading makes nothing; the first run makes the folder."""

    def __init__(self, location: Path, clock: Clock, marks: Marks | None = None) -> None:
        self.location: Path = location
        self.clock, self.marks, self.files = clock, marks or Marks(), LocalFiles(location)
        self.database = location / "state.db"
        self._own: _Own | None = None  # of the run that holds a lock

    def exists(self) -> bool:
        return self.database.exists()

    def now(self, connection: Connection) -> float:  # noqa: ARG002
        return self.clock.now()

    # One writer

    @contextmanager
    def exclusive(self, org_id: str, name: str) -> Iterator[Lock]:
        """An OS lock, which goes with the process, however that ends. A process that is there and has not renewed its
        lease in time is paused or hangs: its lease may be taken, and then a new lock file takes the place of its."""
        make_folder(self.location)
        refuse_network(self.location)
        make_folder(self.location / "locks")
        lock = _FileLock(self._lock_path(org_id, name))
        try:
            if lock.acquire():
                given = Lock("")
            else:
                held = next((held for held in self.held(name) if held.org_id == org_id), None)
                if held is None or not held.overdue:
                    raise held_error(name, held)
                given = Lock(_OVERDUE, lock.replace)
            with self._one_connection():
                yield given
        finally:
            lock.close()

    @contextmanager
    def _one_connection(self) -> Iterator[None]:
        """A run's journal writes often: its own thread opens the database once."""
        before, self._own = self._own, _Own(threading.get_ident())
        try:
            yield
        finally:
            self._own.close()
            self._own = before

    def forget_lock(self, org_id: str, name: str) -> None:
        self._lock_path(org_id, name).unlink(missing_ok=True)

    def _lock_path(self, org_id: str, name: str) -> Path:
        return self.location / "locks" / f"{org_id}-{name}.lock"

    # Whole, or refused

    def take_back(self) -> None:
        if self._journal.exists():
            with self._connection(writing=True):
                pass

    @property
    def _journal(self) -> Path:
        """SQLite's own, beside the database while a commit is under way, or after it was cut off."""
        return self.location / "state.db-journal"

    def mend(self) -> None:
        """Let SQLite take back a commit that was cut off, which a reader may not; refuse a database that is bent."""
        with self._connection(writing=True, checked=True):
            pass

    def check(self) -> None:
        if self.exists():
            with self._connection(writing=False, checked=True):
                pass

    def rest(self) -> None:
        """Note what the database holds, so that a bit of it that flips is seen. After the next commit the note is of
        the past, and says nothing."""
        with suppress(StateError, OSError), self.connection(writing=False) as connection:  # a note missed is no harm
            content = _serialized(connection)
            if content:
                note = {"change": _change_of(content), "sha256": hashlib.sha256(content).hexdigest()}
                write_note(self._note, json.dumps(note))

    @property
    def _note(self) -> Path:
        return self.location / "state.db.sha256"

    def _check_whole(self, connection: sqlite3.Connection, *, writing: bool) -> None:
        if writing and connection.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
            raise bent(str(self.database))
        self._check_sum(connection)

    def _check_sum(self, connection: sqlite3.Connection) -> None:
        try:
            note = json.loads(self._note.read_text())
            change, sha256 = note["change"], note["sha256"]
        except (OSError, ValueError, KeyError, TypeError):
            return  # none was written, or a power cut kept it from the disk
        content = _serialized(connection)
        if content and change == _change_of(content) and sha256 != hashlib.sha256(content).hexdigest():
            raise bent(str(self.database))

    # The database

    def connection(self, *, writing: bool) -> AbstractContextManager[sqlite3.Connection]:
        """A connection; with `writing`, one immediate transaction that commits at the end or not at all."""
        return self._connection(writing=writing)

    @contextmanager
    def _connection(self, *, writing: bool, checked: bool = False) -> Iterator[sqlite3.Connection]:
        """With `checked` the file is looked through first, before anything of it changes."""
        if writing and not self.exists():
            self._make_database()
        try:
            with self._opened(writing=writing) as connection:
                if writing:
                    connection.execute("BEGIN IMMEDIATE")
                found = self._format(connection)
                if checked:
                    self._check_whole(connection, writing=writing)
                if found == FORMAT:
                    yield connection
                elif writing:
                    self._migrate(connection)
                    yield connection
                else:
                    with closing(_copied(connection)) as copy:
                        self._migrate(copy)
                        yield copy
                if writing:
                    connection.execute("COMMIT")
        except sqlite3.OperationalError as error:
            raise _operational(self.database, error) from error
        except (sqlite3.DatabaseError, json.JSONDecodeError, UnicodeDecodeError) as error:
            raise bent(str(self.database)) from error

    @contextmanager
    def _opened(self, *, writing: bool) -> Iterator[sqlite3.Connection]:
        """A connection that is closed in the end, and with it a transaction that is open rolled back; or the run's own
        one, which an error ends."""
        own = self._own
        if own is None or threading.get_ident() != own.thread:
            with closing(self._connect(writing=writing)) as connection:
                yield connection
            return
        try:
            yield own.of(self.database, self._connect)
        except BaseException:
            own.close()
            raise

    def _connect(self, *, writing: bool) -> sqlite3.Connection:
        # A rollback journal, not a WAL: a reader of a WAL makes files of its own, and a plan must change nothing.
        # EXTRA also syncs the folder after the journal is gone, so that a commit can't be undone by a power cut.
        mode = "rw" if writing else "ro"
        connection = sqlite3.connect(
            f"{self.database.absolute().as_uri()}?mode={mode}", uri=True, isolation_level=None, timeout=LOCK_WAIT_S
        )
        connection.row_factory = sqlite3.Row
        if writing:
            connection.execute("PRAGMA synchronous = EXTRA")
            connection.execute("PRAGMA fullfsync = ON")
        return connection

    def _format(self, connection: sqlite3.Connection) -> int:
        row = connection.execute("SELECT value FROM meta WHERE key = 'format'").fetchone()
        found = row["value"] if row else ""
        if not (isinstance(found, str) and found.isdecimal() and int(found)):
            raise bent(str(self.database))
        if int(found) > FORMAT:
            raise StateError(
                "DB514",
                f"the state has format {found}; this version reads {FORMAT}",
                where=str(self.database),
                hint="use the newer dinmo-dbt that wrote it",
            )
        return int(found)

    def _migrate(self, connection: sqlite3.Connection) -> None:
        """From an older format, in the caller's transaction."""
        if self._format(connection) == 1:
            self._from_format_1(connection)
        connection.execute("ALTER TABLE run RENAME TO older")
        for name in ("run", *activity.TABLES):
            connection.execute(_table(name))
        connection.execute("INSERT INTO run SELECT *, NULL FROM older")
        connection.execute("DROP TABLE older")
        connection.execute(_RUN_INDEX)
        connection.execute("UPDATE meta SET value = ? WHERE key = 'format'", (str(FORMAT),))

    def _from_format_1(self, connection: sqlite3.Connection) -> None:
        """Its pointers had no checksums and its database had no lineage."""
        connection.execute("ALTER TABLE activation ADD COLUMN born INTEGER NOT NULL DEFAULT 0")
        connection.execute("ALTER TABLE pending ADD COLUMN described TEXT NOT NULL DEFAULT ''")
        for row in connection.execute("SELECT org_id, name, files, previous FROM activation").fetchall():
            folder = self.location / snapshot_place(row["org_id"], row["name"])
            previous = [_summed(folder, pointer["files"]) for pointer in json.loads(row["previous"])]
            serials = [pointer["serial"] for pointer in json.loads(row["previous"])]
            pointers = [{"serial": n, "files": f} for n, f in zip(serials, previous, strict=True) if f is not None]
            files = _summed(folder, json.loads(row["files"]))
            if files is None:
                raise StateError(
                    "DB513",
                    f"a snapshot file of {row['name']} is missing; what is there is left as it is",
                    where=str(folder),
                    hint="restore the state folder from a copy, or use the dinmo-dbt that wrote it to reset that "
                    "activation",
                )
            connection.execute(
                "UPDATE activation SET files = ?, previous = ? WHERE org_id = ? AND name = ?",
                (json.dumps(files), json.dumps(pointers), row["org_id"], row["name"]),
            )
        connection.execute("INSERT INTO meta VALUES ('lineage', ?)", (secrets.token_hex(16),))

    def _make_database(self) -> None:
        """Made whole under another name, then linked: no reader ever sees half of it, and of two makers one wins."""
        make_folder(self.location)
        temporary = self.location / f".state.db.{secrets.token_hex(4)}.tmp"
        tables = " ".join(f"{_table(name)};" for name in TABLES)
        meta = f"INSERT INTO meta VALUES ('format', '{FORMAT}'), ('lineage', '{secrets.token_hex(16)}');"
        try:
            os.close(os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600))
            with closing(sqlite3.connect(temporary, isolation_level=None)) as connection:
                connection.executescript(f"BEGIN; {tables} {_INDEXES} {meta} COMMIT;")
            with suppress(FileExistsError):
                os.link(temporary, self.database)
            sync_folder(self.location)
        except OSError as error:
            raise unwritable(self.database, error) from error
        except sqlite3.OperationalError as error:
            raise _operational(self.database, error) from error
        finally:
            discard(temporary)


def _table(name: str) -> str:
    """Without a row number of its own, but for the history: its long rows would take a page each."""
    return f"CREATE TABLE {name} ({TABLES[name]})" + ("" if name == "run" else " WITHOUT ROWID")


class _Own:
    """The connection of a run, kept from one use to the next: by one thread, of the file that is there now."""

    def __init__(self, thread: int) -> None:
        self.thread = thread
        self._file: tuple[int, int] | None = None
        self._connection: sqlite3.Connection | None = None

    def of(self, path: Path, connect: Callable[..., sqlite3.Connection]) -> sqlite3.Connection:
        """The one that is kept; a new one if another file has taken the place of its own."""
        found = _file_at(path)
        if self._connection is None or found != self._file:
            self.close()
            self._connection, self._file = connect(writing=True), found
        return self._connection

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _file_at(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


class _FileLock:
    """flock on a path: the lock of whoever holds the file that is there now."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    def acquire(self) -> bool:
        """Whether it is ours; False while another process has it."""
        while True:
            self._descriptor = self._open(self._path, os.O_CREAT)
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self.close()
                return False
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(self._descriptor), self._path.stat()):
                    return True
            self.close()  # it was replaced between our open and our lock

    def replace(self) -> None:
        """Put a file of ours in the place of one that somebody else has locked."""
        temporary = self._path.with_name(f".{self._path.name}.{secrets.token_hex(4)}")
        self._descriptor = self._open(temporary, os.O_CREAT | os.O_EXCL)
        fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        temporary.replace(self._path)

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    @staticmethod
    def _open(path: Path, flags: int) -> int:
        try:
            return os.open(path, os.O_RDWR | os.O_NOFOLLOW | flags, 0o600)
        except OSError as error:
            raise unwritable(path, error) from error


def _serialized(connection: sqlite3.Connection) -> bytes:
    """The database's file as this connection sees it; empty with an SQLite before 3.36, which has no call for it. To
    read the file beside SQLite would lose its locks (sqlite.org/howtocorrupt.html, 2.2)."""
    return connection.serialize() if hasattr(connection, "serialize") else b""


def _change_of(content: bytes) -> int:
    """SQLite's own count of commits (sqlite.org/fileformat2.html, offset 24)."""
    return int.from_bytes(content[24:28], "big")


def _copied(connection: sqlite3.Connection) -> sqlite3.Connection:
    copy = sqlite3.connect(":memory:", isolation_level=None)
    connection.backup(copy)
    copy.row_factory = sqlite3.Row
    return copy


def _summed(folder: Path, names: list[str]) -> list[dict[str, Any]] | None:
    """Format 1's names with their checksums; None when a file is not there."""
    try:
        return [asdict(stored(folder / name)) for name in names]
    except OSError:
        return None


def _operational(path: Path, error: sqlite3.OperationalError) -> StateError:
    text = str(error)
    if "full" in text:
        return StateError("DB510", "the disk is full; what was there before is untouched", where=str(path))
    if not os.access(path, os.R_OK):
        return StateError("DB510", "permission denied; the state is untouched", where=str(path))
    if path.with_name(f"{path.name}-journal").exists() and "locked" not in text:
        return StateError(
            "DB515",
            "a commit was cut off, and only a writer may take it back; the state is whole",
            where=str(path),
            hint="run sync: it mends that first",
        )
    if "readonly" in text:
        return StateError("DB510", "the state is read-only; it is untouched", where=str(path))
    if "locked" in text or "busy" in text:
        return StateError("DB501", "the state is being written by another process", where=str(path), hint="try again")
    if "no such table" in text:
        return bent(str(path))
    return StateError("DB515", f"the state can't be used: {text}", where=str(path))
