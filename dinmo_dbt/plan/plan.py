"""Activation x segment x snapshot x org -> Plan: what a sync would send, what it leaves out and why. Writes nothing.

`draw` is the whole read-only path, the same for `plan` and for `sync`; `plan` stops where it ends. A plan is a value:
it knows the activation, the state and the org it was computed from, and `sync` refuses it once any of them moved.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dinmo_dbt.activation import Activation, Mode
from dinmo_dbt.destination import Api, Batch, Destination, Fate, Field, ObjectSchema, Operation, PayloadColumn
from dinmo_dbt.errors import ConfigError, Problem, StateError
from dinmo_dbt.plan import guards, leavers, parents
from dinmo_dbt.plan.guards import Ceilings, Counted, Day, Effect, Moved
from dinmo_dbt.plan.leavers import Leavers
from dinmo_dbt.plan.parents import CIRCLE, PARENT_AMBIGUOUS, PARENT_MISSING, Link
from dinmo_dbt.plan.records import compared, find_records, ids_missing, repeated
from dinmo_dbt.rows import carried, changes, values
from dinmo_dbt.rows.changes import Aside, Baseline, ChangeSet, Kind, Pending, Positions, Snapshot, Spool
from dinmo_dbt.rows.keys import respelled
from dinmo_dbt.rows.mapping import Column, Mapping, from_header, resolve
from dinmo_dbt.rows.rowhash import Hashes

# Up to here by collections, 200 a call; above by Bulk API 2.0 (Bulk API 2.0 Developer Guide, "When to use").
COLLECTIONS_ROWS_MAX = 2_000
# One job: well under the 100 MB of CSV a job takes, and few enough rows that its results fit in memory.
BULK_ROWS_MAX = 200_000
BULK_BYTES_MAX = 100_000_000


class Source(Protocol):
    """The warehouse, as far as a plan needs it."""

    def schema(self, relation_name: str) -> pa.Schema:
        """The relation's real columns."""

    def read(self, relation_name: str, columns: Sequence[str], where: str | None) -> Iterator[pa.RecordBatch]:
        """The relation's rows in record batches, columns in the order asked, then `values.unreadable_mark`s."""


@dataclass(frozen=True)
class InFlight:
    """A batch of a dead run whose outcome has not been read yet: its rows' key hashes and keys."""

    job_id: str | None
    kh: Hashes
    keys: pa.Array


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
    it make some of its rows' parents. `foregoing`: its rows go without their parents, which are among them, and once
    more in a later batch.
    """

    operation: Operation
    api: Api
    columns: tuple[PayloadColumn, ...]
    match: str | None
    rows: Positions
    leavers: bool = False
    awaits: bool = False
    foregoing: bool = False


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
        flags &= ~np.uint8(changes.Flag.UNFINISHED)
        if self.unfinished is not None:
            flags[self.unfinished[rows] | planned.foregoing] |= np.uint8(changes.Flag.UNFINISHED)
        columns["flags"] = pa.array(flags)
        columns["record_id"] = self.stored_ids.take(pa.array(rows))
        counted = self.counted[rows]
        for batch in self.batches if planned.awaits else ():
            if batch.foregoing:  # counted with what went first
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
        rows, match = np.unique(np.concatenate(writing)), self.mapping.match
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


_NONE_RAISED = Ceilings()


def draw(
    activation: Activation,
    source: Source,
    destination: Destination,
    state: StateView,
    spool: Spool,
    *,
    ceilings: Ceilings = _NONE_RAISED,
    arriving: Sequence[Arriving] = (),
    watched: Positions | None = None,
    hash_key: Callable[[pa.Array], Hashes] = changes.key_hash,
) -> Plan:
    """Read the segment, compare it with the snapshot, resolve records: the plan. Raises ConfigError for a mapping that
    does not fit the object, StateError for a snapshot that is another activation's.

    `arriving`: what earlier plans, not executed yet, will have created by then. A sync draws each plan after its
    parents were delivered and passes none. `watched`: positions in the snapshot whose rows, if unchanged, an audit will
    compare.
    """
    schema = destination.describe(activation.object)
    relation = source.schema(activation.relation_name)
    mapping, problems = resolve(activation, schema, destination.describe, relation)
    if mapping is None:
        raise ConfigError.of(problems)
    described = mapping.described(schema)
    waits = state.pending.given_up(activation.give_up_after, destination.org_time)
    older, notes = _stored_mappings(activation, mapping, state, relation)
    moved = _moved(mapping, state, relation)
    notes += _retyped(mapping, state, relation)
    inserting = activation.mode is Mode.INSERT
    sources = tuple(dict.fromkeys(name for m in (mapping, *older) for name in m.sources))
    found = changes.between(
        source.read(activation.relation_name, sources, activation.where),
        mapping,
        state.snapshot,
        spool,
        older=older,
        pending=waits.released(described),
        resend=ceilings.full and not inserting,
        inserting=inserting,
        ignore_changes=inserting and activation.on_change == "ignore",
        finding=activation.only_finds,
        watched=watched,
        hash_key=hash_key,
    )
    notes += _unjudged(found.unjudged)
    refusal = _model_refusal(activation, state, found) or _guards(activation, state, destination, ceilings)
    work = _Work(activation, mapping, schema, destination, state, spool, found, arriving, older, waits)
    work.match_moved = any(mapping.match_moved_since(stored) for stored in older)
    if refusal is None or not found.refusals:
        work.resolve()
        work.know_new_from_known()
        work.meet_parents()
        work.find_respelled()
        notes += work.see_off(ceilings)
        notes += work.fixed_notes()
    effect = work.effect()
    verdict = guards.judge(activation, effect, state.day, ceilings, moved)
    if verdict.refusal is None and work.holds_respelled(ceilings):
        effect = replace(effect, created=effect.created - len(work.respelled), respelled=len(work.alike))
        work.hold_respelled()
    counts = work.counts()
    if verdict.refusal is None and (turned_over := guards.replaced_note(activation, effect, state.day)):
        notes.append(turned_over)
    return Plan(
        activation=activation,
        org_id=destination.org_id,
        serial=state.serial,
        schema=schema,
        mapping=mapping,
        older=older,
        counts=counts,
        batches=tuple(work.batches()),
        left_out=work.left_out(),
        baseline=found.baseline,
        leavers=work.leavers,
        spool=spool,
        changes=found,
        snapshot_flags=state.snapshot.flags,
        record_ids=work.record_ids,
        stored_ids=work.stored_ids,
        parents=work.parents,
        emptied=work.emptied,
        unfinished=work.unfinished,
        known_left_out=found.known_aside + work.known_left_out(),
        is_first=not state.exists,
        awaits_parents=work.awaits_parents,
        refusal=refusal or verdict.refusal,
        notes=tuple(notes),
        described=described,
        counted=work.counted(verdict.passed),
        passed=verdict.passed,
        replacing=work.replacing,
        admitted=max(state.admitted, len(state.snapshot.kh) + effect.created),
    )


# Mappings and guards


def _stored_mappings(
    activation: Activation, mapping: Mapping, state: StateView, relation: pa.Schema
) -> tuple[tuple[Mapping, ...], list[str]]:
    """The stored mappings that differ from today's and whose columns the model still has."""
    older, notes = [], []
    for header in state.mappings:
        stored = from_header(header)
        if stored.digest == mapping.digest:
            continue
        gone = sorted(name for name in stored.sources if name not in relation.names)
        columns = [stored.match] if stored.match else []
        unfit = [
            column.source
            for column in (*columns, *stored.columns)
            if column.source in relation.names and values.why_not(relation.field(column.source).type, column.field)
        ]
        if not gone and not unfit:
            older.append(stored)
            continue
        lost = ", ".join(gone + unfit)
        what = "are gone from the model" if gone else "changed their type"
        if activation.mode is Mode.INSERT:
            raise StateError(
                "DB507",
                f"columns that were synced before {what}: {lost}. Which rows changed can't be told any more, and "
                "an insert would make new records of all of them",
                where=activation.meta_path,
                hint="bring the columns back for one sync, or start again with: "
                f"dinmo-dbt state reset --select {activation.name}",
            )
        notes.append(f"{lost} {what}: which rows changed can't be told, so known rows are sent again")
    return tuple(older), notes


