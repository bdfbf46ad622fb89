"""Semi-joins and anti-joins: a subquery in WHERE.

A null lookup is outside of every list, so NOT IN finds it (unverified). Source of the limits: SOQL and SOSL
Reference, semi-joins with IN and anti-joins with NOT IN; of the texts: public issues, else unverified.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from dinmo_dbt.emulator.soql.functions import operand
from dinmo_dbt.emulator.soql.scope import Operand, Scope
from dinmo_dbt.emulator.soql.sql import Sql, compose
from dinmo_dbt.emulator.soql.syntax import Node, malformed, nodes, parts

_MOST = 2
_MISPLACED = {
    "OR": "Semi join sub-selects are not allowed with the 'OR' operator",
    "NOT": "Semi join sub-selects are not allowed with the 'NOT' operator",  # text unverified
    "nested": "Semi join sub-selects are only allowed at the top level WHERE expressions and not in nested WHERE "
    "expressions.",
}
_KEYS = ("id", "reference")


@dataclass(frozen=True, slots=True)
class Inner:
    """A subquery's object, the one field it selects, and its condition."""

    scope: Scope
    selected: Operand
    where: Sql


@dataclass(slots=True)
class SemiJoins:
    """The subqueries of one WHERE. `inner` reads a subquery; `refused` says why none may stand here."""

    scope: Scope
    inner: Callable[[dict[str, Node]], Inner]
    refused: str = ""
    count: int = 0

    def sql(self, node: Node, negate: bool, place: str) -> Sql:
        reason = self.refused or _MISPLACED.get(place)
        if reason:
            raise malformed(reason)
        self.count += 1
        if self.count > _MOST:
            raise malformed(f"Maximum {_MOST} semi join sub-selects are allowed")  # text unverified
        left_node, query = nodes(node)
        left, inner = operand(self.scope, left_node), self.inner(parts(query))
        self._check(left, inner)
        # Both forms go by the integers of a list that SQLite makes once; null in it would hide everything from NOT IN.
        rows = compose(
            f"SELECT {{}} {inner.scope.tables} WHERE {{}} AND {{}} IS NOT NULL",
            inner.selected.sql, inner.where, inner.selected.sql,
        )  # fmt: skip
        found = compose("{} IN ({})", left.sql, rows)
        if negate:
            found = compose("({} IS NULL OR {} NOT IN ({}))", left.sql, left.sql, rows)
        return Sql(found.text, found.values, found.depth + 3)

    def _check(self, left: Operand, inner: Inner) -> None:
        refuse = self.scope.statement.refuse
        for each, side in ((left, "left operand"), (inner.selected, "selected field of the sub-select")):
            if each.function or each.field.type not in _KEYS or len(each.path) > 1:  # text unverified
                message = f"The {side} of a semi join must be an id or a reference field of its own object: "
                raise refuse(each.node, message + each.shown)
        if inner.scope.sobject.name == self.scope.sobject.name:
            raise refuse(left.node, "The inner and outer selects should not be on the same object type")
        if not _points_to(left, self.scope) & _points_to(inner.selected, inner.scope):
            raise refuse(
                left.node,
                f"The selected field '{inner.selected.field.name}' in the subquery and the left operand field in the "
                f"where expression in the outer query '{left.field.name}' should point to the same object type",
            )


def _points_to(key: Operand, scope: Scope) -> set[str]:
    return {scope.sobject.name} if key.field.type == "id" else set(key.field.reference_to)
