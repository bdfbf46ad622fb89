"""state unlock: who holds a state, and how it is taken from them."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dinmo_dbt.cli import completing, options
from dinmo_dbt.cli.console import Console
from dinmo_dbt.cli.options import Flags
from dinmo_dbt.cli.session import Session

if TYPE_CHECKING:
    from dinmo_dbt.state.lease import Held


def unlock(
    flags: Flags,
    name: Annotated[
        str,
        typer.Argument(
            metavar="ACTIVATION", help="The activation whose state is held.", autocompletion=completing.activation
        ),
    ],
    yes: Annotated[bool, typer.Option("--yes", help="Do it.")] = False,
    org: options.OfOrg = None,
    of_target: options.OfTarget = None,
    as_json: options.Json = False,
) -> None:
    """Show who holds a state, and with --yes take it from them.

    A run that ends, however it ends, gives its state back by itself. This is for one that hangs, is paused, or was
    lost with its machine. It can't write any more from then on. What it was sending is settled by the next run: jobs
    that were not closed are aborted, those that run are waited for. Exit 5 if somebody holds it and --yes is not given.

    \b
    Examples:
      dinmo-dbt state unlock customers_to_crm          who holds it, and what would be done
      dinmo-dbt state unlock customers_to_crm --yes
    """
    from dinmo_dbt.cli import printed

    console = Console(as_json)
    with Session(flags, console, offline=True) as session:
        target = of_target or session.target[1]
        found = [held for held in session.state.held(name) if held.target == target and org in (None, held.org_id)]
        for held in found:
            console.answer(_held_lines(held, printed.count(held.in_flight, "row"), done=yes))
            if yes:
                session.state.unlock(held)
        if not found:
            console.answer([f"nobody holds {name}"])
        documents = [_held_json(held) for held in found]
        console.document(printed.document("state unlock", unlocked=yes, held=documents))
    if found and not yes:
        raise typer.Exit(5)


def _held_json(held: Held) -> dict[str, Any]:
    from dinmo_dbt.cli import printed
    from dinmo_dbt.text.moments import iso

    holder = {**dataclasses.asdict(held.holder), "since": iso(held.holder.since), "lives": held.holder.lives}
    lease = {"epoch": held.epoch, "until": iso(held.until), "overdue": held.overdue, "in_flight": held.in_flight}
    return {**printed.state_id_json(held.id), **lease, "holder": holder}


_LIVES = {
    True: "is still there",
    False: "is gone",
    None: "is another host's: from here it can't be known whether it is still there",
}


def _held_lines(held: Held, in_flight: str, *, done: bool) -> list[str]:
    from dinmo_dbt.text.moments import moment

    until = f"{'ran out at' if held.overdue else 'lasts until'} {moment(held.until)}"
    return [
        f"{held.id} is held by {held.holder}",
        f"  lock {held.holder.lock_id}, epoch {held.epoch}; its lease {until}",
        f"  that process {_LIVES[held.holder.lives]}",
        f"  {'unlocked' if done else 'to unlock it'}: the epoch moves on to {held.epoch + 1}, and that process can't "
        "write any more; it finds out at its next step, and ends",
        f"  {in_flight} of it in flight: the next run aborts jobs that were not closed, and waits for those that were",
        *([] if done else [f"  do it: dinmo-dbt state unlock {held.name} --yes"]),
    ]
