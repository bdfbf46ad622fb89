"""One attempt of a request: the reply's head comes, or what is known of what became of the request."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from typing import BinaryIO
from urllib.parse import urlsplit

import requests
import urllib3

from dinmo_dbt import __version__, wire
from dinmo_dbt.codes import HOST_NOT_TRUSTED
from dinmo_dbt.errors import NotApplied, untrusted
from dinmo_dbt.salesforce.meter import Meter
from dinmo_dbt.salesforce.replies import NotSent, refuse, text_of, whole_reply
from dinmo_dbt.salesforce.request import Reply, Request

CONNECT_TIMEOUT_S = 10
READ_TIMEOUT_S = 120  # of silence; bytes that come one by one never meet it, so one attempt as a whole is bounded too
JSON_SECONDS_MAX = 300
FILE_SECONDS_MAX = 3_600  # 100 MB at 28 kB/s
_CHUNK_BYTES = 1 << 16  # of a file that is sent
_AUTHORITY_HINT = (
    "its authority can be named: ca_file in dinmo.yml, beside auth; or REQUESTS_CA_BUNDLE or SSL_CERT_FILE in the "
    "environment"
)


class Unreached(NotSent):
    """There is no connection to the host."""


class NoSuchHost(Unreached):
    """The host's name leads nowhere, or nobody says where."""


class Line:
    """The connections to an org, and what came over them."""

    def __init__(self, *, trust_env: bool, ca_file: str | None) -> None:
        self.session = plain_session(trust_env)
        self.session.verify = ca_file or True
        self.meter = Meter()

    def attempt(self, request: Request, url: str, headers: Mapping[str, str]) -> Reply:
        kind = {"Accept": request.accept}
        if request.body is not None:
            kind["Content-Type"] = request.content_type
        given = request.body
        with_file = request.file is not None or not isinstance(given, bytes | None)
        with wire.Attempt(FILE_SECONDS_MAX if with_file else JSON_SECONDS_MAX) as attempt:
            body = given if given is None or isinstance(given, bytes) else _TimedBody(given, attempt)
            response = self.exchange(attempt, request.method, url, headers={**kind, **headers}, body=body)
            with response:
                if not 200 <= response.status_code < 300:
                    refuse(request, response, attempt)
                return whole_reply(request, response, attempt)

    def answer(self, method: str, url: str, headers: Mapping[str, str], body: bytes | None) -> tuple[int, bytearray]:
        """One attempt of any call: its status, and its body whatever that is."""
        with (
            wire.Attempt(JSON_SECONDS_MAX) as attempt,
            self.exchange(attempt, method, url, headers=headers, body=body) as response,
        ):
            return response.status_code, text_of(response, attempt)

    def exchange(
        self,
        attempt: wire.Attempt,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes | _TimedBody | None,
    ) -> requests.Response:
        """The reply's head. NotSent if nothing of the request went out, Broken if some of it may have."""
        self.meter.count()
        try:
            # Prepared by itself, a request has what it is given and no more: no cookie, no password from .netrc.
            request = requests.PreparedRequest()
            request.prepare(method, url, {**self.session.headers, **headers}, data=body)
            response = self.session.send(
                request,
                timeout=(CONNECT_TIMEOUT_S, READ_TIMEOUT_S),
                allow_redirects=False,
                **self.session.merge_environment_settings(url, {}, True, None, None),
            )
        except requests.exceptions.RequestException as fault:
            raise _meaning(fault, attempt, url) from None
        self.meter.note(response.headers)
        return response


def plain_session(trust_env: bool) -> requests.Session:
    """A session that repeats nothing by itself: `Client.call` decides what is sent again, and counts it."""
    return wire.session(trust_env=trust_env, user_agent=f"dinmo-dbt/{__version__}", pool_size=8)


def _meaning(fault: requests.exceptions.RequestException, attempt: wire.Attempt, url: str) -> Exception:
    is_tls = isinstance(fault, requests.exceptions.SSLError)
    if is_tls and (found := untrusted(fault)):
        wrong, advice = found
        message = f"the certificate of {urlsplit(url).hostname} {wrong}"
        return NotApplied(HOST_NOT_TRUSTED, message, hint=advice or _AUTHORITY_HINT)
    if attempt.is_over:
        return (NotSent if attempt.is_unsent else wire.Broken)(attempt.overdue)
    if _is_unnamed(fault):
        return NoSuchHost("its name can't be found")
    if attempt.is_unsent or isinstance(fault, _NO_CONNECTION) or _never_connected(fault):
        return Unreached("no connection by TLS" if is_tls else "no connection")
    return wire.Broken("connection lost")


def _is_unnamed(fault: requests.exceptions.RequestException) -> bool:
    reason = fault.args[0] if fault.args else None
    return isinstance(getattr(reason, "reason", reason), urllib3.exceptions.NameResolutionError)


_NO_CONNECTION = (requests.exceptions.ConnectTimeout, requests.exceptions.ProxyError)


def _never_connected(fault: requests.exceptions.RequestException) -> bool:
    """Refused, or no such host: the request never left. Anything else may have arrived."""
    reason = fault.args[0] if fault.args else None
    cause = getattr(reason, "reason", reason)
    return isinstance(cause, urllib3.exceptions.NewConnectionError)


class _TimedBody:
    """A file to send, from its beginning, as requests takes one: it is read piece by piece until the deadline."""

    def __init__(self, file: BinaryIO, attempt: wire.Attempt) -> None:
        self._file, self._attempt = file, attempt
        self._size = file.seek(0, io.SEEK_END)
        file.seek(0)

    def __len__(self) -> int:
        return self._size

    def read(self, size: int = -1) -> bytes:
        self._attempt.check()
        return self._file.read(size)

    def __iter__(self) -> Iterator[bytes]:
        return iter(lambda: self.read(_CHUNK_BYTES), b"")
