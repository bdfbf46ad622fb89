"""Locks, names, orgs: whose state it is, and who may write it."""

from __future__ import annotations

import json
import re
import signal
import sqlite3
import stat
from contextlib import closing

import pytest

from dinmo_dbt import emulator

from .lab import COMPANIES, EVENTS, PEOPLE, Lab, Org, until

pytestmark = pytest.mark.slow

PLAIN_EVENTS = {**EVENTS, "fields": {"event_id": "Ref__c", "kind": "Kind__c"}}


def test_two_syncs_of_one_activation_never_write_at_once(lab: Lab) -> None:
    lab.declare("companies")
    lab.declare("events", PLAIN_EVENTS)
    with lab.emulator("--batch-delay", "2") as (org, _):
        child = lab.start("sync", "-s", "events")
        until(lambda: [job for job in org.jobs() if job["state"] == "InProgress"])
        lab.hold_still(child)
        second = lab.run("sync", "-s", "events")
        assert second.code == 5, second.all
        assert f"events_to_crm is being synced by process {child.pid} on " in second.err
        assert lab.run("plan", "-s", "events").code == 0, "a plan takes no lock"
        other = lab.run("sync", "-s", "people")
        assert other.code == 0, other.all
        child.send_signal(signal.SIGCONT)
        _, err = child.communicate(timeout=60)
        assert child.returncode == 0, err
        assert org.count("Event__c") == 20


def test_an_org_in_use_by_another_command_is_waited_for_and_then_named(lab: Lab) -> None:
    with lab.emulator("--private") as (_, server):
        ran = lab.run("sync")
        assert ran.code == 1
        assert str(server.pid) in ran.err
        assert "Traceback" not in ran.err


def test_a_standing_server_is_used(lab: Lab) -> None:
    lab.only("people", PEOPLE)
    with lab.emulator() as (org, _):
        assert lab.run("sync").code == 0
        assert org.count("Person__c") == 30


def test_a_renamed_activation_keeps_its_state_by_a_move(lab: Lab, org: Org) -> None:
    lab.only("events", PLAIN_EVENTS)
    assert lab.run("sync").code == 0
    lab.only("events", {**PLAIN_EVENTS, "name": "events_renamed"})
    refused = lab.run("sync")
    assert refused.code == 5
    assert "dinmo-dbt state move events_to_crm events_renamed" in refused.err
    assert lab.run("plan").code == 5
    moved = lab.run("state", "move", "events_to_crm", "events_renamed")
    assert moved.code == 0, moved.all
    ran = lab.run("sync", "--json")
    assert ran.code == 0, ran.all
    assert ran.result("events_renamed")["counts"]["unchanged"] == 20
    assert org.count("Event__c") == 20
    shown = lab.run("state", "show", "--json").json["states"]
    assert [(state["activation"], state["rows"]) for state in shown] == [("events_renamed", 20)]


def test_another_object_is_another_state(lab: Lab, org: Org) -> None:
    lab.only("people", {**PEOPLE, "fields": {"name": "Name"}})
    assert lab.run("sync").code == 0
    lab.only(
        "people", {**COMPANIES, "name": "people_to_crm", "match": {"name": "Name"}, "fields": {"score": "Score__c"}}
    )
    refused = lab.run("sync")
    assert refused.code == 5
    assert "object was Person__c, is Account" in refused.err


def test_state_commands_say_what_they_do_not_know(lab: Lab, org: Org) -> None:
    assert lab.run("state", "reset").code == 2
    assert lab.run("state", "reset", "nobody").code == 2
    assert lab.run("state", "move", "nobody", "somebody").code == 2
    assert "none yet" in lab.run("state", "show").out
    assert lab.run("sync").code == 0
    assert lab.run("state", "reset", "--all").code == 0
    assert "none yet" in lab.run("state", "show").out


