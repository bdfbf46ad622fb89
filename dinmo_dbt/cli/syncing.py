"""The sync of chosen activations, parents first: what `sync`, `run`, `retry`, `verify --repair` and `serve` share."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING

from dinmo_dbt.cli.console import worst
from dinmo_dbt.cli.drawing import ordered, reach
from dinmo_dbt.cli.due import Turn, by_hand, is_due
from dinmo_dbt.cli.gating import skip_reason
from dinmo_dbt.cli.notices import deliver, tell_of_state, tell_state_is_well, telling_of_all
from dinmo_dbt.cli.options import Gating
from dinmo_dbt.cli.pausing import look_at_pause, paused_by_hand
from dinmo_dbt.cli.report import Report, summary, summary_word, write_results
from dinmo_dbt.cli.session import Session
from dinmo_dbt.cli.side_by_side import take_all
from dinmo_dbt.cli.turn import MEANWHILE, skip_turn, sync_one
from dinmo_dbt.codes import BAD_AUDIT
from dinmo_dbt.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from dinmo_dbt.activation import Activation, Ceiling
    from dinmo_dbt.config.meta import NotActivated
    from dinmo_dbt.plan.guards import Ceilings
    from dinmo_dbt.watch.history import Trigger


def audit_size(wanted: str | None) -> Ceiling | None:
    """What --audit says; None where it is not given."""
    from pydantic_core import PydanticCustomError

    from dinmo_dbt.config.block import audited

    if wanted is None:
        return None
    try:
        return audited(wanted)
    except PydanticCustomError as error:
        raise UsageError(BAD_AUDIT, f"--audit {wanted}: {error.message()}") from None


def with_audit(activations: Sequence[Activation], size: Ceiling | None) -> Sequence[Activation]:
    """The same, with that size in the place of what each of them says."""
    return activations if size is None else [replace(activation, audit=size) for activation in activations]


def _beside(session: Session, activation: Activation, since: float) -> AbstractContextManager[str | None]:
    """Why the activation may not run beside what is being run now; '' if it may, until the end; None where it was begun
    since that moment."""
    if session.lanes is None:
        return nullcontext("")
    return session.lanes.turn(activation, reach(session, activation), session.clock, since)


def sync_chosen(
    session: Session,
    chosen: Sequence[Activation],
    ceilings: Ceilings,
    gating: Gating,
    command: str = "sync",
    triggers: Mapping[str, Trigger] | None = None,
    threads: int = 1,
) -> int:
    """Sync the chosen activations, parents first; the exit code of `command`, whose document it prints."""
    from dinmo_dbt.cli import printed

    with telling_of_all(session, unattended=triggers is not None):
        report = sync_each(session, chosen, ceilings, gating, triggers, threads)
    if report.state_problem:
        tell_of_state(session, report.state_problem)
    elif any("run_id" in result for result in report.results):
        tell_state_is_well(session)
    code = worst(report.codes)
    calls, results = session.api_calls, report.results
    session.console.document(printed.document(command, exit_code=code, api_calls=calls, results=results))
    deliver(session)
    return code


def sync_each(
    session: Session,
    chosen: Sequence[Activation],
    ceilings: Ceilings,
    gating: Gating,
    triggers: Mapping[str, Trigger] | None = None,
    threads: int = 1,
) -> Report:
    """Sync the chosen activations, parents first, up to `threads` of them at once; what became of each is reported and
    written. `triggers` say why, by activation; None: by hand."""
    from dinmo_dbt.cli import printed

    console = session.console
    _begin(session, chosen, gating)
    report = Report(time.monotonic())
    skips = {activation.name: skip_reason(session, activation, gating) for activation in chosen}
    if gating.only_built:
        chosen = [a for a in chosen if (skip := skips[a.name]) is None or skip[0] != "skipped"]
    fitting = ordered(session, [activation for activation in chosen if skips[activation.name] is None])
    left_over = [activation for activation in chosen if skips[activation.name] is not None]
    wrong = _wrong(session, gating)
    total = len(chosen) + len(wrong)
    console.timed(f"Syncing {printed.count(total, 'activation')} for dbt target {session.target[1]}")
    turns = [
        Turn(each, f"{number} of {total}", triggers[each.name] if triggers else by_hand(session, each))
        for number, each in enumerate([*fitting, *left_over], 1)
    ]

    def take(own: Session, turn: Turn) -> None:
        _take(own, turn, skips[turn.activation.name], ceilings, gating, report)

    take_all(session, turns[: len(fitting)], threads, take)
    for turn in turns[len(fitting) :]:
        take(session, turn)
    report.put_in_order([turn.activation.name for turn in turns])
    for number, each in enumerate(wrong, len(chosen) + 1):
        _tell_wrong(session, each, f"{number} of {total}", report)
    if any(result["status"] == "interrupted" for result in report.results):
        console.say("          stopped as asked: what was sent is journalled, and the next run continues")
    write_results(session, report)
    console.timed(summary(report), summary_word(report))
    return report


def _begin(session: Session, chosen: Sequence[Activation], gating: Gating) -> None:
    """What is to be said or refused before the first turn."""
    session.say_notes()
    session.state.take_back()
    session.remember_answers()
    for note in session.gate.notes if not gating.ignore else ():
        session.console.note(note)
    if chosen:
        session.say_other_vars()
        session.start_orgs(chosen)
        session.check_target(allow_mismatch=gating.allow_target_mismatch)


def _judged(session: Session, turn: Turn, skip: tuple[str, str] | None) -> tuple[Turn, tuple[str, str] | None]:
    """The turn as it is taken, and why it is not: (status, reason). `skip`: why it was not to be before the first."""
    if turn.trigger.by_schedule and not is_due(session, turn.activation):
        skip = "skipped", MEANWHILE
    elif why := paused_by_hand(session, turn.activation):  # perhaps since this command began
        skip = "skipped", why
    elif skip is None:
        turn, skip = look_at_pause(session, turn)
    if skip and skip[0] == "under way" and turn.trigger.by_schedule:
        skip = "skipped", skip[1]  # it stays due
    return turn, skip


def _take(
    session: Session,
    turn: Turn,
    skip: tuple[str, str] | None,
    ceilings: Ceilings,
    gating: Gating,
    report: Report,
) -> None:
    """One turn, unless the command was asked to stop, or what runs right now is in its way."""
    activation = turn.activation
    if session.clock.signal:
        message = "the run was asked to stop before its turn"
        report.add(activation, "interrupted", 0.0, message, exit_code=128 + session.clock.signal)
        return
    if session.lanes is not None and session.lanes.has_begun(activation, report.started):
        return
    turn, skip = _judged(session, turn, skip)
    if skip:
        skip_turn(session, turn, skip, report)
        return
    with _beside(session, activation, report.started) as in_the_way:
        if in_the_way:
            skip_turn(session, turn, ("skipped", in_the_way), report)
        elif in_the_way is not None:  # else what began it reports it
            sync_one(session, turn, ceilings, gating, report)


def _tell_wrong(session: Session, wrong: NotActivated, place: str, report: Report) -> None:
    from dinmo_dbt.cli import printed

    console = session.console
    console.timed(printed.dotted(f"{place} ERROR {wrong.name}", "NOT VALID", console.width - 10), "ERROR")
    console.problems(wrong.problems)
    problems = console.documents(wrong.problems)
    report.add(wrong, "failed", 0.0, wrong.problems[0].message, problems=problems, exit_code=ConfigError.exit_code)


def _wrong(session: Session, gating: Gating) -> list[NotActivated]:
    """What is selected and can't be synced, of what this command would sync. A service tells of it once, by itself."""
    if session.lanes is not None:
        return []
    built = session.run_results.built if gating.only_built and session.run_results else None
    return [each for each in session.wrong if built is None or each.model.unique_id in built]
