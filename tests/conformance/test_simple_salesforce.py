"""simple-salesforce, unchanged, over https with the emulator's CA.

Its login hosts are written into its code, so the login tests give it a session whose transport takes every
`*.salesforce.com` to the org: what it sends and what it makes of the reply are its own.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import certifi
import pytest
import requests
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from emulator.conftest import Org
from requests.adapters import HTTPAdapter
from simple_salesforce import Salesforce
from simple_salesforce.bulk2 import ColumnDelimiter, LineEnding
from simple_salesforce.exceptions import (
    SalesforceAuthenticationFailed,
    SalesforceError,
    SalesforceExpiredSession,
    SalesforceMalformedRequest,
    SalesforceMoreThanOneRecord,
    SalesforceOperationError,
    SalesforceResourceNotFound,
)

CLIENT = "simple-salesforce"
WAIT_S = 0.05


class ToOrg(HTTPAdapter):
    """Every host is the org."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.url = url

    def send(self, request: requests.PreparedRequest, *args: Any, **more: Any) -> requests.Response:
        assert request.url is not None
        request.url = self.url + "/" + request.url.split("/", 3)[3]
        return super().send(request, *args, **more)


@pytest.fixture(scope="module", autouse=True)
def ca(org: Org) -> Iterator[None]:
    """The variable by which a user would name the CA; it goes before a session's own `verify`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REQUESTS_CA_BUNDLE", org.line["ca_file"])
        yield


@pytest.fixture(scope="module")
def sf(org: Org, ca: None) -> Salesforce:
    return Salesforce(instance_url=org.line["https_url"], session_id=org.line["access_token"], version="62.0")


@pytest.fixture
def login_session(org: Org) -> Iterator[requests.Session]:
    with requests.Session() as session:
        for host in ("https://login.salesforce.com", "https://acme.my.salesforce.com"):
            session.mount(host, ToOrg(org.line["https_url"]))
        yield session


def test_a_session_id_is_enough(org: Org, sf: Salesforce) -> None:
    assert sf.query("SELECT Id FROM Organization")["records"][0]["Id"] == org.line["organization_id"]


def test_without_the_ca_nothing_is_said(org: Org, sf: Salesforce, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", certifi.where())
    with pytest.raises(requests.exceptions.SSLError):
        Salesforce(instance_url=org.line["https_url"], session_id=org.line["access_token"]).limits()


def test_login_by_client_credentials(org: Org, login_session: requests.Session) -> None:
    who = {"consumer_key": org.line["client_id"], "consumer_secret": org.line["client_secret"]}
    sf = Salesforce(**who, domain="acme.my", session=login_session)
    assert f"https://{sf.sf_instance}" == org.line["https_url"]
    assert sf.is_sandbox() is False
    with pytest.raises(SalesforceAuthenticationFailed, match="invalid client credentials"):
        Salesforce(**{**who, "consumer_secret": "x"}, domain="acme.my", session=login_session)


def test_login_by_jwt(org: Org, login_session: requests.Session, tmp_path: Path) -> None:
    key = rsa.generate_private_key(65537, 2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )  # fmt: skip
    (tmp_path / "key.pem").write_bytes(pem)
    sf = Salesforce(
        username=org.line["username"], consumer_key=org.line["client_id"], privatekey_file=str(tmp_path / "key.pem"),
        session=login_session,
    )  # fmt: skip
    assert sf.query("SELECT Id FROM Organization")["totalSize"] == 1


def test_login_by_password(org: Org, login_session: requests.Session) -> None:
    who = {
        "username": org.line["username"], "password": org.line["password"] + org.line["security_token"],
        "consumer_key": org.line["client_id"], "consumer_secret": org.line["client_secret"],
    }  # fmt: skip
    assert Salesforce(**who, session=login_session).query("SELECT Id FROM Organization")["totalSize"] == 1
    with pytest.raises(SalesforceAuthenticationFailed):
        Salesforce(**{**who, "password": "x"}, session=login_session)


def test_a_bad_session(org: Org, sf: Salesforce) -> None:
    stranger = Salesforce(instance_url=org.line["https_url"], session_id="00D!nobody", session=sf.session)
    with pytest.raises(SalesforceExpiredSession, match="INVALID_SESSION_ID"):
        stranger.query("SELECT Id FROM Account")


def test_an_expired_session_is_renewed(org: Org, login_session: requests.Session) -> None:
    who = {"consumer_key": org.line["client_id"], "consumer_secret": org.line["client_secret"]}
    sf = Salesforce(**who, domain="acme.my", session=login_session)
    sf.session_id = "00D!lapsed"
    sf._generate_headers()
    assert sf.query("SELECT Id FROM Organization")["totalSize"] == 1


def test_discovery(org: Org, sf: Salesforce) -> None:
    described = sf.describe()
    assert described is not None
    assert {"Account", "Customer__c"} <= {o["name"] for o in described["sobjects"]}
    assert sf.Account.metadata()["objectDescribe"]["name"] == "Account"
    assert sf.Customer__c.describe()["keyPrefix"].startswith("a")
    assert sf.limits()["DailyApiRequests"]["Max"] == 100_000
    assert sf.api_usage["api-usage"].total == 100_000
    assert sf.restful("limits/recordCount", params={"sObjects": "Organization"}) == {
        "sObjects": [{"count": 1, "name": "Organization"}]
    }
    assert sf.oauth2("userinfo")["organization_id"] == org.line["organization_id"]


def test_records(sf: Salesforce) -> None:
    made = sf.Customer__c.create({"Name": "one", "Code__c": "ss 1/é", "Day__c": "2024-02-29"})
    assert (made["success"], made["errors"]) == (True, [])
    assert sf.Customer__c.get(made["id"])["Day__c"] == "2024-02-29"
    assert sf.Customer__c.update(made["id"], {"Name": "two"}) == 204
    assert sf.Customer__c.upsert("Code__c/ss%201%2F%C3%A9", {"Name": "three"}) == 200
    assert sf.Customer__c.upsert("Code__c/ss-2", {"Name": "new"}) == 201
    assert sf.Customer__c.get_by_custom_id("Code__c", "ss-2")["Name"] == "new"
    assert sf.Customer__c.delete(made["id"]) == 204
    with pytest.raises(SalesforceResourceNotFound, match="NOT_FOUND"):
        sf.Customer__c.get(made["id"])


def test_refusals(sf: Salesforce) -> None:
    with pytest.raises(SalesforceMalformedRequest, match="REQUIRED_FIELD_MISSING") as caught:
        sf.Account.create({})
    assert caught.value.content == [
        {"message": "Required fields are missing: [Name]", "errorCode": "REQUIRED_FIELD_MISSING", "fields": ["Name"]}
    ]
    with pytest.raises(SalesforceResourceNotFound):
        sf.Nope__c.create({})
    for _ in range(2):
        sf.Customer__c.create({"Loose__c": "twice"})
    with pytest.raises(SalesforceMoreThanOneRecord):
        sf.Customer__c.upsert("Loose__c/twice", {"Name": "x"})
    with pytest.raises(SalesforceMalformedRequest, match="MALFORMED_QUERY"):
        sf.query("SELEKT Id FROM Account")
    with pytest.raises(SalesforceMalformedRequest, match="INVALID_TYPE"):
        sf.toolingexecute("query/?q=SELECT+Id+FROM+ApexClass")


LEFT_OUT: dict[str, Callable[[Salesforce], Any]] = {
    "SOSL search": lambda sf: sf.quick_search("x"),
    "Apex REST": lambda sf: sf.apexecute("Mine"),
    "layouts": lambda sf: sf.Account.describe_layout("012000000000000AAA"),
    "passwords of users": lambda sf: sf.set_password(sf.query("SELECT Id FROM User")["records"][0]["Id"], "x"),
    "Bulk API 1.0": lambda sf: sf.bulk.Account.insert([{"Name": "x"}]),
    "composite requests": lambda sf: sf.restful("composite", method="POST", json={"compositeRequest": []}),
}


@pytest.mark.parametrize("what", LEFT_OUT)
def test_what_is_left_out_is_refused_by_name(sf: Salesforce, what: str) -> None:
    with pytest.raises(SalesforceError, match="The dinmo-dbt emulator does not emulate"):
        LEFT_OUT[what](sf)


def test_a_login_by_soap_is_refused(org: Org, login_session: requests.Session) -> None:
    who = {"username": org.line["username"], "password": org.line["password"], "security_token": "x"}
    with pytest.raises(SalesforceAuthenticationFailed):
        Salesforce(**who, session=login_session)


def test_collections(sf: Salesforce) -> None:
    records = [{"attributes": {"type": "Account"}, "Name": f"collected {i}"} for i in range(3)]
    made = sf.restful("composite/sobjects", method="POST", json={"allOrNone": True, "records": records})
    ids = [each["id"] for each in made]
    found = sf.restful("composite/sobjects/Account", params={"ids": ",".join(ids), "fields": "Name"})
    assert [each["Name"] for each in found] == [f"collected {i}" for i in range(3)]
    gone = sf.restful("composite/sobjects", method="DELETE", params={"ids": ",".join(ids)})
    assert all(each["success"] for each in gone)


def test_what_changed_and_what_was_deleted(sf: Salesforce) -> None:
    made = sf.Contact.create({"LastName": "gone"})["id"]
    kept = sf.Contact.create({"LastName": "kept"})["id"]
    sf.Contact.delete(made)
    start, end = (datetime.now(UTC) + timedelta(hours=h) for h in (-1, 1))
    assert kept in sf.Contact.updated(start, end)["ids"]
    assert [r["id"] for r in sf.Contact.deleted(start, end)["deletedRecords"]] == [made]


@pytest.fixture(scope="module")
def many(sf: Salesforce, tmp_path_factory: pytest.TempPathFactory) -> int:
    rows = "".join(f"many {i},ss-many-{i},ss-many\n" for i in range(4100))
    path = tmp_path_factory.mktemp("csv") / "many.csv"
    path.write_text(f"Name,Code__c,Plan__c\n{rows}", newline="")
    (done,) = sf.bulk2.Customer__c.insert(csv_file=str(path), wait=WAIT_S)
    assert (done["numberRecordsProcessed"], done["numberRecordsFailed"]) == (4100, 0)
    return 4100


def test_queries_of_several_pages(sf: Salesforce, many: int) -> None:
    soql = "SELECT Name, Account__r.Name FROM Customer__c WHERE Plan__c = 'ss-many'"
    page = sf.query(soql)
    assert (page["totalSize"], page["done"], len(page["records"])) == (many, False, 2000)
    second = sf.query_more(page["nextRecordsUrl"], identifier_is_url=True)
    assert len(second["records"]) == 2000
    third = sf.query_more(second["nextRecordsUrl"].rsplit("/", 1)[1])
    assert (third["done"], len(third["records"])) == (True, many - 4000)
    assert len({r["Name"] for r in sf.query_all_iter(soql)}) == many
    whole = sf.query_all(soql)
    assert (whole["totalSize"], len(whole["records"]), whole["done"]) == (many, many, True)
    gone = sf.query("SELECT Id FROM Customer__c WHERE Name = 'many 0'")["records"][0]["Id"]
    sf.Customer__c.delete(gone)
    assert sf.query("SELECT Id FROM Customer__c WHERE Name = 'many 0'")["totalSize"] == 0
    assert sf.query("SELECT Id FROM Customer__c WHERE Name = 'many 0'", include_deleted=True)["totalSize"] == 1


def test_bulk_query_pages_and_download(sf: Salesforce, many: int, tmp_path: Path) -> None:
    soql = "SELECT Name, Code__c FROM Customer__c WHERE Plan__c = 'ss-many' ORDER BY Code__c LIMIT 2500"
    pages = list(sf.bulk2.Customer__c.query(soql, max_records=1000, wait=WAIT_S))
    rows = [list(csv.DictReader(io.StringIO(page))) for page in pages]
    assert [len(r) for r in rows] == [1000, 1000, 500]
    assert len({r["Code__c"] for page in rows for r in page}) == 2500
    files = sf.bulk2.Customer__c.download(soql, path=str(tmp_path), max_records=2000, wait=WAIT_S)
    assert [f["number_of_records"] for f in files] == [2000, 500]
    deleted = "SELECT Id FROM Customer__c WHERE Plan__c = 'ss-many'"
    assert "".join(sf.bulk2.Customer__c.query_all(deleted, wait=WAIT_S)).count("\n") == many + 1


def test_bulk_ingest(sf: Salesforce) -> None:
    customers = sf.bulk2.Customer__c
    records = [{"Code__c": f"b{i}", "Name": 'é "x",\ny'} for i in range(3)]
    (done,) = customers.insert(records=records, wait=WAIT_S)
    assert (done["numberRecordsProcessed"], done["numberRecordsTotal"]) == (3, 3)
    made = _rows(customers.get_successful_records(done["job_id"]))
    assert ({r["sf__Created"] for r in made}, {r["Name"] for r in made}) == ({"true"}, {'é "x",\ny'})
    ids = {r["Code__c"]: r["sf__Id"] for r in made}
    changes = [{"Id": ids["b0"], "Tier__c": "Gold"}, {"Id": ids["b1"], "Tier__c": "Tin"}]
    (done,) = customers.update(records=changes, wait=WAIT_S)
    assert (done["numberRecordsProcessed"], done["numberRecordsFailed"]) == (2, 1)
    (bad,) = _rows(customers.get_failed_records(done["job_id"]))
    assert bad["sf__Id"] == ids["b1"]
    assert bad["sf__Error"].startswith("INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST:")
    assert _rows(customers.get_unprocessed_records(done["job_id"])) == []
    upserts = [{"Code__c": "b0", "Name": "again"}, {"Code__c": "b9", "Name": "new"}]
    (done,) = customers.upsert(records=upserts, external_id_field="Code__c", wait=WAIT_S)
    everything = customers.get_all_ingest_records(done["job_id"])
    assert sorted(r["sf__Created"] for r in everything["successfulRecords"]) == ["false", "true"]
    (done,) = customers.delete(records=[{"Id": i} for i in ids.values()], wait=WAIT_S)
    assert (done["numberRecordsProcessed"], done["numberRecordsFailed"]) == (3, 0)


def test_bulk_in_several_jobs_with_other_delimiters(sf: Salesforce, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("Name|Plan__c\r\n" + "".join(f"d{i}|ss-split\r\n" for i in range(25)), newline="")
    done = sf.bulk2.Customer__c.insert(
        csv_file=str(path), batch_size=10, concurrency=2, wait=WAIT_S, column_delimiter=ColumnDelimiter.PIPE,
        line_ending=LineEnding.CRLF,
    )  # fmt: skip
    assert sorted(each["numberRecordsProcessed"] for each in done) == [5, 10, 10]
    assert sf.query("SELECT COUNT() FROM Customer__c WHERE Plan__c = 'ss-split'")["totalSize"] == 25


def test_a_bulk_job_that_fails(sf: Salesforce) -> None:
    with pytest.raises(SalesforceOperationError, match="InvalidBatch : Field name not found : Nope__c"):
        sf.bulk2.Customer__c.insert(records=[{"Nope__c": "x"}], wait=WAIT_S)
    with pytest.raises(SalesforceMalformedRequest, match="FEATURENOTENABLED"):
        sf.bulk2.Customer__c.hard_delete(records=[{"Id": "a00000000000000AAA"}], wait=WAIT_S)


def _rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))
