"""A row that can't be delivered is named, explained and held back; the others arrive."""

from __future__ import annotations

import json
from typing import Any

import pytest

from .lab import EVENTS, PEOPLE, Lab, Org

pytestmark = pytest.mark.slow

ALL = {**PEOPLE, "fields": {**PEOPLE["fields"], "nick": "Nick__c", "tax_id": "Tax_Id__c", "note": "Note__c"}}


def undelivered(lab: Lab, *arguments: str) -> dict[str, dict[str, Any]]:
    ran = lab.run("rejected", "--json", *arguments)
    assert ran.code == 0, ran.all
    return {row["key"]: row for entry in ran.json["activations"] for row in entry["rows"]}


def test_rows_that_can_not_be_delivered_are_listed_with_reasons(lab: Lab, org: Org) -> None:
    lab.only("people", ALL)
    lab.sql(
        "update people set plan = 'Platinum' where person_id = 'P1'",
        "update people set nick = 'much too long a name' where person_id = 'P2'",
        "update people set tax_id = 'SECRET-TAX-77' where person_id in ('P3', 'P4')",
        "update people set email = 'not an address' where person_id = 'P5'",
    )
    ran = lab.run("sync", "--json")
    assert ran.code == 3, ran.all
    result = ran.result("people_to_crm")
    assert result["counts"]["invalid"] == 2, "the picklist and the length are known before anything is sent"
    assert result["outcome"]["rejected"] in (2, 3)
    assert org.count("Person__c") == 30 - result["counts"]["invalid"] - result["outcome"]["rejected"]
    rows = undelivered(lab)
    assert (rows["P1"]["fate"], rows["P1"]["fields"]) == ("invalid", ["Plan__c"])
    assert (rows["P2"]["fate"], rows["P2"]["fields"]) == ("invalid", ["Nick__c"])
    twins = [rows[key] for key in ("P3", "P4") if key in rows]
    assert {row["code"] for row in twins} <= {"DUPLICATE_VALUE", "DUPLICATES_DETECTED"}
    assert rows["P5"]["code"] == "INVALID_EMAIL_ADDRESS"
    assert "Email__c" in rows["P5"]["hint"]
    text = lab.run("rejected").out
    assert "  rejected (data)  INVALID_EMAIL_ADDRESS [Email__c]\n      -> Email__c is not an e-mail address\n" in text
    assert "  invalid  V-PICKLIST [Plan__c]\n    P1  the value is not" in text


def test_reasons_are_reported_once_with_their_class_wherever_they_are_reported(lab: Lab, org: Org) -> None:
    lab.only("people", ALL)
    lab.sql("update people set email = 'canary at nowhere' where person_id in ('P5', 'P6', 'P7')")
    ran = lab.run("sync", "--json")
    assert ran.code == 3, ran.all
    group = {
        "fate": "rejected",
        "code": "INVALID_EMAIL_ADDRESS",
        "fields": ["Email__c"],
        "class": "data",
        "hint": "Email__c is not an e-mail address",
        "rows": 3,
    }
    assert ran.result("people_to_crm")["left_out"] == [group]
    written = json.loads((lab.root / "target" / "dinmo_run_results.json").read_text())
    assert written["results"][0]["left_out"] == [group]
    assert lab.run("history", written["results"][0]["run_id"], "--json").json["run"]["left_out"] == [group]
    listed = lab.run("rejected", "--json", "--limit", "1").json["activations"][0]
    assert listed["groups"] == [group]
    assert (listed["rows"][0]["class"], listed["rows"][0]["hint"]) == ("data", group["hint"])
    text = lab.run("rejected").out
    assert text.count(group["hint"]) == 1 and text.count("‹value›") == 3


def test_values_that_salesforce_quotes_are_masked_unless_asked_for(lab: Lab, org: Org) -> None:
    lab.only("people", ALL)
    lab.sql("update people set email = 'canary at nowhere' where person_id = 'P5'")
    ran = lab.run("sync", "--json")
    assert ran.code == 3
    assert "canary" not in ran.all
    assert "canary" not in lab.run("rejected").all
    assert "‹value›" in undelivered(lab)["P5"]["message"]
    assert "canary at nowhere" in undelivered(lab, "--show-values")["P5"]["message"]
    assert "canary at nowhere" in lab.run("rejected", "--show-values").out
    assert "canary" not in lab.run("history", "--json").all


