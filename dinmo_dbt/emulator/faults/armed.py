"""The faults armed in one org, and when each comes.

Every draw is a hash of the fault's seed, its id and the number of the call it could hit; in a job: of the job's number
and the row's position. So the same faults and the same calls give the same result each time, whatever a thread that
works on jobs does meanwhile. Faults live in memory: a restart forgets them, but not the fate a job was given when it
was closed. While nothing is armed a call looks at one flag.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any

from dinmo_dbt.emulator.errors import EmulatorError, RowError
from dinmo_dbt.emulator.faults.chaos import settled
from dinmo_dbt.emulator.faults.draw import draw
from dinmo_dbt.emulator.faults.fate import Fate
from dinmo_dbt.emulator.faults.fault import KINDS, Fault, from_json
from dinmo_dbt.emulator.faults.presets import PRESETS, duplicates
from dinmo_dbt.emulator.records.work import CHUNK_ROWS, Work
from dinmo_dbt.emulator.schema.definitions import Schema

_JOB_MESSAGE = "InternalServerError : Failed to process the job"  # no recorded text: unverified


@dataclass(slots=True)
class _Armed:
    id: int
    fault: Fault
    matched: Counter[str] = field(default_factory=Counter)  # calls, jobs, rows of requests and rows of jobs apart
    fired: int = 0


def _copied(armed: _Armed) -> _Armed:
    return replace(armed, matched=armed.matched.copy())


@dataclass(frozen=True, slots=True)
class Kept:
    """The faults armed at a moment."""

    armed: tuple[_Armed, ...]
    next: int


@dataclass(frozen=True, slots=True)
class Fired:
    """A fault that hits this call. `key` seeds what is still to be drawn."""

    id: int
    fault: Fault
    key: tuple[str | int, ...]


class Faults:
    """Arm, look, disarm; the rest is for the org's own calls. What a fault names is looked up in schema and calls."""

    def __init__(self, schema: Callable[[], Schema], calls: tuple[str, ...]) -> None:
        self._schema = schema
        self._calls = calls
        self._lock = threading.Lock()
        self._armed: list[_Armed] = []
        self._next = 1
        self._local = threading.local()
        self.on_calls = self.on_jobs = self.on_rows = False

    def arm(self, fault: Fault) -> int:
        """Arm it; its id. Raises EmulatorError for a call, an object or a field that the org does not have."""
        if not any(fnmatchcase(name, fault.calls) for name in self._calls):
            raise EmulatorError(f"fault {fault.kind}: no call is named {fault.call}. Named: {', '.join(self._calls)}")
        _check_names(fault, self._schema())
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
        """Disarm all, and count from zero: what is armed next draws as it would in a new org."""
        with self._lock:
            self._armed = []
            self._next = 1
            self._flag()

    def kept(self) -> Kept:
        """What is armed and how far each has come, to go back to."""
        with self._lock:
            return Kept(tuple(_copied(a) for a in self._armed), self._next)

    def restore(self, kept: Kept) -> None:
        with self._lock:
            self._armed = [_copied(a) for a in kept.armed]
            self._next = kept.next
            self._flag()

    def armed(self) -> list[dict[str, Any]]:
        """Each fault's id, settings, and how many calls it matched and hit."""
        with self._lock:
            return [{"id": a.id, **a.fault.json(), "matched": a.matched.total(), "fired": a.fired} for a in self._armed]

    def at_call(self, name: str, *, allow_save: bool = False) -> list[Fired]:
        """The faults that hit this call of the API; with `allow_save` it writes records a duplicate rule would stop."""
        self._local.call, self._local.allow_save = name, allow_save
        return self._hit(name, ("before", "after"), "call") if self.on_calls else []

    def fate_of_job(self, number: int, sobject: str, operation: str) -> Fate | None:
        """What is to become of the job that is being closed."""
        if not self.on_jobs:
            return None
        fate = Fate()
        name = getattr(self._local, "call", "")
        for fired in self._hit(name, ("job",), "job", at=(number,), what=(sobject, operation)):
            fate = _fate(fate, fired.fault)
        return fate if fate != Fate() else None

    @contextmanager
    def paused(self) -> Iterator[None]:
        """What this thread writes inside meets no fault."""
        self._local.paused = True
        try:
            yield
        finally:
            self._local.paused = False

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
        if not self.on_rows or getattr(self._local, "paused", False):
            return
        block: tuple[int, int] | None = getattr(self._local, "block", None)
        name = getattr(self._local, "call", "")
        allowed = getattr(self._local, "allow_save", False) and block is None
        what = work.table.sobject.name, operation
        for fired in self._hit(name, ("rows",), "rows" if block is None else "job rows", at=block, what=what):
            if not (allowed and fired.fault.preset == "duplicate_rule"):
                _refuse(fired, work, block[1] if block is not None else 0)

    def _hit(
        self, name: str, acts: tuple[str, ...], group: str, *, at: tuple[int, ...] | None = None,
        what: tuple[str, str] | None = None,
    ) -> list[Fired]:  # fmt: skip
        """The faults for this call, which is number `at`, or else the next one of its group."""
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
                armed.matched[group] += 1
                count = armed.matched[group]
                if fault.times is not None and armed.fired >= fault.times:
                    continue
                past = count - fault.after
                if past < 1 or (past - 1) % fault.every:
                    continue
                key: tuple[str | int, ...] = (fault.seed, armed.id, group, *(at or (count,)))
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
        self.on_calls = chaos or bool(acts & {"before", "after"})
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


def _check_names(fault: Fault, schema: Schema) -> None:
    sobject = schema.get(fault.object) if fault.object is not None else None
    if fault.object is not None and sobject is None:
        raise EmulatorError(f"fault {fault.kind}: the org has no object {fault.object}")
    if sobject is None:
        return
    for name in (*([fault.field] if fault.field is not None else []), *(fault.changes or {})):
        if sobject.field(name) is None:
            raise EmulatorError(f"fault {fault.kind}: {sobject.name} has no field {name}")
    key = sobject.field(fault.field or "Id")
    if fault.kind.startswith("record_") and key is not None and not key.id_lookup:
        raise EmulatorError(f"fault {fault.kind}: {key.name} finds no record: it is neither Id nor an external id")


def _refuse(fired: Fired, work: Work, first_row: int) -> None:
    fault = fired.fault
    preset = PRESETS[fault.preset] if fault.preset is not None else RowError(fault.code or "", "")
    error = RowError(
        fault.code or preset.code, preset.message if fault.message is None else fault.message,
        fault.fields or preset.fields,
        more=duplicates(work.table.sobject.name, fault.ids) if fault.preset == "duplicate_rule" else None,
    )  # fmt: skip
    share = 1.0 if fault.share is None else fault.share
    rows = _candidates(fault, work)
    if share < 1:
        rows = [r for r in rows if draw(*fired.key, "row", first_row + r) < share]
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
