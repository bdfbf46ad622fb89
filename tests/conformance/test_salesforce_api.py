"""salesforce-api, unchanged: a fourth client, over plain http."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import requests
from emulator.conftest import Org
from salesforce_api import Salesforce, config, exceptions, login

pytestmark = pytest.mark.slow

CLIENT = "salesforce-api"


@pytest.fixture(scope="module")
def client(org: Org) -> Iterator[Salesforce]:
    config.BULK_SLEEP_SECONDS = 0.05
    with requests.Session() as session:
        connection = login.oauth2(
            org.url, org.line["client_id"], org.line["client_secret"], session=session, api_version="62.0"
        )
        yield Salesforce(connection)


def test_login_by_password(org: Org) -> None:
    with requests.Session() as session:
        secrets = (org.line["client_id"], org.line["client_secret"])
        password = org.line["password"] + org.line["security_token"]
        connection = login.oauth2(org.url, *secrets, org.line["username"], password, session=session)
        assert connection.access_token.startswith("00D")
        with pytest.raises(exceptions.AuthenticationError):
            login.oauth2(org.url, *secrets, org.line["username"], "x", session=session)
        with pytest.raises(exceptions.AuthenticationInvalidClientIdError):
            login.oauth2(org.url, "x", "x", session=session)


def test_discovery(client: Salesforce) -> None:
    assert "sobjects" in client.basic.resources()
    assert client.basic.versions()[-1]["version"] == "68.0"
    assert client.basic.limits()["DailyApiRequests"]["Max"] == 100_000
    assert client.sobjects.Account.describe()["name"] == "Account"
    assert client.sobjects.Account.metadata()["objectDescribe"]["name"] == "Account"


def test_records_and_queries(client: Salesforce) -> None:
    customers = client.sobjects.Customer__c
    rid = customers.insert({"Name": "one", "Plan__c": "api"})["id"]
    assert customers.get(rid)["Name"] == "one"
    assert customers.update(rid, {"Name": "two"})
    assert customers.upsert("Code__c", "api-1", {"Name": "three", "Plan__c": "api"})
    names = [
        r["Name"] for r in client.sobjects.query("SELECT Name FROM Customer__c WHERE Plan__c = 'api' ORDER BY Name")
    ]
    assert names == ["three", "two"]
    assert customers.delete(rid)
    with pytest.raises(exceptions.RestResourceNotFoundError):
        customers.get(rid)
    assert len(client.sobjects.query("SELECT Id FROM Customer__c WHERE Plan__c = 'api'", include_deleted=True)) == 2
    with pytest.raises(exceptions.RestRequestCouldNotBeUnderstoodError):
        client.sobjects.Account.insert({})


def test_bulk(client: Salesforce) -> None:
    bulk = client.sobjects.Customer__c.bulk
    done = bulk.insert([{"Name": f"n{i}", "Code__c": f"api-b{i}"} for i in range(3)])
    assert [r.success for r in done] == [True] * 3
    ids = [r.record_id for r in done]
    changed = bulk.update([{"Id": ids[0], "Tier__c": "Gold"}, {"Id": ids[1], "Tier__c": "Tin"}])
    assert sorted((r.record_id, r.success) for r in changed) == sorted([(ids[0], True), (ids[1], False)])
    assert all(r.success for r in bulk.upsert([{"Code__c": "api-b0", "Name": "x"}], "Code__c"))
    assert all(r.success for r in bulk.delete(ids))
    with pytest.raises(exceptions.BulkJobFailedError, match="Nope__c"):
        bulk.insert([{"Nope__c": "x"}])
