"""Faults carried out on a call: a reply instead of the handler's, a reply changed, or an Effect for the transport.

Texts of refusals are Salesforce's where wire reference §4.3 has them; the others are unverified.
"""

from __future__ import annotations

import gzip
import json
from contextlib import suppress
from dataclasses import replace
from typing import Any

from werkzeug.wrappers import Response

from dinmo_dbt.emulator.errors import ApiError
from dinmo_dbt.emulator.faults.armed import Fired
from dinmo_dbt.emulator.faults.fault import KINDS, Fault
from dinmo_dbt.emulator.faults.resultfiles import altered
from dinmo_dbt.emulator.ids import ALPHABET, checksum
from dinmo_dbt.emulator.web import effect
from dinmo_dbt.emulator.web.call import Call, nothing
from dinmo_dbt.emulator.web.effect import Effect

_HANG_S = 3600.0
_SLOW_S = 1.0
_BYTES_PER_S = 100.0
# What damages a reply's bytes, in this order, and after all that has to read them.
_BYTES = {"invalid_utf8": 1, "bom": 1, "bad_gzip": 2, "truncated": 3, "content_length": 3}
_TEXTS: dict[int, tuple[str, str]] = {
    400: ("INVALID_REQUEST", "The request is not valid"),
    401: ("INVALID_SESSION_ID", "Session expired or invalid"),
    403: ("REQUEST_LIMIT_EXCEEDED", "TotalRequests Limit exceeded."),
    404: ("NOT_FOUND", "The requested resource does not exist"),
    405: ("METHOD_NOT_ALLOWED", "HTTP Method not allowed"),
    409: ("CONFLICT", "The request conflicts with the state of the resource"),
    413: ("REQUEST_ENTITY_TOO_LARGE", "The request entity is too large"),
    414: ("REQUEST_URI_TOO_LONG", "URI Too Long"),
    420: ("EDGE_ROUTING", "The request could not be routed"),
    429: ("TOO_MANY_REQUESTS", "Too many requests"),
    500: ("UNKNOWN_EXCEPTION", "An unexpected error occurred"),
    502: ("BAD_GATEWAY", "Bad gateway"),
    503: ("SERVER_UNAVAILABLE", "Server too busy"),
    504: ("GATEWAY_TIMEOUT", "Gateway timeout"),
}
_PAGE = (
    "<!DOCTYPE html><html><head><title>Service Not Available</title></head><body><h1>Service Not Available</h1>"
    "<p>The service is temporarily unavailable. Please try again later.</p></body></html>"
)


def before(call: Call, fired: list[Fired]) -> Response | None:
    """What comes in the place of the handler's reply; None where the call goes on.

    A session, a job, a quota or a record that a fault takes away is really gone: the call then meets that by itself.
    """
    for hit in fired:
        fault = hit.fault
        match fault.kind:
            case "request_lost":
                _leave(call, lost=True)
                return Response(status=503)  # never seen: the transport sends nothing
            case "redirect":
                return _redirect(call, fault)
            case "status" if not fault.done:
                return _refusal(call, fault)
            case "session_expired":
                call.site.sessions.expire(call.request.headers.get("Authorization"))
            case "quota_gone":
                call.site.usage.exhaust()
            case "job_deleted" | "results_expired":
                call.site.jobs.lose(str(call.values.get("job", "")), whole=fault.kind == "job_deleted")
            case "record_edited" | "record_deleted":
                _another_user(call, fault)
    return None


def after(call: Call, fired: list[Fired], response: Response) -> Response:
    """The reply as the faults leave it. What never arrived can't be repeated."""
    lost = _lost(fired)
    for hit in sorted(fired, key=lambda hit: _BYTES.get(hit.fault.kind, 0)):
        if lost and hit.fault.kind == "request_repeated":
            continue
        if KINDS[hit.fault.kind].acts == "after" or (hit.fault.kind == "status" and hit.fault.done):
            response = _changed(call, hit, response)
    return response


def _lost(fired: list[Fired]) -> bool:
    """Whether `before` let the request be lost: the first fault that takes the handler's place decides."""
    faults = (hit.fault for hit in fired)
    instead = (f.kind for f in faults if f.kind in ("request_lost", "redirect", "status") and not f.done)
    return next(instead, "") == "request_lost"


