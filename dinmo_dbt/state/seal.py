"""A seal on what a state says of one activation, set by each of our commits: what else was written there is seen.

It covers the activation's row and its batches under way, but not who holds it. By these a run goes; the rest of a state
(waiting rows, what an audit or a guard remembers) makes at most a row travel once more.
"""

from __future__ import annotations

import hashlib
import json

from dinmo_dbt.codes import STATE_DAMAGED
from dinmo_dbt.delivery.batch_state import BatchState
from dinmo_dbt.errors import StateError
from dinmo_dbt.state.state_id import OWN, StateId
from dinmo_dbt.state.tables import Connection

ENDED = (BatchState.SETTLED.value, BatchState.ABANDONED.value)
_ROW = (
    "org_id", "target", "name", "model", "object", "serial", "runs", "finished_runs", "identity", "mappings", "files",
    "previous", "born", "admitted",
)  # fmt: skip
_BATCH = ("id", "run_id", "epoch", "state", "job_id", "rows", "spool", "sha256", "described")
# One statement, so that it sees one commit whatever others commit meanwhile.
_BOTH = (
    f"SELECT {', '.join(f'a.{name}' for name in _ROW)}, a.seal, {', '.join(f'b.{c} AS batch_{c}' for c in _BATCH)} "
    "FROM activation a LEFT JOIN batch b "
    "ON b.org_id = a.org_id AND b.target = a.target AND b.name = a.name AND b.state NOT IN (?, ?) "
    "WHERE a.org_id = ? AND a.target = ? AND a.name = ? ORDER BY b.id"
)


def of(content: object) -> str:
    """The seal of values that JSON can hold; of others too, but none that was ever set."""
    return hashlib.sha256(json.dumps(content, default=repr).encode()).hexdigest()


def renew(connection: Connection, own: StateId) -> None:
    """Seal what this transaction has made of it."""
    found = _found(connection, own)
    if found:
        connection.execute(f"UPDATE activation SET seal = ? WHERE {OWN}", (found[1], *own))


def is_whole(connection: Connection, own: StateId) -> bool:
    """Whether it is as one of our commits left it; so is an activation that nothing is said of."""
    found = _found(connection, own)
    return found is None or found[0] == found[1]


def broken(where: str, ways_out: str) -> StateError:
    """DB502 for one activation."""
    return StateError(
        STATE_DAMAGED,
        "what the state says of the activation is not what dinmo-dbt wrote: somebody has changed it, or taken rows "
        "out; it is left as it is",
        where=where,
        hint=f"restore the state from a copy, or {ways_out}",
    )


def _found(connection: Connection, own: StateId) -> tuple[str, str] | None:
    """The seal that is there, and the one that belongs there."""
    rows = connection.execute(_BOTH, (*ENDED, *own)).fetchall()
    if not rows:
        return None
    content = [[rows[0][name] for name in _ROW], [[row[f"batch_{name}"] for name in _BATCH] for row in rows]]
    return rows[0]["seal"], of(content)
