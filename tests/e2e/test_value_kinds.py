"""Values of every kind of warehouse type, end to end: Salesforce holds what the model says, or the row is left out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from .lab import EXTERNAL, NUMBER, TEXT, Lab, Org, object_files

pytestmark = pytest.mark.slow

LISTED = (
    "<valueSet><restricted>true</restricted><valueSetDefinition><sorted>false</sorted>{0}</valueSetDefinition>"
    "</valueSet>"
)
VALUES = "".join(
    f"<value><fullName>{each}</fullName><label>{each}</label></value>" for each in ("Retail", "Online", "No")
)
FIELDS = {
    "Shop_Id__c": TEXT.format(40) + EXTERNAL,
    "Code__c": TEXT.format(10),
    "Note__c": TEXT.format(80),
    "Status__c": "<type>Picklist</type>" + LISTED.format(VALUES),
    "Tags__c": "<type>MultiselectPicklist</type><visibleLines>4</visibleLines>" + LISTED.format(VALUES),
    "Number__c": NUMBER.format(0) + EXTERNAL,
    "Share__c": NUMBER.format(2),
    "Open__c": "<type>Checkbox</type><defaultValue>false</defaultValue>",
    "On__c": "<type>Date</type>",
    "At__c": "<type>DateTime</type>",
    "Opens__c": "<type>Time</type>",
}
SHOPS = {
    "name": "shops",
    "destination": "crm",
    "object": "Shop__c",
    "mode": "upsert",
    "match": {"id": "Shop_Id__c"},
    "fields": {"tags": "Tags__c"},
}


@pytest.fixture
def shop(lab: Lab) -> Iterator[tuple[Lab, Org]]:
    for path, text in object_files("Shop__c", FIELDS).items():
        (lab.root / path).parent.mkdir(parents=True, exist_ok=True)
        (lab.root / path).write_text(text, encoding="utf-8")
    with lab.serve() as org:
        yield lab, org


def synced(shop: tuple[Lab, Org], rows: str, **changes: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a sync of those rows said, and what every record then holds, by its id in the model."""
    lab, org = shop
    lab.only("people", {**SHOPS, **changes}, key="id")
    lab.sql(f"create or replace table people as {rows}")
    ran = lab.run("sync", "--json")
    assert ran.code in (0, 3), ran.all
    asked = ", ".join(FIELDS)
    return ran.result("shops"), {r["Shop_Id__c"]: r for r in org.query(f"SELECT {asked} FROM Shop__c")}


def test_a_list_is_its_choices_and_a_null_in_it_is_none(shop: tuple[Lab, Org]) -> None:
    first = """select * from (values ('S1', ['Retail', 'Online']), ('S2', ['Retail', null]), ('S3', ['Online']),
        ('S4', ['Retail; Online', 'No']), ('S5', [' Online ', '', '  ', 'No']), ('S6', []), ('S7', [null]),
        ('S8', null)) t(id, tags)"""
    result, held = synced(shop, first)
    assert result["counts"]["invalid"] == 1
    tags = {"S1": "Retail;Online", "S2": "Retail", "S3": "Online", "S5": "Online;No"}
    assert {key: record["Tags__c"] for key, record in held.items()} == {**dict.fromkeys(["S6", "S7", "S8"]), **tags}
    result, held = synced(shop, first.replace("('S3', ['Online'])", "('S3', ['Online', null, 'Retail'])"))
    assert (result["outcome"]["succeeded"], held["S3"]["Tags__c"]) == (1, "Online;Retail")


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ("array_value('Retail', null)", "Retail"),
        ("['Retail', null, 'No']::enum('Retail', 'No')[]", "Retail;No"),
        ("""'["Retail", null, "No"]'::json""", "Retail;No"),
        ("'Retail ; Online;'", "Retail;Online"),
        ("'Online  '", "Online"),
        ("[]", None),
    ],
)
def test_every_kind_of_list(shop: tuple[Lab, Org], rows: str, expected: str | None) -> None:
    _, held = synced(shop, f"select 'S1' as id, {rows} as tags")
    assert held["S1"]["Tags__c"] == expected
    assert shop[0].run("plan", "--detailed-exitcode").code == 0


def test_blanks_that_salesforce_takes_away_are_not_judged(shop: tuple[Lab, Org]) -> None:
    fields = {"code": "Code__c", "status": "Status__c"}
    rows = "select 'S1  ' as id, rpad('AB', 60, ' ') as code, 'Retail  ' as status"
    result, held = synced(shop, rows, fields=fields)
    assert result["counts"]["invalid"] == 0
    assert (held["S1"]["Code__c"], held["S1"]["Status__c"]) == ("AB", "Retail")
    result, _ = synced(shop, rows.replace("60", "30"), fields=fields)
    assert result["counts"]["unchanged"] == 1, "other blanks are the same value"


def test_a_number_that_has_no_text_leaves_its_row_out(shop: tuple[Lab, Org]) -> None:
    rows = "select * from (values ('S1', 0.1::float), ('S2', 'nan'::float), ('S3', null)) t(id, note)"
    result, held = synced(shop, rows, fields={"note": "Note__c"})
    assert result["counts"]["invalid"] == 1
    assert {key: record["Note__c"] for key, record in held.items()} == {"S1": "0.1", "S3": None}


def test_an_id_that_is_no_double_is_not_sent_as_another(shop: tuple[Lab, Org]) -> None:
    rows = "select * from (values ('S1', 123456789012345679), ('S2', 5), ('S3', -9007199254740993)) t(id, share)"
    result, held = synced(shop, rows, fields={"share": "Number__c"})
    assert result["counts"]["invalid"] == 2
    assert {key: record["Number__c"] for key, record in held.items()} == {"S2": 5}


def test_two_ids_that_are_one_double_in_salesforce_are_found_before_anything_is_sent(shop: tuple[Lab, Org]) -> None:
    lab, org = shop
    lab.only("people", {**SHOPS, "match": {"number": "Number__c"}, "fields": {"id": "Shop_Id__c"}}, key="id")
    lab.sql(
        "create or replace table people as select * from (values ('S1', 123456789012345678), "
        "('S2', 123456789012345679), ('S3', 5)) t(id, number)"
    )
    ran = lab.run("sync")
    assert (ran.code, org.count("Shop__c")) == (4, 0), ran.all
    assert "DB410" in ran.err and "15 digits of a number" in " ".join(ran.err.split()), ran.err
    lab.sql("delete from people where id = 'S2'")
    assert lab.run("sync").code == 0
    assert org.count("Shop__c") == 2


def test_an_update_leaves_out_the_row_without_a_match_value(shop: tuple[Lab, Org]) -> None:
    rows = """select * from (values ('k1', 'S1', ['Online']), ('k2', null, ['Online']), ('k3', 'S9', null))
        t(id, shop, tags)"""
    lab, org = shop
    org.create("Shop__c", Name="North", Shop_Id__c="S1")
    lab.only("people", {**SHOPS, "name": "known", "mode": "update", "match": {"shop": "Shop_Id__c"}}, key="id")
    lab.sql(f"create or replace table people as {rows}")
    ran = lab.run("sync", "--json")
    assert ran.code == 0, ran.all
    result, (held,) = ran.result("known"), org.query("SELECT Tags__c FROM Shop__c")
    assert (result["counts"]["planned"], result["counts"]["no_match"]) == (1, 2)
    assert held["Tags__c"] == "Online"
