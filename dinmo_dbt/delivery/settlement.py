"""What becomes of a batch whose results were read: what goes into the snapshot, the waits and the day."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dinmo_dbt.codes import COUNTS_OF_BATCH
from dinmo_dbt.delivery.journal import Settlement
from dinmo_dbt.destination import RESULTS, Batch, Destination, Diagnosis, Fate, Operation, Remedy
from dinmo_dbt.errors import CountsError, DestinationError
from dinmo_dbt.plan.guards import Counted, Day
from dinmo_dbt.plan.plan import LEFT_OUT
from dinmo_dbt.rows import values
from dinmo_dbt.rows.sets import distinct
from dinmo_dbt.rows.snapshot import Flag
from dinmo_dbt.text.masking import of_job, without_values

# Salesforce's answers for a record id that no longer leads to a record.
_GONE = ("ENTITY_IS_DELETED", "INVALID_CROSS_REFERENCE_KEY")
_GONE_ASKED_MAX = 2_000  # ten calls


def settlement_of(batch: Batch, results: pa.Table, destination: Destination, described: str = "") -> Settlement:
    """What the results of a batch mean for the state. Of the destination it asks what its codes mean, and whether
    records that seem gone, or may be, are; DestinationError only for leavers that may be."""
    rows = batch.rows
    if len(results) != len(rows):
        raise CountsError(COUNTS_OF_BATCH, f"batch {batch.id}: {len(rows)} rows were sent, {len(results)} results read")
    updates = batch.operation is Operation.UPDATE and not batch.reverts
    gone = _gone(batch, results, destination) if updates else None
    if batch.leavers:
        results, moves = _removed(batch, results, gone, destination)
    elif batch.reverts:
        # Its rows are not the model's: none is acknowledged and none waits. Before they went, their keys became stale.
        done = pc.equal(results["fate"], Fate.SUCCEEDED.value)
        moves = [_forgotten(rows.filter(pc.and_(done, rows["forget"])))]
    else:
        moves = [_acknowledged(batch, results)]
        if gone is not None:
            moves.append(_forgotten(rows.filter(gone)))
        if batch.operation is Operation.INSERT:
            moves.append(_doubtful(rows.filter(pc.equal(results["fate"], Fate.UNKNOWN.value))))
    fate = results["fate"].combine_chunks()
    done = pc.equal(fate, Fate.SUCCEEDED.value)
    rejected = pc.equal(fate, Fate.REJECTED.value)
    waits = pc.and_(rejected, not batch.reverts)
    return Settlement(
        batch_id=batch.id,
        snapshot=pa.concat_tables(moves),
        resolved=rows.filter(done).select(["kh", "key"]),
        waiting=_waiting(rows.filter(waits), results.filter(waits), destination, described),
        succeeded=count_of(fate, Fate.SUCCEEDED),
        rejected=count_of(fate, Fate.REJECTED),
        held=count_of(fate, Fate.HELD),
        unknown=count_of(fate, Fate.UNKNOWN),
        not_delivered=left_out_of(batch, rows.filter(pc.invert(done)), results.filter(pc.invert(done))),
        day=_of_day(rows.filter(pc.or_(done, pc.equal(fate, Fate.UNKNOWN.value)))),
    )


def _of_day(written: pa.Table) -> Day:
    """What these rows count for in the day's total."""
    if "counted" not in written.column_names:  # a revert's
        return Day()
    counted = written["counted"].to_numpy()
    changed = distinct(written["kh"].to_numpy()[counted == Counted.CHANGED])
    created, removed, respelled = (
        int(np.count_nonzero(counted == each)) for each in (Counted.CREATED, Counted.REMOVED, Counted.RESPELLED)
    )
    return Day(created + respelled, changed, removed, respelled)


def created_of(batch: Batch, results: pa.Table) -> pa.Table:
    """Key and record id of the rows that made a record; an id is null where results can't tell which is whose."""
    made = pc.equal(results["fate"], Fate.SUCCEEDED.value)
    if batch.operation is not Operation.INSERT:
        made = pc.and_(made, pc.fill_null(results["created"], False))
    return pa.table({"key": batch.rows["key"], "record_id": results["record_id"]}).filter(made)


