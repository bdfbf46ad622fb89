"""Reading from a real Postgres server."""

from __future__ import annotations

import datetime as dt
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest

from dinmo_dbt.destination import Field
from dinmo_dbt.errors import DinmoError
from dinmo_dbt.rows import values
from dinmo_dbt.rows.arrow import plain
from dinmo_dbt.rows.forms import TYPE_IN_WAREHOUSE
from dinmo_dbt.rows.reasons import unreadable
from dinmo_dbt.warehouse import Connected, Warehouse
from dinmo_dbt.warehouse.query import rows_of

from .conftest import Postgres, Project


@pytest.fixture
def warehouse(project: Project, postgres: Postgres) -> Iterator[Warehouse]:
    postgres.run("drop schema public cascade", "create schema public")
    project.profiles({"dev": postgres.output()})
    with project.connect() as made:
        yield made


def refusal(call: Callable[[], object]) -> str:
    with pytest.raises(DinmoError) as caught:
        call()
    return str(caught.value)


def read(warehouse: Warehouse, relation: str, *columns: str, where: str | None = None) -> list[dict[str, object]]:
    return [row for batch in warehouse.read(relation, columns, where) for row in batch.to_pylist()]


def test_it_says_what_it_is_connected_to(warehouse: Warehouse, postgres: Postgres) -> None:
    assert warehouse.connected == Connected("postgres", "shop", "dev", "shop", "public")
    assert warehouse.ping().startswith("PostgreSQL ")
    assert warehouse.ping().endswith(f"127.0.0.1:{postgres.port}/shop")


def test_all_rows_come_in_batches_of_the_columns_asked(warehouse: Warehouse, postgres: Postgres) -> None:
    postgres.run("create table t as select i as a, i * 2 as b, 'é' || i as c from generate_series(0, 99999) i")
    batches = list(warehouse.read('"shop"."public"."t"', ["c", "a"], None))
    table = pa.Table.from_batches(batches)
    assert table.column_names == ["c", "a"]
    assert sorted(table["a"].to_pylist()) == list(range(100_000))
    assert max(batch.num_rows for batch in batches) <= 32_768
    assert warehouse.count("t", "a < 10") == 10
    assert warehouse.schema("t") == pa.schema({"a": pa.int32(), "b": pa.int32(), "c": pa.utf8()})


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("'a'::text", None),
        ("'a'::char(3)", None),
        ("'a'::mood", None),
        ("'a'::only_text", None),
        ("gen_random_uuid()", None),
        ("'[1]'::json", "json"),
        ("'[1]'::jsonb", "jsonb"),
        ("'10.0.0.1'::inet", "inet"),
        ("1::money", "money"),
        ("interval '1 hour'", "interval"),
        ("array[1, 2]", "integer[]"),
        ("'a'::text || '{}'::text[]", "text[]"),
        ("time with time zone '10:00+01'", "time with time zone"),
        ("row(1, 2)::pair", "pair"),
        ("1", None),
    ],
)
def test_what_is_written_in_a_way_of_its_own_has_its_type_s_name(
    warehouse: Warehouse, postgres: Postgres, value: str, name: str | None
) -> None:
    postgres.run("create type mood as enum ('a', 'b')", "create type pair as (x integer, y integer)")
    postgres.run("create domain only_text as text", f"create table t as select {value} as v, 1 as i")
    metadata = warehouse.schema("t").field("v").metadata
    assert metadata == (None if name is None else {TYPE_IN_WAREHOUSE: name.encode()})


def test_an_empty_result_has_no_batch(warehouse: Warehouse, postgres: Postgres) -> None:
    postgres.run("create table t (a integer)")
    assert list(warehouse.read("t", ["a"], None)) == []


def test_null_is_not_the_empty_text_and_a_lone_null_is_a_row(warehouse: Warehouse, postgres: Postgres) -> None:
    postgres.run(
        "create table t (i integer, a text)", "insert into t values (1, null), (2, ''), (3, null), (4, 'NULL')"
    )
    assert [row["a"] for row in read(warehouse, "t", "a")] == [None, "", None, "NULL"]
    assert [row["a"] for row in read(warehouse, "t", "a", where="a is null")] == [None, None]


