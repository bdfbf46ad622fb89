"""What people are told of a run that ended: when a warning begins to stand, and when it is over. Pure.

Judged by the history alone. A message carries counts, codes, hints and where to look: no row value, no key, nothing
that Salesforce said of a row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from itertools import groupby
from math import ceil, floor
from typing import Any

from dinmo_dbt.activation import Activation, Ceiling, WarningKind, Watch
from dinmo_dbt.errors import Problem
from dinmo_dbt.text.moments import minute
from dinmo_dbt.watch.history import DONE, ON_ITS_WAY, RunRecord
from dinmo_dbt.watch.notice import Notice, Severity, incident
from dinmo_dbt.watch.usual import NEW_RUNS, RUNS, Band, Measure, usual_rows, usual_seconds

# A run that another one kept from starting is no failure: that one does the work.
HELD_BY_ANOTHER = "DB501"
EMPTY_SEGMENT = "DB402"
LIMIT_USED_UP = "DB609"
# The object, a field or a right is gone, or what is there no longer takes what is mapped to it.
SCHEMA_CODES = frozenset(
    {"DB301", "DB302", "DB303", "DB304", "DB305", "DB306", "DB308", "DB309", "DB310", "DB312", "DB314"}
)
# Of a budget that moves with the hours: over only when well under it, or it would begin and end all day.
BUDGET_OVER_AT = 0.9
CAUSES_MAX = 5


@dataclass(frozen=True, slots=True)
class Standing:
    """A warning that is open: told, and not yet recovered. `since` and `run_id` are of the run it began with, `said`
    is its cause in short, as the latest run knows it. `incident`: its notice's; '' for what concerns no activation."""

    activation: str
    target: str
    kind: WarningKind
    since: float
    run_id: str
    critical: bool
    said: str
    incident: str = ""


@dataclass(frozen=True, slots=True)
class Noticed:
    """All that stand after the run, and what is to be sent, in order."""

    standing: tuple[Standing, ...]
    notices: tuple[Notice, ...]


@dataclass(frozen=True, slots=True)
class _Finding:
    """That something is not as it should be: in short, and in the lines of a message. `problem`: the run's own, where
    that is the cause. What does not last is an event: it is told, and then it is over."""

    said: str
    lines: tuple[str, ...] = ()
    problem: Problem | None = None
    lasts: bool = True


@dataclass(frozen=True, slots=True)
class _Well:
    """That all is as it should be; `now`: how it is, where there is more to say."""

    now: str = ""


@dataclass(frozen=True, slots=True)
class _Case:
    """What a kind is judged by. `earlier`: runs that count, newest first; `stood`: the warning, if it is open."""

    run: RunRecord
    activation: Activation
    watch: Watch
    earlier: Sequence[RunRecord]
    stood: Standing | None

    @property
    def at(self) -> float:
        assert self.run.finished is not None
        return self.run.finished


_Verdict = _Finding | _Well | None  # None: this run can't tell, so nothing changes


_OF_THE_ORG = {WarningKind.API_BUDGET}


def notice(
    run: RunRecord,
    *,
    activation: Activation,
    earlier: Sequence[RunRecord],
    standing: Sequence[Standing],
    of_the_org: Sequence[Standing] = (),
) -> Noticed:
    """Judge a run, once and in the order in which runs end. `earlier`: ended runs of the same activation and target,
    newest first; `standing`: what stands for the two; `of_the_org`: what stands for other activations of the same org,
    since what concerns all of them is told by the first, and is over with the last.

    One notice when a kind begins to stand, none while it stands, one when it is over. Kinds that begin for one and the
    same cause share a notice, and so do those that are over with one run; what concerns the whole org has its own. A
    kind that is off is forgotten.
    """
    if not _counts(run) or _is_muted(activation, run.finished or run.started):
        return Noticed(tuple(standing), ())
    runs = [each for each in earlier if _counts(each)]
    stood = {each.kind: each for each in standing}
    stay: list[Standing] = []
    over: list[tuple[Standing, _Well]] = []
    begun: list[tuple[WarningKind, _Finding]] = []
    for kind in WarningKind:
        if kind not in activation.warnings:
            continue
        if run.status == ON_ITS_WAY and kind is not WarningKind.HELD:  # of the others nothing is known yet
            stay += [stood[kind]] if kind in stood else []
            continue
        case = _Case(run, activation, activation.warnings[kind], runs, stood.get(kind))
        verdict = _JUDGES[kind](case)
        if isinstance(verdict, _Finding):
            if case.stood is None or not verdict.lasts:
                begun.append((kind, verdict))
            if verdict.lasts:
                stay.append(_stands(kind, case, verdict, _incident(run, activation, kind, standing)))
            elif case.stood:
                over.append((case.stood, _Well()))
        elif case.stood and verdict is None:
            stay.append(case.stood)
        elif case.stood and verdict:
            over.append((case.stood, verdict))
    told = {each.kind for each in of_the_org} & _OF_THE_ORG
    begun = [each for each in begun if each[0] not in told]
    over = [each for each in over if each[0].kind not in told]
    notices = [
        _recovered(run, activation, ended, None if of_org else _loudest(stay))
        for of_org in (False, True)
        if (ended := [each for each in over if (each[0].kind in _OF_THE_ORG) == of_org])
    ]
    # Of one cause: what the run itself stopped at. All else has its own.
    for _, alike in groupby(sorted(begun, key=lambda each: _cause(each)[1] is None), key=_cause):
        notices.append(_begun(run, activation, list(alike), standing))
    return Noticed(tuple(stay), tuple(notices))


