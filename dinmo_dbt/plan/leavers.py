"""Keys that left the segment: whose records `on_removed` may touch, and why it leaves the others as they are. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dinmo_dbt.rows.rowhash import DIGEST, as_arrow
from dinmo_dbt.rows.sets import among
from dinmo_dbt.rows.snapshot import Flag, Pending, Positions, Snapshot

RECORD_ID_UNKNOWN = "RECORD_ID_UNKNOWN"
RECORD_SHARED = "RECORD_SHARED"
KEY_RESPELLED = "KEY_RESPELLED"

_NONE: Positions = np.empty(0, np.int64)


@dataclass(frozen=True)
class Leavers:
    """Snapshot positions of the keys that left, each in one place.

    `noted` only get `Flag.LEFT`; the rest stay as they are until Salesforce acknowledges what is done to their records:
    `removing` are to be sent now (a table as batches want it: key, kh, ck, flags, Id), `held` wait, by code, and
    `in_flight` rows are in a batch whose outcome has not been read yet.
    """

    noted: Positions = field(default_factory=lambda: _NONE)
    removing: pa.Table = field(default_factory=lambda: _rows_of(None, _NONE))
    held: tuple[tuple[str, pa.Array], ...] = ()
    in_flight: int = 0

    @property
    def held_rows(self) -> int:
        return sum(len(keys) for _, keys in self.held)


def sort_out(
    left: Positions,
    snapshot: Snapshot,
    pending: Pending,
    *,
    flying: Callable[[Positions], npt.NDArray[np.bool_]],
    shared: Callable[[pa.Array], npt.NDArray[np.bool_]],
    moved: Callable[[Positions], npt.NDArray[np.bool_]],
    retry: bool = False,
) -> Leavers:
    """What is to happen with the keys that left, where `on_removed` is not `ignore`.

    Only records that this activation created or adopted are ever touched; where a key got another spelling, its row of
    before shows it. `shared` says of record ids whether another row of the segment has that record. Of positions,
    `flying` says whether they are in flight, and `moved` whether their row is in the segment under another key and is
    not sent. `retry`: no row waits.
    """
    left, own = _by_claim(left, snapshot)
    noted, left = np.sort(left[~own]), left[own]
    away = flying(left)
    in_flight, left = int(away.sum()), left[~away]
    held: list[tuple[str, pa.Array]] = []

    def hold(left: Positions, why: npt.NDArray[np.bool_], code: str) -> Positions:
        if why.any():
            held.append((code, snapshot.keys(left[why])))
        rest: Positions = left[~why]
        return rest

    if not retry:
        for code, waits in _waiting(left, snapshot, pending):
            left = hold(left, np.isin(left, waits), code)
    left = hold(left, moved(left), KEY_RESPELLED)
    ids = snapshot.record_ids(left)
    nameless = pc.is_null(ids).to_numpy(zero_copy_only=False)
    left, ids = hold(left, nameless, RECORD_ID_UNKNOWN), ids.drop_null()
    # Of two leavers with one record the first speaks for both: the other finds it gone, or set, in the next run. So the
    # row that tells whose record it is goes last.
    first = pc.index_in(ids, value_set=pc.unique(ids)).to_numpy(zero_copy_only=False)
    repeated = np.ones(len(left), np.bool_)
    repeated[np.unique(first, return_index=True)[1]] = False  # noqa: TID251
    left = hold(left, repeated | shared(ids), RECORD_SHARED)
    return Leavers(noted, _rows_of(snapshot, left), tuple(held), in_flight)


def _by_claim(left: Positions, snapshot: Snapshot) -> tuple[Positions, npt.NDArray[np.bool_]]:
    """The leavers whose record this activation did not make or adopt under that key before the others, and which of
    them all have a record that it did, under whatever key."""
    marked = snapshot.flags[left] & (Flag.CREATED | Flag.ADOPTED) != 0
    left = np.concatenate([left[~marked], left[marked]])
    if marked.all() or not marked.any():
        return left, np.full(len(left), marked.any())
    plain = int(np.count_nonzero(~marked))
    ids = snapshot.record_ids(left[plain:]).drop_null()
    own = pc.is_in(snapshot.record_ids(left[:plain]), value_set=ids).to_numpy(zero_copy_only=False)
    return left, np.concatenate([own, np.ones(len(left) - plain, np.bool_)])


def _waiting(left: Positions, snapshot: Snapshot, pending: Pending) -> list[tuple[str, Positions]]:
    """Leavers that were refused and may not be tried yet, by the code that refused them."""
    slots = np.flatnonzero(~pending.due & among(pending.kh, snapshot.kh[left]))
    versions = zip(pending.kh[slots].tolist(), as_arrow(pending.ck[slots]).to_pylist(), strict=True)
    codes = dict(zip(versions, pending.codes.take(pa.array(slots)), strict=True))
    by_code: dict[str, list[int]] = {}
    like = left[among(snapshot.kh[left], pending.kh[slots])]
    hashes = zip(snapshot.kh[like].tolist(), as_arrow(snapshot.ck[like]).to_pylist(), strict=True)
    for position, hashed in zip(like.tolist(), hashes, strict=True):
        code = codes.get(hashed)
        if code is not None:
            by_code.setdefault(code.as_py() or "", []).append(position)
    return [(code, np.array(positions, np.int64)) for code, positions in by_code.items()]


def _rows_of(snapshot: Snapshot | None, positions: Positions) -> pa.Table:
    if snapshot is None:
        texts = pa.array([], pa.utf8())
        columns = [texts, pa.array([], pa.uint64()), pa.array([], DIGEST), pa.array([], pa.uint8()), texts]
    else:
        columns = [
            snapshot.keys(positions),
            pa.array(snapshot.kh[positions]),
            as_arrow(snapshot.ck[positions]),
            pa.array(snapshot.flags[positions]),
            snapshot.record_ids(positions),
        ]
    return pa.table(columns, names=["key", "kh", "ck", "flags", "Id"])
