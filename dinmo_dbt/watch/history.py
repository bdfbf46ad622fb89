"""What the history knows of a sync run, and how it is kept: a value, made from a row of the state and the reverse.

Whatever judges runs (schedules, warnings, pauses) reads these and nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from dinmo_dbt.errors import Problem
from dinmo_dbt.text.moments import iso, iso_or_none

JOB_RUNNING = "JOB_RUNNING"  # the code of a row that is in such a job
ON_ITS_WAY = "on_its_way"  # a job of it goes on at Salesforce, and its rows are not delivered yet
DONE = ("success", "rejected", "unknown")  # how a run ends that did its work


@dataclass(frozen=True, slots=True)
class Trigger:
    """Why a run started: `kind` is by_hand, due, resumed or revert; `said` says it in words.

    `due`: when it was due by the clock, in seconds since the epoch. `passed`: how many more such moments had passed by
    then without a run. `invocation`: the dbt command that had last built its model, where that was known.
    """

    kind: str = "by_hand"
    said: str = "by hand"
    due: float | None = None
    passed: int = 0
    invocation: str = ""

    @property
    def by_schedule(self) -> bool:
        """Whether a schedule asked for it, not a person."""
        return self.kind in ("due", "resumed")


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One run of one activation, as it is in the history. Times are seconds since the epoch, UTC.

    `status`: running, success, rejected, unknown, failed, refused, blocked (by the gate), interrupted, or on_its_way (a
    job of it goes on). `org_id` is '' for a run that never reached an org. `counts` and `outcome` are those of
    `plan.Counts` and `run.Outcome`; empty when the run did not get so far. `refused_rows`: rows that stand rejected or
    invalid when it ended, those that wait after an earlier rejection included; of `deliverable_rows`: they, and the
    rows that the run delivered.
    `waiting_since`: of the `waiting_rows`, which were held at its end, since when the oldest is. `resent`: why all
    known rows were sent; '' if they were not. `field_types`: type of each field that was written, as describe said;
    empty when it was not asked. `calls_used` of `calls_allowed`: the org's daily API calls, as its last reply said.
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
    undelivered: str = ""  # the file of the rows it did not deliver
    detail: Mapping[str, Any] = field(default_factory=dict)  # everything that was kept, for those who print it

    @property
    def seconds(self) -> float | None:
        return None if self.finished is None else self.finished - self.started

    @property
    def on_their_way(self) -> int:
        """Of the rows that wait, those in a job that goes on at Salesforce."""
        return sum(group["rows"] for group in self.detail.get("left_out") or () if group["code"] == JOB_RUNNING)

    @property
    def ended(self) -> bool:
        """Whether it came to an end of its own: a run that was cut off or asked to stop, or whose job goes on, has not
        done its work, and is still due."""
        return self.finished is not None and self.status not in ("interrupted", ON_ITS_WAY)

    def document(self) -> dict[str, Any]:
        """The run as `history --json` prints it."""
        own = ("run_id", "activation", "target", "org_id", "status", "on_their_way")
        return {
            **{name: getattr(self, name) for name in own},
            "started": iso(self.started),
            "finished": iso_or_none(self.finished),
            "seconds": None if self.seconds is None else round(self.seconds, 3),
            **self.detail,
            "waiting_since": iso_or_none(self.waiting_since),
            "trigger": {**asdict(self.trigger), "due": iso_or_none(self.trigger.due)},
        }

    def as_text(self) -> str:
        """What a row of the history keeps besides its own columns, as JSON."""
        judged = {name: getattr(self, name) for name in _JUDGED}
        problem = asdict(self.problem) if self.problem else None
        return json.dumps({**self.detail, **judged, "trigger": asdict(self.trigger), "problem": problem})


_JUDGED = (
    "counts",
    "outcome",
    "refused_rows",
    "deliverable_rows",
    "waiting_rows",
    "waiting_since",
    "resent",
    "field_types",
    "calls_used",
    "calls_allowed",
)


_KINDS: dict[str, Any] = {
    "counts": dict,
    "outcome": dict,
    "refused_rows": int,
    "deliverable_rows": int,
    "waiting_rows": int,
    "waiting_since": int | float,
    "resent": str,
    "field_types": dict,
    "calls_used": int,
    "calls_allowed": int,
    "problem": dict,
    "trigger": dict,
    "left_out": list,
    "jobs": list,
    "object": str,
    "model": str,
    "mode": str,
    "api_calls": int,
    "rows_per_second": int,
    "plan_digest": str,
}


# What these hold, each value of theirs.
_WITHIN: dict[str, Any] = {
    "counts": int,
    "outcome": int,
    "recovered": int,
    "phase_seconds": int | float,
    "field_types": str,
    "problem": str,
    "versions": str | None,
}
_GROUP = {"rows": int, "fate": str, "code": str | None, "class": str | None, "hint": str | None, "fields": list}


def _check(detail: dict[str, Any]) -> None:
    """TypeError where a value is of a kind that we never write: what prints or counts it relies on that."""
    for name, kind in _KINDS.items():
        if not isinstance(detail.get(name), kind | None):
            raise TypeError(name)
    for name, kind in _WITHIN.items():
        inner = detail.get(name) or {}
        if not (isinstance(inner, dict) and all(isinstance(value, kind) for value in inner.values())):
            raise TypeError(name)
    for group in detail.get("left_out") or ():
        if not all(isinstance(group.get(name), kind) for name, kind in _GROUP.items()):
            raise TypeError("left_out")
    if not all(isinstance(job, str) for job in detail.get("jobs") or ()):
        raise TypeError("jobs")
    trigger = detail.get("trigger") or {}
    for moment in (detail.get("waiting_since"), trigger.get("due")):
        if moment is not None:
            number(moment)


def read(row: Mapping[str, Any]) -> RunRecord:
    """A row of the history: id, name, target, org_id, started, finished, status, not_delivered, and detail as `as_text`
    gave it; older versions gave less."""
    detail = json.loads(row["detail"])
    if not isinstance(detail, dict):
        raise TypeError("a run's detail")
    problem, trigger = detail.get("problem"), detail.get("trigger")
    _check(detail)
    return RunRecord(
        run_id=text(row["id"]),
        activation=text(row["name"]),
        target=text(row["target"] or ""),
        org_id=text(row["org_id"]),
        started=number(row["started"]),
        finished=None if row["finished"] is None else number(row["finished"]),
        status=text(row["status"]),
        trigger=Trigger(**trigger) if trigger else Trigger(),
        problem=Problem(**problem) if problem else None,
        undelivered=text(row["not_delivered"] or ""),
        detail=detail,
        **{name: detail[name] for name in _JUDGED if detail.get(name) is not None},
    )


def text(value: object) -> str:
    """The value itself; TypeError for one that is no text."""
    if not isinstance(value, str):
        raise TypeError("not a text")
    return value


def number(value: object) -> float:
    """The value itself; TypeError for one that is no number, or none that a time can be."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e12:
        raise TypeError("not a number")
    return value
