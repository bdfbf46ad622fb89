"""Keys and match values that come more than once in the segment, or not at all: why nothing may be sent then. Pure."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dinmo_dbt.rows.changes import ChangeSet, Kind
from dinmo_dbt.rows.field_types import type_of
from dinmo_dbt.rows.hashed import Hashed
from dinmo_dbt.rows.key_hashes import as_matched, match_digests
from dinmo_dbt.rows.key_problems import KeyProblem, occurring, rows_have
from dinmo_dbt.rows.mapping import MappedColumn, Mapping
from dinmo_dbt.rows.rowhash import Hashes
from dinmo_dbt.rows.sets import among, distinct
from dinmo_dbt.rows.snapshot import Positions


class Seen:
    """Which rows of a snapshot the segment has, and which of them more than once."""

    def __init__(self, count: int) -> None:
        self.once = np.zeros(count, np.bool_)
        self.again = np.zeros(count, np.bool_)
        self._last = np.zeros(count, np.int32)

    def hit(self, positions: Positions) -> None:
        """Note that the segment has these keys; a position that comes twice, now or over time, is a repeated key."""
        order = np.arange(len(positions), dtype=np.int32)
        self._last[positions] = order  # of equal positions one wins, so the others differ
        again = self.once.take(positions) | (self._last.take(positions) != order)
        self.again[positions[again]] = True
        self.once[positions] = True


class Matches:
    """The match values of the segment, as hashes that are long enough to call two equal ones one value."""

    def __init__(self, column: MappedColumn | None) -> None:
        self.column = column
        self.blank = 0
        self._lanes: tuple[list[Hashes], list[Hashes]] = [], []

    def note(self, rows: Hashed) -> None:
        if self.column is None:
            return
        folded = as_matched(rows.of(self.column), self.column.field)
        self.blank += int(pc.sum(pc.and_(pc.is_null(folded), pa.array(rows.reason == 0))).as_py() or 0)
        digests = match_digests(folded.drop_null())
        for lane, hashes in zip(self._lanes, digests.T, strict=True):
            lane.append(hashes.copy())

    def repeated(self) -> Hashes:
        """The first lanes of the values that come more than once. Most often none is, and one lane says so."""
        if not self._lanes[0]:
            return np.empty(0, np.uint64)
        twins = _twins(np.concatenate(self._lanes[0]))
        if not len(twins):
            return twins
        alike = [np.flatnonzero(among(hashes, twins)) for hashes in self._lanes[0]]
        digests = [np.concatenate([part[at] for part, at in zip(lane, alike, strict=True)]) for lane in self._lanes]
        whole, counts = np.unique(np.stack(digests, axis=1), axis=0, return_counts=True)  # noqa: TID251
        again: Hashes = whole[counts > 1, 0]
        return again


def fresh_twins(changes: ChangeSet) -> tuple[Positions, Hashes]:
    """Of keys that no slot of the snapshot has: the spooled rows whose key hash comes more than once, and those hashes,
    which rows set aside may have too. Whether the keys are one they do not say."""
    fresh = np.flatnonzero((changes.position < 0) & (changes.kind == Kind.ADDED))
    twins = _twins(np.concatenate([changes.kh[fresh], changes.aside["kh"].to_numpy()]))
    return fresh[among(changes.kh[fresh], twins)], twins


def repeated_texts(keys: list[pa.Array], aside: pa.Table, twins: Hashes) -> pa.Array:
    """Of those keys, and of the rows set aside that have one of those hashes, the texts that come more than once."""
    others = aside["key"].filter(pa.array(among(aside["kh"].to_numpy(), twins)))
    counts = pa.chunked_array([*keys, *others.chunks], pa.utf8()).value_counts()
    return counts.filter(pc.greater(counts.field("counts"), 1)).field("values")


def key_problems(
    mapping: Mapping, blank_keys: int, repeated: Hashes, matches: Matches, *, finding: bool
) -> list[KeyProblem]:
    """`finding`: rows only lead to records that are there, so that one without a match value is no problem."""
    found, key, match = [], mapping.key, mapping.match
    if blank_keys:
        found.append(KeyProblem(f"{rows_have(blank_keys)} no key ({', '.join(key)} is null or blank)", key))
    if len(repeated):
        message = f"{occurring(len(repeated), 'key')} more than once ({', '.join(key)})"
        found.append(KeyProblem(message, key, hashes=repeated))
    if match is None:
        return found
    if matches.blank and not finding:
        message = f"{rows_have(matches.blank)} no match value ({match.source} is null or blank)"
        found.append(KeyProblem(message, (match.source,), is_match=True))
    twins = matches.repeated()
    if len(twins) and not len(repeated):
        kept = type_of(match.field).twins_because
        message = f"{occurring(len(twins), 'value', f' of {match.source}')} more than once, as Salesforce compares "
        found.append(KeyProblem(f"{message}{match.header}{kept}", (match.source,), is_match=True, hashes=twins))
    return found


def _twins(hashes: Hashes) -> Hashes:
    """Sorts them, which takes no room of its own."""
    hashes.sort()
    return distinct(hashes[1:][hashes[1:] == hashes[:-1]])
