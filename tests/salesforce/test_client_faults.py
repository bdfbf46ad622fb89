"""The door's behaviour under transport faults: what is sent again, what is refused, what is unknown."""

import datetime as dt
import json
import logging
import random
import socket
import ssl
import threading
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

import pyarrow as pa
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given
from hypothesis import strategies as st

from dinmo_dbt import wire
from dinmo_dbt.destination import Api, Batch, Field, Operation, PayloadColumn, Remedy
from dinmo_dbt.errors import AuthError, DestinationError, LimitReached, NotApplied, OutcomeUnknown, ReadOnly, StateError
from dinmo_dbt.org import Credentials, Org, Secret, url_problem
from dinmo_dbt.salesforce import asking, attempt, connect, hosts, pauses
from dinmo_dbt.salesforce.errors import SalesforceRefusal
from dinmo_dbt.salesforce.lookup import literal

from .scripted_org import DATA, EXPIRED, LOST, ORG_ID, TOKEN, Answer, Server, token_reply

JOB = "750000000000001AAA"
BUSY = Answer(503, b"<html>Service Not Available</html>", {"Content-Type": "text/html"})
EXT = PayloadColumn("Ext__c", Field("Ext__c", "Ext", "string", external_id=True, unique=True))
NAME = PayloadColumn("Name", Field("Name", "Name", "string"))
ID = PayloadColumn("Id", Field("Id", "Id", "id"))
COLLECTIONS = "composite/sobjects"
DESCRIBE = {
    "name": "Thing__c",
    "label": "Thing",
    "createable": True,
    "updateable": True,
    "deletable": True,
    "custom": True,
    "fields": [{"name": "Name", "type": "string"}],
}


def batch_of(operation: Operation, names: list[str] | None = None) -> Batch:
    names = names or ["CANARY_VALUE"]
    if operation is Operation.DELETE:
        ids = pa.array([f"a00{n:012d}AAA" for n in range(len(names))])
        return Batch("b", operation, "Thing__c", Api.COLLECTIONS, (ID,), None, pa.table({"Id": ids}))
    rows = pa.table({"Ext__c": pa.array([str(n) for n in range(len(names))]), "Name": pa.array(names)})
    match = "Ext__c" if operation is Operation.UPSERT else None
    return Batch("b", operation, "Thing__c", Api.COLLECTIONS, (EXT, NAME), match, rows)


def items(count: int = 1) -> Answer:
    return Answer(200, [{"id": f"a00{n:012d}AAA", "success": True, "errors": []} for n in range(count)])


@pytest.fixture
def destination(server, connected):
    server.on("GET", "sobjects/Thing__c/describe", Answer(200, DESCRIBE))
    return connected()


@pytest.mark.parametrize("fault", [LOST, BUSY, Answer(500), Answer(420), Answer(200, b'{"id": "75'), Answer(429)])
def test_a_read_is_repeated_until_a_whole_reply_comes(server, destination, naps, fault):
    server.on("GET", f"jobs/ingest/{JOB}", fault, fault, Answer(200, {"id": JOB, "state": "Open"}))
    assert destination.job(JOB).is_open
    assert len(server.asked("GET", f"jobs/ingest/{JOB}")) == 3
    assert len(naps) == 2


def test_a_read_gives_up_at_its_bound_and_knows_that_nothing_was_applied(server, destination, naps):
    server.on("GET", f"jobs/ingest/{JOB}", BUSY)
    with pytest.raises(NotApplied, match="DB607"):
        destination.job(JOB)
    assert len(server.asked("GET", f"jobs/ingest/{JOB}")) == pauses.ATTEMPTS_MAX
    assert all(nap <= pauses.BACKOFF_MAX_S for nap in naps)


def test_a_reply_cut_short_is_not_a_reply(server, destination):
    whole = {"id": JOB, "state": "JobComplete", "numberRecordsProcessed": 7}
    server.on("GET", f"jobs/ingest/{JOB}", Answer(200, whole, cut=20), Answer(200, whole))
    assert destination.job(JOB).processed == 7


JOB_OPEN = {"id": JOB, "state": "Open"}
TRICKLE = Answer(200, JOB_OPEN, pause_s=0.02)  # 0.7 s in all


def test_a_reply_that_trickles_ends_at_the_deadline_of_its_attempt(server, destination, monkeypatch):
    monkeypatch.setattr(attempt, "JSON_SECONDS_MAX", 0.1)
    server.on("GET", f"jobs/ingest/{JOB}", TRICKLE, Answer(200, JOB_OPEN))
    assert destination.job(JOB).is_open
    assert len(server.asked("GET", f"jobs/ingest/{JOB}")) == 2


def test_a_trickling_reply_to_an_insert_leaves_its_outcome_unknown(server, destination, monkeypatch):
    monkeypatch.setattr(attempt, "JSON_SECONDS_MAX", 0.1)
    server.on("POST", COLLECTIONS, Answer(200, items().body, pause_s=0.02))
    with pytest.raises(OutcomeUnknown, match=r"not done within 0.1 seconds"):
        destination.send(batch_of(Operation.INSERT))
    assert len(server.asked("POST", COLLECTIONS)) == 1


