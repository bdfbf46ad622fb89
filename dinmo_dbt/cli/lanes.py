"""What runs side by side in one process: which activations are being run, and which may not start beside them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dinmo_dbt.activation import Activation
    from dinmo_dbt.cli.clock import SystemClock
    from dinmo_dbt.cli.embedded_org import EmbeddedOrg


@dataclass(frozen=True)
class Reach:
    """What a run of an activation may lock in its org. Objects in lower case."""

    org: str
    object: str
    refers_to: frozenset[str]

    def meets(self, other: Reach) -> bool:
        """Records of one object, or of a parent and its children, lock each other's rows; and parents go first."""
        return self.org == other.org and (
            self.object == other.object or self.object in other.refers_to or other.object in self.refers_to
        )


@dataclass(frozen=True)
class Running:
    """An activation that is being run. `since` in seconds since the epoch; `began` by the clock that nobody sets."""

    activation: Activation
    reach: Reach
    since: float
    began: float
    clock: SystemClock

    @property
    def silent_s(self) -> float:
        """For how long it has given no sign of life: no row was read, no call answered."""
        return time.monotonic() - max(self.began, self.clock.lived)


class Lanes:
    """Which activations are being run. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: dict[str, Running] = {}
        self._begun: dict[str, float] = {}  # when each began last, by the clock that nobody sets
        self._opening = threading.Lock()
        self._org: EmbeddedOrg | None = None
        self._users = 0

    def has_begun(self, activation: Activation, since: float) -> bool:
        """Whether it is being run, or has been since that moment: who finds it on a list of before leaves it."""
        with self._lock:
            return self._has_begun(activation, since)

    def _has_begun(self, activation: Activation, since: float) -> bool:
        return activation.name in self._running or self._begun.get(activation.name, -1.0) >= since

    @contextmanager
    def turn(self, activation: Activation, reach: Reach, clock: SystemClock, since: float) -> Iterator[str | None]:
        """The activation's turn, until the end; or why it has none now, None where it `has_begun`."""
        with self._lock:
            why = None if self._has_begun(activation, since) else self._why_not(reach)
            if why == "":
                now = self._begun[activation.name] = time.monotonic()
                self._running[activation.name] = Running(activation, reach, time.time(), now, clock)
        try:
            yield why
        finally:
            if why == "":
                with self._lock:
                    del self._running[activation.name]

    def _why_not(self, reach: Reach) -> str:
        others = (each for each in self._running.values() if each.reach.meets(reach))
        other = next(others, None)
        if other is None:
            return ""
        return f"it goes once {other.activation.name}, whose records it shares or refers to, is through"

    @contextmanager
    def org(self, start: Callable[[], EmbeddedOrg]) -> Iterator[EmbeddedOrg]:
        """The local org, which is one process's: the first to come starts it, the last to go ends it."""
        with self._opening:
            if self._org is None:
                self._org = start()
            self._users, org = self._users + 1, self._org
        try:
            yield org
        finally:
            with self._opening:
                self._users -= 1
                if not self._users:
                    self._org = None
                    org.close()

    def running(self) -> list[Running]:
        """Longest first."""
        with self._lock:
            return sorted(self._running.values(), key=lambda each: each.began)
