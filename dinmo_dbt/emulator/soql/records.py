"""Rows of a query as the records of its answer: parents, branches of TYPEOF and children nested in them."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from dinmo_dbt.emulator.schema.definitions import Field
from dinmo_dbt.emulator.soql.query import Child, Item, Query, TypeOf
from dinmo_dbt.emulator.soql.scope import column_sql
from dinmo_dbt.emulator.soql.sql import Sql
from dinmo_dbt.emulator.soql.syntax import not_emulated
from dinmo_dbt.emulator.soql.values import json_value
from dinmo_dbt.emulator.store import Store
from dinmo_dbt.emulator.tables import Table

_TOO_LARGE = re.compile("too many|too big|too large|stack overflow|at most [0-9]+ tables")
Record = dict[str, Any]
Row = tuple[Any, ...]


def executed(store: Store, sql: Sql) -> Iterator[Row]:
    """The rows of a statement; one that is too large for SQLite is refused by name."""
    try:
        return iter(store.reading().execute(sql.text, sql.values))
    except (sqlite3.OperationalError, sqlite3.DataError) as error:
        if _TOO_LARGE.search(str(error)) is None:
            raise
        raise not_emulated(f"a statement this large ({error})") from error


@dataclass(frozen=True, slots=True)
class Reader:
    """Reads records for replies. `base` is `/services/data/vV`."""

    store: Store
    base: str

    def run(self, sql: Sql) -> Iterator[Row]:
        return executed(self.store, sql)

    def rows(self, query: Query, rids: list[int]) -> Iterator[Row]:
        """The rows of these records, in this order; a record that is gone is left out."""
        found = {row[0]: row for row in self.run(query.rows_sql(json.dumps(rids)))}
        return (found[r] for r in rids if r in found)

    def records(self, query: Query, rids: list[int]) -> list[Record]:
        """The records with everything below them: one statement for each subquery, whatever the number of parents."""
        return [record for _, record in self._by_rid(query, rids)]

    def groups(self, query: Query) -> list[Record]:
        """The groups of an aggregate query."""
        groups = query.groups
        assert groups is not None
        return [
            {
                "attributes": {"type": "AggregateResult"},
                **{o.name: self._value(o.field, v) for o, v in zip(groups.outputs, row, strict=True)},
            }
            for row in self.run(query.groups_sql(groups))
        ]

    def _value(self, field: Field, value: Any) -> Any:
        return json_value(self.store, field, value)

    def _children(self, child: Child, parents: list[int]) -> dict[int, Record]:
        """The answer of a subquery for each parent that has any. Children are never paged (approximate)."""
        pairs = list(self.run(child.query.children_sql(child.link, json.dumps(parents))))
        records = dict(self._by_rid(child.query, [rid for _, rid in pairs]))
        found: dict[int, Record] = {}
        for parent, rid in pairs:
            page = found.setdefault(parent, {"totalSize": 0, "done": True, "records": []})
            page["records"].append(records[rid])
            page["totalSize"] += 1
        return found

    def _by_rid(self, query: Query, rids: list[int]) -> Iterator[tuple[int, Record]]:
        below = [self._children(child, rids) for child in query.children]
        return ((row[0], self._record(query, row, below)) for row in self.rows(query, rids))

    def _record(self, query: Query, row: Row, below: list[dict[int, Record]]) -> Record:
        record: Record = {"attributes": self.attributes(query.table.sobject.name, row[0])}
        values, children = iter(row[1:]), iter(below)
        parents = dict(zip((p.path for p in query.parents), row[len(row) - len(query.parents) :], strict=True))
        known = {p.path: p.polymorphic for p in query.parents}
        for selected in query.selected:
            if isinstance(selected, Child):
                record[selected.name] = next(children).get(row[0])
            elif isinstance(selected, Item):
                place = self._place(record, selected.path, parents, known)
                value = next(values)
                if place is not None:
                    place[selected.path[-1]] = self._value(selected.field, value)
            else:
                got = [next(values) for _ in selected.items]
                record[selected.path[-1]] = self._branch(selected, parents[selected.path], got)
        return record

    def _place(
        self, record: Record, path: tuple[str, ...], parents: dict[tuple[str, ...], Any], known: dict[Any, bool]
    ) -> Record | None:
        """The parent's part of the record; None where the lookup is empty."""
        place: Record | None = record
        for depth, name in enumerate(path[:-1], 1):
            assert place is not None
            if name not in place:
                rid = parents[path[:depth]]
                place[name] = None if rid is None else {"attributes": self._parent(rid, known[path[:depth]])}
            place = place[name]
            if place is None:
                return None
        return place

    def _branch(self, selected: TypeOf, rid: int | None, values: list[Any]) -> Record | None:
        """The branch of the type a lookup points to; null where there is none (unverified)."""
        if rid is None:
            return None
        name = self._type(rid)
        at = 0
        for called, items in (*selected.branches, (None, selected.otherwise or ())):
            if called == name or (called is None and selected.otherwise is not None):
                branch: Record = {"attributes": self.attributes(name, rid)}
                for item, value in zip(items, values[at:], strict=False):
                    branch[item.path[-1]] = self._value(item.field, value)
                return branch
            at += len(items)
        return None

    def _type(self, rid: int) -> str:
        table = self.store.table_of(rid)
        assert table is not None
        return table.sobject.name

    def _parent(self, rid: int, polymorphic: bool) -> Record:
        """A polymorphic parent is of type Name (unverified against a real org)."""
        attributes = self.attributes(self._type(rid), rid)
        return {**attributes, "type": "Name"} if polymorphic else attributes

    def attributes(self, name: str, rid: int) -> Record:
        return {"type": name, "url": f"{self.base}/sobjects/{name}/{self.store.codec.encode(rid)}"}


def read_record(store: Store, table: Table, rid: int, fields: list[Field], base: str) -> Record | None:
    """One record with the given fields; None if there is none, or it is in the recycle bin.

    That a read says no more of a deleted record than of none is what jsforce's tests assert of real orgs
    (`connection-crud`, "should not return any record for deleted account").
    """
    columns = ", ".join(column_sql("t", f) for f in fields)
    sql = f'SELECT t."IsDeleted", {columns} FROM {table.name} t WHERE t.rid = ?'
    row = store.reading().execute(sql, (rid,)).fetchone()
    if row is None or row[0]:
        return None
    record: Record = {"attributes": Reader(store, base).attributes(table.sobject.name, rid)}
    for field, value in zip(fields, row[1:], strict=True):
        record[field.name] = json_value(store, field, value)
    return record