def test_a_refusal_is_definite_by_its_status_even_if_its_words_trickle(server, destination, monkeypatch):
    monkeypatch.setattr(attempt, "JSON_SECONDS_MAX", 0.1)
    server.on("POST", COLLECTIONS, Answer(400, [{"errorCode": "INVALID_FIELD", "message": "x" * 99}], pause_s=0.02))
    with pytest.raises(SalesforceRefusal, match="HTTP 400"):
        destination.send(batch_of(Operation.INSERT))


def test_an_upload_that_is_taken_sip_by_sip_ends_at_its_deadline(server, destination, monkeypatch):
    monkeypatch.setattr(attempt, "FILE_SECONDS_MAX", 0.2)
    server.on("PUT", f"jobs/ingest/{JOB}/batches", Answer(201))
    server.sip_s = 0.05
    with pytest.raises(NotApplied, match=r"not done within 0.2 seconds"):
        destination.upload(JOB, batch_of(Operation.INSERT, ["x" * 100_000] * 300))
    assert server.asked("PUT", f"jobs/ingest/{JOB}/batches") == []


def test_a_slow_but_steady_file_is_read_whole(server, destination, monkeypatch):
    monkeypatch.setattr(attempt, "JSON_SECONDS_MAX", 0.1)
    server.on("GET", "sobjects/Thing__c/describe", Answer(200, DESCRIBE))
    listed = Answer(200, b"sf__Id,sf__Created,Ext__c,Name\n", pause_s=0.01)
    for kind in ("successfulResults", "failedResults", "unprocessedrecords"):
        server.on("GET", f"jobs/ingest/{JOB}/{kind}", listed)
    server.on("GET", f"jobs/ingest/{JOB}", Answer(200, {"id": JOB, "state": "Aborted", "numberRecordsProcessed": 0}))
    destination.results(JOB, batch_of(Operation.INSERT))
    assert server.asked("GET", f"jobs/ingest/{JOB}/successfulResults")


def test_retry_after_as_a_date_counts_from_the_replys_own_clock(server, destination, naps):
    dates = {"Retry-After": "Fri, 31 Dec 1999 23:59:59 GMT", "Date": "Fri, 31 Dec 1999 23:59:50 GMT"}
    far = {"Retry-After": "Fri, 31 Dec 9999 23:59:59 GMT", "Date": "Fri, 31 Dec 1999 23:59:50 GMT"}
    past = {"Retry-After": "Fri, 31 Dec 1999 23:59:50 GMT", "Date": "Fri, 31 Dec 1999 23:59:59 GMT"}
    busy = [Answer(503, None, headers) for headers in (dates, far, past)]
    server.on("GET", f"jobs/ingest/{JOB}", *busy, Answer(200, JOB_OPEN))
    destination.job(JOB)
    assert 9 <= naps[0] <= 9.5
    assert pauses.RETRY_AFTER_MAX_S <= naps[1] <= pauses.RETRY_AFTER_MAX_S + 1
    assert naps[2] <= 2


@pytest.mark.parametrize("header", ["soon", "-5", "1e9", "9" * 400, "Fri, 99 Foo 0000", "1.5"])
def test_a_retry_after_that_says_nothing_still_says_that_the_answer_is_definite(server, destination, naps, header):
    server.on("POST", COLLECTIONS, Answer(503, None, {"Retry-After": header}), items())
    destination.send(batch_of(Operation.INSERT))
    assert len(server.asked("POST", COLLECTIONS)) == 2, "an insert is sent again only where it surely did nothing"
    assert naps[0] <= pauses.BACKOFF_BASE_S


@pytest.mark.parametrize("status", [500, 503])
def test_a_read_only_org_is_reported_at_once_and_nothing_of_the_call_was_done(server, destination, status):
    code = "INSERT_UPDATE_DELETE_NOT_ALLOWED_DURING_MAINTENANCE"
    server.on("POST", COLLECTIONS, Answer(status, [{"errorCode": code, "message": "read-only"}], {"Retry-After": "9"}))
    with pytest.raises(ReadOnly, match="DB612") as caught:
        destination.send(batch_of(Operation.INSERT))
    assert "maintenance" in caught.value.problems[0].hint
    assert len(server.asked("POST", COLLECTIONS)) == 1


def test_retry_after_is_honoured_within_a_cap(server, destination, naps):
    slow = Answer(429, None, {"Retry-After": "7"})
    slower = Answer(503, None, {"Retry-After": "86400"})
    server.on("GET", f"jobs/ingest/{JOB}", slow, slower, Answer(200, {"id": JOB, "state": "Open"}))
    destination.job(JOB)
    assert 7 <= naps[0] <= 7.5
    assert pauses.RETRY_AFTER_MAX_S <= naps[1] <= pauses.RETRY_AFTER_MAX_S + 1


@pytest.mark.parametrize("fault", [LOST, BUSY, Answer(502), Answer(200, b"[{"), Answer(200, [])])
def test_an_insert_without_a_whole_reply_is_unknown_and_never_sent_twice(server, destination, fault):
    server.on("POST", COLLECTIONS, fault, items())
    with pytest.raises(OutcomeUnknown, match="DB608"):
        destination.send(batch_of(Operation.INSERT))
    assert len(server.asked("POST", COLLECTIONS)) == 1


