"""From declared activations to records: the first sync, nothing to send, only the changes."""

from __future__ import annotations

import json

import pytest

from .lab import COMPANIES, EVENTS, PEOPLE, Lab, Org

pytestmark = pytest.mark.slow


def test_the_whole_tour(lab: Lab, org: Org) -> None:
    planned = lab.run("plan", "--detailed-exitcode")
    assert planned.code == 10, planned.all
    assert "upsert 30 rows by collections" in planned.out
    assert org.count("Person__c") == org.count("Event__c") == 0

    first = lab.run("sync")
    assert first.code == 0, first.all
    assert org.count("Person__c") == 30
    assert org.count("Event__c") == 20
    assert "[30 sent, 0 unchanged" in first.out
    assert "1 no match" in first.out
    parents = {r["Ref__c"]: r["Person__r"]["Person_Id__c"] for r in org.query(
        "SELECT Ref__c, Person__r.Person_Id__c FROM Event__c")}  # fmt: skip
    assert parents["E1"] == "P2"
    assert {r["Name"]: r["Score__c"] for r in org.query("SELECT Name, Score__c FROM Account")} == {
        "Alpha": 10.5, "Beta": 20, "Other": None
    }  # fmt: skip

    assert lab.run("plan", "--detailed-exitcode").code == 0
    before = len(lab.requests)
    again = lab.run("sync", "--json")
    assert again.code == 0
    assert all(result["outcome"]["succeeded"] == 0 for result in again.json["results"])
    assert len(lab.requests) - before <= 10 * 3
    assert not [r for r in lab.requests[before:] if r[0] in ("PATCH", "PUT", "DELETE")]

    lab.sql(
        "update people set score = 99.99 where person_id in ('P1', 'P2')",
        "insert into people (person_id, name) values ('P31', 'New')",
        "update events set kind = 'logout' where event_id = 'E3'",
        "insert into events values ('E99', 'login', 1, 'P31', null)",
        "update companies set score = 11 where website = 'a.example'",
    )
    day_2 = lab.run("sync", "--json")
    assert day_2.code == 0, day_2.all
    sent = {r["activation"]: r["outcome"]["succeeded"] for r in day_2.json["results"]}
    assert sent == {"people_to_crm": 3, "events_to_crm": 2, "companies_to_crm": 1}
    kinds = [r["Kind__c"] for r in org.query("SELECT Kind__c FROM Event__c WHERE Ref__c = 'E3' ORDER BY Id")]
    assert sorted(kinds) == ["login", "logout"], "a changed row is a new record, the first stays"

    third = lab.run("sync", "--json")
    assert all(result["outcome"]["succeeded"] == 0 for result in third.json["results"])


def test_every_row_read_is_accounted_for(lab: Lab, org: Org) -> None:
    for result in lab.run("sync", "--json").json["results"]:
        counts, outcome = result["counts"], result["outcome"]
        aside = sum(counts[name] for name in ("invalid", "no_match", "ambiguous", "held", "in_flight"))
        assert counts["read"] == counts["unchanged"] + counts["planned"] + aside
        delivered = sum(outcome[name] for name in ("succeeded", "rejected", "held", "unknown"))
        assert counts["planned"] == delivered


def test_run_results_are_shaped_like_dbts(lab: Lab, org: Org) -> None:
    lab.run("sync")
    ours = json.loads((lab.root / "target" / "dinmo_run_results.json").read_text())
    theirs = json.loads((lab.root / "target" / "run_results.json").read_text())
    assert {"metadata", "args", "elapsed_time", "results"} <= ours.keys() & theirs.keys()
    assert ours["metadata"]["dbt_invocation_id"] == theirs["metadata"]["invocation_id"]
    assert {r["unique_id"] for r in ours["results"]} == {f"model.lab.{n}" for n in ("people", "events", "companies")}
    for result in ours["results"]:
        assert {"unique_id", "status", "message", "execution_time"} <= result.keys()


