"""What an org, or whoever answers in its place, may say: no reply makes us follow, trust, swallow or show too much."""

from __future__ import annotations

import gc
import gzip
import json
import random
import traceback
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest
from emulator.deep import examples
from hypothesis import given
from hypothesis import strategies as st

from dinmo_dbt.destination import Api, Batch, Field, Operation, PayloadColumn
from dinmo_dbt.errors import DinmoError
from dinmo_dbt.org import Credentials, Org, Secret
from dinmo_dbt.salesforce import SalesforceDestination, connect, lookup, replies

from .scripted_org import DATA, ORG_ID, TOKEN, USERINFO, Answer, Server, token_reply
from .test_client_faults import BUSY, COLLECTIONS, DESCRIBE, JOB, LOST, batch_of

Connected = Callable[..., SalesforceDestination]
NAME = Field("Name", "Name", "string")
QUERY_JOB = "750000000000009AAA"
CALLS: dict[str, tuple[str, str, Callable[[SalesforceDestination], Any]]] = {
    "describe": ("GET", "sobjects/Thing__c/describe", lambda d: d.describe("Thing__c")),
    "names": ("GET", "sobjects", lambda d: d.describe("Thing__c")),
    "has_records": ("GET", "query", lambda d: d.has_records("Thing__c")),
    "lookup": ("GET", "query", lambda d: d.lookup("Thing__c", NAME, pa.array(["a"]))),
    "bulk_lookup": (
        "POST",
        "jobs/query",
        lambda d: d.lookup("Thing__c", NAME, pa.array([f"v{n}" for n in range(2001)])),
    ),
    "read": ("POST", f"{COLLECTIONS}/Thing__c", lambda d: d.read("Thing__c", ("Name",), ("a00000000000001AAA",))),
    "create_job": ("POST", "jobs/ingest", lambda d: d.create_job(batch_of(Operation.INSERT))),
    "upload": ("PUT", f"jobs/ingest/{JOB}/batches", lambda d: d.upload(JOB, batch_of(Operation.INSERT))),
    "close": ("PATCH", f"jobs/ingest/{JOB}", lambda d: d.close(JOB)),
    "abort": ("PATCH", f"jobs/ingest/{JOB}", lambda d: d.abort(JOB)),
    "job": ("GET", f"jobs/ingest/{JOB}", lambda d: d.job(JOB)),
    "insert": ("POST", COLLECTIONS, lambda d: d.send(batch_of(Operation.INSERT))),
    "update": ("PATCH", COLLECTIONS, lambda d: d.send(batch_of(Operation.UPDATE))),
    "upsert": ("PATCH", f"{COLLECTIONS}/Thing__c/Ext__c", lambda d: d.send(batch_of(Operation.UPSERT))),
    "delete": ("DELETE", COLLECTIONS, lambda d: d.send(batch_of(Operation.DELETE))),
    "userinfo": ("GET", "/services/oauth2/userinfo", lambda d: d.username),
}


def answered(server: Server, call: str, answer: Answer) -> Callable[[SalesforceDestination], Any]:
    """The script under which that call gets that answer; how to make the call."""
    method, path, make = CALLS[call]
    server.on("GET", "sobjects/Thing__c/describe", Answer(404) if call == "names" else Answer(200, DESCRIBE))
    server.on("POST", "jobs/query", Answer(200, {"id": QUERY_JOB, "state": "UploadComplete"}))
    server.on(method, path, answer)
    return make


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("call", CALLS)
def test_no_call_follows_a_redirect(
    server: Server, other_server: Server, connected: Connected, call: str, status: int
) -> None:
    destination = connected()
    make = answered(server, call, Answer(status, None, {"Location": other_server.url + "/services/data/v62.0/"}))
    if call == "userinfo":
        assert make(destination) in ("", USERINFO["preferred_username"])
    else:
        with pytest.raises(DinmoError) as caught:
            make(destination)
        assert caught.value.problems[0].code in ("DB605", "DB607", "DB608", "DB301"), caught.value
    assert other_server.seen == []


