"""Records over REST: describe, single records, queries, collections."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from werkzeug.wrappers import Request, Response

from dinmo_dbt.emulator.errors import ApiError, not_emulated, not_found
from dinmo_dbt.emulator.records import replication
from dinmo_dbt.emulator.records.jsonrecords import Json
from dinmo_dbt.emulator.records.single import SeveralError
from dinmo_dbt.emulator.schema import describe
from dinmo_dbt.emulator.schema.definitions import Schema
from dinmo_dbt.emulator.soql.run import PAGE_ROWS, more_rows, run_query
from dinmo_dbt.emulator.web.call import Call, json_text, names_of, nothing


def global_describe(call: Call) -> Response:
    return _described(call, lambda schema: describe.global_describe(schema, call.base))


def describe_object(call: Call, name: str) -> Response:
    sobject = call.site.records.table(name).sobject
    return _described(call, lambda schema: describe.describe(schema, sobject, call.base))


def _described(call: Call, describe: Callable[[Schema], Json]) -> Response:
    """What `describe` says of the schema; 304 where that did not change after `If-Modified-Since`."""
    schema = call.site.store.schema
    modified = call.site.freshness.of(schema)
    known = _unless_read_before(call, modified)
    if known is not None:
        return known
    path, form = call.request.path, call.form
    response = call.encoded(call.site.freshness.answer(schema, (path, form), lambda: json_text(describe(schema), form)))
    response.last_modified = modified
    return response


def sobject(call: Call, name: str) -> Response:
    table = call.site.records.table(name)
    if call.request.method == "GET":
        brief = describe.brief(table.sobject, call.base)
        return call.json({"objectDescribe": brief, "recentItems": []})
    return _created(call, table.sobject.name, call.site.records.create(table, call.object()))


def updated(call: Call, name: str) -> Response:
    table = call.site.records.table(name)
    span = replication.Span.asked(call.request.args, call.site.clock())
    return call.json(replication.updated(call.site.store, table, span))


def deleted(call: Call, name: str) -> Response:
    table = call.site.records.table(name)
    span = replication.Span.asked(call.request.args, call.site.clock())
    return call.json(replication.deleted(call.site.store, table, span))


def unavailable(call: Call, **_: str) -> Response:
    path = call.request.path.strip("/").partition("/sobjects/")[2]
    raise not_emulated(f"{call.request.method} sobjects/{path}")


def create_by_upsert(call: Call, name: str) -> Response:
    table = call.site.records.table(name)
    return _created(call, table.sobject.name, call.site.records.create(table, call.object()))


def _created(call: Call, name: str, reply: Json) -> Response:
    response = call.json(reply, 201)
    response.headers["Location"] = f"{call.base}/sobjects/{name}/{reply['id']}"
    response.autocorrect_location_header = False
    return response


def record(call: Call, name: str, rid: str) -> Response:
    table = call.site.records.table(name)
    match call.request.method:
        case "PATCH":
            call.site.records.update(table, rid, call.object())
        case "DELETE":
            call.site.records.delete(table, rid)
        case _:
            names = names_of(call.request.args.get("fields"))
            found = call.site.records.read(table, rid, names, call.base)
            return _unless_read_before(call, call.site.records.modified(table, rid)) or call.json(found)
    return nothing()


def _unless_read_before(call: Call, modified: datetime) -> Response | None:
    """304 where nothing changed after `If-Modified-Since`."""
    since = call.request.if_modified_since
    return Response(status=304) if since is not None and modified <= since else None


def external(call: Call, name: str, key: str, value: str) -> Response:
    table = call.site.records.table(name)
    if call.site.records.is_id(table, key):
        raise not_emulated("a path along a relationship")
    field = call.site.records.key(table, key)
    if field.name == "Id":
        return record(call, name, value)
    if call.request.method == "PATCH":
        update_only = call.request.args.get("updateOnly", "").lower() == "true"
        reply, created = call.site.records.upsert(table, field, value, call.object(), update_only=update_only)
        if created:
            return _created(call, table.sobject.name, reply)
        old = float(call.version) < 46
        return nothing() if old else call.json(reply)
    hits = call.site.records.find(table, field, value)
    if not hits:
        raise not_found()
    if len(hits) > 1:
        raise SeveralError(table.sobject.name, hits)
    return record(call, name, call.site.store.codec.encode(hits[0]))


def query(call: Call) -> Response:
    if "explain" in call.request.args:
        raise not_emulated("query explain")
    text = call.request.args.get("q")
    if not text:
        raise ApiError(400, "MALFORMED_QUERY", "A query string has to be specified")
    everything = "/queryAll" in call.request.path
    reply = run_query(
        call.site.store, text, everything=everything, base=call.base, page_rows=_page_rows(call.request),
        clock=call.site.clock, columns=call.request.args.get("columns", "").lower() == "true",
    )  # fmt: skip
    return call.json(reply)


def more(call: Call, locator: str) -> Response:
    reply = more_rows(
        call.site.store, locator, base=call.base, page_rows=_page_rows(call.request), clock=call.site.clock
    )
    return call.json(reply)


def tooling_query(call: Call) -> Response:
    """The tooling objects clients look for at login do not exist here, in Salesforce's words."""
    words = call.request.args.get("q", "").split()
    upper = [w.upper() for w in words]
    name = words[upper.index("FROM") + 1] if "FROM" in upper[:-1] else ""
    raise ApiError(400, "INVALID_TYPE", f"sObject type '{name}' is not supported.")


def collections(call: Call) -> Response:
    if call.request.method == "DELETE":
        ids = names_of(call.request.args.get("ids")) or []
        all_or_none = call.request.args.get("allOrNone", "").lower() == "true"
        return call.json(call.site.collections.delete(ids, all_or_none=all_or_none))
    records, all_or_none = call.envelope()
    operation: Any = "insert" if call.request.method == "POST" else "update"
    return call.json(call.site.collections.write(records, operation, all_or_none=all_or_none))


def collection_upsert(call: Call, name: str, key: str) -> Response:
    table = call.site.records.table(name)
    field = call.site.records.key(table, key)
    records, all_or_none = call.envelope()
    return call.json(
        call.site.collections.write(records, "upsert", all_or_none=all_or_none, table=table, key=field),
    )


def collection_retrieve(call: Call, name: str) -> Response:
    table = call.site.records.table(name)
    if call.request.method == "POST":
        body = call.object()
        ids, names = body.get("ids"), body.get("fields")
    else:
        ids, names = names_of(call.request.args.get("ids")), names_of(call.request.args.get("fields"))
    return call.json(call.site.collections.retrieve(table, _strings(ids), _strings(names), call.base))


def _strings(given: Any) -> list[str]:
    if not isinstance(given, list) or not all(isinstance(each, str) for each in given):
        raise ApiError(400, "JSON_PARSER_ERROR", "ids and fields must be arrays of strings at [line:1, column:1]")
    return given


def _page_rows(request: Request) -> int:
    options = request.headers.get("Sforce-Query-Options", "")
    for option in options.split(","):
        name, _, value = option.partition("=")
        if name.strip().lower() == "batchsize" and value.strip().isdigit():
            return min(max(int(value), 200), PAGE_ROWS)
    return PAGE_ROWS
