"""revert: what a run overwrote goes back, from its before-images, unless somebody wrote since."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dinmo_dbt.cli import options
from dinmo_dbt.cli.console import Console
from dinmo_dbt.cli.known import known_run
from dinmo_dbt.cli.options import Flags
from dinmo_dbt.cli.recording import Recorder, new_run
from dinmo_dbt.cli.report import exit_code
from dinmo_dbt.cli.session import Session
from dinmo_dbt.codes import NO_BEFORE_IMAGES, RUN_OF_ANOTHER_ORG, RUN_OF_NO_ACTIVATION
from dinmo_dbt.errors import Refused, UsageError
from dinmo_dbt.watch.history import Trigger

if TYPE_CHECKING:
    from dinmo_dbt.activation import Activation
    from dinmo_dbt.delivery.run import SyncRun
    from dinmo_dbt.state.journal import ActivationState
    from dinmo_dbt.upkeep.revert import Reversal
    from dinmo_dbt.watch.history import RunRecord

LISTED_ROWS = 20


def revert(
    flags: Flags,
    run_id: Annotated[str, typer.Argument(metavar="RUN", help="The run to undo; dinmo-dbt history lists them.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without, only what would be done is shown.")] = False,
    allow_deletes: options.AllowDeletes = 0,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Put back what a run overwrote in Salesforce.

    From the run's before-images (keep_before_images in meta). A record goes back where Salesforce still holds what the
    run wrote; one that a person or a later run wrote to since is left alone and named. Records that the run created
    are deleted, but for those that another row, activation or dbt target has by now; records that it deleted are in the
    Recycle Bin, where no API can take them out.

    The next sync sends the model's values again: mend the model first.

    \b
    Examples:
      dinmo-dbt revert 20260131T080000-3fa2c1
      dinmo-dbt revert 20260131T080000-3fa2c1 --yes
      dinmo-dbt revert 20260131T080000-3fa2c1 --yes --allow-deletes 500
    """
    from dinmo_dbt.cli import printed

    console = Console(as_json, quiet)
    with Session(flags, console) as session:
        past = known_run(session, run_id)
        if past.target != session.target[1]:
            raise Refused(
                RUN_OF_ANOTHER_ORG,
                f"run {run_id} was of dbt target {past.target}, and {session.target[1]} is chosen",
                hint="choose its --target",
            )
        activation = _activation(session, past)
        session.start_orgs([activation])
        destination = session.destination(activation.destination)
        if destination.org_id != past.org_id:
            raise Refused(
                RUN_OF_ANOTHER_ORG,
                f"run {run_id} wrote to org {past.org_id}, and this target's is {destination.org_id}",
                hint="let the target's destination lead to that org",
            )
        if yes:
            drawn, run = _carry_out(session, activation, past, allow_deletes)
            code = exit_code(session, run)
        else:
            state = session.state.view(destination.org_id, activation)
            drawn, run = _draw(session, activation, state, past, allow_deletes), None
            console.answer(_lines(drawn, past, len(state.in_flight)))
            code = 4 if drawn.refusal else 0
        console.document(printed.document("revert", exit_code=code, **_json(drawn, past, run)))
        raise typer.Exit(code)


def _activation(session: Session, past: RunRecord) -> Activation:
    for activation in session.declared.activations:
        if activation.name == past.activation:
            return activation
    raise UsageError(
        RUN_OF_NO_ACTIVATION,
        f"run {past.run_id} is of {past.activation}, which no model declares any more",
        hint="declare it again until the run is reverted; with enabled: false no sync runs it",
    )


def _draw(
    session: Session, activation: Activation, state: ActivationState, past: RunRecord, allow_deletes: int
) -> Reversal:
    from dinmo_dbt.upkeep.revert import draw

    image = state.image(past.run_id)
    if image is None:
        raise Refused(
            NO_BEFORE_IMAGES,
            f"run {past.run_id} keeps no before-images",
            where=activation.meta_path,
            hint="it sent nothing, is not among the latest 20 that did, or there was no keep_before_images: true",
        )
    return draw(
        image,
        past.run_id,
        activation,
        session.destination(activation.destination),
        state,
        undelivered=session.state.history.not_delivered(past),
        allow_deletes=allow_deletes,
    )


