"""Databricks' own connector, by dbt's own connection, against a server of its Thrift messages: what it gives, we read.

The tables are DuckDB's, and dbt only parses: what its adapter would build by is not answered here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from e2e.lab import Org

from .cells import NULL, Columns, check_cells, companies, customers, refusal, sent, shop_of
from .environments import ENVIRONMENTS, needed
from .shop import Shop, free_port, serving

(CLIENT,) = ENVIRONMENTS["databricks"]
HERE = Path(__file__).parent

pytestmark = pytest.mark.slow

CUSTOMERS: Columns = {
    "customer_id": ("Customer_Id__c", "varchar", [("'C1'", "C1"), ("'C2'", "C2"), ("'C''3'", "C'3")]),
    "whole": ("Whole__c", "bigint", [("7", 7.0), NULL, ("-123456789012345", -123456789012345.0)]),
    "money": ("Money__c", "decimal(18,4)", [("1.25", 1.25), NULL, ("12345678901.2345", 12345678901.2345)]),
    "digits": ("Digits__c", "decimal(38,10)", [
        ("1234567890123456789.0123456789", "1234567890123456789.0123456789"), NULL, ("0.5", "0.5"),
    ]),
    "share": ("Share__c", "float", [("0.1", 0.1), NULL, ("-0.25", -0.25)]),
    "note": ("Note__c", "varchar", [
        ("'it''s \"é\" \\ 🙂'", "it's \"é\" \\ 🙂"), ("''", None), ("'two' || chr(10) || 'lines  '", "two\nlines"),
    ]),
    "active": ("Active__c", "boolean", [("true", True), ("false", False), ("true", True)]),
    "born": ("Born__c", "date", [("'1700-01-01'", "1700-01-01"), NULL, ("'2024-02-29'", "2024-02-29")]),
    "wall": ("Wall__c", "timestamp", [
        ("'2024-01-31 08:00:00.123456'", "2024-01-31T08:00:00.000+0000"), NULL,
        ("'1969-12-31 23:59:59.999999'", "1969-12-31T23:59:59.000+0000"),
    ]),
    "zoned": ("Zoned__c", "timestamptz", [
        ("'2024-01-31 08:00:00+02:00'", "2024-01-31T06:00:00.000+0000"), NULL,
        ("'2024-06-30 23:30:00-05:00'", "2024-07-01T04:30:00.000+0000"),
    ]),
    "plans": ("Plans__c", "varchar[]", [("['Free', 'Team']", "Free;Team"), NULL, ("['Team']", "Team")]),
    "thing": ("Thing__c", "struct(k bigint, w varchar[])", [
        ("{'k': 1, 'w': ['é', null]}", '{"k":1,"w":["é",null]}'), NULL, ("{'k': null, 'w': []}", '{"k":null,"w":[]}'),
    ]),
    "said": ("Said__c", "map(varchar, bigint)", [("map {'a': 1}", '{"a":1}'), NULL, ("map {}", "{}")]),
    '"order"': ("Order__c", "varchar", [("'first'", "first"), NULL, ("'third'", "third")]),
    '"Mixed Case"': ("Mixed__c", "varchar", [("'x'", "x"), NULL, ("'z'", "z")]),
}  # fmt: skip
Fill = Callable[..., None]


def events(rows: int) -> str:
    return f"select 'E' || i as event_id, cast(i / 4 as decimal(12, 2)) as amount from range(1, {rows + 1}) rows(i)"


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    needed(CLIENT)
    port = free_port()
    command = [str(CLIENT.program("python")), str(HERE / "databricks_server.py"), str(port)]
    with serving(command, port, tmp_path_factory.mktemp("server") / "log"):
        yield port


@pytest.fixture(scope="module")
def fill(port: int) -> Fill:
    def run(**models: str) -> None:
        for name, sql in models.items():
            made = f"create schema if not exists shop; create or replace table shop.{name} as {sql}"
            answer = requests.post(f"http://127.0.0.1:{port}/fill", data=made.encode(), timeout=60)
            assert answer.ok, answer.text

    return run


@pytest.fixture(scope="module")
def shop(port: int, fill: Fill, tmp_path_factory: pytest.TempPathFactory) -> Shop:
    where = {"_connection_uri": f"http://127.0.0.1:{port}/thrift", "enable_telemetry": False}
    output = {
        "type": "databricks", "host": "127.0.0.1", "http_path": "/sql/1.0/warehouses/x", "token": "correct-horse",
        "catalog": "lake", "schema": "shop", "threads": 1, "connection_parameters": where,
    }  # fmt: skip
    fill(customers=customers(CUSTOMERS), events=events(25_000), companies=companies())
    made = shop_of(Shop(tmp_path_factory.mktemp("databricks") / "shop", CLIENT), output, CUSTOMERS, "select 1")
    made.dbt("parse")
    return made


@pytest.fixture(scope="module")
def org(shop: Shop) -> Iterator[Org]:
    """The tests of this file follow each other: a warehouse and an org as they become in days."""
    with shop.org() as org:
        yield org


def test_a_first_sync_brings_each_cell_as_the_table_has_it(shop: Shop, org: Org) -> None:
    assert sent(shop) == {"customers": 3, "events": 25_000, "companies": 2}
    check_cells(org, CUSTOMERS)
    assert org.query("SELECT Amount__c FROM Event__c WHERE Ref__c = 'E24999'")[0]["Amount__c"] == 6249.75


def test_a_second_sync_sends_nothing_and_a_third_what_changed(shop: Shop, org: Org, fill: Fill) -> None:
    assert sent(shop) == {"customers": 0, "events": 0, "companies": 0}
    first = customers(CUSTOMERS).replace("cast(7 as", "cast(700000000000000 as")
    fill(customers=first, companies=companies("1234567.5"), events=events(25_002))
    assert sent(shop) == {"customers": 1, "events": 2, "companies": 1}


@pytest.mark.parametrize(
    ("code", "change", "words"),
    [
        ("DB151", {"fields": {"nmoey": "Money__c"}}, "did you mean money?"),
        ("DB710", {"where": "nmoey = 1 and note like '%'"}, "(UNRESOLVED_COLUMN): there is no column nmoey"),
        ("DB710", {"where": "cast(note as int) = 1"}, "(CAST_INVALID_INPUT)"),
        ("DB702", {"where": "exists (select 1 from nowhere)"}, "(TABLE_OR_VIEW_NOT_FOUND)"),
    ],
    ids=["column", "condition", "value", "relation"],
)
def test_what_databricks_refuses_is_reported_without_a_value(
    shop: Shop, org: Org, code: str, change: dict[str, Any], words: str
) -> None:
    told = refusal(shop, CUSTOMERS, code, **change)
    assert words in told, told
    assert "it's" not in told and "correct-horse" not in told


def test_debug_and_validate_name_the_warehouse(shop: Shop, org: Org) -> None:
    found = shop.run("debug")
    assert found.code == 0 and "127.0.0.1/lake" in found.out, found.all
    assert shop.run("validate").code == 0
