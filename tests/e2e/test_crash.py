"""SIGKILL at any instant: the next run continues, with no record twice and none missing. Real processes throughout."""

from __future__ import annotations

import os
import signal

import pytest

from .lab import EVENTS, PEOPLE, Deadly, Lab, Org, Ran, until

pytestmark = pytest.mark.slow

# Two and a half of the org's internal batches: killed after the first, some rows are written and some are not.
ROWS = 25_000
MANY = {
    "insert": (
        "events",
        {**EVENTS, "fields": {"event_id": "Ref__c", "kind": "Kind__c"}},
        f"insert into events select 'X' || i, 'many', 1, null, null from range({ROWS}) t(i)",
        "Event__c",
        "Ref__c",
    ),
    "upsert": (
        "people",
        {**PEOPLE, "fields": {"name": "Name", "score": "Score__c"}, "api": "bulk"},
        f"insert into people (person_id, name, score) select 'X' || i, 'many', 1 from range({ROWS}) t(i)",
        "Person__c",
        "Person_Id__c",
    ),
}


def distinct(org: Org, name: str, field: str) -> tuple[int, int]:
    values = [record[field] for record in org.query(f"SELECT {field} FROM {name}")]
    return len(values), len(set(values))


def settled(ran: Ran) -> int:
    return sum(sum(result["recovered"][fate] for fate in ("succeeded", "rejected", "held", "unknown"))
               for result in ran.json["results"])  # fmt: skip


@pytest.mark.parametrize("also_the_org", [False, True], ids=["sync", "sync-and-emulator"])
@pytest.mark.parametrize("mode", ["insert", "upsert"])
def test_killed_while_a_job_is_in_progress(lab: Lab, mode: str, also_the_org: bool) -> None:
    model, activation, fill, name, field = MANY[mode]
    lab.only(model, activation)
    lab.sql(f"delete from {model}", fill)
    with lab.emulator("--batch-delay", "1.5") as (org, server):
        child = lab.start("sync")
        until(lambda: [job for job in org.jobs() if job["state"] == "InProgress"] and org.count(name))
        child.kill()
        child.communicate()
        assert org.count(name) < ROWS, "the job must still run"
        planned = lab.run("plan")
        assert planned.code == 0, planned.all
        assert f"{ROWS:,} rows in flight (job 750" in planned.out
        assert "nothing to send" in planned.out
        if also_the_org:
            os.kill(server.pid, signal.SIGKILL)
            server.wait()
    with lab.serve() as org:
        ran = lab.run("sync", "--json")
        assert ran.code == 0, ran.all
        result = ran.json["results"][0]
        assert result["recovered"]["succeeded"] == ROWS
        assert result["outcome"]["succeeded"] == 0
        assert result["counts"]["unchanged"] == ROWS
        assert f"{ROWS:,} of {ROWS:,} rows were accepted" in ran.err
        assert distinct(org, name, field) == (ROWS, ROWS)
        assert lab.run("plan", "--detailed-exitcode").code == 0
        interrupted = [run for run in lab.run("history", "--json").json["runs"] if run["status"] == "interrupted"]
        assert len(interrupted) == 1


@pytest.mark.parametrize(
    ("method", "path", "moment", "accepted_before"),
    [
        ("POST", "/jobs/ingest", "after", 0),
        ("PUT", "/batches", "before", 0),
        ("PUT", "/batches", "after", 0),
        ("PATCH", "/jobs/ingest/", "before", 0),
        ("PATCH", "/jobs/ingest/", "after", 20),
        ("GET", "/successfulResults", "after", 20),
    ],
)
def test_killed_at_each_step_of_an_insert(
    lab: Lab, org: Org, method: str, path: str, moment: str, accepted_before: int
) -> None:
    lab.only("events", {**EVENTS, "fields": {"event_id": "Ref__c", "kind": "Kind__c"}})
    lab.deadly = Deadly(method, path, moment)
    child = lab.start("sync")
    lab.deadly.victim = child.pid
    child.communicate(timeout=60)
    assert child.returncode == -signal.SIGKILL
    lab.deadly = None
    ran = lab.run("sync", "--json", *([] if org.count("Event__c") else ["--first-sync"]))
    assert ran.code == 0, ran.all
    assert ran.result("events_to_crm")["recovered"]["succeeded"] == accepted_before
    assert ran.result("events_to_crm")["outcome"]["succeeded"] == 20 - accepted_before
    assert distinct(org, "Event__c", "Ref__c") == (20, 20)
    assert lab.run("plan", "--detailed-exitcode").code == 0


def test_killed_between_two_calls_of_a_collection(lab: Lab, org: Org) -> None:
    """Its rows are in the change set still; an upsert that is repeated makes no second record."""
    lab.only("people", PEOPLE)
    lab.sql("insert into people (person_id, name) select 'X' || i, 'many' from range(370) t(i)")
    lab.deadly = Deadly("PATCH", "/composite/sobjects", "after")
    child = lab.start("sync")
    lab.deadly.victim = child.pid
    child.communicate(timeout=60)
    assert child.returncode == -signal.SIGKILL
    assert org.count("Person__c") == 200
    lab.deadly = None
    ran = lab.run("sync", "--json")
    assert ran.code == 0, ran.all
    assert ran.result("people_to_crm")["outcome"]["succeeded"] == 400
    assert distinct(org, "Person__c", "Person_Id__c") == (400, 400)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_politely(lab: Lab, number: signal.Signals, code: int) -> None:
    model, activation, fill, name, field = MANY["insert"]
    lab.only(model, activation)
    lab.sql(f"delete from {model}", fill)
    with lab.emulator("--batch-delay", "0.7") as (org, _):
        child = lab.start("sync")
        until(lambda: [job for job in org.jobs() if job["state"] == "InProgress"])
        child.send_signal(number)
        _, err = child.communicate(timeout=30)
        assert child.returncode == code
        assert "settled by the next run" in err
        assert "Traceback" not in err
        ran = lab.run("sync", "--json")
        assert ran.code == 0, ran.all
        assert settled(ran) == ROWS
        assert distinct(org, name, field) == (ROWS, ROWS)


def test_a_killed_command_takes_its_embedded_org_with_it(lab: Lab) -> None:
    lab.only("people", PEOPLE)
    child = lab.start("sync")
    pid = until(lambda: (lab.data / "server.json").exists() and (lab.data / "server.lock").read_text())
    child.kill()
    child.communicate()
    until(lambda: not alive(int(pid)))
    assert lab.process("sync").code == 0


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
