"""Every command that has `--json` prints what the published schema says, and docs/json.md shows it."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import json_documents
import pytest
import typer
from test_channels import Receiver

from dinmo_dbt.cli import app as commands

from .lab import DINMO, EVENTS, PEOPLE, Lab, Org, until
from .service import serving
from .test_import import remote, token

pytestmark = pytest.mark.slow

GOLDEN = Path(__file__).parent.parent / "golden" / "json"
INSERT = {**EVENTS, "fields": {column: field for column, field in EVENTS["fields"].items() if "." not in field}}
IN_WAREHOUSE = DINMO + "state: {warehouse: {schema: dinmo}}\n"
KEEPING = {**PEOPLE, "keep_before_images": True, "schedule": "every 2 hours"}
DEMO = "demo"  # tests/e2e/test_demo.py has its document


def with_json(command: Any, path: str = "") -> Iterator[str]:
    """Every command that has the flag."""
    for name, sub in getattr(command, "commands", {}).items():
        yield from with_json(sub, f"{path} {name}".strip())
    if any("--json" in parameter.opts for parameter in command.params):
        yield path


class Tour:
    """A lab in which every command is tried once."""

    def __init__(self, lab: Lab, org: Org) -> None:
        self.lab, self.org, self.told = lab, org, dict[str, dict[str, Any]]()
        self.log: dict[str, Any] = {}

    def ask(self, command: str, *arguments: str, codes: tuple[int, ...] = (0,), **variables: str) -> dict[str, Any]:
        ran = self.lab.run(*command.split(), *arguments, "--json", **variables)
        assert ran.code in codes, ran.all
        document = ran.json
        assert document["command"] == command
        json_documents.hold(document, json_documents.of_command(command))
        self.told[command] = document
        return document

    def go(self, receiver: Receiver) -> None:
        lab = self.lab
        lab.declare("people", KEEPING)
        lab.declare("events", INSERT)
        lab.sql("update people set plan = 'Platinum' where person_id = 'P1'")
        for command in ("list", "debug", "validate", "org objects"):
            self.ask(command)
        self.ask("org fields", "Person__c", "plan")
        self.ask("plan", "--show-values")
        self.ask("sync", codes=(3,))
        lab.sql("update people set name = 'Changed' where person_id = 'P2'")
        assert lab.run("sync").code == 3
        run = self.ask("history", "-s", "people")["runs"][0]["run_id"]
        json_documents.hold(lab.run("history", run, "--json").json)
        for command in ("status", "rejected", "state show"):
            self.ask(command)
        self.ask("schedule")
        self.ask("revert", run)
        self.ask("retry")
        record = self.org.query("SELECT Id FROM Person__c WHERE Person_Id__c = 'P3'")[0]["Id"]
        self.org.edit("Person__c", record, Name="By hand")
        self.ask("verify", "--show-values", codes=(3,))
        self.ask("state rekey", "people_to_crm")
        self.ask("state unlock", "people_to_crm")
        self.ask("state copy", "--to", "warehouse", "--from", str(lab.root / ".dinmo"))
        (lab.root / "dinmo.yml").write_text(IN_WAREHOUSE)
        self.ask("state move", "people_to_crm", "others_to_crm")
        self.ask("pause", "-s", "people", "--reason", "sales is cleaning up")
        paused = lab.run("status", "--json").json["activations"]
        assert any(each["paused"] for each in paused)
        self.ask("resume", "-s", "people")
        self.ask("state reset", "--all")
        self.ask("state accept", "events_to_crm")
        self.ask("state adopt", "events_to_crm", "--match", "event_id=Ref__c")
        hook = f"http://127.0.0.1:{receiver.port}/hook"
        (lab.root / "dinmo.yml").write_text(DINMO + "warnings: {channels: [\"{{ env_var('HOOK') }}\"]}\n")
        self.ask("warnings test", HOOK=hook)
        remote(lab, self.org)
        self.ask("emulator import", "--from", "org:crm", LAB_TOKEN=token(self.org))

    def go_on(self) -> None:
        """With what runs dbt, or stays."""
        lab = self.lab
        (lab.root / "dinmo.yml").write_text(IN_WAREHOUSE)
        ran = lab.process("run", "--json", "-s", "companies", "--", "dbt", "run", "-s", "companies")
        assert ran.code == 0, ran.all
        self.told["run"] = ran.json
        lines = lab.process("sync", "--log-format", "json", "-s", "companies").out.splitlines()
        for line in lines:
            json_documents.hold(json.loads(line), "LogLine")
        self.log = json.loads(lines[0])


def test_every_command_prints_the_published_document(lab: Lab, receiver: Receiver) -> None:
    with lab.serve() as org:
        tour = Tour(lab, org)
        tour.go(receiver)
        tour.go_on()
    child = lab.start("emulator", "serve", "--json", "--exit-with-stdin")  # its stdin is closed: it ends by itself
    out, err = child.communicate(timeout=60)
    tour.told["emulator serve"] = json.loads(out or err)
    tour.ask("emulator reset")
    every = set(with_json(typer.main.get_command(commands.app())))
    assert tour.told.keys() == every - {DEMO}, "a command with --json is tried here, and has a document"
    examples: dict[str, dict[str, Any]] = {}
    for command, document in tour.told.items():
        examples.setdefault(json_documents.of_command(command), document)  # `sync` stands for `run` and `retry`
    for name, document in examples.items():
        as_golden(name, document)
    as_golden("LogLine", tour.log)
    as_golden("RunResults", json.loads((lab.root / "target" / "dinmo_run_results.json").read_bytes()))


def test_a_command_that_fails_says_why_in_its_document(lab: Lab) -> None:
    (lab.root / "target" / "manifest.json").unlink()
    for command in ("list", "sync", "status"):
        ran = lab.run(command, "--json")
        assert ran.code == 2, ran.all
        told = ran.json
        assert (told["command"], told["exit_code"]) == (command, 2)
        assert [problem["code"] for problem in told["problems"]] == [ran.err.split()[0]]
    as_golden("Failure", told)
    assert lab.run("list").out == ""


def test_health_is_as_published(lab: Lab, org: Org) -> None:
    lab.only("people", {**PEOPLE, "schedule": "every 2 hours"})
    with serving(lab) as service:
        service.says("Done. ")
        until(lambda: service.health()[1]["next"] and not service.health()[1]["running"])
        as_golden("Health", service.health()[1])


def as_golden(name: str, document: dict[str, Any]) -> None:
    """The example of the page has the shape of what was printed."""
    path, made = GOLDEN / f"{name}.json", example(document)
    json_documents.hold(document, name)
    if os.environ.get("DINMO_UPDATE_GOLDEN"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(made, indent=2) + "\n")
    assert shape(json.loads(path.read_text())) == shape(made), f"DINMO_UPDATE_GOLDEN=1, then `make docs`: {name}"


def example(value: Any, key: str = "") -> Any:
    """One that is the same on every machine and each time: of every list its first entry."""
    if isinstance(value, dict):
        return {name: example(each, name) for name, each in value.items()}
    if isinstance(value, list):
        return [example(each, key) for each in value[:1]]
    if isinstance(value, float):
        return 0.25
    if isinstance(value, str):
        for pattern, shown in _CHANGING:
            value = re.sub(pattern, shown, value)
    return _FIXED.get(key, value) if value not in (None, "") else value


_CHANGING = (
    (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", "2026-03-09T08:00:00.000Z"),
    (r"\d{4}-\d\d-\d\d \d\d:\d\d(:\d\d)?", "2026-03-09 08:00"),
    (r"\d{8}T\d{6}-[0-9a-f]{6}", "20260309T080000-3fa2c1"),
    (r"\b(?:00D|a\d\w|750|001|005)[A-Za-z0-9]{15}\b", lambda found: found[0][:3] + "5g000001AbCdEAK"),
    (r"/tmp/\S*?/lab|/tmp/\S*?/other", "/srv/shop"),
    (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "6f3a2a5e-7c1d-4c0e-9b1a-0d9c3c1f2b4a"),
    (r"00D[A-Za-z0-9]{12}", "00D5g000001AbCd"),
    (r"127\.0\.0\.1:\d+|localhost:\d+", "127.0.0.1:8080"),
    (r"\d+\.\d\ds", "0.25s"),
    (r"duckdb \S+", "duckdb 1.4"),
)
_FIXED = {
    "access_token": "...", "refresh_token": "...", "client_secret": "...", "client_id": "...", "password": "...",
    "security_token": "...", "pid": 4242, "lineage": "9d1f0c6a7b3e4f52", "plan_digest": "3f5a...", "bytes": 4096,
    "rows_per_second": 500, "dinmo_dbt": "0.1.0", "dinmo_version": "0.1.0", "dbt": "1.11.0", "api_calls": 9,
    "calls_used": 12, "seconds": 0.25,
}  # fmt: skip


def shape(value: Any) -> Any:
    """Keys, and what kind of value each has."""
    if isinstance(value, dict):
        return {name: shape(each) for name, each in value.items()}
    if isinstance(value, list):
        return [shape(each) for each in value[:1]]
    return "number" if type(value) in (int, float) else type(value).__name__


def test_every_duration_says_its_unit() -> None:
    """Numbers with a fraction are durations, and nothing else; `execution_time` and `elapsed_time` are dbt's names."""
    floats = set()
    for name, definition in json_documents.SCHEMA["$defs"].items():
        for key, value in definition["properties"].items():
            if '"number"' in json.dumps(value):
                floats.add(f"{name}.{key}")
    assert floats
    theirs = {"RunResults.elapsed_time", "FileResult.execution_time"}
    assert {each for each in floats - theirs if not each.endswith("seconds")} == set()


