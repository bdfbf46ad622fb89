"""The org of a simulation: the emulator in process on a stopped clock, and the door processes reach it by."""

from __future__ import annotations

import base64
import io
import random
import re
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import requests
import urllib3
from mounted_org import START, URL, OneClock, connected, mounted

from dinmo_dbt import emulator
from dinmo_dbt.emulator.web import effect
from dinmo_dbt.emulator.web.mounted import MountedAdapter
from dinmo_dbt.salesforce import SalesforceDestination

from .buckets import BucketPlace
from .places import Folder, Place
from .process import current, seams
from .schemas import DuckDBFile, Engine, PostgresDatabase, Schema

if TYPE_CHECKING:
    from postgres_server import Postgres

TIMEOUT_MAX_S = 120
DUCKDB_SHARE = 0.1
FIELDS = ("Ext__c", "Code__c", "A__c", "B__c", "C__c", *(LOOKUPS := ("Parent__c", "Up__c")))
SCHEMA = """
objects:
  Thing__c:
    fields:
      Ext__c: {type: Text, length: 40, external_id: true, unique: true}
      Code__c: {type: Text, length: 40}
      A__c: {type: Text, length: 80}
      B__c: {type: Text, length: 80}
      C__c: {type: Text, length: 80}
      Parent__c: {type: Lookup, to: Parent__c}
      Up__c: {type: Lookup, to: Thing__c}
  Parent__c:
    fields:
      Key__c: {type: Text, length: 40, external_id: true, unique: true}
      Code__c: {type: Text, length: 40, external_id: true}
      Tag__c: {type: Text, length: 40}
  Dinmo_State__c:
    fields:
      Key__c: {type: Text, length: 64, external_id: true, unique: true, required: true}
      Serial__c: {type: Number, precision: 18, scale: 0}
      Lineage__c: {type: Text, length: 40}
      Run__c: {type: Text, length: 40}
"""
_WITHOUT_RECORDS = {"objects": {"Dinmo_State__c": None}}


class _Door(requests.adapters.HTTPAdapter):
    """The mounted org: each call of a process is a seam, and is looked at when it is over."""

    def __init__(self, app: Any) -> None:
        super().__init__()
        self._app = app

    def send(self, request: requests.PreparedRequest, *more: Any, **options: Any) -> Any:
        process = current()
        assert process is not None, "a call outside of any process"
        timeout = options.get("timeout")
        bounded = isinstance(timeout, tuple) and all(0 < (part or 0) <= TIMEOUT_MAX_S for part in timeout)
        assert bounded, f"I11: a call waits {timeout} s"
        path = re.sub(r"/750\w+", "/JOB", (request.url or "").removeprefix(URL).partition("?")[0])
        name = f"{request.method} {path}"
        process.calls += 1

        def act() -> Any:
            reply = _Reply(self._app, request)
            if not reply.fault:  # nothing happens to it on its way: then there need not be one
                return self.build_response(request, reply.received())
            return MountedAdapter(reply).send(request, *more, **options)  # type: ignore[arg-type]

        try:
            return process.around(name, act)
        finally:
            process.after_call()

    def close(self) -> None:
        """It serves every session of the simulation."""


class _Reply:
    """The app's reply to a request by WSGI (PEP 3333), and itself an app that gives it: what a fault does to a reply
    happens between a server and a client."""

    def __init__(self, app: Any, request: requests.PreparedRequest) -> None:
        environ = _environ(request)
        self._app, self._method = app, request.method
        self.clock, self.faults = app.clock, app.faults  # as a server asks its app for them
        with closing(app(environ, self._start)) as pieces:
            self._body = b"".join(pieces)
        self._effect = effect.taken(environ)
        self.fault = app.calls.kept().ring[-1].fault

    def _start(self, status: str, headers: list[tuple[str, str]], _: Any = None) -> None:
        self._status, self._headers = status, headers

    def received(self) -> urllib3.HTTPResponse:
        """As a client has it, without HTTP between the two."""
        code, _, reason = self._status.partition(" ")
        return urllib3.HTTPResponse(
            io.BytesIO(self._body), self._headers, int(code), reason=reason, preload_content=False,
            request_method=self._method,
        )  # fmt: skip

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        if effect.is_again(environ):
            return self._app(environ, start_response)
        if self._effect:
            effect.leave(environ, self._effect)
        start_response(self._status, self._headers)
        return [self._body]


def _environ(request: requests.PreparedRequest) -> dict[str, Any]:
    """The request as WSGI has it (PEP 3333)."""
    body = request.body or b""
    sent = body.encode() if isinstance(body, str) else body if isinstance(body, bytes) else body.read()
    url = urlsplit(request.url or "")
    headers = {f"HTTP_{name.upper().replace('-', '_')}": value for name, value in request.headers.items()}
    return {
        **headers, "CONTENT_TYPE": request.headers.get("Content-Type", ""), "CONTENT_LENGTH": str(len(sent)),
        "REQUEST_METHOD": request.method, "SCRIPT_NAME": "", "PATH_INFO": unquote(url.path, "latin-1"),
        "QUERY_STRING": url.query, "REQUEST_URI": request.path_url, "HTTP_HOST": url.netloc, "SERVER_NAME": url.netloc,
        "SERVER_PORT": "443", "SERVER_PROTOCOL": "HTTP/1.1", "wsgi.version": (1, 0), "wsgi.url_scheme": url.scheme,
        "wsgi.input": io.BytesIO(sent), "wsgi.errors": sys.stderr, "wsgi.multithread": False,
        "wsgi.multiprocess": False, "wsgi.run_once": False,
    }  # fmt: skip


