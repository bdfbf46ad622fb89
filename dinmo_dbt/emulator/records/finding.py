"""Which records are there: by their ids, by a value of a field, folded where the field is. Reads only."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa

from dinmo_dbt.emulator.folding import fold, folded_sql
from dinmo_dbt.emulator.schema.definitions import Field
from dinmo_dbt.emulator.tables import Table, quoted


def find(db: sqlite3.Connection, table: Table, key: Field, wanted: Sequence[Any]) -> dict[Any, list[int]]:
    """Living records by external id, as upsert matches: folded only if unique and case-insensitive.

    That a record in the recycle bin is not matched is unverified.
    """
    column = f"t.{quoted(key.name)}"
    if not key.folded:
        match = f"{column} = k.value"
    elif key.matched_folded:
        match = f"{folded_sql(column)} = k.value"
    else:
        match = f"{folded_sql(column)} = fold(k.value) AND {column} = k.value"
    return _probed(db, table, match, wanted)


def unique_holders(db: sqlite3.Connection, table: Table, key: Field, wanted: list[Any]) -> dict[Any, list[int]]:
    """Living records that hold a unique value; the values come folded if the field is."""
    column = f"t.{quoted(key.name)}"
    match = f"{folded_sql(column) if key.folded else column} = k.value"
    return _probed(db, table, match, wanted)


def existing(db: sqlite3.Connection, table: Table, rids: Iterable[int]) -> dict[int, bool]:
    """Which of these records exist, and whether they are in the recycle bin."""
    sql = f'SELECT rid, "IsDeleted" FROM {table.name} WHERE rid IN (SELECT value FROM json_each(?))'
    return {r: bool(d) for r, d in db.execute(sql, (json.dumps(list(rids)),))}


def keys_of(key: Field, values: pa.Array) -> list[Any]:
    """Values as upsert compares them."""
    listed: list[Any] = values.to_pylist()
    return [fold(v) for v in listed] if key.matched_folded else listed


def _probed(db: sqlite3.Connection, table: Table, match: str, wanted: Sequence[Any]) -> dict[Any, list[int]]:
    """The living records, oldest first, that `match` each wanted `k.value`."""
    # CROSS JOIN fixes the order: probe the index once per wanted value, never scan the table. Values in order share
    # index pages; one row for all that is found takes SQLite one step, not thousands that each wait for the GIL.
    sql = (
        f"SELECT json_group_array(k.key), json_group_array(t.rid) FROM json_each(?) k CROSS JOIN {table.name} t "
        f'ON {match} WHERE t."IsDeleted" = 0'
    )
    values = sorted(set(wanted))
    places, records = db.execute(sql, (json.dumps(values, ensure_ascii=False),)).fetchone()
    found: dict[Any, list[int]] = {}
    for place, rid in zip(json.loads(places), json.loads(records), strict=True):
        found.setdefault(values[place], []).append(rid)
    for rids in found.values():
        if len(rids) > 1:
            rids.sort()
    return found
