"""Running queries: pages of JSON records, cursors that survive a restart, columns of CSV.

A cursor is the list of record integers of its answer, so a page reads the records as they are then, as
Salesforce's locators do.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa

from dinmo_dbt.emulator.errors import ApiError
from dinmo_dbt.emulator.ids import Ints
from dinmo_dbt.emulator.soql.compiler import compile_query
from dinmo_dbt.emulator.soql.metadata import column_metadata
from dinmo_dbt.emulator.soql.query import Child, Query, TypeOf
from dinmo_dbt.emulator.soql.records import Reader, executed
from dinmo_dbt.emulator.soql.values import csv_text
from dinmo_dbt.emulator.store import Store, stamp

PAGE_ROWS = 2000
_CURSORS_MAX = 200  # the oldest beyond are forgotten
_CURSOR_LIFE = timedelta(days=2)  # that it counts from the first page, not the last, is unverified
_BLOCK_ROWS = 10_000
_COMPOUND = ("address", "location")

Clock = Callable[[], datetime]
Record = dict[str, Any]


def run_query(
    store: Store, text: str, *, everything: bool, base: str, page_rows: int, clock: Clock, columns: bool = False
) -> Record:
    """The first page of a SOQL query. `base` is `/services/data/vV`."""
    query = compile_query(store, text, everything=everything, clock=clock)
    reader = Reader(store, base)
    if columns:
        return column_metadata(query)
    if query.counted:
        (total,) = next(reader.run(query.count_sql()))
        return {"totalSize": total, "done": True, "records": []}
    if query.groups is not None:
        return _groups(reader.groups(query), page_rows)
    rids = select_rids(store, query)
    page = _page(reader, query, rids, 0, page_rows)
    if not page["done"]:
        page = _followed(page, store, base, _remember(store, text, everything, rids, clock), page_rows)
    return page


def more_rows(store: Store, locator: str, *, base: str, page_rows: int, clock: Clock) -> Record:
    """The page behind a nextRecordsUrl. A locator lives two days on the org's clock."""
    found = re.fullmatch(r"(01g[0-9A-Za-z]{12}(?:[0-9A-Z]{3})?)-([0-9]{1,9})", locator)
    number = store.codec.job_number(found[1], "01g") if found else None
    row = None
    if number is not None:
        sql = "SELECT query, everything, rids FROM cursor WHERE number = ? AND created >= ?"
        row = store.reading().execute(sql, (number, stamp(clock() - _CURSOR_LIFE))).fetchone()
    rids = np.frombuffer(row[2], np.int64) if row is not None else np.empty(0, np.int64)
    if found is None or number is None or row is None or int(found[2]) >= len(rids):
        raise ApiError(400, "INVALID_QUERY_LOCATOR", "invalid query locator")  # text unverified
    start = int(found[2])
    query = compile_query(store, row[0], everything=bool(row[1]), clock=clock)
    page = _page(Reader(store, base), query, rids, start, page_rows)
    return page if page["done"] else _followed(page, store, base, number, start + page_rows)


def select_rids(store: Store, query: Query) -> Ints:
    """The integers of the records a query finds, in its order."""
    sql = query.rids_sql()
    return np.fromiter((r[0] for r in executed(store, sql)), np.int64)


def _groups(records: list[Record], page_rows: int) -> Record:
    if len(records) > page_rows:
        message = "Aggregate query does not support queryMore(), use LIMIT to restrict the results to a single batch"
        raise ApiError(400, "EXCEEDED_ID_LIMIT", message)
    return {"totalSize": len(records), "done": True, "records": records}


def _page(reader: Reader, query: Query, rids: Ints, start: int, page_rows: int) -> Record:
    records = reader.records(query, rids[start : start + page_rows].tolist())
    return {"totalSize": len(rids), "done": start + page_rows >= len(rids), "records": records}


def _followed(page: Record, store: Store, base: str, cursor: int, start: int) -> Record:
    """The page with the way to the next one, which begins at `start`."""
    next_url = f"{base}/query/{store.codec.job_id(cursor, '01g')}-{start}"
    return {"totalSize": page["totalSize"], "done": False, "nextRecordsUrl": next_url, "records": page["records"]}


def _remember(store: Store, text: str, everything: bool, rids: Ints, clock: Clock) -> int:
    with store.writing() as db:
        row = db.execute(
            "INSERT INTO cursor (query, everything, rids, created) VALUES (?, ?, ?, ?) RETURNING number",
            (text, everything, rids.tobytes(), stamp(clock())),
        ).fetchone()
        db.execute("DELETE FROM cursor WHERE number <= ?", (row[0] - _CURSORS_MAX,))
    return int(row[0])


def compile_bulk(store: Store, text: str, *, everything: bool, clock: Clock) -> Query:
    """A statement for a Bulk query job; what Bulk does not run is refused (Bulk API 2.0 Developer Guide, query)."""
    query = compile_query(store, text, everything=everything, clock=clock)
    refused = ""
    if query.children:
        refused = "Aggregate Relationships not supported in Bulk V2 Query with CSV content type"
    elif query.counted or query.groups is not None:  # this text and those below are unverified
        refused = "Aggregate functions and GROUP BY are not supported in Bulk Query"
    elif query.offset:
        refused = "OFFSET is not supported in Bulk Query"
    elif any(isinstance(s, TypeOf) for s in query.selected):
        refused = "TYPEOF is not supported in Bulk Query"
    elif any(i.field.type in _COMPOUND for i in query.items):
        refused = "Selecting compound data not supported in Bulk Query"
    if refused:
        raise ApiError(400, "API_ERROR", refused)
    return query


def csv_columns(store: Store, query: Query, rids: Ints) -> Iterator[list[pa.Array]]:
    """A query's answer as text columns, at most 10,000 rows at a time, for a Bulk query job."""
    reader = Reader(store, "")
    assert not any(isinstance(s, Child | TypeOf) for s in query.selected)
    for start in range(0, len(rids), _BLOCK_ROWS):
        rows = list(reader.rows(query, rids[start : start + _BLOCK_ROWS].tolist()))
        yield [
            csv_text(store, item.field, [row[place] for row in rows])
            for place, item in enumerate(query.items, 1)
        ]  # fmt: skip
