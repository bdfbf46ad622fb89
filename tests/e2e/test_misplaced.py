"""A `dinmo` block that dbt does not hand on, and one that it hands on from elsewhere: each is found and named, by real
dbt, never just one activation fewer."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from .lab import DINMO, Lab, Ran, dbt

pytestmark = pytest.mark.slow

BLOCK: dict[str, Any] = {
    "key": "id",
    "activation": {"destination": "crm", "object": "Account", "mode": "insert", "fields": {"id": "Name"}},
}
RIGHT = {"config": {"meta": {"dinmo": BLOCK}}}
# Each model's properties, and what is said of it: code, part of the place, part of the text.
MODELS: dict[str, tuple[dict[str, Any], str, str, str]] = {
    "misspelt": ({"config": {"meta": {"dimno": BLOCK}}}, "DB147", "misspelt.config.meta.dimno", "'dimno' is not"),
    "in_capitals": ({"config": {"meta": {"Dinmo": BLOCK}}}, "DB147", "in_capitals.config.meta.Dinmo", "is not `dinmo`"),
    "beside_meta": ({"config": {"dinmo": BLOCK}}, "DB147", "beside_meta.config.dinmo", "config > meta > dinmo"),
    "at_the_top": ({"dinmo": BLOCK}, "DB147", "at_the_top.dinmo", "config > meta > dinmo"),
    "without_it": ({"config": {"meta": BLOCK}}, "DB147", "without_it.config.meta.activation", "`dinmo` is missing"),
    "too_deep": ({"config": {"meta": {"sync": {"dinmo": BLOCK}}}}, "DB147", "meta.sync.dinmo", "nothing is read here"),
    "by_another_name": (
        {"config": {"meta": {"reverse_etl": {"key": "id", "activations": [BLOCK["activation"]]}}}},
        "DB147", "by_another_name.config.meta.reverse_etl.activations", "'reverse_etl' is not `dinmo`",
    ),
    "by_its_package": ({"config": {"meta": {"dinmo-dbt": BLOCK}}}, "DB147", "meta.dinmo-dbt", "'dinmo-dbt' is not"),
    "by_its_module": ({"config": {"meta": {"dinmo_dbt": BLOCK}}}, "DB147", "meta.dinmo_dbt", "'dinmo_dbt' is not"),
    "several_by_name": (
        {"config": {"meta": {"activations": {"one": BLOCK["activation"]}}}},
        "DB147", "several_by_name.config.meta.activations", "`dinmo` is missing",
    ),
    "on_a_column": (
        {"columns": [{"name": "id", "config": {"meta": {"dinmo": BLOCK}}}]},
        "DB147", "on_a_column.columns.id", "a column",
    ),
    "on_a_test": (
        {"columns": [{"name": "id", "data_tests": [{"unique": {"config": {"meta": {"dinmo": BLOCK}}}}]}]},
        "DB144", "on_a_test", "not a test",
    ),
}  # fmt: skip
PROJECT = """\
name: lab
version: '1.0'
profile: lab
flags: {send_anonymous_usage_stats: false}
models:
  lab:
    +materialized: table
    martz: {+meta: {dinmo: %(block)s}}
    right: {+meta: {dinmo: %(right)s}}
    slip: {+meta: {dimno: %(block)s}}
    plus: {meta: {dinmo: %(block)s}}
  vendor: {+materialized: table, given: {+meta: {dinmo: %(given)s}}}
