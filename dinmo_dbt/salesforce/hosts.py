"""Where requests may go: hosts that may hear a secret, and what may become part of a path or a query. Pure.

Replies name places too (`instance_url`, `nextRecordsUrl`, job ids); none is followed without passing here.
"""

from __future__ import annotations

import re
from urllib.parse import SplitResult, urlsplit

from dinmo_dbt.codes import HOST_NOT_TRUSTED, NO_OBJECT, QUERY_FAILED
from dinmo_dbt.config.declaration import show
from dinmo_dbt.errors import AuthError, NotApplied
from dinmo_dbt.org import LOOPBACK, host_allowed

_API_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,120}")
_REPLY_PATH = re.compile(r"/?services/data/v[1-9][0-9]{0,2}\.0/[A-Za-z0-9_./?=&%-]{1,2000}")


def checked_url(url: str, *, like: str | None = None, allowed_hosts: tuple[str, ...] = ()) -> str:
    """scheme://host[:port] of `url` if secrets may be sent there: https to Salesforce, or a loopback host.

    `like`: a URL already checked; both must be loopback, or neither. `allowed_hosts`: as in dinmo.yml.
    """
    try:
        parts = urlsplit(url.strip())
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise AuthError(
            HOST_NOT_TRUSTED, "the URL can't be read", hint="write it as https://acme.my.salesforce.com"
        ) from None
    loopback = host in LOOPBACK
    allowed = host_allowed(host, allowed_hosts) and "@" not in parts.netloc
    if loopback:
        allowed = allowed and parts.scheme in ("http", "https")
    else:
        allowed = allowed and parts.scheme == "https" and port in (None, 443)
    if not allowed or (like is not None and (urlsplit(like).hostname in LOOPBACK) != loopback):
        raise AuthError(
            HOST_NOT_TRUSTED,
            f"refusing to send credentials to {show(host) if host else 'an empty host'}",
            hint="use https and the org's My Domain, login.salesforce.com or test.salesforce.com",
        )
    return _origin(parts, host, port)


def checked_path(path: str) -> str:
    """A path that a reply named, if it is one of the data API on the host we already talk to (never a URL)."""
    if not isinstance(path, str) or not _REPLY_PATH.fullmatch(path) or ".." in path:
        raise NotApplied(HOST_NOT_TRUSTED, "a reply named a place that is not a path of this org's data API")
    return "/" + path.lstrip("/")


def checked_name(text: str) -> str:
    """An API name, before it becomes part of a path or a query."""
    if not is_api_name(text):
        raise NotApplied(NO_OBJECT, "an object or field name has the wrong form")
    return text


def is_api_name(text: str) -> bool:
    return bool(_API_NAME.fullmatch(text))


def checked_id(text: object) -> str:
    """A Salesforce id, before it becomes part of a path."""
    if not isinstance(text, str) or not re.fullmatch(r"[a-zA-Z0-9]{15}([a-zA-Z0-9]{3})?", text):
        raise NotApplied(QUERY_FAILED, "an id of a job or record has the wrong form")
    return text


def _origin(parts: SplitResult, host: str, port: int | None) -> str:
    name = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{name}" + (f":{port}" if port else "")
