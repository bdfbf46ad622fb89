"""OAuth, sessions and discovery, as the wire reference §1 has them."""

from __future__ import annotations

import base64
import contextlib
import hmac
import json
import re
import sqlite3
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jwt
import pytest
import requests
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from werkzeug.test import Client

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


def client_of(org: Org) -> dict[str, str]:
    return {"client_id": org.line["client_id"], "client_secret": org.line["client_secret"]}


@pytest.mark.slow
def test_a_refresh_gives_sessions_until_its_token_is_revoked(launch: Callable[..., Org], tmp_path: Path) -> None:
    org = launch(data=tmp_path / "data")
    form = {"grant_type": "refresh_token", **client_of(org), "refresh_token": org.line["refresh_token"]}
    reply = token(org, **form).json()
    fields = {"access_token", "signature", "scope", "instance_url", "id", "token_type", "issued_at"}
    assert set(reply) == fields
    digest = hmac.digest(org.line["client_secret"].encode(), (reply["id"] + reply["issued_at"]).encode(), "sha256")
    assert base64.b64decode(reply["signature"]) == digest
    other = token(org, grant_type="client_credentials", **client_of(org)).json()
    live = lambda t: requests.get(f"{org.base}/limits", headers={"Authorization": f"Bearer {t}"}, timeout=10)  # noqa: E731
    assert [live(t["access_token"]).status_code for t in (reply, other)] == [200, 200]
    assert requests.post(f"{org.url}/services/oauth2/revoke", data={"token": form["refresh_token"]}, timeout=10).ok
    assert [live(t["access_token"]).status_code for t in (reply, other)] == [401, 200]
    refused = token(org, **form)
    expected = {"error": "invalid_grant", "error_description": "expired access/refresh token"}
    assert (refused.status_code, refused.json()) == (400, expected)
    org.stop()
    again = launch(data=tmp_path / "data")
    assert again.line["refresh_token"] != form["refresh_token"]
    assert token(again, **{**form, "refresh_token": again.line["refresh_token"]}).status_code == 200


def test_the_password_flow_wants_the_security_token_after_the_password(org: Org) -> None:
    who = org.line
    form = {"grant_type": "password", **client_of(org), "username": who["username"].upper()}
    assert token(org, **form, password=who["password"] + who["security_token"]).status_code == 400, (
        "off, as in new orgs"
    )
    assert org.http.post(f"{org.url}/emulator/logins", json={"password_flow": True}).ok
    reply = token(org, **form, password=who["password"] + who["security_token"])
    assert reply.status_code == 200, reply.text
    assert "refresh_token" not in reply.json()
    for username, password in ((who["username"], who["password"]), ("nobody", who["password"] + who["security_token"])):
        refused = token(org, **{**form, "username": username}, password=password)
        expected = {"error": "invalid_grant", "error_description": "authentication failure"}
        assert (refused.status_code, refused.json()) == (400, expected)
    assert token(org, **{**form, "client_secret": "no"}, password="x").json()["error"] == "invalid_client"
    assert org.http.post(f"{org.url}/emulator/logins", json={"password_flow": False}).ok


def test_flows_not_emulated_are_refused_by_name(org: Org) -> None:
    reply = token(org, grant_type="authorization_code", code="a")
    assert reply.json()["error"] == "unsupported_grant_type"
    assert "authorization_code" in reply.json()["error_description"]
    assert token(org).json()["error"] == "unsupported_grant_type"


def test_a_session_ends_when_it_is_not_used_and_the_printed_one_does_not() -> None:
    clock = emulator.Clock(datetime(2026, 1, 1, tzinfo=UTC))
    app = emulator.app(schema=None, data=None, session_s=100, clock=clock)
    try:
        client = Client(app)
        who = app.identity
        form = {"grant_type": "client_credentials", "client_id": who.client_id, "client_secret": who.client_secret}
        fresh = client.post("/services/oauth2/token", data=form).get_json()["access_token"]

        def status(text: str) -> int:
            return client.get("/services/data/v62.0/limits", headers={"Authorization": f"Bearer {text}"}).status_code

        for _ in range(4):  # each call is in the second half of the lifetime, so it is noted
            clock.advance(60)
            assert status(fresh) == 200
        clock.advance(40)
        assert status(fresh) == 200  # in the first half: not noted
        clock.advance(60)
        assert (status(fresh), status(who.access_token)) == (401, 200)
        clock.advance(-60)
        assert status(fresh) == 401
        app.site.sessions.expire(f"Bearer {who.access_token}")
        assert status(who.access_token) == 401
    finally:
        app.close()


