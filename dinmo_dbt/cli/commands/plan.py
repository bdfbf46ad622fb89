"""plan: what a sync would send, and why."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dinmo_dbt.cli import examples, options
from dinmo_dbt.cli.console import Console, worst
from dinmo_dbt.cli.drawing import draw_plan, ordered, scan_spool
from dinmo_dbt.cli.gating import skip_reason
from dinmo_dbt.cli.options import Flags, Gating
from dinmo_dbt.cli.session import Session
from dinmo_dbt.errors import ConfigError, DinmoError

if TYPE_CHECKING:
    from dinmo_dbt.plan.guards import Ceilings
    from dinmo_dbt.plan.plan import Arriving, Plan
    from dinmo_dbt.state.journal import ActivationState


def plan(
    flags: Flags,
    *,
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
    ceilings: Ceilings,
    gating: Gating,
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
    console = Console(as_json, quiet)
    with Session(flags, console) as session:
        if not no_parse:
            session.parse_if_changed()
        if session.unparsed:
            raise ConfigError.of([session.unparsed])
        raise typer.Exit(
            _plan(
                session,
                replace(ceilings, full=full),
                gating,
                show_values=show_values,
                detailed=detailed_exitcode,
            )
        )


def _plan(session: Session, ceilings: Ceilings, gating: Gating, *, show_values: bool, detailed: bool) -> int:
    from dinmo_dbt.cli import printed, render

    console = session.console
    chosen = session.chosen
    session.say_notes()
    if chosen:
        session.say_other_vars()
        session.start_orgs(chosen)
        session.check_target(allow_mismatch=gating.allow_target_mismatch)
    documents: list[dict[str, Any]] = []
    codes, sends = [0], False
    fitting = []
    for activation in chosen:
        skip = skip_reason(session, activation, gating)
        if skip:
            console.answer([f"{activation.name}: would be skipped: {skip[1]}", ""])
            documents.append({"activation": activation.name, "skipped": skip[1]})
        else:
            fitting.append(activation)
    arriving: dict[str, list[Arriving]] = {}
    named_by = {m.field.rpartition(".")[2].lower() for each in fitting for m in each.fields if "." in m.field}
    for activation in ordered(session, fitting):
        try:
            with scan_spool(session) as spool:
                destination = session.destination(activation.destination)
                state = session.state.view(destination.org_id, activation)
                coming = arriving.setdefault(activation.destination, [])
                drawn = draw_plan(session, activation, state, spool, ceilings, coming)
                samples = _samples(session, drawn) if show_values else None
                jobs = [flying.job_id for flying in state.in_flight if flying.job_id]
                notes = [*_org_note(state), *_parents_note(drawn)]
                lines = render.plan_lines(drawn, samples, jobs=jobs, notes=notes)
                alike = examples.found(session, activation, drawn.mapping, drawn.changes.refusals)
                wrapped = [part for line in lines for part in printed.wrapped(line, console.width)]
                console.answer([*wrapped, *(f"  {line}" for line in examples.lines(alike)), ""])
                document = render.plan_json(drawn, samples, jobs=jobs, notes=notes)
                documents.append(document | ({"not_told_apart": examples.documents(alike)} if show_values else {}))
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
    console.document(printed.document("plan", activations=documents))
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
