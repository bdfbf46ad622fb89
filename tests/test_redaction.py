"""What is shown of words that others wrote: what we know ourselves, and nothing that a value can hold."""

from __future__ import annotations

import html
import json
import re
from typing import Any

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from psycopg2 import errorcodes

from dinmo_dbt.text.masking import of_job, without_values
from dinmo_dbt.text.redaction import SQLSTATES, TEXT, Foreign, redacted

SQL = 'select "name", "A b" from "lab"."main"."people" where (\ncast(name as integer) > 1\nand plan = \'Free\'\n)'
WHERE = "cast(name as integer) > 1\nand plan = 'Free'"
COLUMNS = ("name", "A b", "plan")


def excerpt(line: int, text: str, blanks: int, carets: int) -> str:
    head = f"LINE {line}: "
    return f"\n\n{head}{text}\n{' ' * (len(head) + blanks)}{'^' * carets}"


@pytest.mark.parametrize(
    ("kind", "text", "shown"),
    [
        (
            "Conversion Error",
            "Conversion Error: Could not convert string 'O'Hara' to INT32 when casting from source column name"
            + excerpt(2, "cast(name as integer) > 1", 0, 21),
            "Conversion Error: a value can't be read as int32, in column name, "
            "at `cast(name as integer)` in line 1 of the condition: ‹text›",
        ),
        (
            "Conversion Error",
            'Conversion Error: Could not convert string "x" to DECIMAL(4,2) when casting from source column A b',
            "Conversion Error: a value can't be read as decimal, in column A b: ‹text›",
        ),
        (
            "Conversion Error",
            "Conversion Error: Could not convert string 'x' to SECRET when casting from source column secret",
            "Conversion Error: a value can't be read as ‹text›, in column ‹text›: ‹text›",
        ),
        (
            "Conversion Error",
            "Type INT32 with value 200 can't be cast because the value is out of range for the destination type INT8",
            "Conversion Error: a value can't be read as int8: ‹text›",
        ),
        (
            "Conversion Error",
            'invalid date field format: "x", expected format is (YYYY-MM-DD) when casting from source column name',
            "Conversion Error: a value can't be read as date, in column name: ‹text›",
        ),
        (
            "Conversion Error",
            'Malformed JSON at byte 0 of input: unexpected.  Input: "x" when casting from source column name',
            "Conversion Error: a value is not JSON, in column name: ‹text›",
        ),
        ("Invalid Input Error", "Invalid Input Error: secret", "Invalid Input Error: ‹text›"),
        (
            "Invalid Input Error",
            'Could not parse string "x" according to format specifier "%Y"\nx\n^\nError: y',
            "Invalid Input Error: a text does not fit the format of strptime: ‹text›",
        ),
        (
            "Out of Range Error",
            "Overflow in multiplication of INT32 (2 * 3)!",
            "Out of Range Error: a number overflows: ‹text›",
        ),
        (
            "Binder Error",
            'Referenced column "PLAN" not found in FROM clause!\nCandidate bindings: "secret"',
            "Binder Error: there is no column plan: ‹text›",
        ),
        (
            "Binder Error",
            'Referenced column "secret" not found in FROM clause!',
            "Binder Error: there is no column ‹text›: ‹text›",
        ),
        (
            "Catalog Error",
            'Scalar Function with name cast does not exist!\nDid you mean "x"?',
            "Catalog Error: there is no function cast: ‹text›",
        ),
        (
            "Parser Error",
            'syntax error at or near "plan"' + excerpt(3, "and plan = 'Free'", 4, 4),
            "Parser Error: syntax error, at `plan` in line 2 of the condition: ‹text›",
        ),
        ("x", "secret" + excerpt(2, "r", 0, 1), "x: at `integer` in line 1 of the condition: ‹text›"),
        (
            "x",
            "secret" + excerpt(2, "cast(name as integer) > 1", 11, 4),
            "x: at `as integer` in line 1 of the condition: ‹text›",
        ),
        (
            "x",
            "secret" + excerpt(2, "...name as integer) > ...", 8, 2),
            "x: at `as` in line 1 of the condition: ‹text›",
        ),
        ("x", "secret" + excerpt(2, "...name as integer) > ...", 0, 7), "x: ‹text›"),
        (
            "x",
            "secret" + excerpt(2, "cast(name as integer) > 1", 0, 3),
            "x: at `cast` in line 1 of the condition: ‹text›",
        ),
        ("x", "secret" + excerpt(3, "and plan = 'Free'", 12, 4), "x: at `'Free'` in line 2 of the condition: ‹text›"),
        ("x", "secret" + excerpt(3, "and plan = 'Free'", 11, 6), "x: at `'Free'` in line 2 of the condition: ‹text›"),
        ("x", 'invalid input syntax for type integer: "O\'Hara"', "x: a value can't be read as integer: ‹text›"),
        (
            "x",
            'value "9" is out of range for type double precision',
            "x: a value can't be read as double precision: ‹text›",
        ),
        ("x", "integer out of range", "x: a number is out of the range of integer: ‹text›"),
        ("x", 'date/time field value out of range: "2024"', "x: a value can't be read as date: ‹text›"),
        ("x", "division by zero", "x: division by zero"),
        ("x", 'column "plan" does not exist', "x: there is no column plan: ‹text›"),
        ("x", "Numeric value 'a' is not recognized", "x: a value can't be read as numeric: ‹text›"),
        ("x", "100038 (22018): Numeric value 'a'b' is not recognized", "x: a value can't be read as numeric: ‹text›"),
        (
            "x",
            "002003 (42S02): SQL compilation error:\nObject 'SHOP.NAME' does not exist or not authorized.",
            "x: there is no relation name, or the role may not see it: ‹text›",
        ),
        (
            "x",
            "001003 (42000): 01b2c3d4-0000-1111-2222-333344445555: SQL compilation error:\n"
            "syntax error line 1 at position 99 unexpected 'secret'.",
            "x: syntax error: ‹text›",
        ),
        ("x", "100051 (22012): Division by zero", "x: division by zero"),
        (
            "x",
            "404 GET https://bigquery.example/v2/x: Not found: Table shop:crm.secret",
            "x: there is no such relation: ‹text›",
        ),
        ("x", "403 Access Denied: Table shop:crm.secret: User …\n\nJob ID: a", "x: permission denied: ‹text›"),
        ("x", "400 Syntax error: Unexpected string literal 'secret' at [9:9]", "x: syntax error: ‹text›"),
        (
            "x",
            "000904 (42000): SQL compilation error: error line 2 at position 5\ninvalid identifier 'NAME'",
            "x: there is no column name, at `name` in line 1 of the condition: ‹text›",
        ),
        ("x", "Bad int64 value: secret", "x: a value can't be read as int64: ‹text›"),
        (
            "x",
            "400 Unrecognized name: plan; Did you mean secret? at [3:5]",
            "x: there is no column plan, at `plan` in line 2 of the condition: ‹text›",
        ),
        (
            "x",
            '[CAST_INVALID_INPUT] The value \'x\' of the type "STRING" cannot be cast to "BIGINT" because it is bad.',
            "x: a value can't be read as bigint: ‹text›",
        ),
        (
            "x",
            "Could not cast value 'x' to DECIMAL(4,2) when casting from source column plan",
            "x: a value can't be read as decimal, in column plan: ‹text›",
        ),
        (
            "x",
            'Casting value "300" to type TINYINT failed: value is out of range!',
            "x: a value can't be read as tinyint: ‹text›",
        ),
        (
            "x",
            'Casting value "1e9" to type DECIMAL(4,2) failed: value is out of range'
            " when casting from source column name",
            "x: a value can't be read as decimal, in column name: ‹text›",
        ),
        (
            "x",
            'timestamp field value out of range: "x", expected format is (YYYY-MM-DD HH:MM:SS)',
            "x: a value can't be read as timestamp: ‹text›",
        ),
        ("x", 'Could not decode string "x" as base64: length', "x: a text is not base64: ‹text›"),
        (
            "x",
            'extract specifier "x" not recognized',
            "x: a part of a date is asked for that there is not: ‹text›",
        ),
        ("x", "Value out of range", "x: a number is out of range"),
        (
            "x",
            "More than one row returned by a subquery used as an expression - secret",
            "x: a subquery gives more than one row: ‹text›",
        ),
        ("x", 'Referenced column "plan" was not found because secret', "x: there is no column plan: ‹text›"),
        (
            "x",
            'Table "p" does not have a column named "A b"\n\nCandidate bindings: secret',
            "x: there is no column A b: ‹text›",
        ),
        ("x", "Type with name name does not exist!\nDid you mean x", "x: there is no type name: ‹text›"),
        ("x", "Table with name people does not exist!\nsecret", "x: there is no relation people: ‹text›"),
        ("x", "View with name people does not exist!\nsecret", "x: there is no relation people: ‹text›"),
        (
            "x",
            "No function matches the given name and argument types 'cast(secret)'. You might",
            "x: no function takes these types: ‹text›",
        ),
        ("x", "Out of Memory Error: failed to pin block of size 256.0 KiB (secret)", "x: out of memory: ‹text›"),
        ("x", "failed to allocate data of size 1 GiB", "x: out of memory: ‹text›"),
        ("x", "could not allocate block", "x: out of memory: ‹text›"),
        ("x", 'invalid input syntax for integer: "a"', "x: a value can't be read as integer: ‹text›"),
        ("x", "invalid input syntax for type json", "x: a value can't be read as json: ‹text›"),
        ("x", "divide by zero", "x: division by zero: ‹text›"),
        ("x", "division by zero: 1 / 0", "x: division by zero: ‹text›"),
        ("x", "column plan does not exist", "x: there is no column plan: ‹text›"),
        ("x", 'column people."A b" does not exist', "x: there is no column A b: ‹text›"),
        ("x", 'relation "lab.people" does not exist', "x: there is no relation people: ‹text›"),
        ("x", "function cast(secret) does not exist", "x: no function cast takes these types: ‹text›"),
        ("x", 'type "name" does not exist', "x: there is no type name: ‹text›"),
        ("x", "syntax error at end of input", "x: syntax error: ‹text›"),
        ("x", "permission denied for table secret", "x: permission denied: ‹text›"),
        ("x", "Date 'secret' is not recognized", "x: a value can't be read as date: ‹text›"),
        ("x", "100040 (22007): Date 'secret' is not recognized", "x: a value can't be read as date: ‹text›"),
        ("x", "400 Bad double value: secret", "x: a value can't be read as double: ‹text›"),
        ("x", "Invalid date: 'secret'", "x: a value can't be read as date: ‹text›"),
        (
            "x",
            "[CAST_INVALID_INPUT] The value 'x' of the type STRING cannot be cast to \"DECIMAL(4,2)\" because secret",
            "x: a value can't be read as decimal: ‹text›",
        ),
        (
            "x",
            "[UNRESOLVED_COLUMN.WITH_SUGGESTION] A column with name `plan` cannot be resolved.",
            "x: there is no column plan: ‹text›",
        ),
        ("x", "[TABLE_OR_VIEW_NOT_FOUND] secret", "x: there is no such relation: ‹text›"),
        ("x", "[PARSE_SYNTAX_ERROR] secret", "x: syntax error: ‹text›"),
        ("x", "[DIVIDE_BY_ZERO] secret", "x: division by zero: ‹text›"),
        ("x", "anything else", "x: ‹text›"),
        ("", "anything else", "‹text›"),
    ],
)
def test_a_message_is_in_our_words(kind: str, text: str, shown: str) -> None:
    assert redacted(Foreign(text, kind, sql=SQL), columns=COLUMNS, where=WHERE) == shown


