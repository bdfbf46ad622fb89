"""An older copy of the state, on a machine that has seen no newer one: what the org knows keeps it from inserting."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from .lab import EVENTS, PEOPLE, Lab, Org, until

INSERT = {**EVENTS, "fields": {"event_id": "Ref__c", "kind": "Kind__c"}}


@pytest.fixture
def put_back(lab: Lab, tmp_path: Path) -> Callable[[], Callable[[], None]]:
    """Keeps the state as it is now; what it gives puts that in the place of whatever is there by then."""
    folder, kept = lab.root / ".dinmo", tmp_path / "kept"

    def keep() -> Callable[[], None]:
        shutil.copytree(folder, kept, ignore=shutil.ignore_patterns("emulator"))

        def put() -> None:
            for path in folder.iterdir():
                if path.name != "emulator":
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
            shutil.copytree(kept, folder, dirs_exist_ok=True)

        return put

    return keep


def more_events(lab: Lab) -> None:
    lab.sql("insert into events by name select * replace (event_id || '-more' as event_id) from events")


def test_an_older_copy_inserts_nothing_again_until_its_records_are_taken_over(
    lab: Lab, org: Org, put_back: Callable[[], Callable[[], None]], tmp_path: Path
) -> None:
    lab.only("events", INSERT)
    assert lab.run("sync").code == 0
    put = put_back()
    more_events(lab)
    assert lab.run("sync").code == 0
    there = org.count("Event__c")
    put()
    elsewhere = str(tmp_path / "elsewhere")
    for command in ("plan", "sync", "sync"):
        ran = lab.run(command, XDG_STATE_HOME=elsewhere)
        assert ran.code == 5, ran.all
        assert "DB522" in ran.all
        assert f"made {there // 2} of the {there // 2} rows that this run would insert" in ran.all.replace("\n  ", " ")
        assert org.count("Event__c") == there
    assert (
        lab.run("state", "adopt", "events_to_crm", "--match", "event_id=Ref__c", "--yes", XDG_STATE_HOME=elsewhere).code
        == 0
    )
    done = lab.run("sync", XDG_STATE_HOME=elsewhere)
    assert done.code == 0, done.all
    assert org.count("Event__c") == there


def forget(lab: Lab) -> None:
    """The state is lost, and this user's marks with it."""
    for path in (lab.root / ".dinmo").iterdir():
        if path.name != "emulator":
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def loaded(org: Org, csv: str) -> str:
    """A job of another program that logs in as the same user."""
    made = org.http.post(f"{org.base}/jobs/ingest", json={"object": "Event__c", "operation": "insert"}).json()["id"]
    job = f"{org.base}/jobs/ingest/{made}"
    assert org.http.put(f"{job}/batches", data=csv, headers={"Content-Type": "text/csv"}).status_code == 201
    org.http.patch(job, json={"state": "UploadComplete"})
    until(lambda: org.http.get(job).json()["state"] == "JobComplete")
    return str(made)


def test_a_lost_state_inserts_nothing_again_under_first_sync_but_what_was_deleted_since(lab: Lab, org: Org) -> None:
    lab.only("events", INSERT)
    assert lab.run("sync").code == 0
    there = org.count("Event__c")
    forget(lab)
    assert "DB401" in lab.run("sync").all
    refused = lab.run("sync", "--first-sync")
    assert refused.code == 5 and "DB522" in refused.all, refused.all
    for record in org.query("SELECT Id FROM Event__c"):
        org.http.delete(f"{org.base}/sobjects/Event__c/{record['Id']}")
    assert lab.run("sync", "--first-sync").code == 0
    assert org.count("Event__c") == there


def test_an_older_copy_makes_no_second_record_of_a_row_that_changed_where_changes_are_ignored(
    lab: Lab, org: Org, put_back: Callable[[], Callable[[], None]], tmp_path: Path
) -> None:
    lab.only("events", {**INSERT, "on_change": "ignore"})
    assert lab.run("sync").code == 0
    put = put_back()
    more_events(lab)
    assert lab.run("sync").code == 0
    there = org.count("Event__c")
    put()
    lab.sql("update events set kind = 'changed'")
    refused = lab.run("sync", XDG_STATE_HOME=str(tmp_path))
    assert refused.code == 5 and "DB522" in refused.all, refused.all
    assert org.count("Event__c") == there


def test_a_job_of_another_program_is_read_once_and_stops_nothing_but_its_own_rows(lab: Lab, org: Org) -> None:
    lab.only("events", INSERT)
    assert lab.run("sync").code == 0
    foreign = loaded(org, "Ref__c,Kind__c\nX1,login\nX2,login\n")
    other = loaded(org, "Kind__c\nlogin\n")
    more_events(lab)
    before = len(lab.requests)
    ran = lab.run("sync")
    assert ran.code == 0 and "note" not in ran.all, ran.all
    asked = [path for _, path, _ in lab.requests[before:] if path.endswith("/successfulResults")]
    assert sum(foreign in path or other in path for path in asked) == 2
    lab.sql("insert into events by name select * replace ('X2' as event_id) from events limit 1")
    before = len(lab.requests)
    refused = lab.run("sync")
    assert refused.code == 5 and foreign in refused.err, refused.all
    assert not [path for _, path, _ in lab.requests[before:] if foreign in path]
    shown = lab.run("state", "accept", "events_to_crm")
    assert shown.code == 0 and foreign in shown.out and "2 jobs; --yes accepts them" in shown.out, shown.all
    assert lab.run("sync").code == 5
    assert lab.run("state", "accept", "events_to_crm", "--yes").code == 0
    assert lab.run("sync").code == 0


def test_an_older_copy_of_an_upsert_is_a_note_once(
    lab: Lab, org: Org, put_back: Callable[[], Callable[[], None]], tmp_path: Path
) -> None:
    lab.only("people", {**PEOPLE, "api": "bulk"})
    assert lab.run("sync").code == 0
    put = put_back()
    lab.sql("update people set name = name || ' x'")
    assert lab.run("sync").code == 0
    put()
    elsewhere = str(tmp_path)
    first = lab.run("sync", XDG_STATE_HOME=elsewhere)
    assert first.code == 0 and "note: job 750" in first.out and "is not in this state" in first.out, first.all
    lab.sql("update people set name = name || ' y'")
    second = lab.run("sync", XDG_STATE_HOME=elsewhere)
    assert second.code == 0 and "note: job" not in second.out
