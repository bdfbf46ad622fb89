"""How often a call is sent, and how long to wait before it is sent again."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

ATTEMPTS_MAX = 8
BACKOFF_BASE_S = 0.5
BACKOFF_MAX_S = 30.0
RETRY_AFTER_MAX_S = 60.0


@dataclass(frozen=True)
class Pauses:
    sleep: Callable[[float], None]
    rng: random.Random

    def after(self, attempt: int, after_s: float | None = None) -> None:
        """`after_s` is the server's own wish. Nothing follows the last attempt, so there is no pause after it."""
        if attempt == ATTEMPTS_MAX - 1:
            return
        backoff = self.rng.uniform(0, min(BACKOFF_MAX_S, BACKOFF_BASE_S * 2**attempt))
        self.sleep(backoff if after_s is None else min(after_s, RETRY_AFTER_MAX_S) + backoff)