NASTY = [
    "a,b",
    'say "hi"',
    "line\nbreak",
    "cr\r\nlf",
    "\\.",
    "\\N",
    "tab\t",
    "'",
    "😀 ünï",
    " padded ",
    "\ufeffbom",
    "{{ x }}",
]


def test_any_text_survives(warehouse: Warehouse, postgres: Postgres) -> None:
    literals = ", ".join(f"({index}, $x${text}$x$)" for index, text in enumerate(NASTY))
    postgres.run("create table t (i integer, a text)", f"insert into t values {literals}")
    rows = read(warehouse, "t", "i", "a")
    assert [row["a"] for row in sorted(rows, key=lambda row: row["i"])] == NASTY
    assert [row["a"] for row in read(warehouse, "t", "a")] == NASTY


LIST = pa.list_(pa.utf8())
TYPES = {
    "smallint": ("5::smallint", pa.int16(), 5),
    "bigint": ("9223372036854775807", pa.int64(), 9223372036854775807),
    "real": ("0.1::real", pa.float64(), 0.1),
    "double": ("1e300::float8 / 3", pa.float64(), 1e300 / 3),
    "decimal": ("12.30::numeric(12,2)", pa.decimal128(12, 2), Decimal("12.30")),
    "numeric": ("1.0 / 3", pa.decimal256(76, 38), Decimal("0.33333333333333333333")),
    "large numeric": ("12345678901234567890123456789.5", None, Decimal("12345678901234567890123456789.5")),
    "boolean": ("true", pa.bool_(), True),
    "false": ("false", pa.bool_(), False),
    "date": ("date '2024-01-31'", pa.date32(), dt.date(2024, 1, 31)),
    "timestamp": (
        "timestamp '2024-01-31 08:00:00.123456'",
        pa.timestamp("us"),
        dt.datetime(2024, 1, 31, 8, 0, 0, 123456),
    ),
    "zoned": (
        "timestamptz '2024-01-31 08:00:00+05:30'",
        pa.timestamp("us", "UTC"),
        dt.datetime(2024, 1, 31, 2, 30, tzinfo=dt.UTC),
    ),
    "time": ("time '08:00:01.5'", pa.time64("us"), dt.time(8, 0, 1, 500_000)),
    "uuid": ("'8a1b2c3d-0000-4000-8000-000000000001'::uuid", pa.utf8(), "8a1b2c3d-0000-4000-8000-000000000001"),
    "json": ("""'{"a": [1]}'::json""", pa.utf8(), '{"a": [1]}'),
    "json string": ("""'"a \\"b\\""'::json""", pa.utf8(), 'a "b"'),
    "jsonb string": ("""'"a"'::jsonb""", pa.utf8(), "a"),
    "json null": ("'null'::json", pa.utf8(), None),
    "jsonb null": ("'null'::jsonb", pa.utf8(), None),
    "json number": ("'1.50'::json", pa.utf8(), "1.50"),
    "json array": ("""'["a",  null]'::json""", pa.utf8(), '["a",  null]'),
    "array": ("array['a', null, 'b c;\"d']", LIST, ["a", None, 'b c;"d']),
    "array of numbers": ("array[1.50, null]", LIST, ["1.50", None]),
    "array of booleans": ("array[true]", LIST, ["true"]),
    "array of dates": ("array[date '2024-01-31']", LIST, ["2024-01-31"]),
    "array of characters": ("array['a', 'bc']::char(9)[]", LIST, ["a", "bc"]),
    "array of json": (
        """array['"a; \\"b\\""', 'null', '1.50', 'true', null]::json[]""",
        LIST,
        ['a; "b"', None, "1.50", "true", None],
    ),
    "array of jsonb": ("""array['"a"', '2']::jsonb[]""", LIST, ["a", "2"]),
    "empty array of json": ("'{}'::json[]", LIST, []),
    "empty array": ("'{}'::text[]", LIST, []),
    "money": ("'1234.5'::money", pa.decimal256(76, 38), Decimal("1234.50")),
    "character": ("'AB '::char(20)", pa.utf8(), "AB"),
    "character that begins with blanks": ("'  AB'::char(20)", pa.utf8(), "  AB"),
    "no number": ("'NaN'::float8", pa.float64(), pytest.approx(float("nan"), nan_ok=True)),
    "infinite": ("'-Infinity'::float8", pa.float64(), float("-inf")),
    "time with a zone": ("timetz '08:00:00+05:30'", pa.utf8(), "08:00:00+05:30"),
    "interval": ("interval '1 day'", pa.utf8(), "1 day"),
    "bytea": ("'\\xdeadbeef'::bytea", pa.binary(), b"\xde\xad\xbe\xef"),
    "varchar": ("'x'::varchar(10)", pa.utf8(), "x"),
}


