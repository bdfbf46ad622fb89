"""plan, sync and run: from declared activations to delivered rows."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dinmo_dbt.cli import cloud, examples, options
from dinmo_dbt.cli.console import Console, worst
from dinmo_dbt.cli.options import Flags
from dinmo_dbt.cli.pauses import look_at_pause, paused_by_hand
from dinmo_dbt.cli.recording import BUILT_MEANWHILE, HELD_BY_ANOTHER, Recorder, new_run
from dinmo_dbt.cli.scheduling import Turn, by_hand, is_due
from dinmo_dbt.cli.sending import (
    BUSY_DATABASE,
    STATE_ITSELF,
    deliver,
    tell_of_state,
    tell_of_wrong,
    tell_state_is_well,
    telling_of_all,
)
from dinmo_dbt.cli.session import Session
from dinmo_dbt.errors import (
    ConfigError,
    DbtCloudError,
    DinmoError,
    Interrupted,
    Problem,
    Refused,
    StillRunning,
    UsageError,
)
from dinmo_dbt.text.moments import iso
from dinmo_dbt.watch.history import ON_ITS_WAY

if TYPE_CHECKING:
    from dinmo_dbt.activation import Activation
    from dinmo_dbt.config.meta import Left
    from dinmo_dbt.delivery.run import SyncRun
    from dinmo_dbt.delivery.state_record import RecordOf
    from dinmo_dbt.plan.guards import Ceilings
    from dinmo_dbt.plan.plan import Arriving, Plan
    from dinmo_dbt.rows.snapshot import Positions
    from dinmo_dbt.state import ActivationState, ScanSpool
    from dinmo_dbt.watch.history import Trigger

LEFT_S = 120.0  # a job that has not moved for so long is left to a later look, where there are others to run
BLOCKED = "DB450"
MEANWHILE = "it is not due any more: another process ran it meanwhile, or its quiet hours began"
STATUS_EXIT = {
    "success": 0,
    "rejected": 3,
    "unknown": 6,
    "failed": 1,
    "on_its_way": 1,
    "refused": 4,
    "skipped": 0,
    "blocked": 4,
    "under way": 4,
    "paused": 4,
}


def plan(
    flags: Flags,
    show_values: Annotated[
        bool,
        typer.Option(
            "--show-values",
            help="For up to 20 rows, and 20 that would be removed: what Salesforce holds now -> what would be sent.",
        ),
    ] = False,
    detailed_exitcode: Annotated[
        bool, typer.Option("--detailed-exitcode", help="Exit 10 when a sync would send rows.")
    ] = False,
    full: options.Full = False,
    first_sync: options.FirstSync = False,
    allow_changes: options.AllowChanges = 0,
    allow_creates: options.AllowCreates = 0,
    allow_replaced: options.AllowReplaced = 0,
    allow_remap: options.AllowRemap = 0,
    allow_deletes: options.AllowDeletes = 0,
    ignore_gate: options.IgnoreGate = False,
    require_built: options.RequireBuilt = False,
    allow_target_mismatch: options.TargetMismatch = False,
    no_parse: options.NoParse = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Show what a sync would send, and why; changes nothing.

    Computed by the code of `sync`, from the same state, stopped before anything is written: here or in Salesforce.

    \b
    Examples:
      dinmo-dbt plan
      dinmo-dbt plan -s tag:crm --show-values     what Salesforce holds -> what it would be sent
      dinmo-dbt plan --detailed-exitcode          exit 10 when a sync would send rows
    """
    from dinmo_dbt.plan.guards import Ceilings

    console = Console(as_json, quiet)
    with Session(flags, console) as session:
        if not no_parse:
            session.parse_if_changed()
        if session.unparsed:
            raise ConfigError.of([session.unparsed])
        raise typer.Exit(
            _plan(
                session,
                Ceilings(allow_changes, allow_creates, allow_replaced, allow_remap, allow_deletes, first_sync, full),
                Gating(ignore_gate, require_built, allow_target_mismatch),
                show_values=show_values,
                detailed=detailed_exitcode,
            )
        )


