"""A model whose shape changes, from the warehouse to Salesforce: no record is made twice."""

from __future__ import annotations

import pytest

from .lab import Lab, Org

pytestmark = pytest.mark.slow

REFS = {
    "name": "events_to_crm",
    "destination": "crm",
    "object": "Event__c",
    "mode": "insert",
    "fields": {"name": "Ref__c"},
}
DAY = "date '2024-01-01' + i::integer"
NAME = "'n' || i"


def build(lab: Lab, key: str, name: str = NAME, rows: int = 30) -> None:
    rest = f"{name} as name from range(1, {rows + 1}) t(i)"
    lab.sql("drop table if exists events", f"create table events as select {key} as k, {rest}")


SAME = {
    "whole numbers of another width": (("i::integer", NAME), ("i::bigint", NAME)),
    "the text of a timestamp for that of a date": (("i", DAY), ("i", f"({DAY})::timestamp")),
    "decimals of another scale": (("i", "i::decimal(10,2)"), ("i", "i::decimal(10,4)")),
    "numbers as text": (("i", "i"), ("i", "lpad(i::text, 5, '0')")),
}
MOVED = {
    "a date as a timestamp": (DAY, f"({DAY})::timestamp"),
    "other letters": ("'e' || i", "upper('e' || i)"),
    "numbers as text with zeros": ("i", "lpad(i::text, 4, '0')"),
    "blanks around": ("'e' || i", "'e' || i || '  '"),
}


@pytest.mark.parametrize("name", list(SAME))
def test_an_insert_makes_no_row_again(lab: Lab, org: Org, name: str) -> None:
    before, after = SAME[name]
    lab.only("events", REFS, key="k")
    build(lab, *before)
    assert lab.run("sync").code == 0
    build(lab, *after)
    planned, ran = lab.run("plan"), lab.run("sync")
    assert (planned.code, ran.code, org.count("Event__c")) == (0, 0, 30), ran.all
    assert ("is of type" in planned.out) == (name != "whole numbers of another width")


@pytest.mark.parametrize("name", list(MOVED))
def test_keys_that_moved_stop_an_insert_and_are_rekeyed(lab: Lab, org: Org, name: str) -> None:
    before, after = MOVED[name]
    lab.only("events", REFS, key="k")
    build(lab, before)
    assert lab.run("sync").code == 0
    build(lab, after)
    planned, ran = lab.run("plan"), lab.run("sync", "--allow-creates", "99", "--allow-changes", "99")
    assert (planned.code, ran.code, org.count("Event__c")) == (4, 4, 30)
    assert "DB409" in planned.out and "DB409" in ran.err
    assert "key came" not in planned.all and "key came" in lab.run("plan", "--show-values").out
    looked = lab.run("state", "rekey", "events_to_crm", "--json").json
    assert (looked["counts"]["paired"], looked["counts"]["equal"], looked["stored"]) == (30, 30, False)
    assert lab.run("state", "rekey", "events_to_crm", "--yes").code == 0
    ran = lab.run("sync")
    assert (ran.code, org.count("Event__c")) == (0, 30)
    assert "0 sent, 30 unchanged" in ran.all
    again = lab.run("state", "rekey", "events_to_crm", "--yes")
    assert (again.code, "DB418" in again.err) == (4, True)


def test_a_key_that_is_not_the_same_twice_is_refused(lab: Lab, org: Org) -> None:
    lab.only("events", REFS, key="k")
    lab.sql("drop table events", "create view events as select uuid()::varchar as k, 'n' as name from range(50)")
    assert lab.run("sync").code == 0
    refused = lab.run("sync")
    assert (refused.code, org.count("Event__c")) == (4, 50)
    assert "is it not the same twice" in refused.err.replace("\n    ", " ")
    assert lab.run("sync", "--allow-replaced", "49").code == 4
    assert org.count("Event__c") == 50


