"""Every kind of fault, and what a client then sees; which calls it hits; and that the same seed does the same."""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dinmo_dbt.emulator import EmulatorError, Fault, Limits, Pace
from dinmo_dbt.emulator.faults.fault import KINDS, by_chance, from_json
from dinmo_dbt.emulator.faults.presets import PRESETS
from dinmo_dbt.emulator.web.effect import Effect

from .mounted import Mounted, names

Mount = Callable[..., Mounted]
LOCK = "UNABLE_TO_LOCK_ROW:unable to obtain exclusive access to this record:--"


def outcome(reply: Any) -> tuple[int, str]:
    return reply.status_code, reply.json[0]["errorCode"]


def armed(org: Mounted) -> list[tuple[int, int]]:
    return [(f["matched"], f["fired"]) for f in org.app.faults.armed()]


# The way of a request and its reply.


def test_a_lost_request_does_nothing_and_a_lost_reply_did_it(mount: Mount) -> None:
    org = mount()
    for kind, count in (("request_lost", 0), ("reply_lost", 1)):
        org.app.faults.clear()
        org.app.faults.arm(Fault(kind=kind, call="record.create"))
        org.api("POST", "/sobjects/Account", {"Name": kind})
        assert org.effect == Effect(lost=True)
        assert org.count("Account") == count


@pytest.mark.parametrize(
    ("fault", "effect"),
    [
        (Fault(kind="request_repeated"), Effect(repeat=True)),
        (Fault(kind="slow", seconds=2.5), Effect(delay_s=2.5)),
        (Fault(kind="slow"), Effect(delay_s=1.0)),
        (Fault(kind="hang", seconds=90), Effect(delay_s=90, lost=True)),
        (Fault(kind="hang"), Effect(delay_s=3600, lost=True)),
        (Fault(kind="trickle", bytes_per_s=1), Effect(bytes_per_s=1)),
        (Fault(kind="truncated", at=7), Effect(cut_after=7)),
    ],
)
def test_the_transport_gets_what_to_do(mount: Mount, fault: Fault, effect: Effect) -> None:
    org = mount()
    plain = org.api("GET", "/sobjects").get_data()
    org.app.faults.arm(fault)
    reply = org.api("GET", "/sobjects")
    assert (org.effect, reply.status_code, reply.get_data()) == (effect, 200, plain)


def test_effects_of_several_faults_add_up(mount: Mount) -> None:
    org = mount()
    org.app.faults.arm(Fault(kind="slow", seconds=3))
    org.app.faults.arm(Fault(kind="truncated", at=5))
    org.api("GET", "/sobjects")
    assert org.effect == Effect(delay_s=3, cut_after=5)