def _acknowledged(batch: Batch, results: pa.Table) -> pa.Table:
    done = pc.equal(results["fate"], Fate.SUCCEEDED.value)
    rows, results = batch.rows.filter(done), results.filter(done)
    before = rows["flags"].to_numpy()
    created = pc.fill_null(results["created"], False).to_numpy() if len(results) else np.empty(0, np.bool_)
    if batch.operation is Operation.INSERT:
        created = np.ones(len(rows), np.bool_)
    known = before & ~np.uint8(Flag.LEFT | Flag.STALE | Flag.UNKNOWN)
    record_id = results["record_id"]
    if batch.operation in (Operation.UPDATE, Operation.DELETE):
        record_id = pc.coalesce(record_id, rows["Id"])
    if "record_id" in rows.column_names:
        # Whose record it is, is known of that record only: another one that a key leads to may be anybody's.
        same = pc.fill_null(pc.equal(record_id, rows["record_id"]), False).to_numpy()
        known &= np.where(same, np.uint8(0xFF), ~np.uint8(Flag.CREATED | Flag.ADOPTED))
    flags = known | np.where(created, np.uint8(Flag.CREATED), np.uint8(0))
    return snapshot_rows(rows, record_id, flags.astype(np.uint8), "put")


def _removed(
    batch: Batch, results: pa.Table, gone: pa.Array | None, destination: Destination
) -> tuple[pa.Table, list[pa.Table]]:
    """What became of keys that left the segment, and how that moves the snapshot. What is gone already is done.

    No doubt outlives this: a row that comes back unchanged is sent again only if the state says so. Whether a record
    was deleted is asked of Salesforce; whether it was set may stay open, so its check hash is to say nothing then.
    """
    rows, fate = batch.rows, results["fate"].combine_chunks()
    unknown = pc.equal(fate, Fate.UNKNOWN.value)
    if gone is None:
        ids = rows["Id"].combine_chunks()
        gone = pc.and_(unknown, pc.is_in(ids, value_set=_missing(destination, batch.object, ids.filter(unknown))))
    fate = pc.if_else(gone, Fate.SUCCEEDED.value, pc.if_else(unknown, Fate.HELD.value, fate))
    results = results.set_column(0, RESULTS.field("fate"), fate)
    done = pc.equal(fate, Fate.SUCCEEDED.value)
    if batch.operation is Operation.DELETE:
        return results, [_forgotten(rows.filter(done))]

    def kept(which: pa.Array, flag: Flag) -> pa.Table:
        some = rows.filter(which)
        flags = (some["flags"].to_numpy() | np.uint8(flag)).astype(np.uint8)
        return snapshot_rows(some, some["Id"], flags, "put")

    left, open_rows = pc.and_(done, pc.invert(gone)), pc.equal(fate, Fate.HELD.value)
    return results, [kept(left, Flag.LEFT), _forgotten(rows.filter(gone)), kept(open_rows, Flag.STALE)]


def _gone(batch: Batch, results: pa.Table, destination: Destination) -> pa.Array:
    """Which rejected rows' own record is gone. The same codes are given for a parent that is, so where a batch writes
    lookups the records are asked for: to forget one that lives could make a second one of it."""
    fields, ids = pc.fill_null(results["fields"], ""), batch.rows["Id"].combine_chunks()
    said_gone = pc.and_(
        pc.equal(results["fate"], Fate.REJECTED.value),
        pc.and_(pc.is_in(results["code"], value_set=pa.array(_GONE)), pc.is_in(fields, value_set=pa.array(["", "Id"]))),
    ).combine_chunks()
    if not pc.any(said_gone).as_py() or not any(c.is_parent_path or c.field.type == "reference" for c in batch.columns):
        return said_gone
    missing = pa.array([], pa.utf8())
    with suppress(DestinationError):  # not heard: they stay known, and are asked for when they are refused again
        missing = _missing(destination, batch.object, ids.filter(said_gone)[:_GONE_ASKED_MAX])
    return pc.and_(said_gone, pc.is_in(ids, value_set=missing))


def _missing(destination: Destination, object_name: str, ids: pa.Array) -> pa.Array:
    """Those of the records that Salesforce does not have any more."""
    if not len(ids):
        return ids
    there = destination.read_many(object_name, ("Id",), pc.unique(ids))["Id"].combine_chunks()
    return ids.filter(pc.invert(pc.is_in(ids, value_set=there)))