def sync(
    flags: Flags,
    due: Annotated[
        bool, typer.Option("--due", help="Only what is due by its schedule, for cron or an orchestrator to call often.")
    ] = False,
    full: options.Full = False,
    first_sync: options.FirstSync = False,
    allow_changes: options.AllowChanges = 0,
    allow_creates: options.AllowCreates = 0,
    allow_replaced: options.AllowReplaced = 0,
    allow_remap: options.AllowRemap = 0,
    allow_deletes: options.AllowDeletes = 0,
    ignore_gate: options.IgnoreGate = False,
    require_built: options.RequireBuilt = False,
    allow_target_mismatch: options.TargetMismatch = False,
    audit: options.Audit = None,
    dbt_cloud_job: cloud.Job = None,
    run: cloud.Run = None,
    wait: cloud.Wait = False,
    threads: Annotated[int | None, typer.Option("--threads", help="Accepted as dbt's; syncs run one by one.")] = None,  # noqa: ARG001
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    log_format: options.LogFormat = options.Log.TEXT,
) -> None:
    """Send what changed since the last sync, and nothing else.

    Parents go first, every row read is accounted for, and a run that was cut off is settled and continued by the
    next. What a guard refuses, its message says how to allow.

    \b
    Examples:
      dinmo-dbt sync
      dinmo-dbt sync -s customers_to_crm subscriptions_to_crm
      dinmo-dbt sync -s dim_customers --full      send all known rows again
      dinmo-dbt sync --dbt-cloud-job 123 --wait   what a job in dbt Cloud built, once it has ended
      dinmo-dbt sync --due                        what its schedule asks for by now
    """
    from dinmo_dbt.plan.guards import Ceilings

    console = Console(as_json, quiet, log_format)
    following = cloud.following(dbt_cloud_job, run, wait=wait)
    with Session(flags, console, following=following) as session:
        if following:
            following.begin(session, run, wait=wait)
        gating = Gating(ignore_gate, require_built, allow_target_mismatch)
        ceilings = Ceilings(allow_changes, allow_creates, allow_replaced, allow_remap, allow_deletes, first_sync, full)
        _set_audit(session, audit)
        if due:
            raise typer.Exit(sync_due(session, ceilings, gating))
        raise typer.Exit(sync_chosen(session, ceilings, gating))


