"""Functions of a field: date functions and toLabel. What else SOQL calls is refused by name."""

from __future__ import annotations

from dinmo_dbt.emulator.schema.definitions import Field
from dinmo_dbt.emulator.soql import dates
from dinmo_dbt.emulator.soql.scope import Operand, Scope
from dinmo_dbt.emulator.soql.sql import Sql, compose
from dinmo_dbt.emulator.soql.syntax import Node, nodes, not_emulated, tree

AGGREGATES = {
    "COUNT": "count({})", "COUNT_DISTINCT": "count(DISTINCT {})", "SUM": "sum({})", "AVG": "avg({})",
    "MIN": "min({})", "MAX": "max({})",
}  # fmt: skip


def operand(scope: Scope, node: Node) -> Operand:
    """A field path or a function of one."""
    return scope.field(node) if node.data == "path" else function(scope, node)


def called(node: Node) -> str:
    return str(node.children[0]).upper()


def arguments(node: Node) -> list[Node]:
    return nodes(tree(node.children[1])) if node.children[1] is not None else []


def function(scope: Scope, node: Node) -> Operand:
    name, given = called(node), arguments(node)
    if name in AGGREGATES:  # text unverified
        raise scope.statement.refuse(node, f"the aggregate function {name} can not be used here")
    if name != "TOLABEL" and name not in dates.FUNCTIONS:
        raise not_emulated(f"the function {name}()")
    if len(given) != 1:
        raise scope.statement.refuse(node, f"the function {name} takes one field")  # text unverified
    if name == "TOLABEL":
        return _label(scope, node, given[0])
    return _date(scope, node, name, given[0])


def _date(scope: Scope, node: Node, name: str, given: Node) -> Operand:
    while given.data == "function" and called(given) == "CONVERTTIMEZONE" and len(arguments(given)) == 1:
        given = arguments(given)[0]  # the user's time zone is UTC
    if given.data != "path":
        raise scope.statement.refuse(node, f"the function {name} takes one field")  # text unverified
    source = scope.field(given)
    rule = dates.FUNCTIONS[name]
    if source.field.type not in (("datetime",) if rule.of_time else ("date", "datetime")):
        message = f"field {source.field.name} does not support the function {name}"  # text unverified
        raise scope.invalid(given, message)
    sql = compose(f"({rule.sql})", source.sql)
    answer = Field(name=source.field.name, label=name, type=rule.type)
    return Operand(node, source.path, answer, sql, sql, function=name)


def _label(scope: Scope, node: Node, given: Node) -> Operand:
    """The label of a picklist's value, the value itself if it has none."""
    if given.data != "path":
        raise scope.statement.refuse(node, "the function toLabel takes one field")  # text unverified
    source = scope.field(given)
    if source.field.type == "multipicklist":
        raise not_emulated("toLabel of a multi-select picklist")
    if source.field.type != "picklist":
        message = f"field {source.field.name} does not support the function toLabel"  # text unverified
        raise scope.invalid(given, message)
    options = [option for option in source.field.picklist if option.label != option.value]
    if not options:
        return Operand(node, source.path, source.field, source.sql, source.compared, function="TOLABEL")
    values = tuple(text for option in options for text in (option.value, option.label))
    cases = Sql(" ".join(["WHEN ? THEN ?"] * len(options)), values)
    sql = compose("(CASE {} {} ELSE {} END)", source.sql, cases, source.sql)
    answer = Field(name=source.field.name, label=source.field.label, type="picklist", length=255)
    return Operand(node, source.path, answer, sql, compose("fold({})", sql), function="TOLABEL")