def _carry_out(
    session: Session, activation: Activation, past: RunRecord, allow_deletes: int
) -> tuple[Reversal, SyncRun]:
    """The revert from lock to history: a run of its own. What a dead run left is settled first."""
    from dinmo_dbt.cli import printed
    from dinmo_dbt.cli.progress import progress
    from dinmo_dbt.delivery.sync import recover
    from dinmo_dbt.upkeep.revert import execute

    console, destination, run = session.console, session.destination(activation.destination), new_run(session)
    bar = progress(activation.name, enabled=console.for_people)
    trigger = Trigger("revert", f"revert of {past.run_id}")
    entry = Recorder(session, activation, run, trigger, {"mode": "revert", "reverts": past.run_id})
    locked = session.state.locked(destination.org_id, activation, run.run_id)
    with locked as state, entry.held(destination), bar as shown:
        recover(destination, state, session.clock, run=run, progress=shown)
        state.reload()
        with state.kept():
            drawn = _draw(session, activation, state, past, allow_deletes)
        shown.planned(drawn.counts.planned)
        execute(drawn, destination, state, session.clock, run=run, progress=shown)
    outcome = run.outcome
    lines = [f"{outcome.succeeded:,} of {printed.count(drawn.counts.planned, 'record')} put back, run {run.run_id}"]
    lines += [f"  {line}" for line in _left_alone(drawn)]
    lines += [f"  {number:,} {fate}: dinmo-dbt rejected {run.run_id}" for number, fate in _undone(run)]
    console.answer([*lines, *_caution(drawn)])
    if run.problem:
        console.problems([run.problem])
    return drawn, run


def _undone(run: SyncRun) -> list[tuple[int, str]]:
    fates = ((run.outcome.rejected, "rejected"), (run.outcome.held, "held"), (run.outcome.unknown, "unknown"))
    return [(number, fate) for number, fate in fates if number]


def _lines(drawn: Reversal, past: RunRecord, flying: int) -> list[str]:
    from dinmo_dbt.cli import printed

    lines = [f"{past.activation}, run {drawn.run_id}: {printed.count(drawn.counts.read, 'row')} sent"]
    restored = dict.fromkeys(c.header for b in drawn.batches if b.operation == "update" for c in b.columns[1:])
    if drawn.restored:
        lines.append(f"  put back {printed.count(drawn.restored, 'record')}: {', '.join(restored)}")
    if drawn.deleted:
        lines.append(f"  delete {printed.count(drawn.deleted, 'record')} that the run created")
    if drawn.counts.unchanged:
        lines.append(f"  {printed.count(drawn.counts.unchanged, 'record')} as before already, or never written")
    lines += [f"  {line}" for line in _left_alone(drawn)]
    if flying:
        lines.append("  rows of a run that was cut off are in flight: --yes settles them first")
    if drawn.refusal:
        return lines + [f"  {line}" for line in printed.problem_lines(drawn.refusal, "would be refused: ")]
    if not drawn.batches:
        return [*lines, "  nothing to put back"]
    return [*lines, *_caution(drawn), "--yes does it"]


def _left_alone(drawn: Reversal) -> list[str]:
    """What stays as it is, and why; records that somebody wrote to since one by one."""
    from dinmo_dbt.upkeep.revert import CONFLICT

    rows = drawn.left_alone.to_pylist()
    lines = []
    for (code, message), number in Counter((row["code"], row["message"]) for row in rows).items():
        lines.append(f"{number:,} left alone ({code}): {message}")
        if code == CONFLICT:
            changed = [row for row in rows if row["code"] == code]
            lines += [f"    {row['record_id']}: {row['fields']}" for row in changed[:LISTED_ROWS]]
            lines += [f"    and {len(changed) - LISTED_ROWS:,} more: --json"] if len(changed) > LISTED_ROWS else []
    if drawn.fixed:
        lines.append(f"{', '.join(drawn.fixed)} can't be updated now, and stays as it is")
    return lines


def _caution(drawn: Reversal) -> list[str]:
    return ["the next sync sends the model's values again: mend the model first"] if drawn.batches else []


def _json(drawn: Reversal, past: RunRecord, run: SyncRun | None) -> dict[str, Any]:
    from dinmo_dbt.cli import printed, render

    shown = ("record_id", "fate", "code", "message")
    return {
        "reverts": drawn.run_id,
        "activation": past.activation,
        "org_id": past.org_id,
        "counts": render.counts_json(drawn.counts),
        "put_back": drawn.restored,
        "deleted": drawn.deleted,
        "left_alone": [
            {name: row[name] for name in shown} | {"fields": printed.field_names(row["fields"])}
            for row in drawn.left_alone.to_pylist()
        ],
        "not_updateable": list(drawn.fixed),
        "refusal": printed.problem_json(drawn.refusal) if drawn.refusal else None,
        "run_id": run.run_id if run else None,
        "status": run.status.value if run else None,
        "outcome": render.outcome_json(run.outcome) if run else None,
    }
