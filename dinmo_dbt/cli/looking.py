"""status, history and rejected: what the runs so far have left behind. Only the state is read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dinmo_dbt.cli import exporting, options
from dinmo_dbt.cli.console import Console
from dinmo_dbt.cli.options import Flags
from dinmo_dbt.cli.scheduling import paused_json, paused_line
from dinmo_dbt.cli.session import Session
from dinmo_dbt.errors import UsageError
from dinmo_dbt.text.moments import iso, said
from dinmo_dbt.watch.history import DONE

FOLDED_KEYS = 3  # of rows that need nobody
RUNS_MAX = 1000  # that are looked through for one that came to its rows

if TYPE_CHECKING:
    import pyarrow as pa

    from dinmo_dbt.watch.history import RunRecord


_OF_ROWS = ("left", "waiting", "given_up", "in_flight")


def status(
    flags: Flags,
    as_json: options.Json = False,
) -> None:
    """Show each activation's last run and known rows.

    Rows that wait (rejected before, or held), rows in flight, and inserts whose outcome can't be learned are named
    where there are any.

    \b
    Examples:
      dinmo-dbt status
      dinmo-dbt status -s customers_to_crm --json
    """
    from dinmo_dbt.cli import render

    console = Console(as_json)
    with Session(flags, console, offline=True) as session:
        known, pauses, standing = session.state.known(), session.activity.pauses(), session.activity.standing()
        entries = []
        for activation in session.chosen:
            own = [state for state in known if state.id == session.state.own(state.org_id, activation.name)]
            latest = next(iter(session.state.history.latest([activation.name], 1)), None)
            last = latest.document() if latest else None
            entries.append(
                {
                    "activation": activation.name,
                    "enabled": activation.enabled,
                    "last_run": last,
                    "held": latest.waiting_rows - latest.on_their_way if latest else 0,
                    "paused": paused_json(pauses.get(activation.name)),
                    "warnings": [
                        {
                            "kind": each.kind.value,
                            "critical": each.critical,
                            "since": iso(each.since),
                            "said": each.said,
                        }
                        for each in standing
                        if each.activation == activation.name
                    ],
                    "orgs": [
                        {
                            "org_id": state.org_id,
                            "rows": state.rows,
                            "left": state.left,
                            "unknown": state.unknown,
                            "waiting": state.pending,
                            "given_up": state.given_up,
                            "in_flight": state.in_flight,
                            "problem": state.problem,
                        }
                        for state in own
                    ],
                }
            )
        lines = [*(line for entry in entries for line in _status_lines(entry)), *session.wrong_lines()]
        console.answer(part for line in lines for part in console.fitted(line))
        session.say_wrong()
        console.document(render.document("status", activations=entries))


def _status_lines(entry: dict[str, Any]) -> list[str]:
    from dinmo_dbt.cli import render

    last = entry["last_run"]
    if last is None:
        return [f"{entry['activation']}: never synced", *_told(entry)]
    lines = [f"{entry['activation']}: {last['status']} at {said(last['started'])} (run {last['run_id']})"]
    if last["on_their_way"]:
        lines.append(f"  {render.count(last['on_their_way'], 'row')} on their way: the next run asks their job again")
    if entry["held"]:
        held = render.count(entry["held"], "row")
        lines.append(f"  {held} held by that run: dinmo-dbt rejected -s {entry['activation']} says why")
    lines += _told(entry)
    for org in entry["orgs"]:
        if org["problem"]:
            lines.append(f"  org {org['org_id']}: its rows can't be read: {org['problem']}")
            continue
        parts = [f"{render.count(org['rows'], 'row')} known"]
        parts += [f"{org[name]:,} {name.replace('_', ' ')}" for name in _OF_ROWS if org[name]]
        lines.append(f"  org {org['org_id']}: {', '.join(parts)}")
        if org["unknown"]:
            name = entry["activation"]
            lines += [
                f"    {org['unknown']:,} may have been inserted, and are not sent again: look in Salesforce, then",
                f"    dinmo-dbt state adopt {name} for those that are there, dinmo-dbt retry --unknown for the others",
            ]
    return lines


def _told(entry: dict[str, Any]) -> list[str]:
    """Whether it is paused, and the warnings that stand."""
    lines = [f"  {paused_line(entry['paused'])}"] if entry["paused"] else []
    for each in entry["warnings"]:
        severity = "critical" if each["critical"] else "warning"
        lines.append(f"  {severity}: {each['kind']} since {said(each['since'])}: {each['said']}")
    return lines


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
    from dinmo_dbt.cli import render

    console = Console(as_json)
    with Session(flags, console, offline=True) as session:
        if run_id:
            run = _run(session, run_id).document()
            console.answer(_run_lines(run))
            console.document(render.document("history", run=run))
            return
        names = [activation.name for activation in session.chosen] if flags.select or flags.exclude else None
        runs = [run.document() for run in session.state.history.latest(names, limit)]
        names_wide = max((len(run["activation"]) for run in runs), default=0)
        lines = (line for run in runs for line in (_run_line(run, names_wide), *_cause(run)))
        console.answer(list(lines) or ["no runs yet"])
        console.document(render.document("history", runs=runs))


def _run(session: Session, run_id: str) -> RunRecord:
    run = session.state.history.of(run_id)
    if run is None:
        raise UsageError("DB806", f"no run {run_id}", hint="dinmo-dbt history lists them")
    return run


def _run_line(run: dict[str, Any], names_wide: int = 0) -> str:
    outcome, counts = run.get("outcome") or {}, run.get("counts") or {}
    removed = outcome.get("removed", 0)
    parts = [f"{outcome.get('succeeded', 0) - removed:,} sent", *([f"{removed:,} removed"] if removed else [])]
    # Held before it was sent, or after. Of a run that asked for an earlier one's job and did no more, none was counted.
    held, flying = outcome.get("held", 0) + counts.get("held", 0) + counts.get("removal_held", 0), run["on_their_way"]
    told = {
        **{name: outcome.get(name, 0) for name in ("rejected", "unknown")},
        "held": max(0, held - flying),
        "on_their_way": flying,
        **{name: counts.get(name, 0) for name in ("invalid", "no_match", "ambiguous", "in_flight")},
    }
    parts += [f"{number:,} {name.replace('_', ' ')}" for name, number in told.items() if number]
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
        told = ", ".join(f"{key} {number:,}" for key, number in (run.get(name) or {}).items() if number)
        if told:
            lines.append(f"  {name}: {told}")
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
    told = ", ".join(
        f"{name} {seconds:.2f}s" for name, seconds in (run.get("phase_seconds") or {}).items() if seconds >= 0.01
    )
    return f" ({told})" if told else ""


def rejected(
    flags: Flags,
    run_id: Annotated[
        str | None,
        typer.Argument(metavar="[RUN]", help="That run's; default: each activation's last that came to its rows."),
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="How many rows per activation.")] = 50,
    show_values: Annotated[
        bool, typer.Option("--show-values", help="Print Salesforce's messages whole, with the values they quote.")
    ] = False,
    export: Annotated[
        Path | None, typer.Option("--export", metavar="FILE", help="Write all of them to a new .csv or .parquet file.")
    ] = None,
    as_json: options.Json = False,
) -> None:
    """List rows that were not delivered, and what to do.

    By reason: fate, class, code, field and what to do; then the keys, with Salesforce's message, in which the values
    that were sent are masked. What needs a person comes first; of the others a few keys are shown.

    \b
    Examples:
      dinmo-dbt rejected
      dinmo-dbt rejected -s customers_to_crm --limit 500
      dinmo-dbt rejected --show-values            Salesforce's messages whole
      dinmo-dbt rejected --export rejected.csv    all of them, safe to open in a spreadsheet
    """
    from dinmo_dbt.cli import render
    from dinmo_dbt.salesforce.errors import explained

    console = Console(as_json)
    if export is not None:
        exporting.check_path(export)
    entries, exported, are_done = [], [], True
    with Session(flags, console, offline=True) as session:
        if run_id:
            runs = [(run := _run(session, run_id), run)]
        else:
            found = {activation.name: _of_latest(session, activation.name) for activation in session.chosen}
            console.answer([f"{name}: never synced" for name, each in found.items() if each is None])
            runs = [each for each in found.values() if each]
            are_done = len(runs) == len(found)
        for run, latest in runs:
            unfinished = None if latest.status in DONE else {"run_id": latest.run_id, "status": latest.status}
            if unfinished:
                are_done = False
                how = latest.status.replace("_", " ")
                more = "so more rows may be undelivered than are listed"
                console.answer([f"{run.activation}, run {latest.run_id}: {how}, {more}"])
            table = _for_people_first(explained(session.state.history.not_delivered(run)))
            exported.append(exporting.undelivered(run, table, whole=show_values))
            rows = [_as_printed(row, whole=show_values) for row in table.slice(0, limit).to_pylist()]
            told = [{**row, "fields": render.field_names(row["fields"])} for row in rows]
            entries.append(
                {
                    "activation": run.activation,
                    "run_id": run.run_id,
                    "total": len(table),
                    "groups": render.groups_json(table),
                    "rows": told,
                    "unfinished": unfinished,
                }
            )
            if export is None:
                console.answer(_rejected_lines(run, table, rows))
    if are_done and not any(entry["total"] for entry in entries):
        console.answer(["every row was delivered"])
    if export is not None:
        exporting.write(export, exported)
        console.answer([f"wrote {render.count(sum(map(len, exported)), 'row')} to {export}"])
    written = {} if export is None else {"exported": str(export)}
    console.document(render.document("rejected", activations=entries, **written))


def _of_latest(session: Session, name: str) -> tuple[RunRecord, RunRecord] | None:
    """The latest run that came to the activation's rows, if one did, and the latest of all: one that was refused, or
    reached no org, knows of no row."""
    runs = session.state.history.latest([name], 1)
    if runs and not _has_rows(runs[0]):
        runs = session.state.history.latest([name], RUNS_MAX)
    return (next(filter(_has_rows, runs), runs[0]), runs[0]) if runs else None


def _has_rows(run: RunRecord) -> bool:
    return run.status in DONE or bool(run.undelivered)


def _as_printed(row: dict[str, Any], *, whole: bool) -> dict[str, Any]:
    """A row as it is printed: its message without the values that were sent, unless they are asked for."""
    shown = row.pop("shown")
    return {**row, "message": row["message"] if whole else shown}


def _rejected_lines(run: RunRecord, table: pa.Table, rows: list[dict[str, Any]]) -> list[str]:
    if not len(table):
        return []
    lines = [f"{run.activation}, run {run.run_id}: {len(table):,} not delivered"]
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        where = f" [{row['fields']}]" if row["fields"] else ""
        classed = f" ({row['class']})" if row["class"] else ""
        groups.setdefault((f"{row['fate']}{classed}  {row['code']}{where}", row["hint"]), []).append(row)
    for (reason, hint), alike in groups.items():
        lines.append(_one_line(f"  {reason}"))
        lines += [_one_line(f"      -> {hint}")] if hint else []
        shown = alike[:FOLDED_KEYS] if _is_harmless(alike[0]) else alike
        lines += [_one_line(f"    {row['key']}  {row['message'] or ''}".rstrip()) for row in shown]
        if len(alike) > len(shown):
            lines.append(f"    and {len(alike) - len(shown):,} more, which need nobody now")
    if len(table) > len(rows):
        lines.append(f"  and {len(table) - len(rows):,} more: --limit {len(table)}")
    return lines


def _for_people_first(table: pa.Table) -> pa.Table:
    """The rows in their order, those that need a person before those that do not."""
    import pyarrow as pa

    harmless = [_is_harmless(row) for row in table.select(["fate", "code", "class"]).to_pylist()]
    return table.take(pa.array(sorted(range(len(harmless)), key=harmless.__getitem__), pa.int64()))


def _is_harmless(row: dict[str, Any]) -> bool:
    """Whether it mends itself: a row without a record yet, or one that a later run tries again as it is."""
    again = row["class"] == "transient" or row["code"] in ("PARENT_MISSING", "GIVEN_UP")
    return bool(row["fate"] == "no_match") or (row["fate"] == "held" and bool(again))


def _one_line(text: str) -> str:
    """One line, without what a terminal would obey."""
    return "".join(character if character.isprintable() else " " for character in text)
