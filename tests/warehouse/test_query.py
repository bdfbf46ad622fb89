"""Identifiers and conditions, as text."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal

import duckdb
import pytest

from dinmo_dbt.warehouse.query import literal, quote, rows_of, why_not_condition

MOMENT = dt.datetime(2024, 1, 31, 8)


@pytest.mark.parametrize(
    ("adapter", "name", "quoted"),
    [
        ("duckdb", 'a"b', '"a""b"'),
        ("snowflake", "Ab", '"Ab"'),
        ("bigquery", "a`b\\", "`a\\`b\\\\`"),
        ("databricks", "a`b", "`a``b`"),
        ("fabric", "a]b", "[a]]b]"),
    ],
)
def test_an_identifier_is_quoted_as_its_database_reads_it(adapter: str, name: str, quoted: str) -> None:
    assert quote(name, adapter) == quoted


@pytest.mark.parametrize(
    ("adapter", "value", "written"),
    [
        ("duckdb", "it's", "'it''s'"),
        ("duckdb", "a\tb\u00a0", "concat('a', chr(9), 'b', chr(160))"),
        ("fabric", "\t", "nchar(9)"),
        ("fabric", "Žák's", "N'Žák''s'"),
        ("snowflake", "a\\b'", "'a\\\\b\\''"),
        ("databricks", "O'Brien\u200b", "concat('O\\'Brien', '\\U0000200b')"),
        ("bigquery", "a\\b'", "'a\\\\b\\''"),
        ("postgres", "a\\b", "'a\\b'"),
        ("postgres", "", "''"),
        ("postgres", dt.date(2024, 1, 31), "date '2024-01-31'"),
        ("fabric", dt.date(2024, 1, 31), "'2024-01-31'"),
        ("postgres", MOMENT, "timestamp '2024-01-31 08:00:00'"),
        ("postgres", MOMENT.replace(tzinfo=dt.UTC), "timestamp with time zone '2024-01-31 08:00:00+00:00'"),
        ("bigquery", MOMENT, "datetime '2024-01-31 08:00:00'"),
        ("bigquery", MOMENT.replace(tzinfo=dt.UTC), "timestamp '2024-01-31 08:00:00+00:00'"),
        ("databricks", MOMENT.replace(tzinfo=dt.UTC), "timestamp '2024-01-31 08:00:00+00:00'"),
        ("postgres", Decimal("1E+3"), "1000"),
        ("postgres", Decimal("NaN"), "cast('NaN' as numeric)"),
        ("duckdb", float("nan"), "cast('nan' as double precision)"),
        ("bigquery", float("-inf"), "cast('-inf' as float64)"),
        ("mysql", "a\u200b", "concat('a', convert(x'e2808b' using utf8mb4))"),
    ],
)
def test_a_value_is_written_as_its_database_reads_it(adapter: str, value: object, written: str) -> None:
    assert literal(value, adapter) == written


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), "a\u200b\u00a0b\n\U000e0020'", 1.5, ""])
def test_duckdb_reads_a_written_value_as_that_value(value: object) -> None:
    with duckdb.connect() as db:
        assert db.execute(f"select {literal(value, 'duckdb')} is not distinct from ?", [value]).fetchone() == (True,)


def test_a_condition_is_of_these_values_and_no_others() -> None:
    assert rows_of(["a"], [("x",), (None,)], "duckdb") == '"a" in (\'x\') or "a" is null'
    assert rows_of(["a"], [(None,)], "duckdb") == '"a" is null'
    assert rows_of(["a", "b"], [("x", None)], "duckdb") == '("a" = \'x\' and "b" is null)'


@pytest.mark.parametrize(
    "where",
    [
        "a = 1",
        "a in (1, (2)) and (b or c)",
        "a = ');' or b = 'it''s (fine'",
        '"od;d)" = 1',
        "a = 1 -- (not; this",
        "a = 1 /* ) ; */ and b",
        "a = $x$);$x$",
        "a like '%\\'",
        "a = e'\\');'",
        "a::date = date '2024-01-31'",
    ],
)
def test_one_condition_is_one(where: str) -> None:
    assert why_not_condition(where, "postgres") is None


@pytest.mark.parametrize(
    "where",
    ["a = 1;", "a = 1) or (b = 1", "true); drop table t; select (1", "a = (1", "a = 'x", 'a = "x', "a /* x", "a = 1))"],
)
def test_a_slip_that_would_mean_something_else_is_refused(where: str) -> None:
    assert why_not_condition(where, "duckdb")


def test_a_backslash_escapes_where_the_database_says_so() -> None:
    assert why_not_condition("a = '\\');'", "snowflake") is None
    assert why_not_condition("a = '\\');'", "postgres")
