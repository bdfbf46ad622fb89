"""What each call of the API is called, where faults and the list of calls name it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from werkzeug.routing import Map
from werkzeug.wrappers import Request

_SHOWN = ("version", "name", "key", "which")
_ID = re.compile(r"[0-9A-Za-z]{15}(?:[0-9A-Za-z]{3})?")
_IMPLIED = ("HEAD", "OPTIONS")
_ARGUMENT = re.compile(r"[A-Za-z]{1,40}")

# Of a handler's function and the method; a handler that is not here goes by its own name.
_NAMES: dict[str, dict[str, str]] = {
    "sobject": {"GET": "sobject", "POST": "record.create"},
    "describe_object": {"GET": "describe"},
    "record": {"GET": "record.read", "PATCH": "record.update", "DELETE": "record.delete"},
    "create_by_upsert": {"POST": "record.create"},
    "external": {"GET": "record.read", "PATCH": "record.upsert", "DELETE": "record.delete"},
    "more": {"GET": "query.more"},
    "collections": {"POST": "collections.create", "PATCH": "collections.update", "DELETE": "collections.delete"},
    "collection_upsert": {"PATCH": "collections.upsert"},
    "collection_retrieve": {"GET": "collections.retrieve", "POST": "collections.retrieve"},
    "ingest_jobs": {"GET": "ingest.list", "POST": "ingest.create"},
    "ingest_job": {"GET": "ingest.info", "PATCH": "ingest.close", "DELETE": "ingest.delete"},
    "ingest_upload": {"PUT": "ingest.upload"},
    "ingest_results": {"GET": "ingest.results"},
    "query_jobs": {"GET": "query_job.list", "POST": "query_job.create"},
    "query_job": {"GET": "query_job.info", "PATCH": "query_job.abort", "DELETE": "query_job.delete"},
    "query_results": {"GET": "query_job.results"},
    "query_result_pages": {"GET": "query_job.pages"},
}


def call_name(handler: Callable[..., Any], request: Request) -> str:
    """The name of a call. A close of an ingest job and an abort are both a PATCH: the body tells."""
    name = _name(handler, "GET" if request.method == "HEAD" else request.method)
    return "ingest.abort" if name == "ingest.close" and b"Aborted" in request.get_data() else name


def every_name(routes: Map) -> tuple[str, ...]:
    """The names of all calls of these routes, and `ingest.rows`: the batches of a job, which faults meet too."""
    rules = [(rule.endpoint, sorted(rule.methods or ())) for rule in routes.iter_rules()]
    names = {_name(handler, method) for handler, methods in rules for method in methods if method not in _IMPLIED}
    return tuple(sorted(names | {"ingest.abort", "ingest.rows"}))


def _name(handler: Callable[..., Any], method: str) -> str:
    return _NAMES.get(handler.__name__, {}).get(method, handler.__name__)


def shown_path(rule: str, values: Mapping[str, str], request: Request) -> str:
    """A route with its names and ids filled in; values of records and of the query are left out."""
    for name, value in values.items():
        shown = value if name in _SHOWN or (name != "value" and _ID.fullmatch(value)) else "..."
        rule = rule.replace(f"<{name}>", shown)
    names = [f"{name}=" for name in request.args if _ARGUMENT.fullmatch(name)]
    return f"{rule}?{'&'.join(names)}" if names else rule
