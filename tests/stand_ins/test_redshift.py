"""Redshift, by its own driver on a plain Postgres behind a relay: dbt builds, dinmo-dbt syncs, each cell is right."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from e2e.lab import Org
from postgres_server import Postgres, running, server_programs

from .cells import NULL, Columns, check_cells, companies, customers, refusal, sent, shop_of
from .environments import ENVIRONMENTS, needed
from .redshift_relay import CATALOG, relaying
from .shop import Shop

(CLIENT,) = ENVIRONMENTS["redshift"]

pytestmark = pytest.mark.slow

CUSTOMERS: Columns = {
    "customer_id": ("Customer_Id__c", "varchar(20)", [("'C1'", "C1"), ("'C2'", "C2"), ("'C''3'", "C'3")]),
    "whole": ("Whole__c", "bigint", [("7", 7.0), NULL, ("-123456789012345", -123456789012345.0)]),
    "money": ("Money__c", "numeric(18,4)", [("1.25", 1.25), NULL, ("12345678901.2345", 12345678901.2345)]),
    "digits": ("Digits__c", "numeric(38,10)", [
        ("1234567890123456789.0123456789", "1234567890123456789.0123456789"), NULL, ("0.5", "0.5"),
    ]),
    "share": ("Share__c", "real", [("0.1", 0.1), NULL, ("-0.25", -0.25)]),
    "note": ("Note__c", "varchar(255)", [
        ("'it''s \"é\" \\\\ 🙂'", "it's \"é\" \\\\ 🙂"), ("''", None), ("'two' || chr(10) || 'lines  '", "two\nlines"),
    ]),
    "active": ("Active__c", "boolean", [("true", True), ("false", False), ("true", True)]),
    "born": ("Born__c", "date", [("'1700-01-01'", "1700-01-01"), NULL, ("'2024-02-29'", "2024-02-29")]),
    "wakes": ("Wakes__c", "time", [("'08:00:00.123456'", "08:00:00.123Z"), NULL, ("'23:59:59'", "23:59:59.000Z")]),
    "wall": ("Wall__c", "timestamp", [
        ("'2024-01-31 08:00:00.123456'", "2024-01-31T08:00:00.000+0000"), NULL,
        ("'1969-12-31 23:59:59.999999'", "1969-12-31T23:59:59.000+0000"),
    ]),
    "zoned": ("Zoned__c", "timestamptz", [
        ("'2024-01-31 08:00:00+02:00'", "2024-01-31T06:00:00.000+0000"), NULL,
        ("'2024-06-30 23:30:00-05:00'", "2024-07-01T04:30:00.000+0000"),
    ]),
    "said": ("Said__c", "char(9)", [("'padded'", "padded"), NULL, ("''", None)]),
    '"order"': ("Order__c", "varchar(9)", [("'first'", "first"), NULL, ("'third'", "third")]),
    '"Mixed Case"': ("Mixed__c", "varchar(9)", [("'x'", "x"), NULL, ("'z'", "z")]),
}  # fmt: skip


def events(rows: int) -> str:
    return (
        "select cast('E' || i as varchar(9)) as event_id, cast(i / 4.0 as numeric(12, 2)) as amount "
        f"from generate_series(1, {rows}) as rows(i)"
    )


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    needed(CLIENT)
    programs = server_programs()
    if programs is None:
        pytest.skip("no Postgres server on this machine: install the `postgresql` package")
    with running(programs) as server:
        server.run(*CATALOG)
        yield server


@pytest.fixture(scope="module")
def shop(server: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    with relaying(server.port) as port:
        output = {
            "type": "redshift", "host": "127.0.0.1", "port": port, "user": "owner", "password": server.password,
            "dbname": server.database, "schema": "shop", "sslmode": "disable", "threads": 1,
        }  # fmt: skip
        yield shop_of(Shop(tmp_path_factory.mktemp("redshift") / "shop", CLIENT), output, CUSTOMERS, events(25_000))


@pytest.fixture(scope="module")
def org(shop: Shop) -> Iterator[Org]:
    """The tests of this file follow each other: a warehouse and an org as they become in days."""
    with shop.org() as org:
        yield org


def test_a_first_sync_brings_each_cell_as_the_model_has_it(shop: Shop, org: Org) -> None:
    shop.dbt("build")
    planned = shop.run("plan", "--json")
    assert planned.code in (0, 10), planned.all
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
    changed = org.query("SELECT Whole__c, Money__c FROM Customer__c WHERE Customer_Id__c = 'C1'")[0]
    assert (changed["Whole__c"], changed["Money__c"]) == (7e14, 1.25)


@pytest.mark.parametrize(
    ("code", "change", "words"),
    [
        ("DB151", {"fields": {"nmoey": "Money__c"}}, "did you mean money?"),
        ("DB710", {"where": "nmoey = 1"}, "no such column (42703): there is no column nmoey; did you mean money?"),
        ("DB710", {"where": "note::int = 1"}, "invalid text representation (22P02)"),
        ("DB702", {"where": "exists (select 1 from nowhere)"}, "no such table (42P01)"),
    ],
    ids=["column", "condition", "value", "relation"],
)
def test_what_redshift_refuses_is_reported_without_a_value(
    shop: Shop, org: Org, code: str, change: dict[str, Any], words: str
) -> None:
    told = refusal(shop, CUSTOMERS, code, **change)
    assert words in told, told
    assert "it's" not in told and "correct-horse" not in told


def test_a_table_that_the_user_may_not_read(shop: Shop, org: Org, server: Postgres) -> None:
    server.run("create role reader login password 'correct-horse'", "grant usage on schema shop to reader")
    profile = (shop.root / "profiles.yml").read_text(encoding="utf-8")
    shop.write({"profiles.yml": profile.replace("user: owner", "user: reader")})
    refused = shop.run("plan", "-s", "customers_to_crm")
    shop.write({"profiles.yml": profile})
    assert "DB709" in refused.all and "insufficient privilege (42501)" in " ".join(refused.all.split()), refused.all


def test_rows_come_before_the_last_is_there(shop: Shop, org: Org, server: Postgres) -> None:
    """The driver alone would hold the whole result, and fail with its last row before it gives the first."""
    server.run("create view shop.late as select i, 1 / (25000 - i) as v from generate_series(1, 25000) as rows(i)")
    told = shop.python(
        "from pathlib import Path\n"
        "from dinmo_dbt.errors import WarehouseError\n"
        "from dinmo_dbt.warehouse import connect\n"
        "w = connect(Path('.'), profiles_dir=None, profile=None, target=None, vars={}, env={})\n"
        "read = []\n"
        "try:\n"
        "    for batch in w.read('shop.late', ['i', 'v'], None): read.append(batch.num_rows)\n"
        "except WarehouseError as error: print(read, error)\n"
        "print(sum(b.num_rows for b in w.read('shop.events', ['event_id'], None)))\n"
        "w.close()\n"
    )
    assert "[10000, 10000]" in told and "division by zero" in told, told
    assert told.splitlines()[-1] == "25002"


def test_debug_and_validate_name_the_warehouse(shop: Shop, org: Org) -> None:
    found = shop.run("debug")
    assert found.code == 0 and "127.0.0.1/shop" in found.out, found.all
    assert shop.run("validate").code == 0
