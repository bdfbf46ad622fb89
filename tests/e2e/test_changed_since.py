"""A manifest is of the project as dbt read it: what was changed since is said by each command that goes by it."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

import pytest

from dinmo_dbt.config.written import written

from .lab import Lab, Org, dbt

pytestmark = pytest.mark.slow


def edit(lab: Lab, file: str, old: str, new: str) -> None:
    path = lab.root / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    later(path)


def later(path: Path) -> None:
    at = time.time() + 5
    os.utime(path, (at, at))


def test_validate_and_plan_have_dbt_parse_what_was_edited(lab: Lab, org: Org) -> None:
    edit(lab, "models/models.yml", '"mode": "upsert"', '"mode": "mirror"')
    left = lab.run("validate", "--no-parse")
    assert left.code == 0 and "DB206" in left.err and "models/models.yml" in left.err, left.all
    assert "DB206" in lab.run("sync", "-s", "companies").err
    ran = lab.run("validate")
    assert ran.code == 2 and "'mirror' is not allowed" in ran.err and "DB206" not in ran.err, ran.all
    edit(lab, "models/models.yml", '"mode": "mirror"', '"mode": "upsert"')
    ran = lab.run("plan")
    assert ran.code == 0 and "DB206" not in ran.err, ran.all


def test_what_dbt_never_read_is_parsed_too(lab: Lab) -> None:
    (lab.root / "target" / "manifest.json").unlink()
    ran = lab.run("validate", "--no-parse")
    assert ran.code == 2 and "DB201" in ran.err, ran.all
    ran = lab.run("validate")
    assert ran.code == 0 and "DB2" not in ran.err, ran.all
    (lab.root / "target" / "manifest.json").write_text('{"metadata": ')
    assert lab.run("validate").code == 0
    (lab.root / "target" / "manifest.json").unlink()
    edit(lab, "models/models.yml", '"version": 2', '"version": [')
    ran = lab.run("validate")
    assert ran.code == 2 and "DB207" in ran.err and "DB201" not in ran.err, ran.all


def test_what_dbt_can_not_parse_is_said_by_all(lab: Lab, org: Org) -> None:
    edit(lab, "models/models.yml", '"version": 2', '"version": [')
    for command in ("validate", "plan"):
        ran = lab.run(command)
        assert ran.code == 2 and "DB207" in ran.err, ran.all
    for command in ("sync", "list", "plan --no-parse"):
        ran = lab.run(*command.split())
        assert ran.code == 0 and "DB206" in ran.err, ran.all


@pytest.mark.parametrize(
    ("file", "text", "place"),
    [
        ("models/more/new.yml", "models:\n  - name: [\n", "models/more/new.yml:"),
        ("models/people.sql", "select {{ config( }} 1", "models/people.sql"),
        ("models/people.sql", "select * from {{ ref('nobody') }}", "models/people.sql"),
        ("macros/m.sql", "{% macro m() %}1", "macros/m.sql"),
        ("models/new.yml", "models: [{name: people, config: {meta: {dinmo: {fields: {2026-01-05: A}}}}}]",
         "models/new.yml:1: models.people.config.meta.dinmo.fields.2026-01-05"),
    ],
)  # fmt: skip
def test_the_file_that_dbt_can_not_read_is_named(file: str, text: str, place: str, lab: Lab) -> None:
    path = lab.root / file
    if file == "models/new.yml":
        (lab.root / "models" / "models.yml").unlink()
        # What dbt warns of on the way is not what it ends at.
        (lab.root / "models" / "warned.yml").write_text("models: [{name: nobody}]\n")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    later(path)
    ran = lab.run("validate")
    assert ran.code == 2 and f"DB207  {place}" in ran.err, ran.all


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("dbt_project.yml", "name: lab\nversion: ["),
        ("profiles.yml", "lab: ["),
        ("profiles.yml", "lab: {target: gone, outputs: {}}"),
    ],
)
def test_what_neither_of_us_can_read_is_reported_once(file: str, text: str, lab: Lab) -> None:
    path = lab.root / file
    path.write_text(text)
    later(path)
    later(lab.root / "models" / "people.sql")
    for command in ("validate", "plan"):
        (problem,) = lab.run(command, "--json").json["problems"]
        assert problem["code"] in ("DB701", "DB703") and problem["where"].endswith(file), problem


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("models/people.sql", "select 1 as person_id"),
        ("models/more.yml", "models: []"),
        ("models/deep/new.sql", "select 1 as a"),
        ("macros/m.sql", "{% macro m() %}1{% endmacro %}"),
        ("dbt_project.yml", "name: lab\nversion: '1.0'\nprofile: lab\n"),
    ],
)
def test_each_kind_of_file_is_looked_at(lab: Lab, file: str, text: str) -> None:
    path = lab.root / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    later(path)
    ran = lab.run("list")
    assert ran.code == 0 and file in " ".join(ran.err.split()), ran.all


def test_a_file_that_is_gone(lab: Lab) -> None:
    (lab.root / "models" / "events.sql").unlink()
    assert "models/events.sql" in lab.run("list").err


def test_what_is_the_same_in_a_newer_file_is_no_change(lab: Lab) -> None:
    for path in lab.root.rglob("*.*"):
        if "target" not in path.parts:
            later(path)
    assert lab.run("list").err == ""


@pytest.mark.parametrize("all_newer", [True, False])
def test_without_dbts_notes_times_tell_but_not_those_of_a_checkout(lab: Lab, tmp_path: Path, all_newer: bool) -> None:
    root = Path(shutil.copytree(lab.root, tmp_path / "copy"))
    (root / "target" / "partial_parse.msgpack").write_bytes(b"\x81\xa5files\xc0")
    files = [root / file for file in written(root, {}).changed]
    for path in files if all_newer else files[:1]:
        later(path)
    assert ("DB206" in Lab(root).run("list").err) is not all_newer


def test_a_target_folder_that_dbt_renders(lab: Lab) -> None:
    project = lab.root / "dbt_project.yml"
    project.write_text(project.read_text() + "target-path: \"{{ env_var('PLACE', var('place', 'target')) }}\"\n")
    assert lab.run("list").code == 0
    (lab.root / "target").rename(lab.root / "made")
    assert "DB201" in lab.run("list").err
    assert lab.run("list", PLACE="made").code == 0
    assert lab.run("list", "--vars", "{place: made}").code == 0
    project.write_text(project.read_text().replace(", var('place', 'target')", ""))
    ran = lab.run("list")
    assert ran.code == 2 and "DB209" in ran.err and "'PLACE' is not set" in ran.err, ran.all
    assert lab.run("list", "--target-path", "made").code == 0


def test_what_dbt_rendered_with_other_environment_variables(lab: Lab, org: Org) -> None:
    models = json.loads((lab.root / "models" / "models.yml").read_text())
    people = models["models"][0]["config"]["meta"]["dinmo"]["activations"][0]
    people["where"] = "score > {{ env_var('LEAST', '1') }}"
    (lab.root / "models" / "models.yml").write_text(json.dumps(models))
    assert dbt(lab.root, "parse").returncode == 0
    assert "DB208" not in lab.run("plan", "--no-parse").err
    ran = lab.run("plan", "--no-parse", LEAST="30")
    assert "DB208" in ran.err and "'LEAST'" in " ".join(ran.err.split()), ran.all
    ran = lab.run("plan", LEAST="30", DBT_SEND_ANONYMOUS_USAGE_STATS="false")
    assert "read 1," in ran.out and "DB208" not in ran.err, ran.all
