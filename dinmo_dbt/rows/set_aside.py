"""Rows of the segment that are neither unchanged nor spooled: they can't be sent, or wait. Pure."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dinmo_dbt.rows.changes import ASIDE, Aside
from dinmo_dbt.rows.hashed import Hashed
from dinmo_dbt.rows.key_hashes import match_hash
from dinmo_dbt.rows.known import Found, Known
from dinmo_dbt.rows.rowhash import Hashes
from dinmo_dbt.rows.snapshot import OUTCOME_UNKNOWN, Positions


def set_aside(at: Positions, rows: Hashed, found: Found, known: Known) -> pa.Table:
    """Those rows of a batch, which are invalid or held."""
    mapping, taken = known.mapping, pa.array(at)
    headers = pa.array([mapping.match.header if mapping.match else "", *(c.header for c in mapping.columns)], pa.utf8())
    invalid = rows.reason[at] != 0
    column = headers.take(pa.array(np.where(invalid, rows.culprit[at] + 1, 0)))
    hashes = pa.nulls(len(at), pa.uint64())
    if (by := mapping.match) is not None:
        matches = rows.of(by).take(taken)
        hashes = pa.array(match_hash(matches, by.field), mask=pc.is_null(matches).to_numpy(zero_copy_only=False))
    return pa.table(
        [
            rows.key.take(taken),
            pa.array(rows.kh[at]),
            pa.array(np.where(invalid, Aside.INVALID, Aside.HELD).astype(np.uint8)),
            pa.array(rows.reason[at]),
            pc.if_else(pa.array(invalid), column, pa.scalar(None, pa.utf8())),
            known.pending.codes.take(pa.array(found.which[at], mask=invalid)),
            hashes,
        ],
        schema=ASIDE,
    )


def set_doubtful_aside(keys: pa.Array | pa.ChunkedArray, kh: Hashes | pa.ChunkedArray) -> pa.Table:
    """Rows whose insert may have been made."""
    count = len(keys)
    why, reason = pa.repeat(pa.scalar(int(Aside.HELD), pa.uint8()), count), pa.repeat(pa.scalar(0, pa.uint8()), count)
    nothing = (pa.nulls(count, pa.utf8()), pa.nulls(count, pa.uint64()))
    columns = [keys, kh, why, reason, nothing[0], pa.repeat(OUTCOME_UNKNOWN, count), nothing[1]]
    return pa.table(columns, schema=ASIDE)
