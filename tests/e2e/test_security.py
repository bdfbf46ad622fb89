"""Secrets and row values stay where they belong, and nothing that a row or a name says is obeyed."""

from __future__ import annotations

import base64
import contextlib
import json
import logging
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from salesforce import sf_stand_in

from .lab import PEOPLE, Lab, Org, children, until
from .test_reach import ADDRESSED, CLIENT, url_of

pytestmark = pytest.mark.slow

VALUE = "CANARY \"näme\" \\ & {{ env_var('HOME') }} +/="
FIELDS = {**PEOPLE["fields"], "note": "Note__c", "nick": "Nick__c", "tax_id": "Tax_Id__c"}
COMMANDS = [
    ("debug",),
    ("validate", "--online"),
    ("list", "--json"),
    ("plan",),
    ("plan", "--json"),
    ("sync",),
    ("sync", "--json", "--log-format", "json"),
    ("status",),
    ("history",),
    ("history", "--json"),
    ("rejected",),
    ("rejected", "--json"),
    ("state", "show", "--json"),
]


def forms(secret: str) -> set[str]:
    """The text as a log, an URL, a header or a JSON document would hold it; base64 at each of its three offsets."""
    raw = secret.encode()
    found = {secret, quote(secret), quote(secret, safe=""), quote_plus(secret), raw.hex(), repr(secret)[1:-1]}
    found |= {json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]}
    for shift in range(3):
        text = base64.b64encode(b"x" * shift + raw).decode().rstrip("=")
        found.add(text[4 if shift else 0 : -2])
    return found


def told(lab: Lab) -> dict[str, str]:
    found: dict[str, str] = json.loads((lab.data / "server.json").read_text())
    return found


def texts(path: Path) -> str:
    """All that a file says, Parquet and Arrow files column by column as well as byte by byte."""
    raw = path.read_bytes()
    shown = raw.decode("utf-8", errors="replace")
    if raw[:4] == b"PAR1":
        shown += str(pq.read_table(path).to_pydict())
    if raw[:6] == b"ARROW1":
        shown += str(pa.ipc.open_file(path).read_all().to_pydict())
    return shown


def written(lab: Lab) -> Iterator[tuple[Path, str]]:
    """What the commands wrote: all but the warehouse, dbt's sources and the served org's own data."""
    for path in sorted(lab.root.rglob("*")):
        if path.is_file() and lab.data not in path.parents and path.name != "lab.duckdb":
            yield path, texts(path)


def assert_absent(where: object, text: str, secrets: dict[str, str]) -> None:
    for name, secret in secrets.items():
        assert not [form for form in forms(secret) if form in text], f"{name} in {where}"


REFRESH = CLIENT.replace("flow: client_credentials", "flow: refresh_token").replace(
    '}}}}"}}', '}}}}", refresh_token: "{{{{ env_var(\'LAB_REFRESH\') }}}}"}}'
)
CLI = "destinations: {{crm: {{targets: {{dev: {{auth: {{flow: sf_cli, alias: mine}}}}}}}}}}\n"
FLOWS = {"access_token": ADDRESSED, "client_credentials": CLIENT, "refresh_token": REFRESH, "sf_cli": CLI}


