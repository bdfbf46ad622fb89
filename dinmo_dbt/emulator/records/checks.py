"""Rows that break a rule of the schema are refused: rights, required fields, lookups, unique values."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any

import numpy as np

from dinmo_dbt.emulator.errors import RowError
from dinmo_dbt.emulator.folding import fold
from dinmo_dbt.emulator.ids import COUNTER_BITS, Ints
from dinmo_dbt.emulator.records.cell import Cell, Mask
from dinmo_dbt.emulator.records.defaults import DEFAULT_FORMULAS
from dinmo_dbt.emulator.records.finding import existing, unique_holders
from dinmo_dbt.emulator.records.work import Work, read_only
from dinmo_dbt.emulator.schema.definitions import Field
from dinmo_dbt.emulator.store import Store


def check_access(work: Work, cells: list[Cell], creating: Mask, updating: Mask) -> None:
    """An object that is closed to its user, else read-only fields: one error a row that names them all."""
    sobject = work.table.sobject
    for mask, allowed, what, closed in (
        (creating, sobject.createable, "inserted", [c for c in cells if not c.field.createable]),
        (updating, sobject.updateable, "updated", [c for c in cells if not c.field.updateable]),
    ):
        if not allowed:
            for row in np.flatnonzero(mask).tolist():
                message = f"entity type cannot be {what}: {sobject.label}"  # as users quote it
                work.refuse(row, RowError("CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY", message))
            continue
        if not closed:
            continue
        for row in np.flatnonzero(mask).tolist():
            names = tuple(c.field.name for c in closed if c.given is None or c.given[row])
            if names:
                work.refuse(row, read_only(names))


def check_defaults(work: Work, cells: list[Cell], creating: Mask) -> None:
    """Refuse new rows that need a default value this server can't compute, by the field's name."""
    by_name = {c.field.name: c for c in cells}
    for each in work.table.sobject.every:
        if each.default_formula is None or (each.type, each.default_formula) in DEFAULT_FORMULAS:
            continue
        cell = by_name.get(each.name)
        needing = creating if cell is None else creating & ~cell.given if cell.given is not None else None
        for row in np.flatnonzero(needing).tolist() if needing is not None else ():
            message = f"The default value formula of {each.name} is not emulated: {each.default_formula}"
            work.refuse(row, RowError("NOT_EMULATED", message, (each.name,)))


def check_required(
    work: Work, cells: list[Cell], creating: Mask, updating: Mask, defaulted: Callable[[Field], bool]
) -> None:
    by_name = {c.field.name: c for c in cells}
    missing: dict[int, list[str]] = {}
    for each in work.table.sobject.fields:
        cell = by_name.get(each.name)
        if each.nillable or each.type == "boolean" or not (each.createable or each.updateable):
            continue
        has_default = defaulted(each)
        if cell is None:
            rows = creating if each.required and not has_default else None
        elif cell.values.null_count == 0 and cell.given is None:
            rows = None
        else:
            null = cell.values.is_null().to_numpy(zero_copy_only=False)
            given = np.ones(work.count, np.bool_) if cell.given is None else cell.given
            if each.name == "OwnerId":
                _refuse_ownerless(work, (creating | updating) & given & null)
                continue
            rows = updating & given & null
            if each.required:
                rows = rows | (creating & (given & null if has_default else null | ~given))
        if rows is not None:
            for row in np.flatnonzero(rows).tolist():
                missing.setdefault(row, []).append(each.name)
    for row, names in missing.items():
        if row not in work.errors:
            listed = ", ".join(names)
            message = f"Required fields are missing: [{listed}]"
            work.refuse(row, RowError("REQUIRED_FIELD_MISSING", message, tuple(names)))


def _refuse_ownerless(work: Work, rows: Mask) -> None:
    for row in np.flatnonzero(rows).tolist():  # CumulusCI #3400
        error = RowError("INVALID_CROSS_REFERENCE_KEY", "Owner ID: owner cannot be blank", ("OwnerId",))
        work.refuse(row, error)


def check_links(store: Store, db: sqlite3.Connection, work: Work, cells: list[Cell], active: Mask) -> None:
    """Every lookup must point to a living record."""
    for cell in cells:
        if cell.field.type != "reference" or cell.values.null_count == work.count:
            continue
        values = cell.values.fill_null(0).to_numpy()
        if cell.field.name == "RecordTypeId":
            _check_record_types(store, work, values, active)
            continue
        wanted = np.unique(values[active])
        known: dict[int, bool] = {}
        for number in np.unique(wanted >> COUNTER_BITS).tolist():
            table = store.table_of(number << COUNTER_BITS)
            if table is not None:
                known |= existing(db, table, wanted[wanted >> COUNTER_BITS == number].tolist())
        bad = [r for r in wanted.tolist() if r and known.get(r, True)]
        if not bad:
            continue
        for row in np.flatnonzero(active & np.isin(values, bad)).tolist():
            if cell.given is not None and not cell.given[row]:
                continue
            if values[row] in known:
                work.refuse(row, RowError("ENTITY_IS_DELETED", "entity is deleted"))
            else:
                error = RowError("INVALID_CROSS_REFERENCE_KEY", "invalid cross reference id")
                work.refuse(row, error)


def _check_record_types(store: Store, work: Work, values: Ints, active: Mask) -> None:
    """A record type must be one of the object's that its user may choose."""
    ids = [r.id for r in work.table.sobject.record_types if r.usable and r.id is not None]
    usable = [0, *(store.codec.decode(i) for i in ids)]
    for row in np.flatnonzero(active & ~np.isin(values, usable)).tolist():
        shown = store.codec.encode(int(values[row]))
        message = f"Record Type ID: this ID value isn't valid for the user: {shown}"
        work.refuse(row, RowError("INVALID_CROSS_REFERENCE_KEY", message, ("RecordTypeId",)))


