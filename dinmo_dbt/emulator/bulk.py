"""Bulk API 2.0 ingest: the life of a job, its batches, its result files.

A job is worked through in batches of 10,000 rows by one worker thread; each batch's records and its row
outcomes are one transaction, so a killed server goes on where it stopped and writes no batch twice. Only
outcomes are stored: result files are made from the upload when they are asked for, their rows in an order
that is not the upload's. Source: Bulk API 2.0 Developer Guide; wire reference §3.
"""

from __future__ import annotations

import codecs
import json
import random
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dinmo_dbt.emulator import csvtext
from dinmo_dbt.emulator.bulkcolumns import Plan, Target, given_cells, plan_columns, refuse_ids
from dinmo_dbt.emulator.csvtext import DELIMITERS, LINE_ENDINGS, CsvError, Layout
from dinmo_dbt.emulator.errors import ApiError, not_found
from dinmo_dbt.emulator.org import Column, Operation, Org, Outcome, Work
from dinmo_dbt.emulator.query import csv_text
from dinmo_dbt.emulator.rules import Errors, Origin, convert
from dinmo_dbt.emulator.schema import NUMBER_TYPES, SObject
from dinmo_dbt.emulator.store import Store, stamp

BATCH_ROWS = 10_000
UPLOAD_BYTES_MAX = 104_857_600  # 150 MB in base64 leaves 100 MB of CSV; whether MB or MiB is unverified
MULTIPART_CHARS_MAX = 100_000
_LIST_ROWS = 1000
_OPERATIONS = ("insert", "update", "upsert", "delete")
_FINISHED = ("JobComplete", "Failed", "Aborted")
_COLUMNS = (
    "number, kind, object, operation, external_id, query, delimiter, line_ending, api_version, state, created, "
    "changed, uploaded, layout, processed, failed, error, total_ms, active_ms, assignment_rule, retries"
)
Result = Literal["successfulresults", "failedresults", "unprocessedrecords"]


@dataclass(frozen=True, slots=True)
class Job:
    """One row of the job table."""

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


@dataclass(frozen=True, slots=True)
class _Block:
    """One batch, ready to be written: `ids` is the text of its Id column where that finds the records."""

    work: Work
    ids: pa.Array | None
    spent_s: float


def load_job(db: sqlite3.Connection, number: int | None, kind: str) -> Job:
    """The job, or Salesforce's 404."""
    row = None
    if number is not None:
        sql = f"SELECT {_COLUMNS} FROM job WHERE number = ? AND kind = ?"
        row = db.execute(sql, (number, kind)).fetchone()
    if row is None:
        raise not_found()
    return Job(*row)


