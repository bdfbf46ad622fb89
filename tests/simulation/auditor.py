"""What must hold, by a model of its own: it knows the rows of the model and what the org holds, and nothing of
snapshots, journals or jobs. A row's values name its key and version, so a record tells what was delivered to it.

| invariant | looked at |
|---|---|
| I1 no record twice | after every call: upsert one a key, insert one a key and version, update none made |
| I2 nothing lost | at the end, when nothing goes wrong any more: each row is in the org, or named with its reason |
| I3 nothing goes back | after every call: no record gets a version of before, and its fields are of one version |
| I4 the snapshot is true | at the end: its record ids lead to records of its keys |
| I5 each row once in the report | after every run that ends: none twice, and the counts are those of the rows |
| I6 the report is true | after every run that ends: every row it does not name is in the org, as the model has it |
| I7 one writer | at every call that commits: never by a process that another one followed |
| I8 one org | after every run: it was the org of its state; where another one answers, nothing is written |
| I9 it ends | after every run: an hour at most where nothing is slow; no file of its own is left behind |
| I10 calls are bounded | at every call: 400 for a run at most, where nothing is slow |
| I11 no call without an end | at every call: both timeouts are there |
| I12 the state is old, new, or refused | a disk that fails is a StateError, and the next run goes on from there |
| I13 unknown is never sent again | after every call: an insert whose outcome is unknown does not come by itself later |
| I14 no delete unread | after every call: only what the rules allow is gone; a read that breaks off changes nothing |
| I15 quiet | after every run: what was delivered and did not change is not sent; at the end nothing is |
| I16 no secret, no value | in everything a run says, and at the end in everything that is kept |
| I17 verify is true | at the end: it tells of all that others changed and of nothing else, and `--repair` mends it |
| I18 what another keeps stays | after every call: no record that another activation or target has is deleted or set |
| I19 a revert undoes its run | at the end: its records are as before, but where others wrote since |
| I20 a lookup is right | after every call: to the parent that is named, not one of two; a row that lacks it is named |
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zlib import crc32

import pyarrow as pa
import pyarrow.parquet as pq

from dinmo_dbt.delivery.run import Status, SyncRun
from dinmo_dbt.rows.snapshot import Flag
from dinmo_dbt.watch.history import JOB_RUNNING

from .org import SimulatedOrg
from .process import Process
from .shape import key_of

if TYPE_CHECKING:
    from .family import Family

VALUE = re.compile(r"k\d+_(?:_{3,}\S|p\d)")  # no chance of a digest's text
RUN_MAX_S, CALLS_MAX = 3_600.0, 400
CLOSED = "closed"  # what on_removed sets
COMMITTING = {"ingest.close", "collections.create", "collections.update", "collections.upsert", "collections.delete"}


class Broken(AssertionError):
    """An invariant does not hold; the message names it."""


@dataclass(frozen=True)
class Row:
    """A row of the model. One that is too long can't be sent."""

    key: str
    version: int
    too_long: bool = False

    def values(self) -> dict[str, str | None]:
        long = " " + "x" * 90 if self.too_long else ""
        return {
            "id": self.key, "ext": self.key, "code": self.key, "a": a_of(self.key, self.version) + long,
            "b": b_of(self.version), "c": c_of(self.version), "p": parent_of(self.key, self.version),
            "up": up_of(self.key, self.version),
        }  # fmt: skip


def a_of(key: str, version: int) -> str:
    """It names both. The first versions differ in the eighth byte alone, and in two bytes of `b_of`, as two dates do:
    a hash that lets one value's difference be made up for by the next is found so."""
    return f"{key:_<7}{chr(48 + 4 * version)}" if version < _SHORT_VERSIONS else f"{key}__v{version}"


def b_of(version: int) -> str | None:
    return None if version % 5 == 4 else f"202{4 * (version % 2)}012{4 * (version % 2)}"


def _digits(b: str | None) -> str | None:
    """Column b whole, in whatever type it was sent."""
    return b and b.removesuffix(".00")


def c_of(version: int) -> str | None:
    return "c" * (version % 3) or None


PARENTS = ("k0_p0", "k0_p1", "k0_p2")


