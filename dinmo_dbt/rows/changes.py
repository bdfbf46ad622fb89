"""What changed: one row of the segment against the snapshot, and all of them. Values, pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dinmo_dbt.rows.key_problems import KeyProblem
from dinmo_dbt.rows.reasons import Reasons
from dinmo_dbt.rows.rowhash import Hashes
from dinmo_dbt.rows.snapshot import Baseline, Positions


class Kind(IntEnum):
    """What one spooled row is, against the snapshot."""

    ADDED = 1
    CHANGED = 2
    REMAPPED = 3
    RETURNED = 4  # its key had left the segment
    SAME = 5  # known and sent again: by --full, or because its check hash says nothing
    DROPPED = 6  # not to be sent after all: re-baselined, in flight, or set aside


class Aside(IntEnum):
    """Why a row of the segment is neither unchanged nor spooled."""

    INVALID = 1
    HELD = 2


@dataclass
class ChangeSet:
    """Every row of the segment, accounted for: with no refusal, `read == unchanged + spooled + aside`, where
    spooled leaves out the rows of kind DROPPED.

    `kind`, `position` (in the snapshot, -1 for none), `older` (which older mapping a remapped row agrees with, -1 for
    none), `kh`, `no_bulk` (the `Reason` why the row can't travel by Bulk API 2.0, 0 for none: a text equal to
    #N/A, or too many characters) and `width` (CSV bytes, never too few) run parallel to the spool. `aside` has columns
    key, kh, why (`Aside`), reason (`Reason`), column (its header), code and mh (`match_hash`).
    `unchanged` includes the re-baselined rows. `left` are positions of the keys that leave the segment, `away` of those
    that had left before and are not back.
    `unjudged` rows of an insert are back, and whether they changed while away can't be known: they count as unchanged.
    `longest`: by header, the most characters of a text that its field has no place for.
    `known_aside` are the rows of `aside` that the snapshot has, hashed perhaps under an older mapping. `watched`, if
    rows were to be watched: those of them that are unchanged, with the columns of the spool and `position`.
    """

    read: int
    unchanged: int
    kind: npt.NDArray[np.uint8]
    position: Positions
    older: npt.NDArray[np.int8]
    kh: Hashes
    no_bulk: Reasons
    width: npt.NDArray[np.uint32]
    aside: pa.Table
    baseline: Baseline
    left: Positions
    away: Positions
    known_aside: int = 0
    refusals: list[KeyProblem] = field(default_factory=list)
    watched: pa.Table | None = None
    longest: dict[str, int] = field(default_factory=dict)
    unjudged: int = 0

    def count(self, kind: Kind) -> int:
        return int(np.count_nonzero(self.kind == kind))


ASIDE = pa.schema(
    [
        pa.field("key", pa.utf8()),
        pa.field("kh", pa.uint64()),
        pa.field("why", pa.uint8()),
        pa.field("reason", pa.uint8()),
        pa.field("column", pa.utf8()),
        pa.field("code", pa.utf8()),
        pa.field("mh", pa.uint64()),
    ]
)
