"""A scripted org on loopback, and a client logged in to it."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path

import pytest

from dinmo_dbt.org import Credentials, Org, Secret
from dinmo_dbt.salesforce import SalesforceDestination, connect

from .scripted_org import TOKEN, Server


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@pytest.fixture
def other_server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@pytest.fixture
def naps() -> list[float]:
    """What the client slept, in seconds; it never really does."""
    return []


@pytest.fixture
def connected(server: Server, naps: list[float], tmp_path: Path) -> Callable[..., SalesforceDestination]:
    """Log in to the scripted server: by access token, or by client credentials if `renewable`."""

    def connected(renewable: bool = False, api_share: int = 80, org_id: str | None = None) -> SalesforceDestination:
        if renewable:
            credentials = Credentials(
                "client_credentials", server.url, client_id="app", client_secret=Secret("CANARY_SECRET")
            )
        else:
            credentials = Credentials("access_token", instance_url=server.url, access_token=Secret(TOKEN))
        org = Org("crm", "dev", credentials, organization_id=org_id, api_share=Decimal(api_share))
        return connect(org, scratch=tmp_path, sleep=naps.append, rng=random.Random(1), now=lambda: 1_700_000_000.0)

    return connected
