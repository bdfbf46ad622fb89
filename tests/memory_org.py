"""A small honest org in memory, a model in memory, and one sync of it as the command line does it.

The org keeps records and jobs as Salesforce does: a job does nothing before it is closed and goes on without its
client, results come shuffled and as text, rows are refused one by one. What it knows of results it hands to the
real `salesforce.results`. `Trip` raises before or after any call of journal, destination or SQLite commit.
"""

from __future__ import annotations

import copy
import io
import itertools
import random
import shutil
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dinmo_dbt import codes
from dinmo_dbt.activation import Activation, Ceiling, FieldMapping, Guards, Match, Mode
from dinmo_dbt.delivery import fence
from dinmo_dbt.delivery.run import SyncRun
from dinmo_dbt.delivery.sync import execute, recover
from dinmo_dbt.destination import (
    RESULTS,
    ApiUsage,
    Batch,
    Diagnosis,
    Field,
    Job,
    ListedJob,
    ObjectSchema,
    Operation,
    PayloadColumn,
    StateRecord,
)
from dinmo_dbt.errors import ConfigError, NotApplied
from dinmo_dbt.model import Model as DbtModel
from dinmo_dbt.plan.draw import draw
from dinmo_dbt.plan.guards import Ceilings
from dinmo_dbt.plan.plan import Plan
from dinmo_dbt.rows import values
from dinmo_dbt.rows.field_types import type_of
from dinmo_dbt.rows.snapshot import Flag
from dinmo_dbt.salesforce import encode
from dinmo_dbt.salesforce import results as result_files
from dinmo_dbt.salesforce.errors import GONE, classify
from dinmo_dbt.state import BucketState, LocalState, WarehouseState
from dinmo_dbt.state.spool import ScanSpool
from dinmo_dbt.state.state_id import StateId
from dinmo_dbt.upkeep import revert
from dinmo_dbt.upkeep.audit import Audit
from dinmo_dbt.watch.history import RunRecord

NO_CEILINGS = Ceilings()
ORG = "00D000000000001EAA"
TARGET = "dev"
IDS = itertools.count(1)


def record_id(number: int, prefix: str = "a01") -> str:
    plain = pa.array([f"{prefix}{number:012d}"], pa.utf8())
    return values.canonical(plain, Field("Id", "Id", "id"))[0][0].as_py()


def text_field(name: str, **more: object) -> Field:
    return Field(name, name, "string", length=255, **more)  # type: ignore[arg-type]


PARENT = ObjectSchema(
    "Parent__c", "Parent", "a00", True, True, True, True, {"Code__c": text_field("Code__c", external_id=True)}
)
THING = ObjectSchema(
    "Thing__c",
    "Thing",
    "a01",
    True,
    True,
    True,
    True,
    {
        f.name: f
        for f in (
            Field("Id", "Record ID", "id", length=18, id_lookup=True, createable=False, updateable=False),
            text_field("Ext__c", external_id=True, unique=True),
            text_field("Code__c"),
            text_field("A__c"),
            text_field("B__c"),
            text_field("Unique__c", unique=True),
            Field("N__c", "N", "double", precision=18, scale=2),
            Field("On__c", "On", "boolean"),
            text_field("Source__c"),
            Field(
                "Parent__c",
                "Parent",
                "reference",
                length=18,
                reference_to=("Parent__c",),
                relationship_name="Parent__r",
            ),
        )
    },
)


def own(name: str = "things") -> StateId:
    """An activation's state in the org and target of these worlds."""
    return StateId(ORG, TARGET, name)


OWN = own()


@dataclass
class MemoryJob:
    operation: Operation
    object: str
    match: str | None
    columns: tuple[PayloadColumn, ...] = ()
    rows: list[dict[str, str | None]] | None = None
    state: str = "Open"
    created: str = ""
    done: list[tuple[str, str, str, dict[str, str | None]]] = field(default_factory=list)  # error, id, created, row
    left: list[dict[str, str | None]] = field(default_factory=list)
    error: str = ""


class Rejected(Exception):
    """Salesforce takes the others of a row's call and not this one."""

    def __init__(self, code: str, message: str, field: str = "", i: str = "") -> None:
        super().__init__(f"{code}:{message}:{field} --")
        self.record_id = i


