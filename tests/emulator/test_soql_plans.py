"""Queries by an indexed field use its index, and long ones stay within SQLite's bounds."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dinmo_dbt import emulator
from dinmo_dbt.emulator.soql.compiler import compile_query
from dinmo_dbt.emulator.soql.query import Query
from dinmo_dbt.emulator.soql.sql import Sql
from dinmo_dbt.emulator.web.app import App


@pytest.fixture(scope="module")
def app(schema: Path) -> Iterator[App]:
    app = emulator.app(schema=schema, data=None)
    yield app
    app.close()


def compiled(app: App, soql: str) -> Query:
    return compile_query(app.site.store, soql, everything=False, clock=lambda: datetime(2024, 1, 1, tzinfo=UTC))


def plan(app: App, sql: Sql) -> list[str]:
    rows = app.site.store.reading().execute(f"EXPLAIN QUERY PLAN {sql.text}", sql.values)
    return [row[3] for row in rows]


@pytest.mark.parametrize(
    "where",
    [
        "Code__c = 'a'",
        "Code__c IN ('a', 'b')",
        "Ref__c = 'a'",
        "Number_Key__c IN (1, 2)",
        "Loose__c = 'a' AND (Code__c = 'b' OR Name = 'c')",
        "Loose__c = 'a' OR Loose__c = 'b'",
        "Account__c IN (SELECT AccountId FROM Contact WHERE Email = 'a@example.com')",
        "Id IN (SELECT Customer__c FROM Line__c WHERE Key__c = 'a')",
        " OR ".join(f"Loose__c = '{n}'" for n in range(200)),
    ],
)
def test_a_query_by_an_indexed_field_scans_no_table(app: App, where: str) -> None:
    steps = plan(app, compiled(app, f"SELECT Id FROM Customer__c WHERE {where}").rids_sql())
    assert any(step.startswith("SEARCH t USING") for step in steps)
    assert not [step for step in steps if step.startswith("SCAN t")], steps


def test_children_are_found_by_the_index_of_their_lookup(app: App) -> None:
    (child,) = compiled(app, "SELECT (SELECT Id FROM Contacts ORDER BY Name LIMIT 3) FROM Account").children
    assert any("_AccountId_" in step for step in plan(app, child.query.children_sql(child.link, "[1]")))


@pytest.mark.slow
@pytest.mark.parametrize(
    "where",
    [
        "Name IN (" + ", ".join(f"'{n}'" for n in range(5000)) + ")",
        " OR ".join(f"(Amount__c = {n} AND Name = '{n}')" for n in range(2000)),
        " AND ".join(f"NOT Name LIKE '{n}'" for n in range(2000)),
        "NOT " * 9000 + "Name = 'a'",
        "(" * 9000 + "Name = 'a'" + ")" * 9000,
        "(Name = 'a' AND (Name = 'b' OR " * 5 + "Name = 'c'" + "))" * 5,
    ],
    ids=["IN", "OR", "AND", "NOT", "parentheses", "alternating"],
)
def test_long_conditions_run(app: App, where: str) -> None:
    sql = compiled(app, f"SELECT Id FROM Customer__c WHERE {where}").rids_sql()
    assert list(app.site.store.reading().execute(sql.text, sql.values)) == []
