"""What is due, what is paused, what was told: whole commands, with the clock of the machine."""

from __future__ import annotations

import json
import re
import shlex
import sqlite3
import subprocess
import sys
import uuid
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from cronsim import CronSim
from test_channels import Receiver

from .lab import COMPANIES, DINMO, PEOPLE, Lab, Org, dbt, environment

pytestmark = pytest.mark.slow

CHANNELS = "warnings:\n  channels: [\"{{ env_var('HOOK', '') }}\"]\n"
NIGHT = {"cron": "0 3 * * *", "timezone": "Europe/Paris"}


@pytest.fixture
def hook(lab: Lab, receiver: Receiver) -> dict[str, str]:
    (lab.root / "dinmo.yml").write_text(DINMO + CHANNELS)
    return {"HOOK": f"http://127.0.0.1:{receiver.port}/x"}


def titles(receiver: Receiver) -> list[str]:
    return [json.loads(asked[3])["title"].removeprefix("dinmo-dbt [dev] ") for asked in receiver.asked]


def rebuilt(lab: Lab, **statuses: str) -> str:
    """What another `dbt build` leaves: its new invocation id. `statuses` of models, else success."""
    invocation = str(uuid.uuid4())
    for name in ("manifest.json", "run_results.json"):
        path = lab.root / "target" / name
        content = json.loads(path.read_text())
        content["metadata"]["invocation_id"] = invocation
        for result in content.get("results", ()):
            model = result["unique_id"].removeprefix("model.lab.")
            result["status"] = statuses.get(model, "pass" if result["unique_id"].startswith("test.") else "success")
        path.write_text(json.dumps(content))
    return invocation


def moved(lab: Lab, seconds: float, name: str = "people_to_crm") -> None:
    """As if the activation had last run so long before."""
    with closing(sqlite3.connect(lab.root / ".dinmo/history.db")) as connection, connection:
        connection.execute("UPDATE activity SET since = since - ? WHERE name = ?", (seconds, name))


def due(lab: Lab, **variables: str) -> list[tuple[str, str]]:
    """The activations that `sync --due` had a word on, with their statuses."""
    ran = lab.run("sync", "--due", "--json", **variables)
    return [(result["activation"], result["status"]) for result in ran.json["results"]]


def entry(lab: Lab, name: str = "people_to_crm") -> dict[str, Any]:
    found: list[dict[str, Any]] = lab.run("schedule", "--json").json["activations"]
    return next(each for each in found if each["activation"] == name)


# Due


def test_after_dbt_each_activation_is_due_once_for_each_build_of_its_model(lab: Lab, org: Org) -> None:
    rebuilt(lab)
    assert [status for _, status in due(lab)] == ["success"] * 3
    assert due(lab) == []
    told = lab.run("sync", "--due")
    assert told.code == 0 and told.out == "nothing is due\n"
    assert not [path for _, path, _ in lab.requests[len(lab.requests) :]]
    invocation = rebuilt(lab, companies="no-op")
    assert sorted(name for name, _ in due(lab)) == ["events_to_crm", "people_to_crm"]
    run = lab.run("history", "--json", "--limit", "1").json["runs"][0]
    assert run["trigger"] == {
        "kind": "due", "said": f"after dbt ({invocation[:8]})", "due": None, "passed": 0, "invocation": invocation,
    }  # fmt: skip


