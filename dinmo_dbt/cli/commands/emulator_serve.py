"""emulator serve: a Salesforce org on localhost."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from dinmo_dbt import __version__
from dinmo_dbt.cli import options
from dinmo_dbt.cli.console import Console
from dinmo_dbt.cli.options import Flags
from dinmo_dbt.cli.session import Session
from dinmo_dbt.codes import EMULATOR_FOLDER
from dinmo_dbt.errors import DinmoError

SERVE = "emulator serve"
Data = Annotated[Path | None, typer.Option("--data", help="Folder that keeps the org (default: the project's).")]


def serve(
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0: any free port.")] = 0,
    https_port: Annotated[int, typer.Option("--https-port", min=0, max=65535, help="0: any free port.")] = 0,
    schema: Annotated[
        Path | None, typer.Option("--schema", help="SFDX tree, describe JSON, YAML, or a folder of these.")
    ] = None,
    records: Annotated[Path | None, typer.Option("--records", help="Folder of <Object>.csv starting records.")] = None,
    data: Data = None,
    project_dir: options.ProjectDir = None,
    exit_with_stdin: Annotated[bool, typer.Option("--exit-with-stdin", help="Stop when stdin closes.")] = False,
    standing: Annotated[
        bool, typer.Option("--standing/--private", hidden=True, help="Whether other commands may use this server.")
    ] = True,
    batch_delay: Annotated[
        float, typer.Option("--batch-delay", min=0, hidden=True, help="Seconds between a job's internal batches.")
    ] = 0.0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON line when it listens.")] = False,
) -> None:
    """Serve a Salesforce org on 127.0.0.1 until stopped.

    In a dbt project it is the org of `org: emulator`, and every command uses it while it stands.

    \b
    Examples:
      dinmo-dbt emulator serve
      dinmo-dbt emulator serve --schema force-app --data /tmp/org --port 8080 --json
    """
    from dinmo_dbt import emulator

    if data is None:
        from dinmo_dbt.cli.embedded_org import sources

        with Session(Flags(project_dir), Console(), offline=True) as session:
            config = session.project.emulator
            usual = sources(config)
            schema, records = schema or usual[0], records or usual[1]
            data = config.data
    try:
        emulator.serve(
            schema=schema,
            data=data,
            records=records,
            port=port,
            https_port=https_port,
            standing=standing,
            exit_with_stdin=exit_with_stdin,
            batch_delay_s=batch_delay,
            announce=lambda org: _announce(org, as_json=as_json),
        )
    except emulator.EmulatorError as error:
        raise emulator_error(error, data) from error


def _announce(org: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        # Not by `render`, which loads pyarrow: every command waits for this line.
        sys.stdout.write(json.dumps({"version": 1, "command": SERVE, "dinmo_dbt": __version__, **org}) + "\n")
    else:
        sys.stdout.write(
            f"Salesforce emulator at {org['instance_url']}, org {org['organization_id']}, user {org['username']}\n"
            "  a browser sees its objects, jobs and last calls there\n"
            f"  access token: {org['access_token']}\n"
            f"  {org['https_url']} needs its authority named, for Python or for Node:\n"
            f"    export REQUESTS_CA_BUNDLE={shlex.quote(org['ca_file'])}\n"
            f"    export NODE_EXTRA_CA_CERTS={shlex.quote(org['ca_file'])}\n"
            "  Ctrl-C stops it; the org stays in its data folder\n"
        )
    sys.stdout.flush()


def emulator_error(error: Exception, data: Path) -> DinmoError:
    return DinmoError(EMULATOR_FOLDER, str(error), where=str(data))
