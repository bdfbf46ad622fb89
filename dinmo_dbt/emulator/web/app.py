"""The WSGI application: one org, its worker, and the way of a request to its handler.

Opens the data folder, sees that Bulk jobs go on, answers requests from any number of threads.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from werkzeug.exceptions import ClientDisconnected, HTTPException, MethodNotAllowed, NotFound
from werkzeug.routing import Rule
from werkzeug.wrappers import Request, Response

from dinmo_dbt.emulator.bulk.ingest import Ingest
from dinmo_dbt.emulator.bulk.job import JobTable
from dinmo_dbt.emulator.bulk.pace import Pace
from dinmo_dbt.emulator.bulk.processing import Processing
from dinmo_dbt.emulator.bulk.queryjobs import QueryJobs
from dinmo_dbt.emulator.bulk.worker import Worker
from dinmo_dbt.emulator.clock import Clock
from dinmo_dbt.emulator.drift import Drift
from dinmo_dbt.emulator.errors import ApiError, EmulatorError, not_emulated
from dinmo_dbt.emulator.faults.armed import Faults
from dinmo_dbt.emulator.identity import Identity, chance_of
from dinmo_dbt.emulator.limits import Limits, Usage, with_requests
from dinmo_dbt.emulator.logins import Logins
from dinmo_dbt.emulator.records.calls import Records, SeveralError
from dinmo_dbt.emulator.records.engine import Org
from dinmo_dbt.emulator.records.guard import Guard
from dinmo_dbt.emulator.records.locks import Locks
from dinmo_dbt.emulator.records.seed import load_records, seed_org
from dinmo_dbt.emulator.schema.source import read_schema
from dinmo_dbt.emulator.store import Store, stamp
from dinmo_dbt.emulator.web import control, effect, faulty, page
from dinmo_dbt.emulator.web.auth import OAuthError, Sessions
from dinmo_dbt.emulator.web.call import Call, Site, checked_version
from dinmo_dbt.emulator.web.calls import Calls, Seen
from dinmo_dbt.emulator.web.freshness import Freshness
from dinmo_dbt.emulator.web.gate import Gate
from dinmo_dbt.emulator.web.names import call_name, every_name, shown_path
from dinmo_dbt.emulator.web.routes import Handler, known_path, route_map, unknown
from dinmo_dbt.emulator.web.snapshot import Memory, Snapshot, Snapshots

if TYPE_CHECKING:
    from dinmo_dbt.emulator.web.mounted import MountedAdapter

URI_BYTES_MAX = 16_384
_AGENT_MAX = 120
_ALLOW_SAVE = re.compile(r"allowSave\s*=\s*true", re.IGNORECASE)
_OVERRIDE = re.compile(r"(?:^|&)_HttpMethod=(\w+)")


class App:
    """One Salesforce org as a WSGI application. `close()` stops its worker and releases its folder.

    While `clock` runs, jobs go on in a background thread, mounted in process or served, so a client polls as it would
    poll Salesforce; with a stopped clock, or a `pace` by poll, there is no thread and calls carry jobs on.
    `batch_delay_s` is `Pace.batch_s` where no pace is given. The keywords are those of OrgOptions.

    `faults`, `clock`, `limits`, `logins`, `pace`, `lock`, `locks`, `calls`, `change_schema` are what `/emulator/...`
    offers.
    """

    def __init__(
        self, *, schema: Path | None, data: Path | None, records: Path | None = None,
        batch_delay_s: float = 0.0, daily_api_requests: int | None = None, public_key: str | None = None,
        clock: Clock | None = None, pace: Pace | None = None, limits: Limits | None = None,
        session_s: int | None = None, seed: int | None = None, logins: Logins | None = None,
    ) -> None:  # fmt: skip
        self.chance = chance_of(seed)
        self._gate = Gate()
        self._source = source = read_schema(schema)
        self._records_folder = records
        self._store = Store(data, source, seed=seed)
        try:
            self.drift = Drift(self._store, source)
            first_clock = clock.text() if clock is not None else Clock().text()
            self.clock = clock = clock or self._own_clock()
            self._map = route_map()
            self.faults = Faults(lambda: self._store.schema, every_name(self._map))
            self.calls = Calls()
            self.snapshots = Snapshots()
            org = Org(self._store, clock)
            recordcalls = Records(self._store, org)
            sessions = Sessions(
                self._store, clock, chance=self.chance, public_key=public_key, session_s=session_s,
                logins=logins or Logins(),
            )  # fmt: skip
            seed_org(self._store, clock)
            load_records(self._store, recordcalls, records)
            usage = Usage(self._store, clock, with_requests(limits, daily_api_requests))
            self.locks = Locks(self._store, clock)
            org.guard = Guard(self.faults, self.locks, usage)
            pace = pace or Pace(batch_s=batch_delay_s)
            jobs = JobTable(self._store, clock)
            common: dict[str, Any] = {"faults": self.faults, "usage": usage}
            processing = Processing(self._store, org, jobs, pace=pace, **common)
            queries = QueryJobs(self._store, clock, jobs, pace=pace, wake=self._wake, **common)
            worker = Worker(self._store, jobs, clock, {"ingest": processing, "query": queries}, pace)
            self.site = Site(
                clock=clock, store=self._store, org=org, records=recordcalls, sessions=sessions, jobs=jobs,
                ingest=Ingest(self._store, org, jobs, processing, wake=self._wake, **common),
                queries=queries, worker=worker, usage=usage, faults=self.faults, freshness=Freshness(clock),
            )  # fmt: skip
            self._closed = False
            self._first = replace(Memory.of(self), clock=first_clock)
            worker.tend()
        except BaseException:
            self._store.close()
            raise

    @property
    def identity(self) -> Identity:
        """Who the org is: ids, user, client and the folder's own access token."""
        return self.site.sessions.identity

    @property
    def limits(self) -> Limits:
        """What the org allows; set it to change that at once."""
        return self.site.usage.limits

    @limits.setter
    def limits(self, limits: Limits) -> None:
        self.site.usage.limits = limits

    @property
    def logins(self) -> Logins:
        """Which logins the org takes; set it to change that at once."""
        return self.site.sessions.logins

    @logins.setter
    def logins(self, logins: Logins) -> None:
        self.site.sessions.logins = logins

    @property
    def pace(self) -> Pace:
        """How jobs go on; set it to change that for the steps to come."""
        return self.site.worker.pace

    @pace.setter
    def pace(self, pace: Pace) -> None:
        self.site.worker.pace = pace
        self.site.worker.wake()

    def change_schema(self, document: dict[str, Any]) -> None:
        """Lay a schema document over the running org (`drift` lists and clears them). SchemaError where it can't be."""
        self.drift.lay(document)

    def lock(self, ids: Iterable[str], seconds: float) -> None:
        """A user's transaction holds these records for a time on the clock (`locks` says which, and releases)."""
        self.locks.hold(ids, seconds)

    def snapshot(self) -> Snapshot:
        """The org as it is, to go back to as often as wanted: a millisecond for 1,000 records.

        In it are records, recycle bin, jobs and their files, sessions, cursors, schema changes, limits and their use,
        logins, pace, clock, faults and how far each has come, locks, the last calls and, of a seeded org, its chance.
        It lasts until it is let go of or the app is closed. Waits and raises as `restore` does.
        """
        with self._gate.alone():
            self.site.usage.save()
            return Snapshot(self._store, self._store.save(), Memory.of(self))

    def restore(self, snapshot: Snapshot) -> None:
        """Be as at the snapshot. A clock that ran then runs on, as far from real time as it was.

        Waits for the calls under way, for at most 10 s; a file that is still being read may end early. Raises
        EmulatorError for a snapshot of another org or when calls do not end.
        """
        if snapshot.store is not self._store:
            raise EmulatorError("restore: that snapshot is of another org")
        with self._gate.alone():
            self.site.worker.rest()
            self._store.load(snapshot.saved)
            self._go_on(snapshot.memory)

    def reset(self) -> None:
        """Be as at the first start of a new folder, with the same identity and the options the app was made with.

        Starting records are loaded anew. Waits and raises as `restore` does.
        """
        with self._gate.alone():
            self.site.worker.rest()
            self._store.empty(self._source)
            self.clock.become(self._first.clock)
            seed_org(self._store, self.clock)
            load_records(self._store, self.site.records, self._records_folder)
            self._go_on(self._first)

    def _go_on(self, memory: Memory) -> None:
        """From what the store has now, and from `memory`."""
        self.drift.reload()
        self.site.sessions.reload()
        self.site.usage.reload()
        memory.put_back(self)
        self.site.worker.tend()

    def adapter(self) -> MountedAdapter:
        """The org for a `requests.Session`, without a socket: `session.mount("https://acme.my.salesforce.com", ...)`.

        Close the app, not the adapter. The control endpoint answers only under a loopback name.
        """
        from dinmo_dbt.emulator.web.mounted import MountedAdapter

        return MountedAdapter(self)

    def close(self) -> None:
        """Stop after the batch in hand; what is unfinished goes on when the folder is opened again."""
        if self._closed:
            return
        self._closed = True
        self.site.worker.close()
        self.site.usage.save()
        self._store.close()

    def _own_clock(self) -> Clock:
        """The folder's own clock: moved or stopped, it stays so over a restart, and jobs with it."""
        kept = self._store.meta("clock")
        clock = Clock.kept(kept) if kept is not None else Clock()
        clock.moved = lambda: self._store.set_meta("clock", clock.text())
        return clock

    def _wake(self) -> None:
        self.site.worker.wake()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        sent = environ["REQUEST_METHOD"]
        environ["REQUEST_METHOD"] = _meant(sent, environ.get("QUERY_STRING", ""))
        request = Request(environ)
        if request.path == "/emulator" or request.path.startswith("/emulator/"):
            response = control.answer(self, request)
            if not _drain(request):
                response.headers["Connection"] = "close"
        elif request.path == "/" and request.method == "GET" and control.is_local(request):
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
