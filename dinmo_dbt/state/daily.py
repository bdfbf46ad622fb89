"""What Salesforce acknowledged of an activation within the last day, as guards count it: durable, with the results.

Functions over a connection of the state, each within the caller's transaction. A clock that was set back makes entries
of later than now: they count, and their day begins when that is noticed.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterable

import numpy as np

from dinmo_dbt.plan.guards import DAY_S, Counted, Day, KeyHashes
from dinmo_dbt.rows.sets import distinct
from dinmo_dbt.state.state_id import OWN, StateId
from dinmo_dbt.state.tables import Connection


def total(connection: Connection, own: StateId, now: float) -> Day:
    """Of the day up to now."""
    rows = connection.execute(
        f"SELECT created, changed, removed, respelled, gone FROM daily WHERE {OWN} AND moment > ?",
        (*own, now - DAY_S),
    ).fetchall()

    def each_once(column: str) -> KeyHashes:
        return distinct(np.concatenate([_hashes(row[column]) for row in rows] or [_hashes("")]))

    created, removed, respelled = (sum(row[c] for row in rows) for c in ("created", "removed", "respelled"))
    return Day(created, each_once("changed"), removed, respelled, each_once("gone"))


def add(connection: Connection, own: StateId, of: str, now: float, day: Day) -> None:
    """Note what was acknowledged `of` a batch, or left in a run, now; what is a day old goes."""
    connection.execute(f"UPDATE daily SET moment = ? WHERE {OWN} AND moment > ?", (now, *own, now))
    connection.execute(f"DELETE FROM daily WHERE {OWN} AND moment <= ?", (*own, now - DAY_S))
    if day.created or len(day.changed) or day.removed or len(day.left):
        counts = (day.created, _text(day.changed), day.removed, day.respelled, _text(day.left))
        connection.execute("INSERT INTO daily VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", (of, *own, now, *counts))


def forgive(connection: Connection, own: StateId, kinds: Iterable[Counted]) -> None:
    """A ceiling was raised by hand for all of that kind: what was before it is not held against the next run."""
    nothing = {
        Counted.CREATED: "created = 0",
        Counted.CHANGED: "changed = ''",
        Counted.REMOVED: "removed = 0",
        Counted.RESPELLED: "respelled = 0, gone = ''",
    }
    for kind in kinds:
        if kind in nothing:
            connection.execute(f"UPDATE daily SET {nothing[kind]} WHERE {OWN}", own)


def _text(hashes: KeyHashes) -> str:
    return base64.b85encode(zlib.compress(hashes.astype("<u8").tobytes(), 1)).decode() if len(hashes) else ""


def _hashes(text: str) -> KeyHashes:
    """ValueError for what is no such text."""
    if not text:
        return np.empty(0, np.uint64)
    try:
        return np.frombuffer(zlib.decompress(base64.b85decode(text)), "<u8").astype(np.uint64)
    except zlib.error as error:
        raise ValueError(str(error)) from error
