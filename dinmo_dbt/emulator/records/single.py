"""Single records as JSON: created, read, changed and deleted by their id, or by an external id.

Source: REST API Developer Guide, sObject rows, upsert by external id; wire reference §2.5, §4.2.
"""

from __future__ import annotations

from datetime import UTC, datetime

import pyarrow as pa

from dinmo_dbt.emulator.errors import ApiError, malformed_id, not_found
from dinmo_dbt.emulator.folding import fold
from dinmo_dbt.emulator.ids import MALFORMED
from dinmo_dbt.emulator.records import finding
from dinmo_dbt.emulator.records.engine import Org
from dinmo_dbt.emulator.records.jsoncolumns import field_named
from dinmo_dbt.emulator.records.jsonrecords import Json, success, write_records
from dinmo_dbt.emulator.records.rules import Origin
from dinmo_dbt.emulator.records.work import Outcome
from dinmo_dbt.emulator.schema.definitions import Field, accepted
from dinmo_dbt.emulator.soql.records import read_record
from dinmo_dbt.emulator.store import Store
from dinmo_dbt.emulator.tables import Table

_NO_KEY = "Provided external ID field does not exist or is not accessible"


class Records:
    """The calls on single records of one org. `base` is `/services/data/vV` throughout."""

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
            outcome = write_records(self._org, db, table, "insert", [record])
            _raise_first(outcome)
            return success(self._store.codec, outcome, 0)

    def read(self, table: Table, text: str, names: list[str] | None, base: str) -> Json:
        record = read_record(self._store, table, self._rid(table, text), self._fields(table, names), base)
        if record is None:
            raise not_found()
        return record

    def update(self, table: Table, text: str, record: Json) -> None:
        if any(k.lower() == "id" for k in record):
            raise _in_body("Id")
        with self._store.writing() as db:
            outcome = write_records(self._org, db, table, "update", [{**record, "Id": text}])
            _raise_single(outcome)

    def delete(self, table: Table, text: str) -> None:
        with self._store.writing() as db:
            outcome = write_records(self._org, db, table, "delete", [{"Id": text}])
            _raise_single(outcome)

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
            outcome = write_records(self._org, db, table, "upsert", [{**record, key.name: value}], key=key)
            _raise_single(outcome)
            created = bool(outcome.created[0])
            return {**success(self._store.codec, outcome, 0), "created": created}, created

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
                ApiError.of_rows(400, [malformed_id(table.sobject.every[0].label, text)])
                if len(text) in (15, 18)
                else ApiError(404, "NOT_FOUND", f"{_NO_KEY}: {text}")
            )
        return rid

    def _fields(self, table: Table, names: list[str] | None) -> list[Field]:
        if names is None:
            return list(table.sobject.fields)
        return [field_named(table.sobject, name) for name in names]


class SeveralError(Exception):
    """An external id in a path names several records: HTTP 300, nothing changed."""

    def __init__(self, name: str, rids: list[int]) -> None:
        self.name = name
        self.rids = rids
        super().__init__(f"{len(rids)} records")


def _in_body(name: str) -> ApiError:
    """What identifies a record stands in the path (REST API Developer Guide, Create a Record)."""
    return ApiError(400, "INVALID_FIELD", f"The {name} field should not be specified in the sobject data.")


def _raise_first(outcome: Outcome) -> None:
    if outcome.errors:
        raise ApiError.of_rows(400, outcome.errors[0])


def _raise_single(outcome: Outcome) -> None:
    """A record that is not there is 404 on a single-record path, where a batch has an error code."""
    errors = outcome.errors.get(0)
    if not errors:
        return
    if 0 not in outcome.absent:
        raise ApiError.of_rows(400, errors)
    if outcome.rids[0] == 0:
        raise not_found()
    raise ApiError.of_rows(404, [e for e in errors if e.code == "ENTITY_IS_DELETED"][:1])
