"""Logging in: OAuth 2.0 JWT bearer, client credentials, a refresh token, or a session that the user already has.

The token request is our own POST, not simple-salesforce's `token_login`: that one follows redirects with the
assertion in hand, puts a body that isn't JSON whole into its exception, prints a warning with the consumer key, and
drops the reply's scheme and identity URL. Its JWT carries `exp` as a string; ours is an integer.

No message here repeats a response body or a secret; error codes and the known descriptions are matched, not quoted.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from dinmo_dbt.codes import LOGIN_REFUSED, REFRESH_TOKEN_UNUSABLE, SESSION_REFUSED, WRONG_ORG
from dinmo_dbt.durable import read_file
from dinmo_dbt.errors import AuthError, DinmoError, WrongOrg
from dinmo_dbt.org import Credentials, Org, Secret
from dinmo_dbt.salesforce import sf_cli
from dinmo_dbt.salesforce.client import Client, Login, without_frames
from dinmo_dbt.salesforce.errors import RETIRED_HINT
from dinmo_dbt.salesforce.hosts import checked_url
from dinmo_dbt.salesforce.refreshing import kept
from dinmo_dbt.salesforce.refusals import SPENT, RefusedLogin, refused
from dinmo_dbt.salesforce.replies import UNKNOWN_HINT
from dinmo_dbt.salesforce.request import API_VERSION

_KEY_BYTES_MAX, _KEY_BITS_MIN = 64 * 1024, 2048
# Salesforce refuses an assertion that expires more than three minutes ahead (Help, "OAuth 2.0 JWT Bearer Flow").
_JWT_LIFE_S = 180
_LOGIN, _TEST = "https://login.salesforce.com", "https://test.salesforce.com"


class LogIn:
    """How a client of `org` logs in, now and when its session expires; refuses any org but the pinned one. `logins`:
    the folder where refresh tokens are kept that an org gave."""

    def __init__(self, org: Org, now: Callable[[], float], logins: Path | None, env: Mapping[str, str]) -> None:
        assert org.credentials is not None, "the emulator is served, and its credentials known, before anyone connects"
        self._org, self._credentials, self._now = org, org.credentials, now
        self._logins, self._env = logins, env
        self._last: Secret | None = None
        self._audiences: tuple[str, ...] = ()  # the one that was taken comes first

    def __call__(self, client: Client) -> Login:
        try:
            login = self._of_its_flow(client)
            self._check_pin(login)
        except DinmoError as error:
            raise without_frames(error) from None
        self._last = login.token
        return login

    def _of_its_flow(self, client: Client) -> Login:
        flows = {
            "jwt": self._by_jwt,
            "client_credentials": self._by_secret,
            "access_token": self._by_token,
            "refresh_token": self._by_refresh_token,
            "sf_cli": self._by_sf_cli,
        }
        return flows[self._credentials.flow](client)

    def _check_pin(self, login: Login) -> None:
        pin = self._org.organization_id
        if pin is not None and pin[:15] != login.organization_id[:15]:
            raise WrongOrg(
                WRONG_ORG,
                f"logged in to org {login.organization_id}, but dinmo.yml allows only {pin}",
                where=f"destination {self._org.destination}, target {self._org.target}",
                hint="correct organization_id, or the login",
            )

    # The flows

    def _by_jwt(self, client: Client) -> Login:
        """By the org's own URL as audience first. Orgs differ in which they want, and say so in one of a few answers:
        to these the login server that all orgs share is named once. The assertion goes to `login_url` either way."""
        server = self._server()
        answers: list[tuple[str, RefusedLogin]] = []
        for audience in self._audiences or audiences(server, self._credentials.audience):
            assertion = _assertion(self._credentials, audience, self._now())
            form = {"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer", "assertion": assertion}
            answer = _asked(client, server, form, {})
            if not isinstance(answer, RefusedLogin):
                self._audiences = tuple(sorted(audiences(server, self._credentials.audience), key=audience.__ne__))
                return self._granted(client, server, answer)
            answers.append((audience, answer))
            if not answer.refusal.by_audience:
                break
        raise _not_let_in(answers)

    def _by_secret(self, client: Client) -> Login:
        server = self._server()
        if server in (_LOGIN, _TEST):
            raise AuthError(
                LOGIN_REFUSED,
                "client credentials are accepted only by the org's own login server",
                hint="set login_url to the org's My Domain: Setup -> My Domain",
            )
        answer = _asked(client, server, {"grant_type": "client_credentials"}, self._basic())
        if isinstance(answer, RefusedLogin):
            raise _not_let_in([("", answer)])
        return self._granted(client, server, answer)

    def _by_token(self, client: Client) -> Login:
        if self._last is not None:
            raise AuthError(
                SESSION_REFUSED, "the access token has expired, and this flow can't renew it", hint="get a new token"
            )
        given = self._credentials.access_token
        assert given is not None
        return self._with_token(client, self._credentials.instance_url, given, _RENEW)

    def _by_sf_cli(self, client: Client) -> Login:
        name = self._credentials.alias or self._credentials.username
        again = f"log in again: sf org login web --alias {name or 'NAME'}"
        url, token, _ = sf_cli.session(name, self._env, client.rest)
        if token == self._last:
            raise AuthError(SESSION_REFUSED, "the Salesforce CLI gave the session again that has expired", hint=again)
        return self._with_token(client, url, token, again)

    def _by_refresh_token(self, client: Client) -> Login:
        server, given = self._server(), self._credentials.refresh_token
        assert given is not None and self._logins is not None
        public = {} if self._credentials.client_secret else {"client_id": self._credentials.client_id}
        with kept(self._logins, given, client.rest) as held:
            held.before()
            calls, form = client.meter.calls, {"grant_type": "refresh_token", "refresh_token": held.token.reveal()}
            answer = _asked(client, server, {**form, **public}, {} if public else self._basic())
            if isinstance(answer, RefusedLogin):
                lost = held.in_doubt or client.meter.calls > calls + 1
                if answer.refusal is SPENT and lost:
                    raise AuthError(
                        REFRESH_TOKEN_UNUSABLE,
                        "the refresh token is spent: an earlier login's answer was lost, and the next token with it",
                        where=str(held.path),
                        hint="authorize the app again, and give the new refresh token",
                    )
                if not lost:
                    held.refused()
                raise _not_let_in([("", answer)])
            rotated = answer.get("refresh_token")
            held.answered(rotated if isinstance(rotated, str) and TOKEN.fullmatch(rotated) else None)
        return self._granted(client, server, answer)

    # What they share

    def _server(self) -> str:
        return checked_url(self._credentials.login_url, allowed_hosts=self._org.allowed_hosts)

    def _basic(self) -> dict[str, str]:
        secret = self._credentials.client_secret
        assert secret is not None
        pair = f"{self._credentials.client_id}:{secret.reveal()}"
        return {"Authorization": "Basic " + b64encode(pair.encode()).decode()}

    def _granted(self, client: Client, server: str, content: Mapping[str, Any]) -> Login:
        token, instance_url = content.get("access_token"), content.get("instance_url")
        if not isinstance(token, str) or not isinstance(instance_url, str) or not TOKEN.fullmatch(token):
            raise AuthError(LOGIN_REFUSED, "the login server's reply holds no usable token")
        instance_url = checked_url(instance_url, like=server, allowed_hosts=self._org.allowed_hosts)
        organization_id = _org_of_identity(content.get("id"))
        login = Login(instance_url, Secret(token), organization_id, self._credentials.username)
        return login if organization_id else _identified(client, login)

    def _with_token(self, client: Client, instance_url: str, given: Secret, advice: str) -> Login:
        token = given.reveal().strip()
        if not TOKEN.fullmatch(token):
            raise AuthError(LOGIN_REFUSED, "the access token is empty or holds characters that no token has")
        address = checked_url(instance_url, allowed_hosts=self._org.allowed_hosts)
        return _identified(client, Login(address, Secret(token), "", self._credentials.username), advice)


TOKEN = re.compile(r"[\x21-\x7e]{1,10000}")


def audiences(login_url: str, pinned: str = "") -> tuple[str, ...]:
    """What `aud` of a JWT names, in the order it is tried: `pinned` alone, or the org's own URL, then the login server
    that all such orgs share.

    Sandboxes and scratch orgs are recognised by their My Domain: `acme--dev.sandbox.my...`, `acme.scratch.my...`.
    """
    if pinned:
        return (pinned,)
    host = urlsplit(login_url).hostname or ""
    is_test = host == "test.salesforce.com" or "--" in host or bool(re.search(r"\.(sandbox|scratch)\.my\.", host))
    return tuple(dict.fromkeys((login_url, _TEST if is_test else _LOGIN)))


def _asked(
    client: Client, server: str, form: Mapping[str, str], headers: Mapping[str, str]
) -> Mapping[str, Any] | RefusedLogin:
    """The token endpoint's answer: a grant, or a refusal in its own words. AuthError DB601 if it is neither."""
    status, content = client.post_form(server + "/services/oauth2/token", form, headers)
    if not isinstance(content, dict):
        raise AuthError(
            LOGIN_REFUSED,
            f"the login server {urlsplit(server).hostname} answered HTTP {status}, not with a token",
            hint="is login_url the org's My Domain? Setup -> My Domain. Does a proxy on the way answer in its place?",
        )
    return content if status == 200 else refused(content)