def _retyped(mapping: Mapping, state: StateView, relation: pa.Schema) -> list[str]:
    """What is said of each column whose type is not the one it had at the last sync."""
    stored = from_header(state.mappings[0]) if state.mappings else mapping
    moved = {name for name, _ in _key_moves(mapping, stored)}, {name for name, _ in _text_moves(stored, relation)}
    notes = []
    for name, before, now in mapping.retyped_since(stored):
        means = [": the key's text changes with it"] if name in moved[0] else []
        means += [": its text changes with it"] if name in moved[1] and not means else []
        notes.append(f"column {name} was of type {before}, and is of type {now}{''.join(means)}")
    return notes


def _unjudged(count: int) -> list[str]:
    told = (
        f"{count:,} rows are back that left before the mapping's fields or types changed: whether they changed while "
        "away can't be told, so they are not inserted again; their next change is"
    )
    return [told] if count else []


def _moved(mapping: Mapping, state: StateView, relation: pa.Schema) -> Moved:
    """Where a type changed since the last sync so that equal values are other texts."""
    stored = from_header(state.mappings[0]) if state.mappings else mapping
    key = ", ".join(f"key column {name} {how}" for name, how in _key_moves(mapping, stored))
    text = ", ".join(f"column {name} {how}" for name, how in _text_moves(stored, relation))
    return Moved(key, text)


def _key_moves(mapping: Mapping, stored: Mapping) -> list[tuple[str, str]]:
    if len(mapping.key_forms) != len(stored.key_forms):
        return []
    forms = zip(mapping.key, stored.key_forms, mapping.key_forms, strict=True)
    return [(name, _was(name, mapping, stored)) for name, before, now in forms if before != now]


def _text_moves(stored: Mapping, relation: pa.Schema) -> list[tuple[str, str]]:
    """Of what was synced last, whether the mapping of today still has it or not: the rows are compared by it."""
    moved = []
    for column in stored.columns:
        if column.form and column.source in relation.names:
            kind = relation.field(column.source)
            if values.text_form(kind, column.field) != column.form:
                before = dict(stored.types).get(column.source, "of another type")
                moved.append((column.source, f"was {before}, is {values.type_name(kind)}"))
    return moved


def _was(name: str, mapping: Mapping, stored: Mapping) -> str:
    return f"was {dict(stored.types).get(name, 'of another type')}, is {dict(mapping.types).get(name, 'unknown')}"


def _model_refusal(activation: Activation, state: StateView, found: ChangeSet) -> Problem | None:
    if found.refusals:
        return changes.key_refusal(found.refusals, activation.relation_name, activation.name)
    known = changes.present(state.snapshot)
    # A list of records to delete may well be empty: nothing is done then.
    if found.read == 0 and known and activation.mode is not Mode.DELETE:
        message = f"the segment is empty, but {known:,} rows were synced before"
        hint = f"look at the model; if it is right: dinmo-dbt state reset --select {activation.name}"
        return Problem("DB402", message, activation.relation_name, hint)
    return None


def _guards(activation: Activation, state: StateView, destination: Destination, ceilings: Ceilings) -> Problem | None:
    where = activation.meta_path
    inserting = activation.mode is Mode.INSERT
    if inserting and ceilings.full:
        return Problem("DB406", "--full would insert every known row again", where, "leave --full out for inserts")
    # Rows in flight are this activation's own: a first sync that was cut off, which the next one settles and continues.
    begun = state.exists or bool(state.in_flight)
    if inserting and not begun and not ceilings.first_sync and destination.has_records(activation.object):
        message = (
            f"nothing was synced to this org before, but {activation.object} already holds records: "
            "if this is not the first sync, every row would be doubled"
        )
        if state.other_orgs:
            message += (
                f". The state has it for org {', '.join(state.other_orgs)}: was this org refreshed from that one?"
            )
        hint = (
            f"take the records over: {activation.adopting}. "
            "Lost state: restore the state folder. If every row is to be a new record beside those: add --first-sync"
        )
        return Problem("DB401", message, where, hint)
    return None


# Records, parents, batches


