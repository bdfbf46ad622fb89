"""The job table: ingest and query jobs, how long they last on the org's clock, and their words in JSON.

Results and jobs live 7 days after the job's end; an open job loses its data after 24 hours. Both are read off the
clock by each look at a job, so they hold whatever moves the clock; `sweep` only takes the rows and files away.
Source: Bulk API 2.0 Developer Guide; wire reference §3.3, §3.4.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from dinmo_dbt.emulator.errors import not_found
from dinmo_dbt.emulator.faults.fate import Fate
from dinmo_dbt.emulator.store import Store, stamp

FINISHED = ("JobComplete", "Failed", "Aborted")
KEPT = timedelta(days=7)
OPEN_MAX = timedelta(hours=24)
LIST_ROWS = 1000
_TIMED_OUT = "Timeout : The job was open for more than 24 hours"  # state and text unverified
_COLUMNS = (
    "number, kind, object, operation, external_id, query, delimiter, line_ending, api_version, state, created, "
    "changed, uploaded, layout, processed, failed, error, total_ms, active_ms, assignment_rule, retries, "
    "coalesce(due, 0.0), coalesce(attempt, 0), fate, coalesce(expired, 0)"
)
_FROM = "FROM job LEFT JOIN job_life ON job_life.job = number"
_WAITING = "state IN ('UploadComplete', 'InProgress')"


@dataclass(frozen=True, slots=True)
class Job:
    """One row of the job table. `due` is the moment of its next step, in seconds since 1970 on the org's clock."""

    number: int
    kind: str
    object: str
    operation: str
    external_id: str | None
    query: str | None
    delimiter: str
    line_ending: str
    api_version: str
    state: str
    created: str
    changed: str
    uploaded: int
    layout: str | None
    processed: int
    failed: int
    error: str | None
    total_ms: int
    active_ms: int
    assignment_rule: str | None
    retries: int
    due: float
    attempt: int
    fate_json: str | None
    expired: int

    @property
    def finished(self) -> bool:
        return self.state in FINISHED

    @property
    def fate(self) -> Fate:
        return Fate(**json.loads(self.fate_json)) if self.fate_json else Fate()


