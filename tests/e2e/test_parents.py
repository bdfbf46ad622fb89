"""Small projects whose rows have parents, and fields that Salesforce takes on some records only, over the emulator."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from .lab import EXTERNAL, TEXT, Lab, Org, object_files

pytestmark = pytest.mark.slow

UP = "<type>Lookup</type><referenceTo>Site__c</referenceTo><relationshipName>Branches</relationshipName>"
MASTER = "<type>MasterDetail</type><referenceTo>Site__c</referenceTo><relationshipName>Desks</relationshipName>"
KEY = TEXT.format(40) + EXTERNAL
RECORD_TYPE = (
    '<?xml version="1.0" encoding="UTF-8"?><RecordType xmlns="http://soap.sforce.com/2006/04/metadata">'
    "<fullName>{0}</fullName><label>{0} one</label><active>true</active></RecordType>"
)
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
    objects = {
        "Site__c": {"Site_Id__c": KEY, "Up__c": UP, "Town__c": TEXT.format(40)},
        "Desk__c": {"Desk_Id__c": KEY, "Site__c": MASTER},
    }
    for name, fields in objects.items():
        files = object_files(name, fields)
        for kind in ("Small", "Big"):
            folder = f"force-app/main/default/objects/{name}/recordTypes"
            files[f"{folder}/{kind}.recordType-meta.xml"] = RECORD_TYPE.format(kind)
        for path, text in files.items():
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


@pytest.mark.parametrize(
    ("mode", "api"),
    [("upsert", "bulk"), ("upsert", "collections"), ("update", "bulk"), ("update", "collections"), ("insert", "bulk")],
)
def test_a_parent_by_a_field_that_is_no_external_id(lab: Lab, org: Org, mode: str, api: str) -> None:
    for name, town in (("S1", "Basel"), ("S2", "Bern"), ("S3", "bern")):
        org.create("Site__c", Name=name, Site_Id__c=name, Town__c=town)
    by_town: dict[str, Any] = {**DESKS, "mode": mode, "api": api, "fields": {"name": "Name", "site": "Site__r.Town__c"}}
    if mode == "insert":
        del by_town["match"]
        by_town |= {"fields": {**by_town["fields"], "desk": "Desk_Id__c"}, "on_change": "ignore"}
    if mode == "update":  # a master-detail field takes no other value
        by_town |= {"object": "Site__c", "match": {"desk": "Site_Id__c"}, "fields": {"site": "Up__r.Town__c"}}
        for name in ("K1", "K2", "K3"):
            org.create("Site__c", Name=name, Site_Id__c=name)
    kept, lookup, child = (
        ("Site_Id__c", "Up__r", "Site__c") if mode == "update" else ("Desk_Id__c", "Site__r", "Desk__c")
    )

    def held() -> dict[str, str]:
        """Each child that has a parent, and which."""
        found = org.query(f"SELECT {kept}, {lookup}.Site_Id__c FROM {child} WHERE {kept} LIKE 'K%'")
        return {row[kept]: row[lookup]["Site_Id__c"] for row in found if row[lookup]}

    rows = "('K1', 'till', 'basel '), ('K2', 'bar', 'Bern'), ('K3', 'door', 'Chur')"
    lab.sql(f"create or replace table people as select * from (values {rows}) t(desk, name, site)")
    lab.only("people", by_town, key="desk")
    assert lab.run("validate", "--online").code == 0
    ran = lab.run("sync")
    assert "PARENT_AMBIGUOUS" in ran.all, ran.all
    assert "PARENT_MISSING" in ran.all
    assert held() == {"K1": "S1"}
    org.create("Site__c", Name="S4", Site_Id__c="S4", Town__c="CHUR")
    ids = {row["Site_Id__c"]: row["Id"] for row in org.query("SELECT Id, Site_Id__c FROM Site__c")}
    org.edit("Site__c", ids["S2"], Town__c="Biel")
    ran = lab.run("sync")
    assert ran.code == 0, ran.all
    assert held() == {"K1": "S1", "K2": "S3", "K3": "S4"}
    assert lab.run("plan", "--detailed-exitcode").code == 0
    if mode == "update":
        assert lab.run("verify").code == 0
        org.edit("Site__c", ids["S1"], Town__c="Genf")
        ran = lab.run("verify")
        assert ran.code != 0, "the parent is not the one that the model names any more"
        assert "Town__c" in ran.all, ran.all


def test_a_hierarchy_by_such_a_field_and_record_types_by_developer_name(lab: Lab, org: Org) -> None:
    types = {f"{row['SobjectType']} {row['DeveloperName']}": row["Id"]
             for row in org.query("SELECT Id, SobjectType, DeveloperName FROM RecordType")}  # fmt: skip
    fields = {"name": "Town__c", "up": "Up__r.Town__c", "kind": "RecordType.DeveloperName"}
    lab.sql(
        "create or replace table people as select * from (values ('A', 'Aarau', null, 'Small'), "
        "('B', 'Brugg', 'aarau', 'Big'), ('C', 'Chur', 'Brugg', 'small'), ('D', 'Davos', 'Chur', 'Odd')) "
        "t(site, name, up, kind)"
    )
    lab.only("people", {**SITES, "fields": fields}, key="site")
    shown = lab.run("plan", "--show-values")
    assert shown.code == 0 and "RecordType.DeveloperName" in shown.out, shown.all
    ran = lab.run("sync")
    assert "1 held (PARENT_MISSING [RecordType.DeveloperName])" in ran.out, ran.all
    found = org.query("SELECT Town__c, Up__r.Town__c, RecordTypeId FROM Site__c")
    assert {(r["Town__c"], (r["Up__r"] or {}).get("Town__c"), r["RecordTypeId"]) for r in found} == {
        ("Aarau", None, types["Site__c Small"]),
        ("Brugg", "Aarau", types["Site__c Big"]),
        ("Chur", "Brugg", types["Site__c Small"]),
    }
    assert len(set(types.values())) == 4, "two objects have types of these names"
    assert lab.run("plan", "--detailed-exitcode").code == 0
    assert lab.run("verify").code == 0


def test_what_a_run_warns_of_has_its_reason_and_the_next_command(lab: Lab, org: Org) -> None:
    sites(lab, "('A', repeat('x', 200), null)", "('B', 'b', null)")
    ran = lab.run("sync")
    assert ran.code == 3, ran.all
    assert "WARN sites" in ran.out
    assert "dinmo-dbt rejected -s sites" in ran.out
