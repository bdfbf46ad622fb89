"""The calls on ingest jobs of Bulk API 2.0: create, upload, close, abort, look, delete, results.

Source: Bulk API 2.0 Developer Guide; wire reference §3.1 to §3.8.
"""

from __future__ import annotations

import codecs
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO, Literal

from dinmo_dbt.emulator.bulk.csvtext import DELIMITERS, LINE_ENDINGS
from dinmo_dbt.emulator.bulk.job import Job, JobTable
from dinmo_dbt.emulator.bulk.processing import Processing
from dinmo_dbt.emulator.bulk.results import Results
from dinmo_dbt.emulator.errors import ApiError, not_found
from dinmo_dbt.emulator.faults.armed import Faults
from dinmo_dbt.emulator.limits import Usage
from dinmo_dbt.emulator.records.engine import Org
from dinmo_dbt.emulator.schema.definitions import SObject
from dinmo_dbt.emulator.store import Store, stamp

_OPERATIONS = ("insert", "update", "upsert", "delete")
Result = Literal["successfulresults", "failedresults", "unprocessedrecords"]


class Ingest:
    """The ingest jobs of one org, as requests see them."""

    def __init__(
        self, store: Store, org: Org, jobs: JobTable, processing: Processing, results: Results, *,
        faults: Faults, usage: Usage, wake: Callable[[], None],
    ) -> None:  # fmt: skip
        self._store = store
        self._org = org
        self._jobs = jobs
        self._processing = processing
        self._results = results
        self._faults = faults
        self._usage = usage
        self._wake = wake

    def create(self, spec: dict[str, Any], version: str) -> dict[str, Any]:
        """Open a job: the create reply, keys in Salesforce's order."""
        operation = spec.get("operation")
        if operation == "hardDelete":
            raise ApiError(400, "FEATURENOTENABLED", "hardDelete needs the Bulk API Hard Delete permission")
        if operation not in _OPERATIONS:
            raise ApiError(400, "INVALIDJOB", f"InvalidJob : Unknown operation: {operation}")
        sobject = self._org.schema.get(str(spec.get("object", "")))
        if sobject is None or not (sobject.createable or sobject.updateable):
            name = spec.get("object")
            # The reply for an object that does not exist is unverified.
            raise ApiError(400, "INVALIDENTITY", f"Entity '{name}' is not supported by the Bulk API")
        if spec.get("contentType", "CSV") != "CSV":
            raise ApiError(400, "INVALIDJOB", f"InvalidJob : Unsupported content type: {spec['contentType']}")
        delimiter, ending = dialect(spec)
        external_id = self._external_id(sobject, operation, spec.get("externalIdFieldName"))
        self._usage.begin_ingest_job()
        with self._store.writing() as db:
            now = stamp(self._org.clock())
            row = db.execute(
                "INSERT INTO job (kind, object, operation, external_id, delimiter, line_ending, api_version, state, "
                "created, changed, assignment_rule) VALUES ('ingest', ?, ?, ?, ?, ?, ?, 'Open', ?, ?, ?) "
                "RETURNING number",
                (sobject.name, operation, external_id, delimiter, ending, version, now, now,
                 spec.get("assignmentRuleId")),
            ).fetchone()  # fmt: skip
            job = self._jobs.load(db, self._store.codec.job_id(row[0]), "ingest")
        return {
            **self._head(job), "contentUrl": self._content_url(job), "lineEnding": job.line_ending,
            "columnDelimiter": job.delimiter,
        }  # fmt: skip

    def _external_id(self, sobject: SObject, operation: str, name: Any) -> str | None:
        if operation != "upsert":
            return None
        field = sobject.field(str(name or ""))
        if field is None or not field.id_lookup:
            raise ApiError(
                400, "INVALIDJOB",
                f"InvalidJob : Field name provided, {name} does not match an External ID, Salesforce Id, or indexed "
                f"field for {sobject.name}",
            )  # fmt: skip
        return field.name

    def info(self, job_id: str) -> dict[str, Any]:
        return self._full(self._load(job_id))

    def listing(self, base: str, locator: str | None, kind: str | None, *, chunked: bool = False) -> dict[str, Any]:
        """Up to 1000 jobs, newest first. Bulk 2.0 ingest jobs are the only ones here; none has PK chunking."""
        if kind not in (None, "V2Ingest") or chunked:
            return {"done": True, "records": [], "nextRecordsUrl": None}
        jobs, left = self._jobs.page("ingest", locator)
        url = f"{base}/jobs/ingest?queryLocator={left}" if left else None
        return {"done": left is None, "records": [self._listed(job) for job in jobs], "nextRecordsUrl": url}

    def upload(self, job_id: str, body: BinaryIO, charset: str) -> None:
        """Store the job's data, streamed to disk. Once per job, only while it is open."""
        job = self._load(job_id)
        _must_be_open(job)
        path = self._jobs.upload_path(job.number)
        partial = path.with_suffix(f".{threading.get_ident()}.part")
        try:
            _save_utf8(body, partial, charset, self._usage.limits.upload_bytes)
            with self._store.writing() as db:
                _must_be_open(self._jobs.load(db, job_id, "ingest"))
                partial.replace(path)
                self._jobs.change(db, job, uploaded=1)
        finally:
            partial.unlink(missing_ok=True)

    def change_state(self, job_id: str, state: Any) -> dict[str, Any]:
        """PATCH: UploadComplete or Aborted."""
        with self._store.writing() as db:
            job = self._jobs.load(db, job_id, "ingest")
            if state == "Aborted":
                if job.finished:
                    raise ApiError(400, "INVALIDJOBSTATE", f"Aborting already {_spoken(job.state)} Job not allowed")
                job = self._jobs.change(db, job, state="Aborted")
            elif state == "UploadComplete":
                if job.state != "Open":  # text unverified
                    raise ApiError(400, "INVALIDJOBSTATE", f"The job is {job.state}: it can't be closed")
                fate = self._faults.fate_of_job(job.number, job.object, job.operation)
                stuck_s = fate.stuck_s if fate is not None and fate.stuck == "UploadComplete" else 0.0
                job = self._jobs.change(
                    db, job, state="UploadComplete", fate=json.dumps(asdict(fate)) if fate is not None else None,
                    due=self._jobs.now() + self._processing.pace.queue_s + stuck_s,
                )  # fmt: skip
            else:
                raise ApiError(400, "INVALIDJOBSTATE", f"The job state can't be set to {state}")
        self._wake()
        return self._head(job)

    def delete(self, job_id: str) -> None:
        with self._store.writing() as db:
            job = self._jobs.load(db, job_id, "ingest")
            if job.state != "UploadComplete" and not job.finished:
                message = "Error encountered when deleting the job because the job is not terminated"
                raise ApiError(400, "API_ERROR", message)
            self._jobs.delete(db, job.number)
        self._jobs.discard(job.number)

    def results(self, job_id: str, which: Result) -> Iterator[bytes]:
        """A result file, piece by piece. An unfinished job is refused (status unverified)."""
        job = self._load(job_id)
        if job.expired:
            raise not_found()
        if not job.finished:
            raise ApiError(400, "INVALIDJOBSTATE", "The job is not finished: results are not available yet")
        if which == "unprocessedrecords":
            return self._results.unprocessed(job)
        return self._results.outcomes(job, good=which == "successfulresults")

    def _load(self, job_id: str) -> Job:
        return self._jobs.load(self._store.reading(), job_id, "ingest")

    def _content_url(self, job: Job) -> str:
        return f"services/data/v{job.api_version}/jobs/ingest/{self._store.codec.job_id(job.number)}/batches"

    def _head(self, job: Job) -> dict[str, Any]:
        head = self._jobs.head(job)
        if job.assignment_rule is not None:
            head["assignmentRuleId"] = job.assignment_rule
        return head

    def _listed(self, job: Job) -> dict[str, Any]:
        listed = self._head(job)
        if job.state == "Open":
            listed["contentUrl"] = self._content_url(job)
        return listed | {"jobType": "V2Ingest", "lineEnding": job.line_ending, "columnDelimiter": job.delimiter}

    def _full(self, job: Job) -> dict[str, Any]:
        full = self._listed(job) | {
            "numberRecordsProcessed": job.processed, "numberRecordsFailed": job.failed, "retries": job.retries,
            "totalProcessingTime": job.total_ms, "apiActiveProcessingTime": job.active_ms,
            "apexProcessingTime": 0,
        }  # fmt: skip
        if job.error is not None:
            full["errorMessage"] = job.error
        return full


