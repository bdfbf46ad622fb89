"""The org's time: real time, moved by an offset, or standing still until it is moved."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta


class Clock:
    """Call it for the moment, in UTC. Stopped, it moves only by `advance` and `set`; else it runs from there on."""

    def __init__(self, stopped_at: datetime | None = None) -> None:
        self._lock = threading.Lock()
        self._local = threading.local()
        self._stopped_at = stopped_at.astimezone(UTC) if stopped_at is not None else None
        self._offset = timedelta()

    def __call__(self) -> datetime:
        moment: datetime | None = getattr(self._local, "moment", None)
        if moment is not None:
            return moment
        with self._lock:
            return self._now()

    @property
    def stopped(self) -> bool:
        return self._stopped_at is not None

    @contextmanager
    def at(self, moment: datetime) -> Iterator[None]:
        """Inside, this thread reads that moment: what is carried out late happens when it was due."""
        self._local.moment = moment.astimezone(UTC)
        try:
            yield
        finally:
            self._local.moment = None

    def advance(self, seconds: float) -> None:
        """Move by `seconds`, backwards too."""
        with self._lock:
            self._move(self._now() + timedelta(seconds=seconds))

    def set(self, moment: datetime) -> None:
        with self._lock:
            self._move(moment.astimezone(UTC))

    def stop(self) -> None:
        """Stand still at this moment."""
        with self._lock:
            self._stopped_at = self._now()

    def run(self) -> None:
        """Go on from the moment it stood at."""
        with self._lock:
            if self._stopped_at is not None:
                self._offset = self._stopped_at - datetime.now(UTC)
                self._stopped_at = None

    def _now(self) -> datetime:
        return self._stopped_at if self._stopped_at is not None else datetime.now(UTC) + self._offset

    def _move(self, moment: datetime) -> None:
        if self._stopped_at is not None:
            self._stopped_at = moment
        else:
            self._offset = moment - datetime.now(UTC)
