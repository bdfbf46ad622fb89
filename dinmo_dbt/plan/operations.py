"""Which record each row is written to, and by which operation: by mode. Reads only."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dinmo_dbt.activation import Mode
from dinmo_dbt.destination import Fate, Operation
from dinmo_dbt.plan import leavers, parents
from dinmo_dbt.plan.plan import flying
from dinmo_dbt.plan.records import compared, ids_missing, repeated
from dinmo_dbt.plan.work import Work, placed
from dinmo_dbt.rows import values
from dinmo_dbt.rows.changes import Kind
from dinmo_dbt.rows.reasons import Reason
from dinmo_dbt.rows.snapshot import Flag, Positions

FIXED_ROWS_MAX = 2_000  # known rows whose record is looked at for fields that are written on new records only


def choose_operations(work: Work) -> None:
    sent = work.found.kind != Kind.DROPPED
    sent &= ~_leave_in_flight(work, sent)
    known = np.flatnonzero(sent & (work.found.position >= 0))
    if known.size:
        ids = np.full(work.size, None, object)
        ids[known] = work.state.snapshot.record_ids(work.found.position[known]).to_numpy(zero_copy_only=False)
        work.record_ids = work.stored_ids = pa.array(ids, pa.utf8())
    work.known_ids = ~ids_missing(work.record_ids)
    match work.activation.mode:
        case Mode.INSERT:
            _insert(work, np.flatnonzero(sent))
        case Mode.UPDATE:
            _update(work, np.flatnonzero(sent))
        case Mode.UPSERT:
            _upsert(work, np.flatnonzero(sent))
        case Mode.DELETE:
            _delete(work, np.flatnonzero(sent))


def _leave_in_flight(work: Work, sent: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Rows whose key is in a batch that has not been settled: shown, and left out of the plan."""
    left = sent & flying(work.state.in_flight, work.found.kh, work.keys_of)
    work.in_flight = int(left.sum())
    return left


def _delete(work: Work, rows: Positions) -> None:
    """By the match value alone: what a known row was matched with before is gone already."""
    assert work.mapping.match is not None
    rows = _with_match(work, rows)
    if work.mapping.match.header != "Id":
        _match_records(work, rows, none_found=None, found=Operation.DELETE)
        rows = rows[work.sent_by(Operation.DELETE)[rows]]
        _leave_to_others(work, rows, work.record_ids.take(pa.array(rows)))
        return
    prefix = work.schema.key_prefix
    if prefix and rows.size:
        # A collections call deletes by ids alone, of whatever object.
        ids = work.spool.take(rows, ["match"])["match"]
        other = ~pc.starts_with(ids, prefix).to_numpy()
        message = f"not the id of a {work.schema.name} record, which begin with {prefix}"
        work.leave_out(rows[other], Fate.INVALID, "ID_OF_OTHER_OBJECT", message, "Id")
        rows = rows[~other]
    if not rows.size:
        return
    work.send(rows, Operation.DELETE)
    _leave_to_others(work, rows, work.spool.take(rows, ["match"])["match"].combine_chunks())


def _leave_to_others(work: Work, rows: Positions, ids: pa.Array) -> None:
    """Delete no record that another activation or target keeps."""
    theirs = work.state.held_elsewhere(ids)
    message = "another activation or dbt target keeps this record (dinmo-dbt state show): it stays while they do"
    work.leave_out(rows[theirs], Fate.HELD, leavers.RECORD_SHARED, message)


def _insert(work: Work, rows: Positions) -> None:
    why = work.found.no_bulk[rows]
    for reason in (Reason.BULK_NULL_TEXT, Reason.ROW_SIZE):
        work.leave_out(rows[why == reason], Fate.INVALID, reason.code, reason.message)
    work.send(rows[why == 0], Operation.INSERT)


def _update(work: Work, rows: Positions) -> None:
    assert work.mapping.match is not None
    rows = _with_match(work, rows)
    if work.mapping.match.header == "Id":
        work.send(rows, Operation.UPDATE)
        return
    _match_records(work, _by_own_record(work, rows), none_found=None)


