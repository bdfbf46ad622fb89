"""A Salesforce org on localhost, for tests, demos and CI: written from the wire reference, sharing no code with
the client, saying what it does not do.

`app` mounts in process, `serve` listens on a loopback port, `reset` empties a data folder, `import_source` and
`import_describes` bring a real org's schema into a folder that these serve. Importing this package is light; the
server's libraries are imported by the call that needs them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from dinmo_dbt.emulator.bulk.pace import Pace
from dinmo_dbt.emulator.clock import Clock
from dinmo_dbt.emulator.errors import EmulatorError, FolderInUse, RecordsError, SchemaError
from dinmo_dbt.emulator.faults.fault import Fault
from dinmo_dbt.emulator.limits import Limits
from dinmo_dbt.emulator.logins import Logins
from dinmo_dbt.emulator.options import OrgOptions

if TYPE_CHECKING:
    from dinmo_dbt.emulator.schema.importing import Imported
    from dinmo_dbt.emulator.web.app import App

__all__ = [
    "Clock",
    "EmulatorError",
    "Fault",
    "FolderInUse",
    "Limits",
    "Logins",
    "OrgOptions",
    "Pace",
    "RecordsError",
    "SchemaError",
    "app",
    "import_describes",
    "import_source",
    "reset",
    "serve",
]


def app(
    *,
    schema: Path | None,
    data: Path | None,
    records: Path | None = None,
    **options: Unpack[OrgOptions],
) -> App:
    """The org as a WSGI application with `.identity` and `.close()`; `data=None` keeps nothing after close.

    Any client on `requests` calls it without a socket: `session.mount("https://acme.my.salesforce.com",
    app.adapter())`, and simple-salesforce by `session=session`. Jobs run in a thread of the app, so in process too a
    client polls. One app per data folder: unlike `serve` this takes no lock.
    """
    from dinmo_dbt.emulator.web.app import App

    return App(schema=schema, data=data, records=records, **options)


def serve(
    *,
    schema: Path | None,
    data: Path,
    records: Path | None,
    port: int = 0,
    https_port: int = 0,
    standing: bool = False,
    exit_with_stdin: bool = False,
    announce: Callable[[dict[str, Any]], None],
    **options: Unpack[OrgOptions],
) -> None:
    """Serve the org in `data` on 127.0.0.1 until SIGTERM, SIGINT or, if asked, the end of stdin.

    Call it from the main thread. When it listens it writes `data/server.json` and calls `announce` with
    `instance_url`, `https_url`, `ca_file` (the authority that signed the https certificate, PEM), `organization_id`,
    `access_token`, `username`, `password`, `security_token`, `client_id`, `client_secret`, `refresh_token` and `pid`.
    Raises FolderInUse if another server holds the folder for 10 s.
    """
    from dinmo_dbt.emulator.web.server import serve

    serve(
        schema=schema, data=data, records=records, port=port, https_port=https_port, standing=standing,
        exit_with_stdin=exit_with_stdin, announce=announce, **options,
    )  # fmt: skip


def import_source(source: Path, folder: Path) -> Imported:
    """Bring describe JSON, YAML documents or an SFDX tree into a schema folder; SchemaError if that can't be served."""
    from dinmo_dbt.emulator.schema.importing import import_source

    return import_source(source, folder)


def import_describes(describes: Sequence[Mapping[str, Any]], folder: Path) -> Imported:
    """Bring describe replies of a real org into a schema folder; SchemaError if the result can't be served."""
    from dinmo_dbt.emulator.schema.importing import import_describes

    return import_describes(describes, folder)


def reset(data: Path) -> None:
    """Empty `data`, so that the next start mints a new org. Raises FolderInUse while a server holds it."""
    from dinmo_dbt.emulator.web.server import reset

    reset(data)