def run(
    context: typer.Context,
    flags: Flags,
    first_sync: options.FirstSync = False,
    allow_changes: options.AllowChanges = 0,
    allow_creates: options.AllowCreates = 0,
    allow_replaced: options.AllowReplaced = 0,
    allow_remap: options.AllowRemap = 0,
    allow_deletes: options.AllowDeletes = 0,
    audit: options.Audit = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Run dbt, then sync what it built.

    dbt's --target, --profile, --profiles-dir, --project-dir, --target-path and --vars hold for both. Models that
    failed, or whose tests did, are not synced; if dbt failed, so does this command.

    \b
    Examples:
      dinmo-dbt run -- dbt build
      dinmo-dbt run -- dbt build --select marts --target prod
    """
    from dinmo_dbt.cli.dbt_command import DbtCommand
    from dinmo_dbt.plan.guards import Ceilings

    command = DbtCommand(list(context.args))
    flags = command.share(flags)
    console = Console(as_json, quiet)
    with Session(flags, console) as before:
        target_folder = before.target_path
    try:
        dbt_code = command.run(target_folder, as_json=as_json)
    except Interrupted:
        console.say("dbt was asked to stop: nothing is synced")
        raise
    if not command.wrote_results:
        console.say("dbt wrote no run results of its own: nothing to sync")
        raise typer.Exit(1 if dbt_code else 0)
    with Session(flags, console) as session:
        ceilings = Ceilings(allow_changes, allow_creates, allow_replaced, allow_remap, allow_deletes, first_sync)
        _set_audit(session, audit)
        code = sync_chosen(session, ceilings, Gating(require_built=True, only_built=True))
    raise typer.Exit(worst([code, 1]) if dbt_code else code)


@dataclass(frozen=True)
class Gating:
    """How strictly dbt's own verdict is taken."""

    ignore: bool = False
    require_built: bool = False
    allow_target_mismatch: bool = False
    only_built: bool = False  # `run`: what dbt did not build is not of interest, and not a skip worth a line


def _set_audit(session: Session, wanted: str | None) -> None:
    """--audit in the place of what each activation says."""
    from pydantic_core import PydanticCustomError

    from dinmo_dbt.config.block import audited

    if wanted is None:
        return
    try:
        size = audited(wanted)
    except PydanticCustomError as error:
        raise UsageError("DB815", f"--audit {wanted}: {error.message()}") from None
    session.chosen = tuple(replace(activation, audit=size) for activation in session.chosen)


def _skip_reason(session: Session, activation: Activation, gating: Gating) -> tuple[str, str] | None:
    """Why an activation is not synced: (status, reason); None if it is."""
    from dinmo_dbt.artifacts.gate import Standing

    if not activation.enabled:
        return "skipped", "enabled: false"
    if why := paused_by_hand(session, activation):
        return "skipped", why
    if gating.ignore:
        return None
    if gating.only_built and session.run_results and activation.model not in session.run_results.built:
        return "skipped", "not built by this dbt command"
    verdict = session.gate.verdict(activation.model)
    if verdict.standing is Standing.UNDER_WAY:
        return "under way", verdict.reason
    if verdict.is_blocked:
        return "blocked", verdict.reason
    if verdict.standing is Standing.UNBUILT and gating.require_built:
        return "skipped", verdict.reason or "not built by the last dbt command"
    return None


def _ordered(session: Session, activations: list[Activation]) -> list[Activation]:
    """Parents first, as the objects' lookups say."""
    from dinmo_dbt.artifacts.order import cycles, order

    references = partial(_references, session)
    if len(activations) > 1:
        for note in cycles(activations, references):
            session.console.note(note)
        return list(order(activations, references))
    return activations


def _references(session: Session, activation: Activation) -> set[str]:
    """The objects it refers to, as Salesforce describes its own."""
    from dinmo_dbt.rows.mapping import referenced_objects

    try:
        schema = session.destination(activation.destination).describe(activation.object)
    except DinmoError:
        return set()  # its own turn reports it, and the others have theirs
    return set(referenced_objects(schema, activation))


def _turn(session: Session, activation: Activation, since: float) -> AbstractContextManager[str | None]:
    """Why the activation may not run beside what is being run now; '' if it may, until the end; None where it was begun
    since that moment."""
    if session.lanes is None:
        return nullcontext("")
    return session.lanes.turn(activation, partial(_references, session), session.clock, since)


@contextmanager
def scan_spool(session: Session) -> Iterator[ScanSpool]:
    from dinmo_dbt.state import ScanSpool

    spool = ScanSpool(session.scratch)
    try:
        yield spool
    finally:
        spool.close()


def _draw(
    session: Session,
    activation: Activation,
    state: ActivationState,
    spool: ScanSpool,
    ceilings: Ceilings,
    arriving: Sequence[Arriving] = (),
    watched: Positions | None = None,
) -> Plan:
    from dinmo_dbt.delivery import fence
    from dinmo_dbt.plan.draw import draw

    session.refuse_sharing(activation, state, is_meant=ceilings.first_sync)
    state.refuse_renamed(session.declared.names)
    destination = session.destination(activation.destination)
    source = session.source
    drawn = draw(activation, source, destination, state, spool, ceilings=ceilings, arriving=arriving, watched=watched)
    notes = fence.check(drawn, destination, state, sleep=session.clock.sleep if state.writing else None)
    told = record_of(session, activation, state).check(drawn)
    return replace(drawn, notes=(*drawn.notes, *notes, *told))


def record_of(session: Session, activation: Activation, state: ActivationState) -> RecordOf:
    """The org's own record of the activation's state."""
    from dinmo_dbt.delivery.state_record import RecordOf

    destination, project = session.destination(activation.destination), session.manifest.project_name
    return RecordOf(destination, state, project, state.own.target, activation.name)


# plan


def _plan(session: Session, ceilings: Ceilings, gating: Gating, *, show_values: bool, detailed: bool) -> int:
    from dinmo_dbt.cli import render

    console = session.console
    chosen = session.chosen
    session.say_notes()
    if chosen:
        session.say_other_vars()
        session.start_orgs()
        session.check_target(allow_mismatch=gating.allow_target_mismatch)
    documents: list[dict[str, Any]] = []
    codes, sends = [0], False
    fitting = []
    for activation in chosen:
        skip = _skip_reason(session, activation, gating)
        if skip:
            console.answer([f"{activation.name}: would be skipped: {skip[1]}", ""])
            documents.append({"activation": activation.name, "skipped": skip[1]})
        else:
            fitting.append(activation)
    arriving: dict[str, list[Arriving]] = {}
    named_by = {m.field.rpartition(".")[2].lower() for each in fitting for m in each.fields if "." in m.field}
    for activation in _ordered(session, fitting):
        try:
            with scan_spool(session) as spool:
                destination = session.destination(activation.destination)
                state = session.state.view(destination.org_id, activation)
                coming = arriving.setdefault(activation.destination, [])
                drawn = _draw(session, activation, state, spool, ceilings, coming)
                samples = _samples(session, drawn) if show_values else None
                jobs = [flying.job_id for flying in state.in_flight if flying.job_id]
                notes = [*_org_note(state), *_parents_note(drawn)]
                lines = render.plan_lines(drawn, samples, jobs=jobs, notes=notes)
                untold = examples.found(session, activation, drawn.mapping, drawn.changes.refusals)
                wrapped = [part for line in lines for part in render.wrapped(line, console.width)]
                console.answer([*wrapped, *(f"  {line}" for line in examples.lines(untold)), ""])
                told = render.plan_json(drawn, samples, jobs=jobs, notes=notes)
                documents.append(told | ({"not_told_apart": examples.documents(untold)} if show_values else {}))
                sends = sends or drawn.has_changes
                codes.append(4 if drawn.refusal else 0)
                coming += drawn.arriving(named_by)
        except DinmoError as error:
            console.failure(error, f"{activation.name}: ")
            documents.append({"activation": activation.name, "problems": console.documents(error.problems)})
            codes.append(error.exit_code)
    for wrong in session.wrong:
        console.problems(wrong.problems, f"{wrong.name}: ")
        documents.append({"activation": wrong.name, "problems": console.documents(wrong.problems)})
        codes.append(ConfigError.exit_code)
    console.document(render.document("plan", activations=documents))
    code = worst(codes)
    return 10 if detailed and sends and code == 0 else code


def _org_note(state: ActivationState) -> list[str]:
    if state.exists or not state.other_orgs:
        return []
    return [f"it was synced to another org before; org {state.org_id} starts without state"]


def _parents_note(drawn: Plan) -> list[str]:
    """Rows whose parents an earlier activation of the same plan creates."""
    return ["some of their parents are created earlier in this plan"] if drawn.awaits_parents else []


def _samples(session: Session, drawn: Plan) -> list[dict[str, Any]]:
    """Up to 20 rows, known ones first: what Salesforce holds now and what it would hold."""
    from dinmo_dbt.plan.preview import preview

    return [asdict(row) for row in preview(drawn, session.destination(drawn.activation.destination))]


# sync


@dataclass
class Report:
    """What target/dinmo_run_results.json says."""

    started: float
    results: list[dict[str, Any]] = field(default_factory=list)
    state_problem: Problem | None = None  # what keeps the state itself from being used
    codes: list[int] = field(default_factory=lambda: [0])

    def add(self, activation: Activation | Left, status: str, seconds: float, message: str, **content: Any) -> None:
        self.codes.append(content.pop("exit_code", STATUS_EXIT.get(status, 1)))
        self.results.append(
            {
                "activation": activation.name,
                "model": activation.model,
                "object": activation.object,
                "status": status,
                "message": message,
                "seconds": round(seconds, 3),
                **content,
            }
        )


def sync_chosen(
    session: Session,
    ceilings: Ceilings,
    gating: Gating,
    command: str = "sync",
    triggers: Mapping[str, Trigger] | None = None,
) -> int:
    """Sync the session's chosen activations, parents first; the exit code of `command`, whose document it prints."""
    from dinmo_dbt.cli import render

    with telling_of_all(session, unattended=triggers is not None):
        report = sync_each(session, ceilings, gating, triggers)
    if report.state_problem:
        tell_of_state(session, report.state_problem)
    elif any("run_id" in result for result in report.results):
        tell_state_is_well(session)
    code = worst(report.codes)
    calls, results = session.api_calls, report.results
    session.console.document(render.document(command, exit_code=code, api_calls=calls, results=results))
    deliver(session)
    return code


def sync_due(session: Session, ceilings: Ceilings, gating: Gating) -> int:
    """Sync what is due by its schedule; the exit code. With nothing due, no connection is made."""
    from dinmo_dbt.cli import render
    from dinmo_dbt.cli.scheduling import due_now, next_lines, worth_running

    with telling_of_all(session, unattended=True):
        triggers = worth_running(session, due_now(session))
        tell_of_wrong(session)
        if triggers:
            session.chosen = tuple(activation for activation in session.chosen if activation.name in triggers)
            return sync_chosen(session, ceilings, gating, triggers=triggers)
    code = session.say_wrong()
    session.console.say("nothing is due")
    for line in next_lines(session):
        session.console.say(f"  {line}")
    session.console.document(render.document("sync", exit_code=code, api_calls=0, results=[]))
    deliver(session)
    return code


def sync_each(
    session: Session, ceilings: Ceilings, gating: Gating, triggers: Mapping[str, Trigger] | None = None
) -> Report:
    """Sync the session's chosen activations, parents first; what became of each is told and written. `triggers` say
    why, by activation; None: by hand."""
    from dinmo_dbt.cli import render

    console = session.console
    chosen = session.chosen
    session.say_notes()
    session.state.take_back()
    session.remember_answers()
    for note in session.gate.notes if not gating.ignore else ():
        console.note(note)
    if chosen:
        session.say_other_vars()
        session.start_orgs()
        session.check_target(allow_mismatch=gating.allow_target_mismatch)
    report = Report(time.monotonic())
    skips = {activation.name: _skip_reason(session, activation, gating) for activation in chosen}
    if gating.only_built:
        chosen = tuple(a for a in chosen if (skip := skips[a.name]) is None or skip[0] != "skipped")
    fitting = _ordered(session, [activation for activation in chosen if skips[activation.name] is None])
    wrong = _wrong(session, gating)
    total = len(chosen) + len(wrong)
    console.timed(f"Syncing {render.count(total, 'activation')} for dbt target {session.target[1]}")
    left_over = [activation for activation in chosen if skips[activation.name] is not None]
    for number, activation in enumerate([*fitting, *left_over], 1):
        if session.clock.signal:
            told = "the run was asked to stop before its turn"
            report.add(activation, "interrupted", 0.0, told, exit_code=128 + session.clock.signal)
            continue
        if session.lanes is not None and session.lanes.has_begun(activation, report.started):
            continue  # whoever began it tells of it
        trigger = triggers[activation.name] if triggers else by_hand(session, activation)
        turn = Turn(activation, f"{number} of {total}", trigger)
        skip = skips[activation.name]
        if triggers and not is_due(session, activation):
            skip = "skipped", MEANWHILE
        elif why := paused_by_hand(session, activation):  # perhaps since this command began
            skip = "skipped", why
        elif skip is None:
            turn, skip = look_at_pause(session, turn)
        if skip:
            if skip[0] == "under way" and turn.trigger.by_schedule:
                skip = "skipped", skip[1]  # it stays due
            _skip(session, turn, skip, report)
            continue
        with _turn(session, activation, report.started) as in_the_way:
            if in_the_way:
                _skip(session, turn, ("skipped", in_the_way), report)
            elif in_the_way is not None:
                _sync_one(session, turn, ceilings, gating, report)
    for number, each in enumerate(wrong, len(chosen) + 1):
        console.timed(render.dotted(f"{number} of {total} ERROR {each.name}", "NOT VALID", console.width - 10), "ERROR")
        console.problems(each.problems)
        documents = console.documents(each.problems)
        report.add(each, "failed", 0.0, each.problems[0].message, problems=documents, exit_code=ConfigError.exit_code)
    if any(result["status"] == "interrupted" for result in report.results):
        console.say("          stopped as asked: what was sent is journalled, and the next run continues")
    _write_results(session, report)
    console.timed(_summary(report), _summary_word(report))
    return report


def _wrong(session: Session, gating: Gating) -> list[Left]:
    """What is selected and can't be synced, of what this command would sync. A service tells of it once, by itself."""
    if session.lanes is not None:
        return []
    built = session.run_results.built if gating.only_built and session.run_results else None
    return [each for each in session.wrong if built is None or each.model in built]


def _skip(session: Session, turn: Turn, skip: tuple[str, str], report: Report) -> None:
    """Say that an activation is not synced, and why; one that the gate blocks is in the history."""
    from dinmo_dbt.cli import render

    status, reason = skip
    console, activation = session.console, turn.activation
    console.timed(render.dotted(f"{turn.place} SKIP {activation.name}", "SKIP", console.width - 10), "SKIP")
    for line in render.wrapped(f"          {reason}", console.width):
        console.say(line)
    if STATUS_EXIT[status]:
        console.stopped(f"{activation.name}: not synced: {reason}")
    if status == "blocked":
        detail = {"object": activation.object, "model": activation.model, "mode": activation.mode.value}
        entry = Recorder(session, activation, new_run(session), turn.trigger, detail)
        entry.block(Problem(BLOCKED, reason, activation.model, "mend the model, then run dbt build again"))
    report.add(activation, status, 0.0, reason)


def _sync_one(session: Session, turn: Turn, ceilings: Ceilings, gating: Gating, report: Report) -> None:
    from dinmo_dbt.cli import render

    console, activation, place = session.console, turn.activation, turn.place
    width = console.width - 10  # the time stands before the line
    what = f"sync {activation.name} ({activation.mode} {activation.object})"
    console.timed(render.dotted(f"{place} START {what}", "RUN", width))
    if turn.trigger.kind != "by_hand":
        console.say(f"          {turn.trigger.said}")
    began = time.monotonic()
    try:
        run = _run_activation(session, activation, ceilings, turn.trigger, gating)
    except Interrupted as stop:
        seconds = time.monotonic() - began
        line = render.dotted(f"{place} INTERRUPTED {activation.name}", f"in {seconds:.2f}s", width)
        console.timed(line, "INTERRUPTED")
        message = "stopped by a signal before anything was sent"
        report.add(activation, "interrupted", seconds, message, exit_code=128 + stop.number)
        return
    except DinmoError as error:
        if turn.trigger.by_schedule and error.problems[0].code in (HELD_BY_ANOTHER, BUILT_MEANWHILE, BUSY_DATABASE):
            _skip(session, turn, ("skipped", error.problems[0].message), report)
            return
        if error.problems[0].code in STATE_ITSELF:
            report.state_problem = error.problems[0]
        seconds = time.monotonic() - began
        status = "refused" if isinstance(error, Refused) else "failed"
        word = "REFUSED" if status == "refused" else "ERROR"
        console.timed(render.dotted(f"{place} {word} {activation.name}", f"in {seconds:.2f}s", width), word)
        console.failure(error)
        problems = console.documents(error.problems)
        report.add(
            activation, status, seconds, str(error.problems[0].message), problems=problems, exit_code=error.exit_code
        )
        return
    if run is None:
        _skip(session, turn, ("skipped", MEANWHILE), report)
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
    console.timed(render.dotted(f"{place} {word} {activation.name}", status, width), word)
    for line in _after(run, activation):
        for part in render.wrapped(f"          {line}", console.width):
            console.say(part)
    if run.problem and not run.interrupted:
        console.problems([run.problem])
    told = render.run_json(run)
    code = exit_code(session, run)
    report.add(activation, run.status.value, seconds, status, run_id=run.run_id, exit_code=code, **told)


def exit_code(session: Session, run: SyncRun) -> int:
    return 128 + session.clock.signal if run.interrupted else STATUS_EXIT[run.status.value]


def _after(run: SyncRun, activation: Activation) -> list[str]:
    """What is worth a line under a finished activation: rows not delivered, and what an earlier run had left."""
    import pyarrow as pa

    from dinmo_dbt.cli import render

    lines = []
    recovered = run.recovered
    settled = recovered.succeeded + recovered.rejected + recovered.held + recovered.unknown
    if settled:
        lines.append(
            f"settled first, from a run that was cut off: {recovered.succeeded:,} of {settled:,} rows were accepted"
        )
    if run.not_delivered:
        left_out = pa.concat_tables(run.not_delivered)
        lines += render.left_out_lines(left_out)
        if run.status.value == "rejected":
            lines += render.next_lines(left_out, activation.name, waiting=run.plan_counts.waiting)
    if run.audited:
        lines += render.audit_lines(run.audited)
    return lines


def _judge_again(session: Session, activation: Activation) -> None:
    """The rows are read: refuse to send them where dbt's word on their table is another one by now. What dbt builds
    meanwhile is judged when that is over."""
    from dinmo_dbt.artifacts.gate import Standing

    try:
        gate, results = session.gate_by_now()
    except DbtCloudError as error:
        told = f"whether it was built again since its rows were read is not known: {error.problems[0].message}"
        raise Refused(BUILT_MEANWHILE, told, where=activation.model, hint="run again when dbt Cloud answers") from None
    verdict = gate.verdict(activation.model)
    if verdict.standing is Standing.BLOCKED:
        raise Refused(BLOCKED, verdict.reason, where=activation.model, hint="mend the model, then run dbt build again")
    before, now = (each.built.get(activation.model) if each else None for each in (session.run_results, results))
    is_under_way = verdict.standing is Standing.UNDER_WAY
    if is_under_way or (now is not None and now != before):
        why = verdict.reason if is_under_way else "dbt has built it again since its rows were read"
        raise Refused(BUILT_MEANWHILE, why, where=activation.model, hint="run again when dbt has ended")


def _run_activation(
    session: Session, activation: Activation, ceilings: Ceilings, trigger: Trigger, gating: Gating
) -> SyncRun | None:
    """One activation from lock to history; None when another process has done meanwhile what was due. Raises DinmoError
    when nothing could be sent."""
    from dinmo_dbt.cli.progress import progress
    from dinmo_dbt.delivery.sync import execute, recover
    from dinmo_dbt.upkeep.audit import Audit

    run = new_run(session)
    detail = {"object": activation.object, "model": activation.model, "mode": activation.mode.value}
    if session.lanes is not None:  # others look again
        run.patience_s = LEFT_S
        run.settling_s = 0.0 if _was_left(session, activation) else LEFT_S
    entry = Recorder(session, activation, run, trigger, detail)
    with entry.whole():
        destination = session.destination(activation.destination)
        with session.state.locked(destination.org_id, activation, run.run_id) as state, scan_spool(session) as spool:
            if trigger.by_schedule and not is_due(session, activation):
                return None
            if not state.exists and state.other_orgs:
                session.console.say(
                    f"          first sync to org {destination.org_id}; state of other orgs is not used"
                )
            bar = progress(activation.name, enabled=session.console.for_people and session.lanes is None)
            with entry.held(destination), bar as shown:
                try:
                    with entry.timed("recover"):
                        recover(destination, state, session.clock, run=run, progress=shown)
                        state.reload()
                except StillRunning:
                    return run  # which tells of it
                with entry.timed("plan"), state.kept():
                    audit = Audit(activation, state, run)
                    drawn = _draw(session, activation, state, spool, ceilings, watched=audit.positions)
                entry.drawn(drawn, ceilings)
                for note in drawn.notes:
                    _note(session, note)
                shown.planned(drawn.counts.sending)
                if drawn.has_changes and not gating.ignore:
                    _judge_again(session, activation)
                record = record_of(session, activation, state)
                keeping = record.kept(drawn, run.run_id, partial(_note, session))
                with examples.told(session, activation), entry.timed("send"), keeping:
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


def _summary(report: Report) -> str:
    groups = [
        ("PASS", ("success",)),
        ("WARN", ("rejected", "unknown")),
        ("ERROR", ("failed",)),
        ("ON ITS WAY", ("on_its_way",)),
        ("REFUSED", ("refused",)),
        ("INTERRUPTED", ("interrupted",)),
        ("SKIP", ("skipped", "blocked", "under way", "paused")),
    ]
    numbers = [(name, sum(r["status"] in statuses for r in report.results)) for name, statuses in groups]
    counts = [f"{name}={number}" for name, number in numbers if number or name not in ("INTERRUPTED", "ON ITS WAY")]
    return f"Done. {' '.join(counts)} TOTAL={len(report.results)}"


def _summary_word(report: Report) -> str:
    """The word of a summary that is to stand out: what went wrong, or that nothing did."""
    worst_first = [("ERROR", "failed"), ("REFUSED", "refused"), ("WARN", "unknown"), ("WARN", "rejected")]
    present = {result["status"] for result in report.results}
    return next((word for word, status in worst_first if status in present), "PASS")


def _as_dbt_names(result: dict[str, Any]) -> dict[str, Any]:
    own = {name: value for name, value in result.items() if name not in ("model", "seconds")}
    return {"unique_id": result["model"], "execution_time": result["seconds"], **own}


def _write_results(session: Session, report: Report) -> None:
    """target/dinmo_run_results.json, with the names that dbt's run results have: whole or not at all."""
    from dinmo_dbt import __version__

    content = {
        "metadata": {
            "dinmo_schema_version": "1",
            "dinmo_version": __version__,
            "generated_at": iso(session.clock.now()),
            "dbt_invocation_id": session.manifest.invocation_id,
        },
        "args": {
            "target": session.target[1],
            "select": list(session.flags.select),
            "exclude": list(session.flags.exclude),
        },
        "elapsed_time": round(time.monotonic() - report.started, 3),
        "results": [_as_dbt_names(result) for result in report.results],
    }
    path = session.target_path / "dinmo_run_results.json"
    half = path.with_suffix(f".{os.getpid()}.{threading.get_ident()}.tmp")
    try:
        half.write_text(json.dumps(content, indent=2), encoding="utf-8")
        half.replace(path)
    except OSError as error:
        half.unlink(missing_ok=True)
        session.console.note(Problem("DB802", f"can't be written: {error.strerror}; the history has it", str(path)))