def test_json_documents_stand_alone_on_stdout(lab: Lab, org: Org) -> None:
    for command in (
        ("list",), ("debug",), ("validate",), ("validate", "--online"), ("plan",), ("plan", "--show-values"), ("sync",),
        ("status",), ("history",), ("rejected",), ("state", "show"),
    ):  # fmt: skip
        ran = lab.run(*command, "--json")
        assert ran.code == 0, ran.all
        assert ran.json["command"] == " ".join(word for word in command if not word.startswith("-"))


def test_a_command_is_a_process_with_an_org_of_its_own(lab: Lab) -> None:
    """Nothing stands: each command starts the embedded org and ends it; what it holds is kept."""
    lab.only("people", PEOPLE)
    first = lab.process("sync", "--json")
    assert first.code == 0, first.all
    assert first.result("people_to_crm")["outcome"]["succeeded"] == 30
    assert lab.process("plan", "--detailed-exitcode").code == 0


def test_selection_by_activation_model_and_several_values(lab: Lab, org: Org) -> None:
    def listed(*arguments: str) -> list[str]:
        return [a["activation"] for a in lab.run("list", "--json", *arguments).json["activations"]]

    both = ["events_to_crm", "people_to_crm"]
    assert listed("-s", "people_to_crm") == ["people_to_crm"]
    assert sorted(listed("-s", "people", "events")) == both
    assert sorted(listed("-s", "people events")) == both
    assert sorted(listed("-s", "people", "-s", "events")) == both
    assert sorted(listed("--exclude", "companies")) == both
    nothing = lab.run("plan", "-s", "nobody")
    assert nothing.code == 2
    assert "nobody" in nothing.err


def test_adding_a_field_to_an_insert_sends_nothing(lab: Lab, org: Org) -> None:
    lab.only("events", {**EVENTS, "fields": {"event_id": "Ref__c", "amount": "Amount__c"}})
    assert lab.run("sync").code == 0
    lab.only("events", {**EVENTS, "fields": {"event_id": "Ref__c", "amount": "Amount__c", "kind": "Kind__c"}})
    ran = lab.run("sync", "--json")
    assert ran.code == 0, ran.all
    assert ran.result("events_to_crm")["outcome"]["succeeded"] == 0
    assert org.count("Event__c") == 20
    lab.sql("update events set kind = 'late' where event_id = 'E1'")
    assert lab.run("sync", "--json").result("events_to_crm")["outcome"]["succeeded"] == 1


def test_adding_a_field_to_an_upsert_sends_only_that_field(lab: Lab, org: Org) -> None:
    lab.only("people", {**PEOPLE, "fields": {"name": "Name", "score": "Score__c"}})
    assert lab.run("sync").code == 0
    record = org.query("SELECT Id FROM Person__c WHERE Person_Id__c = 'P1'")[0]["Id"]
    org.edit("Person__c", record, Name="Edited in Salesforce")
    lab.only("people", {**PEOPLE, "fields": {"name": "Name", "score": "Score__c", "plan": "Plan__c"}})
    before = len(lab.requests)
    ran = lab.run("sync", "--json")
    assert ran.code == 0, ran.all
    assert ran.result("people_to_crm")["counts"]["remapped"] == 30
    held = org.query("SELECT Name, Plan__c FROM Person__c WHERE Person_Id__c = 'P1'")[0]
    assert (held["Name"], held["Plan__c"]) == ("Edited in Salesforce", "Team")
    # A POST to composite/sobjects/Person__c only reads: the audit's look at what Salesforce holds.
    sent = b"".join(body for method, path, body in lab.requests[before:] if method == "PATCH" or "/jobs/" in path)
    assert b"Plan__c" in sent and b"Score__c" not in sent and b'"Name"' not in sent


def test_an_edit_in_salesforce_is_left_alone_until_the_row_changes(lab: Lab, org: Org) -> None:
    lab.only("companies", COMPANIES)
    assert lab.run("sync").code == 0
    record = org.query("SELECT Id FROM Account WHERE Website = 'a.example'")[0]["Id"]
    org.edit("Account", record, Score__c=1)
    lab.run("sync")
    assert org.query("SELECT Score__c FROM Account WHERE Website = 'a.example'")[0]["Score__c"] == 1
    lab.run("sync", "--full")
    assert org.query("SELECT Score__c FROM Account WHERE Website = 'a.example'")[0]["Score__c"] == 10.5
