"""An org's limits: counted in a rolling day of its clock, settable, and what each says when it is reached."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dinmo_dbt.emulator import limits
from dinmo_dbt.emulator.errors import EmulatorError
from dinmo_dbt.emulator.limits import Limits

from .mounted import Mounted, names

Mount = Callable[..., Mounted]
DAY = 86_400


def refused(reply: Any) -> tuple[int, str, str]:
    return reply.status_code, reply.json[0]["errorCode"], reply.json[0]["message"]


def test_api_calls_are_counted_over_a_rolling_day(mount: Mount) -> None:
    org = mount(limits=Limits(daily_api_requests=3))
    for _ in range(2):
        org.get("/sobjects")
    org.clock.advance(12 * 3600)
    assert org.get("/limits")["DailyApiRequests"] == {"Max": 3, "Remaining": 0}
    spent = org.api("GET", "/sobjects")
    assert refused(spent) == (403, "REQUEST_LIMIT_EXCEEDED", "TotalRequests Limit exceeded.")
    assert spent.headers["Sforce-Limit-Info"] == "api-usage=3/3"
    org.clock.advance(12 * 3600)
    assert org.api("GET", "/limits").headers["Sforce-Limit-Info"] == "api-usage=2/3"


def test_what_is_used_survives_a_restart(mount: Mount, tmp_path: Path) -> None:
    org = mount(data=tmp_path)
    org.get("/sobjects")
    job = org.job("Account", names(3))
    org.info(job)
    used = org.app.site.usage.used()
    assert used == {"DailyApiRequests": 5, "DailyBulkApiBatches": 1, "DailyBulkV2QueryJobs": 0, "DailyBulkRows": 3}
    org.close()
    assert mount(data=tmp_path).app.site.usage.used() == used


def test_a_counter_of_an_older_hour_counts_until_it_is_a_day_old(mount: Mount) -> None:
    org = mount()
    usage = org.app.site.usage
    for _ in range(30):
        org.get("/sobjects")
        org.clock.advance(3600)
    assert usage.requests == 23
    org.clock.advance(-10 * 3600)
    assert usage.requests < 23
    usage.clear()
    assert usage.requests == 0


def test_the_day_has_so_many_batches_rows_and_query_jobs(mount: Mount) -> None:
    org = mount(limits=Limits(daily_bulk_api_batches=1, daily_bulk_v2_query_jobs=1))
    assert org.info(org.job("Account", names(2)))["state"] == "JobComplete"
    more = org.api("POST", "/jobs/ingest", {"object": "Account", "operation": "insert"})
    assert refused(more)[:2] == (400, "LIMIT_EXCEEDED")
    spec = {"operation": "query", "query": "SELECT Id FROM Account"}
    assert org.api("POST", "/jobs/query", spec).status_code == 200
    assert refused(org.api("POST", "/jobs/query", spec))[:2] == (400, "LIMIT_EXCEEDED")
    shown = org.get("/limits")
    assert [shown[n]["Remaining"] for n in ("DailyBulkApiBatches", "DailyBulkV2QueryJobs")] == [0, 0]
    org.clock.advance(DAY)
    assert org.api("POST", "/jobs/query", spec).status_code == 200


def test_a_job_that_meets_the_days_end_fails_and_keeps_its_rows(mount: Mount) -> None:
    org = mount(limits=Limits(daily_bulk_rows=15_000))
    job = org.job("Account", names(25_000))
    info = org.info(job)
    assert (info["state"], info["numberRecordsProcessed"]) == ("Failed", 10_000)
    assert info["errorMessage"].startswith("ExceededQuota : ")
    assert org.results(job, "unprocessedrecords") == names(15_000, 10_000)


def test_full_storage_refuses_new_rows_and_takes_updates(mount: Mount) -> None:
    org = mount(limits=Limits(data_storage_mb=1))
    room = 512 - sum(row["count"] for row in org.get("/limits/recordCount")["sObjects"])
    rid = org.create("Account", {"Name": "first"})
    job = org.job("Account", names(600))
    assert org.info(job)["numberRecordsFailed"] == 600 - (room - 1)
    assert {r["sf__Error"] for r in org.rows(job, "failedResults")} == {
        "STORAGE_LIMIT_EXCEEDED:storage limit exceeded:--"
    }
    full = org.api("POST", "/sobjects/Account", {"Name": "one more"})
    assert refused(full)[1] == "STORAGE_LIMIT_EXCEEDED"
    assert org.api("PATCH", f"/sobjects/Account/{rid}", {"Name": "x"}).status_code == 204
    assert org.get("/limits")["DataStorageMB"] == {"Max": 1, "Remaining": 0}
    assert org.api("DELETE", f"/sobjects/Account/{rid}").status_code == 204
    org.create("Account", {"Name": "room again"})


def test_calls_that_take_long_are_bounded_and_short_ones_are_not(mount: Mount, monkeypatch: pytest.MonkeyPatch) -> None:
    org = mount(limits=Limits(concurrent_requests=2))
    usage = org.app.site.usage
    both = threading.Barrier(2)

    def begin() -> None:
        usage.begin()
        both.wait(timeout=10)

    running = [threading.Thread(target=begin) for _ in range(2)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    assert org.api("GET", "/sobjects").status_code == 200
    monkeypatch.setattr(limits, "LONG_S", 0.0)
    assert refused(org.api("GET", "/sobjects"))[1] == "REQUEST_LIMIT_EXCEEDED"


def test_calls_in_flight_are_bounded(mount: Mount) -> None:
    org = mount(limits=Limits(concurrent_requests=0))
    message = "ConcurrentRequests (Concurrent API Requests) Limit exceeded."
    assert refused(org.api("GET", "/sobjects")) == (403, "REQUEST_LIMIT_EXCEEDED", message)
    org.app.limits = Limits(concurrent_requests=1)
    for _ in range(3):
        assert org.api("GET", "/sobjects").status_code == 200
        assert org.api("GET", "/sobjects/Nothing__c").status_code == 404


@pytest.mark.parametrize(
    ("limits", "text", "message"),
    [
        (Limits(header_characters=7), "Name,Site\na,b\n",
         "InvalidBatch : The header row has 9 characters, more than 7"),
        (Limits(record_fields=1), "Name,Site\na,b\n", "InvalidBatch : A record has 2 fields, more than 1"),
        (Limits(field_characters=3), "Name,Site\nßßß,b\nc,ßßßß\n",
         "InvalidBatch : Failed to parse CSV. Exceeded max field size: 4"),
        (Limits(record_characters=4), "Name,Site\nßß,bb\ncc,ddd\n",
         "InvalidBatch : A record has 5 characters, more than 4"),
    ],
)  # fmt: skip
def test_an_upload_has_bounds(mount: Mount, limits: Limits, text: str, message: str) -> None:
    org = mount(limits=limits)
    info = org.info(org.job("Account", text.encode()))
    assert (info["state"], info["errorMessage"], info["numberRecordsProcessed"]) == ("Failed", message, 0)


def test_too_much_data_is_refused_as_it_arrives_compressed_or_not(mount: Mount) -> None:
    org = mount(limits=Limits(upload_bytes=100))
    made = org.api("POST", "/jobs/ingest", {"object": "Account", "operation": "insert"}).json
    assert made is not None
    path = f"/jobs/ingest/{made['id']}/batches"
    data = names(100).encode()
    headers = {"Content-Type": "text/csv"}
    assert org.api("PUT", path, data=data, headers=headers).status_code == 413
    packed = {**headers, "Content-Encoding": "gzip"}
    assert org.api("PUT", path, data=gzip.compress(data), headers=packed).status_code == 413
    assert org.api("PUT", path, data=names(2).encode(), headers=headers).status_code == 201


def test_limits_that_cannot_be_are_refused_by_name() -> None:
    with pytest.raises(EmulatorError, match="unknown key DailyApiRequest"):
        Limits().changed({"DailyApiRequest": 1})
    with pytest.raises(EmulatorError, match="daily_api_requests must be int"):
        Limits().changed({"DailyApiRequests": "1"})
    with pytest.raises(EmulatorError, match="DataStorageMB can't be negative"):
        Limits(data_storage_mb=-1)