@pytest.mark.parametrize(
    "refusal",
    [
        Answer(429, None, {"Retry-After": "1"}),
        Answer(503, [{"errorCode": "SERVER_UNAVAILABLE", "message": "Server too busy"}]),
    ],
)
def test_an_insert_refused_at_the_door_is_sent_again(server, destination, refusal):
    server.on("POST", COLLECTIONS, refusal, items())
    assert destination.send(batch_of(Operation.INSERT)).column("fate").to_pylist() == ["succeeded"]
    assert len(server.asked("POST", COLLECTIONS)) == 2


@pytest.mark.parametrize("operation", [Operation.UPSERT, Operation.UPDATE, Operation.DELETE])
def test_what_may_be_repeated_is(server, destination, operation):
    method = "DELETE" if operation is Operation.DELETE else "PATCH"
    path = COLLECTIONS + ("/Thing__c/Ext__c" if operation is Operation.UPSERT else "")
    server.on(method, path, LOST, Answer(200, [{}, {}]), items())
    assert destination.send(batch_of(operation)).column("fate").to_pylist() == ["succeeded"]


def test_each_repeat_asks_first_whether_it_may_still_be_sent(server, destination):
    asked = []

    def before():
        asked.append(len(server.asked("PATCH", COLLECTIONS)))
        if len(asked) == 3:
            raise StateError("DB503", "another run took over")

    server.on("PATCH", COLLECTIONS, LOST, LOST, items())
    with pytest.raises(StateError):
        destination.send(batch_of(Operation.UPDATE), before)
    assert asked == [0, 1, 2]
    assert len(server.asked("PATCH", COLLECTIONS)) == 2


def test_a_refusal_after_a_lost_reply_does_not_make_the_first_attempt_undone(server, destination):
    refused = Answer(400, [{"errorCode": "INVALID_FIELD", "message": "x"}])
    server.on("PATCH", COLLECTIONS, LOST, refused)
    with pytest.raises(OutcomeUnknown):
        destination.send(batch_of(Operation.UPDATE))
    server.on("PATCH", COLLECTIONS, refused)
    with pytest.raises(SalesforceRefusal) as caught:
        destination.send(batch_of(Operation.UPDATE))
    assert isinstance(caught.value, NotApplied)


def test_an_upload_is_not_repeated_after_a_doubt(server, destination):
    server.on("PUT", f"jobs/ingest/{JOB}/batches", LOST, Answer(201))
    with pytest.raises(NotApplied) as caught:
        destination.upload(JOB, batch_of(Operation.INSERT))
    assert not isinstance(caught.value, OutcomeUnknown)
    assert len(server.asked("PUT", f"jobs/ingest/{JOB}/batches")) == 1


def test_an_upload_has_a_length_a_charset_and_no_compression(server, destination, tmp_path):
    server.on("PUT", f"jobs/ingest/{JOB}/batches", Answer(201))
    destination.upload(JOB, batch_of(Operation.INSERT, ["é"]))
    sent = server.asked("PUT", f"jobs/ingest/{JOB}/batches")[0]
    assert sent.body == '"Ext__c","Name"\n"0","é"\n'.encode()
    assert sent.headers["Content-Type"] == "text/csv; charset=UTF-8"
    assert sent.headers["Content-Length"] == str(len(sent.body))
    assert "Transfer-Encoding" not in sent.headers and "Content-Encoding" not in sent.headers
    assert list(tmp_path.iterdir()) == []


def test_an_expired_session_is_renewed_once_and_the_upload_starts_over(server, connected):
    server.on("POST", "/services/oauth2/token", token_reply(server, "first"), token_reply(server, "second"))
    destination = connected(renewable=True)
    server.on("PUT", f"jobs/ingest/{JOB}/batches", EXPIRED, Answer(201))
    destination.upload(JOB, batch_of(Operation.INSERT))
    first, second = server.asked("PUT", f"jobs/ingest/{JOB}/batches")
    assert first.body == second.body and first.body
    assert [s.headers["Authorization"] for s in (first, second)] == ["Bearer first", "Bearer second"]


def test_a_session_refused_for_ever_ends_the_run(server, connected):
    server.on("POST", "/services/oauth2/token", token_reply(server))
    destination = connected(renewable=True)
    server.on("GET", f"jobs/ingest/{JOB}", EXPIRED)
    with pytest.raises(AuthError, match="DB604"):
        destination.job(JOB)
    assert len(server.asked("GET", f"jobs/ingest/{JOB}")) == 2
    assert len(server.asked("POST", "/services/oauth2/token")) == 2


def test_an_access_token_can_not_be_renewed(server, destination):
    server.on("GET", f"jobs/ingest/{JOB}", EXPIRED)
    with pytest.raises(AuthError, match="can't renew"):
        destination.job(JOB)


def test_a_renewed_session_of_another_org_sends_nothing(server, connected):
    answers = token_reply(server), token_reply(server, org_id="00D000000000002EAA")
    server.on("POST", "/services/oauth2/token", *answers)
    destination = connected(renewable=True)
    server.on("POST", COLLECTIONS, EXPIRED, items())
    server.on("GET", "sobjects/Thing__c/describe", Answer(200, DESCRIBE))
    for _ in range(2):  # whoever passes over it once, as the abort of a job does, meets it again
        with pytest.raises(AuthError, match="DB602"):
            destination.send(batch_of(Operation.INSERT))
    assert len(server.asked("POST", COLLECTIONS)) == 1


