"""One activation's turn in a sync: from lock to history, reported as it goes."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

from dinmo_dbt.cli import examples
from dinmo_dbt.cli.drawing import draw_plan, record_of, scan_spool
from dinmo_dbt.cli.due import Turn, is_due
from dinmo_dbt.cli.gating import judge_again
from dinmo_dbt.cli.options import Gating
from dinmo_dbt.cli.recording import Recorder, new_run
from dinmo_dbt.cli.report import STATUS_EXIT, Report, after, exit_code
from dinmo_dbt.cli.session import Session
from dinmo_dbt.codes import BLOCKED, meaning
from dinmo_dbt.errors import DinmoError, Interrupted, Problem, Refused, StillRunning
from dinmo_dbt.watch.history import ON_ITS_WAY

if TYPE_CHECKING:
    from dinmo_dbt.activation import Activation
    from dinmo_dbt.delivery.run import SyncRun
    from dinmo_dbt.plan.guards import Ceilings
    from dinmo_dbt.watch.history import Trigger

LEFT_S = 120.0  # a job that has not moved for so long is left to a later look, where there are others to run
MEANWHILE = "it is not due any more: another process ran it meanwhile, or its quiet hours began"


def skip_turn(session: Session, turn: Turn, skip: tuple[str, str], report: Report) -> None:
    """Say that an activation is not synced, and why; one that the gate blocks is in the history."""
    from dinmo_dbt.cli import printed

    status, reason = skip
    console, activation = session.console, turn.activation
    console.timed(printed.dotted(f"{turn.place} SKIP {activation.name}", "SKIP", console.width - 10), "SKIP")
    for line in printed.wrapped(f"          {reason}", console.width):
        console.say(line)
    if STATUS_EXIT[status]:
        console.stopped(f"{activation.name}: not synced: {reason}")
    if status == "blocked":
        entry = Recorder(session, activation, new_run(session), turn.trigger)
        entry.block(Problem(BLOCKED, reason, activation.model.unique_id, "mend the model, then run dbt build again"))
    report.add(activation, status, 0.0, reason)


def sync_one(session: Session, turn: Turn, ceilings: Ceilings, gating: Gating, report: Report) -> None:
    from dinmo_dbt.cli import printed

    console, activation, place = session.console, turn.activation, turn.place
    width = console.width - 10  # the time stands before the line
    what = f"sync {activation.name} ({activation.mode} {activation.object})"
    console.timed(printed.dotted(f"{place} START {what}", "RUN", width))
    if turn.trigger.kind != "by_hand":
        console.say(f"          {turn.trigger.said}")
    with console.together():
        _sync_from_its_start(session, turn, ceilings, gating, report)


def _sync_from_its_start(session: Session, turn: Turn, ceilings: Ceilings, gating: Gating, report: Report) -> None:
    from dinmo_dbt.cli import printed, render

    console, activation, place = session.console, turn.activation, turn.place
    width = console.width - 10
    began = time.monotonic()
    try:
        run = _run_activation(session, activation, ceilings, turn.trigger, gating)
    except Interrupted as stop:
        seconds = time.monotonic() - began
        line = printed.dotted(f"{place} INTERRUPTED {activation.name}", f"in {seconds:.2f}s", width)
        console.timed(line, "INTERRUPTED")
        message = "stopped by a signal before anything was sent"
        report.add(activation, "interrupted", seconds, message, exit_code=128 + stop.number)
        return
    except DinmoError as error:
        means = meaning(error.problems[0].code)
        if turn.trigger.by_schedule and means.passes:
            skip_turn(session, turn, ("skipped", error.problems[0].message), report)
            return
        if means.of_state:
            report.state_problem = error.problems[0]
        seconds = time.monotonic() - began
        status = "refused" if isinstance(error, Refused) else "failed"
        word = "REFUSED" if status == "refused" else "ERROR"
        console.timed(printed.dotted(f"{place} {word} {activation.name}", f"in {seconds:.2f}s", width), word)
        console.failure(error)
        problems = console.documents(error.problems)
        report.add(
            activation, status, seconds, str(error.problems[0].message), problems=problems, exit_code=error.exit_code
        )
        return
    if run is None:
        skip_turn(session, turn, ("skipped", MEANWHILE), report)
        return
    seconds = time.monotonic() - began
    word = {
        "success": "OK",
        "rejected": "WARN",
        "unknown": "UNKNOWN",
        "failed": "ERROR",
        "on_its_way": "ON ITS WAY",
    }.get(run.status.value, "INTERRUPTED")
    status = render.run_status(run, seconds)
    console.timed(printed.dotted(f"{place} {word} {activation.name}", status, width), word)
    for line in after(run, activation):
        for part in printed.wrapped(f"          {line}", console.width):
            console.say(part)
    if run.problem and not run.interrupted:
        console.problems([run.problem])
    outcome = render.run_json(run)
    code = exit_code(session, run)
    report.add(activation, run.status.value, seconds, status, run_id=run.run_id, exit_code=code, **outcome)


def _run_activation(
    session: Session, activation: Activation, ceilings: Ceilings, trigger: Trigger, gating: Gating
) -> SyncRun | None:
    """One activation from lock to history; None when another process has done meanwhile what was due. Raises DinmoError
    when nothing could be sent."""
    from dinmo_dbt.cli.progress import progress
    from dinmo_dbt.delivery.sync import execute, recover
    from dinmo_dbt.upkeep.audit import Audit

    run = new_run(session)
    if session.lanes is not None:  # others look again
        run.patience_s = LEFT_S
        run.settling_s = 0.0 if _was_left(session, activation) else LEFT_S
    entry = Recorder(session, activation, run, trigger)
    with entry.whole():
        destination = session.destination(activation.destination)
        with session.state.locked(destination.org_id, activation, run.run_id) as state, scan_spool(session) as spool:
            if trigger.by_schedule and not is_due(session, activation):
                return None
            if not state.exists and state.other_orgs:
                session.console.say(
                    f"          first sync to org {destination.org_id}; state of other orgs is not used"
                )
            console = session.console
            watched = console.for_people and session.lanes is None and not console.shared
            bar = progress(activation.name, enabled=watched)
            with entry.held(destination), bar as shown:
                try:
                    with entry.timed("recover"):
                        recover(destination, state, session.clock, run=run, progress=shown)
                        state.reload()
                except StillRunning:
                    return run  # which says so
                with entry.timed("plan"), state.kept():
                    audit = Audit(activation, state, run)
                    drawn = draw_plan(session, activation, state, spool, ceilings, watched=audit.positions)
                entry.drawn(drawn, ceilings)
                for note in drawn.notes:
                    _note(session, note)
                shown.planned(drawn.counts.sending)
                if drawn.has_changes and not gating.ignore:
                    judge_again(session, activation)
                record = record_of(session, activation, state)
                keeping = record.kept(drawn, run.run_id, partial(_note, session))
                with examples.shown_with(session, activation), entry.timed("send"), keeping:
                    run.sampling = audit.size(drawn.counts.sending)
                    execute(drawn, destination, state, session.clock, run=run, progress=shown)
                with entry.timed("audit"):
                    audit.conclude(drawn, destination)
    return run


def _note(session: Session, note: str) -> None:
    session.console.say(f"          note: {note}")


def _was_left(session: Session, activation: Activation) -> bool:
    """Whether the run before left a job that goes on: to ask for it is enough."""
    return any(run.status == ON_ITS_WAY for run in session.state.history.latest([activation.name], 1))
