"""What the product does with a document, in few words: of an activation, and of dinmo.yml."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs

import duckdb

from dinmo_dbt.activation import Activation
from dinmo_dbt.config import meta
from dinmo_dbt.errors import Problem
from dinmo_dbt.model import Model
from dinmo_dbt.watch import pausing, schedule, warnings
from dinmo_dbt.watch.history import RunRecord, Trigger

from .lab import COMPANIES, PEOPLE
from .world import Document, See, World, code

# Of an activation


def around(activation: Document) -> Document:
    return {"key": "person_id", "segments": {"few": "plan = 'Free'"}, "activations": [activation]}


def planned(tell: Callable[[Document], Any]) -> See:
    """Of `plan --json`, or the code of what stops it."""

    def see(world: World, written: Document) -> Any:
        world.block(written if "key" in written else around(written))
        ran = world.run("plan", "--json")
        return tell(ran.json["activations"][0]) if ran.code == 0 else code(ran)

    return see


def sent(tell: Callable[[World], Any], *then: str, before: Sequence[Document] = (), flag: str = "--first-sync") -> See:
    """What a sync leaves; `then`: statements of the next dbt run, and one more sync. `before`: the org's records."""

    def see(world: World, written: Document) -> Any:
        for record in before:
            world.org.create("Person__c", **record)
        world.block(around(written))
        ran = world.run("sync", flag)
        if ran.code == 0 and then:
            world.lab.sql(*then)
            ran = world.run("sync")
        return tell(world) if ran.code == 0 else code(ran)

    return see


def person(*fields: str, where: str = "Person_Id__c = 'P1'") -> Callable[[World], Any]:
    def tell(world: World) -> Any:
        found = world.org.query(f"SELECT {', '.join(fields)} FROM Person__c WHERE {where}")
        return [[record[name] for name in fields] for record in found]

    return tell


rows = planned(lambda plan: plan["counts"]["planned"])
target = planned(lambda plan: (plan["object"], plan["destination"]))
named = planned(lambda plan: plan["activation"])
header = planned(lambda plan: plan["batches"][0]["fields"])
api = planned(lambda plan: plan["batches"][0]["api"])

OLD = {"Name": "Old", "Person_Id__c": "P1", "Nick__c": "kept"}
P1 = "where person_id = 'P1'"
mode = sent(lambda w: (w.org.count("Person__c"), person("Name")(w)), before=[OLD])
nick = sent(person("Nick__c"), before=[OLD])
flags = sent(person("Active__c"), before=[{**OLD, "Active__c": True}])
unflagged = sent(person("Active__c"), before=[OLD])
score = sent(person("Score__c"))
events = sent(lambda w: w.org.count("Event__c"), f"update people set plan = 'Free' {P1}")
left = sent(person("Nick__c", "Score__c", "Active__c", where="Name = 'Person 1'"), f"delete from people {P1}")
deleted = sent(
    lambda w: w.org.count("Person__c"), "delete from people where cast(person_id[2:] as int) <= 12"
)  # a percentage has a floor of 10 rows
images = sent(
    lambda w: bool(list((w.lab.root / ".dinmo").rglob("*-0001-*.parquet"))), f"update people set name = 'x' {P1}"
)


def audited(world: World, written: Document) -> Any:
    """How many rows the audit of a first sync compares."""
    world.block(around(written))
    found = world.run("sync", "--json").json["results"][0]["audit"]
    return found and found["compared"]


THOUSAND = "insert into people (person_id, name) select 'X' || i, 'many' from range(1000) t(i)"


def planned_after(world: World, written: Document, change: str) -> str:
    """What a plan says of a change that follows a sync."""
    world.block(around(written))
    assert world.run("sync").code == 0
    world.lab.sql(change)
    return code(world.run("plan"))


def many_changed(world: World, written: Document) -> str:
    """A run that changes 600 of 1,030 rows."""
    world.lab.sql(THOUSAND)
    changed = "update people set name = 'other' where person_id like 'X%' and cast(person_id[2:] as int) < 600"
    return planned_after(world, written, changed)


def many_created(world: World, written: Document) -> str:
    """A run that brings 600 new rows beside 1,030 known ones."""
    world.lab.sql(THOUSAND)
    created = "insert into people (person_id, name) select 'Y' || i, 'more' from range(600) t(i)"
    return planned_after(world, written, created)


