"""Many threads at one org, over a port and mounted: nothing is lost, nothing is there twice, nothing breaks."""

from __future__ import annotations

import csv
import io
import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests

from dinmo_dbt import emulator
from dinmo_dbt.emulator import Clock

from .conftest import start
from .mounted import START

THREADS = 8
ROUNDS = 4
SHARED = [f"k{i}" for i in range(10)]
ROWS = 400
URL = "http://127.0.0.1"


class Crowd:
    """What threads call; each gets a session of its own, and counts what it was answered."""

    def __init__(self, session: Callable[[], requests.Session], url: str, token: str) -> None:
        self._session = session
        self._token = token
        self._local = threading.local()
        self.url = url
        self.base = f"{url}/services/data/v62.0"
        self.calls = 0
        self.statuses: Counter[int] = Counter()
        self.lock = threading.Lock()

    @property
    def http(self) -> requests.Session:
        if not hasattr(self._local, "http"):
            self._local.http = self._session()
            self._local.http.headers["Authorization"] = f"Bearer {self._token}"
        http: requests.Session = self._local.http
        return http

    def call(self, method: str, path: str, body: Any = None, **more: Any) -> requests.Response:
        reply = self.http.request(method, self.base + path, json=body, timeout=60, **more)
        with self.lock:
            self.calls += 1
            self.statuses[reply.status_code] += 1
        assert reply.status_code < 500 or reply.status_code == 503, reply.text
        return reply

    def json(self, method: str, path: str, body: Any = None, **more: Any) -> Any:
        reply = self.call(method, path, body, **more)
        assert reply.ok, reply.text
        return reply.json() if reply.content else None

    def control(self, method: str, path: str, body: Any = None) -> Any:
        reply = self.http.request(method, f"{self.url}/emulator{path}", json=body, timeout=60)
        assert reply.ok, reply.text
        return reply.json()

    def query(self, soql: str) -> list[dict[str, Any]]:
        page = self.json("GET", "/query", params={"q": soql})
        records = list(page["records"])
        while not page["done"]:
            page = self.json("GET", page["nextRecordsUrl"].partition("/v62.0")[2])
            records += page["records"]
        return records

    def job(self, operation: str, name: str, rows: list[dict[str, str]], **more: Any) -> str:
        job: str = self.json("POST", "/jobs/ingest", {"object": name, "operation": operation, **more})["id"]
        text = io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        path = f"/jobs/ingest/{job}"
        kind = {"Content-Type": "text/csv"}
        assert self.call("PUT", f"{path}/batches", data=text.getvalue(), headers=kind).status_code == 201
        self.json("PATCH", path, {"state": "UploadComplete"})
        deadline = time.monotonic() + 60
        while (info := self.json("GET", path))["state"] != "JobComplete":
            assert info["state"] in ("UploadComplete", "InProgress") and time.monotonic() < deadline, info
            time.sleep(0.005)
        assert (info["numberRecordsProcessed"], info["numberRecordsFailed"]) == (len(rows), 0)
        return job

    def results(self, job: str) -> list[dict[str, str]]:
        text = self.call("GET", f"/jobs/ingest/{job}/successfulResults").content.decode()
        return list(csv.DictReader(io.StringIO(text, newline="")))


@pytest.fixture(params=["port", "mounted", "mounted, clock stopped"])
def crowd(request: pytest.FixtureRequest, schema: Path, tmp_path: Path) -> Iterator[Crowd]:
    if request.param == "port":
        running = start(schema=schema, data=tmp_path / "data")
        yield Crowd(requests.Session, running.url, running.line["access_token"])
        running.stop()
        return
    app = emulator.app(schema=schema, data=None, clock=Clock(START) if "stopped" in request.param else None)
    adapter = app.adapter()

    def session() -> requests.Session:
        http = requests.Session()
        http.mount(URL, adapter)
        return http

    yield Crowd(session, URL, app.identity.access_token)
    app.close()


