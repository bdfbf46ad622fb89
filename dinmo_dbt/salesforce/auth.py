"""Logging in: OAuth 2.0 JWT bearer, client credentials, or a token that the user already has.

The token request is our own POST, not simple-salesforce's `token_login`: that one follows redirects with the
assertion in hand, puts a body that isn't JSON whole into its exception, prints a warning with the consumer key, and
drops the reply's scheme and identity URL. Its JWT carries `exp` as a string; ours is an integer.

No message here repeats a response body or a secret; error codes and the known descriptions are matched, not quoted.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from dinmo_dbt.durable import read_file
from dinmo_dbt.errors import AuthError, DestinationError, WrongOrg
from dinmo_dbt.project import Credentials, Org, Secret
from dinmo_dbt.salesforce.client import API_VERSION, Client, Login, without_frames
from dinmo_dbt.salesforce.hosts import checked_url

# Salesforce refuses an assertion that expires more than three minutes ahead (Help, "OAuth 2.0 JWT Bearer Flow").
_KEY_BYTES_MAX = 64 * 1024
_JWT_LIFE_S = 180

_CLOCK_HINT = "check the username, that the app is approved for the user, the key's certificate, and this clock"


def log_in_to(org: Org, now: Callable[[], float]) -> Callable[[Client], Login]:
    """How a client of `org` logs in, now and when its session expires; refuses any org but the pinned one."""
    credentials = org.credentials
    assert credentials is not None, "the emulator is served, and its credentials known, before anyone connects"
    first = True

    def log_in(client: Client) -> Login:
        try:
            return checked(client)
        except DestinationError as error:
            raise without_frames(error) from None

    def checked(client: Client) -> Login:
        nonlocal first
        if credentials.flow == "access_token":
            if not first:
                raise AuthError(
                    "DB604", "the access token has expired, and this flow can't renew it", hint="get a new token"
                )
            login = _with_token(client, credentials, org.allowed_hosts)
        else:
            login = _by_oauth(client, credentials, now, org.allowed_hosts)
        first = False
        pin = org.organization_id
        if pin is not None and pin[:15] != login.organization_id[:15]:
            raise WrongOrg(
                "DB602",
                f"logged in to org {login.organization_id}, but dinmo.yml allows only {pin}",
                where=f"destination {org.destination}, target {org.target}",
                hint="correct organization_id, or the login",
            )
        return login

    return log_in


def id_18(text: str) -> str:
    """A 15- or 18-character id as 18 characters (the suffix marks which of the 15 are capitals)."""
    if len(text) != 15:
        return text
    suffix = ""
    for start in (0, 5, 10):
        bits = sum(1 << place for place, letter in enumerate(text[start : start + 5]) if "A" <= letter <= "Z")
        suffix += "ABCDEFGHIJKLMNOPQRSTUVWXYZ012345"[bits]
    return text + suffix


def username(client: Client) -> str:
    """The logged-in user's name, '' if the token does not allow asking."""
    if client.login.username:
        return client.login.username
    status, content = client.get_as(client.login, "/services/oauth2/userinfo")
    name = content.get("preferred_username") if status == 200 and isinstance(content, dict) else None
    return name if isinstance(name, str) else ""


def jwt_audience(login_url: str) -> str:
    """The authorization server a JWT must name: login or test in Salesforce's public cloud, else the host itself.

    Sandboxes and scratch orgs are told by their My Domain: `acme--dev.sandbox.my...`, `acme.scratch.my...`.
    """
    host = urlsplit(login_url).hostname or ""
    if not host.endswith(".salesforce.com"):
        return login_url
    is_test = host == "test.salesforce.com" or "--" in host or bool(re.search(r"\.(sandbox|scratch)\.my\.", host))
    return "https://test.salesforce.com" if is_test else "https://login.salesforce.com"