def test_a_rejected_row_is_tried_again_after_1_2_and_4_runs(lab: Lab, org: Org) -> None:
    lab.only("people", ALL)
    lab.sql("update people set email = 'wrong' where person_id = 'P5'")
    tried = []
    for _ in range(9):
        ran = lab.run("sync", "--json")
        result = ran.result("people_to_crm")
        tried.append(result["outcome"]["rejected"])
        assert ran.code == 3, "a run is not green while a row of it waits that Salesforce refused"
        assert result["counts"]["held"] == (0 if tried[-1] else 1)
        assert result["outcome"]["succeeded"] == (29 if len(tried) == 1 else 0), "the others are not sent again"
    assert tried == [1, 1, 0, 1, 0, 0, 0, 1, 0]
    waiting = undelivered(lab)["P5"]
    assert (waiting["fate"], waiting["code"]) == ("held", "INVALID_EMAIL_ADDRESS")
    assert "e-mail" in waiting["hint"]


def test_a_rejected_row_that_changes_is_tried_at_once(lab: Lab, org: Org) -> None:
    lab.only("people", ALL)
    lab.sql("update people set email = 'wrong' where person_id = 'P5'")
    for _ in range(3):
        lab.run("sync")
    lab.sql("update people set email = 'right@example.com' where person_id = 'P5'")
    ran = lab.run("sync", "--json")
    assert ran.code == 0
    assert ran.result("people_to_crm")["outcome"]["succeeded"] == 1
    assert lab.run("rejected").out == "every row was delivered\n"


def test_rejected_by_bulk_as_by_collections(lab: Lab, org: Org) -> None:
    lab.only("people", {**ALL, "api": "bulk"})
    lab.sql("update people set email = 'canary at nowhere' where person_id = 'P5'")
    ran = lab.run("sync", "--json")
    assert ran.code == 3, ran.all
    assert ran.result("people_to_crm")["outcome"]["rejected"] == 1
    row = undelivered(lab)["P5"]
    assert row["code"] == "INVALID_EMAIL_ADDRESS"
    assert "canary" not in row["message"]


def test_a_missing_parent_holds_an_insert_until_it_comes(lab: Lab, org: Org) -> None:
    lab.sql("insert into events values ('E99', 'login', 1, 'P99', null)")
    ran = lab.run("sync", "--json")
    assert ran.code == 0, ran.all
    assert ran.result("events_to_crm")["counts"]["held"] == 1
    lab.sql("insert into people (person_id, name) values ('P99', 'late')")
    ran = lab.run("sync", "--json")
    assert ran.result("events_to_crm")["outcome"]["succeeded"] == 1
    assert org.count("Event__c") == 21


def test_each_value_that_can_not_be_sent_is_listed_by_its_code(lab: Lab, org: Org) -> None:
    fields = {"nick": "Nick__c", "plan": "Plan__c", "big": "Big__c", "born": "Born__c", "note": "Note__c"}
    lab.only("people", {**PEOPLE, "fields": fields, "api": "bulk"})
    lab.sql(
        "update people set nick = 'much too long a name' where person_id = 'P1'",
        "update people set note = 'bell' || chr(7) where person_id = 'P2'",
        "update people set plan = 'Platinum' where person_id = 'P3'",
        "update people set big = 'nan'::double where person_id = 'P4'",
        "update people set big = 1e25 where person_id = 'P5'",
        "update people set born = date '0001-01-01' where person_id = 'P6'",
    )
    ran = lab.run("sync", "--json")
    assert ran.code == 3, ran.all
    assert {key: row["code"] for key, row in undelivered(lab).items()} == {
        "P1": "V-LENGTH",
        "P2": "V-CONTROL",
        "P3": "V-PICKLIST",
        "P4": "V-NOT-FINITE",
        "P5": "V-NUMBER-RANGE",
        "P6": "V-DATE-RANGE",
    }
    assert org.count("Person__c") == 24


