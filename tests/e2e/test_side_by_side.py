"""sync --threads: activations at once, in the order that their objects ask for, each row once whatever happens."""

from __future__ import annotations

import json
import signal
import threading
from typing import Any

import pytest
import yaml
from warehouse.conftest import Postgres, postgres

from .lab import COMPANIES, DINMO, EVENTS, MODELS, PEOPLE, Lab, Org, dbt, until

pytestmark = pytest.mark.slow
__all__ = ["postgres"]

BY_BULK = {"api": "bulk"}
SQL = MODELS["people"][1].replace("range(1, 31)", "generate_series(1, 30)").replace("as double)", "as float)")


@pytest.fixture
def three(lab: Lab) -> Lab:
    """People, their events, and companies that have nothing to do with either; all by jobs."""
    lab.declare("people", {**PEOPLE, **BY_BULK})
    lab.declare("events", EVENTS)
    lab.declare("companies", {**COMPANIES, **BY_BULK})
    return lab


def object_of(method: str, path: str, body: bytes) -> str:
    """Of the request that makes a job; else ''."""
    return str(json.loads(body)["object"]) if method == "POST" and path.endswith("/jobs/ingest") else ""


class Together:
    """A gate where the first jobs of two objects wait for one another: past it both are being run."""

    def __init__(self, *objects: str) -> None:
        self.barrier = threading.Barrier(len(objects), timeout=60)
        self.objects = set(objects)

    def __call__(self, *request: Any) -> None:
        name = object_of(*request)
        if name in self.objects:
            self.objects.remove(name)
            self.barrier.wait()


def jobs_in_order(lab: Lab) -> list[str]:
    return [name for request in lab.requests if (name := object_of(*request))]


def test_what_does_not_meet_is_synced_at_once_and_children_after_their_parents(three: Lab, org: Org) -> None:
    three.gate = Together("Person__c", "Account")
    ran = three.run("sync", "--threads", "4")
    assert ran.code == 0, ran.all
    assert "PASS=3" in ran.out
    assert jobs_in_order(three)[2] == "Event__c"
    first = next(at for at, request in enumerate(three.requests) if object_of(*request) == "Event__c")
    assert [path for _, path, _ in three.requests[:first] if path.endswith("unprocessedrecords")]
    assert org.count("Person__c") == 30 and org.count("Event__c") == 20
    assert len(org.query("SELECT Id FROM Event__c WHERE Person__c != null")) == 20
    assert three.run("plan", "--detailed-exitcode").code == 0


def test_two_of_one_object_are_never_synced_at_once(three: Lab, org: Org) -> None:
    other = {**PEOPLE, **BY_BULK, "name": "notes_to_crm", "mode": "update", "fields": {"note": "Note__c"}}
    three.declare("people", {**PEOPLE, **BY_BULK}, other)
    assert three.run("sync", "--threads", "4").code == 0
    three.sql("update people set name = name || '!', note = 'n'")
    begun, ended, at_once = [], [], []

    def gate(method: str, path: str, body: bytes) -> None:
        if object_of(method, path, body) == "Person__c":
            begun.append(path)
            at_once.append(len(begun) - len(ended))
        if path.endswith("unprocessedrecords"):
            ended.append(path)

    three.gate = gate
    assert three.run("sync", "--threads", "4").code == 0
    assert at_once == [1, 1]
    assert len(org.query("SELECT Id FROM Person__c WHERE Name LIKE '%!'")) == 30


def test_what_is_told_is_what_one_thread_tells(three: Lab, org: Org) -> None:
    three.sql("update people set plan = 'Unheard of' where person_id = 'P7'")
    ran = three.run("sync", "--json", "--threads", "4")
    statuses = {"companies_to_crm": "success", "people_to_crm": "rejected", "events_to_crm": "success"}
    assert (ran.code, {r["activation"]: r["status"] for r in ran.json["results"]}) == (3, statuses), ran.all
    assert ran.json["api_calls"] == len(three.requests)
    written = json.loads((three.root / "target" / "dinmo_run_results.json").read_text())
    assert [r["activation"] for r in written["results"]] == list(statuses)
    lines = ran.err.splitlines()
    warned = next(number for number, line in enumerate(lines) if " WARN people_to_crm" in line)
    assert "invalid (V-PICKLIST [Plan__c])" in lines[warned + 1]
    history = three.run("history", "--json").json["runs"]
    assert sorted(run["activation"] for run in history) == ["companies_to_crm", "events_to_crm", "people_to_crm"]