def _changed(call: Call, hit: Fired, response: Response) -> Response:
    fault = hit.fault
    match fault.kind:
        case "status":
            return _refusal(call, fault)
        case "reply_lost":
            _leave(call, lost=True)
        case "request_repeated":
            _leave(call, repeat=True)
        case "slow":
            _leave(call, delay_s=_SLOW_S if fault.seconds is None else fault.seconds)
        case "hang":
            _leave(call, delay_s=_HANG_S if fault.seconds is None else fault.seconds, lost=True)
        case "trickle":
            _leave(call, bytes_per_s=fault.bytes_per_s or _BYTES_PER_S)
        case "truncated":
            data = b"".join(response.iter_encoded())
            response.set_data(data)
            cut = len(data) // 2 if fault.at is None else min(fault.at, max(len(data) - 1, 0))
            _leave(call, cut_after=cut)
        case "content_length":
            data = b"".join(response.iter_encoded())
            response.set_data(data)
            response.headers["Content-Length"] = str(len(data) + (fault.at or 10))
            _leave(call, cut_after=len(data))
        case "html_page":
            return Response(_PAGE, status=200, content_type="text/html; charset=UTF-8")
        case "bad_gzip":
            data = _plain(response)
            packed = gzip.compress(data, compresslevel=1, mtime=0)
            response.headers["Content-Encoding"] = "gzip"
            response.set_data(packed[:10] + bytes(b ^ 0x5A for b in packed[10:]))
        case "invalid_utf8":
            data = _plain(response)
            middle = len(data) // 2
            response.set_data(data[:middle] + b"\xff\xfe" + data[middle:])
        case "bom":
            response.set_data(b"\xef\xbb\xbf" + _plain(response))
        case "limits_wrong":
            return _limits(response, 1.0 if fault.share is None else fault.share)
        case "other_instance":
            return _saying(response, instance_url=fault.location)
        case "other_org":
            return _other_org(call, response)
        case "missing_items" | "extra_items":
            return _items(response, more=fault.kind == "extra_items")
        case _:
            if response.mimetype == "text/csv" and response.status_code == 200:
                response.set_data(altered(hit, _plain(response)))
    return response


def _another_user(call: Call, fault: Fault) -> None:
    """An edit or a deletion by somebody else; nothing where the record is not there or can't be written."""
    records = call.site.records
    with call.site.faults.paused(), suppress(ApiError):
        table = records.table(fault.object or "")
        key, value = records.key(table, fault.field or ""), fault.value or ""
        encode = call.site.store.codec.encode
        for rid in [value] if key.name == "Id" else [encode(r) for r in records.find(table, key, value)]:
            if fault.changes is None:
                records.delete(table, rid)
            else:
                records.update(table, rid, dict(fault.changes))


def _limits(response: Response, share: float) -> Response:
    limits = json.loads(_plain(response))
    if response.status_code == 200:
        for limit in limits.values():
            limit["Remaining"] = int(limit["Max"] * share)
        response.set_data(_packed(limits))
    return response


def _saying(response: Response, **items: Any) -> Response:
    """The reply with some items of its JSON object changed, where it has them."""
    body = json.loads(_plain(response))
    response.set_data(_packed({**body, **{k: v for k, v in items.items() if k in body}}))
    return response


def _other_org(call: Call, response: Response) -> Response:
    """The reply with another org's id for this one's, in text and in tokens. Such a token is let in."""
    own = call.site.sessions.identity.organization_id
    other = own[:14] + ALPHABET[(ALPHABET.index(own[14]) + 1) % len(ALPHABET)]
    data = _plain(response)
    changed = data.replace(own.encode(), (other + checksum(other)).encode()).replace(own[:15].encode(), other.encode())
    if call.name == "token" and response.status_code == 200 and response.is_json:
        call.site.sessions.admit(json.loads(changed)["access_token"])
    response.set_data(changed)
    return response


def _leave(call: Call, **what: Any) -> None:
    before = effect.taken(call.request.environ) or Effect()
    effect.leave(call.request.environ, replace(before, **what))


def _plain(response: Response) -> bytes:
    """The body, no longer compressed."""
    data = b"".join(response.iter_encoded())
    if response.headers.get("Content-Encoding") == "gzip":
        del response.headers["Content-Encoding"]
        data = gzip.decompress(data)
    return data


def _refusal(call: Call, fault: Fault) -> Response:
    status = fault.status or 500
    code, message = _TEXTS.get(status, ("UNKNOWN_EXCEPTION", "An unexpected error occurred"))
    if status in (204, 304):
        response = nothing()
        response.status_code = status
    elif fault.html:
        response = Response(_PAGE, status=status, content_type="text/html; charset=UTF-8")
    elif call.name == "token" and status < 500:
        description = "authentication failure" if fault.message is None else fault.message
        response = call.json({"error": fault.code or "invalid_grant", "error_description": description}, status)
    else:
        error = ApiError(status, fault.code or code, message if fault.message is None else fault.message)
        response = call.json(error.body, status)
    if fault.retry_after is not None:
        response.headers["Retry-After"] = fault.retry_after
    return response


def _redirect(call: Call, fault: Fault) -> Response:
    path = call.request.full_path.rstrip("?")
    location = (fault.location or "{path}").replace("{path}", path)
    response = Response(status=fault.status or 302)
    response.autocorrect_location_header = False
    response.headers["Location"] = location
    return response


def _items(response: Response, *, more: bool) -> Response:
    """JSON with an item too few or too many: of the list it is, of the first list in it, or of its keys."""
    if response.mimetype != "application/json":
        return response
    body = json.loads(_plain(response))
    listed: list[Any] | None = body if isinstance(body, list) else None
    if listed is None:
        listed = next((v for v in body.values() if isinstance(v, list) and v), None)
    if listed:
        listed[:] = [*listed, listed[-1]] if more else listed[:-1]
    elif isinstance(body, dict) and body:
        if more:
            body["unexpected"] = None
        else:
            body.popitem()
    response.set_data(_packed(body))
    return response


def _packed(body: Any) -> bytes:
    return json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass")
