"""A channel that notices go to, and when digests go. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from dinmo_dbt.org import LOOPBACK, Secret
from dinmo_dbt.watch.notice import Notice, Severity


@dataclass(frozen=True, slots=True)
class Channel:
    """Where notices go. The whole URL is a secret: messages name the channel by its `place` in dinmo.yml."""

    place: str  # warnings.channels[0]
    url: Secret
    only_critical: bool = False

    def takes(self, notice: Notice) -> bool:
        return notice.severity is Severity.CRITICAL or notice.ends_critical or not self.only_critical


@dataclass(frozen=True, slots=True)
class Digest:
    """When the day's summary goes out: `at` is HH:MM in an IANA time zone."""

    at: str
    timezone: str = "UTC"


_PLAIN = ("http", "json", "xml", "form")  # the latter are Apprise's webhooks without TLS


def channel_url_problem(url: str) -> str:
    """Why a text can't be a channel's URL, without showing it; empty if it can, as far as its shape goes."""
    try:
        parts = urlsplit(url.strip())
        host = parts.hostname or ""
    except ValueError:
        return "not a URL"
    if not parts.scheme or "://" not in url or any(c <= " " for c in url.strip()):
        return "not a URL"
    if parts.scheme in _PLAIN and host not in LOOPBACK:
        return f"plain http is only for this machine; use {parts.scheme}s"
    return ""
