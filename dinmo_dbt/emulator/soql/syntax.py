"""From SOQL text to its tree, and Salesforce's words for what can't be read.

Source: SOQL and SOSL Reference; error texts from recorded traffic and public issues (wire reference §4.3).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from lark import Lark, Token, Tree
from lark.exceptions import UnexpectedCharacters, UnexpectedEOF, UnexpectedInput, UnexpectedToken

from dinmo_dbt.emulator.errors import ApiError

_LENGTH_MAX = 100_000
_STRING_MAX = 4000
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "b": "\b", "f": "\f"}
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|.)", re.S)

Node = Tree[Token]


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement and its tree; refuses a part of it as Salesforce does, with a pointer into the text."""

    text: str
    tree: Node

    def refuse(self, node: Node, message: str, code: str = "MALFORMED_QUERY") -> ApiError:
        """The error for a part: a line of context, a caret, row and column, then the message."""
        start = getattr(node.meta, "start_pos", 0)
        context = self.text[max(0, start - 35) : start + 35]
        caret = " " * min(start, 35) + "^"
        column = start - (self.text.rfind("\n", 0, start) + 1) + 1
        row = self.text.count("\n", 0, start) + 1
        return ApiError(400, code, f"\n{context}\n{caret}\nERROR at Row:{row}:Column:{column}\n{message}")


def malformed(message: str) -> ApiError:
    return ApiError(400, "MALFORMED_QUERY", message)


def not_emulated(clause: str) -> ApiError:
    """A clause Salesforce knows and this server does not run."""
    return malformed(f"The dinmo-dbt emulator does not emulate {clause} in SOQL")


@cache
def _parser() -> Lark:
    grammar = (Path(__file__).parent / "grammar.lark").read_text(encoding="utf-8")
    return Lark(grammar, start="query", parser="lalr", maybe_placeholders=True, propagate_positions=True)


@lru_cache(256)
def _tree(text: str) -> Node:
    return _parser().parse(text)


def parse(text: str) -> Statement:
    """The statement's tree, or Salesforce's MALFORMED_QUERY."""
    if len(text) > _LENGTH_MAX:
        raise malformed(f"SOQL statements can not be longer than {_LENGTH_MAX} characters")
    try:
        return Statement(text, _tree(text))
    except (UnexpectedToken, UnexpectedEOF) as error:
        token = getattr(error, "token", None)
        shown = "'<EOF>'" if token is None or token.type == "$END" else str(token)
        raise malformed(f"unexpected token: {shown}") from error
    except UnexpectedCharacters as error:
        rest = text[error.pos_in_stream :] if error.pos_in_stream is not None else text
        if rest.startswith("'") and not re.match(r"'(\\.|[^'\\])*'", rest, re.S):
            raise malformed("line 1: unterminated string literal") from error
        word = re.match(r"'(\\.|[^'\\])*'|\w+|.", rest, re.S)
        raise malformed(f"unexpected token: {word[0] if word else rest[:1]}") from error
    except UnexpectedInput as error:
        raise malformed("unexpected token") from error


def parts(tree: Node) -> dict[str, Node]:
    """The clauses of a query by their rule's name."""
    return {str(c.data): c for c in tree.children if isinstance(c, Tree)}


def nodes(node: Node) -> list[Node]:
    """The children that are rules."""
    return [c for c in node.children if isinstance(c, Tree)]


def words(node: Node) -> list[str]:
    """The children that are tokens, as text."""
    return [str(c) for c in node.children if isinstance(c, Token)]


def tree(node: Any) -> Node:
    assert isinstance(node, Tree)
    return node


def unescape(literal: str) -> str:
    """A quoted SOQL string's characters. An escape SOQL does not know is an error."""

    def one(found: re.Match[str]) -> str:
        return _escaped(found[1])

    return _checked(_ESCAPE.sub(one, literal[1:-1]))


def like_pattern(literal: str) -> str:
    r"""A LIKE pattern for SQLite with `\` as its escape: `\_` and `\%` stay escaped, `\\` is a backslash."""

    def one(found: re.Match[str]) -> str:
        return "\\" + found[1] if found[1] in "_%\\" else _escaped(found[1])

    return _checked(_ESCAPE.sub(one, literal[1:-1]))


def _escaped(char: str) -> str:
    if len(char) > 1:
        return chr(int(char[1:], 16))
    if char.lower() in _ESCAPES:
        return _ESCAPES[char.lower()]
    if char in "\\'\"_%":
        return char
    raise malformed(f"line 1: invalid string escape sequence '\\{char}'")


def _checked(text: str) -> str:
    """Text that can be stored: pairs of surrogates joined, and no longer than Salesforce compares."""
    if len(text) > _STRING_MAX:  # the text of this error is unverified
        raise malformed(f"String literals in SOQL can not be longer than {_STRING_MAX} characters")
    try:
        return text.encode("utf-16", "surrogatepass").decode("utf-16")
    except UnicodeDecodeError as error:
        raise malformed("line 1: invalid character in string literal") from error
