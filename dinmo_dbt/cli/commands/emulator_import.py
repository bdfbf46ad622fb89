"""emulator import: a real org's schema into the project, so that activations can be tried against it offline."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dinmo_dbt.cli import options
from dinmo_dbt.cli.console import Console
from dinmo_dbt.cli.options import Flags
from dinmo_dbt.cli.session import Session
from dinmo_dbt.codes import EMULATOR_SCHEMA, NOTHING_TO_IMPORT
from dinmo_dbt.errors import ConfigError, DinmoError, UsageError

if TYPE_CHECKING:
    from dinmo_dbt.emulator.schema.importing import Imported
    from dinmo_dbt.salesforce import SalesforceDestination

_ORG = "org:"
_NOTES_SHOWN = 10
_BUILT_IN = ("User", "Group", "Organization", "RecordType")  # the emulator's own can be looked up as they are


def import_schema(
    flags: Flags,
    source: Annotated[
        str, typer.Option("--from", metavar="FILE|DIR|org:DESTINATION", help="describe JSON, YAML, SFDX tree, or org.")
    ],
    to: Annotated[Path | None, typer.Option("--to", help="Schema folder (default: the project's).")] = None,
    objects: Annotated[
        list[str] | None, typer.Option("--object", help="Object to pull from the org (default: the activations').")
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Bring a real org's schema into the emulator's schema folder.

    From an org it pulls the describes of the activations' objects, or of those named, and of the objects that their
    lookups refer to: field definitions, no records. The folder is changed only if the emulator can use the result.

    \b
    Examples:
      dinmo-dbt emulator import --from org:crm --target prod
      dinmo-dbt emulator import --from org:crm --object Account --object Invoice__c
      dinmo-dbt emulator import --from Account.describe.json --to emulator_schema
    """
    from dinmo_dbt import emulator
    from dinmo_dbt.cli import printed

    console = Console(as_json)
    destination = source.removeprefix(_ORG) if source.startswith(_ORG) else None
    if objects and destination is None:
        raise UsageError(
            NOTHING_TO_IMPORT, "--object chooses what is pulled from an org", hint="use it with --from org:NAME"
        )
    with Session(flags, console, offline=destination is None) as session:
        folder = to or session.project.emulator.schema
        try:
            if destination is None:
                brought = emulator.import_source(Path(source), folder)
            else:
                brought = emulator.import_describes(_pulled(session, destination, objects), folder)
        except emulator.EmulatorError as error:
            raise DinmoError(EMULATOR_SCHEMA, str(error).removeprefix(f"{source}: "), where=source) from error
    console.answer(_lines(brought, folder))
    console.document(
        printed.document(
            "emulator import", folder=str(folder), objects=list(brought.objects), approximate=list(brought.approximate)
        )
    )


def _lines(brought: Imported, folder: Path) -> list[str]:
    from dinmo_dbt.cli import printed

    notes = [f"  note: {note}" for note in brought.approximate[:_NOTES_SHOWN]]
    left = len(brought.approximate) - len(notes)
    return [
        f"{printed.count(len(brought.objects), 'object')} into {folder}: {', '.join(brought.objects)}",
        *notes,
        *([f"  and {printed.count(left, 'more note')}: --json lists them"] if left > 0 else []),
        "the emulator has them from its next start",
    ]


def _pulled(session: Session, destination: str, objects: list[str] | None) -> list[dict[str, Any]]:
    if session.project.org(destination).is_emulator:
        raise UsageError(
            NOTHING_TO_IMPORT,
            f"destination {destination} is the emulator itself under this dbt target",
            where=f"{_ORG}{destination}",
            hint="choose a target whose org is real: --target NAME",
        )
    wanted = objects or sorted({a.object for a in session.declared.activations if a.destination == destination})
    if not wanted:
        raise UsageError(
            NOTHING_TO_IMPORT,
            f"no activation has the destination {destination}",
            where=f"{_ORG}{destination}",
            hint="name objects: --object Account",
        )
    org = session.destination(destination)
    found = [org.describe_reply(name) for name in wanted]
    return [*found, *_parents(org, found)]


def _parents(org: SalesforceDestination, described: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The objects that a lookup of a synced row can name; one that this user may not see is left out."""
    names = {
        parent
        for reply in described
        for field in reply["fields"]
        if field["createable"] and len(field["referenceTo"]) == 1
        for parent in field["referenceTo"]
    }
    found = []
    for name in sorted(names.difference(_BUILT_IN, (reply["name"] for reply in described))):
        try:
            found.append(org.describe_reply(name))
        except ConfigError:
            continue
    return found
