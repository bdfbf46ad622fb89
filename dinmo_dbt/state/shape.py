"""What the tables of a state are made of: columns and their kinds, as they are declared, and as a database has them."""

from __future__ import annotations

import re

# As SQLite tells what a value is, which any column may hold; and as DuckDB and Postgres name what a column holds.
_VALUES = {"TEXT": "'text'", "BIGINT": "'integer'", "DOUBLE PRECISION": "'real', 'integer'"}
_NAMED = {
    "text": "TEXT",
    "varchar": "TEXT",
    "bigint": "BIGINT",
    "double": "DOUBLE PRECISION",
    "double precision": "DOUBLE PRECISION",
    "blob": "BYTEA",
    "bytea": "BYTEA",
}


def columns(declared: str) -> dict[str, str]:
    """The kind of each column, by its name, of a table that is declared so."""
    parts = re.split(r",(?![^(]*\))", declared)
    found = (re.match(r"\s*([a-z_0-9]+) (TEXT|BIGINT|DOUBLE PRECISION|BYTEA)\b", part) for part in parts)
    return {column[1]: column[2] for column in found if column}


def kind_of(named: str) -> str:
    """What a database calls the type of a column, in the words of ours."""
    return _NAMED.get(named.lower(), named)


def odd_values(name: str, declared: str) -> str:
    """SQL for SQLite: finds a row of that table with a value of another kind than its column's."""
    kinds = columns(declared).items()
    odd = (f"({column} IS NOT NULL AND typeof({column}) NOT IN ({_VALUES[kind]}))" for column, kind in kinds)
    return f"SELECT 1 FROM {name} WHERE {' OR '.join(odd)} LIMIT 1"
