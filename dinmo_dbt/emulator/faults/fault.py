"""What can go wrong, as a value: a kind, the calls it is for, when it comes, and the kind's own settings.

Source of the list: what real clients meet (wire reference §4, §7).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dinmo_dbt.emulator.errors import EmulatorError
from dinmo_dbt.emulator.faults.presets import PRESETS

_SELECTION = frozenset({"kind", "call", "after", "every", "times", "chance", "seed"})
_JOB = frozenset({"object", "operation"})


@dataclass(frozen=True, slots=True)
class Kind:
    """Which calls a kind is for unless told, when it acts, and the settings it takes."""

    acts: str  # instead, after, job, rows, chaos
    calls: str = "*"
    takes: frozenset[str] = frozenset()
    needs: frozenset[str] = frozenset()


_RESULTS = "*.results"
KINDS: dict[str, Kind] = {
    # The transport: what becomes of a request and its reply on the way.
    "request_lost": Kind("instead"),
    "reply_lost": Kind("after"),
    "request_repeated": Kind("after"),
    "slow": Kind("after", takes=frozenset({"seconds"})),
    "hang": Kind("after", takes=frozenset({"seconds"})),
    "trickle": Kind("after", takes=frozenset({"bytes_per_s"})),
    "truncated": Kind("after", takes=frozenset({"at"})),
    "content_length": Kind("after", takes=frozenset({"at"})),
    "bad_gzip": Kind("after"),
    "invalid_utf8": Kind("after"),
    "bom": Kind("after"),
    "html_page": Kind("after"),
    "missing_items": Kind("after"),
    "extra_items": Kind("after"),
    "redirect": Kind("instead", takes=frozenset({"location", "status"})),
    # Refusals of a whole call.
    "status": Kind(
        "instead", takes=frozenset({"status", "code", "message", "html", "retry_after", "done"}),
        needs=frozenset({"status"}),
    ),
    "session_expired": Kind("instead"),
    "quota_gone": Kind("instead"),
    # Jobs.
    "job_deleted": Kind("instead", calls="*.info"),
    "results_expired": Kind("instead", calls="ingest.results"),
    "job_failed": Kind("job", takes=_JOB | {"row", "message"}),
    "job_aborted": Kind("job", takes=_JOB | {"row"}),
    "job_stuck": Kind("job", takes=_JOB | {"state", "seconds"}, needs=frozenset({"seconds"})),
    "batch_retried": Kind("job", takes=_JOB | {"retries"}),
    # Rows.
    "rows": Kind(
        "rows",
        takes=_JOB | {"share", "field", "value", "preset", "code", "message", "fields", "whole_chunks"},
    ),
    # Result files.
    "results_shuffled": Kind("after", calls=_RESULTS),
    "results_cut": Kind("after", calls=_RESULTS, takes=frozenset({"row"})),
    "results_cut_bytes": Kind("after", calls=_RESULTS, takes=frozenset({"at"})),
    "results_repeated": Kind("after", calls=_RESULTS, takes=frozenset({"share"})),
    "results_missing": Kind("after", calls=_RESULTS, takes=frozenset({"share"})),
    "results_error_newline": Kind("after", calls=_RESULTS),
    "results_header_case": Kind("after", calls=_RESULTS),
    "results_extra_column": Kind("after", calls=_RESULTS),
    # Any of these, by a seed.
    "chaos": Kind("chaos", takes=frozenset({"kinds"})),
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A fault to arm. Its calls are those whose name matches `call` (a glob; each kind has its own default).

    The first `after` of them pass; then every `every`-th is hit, at most `times`, each with the given `chance`.
    Jobs count as calls when they are closed, blocks of rows (a request's, a batch's) when they are written.

    Settings: `seconds` of delay, or of being stuck in `state`; `at` a byte; `row` a data row of an upload or a result
    file; `location` of a redirect (`{path}` is the call's own); `status`, `code`, `message`, `html`, `retry_after` of
    a refusal, which comes after the call was carried out if `done`; `object`, `operation`, `field`, `value`, `share`
    choose rows, refused by a `preset` or by `code`, `message` and `fields`, in `whole_chunks` of 200 as an Apex
    trigger fails them; `kinds` for chaos.
    """

    kind: str
    call: str = ""
    after: int = 0
    every: int = 1
    times: int | None = None
    chance: float = 1.0
    seed: int = 0
    status: int | None = None
    code: str | None = None
    message: str | None = None
    html: bool = False
    retry_after: str | None = None
    done: bool = False
    seconds: float | None = None
    bytes_per_s: float | None = None
    at: int | None = None
    location: str | None = None
    row: int | None = None
    state: str | None = None
    retries: int | None = None
    object: str | None = None
    operation: str | None = None
    share: float | None = None
    field: str | None = None
    value: str | None = None
    preset: str | None = None
    fields: tuple[str, ...] = ()
    whole_chunks: bool = False
    kinds: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        kind = KINDS.get(self.kind)
        if kind is None:
            raise EmulatorError(f"fault: unknown kind {self.kind}. Known: {', '.join(KINDS)}")
        given = {f.name for f in dataclasses.fields(self) if getattr(self, f.name) != f.default} - _SELECTION
        for name in sorted(given - kind.takes):
            raise EmulatorError(f"fault {self.kind}: takes no {name}. It takes: {', '.join(sorted(kind.takes)) or '-'}")
        for name in sorted(kind.needs - given):
            raise EmulatorError(f"fault {self.kind}: needs {name}")
        if self.after < 0 or self.every < 1 or (self.times is not None and self.times < 1):
            raise EmulatorError(f"fault {self.kind}: after from 0, every and times from 1")
        if not 0 <= self.chance <= 1 or not 0 <= (self.share or 0) <= 1:
            raise EmulatorError(f"fault {self.kind}: chance and share go from 0 to 1")
        if self.kind == "status" and not 200 <= (self.status or 0) <= 599:
            raise EmulatorError(f"fault status: {self.status} is no HTTP status")
        if self.state not in (None, "UploadComplete", "InProgress"):
            raise EmulatorError(f"fault {self.kind}: state is UploadComplete or InProgress, not {self.state}")
        if self.preset is not None and self.preset not in PRESETS:
            raise EmulatorError(f"fault rows: unknown preset {self.preset}. Known: {', '.join(PRESETS)}")
        if self.kind == "rows" and self.preset is None and self.code is None:
            raise EmulatorError("fault rows: needs a preset or a code")
        for name in self.kinds:
            if name not in KINDS or name == "chaos":
                raise EmulatorError(f"fault chaos: unknown kind {name}. Known: {', '.join(k for k in KINDS)}")

    @property
    def calls(self) -> str:
        return self.call or KINDS[self.kind].calls

    def json(self) -> dict[str, Any]:
        """What was given, by name."""
        found = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        defaults = {f.name: f.default for f in dataclasses.fields(self)}
        return {k: list(v) if isinstance(v, tuple) else v for k, v in found.items() if v != defaults[k]}


