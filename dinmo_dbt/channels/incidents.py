"""Services that keep incidents: which they are, and how an incident is known, and ended, at each.

What such a service is sent belongs to an incident, known by its key, or has no place there.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import MutableMapping
from enum import Enum
from typing import Any
from urllib.parse import quote, urlsplit

KEY_MAX = 200  # characters; PagerDuty takes 255 (https://developer.pagerduty.com/docs/events-api-v2-overview)


class Keeps(Enum):
    """What a service keeps of what it receives."""

    MESSAGES = "every notice is a message"
    INCIDENTS = "a warning opens an incident, and its end resolves it"
    OPEN_INCIDENTS = "a warning opens an incident; Apprise knows no way to resolve one there"


# By the schema of a URL: Apprise's argument for the key. Of schemas that are one service each is named.
_KEYS = {
    "pagerduty": "dedup",
    "opsgenie": "alias",
    "jira": "alias",
    "splunk": "entity_id",
    "victorops": "entity_id",
    "incidentio": "dedup",
    "firehydrant": "dedup",
    "ilert": "dedup",
    "goalert": "dedup",
    "goalerts": "dedup",
    "squadcast": "dedup",
    "signl4": "external_id",
    "pagertree": "thirdparty",
    "opsimate": "dedup",
    "opsimates": "dedup",
}
_OPENED_ONLY = ("betterstack", "spike", "xmatters", "lfgalarm")
# The addresses that these services themselves give out.
_HOSTS = {
    "alert.victorops.com": "splunk",
    "api.squadcast.com": "squadcast",
    "api.eu.squadcast.com": "squadcast",
    "signals.firehydrant.com": "firehydrant",
    "api.incident.io": "incidentio",
    "api.spike.sh": "spike",
    "api.lfg.gm": "lfgalarm",
}


def keeps(url: str) -> Keeps:
    """Of the service behind a channel's URL, by the look of it."""
    try:
        parts = urlsplit(url)
    except ValueError:  # an attempt says that it is no URL
        return Keeps.MESSAGES
    host = parts.hostname or ""
    schema = _HOSTS.get(host, "xmatters" if host.endswith(".xmatters.com") else parts.scheme.lower())
    if schema in _KEYS:
        return Keeps.INCIDENTS
    if schema in _OPENED_ONLY and not (schema == "betterstack" and parts.username):  # that is its log
        return Keeps.OPEN_INCIDENTS
    return Keeps.MESSAGES


def name(arguments: MutableMapping[str, Any], key: str) -> None:
    """Give Apprise's arguments for a service the incident's key, and have a success resolve it; what the user's own URL
    says of either stays."""
    if argument := _KEYS.get(arguments["schema"]):
        if not str(arguments.get(argument) or "").strip(" /"):
            arguments[argument] = key if len(key) <= KEY_MAX else hashlib.sha256(key.encode()).hexdigest()
        arguments["action"] = arguments.get("action") or "map"
    if arguments["schema"] == "pagerduty":
        arguments["source"] = arguments.get("source") or "dinmo-dbt"


def reach(kind: str, service: Any) -> None:
    """Have the end of an incident get to a service that Apprise does not quite tell of it."""
    if kind in ("opsgenie", "jira"):
        _find_by_alias(service)
    if kind == "pagerduty":
        _tell_why_it_ended(service)


def _find_by_alias(service: Any) -> None:
    """Apprise closes an alert by an id that only the process which opened it knows. The alias, which is the key, does
    that from any: `identifierType`, https://docs.opsgenie.com/docs/alert-api#close-alert, the same in Jira's."""
    fetch, of = service._fetch, hashlib.sha1((service.entity or service.alias).encode(), usedforsecurity=False)

    def by_alias(method: Any, url: str, payload: Any, params: Any = None) -> Any:
        return fetch(method, url, payload, {"identifierType": "alias"} if params else None)

    service._fetch = by_alias
    service.store.set(of.hexdigest()[:10], [quote(service.alias, safe="")])


def _tell_why_it_ended(service: Any) -> None:
    """Apprise sends the end of an incident without a text, which the rules of PagerDuty's users read."""
    module: Any = sys.modules[type(service).__module__]
    send = service.send

    def with_text(body: str, *others: Any, **more: Any) -> Any:
        def written(event: dict[str, Any]) -> str:
            payload = {"summary": body, "severity": "info", "source": service.source, "component": service.component}
            return json.dumps({"payload": payload, **event})

        module.dumps = written
        return send(body, *others, **more)

    service.send = with_text
