"""What moves jobs on: a thread while the org's clock runs, else the calls themselves, step by step.

Without a thread everything happens inside calls, in one order, so that a simulation with a stopped clock is the same
each time. Steps are taken in the order of their moments, whatever kind of job they belong to, and each reads the clock
at its own moment, however late the call that carries it out.
"""

from __future__ import annotations

import math
import sys
import threading
import traceback
from datetime import UTC, datetime
from typing import Protocol

from dinmo_dbt.emulator.bulk.job import Job, JobTable
from dinmo_dbt.emulator.bulk.pace import Pace
from dinmo_dbt.emulator.clock import Clock
from dinmo_dbt.emulator.errors import ApiError
from dinmo_dbt.emulator.store import Store

_LOOK_S = 1.0


class Work(Protocol):
    """One kind of job: `run` does what is left at the speed of real time, `step` does one thing."""

    pace: Pace

    def run(self, job: Job, halt: threading.Event) -> None: ...

    def step(self, job: Job) -> None: ...


class Worker:
    """The one that works on jobs. Every call `tend`s it; `wake` says that a job was closed."""

    def __init__(self, store: Store, jobs: JobTable, clock: Clock, kinds: dict[str, Work], pace: Pace) -> None:
        self._store = store
        self._jobs = jobs
        self._clock = clock
        self._kinds = kinds
        self._news = threading.Event()  # there may be a step to take before `_next_at`
        self._halt = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._next_at = 0.0
        self._sweep_at = jobs.sweep()
        self.pace = pace
        self.tend()

    @property
    def pace(self) -> Pace:
        return self._pace

    @pace.setter
    def pace(self, pace: Pace) -> None:
        self._pace = pace
        for kind in self._kinds.values():
            kind.pace = pace

    def wake(self) -> None:
        self._news.set()

    def tend(self) -> None:
        """Carry out what is due, or see that the thread does. Raises when that thread died."""
        if self._closed:
            return
        if self._jobs.now() >= self._sweep_at:
            self._sweep_at = self._jobs.sweep()
        thread = self._thread
        if self._by_thread() and thread is not None and thread.is_alive():
            return
        with self._lock:  # another call may stop or start the clock meanwhile, and does it then
            if self._closed:
                return
            if self._by_thread():
                self._see_to_thread()
                return
            self._end_thread()
            if self.pace.by == "time":
                self._catch_up()

    def _by_thread(self) -> bool:
        return self.pace.by == "time" and not self._clock.stopped

    def polled(self, kind: str, job_id: str) -> None:
        """A look at a job's info: by poll, it goes one step on."""
        if self.pace.by != "poll" or self._closed:
            return
        with self._lock:
            job = self._jobs.load(self._store.reading(), job_id, kind)
            if job.state in ("UploadComplete", "InProgress") and job.due <= self._jobs.now():
                self._kinds[kind].step(job)

    def rest(self) -> None:
        """Stop after the step in hand; the next `tend` goes on with whatever jobs there are then."""
        with self._lock:
            self._end_thread()
            self._next_at = self._sweep_at = 0.0

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._end_thread()

    def _see_to_thread(self) -> None:
        if self._thread is None:
            self._halt = threading.Event()
            self._thread = threading.Thread(target=self._work, args=(self._halt,), name="emulator-jobs", daemon=True)
            self._thread.start()
        elif not self._thread.is_alive():
            raise ApiError(500, "UNKNOWN_EXCEPTION", "The emulator's job worker stopped: its stderr says why")

    def _end_thread(self) -> None:
        if self._thread is not None:
            self._halt.set()
            self._news.set()
            self._thread.join(timeout=60.0)
            self._thread = None
            self._next_at = 0.0

    def _catch_up(self) -> None:
        """All steps whose moment has come. Ends: each step brings a job nearer to its end, retries are bounded."""
        now = self._jobs.now()
        while self._news.is_set() or now >= self._next_at:
            self._news.clear()
            job = self._jobs.waiting(self._store.reading())
            self._next_at = job.due if job is not None else math.inf
            if job is None or job.due > now:
                continue
            with self._clock.at(datetime.fromtimestamp(job.due, UTC)):
                self._kinds[job.kind].step(job)

    def _work(self, halt: threading.Event) -> None:
        while not halt.is_set():
            self._news.clear()
            job = self._jobs.waiting(self._store.reading())
            left = job.due - self._jobs.now() if job is not None else _LOOK_S
            if job is None or left > 0:
                self._news.wait(timeout=min(left, _LOOK_S))
                continue
            try:
                self._kinds[job.kind].run(job, halt)
            except Exception:
                traceback.print_exc(file=sys.stderr)
                raise
