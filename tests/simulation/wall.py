"""The clock on the wall of the machine that syncs, which somebody sets; the org's is right, and seconds pass alike."""

from __future__ import annotations

import random
from collections.abc import Callable

from mounted_org import OneClock

HOUR_S, DAY_S = 3_600.0, 86_400.0
STEPS = (-400 * DAY_S, -3 * DAY_S, -HOUR_S, -60.0, 60.0, HOUR_S, 40 * DAY_S, 400 * DAY_S)


class Wall:
    """Each seed draws by a stream of its own whether and when it is set: between two runs, or at a call of one."""

    def __init__(self, clock: OneClock, seed: int, tell: Callable[[str], None]) -> None:
        self._clock, self._tell = clock, tell
        self._random = random.Random(f"wall {seed}")
        self._is_set_at_all = self._random.random() < 0.2
        self._ahead = 0.0
        self._calls = 0  # until it is set

    def now(self) -> float:
        return self._clock.now() + self._ahead

    def monotonic(self) -> float:
        return self._clock.monotonic()

    def sleep(self, seconds: float) -> None:
        self._clock.sleep(seconds)

    def draw(self, *, at_once: bool = False) -> bool:
        """Before a run: whether it is set, now or, unless `at_once`, within the run."""
        self._calls = 0
        if not self._is_set_at_all or self._random.random() < 0.3:
            return False
        self._calls = 0 if at_once else self._random.randint(0, 12)
        if not self._calls:
            self._set()
        return True

    def differ(self) -> None:
        """The next process is of another machine, whose clock is another one."""
        self._set()

    def after_call(self) -> None:
        if self._calls:
            self._calls -= 1
            if not self._calls:
                self._set()

    def _set(self) -> None:
        """Ahead or back; or to what it should be."""
        step = self._random.choice((*STEPS, -self._ahead))
        self._ahead += step
        self._tell(f"the clock is set {'back' if step < 0 else 'ahead'} by {abs(step):,.0f} s")
