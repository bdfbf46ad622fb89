"""sync: what changed since the last one is sent, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from dinmo_dbt.cli import dbt_cloud_job as cloud
from dinmo_dbt.cli import options
from dinmo_dbt.cli.console import Console
from dinmo_dbt.cli.notices import deliver, tell_of_wrong, telling_of_all
from dinmo_dbt.cli.options import Flags, Gating
from dinmo_dbt.cli.session import Session
from dinmo_dbt.cli.syncing import audit_size, sync_chosen, with_audit

if TYPE_CHECKING:
    from dinmo_dbt.activation import Ceiling
    from dinmo_dbt.plan.guards import Ceilings


def sync(
    flags: Flags,
    *,
    due: Annotated[
        bool, typer.Option("--due", help="Only what is due by its schedule, for cron or an orchestrator to call often.")
    ] = False,
    full: options.Full = False,
    ceilings: Ceilings,
    gating: Gating,
    audit: options.Audit = None,
    threads: options.Threads = 1,
    dbt_cloud_job: cloud.Job = None,
    run: cloud.Run = None,
    wait: cloud.Wait = False,
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
      dinmo-dbt sync --threads 4                  four activations at once, parents still first
      dinmo-dbt sync --dbt-cloud-job 123 --wait   what a job in dbt Cloud built, once it has ended
      dinmo-dbt sync --due                        what its schedule asks for by now
    """
    console = Console(as_json, quiet, log_format)
    following = cloud.following(dbt_cloud_job, run, wait=wait)
    with Session(flags, console, following=following) as session:
        if following:
            following.begin(session, run, wait=wait)
        ceilings = replace(ceilings, full=full)
        size = audit_size(audit)
        if due:
            raise typer.Exit(sync_due(session, ceilings, gating, size, threads))
        raise typer.Exit(sync_chosen(session, with_audit(session.chosen, size), ceilings, gating, threads=threads))


def sync_due(
    session: Session, ceilings: Ceilings, gating: Gating, audit: Ceiling | None = None, threads: int = 1
) -> int:
    """Sync what is due by its schedule; the exit code. With nothing due, no connection is made."""
    from dinmo_dbt.cli import printed
    from dinmo_dbt.cli.due import due_now, next_lines, worth_running

    with telling_of_all(session, unattended=True):
        triggers = worth_running(session, due_now(session))
        tell_of_wrong(session)
        if triggers:
            due = [activation for activation in session.chosen if activation.name in triggers]
            return sync_chosen(session, with_audit(due, audit), ceilings, gating, triggers=triggers, threads=threads)
    code = session.say_wrong()
    session.console.say("nothing is due")
    for line in next_lines(session):
        session.console.say(f"  {line}")
    session.console.document(printed.document("sync", exit_code=code, api_calls=0, results=[]))
    deliver(session)
    return code
