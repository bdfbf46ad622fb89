"""Bulk API 2.0 query jobs: a SOQL statement run in the background, its rows kept as a file of text columns.

Source: Bulk API 2.0 Developer Guide, query jobs; wire reference §3.9.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import pyarrow as pa

from dinmo_dbt.emulator.bulk import csvtext
from dinmo_dbt.emulator.bulk.csvtext import DELIMITERS, LINE_ENDINGS
from dinmo_dbt.emulator.bulk.ingest import dialect
from dinmo_dbt.emulator.bulk.job import Job, JobTable
from dinmo_dbt.emulator.bulk.pace import Pace
from dinmo_dbt.emulator.errors import ApiError, not_found
from dinmo_dbt.emulator.faults.armed import Faults
from dinmo_dbt.emulator.limits import Usage
from dinmo_dbt.emulator.soql.run import compile_bulk, csv_columns, select_rids
from dinmo_dbt.emulator.store import Store, stamp

_RESULT_ROWS = 250_000  # a page without maxRecords; Salesforce chooses by size
_PAGES_MAX = 5  # "up to five URIs in one response"
_PAGES_SINCE = 58.0
_LOCATOR = re.compile(r"\d+")


@dataclass(frozen=True, slots=True)
class ResultPage:
    """A page of a query's rows: CSV pieces and the two headers that go with them."""

    body: Iterator[bytes]
    locator: str
    rows: int


