"""SOQL to SQL: a lark grammar reads it, bound parameters run it, what is not emulated is refused by name.

SOQL is two-valued: `!=` and NOT also find rows in which the field is null. Text is compared without regard to
case unless the field is unique and case-sensitive. Source: SOQL and SOSL Reference; wire reference §6.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

from lark import Lark, Token, Tree
from lark.exceptions import UnexpectedCharacters, UnexpectedEOF, UnexpectedInput, UnexpectedToken

from dinmo_dbt.emulator.errors import ApiError
from dinmo_dbt.emulator.ids import MALFORMED
from dinmo_dbt.emulator.schema import NUMBER_TYPES, TEXT_TYPES, Field, SObject
from dinmo_dbt.emulator.store import Store, Table, fold, quoted

_LENGTH_MAX = 100_000
_PARENTS_MAX = 5
_LIMIT_MAX = 2**31
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "b": "\b", "f": "\f"}

Node = Tree[Token]


@dataclass(frozen=True, slots=True)
class Item:
    """One selected field: `path` is the parents' names as the schema writes them, then the field."""

    path: tuple[str, ...]
    field: Field
    sql: str


@dataclass(frozen=True, slots=True)
class Parent:
    """A joined parent: its path of relationship names, its object, and the SQL of its integer."""

    path: tuple[str, ...]
    sobject: SObject
    rid: str


@dataclass(frozen=True, slots=True)
class Query:
    """A query ready to run: `SELECT {items} {body}` gives rows, `{head}` their integers."""

    table: Table
    items: tuple[Item, ...]
    parents: tuple[Parent, ...]
    count: str | None  # COUNT() or COUNT(field): what is counted, '' for COUNT()
    count_alias: str
    tables: str  # FROM and the joins of parents
    where: str
    order: str
    parameters: tuple[Any, ...]
    limit: int | None
    offset: int

    def rids_sql(self) -> str:
        tail = f" LIMIT {self.limit if self.limit is not None else -1} OFFSET {self.offset}"
        return f"SELECT t.rid {self.tables} WHERE {self.where} ORDER BY {self.order}{tail}"

    def rows_sql(self) -> str:
        """Rows by their integers, given as one JSON array; the order is the caller's."""
        columns = ", ".join(["t.rid", *(i.sql for i in self.items), *(p.rid for p in self.parents)])
        return f"SELECT {columns} {self.tables} WHERE t.rid IN (SELECT value FROM json_each(?))"


@cache
def _parser() -> Lark:
    grammar = (Path(__file__).parent / "soql.lark").read_text(encoding="utf-8")
    return Lark(grammar, start="query", parser="lalr", maybe_placeholders=True, propagate_positions=True)


def parse(text: str) -> Node:
    """The syntax tree, or Salesforce's MALFORMED_QUERY."""
    if len(text) > _LENGTH_MAX:
        raise _malformed(f"SOQL statements can not be longer than {_LENGTH_MAX} characters")
    try:
        return _parser().parse(text)
    except (UnexpectedToken, UnexpectedEOF) as error:
        token = getattr(error, "token", None)
        shown = "'<EOF>'" if token is None or token.type == "$END" else str(token)
        raise _malformed(f"unexpected token: {shown}") from error
    except UnexpectedCharacters as error:
        rest = text[error.pos_in_stream :] if error.pos_in_stream is not None else text
        if rest.startswith("'"):
            raise _malformed("line 1: unterminated string literal") from error
        word = re.match(r"\w+|.", rest, re.S)
        raise _malformed(f"unexpected token: {word[0] if word else rest[:1]}") from error
    except UnexpectedInput as error:
        raise _malformed("unexpected token") from error


def _malformed(message: str) -> ApiError:
    return ApiError(400, "MALFORMED_QUERY", message)


def not_emulated(clause: str) -> ApiError:
    """A clause Salesforce knows and this server does not run."""
    return _malformed(f"The dinmo-dbt emulator does not emulate {clause} in SOQL")


def compile_query(store: Store, text: str, *, everything: bool, clock: Callable[[], datetime]) -> Query:
    """Check and translate one statement. `everything` also sees the recycle bin (queryAll)."""
    return _Compiler(store, text, clock).query(parse(text), everything=everything)


