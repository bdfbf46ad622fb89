"""OAuth tokens and sessions: JWT bearer, client credentials, refresh, password; userinfo, identity, revoke.

JWTs are checked as leniently as real clients need (wire reference §1.2): `exp` as a number, numeric text or
milliseconds. Which audience is taken, and which flow, is `Logins`' to say. Without a public key signatures are not
verified. The web server flow (`authorization_code`) is not emulated and refused by name.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import random
import re
import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from dinmo_dbt.emulator.errors import ApiError
from dinmo_dbt.emulator.identity import access_token, letters
from dinmo_dbt.emulator.logins import REFUSALS, Logins
from dinmo_dbt.emulator.store import Store, stamp

# Salesforce allows 3 minutes and an unpublished skew; CumulusCI's token expires as it arrives.
_SKEW_S = 300
_LOGIN_HOSTS = re.compile(r"https://(login|test)\.salesforce\.com/?")
_MY_DOMAIN = re.compile(r"https://[\w.-]+\.my\.salesforce\.com/?")
_SCOPE = "api id web"
_SESSION_S = 7200  # what an org has when nobody chose otherwise: here it is only reported, and no session ends by it
_JWT_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"


class OAuthError(Exception):
    """A refused token request: HTTP 400 with `error` and `error_description`."""

    def __init__(self, error: str, description: str) -> None:
        self.body = {"error": error, "error_description": description}
        super().__init__(description)


class Sessions:
    """The org's tokens. A token issued here works until it is revoked or expires, across restarts.

    A session ends after `session_s` seconds without a call, on the org's clock; the folder's own printed token
    ends only by `expire`, until the next start. As in Salesforce the time of the last call is noted only when half
    of the lifetime has passed (Help, "Modify Session Security Settings"), so a session may end up to half of it
    early. None: no session ends by itself.
    """

    def __init__(
        self, store: Store, clock: Callable[[], datetime], *, chance: random.Random, public_key: str | None,
        session_s: int | None, logins: Logins,
    ) -> None:  # fmt: skip
        self._store = store
        self._clock = clock
        self._chance = chance
        self._public_key = public_key
        self._session_s = session_s
        self.logins = logins
        self.identity = store.identity()
        self._refresh_token: str | None = self.identity.refresh_token
        self._used: dict[str, datetime] = {}
        self._lock = threading.Lock()

    def reload(self) -> None:
        """Let in whom the store lets in."""
        with self._lock:
            self._refresh_token = self._store.meta("refresh_token")
            self._used.clear()

    def count(self) -> int:
        """How many sessions there are, the folder's own among them."""
        since = "" if self._session_s is None else stamp(self._clock() - timedelta(seconds=self._session_s))
        sql = "SELECT count(*) FROM token WHERE token = ? OR coalesce(used, created) > ?"
        found: int = self._store.reading().execute(sql, (self.identity.access_token, since)).fetchone()[0]
        return found

    def check(self, authorization: str | None) -> None:
        """Raise Salesforce's 401 unless the header carries a session of this org."""
        if not self.is_session(authorization):
            raise ApiError(401, "INVALID_SESSION_ID", "Session expired or invalid")

    def is_session(self, authorization: str | None) -> bool:
        scheme, _, token = (authorization or "").partition(" ")
        return scheme.lower() in ("bearer", "oauth") and self._lives(token.strip())

    def _lives(self, token: str) -> bool:
        used = self._used.get(token) or self._remembered(token)
        if used is None:
            return False
        if self._session_s is None or token == self.identity.access_token:
            return True
        now = self._clock()
        idle_s = (now - used).total_seconds()
        if idle_s >= self._session_s:
            self._forget(token)
            return False
        if idle_s >= self._session_s / 2:
            self._used[token] = now
            with self._store.writing() as db:
                db.execute("UPDATE token SET used = ? WHERE token = ?", (stamp(now), token))
        return True

    def _remembered(self, token: str) -> datetime | None:
        sql = "SELECT coalesce(used, created) FROM token WHERE token = ?"
        with self._lock:  # so that a token revoked meanwhile is not taken for alive
            row = self._store.reading().execute(sql, (token,)).fetchone()
            if row is None:
                return None
            return self._used.setdefault(token, datetime.fromisoformat(row[0]).replace(tzinfo=UTC))

    def expire(self, authorization: str | None) -> None:
        """End the session of a request, the folder's own too: the next call with its token is a 401."""
        self._forget((authorization or "").partition(" ")[2].strip())

    def admit(self, token: str) -> None:
        """Let a token in that this org did not issue."""
        now = self._clock()
        with self._lock:
            with self._store.writing() as db:
                db.execute("INSERT OR REPLACE INTO token (token, created) VALUES (?, ?)", (token, stamp(now)))
            self._used[token] = now

    def _forget(self, token: str) -> None:
        with self._lock:
            with self._store.writing() as db:
                db.execute("DELETE FROM token WHERE token = ?", (token,))
            self._used.pop(token, None)

    def revoke(self, token: str) -> None:
        """Forget a token; the refresh token takes the sessions it gave with it.

        The access token printed at the start is the folder's own and stays.
        """
        if self._refresh_token is not None and _same(token, self._refresh_token):
            with self._lock:
                with self._store.writing() as db:
                    db.execute("DELETE FROM meta WHERE key = 'refresh_token'")
                    db.execute("DELETE FROM token WHERE refreshed = 1")
                self._refresh_token = None
                self._used.clear()
        elif token != self.identity.access_token:
            self._forget(token)

    def token(self, form: Mapping[str, str], authorization: str | None, url: str) -> dict[str, Any]:
        """Answer `/services/oauth2/token`."""
        if self.logins.refuses:
            raise _refusal(self.logins.refuses)
        match form.get("grant_type"):
            case grant if grant == _JWT_GRANT:
                self._check_assertion(form.get("assertion", ""), url)
                return self._reply(url)
            case "client_credentials":
                self._check_client(form, authorization)
                return self._signed(self._reply(url)) | {"api_instance_url": url}
            case "refresh_token":
                self._check_client(form, authorization)
                return self._refreshed(form.get("refresh_token", ""), url)
            case "password":
                self._check_client(form, authorization)
                if self.logins.is_external or not self.logins.password_flow:
                    raise _refusal("authentication")  # that an org with the flow off says this is unverified
                self._check_user(form)
                return self._signed(self._reply(url))
            case "authorization_code":
                raise OAuthError("unsupported_grant_type", "the dinmo-dbt emulator does not emulate authorization_code")
            case _:
                raise OAuthError("unsupported_grant_type", "grant type not supported")

    def _refreshed(self, given: str, url: str) -> dict[str, Any]:
        with self._lock:
            if self._refresh_token is None or not _same(given, self._refresh_token):
                raise _refusal("refresh_token")
            rotated = {}
            if self.logins.rotates:
                self._refresh_token = f"5Aep861{letters(self._chance, 80)}"
                self._store.set_meta("refresh_token", self._refresh_token)
                rotated = {"refresh_token": self._refresh_token}
        return self._signed(self._reply(url, refreshed=True)) | rotated

    def introspected(self, form: Mapping[str, str], authorization: str | None, url: str) -> dict[str, Any]:
        """Answer `/services/oauth2/introspect` (RFC 7662). The fields beyond that standard's are unverified."""
        self._check_client(form, authorization)
        token = form.get("token", "")
        if not self._lives(token):
            return {"active": False}
        who, used = self.identity, int(self._used[token].timestamp())
        return {
            "active": True, "scope": _SCOPE, "client_id": who.client_id, "username": who.username,
            "sub": f"{url}/id/{who.organization_id}/{who.user_id}", "token_type": "access_token",
            "exp": used + (self._session_s or _SESSION_S), "iat": used, "nbf": used,
        }  # fmt: skip

    def _check_client(self, form: Mapping[str, str], authorization: str | None) -> None:
        client, secret = form.get("client_id", ""), form.get("client_secret", "")
        scheme, _, encoded = (authorization or "").partition(" ")
        if scheme.lower() == "basic":
            try:
                client, _, secret = base64.b64decode(encoded, validate=True).decode().partition(":")
            except (binascii.Error, UnicodeDecodeError) as error:
                raise _refusal("secret_wrong") from error
        if not _same(client, self.identity.client_id):
            raise _refusal("app_unknown")
        if not _same(secret, self.identity.client_secret):
            raise _refusal("secret_wrong")

    def _check_user(self, form: Mapping[str, str]) -> None:
        """The password and the security token after it: what Salesforce asks of an address it does not trust.

        That no address is trusted is ours; a real org leaves the security token out for trusted ranges (unverified).
        """
        who = self.identity
        user = _same(form.get("username", "").lower(), who.username.lower())
        if not (_same(form.get("password", ""), who.password + who.security_token) and user):
            raise _refusal("authentication")

    def _check_assertion(self, assertion: str, url: str) -> None:
        parts = assertion.split(".")
        try:
            header, claims = (json.loads(_decoded(p)) for p in parts[:2])
        except (ValueError, binascii.Error) as error:
            raise _refusal("assertion") from error
        if len(parts) != 3 or not isinstance(claims, dict) or header.get("alg") != "RS256":
            raise _refusal("assertion")
        if self._public_key is not None:
            self._check_signature(assertion)
        if claims.get("iss") != self.identity.client_id:
            raise _refusal("app_unknown")
        if claims.get("sub", claims.get("prn")) != self.identity.username:
            raise _refusal("app_not_approved")
        audiences = claims.get("aud")
        if not any(self._takes(str(each), url) for each in (audiences if isinstance(audiences, list) else [audiences])):
            raise _refusal("app_not_installed" if self.logins.is_external else "audience")
        try:
            expires = float(claims["exp"])
        except (KeyError, TypeError, ValueError) as error:
            raise _refusal("expired") from error
        if expires > 1e11:  # milliseconds, as `sf` sends
            expires /= 1000
        if expires < self._clock().timestamp() - _SKEW_S:
            raise _refusal("expired")

    def _takes(self, audience: str, url: str) -> bool:
        """A My Domain is this org's own, as long as we are reached by a loopback name and so have none."""
        own = audience.rstrip("/") == url.rstrip("/") or _loopback(audience)
        own = own or bool(_loopback(url) and _MY_DOMAIN.fullmatch(audience))
        return self.logins.takes_audience(own=own, login_host=bool(_LOGIN_HOSTS.fullmatch(audience)))

    def _check_signature(self, assertion: str) -> None:
        import jwt

        try:
            jwt.decode(
                assertion, self._public_key or "", algorithms=["RS256"],
                options={"verify_exp": False, "verify_aud": False, "verify_iat": False},
            )  # fmt: skip
        except jwt.InvalidTokenError as error:
            raise _refusal("assertion") from error

    def _reply(self, url: str, *, refreshed: bool = False) -> dict[str, Any]:
        """Issue a session. What the scopes are after a refresh is unverified: the same."""
        token = access_token(self._chance, self.identity.organization_id)
        now = self._clock()
        with self._store.writing() as db:
            # OR REPLACE: a seeded org that is opened again issues the same tokens again.
            sql = "INSERT OR REPLACE INTO token (token, created, refreshed) VALUES (?, ?, ?)"
            db.execute(sql, (token, stamp(now), refreshed))
        self._used[token] = now
        return {
            "access_token": token, "scope": _SCOPE, "instance_url": url, "token_type": "Bearer",
            "id": f"{url}/id/{self.identity.organization_id}/{self.identity.user_id}",
        }  # fmt: skip

    def _signed(self, reply: dict[str, Any]) -> dict[str, Any]:
        issued = str(int(self._clock().timestamp() * 1000))
        key = self.identity.client_secret.encode()
        digest = hmac.digest(key, f"{reply['id']}{issued}".encode(), hashlib.sha256)
        return reply | {"issued_at": issued, "signature": base64.b64encode(digest).decode()}

    def userinfo(self, url: str) -> dict[str, Any]:
        """The OpenID userinfo reply."""
        who = self.identity
        rest = f"{url}/services/data/v{{version}}"
        photos = {"picture": f"{url}/profilephoto/005/F", "thumbnail": f"{url}/profilephoto/005/T"}
        return {
            "sub": f"{url}/id/{who.organization_id}/{who.user_id}", "user_id": who.user_id,
            "organization_id": who.organization_id, "preferred_username": who.username, "nickname": "admin",
            "name": "Emulator Admin", "email": who.username, "email_verified": True, "given_name": "Emulator",
            "family_name": "Admin", "zoneinfo": "Etc/UTC", "photos": photos, "profile": f"{url}/{who.user_id}",
            "picture": photos["picture"], "address": {"country": "US"}, "is_salesforce_integration_user": False,
            "urls": {
                "enterprise": f"{url}/services/Soap/c/{{version}}/{who.organization_id}",
                "rest": f"{rest}/", "sobjects": f"{rest}/sobjects/", "query": f"{rest}/query/",
                "custom_domain": url,
            },
            "active": True, "user_type": "STANDARD", "language": "en_US", "locale": "en_US", "utcOffset": 0,
            "updated_at": "2026-01-01T00:00:00Z", "is_app_installed": True,
        }  # fmt: skip

    def identity_reply(self, url: str, version: str | None) -> dict[str, Any]:
        """The identity URL's reply; without a version its links keep a literal `{version}`."""
        info = self.userinfo(url)
        urls = info["urls"]
        if version:
            urls = {k: v.replace("{version}", version) for k, v in urls.items()}
        return {
            "id": info["sub"], "asserted_user": True, "user_id": info["user_id"],
            "organization_id": info["organization_id"], "username": info["preferred_username"],
            "nick_name": info["nickname"], "display_name": info["name"], "email": info["email"],
            "email_verified": True, "first_name": "Emulator", "last_name": "Admin", "timezone": "Etc/UTC",
            "photos": info["photos"], "active": True, "user_type": "STANDARD", "language": "en_US",
            "locale": "en_US", "utcOffset": 0, "urls": urls, "is_app_installed": True,
        }  # fmt: skip


def _refusal(name: str) -> OAuthError:
    return OAuthError(*REFUSALS[name])


def _same(given: str, secret: str) -> bool:
    return hmac.compare_digest(given.encode(), secret.encode())


def _loopback(text: str) -> bool:
    """This server under another of its names: `localhost`, 127.0.0.1 and ::1 with any port."""
    return re.fullmatch(r"https?://(localhost|127\.0\.0\.1|\[::1\])(:\d+)?/?", text) is not None


def _decoded(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