def dialect(spec: dict[str, Any]) -> tuple[str, str]:
    """A job's columnDelimiter and lineEnding by name."""
    delimiter, ending = spec.get("columnDelimiter", "COMMA"), spec.get("lineEnding", "LF")
    if delimiter not in DELIMITERS or ending not in LINE_ENDINGS:
        message = f"InvalidJob : Unknown columnDelimiter {delimiter} or lineEnding {ending}"
        raise ApiError(400, "INVALIDJOB", message)
    return delimiter, ending


def _must_be_open(job: Job) -> None:
    if job.state != "Open" or job.uploaded:
        # Code and text of a second upload are unverified.
        raise ApiError(400, "INVALIDJOBSTATE", "Found data already uploaded or the job is not open")


def _spoken(state: str) -> str:
    return "Completed" if state == "JobComplete" else state


def _save_utf8(body: BinaryIO, path: Path, charset: str, bytes_max: int) -> None:
    """Stream a request body to `path`, recoded to UTF-8 where its charset is another."""
    try:
        decoder = None if codecs.lookup(charset).name == "utf-8" else codecs.getincrementaldecoder(charset)()
    except LookupError as error:
        raise ApiError(415, "UNSUPPORTED_MEDIA_TYPE", f"Unknown charset: {charset}") from error
    size = 0
    with path.open("wb") as file:
        for block in iter(lambda: body.read(1 << 20), b""):
            size += len(block)
            if size > bytes_max:  # code and status unverified
                raise ApiError(413, "CLIENTINPUTERROR", f"ClientInputError : the data is larger than {bytes_max} bytes")
            try:
                file.write(block if decoder is None else decoder.decode(block).encode())
            except UnicodeDecodeError as error:
                raise ApiError(400, "CLIENTINPUTERROR", f"The data is not {charset}") from error
