"""A plan: what a sync would send, what it leaves out and why, and what all that was computed from.

A plan is a value: it knows the activation, the state and the org it was computed from, and `sync` refuses it once any
of them moved.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dinmo_dbt.activation import Activation, Mode
from dinmo_dbt.codes import NO_TABLE, QUERY_REFUSED
from dinmo_dbt.destination import Api, Batch, ObjectSchema, Operation, PayloadColumn
from dinmo_dbt.errors import Problem, WarehouseError
from dinmo_dbt.plan.guards import Counted, Day
from dinmo_dbt.plan.leavers import Leavers
from dinmo_dbt.plan.records import compared
from dinmo_dbt.rows.changes import ChangeSet
from dinmo_dbt.rows.mapping import Mapping
from dinmo_dbt.rows.rowhash import Hashes
from dinmo_dbt.rows.sets import among, distinct
from dinmo_dbt.rows.snapshot import Baseline, Flag, Pending, Positions, Snapshot, Spool


class Source(Protocol):
    """The warehouse, as far as a plan needs it."""

    def schema(self, relation_name: str) -> pa.Schema:
        """The relation's real columns."""

    def read(self, relation_name: str, columns: Sequence[str], where: str | None) -> Iterator[pa.RecordBatch]:
        """The relation's rows in record batches, columns in the order asked, then `values.unreadable_mark`s."""


@contextmanager
def reading(activation: Activation, *, by_condition: bool = True) -> Iterator[None]:
    """What the warehouse refuses has the place of the activation, or of its condition if it was asked by that."""
    try:
        yield
    except WarehouseError as error:
        of_it = by_condition and activation.where and error.problems[0].code in (NO_TABLE, QUERY_REFUSED)
        own = activation.condition_path if of_it else activation.meta_path
        error.put(lambda place: place or own)
        raise


@dataclass(frozen=True)
class InFlight:
    """A batch of a dead run whose outcome has not been read yet: its rows' key hashes and keys."""

    job_id: str | None
    kh: Hashes
    keys: pa.Array


def flying(batches: Sequence[InFlight], kh: Hashes, keys_of: Callable[[Positions], pa.Array]) -> npt.NDArray[np.bool_]:
    """Which rows of these key hashes have their key in one of the batches; `keys_of` some of them, by number."""
    found = np.zeros(len(kh), np.bool_)
    for batch in batches:
        rows = np.flatnonzero(among(kh, batch.kh))
        if rows.size:
            found[rows] |= pc.is_in(keys_of(rows), value_set=batch.keys).to_numpy(zero_copy_only=False)
    return found


class StateView(Protocol):
    """One activation's state in one org, as it is now. `mappings` are stored headers, newest first."""

    @property
    def serial(self) -> int: ...
    @property
    def exists(self) -> bool: ...
    @property
    def mappings(self) -> Sequence[dict[str, Any]]: ...
    @property
    def snapshot(self) -> Snapshot: ...
    @property
    def pending(self) -> Pending: ...
    @property
    def in_flight(self) -> Sequence[InFlight]: ...
    @property
    def day(self) -> Day: ...
    @property
    def admitted(self) -> int:
        """The most keys that there would be, had each run delivered the new rows that it was let to send."""

    @property
    def other_orgs(self) -> Sequence[str]:
        """The ids of the other orgs that it was synced to."""

    def held_elsewhere(self, record_ids: pa.Array) -> npt.NDArray[np.bool_]:
        """Which of these records a row has that another activation, or another dbt target, keeps in this org."""


@dataclass(frozen=True)
class PlannedBatch:
    """Rows of one operation that travel together: spool row numbers, ascending, and the columns they send.

    `leavers`: what `on_removed` does; the numbers are of `Plan.leavers.removing` then. `awaits`: rows of batches before
    it make some of its rows' parents. `without_parents`: its rows go without their parents, which are among them,
    and once more in a later batch.
    """

    operation: Operation
    api: Api
    columns: tuple[PayloadColumn, ...]
    match: str | None
    rows: Positions
    leavers: bool = False
    awaits: bool = False
    without_parents: bool = False