def _not_let_in(answers: Sequence[tuple[str, RefusedLogin]]) -> AuthError:
    """One error of all answers, each with the audience it was given to, and each screen that may mend it once."""
    if len(answers) == 1:
        message = f"login refused {answers[0][1]}"
    else:
        message = "login refused: " + "; ".join(f"for audience {audience} {each}" for audience, each in answers)
    mends = list(dict.fromkeys(each.refusal.mend for _, each in answers))
    return AuthError(LOGIN_REFUSED, message, hint="\n".join(mends))


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


_RENEW = (
    "get a new token; it needs the app's OAuth scope api, and the user API Enabled: Setup -> Users -> the user's "
    "profile or permission sets -> System Permissions"
)


def _identified(client: Client, login: Login, advice: str = "") -> Login:
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
        raise AuthError(
            SESSION_REFUSED,
            "Salesforce refused the token: expired, revoked, or without API access",
            hint=advice or _RENEW,
        )
    says = RETIRED_HINT if status == HTTPStatus.GONE else UNKNOWN_HINT
    raise AuthError(LOGIN_REFUSED, f"the org did not say who it is (HTTP {status})", hint=says)


def _org_of_identity(url: object) -> str:
    """The org id in an identity URL `https://.../id/00D.../005...`; '' if there is none."""
    found = re.search(r"/id/(00D[A-Za-z0-9]{12,15})/005[A-Za-z0-9]{12,15}$", url) if isinstance(url, str) else None
    return _org_id(found[1]) if found else ""


