"""One mistake stops one activation: what is right beside it is synced, and what is wrong is told by itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from .lab import COMPANIES, DINMO, EVENTS, PEOPLE, Lab, Org

pytestmark = pytest.mark.slow

WRONG = {**PEOPLE, "mode": "mirror"}
TWO_ORGS = (
    "destinations:\n  crm:\n    targets:\n      dev: {org: emulator}\n  other:\n    targets:\n      dev:\n"
    "        login_url: https://acme.my.salesforce.com\n"
    "        auth: {flow: client_credentials, client_id: a, client_secret: \"{{ env_var('NOWHERE') }}\"}\n"
)


def results(lab: Lab) -> dict[str, Any]:
    found = json.loads((lab.root / "target" / "dinmo_run_results.json").read_text())["results"]
    return {each["activation"]: each for each in found}


def test_what_is_right_is_synced_and_what_is_wrong_is_an_error(lab: Lab, org: Org) -> None:
    lab.declare("people", WRONG)
    ran = lab.run("sync")
    assert ran.code == 2, ran.all
    assert "ERROR people_to_crm" in ran.out and "'mirror' is not allowed" in ran.err
    assert "ERROR=1" in ran.out and "TOTAL=3" in ran.out
    assert {name: each["status"] for name, each in results(lab).items()} == {
        "companies_to_crm": "success",
        "events_to_crm": "success",
        "people_to_crm": "failed",
    }
    assert results(lab)["people_to_crm"]["problems"][0]["code"] == "DB112"
    assert org.count("Person__c") == 0


@pytest.mark.parametrize("enabled", [True, False])
def test_a_selection_is_judged_by_itself(lab: Lab, org: Org, enabled: bool) -> None:
    lab.declare("people", {**WRONG, "enabled": enabled})
    for command in ("plan", "sync"):
        ran = lab.run(command, "-s", "companies_to_crm")
        assert ran.code == 0, ran.all
        assert "mirror" not in ran.all and "people" not in ran.all
    assert lab.run("validate", "-s", "companies").code == 0
    for command in ("validate", "validate -s people", "sync -s people_to_crm"):
        ran = lab.run(*command.split())
        assert (ran.code, "'mirror' is not allowed" in ran.err) == (2, True), ran.all


def test_what_is_wrong_and_switched_off_fails_no_sync(lab: Lab, org: Org) -> None:
    lab.declare("people", {**WRONG, "enabled": False})
    ran = lab.run("sync")
    assert ran.code == 0, ran.all
    assert "note: DB112" in ran.err


def test_a_plan_names_each_and_goes_on(lab: Lab, org: Org) -> None:
    lab.declare("people", WRONG)
    ran = lab.run("plan", "--json")
    assert ran.code == 2, ran.all
    told = {each["activation"]: each for each in ran.json["activations"]}
    assert told["people_to_crm"]["problems"][0]["code"] == "DB112"
    assert told["companies_to_crm"]["batches"]


def test_one_of_two_in_a_block(lab: Lab, org: Org) -> None:
    lab.declare("people", {**PEOPLE, "colour": "red"}, {**PEOPLE, "name": "second"})
    ran = lab.run("sync", "-s", "people")
    assert ran.code == 2, ran.all
    assert {name: each["status"] for name, each in results(lab).items()} == {
        "second": "success",
        "people_to_crm": "failed",
    }


def test_a_mistake_of_the_block_is_each_ones(lab: Lab) -> None:
    lab.declare("people", PEOPLE, {**PEOPLE, "name": "second"}, key=True)
    ran = lab.run("sync", "-s", "people")
    assert ran.code == 2 and ran.err.count("DB111") == 1, ran.all


def test_two_of_one_name_are_both_left_out(lab: Lab, org: Org) -> None:
    lab.declare("people", PEOPLE)
    lab.declare("events", {**EVENTS, "name": "People_to_crm"})
    ran = lab.run("sync")
    assert ran.code == 2, ran.all
    assert [each["status"] for each in results(lab).values()] == ["success", "failed", "failed"]
    assert org.count("Person__c") == 0 == org.count("Event__c")


def test_dinmo_yml_is_judged_for_the_destinations_in_use(lab: Lab, org: Org) -> None:
    (lab.root / "dinmo.yml").write_text(TWO_ORGS)
    ran = lab.run("sync")
    assert ran.code == 0, ran.all
    assert "NOWHERE" not in ran.all
    assert "'NOWHERE' is not set" in lab.run("validate", "--online").err
    lab.declare("companies", {**COMPANIES, "destination": "other"})
    ran = lab.run("sync")
    assert ran.code == 2 and "'NOWHERE' is not set" in ran.err, ran.all
    assert [each["status"] for each in results(lab).values()] == ["success", "success", "failed"]


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("dev: {org: emulator}\n      prod: {colour: red}", "unknown key 'colour'"),
        ("dev: {org: emulator}\n      prod: {auth: {flow: password}}", "flow password"),
        ("dev: {org: emulator}\n      prod: {auth: {flow: jwt}}", "needs 'login_url'"),
    ],
)
def test_an_entry_of_another_target_stops_nothing_here(lab: Lab, org: Org, entry: str, said: str) -> None:
    (lab.root / "dinmo.yml").write_text(f"destinations:\n  crm:\n    targets:\n      {entry}\n")
    assert lab.run("sync", "-s", "companies").code == 0
    ran = lab.run("validate", "-s", "companies")
    assert ran.code == 2 and said in ran.err, ran.all


def test_notes_of_what_is_not_selected_are_not_printed(lab: Lab, org: Org) -> None:
    lab.declare("people", {**PEOPLE, "fields": {"person_ids": "Name"}})
    told = lab.run("validate").err
    assert "DB136" in told and "did you mean 'person_id'?" in told, told
    ran = lab.run("validate", "-s", "companies")
    assert "person_ids" not in ran.all, ran.all


def test_nothing_is_said_of_columns_that_nobody_listed_or_that_the_relation_has(lab: Lab, org: Org) -> None:
    assert lab.run("validate").err == "", "name, plan and others are not listed"
    lab.declare("people", {**PEOPLE, "fields": {"person_name": "Name"}})
    assert lab.run("validate").err == "", "it may well be there, beside person_id"
    lab.declare("people", {**PEOPLE, "fields": {"person_ids": "Name"}})
    ran = lab.run("validate", "--online")
    assert "DB136" not in ran.err and "DB151" in ran.err, ran.err


def test_a_selection_is_judged_without_what_others_share(lab: Lab, org: Org) -> None:
    other = {**PEOPLE, "name": "others_to_crm", "on_removed": "delete"}
    lab.declare("people", PEOPLE, other)
    every = lab.run("validate")
    assert (every.code, every.err.count("DB145"), every.err.count("DB146")) == (2, 1, 1), every.all
    alone = lab.run("validate", "-s", "companies")
    assert (alone.code, alone.err) == (0, ""), alone.all


def test_a_model_that_is_disabled_for_the_target_is_skipped_with_a_note(lab: Lab, org: Org) -> None:
    path = lab.root / "target" / "manifest.json"
    document = json.loads(path.read_text())
    node = document["nodes"].pop("model.lab.people")
    document["disabled"] = {"model.lab.people": [node, node]}
    path.write_text(json.dumps(document))
    ran = lab.run("sync")
    assert ran.code == 0, ran.all
    assert ran.err.count("DB132") == 1 and "people_to_crm" not in results(lab)
    assert "disabled" not in lab.run("sync", "-s", "events").err
    alone = lab.run("sync", "-s", "people")
    assert alone.code == 0 and "DB132" in alone.err, alone.all
    assert lab.run("validate").code == 0


def test_the_state_of_a_wrong_one_is_not_taken_for_a_renamed_ones(lab: Lab, org: Org) -> None:
    assert lab.run("sync", "-s", "people").code == 0
    lab.declare("people", WRONG, {**PEOPLE, "name": "beside"})
    ran = lab.run("plan", "-s", "beside")
    assert "DB506" not in ran.all, ran.all


def test_a_list_names_what_is_wrong_beside_the_others(lab: Lab, built: Path) -> None:
    lab.declare("people", WRONG)
    ran = lab.run("list")
    assert ran.code == 2 and "companies_to_crm" in ran.out and "'mirror' is not allowed" in ran.err


def test_online_every_layer_is_judged_at_once(lab: Lab, org: Org) -> None:
    (lab.root / "dinmo.yml").write_text(TWO_ORGS)
    lab.declare("people", {**PEOPLE, "fields": {"nome": "Name", "note": "Nothing__c", "name": "Big__c"}})
    lab.declare("companies", {**COMPANIES, "colour": "red"}, {**COMPANIES, "name": "second", "where": "scor > 1"})
    lab.sql("drop table events")
    ran = lab.run("validate", "--online")
    assert ran.code, ran.all
    said = ("DB117", "DB151", "DB302", "DB314", "DB110", "'colour'", "DB702", "DB710", "scor")
    assert [each for each in said if each not in ran.err] == [], ran.all


def test_columns_are_looked_for_without_what_salesforce_says(lab: Lab, org: Org) -> None:
    """Where the org lacks the object or the parent's, or can't be asked at all."""
    fields = {"nome": "Name", "plans": "Plan__c"}
    match = {"persona": "Person_Id__c"}
    for unasked, code in ({"object": "Persona__c"}, "DB301"), ({"destination": "other"}, "DB117"):
        (lab.root / "dinmo.yml").write_text(TWO_ORGS)
        lab.only("people", {**PEOPLE, **unasked, "match": match, "fields": fields}, key="id")
        ran = lab.run("validate", "--online", "--no-parse")
        said = (code, "no column id", "no column persona", "no column nome", "no column plans")
        assert [each for each in said if ran.err.count(each) != 1] == [], ran.all


@pytest.mark.parametrize("command", ["validate --online --no-parse", "plan", "sync"])
def test_an_object_that_is_not_there_has_its_line(lab: Lab, org: Org, command: str) -> None:
    lab.only("people", {**PEOPLE, "object": "Persona__c"})
    ran = lab.run(*command.split())
    assert ran.code == 2, ran.all
    assert "DB301  models/models.yml:1: people.config.meta.dinmo.activations[0].object" in ran.err, ran.err


@pytest.mark.parametrize("command", ["validate --online --no-parse", "plan", "sync", "verify"])
def test_what_the_warehouse_refuses_has_its_line(lab: Lab, org: Org, command: str) -> None:
    lab.only("people", PEOPLE)
    if command == "verify":
        assert lab.run("sync").code == 0
    lab.only("people", {**PEOPLE, "where": "nothing = 1"})
    place = "models/models.yml:1: people.config.meta.dinmo.activations[0]"
    assert f"DB710  {place}.where" in lab.run(*command.split()).err
    lab.sql("drop table people")
    assert f"DB702  {place}\n" in lab.run(*command.split()).err


def test_the_data_is_read_where_that_is_asked_for(lab: Lab, org: Org) -> None:
    lab.declare("people", {**PEOPLE, "fields": {"nick": "Nick__c", "plan": "Plan__c"}})
    lab.sql("update people set nick = 'far too long a name' where person_id in ('P1', 'P2')")
    lab.sql("update people set plan = 'Gold' where person_id = 'P3'", "insert into people (person_id) values ('P4')")
    assert "DB439" not in lab.run("validate", "--online", "-s", "people").err
    ran = lab.run("validate", "--data", "-s", "people")
    told = " ".join(ran.err.split())
    assert ran.code == 0 and "2 rows of 31 would be left out: V-LENGTH [Nick__c]" in told, ran.all
    assert "it takes 10 characters, and the longest has " in told and "picklist: 'Free', 'Team'" in told, ran.all
    assert "1 row of 31 would be left out: V-PICKLIST [Plan__c]" in told and "DB410" in told, ran.all


def test_what_is_wrong_by_itself_is_looked_at_online_too(lab: Lab, org: Org) -> None:
    fields = {"nome": "Name", "note": "Nothing__c", "name": "Nick__c"}
    lab.only("people", {**PEOPLE, "segmnt": "a", "audit": "much", "fields": fields, "where": "no_such > 1"})
    ran = lab.run("validate", "--online", "--no-parse")
    assert ran.code == 1, ran.all
    for told in (
        "DB710  models/models.yml:1: people.config.meta.dinmo.activations[0].where",
        "'segmnt'",
        "activations[0].audit",
        "no column nome",
        "no field Nothing__c",
        "no_such",
    ):
        assert told in ran.err, ran.err
    lab.only("people", {**PEOPLE, "mode": "mirror", "fields": fields})
    ran = lab.run("validate", "--online", "--no-parse")
    assert "'mirror' is not allowed" in ran.err and "DB302" not in ran.err, ran.err


def test_debug_tells_one_cause_once(lab: Lab) -> None:
    (lab.root / "dinmo.yml").write_text("destinations: {crm: [")
    ran = lab.run("debug")
    assert ran.code == 2 and ran.err.count("DB103") == 1, ran.all
    assert ran.out.count("not checked") > 1, ran.all


def test_meta_has_its_line(lab: Lab) -> None:
    lab.only("people", {**PEOPLE, "mode": "mirror"})
    place = "models/models.yml:1: people.config.meta.dinmo.activations[0].mode"
    for command in ("validate", "list", "sync", "plan", "status"):
        assert place in lab.run(command).err, command
    assert lab.run("validate", "--json").json["problems"][0]["where"] == place


@pytest.mark.parametrize(("command", "code"), [("status", 0), ("schedule", 0), ("pause", 2), ("resume", 2)])
def test_what_is_wrong_is_named_beside_the_others(lab: Lab, command: str, code: int) -> None:
    lab.declare("companies", COMPANIES, {**COMPANIES, "name": "second", "colour": "red"})
    ran = lab.run(command, *(["--reason", "x"] if command == "pause" else []))
    assert ran.code == code, ran.all
    assert "second: wrong, no sync runs it (DB110)" in ran.out and "'colour'" in ran.err, ran.all
    assert "companies_to_crm: " in ran.out, ran.all


WRONG_DEFAULTS = {
    "colour": ("red", "DB110"),
    "mode": ("mirror", "DB112"),
    "batch": ("{x: 1}", "DB110"),
    "auto_pause": ("0", "DB111"),
    "guards": ("\n    max_delete: -1", "DB112"),
    "warnings": ("\n    colour: red", "DB110"),
    "schedule": ("sometimes", "DB112"),
    "api": ("telepathy", "DB112"),
}


def test_what_is_wrong_with_the_defaults_has_its_line(lab: Lab) -> None:
    """Each of them, once, however many activations they are below."""
    defaults = "".join(f"\n  # {key}\n  {key}: {value}" for key, (value, _) in WRONG_DEFAULTS.items())
    text = f"{DINMO}defaults:{defaults}\n"
    (lab.root / "dinmo.yml").write_text(text, encoding="utf-8")
    ran = lab.run("validate", "--no-parse")
    assert ran.code == 2, ran.all
    lines = text.splitlines()
    told = [line.split("  ", 1)[1] for line in ran.err.splitlines() if "dinmo.yml" in line]
    for key in WRONG_DEFAULTS:
        (place,) = [each for each in told if f"defaults.{key}" in each]
        number = int(place.removeprefix("dinmo.yml:").partition(":")[0])
        wanted = place.rpartition(".")[2]
        assert lines[number - 1].lstrip().startswith(wanted), (place, lines[number - 1])


def test_what_the_defaults_bring_is_placed_where_it_stands(lab: Lab, org: Org) -> None:
    without = {key: value for key, value in PEOPLE.items() if key != "mode"}
    lab.declare("people", without)
    text = "defaults:\n  mode: upsert\n  constants:\n    Gone__c: x\n  where: nothing = 1\n"
    (lab.root / "dinmo.yml").write_text(DINMO + text)
    ran = lab.run("validate", "--online", "--json", "-s", "people")
    told = {each["code"]: each["where"] for each in ran.json["problems"]}
    assert told == {
        "DB302": "dinmo.yml:8: defaults.constants.Gone__c, for people_to_crm",
        "DB710": "dinmo.yml:9: defaults.where, for people_to_crm",
    }, ran.all
    (lab.root / "dinmo.yml").write_text(DINMO + "defaults: {mode: insert}\n")
    ran = lab.run("validate", "-s", "people")
    assert ran.code == 2 and "mode insert takes no `match`" in ran.err
    assert "its mode is that of `defaults` in dinmo.yml" in ran.err