def paused(activation: Activation, *, target: str, reason: str, by_hand: bool, at: float, id: str) -> Notice | None:
    """That the activation does not run any more until it is resumed; None if nobody asked to be told."""
    watch = activation.warnings.get(WarningKind.PAUSED)
    if watch is None or _is_muted(activation, at):
        return None
    resume = f"dinmo-dbt resume --select {activation.name} --target {target}"
    if by_hand:
        lines = [f"Paused by hand at {minute(at)}: {reason}", "It does not run until it is resumed:", resume]
    else:
        lines = [
            f"Paused by itself at {minute(at)}: {reason}",
            "Whenever it is due it is looked at, and runs again once that is mended. To have it run before:",
            resume,
        ]
    severity = Severity.CRITICAL if watch.critical else Severity.WARNING
    title = f"{_name(target, activation.name)}: paused"
    return Notice(id, severity, title, "\n".join(lines), incident=_of_pause(target, activation))


def resumed(activation: Activation, *, target: str, reason: str, by_hand: bool, at: float, id: str) -> Notice | None:
    """That it runs again; None if nobody asked to be told."""
    if WarningKind.PAUSED not in activation.warnings or _is_muted(activation, at):
        return None
    told = f"Resumed {'by hand' if by_hand else 'by itself'} at {minute(at)}"
    if reason:
        told += f"; it was paused because {reason}"
    critical = activation.warnings[WarningKind.PAUSED].critical
    title = f"{_name(target, activation.name)}: resumed"
    return Notice(id, Severity.RECOVERED, title, told, critical, incident=_of_pause(target, activation))


def _of_pause(target: str, activation: Activation) -> str:
    return incident(target, activation.name, WarningKind.PAUSED)


def digest(
    activations: Sequence[Activation],
    runs: Sequence[RunRecord],
    standing: Sequence[Standing],
    *,
    target: str,
    start: float,
    end: float,
    id: str,
    paused: Mapping[str, str] | None = None,
) -> Notice:
    """One line for each activation: its runs of that time, what they did, and what stands. `paused`: why, by name."""
    pauses = paused or {}
    lines = [f"{minute(start)} to {minute(end)}"]
    for activation in activations:
        own = [run for run in runs if run.activation == activation.name and start <= run.started < end]
        open_here = [each for each in standing if each.activation == activation.name]
        lines.append(_day(activation, own, open_here, pauses.get(activation.name)))
    names = {activation.name for activation in activations}
    number = sum(each.activation in names for each in standing)
    title = f"dinmo-dbt [{target}] {_count(len(activations), 'activation')}: {_count(number, 'warning')} open"
    return Notice(id, Severity.INFO, title, "\n".join(lines))


