"""Which notices people get of a run that ended: a warning begins, or is over. Pure.

Judged by the history alone. A message carries counts, codes, hints and where to look: no row value, no key, nothing
that Salesforce said of a row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import groupby

from dinmo_dbt.activation import Activation, WarningKind
from dinmo_dbt.codes import HELD_BY_ANOTHER
from dinmo_dbt.errors import Problem
from dinmo_dbt.text.moments import minute
from dinmo_dbt.watch.history import DONE, ON_ITS_WAY, RunRecord
from dinmo_dbt.watch.judges import JUDGES, Case, Finding, Well, knows_enough, whole_number
from dinmo_dbt.watch.notice import Notice, Severity, incident
from dinmo_dbt.watch.standing import Noticed, OpenWarning
from dinmo_dbt.watch.wording import activation_name, counted, place_lines, problem_lines, progress_of, span

_OF_THE_ORG = {WarningKind.API_BUDGET}


def notice(
    run: RunRecord,
    *,
    activation: Activation,
    earlier: Sequence[RunRecord],
    standing: Sequence[OpenWarning],
    of_the_org: Sequence[OpenWarning] = (),
) -> Noticed:
    """Judge a run, once and in the order in which runs end. `earlier`: ended runs of the same activation and target,
    newest first; `standing`: what stands for the two; `of_the_org`: what stands for other activations of the same org,
    since what concerns all of them is reported by the first, and is over with the last.

    One notice when a kind begins to stand, none while it stands, one when it is over. Kinds that begin for one and the
    same cause share a notice, and so do those that are over with one run; what concerns the whole org has its own. A
    kind that is off is forgotten.
    """
    if not _counts(run) or _is_muted(activation, run.finished or run.started):
        return Noticed(tuple(standing), ())
    runs = [each for each in earlier if _counts(each)]
    stood = {each.kind: each for each in standing}
    stay: list[OpenWarning] = []
    over: list[tuple[OpenWarning, Well]] = []
    begun: list[tuple[WarningKind, Finding]] = []
    for kind in WarningKind:
        if kind not in activation.warnings:
            continue
        if run.status == ON_ITS_WAY and kind is not WarningKind.HELD:  # of the others nothing is known yet
            stay += [stood[kind]] if kind in stood else []
            continue
        case = Case(run, activation, activation.warnings[kind], runs, stood.get(kind))
        verdict = JUDGES[kind](case)
        if isinstance(verdict, Finding):
            if case.stood is None or not verdict.lasts:
                begun.append((kind, verdict))
            if verdict.lasts:
                stay.append(_stands(kind, case, verdict, _incident(run, activation, kind, standing)))
            elif case.stood:
                over.append((case.stood, Well()))
        elif case.stood and verdict is None:
            stay.append(case.stood)
        elif case.stood and verdict:
            over.append((case.stood, verdict))
    reported = {each.kind for each in of_the_org} & _OF_THE_ORG
    begun = [each for each in begun if each[0] not in reported]
    over = [each for each in over if each[0].kind not in reported]
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
    """That the activation does not run any more until it is resumed; None if nobody asked for it."""
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
    title = f"{activation_name(target, activation.name)}: paused"
    return Notice(id, severity, title, "\n".join(lines), incident=_of_pause(target, activation))


def resumed(activation: Activation, *, target: str, reason: str, by_hand: bool, at: float, id: str) -> Notice | None:
    """That it runs again; None if nobody asked for it."""
    if WarningKind.PAUSED not in activation.warnings or _is_muted(activation, at):
        return None
    message = f"Resumed {'by hand' if by_hand else 'by itself'} at {minute(at)}"
    if reason:
        message += f"; it was paused because {reason}"
    critical = activation.warnings[WarningKind.PAUSED].critical
    title = f"{activation_name(target, activation.name)}: resumed"
    return Notice(id, Severity.RECOVERED, title, message, critical, incident=_of_pause(target, activation))


def _of_pause(target: str, activation: Activation) -> str:
    return incident(target, activation.name, WarningKind.PAUSED)


def digest(
    activations: Sequence[Activation],
    runs: Sequence[RunRecord],
    standing: Sequence[OpenWarning],
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
    title = f"dinmo-dbt [{target}] {counted(len(activations), 'activation')}: {counted(number, 'warning')} open"
    return Notice(id, Severity.INFO, title, "\n".join(lines))


def _day(activation: Activation, runs: Sequence[RunRecord], standing: Sequence[OpenWarning], paused: str | None) -> str:
    statuses = sorted({run.status for run in runs}, key=lambda status: (status not in DONE, status))
    by_status = ", ".join(f"{sum(run.status == status for run in runs)} {status}" for status in statuses)
    parts = [f"{counted(len(runs), 'run')} ({by_status})" if runs else "no runs"]
    succeeded, removed = (sum(run.outcome.get(name, 0) for run in runs) for name in ("succeeded", "removed"))
    calls = sum(whole_number(run.detail.get("api_calls")) for run in runs)
    # A row that is refused by each of 24 runs is one row: what counts is what stands at the end.
    last = max((run for run in runs if knows_enough(run)), key=lambda run: run.started, default=None)
    numbers = [(succeeded - removed, "sent"), (removed, "removed")]
    numbers += [(last.refused_rows, "rejected or invalid"), (last.waiting_rows, "held")] if last else []
    parts += [f"{number:,} {name}" for number, name in numbers if number or (name == "sent" and runs)]
    parts += [counted(calls, "API call")] if calls else []
    line = f"{activation.name}: {', '.join(parts)}"
    line += "".join(f"; {each.kind} since {minute(each.since)}" for each in standing)
    return line if paused is None else f"{line}; paused" + (f": {paused}" if paused else "")


def _counts(run: RunRecord) -> bool:
    return (run.ended or run.status == ON_ITS_WAY) and not (run.problem and run.problem.code == HELD_BY_ANOTHER)


def _is_muted(activation: Activation, at: float) -> bool:
    return activation.mute_until is not None and at < activation.mute_until


def _stands(kind: WarningKind, case: Case, found: Finding, about: str) -> OpenWarning:
    if case.stood:
        return replace(case.stood, said=found.said)
    run = case.run
    return OpenWarning(run.activation, run.target, kind, case.at, run.run_id, case.watch.critical, found.said, about)


def _cause(begun: tuple[WarningKind, Finding]) -> tuple[WarningKind | None, Problem | None]:
    kind, found = begun
    return (None, found.problem) if found.problem and kind not in _OF_THE_ORG else (kind, None)


def _incident(run: RunRecord, activation: Activation, kind: WarningKind, standing: Sequence[OpenWarning]) -> str:
    """As the open warning was sent, whatever the activation is called since. The last run ends the org's."""
    of_org = kind in _OF_THE_ORG
    known = [each.incident for each in standing if (each.kind in _OF_THE_ORG) == of_org and each.incident]
    own = [f":{kind}", activation.destination] if of_org else [activation.name]
    return known[0] if known else incident(run.target, *own)


