"""What a fault does to a call on its way: the same over a port and mounted under `requests`, in every client's eyes."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import requests
from requests.exceptions import ChunkedEncodingError, ConnectionError, ContentDecodingError, ReadTimeout
from simple_salesforce import Salesforce
from simple_salesforce.exceptions import SalesforceResourceNotFound

from dinmo_dbt import emulator
from dinmo_dbt.emulator import Clock, Fault
from dinmo_dbt.errors import OutcomeUnknown
from dinmo_dbt.org import Secret
from dinmo_dbt.salesforce.client import Client, Login
from dinmo_dbt.salesforce.request import CallEffect as Doubt
from dinmo_dbt.salesforce.request import Request as Call

from .conftest import start
from .mounted import START, Mounted, names

HOST = "https://acme.my.salesforce.com"


class Wire:
    """A session on an org, over a port or mounted; what it sees of a call, and what the org holds afterwards."""

    def __init__(self, http: requests.Session, url: str, token: str) -> None:
        self.http = http
        self.url = url
        self.base = f"{url}/services/data/v62.0"
        http.headers["Authorization"] = f"Bearer {token}"
        self.job = ""

    def prepare(self) -> None:
        """An empty org but for the accounts of one finished job."""
        self.control("DELETE", "/faults")
        page = self.json("GET", "/query?q=SELECT+Id+FROM+Account")["records"]
        for start_at in range(0, len(page), 200):
            ids = ",".join(r["Id"] for r in page[start_at : start_at + 200])
            self.json("DELETE", f"/composite/sobjects?ids={ids}")
        spec = {"object": "Account", "operation": "insert"}
        job = self.json("POST", "/jobs/ingest", json=spec)["id"]
        self.json("PUT", f"/jobs/ingest/{job}/batches", data=names(300), headers={"Content-Type": "text/csv"})
        self.json("PATCH", f"/jobs/ingest/{job}", json={"state": "UploadComplete"})
        deadline = time.monotonic() + 20
        while self.json("GET", f"/jobs/ingest/{job}")["state"] != "JobComplete":
            assert time.monotonic() < deadline
        self.job = job

    def control(self, method: str, path: str, body: Any = None) -> None:
        assert self.http.request(method, f"{self.url}/emulator{path}", json=body).status_code == 200

    def json(self, method: str, path: str, **more: Any) -> Any:
        reply = self.http.request(method, self.base + path, **more)
        assert reply.ok, reply.text
        return reply.json() if reply.content else None

    def count(self) -> int:
        return int(self.json("GET", "/query?q=SELECT+COUNT()+FROM+Account")["totalSize"])

    def seen(self, fault: dict[str, Any], call: Calling) -> Seen:
        """What the client is told, or the class it is raised and what that stands on; the accounts made meanwhile."""
        before = self.count()
        self.control("POST", "/faults", {"times": 1, **fault})
        try:
            reply = call(self)
            told: Any = reply.status_code, reply.headers.get("Content-Type"), len(reply.content)
        except requests.RequestException as error:
            cause = error.args[0] if error.args else None
            told = type(error), type(cause) if isinstance(cause, Exception) else None
        self.control("DELETE", "/faults")
        return Seen(told, self.count() - before)


@dataclass(frozen=True)
class Seen:
    told: Any
    made: int


Calling = Callable[[Wire], requests.Response]


def create(wire: Wire, **more: Any) -> requests.Response:
    return wire.http.post(f"{wire.base}/sobjects/Account", json={"Name": "new"}, **more)


def create_chunked(wire: Wire) -> requests.Response:
    body = iter([b'{"Na', b'me":', b'"new"}'])
    return wire.http.post(f"{wire.base}/sobjects/Account", data=body, headers={"Content-Type": "application/json"})


def create_impatiently(wire: Wire) -> requests.Response:
    return create(wire, timeout=(5, 0.3))


def describe(wire: Wire) -> requests.Response:
    return wire.http.get(f"{wire.base}/sobjects/Account/describe")


def describe_plain(wire: Wire) -> requests.Response:
    return wire.http.get(f"{wire.base}/sobjects/Account/describe", headers={"Accept-Encoding": "identity"})


def download(wire: Wire) -> requests.Response:
    return wire.http.get(f"{wire.base}/jobs/ingest/{wire.job}/successfulResults")


def stream(wire: Wire) -> requests.Response:
    with wire.http.get(f"{wire.base}/jobs/ingest/{wire.job}/successfulResults", stream=True, timeout=5) as reply:
        reply._content = b"".join(reply.iter_content(100))
    return reply


@pytest.fixture(scope="module")
def port(schema: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wire]:
    running = start(schema=schema, data=tmp_path_factory.mktemp("data"), seed=1)
    yield Wire(running.http, running.url, running.line["access_token"])
    running.stop()


@pytest.fixture(scope="module")
def memory(schema: Path) -> Iterator[Wire]:
    app = emulator.app(schema=schema, data=None, seed=1, clock=Clock(START))
    with requests.Session() as session:
        session.mount("http://127.0.0.1", app.adapter())
        yield Wire(session, "http://127.0.0.1", app.identity.access_token)
    app.close()


FAULTS: dict[str, tuple[dict[str, Any], Calling, Any, int]] = {
    "a lost request": ({"kind": "request_lost"}, create, ConnectionError, 0),
    "a lost request in chunks": ({"kind": "request_lost"}, create_chunked, ConnectionError, 0),
    "a lost reply": ({"kind": "reply_lost"}, create, ConnectionError, 1),
    "a lost reply to chunks": ({"kind": "reply_lost"}, create_chunked, ConnectionError, 1),
    "a lost file": ({"kind": "reply_lost"}, stream, ConnectionError, 0),
    "a request repeated": ({"kind": "request_repeated"}, create, 201, 2),
    "chunks repeated": ({"kind": "request_repeated"}, create_chunked, 201, 2),
    "a delay": ({"kind": "slow", "seconds": 0.1}, create_impatiently, 201, 1),
    "a delay too long": ({"kind": "slow", "seconds": 0.8}, create_impatiently, ReadTimeout, 1),
    "a hang": ({"kind": "hang"}, create_impatiently, ReadTimeout, 1),
    "a hang that ends": ({"kind": "hang", "seconds": 0.1}, create_impatiently, ConnectionError, 1),
    "a trickle": ({"kind": "trickle", "bytes_per_s": 1000}, create_impatiently, 201, 1),
    "a trickle too thin": ({"kind": "trickle", "bytes_per_s": 2}, create_impatiently, ConnectionError, 1),
    "a body cut": ({"kind": "truncated"}, create, ChunkedEncodingError, 1),
    "a body cut at its first byte": ({"kind": "truncated", "at": 0}, create, ChunkedEncodingError, 1),
    "a packed body cut": ({"kind": "truncated"}, describe, ChunkedEncodingError, 0),
    "a plain body cut": ({"kind": "truncated"}, describe_plain, ChunkedEncodingError, 0),
    "a file cut": ({"kind": "truncated"}, download, ChunkedEncodingError, 0),
    "a file cut under way": ({"kind": "truncated", "at": 5000}, stream, ChunkedEncodingError, 0),
    "a length too long": ({"kind": "content_length"}, stream, ChunkedEncodingError, 0),
    "a body that is not gzip": ({"kind": "bad_gzip"}, describe, ContentDecodingError, 0),
    "bytes that are not UTF-8": ({"kind": "invalid_utf8"}, describe, 200, 0),
    "a page": ({"kind": "html_page"}, create, 200, 1),
    "a refusal": ({"kind": "status", "status": 503, "html": True}, create, 503, 0),
    "a redirect": ({"kind": "redirect", "location": "{path}"}, describe, 200, 0),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_client_meets_the_same_over_a_port_and_in_memory(port: Wire, memory: Wire, name: str) -> None:
    fault, call, told, made = FAULTS[name]
    seen = []
    for wire in (port, memory):
        wire.prepare()
        seen.append(wire.seen(fault, call))
    assert seen[0] == seen[1]
    assert seen[0].told[0] == told
    assert seen[0].made == made


def test_a_request_that_never_arrived_is_not_repeated(port: Wire, memory: Wire) -> None:
    for wire in (port, memory):
        wire.prepare()
        wire.control("POST", "/faults", {"kind": "request_repeated"})
        assert wire.seen({"kind": "request_lost"}, create).made == 0


# Mounted.


@pytest.fixture
def org(mount: Callable[..., Mounted]) -> Mounted:
    return mount(seed=1)


@pytest.fixture
def http(org: Mounted) -> Iterator[requests.Session]:
    with requests.Session() as session:
        session.mount(HOST, org.app.adapter())
        session.headers["Authorization"] = f"Bearer {org.token}"
        yield session


BASE = f"{HOST}/services/data/v62.0"


def test_time_passes_on_a_stopped_clock_as_long_as_the_client_waits(org: Mounted, http: requests.Session) -> None:
    for fault, timeout, passed in (  # more seconds, all in all, than a test may take
        (Fault(kind="slow", seconds=90), 120, 90),
        (Fault(kind="slow", seconds=90), None, 90),
        (Fault(kind="slow", seconds=90), 60, 60),
        (Fault(kind="hang"), (3, 120), 120),
        (Fault(kind="hang", seconds=10), 120, 10),
        (Fault(kind="trickle", bytes_per_s=1), 5, len(http.get(f"{BASE}/limits").content)),
    ):
        org.app.faults.arm(fault)
        before = org.clock()
        try:
            http.get(f"{BASE}/limits", timeout=timeout)
        except requests.RequestException as error:
            assert isinstance(error, ReadTimeout if fault.seconds != 10 else ConnectionError)
        assert org.clock() - before == timedelta(seconds=passed)
        org.app.faults.clear()


def test_a_reply_is_dated_by_the_clock_of_the_org(org: Mounted, http: requests.Session) -> None:
    assert http.get(f"{BASE}/limits").headers["Date"] == "Sun, 01 Mar 2026 12:00:00 GMT"


def test_a_running_clock_is_waited_for(org: Mounted, http: requests.Session) -> None:
    org.clock.run()
    org.app.faults.arm(Fault(kind="slow", seconds=0.2))
    began = time.monotonic()
    assert http.get(f"{BASE}/limits").status_code == 200
    assert time.monotonic() - began >= 0.2


def test_a_body_that_breaks_off_under_way_does_nothing(org: Mounted, http: requests.Session) -> None:
    def broken() -> Iterator[bytes]:
        yield b'{"Name":'
        raise RuntimeError("out of rows")

    with pytest.raises(RuntimeError, match="out of rows"):
        http.post(f"{BASE}/sobjects/Account", data=broken(), headers={"Content-Type": "application/json"})
    assert org.count("Account") == 0


@pytest.mark.slow
def test_bodies_come_from_files_and_replies_are_streamed(org: Mounted, http: requests.Session, tmp_path: Path) -> None:
    job = http.post(f"{BASE}/jobs/ingest", json={"object": "Account", "operation": "insert"}).json()
    (tmp_path / "rows.csv").write_text(names(200_000))
    with (tmp_path / "rows.csv").open("rb") as file:
        put = http.put(f"{HOST}/{job['contentUrl']}", data=file, headers={"Content-Type": "text/csv"})
    assert put.status_code == 201
    url = f"{BASE}/jobs/ingest/{job['id']}"
    http.patch(url, json={"state": "UploadComplete"})
    assert http.get(url).json()["numberRecordsProcessed"] == 200_000
    with http.get(f"{url}/successfulResults", stream=True) as reply:
        lines = sum(1 for _ in reply.iter_lines())
    assert lines == 200_001


def test_the_host_of_a_call_is_the_org_it_names(org: Mounted, http: requests.Session) -> None:
    who = org.app.identity
    form = {"grant_type": "client_credentials", "client_id": who.client_id, "client_secret": who.client_secret}
    assert http.post(f"{HOST}/services/oauth2/token", data=form).json()["instance_url"] == HOST
    http.mount("http://localhost:8123", org.app.adapter())
    told = http.post("http://localhost:8123/services/oauth2/token", data=form).json()
    assert told["instance_url"] == "http://localhost:8123"
    assert http.get("http://localhost:8123/emulator/clock").status_code == 200
    assert http.get(f"{HOST}/emulator/clock").status_code == 403


def test_neither_proxies_nor_certificates_come_between(http: requests.Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere.pem")
    assert http.get(f"{BASE}/limits").status_code == 200


def test_a_redirect_is_followed_only_if_the_client_wants_it(org: Mounted, http: requests.Session) -> None:
    org.app.faults.arm(Fault(kind="redirect", times=2, location="{path}"))
    assert http.get(f"{BASE}/limits", allow_redirects=False).status_code == 302
    reply = http.get(f"{BASE}/limits")
    assert (reply.status_code, [r.status_code for r in reply.history]) == (200, [302])


def test_simple_salesforce_works_mounted(org: Mounted, http: requests.Session) -> None:
    sf = Salesforce(instance_url=HOST, session_id=org.token, session=http, version="62.0")
    rid = sf.Account.create({"Name": "a", "Code__c": "c1"})["id"]
    sf.Account.upsert("Code__c/c1", {"Name": "b"})
    assert sf.Account.get(rid)["Name"] == "b"
    sf.Account.delete(rid)
    with pytest.raises(SalesforceResourceNotFound):
        sf.Account.get(rid)
    rows = [{"Name": f"n{i}", "Code__c": f"k{i}"} for i in range(3000)]
    done = sf.bulk2.Account.upsert(records=rows, external_id_field="Code__c", wait=0.001)
    assert [d["numberRecordsProcessed"] for d in done] == [3000]
    assert sf.bulk2.Account.get_failed_records(done[0]["job_id"]).count("\n") == 1
    assert len(sf.query_all("SELECT Id, Name FROM Account")["records"]) == 3000
    pages = list(sf.bulk2.Account.query("SELECT Id, Name FROM Account", wait=0.001))
    assert sum(page.count("\n") - 1 for page in pages) == 3000
    assert sf.describe()["sobjects"]


def test_our_own_client_works_mounted_and_is_sure_of_what_it_does_not_know(org: Mounted) -> None:
    slept: list[float] = []
    login = Login(HOST, Secret(org.token), org.app.identity.organization_id)
    client = Client(lambda _: login, sleep=slept.append, rng=random.Random(1))
    client.line.session.mount(HOST, org.app.adapter())
    assert client.get("limits")["DailyApiRequests"]["Max"] == 100_000
    org.app.faults.arm(Fault(kind="reply_lost", times=1))
    assert client.get("limits")["DailyApiRequests"]["Max"] == 100_000
    assert len(slept) == 1
    org.app.faults.arm(Fault(kind="reply_lost", call="record.create"))
    with pytest.raises(OutcomeUnknown):
        client.call(Call("POST", "sobjects/Account", Doubt.ONCE, body=b'{"Name":"a"}'))
    assert org.count("Account") == 1
    assert client.simple.limits()["DailyApiRequests"]["Max"] == 100_000
    client.close()
