"""A real server per test module, a schema with every kind of field, and a client that is plain `requests`."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from .mounted import Mounted

NAMESPACE = 'xmlns="http://soap.sforce.com/2006/04/metadata"'
SERVE = """
import json, pathlib, sys
from dinmo_dbt import emulator
options = json.loads(sys.argv[1])
for name in ("schema", "data", "records"):
    options[name] = pathlib.Path(options[name]) if options.get(name) else None
emulator.serve(exit_with_stdin=True, announce=lambda line: print(json.dumps(line), flush=True), **options)
"""
PICKLIST = (
    "<valueSet><restricted>{restricted}</restricted><valueSetDefinition>"
    "<value><fullName>Gold</fullName><label>Gold tier</label></value>"
    "<value><fullName>Silver</fullName><label>Silver tier</label></value>"
    "<value><fullName>Old</fullName><label>Old</label><isActive>false</isActive></value>"
    "</valueSetDefinition></valueSet>"
)
CUSTOMER = {
    "Code__c": ("Text", "<length>40</length><externalId>true</externalId><unique>true</unique>"),
    "Ref__c": (
        "Text",
        "<length>40</length><externalId>true</externalId><unique>true</unique><caseSensitive>true</caseSensitive>",
    ),
    "Loose__c": ("Text", "<length>40</length><externalId>true</externalId>"),
    "Number_Key__c": (
        "Number",
        "<precision>18</precision><scale>0</scale><externalId>true</externalId><unique>true</unique>",
    ),
    "Plan__c": ("Text", "<length>255</length>"),
    "Note__c": ("LongTextArea", "<length>32768</length>"),
    "Email__c": ("Email", ""),
    "Site__c": ("Url", ""),
    "Phone__c": ("Phone", ""),
    "Tier__c": ("Picklist", PICKLIST.format(restricted="true")),
    "Tags__c": ("MultiselectPicklist", PICKLIST.format(restricted="true")),
    "Active__c": ("Checkbox", "<defaultValue>true</defaultValue>"),
    "Amount__c": ("Number", "<precision>18</precision><scale>2</scale>"),
    "Price__c": ("Currency", "<precision>16</precision><scale>2</scale>"),
    "Share__c": ("Percent", "<precision>5</precision><scale>2</scale>"),
    "Day__c": ("Date", ""),
    "Moment__c": ("DateTime", ""),
    "Opens__c": ("Time", ""),
    "Twice__c": ("Number", "<formula>Amount__c * 2</formula><precision>18</precision><scale>2</scale>"),
    "Account__c": ("Lookup", "<referenceTo>Account</referenceTo><relationshipName>Customers</relationshipName>"),
    "Source__c": ("Text", '<length>20</length><defaultValue>"dbt"</defaultValue>'),
}
DEFAULTED = {
    "Since__c": ("Date", "<defaultValue>TODAY()</defaultValue>"),
    "By__c": ("Text", "<length>40</length><defaultValue>$User.Alias</defaultValue>"),
}
LINE = {
    "Customer__c": (
        "MasterDetail",
        "<referenceTo>Customer__c</referenceTo><relationshipName>Lines</relationshipName>"
        "<relationshipOrder>0</relationshipOrder>",
    ),
    "Key__c": ("Text", "<length>20</length><externalId>true</externalId><required>true</required>"),
}


def write_object(folder: Path, name: str, label: str, fields: dict[str, tuple[str, str]], name_field: str = "") -> None:
    item = folder / "main" / "default" / "objects" / name
    (item / "fields").mkdir(parents=True, exist_ok=True)
    if name.endswith("__c"):
        (item / f"{name}.object-meta.xml").write_text(
            f'<?xml version="1.0" encoding="UTF-8"?>\n<CustomObject {NAMESPACE}><label>{label}</label>'
            f"<pluralLabel>{label}s</pluralLabel><nameField><label>{label} Name</label>"
            f"{name_field or '<type>Text</type>'}</nameField><sharingModel>ReadWrite</sharingModel></CustomObject>"
        )
    for field, (kind, rest) in fields.items():
        (item / "fields" / f"{field}.field-meta.xml").write_text(
            f'<?xml version="1.0" encoding="UTF-8"?>\n<CustomField {NAMESPACE}><fullName>{field}</fullName>'
            f"<label>{field.removesuffix('__c').replace('_', ' ')}</label><type>{kind}</type>{rest}</CustomField>"
        )


def write_schema(folder: Path) -> Path:
    write_object(folder, "Customer__c", "Customer", CUSTOMER)
    write_object(folder, "Line__c", "Line", LINE, "<type>AutoNumber</type><displayFormat>L-{0000}</displayFormat>")
    write_object(folder, "Defaulted__c", "Defaulted", DEFAULTED)
    write_object(folder, "Account", "", {"Code__c": ("Text", "<length>20</length><externalId>true</externalId>")})
    return folder


class Org:
    """A running server and a session on it."""

    def __init__(self, process: subprocess.Popen[str], line: dict[str, Any]) -> None:
        self.process = process
        self.line = line
        self.url = line["instance_url"]
        self.base = f"{self.url}/services/data/v62.0"
        self.http = requests.Session()
        self.http.headers["Authorization"] = f"Bearer {line['access_token']}"

    def get(self, path: str, **more: Any) -> requests.Response:
        return self.http.get(self.base + path, **more)

    def post(self, path: str, body: Any = None, **more: Any) -> requests.Response:
        return self.http.post(self.base + path, json=body, **more)

    def patch(self, path: str, body: Any, **more: Any) -> requests.Response:
        return self.http.patch(self.base + path, json=body, **more)

    def delete(self, path: str, **more: Any) -> requests.Response:
        return self.http.delete(self.base + path, **more)

    def create(self, name: str, record: dict[str, Any]) -> str:
        reply = self.post(f"/sobjects/{name}", record)
        assert reply.status_code == 201, reply.text
        return reply.json()["id"]

    def read(self, name: str, rid: str) -> dict[str, Any]:
        return self.get(f"/sobjects/{name}/{rid}").json()

    def query(self, soql: str, call: str = "query") -> list[dict[str, Any]]:
        reply = self.get(f"/{call}", params={"q": soql})
        assert reply.status_code == 200, reply.text
        return reply.json()["records"]

    def open_job(self, operation: str, name: str, **more: Any) -> str:
        reply = self.post("/jobs/ingest", {"object": name, "operation": operation, **more})
        assert reply.status_code == 200, reply.text
        return reply.json()["id"]

    def put(self, job: str, csv: str | bytes, **headers: str) -> requests.Response:
        data = csv.encode() if isinstance(csv, str) else csv
        kind = {"Content-Type": "text/csv; charset=UTF-8", **headers}
        return self.http.put(f"{self.base}/jobs/ingest/{job}/batches", data=data, headers=kind)

    def close_job(self, job: str) -> requests.Response:
        return self.patch(f"/jobs/ingest/{job}", {"state": "UploadComplete"})

    def wait(self, job: str, kind: str = "ingest", seconds: float = 30.0) -> dict[str, Any]:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            info = self.get(f"/jobs/{kind}/{job}").json()
            if info["state"] in ("JobComplete", "Failed", "Aborted"):
                return info
            time.sleep(0.01)
        raise AssertionError(f"job {job} is still {info['state']} after {seconds} s")

    def wait_for_rows(self, job: str, rows: int, seconds: float = 20.0) -> None:
        """Until the job has processed so many rows."""
        deadline = time.monotonic() + seconds
        while self.get(f"/jobs/ingest/{job}").json()["numberRecordsProcessed"] < rows:
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def bulk(self, operation: str, name: str, csv: str | bytes, **more: Any) -> tuple[dict[str, Any], str]:
        """A whole ingest job: its last info and its id."""
        job = self.open_job(operation, name, **more)
        assert self.put(job, csv).status_code == 201
        assert self.close_job(job).status_code == 200
        return self.wait(job), job

    def results(self, job: str, which: str) -> str:
        reply = self.get(f"/jobs/ingest/{job}/{which}")
        assert reply.status_code == 200, reply.text
        return reply.content.decode()

    def stop(self) -> None:
        if self.process.poll() is None and self.process.stdin is not None:
            self.process.stdin.close()
        self.process.wait(timeout=60)
        if self.process.stdout is not None:
            self.process.stdout.close()
        self.http.close()


def start(**options: Any) -> Org:
    text = json.dumps({k: str(v) if isinstance(v, Path) else v for k, v in {"records": None, **options}.items()})
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE, text], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, f"the server stopped with {process.wait()}"
    return Org(process, json.loads(line))


@pytest.fixture(scope="session")
def schema(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_schema(tmp_path_factory.mktemp("force-app"))


@pytest.fixture(scope="module")
def org(schema: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Org]:
    running = start(schema=schema, data=tmp_path_factory.mktemp("data"))
    yield running
    running.stop()


@pytest.fixture
def launch(schema: Path) -> Iterator[Callable[..., Org]]:
    """Start servers that are stopped at the end of the test."""
    started: list[Org] = []

    def run(**options: Any) -> Org:
        started.append(start(**{"schema": schema, **options}))
        return started[-1]

    yield run
    for each in started:
        each.stop()


@pytest.fixture
def mount(schema: Path) -> Iterator[Callable[..., Mounted]]:
    """Mount orgs in process that are closed at the end of the test."""
    mounted: list[Mounted] = []

    def run(**options: Any) -> Mounted:
        mounted.append(Mounted(schema, **options))
        return mounted[-1]

    yield run
    for each in mounted:
        each.close()
