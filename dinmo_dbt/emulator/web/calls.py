"""The last calls of the API, for a look inside: never a token, a query or a value of a record."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import asdict, dataclass, replace
from typing import Any

CALLS_KEPT = 200


@dataclass(frozen=True, slots=True)
class Seen:
    """One call. `path` is the route's, with ids and names but without record values; `ms` is 0 on a stopped clock.

    `agent` is the client's User-Agent. `session` numbers the sessions in the order of their first calls, and `nth` the
    session's calls; both are None outside a session.
    """

    time: str
    method: str
    path: str
    name: str
    status: int
    ms: int
    fault: str | None
    agent: str
    session: int | None = None
    nth: int | None = None


@dataclass(frozen=True, slots=True)
class Kept:
    """The last calls at a moment, oldest first, and each session's number and calls by its token."""

    ring: tuple[Seen, ...]
    sessions: dict[str, tuple[int, int]]


class Calls:
    """A ring of the last 200 calls, filled by any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ring: deque[Seen] = deque(maxlen=CALLS_KEPT)
        self._sessions: dict[str, tuple[int, int]] = {}

    def add(self, seen: Seen, token: str | None) -> None:
        """Note a call, in the session of a token that was found good."""
        with self._lock:
            if token is not None:
                number, calls = self._sessions.get(token, (len(self._sessions) + 1, 0))
                self._sessions[token] = number, calls + 1
                seen = replace(seen, session=number, nth=calls + 1)
            self._ring.append(seen)

    def kept(self) -> Kept:
        """What was seen, to go back to."""
        with self._lock:
            return Kept(tuple(self._ring), dict(self._sessions))

    def restore(self, kept: Kept) -> None:
        with self._lock:
            self._ring = deque(kept.ring, maxlen=CALLS_KEPT)
            self._sessions = dict(kept.sessions)

    def latest(self) -> list[dict[str, Any]]:
        """Newest first."""
        with self._lock:
            return [asdict(seen) for seen in reversed(self._ring)]
