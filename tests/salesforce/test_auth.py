"""Logging in: what is sent, which org is accepted, and that errors say what to do without saying a secret."""

import base64
import random
from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qs

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from mounted_org import URL, mounted

from dinmo_dbt import emulator
from dinmo_dbt.emulator.logins import REFUSALS as LOGIN_REFUSALS
from dinmo_dbt.errors import AuthError, DinmoError
from dinmo_dbt.org import Credentials, Org, Secret
from dinmo_dbt.salesforce import auth, connect
from dinmo_dbt.salesforce.refusals import REFUSALS, refused

from . import setup_page
from .scripted_org import ORG_ID, TOKEN, USERINFO, VERSION, Answer, token_reply

NOW = 1_700_000_000


@pytest.fixture(scope="module")
def key():
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@pytest.fixture
def log_in(server, tmp_path, naps):
    def log_in(credentials: Credentials, organization_id: str | None = None):
        org = Org("crm", "prod", credentials, organization_id=organization_id)
        return connect(org, scratch=tmp_path, sleep=naps.append, rng=random.Random(1), now=lambda: NOW + 0.9)

    return log_in


@pytest.fixture
def by_jwt(server, tmp_path, key):
    path = tmp_path / "key.pem"
    form = serialization.PrivateFormat.PKCS8
    path.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
    return Credentials("jwt", server.url, client_id="app", username="u@example.com", private_key_path=path)


@pytest.fixture
def by_secret(server):
    return Credentials("client_credentials", server.url, client_id="app", client_secret=Secret("CANARY_SECRET"))


def test_the_jwt_is_signed_short_lived_and_of_integers(server, log_in, by_jwt, key):
    server.on("POST", "/services/oauth2/token", token_reply(server))
    destination = log_in(by_jwt, ORG_ID)
    form = parse_qs(server.seen[0].body.decode())
    assert form["grant_type"] == ["urn:ietf:params:oauth:grant-type:jwt-bearer"]
    options = {"verify_exp": False}
    claims = jwt.decode(form["assertion"][0], key.public_key(), ["RS256"], options, audience=server.url)
    assert claims == {"iss": "app", "sub": "u@example.com", "aud": server.url, "exp": NOW + 180}
    assert (destination.org_id, destination.username, destination.calls) == (ORG_ID, "u@example.com", 1)


def test_client_credentials_travel_in_the_header_not_in_the_body(server, log_in, by_secret):
    server.on("POST", "/services/oauth2/token", token_reply(server))
    destination = log_in(by_secret)
    sent = server.seen[0]
    assert sent.headers["Authorization"] == "Basic " + base64.b64encode(b"app:CANARY_SECRET").decode()
    assert sent.body == b"grant_type=client_credentials"
    assert destination.username == USERINFO["preferred_username"]


def test_a_token_without_identity_is_asked_for_its_org(server, log_in, by_secret):
    server.on("POST", "/services/oauth2/token", token_reply(server, id=None))
    assert log_in(by_secret).org_id == ORG_ID


def test_a_token_without_an_identity_scope_still_tells_its_org(server, log_in):
    server.on("GET", "/services/oauth2/userinfo", Answer(403, b"Bad_OAuth_Token"))
    identity = f"{server.url}/id/{ORG_ID[:15]}/005000000000001"
    server.on("GET", VERSION, Answer(200, {"identity": identity}))
    credentials = Credentials("access_token", instance_url=server.url, access_token=Secret(TOKEN + "\n"))
    assert log_in(credentials).org_id == ORG_ID


def test_a_refused_access_token_is_reported_plainly(server, log_in):
    server.on("GET", "/services/oauth2/userinfo", Answer(403, b"Bad_OAuth_Token"))
    server.on("GET", VERSION, Answer(401, [{"errorCode": "INVALID_SESSION_ID"}]))
    with pytest.raises(AuthError, match="DB604"):
        log_in(Credentials("access_token", instance_url=server.url, access_token=Secret(TOKEN)))