@dataclass(slots=True)
class _Compiler:
    store: Store
    text: str
    clock: Callable[[], datetime]
    joins: dict[tuple[str, ...], tuple[str, SObject]] = field(default_factory=dict)
    tables: str = ""
    parameters: list[Any] = field(default_factory=list)

    def query(self, tree: Node, *, everything: bool) -> Query:
        parts = _parts(tree)
        for rule, clause in (
            ("scope", "USING SCOPE"), ("with_clause", "WITH"), ("group_by", "GROUP BY"), ("having", "HAVING"),
            ("for_clause", "FOR VIEW, FOR REFERENCE and FOR UPDATE"), ("all_rows", "ALL ROWS"),
        ):  # fmt: skip
            if rule in parts:
                raise not_emulated(clause)
        sobject, alias = self._from(parts["from_object"])
        table = self.store.table(sobject)
        self.tables = f"FROM {table.name} t"
        self.joins[()] = ("t", sobject)
        aliases = {name for name in (alias, sobject.name.lower()) if name}
        items, count, count_alias = self._select(parts["select_list"], sobject, aliases)
        where = "1" if everything else 't."IsDeleted" = 0'
        if "where" in parts:
            where += f" AND {self._condition(_only(parts['where']), sobject, aliases)}"
        order = []
        if "order_by" in parts:
            order = [self._order(each, sobject, aliases) for each in parts["order_by"].children]
        limit = self._whole(parts, "limit")
        offset = self._whole(parts, "offset") or 0
        if count == "" and order:
            raise _malformed("COUNT() queries can not have an ORDER BY clause")
        parents = tuple(Parent(p, o, f"{a}.rid") for p, (a, o) in self.joins.items() if p)
        return Query(
            table, tuple(items), parents, count, count_alias, self.tables, where, ", ".join([*order, "t.rid"]),
            tuple(self.parameters), limit, offset,
        )  # fmt: skip

    def _whole(self, parts: dict[str, Node], rule: str) -> int | None:
        if rule not in parts:
            return None
        text = str(parts[rule].children[0])
        if not text.isdigit():
            raise _malformed(f"unexpected token: {text}")
        return min(int(text), _LIMIT_MAX)

    def _from(self, node: Node) -> tuple[SObject, str | None]:
        names = [str(t) for t in _tree(node.children[0]).children]
        sobject = self.store.schema.get(names[0]) if len(names) == 1 else None
        if sobject is None:
            shown = ".".join(names)
            raise ApiError(
                400, "INVALID_TYPE",
                self._at(_tree(node.children[0])) +
                f"sObject type '{shown}' is not supported. If you are attempting to use a custom object, be sure to "
                "append the '__c' after the entity name. Please reference your WSDL or the describe call for the "
                "appropriate names.",
            )  # fmt: skip
        alias = (
            str(_tree(node.children[1]).children[0]).lower() if len(node.children) > 1 and node.children[1] else None
        )
        return sobject, alias

    def _select(self, node: Node, sobject: SObject, aliases: set[str]) -> tuple[list[Item], str | None, str]:
        items: list[Item] = []
        count: str | None = None
        count_alias = "expr0"
        for each in node.children:
            item = _tree(each)
            match item.data:
                case "field_item":
                    if len(item.children) > 1 and item.children[1] is not None:
                        raise not_emulated("a field alias")
                    items.append(self._item(_tree(item.children[0]), sobject, aliases))
                case "function_item":
                    name = str(item.children[0]).upper()
                    args = item.children[1]
                    if name == "FIELDS":
                        items += self._fields(item, sobject)
                    elif name == "COUNT":
                        count = ""
                        if args is not None:
                            count = self._resolve(_tree(_tree(args).children[0]), sobject, aliases)[0]
                        if len(item.children) > 2 and item.children[2] is not None:
                            count_alias = str(_tree(item.children[2]).children[0])
                    else:
                        raise not_emulated(f"the function {name}()")
                case "subquery_item":
                    raise not_emulated("a parent-to-child subquery")
                case _:
                    raise not_emulated("TYPEOF")
        if count is not None and (items or len(node.children) > 1):
            raise not_emulated("COUNT beside other fields")
        return items, count, count_alias

    def _fields(self, node: Node, sobject: SObject) -> list[Item]:
        args = node.children[1]
        names = [str(_tree(p).children[0]).upper() for p in _tree(args).children] if args is not None else []
        if names not in (["ALL"], ["STANDARD"], ["CUSTOM"]):
            raise _malformed("FIELDS() takes ALL, STANDARD or CUSTOM")
        if names != ["STANDARD"] and not re.search(r"\blimit\s+(\d|[1-9]\d|1\d\d|200)\s*($|\D)", self.text, re.I):
            raise _malformed("The SOQL FIELDS function must have a LIMIT of at most 200")
        chosen = [
            f for f in sobject.fields if names == ["ALL"] or (names == ["CUSTOM"]) == f.custom
        ]  # fmt: skip
        return [Item((f.name,), f, self._column("t", f)) for f in chosen]

    def _item(self, node: Node, sobject: SObject, aliases: set[str]) -> Item:
        sql, target, path = self._resolve(node, sobject, aliases)
        return Item(path, target, sql)

    def _resolve(self, node: Node, sobject: SObject, aliases: set[str]) -> tuple[str, Field, tuple[str, ...]]:
        """A field path to its SQL, joining the parents on the way."""
        names = [str(t) for t in node.children]
        if len(names) > 1 and names[0].lower() in aliases and sobject.relationship(names[0]) is None:
            names = names[1:]
        if len(names) - 1 > _PARENTS_MAX:
            raise _malformed("No more than 5 relationship levels are allowed")
        path: tuple[str, ...] = ()
        alias, current = self.joins[()]
        for name in names[:-1]:
            link = current.relationship(name)
            if link is None or link.relationship_name is None:
                raise self._invalid(
                    node,
                    f"Didn't understand relationship '{name}' in field path. If you are attempting to use a custom "
                    "relationship, be sure to append the '__r' after the custom relationship name. Please reference "
                    "your WSDL or the describe call for the appropriate names.",
                )
            parents = [p for p in link.reference_to if self.store.schema.get(p) is not None]
            parent = self.store.schema.get(parents[-1]) if parents else None
            if parent is None:
                raise not_emulated(f"the relationship {name}")
            path = (*path, link.relationship_name)
            if path not in self.joins:
                joined = f"p{len(self.joins)}"
                self.tables += (
                    f" LEFT JOIN {self.store.table(parent).name} {joined} ON {joined}.rid = {alias}.{quoted(link.name)}"
                )
                self.joins[path] = (joined, parent)
            alias, current = self.joins[path]
        target = current.field(names[-1])
        if target is None:
            raise self._invalid(
                node,
                f"No such column '{names[-1]}' on entity '{current.name}'. If you are attempting to use a custom "
                "field, be sure to append the '__c' after the custom field name. Please reference your WSDL or the "
                "describe call for the appropriate names.",
            )
        return self._column(alias, target), target, (*path, target.name)

    def _column(self, alias: str, target: Field) -> str:
        if target.sql is not None:
            return f"({target.sql.replace('{t}', alias)})"
        return f"{alias}.rid" if target.name == "Id" else f"{alias}.{quoted(target.name)}"

    def _order(self, tree: Any, sobject: SObject, aliases: set[str]) -> str:
        node = _tree(tree)
        sql, target, *_ = self._resolve(_tree(node.children[0]), sobject, aliases)
        if target.long_text or target.type == "multipicklist":
            raise self._invalid(node, f"field '{target.name}' can not be sorted in a query call", "MALFORMED_QUERY")
        words = [str(c).upper() for c in node.children[1:] if c is not None]
        direction = "DESC" if "DESC" in words else "ASC"
        nulls = "LAST" if "LAST" in words else "FIRST"
        column = f"fold({sql})" if target.folded else sql
        return f"{column} {direction} NULLS {nulls}"

    def _condition(self, node: Node, sobject: SObject, aliases: set[str]) -> str:
        match node.data:
            case "or_condition" | "and_condition":
                word = " OR " if node.data == "or_condition" else " AND "
                return _balanced([self._condition(_tree(c), sobject, aliases) for c in node.children], word)
            case "not_condition":
                return f"NOT coalesce({self._condition(_only(node), sobject, aliases)}, 0)"
            case "semi_join" | "anti_join":
                raise not_emulated("a subquery in WHERE")
            case _:
                return self._comparison(node, sobject, aliases)

    def _comparison(self, node: Node, sobject: SObject, aliases: set[str]) -> str:
        operand = _tree(node.children[0])
        if operand.data == "operand_function":
            raise not_emulated(f"the function {str(operand.children[0]).upper()}() in WHERE")
        path = _tree(operand.children[0])
        sql, target, *_ = self._resolve(path, sobject, aliases)
        if target.long_text:
            raise self._invalid(path, f"field '{target.name}' can not be filtered in a query call")
        match node.data:
            case "compare":
                return self._compare(path, sql, target, str(node.children[1]), _tree(node.children[2]))
            case "like":
                if target.type not in TEXT_TYPES or target.type == "multipicklist":
                    message = f"invalid operator on {target.type} field"
                    raise self._invalid(path, message, "INVALID_QUERY_FILTER_OPERATOR")
                literal = _tree(node.children[2] if len(node.children) > 2 else node.children[1])
                if literal.data != "string":
                    raise self._invalid(path, f"LIKE on field '{target.name}' needs a string")
                self.parameters.append(_like_pattern(str(literal.children[0])))
                return f"{sql} LIKE ? ESCAPE '\\'"
            case "in_list" | "not_in_list":
                return self._in(path, sql, target, _tree(node.children[-1]), negate=node.data == "not_in_list")
            case _:
                return self._includes(path, sql, target, node)

    def _in(self, path: Node, sql: str, target: Field, values: Node, *, negate: bool) -> str:
        if target.type == "multipicklist":
            raise self._invalid(path, "invalid operator on multipicklist field", "INVALID_QUERY_FILTER_OPERATOR")
        wanted = [self._value(path, target, _tree(v)) for v in values.children]
        self.parameters.append(json.dumps([w for w in wanted if w is not None], ensure_ascii=False))
        column = f"fold({sql})" if target.folded else sql
        test = f"{column} IN (SELECT value FROM json_each(?))"
        if None in wanted:
            test = f"({test} OR {sql} IS NULL)"
        return f"NOT coalesce({test}, 0)" if negate else test

    def _compare(self, path: Node, sql: str, target: Field, operator: str, literal: Node) -> str:
        if literal.data == "date_literal":
            return self._date_range(path, sql, target, operator, literal)
        if target.type == "multipicklist" and operator not in ("=", "!=", "<>"):
            raise self._invalid(path, "invalid operator on multipicklist field", "INVALID_QUERY_FILTER_OPERATOR")
        value = self._value(path, target, literal)
        if value is None:
            if operator == "=":
                return f"{sql} IS NULL"
            if operator in ("!=", "<>"):
                return f"{sql} IS NOT NULL"
            raise self._invalid(path, f"null can not be compared with {operator}")
        if (
            target.type in ("boolean", "id", "reference")
            and operator not in ("=", "!=", "<>")
            and (target.type == "boolean")
        ):
            raise self._invalid(path, "invalid operator on boolean field", "INVALID_QUERY_FILTER_OPERATOR")
        column = f"fold({sql})" if target.folded else sql
        self.parameters.append(value)
        if operator in ("!=", "<>"):
            return f"{column} IS NOT ?"
        return f"{column} {operator} ?"

    def _value(self, path: Node, target: Field, literal: Node) -> Any:
        """The literal in the field's stored form; an empty string is null, as it is stored."""
        kind = literal.data
        raw = str(literal.children[0]) if literal.children else ""
        if kind == "bind":
            raise _malformed("unexpected token: ':'")
        if kind == "date_literal":
            raise self._invalid(path, f"unexpected token: {raw}", "MALFORMED_QUERY")
        if kind == "null":
            return None
        if target.type in TEXT_TYPES:
            if kind != "string":
                raise self._type_error(path, target, "should be enclosed in quotes")
            text = unescape(raw)
            return (fold(text) if target.folded else text) or None
        if target.type in ("id", "reference"):
            if kind != "string":
                raise self._type_error(path, target, "should be enclosed in quotes")
            text = unescape(raw)
            if not text:
                return None
            rid = self.store.codec.decode(text)
            if rid == MALFORMED:
                raise self._invalid(path, f"invalid ID field: {text}", "INVALID_QUERY_FILTER_OPERATOR")
            return rid
        wanted = {"boolean": ("true", "false"), "date": ("date",), "datetime": ("datetime",), "time": ("string",)}
        if kind not in wanted.get(target.type, ("number",)):
            raise self._type_error(path, target, "should not be enclosed in quotes")
        match target.type:
            case "boolean":
                return 1 if kind == "true" else 0
            case "date":
                return raw
            case "datetime":
                return _moment(raw)
            case _:
                return float(raw)

    def _includes(self, path: Node, sql: str, target: Field, node: Node) -> str:
        if target.type != "multipicklist":
            message = f"invalid operator on {target.type} field"
            raise self._invalid(path, message, "INVALID_QUERY_FILTER_OPERATOR")
        options = []
        for literal in _tree(node.children[-1]).children:
            parts = []
            for part in unescape(str(_tree(literal).children[0])).split(";"):
                self.parameters.append(f";{fold(part)};")
                parts.append(f"instr(';' || fold({sql}) || ';', ?) > 0")
            options.append("(" + " AND ".join(parts) + ")")
        test = "(" + " OR ".join(options) + ")"
        return f"NOT coalesce({test}, 0)" if node.data == "excludes" else test

    def _date_range(self, path: Node, sql: str, target: Field, operator: str, literal: Node) -> str:
        """TODAY, LAST_N_DAYS:3 and their kin, as a range of days in UTC."""
        name = str(literal.children[0]).upper()
        days = int(str(literal.children[1])) if len(literal.children) > 1 else 0
        if target.type not in ("date", "datetime"):
            raise self._invalid(path, f"unexpected token: {name}", "MALFORMED_QUERY")
        today = self.clock().astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        day = timedelta(days=1)
        match name:
            case "TODAY":
                start, end = today, today + day
            case "YESTERDAY":
                start, end = today - day, today
            case "TOMORROW":
                start, end = today + day, today + 2 * day
            case "LAST_N_DAYS":
                start, end = today - days * day, today + day
            case "NEXT_N_DAYS":
                start, end = today + day, today + (days + 1) * day
            case _:
                raise not_emulated(f"the date literal {name}")
        form = "%Y-%m-%d" if target.type == "date" else "%Y-%m-%dT%H:%M:%S"
        low, high = start.strftime(form), end.strftime(form)
        match operator:
            case "=":
                self.parameters += [low, high]
                return f"({sql} >= ? AND {sql} < ?)"
            case "!=" | "<>":
                self.parameters += [low, high]
                return f"NOT coalesce({sql} >= ? AND {sql} < ?, 0)"
            case "<" | ">=":
                self.parameters.append(low)
                return f"{sql} {operator} ?"
            case _:
                self.parameters.append(high)
                return f"{sql} {'<' if operator == '<=' else '>='} ?"

    def _type_error(self, path: Node, target: Field, advice: str) -> ApiError:
        kind = {"boolean": "boolean", "date": "date", "datetime": "dateTime", "int": "integer", "id": "id"}.get(
            target.type, "double" if target.type in NUMBER_TYPES else "string"
        )
        message = f"value of filter criterion for field '{target.name}' must be of type {kind} and {advice}"
        return self._invalid(path, message)

    def _invalid(self, node: Node, message: str, code: str = "INVALID_FIELD") -> ApiError:
        return ApiError(400, code, self._at(node) + message)

    def _at(self, node: Node) -> str:
        """Salesforce's pointer into the statement: the line, a caret, row and column."""
        token = next(iter(node.scan_values(lambda t: isinstance(t, Token))), None)
        start = token.start_pos if token is not None and token.start_pos is not None else 0
        context = self.text[max(0, start - 35) : start + 35]
        caret = " " * min(start, 35) + "^"
        column = start - (self.text.rfind("\n", 0, start) + 1) + 1
        row = self.text.count("\n", 0, start) + 1
        return f"\n{context}\n{caret}\nERROR at Row:{row}:Column:{column}\n"


