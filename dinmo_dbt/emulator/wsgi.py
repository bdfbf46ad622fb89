"""The WSGI application: which request goes where, in Salesforce's paths and shapes.

Opens the data folder, starts the worker that runs Bulk jobs, answers requests from any number of threads.
"""

from __future__ import annotations

import gzip
import io
import json
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from werkzeug.exceptions import ClientDisconnected, HTTPException, MethodNotAllowed, NotFound
from werkzeug.routing import Map, Rule
from werkzeug.wrappers import Request, Response

from dinmo_dbt.emulator import describe
from dinmo_dbt.emulator.auth import OAuthError, Sessions
from dinmo_dbt.emulator.bulk import MULTIPART_CHARS_MAX, Ingest
from dinmo_dbt.emulator.bulkquery import QueryJobs
from dinmo_dbt.emulator.errors import ApiError, not_emulated, not_found
from dinmo_dbt.emulator.org import Org
from dinmo_dbt.emulator.query import PAGE_ROWS, more_rows, run_query
from dinmo_dbt.emulator.records import Json, Records, SeveralError
from dinmo_dbt.emulator.seed import load_records, seed_org
from dinmo_dbt.emulator.sfdx import read_schema
from dinmo_dbt.emulator.store import Store, utc_now

FIRST_VERSION, LAST_VERSION = 31, 67
URI_BYTES_MAX = 16_384
_USAGE_SAVED_EVERY = 50
_SEASONS = ("Summer", "Winter", "Spring")

_V = "/services/data/v<version>"
_ROUTES = (
    ("GET", "/services/data", "versions"),
    ("POST", "/services/oauth2/token", "token"),
    ("GET,POST", "/services/oauth2/userinfo", "userinfo"),
    ("GET,POST", "/services/oauth2/revoke", "revoke"),
    ("GET,POST", "/id/<organization>/<user>", "identity"),
    ("GET", _V, "resources"),
    ("GET", f"{_V}/limits", "limits"),
    ("GET", f"{_V}/limits/recordCount", "record_count"),
    ("GET", f"{_V}/sobjects", "global_describe"),
    ("GET,POST", f"{_V}/sobjects/<name>", "sobject"),
    ("GET", f"{_V}/sobjects/<name>/describe", "describe"),
    ("GET,PATCH,DELETE", f"{_V}/sobjects/<name>/<rid>", "record"),
    ("POST", f"{_V}/sobjects/<name>/Id", "create_by_upsert"),
    ("GET,PATCH,DELETE", f"{_V}/sobjects/<name>/<key>/<value>", "external"),
    ("GET", f"{_V}/query", "query"),
    ("GET", f"{_V}/queryAll", "query"),
    ("GET", f"{_V}/query/<locator>", "more"),
    ("GET", f"{_V}/queryAll/<locator>", "more"),
    ("GET", f"{_V}/tooling/query", "tooling_query"),
    ("POST,PATCH,DELETE", f"{_V}/composite/sobjects", "collections"),
    ("PATCH", f"{_V}/composite/sobjects/<name>/<key>", "collection_upsert"),
    ("GET,POST", f"{_V}/composite/sobjects/<name>", "collection_retrieve"),
    ("GET,POST", f"{_V}/jobs/ingest", "ingest_jobs"),
    ("GET,PATCH,DELETE", f"{_V}/jobs/ingest/<job>", "ingest_job"),
    ("PUT", f"{_V}/jobs/ingest/<job>/batches", "ingest_upload"),
    ("GET", f"{_V}/jobs/ingest/<job>/<which>", "ingest_results"),
    ("GET,POST", f"{_V}/jobs/query", "query_jobs"),
    ("GET,PATCH,DELETE", f"{_V}/jobs/query/<job>", "query_job"),
    ("GET", f"{_V}/jobs/query/<job>/results", "query_results"),
)  # fmt: skip
_NOT_EMULATED = ("composite", "async", "Soap", "search", "parameterizedSearch", "analytics", "chatter", "tooling",
                 "actions", "apexrest", "process", "quickActions", "recent", "theme", "ui-api")  # fmt: skip


