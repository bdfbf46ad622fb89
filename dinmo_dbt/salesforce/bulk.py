"""Bulk API 2.0: ingest jobs, their result files, and query jobs (Bulk API 2.0 Developer Guide).

A job does nothing before `close`, so everything up to it may be given up and begun again with a new job. A doubtful
upload is never repeated on the same job: what the org would do with a second PUT is documented only as "refused".
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from dinmo_dbt.codes import QUERY_FAILED, RESULTS_UNREADABLE
from dinmo_dbt.destination import Batch, Job, ListedJob, Operation
from dinmo_dbt.errors import DestinationError, NotApplied, OutcomeUnknown
from dinmo_dbt.salesforce import encode, results
from dinmo_dbt.salesforce.client import Client
from dinmo_dbt.salesforce.errors import SalesforceRefusal
from dinmo_dbt.salesforce.hosts import checked_id, checked_path
from dinmo_dbt.salesforce.request import FILE_BYTES_MAX, CallEffect, Request
from dinmo_dbt.salesforce.scratch import scratch_file

RESULT_READS_MAX = 5
GONE_ASKED = 3
LIST_PAGES_MAX = 50  # of 1,000 jobs
MADE_ROWS_MAX = 200_000  # no job of ours has more
QUERY_POLLS_MAX = 2_000
QUERY_PAGES_MAX = 10_000
_POLL_FIRST_S = 0.2
_POLL_MAX_S = 10.0
_PAGE_ROWS = 100_000
_MORE_ROWS = 100
_ROW_BYTES = 4_096


def create_job(client: Client, batch: Batch) -> str:
    """Open an ingest job; its id. A reply lost leaves at most an empty job that does nothing."""
    body = {
        "object": batch.object,
        "operation": batch.operation.value,
        "contentType": "CSV",
        "columnDelimiter": "COMMA",
        "lineEnding": "LF",
    }
    if batch.operation is Operation.UPSERT:
        assert batch.match is not None
        body["externalIdFieldName"] = batch.match
    return _new_job(client, "jobs/ingest", body)


def upload(client: Client, job_id: str, batch: Batch, *, scratch: Path) -> None:
    """PUT the batch as CSV. NotApplied after any fault: abort the job and open another."""
    with scratch_file(scratch) as file:
        size = encode.write_csv(batch, file)
        if size > encode.FILE_BYTES_MAX:
            raise AssertionError(f"a batch of {size} bytes: plan cuts at {encode.FILE_BYTES_MAX}")
        client.call(
            Request(
                "PUT",
                f"jobs/ingest/{checked_id(job_id)}/batches",
                CallEffect.STAGES,
                body=file,
                content_type="text/csv; charset=UTF-8",
                holds_values=True,
            )
        )


def close(client: Client, job_id: str) -> None:
    """PATCH UploadComplete: the commit point. Fine if the job is closed already; OutcomeUnknown: ask `job`."""
    try:
        _set_state(client, job_id, "UploadComplete")
    except SalesforceRefusal:
        found = job(client, job_id)
        if found is None or found.is_open or found.state == "Aborted":
            raise


def abort(client: Client, job_id: str) -> None:
    """PATCH Aborted: after it the job writes nothing more. Fine if the job has ended, or is unknown to the org."""
    try:
        _set_state(client, job_id, "Aborted")
    except SalesforceRefusal:
        found = job(client, job_id)
        if found is not None and not found.is_terminal:
            raise


def job(client: Client, job_id: str) -> Job | None:
    """The job's state; None if the org no longer knows it, and says so several times: one 404 may be a gateway's, and a
    job taken for gone while it runs would be sent again beside it, or its rows called doubtful for good."""
    for asked in range(GONE_ASKED):
        if asked:
            client.rest(_POLL_FIRST_S * 4**asked)
        try:
            info = client.get(f"jobs/ingest/{checked_id(job_id)}", is_whole=_is_job)
        except SalesforceRefusal as refusal:
            if refusal.status != 404:
                raise
        else:
            return _job_of(job_id, info)
    return None


def _job_of(job_id: str, info: dict[str, Any]) -> Job:
    error = info.get("errorMessage")
    return Job(
        id=job_id,
        state=info["state"],
        processed=_count(info.get("numberRecordsProcessed")),
        failed=_count(info.get("numberRecordsFailed")),
        error=error if isinstance(error, str) else "",
    )


def list_jobs(client: Client) -> list[ListedJob] | None:
    """The ingest jobs of Bulk API 2.0 that this user may see ("Get Information About All Jobs"): the org keeps each for
    7 days. None if the user may list none."""
    found: dict[str, ListedJob] = {}
    path, params = "jobs/ingest", {"jobType": "V2Ingest"}
    for _ in range(LIST_PAGES_MAX):
        try:
            page = client.get(path, params or None, is_whole=_is_listing)
        except SalesforceRefusal as refusal:
            if refusal.status in (403, 404):
                return None
            raise
        found |= {listed.id: listed for listed in map(_listed, page["records"]) if listed}
        if page.get("done") is not False or not page.get("nextRecordsUrl"):
            break
        path, params = checked_path(page["nextRecordsUrl"]), {}
    return list(found.values())


def _listed(info: dict[str, object]) -> ListedJob | None:
    """A job of Bulk API 2.0; None for the other kinds, which the filter does not always keep out."""
    if info.get("jobType", "V2Ingest") != "V2Ingest":
        return None
    texts = {name: str(info.get(name) or "") for name in ("operation", "object", "state", "createdDate", "createdById")}
    as_ours = (info.get("columnDelimiter", "COMMA"), info.get("lineEnding", "LF")) == ("COMMA", "LF")
    return ListedJob(
        checked_id(info["id"]),
        texts["operation"],
        texts["object"],
        texts["state"],
        texts["createdDate"],
        texts["createdById"],
        str(info.get("apiVersion")),
        as_ours,
    )


def made_by(
    client: Client, job_id: str, names: Collection[str], *, scratch: Path, sleep: Callable[[float], None]
) -> pa.Table | None:
    """The successful rows of a terminal job, as its own counters have them; None if the org does not give them."""
    found = job(client, job_id)
    if found is None:
        return None
    if found.processed > MADE_ROWS_MAX:
        return results.nothing_made()
    rows_max = 2 * found.processed + _MORE_ROWS
    names = {results.RECORD_ID, *names}
    for read in range(RESULT_READS_MAX):
        try:
            rows = _read_file(client, job_id, "successfulResults", scratch, FILE_BYTES_MAX, rows_max, names)
        except results.UnreadableFile:
            rows = None
        except SalesforceRefusal as refusal:
            if refusal.status not in (400, 403, 404):
                raise
            return None if found.processed > found.failed else results.nothing_made()
        if rows is not None and rows.num_rows >= found.processed - found.failed:
            return rows if results.RECORD_ID in rows.column_names else results.nothing_made()
        sleep(min(_POLL_MAX_S, _POLL_FIRST_S * 4**read))
    raise OutcomeUnknown(
        RESULTS_UNREADABLE,
        f"the result file of job {job_id} stays incomplete after {RESULT_READS_MAX} reads",
        hint="run sync again: it reads it once more",
    )


def read_results(
    client: Client, job_id: str, batch: Batch, *, scratch: Path, sleep: Callable[[float], None]
) -> pa.Table | None:
    """`RESULTS` of a terminal job for each batch row; read again while a file is short of the job's own counters.

    None if the org has the job or its results no longer: it keeps both for 7 days.
    """
    found = job(client, job_id)
    if found is None:
        return None
    assert found.is_terminal, f"job {job_id} is {found.state}"
    reason = ""
    for read in range(RESULT_READS_MAX):
        last = read == RESULT_READS_MAX - 1
        try:
            files = _read_files(client, job_id, batch, scratch)
        except results.UnreadableFile as fault:
            reason = f"unreadable: {fault}"
        except SalesforceRefusal as refusal:
            if refusal.status != 404:
                raise
            if last:
                return None
        else:
            reason = _shortfall(found, files)
            written = files.succeeded.num_rows + files.failed.num_rows
            touched = written > 0 or found.processed > 0
            # Rows of an untouched job need not be listed: an upload that never landed has none.
            complete = files.rows >= batch.rows.num_rows or (not touched and files.rows == 0)
            if not reason and (complete or last):
                return results.join(batch, files, touched=touched, job_error=found.error)
        if not last:
            sleep(min(_POLL_MAX_S, _POLL_FIRST_S * 4**read))
    raise OutcomeUnknown(
        RESULTS_UNREADABLE,
        f"the result files of job {job_id} stay incomplete ({reason}) after {RESULT_READS_MAX} reads",
        hint="run sync again: it reads them once more",
    )


def query(
    client: Client, soql: str, names: Sequence[str], *, scratch: Path, sleep: Callable[[float], None]
) -> Iterator[pa.Table]:
    """What a Bulk query finds, in tables of utf8 columns that take little memory; `names`: the columns it selects."""
    body = {
        "operation": "query",
        "query": soql,
        "contentType": "CSV",
        "columnDelimiter": "COMMA",
        "lineEnding": "LF",
    }
    path = f"jobs/query/{_new_job(client, 'jobs/query', body)}"
    _await_query(client, path, sleep)
    locator: str | None = None
    seen: set[str] = set()
    with scratch_file(scratch) as file:
        for _ in range(QUERY_PAGES_MAX):
            params = {"maxRecords": str(_PAGE_ROWS), **({"locator": locator} if locator else {})}
            reply = client.call(Request("GET", f"{path}/results", params=params, file=file, accept="text/csv"))
            try:
                yield from results.read_pieces(file, rows_max=_PAGE_ROWS, names=names)
            except results.UnreadableFile as fault:
                raise NotApplied(RESULTS_UNREADABLE, f"a page of {path} is unreadable: {fault}") from None
            locator = reply.headers.get("Sforce-Locator", "null")
            if locator in ("null", ""):
                return
            if not re.fullmatch(r"[A-Za-z0-9+/=_-]{1,200}", locator):
                raise NotApplied(RESULTS_UNREADABLE, f"{path} names a next page of unknown form")
            if locator in seen:
                raise NotApplied(RESULTS_UNREADABLE, f"{path} names a page as the next that was read already")
            seen.add(locator)
    raise NotApplied(RESULTS_UNREADABLE, f"{path} has more than {QUERY_PAGES_MAX} pages")


def _await_query(client: Client, path: str, sleep: Callable[[float], None]) -> None:
    pause = _POLL_FIRST_S
    for _ in range(QUERY_POLLS_MAX):
        info = client.get(path, is_whole=_is_job)
        if info["state"] == "JobComplete":
            return
        if info["state"] in ("Failed", "Aborted"):
            raise NotApplied(QUERY_FAILED, f"{path} ended as {info['state']}")
        sleep(pause)
        pause = min(_POLL_MAX_S, pause * 1.5)
    with contextlib.suppress(DestinationError):
        client.call(Request("PATCH", path, body=b'{"state":"Aborted"}'))
    raise NotApplied(QUERY_FAILED, f"{path} is not done after {QUERY_POLLS_MAX} polls")


def _read_files(client: Client, job_id: str, batch: Batch, scratch: Path) -> results.ResultFiles:
    """The result files as far as they can be those of this batch: twice its rows, for a few that are listed twice, and
    the size of its values several times over (echoed, quoted in an error) with room for an error to each row."""
    rows_max = 2 * batch.rows.num_rows + _MORE_ROWS
    bytes_max = min(FILE_BYTES_MAX, 4 * batch.rows.nbytes + rows_max * _ROW_BYTES)
    names, tables = results.result_columns(batch), []
    for name in ("successfulResults", "failedResults", "unprocessedrecords"):
        tables.append(_read_file(client, job_id, name, scratch, bytes_max, rows_max, names, len(batch.columns)))
    return results.ResultFiles(*tables)


def _read_file(
    client: Client,
    job_id: str,
    name: str,
    scratch: Path,
    bytes_max: int,
    rows_max: int,
    names: Collection[str],
    sent: int = 0,
) -> pa.Table:
    with scratch_file(scratch) as file:
        path = f"jobs/ingest/{checked_id(job_id)}/{name}"
        client.call(Request("GET", path, file=file, file_bytes_max=bytes_max, accept="text/csv"))
        return results.read_file(file, rows_max=rows_max, names=names, sent=sent)


def _shortfall(found: Job, files: results.ResultFiles) -> str:
    """Why the files can't be whole by the job's own counters; '' if they can. The counters may lag, never lead."""
    succeeded = found.processed - found.failed
    if files.succeeded.num_rows < succeeded:
        return f"{files.succeeded.num_rows} of {succeeded} successful rows"
    if files.failed.num_rows < found.failed:
        return f"{files.failed.num_rows} of {found.failed} failed rows"
    return ""


def _new_job(client: Client, path: str, body: dict[str, str]) -> str:
    # Opening a job again after a lost reply leaves an empty one behind, which changes nothing.
    request = Request(
        "POST", path, CallEffect.NOTHING, body=json.dumps(body).encode(), holds_values="query" in body, is_whole=_is_job
    )
    return checked_id(client.call(request).json["id"])


def _set_state(client: Client, job_id: str, state: str) -> None:
    body = json.dumps({"state": state}).encode()
    client.call(Request("PATCH", f"jobs/ingest/{checked_id(job_id)}", CallEffect.REPEATABLE, body=body))


def _is_job(content: object) -> bool:
    return isinstance(content, dict) and isinstance(content.get("id"), str) and isinstance(content.get("state"), str)


def _is_listing(content: object) -> bool:
    records = content.get("records") if isinstance(content, dict) else None
    return isinstance(records, list) and all(_is_job(record) for record in records)


def _count(number: object) -> int:
    return number if isinstance(number, int) else 0