sources: {lab: {+meta: {dinmo: %(block)s}}}
"""


def named(name: str) -> dict[str, Any]:
    return {**BLOCK, "activation": {**BLOCK["activation"], "name": name}}


def write(root: Path) -> None:
    models = [{"name": name, **each[0]} for name, each in MODELS.items()]
    models += [{"name": "mispelled_name", **RIGHT}, {"name": "seeded", **RIGHT}]
    yaml = {
        "models": models,
        "sources": [{"name": "raw", "tables": [{"name": "t", "config": {"meta": {"dinmo": BLOCK}}}]}],
        "exposures": [
            {"name": "report", "type": "dashboard", "owner": {"name": "a"}, "config": {"meta": {"dinmo": BLOCK}}},
            {"name": "made", "type": "application", "owner": {"name": "a"},
             "config": {"meta": {"dinmo": {"generated": True}}}},
        ],
        "macros": [{"name": "twice", "config": {"meta": {"dinmo": BLOCK}}}],
    }  # fmt: skip
    files = {
        "dbt_project.yml": PROJECT
        % {"block": json.dumps(BLOCK), **{name: json.dumps(named(name)) for name in ("right", "given")}},
        "profiles.yml": "lab: {target: dev, outputs: {dev: {type: duckdb, path: lab.duckdb}}}\n",
        "dinmo.yml": DINMO,
        "packages.yml": "packages: [{local: vendor}]\n",
        "models/models.yml": json.dumps(yaml, indent=1),
        "models/right/right.sql": "select 1 as id",
        "models/plus/plus.sql": "select 1 as id",
        "models/slip/slip_one.sql": "select 1 as id",
        "models/slip/slip_two.sql": "select 1 as id",
        "models/misspelled_name.sql": "select 1 as id",
        "models/in_sql.sql": "{{ config(meta={'dimno': " + json.dumps(BLOCK) + "}) }} select 1 as id",
        "seeds/seeded.csv": "id\n1\n",
        "macros/twice.sql": "{% macro twice() %}2{% endmacro %}",
        "vendor/dbt_project.yml": "name: vendor\nversion: '1.0'\n",
        "vendor/models/given.sql": "select 1 as id",
        "vendor/models/brought.sql": "select 1 as id",
        "vendor/models/models.yml": json.dumps({"models": [{"name": "brought", **RIGHT}]}),
        **{f"models/{name}.sql": "select 1 as id" for name in MODELS},
    }
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)


@pytest.fixture(scope="module")
def parsed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("misplaced") / "lab"
    write(root)
    for command in ("deps", "parse"):
        done = dbt(root, command)
        assert done.returncode == 0, done.stdout
    return root


@pytest.fixture(scope="module")
def judged(parsed: Path) -> Ran:
    return Lab(parsed).run("validate", "--json")


def said(ran: Ran, place: str) -> list[dict[str, str]]:
    return [each for each in ran.json["problems"] if place in each["where"]]


@pytest.mark.parametrize("name", MODELS)
def test_each_place_that_is_none_is_named_with_the_right_one(judged: Ran, name: str) -> None:
    _, code, place, text = MODELS[name]
    (found,) = said(judged, f".{name}.")
    assert found["code"] == code and place in found["where"] and found["where"].startswith("models/models.yml:")
    assert text in found["message"] + found["hint"]


@pytest.mark.parametrize(
    ("place", "code", "text"),
    [
        ("sources.raw.tables.t", "DB144", "not a source"),
        ("exposures.report", "DB144", "not an exposure"),
        ("macros.twice", "DB144", "not a macro"),
        ("mispelled_name", "DB148", "did you mean 'misspelled_name'"),
        ("seeded", "DB148", "move it under `seeds:`"),
        ("models.lab.martz", "DB148", "no model is under 'lab.martz'"),
        ("models.lab.plus.meta", "DB147", "plus sign"),
        ("slip", "DB147", "write models > lab > slip > +meta > dinmo"),
        ("sources.lab.+meta", "DB147", "under models:"),
        ("in_sql", "DB147", "'dimno' is not `dinmo`"),
    ],
)
def test_so_is_what_belongs_to_no_model(judged: Ran, place: str, code: str, text: str) -> None:
    (found,) = said(judged, place)
    assert found["code"] == code and text in found["message"] + found["hint"], found


def test_nothing_else_is_said_and_the_right_ones_are_there(judged: Ran, parsed: Path) -> None:
    assert judged.code == 2
    told = [each["where"] for each in judged.json["problems"]]
    assert len(told) == len(MODELS) + 10, told
    listed = Lab(parsed).run("list", "-s", "right", "given", "--json")
    assert [each["activation"] for each in listed.json["activations"]] == ["given", "right"]


def test_a_packages_model_counts_by_the_roots_word_and_not_by_its_own(parsed: Path) -> None:
    ran = Lab(parsed).run("validate", "-s", "given", "brought")
    assert ran.code == 0, ran.all
    assert "package 'vendor' brings this block: it is ignored" in " ".join(ran.err.split())


def test_a_file_that_is_no_yaml_is_dbts_to_tell(parsed: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(parsed, tmp_path / "lab"))
    (root / "models" / "more.yml").write_text("models: [{name: dinmo, a: &a [*a, *a]}\n")
    assert Lab(root).run("list", "-s", "right").code == 0
