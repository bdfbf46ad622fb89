"""An org as it was at a moment: its store, and what it keeps in memory only."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from dinmo_dbt.emulator.bulk.pace import Pace
from dinmo_dbt.emulator.errors import EmulatorError
from dinmo_dbt.emulator.faults.armed import Kept
from dinmo_dbt.emulator.limits import Limits
from dinmo_dbt.emulator.logins import Logins
from dinmo_dbt.emulator.store import Saved, Store
from dinmo_dbt.emulator.web.calls import Kept as KeptCalls


@dataclass(frozen=True, slots=True)
class Memory:
    """What a restart would not bring back by itself. `chance` is None where it is the operating system's."""

    clock: str
    limits: Limits
    logins: Logins
    pace: Pace
    faults: Kept
    locks: dict[int, datetime]
    calls: KeptCalls
    chance: Any


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """What `Instance.snapshot` gives and `Instance.restore` takes; of use to that one only."""

    store: Store
    saved: Saved
    memory: Memory


class Snapshots:
    """The snapshots that the control endpoint took, by number, until it lets go of them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._taken: dict[int, Snapshot] = {}
        self._next = 1

    def add(self, snapshot: Snapshot) -> int:
        with self._lock:
            number = self._next
            self._next += 1
            self._taken[number] = snapshot
            return number

    def get(self, number: int) -> Snapshot:
        with self._lock:
            if number not in self._taken:
                raise EmulatorError(f"restore: there is no snapshot {number}")
            return self._taken[number]

    def numbers(self) -> list[int]:
        with self._lock:
            return list(self._taken)

    def clear(self) -> None:
        with self._lock:
            self._taken.clear()
