"""What stands between a checked block of rows and the store besides the schema: faults, row locks, storage."""

from __future__ import annotations

import sqlite3

import numpy as np

from dinmo_dbt.emulator.errors import RowError
from dinmo_dbt.emulator.faults.armed import Faults
from dinmo_dbt.emulator.ids import Ints
from dinmo_dbt.emulator.limits import Usage
from dinmo_dbt.emulator.records.cell import Cell, Mask
from dinmo_dbt.emulator.records.locks import Locks
from dinmo_dbt.emulator.records.work import Work

_FULL = RowError("STORAGE_LIMIT_EXCEEDED", "storage limit exceeded")  # text unverified


class Guard:
    """The engine calls `before` with each block, and `check` with the rows it is about to write."""

    def __init__(self, faults: Faults, locks: Locks, usage: Usage) -> None:
        self._faults = faults
        self._locks = locks
        self._usage = usage

    def before(self, work: Work, operation: str) -> None:
        self._faults.refuse_rows(work, operation)

    def check(self, db: sqlite3.Connection, work: Work, cells: list[Cell], rids: Ints, active: Mask) -> None:
        """Refuse active rows that need a locked record, and new ones (`rids` 0) the storage has no room for."""
        for row, error in self._locks.found(db, work.table, cells, rids, work.alive(active)).items():
            work.refuse(row, error)
        new = np.flatnonzero(work.alive(active) & (rids == 0))
        if len(new):
            for row in new[self._usage.room_for(db, len(new)) :].tolist():
                work.refuse(row, _FULL)
