"""A small dbt project with a Salesforce org of its own, and what a test may do to both.

dbt builds the project once per test session. A test works on a copy: it changes the tables as the next dbt run would,
and declares other activations by writing them into the manifest, as `dbt parse` would.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import json_documents
import requests
from loopback import served
from warm import WarmPopen

from dinmo_dbt import cli, emulator

TEXT = "<type>Text</type><length>{0}</length>"
EXTERNAL = "<externalId>true</externalId><unique>true</unique>"
PICKLIST = (
    "<type>Picklist</type><valueSet><restricted>true</restricted><valueSetDefinition><sorted>false</sorted>"
    "<value><fullName>Free</fullName><label>Free</label></value><value><fullName>Team</fullName><label>Team</label>"
    "</value></valueSetDefinition></valueSet>"
)
NUMBER = "<type>Number</type><precision>18</precision><scale>{0}</scale>"
OBJECTS = {
    "Person__c": {
        "Person_Id__c": TEXT.format(20) + EXTERNAL,
        "Plan__c": PICKLIST,
        "Email__c": "<type>Email</type>",
        "Score__c": NUMBER.format(2),
        "Big__c": NUMBER.format(0),
        "Note__c": "<type>LongTextArea</type><length>131072</length><visibleLines>3</visibleLines>",
        "Nick__c": TEXT.format(10),
        "Tax_Id__c": TEXT.format(20) + "<unique>true</unique>",
        "Active__c": "<type>Checkbox</type><defaultValue>false</defaultValue>",
        "Born__c": "<type>Date</type>",
        "Seen__c": "<type>DateTime</type>",
    },
    "Event__c": {
        "Ref__c": TEXT.format(40),
        "Kind__c": TEXT.format(40),
        "Amount__c": NUMBER.format(2),
        "Must__c": TEXT.format(40),
        "Person__c": "<type>Lookup</type><referenceTo>Person__c</referenceTo>"
        "<relationshipName>Events</relationshipName>",
    },
    "Account": {"Score__c": NUMBER.format(2)},
}
PEOPLE = {
    "name": "people_to_crm",
    "destination": "crm",
    "object": "Person__c",
    "mode": "upsert",
    "match": {"person_id": "Person_Id__c"},
    "fields": {"name": "Name", "plan": "Plan__c", "email": "Email__c", "score": "Score__c"},
}
EVENTS = {
    "name": "events_to_crm",
    "destination": "crm",
    "object": "Event__c",
    "mode": "insert",
    "fields": {
        "event_id": "Ref__c",
        "kind": "Kind__c",
        "amount": "Amount__c",
        "person_id": "Person__r.Person_Id__c",
    },
}
COMPANIES = {
    "name": "companies_to_crm",
    "destination": "crm",
    "object": "Account",
    "mode": "update",
    "match": {"website": "Website"},
    "fields": {"score": "Score__c"},
}
MODELS = {
    "people": (
        {"key": "person_id", "activations": [PEOPLE]},
        "select 'P' || i as person_id, 'Person ' || i as name, case when i % 2 = 0 then 'Free' else 'Team' end as plan,"
        " 'p' || i || '@example.com' as email, cast(i + 0.5 as decimal(10, 2)) as score,"
        " cast(null as varchar) as note, cast(null as varchar) as nick, cast(null as varchar) as tax_id,"
        " cast(null as double) as big, cast(null as boolean) as active, cast(null as date) as born,"
        " cast(null as timestamptz) as seen from range(1, 31) t(i)",
    ),
    "events": (
        {"key": "event_id", "activations": [EVENTS]},
        "select 'E' || i as event_id, 'login' as kind, cast(i as decimal(10, 2)) as amount,"
        " 'P' || (i % 30 + 1) as person_id, cast(null as varchar) as must from range(1, 21) t(i)",
    ),
    "companies": (
        {"key": "website", "activations": [COMPANIES]},
        "select * from (values ('a.example', 10.5), ('b.example', 20), ('unknown.example', 30)) t(website, score)",
    ),
}
ACCOUNTS = "Name,Website\nAlpha,a.example\nBeta,b.example\nOther,o.example\n"
DINMO = "destinations:\n  crm:\n    targets:\n      dev: {org: emulator}\n"


def write_project(root: Path) -> None:
    """The dbt project, the org's schema and its starting records."""
    files = {
        "dbt_project.yml": "name: lab\nversion: '1.0'\nprofile: lab\nmodels: {lab: {+materialized: table}}\n"
        "flags: {send_anonymous_usage_stats: false}\n",
        "profiles.yml": "lab:\n  target: dev\n  outputs:\n    dev: {type: duckdb, path: lab.duckdb, threads: 1}\n",
        "dinmo.yml": DINMO,
        "emulator_records/Account.csv": ACCOUNTS,
    }
    declared = []
    for name, (meta, sql) in MODELS.items():
        files[f"models/{name}.sql"] = sql + "\n"
        declared.append({"name": name, "config": {"meta": {"dinmo": meta}}})
    declared[0]["columns"] = [{"name": "person_id", "data_tests": ["unique", "not_null"]}]
    files["models/models.yml"] = json.dumps({"version": 2, "models": declared})
    for name, fields in OBJECTS.items():
        files |= object_files(name, fields)
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text, encoding="utf-8")