def test_one_that_fails_stops_no_other(three: Lab, org: Org) -> None:
    three.sql("drop table companies")
    ran = three.run("sync", "--json", "--threads", "3")
    assert ran.code == 1
    assert {r["activation"]: r["status"] for r in ran.json["results"]} == {
        "companies_to_crm": "failed",
        "people_to_crm": "success",
        "events_to_crm": "success",
    }


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_stopped_while_two_are_under_way_the_next_run_delivers_each_row_once(
    three: Lab, org: Org, number: signal.Signals
) -> None:
    plain = {"event_id": "Ref__c", "kind": "Kind__c"}  # of no parent, so that these inserts go beside the people
    three.declare("companies")
    three.declare("events", {**EVENTS, "fields": plain})
    both, goes_on = Together("Person__c", "Event__c"), threading.Event()

    def gate(method: str, path: str, body: bytes) -> None:
        both(method, path, body)
        if method == "GET" and "/jobs/ingest/" in path:
            goes_on.wait(60)

    three.gate = gate
    child = three.start("sync", "--threads", "2", "--first-sync")
    until(lambda: len([job for job in org.jobs() if job["state"] == "JobComplete"]) == 2)
    child.send_signal(number)
    out, err = child.communicate(timeout=60)
    goes_on.set()
    three.gate = lambda *_: None
    assert child.returncode == {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGKILL: -9}[number], out + err
    assert "Traceback" not in out + err
    ran = three.run("sync", "--threads", "2", "--first-sync")
    assert ran.code == 0, ran.all
    assert "settled first, from a run that was cut off" in ran.out
    assert (org.count("Person__c"), org.count("Event__c")) == (30, 20)
    assert three.run("plan", "--detailed-exitcode").code == 0


@pytest.mark.parametrize("state", ["duckdb", "postgres"])
def test_a_state_in_the_warehouse_is_written_by_several(three: Lab, postgres: Postgres, org: Org, state: str) -> None:
    (three.root / "dinmo.yml").write_text(DINMO + "state: {warehouse: {schema: at_once}}\n")
    if state == "postgres":
        (three.root / "profiles.yml").write_text(
            yaml.safe_dump({"lab": {"target": "dev", "outputs": {"dev": postgres.output()}}})
        )
        (three.root / "models" / "people.sql").write_text(SQL)
        (three.root / "models" / "events.sql").write_text(
            MODELS["events"][1].replace("range(1, 21)", "generate_series(1, 20)")
        )
        done = dbt(three.root, "build")
        assert done.returncode == 0, done.stdout + done.stderr
    for round_ in range(3):
        three.gate = Together("Person__c", "Account") if round_ == 0 else lambda *_: None
        ran = three.run("sync", "--json", "--threads", "4")
        assert ran.code == 0, ran.all
    assert (org.count("Person__c"), org.count("Event__c")) == (30, 20)
    assert three.run("plan", "--detailed-exitcode").code == 0


def test_run_takes_threads_of_its_own(three: Lab, org: Org) -> None:
    three.gate = Together("Person__c", "Account")
    for name, model in (("people", {**PEOPLE, **BY_BULK}), ("companies", {**COMPANIES, **BY_BULK})):
        path = three.root / "models" / "models.yml"
        declared = json.loads(path.read_text())
        of_model = next(each for each in declared["models"] if each["name"] == name)
        of_model["config"]["meta"]["dinmo"]["activations"] = [model]
        path.write_text(json.dumps(declared))
    ran = three.process("run", "--threads", "2", "--", "dbt", "build", "--threads", "1")
    assert ran.code == 0 and "PASS=3" in ran.out, ran.all


def test_each_thread_logs_in_with_the_token_that_is_valid_by_then(three: Lab, org: Org) -> None:
    """The org gives another refresh token with each login, and the one before is spent."""
    told = json.loads((three.data / "server.json").read_text())
    three.variables = {"SECRET": told["client_secret"], "REFRESH": told["refresh_token"]}
    auth = {"flow": "refresh_token", "client_id": told["client_id"]}
    auth |= {"client_secret": "{{ env_var('SECRET') }}", "refresh_token": "{{ env_var('REFRESH') }}"}
    dinmo = {"destinations": {"crm": {"targets": {"dev": {"login_url": org.url, "auth": auth}}}}}
    (three.root / "dinmo.yml").write_text(yaml.safe_dump(dinmo))
    assert org.http.post(f"{org.url}/emulator/logins", json={"rotates": True}).ok
    three.gate = Together("Person__c", "Account")
    ran = three.run("sync", "--json", "--threads", "4")
    assert ran.code == 0, ran.all
    logins = [path for _, path, _ in three.requests if path.endswith("/oauth2/token")]
    assert len(logins) >= 3 and ran.json["api_calls"] == len(three.requests) - 1  # one of them is this test's own
    assert (org.count("Person__c"), org.count("Event__c")) == (30, 20)
    assert three.run("plan", "--detailed-exitcode").code == 0


def test_a_login_that_is_refused_is_tried_once_for_all_threads(three: Lab, org: Org) -> None:
    target = {
        "login_url": org.url,
        "auth": {"flow": "client_credentials", "client_id": "nobody", "client_secret": "{{ env_var('SECRET') }}"},
    }
    (three.root / "dinmo.yml").write_text(json.dumps({"destinations": {"crm": {"targets": {"dev": target}}}}))
    ran = three.run("sync", "--json", "--threads", "3", SECRET="wrong")
    assert [result["status"] for result in ran.json["results"]] == ["failed"] * 3, ran.all
    assert [path for _, path, _ in three.requests if path.endswith("/token")] == ["/services/oauth2/token"]