def test_any_org_but_the_pinned_one_is_refused(server, log_in, by_secret):
    server.on("POST", "/services/oauth2/token", token_reply(server))
    with pytest.raises(AuthError, match="DB602"):
        log_in(by_secret, "00D000000000002EAA")
    assert log_in(by_secret, ORG_ID[:15]).org_id == ORG_ID


def test_a_token_reply_may_not_name_a_strange_host(server, log_in, by_secret):
    server.on("POST", "/services/oauth2/token", token_reply(server, instance_url="https://evil.example"))
    with pytest.raises(AuthError, match="DB603"):
        log_in(by_secret)


def test_a_login_server_that_redirects_gets_nothing_more(server, other_server, log_in, by_secret):
    server.on("POST", "/services/oauth2/token", Answer(302, None, {"Location": other_server.url}))
    with pytest.raises(AuthError, match="DB601"):
        log_in(by_secret)
    assert other_server.seen == []


def test_a_login_server_that_is_down_is_asked_again_within_a_bound(server, log_in, by_secret, naps):
    server.on("POST", "/services/oauth2/token", Answer(503, b"<html>"), Answer(cut=0), token_reply(server))
    assert log_in(by_secret).org_id == ORG_ID
    server.on("POST", "/services/oauth2/token", Answer(503, b"<html>"))
    with pytest.raises(AuthError, match="no answer"):
        log_in(by_secret)


@pytest.mark.parametrize(
    ("error", "description", "told"),
    [
        ("invalid_grant", "user hasn't approved this consumer", "Admin approved users"),
        ("invalid_grant", "audience is invalid", "My Domain"),
        ("invalid_grant", "expired authorization code", "clock"),
        ("invalid_grant", "ip restricted or invalid login hours", "Login IP Ranges"),
        ("invalid_grant", "no client credentials user enabled", "Run As"),
        ("invalid_grant", "authentication failure CANARY_SECRET", "does not accept"),
        ("app_not_found", "External client app is not installed in this org", "External Client App Manager"),
        ("invalid_grant", "expired access/refresh token", "Refresh Token Policy"),
        ("invalid_client_id", "client identifier invalid", "client id"),
        ("invalid_client", "invalid client credentials", "do not fit"),
        ("invalid_app_access", "user is not admin approved to access this app", "Use Any API Client"),
        ("OAUTH_APP_BLOCKED", "this app is blocked by admin", "Unblock"),
        ("OAUTH_EC_APP_NOT_FOUND", "External client app is not installed in this org", "Install"),
        ("inactive_user", "user is inactive", "Setup -> Users"),
        ("inactive_org", "", "administrator"),
        ("invalid_grant", "user is locked", "Unlock"),
        ("rate_limit_exceeded", None, "wait an hour"),
        ("unsupported_grant_type", None, "OAuth"),
        ("CANARY_SECRET", "CANARY_SECRET", "Login History"),
    ],
)
def test_each_oauth_error_says_what_to_do_and_no_secret(server, log_in, by_secret, error, description, told):
    content = {"error": error, "error_description": description, "echo": "CANARY_SECRET"}
    server.on("POST", "/services/oauth2/token", Answer(400, content))
    with pytest.raises(AuthError, match="DB601") as caught:
        log_in(by_secret)
    assert told in str(caught.value)
    assert "CANARY" not in str(caught.value) + repr(caught.value)


def test_a_key_that_is_none_is_reported_without_its_text(server, log_in, by_jwt, tmp_path):
    by_jwt.private_key_path.write_text("-----BEGIN PRIVATE KEY-----\nCANARY\n-----END PRIVATE KEY-----\n")
    with pytest.raises(AuthError) as caught:
        log_in(by_jwt)
    assert "RSA private key" in str(caught.value) and "CANARY" not in str(caught.value)
    by_jwt.private_key_path.unlink()
    with pytest.raises(AuthError, match="can't be read"):
        log_in(by_jwt)
    assert server.seen == []


