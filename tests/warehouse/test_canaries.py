"""Values that no error may bring out: hard ones, in statements that fail on them, through every reader there is."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import duckdb
import pytest
from test_redaction import CANARY, HARD

from dinmo_dbt.errors import DinmoError, StateError
from dinmo_dbt.warehouse import Warehouse, connection
from dinmo_dbt.warehouse.dbapi import DbApi

from .conftest import Postgres, Project

# Conditions that fail on a text, most of them quoting it.
EVERYWHERE = (
    "cast(name as integer) > 1",
    "cast(name as date) is not null",
    "cast(name as timestamp) is not null",
    "cast(name as decimal(4, 2)) > 1",
    "cast(name as boolean)",
    "cast(name as uuid) is not null",
    "cast(name as interval) is not null",
    "cast(name as json) is not null",
    "nmae = 'x'",
    "nofunction(name)",
    "name = ",
)
OF_DUCKDB = (
    "error(name)",
    "strptime(name, '%Y') is not null",
    "date_trunc(name, current_date) is not null",
    "json_extract(name, '$.a') is not null",
    "regexp_matches(name, '[' || name)",
    "from_base64(name) is not null",
    "unhex(name) is not null",
    "cast(name as integer[]) is not null",
    "cast(name as enum('a')) is not null",
    "cast(name as time) is not null",
    "map([name, name], [1, 1]) is not null",
    "name like 'a' escape name",
)
OF_POSTGRES = (
    "raised(name)",
    "raised_as(name, '42703')",
    "raised_as(name, '42P01')",
    "raised_as(name, '42501')",
    "raised_as(name, '08006')",
    "raised_as(name, '57P01')",
    "to_timestamp(name, 'YYYY') is not null",
    "name ~ ('[' || name)",
    "cast(name as xml) is not null",
    "cast(name as inet) is not null",
    "cast(name as integer[]) is not null",
    "cast(name as money) is not null",
    "current_setting(name) is not null",
    "nextval(name) > 1",
    "date_trunc(name, now()) is not null",
    "jsonb_path_exists('{}', cast(name as jsonpath))",
    "decode(name, 'hex') is not null",
    "name::regclass is not null",
    "chr(-length(name)) is not null",
)
RAISING = (
    "create function raised(t text) returns boolean language plpgsql as $$begin raise exception '%', t; end$$",
    "create function raised_as(t text, state text) returns boolean language plpgsql as "
    "$$begin raise exception using message = t, errcode = state, detail = t, hint = t, column = t, table = t; end$$",
)


def literal(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


@pytest.fixture(params=["duckdb", "postgres", "dbapi on duckdb", "dbapi on postgres"])
def reading(
    request: pytest.FixtureRequest, project: Project, fill: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Callable[..., None], Callable[[], Warehouse], tuple[str, ...]]]:
    """How to fill the database, how to open it, and what fails there."""
    run, failing, connect = fill, OF_DUCKDB, project.connect
    if "postgres" in request.param:
        server: Postgres = request.getfixturevalue("postgres")
        server.run("drop schema public cascade", "create schema public", *RAISING)
        project.profiles({"dev": server.output()})
        run, failing = server.run, OF_POSTGRES
    else:
        project.profiles({"dev": {"type": "duckdb", "path": str(project.folder / "warehouse.duckdb")}})
    if "dbapi" in request.param:
        request.getfixturevalue("by_dbt")
        monkeypatch.setattr(connection, "_engine", lambda credentials, writes: DbApi)
    elif request.param == "duckdb":
        connect = functools.partial(connect_held, project)
    yield run, connect, (*EVERYWHERE, *failing)


@contextmanager
def connect_held(project: Project) -> Iterator[Warehouse]:
    """While the process has the file open, each statement opens it at once."""
    file, config = str(project.folder / "warehouse.duckdb"), {"access_mode": "READ_ONLY"}
    with duckdb.connect(file, config=config), project.connect() as warehouse:
        yield warehouse


def assert_hidden(error: DinmoError, value: str) -> None:
    said = f"{error} {error.problems!r} {error.args!r} {error.whole}"
    assert CANARY.lower() not in said.lower(), value


@pytest.mark.slow
def test_no_error_of_a_database_brings_a_value_out(
    reading: tuple[Callable[..., None], Callable[[], Warehouse], tuple[str, ...]],
) -> None:
    run, connect, failing = reading
    values = [value.replace("\x00", "") for value in HARD]
    run(
        "create table t (number integer, name text)",
        *(f"insert into t values ({number}, {literal(value)})" for number, value in enumerate(values)),
    )
    raised = 0
    with connect() as warehouse:
        warehouse.schema("t")
        for condition in failing:
            for number, value in enumerate(values):
                where = f"number = {number} and ({condition})"
                try:
                    if number % 5:
                        warehouse.count("t", where)
                    else:  # a COPY that fails costs a connection
                        list(warehouse.read("t", ["name"], where))
                except DinmoError as error:
                    raised += 1
                    assert_hidden(error, value)
                    assert error.problems[0].code.startswith("DB7")
    assert raised > len(failing) * len(values) / 2, "most of them fail"


def test_the_database_s_own_words_come_out_when_they_are_asked_for(project: Project, fill: Callable[..., None]) -> None:
    fill("create table t as select 'O''Hara' as name")
    with project.connect(show_values=True) as warehouse, pytest.raises(DinmoError) as caught:
        list(warehouse.read("t", ["name"], "cast(name as integer) = 1"))
    assert "Could not convert string 'O'Hara' to INT32" in caught.value.whole
    assert "Hara" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["duckdb", "postgres"])
def test_tables_of_ours_bring_no_value_out(kind: str, request: pytest.FixtureRequest, project: Project) -> None:
    if kind == "postgres":
        server: Postgres = request.getfixturevalue("postgres")
        server.run("drop schema if exists state cascade")
        project.profiles({"dev": server.output()})
    with project.connect(writes=True) as warehouse:
        tables = warehouse.tables("state")
        tables.make({"meta": "key varchar primary key, value integer"}, {}, [])
        for value in (value.replace("\x00", "") for value in HARD):
            for statement in (
                "INSERT INTO meta SELECT ?, cast(key AS integer) FROM (SELECT ? AS key) AS k",
                "INSERT INTO meta SELECT k.key, 1 FROM (SELECT ? AS key UNION ALL SELECT ?) AS k",
            ):
                if "UNION" in statement and len(value) > 2_000:
                    continue  # no index takes it
                with pytest.raises(StateError) as caught, tables.transaction():
                    tables.execute(statement, (value, value))
                assert_hidden(caught.value, value)
