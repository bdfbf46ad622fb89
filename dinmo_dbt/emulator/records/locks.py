"""Row locks: records held by somebody else's transaction for a time on the org's clock.

A write locks the record, its master and the records its lookups point to, so it fails when any of those is held.
Users are not locked by the records they own. Source: Salesforce record-locking cheat sheet; wire reference §4.2.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta

import numpy as np

from dinmo_dbt.emulator.clock import span
from dinmo_dbt.emulator.errors import EmulatorError, RowError
from dinmo_dbt.emulator.ids import COUNTER_MAX, MALFORMED, Ints
from dinmo_dbt.emulator.records.cell import Cell, Mask
from dinmo_dbt.emulator.schema.definitions import Field
from dinmo_dbt.emulator.store import Store
from dinmo_dbt.emulator.tables import Table, quoted

LOCKED = "UNABLE_TO_LOCK_ROW"


def lock_error(ids: list[str]) -> RowError:
    """The refusal of a write that needs these records (jsforce's tests against real orgs)."""
    message = f"unable to obtain exclusive access to this record or {len(ids)} records: {','.join(ids)}"
    return RowError(LOCKED, message)


class Locks:
    """The records held now. Not kept on disk: a restart ends every transaction."""

    def __init__(self, store: Store, clock: Callable[[], datetime]) -> None:
        self._store = store
        self._clock = clock
        self._lock = threading.Lock()
        self._held: dict[int, datetime] = {}

    def hold(self, ids: Iterable[str], seconds: float) -> None:
        """Hold records for `seconds`; one held already is held for the longer of both."""
        span(seconds, "locks: seconds")
        codec = self._store.codec
        rids = {text: codec.decode(text) for text in ids}
        for text, rid in rids.items():
            if rid == MALFORMED or not rid & COUNTER_MAX:
                raise EmulatorError(f"locks: {text} is not an id of this org")
        until = self._clock() + timedelta(seconds=seconds)
        with self._lock:
            for rid in rids.values():
                self._held[rid] = max(until, self._held.get(rid, until))

    def release(self) -> None:
        with self._lock:
            self._held = {}

    def kept(self) -> dict[int, datetime]:
        """What is held, to go back to."""
        with self._lock:
            return dict(self._held)

    def restore(self, kept: dict[int, datetime]) -> None:
        with self._lock:
            self._held = dict(kept)

    def held(self) -> dict[str, datetime]:
        """Ids of the records held, and until when."""
        return {self._store.codec.encode(rid): until for rid, until in sorted(self._current().items())}

    def _current(self) -> dict[int, datetime]:
        """What is held at this moment. Nothing is forgotten: a job's step may look back."""
        if not self._held:
            return {}
        now = self._clock()
        with self._lock:
            return {rid: until for rid, until in self._held.items() if until > now}

    def found(
        self, db: sqlite3.Connection, table: Table, cells: list[Cell], rids: Ints, active: Mask
    ) -> dict[int, RowError]:
        """The active rows that need a held record, and the error that they get. Costs nothing while none is held."""
        held = self._current()
        if not held:
            return {}
        wanted = np.array(sorted(held), np.int64)
        needs: dict[int, set[int]] = {}
        columns = [np.where(rids > 0, rids, 0)]
        links = [f for f in table.sobject.every if _locks(f)]
        for cell in cells:
            if _locks(cell.field):
                columns.append(cell.values.fill_null(0).to_numpy())
        for values in columns:
            for row in np.flatnonzero(active & np.isin(values, wanted)).tolist():
                needs.setdefault(row, set()).add(int(values[row]))
        if links:
            before = self._parents(db, table, links, rids[active & (rids > 0)].tolist())
            for row in np.flatnonzero(active & (rids > 0)).tolist():
                hit = before.get(int(rids[row]), set()) & held.keys()
                if hit:
                    needs.setdefault(row, set()).update(hit)
        encode = self._store.codec.encode
        return {row: lock_error([encode(r) for r in sorted(hit)]) for row, hit in needs.items()}

    def _parents(
        self, db: sqlite3.Connection, table: Table, links: list[Field], rids: list[int]
    ) -> dict[int, set[int]]:
        """What stored records refer to."""
        names = ", ".join(quoted(f.name) for f in links)
        sql = f"SELECT rid, {names} FROM {table.name} WHERE rid IN (SELECT value FROM json_each(?))"
        return {row[0]: {r for r in row[1:] if r} for row in db.execute(sql, (json.dumps(rids),))}


def _locks(field: Field) -> bool:
    return field.type == "reference" and field.stored and "User" not in field.reference_to
