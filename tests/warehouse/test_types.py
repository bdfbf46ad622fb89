"""docs/values.md: every type of DuckDB and of Postgres, and what becomes of it, as a real database says.

DINMO_UPDATE_GOLDEN=1 writes the tables anew.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path

import duckdb
import pyarrow as pa

from dinmo_dbt.destination import Field
from dinmo_dbt.rows import values
from dinmo_dbt.rows.forms import type_name

from .conftest import Postgres, Project

PAGE = Path(__file__).parent.parent.parent / "docs" / "values.md"
FIELDS = {
    "text": "string",
    "choices": "multipicklist",
    "number": "double",
    "checkbox": "boolean",
    "date": "date",
    "date and time": "datetime",
    "time": "time",
}

# DuckDB's name of a type: a value of it.
DUCKDB = {
    "VARCHAR": "'a '",
    "ENUM": "'a'::enum('a', 'b')",
    "UUID": "uuid()",
    "JSON": """'["a"]'::json""",
    "BOOLEAN": "true",
    "TINYINT": "1::tinyint",
    "SMALLINT": "1::smallint",
    "INTEGER": "1::integer",
    "BIGINT": "1::bigint",
    "HUGEINT": "1::hugeint",
    "UTINYINT": "1::utinyint",
    "USMALLINT": "1::usmallint",
    "UINTEGER": "1::uinteger",
    "UBIGINT": "1::ubigint",
    "UHUGEINT": "1::uhugeint",
    "BIGNUM": "1::bignum",
    "DECIMAL": "1.5::decimal(9, 2)",
    "FLOAT": "0.1::float",
    "DOUBLE": "0.1::double",
    "DATE": "date '2024-01-31'",
    "TIME": "time '08:00:00'",
    "TIME_NS": "'08:00:00'::time_ns",
    "TIME WITH TIME ZONE": "timetz '08:00:00+02'",
    "TIMESTAMP": "timestamp '2024-01-31 08:00:00'",
    "TIMESTAMP_S": "'2024-01-31 08:00:00'::timestamp_s",
    "TIMESTAMP_MS": "'2024-01-31 08:00:00'::timestamp_ms",
    "TIMESTAMP_NS": "'2024-01-31 08:00:00'::timestamp_ns",
    "TIMESTAMP WITH TIME ZONE": "timestamptz '2024-01-31 08:00:00+02'",
    "TIMESTAMPTZ_NS": "'2024-01-31'::timestamptz_ns",
    "INTERVAL": "interval 1 day",
    "LIST": "['a', null]",
    "ARRAY": "array_value('a', 'b')",
    "LIST of lists": "[['a']]",
    "LIST of structs": "[{'a': 1}]",
    "STRUCT": "{'a': 1}",
    "MAP": "map {'a': 1}",
    "UNION": "union_value(a := 1)",
    "VARIANT": "'a'::variant",
    "BIT": "'0101'::bit",
    "BLOB": "'a'::blob",
    "GEOMETRY": "'POINT(1 1)'::geometry",
    "NULL": "null",
}
NO_COLUMN = {"TYPE", "TUPLE"}  # no column of a table has them: a tuple becomes a struct

# Postgres' name of a type (`format_type`): a value of it.
POSTGRES = {
    "text": "'a '",
    "character varying": "'a '::varchar(9)",
    "character": "'a'::char(9)",
    "name": "'a'::name",
    '"char"': "'a'::\"char\"",
    "uuid": "gen_random_uuid()",
    "boolean": "true",
    "smallint": "1::smallint",
    "integer": "1",
    "bigint": "1::bigint",
    "numeric": "1.5::numeric",
    "numeric(9,2)": "1.5::numeric(9, 2)",
    "real": "0.1::real",
    "double precision": "0.1::float8",
    "money": "1::money",
    "oid": "1::oid",
    "date": "date '2024-01-31'",
    "time without time zone": "time '08:00'",
    "time with time zone": "timetz '08:00:00+02'",
    "timestamp without time zone": "timestamp '2024-01-31 08:00'",
    "timestamp with time zone": "timestamptz '2024-01-31 08:00'",
    "interval": "interval '1 day'",
    "text[]": "array['a', null]",
    "integer[]": "array[1]",
    "array of a composite type": "array[row(1, 'a')::pair]",
    "an enum": "'a'::mood",
    "a composite type": "row(1, 'a')::pair",
    "json": "'[1]'::json",
    "jsonb": "'[1]'::jsonb",
    "jsonpath": "'$.a'::jsonpath",
    "xml": "null::xml",
    "bytea": "'a'::bytea",
    "bit": "B'1'::bit(1)",
    "bit varying": "B'1'::varbit",
    "inet": "'10.0.0.1'::inet",
    "cidr": "'10.0.0.0/8'::cidr",
    "macaddr": "'08:00:2b:01:02:03'::macaddr",
    "macaddr8": "'08:00:2b:01:02:03:04:05'::macaddr8",
    **{kind: f"null::{kind}" for kind in ("point", "line", "lseg", "box", "path", "polygon", "circle")},
    **{f"{kind}range": f"null::{kind}range" for kind in ("int4", "int8", "num", "date", "ts", "tstz")},
    **{f"{kind}multirange": f"null::{kind}multirange" for kind in ("int4", "int8", "num", "date", "ts", "tstz")},
    "tsvector": "'a'::tsvector",
    "tsquery": "'a'::tsquery",
}
# What the server itself keeps its catalog in: read as its text, as every type that is not named here.
OF_THE_CATALOG = re.compile(
    r"reg\w+|pg_\w+|xid8?|cid|tid|aclitem|int2vector|oidvector|refcursor|txid_snapshot|gtsvector"
)


def fate(column: pa.Field) -> str:
    """What it arrives as, and which fields it can feed."""
    feeds = [name for name, kind in FIELDS.items() if values.why_not(column.type, Field("F", "F", kind)) is None]
    arrives = type_name(pa.field(column.name, column.type))
    return f"{arrives} | {', '.join(feeds) if len(feeds) < len(FIELDS) else 'anything: it is null'}" if feeds else (
        f"{arrives} | nothing: `DB314`"
    )  # fmt: skip


def rows(columns: Iterable[tuple[str, pa.Field]]) -> str:
    head = "| type | arrives as | can feed |\n| --- | --- | --- |\n"
    return head + "\n".join(f"| `{name}` | {fate(column)} |" for name, column in columns)


def holds(name: str, table: str) -> None:
    """The page's table of that name is this one."""
    start, end = f"<!-- made by a test: {name} -->\n", "\n<!-- end -->"
    page = PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(start)
    written, _, after = rest.partition(end)
    if os.environ.get("DINMO_UPDATE_GOLDEN"):
        PAGE.write_text(before + start + table + end + after, encoding="utf-8")
    else:
        assert written == table


