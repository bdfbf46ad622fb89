"""schedule: when each activation last ran and is due next."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dinmo_dbt.cli import emitting, options
from dinmo_dbt.cli.console import Console
from dinmo_dbt.cli.due import built_by, next_due_at
from dinmo_dbt.cli.options import Flags
from dinmo_dbt.cli.pausing import paused_json, paused_line
from dinmo_dbt.cli.session import Session
from dinmo_dbt.text.moments import iso_or_none, said

if TYPE_CHECKING:
    from dinmo_dbt.activation import Activation
    from dinmo_dbt.state import Pause
    from dinmo_dbt.watch.schedule import Past


class Emit(StrEnum):
    CRONTAB = "crontab"
    GITHUB_ACTIONS = "github-actions"


def schedule(
    flags: Flags,
    emit: Annotated[
        Emit | None, typer.Option("--emit", help="Print what another scheduler needs to call `sync --due` in time.")
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Show when each activation last ran and is due next.

    Times are UTC. What is due is run by `dinmo-dbt sync --due`, which something has to call, or by `dinmo-dbt serve`.

    \b
    Examples:
      dinmo-dbt schedule
      dinmo-dbt schedule --emit crontab >> crontab.txt
      dinmo-dbt schedule --emit github-actions > .github/workflows/sync.yml
    """
    from dinmo_dbt.cli import printed

    console = Console(as_json)
    with Session(flags, console, offline=True) as session:
        if emit is not None:
            lines = emitting.crontab(session) if emit is Emit.CRONTAB else emitting.github_actions(session)
            console.answer(lines)
            session.say_wrong()
            console.document(printed.document("schedule", emit=emit.value, lines=lines))
            return
        entries = _entries(session)
        lines = [*(line for entry in entries for line in _lines(entry)), *session.wrong_lines()]
        console.answer(part for line in lines for part in console.fitted(line))
        session.say_wrong()
        console.document(printed.document("schedule", activations=entries))


def _entries(session: Session) -> list[dict[str, Any]]:
    pauses, coming = session.activity.pauses(), next_due_at(session)
    pasts = session.activity.pasts(activation.name for activation in session.chosen)
    return [
        _entry(session, activation, pasts[activation.name], pauses.get(activation.name), coming.get(activation.name))
        for activation in session.chosen
    ]


def _entry(
    session: Session, activation: Activation, past: Past, pause: Pause | None, coming: float | None
) -> dict[str, Any]:
    from dinmo_dbt.watch.schedule import due

    trigger = due(activation, past, now=session.clock.now(), built_by=built_by(session, activation, past))
    last = next(iter(session.state.history.latest([activation.name], 1)), None)
    quiet = activation.quiet_hours
    return {
        "activation": activation.name,
        "schedule": str(activation.schedule),
        "quiet_hours": f"{_clock(quiet.start)}-{_clock(quiet.end)} ({quiet.timezone})" if quiet else None,
        "enabled": activation.enabled,
        "paused": paused_json(pause),
        "last_run": last.document() if last else None,
        "due": trigger.said if trigger and not pause else None,
        "next": iso_or_none(coming),
    }


def _lines(entry: dict[str, Any]) -> list[str]:
    quiet = f", quiet {entry['quiet_hours']}" if entry["quiet_hours"] else ""
    lines = [f"{entry['activation']}: {entry['schedule']}{quiet}"]
    last = entry["last_run"]
    why = f" ({last['trigger']['said']})" if last else ""
    lines.append(f"  last  {said(last['started'])} {last['status']}{why}" if last else "  last  never")
    if not entry["enabled"]:
        lines.append("  next  not enabled")
    elif entry["paused"]:
        lines.append(f"  next  {paused_line(entry['paused'])}")
    elif entry["due"]:
        lines.append(f"  next  now: {entry['due']}")
    elif entry["next"] is not None:
        lines.append(f"  next  {said(entry['next'])}")
    else:
        lines.append("  next  when dbt builds its model" if entry["schedule"] == "after_dbt" else "  next  by hand")
    return lines


def _clock(minutes: int) -> str:
    return f"{minutes // 60:02}:{minutes % 60:02}"
