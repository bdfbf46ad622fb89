"""SIGKILL at each step of a delivery, over HTTP and on disk: the next run delivers each row once, and then is quiet."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from .lab import EVENTS, PEOPLE, Deadly, Lab, Org

ROWS = 20
MODES = {
    "insert": ("events", {**EVENTS, "fields": {"event_id": "Ref__c", "kind": "Kind__c"}}, "Event__c", "Ref__c"),
    "upsert": ("people", {**PEOPLE, "fields": {"name": "Name"}, "api": "bulk"}, "Person__c", "Person_Id__c"),
}
# In the order in which a run comes by. A request is killed before the org acts on it, at its half, or with its answer.
STEPS = [
    pytest.param("after flock", id="K19 the lock is taken"),
    pytest.param("before planned", id="K1 nothing is noted"),
    pytest.param("before fsync in planned", id="K3 the spool is written, not synced"),
    pytest.param("before rename in planned", id="K3 the spool has no name yet"),
    pytest.param("commit planned", id="K2 the intent is not committed"),
    pytest.param("after planned", id="K2 the intent is noted"),
    pytest.param(("POST", "/jobs/ingest", "before"), id="K4 the job is asked for"),
    pytest.param(("POST", "/jobs/ingest", "after"), id="K5 the job exists"),
    pytest.param("commit advance opened", id="K5 its id is not committed"),
    pytest.param("after advance opened", id="K6 its id is noted"),
    pytest.param(("PUT", "/batches", "half asked"), id="K7 half of the data is sent"),
    pytest.param(("PUT", "/batches", "after"), id="K8 the data is there"),
    pytest.param("commit advance closing", id="K9 the intent to close is not committed"),
    pytest.param("after advance closing", id="K9 the intent to close is noted"),
    pytest.param(("PATCH", "/jobs/ingest/", "before"), id="K10 the close is asked for"),
    pytest.param(("PATCH", "/jobs/ingest/", "after"), id="K11 the job is closed"),
    pytest.param("after advance closed", id="K12 polling begins"),
    pytest.param(("GET", "/jobs/ingest/750", "after"), id="K12 the job's state is told"),
    pytest.param(("GET", "/successfulResults", "half answered"), id="K13 half of the successes are read"),
    pytest.param(("GET", "/failedResults", "half answered"), id="K13 half of the failures are read"),
    pytest.param(("GET", "/unprocessedrecords", "half answered"), id="K13 half of the unprocessed are read"),
    pytest.param("before settle", id="K14 the results are read"),
    pytest.param("before rename in settle", id="K14 the snapshot's file has no name yet"),
    pytest.param("commit settle", id="K15 the results are not committed"),
    pytest.param("before unlink in settle", id="K16 the results are committed, the spool is there"),
    pytest.param("commit finish", id="K16 the end is not committed"),
]
# `make test` has one death for each state of a batch; the others are slow.
EACH_STATE = ("after planned", "after advance opened", "after advance closing", "after advance closed", "before settle")
STEPS = [
    step if step.values[0] in EACH_STATE else pytest.param(*step.values, id=step.id, marks=pytest.mark.slow)
    for step in STEPS
]
RECOVERY = [
    pytest.param("after advance opened", ("PATCH", "/jobs/ingest/", "before"), id="the abort is asked for"),
    pytest.param("after advance opened", ("PATCH", "/jobs/ingest/", "after"), id="the job is aborted"),
    pytest.param("after advance opened", "commit abandon", id="the end of the batch is not committed"),
    pytest.param("after advance opened", "before unlink in abandon", id="the spool is there"),
    pytest.param("after advance closing", ("PATCH", "/jobs/ingest/", "after"), id="the unclosed job is aborted"),
    pytest.param("after advance closed", ("GET", "/jobs/ingest/750", "after"), id="the job's state is told"),
    pytest.param("after advance closed", ("GET", "/successfulResults", "half answered"), id="half of the successes"),
    pytest.param("after advance closed", ("GET", "/failedResults", "half answered"), id="half of the failures"),
    pytest.param("after advance closed", "before settle", id="the results are read"),
    pytest.param("after advance closed", "commit settle", id="the results are not committed"),
    pytest.param("after advance closed", "before unlink in settle", id="the results are committed"),
    pytest.param("after advance closed", "before begin", id="the change set is drawn"),
]


def killed(lab: Lab, step: str | tuple[str, str, str]) -> None:
    """Run a sync that dies at the step; it must get there."""
    if isinstance(step, str):
        child = lab.start("sync", "--first-sync", by=[str(Path(__file__).with_name("killed.py")), step])
    else:
        lab.deadly = Deadly(*step)
        child = lab.start("sync", "--first-sync")
        lab.deadly.victim = child.pid
    _, err = child.communicate(timeout=60)
    lab.deadly = None
    assert child.returncode == -signal.SIGKILL, err


def delivered_once(lab: Lab, org: Org, name: str, field: str) -> None:
    ran = lab.run("sync", "--json", "--first-sync")
    assert ran.code == 0, ran.all
    values = [record[field] for record in org.query(f"SELECT {field} FROM {name}")]
    assert len(values) == len(set(values)) == ROWS
    assert lab.run("plan", "--detailed-exitcode").code == 0
    state = lab.root / ".dinmo"
    assert [path for path in (state / "spool").rglob("*") if path.is_file()] == []
    assert list((state / "snapshots").rglob("*.tmp")) == []


def declared(lab: Lab, mode: str) -> tuple[str, str]:
    """The mode's activation and no other, with `ROWS` rows; its object, and the field that tells its rows apart."""
    model, activation, name, field = MODES[mode]
    lab.only(model, activation)
    lab.sql(f"delete from people where substr(person_id, 2)::int > {ROWS}")
    return name, field


@pytest.fixture(params=["insert", pytest.param("upsert", marks=pytest.mark.slow)])
def mode(request: pytest.FixtureRequest, lab: Lab) -> tuple[str, str]:
    return declared(lab, request.param)


@pytest.mark.parametrize("step", STEPS)
def test_killed_at(lab: Lab, org: Org, mode: tuple[str, str], step: str | tuple[str, str, str]) -> None:
    killed(lab, step)
    delivered_once(lab, org, *mode)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["insert"], indirect=True)
@pytest.mark.parametrize(("first", "second"), RECOVERY)
def test_killed_in_the_recovery_at(
    lab: Lab, org: Org, mode: tuple[str, str], first: str, second: str | tuple[str, str, str]
) -> None:
    """K17."""
    killed(lab, first)
    killed(lab, second)
    delivered_once(lab, org, *mode)


@pytest.mark.slow
@pytest.mark.parametrize("step", STEPS[3::3])
def test_killed_while_leavers_are_deleted_at(lab: Lab, org: Org, step: str | tuple[str, str, str]) -> None:
    """Each leaver's record goes, no other does, and a key that comes back is made again."""
    lab.only("people", {**MODES["upsert"][1], "on_removed": "delete"})
    lab.sql(f"delete from people where substr(person_id, 2)::int > {ROWS}")
    assert lab.run("sync").code == 0
    lab.sql("create table gone as select * from people where substr(person_id, 2)::int <= 8")
    lab.sql("delete from people where substr(person_id, 2)::int <= 8")
    killed(lab, step)
    ran = lab.run("sync", "--json")
    assert ran.code == 0, ran.all
    assert org.count("Person__c") == ROWS - 8
    assert lab.run("plan", "--detailed-exitcode").code == 0
    lab.sql("insert into people select * from gone")
    delivered_once(lab, org, "Person__c", "Person_Id__c")