def test_a_seed_makes_the_same_org_and_the_same_tokens() -> None:
    def born(seed: int | None) -> list[Any]:
        app = emulator.app(schema=None, data=None, seed=seed)
        try:
            who, client = app.identity, Client(app)
            form = {"grant_type": "client_credentials", "client_id": who.client_id, "client_secret": who.client_secret}
            reply = client.post("/services/oauth2/token", data=form)
            return [who, reply.get_json()["access_token"], reply.headers["X-SFDC-Request-Id"]]
        finally:
            app.close()

    assert born(7) == born(7)
    assert all(a != b for a, b in zip(born(7), born(8), strict=True))
    assert all(a != b for a, b in zip(born(None), born(None), strict=True))


def test_a_folder_of_before_the_password_gets_one(tmp_path: Path) -> None:
    first = emulator.app(schema=None, data=tmp_path)
    who = first.identity
    first.close()
    with contextlib.closing(sqlite3.connect(tmp_path / "org.sqlite")) as db, db:
        db.execute("DELETE FROM meta WHERE key IN ('password', 'security_token', 'refresh_token')")
        db.execute("DROP TABLE token")
        db.execute("CREATE TABLE token (token TEXT PRIMARY KEY, created TEXT NOT NULL)")
        db.execute("INSERT INTO token VALUES (?, '2026-01-01T00:00:00')", (who.access_token,))
    again = emulator.app(schema=None, data=tmp_path)
    try:
        now = again.identity
        assert (now.access_token, now.client_secret) == (who.access_token, who.client_secret)
        assert now.password and now.security_token and now.refresh_token
        session = {"Authorization": f"Bearer {who.access_token}"}
        assert Client(again).get("/services/data/v62.0/limits", headers=session).status_code == 200
    finally:
        again.close()


def test_the_identity_service_refuses_in_one_word(org: Org) -> None:
    who = org.http.get(f"{org.url}/services/oauth2/userinfo").json()["sub"]
    for url in (f"{org.url}/services/oauth2/userinfo", who):
        bad = requests.get(url, headers={"Authorization": "Bearer 00Dnothing!x"}, timeout=10)
        assert (bad.status_code, bad.text) == (403, "Bad_OAuth_Token")
        assert (requests.get(url, timeout=10).status_code, requests.get(url, timeout=10).text) == (
            403, "Missing_OAuth_Token"
        )  # fmt: skip


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
    assert identity["photos"].keys() == info["photos"].keys() == {"picture", "thumbnail"}
    xml = org.http.get(info["sub"], params={"format": "xml"})
    assert (xml.status_code, xml.json()[0]["errorCode"]) == (501, "NOT_EMULATED")


def test_introspection_tells_a_living_token_from_a_dead_one(org: Org) -> None:
    client = {"client_id": org.line["client_id"], "client_secret": org.line["client_secret"]}
    url = f"{org.url}/services/oauth2/introspect"
    alive = requests.post(url, data={**client, "token": org.line["access_token"]}, timeout=10).json()
    assert (alive["active"], alive["username"]) == (True, org.line["username"])
    assert alive["exp"] > alive["iat"]
    assert requests.post(url, data={**client, "token": "x"}, timeout=10).json() == {"active": False}
    stranger = requests.post(url, data={"token": org.line["access_token"]}, timeout=10)
    assert (stranger.status_code, stranger.json()["error"]) == (400, "invalid_client_id")


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
        assert numbers == sorted(numbers) and {51.0, 62.0, 68.0} <= set(numbers)
    labels = {v["version"]: v["label"] for v in versions}
    assert [labels[f"{v}.0"] for v in (65, 66, 67, 68)] == ["Winter '26", "Spring '26", "Summer '26", "Winter '27"]


def test_every_api_reply_counts_and_says_so(org: Org) -> None:
    def used(reply: requests.Response) -> int:
        return int(re.fullmatch(r"api-usage=(\d+)/100000", reply.headers["Sforce-Limit-Info"])[1])  # type: ignore[index]

    first = used(org.get("/limits/"))
    assert used(org.get("/sobjects/Nothing__c/describe")) == first + 1
    assert org.get("/limits").json()["DailyApiRequests"] == {"Max": 100_000, "Remaining": 100_000 - first - 2}


def test_the_daily_limit_refuses_further_calls() -> None:
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


@pytest.fixture
def strict() -> Iterator[tuple[Any, Client]]:
    app = emulator.app(schema=None, data=None, logins=emulator.Logins(app="external_client_app"))
    yield app, Client(app)
    app.close()


