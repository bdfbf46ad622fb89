"""OAuth tokens and sessions: JWT bearer, client credentials, refresh, password; introspection and revoke.

Which flow is taken is `Logins`' to say. The web server flow (`authorization_code`) is not emulated and refused by name.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import random
import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from dinmo_dbt.emulator.errors import ApiError
from dinmo_dbt.emulator.identity import access_token, letters
from dinmo_dbt.emulator.logins import Logins
from dinmo_dbt.emulator.store import Store, stamp
from dinmo_dbt.emulator.web.credentials import Credentials, OAuthError, refusal, same

_SCOPE = "api id web"
_SESSION_S = 7200  # what an org has when nobody chose otherwise: here it is only reported, and no session ends by it
_JWT_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"


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
        if self._refresh_token is not None and same(token, self._refresh_token):
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
            raise refusal(self.logins.refuses)
        match form.get("grant_type"):
            case grant if grant == _JWT_GRANT:
                self._credentials.check_assertion(form.get("assertion", ""), url)
                return self._reply(url)
            case "client_credentials":
                self._credentials.check_client(form, authorization)
                return self._signed(self._reply(url)) | {"api_instance_url": url}
            case "refresh_token":
                self._credentials.check_client(form, authorization)
                return self._refreshed(form.get("refresh_token", ""), url)
            case "password":
                self._credentials.check_client(form, authorization)
                if self.logins.is_external or not self.logins.password_flow:
                    raise refusal("authentication")  # that an org with the flow off says this is unverified
                self._credentials.check_user(form)
                return self._signed(self._reply(url))
            case "authorization_code":
                raise OAuthError("unsupported_grant_type", "the dinmo-dbt emulator does not emulate authorization_code")
            case _:
                raise OAuthError("unsupported_grant_type", "grant type not supported")

    @property
    def _credentials(self) -> Credentials:
        return Credentials(self.identity, self.logins, self._public_key, self._clock)

    def _refreshed(self, given: str, url: str) -> dict[str, Any]:
        with self._lock:
            if self._refresh_token is None or not same(given, self._refresh_token):
                raise refusal("refresh_token")
            rotated = {}
            if self.logins.rotates:
                self._refresh_token = f"5Aep861{letters(self._chance, 80)}"
                self._store.set_meta("refresh_token", self._refresh_token)
                rotated = {"refresh_token": self._refresh_token}
        return self._signed(self._reply(url, refreshed=True)) | rotated

    def introspected(self, form: Mapping[str, str], authorization: str | None, url: str) -> dict[str, Any]:
        """Answer `/services/oauth2/introspect` (RFC 7662). The fields beyond that standard's are unverified."""
        self._credentials.check_client(form, authorization)
        token = form.get("token", "")
        if not self._lives(token):
            return {"active": False}
        who, used = self.identity, int(self._used[token].timestamp())
        return {
            "active": True, "scope": _SCOPE, "client_id": who.client_id, "username": who.username,
            "sub": f"{url}/id/{who.organization_id}/{who.user_id}", "token_type": "access_token",
            "exp": used + (self._session_s or _SESSION_S), "iat": used, "nbf": used,
        }  # fmt: skip

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
