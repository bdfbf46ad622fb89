"""demo: a dbt project reaches a local Salesforce org, then only the changes, then nothing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

import typer

from dinmo_dbt.cli import options
from dinmo_dbt.codes import DEMO_FAILED, EMULATOR_NOT_STARTED, NO_SAMPLE_PROJECT
from dinmo_dbt.errors import ConfigError, DinmoError


def demo(
    context: typer.Context,
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave the project and the org where they are, to look around.")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Watch the sample project reach a local Salesforce org.

    Needs nothing: no account, no network. Everything happens in a temporary folder and is gone afterwards.

    \b
    Examples:
      dinmo-dbt demo
      dinmo-dbt demo --keep                       leave project and org, to look around
    """
    if as_json:
        with redirect_stdout(sys.stderr):
            document = _tour(context.find_root().command, keep=keep)
        _print_document(document)
    else:
        _tour(context.find_root().command, keep=keep)


def _print_document(document: dict[str, Any]) -> None:
    from dinmo_dbt.cli import printed
    from dinmo_dbt.cli.console import Console

    Console(as_json=True).document(printed.document("demo", **document))


def _tour(program: Any, *, keep: bool) -> dict[str, Any]:
    """The whole demo; what it did, in figures."""
    began = time.monotonic()
    with _workplace(keep=keep) as project:
        os.environ["DINMO_PROJECT_DIR"] = str(project)
        os.environ.pop("DINMO_TARGET", None)
        _say(
            "A dbt project of a small SaaS company, and a Salesforce org on localhost.",
            f"Both live in {project}" + ("" if keep else " until the demo ends") + ".",
        )
        _dbt(project, "build")
        with _emulator(project) as org:
            _say(f"The org is {org['organization_id']} at {org['instance_url']}. Nothing is in it but 110 accounts.")
            _dinmo(program, "plan")
            _dinmo(program, "sync")
            _say("A day passes: plans change, customers join, events come in.")
            _dbt(project, "build", "--vars", "{day: 2}")
            _dinmo(program, "plan")
            _say("What would change in Salesforce, old -> new:")
            _dinmo(program, "plan", "--show-values", "--select", "accounts_to_crm")
            _dinmo(program, "sync")
            _say("And once more: nothing changed, so nothing is sent.")
            _dinmo(program, "sync")
            _say("As Salesforce holds them now:")
            _show_records(project)
        _say(
            f"Done in {time.monotonic() - began:.0f} s; everything that was started is stopped.",
            "Where to look next:",
            "  sample_dbt_project/models/marts/marts.yml    the activations, in the models' meta",
            "  sample_dbt_project/dinmo.yml                 which org each dbt target means",
            "  dinmo-dbt validate --online, dinmo-dbt rejected, dinmo-dbt history --help",
        )
        if keep:
            _say(f"cd {project} && dinmo-dbt status", "dinmo-dbt emulator serve   # the same org again")
        results = json.loads((project / "target" / "dinmo_run_results.json").read_bytes())["results"]
    return {
        "seconds": round(time.monotonic() - began, 1),
        "project": str(project) if keep else None,
        "last_sync": [{name: result[name] for name in ("activation", "status", "message")} for result in results],
    }


def sample_project() -> Path:
    """The sample project: beside the package in a checkout, inside it in an installed wheel."""
    package = Path(str(files("dinmo_dbt"))).resolve()
    for place in (package / "sample_dbt_project", package.parent / "sample_dbt_project"):
        if (place / "dbt_project.yml").is_file():
            return place
    raise ConfigError(NO_SAMPLE_PROJECT, "the sample project is not installed", where=str(package))


