"""An SQLite file of a state folder: made whole, written in transactions, and never half of either."""

from __future__ import annotations

import errno
import json
import os
import secrets
import sqlite3
import stat
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from dinmo_dbt.codes import HELD_BY_ANOTHER, STATE_NOT_OPENED, STATE_NOT_WRITABLE
from dinmo_dbt.durable import discard, make_folder, read_file, sync_folder
from dinmo_dbt.errors import StateError, unwritable
from dinmo_dbt.state.shape import odd_values

LOCK_WAIT_S = 10.0
# What SQLite may keep beside a file. We ask for no write-ahead log, but it looks for one.
_BESIDE = ("-journal", "-wal", "-shm")


class ForNow(StateError):
    """Of the moment: the disk is full, or another process writes. What is there is what it was."""

    @classmethod
    def of(cls, error: StateError) -> ForNow:
        first = error.problems[0]
        return cls(first.code, first.message, where=first.where, hint=first.hint)


class Database:
    """One file. `tables`: their columns by name; `script`: what else a new one begins with; `damaged`: the error for a
    file that is damaged or none of ours, by its path."""

    def __init__(
        self, path: Path, tables: Mapping[str, str], script: Callable[[], str], damaged: Callable[[str], StateError]
    ) -> None:
        self.path, self.damaged = path, damaged
        self._tables, self._script = tables, script
        self._own: _Own | None = None  # of the run that holds a lock

    def exists(self) -> bool:
        """Whether anything is there; a link counts wherever it leads, as its disk may not be mounted."""
        return os.path.lexists(self.path)

    @property
    def was_cut_off(self) -> bool:
        """Whether SQLite's own journal is beside the file: a commit is under way, or was cut off."""
        return self.beside[0].is_file()

    @property
    def beside(self) -> tuple[Path, ...]:
        """Where SQLite keeps files of its own beside the file: its journal first."""
        return tuple(self.path.with_name(f"{self.path.name}{suffix}") for suffix in _BESIDE)

    def before_commit(self) -> sqlite3.Connection | None:
        """What the file held before a commit that was cut off, in memory: taken back in a copy, as a reader may take
        nothing back in the file. None where none was cut off. sqlite3.Error or OSError if it can't be had; StateError
        DB501 while it goes on."""
        if not self.was_cut_off:
            return None
        with closing(self._connect(writing=False)) as connection:
            try:
                connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
                return None
            except sqlite3.DatabaseError as error:
                # It goes on. To read the file here would also lose the locks of a writer in this process.
                if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY and isinstance(error, sqlite3.OperationalError):
                    raise self._operational(error, writing=False) from error
        with TemporaryDirectory(prefix="dinmo-") as folder:
            copy = Path(folder) / self.path.name
            for path in (self.path, self.beside[0]):
                (Path(folder) / path.name).write_bytes(read_file(path))
            before = sqlite3.connect(":memory:", isolation_level=None)
            before.row_factory = sqlite3.Row
            with closing(sqlite3.connect(copy)) as connection:
                connection.backup(before)
            return before

    @contextmanager
    def connection(self, *, writing: bool) -> Iterator[sqlite3.Connection]:
        """A connection; with `writing`, one immediate transaction that commits at the end or not at all. StateError
        DB501, DB510, DB515, or what a damaged file is."""
        if writing and not self.exists():
            self._make()
        try:
            with self._opened(writing=writing) as connection:
                if writing:
                    connection.execute("BEGIN IMMEDIATE")
                yield connection
                if writing:
                    connection.execute("COMMIT")
        except sqlite3.OperationalError as error:
            raise self._operational(error, writing=writing) from error
        except (sqlite3.DatabaseError, json.JSONDecodeError, UnicodeDecodeError) as error:
            raise self.damaged(str(self.path)) from error

    def refuse_other_tables(self, connection: sqlite3.Connection) -> None:
        """What a damaged file is, if a table is not the one that was made: SQLite keeps the statement that made it."""
        found = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table'").fetchall()
        if {row["name"]: row["sql"] for row in found} != {n: create(n, columns) for n, columns in self._tables.items()}:
            raise self.damaged(str(self.path))

    def refuse_odd_values(self, connection: sqlite3.Connection) -> None:
        """The same if a value is of another kind than its column's, which SQLite allows."""
        for name, columns in self._tables.items():
            if connection.execute(odd_values(name, columns)).fetchone():
                raise self.damaged(str(self.path))

    def raw(self) -> sqlite3.Connection:
        """A reader of whatever is in the file, without a look at what is beside it; sqlite3.Error if it can't be
        opened."""
        return self._connect(writing=False, alone=True)

    @contextmanager
    def held_open(self) -> Iterator[None]:
        """A run writes often: its own thread opens the file once."""
        before, self._own = self._own, _Own(threading.get_ident())
        try:
            yield
        finally:
            self._own.close()
            self._own = before

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
            yield own.of(self.path, self._connect)
        except BaseException:
            own.close()
            raise

    def _connect(self, *, writing: bool, alone: bool = False) -> sqlite3.Connection:
        # A rollback journal, not a WAL: a reader of a WAL makes files of its own, and a plan must change nothing.
        # EXTRA also syncs the folder after the journal is gone, so that a commit can't be undone by a power cut.
        mode = "rw" if writing else "ro"
        self._refuse_what_is_none()
        if not alone:
            self._refuse_what_is_in_the_way()
        connection = sqlite3.connect(
            f"{self.path.absolute().as_uri()}?mode={mode}{'&immutable=1' if alone else ''}",
            uri=True,
            isolation_level=None,
            timeout=LOCK_WAIT_S,
        )
        connection.row_factory = sqlite3.Row
        if writing:
            connection.execute("PRAGMA synchronous = EXTRA")
            connection.execute("PRAGMA fullfsync = ON")
        return connection

    def _refuse_what_is_none(self) -> None:
        """SQLite would wait for a fifo. The file is not opened here: to close it would lose SQLite's own locks on it
        (sqlite.org/howtocorrupt.html, 2.2)."""
        with suppress(OSError):  # SQLite says it better
            if not stat.S_ISREG(self.path.stat().st_mode):
                raise self.damaged(str(self.path))

    def _refuse_what_is_in_the_way(self) -> None:
        """What is in the place of a file of SQLite's own, and no file: it would wait for a fifo there, too."""
        for path in self.beside:
            if os.path.lexists(path) and not path.is_file():
                raise _not_ours_beside(path)

    def _make(self) -> None:
        """Made whole under another name, then linked: no reader ever sees half of it, and of two makers one wins."""
        folder = make_folder(self.path.parent)
        temporary = folder / f".{self.path.name}.{secrets.token_hex(4)}.tmp"
        tables = " ".join(f"{create(name, columns)};" for name, columns in self._tables.items())
        try:
            os.close(os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600))
            with closing(sqlite3.connect(temporary, isolation_level=None)) as connection:
                connection.executescript(f"BEGIN; {tables} {self._script()} COMMIT;")
            with suppress(FileExistsError):
                os.link(temporary, self.path)
            sync_folder(folder)
        except OSError as error:
            refused = unwritable(self.path, error)
            raise (ForNow.of(refused) if error.errno in (errno.ENOSPC, errno.EDQUOT) else refused) from error
        except sqlite3.OperationalError as error:
            raise self._operational(error, writing=True) from error
        finally:
            discard(temporary)

    def _operational(self, error: sqlite3.OperationalError, *, writing: bool) -> StateError:
        text, where = str(error), str(self.path)
        if "full" in text or (writing and "unable to open" in text and _takes_no_file(self.path.parent)):
            return ForNow(STATE_NOT_WRITABLE, "the disk is full; what was there before is untouched", where=where)
        if not os.access(self.path, os.R_OK):
            why = "permission denied" if self.path.exists() else "it is a link to a place where nothing is"
            return StateError(STATE_NOT_WRITABLE, f"{why}; the state is untouched", where=where)
        theirs = next(filter(_is_not_ours, self.beside), None)
        if theirs is not None and "locked" not in text:
            return _not_ours_beside(theirs)
        if self.was_cut_off and "locked" not in text:
            return StateError(
                STATE_NOT_OPENED,
                "a commit was cut off, and only a writer may take it back; the state is whole",
                where=where,
                hint="run sync: it mends that first",
            )
        if "readonly" in text:
            return StateError(STATE_NOT_WRITABLE, "the state is read-only; it is untouched", where=where)
        if "locked" in text or "busy" in text:
            return ForNow(
                HELD_BY_ANOTHER, "the state is being written by another process", where=where, hint="try again"
            )
        if text.startswith(("no such table", "no such column")):
            return self.damaged(where)
        message = f"the state can't be used: SQLite's error {getattr(error, 'sqlite_errorname', 'SQLITE_ERROR')}"
        return StateError(STATE_NOT_OPENED, message, where=where, hint="what it means: sqlite.org/rescode.html")