def _forgotten(rows: pa.Table) -> pa.Table:
    """Records that Salesforce says are gone: the next run resolves their rows again."""
    return snapshot_rows(rows, pa.nulls(len(rows), pa.utf8()), rows["flags"].to_numpy(), "forget")


def _doubtful(rows: pa.Table) -> pa.Table:
    """Inserts that may have been made: known from now on, so that neither a later run nor a new mapping makes a second
    record of the same change; the flag keeps them from being counted as delivered."""
    flags = rows["flags"].to_numpy() & ~np.uint8(Flag.LEFT | Flag.STALE) | np.uint8(Flag.UNKNOWN)
    return snapshot_rows(rows, pa.nulls(len(rows), pa.utf8()), flags.astype(np.uint8), "put")


def snapshot_rows(rows: pa.Table, record_id: pa.Array, flags: npt.NDArray[np.uint8], op: str) -> pa.Table:
    return pa.table(
        {
            "kh": rows["kh"],
            "ck": rows["ck"],
            "key": rows["key"],
            "record_id": record_id,
            "flags": pa.array(flags, pa.uint8()),
            "op": pa.repeat(op, len(rows)),
        }
    )


def diagnoses_of(rejected: pa.Table, destination: Destination) -> list[Diagnosis]:
    """What each rejection asks for; one question for each distinct answer of Salesforce."""
    texts = pc.binary_join_element_wise(pc.fill_null(rejected["code"], ""), pc.fill_null(rejected["message"], ""), "\0")
    known: dict[str, Diagnosis] = {}
    for text in pc.unique(texts).to_pylist():
        code, _, message = text.partition("\0")
        known[text] = destination.diagnose(code, message)
    return [known[text] for text in texts.to_pylist()]


def _waiting(rows: pa.Table, results: pa.Table, destination: Destination, described: str) -> pa.Table:
    passing = [diagnosis.remedy is not Remedy.CHANGE for diagnosis in diagnoses_of(results, destination)]
    return pa.table(
        {
            "kh": rows["kh"],
            "key": rows["key"],
            "ck": rows["ck"],
            "fate": results["fate"],
            "code": results["code"],
            "message": results["message"],
            "fields": results["fields"],
            "transient": pa.array(passing, pa.bool_()),
            "described": pa.repeat(described, len(rows)),
            "since": pa.repeat(pa.scalar(destination.org_time or 0.0, pa.float64()), len(rows)),
        }
    )


def left_out_of(batch: Batch, rows: pa.Table, results: pa.Table) -> pa.Table:
    columns = [rows["key"], *(results[name] for name in ("fate", "code", "message", "fields", "record_id"))]
    rejected = pc.equal(results["fate"], Fate.REJECTED.value)
    quoting = np.flatnonzero(pc.and_(rejected, pc.is_valid(results["message"])).to_numpy())
    shown = results["message"].to_numpy().copy()
    if quoting.size:
        chosen = rows.take(pa.array(quoting))
        sent = [values.text(chosen[c.header].combine_chunks(), c.field).to_pylist() for c in batch.columns]
        for place, of_row in zip(quoting, zip(*sent, strict=True), strict=True):
            shown[place] = without_values(shown[place], of_row)
    of_the_job = pc.fill_null(pc.equal(results["code"], "UNPROCESSED"), False).to_numpy()
    names = [column.header for column in batch.columns]
    said = {message: of_job(message, names) for message in set(shown[of_the_job]) if message}
    shown[of_the_job] = [said.get(message) for message in shown[of_the_job]]
    return pa.table([*columns, pa.array(shown, pa.utf8())], schema=LEFT_OUT)


def count_of(fate: pa.Array, wanted: Fate) -> int:
    return int(pc.sum(pc.equal(fate, wanted.value).cast(pa.int64())).as_py() or 0)


def all_as(batch: Batch, fate: Fate, code: str, message: str) -> pa.Table:
    """The same result for every row of a batch."""
    count = len(batch.rows)
    texts = [fate.value, None, None, code, message, None]
    kinds = [field.type for field in RESULTS]
    arrays = [
        pa.nulls(count, kind) if text is None else pa.repeat(text, count)
        for text, kind in zip(texts, kinds, strict=True)
    ]
    return pa.table(arrays, schema=RESULTS)