def test_a_body_is_cut_in_its_middle_or_announced_too_long(mount: Mount) -> None:
    org = mount()
    plain = org.api("GET", "/limits").get_data()
    org.app.faults.arm(Fault(kind="truncated", call="limits"))
    org.api("GET", "/limits")
    assert org.effect == Effect(cut_after=len(plain) // 2)
    org.app.faults.clear()
    org.app.faults.arm(Fault(kind="content_length", call="limits", at=3))
    reply = org.api("GET", "/limits")
    assert org.effect is not None and org.effect.cut_after is not None
    assert int(reply.headers["Content-Length"]) == org.effect.cut_after + 3


def test_bodies_are_made_unreadable(mount: Mount) -> None:
    org = mount()
    plain = org.api("GET", "/sobjects").get_data()

    def broken(kind: str) -> Any:
        org.app.faults.clear()
        org.app.faults.arm(Fault(kind=kind, call="global_describe"))
        reply = org.api("GET", "/sobjects", headers={"Accept-Encoding": "gzip"})
        assert reply.status_code == 200
        return reply

    packed = broken("bad_gzip")
    assert packed.headers["Content-Encoding"] == "gzip"
    with pytest.raises((OSError, zlib.error), match=r"."):
        gzip.decompress(packed.get_data())
    with pytest.raises(UnicodeDecodeError):
        broken("invalid_utf8").get_data().decode()
    assert broken("bom").get_data() == b"\xef\xbb\xbf" + plain
    page = broken("html_page")
    assert page.mimetype == "text/html" and b"Service Not Available" in page.get_data()


def test_a_reply_is_changed_before_its_bytes_are_damaged(mount: Mount) -> None:
    org = mount()
    for kind in ("bad_gzip", "bom", "missing_items", "other_org"):
        org.app.faults.arm_json({"kind": kind, "call": "collections.create", "times": 1})
    records = [{"attributes": {"type": "Account"}, "Name": name} for name in "ab"]
    reply = org.api("POST", "/composite/sobjects", {"records": records})
    assert reply.status_code == 200
    with pytest.raises((OSError, zlib.error)):
        gzip.decompress(reply.get_data())


def test_items_are_missing_or_too_many(mount: Mount) -> None:
    org = mount()
    rid = org.create("Account", {"Name": "a"})
    for path, some, more, less in (
        ("/sobjects", lambda b: len(b["sobjects"]), 1, -1),
        ("/query?q=SELECT+Id+FROM+Account", lambda b: len(b["records"]), 1, -1),
        (f"/sobjects/Account/{rid}?fields=Name", len, 1, -1),
    ):
        count = some(org.get(path))
        for kind, change in (("extra_items", more), ("missing_items", less)):
            org.app.faults.arm(Fault(kind=kind))
            assert some(org.get(path)) == count + change
            org.app.faults.clear()


def test_a_redirect_leads_where_it_is_set_to(mount: Mount) -> None:
    org = mount()
    for location, status, seen in (
        ("{path}", None, "/services/data/v62.0/query?q=SELECT+Id+FROM+Account"),
        ("http://10.0.0.1{path}", 307, "http://10.0.0.1/services/data/v62.0/query?q=SELECT+Id+FROM+Account"),
        ("https://other.invalid/", 301, "https://other.invalid/"),
    ):
        org.app.faults.clear()
        org.app.faults.arm(Fault(kind="redirect", location=location, status=status))
        reply = org.api("GET", "/query?q=SELECT+Id+FROM+Account")
        assert (reply.status_code, reply.headers["Location"]) == (status or 302, seen)


# Refusals of whole calls.


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "INVALID_REQUEST"), (401, "INVALID_SESSION_ID"), (403, "REQUEST_LIMIT_EXCEEDED"), (404, "NOT_FOUND"),
        (409, "CONFLICT"), (413, "REQUEST_ENTITY_TOO_LARGE"), (414, "REQUEST_URI_TOO_LONG"), (420, "EDGE_ROUTING"),
        (429, "TOO_MANY_REQUESTS"), (500, "UNKNOWN_EXCEPTION"), (502, "BAD_GATEWAY"), (503, "SERVER_UNAVAILABLE"),
        (504, "GATEWAY_TIMEOUT"), (418, "UNKNOWN_EXCEPTION"),
    ],
)  # fmt: skip
def test_a_call_is_refused_in_json_or_by_a_page(mount: Mount, status: int, code: str) -> None:
    org = mount()
    org.app.faults.arm(Fault(kind="status", status=status, times=1))
    assert outcome(org.api("POST", "/sobjects/Account", {"Name": "a"})) == (status, code)
    org.app.faults.arm(Fault(kind="status", status=status, html=True))
    page = org.api("POST", "/sobjects/Account", {"Name": "a"})
    assert (page.status_code, page.mimetype) == (status, "text/html")
    org.app.faults.clear()
    assert org.count("Account") == 0


def test_a_refusal_has_its_own_words_and_says_when_to_come_back(mount: Mount) -> None:
    org = mount()
    for after in ("7", "Wed, 21 Oct 2065 07:28:00 GMT", "soon"):
        org.app.faults.clear()
        org.app.faults.arm(
            Fault(kind="status", status=403, code="API_DISABLED_FOR_ORG", message="off", retry_after=after)
        )
        reply = org.api("GET", "/limits")
        assert reply.json == [{"message": "off", "errorCode": "API_DISABLED_FOR_ORG"}]
        assert reply.headers["Retry-After"] == after


def test_a_call_may_be_carried_out_and_then_refused(mount: Mount) -> None:
    org = mount()
    org.app.faults.arm(Fault(kind="status", status=504, done=True, call="record.create"))
    assert org.api("POST", "/sobjects/Account", {"Name": "a"}).status_code == 504
    assert org.count("Account") == 1


def test_an_empty_result_file_may_be_a_204(mount: Mount) -> None:
    org = mount()
    job = org.job("Account", names(1))
    org.info(job)
    org.app.faults.arm(Fault(kind="status", status=204, call="ingest.results"))
    reply = org.api("GET", f"/jobs/ingest/{job}/failedResults")
    assert (reply.status_code, reply.get_data(), "Content-Type" in reply.headers) == (204, b"", False)


def token(org: Mounted) -> Any:
    who = org.app.identity
    form = {"grant_type": "client_credentials", "client_id": who.client_id, "client_secret": who.client_secret}
    return org.client.post("/services/oauth2/token", data=form)


