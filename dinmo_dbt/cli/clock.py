"""The clock of a command."""

from __future__ import annotations

import time

from dinmo_dbt.cli.stopping import Stop


class SystemClock:
    """Wall-clock time and real sleep, which ends when the user asks the command to stop."""

    def __init__(self, stop: Stop) -> None:
        self._stop = stop
        self.lived = time.monotonic()  # when last a sign of life was given

    @property
    def signal(self) -> int:
        """The signal that asked to stop; 0 for none."""
        return self._stop.number

    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        self.lived = time.monotonic()
        self._stop.sleep(seconds)
