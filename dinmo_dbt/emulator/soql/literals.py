"""Literals of a condition in the stored form of the field they are compared with."""

from __future__ import annotations

from typing import Any

from dinmo_dbt.emulator.errors import ApiError
from dinmo_dbt.emulator.folding import fold
from dinmo_dbt.emulator.ids import MALFORMED, Codec
from dinmo_dbt.emulator.schema.definitions import Field
from dinmo_dbt.emulator.soql.syntax import Node, Statement, unescape


def value(statement: Statement, codec: Codec, node: Node, field: Field, literal: Node) -> Any:
    """The literal as it would be stored, folded if the field is; an empty string is null, as it is stored."""
    kind = literal.data
    raw = str(literal.children[0]) if literal.children else ""
    if kind == "bind":
        raise statement.refuse(literal, "Bind variables only allowed in Apex code")
    if kind == "date_literal":
        raise statement.refuse(literal, f"unexpected token: {raw}")
    if kind == "null":
        return None
    if kind not in field.kind.literals:
        should = "should" if "string" in field.kind.literals else "should not"
        raise wrong_type(statement, node, field, f"{should} be enclosed in quotes")
    if kind != "string":
        return field.kind.of_literal(raw or kind)
    text = unescape(raw)
    if field.kind.is_text:
        return (fold(text) if field.folded else text) or None
    return _rid(statement, codec, node, text) if text else None


def wrong_type(statement: Statement, node: Node, field: Field, advice: str) -> ApiError:
    message = f"value of filter criterion for field '{field.name}' must be of type {field.kind.called} and {advice}"
    return statement.refuse(node, message, "INVALID_FIELD")


def _rid(statement: Statement, codec: Codec, node: Node, text: str) -> int:
    rid = codec.decode(text)
    if rid == MALFORMED:
        raise statement.refuse(node, f"invalid ID field: {text}", "INVALID_QUERY_FILTER_OPERATOR")
    return rid
