"""One API call on its way: the request, what it may reach, and replies in Salesforce's shapes."""

from __future__ import annotations

import codecs
import gzip
import io
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from werkzeug.wrappers import Request, Response

from dinmo_dbt.emulator.bulk.ingest import Ingest
from dinmo_dbt.emulator.bulk.job import JobTable
from dinmo_dbt.emulator.bulk.queryjobs import QueryJobs
from dinmo_dbt.emulator.bulk.worker import Worker
from dinmo_dbt.emulator.clock import Clock
from dinmo_dbt.emulator.errors import ApiError, not_emulated, not_found
from dinmo_dbt.emulator.faults.armed import Faults, Fired
from dinmo_dbt.emulator.limits import Usage
from dinmo_dbt.emulator.records.collections import Collections
from dinmo_dbt.emulator.records.engine import Org
from dinmo_dbt.emulator.records.jsonrecords import Json
from dinmo_dbt.emulator.records.single import Records
from dinmo_dbt.emulator.store import Store
from dinmo_dbt.emulator.web.auth import Sessions
from dinmo_dbt.emulator.web.freshness import Freshness

FIRST_VERSION, LAST_VERSION = 31, 68  # of November 2026: Winter '27; 31 to 40 go in Summer '28 (End-of-Life policy)
_RETIRED_VERSIONS = range(7, FIRST_VERSION)
_GZIP_BYTES_MIN = 2048
_JSON_BYTES_MAX = 50 << 20


@dataclass(frozen=True, slots=True)
class Site:
    """Everything a handler may reach."""

    clock: Clock
    store: Store
    org: Org
    records: Records
    collections: Collections
    sessions: Sessions
    jobs: JobTable
    ingest: Ingest
    queries: QueryJobs
    worker: Worker
    usage: Usage
    faults: Faults
    freshness: Freshness


@dataclass(slots=True)
class Call:
    """One request. `version` is the path's API version as sent (`62.0`), empty outside `/services/data/vV`.

    `name` and `route` are the call's name and its path without values of records; `fired` are the faults that hit it.
    """

    site: Site
    request: Request
    version: str = ""
    name: str = ""
    route: str = ""
    values: dict[str, str] = field(default_factory=dict)
    fired: list[Fired] = field(default_factory=list)
    running: bool = False

    @property
    def base(self) -> str:
        return f"/services/data/v{self.version}"

    @property
    def own_url(self) -> str:
        return self.request.host_url.rstrip("/")

    def object(self) -> Json:
        """The body as a JSON object."""
        _check_size(self.request.content_length or 0)
        data = self._unpacked(self.request.get_data())
        kind = self.request.mimetype
        if kind in ("application/xml", "text/xml"):
            raise not_emulated("XML request bodies")
        if kind and kind not in ("application/json", "text/json"):
            raise ApiError(415, "UNSUPPORTED_MEDIA_TYPE", f"Content-Type {kind} is not application/json")
        return parsed(self._decoded(data))

    def _unpacked(self, data: bytes) -> bytes:
        """The body without its Content-Encoding."""
        encoding = self.request.headers.get("Content-Encoding", "identity").lower()
        if encoding not in ("gzip", "identity", ""):
            raise ApiError(415, "UNSUPPORTED_MEDIA_TYPE", f"Content-Encoding {encoding} is not gzip")
        if encoding == "gzip":
            try:
                data = gzip.GzipFile(fileobj=io.BytesIO(data)).read(_JSON_BYTES_MAX + 1)
            except (OSError, EOFError, zlib.error) as error:
                raise ApiError(400, "JSON_PARSER_ERROR", "The body is not gzip") from error
        _check_size(len(data))
        return data

    def _decoded(self, data: bytes) -> bytes | str:
        """Text where the Content-Type names a charset; else json finds out which of Unicode's it is."""
        charset = self.request.mimetype_params.get("charset", "")
        try:
            return data if not charset or codecs.lookup(charset).name == "utf-8" else data.decode(charset)
        except LookupError as error:
            raise ApiError(415, "UNSUPPORTED_MEDIA_TYPE", f"Unknown charset: {charset}") from error
        except UnicodeDecodeError as error:
            raise ApiError(400, "JSON_PARSER_ERROR", f"The body is not {charset}") from error

    def envelope(self) -> tuple[list[Any], bool]:
        """A collection's records and whether it is all or none."""
        body = self.object()
        records = body.get("records")
        if not isinstance(records, list):
            raise ApiError(400, "JSON_PARSER_ERROR", "records must be an array at [line:1, column:1]")
        return records, body.get("allOrNone") is True

    def json(self, body: Any, status: int = 200) -> Response:
        """A JSON reply, in the form that the request asks for."""
        return self.encoded(json_text(body, self.form), status)

    @property
    def form(self) -> Form:
        """How the request wants its JSON."""
        headers = self.request.headers
        return Form(headers.get("X-PrettyPrint") == "1", "gzip" in headers.get("Accept-Encoding", ""))

    def encoded(self, text: Encoded, status: int = 200) -> Response:
        """A JSON reply that is encoded already."""
        response = Response(text.data, status, content_type="application/json;charset=UTF-8")
        response.headers["Vary"] = "Accept-Encoding"
        if text.gzipped:
            response.headers["Content-Encoding"] = "gzip"
        return response