@pytest.mark.parametrize("flow", FLOWS)
def test_no_secret_and_no_row_value_comes_out_anywhere(
    lab: Lab, org: Org, flow: str, caplog: pytest.LogCaptureFixture
) -> None:
    lab.only("people", {**PEOPLE, "fields": FIELDS})
    lab.sql(
        f"update people set name = '{VALUE.replace(chr(39), chr(39) * 2)}' where person_id = 'P1'",
        "update people set tax_id = 'CANARY-TAX' where person_id in ('P3', 'P4')",  # rejected: unique
        "update people set nick = 'CANARY-TOO-LONG-NICK' where person_id = 'P5'",  # invalid
        "update people set note = 'CANARY-NOTE', email = 'CANARY at nowhere' where person_id = 'P6'",  # quoted
    )
    url, secrets = url_of(lab), told(lab)
    text = FLOWS[flow].format(url=url, flow="access_token")
    assert org.http.post(f"{url}/emulator/logins", json={"rotates": True}).ok
    mine = {"username": "a@example.com", "instanceUrl": url, "id": secrets["organization_id"]}
    sf_stand_in.write(lab.root.parent / "tools", orgs={"mine": {**mine, "tokens": [secrets["access_token"]]}})
    (lab.root / "dinmo.yml").write_text(text.replace("client_id: lab", f"client_id: {secrets['client_id']}"))
    variables = {"LAB_TOKEN": secrets["access_token"], "LAB_SECRET": secrets["client_secret"]}
    variables |= {"LAB_REFRESH": secrets["refresh_token"]}
    tools = {"PATH": f"{lab.root.parent / 'tools'}:{os.environ['PATH']}"}
    hidden = {**variables, "row value": "CANARY", "row value with signs": VALUE}
    caplog.set_level(logging.DEBUG)
    for name in list(logging.root.manager.loggerDict):
        if name != "urllib3.connectionpool":  # the client itself holds this one down, which is what is tested
            caplog.set_level(logging.DEBUG, logger=name)
    for command in COMMANDS:
        ran = lab.run(*command, **variables, **tools)
        assert ran.code in (0, 3), ran.all
        for kept in lab.root.glob(".dinmo/logins/*.json"):
            hidden[f"refresh token after {command}"] = json.loads(kept.read_text())["refresh_token"]
        assert_absent(command, ran.all, hidden)
    assert_absent("the log", caplog.text, hidden)
    assert org.query("SELECT Name FROM Person__c WHERE Person_Id__c = 'P1'")[0]["Name"] == VALUE, "sent as it is"
    for path, content in written(lab):
        # Salesforce's own messages are kept whole, for the owner alone; no other file holds a value.
        if path.parent.name == "logins":
            assert flow == "refresh_token" and stat.S_IMODE(path.stat().st_mode) == 0o600
            continue
        quoted = path.parent.name == "runs" or path.name.startswith(("state.db", "history.db"))
        assert_absent(path, content, variables if quoted else hidden)
        if quoted:
            assert "CANARY-NOTE" not in content and "CANARY-TOO" not in content and VALUE not in content


def test_a_killed_run_leaves_values_in_the_spool_alone_and_no_secret_at_all(lab: Lab) -> None:
    lab.only("people", {**PEOPLE, "fields": FIELDS, "api": "bulk"})
    lab.sql("update people set note = 'CANARY-NOTE'")
    with lab.emulator("--batch-delay", "2") as (org, _):
        child = lab.start("sync")
        until(lambda: [job for job in org.jobs() if job["state"] in ("InProgress", "UploadComplete")])
        child.kill()
        child.communicate()
        token = json.loads((lab.data / "server.json").read_text())["access_token"]
        for path, content in written(lab):
            assert_absent(path, content, {"token": token})
            assert "CANARY" not in content or "spool" in path.parts, path
        assert any("CANARY" in content for _, content in written(lab)), "the spool is looked at, and can be read"
        assert lab.run("sync").code == 0
        for path, content in written(lab):
            assert "CANARY" not in content, path


def test_no_process_has_a_secret_on_its_command_line(lab: Lab, org: Org) -> None:
    url, secrets = url_of(lab), told(lab)
    text = CLIENT.format(url=url).replace("client_id: lab", f"client_id: {secrets['client_id']}")
    (lab.root / "dinmo.yml").write_text(text)
    child = lab.start("sync", warm=False, LAB_SECRET=secrets["client_secret"])
    lines = b""
    while child.poll() is None:
        for pid in [child.pid, *children(child.pid)]:
            with contextlib.suppress(OSError):
                lines += Path(f"/proc/{pid}/cmdline").read_bytes()
    out, err = child.communicate()
    assert child.returncode == 0, out + err
    assert b"sync" in lines
    assert_absent("a command line", lines.decode(errors="replace"), {"secret": secrets["client_secret"]})


def test_a_key_that_a_terminal_would_obey_is_printed_harmless(lab: Lab, org: Org) -> None:
    lab.only("people", {**PEOPLE, "fields": FIELDS})
    key = "K\x1b]0;owned\x07\x1b[2J\u202e\r\n\x9b31m"
    lab.sql(f"insert into people (person_id, name, nick) values ('{key}', 'x', 'much too long a name')")
    assert lab.run("sync").code == 3
    ran = lab.run("rejected")
    assert "owned" in ran.out
    assert all(line.isprintable() for line in ran.out.split("\n"))
    assert json.loads(lab.run("rejected", "--json").out)["activations"][0]["rows"][0]["key"] == key.strip()


