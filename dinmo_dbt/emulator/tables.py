"""Where the records of an object are: its number, its table, and the name of that in SQL."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, field

from dinmo_dbt.emulator.ids import COUNTER_BITS, Codec
from dinmo_dbt.emulator.schema.definitions import Schema, SObject


@dataclass(frozen=True, slots=True)
class Table:
    """One object with its place in the store."""

    sobject: SObject
    number: int
    name: str  # the quoted SQL name


@dataclass(frozen=True, slots=True)
class Shape:
    """What a store holds: the schema that it was brought to, and the ids and the tables of its objects.

    An object that has left the schema is still among the tables: calls under way may hold it.
    """

    schema: Schema
    codec: Codec
    tables: Mapping[str, Table]
    by_number: Mapping[int, Table] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "by_number", {table.number: table for table in self.tables.values()})


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def allocate(db: sqlite3.Connection, table: Table, count: int) -> int:
    """The first of `count` new consecutive record integers, inside the caller's transaction."""
    row = db.execute(
        "UPDATE sobject SET next = next + ? WHERE name = ? RETURNING next", (count, table.sobject.name)
    ).fetchone()
    return table.number << COUNTER_BITS | (int(row[0]) - count)