def test_a_login_is_refused_in_its_own_shape(mount: Mount) -> None:
    org = mount()
    org.app.faults.arm(Fault(kind="status", call="token", status=400, code="inactive_org", message="gone", times=1))
    reply = token(org)
    assert (reply.status_code, reply.json) == (400, {"error": "inactive_org", "error_description": "gone"})
    assert token(org).status_code == 200


def test_a_session_ends_at_every_nth_call_and_a_login_starts_another(mount: Mount) -> None:
    org = mount()
    org.app.faults.arm(Fault(kind="session_expired", call="global_describe", after=2, every=3))
    seen = []
    for _ in range(9):
        reply = org.api("GET", "/sobjects")
        seen.append(reply.status_code)
        if reply.status_code == 401:
            assert outcome(reply) == (401, "INVALID_SESSION_ID")
            assert org.api("GET", "/limits").status_code == 401  # it is really gone
            org.token = token(org).json["access_token"]
    assert seen == [200, 200, 401] * 3


def test_the_quota_is_gone_from_call_n_on_until_its_use_is_forgotten(mount: Mount) -> None:
    org = mount(limits=Limits(daily_api_requests=50))
    org.app.faults.arm(Fault(kind="quota_gone", after=2, times=1))
    assert [org.api("GET", "/sobjects").status_code for _ in range(4)] == [200, 200, 403, 403]
    org.app.faults.clear()
    assert outcome(org.api("GET", "/sobjects")) == (403, "REQUEST_LIMIT_EXCEEDED")
    assert org.control("DELETE", "/limits").status_code == 200
    assert org.api("GET", "/sobjects").status_code == 200


def test_the_limits_lie(mount: Mount) -> None:
    org = mount(limits=Limits(daily_api_requests=50))
    for share, left in ((None, 50), (0.0, 0), (0.5, 25)):
        org.app.faults.clear()
        org.app.faults.arm(Fault(kind="limits_wrong", share=share))
        assert org.get("/limits")["DailyApiRequests"] == {"Max": 50, "Remaining": left}


def test_a_login_leads_to_another_instance(mount: Mount) -> None:
    org = mount()
    org.app.faults.arm(Fault(kind="other_instance", location="https://other.invalid"))
    assert token(org).json["instance_url"] == "https://other.invalid"


def test_a_login_leads_to_another_org(mount: Mount) -> None:
    org = mount()
    own = org.app.identity.organization_id
    org.app.faults.arm(Fault(kind="other_org"))
    reply = token(org).json
    other = reply["id"].split("/")[-2]
    assert other[:14] == own[:14] and other != own and len(other) == 18
    org.token = reply["access_token"]
    assert org.token.startswith(f"{other[:15]}!")
    headers = {"Authorization": f"Bearer {org.token}"}
    assert org.client.get("/services/oauth2/userinfo", headers=headers).json["organization_id"] == other  # type: ignore[index]
    assert org.get("/query?q=SELECT+Id+FROM+Organization")["records"][0]["Id"] == other
    org.app.faults.clear()
    assert org.get("/query?q=SELECT+Id+FROM+Organization")["records"][0]["Id"] == own


# What other users do.


def test_another_user_edits_and_deletes_between_two_calls(mount: Mount) -> None:
    org = mount()
    rid = org.create("Customer__c", {"Name": "a", "Code__c": "c1"})
    faults = org.app.faults
    faults.arm(Fault(kind="rows", preset="validation_rule"))  # which the other user does not meet
    edit = {"object": "Customer__c", "field": "Code__c", "value": "C1", "changes": {"Plan__c": "theirs"}}
    faults.arm(Fault(kind="record_edited", call="record.read", after=1, times=1, **edit))  # type: ignore[arg-type]
    faults.arm(Fault(kind="record_deleted", call="record.read", after=2, object="Customer__c", field="Id", value=rid))
    path = f"/sobjects/Customer__c/{rid}"
    assert [org.get(path)["Plan__c"] for _ in range(2)] == [None, "theirs"]
    assert org.api("GET", path).status_code == 404
    assert org.api("GET", path).status_code == 404  # what is gone already is left alone
    assert armed(org)[1] == (4, 1)


# Jobs.


def test_a_job_fails_at_a_row_and_keeps_the_whole_chunks_before_it(mount: Mount) -> None:
    for row, kept in ((0, 0), (1, 0), (399, 200), (10_000, 10_000), (24_999, 24_800)):
        org = mount()
        org.app.faults.arm(Fault(kind="job_failed", row=row, message="InternalServerError : gone"))
        job = org.job("Account", names(25_000))
        info = org.info(job)
        assert (info["state"], info["errorMessage"]) == ("Failed", "InternalServerError : gone")
        assert info["numberRecordsProcessed"] == org.count("Account") == kept
        assert org.results(job, "unprocessedrecords") == names(25_000 - kept, kept)