def test_text_that_is_not_the_same_under_the_type_of_before_stops_an_insert(lab: Lab, org: Org) -> None:
    lab.only("events", REFS, key="k")
    build(lab, "i", DAY)
    assert lab.run("sync").code == 0
    build(lab, "i", f"({DAY})::timestamp + interval 1 hour")
    refused = lab.run("sync")
    assert (refused.code, "DB413" in refused.err, org.count("Event__c")) == (4, True, 30)
    lab.only("events", {**REFS, "on_change": "ignore"}, key="k")
    assert (lab.run("sync").code, org.count("Event__c")) == (0, 30)


# A key written in ways that no list has: of each row that left, the values tell.
WRITTEN = {
    "a sign left out": ("'A-' || i", "'A' || i"),
    "an exponent": ("(i * 1000)::text", "i || 'e3'"),
    "fewer decimals": ("(i + 0.5)::decimal(9, 2)::text", "(i + 0.5)::decimal(9, 1)::text"),
    "no accents": ("'é' || i", "strip_accents('é' || i)"),
    "a time in another form": (f"({DAY} + time '10:00')::text", f"strftime({DAY} + time '10:00', '%d.%m.%Y %H:%M')"),
}


@pytest.mark.parametrize("fields", [{"name": "Ref__c"}, {"k": "Ref__c", "name": "Kind__c"}])
@pytest.mark.parametrize("name", list(WRITTEN))
def test_some_keys_written_in_any_other_way_stop_an_insert(
    lab: Lab, org: Org, name: str, fields: dict[str, str]
) -> None:
    before, after = WRITTEN[name]
    lab.only("events", {**REFS, "fields": fields}, key="k")
    build(lab, before)
    assert lab.run("sync").code == 0
    build(lab, f"case when i % 5 < 2 then {after} else {before} end")
    refused = lab.run("sync", "--allow-creates", "99", "--allow-changes", "99")
    assert (refused.code, "DB409" in refused.err, org.count("Event__c")) == (4, True, 30), refused.all
    assert lab.run("state", "rekey", "events_to_crm", "--yes").code == 0
    assert (lab.run("sync").code, org.count("Event__c")) == (0, 30)


HANDED_ON = {
    "a row more in front": ("i", "'n' || (i - 1)"),
    "in the other order": ("31 - i", NAME),
}


@pytest.mark.parametrize("on_change", ["insert", "ignore"])
@pytest.mark.parametrize("name", list(HANDED_ON))
def test_keys_that_are_handed_on_stop_an_insert(lab: Lab, org: Org, name: str, on_change: str) -> None:
    """As a row number is, where rows come in front or in another order."""
    act = {**REFS, "on_change": on_change}
    lab.only("events", act, key="k")
    build(lab, "i")
    assert lab.run("sync").code == 0
    build(lab, *HANDED_ON[name], rows=30)
    refused = lab.run("sync", "--allow-creates", "99", "--allow-replaced", "99")
    assert (refused.code, "DB419" in refused.err, org.count("Event__c")) == (4, True, 30), refused.all
    lab.only("events", {**act, "guards": {"max_change": "100%"}}, key="k")
    assert lab.run("sync").code == 0


def test_a_time_in_another_zone_stops_an_insert(lab: Lab, org: Org) -> None:
    """Each hour's key is that of the hour before: most keys are known, each with the values of another."""
    hour = "timestamp '2024-01-01' + i * interval 1 hour"
    lab.only("events", REFS, key="k")
    build(lab, hour)
    assert lab.run("sync").code == 0
    build(lab, f"({hour}) at time zone 'Europe/Paris'")
    refused = lab.run("sync")
    assert (refused.code, "DB419" in refused.err, org.count("Event__c")) == (4, True, 30), refused.all


def test_values_that_many_rows_have_tell_nothing_of_one(lab: Lab, org: Org) -> None:
    lab.only("events", REFS, key="k")
    build(lab, "i", "'n' || i % 7", rows=200)
    assert lab.run("sync").code == 0
    build(lab, "i + 60", "'n' || (i + 60) % 7", rows=200)
    assert (lab.run("sync").code, org.count("Event__c")) == (0, 260)