def test_rows_that_are_held_are_in_status_and_history(lab: Lab, org: Org) -> None:
    lab.only("events", EVENTS)
    lab.only("people", PEOPLE)
    lab.sql("delete from people where person_id = 'P2'", "delete from events where event_id not in ('E1', 'E2')")
    lab.run("sync")
    lab.only("events", EVENTS)
    ran = lab.run("sync")
    assert ran.code == 0, ran.all
    assert "[1 sent, 1 held, 0 unchanged" in ran.out
    status, history = lab.run("status").out, lab.run("history", "--limit", "1").out
    assert "  1 row held by that run: dinmo-dbt rejected -s events_to_crm says why\n" in status
    assert ": 1 row known\n" in status
    assert "1 sent, 1 held, 0 unchanged" in history
    assert json.loads(lab.run("status", "--json").out)["activations"][0]["held"] == 1


def test_rows_in_a_job_that_goes_on_are_reported_as_on_their_way(
    lab: Lab, org: Org, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the run that sent them as by one that asks again: no row of theirs is held back, and none is delivered."""
    from dinmo_dbt.cli import turn

    new_run = turn.new_run

    def impatient(session: Any) -> Any:
        run = new_run(session)
        run.patience_s = run.settling_s = 0.0
        return run

    monkeypatch.setattr(turn, "new_run", impatient)
    lab.only("people", {**PEOPLE, "api": "bulk"})
    fault = {"kind": "job_stuck", "times": 1, "seconds": 3600}
    assert org.http.post(f"{org.url}/emulator/faults", json=fault).status_code < 300
    for _ in range(2):
        ran = lab.run("sync")
        assert (ran.code, "30 on their way" in ran.out or "30 rows on their way" in ran.out) == (1, True), ran.all
        for command, said in (("status", "30 rows on their way"), ("history", "30 on their way")):
            told = lab.run(command).out.replace("\n", " ")
            assert said in told and "held" not in told, told
        entry = lab.run("status", "--json").json["activations"][0]
        assert (entry["held"], entry["last_run"]["on_their_way"], entry["orgs"][0]["in_flight"]) == (0, 30, 30)


def test_what_needs_a_person_comes_first_and_the_rest_is_folded(lab: Lab, org: Org) -> None:
    lab.only("people", {**PEOPLE, "mode": "update"})
    lab.sql("update people set plan = 'Platinum' where person_id = 'P30'")
    ran = lab.run("sync")
    assert ran.code == 3, ran.all
    listed = lab.run("rejected").out
    assert listed.index("  invalid  ") < listed.index("  no_match  "), listed
    assert "    and 26 more, which need nobody now\n" in listed, listed
    assert lab.run("rejected", "--json").json["activations"][0]["rows"][0]["fate"] == "invalid"


def test_a_failed_run_in_the_history_says_where_and_what_to_do(lab: Lab, org: Org) -> None:
    lab.only("people", {**PEOPLE, "fields": {"nick": "Nothing__c"}})
    assert lab.run("sync").code == 2
    run = lab.run("history", "--json").json["runs"][0]
    told = lab.run("history", run["run_id"]).out
    assert "  DB302  models/models.yml" in told and "    -> Setup > Object Manager" in told, told


def test_a_run_that_did_no_work_does_not_count_as_one_that_delivered_all(lab: Lab, org: Org) -> None:
    lab.only("people", ALL)
    assert lab.run("rejected").out == "people_to_crm: never synced\n"
    lab.sql("update people set name = repeat('x', 200) where person_id = 'P5'")
    assert lab.run("sync").code == 3
    lab.sql("create or replace table kept as select * from people", "insert into people select * from kept")
    assert lab.run("sync").code == 4
    [refused] = [run for run in lab.run("history", "--json").json["runs"] if run["status"] == "refused"]
    told = lab.run("rejected")
    run_id = refused["run_id"]
    refusal = f"people_to_crm, run {run_id}: refused, so more rows may be undelivered than are listed\n"
    assert told.out.startswith(refusal), told.out
    assert "1 not delivered" in told.out
    [entry] = lab.run("rejected", "--json").json["activations"]
    assert (entry["total"], entry["unfinished"]) == (1, {"run_id": run_id, "status": "refused"})
    assert lab.run("rejected", run_id).out == refusal
    lab.sql("create or replace table people as select * from kept", "update people set name = 'short'")
    assert lab.run("sync", "--allow-changes", "30").code == 0
    assert lab.run("rejected").out == "every row was delivered\n"