class SimulatedOrg:
    """One emulator for many histories: `new` takes it back to its beginning in a millisecond. `state`: where all of
    them keep theirs, "folder", "duckdb" or "postgres" with its `server`; '' draws one of the first two."""

    def __init__(self, folder: Path, state: str = "", server: Postgres | None = None) -> None:
        self._state, self._server = state, server
        schema = folder / "schema.yml"
        schema.write_text(SCHEMA)
        self.folder = folder
        self.app = emulator.app(schema=schema, data=None, seed=1, clock=emulator.Clock(START))
        self.clock = OneClock(self.app.clock)
        self.org_id = self.app.identity.organization_id
        self._first_with_records = self.app.snapshot()
        self.app.change_schema(_WITHOUT_RECORDS)
        self._first = self.app.snapshot()
        self._has_records = False
        self._id_of = cache(self.app.site.store.codec.encode)
        self._open = ExitStack()
        # For runs that stop: one thread, since the emulator keeps a connection for each that ever asked it.
        self.pool = self._open.enter_context(ThreadPoolExecutor(1))
        self._open.enter_context(seams())
        self._open.enter_context(mounted(lambda: _Door(self.app)))

    def place(self, seed: int, home: Path) -> Place:
        """Where the history of that seed keeps its state, in its own folder `home` or elsewhere."""
        kind = self._state or ("duckdb" if random.Random(f"place {seed}").random() < DUCKDB_SHARE else "folder")
        if kind == "bucket":
            return BucketPlace(home, self.clock)
        return Folder(home) if kind == "folder" else Schema(home, seed, lambda: self._engine, kind)

    @cached_property
    def _engine(self) -> Engine:
        server = self._server
        engine = DuckDBFile(self.folder, self.clock) if server is None else PostgresDatabase(server, self.clock)
        self._open.push(engine.open)
        return engine

    def new(self, *, has_records: bool = False) -> None:
        """`has_records`: the object for records of states is installed."""
        self._has_records = has_records
        self.app.restore(self._first_with_records if has_records else self._first)

    def put_schema_back(self) -> None:
        self.app.drift.clear()
        if not self._has_records:
            self.app.change_schema(_WITHOUT_RECORDS)

    def close(self) -> None:
        self._open.close()
        self.app.close()

    def connect(self, scratch: Path, clock: OneClock, *, pinned: bool) -> SalesforceDestination:
        """A new process's own client, on that process's clock; it logs in. `pinned`: it knows which org it must be."""
        return connected(self.app, clock, scratch, pinned=pinned)

    @property
    def secrets(self) -> tuple[str, ...]:
        who = self.app.identity
        basic = base64.b64encode(f"{who.client_id}:{who.client_secret}".encode()).decode()
        return (who.client_secret, who.access_token, basic)

    # What is in it, by its own store: no call is made, and nothing of ours is believed

    @property
    def changes(self) -> int:
        """Grows with every change of the store."""
        return int(self.app.site.store._writer.total_changes)

    def last_call(self) -> Any:
        """The latest call that reached it, or None."""
        ring = self.app.calls.kept().ring
        return ring[-1] if ring else None

    @property
    def is_working(self) -> bool:
        """A job was closed and has not ended."""
        return self.app.site.jobs.waiting(self.app.site.store.reading()) is not None

    def held(self) -> list[dict[str, Any]]:
        """Every record of Thing__c."""
        return self._records("Thing__c", FIELDS)

    def parents(self) -> list[dict[str, Any]]:
        """Every record of Parent__c."""
        return self._records("Parent__c", ("Code__c", "Tag__c"))

    def _records(self, name: str, names: tuple[str, ...]) -> list[dict[str, Any]]:
        store = self.app.site.store
        table = store.tables[name].name
        rows = store.reading().execute(f"SELECT rid, {', '.join(names)} FROM {table} WHERE IsDeleted = 0").fetchall()
        found = [{"Id": self._id_of(rid), **dict(zip(names, fields, strict=True))} for rid, *fields in rows]
        for record in found:
            record |= {each: self._id_of(record[each]) for each in LOOKUPS if record.get(each) is not None}
        return found

    # What others do

    @contextmanager
    def _session(self) -> Iterator[requests.Session]:
        with requests.Session() as session:
            session.trust_env = False
            session.mount(URL, self.app.adapter())
            session.headers["Authorization"] = f"Bearer {self.app.identity.access_token}"
            yield session

    def create(self, records: list[dict[str, Any]], name: str = "Thing__c") -> list[str]:
        ids = []
        with self._session() as session:
            for start in range(0, len(records), 200):
                body = {"records": [{"attributes": {"type": name}, **r} for r in records[start : start + 200]]}
                made = session.post(f"{URL}/services/data/v62.0/composite/sobjects", json=body).json()
                assert all(m["success"] for m in made), made
                ids += [m["id"] for m in made]
        return ids

    def edit(self, record_id: str, **fields: str | None) -> None:
        with self._session() as session:
            reply = session.patch(f"{URL}/services/data/v62.0/sobjects/Thing__c/{record_id}", json=fields)
        assert reply.status_code == 204, reply.text

    def delete(self, record_id: str, name: str = "Thing__c") -> None:
        with self._session() as session:
            reply = session.delete(f"{URL}/services/data/v62.0/sobjects/{name}/{record_id}")
        # A job of ours may go on as the call arrives, and delete it first.
        assert reply.status_code == 204 or "ENTITY_IS_DELETED" in reply.text, reply.text