def check_unique(
    store: Store, db: sqlite3.Connection, work: Work, cells: list[Cell], rids: Ints, active: Mask, key: Cell | None
) -> dict[int, tuple[str, int]]:
    """Refuse rows that clash with stored records; return those that clash inside the block.

    Inside the block the first row wins: the result maps a losing row to the field and the winning row.
    """
    unique = [c for c in cells if c.field.unique and not (key is not None and c is key)]
    columns: list[tuple[Cell, list[Any]]] = []
    copies = False
    for cell in unique:
        keys = [fold(v) for v in cell.values.to_pylist()] if cell.field.folded else cell.values.to_pylist()
        rows = [
            r for r in np.flatnonzero(work.alive(active)).tolist()
            if keys[r] is not None and (cell.given is None or cell.given[r])
        ]  # fmt: skip
        wanted = [keys[r] for r in rows]
        copies = copies or len(set(wanted)) < len(wanted)
        found = unique_holders(db, work.table, cell.field, wanted)
        for row in rows:
            holders = [h for h in found.get(keys[row], ()) if h != rids[row]]
            if holders:
                refuse_duplicate(store, work, row, cell.field.name, holders[0])
        columns.append((cell, keys))
    if not copies:
        return {}
    losers: dict[int, tuple[str, int]] = {}
    taken: dict[tuple[str, Any], int] = {}
    for row in np.flatnonzero(work.alive(active)).tolist():
        claims = [
            (c.field.name, k[row]) for c, k in columns
            if k[row] is not None and (c.given is None or c.given[row])
        ]  # fmt: skip
        clash = next((claim for claim in claims if claim in taken), None)
        if clash is not None:
            losers[row] = (clash[0], taken[clash])
        else:
            taken.update(dict.fromkeys(claims, row))
    return losers


def refuse_duplicate(store: Store, work: Work, row: int, name: str, holder: int) -> None:
    text = store.codec.encode(holder) if holder > 0 else ""
    message = f"duplicate value found: {name} duplicates value on record with id: {text}"
    work.refuse(row, RowError("DUPLICATE_VALUE", message))
