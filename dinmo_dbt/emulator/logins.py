"""Which logins an org takes: the kind of its app, and what its administrator has switched off.

Sources: Help, "OAuth 2.0 JWT Bearer Flow for Server-to-Server Integration", "OAuth Authorization Errors", "Manage OAuth
Access Policies for a Connected App"; Knowledge 005461976 (username-password flow), 005132110 (SOAP login), 000886201
(client credentials and My Domain). The pairs of `REFUSALS` are those that integrators have met and published.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from dinmo_dbt.emulator.errors import EmulatorError
from dinmo_dbt.emulator.settings import changed

# Name: `error` and `error_description` of the token endpoint, HTTP 400.
REFUSALS: Mapping[str, tuple[str, str]] = {
    "app_not_installed": ("app_not_found", "External client app is not installed in this org"),
    "app_not_approved": ("invalid_grant", "user hasn't approved this consumer"),
    "app_blocked": ("OAUTH_APP_BLOCKED", "this app is blocked by admin"),
    "app_not_admin_approved": ("invalid_app_access", "user is not admin approved to access this app"),
    "app_unknown": ("invalid_client_id", "client identifier invalid"),
    "secret_wrong": ("invalid_client", "invalid client credentials"),
    "audience": ("invalid_grant", "audience is invalid"),
    "assertion": ("invalid_grant", "invalid assertion"),
    "expired": ("invalid_grant", "expired authorization code"),
    "refresh_token": ("invalid_grant", "expired access/refresh token"),
    "authentication": ("invalid_grant", "authentication failure"),
    "ip": ("invalid_grant", "ip restricted or invalid login hours"),
    "user_inactive": ("inactive_user", "user is inactive"),
    "org_inactive": ("inactive_org", "organization is inactive or being migrated"),
    "user_locked": ("invalid_grant", "user is locked"),
    "flow_off": ("unsupported_grant_type", "grant type not supported"),
    "client_credentials_off": ("invalid_grant", "client credentials flow is not enabled for this app"),
    "no_run_as": ("invalid_grant", "no client credentials user enabled"),
    "wrong_host": ("invalid_grant", "request not supported on this domain"),
    "too_many": ("rate_limit_exceeded", "login rate exceeded"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Logins:
    """An `external_client_app` lets in only a JWT whose `aud` is the org's own URL, and no password. For a
    `connected_app`, `audience` says which: `any`, the org's `own` URL, or a `login_host` alone, as some orgs had it.

    `password_flow`: off in every org made since Summer '26. `rotates`: a refresh gives a new refresh token, and the old
    one is dead. `refuses`: every token request gets this answer, one of `REFUSALS`; '' for none.
    """

    app: Literal["connected_app", "external_client_app"] = "connected_app"
    audience: Literal["any", "own", "login_host"] = "any"
    password_flow: bool = False
    rotates: bool = False
    refuses: str = ""

    def __post_init__(self) -> None:
        for key, allowed in (
            ("app", ("connected_app", "external_client_app")),
            ("audience", ("any", "own", "login_host")),
            ("refuses", ("", *REFUSALS)),
        ):
            if getattr(self, key) not in allowed:
                raise EmulatorError(f"logins: {key} must be one of {', '.join(filter(None, allowed))}")

    @property
    def is_external(self) -> bool:
        return self.app == "external_client_app"

    def takes_audience(self, *, own: bool, login_host: bool) -> bool:
        wanted = "own" if self.is_external else self.audience
        return {"any": own or login_host, "own": own, "login_host": login_host}[wanted]

    def json(self) -> dict[str, Any]:
        return asdict(self)

    def changed(self, given: dict[str, Any]) -> Logins:
        """These with some set; an unknown key or value is refused by name."""
        return changed(self, given, "logins")
