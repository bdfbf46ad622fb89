"""What one column may feed, and what YAML would drop in silence."""

from __future__ import annotations

import pytest

from .lab import PEOPLE, Lab, Org

pytestmark = pytest.mark.slow

BLOCK = """
models:
  - name: people
    config:
      meta:
        dinmo:
          key: person_id
          activation:
            destination: crm
            object: Person__c
            mode: upsert
            match: {person_id: Person_Id__c}
            fields:
              name: Name
"""


@pytest.mark.parametrize("api", ["bulk", "collections"])
def test_one_column_feeds_several_fields(lab: Lab, org: Org, api: str) -> None:
    lab.only("people", {**PEOPLE, "api": api, "fields": {"name": ["Name", "Note__c"], "plan": "Plan__c"}})
    assert lab.run("sync").code == 0
    found = org.query("SELECT Name, Note__c FROM Person__c")
    assert len(found) == 30
    assert all(row["Name"] == row["Note__c"] for row in found)
    assert lab.run("plan", "--detailed-exitcode").code == 0
    lab.sql("update people set name = 'other' where person_id = 'P1'")
    assert lab.run("sync").code == 0
    assert org.query("SELECT Note__c FROM Person__c WHERE Person_Id__c = 'P1'")[0]["Note__c"] == "other"
    lab.only("people", {**PEOPLE, "api": api, "fields": {"name": ["Name", "Note__c", "Nick__c"], "plan": "Plan__c"}})
    lab.sql("update people set name = 'n' || person_id")
    assert lab.run("sync", "--allow-changes", "30").code == 0
    assert org.query("SELECT Nick__c FROM Person__c WHERE Person_Id__c = 'P1'")[0]["Nick__c"] == "nP1"


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"name": []}, "DB112"),
        ({"name": ["Name", "Name"]}, "DB139"),
        ({"name": ["Name", "No such label"]}, "DB112"),
        ({"name": ["Name", 5]}, "DB111"),
    ],
)
def test_a_list_that_can_not_be_meant_is_refused(lab: Lab, fields: dict[str, object], code: str) -> None:
    lab.only("people", {**PEOPLE, "fields": fields})
    ran = lab.run("validate", "--no-parse")
    assert ran.code == 2
    assert code in ran.err and "fields.name" in ran.err


@pytest.mark.parametrize(
    ("written", "lines"),
    [
        (BLOCK + "              name: Note__c\n", "lines 14 and 15"),
        (BLOCK + "            mode: update\n", "lines 11 and 15"),
        (BLOCK + "        dinmo: {key: person_id, activation: {}}\n", "lines 6 and 15"),
    ],
)
def test_a_key_that_stands_twice_is_an_error_of_ours(lab: Lab, org: Org, written: str, lines: str) -> None:
    lab.only("people", PEOPLE)
    (lab.root / "models" / "models.yml").write_text(written, encoding="utf-8")
    for command in (("validate", "--no-parse"), ("sync",)):
        ran = lab.run(*command)
        assert ran.code == 2, ran.all
        assert "DB104" in ran.err and lines in ran.err, ran.err
    assert org.count("Person__c") == 0
