"""The emulator in process under our own client: no socket, one clock for both sides."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import requests

from dinmo_dbt import emulator
from dinmo_dbt.org import Credentials, Org, Secret
from dinmo_dbt.salesforce import SalesforceDestination, attempt, connect

URL = "https://acme.my.salesforce.com"
START = datetime(2026, 3, 1, 12, tzinfo=UTC)


class OneClock:
    """The org's clock, as a sync's: to sleep is to move it."""

    def __init__(self, clock: emulator.Clock) -> None:
        self._clock = clock

    def now(self) -> float:
        return self._clock().timestamp()

    def monotonic(self) -> float:
        return self.now()

    def sleep(self, seconds: float) -> None:
        self._clock.advance(seconds)

    @property
    def time(self) -> float:
        return self.now()

    @time.setter
    def time(self, moment: float) -> None:
        self.sleep(moment - self.now())


@contextmanager
def mounted(adapter: Callable[[], requests.adapters.BaseAdapter]) -> Iterator[None]:
    """Inside, each session of our client reaches the org by an adapter of these."""
    plain = attempt.plain_session

    def session(trust_env: bool) -> requests.Session:
        made = plain(trust_env)
        made.mount(URL, adapter())
        return made

    attempt.plain_session = session
    try:
        yield
    finally:
        attempt.plain_session = plain


def connected(app: Any, clock: OneClock, scratch: Path, *, pinned: bool) -> SalesforceDestination:
    """A client of ours, logged in; `pinned`: it knows which org it must be."""
    who = app.identity
    credentials = Credentials(
        "client_credentials", URL, client_id=who.client_id, client_secret=Secret(who.client_secret)
    )
    org = Org("crm", "dev", credentials, organization_id=who.organization_id if pinned else None)
    return connect(org, scratch=scratch, sleep=clock.sleep, rng=random.Random(1), now=clock.now)