def _day(activation: Activation, runs: Sequence[RunRecord], standing: Sequence[Standing], paused: str | None) -> str:
    statuses = sorted({run.status for run in runs}, key=lambda status: (status not in DONE, status))
    told = ", ".join(f"{sum(run.status == status for run in runs)} {status}" for status in statuses)
    parts = [f"{_count(len(runs), 'run')} ({told})" if runs else "no runs"]
    succeeded, removed = (sum(run.outcome.get(name, 0) for run in runs) for name in ("succeeded", "removed"))
    calls = sum(_int(run.detail.get("api_calls")) for run in runs)
    # A row that is refused by each of 24 runs is one row: what counts is what stands at the end.
    last = max((run for run in runs if _knows(run)), key=lambda run: run.started, default=None)
    numbers = [(succeeded - removed, "sent"), (removed, "removed")]
    numbers += [(last.refused_rows, "rejected or invalid"), (last.waiting_rows, "held")] if last else []
    parts += [f"{number:,} {name}" for number, name in numbers if number or (name == "sent" and runs)]
    parts += [_count(calls, "API call")] if calls else []
    line = f"{activation.name}: {', '.join(parts)}"
    line += "".join(f"; {each.kind} since {minute(each.since)}" for each in standing)
    return line if paused is None else f"{line}; paused" + (f": {paused}" if paused else "")


# What counts as a run, and what it knows


def _counts(run: RunRecord) -> bool:
    return (run.ended or run.status == ON_ITS_WAY) and not (run.problem and run.problem.code == HELD_BY_ANOTHER)


def _is_muted(activation: Activation, at: float) -> bool:
    return activation.mute_until is not None and at < activation.mute_until


def _knows(run: RunRecord) -> bool:
    """Whether it got so far that its counts say something: those of a run that read nothing yet are all 0."""
    return bool(run.counts) and (run.status in DONE or any(run.counts.values()))


# The kinds


def _stopped(case: _Case, statuses: tuple[str, ...], otherwise: str) -> _Verdict:
    """A run with one of these statuses did not do its work; only one that did says that all is well again."""
    run = case.run
    if run.status not in statuses:
        return _Well() if run.status in DONE else None
    good = next((each for each in case.earlier if each.status in DONE), None)
    lines = [_progress(run)]
    if good and good.finished is not None:
        lines.append(f"The last good run ended {span(case.at - good.finished)} before: {minute(good.finished)}")
    return _Finding(_short(run.problem) if run.problem else otherwise, tuple(lines), run.problem)


def _failed(case: _Case) -> _Verdict:
    return _stopped(case, ("failed",), "the run failed")


def _refused(case: _Case) -> _Verdict:
    return _stopped(case, ("refused", "blocked"), "dbt's last command left the model unfit to sync")


def _rejected(case: _Case) -> _Verdict:
    run, limit = case.run, case.watch.limit
    assert isinstance(limit, Ceiling)
    if not _knows(run):
        return None
    # No floor of 10 rows, as a guard's share has: a share of few rows is meant as it is written.
    share = 100 * Decimal(run.refused_rows) / max(run.deliverable_rows, run.refused_rows, 1)
    told = f"{run.refused_rows:,} of {_count(run.deliverable_rows, 'row')} ({share:.1f}%)"
    if run.refused_rows <= limit.rows if limit.rows is not None else share <= (limit.percent or 0):
        # What was refused, or broke off, did not come to all rows that were rejected before.
        return _Well(told) if run.status in DONE else None
    said = f"{told}, limit {limit}"
    lines = (f"Rejected or invalid: {said}", *_causes(run, _was_refused), f"By key: {_command('rejected', run)}")
    return _Finding(said, lines)


def _held(case: _Case) -> _Verdict:
    run = case.run
    waits = case.at - run.waiting_since if run.waiting_since is not None else 0.0
    if waits <= _number(case.watch):
        return _Well() if run.status in DONE else None
    said = f"{_count(run.waiting_rows, 'row')} held, the oldest for {span(waits)}"
    lines = (
        f"{said}; limit {span(_number(case.watch))}",
        *_causes(run, lambda group: group.get("fate") == "held"),
        f"By key: {_command('rejected', run)}",
    )
    return _Finding(said, lines)


def _empty(case: _Case) -> _Verdict:
    run = case.run
    refused = run.problem if run.problem and run.problem.code == EMPTY_SEGMENT else None
    if refused is None and not _knows(run):
        return None
    if refused is None and run.counts["read"]:
        return _Well()
    model, segment = case.activation.model_name, case.activation.segment
    said = f"{model}{f', segment {segment},' if segment else ''} has no row"
    before = next((each.counts["read"] for each in case.earlier if _knows(each) and each.counts["read"]), None)
    lines = [said + (f"; it had {before:,} when it last had some" if before else "")]
    return _Finding(said, tuple(lines), refused)


