"""Going back: snapshot, restore and reset bring back everything, at once, from Python and over HTTP."""

from __future__ import annotations

import gc
import hashlib
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from dinmo_dbt.emulator import Clock, EmulatorError, Fault, Limits, Pace

from .conftest import Org
from .mounted import START, Mounted, names

Mount = Callable[..., Mounted]
SMALL = {f"Thing{i}__c": {"fields": {"Code__c": {"type": "Text", "length": 20}}} for i in range(4)}


@pytest.fixture(params=["in memory", "on disk"])
def org(request: pytest.FixtureRequest, mount: Mount, tmp_path: Path) -> Mounted:
    return mount(data=tmp_path / "data" if request.param == "on disk" else None, seed=1)


def token(org: Mounted) -> str:
    who = org.app.identity
    form = {"grant_type": "client_credentials", "client_id": who.client_id, "client_secret": who.client_secret}
    got: str = org.client.post("/services/oauth2/token", data=form).json["access_token"]  # type: ignore[index]
    return got


def story(org: Mounted, part: int) -> str:
    """Some of everything, and a digest of all that was answered."""
    digest = hashlib.sha256()

    def call(method: str, path: str, body: Any = None, **more: Any) -> Any:
        reply = org.api(method, path, body, **more)
        digest.update(repr((reply.status_code, list(reply.headers.items()), reply.get_data())).encode())
        return reply

    digest.update(token(org).encode())
    rid = call("POST", "/sobjects/Account", {"Name": f"a{part}"}).json["id"]
    call("POST", "/sobjects/Customer__c", {"Name": "c", "Code__c": f"c{part}", "Account__c": rid})
    call("DELETE", f"/sobjects/Account/{rid}")
    job = org.job("Account", names(300, part * 1000))
    query = call("POST", "/jobs/query", {"operation": "query", "query": "SELECT Name FROM Account"}).json["id"]
    org.clock.advance(10)
    call("GET", f"/jobs/query/{query}")
    call("GET", f"/jobs/query/{query}/results")
    call("GET", f"/jobs/ingest/{job}/successfulResults")
    call("GET", "/jobs/ingest")
    call("GET", "/queryAll?q=SELECT+Id,Name,IsDeleted,CreatedDate+FROM+Account")
    call("GET", "/limits")
    digest.update(repr(org.app.calls.latest()).encode())
    return digest.hexdigest()


def test_after_a_restore_the_same_calls_are_answered_the_same(org: Mounted) -> None:
    story(org, 1)
    snapshot = org.app.snapshot()
    first = story(org, 2)
    story(org, 3)
    for _ in range(2):
        org.app.restore(snapshot)
        assert story(org, 2) == first


def test_after_a_reset_it_is_as_new_and_is_the_same_org(org: Mounted, mount: Mount) -> None:
    fresh = story(mount(seed=1), 1)
    who = org.app.identity
    assert story(org, 1) == fresh
    org.app.change_schema({"objects": SMALL})
    org.app.faults.arm(Fault(kind="status", status=503))
    org.clock.set(START.replace(year=2031))
    org.app.limits, org.app.pace = Limits(daily_api_requests=0), Pace(by="poll")
    org.app.reset()
    assert story(org, 1) == fresh
    assert org.app.identity == who
    assert org.api("GET", "/sobjects/Thing1__c/describe").status_code == 404