def test_a_fault_behind_the_end_of_a_job_never_comes(mount: Mount) -> None:
    org = mount()
    org.app.faults.arm(Fault(kind="job_failed", row=201))
    assert [org.info(org.job("Account", names(n)))["state"] for n in (200, 201, 400)] == [
        "JobComplete", "Failed", "Failed",
    ]  # fmt: skip


def test_an_admin_aborts_a_job(mount: Mount) -> None:
    org = mount()
    org.app.faults.arm(Fault(kind="job_aborted", row=600, object="account", operation="insert"))
    job = org.job("Account", names(1000))
    info = org.info(job)
    assert (info["state"], info["numberRecordsProcessed"], "errorMessage" in info) == ("Aborted", 600, False)
    assert len(org.rows(job, "successfulResults")) == 600
    other = org.job("Customer__c", "Name\nx\n")
    assert org.info(other)["state"] == "JobComplete"


@pytest.mark.parametrize("state", ["UploadComplete", "InProgress"])
def test_a_job_is_stuck_for_a_day_and_goes_on(mount: Mount, state: str) -> None:
    org = mount()
    org.app.faults.arm(Fault(kind="job_stuck", state=state, seconds=26 * 3600))
    job = org.job("Account", names(3))
    for _ in range(3):
        assert (org.info(job)["state"], org.info(job)["numberRecordsProcessed"]) == (state, 0)
        org.clock.advance(8 * 3600)
    org.clock.advance(2 * 3600)
    assert org.info(job)["state"] == "JobComplete"


def test_a_batch_is_put_back_and_a_job_fails_when_that_is_too_often(mount: Mount) -> None:
    org = mount()
    org.app.faults.arm(Fault(kind="batch_retried", retries=3))
    info = org.info(org.job("Account", names(2)))
    assert (info["state"], info["retries"]) == ("JobComplete", 3)
    org.app.faults.clear()
    org.app.faults.arm(Fault(kind="batch_retried", retries=21))
    job = org.job("Account", names(2))
    info = org.info(job)
    assert (info["state"], info["retries"], info["numberRecordsProcessed"]) == ("Failed", 20, 0)
    assert info["errorMessage"].startswith("TooManyLockFailure : ")
    assert org.results(job, "unprocessedrecords") == names(2)


def test_query_jobs_meet_the_faults_of_jobs_too(mount: Mount) -> None:
    org = mount()
    org.app.faults.arm(Fault(kind="job_failed", call="query_job.create", message="InternalServerError : gone"))
    made = org.api("POST", "/jobs/query", {"operation": "query", "query": "SELECT Id FROM Account"}).json
    assert made is not None
    info = org.info(made["id"], "query")
    assert (info["state"], info["errorMessage"]) == ("Failed", "InternalServerError : gone")
    assert org.info(org.job("Account", names(1)))["state"] == "JobComplete"


def test_a_job_or_its_results_are_gone(mount: Mount) -> None:
    org = mount()
    first, second = org.job("Account", names(1)), org.job("Account", names(1))
    org.info(first), org.info(second)
    org.app.faults.arm(Fault(kind="results_expired", times=1))
    assert outcome(org.api("GET", f"/jobs/ingest/{first}/successfulResults")) == (404, "NOT_FOUND")
    assert org.api("GET", f"/jobs/ingest/{first}/failedResults").status_code == 404
    assert org.info(first)["state"] == "JobComplete"
    org.app.faults.arm(Fault(kind="job_deleted", times=1))
    assert outcome(org.api("GET", f"/jobs/ingest/{second}")) == (404, "NOT_FOUND")
    assert second not in [job["id"] for job in org.get("/jobs/ingest")["records"]]
    assert org.info(first)["state"] == "JobComplete"


def test_a_fate_is_kept_with_the_job_over_a_restart_and_the_fault_is_not(mount: Mount, tmp_path: Path) -> None:
    org = mount(data=tmp_path, pace=Pace(batch_s=60))
    org.app.faults.arm(Fault(kind="job_failed", row=12_345))
    job = org.job("Account", names(25_000))
    org.close()
    again = mount(data=tmp_path)
    again.clock.advance(3600)
    info = again.info(job)
    assert (info["state"], info["numberRecordsProcessed"]) == ("Failed", 12_200)
    assert again.app.faults.armed() == []


# Rows.


