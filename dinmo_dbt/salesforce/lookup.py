"""Finding records by a field's value: SOQL for few values, one Bulk query job for many. Read-only."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow as pa
import pyarrow.compute as pc

from dinmo_dbt.codes import RESULTS_UNREADABLE
from dinmo_dbt.destination import Field
from dinmo_dbt.errors import NotApplied
from dinmo_dbt.rows import values
from dinmo_dbt.rows.field_types import type_of
from dinmo_dbt.salesforce import bulk, collections
from dinmo_dbt.salesforce.client import Client
from dinmo_dbt.salesforce.errors import SalesforceRefusal
from dinmo_dbt.salesforce.hosts import checked_id, checked_name, checked_path
from dinmo_dbt.salesforce.request import Request

SOQL_VALUES_MAX = 2_000
# URI and headers together may have 16,384 bytes (REST guide, status 414 and 431); a token can be 2,000 of them.
_QUERY_BYTES_MAX = 12_000
_STRING_CHARACTERS_MAX = 4_000  # of one string in a WHERE clause (SOQL and SOSL limits)
_PAGES_MAX = 5_000
_PAGE_RECORDS_MAX = 2_000  # of one page of a query (REST guide, "Query Options Header")
_FOUND_BYTES = 64 << 20
# Some standard objects have no Bulk query: those are asked by SOQL and collections.
_NO_BULK_QUERY = ("INVALIDENTITY", "FEATURENOTENABLED")

_ESCAPES = str.maketrans(
    {"\\": "\\\\", "'": "\\'", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t", "\b": "\\b", "\f": "\\f"}
)


def lookup(
    client: Client,
    object_name: str,
    field: Field,
    wanted: pa.Array,
    only: tuple[str, str] | None = None,
    *,
    scratch: Path,
    sleep: Callable[[float], None],
) -> pa.Table:
    """Columns `value` and `record_id`: every record whose `field` holds one of `wanted`, perhaps in another case; where
    `only` names a text field and a value, of those that hold that too."""
    checked_name(object_name)
    also = f" AND {checked_name(only[0])} = '{only[1].translate(_ESCAPES)}'" if only else ""
    if len(wanted) > SOQL_VALUES_MAX:
        try:
            return _by_bulk_query(client, object_name, field, wanted, also, scratch=scratch, sleep=sleep)
        except SalesforceRefusal as refusal:
            if refusal.salesforce_code not in _NO_BULK_QUERY:
                raise
    return _by_soql(client, object_name, field, wanted, also)


def has_records(client: Client, object_name: str) -> bool:
    return any(page for page in query(client, f"SELECT Id FROM {checked_name(object_name)} LIMIT 1"))


def read_many(
    client: Client,
    object_name: str,
    fields: Sequence[str],
    record_ids: pa.Array,
    *,
    scratch: Path,
    sleep: Callable[[float], None],
) -> pa.Table:
    """`Id` and `fields` as text of the records of these ids; a missing record is left out."""
    wanted = record_ids if len(record_ids) <= SOQL_VALUES_MAX else None
    pages = []
    records = 0
    for page in read_pages(client, object_name, fields, wanted, scratch=scratch, sleep=sleep):
        pages.append(page.filter(pc.is_in(page["Id"], value_set=record_ids)))
        records += pages[-1].num_rows
        if records > len(record_ids):
            raise NotApplied(RESULTS_UNREADABLE, "a reply holds more records than were asked for")
    return pa.concat_tables(pages)


def read_pages(
    client: Client,
    object_name: str,
    fields: Sequence[str],
    record_ids: pa.Array | None,
    *,
    scratch: Path,
    sleep: Callable[[float], None],
) -> Iterator[pa.Table]:
    """`Id` and `fields` (parent paths among them) as text: of the records of these ids, or of every record."""
    names = [".".join(map(checked_name, path.split("."))) for path in dict.fromkeys(("Id", *fields))]
    yield pa.table({name: pa.array([], pa.utf8()) for name in names})
    if record_ids is None:
        yield from _every_record(client, object_name, names, scratch=scratch, sleep=sleep)
        return
    head = f"SELECT {', '.join(names)} FROM {checked_name(object_name)} WHERE Id IN ("
    room = _QUERY_BYTES_MAX - len(quote(head + ")", safe=""))
    if any("." in name for name in names):  # collections read no parent
        for chunk in _chunks([f"'{checked_id(text)}'" for text in record_ids.to_pylist()], room):
            for page in query(client, head + ",".join(chunk) + ")"):
                yield _texts(page, names)
        return
    for start in range(0, len(record_ids), collections.ROWS_MAX):
        ids = record_ids.slice(start, collections.ROWS_MAX).to_pylist()
        yield _texts(collections.read(client, object_name, tuple(names), tuple(ids), exact_numbers=True), names)


def _every_record(
    client: Client, object_name: str, names: Sequence[str], *, scratch: Path, sleep: Callable[[float], None]
) -> Iterator[pa.Table]:
    soql = f"SELECT {', '.join(names)} FROM {checked_name(object_name)}"
    pages = bulk.query(client, soql, names, scratch=scratch, sleep=sleep)
    try:
        first = next(pages, None)
    except SalesforceRefusal as refusal:
        if refusal.salesforce_code not in _NO_BULK_QUERY:
            raise
        for page in query(client, soql):
            yield _texts(page, names)
        return
    for table in itertools.chain([] if first is None else [first], pages):
        if table.num_rows:
            # In a CSV file nothing is written of a field that holds nothing; no text field holds an empty text.
            columns = [table[name] for name in names]
            nothing = pa.scalar(None, pa.utf8())
            yield pa.table([pc.if_else(pc.equal(c, ""), nothing, c) for c in columns], names=names)


def _texts(rows: Sequence[Mapping[str, object]], names: Sequence[str]) -> pa.Table:
    return pa.table({name: pa.array([_printed(_reached(row, name)) for row in rows], pa.utf8()) for name in names})


def _reached(row: Mapping[str, object], path: str) -> object:
    """A field's value, or a parent's: `Customer__r.Customer_Id__c` is nested, and null where there is no parent."""
    value: object = row
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _printed(value: object) -> str | None:
    if value is None or value == "":
        return None
    return str(value).lower() if isinstance(value, bool) else str(value)


def query(client: Client, soql: str) -> Iterator[list[dict[str, Any]]]:
    """The pages of a SOQL query, numbers as text."""
    path, params = "query", {"q": soql}
    seen: set[str] = set()
    read = 0
    for _ in range(_PAGES_MAX):
        request = Request(
            "GET", path, params=params or None, holds_values=True, exact_numbers=True, is_whole=_is_query_page
        )
        page = client.call(request).json
        yield page["records"]
        read += len(page["records"])
        if page["done"] is True:
            found = str(page.get("totalSize"))
            if re.fullmatch(r"\d{1,15}", found, re.ASCII) and read < int(found):
                raise NotApplied(
                    RESULTS_UNREADABLE, f"a query found {int(found):,} records, and its reply holds {read:,}"
                )
            return
        path, params = checked_path(page.get("nextRecordsUrl")), {}
        if path in seen:
            raise NotApplied(RESULTS_UNREADABLE, "a query names a page as the next that was read already")
        seen.add(path)
    raise NotApplied(RESULTS_UNREADABLE, f"a query has more than {_PAGES_MAX} pages")


def literal(text: str, field: Field) -> str:
    """A canonical value's wire text as a SOQL literal."""
    if type_of(field).is_quoted:
        return "'" + text.translate(_ESCAPES) + "'"
    return text