def _loudest(standing: Sequence[OpenWarning]) -> Severity | None:
    own = [each.critical for each in standing if each.kind not in _OF_THE_ORG]
    return (Severity.CRITICAL if any(own) else Severity.WARNING) if own else None


def _begun(
    run: RunRecord,
    activation: Activation,
    begun: Sequence[tuple[WarningKind, Finding]],
    standing: Sequence[OpenWarning],
) -> Notice:
    kinds = [kind for kind, _ in begun]
    about = _incident(run, activation, kinds[0], standing)
    problem = begun[0][1].problem
    lines = problem_lines(problem) if problem else []
    lines += [line for _, found in begun for line in found.lines]
    critical = any(activation.warnings[kind].critical for kind in kinds)
    return Notice(
        f"{run.run_id}:{kinds[0]}",
        Severity.CRITICAL if critical else Severity.WARNING,
        f"{activation_name(run.target, run.activation)}: {', '.join(kinds)}",
        "\n".join([*lines, *place_lines(run, activation.object)]),
        activation=run.activation,
        cause="\n".join(problem_lines(problem)) if problem else "",
        incident=about if begun[0][1].lasts else f"{about}/{kinds[0]}/{run.run_id}",  # which nothing ends
    )


def _recovered(
    run: RunRecord, activation: Activation, over: Sequence[tuple[OpenWarning, Well]], stands: Severity | None
) -> Notice:
    kinds = [stood.kind for stood, _ in over]
    at = run.finished or run.started
    alike: dict[tuple[float, str], list[str]] = {}
    for stood, _ in over:
        alike.setdefault((stood.since, stood.said), []).append(stood.kind)
    lines = [f"{', '.join(names)} for {span(at - since)}: {said}" for (since, said), names in alike.items()]
    lines += [f"{stood.kind} now: {well.now}" for stood, well in over if well.now]
    lines.append(f"This run: {run.status}, {progress_of(run).lower()}")
    title = f"{activation_name(run.target, run.activation)}: {', '.join(kinds)} recovered"
    body = "\n".join([*lines, *place_lines(run, activation.object)])
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
