"""A history drawn from a seed: runs of one activation while its model changes, calls fail, disks break, processes die
or stop, and others work in the org. Each seed turns some of that on, and `told` says what happened.
"""

from __future__ import annotations

import os
import random
import re
import secrets
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from decimal import Decimal
from functools import partial
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
from memory_org import Killed, Match, activation

from dinmo_dbt import emulator
from dinmo_dbt.activation import Activation, Ceiling, FieldMapping, Guards
from dinmo_dbt.cli import drawing, turn
from dinmo_dbt.cli.commands import verify as verifying
from dinmo_dbt.cli.options import Gating
from dinmo_dbt.cli.session import Session
from dinmo_dbt.config import sharing
from dinmo_dbt.delivery.run import POLL_MAX_S, SyncRun
from dinmo_dbt.errors import CountsError, DinmoError, Problem, StateError, WarehouseError
from dinmo_dbt.plan.guards import Ceilings
from dinmo_dbt.plan.plan import Plan
from dinmo_dbt.rows.snapshot import GIVEN_UP, Flag
from dinmo_dbt.salesforce.request import API_VERSION
from dinmo_dbt.state.journal import ActivationState
from dinmo_dbt.state.marks import Marks
from dinmo_dbt.state.store import Store
from dinmo_dbt.upkeep import adopt, rekey
from dinmo_dbt.watch.history import Trigger

from .auditor import CLOSED, Auditor, Broken, Row, a_of, b_of
from .beside import TARGET, Beside
from .family import Family
from .org import SimulatedOrg
from .places import Folder
from .process import BadDisk, End, Process, Stopped, current
from .shape import Keys, Shape, key_of
from .upkeep import Upkeep
from .wall import Wall

CALL_FAULTS = (
    "request_lost", "reply_lost", "request_repeated", "slow", "hang", "truncated", "content_length", "bad_gzip",
    "invalid_utf8", "bom", "missing_items", "extra_items", "status", "html_page", "session_expired", "job_failed",
    "job_aborted", "job_deleted", "job_stuck", "batch_retried", "results_expired", "results_shuffled",
    "results_cut", "results_cut_bytes", "results_repeated", "results_missing", "results_error_newline",
)  # fmt: skip
CALLS = ("", "", "ingest.*", "ingest.close", "ingest.results", "collections.*", "collections.*")
WRITES = tuple(f"{method} /services/data/" for method in ("POST", "PUT", "PATCH", "DELETE"))
LOOKS_AT_A_JOB = f"GET /services/data/v{API_VERSION}/jobs/ingest/JOB"
WORKING_S = (60, 3_600, 5 * 3_600, 23 * 3_600)
SLOW = {"slow", "hang", "job_stuck"}
KINDS = (
    "upsert by bulk", "upsert by collections", "insert by bulk", "insert by bulk", "insert once by bulk",
    "update by bulk", "update by collections", "delete by bulk", "delete by collections",
    "upsert, then delete by bulk", "upsert, then delete by collections", "insert once, then delete by bulk",
    "upsert, then set by bulk", "upsert, then set by collections",
)  # fmt: skip
EVENTS = ("calls", "rows", "deaths", "power", "disk", "stops", "others", "mapping", "keys", "leavers", "empty", "reads",
          "quota", "another org", "schema", "damage", "logins", "queue", "forgets", "copies")  # fmt: skip
OFTEN = {"calls", "deaths"}
COLUMNS = (("a", "b"), ("a", "b"), ("a",), ("a", "b", "c"))
STEPS = (1, 1, 1, 2, 2, 2, 2, 3)
DAY_S, LEASE_S = 86_400.0, 700.0
JOBS_KEPT_S, GIVE_UP_S = 6 * DAY_S, DAY_S
ANY_DELETES = Ceilings(allow_deletes=1000)
CLEAN_RUNS_MAX = 8
BATCH_ROWS = 8


@dataclass
class _Warehouse:
    """The model as it is when it is read, changed in a way, by a cursor that dies after so many record batches."""

    rows: Callable[[], pa.Table]
    changed: Callable[[pa.Table], pa.Table] = lambda table: table
    dies_after: int | None = None

    def schema(self, relation_name: str) -> pa.Schema:
        return self.rows().schema

    def read(self, relation_name: str, columns: list[str], where: str | None) -> Iterator[pa.RecordBatch]:
        table = self.changed(self.rows()).select(list(columns)).combine_chunks()
        for number, batch in enumerate(table.to_batches(BATCH_ROWS)):
            if number == self.dies_after:
                break
            yield batch
        if self.dies_after is not None:
            raise WarehouseError("DB210", "the cursor died", where=relation_name)