def test_what_a_build_made_is_owed_though_a_later_command_wrote_over_its_answer(
    lab: Lab, org: Org, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`dbt build || dbt retry`, and `dbt run`, then `dbt test`: run_results.json tells of the last command alone."""
    (lab.root / "models/bad.sql").write_text(
        "select 1 as id {% if env_var('BROKEN', '') %} from nowhere {% endif %}", encoding="utf-8"
    )
    rebuilt(lab)
    assert len(due(lab)) == 3
    monkeypatch.setenv("BROKEN", "1")
    assert dbt(lab.root, "build").returncode == 1
    monkeypatch.delenv("BROKEN")
    retried = dbt(lab.root, "retry")
    assert retried.returncode == 0, retried.stdout
    assert entry(lab, "events_to_crm")["due"].startswith("after dbt (at 20")
    ran = lab.run("sync", "--due", "--json")
    by_name = {each["activation"]: each for each in ran.json["results"]}
    assert {name: each["status"] for name, each in by_name.items()} == {
        "events_to_crm": "success", "companies_to_crm": "success", "people_to_crm": "blocked",
    }  # fmt: skip
    assert "a later dbt command wrote over the answer" in ran.all, "what its tests found nobody knows any more"
    assert due(lab) == []

    done = dbt(lab.root, "run", "--select", "events")
    assert done.returncode == 0 and dbt(lab.root, "test", "--select", "companies").returncode == 0
    assert due(lab) == [("events_to_crm", "success")]
    assert due(lab) == []


def test_with_nothing_due_no_call_is_made_and_the_database_is_not_opened(lab: Lab, org: Org) -> None:
    rebuilt(lab)
    due(lab)
    before = len(lab.requests)
    (lab.root / "lab.duckdb").rename(lab.root / "away")
    assert lab.run("sync", "--due").code == 0
    assert len(lab.requests) == before


def test_a_sync_by_hand_is_the_run_of_its_build(lab: Lab, org: Org) -> None:
    rebuilt(lab)
    assert lab.run("sync").code == 0
    assert due(lab) == []


def test_what_dbt_built_in_quiet_hours_or_a_pause_is_due_after_them(lab: Lab, org: Org) -> None:
    quiet = {"from": "00:00", "to": "23:59"}
    lab.only("people", {**PEOPLE, "quiet_hours": quiet})
    owed = rebuilt(lab)
    assert due(lab) == []
    rebuilt(lab, people="no-op")
    lab.only("people", PEOPLE)
    assert entry(lab)["due"] == f"after dbt ({owed[:8]})"
    assert due(lab) == [("people_to_crm", "success")]
    assert due(lab) == []
    assert lab.run("pause", "--reason", "x").code == 0
    rebuilt(lab)
    assert due(lab) == []
    rebuilt(lab, people="no-op")
    assert lab.run("resume").code == 0
    assert due(lab) == [("people_to_crm", "success")]


def test_a_build_that_failed_in_quiet_hours_is_not_made_up_for(lab: Lab, org: Org) -> None:
    lab.only("people", {**PEOPLE, "quiet_hours": {"from": "00:00", "to": "23:59"}})
    rebuilt(lab, people="error")
    assert due(lab) == []
    rebuilt(lab, people="no-op")
    lab.only("people", PEOPLE)
    assert due(lab) == []


def test_a_build_that_failed_blocks_its_run_once_and_is_reported_once(
    lab: Lab, org: Org, receiver: Receiver, hook: dict[str, str]
) -> None:
    rebuilt(lab, people="error")
    assert ("people_to_crm", "blocked") in due(lab, **hook)
    assert due(lab, **hook) == []
    assert entry(lab)["last_run"]["status"] == "blocked"
    rebuilt(lab, people="error")
    assert ("people_to_crm", "blocked") in due(lab, **hook)
    rebuilt(lab)
    assert ("people_to_crm", "success") in due(lab, **hook)
    assert titles(receiver) == ["people_to_crm: refused", "people_to_crm: refused recovered"]


def test_an_interval_is_due_at_once_and_then_when_it_has_passed(lab: Lab, org: Org) -> None:
    lab.only("people", {**PEOPLE, "schedule": "every 2 hours"})
    assert due(lab) == [("people_to_crm", "success")]
    assert due(lab) == []
    moved(lab, 7 * 3600)
    assert (entry(lab)["due"].startswith("every 2 hours: due at ") and entry(lab)["due"].endswith("and 2 earlier")) or (
        entry(lab)["due"].endswith("and 3 earlier")
    )
    assert due(lab) == [("people_to_crm", "success")]
    run = lab.run("history", "--json", "--limit", "1").json["runs"][0]
    assert run["trigger"]["passed"] in (2, 3)


def test_a_cron_line_waits_for_its_moment_from_when_it_is_first_seen(lab: Lab, org: Org) -> None:
    lab.only("people", {**PEOPLE, "schedule": NIGHT})
    assert due(lab) == []
    told = lab.run("sync", "--due").out.splitlines()
    assert told[0] == "nothing is due" and told[1].startswith("  next: people_to_crm at ")
    moved(lab, 86400)
    assert due(lab) == [("people_to_crm", "success")]
    assert due(lab) == []


def test_in_quiet_hours_nothing_starts_by_itself(lab: Lab, org: Org) -> None:
    quiet = {"from": "00:00", "to": "23:59"}
    lab.only("people", {**PEOPLE, "schedule": "every 1 minute", "quiet_hours": quiet})
    assert due(lab) == []
    assert "quiet 00:00-23:59 (UTC)" in lab.run("schedule").out
    assert lab.run("sync").code == 0, "by hand it does"


def test_manual_and_disabled_are_never_due(lab: Lab, org: Org) -> None:
    lab.only("people", {**PEOPLE, "schedule": "manual"}, {**PEOPLE, "name": "off", "enabled": False})
    rebuilt(lab)
    assert due(lab) == []
    assert lab.run("schedule").out.splitlines() == [
        "off: after_dbt", "  last  never", "  next  not enabled",
        "people_to_crm: manual", "  last  never", "  next  by hand",
    ]  # fmt: skip


# Schedulers outside


@pytest.fixture
def mixed(lab: Lab) -> Lab:
    schedules = [("people_to_crm", "every 15 minutes"), ("nightly", NIGHT), ("built", "after_dbt")]
    lab.only("people", *({**PEOPLE, "name": name, "schedule": when} for name, when in schedules))
    return lab


def test_what_has_a_line_break_breaks_no_line_of_a_schedule(mixed: Lab) -> None:
    many = "a: |\n  * * * * * root x\nb: 2\n"
    for kind in ("crontab", "github-actions"):
        plain = mixed.run("schedule", "--emit", kind, "--vars", "{a: 1}")
        ran = mixed.run("schedule", "--emit", kind, "--vars", many)
        assert ran.code == 0 and len(ran.out.splitlines()) == len(plain.out.splitlines()), ran.all
        assert "\n* * *" not in ran.out and "root x" in ran.out
        refused = mixed.run("schedule", "--emit", kind, "--target-path", "target\n* * * * * root x")
        assert (refused.code, refused.out) == (2, "") and "DB" in refused.err, refused.all


@pytest.mark.parametrize("emit", ["crontab", "github-actions"])
def test_what_is_emitted_says_which_activation_it_leaves_out(lab: Lab, org: Org, emit: str) -> None:
    lab.declare("people", {**PEOPLE, "schedule": {"every": "1 hour"}})
    lab.declare("companies", {**COMPANIES, "schedule": {"cron": "0 9 L * *"}})
    ran = lab.run("schedule", "--emit", emit)
    assert "companies" in ran.err and "cron" in ran.err, ran.all
    assert ran.out and "DB1" not in ran.out, "what is copied has no message in it"


def test_the_crontab_wakes_it_and_its_command_runs_as_cron_runs_it(mixed: Lab) -> None:
    """By the installed program: /bin/sh, four variables, and no folder of ours on the PATH (crontab(5))."""
    root = mixed.root.rename(mixed.root.with_name("50% of it's"))
    mixed = Lab(root)
    lines = mixed.process("schedule", "--emit", "crontab").out.splitlines()
    crons = [line for line in lines if line[0].isdigit() or line[0] == "*"]
    assert len(crons) == 2 and lines[-1].endswith("(for built)")
    assert not [line for line in lines if line.startswith("CRON_TZ")], "Debian's cron has none"
    for line in crons:
        next(CronSim(" ".join(line.split()[:5]), datetime(2026, 1, 1, tzinfo=UTC)))
        command = line.split(maxsplit=5)[5]
        assert not re.search(r"(?<!\\)%", command), "cron ends a line there"
        done = subprocess.run(
            ["/usr/bin/env", "-i", f"HOME={root.parent}", "SHELL=/bin/sh", "LOGNAME=x", "PATH=/usr/bin:/bin",
             "/bin/sh", "-c", command.replace("\\%", "%")],
            cwd="/", capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        log = (root / "logs" / "dinmo-dbt.log").read_text(encoding="utf-8")
        assert done.returncode == 0, done.stdout + done.stderr + log
        assert done.stdout + done.stderr == "", "cron would mail it"
    assert "30 sent" in log and "nothing is due" in log


def test_what_env_var_reads_is_named_and_places_are_handed_on(mixed: Lab, org: Org) -> None:
    (mixed.root / "profiles").mkdir()
    profiles = (mixed.root / "profiles.yml").rename(mixed.root / "profiles" / "profiles.yml")
    text = profiles.read_text(encoding="utf-8")
    text = text.replace("threads: 1", "threads: \"{{ env_var('THREADS', '1') | int }}\"")
    text += "    prod: {type: duckdb, path: \"{{ env_var('OF_PROD') }}\"}\nother: \"{{ env_var('OF_OTHER') }}\"\n"
    profiles.write_text(text + "# {{ env_var('OF_A_COMMENT') }}\n", encoding="utf-8")
    org_of = (
        "{{organization_id: \"{{{{ env_var('SF_ORG{0}') }}}}\", auth: {{flow: access_token, "
        'instance_url: "https://acme.my.salesforce.com", access_token: "{{{{ env_var(\'SF_TOKEN{0}\') }}}}"}}}}'
    )
    targets = f"      dev: {org_of.format('')}\n      prod: {org_of.format('_OF_PROD')}\n"
    targets += "      # stage: \"{{ env_var('OF_A_COMMENT') }}\"\n"
    (mixed.root / "dinmo.yml").write_text(f"destinations:\n  crm:\n    targets:\n{targets}", encoding="utf-8")
    given = ("--profiles-dir", str(mixed.root / "profiles"))
    lines = mixed.run("schedule", "--emit", "crontab", *given).out.splitlines()
    assert [line for line in lines if "=" in line and line.startswith("# ")] == [
        "# SF_ORG=", "# SF_TOKEN=", "# (THREADS=)",
    ]  # fmt: skip
    assert all("--profiles-dir profiles" in line for line in lines if "sync --due" in line and "&&" in line)
    workflow = yaml.safe_load(mixed.run("schedule", "--emit", "github-actions", *given).out)
    env = workflow["jobs"]["sync"]["env"]
    assert env["SF_TOKEN"] == "${{ secrets.SF_TOKEN }}" and "THREADS" not in env
    assert not [name for name in env if name.startswith("OF_") or "PROD" in name], "nothing here reads those"


def test_the_workflow_keeps_the_state_and_finds_the_project_in_its_repository(mixed: Lab, org: Org) -> None:
    (mixed.root.parent / ".git").mkdir()
    job = yaml.safe_load(mixed.run("schedule", "--emit", "github-actions").out)["jobs"]["sync"]
    assert job["defaults"] == {"run": {"working-directory": "lab"}}
    paths = {step["uses"]: step["with"]["path"] for step in job["steps"] if "cache" in step.get("uses", "")}
    assert paths == {"actions/cache/restore@v4": "lab/.dinmo", "actions/cache/save@v4": "lab/.dinmo"}
    assert job["steps"][-1]["if"] == "always()", "what a failed run has sent is known to the next"
    dinmo = mixed.root / "dinmo.yml"
    dinmo.write_text(dinmo.read_text(encoding="utf-8") + "state: {warehouse: {schema: main}}\n", encoding="utf-8")
    job = yaml.safe_load(mixed.run("schedule", "--emit", "github-actions").out)["jobs"]["sync"]
    assert not [step for step in job["steps"] if "cache" in step.get("uses", "")]


def test_a_place_and_variables_with_signs_of_yaml_stay_themselves(lab: Lab) -> None:
    lab.only("people", {**PEOPLE, "schedule": "every 30 minutes"})
    (lab.root.parent / ".git").mkdir()
    lab = Lab(lab.root.rename(lab.root.with_name("it's: {dbt, 50%} #1")))
    variables = ["--vars", "{day: 2, why: 'a #1'}"]
    ran = lab.process("schedule", "--emit", "github-actions", *variables)
    assert ran.code == 0, ran.all
    job = yaml.safe_load(ran.out)["jobs"]["sync"]
    assert job["defaults"]["run"]["working-directory"] == lab.root.name
    commands = [shlex.split(step["run"]) for step in job["steps"] if "dinmo-dbt sync" in step.get("run", "")]
    assert [command[-2:] for command in commands] == [variables]
    paths = [step["with"]["path"] for step in job["steps"] if "cache" in step.get("uses", "")]
    assert paths == [f"{lab.root.name}/.dinmo"] * 2


def test_github_is_asked_for_five_minutes_at_the_least(lab: Lab, org: Org) -> None:
    lab.only("people", {**PEOPLE, "schedule": "every 1 minute"})
    workflow = yaml.safe_load(lab.run("schedule", "--emit", "github-actions").out)
    assert [each["cron"] for each in workflow[True]["schedule"]] == ["*/5 * * * *"]


def test_the_github_workflow_is_yaml_and_its_commands_run(mixed: Lab, org: Org) -> None:
    workflow = yaml.safe_load(mixed.run("schedule", "--emit", "github-actions").out)
    assert [each["cron"] for each in workflow[True]["schedule"]] == ["*/15 * * * *", "0 1,2 * * *"]  # YAML's `on`
    steps = workflow["jobs"]["sync"]["steps"]
    commands = [step["run"] for step in steps if "run" in step]
    assert commands[0].startswith("pip install -r requirements.txt")
    for command in commands[1:]:
        program, *arguments = shlex.split(command)
        done = subprocess.run(
            [str(Path(sys.executable).with_name(program)), *arguments],
            cwd=mixed.root, env=environment(), capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr


# Pauses


def test_what_is_paused_by_hand_runs_only_once_it_is_resumed(
    lab: Lab, org: Org, receiver: Receiver, hook: dict[str, str]
) -> None:
    rebuilt(lab)
    assert lab.run("pause", "-s", "people_to_crm", "--reason", "duplicates are cleaned up", **hook).code == 0
    assert lab.run("pause", "-s", "people_to_crm", "--reason", "again", **hook).out == "people_to_crm: paused already\n"
    for command in (("list",), ("status",), ("schedule",)):
        assert "paused" in lab.run(*command, **hook).out
    assert "people_to_crm" not in dict(due(lab, **hook))
    ran = lab.run("sync", "--json", **hook)
    assert ran.code == 0 and ran.result("people_to_crm")["status"] == "skipped"
    assert "duplicates are cleaned up" in ran.result("people_to_crm")["message"]
    assert "would be skipped: paused since" in lab.run("plan", **hook).out
    assert org.count("Person__c") == 0
    assert lab.run("resume", "-s", "people_to_crm", **hook).out == "people_to_crm: resumed\n"
    assert due(lab, **hook) == [("people_to_crm", "success")]
    assert titles(receiver) == ["people_to_crm: paused", "people_to_crm: resumed"]


def test_what_paused_by_itself_and_is_paused_by_hand_stays_paused_once_it_is_mended(lab: Lab, org: Org) -> None:
    broken = {**PEOPLE, "auto_pause": 1, "fields": {**PEOPLE["fields"], "note": "Nowhere__c"}}
    lab.only("people", broken)
    assert lab.run("sync").code == 2
    assert "paused by itself" in lab.run("status").out
    assert lab.run("pause", "--reason", "the field comes back on Monday").out == "people_to_crm: paused\n"
    assert lab.run("pause", "--reason", "again").out == "people_to_crm: paused already\n"
    told = lab.run("sync", "--quiet")
    assert (told.code, told.out, told.err) == (0, "", ""), "somebody paused it: nothing is wrong"
    lab.only("people", PEOPLE)
    assert "the field comes back on Monday" in lab.run("sync").out
    assert org.count("Person__c") == 0
    assert lab.run("resume").code == 0
    assert lab.run("sync").code == 0


def test_what_fails_for_a_lasting_reason_pauses_and_resumes_by_itself(
    lab: Lab, org: Org, receiver: Receiver, hook: dict[str, str]
) -> None:
    lab.only("people", PEOPLE)
    assert lab.run("sync", **hook).code == 0
    lab.only("people", {**PEOPLE, "fields": {**PEOPLE["fields"], "note": "Nowhere__c"}})
    for _ in range(3):
        assert lab.run("sync", **hook).code == 2
    silent = lab.run("sync", "--quiet", **hook)
    assert silent.code == 4 and silent.err.startswith("people_to_crm: not synced: paused by itself since ")
    before = len(lab.requests)
    still = lab.run("sync", "--json", **hook)
    assert still.code == 4 and still.result("people_to_crm")["status"] == "paused"
    assert "DB302" in still.result("people_to_crm")["message"]
    described = [path for _, path, _ in lab.requests[before:] if "describe" in path]
    assert len(described) == 1 and not [m for m, path, _ in lab.requests[before:] if "ingest" in path]
    assert "paused by itself" in lab.run("status", **hook).out
    lab.only("people", PEOPLE)
    mended = lab.run("sync", "--json", **hook)
    assert mended.code == 0 and mended.result("people_to_crm")["status"] == "success"
    assert "paused" not in lab.run("status", **hook).out
    assert titles(receiver) == [
        "people_to_crm: failed, drift", "people_to_crm: paused", "people_to_crm: resumed",
        "people_to_crm: failed, drift recovered",
    ]  # fmt: skip


def test_what_paused_by_itself_is_looked_at_again_as_soon_as_dbt_has_built_its_model(lab: Lab, org: Org) -> None:
    broken = {**PEOPLE, "auto_pause": 1, "fields": {**PEOPLE["fields"], "note": "Nowhere__c"}}
    lab.only("people", broken)
    rebuilt(lab)
    assert due(lab) == [("people_to_crm", "failed")]
    assert due(lab) == []
    rebuilt(lab)
    assert due(lab) == [("people_to_crm", "paused")]
    assert due(lab) == [], "it was looked at"
    lab.only("people", {**PEOPLE, "auto_pause": 1})
    assert due(lab) == []
    rebuilt(lab)
    assert due(lab) == [("people_to_crm", "success")]


@pytest.mark.parametrize("schedule", ["every 5 minutes", {"cron": "*/5 * * * *"}])
def test_what_runs_by_the_clock_and_paused_by_itself_is_looked_at_after_the_build_that_mends_it(
    lab: Lab, org: Org, schedule: object
) -> None:
    whole = {**PEOPLE, "auto_pause": 1, "schedule": schedule}
    lab.only("people", {**whole, "fields": {**PEOPLE["fields"], "note": "Nowhere__c"}})
    rebuilt(lab)
    if not due(lab):  # a cron line counts from when it was first seen
        moved(lab, 400)
        assert due(lab) == [("people_to_crm", "failed")]
    assert "paused by itself" in lab.run("status").out
    moved(lab, 400)
    assert due(lab) == [], "it failed 400 s ago, and nothing was built since"
    lab.only("people", whole)
    assert due(lab) == []
    rebuilt(lab)
    assert due(lab) == [("people_to_crm", "success")]


def test_salesforce_that_is_away_pauses_nothing_and_is_reported_once_for_all_and_once_when_it_is_back(
    lab: Lab, org: Org, receiver: Receiver, hook: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dinmo_dbt.salesforce.pauses.BACKOFF_MAX_S", 0.1)
    path, more = lab.root / "dinmo.yml", CHANNELS + "defaults: {auto_pause: 1}\n"
    path.write_text(
        "destinations:\n  crm:\n    targets:\n      dev:\n        login_url: http://127.0.0.1:9\n"
        "        auth: {flow: client_credentials, client_id: x, client_secret: \"{{ env_var('S') }}\"}\n" + more
    )
    ran = lab.run("sync", "--json", S="secret", **hook)
    assert ran.err.count("no answer from 127.0.0.1 (no connection): asking again for a while") == 1
    assert ran.code == 1 and ran.result("people_to_crm")["problems"][0]["code"] == "DB607"
    assert entry(lab)["paused"] is None
    assert entry(lab)["last_run"]["status"] == "failed", "a run that never reached its org is in the history"
    assert titles(receiver) == ["3 activations: failed"]
    text = json.loads(receiver.asked[0][3])["message"]
    assert text.startswith("DB607 ") and len(re.findall(r"_to_crm: dinmo-dbt history \S+ --target dev\n", text)) == 3
    path.write_text(DINMO + more)
    assert lab.run("sync", **hook).code == 0
    assert titles(receiver) == ["3 activations: failed", "3 activations: failed recovered"]
    assert "It was: DB607 " in json.loads(receiver.asked[1][3])["message"]
    assert lab.run("sync", **hook).code == 0
    assert len(receiver.asked) == 2, "nothing waits"


def test_a_service_of_incidents_gets_one_of_each_activation_and_its_end_after_its_beginning(
    lab: Lab, org: Org, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dinmo_dbt.salesforce.pauses.BACKOFF_MAX_S", 0.1)
    hook = {"HOOK": f"goalert://127.0.0.1:{receiver.port}/12345678-1234-1234-1234-123456789012"}
    (lab.root / "dinmo.yml").write_text(
        "destinations:\n  crm:\n    targets:\n      dev:\n        login_url: http://127.0.0.1:9\n"
        "        auth: {flow: client_credentials, client_id: x, client_secret: \"{{ env_var('S') }}\"}\n" + CHANNELS
    )
    receiver.behaviour = 500
    ran = lab.run("sync", S="secret", **hook)
    assert ran.code == 1 and "3 notices wait for the next command" in ran.err
    receiver.behaviour, receiver.asked[:] = 204, []
    (lab.root / "dinmo.yml").write_text(DINMO + CHANNELS)
    ran = lab.run("sync", **hook)
    assert ran.code == 0
    for _ in range(5):  # a busy machine has no time for all of them at the end of one command
        if "for the next command" in ran.err:
            ran = lab.run("sync", **hook)
    posts = [json.loads(asked[3]) for asked in receiver.asked]
    told = [(post["dedup"].rpartition("/")[2], post.get("action", "open")) for post in posts]
    for name in {name for name, _ in told}:
        assert [what for of, what in told if of == name] == ["open", "close"]
    assert len(told) == 6 and all(re.fullmatch(r"dinmo-dbt/\w+/dev/\w+_to_crm", post["dedup"]) for post in posts)


# What is told


def test_a_manifest_that_is_gone_is_reported_where_nobody_looks_on(
    lab: Lab, org: Org, receiver: Receiver, hook: dict[str, str]
) -> None:
    rebuilt(lab)
    manifest = lab.root / "target" / "manifest.json"
    text = manifest.read_text()
    manifest.unlink()
    for _ in range(2):
        assert lab.run("sync", "--due", **hook).code == 2
    manifest.write_text(text)
    assert lab.run("sync", "--due", **hook).code == 0
    assert [json.loads(asked[3])["title"] for asked in receiver.asked] == [
        "dinmo-dbt [dev]: no sync can run", "dinmo-dbt [dev]: syncs can run again",
    ]  # fmt: skip


def test_a_warehouse_that_is_away_is_reported_once_for_all(
    lab: Lab, org: Org, receiver: Receiver, hook: dict[str, str]
) -> None:
    rebuilt(lab)
    (lab.root / "lab.duckdb").rename(lab.root / "away")
    (lab.root / "lab.duckdb").mkdir()
    for _ in range(2):
        assert lab.run("sync", "--due", **hook).code == 1
    (lab.root / "lab.duckdb").rmdir()
    (lab.root / "away").rename(lab.root / "lab.duckdb")
    assert lab.run("sync", "--due", **hook).code == 0
    assert lab.run("sync", "--due", **hook).code == 0
    assert [json.loads(asked[3])["title"] for asked in receiver.asked] == [
        "dinmo-dbt [dev]: no sync can run", "dinmo-dbt [dev]: syncs can run again",
    ]  # fmt: skip


def test_a_state_that_is_damaged_is_left_as_it_is_and_reported_once(
    lab: Lab, org: Org, receiver: Receiver, hook: dict[str, str], tmp_path: Path
) -> None:
    hook |= {"XDG_STATE_HOME": str(tmp_path / "marks")}
    assert lab.run("sync", **hook).code == 0
    database = lab.root / ".dinmo/state.db"
    whole = database.read_bytes()
    database.write_bytes(whole[:5000])
    for _ in range(2):
        assert lab.run("sync", **hook).code == 5
    assert {run["status"] for run in lab.run("history", "--json").json["runs"]} == {"success"}
    assert database.read_bytes() == whole[:5000]
    database.write_bytes(whole)
    assert lab.run("sync", **hook).code == 0
    assert [json.loads(asked[3])["title"] for asked in receiver.asked] == [
        "dinmo-dbt [dev]: the state can't be used", "dinmo-dbt [dev]: syncs can run again",
    ]  # fmt: skip


def test_a_channel_that_is_down_fails_no_sync_and_gets_its_notices_later(
    lab: Lab, org: Org, receiver: Receiver, hook: dict[str, str]
) -> None:
    lab.only("people", {**PEOPLE, "warnings": {"full": True}})
    receiver.behaviour = 500
    ran = lab.run("sync", **hook)
    assert ran.code == 0
    assert "DB652" in ran.err and "1 notice waits for the next command" in ran.err
    receiver.behaviour, receiver.asked[:] = 200, []
    assert lab.run("sync", **hook).code == 0
    assert titles(receiver) == ["people_to_crm: full"]
    assert lab.run("sync", **hook).code == 0
    assert len(receiver.asked) == 1


def test_a_channel_that_was_down_for_long_gets_one_message_of_all_that_waits(
    lab: Lab, org: Org, receiver: Receiver, hook: dict[str, str]
) -> None:
    lab.only("people", {**PEOPLE, "warnings": {"full": True}})
    receiver.behaviour = 500
    for _ in range(3):
        ran = lab.run("sync", "--full", **hook)
        assert ran.code == 0, ran.all
    receiver.behaviour, receiver.asked[:] = 200, []
    assert lab.run("sync", **hook).code == 0
    (asked,) = receiver.asked
    told = json.loads(asked[3])
    number = int(
        re.fullmatch(r"dinmo-dbt \[dev\]: (\d+) notices since this channel was last reached", told["title"])[1]
    )
    lines = told["message"].splitlines()
    assert number >= 2
    assert sum(" UTC  " in line for line in lines) == number
    assert any(line.endswith("people_to_crm: full") for line in lines)
    receiver.asked.clear()
    assert lab.run("sync", **hook).code == 0
    assert receiver.asked == []


def test_no_channel_means_nothing_waits(lab: Lab, org: Org) -> None:
    lab.only("people", {**PEOPLE, "warnings": {"full": True}})
    assert lab.run("sync").code == 0
    with closing(sqlite3.connect(lab.root / ".dinmo/history.db")) as connection:
        assert connection.execute("SELECT count(*) FROM notice").fetchone() == (0,)


def test_the_digest_comes_once_a_day(lab: Lab, org: Org, receiver: Receiver, hook: dict[str, str]) -> None:
    (lab.root / "dinmo.yml").write_text(DINMO + CHANNELS + '  digest: "00:00"\n')
    assert lab.run("sync", **hook).code == 0
    assert receiver.asked == [], "the first is of the day after"
    moved(lab, 86400, " digest")
    with closing(sqlite3.connect(lab.root / ".dinmo/history.db")) as connection, connection:
        connection.execute("UPDATE run SET started = started - 86400")
    for _ in range(2):
        assert lab.run("sync", "--due", **hook).code == 0
    assert titles(receiver) == ["3 activations: 0 warnings open"]
    assert "people_to_crm: 1 run (1 success), 30 sent" in json.loads(receiver.asked[0][3])["message"]


# The history


def test_a_run_tells_why_it_ran_with_what_and_how_fast(lab: Lab, org: Org) -> None:
    lab.only("people", PEOPLE)
    assert lab.run("sync").code == 0
    run = lab.run("history", "--json").json["runs"][0]
    whole = lab.run("history", run["run_id"], "--json").json["run"]
    assert whole == run
    assert run["trigger"]["kind"] == "by_hand" and run["target"] == "dev"
    assert run["resent"] == "first sync to this org"
    assert set(run["versions"]) == {"dinmo_dbt", "dbt", "adapter"} and run["versions"]["adapter"] == "duckdb"
    assert len(run["plan_digest"]) == 64
    assert set(run["phase_seconds"]) == {"recover", "plan", "send", "audit"} and run["seconds"] > 0
    assert run["rows_per_second"] > 0 and run["api_calls"] > 0
    assert 0 < run["calls_used"] < run["calls_allowed"] == 100_000
    assert run["field_types"]["Plan__c"] == "picklist"
    told = lab.run("history", run["run_id"]).out
    for part in ("dbt target dev, org 00D", "why: by hand", "rows/s sent", "first sync to this org", "adapter duckdb"):
        assert part in told
    assert lab.run("sync").code == 0
    assert lab.run("history", "--json", "--limit", "1").json["runs"][0]["resent"] == ""