def test_a_redirect_is_refused_and_the_other_host_hears_nothing(server, other_server, destination):
    server.on("GET", f"jobs/ingest/{JOB}", Answer(302, None, {"Location": other_server.url + "/x"}))
    with pytest.raises(NotApplied, match="DB605"):
        destination.job(JOB)
    assert other_server.seen == []


@pytest.mark.parametrize(
    "place", ["https://evil.example/services/data/v62.0/query/x", "//evil/x", "/services/data/v62.0/../x", "/x", None]
)
def test_a_next_page_elsewhere_is_refused(server, destination, place):
    page = {"totalSize": 2, "done": False, "records": [], "nextRecordsUrl": place}
    server.on("GET", "query", Answer(200, page))
    with pytest.raises(DestinationError, match="DB603"):
        destination.has_records("Thing__c")
    assert len(server.seen) == 2


def test_limits_are_read_on_every_reply_and_the_share_is_kept(server, connected):
    server.on("GET", f"jobs/ingest/{JOB}", Answer(200, {"id": JOB, "state": "Open"}, {"Sforce-Limit-Info": USAGE}))
    destination = connected(api_share=80)
    destination.job(JOB)
    assert (destination.usage.used, destination.usage.limit) == (800, 1000)
    calls = destination.calls
    with pytest.raises(LimitReached, match="api_share"):
        destination.job(JOB)
    assert destination.calls == calls == len(server.seen)


USAGE = "api-usage=800/1000; per-app-api-usage=17/250(appName=sample)"


def test_a_limit_answer_stops_at_once(server, destination):
    limit = Answer(403, [{"message": "TotalRequests Limit exceeded.", "errorCode": "REQUEST_LIMIT_EXCEEDED"}])
    server.on("POST", COLLECTIONS, limit)
    with pytest.raises(LimitReached):
        destination.send(batch_of(Operation.INSERT))
    assert len(server.asked("POST", COLLECTIONS)) == 1


def test_too_many_requests_at_once_is_waited_for(server, destination):
    text = "ConcurrentRequests (Concurrent API Requests) Limit exceeded."
    limit = Answer(403, [{"message": text, "errorCode": "REQUEST_LIMIT_EXCEEDED"}])
    server.on("GET", f"jobs/ingest/{JOB}", limit, Answer(200, {"id": JOB, "state": "Open"}))
    assert destination.job(JOB) is not None


def test_a_row_that_can_not_be_parsed_is_found_by_halving(server, destination):
    refused = Answer(400, [{"errorCode": "JSON_PARSER_ERROR", "message": "value CANARY_VALUE at line 1"}])
    server.on("PATCH", COLLECTIONS, refused, items(2), refused, items(1), refused)
    rows = destination.send(batch_of(Operation.UPDATE, ["a", "b", "c", "d"])).to_pylist()
    assert [row["fate"] for row in rows] == ["succeeded", "succeeded", "succeeded", "rejected"]
    assert rows[3]["code"] == "JSON_PARSER_ERROR"


def test_collections_errors_are_reported_by_position(server, destination):
    error = {"statusCode": "STRING_TOO_LONG", "message": "Name: too large", "fields": ["Name"]}
    fine = {"id": "a00000000000001AAA", "success": True, "errors": [], "created": True}
    server.on("PATCH", COLLECTIONS + "/Thing__c/Ext__c", Answer(200, [{"success": False, "errors": [error]}, fine]))
    rows = destination.send(batch_of(Operation.UPSERT, ["a", "b"])).to_pylist()
    assert (rows[0]["fate"], rows[0]["code"], rows[0]["fields"]) == ("rejected", "STRING_TOO_LONG", "Name")
    assert (rows[1]["fate"], rows[1]["created"], rows[1]["record_id"]) == ("succeeded", True, "a00000000000001AAA")


def test_a_close_whose_reply_was_lost_is_asked_about(server, destination):
    closed = Answer(400, [{"errorCode": "INVALIDJOBSTATE", "message": "not open"}])
    server.on("PATCH", f"jobs/ingest/{JOB}", closed)
    server.on("GET", f"jobs/ingest/{JOB}", Answer(200, {"id": JOB, "state": "InProgress"}))
    destination.close(JOB)
    server.on("GET", f"jobs/ingest/{JOB}", Answer(200, {"id": JOB, "state": "Aborted"}))
    with pytest.raises(NotApplied):
        destination.close(JOB)
    destination.abort(JOB)
    server.on("PATCH", f"jobs/ingest/{JOB}", LOST)
    with pytest.raises(OutcomeUnknown):
        destination.close(JOB)


