"""A history drawn from a seed: runs of one activation while its model changes, calls fail and processes die.

Each row's values name the version of it, so what the org holds tells which version was delivered. The auditor's model
is that alone: it knows nothing of snapshots, journals or jobs.
"""

from __future__ import annotations

import random
import shutil
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

from memory_org import Killed, Match, Model, World, activation, fates

from dinmo_dbt.activation import Activation
from dinmo_dbt.errors import DinmoError
from dinmo_dbt.sync import Status, SyncRun

from .org import Death, SimulatedOrg

FAULTS = (
    "request_lost", "reply_lost", "request_repeated", "slow", "hang", "truncated", "content_length", "bad_gzip",
    "invalid_utf8", "bom", "missing_items", "extra_items", "status", "html_page", "session_expired", "job_failed",
    "job_aborted", "job_deleted", "job_stuck", "batch_retried", "results_expired", "results_shuffled",
    "results_cut", "results_cut_bytes", "results_repeated", "results_missing", "results_error_newline",
)  # fmt: skip
CALLS = ("", "", "ingest.*", "ingest.close", "ingest.results")
KINDS = ("upsert by bulk", "upsert by collections", "insert", "insert", "update by bulk", "update by collections")
SLOW = {"slow", "hang", "job_stuck"}
DAY_S, RUN_MAX_S = 86_400.0, 3_600.0
CLEAN_RUNS_MAX = 8
SEAMS_MAX = 60
BATCH_ROWS = 8


class Broken(AssertionError):
    """An invariant does not hold; the message names it."""