def _org_id(text: str) -> str:
    if not re.fullmatch(r"00D[A-Za-z0-9]{12}([A-Za-z0-9]{3})?", text):
        raise WrongOrg(WRONG_ORG, "the org's id has an unknown form")
    return id_18(text)


def _assertion(credentials: Credentials, audience: str, now: float) -> str:
    import jwt
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    path = credentials.private_key_path
    assert path is not None
    claims = {
        "iss": credentials.client_id,
        "sub": credentials.username,
        "aud": audience,
        "exp": int(now) + _JWT_LIFE_S,
    }
    try:
        raw = read_file(path, _KEY_BYTES_MAX)
    except OSError as fault:
        raise AuthError(LOGIN_REFUSED, f"the private key can't be read: {fault.strerror}", where=str(path)) from None
    with suppress(ValueError, TypeError, UnsupportedAlgorithm):  # their text can hold pieces of the key
        key = load_pem_private_key(raw, None)
        if isinstance(key, RSAPrivateKey) and key.key_size < _KEY_BITS_MIN:
            message = f"the private key has {key.key_size} bits"
            raise AuthError(
                LOGIN_REFUSED, message, where=str(path), hint=f"Salesforce takes RSA of {_KEY_BITS_MIN} or more"
            )
        if isinstance(key, RSAPrivateKey):
            return jwt.encode(claims, key, algorithm="RS256")
    message, advice = next((problem for sign, problem in _NO_KEYS if sign in raw), _NO_KEY)
    raise AuthError(LOGIN_REFUSED, message, where=str(path), hint=advice)


_PARTS = "openssl wrote the private key to its -keyout, and the certificate, which the app holds, to its -out"
_NO_KEYS = (
    (b"ENCRYPTED", ("the private key has a passphrase", "openssl rsa -in KEY -out dinmo.key takes it off")),
    (b"EC PRIVATE KEY", ("the private key is of another kind than RSA", "Salesforce takes RSA, of 2048 bits or more")),
    (
        b"PRIVATE KEY",
        ("the file is no RSA private key", "PEM, from openssl; Salesforce takes RSA of 2048 bits or more"),
    ),
    (b"CERTIFICATE", ("the file is a certificate, not the private key", _PARTS)),
    (b"PUBLIC KEY", ("the file is a public key, not the private key", _PARTS)),
)
_NO_KEY = ("the file is no RSA private key", "PEM, from openssl: it starts with -----BEGIN PRIVATE KEY-----")
