"""The few SELECT statements we write, and what a database answers when it refuses one. Pure text.

A relation's name is dbt's own, used verbatim; a column's name is quoted here (the adapters' `quote` does not escape);
a condition is the user's SQL, in parentheses on lines of its own so that a comment in it ends with it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from itertools import groupby

import pyarrow as pa

from dinmo_dbt.text.redaction import Foreign, redacted

BATCH_ROWS = 32_768

_MYSQL = frozenset({"mysql", "mariadb"})
_SPARK = frozenset({"databricks", "spark"})
_BACKTICK = frozenset({"bigquery", "hive", "impala"}) | _SPARK | _MYSQL
_BRACKET = frozenset({"fabric", "sqlserver", "synapse"})
_BACKSLASH = _BACKTICK | {"snowflake"}
_DOUBLE = {"bigquery": "float64", "trino": "double", **dict.fromkeys(_SPARK, "double")}


class Cause(Enum):
    """Why the database did not answer; decides the code and the hint."""

    MISSING = "missing"  # no such relation
    DENIED = "denied"
    LOST = "lost"  # the connection
    LOCKED = "locked"
    NO_DATABASE = "no_database"
    UNREADABLE = "unreadable"  # this adapter or this type
    OTHER = "other"


_BY_STATE = {
    **dict.fromkeys(("42P01", "42S02", "3F000", "3D000"), Cause.MISSING),
    "42501": Cause.DENIED,
    "55P03": Cause.LOCKED,
}


def cause_of(sqlstate: str) -> Cause:
    return _BY_STATE.get(sqlstate, Cause.LOST if sqlstate.startswith(("08", "57P")) else Cause.OTHER)


class QueryRefused(Exception):
    """The database, or the way to it, refused. `message` is ours; `foreign` is the error in the words of others."""

    def __init__(self, cause: Cause, message: str, foreign: Foreign | None = None) -> None:
        super().__init__(message)
        self.cause = cause
        self.message = message
        self.foreign = foreign

    def said(self, columns: Sequence[str] = (), where: str | None = None) -> str:
        """One line without row values. `columns` are the relation's, `where` the condition it was read by."""
        others = redacted(self.foreign, columns=columns, where=where) if self.foreign else ""
        return ": ".join(part for part in (self.message, others) if part)

    @property
    def whole(self) -> str:
        """What the database said, row values included; '' if it said nothing."""
        return self.foreign.text.strip() if self.foreign else ""


def quote(name: str, adapter_type: str) -> str:
    """A column's name as an identifier that means exactly that name, whatever is in it."""
    if adapter_type == "bigquery":
        return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"
    if adapter_type in _BACKTICK:
        return "`" + name.replace("`", "``") + "`"
    if adapter_type in _BRACKET:
        return "[" + name.replace("]", "]]") + "]"
    return '"' + name.replace('"', '""') + '"'


def why_not_condition(where: str, adapter_type: str) -> str | None:
    """Why that text can't be one condition: it ends its parenthesis, or the statement. None if it can.

    The user's SQL is trusted, but a slip in it must not read other rows than it says, or run something else.
    """
    plain = r"'(?:[^'\\]|''|\\.)*'" if adapter_type in _BACKSLASH else r"'(?:[^']|'')*'"
    quoted = rf"""--[^\n]*|/\*.*?\*/|\$(\w*)\$.*?\$\1\$|"(?:[^"]|"")*"|`[^`]*`|\be'(?:[^'\\]|''|\\.)*'|{plain}"""
    bare = re.sub(quoted, " ", where, flags=re.DOTALL | re.IGNORECASE)
    if re.search(r"""['"`]|/\*""", bare):
        return "a quotation mark or comment in the condition is not closed"
    if ";" in bare:
        return "the condition holds a semicolon: it must be one SQL condition"
    depth = 0
    for parenthesis in re.findall(r"[()]", bare):
        depth += 1 if parenthesis == "(" else -1
        if depth < 0:
            break
    return None if depth == 0 else "the parentheses of the condition don't match"


