"""Literals of a condition in the stored form of the field they are compared with."""

from __future__ import annotations

import math
import re
from datetime import UTC, date, datetime
from typing import Any

from dinmo_dbt.emulator.errors import ApiError
from dinmo_dbt.emulator.ids import MALFORMED, Codec
from dinmo_dbt.emulator.schema.definitions import NUMBER_TYPES, TEXT_TYPES, Field
from dinmo_dbt.emulator.soql.syntax import Node, Statement, malformed, unescape
from dinmo_dbt.emulator.store import fold

_WANTED = {"boolean": ("true", "false"), "date": ("date",), "datetime": ("datetime",), "time": ("time",)}
_CALLED = {"boolean": "boolean", "date": "date", "datetime": "dateTime", "int": "integer", "id": "id", "time": "time"}


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
    if field.type in TEXT_TYPES or field.type in ("id", "reference"):
        if kind != "string":
            raise wrong_type(statement, node, field, "should be enclosed in quotes")
        text = unescape(raw)
        if field.type in TEXT_TYPES:
            return (fold(text) if field.folded else text) or None
        return _rid(statement, codec, node, text) if text else None
    if kind not in _WANTED.get(field.type, ("number",)):
        raise wrong_type(statement, node, field, "should not be enclosed in quotes")
    match field.type:
        case "boolean":
            return 1 if kind == "true" else 0
        case "date":
            return _day(raw)
        case "datetime":
            return _moment(raw)
        case "time":
            return _time(raw)
        case _:
            return _number(raw)


def wrong_type(statement: Statement, node: Node, field: Field, advice: str) -> ApiError:
    kind = _CALLED.get(field.type, "double" if field.type in NUMBER_TYPES else "string")
    message = f"value of filter criterion for field '{field.name}' must be of type {kind} and {advice}"
    return statement.refuse(node, message, "INVALID_FIELD")


def _rid(statement: Statement, codec: Codec, node: Node, text: str) -> int:
    rid = codec.decode(text)
    if rid == MALFORMED:
        raise statement.refuse(node, f"invalid ID field: {text}", "INVALID_QUERY_FILTER_OPERATOR")
    return rid


def _number(raw: str) -> float:
    number = float(raw)
    if not math.isfinite(number):  # text unverified
        raise malformed(f"line 1: number out of range: {raw}")
    return number


# What Salesforce says of a day that does not exist is unverified.
def _day(raw: str) -> str:
    try:
        return date.fromisoformat(raw).isoformat()
    except ValueError as error:
        raise malformed(f"line 1: invalid date: {raw}") from error


def _moment(raw: str) -> str:
    text = raw.upper().replace("Z", "+00:00")
    if re.search(r"[+-]\d{4}$", text):
        text = f"{text[:-2]}:{text[-2:]}"
    text = re.sub(r"\.(\d{1,6})\d*", lambda found: "." + found[1].ljust(6, "0"), text)
    try:
        moment = datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise malformed(f"line 1: invalid dateTime: {raw}") from error
    return moment.replace(tzinfo=None, microsecond=0).isoformat()


def _time(raw: str) -> str:
    try:
        moment = datetime.fromisoformat("2000-01-01T" + raw.upper().replace("Z", "")[:12])
    except ValueError as error:
        raise malformed(f"line 1: invalid time: {raw}") from error
    return moment.time().isoformat("milliseconds") + "Z"
