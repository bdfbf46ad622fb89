"""verify, verify --repair and state adopt, as a user runs them, over HTTP."""

from __future__ import annotations

from typing import Any

import pytest

from .lab import COMPANIES, EVENTS, PEOPLE, Lab, Org

pytestmark = pytest.mark.slow

BY_REF = ("--match", "event_id=Ref__c")


def verified(lab: Lab, name: str, *flags: str) -> dict[str, Any]:
    ran = lab.run("verify", "-s", name, "--json", *flags)
    assert ran.json["exit_code"] == ran.code
    return {**ran.json["activations"][0], "code": ran.code}


def person(org: Org, key: str) -> str:
    return str(org.query(f"SELECT Id FROM Person__c WHERE Person_Id__c = '{key}'")[0]["Id"])


def test_what_others_changed_is_found_and_repaired(lab: Lab, org: Org) -> None:
    lab.only("people", PEOPLE)
    assert lab.run("sync").code == 0
    assert verified(lab, "people_to_crm")["counts"]["verified"] == 30
    org.edit("Person__c", person(org, "P1"), Name="Theirs", Score__c=1)
    org.edit("Person__c", person(org, "P2"), Note__c="not ours")
    org.edit("Person__c", person(org, "P3"), Person_Id__c="moved")
    org.http.delete(f"{org.base}/sobjects/Person__c/{person(org, 'P4')}")
    told = lab.run("verify")
    assert told.code == 3
    assert "to send them again: dinmo-dbt verify -s people_to_crm --repair" in told.out
    assert "drifted P1" in told.out and "Name, Score__c" in told.out and "gone P4" in told.out
    assert "Theirs" not in told.all, "no value without --show-values"
    shown = lab.run("verify", "--show-values")
    assert "Name: model Person 1, Salesforce Theirs" in shown.out
    before = verified(lab, "people_to_crm", "--show-values")
    assert {row["key"]: [f["field"] for f in row["fields"]] for row in before["drifted"]} == {
        "P1": ["Name", "Score__c"],
        "P3": ["Person_Id__c"],
    }
    assert lab.run("plan", "--json").json["activations"][0]["batches"] == [], "verify changes nothing"

    repaired = lab.run("verify", "--repair", "--json")
    assert (repaired.code, repaired.json["activations"][0]["repair"]) == (0, {"marked": 3, "repaired": 3})
    assert repaired.result("people_to_crm")["outcome"]["succeeded"] == 3
    after = verified(lab, "people_to_crm")
    assert (after["code"], after["counts"]["verified"]) == (0, 30)
    assert org.query("SELECT Name FROM Person__c WHERE Person_Id__c = 'P1'")[0]["Name"] == "Person 1"


def test_a_repair_that_salesforce_refuses_says_so(lab: Lab, org: Org) -> None:
    lab.only("companies", COMPANIES)
    assert lab.run("sync").code == 0
    record = org.query("SELECT Id FROM Account WHERE Website = 'a.example'")[0]["Id"]
    org.http.delete(f"{org.base}/sobjects/Account/{record}")
    ran = lab.run("verify", "--repair")
    assert ran.code == 3
    assert "0 of 1 row repaired" in ran.out
    assert "to send them again" not in ran.all, "they were"
    assert verified(lab, "companies_to_crm")["counts"]["pending"]["added"] == 2


def test_what_an_insert_made_is_verified_but_never_repaired(lab: Lab, org: Org) -> None:
    lab.only("events", {**EVENTS, "fields": {"event_id": "Ref__c", "amount": "Amount__c"}})
    assert lab.run("sync").code == 0
    record = org.query("SELECT Id FROM Event__c WHERE Ref__c = 'E7'")[0]["Id"]
    org.edit("Event__c", record, Amount__c=99)
    assert [row["key"] for row in verified(lab, "events_to_crm")["drifted"]] == ["E7"]
    refused = lab.run("verify", "--repair")
    assert refused.code == 4
    assert "DB414" in refused.err
    assert org.count("Event__c") == 20


def test_parents_are_compared_through_their_lookup(lab: Lab, org: Org) -> None:
    lab.declare("companies")
    assert lab.run("sync").code == 0
    assert verified(lab, "events_to_crm")["counts"]["verified"] == 20
    record = org.query("SELECT Id FROM Event__c WHERE Ref__c = 'E7'")[0]["Id"]
    org.edit("Event__c", record, Person__c=person(org, "P1"))
    found = verified(lab, "events_to_crm", "--show-values")
    field = {"field": "Person__r.Person_Id__c", "model": "P8", "salesforce": "P1"}
    assert [(row["key"], row["fields"]) for row in found["drifted"]] == [("E7", [field])]


def test_a_lost_state_is_taken_over_and_nothing_is_doubled(lab: Lab, org: Org) -> None:
    lab.only("events", {**EVENTS, "fields": {"event_id": "Ref__c", "kind": "Kind__c"}})
    assert lab.run("sync").code == 0
    assert lab.run("state", "reset", "events_to_crm").code == 0
    refused = lab.run("sync")
    assert refused.code == 4
    assert "dinmo-dbt state adopt events_to_crm --match event_id=Ref__c" in refused.err
    org.create("Event__c", Ref__c="E3")
    lab.sql("insert into events (event_id, kind, amount, person_id) values ('E99', 'new', 1, 'P1')")
    assert lab.run("state", "adopt", "events_to_crm").code == 2
    plan = lab.run("state", "adopt", "events_to_crm", *BY_REF)
    assert plan.code == 0
    assert "19 matched, 1 ambiguous, 1 unmatched" in plan.out and "nothing is stored" in plan.out
    assert lab.run("sync").code == 4, "a plan changes nothing"
    stored = lab.run("state", "adopt", "events_to_crm", *BY_REF, "--yes", "--json")
    assert (stored.code, stored.json["counts"]["matched"]) == (0, 19)
    again = lab.run("state", "adopt", "events_to_crm", *BY_REF, "--yes")
    assert (again.code, "DB412" in again.err) == (4, True)
    planned = lab.run("plan", "--json").json["activations"][0]
    assert planned["counts"]["unchanged"] == 19
    assert verified(lab, "events_to_crm")["counts"]["verified"] == 19
    assert org.count("Event__c") == 21


def test_records_of_others_are_adopted_before_a_first_upsert(lab: Lab, org: Org) -> None:
    lab.only("people", {**PEOPLE, "on_removed": "delete"})
    for key, name in (("P1", "Person 1"), ("p2", "Theirs")):
        org.create("Person__c", Person_Id__c=key, Name=name, Plan__c="Team", Email__c="P1@example.com", Score__c=1.5)
    plan = lab.run("state", "adopt", "people_to_crm", "--yes")
    assert plan.code == 0
    assert "2 matched, 28 unmatched" in plan.out and "may be deleted" in plan.out
    assert "1 are as in the model" in plan.out
    ran = lab.run("sync", "--json")
    assert (ran.code, ran.result("people_to_crm")["counts"]["unchanged"]) == (0, 1)
    assert ran.result("people_to_crm")["outcome"]["created"] == 28
    assert org.count("Person__c") == 30


@pytest.mark.parametrize("flags", [("--match", "nonsense"), ("--match", "kind=Nope__c")])
def test_a_wrong_match_is_a_usage_error(lab: Lab, org: Org, flags: tuple[str, ...]) -> None:
    ran = lab.run("state", "adopt", "events_to_crm", *flags)
    assert (ran.code, "DB813" in ran.err) == (2, True)
