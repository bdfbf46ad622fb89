"""state rekey: known rows under the keys that the model gives them now."""

from __future__ import annotations

from typing import Annotated

import typer

from dinmo_dbt.cli import completing, options
from dinmo_dbt.cli.console import Console
from dinmo_dbt.cli.drawing import scan_spool
from dinmo_dbt.cli.known import one_known
from dinmo_dbt.cli.options import Flags
from dinmo_dbt.codes import NOTHING_TO_REKEY
from dinmo_dbt.errors import Refused


def rekey(
    flags: Flags,
    name: Annotated[
        str,
        typer.Argument(
            metavar="ACTIVATION", help="The activation whose keys changed.", autocompletion=completing.activation
        ),
    ],
    former: Annotated[
        list[str] | None,
        typer.Option(
            "--from", metavar="COLUMN", help="The column that holds the key a row had; one for each key column."
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Store it; without, the plan is all there is.")] = False,
    limit: options.Limit = 20,
    allow_target_mismatch: options.TargetMismatch = False,
    as_json: options.Json = False,
) -> None:
    """Give known rows the keys that the model gives them now.

    For a key that changed its type or its spelling: pairs each row with the known key that it had, one to one, by the
    types of the last sync, by another spelling, or by a column of the model that holds it (--from). Nothing is written
    to Salesforce, and nothing is sent of a row that is otherwise as it was acknowledged.

    \b
    Examples:
      dinmo-dbt state rekey events_to_crm
      dinmo-dbt state rekey events_to_crm --from old_event_id
      dinmo-dbt state rekey events_to_crm --yes
    """
    from dinmo_dbt.cli import printed, render
    from dinmo_dbt.upkeep import adopt
    from dinmo_dbt.upkeep import rekey as rekeying

    console = Console(as_json)
    with one_known(flags, name, console, allow_mismatch=allow_target_mismatch) as known:
        session, activation, destination = known.session, known.activation, known.destination
        with scan_spool(session) as spool:
            found = rekeying.draw(activation, session.source, destination, known.state, spool, former=former or ())
        console.answer(render.rekeying_lines(activation, found, limit))
        if yes:
            if not len(found.pairs):
                hint = "name the column that holds the key a row had: --from COLUMN"
                raise Refused(
                    NOTHING_TO_REKEY, "no row is a known one under another key", where=activation.meta_path, hint=hint
                )
            with session.state.locked(destination.org_id, activation) as locked:
                adopt.store(found, locked)
        said = f"stored: {printed.count(len(found.pairs), 'row')}" if yes else "nothing is stored; --yes stores it"
        console.answer([said])
        where = {"activation": activation.name, "object": activation.object, "org_id": destination.org_id}
        console.document(printed.document("state rekey", stored=yes, **where, **render.rekeying_json(found)))
