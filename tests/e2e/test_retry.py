"""Rows that wait are sent when the user says so, and doubtful inserts only when the user says so twice."""

from __future__ import annotations

from .lab import EVENTS, PEOPLE, Deadly, Lab, Org, until


def test_rows_that_wait_are_sent_now_and_only_those(lab: Lab, org: Org) -> None:
    lab.only("people", PEOPLE)
    lab.sql("update people set email = 'wrong' where person_id in ('P5', 'P6')")
    for _ in range(2):
        lab.run("sync")
    assert lab.run("sync", "--json").result("people_to_crm")["counts"]["held"] == 2
    ran = lab.run("retry", "--json")
    assert (ran.code, ran.json["command"]) == (3, "retry"), "both are as wrong as they were"
    assert "2 rows due now" in ran.err
    result = ran.result("people_to_crm")
    assert (result["counts"]["planned"], result["outcome"]["rejected"]) == (2, 2)
    lab.sql("update people set email = 'right@example.com' where person_id in ('P5', 'P6')")
    assert lab.run("sync").code == 0
    for arguments in ((), ("--unknown",), ("--unknown", "--yes")):
        ran = lab.run("retry", *arguments)
        assert (ran.code, ran.out) == (0, "nothing waits\n"), ran.all


def test_nothing_waits_before_the_first_sync(lab: Lab, org: Org) -> None:
    ran = lab.run("retry", "--json")
    assert (ran.code, ran.json["results"]) == (0, [])


def doubtful(lab: Lab, org: Org) -> None:
    """20 inserts that Salesforce has made, and nobody can learn it: the run was killed, the job is deleted."""
    lab.only("events", {**EVENTS, "fields": {"event_id": "Ref__c", "kind": "Kind__c"}})
    lab.deadly = Deadly("PATCH", "/jobs/ingest/", "after")
    child = lab.start("sync")
    lab.deadly.victim = child.pid
    child.communicate()
    lab.deadly = None
    (job,) = until(lambda: [job for job in org.jobs() if job["state"] == "JobComplete"])
    assert org.http.delete(f"{org.base}/jobs/ingest/{job['id']}").status_code == 204
    assert lab.run("sync").code == 6


def test_inserts_of_unknown_outcome_are_sent_again_only_by_the_users_decision(lab: Lab, org: Org) -> None:
    doubtful(lab, org)
    assert org.count("Event__c") == 20
    assert "20 may have been inserted" in lab.run("status", "-s", "events").out
    assert lab.run("status", "-s", "events", "--json").json["activations"][0]["orgs"][0]["unknown"] == 20
    assert "20 of unknown outcome" in lab.run("state", "show").out
    ran = lab.run("retry")
    assert ran.code == 0
    assert ran.out.startswith("nothing waits\n20 rows may have been inserted"), ran.all
    ran = lab.run("retry", "--unknown")
    assert (ran.code, "DB411" in ran.err, "20 rows" in ran.err, "exist twice" in ran.err) == (4, True, True, True)
    ran = lab.run("sync")
    assert (ran.code, org.count("Event__c")) == (6, 20), "nothing has moved by asking"
    assert "20 held (OUTCOME_UNKNOWN): an earlier run may have inserted it" in " ".join(ran.out.split())
    ran = lab.run("retry", "--unknown", "--yes", "--json")
    assert ran.code == 0, ran.all
    assert (ran.result("events_to_crm")["outcome"]["succeeded"], org.count("Event__c")) == (20, 40)
    assert "nothing waits" in lab.run("retry", "--unknown").out
    assert lab.run("plan", "--detailed-exitcode").code == 0
