"""Bulk API 2.0 over HTTP: ingest and query jobs."""

from __future__ import annotations

import gzip
import io
import zlib
from typing import Any

from werkzeug.wrappers import Response

from dinmo_dbt.emulator.errors import ApiError, not_found
from dinmo_dbt.emulator.records.jsonrecords import Json
from dinmo_dbt.emulator.web.call import Call, csv_reply, nothing, parsed


def ingest_jobs(call: Call) -> Response:
    """The list, or a new job: 200. That it is not 201 is unverified."""
    if call.request.method == "GET":
        return call.json(call.site.ingest.listing(call.base, *_listed(call), chunked=_chunked(call)))
    if call.request.mimetype != "multipart/form-data":
        return call.json(call.site.ingest.create(call.object(), call.version))
    return call.json(_create_with_data(call))


def _listed(call: Call) -> tuple[str | None, str | None]:
    return call.request.args.get("queryLocator"), call.request.args.get("jobType")


def _chunked(call: Call) -> bool:
    return call.request.args.get("isPkChunkingEnabled", "").lower() == "true"


def _create_with_data(call: Call) -> Json:
    call.request.max_form_memory_size = None  # the limit below is in characters
    parts = {k: f.read() for k, f in call.request.files.items()}
    parts |= {k: v.encode() for k, v in call.request.form.items()}
    content = parts.get("content", b"")
    most = call.site.usage.limits.multipart_characters
    if len(content.decode("utf-8", "replace")) > most:  # code and text unverified
        raise ApiError(400, "CLIENTINPUTERROR", f"The content part is larger than {most} characters")
    job = call.site.ingest.create(parsed(parts.get("job", b"")), call.version)
    call.site.ingest.upload(job["id"], io.BytesIO(content), "utf-8")
    return call.site.ingest.change_state(job["id"], "UploadComplete")


def ingest_job(call: Call, job: str) -> Response:
    match call.request.method:
        case "PATCH":
            return call.json(call.site.ingest.change_state(job, call.object().get("state")))
        case "DELETE":
            call.site.ingest.delete(job)
            return nothing()
        case _:
            call.site.worker.polled("ingest", job)
            return call.json(call.site.ingest.info(job))


def ingest_upload(call: Call, job: str) -> Response:
    if call.request.mimetype != "text/csv":
        raise ApiError(415, "UNSUPPORTED_MEDIA_TYPE", f"Content-Type {call.request.mimetype} is not text/csv")
    stream: Any = call.request.stream
    if call.request.headers.get("Content-Encoding", "").lower() == "gzip":
        stream = gzip.GzipFile(fileobj=stream)  # accepted here; whether Salesforce does is unverified
    try:
        call.site.ingest.upload(job, stream, call.request.mimetype_params.get("charset", "utf-8"))
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ApiError(400, "CLIENTINPUTERROR", "The data is not gzip") from error
    return Response(status=201)


def ingest_results(call: Call, job: str, which: str) -> Response:
    name: Any = which.lower()
    if name not in ("successfulresults", "failedresults", "unprocessedrecords"):
        raise not_found()
    return csv_reply(call, call.site.ingest.results(job, name))


def query_jobs(call: Call) -> Response:
    if call.request.method == "GET":
        return call.json(call.site.queries.listing(call.base, *_listed(call), chunked=_chunked(call)))
    return call.json(call.site.queries.create(call.object(), call.version))


def query_job(call: Call, job: str) -> Response:
    match call.request.method:
        case "PATCH":
            return call.json(call.site.queries.change_state(job, call.object().get("state")))
        case "DELETE":
            call.site.queries.delete(job)
            return nothing()
        case _:
            call.site.worker.polled("query", job)
            return call.json(call.site.queries.info(job))


def query_results(call: Call, job: str) -> Response:
    rows = call.request.args.get("maxRecords", type=int)
    page = call.site.queries.results(job, call.version, call.request.args.get("locator"), rows)
    response = csv_reply(call, page.body)
    response.headers["Sforce-Locator"] = page.locator
    response.headers["Sforce-NumberOfRecords"] = str(page.rows)
    return response


def query_result_pages(call: Call, job: str) -> Response:
    locator = call.request.args.get("locator")
    return call.json(call.site.queries.result_pages(job, call.base, call.version, locator))
