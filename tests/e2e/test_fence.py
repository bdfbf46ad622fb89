"""An older copy of the state, on a machine that has seen no newer one: what the org knows keeps it from inserting."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import dinmo_dbt

from .lab import EVENTS, PEOPLE, Deadly, Lab, Org, Ran, until

pytestmark = pytest.mark.slow

INSERT = {**EVENTS, "fields": {"event_id": "Ref__c", "kind": "Kind__c"}}


@pytest.fixture
def put_back(lab: Lab, tmp_path: Path) -> Callable[[], Callable[[], None]]:
    """Keeps the state as it is now; what it gives puts that in the place of whatever is there by then."""
    folder = lab.root / ".dinmo"

    def keep() -> Callable[[], None]:
        kept = Path(tempfile.mkdtemp(dir=tmp_path)) / "kept"
        shutil.copytree(folder, kept, ignore=shutil.ignore_patterns("emulator"))

        def put() -> None:
            for path in folder.iterdir():
                if path.name != "emulator":
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
            shutil.copytree(kept, folder, dirs_exist_ok=True)

        return put

    return keep


def more_events(lab: Lab, name: str = "more") -> None:
    """As many again as there are."""
    lab.sql(f"insert into events by name select * replace (event_id || '-{name}' as event_id) from events")


def grown(lab: Lab, put_back: Callable[[], Callable[[], None]]) -> tuple[Callable[[], None], Ran]:
    """Events were synced, and later as many more, by a run that is given; the state in between can be put back."""
    lab.only("events", INSERT)
    assert lab.run("sync").code == 0
    put = put_back()
    more_events(lab)
    newer = lab.run("sync", "--json")
    assert newer.code == 0, newer.all
    return put, newer


def test_an_older_copy_inserts_nothing_again_until_its_records_are_taken_over(
    lab: Lab, org: Org, put_back: Callable[[], Callable[[], None]], tmp_path: Path
) -> None:
    put, _ = grown(lab, put_back)
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


# The org's own record of a state, where the object for it is installed


def install(lab: Lab) -> Path:
    """The object as we ship it; its folder."""
    shipped = Path(dinmo_dbt.__file__).parent / "salesforce_metadata" / "force-app"
    return Path(shutil.copytree(shipped, lab.root / "force-app", dirs_exist_ok=True)) / "main" / "default"


@pytest.fixture
def recording(lab: Lab) -> Iterator[Org]:
    """The lab's org with what we ship for such records."""
    install(lab)
    with lab.serve() as org:
        yield org


def forget_jobs(org: Org) -> None:
    """An administrator deletes them, or Salesforce does, after 7 days."""
    for job in org.jobs():
        assert org.http.delete(f"{org.base}/jobs/ingest/{job['id']}").status_code == 204
    assert not org.jobs()


def records(org: Org) -> list[tuple[str, int, str]]:
    found = org.query("SELECT Name, Serial__c, Run__c FROM Dinmo_State__c")
    return [(record["Name"], int(record["Serial__c"]), record["Run__c"]) for record in found]


def asked(lab: Lab) -> list[str]:
    """How the records were asked for and written since the last call."""
    found = [method for method, path, _ in lab.requests if path.endswith("/query") or "Dinmo_State__c" in path]
    lab.requests.clear()
    return found


def test_an_older_copy_inserts_nothing_again_when_no_job_tells_any_more(
    lab: Lab, recording: Org, put_back: Callable[[], Callable[[], None]], tmp_path: Path
) -> None:
    put, newer = grown(lab, put_back)
    [(name, serial, run)] = records(recording)
    assert (name, run) == ("events_to_crm (lab, dev)", newer.result("events_to_crm")["run_id"])
    there = recording.count("Event__c")
    forget_jobs(recording)
    put()
    elsewhere = str(tmp_path / "elsewhere")
    for command in ("plan", "sync"):
        ran = lab.run(command, XDG_STATE_HOME=elsewhere)
        assert ran.code == 5 and "DB524" in ran.all, ran.all
        assert f"at serial {serial} by run {run}" in " ".join(ran.all.split()), ran.all
        assert recording.count("Event__c") == there and records(recording) == [(name, serial, run)]
    adopt = ("state", "adopt", "events_to_crm", "--match", "event_id=Ref__c", "--yes")
    assert lab.run(*adopt, XDG_STATE_HOME=elsewhere).code == 0
    more_events(lab, "others")
    done = lab.run("sync", "--json", XDG_STATE_HOME=elsewhere)
    assert done.code == 0, done.all
    assert recording.count("Event__c") == 2 * there
    assert records(recording)[0][2] == done.result("events_to_crm")["run_id"]


