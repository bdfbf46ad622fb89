"""State in a local folder: SQLite for the journal and the history, Parquet for snapshots, Arrow for spools.

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
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dinmo_dbt.durable import make_folder
from dinmo_dbt.errors import StateError, unwritable
from dinmo_dbt.state import activity
from dinmo_dbt.state.files import LocalFiles, refuse_network, stored, write_note
from dinmo_dbt.state.journal import bent, bent_history, snapshot_place
from dinmo_dbt.state.lease import held_error
from dinmo_dbt.state.marks import Marks
from dinmo_dbt.state.sqlite import Database, change_of, copied, create, serialized
from dinmo_dbt.state.store import FORMAT, HISTORY, HISTORY_INDEXES, TABLES, Connection, Lock, Store
from dinmo_dbt.sync import Clock

_OVERDUE = "lease_until < ?"


class LocalState(Store):
    """A state folder. Reading makes nothing; the first run makes the folder."""

    def __init__(self, location: Path, clock: Clock, marks: Marks | None = None) -> None:
        self.location: Path = location
        self.clock, self.marks, self.files = clock, marks or Marks(), LocalFiles(location)
        self._journal = Database(location / "state.db", TABLES, _journal_script, bent)
        self._past = Database(location / "history.db", {"meta": TABLES["meta"], **HISTORY}, _past_script, bent_history)
        self._is_todays = False  # the journal's format, as far as it was looked at

    def exists(self, *, history: bool = False) -> bool:
        return self._past.exists() or self._has_all() if history else self._journal.exists()

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
            with self._journal.held_open():
                yield given
        finally:
            lock.close()

    @contextmanager
    def _alone(self, what: str) -> Iterator[None]:
        with self.exclusive("", what):
            yield

    def forget_lock(self, org_id: str, name: str) -> None:
        self._lock_path(org_id, name).unlink(missing_ok=True)

    def _lock_path(self, org_id: str, name: str) -> Path:
        return self.location / "locks" / f"{org_id}-{name}.lock"

    # Whole, or refused

    def take_back(self) -> None:
        for database in (self._journal, self._past):
            if database.was_cut_off:
                with database.connection(writing=True):
                    pass

    def mend(self) -> None:
        """Let SQLite take back a commit that was cut off, which a reader may not; refuse a journal that is bent."""
        self.take_back()
        with self._connection(writing=True, checked=True):
            pass

    def check(self) -> None:
        if self.exists():
            with self._connection(writing=False, checked=True):
                pass

    def rest(self) -> None:
        """Note what the journal holds, so that a bit of it that flips is seen. After the next commit the note is of the
        past, and says nothing."""
        with suppress(StateError, OSError), self.connection(writing=False) as connection:  # a note missed is no harm
            content = serialized(connection)
            if content:
                note = {"change": change_of(content), "sha256": hashlib.sha256(content).hexdigest()}
                write_note(self._note, json.dumps(note))

    @property
    def _note(self) -> Path:
        return self.location / "state.db.sha256"

    def _check_whole(self, connection: sqlite3.Connection, *, writing: bool) -> None:
        if writing and connection.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
            raise bent(str(self._journal.path))
        self._check_sum(connection)

    def _check_sum(self, connection: sqlite3.Connection) -> None:
        try:
            note = json.loads(self._note.read_text())
            change, sha256 = note["change"], note["sha256"]
        except (OSError, ValueError, KeyError, TypeError):
            return  # none was written, or a power cut kept it from the disk
        content = serialized(connection)
        if content and change == change_of(content) and sha256 != hashlib.sha256(content).hexdigest():
            raise bent(str(self._journal.path))

    # The databases

    def connection(self, *, writing: bool, history: bool = False) -> AbstractContextManager[sqlite3.Connection]:
        return self._history(writing=writing) if history else self._connection(writing=writing)

    @contextmanager
    def _connection(self, *, writing: bool, checked: bool = False) -> Iterator[sqlite3.Connection]:
        """The journal. With `checked` the file is looked through first, before anything of it changes."""
        with self._journal.connection(writing=writing) as connection:
            found = self._format(self._journal, connection)
            if checked:
                self._check_whole(connection, writing=writing)
            if found == FORMAT:
                yield connection
            elif writing:
                self._migrate(connection)
                self._move_history(connection)
                yield connection
            else:
                with closing(copied(connection)) as copy:
                    self._migrate(copy)
                    yield copy

    @contextmanager
    def _history(self, *, writing: bool) -> Iterator[sqlite3.Connection]:
        """A journal that is damaged keeps nobody from reading a history beside it."""
        try:
            has_all = self._has_all()
        except StateError:
            if writing or not self._past.exists():
                raise
            has_all = False
        if has_all:
            if not writing:
                with self._connection(writing=False) as connection:
                    yield connection
                return
            with self._connection(writing=True):  # moves it out
                pass
        with self._past.connection(writing=writing) as connection:
            self._format(self._past, connection)
            yield connection

    def _has_all(self) -> bool:
        """Whether the journal is of an older format, which had the history in it."""
        if not self._is_todays and self._journal.exists():
            with self._journal.connection(writing=False) as connection:
                self._is_todays = self._format(self._journal, connection) == FORMAT
            return not self._is_todays
        return False

    def _format(self, database: Database, connection: sqlite3.Connection) -> int:
        row = connection.execute("SELECT value FROM meta WHERE key = 'format'").fetchone()
        found = row["value"] if row else ""
        if not (isinstance(found, str) and found.isdecimal() and int(found)):
            raise database.bent(str(database.path))
        if int(found) > FORMAT:
            raise StateError(
                "DB514",
                f"the state has format {found}; this version reads {FORMAT}",
                where=str(database.path),
                hint="use the newer dinmo-dbt that wrote it",
            )
        return int(found)

    # Older formats

    def _migrate(self, connection: sqlite3.Connection) -> None:
        """The tables of an older format become today's, in the caller's transaction."""
        found = self._format(self._journal, connection)
        if found == 1:
            self._from_format_1(connection)
        if found <= 2:
            connection.execute("ALTER TABLE run RENAME TO older")
            for name in HISTORY:
                connection.execute(create(name, HISTORY[name]))
            connection.execute("INSERT INTO run SELECT *, NULL FROM older")
            connection.execute("DROP TABLE older")
        else:
            activity.from_format_3(connection)
        connection.execute("UPDATE meta SET value = ? WHERE key = 'format'", (str(FORMAT),))

    def _move_history(self, connection: sqlite3.Connection) -> None:
        """Up to format 3 the history was beside the journal. What a move that was cut off copied is there already."""
        with self._past.connection(writing=True) as past:
            for name in HISTORY:
                rows = connection.execute(f"SELECT * FROM {name}")
                places = ",".join("?" * len(rows.description))
                past.executemany(f"INSERT OR IGNORE INTO {name} VALUES ({places})", map(tuple, rows))
        for name in HISTORY:
            connection.execute(f"DROP TABLE {name}")

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


def _journal_script() -> str:
    meta = f"INSERT INTO meta VALUES ('format', '{FORMAT}'), ('lineage', '{secrets.token_hex(16)}');"
    return f"CREATE INDEX batch_of ON batch (org_id, name, state); {meta}"


def _past_script() -> str:
    indexes = " ".join(f"{index};" for index in HISTORY_INDEXES)
    return f"{indexes} INSERT INTO meta VALUES ('format', '{FORMAT}');"


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


def _summed(folder: Path, names: list[str]) -> list[dict[str, Any]] | None:
    """Format 1's names with their checksums; None when a file is not there."""
    try:
        return [asdict(stored(folder / name)) for name in names]
    except OSError:
        return None
