"""Execute a plan: the only way anything is written to Salesforce. The journal is told before each act.

The commit point of a Bulk API 2.0 job is its UploadComplete. Spool and intent come before the job, the job's id before
its data, and after the commit point the job is only asked, never sent again. What a dead run left is settled before
the next change set is drawn, so no row is ever on its way twice.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dinmo_dbt.delivery.images import image_of
from dinmo_dbt.delivery.jobs import jobs, with_parents
from dinmo_dbt.delivery.passing import ROWS_MAX as PASSING_ROWS_MAX
from dinmo_dbt.delivery.passing import LettingGo, letting_go, may_pass
from dinmo_dbt.destination import RESULTS, Api, Batch, Destination, Fate, Job, Operation, Remedy, Verdict
from dinmo_dbt.errors import (
    CountsError,
    DestinationError,
    Interrupted,
    NotApplied,
    OutcomeUnknown,
    Problem,
    Refused,
    StillRunning,
    TooLarge,
)
from dinmo_dbt.plan.guards import Counted, Day
from dinmo_dbt.plan.parents import PARENT_MISSING
from dinmo_dbt.plan.plan import LEFT_OUT, Counts, Plan, payload_batch
from dinmo_dbt.rows import values
from dinmo_dbt.rows.changes import Flag, keys_refused
from dinmo_dbt.text.redaction import of_job, without_values
from dinmo_dbt.watch.history import JOB_RUNNING

# A job still running after a day is not waited for: its id is journalled and the next run asks again.
POLL_MAX_S = 24 * 3600.0
# The first looks at a job follow each other closely; of one that lasts, a look is soon enough a twentieth of its age
# later: each counts against the org's daily calls.
POLL_FIRST_S, POLL_SOON_S, POLL_AGE_SHARE, POLL_LONGEST_S = 0.2, 5.0, 0.05, 60.0
# Attempts to bring one batch to its commit point, and one collections call to a whole reply.
ATTEMPTS_MAX = 3
RETRY_PAUSE_S = 1.0
COLLECTIONS_CALL_ROWS = 200
_TOO_LARGE = ("REQUEST_ENTITY_TOO_LARGE", "the row alone is refused for its size")

_PARENT_LEFT = (PARENT_MISSING, "the row that makes its parent was not delivered")

# Of a row that left the segment, where nothing says whether its record was deleted or set.
_DOUBTFUL = ("REMOVAL_DOUBTFUL", "no reply says whether this was done; the next run asks Salesforce first")

# Rows refused for a passing reason (locks) are sent again after about so long, in twice as many jobs each time; what
# then still waits is the next run's.
AGAIN_PAUSES_S = (5.0, 20.0, 60.0)
AGAIN_JITTER = 0.5  # a pause is drawn from half to one and a half of it, so that two loaders fall out of step
AGAIN_ROWS_MIN = 200  # one chunk of a job: in fewer rows none waits for another chunk
# Rows whose transaction was too much for a trigger or flow are sent again at once, so many in a job or call.
SMALLER_ROWS = (100, 50, 25, 12)
# Of the rows kept for that, their payloads are in memory; and each job costs about ten API calls.
AGAIN_ROWS_MAX = 200_000
_MERGED_BYTES_MAX = 16 << 20  # in Arrow; as CSV well under what a job takes
SMALLER_BATCHES_MAX = 50

# Salesforce's answers for a record id that no longer leads to a record.
_GONE = ("ENTITY_IS_DELETED", "INVALID_CROSS_REFERENCE_KEY")
_GONE_ASKED_MAX = 2_000  # ten calls


class BatchState(StrEnum):
    """Where a journalled batch stands."""

    PLANNED = "planned"  # spooled; nothing sent
    OPENED = "opened"  # the job exists; nothing is processed before it is closed
    CLOSING = "closing"  # UploadComplete is being asked for, or was
    CLOSED = "closed"  # the job is Salesforce's now
    SENDING = "sending"  # collections calls are being made
    SETTLED = "settled"
    ABANDONED = "abandoned"  # nothing of it was written, or it can be sent again without harm


_NEXT: dict[BatchState, frozenset[BatchState]] = {
    BatchState.PLANNED: frozenset({BatchState.OPENED, BatchState.SENDING, BatchState.ABANDONED}),
    BatchState.OPENED: frozenset({BatchState.CLOSING, BatchState.ABANDONED}),
    # From CLOSING on only the job's own results may end the batch: to abandon it would be to send it again.
    BatchState.CLOSING: frozenset({BatchState.CLOSED, BatchState.SETTLED}),
    BatchState.CLOSED: frozenset({BatchState.SETTLED}),
    BatchState.SENDING: frozenset({BatchState.SETTLED, BatchState.ABANDONED}),
    BatchState.SETTLED: frozenset(),
    BatchState.ABANDONED: frozenset(),
}


def check_transition(before: BatchState, after: BatchState) -> None:
    """The life of a batch goes one way; anything else is a defect of ours."""
    if after not in _NEXT[before]:
        raise AssertionError(f"a {before} batch can't become {after}")


@dataclass(frozen=True, slots=True)
class Journalled:
    """A batch as the journal knows it; its rows are in its spool."""

    id: str
    run_id: str
    state: BatchState
    operation: Operation
    object: str
    api: Api
    rows: int
    job_id: str | None


@dataclass(frozen=True)
class Settlement:
    """What Salesforce said of one batch, as it moves the state: one transaction.

    `snapshot`: kh, ck, key, record_id, flags, op (put | forget) of acknowledged rows, of inserts whose outcome can't be
    learned, and of records that are gone. `resolved`: kh and key of rows that no longer wait. `waiting`: rejected
    rows: kh, key, ck, fate, code, message, fields, transient, described (`Plan.described` when they were sent, '' where
    that is not known). Rows that Salesforce did not process need no note: they are in the next change set as they were
    in this one; nor do rows that are sent again in this run, which the settlement leaves out.
    """

    batch_id: str
    snapshot: pa.Table
    resolved: pa.Table
    waiting: pa.Table
    succeeded: int
    rejected: int
    held: int
    unknown: int
    not_delivered: pa.Table  # LEFT_OUT rows
    day: Day = field(default_factory=Day)  # of the rows that were acknowledged, or may have been written


class Journal(Protocol):
    """The durable record of one activation in one org, held by one writer.

    Each method has reached the disk when it returns. A process may die between any two of them. A writer that was
    paused for so long that another run took over is refused by every method that writes (StateError DB503), with
    nothing recorded.
    """

    def hold(self) -> None:
        """We are still the writer: says so in time, and raises StateError DB503 once another run has taken over."""

    def begin(self, plan: Plan) -> None:
        """Refuse a stale plan (StateError); move baselines and leavers, which nothing needs to be sent for."""

    def amend(self, rows: pa.Table) -> None:
        """Move the snapshot by these rows and nothing else: kh, ck, key, record_id, flags and op."""

    def keep_image(self, run_id: str, image: pa.Table) -> None:
        """Keep the before-images of one more batch of the run (`images`); may be repeated."""

    def note_created(self, batch_id: str, created: pa.Table) -> None:
        """Complete the images of the run that sent the batch, if it keeps any: key and record_id of new records."""

    def planned(self, batch: Batch, run_id: str) -> None:
        """Spool the rows and note the intent."""

    def advance(self, batch_id: str, state: BatchState, job_id: str | None = None) -> None: ...

    def settle(self, settlement: Settlement) -> None:
        """Snapshot and results in one transaction; then the spool goes."""

    def abandon(self, batch_id: str) -> None: ...

    def open_batches(self) -> Sequence[Journalled]:
        """Batches of earlier runs that are neither settled nor abandoned, oldest first."""

    def batch(self, journalled: Journalled) -> Batch:
        """The batch with its rows, from the spool."""

    def finish(self, *, complete: bool) -> None:
        """Forget waits that no longer apply; with `complete` (no known row of the segment is still hashed under an
        older mapping), older mappings too; compact when due."""


class Clock(Protocol):
    def now(self) -> float:
        """Seconds since the epoch, UTC. Somebody may set that clock: for due moments and for what people read."""

    def monotonic(self) -> float:
        """Seconds that only ever pass: how long something takes, and how long to wait."""

    def sleep(self, seconds: float) -> None:
        """Raises Interrupted, at once, when the user asked the run to stop; of 0 seconds it only asks."""


class Progress(Protocol):
    """What a person may watch: rows, in order, of one activation."""

    def sent(self, rows: int) -> None: ...

    def processed(self, job: Job, batch_rows: int) -> None:
        """A running job's counters."""

    def settled(self, succeeded: int, not_delivered: int) -> None: ...


