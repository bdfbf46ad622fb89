"""state show: what is known per org, dbt target and activation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dinmo_dbt.cli import options
from dinmo_dbt.cli.console import Console
from dinmo_dbt.cli.options import Flags
from dinmo_dbt.cli.session import Session

if TYPE_CHECKING:
    from dinmo_dbt.state.summary import StateSummary


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
    from dinmo_dbt.cli import printed

    console = Console(as_json)
    with Session(flags, console, offline=True) as session:
        known, lineage = session.state.known(), session.state.known_lineage()
        lines = [f"state in {session.state.location}" + (f", lineage {lineage[:8]}" if lineage else "")]
        for state in known:
            parts = [printed.count(state.rows, "row"), f"serial {state.serial}", _size(state.bytes)]
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
            printed.document(
                "state show",
                location=str(session.state.location),
                lineage=lineage,
                states=[json(state) for state in known],
            )
        )


def json(state: StateSummary) -> dict[str, Any]:
    from dinmo_dbt.cli import printed

    names = ("model", "object", "serial", "rows", "left", "unknown", "in_flight", "bytes", "held_by", "problem")
    return {
        **printed.state_id_json(state.id),
        **{name: getattr(state, name) for name in names},
        "waiting": state.pending,
        "given_up": state.given_up,
        "kept_serials": list(state.kept_serials),
    }


def _size(octets: int) -> str:
    return f"{octets / 1e6:,.1f} MB" if octets >= 1e6 else f"{octets / 1e3:,.1f} kB"