@pytest.mark.parametrize("preset", PRESETS)
def test_each_preset_refuses_a_row_in_salesforces_words_on_every_surface(mount: Mount, preset: str) -> None:
    org = mount()
    error = PRESETS[preset]
    org.app.faults.arm(Fault(kind="rows", preset=preset, object="Account"))
    reply = org.api("POST", "/sobjects/Account", {"Name": "a"})
    body = reply.json[0]  # type: ignore[index]
    assert reply.status_code == 400
    assert (body["errorCode"], body["message"], body["fields"]) == (error.code, error.message, list(error.fields))
    records = [{"attributes": {"type": "Account"}, "Name": "a"}]
    (item,) = org.api("POST", "/composite/sobjects", {"records": records}).json  # type: ignore[misc]
    assert item["errors"] == [error.item()]
    job = org.job("Account", names(1))
    assert org.info(job)["numberRecordsFailed"] == 1
    assert [r["sf__Error"] for r in org.rows(job, "failedResults")] == [error.bulk_text()]
    assert org.count("Account") == 0
    org.create("Customer__c", {"Name": "another object"})


def test_rows_are_chosen_by_a_value_a_share_or_by_whole_chunks(mount: Mount) -> None:
    org = mount()

    def failed(**fault: Any) -> list[int]:
        org.app.faults.clear()
        org.app.faults.arm(Fault(kind="rows", **{"preset": "lock", **fault}))
        job = org.job("Customer__c", "Name,Plan__c\n" + "".join(f"n{i},p{i % 7 or ''}\n" for i in range(2000)))
        org.info(job)
        rows = org.rows(job, "failedResults")
        assert {r["sf__Error"] for r in rows} <= {LOCK, "MINE:my text:Name Plan__c --"}
        return sorted(int(r["Name"][1:]) for r in rows)

    assert failed(field="name", value="n7") == [7]
    assert failed(field="Plan__c", value="p3") == list(range(3, 2000, 7))
    assert failed(field="Amount__c") == []  # which the job does not set
    assert failed(field="Name", value="n777", whole_chunks=True) == list(range(600, 800))
    assert failed(operation="update") == failed(object="Account") == failed(share=0.0) == []
    assert failed() == list(range(2000))
    some = failed(share=0.3, seed=1)
    assert 500 < len(some) < 700 and failed(share=0.3, seed=1) != some  # another job, other rows
    assert failed(code="MINE", message="my text", fields=("Name", "Plan__c"), field="Name", value="n1") == [1]


def test_a_lock_on_rows_puts_the_batch_back_first(mount: Mount) -> None:
    org = mount()
    org.app.faults.arm(Fault(kind="rows", preset="lock", times=1))
    info = org.info(org.job("Account", names(5)))
    assert (info["retries"], info["numberRecordsFailed"]) == (1, 0)


def test_a_duplicate_rule_says_what_it_found_and_can_be_overruled(mount: Mount) -> None:
    org = mount()
    rid = org.create("Contact", {"LastName": "there"})
    org.app.faults.arm(Fault(kind="rows", preset="duplicate_rule", object="Contact", ids=(rid,)))
    reply = org.api("POST", "/sobjects/Contact", {"LastName": "there"})
    (body,) = reply.json  # type: ignore[misc]
    assert (body["errorCode"], body["message"]) == ("DUPLICATES_DETECTED", "Use one of these records?")
    result = body["duplicateResult"]
    assert result["allowSave"] is True and result["duplicateRule"] == "Standard_Contact_Duplicate_Rule"
    (match,) = result["matchResults"][0]["matchRecords"]
    assert match["record"] == {"attributes": {"type": "Contact"}, "Id": rid}
    headers = {"Sforce-Duplicate-Rule-Header": "allowSave=true"}
    assert org.api("POST", "/sobjects/Contact", {"LastName": "there"}, headers=headers).status_code == 201
    job = org.open_job("Contact", "LastName\nthere\n")
    org.api("PATCH", f"/jobs/ingest/{job}", {"state": "UploadComplete"}, headers=headers)
    assert org.info(job)["numberRecordsFailed"] == 1  # Bulk 2.0 does not have the header


# Result files.


def result_files(org: Mounted, *faults: Fault) -> tuple[str, str]:
    org.app.faults.clear()
    org.app.faults.arm(Fault(kind="rows", preset="trigger", share=0.4, seed=5, call="ingest.rows"))
    job = org.job("Customer__c", "Name,Note__c\n" + "".join(f'n{i},"a ""b"",\nc{i}"\n' for i in range(50)))
    org.info(job)
    org.app.faults.clear()
    for fault in faults:
        org.app.faults.arm(fault)
    return org.results(job, "successfulResults"), org.results(job, "failedResults")