@dataclass
class History:
    """One seed's life. `told` is what happened, a line each."""

    org: SimulatedOrg
    seed: int
    told: list[str] = field(default_factory=list)
    met: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.kind = self.random.choice(KINDS)
        self.mode, _, way = self.kind.partition(" by ")
        self.activation = _activation(self.mode, way)
        self.rows: dict[str, int] = {}  # the model: key and version of its row
        self.versions: dict[str, int] = {}  # the newest version ever made of a key
        self.seen: dict[str, int] = {}  # the newest version ever met in the org
        self.slow = False  # a job or call was made to last, in this run or one before
        self.doubtful: set[tuple[str, int]] = set()  # inserts whose outcome the run called unknown

    def play(self) -> None:
        """The whole history. Raises Broken where an invariant does not hold."""
        self.org.new()
        self.folder = self.org.folder / f"state-{self.seed}"
        shutil.rmtree(self.folder, ignore_errors=True)
        self._edit(self.random.randint(3, 30))
        if self.mode == "update":
            self.org.create([{"Name": "theirs", "Code__c": key} for key in self.rows])
        self.world = World(self.folder, None, self.org.clock)  # type: ignore[arg-type]
        for _ in range(self.random.randint(1, 5)):
            self._faults()
            self._run(dying=self.random.random() < 0.5)
            self._check_org()
            if self.random.random() < 0.7:
                self._edit(self.random.randint(0, 6))
        self._end()
        shutil.rmtree(self.folder, ignore_errors=True)

    # What happens

    def _edit(self, more: int) -> None:
        """New rows, new versions of old ones; without a record of theirs, updates have none to meet."""
        grown = more if self.mode != "update" or not self.rows else 0
        for number in range(len(self.versions), len(self.versions) + grown):
            self.versions[f"k{number}"] = self.rows[f"k{number}"] = 0
        for key in self.random.sample(sorted(self.rows), k=self.random.randint(0, len(self.rows))):
            self.versions[key] += 1
            self.rows[key] = self.versions[key]
        self.told.append(f"model: {len(self.rows)} rows, newest version {max(self.rows.values(), default=0)}")

    def _faults(self) -> None:
        """A random part of the faults, at a random rate."""
        kinds = tuple(self.random.sample(FAULTS, k=self.random.randint(0, 3)))
        rate, call = 10 ** self.random.uniform(-1.5, -0.3), self.random.choice(CALLS)
        if kinds:
            self.org.app.faults.chaos(self.random.randrange(1 << 30), rate, kinds, call)
        if self.random.random() < 0.2:
            share = self.random.choice((0.1, 0.5))
            self.org.app.faults.arm_json({"kind": "rows", "preset": "lock", "share": share, "seed": self.seed})
        self.slow |= not SLOW.isdisjoint(kinds)
        self.told.append(f"faults: {', '.join(kinds) or 'none'} at {rate:.2f} of {call or 'all calls'}")

    def _run(self, *, dying: bool) -> SyncRun | None:
        """One process: it ends by itself, by an error, or at a seam."""
        at = int(self.random.expovariate(3 / SEAMS_MAX)) if dying else -1
        death = Death(self.folder, at, after=self.random.random() < 0.5)
        run, began = None, self.org.clock.now()
        try:
            with self.org.process(death) as destination:
                self.world.org = destination  # type: ignore[assignment]
                run = self.world.sync(self.activation, self._model(), trip=death)
            if death.dead:
                raise Killed("unwound")
        except Killed as killed:
            run = None
            death.bury()
            self._tell(f"killed {'after' if death.after else 'before'} {killed}", "killed")
        except DinmoError as error:
            self._tell(f"run: {error.problems[0].code} {error.problems[0].message}", error.problems[0].code)
        self.org.app.faults.clear()  # the auditor looks undisturbed
        if not self.slow and self.org.clock.now() - began > RUN_MAX_S:
            raise Broken(f"I9: a run took {self.org.clock.now() - began:,.0f} s and nothing was slow")
        if run is not None:
            self._check_run(run)
        return run

    def _model(self) -> Model:
        rows: list[dict[str, object]] = [
            {"id": key, "ext": key, "code": key, "a": f"{key} v{version}", "b": "b" * (version % 3) or None}
            for key, version in self.rows.items()
        ]
        return replace(Model.of(rows), batch_rows=BATCH_ROWS)

    # What must hold

    def _check_run(self, run: SyncRun) -> None:
        run.check_counts()
        left_out = fates(run)  # each row at most once
        unknown = {key for key, told in left_out.items() if _may_be_there(*told)}
        self.doubtful |= {(key, self.rows[key]) for key in unknown}
        counts = f"{run.plan_counts.planned} planned, {run.outcome.succeeded} succeeded, {len(left_out)} left out"
        self._tell(f"run: {run.status}, {counts}" + (f", {run.problem.code}" if run.problem else ""), str(run.status))
        if run.status is Status.SUCCESS and not left_out:
            self._must_be_delivered("I6: the run says success")

    def _check_org(self) -> None:
        """At every instant: no record twice, none of a version that was never made, none that went back."""
        copies = Counter(self._identity(record) for record in self.org.held() if record["A__c"])
        double = [each for each, count in copies.items() if count > 1]
        if double:
            raise Broken(f"I1: {double[0]} is in the org {copies[double[0]]} times")
        if self.mode == "insert":
            return
        for key, version in copies:
            if version > self.versions[key]:
                raise Broken(f"I3: {key} has version {version}, which was never made")
            if version < self.seen.get(key, 0):
                raise Broken(f"I3: {key} went back from version {self.seen[key]} to {version}")
            self.seen[key] = version

    def _identity(self, record: dict[str, Any]) -> tuple[str, int]:
        key, _, version = record["A__c"].partition(" v")
        if record["B__c"] != ("b" * (int(version) % 3) or None):
            raise Broken(f"I3: {key} is made of two versions")
        return key, int(version)

    def _must_be_delivered(self, why: str) -> None:
        held = {self._identity(record) for record in self.org.held() if record["A__c"]}
        missing = [row for row in self.rows.items() if row not in held and row not in self.doubtful]
        if missing:
            raise Broken(f"{why}, and {missing[0]} is not in the org")

    def _end(self) -> None:
        """Nothing goes wrong any more: all is delivered, and then there is nothing left to do."""
        self.org.app.faults.clear()
        self.org.app.site.usage.clear()
        for _ in range(CLEAN_RUNS_MAX):
            self.org.clock.sleep(2 * DAY_S)
            run = self._run(dying=False)
            if run is None:
                raise Broken("I2: a run without faults fails")
            self._check_org()
            if not run.plan_counts.planned and all(_may_be_there(*told) for told in fates(run).values()):
                self._must_be_delivered("I2: all runs are over")
                return
        raise Broken("I15: a run with nothing changed sends rows")

    def _tell(self, line: str, met: str) -> None:
        self.told.append(line)
        self.met[met] += 1


def _may_be_there(fate: str, code: str | None) -> bool:
    """An insert whose outcome can't be learned: said so, and never sent again by itself (promise 3)."""
    return fate == "unknown" or code == "OUTCOME_UNKNOWN"


def _activation(mode: str, way: str) -> Activation:
    from dinmo_dbt.activation import FieldMapping

    fields = (FieldMapping("a", "A__c"), FieldMapping("b", "B__c"))
    if mode == "insert":
        return activation("insert", fields=(FieldMapping("code", "Code__c"), *fields))
    if mode == "update":
        return activation("update", match=Match("code", "Code__c"), fields=fields, api=way)
    return activation("upsert", fields=fields, api=way)
