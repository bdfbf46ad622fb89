"""State wherever it is kept: one writer per activation; files first, then a pointer to them together with the results.

`local` keeps it in a folder of this machine, `warehouse` in tables of the user's own. Each gives this module
transactions over the same tables, files that are whole or not there, and its own way to have one writer.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from dinmo_dbt.activation import Activation
from dinmo_dbt.codes import HELD_BY_ANOTHER
from dinmo_dbt.errors import StateError
from dinmo_dbt.state import activity, copied
from dinmo_dbt.state.lease import Held, this_process
from dinmo_dbt.state.runs import Runs
from dinmo_dbt.state.state_id import OWN, StateId
from dinmo_dbt.state.storage import Storage
from dinmo_dbt.state.summary import StateSummary, summary

if TYPE_CHECKING:
    from dinmo_dbt.state.journal import ActivationState


class Store(Storage):
    """One state location, opened for one dbt target."""

    def refuse_copied(self) -> None:
        """StateError DB533 where the target's state was copied to another place, or has not come from one yet."""
        refusal = None
        with suppress(StateError):  # what else is wrong with it is reported where it is used
            if self.exists():
                with self.connection(writing=False) as connection:
                    refusal = copied.refusal(connection, self.target, self.place)
        if refusal is not None:
            raise refusal

    def begun(self) -> set[StateId]:
        """What runs have begun under the target that the store is opened for, and no copy has taken elsewhere."""
        if not self.exists():
            return set()
        with self.connection(writing=False) as connection:
            if copied.refusal(connection, self.target, self.place) is not None:
                return set()
            query = "SELECT org_id, name FROM activation WHERE target = ? AND runs > 0"
            rows = connection.execute(query, (self.target,)).fetchall()
            return {self.own(row["org_id"], row["name"]) for row in rows}

    def own(self, org_id: str, name: str) -> StateId:
        """That activation's state under the target that the store is opened for."""
        return StateId(org_id, self.target, name)

    def view(self, org_id: str, activation: Activation) -> ActivationState:
        """The activation's state as it is now, without a lock. StateError when it belongs to something else."""
        from dinmo_dbt.state.journal import ActivationState

        self.check()
        own = self.own(org_id, activation.name)
        with suppress(StateError):  # a run may settle a batch between our look at the journal and at its rows
            return ActivationState(self, own, activation, writing=False)
        return ActivationState(self, own, activation, writing=False)

    @contextmanager
    def locked(self, org_id: str, activation: Activation, run_id: str = "") -> Iterator[ActivationState]:
        """The activation's state for one writer. StateError DB501 while another run holds it."""
        from dinmo_dbt.state.journal import ActivationState

        own = self.own(org_id, activation.name)
        with self.exclusive(own) as lock:
            if self.exists():
                self.mend()
            state = ActivationState(self, own, activation, writing=True)
            state.start(lock, this_process(self.clock.now(), run_id))
            try:
                self.history.clear_up(own)
                yield state
            finally:
                with suppress(StateError):  # a lease that can't be given back runs out
                    state.lease.release()
                    self.rest()

    @property
    def history(self) -> Runs:
        return Runs(self, self.history_s)

    def activity(self, target: str) -> activity.Activity:
        return activity.Activity(self, target)

    def held(self, name: str | None = None) -> list[Held]:
        """Which activations are held, of that name or at all. A lease that its process gave back is none."""
        if not self.exists():
            return []
        self.check()
        with self.connection(writing=False) as connection:
            rows = connection.execute(
                "SELECT * FROM activation WHERE lease_owner IS NOT NULL ORDER BY org_id, target, name"
            ).fetchall()
            found = [self.held_by(connection, row) for row in rows if name in (None, row["name"])]
        return [held for held in found if held]

    def unlock(self, held: Held) -> None:
        """Take the lease from its holder: the epoch moves on, so that it can't write any more. StateError DB501 if
        somebody else holds it by now."""
        with self.connection(writing=True) as connection:
            moved = connection.execute(
                "UPDATE activation SET epoch = epoch + 1, lease_owner = NULL, lease_until = NULL "
                f"WHERE {OWN} AND epoch = ?",
                (*held.id, held.epoch),
            ).rowcount
            if not moved:
                raise StateError(HELD_BY_ANOTHER, f"{held.name} has changed hands meanwhile", hint="look at it again")
            # Before the commit: without the lock but with its lease, a run is as good as over.
            self.forget_lock(held.id)
        self.rest()

    # Looking

    def known_lineage(self) -> str | None:
        if not self.exists():
            return None
        with self.connection(writing=False) as connection:
            return self.lineage(connection)

    def known(self) -> list[StateSummary]:
        """Every activation's state, by org, target and name."""
        if not self.exists():
            return []
        self.check()
        with self.connection(writing=False) as connection:
            rows = connection.execute(
                "SELECT * FROM activation WHERE runs > 0 ORDER BY org_id, target, name"
            ).fetchall()
            return [summary(self, connection, row) for row in rows]
