"""retry: rows that wait are sent now, and inserts whose outcome can't be learned again, if the user says so."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from dinmo_dbt.cli import options
from dinmo_dbt.cli.console import Console
from dinmo_dbt.cli.options import Flags, Gating
from dinmo_dbt.cli.session import Session
from dinmo_dbt.cli.syncing import sync_chosen
from dinmo_dbt.codes import INSERTED_AGAIN
from dinmo_dbt.errors import Refused

if TYPE_CHECKING:
    from dinmo_dbt.activation import Activation
    from dinmo_dbt.state.journal import ActivationState


def retry(
    flags: Flags,
    unknown: Annotated[
        bool, typer.Option("--unknown", help="Also insert rows again whose outcome can't be learned; needs --yes.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Yes, even if such rows exist twice afterwards.")] = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Send rows that wait now, not when they are due.

    Rows that Salesforce rejected wait for 1, 2, 4… runs; this makes all of them due and syncs the activations that
    have any. An insert whose outcome can't be learned is never sent again by itself: it may have made a record.

    \b
    Examples:
      dinmo-dbt retry
      dinmo-dbt retry -s customers_to_crm
      dinmo-dbt retry --unknown                   says how many, and what may come of it
    """
    from dinmo_dbt.cli import printed
    from dinmo_dbt.plan.guards import Ceilings

    console = Console(as_json, quiet)
    with Session(flags, console) as session:
        session.start_orgs(session.chosen)
        found = [(activation, *_waiting(session, activation)) for activation in session.chosen]
        doubtful = sum(doubts for _, _, doubts in found)
        if unknown and doubtful and not yes:
            raise Refused(
                INSERTED_AGAIN,
                f"{printed.count(doubtful, 'row')} may have been inserted, which can't be learned any more. Sent "
                "again, those that were exist twice",
                where=", ".join(activation.name for activation, _, doubts in found if doubts),
                hint="look in Salesforce first, or let it be looked for: "
                + ", ".join(f"dinmo-dbt state adopt {a.name}" for a, _, doubts in found if doubts)
                + ". Then: dinmo-dbt retry --unknown --yes",
            )
        chosen = [a for a, waits, doubts in found if waits or (unknown and doubts)]
        for activation in chosen:
            _make_due(session, activation, unknown=unknown)
        if not chosen:
            console.answer(["nothing waits", *_doubts_lines(doubtful)])
            console.document(printed.document("retry", exit_code=0, results=[]))
            return
        raise typer.Exit(sync_chosen(session, chosen, Ceilings(), Gating(), "retry"))


def _waiting(session: Session, activation: Activation) -> tuple[int, int]:
    """How many rows of the activation wait, and how many inserts have an outcome that can't be learned."""
    known = session.state.known()
    if not any(state.id == session.state.own(state.org_id, activation.name) for state in known):
        return 0, 0
    state = session.state.view(session.destination(activation.destination).org_id, activation)
    return len(state.pending.kh), len(_doubtful(state))


def _doubtful(state: ActivationState) -> list[int]:
    """Where the snapshot has rows that were perhaps inserted. Other modes look such records up, and send them."""
    import numpy as np

    from dinmo_dbt.activation import Mode
    from dinmo_dbt.rows.snapshot import Flag

    if state.activation.mode is not Mode.INSERT:
        return []
    return np.flatnonzero(state.snapshot.flags & Flag.UNKNOWN).tolist()


def _make_due(session: Session, activation: Activation, *, unknown: bool) -> None:
    import numpy as np

    from dinmo_dbt.cli import printed
    from dinmo_dbt.rows.snapshot import snapshot_rows

    org_id = session.destination(activation.destination).org_id
    with session.state.locked(org_id, activation) as state:
        waits = state.retry_now()
        doubtful = _doubtful(state) if unknown else []
        if doubtful:
            state.amend(snapshot_rows(state.snapshot, np.array(doubtful), "forget"))
    done = [f"{printed.count(waits, 'row')} due now"] if waits else []
    done += [f"{printed.count(len(doubtful), 'row')} inserted again, whatever became of them"] if doubtful else []
    session.console.say(f"{activation.name}: {', '.join(done)}")


def _doubts_lines(doubtful: int) -> list[str]:
    from dinmo_dbt.cli import printed

    if not doubtful:
        return []
    return [f"{printed.count(doubtful, 'row')} may have been inserted; to send them again: dinmo-dbt retry --unknown"]
