"""The process around the org: identity, lock, stop, restart, schema changes, starting records."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dinmo_dbt import emulator

from .conftest import Org, write_object, write_schema

Launch = Callable[..., Org]


@pytest.mark.slow
def test_a_folder_keeps_its_identity_and_records_across_restarts(launch: Launch, tmp_path: Path) -> None:
    first = launch(data=tmp_path / "data")
    rid = first.create("Account", {"Name": "kept"})
    job = first.open_job("insert", "Account")
    first.stop()
    second = launch(data=tmp_path / "data")
    same = ("access_token", "username", "client_id", "client_secret", "organization_id")
    assert {k: first.line[k] for k in same} == {k: second.line[k] for k in same}
    assert second.read("Account", rid)["Name"] == "kept"
    assert second.get(f"/jobs/ingest/{job}").json()["state"] == "Open"


@pytest.mark.slow
def test_server_json_is_private_and_gone_after_the_stop(launch: Launch, tmp_path: Path) -> None:
    org = launch(data=tmp_path / "data", standing=True)
    path = tmp_path / "data" / "server.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert json.loads(path.read_text()) == {**org.line, "standing": True}
    assert org.line["pid"] == org.process.pid
    assert org.line["instance_url"].startswith("http://127.0.0.1:")
    org.process.send_signal(signal.SIGTERM)
    assert org.process.wait(timeout=15) == 0
    assert not path.exists()


@pytest.mark.slow
def test_a_new_folder_is_private_since_it_holds_tokens(launch: Launch, tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        launch(data=tmp_path / "served")
        emulator.app(schema=None, data=tmp_path / "mounted").close()
    finally:
        os.umask(before)
    assert [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("served", "mounted")] == [0o700, 0o700]


@pytest.mark.slow
def test_reset_mints_another_org(launch: Launch, tmp_path: Path) -> None:
    first = launch(data=tmp_path)
    with pytest.raises(emulator.FolderInUse) as caught:
        emulator.reset(tmp_path)
    assert caught.value.pid == first.process.pid
    first.stop()
    emulator.reset(tmp_path)
    second = launch(data=tmp_path)
    assert second.line["organization_id"] != first.line["organization_id"]
    assert second.query("SELECT Id FROM Account") == []
    emulator.reset(tmp_path / "never made")


@pytest.mark.slow
def test_a_second_server_waits_and_names_the_first(
    launch: Launch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dinmo_dbt.emulator.web import server

    first = launch(data=tmp_path)
    monkeypatch.setattr(server, "_LOCK_WAIT_S", 0.2)
    with pytest.raises(emulator.FolderInUse) as caught:
        emulator.serve(schema=None, data=tmp_path, records=None, announce=lambda _: None)
    assert caught.value.pid == first.process.pid


@pytest.mark.slow
def test_a_job_goes_on_after_a_kill_and_no_row_is_written_twice(launch: Launch, tmp_path: Path) -> None:
    count = 35_000
    org = launch(data=tmp_path, batch_delay_s=0.3)
    text = "Name,Plan__c\n" + "".join(f'"n{i}","line\n{i}"\n' for i in range(count))
    job = org.open_job("insert", "Customer__c")
    org.put(job, text)
    org.close_job(job)
    org.wait_for_rows(job, 10_000)
    running = org.get(f"/jobs/ingest/{job}").json()
    assert running["state"] == "InProgress" and running["numberRecordsProcessed"] < count
    org.process.kill()
    org.process.wait(timeout=10)
    again = launch(data=tmp_path)
    info = again.wait(job)
    assert (info["state"], info["numberRecordsProcessed"], info["numberRecordsFailed"]) == ("JobComplete", count, 0)
    counted = again.get("/query", params={"q": "SELECT COUNT() FROM Customer__c"}).json()["totalSize"]
    assert counted == count
    results = again.results(job, "successfulResults")
    assert results.count('"true"') == count
    assert len({line.split('","')[0] for line in results.splitlines() if line.startswith('"a0')}) == count


@pytest.mark.slow
def test_an_abort_keeps_committed_batches(launch: Launch, tmp_path: Path) -> None:
    org = launch(data=tmp_path, batch_delay_s=0.5)
    job = org.open_job("insert", "Customer__c")
    org.put(job, "Name\n" + "".join(f"n{i}\n" for i in range(25_000)))
    org.close_job(job)
    while org.get(f"/jobs/ingest/{job}").json()["numberRecordsProcessed"] == 0:
        time.sleep(0.02)
    assert org.patch(f"/jobs/ingest/{job}", {"state": "Aborted"}).status_code == 200
    done = org.wait(job)["numberRecordsProcessed"]
    assert done in (10_000, 20_000)
    assert org.results(job, "successfulResults").count("\n") == done + 1
    left = org.results(job, "unprocessedrecords")
    assert left.startswith("Name\n") and left.count("\n") == 25_000 - done + 1
    assert org.get("/query", params={"q": "SELECT COUNT() FROM Customer__c"}).json()["totalSize"] == done


@pytest.mark.slow
def test_a_file_that_breaks_late_keeps_what_was_written(launch: Launch, tmp_path: Path) -> None:
    org = launch(data=tmp_path)
    text = "Name,Plan__c\n" + "".join(f"n{i},p\n" for i in range(10_000)) + "x,y,z\n"
    info, job = org.bulk("insert", "Customer__c", text)
    assert (info["state"], info["numberRecordsProcessed"]) == ("Failed", 10_000)
    assert info["errorMessage"].startswith("InvalidBatch : Failed to parse CSV.")
    assert org.results(job, "unprocessedrecords") == "Name,Plan__c\nx,y,z\n"
    assert org.results(job, "successfulResults").count("\n") == 10_001


@pytest.mark.slow
def test_new_fields_and_objects_are_applied_at_the_next_start(launch: Launch, tmp_path: Path) -> None:
    folder = write_schema(tmp_path / "force-app")
    first = launch(schema=folder, data=tmp_path / "data")
    rid = first.create("Customer__c", {"Name": "old"})
    first.stop()
    write_object(folder, "Added__c", "Added", {"Text__c": ("Text", "<length>10</length>")})
    flag = {"New__c": ("Checkbox", "<defaultValue>false</defaultValue>"), "Word__c": ("Text", "<length>9</length>")}
    write_object(folder, "Customer__c", "Customer", flag)
    second = launch(schema=folder, data=tmp_path / "data")
    record = second.read("Customer__c", rid)
    assert (record["Name"], record["New__c"], record["Word__c"]) == ("old", False, None)
    assert second.patch(f"/sobjects/Customer__c/{rid}", {"Word__c": "w"}).status_code == 204
    assert second.create("Added__c", {"Text__c": "x"})[:3] != rid[:3]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"Bad__c": ("Location", "")}, "field type Location of Customer__c.Bad__c is not emulated"),
        ({"Plan__c": ("Date", "")}, "Customer__c.Plan__c changed its type from text to date"),
        ({"To__c": ("Lookup", "<referenceTo>Gone__c</referenceTo>")}, "Customer__c.To__c refers to Gone__c"),
        ({"Evil__c": ("Text", "<!DOCTYPE x>")}, "document type declaration is not allowed"),
        (
            {"Set__c": ("Picklist", "<valueSet><valueSetName>Colours</valueSetName></valueSet>")},
            "globalValueSets/Colours",
        ),
    ],
)
def test_a_schema_that_cannot_be_used_is_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    folder = write_schema(tmp_path / "force-app")
    emulator.app(schema=folder, data=tmp_path / "data").close()
    write_object(folder, "Customer__c", "Customer", change)
    with pytest.raises(emulator.SchemaError, match="(?s).*" + message.replace(".", r"\.")):
        emulator.app(schema=folder, data=tmp_path / "data")


@pytest.mark.slow
def test_starting_records_are_loaded_once_parents_first(launch: Launch, tmp_path: Path) -> None:
    records = tmp_path / "records"
    records.mkdir()
    (records / "Customer__c.csv").write_text("Code__c,Account__r.Code__c,Amount__c\nc1,a1,5\nc2,,\n")
    (records / "Account.csv").write_text("Name,Code__c\nAcme,a1\n")
    first = launch(data=tmp_path / "data", records=records)
    found = first.query("SELECT Code__c, Account__r.Name FROM Customer__c ORDER BY Code__c")
    assert [(r["Code__c"], r["Account__r"] and r["Account__r"]["Name"]) for r in found] == [
        ("c1", "Acme"),
        ("c2", None),
    ]
    first.delete("/sobjects/Customer__c/Code__c/c2")
    first.stop()
    second = launch(data=tmp_path / "data", records=records)
    assert len(second.query("SELECT Id FROM Customer__c")) == 1


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("Customer__c", "Code__c,Email__c\nc1,a@b.co\nc2,bad\n", r"Customer__c.csv, row 2: INVALID_EMAIL_ADDRESS"),
        ("Customer__c", "Nope__c\nc1\n", r"Customer__c.csv: .*Nope__c"),
        ("Nothing", "Name\nx\n", "the schema has no object Nothing"),
    ],
)
def test_a_bad_starting_record_names_file_and_row(
    schema: Path, tmp_path: Path, name: str, text: str, message: str
) -> None:
    records = tmp_path / "records"
    records.mkdir()
    (records / f"{name}.csv").write_text(text)
    with pytest.raises(emulator.RecordsError, match=message):
        emulator.app(schema=schema, data=tmp_path / "data", records=records)
    (records / f"{name}.csv").unlink()
    (records / "Account.csv").write_text("Name\nfine\n")
    emulator.app(schema=schema, data=tmp_path / "data", records=records).close()


@pytest.mark.slow
def test_the_sample_of_a_killed_start_is_usable(launch: Launch, tmp_path: Path) -> None:
    for _ in range(2):
        org = launch(data=tmp_path)
        org.create("Account", {"Name": "x"})
        org.process.kill()
        org.process.wait(timeout=10)
    assert len(launch(data=tmp_path).query("SELECT Id FROM Account")) == 2


@pytest.mark.slow
def test_stdin_that_ends_stops_the_server(launch: Launch, tmp_path: Path) -> None:
    org = launch(data=tmp_path)
    assert org.process.stdin is not None
    org.process.stdin.close()
    assert org.process.wait(timeout=15) == 0


def test_importing_the_package_is_light() -> None:
    code = "import sys, dinmo_dbt.emulator; print([m for m in ('pyarrow', 'werkzeug', 'lark', 'numpy') if m in sys.modules])"  # noqa: E501
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=dict(os.environ))
    assert out.stdout.strip() == "[]"
