"""Snowflake, by fakesnow: dbt builds, dinmo-dbt plans and syncs, and each cell in the org is what the model says."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from e2e.lab import Org, until

from .cells import NULL, Columns, check_cells, companies, customers, refusal, sent, shop_of, upsert
from .environments import ENVIRONMENTS, needed
from .shop import Shop, free_port, serving

SERVER, CLIENT = ENVIRONMENTS["snowflake"]
HERE = Path(__file__).parent

pytestmark = pytest.mark.slow

CUSTOMERS: Columns = {
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


def events(rows: int) -> str:
    """Of chunks with amounts of 32 bits, and others of 64."""
    return (
        f"select ('E' || seq)::varchar as event_id, (seq * seq / 4)::number(12, 2) as amount "
        f"from (select row_number() over (order by 1) as seq from table(generator(rowcount => {rows})))"
    )


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the server tells."""
    return tmp_path_factory.mktemp("server") / "log"


@pytest.fixture(scope="module")
def port(log: Path) -> Iterator[int]:
    needed(SERVER, CLIENT)
    port = free_port()
    command = [str(SERVER.program("python")), str(HERE / "snowflake_server.py"), str(port)]
    with serving(command, port, log):
        yield port


@pytest.fixture(scope="module")
def shop(port: int, tmp_path_factory: pytest.TempPathFactory) -> Shop:
    output = {
        "type": "snowflake", "account": "fakesnow", "user": "fake", "password": "correct-horse", "host": "127.0.0.1",
        "port": port, "protocol": "http", "database": "ANALYTICS", "schema": "SHOP", "warehouse": "WH", "threads": 1,
    }  # fmt: skip
    made = shop_of(Shop(tmp_path_factory.mktemp("snowflake") / "shop", CLIENT), output, CUSTOMERS, events(40_000))
    made.write({"macros/databases.sql": "{% macro databases() %}create database if not exists ANALYTICS{% endmacro %}"})
    return made


@pytest.fixture(scope="module")
def org(shop: Shop) -> Iterator[Org]:
    """The tests of this file follow each other: a warehouse and an org as they become in days."""
    with shop.org() as org:
        yield org


def test_a_first_sync_brings_each_cell_as_the_model_has_it(shop: Shop, org: Org) -> None:
    shop.dbt("run-operation", "databases")
    shop.dbt("build")
    planned = shop.run("plan", "--json")
    assert planned.code in (0, 10), planned.all
    assert org.count("Customer__c") == 0
    assert sent(shop) == {"customers": 3, "events": 40_000, "companies": 2}
    check_cells(org, CUSTOMERS)
    assert org.count("Event__c") == 40_000
    assert org.query("SELECT Amount__c FROM Event__c WHERE Ref__c = 'E39999'")[0]["Amount__c"] == 399980000.25
    scores = {row["Website"]: row["Score__c"] for row in org.query("SELECT Website, Score__c FROM Account")}
    assert scores == {"a.example": 10.5, "b.example": 20, "o.example": None}


def test_a_second_sync_sends_nothing_and_a_third_what_changed(shop: Shop, org: Org) -> None:
    """The share that changed has another type on the wire: whole numbers of 8 bits were enough before."""
    assert sent(shop) == {"customers": 0, "events": 0, "companies": 0}
    first = customers(CUSTOMERS).replace("cast(7 as", "cast(700000000000000 as")
    shop.build(customers=first, companies=companies("1234567.5"), events=events(40_002))
    assert sent(shop) == {"customers": 1, "events": 2, "companies": 1}
    changed = org.query("SELECT Whole__c, Money__c FROM Customer__c WHERE Customer_Id__c = 'C1'")[0]
    assert (changed["Whole__c"], changed["Money__c"]) == (7e14, 1.25)
    assert org.query("SELECT Score__c FROM Account WHERE Website = 'b.example'")[0]["Score__c"] == 1234567.5


@pytest.mark.parametrize(
    ("code", "change", "words"),
    [
        ("DB151", {"fields": {"nmoey": "Money__c"}}, "did you mean MONEY?"),
        ("DB710", {"where": "nmoey = 1"}, "(002043): there is no column nmoey; did you mean MONEY?"),
        ("DB710", {"where": "note::int = 1"}, "invalid date or time (100035)"),
        ("DB702", {"where": "exists (select 1 from nowhere)"}, "no such table (002003)"),
    ],
    ids=["column", "condition", "value", "relation"],
)
def test_what_snowflake_refuses_is_reported_without_a_value(
    shop: Shop, org: Org, code: str, change: dict[str, Any], words: str
) -> None:
    told = refusal(shop, CUSTOMERS, code, **change)
    assert words in told, told
    assert "it's" not in told and "correct-horse" not in told


def test_debug_and_validate_name_the_warehouse(shop: Shop, org: Org) -> None:
    found = shop.run("debug")
    assert found.code == 0 and "Snowflake" in found.out and "fakesnow/ANALYTICS" in found.out, found.all
    assert shop.run("validate").code == 0


def test_a_plan_that_is_asked_to_stop_cancels_its_statement(shop: Shop, org: Org, log: Path) -> None:
    """The last of this file: the server goes on with the statement. By SIGINT the connector cancels it by itself."""
    endless = "exists (select 1 from events a, events b, events c where a.event_id || b.event_id = c.event_id || 'x')"
    shop.declare("customers", key="customer_id", activations=[upsert(CUSTOMERS) | {"where": endless}])
    with shop.started("plan", "-s", "customers_to_crm") as child:
        until(lambda: "c.event_id || 'x'" in log.read_text(encoding="utf-8"))
        child.send_signal(signal.SIGTERM)
        out, err = child.communicate(timeout=120)
    assert child.returncode == 143 and "Traceback" not in err, out + err
    assert "system$cancel_all_queries" in log.read_text(encoding="utf-8")
