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
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from dinmo_dbt.clock import Clock
from dinmo_dbt.durable import make_folder, read_file
from dinmo_dbt.errors import StateError, unwritable
from dinmo_dbt.state.copied import Place, PlaceKind
from dinmo_dbt.state.damage import START_AGAIN, other_format, state_damaged
from dinmo_dbt.state.files import LocalFiles, write_note
from dinmo_dbt.state.lease import LAPSED, held_error
from dinmo_dbt.state.local_history import LocalHistory
from dinmo_dbt.state.marks import Marks
from dinmo_dbt.state.mounts import refuse_network
from dinmo_dbt.state.sqlite import Database, change_of, format_of, serialized
from dinmo_dbt.state.state_id import StateId
from dinmo_dbt.state.storage import Lock
from dinmo_dbt.state.store import Store
from dinmo_dbt.state.tables import FORMAT, TABLES, Connection

_FOLDERS = ("snapshots", "spool", "runs", "images", "trace")


class LocalState(Store):
    """A state folder. Reading makes nothing; the first run makes the folder."""

    def __init__(self, location: Path, clock: Clock, marks: Marks | None = None, *, target: str) -> None:
        self.location: Path = location
        self.target = target
        self.clock, self.marks, self.files = clock, marks or Marks(), LocalFiles(location)
        self._journal = Database(location / "state.db", TABLES, _journal_script, state_damaged)
        self._past = LocalHistory(
            location / "history.db", self._refuse_other_journal, self._tell_of_damage, self._tell_of_loss
        )

    def exists(self, *, history: bool = False) -> bool:
        return (self._past if history else self._journal).exists()

    def now(self, connection: Connection) -> float:  # noqa: ARG002
        return self.clock.now()

    # One writer

    @contextmanager
    def exclusive(self, own: StateId) -> Iterator[Lock]:
        """An OS lock, which goes with the process, however that ends. A process that is there and has not renewed its
        lease in time is paused or hangs: its lease may be taken, and then a new lock file takes the place of its."""
        refuse_network(self.location)
        make_folder(self.location)
        make_folder(self.location / "locks")
        lock = _FileLock(self._lock_path(own))
        try:
            if lock.acquire():
                given = Lock("")
            else:
                held = next((held for held in self.held(own.name) if held.id == own), None)
                if held is None or not held.overdue:
                    raise held_error(own.name, held)
                given = Lock(LAPSED, lock.replace)
            with self._journal.held_open():
                yield given
        finally:
            lock.close()

    @contextmanager
    def _alone(self, what: str) -> Iterator[None]:
        with self.exclusive(StateId("", "", what)):
            yield

    def forget_lock(self, own: StateId) -> None:
        self._lock_path(own).unlink(missing_ok=True)

    def _lock_path(self, own: StateId) -> Path:
        return self.location / "locks" / f"{own.file_name}.lock"

    # Whole, or refused

    def take_back(self) -> None:
        if self._journal.was_cut_off:
            with self._journal.connection(writing=True):
                pass
        self._past.take_back()

    def mend(self) -> None:
        """Let SQLite take back a commit that was cut off, which a reader may not; refuse a journal that is damaged."""
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
            raise state_damaged(str(self._journal.path))
        self._journal.refuse_odd_values(connection)
        self._check_sum(connection)

    def _check_sum(self, connection: sqlite3.Connection) -> None:
        try:
            note = json.loads(read_file(self._note))
            change, sha256 = note["change"], note["sha256"]
        except (OSError, ValueError, KeyError, TypeError):
            return  # none was written, or a power cut kept it from the disk
        content = serialized(connection)
        if content and change == change_of(content) and sha256 != hashlib.sha256(content).hexdigest():
            raise state_damaged(str(self._journal.path))

    # The databases

    @contextmanager
    def connection(self, *, writing: bool, history: bool = False) -> Iterator[sqlite3.Connection]:
        opened = self._past.connection if history else self._connection
        with opened(writing=writing) as connection:
            yield connection

    @property
    def place(self) -> Place:
        return Place(PlaceKind.FOLDER, str(self.location))

    @property
    def history_place(self) -> str:
        return str(self._past.path)

    def salvage_history(self) -> int:
        return self._past.salvage()

    @contextmanager
    def _connection(self, *, writing: bool, checked: bool = False) -> Iterator[sqlite3.Connection]:
        """The journal. With `checked` the file is looked through first, before anything of it changes."""
        with self._journal.connection(writing=writing) as connection:
            self._refuse_other(format_of(self._journal, connection))
            self._journal.refuse_other_tables(connection)
            if checked:
                self._check_whole(connection, writing=writing)
            yield connection

    def _refuse_other_journal(self) -> None:
        if self._journal.exists():
            with self._connection(writing=False):
                pass

    def _refuse_other(self, found: int) -> None:
        if found != FORMAT:
            raise other_format("the state", found, FORMAT, str(self._journal.path), START_AGAIN)

    def start_anew(self) -> int | None:
        if not self.exists():
            return None
        with ExitStack() as stack:
            for path in sorted((self.location / "locks").glob("*.lock")):
                lock = _FileLock(path)
                stack.callback(lock.close)
                if not lock.acquire():
                    raise held_error(path.stem, None)
            with self._journal.connection(writing=True) as connection:
                found = format_of(self._journal, connection)
            if found == FORMAT:
                return None
            if found > FORMAT:
                self._refuse_other(found)
            # The journal goes last: until then the state is refused, and this can be done again.
            for folder in filter(Path.exists, (self.location / name for name in _FOLDERS)):
                _removed(folder, shutil.rmtree)
            for path in filter(Path.exists, (self._past.path, self._note, self._journal.path)):
                _removed(path, Path.unlink)
        return found


def _journal_script() -> str:
    meta = f"INSERT INTO meta VALUES ('format', '{FORMAT}'), ('lineage', '{secrets.token_hex(16)}');"
    return f"CREATE INDEX batch_of ON batch (org_id, target, name, state); {meta}"


def _removed(path: Path, remove: Callable[[Path], None]) -> None:
    try:
        remove(path)
    except OSError as error:
        raise unwritable(path, error) from error


class _FileLock:
    """flock on a path: the lock belongs to the process that holds the file which is there now."""

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
