"""Spooled rows once the whole segment is read: whose slot each has, and which only move their check hash. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dinmo_dbt.rows.changes import Kind
from dinmo_dbt.rows.known import Known
from dinmo_dbt.rows.rowhash import Hashes
from dinmo_dbt.rows.snapshot import Flag, Positions
from dinmo_dbt.rows.spooled import Spooled


@dataclass(frozen=True)
class Candidates:
    """Rows whose key hash a snapshot row has: its slot, their keys, their spool row numbers (-1: set aside)."""

    slot: Positions
    kh: Hashes
    keys: pa.Array
    rows: Positions


def all_candidates(parts: Sequence[Candidates]) -> Candidates:
    return Candidates(
        np.concatenate([part.slot for part in parts]),
        np.concatenate([part.kh for part in parts]),
        pa.concat_arrays([part.keys for part in parts]),
        np.concatenate([part.rows for part in parts]),
    )


def own_slots(candidates: Candidates, known: Known) -> Positions:
    """The slot that really holds each candidate's key, or -1: stored keys are compared, neighbour by neighbour."""
    own = np.full(len(candidates.slot), -1, np.int64)
    rows, at = np.arange(len(own)), candidates.slot.copy()
    while rows.size:  # bounded by the largest group of equal key hashes
        stored = known.snapshot.keys(at)
        equal = pc.equal(stored, candidates.keys.take(pa.array(rows))).to_numpy(zero_copy_only=False)
        own[rows[equal]] = at[equal]
        rows, at = rows[~equal], at[~equal] + 1
        more = known.index.same(at, candidates.kh[rows])
        rows, at = rows[more], at[more]
    return own


def give_slots(spooled: Spooled, candidates: Candidates, own: Positions) -> None:
    """Each spooled candidate gets its own slot; one that has none is a new row."""
    of_spool = candidates.rows >= 0
    spooled.position[candidates.rows[of_spool]] = own[of_spool]
    spooled.kind[candidates.rows[of_spool & (own < 0)]] = Kind.ADDED


def rebase(spooled: Spooled, known: Known) -> tuple[Positions, int]:
    """Settle what known rows are: returned ones, and those that only move their check hash, whose numbers in the spool
    it gives. And how many rows of an insert are `unjudged`."""
    kind, position = spooled.kind, spooled.position
    flags = np.zeros(len(kind), np.uint8)
    at = np.flatnonzero(position >= 0)
    flags[at] = known.snapshot.flags.take(position[at])
    left = flags & Flag.LEFT != 0
    quiet = np.zeros(len(kind), np.bool_)
    count = 0
    if known.inserting:
        quiet |= kind == Kind.REMAPPED
        # A row that left under a mapping no longer stored may or may not have changed: never insert on a guess.
        unjudged = (kind == Kind.CHANGED) & (flags & Flag.STALE != 0) & (not known.ignore_changes)
        count = int(np.count_nonzero(unjudged))
        quiet |= unjudged | ((kind == Kind.CHANGED) & known.ignore_changes)
    else:
        kind[(position >= 0) & left & (kind != Kind.SAME)] = Kind.RETURNED
        kind[(position >= 0) & ~left & (flags & Flag.STALE != 0)] = Kind.SAME
        for number, mapping in enumerate(known.older):
            columns, constants = known.mapping.added_since(mapping)
            if not columns and not constants:
                agree = (kind == Kind.REMAPPED) & (spooled.older == number)
                kind[agree & (flags & Flag.UNFINISHED != 0)] = Kind.SAME
                quiet |= agree & (kind == Kind.REMAPPED)
    rows = np.flatnonzero(quiet)
    kind[rows] = Kind.DROPPED
    return rows, count


def doubtful_rows(spooled: Spooled, known: Known) -> Positions:
    """Of the re-baselined rows, those whose insert may have been made."""
    rows = np.flatnonzero(spooled.kind == Kind.DROPPED)
    doubtful: Positions = rows[known.snapshot.flags.take(spooled.position[rows]) & Flag.UNKNOWN != 0]
    return doubtful