def test_every_type_of_duckdb_is_in_the_table(project: Project, fill: Callable[..., None]) -> None:
    there = {name for (name,) in duckdb.execute("select distinct logical_type from duckdb_types()").fetchall()}
    assert there - NO_COLUMN <= set(DUCKDB)
    names = dict(zip((f"c{number}" for number in range(len(DUCKDB))), DUCKDB, strict=True))
    asked = ", ".join(f"{DUCKDB[kind]} as {name}" for name, kind in names.items())
    fill(f"create view t as select {asked}")
    with project.connect() as warehouse:
        schema = warehouse.schema("t")
        (batch,) = warehouse.read("t", schema.names, None)
    assert batch.schema.types == schema.types
    holds("DuckDB", rows((names[column.name], column) for column in schema))


def test_every_type_of_postgres_is_in_the_table(project: Project, postgres: Postgres) -> None:
    import psycopg2

    postgres.run("drop schema public cascade", "create schema public")
    with psycopg2.connect(host="127.0.0.1", port=postgres.port, user="owner", password=postgres.password,
                          dbname=postgres.database) as connection, connection.cursor() as cursor:  # fmt: skip
        cursor.execute(
            "select format_type(oid, null) from pg_type where typtype in ('b', 'r', 'm') and typcategory <> 'A' "
            "and typnamespace = 'pg_catalog'::regnamespace"
        )
        there = {name for (name,) in cursor.fetchall()}
    assert not {name for name in there - set(POSTGRES) if not OF_THE_CATALOG.fullmatch(name)}
    postgres.run("create type mood as enum ('a', 'b')", "create type pair as (a integer, b text)")
    names = dict(zip((f"c{number}" for number in range(len(POSTGRES))), POSTGRES, strict=True))
    asked = ", ".join(f"{POSTGRES[kind]} as {name}" for name, kind in names.items())
    postgres.run(f"create view t as select {asked}")
    project.profiles({"dev": postgres.output()})
    with project.connect() as warehouse:
        schema = warehouse.schema("t")
        read = [column.name for column in schema if type_name(pa.field("c", column.type)) != "list"]
        (batch,) = warehouse.read("t", read, None)
    assert batch.schema.types == [schema.field(name).type for name in read]
    holds("Postgres", rows((names[column.name], column) for column in schema))