def test_a_model_s_name_that_a_terminal_would_obey_is_printed_harmless(lab: Lab, org: Org) -> None:
    path = lab.root / "target" / "manifest.json"
    manifest = json.loads(path.read_text())
    node = manifest["nodes"]["model.lab.people"]
    name, yaml_file = "people\x1b]0;owned\x07", "models/\x1b[2J.yml"
    node["name"] = node["fqn"][-1] = name
    node["patch_path"] = f"lab://{yaml_file}"
    written = lab.root / "models/models.yml"
    text = written.read_text(encoding="utf-8").replace('"name": "people"', f'"name": {json.dumps(name)}')
    assert json.dumps(name) in text
    written.rename(lab.root / yaml_file).write_text(text, encoding="utf-8")
    path.write_text(json.dumps(manifest))
    for command in (("list",), ("validate", "--no-parse"), ("plan", "--no-parse"), ("sync",), ("status",)):
        ran = lab.run(*command)
        assert ran.code == 0, ran.all
        assert all(line.isprintable() for line in ran.all.split("\n")), command


def test_nothing_but_the_org_is_called(lab: Lab, org: Org, monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[Any] = []
    connect, resolve = socket.socket.connect, socket.getaddrinfo

    def noting(self: socket.socket, address: Any) -> Any:
        called.append(address)
        return connect(self, address)

    def resolving(host: Any, *more: Any, **options: Any) -> Any:
        called.append((host,))
        return resolve(host, *more, **options)

    monkeypatch.setattr(socket.socket, "connect", noting)
    monkeypatch.setattr(socket, "getaddrinfo", resolving)
    for command in (("debug",), ("plan",), ("sync",)):
        assert lab.run(*command).code == 0
    assert {address[0] for address in called} == {"127.0.0.1"}


def test_a_dbt_command_is_run_word_by_word_and_by_no_shell(lab: Lab, org: Org) -> None:
    tools = lab.root / "tools"
    tools.mkdir()
    (tools / "dbt").write_text('#!/bin/sh\nfor word in "$@"; do echo "<$word>"; done > "$0.words"\nexit 1\n')
    (tools / "dbt").chmod(0o755)
    evil = f"x; touch {tools}/pwned #"
    ran = lab.run("run", "--", str(tools / "dbt"), "build", "-s", evil, f"$(touch {tools}/pwned)", "`id`")
    assert ran.code != 0
    words = (tools / "dbt.words").read_text().splitlines()
    assert words[:5] == ["<build>", "<-s>", f"<{evil}>", f"<$(touch {tools}/pwned)>", "<`id`>"]
    assert not (tools / "pwned").exists()


def test_whatever_the_umask_what_is_written_is_its_owners_alone(lab: Lab, org: Org) -> None:
    before = os.umask(0)
    try:
        assert lab.run("sync").code == 0
    finally:
        os.umask(before)
    found = [path for path in (lab.root / ".dinmo").rglob("*") if path != lab.data and lab.data not in path.parents]
    assert found
    for path in found:
        expected = 0o700 if path.is_dir() else 0o600
        assert stat.S_IMODE(path.stat().st_mode) == expected, path


def test_links_planted_in_the_state_lead_nowhere(lab: Lab, org: Org, tmp_path: Path) -> None:
    lab.only("people", PEOPLE)
    assert lab.run("sync").code == 0
    victim = tmp_path / "victim"
    victim.write_text("theirs")
    folder = lab.root / ".dinmo"
    planted = 0
    for path in sorted(folder.rglob("*.lock")):
        path.unlink()
        path.symlink_to(victim)
        planted += 1
    assert planted
    lab.sql("update people set name = 'new'")
    ran = lab.run("sync")
    assert ran.code in (0, 5), ran.all
    assert victim.read_text() == "theirs"


def test_a_renewed_session_of_another_org_writes_nothing(lab: Lab, org: Org) -> None:
    """The pin is looked at on every login, before anything is asked for."""
    lab.only("people", PEOPLE)
    text = CLIENT.format(url=url_of(lab)).replace("client_id: lab", f"client_id: {told(lab)['client_id']}")
    pinned = text.rstrip() + "\n        organization_id: 00D000000000001EAA\n"
    (lab.root / "dinmo.yml").write_text(pinned)
    ran = lab.run("sync", LAB_SECRET=told(lab)["client_secret"])
    assert ran.code == 1 and "DB602" in ran.err, ran.all
    assert org.count("Person__c") == 0
