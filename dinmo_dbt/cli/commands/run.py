"""run: dbt, then a sync of what it built."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from dinmo_dbt.cli import options
from dinmo_dbt.cli.console import Console, worst
from dinmo_dbt.cli.options import Flags, Gating
from dinmo_dbt.cli.session import Session
from dinmo_dbt.cli.syncing import audit_size, sync_chosen, with_audit
from dinmo_dbt.errors import Interrupted

if TYPE_CHECKING:
    from dinmo_dbt.plan.guards import Ceilings


def run(
    context: typer.Context,
    flags: Flags,
    *,
    ceilings: Ceilings,
    audit: options.Audit = None,
    threads: options.Threads = 1,
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
        chosen = with_audit(session.chosen, audit_size(audit))
        gating = Gating(require_built=True, only_built=True)
        code = sync_chosen(session, chosen, ceilings, gating, threads=threads)
    raise typer.Exit(worst([code, 1]) if dbt_code else code)