_NUMBERS = ("chance", "seconds", "bytes_per_s", "share")
_INTS = ("after", "every", "times", "seed", "status", "at", "row", "retries")
_LISTS = ("fields", "kinds")
_FLAGS = ("html", "done", "whole_chunks")


def from_json(given: Mapping[str, Any]) -> Fault:
    """A fault out of JSON; unknown keys and wrong types are refused by name."""
    known = {f.name for f in dataclasses.fields(Fault)}
    values: dict[str, Any] = {}
    for key, value in given.items():
        if key not in known:
            raise EmulatorError(f"fault: unknown key {key}. Known: {', '.join(sorted(known))}")
        values[key] = _typed(key, value)
    if "kind" not in values:
        raise EmulatorError(f"fault: needs a kind. Known: {', '.join(KINDS)}")
    return Fault(**values)


def _typed(key: str, value: Any) -> Any:
    if key in _LISTS and isinstance(value, list) and all(isinstance(v, str) for v in value):
        return tuple(value)
    if key in _FLAGS and isinstance(value, bool):
        return value
    if key in _NUMBERS and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if key in _INTS and isinstance(value, int) and not isinstance(value, bool):
        return value
    if key not in (*_LISTS, *_FLAGS, *_NUMBERS, *_INTS) and isinstance(value, str):
        return value
    raise EmulatorError(f"fault: {key} can't be {value!r}")
