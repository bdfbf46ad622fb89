"""The WSGI application: the way of a request to its handler, from any number of threads."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from contextlib import suppress
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from werkzeug.exceptions import ClientDisconnected, HTTPException, MethodNotAllowed, NotFound
from werkzeug.routing import Rule
from werkzeug.wrappers import Request, Response

from dinmo_dbt.emulator.errors import ApiError, not_emulated
from dinmo_dbt.emulator.records.single import SeveralError
from dinmo_dbt.emulator.store import stamp
from dinmo_dbt.emulator.web import control, effect, faulty
from dinmo_dbt.emulator.web.call import Call, checked_version
from dinmo_dbt.emulator.web.calls import Seen
from dinmo_dbt.emulator.web.credentials import OAuthError
from dinmo_dbt.emulator.web.instance import Instance
from dinmo_dbt.emulator.web.names import call_name, shown_path
from dinmo_dbt.emulator.web.routes import Handler, known_path, unknown

if TYPE_CHECKING:
    from dinmo_dbt.emulator.web.mounted import MountedAdapter

URI_BYTES_MAX = 16_384
_AGENT_MAX = 120
_ALLOW_SAVE = re.compile(r"allowSave\s*=\s*true", re.IGNORECASE)
_OVERRIDE = re.compile(r"(?:^|&)_HttpMethod=(\w+)")


class App(Instance):
    """One Salesforce org as a WSGI application."""

    def adapter(self) -> MountedAdapter:
        """The org for a `requests.Session`, without a socket: `session.mount("https://acme.my.salesforce.com", ...)`.

        Close the app, not the adapter. The control endpoint answers only under a loopback name.
        """
        from dinmo_dbt.emulator.web.mounted import MountedAdapter

        return MountedAdapter(self)

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        sent = environ["REQUEST_METHOD"]
        environ["REQUEST_METHOD"] = _meant(sent, environ.get("QUERY_STRING", ""))
        request = Request(environ)
        if request.path == "/emulator" or request.path.startswith("/emulator/"):
            response = control.answer(self, request)
            if not _drain(request):
                response.headers["Connection"] = "close"
        elif request.path == "/" and request.method == "GET" and control.is_local(request):
            from dinmo_dbt.emulator.web import page  # Jinja, which no client needs

            with self._gate.passing():
                response = page.answer(self, request)
        else:
            with self._gate.passing():
                response = self._respond(Call(self.site, request))
        with suppress(ValueError):  # werkzeug shouts the words of a status
            response.status = f"{response.status_code} {HTTPStatus(response.status_code).phrase}"
        # With HEAD again, the reply leaves its body out.
        return response({**environ, "REQUEST_METHOD": "HEAD"} if sent == "HEAD" else environ, start_response)

    def _respond(self, call: Call) -> Response:
        began = time.monotonic()
        try:
            response = self._dispatch(call)
        except ApiError as error:
            response = call.json(error.body, error.status)
        except ClientDisconnected:  # nobody is left to read this
            return Response(status=400, headers={"Connection": "close"})
        except OAuthError as error:
            response = call.json(error.body, 400)
            response.headers["Cache-Control"] = "no-store"
        except SeveralError as error:
            paths = [f"{call.base}/sobjects/{error.name}/{self._store.codec.encode(r)}" for r in error.rids]
            response = call.json(paths, 300)
        finally:
            if call.running:
                self.site.usage.end()
        if call.fired:
            response = faulty.after(call, call.fired, response)
        if call.version:
            usage = self.site.usage
            response.headers["Sforce-Limit-Info"] = f"api-usage={usage.requests}/{usage.requests_max}"
        response.headers.setdefault("Cache-Control", "no-cache,must-revalidate,max-age=0,no-store,private")
        response.headers["Server"] = "sfdcedge"
        response.date = self.clock()
        response.headers["X-SFDC-Request-Id"] = f"{self.chance.getrandbits(128):032x}"
        if not _drain(call.request):
            response.headers["Connection"] = "close"
        self._note(call, response.status_code, began)
        return response

    def _note(self, call: Call, status: int, began: float) -> None:
        spent = 0 if self.clock.stopped else int((time.monotonic() - began) * 1000)
        fault = ", ".join(f"{f.fault.kind} ({f.id})" for f in call.fired) or None
        headers = call.request.headers
        token = headers.get("Authorization", "").partition(" ")[2].strip() if call.version else None
        seen = Seen(
            time=stamp(self.clock()), method=call.request.method, path=call.route, name=call.name, status=status,
            ms=spent, fault=fault, agent=headers.get("User-Agent", "")[:_AGENT_MAX],
        )  # fmt: skip
        self.calls.add(seen, token)

    def _dispatch(self, call: Call) -> Response:
        rule, found = self._match(call)
        handler: Handler = rule.endpoint
        call.values = values = {k: unquote(str(v)) for k, v in found.items()}
        call.name = call_name(handler, call.request)
        call.route = shown_path(rule.rule, values, call.request)
        self.site.worker.tend()
        if not effect.is_again(call.request.environ):
            duplicates = call.request.headers.get("Sforce-Duplicate-Rule-Header", "")
            call.fired = self.faults.at_call(call.name, allow_save=_ALLOW_SAVE.search(duplicates) is not None)
        if call.fired:
            reply = faulty.before(call, call.fired)
            if reply is not None:
                return reply
        if "version" in values:
            self.site.sessions.check(call.request.headers.get("Authorization"))
            call.version = checked_version(values.pop("version"))
            if call.request.headers.get("Accept", "").startswith(("application/xml", "text/xml")):
                raise not_emulated("replies in XML")
            self.site.usage.begin()
            call.running = True
        return handler(call, **values)

    def _match(self, call: Call) -> tuple[Rule, dict[str, Any]]:
        request = call.request
        raw = str(request.environ.get("REQUEST_URI") or request.environ.get("RAW_URI") or request.full_path)
        if len(raw) > URI_BYTES_MAX:
            raise ApiError(414, "REQUEST_URI_TOO_LONG", "URI Too Long")
        if len(raw) + sum(len(k) + len(v) for k, v in request.headers.items()) > URI_BYTES_MAX:
            raise ApiError(431, "REQUEST_HEADER_FIELDS_TOO_LARGE", "Request Header Fields Too Large")  # text unverified
        path = raw.partition("?")[0]
        if "://" in path:
            path = "/" + path.split("/", 3)[-1]
        path = f"/{path.strip('/')}"
        try:
            return self._map.bind("emulator").match(  # type: ignore[return-value]
                path, method=request.method, return_rule=True
            )
        except MethodNotAllowed as error:
            call.route = known_path(path)
            allowed = ",".join(sorted(error.valid_methods or ()))
            message = f"HTTP Method '{request.method}' not allowed. Allowed are {allowed}"
            raise ApiError(405, "METHOD_NOT_ALLOWED", message) from error
        except NotFound as error:
            call.route = known_path(path)
            if path.startswith("/services/data/"):
                self.site.sessions.check(request.headers.get("Authorization"))
            raise unknown(request, path) from error
        except HTTPException as error:
            raise ApiError(error.code or 400, "UNKNOWN_EXCEPTION", error.description or "") from error


def _meant(method: str, query: str) -> str:
    """HEAD runs as GET; `_HttpMethod` lets a POST be what Apex can't send."""
    if method == "HEAD":
        return "GET"
    override = _OVERRIDE.search(query) if method == "POST" else None
    return override[1].upper() if override else method


def _drain(request: Request) -> bool:
    """Read what is left of the body; whether that leaves the connection usable."""
    try:
        while request.stream.read(1 << 20):
            pass
    except ClientDisconnected:
        return False
    return True