def test_what_is_left_out_where_nothing_is_known_of_it() -> None:
    assert redacted(Foreign("division by zero")) == "division by zero"
    assert redacted(Foreign("division by zero", code="22012")) == "(22012): division by zero"
    assert redacted(Foreign("secret", code="22012")) == "(22012): ‹text›"
    assert redacted(Foreign("")) == "‹text›"
    assert Foreign("x", "k", "c", "select 1", 3, True) == Foreign("x", "k", "c", "select 1", 3, link=True)
    assert (Foreign("x").kind, Foreign("x").code, Foreign("x").sql, Foreign("x").link) == ("", "", "", False)


TOKENS = (
    "select a1, -- not_this 1\n/* nor\nthis */ 'it''s \\' not' , $x$nor $$ this$x$, $$or this$$, "
    '"q ""r"" s", `b t`, [s q], 2 from t'
)


def test_names_of_a_statement_are_its_identifiers() -> None:
    """Not what stands in comments and texts."""

    def at(part: str) -> str:
        return redacted(Foreign("secret", "x", sql=TOKENS, position=TOKENS.index(part)))

    names = ["a1", '"q ""r"" s"', "`b t`", "[s q]", "select", "from"]
    assert [at(name) for name in names] == [f"x: at `{name}`: ‹text›" for name in names]
    hidden = ["not_this", "1\n", "nor\n", "this */", "it''s", "not'", "nor $$", "$$ this", "this$x$", "or this$$"]
    assert [at(part) for part in hidden] == ["x: ‹text›"] * len(hidden)
    assert at("2 from") == "x: at `2`: ‹text›"
    for name in ("a1", 'q "r" s', "b t", "s q", "t"):
        text = f"Table with name {name} does not exist!"
        assert redacted(Foreign(text, "x", sql=TOKENS)) == f"x: there is no relation {name}: ‹text›"
    for name in ("not_this", "nor", "this", "s", "it", "or", "q", "2"):
        text = f"Table with name {name} does not exist!"
        assert redacted(Foreign(text, "x", sql=TOKENS)) == "x: there is no relation ‹text›: ‹text›"


