"""After a run: a sample of its rows, value by value, in the model and in Salesforce. The row hash decides nothing here.

Rows are sampled of those that the run called unchanged and of those that Salesforce just acknowledged. What Salesforce
holds tells what others edited since, which is drift and no fault. Whether a row called unchanged did change is asked of
what was acknowledged: values are not kept, so each field of a watched row is kept as eight bytes of BLAKE2b, in which
two values that differ agree once in 2^64, whatever the row hash makes of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dinmo_dbt.activation import Activation, Mode
from dinmo_dbt.codes import AUDIT_FOUND_CHANGES
from dinmo_dbt.delivery.run import Audited, SyncRun
from dinmo_dbt.destination import Destination
from dinmo_dbt.errors import CountsError, DestinationError, Interrupted
from dinmo_dbt.plan.plan import Plan
from dinmo_dbt.rows import values
from dinmo_dbt.rows.mapping import MappedColumn, Mapping
from dinmo_dbt.rows.rowhash import as_arrow
from dinmo_dbt.rows.sets import among, distinct
from dinmo_dbt.rows.snapshot import Flag, Positions, Snapshot, stale_rows
from dinmo_dbt.upkeep.verify import BY_ID_MAX, Fact, differences, facts, records

WATCHED_MAX = 1_000
_DIGEST_BYTES = 8
_UNSURE = Flag.LEFT | Flag.STALE | Flag.UNKNOWN | Flag.UNFINISHED
# A row as it was acknowledged: found again by its key hash, and only while its check hash is the snapshot's.
WATCHED = pa.schema([("kh", pa.uint64()), ("ck", pa.utf8()), ("record_id", pa.utf8()), ("digests", pa.utf8())])
# A row of the snapshot to compare after the run. `digests`: null where it is not watched.
CHOSEN = pa.schema([("position", pa.int64()), ("record_id", pa.utf8()), ("digests", pa.utf8())])


class Watching(Protocol):
    """One activation's state, held by the run that is audited."""

    @property
    def snapshot(self) -> Snapshot: ...

    def watched(self) -> pa.Table:
        """`WATCHED` rows, at most `WATCHED_MAX`."""

    def watch(self, rows: pa.Table) -> None:
        """Keep these `WATCHED` rows, one a key hash, in the place of all."""

    def amend(self, rows: pa.Table) -> None:
        """Move the snapshot by these rows (`delivery.journal.Journal`)."""

    def reload(self) -> None:
        """Let `snapshot` be what the run itself has made of it."""