class MemoryOrg:
    """`destination.Destination` over dictionaries: records hold their fields' wire texts.

    It does what tests/destination asks of every destination, and loses no reply: a test that wants it to puts an
    object of its own before it. Beyond that it knows no rule of a field's but `unique`: `refuse` has the others.
    """

    org_id = ORG
    usage = ApiUsage(0, 0)
    org_time: float | None = None

    def __init__(self, *schemas: ObjectSchema) -> None:
        self.schemas = {schema.name: schema for schema in (schemas or (THING, PARENT))}
        self.records: dict[str, dict[str, dict[str, str | None]]] = {name: {} for name in self.schemas}
        self.made: set[str] = set()  # every id that was ever given to a record
        self.jobs: dict[str, MemoryJob] = {}
        self.refuse: Callable[[dict[str, str | None]], str | None] = lambda row: None
        self.writes: Counter[str] = Counter()  # rows written by operation
        self.states: dict[str, StateRecord] = {}
        self.random = random.Random(7)
        self.calls = 0

    # Reads

    def describe(self, object_name: str) -> ObjectSchema:
        found = [schema for name, schema in self.schemas.items() if name.lower() == object_name.lower()]
        if not found:
            raise ConfigError(codes.NO_OBJECT, f"the org has no object {object_name}", where=f"object {object_name}")
        return found[0]

    def has_records(self, object_name: str) -> bool:
        return bool(self._asked(object_name))

    def lookup(self, object_name: str, field: Field, wanted: pa.Array, only: tuple[str, str] | None = None) -> pa.Table:
        held = self._asked(object_name, field.name, *(only or ())[:1])
        asked = {text.lower() for text in values.text(wanted, field).to_pylist()}
        records = [(i, {"Id": i, **r}) for i, r in held.items()]
        found = [(r.get(field.name), i) for i, r in records if only is None or r.get(only[0]) == only[1]]
        found = [(text, i) for text, i in found if text is not None and text.lower() in asked]
        self.random.shuffle(found)
        return pa.table(
            {
                "value": values.from_text(pa.array([text for text, _ in found], pa.utf8()), field),
                "record_id": pa.array([i for _, i in found], pa.utf8()),
            }
        )

    def read(self, object_name: str, fields: tuple[str, ...], record_ids: tuple[str, ...]) -> list[dict[str, object]]:
        assert len(record_ids) <= 200
        held, schema = self._asked(object_name, *fields), self.describe(object_name)
        names = [name for name in fields if name != "Id"]
        return [
            {"Id": i, **{name: _json(held[i].get(name), schema.fields[name]) for name in names}}
            for i in record_ids
            if i in held
        ]

    def read_many(self, object_name: str, fields: Sequence[str], record_ids: pa.Array) -> pa.Table:
        return pa.concat_tables(self.read_pages(object_name, fields, record_ids))

    def read_pages(self, object_name: str, fields: Sequence[str], record_ids: pa.Array | None) -> Iterator[pa.Table]:
        held = self._asked(object_name, *fields)
        wanted = list(held) if record_ids is None else record_ids.to_pylist()
        names = list(dict.fromkeys(("Id", *fields)))
        yield pa.table({name: pa.array([], pa.utf8()) for name in names})
        self.random.shuffle(wanted)
        for start in range(0, len(wanted), 3):
            found = [i for i in wanted[start : start + 3] if i in held]
            yield pa.table({n: pa.array([self._reached(object_name, i, n) for i in found], pa.utf8()) for n in names})

    def _reached(self, object_name: str, i: str, path: str) -> str | None:
        """A record's field, or its parent's."""
        relationship, _, name = path.rpartition(".")
        if not relationship:
            return i if name == "Id" else self.records[object_name][i].get(name)
        lookup = self.schemas[object_name].relationship(relationship)
        assert lookup is not None
        parent = self.records[lookup.reference_to[0]].get(self.records[object_name][i].get(lookup.name) or "")
        return parent.get(name) if parent else None

    def _asked(self, object_name: str, *paths: str) -> dict[str, dict[str, str | None]]:
        """The object's records, for one call that speaks of these fields."""
        self.calls += 1
        if object_name not in self.schemas:
            raise NotApplied(codes.REQUEST_REFUSED, f"INVALID_TYPE: {object_name}")
        for path in paths:
            schema, (relationship, _, name) = self.schemas[object_name], path.rpartition(".")
            lookup = schema.relationship(relationship)
            if lookup is not None:
                schema = self.schemas[lookup.reference_to[0]]
            if name != "Id" and schema.field(name) is None:
                raise NotApplied(codes.REQUEST_REFUSED, f"INVALID_FIELD: {path} of {object_name}")
        return self.records[object_name]

    def diagnose(self, code: str, message: str) -> Diagnosis:
        return classify(code, message)

    def job_slots(self, rows: pa.Table, columns: tuple[PayloadColumn, ...]) -> npt.NDArray[np.int8]:
        return result_files.job_slots(rows, columns)

    def state_record(self, key: str) -> StateRecord | None:
        return self.states.get(key)

    def keep_state_record(self, key: str, name: str, record: StateRecord) -> None:
        self.states[key] = record

    # Jobs

    def create_job(self, batch: Batch) -> str:
        self._asked(batch.object)
        job_id = record_id(next(IDS), "750")
        self.jobs[job_id] = MemoryJob(batch.operation, batch.object, batch.match)
        self.jobs[job_id].created = f"2026-03-01T12:00:{len(self.jobs):02}.000+0000"
        return job_id

    def upload(self, job_id: str, batch: Batch) -> None:
        job = self._known(job_id)
        assert job.state == "Open", job.state
        assert job.rows is None, "a job takes one upload"
        encode.write_csv(batch, io.BytesIO())  # which knows what can't travel in a file
        job.columns, job.rows = batch.columns, _texts(batch)

    def close(self, job_id: str) -> None:
        job = self._known(job_id)
        if job.state == "Aborted":
            raise NotApplied(codes.REQUEST_REFUSED, "INVALIDJOBSTATE")
        if job.state != "Open":
            return
        unknown = [c.header for c in job.columns if self._field(job.object, c.header) is None]
        if job.rows is None or unknown:
            job.state, job.left = "Failed", job.rows or []
            job.error = f"InvalidBatch : Field name not found : {unknown[0]}" if unknown else "InvalidBatch : no data"
        else:
            job.state = "UploadComplete"

    def abort(self, job_id: str) -> None:
        job = self.jobs.get(job_id)
        if job is None or job.state in ("JobComplete", "Aborted", "Failed"):
            return
        if job.state != "Open":  # it was running: some of it is done
            self._process(job, len(job.rows or ()) // 2)
        job.left += (job.rows or [])[len(job.done) :]
        job.state = "Aborted"

    def job(self, job_id: str) -> Job | None:
        job = self.jobs.get(job_id)
        if job is None:
            return None
        if job.state == "InProgress":
            self._process(job, len(job.rows or ()))
            job.state = "JobComplete"
        elif job.state == "UploadComplete":
            job.state = "InProgress"
        failed = sum(1 for error, *_ in job.done if error)
        return Job(job_id, job.state, len(job.done), failed, job.error)

    def results(self, job_id: str, batch: Batch) -> pa.Table | None:
        job = self.jobs.get(job_id)
        if job is None:
            return None
        assert job.state in ("JobComplete", "Failed", "Aborted"), job.state
        done, left = list(job.done), list(job.left)
        self.random.shuffle(done)
        self.random.shuffle(left)
        headers = [column.header for column in job.columns]

        def file(names: list[str], rows: list[list[str | None]]) -> pa.Table:
            columns = list(zip(*rows, strict=True)) if rows else [[] for _ in names]
            return pa.table({n: pa.array([v or "" for v in c], pa.utf8()) for n, c in zip(names, columns, strict=True)})

        good = [[i, created, *(row[h] for h in headers)] for error, i, created, row in done if not error]
        bad = [[i, error, *(row[h] for h in headers)] for error, i, _, row in done if error]
        files = result_files.ResultFiles(
            file(["sf__Id", "sf__Created", *headers], good),
            file(["sf__Id", "sf__Error", *headers], bad),
            file(headers, [[row[h] for h in headers] for row in left]),
        )
        return result_files.join(batch, files, touched=bool(done), job_error=job.error)

    def listed_jobs(self) -> list[ListedJob]:
        return [
            ListedJob(i, job.operation, job.object, job.state, job.created, "005", "62.0", as_ours=True)
            for i, job in self.jobs.items()
        ]

    def made_by(self, job_id: str, names: Collection[str]) -> pa.Table | None:
        job = self.jobs.get(job_id)
        if job is None:
            return None
        good = [(i, row) for error, i, _, row in job.done if not error]
        columns = {
            c.header: pa.array([row[c.header] or "" for _, row in good], pa.utf8())
            for c in job.columns
            if c.header in names
        }
        return pa.table({"sf__Id": pa.array([i for i, _ in good], pa.utf8()), **columns})

    def _known(self, job_id: str) -> MemoryJob:
        if job_id not in self.jobs:
            raise NotApplied(codes.REQUEST_REFUSED, "NOT_FOUND")
        return self.jobs[job_id]

    def _process(self, job: MemoryJob, until: int) -> None:
        rows = job.rows or []
        copies = self._copies(job.object, job.match, rows)
        for number in range(len(job.done), until):
            row = rows[number]
            error, i, created = copies.get(number) or self._write(
                job.operation, job.object, job.match, job.columns, row
            )
            job.done.append((error, i, str(created).lower(), row))

    # Collections

    def send(self, batch: Batch, before: Callable[[], None] | None = None) -> pa.Table:
        self.describe(batch.object)
        assert 0 < len(batch.rows) <= 200
        if before is not None:
            before()
        self.calls += 1
        rows, answers = _texts(batch), []
        copies = self._copies(batch.object, batch.match, rows)
        for number, row in enumerate(rows):
            error, i, created = copies.get(number) or self._write(
                batch.operation, batch.object, batch.match, batch.columns, row
            )
            if batch.operation is Operation.DELETE and error.partition(":")[0] in GONE:
                answers.append(("succeeded", None, False, None, None, None))
            elif error:
                code, _, rest = error.removesuffix("--").partition(":")
                message, _, fields = rest.rpartition(":")
                answers.append(("rejected", None, None, code, message, fields.strip() or None))
            else:
                answers.append(("succeeded", i, created, None, None, None))
        columns = zip(*answers, strict=True)
        return pa.table([pa.array(c, f.type) for c, f in zip(columns, RESULTS, strict=True)], schema=RESULTS)

    # Records

    def _write(
        self,
        operation: Operation,
        object_name: str,
        match: str | None,
        columns: tuple[PayloadColumn, ...],
        row: dict[str, str | None],
    ) -> tuple[str, str, bool]:
        """Its error, or '', the record's id and whether it is a new one."""
        self.writes[operation] += 1
        error = self.refuse(row)
        if error:
            return error, row.get("Id") or "", False
        held = self.records[object_name]
        try:
            i = self._target(operation, object_name, match, row)
            if operation is Operation.DELETE:
                self._remove(object_name, i)
                return "", i, False
            sent = [c for c in columns if c.header != "Id" and not (row[c.header] is None and c.keep_nulls)]
            if i:  # a record that is found by its external id keeps that as it is
                sent = [c for c in sent if operation is not Operation.UPSERT or c.header != match]
            changes = dict(self._change(object_name, column, row[column.header]) for column in sent)
            self._check_unique(object_name, i, changes)
        except Rejected as rejected:
            return str(rejected), rejected.record_id or row.get("Id") or "", False
        if i:
            held[i].update(changes)
            return "", i, False
        return "", self.add(object_name, **changes), True

    def _target(self, operation: Operation, object_name: str, match: str | None, row: dict[str, str | None]) -> str:
        """The record that the row is for; '' for a new one."""
        if operation is Operation.INSERT:
            return ""
        if operation is not Operation.UPSERT:
            if not row["Id"]:
                raise Rejected("MISSING_ARGUMENT", "Id not specified in an update call")
            return self._there(object_name, row["Id"])
        assert match is not None
        if row[match] is None:
            raise Rejected("MISSING_ARGUMENT", f"{match} not specified")
        found = self._holders(object_name, match, row[match])
        if len(found) > 1:
            raise Rejected("DUPLICATE_EXTERNAL_ID", f"{match}: more than one record found for external id field", match)
        return found[0] if found else ""

    def _there(self, object_name: str, i: str) -> str:
        if i in self.records[object_name]:
            return i
        if i in self.made:
            raise Rejected("ENTITY_IS_DELETED", "entity is deleted", i=i)
        raise Rejected("INVALID_CROSS_REFERENCE_KEY", "invalid cross reference id")

    def _holders(self, object_name: str, name: str, text: str | None) -> list[str]:
        fold = _folding(self.schemas[object_name].fields[name])
        return [i for i, r in self.records[object_name].items() if fold(r.get(name)) == fold(text)]

    def _copies(
        self, object_name: str, match: str | None, rows: list[dict[str, str | None]]
    ) -> dict[int, tuple[str, str, bool]]:
        """The rows whose external id another row has too: all of them are refused."""
        if match is None:
            return {}
        fold = _folding(self.schemas[object_name].fields[match])
        counts = Counter(fold(row[match]) for row in rows)
        errors = [Rejected("DUPLICATE_VALUE", f"Duplicate external id specified: {r[match]}", match) for r in rows]
        twice = [row[match] is not None and counts[fold(row[match])] > 1 for row in rows]
        return {n: (str(error), "", False) for n, error in enumerate(errors) if twice[n]}

    def _change(self, object_name: str, column: PayloadColumn, text: str | None) -> tuple[str, str | None]:
        """What a cell sets which field to: of a parent's path, its lookup."""
        field = self._field(object_name, column.header)
        if field is None:
            raise Rejected("INVALID_FIELD", f"No such column '{column.header}' on sobject of type {object_name}")
        if text is None or field.type != "reference":
            return field.name, text
        parent, name = field.reference_to[0], column.header.rpartition(".")[2]
        if not column.is_parent_path:
            return field.name, self._there(parent, text)
        assert self.schemas[parent].fields[name].identifies, "Salesforce refuses the call"
        found = self._holders(parent, name, text)
        if not found:
            message = f"Foreign key external ID: {text} not found for field {name} in entity {parent}"
            raise Rejected("INVALID_FIELD", message)
        if len(found) > 1:
            raise Rejected("DUPLICATE_EXTERNAL_ID", f"{name}: more than one record found for external id field", name)
        return field.name, found[0]

    def _field(self, object_name: str, header: str) -> Field | None:
        """The object's own field that a column writes."""
        path, _, name = header.rpartition(".")
        schema = self.schemas[object_name]
        return schema.relationship(path.rpartition(":")[2]) if path else schema.field(name)

    def _check_unique(self, object_name: str, i: str, changes: dict[str, str | None]) -> None:
        for name, text in changes.items():
            if text is None or not self.schemas[object_name].fields[name].unique:
                continue
            for other in self._holders(object_name, name, text):
                if other != i:
                    message = f"duplicate value found: {name} duplicates value on record with id: {other}"
                    raise Rejected("DUPLICATE_VALUE", message)

    def add(self, object_name: str = "Thing__c", **fields: str | None) -> str:
        i = record_id(next(IDS), self.schemas[object_name].key_prefix or "a01")
        self.records[object_name][i] = dict(fields)
        self.made.add(i)
        return i

    def delete(self, i: str) -> None:
        self._remove("Thing__c", i)

    def _remove(self, object_name: str, i: str) -> None:
        """Delete the record, and empty the lookups that point to it."""
        del self.records[object_name][i]
        for name, schema in self.schemas.items():
            for lookup in (each.name for each in schema.fields.values() if object_name in each.reference_to):
                for record in self.records[name].values():
                    if record.get(lookup) == i:
                        record[lookup] = None

    def held(self, *names: str) -> list[tuple[str | None, ...]]:
        """The records of Thing__c, by these fields, sorted."""
        rows = [tuple(r.get(name) for name in names) for r in self.records["Thing__c"].values()]
        return sorted(rows, key=lambda row: tuple((v is not None, v or "") for v in row))


def _folding(field: Field) -> Callable[[str | None], str | None]:
    return (lambda text: text and text.lower()) if values.folds_case(field) else (lambda text: text)


def _json(text: str | None, field: Field) -> object:
    if text is None or not type_of(field).is_bare:
        return text
    return text == "true" if type_of(field).is_checkbox else float(text)


def _texts(batch: Batch) -> list[dict[str, str | None]]:
    columns = {}
    for column in batch.columns:
        array = batch.rows[column.header].combine_chunks()
        columns[column.header] = encode.texts(array, column).to_pylist()
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


# A model


@dataclass
class Model:
    """The warehouse: one relation, and how often it was read."""

    table: pa.Table
    batch_rows: int = 3

    @classmethod
    def of(
        cls, rows: list[dict[str, object]], kinds: dict[str, pa.DataType] | None = None, batch_rows: int = 3
    ) -> Model:
        names = list(dict.fromkeys(name for row in rows for name in row)) or ["id", "ext", "a", "b"]
        kinds = kinds or {}
        table = pa.table({n: pa.array([r.get(n) for r in rows], kinds.get(n, pa.utf8())) for n in names})
        return cls(table, batch_rows)

    def schema(self, relation_name: str) -> pa.Schema:
        return self.table.schema

    def read(self, relation_name: str, columns: list[str], where: str | None) -> Iterator[pa.RecordBatch]:
        yield from self.table.select(list(columns)).combine_chunks().to_batches(self.batch_rows)


def dbt_model(name: str, schema: str = "db") -> DbtModel:
    return DbtModel(f"model.p.{name}", name, f"{schema}.{name}", "model", ("p", name), (), f"models/{name}.sql")


def activation(mode: str = "upsert", **changes: object) -> Activation:
    match = None if mode == "insert" else Match("ext", "Ext__c")
    given: dict[str, object] = {
        "name": "things",
        "model": dbt_model("things"),
        "meta_path": "things.config.meta.dinmo.activations[0]",
        "destination": "crm",
        "object": "Thing__c",
        "mode": Mode(mode),
        "key": ("id",),
        "match": match,
        "fields": (FieldMapping("a", "A__c"), FieldMapping("b", "B__c")),
        "constants": (),
        "guards": Guards(Ceiling(percent=Decimal(1)), Ceiling(percent=Decimal(50))),
        **changes,
    }
    return Activation(**given)  # type: ignore[arg-type]


# A run


class Killed(BaseException):
    """The process ended here."""


@dataclass
class Trip:
    """Counts the calls that matter and raises `Killed` before or after one: that number, or the first of that name."""

    at: int | str = -1
    after: bool = False
    seen: list[str] = field(default_factory=list)

    def begins(self, name: str) -> None:
        self.seen.append(name)
        if self._is_it(name) and not self.after:
            raise Killed(name)

    def ended(self, number: int, name: str) -> None:
        if self.after and (self.at == number or self.at == name):
            raise Killed(name)

    def around(self, name: str, act: Callable[[], object]) -> object:
        number = len(self.seen)
        self.begins(name)
        answer = act()
        self.ended(number, name)
        return answer

    def _is_it(self, name: str) -> bool:
        return self.at in (len(self.seen) - 1, name)


class Watched:
    """Any object, with `Trip` around the named methods."""

    def __init__(self, target: object, trip: Trip, *names: str) -> None:
        self._target, self._trip, self._names = target, trip, names

    def __getattr__(self, name: str) -> object:
        attribute = getattr(self._target, name)
        if name not in self._names:
            return attribute
        return lambda *a, **k: self._trip.around(name, lambda: attribute(*a, **k))


class WatchedCommits:
    """A state whose commits are seams too: before one, its file is written; after it, only clean-up is left."""

    trip = Trip()

    @contextmanager
    def connection(self, *, writing: bool, history: bool = False) -> Iterator[object]:
        with super().connection(writing=writing, history=history) as connection:  # type: ignore[misc]
            yield connection
            if writing:
                number = len(self.trip.seen)
                self.trip.begins("commit")
        if writing:
            self.trip.ended(number, "commit")


class WatchedState(WatchedCommits, LocalState):
    """State in a folder."""


class WatchedWarehouseState(WatchedCommits, WarehouseState):
    """State in a warehouse."""


class WatchedBucketState(WatchedCommits, BucketState):
    """State in a bucket."""


@dataclass
class ManualClock:
    """Seconds that pass, and how far somebody has set the clock on the wall from them."""

    time: float = 1_700_000_000.0
    ahead: float = 0.0

    def now(self) -> float:
        return self.time + self.ahead

    def monotonic(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds


class NoProgress:
    def sent(self, rows: int) -> None: ...

    def processed(self, job: Job, batch_rows: int) -> None: ...

    def settled(self, succeeded: int, not_delivered: int) -> None: ...


JOURNAL = (
    "begin",
    "keep_image",
    "note_created",
    "planned",
    "advance",
    "settle",
    "abandon",
    "open_batches",
    "batch",
    "finish",
)
DESTINATION = (
    "has_records",
    "lookup",
    "read_many",
    "create_job",
    "upload",
    "close",
    "abort",
    "job",
    "results",
    "send",
)


@dataclass
class World:
    """One state folder, one org, one model: what runs share."""

    folder: Path
    org: MemoryOrg = field(default_factory=MemoryOrg)
    clock: ManualClock = field(default_factory=ManualClock)
    runs: int = 0
    target: str = TARGET

    def copy(self, folder: Path) -> World:
        """Another world that has lived the same up to now."""
        shutil.copytree(self.folder, folder)
        return World(folder, copy.deepcopy(self.org), copy.copy(self.clock), self.runs, self.target)

    def state(self, trip: Trip | None = None) -> LocalState:
        state = WatchedState(self.folder, self.clock, target=self.target)
        state.trip = trip or Trip()
        return state

    def plan(self, act: Activation, model: Model, ceilings: Ceilings = NO_CEILINGS, **more: object) -> Plan:
        spool = ScanSpool(self.folder.parent)
        return draw(act, model, self.org, self.state().view(self.org.org_id, act), spool, ceilings=ceilings, **more)  # type: ignore[arg-type]

    def sync(
        self,
        act: Activation,
        model: Model,
        ceilings: Ceilings = NO_CEILINGS,
        trip: Trip | None = None,
        audited: bool = False,
        **more: object,
    ) -> SyncRun:
        """One run from lock to history, as `cli.syncing` does it."""
        with self._running(act, trip, *JOURNAL) as (run, org, journal, state, _):
            audit = Audit(act, state, run)
            if audited:
                more["watched"] = audit.positions
            with closing(ScanSpool(self.folder.parent)) as spool:
                plan = draw(act, model, org, state, spool, ceilings=ceilings, **more)
                fence.check(plan, org, state, sleep=self.clock.sleep)  # type: ignore[arg-type]
                run.sampling = audit.size(plan.counts.sending) if audited else 0
                execute(plan, org, journal, self.clock, run=run, progress=NoProgress())
                audit.conclude(plan, org)
        return run

    def revert(self, act: Activation, run_id: str, trip: Trip | None = None, **more: object) -> SyncRun:
        """One revert from lock to history, as `cli.reverting` does it."""
        with self._running(act, trip, *JOURNAL, "amend") as (run, org, journal, state, store):
            image, undelivered = state.image(run_id), store.history.not_delivered(store.history.of(run_id))
            assert image is not None
            drawn = revert.draw(image, run_id, act, org, state, undelivered=undelivered, **more)
            revert.execute(drawn, org, journal, self.clock, run=run, progress=NoProgress())
        return run

    @contextmanager
    def _running(self, act: Activation, trip: Trip | None, *watched: str) -> Iterator[tuple[Any, ...]]:
        """A run in the history: itself, the org and the journal under watch, the state and its store. What a dead run
        left is settled; who comes out by an exception leaves the run as a kill does."""
        self.runs += 1
        self.clock.time += 60
        trip = trip or Trip()
        org = Watched(self.org, trip, *DESTINATION)
        store = self.state(trip)
        run = SyncRun(f"run{self.runs:04d}", self.clock.now(), self.clock.monotonic())
        with store.locked(self.org.org_id, act) as state:
            record = RunRecord(run.run_id, act.name, self.target, self.org.org_id, run.started, None, "running")
            store.history.start(record)
            journal = Watched(state, trip, *watched)
            recover(org, journal, self.clock, run=run, progress=NoProgress())  # type: ignore[arg-type]
            state.reload()
            yield run, org, journal, state, store
            record = replace(record, finished=self.clock.now(), status=run.status.value)
            store.history.finish(record, pa.concat_tables(run.not_delivered))

    def files(self) -> list[str]:
        found = (p for p in self.folder.rglob("*") if p.is_file())
        return sorted(str(p.relative_to(self.folder)) for p in found)

    def snapshot(self, act: Activation) -> dict[str, tuple[str | None, int]]:
        """Acknowledged keys with record id and flags."""
        snapshot = self.state().view(self.org.org_id, act).snapshot
        table = pa.concat_tables(snapshot.tables())
        return {r["key"]: (r["record_id"], r["flags"]) for r in table.to_pylist()}


def fates(run: SyncRun) -> dict[str, tuple[str, str | None]]:
    """The rows a run did not deliver: fate and code by key."""
    rows = pa.concat_tables(run.not_delivered).to_pylist()
    assert len({row["key"] for row in rows}) == len(rows), "a row is reported once"
    return {row["key"]: (row["fate"], row["code"]) for row in rows}


__all__ = ["Ceilings", "FieldMapping", "Flag", "Match", "Mode"]