def test_a_name_is_spelt_as_we_spell_it() -> None:
    def told_of(name: str, *columns: str) -> str:
        return redacted(Foreign(f'column "{name}" does not exist', sql="select Plan, plan from t"), columns=columns)

    assert told_of("plan") == "there is no column plan: ‹text›"
    assert told_of("PLAN") == "there is no column Plan: ‹text›"
    assert told_of("PLAN", "pLAN") == "there is no column pLAN: ‹text›", "columns come first"
    assert told_of("XX", "XX") == told_of("s.XX", "XX") == "there is no column XX: ‹text›"
    assert told_of("t", "plans") == "there is no column t: ‹text›"
    assert told_of("plan", "Flam", "Plans") == "there is no column plan; did you mean Plans?: ‹text›"
    assert told_of("secret", "secrets") == "there is no column ‹text›: ‹text›"


TYPES = """
BIGINT bignumeric binary bit blob bool boolean bpchar byteint bytea bytes char character date datetime dec
decimal double enum float float4 float64 float8 geography hugeint inet int int1 int128 int16 int2 int32 int4 int64
int8 integer interval json jsonb list long macaddr map money name number numeric oid real short smallint string struct
text time
timestamp timestamptz timestamp_ltz timestamp_ms timestamp_ns timestamp_ntz timestamp_s timestamp_tz timetz tinyint
ubigint uhugeint uint128 uint16 uint32 uint64 uint8 uinteger union usmallint utinyint uuid varbinary varbit varchar
variant xml
"""


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        *((name, name.lower()) for name in TYPES.split()),
        ("character varying", "character varying"),
        ("DOUBLE PRECISION", "double precision"),
        ("time with time zone", "time with time zone"),
        ("time without time zone", "time without time zone"),
        ("timestamp with time zone", "timestamp with time zone"),
        ("timestamp without time zone", "timestamp without time zone"),
        ("secret", "‹text›"),
        ("date with time zone", "‹text›"),
    ],
)
def test_a_type_is_named_if_it_is_one(name: str, shown: str) -> None:
    text = f'invalid input syntax for type {name}: "x"'
    assert redacted(Foreign(text)) == f"a value can't be read as {shown}: ‹text›"


@pytest.mark.parametrize("long", [False, True])
def test_an_expression_is_cut_where_it_is_long(long: bool) -> None:
    name = f'"{"n" * (59 if long else 58)}"'
    shown = f"{name[:60]}…" if long else name
    assert redacted(Foreign("secret", sql=f"select {name}", position=7)) == f"at `{shown}`: ‹text›"