def test_short_result_files_are_read_again_and_then_unknown(server, destination, naps):
    done = {"id": JOB, "state": "JobComplete", "numberRecordsProcessed": 2, "numberRecordsFailed": 0}
    server.on("GET", f"jobs/ingest/{JOB}", Answer(200, done))
    header = b'"sf__Id","sf__Created",Ext__c,Name\n'
    one = header + b'"a00000000000001AAA","true","0","a"\n'
    two = one + b'"a00000000000002AAA","true","1","b"\n'
    path = f"jobs/ingest/{JOB}/"
    server.on("GET", path + "successfulResults", Answer(200, two[:-1]), Answer(200, one), Answer(200, two))
    server.on("GET", path + "failedResults", Answer(204))
    server.on("GET", path + "unprocessedrecords", Answer(200, b"Ext__c,Name\n"))
    batch = batch_of(Operation.INSERT, ["a", "b"])
    assert destination.results(JOB, batch).column("fate").to_pylist() == ["succeeded", "succeeded"]
    server.on("GET", path + "successfulResults", Answer(200, one))
    with pytest.raises(OutcomeUnknown, match="DB610"):
        destination.results(JOB, batch)


def test_an_upload_that_never_landed_holds_every_row(server, destination):
    server.on("GET", f"jobs/ingest/{JOB}", Answer(200, {"id": JOB, "state": "Aborted"}))
    for name in ("successfulResults", "failedResults", "unprocessedrecords"):
        server.on("GET", f"jobs/ingest/{JOB}/{name}", Answer(200, b""))
    rows = destination.results(JOB, batch_of(Operation.INSERT, ["a", "b"])).to_pylist()
    assert [(r["fate"], r["code"]) for r in rows] == [("held", "UNPROCESSED")] * 2


def test_the_destination_knows_what_may_pass_later(destination):
    assert destination.diagnose("UNABLE_TO_LOCK_ROW", "").remedy is Remedy.AGAIN
    assert destination.diagnose("STRING_TOO_LONG", "").remedy is Remedy.CHANGE
    rows = pa.table({"Name": ["a", "a ", "a", "b"]})
    assert destination.job_slots(rows, (NAME,)).tolist() in ([0, 1, 0, 0], [1, 0, 1, 0])


def test_a_forgotten_job_is_none_and_so_are_its_results(server, destination):
    assert destination.job(JOB) is None
    destination.abort(JOB)
    assert destination.results(JOB, batch_of(Operation.INSERT)) is None


def test_no_message_and_no_log_holds_a_token_a_secret_or_a_row_value(server, connected, caplog):
    caplog.set_level(logging.DEBUG)
    server.on("POST", "/services/oauth2/token", token_reply(server))
    server.on("GET", "sobjects/Thing__c/describe", Answer(200, DESCRIBE))
    destination = connected(renewable=True)
    echo = [{"errorCode": "INVALID_FIELD", "message": f"CANARY_VALUE {TOKEN} CANARY_SECRET"}]
    told = []
    for answer in (Answer(400, echo), Answer(500, echo), LOST, BUSY, EXPIRED, Answer(200, b"CANARY_VALUE")):
        server.on("PATCH", COLLECTIONS, answer)
        with pytest.raises(DestinationError) as caught:
            destination.send(batch_of(Operation.UPDATE))
        told += [str(caught.value), repr(caught.value), str(caught.value.__cause__)]
    field = Field("Name", "Name", "string")
    server.on("GET", "query", Answer(400, [{"errorCode": "MALFORMED_QUERY", "message": "near CANARY_VALUE"}]))
    with pytest.raises(DestinationError) as caught:
        destination.lookup("Thing__c", field, pa.array(["CANARY_VALUE"]))
    told.append(str(caught.value))
    assert "CANARY" not in "".join(told)
    assert "CANARY" not in caplog.text


def test_the_session_takes_no_proxy_or_netrc_from_the_environment(monkeypatch, connected, tmp_path):
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login a password b\n")
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", "")
    assert connected().org_id == ORG_ID


def test_a_netrc_never_replaces_our_header_even_with_the_environment_trusted(monkeypatch, server, tmp_path, naps):
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login a password b\n")
    monkeypatch.setenv("NETRC", str(netrc))
    credentials = Credentials("access_token", instance_url=server.url, access_token=Secret(TOKEN))
    org = Org("crm", "dev", credentials)
    connect(org, scratch=tmp_path, sleep=naps.append, rng=random.Random(1), now=lambda: 0.0, trust_env=True)
    assert {seen.headers["Authorization"] for seen in server.seen} == {f"Bearer {TOKEN}"}


def test_a_cookie_is_never_sent_back(server, connected):
    server.on("GET", f"jobs/ingest/{JOB}", Answer(200, {"id": JOB, "state": "Open"}, {"Set-Cookie": "a=b; Path=/"}))
    destination = connected()
    destination.job(JOB)
    destination.job(JOB)
    assert [seen.headers.get("Cookie") for seen in server.asked("GET", f"jobs/ingest/{JOB}")] == [None, None]


def test_many_threads_renew_an_expired_session_once(server, connected):
    server.on("POST", "/services/oauth2/token", token_reply(server, "first"), token_reply(server, "second"))
    destination = connected(renewable=True)
    server.refuses_token = "first"
    server.on("GET", f"jobs/ingest/{JOB}", Answer(200, {"id": JOB, "state": "Open"}))
    with ThreadPoolExecutor(8) as threads:
        jobs = list(threads.map(lambda _: destination.job(JOB), range(16)))
    assert all(job.is_open for job in jobs)
    assert len(server.asked("POST", "/services/oauth2/token")) == 2


