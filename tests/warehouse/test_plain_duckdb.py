"""A plain profile of DuckDB, opened without dbt: what dbt would make of it, or left to dbt."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from dinmo_dbt.errors import ConfigError
from dinmo_dbt.warehouse import connect, dbt_profile, plain_duckdb, profiles
from dinmo_dbt.warehouse.duckdb import DuckDB

from .conftest import Project

PATHS = st.sampled_from(
    [
        "warehouse.duckdb",
        "data/shop.db",
        "./a b.duckdb",
        "/data/shop.duckdb",
        "~/shop.duckdb",
        "shop",
        "my.db.duckdb",
        ".hidden.duckdb",
        "//host/shop.duckdb",
        "//shop.duckdb",
        "shop.duckdb?x=1",
        "shop.duckdb#x",
        "shop;x.duckdb",
        ":memory:",
        "md:shop",
        "s3://bucket/shop.db",
        "ducklake:shop",
        "a/",
        "a/.",
        "a/..",
        "é.duckdb",
        "it's.duckdb",
        "$$$DBT_SECRET_START$$$",
        "{{ 1 + 1 }}",
        "{# x #}shop.db",
        "{{ shop",
        "1",
        "1.5",
        "{{ env_var('A') }}",
        "data/{{ env_var('A') }}.duckdb",
        "{{env_var(\"A\",'shop')}}",
        "{{ env_var('B', '') }}shop.db",
        "{{ env_var('B', \"b.db\") }}",
        "{{ env_var('C') }}",
        "{{ env_var('DBT_ENV_SECRET_A') }}",
        "{{ env_var('A') | upper }}",
        "{{ env_var('DBT_ENV_PRIVATE_A', 'x') }}",
        "{{ var('a') }}",
        "{{ env_var('A')|as_text }}",
        "{{ env_var('B', 'it\\'s') }}",
        "{{- env_var('A') -}}",
        "x{{ env_var('A') }}{{ env_var('B', '/x.db') }}",
        " shop.db",
        "shop.db ",
    ]
)
TEXTS = st.one_of(
    PATHS,
    st.text(alphabet="ab1._-/ ~{}'\"%#:\n\té\u2028", max_size=8),
    st.sampled_from([1, 1.5, True, None, [], {}, "main", "analytics", "1", "none", "true", "{{ none }}", "{{ true }}"]),
)
NEARLY_PLAIN = st.fixed_dictionaries(
    {"type": st.just("duckdb"), "path": PATHS},
    optional={"schema": PATHS, "database": st.sampled_from(["shop", "warehouse"]), "threads": st.integers(-1, 4)},
)
ODD = st.fixed_dictionaries(
    {"type": st.sampled_from(["duckdb", "{{ env_var('T') }}", "DuckDB", "duckdb ", 1, None])},
    optional={
        "path": TEXTS,
        "schema": TEXTS,
        "database": TEXTS,
        "threads": st.sampled_from([1, True, "4", None, "{{ env_var('N') | as_number }}", 1.5]),
        "extensions": st.just(["json"]),
        "settings": st.sampled_from([{}, None, {"threads": 1}]),
        "motherduck_token": st.just(None),
        "skema": st.just("x"),
    },
)
OUTPUTS = st.one_of(NEARLY_PLAIN, ODD)
ENV = st.fixed_dictionaries(
    {"T": st.just("duckdb"), "N": st.just("3"), "DBT_ENV_SECRET_A": st.just("secret")},
    optional={
        "A": st.sampled_from(["shop.duckdb", "", "a\nb", "{{ 1 }}", "x y", "1", "é", "$$$DBT_SECRET_START$$$A", "a:b"]),
        "B": st.sampled_from(["b.duckdb", "", "'"]),
        "DBT_ENV_PRIVATE_A": st.just("private"),
    },
)


def chosen_of(folder: Path, output: dict[str, Any]) -> profiles.Chosen:
    file = folder / "profiles.yml"
    file.write_text(yaml.safe_dump({"shop": {"target": "dev", "outputs": {"dev": output}}}), encoding="utf-8")
    return profiles.choose(folder, folder, "shop", "dev", {}, vars={})


def of_dbt(folder: Path, chosen: profiles.Chosen, env: dict[str, str]) -> Any:
    with dbt_profile.as_dbt_runs(folder):
        return dbt_profile.credentials(folder, chosen, {}, env)


@given(output=OUTPUTS, env=ENV)
def test_it_is_what_dbt_makes_of_the_profile_or_left_to_dbt(
    tmp_path_factory: pytest.TempPathFactory, output: dict[str, Any], env: dict[str, str]
) -> None:
    from dbt.adapters.duckdb import DuckDBCredentials

    folder = tmp_path_factory.getbasetemp()
    chosen = chosen_of(folder, output)
    plain = plain_duckdb.credentials(chosen.written, env)
    if plain is None:
        with contextlib.suppress(ConfigError):
            of_dbt(folder, chosen, env)
        return
    # Whatever else dbt's has is as in credentials that were told nothing of it.
    assert of_dbt(folder, chosen, env) == DuckDBCredentials(
        path=plain.path, database=plain.database, schema=plain.schema
    )


@pytest.mark.parametrize(
    ("output", "path"),
    [
        ({"path": "warehouse.duckdb"}, "warehouse.duckdb"),
        ({"path": "data/{{ env_var('A') }}.duckdb", "schema": "{{ env_var('B', 'main') }}"}, "data/shop.duckdb"),
        ({"path": "~/shop.db", "database": "shop", "schema": "analytics", "threads": 8}, "~/shop.db"),
    ],
)
def test_what_is_plain_is_not_left_to_dbt(output: dict[str, Any], path: str) -> None:
    plain = plain_duckdb.credentials({"type": "duckdb", **output}, {"A": "shop"})
    assert plain is not None
    assert plain.path == path


@pytest.mark.parametrize("writes", [False, True])
def test_the_connection_is_the_one_that_dbt_opens(
    project: Project, fill: Callable[..., None], monkeypatch: pytest.MonkeyPatch, writes: bool
) -> None:
    fill("create schema analytics", "create table analytics.t as select 1 as a")
    output = {"type": "duckdb", "path": "{{ env_var('A') }}", "schema": "analytics", "threads": 2}
    chosen, env = chosen_of(project.folder, output), {"A": "warehouse.duckdb"}

    def told(credentials: Any) -> dict[str, Any]:
        engine = DuckDB(credentials, project.folder, chosen, writes=writes)
        handle = engine._handle()
        asked = {
            "settings": "select name, value from duckdb_settings() order by name",
            "databases": "select database_name, path, readonly, type from duckdb_databases() order by 1",
            "schemas": "select database_name, schema_name from duckdb_schemas() order by all",
            "extensions": "select extension_name, loaded from duckdb_extensions() order by 1",
            "now": "select current_database(), current_schema()",
        }
        found = {what: handle.cursor().sql(sql).fetchall() for what, sql in asked.items()}
        engine._done(handle)
        engine.close()
        return found

    plain = plain_duckdb.credentials(chosen.written, env)
    assert plain is not None
    assert told(plain) == told(of_dbt(project.folder, chosen, env))


def test_dbt_is_not_imported(project: Project, fill: Callable[..., None]) -> None:
    fill("create table t as select 1 as a")
    script = (
        "import sys, pathlib; from dinmo_dbt.warehouse import connect\n"
        "with connect(pathlib.Path(sys.argv[1]), profiles_dir=None, profile=None, target=None, vars={}, env={}) as w:\n"
        "    assert w.count('t', None) == 1\n"
        "print([m for m in ('dbt', 'dbt_common', 'agate') if m in sys.modules])\n"
    )
    command = [sys.executable, "-c", script, str(project.folder)]
    done = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ), check=True)
    assert done.stdout == "[]\n"


def test_without_its_adapter_it_is_refused(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain_duckdb, "_is_installed", lambda: False)
    assert plain_duckdb.credentials({"type": "duckdb", "path": "warehouse.duckdb"}, {}) is None


def test_a_target_whose_name_is_a_number_is_left_to_dbt(tmp_path: Path) -> None:
    outputs = {2024: {"type": "duckdb", "path": "shop.duckdb"}}
    (tmp_path / "profiles.yml").write_text(yaml.safe_dump({"shop": {"outputs": outputs}}), encoding="utf-8")
    with pytest.raises(ConfigError):
        connect(tmp_path, profiles_dir=tmp_path, profile="shop", target="2024", vars={}, env={})