def _row_count(case: _Case) -> _Verdict:
    percent = case.watch.limit
    assert percent is None or isinstance(percent, Decimal)
    if not _knows(case.run):
        return None
    read = case.run.counts["read"]
    # A run that a guard refused may have read what is no model's usual state.
    earlier = [(each, each.counts["read"]) for each in case.earlier if _knows(each) and each.status != "refused"]
    told = _count(read, "row")
    found = _outside(case, read, told, earlier, lambda last: usual_rows(last, case.run.started, percent))
    if not isinstance(found, Band):
        return found
    low, high = f"{max(0, ceil(found.low)):,}", f"{floor(found.high):,}"
    said = f"{told}, usual {low} to {high}"
    of = f"{found.middle:,.0f}, the median of the last {_count(found.runs, 'run')}"
    change = f", {100 * (read - found.middle) / found.middle:+.0f}%" if found.middle else ""
    lines = (
        f"{case.activation.model_name} has {told}{change}",
        f"Usual: {low} to {high} (around {of})",
        f"If that is right, nothing is to be done: after {NEW_RUNS} runs it is the usual number",
    )
    return _Finding(said, lines)


def _duration(case: _Case) -> _Verdict:
    run, seconds = case.run, case.run.seconds
    assert seconds is not None
    if case.watch.limit is not None:
        limit = _number(case.watch)
        if seconds <= limit:
            return _Well(span(seconds)) if run.status in DONE else None
        told = f"limit {span(limit)}"
    elif run.resent:
        return None  # all rows take longer than those that changed, and it is known why
    else:
        alike = [each for each in case.earlier if each.status in DONE and not each.resent]
        earlier = [(each, each.seconds) for each in alike if each.seconds is not None]
        found = _outside(case, seconds, span(seconds), earlier, usual_seconds)
        if not isinstance(found, Band):
            return found if run.status in DONE else None
        told = f"usual {span(found.middle)} (median of the last {_count(found.runs, 'run')})"
    said = f"{span(seconds)}, {told}"
    return _Finding(said, (f"It took {said}", _progress(run)))


def _missed(case: _Case) -> _Verdict:
    trigger = case.run.trigger
    if trigger.due is None:
        return None  # by hand
    late = case.run.started - trigger.due
    if late <= _number(case.watch) and not trigger.passed:
        return _Well()
    said = f"due {minute(trigger.due)}, started {span(late)} later"
    lines = [f"It was {said} (limit {span(_number(case.watch))})"]
    if trigger.passed:
        lines.append(f"It was due {_times(trigger.passed)} more by then; one run does for all")
    lines.append("Look whether what starts dinmo-dbt (serve, cron, CI) was running")
    return _Finding(said, tuple(lines))


def _full(case: _Case) -> _Verdict:
    run = case.run
    before = next((each for each in case.earlier if _knows(each)), None)
    if not run.resent or not _knows(run) or (before and before.resent == run.resent):
        return None
    return _Finding(
        run.resent, (f"All rows were sent, not only what changed: {run.resent}", _progress(run)), None, False
    )


def _drift(case: _Case) -> _Verdict:
    run, name = case.run, case.activation.object
    fitted = next((each for each in case.earlier if each.status in DONE), None)
    if run.problem and run.problem.code in SCHEMA_CODES and run.status == "failed":
        # What never fitted is no drift but a mapping that is being written.
        if fitted is None and case.stood is None:
            return None
        return _Finding(_short(run.problem), (f"{name} does not fit the mapping any more",), run.problem)
    if not run.field_types:
        return _Well() if run.status in DONE else None
    known = next((each.field_types for each in case.earlier if each.field_types), {})
    changed = [
        f"{name}.{field}: {known[field]} -> {now}"
        for field, now in sorted(run.field_types.items())
        if known.get(field, now) != now
    ]
    if not changed:
        return _Well()
    lines = ("The type of a mapped field is another one in Salesforce:", *changed)
    return _Finding(", ".join(changed), lines, lasts=False)