class App:
    """One Salesforce org as a WSGI application. `close()` stops its worker and releases its folder.

    Jobs run in a background thread of the app, mounted in process or served, so a client polls as it would
    poll Salesforce. `batch_delay_s` is a pause after each internal batch, for tests that must meet a running
    job. `public_key` (PEM) makes the JWT flow verify signatures.
    """

    def __init__(
        self, *, schema: Path | None, data: Path | None, records: Path | None = None,
        batch_delay_s: float = 0.0, daily_api_requests: int = 100_000, public_key: str | None = None,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:  # fmt: skip
        self._clock = clock
        self._store = Store(data, read_schema(schema))
        try:
            self._org = Org(self._store, clock)
            self._records = Records(self._store, self._org)
            self._sessions = Sessions(self._store, clock, public_key)
            seed_org(self._store, clock)
            load_records(self._store, self._records, records)
            self._start(batch_delay_s, daily_api_requests)
        except BaseException:
            self._store.close()
            raise

    def _start(self, batch_delay_s: float, daily_api_requests: int) -> None:
        self._stop = threading.Event()
        self._work = threading.Event()
        self._ingest = Ingest(self._store, self._org, self._clock, batch_delay_s=batch_delay_s, wake=self._work.set)
        self._queries = QueryJobs(self._store, self._clock, wake=self._work.set)
        self._map = Map(
            [Rule(p, methods=m.split(","), endpoint=e) for m, p, e in _ROUTES],
            strict_slashes=False, merge_slashes=False,
        )  # fmt: skip
        self._requests_max = daily_api_requests
        self._usage_lock = threading.Lock()
        self._requests = int(self._store.meta("api_requests") or 0)
        self._worker = threading.Thread(target=self._run_jobs, name="emulator-jobs", daemon=True)
        self._worker.start()

    @property
    def identity(self) -> Any:
        """Who the org is: ids, user, client and the folder's own access token."""
        return self._sessions.identity

    def close(self) -> None:
        """Stop after the batch in hand; what is unfinished goes on when the folder is opened again."""
        if self._stop.is_set():
            return
        self._stop.set()
        self._work.set()
        self._worker.join(timeout=60.0)
        self._save_usage()
        self._store.close()

    def _run_jobs(self) -> None:
        while not self._stop.is_set():
            self._work.clear()
            worked = self._ingest.run_next(self._stop.is_set)
            worked = self._queries.run_next(self._stop.is_set) or worked
            if not worked:
                self._work.wait(timeout=1.0)

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        request = Request(environ)
        response = self._respond(request)
        return response(environ, start_response)

    def _respond(self, request: Request) -> Response:
        try:
            response = self._dispatch(request)
        except ApiError as error:
            response = self._json(request, error.body, error.status)
        except ClientDisconnected:  # nobody is left to read this
            return Response(status=400, headers={"Connection": "close"})
        except OAuthError as error:
            response = self._json(request, error.body, 400)
            response.headers["Cache-Control"] = "no-store"
        except SeveralError as error:
            base = f"/services/data/v{request.environ['emulator.version']}"
            name = request.environ["emulator.object"]
            paths = [f"{base}/sobjects/{name}/{self._store.codec.encode(r)}" for r in error.rids]
            response = self._json(request, paths, 300)
        if "emulator.version" in request.environ:
            usage = f"api-usage={self._requests}/{self._requests_max}"
            response.headers["Sforce-Limit-Info"] = usage
        response.headers.setdefault("Cache-Control", "no-cache,must-revalidate,max-age=0,no-store,private")
        response.headers["Server"] = "sfdcedge"
        response.headers["X-SFDC-Request-Id"] = uuid.uuid4().hex
        if not _drain(request):
            response.headers["Connection"] = "close"
        return response

    def _dispatch(self, request: Request) -> Response:
        raw = str(request.environ.get("REQUEST_URI") or request.environ.get("RAW_URI") or request.full_path)
        if len(raw) > URI_BYTES_MAX:
            raise ApiError(414, "REQUEST_URI_TOO_LONG", "URI Too Long")
        path = raw.partition("?")[0]
        if "://" in path:
            path = "/" + path.split("/", 3)[-1]
        try:
            endpoint, found = self._map.bind("emulator").match(path.rstrip("/") or "/", method=request.method)
        except MethodNotAllowed as error:
            message = f"HTTP Method '{request.method}' not allowed. Allowed are {','.join(error.valid_methods or ())}"
            raise ApiError(405, "METHOD_NOT_ALLOWED", message) from error
        except NotFound as error:
            self._authorize(request, path)
            raise _unknown(request, path) from error
        except HTTPException as error:
            raise ApiError(error.code or 400, "UNKNOWN_EXCEPTION", error.description or "") from error
        values = {k: unquote(str(v)) for k, v in found.items()}
        if "version" in values:
            self._authorize(request, path)
            request.environ["emulator.version"] = _version(values.pop("version"))
            self._count()
        if not self._worker.is_alive() and not self._stop.is_set():
            raise ApiError(500, "UNKNOWN_EXCEPTION", "The emulator's job worker stopped: its stderr says why")
        handler: Callable[..., Response] = getattr(self, f"_on_{endpoint}")
        return handler(request, **values)

    def _authorize(self, request: Request, path: str) -> None:
        if path.startswith("/services/") and not path.startswith("/services/oauth2"):
            self._sessions.check(request.headers.get("Authorization"))

    def _count(self) -> None:
        with self._usage_lock:
            if self._requests >= self._requests_max:
                raise ApiError(403, "REQUEST_LIMIT_EXCEEDED", "TotalRequests Limit exceeded.")
            self._requests += 1
            save = self._requests % _USAGE_SAVED_EVERY == 0
        if save:
            self._save_usage()

    def _save_usage(self) -> None:
        with self._store.writing() as db:
            db.execute("INSERT OR REPLACE INTO meta VALUES ('api_requests', ?)", (str(self._requests),))

    # OAuth and discovery

    def _on_versions(self, request: Request) -> Response:
        versions = [
            {"label": _label(v), "url": f"/services/data/v{v}.0", "version": f"{v}.0"}
            for v in range(FIRST_VERSION, LAST_VERSION + 1)
        ]
        return self._json(request, versions)

    def _on_token(self, request: Request) -> Response:
        reply = self._sessions.token(request.form.to_dict(), request.headers.get("Authorization"), _own_url(request))
        response = self._json(request, reply)
        response.headers["Cache-Control"] = "no-cache, no-store"
        return response

    def _on_userinfo(self, request: Request) -> Response:
        self._sessions.check(request.headers.get("Authorization"))
        return self._json(request, self._sessions.userinfo(_own_url(request)))

    def _on_identity(self, request: Request, organization: str, user: str) -> Response:
        token = request.args.get("oauth_token")
        self._sessions.check(f"Bearer {token}" if token else request.headers.get("Authorization"))
        who = self.identity
        if organization[:15] != who.organization_id[:15] or user[:15] != who.user_id[:15]:
            raise not_found()
        reply = self._sessions.identity_reply(_own_url(request), request.args.get("version"))
        return self._json(request, reply)

    def _on_revoke(self, request: Request) -> Response:
        self._sessions.revoke(request.form.get("token") or request.args.get("token", ""))
        return Response(status=200)

    def _on_resources(self, request: Request) -> Response:
        base = _base(request)
        names = ("sobjects", "query", "queryAll", "limits", "composite", "jobs", "tooling")
        who = self.identity
        listed = {name: f"{base}/{name}" for name in names}
        listed["identity"] = f"{_own_url(request)}/id/{who.organization_id}/{who.user_id}"
        return self._json(request, listed)

    def _on_limits(self, request: Request) -> Response:
        left = max(0, self._requests_max - self._requests)
        fixed = {
            "DailyBulkApiBatches": 15_000, "DailyBulkV2QueryJobs": 10_000, "DataStorageMB": 1_000_000,
            "FileStorageMB": 1_000_000, "DailyBulkV2QueryFileStorageMB": 976_562,
        }  # fmt: skip
        limits = {"DailyApiRequests": {"Max": self._requests_max, "Remaining": left}}
        limits |= {name: {"Max": value, "Remaining": value} for name, value in fixed.items()}
        return self._json(request, limits)

    def _on_record_count(self, request: Request) -> Response:
        wanted = request.args.get("sObjects")
        names = wanted.split(",") if wanted else [o.name for o in self._store.schema.objects]
        counts = []
        for name in names:
            sobject = self._store.schema.get(name.strip())
            if sobject is not None:
                sql = f'SELECT count(*) FROM {self._store.table(sobject).name} WHERE "IsDeleted" = 0'
                count = self._store.reading().execute(sql).fetchone()[0]
                counts.append({"count": count, "name": sobject.name})
        return self._json(request, {"sObjects": counts})

    # Describe and records

    def _on_global_describe(self, request: Request) -> Response:
        return self._json(request, describe.global_describe(self._store.schema, _base(request)))

    def _on_describe(self, request: Request, name: str) -> Response:
        sobject = self._records.table(name).sobject
        return self._json(request, describe.describe(self._store.schema, sobject, _base(request)))

    def _on_sobject(self, request: Request, name: str) -> Response:
        table = self._records.table(name)
        if request.method == "GET":
            brief = describe.brief(table.sobject, _base(request))
            return self._json(request, {"objectDescribe": brief, "recentItems": []})
        return self._created(request, table.sobject.name, self._records.create(table, _object(request)))

    def _on_create_by_upsert(self, request: Request, name: str) -> Response:
        table = self._records.table(name)
        return self._created(request, table.sobject.name, self._records.create(table, _object(request)))

    def _created(self, request: Request, name: str, reply: Json) -> Response:
        response = self._json(request, reply, 201)
        response.headers["Location"] = f"{_base(request)}/sobjects/{name}/{reply['id']}"
        response.autocorrect_location_header = False
        return response

    def _on_record(self, request: Request, name: str, rid: str) -> Response:
        table = self._records.table(name)
        match request.method:
            case "PATCH":
                self._records.update(table, rid, _object(request))
            case "DELETE":
                self._records.delete(table, rid)
            case _:
                names = _names(request.args.get("fields"))
                return self._json(request, self._records.read(table, rid, names, _base(request)))
        return _nothing()

    def _on_external(self, request: Request, name: str, key: str, value: str) -> Response:
        table = self._records.table(name)
        field = self._records.key(table, key)
        request.environ["emulator.object"] = table.sobject.name
        if field.name == "Id":
            return self._on_record(request, name, value)
        if request.method == "PATCH":
            update_only = request.args.get("updateOnly", "").lower() == "true"
            reply, created = self._records.upsert(table, field, value, _object(request), update_only=update_only)
            if created:
                return self._created(request, table.sobject.name, reply)
            old = float(request.environ["emulator.version"]) < 46
            return _nothing() if old else self._json(request, reply)
        hits = self._records.find(table, field, value)
        if not hits:
            raise not_found()
        if len(hits) > 1:
            raise SeveralError(hits)
        return self._on_record(request, name, self._store.codec.encode(hits[0]))

    # Queries

    def _on_query(self, request: Request) -> Response:
        if "explain" in request.args:
            raise not_emulated("query explain")
        text = request.args.get("q")
        if not text:
            raise ApiError(400, "MALFORMED_QUERY", "A query string has to be specified")
        everything = "/queryAll" in request.path
        reply = run_query(
            self._store, text, everything=everything, base=_base(request), page_rows=_page_rows(request),
            clock=self._clock, columns=request.args.get("columns", "").lower() == "true",
        )  # fmt: skip
        return self._json(request, reply)

    def _on_more(self, request: Request, locator: str) -> Response:
        reply = more_rows(self._store, locator, base=_base(request), page_rows=_page_rows(request), clock=self._clock)
        return self._json(request, reply)

    def _on_tooling_query(self, request: Request) -> Response:
        """The tooling objects clients look for at login do not exist here, in Salesforce's words."""
        words = request.args.get("q", "").split()
        upper = [w.upper() for w in words]
        name = words[upper.index("FROM") + 1] if "FROM" in upper[:-1] else ""
        raise ApiError(400, "INVALID_TYPE", f"sObject type '{name}' is not supported.")

    # Collections

    def _on_collections(self, request: Request) -> Response:
        if request.method == "DELETE":
            ids = _names(request.args.get("ids")) or []
            all_or_none = request.args.get("allOrNone", "").lower() == "true"
            return self._json(request, self._records.delete_collection(ids, all_or_none=all_or_none))
        records, all_or_none = _envelope(request)
        operation: Any = "insert" if request.method == "POST" else "update"
        return self._json(request, self._records.collection(records, operation, all_or_none=all_or_none))

    def _on_collection_upsert(self, request: Request, name: str, key: str) -> Response:
        table = self._records.table(name)
        field = self._records.key(table, key)
        records, all_or_none = _envelope(request)
        return self._json(
            request,
            self._records.collection(records, "upsert", all_or_none=all_or_none, table=table, key=field),
        )

    def _on_collection_retrieve(self, request: Request, name: str) -> Response:
        table = self._records.table(name)
        if request.method == "POST":
            body = _object(request)
            ids, names = body.get("ids"), body.get("fields")
        else:
            ids, names = _names(request.args.get("ids")), _names(request.args.get("fields"))
        if not isinstance(ids, list) or not isinstance(names, list):
            raise ApiError(400, "JSON_PARSER_ERROR", "ids and fields are required at [line:1, column:1]")
        return self._json(request, self._records.retrieve(table, ids, names, _base(request)))

    # Bulk API 2.0

    def _on_ingest_jobs(self, request: Request) -> Response:
        if request.method == "GET":
            args = request.args
            reply = self._ingest.listing(_base(request), args.get("queryLocator"), args.get("jobType"))
            return self._json(request, reply)
        version = request.environ["emulator.version"]
        if request.mimetype != "multipart/form-data":
            return self._json(request, self._ingest.create(_object(request), version))
        return self._json(request, self._create_with_data(request, version))

    def _create_with_data(self, request: Request, version: str) -> Json:
        parts = {k: f.read() for k, f in request.files.items()}
        parts |= {k: v.encode() for k, v in request.form.items()}
        content = parts.get("content", b"")
        if len(content) > MULTIPART_CHARS_MAX:
            raise ApiError(400, "CLIENTINPUTERROR", "The content part is larger than 100,000 characters")
        job = self._ingest.create(_parsed(parts.get("job", b"")), version)
        self._ingest.upload(job["id"], io.BytesIO(content), "utf-8")
        return self._ingest.change_state(job["id"], "UploadComplete")

    def _on_ingest_job(self, request: Request, job: str) -> Response:
        match request.method:
            case "PATCH":
                return self._json(request, self._ingest.change_state(job, _object(request).get("state")))
            case "DELETE":
                self._ingest.delete(job)
                return _nothing()
            case _:
                return self._json(request, self._ingest.info(job))

    def _on_ingest_upload(self, request: Request, job: str) -> Response:
        if request.mimetype != "text/csv":
            raise ApiError(415, "UNSUPPORTED_MEDIA_TYPE", f"Content-Type {request.mimetype} is not text/csv")
        stream: Any = request.stream
        if request.headers.get("Content-Encoding", "").lower() == "gzip":
            stream = gzip.GzipFile(fileobj=stream)  # accepted here; whether Salesforce does is unverified
        self._ingest.upload(job, stream, request.mimetype_params.get("charset", "utf-8"))
        return Response(status=201)

    def _on_ingest_results(self, _request: Request, job: str, which: str) -> Response:
        name: Any = which.lower()
        if name not in ("successfulresults", "failedresults", "unprocessedrecords"):
            raise not_found()
        return _csv(self._ingest.results(job, name))

    def _on_query_jobs(self, request: Request) -> Response:
        if request.method == "GET":
            return self._json(request, self._queries.listing())
        return self._json(request, self._queries.create(_object(request), request.environ["emulator.version"]))

    def _on_query_job(self, request: Request, job: str) -> Response:
        match request.method:
            case "PATCH":
                return self._json(request, self._queries.change_state(job, _object(request).get("state")))
            case "DELETE":
                self._queries.delete(job)
                return _nothing()
            case _:
                return self._json(request, self._queries.info(job))

    def _on_query_results(self, request: Request, job: str) -> Response:
        rows = request.args.get("maxRecords", type=int)
        page = self._queries.results(job, request.args.get("locator"), rows)
        response = _csv(page.body)
        response.headers["Sforce-Locator"] = page.locator
        response.headers["Sforce-NumberOfRecords"] = str(page.rows)
        return response

    def _json(self, request: Request, body: Any, status: int = 200) -> Response:
        if request.headers.get("X-PrettyPrint") == "1":
            text = json.dumps(body, indent=2, separators=(",", " : "), ensure_ascii=False)
        else:
            text = json.dumps(body, separators=(",", ":"), ensure_ascii=False)
        data = text.encode("utf-8", "surrogatepass")
        response = Response(status=status, content_type="application/json;charset=UTF-8")
        response.headers["Vary"] = "Accept-Encoding"
        if len(data) > 2048 and "gzip" in request.headers.get("Accept-Encoding", ""):
            data = gzip.compress(data, compresslevel=1)
            response.headers["Content-Encoding"] = "gzip"
        response.set_data(data)
        return response


def _csv(body: Iterator[bytes]) -> Response:
    return Response(body, content_type="text/csv; charset=UTF-8")


def _nothing() -> Response:
    """204: neither body nor Content-Type."""
    response = Response(status=204)
    del response.headers["Content-Type"]
    return response


def _drain(request: Request) -> bool:
    """Read what is left of the body; whether that leaves the connection usable."""
    try:
        while request.stream.read(1 << 20):
            pass
    except ClientDisconnected:
        return False
    return True


def _own_url(request: Request) -> str:
    return request.host_url.rstrip("/")


def _base(request: Request) -> str:
    return f"/services/data/v{request.environ['emulator.version']}"


def _version(text: str) -> str:
    number, dot, zero = text.partition(".")
    if not number.isdigit() or not dot or zero != "0" or not FIRST_VERSION <= int(number) <= LAST_VERSION:
        raise not_found()
    return text


def _label(version: int) -> str:
    """Three releases a year: 31 is Summer '14, 65 is Winter '26."""
    season = _SEASONS[(version - 31) % 3]
    year = 14 + (version - 29) // 3
    return f"{season} '{year}"


def _page_rows(request: Request) -> int:
    options = request.headers.get("Sforce-Query-Options", "")
    for option in options.split(","):
        name, _, value = option.partition("=")
        if name.strip().lower() == "batchsize" and value.strip().isdigit():
            return min(max(int(value), 200), PAGE_ROWS)
    return PAGE_ROWS


def _names(text: str | None) -> list[str] | None:
    return [n.strip() for n in text.split(",") if n.strip()] if text is not None else None


def _object(request: Request) -> Json:
    data = request.get_data()
    if request.headers.get("Content-Encoding", "").lower() == "gzip":
        try:
            data = gzip.decompress(data)
        except OSError as error:
            raise ApiError(400, "JSON_PARSER_ERROR", "The body is not gzip") from error
    if request.mimetype and request.mimetype not in ("application/json", "text/json"):
        raise ApiError(415, "UNSUPPORTED_MEDIA_TYPE", f"Content-Type {request.mimetype} is not application/json")
    return _parsed(data)


def _parsed(data: bytes) -> Json:
    try:
        body = json.loads(data or b"{}")
    except ValueError as error:
        line, column = getattr(error, "lineno", 1), getattr(error, "colno", 1)
        message = f"Unexpected character at input location [line:{line}, column:{column}]"
        raise ApiError(400, "JSON_PARSER_ERROR", message) from error
    if not isinstance(body, dict):
        raise ApiError(400, "JSON_PARSER_ERROR", "The body must be a JSON object at [line:1, column:1]")
    return body


def _envelope(request: Request) -> tuple[list[Any], bool]:
    body = _object(request)
    records = body.get("records")
    if not isinstance(records, list):
        raise ApiError(400, "JSON_PARSER_ERROR", "records must be an array at [line:1, column:1]")
    return records, body.get("allOrNone") is True


def _unknown(request: Request, path: str) -> ApiError:
    """A path of Salesforce's that this server does not have is named; anything else is Salesforce's 404."""
    parts = path.strip("/").split("/")
    tail = parts[3:] if parts[:2] == ["services", "data"] else parts[1:]
    if parts[:1] == ["services"] and tail and (tail[0] in _NOT_EMULATED):
        return not_emulated(f"{request.method} {'/'.join(tail)}")
    return not_found()
