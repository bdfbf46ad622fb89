"""Bulk API 2.0 query jobs: a SOQL statement run in the background, its rows kept as a file of text columns.

Source: Bulk API 2.0 Developer Guide, query jobs; wire reference §3.9.
"""

from __future__ import annotations

import base64
import binascii
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from dinmo_dbt.emulator import csvtext
from dinmo_dbt.emulator.bulk import Job, load_job
from dinmo_dbt.emulator.csvtext import DELIMITERS, LINE_ENDINGS
from dinmo_dbt.emulator.errors import ApiError
from dinmo_dbt.emulator.query import csv_columns, select_rids
from dinmo_dbt.emulator.soql import compile_query
from dinmo_dbt.emulator.store import Store, stamp

_FINISHED = ("JobComplete", "Failed", "Aborted")
_RESULT_ROWS = 250_000  # a page without maxRecords; Salesforce chooses by size
_LOCATOR = re.compile(r"\d+")


@dataclass(frozen=True, slots=True)
class ResultPage:
    """A page of a query's rows: CSV pieces and the two headers that go with them."""

    body: Iterator[bytes]
    locator: str
    rows: int


class QueryJobs:
    """The query jobs of one org. `run_next` is called by the worker thread."""

    def __init__(self, store: Store, clock: Callable[[], datetime], *, wake: Callable[[], None]) -> None:
        self._store = store
        self._clock = clock
        self._wake = wake

    def create(self, spec: dict[str, Any], version: str) -> dict[str, Any]:
        """Check and queue a statement; what Bulk can't run is refused here."""
        operation, text = spec.get("operation"), str(spec.get("query", ""))
        if operation not in ("query", "queryAll"):
            raise ApiError(400, "INVALIDJOB", f"InvalidJob : Unknown operation: {operation}")
        delimiter, ending = spec.get("columnDelimiter", "COMMA"), spec.get("lineEnding", "LF")
        if delimiter not in DELIMITERS or ending not in LINE_ENDINGS:
            raise ApiError(
                400, "INVALIDJOB", f"InvalidJob : Unknown columnDelimiter {delimiter} or lineEnding {ending}"
            )
        query = compile_query(self._store, text, everything=operation == "queryAll", clock=self._clock)
        if query.count is not None or query.offset:
            raise ApiError(400, "INVALIDJOB", "InvalidJob : Aggregates and OFFSET are not supported in Bulk Query")
        with self._store.writing() as db:
            now = stamp(self._clock())
            row = db.execute(
                "INSERT INTO job (kind, object, operation, query, delimiter, line_ending, api_version, state, created, "
                "changed) VALUES ('query', ?, ?, ?, ?, ?, ?, 'UploadComplete', ?, ?) RETURNING number",
                (query.table.sobject.name, operation, text, delimiter, ending, version, now, now),
            ).fetchone()
            job = load_job(db, row[0], "query")
        self._wake()
        return self._head(job)

    def info(self, job_id: str) -> dict[str, Any]:
        job = load_job(self._store.reading(), self._store.job_number(job_id), "query")
        return self._full(job)

    def listing(self) -> dict[str, Any]:
        numbers = self._store.reading().execute(
            "SELECT number FROM job WHERE kind = 'query' ORDER BY number DESC LIMIT 1000"
        ).fetchall()  # fmt: skip
        jobs = [load_job(self._store.reading(), n[0], "query") for n in numbers]
        return {"done": True, "records": [self._full(j) for j in jobs], "nextRecordsUrl": None}

    def change_state(self, job_id: str, state: Any) -> dict[str, Any]:
        with self._store.writing() as db:
            job = load_job(db, self._store.job_number(job_id), "query")
            if state != "Aborted":
                raise ApiError(400, "INVALIDJOBSTATE", f"The job state can't be set to {state}")
            if job.state in _FINISHED:
                raise ApiError(400, "INVALIDJOBSTATE", "Aborting already Completed Job not allowed")
            sql = "UPDATE job SET state = 'Aborted', changed = ? WHERE number = ?"
            db.execute(sql, (stamp(self._clock()), job.number))
            job = load_job(db, job.number, "query")
        return self._head(job)

    def delete(self, job_id: str) -> None:
        with self._store.writing() as db:
            job = load_job(db, self._store.job_number(job_id), "query")
            if job.state not in _FINISHED:
                message = "Error encountered when deleting the job because the job is not terminated"
                raise ApiError(400, "API_ERROR", message)
            db.execute("DELETE FROM job WHERE number = ?", (job.number,))
        self._path(job.number).unlink(missing_ok=True)

    def results(self, job_id: str, locator: str | None, rows_max: int | None) -> ResultPage:
        """Rows from the locator on. The locator of the last page is the string `null`."""
        job = load_job(self._store.reading(), self._store.job_number(job_id), "query")
        if job.state != "JobComplete":
            raise ApiError(400, "INVALIDJOBSTATE", "The job is not finished: results are not available yet")
        start = _start(locator)
        count = min(rows_max or _RESULT_ROWS, max(0, job.processed - start))
        end = start + count
        locator = _locator(end) if end < job.processed else "null"
        return ResultPage(self._lines(job, start, end), locator, count)

    def _lines(self, job: Job, start: int, end: int) -> Iterator[bytes]:
        delimiter, line_end = DELIMITERS[job.delimiter], LINE_ENDINGS[job.line_ending]
        with pa.memory_map(str(self._path(job.number))) as source:
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

    def run_next(self, stopping: Callable[[], bool]) -> bool:
        """Run the oldest waiting query; False if there is none. A killed one starts again."""
        row = self._store.reading().execute(
            "SELECT number FROM job WHERE kind = 'query' AND state IN ('UploadComplete', 'InProgress') "
            "ORDER BY number LIMIT 1"
        ).fetchone()  # fmt: skip
        if row is None:
            return False
        job = load_job(self._store.reading(), row[0], "query")
        started = time.monotonic()
        self._set(job, ("UploadComplete", "InProgress"), "InProgress", 0, None, started)
        try:
            count = self._execute(job, stopping)
        except ApiError as error:
            self._set(job, ("InProgress",), "Failed", 0, str(error.body[0]["message"]), started)
        else:
            if count is not None:
                self._set(job, ("InProgress",), "JobComplete", count, None, started)
        return True

    def _execute(self, job: Job, stopping: Callable[[], bool]) -> int | None:
        query = compile_query(self._store, job.query or "", everything=job.operation == "queryAll", clock=self._clock)
        rids = select_rids(self._store, query)
        schema = pa.schema([(".".join(i.path), pa.string()) for i in query.items])
        path = self._path(job.number)
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

    def _set(
        self, job: Job, before: tuple[str, ...], state: str, count: int, error: str | None, started: float
    ) -> None:
        spent = int((time.monotonic() - started) * 1000)
        with self._store.writing() as db:
            if load_job(db, job.number, "query").state in before:
                db.execute(
                    "UPDATE job SET state = ?, changed = ?, processed = ?, error = ?, total_ms = ? WHERE number = ?",
                    (state, stamp(self._clock()), count, error, spent, job.number),
                )

    def _path(self, number: int) -> Path:
        return self._store.jobs_folder / f"{number}.arrow"

    def _head(self, job: Job) -> dict[str, Any]:
        return {
            "id": self._store.job_id(job.number), "operation": job.operation, "object": job.object,
            "createdById": self._store.codec.encode(self._store.user_rid),
            "createdDate": f"{job.created}.000+0000", "systemModstamp": f"{job.changed}.000+0000",
            "state": job.state, "concurrencyMode": "Parallel", "contentType": "CSV",
            "apiVersion": float(job.api_version), "lineEnding": job.line_ending,
            "columnDelimiter": job.delimiter,
        }  # fmt: skip

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