def _api_budget(case: _Case) -> _Verdict:
    run, limit = case.run, case.watch.limit
    assert isinstance(limit, Decimal)
    stopped = run.problem if run.problem and run.problem.code == LIMIT_USED_UP else None
    used, allowed = run.calls_used, run.calls_allowed
    known = used is not None and allowed
    if not known and stopped is None:
        return None
    percent = 100 * (used or 0) / allowed if allowed else 0.0
    if stopped is None and percent <= limit:
        return None if percent > float(limit) * BUDGET_OVER_AT else _Well(f"{percent:.1f}%")
    told = f"{percent:.1f}% of the org's daily API calls are used ({used:,} of {allowed:,})" if known else ""
    own = _int(run.detail.get("api_calls"))
    lines = [*([f"{told}; limit {limit}%"] if told else []), *([f"This run made {own:,} of them"] if own else [])]
    lines.append("All programs that use the org count; they are free again 24 hours after each was made")
    return _Finding(told or _short(stopped), tuple(lines), stopped)


def _told_elsewhere(_: _Case) -> _Verdict:
    return None  # no run pauses or resumes: `paused` and `resumed` tell


_JUDGES: Mapping[WarningKind, Callable[[_Case], _Verdict]] = {
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
    WarningKind.PAUSED: _told_elsewhere,
}


def _outside(
    case: _Case,
    value: float,
    told: str,
    earlier: Sequence[tuple[RunRecord, float]],
    usual: Callable[[Sequence[Measure]], tuple[Band, ...]],
) -> Band | _Well:
    """The band that the value is out of. While the warning stands, that of the runs before it: what is not usual does
    not become so by being judged by itself. A level that lasts does."""
    since = case.stood.since if case.stood else case.at
    before = [Measure(run.started, found) for run, found in earlier if (run.finished or 0.0) < since]
    bands = usual(before)
    if not bands or any(band.holds(value) for band in bands):
        return _Well(told)
    during = [Measure(run.started, found) for run, found in earlier if (run.finished or 0.0) >= since]
    if len(during) >= NEW_RUNS - 1 and any(band.holds(value) for band in usual(during[:RUNS])):
        return _Well(f"{told}, which is the usual after {len(during) + 1} runs")
    return bands[0]


def _number(watch: Watch) -> float:
    assert isinstance(watch.limit, float)
    return watch.limit


def _int(value: Any) -> int:
    return value if isinstance(value, int) else 0


# Messages


def _stands(kind: WarningKind, case: _Case, found: _Finding, about: str) -> Standing:
    if case.stood:
        return replace(case.stood, said=found.said)
    run = case.run
    return Standing(run.activation, run.target, kind, case.at, run.run_id, case.watch.critical, found.said, about)


def _cause(begun: tuple[WarningKind, _Finding]) -> tuple[WarningKind | None, Problem | None]:
    kind, found = begun
    return (None, found.problem) if found.problem and kind not in _OF_THE_ORG else (kind, None)


def _incident(run: RunRecord, activation: Activation, kind: WarningKind, standing: Sequence[Standing]) -> str:
    """As what stands was told, whatever the activation is called since. The org's is ended by whichever is the last."""
    of_org = kind in _OF_THE_ORG
    known = [each.incident for each in standing if (each.kind in _OF_THE_ORG) == of_org and each.incident]
    own = [f":{kind}", activation.destination] if of_org else [activation.name]
    return known[0] if known else incident(run.target, *own)


def _loudest(standing: Sequence[Standing]) -> Severity | None:
    own = [each.critical for each in standing if each.kind not in _OF_THE_ORG]
    return (Severity.CRITICAL if any(own) else Severity.WARNING) if own else None


def _begun(
    run: RunRecord,
    activation: Activation,
    begun: Sequence[tuple[WarningKind, _Finding]],
    standing: Sequence[Standing],
) -> Notice:
    kinds = [kind for kind, _ in begun]
    about = _incident(run, activation, kinds[0], standing)
    problem = begun[0][1].problem
    lines = _problem_lines(problem) if problem else []
    lines += [line for _, found in begun for line in found.lines]
    critical = any(activation.warnings[kind].critical for kind in kinds)
    return Notice(
        f"{run.run_id}:{kinds[0]}",
        Severity.CRITICAL if critical else Severity.WARNING,
        f"{_name(run.target, run.activation)}: {', '.join(kinds)}",
        "\n".join([*lines, *_place(run, activation.object)]),
        activation=run.activation,
        cause="\n".join(_problem_lines(problem)) if problem else "",
        incident=about if begun[0][1].lasts else f"{about}/{kinds[0]}/{run.run_id}",  # which nothing ends
    )


