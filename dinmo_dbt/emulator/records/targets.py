"""Which record each row is written to, and which are its parents: rows that name none, or several, are refused."""

from __future__ import annotations

import sqlite3
from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dinmo_dbt.emulator.errors import RowError, malformed_id
from dinmo_dbt.emulator.ids import COUNTER_BITS, Ints
from dinmo_dbt.emulator.records.cell import Cell, Mask
from dinmo_dbt.emulator.records.finding import existing, find, keys_of
from dinmo_dbt.emulator.records.work import Work
from dinmo_dbt.emulator.schema.definitions import Field
from dinmo_dbt.emulator.store import Store


def find_targets(
    store: Store, db: sqlite3.Connection, work: Work, ids: pa.Array, rids: Ints, *, may_create: bool
) -> None:
    """Fill `rids` from the Id column and refuse the rows whose record is not there."""
    found = store.codec.decode_many(ids)
    texts = ids.to_pylist()
    number = work.table.number
    wrong = (found >> COUNTER_BITS) != number
    known = existing(db, work.table, found[~wrong].tolist())
    for row, rid in enumerate(found.tolist()):
        text = texts[row]
        if not text:
            if not may_create:
                message = "Id not specified in an update call"  # of a delete unverified
                work.refuse(row, RowError("MISSING_ARGUMENT", message))
        elif wrong[row]:
            label = work.table.sobject.every[0].label  # the Id's: "Record ID" where the object is custom
            work.refuse(row, malformed_id(label, text))
        elif rid not in known:
            work.absent.add(row)
            work.refuse(row, RowError("INVALID_CROSS_REFERENCE_KEY", "invalid cross reference id"))
        elif known[rid]:
            rids[row] = rid
            work.absent.add(row)
            work.refuse(row, RowError("ENTITY_IS_DELETED", "entity is deleted"))
        else:
            rids[row] = rid


def refuse_copies(work: Work, key: Field, keys: list[Any], values: pa.Array, chunk_rows: int) -> None:
    for start in range(0, len(keys), chunk_rows):
        chunk = keys[start : start + chunk_rows]
        counts = Counter(v for v in chunk if v is not None)
        if len(counts) == len(chunk):
            continue
        for row, value in enumerate(chunk, start):
            if value is not None and counts[value] > 1:
                shown = values[row].as_py()
                message = f"Duplicate external id specified: {shown}"
                work.refuse(row, RowError("DUPLICATE_VALUE", message, (key.name,)))


def parents_of(store: Store, db: sqlite3.Connection, work: Work, active: Mask) -> list[Cell]:
    """Lookups given by the parent's external id, as lookups by record."""
    cells = []
    for cell, (parent, key) in work.parents:
        table = store.table(parent)
        keys = keys_of(key, cell.values)
        matches = find(db, table, key, [k for k in keys if k is not None])
        found: list[int | None] = [None] * work.count
        for row in np.flatnonzero(work.alive(active)).tolist():
            value = keys[row]
            if value is None or (cell.given is not None and not cell.given[row]):
                continue
            hits = matches.get(value, [])
            if not hits:
                shown = cell.values[row].as_py()
                message = f"Foreign key external ID: {shown} not found for field {key.name} in entity {parent.name}"
                work.refuse(row, RowError("INVALID_FIELD", message))
            elif len(hits) > 1:
                listed = ", ".join(store.codec.encode(r) for r in hits)
                message = f"{key.name}: more than one record found for external id field: [{listed}]"
                work.refuse(row, RowError("DUPLICATE_EXTERNAL_ID", message, (key.name,)))
            else:
                found[row] = hits[0]
        cells.append(Cell(cell.field, pa.array(found, pa.int64()), cell.given))
    return cells


def turns(keys: list[Any]) -> list[Mask]:
    """Masks of rows that can be written together: the k-th copies of a repeated key go in turn k.

    None and 0 are no keys: such rows go in the first turn.
    """
    if len(set(keys)) == len(keys):
        return [np.ones(len(keys), np.bool_)]
    seen: Counter[Any] = Counter()
    turn = np.zeros(len(keys), np.int64)
    for row, value in enumerate(keys):
        if value:
            turn[row] = seen[value]
            seen[value] += 1
    return [turn == k for k in range(int(turn.max()) + 1)] if len(keys) else []


def merged(cells: list[Cell]) -> list[Cell]:
    """One cell a field: a lookup may come by id in one row and by external id in another; of both the latter counts
    (unverified).
    """
    merged: dict[str, Cell] = {}
    for cell in cells:
        before = merged.get(cell.field.name)
        if before is not None and cell.given is not None:
            given = None if before.given is None else before.given | cell.given
            cell = Cell(cell.field, pc.if_else(pa.array(cell.given), cell.values, before.values), given)
        merged[cell.field.name] = cell
    return list(merged.values())
