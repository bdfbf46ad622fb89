"""Running queries: pages of JSON records, cursors that survive a restart, columns of CSV.

A cursor is the list of record integers of its answer, so a page reads the records as they are then, as
Salesforce's locators do. REST prints doubles with a point and dateTimes as `...000+0000`; Bulk's CSV prints
Java's doubles and `...000Z`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dinmo_dbt.emulator.errors import ApiError
from dinmo_dbt.emulator.ids import Ints
from dinmo_dbt.emulator.schema import NUMBER_TYPES, TEXT_TYPES, Field
from dinmo_dbt.emulator.soql import Item, Query, compile_query
from dinmo_dbt.emulator.store import Store, Table, stamp

PAGE_ROWS = 2000
_CURSORS_MAX = 200  # the oldest beyond are forgotten
_BLOCK_ROWS = 10_000

Clock = Callable[[], datetime]
Record = dict[str, Any]


def run_query(
    store: Store, text: str, *, everything: bool, base: str, page_rows: int, clock: Clock, columns: bool = False
) -> Record:
    """The first page of a SOQL query. `base` is `/services/data/vV`."""
    query = compile_query(store, text, everything=everything, clock=clock)
    if columns:
        return column_metadata(query)
    if query.count is not None:
        return _count(store, query)
    if not query.items:
        raise ApiError(400, "MALFORMED_QUERY", "unexpected token: 'FROM'")
    rids = select_rids(store, query)
    return _page(store, query, rids, 0, base=base, page_rows=page_rows, cursor=None, text=text,
                 everything=everything, clock=clock)  # fmt: skip


def more_rows(store: Store, locator: str, *, base: str, page_rows: int, clock: Clock) -> Record:
    """The page behind a nextRecordsUrl."""
    found = re.fullmatch(r"(01g\w{12}(?:\w{3})?)-(\d+)", locator)
    number = store.job_number(found[1], "01g") if found else None
    row = None
    if number is not None:
        sql = "SELECT query, everything, rids FROM cursor WHERE number = ?"
        row = store.reading().execute(sql, (number,)).fetchone()
    if row is None or found is None:
        raise ApiError(400, "INVALID_QUERY_LOCATOR", "invalid query locator")  # text unverified
    query = compile_query(store, row[0], everything=bool(row[1]), clock=clock)
    rids = np.frombuffer(row[2], np.int64)
    return _page(store, query, rids, int(found[2]), base=base, page_rows=page_rows, cursor=number, text=row[0],
                 everything=bool(row[1]), clock=clock)  # fmt: skip


def select_rids(store: Store, query: Query) -> Ints:
    """The integers of the records a query finds, in its order."""
    rows = store.reading().execute(query.rids_sql(), query.parameters)
    return np.fromiter((r[0] for r in rows), np.int64)


def _count(store: Store, query: Query) -> Record:
    if query.count == "":
        inner = f"SELECT 1 {query.tables} WHERE {query.where}"
        if query.limit is not None or query.offset:
            inner += f" LIMIT {query.limit if query.limit is not None else -1} OFFSET {query.offset}"
        total = store.reading().execute(f"SELECT count(*) FROM ({inner})", query.parameters).fetchone()[0]
        return {"totalSize": total, "done": True, "records": []}
    sql = f"SELECT count({query.count}) {query.tables} WHERE {query.where}"
    total = store.reading().execute(sql, query.parameters).fetchone()[0]
    record = {"attributes": {"type": "AggregateResult"}, query.count_alias: total}
    return {"totalSize": 1, "done": True, "records": [record]}


def _page(
    store: Store, query: Query, rids: Ints, start: int, *, base: str, page_rows: int, cursor: int | None,
    text: str, everything: bool, clock: Clock,
) -> Record:  # fmt: skip
    part = rids[start : start + page_rows]
    records = [_record(store, query, row, base) for row in _rows(store, query, part)]
    page: Record = {"totalSize": len(rids), "done": start + page_rows >= len(rids), "records": records}
    if not page["done"]:
        if cursor is None:
            cursor = _remember(store, text, everything, rids, clock)
        next_url = f"{base}/query/{store.job_id(cursor, '01g')}-{start + page_rows}"
        page = {"totalSize": len(rids), "done": False, "nextRecordsUrl": next_url, "records": records}
    return page


def _remember(store: Store, text: str, everything: bool, rids: Ints, clock: Clock) -> int:
    with store.writing() as db:
        row = db.execute(
            "INSERT INTO cursor (query, everything, rids, created) VALUES (?, ?, ?, ?) RETURNING number",
            (text, everything, rids.tobytes(), stamp(clock())),
        ).fetchone()
        db.execute("DELETE FROM cursor WHERE number <= ?", (row[0] - _CURSORS_MAX,))
    return int(row[0])


def _rows(store: Store, query: Query, rids: Ints) -> Iterator[tuple[Any, ...]]:
    """The rows of these records, in this order; a record that is gone is left out."""
    found = {row[0]: row for row in store.reading().execute(query.rows_sql(), (json.dumps(rids.tolist()),))}
    return (found[r] for r in rids.tolist() if r in found)


def _record(store: Store, query: Query, row: tuple[Any, ...], base: str) -> Record:
    record: Record = {"attributes": _attributes(store, query.table.sobject.name, row[0], base)}
    parents = {
        parent.path: (parent.sobject.name, rid)
        for parent, rid in zip(query.parents, row[len(query.items) + 1 :], strict=True)
    }
    for place, item in enumerate(query.items, 1):
        target = record
        for depth, name in enumerate(item.path[:-1], 1):
            kind, rid = parents[item.path[:depth]]
            if name not in target:
                target[name] = None if rid is None else {"attributes": _attributes(store, kind, rid, base)}
            target = target[name]
            if target is None:
                break
        else:
            target[item.path[-1]] = json_value(store, item.field, row[place])
    return record


def _attributes(store: Store, name: str, rid: int, base: str) -> Record:
    return {"type": name, "url": f"{base}/sobjects/{name}/{store.codec.encode(rid)}"}


def json_value(store: Store, field: Field, value: Any) -> Any:
    """A stored value as REST prints it. Whether large doubles are printed in E notation is unverified."""
    if value is None:
        return False if field.type == "boolean" else None
    match field.type:
        case "id" | "reference":
            return store.codec.encode(value)
        case "boolean":
            return bool(value)
        case "datetime":
            return f"{value}.000+0000"
        case _:
            return value


def read_record(store: Store, table: Table, rid: int, fields: list[Field], base: str) -> Record | None:
    """One record with the given fields, also from the recycle bin; None if there is none."""
    columns = ", ".join(_column(f) for f in fields)
    sql = f'SELECT t."IsDeleted", {columns} FROM {table.name} t WHERE t.rid = ?'
    row = store.reading().execute(sql, (rid,)).fetchone()
    if row is None:
        return None
    if row[0]:
        raise ApiError(404, "ENTITY_IS_DELETED", "entity is deleted", fields=())
    record: Record = {"attributes": _attributes(store, table.sobject.name, rid, base)}
    for field, value in zip(fields, row[1:], strict=True):
        record[field.name] = json_value(store, field, value)
    return record


def _column(field: Field) -> str:
    if field.sql is not None:
        return f"({field.sql.replace('{t}', 't')})"
    return "t.rid" if field.name == "Id" else 't."' + field.name + '"'


def csv_columns(store: Store, query: Query, rids: Ints) -> Iterator[list[pa.Array]]:
    """A query's answer as text columns, at most 10,000 rows at a time, for a Bulk query job."""
    for start in range(0, len(rids), _BLOCK_ROWS):
        rows = list(_rows(store, query, rids[start : start + _BLOCK_ROWS]))
        yield [csv_text(store, item.field, [row[place] for row in rows]) for place, item in enumerate(query.items, 1)]


