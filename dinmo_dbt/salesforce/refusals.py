"""What a login server's refusals mean, and the Setup screen that mends each. Pure.

Sources: Help, "OAuth Authorization Errors" and "External Client Apps"; what integrators met and published since 2025
for `app_not_found` and for permission sets of the Salesforce API Integration licence. Screens are those of Lightning
Setup in November 2026. docs/salesforce-setup.md holds the same table.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_APP = "Setup -> External Client App Manager -> the app"
_APPROVE = (
    f"{_APP} -> Policies: Admin approved users are pre-authorized, with the user's profile or a permission set "
    "(one made for the Salesforce API Integration licence can't name an app: use a second one)"
)
_FLOW = f"{_APP} -> Edit Settings -> OAuth Settings: tick the flow"
_RUN_AS = f"{_APP} -> Policies -> Run As: choose the user"
_ACCESS = (
    "Setup -> API Access Control: give the user Use Any API Client, or allow the app; "
    f"else {_APP} -> Policies: add the user's profile or permission set"
)
_ADDRESS = "Setup -> Profiles -> Login IP Ranges and Login Hours; the app's own: its Policies -> IP Relaxation"
_MY_DOMAIN = "login_url: the org's own URL, Setup -> My Domain"


@dataclass(frozen=True, slots=True)
class Refusal:
    """One answer of the token endpoint: its `error` ('' for any) and words of its description ('' for any), both in
    lower case. `by_audience`: another audience in the JWT may get another answer."""

    error: str
    words: str
    means: str
    mend: str
    by_audience: bool = False

    def fits(self, error: str, description: str) -> bool:
        return self.error in ("", error) and self.words in description


SPENT = Refusal(
    "", "expired access/refresh token", "the refresh token has expired, was revoked, or was used before",
    f"authorize the app again for a new one; how long they live: {_APP} -> Policies -> Refresh Token Policy",
)  # fmt: skip
# The first that fits counts; descriptions name a cause better than codes do.
REFUSALS = (
    Refusal(
        "app_not_found", "", "the app is not installed in this org, or the JWT names another audience than it wants",
        f"Setup -> External Client App Manager: is the app there? A sandbox made before the app lacks it. {_MY_DOMAIN}",
        by_audience=True,
    ),
    Refusal("oauth_ec_app_not_found", "", "the app is not installed in this org",
            "Setup -> Connected Apps OAuth Usage -> Install; is login_url the org of the app?", by_audience=True),
    Refusal("", "user hasn't approved", "the user has not approved the app", _APPROVE, by_audience=True),
    Refusal("", "audience is invalid", "the login server is not the one the JWT names", _MY_DOMAIN, by_audience=True),
    Refusal("", "no client credentials user", "the app has no Run As user", _RUN_AS),
    Refusal("", "client credentials flow", "the app does not allow client credentials", _FLOW),
    Refusal("", "not supported on this domain", "this login server does not take the flow", _MY_DOMAIN),
    Refusal("", "ip restricted", "this machine's address or the hour is not allowed", _ADDRESS),
    Refusal("", "ip not allowed", "this machine's address is not allowed", _ADDRESS),
    SPENT,
    Refusal("", "expired", "the assertion or the token has expired", "is this machine's clock right?"),
    Refusal(
        "", "invalid assertion", "the JWT is not accepted",
        f"is the key the one whose certificate the app holds? {_APP} -> Edit Settings -> OAuth Settings -> JWT Bearer "
        "Flow: upload it again; RSA of 2048 bits or more",
    ),
    Refusal("inactive_org", "", "the org is locked, closed or suspended", "ask the org's administrator"),
    Refusal("", "inactive", "the user is inactive", "Setup -> Users -> the user: Active"),
    Refusal("", "is locked", "the user is locked out", "Setup -> Users -> the user: Unlock"),
    Refusal("invalid_client_id", "", "the org does not know the client id",
            f"{_APP} -> Settings -> Consumer Key; a new app needs some minutes; is login_url its org?"),
    Refusal("invalid_client", "", "client id and secret do not fit",
            f"copy both again: {_APP} -> Settings -> Consumer Key and Secret"),
    Refusal("invalid_app_access", "", "the user may not use this app", _ACCESS),
    Refusal("oauth_app_blocked", "", "the org's administrator has blocked the app",
            "Setup -> Connected Apps OAuth Usage -> Unblock"),
    Refusal("inactive_user", "", "the user is inactive", "Setup -> Users -> the user: Active"),
    Refusal("unsupported_grant_type", "", "the app does not allow this flow", _FLOW),
    Refusal("unauthorized_client", "", "the app does not allow this flow", _FLOW),
    Refusal("rate_limit_exceeded", "", "too many logins",
            "wait an hour: Salesforce allows 3,600 logins a user an hour. Setup -> Login History shows whose they are"),
    Refusal("invalid_request", "", "the login request is not accepted", f"over https? {_MY_DOMAIN}"),
    Refusal(
        "invalid_grant", "", "Salesforce does not accept this login",
        "Setup -> Login History says why; check the username, that the app is approved for the user, the key's "
        "certificate, and this clock",
    ),
    Refusal("", "", "the login server gave no known reason", "Setup -> Login History says why"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class RefusedLogin:
    """A refusal as one login met it: the server's error code, if it has the form of one, and what it means."""

    code: str
    refusal: Refusal

    def __str__(self) -> str:
        return f"({self.code}): {self.refusal.means}"


def refused(content: Mapping[str, Any]) -> RefusedLogin:
    """The body of a refused token request, matched and never quoted."""
    error, description = content.get("error"), content.get("error_description")
    known = isinstance(error, str) and re.fullmatch(r"[a-z_]{1,60}|OAUTH_[A-Z_]{1,40}", error)
    code = str(error).lower() if known else "an unknown error"
    text = description.lower() if isinstance(description, str) else ""
    return RefusedLogin(code, next(each for each in REFUSALS if each.fits(code, text)))
