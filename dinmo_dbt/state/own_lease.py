"""The lease that a run of ours holds: each of its transactions renews it, and it is looked at while the run waits."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from dinmo_dbt.errors import StateError
from dinmo_dbt.state import seal
from dinmo_dbt.state.lease import LEASE_S, RENEW_S, taken_over
from dinmo_dbt.state.state_id import OWN, StateId
from dinmo_dbt.state.storage import Storage
from dinmo_dbt.state.tables import Connection

_CHECK_EVERY_S = 1.0


class OwnLease:
    """`owner` as it is written in the state, `since` by the clock that nobody sets."""

    def __init__(self, store: Storage, own: StateId, owner: str, epoch: int, since: float) -> None:
        self._store, self._own, self.owner, self._epoch = store, own, owner, epoch
        self._where = f"{store.location}: {own}"
        self._renewed(since)

    def _renewed(self, since: float) -> None:
        clock = self._store.clock
        self._checked_at = self._renewed_at = since
        self._clocks_apart = clock.now() - clock.monotonic()

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """One transaction, which renews the lease. StateError DB503, and nothing is written, once another run has
        taken over."""
        since = self._store.clock.monotonic()  # the process may be paused as soon as it has committed
        with self._store.connection(writing=True) as connection:
            ours = connection.execute(
                f"UPDATE activation SET lease_until = ? WHERE {OWN} AND epoch = ? AND lease_owner = ?",
                (self._store.now(connection) + LEASE_S, *self._ours),
            ).rowcount
            if not ours:
                raise taken_over(self._own.name, self._where)
            yield connection
            seal.renew(connection, self._own)
        self._renewed(since)

    @property
    def is_due(self) -> bool:
        """Whether it should be renewed: it is old, or somebody has set the clock."""
        clock = self._store.clock
        now = clock.monotonic()
        return now >= self._renewed_at + RENEW_S or abs(clock.now() - now - self._clocks_apart) > RENEW_S

    def check(self) -> None:
        """StateError DB503 once another run has taken over; looked at once a second at most."""
        now = self._store.clock.monotonic()
        if now < self._checked_at + _CHECK_EVERY_S:
            return
        with self._store.connection(writing=False) as connection:
            ours = connection.execute(
                f"SELECT epoch FROM activation WHERE {OWN} AND epoch = ? AND lease_owner = ?", self._ours
            ).fetchall()
        if not ours:
            raise taken_over(self._own.name, self._where)
        self._checked_at = now

    def release(self) -> None:
        """Give it back, if it is still ours."""
        with self._store.connection(writing=True) as connection:
            connection.execute(
                f"UPDATE activation SET lease_owner = NULL, lease_until = NULL WHERE {OWN} AND lease_owner = ?",
                (*self._own, self.owner),
            )

    @property
    def _ours(self) -> tuple[object, ...]:
        return (*self._own, self._epoch, self.owner)


@contextmanager
def held_beside(hold: Callable[[], None]) -> Iterator[None]:
    """Call `hold` now and then in a thread. If the lease is lost all the same, the next write finds out."""
    done = threading.Event()

    def renew() -> None:
        while not done.wait(RENEW_S):
            with suppress(StateError):
                hold()

    thread = threading.Thread(target=renew, name="lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
