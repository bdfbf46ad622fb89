"""The receiver of dbt Cloud's webhooks (docs.getdbt.com/docs/deploy/webhooks): verified, kept, answered.

Nothing else is done within a request, for dbt Cloud waits 10 seconds for the answer: the owner of the `Inbox` syncs
what is in it. What can't be kept is answered 503, and dbt Cloud sends it again.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from dinmo_dbt.codes import CLOUD_NOT_CONFIGURED
from dinmo_dbt.dbt_cloud.client import id_text
from dinmo_dbt.dbt_cloud.inbox import Event, Inbox
from dinmo_dbt.errors import StateError, UsageError
from dinmo_dbt.org import Secret
from dinmo_dbt.text import whole_text

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

PATH = "/dbt-cloud"
BODY_BYTES_MAX = 1_000_000
# A run that failed leads to a sync as well: the gate lets the models through that are healthy.
ENDED = ("job.run.completed", "job.run.errored")

_Answer = tuple[str, str]


def receiver(inbox: Inbox, secret: Secret, *, events: Iterable[str] = ENDED) -> WSGIApplication:
    """The WSGI application for `POST /dbt-cloud`. `events`: the types that are kept; others are answered 200.

    The event that dbt Cloud sends to test an endpoint looks like a real one, of a job that is not there: it is kept,
    and is for the inbox's reader to let go of, as are events of jobs that are not synced.
    """
    if not secret.reveal():
        raise UsageError(CLOUD_NOT_CONFIGURED, "the webhook's secret is empty", hint="anybody could sign with it")
    kept = frozenset(events)

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        status, message = _answer(environ, inbox, secret, kept)
        body = json.dumps({"message": message}).encode()
        headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
        start_response(status, [*headers, ("Allow", "POST")] if status.startswith("405") else headers)
        return [body]

    return app


def _answer(environ: WSGIEnvironment, inbox: Inbox, secret: Secret, kept: frozenset[str]) -> _Answer:
    if environ.get("PATH_INFO") != PATH:
        return "404 Not Found", "not here"
    if environ["REQUEST_METHOD"] != "POST":
        return "405 Method Not Allowed", "POST only"
    body = _body(environ)
    if body is None:
        return "413 Content Too Large", "an event is smaller"
    if not is_signed(body, environ.get("HTTP_AUTHORIZATION", ""), secret):
        return "401 Unauthorized", "the signature is not that of the body"
    try:
        content = whole_text.whole(json.loads(body))
    except (ValueError, RecursionError):
        return "400 Bad Request", "not JSON"
    if not isinstance(content, dict) or not isinstance(content.get("eventType"), str):
        return "400 Bad Request", "not an event"
    if content["eventType"] not in kept:
        return "200 OK", "nothing to do"
    event = _event(content, inbox.clock.now())
    if event is None:
        return "400 Bad Request", "an event without its id, job or run"
    try:
        return ("202 Accepted", "kept") if inbox.accept(event) else ("200 OK", "already received")
    except StateError as error:
        environ["wsgi.errors"].write(f"{error}\n")
        return "503 Service Unavailable", "it can't be kept"


def is_signed(body: bytes, signature: str, secret: Secret) -> bool:
    """Whether `signature`, the Authorization header, is the body's HMAC-SHA256 in hexadecimal under the secret."""
    expected = hmac.new(secret.reveal().encode("utf-8", "surrogateescape"), body, hashlib.sha256).hexdigest()
    return hmac.compare_digest(expected.encode(), signature.encode("utf-8", "surrogateescape"))


def _body(environ: WSGIEnvironment) -> bytes | None:
    """The whole body; None if it is larger than an event is."""
    declared = environ.get("CONTENT_LENGTH") or ""
    if declared and (not re.fullmatch(r"[0-9]{1,10}", declared) or int(declared) > BODY_BYTES_MAX):
        return None
    body: bytes = environ["wsgi.input"].read(int(declared or BODY_BYTES_MAX + 1))
    return body if len(body) <= BODY_BYTES_MAX else None


def _event(content: dict[str, Any], received: float) -> Event | None:
    """An event that names its run; None if it does not."""
    event_id, data = content.get("eventId"), content.get("data")
    if not isinstance(event_id, str) or not 0 < len(event_id) <= 200 or not isinstance(data, dict):
        return None
    job_id, run_id, status = id_text(data.get("jobId")), id_text(data.get("runId")), data.get("runStatus")
    if job_id is None or run_id is None:
        return None
    return Event(event_id, job_id, run_id, status[:50] if isinstance(status, str) else "", received)
