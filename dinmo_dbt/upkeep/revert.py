"""Before-images x what Salesforce holds now -> Reversal: what brings back the values a run overwrote. Writes nothing.

A record goes back only as a whole, and only where each field that the run wrote holds what it sent, or what it held
before. Where somebody else wrote since, a person or a later run, it is left alone and named. `execute` sends what was
drawn, by the delivery of a sync.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dinmo_dbt.activation import Activation
from dinmo_dbt.clock import Clock
from dinmo_dbt.codes import MAX_DELETE
from dinmo_dbt.delivery import sync
from dinmo_dbt.delivery.images import BEFORE, SENT, fingerprint
from dinmo_dbt.delivery.journal import Journal
from dinmo_dbt.delivery.run import Progress, SyncRun
from dinmo_dbt.destination import Api, Batch, Destination, Fate, Field, ObjectSchema, Operation, PayloadColumn
from dinmo_dbt.errors import Problem, Refused
from dinmo_dbt.plan import leavers
from dinmo_dbt.plan.batches import cuts, goes_by_collections
from dinmo_dbt.plan.guards import deletes_max
from dinmo_dbt.plan.plan import LEFT_OUT, Counts
from dinmo_dbt.rows import values
from dinmo_dbt.rows.rowhash import as_arrow
from dinmo_dbt.rows.sets import union
from dinmo_dbt.rows.snapshot import Flag, Positions, Snapshot, keys_in_segment, positions_of, snapshot_rows, stale_rows
from dinmo_dbt.rows.texts import BULK_NULL

Rows = npt.NDArray[np.bool_]
_HELD_ROWS = 1 << 20

# Why a row of the run is left alone: its fate and what is said of it.
CONFLICT, DELETED, GONE, UNNAMED = "CONFLICT", "DELETED", "RECORD_GONE", "RECORD_UNKNOWN"
SHARED, FIELDS_SHARED = leavers.RECORD_SHARED, "FIELDS_SHARED"
_WHY = {
    CONFLICT: (Fate.HELD, "Salesforce no longer holds what the run wrote: somebody wrote since"),
    DELETED: (Fate.HELD, "the run deleted the record; only the Recycle Bin can bring it back"),
    GONE: (Fate.NO_MATCH, "the record is gone"),
    UNNAMED: (Fate.HELD, "Salesforce has not said which record this row made, if it made one"),
    SHARED: (
        Fate.HELD,
        "the run created the record, and another row, activation or dbt target has it: it stays while they do",
    ),
    FIELDS_SHARED: (
        Fate.HELD,
        "another activation or dbt target keeps the record and writes fields of the run to it: they stay while it does",
    ),
}


@dataclass(frozen=True)
class Reversal:
    """What undoes a run: batches to send, rows left alone and why, and what the snapshot may no longer vouch for.

    `conflicts`: record id and comma-joined fields of each row left alone for CONFLICT. `fixed`: fields that can't be
    updated now, which stay as they are. `moves` are snapshot rows for `Journal.amend`, before anything is sent.
    """

    run_id: str
    schema: ObjectSchema
    batches: tuple[Batch, ...]
    left_alone: pa.Table
    moves: pa.Table
    counts: Counts
    restored: int
    deleted: int
    fixed: tuple[str, ...]
    refusal: Problem | None = None


def draw(
    image: pa.Table,
    run_id: str,
    activation: Activation,
    destination: Destination,
    state: State,
    *,
    undelivered: pa.Table,
    allow_deletes: int = 0,
) -> Reversal:
    """How to undo a run, from its before-images and the rows it did not deliver (`LEFT_OUT`)."""
    return _RevertWork(image, run_id, activation, destination, state, undelivered).reversal(allow_deletes)


def execute(
    reversal: Reversal, destination: Destination, journal: Journal, clock: Clock, *, run: SyncRun, progress: Progress
) -> SyncRun:
    """Send the reversal's batches. Raises Refused for a refused one.

    The snapshot stops vouching for the rows before anything is sent, so whatever ends the run, the next sync sends the
    model's values for them again. The run keeps before-images of its own.
    """
    if reversal.refusal:
        raise Refused.of(reversal.refusal)
    run.plan_counts = reversal.counts
    run.not_delivered.append(reversal.left_alone)
    journal.amend(reversal.moves)
    sync.deliver(reversal.batches, destination, journal, clock, run=run, progress=progress, keeps_images=True)
    run.check_counts()
    return run


@dataclass(frozen=True)
class _WrittenField:
    """One field that the run wrote: which rows it wrote, what to bring back, and where Salesforce stands now."""

    field: Field
    rows: Rows
    before: pa.Array  # canonical
    is_before: Rows
    is_sent: Rows


class State(Protocol):
    """What a state knows of the activation's records, and of others' in the org."""

    @property
    def snapshot(self) -> Snapshot: ...

    def held_elsewhere(self, record_ids: pa.Array, fields: Collection[str] | None = None) -> npt.NDArray[np.bool_]:
        """Which of these records a row has that another activation, or another dbt target, keeps in this org; with
        `fields`, one that writes any of them."""


class _RevertWork:
    def __init__(
        self,
        image: pa.Table,
        run_id: str,
        activation: Activation,
        destination: Destination,
        state: State,
        undelivered: pa.Table,
    ) -> None:
        self.image, self.run_id, self.activation, self.snapshot = image, run_id, activation, state.snapshot
        self.schema = destination.describe(activation.object)
        self.size = len(image)
        self.record_ids = image["record_id"].combine_chunks()
        names = [name.removeprefix(SENT) for name in image.column_names if name.startswith(SENT)]
        readable = [field for name in names if (field := self.schema.field(name)) is not None]
        ids = pc.unique(self.record_ids.drop_null())
        held = destination.read_many(activation.object, [field.name for field in readable], ids)
        place = pc.index_in(self.record_ids, value_set=held["Id"].combine_chunks())
        named = _bools(pc.is_valid(self.record_ids))
        self.there = named & _bools(pc.is_valid(place))
        place = pc.if_else(pa.array(self.there), place, pa.scalar(None, pa.int32()))
        written = [self.written(field, held[field.name].combine_chunks().take(place)) for field in readable]
        self.fields = [one for one in written if one.field.updateable]
        self.fixed = tuple(n for n in names if n not in [one.field.name for one in self.fields])
        self.slot = positions_of(self.snapshot, image["kh"].to_numpy(), image["key"].combine_chunks())
        self.is_known = self.known()
        self.holders = self.held_by()
        self.sort_out(named, undelivered)
        self.leave_to_others(state)

    def written(self, field: Field, now: pa.Array) -> _WrittenField:
        before = values.printed(self.image[BEFORE + field.name].combine_chunks(), field)
        sent = self.image[SENT + field.name].combine_chunks()
        held, was = (fingerprint(array, field, self.run_id) for array in (values.printed(now, field), before))
        is_sent = _bools(pc.fill_null(pc.equal(held, sent), False))
        return _WrittenField(field, _bools(pc.is_valid(sent)), before, _bools(pc.equal(held, was)), is_sent)

    def sort_out(self, named: Rows, undelivered: pa.Table) -> None:
        """What becomes of each row: restored, its new record deleted, left alone for a reason, or nothing to do."""
        existed = _bools(self.image["existed"])
        deleting, making = (self.did(*ops) for ops in ((Operation.DELETE,), (Operation.UPSERT, Operation.INSERT)))
        nothing = np.zeros(self.size, np.bool_)
        self.foreign = [(one, one.rows & ~one.is_before & ~one.is_sent) for one in self.fields]
        conflict = np.logical_or.reduce([nothing, *(rows for _, rows in self.foreign)])
        differs = np.logical_or.reduce([nothing, *(one.rows & ~one.is_before for one in self.fields)])
        unsent = np.logical_or.reduce([nothing, *(one.rows & ~one.is_sent for one in self.fields)])

        overwritten, made = existed & ~deleting & self.there, ~existed & making & self.there
        self.restored = overwritten & differs & ~conflict
        self.deleted = made & ~unsent
        refused = pc.or_(
            pc.equal(undelivered["fate"], Fate.REJECTED.value), pc.equal(undelivered["code"], "UNPROCESSED")
        )
        never = pc.is_in(self.image["key"], value_set=undelivered.filter(refused)["key"].combine_chunks())
        self.left_alone = {
            CONFLICT: (overwritten & conflict) | (made & unsent),
            DELETED: existed & deleting & ~self.there,
            GONE: existed & ~deleting & ~self.there,
            UNNAMED: ~existed & making & ~named & ~_bools(never),
        }
        self.removed_since = ~existed & making & named & ~self.there

    def leave_to_others(self, state: State) -> None:
        """Delete no record that a row of another key, activation or target has, and put no field back that another
        activation or target writes to it: that one counts its own value as delivered."""
        at = np.flatnonzero(self.deleted)
        place, slot = self.holders
        present = np.asarray(self.snapshot.flags)[slot] & Flag.LEFT == 0
        theirs = np.zeros(self.size, np.bool_)
        theirs[place[present & (slot != self.slot[place])]] = True
        theirs[at] |= state.held_elsewhere(self.record_ids.take(pa.array(at)))
        self.left_alone[SHARED] = self.deleted & theirs
        self.deleted &= ~theirs
        at = np.flatnonzero(self.restored)
        fields = [one.field.name for one in self.fields]
        written = np.zeros(self.size, np.bool_)
        written[at] = state.held_elsewhere(self.record_ids.take(pa.array(at)), fields)
        self.left_alone[FIELDS_SHARED] = written
        self.restored &= ~written

    def held_by(self) -> tuple[Positions, Positions]:
        """Image rows and snapshot slots that have one record: parallel. A row's key may be another one since."""
        found = [np.empty((2, 0), np.int64)]
        rows = np.flatnonzero(self.there)
        wanted = self.record_ids.take(pa.array(rows))
        for start in range(0, len(self.snapshot.kh) if rows.size else 0, _HELD_ROWS):
            slot = np.arange(start, min(start + _HELD_ROWS, len(self.snapshot.kh)))
            place = pc.fill_null(pc.index_in(self.snapshot.record_ids(slot), value_set=wanted), -1).to_numpy()
            found.append(np.stack([rows[place[place >= 0]], slot[place >= 0]]))
        at, slots_held = np.concatenate(found, axis=1)
        return at, slots_held

    def did(self, *operations: Operation) -> Rows:
        return _bools(pc.is_in(self.image["operation"], value_set=pa.array([str(one) for one in operations])))

    def known(self) -> Rows:
        """Rows whose key the snapshot has with the very record that the run wrote, or with none."""
        known = self.slot >= 0
        at = np.flatnonzero(known)
        stored = self.snapshot.record_ids(self.slot[at])
        same = pc.fill_null(pc.equal(stored, self.record_ids.take(pa.array(at))), True)
        known[at] = _bools(same)
        return known

    def reversal(self, allow_deletes: int) -> Reversal:
        alone = {code: int(rows.sum()) for code, rows in self.left_alone.items()}
        restored, deleted = int(self.restored.sum()), int(self.deleted.sum())
        counts = Counts(
            read=self.size,
            unchanged=self.size - restored - deleted - sum(alone.values()),
            planned=restored + deleted,
            no_match=alone[GONE],
            held=sum(alone.values()) - alone[GONE],
        )
        return Reversal(
            run_id=self.run_id,
            schema=self.schema,
            batches=tuple(self.batches()),
            left_alone=pa.concat_tables([self.listed(code) for code in self.left_alone]),
            moves=self.moves(),
            counts=counts,
            restored=restored,
            deleted=deleted,
            fixed=self.fixed,
            refusal=_guard(self.activation, self.snapshot, deleted, allow_deletes),
        )

    def listed(self, code: str) -> pa.Table:
        """Rows left alone, as `rejected` lists them."""
        at = np.flatnonzero(self.left_alone[code])
        fate, message = _WHY[code]
        fields = [",".join(one.field.name for one, rows in self.foreign if rows[row]) or None for row in at.tolist()]
        texts = [pa.array([text] * len(at), pa.utf8()) for text in (fate.value, code, message)]
        key, record_id = (self.image[name].take(pa.array(at)) for name in ("key", "record_id"))
        columns = [key, *texts, pa.array(fields if code == CONFLICT else [None] * len(at), pa.utf8())]
        return pa.table([*columns, record_id, texts[2]], schema=LEFT_OUT)

    def moves(self) -> pa.Table:
        """Keys that are sent again by the next sync, and keys whose record was deleted by somebody since."""
        touched, (place, slot) = self.restored | self.deleted, self.holders
        stale = union(self.slot[touched & self.is_known], slot[touched[place]])
        gone = self.slot[self.removed_since & self.is_known]
        return pa.concat_tables([stale_rows(self.snapshot, stale), snapshot_rows(self.snapshot, gone, "forget")])

    # Batches

    def batches(self) -> Iterator[Batch]:
        total = int(self.restored.sum() + self.deleted.sum())
        for columns, at in self.groups():
            yield from self.cut(Operation.UPDATE, columns, at, total)
        yield from self.cut(Operation.DELETE, [], np.flatnonzero(self.deleted), total)

    def groups(self) -> Iterator[tuple[list[_WrittenField], Positions]]:
        """Rows to restore by the fields that the run wrote in them: no other field is touched."""
        at = np.flatnonzero(self.restored)
        if not at.size:
            return
        wrote = np.stack([one.rows[at] for one in self.fields], axis=1)
        patterns, which = np.unique(wrote, axis=0, return_inverse=True)  # noqa: TID251
        for number, pattern in enumerate(patterns):
            rows = at[which.ravel() == number]
            columns = [one for one, is_in in zip(self.fields, pattern, strict=True) if is_in]
            yield [one for one in columns if not one.is_before[rows].all()], rows

    def cut(self, operation: Operation, fields: list[_WrittenField], rows: Positions, total: int) -> Iterator[Batch]:
        if not rows.size:
            return
        columns = tuple(PayloadColumn(one.field.name, one.field) for one in fields)
        arrays = {one.field.name: one.before.take(pa.array(rows)) for one in fields}
        literal, width = _lengths(list(arrays.values()), len(rows))
        table = pa.table({**self.own(rows), **arrays})
        by_bulk = _by_bulk(self.activation, operation, literal, total)
        for api in Api:
            here = np.flatnonzero(by_bulk if api is Api.BULK else ~by_bulk)
            for part in cuts(width[here], api):
                headers = (PayloadColumn("Id", self.schema.fields["Id"]), *columns)
                sent = table.take(pa.array(here[part]))
                yield Batch("", operation, self.schema.name, api, headers, None, sent, reverts=True)

    def own(self, rows: Positions) -> dict[str, pa.Array]:
        """The journal's columns and the record's id."""
        taken, slot = pa.array(rows), self.slot[rows]
        return {
            "key": self.image["key"].combine_chunks().take(taken),
            "kh": self.image["kh"].combine_chunks().take(taken),
            "ck": as_arrow(_at(self.snapshot.ck, slot)),
            "flags": pa.array(_at(self.snapshot.flags, slot), pa.uint8()),
            "Id": self.record_ids.take(taken),
            "forget": pa.array(self.deleted[rows] & self.is_known[rows]),
        }