class Ingest:
    """The ingest jobs of one org. Methods answer requests; `run_next` is called by the worker thread."""

    def __init__(
        self, store: Store, org: Org, clock: Callable[[], datetime], *, batch_delay_s: float,
        wake: Callable[[], None],
    ) -> None:  # fmt: skip
        self._store = store
        self._org = org
        self._clock = clock
        self._batch_delay_s = batch_delay_s
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
        delimiter, ending = spec.get("columnDelimiter", "COMMA"), spec.get("lineEnding", "LF")
        if spec.get("contentType", "CSV") != "CSV":
            raise ApiError(400, "INVALIDJOB", f"InvalidJob : Unsupported content type: {spec['contentType']}")
        if delimiter not in DELIMITERS or ending not in LINE_ENDINGS:
            raise ApiError(
                400, "INVALIDJOB", f"InvalidJob : Unknown columnDelimiter {delimiter} or lineEnding {ending}"
            )
        external_id = self._external_id(sobject, operation, spec.get("externalIdFieldName"))
        with self._store.writing() as db:
            now = stamp(self._clock())
            row = db.execute(
                "INSERT INTO job (kind, object, operation, external_id, delimiter, line_ending, api_version, state, "
                "created, changed, assignment_rule) VALUES ('ingest', ?, ?, ?, ?, ?, ?, 'Open', ?, ?, ?) "
                "RETURNING number",
                (sobject.name, operation, external_id, delimiter, ending, version, now, now,
                 spec.get("assignmentRuleId")),
            ).fetchone()  # fmt: skip
            job = load_job(db, row[0], "ingest")
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
        return self._full(self._load(self._store.reading(), job_id))

    def listing(self, base: str, locator: str | None, kind: str | None) -> dict[str, Any]:
        """Up to 1000 jobs, newest first."""
        if kind not in (None, "V2Ingest"):
            return {"done": True, "records": [], "nextRecordsUrl": None}
        skip = int(locator) if locator and locator.isdigit() else 0
        rows = self._store.reading().execute(
            f"SELECT {_COLUMNS} FROM job WHERE kind = 'ingest' ORDER BY number DESC LIMIT ? OFFSET ?",
            (_LIST_ROWS + 1, skip),
        ).fetchall()  # fmt: skip
        more = len(rows) > _LIST_ROWS
        url = f"{base}/jobs/ingest?queryLocator={skip + _LIST_ROWS}" if more else None
        records = [{**self._head(j), "jobType": "V2Ingest"} for j in (Job(*r) for r in rows[:_LIST_ROWS])]
        return {"done": not more, "records": records, "nextRecordsUrl": url}

    def upload(self, job_id: str, body: BinaryIO, charset: str) -> None:
        """Store the job's data, streamed to disk. Once per job, only while it is open."""
        job = self._load(self._store.reading(), job_id)
        self._must_be_open(job)
        path = self._path(job.number)
        partial = path.with_suffix(f".{threading.get_ident()}.part")
        try:
            _save_utf8(body, partial, charset)
            with self._store.writing() as db:
                self._must_be_open(load_job(db, job.number, "ingest"))
                partial.replace(path)
                db.execute(
                    "UPDATE job SET uploaded = 1, changed = ? WHERE number = ?", (stamp(self._clock()), job.number)
                )
        finally:
            partial.unlink(missing_ok=True)

    def _must_be_open(self, job: Job) -> None:
        if job.state != "Open" or job.uploaded:
            # Code and text of a second upload are unverified.
            raise ApiError(400, "INVALIDJOBSTATE", "Found data already uploaded or the job is not open")

    def change_state(self, job_id: str, state: Any) -> dict[str, Any]:
        """PATCH: UploadComplete or Aborted."""
        with self._store.writing() as db:
            job = self._load(db, job_id)
            if state == "Aborted":
                if job.state in _FINISHED:
                    raise ApiError(400, "INVALIDJOBSTATE", f"Aborting already {_spoken(job.state)} Job not allowed")
            elif state == "UploadComplete":
                if job.state != "Open":  # text unverified
                    raise ApiError(400, "INVALIDJOBSTATE", f"The job is {job.state}: it can't be closed")
            else:
                raise ApiError(400, "INVALIDJOBSTATE", f"The job state can't be set to {state}")
            _set_state(db, job.number, state, stamp(self._clock()))
            job = load_job(db, job.number, "ingest")
        self._wake()
        return self._head(job)

    def delete(self, job_id: str) -> None:
        with self._store.writing() as db:
            job = self._load(db, job_id)
            if job.state not in ("UploadComplete", *_FINISHED):
                message = "Error encountered when deleting the job because the job is not terminated"
                raise ApiError(400, "API_ERROR", message)
            db.execute("DELETE FROM job WHERE number = ?", (job.number,))
            db.execute("DELETE FROM job_batch WHERE job = ?", (job.number,))
        self._path(job.number).unlink(missing_ok=True)

    def results(self, job_id: str, which: Result) -> Iterator[bytes]:
        """A result file, piece by piece. An unfinished job is refused (status unverified)."""
        job = self._load(self._store.reading(), job_id)
        if job.state not in _FINISHED:
            raise ApiError(400, "INVALIDJOBSTATE", "The job is not finished: results are not available yet")
        if which == "unprocessedrecords":
            return self._unprocessed(job)
        return self._outcomes(job, which == "successfulresults")

    def run_next(self, stopping: Callable[[], bool]) -> bool:
        """Work through the oldest closed job; False if there is none."""
        row = self._store.reading().execute(
            f"SELECT {_COLUMNS} FROM job WHERE kind = 'ingest' AND state IN ('UploadComplete', 'InProgress') "
            "ORDER BY number LIMIT 1"
        ).fetchone()  # fmt: skip
        if row is None:
            return False
        self._run(Job(*row), stopping)
        return True

    def _run(self, job: Job, stopping: Callable[[], bool]) -> None:
        started = time.monotonic()
        with self._store.writing() as db:
            if load_job(db, job.number, "ingest").state not in ("UploadComplete", "InProgress"):
                return
            _set_state(db, job.number, "InProgress", stamp(self._clock()))
        try:
            if not self._run_batches(job, stopping):
                return
        except CsvError as error:
            self._finish(job, "Failed", started, str(error))
        except ApiError as error:
            self._finish(job, "Failed", started, f"InvalidBatch : {error.body[0]['message']}")
        else:
            self._finish(job, "JobComplete", started, None)

    def _run_batches(self, job: Job, stopping: Callable[[], bool]) -> bool:
        """Every batch not done yet, the next one read and converted while this one is written.

        False when the server stops or the job was aborted.
        """
        layout = self._layout(job)
        plan = self._plan(job, layout)
        sql = "SELECT batch FROM job_batch WHERE job = ?"
        done = {r[0] for r in self._store.reading().execute(sql, (job.number,))}
        left = [b for b in range(layout.batches) if b not in done]
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="emulator-csv") as reader:
            ahead = [reader.submit(self._prepare, job, layout, plan, b) for b in left[:1]]
            for place, batch in enumerate(left):
                block = ahead.pop().result()
                ahead += [reader.submit(self._prepare, job, layout, plan, b) for b in left[place + 1 : place + 2]]
                if stopping() or not self._write(job, plan, batch, block):
                    return False
                if self._batch_delay_s:
                    time.sleep(self._batch_delay_s)
        return True

    def _finish(self, job: Job, state: str, started: float, error: str | None) -> None:
        with self._store.writing() as db:
            if load_job(db, job.number, "ingest").state != "InProgress":
                return
            total = int((time.monotonic() - started) * 1000)
            db.execute(
                "UPDATE job SET state = ?, changed = ?, error = ?, total_ms = total_ms + ? WHERE number = ?",
                (state, stamp(self._clock()), error, total, job.number),
            )

    def _layout(self, job: Job) -> Layout:
        """The upload's header and batches, found once and kept."""
        if job.layout is not None:
            kept = json.loads(job.layout)
            return Layout(tuple(kept["header"]), tuple(kept["offsets"]))
        if not job.uploaded:  # closing a job without data: the reply is unverified
            raise CsvError("InvalidBatch : Failed to parse CSV. The job has no data")
        layout = csvtext.scan(
            self._path(job.number), delimiter=DELIMITERS[job.delimiter], line_ending=job.line_ending,
            batch_rows=BATCH_ROWS,
        )  # fmt: skip
        text = json.dumps({"header": layout.header, "offsets": layout.offsets})
        with self._store.writing() as db:
            db.execute("UPDATE job SET layout = ? WHERE number = ?", (text, job.number))
        return layout

    def _plan(self, job: Job, layout: Layout) -> Plan:
        return plan_columns(
            self._org, self._sobject(job), layout.header, operation=job.operation, external_id=job.external_id
        )

    def _prepare(self, job: Job, layout: Layout, plan: Plan, batch: int) -> _Block:
        """One batch read and converted; touches no record."""
        begun = time.monotonic()
        with self._path(job.number).open("rb") as file:
            texts = csvtext.read(
                file, layout.offsets[batch], layout.offsets[batch + 1], width=len(layout.header),
                delimiter=DELIMITERS[job.delimiter],
            )  # fmt: skip
        ids = None
        columns: list[Column] = []
        for place, (target, text) in enumerate(zip(plan.columns, texts, strict=True)):
            cell, given = given_cells(text)
            if target is None:
                ids = cell
            else:
                columns.append(Column(target[0], cell, given, target[1], Origin(place)))
        work = self._org.prepare(self._store.table(self._sobject(job)), columns, len(texts[0]) if texts else 0)
        by_id = job.operation in ("update", "delete") or (job.operation == "upsert" and plan.key is None)
        if ids is not None and not by_id:
            refuse_ids(work, ids)
            ids = None
        return _Block(work, ids, time.monotonic() - begun)

    def _write(self, job: Job, plan: Plan, batch: int, block: _Block) -> bool:
        """One batch's records and outcomes in one transaction; False when the job was aborted meanwhile."""
        begun = time.monotonic()
        operation: Operation = job.operation  # type: ignore[assignment]  # checked at create
        with self._store.writing() as db:
            if load_job(db, job.number, "ingest").state != "InProgress":
                return False
            outcome = self._org.apply(db, operation, block.work, ids=block.ids, key=plan.key)
            db.execute(
                "INSERT INTO job_batch (job, batch, outcome) VALUES (?, ?, ?)",
                (job.number, batch, _pack(outcome)),
            )
            spent = max(1, int((block.spent_s + time.monotonic() - begun) * 1000))
            db.execute(
                "UPDATE job SET processed = processed + ?, failed = failed + ?, active_ms = active_ms + ?, changed = ? "
                "WHERE number = ?",
                (block.work.count, len(outcome.errors), spent, stamp(self._clock()), job.number),
            )
        return True

    def _outcomes(self, job: Job, wanted_good: bool) -> Iterator[bytes]:
        if job.layout is None:  # failed before the header was read
            return
        layout = self._layout(job)
        delimiter, line_end = DELIMITERS[job.delimiter], LINE_ENDINGS[job.line_ending]
        second = "sf__Created" if wanted_good else "sf__Error"
        yield csvtext.header_line(["sf__Id", second], list(layout.header), delimiter=delimiter, line_end=line_end)
        rows = self._store.reading().execute(
            "SELECT batch, outcome FROM job_batch WHERE job = ?", (job.number,)
        ).fetchall()  # fmt: skip
        if not rows:
            return
        plan = self._plan(job, layout)
        # Salesforce promises no order; the shuffle is the job's own, so that two downloads agree.
        shuffle = random.Random(job.number)
        shuffle.shuffle(rows)
        with self._path(job.number).open("rb") as file:
            for batch, packed in rows:
                rids, created, errors = _unpack(packed)
                good = errors.is_null().to_numpy(zero_copy_only=False)
                chosen = np.flatnonzero(good if wanted_good else ~good)
                if not len(chosen):
                    continue
                order = np.random.default_rng([job.number, batch]).permutation(chosen)
                texts = csvtext.read(
                    file, layout.offsets[batch], layout.offsets[batch + 1], width=len(layout.header),
                    delimiter=delimiter,
                )  # fmt: skip
                taken = pa.array(order)
                ids = self._store.codec.encode_many(np.where(rids[order] > 0, rids[order], -1))
                extra = pc.if_else(created.take(taken), "true", "false") if wanted_good else errors.take(taken)
                columns = [pc.fill_null(ids, ""), extra]
                for name, target, text in zip(layout.header, plan.columns, texts, strict=True):
                    columns.append(self._echo(name, target, text.take(taken)))
                yield csvtext.rows(columns, delimiter=delimiter, line_end=line_end)

    def _echo(self, name: str, target: Target, text: pa.Array) -> pa.Array:
        """A value as result files repeat it: numbers, booleans and times in stored form, the rest as sent.

        A header whose case is not the API name's loses its values (known issue a028c00000gAyI4AAK).
        """
        if target is None or target[1] is not None:
            return text
        field = target[0]
        if name != field.name:
            return pa.array([""] * len(text), pa.string())
        if field.type not in NUMBER_TYPES and field.type not in ("boolean", "datetime", "date", "int"):
            return text
        cell, _ = given_cells(text)
        errors: Errors = {}
        stored = csv_text(self._store, field, convert(field, cell, Origin(0), errors).to_pylist())
        kept = cell.is_null().to_numpy(zero_copy_only=False).copy()
        kept[list(errors)] = True
        return pc.if_else(pa.array(kept), text, stored)

    def _unprocessed(self, job: Job) -> Iterator[bytes]:
        if not job.uploaded:
            return
        path = self._path(job.number)
        if job.layout is None or not self._store.reading().execute(
            "SELECT 1 FROM job_batch WHERE job = ? LIMIT 1", (job.number,)
        ).fetchone():  # fmt: skip
            if job.state == "JobComplete":
                yield csvtext.header_line(
                    [], list(self._layout(job).header), delimiter=DELIMITERS[job.delimiter],
                    line_end=LINE_ENDINGS[job.line_ending],
                )  # fmt: skip
                return
            with path.open("rb") as file:
                yield from iter(lambda: file.read(1 << 20), b"")
            return
        layout = self._layout(job)
        yield csvtext.header_line(
            [], list(layout.header), delimiter=DELIMITERS[job.delimiter], line_end=LINE_ENDINGS[job.line_ending]
        )
        done = {r[0] for r in self._store.reading().execute("SELECT batch FROM job_batch WHERE job = ?", (job.number,))}
        with path.open("rb") as file:
            for batch in range(layout.batches):
                if batch not in done:
                    file.seek(layout.offsets[batch])
                    yield file.read(layout.offsets[batch + 1] - layout.offsets[batch])

    def _load(self, db: sqlite3.Connection, job_id: str) -> Job:
        return load_job(db, self._store.job_number(job_id), "ingest")

    def _sobject(self, job: Job) -> SObject:
        sobject = self._org.schema.get(job.object)
        if sobject is None:
            raise CsvError(f"InvalidBatch : the object {job.object} is no longer in the schema")
        return sobject

    def _path(self, number: int) -> Path:
        return self._store.jobs_folder / f"{number}.csv"

    def _content_url(self, job: Job) -> str:
        return f"services/data/v{job.api_version}/jobs/ingest/{self._store.job_id(job.number)}/batches"

    def _head(self, job: Job) -> dict[str, Any]:
        head: dict[str, Any] = {
            "id": self._store.job_id(job.number), "operation": job.operation, "object": job.object,
            "createdById": self._store.codec.encode(self._store.user_rid),
            "createdDate": f"{job.created}.000+0000", "systemModstamp": f"{job.changed}.000+0000",
            "state": job.state,
        }  # fmt: skip
        if job.external_id is not None:
            head["externalIdFieldName"] = job.external_id
        head |= {"concurrencyMode": "Parallel", "contentType": "CSV", "apiVersion": float(job.api_version)}
        if job.assignment_rule is not None:
            head["assignmentRuleId"] = job.assignment_rule
        return head

    def _full(self, job: Job) -> dict[str, Any]:
        full = self._head(job)
        if job.state == "Open":
            full["contentUrl"] = self._content_url(job)
        full |= {
            "jobType": "V2Ingest", "lineEnding": job.line_ending, "columnDelimiter": job.delimiter,
            "numberRecordsProcessed": job.processed, "numberRecordsFailed": job.failed, "retries": job.retries,
            "totalProcessingTime": job.total_ms, "apiActiveProcessingTime": job.active_ms,
            "apexProcessingTime": 0,
        }  # fmt: skip
        if job.error is not None:
            full["errorMessage"] = job.error
        return full


