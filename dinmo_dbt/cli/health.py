"""What serve reports of itself, and the rules by which it is healthy (docs/schedules.md, Health)."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from dinmo_dbt.cli.lanes import Lanes
from dinmo_dbt.codes import DATABASE_BUSY
from dinmo_dbt.errors import Problem
from dinmo_dbt.text.moments import iso

if TYPE_CHECKING:
    from dinmo_dbt.cli.session import Session
    from dinmo_dbt.watch.history import RunRecord

STUCK_S = 300.0  # without a look and without a run
SILENT_S = 1800.0  # a run without a sign of life: no row was read, no call answered
OVERDUE_S = 900.0  # an activation that is due, and of which no run has ended
UNDELIVERED_S = 3600.0  # since an activation's runs stopped delivering
RUNS_MAX = 100  # so far back is looked for when that was
# Rows were refused or wait: people mend them, and the activation goes on.
OF_ROWS = ("rejected", "held")


@dataclass(frozen=True, slots=True)
class Undelivered:
    """An activation whose last run left rows undelivered. `rows`: as many as are known of. Times as in `RunRecord`."""

    activation: str
    status: str
    rows: int
    since: float

    @property
    def document(self) -> dict[str, Any]:
        run = {"activation": self.activation, "status": self.status, "rows": self.rows}
        return {**run, "since": iso(self.since)}


@dataclass
class Health:
    """What the endpoint reports; written by the looks, read by the server's threads."""

    target: str = ""
    started: float = 0.0
    looked: float = 0.0
    alive: float = field(default_factory=lambda: time.monotonic())  # when it last looked, by the clock nobody sets
    due_next: dict[str, float] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()  # the first of each kind of work that failed
    set_aside: dict[str, Problem] = field(default_factory=dict)  # by run of dbt Cloud, of the latest of no use
    lanes: Lanes = field(default_factory=Lanes)
    due_since: dict[str, float] = field(default_factory=dict)  # as `alive`
    undelivered: tuple[Undelivered, ...] = ()

    def is_due(self, names: set[str]) -> None:
        """These are, and no others."""
        now = time.monotonic()
        self.due_since = {name: self.due_since.get(name, now) for name in sorted(names)}

    def report(self, now: float | None = None) -> tuple[HTTPStatus, dict[str, Any]]:
        from dinmo_dbt import __version__
        from dinmo_dbt.cli import printed

        at, passed = time.time() if now is None else now, time.monotonic()
        running = self.lanes.running()
        names = {each.activation.name for each in running}
        overdue = [name for name, due in self.due_since.items() if passed - due > OVERDUE_S and name not in names]
        long = [each for each in self.undelivered if each.status not in OF_ROWS and at - each.since > UNDELIVERED_S]
        wrong = {
            # dbt has its database to itself, as each time that it runs
            "failing": any(problem.code != DATABASE_BUSY for problem in self.problems),
            "stuck": not running and passed - self.alive > STUCK_S,
            "running too long": any(each.silent_s > SILENT_S for each in running),
            "overdue": bool(overdue),
            "undelivered": bool(long),
        }
        status = next((name for name, is_so in wrong.items() if is_so), "")
        first = min(self.due_next.items(), key=lambda each: (each[1], each[0]), default=None)
        return HTTPStatus.SERVICE_UNAVAILABLE if status else HTTPStatus.OK, {
            "status": status or ("undelivered" if self.undelivered else "ok"),
            "dinmo_dbt": __version__,
            "target": self.target,
            "started": iso(self.started),
            "looked": iso(self.looked) if self.looked else None,
            "running": bool(running),
            "runs": [
                {
                    "activation": each.activation.name,
                    "since": iso(each.since),
                    "seconds": round(passed - each.began),
                    "silent_seconds": round(each.silent_s),
                }
                for each in running
            ],
            "next": {"activation": first[0], "at": iso(first[1])} if first else None,
            "overdue": overdue,
            "undelivered": [each.document for each in self.undelivered],
            "problem": printed.problem_json(self.problems[0]) if self.problems else None,
            "set_aside": [{"run": run, **printed.problem_json(each)} for run, each in self.set_aside.items()],
        }


def undelivered(session: Session) -> tuple[Undelivered, ...]:
    """The chosen activations whose last run left rows undelivered, and since when, in their order."""
    target, found = session.target[1], []
    for activation in session.chosen:
        if activation.enabled:
            found.append(_undelivered(session, activation.name, target))
    return tuple(each for each in found if each)


def _undelivered(session: Session, name: str, target: str) -> Undelivered | None:
    last = _ended(session, name, target, 3)
    if not last or not _status(last[0]):
        return None
    row = _ended(session, name, target, RUNS_MAX)
    since = min([run.started for run in row[: next((n for n, run in enumerate(row) if not _status(run)), len(row))]])
    newest = row[0]
    rows = newest.refused_rows + newest.waiting_rows
    return Undelivered(name, _status(newest), rows, min(since, newest.waiting_since or since))


def _ended(session: Session, name: str, target: str, limit: int) -> list[RunRecord]:
    """Runs that say something, newest first."""
    runs = session.state.history.latest([name], limit)
    return [run for run in runs if run.finished is not None and run.target == target and run.trigger.kind != "revert"]


def _status(run: RunRecord) -> str:
    """How a run left rows undelivered; '' if it left none."""
    return run.status if run.status != "success" else "held" if run.waiting_rows else ""
