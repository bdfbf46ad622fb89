"""Rows that leave the segment, and lists of records to delete, through the real command over HTTP."""

from __future__ import annotations

import shutil
from typing import Any

import pytest

from .lab import COMPANIES, PEOPLE, Deadly, Lab, Org

pytestmark = pytest.mark.slow

LEAVE = "delete from people where person_id in ('P1', 'P2', 'P3')"
BACK = "insert into people (person_id, name) select 'P' || i, 'Back ' || i from range(1, 4) t(i)"


def leaving(on_removed: Any, **more: Any) -> dict[str, Any]:
    return {**PEOPLE, "on_removed": on_removed, **more}


@pytest.mark.parametrize("api", ["bulk", "collections"])
def test_records_of_rows_that_left_are_deleted_and_made_again_when_they_are_back(lab: Lab, org: Org, api: str) -> None:
    lab.only("people", leaving("delete", api=api))
    org.create("Person__c", Name="theirs", Person_Id__c="P3")
    assert lab.run("sync").code == 0
    lab.sql(LEAVE)
    planned = lab.run("plan")
    assert f"delete 2 rows by {api}, of rows that left: Id" in planned.out
    assert "3 rows left the segment (on_removed: delete; 2 now)" in planned.out
    assert lab.run("plan", "--detailed-exitcode").code == 10
    ran = lab.run("sync", "--json")
    assert ran.code == 0, ran.all
    result = ran.result("people_to_crm")
    assert (result["outcome"]["removed"], result["counts"]["removing"], result["counts"]["planned"]) == (2, 2, 0)
    assert "2 removed" in ran.err
    for told in (planned.out, ran.err):
        assert "1 row left the segment, and on_removed leaves the records as they are" in " ".join(told.split())
    assert org.count("Person__c") == 28, "the one that was there before stays"
    if api == "collections":
        [(_, path)] = [(m, p) for m, p, _ in lab.requests if m == "DELETE"]
        assert path.endswith("/composite/sobjects")
    else:
        assert "delete" in {job["operation"] for job in org.jobs()}
    assert lab.run("plan", "--detailed-exitcode").code == 0
    lab.sql(BACK)
    assert lab.run("sync").code == 0
    names = {r["Person_Id__c"]: r["Name"] for r in org.query("SELECT Person_Id__c, Name FROM Person__c")}
    assert (len(names), names["P1"], names["P3"]) == (30, "Back 1", "Back 3")


def test_fields_are_set_on_the_records_of_rows_that_left(lab: Lab, org: Org) -> None:
    lab.only("people", leaving({"set": {"Nick__c": "gone", "Email__c": None, "Active__c": True}}))
    assert lab.run("sync").code == 0
    lab.sql(LEAVE)
    ran = lab.run("sync")
    assert ran.code == 0, ran.all
    gone = org.query("SELECT Email__c, Active__c, Name FROM Person__c WHERE Nick__c = 'gone' ORDER BY Name")
    assert [(r["Email__c"], r["Active__c"], r["Name"]) for r in gone] == [
        (None, True, f"Person {n}") for n in (1, 2, 3)
    ]
    assert lab.run("plan", "--detailed-exitcode").code == 0


def test_too_many_deletes_pass_with_exactly_their_number(lab: Lab, org: Org) -> None:
    lab.only("people", leaving("delete"))
    assert lab.run("sync").code == 0
    lab.sql("delete from people where person_id like 'P1%'", "insert into people (person_id, name) values ('N', 'new')")
    planned = lab.run("plan")
    assert planned.code == 4
    assert "would be refused: DB407" in planned.out and "upsert 1 row" in planned.out
    refused = lab.run("sync")
    assert refused.code == 4
    assert "--allow-deletes 11" in refused.err
    assert lab.run("sync", "--allow-deletes", "10", "--full", "--allow-changes", "99").code == 4
    assert org.count("Person__c") == 30
    assert lab.run("sync", "--allow-deletes", "11").code == 0
    assert org.count("Person__c") == 20


def test_a_state_that_was_lost_knows_its_records_again_by_adopting_them(lab: Lab, org: Org) -> None:
    lab.only("people", leaving("delete"))
    assert lab.run("sync").code == 0
    for path in lab.data.parent.iterdir():
        if path != lab.data:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert lab.run("sync").code == 0
    lab.sql("delete from people where person_id = 'P4'")
    ran = lab.run("sync")
    assert "1 row left the segment, and on_removed leaves the records" in " ".join(ran.all.split()), ran.all
    assert org.count("Person__c") == 30
    for command in (("state", "reset", "people_to_crm"), ("state", "adopt", "people_to_crm", "--yes"), ("sync",)):
        assert lab.run(*command).code == 0
    lab.sql(LEAVE)
    ran = lab.run("sync")
    assert (ran.code, org.count("Person__c")) == (0, 27) and "left the segment" not in ran.all, ran.all


@pytest.mark.parametrize("back", [True, False])
def test_killed_when_records_were_deleted_and_nobody_heard(lab: Lab, org: Org, back: bool) -> None:
    lab.only("people", leaving("delete"))
    assert lab.run("sync").code == 0
    lab.sql(LEAVE)
    lab.deadly = Deadly("DELETE", "/composite/sobjects", "after")
    child = lab.start("sync")
    lab.deadly.victim = child.pid
    child.communicate()
    lab.deadly = None
    assert child.returncode == -9
    assert org.count("Person__c") == 27
    if back:
        lab.sql(BACK)
    ran = lab.run("sync", "--json")
    assert ran.code == 0, ran.all
    result = ran.result("people_to_crm")
    assert (result["recovered"]["removed"], result["outcome"]["created"]) == (3, 3 if back else 0)
    assert org.count("Person__c") == (30 if back else 27)
    assert lab.run("plan", "--detailed-exitcode").code == 0


def test_a_list_of_records_to_delete(lab: Lab, org: Org) -> None:
    deletes = {k: v for k, v in COMPANIES.items() if k != "fields"}
    lab.only("companies", {**deletes, "mode": "delete", "guards": {"max_delete": 1}})
    refused = lab.run("sync")
    assert refused.code == 4
    assert "--allow-deletes 2" in refused.err
    ran = lab.run("sync", "--allow-deletes", "2")
    assert ran.code == 0, ran.all
    assert "1 no match" in ran.all
    assert [r["Name"] for r in org.query("SELECT Name FROM Account")] == ["Other"]
    assert lab.run("plan", "--detailed-exitcode").code == 0
    lab.sql("delete from companies")
    assert lab.run("sync").code == 0, "an empty list deletes nothing"


@pytest.mark.parametrize(
    ("guards", "said"), [({}, "needs `guards.max_delete`"), ({"max_delete": "1%"}, "an absolute number")]
)
def test_a_delete_without_a_number_is_a_mistake(lab: Lab, org: Org, guards: dict[str, Any], said: str) -> None:
    deletes = {k: v for k, v in COMPANIES.items() if k != "fields"}
    lab.only("companies", {**deletes, "mode": "delete", "guards": guards})
    ran = lab.run("validate")
    assert ran.code == 2
    assert said in ran.err


def test_what_can_not_be_set_is_found_by_validate(lab: Lab, org: Org) -> None:
    lab.only("people", leaving({"set": {"Nope__c": 1, "Score__c": "many", "Active__c": None}}))
    ran = lab.run("validate", "--online")
    assert ran.code == 2
    assert "on_removed.set.Nope__c" in ran.err and "on_removed.set.Score__c" in ran.err
    assert "on_removed.set.Active__c" in ran.err