def test_result_files_are_shuffled_cut_repeated_and_thinned_by_rows(mount: Mount) -> None:
    org = mount(seed=1)

    def read(*faults: Fault) -> list[str]:
        good, _ = result_files(org, *faults)
        header, *rows = good.split('\n"a0')
        assert header.strip() == '"sf__Id","sf__Created",Name,Note__c'
        return [row.split(",", 2)[2].strip("\n") for row in rows]

    plain = read()
    assert 20 < len(plain) < 45
    assert len(read(Fault(kind="results_cut", row=3))) == 3
    assert 10 < len(read(Fault(kind="results_cut"))) < 21
    assert read(Fault(kind="results_cut", row=0)) == []
    repeated = read(Fault(kind="results_repeated", share=0.5))
    assert len(repeated) > len(set(repeated)) > 20
    assert 0 < len(read(Fault(kind="results_missing", share=0.5))) < 30


def test_a_shuffled_file_has_the_same_rows(mount: Mount) -> None:
    org = mount()
    job = org.job("Account", names(300))
    org.info(job)
    plain = org.rows(job, "successfulResults")
    org.app.faults.arm(Fault(kind="results_shuffled"))
    once, twice = (org.rows(job, "successfulResults") for _ in range(2))
    assert once != plain and twice != once
    assert sorted(r["Name"] for r in once) == sorted(r["Name"] for r in plain)


def test_a_file_ends_inside_a_row_though_the_reply_is_whole(mount: Mount) -> None:
    org = mount()
    job = org.job("Account", names(300))
    org.info(job)
    plain = org.results(job, "successfulResults")
    org.app.faults.arm(Fault(kind="results_cut_bytes", at=1001))
    assert org.results(job, "successfulResults") == plain[:1001]
    assert org.effect is None


def test_errors_and_headers_come_in_odd_forms(mount: Mount) -> None:
    org = mount()
    _, bad = result_files(org, Fault(kind="results_error_newline"))
    assert '"CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY:\nMyTrigger' in bad
    good, bad = result_files(org, Fault(kind="results_header_case"))
    assert good.startswith('"sf__Id","sf__Created",name,note__c\n')
    assert bad.startswith('"sf__Id","sf__Error",name,note__c\n')
    good, _ = result_files(org, Fault(kind="results_extra_column"))
    assert good.startswith('"sf__Id","sf__Created",Name,Note__c,Unexpected__c\n') and good.endswith('"x"\n')


# Which calls are hit.


def test_calls_are_chosen_by_name_count_and_chance(mount: Mount) -> None:
    org = mount()
    down = org.app.faults.arm(Fault(kind="status", status=503, call="global_*", after=1, every=2, times=2))
    assert [org.api("GET", "/sobjects").status_code for _ in range(7)] == [200, 503, 200, 503, 200, 200, 200]
    assert org.api("GET", "/limits").status_code == 200
    assert armed(org) == [(7, 2)]
    org.app.faults.disarm(down)
    org.app.faults.clear()
    org.app.faults.arm(Fault(kind="status", status=503, chance=0.3, seed=4))
    seen = [org.api("GET", "/limits").status_code for _ in range(200)]
    assert 30 < seen.count(503) < 90
    org.app.faults.clear()
    org.app.faults.arm(Fault(kind="status", status=503, chance=0.3, seed=4))
    assert [org.api("GET", "/limits").status_code for _ in range(200)] == seen
    with pytest.raises(EmulatorError, match="none is armed with the id 9"):
        org.app.faults.disarm(9)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "needs a kind. Known: request_lost"),
        ({"kind": "gremlin"}, "unknown kind gremlin. Known: request_lost"),
        ({"kind": "status"}, "fault status: needs status"),
        ({"kind": "status", "status": 99}, "99 is no HTTP status"),
        ({"kind": "status", "status": "503"}, "status can't be '503'"),
        ({"kind": "status", "status": True}, "status can't be True"),
        ({"kind": "status", "status": 503, "retry_after": "1\r\nX: y"}, "retry_after goes into a header"),
        ({"kind": "status", "status": 400, "message": "\ud800"}, "lone surrogate"),
        ({"kind": "redirect", "location": "/é"}, "location goes into a header"),
        ({"kind": "slow", "second": 1}, "unknown key second. Known: after, at,"),
        ({"kind": "slow", "status": 503}, "fault slow: takes no status. It takes: seconds"),
        ({"kind": "slow", "seconds": float("nan")}, "seconds go from 0"),
        ({"kind": "hang", "seconds": 1e300}, "seconds go from 0"),
        ({"kind": "trickle", "bytes_per_s": 0}, "bytes_per_s must be more than 0"),
        ({"kind": "truncated", "at": -1}, "at can't be negative"),
        ({"kind": "request_lost", "every": 0}, "after from 0, every and times from 1"),
        ({"kind": "request_lost", "chance": 1.5}, "chance and share go from 0 to 1"),
        ({"kind": "job_stuck", "seconds": 1, "state": "Open"}, "state is UploadComplete or InProgress, not Open"),
        ({"kind": "rows"}, "needs a preset or a code"),
        ({"kind": "rows", "preset": "bad luck"}, "unknown preset bad luck. Known: validation_rule"),
        ({"kind": "rows", "preset": "lock", "ids": ["x"]}, "ids go with the preset duplicate_rule"),
        ({"kind": "rows", "preset": "lock", "fields": "Name"}, "fields can't be 'Name'"),
        ({"kind": "rows", "preset": "lock", "object": "Acount"}, "the org has no object Acount"),
        ({"kind": "rows", "preset": "lock", "object": "Account", "field": "Nme"}, "Account has no field Nme"),
        ({"kind": "record_edited", "object": "Account"}, "record_edited: needs changes"),
        ({"kind": "record_deleted", "object": "Account", "field": "Name", "value": "x"}, "Name finds no record"),
        ({"kind": "other_instance"}, "needs location"),
        ({"kind": "slow", "call": "ingest.uplod"}, "no call is named ingest.uplod. Named: collections.create"),
        ({"kind": "chaos", "kinds": ["other_org"]}, "no kind other_org. It has: request_lost"),
    ],
)
def test_a_fault_that_cannot_be_is_refused_by_name(mount: Mount, given: dict[str, Any], message: str) -> None:
    with pytest.raises(EmulatorError, match=message):
        mount().app.faults.arm_json(given)


