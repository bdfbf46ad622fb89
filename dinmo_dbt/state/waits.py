"""Rows that wait for a later run, because Salesforce refused them: noted, due, given up, forgotten.

Functions over a connection of the state, each within the caller's transaction.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dinmo_dbt.rows.rowhash import DIGEST, from_arrow
from dinmo_dbt.rows.snapshot import Pending
from dinmo_dbt.state.state_id import OWN, StateId
from dinmo_dbt.state.tables import Connection

# A permanently rejected row is tried again after 1, 2, 4… runs, but at least once a day.
BACK_OFF_MAX_S = 24 * 3600
GIVEN_UP_RUNS = 32


def waiting(connection: Connection, own: StateId, run_number: int, now: float) -> Pending:
    """Those of an activation, and which are due in that run. ValueError where they are not as they were written."""
    rows = connection.execute(
        f"SELECT kh, ck, code, next_run, next_try, described, since FROM pending WHERE {OWN}", own
    ).fetchall()
    kh = np.array([row["kh"] for row in rows], np.int64).view(np.uint64)
    ck = from_arrow(pa.array([bytes.fromhex(row["ck"]) for row in rows], DIGEST))
    # Its time has passed, or a clock that was wrong set it.
    passed = [row["next_try"] <= now or row["next_try"] > now + BACK_OFF_MAX_S for row in rows]
    due = np.array([row["next_run"] <= run_number for row in rows], np.bool_) | np.array(passed, np.bool_)
    codes = pa.array([row["code"] for row in rows], pa.utf8())
    described = pa.array([row["described"] for row in rows], pa.utf8())
    since = np.array([row["since"] if row["next_try"] else 0.0 for row in rows], np.float64)  # 0: `retry_now`
    order = np.argsort(kh, kind="stable")
    taken = pa.array(order)
    return Pending(kh[order], ck[order], due[order], codes.take(taken), described.take(taken), since[order])


def resolve(connection: Connection, own: StateId, pending: Pending, rows: pa.Table) -> None:
    """Of these rows none waits any longer."""
    if not len(pending.kh):
        return
    waiting = rows.filter(pc.is_in(rows["kh"], value_set=pa.array(pending.kh)))
    connection.executemany(
        f"DELETE FROM pending WHERE {OWN} AND kh = ? AND key = ?",
        [(*own, kh, key) for kh, key in zip(signed(waiting["kh"]), waiting["key"].to_pylist(), strict=True)],
    )


def note(connection: Connection, own: StateId, rows: pa.Table, tried_in: int, now: float) -> None:
    """Note rows rejected in that run. The same row rejected again waits for twice as many runs."""
    if not len(rows):
        return
    before = connection.execute(f"SELECT kh, key, ck, attempts FROM pending WHERE {OWN}", own).fetchall()
    tried = {(row["kh"], row["key"], row["ck"]): row["attempts"] for row in before}
    next_try = now + BACK_OFF_MAX_S
    columns = ("fate", "code", "message", "fields", "transient", "described", "since")
    values = zip(
        signed(rows["kh"]),
        rows["key"].to_pylist(),
        [ck.hex() for ck in rows["ck"].to_pylist()],
        *(rows[c].to_pylist() for c in columns),
        strict=True,
    )
    noted = []
    for kh, key, ck, fate, code, message, fields, transient, described, since in values:
        attempts = tried.get((kh, key, ck), 0) + 1
        wait = 1 if transient else 2 ** min(attempts - 1, 30)
        rest = (fate, code, message, fields, attempts, tried_in + wait, next_try, described, since, 0)
        noted.append((*own, kh, key, ck, *rest))
    connection.executemany(
        "INSERT INTO pending VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) "
        "ON CONFLICT (org_id, target, name, kh, key, ck) DO UPDATE SET "
        "class = excluded.class, code = excluded.code, message = excluded.message, "
        "fields = excluded.fields, attempts = excluded.attempts, next_run = excluded.next_run, "
        "next_try = excluded.next_try, described = excluded.described, given_up = 0, "
        "since = CASE WHEN pending.since > 0 THEN pending.since ELSE excluded.since END",
        noted,
    )


def forget(connection: Connection, own: StateId, run_number: int, given_up: Collection[str]) -> None:
    """Waits that were due in that run have been tried by now: delivered, noted again, or of a row that changed or left.
    Those whose key is `given_up` wait on, and are looked after again some runs later."""
    due = (*own, run_number)
    if given_up:
        found = connection.execute(
            f"SELECT kh, key, ck, since FROM pending WHERE {OWN} AND next_run <= ?", due
        ).fetchall()
        later = run_number + GIVEN_UP_RUNS
        connection.executemany(
            f"UPDATE pending SET given_up = 1, next_run = ? WHERE {OWN} AND kh = ? AND key = ? AND ck = ?",
            [(later, *own, row["kh"], row["key"], row["ck"]) for row in found if row["key"] in given_up],
        )
    connection.execute(f"DELETE FROM pending WHERE {OWN} AND next_run <= ?", due)


def retry_now(connection: Connection, own: StateId) -> int:
    """Make every one due in the next run; how many there are."""
    return connection.execute(f"UPDATE pending SET next_run = 0, next_try = 0 WHERE {OWN}", own).rowcount


def signed(array: pa.ChunkedArray) -> list[int]:
    signed: list[int] = array.to_numpy().view(np.int64).tolist()
    return signed
