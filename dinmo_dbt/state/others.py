"""Other activations, and other dbt targets, of the same state: which there are, and which records they keep."""

from __future__ import annotations

import json
from collections.abc import Collection

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dinmo_dbt.activation import Activation
from dinmo_dbt.rows.mapping import from_header
from dinmo_dbt.rows.snapshot import Flag
from dinmo_dbt.state import seal
from dinmo_dbt.state.places import snapshot_place
from dinmo_dbt.state.snapshot import FileSnapshot
from dinmo_dbt.state.state_id import StateId
from dinmo_dbt.state.storage import Storage
from dinmo_dbt.state.tables import Connection

_HELD_ROWS = 1 << 20  # of others' records, looked at at one time


def held_elsewhere(
    store: Storage, mine: StateId, object_name: str, record_ids: pa.Array, fields: Collection[str] | None = None
) -> npt.NDArray[np.bool_]:
    """Which of these records a row has that another activation, or another dbt target, keeps in this org; with
    `fields`, one that writes any of them. A file of theirs that can't be read is a StateError: nothing is known of
    their records then."""
    found = np.zeros(len(record_ids), np.bool_)
    if not len(record_ids) or not store.exists():
        return found
    with store.connection(writing=False) as connection:
        rows = connection.execute(
            "SELECT target, name, files, mappings FROM activation "
            "WHERE org_id = ? AND lower(object) = ? AND runs > 0 "
            "AND NOT (target = ? AND name = ?)",
            (mine.org_id, object_name.lower(), mine.target, mine.name),
        ).fetchall()
        for row in rows:
            own = StateId(mine.org_id, row["target"], row["name"])
            if not seal.is_whole(connection, own):
                raise store.broken(own)
    for row in rows:
        if fields is not None and not _written_fields(row["mappings"]) & {name.lower() for name in fields}:
            continue
        own = StateId(mine.org_id, row["target"], row["name"])
        names, place = [file["name"] for file in json.loads(row["files"])], snapshot_place(own)
        theirs = FileSnapshot(store.files.fetch(place, names), names, f"look at {own}: dinmo-dbt state show")
        present = np.flatnonzero(theirs.flags & Flag.LEFT == 0)
        for start in range(0, len(present), _HELD_ROWS):
            ids = theirs.record_ids(present[start : start + _HELD_ROWS])
            found |= pc.is_in(record_ids, value_set=ids.drop_null()).to_numpy(zero_copy_only=False)
    return found


def _written_fields(mappings: str) -> set[str]:
    """The fields, in lower case, that an activation writes, as the headers of its mappings tell; of a parent's path its
    lookup."""
    written = set()
    for mapping in map(from_header, json.loads(mappings)):
        for header in (*(column.header for column in mapping.columns), *(each.header for each in mapping.constants)):
            lookup, is_path, _ = header.rpartition(":")[2].lower().partition(".")
            written.add(header.lower())
            if is_path:
                written.add(f"{lookup[:-3]}__c" if lookup.endswith("__r") else f"{lookup}id")
    return written


def other_targets(connection: Connection, own: StateId) -> dict[str, list[str]]:
    """The other dbt targets whose state is of this org too, and their activations."""
    rows = connection.execute(
        "SELECT target, name FROM activation WHERE org_id = ? AND target <> ? AND runs > 0 ORDER BY target, name",
        own[:2],
    ).fetchall()
    found: dict[str, list[str]] = {}
    for row in rows:
        found.setdefault(row["target"], []).append(row["name"])
    return found


def siblings(connection: Connection, own: StateId, activation: Activation) -> list[str]:
    """State of the same model and object under other names: one of them may be this activation's old name."""
    rows = connection.execute(
        "SELECT name FROM activation WHERE org_id = ? AND target = ? AND name <> ? AND model = ? AND object = ? "
        "AND runs > 0 AND serial > born",
        (*own, activation.model.unique_id, activation.object),
    ).fetchall()
    return [row["name"] for row in rows]
