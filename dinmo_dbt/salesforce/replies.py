"""What a reply says, by its status and its body: a whole one, or why the call was refused."""

from __future__ import annotations

import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any, NoReturn

import requests

from dinmo_dbt import wire
from dinmo_dbt.codes import (
    LIMIT_USED_UP,
    ORG_READ_ONLY,
    REDIRECTED,
    REQUEST_REFUSED,
    REQUEST_TOO_LARGE,
    SESSION_REFUSED,
)
from dinmo_dbt.destination import ErrorClass, Remedy
from dinmo_dbt.errors import AuthError, DestinationError, LimitReached, NotApplied, ReadOnly, TooLarge
from dinmo_dbt.salesforce.errors import RETIRED_HINT, SalesforceRefusal, classify, hint
from dinmo_dbt.salesforce.request import API_VERSION, FILE_BYTES_MAX, Reply, Request, name_of

JSON_BYTES_MAX = 64 << 20
UNKNOWN_HINT = (
    f"is that the org's own address? If it is, the org does not know version {API_VERSION} of the API: /services/data "
    "under its address lists those it knows"
)
_FOREIGN_HINT = "the answer does not have Salesforce's form: does a proxy on the way answer in its place?"


class NotSent(Exception):
    """The request is known not to have acted, and may be sent again; `after_s` is the server's own wish."""

    def __init__(self, reason: str, after_s: float | None = None, *, final: type[DestinationError] = NotApplied):
        super().__init__(reason)
        self.after_s = after_s
        self.final = final


class SessionExpired(Exception):
    """401 INVALID_SESSION_ID."""


def whole_reply(request: Request, response: requests.Response, attempt: wire.Attempt) -> Reply:
    if request.file is not None:
        request.file.seek(0)
        request.file.truncate()
        wire.copy(response, request.file, min(request.file_bytes_max, FILE_BYTES_MAX), attempt)
        return Reply(response.status_code, response.headers)
    body = text_of(response, attempt)
    content = wire.values(body, exact_numbers=request.exact_numbers) if body.strip() else None
    if request.is_whole is not None and not request.is_whole(content):
        raise wire.Broken("the reply does not have the promised shape")
    return Reply(response.status_code, response.headers, content)


def refuse(request: Request, response: requests.Response, attempt: wire.Attempt) -> NoReturn:
    """Raise what a status outside 2xx means."""
    status = response.status_code
    if status < 200:
        raise wire.Broken(f"HTTP {status}, which is no answer yet")
    if 300 <= status < 400:
        raise NotApplied(REDIRECTED, f"{name_of(request)}: HTTP {status}, a redirect; none is followed")
    try:
        content = json_or_none(text_of(response, attempt))
    except wire.Broken:
        content = None
    code, message = _salesforce_error(content)
    after_s = _retry_after(response.headers)
    diagnosis = classify(code, message)
    if status == 401:
        if code in ("INVALID_SESSION_ID", ""):
            raise SessionExpired
        raise AuthError(SESSION_REFUSED, f"Salesforce refused the session: {code}", hint=hint(code))
    if code == "REQUEST_LIMIT_EXCEEDED" and "concurrent" in message.lower():
        raise NotSent("too many long requests at once in the org", after_s, final=LimitReached)
    if code in ("REQUEST_LIMIT_EXCEEDED", "LIMIT_EXCEEDED", "EXCEEDEDQUOTA"):
        raise LimitReached(LIMIT_USED_UP, f"{name_of(request)}: {code}", hint=hint("REQUEST_LIMIT_EXCEEDED"))
    if diagnosis.error_class is ErrorClass.MAINTENANCE:
        raise ReadOnly(ORG_READ_ONLY, f"{name_of(request)}: {code}", hint=diagnosis.hint)
    if status in (420, 429):
        raise NotSent(f"HTTP {status}", after_s)
    if status == 503 and (after_s is not None or diagnosis.remedy is Remedy.AGAIN):
        raise NotSent(f"HTTP 503 {code}".rstrip(), after_s)  # refused at the door: a definite answer
    if status == 413 and request.holds_values:
        advice = "a proxy on the way may take less than Salesforce does"
        raise TooLarge(REQUEST_TOO_LARGE, f"{name_of(request)}: HTTP 413, refused for its size", hint=advice)
    if status >= 500:
        raise wire.Broken(f"HTTP {status} {code}".rstrip())
    shown = code if request.holds_values or not message else f"{code}: {_one_line(message)}"
    raise SalesforceRefusal(
        REQUEST_REFUSED,
        f"{name_of(request)}: HTTP {status} {shown}".rstrip(),
        status=status,
        salesforce_code=code,
        salesforce_message=message,
        hint=_advice(request, status, code, message),
    )


def _advice(request: Request, status: int, code: str, message: str) -> str:
    if status == HTTPStatus.GONE:
        return RETIRED_HINT
    # These are there in every org, under every version of the API that it knows.
    if status == HTTPStatus.NOT_FOUND and request.path.rpartition("/")[2] in ("limits", "sobjects"):
        return UNKNOWN_HINT
    return hint(code) if code or message else _FOREIGN_HINT


def _salesforce_error(content: Any) -> tuple[str, str]:
    """errorCode and message of the first error, '' where the body is not Salesforce's error array."""
    first = content[0] if isinstance(content, list) and content else content
    if not isinstance(first, dict):
        return "", ""
    code, message = first.get("errorCode"), first.get("message")
    code = code if isinstance(code, str) and re.fullmatch(r"[A-Za-z0-9_]{1,100}", code) else ""
    return code, message if isinstance(message, str) else ""


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait; a date counts from the reply's own Date, so that no clock of ours matters. 0 for one that can't
    be read, which still says that the answer is definite; None without the header (RFC 9110, 10.2.3)."""
    header = headers.get("Retry-After", "").strip()
    if not header:
        return None
    if re.fullmatch(r"\d{1,6}", header):
        return float(header)
    try:
        moment, sent = parsedate_to_datetime(header), parsedate_to_datetime(headers.get("Date", ""))
        return max(0.0, (moment - sent).total_seconds())
    except (ValueError, TypeError, OverflowError):
        return 0.0


def _one_line(message: str) -> str:
    printable = "".join(c if c.isprintable() else " " for c in message)
    return " ".join(printable.split())[:300]


def json_or_none(body: bytearray) -> Any:
    try:
        return wire.values(body)
    except wire.Broken:
        return None


def text_of(response: requests.Response, attempt: wire.Attempt) -> bytearray:
    return wire.text(response, JSON_BYTES_MAX, attempt)
