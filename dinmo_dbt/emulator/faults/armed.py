"""The faults armed in one org, and when each comes.

Every draw is a hash of the fault's seed, its id and the number of the call it could hit; of a row: of the job's or the
request's number and the row's position. So the same faults and the same calls give the same result each time. While
nothing is armed a call looks at one flag.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

from dinmo_dbt.emulator.errors import EmulatorError, RowError
from dinmo_dbt.emulator.faults.chaos import settled
from dinmo_dbt.emulator.faults.draw import draw
from dinmo_dbt.emulator.faults.fate import Fate
from dinmo_dbt.emulator.faults.fault import KINDS, Fault, from_json
from dinmo_dbt.emulator.faults.presets import PRESETS
from dinmo_dbt.emulator.records.engine import CHUNK_ROWS, Work

_JOB_MESSAGE = "InternalServerError : Failed to process the job"  # no recorded text: unverified


@dataclass(slots=True)
class _Armed:
    id: int
    fault: Fault
    matched: int = 0
    fired: int = 0


@dataclass(frozen=True, slots=True)
class Fired:
    """A fault that hits this call. `key` seeds what is still to be drawn."""

    id: int
    fault: Fault
    key: tuple[str | int, ...]


class Faults:
    """Arm, look, disarm; the rest is for the org's own calls."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._armed: list[_Armed] = []
        self._next = 1
        self._local = threading.local()
        self.on_calls = self.on_jobs = self.on_rows = False

    def arm(self, fault: Fault) -> int:
        """Arm it; its id."""
        with self._lock:
            armed = _Armed(self._next, fault)
            self._next += 1
            self._armed = [*self._armed, armed]
            self._flag()
            return armed.id

    def arm_json(self, given: dict[str, Any]) -> int:
        return self.arm(from_json(given))

    def chaos(self, seed: int, rate: float, kinds: tuple[str, ...] = (), call: str = "") -> int:
        """At each call, closed job and block of rows, with the given rate, one of the kinds (all, if none is named)."""
        return self.arm(Fault(kind="chaos", seed=seed, chance=rate, kinds=tuple(kinds), call=call))

    def disarm(self, fault_id: int) -> None:
        with self._lock:
            left = [a for a in self._armed if a.id != fault_id]
            if len(left) == len(self._armed):
                raise EmulatorError(f"fault: none is armed with the id {fault_id}")
            self._armed = left
            self._flag()

    def clear(self) -> None:
        with self._lock:
            self._armed = []
            self._flag()

    def armed(self) -> list[dict[str, Any]]:
        """Each fault's id, settings, and how many calls it matched and hit."""
        with self._lock:
            return [{"id": a.id, **a.fault.json(), "matched": a.matched, "fired": a.fired} for a in self._armed]

    def at_call(self, name: str) -> list[Fired]:
        """The faults that hit this call of the API."""
        self._local.call = name
        if not self.on_calls:
            return []
        return [f for f in self._hit(name, ("instead", "after")) if f is not None]

    def fate_of_job(self, number: int, sobject: str, operation: str) -> Fate | None:
        """What is to become of the job that is being closed."""
        if not self.on_jobs:
            return None
        fate = Fate()
        for fired in self._hit("ingest.close", ("job",), number=number, what=(sobject, operation)):
            fate = _fate(fate, fired.fault)
        return fate if fate != Fate() else None

    @contextmanager
    def source(self, call: str, number: int, first_row: int) -> Iterator[None]:
        """Blocks written inside come from this job, and begin at this row of it."""
        before = getattr(self._local, "call", ""), getattr(self._local, "block", None)
        self._local.call, self._local.block = call, (number, first_row)
        try:
            yield
        finally:
            self._local.call, self._local.block = before

    def refuse_rows(self, work: Work, operation: str) -> None:
        """Refuse the rows that are chosen out of a block about to be written."""
        if not self.on_rows:
            return
        block: tuple[int, int] | None = getattr(self._local, "block", None)
        name = getattr(self._local, "call", "")
        for fired in self._hit(name, ("rows",), what=(work.table.sobject.name, operation)):
            source = ("job", *block) if block is not None else ("request", fired.key[-1], 0)
            _refuse(fired, work, (str(source[0]), int(source[1])), int(source[2]))

    def _hit(
        self, name: str, acts: tuple[str, ...], *, number: int | None = None, what: tuple[str, str] | None = None
    ) -> list[Fired]:
        hit = []
        with self._lock:
            for armed in self._armed:
                fault = armed.fault
                kind = KINDS[fault.kind]
                if kind.acts not in acts and kind.acts != "chaos":
                    continue
                if not fnmatchcase(name, fault.calls if kind.acts != "job" else fault.call or "*"):
                    continue
                if what is not None and not _meant(fault, what):
                    continue
                armed.matched += 1
                if fault.times is not None and armed.fired >= fault.times:
                    continue
                past = armed.matched - fault.after
                if past < 1 or (past - 1) % fault.every:
                    continue
                key = (fault.seed, armed.id, acts[0], number if number is not None else armed.matched)
                if fault.chance < 1 and draw(*key) >= fault.chance:
                    continue
                if kind.acts == "chaos":
                    chosen = settled(fault, acts, name, key)
                    if chosen is None:
                        continue
                    fault = chosen
                armed.fired += 1
                hit.append(Fired(armed.id, fault, key))
        return hit

    def _flag(self) -> None:
        acts = {KINDS[a.fault.kind].acts for a in self._armed}
        chaos = "chaos" in acts
        self.on_calls = chaos or bool(acts & {"instead", "after"})
        self.on_jobs = chaos or "job" in acts
        self.on_rows = chaos or "rows" in acts


