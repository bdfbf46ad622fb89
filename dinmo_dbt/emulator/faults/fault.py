"""What can go wrong, as a value: a kind, the calls it is for, when it comes, and the kind's own settings.

Source of the list: what real clients meet (wire reference §4, §7).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from dinmo_dbt.emulator.clock import span
from dinmo_dbt.emulator.errors import EmulatorError
from dinmo_dbt.emulator.faults.presets import PRESETS

_SELECTION = frozenset({"kind", "call", "after", "every", "times", "chance", "seed"})
_JOB = frozenset({"object", "operation"})
_RECORD = frozenset({"object", "field", "value"})


@dataclass(frozen=True, slots=True)
class Kind:
    """Which calls a kind is for by default, when it acts, the settings it takes, and whether chaos may choose it."""

    acts: Literal["before", "after", "job", "rows", "chaos"]
    calls: str = "*"
    takes: frozenset[str] = frozenset()
    needs: frozenset[str] = frozenset()
    by_chance: bool = True


_RESULTS = "*.results"
KINDS: dict[str, Kind] = {
    # The transport: what becomes of a request and its reply on the way.
    "request_lost": Kind("before"),
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
    "redirect": Kind("before", takes=frozenset({"location", "status"})),
    # Refusals of a whole call.
    "status": Kind(
        "before", takes=frozenset({"status", "code", "message", "html", "retry_after", "done"}),
        needs=frozenset({"status"}),
    ),
    "session_expired": Kind("before"),
    "quota_gone": Kind("before"),
    # Replies that lie.
    "limits_wrong": Kind("after", calls="limits", takes=frozenset({"share"})),
    "other_instance": Kind(
        "after", calls="token", takes=frozenset({"location"}), needs=frozenset({"location"}), by_chance=False
    ),
    "other_org": Kind("after", by_chance=False),
    # What other users do meanwhile.
    "record_edited": Kind(
        "before", takes=_RECORD | {"changes"}, needs=_RECORD | {"changes"}, by_chance=False
    ),
    "record_deleted": Kind("before", takes=_RECORD, needs=_RECORD, by_chance=False),
    # Jobs.
    "job_deleted": Kind("before", calls="*.info"),
    "results_expired": Kind("before", calls="ingest.results"),
    "job_failed": Kind("job", takes=_JOB | {"row", "message"}),
    "job_aborted": Kind("job", takes=_JOB | {"row"}),
    "job_stuck": Kind("job", takes=_JOB | {"state", "seconds"}, needs=frozenset({"seconds"})),
    "batch_retried": Kind("job", takes=_JOB | {"retries"}),
    # Rows.
    "rows": Kind(
        "rows",
        takes=_JOB | {"share", "field", "value", "preset", "code", "message", "fields", "whole_chunks", "ids"},
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
    "chaos": Kind("chaos", takes=frozenset({"kinds"}), by_chance=False),
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A fault to arm. Its calls are those whose name matches `call` (a glob; each kind has its own default).

    The first `after` of them pass; then every `every`-th is hit, at most `times`, each with the given `chance`.
    Jobs count as calls when they are closed, blocks of rows (a request's, a batch's) when they are written.

    Settings: `seconds` of delay, or of being stuck in `state`; `at` a byte; `row` a data row of an upload or a result
    file; `location` of a redirect (`{path}` is the call's own) or of another instance; `status`, `code`, `message`,
    `html`, `retry_after` of a refusal, which comes after the call was carried out if `done`; `object`, `operation`,
    `field`, `value`, `share` choose rows, refused by a `preset` or by `code`, `message` and `fields`, in
    `whole_chunks` of 200 as an Apex trigger fails them; `ids` of the records a duplicate rule found; `changes` of a
    record edited; `share` of rows lost or repeated, or of each limit that is said to be left; `kinds` for chaos.
    Raises EmulatorError, naming what is wrong.
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
    ids: tuple[str, ...] = ()
    changes: Mapping[str, Any] | None = None
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
        self._check_numbers()
        self._check_texts()
        if self.state not in (None, "UploadComplete", "InProgress"):
            raise EmulatorError(f"fault {self.kind}: state is UploadComplete or InProgress, not {self.state}")
        if self.preset is not None and self.preset not in PRESETS:
            raise EmulatorError(f"fault rows: unknown preset {self.preset}. Known: {', '.join(PRESETS)}")
        if self.kind == "rows" and self.preset is None and self.code is None:
            raise EmulatorError("fault rows: needs a preset or a code")
        if self.ids and self.preset != "duplicate_rule":
            raise EmulatorError("fault rows: ids go with the preset duplicate_rule")
        for name in self.kinds:
            if name not in KINDS or not KINDS[name].by_chance:
                raise EmulatorError(f"fault chaos: no kind {name}. It has: {', '.join(by_chance())}")

    def _check_numbers(self) -> None:
        if self.after < 0 or self.every < 1 or (self.times is not None and self.times < 1):
            raise EmulatorError(f"fault {self.kind}: after from 0, every and times from 1")
        if not 0 <= self.chance <= 1 or not 0 <= (self.share or 0) <= 1:
            raise EmulatorError(f"fault {self.kind}: chance and share go from 0 to 1")
        if self.seconds is not None:
            span(self.seconds, f"fault {self.kind}: seconds")
        if self.bytes_per_s is not None and not 0 < self.bytes_per_s < math.inf:
            raise EmulatorError(f"fault {self.kind}: bytes_per_s must be more than 0")
        for name in ("at", "row", "retries"):
            if (getattr(self, name) or 0) < 0:
                raise EmulatorError(f"fault {self.kind}: {name} can't be negative")
        if self.status is not None and not 200 <= self.status <= 599:
            raise EmulatorError(f"fault {self.kind}: {self.status} is no HTTP status to answer with")

    def _check_texts(self) -> None:
        """Headers are printable ASCII; a lone surrogate is no text that a reply could carry."""
        for name in ("retry_after", "location"):
            text = getattr(self, name)
            if text is not None and not (text.isascii() and text.isprintable()):
                raise EmulatorError(f"fault {self.kind}: {name} goes into a header: printable ASCII only")
        for name in ("code", "message", *self.fields):
            text = getattr(self, name, name)
            if text is not None and any("\ud800" <= c <= "\udfff" for c in text):
                raise EmulatorError(f"fault {self.kind}: a lone surrogate is no text")

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
_LISTS = ("fields", "ids", "kinds")
_FLAGS = ("html", "done", "whole_chunks")


def by_chance() -> list[str]:
    """The kinds that chaos chooses from: those whose settings can be drawn."""
    return [name for name, kind in KINDS.items() if kind.by_chance]


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
    if key == "changes" and isinstance(value, dict):
        return value
    if key in _NUMBERS and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if key in _INTS and isinstance(value, int) and not isinstance(value, bool):
        return value
    if key not in (*_LISTS, *_FLAGS, *_NUMBERS, *_INTS, "changes") and isinstance(value, str):
        return value
    raise EmulatorError(f"fault: {key} can't be {value!r}")
