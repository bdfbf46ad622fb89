"""The Destination contract and its words: what `plan` and `sync` may ask of Salesforce, and what may be repeated.

Rows are Arrow tables of *canonical* values (see `values`). Nothing here speaks HTTP: `salesforce` fulfils the
contract, and `sync` journals between its calls. Every method may raise `AuthError`, `LimitReached`, `ReadOnly`,
`NotApplied` (known not to have acted) or, where it writes, `OutcomeUnknown` (may have acted).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa


class Operation(StrEnum):
    """What one batch does with its rows; Bulk API 2.0's own words."""

    INSERT = "insert"
    UPDATE = "update"
    UPSERT = "upsert"
    DELETE = "delete"


class Api(StrEnum):
    """How a batch travels: a Bulk API 2.0 job, or sObject Collections calls of 200 rows."""

    BULK = "bulk"
    COLLECTIONS = "collections"


class Fate(StrEnum):
    """What became of one row in one sync run."""

    SUCCEEDED = "succeeded"
    REJECTED = "rejected"
    INVALID = "invalid"
    NO_MATCH = "no_match"
    AMBIGUOUS = "ambiguous"
    HELD = "held"
    UNKNOWN = "unknown"


class ErrorClass(StrEnum):
    """Whose fault a rejection is."""

    TRANSIENT = "transient"  # locks, a busy server
    AUTOMATION = "automation"  # the org's triggers and flows
    REFERENCE = "reference"  # a record that the row is, or points to, is missing or out of reach
    LIMIT = "limit"  # API calls, storage
    AUTH = "auth"
    MAINTENANCE = "maintenance"
    DATA = "data"  # the row's own values, and the rules they break


class Remedy(StrEnum):
    """What may help a rejected row."""

    AGAIN = "again"  # the same row, a little later
    SMALLER = "smaller"  # the same row among fewer
    LET_GO = "let go"  # the same row, once the record that holds its value has let go of it
    STOP = "stop"  # nothing in this run: no other row would pass either
    CHANGE = "change"  # another value, another mapping, or a change in the org


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What a rejection means; `hint` is what a person can do, '' where the code says it."""

    error_class: ErrorClass
    remedy: Remedy
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Field:
    """One field as describe reports it (REST Developer Guide, sObject Describe)."""

    name: str
    label: str
    type: str
    length: int = 0
    precision: int = 0
    scale: int = 0
    digits: int = 0
    createable: bool = True
    updateable: bool = True
    nillable: bool = True
    defaulted_on_create: bool = False
    external_id: bool = False
    id_lookup: bool = False
    unique: bool = False
    case_sensitive: bool = False
    restricted_picklist: bool = False
    picklist: tuple[str, ...] = ()
    reference_to: tuple[str, ...] = ()
    relationship_name: str | None = None
    calculated: bool = False
    auto_number: bool = False
    filterable: bool = True
    html: bool = False  # rich text, which Salesforce cleans when it is saved
    compound: str = ""  # the field whose value is put together of this one and others
    is_master: bool = False  # a lookup to the master that the record is a detail of

    @property
    def required_on_create(self) -> bool:
        """The usual client rule: not nillable, createable, and no default of its own."""
        return not self.nillable and self.createable and not self.defaulted_on_create

    @property
    def identifies(self) -> bool:
        """Whether a write may name a record by it, the one it is for or a parent: an external id, or a field that
        describe calls idLookup (Bulk API 2.0 guide, "Relationship Fields in a Header Row")."""
        return self.external_id or self.id_lookup


@dataclass(frozen=True, slots=True)
class ListedObject:
    """One line of the org's list of objects (REST Developer Guide, Describe Global)."""

    name: str
    label: str
    custom: bool
    createable: bool
    updateable: bool
    deletable: bool


@dataclass(frozen=True)
class ObjectSchema:
    """One sObject: its rights and its fields, in describe's order, by API name in describe's exact case."""

    name: str
    label: str
    key_prefix: str | None
    createable: bool
    updateable: bool
    deletable: bool
    custom: bool
    fields: Mapping[str, Field]

    @cached_property
    def _by_folded_name(self) -> dict[str, Field]:
        return {name.lower(): field for name, field in self.fields.items()}

    @cached_property
    def _by_relationship(self) -> dict[str, Field]:
        return {f.relationship_name.lower(): f for f in self.fields.values() if f.relationship_name}

    def field(self, name: str) -> Field | None:
        """The field of that API name, in any case; None if the object has none the user may see."""
        return self._by_folded_name.get(name.lower())

    def relationship(self, name: str) -> Field | None:
        """The lookup field behind a relationship name (`Customer__r` -> `Customer__c`)."""
        return self._by_relationship.get(name.lower())


