"""state adopt: records that Salesforce holds already are taken over."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from dinmo_dbt.cli import completing, options
from dinmo_dbt.cli.console import Console
from dinmo_dbt.cli.drawing import record_of, scan_spool
from dinmo_dbt.cli.known import one_known
from dinmo_dbt.cli.options import Flags
from dinmo_dbt.cli.session import Session
from dinmo_dbt.codes import NOT_MATCHED, NOTHING_TO_ADOPT
from dinmo_dbt.errors import Refused, UsageError

if TYPE_CHECKING:
    from dinmo_dbt.activation import Activation
    from dinmo_dbt.upkeep.adopt import Adoption


def adopt(
    flags: Flags,
    name: Annotated[
        str,
        typer.Argument(
            metavar="ACTIVATION", help="The activation that takes records over.", autocompletion=completing.activation
        ),
    ],
    match: Annotated[
        list[str] | None,
        typer.Option("--match", metavar="COLUMN=FIELD", help="For an insert: mapped fields that must agree, all."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Store it; without, the plan is all there is.")] = False,
    limit: options.Limit = 20,
    allow_target_mismatch: options.TargetMismatch = False,
    as_json: options.Json = False,
) -> None:
    """Take over records that Salesforce holds already.

    For a first sync to an org that is not empty, a lost or older state, and inserts whose outcome is not known: finds
    the record of each row that has none, and shows which are matched, ambiguous or unmatched. With --yes the matched
    ones are known from then on, and an insert's ambiguous ones are not sent by themselves (retry --unknown does).
    Nothing is written to Salesforce.

    \b
    Examples:
      dinmo-dbt state adopt customers_to_crm
      dinmo-dbt state adopt events_to_crm --match event_id=Event_Id__c
      dinmo-dbt state adopt events_to_crm --match event_id=Event_Id__c --yes
    """
    from dinmo_dbt.cli import printed, render
    from dinmo_dbt.upkeep import adopt as adopting

    console = Console(as_json)
    matches = [_pair(text) for text in match or ()]
    with one_known(flags, name, console, allow_mismatch=allow_target_mismatch) as known:
        session, activation, destination = known.session, known.activation, known.destination
        with scan_spool(session) as spool:
            found = adopting.draw(activation, session.source, destination, known.state, spool, matches=matches)
        console.answer(render.adoption_lines(activation, found, destination.org_id, limit))
        if yes:
            _store(session, activation, found)
        said = f"stored: {printed.count(len(found.rows), 'row')}" if yes else "nothing is stored; --yes stores it"
        console.answer([said])
        document = render.adoption_json(found)
        where = {"activation": activation.name, "object": activation.object, "org_id": destination.org_id}
        console.document(printed.document("state adopt", stored=yes, **where, **document))


def _store(session: Session, activation: Activation, found: Adoption) -> None:
    from dinmo_dbt.upkeep import adopt as adopting

    if not len(found.rows) and not len(found.doubts):
        raise Refused(
            NOTHING_TO_ADOPT,
            "there is nothing to take over: no row has one record of its own",
            where=activation.meta_path,
        )
    with session.state.locked(session.destination(activation.destination).org_id, activation) as state:
        adopting.store(found, state)
        for note in record_of(session, activation, state).accept():
            session.console.say(f"note: {note}")


def _pair(text: str) -> tuple[str, str]:
    column, equals, name = (part.strip() for part in text.partition("="))
    if not (column and equals and name):
        raise UsageError(NOT_MATCHED, f"--match {text} is no pair", hint="write --match column=Field__c")
    return column, name
