"""A dbt target's state on its way to another place: the old one counts until the new one has all of it.

The new place is marked first, so that nothing uses what is half there; then come files, rows and, in the old place, the
mark that it is left. From that commit on the new one counts, and what a killed copy still owes it, the history, is
copied by the next one.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dinmo_dbt.codes import NOT_COPIED
from dinmo_dbt.durable import open_file
from dinmo_dbt.errors import StateError
from dinmo_dbt.state import copied, seal
from dinmo_dbt.state.copied import Mark
from dinmo_dbt.state.expendable import expendable
from dinmo_dbt.state.files import Stored, stored_of
from dinmo_dbt.state.lease import held_error, this_process
from dinmo_dbt.state.places import image_place, snapshot_place, trace_place
from dinmo_dbt.state.seal import ENDED
from dinmo_dbt.state.shape import columns
from dinmo_dbt.state.snapshot import damaged
from dinmo_dbt.state.state_id import OWN, StateId
from dinmo_dbt.state.store import Store
from dinmo_dbt.state.tables import HISTORY, TABLES, Connection

_OF_TARGET = ("activation", "batch", "pending", "watched", "daily")
_Row = Any  # by column name


def copy(old: Store, new: Store) -> list[StateId]:
    """The state of the stores' target, history included, from `old` to `new`; whose it is. What a copy that was killed
    has left is done again, or ended. StateError DB534 where there is none, rows are in flight, or `new` has one; DB501
    while a run holds one; DB502 or DB513 for one that is damaged."""
    if not old.exists():
        raise _refused(old, "there is no state to copy", "dinmo-dbt state show tells where dinmo.yml says it is")
    old.take_back()
    with old.connection(writing=False) as connection:
        gone, owns = copied.gone_to(connection, old.target), sorted(_by_own(connection, old.target))
        refusal = copied.refusal(connection, old.target, old.place)
    if gone is None and refusal is not None:
        raise refusal
    if gone is None:
        _copy_journal(old, new, owns)
    elif not _is_owed(new, gone):
        raise _refused(old, f"it was copied to {gone.place} before", f"write into dinmo.yml: {gone.place.setting}")
    _History(old).copy_to(_History(new))
    with new.connection(writing=True) as connection:
        copied.note_whole(connection, new.target)
    new.rest()
    return owns


def _is_owed(new: Store, gone: Mark) -> bool:
    """Whether `new` is what that copy went to, and did not end."""
    if not new.exists():
        return False
    with new.connection(writing=False) as connection:
        coming = copied.coming_from(connection, new.target)
    return coming is not None and coming.id == gone.id


def _copy_journal(old: Store, new: Store, owns: list[StateId]) -> None:
    id = secrets.token_hex(8)
    with ExitStack() as stack:
        epochs = {own: stack.enter_context(_held(old, own)) for own in owns}
        for own in owns:
            stack.enter_context(new.exclusive(own))
        with old.connection(writing=False) as connection:
            journal = _journal(old, connection)
        _claim(new, Mark(id, old.place), journal.lineage)
        _copy_files(old, new, journal)
        _put(new, journal)
        with old.connection(writing=True) as connection:
            now = {own: row["epoch"] for own, row in _by_own(connection, old.target).items()}
            if now != epochs:
                raise _refused(old, "a run began meanwhile", "try again")
            copied.note_gone(connection, old.target, Mark(id, new.place))
    old.rest()


@contextmanager
def _held(old: Store, own: StateId) -> Iterator[int]:
    """The lease of one activation, given back in the end; its epoch."""
    with old.exclusive(own) as lock:
        with old.connection(writing=True) as connection:
            epoch = old.take(connection, lock, own, this_process(old.clock.now()))["epoch"]
        lock.taken()
        try:
            yield epoch
        finally:
            with suppress(StateError), old.connection(writing=True) as connection:  # else it runs out
                connection.execute(
                    f"UPDATE activation SET lease_owner = NULL, lease_until = NULL WHERE {OWN} AND epoch = ?",
                    (*own, epoch),
                )


# The journal


@dataclass(frozen=True)
class _JournalRows:
    """What a place holds of one dbt target."""

    lineage: str
    tables: Mapping[str, list[_Row]]
    traces: list[_Row]

    @property
    def activations(self) -> list[_Row]:
        return self.tables["activation"]


def _journal(old: Store, connection: Connection) -> _JournalRows:
    """StateError where it is not one that a new place could go on from."""
    found = _by_own(connection, old.target)
    for own in found:
        if not seal.is_whole(connection, own):
            raise seal.broken(f"{old.location}: {own}", f"start again: dinmo-dbt state reset {own.name}")
    flying = connection.execute(
        "SELECT name, sum(rows) AS n FROM batch WHERE target = ? AND state NOT IN (?, ?) GROUP BY name ORDER BY name",
        (old.target, *ENDED),
    ).fetchall()
    if flying:
        rows = ", ".join(f"{int(row['n']):,} of {row['name']}" for row in flying)
        raise _refused(old, f"rows are in flight: {rows}", "dinmo-dbt sync settles them; then copy")
    tables = {
        table: [
            dict(row) for row in connection.execute(f"SELECT * FROM {table} WHERE target = ?", (old.target,)).fetchall()
        ]
        for table in _OF_TARGET
    }
    orgs = sorted({own.org_id for own in found})
    traces = [row for row in connection.execute("SELECT * FROM trace").fetchall() if row["org_id"] in orgs]
    return _JournalRows(old.lineage(connection), tables, traces)


def _claim(new: Store, mark: Mark, lineage: str) -> None:
    """From here on nothing uses the new place for this target, and it is the state's own."""
    with new.connection(writing=True) as connection:
        began = connection.execute(
            "SELECT target, name FROM activation WHERE runs > 0 ORDER BY target, name"
        ).fetchall()
        theirs = [row for row in began if row["target"] != new.target]
        ours = [row["name"] for row in began if row["target"] == new.target]
        left = copied.gone_to(connection, new.target) or copied.coming_from(connection, new.target)
        if ours and left is None:
            message = f"{new.place} has a state of dbt target {new.target} already: {', '.join(ours[:3])}"
            way = (
                f"go on with that one, or forget it: dinmo-dbt state reset --all, with {new.place.setting} in dinmo.yml"
            )
            raise _refused(new, message, way)
        if theirs and new.lineage(connection) != lineage:
            other = theirs[0]["target"]
            message = f"{new.place} has another state, of dbt target {other}, and two can't become one"
            raise _refused(new, message, "name a place of its own for this target in dinmo.yml")
        for row in connection.execute("SELECT * FROM activation WHERE target = ?", (new.target,)).fetchall():
            held = new.held_by(connection, row)
            if held is not None and not held.overdue and held.holder.lives is not False:
                raise held_error(row["name"], held)
        copied.note_coming(connection, new.target, mark)
        connection.execute("UPDATE meta SET value = ? WHERE key = 'lineage'", (lineage,))