def select(what: str, relation_name: str, where: str | None) -> str:
    """`select what from relation_name where (…)`."""
    condition = f" where (\n{where}\n)" if where and where.strip() else ""
    return f"select {what} from {relation_name}{condition}"


def first_rows(what: str, relation_name: str, where: str | None, rows: int, adapter_type: str) -> str:
    """As `select`, of at most that many rows."""
    if adapter_type in _BRACKET:
        return select(f"top {rows} {what}", relation_name, where)
    end = f"fetch first {rows} rows only" if adapter_type == "oracle" else f"limit {rows}"
    return f"{select(what, relation_name, where)} {end}"


def rows_of(columns: Sequence[str], rows: Sequence[Sequence[object]], adapter_type: str) -> str:
    """The condition for rows that hold in those columns what one of `rows` does."""
    names = [quote(name, adapter_type) for name in columns]
    if len(names) == 1:
        listed = ", ".join(literal(value, adapter_type) for (value,) in rows if value is not None)
        parts = [f"{names[0]} in ({listed})"] if listed else []
        return " or ".join(parts + [f"{names[0]} is null"] * any(value is None for (value,) in rows))
    return " or ".join(
        "("
        + " and ".join(
            f"{name} is null" if value is None else f"{name} = {literal(value, adapter_type)}"
            for name, value in zip(names, row, strict=True)
        )
        + ")"
        for row in rows
    )


def literal(value: object, adapter_type: str) -> str:
    """A value as SQL that means exactly that value, on one line of characters that can be seen."""
    if isinstance(value, float | Decimal) and not math.isfinite(value):
        kind = "numeric" if isinstance(value, Decimal) else _DOUBLE.get(adapter_type, "double precision")
        return f"cast('{value}' as {kind})"
    if isinstance(value, bool | int | float):
        return str(value).lower()
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, date):
        return _moment(value, adapter_type)
    parts = list[str]()
    for is_seen, run in groupby(str(value), key=str.isprintable):
        text = "".join(run)
        parts += [_quoted_text(text, adapter_type)] if is_seen else [_unseen(each, adapter_type) for each in text]
    return f"concat({', '.join(parts)})" if len(parts) > 1 else "".join(parts) or "''"


def _moment(value: date, adapter_type: str) -> str:
    if adapter_type in _BRACKET:
        return f"'{value}'"
    if not isinstance(value, datetime):
        return f"date '{value}'"
    if adapter_type == "bigquery" and not value.tzinfo:
        return f"datetime '{value}'"
    is_named = value.tzinfo and adapter_type not in _BACKSLASH  # in those the text alone tells of a zone
    return f"timestamp {'with time zone ' if is_named else ''}'{value}'"


def _unseen(character: str, adapter_type: str) -> str:
    number = ord(character)
    if adapter_type in _SPARK:  # whose chr() counts by 256
        return f"'\\U{number:08x}'"
    if adapter_type in _MYSQL:  # whose char() counts by 256
        return f"convert(x'{character.encode().hex()}' using utf8mb4)"
    call = "nchar" if adapter_type in _BRACKET else "chr"
    return f"{call}({number})"


def _quoted_text(text: str, adapter_type: str) -> str:
    if adapter_type in _BACKSLASH:  # to some of these two quotation marks are the end of one text and the next
        return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
    is_national = adapter_type in _BRACKET and not text.isascii()
    return ("N'" if is_national else "'") + text.replace("'", "''") + "'"


def one_by_one(values: Sequence[object], kind: pa.DataType, bad: Sequence[bool]) -> tuple[pa.Array, list[bool]]:
    """Values of a column whose type has no place for some of them, and which: null, as those that are `bad` already."""
    fitting: list[object] = []
    marks = list(bad)
    for number, value in enumerate(values):
        try:
            pa.scalar(value, kind)
            fitting.append(value)
        except (pa.ArrowException, OverflowError, TypeError, ValueError):
            fitting.append(None)
            marks[number] = True
    return pa.array(fitting, kind), marks


def column_list(columns: Sequence[str], adapter_type: str) -> str:
    return ", ".join(quote(name, adapter_type) for name in columns)
