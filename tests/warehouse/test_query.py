"""Identifiers, conditions and messages, as text."""

from __future__ import annotations

import pytest

from dinmo_dbt.warehouse.query import one_line, quote, why_not_condition


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


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("Conversion Error: Could not convert string 'x@y.z' to INT32", "Could not convert string ‹value› to INT32"),
        ('invalid input syntax for type integer: "O\'Hara"', "invalid input syntax for type integer: ‹value›"),
        ("Overflow in multiplication of INT32 (2 * 2147483647)!", "of INT32 (‹value› * ‹value›)!"),
        ('date/time field value out of range: "2024-13-01"\nLINE 1: select', "out of range: ‹value›"),
    ],
)
def test_row_values_in_a_message_are_replaced(message: str, shown: str) -> None:
    assert one_line(message, redact=True).endswith(shown)


def test_a_long_message_is_cut() -> None:
    assert len(one_line("x" * 10_000, redact=False)) == 400
