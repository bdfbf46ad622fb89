"""Text as case-insensitive comparison sees it, in Python and in SQL: one rule for the index, SOQL and upsert."""

from __future__ import annotations


def fold(text: str | None) -> str | None:
    return text.lower() if isinstance(text, str) else text


def folded_sql(column: str) -> str:
    """`fold(column)` in SQL: the one spelling, which indexes and queries share.

    Only text beyond ASCII, longer in bytes than in characters, needs Python to fold it.
    """
    return f"CASE WHEN length({column}) <> length(CAST({column} AS BLOB)) THEN fold({column}) ELSE lower({column}) END"
