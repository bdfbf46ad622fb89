"""The live-org tests that the jsforce package itself shipped, up to 1.9.3, run unchanged.

Their login is SOAP, which the emulator refuses by name; a stand-in answers that one call with the org's token. Their
org is a Developer Edition with the test suite's package: its objects and some records are made here first. What then
still fails is listed, each with what it needs, and nothing else may fail or pass.
"""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from emulator.conftest import Org, start, write_object

pytestmark = pytest.mark.slow

CLIENT = "jsforce 1"
BIG, UPSERT = "BigTable__c", "UpsertTable__c"
ROWS = 2_200
# Every file ends with a hook that has Apex clean up, which is not emulated.
PASSED = {"connection-crud": 18, "connection-meta": 12, "query": 12, "sobject": 12}
CLEAN = '"after all" hook in "{}"'
NEEDS = {
    "connection-crud": {},
    "connection-meta": {
        "get recently accessed records should return recently viewed records in all object": "recent",
        "get tabs list information should get tabs info in the org": "tabs",
        "get theme information should get theme info in the org": "theme",
    },
    "query": {
        "explain query plan of soql query should get explain result": "explain",
        "update queried records using Query#update, with allowBulk = false should return updated status": "Bulk 1.0",
        "update queried records using Query#update, with allowBulk = false then query updated records "
        "should return updated records": "Bulk 1.0",
        "delete queried records using Query#destroy, with allowBulk = false should return deleted status": "Bulk 1.0",
    },
    "sobject": {
        "list layout for SObject should return Account layout information": "layouts",
        "list layout for SObject should return Account layout information immediately": "layouts",
        "list named layout for SObject should return User named layout information": "layouts",
        "list named layout for SObject should return User named layout information immediately": "layouts",
        "list compact layout for SObject should return Account comact layout information": "layouts",
        "list compact layout for SObject should return Account comapct layout information immediately": "layouts",
        "list approval layout for SObject should return Account approval layout information": "layouts",
        "list approval layout for SObject should return Account approval layout information immediately": "layouts",
        "listup list views should return list views definitions on the sobject": "list views",
        "describe list view should return described list view info for given list view id": "list views",
        "get result of list view should return executed result of list view for given list view id": "list views",
        "explain query plan of list view should get explain result": "explain",
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def org(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Org]:
    """What the suite's `org-setup` makes, and the sample records of a Developer Edition that its tests rely on."""
    schema = tmp_path_factory.mktemp("force-app")
    write_object(schema, BIG, "BigTable", {}, "<type>AutoNumber</type><displayFormat>{00000000}</displayFormat>")
    write_object(schema, UPSERT, UPSERT, {"ExtId__c": ("Text", "<length>255</length><externalId>true</externalId>")})
    running = start(schema=schema, data=tmp_path_factory.mktemp("data"))
    for _ in range(ROWS // 200):
        _make(running, [{"attributes": {"type": BIG}}] * 200)
    accounts = _make(
        running, [{"attributes": {"type": "Account"}, "Name": n} for n in ("Acme", "Burlington", "Cirrus")]
    )
    for at, account in enumerate(accounts):
        person = {"attributes": {"type": "Contact"}, "FirstName": "Ann", "LastName": f"{at}", "AccountId": account}
        deal = {
            "attributes": {"type": "Opportunity"}, "Name": f"{at}", "AccountId": account, "StageName": "Closed Won",
            "CloseDate": f"2024-01-0{at + 1}",
        }  # fmt: skip
        _make(running, [person, deal])
    yield running
    running.stop()


def _make(org: Org, records: list[dict[str, Any]]) -> list[str]:
    made = org.post("/composite/sobjects", {"records": records}).json()
    assert all(each["success"] for each in made), made
    return [each["id"] for each in made]


@pytest.fixture(scope="module")
def login_url(org: Org) -> Iterator[str]:
    """Where jsforce logs in: any SOAP call gets the org's token, and the identity service is the org's own."""
    user = org.query("SELECT Id FROM User LIMIT 1")[0]["Id"]
    line = org.line
    told = (
        f"<loginResponse><result><serverUrl>{line['instance_url']}/services/Soap/u/42.0</serverUrl>"
        f"<sessionId>{line['access_token']}</sessionId><userId>{user}</userId>"
        f"<organizationId>{line['organization_id']}</organizationId></result></loginResponse>"
    ).encode()

    class Login(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self._reply(200, told, ("Content-Type", "text/xml"))

        def do_GET(self) -> None:
            self._reply(307, b"", ("Location", line["https_url"] + self.path))

        def _reply(self, status: int, body: bytes, header: tuple[str, str]) -> None:
            self.send_response(status)
            self.send_header(*header)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Login) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("name", NEEDS)
def test_the_suite_of_the_jsforce_package(
    node_packages: Callable[[str], Path], org: Org, login_url: str, name: str
) -> None:
    packages = node_packages("jsforce1")
    environment = {
        **os.environ, "NODE_PATH": str(packages), "NODE_EXTRA_CA_CERTS": org.line["ca_file"],
        "SF_LOGIN_URL": login_url, "SF_USERNAME": org.line["username"], "SF_PASSWORD": "any",
    }  # fmt: skip
    done = subprocess.run(
        ["node", packages / "mocha/bin/mocha.js", "--exit", "--reporter=json", f"test/{name}.test.js"],
        cwd=packages / "jsforce", env=environment, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.stdout.lstrip().startswith("{"), done.stdout + done.stderr
    report = json.loads(done.stdout)
    failed = {each["fullTitle"].removeprefix(f"{name} "): each["err"].get("message") for each in report["failures"]}
    expected = {CLEAN.format(name), *NEEDS[name]}
    assert failed.keys() == expected, failed
    assert len(report["passes"]) == PASSED[name]