@pytest.mark.parametrize(
    ("kind", "told"),
    [("public", "a public key"), ("passphrase", "has a passphrase"), ("elliptic", "another kind"), ("der", "PEM"),
     ("short", "1024 bits"), ("certificate", "a certificate")],
)  # fmt: skip
def test_a_file_of_another_kind_than_the_key_is_named_by_its_kind(server, log_in, by_jwt, kind, told):
    from cryptography.hazmat.primitives.asymmetric import ec, rsa
    from cryptography.hazmat.primitives.serialization import BestAvailableEncryption as Encrypted
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

    key = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    plain = (PrivateFormat.TraditionalOpenSSL, NoEncryption())
    texts = {
        "public": lambda: key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        "passphrase": lambda: key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, Encrypted(b"x")),
        "elliptic": lambda: ec.generate_private_key(ec.SECP256R1()).private_bytes(Encoding.PEM, *plain),
        "der": lambda: key.private_bytes(Encoding.DER, *plain),
        "short": lambda: key.private_bytes(Encoding.PEM, *plain),
        "certificate": lambda: b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    }
    by_jwt.private_key_path.write_bytes(texts[kind]())
    with pytest.raises(AuthError, match="DB601") as caught:
        log_in(by_jwt)
    assert told in str(caught.value)
    assert server.seen == []


@pytest.mark.parametrize(
    ("url", "others"),
    [
        ("https://login.salesforce.com", []),
        ("https://test.salesforce.com", []),
        ("https://acme.my.salesforce.com", ["https://login.salesforce.com"]),
        ("https://acme-dev-ed.develop.my.salesforce.com", ["https://login.salesforce.com"]),
        ("https://acme--uat.sandbox.my.salesforce.com", ["https://test.salesforce.com"]),
        ("https://acme--uat.my.salesforce.com", ["https://test.salesforce.com"]),
        ("https://acme.scratch.my.salesforce.com", ["https://test.salesforce.com"]),
        ("https://acme.my.salesforce.mil", ["https://login.salesforce.com"]),
        ("http://127.0.0.1:8911", ["https://login.salesforce.com"]),
    ],
)
def test_the_audience_is_the_orgs_own_url_then_the_login_server_that_orgs_share(url, others):
    assert auth.audiences(url) == (url, *others)
    assert auth.audiences(url, "https://pinned.example") == ("https://pinned.example",)


NOT_INSTALLED = {"error": "app_not_found", "error_description": "External client app is not installed in this org"}
NOT_APPROVED = {"error": "invalid_grant", "error_description": "user hasn't approved this consumer"}
WRONG_AUDIENCE = {"error": "invalid_grant", "error_description": "audience is invalid"}
GENERIC = "https://login.salesforce.com"


def audiences_sent(server):
    forms = [parse_qs(seen.body.decode()) for seen in server.asked("POST", "/services/oauth2/token")]
    options = {"verify_signature": False}
    return [jwt.decode(form["assertion"][0], options=options)["aud"] for form in forms]


@pytest.mark.parametrize("first", [NOT_INSTALLED, NOT_APPROVED, WRONG_AUDIENCE])
def test_an_org_that_wants_the_other_audience_gets_it(server, log_in, by_jwt, first):
    server.on("POST", "/services/oauth2/token", Answer(400, first), token_reply(server))
    destination = log_in(by_jwt)
    assert audiences_sent(server) == [server.url, GENERIC]
    # A renewal begins with the one that was taken.
    server.refuses_token = TOKEN
    server.on("POST", "/services/oauth2/token", token_reply(server, token="00D!second"))
    server.on("GET", "limits", Answer(200, {}))
    destination._client.get("limits")
    assert audiences_sent(server) == [server.url, GENERIC, GENERIC]


def test_a_refusal_shows_the_answer_to_each_audience_and_no_secret(server, log_in, by_jwt):
    server.on("POST", "/services/oauth2/token", Answer(400, NOT_INSTALLED), Answer(400, NOT_APPROVED))
    with pytest.raises(AuthError, match="DB601") as caught:
        log_in(by_jwt)
    told = str(caught.value)
    assert audiences_sent(server) == [server.url, GENERIC]
    for part in (f"for audience {server.url} (app_not_found)", f"for audience {GENERIC} (invalid_grant)",
                 "External Client App Manager", "Admin approved users"):  # fmt: skip
        assert part in told
    assert not [form for form in server.seen[0].body.decode().split("assertion=")[1:] if form in told]