@pytest.fixture
def secure(tmp_path):
    certificate, key = self_signed(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    secure = Server(context)
    yield secure
    secure.close()


@pytest.fixture
def reach(secure, tmp_path, naps):
    def reach(ca_file=None, **env):
        credentials = Credentials("access_token", instance_url=secure.url, access_token=Secret(TOKEN))
        return connect(
            Org("crm", "dev", credentials, ca_file=ca_file),
            scratch=tmp_path,
            sleep=naps.append,
            rng=random.Random(1),
            now=float,
            env=env,
        )

    return reach


def test_an_untrusted_certificate_is_refused_before_anything_is_sent(secure, reach, naps):
    with pytest.raises(NotApplied, match="certificate") as caught:
        reach()
    assert "ca_file" in str(caught.value) and "REQUESTS_CA_BUNDLE" in str(caught.value)
    assert secure.seen == [] and naps == []


@pytest.mark.parametrize(
    ("host", "start", "days", "wrong"),
    [
        ("other.example", 2020, 36500, "is for another host"),
        ("localhost", 2020, 30, "has expired"),
        ("localhost", 2090, 3650, "is not valid yet"),
    ],
)
def test_a_certificate_that_is_wrong_itself_is_named_as_such(tmp_path, naps, host, start, days, wrong):
    certificate, key = self_signed(tmp_path, host, start, days)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = Server(context)
    who = Credentials("access_token", instance_url=server.url, access_token=Secret(TOKEN))
    try:
        with pytest.raises(NotApplied, match=rf"DB603.*{wrong}") as caught:
            connect(Org("crm", "dev", who, ca_file=certificate), scratch=tmp_path, sleep=naps.append,
                    rng=random.Random(1), now=float)  # fmt: skip
        assert "ca_file" not in str(caught.value), "its authority is trusted already"
        assert server.seen == [] and naps == []
    finally:
        server.close()


def test_no_connection_says_what_may_be_in_the_way(monkeypatch, tmp_path, naps):
    def refused():
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 1))]

    name_look_ups(monkeypatch, refused)
    with pytest.raises(AuthError, match=r"DB607.*no connection") as caught:
        away(tmp_path, naps)
    assert "firewall" in str(caught.value) and "PROXY" not in str(caught.value)
    with pytest.raises(AuthError, match="HTTPS_PROXY is set, and not used"):
        away(tmp_path, naps, HTTPS_PROXY="http://10.0.0.1:3128")
    here = Credentials("access_token", instance_url="http://127.0.0.1:1", access_token=Secret(TOKEN))
    with pytest.raises(AuthError, match="emulator serve"):
        connect(Org("crm", "dev", here), scratch=tmp_path, sleep=naps.append, rng=random.Random(1), now=float)


def test_a_page_in_the_place_of_an_answer_points_at_a_proxy(server, destination):
    server.on("GET", "limits", Answer(403, b"<html>Blocked CANARY</html>", {"Content-Type": "text/html"}))
    with pytest.raises(DestinationError, match=r"DB606.*HTTP 403") as caught:
        destination.try_api()
    assert "proxy on the way" in str(caught.value) and "CANARY" not in str(caught.value)


def test_an_authority_that_is_named_is_trusted_in_place_of_the_usual_ones(secure, reach, tmp_path):
    mine = tmp_path / "c.pem"
    assert reach(mine).org_id == ORG_ID
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
        assert reach(**{name: str(mine)}).org_id == ORG_ID, name
    (tmp_path / "other").mkdir()
    other, _ = self_signed(tmp_path / "other")
    seen = len(secure.seen)
    with pytest.raises(NotApplied, match="not trusted"):
        reach(other, REQUESTS_CA_BUNDLE=str(mine))
    assert len(secure.seen) == seen, "the destination's own counts"


@pytest.mark.parametrize("content", [None, b"", b"no certificate"])
def test_a_file_of_no_certificates_is_named_and_nothing_is_sent(secure, reach, tmp_path, content):
    bad = tmp_path / "bad.pem"
    if content is not None:
        bad.write_bytes(content)
    for named, source in (((bad,), {}), ((), {"SSL_CERT_FILE": str(bad)})):
        with pytest.raises(AuthError, match="DB603") as caught:
            reach(*named, **source)
        assert str(bad) in str(caught.value) and next(iter(source), "ca_file") in str(caught.value)
    assert secure.seen == []


def name_look_ups(monkeypatch, answer):
    asked = []

    def look_up(host, *_, **__):
        asked.append(host)
        return answer()

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return asked


def away(tmp_path, naps, **env):
    who = Credentials(
        "client_credentials", "https://nowhere.my.salesforce.com", client_id="a", client_secret=Secret("b")
    )
    return connect(
        Org("crm", "dev", who), scratch=tmp_path, sleep=naps.append, rng=random.Random(1), now=float, env=env
    )


