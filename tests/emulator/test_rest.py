"""What holds for every REST call: methods, paths, headers, and the resources beside a record."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import requests

from .conftest import Org
from .mounted import Mounted


def shown(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%S+00:00")


def refusal(reply: requests.Response) -> tuple[int, str]:
    return reply.status_code, reply.json()[0]["errorCode"]


@pytest.mark.parametrize(
    "path",
    ["/sobjects/", "/sobjects/Account/", "/sobjects/Account/describe/", "/limits/", "/query/?q=SELECT+Id+FROM+User",
     "/queryAll/?q=SELECT+Id+FROM+User", "/limits/recordCount/?sObjects=User", "/jobs/ingest/", "/jobs/query/"],
)  # fmt: skip
def test_slashes_at_either_end_of_a_path_are_one(org: Org, path: str) -> None:
    there = org.get(path.replace("/?", "?").rstrip("/"))
    assert there.status_code == 200
    assert org.get(path).json().keys() == there.json().keys()
    assert org.http.get(f"{org.url}//services/data/v62.0{path}").json().keys() == there.json().keys()


def test_head_is_get_without_a_body(org: Org) -> None:
    rid = org.create("Account", {"Name": "head"})
    for path in (f"/sobjects/Account/{rid}", "/sobjects/Account", "/jobs/ingest", "/limits"):
        reply = org.http.head(org.base + path)
        assert (reply.status_code, reply.content) == (200, b"")
    assert org.http.head(f"{org.base}/sobjects/Account/001000000000000AAA").status_code == 404


def test_a_post_can_stand_for_another_method(org: Org) -> None:
    rid = org.create("Account", {"Name": "before"})
    assert org.post(f"/sobjects/Account/{rid}?_HttpMethod=PATCH", {"Name": "after"}).status_code == 204
    assert org.read("Account", rid)["Name"] == "after"
    assert org.post(f"/sobjects/Account/{rid}?_HttpMethod=DELETE").status_code == 204
    assert org.get(f"/sobjects/Account/{rid}").status_code == 404


def test_a_method_that_is_not_there_names_those_that_are(org: Org) -> None:
    reply = org.http.put(f"{org.base}/sobjects/Account")
    assert reply.status_code == 405
    assert reply.json() == [
        {"message": "HTTP Method 'PUT' not allowed. Allowed are GET,HEAD,POST", "errorCode": "METHOD_NOT_ALLOWED"}
    ]


@pytest.mark.parametrize(
    ("path", "what"),
    [
        ("/search?q=FIND", "GET search"), ("/recent", "GET recent"), ("/sobjects/Account/listviews", "listviews"),
        ("/sobjects/Account/describe/layouts", "GET sobjects/Account/describe/layouts"),
        ("/composite", "GET composite"), ("/sobjects/User/005000000000001/password", "User/005000000000001/password"),
        ("/connect/communities", "GET connect/communities"),
        ("/sobjects/Customer__c/{id}/Account__r", "a path along a relationship"),
        ("/query?explain=SELECT+Id+FROM+User", "query explain"),
    ],
)  # fmt: skip
def test_what_is_not_emulated_says_so(org: Org, path: str, what: str) -> None:
    if "{id}" in path:
        path = path.format(id=org.create("Customer__c", {}))
    reply = org.get(path)
    assert refusal(reply) == (501, "NOT_EMULATED")
    assert what in reply.json()[0]["message"]


def test_replies_in_xml_are_refused_by_name(org: Org) -> None:
    reply = org.get("/limits", headers={"Accept": "application/xml"})
    assert (refusal(reply), "XML" in reply.json()[0]["message"]) == ((501, "NOT_EMULATED"), True)


@pytest.mark.parametrize(
    "headers",
    [
        {"Sforce-Call-Options": "client=test, defaultNamespace=x"}, {"Sforce-Auto-Assign": "FALSE"},
        {"Sforce-Duplicate-Rule-Header": "allowSave=true; includeRecordDetails=true"},
        {"Sforce-Query-Options": "batchSize=200"}, {"Sforce-Line-Ending": "LF"}, {"X-Unknown": "1"},
    ],
)  # fmt: skip
def test_headers_of_clients_are_taken(org: Org, headers: dict[str, str]) -> None:
    assert org.post("/sobjects/Account", {"Name": "headed"}, headers=headers).status_code == 201


def test_a_path_that_holds_no_id_is_taken_for_an_external_id_field(org: Org) -> None:
    reply = org.get("/sobjects/Account/-1")
    assert reply.status_code == 404
    message = "Provided external ID field does not exist or is not accessible: -1"
    assert reply.json() == [{"message": message, "errorCode": "NOT_FOUND"}]


def test_an_external_id_is_a_path_for_reading_and_deleting(org: Org) -> None:
    org.create("Customer__c", {"Code__c": "a b/c", "Name": "x"})
    path = "/sobjects/Customer__c/Code__c/a%20b%2Fc"
    assert org.get(f"{path}?fields=Name").json().keys() == {"attributes", "Name"}
    assert org.delete(f"{path}/").status_code == 204
    assert refusal(org.get(path)) == (404, "NOT_FOUND")


def test_a_record_that_did_not_change_is_304(org: Org) -> None:
    rid = org.create("Account", {"Name": "still"})
    later = (datetime.now(UTC) + timedelta(minutes=5)).strftime("%a, %d %b %Y %H:%M:%S GMT")
    reply = org.get(f"/sobjects/Account/{rid}", headers={"If-Modified-Since": later})
    assert (reply.status_code, reply.content) == (304, b"")
    before = "Sat, 01 Jan 2000 00:00:01 GMT"
    assert org.get(f"/sobjects/Account/{rid}", headers={"If-Modified-Since": before}).json()["Name"] == "still"


def test_describes_are_304_until_the_schema_changes(mount: Callable[..., Mounted]) -> None:
    org = mount()
    for path in ("/sobjects", "/sobjects/Account/describe/"):
        since = {"If-Modified-Since": org.api("GET", path).headers["Last-Modified"]}
        same = org.api("GET", path, headers=since)
        assert (same.status_code, same.data) == (304, b"")
        before = {"If-Modified-Since": "Sat, 1 Jan 2000 00:00:01 GMT"}
        assert org.api("GET", path, headers=before).status_code == 200
        org.app.change_schema({"objects": {"Customer__c": {"fields": {"Plan__c": None}}}})
        assert org.api("GET", path, headers=since).status_code == 200
        org.app.drift.clear()


def test_what_a_request_may_weigh_and_which_versions_are_retired(org: Org) -> None:
    assert org.get("/limits", headers={"X-Long": "x" * 17_000}).status_code == 431
    assert org.http.get(f"{org.url}/services/data/v20.0/sobjects").status_code == 410
    assert org.http.get(f"{org.url}/services/data/v99.0/sobjects").status_code == 404


@pytest.mark.parametrize(
    "path",
    [
        "/services/async/62.0/job",
        "/services/Soap/m/62.0",
        "/services/oauth2/authorize",
        "/secur/frontdoor.jsp",
        "/cometd/62.0",
    ],
)
def test_what_is_not_emulated_is_named_also_to_those_without_a_session(org: Org, path: str) -> None:
    reply = requests.get(org.url + path, timeout=10)
    assert (reply.status_code, reply.json()[0]["errorCode"]) == (501, "NOT_EMULATED")
    assert path.rpartition("/")[2] in reply.json()[0]["message"]


def test_updated_and_deleted_records_of_a_span(org: Org) -> None:
    now = datetime.now(UTC)
    span = {"start": shown(now - timedelta(hours=1)), "end": shown(now + timedelta(hours=1))}
    kept, gone = (org.create("Contact", {"LastName": name}) for name in ("kept", "gone"))
    org.delete(f"/sobjects/Contact/{gone}")
    updated = org.get("/sobjects/Contact/updated/", params=span).json()
    assert updated.keys() == {"ids", "latestDateCovered"}
    assert (kept in updated["ids"], gone in updated["ids"]) == (True, False)
    deleted = org.get("/sobjects/Contact/deleted/", params=span).json()
    assert deleted.keys() == {"deletedRecords", "earliestDateAvailable", "latestDateCovered"}
    assert [r["id"] for r in deleted["deletedRecords"]] == [gone]
    assert deleted["deletedRecords"][0]["deletedDate"].endswith(".000+0000")


@pytest.mark.parametrize("days", [(-31, 0), (0, 0), (1, -1)])
def test_a_span_that_is_refused(org: Org, days: tuple[int, int]) -> None:
    start, end = (shown(datetime.now(UTC) + timedelta(days=d)) for d in days)
    reply = org.get("/sobjects/Account/updated", params={"start": start, "end": end})
    assert refusal(reply) == (400, "INVALID_REPLICATION_DATE")
    assert refusal(org.get("/sobjects/Account/deleted", params={"start": "x"})) == (400, "INVALID_REPLICATION_DATE")


def test_a_collection_may_change_its_object_nine_times(org: Org) -> None:
    def records(count: int) -> dict[str, Any]:
        kinds = [("Account", {"Name": "c"}), ("Customer__c", {})]
        return {"records": [{"attributes": {"type": k}, **f} for k, f in (kinds[i % 2] for i in range(count))]}

    assert all(item["success"] for item in org.post("/composite/sobjects", records(10)).json())
    assert refusal(org.post("/composite/sobjects", records(11))) == (400, "LIMIT_EXCEEDED")


@pytest.mark.parametrize("version", ["6.0", "69.0", "62", "62.1", "x"])
def test_an_api_version_that_is_not_offered(org: Org, version: str) -> None:
    assert refusal(org.http.get(f"{org.url}/services/data/v{version}/limits")) == (404, "NOT_FOUND")


def test_the_status_line_reads_as_salesforces(org: Org) -> None:
    assert org.get("/limits").reason == "OK"
    assert org.get("/sobjects/Nope__c").reason == "Not Found"
    assert org.post("/sobjects/Account", {}).reason == "Bad Request"
    assert org.delete(f"/sobjects/Customer__c/{org.create('Customer__c', {})}").reason == "No Content"
