"""The org of a simulation: the emulator in process on a stopped clock, and the door processes reach it by."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import requests
import urllib3
from mounted_org import START, URL, OneClock, connected, mounted
from werkzeug.test import create_environ, run_wsgi_app

from dinmo_dbt import emulator
from dinmo_dbt.salesforce import SalesforceDestination

from .process import current, seams

TIMEOUT_MAX_S = 120
FIELDS = ("Ext__c", "Code__c", "A__c", "B__c", "C__c")
SCHEMA = """
objects:
  Thing__c:
    fields:
      Ext__c: {type: Text, length: 40, external_id: true, unique: true}
      Code__c: {type: Text, length: 40}
      A__c: {type: Text, length: 80}
      B__c: {type: Text, length: 80}
      C__c: {type: Text, length: 80}
"""


class _Door(requests.adapters.HTTPAdapter):
    """The mounted org: each call of a process is a seam, and is looked at when it is over."""

    def __init__(self, app: Any, inner: Any) -> None:
        super().__init__()
        self._app, self._inner = app, inner

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
            # Nothing happens to a reply on its way: then there need not be one. Half of all histories are quicker.
            if not self._app.faults.on_calls:
                return self.build_response(request, _answer(self._app, request))
            return self._inner.send(request, *more, **options)

        try:
            return process.around(name, act)
        finally:
            process.after_call()

    def close(self) -> None:
        """It serves every session of the simulation."""


def _answer(app: Any, request: requests.PreparedRequest) -> urllib3.HTTPResponse:
    """The app's reply by WSGI (PEP 3333), without HTTP between the two."""
    body = request.body or b""
    sent = body.encode() if isinstance(body, str) else body if isinstance(body, bytes) else body.read()
    environ = create_environ(
        request.path_url, URL, method=request.method or "GET", headers=dict(request.headers), data=sent
    )
    pieces, status, headers = run_wsgi_app(app, environ, buffered=True)
    data = io.BytesIO(b"".join(pieces))
    code, _, reason = status.partition(" ")
    return urllib3.HTTPResponse(
        data, headers.items(), int(code), reason=reason, preload_content=False, request_method=request.method
    )


class SimulatedOrg:
    """One emulator for many histories: `new` takes it back to its beginning in a millisecond."""

    def __init__(self, folder: Path) -> None:
        schema = folder / "schema.yml"
        schema.write_text(SCHEMA)
        self.folder = folder
        self.app = emulator.app(schema=schema, data=None, seed=1, clock=emulator.Clock(START))
        self.clock = OneClock(self.app.clock)
        self.org_id = self.app.identity.organization_id
        self._first = self.app.snapshot()
        self._id_of = cache(self.app.site.store.codec.encode)
        self._adapter = self.app.adapter()
        self._open = ExitStack()
        # For runs that stop: one thread, since the emulator keeps a connection for each that ever asked it.
        self.pool = self._open.enter_context(ThreadPoolExecutor(1))
        self._open.enter_context(seams())
        self._open.enter_context(mounted(lambda: _Door(self.app, self._adapter)))

    def new(self) -> None:
        self.app.restore(self._first)

    def close(self) -> None:
        self._open.close()
        self.app.close()

    def connect(self, scratch: Path, *, pinned: bool) -> SalesforceDestination:
        """A new process's own client; it logs in. `pinned`: it knows which org it must be."""
        return connected(self.app, self.clock, scratch, pinned=pinned)

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

    def held(self) -> list[dict[str, Any]]:
        """Every record of Thing__c."""
        store = self.app.site.store
        table, names = store.tables["Thing__c"].name, ", ".join(FIELDS)
        rows = store.reading().execute(f"SELECT rid, {names} FROM {table} WHERE IsDeleted = 0").fetchall()
        return [{"Id": self._id_of(rid), **dict(zip(FIELDS, fields, strict=True))} for rid, *fields in rows]

    # What others do

    @contextmanager
    def _session(self) -> Iterator[requests.Session]:
        with requests.Session() as session:
            session.trust_env = False
            session.mount(URL, self.app.adapter())
            session.headers["Authorization"] = f"Bearer {self.app.identity.access_token}"
            yield session

    def create(self, records: list[dict[str, Any]]) -> list[str]:
        ids = []
        with self._session() as session:
            for start in range(0, len(records), 200):
                body = {"records": [{"attributes": {"type": "Thing__c"}, **r} for r in records[start : start + 200]]}
                made = session.post(f"{URL}/services/data/v62.0/composite/sobjects", json=body).json()
                assert all(m["success"] for m in made), made
                ids += [m["id"] for m in made]
        return ids

    def edit(self, record_id: str, **fields: str | None) -> None:
        with self._session() as session:
            reply = session.patch(f"{URL}/services/data/v62.0/sobjects/Thing__c/{record_id}", json=fields)
        assert reply.status_code == 204, reply.text

    def delete(self, record_id: str) -> None:
        with self._session() as session:
            reply = session.delete(f"{URL}/services/data/v62.0/sobjects/Thing__c/{record_id}")
        assert reply.status_code == 204, reply.text
