"""Where requests may go: hosts that may hear a secret, and what may become part of a path or a query. Pure.

Replies name places too (`instance_url`, `nextRecordsUrl`, job ids); none is followed without passing here.
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
from typing import NoReturn
from urllib.parse import SplitResult, urlsplit

from dinmo_dbt.errors import AuthError, NotApplied

# Domains of Salesforce itself (Salesforce Help, "My Domain URL Formats"): hosts are compared by suffix.
_SALESFORCE_DOMAINS = ("salesforce.com", "salesforce.mil", "sfcrmproducts.cn")

_HOST = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?")
_API_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,120}")
_REPLY_PATH = re.compile(r"/?services/data/v[1-9][0-9]{0,2}\.0/[A-Za-z0-9_./?=&%-]{1,2000}")


def checked_url(url: str, *, like: str | None = None) -> str:
    """scheme://host[:port] of `url` if secrets may be sent there: https to Salesforce, or a loopback host.

    `like`: a URL already checked; both must be Salesforce, or both loopback.
    """
    try:
        parts = urlsplit(url.strip())
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise AuthError("DB603", "the URL can't be read", hint="write it as https://acme.my.salesforce.com") from None
    loopback = _is_loopback(host)
    if parts.username is not None or parts.password is not None or not host.isascii() or host.endswith("."):
        _refuse_host(host)
    if loopback:
        allowed = parts.scheme in ("http", "https")
    else:
        ours = any(host.endswith("." + domain) for domain in _SALESFORCE_DOMAINS)
        allowed = parts.scheme == "https" and port in (None, 443) and ours and bool(_HOST.fullmatch(host))
    if not allowed:
        _refuse_host(host)
    if like is not None and _is_loopback(urlsplit(like).hostname or "") != loopback:
        _refuse_host(host)
    return _origin(parts, host, port)


def checked_path(path: str) -> str:
    """A path that a reply named, if it is one of the data API on the host we already talk to (never a URL)."""
    if not isinstance(path, str) or not _REPLY_PATH.fullmatch(path) or ".." in path:
        raise NotApplied("DB603", "a reply named a place that is not a path of this org's data API")
    return "/" + path.lstrip("/")


def checked_name(text: str) -> str:
    """An API name, before it becomes part of a path or a query."""
    if not is_api_name(text):
        raise NotApplied("DB301", "an object or field name has the wrong form")
    return text


def is_api_name(text: str) -> bool:
    return bool(_API_NAME.fullmatch(text))


def checked_id(text: object) -> str:
    """A Salesforce id, before it becomes part of a path."""
    if not isinstance(text, str) or not re.fullmatch(r"[a-zA-Z0-9]{15}([a-zA-Z0-9]{3})?", text):
        raise NotApplied("DB611", "an id of a job or record has the wrong form")
    return text


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return False


def _refuse_host(host: str) -> NoReturn:
    raise AuthError(
        "DB603",
        f"refusing to send credentials to {host[:100] or 'an empty host'}",
        hint="use https and the org's My Domain, login.salesforce.com or test.salesforce.com",
    )


def _origin(parts: SplitResult, host: str, port: int | None) -> str:
    name = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{name}" + (f":{port}" if port else "")
