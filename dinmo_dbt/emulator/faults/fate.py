"""What a scripted fault has in store for a job: drawn when the job is closed, kept with it across restarts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from dinmo_dbt.emulator.records.work import CHUNK_ROWS


@dataclass(frozen=True, slots=True, kw_only=True)
class Fate:
    """`end` comes at data row `row`: the whole chunks of 200 before it stay written, the rest is unprocessed.

    `stuck` is a state the job stays in for `stuck_s` more seconds on the org's clock. The job's first batch is put
    back `retries` times before it is written.
    """

    end: Literal["Failed", "Aborted"] | None = None
    row: int = 0
    message: str | None = None
    stuck: Literal["UploadComplete", "InProgress"] | None = None
    stuck_s: float = 0.0
    retries: int = 0

    @property
    def kept_rows(self) -> int | None:
        """How many rows are written before the end; None where no fault ends the job."""
        return self.row // CHUNK_ROWS * CHUNK_ROWS if self.end is not None else None
