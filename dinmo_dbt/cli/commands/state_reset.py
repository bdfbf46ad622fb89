"""state reset: a state is forgotten, or goes back to an earlier one."""

from __future__ import annotations

from typing import Annotated

import typer

from dinmo_dbt.cli import completing, options
from dinmo_dbt.cli.commands.state_show import json
from dinmo_dbt.cli.console import Console
from dinmo_dbt.cli.options import Flags
from dinmo_dbt.cli.session import Session
from dinmo_dbt.codes import NO_STATE, NOTHING_TO_RESET
from dinmo_dbt.errors import UsageError


def reset(
    flags: Flags,
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[ACTIVATION]...", help="Activations to forget.", autocompletion=completing.activation),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every activation, in every org.")] = False,
    org: options.OfOrg = None,
    of_target: options.OfTarget = None,
    to_serial: Annotated[
        int | None, typer.Option("--to-serial", min=0, help="Go back to a kept serial (state show) instead.")
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Forget a state for a new first sync, or go back to an earlier one.

    Nothing changes in Salesforce. What was acknowledged since a serial that is gone back to is sent again; an insert
    activation can't go back, because its rows would be inserted again. A state that an older dinmo-dbt wrote in another
    format can only be forgotten whole, with its history: --all.

    \b
    Examples:
      dinmo-dbt state reset customers_to_crm
      dinmo-dbt state reset customers_to_crm --org 00D5g000001AbCdEAK
      dinmo-dbt state reset customers_to_crm --to-serial 41
      dinmo-dbt state reset --all
    """
    from dinmo_dbt.cli import printed
    from dinmo_dbt.state import rewriting

    console = Console(as_json)
    with Session(flags, console, offline=True) as session:
        if everything and org is None and of_target is None and to_serial is None:
            older = session.state.start_anew()
            if older is not None:
                place = session.state.location
                console.answer([f"forgot the state of format {older} whole, with its history: {place}"])
                console.document(printed.document("state reset", reset=[], older_format=older))
                return
        target = of_target or session.target[1]
        known = [state for state in session.state.known() if state.target == target]
        wanted = set(names or ()) | ({activation.name for activation in session.chosen} if flags.select else set())
        if not wanted and not everything:
            raise UsageError(
                NOTHING_TO_RESET, "name the activations to forget, or --all", hint="dinmo-dbt state show lists them"
            )
        unknown = wanted - {state.name for state in known}
        if unknown and not flags.select:
            raise UsageError(
                NO_STATE,
                f"no state for {', '.join(sorted(unknown))} under dbt target {target}",
                hint="dinmo-dbt state show lists them",
            )
        chosen = [s for s in known if (everything or s.name in wanted) and org in (None, s.org_id)]
        if to_serial is not None:
            if len(chosen) != 1:
                raise UsageError(
                    NOTHING_TO_RESET, "--to-serial is for one activation in one org", hint="name it, and its --org"
                )
            rewriting.go_back(session.state, chosen[0].id, to_serial)
            console.answer([f"{chosen[0].id} is what it was at serial {to_serial}"])
            console.document(printed.document("state reset", reset=[], to_serial=to_serial))
            return
        for state in chosen:
            rewriting.reset(session.state, state.id)
        console.answer([f"forgot {s.id}: {printed.count(s.rows, 'row')}" for s in chosen] or ["nothing to forget"])
        console.document(printed.document("state reset", reset=[json(state) for state in chosen]))
