"""Spark itself, a session in each command's own process: dbt builds, dinmo-dbt plans and syncs, each cell is right."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from e2e.lab import Org

from .cells import NULL, Columns, check_cells, companies, customers, refusal, sent, shop_of
from .environments import ENVIRONMENTS, needed
from .shop import Shop

(CLIENT,) = ENVIRONMENTS["spark"]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

CUSTOMERS: Columns = {
    "customer_id": ("Customer_Id__c", "varchar(20)", [("'C1'", "C1"), ("'C2'", "C2"), ("'C\\'3'", "C'3")]),
    "whole": ("Whole__c", "bigint", [("7", 7.0), NULL, ("-123456789012345", -123456789012345.0)]),
    "money": ("Money__c", "decimal(18,4)", [("1.25", 1.25), NULL, ("12345678901.2345", 12345678901.2345)]),
    "digits": ("Digits__c", "decimal(38,10)", [
        ("1234567890123456789.0123456789", "1234567890123456789.0123456789"), NULL, ("0.5", "0.5"),
    ]),
    "share": ("Share__c", "float", [("0.1", 0.1), NULL, ("-0.25", -0.25)]),
    "note": ("Note__c", "string", [
        ("'it\\'s \"é\" \\\\ 🙂'", "it's \"é\" \\ 🙂"), ("''", None),
        ("concat('two', char(10), 'lines  ')", "two\nlines"),
    ]),
    "active": ("Active__c", "boolean", [("true", True), ("false", False), ("true", True)]),
    "born": ("Born__c", "date", [("'1700-01-01'", "1700-01-01"), NULL, ("'2024-02-29'", "2024-02-29")]),
    "wall": ("Wall__c", "timestamp_ntz", [
        ("'2024-01-31 08:00:00.123456'", "2024-01-31T08:00:00.000+0000"), NULL,
        ("'1969-12-31 23:59:59.999999'", "1969-12-31T23:59:59.000+0000"),
    ]),
    "zoned": ("Zoned__c", "timestamp", [
        ("'2024-01-31 08:00:00+02:00'", "2024-01-31T06:00:00.000+0000"), NULL,
        ("'2024-06-30 23:30:00-05:00'", "2024-07-01T04:30:00.000+0000"),
    ]),
    "said": ("Said__c", "variant", [
        ("parse_json('\"a word\"')", "a word"), NULL, ("parse_json('{\"a\":[1,null]}')", '{"a":[1,null]}'),
    ]),
    "plans": ("Plans__c", "array<string>", [
        ("array('Free', 'Team')", "Free;Team"), NULL, ("array('Team')", "Team"),
    ]),
    "order": ("Order__c", "string", [("'first'", "first"), NULL, ("'third'", "third")]),
}  # fmt: skip


def events(rows: int) -> str:
    return (
        "select concat('E', cast(id as string)) as event_id, cast(id / 4 as decimal(12, 2)) as amount "
        f"from range(1, {rows + 1})"
    )


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    needed(CLIENT)
    if shutil.which("java") is None:
        pytest.skip("no Java on this machine: install a JRE, 17 or newer")
    root = tmp_path_factory.mktemp("spark") / "shop"
    metastore = f"jdbc:derby:;databaseName={root}/metastore;create=true"
    settings = {
        "spark.master": "local[1]", "spark.ui.enabled": "false", "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1", "spark.sql.warehouse.dir": f"{root}/warehouse",
        "spark.ui.showConsoleProgress": "false", "spark.sql.shuffle.partitions": "1", "spark.driver.memory": "1g",
        # Of little use to a JVM that ends soon: the second compiler, and threads that collect garbage.
        "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
        "spark.hadoop.javax.jdo.option.ConnectionURL": metastore, "spark.sql.session.timeZone": "America/New_York",
    }  # fmt: skip
    output: dict[str, Any] = {
        "type": "spark", "method": "session", "host": "none", "schema": "shop", "threads": 1,
        "server_side_parameters": settings,
    }  # fmt: skip
    return shop_of(Shop(root, CLIENT), output, CUSTOMERS, events(25_000))


@pytest.fixture(scope="module")
def org(shop: Shop) -> Iterator[Org]:
    """The tests of this file follow each other: a warehouse and an org as they become in days."""
    with shop.org() as org:
        yield org


def test_a_first_sync_brings_each_cell_as_the_model_has_it(shop: Shop, org: Org) -> None:
    shop.dbt("build")
    assert sent(shop) == {"customers": 3, "events": 25_000, "companies": 2}
    check_cells(org, CUSTOMERS)
    assert org.query("SELECT Amount__c FROM Event__c WHERE Ref__c = 'E24999'")[0]["Amount__c"] == 6249.75
    scores = {row["Website"]: row["Score__c"] for row in org.query("SELECT Website, Score__c FROM Account")}
    assert scores == {"a.example": 10.5, "b.example": 20, "o.example": None}


def test_a_second_sync_sends_nothing_and_a_third_what_changed(shop: Shop, org: Org) -> None:
    assert sent(shop) == {"customers": 0, "events": 0, "companies": 0}
    first = customers(CUSTOMERS).replace("cast(7 as", "cast(700000000000000 as")
    shop.build(customers=first, companies=companies("1234567.5"), events=events(25_002))
    assert sent(shop) == {"customers": 1, "events": 2, "companies": 1}


@pytest.mark.parametrize(
    ("code", "change", "words"),
    [
        ("DB710", {"where": "nmoey = 1"}, "(UNRESOLVED_COLUMN.WITH_SUGGESTION): there is no column nmoey"),
        ("DB702", {"where": "exists (select 1 from nowhere)"}, "(TABLE_OR_VIEW_NOT_FOUND): there is no such relation"),
        ("DB710", {"where": "raise_error(note)"}, "can't be read"),
    ],
    ids=["condition", "relation", "value"],
)  # fmt: skip
def test_what_spark_refuses_is_reported_without_a_value(
    shop: Shop, org: Org, code: str, change: dict[str, Any], words: str
) -> None:
    told = refusal(shop, CUSTOMERS, code, **change)
    assert words in told, told
    assert "it's" not in told and "lines" not in told


def test_debug_names_the_warehouse(shop: Shop, org: Org) -> None:
    found = shop.run("debug")
    assert "warehouse: OK, Spark 4" in found.out, found.all
