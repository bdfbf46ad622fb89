"""Working through an ingest job: its batches of 10,000 rows, one transaction each, and how it ends.

A batch's records and its row outcomes are one transaction, so a killed server goes on where it stopped and writes
no batch twice. `run` does all that is left, reading the next batch while one is written; `step` does one thing.
Source: Bulk API 2.0 Developer Guide; wire reference §3.4, §3.5.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext

from dinmo_dbt.emulator.bulk.columns import Plan
from dinmo_dbt.emulator.bulk.contention import Wave
from dinmo_dbt.emulator.bulk.csvtext import CsvError, Layout
from dinmo_dbt.emulator.bulk.job import Job, JobTable
from dinmo_dbt.emulator.bulk.outcomes import pack
from dinmo_dbt.emulator.bulk.pace import Pace
from dinmo_dbt.emulator.bulk.uploads import BATCH_ROWS, Block, Uploads
from dinmo_dbt.emulator.errors import ApiError
from dinmo_dbt.emulator.faults.armed import Faults
from dinmo_dbt.emulator.limits import Usage
from dinmo_dbt.emulator.records.engine import Operation, Org
from dinmo_dbt.emulator.records.locks import LOCKED
from dinmo_dbt.emulator.records.work import Outcome
from dinmo_dbt.emulator.store import Store

# Times a batch is put back before its job fails: 20 in the v66 guide, 10 in older ones.
PUT_BACK_MAX = 20


class _PutBack(Exception):
    """The batch met locked records: nothing of it stays, it is tried again."""


class Processing:
    """The work on ingest jobs. One thread at a time calls `run` or `step`."""

    def __init__(
        self, store: Store, org: Org, jobs: JobTable, uploads: Uploads, *, faults: Faults, usage: Usage, pace: Pace
    ) -> None:  # fmt: skip
        self._store = store
        self._org = org
        self._jobs = jobs
        self._uploads = uploads
        self._faults = faults
        self._usage = usage
        self.pace = pace

    def run(self, job: Job, halt: threading.Event) -> None:
        """Everything that is left of the job at the speed of real time; less when halted or when it gets stuck."""
        if job.state == "UploadComplete":
            begun = self._begin(job, pause_s=0.0)
            if begun is None or begun.due > self._jobs.now():
                return
            job = begun
        started = time.monotonic()
        self._ending(job, lambda: self._run_batches(job, halt), lambda: int((time.monotonic() - started) * 1000))

    def step(self, job: Job) -> None:
        """One step of the job: begin, one batch, or the end. Takes no real time into account."""
        if job.state == "UploadComplete":
            self._begin(job, pause_s=self.pace.batch_s)
        else:
            self._ending(job, lambda: self._one_batch(job), lambda: 0)

    def _begin(self, job: Job, *, pause_s: float) -> Job | None:
        fate = job.fate
        with self._store.writing() as db:
            if self._jobs.reload(db, job).state != "UploadComplete":
                return None
            stuck_s = fate.stuck_s if fate.stuck == "InProgress" else 0.0
            return self._jobs.change(db, job, state="InProgress", due=max(job.due, 0.0) + pause_s + stuck_s)

    def _ending(self, job: Job, work: Callable[[], bool], spent_ms: Callable[[], int]) -> None:
        """Do the work, and finish the job if that was the last of it or if it can't go on."""
        try:
            if not work():
                return
        except CsvError as error:
            self._finish(job, "Failed", str(error), spent_ms())
        except ApiError as error:
            self._finish(job, "Failed", f"InvalidBatch : {error.body[0]['message']}", spent_ms())
        else:
            fate = self._reached(job)
            if fate is None:
                self._finish(job, "JobComplete", None, spent_ms())
            else:
                message = job.fate.message or "InternalServerError : The job failed"  # ours: a fault's default
                self._finish(job, fate, message if fate == "Failed" else job.fate.message, spent_ms())

    def _reached(self, job: Job) -> str | None:
        """The state a fault ends the job in, if the job is long enough for it."""
        fate = job.fate
        kept = fate.kept_rows
        if kept is None:
            return None
        now = self._jobs.get(self._store.reading(), job.number)
        return fate.end if now is not None and now.processed >= kept and self._uploads.has_more(job, kept) else None

    def _finish(self, job: Job, state: str, error: str | None, spent_ms: int) -> None:
        with self._store.writing() as db:
            current = self._jobs.reload(db, job)
            if current.state == "InProgress":
                total = current.total_ms + spent_ms
                self._jobs.change(db, job, state=state, error=error, total_ms=total)

    def _run_batches(self, job: Job, halt: threading.Event) -> bool:
        """Every batch not done yet, the next one read and converted while this one is written.

        False when halted or the job was aborted.
        """
        prepare = self._uploads.prepare
        layout = self._uploads.layout(job)
        plan = self._uploads.plan(job, layout)
        left = self._left(job, layout)
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="emulator-csv") as reader:
            ahead = [reader.submit(prepare, job, layout, plan, b) for b in left[:1]]
            for place, batch in enumerate(left):
                block = ahead.pop().result()
                ahead += [reader.submit(prepare, job, layout, plan, b) for b in left[place + 1 : place + 2]]
                done = False
                while not done:
                    if halt.is_set():
                        return False
                    before = self._jobs.reload(self._store.reading(), job)
                    if before.state != "InProgress":
                        return False
                    done = self._write(before, layout, plan, batch, block, pause_s=None)
                    if not done:
                        block = prepare(job, layout, plan, batch)
                if self.pace.batch_s:
                    halt.wait(self.pace.batch_s)
        return True

    def _one_batch(self, job: Job) -> bool:
        """The next batch; True when there is none left to do."""
        layout = self._uploads.layout(job)
        plan = self._uploads.plan(job, layout)
        left = self._left(job, layout)
        if left:
            block = self._uploads.prepare(job, layout, plan, left[0])
            # The end comes at the moment of the last batch.
            pause_s = self.pace.batch_s if len(left) > 1 else 0.0
            self._write(job, layout, plan, left[0], block, pause_s=pause_s)
        return not left

    def _left(self, job: Job, layout: Layout) -> list[int]:
        """The batches to do, without those behind the row where a fault ends the job."""
        sql = "SELECT batch FROM job_batch WHERE job = ?"
        done = {r[0] for r in self._store.reading().execute(sql, (job.number,))}
        batches = layout.batches
        kept = job.fate.kept_rows
        if kept is not None:
            batches = min(batches, -(-kept // BATCH_ROWS))
        return [b for b in range(batches) if b not in done]

    def _write(self, job: Job, layout: Layout, plan: Plan, batch: int, block: Block, *, pause_s: float | None) -> bool:
        """One batch's records and outcomes in one transaction; False when the batch was put back.

        `pause_s` is the time to the next step; without one the batch takes real time, which is measured.
        """
        begun = time.monotonic()
        if job.attempt < job.fate.retries and job.processed == 0:
            self._put_back(job)
            return False
        if not self._usage.take_batch(block.work.count):
            raise CsvError("ExceededQuota : ApiBatchItems Limit exceeded.")  # text unverified
        wave = Wave(self.pace, batch)
        for earlier in wave.earlier:
            wave.claim(self._uploads.prepare(job, layout, plan, earlier).work)
        operation: Operation = job.operation  # type: ignore[assignment]  # checked at create
        faults = self._faults
        source = faults.source("ingest.rows", job.number, batch * BATCH_ROWS) if faults.on_rows else nullcontext()
        try:
            with self._store.writing() as db, source:
                if self._jobs.reload(db, job).state != "InProgress":
                    return True
                wave.refuse(block.work, self._org, db, job.number)
                outcome = self._org.apply(db, operation, block.work, ids=block.ids, key=plan.key)
                if job.attempt < self.pace.lock_retries and not wave.clashed and _met_locks(outcome):
                    raise _PutBack
                db.execute(
                    "INSERT INTO job_batch (job, batch, outcome) VALUES (?, ?, ?)", (job.number, batch, pack(outcome))
                )
                timed = pause_s is None
                spent = max(1, int((block.spent_s + time.monotonic() - begun) * 1000)) if timed else self._step_ms()
                self._jobs.change(
                    db, job, processed=job.processed + block.work.count, failed=job.failed + len(outcome.errors),
                    active_ms=job.active_ms + spent, total_ms=job.total_ms + (0 if timed else spent),
                    **({} if timed and not job.attempt else {"attempt": 0, "due": job.due + (pause_s or 0.0)}),
                )  # fmt: skip
        except _PutBack:
            self._put_back(job)
            return False
        return True

    def _put_back(self, job: Job) -> None:
        if job.attempt >= PUT_BACK_MAX:
            raise CsvError("TooManyLockFailure : Too many lock failure 200 Trying again later.")  # as users quote it
        with self._store.writing() as db:
            due = job.due + self.pace.batch_s
            self._jobs.change(db, job, retries=job.retries + 1, attempt=job.attempt + 1, due=due)

    def _step_ms(self) -> int:
        return int(self.pace.batch_s * 1000)


def _met_locks(outcome: Outcome) -> bool:
    return any(error.code == LOCKED for errors in outcome.errors.values() for error in errors)