@pytest.mark.parametrize("name", TYPES)
def test_each_type_is_exact(warehouse: Warehouse, postgres: Postgres, name: str) -> None:
    expression, kind, value = TYPES[name]
    postgres.run(f"create table t as select {expression} as v", "insert into t values (null)")
    column = warehouse.schema("t").field("v")
    assert kind is None or column.type == kind
    assert sorted(read(warehouse, "t", "v"), key=str) == sorted([{"v": value}, {"v": None}], key=str)
    assert [batch.schema.field("v") for batch in warehouse.read("t", ["v"], None)] == [column]


ODD = {
    "date '0044-03-15 BC'": "date",
    "date 'infinity'": "date",
    "timestamp '12024-01-01'": "datetime",
    "timestamptz '-infinity'": "datetime",
    "'NaN'::numeric": "double",
    "'-Infinity'::numeric": "double",
    "1e50::numeric": "double",
    "('0.' || repeat('0', 45) || '1')::numeric": "double",
    "'NaN'::numeric(12, 2)": "double",
    "'Infinity'::float4": "double",
    "time '24:00'": "time",
    "array[array['a']]": "multipicklist",
    "array['[1]']::json[]": "multipicklist",
    "array['{\"a\": 1}']::jsonb[]": "multipicklist",
    "array[array['1']]::json[]": "multipicklist",
    "date '-infinity' ": "string",
    "timestamp 'infinity' ": "string",
    "date '0044-03-15 BC' ": "string",
    "time '24:00' ": "string",
    "'NaN'::numeric ": "string",
    "'NaN'::float8 ": "string",
    "1e50::numeric ": "string",
}


@pytest.mark.parametrize("expression", ODD)
def test_a_value_arrow_has_no_form_for_makes_one_invalid_row(
    warehouse: Warehouse, postgres: Postgres, expression: str
) -> None:
    postgres.run(f"create table t as select 1 as i, {expression} as v union all select 2, null")
    (batch,) = warehouse.read("t", ["i", "v"], None)
    assert refused(batch, ODD[expression]) == {1: True, 2: False}


def refused(batch: pa.RecordBatch, kind: str) -> dict[int, bool]:
    """Whether the row of each `i` can't be sent for its `v`."""
    canonical, unfit = values.canonical(batch.column("v"), Field(name="F", label="F", type=kind))
    reasons = [each for each in (unreadable(batch, "v"), unfit) if each is not None]
    bad = [any(reason[row] for reason in reasons) for row in range(batch.num_rows)]
    assert all(canonical[row].as_py() is None for row in range(batch.num_rows) if bad[row])
    return dict(zip(batch.column("i").to_pylist(), bad, strict=True))


def test_an_offset_with_seconds_is_read(warehouse: Warehouse, postgres: Postgres, project: Project) -> None:
    postgres.run("create table t as select timestamptz '1900-01-01 00:00:00+00' as v")
    postgres.run("alter role owner set timezone = 'Europe/Paris'")
    try:
        with project.connect() as paris:
            assert read(paris, "t", "v") == [{"v": dt.datetime(1900, 1, 1, tzinfo=dt.UTC)}]
            # The session's zone is the user's: conditions and views keep their meaning.
            assert paris.count("t", "v::time = '00:09:21'") == 1
    finally:
        postgres.run("alter role owner reset timezone")