@dataclass(frozen=True, slots=True)
class PayloadColumn:
    """One column of a batch as it travels.

    `header` is the wire name in describe's exact case: `Plan__c`, `Id`, or `Customer__r.Customer_Id__c`.
    `field` is the field whose type decides the text form; for a parent path, the parent's field.
    `keep_nulls`: a null leaves the field alone (empty cell, omitted key) instead of clearing it.
    """

    header: str
    field: Field
    keep_nulls: bool = False

    @property
    def is_parent_path(self) -> bool:
        return "." in self.header


@dataclass(frozen=True)
class Batch:
    """One operation over a bounded number of rows; the unit journalled and sent.

    `rows`: payload columns named by their headers in canonical types, after `key` (utf8), `kh` (uint64), `ck`
    (16 bytes) and `flags` (uint8), which are the journal's and never travel.
    Update and delete carry `Id`. `match` is the header of the external id for an upsert. `record_id` (utf8, the
    journal's too; not in every batch) is the record each key was known to have before.
    `leavers`: the rows are keys that left the segment, and this is what `on_removed` does with their records.
    `awaits`: some of its rows' parents are made by batches before it. `without_parents`: its rows go without such
    parents, and once more, with them, in a later batch.
    `reverts`: the rows undo what an earlier run wrote; `forget` (bool) says whose key is forgotten with its record.
    """

    id: str
    operation: Operation
    object: str
    api: Api
    columns: tuple[PayloadColumn, ...]
    match: str | None
    rows: pa.Table
    reverts: bool = False
    leavers: bool = False
    awaits: bool = False
    without_parents: bool = False


# One row a batch row, in the batch's order. `code` is Salesforce's status code or ours; `fields` its comma-joined
# field names; `message` is stored whole and shown only with the row's sent values masked.
RESULTS = pa.schema(
    [
        pa.field("fate", pa.utf8()),
        pa.field("record_id", pa.utf8()),
        pa.field("created", pa.bool_()),
        pa.field("code", pa.utf8()),
        pa.field("message", pa.utf8()),
        pa.field("fields", pa.utf8()),
    ]
)


@dataclass(frozen=True, slots=True)
class Job:
    """A Bulk API 2.0 ingest job as its info call reports it. `processed` includes the failed rows."""

    id: str
    state: str
    processed: int = 0
    failed: int = 0
    error: str = ""

    @property
    def is_open(self) -> bool:
        return self.state == "Open"

    @property
    def is_terminal(self) -> bool:
        return self.state in ("JobComplete", "Failed", "Aborted")


@dataclass(frozen=True, slots=True)
class ListedJob:
    """An ingest job of the last 7 days, as the org's list of jobs has it, of any user. `created` is Salesforce's
    own text, `user` the id of the one who made it; `as_ours`: its CSV has the form that ours has."""

    id: str
    operation: str
    object: str
    state: str
    created: str
    user: str
    api_version: str
    as_ours: bool

    @property
    def said(self) -> str:
        return f"{self.operation} {self.object}, {self.created[:16].replace('T', ' ')} UTC"


@dataclass(frozen=True, slots=True)
class StateRecord:
    """What the org keeps of one state, where it has an object for that: a serial, whose it is, and who wrote it."""

    serial: int
    lineage: str
    run: str


@dataclass(frozen=True, slots=True)
class ApiUsage:
    """The org's daily API calls: used and allowed, as the last reply said (0 of 0 before any)."""

    used: int
    limit: int