def _put(new: Store, journal: _JournalRows) -> None:
    """All rows in one transaction. StateError DB502 if they are not what they were then."""
    with new.connection(writing=True) as connection:
        before = {own: row["serial"] for own, row in _by_own(connection, new.target).items()}
        for table in _OF_TARGET:
            connection.execute(f"DELETE FROM {table} WHERE target = ?", (new.target,))
            rows = journal.tables[table]
            if table == "activation":
                rows = [{**dict(row), "lease_owner": None, "lease_until": None} for row in rows]
            _insert(connection, table, TABLES[table], rows)
        _insert(connection, "trace", TABLES["trace"], journal.traces, "ON CONFLICT (org_id, mark) DO NOTHING")
        for own, row in _by_own(connection, new.target).items():
            if not seal.is_whole(connection, own):
                raise seal.broken(f"{new.location}: {own}", "copy it once more")
            if before.get(own, 0) > row["serial"]:  # serials never go back
                connection.execute(f"UPDATE activation SET serial = ? WHERE {OWN}", (before[own], *own))
                seal.renew(connection, own)


def _insert(connection: Connection, table: str, declared: str, rows: list[_Row], otherwise: str = "") -> None:
    names = list(columns(declared))
    places = ", ".join("?" * len(names))
    statement = f"INSERT INTO {table} ({', '.join(names)}) VALUES ({places}) {otherwise}"
    if rows:
        connection.executemany(statement, [[row[name] for name in names] for row in rows])


