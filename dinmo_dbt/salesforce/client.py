"""The one door to Salesforce over HTTP: timeouts, retries, session refresh, limits and the hosts that may be called.

Every request of the package goes through `Client.call`. A reply is one of three: whole, a definite refusal
(`SalesforceRefusal`, nothing was applied), or none that can be trusted; what the last means depends on the call's
`Effect`. Nothing is logged here; no message carries a token, a body, or, for requests that hold row values, any of
Salesforce's own words.

simple-salesforce: `Client.simple` is a `simple_salesforce.Salesforce` whose session is this door, and describe and
limits are read through its `restful`. Its writes, pagers and logins are not used, for these reasons, each seen in
1.12.10: no timeouts, redirects followed with the request's secrets, a token reply's whole body in an exception's
text, no refresh in bulk2, results decoded by a guessed charset.
"""

from __future__ import annotations

import io
import random
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from email.utils import parsedate_to_datetime
from enum import Enum
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn, TypeVar
from urllib.parse import quote, urlencode, urlsplit

import requests
import urllib3

from dinmo_dbt import __version__, wire
from dinmo_dbt.codes import (
    HOST_NOT_TRUSTED,
    LIMIT_USED_UP,
    NO_ANSWER,
    ORG_READ_ONLY,
    REDIRECTED,
    REPLY_LOST,
    REQUEST_REFUSED,
    REQUEST_TOO_LARGE,
    SESSION_REFUSED,
    WRONG_ORG,
)
from dinmo_dbt.destination import ApiUsage, ErrorClass, Remedy
from dinmo_dbt.errors import (
    AuthError,
    DestinationError,
    DinmoError,
    LimitReached,
    NotApplied,
    OutcomeUnknown,
    ReadOnly,
    TooLarge,
    WrongOrg,
    untrusted,
)
from dinmo_dbt.org import LOOPBACK, Secret
from dinmo_dbt.salesforce.errors import RETIRED_HINT, ReplyTooLarge, SalesforceRefusal, classify, hint

if TYPE_CHECKING:
    from simple_salesforce import Salesforce

API_VERSION = "62.0"  # results, and the ids in failed rows, need 53 or later; newer versions change nothing we use

CONNECT_TIMEOUT_S = 10
READ_TIMEOUT_S = 120  # of silence; bytes that come one by one never meet it, so one attempt as a whole is bounded too
JSON_SECONDS_MAX = 300
FILE_SECONDS_MAX = 3_600  # 100 MB at 28 kB/s
ATTEMPTS_MAX = 8
TOLD_AFTER = 3
# A login to a host without a name ends within 10 seconds, with `wire.LOOKUP_SECONDS_MAX` for a look-up.
NAME_ATTEMPTS_MAX = 3
NAME_AGAIN_WITHIN_S = 1.5
BACKOFF_BASE_S = 0.5
BACKOFF_MAX_S = 30.0
RETRY_AFTER_MAX_S = 60.0
JSON_BYTES_MAX = 64 << 20
FILE_BYTES_MAX = 1 << 30
_CHUNK_BYTES = 1 << 16  # of a file that is sent


Failed = TypeVar("Failed", bound=DinmoError)


class Effect(Enum):
    """What a call does when it arrives, and so what may follow a reply that never came."""

    NOTHING = "nothing"  # a read, or a call that changes no record: sent again; in the end NotApplied
    STAGES = "stages"  # stages data, changes no record, must not be repeated: NotApplied at once
    REPEATABLE = "repeatable"  # the same end state once or twice: sent again; in the end OutcomeUnknown
    ONCE = "once"  # never sent again after a doubt: OutcomeUnknown at once

    @property
    def repeats(self) -> bool:
        return self in (Effect.NOTHING, Effect.REPEATABLE)

    @property
    def acts(self) -> bool:
        return self in (Effect.REPEATABLE, Effect.ONCE)


