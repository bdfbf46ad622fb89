"""The data folder: one SQLite database, one writer at a time, and the files of jobs.

Every change is one transaction, so a process killed at any instant leaves a folder the next one can use. Nothing in
this module knows HTTP or the rules of fields.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
import threading
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from dinmo_dbt.emulator.errors import EmulatorError
from dinmo_dbt.emulator.folding import fold
from dinmo_dbt.emulator.identity import Identity, chance_of, known_by, minted
from dinmo_dbt.emulator.ids import COUNTER_BITS, Codec
from dinmo_dbt.emulator.migration import create, migrate
from dinmo_dbt.emulator.schema.definitions import Schema, SObject
from dinmo_dbt.emulator.tables import Shape, Table, quoted

_CACHE_KIB = 64 * 1024


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Saved:
    """A store as it was at a moment; let go of, it takes no room."""

    db: sqlite3.Connection
    files: tempfile.TemporaryDirectory[str]
    shape: Shape


def stamp(moment: datetime) -> str:
    """The stored form of a date and time: UTC, whole seconds."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S")


class Store:
    """The open data folder. `data=None` keeps everything in a temporary folder that `close` removes.

    `reading()` gives this thread's own connection: what was committed when its statement began. `writing()`
    gives the one writing connection inside an immediate transaction, committed at the end, rolled back on error.
    With a `seed` a new folder's identity is the same each time.
    """

    def __init__(self, data: Path | None, schema: Schema, *, seed: int | None = None) -> None:
        self._seed = seed
        # The object removes its folder when it is closed, collected, or the interpreter ends.
        self._temporary = tempfile.TemporaryDirectory(prefix="dinmo-emulator-") if data is None else None
        self.folder = Path(self._temporary.name) if self._temporary is not None else Path(data or ".")
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.jobs_folder = self.folder / "jobs"
        self.jobs_folder.mkdir(exist_ok=True)
        self._saved_folder = self.folder / "saved"
        shutil.rmtree(self._saved_folder, ignore_errors=True)  # of a process that was killed
        self._saved_folder.mkdir()
        self._path = self.folder / "org.sqlite"
        self._local = threading.local()
        self._lock = threading.RLock()
        self._opened: list[sqlite3.Connection] = []
        self._opened_lock = threading.Lock()
        self._closed = False
        try:
            self._writer = self._connect(cache_kib=_CACHE_KIB)
            self._shape = self._migrated(schema, before={})
        except sqlite3.Error as error:
            self.close()
            raise EmulatorError(f"{self._path}: can't be opened: {error}") from error
        except BaseException:
            self.close()
            raise

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield self._writer
            except BaseException:
                self._writer.execute("ROLLBACK")
                raise
            self._writer.execute("COMMIT")

    def reading(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._connect(cache_kib=8 * 1024)
            self._local.connection = connection
        return connection

    @property
    def schema(self) -> Schema:
        return self._shape.schema

    @property
    def codec(self) -> Codec:
        return self._shape.codec

    @property
    def tables(self) -> Mapping[str, Table]:
        return self._shape.tables

    def table(self, sobject: SObject) -> Table:
        return self.tables[sobject.name]

    def table_of(self, rid: int) -> Table | None:
        """The table that holds the record `rid`."""
        return self._shape.by_number.get(rid >> COUNTER_BITS)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        with self._lock, self._opened_lock:
            for connection in self._opened:
                connection.close()
        if self._temporary is not None:
            self._temporary.cleanup()

    def _connect(self, *, cache_kib: int) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=30.0, isolation_level=None, check_same_thread=False)
        with self._opened_lock:
            self._opened.append(connection)
        connection.create_function("fold", 1, fold, deterministic=True)
        connection.execute("PRAGMA page_size = 8192")
        connection.execute("PRAGMA journal_mode = WAL")
        # What is committed is the system's to write: a kill loses nothing. A power cut can break the file; to wait for
        # the disk took a quarter of a bulk load, and what an org for tests holds can be loaded again.
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute(f"PRAGMA cache_size = -{cache_kib}")
        connection.execute("PRAGMA wal_autocheckpoint = 8000")
        connection.execute("PRAGMA temp_store = MEMORY")
        # Some builds overwrite with zeros what is deleted, which costs writes and protects nothing here.
        connection.execute("PRAGMA secure_delete = OFF")
        return connection

    def _migrated(self, schema: Schema, *, before: Mapping[str, Table]) -> Shape:
        """What the database holds once it is brought to `schema`, in one transaction."""
        now = stamp(datetime.now(UTC))
        with self.writing() as db:
            create(db, self.folder)
            self._meta = known_by(db, chance_of(self._seed), now)
            return migrate(db, schema, instance=self._meta["instance"], before=before, folder=self.folder, now=now)

    def change(self, schema: Schema) -> None:
        """Go on with another schema: records stay, values of fields that are gone are out of reach."""
        with self._lock:
            self._shape = self._migrated(schema, before=self.tables)

    def save(self) -> Saved:
        """A copy to go back to: pages in memory, on disk only where they are many; job files by a second name."""
        db = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        with self._lock:
            self._writer.backup(db)
            files = tempfile.TemporaryDirectory(dir=self._saved_folder)
            for path in self.jobs_folder.iterdir():
                if path.suffix != ".part":
                    os.link(path, Path(files.name) / path.name)  # they are never written twice
            saved = Saved(db, files, self._shape)
        weakref.finalize(saved, db.close)
        weakref.finalize(saved, files.cleanup)
        return saved

    def load(self, saved: Saved) -> None:
        """Be as it was, schema and all, in one transaction. Nobody else may be at work in the store meanwhile."""
        with self._lock:
            saved.db.backup(self._writer)
            self._shape = saved.shape
            self._empty_jobs_folder()
            for path in Path(saved.files.name).iterdir():
                os.link(path, self.jobs_folder / path.name)

    def empty(self, schema: Schema) -> None:
        """Be as new, with the same identity. Nobody else may be at work in the store meanwhile."""
        with self._lock:
            with self.writing() as db:
                for (name,) in db.execute("SELECT name FROM sobject").fetchall():
                    db.execute(f"DROP TABLE {quoted(f'obj_{name}')}")
                kept = [(key, self._meta[key]) for key in ("format", *minted(chance_of(0)))]
                for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall():
                    db.execute(f"DELETE FROM {quoted(name)}")
                db.executemany("INSERT INTO meta VALUES (?, ?)", kept)
            self._shape = self._migrated(schema, before={})
            self._empty_jobs_folder()

    def _empty_jobs_folder(self) -> None:
        for path in self.jobs_folder.iterdir():
            path.unlink()

    def identity(self) -> Identity:
        return Identity.of(
            self._meta, organization_id=self.codec.encode(self.organization_rid),
            user_id=self.codec.encode(self.user_rid),
        )  # fmt: skip

    @property
    def organization_rid(self) -> int:
        return self.tables["Organization"].number << COUNTER_BITS | int(self._meta["organization_counter"])

    @property
    def user_rid(self) -> int:
        """The org's one user."""
        return self.tables["User"].number << COUNTER_BITS | 1

    def meta(self, key: str) -> str | None:
        row = self.reading().execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return row[0] if row else None

    def set_meta(self, key: str, value: str) -> None:
        with self.writing() as db:
            db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))
