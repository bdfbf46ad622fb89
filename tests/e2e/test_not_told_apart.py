"""DB410 for who may see values: some keys, in their canonical form, and a query that finds their rows."""

from __future__ import annotations

import re

import duckdb
import pytest

from .lab import PEOPLE, Lab, Org

pytestmark = pytest.mark.slow

# What is inserted into `people`, its activation, its key, what is told, and the names whose rows the query finds.
CASES = {
    "twice": ("('P1', 'Q')", PEOPLE, "person_id", "key P1: 2 rows", {"Person 1", "Q"}),
    "null": ("(null, 'nobody')", PEOPLE, "person_id", "1 row without a key", {"nobody"}),
    "blank": ("(chr(9) || ' ', 'tab'), ('', 'empty'), (null, 'none')", PEOPLE, "person_id", "3 rows without a key",
              {"tab", "empty", "none"}),
    "in_another_case": ("('q''1', 'a'), ('Q''1 ', 'b')", PEOPLE, "person_id", "value of person_id q'1: 2 rows",
                        {"a", "b"}),
    "two_columns": ("('P1', 'Person 1')", PEOPLE, ["person_id", "name"], "key 2:P18:Person 1: 2 rows", {"Person 1"}),
    "one_of_two_is_null": ("('P1', null)", PEOPLE, ["person_id", "name"], "1 row without a key", {None}),
    "a_condition": ("('P1', 'Q'), ('P2', 'R')", {**PEOPLE, "where": "name <> 'R' -- not this"}, "person_id",
                    "key P1: 2 rows", {"Person 1", "Q"}),
}  # fmt: skip
COMMANDS = (("plan",), ("sync",), ("validate", "--data"), ("verify",), ("state", "adopt", "people_to_crm"))


@pytest.mark.parametrize("name", CASES)
def test_the_rows_are_shown_and_found(name: str, lab: Lab, org: Org) -> None:
    inserted, activation, key, told, names = CASES[name]
    lab.only("people", activation, key=key)
    lab.sql(f"insert into people (person_id, name) values {inserted}")
    hidden, shown = lab.run("plan"), lab.run("plan", "--show-values")
    assert told not in hidden.all and "select" not in hidden.all, hidden.all
    assert f"  {told}\n" in shown.out, shown.out
    (document,) = lab.run("plan", "--show-values", "--json").json["activations"]
    query = document["not_told_apart"][0]["query"]
    assert f"  {query}\n" in shown.out
    with duckdb.connect(str(lab.root / "lab.duckdb"), read_only=True) as connection:
        rows = connection.sql(f"select name from ({query})").fetchall()
    assert {each for (each,) in rows} == names and len(rows) == int(re.search(r"\d+ rows?\b", told)[0].split()[0])


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_that_stops_at_them_shows_them_to_who_asks(command: tuple[str, ...], lab: Lab, org: Org) -> None:
    lab.only("people", PEOPLE)
    lab.sql("insert into people (person_id, name) values ('P1', 'Q')")
    hidden, shown = lab.run(*command), lab.run(*command, "--show-values")
    assert "DB410" in hidden.all and "P1" not in hidden.all, hidden.all
    if command[0] != "validate":
        assert "dinmo-dbt plan -s people_to_crm --show-values" in hidden.all
    assert "key P1: 2 rows" in shown.all and """where "person_id" in ('P1')""" in shown.all, shown.all
    assert b"key P1: 2 rows" not in b"".join(path.read_bytes() for path in lab.root.rglob("*.db")), "kept nowhere"


def test_the_document_has_them_too(lab: Lab, org: Org) -> None:
    lab.only("people", PEOPLE)
    lab.sql("insert into people (person_id, name) values ('P1', 'Q')")
    (told,) = lab.run("plan", "--show-values", "--json").json["activations"]
    query = """select * from "lab"."main"."people" where "person_id" in ('P1')"""
    assert told["not_told_apart"] == [{"columns": ["person_id"], "values": [{"key": "P1", "rows": 2}], "query": query}]
    assert "not_told_apart" not in lab.run("plan", "--json").json["activations"][0]
