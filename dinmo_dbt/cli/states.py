"""state show, reset and move."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer

from dinmo_dbt.cli import options
from dinmo_dbt.cli.console import Console
from dinmo_dbt.cli.options import Flags
from dinmo_dbt.cli.session import Session
from dinmo_dbt.errors import UsageError


def show(
    flags: Flags,
    as_json: options.Json = False,
) -> None:
    """Show what is known per org and activation.

    Rows that Salesforce acknowledged, rows that left the segment, wait or are in flight, serial and size.

    \b
    Examples:
      dinmo-dbt state show
      dinmo-dbt state show --json
    """
    from dinmo_dbt import render

    console = Console(as_json)
    with Session(flags, console, offline=True) as session:
        known = session.state.known()
        lines = [f"state in {session.state.location}"]
        for state in known:
            parts = [f"{state.rows:,} rows", f"serial {state.serial}", _size(state.bytes)]
            parts += [
                f"{n:,} {w}"
                for n, w in ((state.left, "left"), (state.pending, "waiting"), (state.in_flight, "in flight"))
                if n
            ]
            lines.append(f"  org {state.org_id}  {state.name} -> {state.object}: {', '.join(parts)}")
        console.answer(lines if known else [*lines, "  none yet"])
        console.document(
            render.document(
                "state show", location=str(session.state.location), states=[dataclasses.asdict(s) for s in known]
            )
        )


def _size(octets: int) -> str:
    return f"{octets / 1e6:,.1f} MB" if octets >= 1e6 else f"{octets / 1e3:,.1f} kB"


def reset(
    flags: Flags,
    names: Annotated[list[str] | None, typer.Argument(metavar="[ACTIVATION]...", help="Activations to forget.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every activation of every org.")] = False,
    org: Annotated[str | None, typer.Option("--org", help="Only in this org (18 characters).")] = None,
    as_json: options.Json = False,
) -> None:
    """Forget what was acknowledged, for a new first sync.

    Nothing changes in Salesforce.

    \b
    Examples:
      dinmo-dbt state reset customers_to_crm
      dinmo-dbt state reset customers_to_crm --org 00D5g000001AbCdEAK
    """
    from dinmo_dbt import render

    console = Console(as_json)
    with Session(flags, console, offline=True) as session:
        known = session.state.known()
        wanted = set(names or ()) | ({activation.name for activation in session.chosen} if flags.select else set())
        if not wanted and not everything:
            raise UsageError(
                "DB807", "name the activations to forget, or --all", hint="dinmo-dbt state show lists them"
            )
        unknown = wanted - {state.name for state in known}
        if unknown and not flags.select:
            raise UsageError(
                "DB808", f"no state for {', '.join(sorted(unknown))}", hint="dinmo-dbt state show lists them"
            )
        chosen = [s for s in known if (everything or s.name in wanted) and org in (None, s.org_id)]
        for state in chosen:
            session.state.reset(state.org_id, state.name)
        console.answer([f"forgot {s.name} in org {s.org_id}: {s.rows:,} rows" for s in chosen] or ["nothing to forget"])
        console.document(render.document("state reset", reset=[dataclasses.asdict(s) for s in chosen]))


def move(
    flags: Flags,
    old: Annotated[str, typer.Argument(metavar="OLD", help="The name the activation had.")],
    new: Annotated[str, typer.Argument(metavar="NEW", help="The name it has now.")],
    as_json: options.Json = False,
) -> None:
    """Give a renamed activation its old state, in every org.

    \b
    Examples:
      dinmo-dbt state move customers_to_crm customers_to_salesforce
    """
    from dinmo_dbt import render

    console = Console(as_json)
    with Session(flags, console, offline=True) as session:
        orgs = [state.org_id for state in session.state.known() if state.name == old]
        if not orgs:
            raise UsageError("DB808", f"no state for {old}", hint="dinmo-dbt state show lists them")
        for org_id in orgs:
            session.state.move(org_id, old, new)
        console.answer([f"{old} is now {new} in org {org_id}" for org_id in orgs])
        console.document(render.document("state move", old=old, new=new, orgs=orgs))
