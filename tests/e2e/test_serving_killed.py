"""`serve` with fifty activations, killed again and again in the middle of its syncs: nothing is lost or doubled."""

from __future__ import annotations

import os
import random
import re
import signal
import sqlite3
import time
from collections import Counter
from contextlib import closing
from typing import Any

import duckdb
import pytest

from .lab import COMPANIES, EVENTS, OBJECTS, PEOPLE, Lab, Org, object_files
from .service import serving
from .test_scheduling import rebuilt

pytestmark = pytest.mark.slow

KILLS = int(os.environ.get("SERVE_KILLS", "4"))  # `make kill` has ten
INSERTS, UPSERTS, UPDATES = 20, 20, 10
PERSONS, ACCOUNTS = 400, 40
SEED = int(os.environ.get("SERVE_SEED", "0")) or random.SystemRandom().randrange(1, 10**9)


def declared(lab: Lab, drawn: random.Random) -> None:
    """Fifty activations of three modes in a drawn order, each with rows of its own."""
    names = iter([f"sync_{n:02}" for n in drawn.sample(range(50), 50)])
    for number in range(INSERTS):
        for path, text in object_files(f"Event{number}__c", OBJECTS["Event__c"]).items():
            (lab.root / path).parent.mkdir(parents=True, exist_ok=True)
            (lab.root / path).write_text(text)
    fields = {"event_id": "Ref__c", "kind": "Kind__c", "amount": "Amount__c"}
    # A third of the rows changes with each build: within a day these are most.
    every_run = {"api": "bulk", "guards": {"max_change": "100%"}}
    inserts = [
        {**EVENTS, "name": next(names), "object": f"Event{n}__c", "fields": fields, **every_run} for n in range(INSERTS)
    ]
    upserts = [
        {
            **PEOPLE,
            "name": next(names),
            "where": f"cast(substr(person_id, 2) as int) % {UPSERTS} = {n}",
            "api": "bulk" if n % 2 else "auto",
        }
        for n in range(UPSERTS)
    ]
    updates = [
        {**COMPANIES, "name": next(names), "where": f"cast(replace(website, '.example', '') as int) % {UPDATES} = {n}"}
        for n in range(UPDATES)
    ]
    lab.declare("events", *inserts)
    lab.declare("people", *upserts)
    lab.declare("companies", *updates)
    accounts = "".join(f"Account {n},{n}.example\n" for n in range(ACCOUNTS))
    (lab.root / "emulator_records" / "Account.csv").write_text(f"Name,Website\n{accounts}")
    lab.sql(
        "insert into people (person_id, name, plan, email, score) select 'P' || i, 'Person ' || i, 'Free',"
        f" 'p' || i || '@example.com', i from range(31, {PERSONS + 1}) t(i)",
        "delete from companies",
        f"insert into companies select i || '.example', i from range({ACCOUNTS}) t(i)",
    )


def built_anew(lab: Lab, number: int) -> str:
    """dbt runs again: a part of each model's rows has changed."""
    lab.sql(
        f"update people set score = score + 1 where hash(person_id || '{number}') % 3 = 0",
        f"update events set amount = amount + 100 where hash(event_id || '{number}') % 3 = 0",
        f"update companies set score = score + 1 where hash(website || '{number}') % 3 = 0",
    )
    return rebuilt(lab)


def test_kills_in_the_middle_of_fifty_activations_lose_and_double_nothing(lab: Lab) -> None:
    print(f"SERVE_SEED={SEED}")
    drawn = random.Random(SEED)
    declared(lab, drawn)
    invocations = []
    with lab.emulator() as (org, _):
        for number in range(KILLS):
            invocations.append(built_anew(lab, number))
            with serving(lab) as service:
                service.says(" START ", drawn.randint(1, 16))
                time.sleep(drawn.uniform(0, 0.4))
                assert service.end(signal.SIGKILL)[0] == -signal.SIGKILL
        invocations.append(built_anew(lab, KILLS))
        with serving(lab) as last:
            last.says(" OK ", 50, seconds=240)  # by one look, or by several where the machine is slow
            time.sleep(1.5)
        begun = Counter(re.findall(r" START sync (\w+) ", last.all))
        assert len(begun) == 50 and max(begun.values()) == 1, begun
        ended = re.findall(r"Done\. PASS=(\d+) WARN=0 ERROR=0 REFUSED=0 ", last.all)
        assert sum(map(int, ended)) == 50, last.all
        held_by(org, lab)
    told_by_the_history(lab, invocations)
    assert [path for path in (lab.root / ".dinmo" / "spool").rglob("*") if path.is_file()] == []


def held_by(org: Org, lab: Lab) -> None:
    """Each row once, with its latest values; of an insert each acknowledged value once."""
    rows: dict[str, list[tuple[Any, ...]]] = {}
    with duckdb.connect(str(lab.root / "lab.duckdb"), read_only=True) as connection:
        for model, columns in (("people", "person_id, score"), ("events", "event_id, amount"), ("companies", "*")):
            rows[model] = [(k, float(v)) for k, v in connection.execute(f"select {columns} from {model}").fetchall()]
    people = [(r["Person_Id__c"], r["Score__c"]) for r in org.query("SELECT Person_Id__c, Score__c FROM Person__c")]
    assert sorted(people) == sorted(rows["people"])
    accounts = [(r["Website"], r["Score__c"]) for r in org.query("SELECT Website, Score__c FROM Account")]
    assert sorted(accounts) == sorted(rows["companies"])
    for number in range(INSERTS):
        records = org.query(f"SELECT Ref__c, Amount__c FROM Event{number}__c")
        events = Counter((r["Ref__c"], r["Amount__c"]) for r in records)
        assert max(events.values()) == 1, f"Event{number}__c"
        assert set(rows["events"]) <= set(events), f"Event{number}__c"


def told_by_the_history(lab: Lab, invocations: list[str]) -> None:
    with closing(sqlite3.connect(lab.root / ".dinmo/history.db")) as connection:
        assert connection.execute("SELECT count(*) FROM run WHERE status = 'running'").fetchone() == (0,)
    runs = lab.run("history", "--json", "--limit", "1000").json["runs"]
    assert {run["status"] for run in runs} == {"success", "interrupted"}
    for run in runs:
        assert run["trigger"]["kind"] == "due" and run["trigger"]["invocation"] in invocations
        counts, outcome = run["counts"], run["outcome"]
        if run["status"] == "success":
            sent = sum(outcome[fate] for fate in ("succeeded", "rejected", "held", "unknown"))
            assert sent == outcome["succeeded"] == counts["planned"], run
            assert counts["read"] == counts["unchanged"] + counts["planned"], run
    ended = Counter((r["activation"], r["trigger"]["invocation"]) for r in runs if r["status"] == "success")
    assert max(ended.values()) == 1
    assert sum(invocation == invocations[-1] for _, invocation in ended) == 50
    interrupted = Counter(run["activation"] for run in runs if run["status"] == "interrupted")
    print(f"cut off: {dict(interrupted)}; runs that ended: {len(ended)}")
    assert sum(interrupted.values()) >= KILLS // 4
