"""A block of rows on its way into an org: its columns, its cells, what is wrong with it, and what became of it."""

from __future__ import annotations

import dataclasses
import sqlite3
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa

from dinmo_dbt.emulator.errors import RowError
from dinmo_dbt.emulator.ids import Ints
from dinmo_dbt.emulator.records.cell import Cell, Mask
from dinmo_dbt.emulator.records.rules import Errors, Origin
from dinmo_dbt.emulator.schema.definitions import Field, SObject
from dinmo_dbt.emulator.tables import Table

CHUNK_ROWS = 200


@dataclass(frozen=True, slots=True)
class Column:
    """One column as it came in: a field, or a parent's field that identifies the parent, and its text.

    `key` is set for `Parent__r.Ext__c`. A null in `text` asks for null; `given` is None when every row has it.
    """

    field: Field
    text: pa.Array
    given: Mask | None = None
    key: tuple[SObject, Field] | None = None
    origin: Origin = dataclasses.field(default_factory=Origin)


@dataclass(slots=True)
class Work:
    """A block of rows, converted, and what is wrong with them so far."""

    table: Table
    count: int
    cells: list[Cell] = dataclasses.field(default_factory=list)
    parents: list[tuple[Cell, tuple[SObject, Field]]] = dataclasses.field(default_factory=list)
    errors: Errors = dataclasses.field(default_factory=dict)
    absent: set[int] = dataclasses.field(default_factory=set)  # rows whose own record is not there, or deleted

    def refuse(self, row: int, error: RowError) -> None:
        self.errors.setdefault(row, []).append(error)

    def alive(self, active: Mask) -> Mask:
        mask = active.copy()
        if self.errors:
            mask[list(self.errors)] = False
        return mask


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of each row: its record (0 when there is none), whether it is new, why it was refused.

    `absent` are the rows whose own record is not there, or deleted.
    """

    rids: Ints
    created: Mask
    errors: Errors
    absent: frozenset[int] = frozenset()


class Guard(Protocol):
    """Refuses rows for reasons that are not in the schema: with each block, and with the rows about to be written."""

    def before(self, work: Work, operation: str) -> None: ...

    def check(self, db: sqlite3.Connection, work: Work, cells: list[Cell], rids: Ints, active: Mask) -> None: ...


def read_only(names: tuple[str, ...]) -> RowError:
    """The refusal of fields that are not writable (formie #1981, SFDMU #177)."""
    message = (
        f"Unable to create/update fields: {', '.join(names)}. Please check the security settings of this field and "
        "verify that it is read/write for your profile or permission set."
    )
    return RowError("INVALID_FIELD_FOR_INSERT_UPDATE", message, names)
