"""Batches of one job that run at one time and want the same parents: who loses a row lock.

Salesforce processes batches in parallel, in no defined order, and a write locks the record's parents. How often that
fails is not published; here a seed chooses the chunks, and an earlier batch of the wave wins. Approximate: parents
that an update does not name are not looked at.
"""

from __future__ import annotations

import sqlite3
from typing import Any

from dinmo_dbt.emulator.bulk.pace import Pace
from dinmo_dbt.emulator.faults.draw import draw
from dinmo_dbt.emulator.records.engine import Org
from dinmo_dbt.emulator.records.finding import find
from dinmo_dbt.emulator.records.locks import lock_error
from dinmo_dbt.emulator.records.work import CHUNK_ROWS, Work

# A field, the parent's key field ("" for its id), and the value that identifies the parent.
_Parent = tuple[str, str, Any]


class Wave:
    """The batches that run at the time of `batch`: `earlier` are those it can lose to."""

    def __init__(self, pace: Pace, batch: int) -> None:
        size = pace.parallel_batches if pace.share > 0 else 1
        self.earlier = range(batch - batch % size, batch)
        self.clashed = False
        self._pace = pace
        self._batch = batch
        self._taken: set[_Parent] = set()

    def claim(self, work: Work) -> None:
        for parent, values in _parents(work):
            self._taken.update((*parent, v) for v in values if v is not None)

    def refuse(self, work: Work, org: Org, db: sqlite3.Connection, job: int) -> None:
        """Fail the rows of the drawn chunks whose parent is taken."""
        if not self._taken:
            return
        pace = self._pace
        chunks = -(-work.count // CHUNK_ROWS)
        drawn = [draw(pace.seed, "contention", job, self._batch, c) < pace.share for c in range(chunks)]
        for parent, values in _parents(work):
            for row, value in enumerate(values):
                if value is None or not drawn[row // CHUNK_ROWS] or (*parent, value) not in self._taken:
                    continue
                rid = value if not parent[1] else _found(org, db, work, (*parent, value))
                if rid is not None and row not in work.errors:
                    work.refuse(row, lock_error([org.store.codec.encode(rid)]))
                    self.clashed = True


def _parents(work: Work) -> list[tuple[tuple[str, str], list[Any]]]:
    """The columns that name parents; users are not locked by the records they own."""
    cells = [
        ((c.field.name, ""), c.values.to_pylist())
        for c in work.cells if c.field.type == "reference" and "User" not in c.field.reference_to
    ]  # fmt: skip
    return cells + [((c.field.name, key.name), c.values.to_pylist()) for c, (_, key) in work.parents]


def _found(org: Org, db: sqlite3.Connection, work: Work, parent: _Parent) -> int | None:
    name, key_name, value = parent
    sobject, key = next(k for c, k in work.parents if c.field.name == name and k[1].name == key_name)
    hits = find(db, org.store.table(sobject), key, [value])
    return hits[value][0] if value in hits else None
