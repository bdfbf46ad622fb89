"""emulator reset: the local org is emptied."""

from __future__ import annotations

from dinmo_dbt.cli import options
from dinmo_dbt.cli.commands.emulator_serve import Data, emulator_error
from dinmo_dbt.cli.console import Console
from dinmo_dbt.cli.options import Flags
from dinmo_dbt.cli.session import Session


def reset(data: Data = None, project_dir: options.ProjectDir = None, as_json: options.Json = False) -> None:
    """Empty the org: the next start makes a new one.

    \b
    Examples:
      dinmo-dbt emulator reset
    """
    from dinmo_dbt import emulator
    from dinmo_dbt.cli import printed

    console = Console(as_json)
    if data is None:
        with Session(Flags(project_dir), console, offline=True) as session:
            data = session.project.emulator.data
    try:
        emulator.reset(data)
    except emulator.EmulatorError as error:
        raise emulator_error(error, data) from error
    console.answer([f"emptied {data}"])
    console.document(printed.document("emulator reset", data=str(data)))