def _spoken(state: str) -> str:
    return "Completed" if state == "JobComplete" else state


def _set_state(db: sqlite3.Connection, number: int, state: str, now: str) -> None:
    db.execute("UPDATE job SET state = ?, changed = ? WHERE number = ?", (state, now, number))


def _pack(outcome: Outcome) -> bytes:
    texts: list[str | None] = [None] * len(outcome.rids)
    for row, errors in outcome.errors.items():
        # How Salesforce joins several errors of one row is unverified.
        texts[row] = " ".join(e.bulk_text() for e in errors)
    batch = pa.record_batch(
        [pa.array(outcome.rids), pa.array(outcome.created), pa.array(texts, pa.string())],
        names=["rid", "created", "error"],
    )
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_batch(batch)
    return sink.getvalue().to_pybytes()  # type: ignore[no-any-return]


def _unpack(packed: bytes) -> tuple[Any, pa.Array, pa.Array]:
    batch = pa.ipc.open_stream(packed).read_next_batch()
    return batch.column(0).to_numpy(), batch.column(1), batch.column(2)


def _save_utf8(body: BinaryIO, path: Path, charset: str) -> None:
    """Stream a request body to `path`, recoded to UTF-8 where its charset is another."""
    try:
        decoder = None if codecs.lookup(charset).name == "utf-8" else codecs.getincrementaldecoder(charset)()
    except LookupError as error:
        raise ApiError(415, "UNSUPPORTED_MEDIA_TYPE", f"Unknown charset: {charset}") from error
    size = 0
    with path.open("wb") as file:
        for block in iter(lambda: body.read(1 << 20), b""):
            size += len(block)
            if size > UPLOAD_BYTES_MAX:  # code and status unverified
                message = f"ClientInputError : the data is larger than {UPLOAD_BYTES_MAX} bytes"
                raise ApiError(413, "CLIENTINPUTERROR", message)
            try:
                file.write(block if decoder is None else decoder.decode(block).encode())
            except UnicodeDecodeError as error:
                raise ApiError(400, "CLIENTINPUTERROR", f"The data is not {charset}") from error
