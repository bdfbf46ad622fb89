"""What would do harm is refused, with the number that lets it pass."""

from __future__ import annotations

from typing import Any

import pytest

from .lab import EVENTS, PEOPLE, Lab, Org

pytestmark = pytest.mark.slow

PLAIN_EVENTS = {**EVENTS, "fields": {"event_id": "Ref__c", "kind": "Kind__c"}}


def test_a_first_insert_into_an_object_that_holds_records(lab: Lab, org: Org) -> None:
    lab.only("events", PLAIN_EVENTS)
    org.create("Event__c", Ref__c="theirs")
    planned = lab.run("plan")
    assert planned.code == 4
    refused = lab.run("sync")
    assert refused.code == 4
    assert "DB401" in refused.err and "--first-sync" in refused.err
    assert org.count("Event__c") == 1
    assert lab.run("sync", "--first-sync").code == 0
    assert org.count("Event__c") == 21


def test_a_lost_state_never_doubles_an_object(lab: Lab, org: Org) -> None:
    lab.only("events", PLAIN_EVENTS)
    assert lab.run("sync").code == 0
    assert lab.run("state", "reset", "events_to_crm").code == 0
    assert lab.run("sync").code == 4
    assert org.count("Event__c") == 20


def test_too_many_changes_pass_with_exactly_their_number(lab: Lab, org: Org) -> None:
    lab.only("people", {**PEOPLE, "guards": {"max_change": "10%"}})
    lab.sql("insert into people (person_id, name) select 'X' || i, 'many' from range(1170) t(i)")
    assert lab.run("sync").code == 0
    lab.sql("update people set name = 'changed' where person_id like 'X%' and person_id < 'X3'")
    changed = lab.run("plan", "--json").json["activations"][0]["counts"]["changed"]
    assert changed > 120
    refused = lab.run("sync")
    assert refused.code == 4
    assert f"--allow-changes {changed}" in refused.err
    assert lab.run("sync", "--allow-changes", str(changed - 1)).code == 4
    assert not org.query("SELECT Id FROM Person__c WHERE Name = 'changed' LIMIT 1")
    assert lab.run("sync", "--allow-changes", str(changed)).code == 0


def test_a_new_field_for_many_rows_has_a_ceiling_of_its_own(lab: Lab, org: Org) -> None:
    lab.only("people", {**PEOPLE, "fields": {"name": "Name"}, "guards": {"max_change": "10%"}})
    lab.sql("insert into people (person_id, name) select 'X' || i, 'many' from range(1170) t(i)")
    assert lab.run("sync").code == 0
    lab.only("people", {**PEOPLE, "fields": {"name": "Name", "plan": "Plan__c"}, "guards": {"max_change": "10%"}})
    refused = lab.run("sync")
    assert refused.code == 4
    assert "--allow-remap 1200" in refused.err
    assert lab.run("sync", "--allow-remap", "1200").code == 0


def test_an_empty_model_is_refused_once_rows_are_known(lab: Lab, org: Org) -> None:
    lab.only("people", PEOPLE)
    assert lab.run("sync").code == 0
    lab.sql("delete from people")
    refused = lab.run("sync")
    assert refused.code == 4
    assert "DB402" in refused.err and "30 rows were synced before" in refused.err
    assert lab.run("sync", "--full", "--allow-changes", "99").code == 4


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("insert into people (person_id, name) values ('P1', 'twin')", "1 key occurs more than once"),
        ("insert into people (person_id, name) values (null, 'nobody')", "1 row has no key"),
        ("insert into people (person_id, name) values ('  ', 'nobody')", "1 row has no key"),
    ],
)
def test_keys_that_are_not_keys(lab: Lab, org: Org, statement: str, said: str) -> None:
    lab.only("people", PEOPLE)
    lab.sql(statement)
    refused = lab.run("sync")
    assert refused.code == 4, refused.all
    assert "DB410" in refused.err
    assert said in refused.err
    assert "'P1'" not in refused.err, "keys are printed only by rejected and verify"
    assert org.count("Person__c") == 0


def test_full_is_refused_for_an_insert(lab: Lab, org: Org) -> None:
    lab.only("events", PLAIN_EVENTS)
    assert lab.run("sync").code == 0
    refused = lab.run("sync", "--full")
    assert refused.code == 4
    assert "DB406" in refused.err
    assert org.count("Event__c") == 20


def test_a_key_that_has_no_effect_yet_stops_the_sync_by_its_name(lab: Lab, org: Org) -> None:
    fields: dict[str, Any] = {"name": "Name", "plan": {"field": "Plan__c", "write": "if_empty"}}
    lab.only("people", {**PEOPLE, "fields": fields, "engine": "warehouse"})
    refused = lab.run("sync")
    assert refused.code == 2, refused.all
    for key in ("fields.plan.write", "engine"):
        assert f"[0].{key}\n" in refused.err
    assert refused.err.count("is not available yet") == 2
    assert org.count("Person__c") == 0


def test_one_refusal_leaves_the_others_their_turn(lab: Lab, org: Org) -> None:
    org.create("Event__c", Ref__c="theirs")
    ran = lab.run("sync", "--json")
    assert ran.code == 4
    assert ran.result("people_to_crm")["status"] == "success"
    assert ran.result("events_to_crm")["status"] == "refused"
    planned = lab.run("plan")
    assert "would be refused: DB401" in planned.out
    assert "people_to_crm" in planned.out


def test_a_plan_with_a_broken_activation_shows_the_others(lab: Lab, org: Org) -> None:
    lab.declare("events", {**PLAIN_EVENTS, "object": "Nothing__c"})
    planned = lab.run("plan")
    assert planned.code == 2
    assert "upsert 30 rows" in planned.out
    assert "events_to_crm: " in planned.err and "Nothing__c" in planned.err


def test_a_plan_counts_on_the_parents_that_it_creates_itself(lab: Lab, org: Org) -> None:
    planned = lab.run("plan")
    assert "insert 20 rows by bulk" in planned.out
    assert "some of their parents are created earlier in this plan" in planned.out
    lab.only("events", EVENTS)
    alone = lab.run("plan").out
    assert "20 held (PARENT_MISSING" in alone
    assert "earlier in this plan" not in alone


def test_show_values_prints_both_sides_alike(lab: Lab, org: Org) -> None:
    lab.only("people", PEOPLE)
    lab.sql("update people set score = 44 where person_id = 'P1'")
    assert lab.run("sync").code == 0
    lab.sql("update people set score = 45, name = 'Renamed' where person_id = 'P1'")
    plain = lab.run("plan")
    assert "Renamed" not in plain.all
    shown = lab.run("plan", "--show-values")
    assert "Score__c: 44 -> 45" in shown.out
    assert "Name: Person 1 -> Renamed" in shown.out


def test_a_dry_run_is_called_plan(lab: Lab) -> None:
    ran = lab.run("sync", "-s", "people", "--dry-run")
    assert ran.code == 2
    assert "plan shows what it would send" in ran.err and "-> dinmo-dbt plan -s people" in ran.err
