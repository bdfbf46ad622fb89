"""The recycle bin: records leave with their details, lookups to them are cleared or hold them back."""

from __future__ import annotations

import json
import sqlite3

from dinmo_dbt.emulator.errors import RowError
from dinmo_dbt.emulator.schema.definitions import Field, SObject
from dinmo_dbt.emulator.store import Store
from dinmo_dbt.emulator.tables import Table, quoted


def recycle(
    store: Store, db: sqlite3.Connection, table: Table, rids: list[int], *, moment: str, going: set[int] | None = None
) -> dict[int, RowError]:
    """Move records to the recycle bin with their details; the records that can't go, and why."""
    going = set() if going is None else going
    rids = [r for r in rids if r not in going]
    refused = _held_back(store, db, table, rids, set())
    leaving = [r for r in rids if r not in refused]
    going.update(leaving)
    marks = json.dumps(leaving)
    for child, link in _links(store, table):
        target, column = store.table(child), quoted(link.name)
        where = f'{column} IN (SELECT value FROM json_each(?)) AND "IsDeleted" = 0'
        if link.cascade_delete:
            rows = db.execute(f"SELECT rid FROM {target.name} WHERE {where}", (marks,)).fetchall()
            if rows:
                recycle(store, db, target, [r[0] for r in rows], moment=moment, going=going)
        elif not link.restricted_delete:
            db.execute(f"UPDATE {target.name} SET {column} = NULL WHERE {where}", (marks,))
    db.execute(
        f'UPDATE {table.name} SET "IsDeleted" = 1, "LastModifiedDate" = ?1, "SystemModstamp" = ?1 '
        "WHERE rid IN (SELECT value FROM json_each(?2))",
        (moment, marks),
    )
    return refused


def _links(store: Store, table: Table) -> list[tuple[SObject, Field]]:
    return [(o, f) for o, f in store.schema.children(table.sobject) if "User" not in f.reference_to]


def _held_back(
    store: Store, db: sqlite3.Connection, table: Table, rids: list[int], seen: set[int]
) -> dict[int, RowError]:
    """The records that a lookup to them holds back, or one to a detail that would go along (the latter unverified)."""
    held: dict[int, RowError] = {}
    seen.update(rids)
    for child, link in _links(store, table):
        if not (link.restricted_delete or (link.cascade_delete and rids)):
            continue
        sql = (
            f"SELECT rid, {quoted(link.name)} FROM {store.table(child).name} WHERE "
            f'{quoted(link.name)} IN (SELECT value FROM json_each(?)) AND "IsDeleted" = 0'
        )
        parents = {rid: parent for rid, parent in db.execute(sql, (json.dumps(rids),)) if rid not in seen}
        if link.restricted_delete:
            held |= {parent: _associated(store, parent, child) for parent in parents.values()}
        elif parents:
            below = _held_back(store, db, store.table(child), list(parents), seen)
            held |= {parents[rid]: error for rid, error in below.items()}
    return held


def _associated(store: Store, rid: int, child: SObject) -> RowError:
    message = (  # the exact text is unverified
        f"Your attempt to delete {store.codec.encode(rid)} could not be completed because it "
        f"is associated with the following {child.label_plural.lower()}."
    )
    return RowError("DELETE_FAILED", message)
