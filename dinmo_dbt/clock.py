"""The clock that is handed to all that waits or looks at the time."""

from __future__ import annotations

from typing import Protocol


class Clock(Protocol):
    def now(self) -> float:
        """Seconds since the epoch, UTC. Somebody may set that clock: for due moments and for what people read."""

    def monotonic(self) -> float:
        """Seconds that only ever pass: how long something takes, and how long to wait."""

    def sleep(self, seconds: float) -> None:
        """Raises Interrupted, at once, when the user asked the run to stop; of 0 seconds it only asks."""
