"""debug: whether everything can be reached, one by one."""

from __future__ import annotations

import contextlib
from typing import Any

import typer

from dinmo_dbt.cli import options
from dinmo_dbt.cli.console import Console
from dinmo_dbt.cli.options import Flags
from dinmo_dbt.cli.session import Session
from dinmo_dbt.errors import ConfigError, DinmoError


def debug(
    flags: Flags,
    as_json: options.Json = False,
) -> None:
    """Check profile, warehouse, state and login, one by one.

    \b
    Examples:
      dinmo-dbt debug
      dinmo-dbt debug --target prod
    """
    from dinmo_dbt.cli import printed

    console = Console(as_json)
    checks: list[dict[str, Any]] = []
    worst = 0
    with Session(flags, console) as session:
        for name, check in (
            ("dbt project", lambda: str(session.root)),
            ("dbt target", lambda: f"{session.target[1]} of profile {session.target[0]}"),
            ("dinmo.yml", lambda: _destination_report(session)),
            ("manifest", lambda: f"dbt {session.manifest.dbt_version}, {session.target_path / 'manifest.json'}"),
            ("activations", lambda: _activation_report(session)),
            ("warehouse", lambda: _warehouse(session)),
            ("state", lambda: f"{session.state.location}" + ("" if session.state.exists() else " (none yet)")),
        ):
            worst = max(worst, _check(console, checks, name, check))
        for destination in _destinations(session):
            worst = max(
                worst,
                _check(console, checks, f"destination {destination}", lambda name=destination: _org(session, name)),
            )
    console.document(printed.document("debug", ok=worst == 0, checks=checks))
    raise typer.Exit(worst)


def _destination_report(session: Session) -> str:
    if session.project.problems:
        raise ConfigError.of(list(session.project.problems))
    return f"destinations {', '.join(session.project.targets)}"


def _activation_report(session: Session) -> str:
    if session.declared.wrong:
        raise ConfigError.of(list(session.declared.wrong))
    return ", ".join(activation.name for activation in session.declared.activations) or "none"


def _check(console: Console, checks: list[dict[str, Any]], name: str, check: Any) -> int:
    try:
        said = check()
    except DinmoError as error:
        said = [problem for check in checks for problem in check.get("problems", ())]
        problems = console.documents(error.problems)
        if all(problem in said for problem in problems):
            console.answer([f"{name}: not checked"])
            checks.append({"check": name, "ok": False, "checked": False, "found": None, "problems": []})
            return error.exit_code
        console.answer([f"{name}: ERROR"], "ERROR")
        console.failure(error)
        checks.append({"check": name, "ok": False, "checked": True, "found": None, "problems": problems})
        return error.exit_code
    console.answer([f"{name}: OK, {said}"], "OK")
    checks.append({"check": name, "ok": True, "checked": True, "found": said, "problems": []})
    return 0


def _destinations(session: Session) -> list[str]:
    """Those that the target has an org for, and those that activations use. What can't be read is reported already."""
    names: set[str] = set()
    with contextlib.suppress(DinmoError):
        names |= set(session.project.orgs)
        names |= {activation.destination for activation in session.declared.activations}
    return sorted(names)


def _warehouse(session: Session) -> str:
    connected = session.warehouse.connected
    database = f"{connected.database}." if connected.database else ""
    return f"{session.warehouse.ping()}, {database}{connected.schema}, {session.warehouse.profiles_file}"


def _org(session: Session, name: str) -> str:
    destination = session.destination(name)
    try:
        destination.try_api()  # a login alone does not tell that
    except DinmoError as error:
        error.put(lambda place: place or session.place_of(name))
        raise
    usage = destination.usage
    used = f", {usage.used:,} of {usage.limit:,} daily API calls used" if usage.limit else ""
    kind = " (embedded emulator)" if session.project.org(name).is_emulator else ""
    return f"org {destination.org_id}{kind}, user {destination.username}, {destination.instance_url}{used}"
