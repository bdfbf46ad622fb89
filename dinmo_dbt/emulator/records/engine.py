"""Writing records: targets, required fields, lookups, uniqueness, system fields, the recycle bin.

One engine for REST, collections and Bulk. It works on a block of rows inside a transaction of the caller; a
row that breaks a rule gets errors and is not written, the others are. Reads nothing but the store.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Literal

import numpy as np
import pyarrow as pa

from dinmo_dbt.emulator.errors import RowError, malformed_id
from dinmo_dbt.emulator.ids import COUNTER_BITS, MALFORMED, Ints
from dinmo_dbt.emulator.records.cell import Cell, Mask
from dinmo_dbt.emulator.records.checks import (
    check_access,
    check_defaults,
    check_links,
    check_required,
    check_unique,
    refuse_duplicate,
)
from dinmo_dbt.emulator.records.defaults import default_of
from dinmo_dbt.emulator.records.finding import find, keys_of
from dinmo_dbt.emulator.records.recycle import recycle
from dinmo_dbt.emulator.records.rules import Errors
from dinmo_dbt.emulator.records.targets import find_targets, merged, parents_of, refuse_copies, turns
from dinmo_dbt.emulator.records.work import CHUNK_ROWS, Column, Guard, Outcome, Work, read_only
from dinmo_dbt.emulator.records.writing import insert, update
from dinmo_dbt.emulator.schema.definitions import Field, Schema, SObject, accepted
from dinmo_dbt.emulator.store import Store, stamp
from dinmo_dbt.emulator.tables import Table, allocate

Operation = Literal["insert", "update", "upsert", "delete"]


class Org:
    """The records of one org. Every method that writes runs inside the caller's `Store.writing()`."""

    def __init__(self, store: Store, clock: Callable[[], datetime]) -> None:
        self.store = store
        self.clock = clock
        self.guard: Guard | None = None

    @property
    def schema(self) -> Schema:
        return self.store.schema

    def prepare(self, table: Table, columns: Iterable[Column], count: int) -> Work:
        """Convert columns to stored values. Needs no transaction: the caller may hold none."""
        work = Work(table, count)
        for column in columns:
            if column.key is not None and column.key[1].name != "Id":  # a parent's Id is the lookup itself
                values = _convert(self.store, column.key[1], column, work.errors)
                work.parents.append((Cell(column.field, values, column.given), column.key))
            else:
                values = _convert(self.store, column.field, column, work.errors)
                work.cells.append(Cell(column.field, values, column.given))
        return work

    def apply(
        self,
        db: sqlite3.Connection,
        operation: Operation,
        work: Work,
        *,
        ids: pa.Array | None = None,
        key: Field | None = None,
        chunk_rows: int = CHUNK_ROWS,
    ) -> Outcome:
        """Write the rows that can be written.

        `ids` is the text of the Id column; `key` is the external id of an upsert, None for an upsert by Id.
        Two rows of one chunk with one external id are both refused; across chunks the later one updates what
        the earlier one wrote. Two rows with one Id are written in their order (unverified).
        """  # fmt: skip
        count = work.count
        rids = np.zeros(count, np.int64)
        created = np.zeros(count, np.bool_)
        everything = np.ones(count, np.bool_)
        if self.guard is not None:
            self.guard.before(work, operation)
        if operation == "insert":
            self._save(db, work, rids, created, everything, None)
        elif operation == "upsert" and key is not None:
            self._upsert(db, work, key, rids, created, chunk_rows)
        else:
            text = ids if ids is not None else pa.nulls(count, pa.string())
            find_targets(self.store, db, work, text, rids, may_create=operation == "upsert")
            if operation == "delete":
                self._delete_rows(db, work, rids)
            else:
                for turn in turns(rids.tolist()):
                    self._save(db, work, rids, created, turn, None)
        failed = list(work.errors)
        created[failed] = False
        return Outcome(rids, created, work.errors, frozenset(work.absent))

    def _upsert(
        self, db: sqlite3.Connection, work: Work, key: Field, rids: Ints, created: Mask, chunk_rows: int
    ) -> None:
        cell = next(c for c in work.cells if c.field.name == key.name)
        work.cells = [c for c in work.cells if c is not cell]
        keys = keys_of(key, cell.values)
        given = cell.given
        for row, value in enumerate(keys):
            if value is None or (given is not None and not given[row]):
                keys[row] = None
                if row not in work.errors:
                    # The text of Bulk 2.0 is unverified; this is the one of the other APIs.
                    work.refuse(row, RowError("MISSING_ARGUMENT", f"{key.name} not specified"))
        if len(set(keys)) < len(keys):
            refuse_copies(work, key, keys, cell.values, chunk_rows)
        for turn in turns(keys):
            wanted = [v for v, on in zip(keys, turn, strict=True) if on and v is not None]
            matches = find(db, work.table, key, wanted)
            for row in np.flatnonzero(turn).tolist():
                hits = matches.get(keys[row])
                if hits is None:
                    continue
                if len(hits) > 1:
                    listed = ", ".join(self.store.codec.encode(r) for r in hits)
                    message = f"{key.name}: more than one record found for external id field: [{listed}]"
                    work.refuse(row, RowError("DUPLICATE_EXTERNAL_ID", message, (key.name,)))
                else:
                    rids[row] = hits[0]
            self._save(db, work, rids, created, turn, cell)

    def _save(
        self, db: sqlite3.Connection, work: Work, rids: Ints, created: Mask, active: Mask, key: Cell | None
    ) -> None:
        """Insert the active rows without a record, update the others. `key` is stored by inserts only."""
        cells = merged([*work.cells, *parents_of(self.store, db, work, active)])
        creating = active & (rids == 0)
        check_access(work, cells, creating, active & (rids != 0))
        if key is not None:
            if not key.field.createable:  # an auto-number: it finds records, and can't be given to one (unverified)
                for row in np.flatnonzero(creating).tolist():
                    work.refuse(row, read_only((key.field.name,)))
            cells = [*cells, key]
        check_defaults(work, cells, creating)
        check_required(work, cells, creating, active & (rids != 0), self._has_default(work.table.sobject))
        check_links(self.store, db, work, cells, active)
        if self.guard is not None:
            self.guard.check(db, work, cells, rids, active)
        losers = check_unique(self.store, db, work, cells, rids, active, key)
        alive = work.alive(active)
        new = np.flatnonzero(alive & creating)
        if len(losers):
            new = np.setdiff1d(new, np.array(list(losers)))
        old = np.flatnonzero(alive & (rids != 0))
        if len(losers):
            old = np.setdiff1d(old, np.array(list(losers)))
        if len(new):
            first = allocate(db, work.table, len(new))
            rids[new] = np.arange(first, first + len(new))
            created[new] = True
            insert(self.store, db, work.table, cells, rids, new, stamp(self.clock()))
        if len(old):
            update(self.store, db, work.table, [c for c in cells if c is not key], rids, old, stamp(self.clock()))
        for row, (name, winner) in losers.items():
            refuse_duplicate(self.store, work, row, name, int(rids[winner]))

    def _has_default(self, sobject: SObject) -> Callable[[Field], bool]:
        """Whether a new record holds something in a field that it was not given."""
        now = stamp(self.clock())
        return lambda each: default_of(self.store, sobject, each, now) is not None

    def _delete_rows(self, db: sqlite3.Connection, work: Work, rids: Ints) -> None:
        if not work.table.sobject.deletable:
            for row in range(work.count):
                work.refuse(row, RowError("INSUFFICIENT_ACCESS_OR_READONLY", "insufficient access rights on object id"))
            return
        if self.guard is not None:
            self.guard.check(db, work, [], rids, rids != 0)
        rows = [r for r in range(work.count) if r not in work.errors]
        seen: set[int] = set()
        for row in rows:
            rid = int(rids[row])
            if rid in seen:
                work.refuse(row, RowError("ENTITY_IS_DELETED", "entity is deleted"))
            seen.add(rid)
        refused = recycle(self.store, db, work.table, sorted(seen), moment=stamp(self.clock()))
        for row in rows:
            if int(rids[row]) in refused and row not in work.errors:
                work.refuse(row, refused[int(rids[row])])


def _convert(store: Store, field_: Field, column: Column, errors: Errors) -> pa.Array:
    if field_.type not in ("reference", "id"):
        return accepted(field_, column.text, column.origin, errors)
    rids = store.codec.decode_many(column.text)
    wanted = np.array([store.tables[n].number for n in field_.reference_to if n in store.tables])
    wrong = np.flatnonzero(~np.isin(rids >> COUNTER_BITS, wanted))
    null = column.text.is_null().to_numpy(zero_copy_only=False) if column.text.null_count else None
    for row in wrong.tolist():
        if null is None or not null[row]:
            error = malformed_id(field_.label, column.text[row].as_py(), field_.name)
            errors.setdefault(row, []).append(error)
    return pa.array(rids, mask=rids == MALFORMED)