def object_files(name: str, fields: dict[str, str]) -> dict[str, str]:
    """An object of the org as SFDX source: path and content of each file."""
    head, space = '<?xml version="1.0" encoding="UTF-8"?>', 'xmlns="http://soap.sforce.com/2006/04/metadata"'
    folder, files = f"force-app/main/default/objects/{name}", {}
    if name.endswith("__c"):
        files[f"{folder}/{name}.object-meta.xml"] = (
            f"{head}<CustomObject {space}><label>{name[:-3]}</label><pluralLabel>{name[:-3]}s</pluralLabel>"
            "<nameField><label>Name</label><type>Text</type></nameField><sharingModel>ReadWrite</sharingModel>"
            "<deploymentStatus>Deployed</deploymentStatus></CustomObject>"
        )
    for field, body in fields.items():
        files[f"{folder}/fields/{field}.field-meta.xml"] = (
            f"{head}<CustomField {space}><fullName>{field}</fullName><label>{field[:-3]}</label>{body}</CustomField>"
        )
    return files


def environment() -> dict[str, str]:
    """Ours, without what would change the meaning of a command."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DBT_", "DINMO_"))}
    marks = str(Path(tempfile.gettempdir()) / f"dinmo-tests-{os.getuid()}")
    return kept | {"DBT_SEND_ANONYMOUS_USAGE_STATS": "false", "NO_COLOR": "1", "XDG_STATE_HOME": marks}


def dbt(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(Path(sys.executable).with_name("dbt")), *arguments]
    pipe = subprocess.PIPE
    child = WarmPopen(command, cwd=root, env=environment(), stdin=pipe, stdout=pipe, stderr=pipe, text=True)
    out, err = child.communicate(timeout=120)
    return subprocess.CompletedProcess(command, child.returncode, out, err)


@dataclass(frozen=True)
class Ran:
    """What one command left: exit code, stdout, stderr."""

    code: int
    out: str
    err: str

    @property
    def all(self) -> str:
        return self.out + self.err

    @property
    def json(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.out)
        json_documents.hold(document)
        return document

    def result(self, name: str) -> dict[str, Any]:
        """One activation's result in the document of `sync --json`."""
        return next(r for r in self.json["results"] if r["activation"] == name)


