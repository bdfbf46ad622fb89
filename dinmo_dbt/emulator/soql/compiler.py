"""SOQL to SQL: a tree of syntax becomes a checked Query, its values bound, what is not emulated refused by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial

from dinmo_dbt.emulator.errors import ApiError
from dinmo_dbt.emulator.folding import fold
from dinmo_dbt.emulator.schema.definitions import SObject
from dinmo_dbt.emulator.schema.describe import child_name
from dinmo_dbt.emulator.soql.conditions import Conditions
from dinmo_dbt.emulator.soql.functions import operand
from dinmo_dbt.emulator.soql.grouping import Grouping, aggregates, counts
from dinmo_dbt.emulator.soql.joining import Inner, SemiJoins
from dinmo_dbt.emulator.soql.query import Child, Parent, Query
from dinmo_dbt.emulator.soql.scope import Operand, Scope
from dinmo_dbt.emulator.soql.selection import Selection
from dinmo_dbt.emulator.soql.sql import Sql, compose, listed
from dinmo_dbt.emulator.soql.syntax import (
    Node,
    Statement,
    malformed,
    nodes,
    not_emulated,
    parse,
    parts,
    words,
)
from dinmo_dbt.emulator.store import Store

_LIMIT_MAX = 2**31
_OFFSET_MAX = 2000
_CHILD_LEVELS_MAX = 4  # below the outermost query: five levels in all, from API version 58.0
_CHILDREN_MAX = 20
_ORDERED_MAX = 32  # SOQL and SOSL Reference, ORDER BY
_ADVICE = "Please reference your WSDL or the describe call for the appropriate names."


def compile_query(store: Store, text: str, *, everything: bool, clock: Callable[[], datetime]) -> Query:
    """Check and translate one statement. `everything` also sees the recycle bin (queryAll)."""
    statement = parse(text)
    compiler = _Compiler(store, statement, clock, everything)
    clauses = parts(statement.tree)
    sobject, names = compiler.source(clauses["from_list"])
    return compiler.query(clauses, sobject, names)


@dataclass(slots=True)
class _Compiler:
    store: Store
    statement: Statement
    clock: Callable[[], datetime]
    everything: bool
    level: int = 0  # how many queries lie around this one

    def source(self, from_list: Node) -> tuple[SObject, set[str]]:
        """The object of a FROM, and what paths may call it."""
        if len(nodes(from_list)) > 1:
            raise not_emulated("several objects in FROM")
        path = nodes(nodes(from_list)[0])[0]
        shown = ".".join(words(path))
        sobject = self.store.schema.get(shown)
        if sobject is None:
            message = (
                f"sObject type '{shown}' is not supported. If you are attempting to use a custom object, be sure to "
                f"append the '__c' after the entity name. {_ADVICE}"
            )
            raise self.statement.refuse(path, message, "INVALID_TYPE")
        return sobject, {sobject.name.lower(), *(a.lower() for a in words(nodes(from_list)[0]))}

    def scope(self, sobject: SObject, names: set[str]) -> Scope:
        return Scope(self.store, self.statement, self.clock, self.everything, sobject, names)

    def query(self, clauses: dict[str, Node], sobject: SObject, names: set[str]) -> Query:
        self._refuse_clauses(clauses)
        scope = self.scope(sobject, names)
        select_list = clauses["select_list"]
        limit, offset = self._whole(clauses, "limit"), self._whole(clauses, "offset") or 0
        if offset > _OFFSET_MAX:
            message = f"Maximum SOQL offset allowed is {_OFFSET_MAX}"
            raise ApiError(400, "NUMBER_OUTSIDE_VALID_RANGE", message)
        grouped = "group_by" in clauses
        counted = not grouped and counts(select_list)
        if counted or grouped or aggregates(select_list):
            if self.level:  # text unverified
                raise self.statement.refuse(select_list, "aggregates can not be used in a subquery")
            if not counted:
                return self._aggregate_query(clauses, scope, limit, offset)
            if "order_by" in clauses:  # text unverified
                raise malformed("COUNT() queries can not have an ORDER BY clause")
        selected = () if counted else Selection(scope, limit, partial(self._child, scope)).read(select_list)
        if sum(isinstance(s, Child) for s in selected) > _CHILDREN_MAX:  # text unverified
            raise malformed(f"No more than {_CHILDREN_MAX} parent-to-child relationships are allowed")
        where, order = self._where(clauses, scope), self._order(clauses, partial(operand, scope))
        return Query(
            self.store.table(sobject), selected, _parents(scope), scope.tables, where, order, limit, offset,
            counted=counted,
        )  # fmt: skip

    def _aggregate_query(self, clauses: dict[str, Node], scope: Scope, limit: int | None, offset: int) -> Query:
        grouped = clauses.get("group_by")
        for word, given in (("LIMIT", limit is not None), ("OFFSET", bool(offset))):
            if given and grouped is None:
                raise malformed(f"Non-grouped query that uses overall aggregate functions cannot also use {word}")
        grouping = Grouping.of(scope, grouped)
        having = None
        if "having" in clauses:
            joins = SemiJoins(scope, self._inner, refused="Semi-joins are only supported in WHERE clauses")
            having = Conditions(scope, grouping.reader("Having field"), joins.sql).sql(nodes(clauses["having"])[0])
        groups = grouping.groups(clauses["select_list"], having)
        where = self._where(clauses, scope)
        order = self._order(clauses, grouping.reader("Ordered field"), last="min(t.rid)")
        return Query(
            self.store.table(scope.sobject), (), _parents(scope), scope.tables, where, order, limit, offset,
            groups=groups,
        )  # fmt: skip

    def _refuse_clauses(self, clauses: dict[str, Node]) -> None:
        if "with_clause" in clauses:
            raise not_emulated(f"WITH {words(clauses['with_clause'])[0].upper()}")
        if "update_clause" in clauses:
            raise not_emulated("UPDATE TRACKING and UPDATE VIEWSTAT")
        if "all_rows" in clauses:  # Apex only; the text is unverified
            raise self.statement.refuse(clauses["all_rows"], "ALL ROWS not allowed in this context")
        if "for_clause" in clauses:
            # VIEW and REFERENCE stamp LastViewedDate, which no object has here; UPDATE locks for the statement only.
            for word in words(clauses["for_clause"]):
                if word.upper() not in ("VIEW", "REFERENCE", "UPDATE"):
                    raise malformed(f"unexpected token: {word}")

    def _whole(self, clauses: dict[str, Node], clause: str) -> int | None:
        if clause not in clauses:
            return None
        text = words(clauses[clause])[0]
        if not text.isdigit():
            raise malformed(f"unexpected token: {text}")
        return min(int(text[:20]), _LIMIT_MAX)

    def _where(self, clauses: dict[str, Node], scope: Scope, refused: str = "") -> Sql:
        terms = [scope.living(), *self._mine(clauses, scope)]
        if "where" in clauses:
            joins = SemiJoins(scope, self._inner, refused)
            terms.append(Conditions(scope, partial(operand, scope), joins.sql).sql(nodes(clauses["where"])[0]))
        return compose(" AND ".join(["{}"] * len(terms)), *terms)

    def _mine(self, clauses: dict[str, Node], scope: Scope) -> list[Sql]:
        if "scope" not in clauses:
            return []
        name = words(clauses["scope"])[0]
        if name.lower() == "everything":
            return []
        if name.lower() != "mine":
            raise not_emulated(f"USING SCOPE {name}")
        if scope.sobject.field("OwnerId") is None:  # text unverified
            message = f"filterScope 'mine' is not supported for entity '{scope.sobject.name}'"
            raise self.statement.refuse(clauses["scope"], message)
        return [Sql('t."OwnerId" = ?', (self.store.user_rid,))]

    def _order(self, clauses: dict[str, Node], read: Callable[[Node], Operand], last: str = "t.rid") -> Sql:
        terms = []
        items = nodes(clauses["order_by"]) if "order_by" in clauses else []
        if len(items) > _ORDERED_MAX:  # text unverified
            raise malformed(f"No more than {_ORDERED_MAX} fields are allowed in ORDER BY")
        for item in items:
            node = nodes(item)[0]
            found = read(node)
            if found.field.long_text or found.field.type == "multipicklist":
                message = f"field '{found.field.name}' can not be sorted in a query call"
                raise self.statement.refuse(node, message)
            said = [word.upper() for word in words(item)]
            direction = "DESC" if "DESC" in said else "ASC"
            nulls = "LAST" if "LAST" in said else "FIRST"
            keys = [found.compared] if found.function or not found.field.picklist else [_place(found), found.compared]
            terms += [compose(f"{{}} {direction} NULLS {nulls}", key) for key in keys]
        return listed([*terms, Sql(last)])

    def _child(self, around: Scope, tree: Node) -> Child:
        """A subquery in SELECT: its FROM names a relationship of the object around it."""
        if self.level >= _CHILD_LEVELS_MAX:  # text unverified
            raise self.statement.refuse(tree, f"No more than {_CHILD_LEVELS_MAX} levels of subqueries are allowed")
        clauses = parts(tree)
        from_object = nodes(clauses["from_list"])[0]
        path = nodes(from_object)[0]
        names = words(path)
        if len(names) == 2 and names[0].lower() in around.names:
            names = names[1:]
        shown = ".".join(names)
        if len(nodes(clauses["from_list"])) > 1:
            raise not_emulated("several objects in FROM")
        objects = self.store.schema.objects
        links = ((o, f) for o in objects for f in o.fields if f.stored and around.sobject.name in f.reference_to)
        for child, link in links:
            name = child_name(child, link)
            if name is not None and name.lower() == shown.lower():
                called = {name.lower(), *(a.lower() for a in words(from_object))}
                return Child(name, link, replace(self, level=self.level + 1).query(clauses, child, called))
        message = (
            f"Didn't understand relationship '{shown}' in FROM part of query call. If you are attempting to use a "
            f"custom relationship, be sure to append the '__r' after the custom relationship name. {_ADVICE}"
        )
        raise self.statement.refuse(path, message, "INVALID_TYPE")

    def _inner(self, clauses: dict[str, Node]) -> Inner:
        """A subquery in WHERE: one field, a condition, nothing else."""
        sobject, names = self.source(clauses["from_list"])
        for clause in clauses:
            if clause not in ("select_list", "from_list", "where"):  # text unverified
                word = clause.removesuffix("_clause").replace("_", " ").upper()
                raise malformed(f"{word} is not supported in semi join sub-selects")
        scope = self.scope(sobject, names)
        items = nodes(clauses["select_list"])
        if len(items) != 1 or items[0].data != "field_item" or words(items[0]):  # text unverified
            raise self.statement.refuse(clauses["select_list"], "A semi join sub-select must select exactly one field")
        selected = scope.field(nodes(items[0])[0])
        where = self._where(clauses, scope, refused="Nesting of semi join sub-selects is not supported")
        return Inner(scope, selected, where)


def _place(found: Operand) -> Sql:
    """A picklist's value by its place among the active ones, any other behind them: by that picklists are sorted."""
    values = [option.value for option in found.field.picklist if option.active]
    cases = Sql(" ".join(f"WHEN ? THEN {place}" for place in range(len(values))), tuple(map(fold, values)))
    text = f"(CASE WHEN {{}} IS NULL THEN NULL ELSE CASE {{}} {{}} ELSE {len(values)} END END)"
    return compose(text, found.sql, found.compared, cases) if values else Sql("NULL")


def _parents(scope: Scope) -> tuple[Parent, ...]:
    return tuple(Parent(path, join.link, join.rid, join.polymorphic) for path, join in scope.joins.items())
