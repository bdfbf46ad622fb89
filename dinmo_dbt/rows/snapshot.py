"""What Salesforce acknowledged last, and rows on their way: as change detection sees them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dinmo_dbt.rows.rowhash import NO_DIGESTS, Digests, Hashes, as_arrow

Positions = npt.NDArray[np.int64]
OUTCOME_UNKNOWN = "OUTCOME_UNKNOWN"
GIVEN_UP = "GIVEN_UP"


class Flag(IntEnum):
    """Bits of a snapshot row's `flags`."""

    CREATED = 1  # this activation created the record
    ADOPTED = 2  # taken over from before
    LEFT = 4  # the key is no longer in the segment
    STALE = 8  # its check hash says nothing: it is sent again once it is in the segment, by an insert never
    UNFINISHED = 32  # delivered without what could not be sent yet: sent again until it is whole, by an insert never
    UNKNOWN = 16  # inserted, perhaps: the outcome can't be learned, so it is never sent again as it is


class Snapshot(Protocol):
    """What Salesforce last acknowledged, by key hash. Arrays are parallel and sorted by `kh`."""

    kh: Hashes
    ck: Digests
    flags: npt.NDArray[np.uint8]

    def keys(self, positions: Positions) -> pa.Array:
        """The key texts at these positions, in their order."""

    def record_ids(self, positions: Positions) -> pa.Array:
        """The record ids (null where none is known) at these positions, in their order."""


class Spool(Protocol):
    """Rows on their way from the scan to the plan, in the order written."""

    def write(self, rows: pa.RecordBatch) -> None: ...

    def take(self, rows: Positions, columns: Sequence[str] | None = None) -> pa.Table:
        """The rows of these numbers, ascending and without repeats, in one table."""


@dataclass(frozen=True)
class Pending:
    """Rows that wait, sorted by `kh`: key and check hashes, whether each may be tried now, why it waits, and what
    describe said of the mapped fields when it was refused (`Mapping.described`, '' where that is not known). `since`:
    when each was refused first with these values, by the org's clock, in seconds since the epoch; 0 where that is not
    known, or where it is asked for by name."""

    kh: Hashes
    ck: Digests
    due: npt.NDArray[np.bool_]
    codes: pa.Array
    described: pa.Array
    since: npt.NDArray[np.float64] = field(default_factory=lambda: np.empty(0))

    @classmethod
    def none(cls) -> Pending:
        empty = pa.array([], pa.utf8())
        return cls(np.empty(0, np.uint64), NO_DIGESTS, np.empty(0, np.bool_), empty, empty)

    def given_up(self, after: float | None, now: float | None) -> Pending:
        """The same; what was refused for so many seconds is not tried, and its code says so, with the day and the code
        of the refusal. `now`: by the org's clock. Nothing is given up where either is None."""
        if after is None or now is None or not len(self.since):
            return self
        old = (self.since > 0) & (self.since <= now - after)
        days = pa.array(self.since.astype(np.int64)).cast(pa.timestamp("s")).cast(pa.date32()).cast(pa.utf8())
        codes = pc.binary_join_element_wise(GIVEN_UP, days, pc.fill_null(self.codes, ""), " ")
        return dataclasses.replace(self, due=self.due & ~old, codes=pc.if_else(pa.array(old), codes, self.codes))

    def released(self, described: str) -> Pending:
        """The same; what was refused under another description of the fields may be tried now."""
        moved = pc.not_equal(self.described, described).to_numpy(zero_copy_only=False)
        return dataclasses.replace(self, due=self.due | moved)


@dataclass(frozen=True)
class Baseline:
    """Where acknowledged rows stand today: snapshot positions and the check hashes they are to have."""

    positions: Positions
    ck: Digests


def positions_of(snapshot: Snapshot, kh: Hashes, keys: pa.Array) -> Positions:
    """Where the snapshot holds each key; -1 for none. Found by key hash, decided by the key."""
    slot = np.full(len(kh), -1, np.int64)
    at = np.searchsorted(snapshot.kh, kh, "left")
    end = np.searchsorted(snapshot.kh, kh, "right")
    rows = np.flatnonzero(at < end)
    while rows.size:  # bounded by the largest group of equal key hashes
        same = pc.equal(snapshot.keys(at[rows]), keys.take(pa.array(rows))).to_numpy(zero_copy_only=False)
        slot[rows[same]] = at[rows[same]]
        at[rows] += 1
        rows = rows[~same & (at[rows] < end[rows])]
    return slot


def keys_in_segment(snapshot: Snapshot) -> int:
    """How many keys the last syncs left in the segment."""
    return int(np.count_nonzero(np.asarray(snapshot.flags) & Flag.LEFT == 0))


def snapshot_rows(
    snapshot: Snapshot,
    positions: Positions,
    op: str,
    flags: npt.NDArray[np.uint8] | None = None,
    ck: Digests | None = None,
) -> pa.Table:
    """Rows of the snapshot as a move of it: kh, ck and flags (theirs, unless given), key, record_id and op."""
    flags = snapshot.flags[positions] if flags is None else flags
    ck = snapshot.ck[positions] if ck is None else ck
    return pa.table(
        {
            "kh": pa.array(snapshot.kh[positions], pa.uint64()),
            "ck": as_arrow(ck),
            "key": snapshot.keys(positions),
            "record_id": snapshot.record_ids(positions),
            "flags": pa.array(flags, pa.uint8()),
            "op": pa.repeat(op, len(positions)),
        }
    )


def stale_rows(snapshot: Snapshot, positions: Positions) -> pa.Table:
    """The same for rows whose check hash is to say nothing: they are sent again once they are in the segment."""
    flags = snapshot.flags[positions] | np.uint8(Flag.STALE)
    return snapshot_rows(snapshot, positions, "put", flags.astype(np.uint8))