class Org:
    """A plain client of the org, sharing nothing with ours."""

    def __init__(self, url: str, token: str) -> None:
        self.url = url
        self.base = f"{url}/services/data/v62.0"
        self.http = requests.Session()
        self.http.headers["Authorization"] = f"Bearer {token}"

    def query(self, soql: str) -> list[dict[str, Any]]:
        found = self.http.get(f"{self.base}/query", params={"q": soql}).json()
        assert isinstance(found, dict), found
        records = list(found["records"])
        while not found["done"]:
            found = self.http.get(self.url + found["nextRecordsUrl"]).json()
            records += found["records"]
        return records

    def count(self, name: str) -> int:
        return int(self.http.get(f"{self.base}/query", params={"q": f"SELECT count() FROM {name}"}).json()["totalSize"])

    def edit(self, name: str, record_id: str, **fields: Any) -> None:
        answer = self.http.patch(f"{self.base}/sobjects/{name}/{record_id}", json=fields)
        assert answer.status_code == 204, answer.text

    def create(self, name: str, **fields: Any) -> None:
        answer = self.http.post(f"{self.base}/sobjects/{name}", json=fields)
        assert answer.status_code == 201, answer.text

    def jobs(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.http.get(f"{self.base}/jobs/ingest").json()["records"]
        return found


@dataclass
class Deadly:
    """The request at which the asking process dies: `half asked` or `before` the org acts on it, `half answered` or
    `after`, its answer unread."""

    method: str
    path: str
    moment: str
    victim: int = 0

    def is_at(self, environ: dict[str, Any]) -> bool:
        return environ["REQUEST_METHOD"] == self.method and self.path in environ["PATH_INFO"]

    def halfway(self, answer: bytes) -> Iterator[bytes]:
        yield answer[: len(answer) // 2]
        self.strike()
        yield answer[len(answer) // 2 :]

    def strike(self) -> None:
        until(lambda: self.victim)  # who started it may still be noting which process it is
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.victim, signal.SIGKILL)


class Lab:
    """One test's project."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.data = root / ".dinmo" / "emulator"
        self.requests: list[tuple[str, str, bytes]] = []
        self.deadly: Deadly | None = None
        self.gate: Callable[[str, str, bytes], object] = lambda *_: None  # each request passes it before it is answered
        self.variables: dict[str, str] = {}  # of every command's environment

    # The warehouse and the declarations

    def sql(self, *statements: str) -> None:
        with until(self._database) as connection:
            for statement in statements:
                connection.execute(statement)

    def _database(self) -> duckdb.DuckDBPyConnection | None:
        """The warehouse's file, or None while a process beside this one has it open."""
        try:
            return duckdb.connect(str(self.root / "lab.duckdb"))
        except duckdb.IOException as error:
            if "Conflicting lock" not in str(error):
                raise
            return None

    def declare(self, model: str, *activations: dict[str, Any], key: Any = None) -> None:
        """What `config.meta.dinmo` of the model says from now on."""
        path = self.root / "target" / "manifest.json"
        manifest = json.loads(path.read_text())
        node = manifest["nodes"][f"model.lab.{model}"]
        meta = {"key": key or MODELS[model][0]["key"], "activations": list(activations)} if activations else {}
        node["config"]["meta"] = node["meta"] = {"dinmo": meta} if meta else {}
        path.write_text(json.dumps(manifest))

    def only(self, model: str, *activations: dict[str, Any], key: Any = None) -> None:
        """This model's activations and no other's."""
        for name in MODELS:
            self.declare(name, *(activations if name == model else ()), key=key)

    # The org

    @contextlib.contextmanager
    def serve(self) -> Iterator[Org]:
        """The org of this project, served in this process as a standing `emulator serve` would."""
        app = emulator.app(
            schema=self.root / "force-app", data=self.data, records=self.root / "emulator_records", batch_delay_s=0.0
        )

        def noting(environ: dict[str, Any], start_response: Any) -> Any:
            body = b""
            deadly = self.deadly if self.deadly and self.deadly.is_at(environ) else None
            if deadly and deadly.moment == "half asked":
                environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]) // 2)
                deadly.strike()
                start_response("503 Service Unavailable", [])
                return [b""]
            if environ["REQUEST_METHOD"] in ("POST", "PATCH", "PUT") and environ.get("CONTENT_LENGTH"):
                body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
                environ["wsgi.input"] = io.BytesIO(body)
            self.requests.append((environ["REQUEST_METHOD"], environ["PATH_INFO"], body))
            self.gate(*self.requests[-1])
            if deadly and deadly.moment == "before":
                deadly.strike()
                start_response("503 Service Unavailable", [])
                return [b""]
            answer = list(app(environ, start_response))
            if deadly and deadly.moment == "after":
                deadly.strike()
            if deadly and deadly.moment == "half answered":
                return deadly.halfway(b"".join(answer))
            return answer

        who = app.identity
        with contextlib.closing(app), served(noting) as url:
            told = {"instance_url": url, "access_token": who.access_token, "organization_id": who.organization_id}
            told |= {"client_id": who.client_id, "client_secret": who.client_secret, "username": who.username}
            told["refresh_token"] = who.refresh_token
            (self.data / "server.json").write_text(json.dumps({**told, "pid": os.getpid(), "standing": True}))
            try:
                yield Org(url, who.access_token)
            finally:
                (self.data / "server.json").unlink()

    @contextlib.contextmanager
    def emulator(self, *arguments: str) -> Iterator[tuple[Org, subprocess.Popen[str]]]:
        """A standing `emulator serve` process."""
        child = self.start("emulator", "serve", "--json", *arguments)
        assert child.stdout is not None
        told = json.loads(child.stdout.readline())
        json_documents.hold(told)
        try:
            yield Org(told["instance_url"], told["access_token"]), child
        finally:
            stop(child)

    # Commands

    def run(self, *arguments: str, **variables: str) -> Ran:
        """A command in this process: quicker, and nothing but the process differs."""
        out, err = io.StringIO(), io.StringIO()
        before, handler = dict(os.environ), signal.getsignal(signal.SIGTERM)
        os.environ.clear()
        os.environ.update(environment() | {"DINMO_PROJECT_DIR": str(self.root)} | self.variables | variables)
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                code = cli.run(arguments)
        finally:
            os.environ.clear()
            os.environ.update(before)
            signal.signal(signal.SIGTERM, handler)
        ran = Ran(code, out.getvalue(), err.getvalue())
        assert "Traceback" not in ran.all and "DB900" not in ran.all, ran.all
        return ran

    def start(
        self, *arguments: str, by: Sequence[str] = ("-m", "dinmo_dbt"), warm: bool = True, **variables: str
    ) -> subprocess.Popen[str]:
        """A command as a process of its own, in a session of its own. Warm, it has the command line of `warm.py`."""
        return (WarmPopen if warm else subprocess.Popen[str])(
            [sys.executable, *by, *arguments],
            cwd=self.root,
            env=environment() | self.variables | variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            preexec_fn=hear_interrupts,
            text=True,
            start_new_session=True,
        )

    def process(self, *arguments: str, **variables: str) -> Ran:
        """A command as a process, to its end."""
        child = self.start(*arguments, **variables)
        out, err = child.communicate(timeout=120)
        assert "Traceback" not in out + err, out + err
        return Ran(child.returncode, out, err)

    def hold_still(self, child: subprocess.Popen[str]) -> None:
        """Stop a command, so that it does not end while a slow machine starts another, but not within a commit."""
        for _ in range(1000):
            child.send_signal(signal.SIGSTOP)
            try:
                with contextlib.closing(sqlite3.connect(self.root / ".dinmo" / "state.db", timeout=0)) as connection:
                    connection.execute("BEGIN IMMEDIATE")
                return
            except sqlite3.OperationalError:
                child.send_signal(signal.SIGCONT)
                time.sleep(0.01)
        raise AssertionError("it commits without end")


def hear_interrupts() -> None:
    """A test run in the background ignores SIGINT, and its children would inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def stop(child: subprocess.Popen[str]) -> None:
    if child.poll() is None:
        child.terminate()
    child.communicate(timeout=30)


def children(session: int) -> list[int]:
    """Living processes of the session that `Lab.start` made; and the sessions its children made."""
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        with contextlib.suppress(OSError, IndexError):
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) == session and fields[0] != "Z":
                found.append(int(folder.name))
    return found


def using(folder: Path) -> list[int]:
    """Living processes whose command line or working folder names `folder`: whatever session they made."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            here = os.readlink(entry / "cwd")
            line = (entry / "cmdline").read_bytes().decode(errors="replace")
            if str(folder) in line or here.startswith(str(folder)):
                found.append(int(entry.name))
    return found


def until(condition: Any, *, seconds: float = 120.0) -> Any:
    """Wait for something to become true; its value."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.02)
    raise AssertionError(f"not within {seconds} s")