class Destination(Protocol):
    """A Salesforce org, logged in.

    Reads may be repeated at will. Of the writes, `create_job`, `upload` and `abort` change no record and are safe
    to give up on; `close` is the commit point of a job and is idempotent while the job is Open; `send` may be
    repeated for upsert, update and delete, never for insert.
    """

    org_id: str

    @property
    def calls(self) -> int:
        """HTTP calls made so far, login included."""

    @property
    def usage(self) -> ApiUsage: ...

    @property
    def org_time(self) -> float | None:
        """What time it is by the org's clock: seconds since the epoch, UTC. None before any reply."""

    def describe(self, object_name: str) -> ObjectSchema:
        """The object's schema, cached for the life of the session. ConfigError DB301 if the org lacks it."""

    def has_records(self, object_name: str) -> bool:
        """Whether the object holds at least one record (one call)."""

    def lookup(self, object_name: str, field: Field, values: pa.Array, only: tuple[str, str] | None = None) -> pa.Table:
        """Every record whose `field` holds one of `values` (canonical, distinct, no nulls), in no order. `only`: a text
        field and what it holds, of those records alone.

        Columns `value` (canonical type of `field`) and `record_id` (18 characters). May hold values that differ in
        case from those asked: SOQL compares without case, so the caller folds and compares again.
        Up to 2,000 values by SOQL, above by one Bulk query job.
        """

    def read(self, object_name: str, fields: tuple[str, ...], record_ids: tuple[str, ...]) -> list[dict[str, object]]:
        """At most 200 records by id, as JSON values by field name, `Id` included; a missing record is left out."""

    def read_many(self, object_name: str, fields: Sequence[str], record_ids: pa.Array) -> pa.Table:
        """Any number of records by id (18 characters, distinct, no nulls): `Id` and the fields as utf8 columns, in no
        order; a missing record is left out.

        Values are as Salesforce prints them, null where it holds nothing. Up to 2,000 records by collections calls,
        above by one Bulk query job.
        """

    def read_pages(self, object_name: str, fields: Sequence[str], record_ids: pa.Array | None) -> Iterator[pa.Table]:
        """The records of these ids (as in `read_many`, a few thousand at most), or for None every record of the object
        by one Bulk query: pages of `Id` and the fields as utf8 columns, in no order, each record once.

        A field may be a parent's, as `Customer__r.Customer_Id__c`. Values are as Salesforce prints them, null where it
        holds nothing. At least one page, perhaps empty.
        """

    def job_slots(self, rows: pa.Table, columns: tuple[PayloadColumn, ...]) -> npt.NDArray[np.int8]:
        """For an insert: the job (0 to 7) each row must go by, so that results can be told apart by content."""

    def diagnose(self, code: str, message: str) -> Diagnosis:
        """What Salesforce's code and message, of a rejected row or a failed job, ask for."""

    def create_job(self, batch: Batch) -> str:
        """Open an ingest job for the batch; its id. No data yet, so a job opened unseen does nothing."""

    def upload(self, job_id: str, batch: Batch) -> None:
        """PUT the batch as CSV. Nothing is processed before `close`."""

    def close(self, job_id: str) -> None:
        """PATCH UploadComplete: the commit point. Idempotent while Open; OutcomeUnknown: ask `job`."""

    def abort(self, job_id: str) -> None:
        """PATCH Aborted: the fence. Records already written stay written; `results` tells which."""

    def job(self, job_id: str) -> Job | None:
        """The job's state, or None if the org no longer knows it."""

    def listed_jobs(self) -> Sequence[ListedJob] | None:
        """Every ingest job of Bulk API 2.0 that the org has and this user may see; None if it may list none."""

    def made_by(self, job_id: str, names: Collection[str]) -> pa.Table | None:
        """The rows that a terminal job of any user wrote: `sf__Id` and those columns of `names` that it had, all utf8,
        in no order; none of a job that is larger than ours are. None if the org has the results no longer, or does not
        show them to this user."""

    def state_record(self, key: str) -> StateRecord | None:
        """What the org keeps of the state of that key (letters and digits); None if nothing, or nowhere to keep it.

        Whether there is such an object is found out by the first call. After any call of these two that failed, the
        session takes the org for one that has none.
        """

    def keep_state_record(self, key: str, name: str, record: StateRecord) -> None:
        """Put it in the place of what was kept of that key; does nothing where there is nowhere to keep it. `name` is
        for people."""

    def results(self, job_id: str, batch: Batch) -> pa.Table | None:
        """`RESULTS` for each batch row in batch order, joined by content, never by position. Terminal jobs only.
        None if the org has the job or its results no longer.

        A row in no result file of a job that processed anything is `unknown`; unprocessed rows are `held` with the
        code UNPROCESSED. Reads again when a file is incomplete; OutcomeUnknown if it stays so.
        """

    def send(self, batch: Batch, before: Callable[[], None] | None = None) -> pa.Table:
        """At most 200 rows by sObject Collections; `RESULTS` in batch order. OutcomeUnknown if no whole reply came.

        `before` each time the call goes out, repeats included: what it raises keeps it from going.
        """