def _by_own(connection: Connection, target: str) -> dict[StateId, Any]:
    rows = connection.execute("SELECT * FROM activation WHERE target = ?", (target,)).fetchall()
    return {StateId(row["org_id"], row["target"], row["name"]): row for row in rows}


# Files


def _copy_files(old: Store, new: Store, journal: _JournalRows) -> None:
    for row in journal.activations:
        own = StateId(row["org_id"], row["target"], row["name"])
        pointers = [json.loads(row["files"]), *(kept["files"] for kept in json.loads(row["previous"]))]
        known = {file["name"]: stored_of(file) for files in pointers for file in files}
        for folder in (snapshot_place(own), image_place(own)):
            new.files.remove(folder, new.files.names(folder))  # of a state that was there before, or a killed copy
            there = [name for name in old.files.names(folder) if not name.startswith(".")]
            lost = [name for name in known if name not in there] if folder == snapshot_place(own) else []
            for name in there:
                made = _copy_file(old, new, folder, name)
                lost += [name] if name in known and folder == snapshot_place(own) and made != known[name] else []
            if lost:
                way = f"restore the state from a copy, or forget it: dinmo-dbt state reset {own.name}"
                raise damaged(Path(str(old.location)) / folder / lost[0], way)
    for org in sorted({row["org_id"] for row in journal.activations}):
        for name in set(old.files.names(trace_place(org))) - set(new.files.names(trace_place(org))):
            _copy_file(old, new, trace_place(org), name)


def _copy_file(old: Store, new: Store, folder: str, name: str) -> Stored:
    path = old.files.fetch(folder, [name]) / name

    try:
        source = os.fdopen(open_file(path), "rb")
    except OSError as error:
        raise damaged(path, "restore the state from a copy") from error
    with source:
        return new.files.put(folder, name, lambda sink: shutil.copyfileobj(source, sink, 1 << 20))


# The history


class _History:
    """A store's runs, schedules, pauses and warnings of its target."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def copy_to(self, new: _History) -> None:
        found = self.rows()
        files = self._store.files
        there = set(files.names("runs"))
        for row in found["run"]:
            if row["not_delivered"] in there:
                _copy_file(self._store, new._store, "runs", row["not_delivered"])
        new.put(found)

    @expendable
    def rows(self) -> Mapping[str, list[_Row]]:
        if not self._store.exists(history=True):
            return {table: [] for table in HISTORY}
        with self._store.connection(writing=False, history=True) as connection:
            return {
                table: connection.execute(f"SELECT * FROM {table} WHERE target = ?", (self._store.target,)).fetchall()
                for table in HISTORY
            }

    @expendable
    def put(self, found: Mapping[str, list[_Row]]) -> None:
        with self._store.connection(writing=True, history=True) as connection:
            for table, rows in found.items():
                connection.execute(f"DELETE FROM {table} WHERE target = ?", (self._store.target,))
                _insert(connection, table, HISTORY[table], rows)


def _refused(store: Store, why: str, way: str) -> StateError:
    return StateError(
        NOT_COPIED, f"the state of dbt target {store.target} is not copied: {why}", where=str(store.location), hint=way
    )
