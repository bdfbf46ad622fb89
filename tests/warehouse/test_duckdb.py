"""Reading from real DuckDB files."""

from __future__ import annotations

import datetime as dt
import os
import subprocess
import sys
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from dinmo_dbt.destination import Field
from dinmo_dbt.errors import ConfigError, DinmoError, WarehouseError
from dinmo_dbt.rows import values
from dinmo_dbt.rows.reasons import Reason, unreadable
from dinmo_dbt.warehouse import Connected
from dinmo_dbt.warehouse import duckdb as reader

from .conftest import Project

Fill = Callable[..., None]
HOLD_FILE = (
    "import duckdb, sys, time\n"
    "connection = duckdb.connect(sys.argv[1])\n"
    "print('held', flush=True)\n"
    "time.sleep(float(sys.argv[2]))\n"
)


def hold(project: Project, seconds: float) -> subprocess.Popen[str]:
    """Another process that has the file open for writing."""
    command = [sys.executable, "-c", HOLD_FILE, str(project.folder / "warehouse.duckdb"), str(seconds)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


@pytest.fixture(autouse=True, params=["by itself", "by dbt"])
def opened(request: pytest.FixtureRequest) -> str:
    """How the file is opened: alike for all that is seen of it."""
    if request.param == "by dbt":
        request.getfixturevalue("by_dbt")
    return str(request.param)


def refusal(call: Callable[[], object]) -> str:
    with pytest.raises(DinmoError) as caught:
        call()
    return str(caught.value)


def test_it_says_what_it_is_connected_to(project: Project, fill: Fill) -> None:
    fill("create table t as select 1 as a")
    with project.connect() as warehouse:
        assert warehouse.connected == Connected("duckdb", "shop", "dev", "warehouse", "main")
        assert warehouse.profiles_file == project.folder / "profiles.yml"
        assert warehouse.ping().startswith("DuckDB v")
        assert warehouse.ping().endswith("warehouse.duckdb (read-only)")


def test_rows_come_in_the_columns_and_order_asked(project: Project, fill: Fill) -> None:
    fill("create table t as select i as a, i * 2 as b, 'é' || i as c from range(100000) r(i)")
    with project.connect() as warehouse:
        batches = list(warehouse.read('"warehouse"."main"."t"', ["c", "a"], None))
        assert warehouse.count("t", None) == 100_000
    table = pa.Table.from_batches(batches)
    assert table.column_names == ["c", "a"]
    assert max(batch.num_rows for batch in batches) <= 32_768
    assert sorted(table["a"].to_pylist()) == list(range(100_000))
    assert table["c"][7].as_py() == f"é{table['a'][7].as_py()}"


def test_the_schema_keeps_each_name_s_case_and_the_order(project: Project, fill: Fill) -> None:
    fill('create table t ("CamelCase" integer, "snake" varchar, "née" date, "with space" boolean)')
    with project.connect() as warehouse:
        assert warehouse.schema("t") == pa.schema(
            {"CamelCase": pa.int32(), "snake": pa.utf8(), "née": pa.date32(), "with space": pa.bool_()}
        )
        assert list(warehouse.read("t", ["née"], None)) == []


@pytest.mark.parametrize("name", ['a"b', 'x"; drop table t; --', "sp ace", "select", "ünï 😀", "it's", "`b`", "[c]"])
def test_any_column_name_is_only_a_name(project: Project, fill: Fill, name: str) -> None:
    quoted = '"' + name.replace('"', '""') + '"'
    fill(f"create table t as select 1 as {quoted}")
    with project.connect() as warehouse:
        assert warehouse.schema("t").names == [name]
        assert [batch.to_pylist() for batch in warehouse.read("t", [name], None)] == [[{name: 1}]]


def test_a_relation_s_odd_name_is_taken_verbatim(project: Project, fill: Fill) -> None:
    fill('create table "t""; drop table u; --" as select 1 as a', "create table u as select 2 as a")
    with project.connect() as warehouse:
        assert warehouse.count('"t""; drop table u; --"', None) == 1
        assert warehouse.count("u", None) == 1


@pytest.mark.parametrize(
    ("where", "rows"),
    [(None, 10), ("", 10), ("a < 3", 3), ("a < 3 or a = 9", 4), ("a < 3 -- not more", 3), ("b = 'x''y'", 1)],
)
def test_a_condition_filters(project: Project, fill: Fill, where: str | None, rows: int) -> None:
    fill("create table t as select i as a, case when i = 4 then 'x''y' end as b from range(10) r(i)")
    with project.connect() as warehouse:
        assert warehouse.count("t", where) == rows
        assert sum(batch.num_rows for batch in warehouse.read("t", ["a"], where)) == rows


def test_a_condition_can_t_add_a_statement_or_write(project: Project, fill: Fill) -> None:
    fill("create table t as select 1 as a")
    with project.connect() as warehouse:
        said = refusal(lambda: warehouse.count("t", "true); drop table t; select (1"))
        assert said.startswith("DB710")
        assert "semicolon" in said
        assert warehouse.count("t", None) == 1


def test_views_are_read_and_a_path_in_one_means_the_project_s_folder(
    project: Project, fill: Fill, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project.folder)
    duckdb.sql("select 5 as z").write_parquet("plans.parquet")
    fill("create view v as select z + 1 as z from read_parquet('plans.parquet')")
    monkeypatch.chdir(tmp_path)
    with project.connect() as warehouse:
        assert warehouse.count("v", "z = 6") == 1
    assert Path.cwd() == tmp_path


WIDE = pa.decimal256(76, 0)
TYPES = {
    "json string": ("""'"a \\"b\\""'::json""", pa.utf8(), 'a "b"'),
    "json number": ("'1.50'::json", pa.utf8(), "1.50"),
    "json array": ("""'["a",  null]'::json""", pa.utf8(), '["a",  null]'),
    "list of json": (
        """['"a; \\"b\\""', 'null', '1.50', 'true']::json[]""",
        pa.list_(pa.utf8()),
        ['a; "b"', None, "1.50", "true"],
    ),
    "array of json": ("""['"a"', '2']::json[2]""", pa.list_(pa.utf8()), ["a", "2"]),
    "hugeint": ("(i * 1e20)::hugeint", pa.decimal128(38, 0), Decimal(3 * 10**20)),
    "sum": ("(select sum(x) from range(4) s(x))", pa.decimal128(38, 0), Decimal(6)),
    "decimal": ("12.34::decimal(10,2)", pa.decimal128(10, 2), Decimal("12.34")),
    "uuid": ("'8a1b2c3d-0000-4000-8000-000000000001'::uuid", pa.utf8(), "8a1b2c3d-0000-4000-8000-000000000001"),
    "enum": ("'b'::enum('a', 'b')", pa.dictionary(pa.uint8(), pa.utf8()), "b"),
    "list": ("[1, 2]", pa.list_(pa.int32()), [1, 2]),
    "struct": ("{'x': 1}", pa.struct({"x": pa.int32()}), {"x": 1}),
    "second": ("timestamp_s '2024-01-31 08:00:00'", pa.timestamp("s"), dt.datetime(2024, 1, 31, 8)),
    "milli": ("timestamp_ms '2024-01-31 08:00:00.5'", pa.timestamp("ms"), dt.datetime(2024, 1, 31, 8, 0, 0, 500_000)),
    "micro": ("timestamp '2024-01-31 08:00:00'", pa.timestamp("us"), dt.datetime(2024, 1, 31, 8)),
    "nano": ("timestamp_ns '2024-01-31 08:00:00'", pa.timestamp("ns"), None),
    "zoned": ("timestamptz '2024-01-31 08:00:00+02'", None, dt.datetime(2024, 1, 31, 6, tzinfo=dt.UTC)),
    "date": ("date '2024-01-31'", pa.date32(), dt.date(2024, 1, 31)),
    "time": ("time '08:00:01'", pa.time64("us"), dt.time(8, 0, 1)),
    "real": ("1.5::float", pa.float32(), 1.5),
    "null": ("null", None, None),
    "time with a zone": ("timetz '08:00:00+05:30'", pa.utf8(), "08:00:00+05:30"),
    "unsigned hugeint": ("340282366920938463463374607431768211455::uhugeint", WIDE, Decimal(2**128 - 1)),
    "bignum": ("(repeat('9', 76))::bignum", WIDE, Decimal("9" * 76)),
    "bit": ("'0101'::bit", pa.utf8(), "0101"),
}
# A list of them, as the choices that it is.
LISTS = {
    "[timetz '08:00:00+05:30', null]": "08:00:00+05:30",
    "[5::uhugeint]": "5",
    "[1.50::decimal(9, 2), null]": "1.50",
    "[0.1::float]": "0.1",
    "array_value('a', 'b')": "a;b",
    "['b'::enum('a', 'b')]": "b",
    "[null]": None,
    "[]": None,
    "null::varchar[]": None,
}


@pytest.mark.parametrize("expression", LISTS)
def test_lists_are_choices(project: Project, fill: Fill, expression: str) -> None:
    fill(f"create table t as select {expression} as v")
    tags = Field(name="F", label="F", type="multipicklist")
    with project.connect() as warehouse:
        assert values.why_not(warehouse.schema("t").field("v").type, tags) is None
        (batch,) = warehouse.read("t", ["v"], None)
    assert values.canonical(batch.column("v"), tags)[0].to_pylist() == [LISTS[expression]]


def test_a_number_of_more_digits_than_arrow_has_leaves_its_row_out(project: Project, fill: Fill) -> None:
    fill("create table t as select * from (values (1::bignum), (repeat('9', 77)::bignum), (null)) t(v)")
    with project.connect() as warehouse:
        (batch,) = warehouse.read("t", ["v"], "true")
        assert warehouse.schema("t").field("v").type == batch.schema.field("v").type
    assert batch.column("v").to_pylist() == [1, None, None]
    assert unreadable(batch, "v").tolist() == [0, Reason.UNREADABLE, 0]


def test_null_in_json_is_null(project: Project, fill: Fill) -> None:
    fill("create table t as select 'null'::json as v")
    with project.connect() as warehouse:
        (batch,) = warehouse.read("t", ["v"], None)
    assert batch.column("v").to_pylist() == [None]


@pytest.mark.parametrize("name", TYPES)
def test_each_type_comes_out_as_one_that_values_takes_or_refuses_by_type(
    project: Project, fill: Fill, name: str
) -> None:
    expression, kind, value = TYPES[name]
    fill(f"create table t as select i, {expression} as v from (select 3 as i)")
    with project.connect() as warehouse:
        schema = warehouse.schema("t")
        (batch,) = warehouse.read("t", ["v"], None)
    assert kind is None or schema.field("v").type == kind
    assert batch.schema.field("v").type == schema.field("v").type
    if value is not None:
        assert batch.column("v").to_pylist() == [value]
    field = Field(name="F", label="F", type="string", length=255)
    refused = values.why_not(schema.field("v").type, field)
    if refused is None:
        sent, reasons = values.canonical(batch.column("v"), field)
        assert len(sent) == 1
        assert reasons is None
    else:
        assert name in ("list", "struct", "list of json", "array of json")


def test_infinite_dates_and_the_widest_integers_arrive_and_are_invalid(project: Project, fill: Fill) -> None:
    fill(
        "create table t as select date 'infinity' as d, timestamp '-infinity' as t,"
        " 170141183460469231731687303715884105727::hugeint as h"
    )
    with project.connect() as warehouse:
        (batch,) = warehouse.read("t", ["d", "t", "h"], None)
    for column, kind in (("d", "date"), ("t", "datetime"), ("h", "double")):
        _, reasons = values.canonical(batch.column(column), Field(name="F", label="F", type=kind))
        assert reasons is not None
        assert reasons[0]


def test_a_missing_relation_says_so(project: Project, fill: Fill) -> None:
    fill("create table t as select 1 as a")
    with project.connect() as warehouse:
        for name in ("nope", '"warehouse"."other"."t"', '"elsewhere"."main"."t"'):
            said = refusal(lambda name=name: warehouse.schema(name))
            assert said.startswith(f"DB702 {name} can't be found")
            assert "was it built in target 'dev'?" in said


def test_a_relation_that_is_missing_in_the_condition_is_not_taken_for_the_model(project: Project, fill: Fill) -> None:
    fill("create table t as select 1 as a")
    where = "a in (select a from gone)"
    with project.connect() as warehouse:
        for ask in (lambda: list(warehouse.read("t", ["a"], where)), lambda: warehouse.count("t", where)):
            said = refusal(ask)
            assert said.startswith("DB702 a relation that the condition on t names can't be found")
            assert where in said
        assert refusal(lambda: warehouse.count("nope", "a = 1")).startswith("DB702 nope can't be found")


def test_a_python_variable_is_not_a_relation(project: Project, fill: Fill) -> None:
    fill("create table t as select 1 as a")
    frame = pa.table({"a": [1]})
    with project.connect() as warehouse:
        assert refusal(lambda: warehouse.schema("frame")).startswith("DB702")
    assert frame.num_rows == 1


def test_errors_in_the_condition_show_it_and_no_row_value(project: Project, fill: Fill) -> None:
    fill(
        "create table t as select case when i = 90000 then 'secret@acme.com' else '1' end as a from range(100000) r(i)"
    )
    with project.connect() as warehouse:
        said = refusal(lambda: warehouse.count("t", "nope = 1"))
        assert said.startswith("DB710")
        assert "nope" in said
        assert "the segment: nope = 1" in said
        assert "LINE 1" not in said
        said = refusal(lambda: list(warehouse.read("t", ["a"], "cast(a as integer) = 1")))
        assert said.startswith("DB710")
        assert "secret" not in said
        assert "Conversion Error: a value can't be read as int32, in column a, at `cast(a as integer)`" in said
        assert "\n" not in said.split("\n    ")[0]


def test_a_value_error_in_a_late_batch_is_reported_without_the_value(project: Project, fill: Fill) -> None:
    fill(
        "create table t as select case when i = 900000 then 'secret' else '1' end as a from range(1000000) r(i)",
        "create view v as select cast(a as integer) as a from t",
    )
    with project.connect() as warehouse:
        said = refusal(lambda: list(warehouse.read("v", ["a"], None)))
    assert said.startswith("DB710")
    assert "secret" not in said


def test_a_missing_file_is_not_created(project: Project) -> None:
    said = refusal(project.connect)
    assert said.startswith("DB707")
    assert "database does not exist" in said
    assert "dbt build" in said
    assert not (project.folder / "warehouse.duckdb").exists()


def test_a_file_that_is_no_database_and_one_without_permission(project: Project, tmp_path: Path) -> None:
    (project.folder / "warehouse.duckdb").write_text("not a database " * 100)
    said = refusal(project.connect)
    assert said.startswith("DB707")
    assert "not a valid DuckDB database" in said


def test_close_lets_another_process_write_even_with_a_read_unfinished(project: Project, fill: Fill) -> None:
    fill("create table t as select i as a from range(1000000) r(i)")
    warehouse = project.connect()
    rows = warehouse.read("t", ["a"], None)
    assert next(rows).num_rows > 0
    warehouse.close()
    hold(project, 0).wait(30)
    warehouse.close()


@pytest.mark.slow
def test_two_processes_read_at_once(project: Project, fill: Fill) -> None:
    fill("create table t as select 1 as a")
    script = (
        "import sys, pathlib; from dinmo_dbt.warehouse import connect\n"
        "with connect(pathlib.Path(sys.argv[1]), profiles_dir=None, profile=None, target=None, vars={}, env={}) as w:\n"
        "    print(w.count('t', None), flush=True); sys.stdin.readline(); print(w.count('t', None))\n"
    )
    command = [sys.executable, "-c", script, str(project.folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "1\n"
        with project.connect() as warehouse:
            assert warehouse.count("t", None) == 1
        assert other.communicate("\n")[0] == "1\n"


def test_a_lock_is_waited_for(project: Project, fill: Fill, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "LOCK_WAIT_S", 120)
    fill("create table t as select 1 as a")
    holder = hold(project, 3)
    with project.connect() as warehouse:
        assert warehouse.count("t", None) == 1
    holder.wait(30)


def test_a_lock_that_stays_names_its_process(project: Project, fill: Fill, monkeypatch: pytest.MonkeyPatch) -> None:
    fill("create table t as select 1 as a")
    monkeypatch.setattr(reader, "LOCK_WAIT_S", 0.5)
    holder = hold(project, 600)  # longer than a test may take
    try:
        said = refusal(project.connect)
        assert said.startswith("DB708")
        assert f"process {holder.pid}" in said
    finally:
        holder.terminate()
        holder.wait(30)


def test_a_file_already_open_for_writing_in_this_process_is_read_too(project: Project, fill: Fill) -> None:
    fill("create table t as select 1 as a")
    with duckdb.connect(str(project.folder / "warehouse.duckdb")), project.connect() as warehouse:
        assert warehouse.count("t", None) == 1
        assert "read-write: " in warehouse.ping()


def test_two_targets_are_open_at_once(project: Project, fill: Fill) -> None:
    fill("create table t as select 1 as a")
    with duckdb.connect(str(project.folder / "two.duckdb")) as other:
        other.execute("create table t as select 1 as a union all select 2")
    project.profiles(
        {"dev": {"type": "duckdb", "path": "warehouse.duckdb"}, "two": {"type": "duckdb", "path": "two.duckdb"}}
    )
    with project.connect() as first, project.connect(target="two") as second:
        assert (first.count("t", None), second.count("t", None), first.count("t", None)) == (1, 2, 1)


def test_the_profile_s_settings_and_attached_files_hold(project: Project, fill: Fill) -> None:
    fill("create table t as select timestamptz '2024-01-31 23:30:00+00' as moment")
    with duckdb.connect(str(project.folder / "crm.duckdb")) as other:
        other.execute("create table u as select 7 as a")
    output = {
        "type": "duckdb",
        "path": "warehouse.duckdb",
        "settings": {"TimeZone": "Europe/Paris"},
        "attach": [{"path": "crm.duckdb"}],
    }
    project.profiles({"dev": output})
    with project.connect() as warehouse:
        assert warehouse.count("t", "moment::date = date '2024-02-01'") == 1
        assert warehouse.count("crm.u", "a = 7") == 1


def test_a_variable_unset_inside_the_target_is_named(project: Project) -> None:
    project.profiles({"dev": {"type": "duckdb", "path": "{{ env_var('DUCK_FILE') }}"}})
    said = refusal(project.connect)
    assert said.startswith("DB704")
    assert "environment variable 'DUCK_FILE' is not set" in said


def test_a_variable_in_the_target_comes_from_the_environment_given(project: Project, fill: Fill) -> None:
    fill("create table t as select 1 as a")
    project.profiles({"dev": {"type": "duckdb", "path": "{{ env_var('DUCK_FILE') }}"}})
    with project.connect(DUCK_FILE="warehouse.duckdb") as warehouse:
        assert warehouse.count("t", None) == 1
    assert "DUCK_FILE" not in os.environ


def test_an_adapter_that_is_not_installed_is_named_with_its_package(project: Project) -> None:
    project.profiles({"dev": {"type": "snowflake", "account": "acme", "schema": "public"}})
    said = refusal(project.connect)
    assert said.startswith("DB706")
    assert "pip install dbt-snowflake" in said


def test_wrong_credentials_name_the_key_and_not_its_value(project: Project) -> None:
    project.profiles({"dev": {"type": "duckdb", "path": "warehouse.duckdb", "secrets": "hunter2-token"}})
    with pytest.raises(ConfigError) as caught:
        project.connect()
    assert str(caught.value).startswith("DB705")
    assert "hunter2" not in str(caught.value)
    assert "secrets" in str(caught.value)


@pytest.mark.slow
def test_nothing_is_printed_and_no_log_is_written(project: Project, fill: Fill, tmp_path: Path) -> None:
    fill("create table t as select 1 as a")
    script = (
        "import logging, sys, pathlib; from dinmo_dbt.warehouse import connect\n"
        "with connect(pathlib.Path(sys.argv[1]), profiles_dir=None, profile=None, target=None, vars={}, env={}) as w:\n"
        "    w.schema('t'); w.count('t', None); list(w.read('t', ['a'], None)); w.ping()\n"
        "try: connect(pathlib.Path(sys.argv[1]), profiles_dir=None, profile=None, target='x', vars={}, env={})\n"
        "except Exception: pass\n"
        "assert not logging.getLogger().handlers\n"
        "assert 'dbt.cli.main' not in sys.modules\n"
    )
    command = [sys.executable, "-W", "default", "-c", script, str(project.folder)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not list(tmp_path.rglob("*.log"))
    assert sorted(path.name for path in project.folder.iterdir()) == [
        "dbt_project.yml",
        "profiles.yml",
        "warehouse.duckdb",
    ]


@pytest.mark.slow
def test_three_million_rows_pass_through_a_bounded_memory(project: Project, fill: Fill) -> None:
    # 3M rows of about 360 bytes in Arrow: more than 1 GB if it were ever whole.
    fill(
        "create table t as select i as a, repeat('b', 150) || i as b, repeat('c', 150) || i as c, "
        "i * 1.5 as d from range(3000000) r(i)"
    )
    script = (
        "import sys, pathlib; from dinmo_dbt.warehouse import connect\n"
        "sys.path.append(sys.argv[2]); from peak import peak_bytes\n"
        "with connect(pathlib.Path(sys.argv[1]), profiles_dir=None, profile=None, target=None, vars={}, env={}) as w:\n"
        "    next(iter(w.read('t', ['a', 'b', 'c', 'd'], 'a < 100000')))\n"
        "    before = peak_bytes()\n"
        "    rows = total = 0\n"
        "    for batch in w.read('t', ['a', 'b', 'c', 'd'], None):\n"
        "        rows += batch.num_rows; total += batch.nbytes\n"
        "    print(rows, total >> 20, (peak_bytes() - before) >> 20)\n"
    )
    output = {"type": "duckdb", "path": "warehouse.duckdb", "settings": {"memory_limit": "256MB"}}
    project.profiles({"dev": output})
    command = [sys.executable, "-c", script, str(project.folder), str(Path(__file__).parent.parent)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows, megabytes, grown = map(int, done.stdout.split())
    assert rows == 3_000_000
    assert megabytes > 900
    assert grown < 400


def test_reading_one_relation_while_another_is_open(project: Project, fill: Fill) -> None:
    fill("create table t as select i as a from range(200000) r(i)", "create table u as select 1 as a")
    with project.connect() as warehouse:
        rows = warehouse.read("t", ["a"], None)
        first = next(rows).num_rows
        assert warehouse.count("u", None) == 1
        assert first + sum(batch.num_rows for batch in rows) == 200_000


def test_a_warehouse_error_exits_with_1_and_configuration_with_2() -> None:
    assert (WarehouseError.exit_code, ConfigError.exit_code) == (1, 2)


@pytest.mark.parametrize("value", [None, 5, ["a"], {"a": 1}, 1.5, True])
@pytest.mark.parametrize("key", ["type", "path"])
def test_a_value_of_another_kind_than_text_is_one_clear_message(project: Project, key: str, value: object) -> None:
    project.profiles({"dev": {"type": "duckdb", "path": "warehouse.duckdb", key: value}})
    with pytest.raises(ConfigError) as caught:
        project.connect()
    assert str(caught.value).startswith(("DB705", "DB706", "DB707"))