def test_a_role_s_styles_do_not_reach_us(warehouse: Warehouse, postgres: Postgres, project: Project) -> None:
    postgres.run("create table t as select date '2024-01-31' as d, 1.0::float8 / 3 as f, '\\x00ff'::bytea as b")
    postgres.run("alter table t add i interval default '1 day 2 hours', add l interval[] default '{1 day}'")
    intervals = {"i": "1 day 02:00:00", "l": ["1 day"]}
    postgres.run("alter role owner set datestyle = 'SQL, DMY'", "alter role owner set extra_float_digits = 0")
    postgres.run("alter role owner set bytea_output = 'escape'", "alter role owner set intervalstyle = 'iso_8601'")
    try:
        with project.connect() as other:
            plain = {"d": dt.date(2024, 1, 31), "f": 1 / 3, "b": b"\x00\xff"}
            assert read(other, "t", "d", "f", "b", "i", "l") == [plain | intervals]
            assert other.count("t", "d = '31/01/2024'") == 1
    finally:
        postgres.run("alter role owner reset all")


def test_bytes_that_are_no_text_make_one_invalid_row(project: Project, postgres: Postgres) -> None:
    """A database in SQL_ASCII takes any."""
    postgres.run("drop database if exists bytes", "create database bytes encoding 'SQL_ASCII' template template0")
    ascii_only = Postgres(postgres.port, postgres.password, "bytes")
    ascii_only.run("create table t (i int, v text, other text)")
    for row in ("1, {}('\\xc3a9ff', 'SQL_ASCII'), {}('\\xc3a9', 'SQL_ASCII')", "2, {}('\\xc3a9', 'SQL_ASCII'), 'x'"):
        ascii_only.run(f"insert into t values ({row.replace('{}', 'convert_from')})")
    project.profiles({"dev": ascii_only.output()})
    with project.connect() as other:
        (batch,) = other.read("t", ["i", "v", "other"], None)
    assert refused(batch, "string") == {1: True, 2: False}
    assert batch.column("other").to_pylist() == ["é", "x"]
    postgres.run("drop database bytes")


def test_a_row_of_many_megabytes_is_one_row(warehouse: Warehouse, postgres: Postgres) -> None:
    postgres.run("create table t as select i, case i when 2 then repeat('x', 20000000) else 'é' end as v "
                 "from generate_series(1, 3) i")  # fmt: skip
    lengths = [len(row["v"]) for row in sorted(read(warehouse, "t", "i", "v"), key=lambda row: row["i"])]
    assert lengths == [1, 20_000_000, 1]


def test_an_array_of_structs_is_refused_by_its_type(warehouse: Warehouse, postgres: Postgres) -> None:
    postgres.run("create type pair as (a int, b text)", "create table t as select array[row(1, 'x')::pair] as v")
    kind = warehouse.schema("t").field("v").type
    assert values.why_not(kind, Field(name="F", label="F", type="multipicklist"))


@pytest.mark.parametrize("name", ['a"b', 'x"; drop table t; --', "sp ace", "select", "Ünï", "100%", "it's", "%s"])
def test_any_column_name_is_only_a_name(warehouse: Warehouse, postgres: Postgres, name: str) -> None:
    quoted = '"' + name.replace('"', '""') + '"'
    postgres.run(f"create table t as select 1 as {quoted}")
    assert warehouse.schema("t").names == [name]
    assert read(warehouse, "t", name, where=f"{quoted} = 1 -- 100%") == [{name: 1}]


def test_a_condition_can_t_write(warehouse: Warehouse, postgres: Postgres) -> None:
    postgres.run("create table t as select 1 as a")
    for attack in ("true); delete from t; select (1", "true); commit; delete from t; select (1"):
        assert refusal(lambda attack=attack: warehouse.count("t", attack)).startswith("DB710")
        assert refusal(lambda attack=attack: warehouse.read("t", ["a"], attack)).startswith("DB710")
        assert warehouse.count("t", None) == 1


def test_a_view_can_t_write_either(warehouse: Warehouse, postgres: Postgres) -> None:
    postgres.run(
        "create table t as select 1 as a", "create sequence s", "create view v as select nextval('s') as a from t"
    )
    said = refusal(lambda: list(warehouse.read("v", ["a"], None)))
    assert said.startswith("DB710")
    assert "read-only transaction" in said


