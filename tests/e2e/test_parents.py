"""Small projects whose rows have parents, and fields that Salesforce takes on some records only, over the emulator."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from .lab import EXTERNAL, TEXT, Lab, Org, object_files

UP = "<type>Lookup</type><referenceTo>Site__c</referenceTo><relationshipName>Branches</relationshipName>"
MASTER = "<type>MasterDetail</type><referenceTo>Site__c</referenceTo><relationshipName>Desks</relationshipName>"
KEY = TEXT.format(40) + EXTERNAL
SITES = {
    "name": "sites",
    "destination": "crm",
    "object": "Site__c",
    "mode": "upsert",
    "match": {"site": "Site_Id__c"},
    "fields": {"name": "Name", "up": "Up__r.Site_Id__c"},
}
DESKS = {
    "name": "desks",
    "destination": "crm",
    "object": "Desk__c",
    "mode": "upsert",
    "match": {"desk": "Desk_Id__c"},
    "fields": {"name": "Name", "site": "Site__r.Site_Id__c"},
}


@pytest.fixture
def org(lab: Lab) -> Iterator[Org]:
    objects = {"Site__c": {"Site_Id__c": KEY, "Up__c": UP}, "Desk__c": {"Desk_Id__c": KEY, "Site__c": MASTER}}
    for name, fields in objects.items():
        for path, text in object_files(name, fields).items():
            (lab.root / path).parent.mkdir(parents=True, exist_ok=True)
            (lab.root / path).write_text(text, encoding="utf-8")
    with lab.serve() as org:
        yield org


def sites(lab: Lab, *rows: str, **changes: Any) -> None:
    values = ", ".join(rows)
    lab.sql(f"create or replace table people as select * from (values {values}) t(site, name, up)")
    lab.only("people", {**SITES, **changes}, key="site")


def desks(lab: Lab, *rows: str, **changes: Any) -> None:
    values = ", ".join(rows)
    lab.sql(f"create or replace table people as select * from (values {values}) t(desk, name, site)")
    lab.only("people", {**DESKS, **changes}, key="desk")


def ups(org: Org) -> dict[str, str | None]:
    found = org.query("SELECT Site_Id__c, Up__r.Site_Id__c FROM Site__c")
    return {row["Site_Id__c"]: (row["Up__r"] or {}).get("Site_Id__c") for row in found}


@pytest.mark.parametrize("api", ["bulk", "collections"])
def test_a_hierarchy_arrives_in_one_sync_and_a_parent_that_goes_empties_the_lookup(
    lab: Lab, org: Org, api: str
) -> None:
    sites(
        lab,
        "('D', 'deep', 'C')",
        "('C', 'c', 'B')",
        "('B', 'b', 'A')",
        "('A', 'a', null)",
        "('O', 'own', 'O')",
        api=api,
    )
    ran = lab.run("sync")
    assert ran.code == 0, ran.all
    assert ups(org) == {"A": None, "B": "A", "C": "B", "D": "C", "O": "O"}
    assert lab.run("plan", "--detailed-exitcode").code == 0
    lab.sql("update people set up = null where site = 'C'", "update people set name = 'c2' where site = 'B'")
    ran = lab.run("sync")
    assert ran.code == 0, ran.all
    assert ups(org) == {"A": None, "B": "A", "C": None, "D": "C", "O": "O"}


@pytest.mark.parametrize("api", ["bulk", "collections"])
def test_a_detail_is_made_under_its_master_and_keeps_it(lab: Lab, org: Org, api: str) -> None:
    for name in ("S1", "S2"):
        org.create("Site__c", Name=name, Site_Id__c=name)
    desks(lab, "('K1', 'till', 'S1')", "('K2', 'bar', 'nowhere')", api=api)
    ran = lab.run("sync")
    assert ran.code == 0, ran.all
    assert "1 held (PARENT_MISSING [Site__r.Site_Id__c])" in ran.out
    lab.sql(
        "update people set site = 'S2', name = 'till 2' where desk = 'K1'",
        "update people set site = 'S2' where desk = 'K2'",
    )
    ran = lab.run("sync")
    assert ran.code == 0, ran.all
    assert "1 of 1 known rows have another Desk__c.Site__c than their record" in ran.all
    found = org.query("SELECT Desk_Id__c, Name, Site__r.Site_Id__c FROM Desk__c")
    assert {(r["Desk_Id__c"], r["Name"], r["Site__r"]["Site_Id__c"]) for r in found} == {
        ("K1", "till 2", "S1"),
        ("K2", "bar", "S2"),
    }


def test_what_a_run_warns_of_has_its_reason_and_the_next_command(lab: Lab, org: Org) -> None:
    sites(lab, "('A', repeat('x', 200), null)", "('B', 'b', null)")
    ran = lab.run("sync")
    assert ran.code == 3, ran.all
    assert "WARN sites" in ran.out
    assert "dinmo-dbt rejected -s sites" in ran.out