class QueryJobs:
    """The query jobs of one org: their calls, and the work on them (`run`, `step`)."""

    def __init__(
        self, store: Store, clock: Callable[[], datetime], jobs: JobTable, *, faults: Faults, usage: Usage, pace: Pace,
        wake: Callable[[], None],
    ) -> None:  # fmt: skip
        self._store = store
        self._clock = clock
        self._jobs = jobs
        self._faults = faults
        self._usage = usage
        self.pace = pace
        self._wake = wake

    def create(self, spec: dict[str, Any], version: str) -> dict[str, Any]:
        """Check and queue a statement; what Bulk can't run is refused here."""
        operation, text = spec.get("operation"), str(spec.get("query", ""))
        if operation not in ("query", "queryAll"):
            raise ApiError(400, "INVALIDJOB", f"InvalidJob : Unknown operation: {operation}")
        delimiter, ending = dialect(spec)
        query = compile_bulk(self._store, text, everything=operation == "queryAll", clock=self._clock)
        self._usage.begin_query_job()
        with self._store.writing() as db:
            now = stamp(self._clock())
            row = db.execute(
                "INSERT INTO job (kind, object, operation, query, delimiter, line_ending, api_version, state, created, "
                "changed) VALUES ('query', ?, ?, ?, ?, ?, ?, 'UploadComplete', ?, ?) RETURNING number",
                (query.table.sobject.name, operation, text, delimiter, ending, version, now, now),
            ).fetchone()
            job = self._jobs.load(db, self._store.codec.job_id(row[0]), "query")
            fate = self._faults.fate_of_job(job.number, job.object, job.operation)
            stuck_s = fate.stuck_s if fate is not None and fate.stuck == "UploadComplete" else 0.0
            job = self._jobs.change(
                db, job, due=self._jobs.now() + self.pace.queue_s + stuck_s,
                fate=json.dumps(asdict(fate)) if fate is not None else None,
            )  # fmt: skip
        self._wake()
        return self._head(job)

    def info(self, job_id: str) -> dict[str, Any]:
        return self._full(self._load(job_id))

    def listing(self, base: str, locator: str | None, kind: str | None, *, chunked: bool = False) -> dict[str, Any]:
        """Up to 1000 jobs, newest first. Bulk 2.0 query jobs are the only ones here; none has PK chunking."""
        if kind not in (None, "V2Query") or chunked:
            return {"done": True, "records": [], "nextRecordsUrl": None}
        jobs, left = self._jobs.page("query", locator)
        url = f"{base}/jobs/query?queryLocator={left}" if left else None
        records = [{**self._head(job), "jobType": "V2Query"} for job in jobs]
        return {"done": left is None, "records": records, "nextRecordsUrl": url}

    def change_state(self, job_id: str, state: Any) -> dict[str, Any]:
        with self._store.writing() as db:
            job = self._jobs.load(db, job_id, "query")
            if state != "Aborted":
                raise ApiError(400, "INVALIDJOBSTATE", f"The job state can't be set to {state}")
            if job.finished:
                raise ApiError(400, "INVALIDJOBSTATE", "Aborting already Completed Job not allowed")
            job = self._jobs.change(db, job, state="Aborted")
        return self._head(job)

    def delete(self, job_id: str) -> None:
        with self._store.writing() as db:
            job = self._jobs.load(db, job_id, "query")
            if not job.finished:
                message = "Error encountered when deleting the job because the job is not terminated"
                raise ApiError(400, "API_ERROR", message)
            self._jobs.delete(db, job.number)
        self._jobs.discard(job.number)

    def results(self, job_id: str, version: str, locator: str | None, rows_max: int | None) -> ResultPage:
        """Rows from the locator on. The locator of the last page is the string `null`."""
        job = self._complete(job_id, version)
        start = _start(locator)
        count = min(rows_max or _RESULT_ROWS, max(0, job.processed - start))
        end = start + count
        locator = _locator(end) if end < job.processed else "null"
        return ResultPage(self._lines(job, start, end), locator, count)

    def result_pages(self, job_id: str, base: str, version: str, locator: str | None) -> dict[str, Any]:
        """Up to five URLs of results, to be read at one time.

        The keys are those of the guide ("Get Parallel Results for a Query Job"); unverified: a client's author saw
        `resultChunks` and `resultLink` (node-sf-bulk2, pull request 35).
        """
        job = self._complete(job_id, version)
        if float(version) < _PAGES_SINCE:
            raise not_found()
        start = _start(locator)
        starts = list(range(start, max(job.processed, 1), _RESULT_ROWS))
        path = f"{base}/jobs/query/{self._store.codec.job_id(job.number)}"
        pages = [{"resultUrl": f"{path}/results?locator={_locator(s)}"} for s in starts[:_PAGES_MAX]]
        left = starts[_PAGES_MAX:]
        url = f"{path}/resultPages?locator={_locator(left[0])}" if left else None
        return {"resultPages": pages, "nextRecordsUrl": url, "done": not left}

    def _complete(self, job_id: str, version: str) -> Job:
        """A job whose rows can be read, by the API version that made it; another is 409 (code and text unverified)."""
        job = self._load(job_id)
        if job.expired:
            raise not_found()
        if job.api_version != version:
            raise ApiError(409, "API_ERROR", f"The job was created with API version {job.api_version}")
        if job.state != "JobComplete":
            raise ApiError(400, "INVALIDJOBSTATE", "The job is not finished: results are not available yet")
        return job

    def _lines(self, job: Job, start: int, end: int) -> Iterator[bytes]:
        delimiter, line_end = DELIMITERS[job.delimiter], LINE_ENDINGS[job.line_ending]
        with pa.memory_map(str(self._jobs.rows_path(job.number))) as source:
            reader = pa.ipc.open_file(source)
            # Every value is quoted, the header's too (recorded exports of `sf data export bulk`).
            yield csvtext.header_line(reader.schema.names, [], delimiter=delimiter, line_end=line_end)
            position = 0
            for number in range(reader.num_record_batches):
                batch = reader.get_batch(number)
                low, high = max(start - position, 0), min(end - position, len(batch))
                if low < high:
                    part = batch.slice(low, high - low)
                    yield csvtext.rows(part.columns, delimiter=delimiter, line_end=line_end)
                position += len(batch)

    def run(self, job: Job, halt: threading.Event) -> None:
        """Everything that is left. A killed one starts again."""
        begun = self._begin(job, pause_s=0.0)
        if begun is not None and begun.due <= self._jobs.now():
            self._work(begun, halt.is_set, timed=True)

    def step(self, job: Job) -> None:
        """Begin, or do all the rest: a query is one batch."""
        if job.state == "UploadComplete":
            self._begin(job, pause_s=self.pace.batch_s)
        else:
            self._work(job, lambda: False, timed=False)

    def _begin(self, job: Job, *, pause_s: float) -> Job | None:
        with self._store.writing() as db:
            current = self._jobs.reload(db, job)
            if current.state != "UploadComplete":
                return current if current.state == "InProgress" else None
            stuck_s = job.fate.stuck_s if job.fate.stuck == "InProgress" else 0.0
            return self._jobs.change(db, current, state="InProgress", due=current.due + pause_s + stuck_s)

    def _work(self, job: Job, stopping: Callable[[], bool], *, timed: bool) -> None:
        started = time.monotonic()
        state, count, error = "JobComplete", 0, None
        if job.fate.end is not None:  # a query has no rows of its own to keep: it ends before the first
            state, error = job.fate.end, job.fate.message
        else:
            try:
                done = self._execute(job, stopping)
            except ApiError as refused:
                state, error = "Failed", str(refused.body[0]["message"])
            else:
                if done is None:
                    return
                count = done
        spent = int((time.monotonic() - started if timed else self.pace.batch_s) * 1000)
        with self._store.writing() as db:
            if self._jobs.reload(db, job).state == "InProgress":
                retries = min(job.fate.retries, 15)  # a query is retried 15 times
                self._jobs.change(
                    db, job, state=state, processed=count, error=error, total_ms=spent, retries=retries
                )  # fmt: skip

    def _execute(self, job: Job, stopping: Callable[[], bool]) -> int | None:
        query = compile_bulk(self._store, job.query or "", everything=job.operation == "queryAll", clock=self._clock)
        rids = select_rids(self._store, query)
        schema = pa.schema([(".".join(i.path), pa.string()) for i in query.items])
        path = self._jobs.rows_path(job.number)
        partial = path.with_suffix(".part")
        count = 0
        with pa.OSFile(str(partial), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
            for columns in csv_columns(self._store, query, rids):
                if stopping():
                    return None
                writer.write_batch(pa.record_batch(columns, schema=schema))
                count += len(columns[0]) if columns else 0
        partial.replace(path)
        return count

    def _load(self, job_id: str) -> Job:
        return self._jobs.load(self._store.reading(), job_id, "query")

    def _head(self, job: Job) -> dict[str, Any]:
        return self._jobs.head(job) | {"lineEnding": job.line_ending, "columnDelimiter": job.delimiter}

    def _full(self, job: Job) -> dict[str, Any]:
        full = {
            **self._head(job), "jobType": "V2Query", "numberRecordsProcessed": job.processed,
            "retries": job.retries, "totalProcessingTime": job.total_ms, "isPkChunkingSupported": True,
        }  # fmt: skip
        if job.error is not None:
            full["errorMessage"] = job.error
        return full


def _locator(start: int) -> str:
    return base64.urlsafe_b64encode(str(start).encode()).decode().rstrip("=")


def _start(locator: str | None) -> int:
    if not locator or locator == "null":
        return 0
    try:
        text = base64.urlsafe_b64decode(locator + "=" * (-len(locator) % 4)).decode()
    except (binascii.Error, UnicodeDecodeError, ValueError) as error:
        raise ApiError(400, "INVALID_QUERY_LOCATOR", "invalid query locator") from error
    if _LOCATOR.fullmatch(text) is None:
        raise ApiError(400, "INVALID_QUERY_LOCATOR", "invalid query locator")
    return int(text)
