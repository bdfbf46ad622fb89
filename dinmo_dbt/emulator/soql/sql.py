"""Pieces of SQL with their bound values, put together without losing their order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

_CHAIN = 30  # terms beside each other: SQLite's expression depth is 1,000
DEPTH_MAX = 14  # parentheses inside each other: SQLite's parser stack holds about 30


@dataclass(frozen=True, slots=True)
class Sql:
    """SQL text, the values of its `?` in order, and how many parentheses lie inside each other."""

    text: str
    values: tuple[Any, ...] = ()
    depth: int = 0


def compose(pattern: str, *parts: Sql) -> Sql:
    """The pattern with each `{}` replaced by a part."""
    values = tuple(v for part in parts for v in part.values)
    return Sql(pattern.format(*(p.text for p in parts)), values, max((p.depth for p in parts), default=0))


def listed(parts: Sequence[Sql]) -> Sql:
    """Parts separated by commas."""
    return compose(", ".join(["{}"] * len(parts)), *parts)


def chained(terms: Sequence[Sql], word: str) -> Sql:
    """Conditions joined by AND or OR, as a shallow tree: SOQL takes thousands, SQLite not in one row."""
    while len(terms) > 1:
        terms = [_row(terms[at : at + _CHAIN], word) for at in range(0, len(terms), _CHAIN)]
    return terms[0]


def _row(terms: Sequence[Sql], word: str) -> Sql:
    if len(terms) == 1:
        return terms[0]
    row = compose(f" {word} ".join(["{}"] * len(terms)), *terms)
    return Sql(f"({row.text})", row.values, row.depth + 1)
