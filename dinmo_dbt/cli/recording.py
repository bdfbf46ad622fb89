"""A run in the history: why it started, what became of it, and what that means for warnings and pauses."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dinmo_dbt.cli.due import is_due
from dinmo_dbt.cli.session import Session
from dinmo_dbt.codes import BUILT_MEANWHILE, DATABASE_BUSY, HELD_BY_ANOTHER, meaning
from dinmo_dbt.errors import DinmoError, Problem, Refused, StateError
from dinmo_dbt.watch.history import RunRecord, Trigger

if TYPE_CHECKING:
    from dinmo_dbt.activation import Activation
    from dinmo_dbt.delivery.run import SyncRun
    from dinmo_dbt.plan.guards import Ceilings
    from dinmo_dbt.plan.plan import Plan
    from dinmo_dbt.salesforce import SalesforceDestination
    from dinmo_dbt.state import Judged
    from dinmo_dbt.watch.standing import OpenWarning

CLOCK_OFF_S = 3600.0
_AFTER_REJECTION = ("data", "reference", "automation")
_PARENTS = ("PARENT_MISSING", "PARENT_AMBIGUOUS")


def new_run(session: Session) -> SyncRun:
    """A run that starts now."""
    from dinmo_dbt.delivery.run import SyncRun

    now = session.clock.now()
    return SyncRun(
        time.strftime("%Y%m%dT%H%M%S", time.gmtime(now)) + f"-{secrets.token_hex(3)}", now, session.clock.monotonic()
    )


@dataclass
class Recorder:
    """One run's entry. `timed` and `drawn` say more of it while it goes on."""

    session: Session
    activation: Activation
    run: SyncRun
    trigger: Trigger
    special: Mapping[str, Any] = field(default_factory=dict)  # what its detail has beside, or instead of, the usual
    destination: SalesforceDestination | None = None
    plan: Plan | None = None
    resent: str = ""
    phases: dict[str, float] = field(default_factory=dict)
    entered: bool = False
    api_calls: int | None = None

    @contextmanager
    def whole(self) -> Iterator[None]:
        """From before the login on: what keeps the run from starting is in the history too. Another run that holds the
        activation is no fate of this one, nor is one that has done meanwhile what was due, and a state that can't be
        used is left as it is."""
        try:
            yield
        except DinmoError as error:
            code = error.problems[0].code
            is_kept = code != HELD_BY_ANOTHER and not meaning(code).of_state
            if not self.entered and is_kept and self._is_ours():
                self.fail(error)
            raise

    @contextmanager
    def held(self, destination: SalesforceDestination) -> Iterator[None]:
        """While the activation is ours: from the run's start to its end, whichever that is."""
        self.destination, self.entered = destination, True
        calls_before = destination.calls
        self.session.state.history.start(self._record("running", None))
        status = "failed"
        try:
            yield
            status = self.run.status.value
        except DinmoError as error:
            status = self._status_of(error)
            raise
        except BaseException:
            status = "interrupted"
            raise
        finally:
            self.api_calls = destination.calls - calls_before
            self._finish(status)

    @contextmanager
    def timed(self, phase: str) -> Iterator[None]:
        began = time.monotonic()
        try:
            yield
        finally:
            self.phases[phase] = round(time.monotonic() - began, 3)

    def drawn(self, plan: Plan, ceilings: Ceilings) -> None:
        self.plan = plan
        self.resent = _resent(plan, ceilings)

    def _is_ours(self) -> bool:
        return not self.trigger.by_schedule or is_due(self.session, self.activation)

    def fail(self, error: DinmoError) -> None:
        """A run that never got as far as its activation's state."""
        try:
            self._finish(self._status_of(error))
        except StateError as unwritten:
            self.session.console.note(unwritten.problems[0])  # the caller reports the error itself

    def block(self, problem: Problem) -> None:
        """The gate kept the run from starting."""
        self.run.problem = problem
        self._finish("blocked")

    def _status_of(self, error: DinmoError) -> str:
        self.run.problem = self.run.problem or error.problems[0]
        if self.run.problem.code in (BUILT_MEANWHILE, DATABASE_BUSY):
            return "interrupted"  # it has not done its work: what asked for it still does
        return "refused" if isinstance(error, Refused | StateError) else "failed"

    def _finish(self, status: str) -> None:
        import pyarrow as pa

        from dinmo_dbt.plan.plan import LEFT_OUT

        tables = self.run.not_delivered or [LEFT_OUT.empty_table()]
        by_age = self._clock_is_right()
        took = self.session.clock.monotonic() - self.run.began  # whatever is done to the clock meanwhile
        record = self._record(status, self.run.started + took)
        self.session.state.history.finish(record, pa.concat_tables(tables), self._judge, by_age=by_age)

    def _clock_is_right(self) -> bool:
        """As far as the org's clock tells. One that is ahead would let the history expire."""
        org_time = self.destination.org_time if self.destination else None
        return org_time is not None and abs(self.session.clock.now() - org_time) < CLOCK_OFF_S

    def _judge(
        self,
        record: RunRecord,
        earlier: Sequence[RunRecord],
        standing: Sequence[OpenWarning],
        others: Sequence[OpenWarning],
    ) -> Judged:
        from dinmo_dbt.state import Judged
        from dinmo_dbt.watch import warnings
        from dinmo_dbt.watch.pausing import why_pause

        declared, destination = self.session.declared.activations, self.activation.destination
        same_org = {each.name for each in declared if each.destination == destination}
        found = warnings.notice(
            record,
            activation=self.activation,
            earlier=earlier,
            standing=standing,
            of_the_org=[each for each in others if each.activation in same_org],
        )
        why = why_pause(self.activation, record, earlier)
        notices = found.notices
        if why:
            paused = warnings.paused(
                self.activation,
                target=record.target,
                reason=why,
                by_hand=False,
                at=record.finished or record.started,
                id=f"{record.run_id}:paused",
            )
            notices = (*notices, *([paused] if paused else []))
        return Judged(found.standing, notices, why)

    def _record(self, status: str, finished: float | None) -> RunRecord:
        from dinmo_dbt.cli import render

        outcome = render.run_json(self.run)
        usage = self.destination.usage if self.destination else None
        refused = _refused_rows(outcome["left_out"])
        return RunRecord(
            run_id=self.run.run_id,
            activation=self.activation.name,
            target=self.session.target[1],
            org_id=self.destination.org_id if self.destination else "",
            started=self.run.started,
            finished=finished,
            status=status,
            trigger=self.trigger,
            counts=render.counts_json(self.plan.counts) if self.plan else {},
            outcome=outcome["outcome"] if self.plan else {},
            problem=self.run.problem,
            refused_rows=refused,
            deliverable_rows=refused + self.run.outcome.succeeded,
            resent=self.resent,
            field_types=_field_types(self.plan) if self.plan else {},
            calls_used=usage.used if usage and usage.limit else None,
            calls_allowed=usage.limit if usage and usage.limit else None,
            detail={**self._what(), **outcome, **self._how()},
        )

    def _what(self) -> dict[str, Any]:
        """What was run, and what it cost."""
        activation = self.activation
        return {
            "object": activation.object,
            "model": activation.model.unique_id,
            "mode": activation.mode.value,
            **self.special,
            **({} if self.api_calls is None else {"api_calls": self.api_calls}),
        }

    def _how(self) -> dict[str, Any]:
        """With what the run was made, and how fast."""
        from dinmo_dbt import __version__
        from dinmo_dbt.cli import render

        session, sent = self.session, self.run.outcome.rows
        sending = self.phases.get("send")
        return {
            "versions": {
                "dinmo_dbt": __version__,
                "dbt": session.manifest.dbt_version,
                "adapter": session.manifest.adapter_type,
            },
            "plan_digest": render.plan_digest(self.plan) if self.plan else None,
            "phase_seconds": self.phases,
            "rows_per_second": round(sent / sending) if sent and sending else None,
        }


def _refused_rows(left_out: Sequence[dict[str, Any]]) -> int:
    """Rows that Salesforce or their own values keep from being delivered; those that wait after a rejection too."""
    return sum(
        group["rows"]
        for group in left_out
        if group["fate"] in ("rejected", "invalid")
        or (group["fate"] == "held" and group["class"] in _AFTER_REJECTION and group["code"] not in _PARENTS)
    )


def _resent(plan: Plan, ceilings: Ceilings) -> str:
    """Why a run sends all the rows it knows; '' if it sends changes."""
    if plan.is_first:
        return "first sync to this org"
    if ceilings.full and plan.counts.resent:
        return "--full"
    if plan.counts.remapped and plan.counts.unchanged == 0:
        return "the mapping changed"
    return ""


def _field_types(plan: Plan) -> dict[str, str]:
    """Of the fields that are written, as describe has it."""
    return {column.header: column.field.type for column in plan.mapping.columns}