def _with_match(work: Work, rows: Positions) -> Positions:
    """The rows that have a match value; the others have no record."""
    match = work.mapping.match
    assert match is not None
    if not rows.size:
        return rows
    folded = values.fold(work.spool.take(rows, ["match"])["match"].combine_chunks(), match.field)
    blank = pc.is_null(folded).to_numpy(zero_copy_only=False)
    message = f"the row has no match value: {match.source} is null or blank"
    work.leave_out(rows[blank], Fate.NO_MATCH, "NO_RECORD", message, match.header)
    there: Positions = rows[~blank]
    return there


def _by_own_record(work: Work, rows: Positions) -> Positions:
    """Update the rows whose record is known and no other row's; the others, in their order."""
    others = _is_another_rows(work, rows)
    return np.sort(np.concatenate([rows[others], _by_record_id(work, rows[~others])]))


def _by_record_id(work: Work, rows: Positions) -> Positions:
    """Update the rows whose record is known; the others."""
    missing = ids_missing(work.record_ids.take(pa.array(rows)))
    work.send(rows[~missing], Operation.UPDATE)
    others: Positions = rows[missing]
    return others


def _upsert(work: Work, rows: Positions) -> None:
    match, declared = work.mapping.match, work.activation.match
    assert match is not None
    assert declared is not None
    if match.header == "Id":
        work.send(_with_match(work, rows), Operation.UPDATE)
        return
    if declared.create and not match.field.identifies:
        _match_records(work, _by_own_record(work, rows), none_found=Operation.INSERT)
        return
    if work.match_moved:
        _upsert_by_movable_match(work, rows)
        return
    # Only added fields travel for a remapped row: an upsert could make a record of nothing else.
    remapped = work.found.kind[rows] == Kind.REMAPPED
    rows = np.concatenate([rows[~remapped], _by_record_id(work, rows[remapped])])
    if work.mapping.key == (match.source,):
        work.send(rows, Operation.UPSERT)
    else:
        _upsert_by_movable_match(work, rows)


def _upsert_by_movable_match(work: Work, rows: Positions) -> None:
    """The match value of a known key may have changed: an upsert by the new value would make a second record."""
    kind, position = work.found.kind[rows], work.found.position[rows]
    stale = (position >= 0) & (kind == Kind.SAME)
    stale[stale] = work.state.snapshot.flags[position[stale]] & Flag.STALE != 0
    moved = (Kind.CHANGED, Kind.RETURNED, Kind.REMAPPED, Kind.SAME)[: 4 if work.match_moved else 2]
    movable = (np.isin(kind, moved) & (position >= 0)) | stale
    movable[movable] = ~_is_another_rows(work, rows[movable])
    work.send(rows[~movable], Operation.UPSERT)
    message = "the row changed, its record id is not known, and its match value may have changed with it"
    work.leave_out(_by_record_id(work, rows[movable]), Fate.HELD, "MATCH_CHANGED", message)


def _match_records(
    work: Work, rows: Positions, none_found: Operation | None, found: Operation = Operation.UPDATE
) -> None:
    """Give rows their record by the match field; none, several and another row's are fates of their own."""
    match = work.mapping.match
    assert match is not None
    if not rows.size:
        return
    ids, several = work.found_by_match(rows)
    missing = ids_missing(ids) & ~several
    name = f"{work.schema.name}.{match.header}"
    work.leave_out(rows[several], Fate.AMBIGUOUS, "SEVERAL_RECORDS", f"several records hold this {name}")
    if none_found is None:
        work.leave_out(rows[missing], Fate.NO_MATCH, "NO_RECORD", f"no record holds this {name}")
    else:
        _insert(work, rows[missing])
    matched = ~missing & ~several
    rows, ids = rows[matched], ids.filter(pa.array(matched))
    twice = repeated(ids) if found is Operation.DELETE else _claimed(work, ids)
    message = "another row of the model has the same record"
    work.leave_out(rows[twice], Fate.AMBIGUOUS, "RECORD_CLAIMED_TWICE", message)
    work.send(rows[~twice], found)
    whole = work.record_ids.to_numpy(zero_copy_only=False).copy()
    whole[rows] = ids.to_numpy(zero_copy_only=False)
    work.record_ids = pa.array(whole, pa.utf8())