def test_a_host_without_a_name_ends_the_login_soon_with_a_way_out(monkeypatch, tmp_path, naps):
    def unknown():
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    asked = name_look_ups(monkeypatch, unknown)
    with pytest.raises(AuthError, match="DB607") as caught:
        away(tmp_path, naps)
    assert "Setup -> My Domain" in str(caught.value) and "nowhere.my.salesforce.com" in str(caught.value)
    assert len(asked) == asking.NAME_ATTEMPTS_MAX
    # The last look-up begins, after its pause, at the latest then, and takes that long.
    longest_pause = pauses.BACKOFF_BASE_S * 2 ** (asking.NAME_ATTEMPTS_MAX - 2)
    assert asking.NAME_AGAIN_WITHIN_S + longest_pause + wire.LOOKUP_SECONDS_MAX < 10


def test_a_look_up_that_hangs_is_not_waited_for(monkeypatch, tmp_path, naps):
    gate = threading.Event()
    asked = name_look_ups(monkeypatch, lambda: gate.wait() and [])
    monkeypatch.setattr(wire, "LOOKUP_SECONDS_MAX", 0.05)
    monkeypatch.setattr(asking, "NAME_AGAIN_WITHIN_S", 0.01)
    try:
        with pytest.raises(AuthError, match="can't be found"):
            away(tmp_path, naps)
        assert len(asked) == 1
    finally:
        gate.set()


def self_signed(folder, host="localhost", year=2020, days=36500):
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, host)])
    start = dt.datetime(year, 1, 1, tzinfo=dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(start)
        .not_valid_after(start + dt.timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    plain = serialization.NoEncryption()
    (folder / "c.pem").write_bytes(certificate.public_bytes(pem))
    (folder / "k.pem").write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
    return folder / "c.pem", folder / "k.pem"


@given(st.text())
def test_a_soql_text_literal_can_not_be_left_and_reads_back(text):
    quoted = literal(text, Field("Name", "Name", "string"))
    assert quoted[0] == quoted[-1] == "'"
    plain, rest = [], iter(quoted[1:-1])
    for letter in rest:
        assert letter != "'" and letter not in "\n\r"
        plain.append(
            {"n": "\n", "r": "\r", "t": "\t", "b": "\b", "f": "\f"}.get(x := next(rest), x)
            if letter == "\\"
            else letter
        )
    assert "".join(plain) == text


@pytest.mark.parametrize("name", ["Thing__c WHERE Id != null", "../limits", "", "a" * 200, "x'y", "Thing\n"])
def test_a_name_that_is_none_never_reaches_a_query(server, destination, name):
    asked = len(server.seen)
    with pytest.raises(NotApplied, match="DB301"):
        destination.has_records(name)
    with pytest.raises(NotApplied, match="DB301"):
        destination.lookup("Thing__c", Field(name, "x", "string"), pa.array(["a"]))
    assert len(server.seen) == asked


@pytest.mark.parametrize(
    "url",
    [
        "https://evil-salesforce.com",
        "https://evilmy.salesforce.com",
        "https://my.salesforce.com.evil.io",
        "https://salesforce.com.evil.io",
        "https://acme.my.salesforce.com@evil.io",
        "https://@acme.my.salesforce.com",
        "https://user:pw@acme.my.salesforce.com",
        "https://evil.io\\.my.salesforce.com",
        "https://evil.io#.my.salesforce.com",
        "https://evil.io?.my.salesforce.com",
        "http://acme.my.salesforce.com",
        "http://login.salesforce.com",
        "https://acme.my.salesforce.com:8443",
        "https://acme.my.salesforce.com.",
        "https://acme.my\u3002salesforce.com",
        "https://acme\uff0emy.salesforce.com",
        "https://acme.my.salesforce\u2024com",
        "https://аcme.my.salesforce.com",
        "https://xn--cme-5cd.my.salesforce.com.evil.io",
        "https://169.254.169.254",
        "https://127.0.0.2",
        "https://127.1",
        "https://0.0.0.0",
        "https://2130706433",
        "http://0x7f.1",
        "https://[::ffff:10.0.0.1]",
        "https://[::ffff:127.0.0.1]",
        "https://[fe80::1%25eth0]",
        "https://salesforce.com",
        "https://my.salesforce.com",
        "https://localhost.evil.io",
        "https://acme.net",
        "ftp://localhost",
        "file:///etc/passwd",
        "//acme.my.salesforce.com",
        "acme.my.salesforce.com",
        "javascript:alert(1)",
        "",
        "https://",
        "https://[",
        "https://acme.my.salesforce.com:99999",
    ],
)
def test_no_secret_goes_to_a_host_that_is_not_salesforce(url):
    with pytest.raises(AuthError, match="DB603"):
        hosts.checked_url(url, allowed_hosts=("*.acme.net",))
    assert url_problem(url, ("*.acme.net",)), "and dinmo.yml refuses it as well"


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://Acme.my.salesforce.com/", "https://acme.my.salesforce.com"),
        ("https://login.salesforce.com", "https://login.salesforce.com"),
        ("https://acme--dev.sandbox.my.salesforce.com/x", "https://acme--dev.sandbox.my.salesforce.com"),
        ("https://acme.my.salesforce.mil", "https://acme.my.salesforce.mil"),
        ("http://127.0.0.1:8911/", "http://127.0.0.1:8911"),
        ("http://localhost:8911", "http://localhost:8911"),
        ("http://[::1]:8911", "http://[::1]:8911"),
    ],
)
def test_salesforce_and_loopback_hosts_are_taken(url, origin):
    assert hosts.checked_url(url) == origin