@dataclass
class _Work:
    """The change set on its way to batches: what each spooled row does, and with which record."""

    activation: Activation
    mapping: Mapping
    schema: ObjectSchema
    destination: Destination
    state: StateView
    spool: Spool
    found: ChangeSet
    arriving: Sequence[Arriving] = ()
    older: Sequence[Mapping] = ()
    waits: Pending = field(default_factory=Pending.none)
    awaits_parents: bool = False
    parents: dict[str, pa.Array] = field(default_factory=dict)
    emptied: dict[str, npt.NDArray[np.bool_]] = field(default_factory=dict)
    leavers: Leavers = field(default_factory=Leavers)
    asides: list[pa.Table] = field(default_factory=list)
    replacing: tuple[tuple[str, str], ...] = ()
    respelled: Positions = field(default_factory=lambda: np.empty(0, np.int64))
    alike: Positions = field(default_factory=lambda: np.empty(0, np.int64))
    shifted: int = 0
    match_moved: bool = False

    def __post_init__(self) -> None:
        self.size = len(self.found.kind)
        self.operation = np.zeros(self.size, np.uint8)  # index into _OPERATIONS; 0: not sent
        self.record_ids = self.stored_ids = pa.nulls(self.size, pa.utf8())
        self.known_ids = np.zeros(self.size, np.bool_)
        self.found_ids = pa.nulls(self.size, pa.utf8())  # of rows that an upsert was looked up for
        self.makes = np.ones(self.size, np.bool_)  # where nothing tells that the record is there already
        self.level = np.zeros(self.size, np.int16)
        self.unfinished = np.zeros(self.size, np.bool_)
        self.lacking = self.found.position >= 0  # delivered before without what could not be sent yet
        flags = self.state.snapshot.flags[self.found.position[self.lacking]]
        self.lacking[self.lacking] = flags & changes.Flag.UNFINISHED != 0
        self.waiting = self.in_flight = 0
        self.without: dict[Fate, int] = {}
        self.from_scan()

    def from_scan(self) -> None:
        aside = self.found.aside
        invalid = pc.equal(aside["why"], int(Aside.INVALID))
        reasons = [values.Reason(number) for number in range(len(values.Reason))]
        index = aside["reason"]
        codes, waiting = _told_waits(aside["code"])
        message = pc.if_else(invalid, self.why_invalid(index, aside["column"]), waiting)
        self.asides.append(
            pa.table(
                [
                    aside["key"],
                    pc.if_else(invalid, Fate.INVALID.value, Fate.HELD.value),
                    pc.if_else(invalid, pa.array([r.code for r in reasons]).take(index), codes),
                    message,
                    aside["column"],
                    pa.nulls(len(aside), pa.utf8()),
                    message,
                ],
                schema=LEFT_OUT,
            )
        )
        self.without[Fate.INVALID] = int(pc.sum(invalid.cast(pa.int64())).as_py() or 0)
        self.without[Fate.HELD] = len(aside) - self.without[Fate.INVALID]
        done = pa.array([changes.OUTCOME_UNKNOWN, changes.GIVEN_UP])
        doubtful = pc.is_in(codes, value_set=done)
        self.waiting = int(pc.sum(pc.and_(pc.invert(invalid), pc.invert(doubtful)).cast(pa.int64())).as_py() or 0)

    def why_invalid(self, reasons: pa.ChunkedArray, columns: pa.ChunkedArray) -> pa.Array:
        """The message of each row's reason, as its column's field has it."""
        fields, told = self.mapping.field_of, []
        columns = pc.fill_null(columns, "")
        pairs = pc.binary_join_element_wise(reasons.cast(pa.utf8()), columns, " ").combine_chunks().dictionary_encode()
        for pair in pairs.dictionary.to_pylist():
            reason, _, name = pair.partition(" ")
            told.append(values.why_unfit(values.Reason(int(reason)), fields.get(name), self.found.longest.get(name, 0)))
        return pa.array(told, pa.utf8()).take(pairs.indices)

    def resolve(self) -> None:
        sent = self.found.kind != Kind.DROPPED
        sent &= ~self.flying(sent)
        known = np.flatnonzero(sent & (self.found.position >= 0))
        if known.size:
            ids = np.full(self.size, None, object)
            ids[known] = self.state.snapshot.record_ids(self.found.position[known]).to_numpy(zero_copy_only=False)
            self.record_ids = self.stored_ids = pa.array(ids, pa.utf8())
        self.known_ids = ~ids_missing(self.record_ids)
        match self.activation.mode:
            case Mode.INSERT:
                self.insert(np.flatnonzero(sent))
            case Mode.UPDATE:
                self.update(np.flatnonzero(sent))
            case Mode.UPSERT:
                self.upsert(np.flatnonzero(sent))
            case Mode.DELETE:
                self.delete(np.flatnonzero(sent))

    def flying(self, sent: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """Rows whose key is in a batch that has not been settled: shown, and left out of the plan."""
        flying = np.zeros(self.size, np.bool_)
        for batch in self.state.in_flight:
            rows = np.flatnonzero(sent & np.isin(self.found.kh, batch.kh))
            if rows.size:
                keys = self.keys_of(rows)
                here = rows[pc.is_in(keys, value_set=batch.keys).to_numpy(zero_copy_only=False)]
                flying[here] = True
        self.in_flight = int(flying.sum())
        return flying

    def delete(self, rows: Positions) -> None:
        """By the match value alone: what a known row was matched with before is gone already."""
        assert self.mapping.match is not None
        rows = self.with_match(rows)
        if self.mapping.match.header != "Id":
            self.match_records(rows, none_found=None, found=Operation.DELETE)
            rows = rows[self.operation[rows] == _OPERATIONS.index(Operation.DELETE)]
            self.leave_to_others(rows, self.record_ids.take(pa.array(rows)))
            return
        prefix = self.schema.key_prefix
        if prefix and rows.size:
            # A collections call deletes by ids alone, of whatever object.
            ids = self.spool.take(rows, ["match"])["match"]
            other = ~pc.starts_with(ids, prefix).to_numpy()
            message = f"not the id of a {self.schema.name} record, which begin with {prefix}"
            self.leave_out(rows[other], Fate.INVALID, "ID_OF_OTHER_OBJECT", message, "Id")
            rows = rows[~other]
        if not rows.size:
            return
        self.operation[rows] = _OPERATIONS.index(Operation.DELETE)
        self.leave_to_others(rows, self.spool.take(rows, ["match"])["match"].combine_chunks())

    def leave_to_others(self, rows: Positions, ids: pa.Array) -> None:
        """Delete no record that another activation or target keeps."""
        theirs = self.state.held_elsewhere(ids)
        message = "another activation or dbt target keeps this record (dinmo-dbt state show): it stays while they do"
        self.leave_out(rows[theirs], Fate.HELD, leavers.RECORD_SHARED, message)

    def insert(self, rows: Positions) -> None:
        why = self.found.no_bulk[rows]
        for reason in (values.Reason.BULK_NULL_TEXT, values.Reason.ROW_SIZE):
            self.leave_out(rows[why == reason], Fate.INVALID, reason.code, reason.message)
        self.operation[rows[why == 0]] = _OPERATIONS.index(Operation.INSERT)

    def update(self, rows: Positions) -> None:
        assert self.mapping.match is not None
        rows = self.with_match(rows)
        if self.mapping.match.header == "Id":
            self.operation[rows] = _OPERATIONS.index(Operation.UPDATE)
            return
        self.match_records(self.by_own_record(rows), none_found=None)

    def with_match(self, rows: Positions) -> Positions:
        """The rows that have a match value; the others have no record."""
        match = self.mapping.match
        assert match is not None
        if not rows.size:
            return rows
        folded = values.fold(self.spool.take(rows, ["match"])["match"].combine_chunks(), match.field)
        blank = pc.is_null(folded).to_numpy(zero_copy_only=False)
        message = f"the row has no match value: {match.source} is null or blank"
        self.leave_out(rows[blank], Fate.NO_MATCH, "NO_RECORD", message, match.header)
        there: Positions = rows[~blank]
        return there

    def by_own_record(self, rows: Positions) -> Positions:
        """Update the rows whose record is known and no other row's; the others, in their order."""
        lent = self.lent(rows)
        return np.sort(np.concatenate([rows[lent], self.by_record_id(rows[~lent])]))

    def by_record_id(self, rows: Positions) -> Positions:
        """Update the rows whose record is known; the others."""
        missing = ids_missing(self.record_ids.take(pa.array(rows)))
        self.operation[rows[~missing]] = _OPERATIONS.index(Operation.UPDATE)
        others: Positions = rows[missing]
        return others

    def upsert(self, rows: Positions) -> None:
        match, declared = self.mapping.match, self.activation.match
        assert match is not None
        assert declared is not None
        if match.header == "Id":
            self.operation[self.with_match(rows)] = _OPERATIONS.index(Operation.UPDATE)
            return
        if declared.create and not match.field.identifies:
            self.match_records(self.by_own_record(rows), none_found=Operation.INSERT)
            return
        if self.match_moved:
            self.upsert_by_movable_match(rows)
            return
        # Only added fields travel for a remapped row: an upsert could make a record of nothing else.
        remapped = self.found.kind[rows] == Kind.REMAPPED
        rows = np.concatenate([rows[~remapped], self.by_record_id(rows[remapped])])
        if self.mapping.key == (match.source,):
            self.operation[rows] = _OPERATIONS.index(Operation.UPSERT)
        else:
            self.upsert_by_movable_match(rows)

    def upsert_by_movable_match(self, rows: Positions) -> None:
        """The match value of a known key may have changed: an upsert by the new value would make a second record."""
        kind, position = self.found.kind[rows], self.found.position[rows]
        stale = (position >= 0) & (kind == Kind.SAME)
        stale[stale] = self.state.snapshot.flags[position[stale]] & changes.Flag.STALE != 0
        moved = (Kind.CHANGED, Kind.RETURNED, Kind.REMAPPED, Kind.SAME)[: 4 if self.match_moved else 2]
        movable = (np.isin(kind, moved) & (position >= 0)) | stale
        movable[movable] = ~self.lent(rows[movable])
        self.operation[rows[~movable]] = _OPERATIONS.index(Operation.UPSERT)
        message = "the row changed, its record id is not known, and its match value may have changed with it"
        self.leave_out(self.by_record_id(rows[movable]), Fate.HELD, "MATCH_CHANGED", message)

    def match_records(self, rows: Positions, none_found: Operation | None, found: Operation = Operation.UPDATE) -> None:
        """Give rows their record by the match field; none, several and another row's are fates of their own."""
        match = self.mapping.match
        assert match is not None
        if not rows.size:
            return
        ids, several = self.found_by_match(rows)
        missing = ids_missing(ids) & ~several
        name = f"{self.schema.name}.{match.header}"
        self.leave_out(rows[several], Fate.AMBIGUOUS, "SEVERAL_RECORDS", f"several records hold this {name}")
        if none_found is None:
            self.leave_out(rows[missing], Fate.NO_MATCH, "NO_RECORD", f"no record holds this {name}")
        else:
            self.insert(rows[missing])
        matched = ~missing & ~several
        rows, ids = rows[matched], ids.filter(pa.array(matched))
        twice = repeated(ids) if found is Operation.DELETE else self.claimed(ids)
        message = "another row of the model has the same record"
        self.leave_out(rows[twice], Fate.AMBIGUOUS, "RECORD_CLAIMED_TWICE", message)
        self.operation[rows[~twice]] = _OPERATIONS.index(found)
        whole = self.record_ids.to_numpy(zero_copy_only=False).copy()
        whole[rows] = ids.to_numpy(zero_copy_only=False)
        self.record_ids = pa.array(whole, pa.utf8())

    def claimed(self, ids: pa.Array) -> npt.NDArray[np.bool_]:
        """Which of these records, found by match values, belong to another row: a known one of the segment, sent, back
        or unchanged, which keeps it, or one found just now, of which neither is a pick."""
        updated = self.record_ids.filter(pa.array(self.operation == _OPERATIONS.index(Operation.UPDATE)))
        sent: npt.NDArray[np.bool_] = pc.is_in(ids, value_set=updated).to_numpy(zero_copy_only=False)
        return repeated(ids) | sent | (self.holders(ids) > 0)

    def lent(self, rows: Positions) -> npt.NDArray[np.bool_]:
        """Which known rows' records another row of the segment has too: it found them by their match value while the
        key was away, so now this one is to find its record by its own."""
        asked: npt.NDArray[np.bool_] = self.found.kind[rows] == Kind.RETURNED
        if self.activation.on_removed != "ignore":  # only then does a key leave without being marked as left
            asked |= self.found.kind[rows] == Kind.CHANGED
        asked &= self.found.position[rows] >= 0
        if not asked.any():
            return np.zeros(len(rows), np.bool_)
        ids = self.record_ids.take(pa.array(rows[asked]))
        here = self.state.snapshot.flags[self.found.position[rows[asked]]] & changes.Flag.LEFT == 0
        asked[asked] = (self.holders(ids) - here > 0) | (repeated(ids) & ~ids_missing(ids))
        return asked

    def holders(self, ids: pa.Array) -> Positions:
        """How many known rows of the segment have each of these records, as the snapshot says."""
        snapshot, distinct = self.state.snapshot, pc.unique(ids.drop_null())
        present = np.asarray(snapshot.flags) & changes.Flag.LEFT == 0
        present[self.found.left] = False
        positions = np.flatnonzero(present) if len(distinct) else np.empty(0, np.int64)
        counts: Positions = np.zeros(len(distinct) + 1, np.int64)  # the last is null's
        for start in range(0, len(positions), _CLAIM_ROWS):
            held = snapshot.record_ids(positions[start : start + _CLAIM_ROWS])
            found = pc.index_in(held, value_set=distinct).drop_null().to_numpy()
            counts += np.bincount(found, minlength=len(counts))
        of_each: Positions = counts[pc.index_in(ids, value_set=distinct).fill_null(len(distinct)).to_numpy()]
        return of_each

    def know_new_from_known(self) -> None:
        """Which rows make a record, as far as some fields are written on new records only, or on those alone that are
        there: an upsert by an external id does not tell, so the records are looked for."""
        self.makes = np.isin(self.operation, [_OPERATIONS.index(o) for o in (Operation.UPSERT, Operation.INSERT)])
        rows = np.flatnonzero(self.operation == _OPERATIONS.index(Operation.UPSERT))
        if not rows.size or not self.mapping.is_partial:
            return
        ids, several = self.found_by_match(rows)
        self.makes[rows] = ids_missing(ids) & ~several
        self.found_ids = _placed(ids, rows, self.size)

    def found_by_match(self, rows: Positions) -> tuple[pa.Array, npt.NDArray[np.bool_]]:
        """As `find_records`, of these rows."""
        assert self.mapping.match is not None
        wanted = self.spool.take(rows, ["match"])["match"].combine_chunks()
        return find_records(self.destination, self.schema.name, self.mapping.match.field, wanted)

    def fixed_notes(self) -> list[str]:
        """What is said of known rows whose record has another value in a field that is written on new records only."""
        fixed = [column for column in self.mapping.columns if not column.goes(False)]
        rows = np.flatnonzero((self.operation != 0) & ~self.makes & ~self.only_added)
        if not fixed or not rows.size:
            return []
        ids = pc.coalesce(self.record_ids, self.found_ids).take(pa.array(rows))
        rows, ids = rows[~ids_missing(ids)][:FIXED_ROWS_MAX], ids.drop_null()[:FIXED_ROWS_MAX]
        names = tuple(column.written.name for column in fixed)
        held = self.destination.read_many(self.schema.name, names, pc.unique(ids))
        place = pc.index_in(ids, value_set=held["Id"].combine_chunks())
        there = pc.is_valid(place)
        rows, place, notes = rows[there.to_numpy(zero_copy_only=False)], place.filter(there), []
        for column in fixed:
            wanted = self.spool.take(rows, [column.header])[column.header].combine_chunks()
            if column.lookup is not None:
                wanted = parents.find(column, self.schema.name, rows, wanted, self.destination).ids
            now = values.from_text(held[column.written.name].combine_chunks(), column.written).take(place)
            ours, theirs = compared(wanted, column.written), compared(now, column.written)
            same = pc.or_(pc.fill_null(pc.equal(ours, theirs), False), pc.and_(pc.is_null(ours), pc.is_null(theirs)))
            other = len(rows) - int(pc.sum(same.cast(pa.int64())).as_py() or 0)
            if other:
                notes.append(
                    f"{other:,} of {len(rows):,} known rows have another {self.schema.name}.{column.written.name} than "
                    "their record: Salesforce takes it on new records only, so it stays as it is there"
                )
        return notes

    # Parents

    def meet_parents(self) -> None:
        """Leave out rows whose parents are not there, or let them go without, as `missing_parent` says; let parents
        that are rows of this plan go first."""
        found = [self.after(link) for column in self.mapping.columns for link in self.link_of(column)]
        links, made_by = [link for link, _ in found], [maker for _, maker in found]
        for link, maker in zip(links, made_by, strict=True):
            self.leave_out(
                link.rows[link.several & (self.operation[link.rows] != 0)],
                Fate.AMBIGUOUS,
                PARENT_AMBIGUOUS,
                f"several {link.name} hold the parent's value",
                link.column.header,
            )
            self.miss(link, link.rows[link.missing & (maker < 0) & ~self.coming(link)])
        self.put_in_order(links, made_by)
        self.make_first(*self.waits_for(links, made_by))
        inserts = (self.operation == _OPERATIONS.index(Operation.INSERT)).any()
        by_id = [link for link in links if inserts or not link.column.field.identifies]
        self.parents = {link.column.written.name: _placed(link.ids, link.rows, self.size) for link in by_id}

    def link_of(self, column: Column) -> Iterator[Link]:
        """The parents that rows to be sent name by this column; none where it does not go with them."""
        if column.lookup is None:
            return
        goes = (self.operation != 0) & np.where(self.makes, column.goes(True), column.goes(False))
        for which, mapping in enumerate(self.older):
            if column.header not in self.mapping.added_since(mapping)[0]:
                goes &= ~(self.only_added & (self.found.older == which))
        rows = np.flatnonzero(goes)
        if rows.size:
            wanted = self.spool.take(rows, [column.header])[column.header].combine_chunks()
            yield parents.find(column, self.schema.name, rows, wanted, self.destination)

    def coming(self, link: Link) -> npt.NDArray[np.bool_]:
        """Which missing parents an earlier plan, not executed yet, will have created."""
        coming = np.zeros(len(link.rows), np.bool_)
        for arriving in self.arriving:
            if (arriving.object, arriving.field) == (link.object, link.column.field.name):
                here = pc.is_in(link.wanted, value_set=arriving.values).to_numpy(zero_copy_only=False)
                coming |= link.missing & here
        self.awaits_parents |= bool(coming.any())
        return coming

    def after(self, link: Link) -> tuple[Link, Positions]:
        """The link as the rows of this plan leave it, and which of them makes each parent; -1 for none."""
        name = (
            parents.maker_column(self.mapping, self.activation.mode, link) if link.object == self.schema.name else None
        )
        if name is None or link.wanted.null_count == len(link.wanted):
            return link, np.full(len(link.rows), -1, np.int64)
        rows = np.flatnonzero(self.operation)
        made = self.spool.take(rows, [name])[name].combine_chunks()
        if any(column.header == name and column.keep_nulls for column in self.mapping.columns):
            there = pc.is_valid(made)
            rows, made = rows[there.to_numpy(zero_copy_only=False)], made.filter(there)
        return parents.after(link, rows, made, self.written(rows, link, made if name == "match" else None))

    def written(self, rows: Positions, link: Link, matched: pa.Array | None) -> pa.Array:
        """The record that each of these rows is written to; null for a new one. An upsert finds it by the match value;
        where that is what parents are named by (`matched`), the link has asked for the records in question."""
        upserted = rows[self.operation[rows] == _OPERATIONS.index(Operation.UPSERT)]
        if not upserted.size:
            return self.record_ids.take(pa.array(rows))
        if matched is None:
            ids, _ = self.found_by_match(upserted)
        else:
            asked = compared(matched.filter(pa.array(np.isin(rows, upserted))), link.column.field)
            ids = link.ids.take(pc.index_in(asked, value_set=link.wanted))
        by_match = _placed(ids, upserted, self.size)
        kept = pa.array(self.operation != _OPERATIONS.index(Operation.UPSERT))
        return pc.if_else(kept, self.record_ids, by_match).take(pa.array(rows))

    def miss(self, link: Link, rows: Positions) -> None:
        """What becomes of rows whose parent is missing."""
        rows = rows[self.operation[rows] != 0]
        known = self.lacking[rows] & (self.found.kind[rows] == Kind.SAME)
        policy, header = self.activation.missing_parent, link.column.header
        if policy == "set_null":
            lost, rows = rows[~known], rows[known]
            self.emptied.setdefault(header, np.zeros(self.size, np.bool_))[lost] = True
            self.unfinished[lost] = True
        fate = Fate.REJECTED if policy == "reject" else Fate.HELD
        self.leave_out(rows, fate, PARENT_MISSING, f"no {link.name} holds the parent's value yet", header)

    def put_in_order(self, links: Sequence[Link], made_by: Sequence[Positions]) -> None:
        """Rows whose parents this plan makes go after those; a circle goes twice, first without its parents. What an
        insert could not mend afterwards, and what is too deep for one run, is held."""
        while True:
            self.lose_orphans(links, made_by)
            children, makers = self.waits_for(links, made_by)
            self.level = parents.levels(children, makers, self.size)
            inserted = self.operation == _OPERATIONS.index(Operation.INSERT)
            circle, deep = (self.level == CIRCLE) & inserted, self.level == parents.LEVELS_MAX
            if not circle.any() and not deep.any():
                return
            self.leave_out(np.flatnonzero(circle), Fate.HELD, PARENT_MISSING, _IN_A_CIRCLE)
            self.leave_out(np.flatnonzero(deep), Fate.HELD, PARENT_MISSING, _TOO_DEEP)

    def lose_orphans(self, links: Sequence[Link], made_by: Sequence[Positions]) -> None:
        """Parents that this plan was to make and does not send are missing, and so are those behind them."""
        while True:
            children, makers = self.waits_for(links, made_by)
            lost = np.unique(children[self.operation[makers] == 0])
            if not lost.size:
                return
            gone = np.zeros(self.size, np.bool_)
            if self.activation.missing_parent != "set_null":
                gone = parents.behind(lost, children, makers, self.size)
            gone[lost] = True
            for link, maker in zip(links, made_by, strict=True):
                unmade = (maker >= 0) & gone[link.rows]
                if self.activation.missing_parent == "set_null":
                    unmade &= self.operation[maker] == 0
                self.miss(link, link.rows[unmade])

    def make_first(self, children: Positions, makers: Positions) -> None:
        """Rows that make records go twice where a field is written only on records that are there; so do those that
        wait for them. What an insert makes is finished by the next run."""
        if all(each.goes(True) for each in self.mapping.sent):
            return
        self.unfinished |= self.operation == _OPERATIONS.index(Operation.INSERT)
        first = np.flatnonzero(self.makes & (self.operation == _OPERATIONS.index(Operation.UPSERT)))
        self.level[first] = CIRCLE
        self.level[parents.behind(first, children, makers, self.size)] = CIRCLE

    def waits_for(self, links: Sequence[Link], made_by: Sequence[Positions]) -> tuple[Positions, Positions]:
        """Rows that are sent with a parent which this plan makes, and the rows that make it: parallel."""
        none = np.empty(0, np.int64)
        children, makers = [none], [none]
        for link, maker in zip(links, made_by, strict=True):
            waits = (maker >= 0) & (self.operation[link.rows] != 0)
            if link.column.header in self.emptied:
                waits &= ~self.emptied[link.column.header][link.rows]
            children.append(link.rows[waits])
            makers.append(maker[waits])
        return np.concatenate(children), np.concatenate(makers)

    # Leavers

    def see_off(self, ceilings: Ceilings) -> list[str]:
        """Sort out the keys that left. Where no row was read nothing is done to a record, whatever the guards say. What
        is to be told of those whose records stay, although `on_removed` asks for more."""
        left, state = self.found.left, self.state
        if self.activation.on_removed == "ignore" or self.activation.mode is Mode.DELETE or not self.found.read:
            self.leavers = Leavers(noted=left)
            return []
        most = guards.deletes_max(self.activation.guards, changes.present(state.snapshot), ceilings.allow_deletes)
        self.leavers = leavers.sort_out(
            left,
            state.snapshot,
            self.waits,
            flying=self.leavers_flying,
            shared=lambda ids: self.shared(ids, most),
            moved=lambda positions: self.moved(positions, ceilings),
            retry=ceilings.full,
        )
        for code, keys in self.leavers.held:
            (code,), (waiting,) = (told.to_pylist() for told in _told_waits(pa.array([code])))
            message = _LEAVERS_HELD.get(code, waiting)
            self.waiting += len(keys) if code not in (*_LEAVERS_HELD, changes.GIVEN_UP) else 0
            texts = [pa.repeat(text, len(keys)) for text in (Fate.HELD.value, code, message)]
            nothing = pa.nulls(len(keys), pa.utf8())
            self.asides.append(pa.table([keys, *texts, nothing, nothing, texts[2]], schema=LEFT_OUT))
        return [_not_ours(self.activation.name, len(self.leavers.noted))] if len(self.leavers.noted) else []

    def leavers_flying(self, positions: Positions) -> npt.NDArray[np.bool_]:
        flying, snapshot = np.zeros(len(positions), np.bool_), self.state.snapshot
        for batch in self.state.in_flight:
            rows = np.flatnonzero(np.isin(snapshot.kh[positions], batch.kh))
            flying[rows] |= pc.is_in(snapshot.keys(positions[rows]), value_set=batch.keys).to_numpy(
                zero_copy_only=False
            )
        return flying

    def moved(self, left: Positions, ceilings: Ceilings) -> npt.NDArray[np.bool_]:
        """Which of the keys that left are here under another one, in another spelling or by their values, in a row that
        is not sent: nothing else would be left of them."""
        if not left.size:
            return np.zeros(0, np.bool_)
        aside, new = self.found.aside, self.new & (self.operation == 0)
        if self.holds_respelled(ceilings):
            new[self.respelled] = True
        rows = np.flatnonzero(new)
        snapshot = self.state.snapshot
        has_record = np.asarray(snapshot.flags) & changes.Flag.UNKNOWN == 0  # else it may have been made, or not
        unknown = ~np.isin(aside["kh"].to_numpy(), snapshot.kh[has_record])
        keys = pa.concat_arrays([aside["key"].combine_chunks().filter(pa.array(unknown)), self.keys_of(rows)])
        same = pc.is_in(self.mapping.spelling(snapshot.keys(left)), value_set=self.mapping.spelling(keys))
        moved: npt.NDArray[np.bool_] = same.to_numpy(zero_copy_only=False)
        if rows.size and self.values_tell:
            own = np.full(len(rows), -1)
            moved |= np.isin(left, carried.find(self.mappings, snapshot, self.spool, rows, own, left).slots)
        return moved

    def shared(self, ids: pa.Array, most: int) -> npt.NDArray[np.bool_]:
        """Which of these records another row of the segment has, or will have once it is sent: by record id, or because
        the record holds its match value, as it does where only the key of a row changed.

        Records are asked for their match values only where a row could have one of them, and not beyond `most` and a
        few calls: such a plan is refused as it is.
        """
        if not len(ids):
            return np.zeros(0, np.bool_)
        own = pc.is_in(ids, value_set=self.record_ids.drop_null()).to_numpy(zero_copy_only=False)
        taken: npt.NDArray[np.bool_] = (self.holders(ids) > 0) | own | self.state.held_elsewhere(ids)
        match, open_ids = self.mapping.match, ids.filter(pa.array(~taken))
        if match is None or not 0 < len(open_ids) <= max(most, COLLECTIONS_ROWS_MAX):
            return taken
        wanted = self.match_hashes_without_record()
        if len(wanted):
            held = open_ids if match.header == "Id" else self.held_matches(open_ids, match.field)
            claimed = np.isin(changes.match_hash(held, match.field), wanted)
            taken[np.flatnonzero(~taken)] = claimed & pc.is_valid(held).to_numpy(zero_copy_only=False)
        return taken

    def match_hashes_without_record(self) -> Hashes:
        """The match values of the rows whose record is not known: to be sent, left out or waiting."""
        assert self.mapping.match is not None
        aside: Hashes = self.found.aside["mh"].drop_null().to_numpy()
        rows = np.flatnonzero(ids_missing(self.record_ids))
        if not rows.size:
            return aside
        spooled = self.spool.take(rows, ["match"])["match"].combine_chunks()
        return np.concatenate([aside, changes.match_hash(spooled, self.mapping.match.field)])

    def held_matches(self, ids: pa.Array, by: Field) -> pa.Array:
        """The match value that each record holds in Salesforce now; null for a record that is gone."""
        records = self.destination.read_many(self.schema.name, (by.name,), ids)
        held = records[by.name].combine_chunks()
        return values.from_text(held.take(pc.index_in(ids, value_set=records["Id"].combine_chunks())), by)

    def leave_out(self, rows: Positions, fate: Fate, code: str, message: str, header: str | None = None) -> None:
        if not rows.size:
            return
        self.operation[rows] = 0
        count = len(rows)
        keys = self.spool.take(np.sort(rows), ["key"])["key"]
        texts = [pa.array([text] * count, pa.utf8()) for text in (fate.value, code, message, header)]
        self.asides.append(pa.table([keys, *texts, pa.nulls(count, pa.utf8()), texts[2]], schema=LEFT_OUT))
        self.without[fate] = self.without.get(fate, 0) + count

    def known_left_out(self) -> int:
        known = (self.found.position >= 0) & (self.found.kind != Kind.DROPPED)
        return int(np.count_nonzero(known & (self.operation == 0)))

    def left_out(self) -> pa.Table:
        return pa.concat_tables(self.asides)

    def effect(self) -> Effect:
        """What the rows that would be sent do, as guards look at it."""
        snapshot, found, sent = self.state.snapshot, self.found, self.operation != 0
        deleting = self.activation.mode is Mode.DELETE
        came = np.flatnonzero(sent & self.new)
        self.find_carried(came)
        return Effect(
            known=len(snapshot.kh),
            present=changes.present(snapshot),
            created=len(came),
            changed=found.kh[self.rewritten()],
            remapped=int(np.count_nonzero(sent & (found.kind == Kind.REMAPPED))),
            removed=int(np.count_nonzero(sent)) if deleting else len(self.leavers.removing),
            left=snapshot.kh[found.left],
            away=snapshot.kh[found.away],
            respelled=len(self.respelled) + len(self.alike),
            shifted=self.shifted,
            admitted=max(0, self.state.admitted - len(snapshot.kh)),
        )

    @property
    def mappings(self) -> tuple[Mapping, ...]:
        """Those that the snapshot may hold rows of, today's first."""
        return (self.mapping, *self.older)

    @property
    def new(self) -> npt.NDArray[np.bool_]:
        """Rows whose key is not known."""
        new: npt.NDArray[np.bool_] = self.found.kind == Kind.ADDED
        return new

    def keys_of(self, rows: Positions) -> pa.Array:
        return self.spool.take(rows, ["key"])["key"].combine_chunks() if rows.size else pa.array([], pa.utf8())

    def find_respelled(self) -> None:
        """New keys, of rows that are sent, which are another spelling of one that left, now or at any time before."""
        came = np.flatnonzero(self.new & (self.operation != 0))
        gone = np.concatenate([self.found.left, self.found.away])
        if self.activation.mode is Mode.DELETE or not (came.size and gone.size):
            return
        keys, left = self.keys_of(came), self.state.snapshot.keys(gone)
        again, pairs = respelled(left, keys, self.mapping.spelling)
        self.respelled = came[again]
        self.replacing = tuple(pairs or zip(left[:5].to_pylist(), keys[:5].to_pylist(), strict=False))

    def holds_respelled(self, ceilings: Ceilings) -> bool:
        return self.activation.mode is Mode.INSERT and len(self.respelled) > ceilings.allow_replaced

    def hold_respelled(self) -> None:
        """An insert makes no second record of a row whose key is told in another way: a person says which it is."""
        name, rows = self.activation.name, self.respelled
        message = (
            f"the key is another spelling of one that left. The same row: dinmo-dbt state rekey {name}; a row of its "
            f"own: dinmo-dbt sync -s {name} --allow-replaced {len(rows)}"
        )
        self.leave_out(rows, Fate.HELD, leavers.KEY_RESPELLED, message)
        self.respelled = rows[:0]

    @property
    def makes_by_key(self) -> bool:
        """Whether a row under another key makes another record."""
        match = self.mapping.match
        by_key = match is not None and match.source in self.mapping.key
        return self.activation.mode is Mode.INSERT or (self.activation.mode is Mode.UPSERT and by_key)

    @property
    def values_tell(self) -> bool:
        """Whether a row under another key is known by its values. Where each day has other rows (`max_replaced: 100%`),
        they may be those of yesterday."""
        present = changes.present(self.state.snapshot)
        return self.makes_by_key and self.activation.guards.max_replaced.limit(present) < present

    def find_carried(self, came: Positions) -> None:
        """New keys with the values of one that left, and known keys with those of another: where such rows would be
        made once more."""
        self.alike, self.shifted = came[:0], 0
        if not self.makes_by_key:
            return
        inserting = self.activation.mode is Mode.INSERT
        found, snapshot = self.found, self.state.snapshot
        gone = np.concatenate([found.left, found.away])
        other = inserting & (found.position >= 0) & np.isin(found.kind, (Kind.CHANGED, Kind.DROPPED))
        rows = np.union1d(came, np.flatnonzero(other))
        moved = carried.find(self.mappings, snapshot, self.spool, rows, found.position[rows], gone)
        anew = np.isin(moved.rows, came) & np.isin(moved.slots, gone)
        self.shifted = int(np.count_nonzero(~anew))
        if anew.any() and self.values_tell:
            self.alike = np.setdiff1d(moved.rows[anew], self.respelled)
            old = snapshot.keys(moved.slots[anew][:5]).to_pylist()
            new = self.keys_of(moved.rows[anew][:5]).to_pylist()
            self.replacing = tuple(zip(old, new, strict=True))

    def rewritten(self) -> Positions:
        """Known rows that are sent with values that Salesforce did not acknowledge last. Of those that are the same, as
        --full sends them, that is so where the snapshot says nothing."""
        kind, position = self.found.kind, self.found.position
        rewritten = np.isin(kind, (Kind.CHANGED, Kind.RETURNED))
        same = np.flatnonzero((kind == Kind.SAME) & (position >= 0))
        rewritten[same] = self.state.snapshot.flags[position[same]] & changes.Flag.STALE != 0
        rows: Positions = np.flatnonzero(rewritten & (self.operation != 0))
        return rows

    def counted(self, passed: frozenset[Counted]) -> npt.NDArray[np.uint8]:
        """As what each row counts for the day."""
        counted = np.zeros(self.size, np.uint8)
        if self.activation.mode is Mode.DELETE:
            counted[:] = Counted.REMOVED
        else:
            counted[self.found.kind == Kind.ADDED] = Counted.CREATED
            counted[self.respelled] = counted[self.alike] = Counted.RESPELLED
            counted[self.rewritten()] = Counted.CHANGED
        created = int(np.count_nonzero(np.isin(counted, (Counted.CREATED, Counted.RESPELLED))))
        if not self.state.exists or created <= self.state.admitted - len(self.state.snapshot.kh):
            passed |= {Counted.CREATED}  # of a first sync, or let through before
        counted[np.isin(counted, [int(each) for each in passed])] = Counted.NOT
        return counted

    def counts(self) -> Counts:
        found = self.found
        return Counts(
            read=found.read,
            unchanged=found.unchanged,
            added=found.count(Kind.ADDED),
            changed=found.count(Kind.CHANGED),
            remapped=found.count(Kind.REMAPPED),
            returned=found.count(Kind.RETURNED),
            resent=found.count(Kind.SAME),
            left=len(found.left),
            planned=int(np.count_nonzero(self.operation)),
            invalid=self.without.get(Fate.INVALID, 0),
            rejected=self.without.get(Fate.REJECTED, 0),
            no_match=self.without.get(Fate.NO_MATCH, 0),
            ambiguous=self.without.get(Fate.AMBIGUOUS, 0),
            held=self.without.get(Fate.HELD, 0),
            in_flight=self.in_flight,
            waiting=self.waiting,
            removing=len(self.leavers.removing),
            removal_held=self.leavers.held_rows,
            removal_in_flight=self.leavers.in_flight,
        )

    # Batches

    @property
    def only_added(self) -> npt.NDArray[np.bool_]:
        """Rows that send the fields which joined the mapping, and no other. Where the record was only just found, or is
        made anew, nothing tells that it has the others; and a row may lack some."""
        only: npt.NDArray[np.bool_] = (self.found.kind == Kind.REMAPPED) & self.known_ids & (not self.match_moved)
        return only & ~self.lacking

    def batches(self) -> Iterator[PlannedBatch]:
        total = int(np.count_nonzero(self.operation)) + len(self.leavers.removing)
        for level in np.unique(self.level[(self.operation != 0) & (self.level != CIRCLE)]).tolist():
            yield from self.of_level(self.level == level, total, awaits=level > 0)
        circle = self.level == CIRCLE
        yield from self.of_level(circle, total, foregoing=True)
        self.makes &= ~circle  # by then they are there
        yield from self.of_level(circle, total, awaits=True)
        yield from self.removals(total)

    def of_level(
        self, here: npt.NDArray[np.bool_], total: int, *, awaits: bool = False, foregoing: bool = False
    ) -> Iterator[PlannedBatch]:
        """The batches of these rows, each of one operation and with the same columns."""
        for number, operation in enumerate(_OPERATIONS):
            if operation is None:
                continue
            doing = here & (self.operation == number)
            for makes in (True, False):
                rows = np.flatnonzero(doing & (self.makes == makes) & ~self.only_added)
                columns = self.payload(operation, makes=makes, awaits=awaits, foregoing=foregoing)
                for batch in self.cut(operation, rows, columns, total):
                    yield replace(batch, awaits=awaits, foregoing=foregoing)
            for which, mapping in enumerate(self.older):
                rows = np.flatnonzero(doing & self.only_added & (self.found.older == which))
                only = self.mapping.added_since(mapping)
                columns = self.payload(operation, makes=False, awaits=awaits, foregoing=foregoing, only=only)
                for batch in self.cut(operation, rows, columns, total):
                    yield replace(batch, awaits=awaits, foregoing=foregoing)

    def removals(self, total: int) -> Iterator[PlannedBatch]:
        """What `on_removed` does, after everything else: rows that pointed to such a record have let go of it by then
        (a detail would be deleted with its master), and nothing is deleted in a run that could not deliver the rest.
        """
        columns = (PayloadColumn("Id", _ID), *(constant.payload() for constant in self.mapping.removed))
        operation = Operation.UPDATE if self.mapping.removed else Operation.DELETE
        texts = [values.text(c.value, c.field)[0].as_py() for c in self.mapping.removed]
        wanted = self.activation.api
        by_bulk = wanted == "bulk" or (wanted == "auto" and total > COLLECTIONS_ROWS_MAX)
        api = Api.BULK if by_bulk and values.BULK_NULL not in texts else Api.COLLECTIONS
        size = 32 + sum(2 * len((text or values.BULK_NULL).encode()) + 3 for text in texts)
        fitting = max(1, (BULK_BYTES_MAX - 32_000) // size)
        most = min(fitting, BULK_ROWS_MAX) if api is Api.BULK else COLLECTIONS_ROWS_MAX
        rows: Positions = np.arange(len(self.leavers.removing))
        for start in range(0, len(rows), most):
            yield PlannedBatch(operation, api, columns, None, rows[start : start + most], leavers=True)

    def cut(
        self, operation: Operation, rows: Positions, columns: tuple[PayloadColumn, ...], total: int
    ) -> Iterator[PlannedBatch]:
        if not rows.size:
            return
        match = self.mapping.match.header if self.mapping.match and operation is Operation.UPSERT else None
        by_bulk = self.by_bulk(operation, rows, total)
        constants = [values.text(c.value, c.field)[0].as_py() or values.BULK_NULL for c in self.mapping.constants]
        fixed = sum(2 * len(text.encode()) + 3 for text in constants) + 19 * len(self.parents)
        for api in Api:
            here = rows[by_bulk] if api is Api.BULK else rows[~by_bulk]
            for part in cuts(self.found.width[here].astype(np.int64) + fixed, api):
                yield PlannedBatch(operation, api, columns, match, here[part])

    def by_bulk(self, operation: Operation, rows: Positions, total: int) -> npt.NDArray[np.bool_]:
        if operation is Operation.INSERT:
            return np.ones(len(rows), np.bool_)
        unsafe = operation is Operation.DELETE and self.schema.key_prefix is None
        if not unsafe and goes_by_collections(self.activation, total):
            return np.zeros(len(rows), np.bool_)
        if operation is Operation.DELETE:
            return np.ones(len(rows), np.bool_)
        # #N/A as a text means null in a CSV file; in JSON it is itself, and a row may be longer.
        fits: npt.NDArray[np.bool_] = self.found.no_bulk[rows] == 0
        return fits

    def payload(
        self,
        operation: Operation,
        *,
        makes: bool,
        awaits: bool,
        foregoing: bool,
        only: tuple[frozenset[str], frozenset[str]] | None = None,
    ) -> tuple[PayloadColumn, ...]:
        """The columns of a batch. `makes`: its rows make records; `awaits`: parents of their own object may not be
        there yet; `foregoing`: they go without those; `only`: these headers of columns and constants alone."""
        match = self.mapping.match
        columns: list[PayloadColumn] = []
        headers = {column.header for column in self.mapping.columns}
        if operation in (Operation.UPDATE, Operation.DELETE):
            columns.append(PayloadColumn("Id", _ID))
        carries_match = only is None and self.activation.mode is Mode.UPSERT
        if match and match.header != "Id" and carries_match and match.header not in headers:
            columns.append(match.payload())
        for column in self.mapping.columns:
            own = column.lookup is not None and parents.object_of(column) == self.schema.name
            if (only is None or column.header in only[0]) and column.goes(makes) and not (foregoing and own):
                by_id = operation is Operation.INSERT or not column.field.identifies
                resolved = by_id and column.lookup is not None and not (own and awaits)
                columns.append(column.by_id() if resolved else column.payload())
        of_all = [c for c in self.mapping.constants if c.goes(makes)]
        return (*columns, *(c.payload() for c in of_all if only is None or c.header in only[1]))


# In this order: a row whose match value moved lets go of the old value before another row may claim it.
_OPERATIONS: tuple[Operation | None, ...] = (
    None,
    Operation.UPDATE,
    Operation.UPSERT,
    Operation.INSERT,
    Operation.DELETE,
)
_CLAIM_ROWS = 1 << 20
FIXED_ROWS_MAX = 2_000  # known rows whose record is looked at for fields that are written on new records only
_ID = Field(name="Id", label="Record ID", type="id", length=18, nillable=False, id_lookup=True)
_WAITING = "Salesforce refused it in an earlier run, and it waits to be tried again"
_IN_A_CIRCLE = "its parent is itself, or a row that waits for it: an insert can't point to it (mode: upsert can)"
_TOO_DEEP = f"its parents are more than {parents.LEVELS_MAX} levels deep, and not there yet: the next run sends more"
_LEAVERS_HELD = {
    leavers.RECORD_ID_UNKNOWN: "the row left the segment, and its record id is not known: its record stays as it is",
    leavers.KEY_RESPELLED: "the row left the segment, but is there under another key, and not sent: its record "
    "stays as it is",
    leavers.RECORD_SHARED: "the row left the segment, but another row, activation or dbt target has its record: "
    "that stays as it is",
}


def _told_waits(codes: pa.Array | pa.ChunkedArray) -> tuple[pa.Array, pa.Array]:
    """Of rows that wait (`Pending.codes`): the code of each, and what is said of it."""
    codes = codes.combine_chunks() if isinstance(codes, pa.ChunkedArray) else codes
    each = codes.dictionary_encode()
    told, said = [], []
    for code in each.dictionary.to_pylist():
        word, _, rest = code.partition(" ")
        day, _, refusal = rest.partition(" ")
        told.append(word)
        why = f"Salesforce refuses it since {day}" + (f" ({refusal})" if refusal else "")
        said.append(f"{why}: it is tried again when its values change" if word == changes.GIVEN_UP else _WAITING)
    messages = pa.array(said, pa.utf8()).take(each.indices).fill_null(_WAITING)
    return pa.array(told, pa.utf8()).take(each.indices), messages


def _not_ours(name: str, number: int) -> str:
    """Of keys that left, of whose records nothing tells that they are this activation's, or nothing does any more."""
    rows = "1 row" if number == 1 else f"{number:,} rows"
    return (
        f"{rows} left the segment, and on_removed leaves the records as they are: this activation neither created nor "
        f"adopted them. Those of rows that are still there are taken over by dinmo-dbt state reset {name}, then "
        f"dinmo-dbt state adopt {name} --yes"
    )


def goes_by_collections(activation: Activation, total: int) -> bool:
    """Whether that many rows, where they can go either way, go by collections."""
    return activation.api == "collections" or (activation.api == "auto" and total <= COLLECTIONS_ROWS_MAX)


def cuts(width: npt.NDArray[np.int64], api: Api) -> Iterator[slice]:
    """Where to cut rows of these CSV sizes, so that each part is one batch; a part has at least one row."""
    rows_max = BULK_ROWS_MAX if api is Api.BULK else COLLECTIONS_ROWS_MAX
    start = 0
    while start < len(width):
        size = np.cumsum(width[start : start + rows_max])
        end = start + max(1, int(np.searchsorted(size, BULK_BYTES_MAX - 32_000, side="right")))
        yield slice(start, end)
        start = end


def _placed(ids: pa.Array, rows: Positions, size: int) -> pa.Array:
    """Ids of some rows as a column over `size` rows, null for the others."""
    place = np.full(size, -1, np.int64)
    place[rows] = np.arange(len(rows))
    return ids.take(pa.array(place, mask=place < 0))


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
        foregoing=planned.foregoing,
    )
