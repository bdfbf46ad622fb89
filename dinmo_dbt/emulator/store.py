"""The data folder: one SQLite database, one writer at a time, and the org's identity.

Every change is one transaction, so a process killed at any instant leaves a folder the next one can use.
Schema changes between starts are applied here: new objects and fields get tables and columns. Nothing in
this module knows HTTP or the rules of fields.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from dinmo_dbt.emulator.errors import EmulatorError, SchemaError
from dinmo_dbt.emulator.folding import fold, folded_sql
from dinmo_dbt.emulator.identity import Identity, chance_of, minted
from dinmo_dbt.emulator.ids import COUNTER_BITS, Codec, base62
from dinmo_dbt.emulator.schema.definitions import Field, Schema, SObject

FORMAT_VERSION = 1
_CACHE_KIB = 64 * 1024
_TABLES = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS sobject (
    name TEXT PRIMARY KEY, number INTEGER NOT NULL UNIQUE, prefix TEXT NOT NULL UNIQUE, next INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS sobject_field (
    sobject TEXT NOT NULL, field TEXT NOT NULL, type TEXT NOT NULL, PRIMARY KEY (sobject, field));
CREATE TABLE IF NOT EXISTS token (
    token TEXT PRIMARY KEY, created TEXT NOT NULL, used TEXT, refreshed INTEGER NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS job (
    number INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, object TEXT NOT NULL, operation TEXT NOT NULL,
    external_id TEXT, query TEXT, delimiter TEXT NOT NULL, line_ending TEXT NOT NULL, api_version TEXT NOT NULL,
    state TEXT NOT NULL, created TEXT NOT NULL, changed TEXT NOT NULL, uploaded INTEGER NOT NULL DEFAULT 0,
    layout TEXT, processed INTEGER NOT NULL DEFAULT 0, failed INTEGER NOT NULL DEFAULT 0, error TEXT,
    total_ms INTEGER NOT NULL DEFAULT 0, active_ms INTEGER NOT NULL DEFAULT 0, assignment_rule TEXT,
    retries INTEGER NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS job_batch (
    job INTEGER NOT NULL, batch INTEGER NOT NULL, outcome BLOB NOT NULL, PRIMARY KEY (job, batch)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS job_life (
    job INTEGER PRIMARY KEY, due REAL NOT NULL DEFAULT 0, attempt INTEGER NOT NULL DEFAULT 0, fate TEXT,
    expired INTEGER NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS usage (
    name TEXT NOT NULL, hour INTEGER NOT NULL, count INTEGER NOT NULL, PRIMARY KEY (name, hour)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS cursor (
    number INTEGER PRIMARY KEY AUTOINCREMENT, query TEXT NOT NULL, everything INTEGER NOT NULL,
    rids BLOB NOT NULL, created TEXT NOT NULL);
"""


