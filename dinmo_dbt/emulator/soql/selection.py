"""The SELECT list of a query for records: fields, FIELDS(), toLabel(), TYPEOF and subqueries."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from dinmo_dbt.emulator.schema.definitions import Field, SObject
from dinmo_dbt.emulator.soql.functions import arguments, called, function
from dinmo_dbt.emulator.soql.query import Child, Item, TypeOf
from dinmo_dbt.emulator.soql.scope import Operand, Scope, column_sql
from dinmo_dbt.emulator.soql.sql import Sql
from dinmo_dbt.emulator.soql.syntax import Node, malformed, nodes, not_emulated, words

_FIELDS_LIMIT = 200
_COLUMNS_MAX = 1900  # SQLite gives 2,000


@dataclass(slots=True)
class Selection:
    """One SELECT list being read. `child` reads a subquery."""

    scope: Scope
    limit: int | None
    child: Callable[[Node], Child]
    selected: list[Item | TypeOf | Child] = field(default_factory=list)
    _names: set[str] = field(default_factory=set)

    def read(self, select_list: Node) -> tuple[Item | TypeOf | Child, ...]:
        for item in nodes(select_list):
            match item.data:
                case "field_item":
                    self._field(item)
                case "function_item":
                    self._function(item)
                case "typeof_item":
                    self._typeof(item)
                case _:
                    child = self.child(nodes(item)[0])
                    self._once(item, child.name)
                    self.selected.append(child)
        roots = {s.path[0] for s in self.selected if isinstance(s, Item) and len(s.path) > 1}
        for typeof in self.selected:
            if isinstance(typeof, TypeOf) and typeof.path[0] in roots:  # text unverified
                raise self.scope.statement.refuse(select_list, f"duplicate field selected: {typeof.path[0]}")
        if sum(1 if not isinstance(s, TypeOf) else len(s.items) for s in self.selected) > _COLUMNS_MAX:
            raise not_emulated(f"more than {_COLUMNS_MAX} columns")
        return tuple(self.selected)

    def _once(self, node: Node, name: str) -> None:
        if name.lower() in self._names:
            raise self.scope.statement.refuse(node, f"duplicate field selected: {name}")
        self._names.add(name.lower())

    def _add(self, node: Node, found: Operand, path: tuple[str, ...]) -> None:
        self._once(node, ".".join(path))
        self.selected.append(Item(path, found.field, found.sql))

    def _field(self, item: Node) -> None:
        path = nodes(item)[0]
        if words(item):
            raise self.scope.statement.refuse(path, "only aggregate expressions use field aliasing")
        found = self.scope.field(path)
        self._add(path, found, found.path)

    def _function(self, item: Node) -> None:
        node = nodes(item)[0]
        if called(node) == "FIELDS":
            self._fields(node)
            return
        found = function(self.scope, node)
        if found.function != "TOLABEL":  # text unverified
            message = f"the function {called(node)} can only be selected where its answer is grouped"
            raise self.scope.statement.refuse(node, message)
        alias = words(item)
        self._add(node, found, (*found.path[:-1], alias[0]) if alias else found.path)

    def _fields(self, node: Node) -> None:
        asked = [words(a)[0].upper() for a in arguments(node) if a.data == "path"]
        if asked not in (["ALL"], ["STANDARD"], ["CUSTOM"]):
            raise malformed("FIELDS() takes ALL, STANDARD or CUSTOM")  # text unverified
        if asked != ["STANDARD"] and (self.limit is None or self.limit > _FIELDS_LIMIT):
            raise malformed(f"The SOQL FIELDS function must have a LIMIT of at most {_FIELDS_LIMIT}")
        for each in self.scope.sobject.fields:
            if asked == ["ALL"] or (asked == ["CUSTOM"]) == each.custom:
                self._once(node, each.name)
                self.selected.append(_item("t", each, each.name))

    def _typeof(self, item: Node) -> None:
        """Paths of several levels inside TYPEOF are refused."""
        path, *branches = nodes(item)
        names = words(path)
        if len(names) != 1:
            raise not_emulated("TYPEOF of a parent's relationship")
        join, joined = self.scope.parent(path, (("t", self.scope.sobject),), (), names[0])
        self._once(path, names[0])
        read: list[tuple[str, tuple[Item, ...]]] = []
        otherwise = None
        for branch in branches:
            if branch.data == "otherwise":
                paths = [self.scope.of_any(p, join, joined, self._one(p)) for p in nodes(branch)]
                otherwise = tuple(Item(found.path, found.field, found.sql) for found in paths)
                continue
            name = words(branch)[0]
            if name.lower() not in (each.lower() for each in join.link.reference_to):  # text unverified
                raise self.scope.invalid(branch, f"{names[0]} can not refer to sObject type '{name}'")
            target = next((t for t in join.targets if t[1].name.lower() == name.lower()), None)
            if target is not None:  # else no record can be of this type here
                read.append((target[1].name, tuple(self._of(p, *target, joined) for p in nodes(branch))))
        self.selected.append(TypeOf(joined, tuple(read), otherwise))

    def _of(self, path: Node, alias: str, sobject: SObject, joined: tuple[str, ...]) -> Item:
        found = self.scope.own(path, alias, sobject, joined, self._one(path))
        return Item(found.path, found.field, found.sql)

    def _one(self, path: Node) -> str:
        if len(words(path)) != 1:
            raise not_emulated("a relationship inside TYPEOF")
        return words(path)[0]


def _item(alias: str, target: Field, name: str) -> Item:
    return Item((name,), target, Sql(column_sql(alias, target)))
