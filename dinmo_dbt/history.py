"""What the history knows of a sync run, and how it is kept: a value, made from a row of the state and the reverse.

Whatever judges runs (schedules, warnings, pauses) reads these and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dinmo_dbt.errors import Problem


@dataclass(frozen=True, slots=True)
class Trigger:
    """Why a run started: `kind` is by_hand, due or resumed; `said` says it in words.

    `due`: when it was due, in seconds since the epoch; None for a run by hand. `passed`: how many more due times had
    passed by then without a run. `invocation`: the dbt command after which it was due, '' for a schedule by the clock.
    """

    kind: str = "by_hand"
    said: str = "by hand"
    due: float | None = None
    passed: int = 0
    invocation: str = ""


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One run of one activation, as it is in the history. Times are seconds since the epoch, UTC.

    `status`: running, success, rejected, unknown, failed, refused, blocked (by the gate) or interrupted. `org_id` is ''
    for a run that never reached an org. `counts` and `outcome` are those of `plan.Counts` and `sync.Outcome`; empty
    when the run did not get so far. `refused_rows`: rows that stand rejected or invalid when it ended, those that wait
    after an earlier rejection included; of `deliverable_rows`: they, and the rows that the run delivered.
    `waiting_since`: of the `waiting_rows`, which were held at its end, since when the oldest is. `resent`: why all
    known rows were sent; '' if they were not. `field_types`: type of each field that was written, as describe told;
    empty when it was not asked. `calls_used` of `calls_allowed`: the org's daily API calls, as its last reply told.
    """

    run_id: str
    activation: str
    target: str
    org_id: str
    started: float
    finished: float | None
    status: str
    trigger: Trigger = field(default_factory=Trigger)
    counts: Mapping[str, int] = field(default_factory=dict)
    outcome: Mapping[str, int] = field(default_factory=dict)
    problem: Problem | None = None
    refused_rows: int = 0
    deliverable_rows: int = 0
    waiting_rows: int = 0
    waiting_since: float | None = None
    resent: str = ""
    field_types: Mapping[str, str] = field(default_factory=dict)
    calls_used: int | None = None
    calls_allowed: int | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)  # everything that was kept, for those who print it

    @property
    def seconds(self) -> float | None:
        return None if self.finished is None else self.finished - self.started

    @property
    def ended(self) -> bool:
        """Whether it came to an end of its own: a run that was cut off or asked to stop has not done its work."""
        return self.finished is not None and self.status != "interrupted"