@dataclass
class History:
    """One seed's life."""

    org: SimulatedOrg
    seed: int
    told: list[str] = field(default_factory=list)
    met: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.shape = Shape(self.seed)
        self.damages = random.Random(f"damage {self.seed}")
        self.wall = Wall(self.org.clock, self.seed, self._tell)
        self.audits = random.Random(f"audit {self.seed}").random() < 0.75
        self.gives_up = random.Random(f"give up {self.seed}").random() < 0.25
        self.kind = self.random.choice(KINDS)
        self.mode, self.api = re.split("[, ]", self.kind)[0], self.kind.rpartition(" ")[2]
        self.looks_up = self.mode == "upsert" and random.Random(f"match {self.seed}").random() < 0.25
        self.events = {e for e in EVENTS if self.random.random() < (0.6 if e in OFTEN else 0.25)}
        if self.gives_up and random.Random(f"refuses {self.seed}").random() < 0.6:  # what is given up was refused
            self.events.add("rows")
        self.records = random.Random(f"record {self.seed}")
        counts = self.mode == "insert" and "copies" in self.events
        self.working = random.Random(f"working {self.seed}")
        self.is_recorded = self.records.random() < (0.7 if counts else 0.15)  # the org keeps a record of the state
        if self.is_recorded and counts and self.records.random() < 0.7:  # it is written, whatever else happens
            self.events -= {"calls", "quota"}
        then = re.search(", then (delete|set)", self.kind)
        self.on_removed = then[1] if then else "ignore"
        if then or self.mode == "delete":
            self.events |= {"leavers"}
        ignores = "once" in self.kind
        self.audit = Auditor(self.org, self.mode, self.shape.sent, ignores=ignores, on_removed=self.on_removed)
        self.beside = Beside(self.seed, self.mode, self.audit, self._activation)
        if self.events & {"copies", "damage", "mapping"}:  # an older state knows nothing of others
            self.beside.is_there = False
        self.upkeep = Upkeep(self)
        self.family = Family(self)
        self.audit.family = self.family if self.family.path else None
        self.home = self.org.folder / str(self.seed)
        self.place = self.org.place(self.seed, self.home)
        self.marks = self.home / "marks"
        if not isinstance(self.place, Folder) and self.records.random() < 0.6:  # its lease alone keeps others out
            self.events.add("stops")
        self.runs, self.seams = 0, 40
        self.patience_s = POLL_MAX_S  # for which a run waits for a job
        self.settled = True  # nothing is in flight
        self.spelled: list[str] = []  # how keys were written that the state knows as other rows
        self.quota_gone = self.ignores_once = False
        self.jobs_gone = False  # Salesforce may have forgotten one of ours
        self.lingers: Process | None = None  # the latest one, if it was to end or had a bad disk
        self.copied: dict[str, float] = {}  # copies of the state, and when they were made
        self.error: DinmoError | None = None  # of the run before
        self.session: Any = None  # what that run had of the world
        self.pinned = self.random.random() < 0.5  # dinmo.yml names the org

    # The whole of it

    def play(self) -> None:
        """Raises Broken where an invariant does not hold."""
        self.org.new(has_records=self.is_recorded)
        shutil.rmtree(self.home, ignore_errors=True)  # of a history that broke, and is played again
        self.home.mkdir()
        self.place.new()
        if self._on("queue", 1.0):
            self.org.app.pace = emulator.Pace(queue_s=self.random.randint(1, 6), batch_s=self.random.randint(0, 3))
        records = "; the org keeps records of states" if self.is_recorded else ""
        gives_up = "; rows are given up after a day" if self.gives_up else ""
        events = ", ".join(sorted(self.events)) or "nothing goes wrong"
        said = f"{events}{records}{gives_up}{self.family.said}{self.place.said}"
        self._tell(f"{self.kind}{' by a field that is no external id' if self.looks_up else ''}; {said}")
        self.family.begin()
        self._grow(self.random.randint(3, 20))
        if self.mode in ("update", "delete"):
            self._others_create(sorted(self.audit.rows))
        if self.mode == "upsert" and "others" in self.events:
            self._others_create(sorted(self.audit.rows)[::3])
        if self.mode == "delete":
            for key in self.random.sample(sorted(self.audit.rows), k=len(self.audit.rows) // 2):
                self.audit.drop(key)
                self.audit.may_go.remove(key)
        with self._repeatable():
            steps = self.random.choice(STEPS)
            for step in range(steps):
                if step or steps == 1 or self.random.random() < 0.4:
                    self._meanwhile()
                else:  # what goes wrong later meets a state that knows something
                    self._run()
                if self.random.random() < 0.7:
                    self._edit()
                if self._on("copies") and self.place.exists():
                    self.place.copy(f"copy{step}")
                    self.copied[f"copy{step}"] = self.org.clock.now()
            self._end()
        shutil.rmtree(self.home)

    @contextmanager
    def _repeatable(self) -> Iterator[None]:
        """Ids and names of files that the code draws from chance are the seed's inside."""
        chance = random.Random(self.seed)
        made, drawn = turn.new_run, secrets.token_hex
        turn.new_run = self._new_run
        secrets.token_hex = lambda nbytes=None: chance.randbytes(nbytes or 32).hex()
        try:
            yield
        finally:
            turn.new_run, secrets.token_hex = made, drawn

    def _new_run(self, _: Any) -> SyncRun:
        """As the command line's, with an id that a seed repeats."""
        self.runs += 1
        run_id, patience_s = f"{self.wall.now():.0f}-{self.runs:04d}", self.patience_s
        return SyncRun(run_id, self.wall.now(), self.wall.monotonic(), patience_s=patience_s, settling_s=patience_s)

    def _on(self, event: str, chance: float = 0.5) -> bool:
        on = event in self.events and self.random.random() < chance
        self.met[event] += on
        return on

    def _tell(self, line: str) -> None:
        self.audit.says_nothing("a message", line)
        line = re.sub(r"process \d+ on \S+ \(user [^,)]+", "process N on HOST (user U", line)
        self.told.append(line.replace(f"{self.home}{os.sep}", ""))

    # The model

    def _grow(self, more: int) -> None:
        start = len(self.audit.newest)
        for number in range(start, start + more):
            self.audit.put(Row(f"k{number}", 0))

    def _edit(self) -> None:
        """New rows, new versions of old ones, rows that leave and return."""
        audit = self.audit
        if self.mode not in ("update", "delete"):
            self._grow(self.random.randint(0, 6))
        for key in self.random.sample(sorted(audit.rows), k=self.random.randint(0, len(audit.rows))):
            # A record an insert made stays: a row of it that goes back is one more.
            older = self.mode in ("upsert", "update") and audit.newest[key] and self.random.random() < 0.4
            version = self.random.randrange(audit.newest[key]) if older else audit.newest[key] + 1
            audit.put(Row(key, version, too_long=self._on("keys", 0.05)))
        if self._on("leavers"):
            for key in self.random.sample(sorted(audit.rows), k=self.random.randint(0, len(audit.rows) // 2)):
                audit.drop(key)
            for key in sorted(audit.newest.keys() - audit.rows.keys()):
                if self.random.random() < 0.3:
                    audit.put(Row(key, audit.newest[key] + self.random.randint(0, 1)))
        if self._on("mapping", 0.4):
            audit.remap(self.random.choice(COLUMNS))
            self._tell(f"mapping: {', '.join(audit.columns)}")
        self._tell(f"model: {len(audit.rows)} rows, newest version {max(audit.newest.values(), default=0)}")

    def _model(self) -> pa.Table:
        return self.shape.table([row.values() for row in self.audit.rows.values()])

    # The org, and others in it

    def _arm(self) -> None:
        """A random part of the faults, at a random rate."""
        faults = self.org.app.faults
        if self._on("calls", 0.8):
            kinds = tuple(self.random.sample(CALL_FAULTS, k=self.random.randint(1, 3)))
            rate, call = 10 ** self.random.uniform(-1.5, 0), self.random.choice(CALLS)
            faults.chaos(self.random.randrange(1 << 30), rate, kinds, call)
            self.audit.slow |= not SLOW.isdisjoint(kinds)
            self.met.update(f"fault {kind}" for kind in kinds)
            self.jobs_gone |= "job_deleted" in kinds
            self._tell(f"faults: {', '.join(kinds)} at {rate:.2f} of {call or 'all calls'}")
        if self._on("rows"):
            preset, share = self.random.choice(("lock", "lock", "validation_rule")), self.random.choice((0.1, 0.5))
            faults.arm_json({"kind": "rows", "preset": preset, "share": share, "seed": self.seed})
            self._tell(f"faults: {preset} on {share:.0%} of rows")
        if self._on("quota", 0.3):
            faults.arm_json({"kind": "quota_gone", "after": self.random.randint(0, 8), "times": 1})
            self.quota_gone = True
            self._tell("faults: the daily calls are used up")
        if self._on("forgets", 0.4):
            kind, call = self.random.choice((("job_deleted", "ingest.info"), ("results_expired", "ingest.results")))
            faults.arm_json({"kind": kind, "call": call, "after": self.random.randint(0, 2), "times": 1})
            self.jobs_gone = True
            self._tell("faults: Salesforce forgets a job or its results")
        if self._on("logins", 0.2):
            faults.arm_json({"kind": "request_lost", "call": "token", "times": 20})
            self._tell("faults: no login is answered")
        if self._on("another org", 0.3):
            renewal = not self.pinned or self.random.random() < 0.5
            if not self.pinned:
                faults.clear()  # or a login that is asked again counts as the renewal
            faults.arm_json({"kind": "other_org", "call": "token", "after": int(renewal), "times": 1})
            if renewal:
                faults.arm_json({"kind": "session_expired", "after": self.random.randint(1, 6), "times": 1})
            self._tell(f"faults: another org answers {'a renewal' if renewal else 'the login'}")

    def _others_create(self, keys: list[str]) -> None:
        match = "Ext__c" if self.mode == "upsert" and not self.looks_up else "Code__c"
        deleted = self.mode == "delete"
        told = {key: {"A__c": a_of(key, 0), "B__c": b_of(0)} if deleted else {} for key in keys}
        records = [{"Name": "theirs", match: key, **told[key]} for key in keys]
        self.audit.theirs |= set(self.org.create(records))

    def _others(self) -> None:
        """Somebody edits, deletes or makes records of ours."""
        audit = self.audit
        there = {record["Id"] for record in self.org.held()}
        ours = [(id, key) for id, (key, *_) in audit.seen.items() if id in there and id not in audit.removed]
        if not ours or self.quota_gone:
            return
        record_id, key = self.random.choice(ours)
        match self.random.choice(("edit", "delete", "create")):
            case "edit":
                self.org.edit(record_id, A__c="theirs")
                audit.excuse(key)
                self._tell(f"others: edit {key}")
            case "delete":
                self.family.let_go(record_id)
                self.org.delete(record_id)
                audit.removed.add(record_id)
                audit.kept.pop(key, None)  # another run may make it anew, for itself alone
                audit.excuse(key)
                self._tell(f"others: delete {key}")
            case _ if self.mode not in ("upsert", "delete"):
                self._others_create([key])
                self._tell(f"others: make another record of {key}")

    # Runs

    def _meanwhile(self) -> None:
        """One run, or what a run can meet."""
        self.met["clock set"] += self.wall.draw()
        if self.gives_up and self.settled:
            self.org.clock.sleep(GIVE_UP_S)
        if self.settled and self.place.exists() and self.session:
            self.upkeep.retry()
        if self.beside.is_there and self.settled and self.place.exists() and self.beside.random.random() < 0.7:
            self._run_beside()
        if self._on("others", 0.6):
            self._others()
        self.family.change()
        if self._on("damage", 0.5) and self.settled and self.place.exists():
            self._damaged()
        if self._on("copies", 0.6) and self.copied:
            self._another_copy()
        if not self.copied and not self.beside.is_there and self.shape.random.random() < 0.3:
            self._reshape()
        self._arm()
        if self.on_removed != "ignore" and self._on("leavers", 0.3):
            self._guarded()
        elif self._on("empty", 0.3) and self.mode != "delete":
            self._refused("an empty model", lambda table: table.slice(0, 0), unless_new=True)
        elif self._on("keys", 0.3) and self.audit.rows:
            self._refused("a key twice", lambda table: pa.concat_tables([table, table.slice(0, 1)]))
        elif self._on("reads", 0.3):
            self._refused("a read that dies", lambda table: table, dies_after=self.random.randint(0, 2))
        elif self._on("schema", 0.3):
            self._with_another_schema()
        elif self._on("stops", 0.6):
            self._overlapping()
        elif self.api == "bulk" and self.working.random() < 0.4:
            self._leaves_a_job()
        else:
            self._disturbed()

    def _leaves_a_job(self) -> None:
        """Salesforce works on the job of a run that died, or that waits no longer, while other runs come."""
        state, seconds = self.working.choice(("UploadComplete", "InProgress")), self.working.choice(WORKING_S)
        self.org.app.faults.arm_json({"kind": "job_stuck", "state": state, "seconds": seconds, "times": 1})
        self._tell(f"faults: a job is {state} for {seconds:,} s")
        self.audit.slow = True
        self.met["works on"] += 1
        if self.working.random() < 0.5:
            self.patience_s = self.working.choice((0.0, 60.0))
            self._run()
        else:
            self._run(end=End(self.working.randint(0, 2), self.working.random() < 0.5, among=LOOKS_AT_A_JOB))
        for _ in range(self.working.randint(1, 2)):
            if self.working.random() < 0.5:
                self._edit()
            self._run()
            self.patience_s = self.working.choice((0.0, 60.0, POLL_MAX_S))
        self.patience_s = POLL_MAX_S

    def _disturbed(self) -> None:
        """One run that may die, or whose disk may fail."""
        end = bad = None
        if self._on("deaths", 0.6):
            end = self._end_of_process(power=self._on("power", 0.7))
        elif self._on("disk", 0.7):
            kind = self.random.choice(("full", "full", "read_only", "sync", "rename", "commit"))
            at, late = self.random.randint(0, self.seams), self.random.random() < 0.5
            bad = BadDisk(self.place.fault(kind), at, self.random.choice((0, 100, 5000)), late)
            self.met[f"disk {bad.kind}"] += 1
        self._run(end=end, bad=bad)

    def _end_of_process(self, *, power: bool = False, stops: bool = False, random: random.Random | None = None) -> End:
        """At any of its seams; or at a call that writes or a commit, of which there are few and much hangs."""
        calls, draw = 3 if self.api == "bulk" else 1, random or self.random
        among, last, after = draw.choice(
            (("", self.seams, 0.5), (WRITES, calls, 0.7), ("commit", self.place.commits, 0.5))
        )
        return End(draw.randint(0, last), draw.random() < after, power, stops, among)

    def _reshape(self) -> None:
        """The model writes its keys in another way, or a column has another type."""
        self.place.drop("older")  # of another model
        if self.shape.random.random() < 0.3:
            self._retype()
        elif self.mode in ("update", "delete"):  # they make no record: such rows are matched once more
            self.shape.keys = self.shape.other_keys()
            self._tell(f"model: keys are {self.shape.keys.said}")
            self.met["keys changed"] += 1
            self.audit.delivered.clear()
        elif self._is_known():
            self._respell()

    def _retype(self) -> None:
        """Column b: what is the same is not sent again; an insert stops beside rows that are not."""
        said, is_quiet, can_tell = self.shape.change_digits()
        self._tell(f"model: column b is {said}")
        self.met["type changed"] += 1
        if not is_quiet:
            self.audit.rebase()
        if not is_quiet and self.mode != "insert":
            self.audit.delivered.clear()
        self._run()
        if self._is_refused("DB413"):
            self._take_as_they_are(can_tell=can_tell)

    def _take_as_they_are(self, *, can_tell: bool = False) -> SyncRun | None:
        self._tell("they are taken as they are: on_change: ignore")
        named = re.search(r"([\d,]+) rows are not what they were", str(self.error))
        changed = len(self.audit.excuse_known())
        if can_tell and named and int(named[1].replace(",", "")) > changed:
            raise Broken(f"I15: an insert stops for {named[1]} rows, {changed} of them changed by more than a type")
        self.ignores_once = True
        run = self._run()
        self.ignores_once = False
        return run

    def _respell(self) -> None:
        """Keys in another type or spelling: all is as before, or the run is refused and a person says what to do."""
        was, self.shape.keys = self.shape.keys, self.shape.other_keys()
        self.met["keys changed"] += 1
        if self.shape.keys.text == was.text:
            self._tell(f"model: keys are {self.shape.keys.said}")
            self._run()
            if self._is_refused("DB409"):  # as the type has changed, keys that left beside new ones are asked about
                self._run(ceilings=replace(ANY_DELETES, allow_replaced=1000))
            return
        if self.shape.keys.text in self.spelled:  # known of before, so nothing tells them from rows that came back
            self._tell(f"model: keys are {self.shape.keys.said}")
            self._say_they_are_others(was)
            return
        if not self._is_known(ready=True):
            self._tell(f"model: keys are {self.shape.keys.said}, and many rows wait")
            delivered = dict(self.audit.delivered)
            self.audit.delivered.clear()
            self._run()
            if not self._is_refused("DB409"):  # what waits is not counted: nothing is made of it, and nothing goes
                self.spelled.append(self.shape.keys.text)
                self.audit.delivered.clear()
                self.shape.keys = was
                self._tell(f"model: keys are {was.said} again")
                return
            self.audit.delivered = delivered
        else:
            self._refused(f"keys are {self.shape.keys.said}", lambda table: table)
        way = self.shape.random.choice(("back", "rekey", "rekey", "adopt", "allow"))
        if not self._is_refused("DB409"):
            way = "back"
        if way == "rekey":
            self._rekey()
        elif way == "allow" and self.mode == "upsert":
            self._tell("they are other rows, it is said")
            self._say_they_are_others(was)
        elif way == "adopt" and self.mode == "insert" and not self.audit.ignores and not self.audit.doubtful:
            self.spelled.append(was.text)  # the old keys stay known, as of rows that left
            self.audit.delivered.clear()
            self._adopt([("a", "A__c")])
            self._run(ceilings=replace(ANY_DELETES, allow_replaced=1000))
        else:
            self.shape.keys = was
            self._tell(f"model: keys are {was.said} again")

    def _say_they_are_others(self, was: Keys) -> None:
        self.spelled.append(was.text)
        self.audit.delivered.clear()
        self._run(ceilings=replace(ANY_DELETES, allow_replaced=1000))

    def _is_refused(self, code: str) -> bool:
        return self.error is not None and self.error.problems[0].code == code

    def _rekey(self) -> None:
        """`state rekey`. An insert takes what has changed meanwhile as it is."""

        def work() -> list[str]:
            act, session = self._activation(), self.session
            with drawing.scan_spool(session) as spool:
                state = session.state.view(self.org.org_id, act)
                found = rekey.draw(act, session.source, session.destination(""), state, spool)
            with session.state.locked(self.org.org_id, act) as held:
                adopt.store(found, held)
            return [key_of(text) for text in found.pairs["new"].to_pylist()]

        paired = self._process().run(work)
        self.met["rekeyed"] += len(paired)
        self._tell(f"state rekey: {len(paired)} rows")
        if missed := self.audit.delivered.keys() & self.audit.rows.keys() - set(paired):
            raise Broken(f"I15: {min(missed)} was delivered, and rekey does not find it")
        if self.mode == "insert":
            for key in set(paired) - self.audit.delivered.keys():
                self.audit.excuse(key)

    def _is_known(self, *, ready: bool = False) -> bool:
        """Whether a run would find most of the keys that it knows in the model, and make records of others. `ready`: as
        rows that wait for no parent."""
        rows = self.audit.rows
        here = self.audit.delivered.keys() & rows.keys()
        count = sum(not (ready and self.family.keeps_back(rows[key])) for key in here)
        return self.mode in ("insert", "upsert") and self.settled and count > max(2, len(self.audit.newest) / 2)

    def _refused(
        self, why: str, change: Callable[[pa.Table], pa.Table], *, dies_after: int | None = None,
        unless_new: bool = False,
    ) -> None:  # fmt: skip
        """A run that must not write: what it reads is not to be believed."""
        self._tell(f"model: {why}")
        before, settled, known = self.org.held(), self.settled, bool(self.audit.delivered)
        run = self._run(_Warehouse(self._model, change, dies_after), strange=True)
        if run is not None and (known or not unless_new):
            raise Broken(f"I14: {why}, and the run ends as if it were good")
        if settled and self.org.held() != before:
            raise Broken(f"I14: {why}, and the org changed")
        self.settled = settled

    def _damaged(self) -> None:
        """A file of the state is bent, or all of it is an older copy: refused and left as it is, or of no matter."""
        self.place.copy("whole")
        damage = self.place.bend(self.random, self.damages)
        self._tell(f"damage: {damage.said}")
        if damage.comes_back and not self._state().known():
            self.audit.forget()  # of before the first sync: the state is lost, and all is sent once more
        before = self.place.contents()
        self._run()
        after = self.place.contents()
        changed = [name for name in before if after.get(name) != before[name]]
        if damage.of_history:
            self._without_history()
        elif isinstance(self.error, StateError) and changed:
            raise Broken(f"I12: a damaged state is refused, and {changed[0]} is not as it was")
        # Or it ended for something else, and did what a run does before that; an insert stops where its state is lost.
        if self.error and (not changed or self.error.problems[0].code == "DB401"):
            self.place.put_back("whole")
            self.settled = True
        self.place.drop("whole")
        self.place.copy("older")

    def _without_history(self) -> None:
        """Whatever has become of the history: no run ends for it."""
        self._run()
        if self.error is not None and self.place.is_of_history(self.error.problems[0].where):
            raise Broken(f"I12: a damaged history ends a run: {self.error}")

    def _another_copy(self) -> None:
        """An older copy of the state is on another machine, with this user's marks or without, hours or days later."""
        copy = self.random.choice(sorted(self.copied))
        self.org.clock.sleep(self.random.choice((3_600.0, DAY_S, 2 * DAY_S, 8 * DAY_S)))
        always = self.is_recorded and not self.events & {"calls", "quota"}  # or the record may not be written
        if always and self.records.random() < 0.5:  # Salesforce has forgotten the jobs: its record alone tells
            self.org.clock.sleep(8 * DAY_S)
        recent = self.org.clock.now() - self.copied[copy] < JOBS_KEPT_S and not self.jobs_gone
        has_marks = self.random.random() < 0.3
        is_told = recent or always
        if self.mode == "insert" and not is_told:  # nothing tells it that there is a newer one: that is not promised
            has_marks = True
        if self.mode != "insert" and not self.settled:  # what the newer one left is on its way, and may come late
            return
        marks = self.marks
        self.place.copy("newer")
        self.place.put_back(copy)
        self.marks = marks if has_marks else self.home / "no marks"
        age = self.org.clock.now() - self.copied[copy]
        self._tell(f"another machine, {'with' if has_marks else 'without'} marks: a copy of {age / 3600:,.0f} h ago")
        self.audit.forget()
        if self.mode != "insert":  # it says that it does not know of all records
            self.audit.excuse_returned()
        self._run()
        self.met["a copy is refused"] += isinstance(self.error, StateError)
        takes_over = self.mode == "insert" and not has_marks and self._is_fenced() and self.random.random() < 0.5
        if takes_over:
            self._take_over()
        elif isinstance(self.error, StateError) or (self.mode == "insert" and not has_marks):
            self.place.put_back("newer")
            self.marks = marks
            self._tell("the newer state is put back")
            if always and self.records.random() < 0.6:  # when Salesforce has forgotten the other one's jobs
                self.org.clock.sleep(8 * DAY_S)
        self.copied.clear()
        self.audit.forget()
        self._run()
        if self._is_fenced():  # the other copy had rows that this one has not
            self._take_over()
            self._run()
        if self._is_fenced():
            raise Broken("I12: what was taken over stops the next run")

    def _is_fenced(self) -> bool:
        """An insert stops: the org knows more than its state, or the state knows nothing beside records."""
        return any(map(self._is_refused, ("DB522", "DB524", "DB401")))

    def _take_over(self) -> None:
        """`state adopt`, by what names a row's version, or the row where no change makes a record. Of a record that
        others edited only the user can tell, and of one that they made."""

        lost = self._is_refused("DB401")
        taken = self._adopt([("id", "Code__c"), ("a", "A__c")][: 1 if self.audit.ignores else 2])
        if self.audit.ignores:
            for key in self.audit.others_alone():
                self.audit.excuse(key)
        if lost and not taken:
            self._run(ceilings=Ceilings(first_sync=True))

    def _adopt(self, matches: list[tuple[str, str]]) -> int:
        """How many rows are taken over."""

        def work() -> int:
            act, session = self._activation(), self.session
            destination = session.destination("")
            with drawing.scan_spool(session) as spool:
                state = session.state.view(self.org.org_id, act)
                found = adopt.draw(act, session.source, destination, state, spool, matches=matches)
            with session.state.locked(self.org.org_id, act) as held:
                adopt.store(found, held)
                drawing.record_of(session, act, held).accept()
                if self.audit.excused:
                    held.know([job.id for job in destination.listed_jobs()])
            return len(found.rows)

        taken: int = self._process().run(work)
        self.met["taken over"] += taken
        self._tell(f"state adopt: {taken} rows")
        return taken

    def _guarded(self) -> None:
        """A run that may remove so many records at most."""
        allowed, settled = self.random.randint(0, 3), self.settled
        self._tell(f"at most {allowed} records may be removed")
        before = self.audit.deletes
        self._run(ceilings=Ceilings(allow_deletes=allowed))
        if settled and self.audit.deletes - before > allowed:
            raise Broken(f"I14: {self.audit.deletes - before} records are deleted, {allowed} may be")

    def _with_another_schema(self) -> None:
        name = self.random.choice(("A__c", "B__c", "C__c"))
        how: dict[str, Any] | None = self.random.choice((None, {"access": "read"}, {"required": True}))
        self.org.app.change_schema({"objects": {"Thing__c": {"fields": {name: how}}}})
        self._tell(f"schema: {name} is {how or 'gone'}")
        self._run()
        self.org.put_schema_back()

    def _overlapping(self) -> None:
        """A run stops at a seam; another one comes, and takes over or is refused; then the first goes on."""
        takes_over = self.random.random() < 0.7
        first = self._process(self._end_of_process(stops=True))
        self._tell("a run begins, and stops")
        mapping, told = self.audit.columns, self.wall.now() - self.org.clock.now()
        stopped = Stopped(self.org.pool, first, lambda: self._work(_Warehouse(self._model)))
        with stopped:
            if not self.pinned:
                self.org.app.faults.clear()  # the other one's first login must be in the state's org
            lapsed = takes_over and self._lose_the_lock()
            if self.place.is_shared and not takes_over:
                self.wall.differ()
            run = self._run(alone=not stopped.is_waiting)
            kept_out = self._is_refused("DB501") and "being synced" in str(self.error)
            if lapsed and first.epoch and not first.leaving and kept_out:
                raise Broken("I7: the lease of a run that stopped is over, and keeps others out")
            locked = first.epoch or any(seam.endswith(".lock") for seam in first.seen[:-1])
            # By a clock that is set within the other run, the lease of the first may be over.
            step = abs(self.wall.now() - self.org.clock.now() - told)
            over = takes_over or (step > LEASE_S and not self.place.is_shared)
            if not over and stopped.is_waiting and locked and run is not None:
                raise Broken("I7: two runs at once, and both have the lock")
            self._told_of(first, stopped.wake, wakes=True)
            if self.audit.columns != mapping:  # it had read the old one: the next run sends all once more
                self.audit.delivered.clear()

    def _lose_the_lock(self) -> bool:
        """The lease of a run that stopped ends, or somebody unlocks it; whether it ended."""
        unlocks = self.random.random() < 0.3
        if unlocks:
            with suppress(StateError):  # it is in the middle of a commit
                for held in self._state().held("things"):
                    self._state().unlock(held)
                    self._tell("somebody unlocks it")
            self.org.clock.sleep(2.0)
        else:
            self.wall.draw(at_once=True)
            self.org.clock.sleep(LEASE_S)
        if self.random.random() < 0.5:
            self._edit()
        return not unlocks

    def _run_beside(self) -> None:
        """Another activation of the object, or another target of the org, runs: refused, or what could delete its
        records is, as long as nobody says that it is meant; and perhaps killed and run again."""
        other = self.beside
        other.change()
        if not other.rows:
            return
        first = not other.is_meant
        if first and (code := other.refused_as) and other.random.random() < 0.5:
            before = self.org.held()
            self._attempt_beside() if other.is_target else self._run()
            self.settled = True
            if not self._is_refused(code) or self.org.held() != before:
                raise Broken(f"I18: {code} is owed to {other.said}, and is not told")
        other.is_meant = True
        if other.random.random() < 0.3:
            self._attempt_beside(self._end_of_process(random=other.random))
        run = self._attempt_beside()
        if run is None:
            if not self.quota_gone:
                raise Broken(f"I2: a run of {other.said} without faults fails")
            return
        self.met["beside"] += 1
        other.ended({key_of(row["key"]) for row in pa.concat_tables(run.not_delivered).to_pylist()})
        self.audit.look(self._process())

    def _attempt_beside(self, end: End | None = None) -> SyncRun | None:
        other = self.beside
        source = _Warehouse(lambda: self.shape.table([row.values() for row in other.rows.values()]))
        process = self._process(end, own=other.said)
        self.error, run = None, None
        self._tell(f"{other.said}: {len(other.rows)} rows")
        try:
            run = process.run(lambda: self._sync(self._session(source, other.target), other.activation(), ANY_DELETES))
            self._tell(f"run: {run.status}, {run.plan_counts.planned} planned, {run.outcome.succeeded} succeeded")
        except Killed as killed:
            self._tell(f"killed {killed}")
        except DinmoError as error:
            self.error = error
            self._tell(f"run: {error}")
        self.audit.look(process)
        return None if run is None or run.problem else run

    def _process(self, end: End | None = None, bad: BadDisk | None = None, own: str = "things") -> Process:
        if self.place.is_shared and self.lingers is not None and self.lingers.is_over:
            self.org.clock.sleep(LEASE_S)  # of one that has perhaps not given it back
        process = Process(self.place.disk(), end, bad, seed=self.seed, own=own)

        def after_call() -> None:
            self.audit.look(process)
            self.wall.after_call()

        process.after_call = after_call
        self.lingers = process if end or bad else None
        return process

    def _run(
        self, model: _Warehouse | None = None, *, end: End | None = None, bad: BadDisk | None = None,
        strange: bool = False, alone: bool = True, ceilings: Ceilings = ANY_DELETES,
    ) -> SyncRun | None:  # fmt: skip
        process = self._process(end, bad)
        chosen = model or _Warehouse(self._model)
        work = lambda: process.run(lambda: self._work(chosen, ceilings))  # noqa: E731
        return self._told_of(process, work, strange=strange, alone=alone)

    def _told_of(
        self, process: Process, work: Callable[[], SyncRun], *, strange: bool = False, wakes: bool = False,
        alone: bool = True,
    ) -> SyncRun | None:  # fmt: skip
        """What became of a run: it ended, with a report or an error, or it was killed."""
        began, run, self.error = self.org.clock.now(), None, None
        self.settled = False
        self.family.look()
        self.family.before = self.family.held
        try:
            run = work()
        except Killed as killed:
            how = ", power cut" if process.end and process.end.power else ""
            self._tell(f"killed {killed}{how}")
            self.met[f"killed {str(killed).split(' ')[1]}"] += 1
        except DinmoError as error:
            problem, self.error = error.problems[0], error
            self._tell(f"run: {error}")
            self.met[problem.code] += 1
            if isinstance(error, CountsError):
                raise Broken(f"I5: {problem.message}") from error
            if process.hurt and not process.told_of_history and not isinstance(error, StateError):
                raise Broken(f"I12: a disk that failed is told as {problem.code}") from error
        self.seams = max(10, len(process.seen)) if not process.dead else self.seams
        self.org.app.faults.clear()  # the auditor looks undisturbed
        self.audit.look(process)
        if run is None:
            self.audit.bounded(self.org.clock.now() - began)
            return None
        if process.hurt and not process.told_of_history:
            raise Broken("I12: a disk that failed is passed over")
        if not strange and not wakes:
            self.audit.ended(run, process, self.org.clock.now() - began)
        if not strange and not wakes and alone:
            self.audit.files(self.place.files(), self.place.spools)
        self.settled = run.problem is None
        outcome = run.outcome
        counts = f"{run.plan_counts.planned} planned, {outcome.succeeded} succeeded, {outcome.rejected} rejected"
        self._tell(f"run: {run.status}, {counts}" + (f", {run.problem}" if run.problem else ""))
        self.met[str(run.status)] += 1
        self.met["given up"] += GIVEN_UP in pa.concat_tables(run.not_delivered)["code"].to_pylist()
        return run

    def _work(self, model: _Warehouse, ceilings: Ceilings = ANY_DELETES) -> SyncRun:
        """One process of `dinmo-dbt sync`, from its login on."""
        self.session = self._session(model)
        return self._sync(self.session, self._activation(), ceilings)

    def _session(self, source: _Warehouse, target: str = "dev") -> Any:
        """What a command has of the world, from its login on."""
        destination = self.org.connect(self.org.folder, self.wall, pinned=self.pinned)
        if destination.org_id != self.org.org_id:
            raise Broken("I8: the run goes to another org")
        declared = (*self.beside.declared(target), *([self.family.activation()] if self.family.made else ()))
        shared = frozenset({"dev", TARGET} if self.beside.is_meant else ())
        session = SimpleNamespace(
            destination=lambda _: destination, state=self._state(target), clock=self.wall, source=source,
            scratch=self.org.folder, target=("p", target), lanes=None, flags=SimpleNamespace(show_values=False),
            declared=SimpleNamespace(activations=declared, names=[each.name for each in declared]),
            project=SimpleNamespace(shared_orgs=(), may_share=shared, places={}),
            removals=sharing.removals(declared, lambda name: name),
            manifest=SimpleNamespace(dbt_version="1.11", adapter_type="duckdb", project_name="simulated"),
            console=SimpleNamespace(
                quiet=True, for_people=False, say=self._tell, note=lambda problem: self._tell(str(problem)),
                answer=lambda lines: self._tell("\n".join(lines)),
                problems=lambda problems: self._tell("\n".join(map(str, problems))),
            ),
        )  # fmt: skip
        session.say_left_behind = lambda act, state, is_meant: None  # a history has no other place beside it
        session.refuse_sharing = partial(Session.refuse_sharing, session)  # type: ignore[arg-type]
        return session

    def _sync(self, session: Any, act: Activation, ceilings: Ceilings = ANY_DELETES) -> SyncRun:
        run = turn._run_activation(session, act, ceilings, Trigger(), Gating(ignore=True))
        assert run is not None
        return run

    def _planned(self) -> tuple[Plan, ActivationState]:
        """What `dinmo-dbt plan` tells after the last run, and the state it has read. It writes nothing."""

        def work() -> tuple[Plan, ActivationState]:
            with drawing.scan_spool(self.session) as spool:
                act = self._activation()
                state = self.session.state.view(self.org.org_id, act)
                return drawing.draw_plan(self.session, act, state, spool, Ceilings()), state

        process = self._process()
        drawn: tuple[Plan, ActivationState] = process.run(work)
        if self.place.has_written(process):
            raise Broken("I12: a plan writes to the state")
        return drawn

    def _state(self, target: str = "dev") -> Store:
        state = self.place.store(self.wall, Marks(self.marks), target)
        state.tell = self._tell_of_history
        return state

    def _tell_of_history(self, problem: Problem) -> None:
        process = current()
        assert process is not None
        process.told_of_history = True
        self._tell(str(problem))

    def _activation(self) -> Activation:
        fields = tuple(FieldMapping(column, f"{column.upper()}__c") for column in self.audit.columns)
        fields += self.family.fields()
        more: dict[str, Any] = {"api": self.api, "keep_before_images": self.upkeep.keeps_images}
        more |= {"missing_parent": self.family.policy} if self.family.path else {}
        # Of an insert most rows change from one run to the next here, which its own guard would stop.
        most = Ceiling(percent=Decimal(100 if self.mode == "insert" else 50))
        more |= {"guards": Guards(Ceiling(rows=0), most)}
        if not self.audits:
            more["audit"] = Ceiling(rows=0)
        if self.gives_up:
            more["give_up_after"] = GIVE_UP_S
        if self.on_removed != "ignore":
            more["on_removed"] = self.on_removed
        if self.on_removed == "set":
            more["on_removed_set"] = (("C__c", CLOSED),)
        match self.mode:
            case "insert":
                more["on_change"] = "ignore" if self.audit.ignores or self.ignores_once else "insert"
                return activation("insert", fields=(FieldMapping("id", "Code__c"), *fields), **more)
            case "update":
                return activation("update", match=Match("code", "Code__c"), fields=fields, **more)
            case "delete":
                return activation("delete", match=Match("code", "Code__c"), fields=(), **more)
            case _:
                match = Match("code", "Code__c", create=True) if self.looks_up else Match("ext", "Ext__c")
                return activation("upsert", match=match, fields=fields, **more)

    def _end(self) -> None:
        """Nothing goes wrong any more: all is delivered, and then there is nothing left to do."""
        self.org.app.site.usage.clear()
        self._tell("nothing goes wrong any more")
        self.family.finish()
        for _ in range(CLEAN_RUNS_MAX):
            self.org.clock.sleep(2 * DAY_S)
            run = self._run()
            if self._is_refused("DB409"):  # so many left and came that it is asked about
                run = self._run(ceilings=replace(ANY_DELETES, allow_replaced=1000))
            if self._is_refused("DB413"):  # a key of another type is mapped, too, and no run has ended since
                run = self._take_as_they_are()
            if run is None:
                raise Broken("I2: a run without faults fails")
            told = pa.concat_tables(run.not_delivered).to_pylist()
            is_given_up = any(row["code"] == GIVEN_UP for row in told)
            if run.plan_counts.waiting and not is_given_up:
                raise Broken("I2: a row that Salesforce refused is not sent again within a day")
            if is_given_up:
                self.upkeep.ask_again()
            if any(not self.is_over(row) for row in told):
                continue
            drawn, state = self._planned()
            if not drawn.has_changes:
                break
        else:
            raise Broken("I15: with nothing changed there are rows to send")
        named = {key_of(row["key"]) for row in pa.concat_tables(run.not_delivered).to_pylist()}
        self.audit.all_there("I2: all runs are over", named)
        known = [{**row, "key": key_of(row["key"])} for row in pa.concat_tables(state.snapshot.tables()).to_pylist()]
        self.audit.snapshot(known, named)
        whole = {row["key"] for row in known if not row["flags"] & Flag.UNFINISHED}
        self._look_after(whole - named)
        self.upkeep.revert()
        self.audit.contents(self.place.written())

    def is_over(self, row: dict[str, Any]) -> bool:
        """Nothing more can become of that row by itself."""
        return self.family.is_over(key_of(row["key"]), row)

    def warehouse(self, rows: Callable[[], pa.Table]) -> _Warehouse:
        return _Warehouse(rows)

    # What people do to keep it in order

    def _look_after(self, known: set[str]) -> None:
        """`verify --repair` after others edited and deleted records: it finds all that they did and nothing else, and
        the next run mends it."""
        draw = random.Random(f"{self.seed} upkeep")
        ours = [(id, key) for id, (key, *_) in self.audit.seen.items() if id not in self.audit.removed]
        ours = [each for each in ours if each[1] in known and each[1] in self.audit.rows]
        if self.mode not in ("upsert", "update") or self.quota_gone or not ours or draw.random() < 0.75:
            return
        touched = dict(draw.sample(ours, k=draw.randint(1, min(3, len(ours)))))
        for record_id, key in touched.items():
            if draw.random() < 0.6:
                self.org.edit(record_id, **draw.choice(({"A__c": "theirs"}, {"A__c": None})))
                self._tell(f"others: edit {key}")
            else:
                self.family.let_go(record_id)
                self.org.delete(record_id)
                self.audit.removed.add(record_id)
                self._tell(f"others: delete {key}")
        checked = verifying._Checked(self._activation())
        found = self._process().run(lambda: checked._compare(self.session, show_values=False))
        told = set(map(key_of, (*found.drifted["key"].to_pylist(), *found.gone["key"].to_pylist())))
        self._tell(f"verify: {len(told)} drifted or gone")
        self.met["verified"] += 1
        if missed := set(touched.values()) - told - self.audit.excused.keys():
            raise Broken(f"I17: others changed {min(missed)}, and verify does not tell")
        if more := told - set(touched.values()) - self.audit.excused.keys():
            raise Broken(f"I17: verify tells of {min(more)}, which nobody changed")
        checked.found = found
        self._process().run(lambda: checked.mark(self.session))
        for key in told:
            self.audit.excused.pop(key, None)
            self.audit.delivered.pop(key, None)
            self.audit.rebased.discard(key)
        if told and self._run() is None:
            raise Broken("I17: the run that repairs fails")
        self.met["repaired"] += len(told)
        again = self._process().run(lambda: checked._compare(self.session, show_values=False))
        left = set(map(key_of, (*again.drifted["key"].to_pylist(), *again.gone["key"].to_pylist()))) & told
        if left and self.mode == "upsert":
            raise Broken(f"I17: {min(left)} is repaired, and has drifted")