@dataclass(frozen=True, slots=True)
class Login:
    """What a login gave: where to call, the session's token, and the org's id (18 characters)."""

    instance_url: str
    token: Secret
    organization_id: str
    username: str = ""


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole reply of status 2xx. `json` is None when the body was empty or went to a file."""

    status: int
    headers: Mapping[str, str]
    json: Any = None


@dataclass(frozen=True, slots=True)
class Request:
    """One call, as often as it is sent. `path` is below `/services/data/vNN.N/` unless it starts with `/`."""

    method: str
    path: str
    effect: Effect = Effect.NOTHING
    params: Mapping[str, str] | None = None
    body: bytes | BinaryIO | None = None
    content_type: str = "application/json; charset=UTF-8"
    accept: str = "application/json"
    holds_values: bool = False  # row values in the request: Salesforce's words about it stay out of messages
    file: BinaryIO | None = None  # where the body goes; None: it is JSON
    file_bytes_max: int = FILE_BYTES_MAX
    exact_numbers: bool = False  # JSON numbers arrive as their text
    is_whole: Callable[[Any], bool] | None = None  # whether the JSON has the promised shape
    before: Callable[[], None] | None = None  # each time it is sent


class _NotSent(Exception):
    """The request is known not to have acted, and may be sent again; `after_s` is the server's own wish."""

    def __init__(self, reason: str, after_s: float | None = None, *, final: type[DestinationError] = NotApplied):
        super().__init__(reason)
        self.after_s = after_s
        self.final = final


class _Unreached(_NotSent):
    """There is no connection to the host."""


class _NoSuchHost(_Unreached):
    """The host's name leads nowhere, or nobody says where."""


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


class _SessionExpired(Exception):
    """401 INVALID_SESSION_ID."""


