"""A run is undone: Salesforce holds again what it held, and what others wrote since stays."""

from __future__ import annotations

from typing import Any

import pytest

from .lab import EVENTS, PEOPLE, Deadly, Lab, Org

pytestmark = pytest.mark.slow

KEEPING = {**PEOPLE, "keep_before_images": True}


def people(org: Org) -> dict[str, dict[str, Any]]:
    fields = "Person_Id__c, Name, Plan__c, Email__c, Score__c, Nick__c"
    found = org.query(f"SELECT Id, {fields} FROM Person__c")
    return {r["Person_Id__c"]: {name: r[name] for name in ("Id", *fields.split(", "))} for r in found}


def last_run(lab: Lab) -> str:
    return str(lab.run("history", "--json").json["runs"][0]["run_id"])


def changed(lab: Lab, **keys: Any) -> None:
    """A first sync, then one that changes 20 records, clears a field of one, and makes two new ones."""
    lab.only("people", {**KEEPING, **keys})
    assert lab.run("sync").code == 0
    lab.sql(
        "update people set name = 'Wrong ' || person_id, score = null where cast(person_id[2:] as int) <= 20",
        "insert into people (person_id, name, plan) values ('N1', 'New 1', 'Free'), ('N2', 'New 2', null)",
    )


@pytest.mark.parametrize("api", ["collections", "bulk"])
def test_a_run_is_undone(lab: Lab, org: Org, api: str) -> None:
    changed(lab, api=api)
    before = people(org)
    assert lab.run("sync").code == 0
    run = last_run(lab)
    plan = lab.run("revert", run)
    assert plan.code == 0, plan.all
    assert "put back 20 records: Name, Score__c\n" in plan.out
    assert "delete 2 records that the run created" in plan.out
    assert "mend the model first" in plan.out
    assert "Wrong" not in plan.all and "Person 1" not in plan.all
    assert people(org)["P1"]["Name"] == "Wrong P1", "asking changes nothing"
    done = lab.run("revert", run, "--yes", "--json")
    assert done.code == 0, done.all
    assert (done.json["put_back"], done.json["deleted"], done.json["outcome"]["succeeded"]) == (20, 2, 22)
    assert people(org) == before
    told = lab.run("history", done.json["run_id"], "--json").json["run"]
    assert (told["mode"], told["reverts"], told["status"]) == ("revert", run, "success")
    assert "nothing to put back" in lab.run("revert", run).out
    again = lab.run("sync", "--json").result("people_to_crm")
    assert (again["counts"]["resent"], again["counts"]["added"], again["outcome"]["succeeded"]) == (20, 2, 22)
    assert people(org)["P1"]["Name"] == "Wrong P1"
    assert lab.run("plan", "--detailed-exitcode").code == 0


def test_a_mended_model_is_not_disturbed_by_its_revert(lab: Lab, org: Org) -> None:
    changed(lab)
    before = people(org)
    assert lab.run("sync").code == 0
    lab.run("revert", last_run(lab), "--yes")
    lab.sql(
        "update people set name = 'Person ' || person_id[2:], score = cast(person_id[2:] as int) + 0.5"
        " where cast(try_cast(person_id[2:] as int) as int) <= 20 and person_id like 'P%'",
        "delete from people where person_id like 'N%'",
    )
    assert lab.run("sync").code == 0
    assert people(org) == before
    assert lab.run("plan", "--detailed-exitcode").code == 0


