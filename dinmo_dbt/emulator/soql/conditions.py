"""WHERE and HAVING to SQL.

SOQL is two-valued: `!=` and NOT also find rows in which the field is null. Text is compared without regard to
case unless the field is unique and case-sensitive; LIKE never regards it. Source: SOQL and SOSL Reference,
comparison operators; wire reference §6.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, date
from typing import Any

from dinmo_dbt.emulator.folding import fold
from dinmo_dbt.emulator.soql import dates, literals
from dinmo_dbt.emulator.soql.scope import Operand, Scope
from dinmo_dbt.emulator.soql.sql import DEPTH_MAX, Sql, chained, compose
from dinmo_dbt.emulator.soql.syntax import Node, like_pattern, malformed, nodes, not_emulated, unescape, words

_EQUALITY = ("=", "!=", "<>")
# Some option has no value that is missing. Bound as one text: a statement may have more values than SQLite binds.
_INCLUDED = (
    "({} IS NOT NULL AND EXISTS (SELECT 1 FROM json_each({}) o WHERE NOT EXISTS "
    "(SELECT 1 FROM json_each(o.value) v WHERE instr(';' || {} || ';', v.value) = 0)))"
)
_LISTED = "{} IN (SELECT value FROM json_each(?))"


@dataclass(frozen=True, slots=True)
class Conditions:
    """The conditions of one clause. `operand` reads their left sides, `semi_join` their subqueries."""

    scope: Scope
    operand: Callable[[Node], Operand]
    semi_join: Callable[[Node, bool, str], Sql]

    def sql(self, condition: Node) -> Sql:
        found = self._condition(condition, negate=False, place="")
        if found.depth > DEPTH_MAX:
            raise not_emulated("conditions nested this deep")
        return found

    def _condition(self, node: Node, *, negate: bool, place: str, level: int = 0) -> Sql:
        """`place` is what stands around the condition: '' at the top, AND, then what a semi-join can't be in."""
        if level > 4 * DEPTH_MAX:
            raise not_emulated("conditions nested this deep")
        if node.data == "not_condition":
            while node.data == "not_condition":
                node, negate = nodes(node)[-1], not negate
            place = "NOT"
        if node.data in ("or_condition", "and_condition"):
            # NOT is carried to the comparisons: fewer parentheses than around them.
            either = (node.data == "or_condition") != negate
            inside = place if place in ("NOT", "OR") else {"": "AND", "AND": "nested", "nested": "nested"}[place]
            if node.data == "or_condition" and place != "NOT":
                inside = "OR"
            terms = [self._condition(c, negate=negate, place=inside, level=level + 1) for c in nodes(node)]
            return chained(terms, "OR" if either else "AND")
        if node.data in ("semi_join", "anti_join"):
            return self.semi_join(node, (node.data == "anti_join") != negate, place)
        return self._comparison(node, negate=negate)

    def _comparison(self, node: Node, *, negate: bool) -> Sql:
        operand = self.operand(nodes(node)[0])
        if operand.field.long_text:
            message = f"field '{operand.field.name}' can not be filtered in a query call"
            raise self.scope.invalid(operand.node, message)
        match node.data:
            case "compare":
                return self._compare(operand, words(node)[0], nodes(node)[-1], negate=negate)
            case "like":
                return self._like(operand, nodes(node)[-1], negate=negate)
            case "in_list" | "not_in_list":
                return self._in(operand, nodes(node)[-1], negate=(node.data == "not_in_list") != negate)
            case _:
                return self._includes(operand, nodes(node)[-1], negate=(node.data == "excludes") != negate)

    def _compare(self, operand: Operand, operator: str, literal: Node, *, negate: bool) -> Sql:
        if literal.data == "date_literal":
            return self._in_days(operand, operator, literal, negate=negate)
        if not operand.field.kind.is_ordered and operator not in _EQUALITY:
            raise self._wrong_operator(operand)
        value = self._value(operand, literal)
        if value is None:
            if operator not in _EQUALITY:
                if literal.data == "null":  # text unverified
                    raise self.scope.invalid(operand.node, f"null can not be compared with {operator}")
                # An empty string comes before every text (unverified); a null is neither before nor after it.
                after = operator in (">", ">=")
                return _negated(compose("{} IS NOT NULL", operand.sql) if after else Sql("0"), negate=negate)
            empty = (operator == "=") != negate
            return compose("{} IS NULL" if empty else "{} IS NOT NULL", operand.sql)
        if operator in _EQUALITY:
            equal = (operator == "=") != negate
            return compose("{} = {}" if equal else "{} IS NOT {}", operand.compared, Sql("?", (value,)))
        return _negated(compose(f"{{}} {operator} {{}}", operand.compared, Sql("?", (value,))), negate=negate)

    def _like(self, operand: Operand, literal: Node, *, negate: bool) -> Sql:
        if not operand.field.kind.is_text or operand.field.kind.holds_several:
            raise self._wrong_operator(operand)
        if literal.data != "string":
            raise literals.wrong_type(self.scope.statement, operand.node, operand.field, "should be enclosed in quotes")
        # SQLite folds ASCII by itself; the rest is folded on both sides.
        column = operand.compared if operand.field.folded else compose("fold({})", operand.sql)
        pattern = fold(like_pattern(words(literal)[0]))
        return _negated(compose("{} LIKE {} ESCAPE '\\'", column, Sql("?", (pattern,))), negate=negate)

    def _in(self, operand: Operand, values: Node, *, negate: bool) -> Sql:
        if operand.field.kind.holds_several:
            raise self._wrong_operator(operand)
        wanted = [self._value(operand, v) for v in nodes(values)]
        held = json.dumps([w for w in wanted if w is not None], ensure_ascii=False)
        test = Sql(_LISTED.format(operand.compared.text), (*operand.compared.values, held), operand.compared.depth + 1)
        if None in wanted:
            test = chained([test, compose("{} IS NULL", operand.sql)], "OR")
        return _negated(test, negate=negate)

    def _value(self, operand: Operand, literal: Node) -> Any:
        scope = self.scope
        return literals.value(scope.statement, scope.store.codec, operand.node, operand.field, literal)

    def _includes(self, operand: Operand, values: Node, *, negate: bool) -> Sql:
        """Any of the options; an option of several values asks for all of them."""
        if not operand.field.kind.holds_several:
            raise self._wrong_operator(operand)
        options = []
        for literal in nodes(values):
            if literal.data != "string":
                advice = "should be enclosed in quotes"
                raise literals.wrong_type(self.scope.statement, operand.node, operand.field, advice)
            options.append([f";{fold(part)};" for part in unescape(words(literal)[0]).split(";")])
        asked = Sql("?", (json.dumps(options, ensure_ascii=False),))
        test = compose(_INCLUDED, operand.compared, asked, operand.compared)
        return _negated(replace(test, depth=test.depth + 5), negate=negate)

    def _in_days(self, operand: Operand, operator: str, literal: Node, *, negate: bool) -> Sql:
        low, high = self._days(operand, literal)
        midnight = "" if operand.field.type == "date" else "T00:00:00"
        first, after = (Sql("?", (day.isoformat() + midnight,)) for day in (low, high))
        match operator:
            case "=" | "!=" | "<>":
                test = compose("({} >= {} AND {} < {})", operand.sql, first, operand.sql, after)
                return _negated(test, negate=(operator != "=") != negate)
            case "<" | ">=":
                test = compose(f"{{}} {operator} {{}}", operand.sql, first)
            case _:
                test = compose("{} < {}" if operator == "<=" else "{} >= {}", operand.sql, after)
        return _negated(test, negate=negate)

    def _days(self, operand: Operand, literal: Node) -> tuple[date, date]:
        name, count = str(literal.children[0]), literal.children[1]
        shown = name if count is None else f"{name}:{count}"
        n = int(str(count)) if count is not None and str(count).isdigit() and len(str(count)) < 10 else None
        if operand.field.type not in ("date", "datetime") or (count is not None and n is None):
            raise self.scope.statement.refuse(literal, f"unexpected token: {shown}")
        try:
            found = dates.day_range(name.upper(), n, self.scope.clock().astimezone(UTC).date())
        except OverflowError as error:  # text unverified
            raise malformed(f"line 1: date literal out of range: {shown}") from error
        if found is None:
            raise self.scope.statement.refuse(literal, f"unexpected token: {shown}")
        return found

    def _wrong_operator(self, operand: Operand) -> Exception:
        message = f"invalid operator on {operand.field.type} field"
        return self.scope.statement.refuse(operand.node, message, "INVALID_QUERY_FILTER_OPERATOR")


def _negated(test: Sql, *, negate: bool) -> Sql:
    """The test, or its opposite, which null satisfies."""
    return Sql(f"NOT coalesce({test.text}, 0)", test.values, test.depth + 1) if negate else test