def _recovered(
    run: RunRecord, activation: Activation, over: Sequence[tuple[Standing, _Well]], stands: Severity | None
) -> Notice:
    kinds = [stood.kind for stood, _ in over]
    at = run.finished or run.started
    alike: dict[tuple[float, str], list[str]] = {}
    for stood, _ in over:
        alike.setdefault((stood.since, stood.said), []).append(stood.kind)
    lines = [f"{', '.join(names)} for {span(at - since)}: {said}" for (since, said), names in alike.items()]
    lines += [f"{stood.kind} now: {well.now}" for stood, well in over if well.now]
    lines.append(f"This run: {run.status}, {_progress(run).lower()}")
    title = f"{_name(run.target, run.activation)}: {', '.join(kinds)} recovered"
    body = "\n".join([*lines, *_place(run, activation.object)])
    critical = any(stood.critical for stood, _ in over)
    causes = {stood.said for stood, _ in over}
    return Notice(
        f"{run.run_id}:{kinds[0]}:recovered",
        Severity.RECOVERED,
        title,
        body,
        critical,
        activation=run.activation,
        cause=f"It was: {next(iter(causes))}" if len(causes) == 1 else "",
        incident=_incident(run, activation, kinds[0], [stood for stood, _ in over]),
        stands=stands,
    )


def _name(target: str, activation: str) -> str:
    return f"dinmo-dbt [{target}] {activation}"


def _place(run: RunRecord, object_name: str) -> list[str]:
    """Which run it was, and where to look."""
    place = f"{object_name}, org {run.org_id}" if run.org_id else object_name
    return ["", f"{minute(run.started)}, {run.trigger.said}", place, _command("history", run)]


def _command(name: str, run: RunRecord) -> str:
    return f"dinmo-dbt {name} {run.run_id} --target {run.target}"


def _problem_lines(problem: Problem) -> list[str]:
    lines = [" ".join(part for part in (problem.code, problem.message) if part)]
    lines += [f"({problem.where})"] if problem.where else []
    return lines + [f"-> {line}" for line in problem.hint.splitlines()]


def _short(problem: Problem | None) -> str:
    return " ".join(part for part in (problem.code, problem.message) if part) if problem else ""


def _progress(run: RunRecord) -> str:
    """How far it came."""
    sent, removed = run.outcome.get("succeeded", 0) - run.outcome.get("removed", 0), run.outcome.get("removed", 0)
    numbers = [(removed, "removed"), (run.refused_rows, "rejected or invalid"), (run.waiting_rows, "held")]
    parts = [f"{_count(sent, 'row')} sent", *(f"{number:,} {name}" for number, name in numbers if number)]
    parts += [f"{run.counts['unchanged']:,} unchanged"] if run.counts.get("unchanged") else []
    return "Nothing was sent" if not run.outcome.get("succeeded") and len(parts) == 1 else ", ".join(parts)


def _was_refused(group: Mapping[str, Any]) -> bool:
    """Rejected or invalid now, or waiting since an earlier rejection; what waits for its parent never was refused."""
    waits = group.get("fate") == "held" and group.get("class") in ("data", "reference", "automation")
    return group.get("fate") in ("rejected", "invalid") or (waits and not str(group["code"]).startswith("PARENT_"))


def _causes(run: RunRecord, wanted: Callable[[Mapping[str, Any]], bool]) -> list[str]:
    """The commonest reasons, each with what to do."""
    groups = [group for group in run.detail.get("left_out") or () if wanted(group)]
    lines = []
    for group in groups[:CAUSES_MAX]:
        fields = f" [{', '.join(group['fields'])}]" if group["fields"] else ""
        lines.append(f"- {group['rows']:,} {group['code'] or group['fate']}{fields}")
        lines += [f"  {group['hint']}"] if group.get("hint") else []
    more = len(groups) - CAUSES_MAX
    return [*lines, f"- and {_count(more, 'other reason')}"] if more > 0 else lines


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _times(number: int) -> str:
    return {1: "once", 2: "twice"}.get(number, f"{number:,} times")


def span(seconds: float) -> str:
    """In the largest unit of which there are at least two."""
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= 2 * length:
            return f"{int(seconds // length):,} {unit}s"
    return _count(int(seconds), "second")