def at_once(work: Callable[[int], Any], threads: int = THREADS) -> list[Any]:
    """The results of so many threads that begin together; the first error, if there is one."""
    ready = threading.Barrier(threads)

    def run(number: int) -> Any:
        ready.wait(timeout=30)
        return work(number)

    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(run, range(threads)))


@pytest.mark.slow
def test_an_external_id_is_made_once_whichever_call_comes_first(crowd: Crowd) -> None:
    def work(number: int) -> int:
        made = 0
        for turn in range(ROUNDS):
            for key in SHARED:
                record = {"Name": f"{number}-{turn}"}
                reply = crowd.call("PATCH", f"/sobjects/Customer__c/Code__c/{key}", record)
                assert reply.status_code in (200, 201), reply.text
                made += reply.json()["created"]
            envelope = {
                "records": [{"attributes": {"type": "Customer__c"}, "Name": "c", "Code__c": key} for key in SHARED]
            }
            for result in crowd.json("PATCH", "/composite/sobjects/Customer__c/Code__c", envelope):
                assert result["success"], result
                made += result["created"]
        return made

    assert sum(at_once(work)) == len(SHARED)
    assert sorted(r["Code__c"] for r in crowd.query("SELECT Code__c FROM Customer__c")) == sorted(SHARED)
    used = crowd.control("GET", "/limits")["used"]["DailyApiRequests"]
    assert used == crowd.calls == sum(crowd.statuses.values())


@pytest.mark.slow
def test_jobs_on_the_same_keys_make_each_record_once(crowd: Crowd) -> None:
    def work(number: int) -> tuple[int, int]:
        rows = [{"Name": f"{number}", "Code__c": f"b{i}"} for i in range(ROWS)]
        done = crowd.results(crowd.job("upsert", "Customer__c", rows, externalIdFieldName="Code__c"))
        own = crowd.results(crowd.job("insert", "Account", [{"Name": f"{number}-{i}"} for i in range(ROWS)]))
        return sum(r["sf__Created"] == "true" for r in done), len({r["sf__Id"] for r in own})

    seen = at_once(work)
    assert sum(made for made, _ in seen) == ROWS
    assert [own for _, own in seen] == [ROWS] * THREADS
    assert len({r["Code__c"] for r in crowd.query("SELECT Code__c FROM Customer__c")}) == ROWS
    names = [r["Name"] for r in crowd.query("SELECT Name FROM Account")]
    assert len(names) == len(set(names)) == THREADS * ROWS
    listed = crowd.json("GET", "/jobs/ingest")["records"]
    assert len({j["id"] for j in listed}) == len(listed) == 2 * THREADS


def test_what_is_said_to_be_written_is_there_whatever_faults_come(crowd: Crowd) -> None:
    crowd.control("POST", "/faults", {"kind": "request_lost", "call": "record.create", "every": 7})
    crowd.control("POST", "/faults", {"kind": "reply_lost", "call": "record.create", "every": 5})
    crowd.control("POST", "/faults", {"kind": "request_repeated", "call": "record.create", "every": 11})
    crowd.control("POST", "/faults", {"kind": "status", "status": 503, "call": "global_*", "every": 3})
    stop = threading.Event()

    def arm_and_look(_: int) -> None:
        """Faults come and go, the schema changes, others read; all the while."""
        for turn in itertools.count():
            if stop.is_set():
                return
            fault = crowd.control("POST", "/faults", {"kind": "slow", "seconds": 0, "call": "query"})["id"]
            crowd.control(
                "POST", "/schema", {"objects": {"Account": {"fields": {f"F{turn % 3}__c": {"type": "Text"}}}}}
            )
            crowd.query("SELECT Id, Name FROM Account")
            assert crowd.call("GET", "/sobjects").status_code in (200, 503)
            crowd.call("GET", "/sobjects/Account/describe")
            crowd.json("GET", "/limits")
            crowd.control("GET", "/calls")
            crowd.control("DELETE", f"/faults/{fault}")

    def work(number: int) -> tuple[set[str], set[str], int]:
        if number < 2:
            arm_and_look(number)
            return set(), set(), 0
        said, sent, deleted = set(), set(), 0
        for turn in range(ROUNDS * 5):
            name = f"{number}-{turn}"
            sent.add(name)
            try:
                rid = crowd.json("POST", "/sobjects/Account", {"Name": name})["id"]
            except requests.ConnectionError:
                continue
            said.add(name)
            if turn % 4 == 0:
                crowd.call("DELETE", f"/sobjects/Account/{rid}")
                deleted += 1
        if next(left) == 1:
            stop.set()
        return said, sent, deleted

    left = iter(range(THREADS - 2, 0, -1))
    seen = at_once(work)
    faults = {f["kind"]: f["fired"] for f in crowd.control("GET", "/faults")["faults"]}
    assert min(faults.values()) > 0
    crowd.control("DELETE", "/faults")
    said, sent = (set().union(*(s[n] for s in seen)) for n in (0, 1))
    found = crowd.json("GET", "/queryAll", params={"q": "SELECT Name, IsDeleted FROM Account"})["records"]
    names = Counter(r["Name"] for r in found)
    assert said <= names.keys() <= sent
    assert len(sent) - len(names) == faults["request_lost"]
    assert sum(r["IsDeleted"] for r in found) == sum(deleted for *_, deleted in seen)
    assert sum(names.values()) - len(names) <= faults["request_repeated"]


