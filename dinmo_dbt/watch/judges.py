"""One judge for each kind of warning: whether it begins to stand with a run, or is over. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from math import ceil, floor
from typing import Any

from dinmo_dbt.activation import Activation, Ceiling, WarningKind, Watch
from dinmo_dbt.codes import EMPTY_SEGMENT, LIMIT_USED_UP, meaning
from dinmo_dbt.errors import Problem
from dinmo_dbt.text.moments import minute
from dinmo_dbt.watch.history import DONE, RunRecord
from dinmo_dbt.watch.standing import OpenWarning
from dinmo_dbt.watch.usual import NEW_RUNS, RUNS, Band, Measure, usual_rows, usual_seconds
from dinmo_dbt.watch.wording import (
    causes_of,
    counted,
    next_command,
    progress_of,
    short_cause,
    span,
    times_over,
    was_refused,
)

# A run that another one kept from starting is no failure: that one does the work.
# Of a budget that moves with the hours: over only when well under it, or it would begin and end all day.
BUDGET_OVER_AT = 0.9


@dataclass(frozen=True, slots=True)
class Finding:
    """That something is not as it should be: in short, and in the lines of a message. `problem`: the run's own, where
    that is the cause. What does not last is an event: it is sent, and then it is over."""

    said: str
    lines: tuple[str, ...] = ()
    problem: Problem | None = None
    lasts: bool = True


@dataclass(frozen=True, slots=True)
class Well:
    """That all is as it should be; `now`: how it is, where there is more to say."""

    now: str = ""


@dataclass(frozen=True, slots=True)
class Case:
    """What a kind is judged by. `earlier`: runs that count, newest first; `stood`: the warning, if it is open."""

    run: RunRecord
    activation: Activation
    watch: Watch
    earlier: Sequence[RunRecord]
    stood: OpenWarning | None

    @property
    def at(self) -> float:
        assert self.run.finished is not None
        return self.run.finished


_Verdict = Finding | Well | None  # None: this run can't tell, so nothing changes


def knows_enough(run: RunRecord) -> bool:
    """Whether it got so far that its counts say something: those of a run that read nothing yet are all 0."""
    return bool(run.counts) and (run.status in DONE or any(run.counts.values()))


def _stopped(case: Case, statuses: tuple[str, ...], otherwise: str) -> _Verdict:
    """A run with one of these statuses did not do its work; only one that did says that all is well again."""
    run = case.run
    if run.status not in statuses:
        return Well() if run.status in DONE else None
    good = next((each for each in case.earlier if each.status in DONE), None)
    lines = [progress_of(run)]
    if good and good.finished is not None:
        lines.append(f"The last good run ended {span(case.at - good.finished)} before: {minute(good.finished)}")
    return Finding(short_cause(run.problem) if run.problem else otherwise, tuple(lines), run.problem)


def _failed(case: Case) -> _Verdict:
    return _stopped(case, ("failed",), "the run failed")


def _refused(case: Case) -> _Verdict:
    return _stopped(case, ("refused", "blocked"), "dbt's last command left the model unfit to sync")


def _rejected(case: Case) -> _Verdict:
    run, limit = case.run, case.watch.limit
    assert isinstance(limit, Ceiling)
    if not knows_enough(run):
        return None
    # No floor of 10 rows, as a guard's share has: a share of few rows is meant as it is written.
    share = 100 * Decimal(run.refused_rows) / max(run.deliverable_rows, run.refused_rows, 1)
    figure = f"{run.refused_rows:,} of {counted(run.deliverable_rows, 'row')} ({share:.1f}%)"
    if run.refused_rows <= limit.rows if limit.rows is not None else share <= (limit.percent or 0):
        # What was refused, or broke off, did not come to all rows that were rejected before.
        return Well(figure) if run.status in DONE else None
    said = f"{figure}, limit {limit}"
    lines = (f"Rejected or invalid: {said}", *causes_of(run, was_refused), f"By key: {next_command('rejected', run)}")
    return Finding(said, lines)


def _held(case: Case) -> _Verdict:
    run = case.run
    waits = case.at - run.waiting_since if run.waiting_since is not None else 0.0
    if waits <= _number(case.watch):
        return Well() if run.status in DONE else None
    said = f"{counted(run.waiting_rows, 'row')} held, the oldest for {span(waits)}"
    lines = (
        f"{said}; limit {span(_number(case.watch))}",
        *causes_of(run, lambda group: group.get("fate") == "held"),
        f"By key: {next_command('rejected', run)}",
    )
    return Finding(said, lines)


def _empty(case: Case) -> _Verdict:
    run = case.run
    refused = run.problem if run.problem and run.problem.code == EMPTY_SEGMENT else None
    if refused is None and not knows_enough(run):
        return None
    if refused is None and run.counts["read"]:
        return Well()
    model, segment = case.activation.model.name, case.activation.segment
    said = f"{model}{f', segment {segment},' if segment else ''} has no row"
    before = next((each.counts["read"] for each in case.earlier if knows_enough(each) and each.counts["read"]), None)
    lines = [said + (f"; it had {before:,} when it last had some" if before else "")]
    return Finding(said, tuple(lines), refused)


def _row_count(case: Case) -> _Verdict:
    percent = case.watch.limit
    assert percent is None or isinstance(percent, Decimal)
    if not knows_enough(case.run):
        return None
    read = case.run.counts["read"]
    # A run that a guard refused may have read what is no model's usual state.
    earlier = [(each, each.counts["read"]) for each in case.earlier if knows_enough(each) and each.status != "refused"]
    amount = counted(read, "row")
    found = _outside(case, read, amount, earlier, lambda last: usual_rows(last, case.run.started, percent))
    if not isinstance(found, Band):
        return found
    low, high = f"{max(0, ceil(found.low)):,}", f"{floor(found.high):,}"
    said = f"{amount}, usual {low} to {high}"
    of = f"{found.middle:,.0f}, the median of the last {counted(found.runs, 'run')}"
    change = f", {100 * (read - found.middle) / found.middle:+.0f}%" if found.middle else ""
    lines = (
        f"{case.activation.model.name} has {amount}{change}",
        f"Usual: {low} to {high} (around {of})",
        f"If that is right, nothing is to be done: after {NEW_RUNS} runs it is the usual number",
    )
    return Finding(said, lines)


def _duration(case: Case) -> _Verdict:
    run, seconds = case.run, case.run.seconds
    assert seconds is not None
    if case.watch.limit is not None:
        limit = _number(case.watch)
        if seconds <= limit:
            return Well(span(seconds)) if run.status in DONE else None
        limits = f"limit {span(limit)}"
    elif run.resent:
        return None  # all rows take longer than those that changed, and it is known why
    else:
        alike = [each for each in case.earlier if each.status in DONE and not each.resent]
        earlier = [(each, each.seconds) for each in alike if each.seconds is not None]
        found = _outside(case, seconds, span(seconds), earlier, usual_seconds)
        if not isinstance(found, Band):
            return found if run.status in DONE else None
        limits = f"usual {span(found.middle)} (median of the last {counted(found.runs, 'run')})"
    said = f"{span(seconds)}, {limits}"
    return Finding(said, (f"It took {said}", progress_of(run)))


def _missed(case: Case) -> _Verdict:
    trigger = case.run.trigger
    if trigger.due is None:
        return None  # by hand
    late = case.run.started - trigger.due
    if late <= _number(case.watch) and not trigger.passed:
        return Well()
    said = f"due {minute(trigger.due)}, started {span(late)} later"
    lines = [f"It was {said} (limit {span(_number(case.watch))})"]
    if trigger.passed:
        lines.append(f"It was due {times_over(trigger.passed)} more by then; one run does for all")
    lines.append("Look whether what starts dinmo-dbt (serve, cron, CI) was running")
    return Finding(said, tuple(lines))


def _full(case: Case) -> _Verdict:
    run = case.run
    before = next((each for each in case.earlier if knows_enough(each)), None)
    if not run.resent or not knows_enough(run) or (before and before.resent == run.resent):
        return None
    return Finding(
        run.resent, (f"All rows were sent, not only what changed: {run.resent}", progress_of(run)), None, False
    )


def _drift(case: Case) -> _Verdict:
    run, name = case.run, case.activation.object
    fitted = next((each for each in case.earlier if each.status in DONE), None)
    if run.problem and meaning(run.problem.code).is_schema and run.status == "failed":
        # What never fitted is no drift but a mapping that is being written.
        if fitted is None and case.stood is None:
            return None
        return Finding(short_cause(run.problem), (f"{name} does not fit the mapping any more",), run.problem)
    if not run.field_types:
        return Well() if run.status in DONE else None
    known = next((each.field_types for each in case.earlier if each.field_types), {})
    changed = [
        f"{name}.{field}: {known[field]} -> {now}"
        for field, now in sorted(run.field_types.items())
        if known.get(field, now) != now
    ]
    if not changed:
        return Well()
    lines = ("The type of a mapped field is another one in Salesforce:", *changed)
    return Finding(", ".join(changed), lines, lasts=False)


def _api_budget(case: Case) -> _Verdict:
    run, limit = case.run, case.watch.limit
    assert isinstance(limit, Decimal)
    stopped = run.problem if run.problem and run.problem.code == LIMIT_USED_UP else None
    used, allowed = run.calls_used, run.calls_allowed
    known = used is not None and allowed
    if not known and stopped is None:
        return None
    percent = 100 * (used or 0) / allowed if allowed else 0.0
    if stopped is None and percent <= limit:
        return None if percent > float(limit) * BUDGET_OVER_AT else Well(f"{percent:.1f}%")
    used_up = f"{percent:.1f}% of the org's daily API calls are used ({used:,} of {allowed:,})" if known else ""
    own = whole_number(run.detail.get("api_calls"))
    lines = [*([f"{used_up}; limit {limit}%"] if used_up else []), *([f"This run made {own:,} of them"] if own else [])]
    lines.append("All programs that use the org count; they are free again 24 hours after each was made")
    return Finding(used_up or short_cause(stopped), tuple(lines), stopped)


def _judged_elsewhere(_: Case) -> _Verdict:
    return None  # no run pauses or resumes: `paused` and `resumed` tell


JUDGES: Mapping[WarningKind, Callable[[Case], _Verdict]] = {
    WarningKind.FAILED: _failed,
    WarningKind.REJECTED: _rejected,
    WarningKind.HELD: _held,
    WarningKind.EMPTY: _empty,
    WarningKind.ROW_COUNT: _row_count,
    WarningKind.DURATION: _duration,
    WarningKind.MISSED: _missed,
    WarningKind.FULL: _full,
    WarningKind.DRIFT: _drift,
    WarningKind.API_BUDGET: _api_budget,
    WarningKind.REFUSED: _refused,
    WarningKind.PAUSED: _judged_elsewhere,
}


def _outside(
    case: Case,
    value: float,
    amount: str,
    earlier: Sequence[tuple[RunRecord, float]],
    usual: Callable[[Sequence[Measure]], tuple[Band, ...]],
) -> Band | Well:
    """The band that the value is out of. While the warning stands, that of the runs before it: what is not usual does
    not become so by being judged by itself. A level that lasts does."""
    since = case.stood.since if case.stood else case.at
    before = [Measure(run.started, found) for run, found in earlier if (run.finished or 0.0) < since]
    bands = usual(before)
    if not bands or any(band.holds(value) for band in bands):
        return Well(amount)
    during = [Measure(run.started, found) for run, found in earlier if (run.finished or 0.0) >= since]
    if len(during) >= NEW_RUNS - 1 and any(band.holds(value) for band in usual(during[:RUNS])):
        return Well(f"{amount}, which is the usual after {len(during) + 1} runs")
    return bands[0]


def _number(watch: Watch) -> float:
    assert isinstance(watch.limit, float)
    return watch.limit


def whole_number(value: Any) -> int:
    return value if isinstance(value, int) else 0
