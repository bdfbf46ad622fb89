"""The org's own record of a state, where an administrator has installed the object for it (docs/state.md).

A state's serial grows with all that a run records. The org keeps it, with the state's lineage and the run that wrote:
before the first row of a run goes, and after the run. A state that finds a record which is ahead of it, or of another
lineage, is an older copy or another state, however long ago the newer one sent, and whatever has become of its jobs.

What a run writes before it sends is one more than the serial of its state, and noted in the state first: a run that
dies leaves a record which its own state knows, and a copy of before does not. Compare and write are two calls: of two
copies that do both at the same moment, none stops.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from dinmo_dbt.activation import Mode
from dinmo_dbt.codes import ORG_RECORD_AHEAD
from dinmo_dbt.delivery.fence import ways_out
from dinmo_dbt.destination import Destination, StateRecord
from dinmo_dbt.errors import DestinationError, Interrupted, StateError
from dinmo_dbt.plan.plan import Plan


class OwnState(Protocol):
    """What a state knows of itself."""

    lineage: str
    serial: int

    def known_jobs(self) -> frozenset[str]: ...

    def know(self, marks: Collection[str]) -> None: ...


@dataclass(frozen=True)
class RecordOf:
    """One activation's record in one org."""

    destination: Destination
    state: OwnState
    project: str
    target: str
    activation: str

    @property
    def key(self) -> str:
        whose = "\0".join((self.project, self.target, self.activation))
        return hashlib.sha256(whose.encode("utf-8", "surrogatepass")).hexdigest()

    @property
    def name(self) -> str:
        return f"{self.activation} ({self.project}, {self.target})"

    def unknown(self) -> tuple[StateRecord | None, tuple[str, ...]]:
        """The record if this state is not the one that wrote it, or is behind it; and a note if it can't be read."""
        try:
            found = self.destination.state_record(self.key)
        except DestinationError as error:
            return None, (f"the org's record of this state can't be read: {error.problems[0].message}",)
        if found is None or (found.lineage == self.state.lineage and found.serial <= self.state.serial):
            return None, ()
        return (None if _mark(found) in self.state.known_jobs() else found), ()

    def accept(self) -> tuple[str, ...]:
        """The record counts as this state's own from now on; a note if it can't be read. Nothing is written there."""
        found, notes = self.unknown()
        if found:
            self.state.know([_mark(found)])
        return notes

    def check(self, plan: Plan) -> tuple[str, ...]:
        """A note if the record is not this state's; StateError DB524 if the plan inserts. A plan that sends nothing
        asks for nothing."""
        if plan.refusal or not plan.batches:
            return ()
        found, notes = self.unknown()
        if not found:
            return notes
        difference = self.difference(found)
        if plan.activation.mode is Mode.INSERT:
            raise StateError(
                ORG_RECORD_AHEAD,
                f"the org knows more than this state: {difference}",
                where=f"{self.activation} in org {plan.org_id}",
                hint=ways_out(plan.activation),
            )
        return (f"{difference}. If a newer copy of this state wrote that, put it back: this one may send rows again",)

    def difference(self, found: StateRecord) -> str:
        """In words, how the record is not this state's."""
        if found.lineage != self.state.lineage:
            return f"its record there is of another state, at serial {found.serial} by run {found.run}"
        return f"its record there is at serial {found.serial} by run {found.run}, this state at {self.state.serial}"

    @contextmanager
    def kept(self, plan: Plan, run_id: str, tell: Callable[[str], None]) -> Iterator[None]:
        """Write the record before the rows go, and again if the state moved on. What fails is reported, and stops
        nothing."""
        if plan.refusal or not plan.batches:
            yield
            return
        first = StateRecord(self.state.serial + 1, self.state.lineage, run_id)
        self.state.know([_mark(first)])
        self._write(first, tell)
        yield
        if self.state.serial > first.serial:
            try:
                self._write(StateRecord(self.state.serial, self.state.lineage, run_id), tell)
            except Interrupted:
                tell("the org's record of this state was not written: the run was asked to stop")

    def _write(self, record: StateRecord, tell: Callable[[str], None]) -> None:
        try:
            self.destination.keep_state_record(self.key, self.name, record)
        except DestinationError as error:
            tell(f"the org's record of this state can't be written: {error.problems[0].message}")


def _mark(record: StateRecord) -> str:
    """As the state keeps it beside the ids of jobs."""
    return f"{record.lineage}+{record.serial}+{record.run}"