def parent_of(key: str, version: int) -> str | None:
    """The name of its parent of another object."""
    return (*PARENTS, None)[crc32(f"{key} {version}".encode()) % 4]


def up_of(key: str, version: int) -> str | None:
    """The key of its parent of the same object: perhaps its own, or one that is not there."""
    number = crc32(f"up {key} {version}".encode())
    return f"k{number // 2 % 12}" if number % 2 else None


_SHORT_VERSIONS = 19
_NAMED = re.compile(r"(k\d+)_+(?:v(\d+)|(.))", re.DOTALL)


@dataclass
class Auditor:
    """`mode` is the activation's; with `ignores` a changed row makes no new record; `on_removed` as it declares.
    `sent`: the text of a value of column b, as the model writes it now."""

    org: SimulatedOrg
    mode: str
    sent: Callable[[str | None], str | None] = lambda b: b
    ignores: bool = False
    on_removed: str = "ignore"
    rows: dict[str, Row] = field(default_factory=dict)
    newest: dict[str, int] = field(default_factory=dict)  # of every key that ever was
    columns: tuple[str, ...] = ("a", "b")
    slow: bool = False  # a call or a job was made to last

    def __post_init__(self) -> None:
        self.seen: dict[str, tuple[str, int, int]] = {}  # record id: key and version it last had, and when put
        self._puts: dict[tuple[str, int], int] = {}  # key and version: when it was put last
        self.theirs: set[str] = set()  # records that others made
        self.excused: dict[str, int] = {}  # keys whose record others changed, and their newest version then
        self.removed: set[str] = set()  # records that others deleted
        self.may_go: set[str] = set()  # keys that a run may have read as left, or as listed
        self.rebased: set[str] = set()
        self.acknowledged: set[str] = set()  # keys that a run that ended had delivered, and which left no run since
        self.kept: dict[str, bool] = {}  # keys that another activation or target has: whether the record was set before
        self.deletes = 0
        self.doubtful: dict[tuple[str, int], bool] = {}  # inserts told unknown: whether they are there
        self.delivered: dict[str, Row] = {}  # told so by a run that ended, and unchanged since
        self.mixed = False  # the mapping changed: a record's fields may be of several versions
        self._count = 0
        self._at, self._last_call = -1, self.org.last_call()
        self._last_epochs: dict[str, int] = {}  # by whose state it is
        self.held: list[dict[str, Any]] = []
        self.family: Family | None = None  # where rows have parents

    # What happens around the org

    def put(self, row: Row) -> None:
        self.rows[row.key] = row
        self.newest[row.key] = max(row.version, self.newest.get(row.key, 0))
        self._count += 1
        self._puts[row.key, row.version] = self._count
        self.delivered.pop(row.key, None)
        if row.key in self.rebased:
            self.excuse(row.key)
        if self.mode == "delete":
            self.may_go.add(row.key)

    def drop(self, key: str) -> None:
        del self.rows[key]
        self.delivered.pop(key, None)
        if self.on_removed == "delete":
            self.may_go.add(key)

    def remap(self, columns: tuple[str, ...]) -> None:
        self.columns, self.mixed = columns, True
        self.rebase()
        self.delivered.clear()

    def rebase(self) -> None:
        """Whether a row of an insert that was away meanwhile has changed can't be known: it is not sent."""
        if self.mode == "insert":
            self.rebased |= self.newest.keys() - self.rows.keys()

    def forget(self) -> None:
        """The state is as it was before the first sync, and so is what follows from it."""
        self.delivered.clear()
        self._last_epochs.clear()

    def went_back(self) -> None:
        """Records are of before, as was asked: what is there now is what a run finds."""
        self.held, self._at = self.org.held(), self.org.changes
        told = {record["Id"]: self._identity(record) for record in self.held}
        self.seen = {id: (*found, self._puts[found]) for id, found in told.items() if found}
        self.delivered.clear()

    def excuse(self, key: str) -> None:
        """Others changed its record: that is for verify to see, until the row has values it never had."""
        self.excused[key] = self.newest[key]

    def excuse_returned(self) -> None:
        """Rows that have values of before: an older state may have acknowledged just those."""
        for key, row in self.rows.items():
            if row.version < self.newest[key]:
                self.excuse(key)

    def excuse_known(self) -> set[str]:
        """Rows that may have changed since they were delivered are taken as they are: their keys."""
        known = {key for key, *_ in self.seen.values()}
        changed = self.rows.keys() & known - self.delivered.keys()
        for key in changed:
            self.excuse(key)
        return changed

    def is_closed(self, key: str) -> bool:
        """Whether a record of it is set as `on_removed` says."""
        return any(r["C__c"] == CLOSED and self.seen.get(r["Id"], ("",))[0] == key for r in self.held)

    def others_alone(self) -> set[str]:
        """Keys that only records of others name."""
        ours = {self.seen[record["Id"]][0] for record in self.held if record["Id"] in self.seen}
        return {record["Code__c"] for record in self.held if record["Id"] in self.theirs} - ours

    # At every call

    def look(self, process: Process) -> None:
        """After a call of that process."""
        if not self.slow and process.calls > CALLS_MAX:
            raise Broken(f"I10: {process.calls} calls, and nothing was slow")
        self._one_writer(process)
        if self.org.changes == self._at:
            return
        self._at = self.org.changes
        self.held = self.org.held()
        if self.family:
            self.family.look()
        copies: Counter[tuple[str, int]] = Counter()
        now: dict[str, tuple[str, int]] = {}
        for record in self.held:
            told = self._identity(record)
            if told:
                if self.family and (wrong := self.family.wrong(record, *told)):
                    raise Broken(f"I20: {wrong}")
                copies[told] += 1
                now[record["Id"]] = told
        self._no_copies(copies)
        for record_id, (key, version) in now.items():
            if version > self.newest[key]:
                raise Broken(f"I3: {key} has version {version}, which was never made")
            before = self.seen.get(record_id)
            if before is None or before[:2] != (key, version):
                put = self._puts[key, version]
                if before and before[0] == key and put < before[2]:
                    raise Broken(f"I3: {key} went back from version {before[1]} to {version}")
                self.seen[record_id] = key, version, put
            if self.mode == "update" and record_id not in self.theirs:
                raise Broken(f"I1: an update made a record of {key}")
        there = {record["Id"] for record in self.held}
        for record_id in self.seen.keys() - there - self.removed:
            self._deleted(record_id)
        for key, was_set in self.kept.items():
            if not was_set and self.is_closed(key):
                raise Broken(f"I18: another one keeps the record of {key}, and it is set")
        for row, is_there in self.doubtful.items():
            if copies[row] and not is_there:
                raise Broken(f"I13: {row[0]} v{row[1]} was told unknown, and was sent again")

    def _one_writer(self, process: Process) -> None:
        last = self.org.last_call()
        if last is None or last is self._last_call:
            return
        self._last_call = last
        process.misled |= re.fullmatch(r"other_org \(\d+\)", last.fault or "") is not None  # and the reply came
        if last.name not in COMMITTING or last.status >= 300:
            return
        if process.misled:
            raise Broken("I8: it writes after another org answered its login")
        last_epoch = self._last_epochs.get(process.own, 0)
        if process.epoch < last_epoch:
            raise Broken(f"I7: epoch {process.epoch} writes after epoch {last_epoch}")
        self._last_epochs[process.own] = process.epoch

    def _identity(self, record: dict[str, Any]) -> tuple[str, int] | None:
        found = _NAMED.fullmatch(record["A__c"] or "")
        if not found:
            return None
        key, version = found[1], int(found[2]) if found[2] else (ord(found[3]) - 48) // 4
        if not self.mixed and key not in self.excused and _digits(record["B__c"]) != b_of(version):
            raise Broken(f"I3: {key} is made of two versions")
        return key, version

    def _no_copies(self, copies: Counter[tuple[str, int]]) -> None:
        keys = Counter(key for key, _ in copies.elements())
        counted: Counter[Any] = keys if self.mode == "upsert" or self.ignores else copies
        for each, count in counted.items():
            if count > 1:
                raise Broken(f"I1: {each} is in the org {count} times")

    def _deleted(self, record_id: str) -> None:
        key, *_ = self.seen.pop(record_id)
        if key in self.kept:
            raise Broken(f"I18: another one keeps the record of {key}, and it is gone")
        if key not in self.may_go or (record_id in self.theirs and self.mode != "delete"):
            raise Broken(f"I14: a record of {key} is gone")
        self.deletes += 1

    # After a run

    def ended(self, run: SyncRun, process: Process, took_s: float) -> None:
        told = pa.concat_tables(run.not_delivered).to_pylist()
        if run.status is Status.ON_ITS_WAY and not run.plan_counts.read:  # a job of before works on: nothing is drawn
            if run.outcome.succeeded or not all(row["code"] == JOB_RUNNING for row in told):
                raise Broken("I5: a run that waits for a job of before does more")
            return
        if len({row["key"] for row in told}) != len(told):
            raise Broken("I5: a row is named twice")
        # Of two spellings of a key, one that left and waits for the other says nothing of the row that is there.
        told.sort(key=lambda row: row["code"] not in ("RECORD_SHARED", "KEY_RESPELLED"))
        left_out = {key_of(row["key"]): (row["fate"], row["code"]) for row in told}
        run.check_counts()
        counts, outcome = run.plan_counts, run.outcome
        sent = outcome.succeeded + outcome.rejected + outcome.held + outcome.unknown
        sending = counts.planned + counts.removing
        if counts.read != len(self.rows) or sending != sent:
            raise Broken(f"I5: {counts.read} of {len(self.rows)} rows read, {sent} of {sending} accounted for")
        named = counts.read - counts.unchanged + counts.removing + counts.removal_held - outcome.succeeded
        # Of what a dead run's jobs refused, a row that is not the model's any more is named too.
        if not 0 <= len(told) - named <= run.recovered.rejected + run.recovered.unknown:
            raise Broken(f"I5: {len(told)} rows are named, of {named} that were not delivered")
        for key, fate in left_out.items():
            if self.mode == "insert" and key in self.rows and may_be_there(*fate):  # others are sent again, once more
                row = (key, self.rows[key].version)
                # What a job that Salesforce still works on makes later is no second sending.
                self.doubtful[row] = self.org.is_working or any(self._identity(each) == row for each in self.held)
        kept = sum(1 for key in self.delivered if key not in left_out)
        if counts.unchanged < kept:
            raise Broken(f"I15: {kept} rows were delivered before, only {counts.unchanged} are unchanged")
        self.all_there("I6: the run does not name them", left_out)
        there = {self._identity(record): record for record in self.held}
        self.delivered = {key: row for key, row in self.rows.items() if key not in left_out}
        if self.family:
            for key in self.rows.keys() & left_out.keys() if run.problem is None else ():
                if wrong := self.family.misnamed(self.rows[key], str(left_out[key][1])):
                    raise Broken(f"I20: {wrong}")
            for key, row in list(self.delivered.items()):  # it goes once more when its parent is there
                if self.family.is_open(there.get((key, row.version)), row):
                    del self.delivered[key]
        self.acknowledged = (self.acknowledged & self.rows.keys()) | self.delivered.keys()
        self.rebased -= self.delivered.keys()
        if self.mode != "delete":
            self.may_go -= self.delivered.keys()
        if run.status is Status.SUCCESS and any(
            fate == "rejected" or may_be_there(fate, code) for fate, code in left_out.values()
        ):
            raise Broken("I6: the run says success")
        if run.status is Status.SUCCESS and counts.waiting:
            raise Broken("I6: the run says success, and rows that Salesforce refused wait")
        self.bounded(took_s)

    def bounded(self, took_s: float) -> None:
        if not self.slow and took_s > RUN_MAX_S:
            raise Broken(f"I9: a run took {took_s:,.0f} s and nothing was slow")

    def all_there(self, why: str, left_out: Any = ()) -> None:
        """Every row of the model is in the org as it is, but for those named."""
        told = {self._identity(record): record for record in self.held}
        keys = {identity[0] for identity in told if identity}
        for key, row in self.rows.items():
            if key in left_out or self.excused.get(key, -1) >= row.version or (key, row.version) in self.doubtful:
                continue
            if self.ignores and (key in keys or key in self.excused):
                continue
            record = told.get((key, row.version))
            if self.mode == "delete":
                if key in keys:
                    raise Broken(f"{why}, and {key} is still in the org")
            elif record is None:
                raise Broken(f"{why}, and {key} v{row.version} is not in the org")
            elif self.mode != "insert":
                self._whole(record, row)
            if self.family and record and record["Id"] not in self.theirs and self.family.lacks(record, row):
                raise Broken(f"I20: {why}, and {key} v{row.version} is there without its parent")

    def _whole(self, record: dict[str, Any], row: Row) -> None:
        values = row.values()
        values["b"] = self.sent(values["b"])
        for column in self.columns:
            if record[f"{column.upper()}__c"] != values[column]:
                raise Broken(f"I3: {row.key} has another version's {column}")

    # The state, as a reader of its files

    def snapshot(self, rows: list[dict[str, Any]], named: set[str]) -> None:
        """I4 and, of the rows that left, I2: what the snapshot says was acknowledged."""
        held = {record["Id"]: record for record in self.held}
        for row in rows:
            record_id, key = row["record_id"], row["key"]
            if not record_id or record_id in self.removed or key in self.excused or self.mode == "delete":
                continue
            if record_id not in held:
                raise Broken(f"I4: the snapshot has a record of {key} that is not there")
            told = self._identity(held[record_id])
            if told and told[0] != key:
                raise Broken(f"I4: the snapshot has {told[0]}'s record for {key}")
            if key not in self.rows and key not in named and row["flags"] & (Flag.CREATED | Flag.ADOPTED):
                self._seen_off(key, held[record_id])

    def _seen_off(self, key: str, record: dict[str, Any]) -> None:
        if self.on_removed == "delete" or (self.on_removed == "set" and record["C__c"] != CLOSED):
            raise Broken(f"I2: {key} left the model, and its record stays as it was")

    def files(self, files: Iterable[Path], spools: Callable[[], set[str]]) -> None:
        """I9: after a run that ended; `spools` tells those of batches in flight."""
        for path in files:
            if path.suffix == ".tmp" and not path.name.startswith((".state.db", ".history.db")):
                raise Broken(f"I9: a temporary file is left in {path.parent.name}")
            if path.suffix == ".arrow" and path.name not in spools():
                raise Broken("I9: the rows of a batch that is over are left")

    def contents(self, folder: Path) -> None:
        """I16: when all is over, whatever is kept."""
        for path in _files(folder):
            if "images" not in path.parts:  # values are what they keep
                self.says_nothing(path.name, _texts(path))

    def says_nothing(self, where: str, text: str) -> None:
        """I16: neither a row's value nor a secret. The folder's name is chance's, and may look like a value."""
        found = VALUE.search(text.replace(str(self.org.folder), ""))
        if found:
            raise Broken(f"I16: {where} has a row's value")
        if any(secret in text for secret in self.org.secrets):
            raise Broken(f"I16: {where} has a secret")