def many_replaced(world: World, written: Document) -> str:
    """A run for which 16 of 30 keys left and as many others came."""
    other = "person_id = 'other ' || person_id, name = 'other ' || name"
    replaced = f"update people set {other} where cast(person_id[2:] as int) <= 16"
    return planned_after(world, written, replaced)


def due_now(world: World, written: Document) -> list[str]:
    world.block(around(written))
    return [result["status"] for result in world.run("sync", "--due", "--json").json["results"]]


def parentless(world: World, written: Document) -> list[str]:
    """Fates of rows whose parents are not there."""
    world.block(around(written))
    return sorted({group["fate"] for group in world.run("sync", "--json").json["results"][0]["left_out"]})


def refused_for_long(world: World, written: Document) -> list[str]:
    """Codes of rows that Salesforce refuses, forty days after it did so first."""
    world.block(around(written))
    world.run("sync")
    with closing(sqlite3.connect(world.lab.root / ".dinmo/state.db")) as connection, connection:
        connection.execute("UPDATE pending SET since = since - 40 * 86400")
    return sorted({group["code"] for group in world.run("sync", "--json").json["results"][0]["left_out"]})


def statuses(world: World, written: Document) -> list[str]:
    """Of two syncs that fail for a reason that lasts."""
    world.block(around(written))
    return [world.run("sync", "--json").json["results"][0]["status"] for _ in range(2)]


def resolved(written: Document, form: str = "activations", defaults: Document | None = None) -> meta.Resolved:
    model = Model("model.lab.people", "people", '"people"', "model", ("people",), (), "people.sql")
    content = [written] if form == "activations" else written
    found = meta.resolve(
        {"key": "person_id", "segments": {"few": "true"}, form: content}, model, "meta", defaults or {}
    )
    paths = [replace(each, meta_path="") for each in found.activations]
    left = [
        replace(each, meta_path="", problems=tuple(replace(problem, where="") for problem in each.problems))
        for each in found.left
    ]
    return meta.Resolved(tuple(paths), tuple(left))


def only(written: Document) -> Activation:
    [found] = resolved(written).activations
    return found


NOON = datetime(2026, 3, 2, 12, tzinfo=UTC).timestamp()  # a Monday


def next_start(_: World, written: Document) -> str:
    moment = schedule.next_due(only(written), schedule.Past(since=NOON, ran=True), now=NOON)
    return f"{datetime.fromtimestamp(moment, UTC):%d %H:%M}" if moment else "never"


def run(status: str = "success", **more: Any) -> RunRecord:
    told = {"counts": {"read": 100, "unchanged": 100}, "outcome": {"succeeded": 0, "removed": 0}}
    made = RunRecord("r", "people_to_crm", "dev", "00D", NOON, NOON + 60, status, **(told | more))
    return replace(made, problem=Problem("DB302", "no field")) if status == "failed" else made


def paused_after(_: World, written: Document) -> int | None:
    """The number of failed runs that pause it."""
    failed = [run("failed")] * 9
    return next((n for n in range(1, 10) if pausing.why_pause(only(written), failed[0], failed[: n - 1])), None)


# A run that each kind of warning is about; the runs before it were as usual.
UNUSUAL: dict[str, RunRecord] = {
    "failed": run("failed"),
    "rejected": run("rejected", refused_rows=10, deliverable_rows=100),
    "held": run(waiting_rows=1, waiting_since=NOON - 2 * 86400),
    "empty": run(counts={"read": 0}),
    "row_count": run(counts={"read": 10}),
    "duration": replace(run(), finished=NOON + 5 * 3600),
    "missed": run(trigger=Trigger("due", "every hour", due=NOON - 3600)),
    "full": run(resent="--full"),
    "drift": run("failed"),
    "api_budget": run(calls_used=90, calls_allowed=100),
    "refused": replace(run(), status="refused", problem=Problem("DB403", "too many")),
    "paused": run(),
}
USUAL_RUNS = [
    replace(run(), run_id=f"r{day}", started=NOON - day * 86400, finished=NOON - day * 86400 + 60)
    for day in range(1, 16)
]


