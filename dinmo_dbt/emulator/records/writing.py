"""Rows that are right go into the store: new records, and values of those that are there. `now` is a `stamp`."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from itertools import repeat
from typing import Any

import pyarrow as pa

from dinmo_dbt.emulator.ids import COUNTER_MAX, Ints
from dinmo_dbt.emulator.records.cell import Cell
from dinmo_dbt.emulator.records.defaults import auto_number, default_of
from dinmo_dbt.emulator.store import Store
from dinmo_dbt.emulator.tables import Table, quoted

_SYSTEM = ("CreatedDate", "CreatedById", "LastModifiedDate", "LastModifiedById", "SystemModstamp", "IsDeleted")
_IGNORED = b"\x00"  # bound where an update leaves a field alone; no stored value is a blob


def insert(
    store: Store, db: sqlite3.Connection, table: Table, cells: list[Cell], rids: Ints, rows: Ints, now: str
) -> None:
    by_name = {c.field.name: c for c in cells}
    names = ["rid"]
    sources: list[Iterable[Any]] = [_ints(rids, rows)]
    for each in table.sobject.every:
        cell = by_name.get(each.name)
        if not each.stored or each.name == "Id" or each.name in _SYSTEM:
            continue
        if each.auto_number is not None:
            names.append(each.name)
            sources.append([auto_number(each.auto_number, r & COUNTER_MAX) for r in rids[rows].tolist()])
            continue
        default = default_of(store, table.sobject, each, now)
        if cell is None:
            if each.name == "Name" and each.defaulted_on_create:
                names.append(each.name)
                sources.append(store.codec.encode_many(rids[rows]).to_pylist())
            elif default is not None:
                names.append(each.name)
                sources.append(repeat(default, len(rows)))
            continue
        values = _python(cell.values, rows)
        if cell.given is not None and not cell.given[rows].all():
            given = cell.given[rows].tolist()
            values = [v if g else default for v, g in zip(values, given, strict=True)]
        if each.name == "Name" and each.defaulted_on_create:
            codes = store.codec.encode_many(rids[rows]).to_pylist()
            values = [c if v is None else v for v, c in zip(values, codes, strict=True)]
        elif not each.nillable and default is not None:
            values = [default if v is None else v for v in values]
        names.append(each.name)
        sources.append(values)
    moment, user = f"'{now}'", str(store.user_rid)
    system = dict(zip(_SYSTEM, (moment, user, moment, user, moment, "0"), strict=True))
    columns = ", ".join(map(quoted, [*names, *system]))
    marks = ", ".join(["?"] * len(names) + list(system.values()))
    db.executemany(f"INSERT INTO {table.name} ({columns}) VALUES ({marks})", zip(*sources, strict=True))


def update(
    store: Store, db: sqlite3.Connection, table: Table, cells: list[Cell], rids: Ints, rows: Ints, now: str
) -> None:
    """Set what is given, and the stamps, also where nothing changes (believed true; unverified)."""
    moment = f"'{now}'"
    sets: list[str] = []
    sources: list[list[Any]] = []
    for cell in cells:
        if not cell.field.stored or (cell.given is not None and not cell.given[rows].any()):
            continue
        column, values = quoted(cell.field.name), _python(cell.values, rows)
        if cell.field.name == "Name" and cell.field.custom is False and cell.field.defaulted_on_create:
            codes = store.codec.encode_many(rids[rows]).to_pylist()
            values = [c if v is None else v for v, c in zip(values, codes, strict=True)]
        mark = f"?{len(sources) + 1}"
        if cell.given is None or cell.given[rows].all():
            sets.append(f"{column} = {mark}")
        else:
            sets.append(f"{column} = iif(typeof({mark}) = 'blob', {column}, {mark})")
            given = cell.given[rows].tolist()
            values = [v if g else _IGNORED for v, g in zip(values, given, strict=True)]
        sources.append(values)
    sets += [f'"{name}" = {moment}' for name in ("LastModifiedDate", "SystemModstamp")]
    sets.append(f'"LastModifiedById" = {store.user_rid}')
    sources.append(_ints(rids, rows))
    sql = f"UPDATE {table.name} SET {', '.join(sets)} WHERE rid = ?{len(sources)}"
    db.executemany(sql, zip(*sources, strict=True))


def _ints(rids: Ints, rows: Ints) -> list[int]:
    listed: list[int] = rids[rows].tolist()
    return listed


def _python(values: pa.Array, rows: Ints) -> list[Any]:
    """Stored values as Python objects for SQLite; a null double becomes NaN, which SQLite stores as NULL."""
    if len(rows) < len(values):
        values = values.take(pa.array(rows))
    if pa.types.is_integer(values.type) and values.null_count:
        return values.to_pylist()  # type: ignore[no-any-return]
    return values.to_numpy(zero_copy_only=False).tolist()  # type: ignore[no-any-return]
