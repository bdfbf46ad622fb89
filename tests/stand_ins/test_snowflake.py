"""Snowflake, by fakesnow: dbt builds, dinmo-dbt plans and syncs, and each cell in the org is what the model says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from e2e.lab import EXTERNAL, NUMBER, TEXT, Org

from .environments import ENVIRONMENTS, needed
from .shop import Shop, free_port, org_files, project, serving

SERVER, CLIENT = ENVIRONMENTS["snowflake"]
HERE = Path(__file__).parent

pytestmark = pytest.mark.slow

MOMENT = "<type>DateTime</type>"
PLANS = (
    "<type>MultiselectPicklist</type><visibleLines>3</visibleLines><valueSet><restricted>true</restricted>"
    "<valueSetDefinition><sorted>false</sorted><value><fullName>Free</fullName><label>Free</label></value>"
    "<value><fullName>Team</fullName><label>Team</label></value></valueSetDefinition></valueSet>"
)
OBJECTS = {
    "Customer__c": {
        "Customer_Id__c": TEXT.format(40) + EXTERNAL,
        "Whole__c": NUMBER.format(0),
        "Money__c": NUMBER.format(4),
        "Digits__c": TEXT.format(80),
        "Share__c": NUMBER.format(2),
        "Note__c": TEXT.format(255),
        "Active__c": "<type>Checkbox</type><defaultValue>false</defaultValue>",
        "Born__c": "<type>Date</type>",
        "Wakes__c": "<type>Time</type>",
        "Wall__c": MOMENT,
        "Local__c": MOMENT,
        "Zoned__c": MOMENT,
        "Said__c": TEXT.format(255),
        "Plans__c": PLANS,
        "Thing__c": TEXT.format(255),
        "Order__c": TEXT.format(40),
        "Mixed__c": TEXT.format(40),
    },
    "Event__c": {"Ref__c": TEXT.format(40), "Amount__c": NUMBER.format(2)},
    "Account": {"Score__c": NUMBER.format(2)},
}
ACCOUNTS = "Name,Website\nAlpha,a.example\nBeta,b.example\nOther,o.example\n"

# A column of the model: its field, its type, and by row its value as SQL writes it and as the org holds it.
Cells = list[tuple[str, Any]]
NULL = ("null", None)
CUSTOMERS: dict[str, tuple[str, str, Cells]] = {
    "customer_id": ("Customer_Id__c", "varchar", [("'C1'", "C1"), ("'C2'", "C2"), ("'C''3'", "C'3")]),
    "whole": ("Whole__c", "number(38,0)", [("7", 7.0), NULL, ("-123456789012345", -123456789012345.0)]),
    "money": ("Money__c", "number(18,4)", [("1.25", 1.25), NULL, ("12345678901.2345", 12345678901.2345)]),
    "digits": ("Digits__c", "number(38,10)", [
        ("1234567890123456789.0123456789", "1234567890123456789.0123456789"), NULL, ("0.5", "0.5"),
    ]),
    "share": ("Share__c", "float", [("0.5", 0.5), NULL, ("-0.25", -0.25)]),
    "note": ("Note__c", "varchar", [
        ("'it''s \"é\" \\\\ 🙂'", "it's \"é\" \\ 🙂"), ("''", None), ("'two' || chr(10) || 'lines  '", "two\nlines"),
    ]),
    "active": ("Active__c", "boolean", [("true", True), ("false", False), ("true", True)]),
    "born": ("Born__c", "date", [("'1700-01-01'", "1700-01-01"), NULL, ("'2024-02-29'", "2024-02-29")]),
    "wakes": ("Wakes__c", "time", [("'08:00:00.123456'", "08:00:00.123Z"), NULL, ("'23:59:59'", "23:59:59.000Z")]),
    "wall": ("Wall__c", "timestamp_ntz", [
        ("'2024-01-31 08:00:00.123456'", "2024-01-31T08:00:00.000+0000"), NULL,
        ("'1969-12-31 23:59:59.999999'", "1969-12-31T23:59:59.000+0000"),
    ]),
    "local": ("Local__c", "timestamp_ltz", [
        ("'2024-01-31 08:00:00.5'", "2024-01-31T08:00:00.000+0000"), NULL,
        ("'1999-12-31 00:00:00'", "1999-12-31T00:00:00.000+0000"),
    ]),
    "zoned": ("Zoned__c", "timestamp_tz", [
        ("'2024-01-31 08:00:00+02:00'", "2024-01-31T06:00:00.000+0000"), NULL,
        ("'2024-06-30 23:30:00-05:00'", "2024-07-01T04:30:00.000+0000"),
    ]),
    "said": ("Said__c", "variant", [
        ("parse_json('\"a \\\\\"word\\\\\"\"')", 'a "word"'), NULL,
        ("parse_json('{\"a\":[1,null]}')", '{"a":[1,null]}'),
    ]),
    "plans": ("Plans__c", "array", [
        ("array_construct('Free','Team')", "Free;Team"), NULL, ("array_construct('Team')", "Team"),
    ]),
    "thing": ("Thing__c", "object", [("object_construct('k', 1)", '{"k":1}'), NULL, ("object_construct()", "{}")]),
    '"order"': ("Order__c", "varchar", [("'first'", "first"), NULL, ("'third'", "third")]),
    '"Mixed Case"': ("Mixed__c", "varchar", [("'x'", "x"), NULL, ("'z'", "z")]),
}  # fmt: skip
UPSERT = {
    "name": "customers_to_crm",
    "destination": "crm",
    "object": "Customer__c",
    "mode": "upsert",
    "match": {"customer_id": "Customer_Id__c"},
    # In lower case, as people write them: Snowflake folds what is not quoted to upper case.
    "fields": {name.strip('"'): field for name, (field, _, _) in CUSTOMERS.items() if name != "customer_id"}
    | {"customer_id": "Name"},
}
INSERT = {
    "name": "events_to_crm",
    "destination": "crm",
    "object": "Event__c",
    "mode": "insert",
    "fields": {"event_id": "Ref__c", "amount": "Amount__c"},
}
UPDATE = {
    "name": "companies_to_crm",
    "destination": "crm",
    "object": "Account",
    "mode": "update",
    "match": {"website": "Website"},
    "fields": {"score": "Score__c"},
}
KEYS = {"customers": ("customer_id", UPSERT), "events": ("event_id", INSERT), "companies": ("website", UPDATE)}


def customers(rows: int = 3) -> str:
    def selected(row: int) -> str:
        cells = ((f"{cells[row][0]}::{kind}", name) for name, (_, kind, cells) in CUSTOMERS.items())
        return "select " + ", ".join(f"{value} as {name}" for value, name in cells)

    return " union all ".join(map(selected, range(rows)))


def events(rows: int) -> str:
    """Of chunks with amounts of 32 bits, and others of 64."""
    return (
        f"select ('E' || seq)::varchar as event_id, (seq * seq / 4)::number(12, 2) as amount "
        f"from (select row_number() over (order by 1) as seq from table(generator(rowcount => {rows})))"
    )


def companies(score: str = "20") -> str:
    rows = (("a.example", "10.5"), ("b.example", score), ("unknown.example", "30"))
    return " union all ".join(f"select '{site}' as website, {value}::number(9, 1) as score" for site, value in rows)


MODELS = {"customers": customers(), "events": events(40_000), "companies": companies()}


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    needed(SERVER, CLIENT)
    port = free_port()
    command = [str(SERVER.program("python")), str(HERE / "snowflake_server.py"), str(port)]
    with serving(command, port, tmp_path_factory.mktemp("server") / "log"):
        yield port


@pytest.fixture(scope="module")
def shop(port: int, tmp_path_factory: pytest.TempPathFactory) -> Shop:
    output = {
        "type": "snowflake", "account": "fakesnow", "user": "fake", "password": "correct-horse", "host": "127.0.0.1",
        "port": port, "protocol": "http", "database": "ANALYTICS", "schema": "SHOP", "warehouse": "WH", "threads": 1,
    }  # fmt: skip
    made = Shop(tmp_path_factory.mktemp("snowflake") / "shop", CLIENT)
    declared = [
        {"name": name, "config": {"meta": {"dinmo": {"key": key, "activations": [activation]}}}}
        for name, (key, activation) in KEYS.items()
    ]
    made.write(project(output, MODELS, declared) | org_files(OBJECTS, {"Account": ACCOUNTS}))
    made.write({"macros/databases.sql": "{% macro databases() %}create database if not exists ANALYTICS{% endmacro %}"})
    return made


def build(shop: Shop, **models: str) -> None:
    shop.write({f"models/{name}.sql": sql + "\n" for name, sql in models.items()})
    shop.dbt("build")


@pytest.fixture(scope="module")
def org(shop: Shop) -> Iterator[Org]:
    """The tests of this file follow each other: a warehouse and an org as they become in days."""
    with shop.org() as org:
        yield org


def test_a_first_sync_brings_each_cell_as_the_model_has_it(shop: Shop, org: Org) -> None:
    shop.dbt("run-operation", "databases")
    build(shop)
    planned = shop.run("plan", "--json")
    assert planned.code in (0, 10), planned.all
    assert org.count("Customer__c") == 0
    done = shop.run("sync", "--json")
    assert done.code == 0, done.all
    fields = {name: field for name, (field, _, _) in CUSTOMERS.items()}
    found = org.query(f"SELECT {', '.join(fields.values())} FROM Customer__c")
    expected = [{field: cells[row][1] for field, _, cells in CUSTOMERS.values()} for row in (0, 1, 2)]
    told = {record["Customer_Id__c"]: {field: record[field] for field in fields.values()} for record in found}
    for row in expected:
        assert told[row["Customer_Id__c"]] == row
    assert org.count("Event__c") == 40_000
    assert org.query("SELECT Amount__c FROM Event__c WHERE Ref__c = 'E39999'")[0]["Amount__c"] == 399980000.25
    scores = {row["Website"]: row["Score__c"] for row in org.query("SELECT Website, Score__c FROM Account")}
    assert scores == {"a.example": 10.5, "b.example": 20, "o.example": None}


def test_a_second_sync_sends_nothing_and_a_third_what_changed(shop: Shop, org: Org) -> None:
    """The share that changed has another type on the wire: whole numbers of 8 bits were enough before."""
    again = shop.run("sync", "--json")
    assert again.code == 0, again.all
    assert {one["activation"]: one["outcome"]["succeeded"] for one in again.json["results"]} == {
        "customers_to_crm": 0, "events_to_crm": 0, "companies_to_crm": 0,
    }  # fmt: skip
    first = customers().replace("7::number(38,0)", "700000000000000::number(38,0)")
    build(shop, customers=first, companies=companies("1234567.5"), events=events(40_002))
    done = shop.run("sync", "--json")
    assert done.code == 0, done.all
    assert {one["activation"]: one["outcome"]["succeeded"] for one in done.json["results"]} == {
        "customers_to_crm": 1, "events_to_crm": 2, "companies_to_crm": 1,
    }  # fmt: skip
    changed = org.query("SELECT Whole__c, Money__c FROM Customer__c WHERE Customer_Id__c = 'C1'")[0]
    assert (changed["Whole__c"], changed["Money__c"]) == (7e14, 1.25)
    assert org.query("SELECT Score__c FROM Account WHERE Website = 'b.example'")[0]["Score__c"] == 1234567.5


@pytest.mark.parametrize(
    ("fields", "condition", "code", "words"),
    [
        ({"nmoey": "Money__c"}, "", "DB151", "did you mean MONEY?"),
        ({"note": "Note__c"}, "nmoey = 1", "DB710", "(002043): there is no column nmoey; did you mean MONEY?"),
        ({"note": "Note__c"}, "note::int = 1", "DB710", "invalid date or time (100035)"),
        ({"note": "Note__c"}, "exists (select 1 from nowhere)", "DB702", "no such table (002003)"),
    ],
    ids=["column", "condition", "value", "relation"],
)
def test_what_snowflake_refuses_is_told_without_a_value(
    shop: Shop, org: Org, fields: dict[str, str], condition: str, code: str, words: str
) -> None:
    where = {"where": condition} if condition else {}
    shop.declare("customers", key="customer_id", activations=[{**UPSERT, "fields": fields, **where}])
    refused = shop.run("plan", "-s", "customers_to_crm")
    shop.declare("customers", key="customer_id", activations=[UPSERT])
    assert refused.code not in (0, 10), refused.all
    told = " ".join(refused.all.split())
    assert code in told and words in told, refused.all
    assert "it's" not in told and "correct-horse" not in told


def test_debug_and_validate_name_the_warehouse(shop: Shop, org: Org) -> None:
    found = shop.run("debug")
    assert found.code == 0 and "Snowflake" in found.out and "fakesnow/ANALYTICS" in found.out, found.all
    assert shop.run("validate").code == 0