def _claimed(work: Work, ids: pa.Array) -> npt.NDArray[np.bool_]:
    """Which of these records, found by match values, belong to another row: a known one of the segment, sent, back
    or unchanged, which keeps it, or one found just now, of which neither is a pick."""
    updated = work.record_ids.filter(pa.array(work.sent_by(Operation.UPDATE)))
    sent: npt.NDArray[np.bool_] = pc.is_in(ids, value_set=updated).to_numpy(zero_copy_only=False)
    return repeated(ids) | sent | (work.holders(ids) > 0)


def _is_another_rows(work: Work, rows: Positions) -> npt.NDArray[np.bool_]:
    """Which known rows' records another row of the segment has too: it found them by their match value while the
    key was away, so now this one is to find its record by its own."""
    asked: npt.NDArray[np.bool_] = work.found.kind[rows] == Kind.RETURNED
    if work.activation.on_removed != "ignore":  # only then does a key leave without being marked as left
        asked |= work.found.kind[rows] == Kind.CHANGED
    asked &= work.found.position[rows] >= 0
    if not asked.any():
        return np.zeros(len(rows), np.bool_)
    ids = work.record_ids.take(pa.array(rows[asked]))
    here = work.state.snapshot.flags[work.found.position[rows[asked]]] & Flag.LEFT == 0
    asked[asked] = (work.holders(ids) - here > 0) | (repeated(ids) & ~ids_missing(ids))
    return asked


def know_new_from_known(work: Work) -> None:
    """Which rows make a record, as far as some fields are written on new records only, or on those alone that are
    there: an upsert by an external id does not tell, so the records are looked for."""
    work.makes = work.sent_by(Operation.UPSERT, Operation.INSERT)
    rows = np.flatnonzero(work.sent_by(Operation.UPSERT))
    if not rows.size or not work.mapping.is_partial:
        return
    ids, several = work.found_by_match(rows)
    work.makes[rows] = ids_missing(ids) & ~several
    work.found_ids = placed(ids, rows, work.size)


def fixed_notes(work: Work) -> list[str]:
    """What is said of known rows whose record has another value in a field that is written on new records only."""
    fixed = [column for column in work.mapping.columns if not column.goes(False)]
    rows = np.flatnonzero(work.is_sent & ~work.makes & ~work.only_added)
    if not fixed or not rows.size:
        return []
    ids = pc.coalesce(work.record_ids, work.found_ids).take(pa.array(rows))
    rows, ids = rows[~ids_missing(ids)][:FIXED_ROWS_MAX], ids.drop_null()[:FIXED_ROWS_MAX]
    names = tuple(column.written.name for column in fixed)
    held = work.destination.read_many(work.schema.name, names, pc.unique(ids))
    place = pc.index_in(ids, value_set=held["Id"].combine_chunks())
    there = pc.is_valid(place)
    rows, place, notes = rows[there.to_numpy(zero_copy_only=False)], place.filter(there), []
    for column in fixed:
        wanted = work.spool.take(rows, [column.header])[column.header].combine_chunks()
        if column.lookup is not None:
            wanted = parents.find(column, work.schema.name, rows, wanted, work.destination).ids
        now = values.from_text(held[column.written.name].combine_chunks(), column.written).take(place)
        ours, theirs = compared(wanted, column.written), compared(now, column.written)
        same = pc.or_(pc.fill_null(pc.equal(ours, theirs), False), pc.and_(pc.is_null(ours), pc.is_null(theirs)))
        other = len(rows) - int(pc.sum(same.cast(pa.int64())).as_py() or 0)
        if other:
            notes.append(
                f"{other:,} of {len(rows):,} known rows have another {work.schema.name}.{column.written.name} than "
                "their record: Salesforce takes it on new records only, so it stays as it is there"
            )
    return notes
