"""list: what is declared."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from dinmo_dbt.cli import options
from dinmo_dbt.cli.console import Console
from dinmo_dbt.cli.options import Flags
from dinmo_dbt.cli.session import Session

if TYPE_CHECKING:
    from dinmo_dbt.activation import Activation


def list_activations(
    flags: Flags,
    as_json: options.Json = False,
) -> None:
    """List the declared activations.

    \b
    Examples:
      dinmo-dbt list
      dinmo-dbt list -s tag:crm --json
    """
    from dinmo_dbt.cli import printed

    console = Console(as_json)
    with Session(flags, console, offline=True) as session:
        pauses = session.activity.pauses()
        rows = [_listed(activation, activation.name in pauses) for activation in session.chosen]
        shown = [_as_printed(row, activation) for row, activation in zip(rows, session.chosen, strict=True)]
        console.answer(printed.table(("activation", "model", "object", "mode", "match", "schedule", "enabled"), shown))
        code = session.say_wrong()
        console.document(printed.document("list", activations=rows))
    raise typer.Exit(code)


def _listed(activation: Activation, paused: bool) -> dict[str, Any]:
    match = activation.match
    return {
        "activation": activation.name,
        "model": activation.model.unique_id,
        "segment": activation.segment,
        "destination": activation.destination,
        "object": activation.object,
        "mode": activation.mode.value,
        "key": list(activation.key),
        "match": {"column": match.column, "field": match.field} if match else None,
        "fields": [{"column": each.column, "field": each.field} for each in activation.fields],
        "schedule": str(activation.schedule),
        "enabled": activation.enabled,
        "paused": paused,
        "tags": list(activation.model.tags),
        "file": activation.model.file,
    }


def _as_printed(row: dict[str, Any], activation: Activation) -> dict[str, Any]:
    segment, match = row["segment"], row["match"]
    return {
        **row,
        "model": activation.model.name + (f" [{segment}]" if segment else ""),
        "match": f"{match['column']} = {match['field']}" if match else "",
        "enabled": "no" if not row["enabled"] else "paused" if row["paused"] else "yes",
    }