class Status(StrEnum):
    SUCCESS = "success"
    REJECTED = "rejected"  # done; some rows were rejected or invalid, or wait since an earlier run for that
    UNKNOWN = "unknown"  # the outcome of some rows can't be learned
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
        if self.outcome.unknown or self.recovered.unknown:
            return Status.UNKNOWN
        # Of the rows that a dead run's jobs refused, those that were delivered since are not here any more.
        fates = {fate for table in self.not_delivered for fate in pc.unique(table["fate"]).to_pylist()}
        refused = fates & {Fate.REJECTED.value, Fate.INVALID.value} or self.plan_counts.waiting
        return Status.REJECTED if refused else Status.SUCCESS

    def check_counts(self) -> None:
        """Promise 1, on every run."""
        read, sent, recovered = self.plan_counts, self.outcome.rows, self.recovered.rows
        if not read.add_up or read.sending != sent or self.recovering != recovered:
            earlier = f"; of {self.recovering} rows of an earlier run {recovered}" if self.recovering else ""
            raise CountsError(
                "DB490",
                f"the counts do not add up: read {read.read}, planned {read.sending}, accounted for {sent}{earlier}",
                hint="nothing more is done; please report this with the output of dinmo-dbt history --json",
            )


def execute(
    plan: Plan,
    destination: Destination,
    journal: Journal,
    clock: Clock,
    *,
    run: SyncRun,
    progress: Progress,
) -> SyncRun:
    """Send the plan's batches one after the other; every row gets its fate. Raises Refused for a refused plan.

    A failure of Salesforce or the network stops the run, as `Interrupted` does: the rest of the rows are `held`, and
    the run says why. Rows refused for a passing reason are sent again before the run ends, within bounds.
    """
    if plan.refusal and plan.changes.refusals:
        raise keys_refused(plan.refusal, plan.mapping, plan.changes.refusals)
    if plan.refusal:
        raise Refused.of(plan.refusal)
    assert not plan.awaits_parents, "a plan with parents on their way is for showing"
    run.plan_counts = plan.counts
    run.not_delivered = [*_untold(run, plan.left_out["key"]), plan.left_out]
    journal.begin(plan)
    batches = (payload_batch(plan, planned, "", plan.batch_rows(planned)) for planned in plan.batches)
    deliver(
        batches,
        destination,
        journal,
        clock,
        run=run,
        progress=progress,
        keeps_images=plan.activation.keep_before_images,
        described=plan.described,
    )
    if not run.interrupted:  # else the state is left as a kill would leave it
        delivered = run.problem is None and run.outcome.succeeded == plan.counts.sending
        journal.finish(complete=delivered and plan.known_left_out == 0)
    run.check_counts()
    return run


def deliver(
    batches: Iterable[Batch],
    destination: Destination,
    journal: Journal,
    clock: Clock,
    *,
    run: SyncRun,
    progress: Progress,
    keeps_images: bool,
    described: str = "",
) -> None:
    """Send batches one after the other, each settled before the next, and what may pass then once more; `run` gets
    what became of their rows. `described` is noted with those that wait (`Plan.described`)."""
    delivery = _Delivery(destination, journal, clock, run, progress, keeps_images, described, remedies=set(_IN_RUN))
    for batch in batches:
        delivery.deliver(batch)
    delivery.send_again()
    run.problem, run.outcome = delivery.problem, delivery.outcome
    told = [*(table["key"] for table in delivery.not_delivered), *delivery.delivered]
    run.not_delivered = [*_untold(run, *told), *delivery.not_delivered]


