"""history: the latest runs, or one in full. Only the state is read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from dinmo_dbt.cli import options
from dinmo_dbt.cli.console import Console
from dinmo_dbt.cli.known import known_run
from dinmo_dbt.cli.options import Flags
from dinmo_dbt.cli.session import Session
from dinmo_dbt.text.moments import said

if TYPE_CHECKING:
    pass


def history(
    flags: Flags,
    run_id: Annotated[str | None, typer.Argument(metavar="[RUN]", help="One run, in full.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="How many runs.")] = 20,
    as_json: options.Json = False,
) -> None:
    """Show the latest runs, newest first, or one in full.

    \b
    Examples:
      dinmo-dbt history --limit 5
      dinmo-dbt history 20260131T080000-3fa2c1
    """
    from dinmo_dbt.cli import printed

    console = Console(as_json)
    with Session(flags, console, offline=True) as session:
        if run_id:
            run = known_run(session, run_id).document()
            console.answer(_run_lines(run))
            console.document(printed.document("history", run=run))
            return
        names = [activation.name for activation in session.chosen] if flags.select or flags.exclude else None
        runs = [run.document() for run in session.state.history.latest(names, limit)]
        names_wide = max((len(run["activation"]) for run in runs), default=0)
        lines = (line for run in runs for line in (_run_line(run, names_wide), *_cause(run)))
        console.answer(list(lines) or ["no runs yet"])
        console.document(printed.document("history", runs=runs))


def _run_line(run: dict[str, Any], names_wide: int = 0) -> str:
    outcome, counts = run.get("outcome") or {}, run.get("counts") or {}
    removed = outcome.get("removed", 0)
    parts = [f"{outcome.get('succeeded', 0) - removed:,} sent", *([f"{removed:,} removed"] if removed else [])]
    # Held before it was sent, or after. Of a run that asked for an earlier one's job and did no more, none was counted.
    held, flying = outcome.get("held", 0) + counts.get("held", 0) + counts.get("removal_held", 0), run["on_their_way"]
    fates = {
        **{name: outcome.get(name, 0) for name in ("rejected", "unknown")},
        "held": max(0, held - flying),
        "on_their_way": flying,
        **{name: counts.get(name, 0) for name in ("invalid", "no_match", "ambiguous", "in_flight")},
    }
    parts += [f"{number:,} {name.replace('_', ' ')}" for name, number in fates.items() if number]
    parts.append(f"{counts.get('unchanged', 0):,} unchanged")
    named = f"{run['activation']:{names_wide}}  {run['status']:{len('interrupted') if names_wide else 0}}"
    return f"{said(run['started'])}  {run['run_id']}  {named}  {', '.join(parts)}"


def _cause(run: dict[str, Any]) -> list[str]:
    """What kept a run from its work: the code, and the place."""
    problem = run["problem"]
    return [f"    {problem['code']}  {problem['where']}".rstrip()] if problem else []


def _run_lines(run: dict[str, Any]) -> list[str]:
    target = f"dbt target {run['target']}, " if run["target"] else ""
    lines = [_run_line(run), f"  {target}org {run['org_id'] or 'not reached'}, {run['object']}, {run['mode']}"]
    if run.get("trigger"):
        lines.append(f"  why: {run['trigger']['said']}")
    if run["finished"]:
        speed = f", {run['rows_per_second']:,} rows/s sent" if run.get("rows_per_second") else ""
        lines.append(f"  {run['seconds']:.2f}s{_phases(run)}, {run.get('api_calls', 0)} API calls{speed}")
    if run.get("calls_allowed"):
        lines.append(
            f"  of the org's daily API calls {run['calls_used']:,} of {run['calls_allowed']:,} were used by then"
        )
    if run.get("resent"):
        lines.append(f"  all known rows were sent: {run['resent']}")
    for name in ("counts", "outcome", "recovered"):
        counts = ", ".join(f"{key} {number:,}" for key, number in (run.get(name) or {}).items() if number)
        if counts:
            lines.append(f"  {name}: {counts}")
    if run.get("waiting_since"):
        waits = "held" if run["waiting_rows"] > run["on_their_way"] else "on their way"
        lines.append(f"  {run['waiting_rows']:,} {waits}, the oldest since {said(run['waiting_since'])}")
    if run.get("jobs"):
        lines.append(f"  jobs: {', '.join(run['jobs'])}")
    if run.get("problem"):
        problem = run["problem"]
        lines.append(f"  {problem['code']}  {problem['where']}".rstrip())
        lines.append(f"    {problem['message']}")
        lines += [f"    -> {problem['hint']}"] if problem["hint"] else []
    if run.get("plan_digest"):
        lines.append(f"  plan {run['plan_digest'][:16]}")
    if run.get("versions"):
        lines.append("  " + ", ".join(f"{name.replace('_', '-')} {v}" for name, v in run["versions"].items() if v))
    return lines


def _phases(run: dict[str, Any]) -> str:
    message = ", ".join(
        f"{name} {seconds:.2f}s" for name, seconds in (run.get("phase_seconds") or {}).items() if seconds >= 0.01
    )
    return f" ({message})" if message else ""