def test_a_missing_relation_says_so(warehouse: Warehouse) -> None:
    for name in ('"shop"."public"."nope"', '"nope"."t"'):
        said = refusal(lambda name=name: warehouse.schema(name))
        assert said.startswith(f"DB702 {name} can't be found")
        assert "was it built in target 'dev'?" in said
    assert refusal(lambda: warehouse.read("nope", ["a"], None)).startswith("DB702")


def test_a_relation_that_is_missing_in_the_condition_is_not_taken_for_the_model(warehouse: Warehouse) -> None:
    said = refusal(lambda: warehouse.count("pg_catalog.pg_class", "oid in (select oid from gone)"))
    assert said.startswith("DB702 a relation that the condition on pg_catalog.pg_class names can't be found")


def test_a_role_that_may_not_read_is_reported(warehouse: Warehouse, postgres: Postgres, project: Project) -> None:
    postgres.run("create table t as select 1 as a", "drop role if exists guest", "create role guest login password 'x'")
    postgres.run("grant usage on schema public to guest")
    project.profiles({"dev": postgres.output(user="guest", password="x")})
    try:
        with project.connect() as guest:
            said = refusal(lambda: guest.schema("t"))
        assert said.startswith("DB709 no permission to read t")
        assert "grant select" in said
    finally:
        postgres.run("drop owned by guest", "drop role guest")


def test_the_profile_s_role_holds(warehouse: Warehouse, postgres: Postgres, project: Project) -> None:
    postgres.run("create table t as select 1 as a", "drop role if exists reader", "create role reader")
    project.profiles({"dev": postgres.output(role="reader")})
    try:
        with project.connect() as reader:
            for _ in range(2):
                assert refusal(lambda: reader.count("public.t", None)).startswith("DB709")
    finally:
        postgres.run("drop role reader")


def test_errors_in_the_condition_show_it_and_no_row_value(warehouse: Warehouse, postgres: Postgres) -> None:
    postgres.run(
        "create table t as select case when i = 90000 then 'secret' else '1' end as a from generate_series(1, 100000) i"
    )
    said = refusal(lambda: warehouse.count("t", "nope = 1"))
    assert said.startswith("DB710")
    assert "there is no column nope, at `nope` in the condition" in said
    said = refusal(lambda: list(warehouse.read("t", ["a"], "a::integer > 0")))
    assert said.startswith("DB710")
    assert "secret" not in said
    assert "(22P02): a value can't be read as integer: ‹text›" in said
    assert warehouse.count("t", None) == 100_000


def test_a_lost_server_connection_in_the_middle_is_an_error_not_an_end(
    warehouse: Warehouse, postgres: Postgres
) -> None:
    # The last rows never come, however far Arrow reads ahead of us.
    postgres.run(
        "create view t as select i as a, case i when 499999 then pg_sleep(600)::text else repeat('x', 200) end as b "
        "from generate_series(1, 500000) i",
        "create table u as select 1 as a",
    )
    # Several times: psycopg2 tells it in more than one way.
    for _ in range(5):
        rows = warehouse.read("t", ["a", "b"], None)
        next(rows)
        postgres.run("select pg_terminate_backend(pid) from pg_stat_activity where query ilike 'copy%'")
        assert refusal(lambda rows=rows: list(rows)).startswith("DB712")
    assert warehouse.count("u", None) == 1


def test_a_read_left_unfinished_is_cancelled(warehouse: Warehouse, postgres: Postgres) -> None:
    postgres.run("create table t as select i as a, repeat('x', 200) as b from generate_series(1, 500000) i")
    rows = warehouse.read("t", ["a", "b"], None)
    next(rows)
    rows.close()
    never_started = warehouse.read("t", ["a"], None)
    assert warehouse.count("t", None) == 500_000
    warehouse.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "postgres-copy"]
    del never_started


def test_several_reads_at_once(warehouse: Warehouse, postgres: Postgres) -> None:
    postgres.run("create table t as select i as a from generate_series(1, 200000) i")
    pairs = zip(warehouse.read("t", ["a"], None), warehouse.read("t", ["a"], None), strict=True)
    assert sum(one.num_rows + other.num_rows for one, other in pairs) == 400_000


