"""`sync --dbt-cloud-job`: the artifacts of a job's run, fetched into a target folder of their own."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from dinmo_dbt.cli.console import Console
from dinmo_dbt.cli.options import Flags
from dinmo_dbt.cli.sending import DBT_CLOUD, telling_of_all
from dinmo_dbt.cli.session import Session
from dinmo_dbt.errors import DbtCloudError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from dinmo_dbt import dbt_cloud
    from dinmo_dbt.cli.stopping import Stop

_ID_MAX = 10**18
Job = Annotated[
    int | None,
    typer.Option("--dbt-cloud-job", min=1, max=_ID_MAX, help="Sync what this job's latest run in dbt Cloud built."),
]
Run = Annotated[int | None, typer.Option("--run", min=1, max=_ID_MAX, help="That run of the job, not the latest.")]
Wait = Annotated[bool, typer.Option("--wait", help="Wait until the job's run has ended.")]


def of_job(flags: Flags, console: Console, job: int | None, run: int | None, *, wait: bool) -> Flags:
    """The flags of a sync that goes by a run of the job: those given, but for the target folder, which now holds what
    the run left. Without a job they stay as they are."""
    if job is None:
        if run is not None or wait:
            given = "--run" if run is not None else "--wait"
            hint = "dinmo-dbt sync --dbt-cloud-job JOB --wait"
            raise UsageError("DB820", f"{given} says which run of a dbt Cloud job, and no job is given", hint=hint)
        return flags
    return fetched(flags, console, job, run, wait=wait)[0]


def fetched(
    flags: Flags, console: Console, job: int, run: int | None, *, wait: bool, stop: Stop | None = None
) -> tuple[Flags, int]:
    """The flags of a sync that goes by a run of the job, and which run that is; the latest unless one is given."""
    from dinmo_dbt import dbt_cloud

    with Session(flags, console, stop=stop) as session, telling_of_all(session, DBT_CLOUD):
        folder = folder_of(session, job)
        client = dbt_cloud.Client(dbt_cloud.account_of(os.environ), session.clock)
        session.stack.callback(client.close)
        chosen = _chosen(client, console, str(job), run, wait=wait)
        steps = dbt_cloud.fetch(client, chosen, folder)
    told = ", ".join(f"{step.number} ({step.read.which})" for step in steps)
    console.timed(f"dbt Cloud run {chosen.run_id} of job {job} ended as {chosen.status.word}; by its steps {told}")
    return replace(flags, target_path=folder), int(chosen.run_id)


def folder_of(session: Session, job: int) -> Path:
    """The target folder of a job's runs."""
    return session.target_path / "dbt_cloud" / f"job-{job}"


def _chosen(client: dbt_cloud.Client, console: Console, job_id: str, run: int | None, *, wait: bool) -> dbt_cloud.Run:
    """The run to go by, which has ended."""
    chosen = client.latest(job_id) if run is None else client.run(str(run))
    if chosen.job_id != job_id:
        message = f"dbt Cloud run {chosen.run_id} is of job {chosen.job_id}, not of {job_id}"
        raise DbtCloudError("DB222", message, hint="leave --run out for the job's latest run")
    if wait:
        chosen = client.finished(chosen, console.timed)
    if not chosen.status.is_final:
        message = f"dbt Cloud run {chosen.run_id} of job {job_id} is {chosen.status.word}"
        raise DbtCloudError("DB223", message, hint="pass --wait, or run again when it has ended")
    return chosen
