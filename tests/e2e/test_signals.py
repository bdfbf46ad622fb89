"""Commands that are asked to stop, in each of their phases: how soon they end, what they say, and that the next run
continues."""

import json
import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest

from dinmo_dbt.cli import stopping

from .lab import EVENTS, MODELS, PEOPLE, Lab, Org, until, using

pytestmark = pytest.mark.slow

CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}
PLAIN_EVENTS = {**EVENTS, "fields": {k: v for k, v in EVENTS["fields"].items() if "." not in v}}
ROWS = {"events": 20, "people": 30}
OFTEN = "from range(100000000) a, range(100000000) b where hash(a.range + b.range) = 1"


def hang(call: str) -> dict[str, Any]:
    return {"kind": "hang", "call": call, "seconds": 600, "times": 1}


# The call that hangs, or the job that does not end: what a run is in the middle of when it is asked to stop.
PHASES = {
    "create": ("events", PLAIN_EVENTS, hang("ingest.create"), signal.SIGTERM),
    "upload": ("events", PLAIN_EVENTS, hang("ingest.upload"), signal.SIGINT),
    "close": ("events", PLAIN_EVENTS, hang("ingest.close"), signal.SIGTERM),
    "poll": ("events", PLAIN_EVENTS, {"kind": "job_stuck", "seconds": 8, "times": 1}, signal.SIGINT),
    "results": ("events", PLAIN_EVENTS, hang("ingest.results"), signal.SIGTERM),
    "collections": ("people", PEOPLE, hang("collections.*"), signal.SIGINT),
    "retry pause": ("people", PEOPLE, {"kind": "rows", "preset": "lock", "share": 0.5}, signal.SIGTERM),
}


class Asked:
    """A command as a process, and what it does when it is asked to stop."""

    def __init__(self, lab: Lab, *arguments: str) -> None:
        self.child = lab.start(*arguments)
        self.out = ""

    def says(self, word: str) -> None:
        """Read its stdout up to the line with this word."""
        assert self.child.stdout is not None
        while word not in (line := self.child.stdout.readline()):
            assert line, self.child.communicate()
            self.out += line

    def to_stop(self, number: int, *, times: int = 1) -> None:
        """Long before what it waits for is over, the command has ended with the code of the first signal."""
        self.child.send_signal(number)
        if times > 1:
            assert self.child.stderr is not None
            assert "a second signal stops at once" in self.child.stderr.readline()
            self.child.send_signal(number)
        out, self.err = self.child.communicate(timeout=60)
        self.out += out
        assert self.child.returncode == CODES[signal.Signals(number)], self.out + self.err
        assert "Traceback" not in self.err
        assert "DB900" not in self.err
        assert "nanobind" not in self.err, "what holds a driver at the process's end makes it complain"


def faulty(org: Org, fault: dict[str, Any]) -> Any:
    """Let the fault strike; a function that tells how often it did."""
    url = f"{org.url}/emulator/faults"
    assert org.http.post(url, json=fault).status_code == 200
    return lambda: org.http.get(url).json()["faults"][0]["fired"]


def mended(org: Org) -> None:
    assert org.http.delete(f"{org.url}/emulator/faults").status_code < 300


def statuses(lab: Lab) -> list[str]:
    results = json.loads((lab.root / "target" / "dinmo_run_results.json").read_text())["results"]
    return [result["status"] for result in results]


def test_what_does_not_end_by_itself_is_ended_within_five_seconds():
    assert stopping.BREAK_OFF_S < stopping.END_S < 5


@pytest.fixture
def served(lab: Lab) -> Iterator[Org]:
    """The org in a process of its own, whose answers can hang."""
    with lab.emulator() as (org, _):
        yield org


@pytest.mark.parametrize("phase", PHASES)
def test_a_signal_ends_a_sync_within_five_seconds_and_the_next_run_delivers_once(lab, served, phase):
    model, declared, fault, number = PHASES[phase]
    lab.only(model, declared)
    fired = faulty(served, fault)
    sync = Asked(lab, "sync")
    until(lambda: fired() or sync.child.poll() is not None)
    time.sleep(0.3)  # it now waits for what does not come
    sync.to_stop(number)
    assert "the next run continues" in sync.out, sync.out + sync.err
    assert statuses(lab) == ["interrupted"]
    mended(served)
    again = lab.run("sync")
    assert again.code == 0, again.all
    assert served.count(declared["object"]) == ROWS[model]


