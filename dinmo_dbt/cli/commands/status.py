"""status: each activation's last run and known rows. Only the state is read."""

from __future__ import annotations

from typing import Any

from dinmo_dbt.cli import options
from dinmo_dbt.cli.console import Console
from dinmo_dbt.cli.options import Flags
from dinmo_dbt.cli.pausing import paused_json, paused_line
from dinmo_dbt.cli.session import Session
from dinmo_dbt.text.moments import iso, said

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
    from dinmo_dbt.cli import printed

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
        console.document(printed.document("status", activations=entries))


def _status_lines(entry: dict[str, Any]) -> list[str]:
    from dinmo_dbt.cli import printed

    last = entry["last_run"]
    if last is None:
        return [f"{entry['activation']}: never synced", *_notes(entry)]
    lines = [f"{entry['activation']}: {last['status']} at {said(last['started'])} (run {last['run_id']})"]
    if last["on_their_way"]:
        lines.append(f"  {printed.count(last['on_their_way'], 'row')} on their way: the next run asks their job again")
    if entry["held"]:
        held = printed.count(entry["held"], "row")
        lines.append(f"  {held} held by that run: dinmo-dbt rejected -s {entry['activation']} says why")
    lines += _notes(entry)
    for org in entry["orgs"]:
        if org["problem"]:
            lines.append(f"  org {org['org_id']}: its rows can't be read: {org['problem']}")
            continue
        parts = [f"{printed.count(org['rows'], 'row')} known"]
        parts += [f"{org[name]:,} {name.replace('_', ' ')}" for name in _OF_ROWS if org[name]]
        lines.append(f"  org {org['org_id']}: {', '.join(parts)}")
        if org["unknown"]:
            name = entry["activation"]
            lines += [
                f"    {org['unknown']:,} may have been inserted, and are not sent again: look in Salesforce, then",
                f"    dinmo-dbt state adopt {name} for those that are there, dinmo-dbt retry --unknown for the others",
            ]
    return lines


def _notes(entry: dict[str, Any]) -> list[str]:
    """Whether it is paused, and the warnings that stand."""
    lines = [f"  {paused_line(entry['paused'])}"] if entry["paused"] else []
    for each in entry["warnings"]:
        severity = "critical" if each["critical"] else "warning"
        lines.append(f"  {severity}: {each['kind']} since {said(each['since'])}: {each['said']}")
    return lines
