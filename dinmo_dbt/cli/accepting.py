"""state accept: jobs in the org that the state does not know count as known from now on, because the user says so."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer

from dinmo_dbt.cli import options
from dinmo_dbt.cli.console import Console
from dinmo_dbt.cli.options import Flags
from dinmo_dbt.cli.session import Session


def accept(
    flags: Flags,
    name: Annotated[str, typer.Argument(metavar="ACTIVATION", help="The activation that is stopped by them.")],
    yes: Annotated[bool, typer.Option("--yes", help="Accept them; without, they are only shown.")] = False,
    as_json: options.Json = False,
) -> None:
    """Accept insert jobs that the org has and the state does not know.

    An insert stops (DB522) where such a job made rows that it would make again. Where that is right, because the rows
    are to be there twice or another program made them, this shows the jobs, and with --yes the next sync passes them
    over: their rows are inserted again. To keep the records as they are, use state adopt. Nothing is written to
    Salesforce.

    \b
    Examples:
      dinmo-dbt state accept events_to_crm          which jobs they are
      dinmo-dbt state accept events_to_crm --yes
    """
    from dinmo_dbt import fence, render
    from dinmo_dbt.cli.trust import known_state, named

    console = Console(as_json)
    with Session(dataclasses.replace(flags, select=(name,)), console) as session:
        activation = named(session, name)
        session.start_orgs()
        destination, state = known_state(session, activation)
        listed = destination.listed_jobs() or ()
        found = fence.unknown_inserts(destination.describe(activation.object).name, listed, state.known_jobs())
        if yes and found:
            with session.state.locked(destination.org_id, activation) as held:
                held.know([job.id for job in found])
        console.answer(
            [f"{job.id}  {job.said}, {job.state}" for job in found] or ["no job that the state does not know"]
        )
        if found:
            jobs = render.count(len(found), "job")
            console.answer([f"accepted: {jobs}" if yes else f"{jobs}; --yes accepts them"])
        told = [dataclasses.asdict(job) for job in found]
        console.document(render.document("state accept", accepted=yes, activation=activation.name, jobs=told))