def choose(snapshot: Snapshot, watched: pa.Table, size: int, seed: str) -> pa.Table:
    """Up to `size` rows of the snapshot, in `CHOSEN`: half of them watched ones, as far as there are. The same `seed`
    chooses the same.

    A snapshot is sorted by key hash, so neighbours in it are rows drawn at random.
    """
    total = len(snapshot.kh)
    if not size or not total:
        return CHOSEN.empty_table()
    draw = np.random.default_rng(list(seed.encode()))
    known = _still_acknowledged(snapshot, watched)
    most = min(size, total)
    chosen = draw.permutation(distinct(known[known >= 0]))[: max(size // 2, size - total)]
    window = (np.arange(most) + draw.integers(total)) % total
    window = window[~np.isin(window, chosen)][: size - len(chosen)]
    positions = np.sort(np.concatenate([chosen, window]).astype(np.int64))
    positions = positions[np.asarray(snapshot.flags)[positions] & _UNSURE == 0]
    rows = pa.array(known)
    found = pc.index_in(pa.array(positions), value_set=rows)
    return pa.table(
        [
            pa.array(positions),
            pc.coalesce(watched["record_id"].combine_chunks().take(found), _record_ids(snapshot, positions, found)),
            watched["digests"].combine_chunks().take(found),
        ],
        schema=CHOSEN,
    )


def _record_ids(snapshot: Snapshot, positions: Positions, found: pa.Array) -> pa.Array:
    """Those that the snapshot has, for the rows that are not watched: neighbours, so few parts of it are read."""
    own = np.flatnonzero(pc.is_null(found).to_numpy(zero_copy_only=False))
    place = np.full(len(positions), -1, np.int64)
    place[own] = np.arange(len(own))
    return snapshot.record_ids(positions[own]).take(pa.array(place, mask=place < 0))


def _still_acknowledged(snapshot: Snapshot, watched: pa.Table) -> Positions:
    """Where the watched rows stand in the snapshot; -1 for one that was acknowledged again since, or is gone."""
    kh = watched["kh"].to_numpy()
    slot = np.searchsorted(snapshot.kh, kh)
    there = slot < len(snapshot.kh)
    slot = np.where(there, slot, 0)
    there &= snapshot.kh[slot] == kh
    ck = _ck_text(as_arrow(snapshot.ck[slot]))
    same = pc.equal(ck, watched["ck"].combine_chunks()).to_numpy(zero_copy_only=False)
    return np.where(there & same, slot, -1)


def _ck_text(ck: pa.Array) -> pa.Array:
    """Check hashes as they are kept."""
    return pa.array([octets.hex() for octets in ck.to_pylist()], pa.utf8())


class Audit:
    """The audit of one run of an activation: what it compares is chosen before the plan is drawn."""

    def __init__(self, activation: Activation, state: Watching, run: SyncRun) -> None:
        self._activation, self._state, self._run = activation, state, run
        self._known = len(state.snapshot.kh)
        self._chosen = choose(state.snapshot, state.watched(), self._size(self._known), run.run_id)

    @property
    def positions(self) -> Positions:
        """In the snapshot: rows to be kept, if they are unchanged, when the plan is drawn."""
        positions: Positions = self._chosen["position"].to_numpy()
        return positions

    def size(self, sending: int) -> int:
        """How many rows it compares, in a run that sends so many."""
        return self._size(max(self._known, sending))

    def _size(self, rows: int) -> int:
        return 0 if self._activation.mode is Mode.DELETE else self._activation.audit.limit(rows)

    def conclude(self, plan: Plan, destination: Destination) -> None:
        """Compare, once the plan is executed, unless the run ended early: what came of it goes to the run. Where
        Salesforce does not answer, what the model alone can tell was found out, and the run says so.

        CountsError DB492 if a row that the hash called unchanged did change; an update or upsert sends such rows with
        the next run.
        """
        run = self._run
        if run.problem or run.interrupted or not run.sampling:
            return
        try:
            conclude(plan, self._chosen, run, destination, self._state, run.sampling)
        except Interrupted:
            run.audited = replace(run.audited or Audited(), left_out="the run was asked to stop")
        except DestinationError as error:
            run.audited = replace(run.audited or Audited(), left_out=error.problems[0].message)


def conclude(
    plan: Plan, chosen: pa.Table, run: SyncRun, destination: Destination, state: Watching, size: int
) -> Audited:
    """Compare up to `size` rows once the plan is executed, by one read of their records; what it found goes to `run`.

    CountsError DB492 as `Audit.conclude`. DestinationError if the records can't be read: nothing is known of them then.
    """
    rows = _compared(plan, chosen, run, size)
    if rows is None:
        run.audited = Audited()
        return run.audited
    columns = _columns(plan.mapping)
    rows = rows.append_column("now", _digests(rows, columns))
    changed = pc.fill_null(pc.not_equal(rows["digests"], rows["now"]), False).to_numpy(zero_copy_only=False)
    compared, _ = facts(plan.activation, plan.mapping)
    missed = int(changed.sum())
    run.audited = Audited(missed=missed, unread=len(rows))
    try:
        read, differing = _against_records(rows, compared, plan.schema.name, destination)
    except (DestinationError, Interrupted):
        if missed:  # the model alone tells of these
            _refuse(plan, rows.filter(pa.array(changed)), columns, state)
        raise
    called_unchanged = pc.is_valid(rows["position"]).to_numpy(zero_copy_only=False)
    named = pc.is_valid(rows["record_id"]).to_numpy(zero_copy_only=False)
    # A known record that is not there was deleted since; one that was made just now, or is not known, was not read.
    unread = ~read & (~named | ~called_unchanged)
    deleted = called_unchanged & ~unread & ~read & ~changed
    drifted = deleted | (called_unchanged & ~unread & differing.any(axis=0) & ~changed)
    rewritten = ~called_unchanged & differing.any(axis=0)
    run.audited = Audited(
        compared=len(rows) - int(unread.sum()),
        missed=missed,
        drifted=int(drifted.sum()),
        deleted=int(deleted.sum()),
        rewritten=int(rewritten.sum()),
        fields=tuple(fact.name for fact, of_rows in zip(compared, differing, strict=True) if of_rows[~changed].any()),
        unread=int(unread.sum()),
    )
    sound = read & ~changed & (~called_unchanged | ~differing.any(axis=0))
    # What was sent again, unchanged as it seemed, was acknowledged again: of it only the sample is known.
    dropped = None if plan.counts.resent else rows["kh"].filter(pa.array(changed))
    _watch(state, rows.filter(pa.array(sound)), dropped)
    if missed:
        _refuse(plan, rows.filter(pa.array(changed)), columns, state)
    return run.audited


def _compared(plan: Plan, chosen: pa.Table, run: SyncRun, size: int) -> pa.Table | None:
    """The rows that were called unchanged, and those just acknowledged, as they are spooled, with `CHOSEN` beside
    them (`position`: null for those just acknowledged); None if there are neither."""
    fresh, kept = _acknowledged(plan, run), plan.changes.watched
    if kept is not None:
        at = pc.index_in(kept["position"], value_set=chosen["position"].combine_chunks())
        for name in ("record_id", "digests"):
            kept = kept.append_column(CHOSEN.field(name), chosen[name].take(at))
        kept = kept.slice(0, size - min(len(fresh or ()), size // 2))
    if fresh is None or kept is None:
        return fresh if kept is None else kept
    return pa.concat_tables([kept, fresh.select(kept.column_names).slice(0, size - len(kept))]).combine_chunks()


def _acknowledged(plan: Plan, run: SyncRun) -> pa.Table | None:
    """The sample of rows that the run delivered, with their values from the scan."""
    rows = np.flatnonzero(among(plan.changes.kh, run.sample["kh"].to_numpy()))
    if not rows.size:
        return None
    spooled = plan.spool.take(rows)
    ids = run.sample["record_id"].take(pc.index_in(spooled["key"], value_set=run.sample["key"].combine_chunks()))
    beside = (pa.nulls(len(spooled), pa.int64()), ids, pa.nulls(len(spooled), pa.utf8()))
    for field, column in zip(CHOSEN, beside, strict=True):
        spooled = spooled.append_column(field, column)
    return spooled.filter(pc.is_valid(ids))


def _columns(mapping: Mapping) -> tuple[tuple[str, MappedColumn], ...]:
    """What a row is compared by: names in the spool, in the order of the digests."""
    match = (("match", mapping.match),) if mapping.match else ()
    return (*match, *((column.header, column) for column in mapping.columns))


def _digests(rows: pa.Table, columns: Sequence[tuple[str, MappedColumn]]) -> pa.Array:
    """One text a row: a digest of each value as it would be sent, a null apart from every text."""
    texts = [values.text(rows[name].combine_chunks(), column.field).to_pylist() for name, column in columns]
    return pa.array(["".join(map(_digest, of_row)) for of_row in zip(*texts, strict=True)], pa.utf8())


def _digest(text: str | None) -> str:
    tagged = b"" if text is None else b"=" + text.encode()
    return hashlib.blake2b(tagged, digest_size=_DIGEST_BYTES).hexdigest()


def _against_records(
    rows: pa.Table, compared: Sequence[Fact], object_name: str, destination: Destination
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Whether each row's record is there, and facts x rows: where it holds another value than the model."""
    there = np.zeros(len(rows), np.bool_)
    differing = np.zeros((len(compared), len(rows)), np.bool_)
    for page in _pages(rows["record_id"].combine_chunks(), compared, object_name, destination):
        at = pc.index_in(rows["record_id"].combine_chunks(), value_set=page["Id"].combine_chunks())
        here = np.flatnonzero(pc.is_valid(at).to_numpy(zero_copy_only=False))
        held = page.take(at.take(pa.array(here)))
        there[here] = True
        differing[:, here] = differences(compared, rows.take(pa.array(here)), held)
    return there, differing


def _pages(ids: pa.Array, compared: Sequence[Fact], object_name: str, destination: Destination) -> Iterator[pa.Table]:
    distinct = pc.unique(ids.drop_null())
    for start in range(0, len(distinct), BY_ID_MAX):
        yield from records(destination, object_name, compared, distinct.slice(start, BY_ID_MAX))


def _watch(state: Watching, rows: pa.Table, dropped: pa.ChunkedArray | None) -> None:
    """Watch these rows as they are now, and of those watched before the others, as far as there is room; none of the
    `dropped`, or for None no others."""
    # A known row that was sent again is here as called unchanged, and as just acknowledged.
    rows = rows.take(pa.array(np.sort(np.unique(rows["kh"].to_numpy(), return_index=True)[1])))  # noqa: TID251
    ck = _ck_text(rows["ck"].combine_chunks())
    fresh = pa.table([rows["kh"], ck, rows["record_id"], rows["now"]], schema=WATCHED).slice(0, WATCHED_MAX)
    others = WATCHED.empty_table()
    if dropped is not None:
        before = state.watched()
        gone = pa.chunked_array([*fresh["kh"].chunks, *dropped.chunks], pa.uint64())
        others = before.filter(pc.invert(pc.is_in(before["kh"], value_set=gone.combine_chunks())))
        if not len(fresh) and len(others) == len(before):
            return
    room = WATCHED_MAX - len(fresh)
    if len(others) > room:
        draw = np.random.default_rng(fresh["kh"].to_numpy()[:1])
        others = others.take(pa.array(np.sort(draw.permutation(len(others))[:room])))
    state.watch(pa.concat_tables([fresh, others]))


def _refuse(plan: Plan, missed: pa.Table, columns: Sequence[tuple[str, MappedColumn]], state: Watching) -> None:
    name, inserting = plan.activation.name, plan.activation.mode is Mode.INSERT
    headers = [column.header for _, column in columns]
    pairs = [zip(*map(_parts, pair), headers, strict=True) for pair in zip(*_before_and_now(missed), strict=True)]
    changed = sorted({header for of_row in pairs for before, now, header in of_row if before != now})
    if inserting:
        way_out = f"compare all rows with Salesforce: dinmo-dbt verify -s {name}"
    else:
        rows = missed.select(["kh", "ck"]).set_column(1, "ck", _ck_text(missed["ck"].combine_chunks()))
        state.reload()
        slots = _still_acknowledged(state.snapshot, rows)
        state.amend(stale_rows(state.snapshot, distinct(slots[slots >= 0])))
        way_out = f"the next sync sends these rows; to send all others too: dinmo-dbt sync -s {name} --full"
    raise CountsError(
        AUDIT_FOUND_CHANGES,
        f"{len(missed):,} of the rows that were compared {'was' if len(missed) == 1 else 'were'} taken for unchanged, "
        f"and did change: {', '.join(changed)}. Other rows may have been taken so too",
        where=plan.activation.meta_path,
        hint=f"{way_out}. Please report this: it is a defect of dinmo-dbt",
    )


def _before_and_now(rows: pa.Table) -> tuple[list[str], list[str]]:
    return rows["digests"].to_pylist(), rows["now"].to_pylist()


def _parts(digests: str) -> list[str]:
    width = 2 * _DIGEST_BYTES
    return [digests[start : start + width] for start in range(0, len(digests), width)]
