"""Key hashes, sorted, and the rows of a snapshot that have one. Pure."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dinmo_dbt.rows.rowhash import Digests, Hashes, same_digests
from dinmo_dbt.rows.snapshot import Positions


class Index:
    """Finds the first snapshot slot of a key hash: a directory over its top bits, then a short walk."""

    def __init__(self, kh: Hashes) -> None:
        self.kh = kh
        bits = max(4, int(np.ceil(np.log2(max(len(kh), 2)))) - 1)
        self.shift = np.uint64(64 - bits)
        sizes = np.zeros((1 << bits) + 1, np.uint32)
        for start in range(0, len(kh), 1 << 20):
            buckets = (kh[start : start + (1 << 20)] >> self.shift).view(np.int64)
            first, last = (int(buckets[0]), int(buckets[-1])) if len(buckets) else (0, 0)
            sizes[first + 1 : last + 2] += np.bincount(buckets - first, minlength=last - first + 1).astype(np.uint32)
        self.starts = np.cumsum(sizes, dtype=np.uint32)

    def first(self, kh: Hashes) -> tuple[Positions, npt.NDArray[np.bool_]]:
        """The first slot whose hash is not smaller, and whether it is that hash."""
        size = len(self.kh)
        if size == 0:
            return np.full(len(kh), -1, np.int64), np.zeros(len(kh), np.bool_)
        slot = self.starts.take((kh >> self.shift).view(np.int64)).astype(np.int64)
        short = np.flatnonzero(self.kh.take(slot, mode="clip") < kh)
        short = short.compress(slot.take(short) < size)
        while short.size:  # bounded by the fullest bucket
            slot[short] += 1
            inside = slot.take(short) < size
            short = short.compress(inside)
            short = short.compress(self.kh.take(slot.take(short)) < kh.take(short))
        found = (slot < size) & (self.kh.take(slot, mode="clip") == kh)
        return slot, found

    def same(self, slot: Positions, kh: Hashes) -> npt.NDArray[np.bool_]:
        same: npt.NDArray[np.bool_] = (slot < len(self.kh)) & (self.kh.take(slot, mode="clip") == kh)
        return same

    def agreeing(
        self, slot: Positions, rows: npt.NDArray[np.bool_], kh: Hashes, ck: Digests, stored: Digests
    ) -> npt.NDArray[np.bool_]:
        """Of `rows`, those whose check hash a slot of their key hash holds; their `slot` moves to that one."""
        same = rows.copy()
        if len(self.kh) == 0:
            return same
        same &= same_digests(stored.take(slot, axis=0, mode="clip"), ck)
        open_rows = np.flatnonzero(rows & ~same)
        ahead = slot.take(open_rows) + 1
        while open_rows.size:  # bounded by the largest group of equal key hashes
            keep = self.same(ahead, kh.take(open_rows))
            open_rows, ahead = open_rows.compress(keep), ahead.compress(keep)
            here = same_digests(stored.take(ahead, axis=0, mode="clip"), ck.take(open_rows, axis=0))
            slot[open_rows[here]] = ahead[here]
            same[open_rows[here]] = True
            open_rows, ahead = open_rows[~here], ahead[~here] + 1
        return same
