"""What a token request shows of itself, held against the org's own: client and secret, user and password, or a JWT.

JWTs are checked as leniently as real clients need (wire reference §1.2): `exp` as a number, numeric text or
milliseconds. Which audience is taken is `Logins`' to say. Without a public key signatures are not verified.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from dinmo_dbt.emulator.identity import Identity
from dinmo_dbt.emulator.logins import REFUSALS, Logins

# Salesforce allows 3 minutes and an unpublished skew; CumulusCI's token expires as it arrives.
_SKEW_S = 300
_LOGIN_HOSTS = re.compile(r"https://(login|test)\.salesforce\.com/?")
_MY_DOMAIN = re.compile(r"https://[\w.-]+\.my\.salesforce\.com/?")


class OAuthError(Exception):
    """A refused token request: HTTP 400 with `error` and `error_description`."""

    def __init__(self, error: str, description: str) -> None:
        self.body = {"error": error, "error_description": description}
        super().__init__(description)


@dataclass(frozen=True)
class Credentials:
    """Each check raises OAuthError as Salesforce refuses it."""

    identity: Identity
    logins: Logins
    public_key: str | None
    clock: Callable[[], datetime]

    def check_client(self, form: Mapping[str, str], authorization: str | None) -> None:
        client, secret = form.get("client_id", ""), form.get("client_secret", "")
        scheme, _, encoded = (authorization or "").partition(" ")
        if scheme.lower() == "basic":
            try:
                client, _, secret = base64.b64decode(encoded, validate=True).decode().partition(":")
            except (binascii.Error, UnicodeDecodeError) as error:
                raise refusal("secret_wrong") from error
        if not same(client, self.identity.client_id):
            raise refusal("app_unknown")
        if not same(secret, self.identity.client_secret):
            raise refusal("secret_wrong")

    def check_user(self, form: Mapping[str, str]) -> None:
        """The password and the security token after it: what Salesforce asks of an address it does not trust.

        That no address is trusted is ours; a real org leaves the security token out for trusted ranges (unverified).
        """
        who = self.identity
        user = same(form.get("username", "").lower(), who.username.lower())
        if not (same(form.get("password", ""), who.password + who.security_token) and user):
            raise refusal("authentication")

    def check_assertion(self, assertion: str, url: str) -> None:
        parts = assertion.split(".")
        try:
            header, claims = (json.loads(_decoded(p)) for p in parts[:2])
        except (ValueError, binascii.Error) as error:
            raise refusal("assertion") from error
        if len(parts) != 3 or not isinstance(claims, dict) or header.get("alg") != "RS256":
            raise refusal("assertion")
        if self.public_key is not None:
            self._check_signature(assertion)
        if claims.get("iss") != self.identity.client_id:
            raise refusal("app_unknown")
        if claims.get("sub", claims.get("prn")) != self.identity.username:
            raise refusal("app_not_approved")
        audiences = claims.get("aud")
        if not any(self._takes(str(each), url) for each in (audiences if isinstance(audiences, list) else [audiences])):
            raise refusal("app_not_installed" if self.logins.is_external else "audience")
        try:
            expires = float(claims["exp"])
        except (KeyError, TypeError, ValueError) as error:
            raise refusal("expired") from error
        if expires > 1e11:  # milliseconds, as `sf` sends
            expires /= 1000
        if expires < self.clock().timestamp() - _SKEW_S:
            raise refusal("expired")

    def _takes(self, audience: str, url: str) -> bool:
        """A My Domain is this org's own, as long as we are reached by a loopback name and so have none."""
        own = audience.rstrip("/") == url.rstrip("/") or _loopback(audience)
        own = own or bool(_loopback(url) and _MY_DOMAIN.fullmatch(audience))
        return self.logins.takes_audience(own=own, login_host=bool(_LOGIN_HOSTS.fullmatch(audience)))

    def _check_signature(self, assertion: str) -> None:
        import jwt

        try:
            jwt.decode(
                assertion, self.public_key or "", algorithms=["RS256"],
                options={"verify_exp": False, "verify_aud": False, "verify_iat": False},
            )  # fmt: skip
        except jwt.InvalidTokenError as error:
            raise refusal("assertion") from error


def refusal(name: str) -> OAuthError:
    return OAuthError(*REFUSALS[name])


def same(given: str, secret: str) -> bool:
    return hmac.compare_digest(given.encode(), secret.encode())


def _loopback(text: str) -> bool:
    """This server under another of its names: `localhost`, 127.0.0.1 and ::1 with any port."""
    return re.fullmatch(r"https?://(localhost|127\.0\.0\.1|\[::1\])(:\d+)?/?", text) is not None


def _decoded(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
