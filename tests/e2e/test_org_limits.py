"""Whole runs that an org turns away in the middle: what is told, and that the next run delivers each row once."""

from __future__ import annotations

from typing import Any

import pytest

from .lab import PEOPLE, Lab, Org
from .test_reach import CLIENT
from .test_security import told
from .test_signals import faulty, mended

pytestmark = pytest.mark.slow

BY_CALL = {**PEOPLE, "api": "collections"}
MORE = (
    "insert into people by name select 'P' || i as person_id, 'Person ' || i as name, 'Free' as plan, "
    "'p' || i || '@example.com' as email, 1.5 as score from range(31, 5001) t(i)"
)


def limited(org: Org, **limits: int) -> None:
    assert org.http.post(f"{org.url}/emulator/limits", json=limits).status_code == 200


def records(org: Org) -> list[str]:
    return sorted(record["Person_Id__c"] for record in org.query("SELECT Person_Id__c FROM Person__c"))


def every(count: int) -> list[str]:
    return sorted(f"P{number}" for number in range(1, count + 1))


def problem(ran: Any) -> dict[str, Any]:
    found: dict[str, Any] = ran.result("people_to_crm")["problem"]
    return found


def test_a_session_that_is_refused_for_ever_ends_the_run(lab: Lab, org: Org) -> None:
    lab.only("people", BY_CALL)
    known = told(lab)
    text = CLIENT.format(url=known["instance_url"]).replace("client_id: lab", f"client_id: {known['client_id']}")
    (lab.root / "dinmo.yml").write_text(text)
    struck = faulty(org, {"kind": "session_expired", "call": "collections.*", "times": 1000})
    ran = lab.run("sync", "--json", LAB_SECRET=known["client_secret"])
    assert ran.code == 1, ran.all
    assert "Traceback" not in ran.all
    assert problem(ran)["code"] == "DB604"
    assert "refused a session that was just renewed" in problem(ran)["message"], problem(ran)
    assert struck() == 2
    assert records(org) == []
    mended(org)
    assert lab.run("sync", LAB_SECRET=known["client_secret"]).code == 0
    assert records(org) == every(30)


def test_an_org_without_room_rejects_the_rows_and_says_what_to_do(lab: Lab, org: Org) -> None:
    lab.only("people", PEOPLE)
    limited(org, DataStorageMB=0)
    ran = lab.run("sync", "--json")
    assert ran.code == 1, ran.all
    assert problem(ran)["code"] == "DB613"
    [group] = ran.result("people_to_crm")["left_out"]
    assert (group["code"], group["class"], group["rows"]) == ("STORAGE_LIMIT_EXCEEDED", "limit", 30)
    assert "storage" in group["hint"]
    assert records(org) == []
    limited(org, DataStorageMB=1000)
    ran = lab.run("sync", "--json")
    assert ran.code == 0, ran.all
    assert records(org) == every(30)


def test_a_run_stops_before_its_share_of_the_calls_is_used_up_and_the_next_goes_on(lab: Lab, org: Org) -> None:
    lab.only("people", BY_CALL)
    lab.sql(MORE)
    limited(org, DailyApiRequests=25)
    ran = lab.run("sync", "--json")
    assert ran.code == 1, ran.all
    assert problem(ran)["code"] == "DB609"
    first = records(org)
    assert 0 < len(first) < 5000 and len(first) % 200 == 0
    assert ran.result("people_to_crm")["outcome"]["succeeded"] == len(first)
    limited(org, DailyApiRequests=100_000)
    ran = lab.run("sync", "--json")
    assert ran.code == 0, ran.all
    assert ran.result("people_to_crm")["outcome"]["succeeded"] == 5000 - len(first)
    assert records(org) == every(5000)