def asked(app: Any, client: Client, base: str, **claims: Any) -> tuple[int, str]:
    """Status and `error` of a JWT login at the org's address `base`."""
    who = app.identity
    full = {"iss": who.client_id, "sub": who.username, "exp": int(time.time()) + 180, **claims}
    encode = lambda d: base64.urlsafe_b64encode(json.dumps(d).encode()).decode().rstrip("=")  # noqa: E731
    form = {"grant_type": GRANT, "assertion": f"{encode({'alg': 'RS256'})}.{encode(full)}.c2ln"}
    reply = client.post("/services/oauth2/token", base_url=base, data=form)
    return reply.status_code, reply.get_json().get("error", "")


MINE = "https://acme.my.salesforce.com"


def test_an_external_client_app_wants_the_orgs_own_url_as_audience(strict: tuple[Any, Client]) -> None:
    assert asked(*strict, MINE, aud=MINE) == (200, "")
    for audience in ("https://login.salesforce.com", "https://test.salesforce.com", "https://other.my.salesforce.com"):
        assert asked(*strict, MINE, aud=audience) == (400, "app_not_found"), audience


def test_an_older_org_may_want_the_login_host_alone(strict: tuple[Any, Client]) -> None:
    app, client = strict
    app.logins = emulator.Logins(audience="login_host")
    assert asked(app, client, MINE, aud="https://login.salesforce.com") == (200, "")
    assert asked(app, client, MINE, aud=MINE) == (400, "invalid_grant")
    app.logins = emulator.Logins()
    assert {asked(app, client, MINE, aud=each)[0] for each in (MINE, "https://login.salesforce.com")} == {200}


def test_no_password_logs_in_unless_an_older_org_lets_it(strict: tuple[Any, Client]) -> None:
    app, client = strict
    who = app.identity
    form = {"grant_type": "password", "client_id": who.client_id, "client_secret": who.client_secret,
            "username": who.username, "password": who.password + who.security_token}  # fmt: skip
    for kind, allowed, status in (
        ("external_client_app", False, 400), ("external_client_app", True, 400),
        ("connected_app", False, 400), ("connected_app", True, 200),
    ):  # fmt: skip
        app.logins = emulator.Logins(app=kind, password_flow=allowed)
        assert client.post("/services/oauth2/token", data=form).status_code == status, (kind, allowed)


def test_a_rotated_refresh_token_works_once(strict: tuple[Any, Client]) -> None:
    app, client = strict
    app.logins = emulator.Logins(rotates=True)
    who = app.identity
    form = {"grant_type": "refresh_token", "client_id": who.client_id, "client_secret": who.client_secret}

    def refreshed(given: str) -> Any:
        return client.post("/services/oauth2/token", data={**form, "refresh_token": given}).get_json()

    second = refreshed(who.refresh_token)["refresh_token"]
    assert second != who.refresh_token
    assert refreshed(who.refresh_token)["error"] == "invalid_grant"
    assert refreshed(second)["refresh_token"] not in (second, who.refresh_token)


def test_the_logins_are_changed_while_it_runs_and_a_wrong_one_is_named(org: Org) -> None:
    url = f"{org.url}/emulator/logins"
    before = requests.get(url, timeout=10).json()
    assert before == emulator.Logins().json()
    assert org.http.post(url, json={"refuses": "app_blocked"}).json()["refuses"] == "app_blocked"
    try:
        assert token(org, grant_type="client_credentials").json()["error"] == "OAUTH_APP_BLOCKED"
        for wrong in ({"app": "x"}, {"audience": 1}, {"refuses": "nothing"}, {"flow": True}):
            reply = org.http.post(url, json=wrong)
            assert (reply.status_code, next(iter(wrong)) in reply.text) == (400, True), reply.text
    finally:
        assert org.http.post(url, json=before).json() == before


@pytest.mark.parametrize(
    ("version", "code"),
    [("30.0", "UNSUPPORTED_API_VERSION"), ("62.0", "INVALID_OPERATION"), ("65.0", "INVALID_OPERATION")],
)
def test_soap_login_is_off(org: Org, version: str, code: str) -> None:
    body = "<Envelope><Body><n1:login><username>a</username></n1:login></Body></Envelope>"
    reply = requests.post(f"{org.url}/services/Soap/u/{version}", data=body, timeout=10)
    assert (reply.status_code, f"<faultcode>sf:{code}</faultcode>" in reply.text) == (500, True)
    other = requests.post(f"{org.url}/services/Soap/u/{version}", data="<query/>", timeout=10)
    assert other.status_code == 501