def test_a_state_of_an_older_format_is_left_by_a_reset_and_its_records_are_taken_over(lab: Lab, org: Org) -> None:
    lab.only("events", PLAIN_EVENTS)
    lab.declare("people", {**PEOPLE, "fields": {"name": "Name"}})
    assert lab.run("sync").code == 0
    older_state(lab)
    for command in ("sync", "plan", "verify", "status"):
        refused = lab.run(command)
        assert refused.code == 5, refused.all
        assert "DB514" in refused.err and "the state has format 4; this version reads 5" in refused.err
        assert "state reset --all" in refused.err and "state adopt" in refused.err
    one = lab.run("state", "reset", "events_to_crm")
    assert one.code == 5 and "state reset --all" in one.err
    calls = org.count("Event__c"), org.count("Person__c")
    reset = lab.run("state", "reset", "--all", "--json")
    assert (reset.code, reset.json["older_format"]) == (0, 4), reset.all
    refused = lab.run("sync", "-s", "events")
    assert refused.code == 4 and "DB401" in refused.err, "an insert does not send on a guess"
    adopted = lab.run("state", "adopt", "events_to_crm", "--match", "event_id=Ref__c", "--yes")
    assert adopted.code == 0, adopted.all
    assert lab.run("state", "adopt", "people_to_crm", "--yes").code == 0
    lab.sql("insert into events select * replace ('new' as event_id) from events limit 1")
    ran = lab.run("sync", "--json")
    assert ran.code == 0, ran.all
    assert ran.result("people_to_crm")["counts"]["unchanged"] == 30
    assert (org.count("Event__c"), org.count("Person__c")) == (calls[0] + 1, calls[1])


def test_rows_that_another_version_hashed_are_compared_with_salesforce_and_never_sent_on_a_guess(
    lab: Lab, org: Org
) -> None:
    lab.only("events", PLAIN_EVENTS)
    lab.declare("people", {**PEOPLE, "fields": {"name": "Name"}})
    assert lab.run("sync").code == 0
    with closing(sqlite3.connect(lab.root / ".dinmo" / "state.db")) as connection, connection:
        connection.execute(
            "UPDATE activation SET mappings = replace(mappings, '\"hash_version\": 2', '\"hash_version\": 1')"
        )
    lab.sql("update people set name = 'other' where person_id = 'P1'")
    for command in ("plan", "sync", "verify"):
        refused = lab.run(command)
        assert refused.code == 5 and refused.err.count("DB523") == 2, refused.all
        assert "version 1 of the row hash; this dinmo-dbt has version 2" in refused.err
    for name, more in (("events_to_crm", ("--match", "event_id=Ref__c")), ("people_to_crm", ())):
        adopting = " ".join(("dinmo-dbt state adopt", name, *more, "--yes"))
        assert f"dinmo-dbt state reset {name}, then before any sync {adopting}" in " ".join(refused.err.split())
        assert lab.run("state", "reset", name).code == 0
        adopted = lab.run("state", "adopt", name, *more, "--yes")
        assert adopted.code == 0, adopted.all
    ran = lab.run("sync", "--json")
    assert ran.code == 0, ran.all
    assert (org.count("Event__c"), org.count("Person__c")) == (20, 30)
    assert ran.result("events_to_crm")["counts"]["unchanged"] == 20
    assert ran.result("people_to_crm")["counts"]["unchanged"] == 29, "and the row that differs is sent"


def test_a_state_that_somebody_has_changed_is_refused_and_the_ways_out_go_on_from_what_the_org_has(
    lab: Lab, org: Org
) -> None:
    lab.only("events", PLAIN_EVENTS)
    assert lab.run("sync").code == 0
    with closing(sqlite3.connect(lab.root / ".dinmo" / "state.db")) as connection, connection:
        connection.execute("UPDATE activation SET files = '[]'")
    for command in ("plan", "sync", "verify"):
        refused = lab.run(command)
        assert refused.code == 5 and "DB502" in refused.all and "somebody has changed it" in refused.all
    for command in (("status",), ("state", "show")):
        assert "its rows can't be read: what the state says" in " ".join(lab.run(*command).out.split())
    assert lab.run("state", "reset", "events_to_crm").code == 0
    assert lab.run("state", "adopt", "events_to_crm", "--match", "event_id=Ref__c", "--yes").code == 0
    assert lab.run("sync").code == 0
    assert org.count("Event__c") == 20


