"""Where the files of a state are, and what their names say. Pure."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from dinmo_dbt.state.state_id import StateId


def trace_place(org_id: str) -> str:
    """The folder of what was read of jobs that the state does not know."""
    return f"trace/{org_id}"


def snapshot_place(own: StateId) -> str:
    """The folder of an activation's snapshot files."""
    return f"snapshots/{own.folder}"


def image_place(own: StateId) -> str:
    """The folder of an activation's images."""
    return f"images/{own.folder}"


def spool_place(stored: str) -> tuple[str, str]:
    """Folder and name of a spool, as a batch knows it."""
    path = PurePosixPath("spool") / stored
    return str(path.parent), path.name


def file_serial(name: str) -> int:
    """The serial a snapshot file was written for; 0 for other files."""
    found = re.match(r"(?:base|delta)-(\d+)\.", name)
    return int(found[1]) if found else 0
