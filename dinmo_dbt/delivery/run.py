"""One run of a sync: how it stands, what became of its rows, and how far it is."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

import pyarrow as pa
import pyarrow.compute as pc

from dinmo_dbt.codes import COUNTS_OF_RUN
from dinmo_dbt.destination import Fate, Job
from dinmo_dbt.errors import CountsError, Problem
from dinmo_dbt.plan.plan import Counts
from dinmo_dbt.rows.snapshot import OUTCOME_UNKNOWN
from dinmo_dbt.watch.history import JOB_RUNNING

# A job still running after a day is not waited for: its id is journalled and the next run asks again.
POLL_MAX_S = 24 * 3600.0


class Progress(Protocol):
    """What a person may watch: rows, in order, of one activation."""

    def sent(self, rows: int) -> None: ...

    def processed(self, job: Job, batch_rows: int) -> None:
        """A running job's counters."""

    def settled(self, succeeded: int, not_delivered: int) -> None: ...


class Status(StrEnum):
    SUCCESS = "success"
    REJECTED = "rejected"  # done; some rows were rejected or invalid, or wait since an earlier run for that
    UNKNOWN = "unknown"  # the outcome of some rows, of this run or an earlier one, can't be learned
    FAILED = "failed"
    REFUSED = "refused"
    INTERRUPTED = "interrupted"  # by a signal; the next run goes on
    ON_ITS_WAY = "on_its_way"  # a job goes on without us; the next run asks for it


@dataclass(frozen=True)
class Outcome:
    """What became of the rows that were sent. Of `succeeded`, `created` made a new record, and `removed` are keys that
    left the segment, whose records were deleted or set."""

    succeeded: int = 0
    rejected: int = 0
    held: int = 0
    unknown: int = 0
    created: int = 0
    removed: int = 0

    def __add__(self, other: Outcome) -> Outcome:
        return Outcome(
            self.succeeded + other.succeeded,
            self.rejected + other.rejected,
            self.held + other.held,
            self.unknown + other.unknown,
            self.created + other.created,
            self.removed + other.removed,
        )

    @property
    def rows(self) -> int:
        return self.succeeded + self.rejected + self.held + self.unknown


@dataclass(frozen=True)
class Audited:
    """What a look at a sample of rows found after the run, value by value (`audit`): of the `compared`, how many were
    taken for unchanged and did change (`missed`); were edited or deleted in Salesforce since (`drifted`), and of these
    which number was `deleted`; were just acknowledged, and hold something else already (`rewritten`). `fields`: those
    in which records differ. `unread`: rows that were to be compared with Salesforce too, and whose record it did not
    give. `left_out`: why nothing was compared with Salesforce, '' where it was."""

    compared: int = 0
    missed: int = 0
    drifted: int = 0
    deleted: int = 0
    rewritten: int = 0
    fields: tuple[str, ...] = ()
    unread: int = 0
    left_out: str = ""


# Rows that Salesforce acknowledged, drawn at random: those with the smallest `chance` are kept.
SAMPLE = pa.schema([("key", pa.utf8()), ("kh", pa.uint64()), ("record_id", pa.utf8()), ("chance", pa.float64())])


@dataclass
class SyncRun:
    """One execution of one activation's plan. `sample` grows to `sampling` rows of those that were delivered."""

    run_id: str
    started: float
    began: float = 0.0  # when it started, by `Clock.monotonic`
    plan_counts: Counts = field(default_factory=Counts)
    outcome: Outcome = field(default_factory=Outcome)
    recovered: Outcome = field(default_factory=Outcome)  # rows of jobs that an earlier run left behind
    recovering: int = 0  # how many rows those jobs had
    jobs: list[str] = field(default_factory=list)
    problem: Problem | None = None
    interrupted: bool = False
    on_its_way: bool = False
    # For how long a job is waited for that does not move; one that an earlier run left behind, for `settling_s`.
    patience_s: float = POLL_MAX_S
    settling_s: float = POLL_MAX_S
    not_delivered: list[pa.Table] = field(default_factory=list)  # each row once, with its last fate
    sampling: int = 0
    sample: pa.Table = field(default_factory=SAMPLE.empty_table)
    audited: Audited | None = None

    @property
    def on_their_way(self) -> int:
        """Rows in jobs that go on without us."""
        return sum(pc.sum(pc.equal(table["code"], JOB_RUNNING)).as_py() or 0 for table in self.not_delivered)

    @property
    def status(self) -> Status:
        if self.interrupted:
            return Status.INTERRUPTED
        if self.on_its_way:
            return Status.ON_ITS_WAY
        if self.problem:
            return Status.FAILED
        # Of the rows that a dead run's jobs refused, those that were delivered since are not here any more.
        fates, codes = (
            {each for table in self.not_delivered for each in pc.unique(table[name]).to_pylist()}
            for name in ("fate", "code")
        )
        if self.outcome.unknown or self.recovered.unknown or OUTCOME_UNKNOWN in codes:
            return Status.UNKNOWN
        refused = fates & {Fate.REJECTED.value, Fate.INVALID.value} or self.plan_counts.waiting
        return Status.REJECTED if refused else Status.SUCCESS

    def check_counts(self) -> None:
        """Promise 1, on every run."""
        read, sent, recovered = self.plan_counts, self.outcome.rows, self.recovered.rows
        if not read.add_up or read.sending != sent or self.recovering != recovered:
            earlier = f"; of {self.recovering} rows of an earlier run {recovered}" if self.recovering else ""
            raise CountsError(
                COUNTS_OF_RUN,
                f"the counts do not add up: read {read.read}, planned {read.sending}, accounted for {sent}{earlier}",
                hint="nothing more is done; please report this with the output of dinmo-dbt history --json",
            )