def test_a_job_is_written_to_under_its_id_and_never_where_the_reply_says(
    server: Server, other_server: Server, connected: Connected
) -> None:
    for place in (other_server.url, f"//{other_server.url[7:]}/x", "../../../x", "/evil", 7):
        server.on("POST", "jobs/ingest", Answer(200, {"id": JOB, "state": "Open", "contentUrl": place}))
        server.on("PUT", f"jobs/ingest/{JOB}/batches", Answer(201))
        destination = connected()
        destination.upload(destination.create_job(batch_of(Operation.INSERT)), batch_of(Operation.INSERT))
    assert len(server.asked("PUT", f"jobs/ingest/{JOB}/batches")) == 5
    assert other_server.seen == []


@pytest.mark.parametrize("job_id", ["../limits", "750/../../x", "//evil", "", "7" * 4000, "750000000000001AAA?x=1", 7])
def test_a_job_id_that_is_none_never_becomes_a_path(server: Server, connected: Connected, job_id: object) -> None:
    server.on("POST", "jobs/ingest", Answer(200, {"id": job_id, "state": "Open"}))
    destination = connected()
    with pytest.raises(DinmoError):
        destination.create_job(batch_of(Operation.INSERT))
    assert {seen.path for seen in server.seen} == {"/services/oauth2/userinfo", f"{DATA}jobs/ingest"}


def test_a_bulk_query_goes_on_only_with_a_locator_that_is_one(server: Server, connected: Connected) -> None:
    make = answered(server, "bulk_lookup", Answer(200, {"id": QUERY_JOB, "state": "UploadComplete"}))
    server.on("GET", f"jobs/query/{QUERY_JOB}", Answer(200, {"id": QUERY_JOB, "state": "JobComplete"}))
    page = Answer(200, b'"Id","Name"\n', {"Sforce-Locator": "https://evil.example/?"})
    server.on("GET", f"jobs/query/{QUERY_JOB}/results", page)
    with pytest.raises(DinmoError, match="DB610"):
        make(connected())


# What is too large


@pytest.fixture
def small_bounds(monkeypatch: pytest.MonkeyPatch) -> int:
    bound = 1 << 20
    monkeypatch.setattr(replies, "JSON_BYTES_MAX", bound)
    monkeypatch.setattr(replies, "FILE_BYTES_MAX", bound)
    return bound


@pytest.mark.parametrize("call", ["describe", "job", "insert", "lookup"])
@pytest.mark.parametrize(
    "answer",
    [
        Answer(200, gzip.compress(b"[" + b" " * (40 << 20) + b"]"), {"Content-Encoding": "gzip"}),
        Answer(200, b" " * (3 << 20)),
        Answer(400, b" " * (3 << 20)),
        Answer(200, b"[" * 200_000),
        Answer(200, b"9" * 200_000),
        Answer(200, b'{"id":"\xff\xfe","state":"\xff"}'),
    ],
    ids=["gzip_bomb", "large", "large_error", "deep", "long_number", "not_utf8"],
)
def test_a_body_past_its_bound_is_no_reply(
    server: Server, connected: Connected, small_bounds: int, call: str, answer: Answer
) -> None:
    make = answered(server, call, answer)
    gc.collect()  # or what another test left open is found at the depth of this one, with no room to say so
    with pytest.raises(DinmoError) as caught:
        make(connected())
    assert len(str(caught.value)) < 1_000


@pytest.mark.parametrize("name", ["successfulResults", "failedResults"])
def test_a_result_file_past_its_bound_is_not_read(
    server: Server, connected: Connected, small_bounds: int, name: str
) -> None:
    server.on("GET", f"jobs/ingest/{JOB}", Answer(200, {"id": JOB, "state": "JobComplete"}))
    for each in ("successfulResults", "failedResults", "unprocessedrecords"):
        server.on("GET", f"jobs/ingest/{JOB}/{each}", Answer(200, b""))
    bomb = gzip.compress(b'"sf__Id","sf__Created",Name\n' + b'"a","true","x"\n' * (4 << 20))
    server.on("GET", f"jobs/ingest/{JOB}/{name}", Answer(200, bomb, {"Content-Encoding": "gzip"}))
    with pytest.raises(DinmoError):
        connected().results(JOB, batch_of(Operation.INSERT))


def test_a_length_that_is_promised_is_not_reserved(server: Server, connected: Connected) -> None:
    answer = Answer(200, {"id": JOB, "state": "Open"}, {"Content-Length": str(10 << 30)}, cut=10)
    server.on("GET", f"jobs/ingest/{JOB}", answer)
    with pytest.raises(DinmoError, match="DB607"):
        connected().job(JOB)


