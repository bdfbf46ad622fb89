"""Who may be at work in the org: calls, many at a time, or one that wants it alone."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from dinmo_dbt.emulator.errors import EmulatorError

_WAIT_S = 10.0


class Gate:
    """`passing` is for calls. `alone` waits for those inside, at most 10 s, and holds the next ones back."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside = 0
        self._shut = False

    @contextmanager
    def passing(self) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: not self._shut)
            self._inside += 1
        try:
            yield
        finally:
            with self._changed:
                self._inside -= 1
                self._changed.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Raises EmulatorError, with nothing done, when calls do not end."""
        with self._changed:
            if not self._changed.wait_for(lambda: not self._shut, timeout=_WAIT_S):
                raise EmulatorError(f"the org was not free within {_WAIT_S:.0f} s")
            self._shut = True
            if not self._changed.wait_for(lambda: self._inside == 0, timeout=_WAIT_S):
                self._open()
                raise EmulatorError(f"calls did not end within {_WAIT_S:.0f} s")
        try:
            yield
        finally:
            with self._changed:
                self._open()

    def _open(self) -> None:
        self._shut = False
        self._changed.notify_all()
