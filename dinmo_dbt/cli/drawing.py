"""A plan drawn for a command: parents first, each from its state and its org."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from dinmo_dbt.cli.lanes import Reach
from dinmo_dbt.cli.session import Session
from dinmo_dbt.errors import DinmoError

if TYPE_CHECKING:
    from dinmo_dbt.activation import Activation
    from dinmo_dbt.delivery.state_record import RecordOf
    from dinmo_dbt.plan.guards import Ceilings
    from dinmo_dbt.plan.plan import Arriving, Plan
    from dinmo_dbt.rows.snapshot import Positions
    from dinmo_dbt.state.journal import ActivationState
    from dinmo_dbt.state.spool import ScanSpool


def ordered(session: Session, activations: list[Activation]) -> list[Activation]:
    """Parents first, as the objects' lookups say."""
    from dinmo_dbt.artifacts.order import cycles, order

    referred = partial(references, session)
    if len(activations) > 1:
        for note in cycles(activations, referred):
            session.console.note(note)
        return list(order(activations, referred))
    return activations


def references(session: Session, activation: Activation) -> set[str]:
    """The objects it refers to, as Salesforce describes its own."""
    from dinmo_dbt.rows.parent_paths import referenced_objects

    try:
        schema = session.destination(activation.destination).describe(activation.object)
    except DinmoError:
        return set()  # its own turn reports it, and the others have theirs
    return set(referenced_objects(schema, activation))


def reach(session: Session, activation: Activation) -> Reach:
    """What a run of it may lock; asked for by its org's id, which two destinations may share."""
    refers_to = frozenset(each.lower() for each in references(session, activation))
    return Reach(session.org_of(activation.destination), activation.object.lower(), refers_to)


@contextmanager
def scan_spool(session: Session) -> Iterator[ScanSpool]:
    from dinmo_dbt.state.spool import ScanSpool

    spool = ScanSpool(session.scratch)
    try:
        yield spool
    finally:
        spool.close()


def draw_plan(
    session: Session,
    activation: Activation,
    state: ActivationState,
    spool: ScanSpool,
    ceilings: Ceilings,
    arriving: Sequence[Arriving] = (),
    watched: Positions | None = None,
) -> Plan:
    from dinmo_dbt.delivery import fence
    from dinmo_dbt.plan.draw import draw

    session.refuse_sharing(activation, state, is_meant=ceilings.first_sync)
    state.refuse_renamed(session.declared.names)
    destination = session.destination(activation.destination)
    source = session.source
    drawn = draw(activation, source, destination, state, spool, ceilings=ceilings, arriving=arriving, watched=watched)
    notes = fence.check(drawn, destination, state, sleep=session.clock.sleep if state.writing else None)
    of_record = record_of(session, activation, state).check(drawn)
    return replace(drawn, notes=(*drawn.notes, *notes, *of_record))


def record_of(session: Session, activation: Activation, state: ActivationState) -> RecordOf:
    """The org's own record of the activation's state."""
    from dinmo_dbt.delivery.state_record import RecordOf

    destination, project = session.destination(activation.destination), session.manifest.project_name
    return RecordOf(destination, state, project, state.own.target, activation.name)