def older_state(lab: Lab) -> None:
    for name in ("state.db", "history.db"):
        with closing(sqlite3.connect(lab.root / ".dinmo" / name)) as connection, connection:
            connection.execute("UPDATE meta SET value = '4' WHERE key = 'format'")


def test_another_org_is_another_empty_state(lab: Lab) -> None:
    lab.only("people", PEOPLE)
    with lab.serve():
        assert lab.run("sync").code == 0
    emulator.reset(lab.data)
    with lab.serve() as org:
        ran = lab.run("sync")
        assert ran.code == 0, ran.all
        assert "first sync to org" in ran.out
        assert org.count("Person__c") == 30
    assert len({state["org_id"] for state in lab.run("state", "show", "--json").json["states"]}) == 2


def test_the_org_is_not_reset_while_it_is_served(lab: Lab) -> None:
    with lab.emulator():
        refused = lab.run("emulator", "reset")
        assert refused.code == 1, refused.all
    assert lab.run("emulator", "reset").code == 0


def test_state_is_the_owners_alone_and_holds_no_values(lab: Lab, org: Org) -> None:
    lab.only("people", PEOPLE)
    lab.sql("update people set name = 'CANARY-NAME' where person_id = 'P1'")
    assert lab.run("sync").code == 0
    state = lab.root / ".dinmo"
    files = [path for path in state.rglob("*") if path.is_file() and lab.data not in path.parents]
    assert files
    for path in files:
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
        assert b"CANARY-NAME" not in path.read_bytes(), path
    assert not [path for path in (state / "spool").rglob("*") if path.is_file()]


def test_history_and_status_tell_what_happened(lab: Lab, org: Org) -> None:
    assert "no runs yet" in lab.run("history").out
    assert lab.run("status").out.count("never synced") == 3
    lab.run("sync")
    runs = lab.run("history", "--json").json["runs"]
    assert {run["status"] for run in runs} == {"success"}
    one = lab.run("history", runs[0]["run_id"])
    assert one.code == 0
    assert runs[0]["run_id"] in one.out and "API calls" in one.out
    assert lab.run("history", "nothing").code == 2
    status = lab.run("status", "-s", "people")
    assert re.search(r"people_to_crm: success at .*\n  org \w{18}: 30 rows known\n", status.out)


def test_no_output_or_file_holds_the_token(lab: Lab, org: Org) -> None:
    token = json.loads((lab.data / "server.json").read_text())["access_token"]
    for command in (("debug",), ("validate", "--online"), ("plan",), ("sync", "--json"), ("history", "--json")):
        assert token not in lab.run(*command).all
    for path in lab.root.rglob("*"):
        if path.is_file() and lab.data not in path.parents and path.suffix in (".json", ".db", ".yml", ".log"):
            assert token.encode() not in path.read_bytes(), path


def test_who_holds_a_state_is_shown_and_let_go(lab: Lab) -> None:
    lab.only("events", PLAIN_EVENTS)
    assert "nobody holds events_to_crm" in lab.run("state", "unlock", "events_to_crm").out
    with lab.emulator("--batch-delay", "3") as (org, _):
        child = lab.start("sync", "-s", "events")
        until(lambda: [job for job in org.jobs() if job["state"] == "InProgress"])
        told = lab.run("state", "unlock", "events_to_crm")
        assert told.code == 5
        assert f"is held by process {child.pid} on " in told.out
        assert "that process is still there" in told.out
        assert "20 rows of it in flight" in told.out
        assert f"held by process {child.pid}" in lab.run("state", "show").out
        done = lab.run("state", "unlock", "events_to_crm", "--yes", "--json")
        assert done.code == 0
        assert [held["holder"]["lives"] for held in done.json["held"]] == [True]
        _, err = child.communicate(timeout=60)
        assert child.returncode == 5, err
        assert "DB503" in err
        assert lab.run("sync", "-s", "events").code == 0
        assert org.count("Event__c") == 20


