"""rejected: rows that were not delivered, and what to do. Only the state is read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dinmo_dbt.cli import export as exporting
from dinmo_dbt.cli import options
from dinmo_dbt.cli.console import Console
from dinmo_dbt.cli.known import known_run
from dinmo_dbt.cli.options import Flags
from dinmo_dbt.cli.session import Session
from dinmo_dbt.watch.history import DONE

if TYPE_CHECKING:
    import pyarrow as pa

    from dinmo_dbt.watch.history import RunRecord

FOLDED_KEYS = 3  # of rows that need nobody
RUNS_MAX = 1000  # that are looked through for one that came to its rows


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
    from dinmo_dbt.cli import printed, render
    from dinmo_dbt.salesforce.errors import explained

    console = Console(as_json)
    if export is not None:
        exporting.check_path(export)
    entries, exported, are_done = [], [], True
    with Session(flags, console, offline=True) as session:
        if run_id:
            runs = [(run := known_run(session, run_id), run)]
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
            listed = [{**row, "fields": printed.field_names(row["fields"])} for row in rows]
            entries.append(
                {
                    "activation": run.activation,
                    "run_id": run.run_id,
                    "total": len(table),
                    "groups": render.groups_json(table),
                    "rows": listed,
                    "unfinished": unfinished,
                }
            )
            if export is None:
                console.answer(_rejected_lines(run, table, rows))
    if are_done and not any(entry["total"] for entry in entries):
        console.answer(["every row was delivered"])
    if export is not None:
        exporting.write(export, exported)
        console.answer([f"wrote {printed.count(sum(map(len, exported)), 'row')} to {export}"])
    written = {} if export is None else {"exported": str(export)}
    console.document(printed.document("rejected", activations=entries, **written))


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
