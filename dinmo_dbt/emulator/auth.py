"""OAuth tokens and sessions: JWT bearer, client credentials, userinfo, identity, revoke.

JWTs are checked as leniently as real clients need (wire reference §1.2): `exp` as a number, numeric text or
milliseconds, any audience that is this server or a Salesforce login host. Without a public key signatures are
not verified. The refresh and password flows come later and are refused by name.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import re
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from dinmo_dbt.emulator.errors import ApiError
from dinmo_dbt.emulator.store import Store, mint_token, stamp

# Salesforce allows 3 minutes and an unpublished skew; CumulusCI's token expires as it arrives.
_SKEW_S = 300
_LOGIN_HOSTS = re.compile(r"https://(login|test|[\w.-]+\.my)\.salesforce\.com/?")
_JWT_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"


class OAuthError(Exception):
    """A refused token request: HTTP 400 with `error` and `error_description`."""

    def __init__(self, error: str, description: str) -> None:
        self.body = {"error": error, "error_description": description}
        super().__init__(description)


class Sessions:
    """The org's tokens. A token issued here works until it is revoked, across restarts."""

    def __init__(self, store: Store, clock: Callable[[], datetime], public_key: str | None) -> None:
        self._store = store
        self._clock = clock
        self._public_key = public_key
        self.identity = store.identity()
        self._known: set[str] = set()

    def check(self, authorization: str | None) -> None:
        """Raise Salesforce's 401 unless the header carries a session of this org."""
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() not in ("bearer", "oauth") or not self._is_session(token.strip()):
            raise ApiError(401, "INVALID_SESSION_ID", "Session expired or invalid")

    def _is_session(self, token: str) -> bool:
        if token in self._known:
            return True
        row = self._store.reading().execute("SELECT 1 FROM token WHERE token = ?", (token,)).fetchone()
        if row is not None:
            self._known.add(token)
        return row is not None

    def token(self, form: Mapping[str, str], authorization: str | None, url: str) -> dict[str, Any]:
        """Answer `/services/oauth2/token`."""
        grant = form.get("grant_type")
        if grant == _JWT_GRANT:
            self._check_assertion(form.get("assertion", ""), url)
            return self._issue(url, jwt=True)
        if grant == "client_credentials":
            self._check_client(form, authorization)
            return self._issue(url, jwt=False)
        if grant in ("refresh_token", "password", "authorization_code"):
            raise OAuthError("unsupported_grant_type", f"the dinmo-dbt emulator does not emulate {grant} yet")
        raise OAuthError("unsupported_grant_type", "grant type not supported")

    def _check_client(self, form: Mapping[str, str], authorization: str | None) -> None:
        client, secret = form.get("client_id", ""), form.get("client_secret", "")
        scheme, _, encoded = (authorization or "").partition(" ")
        if scheme.lower() == "basic":
            try:
                client, _, secret = base64.b64decode(encoded, validate=True).decode().partition(":")
            except (binascii.Error, UnicodeDecodeError) as error:
                raise OAuthError("invalid_client", "invalid client credentials") from error
        if not hmac.compare_digest(client.encode(), self.identity.client_id.encode()):
            raise OAuthError("invalid_client_id", "client identifier invalid")
        if not hmac.compare_digest(secret.encode(), self.identity.client_secret.encode()):
            raise OAuthError("invalid_client", "invalid client credentials")

    def _check_assertion(self, assertion: str, url: str) -> None:
        parts = assertion.split(".")
        try:
            header, claims = (json.loads(_decoded(p)) for p in parts[:2])
        except (ValueError, binascii.Error) as error:
            raise OAuthError("invalid_grant", "invalid assertion") from error
        if len(parts) != 3 or not isinstance(claims, dict) or header.get("alg") != "RS256":
            raise OAuthError("invalid_grant", "invalid assertion")
        if self._public_key is not None:
            self._check_signature(assertion)
        if claims.get("iss") != self.identity.client_id:
            raise OAuthError("invalid_client_id", "client identifier invalid")
        if claims.get("sub", claims.get("prn")) != self.identity.username:
            raise OAuthError("invalid_grant", "user hasn't approved this consumer")
        audiences = claims.get("aud")
        for audience in audiences if isinstance(audiences, list) else [audiences]:
            text = str(audience)
            if text.rstrip("/") == url.rstrip("/") or _LOGIN_HOSTS.fullmatch(text) or _loopback(text):
                break
        else:
            raise OAuthError("invalid_grant", "audience is invalid")
        try:
            expires = float(claims["exp"])
        except (KeyError, TypeError, ValueError) as error:
            raise OAuthError("invalid_grant", "expired authorization code") from error
        if expires > 1e11:  # milliseconds, as `sf` sends
            expires /= 1000
        if expires < self._clock().timestamp() - _SKEW_S:
            raise OAuthError("invalid_grant", "expired authorization code")

    def _check_signature(self, assertion: str) -> None:
        import jwt

        try:
            jwt.decode(
                assertion, self._public_key or "", algorithms=["RS256"],
                options={"verify_exp": False, "verify_aud": False, "verify_iat": False},
            )  # fmt: skip
        except jwt.InvalidTokenError as error:
            raise OAuthError("invalid_grant", "invalid assertion") from error

    def _issue(self, url: str, *, jwt: bool) -> dict[str, Any]:
        token = mint_token(self.identity)
        with self._store.writing() as db:
            db.execute("INSERT INTO token VALUES (?, ?)", (token, stamp(self._clock())))
        identity_url = f"{url}/id/{self.identity.organization_id}/{self.identity.user_id}"
        reply = {
            "access_token": token, "scope": "api id web", "instance_url": url, "id": identity_url,
            "token_type": "Bearer",
        }  # fmt: skip
        if jwt:
            return reply
        issued = str(int(time.time() * 1000))
        digest = hmac.digest(self.identity.client_secret.encode(), f"{identity_url}{issued}".encode(), hashlib.sha256)
        signature = base64.b64encode(digest).decode()
        return {
            "access_token": token, "signature": signature, "scope": "api id web", "instance_url": url,
            "id": identity_url, "token_type": "Bearer", "issued_at": issued, "api_instance_url": url,
        }  # fmt: skip

    def revoke(self, token: str) -> None:
        """Forget a token; the one printed at the start is the folder's own and stays."""
        if token != self.identity.access_token:
            with self._store.writing() as db:
                db.execute("DELETE FROM token WHERE token = ?", (token,))
            self._known.discard(token)

    def userinfo(self, url: str) -> dict[str, Any]:
        """The OpenID userinfo reply."""
        who = self.identity
        rest = f"{url}/services/data/v{{version}}"
        return {
            "sub": f"{url}/id/{who.organization_id}/{who.user_id}", "user_id": who.user_id,
            "organization_id": who.organization_id, "preferred_username": who.username, "nickname": "admin",
            "name": "Emulator Admin", "email": who.username, "email_verified": True, "given_name": "Emulator",
            "family_name": "Admin", "zoneinfo": "Etc/UTC", "photos": {}, "profile": f"{url}/{who.user_id}",
            "picture": "", "address": {"country": "US"}, "is_salesforce_integration_user": False,
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
            number = "67.0" if version == "latest" else version
            urls = {k: v.replace("{version}", number) for k, v in urls.items()}
        return {
            "id": info["sub"], "asserted_user": True, "user_id": info["user_id"],
            "organization_id": info["organization_id"], "username": info["preferred_username"],
            "nick_name": info["nickname"], "display_name": info["name"], "email": info["email"],
            "email_verified": True, "first_name": "Emulator", "last_name": "Admin", "timezone": "Etc/UTC",
            "active": True, "user_type": "STANDARD", "language": "en_US", "locale": "en_US", "utcOffset": 0,
            "urls": urls, "is_app_installed": True,
        }  # fmt: skip


def _loopback(text: str) -> bool:
    """This server under another of its names: `localhost` and 127.0.0.1 with any port."""
    return re.fullmatch(r"https?://(localhost|127\.0\.0\.1)(:\d+)?/?", text) is not None


def _decoded(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
