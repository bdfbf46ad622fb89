"""The audit after a run: a hash that misses a change is found out, edits by others are no fault, silence is said."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from dinmo_dbt.errors import NotApplied
from dinmo_dbt.rows import hashed
from dinmo_dbt.rows.rowhash import digest_columns

from .lab import EVENTS, PEOPLE, Lab, Org

pytestmark = pytest.mark.slow

FIELDS = {
    "name": "Name",
    "nick": "Nick__c",
    "born": "Born__c",
    "seen": "Seen__c",
    "active": "Active__c",
    "big": "Big__c",
}
EVERY_TYPE = {**PEOPLE, "fields": {**PEOPLE["fields"], **FIELDS}}
ALL_READ = {"deleted": 0, "unread": 0, "left_out": ""}
ONCE = {**EVENTS, "on_change": "ignore"}


@pytest.fixture
def blind(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row hash that sees the key alone."""

    def of_the_key(key: Any, mapping: Any, _arrays: Any) -> Any:
        return digest_columns([key], seed=mapping.digest)

    monkeypatch.setattr(hashed, "check_hash", of_the_key)


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
        assert audit(lab) == {"compared": 30, "missed": 0, "drifted": 0, "rewritten": 0, "fields": [], **ALL_READ}
        one, other = org.query("SELECT Id FROM Person__c LIMIT 2")
        org.edit("Person__c", one["Id"], Name="theirs")
        org.http.delete(f"{org.base}/sobjects/Person__c/{other['Id']}")
        lab.sql("update people set name = 'Xenia' where person_id = 'P30'")
        found = audit(lab)
        assert (found["drifted"], found["deleted"], found["missed"], found["fields"]) == (2, 1, 0, ["Name"])
        told = lab.run("sync")
        assert told.code == 0
        assert "of 30 rows compared with Salesforce, 1 was changed there and 1 was deleted there since" in told.out
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
            assert audit(lab) == {"compared": 30, "missed": 0, "drifted": 0, "rewritten": 0, "fields": [], **ALL_READ}
        lab.only("events", EVENTS)
        for _ in range(2):
            assert audit(lab) == {"compared": 20, "missed": 0, "drifted": 0, "rewritten": 0, "fields": [], **ALL_READ}


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
        ran = lab.run("sync", "--json")
        told = ran.json["results"][0]["audit"]
        assert (ran.code, told["compared"], told["unread"], bool(told["left_out"])) == (0, 0, 30, True), ran.all
        assert org.http.post(f"{org.url}/emulator/faults", json=fault).status_code < 300
        said = lab.run("sync")
        assert (said.code, "the audit was left out" in said.out) == (0, True), said.all


@pytest.mark.usefixtures("blind")
def test_what_the_model_alone_can_tell_is_found_where_the_records_can_not_be_read(lab: Lab) -> None:
    lab.only("people", PEOPLE)
    with lab.serve() as org:
        lab.run("sync")
        lab.sql("update people set name = 'Xenia' where person_id in ('P3', 'P4')")
        fault = {"kind": "status", "status": 400, "call": "collections.retrieve", "times": 10}
        assert org.http.post(f"{org.url}/emulator/faults", json=fault).status_code < 300
        ran = lab.run("sync")
        assert ran.code == 7 and "2 of the rows" in ran.all, ran.all


ODD: dict[str, Callable[[list[Any]], Any]] = {
    "no record": lambda found: [None] * len(found),
    "fewer": lambda found: found[:-1],
    "more": lambda found: [*found, found[0]],
    "others": lambda found: [{**each, "Id": f"a01{'0' * 12}AAA"} if each else None for each in found],
    "errors": lambda found: [{"message": "no", "errorCode": "NOT_FOUND"}] * len(found),
    "one error": lambda found: [{"message": "no", "errorCode": "NOT_FOUND"}],
    "none": lambda _: [],
    "no list": lambda _: {"records": []},
}


@pytest.mark.parametrize("odd", ODD)
def test_a_reply_of_an_odd_shape_is_never_taken_for_an_audit(
    odd: str, lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was just delivered, and is not in the reply as it was asked for, does not count as compared."""
    from dinmo_dbt.salesforce import client

    lab.only("people", {**PEOPLE, "api": "bulk"})
    call = client.Client.call

    def odd_one(self: Any, request: Any) -> Any:
        reply = call(self, request)
        if request.path.startswith("composite/sobjects/"):
            content = ODD[odd](reply.json)
            if request.is_whole and not request.is_whole(content):
                raise NotApplied("DB610", "the reply has another shape than Salesforce documents")
            return dataclasses.replace(reply, json=content)
        return reply

    monkeypatch.setattr(client.Client, "call", odd_one)
    with lab.serve():
        told = audit(lab)
        assert (told["compared"], told["unread"]) == (0, 30)


def test_a_delete_has_no_audit(lab: Lab) -> None:
    lab.only("people", PEOPLE)
    with lab.serve():
        lab.run("sync")
        lab.run("state", "reset", "people_to_crm")
        model = {"name": "gone", "destination": "crm", "object": "Person__c", "mode": "delete"}
        lab.only("people", {**model, "match": {"person_id": "Person_Id__c"}, "guards": {"max_delete": 100}})
        assert audit(lab) is None


def test_rows_that_are_all_alike_are_not_said_to_be_withheld(lab: Lab, org: Org) -> None:
    """An insert's results do not tell their records apart, so nothing is known that could be read again."""
    lab.only("events", {**EVENTS, "fields": {"kind": "Kind__c"}})
    assert lab.run("sync").code == 0
    ran = lab.run("sync")
    assert (ran.code, org.count("Event__c")) == (0, 20)
    assert "of rows that are all alike" in " ".join(ran.out.split()), ran.all
