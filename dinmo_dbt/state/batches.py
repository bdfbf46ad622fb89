"""Batches that a run has begun and nobody has settled, and their rows as they were spooled. Reads only."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from dinmo_dbt.delivery.batch_state import BatchState
from dinmo_dbt.delivery.journal import Journalled
from dinmo_dbt.destination import Api, Batch, Operation
from dinmo_dbt.plan.plan import InFlight
from dinmo_dbt.state.files import Files
from dinmo_dbt.state.places import spool_place
from dinmo_dbt.state.seal import ENDED
from dinmo_dbt.state.spool import read_batch
from dinmo_dbt.state.state_id import OWN, StateId
from dinmo_dbt.state.tables import Connection


def open_rows(connection: Connection, own: StateId) -> list[Any]:
    return connection.execute(
        f"SELECT * FROM batch WHERE {OWN} AND state NOT IN (?, ?) ORDER BY id", (*own, *ENDED)
    ).fetchall()


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
