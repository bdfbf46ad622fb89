"""state accept: what the org has and the state does not know counts as known from now on, because the user says so."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from dinmo_dbt.cli import completing, options
from dinmo_dbt.cli.console import Console
from dinmo_dbt.cli.known import one_known
from dinmo_dbt.cli.options import Flags

if TYPE_CHECKING:
    from dinmo_dbt.destination import ListedJob


def accept(
    flags: Flags,
    name: Annotated[
        str,
        typer.Argument(
            metavar="ACTIVATION", help="The activation that is stopped by them.", autocompletion=completing.activation
        ),
    ],
    yes: Annotated[bool, typer.Option("--yes", help="Accept them; without, they are only shown.")] = False,
    as_json: options.Json = False,
) -> None:
    """Accept what the org has and the state does not know.

    An insert stops where such a job made rows that it would make again (DB522), or where the org's record of the state
    is not this one's (DB524). Where that is right, because the rows are to be there twice or another program made them,
    this shows them, and with --yes the next sync passes them over: the rows are inserted again. To keep the records
    as they are, use state adopt. Nothing is written to Salesforce.

    \b
    Examples:
      dinmo-dbt state accept events_to_crm          which jobs they are
      dinmo-dbt state accept events_to_crm --yes
    """
    from dinmo_dbt.cli import printed
    from dinmo_dbt.cli.drawing import record_of
    from dinmo_dbt.delivery import fence

    console = Console(as_json)
    # Of the model no row is read, so it does not matter where dbt has built it last.
    with one_known(flags, name, console, reads_model=False) as known:
        session, activation, destination, state = known.session, known.activation, known.destination, known.state
        listed = destination.listed_jobs() or ()
        found = fence.unknown_inserts(destination.describe(activation.object).name, listed, state.known_jobs())
        ahead, notes = record_of(session, activation, state).unknown()
        for note in notes:
            console.say(f"note: {note}")
        if yes and (found or ahead):
            with session.state.locked(destination.org_id, activation) as held:
                held.know([job.id for job in found])
                record_of(session, activation, held).accept()
        lines = [f"{job.id}  {job.said}, {job.state}" for job in found] or ["no job that the state does not know"]
        if ahead:
            lines.append(record_of(session, activation, state).difference(ahead))
        console.answer(lines)
        if found or ahead:
            counted = [printed.count(len(found), "job")] * bool(found) + ["1 record of the state"] * bool(ahead)
            found_text = " and ".join(counted)
            console.answer(
                [f"accepted: {found_text}" if yes else f"{found_text}; --yes accepts {'it' if not found else 'them'}"]
            )
        jobs = [_job_json(job) for job in found]
        record = {"serial": ahead.serial, "lineage": ahead.lineage, "run_id": ahead.run} if ahead else None
        console.document(
            printed.document("state accept", accepted=yes, activation=activation.name, jobs=jobs, record=record)
        )


def _job_json(job: ListedJob) -> dict[str, Any]:
    from dinmo_dbt.artifacts.gate import moment_of
    from dinmo_dbt.text.moments import iso_or_none

    return {
        "job_id": job.id,
        "operation": job.operation,
        "object": job.object,
        "status": job.state,
        "created": iso_or_none(moment_of(job.created)),
        "user_id": job.user,
        "api_version": job.api_version,
        "as_ours": job.as_ours,
    }
