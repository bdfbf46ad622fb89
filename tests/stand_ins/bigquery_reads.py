"""The reader of BigQuery against the stand-in that test_bigquery.py serves; run by it, where Google's clients are."""

from __future__ import annotations

import datetime as dt
import json
import os
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from google.api_core import exceptions
from google.auth.credentials import AnonymousCredentials
from google.auth.exceptions import RefreshError, TransportError
from google.auth.transport.requests import AuthorizedSession
from google.cloud import bigquery as google

from dinmo_dbt.errors import DinmoError
from dinmo_dbt.warehouse import Warehouse, connect
from dinmo_dbt.warehouse.bigquery import engine, errors
from dinmo_dbt.warehouse.query import Cause

from .bigquery_client import storage_client
from .shop import free_port

pytestmark = pytest.mark.slow

REST = f"http://127.0.0.1:{os.environ['STAND_IN_REST']}"
CLIENT = google.Client("shop", credentials=AnonymousCredentials(), client_options={"api_endpoint": REST})


def run(*statements: str) -> None:
    for statement in statements:
        CLIENT.query(statement).result()


def write_profile(folder: Path, **changes: object) -> None:
    output = {
        "type": "bigquery", "method": "oauth-secrets", "token": "none", "project": "shop", "dataset": "dbt",
        "location": "US", "threads": 1, "api_endpoint": REST, "maximum_bytes_billed": 10**9, "priority": "batch",
        "job_execution_timeout_seconds": 600, **changes,
    }  # fmt: skip
    written = {"shop": {"target": "dev", "outputs": {"dev": output}}}
    (folder / "profiles.yml").write_text(json.dumps(written), encoding="utf-8")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    run("drop schema if exists dbt cascade", "create schema dbt")
    (tmp_path / "dbt_project.yml").write_text("name: shop\nprofile: shop\n", encoding="utf-8")
    write_profile(tmp_path)
    return tmp_path