def test_a_refused_connection_and_a_wrong_password_are_reported_without_it(
    project: Project, postgres: Postgres
) -> None:
    project.profiles({"dev": postgres.output(port=1, connect_timeout=2, retries=0)})
    said = refusal(project.connect)
    assert said.startswith("DB707")
    assert "Connection refused" in said
    project.profiles({"dev": postgres.output(password="hunter2-wrong", retries=0)})
    said = refusal(project.connect)
    assert said.startswith("DB707")
    assert "password authentication failed" in said
    assert "hunter2" not in said


def test_a_password_that_looks_like_a_number_is_text_and_never_shown(project: Project, postgres: Postgres) -> None:
    project.profiles({"dev": postgres.output(password="{{ env_var('DBT_ENV_SECRET_PW') }}", retries=0)})
    said = refusal(lambda: project.connect(DBT_ENV_SECRET_PW="0123456"))
    assert "password authentication failed" in said
    assert "0123456" not in said
    project.profiles({"dev": postgres.output(password=123456)})
    assert "123456" not in refusal(project.connect)


@pytest.mark.slow
def test_700_000_rows_of_half_a_kilobyte_pass_through_a_bounded_memory(
    warehouse: Warehouse, postgres: Postgres, project: Project
) -> None:
    postgres.run("create unlogged table t as select i as a, repeat('x', 500) as b from generate_series(1, 700000) i")
    script = (
        "import sys, pathlib; from dinmo_dbt.warehouse import connect\n"
        "sys.path.append(sys.argv[2]); from peak import peak_bytes\n"
        "with connect(pathlib.Path(sys.argv[1]), profiles_dir=None, profile=None, target=None, vars={}, env={}) as w:\n"
        "    before = peak_bytes()\n"
        "    rows = total = 0\n"
        "    for batch in w.read('t', ['a', 'b'], None):\n"
        "        rows += batch.num_rows; total += batch.get_total_buffer_size()\n"
        "    print(rows, total >> 20, (peak_bytes() - before) >> 20)\n"
    )
    command = [sys.executable, "-c", script, str(project.folder), str(Path(__file__).parent.parent)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows, megabytes, grown = map(int, done.stdout.split())
    assert rows == 700_000
    assert megabytes > 330
    assert grown < 200


def test_schemas_that_have_certain_tables_are_found(warehouse: Warehouse, postgres: Postgres) -> None:
    postgres.run("drop schema if exists other cascade", "create schema other", "create table other.kept (a text)")
    postgres.run("create table other.moved (a text)", "create table public.kept (a text)")
    tables = warehouse.tables("not_there")
    assert (tables.schemas_with(["kept", "moved"]), tables.schemas_with(["kept"])) == (["other"], ["other", "public"])
    postgres.run("drop schema other cascade", "drop table public.kept")


HELD = {
    "varchar": ["it's", "a\tb", "\\", "\u00a0 é"],
    "char(4)": ["ab"],
    "integer": [7],
    "numeric": ["12345678901234567890123456789.5", "7.00"],
    "numeric(9, 2)": ["7.10"],
    "uuid": ["11111111-2222-3333-4444-555555555555"],
    "date": ["2024-01-31"],
    "timestamp": ["2024-01-31 08:00:00.123456"],
    "timestamptz": ["2024-01-31 08:00:00.123456+02"],
    "double precision": ["0.1"],
}


@pytest.mark.parametrize("kind", HELD)
def test_a_query_for_rows_finds_them_by_what_was_read_of_them(
    kind: str, warehouse: Warehouse, postgres: Postgres
) -> None:
    quoted = [str(value).replace("'", "''") for value in HELD[kind]]
    postgres.run(f"create table t (a {kind})", *(f"insert into t values ('{value}')" for value in quoted))
    postgres.run("insert into t values (null)")
    for batch in warehouse.read("t", ["a"], None):
        for held in plain(batch["a"]).to_pylist():
            assert warehouse.count("t", rows_of(["a"], [(held,)], "postgres")) == 1, held
