"""The audit after a run: a hash that misses a change is found out, edits by others are no fault, silence is said."""

from __future__ import annotations

from typing import Any

import pytest

from dinmo_dbt import changes
from dinmo_dbt.rowhash import digest_columns

from .lab import EVENTS, PEOPLE, Lab

FIELDS = {
    "name": "Name",
    "nick": "Nick__c",
    "born": "Born__c",
    "seen": "Seen__c",
    "active": "Active__c",
    "big": "Big__c",
}
EVERY_TYPE = {**PEOPLE, "fields": {**PEOPLE["fields"], **FIELDS}}
ONCE = {**EVENTS, "on_change": "ignore"}


@pytest.fixture
def blind(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row hash that sees the key alone."""

    def of_the_key(_scan: Any, key: Any, mapping: Any, _arrays: Any) -> Any:
        return digest_columns([key], seed=mapping.digest)

    monkeypatch.setattr(changes._Scan, "check_hash", of_the_key)


def audit(lab: Lab, *flags: str) -> dict[str, Any]:
    ran = lab.run("sync", "--json", *flags)
    assert ran.code == 0, ran.all
    found: dict[str, Any] = ran.json["results"][0]["audit"]
    return found


@pytest.mark.usefixtures("blind")
def test_a_changed_row_that_is_called_unchanged_is_found_and_sent_by_the_next_run(lab: Lab) -> None:
    lab.only("people", PEOPLE)
    with lab.serve() as org:
        lab.run("sync")
        lab.sql("update people set name = 'Xenia', score = 7 where person_id in ('P3', 'P4')")
        found = lab.run("sync")
        assert found.code == 7, found.all
        assert "DB492" in found.all and "2 of the rows" in found.all and "Name, Score__c" in found.all
        assert "Xenia" not in found.all
        assert org.query("SELECT Id FROM Person__c WHERE Name = 'Xenia'") == []
        assert lab.run("history", "--json").json["runs"][0]["status"] == "failed"
        again = audit(lab)
        assert len(org.query("SELECT Id FROM Person__c WHERE Name = 'Xenia'")) == 2
        assert (again["missed"], again["drifted"]) == (0, 0)
        assert audit(lab)["missed"] == 0


@pytest.mark.usefixtures("blind")
def test_an_insert_that_misses_a_change_is_found_and_nothing_is_made_by_itself(lab: Lab) -> None:
    lab.only("people", PEOPLE)
    with lab.serve() as org:
        lab.run("sync")
        lab.only("events", EVENTS)
        lab.run("sync")
        lab.sql("update events set kind = 'other' where event_id = 'E3'")
        for _ in range(2):
            found = lab.run("sync")
            assert (found.code, org.count("Event__c")) == (7, 20)
            assert "DB492" in found.all and "verify" in found.all
            lab.sql("update events set kind = 'third' where event_id = 'E4'")


@pytest.mark.usefixtures("blind")
def test_full_sends_what_was_missed_and_the_audit_is_content(lab: Lab) -> None:
    lab.only("people", {**PEOPLE, "guards": {"max_change": "100%"}})
    with lab.serve() as org:
        lab.run("sync")
        lab.sql("update people set name = 'Xenia'")
        lab.run("sync", "--full")
        assert len(org.query("SELECT Id FROM Person__c WHERE Name = 'Xenia'")) == 30
        assert audit(lab)["missed"] == 0


def test_edits_and_deletes_by_others_are_drift_and_no_fault(lab: Lab) -> None:
    lab.only("people", PEOPLE)
    with lab.serve() as org:
        assert audit(lab) == {"compared": 30, "missed": 0, "drifted": 0, "rewritten": 0, "fields": []}
        one, other = org.query("SELECT Id FROM Person__c LIMIT 2")
        org.edit("Person__c", one["Id"], Name="theirs")
        org.http.delete(f"{org.base}/sobjects/Person__c/{other['Id']}")
        lab.sql("update people set name = 'Xenia' where person_id = 'P30'")
        found = audit(lab)
        assert (found["drifted"], found["missed"], found["fields"]) == (2, 0, ["Name"])
        told = lab.run("sync")
        assert told.code == 0
        assert "of 30 rows compared with Salesforce, 2 were changed there" in told.out
        assert "theirs" not in told.all


def test_every_type_compares_equal_to_what_was_sent(lab: Lab) -> None:
    lab.sql(
        "update people set nick = ' trimmed ', born = date '1969-12-31' + cast(person_id[2:] as int), "
        "seen = timestamptz '2024-02-29 23:59:59.9996+02', active = (score > 9), big = 123456789012345, "
        "email = case when score > 20 then null else email end"
    )
    lab.only("people", EVERY_TYPE)
    with lab.serve():
        for _ in range(2):
            assert audit(lab) == {"compared": 30, "missed": 0, "drifted": 0, "rewritten": 0, "fields": []}
        lab.only("events", EVENTS)
        for _ in range(2):
            assert audit(lab) == {"compared": 20, "missed": 0, "drifted": 0, "rewritten": 0, "fields": []}


def test_a_new_mapping_says_nothing_against_what_was_acknowledged(lab: Lab) -> None:
    lab.only("people", PEOPLE)
    with lab.serve():
        audit(lab)
        lab.only("people", {**PEOPLE, "fields": {**PEOPLE["fields"], "nick": "Nick__c"}})
        assert audit(lab)["missed"] == 0
        lab.sql("update people set nick = 'n' where person_id = 'P1'")
        assert audit(lab)["missed"] == 0


def test_it_is_one_call_of_the_size_that_is_asked_for(lab: Lab) -> None:
    lab.only("people", PEOPLE)
    with lab.serve():
        lab.run("sync")

        def calls(*flags: str) -> int:
            before = len(lab.requests)
            assert lab.run("sync", *flags).code == 0
            return len(lab.requests) - before

        assert calls() == calls("--audit", "off") + 1
        assert audit(lab, "--audit", "7 rows")["compared"] == 7
        assert audit(lab, "--audit", "100%")["compared"] == 30
        assert audit(lab, "--audit", "1%")["compared"] == 10  # never fewer, where there are
        assert audit(lab, "--audit", "off") is None
        wrong = lab.run("sync", "--audit", "some")
        assert (wrong.code, "DB815" in wrong.err) == (2, True)
        lab.only("people", {**PEOPLE, "audit": "5 rows"})
        assert audit(lab)["compared"] == 5


def test_where_the_records_cannot_be_read_the_run_stands_and_that_is_said(lab: Lab) -> None:
    lab.only("people", PEOPLE)
    with lab.serve() as org:
        lab.run("sync")
        fault = {"kind": "status", "status": 400, "call": "collections.retrieve", "times": 10}
        assert org.http.post(f"{org.url}/emulator/faults", json=fault).status_code < 300
        ran = lab.run("sync")
        assert (ran.code, "the audit was left out" in ran.out) == (0, True), ran.all


def test_a_delete_has_no_audit(lab: Lab) -> None:
    lab.only("people", PEOPLE)
    with lab.serve():
        lab.run("sync")
        lab.run("state", "reset", "people_to_crm")
        model = {"name": "gone", "destination": "crm", "object": "Person__c", "mode": "delete"}
        lab.only("people", {**model, "match": {"person_id": "Person_Id__c"}, "guards": {"max_delete": 100}})
        assert audit(lab) is None
