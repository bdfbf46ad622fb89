"""How fast jobs go on, and how their batches get in each other's way."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from dinmo_dbt.emulator.clock import span
from dinmo_dbt.emulator.errors import EmulatorError
from dinmo_dbt.emulator.settings import changed


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """Jobs advance `by` time, or one step with each look at their info (`poll`).

    The steps of a job: UploadComplete to InProgress after `queue_s`, each batch after `batch_s` more, then the final
    state. While the clock runs, a thread works and `batch_s` is a pause after each batch; with a stopped clock, or
    by poll, there is no thread: a call first carries out the steps whose moment has come.

    `parallel_batches` batches of a job are taken to run at one time: in a `share` of the chunks of 200, rows whose
    parent is also a parent of rows in an earlier batch of the same wave fail with UNABLE_TO_LOCK_ROW, chosen by
    `seed`. A batch that meets records locked by somebody else is put back `lock_retries` times before those rows
    fail. Salesforce's own rules for both are not published: approximate.
    """

    by: Literal["time", "poll"] = "time"
    queue_s: float = 0.0
    batch_s: float = 0.0
    parallel_batches: int = 1
    share: float = 0.0
    seed: int = 0
    lock_retries: int = 1

    def __post_init__(self) -> None:
        if self.by not in ("time", "poll"):
            raise EmulatorError(f"pace: by must be time or poll, not {self.by!r}")
        span(self.queue_s, "pace: queue_s")
        span(self.batch_s, "pace: batch_s")
        if self.lock_retries < 0 or self.parallel_batches < 1:
            raise EmulatorError("pace: lock_retries can't be negative, parallel_batches at least 1")
        if not 0 <= self.share <= 1:
            raise EmulatorError(f"pace: share must be from 0 to 1, not {self.share}")

    @classmethod
    def of(cls, given: dict[str, Any], before: Pace) -> Pace:
        """`before` with what is given in JSON changed; an unknown key or a wrong type is refused by name."""
        return changed(before, given, "pace")

    def json(self) -> dict[str, Any]:
        return asdict(self)