@contextmanager
def _workplace(*, keep: bool) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="dinmo-dbt-demo-"))
    try:
        project = folder / "sample_dbt_project"
        ignored = shutil.ignore_patterns("target", "logs", "*.duckdb", "*.duckdb.wal", ".dinmo", "__pycache__", "*.py")
        shutil.copytree(sample_project(), project, ignore=ignored)
        yield project
    finally:
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _emulator(project: Path) -> Iterator[dict[str, Any]]:
    """A standing server, so that every command of the demo talks to one org; it stops when its stdin closes."""
    command = [sys.executable, "-m", "dinmo_dbt", "emulator", "serve", "--json", "--exit-with-stdin"]
    from dinmo_dbt.cli.embedded_org import stop

    child = subprocess.Popen(
        command, cwd=project, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    )
    try:
        assert child.stdout is not None
        line = child.stdout.readline()
        if not line:
            raise DinmoError(EMULATOR_NOT_STARTED, "the emulator did not start; it says why above")
        org: dict[str, Any] = json.loads(line)
        yield org
    finally:
        stop(child)


def _dinmo(program: Any, *arguments: str) -> None:
    """`program`: the command line itself."""
    _command("dinmo-dbt", *arguments)
    try:
        program.main(args=list(arguments), prog_name="dinmo-dbt")
    except SystemExit as stop:
        if stop.code:
            raise
    _say()


def _dbt(project: Path, *arguments: str) -> None:
    """dbt as its own process; of its output the last line is enough, unless it fails."""
    _command("dbt", *arguments)
    script = Path(sys.executable).with_name("dbt")
    command = [str(script) if script.exists() else "dbt", *arguments, "--no-use-colors"]
    environment = {**os.environ, "DBT_SEND_ANONYMOUS_USAGE_STATS": "false", "DBT_PROFILES_DIR": str(project)}
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)
    lines = done.stdout.splitlines()
    if done.returncode:
        sys.stdout.write(done.stdout + done.stderr)
        raise DinmoError(DEMO_FAILED, f"dbt {arguments[0]} failed; its output is above")
    for line in [text for text in lines if "Finished running" in text or "Done." in text]:
        sys.stdout.write(line + "\n")
    _say()


def _show_records(project: Path) -> None:
    from dinmo_dbt.cli.console import Console
    from dinmo_dbt.cli.options import Flags
    from dinmo_dbt.cli.session import Session

    with Session(Flags(project_dir=project), Console(quiet=True)) as session:
        destination = session.destination("crm")
        for name, by, keys, fields in _RECORDS:
            _print_records(destination, name, by, keys, fields)


# Object, external id, a few of its values, the fields to show.
_RECORDS: tuple[tuple[str, str, tuple[str, ...], tuple[str, ...]], ...] = (
    (
        "Customer__c",
        "Customer_Id__c",
        ("CUS-00642", "CUS-00777", "CUS-00901"),
        ("Name", "Plan__c", "MRR__c", "Email__c"),
    ),
)


def _print_records(destination: Any, name: str, by: str, keys: tuple[str, ...], fields: tuple[str, ...]) -> None:
    import pyarrow as pa

    schema = destination.describe(name)
    field = schema.field(by)
    found = destination.lookup(name, field, pa.array(keys))
    known = tuple(schema.field(f).name for f in fields if schema.field(f))
    records = destination.read(name, (field.name, *known), tuple(found["record_id"].to_pylist()))
    for record in sorted(records, key=lambda r: str(r[field.name])):
        shown = ", ".join(f"{f} {_plain(record.get(f))}" for f in known)
        sys.stdout.write(f"  {name} {record['Id']}  {record[field.name]}: {shown}\n")
    _say()


def _plain(value: Any) -> str:
    return f"{value:.15g}" if isinstance(value, float) else str(value)


def _command(*words: str) -> None:
    shown = " ".join(f"'{word}'" if " " in word else word for word in words)
    sys.stdout.write(f"$ {shown}\n")
    sys.stdout.flush()


def _say(*lines: str) -> None:
    for line in lines:
        sys.stdout.write(line + "\n")
    sys.stdout.write("\n" if lines else "")
    sys.stdout.flush()