def test_what_is_not_as_published_is_found() -> None:
    good = json.loads((GOLDEN / "History.json").read_text())
    json_documents.hold(good)
    for change in ({"started": 1_773_043_200.0}, {"started": "2026-03-09 08:00:00Z"}, {"new": 1}, {"status": "fine"}):
        with pytest.raises(AssertionError):
            json_documents.hold({**good, "runs": [{**good["runs"][0], **change}]})
    missing = {key: value for key, value in good["runs"][0].items() if key != "finished"}
    with pytest.raises(AssertionError):
        json_documents.hold({**good, "runs": [missing]})


def test_the_schema_is_printed(lab: Lab) -> None:
    assert json.loads(lab.run("schema", "json").out) == json_documents.SCHEMA


def test_the_history_shows_the_code_and_the_place_of_a_run_that_failed(lab: Lab, org: Org) -> None:
    lab.only("people", {**PEOPLE, "fields": {**PEOPLE["fields"], "note": "Nowhere__c"}})
    assert lab.run("sync").code == 2
    shown = lab.run("history").out.splitlines()
    assert re.fullmatch(r"    DB302  .*people.*\.fields\.note", shown[1]), shown
    problem = lab.run("history", "--json").json["runs"][0]["problem"]
    assert shown[1].split(maxsplit=1) == [problem["code"], problem["where"]]
