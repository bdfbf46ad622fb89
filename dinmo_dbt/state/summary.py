"""What is known of one activation's state, in figures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dinmo_dbt.errors import StateError
from dinmo_dbt.state import seal
from dinmo_dbt.state.files import Stored, stored_of
from dinmo_dbt.state.places import snapshot_place
from dinmo_dbt.state.state_id import OWN, StateId
from dinmo_dbt.state.storage import Storage, in_flight, own_of
from dinmo_dbt.state.tables import Connection


@dataclass(frozen=True, slots=True)
class StateSummary:
    """One activation's state, as `state show` prints it. `unknown` are inserts that may have been made;
    `given_up`: rows that Salesforce refused for too long. `problem`: why its rows can't be read."""

    org_id: str
    target: str
    name: str
    model: str
    object: str
    serial: int
    rows: int
    left: int
    unknown: int
    pending: int
    given_up: int
    in_flight: int
    bytes: int
    kept_serials: tuple[int, ...]
    held_by: str | None
    problem: str | None

    @property
    def id(self) -> StateId:
        return StateId(self.org_id, self.target, self.name)


def summary(store: Storage, connection: Connection, row: Mapping[str, Any]) -> StateSummary:
    own = own_of(row)
    rows = left = unknown = 0
    files: list[Stored] = []
    kept: tuple[int, ...] = ()
    problem = None
    try:
        if not seal.is_whole(connection, own):
            raise store.broken(own)
        kept = tuple(pointer["serial"] for pointer in json.loads(row["previous"]))
        files = [stored_of(value) for value in json.loads(row["files"])]
        names, place = [file.name for file in files], snapshot_place(own)
        rows, left, unknown = _counted(store.files.fetch(place, names), names)
    except StateError as error:
        problem = error.problems[0].message
    counted = f"SELECT count(*) AS n FROM pending WHERE {OWN} AND given_up"
    waiting = connection.execute(f"{counted} = 0", own).fetchone()
    given_up = connection.execute(f"{counted} <> 0", own).fetchone()
    held = store.held_by(connection, row)
    return StateSummary(
        *own,
        row["model"],
        row["object"],
        row["serial"],
        rows,
        left,
        unknown,
        waiting["n"],
        given_up["n"],
        in_flight(connection, own),
        sum(file.bytes for file in files),
        kept,
        f"{held.holder}{' (gone)' if held.holder.lives is False else ''}" if held else None,
        problem,
    )


def _counted(folder: Path, names: Sequence[str]) -> tuple[int, int, int]:
    """Of a snapshot's rows: those of the segment, those that left it, and inserts that may have been made."""
    if not names:
        return 0, 0, 0
    import numpy as np

    from dinmo_dbt.rows.snapshot import Flag
    from dinmo_dbt.state.snapshot import FileSnapshot

    flags = FileSnapshot(folder, names).flags
    left, unknown = (int(np.count_nonzero(flags & flag)) for flag in (Flag.LEFT, Flag.UNKNOWN))
    return len(flags) - left, left, unknown
