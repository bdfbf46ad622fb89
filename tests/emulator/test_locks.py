"""Row locks: by a user's transaction, and between the batches of one job."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from dinmo_dbt.emulator.bulk.pace import Pace
from dinmo_dbt.emulator.errors import EmulatorError

from .mounted import Mounted

Mount = Callable[..., Mounted]


def text(*ids: str) -> str:
    return f"unable to obtain exclusive access to this record or {len(ids)} records: {','.join(ids)}"


def message(reply: Any) -> str:
    assert reply.json[0]["errorCode"] == "UNABLE_TO_LOCK_ROW", reply.text
    found: str = reply.json[0]["message"]
    return found


def test_a_held_record_and_what_refers_to_it_cannot_be_written_for_a_while(mount: Mount) -> None:
    org = mount()
    parent = org.create("Account", {"Name": "held", "Code__c": "p"})
    child = org.create("Customer__c", {"Name": "child", "Account__c": parent})
    other = org.create("Customer__c", {"Name": "other"})
    org.app.lock([parent], seconds=30)
    assert message(org.api("PATCH", f"/sobjects/Account/{parent}", {"Name": "x"})) == text(parent)
    assert message(org.api("DELETE", f"/sobjects/Account/{parent}")) == text(parent)
    assert message(org.api("PATCH", f"/sobjects/Customer__c/{child}", {"Name": "x"})) == text(parent)
    assert message(org.api("DELETE", f"/sobjects/Customer__c/{child}")) == text(parent)
    assert message(org.api("POST", "/sobjects/Customer__c", {"Name": "n", "Account__c": parent})) == text(parent)
    by_key = {"Name": "n", "Account__r": {"Code__c": "p"}}
    assert message(org.api("POST", "/sobjects/Customer__c", by_key)) == text(parent)
    assert org.api("PATCH", f"/sobjects/Customer__c/{other}", {"Name": "x"}).status_code == 204
    assert org.get(f"/sobjects/Customer__c/{child}")["Name"] == "child"
    assert list(org.app.locks.held()) == [parent]
    org.clock.advance(30)
    assert org.app.locks.held() == {}
    assert org.api("PATCH", f"/sobjects/Customer__c/{child}", {"Name": "x"}).status_code == 204


def test_in_a_collection_the_locked_rows_fail_alone(mount: Mount) -> None:
    org = mount()
    held, free = (org.create("Account", {"Name": n}) for n in ("held", "free"))
    org.app.lock([held], seconds=30)
    records = [{"attributes": {"type": "Account"}, "id": rid, "Name": "new"} for rid in (held, free)]
    reply = org.api("PATCH", "/composite/sobjects", {"records": records})
    assert reply.json == [
        {"success": False, "errors": [{"statusCode": "UNABLE_TO_LOCK_ROW", "message": text(held), "fields": []}]},
        {"id": free, "success": True, "errors": []},
    ]


def test_a_master_is_locked_by_its_details(mount: Mount) -> None:
    org = mount()
    master = org.create("Customer__c", {"Name": "m"})
    line = org.create("Line__c", {"Customer__c": master, "Key__c": "k"})
    org.app.lock([line], seconds=30)
    assert org.api("PATCH", f"/sobjects/Customer__c/{master}", {"Name": "x"}).status_code == 204
    org.app.locks.release()
    org.app.lock([master], seconds=30)
    assert message(org.api("PATCH", f"/sobjects/Line__c/{line}", {"Key__c": "x"})) == text(master)


def test_a_batch_that_meets_a_lock_is_put_back_before_its_rows_fail(mount: Mount) -> None:
    org = mount(pace=Pace(batch_s=60))
    held = org.create("Account", {"Name": "held"})
    org.app.lock([held], seconds=130)
    rows = f"Name,Account__c\na,{held}\nb,\n"
    short = org.job("Customer__c", rows)
    org.clock.advance(120)
    info = org.info(short)
    assert (info["state"], info["retries"], info["numberRecordsFailed"]) == ("JobComplete", 1, 1)
    (bad,) = org.rows(short, "failedResults")
    assert (bad["Name"], bad["sf__Error"]) == ("a", f"UNABLE_TO_LOCK_ROW:{text(held)}:--")
    assert [r["Name"] for r in org.rows(short, "successfulResults")] == ["b"]


def test_a_batch_put_back_meets_a_lock_that_is_gone(mount: Mount) -> None:
    org = mount(pace=Pace(by="poll"))
    held = org.create("Account", {"Name": "held"})
    org.app.lock([held], seconds=30)
    job = org.job("Account", f"Id,Name\n{held},new\n", "update")
    looks = [org.info(job) for _ in range(2)]
    assert [(i["retries"], i["numberRecordsProcessed"]) for i in looks] == [(0, 0), (1, 0)]
    org.clock.advance(30)
    assert [org.info(job)["state"] for _ in range(2)] == ["InProgress", "JobComplete"]
    assert org.info(job)["numberRecordsFailed"] == 0


def test_a_lock_for_ever_fails_the_job_after_twenty_tries(mount: Mount) -> None:
    org = mount(pace=Pace(lock_retries=100))
    held = org.create("Account", {"Name": "held"})
    org.app.lock([held], seconds=10**6)
    job = org.job("Account", f"Id,Name\n{held},new\n", "update")
    info = org.info(job)
    assert (info["state"], info["retries"], info["numberRecordsProcessed"]) == ("Failed", 20, 0)
    assert info["errorMessage"].startswith("TooManyLockFailure : ")
    assert org.results(job, "unprocessedrecords") == f"Id,Name\n{held},new\n"


def test_only_ids_of_the_org_can_be_held(mount: Mount) -> None:
    org = mount()
    for wrong in ("nothing", "001000000000000", ""):
        with pytest.raises(EmulatorError, match="not an id of this org"):
            org.app.lock([wrong], seconds=1)


@pytest.mark.slow
@pytest.mark.parametrize("column", ["Account__c", "Account__r.Code__c"])
def test_parallel_batches_lose_parents_they_share(mount: Mount, column: str) -> None:
    """A row of the second batch may clash with the first batch's parents, never the other way round."""

    def run(**pace: Any) -> tuple[dict[str, Any], list[tuple[str, str]]]:
        org = mount(pace=Pace(**pace), seed=1)
        shared, alone = (org.create("Account", {"Name": c, "Code__c": c}) for c in ("shared", "alone"))
        value = {"shared": shared, "alone": alone} if column == "Account__c" else {"shared": "shared", "alone": "alone"}
        parents = [value["shared"]] * 10_000 + [value["shared"], value["alone"]] * 1000
        job = org.job("Customer__c", f"Name,{column}\n" + "".join(f"n{i},{p}\n" for i, p in enumerate(parents)))
        failed = org.rows(job, "failedResults") if org.info(job)["numberRecordsFailed"] else []
        assert {r["sf__Error"] for r in failed} <= {f"UNABLE_TO_LOCK_ROW:{text(shared)}:--"}
        return org.info(job), sorted((r["Name"], r[column]) for r in failed)

    info, failed = run(parallel_batches=4, share=0.5, seed=7)
    places = [int(name[1:]) for name, _ in failed]
    assert info["state"] == "JobComplete" and info["retries"] == 0
    chunks = {place // 200 for place in places}
    assert 0 < len(chunks) < 10 and len(failed) == 100 * len(chunks)
    assert min(places) >= 10_000 and all(place % 2 == 0 for place in places)
    assert run(parallel_batches=4, share=0.5, seed=7)[1] == failed
    assert run(parallel_batches=4, share=0.5, seed=8)[1] != failed
    assert run()[1] == run(parallel_batches=1, share=1.0)[1] == []
