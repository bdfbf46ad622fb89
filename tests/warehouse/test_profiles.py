"""Which profiles.yml, profile and target: names only, without dbt."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from dinmo_dbt.errors import ConfigError, DinmoError
from dinmo_dbt.warehouse import target_of

from .conftest import Project

TWO = """
shop:
  target: "{{ env_var('STAGE', 'dev') }}"
  outputs: {dev: {type: duckdb}, prod: {type: duckdb}}
"""


def named(project: Project, **choice: object) -> tuple[str, str]:
    wanted = {"profiles_dir": None, "profile": None, "target": None, "env": project.env, **choice}
    return target_of(project.folder, **wanted)


def refusal(project: Project, **choice: object) -> str:
    with pytest.raises(ConfigError) as caught:
        named(project, **choice)
    return str(caught.value)


def test_the_profile_s_own_target_is_taken_without_a_flag(project: Project) -> None:
    (project.folder / "profiles.yml").write_text(TWO)
    assert named(project) == ("shop", "dev")


def test_the_target_may_come_from_env_var_in_the_profile(project: Project) -> None:
    (project.folder / "profiles.yml").write_text(TWO)
    assert named(project, env={**project.env, "STAGE": "prod"}) == ("shop", "prod")


def test_a_flag_wins_over_dbt_target_which_wins_over_the_file(project: Project) -> None:
    (project.folder / "profiles.yml").write_text(TWO)
    env = {**project.env, "DBT_TARGET": "prod"}
    assert named(project, env=env) == ("shop", "prod")
    assert named(project, env=env, target="dev") == ("shop", "dev")


def test_a_profile_without_target_means_default_as_in_dbt(project: Project) -> None:
    (project.folder / "profiles.yml").write_text("shop:\n  outputs:\n    default: {type: duckdb}\n")
    assert named(project) == ("shop", "default")


def test_profiles_are_looked_for_in_flag_variable_project_here_and_home(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def put(folder: Path, target: str) -> Path:
        folder.mkdir(exist_ok=True)
        (folder / "profiles.yml").write_text(f"shop: {{target: {target}, outputs: {{{target}: {{type: duckdb}}}}}}\n")
        return folder

    here = put(tmp_path / "here", "here")
    monkeypatch.chdir(here)
    flag, variable = put(tmp_path / "flag", "flag"), put(tmp_path / "variable", "variable")
    put(tmp_path / ".dbt", "home")
    env = {**project.env, "DBT_PROFILES_DIR": str(variable)}
    assert named(project, profiles_dir=flag, env=env)[1] == "flag"
    assert named(project, env=env)[1] == "variable"
    assert named(project)[1] == "dev"
    (project.folder / "profiles.yml").unlink()
    assert named(project)[1] == "here"
    (here / "profiles.yml").unlink()
    assert named(project)[1] == "home"


def test_no_profiles_yml_lists_where_it_was_looked_for(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (project.folder / "profiles.yml").unlink()
    said = refusal(project)
    assert said.startswith("DB701")
    assert str(project.folder) in said
    assert str(tmp_path / ".dbt") in said
    assert "--profiles-dir" in said


def test_an_unknown_target_lists_the_known_ones(project: Project) -> None:
    (project.folder / "profiles.yml").write_text(TWO)
    said = refusal(project, target="prd")
    assert said.startswith("DB703")
    assert "did you mean 'prod'?" in said
    assert "dev, prod" in said


def test_an_unknown_profile_lists_the_known_ones(project: Project) -> None:
    said = refusal(project, profile="shpo")
    assert said.startswith("DB703")
    assert "did you mean 'shop'?" in said


def test_a_project_without_profile_and_a_folder_without_project_are_said(project: Project, tmp_path: Path) -> None:
    (project.folder / "dbt_project.yml").write_text("name: shop\n")
    assert "names no profile" in refusal(project)
    (project.folder / "dbt_project.yml").unlink()
    assert "--project-dir" in refusal(project)
    assert named(project, profile="shop") == ("shop", "dev")


def test_an_unset_variable_is_named(project: Project) -> None:
    (project.folder / "profiles.yml").write_text("shop: {target: \"{{ env_var('NOT_SET') }}\", outputs: {}}\n")
    said = refusal(project)
    assert said.startswith("DB704")
    assert "'NOT_SET'" in said


@pytest.mark.parametrize("expression", ["{{ ''.__class__.__mro__ }}", "{{ open('/etc/passwd') }}", "{{ env_var( }}"])
def test_a_template_reaches_nothing_but_its_two_functions(project: Project, expression: str) -> None:
    (project.folder / "profiles.yml").write_text(f'shop: {{target: "{expression}", outputs: {{}}}}\n')
    assert refusal(project)[:5] in ("DB704", "DB703")


def test_broken_yaml_tells_the_line_and_no_content(project: Project) -> None:
    (project.folder / "profiles.yml").write_text("shop:\n  password: 'hunter2\n  other: x\n")
    said = refusal(project)
    assert said.startswith("DB701")
    assert "hunter2" not in said


def test_the_module_and_target_of_import_neither_dbt_nor_arrow(project: Project) -> None:
    script = (
        "import sys, pathlib, dinmo_dbt.warehouse as w\n"
        "print(w.target_of(pathlib.Path(sys.argv[1]), None, None, None, {}))\n"
        "heavy = {'dbt', 'pyarrow', 'duckdb', 'psycopg2'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(project.folder)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "('shop', 'dev')\n"


ODD = {
    "a date that is none": "2026-13-45",
    "a time that is none": "2026-01-01 25:00:00",
    "a number of no end": "9" * 5_000,
    "a tag that does not fit": "!!bool x",
    "an empty number": "!!int ''",
    "a moment that is none": "!!timestamp x",
    "nested deeply": "[" * 20_000 + "]" * 20_000,
    "an alias of itself": "&a [*a]",
    "aliases that expand": "[&a [1], "
    + ", ".join(f"&{b} [*{a}, *{a}, *{a}]" for a, b in pairwise("abcdefghijklmnopq"))
    + "]",
    "more than is read": "x" * 1_100_000,
    "a class": "!!python/object/apply:os.system ['true']",
    "bytes": "!!binary aGVsbG8=",
    "a set": "!!set {a, b}",
    "a date": "2026-01-01",
    "not a number": ".nan",
    "half a character": '"\\ud83d"',
    "a mapping of lists": "{? [a] : 1}",
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("place", ["output", "target", "profile", "project"])
def test_whatever_yaml_holds_is_read_or_refused_in_one_line(project: Project, kind: str, place: str) -> None:
    texts = {
        "output": f"shop: {{target: dev, outputs: {{dev: {{type: duckdb, path: x.duckdb, threads: {ODD[kind]}}}}}}}\n",
        "target": f"shop: {{target: {ODD[kind]}, outputs: {{dev: {{type: duckdb}}}}}}\n",
        "profile": f"shop: {ODD[kind]}\n",
        "project": f"name: shop\nprofile: shop\nvars: {ODD[kind]}\n",
    }
    (project.folder / ("dbt_project.yml" if place == "project" else "profiles.yml")).write_text(texts[place])
    try:
        assert named(project) == ("shop", "dev")
        with project.connect():
            pass
    except DinmoError as error:
        assert str(error)[:4] == "DB70" and len(str(error)) < 1_000, str(error)[:300]