def test_a_lost_state_inserts_again_only_once_that_is_accepted(lab: Lab, recording: Org) -> None:
    lab.only("events", INSERT)
    assert lab.run("sync").code == 0
    there = recording.count("Event__c")
    forget_jobs(recording)
    forget(lab)
    refused = lab.run("sync", "--first-sync")
    assert refused.code == 5 and "DB524" in refused.all and "is of another state" in refused.all, refused.all
    shown = lab.run("state", "accept", "events_to_crm")
    assert shown.code == 0 and "1 record of the state; --yes accepts it" in shown.out, shown.all
    assert lab.run("sync", "--first-sync").code == 5
    assert lab.run("state", "accept", "events_to_crm", "--yes").code == 0
    assert "no job" in lab.run("state", "accept", "events_to_crm").out
    assert lab.run("sync", "--first-sync").code == 0
    assert recording.count("Event__c") == 2 * there
    more_events(lab)
    assert lab.run("sync").code == 0


def test_an_older_copy_of_an_update_is_reported_once_by_the_record(
    lab: Lab, recording: Org, put_back: Callable[[], Callable[[], None]], tmp_path: Path
) -> None:
    lab.only("people", PEOPLE)
    assert lab.run("sync").code == 0
    put = put_back()
    lab.sql("update people set name = name || ' x'")
    assert lab.run("sync").code == 0
    forget_jobs(recording)
    put()
    first = lab.run("sync", XDG_STATE_HOME=str(tmp_path))
    assert first.code == 0 and "note: its record there is at serial" in first.out, first.all
    lab.sql("update people set name = name || ' y'")
    second = lab.run("sync", XDG_STATE_HOME=str(tmp_path))
    assert second.code == 0 and "note" not in second.out, second.all


def test_a_run_that_died_goes_on_and_a_copy_of_before_does_not(
    lab: Lab, recording: Org, put_back: Callable[[], Callable[[], None]], tmp_path: Path
) -> None:
    lab.only("events", INSERT)
    assert lab.run("sync").code == 0
    put = put_back()
    more_events(lab)
    lab.deadly = Deadly("POST", "/jobs/ingest", "before")
    child = lab.start("sync")
    lab.deadly.victim = child.pid
    child.communicate(timeout=120)
    lab.deadly = None
    after, there = put_back(), recording.count("Event__c")
    put()
    refused = lab.run("sync", XDG_STATE_HOME=str(tmp_path))
    assert refused.code == 5 and "DB524" in refused.all, refused.all
    after()
    assert lab.run("sync").code == 0
    assert recording.count("Event__c") == 2 * there


@pytest.mark.parametrize(
    ("broken", "said"), [(None, "can't be read"), (("<length>40", "<length>5"), "can't be written")]
)
def test_a_record_that_can_not_be_read_or_written_is_a_note_and_no_more(
    lab: Lab, broken: tuple[str, str] | None, said: str
) -> None:
    lab.only("events", INSERT)
    path = install(lab) / "objects" / "Dinmo_State__c" / "fields" / "Run__c.field-meta.xml"
    path.write_text(path.read_text().replace(*broken)) if broken else path.unlink()
    with lab.serve() as org:
        ran = lab.run("sync")
        assert ran.code == 0 and ran.out.count("note:") == 1 and said in " ".join(ran.out.split()), ran.all
        assert org.count("Event__c") == 20


def test_a_record_that_holds_no_serial_is_a_note(lab: Lab, recording: Org) -> None:
    lab.only("events", INSERT)
    assert lab.run("sync").code == 0
    [record] = recording.query("SELECT Id FROM Dinmo_State__c")
    recording.edit("Dinmo_State__c", record["Id"], Serial__c=None)
    more_events(lab)
    ran = lab.run("sync")
    assert ran.code == 0 and ran.out.count("note:") == 1 and "can't be read" in " ".join(ran.out.split()), ran.all


def test_an_org_without_the_object_is_asked_once_a_command_and_by_no_run_that_sends_nothing(lab: Lab, org: Org) -> None:
    lab.only("events", INSERT)
    lab.run("sync")
    asked(lab)
    assert lab.run("sync").code == 0
    assert asked(lab) == []
    more_events(lab)
    assert "Dinmo_State__c" not in lab.run("sync").all
    assert asked(lab) == ["GET"]


def test_the_record_costs_a_run_that_sends_three_calls_and_no_other_any(lab: Lab, recording: Org) -> None:
    lab.only("events", INSERT)
    lab.run("sync")
    assert asked(lab).count("PATCH") == 2
    assert lab.run("sync").code == 0
    assert asked(lab) == []
    more_events(lab)
    assert lab.run("plan").code == 0
    assert asked(lab) == ["GET"]
    assert lab.run("sync").code == 0
    assert asked(lab) == ["GET", "PATCH", "PATCH"]