def test_edits_by_others_and_by_later_runs_are_left_alone_and_named(lab: Lab, org: Org) -> None:
    changed(lab)
    assert lab.run("sync").code == 0
    run, after = last_run(lab), people(org)
    org.edit("Person__c", after["P3"]["Id"], Name="By hand")
    org.edit("Person__c", after["P4"]["Id"], Nick__c="mine")
    lab.sql("update people set name = 'Later' where person_id = 'P5'")
    assert lab.run("sync").code == 0
    plan = lab.run("revert", run)
    assert "2 left alone (CONFLICT)" in plan.out
    assert f"{after['P3']['Id']}: Name\n" in plan.out
    done = lab.run("revert", run, "--yes", "--json")
    assert done.code == 0, done.all
    left = {row["record_id"]: (row["code"], row["fields"]) for row in done.json["left_alone"]}
    assert left == {after[key]["Id"]: ("CONFLICT", ["Name"]) for key in ("P3", "P5")}
    now = people(org)
    assert [now[key]["Name"] for key in ("P3", "P4", "P5")] == ["By hand", "Person 4", "Later"]
    assert now["P4"]["Nick__c"] == "mine"
    listed = lab.run("rejected", done.json["run_id"]).out
    assert "  held  CONFLICT [Name]\n    P3  " in listed


def test_what_an_insert_made_is_deleted_past_its_guard_only(lab: Lab, org: Org) -> None:
    lab.only("events", {**EVENTS, "fields": {"event_id": "Ref__c"}, "keep_before_images": True})
    assert lab.run("sync").code == 0
    run = last_run(lab)
    refused = lab.run("revert", run, "--yes")
    assert (refused.code, "--allow-deletes 20" in refused.err, org.count("Event__c")) == (4, True, 20)
    assert "would be refused" in lab.run("revert", run).out
    done = lab.run("revert", run, "--yes", "--allow-deletes", "20")
    assert (done.code, org.count("Event__c")) == (0, 0), done.all
    assert lab.run("sync").code == 0
    assert org.count("Event__c") == 20


def test_a_parent_goes_back_to_what_it_was(lab: Lab, org: Org) -> None:
    """Sent as the parent's external id, compared and put back as the record it leads to."""
    lab.only("people", KEEPING)
    lab.run("sync")
    by_ref = {"name": "events_by_ref", "mode": "update", "match": {"event_id": "Ref__c"}, "keep_before_images": True}
    lab.only("events", {**EVENTS, **by_ref, "fields": {"person_id": "Person__r.Person_Id__c"}})
    ids = {key: record["Id"] for key, record in people(org).items()}
    org.create("Event__c", Ref__c="E1", Must__c="x")
    org.create("Event__c", Ref__c="E2", Must__c="x", Person__c=ids["P9"])
    held = "SELECT Ref__c, Person__c FROM Event__c ORDER BY Ref__c"
    assert lab.run("sync").code == 0
    assert [r["Person__c"] for r in org.query(held)] == [ids["P2"], ids["P3"]]
    done = lab.run("revert", last_run(lab), "--yes")
    assert done.code == 0, done.all
    assert [r["Person__c"] for r in org.query(held)] == [None, ids["P9"]]


def test_a_revert_that_is_killed_is_completed(lab: Lab, org: Org) -> None:
    changed(lab)
    before = people(org)
    assert lab.run("sync").code == 0
    run = last_run(lab)
    lab.deadly = Deadly("PATCH", "/composite/sobjects", "after")
    child = lab.start("revert", run, "--yes")
    lab.deadly.victim = child.pid
    child.communicate(timeout=60)
    lab.deadly = None
    assert people(org) != before
    done = lab.run("revert", run, "--yes")
    assert (done.code, people(org)) == (0, before), done.all


def test_a_run_that_can_not_be_reverted_says_why(lab: Lab, org: Org) -> None:
    lab.only("people", PEOPLE)
    lab.run("sync")
    run = last_run(lab)
    assert (lab.run("revert", "nonsense").code, "DB806" in lab.run("revert", "nonsense").err) == (2, True)
    ran = lab.run("revert", run, "--yes")
    assert (ran.code, "DB416" in ran.err, "keep_before_images" in ran.err) == (4, True, True)
    lab.only("events", EVENTS)
    ran = lab.run("revert", run)
    assert (ran.code, "DB814" in ran.err) == (2, True)