def test_a_place_is_in_the_condition_if_it_stands_there() -> None:
    where = "a = 1"
    sql = f"select a from t where (\n{where}\n) and a > b or (b)"
    parts = ("a from", "a =", "= 1")
    asked = [redacted(Foreign("s", sql=sql, position=sql.index(part)), where=where) for part in parts]
    assert asked == ["at `a`: ‹text›", "at `a` in the condition: ‹text›", "at `=` in the condition: ‹text›"]
    assert redacted(Foreign("s", sql=sql, position=sql.index("1\n)")), where=where) == "at `1` in the condition: ‹text›"
    for after in ("\n) and", ") and", "and", "b or", "b)"):
        assert "condition" not in redacted(Foreign("s", sql=sql, position=sql.index(after)), where=where)
    assert redacted(Foreign("s", sql=sql, position=sql.index("a =")), where="other") == "at `a`: ‹text›"
    assert redacted(Foreign("s", sql=sql, position=sql.index("a ="))) == "at `a`: ‹text›"
    assert redacted(Foreign("s", sql=f"(\n{where}\n)", position=2), where=where) == "at `a` in the condition: ‹text›"
    assert redacted(Foreign("s", sql="(a)", position=0)) == "at `(`: ‹text›"
    assert redacted(Foreign("s", sql="a b c", position=2), where="x = 1234567") == "at `b`: ‹text›"
    lines = "\na = 1\nand b = 2\nand c = 3\n"
    sql = f"select a from t where (\n{lines}\n)"
    for line, name in enumerate("abc", 2):
        asked = redacted(Foreign("s", sql=sql, position=sql.index(f"{name} =")), where=lines)
        assert asked == f"at `{name}` in line {line} of the condition: ‹text›"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("x at [1:8]", "at `name`"),
        ("x at [1:7]", "at `name`"),
        ("x at [1:6]", ""),
        ("x at [2:1]", "at `other`"),
        ("x at [2:0]", "at `other`"),
        ("x at [2:5]", ""),
        ("x at [2:900]", ""),
        ("x at [3:1]", "at `last`"),
        ("x at [3:900]", ""),
        ("x at [4:1]", ""),
        ("x at [0:1]", ""),
        ("xat [1:8]", ""),
        ("x line 2, position 1", "at `other`"),
        ("x line 2 at position 1", "at `other`"),
        ("x LINE 2 pos 1", "at `other`"),
        ("x line 2, pos 1", "at `other`"),
        ("x airline 2 pos 1", ""),
        ("x line 0 pos 1", ""),
        ("x" + excerpt(1, "select name", 7, 4), "at `name`"),
        ("x" + excerpt(2, "other", 0, 5), "at `other`"),
        ("x" + excerpt(3, "last", 0, 4), "at `last`"),
        ("x" + excerpt(4, "last", 0, 4), ""),
        ("x" + excerpt(2, "last", 0, 4), ""),
        ("x" + excerpt(2, "other", 5, 1), ""),
        ("x" + excerpt(1, "...name", 3, 4), "at `name`"),
        ("x" + excerpt(1, "select na...", 7, 2), "at `name`"),
        ("x" + excerpt(1, "select na...", 0, 6), "at `select`"),
        ("x" + excerpt(1, "select name", 7, 4) + excerpt(2, "other", 0, 5), "at `other`"),
        ("x\n\nLINE 1: select name\n  ^^", ""),
        ("x" + excerpt(1, "select name", 7, 4) + "\nat [2:1]", "at `name`"),
    ],
)
def test_a_place_that_a_text_gives_is_one_of_our_statement(text: str, shown: str) -> None:
    told_of = redacted(Foreign(text, sql="select name\nother\nlast"))
    assert told_of == (f"{shown}: ‹text›" if shown else "‹text›")


def test_a_place_that_is_marked_is_the_one_that_is_reported() -> None:
    """The same word may stand in a line twice."""
    where = "b = 1"
    sql = f"select b, (\n{where}\n) from t"
    text = "x" + excerpt(1, "select b, (", 7, 1)
    assert redacted(Foreign(text, sql=sql), where=where) == "at `b`: ‹text›"
    sql = "Xa = XX"
    assert redacted(Foreign("x" + excerpt(1, sql, 0, 2), sql=sql)) == "at `Xa`: ‹text›"
    sql = 'select "a"b from t'
    assert redacted(Foreign("x" + excerpt(1, sql, 7, 3), sql=sql)) == 'at `"a"`: ‹text›'
    assert redacted(Foreign("x" + excerpt(1, sql, 10, 1), sql=sql)) == "at `b`: ‹text›"
    sql = "select 'b' as x, b"
    assert redacted(Foreign("x" + excerpt(1, sql, 17, 1), sql=sql)) == "at `b`: ‹text›"