def test_everything_comes_back(org: Mounted) -> None:
    app = org.app
    rid = org.create("Account", {"Name": "kept"})
    gone = org.create("Account", {"Name": "binned"})
    org.api("DELETE", f"/sobjects/Account/{gone}")
    for i in range(3):
        org.api("POST", "/composite/sobjects", {"records": [
            {"attributes": {"type": "Account"}, "Name": f"n{i}-{j}"} for j in range(200)
        ]})  # fmt: skip
    page = org.get("/query?q=SELECT+Id+FROM+Account")
    session = token(org)
    opened = org.open_job("Account", names(2))
    app.change_schema({"objects": SMALL})
    thing = org.create("Thing1__c", {"Code__c": "t"})
    app.faults.arm(Fault(kind="status", status=503, call="limits", after=1, times=1))
    assert org.api("GET", "/limits").status_code == 200
    app.lock([rid], 60)
    app.limits = Limits(daily_api_requests=777)
    app.pace = Pace(batch_s=5)
    before = app.clock(), app.faults.armed(), app.locks.held(), app.site.usage.used(), app.calls.latest()
    snapshot = app.snapshot()

    app.drift.clear()
    app.faults.clear()
    app.locks.release()
    app.limits, app.pace = Limits(), Pace()
    org.clock.advance(8 * 86_400)
    org.clock.run()
    org.close_job(opened)
    app.site.sessions.revoke(session)
    app.site.sessions.revoke(app.identity.refresh_token)
    org.api("DELETE", f"/sobjects/Account/{rid}")
    assert org.api("GET", "/sobjects/Thing1__c/describe").status_code == 404

    app.restore(snapshot)
    assert (app.clock(), app.faults.armed(), app.locks.held(), app.site.usage.used(), app.calls.latest()) == before
    assert app.clock.stopped and app.limits.daily_api_requests == 777 and app.pace.batch_s == 5
    assert app.drift.documents == [{"objects": SMALL}]
    assert org.api("GET", "/limits").status_code == 503
    assert org.get(f"/sobjects/Account/{rid}")["Name"] == "kept"
    assert org.get(f"/sobjects/Thing1__c/{thing}")["Code__c"] == "t"
    assert org.get(f"/queryAll?q=SELECT+IsDeleted+FROM+Account+WHERE+Id='{gone}'")["records"][0]["IsDeleted"] is True
    assert org.info(opened)["state"] == "Open" and org.close_job(opened).status_code == 200
    org.clock.advance(20)
    assert len(org.rows(opened, "successfulResults")) == 2
    assert org.count("Account") == page["totalSize"] + 2
    org.token = session
    assert org.get("/sobjects/Account/describe")["name"] == "Account"
    who = app.identity
    form = {
        "grant_type": "refresh_token", "client_id": who.client_id, "client_secret": who.client_secret,
        "refresh_token": who.refresh_token,
    }  # fmt: skip
    assert org.client.post("/services/oauth2/token", data=form).status_code == 200


def test_a_number_used_twice_keeps_each_snapshots_own_file(org: Mounted) -> None:
    """After a restore a job gets a number that another had meanwhile."""
    app = org.app
    empty = app.snapshot()
    snapshots = []
    for first in (100, 200):
        app.restore(empty)
        job = org.job("Account", names(3, first))
        assert org.info(job)["state"] == "JobComplete"
        snapshots.append((app.snapshot(), job, first))
    for snapshot, job, first in [*snapshots, *reversed(snapshots)]:
        app.restore(snapshot)
        assert [r["Name"] for r in org.rows(job, "successfulResults")] == [f"n{first + i}" for i in range(3)]


def test_a_job_under_way_goes_on_from_where_it_was(org: Mounted) -> None:
    org.app.pace = Pace(batch_s=10)
    job = org.job("Account", names(25_000))
    org.clock.advance(15)
    assert org.info(job)["numberRecordsProcessed"] == 10_000
    snapshot = org.app.snapshot()
    for _ in range(2):
        org.clock.advance(100)
        assert org.info(job)["numberRecordsProcessed"] == org.count("Account") == 25_000
        org.app.restore(snapshot)
        assert org.info(job)["numberRecordsProcessed"] == org.count("Account") == 10_000


def test_a_thread_at_work_on_a_job_is_stopped_and_goes_on(mount: Mount) -> None:
    org = mount(clock=Clock(), pace=Pace(batch_s=0.01))
    empty = org.app.snapshot()
    job = org.job("Account", names(60_000))
    while org.info(job)["numberRecordsProcessed"] == 0:
        pass
    middle = org.app.snapshot()
    org.app.restore(empty)
    assert org.count("Account") == 0
    assert org.api("GET", f"/jobs/ingest/{job}").status_code == 404
    org.app.restore(middle)
    deadline = time.monotonic() + 30
    while org.info(job)["state"] != "JobComplete":
        assert time.monotonic() < deadline
    assert org.count("Account") == org.info(job)["numberRecordsProcessed"] == 60_000


def test_calls_under_way_are_waited_for_and_later_ones_wait(mount: Mount) -> None:
    org = mount(clock=Clock())
    snapshot = org.app.snapshot()
    stop = threading.Event()
    seen: list[int] = []

    def write() -> None:
        while not stop.is_set():
            body = {"allOrNone": True, "records": [{"attributes": {"type": "Account"}, "Name": "x"}] * 20}
            seen.append(org.api("POST", "/composite/sobjects", body).status_code)

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for turn in range(30):
        (org.app.reset if turn % 3 == 0 else lambda: org.app.restore(snapshot))()
    stop.set()
    for thread in threads:
        thread.join()
    assert set(seen) == {200}
    assert org.count("Account") % 20 == 0


