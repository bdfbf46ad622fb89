"""state move: a state under another name or dbt target."""

from __future__ import annotations

from typing import Annotated

import typer

from dinmo_dbt.cli import completing, options
from dinmo_dbt.cli.console import Console
from dinmo_dbt.cli.options import Flags
from dinmo_dbt.cli.session import Session
from dinmo_dbt.codes import NO_STATE, NOTHING_TO_RESET
from dinmo_dbt.errors import UsageError


def move(
    flags: Flags,
    old: Annotated[
        str | None,
        typer.Argument(metavar="[OLD]", help="The name the activation had.", autocompletion=completing.activation),
    ] = None,
    new: Annotated[
        str | None, typer.Argument(metavar="[NEW]", help="The name it has now.", autocompletion=completing.activation)
    ] = None,
    from_target: Annotated[
        str | None, typer.Option("--from-target", help="The dbt target the state is of; it becomes the chosen one's.")
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Give a renamed activation or dbt target its old state.

    With --from-target alone every activation's state of that dbt target becomes the chosen target's.

    \b
    Examples:
      dinmo-dbt state move customers_to_crm customers_to_salesforce
      dinmo-dbt state move --from-target dev --target development
      dinmo-dbt state move customers_to_crm --from-target dev
    """
    from dinmo_dbt.cli import printed
    from dinmo_dbt.state import rewriting

    console = Console(as_json)
    with Session(flags, console, offline=True) as session:
        target = session.target[1]
        source = from_target or target
        if (not old and source == target) or (old and not new and source == target):
            raise UsageError(
                NOTHING_TO_RESET, "name the old and the new activation, or another target with --from-target"
            )
        found = [state.id for state in session.state.known() if state.target == source and old in (None, state.name)]
        if not found:
            what = f"{old} under dbt target {source}" if old else f"dbt target {source}"
            raise UsageError(NO_STATE, f"no state for {what}", hint="dinmo-dbt state show lists them")
        moves = [(own, session.state.own(own.org_id, new or own.name)) for own in found]
        for own, to in moves:
            rewriting.move(session.state, own, to)
        console.answer([f"{own} is now {to.name}, target {to.target}" for own, to in moves])
        moved = [{"old": printed.state_id_json(own), "new": printed.state_id_json(to)} for own, to in moves]
        console.document(printed.document("state move", moved=moved))
