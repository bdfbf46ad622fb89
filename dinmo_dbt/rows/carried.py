"""Rows that hold the very values of a known row of another key: the same rows, whose keys moved. Pure.

A key may be written in ways that nobody thought of, or be handed on (a row number, a time in another zone). The values
tell: a check hash is a sum of its parts, so what the key adds to it is taken away, and a hash of the other values is
left, of known rows too, whose values nobody keeps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dinmo_dbt.rows import values
from dinmo_dbt.rows.keys import key_parts
from dinmo_dbt.rows.mapping import MappedColumn, Mapping, as_written
from dinmo_dbt.rows.rowhash import NO_DIGESTS, Digests, as_arrow, digest_columns
from dinmo_dbt.rows.sets import union
from dinmo_dbt.rows.snapshot import Flag, Positions, Snapshot, Spool

Flags = npt.NDArray[np.bool_]

_CHUNK_ROWS = 100_000
_CONTROL_ROWS = 10_000
_BY_CHANCE = 10  # so many times what chance explains: values that many rows have tell nothing of one


@dataclass(frozen=True)
class Carried:
    """Spool rows, and for each the one position in the snapshot whose values it has."""

    rows: Positions
    slots: Positions


NONE = Carried(np.empty(0, np.int64), np.empty(0, np.int64))


def find(
    mappings: Sequence[Mapping], snapshot: Snapshot, spool: Spool, rows: Positions, own: Positions, gone: Positions
) -> Carried:
    """Which of `rows` (of the spool, ascending; `own`: the position of each one's key in the snapshot, -1 for none)
    have the values that a row of another key was acknowledged with: one that is `gone`, or that has other values now.

    Only values that one row of each side has count, and only where they are far more than as many other known rows
    would have by chance. `mappings`: those that the snapshot holds rows of.
    """
    before = union(gone, own[own >= 0])
    before = before[np.asarray(snapshot.flags)[before] & Flag.STALE == 0]
    if not (rows.size and before.size):
        return NONE
    sample = np.arange(0, len(snapshot.kh), max(1, len(snapshot.kh) // _CONTROL_ROWS))
    control = sample[~np.isin(sample, before)]
    found = [_under(mapping, snapshot, spool, rows, own, before, control) for mapping in mappings]
    taken, first = np.unique(np.concatenate([each.rows for each in found]), return_index=True)  # noqa: TID251
    return Carried(taken, np.concatenate([each.slots for each in found])[first])


def _under(
    mapping: Mapping,
    snapshot: Snapshot,
    spool: Spool,
    rows: Positions,
    own: Positions,
    before: Positions,
    control: Positions,
) -> Carried:
    match = [("match", mapping.match)] if mapping.match else []
    placed = list(enumerate([*match, *((column.header, column) for column in mapping.columns)], start=1))
    keyed = [(at, column) for at, (_, column) in placed if column.source in mapping.key]
    rest = [(at, name, column) for at, (name, column) in placed if column.source not in mapping.key]
    now = _now(mapping, spool, rows, rest)
    if now is None:
        return NONE
    then = _then(mapping, snapshot, before, keyed)
    carrying, places = _paired(now, then, *_elsewhere(now, then, own, before))
    if control.size and carrying.size:
        others = _then(mapping, snapshot, control, keyed)
        if len(carrying) <= _BY_CHANCE * _share(others, now) * len(before):
            return NONE
    return Carried(rows[carrying], before[places])


def _elsewhere(now: Digests, then: Digests, own: Positions, before: Positions) -> tuple[Flags, Flags]:
    """Which rows, and which known rows, may have moved: a row with the values that its own key had is where it was."""
    at = np.searchsorted(before, own)
    kept = np.flatnonzero((own >= 0) & (before.take(at, mode="clip") == own))
    kept = kept[(now[kept] == then[at[kept]]).all(axis=1)]
    moved, left = np.ones(len(now), np.bool_), np.ones(len(then), np.bool_)
    moved[kept], left[at[kept]] = False, False
    return moved, left


def _paired(now: Digests, then: Digests, moved: Flags, left: Flags) -> tuple[Positions, Positions]:
    """Of the rows that `moved` and the known rows that `left`, those with the same values, which no other of them has:
    where they are in `now`, and in `then`."""
    rows, places = (np.flatnonzero(among & _once(as_arrow(of), among)) for of, among in ((now, moved), (then, left)))
    index = pc.index_in(as_arrow(now[rows]), value_set=as_arrow(then[places]))
    same = pc.is_valid(index).to_numpy(zero_copy_only=False)
    return rows[same], places[index.drop_null().to_numpy()]


def _share(others: Digests, now: Digests) -> float:
    """How many of these rows, which nothing says have moved, have the values of a row of now."""
    found: float = pc.mean(pc.is_in(as_arrow(others), value_set=as_arrow(now)).cast(pa.int64())).as_py()
    return found


def _now(
    mapping: Mapping, spool: Spool, rows: Positions, rest: Sequence[tuple[int, str, MappedColumn]]
) -> Digests | None:
    """What the rows' values but the key's add to a check hash; None where the mapping has none that the spool holds."""
    names = [name for _, name, _ in rest]
    digests = []
    for start in range(0, len(rows), _CHUNK_ROWS):
        part = spool.take(rows[start : start + _CHUNK_ROWS])
        if not names or any(name not in part.column_names for name in names):
            return None
        arrays = [part[name].combine_chunks() for name in names]
        written = as_written(arrays, [column for _, _, column in rest])
        if written is None:
            return None
        digests.append(digest_columns(written, seed=mapping.digest, positions=[at for at, _, _ in rest]))
    return np.concatenate([NO_DIGESTS, *digests])


def _then(
    mapping: Mapping, snapshot: Snapshot, positions: Positions, keyed: Sequence[tuple[int, MappedColumn]]
) -> Digests:
    """The same of known rows as they were acknowledged under this mapping."""
    keys = snapshot.keys(positions)
    parts = dict(zip(mapping.key, key_parts(keys, len(mapping.key)), strict=True)) if keyed else {}
    arrays = [keys, *(values.from_text(parts[column.source], column.field) for _, column in keyed)]
    digests: Digests = snapshot.ck[positions] - digest_columns(
        arrays, seed=mapping.digest, positions=[0, *(at for at, _ in keyed)]
    )
    return digests


def _once(digests: pa.Array, among: Flags) -> Flags:
    """Where a value is that one row `among` them has."""
    counts = digests.filter(pa.array(among)).value_counts()
    alone = counts.field("values").filter(pc.equal(counts.field("counts"), 1))
    once: Flags = pc.is_in(digests, value_set=alone).to_numpy(zero_copy_only=False)
    return once
