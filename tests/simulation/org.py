"""The org of a simulation: the emulator in process on a stopped clock, how it is reached, and how a process dies."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import requests
from memory_org import Killed, Trip

from dinmo_dbt import emulator
from dinmo_dbt.project import Credentials, Org, Secret
from dinmo_dbt.salesforce import SalesforceDestination, client, connect

URL = "https://acme.my.salesforce.com"
START = datetime(2026, 3, 1, 12, tzinfo=UTC)
SCHEMA = """
objects:
  Thing__c:
    fields:
      Ext__c: {type: Text, length: 40, external_id: true, unique: true}
      Code__c: {type: Text, length: 40}
      A__c: {type: Text, length: 80}
      B__c: {type: Text, length: 80}
"""


class OneClock:
    """The org's clock, as a sync's: to sleep is to move it."""

    def __init__(self, clock: emulator.Clock) -> None:
        self._clock = clock

    def now(self) -> float:
        return self._clock().timestamp()

    def sleep(self, seconds: float) -> None:
        self._clock.advance(seconds)

    @property
    def time(self) -> float:
        return self.now()

    @time.setter
    def time(self, moment: float) -> None:
        self._clock.set(datetime.fromtimestamp(moment, UTC))


class Death(Trip):
    """A seam at which the process ends: the state folder stays as it was at that instant, and nothing is done after.

    What the code does while it unwinds would not be done by a process that is gone: its calls fail, its files are lost.
    """

    def __init__(self, folder: Path, at: int | str = -1, *, after: bool = False) -> None:
        super().__init__(at, after)
        self.folder, self.cut = folder, folder.with_name(f"{folder.name}.cut")
        self.dead = False

    def begins(self, name: str) -> None:
        if self.dead:
            raise Killed(name)
        self.seen.append(name)
        if self._is_it(name) and not self.after:
            self._strike(name)

    def ended(self, number: int, name: str) -> None:
        if not self.dead and self.after and self.at in (number, name):
            self._strike(name)

    def _strike(self, name: str) -> None:
        self.dead = True
        if self.folder.exists():
            shutil.copytree(self.folder, self.cut)
        raise Killed(name)

    def bury(self) -> None:
        """Put the folder back as it was when the process died."""
        shutil.rmtree(self.folder, ignore_errors=True)
        if self.cut.exists():
            self.cut.rename(self.folder)


class _Mortal(requests.adapters.BaseAdapter):
    """The mounted org, with a seam before and after each call."""

    def __init__(self, inner: Any, death: Trip) -> None:
        super().__init__()
        self._inner, self._death = inner, death

    def send(self, request: requests.PreparedRequest, *more: Any, **options: Any) -> Any:
        path = (request.url or "").removeprefix(URL).partition("?")[0]
        return self._death.around(f"{request.method} {path}", lambda: self._inner.send(request, *more, **options))

    def close(self) -> None:
        self._inner.close()


class SimulatedOrg:
    """One emulator for many histories: `new` takes it back to its beginning in a millisecond."""

    def __init__(self, folder: Path) -> None:
        schema = folder / "schema.yml"
        schema.write_text(SCHEMA)
        self.folder = folder
        self.app = emulator.app(schema=schema, data=None, seed=1, clock=emulator.Clock(START))
        self.clock = OneClock(self.app.clock)
        self._first = self.app.snapshot()
        (folder / "scratch").mkdir(exist_ok=True)

    def new(self) -> None:
        self.app.restore(self._first)

    def close(self) -> None:
        self.app.close()

    @contextmanager
    def process(self, death: Trip) -> Iterator[SalesforceDestination]:
        """A new process's own client: it logs in, and every call of it is a seam."""
        plain = client._plain_session

        def mounted(trust_env: bool) -> requests.Session:
            session = plain(trust_env)
            session.mount(URL, _Mortal(self.app.adapter(), death))
            return session

        client._plain_session = mounted
        try:
            yield connect(
                self._org(), scratch=self.folder / "scratch", sleep=self.clock.sleep, rng=random.Random(1),
                now=self.clock.now,
            )  # fmt: skip
        finally:
            client._plain_session = plain

    def _org(self) -> Org:
        who = self.app.identity
        credentials = Credentials(
            "client_credentials", URL, client_id=who.client_id, client_secret=Secret(who.client_secret)
        )
        return Org("crm", "dev", credentials, organization_id=who.organization_id)

    @contextmanager
    def _plain(self) -> Iterator[requests.Session]:
        with requests.Session() as session:
            session.mount(URL, self.app.adapter())
            session.headers["Authorization"] = f"Bearer {self.app.identity.access_token}"
            yield session

    def held(self) -> list[dict[str, Any]]:
        """Every record of Thing__c, from the org's own store: no call is made, and nothing of ours is believed."""
        store = self.app.site.store
        table = store.tables["Thing__c"].name
        rows = store.reading().execute(
            f"SELECT rid, Ext__c, Code__c, A__c, B__c FROM {table} WHERE IsDeleted = 0"
        ).fetchall()  # fmt: skip
        names = ("Ext__c", "Code__c", "A__c", "B__c")
        return [{"Id": store.codec.encode(rid), **dict(zip(names, fields, strict=True))} for rid, *fields in rows]

    def create(self, records: list[dict[str, Any]]) -> None:
        """Records that others made."""
        with self._plain() as session:
            for start in range(0, len(records), 200):
                body = {"records": [{"attributes": {"type": "Thing__c"}, **r} for r in records[start : start + 200]]}
                made = session.post(f"{URL}/services/data/v62.0/composite/sobjects", json=body).json()
                assert all(m["success"] for m in made), made
