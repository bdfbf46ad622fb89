"""`org objects` and `org fields`: what there is to choose from."""

from __future__ import annotations

from .lab import Lab, Org


def test_objects_that_may_be_written_are_listed_and_filtered_by_words(lab: Lab, org: Org) -> None:
    listed = lab.run("org", "objects", "--json").json["objects"]
    by_name = {each["object"]: each for each in listed}
    assert {"Account", "Person__c", "Event__c"} <= by_name.keys()
    assert "User" not in by_name, "nobody syncs to what the user may only read"
    assert by_name["Person__c"] == {
        "object": "Person__c", "label": "Person", "custom": True, "createable": True, "updateable": True,
        "deletable": True,
    }  # fmt: skip
    shown = lab.run("org", "objects", "PERS")
    assert shown.code == 0, shown.all
    assert [line.split()[0] for line in shown.out.splitlines()[:2]] == ["object", "Person__c"]
    assert f"1 of {len(listed)} objects" in shown.out


def test_fields_tell_what_a_mapping_needs(lab: Lab, org: Org) -> None:
    listed = {each["field"]: each for each in lab.run("org", "fields", "event__c", "--json").json["fields"]}
    assert listed["Amount__c"] == {
        "field": "Amount__c", "label": "Amount", "type": "double", "length": 0, "precision": 18, "scale": 2,
        "createable": True, "updateable": True, "required": False, "external_id": False, "unique": False,
        "picklist": [], "restricted": False, "refers_to": [], "parent_paths": [],
    }  # fmt: skip
    assert listed["Person__c"]["refers_to"] == ["Person__c"]
    assert listed["Person__c"]["parent_paths"] == ["Person__r.Person_Id__c", "Person__r.Tax_Id__c"]
    assert not listed["CreatedDate"]["createable"]
    people = {each["field"]: each for each in lab.run("org", "fields", "Person__c", "--json").json["fields"]}
    assert (people["Plan__c"]["picklist"], people["Plan__c"]["restricted"]) == (["Free", "Team"], True)
    assert people["Person_Id__c"]["external_id"] and people["Person_Id__c"]["unique"]


def test_words_pick_fields_by_name_label_type_and_notes(lab: Lab, org: Org) -> None:
    shown = lab.run("org", "fields", "Person__c", "external", "ID")
    assert [line.split()[0] for line in shown.out.splitlines()[:2]] == ["field", "Person_Id__c"], shown.all
    assert "external id, unique" in shown.out
    assert "only: Free | Team" in lab.run("org", "fields", "Person__c", "plan").out


def test_an_object_that_is_not_there_names_the_nearest(lab: Lab, org: Org) -> None:
    ran = lab.run("org", "fields", "Persn__c")
    assert ran.code == 2
    assert "DB301" in ran.err and "Did you mean Person__c?" in ran.err


def test_of_several_destinations_one_is_named(lab: Lab, org: Org) -> None:
    path = lab.root / "dinmo.yml"
    path.write_text(
        path.read_text(encoding="utf-8") + "  support:\n    targets:\n      dev: {org: emulator}\n", encoding="utf-8"
    )
    ran = lab.run("org", "objects")
    assert (ran.code, "DB817" in ran.err) == (2, True), ran.all
    assert "crm, support" in ran.err
    assert lab.run("org", "objects", "--destination", "support").code == 0
    assert "did you mean 'support'" in lab.run("org", "objects", "-d", "suport").err