@pytest.fixture(params=["Storage Read API", "REST"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "Storage Read API":
        monkeypatch.setattr(engine, "storage_client", storage_client)
    return str(request.param)


def opened(project: Path) -> Warehouse:
    return connect(project, profiles_dir=None, profile=None, target=None, vars={}, env=dict(os.environ))


def test_a_table_and_a_view_of_many_types_and_names(way: str, project: Path) -> None:
    fields = [
        google.SchemaField(name, kind, mode=mode)
        for name, kind, mode in (
            ("i", "INTEGER", "NULLABLE"), ("n", "NUMERIC", "NULLABLE"), ("f", "FLOAT", "NULLABLE"),
            ("b", "BOOLEAN", "NULLABLE"), ("s", "STRING", "NULLABLE"), ("d", "DATE", "NULLABLE"),
            ("t", "TIME", "NULLABLE"), ("l", "DATETIME", "NULLABLE"), ("m", "TIMESTAMP", "NULLABLE"),
            ("x", "BYTES", "NULLABLE"), ("a", "STRING", "REPEATED"), ("select", "STRING", "NULLABLE"),
        )
    ]  # fmt: skip
    CLIENT.create_table(google.Table("shop.dbt.types", fields))
    row = {"i": 2**63 - 1, "n": "12345678901234567890.123456789", "m": "0001-01-01T00:00:00Z", "x": "AP8=",
           "a": ["p", ""], "select": "from"}  # fmt: skip
    assert CLIENT.insert_rows_json("shop.dbt.types", [row, {}]) == []
    run("create view dbt.seen as select *, interval 1 day as v from dbt.types")
    with opened(project) as warehouse:
        table = warehouse.schema("`shop`.`dbt`.`types`")
        assert [str(each) for each in table.types] == [
            "int64", "decimal128(38, 9)", "double", "bool", "string", "date32[day]", "time64[us]", "timestamp[us]",
            "timestamp[us, tz=UTC]", "binary", "list<item: string>", "string",
        ]  # fmt: skip
        assert list(warehouse.schema("`shop`.`dbt`.`seen`")) == [*table, pa.field("v", pa.utf8())]
        asked = ["select", "a", "n", "m", "x", "i"]
        for relation in ("types", "seen"):
            rows = (
                pa.Table.from_batches(warehouse.read(f"`shop`.`dbt`.`{relation}`", asked, None))
                .sort_by("i")
                .to_pylist()
            )
            assert rows == [
                {
                    "select": "from",
                    "a": ["p", ""],
                    "n": Decimal("12345678901234567890.123456789"),
                    "m": dt.datetime(1, 1, 1, tzinfo=dt.UTC),
                    "x": b"\x00\xff",
                    "i": 2**63 - 1,
                },
                {"select": None, "a": rows[1]["a"], "n": None, "m": None, "x": None, "i": None},
            ]
            assert not rows[1]["a"]  # BigQuery has no list that is null: the service gives an empty one
        assert [each.column("v").to_pylist() for each in warehouse.read("`shop`.`dbt`.`seen`", ["v"], "i > 0")] == [
            ["1 day"]
        ]


def test_many_rows_come_in_bounded_batches_by_either_way(way: str, project: Path) -> None:
    rows = "select x as id, concat('n', cast(x as string)) as name from unnest(generate_array(1, 100000)) x"
    run(f"create table dbt.many as {rows}")
    with opened(project) as warehouse:
        for where, expected in ((None, range(1, 100_001)), ("id > 50000 -- half", range(50_001, 100_001))):
            batches = list(warehouse.read("`shop`.`dbt`.`many`", ["name", "id"], where))
            table = pa.Table.from_batches(batches)
            assert max(each.num_rows for each in batches) <= 32_768
            assert table.schema.names == ["name", "id"]
            assert sorted(table["id"].to_pylist()) == list(expected)
            assert set(table["name"].to_pylist()) == {f"n{each}" for each in expected}
            assert warehouse.count("`shop`.`dbt`.`many`", where) == len(expected)


def test_a_query_has_the_limits_of_the_profile_and_a_table_is_read_without_one(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = list[dict[str, Any]]()

    def noting(session: AuthorizedSession, method: str, url: str, **given: Any) -> Any:
        if method == "POST" and "/jobs" in url:
            jobs.append(json.loads(given["data"])["configuration"])
        return request(session, method, url, **given)

    request = AuthorizedSession.request
    run("create table dbt.t as select 1 as a")
    monkeypatch.setattr(engine, "storage_client", storage_client)
    monkeypatch.setattr(AuthorizedSession, "request", noting)
    with opened(project) as warehouse:
        warehouse.schema("`shop`.`dbt`.`t`")
        assert [each.num_rows for each in warehouse.read("`shop`.`dbt`.`t`", ["a"], None)] == [1]
        assert all(each["dryRun"] for each in jobs)
        assert [each.num_rows for each in warehouse.read("`shop`.`dbt`.`t`", ["a"], "a = 1")] == [1]
    (job,) = (each for each in jobs if not each.get("dryRun"))
    assert (job["query"]["maximumBytesBilled"], job["query"]["priority"]) == (str(10**9), "BATCH")
    assert job["jobTimeoutMs"] == "600000"
    assert job["labels"].keys() == {"dbt_invocation_id"}


def test_what_is_refused_is_said_plainly_and_without_a_value(way: str, project: Path) -> None:
    run("create table dbt.t as select 'secret' as a")
    table = "`shop`.`dbt`.`t`"
    refused = f"DB710 {table} can't be read: BadRequest (invalidQuery)"
    with opened(project) as warehouse:
        assert warehouse.ping().startswith("BigQuery, project shop (rows by ")
        for call, said in (
            (lambda: warehouse.schema("`shop`.`dbt`.`nope`"), "DB702 `shop`.`dbt`.`nope` can't be found"),
            (lambda: warehouse.schema("`shop`.`none`.`nope`"), "DB702 `shop`.`none`.`nope` can't be found"),
            (lambda: list(warehouse.read(table, ["b"], None)), f"DB710 {table} can't be read: there is no column b"),
            (lambda: warehouse.count(table, "cast(a as int64) = 1"), refused),
            (lambda: warehouse.count(table, "a = = 1"), f"{refused}: syntax error"),
            (lambda: warehouse.count(table, "a in (select 'x' from dbt.nope)"), "DB702 a relation that the condition"),
            (lambda: warehouse.count(table, "a in (select 'x' from none.t)"), f"DB709 no permission to read {table}"),
        ):  # fmt: skip
            with pytest.raises(DinmoError) as caught:
                call()
            assert str(caught.value).startswith(said), caught.value
            assert "secret" not in str(caught.value)


def test_a_service_that_is_not_there_is_no_warehouse_reached(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "REACH_S", 1.0)
    write_profile(project, api_endpoint=f"http://127.0.0.1:{free_port()}")
    with pytest.raises(DinmoError, match=r"^DB707 .*: can't connect"):
        opened(project)


def test_an_interrupt_cancels_what_runs_and_the_next_read_starts_over(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "storage_client", storage_client)
    run("create table dbt.t as select 1 as a")
    with opened(project) as warehouse:
        batches = warehouse.read("`shop`.`dbt`.`t`", ["a"], None)
        warehouse.interrupt()
        with pytest.raises(DinmoError):
            list(batches)
        assert [each.num_rows for each in warehouse.read("`shop`.`dbt`.`t`", ["a"], None)] == [1]


@pytest.mark.parametrize(
    ("error", "cause", "code"),
    [
        (exceptions.NotFound("x", errors=[{"reason": "notFound"}]), Cause.MISSING, "notFound"),
        (exceptions.Forbidden("x", errors=[{"reason": "accessDenied"}]), Cause.DENIED, "accessDenied"),
        (exceptions.Forbidden("x", errors=[{"reason": "quotaExceeded"}]), Cause.OTHER, "quotaExceeded"),
        (exceptions.BadRequest("x", errors=[{"reason": "responseTooLarge"}]), Cause.OTHER, "responseTooLarge"),
        (exceptions.BadRequest("x", errors=[{"reason": "of another day"}]), Cause.OTHER, ""),
        (exceptions.PermissionDenied("x"), Cause.DENIED, ""),
        (exceptions.ServiceUnavailable("x"), Cause.LOST, ""),
        (exceptions.RetryError("x", None), Cause.LOST, ""),
        (ConnectionResetError("x"), Cause.LOST, ""),
        (RefreshError("x"), Cause.OTHER, ""),
        (TransportError("x"), Cause.LOST, ""),
    ],
    ids=lambda each: each.__class__.__name__ if isinstance(each, Exception) else "",
)  # fmt: skip
def test_an_error_is_known_by_googles_reason_or_its_kind(error: Exception, cause: Cause, code: str) -> None:
    known = errors.read(error)
    assert known is not None
    assert (known.cause, known.code) == (cause, code)
    assert errors.read(ValueError("x")) is None
