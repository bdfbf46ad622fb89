"""The rows of one batch against what is known: which are unchanged, which wait, and which may have to be sent. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dinmo_dbt.rows.changes import Kind
from dinmo_dbt.rows.hashed import Hashed, hash_under
from dinmo_dbt.rows.index import Index
from dinmo_dbt.rows.mapping import Mapping
from dinmo_dbt.rows.snapshot import Flag, Pending, Positions, Snapshot

Rows = npt.NDArray[np.bool_]  # of a batch, those that it holds for


@dataclass(frozen=True)
class Known:
    """What rows are held against: the snapshot and the rows that wait, both by key hash, and how a run of this mode
    goes by them. `older`, `resend`, `inserting` and `ignore_changes` are those of `compare.between`."""

    mapping: Mapping
    older: Sequence[Mapping]
    snapshot: Snapshot
    pending: Pending
    index: Index  # of the snapshot
    waiting: Index  # of `pending`
    resend: bool
    inserting: bool
    ignore_changes: bool


@dataclass(frozen=True)
class Found:
    """What each row of a batch is.

    `slot`: the snapshot row that has its key hash, where `found`; only where the row is unchanged or agrees with an
    older mapping is that known to be its own. `unchanged` rows are as they were acknowledged; of these `returned` had
    left the segment, and `doubtful` are inserts that may have been made. `held` rows wait unchanged, each as the row
    `which` of those that wait. `older`: the older mapping that a row agrees with, -1 for none. `spooled` rows may have
    to be sent.
    """

    slot: Positions
    found: Rows
    unchanged: Rows
    returned: Rows
    doubtful: Rows
    held: Rows
    which: Positions
    older: npt.NDArray[np.int8]
    spooled: Rows

    def kinds(self) -> npt.NDArray[np.uint8]:
        kind = np.where(self.found, Kind.CHANGED, Kind.ADDED).astype(np.uint8)
        kind[self.older >= 0] = Kind.REMAPPED
        kind[self.unchanged] = Kind.SAME
        kind[self.returned] = Kind.RETURNED
        return kind


def find(batch: pa.RecordBatch, rows: Hashed, known: Known) -> Found:
    """`rows` are those of the batch."""
    slot, found = known.index.first(rows.kh)
    same = known.index.agreeing(slot, found, rows.kh, rows.ck, known.snapshot.ck)
    invalid = rows.reason != 0

    unchanged = same & ~invalid
    flags = _flags_at(known.snapshot, slot, unchanged)
    doubtful = flags & Flag.UNKNOWN != 0
    if not known.inserting:  # looked up by its match and sent again, it does no harm
        unchanged &= ~doubtful
        doubtful[:] = False
    unfinished = (flags & Flag.LEFT == 0) & (flags & (Flag.STALE | Flag.UNFINISHED) != 0)
    stale = unchanged & unfinished & (not known.inserting)
    held, which = _held(rows, known, (~unchanged | stale) & ~invalid)
    unchanged &= ~held
    returned = unchanged & (flags & Flag.LEFT != 0)
    again = returned | (stale & ~held)
    older = _older_mapping(batch, rows, known, slot, found & ~same & ~invalid & ~held)
    spooled = ~invalid & ~held & (~unchanged | again | known.resend)
    if known.inserting:
        spooled &= ~unchanged
    return Found(slot, found, unchanged, returned, doubtful, held, which, older, spooled)


def _flags_at(snapshot: Snapshot, slot: Positions, rows: Rows) -> npt.NDArray[np.uint8]:
    flags = np.zeros(len(slot), np.uint8)
    at = np.flatnonzero(rows)
    flags[at] = snapshot.flags.take(slot[at])
    return flags


def _held(rows: Hashed, known: Known, of: Rows) -> tuple[Rows, Positions]:
    """Rows that wait unchanged and may not be tried yet, and which pending row each is."""
    slot, found = known.waiting.first(rows.kh)
    same = known.waiting.agreeing(slot, found & of, rows.kh, rows.ck, known.pending.ck)
    if known.resend or not same.any():
        return np.zeros(len(rows.kh), np.bool_), slot
    return same & ~known.pending.due.take(slot, mode="clip"), slot


def _older_mapping(
    batch: pa.RecordBatch, rows: Hashed, known: Known, slot: Positions, of: Rows
) -> npt.NDArray[np.int8]:
    """Which older mapping each of those rows was acknowledged under with today's values, -1 for none; its `slot` moves
    to the one that says so."""
    which = np.full(len(slot), -1, np.int8)
    for number, mapping in enumerate(known.older):
        at = np.flatnonzero(of & (which < 0))
        if not at.size:
            break
        indices = pa.array(at)
        ck = hash_under(batch.take(indices), rows.key.take(indices), mapping)
        here = slot[at]
        agree = known.index.agreeing(here, np.ones(len(at), np.bool_), rows.kh[at], ck, known.snapshot.ck)
        slot[at[agree]] = here[agree]
        which[at[agree]] = number
    return which
