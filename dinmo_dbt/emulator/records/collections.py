"""Collections of records: up to 200 records of one or several objects in one call, a result for each.

Source: REST API Developer Guide, sObject collections; wire reference §2.8, §4.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from dinmo_dbt.emulator.errors import ApiError, RowError, malformed_id
from dinmo_dbt.emulator.ids import MALFORMED
from dinmo_dbt.emulator.records.engine import Operation, Org
from dinmo_dbt.emulator.records.jsoncolumns import field_named
from dinmo_dbt.emulator.records.jsonrecords import Json, success, write_records
from dinmo_dbt.emulator.records.rules import Origin
from dinmo_dbt.emulator.records.work import Outcome
from dinmo_dbt.emulator.schema.definitions import Field
from dinmo_dbt.emulator.soql.records import read_record
from dinmo_dbt.emulator.store import Store
from dinmo_dbt.emulator.tables import Table

RECORDS_MAX = 200
CHUNKS_MAX = 10
_ROLLED_BACK = RowError(
    "ALL_OR_NONE_OPERATION_ROLLED_BACK",
    "Record rolled back because not all records were valid and the request was using AllOrNone header",
)


class Collections:
    """The collection calls of one org. `base` is `/services/data/vV`."""

    def __init__(self, store: Store, org: Org) -> None:
        self._store = store
        self._org = org

    def write(
        self, records: list[Any], operation: Operation, *, all_or_none: bool,
        table: Table | None = None, key: Field | None = None,
    ) -> list[Json]:  # fmt: skip
        """Write records, of `table` or of the object that each names; one result each, in order."""
        _bounded(records)
        tables = [table or self._type_of(r) for r in records]
        return self._in_order(records, tables, operation, key=key, all_or_none=all_or_none)

    def delete(self, ids: list[str], *, all_or_none: bool) -> list[Json]:
        _bounded(ids)
        rids = [self._store.codec.decode(text) for text in ids]
        tables = [None if rid == MALFORMED else self._store.table_of(rid) for rid in rids]
        return self._in_order([{"Id": text} for text in ids], tables, "delete", all_or_none=all_or_none)

    def retrieve(self, table: Table, ids: list[str], names: list[str], base: str) -> list[Json | None]:
        """Records by id in the order asked for; null for one that is not there."""
        fields = [field_named(table.sobject, name) for name in names]
        found: list[Json | None] = []
        for text in ids:
            rid = self._store.codec.decode(text)
            found.append(read_record(self._store, table, rid, fields, base) if rid != MALFORMED else None)
        return found

    def _type_of(self, record: Any) -> Table:
        attributes = record.get("attributes") if isinstance(record, dict) else None
        name = attributes.get("type") if isinstance(attributes, dict) else None
        sobject = self._store.schema.get(str(name)) if name is not None else None
        if sobject is None:
            message = (
                "The attributes.type of a record is missing" if name is None
                else f"sObject type '{name}' is not supported."
            )  # fmt: skip
            raise ApiError(400, "INVALID_TYPE", message)
        return self._store.table(sobject)

    def _in_order(
        self, records: list[Any], tables: Sequence[Table | None], operation: Operation, *,
        all_or_none: bool, key: Field | None = None,
    ) -> list[Json]:  # fmt: skip
        """Write runs of records of one object each; a record whose id names no object fails."""
        results: list[Json] = []
        chunks = [(table, len(list(group))) for table, group in groupby(tables)]
        if len(chunks) > CHUNKS_MAX:  # the text is Apex's; the code unverified
            message = f"Cannot have more than {CHUNKS_MAX} chunks in a single operation. Please rearrange the data to "
            raise ApiError(400, "LIMIT_EXCEEDED", f"{message}reduce chunking.")
        try:
            with self._store.writing() as db:
                position = 0
                for table, count in chunks:
                    part = records[position : position + count]
                    position += count
                    if table is None:
                        results += [_failed([malformed_id("Record ID", r["Id"])]) for r in part]
                    else:
                        origin = Origin(collection=True)
                        outcome = write_records(self._org, db, table, operation, part, key=key, origin=origin)
                        results += self._items(outcome, count, operation)
                if all_or_none and not all(r["success"] for r in results):
                    raise _RolledBackError
        except _RolledBackError:
            results = [_rolled_back(r) if r["success"] else r for r in results]
        return results

    def _items(self, outcome: Outcome, count: int, operation: str) -> list[Json]:
        items = []
        for row in range(count):
            errors = outcome.errors.get(row)
            item = _failed(errors) if errors else success(self._store.codec, outcome, row)
            if operation == "upsert":
                # Recorded: new records that failed say so too.
                item["created"] = bool(outcome.created[row]) or int(outcome.rids[row]) == 0
            items.append(item)
        return items


class _RolledBackError(Exception):
    pass


def _bounded(records: list[Any]) -> None:
    if not records:  # recorded of a create; of the other calls unverified
        raise ApiError(400, "REQUIRED_FIELD_MISSING", "At least 1 record is required")
    if len(records) > RECORDS_MAX:  # text unverified
        message = f"record limit reached. cannot submit more than {RECORDS_MAX} records in this request"
        raise ApiError(400, "EXCEEDED_ID_LIMIT", message)


def _failed(errors: list[RowError]) -> Json:
    return {"success": False, "errors": [e.item() for e in errors]}


def _rolled_back(result: Json) -> Json:
    item = _failed([_ROLLED_BACK])
    if "created" in result:
        item["created"] = result["created"]
    return item
