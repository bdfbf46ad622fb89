"""sObject Collections: at most 200 rows a call, answered by position (REST guide, "sObject Collections")."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from urllib.parse import quote

import pyarrow as pa

from dinmo_dbt.destination import RESULTS, Batch, Fate, ObjectSchema, Operation
from dinmo_dbt.errors import TooLarge
from dinmo_dbt.salesforce import encode
from dinmo_dbt.salesforce.client import Client
from dinmo_dbt.salesforce.errors import GONE, ReplyTooLarge, SalesforceRefusal
from dinmo_dbt.salesforce.hosts import checked_id
from dinmo_dbt.salesforce.request import CallEffect, Request

ROWS_MAX = 200
# No source has a limit for these calls (Apex REST has 6 MB, a blob's upload 50 MB): under the least of them.
BODY_BYTES_MAX = 5_000_000


def send(client: Client, batch: Batch, schema: ObjectSchema, before: Callable[[], None] | None = None) -> pa.Table:
    """`RESULTS` in batch order. OutcomeUnknown if no whole reply came; an insert is never sent twice.

    Rows whose texts are long go in several calls. A row that Salesforce can't parse makes it refuse the whole call, and
    so does a body that is too large; the call is then halved, until such a row is alone with its error.
    """
    count = batch.rows.num_rows
    assert 0 < count <= ROWS_MAX, count
    request = replace(_request(batch, schema), before=before)
    if count > 1 and isinstance(request.body, bytes) and len(request.body) > BODY_BYTES_MAX:
        return _halved(client, batch, schema, before)
    try:
        items = client.call(request).json
    except TooLarge as refusal:
        code, message = "REQUEST_ENTITY_TOO_LARGE", refusal.problems[0].message
    except SalesforceRefusal as refusal:
        if refusal.salesforce_code != "JSON_PARSER_ERROR":
            raise
        code, message = refusal.salesforce_code, refusal.salesforce_message
    else:
        return _table([_result(item, batch) for item in items])
    if count > 1:
        return _halved(client, batch, schema, before)
    return _table([(Fate.REJECTED.value, None, None, code, message, None)])


def _halved(client: Client, batch: Batch, schema: ObjectSchema, before: Callable[[], None] | None) -> pa.Table:
    middle = batch.rows.num_rows // 2
    halves = (batch.rows.slice(0, middle), batch.rows.slice(middle))
    return pa.concat_tables([send(client, replace(batch, rows=half), schema, before) for half in halves])


def read(
    client: Client,
    object_name: str,
    fields: tuple[str, ...],
    record_ids: tuple[str, ...],
    *,
    exact_numbers: bool = False,
) -> list[dict[str, object]]:
    """At most 200 records by id; a missing record is left out. `exact_numbers`: numbers as their text.

    Records of long texts come in several calls, where one reply would be more than is taken.
    """
    assert len(record_ids) <= ROWS_MAX
    if not record_ids:
        return []
    wanted = list(dict.fromkeys(("Id", *fields)))
    body = json.dumps({"ids": list(record_ids), "fields": wanted}).encode()
    path = f"composite/sobjects/{quote(object_name, safe='')}"
    whole = _is_list_of(len(record_ids))
    request = Request("POST", path, body=body, holds_values=True, exact_numbers=exact_numbers, is_whole=whole)
    try:
        reply = client.call(request)
    except ReplyTooLarge:
        if len(record_ids) == 1:
            raise
        middle = len(record_ids) // 2
        halves = (record_ids[:middle], record_ids[middle:])
        return [row for ids in halves for row in read(client, object_name, fields, ids, exact_numbers=exact_numbers)]
    return [{name: value for name, value in item.items() if name != "attributes"} for item in reply.json if item]


def _request(batch: Batch, schema: ObjectSchema) -> Request:
    count = batch.rows.num_rows
    whole = _is_outcome_of(count)
    if batch.operation is Operation.DELETE:
        ids = ",".join(checked_id(text) for text in batch.rows.column("Id").to_pylist())
        params = {"ids": ids, "allOrNone": "false"}
        return Request("DELETE", "composite/sobjects", CallEffect.REPEATABLE, params=params, is_whole=whole)
    method, path, effect = "PATCH", "composite/sobjects", CallEffect.REPEATABLE
    if batch.operation is Operation.INSERT:
        method, effect = "POST", CallEffect.ONCE
    elif batch.operation is Operation.UPSERT:
        assert batch.match is not None
        path += f"/{quote(batch.object, safe='')}/{quote(batch.match, safe='')}"
    body = encode.json_records(batch, schema)
    return Request(method, path, effect, body=body, holds_values=True, is_whole=whole)


def _is_list_of(count: int) -> Any:
    def is_whole(content: object) -> bool:
        return (
            isinstance(content, list)
            and len(content) == count
            and all(item is None or isinstance(item, dict) for item in content)
        )

    return is_whole


def _is_outcome_of(count: int) -> Any:
    """An item a row, each with its outcome: anything else says nothing about the rows."""

    def is_whole(content: object) -> bool:
        return (
            isinstance(content, list)
            and len(content) == count
            and all(isinstance(item, dict) and isinstance(item.get("success"), bool) for item in content)
        )

    return is_whole


def _result(item: dict[str, Any], batch: Batch) -> tuple[str | bool | None, ...]:
    record_id = item.get("id")
    record_id = record_id if isinstance(record_id, str) else None
    if item.get("success") is True:
        created = item.get("created", batch.operation is Operation.INSERT)
        return (Fate.SUCCEEDED.value, record_id, bool(created), None, None, None)
    errors = [error for error in _list(item.get("errors")) if isinstance(error, dict)]
    codes = [str(error.get("statusCode") or error.get("errorCode") or "UNKNOWN_EXCEPTION") for error in errors]
    if batch.operation is Operation.DELETE and len(codes) == 1 and codes[0] in GONE:
        return (Fate.SUCCEEDED.value, record_id, False, None, None, None)
    message = "; ".join(str(error.get("message") or "") for error in errors)
    names = ",".join(dict.fromkeys(str(name) for error in errors for name in _list(error.get("fields"))))
    code = codes[0] if codes else "UNKNOWN_EXCEPTION"
    return (Fate.REJECTED.value, record_id, None, code, message, names or None)


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _table(rows: list[tuple[Any, ...]]) -> pa.Table:
    columns = zip(*rows, strict=True)
    return pa.table(
        [pa.array(column, field.type) for column, field in zip(columns, RESULTS, strict=True)], schema=RESULTS
    )
