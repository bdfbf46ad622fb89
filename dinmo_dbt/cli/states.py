"""state show, reset, move and unlock."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dinmo_dbt.cli import completing, options
from dinmo_dbt.cli.console import Console
from dinmo_dbt.cli.options import Flags
from dinmo_dbt.cli.session import Session
from dinmo_dbt.errors import UsageError

if TYPE_CHECKING:
    from dinmo_dbt.state.lease import Held
    from dinmo_dbt.state.store import Known

Org = Annotated[str | None, typer.Option("--org", help="Only in this org (18 characters).")]
OfTarget = Annotated[
    str | None, typer.Option("--of-target", help="The dbt target whose state it is, when that is not the chosen one.")
]


def show(
    flags: Flags,
    as_json: options.Json = False,
) -> None:
    """Show what is known per org, dbt target and activation.

    Rows that Salesforce acknowledged, rows that left the segment, wait or are in flight, serial, the earlier serials
    that are kept, size, and who holds it now.

    \b
    Examples:
      dinmo-dbt state show
      dinmo-dbt state show --json
    """
    from dinmo_dbt.cli import render

    console = Console(as_json)
    with Session(flags, console, offline=True) as session:
        known, lineage = session.state.known(), session.state.known_lineage()
        lines = [f"state in {session.state.location}" + (f", lineage {lineage[:8]}" if lineage else "")]
        for state in known:
            parts = [render.count(state.rows, "row"), f"serial {state.serial}", _size(state.bytes)]
            parts += [
                f"{n:,} {w}"
                for n, w in (
                    (state.left, "left"),
                    (state.unknown, "of unknown outcome"),
                    (state.pending, "waiting"),
                    (state.given_up, "given up"),
                    (state.in_flight, "in flight"),
                )
                if n
            ]
            lines.append(f"  org {state.org_id}  {state.target}: {state.name} -> {state.object}: {', '.join(parts)}")
            if state.kept_serials:
                lines.append(f"      kept: serial {', '.join(map(str, state.kept_serials))}")
            if state.held_by:
                lines.append(f"      held by {state.held_by}")
            if state.problem:
                lines.append(f"      its rows can't be read: {state.problem}")
        console.answer(lines if known else [*lines, "  none yet"])
        console.document(
            render.document(
                "state show",
                location=str(session.state.location),
                lineage=lineage,
                states=[_json(state) for state in known],
            )
        )


def _json(state: Known) -> dict[str, Any]:
    from dinmo_dbt.cli import render

    names = ("model", "object", "serial", "rows", "left", "unknown", "in_flight", "bytes", "held_by", "problem")
    return {
        **render.state_id_json(state.id),
        **{name: getattr(state, name) for name in names},
        "waiting": state.pending,
        "given_up": state.given_up,
        "kept_serials": list(state.kept_serials),
    }


def _size(octets: int) -> str:
    return f"{octets / 1e6:,.1f} MB" if octets >= 1e6 else f"{octets / 1e3:,.1f} kB"


def reset(
    flags: Flags,
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[ACTIVATION]...", help="Activations to forget.", autocompletion=completing.activation),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every activation, in every org.")] = False,
    org: Org = None,
    of_target: OfTarget = None,
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
    from dinmo_dbt.cli import render

    console = Console(as_json)
    with Session(flags, console, offline=True) as session:
        if everything and org is None and of_target is None and to_serial is None:
            older = session.state.start_anew()
            if older is not None:
                place = session.state.location
                console.answer([f"forgot the state of format {older} whole, with its history: {place}"])
                console.document(render.document("state reset", reset=[], older_format=older))
                return
        target = of_target or session.target[1]
        known = [state for state in session.state.known() if state.target == target]
        wanted = set(names or ()) | ({activation.name for activation in session.chosen} if flags.select else set())
        if not wanted and not everything:
            raise UsageError(
                "DB807", "name the activations to forget, or --all", hint="dinmo-dbt state show lists them"
            )
        unknown = wanted - {state.name for state in known}
        if unknown and not flags.select:
            raise UsageError(
                "DB808",
                f"no state for {', '.join(sorted(unknown))} under dbt target {target}",
                hint="dinmo-dbt state show lists them",
            )
        chosen = [s for s in known if (everything or s.name in wanted) and org in (None, s.org_id)]
        if to_serial is not None:
            if len(chosen) != 1:
                raise UsageError("DB807", "--to-serial is for one activation in one org", hint="name it, and its --org")
            session.state.go_back(chosen[0].id, to_serial)
            console.answer([f"{chosen[0].id} is what it was at serial {to_serial}"])
            console.document(render.document("state reset", reset=[], to_serial=to_serial))
            return
        for state in chosen:
            session.state.reset(state.id)
        console.answer([f"forgot {s.id}: {render.count(s.rows, 'row')}" for s in chosen] or ["nothing to forget"])
        console.document(render.document("state reset", reset=[_json(state) for state in chosen]))


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
    from dinmo_dbt.cli import render

    console = Console(as_json)
    with Session(flags, console, offline=True) as session:
        target = session.target[1]
        source = from_target or target
        if (not old and source == target) or (old and not new and source == target):
            raise UsageError("DB807", "name the old and the new activation, or another target with --from-target")
        found = [state.id for state in session.state.known() if state.target == source and old in (None, state.name)]
        if not found:
            what = f"{old} under dbt target {source}" if old else f"dbt target {source}"
            raise UsageError("DB808", f"no state for {what}", hint="dinmo-dbt state show lists them")
        moves = [(own, session.state.own(own.org_id, new or own.name)) for own in found]
        for own, to in moves:
            session.state.move(own, to)
        console.answer([f"{own} is now {to.name}, target {to.target}" for own, to in moves])
        moved = [{"old": render.state_id_json(own), "new": render.state_id_json(to)} for own, to in moves]
        console.document(render.document("state move", moved=moved))


def unlock(
    flags: Flags,
    name: Annotated[
        str,
        typer.Argument(
            metavar="ACTIVATION", help="The activation whose state is held.", autocompletion=completing.activation
        ),
    ],
    yes: Annotated[bool, typer.Option("--yes", help="Do it.")] = False,
    org: Org = None,
    of_target: OfTarget = None,
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
    from dinmo_dbt.cli import render

    console = Console(as_json)
    with Session(flags, console, offline=True) as session:
        target = of_target or session.target[1]
        found = [held for held in session.state.held(name) if held.target == target and org in (None, held.org_id)]
        for held in found:
            console.answer(_held_lines(held, render.count(held.in_flight, "row"), done=yes))
            if yes:
                session.state.unlock(held)
        if not found:
            console.answer([f"nobody holds {name}"])
        told = [_held_json(held) for held in found]
        console.document(render.document("state unlock", unlocked=yes, held=told))
    if found and not yes:
        raise typer.Exit(5)


def _held_json(held: Held) -> dict[str, Any]:
    from dinmo_dbt.cli import render
    from dinmo_dbt.text.moments import iso

    holder = {**dataclasses.asdict(held.holder), "since": iso(held.holder.since), "lives": held.holder.lives}
    told = {"epoch": held.epoch, "until": iso(held.until), "overdue": held.overdue, "in_flight": held.in_flight}
    return {**render.state_id_json(held.id), **told, "holder": holder}


_LIVES = {
    True: "is still there",
    False: "is gone",
    None: "is another host's: from here it can't be told whether it is still there",
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