def may_be_there(fate: str, code: str | None) -> bool:
    """An insert whose outcome can't be learned: said so, and never sent again by itself (promise 3)."""
    return fate == "unknown" or code == "OUTCOME_UNKNOWN"


def is_over(row: dict[str, Any]) -> bool:
    """Nothing more can become of that row by itself."""
    over = row["fate"] in ("invalid", "no_match", "ambiguous") or row["code"] in (
        "RECORD_ID_UNKNOWN", "RECORD_SHARED", "KEY_RESPELLED",
    )  # fmt: skip
    return over or may_be_there(row["fate"], row["code"])


def _files(folder: Path) -> Iterator[Path]:
    return (Path(found, name) for found, _, names in os.walk(folder) for name in names)


def _texts(path: Path) -> str:
    """Of a table its columns but Salesforce's own words, which are kept whole; of others, or a bent one, all."""
    try:
        file = pq.ParquetFile(path, pre_buffer=False)
        columns = [f.name for f in file.schema_arrow if f.name != "message" and pa.types.is_string(f.type)]
        table = file.read(columns, use_threads=False)
        return "\n".join(text or "" for column in table.columns for text in column.to_pylist())
    except (OSError, pa.ArrowException, UnicodeDecodeError):
        return path.read_bytes().decode("utf-8", "replace")