def _takes_no_file(folder: Path) -> bool:
    """Whether the disk has room, and none for one more file: SQLite says of its journal that it can't be opened."""
    path = folder / f".{secrets.token_hex(4)}.tmp"
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600))
    except OSError as error:
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    discard(path)
    return False


def _is_not_ours(path: Path) -> bool:
    return path.is_file() and not os.access(path, os.R_OK | os.W_OK, effective_ids=True)


def _not_ours_beside(path: Path) -> StateError:
    is_file = path.is_file()
    what = "is not ours to read and write" if is_file else "is no file"
    way = "give it to the user who owns the state" if is_file else "move it away"
    return StateError(
        STATE_NOT_OPENED,
        f"SQLite keeps a file of that name beside the state, and what is there {what}; the state is untouched",
        where=str(path),
        hint=way,
    )


def create(name: str, columns: str) -> str:
    """Without a row number of its own, but where rows are long: each would take a page."""
    return f"CREATE TABLE {name} ({columns})" + ("" if name in ("run", "daily") else " WITHOUT ROWID")


def serialized(connection: sqlite3.Connection) -> bytes:
    """The file as this connection sees it; empty with an SQLite before 3.36, which has no call for it. To read the file
    beside SQLite would lose its locks (sqlite.org/howtocorrupt.html, 2.2)."""
    return connection.serialize() if hasattr(connection, "serialize") else b""


def change_of(content: bytes) -> int:
    """SQLite's own count of commits (sqlite.org/fileformat2.html, offset 24)."""
    return int.from_bytes(content[24:28], "big")


def format_of(database: Database, connection: sqlite3.Connection) -> int:
    """The format that the file says it is of. What a damaged file is where it says none."""
    row = connection.execute("SELECT value FROM meta WHERE key = 'format'").fetchone()
    found = row["value"] if row else ""
    if not (isinstance(found, str) and found.isdecimal() and int(found)):
        raise database.damaged(str(database.path))
    return int(found)


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