def test_a_long_error_text_is_cut_where_it_is_shown(server: Server, connected: Connected) -> None:
    text = "a \x1b]0;owned\x07 " * 100_000
    server.on("POST", "jobs/ingest", Answer(400, [{"errorCode": "INVALID" * 1000, "message": text}]))
    with pytest.raises(DinmoError) as caught:
        connected().create_job(batch_of(Operation.INSERT))
    assert len(str(caught.value)) < 1_000
    assert str(caught.value).isprintable()


def test_records_of_long_texts_are_read_in_smaller_calls(
    server: Server, connected: Connected, small_bounds: int
) -> None:
    ids = tuple(f"a00{n:012d}AAA" for n in range(4))

    def reply(*which: int) -> Answer:
        return Answer(200, [{"Id": ids[n], "Name": "x" * 300_000} for n in which])

    server.on("POST", f"{COLLECTIONS}/Thing__c", reply(0, 1, 2, 3), reply(0, 1), reply(2, 3))
    assert [row["Id"] for row in connected().read("Thing__c", ("Name",), ids)] == list(ids)
    assert len(server.asked("POST", f"{COLLECTIONS}/Thing__c")) == 3
    server.on("POST", f"{COLLECTIONS}/Thing__c", Answer(200, [{"Id": ids[0], "Name": "x" * 2_000_000}]))
    with pytest.raises(DinmoError, match=r"DB607 .*more than"):
        connected().read("Thing__c", ("Name",), ids[:1])


# What does not end


def page_of(records: int, place: str, wide: int = 0) -> Answer:
    found = [{"Id": f"a00{n:012d}AAA", "Name": "a" + "b" * wide} for n in range(records)]
    return Answer(200, {"totalSize": 9_999_999, "done": False, "records": found, "nextRecordsUrl": DATA + place})


def test_a_query_is_not_led_in_a_circle(server: Server, connected: Connected) -> None:
    make = answered(server, "lookup", page_of(1, "query/01g000-1"))
    server.on("GET", "query/01g000-1", page_of(1, "query/01g000-2"))
    server.on("GET", "query/01g000-2", page_of(1, "query/01g000-1"))
    with pytest.raises(DinmoError, match=r"DB610 .*read already"):
        make(connected())
    assert len(server.asked("GET", "query/01g000-1")) == 1


def test_a_bulk_query_is_not_led_in_a_circle(server: Server, connected: Connected) -> None:
    make = answered(server, "bulk_lookup", Answer(200, {"id": QUERY_JOB, "state": "UploadComplete"}))
    server.on("GET", f"jobs/query/{QUERY_JOB}", Answer(200, {"id": QUERY_JOB, "state": "JobComplete"}))
    pages = [Answer(200, b'"Id","Name"\n', {"Sforce-Locator": place}) for place in ("MTAw", "MjAw", "MTAw")]
    server.on("GET", f"jobs/query/{QUERY_JOB}/results", *pages)
    with pytest.raises(DinmoError, match=r"DB610 .*read already"):
        make(connected())
    assert len(server.asked("GET", f"jobs/query/{QUERY_JOB}/results")) == 3


def test_pages_without_an_end_are_read_as_far_as_there_is_room(
    server: Server, connected: Connected, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookup, "_FOUND_BYTES", 1 << 20)
    make = answered(server, "lookup", page_of(2_000, "query/01g000-0", wide=200))
    for n in range(9):
        server.on("GET", f"query/01g000-{n}", page_of(2_000, f"query/01g000-{n + 1}", wide=200))
    with pytest.raises(DinmoError, match=r"DB610 .*far more records"):
        make(connected())
    assert server.asked("GET", "query/01g000-0") and not server.asked("GET", "query/01g000-4")


def test_a_page_of_more_records_than_a_page_has_is_no_reply(server: Server, connected: Connected) -> None:
    make = answered(server, "lookup", page_of(2_001, "query/01g000-0"))
    with pytest.raises(DinmoError, match=r"DB607 .*promised shape"):
        make(connected())