def test_a_kept_serial_is_gone_back_to(lab: Lab, org: Org) -> None:
    lab.only("people", PEOPLE)
    assert lab.run("sync").code == 0
    lab.sql("update people set name = 'Changed' where person_id = 'P1'")
    assert lab.run("sync").code == 0
    [state] = lab.run("state", "show", "--json").json["states"]
    back = lab.run("state", "reset", "people_to_crm", "--to-serial", str(state["kept_serials"][-1]))
    assert back.code == 0, back.all
    assert lab.run("sync", "--json").result("people_to_crm")["outcome"]["succeeded"] == 1
    assert lab.run("state", "reset", "people_to_crm", "--to-serial", "1").code == 5


def test_state_in_the_warehouse_does_what_a_folder_does(lab: Lab, org: Org) -> None:
    lab.only("people", PEOPLE)
    (lab.root / "dinmo.yml").write_text((lab.root / "dinmo.yml").read_text() + "state: {warehouse: {schema: dinmo}}\n")
    assert "none yet" in lab.run("state", "show").out
    assert lab.run("sync").code == 0
    ran = lab.run("sync", "--json")
    assert ran.result("people_to_crm")["counts"]["unchanged"] == 30
    shown = lab.run("state", "show")
    assert "state in schema dinmo of" in shown.out
    assert "people_to_crm -> Person__c: 30 rows" in shown.out
    assert lab.run("history").out.count("success") == 2
    assert "every row was delivered" in lab.run("rejected").out
    assert lab.run("plan", "--detailed-exitcode").code == 0
    assert "30 rows known" in lab.run("status").out
    assert "nobody holds" in lab.run("state", "unlock", "people_to_crm").out
    assert lab.run("state", "reset", "people_to_crm").code == 0
    assert "none yet" in lab.run("state", "show").out
    assert not list((lab.root / ".dinmo").glob("*.db"))


def test_a_state_goes_to_the_warehouse_and_back_and_nothing_is_sent_twice(lab: Lab, org: Org) -> None:
    lab.only("events", PLAIN_EVENTS)
    lab.declare("people", PEOPLE)
    assert lab.run("sync").code == 0
    dinmo = lab.root / "dinmo.yml"
    before = dinmo.read_text()
    dinmo.write_text(before + "state: {warehouse: {schema: dinmo}}\n")
    first = lab.run("sync")
    assert first.code == 5, first.all
    assert "DB535" in first.err
    assert "dinmo-dbt state copy --to warehouse --from .dinmo" in " ".join(first.err.split())
    assert "events_to_crm has no state in the warehouse's schema dinmo, and one in the folder .dinmo" in " ".join(
        first.err.split()
    )
    assert org.count("Event__c") == 20
    reset = lab.run("state", "reset", "--all")  # what the upsert began there
    assert reset.code == 0, reset.all

    copied = lab.run("state", "copy", "--to", "warehouse", "--json")
    assert copied.code == 0, copied.all
    assert [own["activation"] for own in copied.json["copied"]] == ["events_to_crm", "people_to_crm"]
    ran = lab.run("sync", "--json")
    assert ran.code == 0, ran.all
    assert [ran.result(name)["counts"]["unchanged"] for name in ("events_to_crm", "people_to_crm")] == [20, 30]
    assert lab.run("history").out.count("success") >= 3

    dinmo.write_text(before)
    for command in (
        ["sync"],
        ["plan"],
        ["status"],
        ["history"],
        ["pause", "-s", "people_to_crm", "--reason", "x"],
        ["state", "show"],
    ):
        refused = lab.run(*command)
        assert refused.code == 5, (command, refused.all)
        assert "DB533" in refused.err
        assert "state: {warehouse: {schema: dinmo}}" in refused.err
    back = lab.run("state", "copy", "--to", "folder", "--from", "dinmo")
    assert back.code == 0, back.all
    ran = lab.run("sync", "--json")
    assert [ran.result(name)["counts"]["unchanged"] for name in ("events_to_crm", "people_to_crm")] == [20, 30]
    assert org.count("Event__c") == 20


