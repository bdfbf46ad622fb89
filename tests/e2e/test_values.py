"""Nasty values reach Salesforce as salesforce-wire.md §5 says, by Bulk and by collections alike, and only once."""

from __future__ import annotations

from typing import Any

import pytest

from .lab import EVENTS, PEOPLE, Lab, Org

pytestmark = pytest.mark.slow

ALL = {
    "name": "Name",
    "note": "Note__c",
    "nick": "Nick__c",
    "email": "Email__c",
    "score": "Score__c",
    "big": "Big__c",
    "active": "Active__c",
    "born": "Born__c",
    "seen": "Seen__c",
}
# What the model holds -> what Salesforce holds.
NOTES = {
    "plain": "plain",
    "emoji 🌿 👩‍👩‍👧 Zoé Łódź 漢字": "emoji 🌿 👩‍👩‍👧 Zoé Łódź 漢字",
    "say \"hi\", she said; 'no' \\ \t tab": "say \"hi\", she said; 'no' \\ \t tab",
    "one\ntwo": "one\ntwo",
    "one\r\ntwo": "one\ntwo",  # Salesforce refuses a CRLF inside a value of an LF file, so line ends are LF
    "one\rtwo": "one\ntwo",
    ",;,,": ",;,,",
    "  spaces around  ": "spaces around",
    "": None,
    "   ": None,
    "#N/A": "#N/A",
    "null": "null",
    "NULL": "NULL",
    "=1+1": "=1+1",
    "\u00a0no break\u00a0": "\u00a0no break\u00a0",
    "</script>&amp;{{ env_var('X') }}": "</script>&amp;{{ env_var('X') }}",
    "x" * 100_000: "x" * 100_000,
}
# SQL of a number -> the number.
NUMBERS = {
    "cast(0.1 as double) + cast(0.2 as double)": 0.3,
    "cast(1e16 as double)": 1e16,
    "cast(19.99 as double)": 19.99,
    "cast(-0.0 as double)": 0,
    "cast(1e-7 as double)": 1e-7,
    "null": None,
}
MOMENTS = {
    "timestamptz '2024-07-01 12:00:00+02'": "2024-07-01T10:00:00.000+0000",
    "timestamptz '1969-12-31 23:59:59+00'": "1969-12-31T23:59:59.000+0000",
    "timestamptz '1900-01-01 00:00:00+00'": "1900-01-01T00:00:00.000+0000",
    "null": None,
}


def quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def fill(lab: Lab) -> dict[str, dict[str, Any]]:
    """One row for each nasty value; what each should be in Salesforce."""
    expected: dict[str, dict[str, Any]] = {}
    statements = ["delete from people", "alter table people alter column big type double"]
    statements += ["alter table people alter column score type decimal(38, 2)"]

    def add(columns: dict[str, str], then: dict[str, Any]) -> None:
        key = f"N{len(expected):03d}"
        names, given = ", ".join(["person_id", *columns]), ", ".join([quoted(key), *columns.values()])
        statements.append(f"insert into people ({names}) values ({given})")
        expected[key] = then

    for note, held in NOTES.items():
        add({"name": quoted("n"), "note": quoted(note)}, {"Note__c": held})
    for number, amount in NUMBERS.items():
        add({"name": quoted("n"), "big": number}, {"Big__c": amount})
    add({"name": quoted("n"), "score": "1234567890123456.78"}, {"Score__c": 1234567890123456.78})
    for moment, instant in MOMENTS.items():
        add({"name": quoted("n"), "seen": moment}, {"Seen__c": instant})
    for day in ("1969-07-20", "1700-01-01", "2024-02-29"):
        add({"name": quoted("n"), "born": f"date '{day}'"}, {"Born__c": day})
    for flag, held_flag in (("true", True), ("false", False), ("null", False)):
        add({"name": quoted("n"), "active": flag}, {"Active__c": held_flag})
    add({"name": quoted("n"), "email": quoted("MixedCase@Example.com")}, {"Email__c": "mixedcase@example.com"})
    lab.sql(*statements)
    return expected


@pytest.mark.parametrize("api", ["bulk", "collections"])
def test_nasty_values_arrive_as_they_are(lab: Lab, org: Org, api: str) -> None:
    lab.only("people", {**PEOPLE, "fields": ALL, "api": api})
    expected = fill(lab)
    first = lab.run("sync", "--json")
    assert first.code == 0, first.all
    assert first.result("people_to_crm")["outcome"]["succeeded"] == len(expected)
    records = {
        record["Person_Id__c"]: record
        for record in org.query(f"SELECT Person_Id__c, {', '.join(ALL.values())} FROM Person__c")
    }
    for key, fields in expected.items():
        for field, value in fields.items():
            assert records[key][field] == value, (key, field)
    again = lab.run("sync", "--json")
    assert again.result("people_to_crm")["outcome"]["succeeded"] == 0
    assert again.result("people_to_crm")["counts"]["unchanged"] == len(expected)


def test_nasty_values_are_inserted_once_each(lab: Lab, org: Org) -> None:
    lab.only("events", {**EVENTS, "fields": {"event_id": "Ref__c", "kind": "Kind__c"}})
    short = [text for text in NOTES if len(text) <= 40 and text != "#N/A"]
    values = ", ".join(f"('N{number}', {quoted(text)}, 1, null, null)" for number, text in enumerate(short))
    lab.sql("delete from events", f"insert into events values {values}")
    assert lab.run("sync").code == 0
    held = {r["Ref__c"]: r["Kind__c"] for r in org.query("SELECT Ref__c, Kind__c FROM Event__c")}
    assert held == {f"N{number}": NOTES[text] for number, text in enumerate(short)}
    assert lab.run("plan", "--detailed-exitcode").code == 0


def test_empty_text_and_null_are_the_same_value(lab: Lab, org: Org) -> None:
    lab.only("people", {**PEOPLE, "fields": ALL})
    assert lab.run("sync").code == 0
    lab.sql(
        "update people set note = '' where person_id = 'P1'", "update people set note = '  ' where person_id = 'P2'"
    )
    ran = lab.run("sync", "--json")
    assert ran.result("people_to_crm")["outcome"]["succeeded"] <= 1, "'' is null; blanks are text, which becomes null"
    assert lab.run("plan", "--detailed-exitcode").code == 0


def test_a_null_clears_and_keep_keeps(lab: Lab, org: Org) -> None:
    fields = {**PEOPLE["fields"], "email": {"field": "Email__c", "nulls": "keep"}}
    lab.only("people", {**PEOPLE, "fields": fields})
    assert lab.run("sync").code == 0
    lab.sql("update people set email = null, score = null where person_id = 'P1'")
    assert lab.run("sync").code == 0
    held = org.query("SELECT Email__c, Score__c FROM Person__c WHERE Person_Id__c = 'P1'")[0]
    assert (held["Email__c"], held["Score__c"]) == ("p1@example.com", None)
