"""OAuth, sessions and discovery, as the wire reference §1 has them."""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Callable
from typing import Any

import jwt
import pytest
import requests
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from dinmo_dbt import emulator

from .conftest import Org

GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"


def assertion(org: Org, **claims: Any) -> str:
    full = {"iss": org.line["client_id"], "sub": org.line["username"], "aud": "https://login.salesforce.com",
            "exp": int(time.time()) + 180, **claims}  # fmt: skip
    head, body = ({"alg": "RS256"}, full)
    encode = lambda d: base64.urlsafe_b64encode(json.dumps(d).encode()).decode().rstrip("=")  # noqa: E731
    return f"{encode(head)}.{encode(body)}.c2lnbmF0dXJl"


def token(org: Org, **form: str) -> requests.Response:
    return requests.post(f"{org.url}/services/oauth2/token", data=form, timeout=10)


@pytest.mark.parametrize(
    "claims_at",
    [
        lambda now: {"exp": str(int(now) + 180)},
        lambda now: {"exp": int(now * 1000) + 300},
        lambda now: {"exp": int(now)},
        lambda now: {"aud": "https://test.salesforce.com/"},
        lambda now: {"aud": "http://localhost:8911/"},
    ],
    ids=["text", "milliseconds", "expired on arrival", "sandbox", "own url"],
)
def test_the_jwt_flow_accepts_what_real_clients_send(org: Org, claims_at: Callable[[float], dict[str, Any]]) -> None:
    reply = token(org, grant_type=GRANT, assertion=assertion(org, **claims_at(time.time())))
    assert reply.status_code == 200, reply.text
    body = reply.json()
    assert re.fullmatch(r"00D\w{12,15}![.\w]*", body["access_token"])
    assert body["id"].endswith(f"/id/{org.line['organization_id']}/" + body["id"][-18:])
    assert body["instance_url"] == org.url
    session = {"Authorization": f"Bearer {body['access_token']}"}
    assert requests.get(f"{org.base}/limits/", headers=session, timeout=10).status_code == 200


@pytest.mark.parametrize(
    ("claims", "error"),
    [
        ({"iss": "somebody"}, "invalid_client_id"),
        ({"sub": "nobody@example.com"}, "invalid_grant"),
        ({"aud": "https://example.com"}, "invalid_grant"),
        ({"exp": int(time.time()) - 3600}, "invalid_grant"),
        ({"exp": "soon"}, "invalid_grant"),
    ],
)
def test_the_jwt_flow_refuses_in_salesforce_words(org: Org, claims: dict[str, Any], error: str) -> None:
    reply = token(org, grant_type=GRANT, assertion=assertion(org, **claims))
    assert (reply.status_code, reply.json()["error"]) == (400, error)
    assert reply.headers["Cache-Control"] == "no-store"


def test_a_broken_assertion_is_an_invalid_grant(org: Org) -> None:
    for text in ("", "a.b", "a.b.c", "e30.e30.e30"):
        assert token(org, grant_type=GRANT, assertion=text).json()["error"] == "invalid_grant"


def test_signatures_are_verified_when_a_key_is_configured() -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    app = emulator.app(schema=None, data=None, public_key=public.decode())
    try:
        who = app.identity
        claims = {"iss": who.client_id, "sub": who.username, "aud": "https://login.salesforce.com",
                  "exp": int(time.time()) + 60}  # fmt: skip
        from werkzeug.test import Client

        client = Client(app)
        good = {"grant_type": GRANT, "assertion": jwt.encode(claims, key, algorithm="RS256")}
        assert client.post("/services/oauth2/token", data=good).status_code == 200
        other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        bad = {"grant_type": GRANT, "assertion": jwt.encode(claims, other, algorithm="RS256")}
        assert client.post("/services/oauth2/token", data=bad).status_code == 400
    finally:
        app.close()


def test_client_credentials_come_in_the_body_or_as_basic(org: Org) -> None:
    pair = (org.line["client_id"], org.line["client_secret"])
    url = f"{org.url}/services/oauth2/token"
    form = {"grant_type": "client_credentials"}
    basic = requests.post(url, data=form, auth=pair, timeout=10)
    body = requests.post(url, data={**form, "client_id": pair[0], "client_secret": pair[1]}, timeout=10)
    for reply in (basic, body):
        assert reply.status_code == 200
        assert reply.json()["issued_at"].isdigit()
    wrong = requests.post(url, data=form, auth=(pair[0], "no"), timeout=10)
    assert (wrong.status_code, wrong.json()["error"]) == (400, "invalid_client")
    unknown = requests.post(url, data=form, auth=("no", pair[1]), timeout=10)
    assert unknown.json()["error"] == "invalid_client_id"


