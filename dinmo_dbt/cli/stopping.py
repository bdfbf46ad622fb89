"""SIGINT and SIGTERM during a command: the first asks it to stop within seconds, the second ends it at once.

Whatever the main thread is doing, a watching thread hears the signal by its wakeup file descriptor. Sleeps end at once;
a call to Salesforce or the warehouse that does not return is broken off after `BREAK_OFF_S`; and a process that still
runs after `END_S` is ended as a kill would end it, which the journal makes safe.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

from dinmo_dbt.errors import Interrupted

BREAK_OFF_S, END_S = 1.5, 4.0  # between the two there is time to write down what was broken off
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
# Where the main thread waits for somebody else, and nothing of ours is half done.
_WAITING = (
    "dinmo_dbt.salesforce",
    "dinmo_dbt.warehouse",
    "dinmo_dbt.dbt_cloud",
    "dinmo_dbt.channels",
    "dinmo_dbt.cli.embedded_org",
)
_WRITING = "dinmo_dbt.state"  # which may be in the warehouse: a write of it ends well, or with the process
_ASKED = b"asked to stop, within seconds; a second signal stops at once\n"
_ENDED = b"stopped at once; what was sent is journalled and settled by the next run\n"


class Stop:
    """While entered, in the main thread, the two signals ask to stop; elsewhere it does nothing. A signal that the
    process was started to ignore, as a shell's background jobs are, stays ignored. `number`: the signal; 0 for none."""

    def __init__(self, *, end_s: float = END_S) -> None:
        self.number = 0
        self.breaks: list[Callable[[], None]] = []  # what to call in a driver too, from another thread
        self._end_s = end_s
        self._over = threading.Event()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()  # held while the main thread is kicked, or gives its handlers back
        self._asked = threading.Event()
        self._answered = False
        self._before: dict[int, Any] = {}
        self._pipe: tuple[int, int] | None = None

    def __enter__(self) -> Stop:
        if threading.current_thread() is not threading.main_thread():
            return self
        self._pipe = os.pipe()
        os.set_blocking(self._pipe[1], False)
        heard = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
        self._before = {number: signal.signal(number, self._hear) for number in heard}
        self._before[signal.SIGALRM] = signal.signal(signal.SIGALRM, self._break_off)
        signal.set_wakeup_fd(self._pipe[1], warn_on_full_buffer=False)
        self._start(self._watch, self._pipe[0])
        return self

    def __exit__(self, *_: object) -> None:
        if self._pipe is None:
            return
        with self._lock:
            self._over.set()
        signal.set_wakeup_fd(-1)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        os.close(self._pipe[1])  # ends the watch, which closes the other end
        for thread in self._threads:  # one that lives when the process ends makes DuckDB's driver complain
            thread.join()

    def sleep(self, seconds: float) -> None:
        """Raises Interrupted, at once, when asked to stop; of 0 seconds it only asks."""
        self._asked.wait(seconds)
        if self._asked.is_set():
            # Another thread's answer says nothing of the main one, which may wait for somebody else.
            self._answered = self._answered or threading.current_thread() is threading.main_thread()
            raise Interrupted(self.number)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        """The watch has heard it."""

    def _break_off(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - the signal module's signature
        modules = []
        while frame is not None:
            modules.append(str(frame.f_globals.get("__name__", "")))
            frame = frame.f_back
        waits = any(name.startswith(_WAITING) for name in modules)
        if waits and not self._answered and not any(name.startswith(_WRITING) for name in modules):
            self._answered = True
            raise Interrupted(self.number)

    def _start(self, work: Callable[..., None], *arguments: int) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _watch(self, heard: int) -> None:
        with contextlib.closing(os.fdopen(heard, "rb", buffering=0)) as pipe:
            while signal := pipe.read(1):
                if signal[0] not in _SIGNALS:
                    continue
                if self._asked.is_set():
                    _end(self.number)
                self.number = signal[0]
                self._asked.set()
                _tell(_ASKED)
                self._start(self._see_to_it)

    def _see_to_it(self) -> None:
        """Break off what does not return, and end the process if even that does not help."""
        began = time.monotonic()
        while (waited := time.monotonic() - began) < self._end_s:
            if self._over.wait(0.1):
                return
            with self._lock:
                if waited >= BREAK_OFF_S and not self._answered and not self._over.is_set():
                    for each in list(self.breaks):
                        each()
                    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGALRM)
        _end(self.number)


def _end(number: int) -> None:
    _tell(_ENDED)
    os._exit(128 + number)


def _tell(line: bytes) -> None:
    """To stderr, past sys.stderr and only if there is room: the main thread may be stuck in writing to it."""
    with contextlib.suppress(OSError):
        if select.select([], [2], [], 0)[1]:
            os.write(2, line)