def recover(destination: Destination, journal: Journal, clock: Clock, *, run: SyncRun, progress: Progress) -> None:
    """Settle what a dead run left, before anything is read. A job that was never to be closed is aborted and let go.
    StillRunning in the end where a job is not done: nothing may be drawn, or its rows would be on their way twice.

    A collections batch that may or may not have arrived is let go too: its rows are sent again, which does no harm for
    an upsert, update or delete, even those that are back at what was acknowledged before. Not so the removal of a row
    that left the segment: what became of that is asked for.
    """
    delivery, running = _Delivery(destination, journal, clock, run, progress), None
    for journalled in journal.open_batches():
        if journalled.job_id is None or journalled.state is BatchState.OPENED:
            if journalled.job_id is not None:
                # UploadComplete was never asked for: nothing was processed, whatever has become of the job since.
                destination.abort(journalled.job_id)
            if journalled.state is BatchState.SENDING and (batch := journal.batch(journalled)).leavers:
                delivery.settle(batch, _all(batch, Fate.UNKNOWN, *_DOUBTFUL))
                run.recovering += journalled.rows
                run.recovered = delivery.outcome
                continue
            if journalled.state is BatchState.SENDING:
                delivery.doubt(batch)
            journal.abandon(journalled.id)
            continue
        job = destination.job(journalled.job_id)
        if job is not None and job.is_open:
            destination.abort(job.id)
        try:
            job = delivery.poll(journalled.job_id, journalled.rows, run.settling_s)
        except StillRunning as error:
            delivery.stop(error)
            run.problem, running = delivery.problem, error
            run.not_delivered.append(_running(journal.batch(journalled), journalled.job_id))
            continue
        delivery.settle_job(journal.batch(journalled), journalled.job_id, job)
        run.jobs.append(journalled.job_id)
        run.recovering += journalled.rows
        run.recovered = delivery.outcome
        # What was not processed is this run's to send; the rest is said here, unless this run has a later word on it.
        found = delivery.not_delivered[-1]
        run.not_delivered.append(found.filter(pc.not_equal(found["fate"], Fate.HELD.value)))
    if running is not None:
        raise running


def _running(batch: Batch, job_id: str) -> pa.Table:
    """The rows of a job that is not done, as a run tells of them."""
    return _left_out(batch, batch.rows, _all(batch, Fate.HELD, *_goes_on(job_id)))


def _goes_on(job_id: str) -> tuple[str, str]:
    return JOB_RUNNING, f"job {job_id} was sent; the next run reads its results"


def _untold(run: SyncRun, *keys: pa.ChunkedArray) -> list[pa.Table]:
    """Rows of dead runs' jobs without those that this run has a word on: each is reported once, with its last fate."""
    if not run.recovering:
        return run.not_delivered
    told = pa.concat_arrays([pa.array([], pa.utf8()), *(chunk for column in keys for chunk in column.chunks)])
    return [table.filter(pc.invert(pc.is_in(table["key"], value_set=told))) for table in run.not_delivered]


_IN_RUN = (Remedy.AGAIN, Remedy.SMALLER, Remedy.LET_GO)


@dataclass(frozen=True)
class _SetAside:
    """Rows of one batch that were refused, or not processed, and are to be sent again in this run; their results."""

    remedy: Remedy
    batch: Batch
    results: pa.Table


