"""What the audits of earlier runs keep of some rows."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from dinmo_dbt.state import seal, waits
from dinmo_dbt.state.state_id import OWN, StateId
from dinmo_dbt.state.tables import Connection
from dinmo_dbt.upkeep.audit import WATCHED


def read(connection: Connection, own: StateId) -> pa.Table | None:
    """`audit.WATCHED`; None if somebody has changed it by hand."""
    rows = connection.execute(
        f"SELECT kh, ck, record_id, digests, seal FROM watched WHERE {OWN} ORDER BY kh", own
    ).fetchall()
    if any(row["seal"] != seal.of([row[name] for name in WATCHED.names]) for row in rows):
        return None
    kh = np.array([row["kh"] for row in rows], np.int64).view(np.uint64)
    texts = ([row[name] for row in rows] for name in ("ck", "record_id", "digests"))
    return pa.table([pa.array(kh), *(pa.array(text, pa.utf8()) for text in texts)], schema=WATCHED)


def keep(connection: Connection, own: StateId, rows: pa.Table) -> None:
    """These of them instead, at most one a key hash."""
    texts = (rows[name].to_pylist() for name in ("ck", "record_id", "digests"))
    kept = list(zip(waits.signed(rows["kh"]), *texts, strict=True))
    connection.execute(f"DELETE FROM watched WHERE {OWN}", own)
    connection.executemany(
        "INSERT INTO watched VALUES (?, ?, ?, ?, ?, ?, ?, ?)", [(*own, *row, seal.of(row)) for row in kept]
    )