@dataclass(frozen=True)
class Counts:
    """read == unchanged + planned + invalid + rejected + no_match + ambiguous + held + in_flight (promise 1).

    `rejected`: its parent is missing, and is not to be waited for. `waiting`: of the `held` and `removal_held`, those
    that Salesforce refused in an earlier run and that are not tried in this one. `left` are keys that are not in the
    segment any more, so no rows that were read. Of them `removing` are sent too, as `on_removed` says, `removal_held`
    and `removal_in_flight` wait for that, and the others are only noted.
    """

    read: int = 0
    unchanged: int = 0
    added: int = 0
    changed: int = 0
    remapped: int = 0
    returned: int = 0
    resent: int = 0
    left: int = 0
    planned: int = 0
    invalid: int = 0
    rejected: int = 0
    no_match: int = 0
    ambiguous: int = 0
    held: int = 0
    in_flight: int = 0
    waiting: int = 0
    removing: int = 0
    removal_held: int = 0
    removal_in_flight: int = 0

    @property
    def add_up(self) -> bool:
        aside = self.invalid + self.rejected + self.no_match + self.ambiguous + self.held + self.in_flight
        removals = self.removing + self.removal_held + self.removal_in_flight
        return self.read == self.unchanged + self.planned + aside and removals <= self.left

    @property
    def sending(self) -> int:
        """Every row that goes to Salesforce."""
        return self.planned + self.removing


@dataclass(frozen=True, slots=True)
class Arriving:
    """Records that an earlier plan will create, by the values of one field, as Salesforce compares them."""

    object: str
    field: str
    values: pa.Array


# Rows that a plan leaves out, and rows that a run could not deliver: one line each in `rejected`. `message` may hold
# values of the row (Salesforce quotes them); `shown` is the message without those that were sent.
LEFT_OUT = pa.schema(
    [
        pa.field("key", pa.utf8()),
        pa.field("fate", pa.utf8()),
        pa.field("code", pa.utf8()),
        pa.field("message", pa.utf8()),
        pa.field("fields", pa.utf8()),
        pa.field("record_id", pa.utf8()),
        pa.field("shown", pa.utf8()),
    ]
)


