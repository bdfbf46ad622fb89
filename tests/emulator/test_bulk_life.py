"""How Bulk jobs advance, end, and go away: by a stopped clock, by poll, after restarts."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dinmo_dbt.emulator.bulk.pace import Pace
from dinmo_dbt.emulator.errors import EmulatorError

from .conftest import Org
from .mounted import Mounted, names

Mount = Callable[..., Mounted]
Launch = Callable[..., Org]
BIG = names(25_000)


def test_with_a_stopped_clock_steps_come_at_their_moments_and_no_thread_works(mount: Mount) -> None:
    org = mount(pace=Pace(queue_s=5, batch_s=60))
    assert not [t for t in threading.enumerate() if t.name == "emulator-jobs"]
    job = org.job("Account", BIG)
    seen = []
    for seconds in (0, 5, 59.5, 0.5, 60, 60):
        org.clock.advance(seconds)
        info = org.info(job)
        seen.append((info["state"], info["numberRecordsProcessed"]))
    assert seen == [
        ("UploadComplete", 0), ("InProgress", 0), ("InProgress", 0), ("InProgress", 10_000), ("InProgress", 20_000),
        ("JobComplete", 25_000),
    ]  # fmt: skip
    assert (info["totalProcessingTime"], info["apiActiveProcessingTime"]) == (180_000, 180_000)
    assert info["systemModstamp"] == "2026-03-01T12:03:05.000+0000"


def test_one_late_call_carries_out_every_step_that_was_due(mount: Mount) -> None:
    org = mount(pace=Pace(queue_s=5, batch_s=60))
    job = org.job("Account", BIG)
    org.clock.advance(3600)
    assert org.info(job)["state"] == "JobComplete"
    assert org.count("Account") == 25_000


def test_by_default_a_stopped_clock_completes_a_job_at_the_next_call(mount: Mount) -> None:
    org = mount()
    job = org.open_job("Account", names(3))
    closed = org.close_job(job)
    assert closed.json is not None and closed.json["state"] == "UploadComplete"
    assert org.info(job)["state"] == "JobComplete"


def test_by_poll_each_look_is_one_step_and_other_calls_are_none(mount: Mount) -> None:
    org = mount(pace=Pace(by="poll"))
    job = org.job("Account", BIG)
    assert org.count("Account") == 0
    looks = [(i["state"], i["numberRecordsProcessed"]) for i in (org.info(job) for _ in range(5))]
    assert looks == [
        ("InProgress", 0), ("InProgress", 10_000), ("InProgress", 20_000), ("InProgress", 25_000),
        ("JobComplete", 25_000),
    ]  # fmt: skip
    query = org.api("POST", "/jobs/query", {"operation": "query", "query": "SELECT Id FROM Account"}).json
    assert query is not None
    assert [org.info(query["id"], "query")["state"] for _ in range(2)] == ["InProgress", "JobComplete"]


def test_a_clock_that_is_stopped_and_run_again_changes_who_works(mount: Mount) -> None:
    org = mount(clock=None)
    assert org.info(org.job("Account", names(1)))["state"] in ("UploadComplete", "InProgress", "JobComplete")
    org.clock.stop()
    job = org.job("Account", names(1))
    assert org.info(job)["state"] == "JobComplete"
    assert not [t for t in threading.enumerate() if t.name == "emulator-jobs"]
    org.clock.run()
    org.get("/limits")
    assert [t for t in threading.enumerate() if t.name == "emulator-jobs"]


def test_jobs_of_both_kinds_take_their_steps_in_the_order_of_their_moments(mount: Mount) -> None:
    org = mount(pace=Pace(queue_s=10))
    first = org.job("Account", names(2))
    org.clock.advance(1)
    query = org.api("POST", "/jobs/query", {"operation": "query", "query": "SELECT Id FROM Account"}).json
    assert query is not None
    org.clock.advance(1)
    last = org.job("Account", names(2))
    org.clock.advance(100)
    assert org.info(query["id"], "query")["numberRecordsProcessed"] == 2
    assert {org.info(j)["state"] for j in (first, last)} == {"JobComplete"}


def test_a_job_stopped_midway_goes_on_after_a_restart(mount: Mount, tmp_path: Path) -> None:
    pace = Pace(batch_s=60)
    org = mount(data=tmp_path, pace=pace)
    job = org.job("Account", BIG)
    org.clock.advance(60)
    assert org.info(job)["numberRecordsProcessed"] == 10_000
    now = org.clock()
    org.close()
    again = mount(data=tmp_path, pace=pace)
    again.clock.set(now)
    assert again.info(job)["numberRecordsProcessed"] == 10_000
    again.clock.advance(120)
    assert (again.info(job)["state"], again.count("Account")) == ("JobComplete", 25_000)


def test_an_aborted_job_keeps_what_was_processed(mount: Mount) -> None:
    org = mount(pace=Pace(batch_s=60))
    job = org.job("Account", BIG)
    org.clock.advance(60)
    assert org.close_job(job, "Aborted").status_code == 200
    org.clock.advance(3600)
    info = org.info(job)
    assert (info["state"], info["numberRecordsProcessed"]) == ("Aborted", 10_000)
    assert org.results(job, "unprocessedrecords") == names(15_000, 10_000)
    assert len(org.rows(job, "successfulResults")) == org.count("Account") == 10_000


def test_finished_jobs_and_their_files_are_gone_after_seven_days(mount: Mount, tmp_path: Path) -> None:
    org = mount(data=tmp_path)
    job = org.job("Account", names(2))
    assert org.info(job)["state"] == "JobComplete"
    query = org.api("POST", "/jobs/query", {"operation": "query", "query": "SELECT Id FROM Account"}).json
    assert query is not None and org.info(query["id"], "query")["state"] == "JobComplete"
    org.clock.advance(7 * 86_400 - 1)
    assert org.info(job)["state"] == "JobComplete" and len(org.rows(job, "successfulResults")) == 2
    org.clock.advance(1)
    for path in (f"ingest/{job}", f"ingest/{job}/successfulResults", f"query/{query['id']}"):
        assert org.api("GET", f"/jobs/{path}").status_code == 404
    assert org.get("/jobs/ingest")["records"] == []
    org.clock.advance(86_400)
    org.get("/limits")
    assert list((tmp_path / "jobs").iterdir()) == []
    assert org.count("Account") == 2


def test_the_results_of_a_job_outlive_its_fields(mount: Mount) -> None:
    org = mount()
    org.app.change_schema({"objects": {"Customer__c": {"fields": {"Size__c": {"type": "Number"}}}}})
    job = org.job("Customer__c", "Name,Size__c\nx,007\n")
    assert org.info(job)["numberRecordsFailed"] == 0
    kept = org.rows(job, "successfulResults")
    org.app.change_schema({"objects": {"Customer__c": {"fields": {"Size__c": None}}}})
    [row] = org.rows(job, "successfulResults")
    assert {**row, "Size__c": kept[0]["Size__c"]} == kept[0]
    assert row["Size__c"] == "007"  # as it was sent: nothing knows any more what it was


def test_a_job_left_open_fails_after_a_day_and_its_data_is_gone(mount: Mount, tmp_path: Path) -> None:
    org = mount(data=tmp_path)
    job = org.open_job("Account", names(2))
    org.clock.advance(86_399)
    assert org.info(job)["state"] == "Open"
    org.clock.advance(1)
    info = org.info(job)
    assert (info["state"], info["numberRecordsProcessed"]) == ("Failed", 0)
    assert org.close_job(job).status_code == 400
    assert org.results(job, "unprocessedrecords") == ""
    org.clock.advance(86_400)
    org.get("/limits")
    assert list((tmp_path / "jobs").iterdir()) == []
    org.clock.advance(7 * 86_400)
    assert org.api("GET", f"/jobs/ingest/{job}").status_code == 404


def test_jobs_are_listed_a_thousand_at_a_time(mount: Mount) -> None:
    org = mount()
    for _ in range(1001):
        org.app.site.ingest.create({"object": "Account", "operation": "insert"}, "62.0")
    first = org.get("/jobs/ingest")
    assert (first["done"], len(first["records"])) == (False, 1000)
    locator = first["nextRecordsUrl"].partition("queryLocator=")[2]
    assert locator.startswith("01g") and locator.endswith("-1000")
    rest = org.client.get(first["nextRecordsUrl"], headers={"Authorization": f"Bearer {org.token}"}).json
    assert rest is not None and (rest["done"], len(rest["records"]), rest["nextRecordsUrl"]) == (True, 1, None)
    assert rest["records"][0]["jobType"] == "V2Ingest"
    assert org.get("/jobs/ingest?jobType=Classic")["records"] == []
    assert org.get("/jobs/ingest?isPkChunkingEnabled=true")["records"] == []
    assert len(org.get("/jobs/ingest?jobType=V2Ingest&isPkChunkingEnabled=false")["records"]) == 1000


def test_a_query_job_keeps_to_its_version_and_gives_pages(mount: Mount) -> None:
    org = mount()
    org.info(org.job("Account", names(3)))
    spec = {"operation": "query", "query": "SELECT Id, Name FROM Account"}
    job = org.api("POST", "/jobs/query", spec).json
    assert job is not None
    path = f"/jobs/query/{job['id']}"
    assert org.info(job["id"], "query")["isPkChunkingSupported"] is True
    pages = org.get(f"{path}/resultPages")
    assert (pages["done"], pages["nextRecordsUrl"], len(pages["resultPages"])) == (True, None, 1)
    headers = {"Authorization": f"Bearer {org.token}"}
    page = org.client.get(pages["resultPages"][0]["resultUrl"], headers=headers)
    assert page.headers["Sforce-NumberOfRecords"] == "3" and page.headers["Sforce-Locator"] == "null"
    org.version = "60.0"
    assert org.api("GET", f"{path}/results").status_code == 409
    old = org.api("POST", "/jobs/query", spec)
    assert old.json is not None and old.status_code == 200
    org.version = "57.0"
    early = org.api("POST", "/jobs/query", spec).json
    assert early is not None and org.info(early["id"], "query")["state"] == "JobComplete"
    assert org.api("GET", f"/jobs/query/{early['id']}/resultPages").status_code == 404


def test_a_query_job_is_deleted_only_when_it_is_finished(mount: Mount) -> None:
    org = mount(pace=Pace(by="poll"))
    job = org.api("POST", "/jobs/query", {"operation": "query", "query": "SELECT Id FROM Account"}).json
    assert job is not None
    early = org.api("DELETE", f"/jobs/query/{job['id']}")
    assert early.json is not None and (early.status_code, early.json[0]["errorCode"]) == (400, "API_ERROR")
    assert org.api("PATCH", f"/jobs/query/{job['id']}", {"state": "Aborted"}).status_code == 200
    assert org.api("DELETE", f"/jobs/query/{job['id']}").status_code == 204
    assert org.api("GET", f"/jobs/query/{job['id']}").status_code == 404


def test_failed_results_have_ids_from_version_53_on(mount: Mount) -> None:
    org = mount()
    rid = org.create("Account", {"Name": "a"})
    for version, shown in (("52.0", ""), ("53.0", rid)):
        org.version = version
        job = org.job("Account", f"Id,Name\n{rid},#N/A\n", "update")
        assert org.info(job)["numberRecordsFailed"] == 1
        assert [r["sf__Id"] for r in org.rows(job, "failedResults")] == [shown]


def test_a_broken_gzip_upload_is_refused(mount: Mount) -> None:
    org = mount()
    made = org.api("POST", "/jobs/ingest", {"object": "Account", "operation": "insert"}).json
    assert made is not None
    headers = {"Content-Type": "text/csv", "Content-Encoding": "gzip"}
    reply = org.api("PUT", f"/jobs/ingest/{made['id']}/batches", data=b"no gzip", headers=headers)
    assert reply.status_code == 400


def test_a_pace_that_cannot_be_is_refused() -> None:
    for wrong in ({"by": "luck"}, {"queue_s": -1}, {"parallel_batches": 0}, {"share": 2}):
        with pytest.raises(EmulatorError, match="pace"):
            Pace(**wrong)  # type: ignore[arg-type]


def test_what_is_carried_out_late_happens_at_its_moment(mount: Mount) -> None:
    org = mount(pace=Pace(queue_s=5, batch_s=60))
    job = org.job("Account", names(1))
    org.clock.advance(86_400)
    assert org.info(job)["systemModstamp"] == "2026-03-01T12:01:05.000+0000"
    (row,) = org.rows(job, "successfulResults")
    assert org.get(f"/sobjects/Account/{row['sf__Id']}")["CreatedDate"] == "2026-03-01T12:01:05.000+0000"


def control(org: Org, method: str, path: str, body: Any = None) -> Any:
    reply = org.http.request(method, f"{org.url}/emulator{path}", json=body)
    assert reply.status_code == 200, reply.text
    return reply.json()


def killed(org: Org) -> None:
    org.process.kill()
    org.process.wait(timeout=10)


@pytest.mark.slow
def test_a_killed_server_keeps_a_queued_job_its_fate_and_its_clock(launch: Launch, tmp_path: Path) -> None:
    org = launch(data=tmp_path)
    control(org, "POST", "/clock/advance", {"seconds": 9 * 86_400})
    control(org, "POST", "/pace", {"queue_s": 3600})
    control(org, "POST", "/faults", {"kind": "job_failed", "row": 12_345})
    job = org.open_job("insert", "Account")
    org.put(job, BIG)
    org.close_job(job)
    killed(org)
    again = launch(data=tmp_path)
    assert again.get(f"/jobs/ingest/{job}").json()["state"] == "UploadComplete"
    control(again, "POST", "/clock/advance", {"seconds": 3600})
    info = again.wait(job)
    assert (info["state"], info["numberRecordsProcessed"]) == ("Failed", 12_200)
    assert again.results(job, "unprocessedrecords") == names(12_800, 12_200)
    assert again.results(job, "successfulResults").count('"true"') == 12_200


@pytest.mark.slow
def test_a_killed_server_goes_on_in_the_middle_of_a_job_to_its_fate(launch: Launch, tmp_path: Path) -> None:
    org = launch(data=tmp_path)
    control(org, "POST", "/pace", {"batch_s": 3600})
    control(org, "POST", "/faults", {"kind": "job_aborted", "row": 20_400})
    job = org.open_job("insert", "Account")
    org.put(job, BIG)
    org.close_job(job)
    org.wait_for_rows(job, 10_000)
    killed(org)
    info = (again := launch(data=tmp_path)).wait(job)
    assert (info["state"], info["numberRecordsProcessed"]) == ("Aborted", 20_400)
    assert again.get("/query", params={"q": "SELECT COUNT() FROM Account"}).json()["totalSize"] == 20_400
    assert again.results(job, "unprocessedrecords") == names(4600, 20_400)


@pytest.mark.slow
def test_a_killed_server_keeps_a_stopped_clock_and_forgets_faults_and_locks(launch: Launch, tmp_path: Path) -> None:
    org = launch(data=tmp_path)
    rid = org.create("Account", {"Name": "a"})
    control(org, "POST", "/clock/stop", {})
    control(org, "POST", "/clock/set", {"now": "2030-01-01T00:00:00Z"})
    control(org, "POST", "/faults", {"kind": "request_lost"})
    control(org, "POST", "/locks", {"ids": [rid], "seconds": 10**6})
    killed(org)
    again = launch(data=tmp_path)
    assert control(again, "GET", "/clock") == {"now": "2030-01-01T00:00:00.000000+00:00", "stopped": True}
    assert control(again, "GET", "/faults") == {"faults": []} and control(again, "GET", "/locks") == {"locks": {}}


def test_a_job_aborted_in_the_queue_has_all_its_rows_left(mount: Mount) -> None:
    org = mount(pace=Pace(queue_s=60))
    job = org.job("Account", names(3))
    assert org.close_job(job, "Aborted").status_code == 200
    org.clock.advance(3600)
    info = org.info(job)
    assert (info["state"], info["numberRecordsProcessed"], org.count("Account")) == ("Aborted", 0, 0)
    assert org.results(job, "unprocessedrecords") == names(3)
    assert org.api("DELETE", f"/jobs/ingest/{job}").status_code == 204


def test_a_clock_set_back_makes_a_job_wait_and_nothing_is_done_twice(mount: Mount) -> None:
    org = mount(pace=Pace(batch_s=60))
    job = org.job("Account", BIG)
    org.clock.advance(60)
    assert org.info(job)["numberRecordsProcessed"] == 10_000
    org.clock.advance(-3600)
    assert org.info(job)["numberRecordsProcessed"] == 10_000
    org.clock.advance(3600 + 120)
    assert (org.info(job)["state"], org.count("Account")) == ("JobComplete", 25_000)
