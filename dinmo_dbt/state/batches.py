"""Batches that a run has begun and nobody has settled, and their rows as they were spooled."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dinmo_dbt.codes import TAKEN_OVER
from dinmo_dbt.delivery.batch_state import BatchState, check_transition
from dinmo_dbt.delivery.journal import Journalled
from dinmo_dbt.destination import Api, Batch, Operation
from dinmo_dbt.errors import StateError
from dinmo_dbt.plan.plan import InFlight
from dinmo_dbt.state.files import Files
from dinmo_dbt.state.places import spool_place
from dinmo_dbt.state.seal import ENDED
from dinmo_dbt.state.spool import describe_batch, read_batch
from dinmo_dbt.state.state_id import OWN, StateId
from dinmo_dbt.state.tables import Connection


def open_rows(connection: Connection, own: StateId) -> list[Any]:
    return connection.execute(
        f"SELECT * FROM batch WHERE {OWN} AND state NOT IN (?, ?) ORDER BY id", (*own, *ENDED)
    ).fetchall()


def row_of(connection: Connection, batch_id: str) -> Any:
    return connection.execute("SELECT * FROM batch WHERE id = ?", (batch_id,)).fetchone()


@dataclass(frozen=True)
class SpooledBatch:
    """By which run a batch was planned, and where its rows are: the spool, as a batch names it, and its checksum."""

    run_id: str
    epoch: int
    spool: str
    sha256: str


def add(connection: Connection, own: StateId, batch: Batch, spooled: SpooledBatch) -> None:
    connection.execute(
        "INSERT INTO batch VALUES (?, ?, ?, ?, ?, ?, ?, NULL, ?, ?, ?, ?)",
        (
            batch.id,
            *own,
            spooled.run_id,
            spooled.epoch,
            BatchState.PLANNED.value,
            len(batch.rows),
            spooled.spool,
            spooled.sha256,
            json.dumps(describe_batch(batch)),
        ),
    )


def advance(
    connection: Connection, batch_id: str, state: BatchState, job_id: str | None, where: str
) -> Mapping[str, Any]:
    """The batch's row as it was before. StateError DB503 if it is gone."""
    row: Mapping[str, Any] | None = row_of(connection, batch_id)
    if row is None:
        raise StateError(TAKEN_OVER, "another process removed the batch from the state", where=where)
    check_transition(BatchState(row["state"]), state)
    connection.execute(
        "UPDATE batch SET state = ?, job_id = coalesce(?, job_id) WHERE id = ?", (state.value, job_id, batch_id)
    )
    return row


def forget_ended(connection: Connection, own: StateId) -> None:
    connection.execute(f"DELETE FROM batch WHERE {OWN} AND state IN (?, ?)", (*own, *ENDED))


def spooled(files: Files, row: Mapping[str, Any]) -> Batch:
    folder, name = spool_place(row["spool"])
    path = files.fetch(folder, [name]) / name
    return read_batch(path, row["sha256"], json.loads(row["described"]))


def in_flight(files: Files, row: Mapping[str, Any]) -> InFlight:
    batch = spooled(files, row)
    return InFlight(row["job_id"], batch.rows["kh"].to_numpy(), batch.rows["key"].combine_chunks())


def journalled(row: Mapping[str, Any]) -> Journalled:
    described = json.loads(row["described"])
    return Journalled(
        id=row["id"],
        run_id=row["run_id"],
        state=BatchState(row["state"]),
        operation=Operation(described["operation"]),
        object=described["object"],
        api=Api(described["api"]),
        rows=row["rows"],
        job_id=row["job_id"],
    )