@dataclass(frozen=True)
class Plan:
    """Ordered batches, the rows left out and why, and what all that was computed from.

    `refusal` is the guard that keeps it from being executed. `record_ids` runs parallel to the spool (null: none
    known), and so does `stored_ids` (those the snapshot has); `parents` holds the resolved lookup ids by header, where
    Salesforce does not find the parents itself or an insert names them, `emptied` the rows whose parent is left empty
    by header of the column, `unfinished` the rows that are not sent whole. `baseline` and `leavers.noted` move the
    snapshot without sending anything. `awaits_parents`: some parents are still to be created by an earlier plan, so
    this one is for showing; a sync draws it again when they exist. `counted` runs parallel to the spool too: as what
    each row counts for the day (`guards.Counted`) once it is acknowledged; what `passed` a ceiling by a flag counts
    for nothing, and ends the day of its kind. `replacing`: keys that left beside new ones, where it looks as if they
    were the same rows. `admitted`: `StateView.admitted` after it.
    """

    activation: Activation
    org_id: str
    serial: int
    schema: ObjectSchema
    mapping: Mapping
    older: tuple[Mapping, ...]
    counts: Counts
    batches: tuple[PlannedBatch, ...]
    left_out: pa.Table
    baseline: Baseline
    leavers: Leavers
    spool: Spool
    changes: ChangeSet
    snapshot_flags: npt.NDArray[np.uint8]
    record_ids: pa.Array
    stored_ids: pa.Array
    parents: dict[str, pa.Array]
    known_left_out: int
    is_first: bool
    emptied: dict[str, npt.NDArray[np.bool_]] = field(default_factory=dict)
    unfinished: npt.NDArray[np.bool_] | None = None
    awaits_parents: bool = False
    refusal: Problem | None = None
    notes: tuple[str, ...] = ()
    described: str = ""  # what describe said of the mapped fields (`Mapping.described`)
    counted: npt.NDArray[np.uint8] = field(default_factory=lambda: np.empty(0, np.uint8))
    passed: frozenset[Counted] = frozenset()
    replacing: tuple[tuple[str, str], ...] = ()
    admitted: int = 0

    @property
    def has_changes(self) -> bool:
        return bool(self.batches)

    @property
    def calls(self) -> int:
        """About how many API calls the batches will take."""
        by_bulk = sum(1 for batch in self.batches if batch.api is Api.BULK)
        by_collections = sum(-(-len(batch.rows) // 200) for batch in self.batches if batch.api is Api.COLLECTIONS)
        return by_bulk * 12 + by_collections

    def batch_rows(self, planned: PlannedBatch) -> pa.Table:
        """The payload of a planned batch: key, kh, ck, flags and record_id (the snapshot's), counted, then its columns,
        sorted by parent.

        Salesforce locks the parent of each row it writes; rows of one parent in different chunks of a job would wait
        for each other, so they are sorted to stand together.
        """
        rows = planned.rows
        if planned.leavers:
            return self._leaver_rows(rows)
        spooled = self.spool.take(rows)
        columns: dict[str, pa.Array | pa.ChunkedArray] = {name: spooled[name] for name in ("key", "kh", "ck")}
        position = self.changes.position[rows]
        known = np.flatnonzero(position >= 0)
        flags = np.zeros(len(rows), np.uint8)
        flags[known] = self.snapshot_flags.take(position[known])
        flags &= ~np.uint8(Flag.UNFINISHED)
        if self.unfinished is not None:
            flags[self.unfinished[rows] | planned.without_parents] |= np.uint8(Flag.UNFINISHED)
        columns["flags"] = pa.array(flags)
        columns["record_id"] = self.stored_ids.take(pa.array(rows))
        counted = self.counted[rows]
        for batch in self.batches if planned.awaits else ():
            if batch.without_parents:  # counted with what went first
                counted[np.isin(rows, batch.rows)] = Counted.NOT
        columns["counted"] = pa.array(counted)
        columns |= {column.header: self._cells(column.header, rows, spooled) for column in planned.columns}
        table = pa.table(columns)
        parents = [c.header for c in planned.columns if c.is_parent_path or c.field.type == "reference"]
        return table.sort_by([(header, "ascending") for header in parents]) if parents else table

    def _cells(self, header: str, rows: Positions, spooled: pa.Table) -> pa.Array | pa.ChunkedArray:
        """What these rows send under a header; `spooled` has them."""
        match = self.mapping.match.header if self.mapping.match else None
        if header == "Id" and match != "Id":
            return self.record_ids.take(pa.array(rows))
        if header == match and header not in spooled.column_names:
            return spooled["match"]
        if header in self.parents:
            return self.parents[header].take(pa.array(rows))
        constant = next((constant for constant in self.mapping.constants if constant.header == header), None)
        if constant is not None:
            return constant.value.take(pa.array(np.zeros(len(rows), np.int64)))
        cells = spooled[header]
        if header in self.emptied:
            cells = pc.if_else(pa.array(self.emptied[header][rows]), pa.scalar(None, cells.type), cells)
        return cells

    def _leaver_rows(self, rows: Positions) -> pa.Table:
        table = self.leavers.removing.take(pa.array(rows)).combine_chunks()
        counted = Counted.NOT if Counted.REMOVED in self.passed else Counted.REMOVED
        table = table.append_column("counted", pa.array(np.full(len(rows), counted, np.uint8)))
        for constant in self.mapping.removed:
            value = constant.value.take(pa.array(np.zeros(len(rows), np.int64)))
            table = table.append_column(constant.header, value)
        return table

    def arriving(self, named_by: Collection[str]) -> list[Arriving]:
        """The records that this plan will make or change, by the fields `named_by` (in lower case): parents that a
        later plan may count on."""
        writing = [b.rows for b in self.batches if b.operation is not Operation.DELETE and not b.leavers]
        if not writing or self.refusal:
            return []
        rows, match = distinct(np.concatenate(writing)), self.mapping.match
        by = {column.header: column.field for column in self.mapping.columns if column.lookup is None}
        if match is not None and match.header not in by and self.activation.mode is Mode.UPSERT:
            by["match"] = match.field
        fields = {name: field for name, field in by.items() if field.name.lower() in named_by}
        return [
            Arriving(
                self.schema.name, field.name, compared(self.spool.take(rows, [name])[name].combine_chunks(), field)
            )
            for name, field in fields.items()
        ]

    def known_ids(self, keys: pa.Array, rows: Positions) -> list[str | None]:
        """The record id, where one is known, of each key; `rows` are the spool rows that hold the keys."""
        own = self.spool.take(rows, ["key"])["key"].combine_chunks()
        ids: list[str | None] = self.record_ids.take(pa.array(rows)).take(pc.index_in(keys, value_set=own)).to_pylist()
        return ids


def payload_batch(plan: Plan, planned: PlannedBatch, batch_id: str, rows: pa.Table) -> Batch:
    """One batch to send, of rows that `Plan.batch_rows` gave."""
    return Batch(
        id=batch_id,
        operation=planned.operation,
        object=plan.schema.name,
        api=planned.api,
        columns=planned.columns,
        match=planned.match,
        rows=rows,
        leavers=planned.leavers,
        awaits=planned.awaits,
        without_parents=planned.without_parents,
    )
