"""The tables of a store, brought to a schema: those that every org has, and one for each object.

New objects and fields get tables and columns; what has left the schema stays, out of reach. Everything happens in a
transaction of the caller.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from dinmo_dbt.emulator.errors import EmulatorError, SchemaError
from dinmo_dbt.emulator.folding import folded_sql
from dinmo_dbt.emulator.ids import Codec, base62
from dinmo_dbt.emulator.record_types import with_record_types
from dinmo_dbt.emulator.schema.definitions import Field, Schema, SObject
from dinmo_dbt.emulator.tables import Shape, Table, quoted

FORMAT_VERSION = 1
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


def create(db: sqlite3.Connection, folder: Path) -> None:
    """See that the tables are there that every org has; what a newer emulator wrote is refused."""
    for statement in _TABLES.split(";\n"):
        if statement.strip():
            db.execute(statement)
    columns = {row[1] for row in db.execute("PRAGMA table_info(token)")}
    if "used" not in columns:
        db.execute("ALTER TABLE token ADD COLUMN used TEXT")
        db.execute("ALTER TABLE token ADD COLUMN refreshed INTEGER NOT NULL DEFAULT 0")
    db.execute("INSERT OR IGNORE INTO meta VALUES ('format', ?)", (str(FORMAT_VERSION),))
    (version,) = db.execute("SELECT value FROM meta WHERE key = 'format'").fetchone()
    if int(version) > FORMAT_VERSION:
        raise EmulatorError(f"{folder} was written by a newer emulator (format {version})")


def migrate(
    db: sqlite3.Connection, schema: Schema, *, instance: str, before: Mapping[str, Table], folder: Path, now: str
) -> Shape:  # fmt: skip
    """Bring the tables of the objects to `schema`. `before` are those that calls under way may hold."""
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
        _bring(db, sobject, known[sobject.name], folder)
    rows = db.execute("SELECT name, number, prefix FROM sobject").fetchall()
    codec = Codec(instance, {number: prefix for _, number, prefix in rows})
    schema = with_record_types(db, schema, codec, numbers=known, now=now)
    by_name = {name: prefix for name, _, prefix in rows}
    schema = Schema.of((replace(o, prefix=by_name[o.name]) for o in schema.every), schema.approximate)
    tables = {o.name: Table(o, known[o.name], quoted(f"obj_{o.name}")) for o in schema.every}
    return Shape(schema, codec, {**before, **tables})


def _bring(db: sqlite3.Connection, sobject: SObject, number: int, folder: Path) -> None:
    """Give the object a table, or its table the columns and indexes that it has not yet."""
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
                f"{folder} was created: reset the emulator's data folder"
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
