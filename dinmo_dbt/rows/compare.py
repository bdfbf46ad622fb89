"""Segment x snapshot -> ChangeSet: what changed since Salesforce last acknowledged it. Pure pyarrow and numpy.

One pass over the segment in record batches. Each row is hashed under today's mapping, and under each older mapping
that the snapshot still holds rows of; a row whose check hash of 128 bits agrees with an acknowledged one is unchanged.
64 bits of key hash choose the slot, but a slot is a row's own only if the check hash (which covers the key) agrees or
the stored key is equal, so a collision of key hashes costs a comparison and never a wrong answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dinmo_dbt.rows.changes import ASIDE, ChangeSet, Kind
from dinmo_dbt.rows.hashed import Hashed, hash_rows
from dinmo_dbt.rows.index import Index
from dinmo_dbt.rows.key_hashes import key_hash
from dinmo_dbt.rows.keys import key_text
from dinmo_dbt.rows.known import Found, Known, find
from dinmo_dbt.rows.mapping import Mapping
from dinmo_dbt.rows.repeats import Matches, Seen, fresh_twins, key_problems, repeated_texts
from dinmo_dbt.rows.rowhash import NO_DIGESTS, Hashes, from_arrow
from dinmo_dbt.rows.set_aside import set_aside, set_doubtful_aside
from dinmo_dbt.rows.sets import distinct
from dinmo_dbt.rows.settling import Candidates, all_candidates, doubtful_rows, give_slots, own_slots, rebase
from dinmo_dbt.rows.snapshot import Baseline, Flag, Pending, Positions, Snapshot, Spool
from dinmo_dbt.rows.spooled import Spooled, constant_characters, joined, lengths, spool_columns


def between(
    batches: Iterable[pa.RecordBatch],
    mapping: Mapping,
    snapshot: Snapshot,
    spool: Spool,
    *,
    older: Sequence[Mapping] = (),
    pending: Pending | None = None,
    resend: bool = False,
    inserting: bool = False,
    ignore_changes: bool = False,
    finding: bool = False,
    watched: Positions | None = None,
    hash_key: Callable[[pa.Array], Hashes] = key_hash,
) -> ChangeSet:
    """Scan the segment once and class every row; rows that may have to be sent go to `spool`.

    Spooled columns: key, kh, ck, `match` when there is one, then one column a mapped field, named by its header.
    `resend` spools unchanged rows too (--full). `inserting`: a returned or remapped row is only re-baselined;
    with `ignore_changes` a changed one too. `older` are the stored mappings besides today's, newest first; their
    model columns must all be in the batches. Key and match problems are `refusals`: nothing may be sent then.
    `finding`: rows only lead to records that are there, so that one without a match value is no reason to refuse.
    `watched`: snapshot positions whose values are kept if they are unchanged.
    """
    pending = pending or Pending.none()
    index, waiting = Index(snapshot.kh), Index(pending.kh)
    known = Known(mapping, older, snapshot, pending, index, waiting, resend, inserting, ignore_changes)
    scan = _Comparison(known, spool, hash_key, watched)
    for batch in batches:
        if batch.num_rows:
            scan.add(batch)
    return scan.finish(finding=finding)


class _Comparison:
    """What the batches have shown so far."""

    def __init__(
        self, known: Known, spool: Spool, hash_key: Callable[[pa.Array], Hashes], watched: Positions | None
    ) -> None:
        self.known, self.spool, self.hash_key = known, spool, hash_key
        self.constants = constant_characters(known.mapping)
        self.read = self.quiet = self.blank_keys = self.rows_spooled = 0
        self.seen = Seen(len(known.snapshot.kh))
        self.matches = Matches(known.mapping.match)
        self.spooled: list[Spooled] = []
        self.asides: list[pa.Table] = []
        # Rows whose slot is known only by key hash: where they are, and their keys.
        self.candidates: list[Candidates] = []
        self.longest: dict[str, int] = {}
        self.baselines: list[Baseline] = []
        self.watching: npt.NDArray[np.bool_] | None = None
        self.watched: list[pa.Table] = []
        if watched is not None and len(watched):
            self.watching = np.zeros(len(known.snapshot.kh), np.bool_)
            self.watching[watched] = True

    def add(self, batch: pa.RecordBatch) -> None:
        self.read += batch.num_rows
        key = key_text([batch.column(name) for name in self.known.mapping.key])
        if key.null_count:
            self.blank_keys += key.null_count
            whole = pc.is_valid(key)
            batch, key = batch.filter(whole), key.filter(whole)
            if batch.num_rows == 0:
                return
        rows = hash_rows(batch, key, self.known.mapping, self.hash_key)
        for header, characters in rows.longest.items():
            self.longest[header] = max(characters, self.longest.get(header, 0))
        self.matches.note(rows)
        found = find(batch, rows, self.known)
        self.note_unchanged(rows, found)
        self.keep_watched(rows, found)
        self.set_aside(rows, found)
        self.write(rows, found)

    def note_unchanged(self, rows: Hashed, found: Found) -> None:
        self.seen.hit(found.slot[found.unchanged])
        if self.known.inserting and found.returned.any():
            self.baselines.append(Baseline(found.slot[found.returned], rows.ck[found.returned]))
        self.quiet += int(np.count_nonzero(found.unchanged & ~found.spooled & ~found.doubtful))

    def keep_watched(self, rows: Hashed, found: Found) -> None:
        if self.watching is None:
            return
        at = np.flatnonzero(found.unchanged)
        at = at.compress(self.watching.take(found.slot.take(at)))
        if at.size:
            columns = spool_columns(at, rows, self.known.mapping)
            self.watched.append(pa.table({**columns, "position": found.slot[at]}))

    def set_aside(self, rows: Hashed, found: Found) -> None:
        if found.doubtful.any():
            self.asides.append(set_doubtful_aside(rows.key.filter(pa.array(found.doubtful)), rows.kh[found.doubtful]))
        at = np.flatnonzero((rows.reason != 0) | found.held)
        if at.size:
            self.asides.append(set_aside(at, rows, found, self.known))
            self.note_candidates(rows, found, at[found.found[at]], np.int64(-1))

    def write(self, rows: Hashed, found: Found) -> None:
        at = np.flatnonzero(found.spooled)
        if not at.size:
            return
        mapping = self.known.mapping
        columns = spool_columns(at, rows, mapping)
        no_bulk, width = lengths(columns, mapping, self.constants)
        self.spool.write(pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns)))
        slot, older = found.slot[at], found.older[at]
        settled = found.unchanged[at] | (older >= 0)
        position = np.where(settled, slot, -1)
        self.spooled.append(Spooled(found.kinds()[at], position, older, rows.kh[at], no_bulk, width))
        unsettled = np.flatnonzero(found.found[at] & ~settled)
        self.note_candidates(rows, found, at[unsettled], unsettled + self.rows_spooled)
        self.seen.hit(slot[older >= 0])
        self.rows_spooled += len(at)

    def note_candidates(self, rows: Hashed, found: Found, at: Positions, numbers: Positions | np.int64) -> None:
        """Rows of a batch, and their numbers in the spool."""
        if at.size:
            numbers = np.broadcast_to(numbers, at.shape)
            self.candidates.append(Candidates(found.slot[at], rows.kh[at], rows.key.take(pa.array(at)), numbers))

    def finish(self, *, finding: bool) -> ChangeSet:
        known, spooled = self.known, joined(self.spooled)
        self.spooled.clear()
        known_aside = self.settle_candidates(spooled)
        rebased, unjudged = rebase(spooled, known)
        baselines = [*self.baselines, self.baseline_of(rebased, spooled)]
        dropped = spooled.kind == Kind.DROPPED
        quiet = self.quiet + int(np.count_nonzero(dropped))
        # They wait, and are not counted unchanged.
        doubtful = doubtful_rows(spooled, known) if known.inserting else np.empty(0, np.int64)
        if doubtful.size:
            taken = self.spool.take(doubtful, ["key", "kh"]).combine_chunks()
            self.asides.append(set_doubtful_aside(taken["key"], taken["kh"]))
        had_left = np.asarray(known.snapshot.flags) & Flag.LEFT != 0
        changes = ChangeSet(
            read=self.read,
            unchanged=quiet - len(doubtful),
            kind=spooled.kind,
            position=spooled.position,
            older=spooled.older,
            kh=spooled.kh,
            no_bulk=spooled.no_bulk,
            width=spooled.width,
            aside=pa.concat_tables([ASIDE.empty_table(), *self.asides]),
            baseline=Baseline(
                np.concatenate([each.positions for each in baselines]),
                np.concatenate([NO_DIGESTS, *(each.ck for each in baselines)]),
            ),
            left=np.flatnonzero(~self.seen.once & ~had_left),
            away=np.flatnonzero(~self.seen.once & had_left),
            known_aside=known_aside,
            watched=pa.concat_tables(self.watched) if self.watched else None,
            longest=self.longest,
            unjudged=unjudged,
        )
        repeated = self.repeated_keys(changes)
        changes.refusals = key_problems(known.mapping, self.blank_keys, repeated, self.matches, finding=finding)
        return changes

    def settle_candidates(self, spooled: Spooled) -> int:
        """How many of them were set aside and are known."""
        if not self.candidates:
            return 0
        candidates = all_candidates(self.candidates)
        own = own_slots(candidates, self.known)
        self.seen.hit(own[own >= 0])
        give_slots(spooled, candidates, own)
        return int(np.count_nonzero((own >= 0) & (candidates.rows < 0)))

    def baseline_of(self, rows: Positions, spooled: Spooled) -> Baseline:
        """The check hashes that these spooled rows have from now on."""
        ck = from_arrow(self.spool.take(rows, ["ck"])["ck"]) if rows.size else NO_DIGESTS
        return Baseline(spooled.position[rows], ck)

    def repeated_keys(self, changes: ChangeSet) -> Hashes:
        """Key hashes of keys that occur more than once in the segment, after comparing the keys themselves."""
        repeated = [self.known.snapshot.kh.take(np.flatnonzero(self.seen.again))]
        # New rows have no slot to be hit twice: group them by key hash, then compare.
        rows, twins = fresh_twins(changes)
        if len(twins):
            keys = self.spool.take(rows, ["key"])["key"].chunks if rows.size else []
            repeated.append(self.hash_key(repeated_texts(keys, changes.aside, twins)))
        return distinct(np.concatenate(repeated))
