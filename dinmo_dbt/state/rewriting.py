"""A state changed as a whole because the user says so: forgotten, back at an earlier serial, or under another name."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dinmo_dbt.codes import INSERT_CANT_GO_BACK, NOT_MOVED
from dinmo_dbt.errors import StateError
from dinmo_dbt.state import seal
from dinmo_dbt.state.files import first_damaged, stored_of
from dinmo_dbt.state.lease import this_process
from dinmo_dbt.state.places import image_place, snapshot_place, spool_place
from dinmo_dbt.state.state_id import OWN, StateId
from dinmo_dbt.state.storage import begin
from dinmo_dbt.state.store import Store
from dinmo_dbt.state.tables import Connection


def reset(store: Store, own: StateId) -> bool:
    """Forget one activation's state, unsettled jobs included; whether there was any. Serials go on from
    the newest. StateError DB501 while a run holds it."""
    if not store.exists():
        return False
    with _taking(store, own) as (connection, row):
        serial = store.newest(connection, own, row["serial"]) + 1
        connection.execute(
            "UPDATE activation SET serial = ?, born = ?, runs = 0, finished_runs = 0, admitted = 0, "
            f"identity = '{{}}', mappings = '[]', files = '[]', previous = '[]' WHERE {OWN}",
            (serial, serial, *own),
        )
        spools = connection.execute(f"SELECT spool FROM batch WHERE {OWN}", own).fetchall()
        for table in ("batch", "pending", "watched", "daily"):
            connection.execute(f"DELETE FROM {table} WHERE {OWN}", own)
        gone = [(place, store.files.names(place)) for place in _places(own)]
    gone += [(folder, [file]) for folder, file in (spool_place(spool["spool"]) for spool in spools)]
    for folder, names in gone:
        store.files.remove(folder, names)
    store.rest()
    return bool(row["runs"])


def go_back(store: Store, own: StateId, serial: int) -> None:
    """Make a kept serial the state again, or accept the one that is there although a newer one was seen. What was
    acknowledged since is sent again. StateError DB516 if it is not kept or not whole, DB519 for inserts, which
    would be made again, DB501 while a run holds it, DB502 if somebody has changed it by hand."""
    _refuse_broken(store, own)
    with _taking(store, own) as (connection, row):
        pointers = [
            {"serial": row["serial"], "files": json.loads(row["files"]), "mappings": json.loads(row["mappings"])},
            *json.loads(row["previous"]),
        ]
        pointer = next((p for p in pointers if p["serial"] == serial), None)
        where = f"{store.location}: {own}"
        if pointer is None or not row["runs"]:
            kept = ", ".join(str(p["serial"]) for p in pointers) if row["runs"] else "none"
            raise StateError(NOT_MOVED, f"serial {serial} is not kept; kept: {kept}", where=where)
        if json.loads(row["identity"]).get("mode") == "insert":
            raise StateError(
                INSERT_CANT_GO_BACK,
                "the rows inserted since would be inserted again",
                where=where,
                hint=f"restore the newer state, or take over what Salesforce holds: dinmo-dbt state adopt {own.name}",
            )
        files = [stored_of(value) for value in pointer["files"]]
        damaged = first_damaged(store.files.fetch(snapshot_place(own), [f.name for f in files]), files)
        if damaged:
            raise StateError(NOT_MOVED, f"serial {serial} is not whole either: {damaged.name} is damaged", where=where)
        connection.execute(
            f"UPDATE activation SET serial = ?, files = ?, mappings = ?, previous = '[]' WHERE {OWN}",
            (
                store.newest(connection, own, row["serial"]) + 1,
                json.dumps(pointer["files"]),
                json.dumps(pointer.get("mappings", json.loads(row["mappings"]))),
                *own,
            ),
        )
    store.rest()


def move(store: Store, old: StateId, new: StateId) -> None:
    """Give the state of a renamed activation, or of a renamed dbt target, to the new name in the same org.
    StateError DB516 if that has state already, or DB501 while a run holds either."""
    _refuse_broken(store, old)
    with store.exclusive(new) as lock:
        with _taking(store, old) as (connection, source):
            target = store.take(connection, lock, new, this_process(store.clock.now()))
            taken = connection.execute(
                "SELECT 1 AS found FROM activation "
                "WHERE org_id = ? AND target = ? AND lower(name) = lower(?) AND runs > 0",
                new,
            ).fetchall()
            if taken or not source["runs"]:
                own, reason = (new, "already has state") if taken else (old, "has no state")
                message = f"{own.name} {reason} in org {own.org_id} under dbt target {own.target}"
                raise StateError(NOT_MOVED, message, where=str(store.location))
            serial = max(source["serial"], store.newest(connection, new, target["serial"]))
            for place, to in zip(_places(old), _places(new), strict=True):
                store.files.remove(to, store.files.names(to))  # left from a state of that name that was reset
                store.files.copy(place, to)
            connection.execute(f"DELETE FROM activation WHERE {OWN}", new)
            connection.execute(
                f"UPDATE activation SET serial = ?, lease_owner = NULL, lease_until = NULL WHERE {OWN}",
                (serial, *old),
            )
            for table in ("activation", "batch", "pending", "watched", "daily"):
                connection.execute(f"UPDATE {table} SET target = ?, name = ? WHERE {OWN}", (new.target, new.name, *old))
            seal.renew(connection, new)
            begin(connection, old, serial)
            store.history.move(old, new)
            gone = [(place, store.files.names(place)) for place in _places(old)]
        lock.taken()
    for folder, names in gone:
        store.files.remove(folder, names)
    store.rest()


def _refuse_broken(store: Store, own: StateId) -> None:
    if store.exists():
        with store.connection(writing=False) as connection:
            if not seal.is_whole(connection, own):
                raise store.broken(own)


@contextmanager
def _taking(store: Store, own: StateId) -> Iterator[tuple[Connection, Any]]:
    """One transaction as the activation's writer, and its row as it was; the lease is given back with it."""
    with store.exclusive(own) as lock:
        with store.connection(writing=True) as connection:
            row = store.take(connection, lock, own, this_process(store.clock.now()))
            yield connection, row
            connection.execute(f"UPDATE activation SET lease_owner = NULL, lease_until = NULL WHERE {OWN}", own)
            seal.renew(connection, own)
        lock.taken()


def _places(own: StateId) -> tuple[str, ...]:
    """The folders whose files belong to an activation's state."""
    return snapshot_place(own), image_place(own)
