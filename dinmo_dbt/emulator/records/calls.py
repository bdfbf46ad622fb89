"""Records as JSON: single-record calls and collections, put through the same engine as Bulk.

Source: REST API Developer Guide, sObject rows, upsert by external id, sObject collections; wire reference
§2.5, §2.8, §4.2.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import groupby
from typing import Any

import numpy as np
import pyarrow as pa

from dinmo_dbt.emulator.errors import ApiError, RowError, not_found
from dinmo_dbt.emulator.ids import MALFORMED
from dinmo_dbt.emulator.records import finding
from dinmo_dbt.emulator.records.engine import Operation, Org
from dinmo_dbt.emulator.records.rules import Origin
from dinmo_dbt.emulator.records.work import Column, Outcome, read_only
from dinmo_dbt.emulator.schema.definitions import Field, SObject, accepted
from dinmo_dbt.emulator.soql.records import read_record
from dinmo_dbt.emulator.store import Store, Table, fold

RECORDS_MAX = 200
CHUNKS_MAX = 10
Json = dict[str, Any]
_SINGLE = Origin()
_NO_KEY = "Provided external ID field does not exist or is not accessible"
_ROLLED_BACK = RowError(
    "ALL_OR_NONE_OPERATION_ROLLED_BACK",
    "Record rolled back because not all records were valid and the request was using AllOrNone header",
)


class Records:
    """The record calls of one org. `base` is `/services/data/vV` throughout."""

    def __init__(self, store: Store, org: Org) -> None:
        self._store = store
        self._org = org

    def table(self, name: str) -> Table:
        """The object's table, or Salesforce's 404."""
        sobject = self._store.schema.get(name)
        if sobject is None:
            raise not_found()
        return self._store.table(sobject)

    def create(self, table: Table, record: Json) -> Json:
        if any(k.lower() == "id" and v is not None for k, v in record.items()):  # of a null one: unverified
            raise _in_body("Id")
        with self._store.writing() as db:
            outcome = self._write(db, table, "insert", [record])
            _raise_first(outcome)
            return _success(self._store, outcome, 0)

    def read(self, table: Table, text: str, names: list[str] | None, base: str) -> Json:
        record = read_record(self._store, table, self._rid(table, text), self._fields(table, names), base)
        if record is None:
            raise not_found()
        return record

    def update(self, table: Table, text: str, record: Json) -> None:
        if any(k.lower() == "id" for k in record):
            raise _in_body("Id")
        with self._store.writing() as db:
            outcome = self._write(db, table, "update", [{**record, "Id": text}])
            self._raise_single(outcome)

    def delete(self, table: Table, text: str) -> None:
        with self._store.writing() as db:
            outcome = self._write(db, table, "delete", [{"Id": text}])
            self._raise_single(outcome)

    def find(self, table: Table, key: Field, value: str) -> list[int]:
        """The living records with this external id."""
        stored = accepted(key, pa.array([value], pa.string()), Origin(0), {}).to_pylist()[0]
        if stored is None:
            return []
        wanted = fold(stored) if key.matched_folded else stored
        return finding.find(self._store.reading(), table, key, [wanted]).get(wanted, [])

    def key(self, table: Table, name: str) -> Field:
        """The external-id field of a path. What an existing field that is none answers is unverified."""
        field = table.sobject.field(name)
        if field is None or not field.id_lookup:
            raise not_found()
        return field

    def upsert(self, table: Table, key: Field, value: str, record: Json, *, update_only: bool) -> tuple[Json, bool]:
        """One upsert by external id: the reply and whether the record is new. Several matches raise SeveralError."""
        names = {k.lower() for k in record}
        if "id" in names or key.name.lower() in names:
            raise _in_body("Id" if "id" in names else key.name)
        hits = self.find(table, key, value)
        if len(hits) > 1:
            raise SeveralError(table.sobject.name, hits)
        if not hits and update_only:
            raise not_found()
        with self._store.writing() as db:
            outcome = self._write(db, table, "upsert", [{**record, key.name: value}], key=key)
            self._raise_single(outcome)
            return {**_success(self._store, outcome, 0), "created": bool(outcome.created[0])}, bool(outcome.created[0])

    def collection(
        self, records: list[Any], operation: Operation, *, all_or_none: bool,
        table: Table | None = None, key: Field | None = None,
    ) -> list[Json]:  # fmt: skip
        """Write up to 200 records of one or several objects; one result each, in order."""
        _bounded(records)
        tables = [table or self._type_of(r) for r in records]
        return self._in_order(records, tables, operation, key=key, all_or_none=all_or_none)

    def delete_collection(self, ids: list[str], *, all_or_none: bool) -> list[Json]:
        _bounded(ids)
        rids = [self._store.codec.decode(text) for text in ids]
        tables = [None if rid == MALFORMED else self._store.table_of(rid) for rid in rids]
        return self._in_order([{"Id": text} for text in ids], tables, "delete", all_or_none=all_or_none)

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
                        results += [_failed([_bad_id("Record ID", r["Id"])]) for r in part]
                    else:
                        outcome = self._write(db, table, operation, part, key=key, origin=Origin(collection=True))
                        results += self._items(outcome, count, operation)
                if all_or_none and not all(r["success"] for r in results):
                    raise _RolledBackError
        except _RolledBackError:
            results = [_rolled_back(r) if r["success"] else r for r in results]
        return results

    def retrieve(self, table: Table, ids: list[str], names: list[str], base: str) -> list[Json | None]:
        """Records by id in the order asked for; null for one that is not there."""
        fields = self._fields(table, names)
        found: list[Json | None] = []
        for text in ids:
            rid = self._store.codec.decode(text)
            found.append(read_record(self._store, table, rid, fields, base) if rid != MALFORMED else None)
        return found

    def is_id(self, table: Table, text: str) -> bool:
        rid = self._store.codec.decode(text)
        return rid != MALFORMED and self._store.table_of(rid) is table

    def modified(self, table: Table, text: str) -> datetime:
        """When a record that is there was last changed."""
        sql = f'SELECT "SystemModstamp" FROM {table.name} WHERE rid = ?'
        (moment,) = self._store.reading().execute(sql, (self._rid(table, text),)).fetchone()
        return datetime.fromisoformat(moment).replace(tzinfo=UTC)

    def _rid(self, table: Table, text: str) -> int:
        rid = self._store.codec.decode(text)
        if rid == MALFORMED or self._store.table_of(rid) is not table:
            # Recorded: a malformed or foreign id in the path is 404 NOT_FOUND or 400 MALFORMED_ID by context.
            raise (
                ApiError.of_rows(400, [_bad_id(table.sobject.every[0].label, text)])
                if len(text) in (15, 18)
                else ApiError(404, "NOT_FOUND", f"{_NO_KEY}: {text}")
            )
        return rid

    def _fields(self, table: Table, names: list[str] | None) -> list[Field]:
        if names is None:
            return list(table.sobject.fields)
        return [self._field(table.sobject, name) for name in names]

    def _field(self, sobject: SObject, name: str) -> Field:
        field = sobject.field(name)
        if field is None:
            raise ApiError(
                400, "INVALID_FIELD", f"No such column '{name}' on sobject of type {sobject.name}"
            )  # fmt: skip
        return field

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

    def _write(
        self, db: sqlite3.Connection, table: Table, operation: Operation, records: list[Any], *,
        key: Field | None = None, origin: Origin = _SINGLE,
    ) -> Outcome:  # fmt: skip
        """One block through the engine: the whole request is one chunk."""
        columns, ids, unread = self._columns(table.sobject, records, origin)
        named = any(c.key is None and key is not None and c.field.name == key.name for c in columns)
        if operation == "upsert" and key is not None and key.name != "Id" and not named:
            columns.append(Column(key, pa.nulls(len(records), pa.string())))
        by_id = operation in ("update", "delete") or (operation == "upsert" and (key is None or key.name == "Id"))
        work = self._org.prepare(table, columns, len(records))
        for row, error in unread.items():
            work.refuse(row, error)
        if not by_id:
            for row, text in enumerate(ids):
                if text is not None:
                    work.refuse(row, read_only(("Id",)))
        outcome = self._org.apply(
            db, operation, work, ids=pa.array(ids, pa.string()) if by_id else None,
            key=key if key is not None and key.name != "Id" else None, chunk_rows=max(len(records), 1),
        )  # fmt: skip
        for row, errors in outcome.errors.items():  # a record that can't be read meets no other rule
            first = unread.get(row) or next((e for e in errors if e.code == "JSON_PARSER_ERROR"), None)
            outcome.errors[row] = errors if first is None else [first]
        return outcome

    def _columns(
        self, sobject: SObject, records: list[Any], origin: Origin
    ) -> tuple[list[Column], list[str | None], dict[int, RowError]]:
        """Records to columns of text; `Id` aside. What can't be read, an unknown field or a value, refuses the request.

        Of a collection it refuses the record (amp-labs/connectors, replies of an org): the last of the three, the first
        refusal of each.
        """
        ids: list[str | None] = [None] * len(records)
        unread: dict[int, RowError] = {}
        texts: dict[tuple[str, str], list[str | None]] = {}
        given: dict[tuple[str, str], Any] = {}
        targets: dict[tuple[str, str], tuple[Field, tuple[SObject, Field] | None]] = {}
        for row, record in enumerate(records):
            if not isinstance(record, dict):
                raise ApiError(400, "JSON_PARSER_ERROR", "A record must be a JSON object at [line:1, column:1]")
            for name, value in record.items():
                if name == "attributes":
                    continue
                if name.lower() == "id":
                    ids[row] = None if value is None else str(value)
                    continue
                try:
                    named = list(self._values(sobject, name, value))
                except ApiError as error:
                    if not origin.collection:
                        raise
                    unread.setdefault(row, RowError(error.body[0]["errorCode"], error.body[0]["message"]))
                    continue
                for place, field, parent, given_value in named:
                    text = _text(parent[1] if parent is not None else field, given_value, origin)
                    if isinstance(text, RowError):
                        unread.setdefault(row, text)
                        continue
                    if place not in texts:
                        texts[place] = [None] * len(records)
                        given[place] = np.zeros(len(records), np.bool_)
                        targets[place] = (field, parent)
                    texts[place][row] = text
                    given[place][row] = True
        columns = [
            Column(field, pa.array(texts[p], pa.string()), None if given[p].all() else given[p], parent, origin)
            for p, (field, parent) in targets.items()
        ]
        return columns, ids, unread

    def _values(
        self, sobject: SObject, name: str, value: Any
    ) -> Iterator[tuple[tuple[str, str], Field, tuple[SObject, Field] | None, Any]]:
        link = sobject.relationship(name)
        if link is None or sobject.field(name) is not None:
            field = self._field(sobject, name)
            yield (field.name, ""), field, None, value
            return
        if value is None:  # a null parent clears the lookup (unverified)
            yield (link.name, ""), link, None, None
            return
        if not isinstance(value, dict):
            raise ApiError(400, "JSON_PARSER_ERROR", f"{name} must be an object at [line:1, column:1]")
        attributes = value.get("attributes")
        parent_name = attributes.get("type") if isinstance(attributes, dict) else None
        parent = self._store.schema.get(str(parent_name or link.reference_to[-1]))
        if parent is None or parent.name not in link.reference_to:
            raise ApiError(400, "INVALID_TYPE", f"sObject type '{parent_name}' is not supported.")
        for key_name, key_value in value.items():
            if key_name == "attributes":
                continue
            key = self._field(parent, key_name)
            if not key.id_lookup:
                message = f"{key_name} specified for foreign key reference is not an external id or idLookup field"
                raise ApiError(400, "INVALID_FIELD", message)
            if key.name == "Id":
                yield (link.name, ""), link, None, key_value
            else:
                yield (link.name, key.name), link, (parent, key), key_value

    def _items(self, outcome: Outcome, count: int, operation: str) -> list[Json]:
        items = []
        for row in range(count):
            errors = outcome.errors.get(row)
            item = _failed(errors) if errors else _success(self._store, outcome, row)
            if operation == "upsert":
                # Recorded: new records that failed say so too.
                item["created"] = bool(outcome.created[row]) or int(outcome.rids[row]) == 0
            items.append(item)
        return items

    def _raise_single(self, outcome: Outcome) -> None:
        """A record that is not there is 404 on a single-record path, where a batch has an error code."""
        errors = outcome.errors.get(0)
        if not errors:
            return
        if 0 not in outcome.absent:
            raise ApiError.of_rows(400, errors)
        if outcome.rids[0] == 0:
            raise not_found()
        raise ApiError.of_rows(404, [e for e in errors if e.code == "ENTITY_IS_DELETED"][:1])


class SeveralError(Exception):
    """An external id in a path names several records: HTTP 300, nothing changed."""

    def __init__(self, name: str, rids: list[int]) -> None:
        self.name = name
        self.rids = rids
        super().__init__(f"{len(rids)} records")


class _RolledBackError(Exception):
    pass


def _in_body(name: str) -> ApiError:
    """What identifies a record stands in the path (REST API Developer Guide, Create a Record)."""
    return ApiError(400, "INVALID_FIELD", f"The {name} field should not be specified in the sobject data.")


def _text(field: Field, value: Any, origin: Origin) -> str | RowError | None:
    """A JSON value as text. Scalars are coerced, as Salesforce does a number in a string; others are refused.

    An empty string is null in text and lookups (for the latter unverified) and can't be read as anything else: known
    of dates (CumulusCI #3283), unverified of numbers. Unlike Bulk's, JSON's booleans are not written `1` and `0`
    (formie #1173, craft-freeform #1168; of numbers that are no strings unverified).
    """
    match value:
        case None:
            return None
        case str():
            if not value.isascii() and any("\ud800" <= c <= "\udfff" for c in value):
                return origin.parser_error("Invalid UTF-16 surrogate in a string value at")
            if field.kind.is_text:
                return value
            if field.kind.is_id:
                return value.strip() or None
            if not value.strip() or (field.type == "boolean" and value.strip() in ("0", "1")):
                return origin.unreadable(field, value)
            return value
        case bool():
            text = "true" if value else "false"
            return text if field.kind.takes_json_booleans else origin.unreadable(field, text, f"VALUE_{text.upper()}")
        case int() | float():
            if not field.kind.takes_json_numbers:
                kind = "INT" if isinstance(value, int) else "FLOAT"
                return origin.unreadable(field, repr(value), f"VALUE_NUMBER_{kind}")
            return repr(value)
        case list():
            return origin.parser_error(f"Cannot deserialize instance of {field.type} from START_ARRAY value")
        case _:
            return origin.parser_error(
                f"Cannot deserialize instance of {field.type} from START_OBJECT value {{ or request may be missing a "
                "required field at"
            )


def _bounded(records: list[Any]) -> None:
    if not records:  # recorded of a create; of the other calls unverified
        raise ApiError(400, "REQUIRED_FIELD_MISSING", "At least 1 record is required")
    if len(records) > RECORDS_MAX:  # text unverified
        message = f"record limit reached. cannot submit more than {RECORDS_MAX} records in this request"
        raise ApiError(400, "EXCEEDED_ID_LIMIT", message)


def _raise_first(outcome: Outcome) -> None:
    if outcome.errors:
        raise ApiError.of_rows(400, outcome.errors[0])


def _success(store: Store, outcome: Outcome, row: int) -> Json:
    return {"id": store.codec.encode(int(outcome.rids[row])), "success": True, "errors": []}


def _failed(errors: list[RowError]) -> Json:
    return {"success": False, "errors": [e.item() for e in errors]}


def _rolled_back(result: Json) -> Json:
    item = _failed([_ROLLED_BACK])
    if "created" in result:
        item["created"] = result["created"]
    return item


def _bad_id(what: str, text: str) -> RowError:
    return RowError("MALFORMED_ID", f"{what}: id value of incorrect type: {text}", ("Id",))