class JobTable:
    """The jobs of one org. Each method takes the connection to work on: a reader's, or the caller's transaction."""

    def __init__(self, store: Store, clock: Callable[[], datetime]) -> None:
        self._store = store
        self._clock = clock

    def now(self) -> float:
        return self._clock().timestamp()

    def load(self, db: sqlite3.Connection, job_id: str, kind: str) -> Job:
        """The job of an id on the wire, or Salesforce's 404."""
        number = self._store.codec.job_number(job_id)
        job = self.get(db, number) if number is not None else None
        if job is None or job.kind != kind:
            raise not_found()
        return job

    def get(self, db: sqlite3.Connection, number: int) -> Job | None:
        row = db.execute(f"SELECT {_COLUMNS} {_FROM} WHERE number = ?", (number,)).fetchone()
        return self._aged(Job(*row)) if row is not None else None

    def waiting(self, db: sqlite3.Connection) -> Job | None:
        """The closed job whose next step comes first."""
        row = db.execute(f"SELECT {_COLUMNS} {_FROM} WHERE {_WAITING} ORDER BY due, number LIMIT 1").fetchone()
        return Job(*row) if row is not None else None

    def page(self, kind: str, locator: str | None) -> tuple[list[Job], str | None]:
        """Up to 1000 jobs, newest first, and the locator of the rest."""
        codec = self._store.codec
        before = codec.job_number((locator or "").partition("-")[0], "01g") or 1 << 62
        rows = self._store.reading().execute(
            f"SELECT {_COLUMNS} {_FROM} WHERE kind = ? AND number < ? ORDER BY number DESC LIMIT ?",
            (kind, before, LIST_ROWS + 1),
        ).fetchall()  # fmt: skip
        jobs = [Job(*row) for row in rows]
        left = f"{codec.job_id(jobs[LIST_ROWS - 1].number, '01g')}-{LIST_ROWS}" if len(jobs) > LIST_ROWS else None
        aged = (self._aged(job) for job in jobs[:LIST_ROWS])
        return [job for job in aged if job is not None], left

    def change(self, db: sqlite3.Connection, job: Job, **values: Any) -> Job:
        """Set columns of the job, and when it changed."""
        life = {k: values.pop(k) for k in ("due", "attempt", "fate", "expired") if k in values}
        values["changed"] = stamp(self._clock())
        sets = ", ".join(f"{name} = ?" for name in values)
        db.execute(f"UPDATE job SET {sets} WHERE number = ?", (*values.values(), job.number))
        if life:
            db.execute("INSERT OR IGNORE INTO job_life (job) VALUES (?)", (job.number,))
            sets = ", ".join(f"{name} = ?" for name in life)
            db.execute(f"UPDATE job_life SET {sets} WHERE job = ?", (*life.values(), job.number))
        return self.reload(db, job)

    def reload(self, db: sqlite3.Connection, job: Job) -> Job:
        row = db.execute(f"SELECT {_COLUMNS} {_FROM} WHERE number = ?", (job.number,)).fetchone()
        if row is None:
            raise not_found()
        return Job(*row)

    def delete(self, db: sqlite3.Connection, number: int) -> None:
        """Take the job and its outcomes away; its files go with `discard` once this is committed."""
        for table, column in (("job", "number"), ("job_batch", "job"), ("job_life", "job")):
            db.execute(f"DELETE FROM {table} WHERE {column} = ?", (number,))

    def lose(self, job_id: str, *, whole: bool) -> None:
        """Take a job away, or its results only, as if it were deleted or too old."""
        number = self._store.codec.job_number(job_id)
        with self._store.writing() as db:
            job = self.get(db, number) if number is not None else None
            if job is None or number is None:
                return
            if whole:
                self.delete(db, number)
            else:
                self.change(db, job, expired=1)
        if whole:
            self.discard(number)

    def discard(self, number: int) -> None:
        for path in (self.upload_path(number), self.rows_path(number)):
            path.unlink(missing_ok=True)

    def sweep(self) -> float:
        """Remove what ran out; the moment from which there may be more of it."""
        now = self._clock()
        finished, opened = stamp(now - KEPT), stamp(now - OPEN_MAX)
        old = "(state IN ('JobComplete', 'Failed', 'Aborted') AND changed <= ?1)"
        sql = f"SELECT number FROM job WHERE {old} OR (state = 'Open' AND created <= ?2)"
        gone = [row[0] for row in self._store.reading().execute(sql, (finished, opened))]
        if gone:
            with self._store.writing() as db:
                for number in gone:
                    job = self.get(db, number)
                    if job is None:
                        self.delete(db, number)
        for number in gone:
            self.discard(number)
        return (now + OPEN_MAX).timestamp()

    def upload_path(self, number: int) -> Path:
        return self._store.jobs_folder / f"{number}.csv"

    def rows_path(self, number: int) -> Path:
        return self._store.jobs_folder / f"{number}.arrow"

    def head(self, job: Job) -> dict[str, Any]:
        """What every reply about a job begins with, keys in Salesforce's order."""
        head: dict[str, Any] = {
            "id": self._store.codec.job_id(job.number), "operation": job.operation, "object": job.object,
            "createdById": self._store.codec.encode(self._store.user_rid),
            "createdDate": f"{job.created}.000+0000", "systemModstamp": f"{job.changed}.000+0000",
            "state": job.state,
        }  # fmt: skip
        if job.external_id is not None:
            head["externalIdFieldName"] = job.external_id
        return head | {"concurrencyMode": "Parallel", "contentType": "CSV", "apiVersion": float(job.api_version)}

    def _aged(self, job: Job) -> Job | None:
        """The job as it is now: gone after its 7 days, failed if it was left open."""
        now = self._clock()
        if job.state == "Open":
            end = _moment(job.created) + OPEN_MAX
            if now < end:
                return job
            job = replace(job, state="Failed", error=_TIMED_OUT, changed=stamp(end), uploaded=0)
        if job.finished and now >= _moment(job.changed) + KEPT:
            return None
        return job


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)