def _balanced(terms: list[str], word: str) -> str:
    """Terms joined as a balanced tree: SQLite refuses an expression 1000 levels deep, SOQL does not."""
    if len(terms) == 1:
        return terms[0]
    half = len(terms) // 2
    return f"({_balanced(terms[:half], word)}{word}{_balanced(terms[half:], word)})"


def _parts(tree: Node) -> dict[str, Node]:
    return {str(c.data): c for c in tree.children if isinstance(c, Tree)}


def _tree(node: Any) -> Node:
    assert isinstance(node, Tree)
    return node


def _only(node: Node) -> Node:
    return _tree(node.children[-1])


def unescape(literal: str) -> str:
    """A quoted SOQL string's characters. An escape SOQL does not know is an error."""
    body = literal[1:-1]

    def one(found: re.Match[str]) -> str:
        char = found[1]
        if char[0] == "u":
            return chr(int(char[1:], 16))
        if char in _ESCAPES or char.lower() in _ESCAPES:
            return _ESCAPES[char.lower()]
        if char in "\\'\"_%":
            return char
        raise _malformed(f"line 1: invalid string escape sequence '\\{char}'")

    return re.sub(r"\\(u[0-9a-fA-F]{4}|.)", one, body, flags=re.S)


def _like_pattern(literal: str) -> str:
    r"""A LIKE pattern for SQLite with `\` as its escape: `\_` and `\%` stay escaped, `\\` is a backslash."""
    body = literal[1:-1]

    def one(found: re.Match[str]) -> str:
        char = found[1]
        if char in "_%\\":
            return "\\" + char
        return unescape(f"'\\{char}'")

    return re.sub(r"\\(u[0-9a-fA-F]{4}|.)", one, body, flags=re.S)


def _moment(text: str) -> str:
    text = text.upper().replace("Z", "+00:00")
    if re.search(r"[+-]\d{4}$", text):
        text = f"{text[:-2]}:{text[-2:]}"
    try:
        moment = datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise _malformed(f"line 1: invalid dateTime: {text}") from error
    return moment.strftime("%Y-%m-%dT%H:%M:%S")