def test_a_fault_reads_back_as_it_was_given(mount: Mount) -> None:
    given = {
        "kind": "rows", "call": "record.*", "chance": 0.5, "seed": 3, "times": 2, "preset": "duplicate_rule",
        "ids": ["003000000000001"], "fields": ["Name"], "whole_chunks": True,
    }  # fmt: skip
    assert from_json(given).json() == given
    org = mount()
    org.app.faults.arm_json(given)
    assert org.app.faults.armed() == [{"id": 1, **given, "matched": 0, "fired": 0}]


# Chaos.


def logged_in(reply: bytes, before: str) -> str:
    """The token of a login, where a fault left one."""
    try:
        found: str = json.loads(reply).get("access_token", before)
    except (ValueError, AttributeError):
        return before
    return found


class Replies:
    """A fixed script of calls, whatever they are answered; a digest of all the replies."""

    def __init__(self, org: Mounted) -> None:
        self._org = org
        self.digest = hashlib.sha256()

    def call(self, method: str, path: str, body: Any = None, **more: Any) -> Any:
        reply = self._org.api(method, path, body, **more)
        text = reply.get_data()
        head = [f"{k}: {v}" for k, v in reply.headers.items()]
        self.digest.update(repr((reply.status_code, head, text, self._org.effect)).encode())
        assert b"Traceback" not in text and b"stopped: its stderr" not in text
        try:
            return json.loads(text)
        except ValueError:
            return None

    def run(self, rows: int) -> str:
        org = self._org
        for number in range(3):
            org.token = logged_in(token(org).get_data(), org.token)
            self.call("GET", "/sobjects/Customer__c/describe")
            self.call("GET", "/query?q=SELECT+Id,Name+FROM+Customer__c+LIMIT+5")
            record = {"attributes": {"type": "Customer__c"}, "Name": "x", "Code__c": f"r{number}"}
            self.call("PATCH", "/composite/sobjects/Customer__c/Code__c", {"records": [record]})
            spec = {"object": "Customer__c", "operation": "upsert", "externalIdFieldName": "Code__c"}
            made = self.call("POST", "/jobs/ingest", spec)
            job = made.get("id", "750000000000000") if isinstance(made, dict) else "750000000000000"
            text = "Name,Code__c\n" + "".join(f"n{i},c{number}-{i}\n" for i in range(rows))
            self.call("PUT", f"/jobs/ingest/{job}/batches", data=text, headers={"Content-Type": "text/csv"})
            self.call("PATCH", f"/jobs/ingest/{job}", {"state": "UploadComplete"})
            for _ in range(6):
                org.clock.advance(30)
                self.call("GET", f"/jobs/ingest/{job}")
            for which in ("successfulResults", "failedResults", "unprocessedrecords"):
                self.call("GET", f"/jobs/ingest/{job}/{which}")
            self.call("GET", "/limits")
        return self.digest.hexdigest() + json.dumps(org.app.faults.armed()) + json.dumps(org.app.calls.latest())