@pytest.mark.parametrize("phase", ["close", "collections"])
def test_a_second_signal_ends_a_sync_at_once_and_the_next_run_delivers_once(lab, served, phase):
    model, declared, fault, number = PHASES[phase]
    lab.only(model, declared)
    fired = faulty(served, fault)
    sync = Asked(lab, "sync")
    until(lambda: fired() or sync.child.poll() is not None)
    sync.to_stop(number, times=2)
    assert "stopped at once" in sync.err and "the next run continues" not in sync.out
    mended(served)
    again = lab.run("sync")
    assert again.code == 0, again.all
    assert served.count(declared["object"]) == ROWS[model]


def test_every_command_that_asks_salesforce_ends_within_five_seconds_of_a_signal(lab, served):
    def stopped(call: str, number: int, *arguments: str) -> Asked:
        fired = faulty(served, hang(call))
        command = Asked(lab, *arguments)
        until(lambda: fired() or command.child.poll() is not None)
        time.sleep(0.3)
        command.to_stop(number)
        mended(served)
        return command

    lab.only("people", {**PEOPLE, "keep_before_images": True})
    stopped("query*", signal.SIGTERM, "state", "adopt", "people_to_crm")
    assert lab.run("sync").code == 0
    assert "repaired" not in stopped("collections.retrieve", signal.SIGINT, "verify", "--repair").out
    lab.sql("update people set name = 'Wrong', email = 'wrong' where person_id = 'P1'")
    lab.sql("update people set name = 'Wrong' where person_id = 'P2'")
    assert lab.run("sync").code == 3
    run = lab.run("history", "--json").json["runs"][0]["run_id"]
    stopped("collections.*", signal.SIGTERM, "retry")
    stopped("collections.update", signal.SIGINT, "revert", run, "--yes")
    told = lab.run("history", "--json").json["runs"]
    assert [run["status"] for run in told[:2]] == ["interrupted", "interrupted"]
    lab.sql("update people set name = 'Right', email = null where name = 'Wrong'")
    assert lab.run("sync").code == 0
    assert len(served.query("SELECT Id FROM Person__c WHERE Name = 'Right'")) == 2
    assert served.count("Person__c") == ROWS["people"]


@pytest.mark.parametrize(
    ("shape", "number"),
    {"rows that do not come": signal.SIGINT, "a statement that does not return": signal.SIGTERM}.items(),
)
def test_a_signal_while_the_model_is_read_ends_the_sync_before_anything_is_sent(lab, org, shape, number):
    lab.only("people", PEOPLE)
    slow = f"select p.* from people_now p, (select 1 {OFTEN}) x"
    if number == signal.SIGTERM:  # and DuckDB does not look up from it
        slow = f"select * from people_now where (select count(*) {OFTEN}) >= 0"
    lab.sql("alter table people rename to people_now", f"create view people as {slow}")
    sync = Asked(lab, "sync")
    sync.says("START")
    time.sleep(0.5)
    sync.to_stop(number)
    assert statuses(lab) == ["interrupted"]
    assert not [path for method, path, _ in lab.requests if method != "GET"]
    lab.sql("drop view people", "alter table people_now rename to people")
    assert lab.run("sync").code == 0
    assert org.count("Person__c") == ROWS["people"]


def test_a_signal_while_the_embedded_org_starts_ends_the_sync_and_the_org(lab):
    lab.only("people", PEOPLE)
    records = lab.root / "emulator_records" / "Account.csv"
    text = records.read_text()
    records.unlink()
    os.mkfifo(records)  # nobody writes to it
    sync = Asked(lab, "sync")
    sync.says("START")
    time.sleep(0.5)
    sync.to_stop(signal.SIGTERM)
    assert statuses(lab) == ["interrupted"]
    assert not using(lab.root)
    records.unlink()
    records.write_text(text)
    assert lab.run("sync").code == 0
    with lab.serve() as org:
        assert org.count("Person__c") == ROWS["people"]


@pytest.mark.parametrize("number", CODES)
def test_a_signal_while_dbt_runs_ends_dbt_and_nothing_is_synced(lab, org, number):
    (lab.root / "models" / "people.sql").write_text(f"select p.* from ({MODELS['people'][1]}) p, (select 1 {OFTEN}) x")
    run = Asked(lab, "run", "--", "dbt", "run", "--select", "people")
    run.says("START")
    run.to_stop(number)  # DuckDB's query goes on after a Ctrl-C, and dbt with it, until it is killed
    assert "nothing is synced" in run.out
    assert not using(lab.root)
    assert lab.requests == []
