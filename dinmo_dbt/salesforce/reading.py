"""describe and limits, read by simple-salesforce: its session is the client's one door.

Its writes, pagers and logins are not used, for these reasons, each seen in 1.12.10: no timeouts, redirects followed
with the request's secrets, a token reply's whole body in an exception's text, no refresh in bulk2, results decoded by a
guessed charset.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

import requests

from dinmo_dbt.salesforce.request import API_VERSION, Reply, Request

if TYPE_CHECKING:
    from simple_salesforce import Salesforce


def reader(instance_url: str, call: Callable[[Request], Reply]) -> Salesforce:
    """A simple-salesforce object whose every request is a read by `call`."""
    from simple_salesforce import Salesforce

    simple = Salesforce(session_id="-", instance_url=instance_url, version=API_VERSION, session=_ReadingSession(call))
    simple.base_url = f"{instance_url}/services/data/v{API_VERSION}/"
    return simple


class _ReadingSession(requests.Session):
    """What simple-salesforce takes for its session: every request is a read."""

    def __init__(self, call: Callable[[Request], Reply]) -> None:
        super().__init__()
        self._call = call

    def request(self, method: str | bytes, url: str | bytes, **options: Any) -> requests.Response:  # type: ignore[override]
        assert method == "GET", "simple-salesforce only reads here"
        parts = urlsplit(str(url))
        query = parts.query or urlencode(options.get("params") or {})
        request = Request(
            "GET", parts.path + ("?" + query if query else ""), is_whole=lambda json: isinstance(json, dict)
        )
        return _Read(self._call(request))


class _Read(requests.Response):
    """A reply that has been read: its JSON is not made text again, to be parsed once more."""

    def __init__(self, reply: Reply) -> None:
        super().__init__()
        self.status_code, self._json = reply.status, reply.json
        self.headers.update(reply.headers)

    def json(self, **_: Any) -> Any:
        return self._json