def test_a_host_that_dinmo_yml_allows_is_taken_at_login_too():
    for url in ("https://proxy.acme.net", "https://sf.acme.io"):
        assert url_problem(url, ("*.acme.net", "sf.acme.io")) == ""
        assert hosts.checked_url(url, allowed_hosts=("*.acme.net", "sf.acme.io")) == url


def test_a_local_org_may_not_name_a_real_one_nor_the_reverse():
    with pytest.raises(AuthError):
        hosts.checked_url("https://acme.my.salesforce.com", like="http://127.0.0.1:1")
    with pytest.raises(AuthError):
        hosts.checked_url("http://127.0.0.1:1", like="https://acme.my.salesforce.com")


def test_soql_is_cut_to_the_uri_limit_and_every_value_is_asked(server, destination):
    server.on("GET", "query", Answer(200, {"totalSize": 0, "done": True, "records": []}))
    field = Field("Ext__c", "Ext", "string")
    asked = pa.array([f"é'\\\n{n}" for n in range(2000)])
    found = destination.lookup("Thing__c", field, asked)
    assert found.num_rows == 0 and found.schema.names == ["value", "record_id"]
    calls = server.asked("GET", "query")
    assert len(calls) > 1 and all(len(call.path) < 13_000 and "+" not in call.path for call in calls)


def test_looked_up_values_come_back_in_their_canonical_type(server, destination):
    record = {"attributes": {"type": "Thing__c"}, "Id": "a00000000000001AAA", "Code__c": 912260031.0}
    page = {"totalSize": 1, "done": False, "records": [record], "nextRecordsUrl": DATA + "query/01g000-2000"}
    server.on("GET", "query", Answer(200, page))
    server.on("GET", "query/01g000-2000", Answer(200, {"totalSize": 1, "done": True, "records": []}))
    found = destination.lookup(
        "Thing__c", Field("Code__c", "Code", "double"), pa.array([Decimal(912260031)], pa.decimal128(38, 18))
    )
    assert found.to_pylist() == [{"value": Decimal("912260031").quantize(Decimal("1e-18")), "record_id": record["Id"]}]
    assert "IN%20%28912260031%29" in server.asked("GET", "query")[0].path


@pytest.mark.parametrize("total", [1, 3, 2_001])
def test_a_query_that_withholds_records_is_no_answer(server, destination, total):
    """Else a look-up finds no record where there is one, and an object that holds records looks empty."""
    server.on("GET", "query", Answer(200, {"totalSize": total, "done": True, "records": []}))
    for ask in (
        lambda: destination.has_records("Thing__c"),
        lambda: destination.lookup("Thing__c", Field("Ext__c", "Ext", "string"), pa.array(["a"])),
    ):
        with pytest.raises(NotApplied, match=f"DB610.*found {total:,} records, and its reply holds 0"):
            ask()


def test_many_values_are_asked_by_one_bulk_query_job(server, destination, naps):
    query_job = "jobs/query/750000000000009AAA"
    begun = {"id": "750000000000009AAA", "state": "UploadComplete"}
    server.on("POST", "jobs/query", Answer(200, begun))
    server.on("GET", query_job, Answer(200, begun), Answer(200, {**begun, "state": "JobComplete"}))
    first = b'"Id","Ext__c"\n"a00000000000001AAA","V1"\n"a00000000000002AAA","other"\n'
    second = b'"Id","Ext__c"\n"a00000000000003AAA","v2499"\n'
    server.on(
        "GET",
        query_job + "/results",
        Answer(200, first, {"Sforce-Locator": "MTAw", "Sforce-NumberOfRecords": "2"}),
        Answer(200, second, {"Sforce-Locator": "null", "Sforce-NumberOfRecords": "1"}),
    )
    wanted = pa.array([f"v{n}" for n in range(2500)])
    found = destination.lookup("Thing__c", Field("Ext__c", "Ext", "string"), wanted)
    assert found.column("value").to_pylist() == ["V1", "v2499"]  # case is the caller's to judge
    assert found.column("record_id").to_pylist() == ["a00000000000001AAA", "a00000000000003AAA"]
    sent = json.loads(server.asked("POST", "jobs/query")[0].body)
    assert sent["query"] == "SELECT Id, Ext__c FROM Thing__c WHERE Ext__c != null"
    assert "locator=MTAw" in server.asked("GET", query_job + "/results")[1].path


def test_an_unknown_object_names_its_nearest_and_where_to_make_it(server, connected):
    names = [{"name": "Subscription__c"}, {"name": "Account"}]
    server.on("GET", "sobjects", Answer(200, {"sobjects": names}))
    destination = connected()
    with pytest.raises(DestinationError.__mro__[1], match="DB301") as caught:
        destination.describe("Subscripton__c")
    assert "Subscription__c" in str(caught.value) and "Object Manager" in str(caught.value)
    with pytest.raises(DestinationError.__mro__[1], match="DB301"):
        destination.describe("../limits")


def test_describe_is_read_once(server, destination):
    assert destination.describe("Thing__c") is destination.describe("thing__C")
    assert len(server.asked("GET", "sobjects/Thing__c/describe")) == 1