def check_the_books(org: Mounted) -> None:
    """After the faults the org answers, its jobs add up, and what they say is written is there."""
    org.app.faults.clear()
    org.control("DELETE", "/limits")
    org.token = token(org).json["access_token"]
    org.clock.advance(27 * 3600)
    there = {r["Id"] for r in query_all(org, "SELECT Id FROM Customer__c")}
    for listed in org.get("/jobs/ingest")["records"]:
        info = org.info(listed["id"])
        if info["state"] not in ("JobComplete", "Failed", "Aborted") or info.get("errorMessage", "").startswith("Time"):
            continue
        files = {
            which: org.api("GET", f"/jobs/ingest/{info['id']}/{which}")
            for which in ("successfulResults", "failedResults", "unprocessedrecords")
        }
        if files["failedResults"].status_code == 404:  # a fault let them expire
            continue
        good, bad, rest = (max(0, f.get_data().count(b"\n") - 1) for f in files.values())
        if PRESETS["trigger"].message.encode() in files["failedResults"].get_data():
            bad = len(org.rows(info["id"], "failedResults"))
        assert (info["numberRecordsProcessed"], info["numberRecordsFailed"]) == (good + bad, bad)
        assert good + bad + rest in (0, ROWS)
        assert {r["sf__Id"] for r in org.rows(info["id"], "successfulResults")} <= there


def query_all(org: Mounted, soql: str) -> list[dict[str, Any]]:
    page = org.get(f"/query?q={soql.replace(' ', '+')}")
    records: list[dict[str, Any]] = page["records"]
    while not page["done"]:
        page = org.get(page["nextRecordsUrl"].partition("/v62.0")[2])
        records += page["records"]
    return records


ROWS = 450
# Without a quota every later call is refused: little else would be seen.
QUIET = tuple(k for k in by_chance() if k != "quota_gone")


@pytest.mark.parametrize("seed", range(20))
def test_chaos_is_the_same_for_a_seed_and_leaves_an_org_that_adds_up(
    mount: Mount, seed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    def run() -> tuple[str, Mounted]:
        org = mount(seed=1, pace=Pace(queue_s=20, batch_s=10))
        org.app.faults.chaos(seed, 0.25, kinds=QUIET)
        return Replies(org).run(ROWS), org

    first, org = run()
    assert run()[0] == first
    check_the_books(org)
    assert capsys.readouterr().err == ""


@pytest.mark.slow
def test_chaos_is_the_same_in_a_job_of_several_batches_and_differs_by_seed(mount: Mount) -> None:
    def run(seed: int) -> str:
        org = mount(seed=1, pace=Pace(batch_s=10))
        org.app.faults.chaos(seed, 0.2, kinds=("rows", "job_failed", "batch_retried", "results_shuffled"))
        return Replies(org).run(30_000)

    assert run(1) == run(1)
    assert run(2) != run(1)


def test_a_thread_that_works_on_jobs_does_not_change_which_calls_are_hit(mount: Mount) -> None:
    """The draws of calls and those of a job's rows are counted apart."""

    def run(*, job: bool) -> list[int]:
        org = mount(seed=1)
        faults, engine = org.app.faults, org.app.site.org
        faults.chaos(7, 0.3, kinds=("status", "rows"))
        seen = []
        for number in range(60):
            seen.append(org.api("GET", "/limits").status_code)
            if job:
                with faults.source("ingest.rows", 9, number * 10_000):
                    faults.refuse_rows(engine.prepare(org.app.site.records.table("Account"), [], 3), "insert")
        return seen

    assert run(job=True) == run(job=False)


@pytest.mark.slow
def test_every_kind_can_come_by_chaos_or_says_why_not(mount: Mount) -> None:
    assert set(KINDS) - set(by_chance()) == {
        "other_instance", "other_org", "record_edited", "record_deleted", "chaos",
    }  # fmt: skip
    org = mount(seed=1)
    for kind in by_chance():
        org.app.faults.clear()
        org.app.faults.chaos(3, 1.0, kinds=(kind,))
        Replies(org).run(3)
        assert org.app.faults.armed()[0]["fired"], kind
        org.control("DELETE", "/limits")
        org.app.faults.clear()
        org.token = token(org).json["access_token"]
