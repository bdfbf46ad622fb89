"""What dbt says of its own run decides what may be synced."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from dinmo_dbt.cli import turn

from .lab import DINMO, EVENTS, PEOPLE, Lab, Org, dbt

pytestmark = pytest.mark.slow

STATUSES = ("people_to_crm", "events_to_crm", "companies_to_crm")


@pytest.fixture
def failing(lab: Lab) -> Lab:
    """The last `dbt build` had a failing test of `people`."""
    path = lab.root / "target" / "run_results.json"
    results = json.loads(path.read_text())
    for result in results["results"]:
        if result["unique_id"].startswith("test.lab.unique_people"):
            result["status"], result["failures"] = "fail", 1
    path.write_text(json.dumps(results))
    return lab


def test_a_failing_test_blocks_its_model_only(failing: Lab, org: Org) -> None:
    ran = failing.run("sync", "--json")
    assert ran.code == 4
    assert [ran.result(name)["status"] for name in STATUSES] == ["blocked", "success", "success"]
    assert "test failed: unique_people_person_id" in ran.err
    assert org.count("Person__c") == 0
    assert "would be skipped: test failed" in failing.run("plan").out
    assert failing.run("sync", "--ignore-gate", "-s", "people").code == 0
    assert org.count("Person__c") == 30


def test_a_manifest_of_another_target_is_refused(lab: Lab, org: Org) -> None:
    profiles = lab.root / "profiles.yml"
    profiles.write_text(profiles.read_text() + "    prod: {type: duckdb, path: prod.duckdb, threads: 1}\n")
    (lab.root / "dinmo.yml").write_text(DINMO + "      prod: {org: emulator}\n")
    shutil.copy(lab.root / "lab.duckdb", lab.root / "prod.duckdb")
    refused = lab.run("sync", "--target", "prod")
    assert refused.code == 4, refused.all
    assert "the manifest's database is 'lab', the connected target's is 'prod'" in refused.err
    assert org.count("Person__c") == 0
    by_variable = lab.run("sync", DBT_TARGET="prod")
    assert by_variable.code == 4, by_variable.all


def test_an_empty_build_is_refused(lab: Lab, org: Org) -> None:
    assert lab.run("sync", "-s", "people").code == 0
    assert dbt(lab.root, "run", "--empty").returncode == 0
    refused = lab.run("sync")
    assert refused.code == 4, refused.all
    assert "empty" in refused.err
    assert org.count("Person__c") == 30


def test_run_syncs_what_dbt_built_and_no_more(lab: Lab, org: Org) -> None:
    ran = lab.process("run", "--json", "--", "dbt", "build", "--select", "companies")
    assert ran.code == 0, ran.all
    assert [result["activation"] for result in ran.json["results"]] == ["companies_to_crm"]
    assert "Completed successfully" in ran.err, "dbt's output is passed through"
    assert org.count("Person__c") == 0


def test_run_syncs_the_healthy_models_and_says_that_dbt_failed(lab: Lab, org: Org) -> None:
    (lab.root / "models" / "people.sql").write_text("select * from nowhere\n")
    ran = lab.process("run", "--json", "--", "dbt", "run")
    assert ran.code == 1, ran.all
    assert ran.result("people_to_crm")["status"] == "blocked"
    assert ran.result("companies_to_crm")["status"] == "success"


def test_run_syncs_nothing_when_dbt_left_no_results(lab: Lab, org: Org) -> None:
    (lab.root / "models" / "people.sql").write_text("select * from {{ ref('nowhere') }}\n")
    ran = lab.run("run", "--", "dbt", "build", "--project-dir", str(lab.root))
    assert ran.code == 1
    assert "nothing to sync" in ran.out
    assert org.count("Account") == 3


def test_run_fails_when_dbt_was_killed_by_a_signal(lab: Lab, org: Org) -> None:
    ran = lab.run("run", "--", "sh", "-c", "kill -9 $$")
    assert ran.code == 1
    assert "nothing to sync" in ran.out


@pytest.mark.parametrize(
    ("ours", "theirs"), [(("--target", "dev"), ("--target", "prod")), (("--vars", "{a: 1}"), ("--vars={a: 2}",))]
)
def test_run_refuses_flags_that_disagree(lab: Lab, ours: tuple[str, ...], theirs: tuple[str, ...]) -> None:
    ran = lab.run("run", *ours, "--", "dbt", "build", *theirs)
    assert ran.code == 2
    assert f"{ours[0]} is " in ran.err


def test_run_says_that_a_command_is_missing(lab: Lab) -> None:
    assert lab.run("run").code == 2
    ran = lab.run("run", "--", "dbt-that-is-not-there", "build")
    assert ran.code == 2
    assert "not on the PATH" in ran.err


def test_without_a_manifest_the_message_says_what_to_run(lab: Lab) -> None:
    (lab.root / "target" / "manifest.json").unlink()
    for command in ("list", "validate --no-parse", "plan --no-parse", "sync", "status"):
        ran = lab.run(*command.split())
        assert ran.code == 2, command
        assert "manifest.json" in ran.err and "dbt parse" in ran.err
        assert len(ran.err.splitlines()) <= 4


def test_without_dinmo_yml_the_message_says_so(lab: Lab) -> None:
    (lab.root / "dinmo.yml").unlink()
    ran = lab.run("sync")
    assert ran.code == 2
    assert "dinmo.yml" in ran.err
    assert len(ran.err.splitlines()) <= 4 * 3


def test_outside_a_project(lab: Lab, tmp_path: Path) -> None:
    ran = lab.run("plan", "--project-dir", str(tmp_path))
    assert ran.code == 2
    assert "no dbt_project.yml" in ran.err


def test_a_disabled_activation_is_skipped(lab: Lab, org: Org) -> None:
    lab.only("people", {**PEOPLE, "enabled": False})
    ran = lab.run("sync", "--json")
    assert ran.code == 0
    assert ran.result("people_to_crm")["status"] == "skipped"
    assert EVENTS["name"] not in ran.out


def while_it_is_read(lab: Lab, monkeypatch: pytest.MonkeyPatch, status: str, *, model: str = "people") -> None:
    """Another dbt build of one model ends once its rows are read, before any is sent."""
    draw = turn.draw_plan

    def drawn(*arguments: Any, **more: Any) -> Any:
        plan = draw(*arguments, **more)
        path = lab.root / "target" / "run_results.json"
        results = json.loads(path.read_text())
        results["metadata"] |= {"invocation_id": "meanwhile", "generated_at": "2030-01-01T00:00:00Z"}
        results["results"] = [each for each in results["results"] if model in each["unique_id"]]
        for each in results["results"]:
            each["timing"] = []
            if each["unique_id"].startswith("test."):
                each["status"] = status
        path.write_text(json.dumps(results))
        return plan

    monkeypatch.setattr(turn, "draw_plan", drawn)


@pytest.mark.parametrize(
    ("status", "model", "code", "told"),
    [
        ("fail", "people", 4, "DB450"),
        ("pass", "people", 4, "DB458"),
        ("pass", "companies", 0, ""),
    ],
)
def test_rows_that_dbt_judged_again_while_they_were_read_are_not_sent(
    lab: Lab, org: Org, monkeypatch: pytest.MonkeyPatch, status: str, model: str, code: int, told: str
) -> None:
    while_it_is_read(lab, monkeypatch, status, model=model)
    ran = lab.run("sync", "-s", "people")
    assert ran.code == code and told in ran.all, ran.all
    assert org.count("Person__c") == (0 if code else 30)
    monkeypatch.undo()


def test_what_is_due_and_was_built_again_while_it_was_read_stays_due(
    lab: Lab, org: Org, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.only("people", PEOPLE)
    while_it_is_read(lab, monkeypatch, "pass")
    put_off = lab.run("sync", "--due")
    assert (put_off.code, org.count("Person__c")) == (0, 0), put_off.all
    assert "built it again since its rows were read" in put_off.all
    monkeypatch.undo()
    assert lab.run("sync", "--due").code == 0
    assert org.count("Person__c") == 30