def test_a_position_that_the_driver_gives_is_a_place_of_our_statement() -> None:
    at = SQL.index("plan")
    foreign = Foreign("secret", "no such column", "42703", SQL, at)
    assert redacted(foreign, where=WHERE) == "no such column (42703): at `plan` in line 2 of the condition: ‹text›"
    outside = Foreign("secret", "no such column", "42703", SQL, SQL.index('"A b"'))
    assert redacted(outside, where=WHERE) == 'no such column (42703): at `"A b"`: ‹text›'
    assert redacted(Foreign("secret", "x", sql=SQL, position=10_000)) == "x: ‹text›"
    assert redacted(Foreign("secret", "x", sql=SQL, position=-1)) == "x: ‹text›"
    assert redacted(Foreign("secret", "x", sql=SQL, position=SQL.index("> 1"))) == "x: at `>`: ‹text›"
    assert redacted(Foreign("secret", "x", sql=SQL, position=SQL.index("Free"))) == "x: ‹text›", "a literal is no name"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ('FATAL:  password authentication failed for user "secret"', "password authentication failed: ‹text›"),
        ('connection to server at "secret", port 5432 failed: Connection refused', "Connection refused: ‹text›"),
        ('could not translate host name "secret" to address: x', "unknown host name: ‹text›"),
        ('FATAL:  database "secret" does not exist', "there is no such database: ‹text›"),
        ('FATAL:  role "secret" does not exist', "there is no such user: ‹text›"),
        ("server closed the connection unexpectedly", "the connection was closed: ‹text›"),
        ("timeout expired", "no answer in time: ‹text›"),
        ("250001 (08001): Incorrect username or password was specified.", "password authentication failed: ‹text›"),
        (
            'FATAL:  no pg_hba.conf entry for host "secret"',
            "the server lets no such user in from here (pg_hba.conf): ‹text›",
        ),
        ("fe_sendauth: no password supplied", "the server asks for a password: ‹text›"),
        ("SSL error: certificate verify failed", "its certificate is not trusted: ‹text›"),
        ("the certificate has expired", "its certificate is not trusted: ‹text›"),
        ("self-signed certificate in chain", "its certificate is not trusted: ‹text›"),
        ("self signed certificate", "its certificate is not trusted: ‹text›"),
        ("server does not support SSL, but SSL was required", "TLS failed: ‹text›"),
        ("SSL SYSCALL error: EOF detected", "TLS failed: ‹text›"),
        ("SSL error: wrong version number", "TLS failed: ‹text›"),
        ("a TLS alert", "TLS failed: ‹text›"),
        ("FATAL:  sorry, too many clients already", "the server has too many connections: ‹text›"),
        ('FATAL:  too many connections for role "secret"', "the server has too many connections: ‹text›"),
        ("remaining connection slots are reserved", "the server has too many connections: ‹text›"),
        ("FATAL:  the database system is starting up", "the server is starting up: ‹text›"),
        ("FATAL:  the database system is shutting down", "the server is shutting down: ‹text›"),
        ("terminating connection due to administrator command", "the server is shutting down: ‹text›"),
        ("Connection timed out", "no answer in time: ‹text›"),
        ("read operation time out", "no answer in time: ‹text›"),
        ("request timeout", "no answer in time: ‹text›"),
        ("it timedout", "no answer in time: ‹text›"),
        ("[Errno -2] Name or service not known", "unknown host name: ‹text›"),
        ("Temporary failure in name resolution", "unknown host name: ‹text›"),
        ("getaddrinfo failed", "unknown host name: ‹text›"),
        ("No route to host", "there is no way to its network: ‹text›"),
        ("Network is unreachable", "there is no way to its network: ‹text›"),
        ("No such file or directory", "there is no such file or socket: ‹text›"),
        ("connection reset by peer", "the connection was closed: ‹text›"),
        ("connection was aborted", "the connection was closed: ‹text›"),
        ("Broken pipe", "the connection was closed: ‹text›"),
        ("EOF detected", "the connection was closed: ‹text›"),
        ("permission denied for secret", "permission denied: ‹text›"),
        ("User secret is not authorised", "permission denied: ‹text›"),
        ("not authorized to access", "permission denied: ‹text›"),
        ("403 Access Denied: secret", "permission denied: ‹text›"),
        ("Insufficient privileges to operate on secret", "permission denied: ‹text›"),
        ("secret is not a valid DuckDB database file", "not a valid DuckDB database: ‹text›"),
        ("No space left on device", "the disk is full: ‹text›"),
        ("could not write: disk full", "the disk is full: ‹text›"),
        ("FATAL:  out of memory", "out of memory: ‹text›"),
        ("secret", "‹text›"),
    ],
)
def test_a_connection_that_fails_is_reported_by_its_reason(text: str, shown: str) -> None:
    assert redacted(Foreign(text, link=True)) == shown


# Values that a message may be taken apart by, around a word that nothing else holds.
CANARY = "cAnArY7f3"
HARD = [
    CANARY,
    f"{CANARY}'s",
    f'a" {CANARY} "b',
    f"`{CANARY}`",
    f"$${CANARY}$$",
    f"{CANARY}\nlines\r\n{CANARY}",
    f"100% %s %({CANARY})s",
    f"{{{CANARY}}} {{0}}",
    f"\\{CANARY}\\n",
    f"{CANARY}\x00end",
    f"\u202e{CANARY}\u202c",
    CANARY * 1_200,
    f"({CANARY}|[a-z]+)*?$^",
    f"name {CANARY} name",
    f"{CANARY} when casting from source column name",
    f"x' to INT32 when casting from source column {CANARY}",
    f"x\n\nLINE 2: {CANARY}\n        ^^^^^^^^",
    f'column "{CANARY}" does not exist',
    f"Conversion Error: Could not convert string '{CANARY}' to INT32",
    f"[{CANARY}] The value",
    f"permission denied for {CANARY}",
    f"Connection refused {CANARY}",
    f"error line 2 at position 5 {CANARY}",
]
SHAPES = [
    "{0}",
    "Conversion Error: Could not convert string '{0}' to INT32 when casting from source column name",
    'Referenced column "{0}" not found in FROM clause!\nCandidate bindings: "{0}"',
    'invalid input syntax for type integer: "{0}"',
    'invalid input syntax for type {0}: "{0}"',
    "{0} out of range",
    'relation "{0}" does not exist',
    "Numeric value '{0}' is not recognized",
    "Table with name {0} does not exist!",
    "{0} Error: {0}",
    "x\n\nLINE 2: {0}\n        ^^^^^",
    "x at [2:{0}]",
]


