"""The last calls of the API, for a look inside: never a token, a query or a value of a record."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import asdict, dataclass
from typing import Any

CALLS_KEPT = 200


@dataclass(frozen=True, slots=True)
class Seen:
    """One call. `path` is the route's, with ids and names but without record values; `ms` is 0 on a stopped clock."""

    time: str
    method: str
    path: str
    name: str
    status: int
    ms: int
    fault: str | None


class Calls:
    """A ring of the last 200 calls, filled by any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ring: deque[Seen] = deque(maxlen=CALLS_KEPT)

    def add(self, seen: Seen) -> None:
        with self._lock:
            self._ring.append(seen)

    def kept(self) -> tuple[Seen, ...]:
        """What was seen, oldest first, to go back to."""
        with self._lock:
            return tuple(self._ring)

    def restore(self, kept: tuple[Seen, ...]) -> None:
        with self._lock:
            self._ring = deque(kept, maxlen=CALLS_KEPT)

    def latest(self) -> list[dict[str, Any]]:
        """Newest first."""
        with self._lock:
            return [asdict(seen) for seen in reversed(self._ring)]