def _meant(fault: Fault, what: tuple[str, str]) -> bool:
    sobject, operation = what
    return (fault.object is None or fault.object.lower() == sobject.lower()) and fault.operation in (None, operation)


def _fate(fate: Fate, fault: Fault) -> Fate:
    match fault.kind:
        case "job_failed":
            return replace(fate, end="Failed", row=fault.row or 0, message=fault.message or _JOB_MESSAGE)
        case "job_aborted":
            return replace(fate, end="Aborted", row=fault.row or 0)
        case "job_stuck":
            state = "UploadComplete" if fault.state == "UploadComplete" else "InProgress"
            return replace(fate, stuck=state, stuck_s=fault.seconds or 0.0)  # type: ignore[arg-type]
        case _:
            return replace(fate, retries=1 if fault.retries is None else fault.retries)


def _refuse(fired: Fired, work: Work, source: tuple[str, int], first_row: int) -> None:
    fault = fired.fault
    preset = PRESETS[fault.preset] if fault.preset is not None else RowError(fault.code or "", "")
    error = RowError(
        fault.code or preset.code, preset.message if fault.message is None else fault.message,
        fault.fields or preset.fields,
    )  # fmt: skip
    share = 1.0 if fault.share is None else fault.share
    rows = _candidates(fault, work)
    if share < 1:
        rows = [r for r in rows if draw(fault.seed, fired.id, *source, first_row + r) < share]
    if fault.whole_chunks:
        chunks = sorted({r // CHUNK_ROWS for r in rows})
        rows = [r for c in chunks for r in range(c * CHUNK_ROWS, min((c + 1) * CHUNK_ROWS, work.count))]
    for row in rows:
        if row not in work.errors:
            work.refuse(row, error)


def _candidates(fault: Fault, work: Work) -> list[int]:
    """The rows a fault is for: all, or those with a value in a field (null where `value` is not given)."""
    if fault.field is None:
        return list(range(work.count))
    wanted = fault.field.lower()
    cell = next((c for c in work.cells if c.field.name.lower() == wanted), None)
    if cell is None:
        return []
    return [r for r, v in enumerate(cell.values.to_pylist()) if (v if v is None else str(v)) == fault.value]