def test_a_snapshot_is_of_one_org_and_lasts_as_long_as_it_is_held(mount: Mount, tmp_path: Path) -> None:
    one, other = mount(data=tmp_path / "data"), mount()
    one.job("Account", names(3))
    snapshot = one.app.snapshot()
    with pytest.raises(EmulatorError, match="of another org"):
        other.app.restore(snapshot)
    kept = tmp_path / "data" / "saved"
    assert len(list(kept.iterdir())) == 1
    del snapshot
    gc.collect()
    assert list(kept.iterdir()) == []


def test_starting_records_are_there_again_after_a_reset(mount: Mount, tmp_path: Path) -> None:
    (tmp_path / "Account.csv").write_text("Name\nfirst\nsecond\n")
    org = mount(records=tmp_path)
    first = org.get("/query?q=SELECT+Id,Name+FROM+Account")
    org.create("Account", {"Name": "third"})
    org.app.reset()
    assert org.get("/query?q=SELECT+Id,Name+FROM+Account") == first


def test_what_was_restored_or_reset_is_what_a_restart_finds(mount: Mount, tmp_path: Path) -> None:
    def open_again(before: Mounted) -> Mounted:
        before.close()
        return mount(data=tmp_path / "data", clock=None)

    org = mount(data=tmp_path / "data", clock=None)
    org.app.change_schema({"objects": SMALL})
    org.create("Thing1__c", {"Code__c": "t"})
    org.clock.stop()
    moment = org.clock()
    snapshot = org.app.snapshot()
    org.app.drift.clear()
    org.clock.run()
    org.app.restore(snapshot)
    org = open_again(org)
    assert org.clock() == moment and org.count("Thing1__c") == 1
    org.app.reset()
    org = open_again(org)
    assert not org.clock.stopped
    assert org.api("GET", "/sobjects/Thing1__c/describe").status_code == 404


@pytest.mark.slow
def test_over_http_a_snapshot_is_a_number(launch: Callable[..., Org], tmp_path: Path) -> None:
    org = launch(data=tmp_path / "data")

    def control(method: str, path: str, body: Any = None) -> tuple[int, Any]:
        reply = org.http.request(method, f"{org.url}/emulator{path}", json=body)
        return reply.status_code, reply.json()

    org.create("Account", {"Name": "kept"})
    assert control("POST", "/snapshot", {}) == (200, {"snapshot": 1})
    org.create("Account", {"Name": "gone"})
    assert control("POST", "/snapshot", {}) == (200, {"snapshot": 2})
    assert control("GET", "/snapshot") == (200, {"snapshots": [1, 2]})
    for number, count in ((1, 1), (2, 2), (1, 1)):
        assert control("POST", "/restore", {"snapshot": number}) == (200, {"snapshot": number})
        assert len(org.query("SELECT Id FROM Account")) == count
    assert control("POST", "/reset", {}) == (200, {})
    assert org.query("SELECT Id FROM Account") == []
    assert control("DELETE", "/snapshot") == (200, {"snapshots": []})
    assert control("POST", "/restore", {"snapshot": 1}) == (400, {"error": "restore: there is no snapshot 1"})
    assert control("POST", "/restore", {})[0] == control("POST", "/reset", {"all": True})[0] == 400


def test_a_small_org_goes_back_in_milliseconds(tmp_path: Path) -> None:
    """12 objects, 1,000 rows. Of the process's own time; the bounds are ten times what it takes."""
    (tmp_path / "schema").mkdir()
    (tmp_path / "schema" / "things.yaml").write_text("objects:\n" + "".join(
        f"  Thing{i}__c:\n    fields:\n      Code__c: {{type: Text, length: 20}}\n" for i in range(4)
    ))  # fmt: skip
    for data in (None, tmp_path / "data"):
        org = Mounted(tmp_path / "schema", data, clock=Clock(START))
        assert len(org.app.site.store.tables) == 12
        org.info(org.job("Account", names(1000)))
        spent: dict[str, list[float]] = {"snapshot": [], "restore": [], "reset": []}

        def timed(what: str, work: Callable[[], Any], spent: dict[str, list[float]] = spent) -> Any:
            began = time.process_time()
            result = work()
            spent[what].append((time.process_time() - began) * 1000)
            return result

        for _ in range(5):
            snapshot = timed("snapshot", org.app.snapshot)
            timed("reset", org.app.reset)
            timed("restore", partial(org.app.restore, snapshot))
            assert org.count("Account") == 1000
        org.close()
        medians = {what: sorted(times)[2] for what, times in spent.items()}
        print("on disk" if data else "in memory", medians)
        assert medians["snapshot"] < 20 and medians["restore"] < 40 and medians["reset"] < 150, medians
