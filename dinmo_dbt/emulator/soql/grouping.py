"""Aggregate queries: aggregate functions, GROUP BY and HAVING.

Text is grouped, counted and compared by MIN and MAX as it is stored, so `a` and `A` are two groups; whether Salesforce
folds it is unverified.
Source: SOQL and SOSL Reference, GROUP BY and aggregate functions; error texts from public issues.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from dinmo_dbt.emulator.schema.definitions import Field
from dinmo_dbt.emulator.schema.describe import describe_field
from dinmo_dbt.emulator.soql.functions import AGGREGATES, arguments, called, operand
from dinmo_dbt.emulator.soql.query import Groups, Output
from dinmo_dbt.emulator.soql.scope import Operand, Scope
from dinmo_dbt.emulator.soql.sql import Sql, compose, listed
from dinmo_dbt.emulator.soql.syntax import Node, malformed, nodes, not_emulated, words

_COUNTS = ("COUNT", "COUNT_DISTINCT")
_SUMS = ("SUM", "AVG")
_KEYS_MAX = 100
_COLUMNS_MAX = 1900  # SQLite gives 2,000


def is_aggregate(node: Node) -> bool:
    return node.data == "function" and called(node) in AGGREGATES


def counts(select_list: Node) -> bool:
    """Whether COUNT() without a field is all that is selected."""
    items = nodes(select_list)
    function = nodes(items[0])[0] if items[0].data == "function_item" and not words(items[0]) else None
    return len(items) == 1 and function is not None and called(function) == "COUNT" and not arguments(function)


def aggregates(select_list: Node) -> bool:
    """Whether something selected is an aggregate function."""
    return any(item.data == "function_item" and is_aggregate(nodes(item)[0]) for item in nodes(select_list))


@dataclass(slots=True)
class Grouping:
    """One aggregate query on its way to SQL."""

    scope: Scope
    keys: list[Operand]

    @classmethod
    def of(cls, scope: Scope, group_by: Node | None) -> Grouping:
        grouping = cls(scope, [])
        given = nodes(group_by) if group_by is not None else []
        if len(given) > _KEYS_MAX:
            raise not_emulated(f"more than {_KEYS_MAX} fields in GROUP BY")
        for node in given:
            if node.data == "function" and called(node) in ("ROLLUP", "CUBE"):
                raise not_emulated(f"GROUP BY {called(node)}")
            key = operand(scope, node)
            if not key.function and not describe_field(key.field)["groupable"]:
                raise scope.statement.refuse(node, f"field '{key.field.name}' can not be grouped in a query call")
            grouping.keys.append(key)
        return grouping

    def groups(self, select_list: Node, having: Sql | None) -> Groups:
        outputs: list[Output] = []
        unnamed = 0
        if len(nodes(select_list)) > _COLUMNS_MAX:
            raise not_emulated(f"more than {_COLUMNS_MAX} columns")
        for item in nodes(select_list):
            if item.data not in ("field_item", "function_item"):
                # The text is unverified.
                raise self.scope.statement.refuse(item, "subqueries and TYPEOF can not be used in an aggregate query")
            node, alias = nodes(item)[0], next(iter(words(item)), None)
            found = self.operand(node, "Field")
            name = alias or found.path[-1]
            if alias is None and node.data == "function":
                name = f"expr{unnamed}"
                unnamed += 1
            if any(o.name.lower() == name.lower() for o in outputs):
                raise self.scope.statement.refuse(node, f"duplicate alias: {name}")
            shown = f"{called(node).lower()}({found.shown})" if node.data == "function" else name
            outputs.append(Output(name, shown, found.field, found.sql, node.data == "function"))
        return Groups(tuple(outputs), listed([k.sql for k in self.keys]) if self.keys else None, having)

    def operand(self, node: Node, role: str) -> Operand:
        """An aggregate function or a grouped expression. `role` says in an error what is neither."""
        if is_aggregate(node):
            return self._aggregate(node)
        found = operand(self.scope, node)
        if all(found.key != key.key for key in self.keys):
            raise self.scope.statement.refuse(node, f"{role} must be grouped or aggregated: {found.shown}")
        return found

    def reader(self, role: str) -> Callable[[Node], Operand]:
        return lambda node: self.operand(node, role)

    def _aggregate(self, node: Node) -> Operand:
        name, given = called(node), arguments(node)
        if not given and name == "COUNT":  # text unverified
            raise malformed("COUNT() must be the only element of the SELECT list")
        if len(given) != 1 or given[0].data != "path":
            raise self.scope.statement.refuse(node, f"the function {name} takes one field")  # text unverified
        source = self.scope.field(given[0])
        numeric = source.field.kind.is_number
        if not describe_field(source.field)["aggregatable"] or (name in _SUMS and not numeric):
            message = f"field {source.field.name} does not support aggregate operator {name}"
            raise self.scope.statement.refuse(given[0], message)
        if any(not key.function and key.path == source.path for key in self.keys):
            raise self.scope.statement.refuse(given[0], f"Grouped field should not be aggregated: {source.shown}")
        sql = compose(AGGREGATES[name], source.sql)
        field = source.field
        if name in _COUNTS:
            field = Field(name=name, label=name, type="int")
        elif name == "AVG":
            field = Field(name=name, label=name, type="double")
        compared = compose("fold({})", sql) if field.folded else sql
        return replace(source, node=node, field=field, sql=sql, compared=compared, function=name)