@dataclass(frozen=True, slots=True)
class Table:
    """One object with its place in the store."""

    sobject: SObject
    number: int
    name: str  # the quoted SQL name


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Saved:
    """A store as it was at a moment; let go of, it takes no room."""

    db: sqlite3.Connection
    files: tempfile.TemporaryDirectory[str]
    shape: tuple[Schema, Codec, dict[str, Table], dict[int, Table]]


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def utc_now() -> datetime:
    return datetime.now(UTC)


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
            self._migrate(schema)
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

    def table(self, sobject: SObject) -> Table:
        return self.tables[sobject.name]

    def table_of(self, rid: int) -> Table | None:
        """The table that holds the record `rid`."""
        return self._by_number.get(rid >> COUNTER_BITS)

    def allocate(self, db: sqlite3.Connection, table: Table, count: int) -> int:
        """The first of `count` new consecutive record integers, inside the caller's transaction."""
        row = db.execute(
            "UPDATE sobject SET next = next + ? WHERE name = ? RETURNING next", (count, table.sobject.name)
        ).fetchone()
        return table.number << COUNTER_BITS | (int(row[0]) - count)

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

    def _migrate(self, schema: Schema) -> None:
        """Bring the database to `schema`, in one transaction."""
        with self.writing() as db:
            for statement in _TABLES.split(";\n"):
                if statement.strip():
                    db.execute(statement)
            self._identify(db)
            known = dict(db.execute("SELECT name, number FROM sobject").fetchall())
            prefixes = {row[0] for row in db.execute("SELECT prefix FROM sobject")}
            custom = 0
            for sobject in sorted(schema.every, key=lambda o: (o.prefix is None, o.name)):
                if sobject.name not in known:
                    prefix = sobject.prefix
                    while prefix is None or prefix in prefixes:
                        prefix = f"a{base62(custom, 2)}"
                        custom += 1
                    prefixes.add(prefix)
                    number = max(known.values(), default=0) + 1
                    known[sobject.name] = number
                    db.execute("INSERT INTO sobject VALUES (?, ?, ?, 1)", (sobject.name, number, prefix))
                self._migrate_object(db, sobject, known[sobject.name])
            rows = db.execute("SELECT name, number, prefix FROM sobject").fetchall()
            codec = Codec(self._instance, {number: prefix for _, number, prefix in rows})
            schema = self._with_record_types(db, schema, known["RecordType"], known["User"], codec)
        by_name = {name: prefix for name, _, prefix in rows}
        schema = Schema.of((replace(o, prefix=by_name[o.name]) for o in schema.every), schema.approximate)
        # An object that is gone keeps its table: calls under way may still hold it.
        before: dict[str, Table] = getattr(self, "tables", {})
        tables = {o.name: Table(o, known[o.name], quoted(f"obj_{o.name}")) for o in schema.every}
        self.codec = codec
        self.tables = before | tables
        self._by_number = {t.number: t for t in self.tables.values()}
        self.schema = schema

    def change(self, schema: Schema) -> None:
        """Go on with another schema: records stay, values of fields that are gone are out of reach."""
        with self._lock:
            self._migrate(schema)

    def save(self) -> Saved:
        """A copy to go back to: pages in memory, on disk only where they are many; job files by a second name."""
        db = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        with self._lock:
            self._writer.backup(db)
            files = tempfile.TemporaryDirectory(dir=self._saved_folder)
            for path in self.jobs_folder.iterdir():
                if path.suffix != ".part":
                    os.link(path, Path(files.name) / path.name)  # they are never written twice
            saved = Saved(db, files, (self.schema, self.codec, self.tables, self._by_number))
        weakref.finalize(saved, db.close)
        weakref.finalize(saved, files.cleanup)
        return saved

    def load(self, saved: Saved) -> None:
        """Be as it was, schema and all, in one transaction. Nobody else may be at work in the store meanwhile."""
        with self._lock:
            saved.db.backup(self._writer)
            self.schema, self.codec, self.tables, self._by_number = saved.shape
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
            self.tables = {}
            self._migrate(schema)
            self._empty_jobs_folder()

    def _empty_jobs_folder(self) -> None:
        for path in self.jobs_folder.iterdir():
            path.unlink()

    def _with_record_types(
        self, db: sqlite3.Connection, schema: Schema, number: int, users: int, codec: Codec
    ) -> Schema:
        """The schema with ids in its record types: each is a record of RecordType, inactive once it is gone."""
        sql = 'SELECT "SobjectType", "DeveloperName", rid FROM "obj_RecordType"'
        rids = {(name, developer): rid for name, developer, rid in db.execute(sql)}
        now, user = stamp(utc_now()), users << COUNTER_BITS | 1
        db.execute('UPDATE "obj_RecordType" SET "IsActive" = 0')
        objects = []
        for sobject in schema.every:
            types = []
            for each in sobject.record_types:
                if each.master:
                    types.append(each)
                    continue
                key = (sobject.name, each.developer_name)
                if key not in rids:
                    (last,) = db.execute(
                        "UPDATE sobject SET next = next + 1 WHERE number = ? RETURNING next - 1", (number,)
                    ).fetchone()
                    rids[key] = number << COUNTER_BITS | last
                    db.execute(
                        'INSERT INTO "obj_RecordType" (rid, "SobjectType", "DeveloperName", "CreatedDate", '
                        '"CreatedById", "LastModifiedById", "IsDeleted") VALUES (?, ?, ?, ?, ?, ?, 0)',
                        (rids[key], *key, now, user, user),
                    )
                db.execute(
                    'UPDATE "obj_RecordType" SET "Name" = ?, "IsActive" = ?, "LastModifiedDate" = ?, '
                    '"SystemModstamp" = ? WHERE rid = ?',
                    (each.name, int(each.active), now, now, rids[key]),
                )
                types.append(replace(each, id=codec.encode(rids[key])))
            objects.append(replace(sobject, record_types=tuple(types)))
        return Schema.of(objects, schema.approximate)

    def _migrate_object(self, db: sqlite3.Connection, sobject: SObject, number: int) -> None:
        table = quoted(f"obj_{sobject.name}")
        stored = [f for f in sobject.every if f.stored and f.name != "Id"]
        before = dict(db.execute("SELECT field, type FROM sobject_field WHERE sobject = ?", (sobject.name,)).fetchall())
        if not before:
            columns = ", ".join(quoted(f.name) for f in stored)
            db.execute(f"CREATE TABLE {table} (rid INTEGER PRIMARY KEY, {columns})")
        for field in stored:
            kind = field.kind.form if field.kind.is_stored else field.type
            if field.name not in before:
                if before:
                    default = " DEFAULT 0" if field.type == "boolean" else ""
                    db.execute(f"ALTER TABLE {table} ADD COLUMN {quoted(field.name)}{default}")
                db.execute("INSERT INTO sobject_field VALUES (?, ?, ?)", (sobject.name, field.name, kind))
            elif before[field.name] != kind:
                raise SchemaError(
                    f"{sobject.name}.{field.name} changed its type from {before[field.name]} to {kind} since "
                    f"{self.folder} was created: reset the emulator's data folder"
                )
        wanted = {f"ix_{number}_{f.name}_{form}": sql for f in stored for form, sql in _indexes(f, table)}
        have = {
            row[0]
            for row in db.execute(
                "SELECT name FROM sqlite_schema WHERE type = 'index' AND tbl_name = ? AND name LIKE 'ix_%'",
                (f"obj_{sobject.name}",),
            )
        }
        for name in have - wanted.keys():
            db.execute(f"DROP INDEX {quoted(name)}")
        for name in wanted.keys() - have:
            db.execute(f"CREATE INDEX {quoted(name)} ON {wanted[name]}")

    def _identify(self, db: sqlite3.Connection) -> None:
        meta = dict(db.execute("SELECT key, value FROM meta").fetchall())
        # A folder written before a secret existed, or whose refresh token was revoked, gets what is missing.
        fresh = {"format": str(FORMAT_VERSION), **minted(chance_of(self._seed))}
        db.executemany("INSERT OR IGNORE INTO meta VALUES (?, ?)", fresh.items())
        meta = fresh | meta
        columns = {row[1] for row in db.execute("PRAGMA table_info(token)")}
        if "used" not in columns:
            db.execute("ALTER TABLE token ADD COLUMN used TEXT")
            db.execute("ALTER TABLE token ADD COLUMN refreshed INTEGER NOT NULL DEFAULT 0")
        own = meta["access_token"], stamp(utc_now())
        db.execute("INSERT OR IGNORE INTO token (token, created) VALUES (?, ?)", own)
        if int(meta["format"]) > FORMAT_VERSION:
            raise EmulatorError(f"{self.folder} was written by a newer emulator (format {meta['format']})")
        self._instance = meta["instance"]
        self.organization_counter = int(meta["organization_counter"])
        self._meta = meta

    def identity(self) -> Identity:
        codec = self.codec
        numbers = self.tables["Organization"].number, self.tables["User"].number
        return Identity(
            organization_id=codec.encode(numbers[0] << COUNTER_BITS | self.organization_counter),
            user_id=codec.encode(self.user_rid),
            username=self._meta["username"],
            client_id=self._meta["client_id"],
            client_secret=self._meta["client_secret"],
            access_token=self._meta["access_token"],
            password=self._meta["password"],
            security_token=self._meta["security_token"],
            refresh_token=self._meta["refresh_token"],
        )

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


def _indexes(field: Field, table: str) -> Iterator[tuple[str, str]]:
    """The indexes that matching, uniqueness and deletion need; users own too much for an index on them.

    Whether a record is in the recycle bin is read off the index too: a match touches no record.
    """
    column = quoted(field.name)
    if field.indexed:
        form, key = ("folded", folded_sql(column)) if field.folded else ("plain", column)
        yield f"living_{form}", f'{table} ({key}, "IsDeleted")'
    elif field.type == "reference" and "User" not in field.reference_to:
        yield "ref", f"{table} ({column}) WHERE {column} IS NOT NULL"