def test_flows_not_emulated_are_refused_by_name(org: Org) -> None:
    reply = token(org, grant_type="password", username="a", password="b")
    assert reply.json()["error"] == "unsupported_grant_type"
    assert "password" in reply.json()["error_description"]


def test_a_bad_session_is_a_json_list(org: Org) -> None:
    for headers in ({}, {"Authorization": "Bearer 00Dnothing!x"}):
        reply = requests.get(f"{org.base}/limits", headers=headers, timeout=10)
        assert reply.status_code == 401
        assert reply.json() == [{"message": "Session expired or invalid", "errorCode": "INVALID_SESSION_ID"}]


def test_userinfo_and_identity_name_the_user(org: Org) -> None:
    info = org.http.get(f"{org.url}/services/oauth2/userinfo").json()
    assert info["organization_id"] == org.line["organization_id"]
    assert info["preferred_username"] == org.line["username"]
    user = org.read("User", info["user_id"])
    assert user["Username"] == org.line["username"]
    identity = requests.get(info["sub"], params={"oauth_token": org.line["access_token"]}, timeout=10).json()
    assert (identity["username"], identity["user_id"]) == (org.line["username"], info["user_id"])


def test_a_revoked_token_is_dead(org: Org) -> None:
    form = {"grant_type": "client_credentials"}
    pair = (org.line["client_id"], org.line["client_secret"])
    fresh = requests.post(f"{org.url}/services/oauth2/token", data=form, auth=pair, timeout=10).json()
    session = {"Authorization": f"Bearer {fresh['access_token']}"}
    assert requests.get(f"{org.base}/limits", headers=session, timeout=10).status_code == 200
    requests.post(f"{org.url}/services/oauth2/revoke", data={"token": fresh["access_token"]}, timeout=10)
    assert requests.get(f"{org.base}/limits", headers=session, timeout=10).status_code == 401


def test_versions_ascend_and_need_no_session(org: Org) -> None:
    for path in ("/services/data", "/services/data/"):
        versions = requests.get(org.url + path, timeout=10).json()
        numbers = [float(v["version"]) for v in versions]
        assert numbers == sorted(numbers) and {51.0, 62.0, 67.0} <= set(numbers)
    labels = {v["version"]: v["label"] for v in versions}
    assert (labels["65.0"], labels["66.0"], labels["67.0"]) == ("Winter '26", "Spring '26", "Summer '26")


def test_every_api_reply_counts_and_says_so(org: Org) -> None:
    def used(reply: requests.Response) -> int:
        return int(re.fullmatch(r"api-usage=(\d+)/100000", reply.headers["Sforce-Limit-Info"])[1])  # type: ignore[index]

    first = used(org.get("/limits/"))
    assert used(org.get("/sobjects/Nothing__c/describe")) == first + 1
    assert org.get("/limits").json()["DailyApiRequests"] == {"Max": 100_000, "Remaining": 100_000 - first - 2}


def test_the_daily_limit_refuses_further_calls() -> None:
    from werkzeug.test import Client

    app = emulator.app(schema=None, data=None, daily_api_requests=2)
    try:
        session = {"Authorization": f"Bearer {app.identity.access_token}"}
        codes = [Client(app).get("/services/data/v62.0/limits", headers=session).status_code for _ in range(3)]
        assert codes == [200, 200, 403]
    finally:
        app.close()


def test_what_is_not_emulated_is_named(org: Org) -> None:
    reply = org.post("/composite/tree/Account", {"records": []})
    assert reply.status_code == 501
    assert "composite/tree/Account" in reply.json()[0]["message"]
    assert org.get("/nonsense").json()[0]["errorCode"] == "NOT_FOUND"
    assert org.http.put(f"{org.base}/limits").status_code == 405


def test_a_uri_over_16_kb_is_refused(org: Org) -> None:
    reply = org.get("/query", params={"q": "SELECT Id FROM Account WHERE Name = '" + "x" * 17_000 + "'"})
    assert reply.status_code == 414


def test_pretty_print_and_gzip_are_honoured(org: Org) -> None:
    pretty = org.get("/limits", headers={"X-PrettyPrint": "1"})
    assert '"Max" : ' in pretty.text
    packed = org.get("/sobjects", headers={"Accept-Encoding": "gzip"})
    assert packed.headers["Content-Encoding"] == "gzip"
    assert packed.json()["maxBatchSize"] == 200
    plain = org.get("/sobjects", headers={"Accept-Encoding": "identity"})
    assert "Content-Encoding" not in plain.headers
