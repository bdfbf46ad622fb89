"""Records as JSON: put through the same engine as Bulk, and what a reply says of one that was written."""

from __future__ import annotations

import sqlite3
from typing import Any

import pyarrow as pa

from dinmo_dbt.emulator.ids import Codec
from dinmo_dbt.emulator.records.engine import Operation, Org
from dinmo_dbt.emulator.records.jsoncolumns import columns_of
from dinmo_dbt.emulator.records.rules import Origin
from dinmo_dbt.emulator.records.work import Column, Outcome, read_only
from dinmo_dbt.emulator.schema.definitions import Field
from dinmo_dbt.emulator.tables import Table

Json = dict[str, Any]
_SINGLE = Origin()


def write_records(
    org: Org, db: sqlite3.Connection, table: Table, operation: Operation, records: list[Any], *,
    key: Field | None = None, origin: Origin = _SINGLE,
) -> Outcome:  # fmt: skip
    """Write records of one object: one chunk, however many. `key` is the field that an upsert goes by."""
    external = key if key is not None and key.name != "Id" else None
    by_id = operation in ("update", "delete") or (operation == "upsert" and external is None)
    read = columns_of(org.schema, table.sobject, records, origin)
    columns = read.columns
    named = external is not None and any(c.key is None and c.field.name == external.name for c in columns)
    if operation == "upsert" and external is not None and not named:
        columns = [*columns, Column(external, pa.nulls(len(records), pa.string()))]
    work = org.prepare(table, columns, len(records))
    for row, error in read.unread.items():
        work.refuse(row, error)
    if not by_id:
        for row, text in enumerate(read.ids):
            if text is not None:
                work.refuse(row, read_only(("Id",)))
    outcome = org.apply(
        db, operation, work, ids=pa.array(read.ids, pa.string()) if by_id else None, key=external,
        chunk_rows=max(len(records), 1),
    )  # fmt: skip
    for row, errors in outcome.errors.items():  # a record that can't be read meets no other rule
        first = read.unread.get(row) or next((e for e in errors if e.code == "JSON_PARSER_ERROR"), None)
        outcome.errors[row] = errors if first is None else [first]
    return outcome


def success(codec: Codec, outcome: Outcome, row: int) -> Json:
    return {"id": codec.encode(int(outcome.rids[row])), "success": True, "errors": []}
