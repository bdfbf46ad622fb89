"""aiosalesforce, unchanged: httpx and asyncio, written independently of the other clients.

It takes no base URL but `https://NAME.my.salesforce.com`; the caller's httpx client takes that to the org.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest
from aiosalesforce import ClientCredentialsFlow, JwtBearerFlow, Salesforce
from aiosalesforce.auth import Auth
from aiosalesforce.exceptions import AuthenticationError, SalesforceError
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from emulator.conftest import Org

pytestmark = pytest.mark.slow

CLIENT = "aiosalesforce"
T = TypeVar("T")
Run = Callable[[Callable[[Salesforce], Awaitable[T]]], T]


class ToOrg(httpx.AsyncHTTPTransport):
    """Every host is the org."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.url = httpx.URL(url)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        request.url = request.url.copy_with(scheme=self.url.scheme, host=self.url.host, port=self.url.port)
        return await super().handle_async_request(request)


def run(org: Org, work: Callable[[Salesforce], Awaitable[T]], auth: Auth | None = None) -> T:
    async def whole() -> T:
        async with httpx.AsyncClient(transport=ToOrg(org.url)) as client:
            flow = auth or ClientCredentialsFlow(org.line["client_id"], org.line["client_secret"])
            return await work(Salesforce(client, "https://acme.my.salesforce.com", flow, version="62.0"))

    return asyncio.run(whole())


async def _limits(sf: Salesforce) -> dict[str, Any]:
    return await sf.get_limits()


def test_login_by_client_credentials(org: Org) -> None:
    assert run(org, _limits)["DailyApiRequests"]["Max"] == 100_000
    with pytest.raises(AuthenticationError, match="invalid_client"):
        run(org, _limits, ClientCredentialsFlow(org.line["client_id"], "x"))


def test_login_by_jwt(org: Org, tmp_path: Path) -> None:
    pem = rsa.generate_private_key(65537, 2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )  # fmt: skip
    (tmp_path / "key.pem").write_bytes(pem)
    flow = JwtBearerFlow(org.line["client_id"], org.line["username"], tmp_path / "key.pem")
    assert run(org, _limits, flow)["DailyApiRequests"]["Max"] == 100_000


def test_a_session_that_ended_is_renewed(org: Org) -> None:
    async def work(sf: Salesforce) -> str:
        token = await sf.auth.get_access_token(sf)
        org.http.post(f"{org.url}/emulator/faults", json={"kind": "session_expired", "times": 1}).raise_for_status()
        await sf.get_limits()
        return f"{token} {await sf.auth.get_access_token(sf)}"

    before, after = run(org, work).split()
    assert before != after


def test_records(org: Org) -> None:
    async def work(sf: Salesforce) -> None:
        rid = await sf.sobject.create("Customer__c", {"Name": "one", "Code__c": "aio 1"})
        assert (await sf.sobject.get("Customer__c", rid, fields=["Name"]))["Name"] == "one"
        assert (await sf.sobject.get("Customer__c", "aio 1", external_id_field="Code__c"))["Id"] == rid
        await sf.sobject.update("Customer__c", rid, {"Name": "two"})
        again = await sf.sobject.upsert("Customer__c", "aio 1", "Code__c", {"Name": "three"})
        assert (again.id, again.created) == (rid, False)
        new = await sf.sobject.upsert(
            "Customer__c", "aio-2", "Code__c", {"Code__c": "aio-2", "Name": "n"}, validate=True
        )
        assert new.created
        await sf.sobject.delete("Customer__c", "aio-2", external_id_field="Code__c")
        await sf.sobject.delete("Customer__c", rid)
        with pytest.raises(SalesforceError) as caught:
            await sf.sobject.get("Customer__c", rid)
        assert caught.value.error_code == "NOT_FOUND"
        with pytest.raises(SalesforceError) as caught:
            await sf.sobject.create("Account", {})
        assert caught.value.error_code == "REQUIRED_FIELD_MISSING"

    run(org, work)


def test_bulk_and_queries(org: Org) -> None:
    async def load(sf: Salesforce, operation: Any, rows: list[dict[str, Any]], **more: Any) -> Any:
        results = sf.bulk_v2.ingest.perform_operation(operation, "Customer__c", rows, polling_interval=0.05, **more)
        (result,) = [each async for each in results]
        return result

    async def work(sf: Salesforce) -> None:
        rows = [
            {"Name": f'q "{i}",\né', "Code__c": f"aio-b{i}", "Plan__c": "aio", "Active__c": True} for i in range(2100)
        ]
        done = await load(sf, "insert", rows)
        assert (done.job_info.state, len(done.successful_results)) == ("JobComplete", 2100)
        assert (done.failed_results, done.unprocessed_records) == ([], [])
        ids = [r["sf__Id"] for r in done.successful_results]
        found = [r async for r in sf.query("SELECT Id FROM Customer__c WHERE Plan__c = 'aio'")]
        assert {r["Id"] for r in found} == set(ids)
        done = await load(sf, "update", [{"Id": ids[0], "Tier__c": "Gold"}, {"Id": ids[1], "Tier__c": "Tin"}])
        assert [len(done.successful_results), len(done.failed_results)] == [1, 1]
        upserts = [{"Code__c": "aio-b0", "Name": "x"}, {"Code__c": "aio-new", "Name": "y"}]
        done = await load(sf, "upsert", upserts, external_id_field="Code__c")
        assert sorted(r["sf__Created"] for r in done.successful_results) == ["false", "true"]
        done = await load(sf, "delete", [{"Id": ids[0]}])
        assert len(done.successful_results) == 1
        everything = sf.query("SELECT Id FROM Customer__c WHERE Plan__c = 'aio'", include_all_records=True)
        assert len([r async for r in everything]) == 2100
        jobs = [job async for job in sf.bulk_v2.ingest.list_jobs()]
        assert done.job_info.id in {job.id for job in jobs}
        job = await sf.bulk_v2.ingest.create_job("insert", "Customer__c")
        assert (await sf.bulk_v2.ingest.abort_job(job.id)).state == "Aborted"
        await sf.bulk_v2.ingest.delete_job(job.id)
        with pytest.raises(SalesforceError) as caught:
            await sf.bulk_v2.ingest.get_job(job.id)
        assert caught.value.error_code == "NOT_FOUND"

    run(org, work)
