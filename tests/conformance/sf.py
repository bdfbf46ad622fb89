"""The Salesforce CLI, unchanged, against a served org: `make conformance-sf`. Too heavy for every run."""

from __future__ import annotations

import csv
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from emulator.conftest import Org

CLIENT = "sf"
# The CLI needs Node 22.19; npm has a Node of its own.
PACKAGES = ("@salesforce/cli@2.146.3", "node@24.21.0")
QUIET = {
    "SF_DISABLE_TELEMETRY": "true", "SF_AUTOUPDATE_DISABLE": "true", "SF_SKIP_NEW_VERSION_CHECK": "true",
    "SF_USE_GENERIC_UNIX_KEYCHAIN": "true", "SF_DISABLE_DNS_CHECK": "true",
}  # fmt: skip
Sf = Callable[..., Any]

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="session")
def packages(request: pytest.FixtureRequest) -> Path:
    assert request.config.cache is not None
    folder = request.config.cache.mkdir("sf")
    done = folder / "installed.json"
    if not done.exists() or json.loads(done.read_text()) != list(PACKAGES):
        (folder / "package.json").write_text("{}")
        subprocess.run(
            ["npm", "install", "--no-audit", "--no-fund", "--no-package-lock", "--loglevel=error", *PACKAGES],
            cwd=folder, check=True,
        )  # fmt: skip
        done.write_text(json.dumps(PACKAGES))
    return folder / "node_modules"


@pytest.fixture(scope="module")
def sf(packages: Path, org: Org, tmp_path_factory: pytest.TempPathFactory) -> Sf:
    """Run a command with `--json` in a scratch home: its result; `fails`: its error's name; `whole`: all it told."""
    home = tmp_path_factory.mktemp("home")
    environment = {
        **os.environ, **QUIET, "HOME": str(home),
        "PATH": os.pathsep.join((str(packages / "node" / "bin"), str(packages / ".bin"), os.environ["PATH"])),
    }  # fmt: skip

    def run(*command: str, fails: bool = False, whole: bool = False, **more: str) -> Any:
        target = () if command[:2] == ("org", "login") else ("--target-org", org.line["username"])
        done = subprocess.run(
            ["sf", *command, *target, "--json"],
            cwd=home,
            env={**environment, **more},
            capture_output=True,
            text=True,
            timeout=90,
        )
        assert (done.returncode != 0) == fails, done.stdout + done.stderr
        if whole:
            return done.stdout
        reply = json.loads(done.stdout)
        return reply["name"] if fails else reply["result"]

    url = org.url.replace("127.0.0.1", "localhost")
    run(
        "org", "login", "access-token", "--instance-url", url, "--no-prompt",
        SF_ACCESS_TOKEN=org.line["access_token"],
    )  # fmt: skip
    run.home, run.url = home, url  # type: ignore[attr-defined]
    return run


LEFT_OUT = {
    "SOSL search": ("data", "search", "--query", "FIND {x} IN ALL FIELDS"),
    "composite requests": ("data", "import", "tree", "--files", "accounts.json"),
    "anonymous Apex and the Tooling API": ("apex", "run", "--file", "one.apex"),
    "Metadata API": ("org", "list", "metadata", "--metadata-type", "CustomObject"),
}


def write(sf: Sf, name: str, *lines: str) -> str:
    path: Path = sf.home / name  # type: ignore[attr-defined]
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def test_login_by_jwt_and_what_the_org_tells(sf: Sf, org: Org) -> None:
    key = rsa.generate_private_key(65537, 2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    client, user = org.line["client_id"], org.line["username"]
    file = write(sf, "key.pem", pem)
    url = sf.url  # type: ignore[attr-defined]
    login = ("--client-id", client, "--jwt-key-file", file, "--username", user, "--instance-url", url)
    assert sf("org", "login", "jwt", *login)["orgId"] == org.line["organization_id"]
    assert sf("org", "display")["connectedStatus"] == "Connected"
    assert {"name": "DailyApiRequests", "max": 100_000}.items() <= sf("org", "list", "limits")[0].items()
    assert sf("org", "list", "sobject", "record-counts", "-s", "Account")[0]["name"] == "Account"


def test_schema(sf: Sf) -> None:
    assert "Customer__c" in sf("sobject", "list")
    fields = sf("sobject", "describe", "-s", "Customer__c")["fields"]
    assert len(fields[0]) == 57


def test_records(sf: Sf) -> None:
    rid = sf("data", "create", "record", "-s", "Account", "-v", "Name=Acme Code__c=A1")["id"]
    assert sf("data", "get", "record", "-s", "Account", "-w", "Name=Acme")["Id"] == rid
    sf("data", "update", "record", "-s", "Account", "-i", rid, "-v", "Website=x.example")
    found = sf("data", "query", "-q", "SELECT Id, Website, Owner.Name, (SELECT Id FROM Customers__r) FROM Account")
    assert [(each["Id"], each["Website"]) for each in found["records"]] == [(rid, "x.example")]
    sf("data", "delete", "record", "-s", "Account", "-i", rid)
    assert sf("data", "query", "-q", "SELECT Id FROM Account")["totalSize"] == 0
    assert sf("data", "query", "-q", "SELECT Nope__c FROM Account", fails=True) == "INVALID_FIELD"


def test_bulk(sf: Sf) -> None:
    good = write(sf, "good.csv", "Name,Code__c", "A,s1", "B,s2")
    bad = write(sf, "bad.csv", "Name,Code__c", "C,s3", f"D,{'x' * 30}")
    wait = ("-s", "Account", "-w", "2")
    made = sf("data", "upsert", "bulk", "-f", good, "-i", "Code__c", *wait)
    assert made["jobInfo"]["numberRecordsProcessed"] == 2
    assert sf("data", "upsert", "bulk", "-f", bad, "-i", "Code__c", *wait, fails=True) == "FailedRecordDetailsError"
    assert sf("data", "import", "bulk", "-f", write(sf, "more.csv", "Name", "E"), *wait)["processedRecords"] == 1
    out: Path = sf.home / "out.csv"  # type: ignore[attr-defined]
    soql = "SELECT Id, Name FROM Account ORDER BY Name"
    assert sf("data", "export", "bulk", "-q", soql, "--output-file", str(out), "-w", "2")["totalSize"] == 4
    ids = [row["Id"] for row in csv.DictReader(out.open())]
    rows = [f"{rid},up{at}" for at, rid in enumerate(ids)]
    assert sf("data", "update", "bulk", "-f", write(sf, "up.csv", "Id,Name", *rows), *wait)["processedRecords"] == 4
    sf("data", "delete", "bulk", "-f", write(sf, "del.csv", "Id", *ids[:2]), *wait)
    later = sf("data", "upsert", "bulk", "-f", good, "-i", "Code__c", "-s", "Account", "-w", "0")["jobInfo"]["id"]
    sf("data", "upsert", "resume", "-i", later, "--wait", "2")
    assert sf("data", "bulk", "results", "-i", later)["processedRecords"] == 2
    assert sf("data", "import", "bulk", "-f", good, "-s", "Nope__c", "-w", "2", fails=True) == "INVALIDENTITY"


@pytest.mark.parametrize("what", LEFT_OUT)
def test_what_is_left_out_is_refused_by_name(sf: Sf, what: str) -> None:
    write(sf, "accounts.json", '{"records": [{"attributes": {"type": "Account", "referenceId": "a"}, "Name": "x"}]}')
    write(sf, "one.apex", "Integer i = 1;")
    assert "does not emulate" in sf(*LEFT_OUT[what], fails=True, whole=True)
