"""An org and how to log in to it; a secret that shows itself to nobody; which hosts are Salesforce's. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from urllib.parse import urlsplit


class Secret:
    """A text that never shows itself: `repr`, `str`, `format` and pickling give a mask; `reveal()` gives the text."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return "Secret(***)"

    __str__ = __repr__

    def __reduce__(self) -> tuple[type[Secret], tuple[str]]:
        return (Secret, ("***",))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._text == other._text

    def __hash__(self) -> int:
        return hash(self._text)


@dataclass(frozen=True, slots=True)
class Credentials:
    """How to log in, by `flow`; only that flow's values are set."""

    flow: str
    login_url: str = ""
    client_id: str = ""
    username: str = ""
    audience: str = ""  # of the JWT; '' leaves it to what the org takes
    private_key_path: Path | None = None
    client_secret: Secret | None = None
    instance_url: str = ""
    access_token: Secret | None = None
    refresh_token: Secret | None = None
    alias: str = ""  # of an org of the Salesforce CLI's


@dataclass(frozen=True, slots=True)
class Org:
    """The org that a destination means under the chosen dbt target. No credentials: the embedded emulator."""

    destination: str
    target: str
    credentials: Credentials | None
    organization_id: str | None = None
    api_share: Decimal = field(default=Decimal(80))  # percent of the org's daily API calls
    ca_file: Path | None = None  # authorities of its certificate, instead of the usual ones
    allowed_hosts: tuple[str, ...] = ()  # besides Salesforce's own and loopback; `*.suffix` or a whole name

    @property
    def is_emulator(self) -> bool:
        return self.credentials is None


LOOPBACK = ("localhost", "127.0.0.1", "::1")
LOGIN_HOSTS = ("login.salesforce.com", "test.salesforce.com")
# Salesforce Help, "My Domain URL Formats": every org's API is at its My Domain.
HOST_SUFFIXES = (".my.salesforce.com", ".salesforce.mil", ".my.sfcrmproducts.cn")


def host_allowed(host: str, allowed_hosts: tuple[str, ...] = ()) -> bool:
    """Whether a host name is Salesforce's, loopback, or one of `allowed_hosts` (`name` or `*.suffix`).

    Whole labels are compared in lower case ASCII: `evil-salesforce.com`, a trailing dot, a Unicode dot and any
    numeric address but loopback are refused.
    """
    if host in LOOPBACK:
        return True
    if not re.fullmatch(r"[a-z0-9-]+(\.[a-z0-9-]+)+", host) or re.fullmatch(r"[0-9.]+", host):
        return False
    if host in LOGIN_HOSTS or host.endswith(HOST_SUFFIXES):
        return True
    return any(host.endswith(a[1:].lower()) if a.startswith("*.") else host == a.lower() for a in allowed_hosts)


def url_problem(url: str, allowed_hosts: tuple[str, ...] = ()) -> str:
    """Why `url` can't be a Salesforce URL, without showing it; empty if it can."""
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or ""), parts.port
    except ValueError:
        return "not a URL"
    if parts.scheme not in ("https", "http") or not host or any(c <= " " or c == "\\" for c in url):
        return "not a URL that starts with https://"
    if "@" in parts.netloc:
        return "a URL with a user name or password in it is refused"
    if not host_allowed(host, allowed_hosts):
        return "not a Salesforce host"
    loopback = host in LOOPBACK
    if parts.scheme == "http" and not loopback:
        return "http is only for this machine; use https"
    if port is not None and not loopback:
        return "a Salesforce URL has no port"
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        return "a URL without path, query or fragment is expected"
    return ""


_PAGES = re.compile(
    r"([a-z0-9-]+(?:\.(?:sandbox|develop|scratch|trailblaze|demo|patch|free))?)"
    r"\.(?:lightning\.force|my\.salesforce-setup|my\.salesforce)\.com"
)


def own_url(url: str) -> str:
    """The login URL of an org of which some page's address is given (Help, "My Domain URL Formats"); '' if it
    can't be known."""
    found = re.fullmatch(rf"\s*(?:https?://)?{_PAGES.pattern}(?::443)?(?:[/?#].*)?\s*", url, re.IGNORECASE | re.DOTALL)
    return f"https://{found[1].lower()}.my.salesforce.com" if found else ""


def organization_id(text: str) -> str | None:
    """The 18-character form of an organization id; None if it is not one or its check characters are wrong.

    The last three characters say which of the first fifteen are upper case (Salesforce help, "What is the
    difference between a 15-digit and an 18-digit record ID").
    """
    if not re.fullmatch(r"00D[A-Za-z0-9]{12}(?:[A-Za-z0-5]{3})?", text):
        return None
    checks = ""
    for start in (0, 5, 10):
        bits = sum(1 << i for i, c in enumerate(text[start : start + 5]) if "A" <= c <= "Z")
        checks += "ABCDEFGHIJKLMNOPQRSTUVWXYZ012345"[bits]
    return text[:15] + checks if text[15:].upper() in ("", checks) else None