@dataclass(frozen=True, slots=True)
class Form:
    """Of a JSON reply: indented or not, and gzipped where that is worth it."""

    pretty: bool
    gzip: bool


@dataclass(frozen=True, slots=True)
class Encoded:
    """The bytes of a JSON reply."""

    data: bytes
    gzipped: bool


def json_text(body: Any, form: Form) -> Encoded:
    """Compact, or indented and gzipped as the form says; a short text is not worth a gzip."""
    if form.pretty:
        text = json.dumps(body, indent=2, separators=(",", " : "), ensure_ascii=False)
    else:
        text = json.dumps(body, separators=(",", ":"), ensure_ascii=False)
    data = text.encode("utf-8", "surrogatepass")
    if form.gzip and len(data) > _GZIP_BYTES_MIN:
        return Encoded(gzip.compress(data, compresslevel=1), gzipped=True)
    return Encoded(data, gzipped=False)


def _check_size(size: int) -> None:
    if size > _JSON_BYTES_MAX:  # limit, code and text unverified
        raise ApiError(413, "REQUEST_ENTITY_TOO_LARGE", f"The request entity is larger than {_JSON_BYTES_MAX} bytes")


def parsed(data: bytes | str) -> Json:
    """A JSON object out of text, or Salesforce's JSON_PARSER_ERROR."""
    if not data.strip():
        raise ApiError(
            400, "JSON_PARSER_ERROR", "The HTTP entity body is required, but this request has no entity body."
        )
    try:
        body = json.loads(data)
    except (ValueError, RecursionError) as error:
        line, column = getattr(error, "lineno", 1), getattr(error, "colno", 1)
        message = f"Unexpected character at input location [line:{line}, column:{column}]"
        raise ApiError(400, "JSON_PARSER_ERROR", message) from error
    if not isinstance(body, dict):
        token = "START_ARRAY" if isinstance(body, list) else "VALUE_STRING"  # the text is that of older versions
        message = f"Can not deserialize SObject out of {token} token at [line:1, column:1]"
        raise ApiError(400, "JSON_PARSER_ERROR", message)
    return body


def csv_reply(call: Call, body: Iterator[bytes]) -> Response:
    """A CSV file, gzipped as the request asks (Bulk API 2.0 Developer Guide, Use Compression)."""
    response = Response(body, content_type="text/csv; charset=UTF-8")
    if "gzip" in call.request.headers.get("Accept-Encoding", ""):
        response.headers["Content-Encoding"] = "gzip"
        response.response = _gzipped(body)
    return response


def _gzipped(body: Iterator[bytes]) -> Iterator[bytes]:
    packer = zlib.compressobj(level=1, wbits=31)  # with gzip's own header
    for piece in body:
        yield packer.compress(piece)
    yield packer.flush()


def nothing() -> Response:
    """204: neither body nor Content-Type."""
    response = Response(status=204)
    del response.headers["Content-Type"]
    return response


def names_of(text: str | None) -> list[str] | None:
    """A comma-separated list; None where there is none."""
    return [n.strip() for n in text.split(",") if n.strip()] if text is not None else None


def checked_version(text: str) -> str:
    """The path's API version, or Salesforce's 404; 410 for one that is retired (REST errorcodes.htm).

    Which are retired, and the code and text of the 410, are unverified.
    """
    number, dot, zero = text.partition(".")
    if number.isdigit() and zero == "0" and int(number) in _RETIRED_VERSIONS:
        raise ApiError(410, "GONE", f"API version {text} is retired")
    if not number.isdigit() or not dot or zero != "0" or not FIRST_VERSION <= int(number) <= LAST_VERSION:
        raise not_found()
    return text