class Client:
    """A logged-in HTTP client of one org. Safe to use from several threads.

    `log_in(client)` gives a `Login`; it is called at once and again, under a lock, when the session expires. `told` is
    called with a line for people while a login waits for an answer.
    """

    def __init__(
        self,
        log_in: Callable[[Client], Login],
        *,
        sleep: Callable[[float], None],
        rng: random.Random,
        api_share: Decimal = Decimal(80),
        trust_env: bool = False,
        ca_file: str | None = None,
        told: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._log_in = log_in
        self._sleep = sleep
        self._told = told
        self._rng = rng
        self._api_share = api_share
        self._session = _plain_session(trust_env)
        self._session.verify = ca_file or True
        self._lock = threading.Lock()
        self._renewal = threading.Lock()
        self._simple: Salesforce | None = None
        self._foreign: WrongOrg | None = None
        self.calls = 0
        self.usage = ApiUsage(0, 0)
        self._told_time: tuple[str, float] | None = None  # by the org's clock and by ours that nobody sets
        self.login = log_in(self)

    def close(self) -> None:
        self._session.close()

    def rest(self, seconds: float) -> None:
        """Sleep; ends early, with an exception, when the user asks to stop."""
        self._sleep(seconds)

    # The calls of the package

    def get(self, path: str, params: Mapping[str, str] | None = None, **options: Any) -> Any:
        """The JSON of a read."""
        return self.call(Request("GET", path, params=params, **options)).json

    def call(self, request: Request) -> Reply:
        """Send until a whole reply comes or the bound is met.

        Raises SalesforceRefusal, AuthError, LimitReached, ReadOnly, NotApplied, or OutcomeUnknown (see `Effect`). Once
        another org has answered a renewal, nothing is sent any more: whoever passed over that error meets it again.
        """
        if self._foreign is not None:
            raise without_frames(self._foreign)
        doubt = ""
        renewed = False
        error: DestinationError
        for attempt in range(ATTEMPTS_MAX):
            login = self.login
            if request.before is not None:
                request.before()
            try:
                url = _url(login.instance_url, request)
                return self._attempt(request, url, {"Authorization": f"Bearer {login.token.reveal()}"})
            except _SessionExpired:
                if renewed:
                    message = "Salesforce refused a session that was just renewed"
                    error = AuthError(SESSION_REFUSED, message, hint=hint("INVALID_SESSION_ID"))
                    break
                renewed = True
                try:
                    self._renew(login)
                except DestinationError as refused:
                    error = refused
                    break
            except _NotSent as pause:
                error = pause.final(NO_ANSWER, f"{_name(request)}: {pause}, {attempt + 1} times")
                self._pause(attempt, pause.after_s)
            except wire.Broken as lost:
                doubt = str(lost)
                kind = ReplyTooLarge if isinstance(lost, wire.TooLarge) else NotApplied
                error = kind(NO_ANSWER, f"{_name(request)}: {lost}, at attempt {attempt + 1}")
                if not request.effect.repeats or not lost.again:
                    break
                self._pause(attempt, None)
            except DestinationError as refused:
                error = refused
                break
        if doubt and request.effect.acts:
            raise OutcomeUnknown(
                REPLY_LOST, f"{_name(request)}: no whole reply came ({doubt}); it may have been applied"
            ) from without_frames(error)
        raise without_frames(error)

    def post_form(self, url: str, form: Mapping[str, str], headers: Mapping[str, str]) -> tuple[int, Any]:
        """A login call: status and JSON (None if the body isn't). Repeating it gives another token, no harm.

        Sent without a session's token; the URL must have passed `checked_url`.
        """
        kind = {"Content-Type": "application/x-www-form-urlencoded"}
        return self._ask("POST", url, {**kind, **headers}, urlencode(form).encode())

    def get_as(self, login: Login, path: str) -> tuple[int, Any]:
        """A read during login, under the token just given: status and JSON (None if the body isn't)."""
        url = _url(login.instance_url, Request("GET", path))
        try:
            return self._ask("GET", url, {"Authorization": f"Bearer {login.token.reveal()}"}, None)
        except DestinationError as error:
            raise without_frames(error) from None

    def _ask(self, method: str, url: str, headers: Mapping[str, str], body: bytes | None) -> tuple[int, Any]:
        """One call of the login: repeated on faults, any other answer is the caller's to judge."""
        reason, advice, began = "", "", time.monotonic()
        for attempt in range(ATTEMPTS_MAX):
            if attempt == TOLD_AFTER:  # a first answer that is lost is nothing to speak of
                self._told(f"no answer from {urlsplit(url).hostname} ({reason}): asking again for a while")
            kind = {"Accept": "application/json"}
            try:
                with (
                    wire.Attempt(JSON_SECONDS_MAX) as attempted,
                    self._exchange(attempted, method, url, headers={**kind, **headers}, body=body) as response,
                ):
                    text = wire.text(response, JSON_BYTES_MAX, attempted)
                if 200 <= response.status_code < 500 and response.status_code not in (420, 429):
                    return response.status_code, _json_or_none(text)
                reason = f"HTTP {response.status_code}"
            except _NoSuchHost as fault:
                reason, advice = str(fault), _NAME_HINT
                if attempt + 1 == NAME_ATTEMPTS_MAX or time.monotonic() - began > NAME_AGAIN_WITHIN_S:
                    break
            except (_NotSent, wire.Broken) as fault:
                reason = str(fault)
                advice = _reach_hint(url) if isinstance(fault, _Unreached) else ""
            self._pause(attempt, None)
        raise AuthError(NO_ANSWER, f"no answer from {urlsplit(url).hostname}: {reason}", hint=advice)

    @property
    def simple(self) -> Salesforce:
        """A simple-salesforce object whose every request passes `call`; for reads only."""
        if self._simple is None:
            from simple_salesforce import Salesforce

            simple = Salesforce(
                session_id="-", instance_url=self.login.instance_url, version=API_VERSION, session=_ReadingSession(self)
            )
            simple.base_url = f"{self.login.instance_url}/services/data/v{API_VERSION}/"
            self._simple = simple
        return self._simple

    # One attempt

    def _attempt(self, request: Request, url: str, headers: Mapping[str, str]) -> Reply:
        self._enforce_share()
        kind = {"Accept": request.accept}
        if request.body is not None:
            kind["Content-Type"] = request.content_type
        given = request.body
        with_file = request.file is not None or not isinstance(given, bytes | None)
        with wire.Attempt(FILE_SECONDS_MAX if with_file else JSON_SECONDS_MAX) as attempt:
            body = given if given is None or isinstance(given, bytes) else _TimedBody(given, attempt)
            response = self._exchange(attempt, request.method, url, headers={**kind, **headers}, body=body)
            with response:
                if not 200 <= response.status_code < 300:
                    _refuse(request, response, attempt)
                return _whole_reply(request, response, attempt)

    def _exchange(
        self,
        attempt: wire.Attempt,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes | _TimedBody | None,
    ) -> requests.Response:
        """The reply's head. _NotSent if nothing of the request went out, Broken if some of it may have."""
        with self._lock:
            self.calls += 1
        try:
            # Prepared by itself, a request has what it is given and no more: no cookie, no password from .netrc.
            request = requests.PreparedRequest()
            request.prepare(method, url, {**self._session.headers, **headers}, data=body)
            response = self._session.send(
                request,
                timeout=(CONNECT_TIMEOUT_S, READ_TIMEOUT_S),
                allow_redirects=False,
                **self._session.merge_environment_settings(url, {}, True, None, None),
            )
        except requests.exceptions.RequestException as fault:
            if isinstance(fault, requests.exceptions.SSLError) and (found := untrusted(fault)):
                wrong, advice = found
                message = f"the certificate of {urlsplit(url).hostname} {wrong}"
                raise NotApplied(HOST_NOT_TRUSTED, message, hint=advice or _AUTHORITY_HINT) from None
            if attempt.is_over:
                raise (_NotSent if attempt.is_unsent else wire.Broken)(attempt.overdue) from None
            if _is_unnamed(fault):
                raise _NoSuchHost("its name can't be found") from None
            if attempt.is_unsent or isinstance(fault, _NO_CONNECTION) or _never_connected(fault):
                is_tls = isinstance(fault, requests.exceptions.SSLError)
                raise _Unreached("no connection by TLS" if is_tls else "no connection") from None
            raise wire.Broken("connection lost") from None
        self._note_usage(response.headers.get("Sforce-Limit-Info", ""))
        self._note_time(response.headers.get("Date", ""))
        return response

    def _note_time(self, header: str) -> None:
        if header:
            self._told_time = header, time.monotonic()

    @property
    def org_time(self) -> float | None:
        """What time it is by the org's clock, as its last reply told: seconds since the epoch, UTC. None: none did."""
        if self._told_time is None:
            return None
        told, at = self._told_time
        try:
            return parsedate_to_datetime(told).timestamp() + time.monotonic() - at
        except (ValueError, TypeError, OverflowError):
            return None

    def _note_usage(self, header: str) -> None:
        found = re.search(r"(?<!-)api-usage=(\d{1,12})/(\d{1,12})", header)
        if found:
            self.usage = ApiUsage(int(found[1]), int(found[2]))

    def _enforce_share(self) -> None:
        used, limit = self.usage.used, self.usage.limit
        if limit and used >= limit * self._api_share / 100:
            raise LimitReached(
                LIMIT_USED_UP,
                f"{used} of the org's {limit} daily API calls are used; api_share allows {self._api_share}%",
                hint="wait for the 24-hour window to move on, or raise api_share in dinmo.yml",
            )

    def _renew(self, expired: Login) -> None:
        """Log in again unless another thread just did; the org must stay the same."""
        with self._renewal:
            if self.login is not expired:
                return
            try:
                login = self._log_in(self)
                if login.organization_id != expired.organization_id:
                    message = f"the renewed session is of another org: {login.organization_id}"
                    raise WrongOrg(WRONG_ORG, message, hint="nothing was sent")
            except WrongOrg as refused:
                self._foreign = refused
                raise
            self.login = login
            self._simple = None

    def _pause(self, attempt: int, after_s: float | None) -> None:
        if attempt == ATTEMPTS_MAX - 1:
            return
        backoff = self._rng.uniform(0, min(BACKOFF_MAX_S, BACKOFF_BASE_S * 2**attempt))
        self._sleep(backoff if after_s is None else min(after_s, RETRY_AFTER_MAX_S) + backoff)


def without_frames(error: Failed) -> Failed:
    """The error without the frames it came through: their variables hold secrets, which crash reporters would send."""
    error.__suppress_context__ = True
    return error.with_traceback(None)


def _plain_session(trust_env: bool) -> requests.Session:
    """A session that repeats nothing by itself: `Client.call` decides what is sent again, and counts it."""
    return wire.session(trust_env=trust_env, user_agent=f"dinmo-dbt/{__version__}", pool_size=8)


class _ReadingSession(requests.Session):
    """What simple-salesforce takes for its session: every request is a read through the client's door."""

    def __init__(self, client: Client) -> None:
        super().__init__()
        self._client = client

    def request(self, method: str | bytes, url: str | bytes, **options: Any) -> requests.Response:  # type: ignore[override]
        assert method == "GET", "simple-salesforce only reads here"
        parts = urlsplit(str(url))
        query = parts.query or urlencode(options.get("params") or {})
        request = Request(
            "GET", parts.path + ("?" + query if query else ""), is_whole=lambda json: isinstance(json, dict)
        )
        return _Read(self._client.call(request))


class _Read(requests.Response):
    """A reply that has been read: its JSON is not made text again, to be parsed once more."""

    def __init__(self, reply: Reply) -> None:
        super().__init__()
        self.status_code, self._json = reply.status, reply.json
        self.headers.update(reply.headers)

    def json(self, **_: Any) -> Any:
        return self._json


def _url(instance_url: str, request: Request) -> str:
    path = request.path if request.path.startswith("/") else f"/services/data/v{API_VERSION}/{request.path}"
    assert not path.startswith("//") and ".." not in path, path
    if request.params:
        # %20 and %2B, never `+`: servers differ on what a plus in a query means.
        path += "?" + urlencode(request.params, quote_via=quote)
    return instance_url + path


def _name(request: Request) -> str:
    """Method and path without its query, which can hold row values."""
    return f"{request.method} {request.path.partition('?')[0]}"


_AUTHORITY_HINT = (
    "its authority can be named: ca_file in dinmo.yml, beside auth; or REQUESTS_CA_BUNDLE or SSL_CERT_FILE in the "
    "environment"
)
UNKNOWN_HINT = (
    f"is that the org's own address? If it is, the org does not know version {API_VERSION} of the API: /services/data "
    "under its address lists those it knows"
)
_FOREIGN_HINT = "the answer does not have Salesforce's form: does a proxy on the way answer in its place?"
_NAME_HINT = "is login_url right? Setup -> My Domain. Does this machine find other names (VPN, DNS, proxy)?"


def _reach_hint(url: str) -> str:
    """Why a host may give no connection, though its name is known or needs none."""
    if urlsplit(url).hostname in LOOPBACK:
        return "does it run? The local org: dinmo-dbt emulator serve"
    return "is login_url right? Does this machine reach the host (VPN, firewall)?"


def _is_unnamed(fault: requests.exceptions.RequestException) -> bool:
    reason = fault.args[0] if fault.args else None
    return isinstance(getattr(reason, "reason", reason), urllib3.exceptions.NameResolutionError)


_NO_CONNECTION = (requests.exceptions.ConnectTimeout, requests.exceptions.ProxyError)


def _never_connected(fault: requests.exceptions.RequestException) -> bool:
    """Refused, or no such host: the request never left. Anything else may have arrived."""
    reason = fault.args[0] if fault.args else None
    cause = getattr(reason, "reason", reason)
    return isinstance(cause, urllib3.exceptions.NewConnectionError)


def _json_or_none(body: bytearray) -> Any:
    try:
        return wire.values(body)
    except wire.Broken:
        return None


def _whole_reply(request: Request, response: requests.Response, attempt: wire.Attempt) -> Reply:
    if request.file is not None:
        request.file.seek(0)
        request.file.truncate()
        wire.copy(response, request.file, min(request.file_bytes_max, FILE_BYTES_MAX), attempt)
        return Reply(response.status_code, response.headers)
    body = wire.text(response, JSON_BYTES_MAX, attempt)
    content = wire.values(body, exact_numbers=request.exact_numbers) if body.strip() else None
    if request.is_whole is not None and not request.is_whole(content):
        raise wire.Broken("the reply does not have the promised shape")
    return Reply(response.status_code, response.headers, content)


def _refuse(request: Request, response: requests.Response, attempt: wire.Attempt) -> NoReturn:
    """Raise what a status outside 2xx means."""
    status = response.status_code
    if status < 200:
        raise wire.Broken(f"HTTP {status}, which is no answer yet")
    if 300 <= status < 400:
        raise NotApplied(REDIRECTED, f"{_name(request)}: HTTP {status}, a redirect; none is followed")
    try:
        content = _json_or_none(wire.text(response, JSON_BYTES_MAX, attempt))
    except wire.Broken:
        content = None
    code, message = _salesforce_error(content)
    after_s = _retry_after(response.headers)
    verdict = classify(code, message)
    if status == 401:
        if code in ("INVALID_SESSION_ID", ""):
            raise _SessionExpired
        raise AuthError(SESSION_REFUSED, f"Salesforce refused the session: {code}", hint=hint(code))
    if code == "REQUEST_LIMIT_EXCEEDED" and "concurrent" in message.lower():
        raise _NotSent("too many long requests at once in the org", after_s, final=LimitReached)
    if code in ("REQUEST_LIMIT_EXCEEDED", "LIMIT_EXCEEDED", "EXCEEDEDQUOTA"):
        raise LimitReached(LIMIT_USED_UP, f"{_name(request)}: {code}", hint=hint("REQUEST_LIMIT_EXCEEDED"))
    if verdict.error_class is ErrorClass.MAINTENANCE:
        raise ReadOnly(ORG_READ_ONLY, f"{_name(request)}: {code}", hint=verdict.hint)
    if status in (420, 429):
        raise _NotSent(f"HTTP {status}", after_s)
    if status == 503 and (after_s is not None or verdict.remedy is Remedy.AGAIN):
        raise _NotSent(f"HTTP 503 {code}".rstrip(), after_s)  # refused at the door: a definite answer
    if status == 413 and request.holds_values:
        advice = "a proxy on the way may take less than Salesforce does"
        raise TooLarge(REQUEST_TOO_LARGE, f"{_name(request)}: HTTP 413, refused for its size", hint=advice)
    if status >= 500:
        raise wire.Broken(f"HTTP {status} {code}".rstrip())
    shown = code if request.holds_values or not message else f"{code}: {_one_line(message)}"
    raise SalesforceRefusal(
        REQUEST_REFUSED,
        f"{_name(request)}: HTTP {status} {shown}".rstrip(),
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