def told(_: World, written: Document) -> list[str]:
    """Severities of what is told of the run that the one kind of warning in the document is about."""
    activation = only(written)
    [kind] = written["warnings"]
    watched = {each: watch for each, watch in activation.warnings.items() if each == kind}
    activation = replace(activation, warnings=watched)
    if kind == "paused":
        found = warnings.paused(activation, target="dev", reason="x", by_hand=True, at=NOON, id="n")
        return [found.severity] if found else []
    noticed = warnings.notice(UNUSUAL[kind], activation=activation, earlier=USUAL_RUNS, standing=())
    return [str(notice.severity) for notice in noticed.notices]


# Of dinmo.yml


def signed_in(world: World, written: Document) -> str:
    """How the org was asked to let us in, or the code of what stops it."""
    world.dinmo_yml(written)
    ran = world.run("debug")
    asked = [parse_qs(body.decode()) for _, path, body in world.lab.requests if path.endswith("/oauth2/token")]
    return code(ran) if ran.code else asked[0]["grant_type"][0].rpartition(":")[2] if asked else "token"


def reached(world: World, written: Document) -> Any:
    world.dinmo_yml(written)
    return rows(world, PEOPLE)


def valid(world: World, written: Document) -> str:
    world.dinmo_yml(written)
    return code(world.run("validate"))


def beside_another(world: World, written: Document) -> Any:
    """How many rows a plan sends where another activation writes records of the same object."""
    other = {**PEOPLE, "name": "other", "fields": {"name": "Name"}}
    world.block({"key": "person_id", "activations": [written, other]})
    ran = world.run("plan", "-s", written["name"], "--json")
    return ran.json["activations"][0]["counts"]["planned"] if ran.code == 0 else code(ran)


def with_few_calls(world: World, written: Document) -> str:
    world.dinmo_yml(written)
    world.control("limits", DailyApiRequests=100)
    world.block(around(PEOPLE))
    return code(world.run("sync"))


def with_defaults(world: World, written: Document) -> Any:
    world.dinmo_yml(written)
    return rows(world, {key: value for key, value in PEOPLE.items() if key != "object"})


def synced(tell: Callable[[World], Any], *, telling: bool = False) -> See:
    def see(world: World, written: Document) -> Any:
        world.dinmo_yml(written)
        world.block(around({**PEOPLE, "warnings": {"full": telling}}))
        assert world.run("sync").code == 0
        return tell(world)

    return see


def state_folder(world: World) -> str:
    [found] = world.lab.root.rglob("state.db")
    return found.parent.name


def state_tables(world: World) -> list[str]:
    with duckdb.connect(str(world.lab.root / "lab.duckdb"), read_only=True) as connection:
        found = connection.execute("select distinct table_schema from information_schema.tables").fetchall()
    return sorted(name for (name,) in found)


def runs_kept(world: World) -> int:
    """Of 60 runs of ten days ago, and two of now."""
    with closing(sqlite3.connect(world.lab.root / ".dinmo/history.db")) as connection, connection:
        row = dict(zip(*_first(connection, "SELECT * FROM run"), strict=True))
        for number in range(60):
            times = {time: row[time] - 864_000 - number for time in ("started", "finished")}
            old = {**row, **times, "id": f"{number}", "number": 60 - number}
            marks = ", ".join("?" * len(old))
            connection.execute(f"INSERT INTO run ({', '.join(old)}) VALUES ({marks})", list(old.values()))
        connection.execute("UPDATE run SET number = 61 WHERE id = ?", (row["id"],))
    assert world.run("sync").code == 0
    return len(world.run("history", "--json", "--limit", "100").json["runs"])


def _first(connection: sqlite3.Connection, sql: str) -> tuple[list[str], Any]:
    cursor = connection.execute(sql)
    return [column[0] for column in cursor.description], cursor.fetchone()


def digest_time(world: World) -> str:
    """When the next digest counts from, UTC."""
    with closing(sqlite3.connect(world.lab.root / ".dinmo/history.db")) as connection:
        found = connection.execute("SELECT since FROM activity WHERE name = ' digest'").fetchone()
    return f"{datetime.fromtimestamp(found[0], UTC):%H:%M}" if found else "none"


def embedded(world: World, written: Document) -> list[Any]:
    """Of an org that a command starts for itself: what a plan makes of it, and where it keeps its records."""
    world.dinmo_yml(written)
    world.block({"key": "website", "activations": [COMPANIES]}, "companies")
    ran = world.run("plan", "--json")
    kept = [name for name in ("own", "other") if (world.lab.root / name).exists()]
    return [code(ran) if ran.code else ran.json["activations"][0]["counts"]["planned"], *kept]