@dataclass
class _Delivery:
    destination: Destination
    journal: Journal
    clock: Clock
    run: SyncRun
    progress: Progress
    keeps_images: bool = False
    described: str = ""
    remedies: set[Remedy] = field(default_factory=set)  # which refused rows are still sent again in this run
    aside: list[_SetAside] = field(default_factory=list)
    outcome: Outcome = field(default_factory=Outcome)
    problem: Problem | None = None
    not_delivered: list[pa.Table] = field(default_factory=list)
    delivered: list[pa.ChunkedArray] = field(default_factory=list)  # keys, where dead runs' rows are reported too
    unfinished: list[str] = field(default_factory=list)  # keys of foregoing rows that did not arrive
    made: int = 0
    job_rows_max: int = AGAIN_ROWS_MAX  # fewer once a job's data was refused for its size

    def deliver(self, batch: Batch) -> None:
        """Send the batch for the first time."""
        if self.unfinished:  # what went before it, without its parents, and did not arrive is told already
            rows = pc.invert(pc.is_in(batch.rows["key"], value_set=pa.array(self.unfinished, pa.utf8())))
            batch = replace(batch, rows=batch.rows.filter(rows))
        if batch.awaits and self.problem is None:
            batch = self.with_parents(batch)
        for part in jobs(batch, self.destination) if len(batch.rows) else ():
            if self.keeps_images and self.problem is None:
                self.keep_image(part)
            self.send(part)

    def with_parents(self, batch: Batch) -> Batch:
        """The batch without the rows whose parents did not arrive: those are held."""
        try:
            batch, missing = with_parents(batch, self.destination)
        except DestinationError as error:
            self.stop(error)
            return batch
        if missing.any():
            self.hold(replace(batch, rows=batch.rows.filter(pa.array(missing))), *_PARENT_LEFT)
        return replace(batch, rows=batch.rows.filter(pa.array(~missing)))

    def send(self, batch: Batch, call_rows: int = COLLECTIONS_CALL_ROWS) -> None:
        """Send the batch, or hold it once the run has a problem."""
        try:
            if self.problem is None:
                self.clock.sleep(0)
                self.journal.hold()
                if batch.api is Api.BULK and len(batch.rows) > self.job_rows_max:
                    return self.send_parts(batch, self.job_rows_max)
                return self.by_job(batch) if batch.api is Api.BULK else self.by_collections(batch, call_rows)
        except Interrupted as stop:
            # What had reached its commit point is told where it did; of this nothing was processed.
            self.stop(stop)
        return self.hold(batch)

    def stop(self, reason: DestinationError | Interrupted) -> None:
        """No more is sent."""
        if isinstance(reason, DestinationError):
            self.problem = reason.problems[0]
            self.run.on_its_way = self.run.on_its_way or isinstance(reason, StillRunning)
            return
        self.run.interrupted = True
        self.problem = Problem("DB690", "the run was asked to stop", hint="the next run continues where this one ended")

    def keep_image(self, batch: Batch) -> None:
        """What Salesforce holds goes to disk before it is overwritten; a batch without its image is not sent."""
        try:
            image = image_of(batch, self.destination, self.run.run_id)
        except (DestinationError, Interrupted) as error:
            self.stop(error)
        else:
            self.journal.keep_image(self.run.run_id, image)

    # Bulk API 2.0

    def by_job(self, batch: Batch) -> None:
        """Bring the batch to its commit point, wait for the job, settle."""
        for attempt in range(ATTEMPTS_MAX):
            attempted = replace(batch, id=self.new_id())
            self.journal.planned(attempted, self.run.run_id)
            try:
                job_id = self.upload(attempted)
            except DestinationError as error:
                # UploadComplete was not asked for, so nothing can have been processed.
                self.journal.abandon(attempted.id)
                if isinstance(error, TooLarge):
                    return self.in_halves(batch)
                again = isinstance(error, NotApplied | OutcomeUnknown) and attempt < ATTEMPTS_MAX - 1
                if not again:
                    self.problem = error.problems[0]
                    return self.hold(batch)
                self.clock.sleep(RETRY_PAUSE_S * 2**attempt)
            else:
                self.run.jobs.append(job_id)
                return self.commit(attempted, job_id)
        return None

    def in_halves(self, batch: Batch) -> None:
        """Send rows whose data was refused for its size in smaller jobs, as all that follow; one alone is rejected."""
        if len(batch.rows) > 1:
            self.job_rows_max = max(1, len(batch.rows) // 2)
            return self.send_parts(batch, self.job_rows_max)
        batch = replace(batch, id=self.new_id())
        self.journal.planned(batch, self.run.run_id)
        self.journal.advance(batch.id, BatchState.SENDING)
        self.settle(batch, _all(batch, Fate.REJECTED, *_TOO_LARGE))
        return None

    def upload(self, batch: Batch) -> str:
        """Create a job and upload its data: everything before the commit point."""
        job_id = self.destination.create_job(batch)
        self.journal.advance(batch.id, BatchState.OPENED, job_id)
        try:
            self.destination.upload(job_id, batch)
        except DestinationError:
            self.fence(job_id)
            raise
        return job_id

    def commit(self, batch: Batch, job_id: str) -> None:
        """UploadComplete, then wait and settle. From here on the job is only asked, never sent again."""
        self.journal.advance(batch.id, BatchState.CLOSING)
        try:
            self.close(job_id)
            self.journal.advance(batch.id, BatchState.CLOSED)
            self.progress.sent(len(batch.rows))
            self.settle_job(batch, job_id, self.poll(job_id, len(batch.rows), self.run.patience_s))
        except (DestinationError, Interrupted) as error:
            # The job is journalled and goes on without us: the next run reads what became of it.
            self.stop(error)
            self.hold(batch, *_goes_on(job_id))

    def fence(self, job_id: str) -> None:
        """Abort a job that was never closed; if even that is not heard, an open job holds data nobody processes."""
        with suppress(DestinationError):
            self.destination.abort(job_id)

    def close(self, job_id: str) -> None:
        """The commit point. When its reply is lost the job itself says whether it was reached."""
        for attempt in range(ATTEMPTS_MAX):
            self.journal.hold()
            try:
                return self.destination.close(job_id)
            except (NotApplied, OutcomeUnknown):
                job = self.destination.job(job_id)
                if job is not None and not job.is_open:
                    return None
                self.clock.sleep(RETRY_PAUSE_S * 2**attempt)
        # Not closed after all: aborted, and its results will say what was processed.
        return self.destination.abort(job_id)

    def poll(self, job_id: str, rows: int, patience_s: float) -> Job | None:
        """The job once it is done; StillRunning when it has not moved for so long, or runs for a day."""
        pause, waited, moved_at, before = POLL_FIRST_S, 0.0, 0.0, None
        while True:
            self.journal.hold()
            job = self.destination.job(job_id)
            if job is None or job.is_terminal:
                return job
            self.progress.processed(job, rows)
            if job != before:
                before, moved_at = job, waited
            if waited - moved_at >= patience_s or waited >= POLL_MAX_S:
                raise StillRunning(
                    "DB622",
                    f"job {job_id} is {job.state} at Salesforce, {job.processed:,} of {rows:,} rows processed",
                    hint="the next run asks for it again; if it never ends, abort it in Setup, Bulk Data Load Jobs",
                )
            self.clock.sleep(pause)
            waited += pause
            pause = min(pause * 1.5, max(POLL_SOON_S, waited * POLL_AGE_SHARE), POLL_LONGEST_S)

    def settle_job(self, batch: Batch, job_id: str, job: Job | None) -> None:
        """Read a terminal job's results and settle them. A job that Salesforce no longer knows, or whose results it no
        longer has, can't be read: an insert's rows are `unknown` and never sent again by themselves, others are sent
        again."""
        results = self.destination.results(job.id, batch) if job is not None else None
        if results is None:
            fate = Fate.UNKNOWN if batch.operation is Operation.INSERT or batch.leavers else Fate.HELD
            results = _all(batch, fate, "JOB_GONE", f"Salesforce no longer has the results of job {job_id}")
            self.doubt(batch)
        else:
            self.doubt(replace(batch, rows=batch.rows.filter(pc.equal(results["fate"], Fate.UNKNOWN.value))))
        # A job that ended on locks left rows that may pass; one that was aborted was aborted by somebody.
        error = job.error if job is not None and job.state == "Failed" else ""
        passing = self.destination.verdict("", error).remedy is Remedy.AGAIN
        settlement = self.settle(batch, results, unprocessed=Remedy.AGAIN if passing else None)
        if job is not None and job.state != "JobComplete" and (settlement.held or not passing):
            self.problem = Problem(
                "DB620",
                f"job {job.id} was {job.state.lower()}: {job.error or 'Salesforce gave no reason'}",
                f"{batch.object}, {batch.operation}",
                "rows that were not processed are held and sent again by the next run",
            )

    # Collections

    def by_collections(self, batch: Batch, call_rows: int) -> None:
        batch = replace(batch, id=self.new_id())
        self.journal.planned(batch, self.run.run_id)
        self.journal.advance(batch.id, BatchState.SENDING)
        parts: list[pa.Table] = []
        for start in range(0, len(batch.rows), call_rows):
            call = replace(batch, rows=batch.rows.slice(start, call_rows))
            if self.problem is None:
                try:
                    parts.append(self.call(call))
                    self.progress.sent(len(call.rows))
                    continue
                except (DestinationError, Interrupted) as failure:
                    self.stop(failure)
                    self.doubt(call)
            if batch.leavers:
                parts.append(_all(call, Fate.UNKNOWN, *_DOUBTFUL))
            else:
                parts.append(_all(call, Fate.HELD, "NOT_SENT", "no reply says that this row was written"))
        try:
            self.settle(batch, pa.concat_tables(parts))
        except (DestinationError, Interrupted) as failure:
            # Leavers only: Salesforce was asked what became of them and did not answer, so the batch stays open.
            self.stop(failure)
            self.hold(batch, *_DOUBTFUL)

    def call(self, batch: Batch) -> pa.Table:
        """One call of at most 200 rows. Upserts, updates and deletes may be repeated; inserts never come here."""
        assert batch.operation is not Operation.INSERT
        sent = 0

        def before() -> None:
            nonlocal sent
            self.journal.hold()
            sent += 1

        for attempt in range(ATTEMPTS_MAX):
            try:
                self.clock.sleep(0)
                results = self.destination.send(batch, before)
            except (NotApplied, OutcomeUnknown):
                if attempt == ATTEMPTS_MAX - 1:
                    raise
                self.clock.sleep(RETRY_PAUSE_S * 2**attempt)
            else:
                if sent > 1:  # what this time was refused may have been written before, and that reply be lost
                    refused = pc.not_equal(results["fate"], Fate.SUCCEEDED.value)
                    self.doubt(replace(batch, rows=batch.rows.filter(refused)))
                return results
        raise AssertionError("unreachable: the last attempt returns or raises")

    def doubt(self, batch: Batch) -> None:
        """Nothing says whether these rows were written, so what was acknowledged of them before says nothing now: a row
        that goes back to it would look unchanged."""
        if batch.operation is Operation.INSERT or batch.leavers or batch.reverts:
            return  # inserts and leavers have fates of their own, and a revert marks its keys before it is sent
        flags = batch.rows["flags"].to_numpy() & ~np.uint8(Flag.UNFINISHED)
        rows = batch.rows.filter(pc.or_(pc.is_valid(batch.rows["record_id"]), pa.array(flags != 0)))
        flags = rows["flags"].to_numpy() & ~np.uint8(Flag.LEFT) | np.uint8(Flag.STALE)
        self.journal.amend(_snapshot_rows(rows, rows["record_id"], flags.astype(np.uint8), "put"))

    # Rows that may pass when they are sent again

    @property
    def passing(self) -> int:
        return sum(len(each.batch.rows) for each in self.aside if each.remedy is Remedy.LET_GO)

    def send_again(self) -> None:
        """Send what was set aside again: fewer rows at a time where there were too many, later where others were in
        the way. What does not pass within these bounds is rejected, and tried by the next run."""
        for rows_max in SMALLER_ROWS:
            self.send_smaller(rows_max, last=rows_max == SMALLER_ROWS[-1])
        # Drawn from the run's id: two runs fall out of step, and one run can be played again.
        draw = random.Random(self.run.run_id)
        for number, pause in enumerate(AGAIN_PAUSES_S, 1):
            seconds = pause * draw.uniform(1 - AGAIN_JITTER, 1 + AGAIN_JITTER)
            self.send_later(seconds, parts=2**number, last=pause == AGAIN_PAUSES_S[-1])
        self.send_passed()
        for left in self.aside:
            self.tell(left.batch, left.results)
        self.aside = []

    def send_smaller(self, rows_max: int, *, last: bool) -> None:
        batches = self.taken(Remedy.SMALLER, last=last)
        room = SMALLER_BATCHES_MAX * rows_max
        for whole in batches:
            batch = replace(whole, rows=whole.rows.slice(0, room))
            room -= len(batch.rows)
            self.send_parts(batch, rows_max)
            if len(batch.rows) < len(whole.rows):
                over = replace(whole, rows=whole.rows.slice(len(batch.rows)))
                self.hold(over, "NOT_SENT", "one run sends so many rows in small batches and no more")

    def send_later(self, seconds: float, *, parts: int, last: bool) -> None:
        batches = self.taken(Remedy.AGAIN, last=last)
        try:
            if batches:
                self.clock.sleep(seconds)
        except Interrupted as stop:
            self.stop(stop)
        for batch in batches:
            if batch.api is Api.BULK:
                self.send_parts(batch, max(AGAIN_ROWS_MIN, -(-len(batch.rows) // parts)))
            else:
                self.send(batch, max(1, COLLECTIONS_CALL_ROWS // parts))

    def send_passed(self) -> None:
        """Send rows again whose unique values another of them held, once those are let go of.

        A row whose record lets go counts as changed from before that call on: should this run end in between, the next
        one sends it, whatever the model says by then. One that is refused after all gets its value back, or it is said
        that its field is empty.
        """
        batches = self.taken(Remedy.LET_GO, last=True)
        going: list[LettingGo] = []
        if batches:
            with suppress(DestinationError):  # then they are refused once more, and say so
                going = letting_go(batches, self.destination)
        for each in going:
            for batch in batches:
                mine = pc.is_in(_record_ids(batch), value_set=each.batch.rows["Id"].combine_chunks())
                self.doubt(replace(batch, rows=batch.rows.filter(mine)))
            self.write(each.batch)
        told = len(self.not_delivered)
        for batch in batches:
            self.send(batch)
        refused = {key for table in self.not_delivered[told:] for key in table["key"].to_pylist()}
        rows = [(_record_ids(batch).to_pylist(), batch.rows["key"].to_pylist()) for batch in batches]
        left = {record: key for ids, keys in rows for record, key in zip(ids, keys, strict=True) if key in refused}
        for each in going:
            ids = each.back.rows["Id"].combine_chunks()
            back = replace(each.back, rows=each.back.rows.filter(pc.is_in(ids, value_set=pa.array(left, pa.utf8()))))
            empty = set(back.rows["Id"].to_pylist()) - self.write(back)
            keys = pa.array([left[record] for record in empty], pa.utf8())
            words = f"; {each.name} of its record is without its value, which another row has now"
            self.not_delivered[told:] = [_with_words(table, keys, words) for table in self.not_delivered[told:]]

    def write(self, batch: Batch) -> set[str]:
        """Calls that acknowledge nothing: what they write is on the way to what the rows are to hold. The ids of the
        records that were written."""
        done: set[str] = set()
        try:
            for start in range(0, len(batch.rows) if self.problem is None else 0, COLLECTIONS_CALL_ROWS):
                self.clock.sleep(0)
                call = replace(batch, rows=batch.rows.slice(start, COLLECTIONS_CALL_ROWS))
                fate = self.destination.send(call, self.journal.hold)["fate"]
                done.update(call.rows["Id"].filter(pc.equal(fate, Fate.SUCCEEDED.value)).to_pylist())
        except (DestinationError, Interrupted) as failure:
            self.stop(failure)
        return done

    def send_parts(self, batch: Batch, rows_max: int) -> None:
        """Send a batch in jobs of so many rows, or in one go of calls of so many."""
        if batch.api is Api.COLLECTIONS:
            return self.send(batch, rows_max)
        for start in range(0, len(batch.rows), rows_max):
            for part in jobs(replace(batch, rows=batch.rows.slice(start, rows_max)), self.destination):
                self.send(part)
        return None

    def taken(self, remedy: Remedy, *, last: bool) -> list[Batch]:
        """What was set aside for this remedy, to be sent now; with `last` what is refused after this stays refused.
        Nothing once the run has a problem."""
        if self.problem is not None:
            return []
        if last:
            self.remedies.discard(remedy)
        chosen = [each.batch for each in self.aside if each.remedy is remedy]
        self.aside = [each for each in self.aside if each.remedy is not remedy]
        return _merged(chosen)

    def split(
        self, batch: Batch, results: pa.Table, unprocessed: Remedy | None
    ) -> tuple[Batch, pa.Table, list[_SetAside]]:
        """The rows whose fate is settled, and those that this run sends again: as many as may be kept."""
        if batch.foregoing:
            return batch, results, []
        remedies = self.remedy_of(results, unprocessed)
        if not may_pass(batch):
            remedies[remedies == Remedy.LET_GO.value] = None
        room = AGAIN_ROWS_MAX - sum(len(each.batch.rows) for each in self.aside)
        kept, aside = np.ones(len(batch.rows), np.bool_), []
        for remedy in sorted(self.remedies):
            most = room if remedy is not Remedy.LET_GO else min(room, PASSING_ROWS_MAX - self.passing)
            rows = np.flatnonzero(remedies == remedy.value)[: max(0, most)]
            if rows.size:
                taken = pa.array(rows)
                aside.append(_SetAside(remedy, replace(batch, rows=batch.rows.take(taken)), results.take(taken)))
                kept[rows] = False
                room -= len(rows)
        if not aside:
            return batch, results, []
        mask = pa.array(kept)
        return replace(batch, rows=batch.rows.filter(mask)), results.filter(mask), aside

    def remedy_of(self, results: pa.Table, unprocessed: Remedy | None) -> npt.NDArray[np.object_]:
        """What may help each row that was not delivered; None for the others."""
        found = np.full(len(results), None, object)
        rejected = pc.equal(results["fate"], Fate.REJECTED.value).to_numpy()
        found[rejected] = [verdict.remedy.value for verdict in _verdicts(results.filter(rejected), self.destination)]
        if unprocessed is not None:
            held = pc.equal(results["fate"], Fate.HELD.value).to_numpy()
            found[held] = unprocessed.value
        return found

    # Fates

    def settle(self, batch: Batch, results: pa.Table, unprocessed: Remedy | None = None) -> Settlement:
        """Settle the batch, but for the rows that this run sends again; `unprocessed` is what may help rows that
        the job did not get to."""
        if len(results) != len(batch.rows):
            raise CountsError(
                "DB491", f"batch {batch.id}: {len(batch.rows)} rows were sent, {len(results)} results read"
            )
        batch, results, aside = self.split(batch, results, unprocessed)
        settlement = settlement_of(batch, results, self.destination, self.described)
        # Before the results move the state: a kill in between repeats both.
        self.journal.note_created(batch.id, _created(batch, results))
        self.journal.settle(settlement)
        self.aside += aside
        created = int(pc.sum(pc.fill_null(results["created"], False).cast(pa.int64())).as_py() or 0)
        removed = settlement.succeeded if batch.leavers else 0
        succeeded = settlement.succeeded if not batch.foregoing else 0  # those go once more
        if batch.foregoing:
            self.unfinished += settlement.not_delivered["key"].to_pylist()
        outcome = Outcome(succeeded, settlement.rejected, settlement.held, settlement.unknown, created, removed)
        self.count(outcome, settlement.not_delivered)
        if self.run.recovering:
            self.delivered.append(settlement.resolved["key"])
        if self.run.sampling and not batch.leavers and not batch.foregoing:
            self.draw_sample(batch, results)
        self.heed(batch, results)
        return settlement

    def draw_sample(self, batch: Batch, results: pa.Table) -> None:
        ids = results["record_id"]
        if batch.operation is Operation.UPDATE:
            ids = pc.coalesce(ids, batch.rows["Id"])
        chance = np.random.default_rng(list(batch.id.encode())).random(len(ids))
        drawn = pa.table([batch.rows["key"], batch.rows["kh"], ids, pa.array(chance)], schema=SAMPLE)
        whole = pa.array(batch.rows["flags"].to_numpy() & np.uint8(Flag.UNFINISHED) == 0)
        delivered = pc.and_(pc.equal(results["fate"], Fate.SUCCEEDED.value), pc.is_valid(ids))
        drawn = drawn.filter(pc.and_(delivered, whole))
        both = pa.concat_tables([self.run.sample, drawn]).sort_by("chance")
        self.run.sample = both.slice(0, self.run.sampling)

    def heed(self, batch: Batch, results: pa.Table) -> None:
        """Stop when a refusal says that no other row would pass either."""
        rejected = results.filter(pc.equal(results["fate"], Fate.REJECTED.value))
        verdicts = _verdicts(rejected, self.destination)
        for number, verdict in enumerate(verdicts):
            if verdict.remedy is Remedy.STOP and self.problem is None:
                code = rejected["code"][number].as_py()
                count = sum(each.remedy is Remedy.STOP for each in verdicts)
                message = f"{code}: Salesforce refused {count:,} rows for it, and would refuse the others"
                self.problem = Problem("DB613", message, f"{batch.object}, {batch.operation}", verdict.hint)

    def tell(self, batch: Batch, results: pa.Table) -> None:
        """Count rows that were set aside and not sent again, with the fate they had."""
        fate = results["fate"].combine_chunks()
        outcome = Outcome(rejected=_count(fate, Fate.REJECTED), held=_count(fate, Fate.HELD))
        self.count(outcome, _left_out(batch, batch.rows, results))

    def hold(self, batch: Batch, code: str = "NOT_SENT", message: str = "the run stopped before this row") -> None:
        results = _all(batch, Fate.HELD, code, message)
        if batch.foregoing:
            self.unfinished += batch.rows["key"].to_pylist()
        self.count(Outcome(held=len(batch.rows)), _left_out(batch, batch.rows, results))

    def count(self, outcome: Outcome, not_delivered: pa.Table) -> None:
        self.outcome += outcome
        self.not_delivered.append(not_delivered)
        self.progress.settled(outcome.succeeded, len(not_delivered))

    def new_id(self) -> str:
        self.made += 1
        return f"{self.run.run_id}-{self.made:04d}"


def _record_ids(batch: Batch) -> pa.Array:
    """The record that each row is known to have."""
    return batch.rows["Id" if batch.operation is Operation.UPDATE else "record_id"].combine_chunks()


def _with_words(left_out: pa.Table, keys: pa.Array, words: str) -> pa.Table:
    """The same rows; those of these keys say more."""
    mine = pc.is_in(left_out["key"], value_set=keys)
    for name in ("message", "shown"):
        said = pc.coalesce(left_out[name], "")
        more = pc.if_else(mine, pc.binary_join_element_wise(said, words, ""), left_out[name])
        left_out = left_out.set_column(left_out.column_names.index(name), LEFT_OUT.field(name), more)
    return left_out


def _all(batch: Batch, fate: Fate, code: str, message: str) -> pa.Table:
    """The same result for every row of a batch."""
    count = len(batch.rows)
    texts = [fate.value, None, None, code, message, None]
    kinds = [field.type for field in RESULTS]
    arrays = [
        pa.nulls(count, kind) if text is None else pa.repeat(text, count)
        for text, kind in zip(texts, kinds, strict=True)
    ]
    return pa.table(arrays, schema=RESULTS)


def _merged(batches: Sequence[Batch]) -> list[Batch]:
    """Batches of one shape in one, as far as the files stay small."""
    shapes: dict[tuple[object, ...], list[list[Batch]]] = {}
    for batch in batches:
        told = (batch.operation, batch.api, batch.columns, batch.match, batch.reverts, batch.leavers)
        groups = shapes.setdefault((*told, *batch.rows.column_names), [[]])
        if sum(each.rows.nbytes for each in groups[-1]) + batch.rows.nbytes > _MERGED_BYTES_MAX:
            groups.append([])
        groups[-1].append(batch)
    together = [group for groups in shapes.values() for group in groups if group]
    return [replace(group[0], rows=pa.concat_tables([each.rows for each in group])) for group in together]


def settlement_of(batch: Batch, results: pa.Table, destination: Destination, described: str = "") -> Settlement:
    """What the results of a batch mean for the state. Of the destination it asks what its codes mean, and whether
    records that seem gone, or may be, are; DestinationError only for leavers that may be."""
    rows = batch.rows
    if len(results) != len(rows):
        raise CountsError("DB491", f"batch {batch.id}: {len(rows)} rows were sent, {len(results)} results read")
    updates = batch.operation is Operation.UPDATE and not batch.reverts
    gone = _gone(batch, results, destination) if updates else None
    if batch.leavers:
        results, moves = _removed(batch, results, gone, destination)
    elif batch.reverts:
        # Its rows are not the model's: none is acknowledged and none waits. Before they went, their keys became stale.
        done = pc.equal(results["fate"], Fate.SUCCEEDED.value)
        moves = [_forgotten(rows.filter(pc.and_(done, rows["forget"])))]
    else:
        moves = [_acknowledged(batch, results)]
        if gone is not None:
            moves.append(_forgotten(rows.filter(gone)))
        if batch.operation is Operation.INSERT:
            moves.append(_doubtful(rows.filter(pc.equal(results["fate"], Fate.UNKNOWN.value))))
    fate = results["fate"].combine_chunks()
    done = pc.equal(fate, Fate.SUCCEEDED.value)
    rejected = pc.equal(fate, Fate.REJECTED.value)
    waits = pc.and_(rejected, not batch.reverts)
    return Settlement(
        batch_id=batch.id,
        snapshot=pa.concat_tables(moves),
        resolved=rows.filter(done).select(["kh", "key"]),
        waiting=_waiting(rows.filter(waits), results.filter(waits), destination, described),
        succeeded=_count(fate, Fate.SUCCEEDED),
        rejected=_count(fate, Fate.REJECTED),
        held=_count(fate, Fate.HELD),
        unknown=_count(fate, Fate.UNKNOWN),
        not_delivered=_left_out(batch, rows.filter(pc.invert(done)), results.filter(pc.invert(done))),
        day=_of_day(rows.filter(pc.or_(done, pc.equal(fate, Fate.UNKNOWN.value)))),
    )


def _of_day(written: pa.Table) -> Day:
    """What these rows count for in the day's total."""
    if "counted" not in written.column_names:  # a revert's
        return Day()
    counted = written["counted"].to_numpy()
    changed = np.unique(written["kh"].to_numpy()[counted == Counted.CHANGED])
    created, removed, respelled = (
        int(np.count_nonzero(counted == each)) for each in (Counted.CREATED, Counted.REMOVED, Counted.RESPELLED)
    )
    return Day(created + respelled, changed, removed, respelled)


def _created(batch: Batch, results: pa.Table) -> pa.Table:
    """Key and record id of the rows that made a record; an id is null where results can't tell which is whose."""
    made = pc.equal(results["fate"], Fate.SUCCEEDED.value)
    if batch.operation is not Operation.INSERT:
        made = pc.and_(made, pc.fill_null(results["created"], False))
    return pa.table({"key": batch.rows["key"], "record_id": results["record_id"]}).filter(made)


def _acknowledged(batch: Batch, results: pa.Table) -> pa.Table:
    done = pc.equal(results["fate"], Fate.SUCCEEDED.value)
    rows, results = batch.rows.filter(done), results.filter(done)
    before = rows["flags"].to_numpy()
    created = pc.fill_null(results["created"], False).to_numpy() if len(results) else np.empty(0, np.bool_)
    if batch.operation is Operation.INSERT:
        created = np.ones(len(rows), np.bool_)
    known = before & ~np.uint8(Flag.LEFT | Flag.STALE | Flag.UNKNOWN)
    record_id = results["record_id"]
    if batch.operation in (Operation.UPDATE, Operation.DELETE):
        record_id = pc.coalesce(record_id, rows["Id"])
    if "record_id" in rows.column_names:
        # Whose record it is, is known of that record only: another one that a key leads to may be anybody's.
        same = pc.fill_null(pc.equal(record_id, rows["record_id"]), False).to_numpy()
        known &= np.where(same, np.uint8(0xFF), ~np.uint8(Flag.CREATED | Flag.ADOPTED))
    flags = known | np.where(created, np.uint8(Flag.CREATED), np.uint8(0))
    return _snapshot_rows(rows, record_id, flags.astype(np.uint8), "put")


def _removed(
    batch: Batch, results: pa.Table, gone: pa.Array | None, destination: Destination
) -> tuple[pa.Table, list[pa.Table]]:
    """What became of keys that left the segment, and how that moves the snapshot. What is gone already is done.

    No doubt outlives this: a row that comes back unchanged is sent again only if the state says so. Whether a record
    was deleted is asked of Salesforce; whether it was set may stay open, so its check hash is to say nothing then.
    """
    rows, fate = batch.rows, results["fate"].combine_chunks()
    unknown = pc.equal(fate, Fate.UNKNOWN.value)
    if gone is None:
        ids = rows["Id"].combine_chunks()
        gone = pc.and_(unknown, pc.is_in(ids, value_set=_missing(destination, batch.object, ids.filter(unknown))))
    fate = pc.if_else(gone, Fate.SUCCEEDED.value, pc.if_else(unknown, Fate.HELD.value, fate))
    results = results.set_column(0, RESULTS.field("fate"), fate)
    done = pc.equal(fate, Fate.SUCCEEDED.value)
    if batch.operation is Operation.DELETE:
        return results, [_forgotten(rows.filter(done))]

    def kept(which: pa.Array, flag: Flag) -> pa.Table:
        some = rows.filter(which)
        flags = (some["flags"].to_numpy() | np.uint8(flag)).astype(np.uint8)
        return _snapshot_rows(some, some["Id"], flags, "put")

    left, open_rows = pc.and_(done, pc.invert(gone)), pc.equal(fate, Fate.HELD.value)
    return results, [kept(left, Flag.LEFT), _forgotten(rows.filter(gone)), kept(open_rows, Flag.STALE)]


def _gone(batch: Batch, results: pa.Table, destination: Destination) -> pa.Array:
    """Which rejected rows' own record is gone. The same codes are given for a parent that is, so where a batch writes
    lookups the records are asked for: to forget one that lives could make a second one of it."""
    fields, ids = pc.fill_null(results["fields"], ""), batch.rows["Id"].combine_chunks()
    told = pc.and_(
        pc.equal(results["fate"], Fate.REJECTED.value),
        pc.and_(pc.is_in(results["code"], value_set=pa.array(_GONE)), pc.is_in(fields, value_set=pa.array(["", "Id"]))),
    ).combine_chunks()
    if not pc.any(told).as_py() or not any(c.is_parent_path or c.field.type == "reference" for c in batch.columns):
        return told
    missing = pa.array([], pa.utf8())
    with suppress(DestinationError):  # not heard: they stay known, and are asked for when they are refused again
        missing = _missing(destination, batch.object, ids.filter(told)[:_GONE_ASKED_MAX])
    return pc.and_(told, pc.is_in(ids, value_set=missing))


def _missing(destination: Destination, object_name: str, ids: pa.Array) -> pa.Array:
    """Those of the records that Salesforce does not have any more."""
    if not len(ids):
        return ids
    there = destination.read_many(object_name, ("Id",), pc.unique(ids))["Id"].combine_chunks()
    return ids.filter(pc.invert(pc.is_in(ids, value_set=there)))


def _forgotten(rows: pa.Table) -> pa.Table:
    """Records that Salesforce says are gone: their rows are resolved anew by the next run."""
    return _snapshot_rows(rows, pa.nulls(len(rows), pa.utf8()), rows["flags"].to_numpy(), "forget")


def _doubtful(rows: pa.Table) -> pa.Table:
    """Inserts that may have been made: known from now on, so that neither a later run nor a new mapping makes a second
    record of the same change; the flag keeps them from being counted as delivered."""
    flags = rows["flags"].to_numpy() & ~np.uint8(Flag.LEFT | Flag.STALE) | np.uint8(Flag.UNKNOWN)
    return _snapshot_rows(rows, pa.nulls(len(rows), pa.utf8()), flags.astype(np.uint8), "put")


def _snapshot_rows(rows: pa.Table, record_id: pa.Array, flags: npt.NDArray[np.uint8], op: str) -> pa.Table:
    return pa.table(
        {
            "kh": rows["kh"],
            "ck": rows["ck"],
            "key": rows["key"],
            "record_id": record_id,
            "flags": pa.array(flags, pa.uint8()),
            "op": pa.repeat(op, len(rows)),
        }
    )


def _verdicts(rejected: pa.Table, destination: Destination) -> list[Verdict]:
    """What each rejection asks for; one question for each distinct answer of Salesforce."""
    told = pc.binary_join_element_wise(pc.fill_null(rejected["code"], ""), pc.fill_null(rejected["message"], ""), "\0")
    known: dict[str, Verdict] = {}
    for text in pc.unique(told).to_pylist():
        code, _, message = text.partition("\0")
        known[text] = destination.verdict(code, message)
    return [known[text] for text in told.to_pylist()]


def _waiting(rows: pa.Table, results: pa.Table, destination: Destination, described: str) -> pa.Table:
    passing = [verdict.remedy is not Remedy.CHANGE for verdict in _verdicts(results, destination)]
    return pa.table(
        {
            "kh": rows["kh"],
            "key": rows["key"],
            "ck": rows["ck"],
            "fate": results["fate"],
            "code": results["code"],
            "message": results["message"],
            "fields": results["fields"],
            "transient": pa.array(passing, pa.bool_()),
            "described": pa.repeat(described, len(rows)),
            "since": pa.repeat(pa.scalar(destination.org_time or 0.0, pa.float64()), len(rows)),
        }
    )


def _left_out(batch: Batch, rows: pa.Table, results: pa.Table) -> pa.Table:
    columns = [rows["key"], *(results[name] for name in ("fate", "code", "message", "fields", "record_id"))]
    rejected = pc.equal(results["fate"], Fate.REJECTED.value)
    quoting = np.flatnonzero(pc.and_(rejected, pc.is_valid(results["message"])).to_numpy())
    shown = results["message"].to_numpy().copy()
    if quoting.size:
        chosen = rows.take(pa.array(quoting))
        sent = [values.text(chosen[c.header].combine_chunks(), c.field).to_pylist() for c in batch.columns]
        for place, of_row in zip(quoting, zip(*sent, strict=True), strict=True):
            shown[place] = without_values(shown[place], of_row)
    of_the_job = pc.fill_null(pc.equal(results["code"], "UNPROCESSED"), False).to_numpy()
    names = [column.header for column in batch.columns]
    said = {message: of_job(message, names) for message in set(shown[of_the_job]) if message}
    shown[of_the_job] = [said.get(message) for message in shown[of_the_job]]
    return pa.table([*columns, pa.array(shown, pa.utf8())], schema=LEFT_OUT)


def _count(fate: pa.Array, wanted: Fate) -> int:
    return int(pc.sum(pc.equal(fate, wanted.value).cast(pa.int64())).as_py() or 0)