def _by_oauth(
    client: Client, credentials: Credentials, now: Callable[[], float], allowed_hosts: tuple[str, ...]
) -> Login:
    login_url = checked_url(credentials.login_url, allowed_hosts=allowed_hosts)
    headers: dict[str, str] = {}
    if credentials.flow == "jwt":
        assertion = _assertion(credentials, login_url, now())
        form = {"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer", "assertion": assertion}
    else:
        assert credentials.flow == "client_credentials", credentials.flow
        assert credentials.client_secret is not None
        if login_url in ("https://login.salesforce.com", "https://test.salesforce.com"):
            raise AuthError(
                "DB601",
                "client credentials are accepted only by the org's own login server",
                hint="set login_url to the org's My Domain: Setup -> My Domain",
            )
        form = {"grant_type": "client_credentials"}
        pair = f"{credentials.client_id}:{credentials.client_secret.reveal()}"
        headers["Authorization"] = "Basic " + b64encode(pair.encode()).decode()
    status, content = client.post_form(login_url + "/services/oauth2/token", form, headers)
    if not isinstance(content, dict):
        raise AuthError(
            "DB601",
            f"the login server {urlsplit(login_url).hostname} answered HTTP {status}, not with a token",
            hint="is login_url the org's My Domain?",
        )
    if status != 200:
        raise _oauth_error(content, credentials)
    token, instance_url = content.get("access_token"), content.get("instance_url")
    if not isinstance(token, str) or not isinstance(instance_url, str) or not _TOKEN.fullmatch(token):
        raise AuthError("DB601", "the login server's reply holds no usable token")
    instance_url = checked_url(instance_url, like=login_url, allowed_hosts=allowed_hosts)
    organization_id = _org_of_identity(content.get("id"))
    login = Login(instance_url, Secret(token), organization_id, credentials.username)
    return login if organization_id else _identified(client, login)


_TOKEN = re.compile(r"[\x21-\x7e]{1,10000}")


def _with_token(client: Client, credentials: Credentials, allowed_hosts: tuple[str, ...]) -> Login:
    assert credentials.access_token is not None
    token = credentials.access_token.reveal().strip()
    if not _TOKEN.fullmatch(token):
        raise AuthError("DB601", "the access token is empty or holds characters that no token has")
    instance_url = checked_url(credentials.instance_url, allowed_hosts=allowed_hosts)
    return _identified(client, Login(instance_url, Secret(token), "", credentials.username))


def _identified(client: Client, login: Login) -> Login:
    """The login with its org id and username, asked of the org.

    userinfo answers tokens with an identity scope; the resource list, which names the identity URL, any API token.
    """
    status, content = client.get_as(login, "/services/oauth2/userinfo")
    if status == 200 and isinstance(content, dict) and isinstance(content.get("organization_id"), str):
        name = content.get("preferred_username")
        organization_id = _org_id(content["organization_id"])
        return Login(login.instance_url, login.token, organization_id, name if isinstance(name, str) else "")
    status, content = client.get_as(login, f"/services/data/v{API_VERSION}")
    organization_id = _org_of_identity(content.get("identity")) if isinstance(content, dict) else ""
    if status == 200 and organization_id:
        return Login(login.instance_url, login.token, organization_id, login.username)
    if status in (401, 403):
        raise AuthError("DB604", "Salesforce refused the token: expired, revoked, or without API access")
    raise AuthError("DB601", f"the org did not say who it is (HTTP {status})", hint="is instance_url the org's own?")


def _org_of_identity(url: object) -> str:
    """The org id in an identity URL `https://.../id/00D.../005...`; '' if there is none."""
    found = re.search(r"/id/(00D[A-Za-z0-9]{12,15})/005[A-Za-z0-9]{12,15}$", url) if isinstance(url, str) else None
    return _org_id(found[1]) if found else ""


def _org_id(text: str) -> str:
    if not re.fullmatch(r"00D[A-Za-z0-9]{12}([A-Za-z0-9]{3})?", text):
        raise WrongOrg("DB602", "the org's id has an unknown form")
    return id_18(text)


