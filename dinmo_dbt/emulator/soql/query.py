"""A checked query: what it asks for, and the SQL that answers it."""

from __future__ import annotations

from dataclasses import dataclass

from dinmo_dbt.emulator.schema.definitions import Field
from dinmo_dbt.emulator.soql.sql import Sql, compose, listed
from dinmo_dbt.emulator.tables import Table, quoted


@dataclass(frozen=True, slots=True)
class Item:
    """One selected field: `path` is the parents' names as the schema writes them, then its name in the record."""

    path: tuple[str, ...]
    field: Field
    sql: Sql


@dataclass(frozen=True, slots=True)
class TypeOf:
    """TYPEOF: the fields of each object's branch, and of any other object (None: there is no ELSE)."""

    path: tuple[str, ...]
    branches: tuple[tuple[str, tuple[Item, ...]], ...]
    otherwise: tuple[Item, ...] | None

    @property
    def items(self) -> tuple[Item, ...]:
        return tuple(i for _, items in self.branches for i in items) + (self.otherwise or ())


@dataclass(frozen=True, slots=True)
class Child:
    """A parent-to-child subquery: the name of its relationship and the field by which its records point up."""

    name: str
    link: Field
    query: Query


@dataclass(frozen=True, slots=True)
class Parent:
    """A joined parent: its path of relationship names, the field that points to it, the SQL of its integer."""

    path: tuple[str, ...]
    link: Field
    rid: str
    polymorphic: bool


@dataclass(frozen=True, slots=True)
class Output:
    """One column of an aggregate query: its name in the answer, and how Salesforce displays it."""

    name: str
    shown: str
    field: Field
    sql: Sql
    aggregate: bool


@dataclass(frozen=True, slots=True)
class Groups:
    """What makes a query an aggregate one. `keys` is empty where all records are one group."""

    outputs: tuple[Output, ...]
    keys: Sql | None
    having: Sql | None


@dataclass(frozen=True, slots=True)
class Query:
    """A query ready to run. It selects records, or counts them, or is an aggregate query."""

    table: Table
    selected: tuple[Item | TypeOf | Child, ...]
    parents: tuple[Parent, ...]
    tables: str  # FROM and the joins of parents
    where: Sql
    order: Sql
    limit: int | None
    offset: int
    counted: bool = False
    groups: Groups | None = None

    @property
    def items(self) -> tuple[Item, ...]:
        """The selected fields that are neither a subquery's nor a TYPEOF's."""
        return tuple(s for s in self.selected if isinstance(s, Item))

    @property
    def children(self) -> tuple[Child, ...]:
        return tuple(s for s in self.selected if isinstance(s, Child))

    def rids_sql(self) -> Sql:
        """The integers of the records it finds, in its order."""
        return compose(f"SELECT t.rid {self.tables} WHERE {{}} ORDER BY {{}}{self._tail()}", self.where, self.order)

    def count_sql(self) -> Sql:
        inner = f"SELECT 1 {self.tables} WHERE {{}}"
        cut = self._tail() if self.limit is not None or self.offset else ""
        return compose(f"SELECT count(*) FROM ({inner}{cut})", self.where)

    def rows_sql(self, rids: str) -> Sql:
        """Rows by their integers, a JSON array; the order is the caller's.

        A row is the record's integer, the value of every selected field and of every TYPEOF's field in the
        order of the SELECT, the integers of the parents.
        """
        fields = [i.sql for s in self.selected if not isinstance(s, Child) for i in _items(s)]
        columns = listed([Sql("t.rid"), *fields, *(Sql(p.rid) for p in self.parents)])
        wanted = Sql("t.rid IN (SELECT value FROM json_each(?))", (rids,))
        return compose(f"SELECT {{}} {self.tables} WHERE {{}}", columns, wanted)

    def groups_sql(self, groups: Groups) -> Sql:
        text = f"SELECT {{}} {self.tables} WHERE {{}}"
        pieces = [listed([o.sql for o in groups.outputs]), self.where]
        for word, piece in ((" GROUP BY ", groups.keys), (" HAVING ", groups.having)):
            if piece is not None:
                text += word + "{}"
                pieces.append(piece)
        return compose(f"{text} ORDER BY {{}}{self._tail()}", *pieces, self.order)

    def children_sql(self, link: Field, parents: str) -> Sql:
        """Pairs of a parent's and a child's integer, in order, for `parents`, a JSON array."""
        parent = f"t.{quoted(link.name)}"
        # The cut is each parent's own, so rows are numbered within it.
        place = f"row_number() OVER (PARTITION BY {parent} ORDER BY {{}}) AS place"
        inner = f"SELECT {parent} AS parent, t.rid AS rid, {place} {self.tables} WHERE {{}} AND {{}}"
        last = "" if self.limit is None else f" AND place <= {self.offset + self.limit}"
        return compose(
            f"SELECT parent, rid FROM ({inner}) WHERE place > {self.offset}{last} ORDER BY parent, place",
            self.order, Sql(f"{parent} IN (SELECT value FROM json_each(?))", (parents,)), self.where,
        )  # fmt: skip

    def _tail(self) -> str:
        return f" LIMIT {self.limit if self.limit is not None else -1} OFFSET {self.offset}"


def _items(selected: Item | TypeOf) -> tuple[Item, ...]:
    return (selected,) if isinstance(selected, Item) else selected.items