def test_a_record_comes_once(server: Server, connected: Connected) -> None:
    ids = pa.array([f"a00{n:012d}AAA" for n in range(2_500)])
    server.on("POST", "jobs/query", Answer(200, {"id": QUERY_JOB, "state": "UploadComplete"}))
    server.on("GET", f"jobs/query/{QUERY_JOB}", Answer(200, {"id": QUERY_JOB, "state": "JobComplete"}))
    page = b'"Id"\n' + b"a00000000000001AAA\n" * 1_000
    pages = [Answer(200, page, {"Sforce-Locator": f"MTA{n}"}) for n in range(9)]
    server.on("GET", f"jobs/query/{QUERY_JOB}/results", *pages)
    with pytest.raises(DinmoError, match=r"DB610 .*more records than were asked for"):
        connected().read_many("Thing__c", ("Id",), ids)
    assert len(server.asked("GET", f"jobs/query/{QUERY_JOB}/results")) == 3


# What a traceback holds


def whole_traceback(error: BaseException) -> str:
    """As a crash reporter would send it: every frame but the test's own with its variables, causes and contexts too."""
    assert error.__traceback__ is not None
    error = error.with_traceback(error.__traceback__.tb_next)
    return "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())


@pytest.mark.parametrize("call", ["insert", "upsert", "upload", "job", "lookup"])
@pytest.mark.parametrize(
    "answer", [LOST, BUSY, Answer(400, [{"errorCode": "X", "message": "CANARY_VALUE"}]), Answer(302), Answer(401)]
)
def test_no_frame_of_a_failed_call_holds_the_token(
    server: Server, connected: Connected, call: str, answer: Answer
) -> None:
    destination = connected()
    make = answered(server, call, answer)
    with pytest.raises(DinmoError) as caught:
        make(destination)
    assert TOKEN not in whole_traceback(caught.value)


@pytest.mark.parametrize(
    "answer",
    [
        LOST,
        BUSY,
        Answer(302),
        Answer(400, {"error": "invalid_client", "error_description": "CANARY_SECRET"}),
        Answer(400, b"<html>CANARY_SECRET</html>"),
        Answer(200, ["CANARY_SECRET"]),
        Answer(200, {"access_token": "CANARY_SECRET"}),
        Answer(200, {"access_token": "CANARY_SECRET", "instance_url": "https://evil.example", "id": ""}),
        Answer(200, {"access_token": "CANARY_SECRET\n", "instance_url": "https://acme.my.salesforce.com"}),
    ],
    ids=range(9),
)
def test_no_frame_of_a_failed_login_holds_the_secret(server: Server, connected: Connected, answer: Answer) -> None:
    server.on("POST", "/services/oauth2/token", answer)
    with pytest.raises(DinmoError) as caught:
        connected(renewable=True)
    shown = whole_traceback(caught.value)
    assert "CANARY_SECRET" not in shown
    assert "YXBwOkNBTkFSWV9TRUNSRVQ" not in shown, "in base64"


# Whatever JSON comes

SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=True), st.text(max_size=6),
    st.sampled_from([JOB, "Open", "JobComplete", "a00000000000001AAA", TOKEN, ORG_ID, "\ud800"]),
)  # fmt: skip
WORDS = st.sampled_from(
    sorted(
        {"id", "state", "records", "done", "nextRecordsUrl", "totalSize", "errors", "success", "statusCode", "message"}
        | {"fields", "errorCode", "name", "label", "type", "createable", "updateable", "deletable", "custom", "active"}
        | {"picklistValues", "value", "referenceTo", "length", "precision", "sobjects", "Id", "Name", "attributes"}
        | {"access_token", "instance_url", "organization_id", "preferred_username", "identity", "created", "keyPrefix"}
        | {"errorMessage", "numberRecordsProcessed", "numberRecordsFailed", "relationshipName"}
    )
)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=6),
    max_leaves=14,
)
VALID: dict[str, list[Any]] = {
    "describe": [DESCRIBE],
    "query": [{"totalSize": 1, "done": True, "records": [{"Id": "a00000000000001AAA", "Name": "a"}]}],
    "job": [{"id": JOB, "state": "JobComplete", "numberRecordsProcessed": 1, "numberRecordsFailed": 0}],
    "collection": [
        [{"id": "a00000000000001AAA", "success": True, "errors": [], "created": True}],
        [{"success": False, "errors": [{"statusCode": "X", "message": "m", "fields": ["Name"]}]}],
    ],
    "error": [[{"errorCode": "INVALID_FIELD", "message": "m"}]],
}


