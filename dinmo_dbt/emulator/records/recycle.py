"""The recycle bin: records leave with their details, lookups to them are cleared or hold them back."""

from __future__ import annotations

import json
import sqlite3

from dinmo_dbt.emulator.errors import RowError
from dinmo_dbt.emulator.store import Store, Table, quoted


def recycle(
    store: Store, db: sqlite3.Connection, table: Table, rids: list[int], *, moment: str, going: set[int] | None = None
) -> dict[int, RowError]:
    """Move records to the recycle bin with their details; the records that can't go, and why."""
    going = set() if going is None else going
    refused: dict[int, RowError] = {}
    rids = [r for r in rids if r not in going]
    links = [(o, f) for o, f in store.schema.children(table.sobject) if "User" not in f.reference_to]
    marks = json.dumps(rids)
    for child, link in links:
        if link.restricted_delete:
            sql = (
                f"SELECT DISTINCT {quoted(link.name)} FROM {store.table(child).name} WHERE "
                f'{quoted(link.name)} IN (SELECT value FROM json_each(?)) AND "IsDeleted" = 0'
            )
            for (rid,) in db.execute(sql, (marks,)):
                message = (  # the exact text is unverified
                    f"Your attempt to delete {store.codec.encode(rid)} could not be completed because it "
                    f"is associated with the following {child.label_plural.lower()}."
                )
                refused[rid] = RowError("DELETE_FAILED", message)
    leaving = [r for r in rids if r not in refused]
    going.update(leaving)
    marks = json.dumps(leaving)
    for child, link in links:
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