def csv_text(store: Store, field: Field, values: list[Any]) -> pa.Array:
    """Stored values as Bulk prints them; null is the empty string."""
    if field.type in TEXT_TYPES or field.type in ("date", "time"):
        return pc.fill_null(pa.array(values, pa.string()), "")
    if field.type in ("id", "reference"):
        rids = np.array([-1 if v is None else v for v in values], np.int64)
        return pc.fill_null(store.codec.encode_many(rids), "")
    if field.type in NUMBER_TYPES:
        return pa.array(["" if v is None else java_double(v) for v in values], pa.string())
    if field.type == "datetime":
        return pa.array(["" if v is None else f"{v}.000Z" for v in values], pa.string())
    if field.type == "boolean":
        return pa.array(["true" if v else "false" for v in values], pa.string())
    return pa.array(["" if v is None else str(v) for v in values], pa.string())


def java_double(number: float) -> str:
    """Java's Double.toString: `250.0`, `9.12260031E8`, `1.0E-4`."""
    size = abs(number)
    if size == 0 or 1e-3 <= size < 1e7:
        return repr(float(number))
    digits, _, exponent = repr(float(number)).partition("e")
    sign = "-" if digits.startswith("-") else ""
    digits = digits.lstrip("-")
    whole, _, fraction = digits.partition(".")
    power = int(exponent or 0)
    text = whole + fraction
    stripped = text.lstrip("0")
    power += len(whole) - 1 - (len(text) - len(stripped))
    mantissa = stripped.rstrip("0") or "0"
    return f"{sign}{mantissa[0]}.{mantissa[1:] or '0'}E{power}"


def column_metadata(query: Query) -> Record:
    """The reply to `columns=true`, which `sf data query` asks for."""
    columns: list[Record] = []
    parents: dict[str, Record] = {}
    for item in query.items:
        column = _metadata(item)
        place = columns
        for name in item.path[:-1]:
            if name not in parents:
                parents[name] = _blank(name)
                place.append(parents[name])
            place = parents[name]["joinColumns"]
        place.append(column)
    sobject = query.table.sobject
    return {
        "columnMetadata": columns, "entityName": sobject.name, "groupBy": False,
        "idSelected": any(i.path == ("Id",) for i in query.items), "keyPrefix": sobject.prefix,
    }  # fmt: skip


def _blank(name: str) -> Record:
    return {
        "aggregate": False, "apexType": "complexvaluetype", "booleanType": False, "columnName": name,
        "custom": name.endswith("__r"), "displayName": name, "foreignKeyName": None, "insertable": False,
        "joinColumns": [], "numberType": False, "textType": False, "updatable": False,
    }  # fmt: skip


_APEX = {
    "id": "Id", "reference": "Id", "boolean": "Boolean", "date": "Date", "datetime": "Datetime", "time": "Time",
    "int": "Integer", "double": "Double", "currency": "Double", "percent": "Double",
}  # fmt: skip


def _metadata(item: Item) -> Record:
    field = item.field
    number = field.type in NUMBER_TYPES or field.type == "int"
    return {
        **_blank(field.name), "apexType": _APEX.get(field.type, "String"), "booleanType": field.type == "boolean",
        "custom": field.custom, "insertable": field.createable, "numberType": number,
        "textType": field.type in TEXT_TYPES or field.type in ("id", "reference"), "updatable": field.updateable,
    }  # fmt: skip
