"""The fallback for every other adapter, run on two that are here: its rows must be those of the fast paths."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from decimal import Decimal

import pyarrow as pa
import pytest

from dinmo_dbt.errors import DinmoError
from dinmo_dbt.rows.reasons import unreadable
from dinmo_dbt.warehouse import Warehouse, connection, dbapi
from dinmo_dbt.warehouse.dbapi import DbApi

from .conftest import Postgres, Project


@pytest.fixture(params=["postgres", "duckdb"])
def both(
    request: pytest.FixtureRequest, project: Project, fill: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> tuple[Callable[..., None], Callable[[], Warehouse]]:
    """How to fill the database, and how to open it through the fallback."""
    run = fill
    if request.param == "postgres":
        server: Postgres = request.getfixturevalue("postgres")
        server.run("drop schema public cascade", "create schema public")
        project.profiles({"dev": server.output()})
        run = server.run
    else:
        request.getfixturevalue("by_dbt")
        project.profiles({"dev": {"type": "duckdb", "path": str(project.folder / "warehouse.duckdb")}})
    monkeypatch.setattr(connection, "_engine", lambda credentials, writes: DbApi)
    return run, project.connect


def test_rows_and_types_are_those_of_the_values(both: tuple[Callable[..., None], Callable[[], Warehouse]]) -> None:
    run, connect = both
    run(
        "create table t (i bigint, d numeric(12, 2), f double precision, b boolean, day date, moment timestamp, "
        "z timestamptz, s text, n text, late text)",
        "insert into t select i, 1.25, i / 2.0, i > 3, date '2024-01-31', timestamp '2024-01-31 08:00:00', "
        "timestamptz '2024-01-31 08:00:00+02', 'é''\"' || i, null, case when i = 14999 then 'x' end "
        "from generate_series(0, 14999) r(i)",
    )
    with connect() as warehouse:
        assert warehouse.count("t", "i < 3") == 3
        schema = warehouse.schema("t")
        columns = [name for name in schema.names if name != "n"]
        table = pa.Table.from_batches(warehouse.read("t", columns, None)).sort_by("i")
    assert schema.field("z").type == pa.timestamp("us", "UTC")
    assert schema.field("late").type == pa.utf8()
    assert pa.types.is_null(schema.field("n").type)
    assert table.num_rows == 15_000
    assert table.slice(14_999).to_pylist() == [
        {
            "i": 14_999,
            "d": Decimal("1.25"),
            "f": 7499.5,
            "b": True,
            "day": dt.date(2024, 1, 31),
            "moment": dt.datetime(2024, 1, 31, 8),
            "z": dt.datetime(2024, 1, 31, 6, tzinfo=dt.UTC),
            "s": "é'\"14999",
            "late": "x",
        }
    ]


def test_errors_are_plain(both: tuple[Callable[..., None], Callable[[], Warehouse]]) -> None:
    run, connect = both
    run("create table t as select 'secret' as a")
    with connect() as warehouse:
        for call, code in (
            (lambda: warehouse.schema("nope"), "DB702"),
            (lambda: warehouse.count("t", "cast(a as integer) = 1"), "DB710"),
            (lambda: list(warehouse.read("t", ["b"], None)), "DB710"),
        ):
            with pytest.raises(DinmoError) as caught:
                call()
            assert str(caught.value).startswith(code)
            assert "secret" not in str(caught.value)


def test_an_empty_relation_has_columns(both: tuple[Callable[..., None], Callable[[], Warehouse]]) -> None:
    run, connect = both
    run('create table t ("A b" integer)')
    with connect() as warehouse:
        assert warehouse.schema("t").names == ["A b"]
        assert list(warehouse.read("t", ["A b"], None)) == []


EARLY = dt.datetime(2024, 1, 31, 8, tzinfo=dt.timezone(dt.timedelta(hours=2)))


@pytest.mark.parametrize(
    ("sampled", "later", "read"),
    [
        ([1, 2], [3, None, 2**63, 1.5, "x", Decimal("1.5"), True], [3, None, *[...] * 5]),
        ([True], [False, "x", 1], [False, ..., ...]),
        ([Decimal("1.5")], [Decimal("NaN"), Decimal("Infinity"), Decimal("1e60"), "x", 2], [..., ..., ..., ..., 2]),
        ([1.5], [float("inf"), 2**60 + 1, "x", 7], [float("inf"), ..., ..., 7.0]),
        (["a"], ["\ud800", "b", {"k": [1]}], [..., "b", '{"k": [1]}']),
        ([dt.date(2024, 1, 31)], [dt.datetime(2024, 1, 31, 8), "soon", dt.date(1, 1, 1)], [..., ..., dt.date(1, 1, 1)]),
        ([dt.time(8)], [dt.time(8, tzinfo=dt.UTC), dt.time(9), dt.timedelta(hours=24)], [..., dt.time(9), ...]),
        ([dt.time(8, tzinfo=dt.UTC)], [dt.time(8, tzinfo=EARLY.tzinfo)], ["08:00:00+02:00"]),
        ([dt.datetime(2024, 1, 31)], [EARLY, "soon"], [dt.datetime(2024, 1, 31, 6), ...]),
        ([EARLY], [EARLY, dt.datetime(2024, 1, 31), "x"],
         [dt.datetime(2024, 1, 31, 6, tzinfo=dt.UTC), dt.datetime(2024, 1, 31, tzinfo=dt.UTC), ...]),
        ([b"a"], [bytearray(b"b"), "x"], [b"b", ...]),
        ([2**63], [5, 2**80], [5, 2**80]),
    ],
)  # fmt: skip
def test_a_value_that_does_not_fit_the_first_ones_leaves_its_row_out(
    sampled: list[object], later: list[object], read: list[object]
) -> None:
    """`...` is such a value: null, and marked beside it."""
    kind = dbapi._type(sampled, ("v", None))
    batch = dbapi.batch_of([(value,) for value in later], pa.schema([("v", kind)]))
    reasons = unreadable(batch, "v")
    marked = [False] * len(later) if reasons is None else [bool(reason) for reason in reasons]
    assert marked == [value is ... for value in read]
    assert batch.column("v").to_pylist() == [None if value is ... else value for value in read]
    assert batch.schema.field("v").type == kind


def test_the_driver_s_own_digits_decide_how_wide_a_whole_number_is() -> None:
    assert dbapi._type([1], ("v", None, None, None, 38, 0, None)) == pa.decimal128(38, 0)
    assert dbapi._type([1], ("v", None, None, None, 10, 0, None)) == pa.int64()
    assert dbapi._type([1], ("v", None)) == pa.int64()
