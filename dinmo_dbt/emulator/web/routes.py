"""Which path and method goes to which handler, and what is said of Salesforce's paths that are not here."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import takewhile
from typing import Any

from werkzeug.routing import Map, Rule
from werkzeug.wrappers import Request, Response

from dinmo_dbt.emulator.errors import ApiError, not_emulated, not_found
from dinmo_dbt.emulator.web import discovery, jobs, rest, soap

Handler = Callable[..., Response]

_V = "/services/data/v<version>"
_RESOURCES = "listviews,quickActions,defaultValues,namedLayouts,eventSeries"
_ROUTES: tuple[tuple[str, str, Handler], ...] = (
    ("GET", "/services/data", discovery.versions),
    ("POST", "/services/oauth2/token", discovery.token),
    ("GET,POST", "/services/oauth2/userinfo", discovery.userinfo),
    ("GET,POST", "/services/oauth2/revoke", discovery.revoke),
    ("POST", "/services/oauth2/introspect", discovery.introspect),
    ("POST", "/services/Soap/<any(u,c):api>/<number>", soap.soap_login),
    ("GET,POST", "/id/<organization>/<user>", discovery.identity),
    ("GET", _V, discovery.resources),
    ("GET", f"{_V}/limits", discovery.limits),
    ("GET", f"{_V}/limits/recordCount", discovery.record_count),
    ("GET", f"{_V}/sobjects", rest.global_describe),
    ("GET,POST", f"{_V}/sobjects/<name>", rest.sobject),
    ("GET", f"{_V}/sobjects/<name>/describe", rest.describe_object),
    ("GET", f"{_V}/sobjects/<name>/updated", rest.updated),
    ("GET", f"{_V}/sobjects/<name>/deleted", rest.deleted),
    ("GET,POST", f"{_V}/sobjects/<name>/<any({_RESOURCES}):what>", rest.unavailable),
    ("GET", f"{_V}/sobjects/<name>/describe/<path:what>", rest.unavailable),
    ("GET,POST,DELETE", f"{_V}/sobjects/User/<rid>/password", rest.unavailable),
    ("GET,PATCH,DELETE", f"{_V}/sobjects/<name>/<rid>", rest.record),
    ("POST", f"{_V}/sobjects/<name>/Id", rest.create_by_upsert),
    ("GET,PATCH,DELETE", f"{_V}/sobjects/<name>/<key>/<value>", rest.external),
    ("GET", f"{_V}/query", rest.query),
    ("GET", f"{_V}/queryAll", rest.query),
    ("GET", f"{_V}/query/<locator>", rest.more),
    ("GET", f"{_V}/queryAll/<locator>", rest.more),
    ("GET", f"{_V}/tooling/query", rest.tooling_query),
    ("POST,PATCH,DELETE", f"{_V}/composite/sobjects", rest.collections),
    ("PATCH", f"{_V}/composite/sobjects/<name>/<key>", rest.collection_upsert),
    ("GET,POST", f"{_V}/composite/sobjects/<name>", rest.collection_retrieve),
    ("GET,POST", f"{_V}/jobs/ingest", jobs.ingest_jobs),
    ("GET,PATCH,DELETE", f"{_V}/jobs/ingest/<job>", jobs.ingest_job),
    ("PUT", f"{_V}/jobs/ingest/<job>/batches", jobs.ingest_upload),
    ("GET", f"{_V}/jobs/ingest/<job>/<which>", jobs.ingest_results),
    ("GET,POST", f"{_V}/jobs/query", jobs.query_jobs),
    ("GET,PATCH,DELETE", f"{_V}/jobs/query/<job>", jobs.query_job),
    ("GET", f"{_V}/jobs/query/<job>/results", jobs.query_results),
    ("GET", f"{_V}/jobs/query/<job>/resultPages", jobs.query_result_pages),
)
# What else a real org lists as its resources, and the APIs beside the REST API.
_NOT_EMULATED = frozenset({
    "Soap", "actions", "analytics", "apexrest", "appMenu", "assistant", "async", "async-queries",
    "chatter", "commerce", "compactLayouts", "composite", "connect", "consent", "contact-tracing",
    "dedupe", "domino", "eclair", "emailConnect", "event", "financialservices", "fingerprint",
    "folders", "graphql", "industries", "iot", "jsonxform", "knowledgeManagement", "licensing",
    "localizedvalue", "match", "metadata", "mobile", "nouns", "parameterizedSearch", "payments",
    "prechatForms", "process", "quickActions", "recent", "scheduling", "search", "serviceTemplates",
    "smartdatadiscovery", "support", "tabs", "theme", "tokenizer", "tooling", "ui-api", "wave",
})  # fmt: skip
_PAGES = ("secur", ".well-known", "cometd")
_WORDS = _NOT_EMULATED | {*_PAGES, "authorize", "batch", "graph", "tree"}
_WORDS |= {part for _, path, _ in _ROUTES for part in path.split("/") if part.isalnum()}
_VERSION = re.compile(r"v\d+\.\d")


def route_map() -> Map:
    return Map(
        [Rule(p, methods=m.split(","), endpoint=h) for m, p, h in _ROUTES], strict_slashes=False, merge_slashes=False
    )


def known_path(path: str) -> str:
    """A path that is no route, up to the first part that is not Salesforce's own: it could be anybody's value."""
    parts = [part for part in path.split("/") if part]
    known = list(takewhile(lambda part: part in _WORDS or _VERSION.fullmatch(part), parts))
    return "/" + "/".join([*known, "..."] if len(known) < len(parts) else known)


def unknown(request: Request, path: str) -> ApiError:
    """A path of Salesforce's that this server does not have is named; anything else is Salesforce's 404."""
    parts = path.strip("/").split("/")
    if parts[0] in _PAGES or parts[:2] == ["services", "oauth2"]:
        return not_emulated(f"{request.method} {path}")
    tail: Any = parts[3:] if parts[:2] == ["services", "data"] else parts[1:]
    if parts[:1] == ["services"] and tail and tail[0] in _NOT_EMULATED:
        return not_emulated(f"{request.method} {'/'.join(tail)}")
    return not_found()
