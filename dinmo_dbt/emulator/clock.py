"""The org's time: real time, moved by an offset, or standing still until it is moved."""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from dinmo_dbt.emulator.errors import EmulatorError

SPAN_MAX_S = 100 * 365 * 86_400.0
_FIRST, _LAST = datetime(1970, 1, 1, tzinfo=UTC), datetime(4000, 1, 1, tzinfo=UTC)  # no record can be newer


def span(seconds: float, what: str) -> float:
    """The seconds as given, if they are a time from now that a clock can reach: 0 to 100 years."""
    if not math.isfinite(seconds) or not 0 <= seconds <= SPAN_MAX_S:
        raise EmulatorError(f"{what} go from 0 to {SPAN_MAX_S:.0f}, not {seconds}")
    return seconds


class Clock:
    """Call it for the moment, in UTC. Stopped, it moves only by `advance` and `set`; else it runs from there on."""

    def __init__(self, stopped_at: datetime | None = None) -> None:
        self._lock = threading.Lock()
        self._local = threading.local()
        self._stopped_at = stopped_at.astimezone(UTC) if stopped_at is not None else None
        self._offset = timedelta()
        self.moved: Callable[[], None] = lambda: None  # called after each change

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

    def text(self) -> str:
        """How the clock goes, to keep: `kept` reads it back in another process."""
        with self._lock:
            stopped = self._stopped_at.isoformat() if self._stopped_at is not None else None
            return json.dumps({"stopped_at": stopped, "offset_s": self._offset.total_seconds()})

    @classmethod
    def kept(cls, text: str) -> Clock:
        read = json.loads(text)
        clock = cls(datetime.fromisoformat(read["stopped_at"]) if read["stopped_at"] else None)
        clock._offset = timedelta(seconds=read["offset_s"])
        return clock

    def become(self, text: str) -> None:
        """Go as the clock of that `text` went: stand where it stood, or run with its distance from real time."""
        other = Clock.kept(text)
        with self._lock:
            self._stopped_at, self._offset = other._stopped_at, other._offset
        self.moved()

    def advance(self, seconds: float) -> None:
        """Move by `seconds`, backwards too: jobs then wait until their moment comes again."""
        span(abs(seconds), "clock: seconds, forwards or backwards,")
        with self._lock:
            self._move(self._now() + timedelta(seconds=seconds))
        self.moved()

    def wait(self, seconds: float) -> None:
        """Let so much time pass: stopped, the clock is advanced at once; else the caller sleeps."""
        if self.stopped:
            self.advance(seconds)
        else:
            time.sleep(seconds)

    def set(self, moment: datetime) -> None:
        """Move to that moment, from 1970 to 4000."""
        with self._lock:
            self._move(moment)
        self.moved()

    def stop(self) -> None:
        """Stand still at this moment."""
        with self._lock:
            self._stopped_at = self._now()
        self.moved()

    def run(self) -> None:
        """Go on from the moment it stood at."""
        with self._lock:
            if self._stopped_at is not None:
                self._offset = self._stopped_at - datetime.now(UTC)
                self._stopped_at = None
        self.moved()

    def _now(self) -> datetime:
        return self._stopped_at if self._stopped_at is not None else datetime.now(UTC) + self._offset

    def _move(self, moment: datetime) -> None:
        if not _FIRST <= moment < _LAST:
            raise EmulatorError(f"clock: goes from {_FIRST.year} to {_LAST.year}, not to {moment.isoformat()}")
        moment = moment.astimezone(UTC)
        if self._stopped_at is not None:
            self._stopped_at = moment
        else:
            self._offset = moment - datetime.now(UTC)