def test_other_refusals_and_a_pinned_audience_are_asked_for_once(server, log_in, by_jwt):
    server.on("POST", "/services/oauth2/token", Answer(400, {"error": "inactive_user"}))
    with pytest.raises(AuthError, match="the user is inactive"):
        log_in(by_jwt)
    server.on("POST", "/services/oauth2/token", Answer(400, NOT_INSTALLED))
    with pytest.raises(AuthError, match="not installed"):
        log_in(replace(by_jwt, audience="https://acme.my.salesforce.com"))
    assert audiences_sent(server) == [server.url, "https://acme.my.salesforce.com"]


@pytest.mark.parametrize("name", LOGIN_REFUSALS)
def test_the_doctor_knows_what_mends_each_refusal_of_the_emulators(name):
    error, description = LOGIN_REFUSALS[name]
    found = refused({"error": error, "error_description": description})
    assert found.refusal is not REFUSALS[-1], "there is no row for it"
    assert found.code == error.lower()
    mend = found.refusal.mend
    assert "Setup -> " in mend or name in ("expired", "org_inactive"), mend


@pytest.mark.parametrize(
    ("logins", "sent"),
    [
        (emulator.Logins(app="external_client_app"), [URL]),
        (emulator.Logins(audience="login_host"), [URL, GENERIC]),
    ],
)
def test_orgs_of_either_kind_let_us_in(by_jwt, tmp_path, logins, sent, monkeypatch):
    clock = emulator.Clock()
    app = emulator.app(schema=None, data=None, clock=clock, logins=logins)
    seen, asked = [], auth._assertion

    def noted(who, audience, now):
        seen.append(audience)
        return asked(who, audience, now)

    monkeypatch.setattr(auth, "_assertion", noted)
    who = replace(by_jwt, login_url=URL, client_id=app.identity.client_id, username=app.identity.username)
    try:
        with mounted(app.adapter):
            found = connect(
                Org("crm", "prod", who),
                scratch=tmp_path,
                sleep=lambda _: None,
                rng=random.Random(1),
                now=lambda: clock().timestamp(),
            )
        assert (found.org_id, seen) == (app.identity.organization_id, sent)
    finally:
        app.close()


def test_client_credentials_need_the_my_domain(log_in):
    credentials = Credentials(
        "client_credentials", "https://login.salesforce.com", client_id="app", client_secret=Secret("CANARY")
    )
    with pytest.raises(AuthError, match="My Domain"):
        log_in(credentials)


def test_ids_of_15_characters_gain_their_suffix():
    assert auth.id_18("001A0000006Vm9r") == "001A0000006Vm9rIAC"
    assert auth.id_18("a00B000000FSjVUIA1") == "a00B000000FSjVUIA1"


def test_the_setup_page_has_a_row_for_each_refusal_and_no_other():
    page = (Path(__file__).parents[2] / "docs" / "salesforce-setup.md").read_text(encoding="utf-8")
    table = page.partition("<!-- refusals -->\n")[2].partition("<!-- end -->")[0]
    assert table.splitlines()[2:] == setup_page.rows()


@pytest.mark.parametrize(
    ("status", "code", "screen"),
    [
        (403, "API_DISABLED_FOR_ORG", "API Enabled"),
        (403, "REQUEST_LIMIT_EXCEEDED", "Setup -> Company Information"),
        (401, "INVALID_SESSION_ID", "Setup -> API Access Control"),
        (410, "GONE", "newer dinmo-dbt"),
        (404, "NOT_FOUND", "/services/data under its address lists"),
    ],
)
def test_a_session_that_may_not_use_the_api_is_refused_with_what_mends_it(
    server, log_in, by_secret, status, code, screen
):
    server.on("POST", "/services/oauth2/token", token_reply(server))
    server.on("GET", "limits", Answer(status, [{"errorCode": code, "message": "CANARY_TOKEN"}]))
    with pytest.raises(DinmoError) as caught:
        log_in(by_secret).try_api()
    assert screen in str(caught.value)
