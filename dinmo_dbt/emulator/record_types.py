"""Record types of a schema as records of RecordType: each gets an id, and is inactive once it is gone."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import replace

from dinmo_dbt.emulator.ids import COUNTER_BITS, Codec
from dinmo_dbt.emulator.schema.definitions import Schema


def with_record_types(
    db: sqlite3.Connection, schema: Schema, codec: Codec, *, numbers: Mapping[str, int], now: str
) -> Schema:
    """The schema with the ids of these records in it. `numbers` are those of the objects, `now` is a `stamp`."""
    sql = 'SELECT "SobjectType", "DeveloperName", rid FROM "obj_RecordType"'
    rids = {(name, developer): rid for name, developer, rid in db.execute(sql)}
    number, user = numbers["RecordType"], numbers["User"] << COUNTER_BITS | 1
    db.execute('UPDATE "obj_RecordType" SET "IsActive" = 0')
    objects = []
    for sobject in schema.every:
        types = []
        for each in sobject.record_types:
            if each.master:
                types.append(each)
                continue
            key = (sobject.name, each.developer_name)
            if key not in rids:
                (last,) = db.execute(
                    "UPDATE sobject SET next = next + 1 WHERE number = ? RETURNING next - 1", (number,)
                ).fetchone()
                rids[key] = number << COUNTER_BITS | last
                db.execute(
                    'INSERT INTO "obj_RecordType" (rid, "SobjectType", "DeveloperName", "CreatedDate", '
                    '"CreatedById", "LastModifiedById", "IsDeleted") VALUES (?, ?, ?, ?, ?, ?, 0)',
                    (rids[key], *key, now, user, user),
                )
            db.execute(
                'UPDATE "obj_RecordType" SET "Name" = ?, "IsActive" = ?, "LastModifiedDate" = ?, '
                '"SystemModstamp" = ? WHERE rid = ?',
                (each.name, int(each.active), now, now, rids[key]),
            )
            types.append(replace(each, id=codec.encode(rids[key])))
        objects.append(replace(sobject, record_types=tuple(types)))
    return Schema.of(objects, schema.approximate)
