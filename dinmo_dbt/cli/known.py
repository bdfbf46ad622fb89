"""What a command works on, chosen by name: one activation with its org and its state, or a run of the history."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dinmo_dbt.cli import examples
from dinmo_dbt.cli.console import Console
from dinmo_dbt.cli.options import Flags
from dinmo_dbt.cli.session import Session
from dinmo_dbt.codes import NO_RUN, NOT_MATCHED
from dinmo_dbt.errors import UsageError

if TYPE_CHECKING:
    from dinmo_dbt.activation import Activation
    from dinmo_dbt.salesforce import SalesforceDestination
    from dinmo_dbt.state.journal import ActivationState
    from dinmo_dbt.watch.history import RunRecord


@dataclass(frozen=True)
class NamedActivation:
    """`state` is as it is now, without a lock."""

    session: Session
    activation: Activation
    destination: SalesforceDestination
    state: ActivationState


@contextmanager
def one_known(
    flags: Flags, name: str, console: Console, *, reads_model: bool = True, allow_mismatch: bool = False
) -> Iterator[NamedActivation]:
    """The one activation of that name. Where the model is read, dbt has to have built it in the chosen target."""
    with Session(dataclasses.replace(flags, select=(name,)), console) as session:
        activation = _named(session, name)
        session.say_notes()
        session.start_orgs([activation])
        if reads_model:
            session.check_target(allow_mismatch=allow_mismatch)
        with examples.shown_with(session, activation):
            yield NamedActivation(session, activation, *known_state(session, activation))


def known_state(session: Session, activation: Activation) -> tuple[SalesforceDestination, ActivationState]:
    """The activation's org, and its state there, looked at without a lock."""
    destination = session.destination(activation.destination)
    state = session.state.view(destination.org_id, activation)
    session.refuse_sharing(activation, state, is_meant=True)  # no row is sent from here
    state.refuse_renamed(session.declared.names)
    return destination, state


def _named(session: Session, name: str) -> Activation:
    found = [activation for activation in session.chosen if activation.name == name] or list(session.chosen)
    if len(found) != 1:
        names = ", ".join(activation.name for activation in found)
        raise UsageError(NOT_MATCHED, f"{name} stands for several activations: {names}", hint="name one of them")
    return found[0]


def known_run(session: Session, run_id: str) -> RunRecord:
    """A run of the history. UsageError where there is none of that id."""
    run = session.state.history.of(run_id)
    if run is None:
        raise UsageError(NO_RUN, f"no run {run_id}", hint="dinmo-dbt history lists them")
    return run