def _assertion(credentials: Credentials, login_url: str, now: float) -> str:
    import jwt

    path = credentials.private_key_path
    assert path is not None
    claims = {
        "iss": credentials.client_id,
        "sub": credentials.username,
        "aud": jwt_audience(login_url),
        "exp": int(now) + _JWT_LIFE_S,
    }
    try:
        return jwt.encode(claims, read_file(path, _KEY_BYTES_MAX), algorithm="RS256")
    except OSError as fault:
        raise AuthError("DB601", f"the private key can't be read: {fault.strerror}", where=str(path)) from None
    except (jwt.PyJWTError, ValueError, TypeError):
        # The library's text can hold pieces of the key.
        raise AuthError(
            "DB601", "the file is no RSA private key without a passphrase", where=str(path), hint="PEM, from openssl"
        ) from None


def _oauth_error(content: dict[str, Any], credentials: Credentials) -> AuthError:
    code, description = content.get("error"), content.get("error_description")
    code = (
        code.lower()
        if isinstance(code, str) and re.fullmatch(r"[a-z_]{1,60}|OAUTH_[A-Z_]{1,40}", code)
        else "an unknown error"
    )
    text = description.lower() if isinstance(description, str) else ""
    for part, message, advice in _OAUTH_DESCRIPTIONS:
        if part in text:
            return AuthError("DB601", f"login refused ({code}): {message}", hint=advice)
    message, advice = _OAUTH_CODES.get(code, ("the login server gave no known reason", "see Setup -> Login History"))
    if code == "invalid_grant" and credentials.flow == "client_credentials":
        advice = "give the app a Run As user: Setup -> App Manager -> Manage -> Client Credentials Flow"
    return AuthError("DB601", f"login refused ({code}): {message}", hint=advice)


# Descriptions that name a cause better than the code does (Help, "OAuth 2.0 Authorization Errors").
_OAUTH_DESCRIPTIONS = (
    (
        "user hasn't approved",
        "the user has not approved the app",
        "Setup -> App Manager -> Manage -> Permitted Users: admin approved, then add the user's profile",
    ),
    ("no client credentials user", "the app has no Run As user", "Setup -> App Manager -> Manage -> Run As"),
    ("client credentials flow", "the app does not allow client credentials", "Setup -> App Manager -> Edit -> OAuth"),
    ("audience is invalid", "the login server is not the one the JWT names", "use the org's My Domain as login_url"),
    ("ip restricted", "this machine's address is not allowed", "Setup -> Profiles -> Login IP Ranges, or the app's"),
    ("ip not allowed", "this machine's address is not allowed", "Setup -> Profiles -> Login IP Ranges, or the app's"),
    ("expired", "the assertion or the token has expired", "is this machine's clock right?"),
    ("invalid assertion", "the JWT is not accepted", "is the key the one whose certificate the app holds?"),
    ("inactive", "the user or the org is inactive", "Setup -> Users"),
    ("is locked", "the user is locked out", "Setup -> Users -> Unlock"),
)

_OAUTH_CODES = {
    "invalid_grant": ("Salesforce does not accept this login", _CLOCK_HINT),
    "invalid_client_id": ("the org does not know the client id", "a new app needs ten minutes; is login_url its org?"),
    "invalid_client": ("client id and secret do not fit", "copy both again: Setup -> App Manager -> View"),
    "invalid_app_access": ("the user may not use this app", "Setup -> App Manager -> Manage -> Permitted Users"),
    "oauth_app_blocked": (
        "the org's administrator has blocked the app",
        "Setup -> Connected Apps OAuth Usage -> Unblock",
    ),
    "oauth_ec_app_not_found": (
        "the app is not installed in this org",
        "is login_url the org of the app? else Setup -> Connected Apps OAuth Usage -> Install",
    ),
    "inactive_user": ("the user is inactive", "Setup -> Users"),
    "inactive_org": ("the org is locked, closed or suspended", "ask the org's administrator"),
    "unsupported_grant_type": ("the app does not allow this flow", "Setup -> App Manager -> Edit -> OAuth Settings"),
    "unauthorized_client": ("the app does not allow this flow", "Setup -> App Manager -> Edit -> OAuth Settings"),
    "rate_limit_exceeded": ("too many logins", "wait an hour: Salesforce allows 3,600 logins a user an hour"),
    "invalid_request": ("the login request is not accepted", "is login_url right, and over https?"),
}