def _by_soql(client: Client, object_name: str, field: Field, wanted: pa.Array, also: str) -> pa.Table:
    literals = [
        literal(text, field)
        for text in values.text(wanted, field).to_pylist()
        if len(text) <= _STRING_CHARACTERS_MAX or not type_of(field).is_text
    ]
    room = _room(wanted)
    pages = [_table(pa.array([], pa.utf8()), pa.array([], pa.utf8()), field)]
    head = f"SELECT {_select(field)} FROM {object_name} WHERE {field.name} IN ("
    for chunk in _chunks(literals, _QUERY_BYTES_MAX - len(quote(head + ")" + also, safe=""))):
        for page in query(client, head + ",".join(chunk) + ")" + also):
            found = [record.get(field.name) for record in page]
            texts = [str(value).lower() if isinstance(value, bool) else value for value in found]
            held = pa.array([text if isinstance(text, str) else None for text in texts], pa.utf8())
            pages.append(_table(held, pa.array([record["Id"] for record in page], pa.utf8()), field))
            room = _taken(room, pages[-1])
    return pa.concat_tables(pages)


def _room(wanted: pa.Array) -> int:
    """How many bytes of records one look-up takes: many for each value, and not as many as a host can send."""
    return _FOUND_BYTES + 8 * int(wanted.nbytes)


def _taken(room: int, page: pa.Table) -> int:
    left = room - int(page.nbytes)
    if left < 0:
        raise NotApplied(
            RESULTS_UNREADABLE,
            "a look-up finds far more records than were asked for",
            hint="match by a field that is unique in Salesforce, and name parents by one",
        )
    return left


def _chunks(literals: list[str], bytes_max: int) -> Iterator[list[str]]:
    chunk: list[str] = []
    size = 0
    for text in literals:
        cost = len(quote(text, safe="")) + 3  # and its comma
        if chunk and size + cost > bytes_max:
            yield chunk
            chunk, size = [], 0
        chunk.append(text)
        size += cost
    if chunk:
        yield chunk


def _by_bulk_query(
    client: Client,
    object_name: str,
    field: Field,
    wanted: pa.Array,
    also: str,
    *,
    scratch: Path,
    sleep: Callable[[float], None],
) -> pa.Table:
    asked = _compared(wanted, field)
    where = f" WHERE {field.name} != null{also}" if also or field.name != "Id" else ""
    pages = [_table(pa.array([], pa.utf8()), pa.array([], pa.utf8()), field)]
    soql = f"SELECT {_select(field)} FROM {object_name}{where}"
    room = _room(wanted)
    for page in bulk.query(client, soql, ("Id", field.name), scratch=scratch, sleep=sleep):
        if page.num_rows == 0:
            continue
        found = _table(page.column(field.name).combine_chunks(), page.column("Id").combine_chunks(), field)
        kept = pc.is_in(_compared(found.column("value").combine_chunks(), field), value_set=asked)
        pages.append(found.filter(kept))
        room = _taken(room, pages[-1])
    return pa.concat_tables(pages)


def _select(field: Field) -> str:
    return "Id" if field.name == "Id" else f"Id, {checked_name(field.name)}"


def _compared(array: pa.Array, field: Field) -> pa.Array:
    """As SOQL compares: text without case. The caller compares again, exactly."""
    echo = values.echo_form(array, field)
    return pc.utf8_lower(echo) if type_of(field).is_text else echo


def _table(found: pa.Array, ids: pa.Array, field: Field) -> pa.Table:
    return pa.table({"value": values.from_text(found, field), "record_id": ids})


def _is_query_page(content: object) -> bool:
    return (
        isinstance(content, dict)
        and isinstance(content.get("records"), list)
        and isinstance(content.get("done"), bool)
        and len(content["records"]) <= _PAGE_RECORDS_MAX
        and all(isinstance(record, dict) and isinstance(record.get("Id"), str) for record in content["records"])
    )