def _guard(activation: Activation, snapshot: Snapshot, deleted: int, allowed: int) -> Problem | None:
    if deleted <= deletes_max(activation.guards, keys_in_segment(snapshot), allowed):
        return None
    ceiling = activation.guards.max_delete
    message = f"{deleted:,} records that the run created would be deleted; guards.max_delete is {ceiling}"
    return Problem(MAX_DELETE, message, activation.meta_path, f"if that is right: --allow-deletes {deleted}")


def _lengths(arrays: list[pa.Array], count: int) -> tuple[Rows, npt.NDArray[np.int64]]:
    """Which rows have a text that means null in a CSV file, and how many bytes each has there at most."""
    literal, width = np.zeros(count, np.bool_), np.full(count, 24, np.int64)
    for array in arrays:
        if pa.types.is_string(array.type):
            literal |= _bools(pc.fill_null(pc.equal(pc.utf8_trim_whitespace(array), BULK_NULL), False))
            width += pc.fill_null(pc.binary_length(array), 4).to_numpy() * 2
        width += 44
    return literal, width


def _by_bulk(activation: Activation, operation: Operation, literal: Rows, total: int) -> Rows:
    if operation is Operation.DELETE:  # after a crash a job can be asked which records it deleted
        return np.ones(len(literal), np.bool_)
    if goes_by_collections(activation, total):
        return np.zeros(len(literal), np.bool_)
    return ~literal  # #N/A as a text means null in a CSV file


def _bools(array: pa.Array | pa.ChunkedArray) -> Rows:
    array = array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
    found: Rows = array.to_numpy(zero_copy_only=False)
    return found


def _at(array: npt.NDArray[Any], slot: Positions) -> npt.NDArray[Any]:
    """The values at these slots; 0 where a slot is -1."""
    found = np.zeros((len(slot), *array.shape[1:]), array.dtype)
    known = np.flatnonzero(slot >= 0)
    found[known] = array[slot[known]]
    return found