@st.composite
def near_valid(draw: st.DrawFn) -> Any:
    """A valid reply of some call with one value in it exchanged."""
    content = json.loads(json.dumps(draw(st.sampled_from([reply for kind in VALID.values() for reply in kind]))))
    holder: Any = content
    while True:
        inner = holder if isinstance(holder, dict) else dict(enumerate(holder))
        if not inner:
            return content
        key = draw(st.sampled_from(list(inner)))
        if not isinstance(inner[key], dict | list) or draw(st.booleans()):
            holder[key] = draw(JSON)
            return content
        holder = inner[key]


@pytest.mark.slow
@pytest.mark.parametrize("call", CALLS)
@examples(25)
@given(status=st.sampled_from([200, 200, 200, 201, 204, 400, 401, 404, 500]), content=JSON | near_valid())
def test_any_json_gives_a_result_or_an_error_of_ours(
    shared_server: Server, shared_org: SalesforceDestination, call: str, status: int, content: Any
) -> None:
    shared_org._schemas.clear()
    body = json.dumps(content).encode()
    make = answered(shared_server, call, Answer(status, body if status != 204 else None))
    try:
        make(shared_org)
    except DinmoError as error:
        assert error.problems
        str(error).encode(errors="strict")


@examples(60)
@given(status=st.sampled_from([200, 200, 400, 401]), content=JSON)
@pytest.mark.parametrize("path", ["/services/oauth2/token", "/services/oauth2/userinfo"])
def test_any_json_at_login_gives_a_session_or_an_error_of_ours(
    shared_server: Server, path: str, status: int, content: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    body = Answer(status, json.dumps(content).encode())
    shared_server.on("POST", "/services/oauth2/token", token_reply(shared_server, id=None))
    shared_server.on("POST" if path.endswith("token") else "GET", path, body)
    credentials = Credentials("client_credentials", shared_server.url, client_id="a", client_secret=Secret("CANARY"))
    try:
        connect(
            Org("crm", "dev", credentials), scratch=tmp_path_factory.getbasetemp(), sleep=lambda _: None,
            rng=random.Random(1), now=float,
        ).disconnect()  # fmt: skip
    except DinmoError as error:
        assert "CANARY" not in str(error)
    finally:
        shared_server.on("GET", "/services/oauth2/userinfo", Answer(200, USERINFO))


@pytest.mark.slow
@examples(60)
@given(
    files=st.tuples(
        *[st.binary(max_size=80) | st.text(alphabet='",\r\nsf_IdErorCcrat01 ', max_size=80).map(str.encode)] * 3
    )
)
def test_any_result_files_give_each_row_a_fate_or_an_error_of_ours(
    shared_server: Server, shared_org: SalesforceDestination, files: tuple[bytes, ...]
) -> None:
    shared_server.on("GET", f"jobs/ingest/{JOB}", Answer(200, VALID["job"][0]))
    for name, raw in zip(("successfulResults", "failedResults", "unprocessedrecords"), files, strict=True):
        shared_server.on("GET", f"jobs/ingest/{JOB}/{name}", Answer(200, raw))
    batch = Batch(
        "b",
        Operation.INSERT,
        "Thing__c",
        Api.BULK,
        (PayloadColumn("Name", NAME),),
        None,
        pa.table({"Name": ["a", "b"]}),
    )
    try:
        found = shared_org.results(JOB, batch)
    except DinmoError:
        return
    assert found is not None and found.num_rows == 2


@pytest.fixture(scope="module")
def shared_server() -> Any:
    server = Server()
    yield server
    server.close()


@pytest.fixture(scope="module")
def shared_org(shared_server: Server, tmp_path_factory: pytest.TempPathFactory) -> SalesforceDestination:
    credentials = Credentials("access_token", instance_url=shared_server.url, access_token=Secret(TOKEN))
    return connect(
        Org("crm", "dev", credentials), scratch=tmp_path_factory.mktemp("scratch"), sleep=lambda _: None,
        rng=random.Random(1), now=float,
    )  # fmt: skip