@pytest.mark.parametrize("link", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_no_value_comes_through_any_shape(shape: str, link: bool) -> None:
    for value in HARD:
        foreign = Foreign(shape.replace("{0}", value), "x", sql=SQL, link=link)
        assert CANARY.lower() not in redacted(foreign, columns=COLUMNS, where=WHERE).lower(), value
        assert CANARY not in repr(foreign)


PARTS = sorted({SQL[start : start + size] for start in range(len(SQL)) for size in (1, 3, 9)})
OURS = re.compile(r"[\w']+")


@settings(deadline=None)
@example("r", "", "x\n\nLINE 2: {0}\n        ^^^^^", False)
@given(
    st.text() | st.sampled_from(PARTS), st.text(), st.sampled_from([*SHAPES, "{0}\n\nLINE 2: {1}\n{0}^"]), st.booleans()
)
def test_every_word_that_is_shown_is_one_of_ours(first: str, second: str, shape: str, link: bool) -> None:
    """The vocabulary of an answer is that of our statement, of the columns, and of the module's own lists."""
    empty = {w for s in SHAPES for w in OURS.findall(redacted(Foreign(s, "x", sql=SQL, link=link), columns=COLUMNS))}
    text = shape.replace("{0}", first).replace("{1}", second)
    known = {*OURS.findall(SQL), *OURS.findall(" ".join(COLUMNS)), *OUR_WORDS, *empty}
    assert set(OURS.findall(redacted(Foreign(text, "x", sql=SQL, link=link), columns=COLUMNS, where=WHERE))) <= known


OUR_WORDS = set(
    OURS.findall(
        """a value can't be read as x text in column at line of the condition there is no relation function type that
        did you mean takes these types out memory number range overflows division by zero syntax error permission denied
        such subquery gives more than one row part date asked for not fits does fit format strptime base64 JSON 1 2 3 4
        Connection refused answer password authentication failed time login unknown host name was closed server"""
    )
)


def test_the_sign_of_an_unknown_text_has_one_length() -> None:
    shown = {redacted(Foreign("x" * size, "x")) for size in (1, 10, 100_000)}
    assert shown == {"x: ‹text›"}


def test_a_long_text_costs_no_more_than_its_ends() -> None:
    text = 'Could not convert string "' + "to INT32 when casting from source column " * 100_000
    assert redacted(Foreign(text, "x", sql=SQL)) == "x: a value can't be read as int32, in column ‹text›: ‹text›"


def test_the_middle_of_a_long_text_is_not_looked_at() -> None:
    for size in (4_500, 50_000):
        text = f"Could not convert string '{'x' * size}\nLINE 1: x{'x' * size}' to INT32"
        assert redacted(Foreign(text, "x", sql=SQL)) == "x: a value can't be read as int32: ‹text›"


def test_a_misspelt_column_is_reported_with_the_nearest() -> None:
    foreign = Foreign('column "nmae" does not exist', "x", sql="select 1 from t where (\nNMAE = 1\n)")
    assert redacted(foreign, columns=COLUMNS) == "x: there is no column NMAE; did you mean name?: ‹text›"


# Where our words are plainer than the name of PostgreSQL's condition.
PLAINER = {
    "STRING_DATA_RIGHT_TRUNCATION": "text too long",
    "NUMERIC_VALUE_OUT_OF_RANGE": "number out of range",
    "INVALID_DATETIME_FORMAT": "invalid date or time",
    "DATETIME_FIELD_OVERFLOW": "date or time out of range",
    "INVALID_TIME_ZONE_DISPLACEMENT_VALUE": "invalid time zone",
    "MOST_SPECIFIC_TYPE_MISMATCH": "type mismatch",
    "INVALID_ARGUMENT_FOR_LOGARITHM": "invalid argument of a logarithm",
    "INVALID_ARGUMENT_FOR_POWER_FUNCTION": "invalid argument of a power",
    "DUPLICATE_JSON_OBJECT_KEY_VALUE": "duplicate JSON object key",
    "INVALID_JSON_TEXT": "invalid JSON text",
    "NOT_NULL_VIOLATION": "not-null violation",
    "READ_ONLY_SQL_TRANSACTION": "read-only transaction",
    "IN_FAILED_SQL_TRANSACTION": "transaction is aborted",
    "IDLE_IN_TRANSACTION_SESSION_TIMEOUT": "idle in transaction for too long",
    "INVALID_AUTHORIZATION_SPECIFICATION": "invalid authorization",
    "PROHIBITED_SQL_STATEMENT_ATTEMPTED": "prohibited SQL statement",
    "EXTERNAL_ROUTINE_EXCEPTION": "external routine failed",
    "INVALID_CATALOG_NAME": "no such database",
    "INVALID_SCHEMA_NAME": "no such schema",
    "DEADLOCK_DETECTED": "deadlock",
    "UNDEFINED_COLUMN": "no such column",
    "UNDEFINED_OBJECT": "no such object",
    "DATATYPE_MISMATCH": "type mismatch",
    "UNDEFINED_FUNCTION": "no such function",
    "UNDEFINED_TABLE": "no such table",
    "INDETERMINATE_DATATYPE": "indeterminate type",
    "ADMIN_SHUTDOWN": "the server is shutting down",
    "CRASH_SHUTDOWN": "the server crashed",
    "CANNOT_CONNECT_NOW": "the server does not take connections now",
    "IDLE_SESSION_TIMEOUT": "idle for too long",
    "IO_ERROR": "input or output error",
    "RAISE_EXCEPTION": "raised by a function",
}


def test_states_are_known_by_the_names_of_postgres_conditions() -> None:
    """As psycopg2 lists them; 42S02 and 42S22 are those of ODBC."""
    odbc = {"42S02": "no such table", "42S22": "no such column"}
    names = {state: errorcodes.lookup(state) for state in SQLSTATES if state not in odbc}
    told_as = {state: PLAINER.get(name, name.lower().replace("_", " ")) for state, name in names.items()}
    assert told_as | odbc == SQLSTATES


@pytest.mark.parametrize(
    ("message", "sent", "shown"),
    [
        ("Mail: invalid email address: nobody", ("nobody",), "Mail: invalid email address: ‹value›"),
        ("bad value for picklist field: Macy&#39;s", ("Macy's",), "bad value for picklist field: ‹value›"),
        ("bad value: A &amp; B", ("A & B",), "bad value: ‹value›"),
        ("invalid: JOE@x.example", ("joe@X.example",), "invalid: ‹value›"),
        ("too large: trimmed (max length=3)", ("  trimmed  ",), "too large: ‹value› (max length=3)"),
        ("field le: le", ("le",), "field ‹value›: ‹value›"),
        ("a b c", ("a", None, ""), "‹value› b c"),
        ("too large: " + "x" * 40 + "...", ("x" * 400,), "too large: ‹value›..."),
        ("one and one two", ("one two", "one two three"), "one and ‹value›"),
        ("first\nsecond line", ("first line\nsecond line",), "first\n‹value›"),
        ("value a cat", ("acat",), "value a cat"),
        ("bad: CONOR O&#39;BRIEN", ("Conor O'Brien",), "bad: ‹value›"),
        ("bad: Conor O\\'Brien", ("Conor O'Brien",), "bad: ‹value›"),
        ("bad: Con...", ("Conor O'Brien",), "bad: ‹value›..."),
        ("bad: Conor O...", ("Conor O'Brien",), "bad: ‹value›..."),
        ("bad: &amp;quot;x y z&amp;quot;", ('"x y z"',), "bad: ‹value›"),
        ("bad: caf\\u00e9 noir", ("café noir",), "bad: ‹value›"),
        ("bad: \\ud83d\\ude00 grin", ("😀 grin",), "bad: 😀 ‹value›"),
        ("bad: 1234.57", ("1234.5678",), "bad: ‹value›"),
        ("bad: 1,234.5678", ("1234.5678",), "bad: ‹value›"),
        ("bad: 1.2345678E3", ("1234.5678",), "bad: ‹value›"),
        ("bad: 1234", ("1234.5678",), "bad: ‹value›"),
        ("bad: 1200 and Field1234__c", ("1234.5678",), "bad: 1200 and Field1234__c"),
        ("bad: 12", ("12.34",), "bad: 12"),
        ("max length=3: abcd", ("abcd", "3"), "max length=‹value›: ‹value›"),
        ("bad date: 31/01/2024", ("2024-01-31",), "bad date: ‹value›"),
        ("bad date: 1/5/2024", ("2024-01-05",), "bad date: ‹value›"),
        ("bad: Jan 31, 2024 at 08:30", ("2024-01-31T08:30:00.000Z",), "bad: ‹value› at ‹value›"),
        ("bad: 2024-13-45", ("2024-13-45",), "bad: ‹value›"),
        *(
            (f"bad: {day}", (f"2024-01-05{clock}",), "bad: ‹value›")
            for clock in ("", " 08:30", "T08:30:00.000Z")
            for day in (
                "05.01.2024",
                "5.1.2024",
                "05-01-2024",
                "01-05-2024",
                "1/5/2024",
                "05/01/2024",
                "01/05/2024",
                "2024/1/5",
                "20240105",
                "2024-01-05",
                "Fri Jan 05",
                "Fri Jan 5",
                "Jan 05, 2024",
                "Jan 5, 2024",
                "5 Jan 2024",
                "05 January 2024",
                "January 5, 2024",
                "Fri, 05 Jan 2024",
                "Fri, 5 Jan 2024",
            )
        ),
        ("bad: 08:30", ("2024-01-05T08:30:17",), "bad: ‹value›"),
        ("bad: abcdefgh!", ("abcdefghijkl",), "bad: ‹value›!"),
        ("bad: abcdefg!", ("abcdefghijkl",), "bad: abcdefg!"),
        ("bad: abcdefgh x abcdefghijklm", ("abcdefghijkl",), "bad: ‹value› x ‹value›m"),
        ("bad: a b cd", ("abcd",), "bad: a b cd"),
        ("bad: ab-cd", ("abcd",), "bad: ‹value›"),
        ("bad: a b cd", ("a bcd",), "bad: ‹value›"),
        ("bad: abcd efgh", ("abcdefgh",), "bad: ‹value›"),
        ("bad: xabcx abc ABC", ("abc",), "bad: xabcx ‹value› ‹value›"),
        ("bad: a.b xa.b a.bx", ("a.b",), "bad: ‹value› xa.b a.bx"),
        ("bad: x--x, --", ("--",), "bad: x‹value›x, ‹value›"),
        ("bad: a - b", ("-",), "bad: a - b"),
        ("bad: ab...", ("abcdef",), "bad: ‹value›..."),
        ("bad: a...", ("abcdef",), "bad: a..."),
        ("bad: ab…, xy…", ("abcdef", "xyz"), "bad: ‹value›…, ‹value›…"),
        ("bad: abcdef...", ("abcdef",), "bad: ‹value›..."),
        ("ab...", ("ab c",), "‹value›..."),
        ("bad: -12.5", ("-12.5",), "bad: ‹value›"),
        ("bad: 12.50", ("12.5",), "bad: ‹value›"),
        ("bad: 12", ("12.0",), "bad: ‹value›"),
        ("bad: 1000", ("1e3",), "bad: ‹value›"),
        ("bad: 1,234,567.5", ("1234567.5",), "bad: ‹value›"),
        ("bad: 1234567.5", ("1,234,567.5",), "bad: ‹value›"),
        ("bad: 1e3", ("1000",), "bad: ‹value›"),
        ("bad: 1,234.5", ("1234.50",), "bad: ‹value›"),
        ("bad: 1.5E+2 1.5e-2", ("150", "0.015"), "bad: ‹value› ‹value›"),
        ("bad: 1234.6", ("1234.5678",), "bad: ‹value›"),
        ("bad: 1235", ("1234.5678",), "bad: ‹value›"),
        ("bad: 1236", ("1234.5678",), "bad: 1236"),
        ("bad: 1233", ("1234.5678",), "bad: 1233"),
        ("bad: 1234", ("1235.0",), "bad: 1234"),
        ("bad: 1.23E3", ("1234.5678",), "bad: ‹value›"),
        ("bad: 1.2E3", ("1234.5678",), "bad: 1.2E3"),
        ("bad: 12.3", ("12.34",), "bad: ‹value›"),
        ("bad: 120", ("120.4",), "bad: 120"),
        ("bad: 10.20", ("10.204",), "bad: ‹value›"),
        ("bad: 1.5x x1.5 2.1.5", ("1.50",), "bad: 1.5x x1.5 2.1.5"),
        ("bad: abcdef and more words...", ("abcdef",), "bad: ‹value› and more words..."),
        ("bad: 5 nan 123.4", ("NaN", "Infinity"), "bad: 5 ‹value› 123.4"),
        ("bad: 1e99", ("1" + "0" * 99,), "bad: ‹value›"),
        ("bad: 1e100", ("1" + "0" * 100,), "bad: 1e100"),
        ("bad: \ud800x", (), "bad: \ufffdx"),
        ("bad: " + "9" * 100, ("9" * 100 + ".0",), "bad: ‹value›"),
        ("a\x00b", (), "a b"),
        ("", ("a",), ""),
        *(
            (f"bad: one\\{sign}two", (f"one{that}two",), "bad: ‹value›")
            for sign, that in zip("nrtbf", "\n\r\t\b\f", strict=True)
        ),
        ("bad: one\\/two \\\\ \\u0041b", ("one/two \\ Ab",), "bad: ‹value›"),
        ("bad: 08:30", ("2024-01-05",), "bad: 08:30"),
        ("5 January 2025, 6 January 2024", ("2024-01-05",), "‹value›5, 6 January 2024"),
        ("bad: --", ("--",), "bad: ‹value›"),
        ("bad - F", ("-", "F"), "bad - ‹value›"),
        ("bad: Al Also", ("Al",), "bad: ‹value› Also"),
        ("bad: Teammate", ("Team",), "bad: ‹value›mate"),
        ("bad: STRASSE", ("Straße",), "bad: ‹value›"),
        ("number outside of valid range: 123456", ("123456",), "number outside of valid range: ‹value›"),
    ],
)
def test_salesforces_message_without_what_was_sent(message: str, sent: tuple[str | None, ...], shown: str) -> None:
    assert without_values(message, sent) == shown


@pytest.mark.parametrize("template", ["bad value: {0}", "{0}: bad", "'{0}' and {0} (x)", "<b>{0}</b>", "{0}"])
@pytest.mark.parametrize(
    "change",
    [
        str,
        str.strip,
        str.upper,
        str.lower,
        html.escape,
        lambda value: html.escape(html.escape(value)),
        lambda value: json.dumps(value)[1:-1],
        lambda value: json.dumps(value, ensure_ascii=False)[1:-1],
        lambda value: " ".join(value.split()),
        lambda value: value.replace("\n", " "),
        lambda value: repr(value)[1:-1],
    ],
)
def test_no_value_that_was_sent_is_in_a_message_however_it_is_written(change: Any, template: str) -> None:
    for value in HARD:
        shown = without_values(template.replace("{0}", change(value)), (value, "other"))
        assert CANARY.lower() not in shown.lower(), (value, shown)
        shown.encode()


@settings(deadline=None)
@given(st.text(min_size=4), st.text(), st.text())
def test_a_value_that_stands_in_a_message_is_gone(value: str, before: str, after: str) -> None:
    letters = "".join(sign for sign in value if sign.isalnum())
    assume(len(letters) >= 4 and "\\" not in before + value and "&" not in before + value + after)
    shown = without_values(f"{before} {value} {after}", (value,))
    assert value not in shown.replace("‹value›", " ") or value in before + after


def test_a_mask_tells_no_length() -> None:
    assert {without_values(f"bad: {'x' * size}", ("x" * size,)) for size in (1, 5, 100, 10_000)} == {"bad: ‹value›"}


def test_a_long_message_and_a_long_value_cost_little() -> None:
    shown = without_values("a1 " * 100_000, ("a1 " * 50_000, "a" * 131_072))
    assert len(shown) < 1_000


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("InvalidBatch : Field name not found : Name", "InvalidBatch : Field name not found : Name"),
        (
            "InvalidBatch : InvalidBatch : Field name not found : Name. Batch will not be retried.",
            "InvalidBatch : InvalidBatch : Field name not found : Name",
        ),
        ("InvalidBatch : Field name not found : secret", f"InvalidBatch : Field name not found : {TEXT}"),
        ("InvalidBatch : Unable to find relationship: Owner", "InvalidBatch : Unable to find relationship: Owner"),
        (
            "InvalidBatch : Failed to parse CSV. Found unescaped quote",
            f"InvalidBatch : Failed to parse CSV: {TEXT}",
        ),
        ("InvalidBatch : Records not processed", "InvalidBatch : Records not processed"),
        ("InvalidBatch : secret", f"InvalidBatch : {TEXT}"),
        ("InvalidBatch : Duplicate column : Owner.Email", "InvalidBatch : Duplicate column : Owner.Email"),
        ("Field name not found : Email", "Field name not found : Email"),
        ("Field name not found : Ema", f"Field name not found : {TEXT}"),
        ("Field name not found : Name.", "Field name not found : Name"),
        *(
            (f"{kind} : Records not processed", f"{kind} : Records not processed")
            for kind in (
                "ClientInputError",
                "ExceededQuota",
                "FeatureNotEnabled",
                "InvalidJob",
                "InvalidJobState",
                "InvalidOperation",
                "InvalidSessionId",
                "InvalidUrl",
                "InvalidUser",
                "InvalidXML",
                "MethodNotAllowed",
                "NotFound",
                "Timeout",
                "TooManyLockFailure",
                "Unknown",
            )
        ),
        ("Other : Records not processed", TEXT),
        ("LineEnding is invalid on user data. x", f"LineEnding is invalid on user data: {TEXT}"),
        ("Exceeded max field size: 1", f"Exceeded max field size: {TEXT}"),
        ("Unable to create/update fields: secret", f"Unable to create/update fields: {TEXT}"),
        ("secret", TEXT),
        ("secret : InvalidBatch : Records not processed", TEXT),
    ],
)
def test_what_is_said_of_a_whole_job_is_known_by_its_words(message: str, shown: str) -> None:
    assert of_job(message, ["Name", "Owner.Email"]) == shown


def test_no_value_comes_through_what_is_said_of_a_job() -> None:
    for value in HARD:
        for shape in ("InvalidBatch : {0}", "InvalidBatch : Failed to parse CSV. {0}", "Field name not found : {0}"):
            assert CANARY.lower() not in of_job(shape.replace("{0}", value), ["Name"]).lower()
