"""`serve` as a user runs it: real processes, real HTTP, real artifacts."""

from __future__ import annotations

import gc
import hashlib
import hmac
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from dbt_cloud_standin import TOKEN, Fault, Ran, StandIn, Step, cloned, step_of
from test_channels import Receiver

from dinmo_dbt.cli import service as serving_module

from .lab import DINMO, EVENTS, PEOPLE, Lab, Org, until
from .service import HURRIED, Service, serving
from .test_scheduling import CHANNELS, moved, rebuilt, titles

pytestmark = pytest.mark.slow

PLAIN_EVENTS = {**EVENTS, "fields": {"event_id": "Ref__c", "kind": "Kind__c"}}
SECRET = "CANARY-webhook-secret"


@pytest.fixture
def hook(lab: Lab, receiver: Receiver) -> dict[str, str]:
    (lab.root / "dinmo.yml").write_text(DINMO + CHANNELS)
    return {"HOOK": f"json://127.0.0.1:{receiver.port}/x"}


def runs(lab: Lab) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = lab.run("history", "--json", "--limit", "1000").json["runs"]
    return found


# Stopping and starting again


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_asked_to_stop_in_the_middle_of_a_sync_it_ends_within_seconds_and_the_next_start_goes_on(
    lab: Lab, number: int, code: int
) -> None:
    lab.only("events", PLAIN_EVENTS)
    rebuilt(lab)
    with lab.emulator("--batch-delay", "3") as (org, _):
        with serving(lab) as service:
            until(lambda: [job for job in org.jobs() if job["state"] == "InProgress"])
            assert service.end(number)[0] == code, service.all  # a process that has to be killed has another one
        assert "what was sent is journalled" in service.all
        with serving(lab) as service:
            assert "PASS=1" in service.says("Done. ")
            assert "settled first" in service.all
        assert org.count("Event__c") == 20
    assert [run["status"] for run in runs(lab)] == ["success", "interrupted"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_asked_to_stop_while_it_waits_it_ends_at_once(lab: Lab, number: int, code: int) -> None:
    lab.only("people", {**PEOPLE, "schedule": "manual"})
    with serving(lab, by=("-m", "dinmo_dbt")) as service:
        until(lambda: service.health()[1]["looked"])
        assert service.end(number)[0] == code, service.all
    assert any(line.endswith("stopped as asked") for line in service.lines)


@pytest.mark.parametrize("often", ["rows that do not come", "a statement that does not return"])
def test_asked_to_stop_while_the_warehouse_is_read_it_ends_within_seconds(lab: Lab, org: Org, often: str) -> None:
    lab.only("people", PEOPLE)
    rebuilt(lab)
    hanging = "from range(100000000) a, range(100000000) b where hash(a.range + b.range) = 1"
    slow = f"select p.* from people_now p, (select 1 {hanging}) x"
    if often == "a statement that does not return":
        slow = f"select * from people_now where (select count(*) {hanging}) >= 0"
    lab.sql("alter table people rename to people_now", f"create view people as {slow}")
    with serving(lab) as service:
        service.says(" START ")
        time.sleep(0.5)
        assert service.end(signal.SIGTERM)[0] == 0, service.all
    lab.sql("drop view people", "alter table people_now rename to people")
    with serving(lab) as service:
        assert "PASS=1" in service.says("Done. ")
    assert org.count("Person__c") == 30


def two_targets(lab: Lab) -> None:
    (lab.root / "profiles.yml").write_text(
        "lab:\n  target: dev\n  outputs:\n    dev: {type: duckdb, path: lab.duckdb, threads: 1}\n"
        "    prod: {type: duckdb, path: prod.duckdb, threads: 1}\n"
    )
    (lab.root / "dinmo.yml").write_text(DINMO + "      prod: {org: emulator}\n")


def test_a_target_is_served_by_one_process_and_another_target_beside_it(lab: Lab) -> None:
    two_targets(lab)
    lab.only("people", {**PEOPLE, "schedule": "manual"})
    with serving(lab) as service:
        second = lab.process("serve", "--port", "0")
        assert second.code == 5 and "DB530" in second.err and "dbt target dev" in second.err
        taken = lab.process("serve", "--target", "prod", "--port", service.url.rpartition(":")[2])
        assert taken.code == 2 and "DB822" in taken.err and "--port" in taken.err
        with serving(lab, "--target", "prod") as beside:
            until(lambda: beside.health()[1]["looked"] and service.health()[1]["looked"])
            assert [each.health()[1]["target"] for each in (service, beside)] == ["dev", "prod"]
    with serving(lab):
        pass


def test_what_was_missed_while_it_was_down_is_run_once_and_reported_once(
    lab: Lab, org: Org, receiver: Receiver, hook: dict[str, str]
) -> None:
    lab.only("people", {**PEOPLE, "schedule": "every 1 hour", "warnings": {"missed": True}})
    with serving(lab, **hook) as service:
        service.says("Done. ")
    moved(lab, 5 * 3600)
    with serving(lab, **hook) as service:
        service.says("Done. ")
        time.sleep(2)
        assert service.count(" START ") == 1
        assert " earlier" in service.says("every hour: due at ")
    assert titles(receiver) == ["people_to_crm: missed"]
    assert runs(lab)[0]["trigger"]["passed"] in (3, 4)


# Health


def test_health_tells_what_is_wrong_until_it_is_mended_and_the_output_says_it_once(lab: Lab, org: Org) -> None:
    secret = "CANARY_hook"
    (lab.root / "dinmo.yml").write_text(DINMO + CHANNELS)
    whole = (lab.root / "dinmo.yml").read_text()
    lab.only("people", {**PEOPLE, "schedule": "every 1 hour"})
    with serving(lab, HOOK=f"json://127.0.0.1:1/{secret}") as service:
        service.says("Done. ")
        until(lambda: service.health()[1]["next"])
        code, told = service.health()
        assert (code, told["status"], told["target"], told["problem"]) == (200, "ok", "dev", None)
        assert told["next"]["activation"] == "people_to_crm"
        for path in ("/", "/healthz", "/dbt-cloud", "/health/"):
            assert requests.get(service.url + path, timeout=30).status_code == 404
        for text, problem in ((whole + "nonsense: 1\n", "DB101"), ("destinations: [\n", "DB102")):
            (lab.root / "dinmo.yml").write_text(text)
            until(lambda: service.health()[0] == 503)
            told = service.health()[1]
            assert told["status"] == "failing" and told["problem"]["code"].startswith("DB"), (told, problem)
            time.sleep(3)  # it looks again
            assert service.count(told["problem"]["code"]) == 1
            (lab.root / "dinmo.yml").write_text(whole)
            until(lambda: service.health()[0] == 200)
        assert service.count("well again") == 2
        manifest = lab.root / "target" / "manifest.json"
        manifest.rename(lab.root / "away")
        until(lambda: service.health()[0] == 503)
        assert service.health()[1]["problem"]["code"] == "DB201"
        (lab.root / "away").rename(manifest)
        until(lambda: service.health()[0] == 200)
        (lab.root / "dbt_project.yml").rename(lab.root / "away.yml")
        until(lambda: service.health()[0] == 503)
        (lab.root / "away.yml").rename(lab.root / "dbt_project.yml")
        until(lambda: service.health()[0] == 200)
        assert secret not in json.dumps(told) + service.all


def test_artifacts_that_dbt_writes_slowly_are_waited_for(
    lab: Lab, org: Org, receiver: Receiver, hook: dict[str, str]
) -> None:
    lab.only("people", PEOPLE)
    invocation = rebuilt(lab)
    target = lab.root / "target"
    with serving(lab, by=(HURRIED, "1", "2", "2"), **hook) as service:
        service.says("Done. ")
        whole = {name: (target / name).read_text() for name in ("manifest.json", "run_results.json")}
        for name, text in whole.items():
            text = text.replace(invocation, invocation[::-1])
            with (target / name).open("w") as file:
                for part in range(12):
                    file.write(text[part * len(text) // 12 : (part + 1) * len(text) // 12])
                    file.flush()
                    assert service.health()[0] == 200
                    time.sleep(0.4)
        assert "PASS=1" in service.says("Done. ", 2)
        assert "DB" not in service.all, service.all
    assert receiver.asked == []


HOLD = "import duckdb, sys, time; c = duckdb.connect(sys.argv[1]); print('held', flush=True); time.sleep(60)"


def test_a_database_that_dbt_has_to_itself_is_waited_for_and_nobody_is_notified(
    lab: Lab, org: Org, receiver: Receiver, hook: dict[str, str]
) -> None:
    lab.only("people", PEOPLE)
    rebuilt(lab)
    with serving(lab, **hook) as service:
        service.says("Done. ")
        dbt = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(lab.root / "lab.duckdb")], stdout=subprocess.PIPE, text=True
        )
        assert dbt.stdout is not None and dbt.stdout.readline()
        rebuilt(lab)
        service.says("DB708")
        time.sleep(3)
        code, told = service.health()
        assert (code, told["status"], told["problem"]["code"]) == (200, "ok", "DB708")
        assert service.count("DB708") == 1
        dbt.kill()
        dbt.communicate()
        assert "PASS=1" in service.says("Done. ", 2)
    assert receiver.asked == []


def test_with_its_state_in_a_duckdb_file_it_leaves_the_file_to_dbt_between_looks(lab: Lab, org: Org) -> None:
    (lab.root / "dinmo.yml").write_text(DINMO + "state: {warehouse: {schema: dinmo}}\n")
    lab.only("people", PEOPLE)
    rebuilt(lab)
    with serving(lab, by=(HURRIED, "0.3", "60", "1")) as service:
        service.says("Done. ")
        until(lambda: service.health()[1]["looked"])
        lab.sql("update people set score = 77 where person_id = 'P1'")
        rebuilt(lab)
        assert "PASS=1" in service.says("Done. ", 2)
    assert len(org.query("SELECT Id FROM Person__c WHERE Score__c = 77")) == 1


# Beside others


def test_what_serve_is_running_is_skipped_by_sync_due(lab: Lab) -> None:
    lab.only("events", PLAIN_EVENTS)
    rebuilt(lab)
    with lab.emulator("--batch-delay", "4") as (org, _), serving(lab) as service:
        until(lambda: [job for job in org.jobs() if job["state"] == "InProgress"])
        beside = lab.run("sync", "--due")
        assert beside.code == 0 and "SKIP" in beside.out, beside.all
        assert "PASS=1" in service.says("Done. ")
        assert lab.run("sync", "--due").out.startswith("nothing is due")
        assert org.count("Event__c") == 20
    assert [run["status"] for run in runs(lab)] == ["success"]


def test_what_another_process_runs_is_looked_at_again_in_a_while_and_not_at_once(lab: Lab) -> None:
    lab.only("events", {**PLAIN_EVENTS, "schedule": "every 1 hour"})
    with lab.emulator("--batch-delay", "2") as (org, _):
        by_hand = lab.start("sync")
        until(lambda: [job for job in org.jobs() if job["state"] == "InProgress"])
        lab.hold_still(by_hand)
        with serving(lab, by=(HURRIED, "0.3", "60", "60")) as service:
            service.says("Done. ")
            time.sleep(3)
            assert service.count(" SKIP ") == 1
            by_hand.send_signal(signal.SIGCONT)
            by_hand.communicate()
        assert org.count("Event__c") == 20


# Told


def test_channels_hear_of_a_failure_once_and_of_its_end_and_one_that_is_down_hears_later(
    lab: Lab, receiver: Receiver, hook: dict[str, str]
) -> None:
    lab.only("people", {**PEOPLE, "schedule": "every 1 hour", "warnings": {"full": True}})
    missing = {**PEOPLE, "fields": {"name": "Nowhere__c"}, "auto_pause": False}
    with lab.serve() as org, serving(lab, **hook) as service:
        receiver.behaviour = 503
        service.says("DB652")
        assert service.count("PASS=1") == 1 and org.count("Person__c") == 30, "a channel fails no sync"
        receiver.asked.clear()
        receiver.behaviour = 200
        until(lambda: receiver.asked)
        assert titles(receiver) == ["people_to_crm: full"]
        lab.only("people", missing)
        for number in (1, 2):
            rebuilt(lab)
            service.says("ERROR=1", number)
        lab.only("people", {**missing, "fields": PEOPLE["fields"]})
        rebuilt(lab)
        service.says("PASS=1", 2)
        until(lambda: len(receiver.asked) >= 3)
        time.sleep(2)
    assert titles(receiver)[1:] == ["people_to_crm: failed, drift", "people_to_crm: failed, drift recovered"]


# dbt Cloud


@pytest.fixture
def cloud() -> Iterator[StandIn]:
    with StandIn().serve() as cloud:
        yield cloud


def build(lab: Lab) -> Step:
    """The step of a job in dbt Cloud: another build of the project."""
    rebuilt(lab)
    return step_of("dbt build", lab.root / "target")


@pytest.fixture
def away(lab: Lab, cloud: StandIn) -> Lab:
    """The project as a server has it, and two runs of its job 1 in dbt Cloud, of which one has ended."""
    lab.only("people", PEOPLE)
    for run, status in ((70, 10), (71, 3)):
        cloud.runs[run] = Ran(1, [status], [cloned(), build(lab)])
    shutil.rmtree(lab.root / "target")
    return lab


JOB = ("--dbt-cloud", "--dbt-cloud-job", "1")


def webhook(service: Service, run: int, *, event: str = "", job: int = 1, secret: str = SECRET) -> int:
    data = {"jobId": str(job), "runId": str(run), "runStatus": "Success"}
    body = json.dumps(
        {"eventId": event or f"wev_{run}", "eventType": "job.run.completed", "accountId": 1, "data": data}
    ).encode()
    signed = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    headers = {"Authorization": signed, "Content-Type": "application/json"}
    return requests.post(f"{service.url}/dbt-cloud", body, headers=headers, timeout=30).status_code


def waiting(lab: Lab) -> int:
    folder = lab.root / ".dinmo" / "dbt_cloud" / "dev"
    return len(list((folder / "events").iterdir())) - len(list((folder / "done").iterdir()))


def test_what_a_run_in_dbt_cloud_built_is_synced_at_the_event_of_its_end_and_once(
    away: Lab, org: Org, cloud: StandIn
) -> None:
    env = cloud.environment | {"DINMO_DBT_CLOUD_WEBHOOK_SECRET": SECRET}
    with serving(away, *JOB, **env) as service:
        assert "is running" in service.says("DB223")
        assert webhook(service, 71, secret="other") == 401
        assert (service.health()[0], org.count("Person__c")) == (200, 0)
        assert webhook(service, 9, job=2) == 202
        service.says("another job, left alone")
        cloud.runs[71].statuses = [10]
        assert webhook(service, 71) == 202
        assert "PASS=1" in service.says("Done. ")
        until(lambda: waiting(away) == 0)
        asked = len(cloud.asked)
        assert webhook(service, 71) == 200
        time.sleep(2)
        assert len(cloud.asked) == asked and service.count(" START ") == 1
        assert TOKEN not in service.all and SECRET not in service.all
    assert org.count("Person__c") == 30
    with serving(away, *JOB, **env) as service:
        service.says("run 71 of job 1 ended")
        time.sleep(2)
        assert service.count(" START ") == 0
    assert [run["status"] for run in runs_of_job(away)] == ["success"]


def runs_of_job(lab: Lab) -> list[dict[str, Any]]:
    told = lab.run("history", "--json", "--target-path", "target/dbt_cloud/job-1")
    found: list[dict[str, Any]] = told.json["runs"]
    return found


def test_the_latest_run_is_synced_at_the_start(away: Lab, org: Org, cloud: StandIn) -> None:
    cloud.runs[71].statuses = [10]
    env = cloud.environment | {"DINMO_DBT_CLOUD_WEBHOOK_SECRET": SECRET}
    with serving(away, *JOB, **env) as service:
        assert "PASS=1" in service.says("Done. ")
    assert org.count("Person__c") == 30


def test_killed_after_an_event_was_answered_it_is_synced_after_the_restart_and_once(
    away: Lab, org: Org, cloud: StandIn
) -> None:
    env = cloud.environment | {"DINMO_DBT_CLOUD_WEBHOOK_SECRET": SECRET}
    with serving(away, *JOB, by=(HURRIED, "20", "60", "60"), **env) as service:
        service.says("DB223")
        cloud.runs[71].statuses = [10]
        assert webhook(service, 71) == 202
        service.end(signal.SIGKILL)
    assert (org.count("Person__c"), waiting(away)) == (0, 1)
    with serving(away, *JOB, **env) as service:
        assert "PASS=1" in service.says("Done. ")
        until(lambda: waiting(away) == 0)
        time.sleep(2)
        assert service.count(" START ") == 1
    assert org.count("Person__c") == 30


def test_an_event_whose_run_left_nothing_keeps_no_other_from_being_synced(away: Lab, org: Org, cloud: StandIn) -> None:
    env = cloud.environment | {"DINMO_DBT_CLOUD_WEBHOOK_SECRET": SECRET}
    cloud.runs[72] = Ran(1, [20], [cloned()])
    cloud.runs[71].statuses = [10]
    with serving(away, *JOB, **env) as service:
        service.says("DB225")  # the latest run
        assert [webhook(service, 72), webhook(service, 99), webhook(service, 71)] == [202, 202, 202]
        assert "PASS=1" in service.says("Done. ")
        until(lambda: waiting(away) == 0)
        assert service.health()[0] == 200


def test_a_run_whose_end_is_reported_late_does_not_take_the_place_of_a_later_one(
    away: Lab, org: Org, cloud: StandIn
) -> None:
    env = cloud.environment | {"DINMO_DBT_CLOUD_WEBHOOK_SECRET": SECRET}
    cloud.runs[71].statuses = [10]
    with serving(away, *JOB, **env) as service:
        service.says("run 71 of job 1 ended")
        assert webhook(service, 70) == 202
        service.says("run 70 of dbt Cloud job 1: reported late, left alone; run 71 came after it")
        until(lambda: waiting(away) == 0)
        assert "run 70 of job 1 ended" not in service.all


def test_dbt_cloud_that_does_not_answer_is_asked_again_in_a_while_and_said_once(
    away: Lab, org: Org, cloud: StandIn
) -> None:
    env = cloud.environment | {"DINMO_DBT_CLOUD_WEBHOOK_SECRET": SECRET}
    cloud.runs[71].statuses = [10]
    cloud.faults = [Fault(401) for _ in range(3)]
    with serving(away, *JOB, by=(HURRIED, "0.2", "1", "2"), **env) as service:
        until(lambda: service.health()[0] == 503)
        began, asked = time.monotonic(), len(cloud.asked)
        assert service.health()[1]["problem"]["code"] == "DB221"
        until(lambda: len(cloud.asked) >= asked + 2)
        assert time.monotonic() - began > 2
        assert "PASS=1" in service.says("Done. ")
        service.says("well again")
        assert service.count("DB221") == 1
    assert org.count("Person__c") == 30


def test_in_the_place_of_an_event_that_can_t_be_read_the_latest_run_is_synced(
    away: Lab, org: Org, cloud: StandIn
) -> None:
    env = cloud.environment | {"DINMO_DBT_CLOUD_WEBHOOK_SECRET": SECRET}
    cloud.runs[71].statuses = [3]
    with serving(away, *JOB, **env) as service:
        service.says("DB223")
        cloud.runs[71].statuses = [10]
        (away.root / ".dinmo" / "dbt_cloud" / "dev" / "events" / "bad.json").write_text("{")
        service.says("DB229")
        service.says("events/bad.damaged")
        assert "PASS=1" in service.says("Done. ")
        time.sleep(1)
        assert (service.count("DB229"), service.health()[0]) == (1, 200)
    assert org.count("Person__c") == 30


@pytest.mark.parametrize("what", ["an artifact cut short", "a mistake in a declaration"])
def test_a_run_that_can_t_be_used_is_reported_and_keeps_no_later_one_back(
    away: Lab, org: Org, cloud: StandIn, what: str
) -> None:
    env = cloud.environment | {"DINMO_DBT_CLOUD_WEBHOOK_SECRET": SECRET}
    good = cloud.runs[71].steps[1]
    del cloud.runs[70]
    bad = {**good.artifacts, "manifest.json": b"{"}
    if what == "a mistake in a declaration":
        bad["manifest.json"] = good.artifacts["manifest.json"].replace(b'"upsert"', b'"upsrt"')
        assert bad["manifest.json"] != good.artifacts["manifest.json"]
    cloud.runs[72] = Ran(1, [10], [cloned(), Step(good.name, bad)])
    with serving(away, *JOB, **env) as service:
        service.says("DB230" if what == "an artifact cut short" else "DB112")
        assert webhook(service, 72) == 202
        until(lambda: waiting(away) == 0)
        # The event is done a moment before its end is told.
        until(lambda: (told := service.health()[1])["set_aside"] or (told["problem"] or {}).get("code") == "DB112")
        cloud.runs[73] = Ran(1, [10], [cloned(), good])
        assert webhook(service, 73) == 202
        assert "PASS=1" in service.says("Done. ")
        until(lambda: waiting(away) == 0 and service.health()[0] == 200)
    assert org.count("Person__c") == 30


def test_the_tests_of_the_latest_run_decide_whichever_event_is_looked_at_first(
    away: Lab, org: Org, cloud: StandIn
) -> None:
    env = cloud.environment | {"DINMO_DBT_CLOUD_WEBHOOK_SECRET": SECRET}
    good = cloud.runs[71].steps[1]
    results = json.loads(good.artifacts["run_results.json"])
    for each in results["results"]:
        each["status"] = "fail" if each["unique_id"].startswith("test.") else each["status"]
    bad = Step(good.name, {**good.artifacts, "run_results.json": json.dumps(results).encode()})
    cloud.runs = {70: Ran(1, [3])}
    with serving(away, *JOB, by=(HURRIED, "2", "60", "60"), **env) as service:
        service.says("DB223")
        cloud.runs |= {71: Ran(1, [10], [cloned(), good]), 72: Ran(1, [20], [cloned(), bad])}
        assert [webhook(service, 71), webhook(service, 72)] == [202, 202]
        until(lambda: waiting(away) == 0)
        service.says("Done. ")
        assert service.count(" START ") == 0
    assert org.count("Person__c") == 0


def test_an_event_is_for_the_target_whose_address_it_came_to(away: Lab, cloud: StandIn) -> None:
    env = cloud.environment | {"DINMO_DBT_CLOUD_WEBHOOK_SECRET": SECRET}
    two_targets(away)
    cloud.runs[71].statuses = [3]
    cloud.runs[80] = Ran(2, [30], [cloned()])
    other = ("--target", "prod", "--dbt-cloud", "--dbt-cloud-job", "2")
    with serving(away, *JOB, **env) as dev, serving(away, *other, by=(HURRIED, "4", "60", "60"), **env) as prod:
        prod.says("DB225")
        cloud.runs[81] = Ran(2, [30], [cloned()])
        assert webhook(prod, 81, job=2) == 202
        prod.says("run 81")
        assert dev.count("another job") == 0


def test_every_variable_that_is_not_set_is_named_at_once(away: Lab) -> None:
    ran = away.process("serve", "--port", "0", *JOB, DINMO_DBT_CLOUD_HOST="emea.dbt.com")
    assert ran.code == 2
    told = " ".join(ran.err.split())
    assert "DINMO_DBT_CLOUD_ACCOUNT_ID, DINMO_DBT_CLOUD_TOKEN, DINMO_DBT_CLOUD_WEBHOOK_SECRET" in told
    alone = away.process("serve", "--port", "0", "--dbt-cloud")
    assert alone.code == 2 and "DB821" in alone.err


# For a long time


def test_five_hundred_looks_leave_no_thread_no_file_and_no_memory_behind(
    lab: Lab, org: Org, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every twentieth with a sync."""
    lab.only("people", PEOPLE)
    look, looks, held = serving_module.Service._look, [0], {}

    def counted(service: Any) -> None:
        looks[0] += 1
        if looks[0] % 20 == 0:
            rebuilt(lab)
        look(service)
        if looks[0] in (100, 600):
            gc.collect()
            rss = int(Path("/proc/self/statm").read_text().split()[1]) * 4096
            held[looks[0]] = threading.active_count(), len(list(Path("/proc/self/fd").iterdir())), rss
        if looks[0] == 600:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(serving_module.Service, "_look", counted)
    for name in ("WATCH_S", "LOOK_S", "AGAIN_S"):
        monkeypatch.setattr(serving_module, name, 0.001)
    before = threading.active_count()
    ran = lab.run("serve", "--port", "0")
    assert ran.code == 0 and "stopped as asked" in ran.out, ran.all
    assert ran.out.count("PASS=1") == 31, ran.all
    print(held)
    assert held[600][:2] == held[100][:2]
    assert held[600][2] - held[100][2] < 20_000_000
    assert threading.active_count() <= before


def test_a_defect_of_ours_ends_it_and_is_reported_as_by_every_command(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    def defect(_: Any) -> None:
        raise KeyError("CANARY")

    monkeypatch.setattr(serving_module.Service, "_look", defect)
    monkeypatch.setattr(serving_module, "WATCH_S", 0.01)
    before = threading.active_count()
    with pytest.raises(AssertionError, match="DB900  KeyError at test_serving"):  # as the lab sees it
        lab.run("serve", "--port", "0")
    assert threading.active_count() <= before, "nothing listens any more"
    with serving(lab):
        pass


# What a kill leaves


@pytest.mark.parametrize("name", ["state.db", "history.db"])
@pytest.mark.parametrize("command", [("sync",), ("sync", "--due"), ("pause", "--reason", "x")])
def test_a_commit_cut_off_in_sqlite_itself_is_mended_by_the_next_command_that_writes(
    lab: Lab, org: Org, command: tuple[str, ...], name: str
) -> None:
    lab.only("people", PEOPLE)
    assert lab.run("sync").code == 0
    path, rest = lab.root / ".dinmo" / name, lab.root / ".dinmo" / f"{name}-journal"
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA cache_size = 1")
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("CREATE TABLE filler (x)")
    connection.executemany("INSERT INTO filler VALUES (?)", [("x" * 3000,) for _ in range(200)])
    half, journal = path.read_bytes(), rest.read_bytes()
    connection.execute("ROLLBACK")
    connection.close()
    path.write_bytes(half)
    rest.write_bytes(journal)
    rebuilt(lab)
    ran = lab.run(*command)
    assert ran.code == 0, ran.all