@pytest.mark.parametrize("mode", ["upsert", "update", "insert"])
@pytest.mark.parametrize("way", ["to the warehouse", "to a folder", "to another schema"])
def test_a_state_that_is_left_behind_is_named_by_every_command(way: str, mode: str, lab: Lab, org: Org) -> None:
    lab.only("events", PLAIN_EVENTS) if mode == "insert" else lab.only("people", {**PEOPLE, "mode": mode})
    dinmo = lab.root / "dinmo.yml"
    folder = dinmo.read_text()
    schema = folder + "state: {warehouse: {schema: kept_here}}\n"
    old, new, kind, name = {
        "to the warehouse": (folder, schema, "warehouse", ".dinmo"),
        "to a folder": (schema, folder, "folder", "kept_here"),
        "to another schema": (schema, schema.replace("kept_here", "elsewhere"), "warehouse", "kept_here"),
    }[way]
    dinmo.write_text(old)
    assert lab.run("sync").code in (0, 3)
    assert "DB535" not in lab.run("sync").all
    dinmo.write_text(new)
    stops = mode == "insert"
    for command in (["validate", "--online"], ["plan"], ["sync"]):
        ran = lab.run(*command)
        told = " ".join(ran.err.split())
        assert told.count("DB535") == 1, (command, ran.all)
        assert ("would make every row again" if stops else "every row is sent again") in told
        assert f"dinmo-dbt state copy --to {kind} --from {name}" in told
        assert (ran.code == 5) is stops, ran.all
    if stops:  # it is somebody else's, and a person says what is to be
        before = org.count("Event__c")
        ran = lab.run("state", "adopt", "events_to_crm", "--match", "event_id=Ref__c", "--yes")
        assert ran.code == 0, ran.all
        assert (lab.run("sync").code, org.count("Event__c")) == (0, before)
    assert "DB535" not in lab.run("plan").all, "by now it has a state here"


def test_a_folder_that_moved_is_named_before_it_is_synced_again(lab: Lab, org: Org) -> None:
    lab.only("events", PLAIN_EVENTS)
    assert lab.run("sync").code == 0
    dinmo = lab.root / "dinmo.yml"
    dinmo.write_text(dinmo.read_text() + "state: {location: kept}\nemulator: {data: .dinmo/emulator}\n")
    planned = lab.run("plan")
    assert planned.code == 5, planned.all
    assert "dinmo-dbt state copy --to folder --from .dinmo" in " ".join(planned.err.split())
    copied = lab.run("state", "copy", "--to", "folder", "--from", ".dinmo")
    assert copied.code == 0, copied.all
    assert lab.run("sync", "--json").result("events_to_crm")["counts"]["unchanged"] == 20
    assert org.count("Event__c") == 20
    again = lab.run("state", "copy", "--to", "folder", "--from", ".dinmo")
    assert again.code == 5
    assert "DB534" in again.err


def test_a_sync_that_is_killed_with_its_state_in_the_warehouse_is_settled_by_the_next(lab: Lab) -> None:
    lab.only("events", PLAIN_EVENTS)
    (lab.root / "dinmo.yml").write_text((lab.root / "dinmo.yml").read_text() + "state: {warehouse: {schema: dinmo}}\n")
    with lab.emulator("--batch-delay", "2") as (org, _):
        child = lab.start("sync", "-s", "events")
        until(lambda: [job for job in org.jobs() if job["state"] == "InProgress"])
        child.kill()
        child.communicate()
        ran = lab.run("sync", "-s", "events", "--json")
        assert ran.code == 0, ran.all
        assert ran.result("events_to_crm")["recovered"]["succeeded"] == 20
        assert org.count("Event__c") == 20