@pytest.mark.slow
def test_queries_and_cursors_do_not_get_into_each_other(crowd: Crowd) -> None:
    crowd.job("insert", "Account", [{"Name": f"n{i}"} for i in range(2100)])

    def work(number: int) -> None:
        for _ in range(ROUNDS):
            wanted = [f"n{i}" for i in range(2100)]
            soql = f"SELECT Name FROM Account ORDER BY Name {'ASC' if number % 2 else 'DESC'}"
            got = [r["Name"] for r in crowd.query(soql)]
            assert got == sorted(wanted, reverse=number % 2 == 0)
            spec = {"operation": "query", "query": f"SELECT Name FROM Account WHERE Name LIKE 'n{number}%'"}
            job = crowd.json("POST", "/jobs/query", spec)["id"]
            deadline = time.monotonic() + 60
            while crowd.json("GET", f"/jobs/query/{job}")["state"] != "JobComplete":
                assert time.monotonic() < deadline
                time.sleep(0.005)
            text = crowd.call("GET", f"/jobs/query/{job}/results").content.decode()
            assert text.count("\n") - 1 == sum(w.startswith(f"n{number}") for w in wanted)

    at_once(work)


@pytest.mark.slow
def test_a_lock_and_a_delete_race_without_a_trace(crowd: Crowd) -> None:
    """Every record is deleted by exactly one of those who try, and what is deleted takes no update."""
    made = [crowd.json("POST", "/sobjects/Account", {"Name": f"n{i}"})["id"] for i in range(30)]

    def work(number: int) -> int:
        deleted = 0
        for rid in made:
            if number % 2:
                reply = crowd.call("PATCH", f"/sobjects/Account/{rid}", {"Name": f"by {number}"})
                assert reply.status_code in (204, 404), reply.text
            else:
                reply = crowd.call("DELETE", f"/sobjects/Account/{rid}")
                assert reply.status_code in (204, 404), reply.text
                deleted += reply.status_code == 204
        return deleted

    assert sum(at_once(work)) == len(made)
    assert crowd.query("SELECT Id FROM Account") == []


@pytest.mark.slow
def test_a_clock_that_stops_and_runs_disturbs_no_call(crowd: Crowd) -> None:
    """Jobs change hands, from the thread to the calls and back, while calls are at work."""

    def work(number: int) -> None:
        for turn in range(ROUNDS):
            if number < 2:
                for how in ("stop", "run") * 10:
                    crowd.control("POST", f"/clock/{how}", {})
                    crowd.json("GET", "/limits")
            else:
                job = crowd.job("insert", "Account", [{"Name": f"{number}-{turn}"}] * 50)
                assert len(crowd.results(job)) == 50

    at_once(work)
    assert crowd.json("GET", "/query?q=SELECT+COUNT()+FROM+Account")["totalSize"] == 50 * ROUNDS * (THREADS - 2)
