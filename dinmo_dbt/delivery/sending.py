"""Batches on their way: one after the other, journalled before each act, settled by what Salesforce answered."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dinmo_dbt.clock import Clock
from dinmo_dbt.codes import COUNTS_OF_BATCH, INTERRUPTED, JOB_FAILED, JOB_GOES_ON, ROWS_REFUSED_ALIKE
from dinmo_dbt.delivery.aside import AGAIN_ROWS_MAX, Aside
from dinmo_dbt.delivery.images import image_of
from dinmo_dbt.delivery.jobs import jobs, with_parents
from dinmo_dbt.delivery.journal import BatchState, Journal, Settlement
from dinmo_dbt.delivery.run import POLL_MAX_S, SAMPLE, Outcome, Progress, SyncRun
from dinmo_dbt.delivery.settlement import (
    all_as,
    count_of,
    created_of,
    left_out_of,
    settlement_of,
    snapshot_rows,
    verdicts_of,
)
from dinmo_dbt.destination import Api, Batch, Destination, Fate, Job, Operation, Remedy
from dinmo_dbt.errors import (
    CountsError,
    DestinationError,
    Interrupted,
    NotApplied,
    OutcomeUnknown,
    Problem,
    StillRunning,
    TooLarge,
)
from dinmo_dbt.plan.parents import PARENT_MISSING
from dinmo_dbt.rows.snapshot import Flag
from dinmo_dbt.watch.history import JOB_RUNNING

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
REMOVAL_DOUBTFUL = ("REMOVAL_DOUBTFUL", "no reply says whether this was done; the next run asks Salesforce first")


@dataclass
class Delivery:
    destination: Destination
    journal: Journal
    clock: Clock
    run: SyncRun
    progress: Progress
    keeps_images: bool = False
    described: str = ""
    aside: Aside = field(default_factory=Aside)
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
        self.problem = Problem(
            INTERRUPTED, "the run was asked to stop", hint="the next run continues where this one ended"
        )

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
        self.settle(batch, all_as(batch, Fate.REJECTED, *_TOO_LARGE))
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
            self.hold(batch, *goes_on(job_id))

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
                    JOB_GOES_ON,
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
            results = all_as(batch, fate, "JOB_GONE", f"Salesforce no longer has the results of job {job_id}")
            self.doubt(batch)
        else:
            self.doubt(replace(batch, rows=batch.rows.filter(pc.equal(results["fate"], Fate.UNKNOWN.value))))
        # A job that ended on locks left rows that may pass; one that was aborted was aborted by somebody.
        error = job.error if job is not None and job.state == "Failed" else ""
        passing = self.destination.verdict("", error).remedy is Remedy.AGAIN
        settlement = self.settle(batch, results, unprocessed=Remedy.AGAIN if passing else None)
        if job is not None and job.state != "JobComplete" and (settlement.held or not passing):
            self.problem = Problem(
                JOB_FAILED,
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
                parts.append(all_as(call, Fate.UNKNOWN, *REMOVAL_DOUBTFUL))
            else:
                parts.append(all_as(call, Fate.HELD, "NOT_SENT", "no reply says that this row was written"))
        try:
            self.settle(batch, pa.concat_tables(parts))
        except (DestinationError, Interrupted) as failure:
            # Leavers only: Salesforce was asked what became of them and did not answer, so the batch stays open.
            self.stop(failure)
            self.hold(batch, *REMOVAL_DOUBTFUL)

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
        self.journal.amend(snapshot_rows(rows, rows["record_id"], flags.astype(np.uint8), "put"))

    def send_parts(self, batch: Batch, rows_max: int) -> None:
        """Send a batch in jobs of so many rows, or in one go of calls of so many."""
        if batch.api is Api.COLLECTIONS:
            return self.send(batch, rows_max)
        for start in range(0, len(batch.rows), rows_max):
            for part in jobs(replace(batch, rows=batch.rows.slice(start, rows_max)), self.destination):
                self.send(part)
        return None

    # Fates

    def settle(self, batch: Batch, results: pa.Table, unprocessed: Remedy | None = None) -> Settlement:
        """Settle the batch, but for the rows that this run sends again; `unprocessed` is what may help rows that
        the job did not get to."""
        if len(results) != len(batch.rows):
            raise CountsError(
                COUNTS_OF_BATCH, f"batch {batch.id}: {len(batch.rows)} rows were sent, {len(results)} results read"
            )
        batch, results, aside = self.aside.split(batch, results, unprocessed, self.destination)
        settlement = settlement_of(batch, results, self.destination, self.described)
        # Before the results move the state: a kill in between repeats both.
        self.journal.note_created(batch.id, created_of(batch, results))
        self.journal.settle(settlement)
        self.aside.rows += aside
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
        verdicts = verdicts_of(rejected, self.destination)
        for number, verdict in enumerate(verdicts):
            if verdict.remedy is Remedy.STOP and self.problem is None:
                code = rejected["code"][number].as_py()
                count = sum(each.remedy is Remedy.STOP for each in verdicts)
                message = f"{code}: Salesforce refused {count:,} rows for it, and would refuse the others"
                self.problem = Problem(ROWS_REFUSED_ALIKE, message, f"{batch.object}, {batch.operation}", verdict.hint)

    def tell(self, batch: Batch, results: pa.Table) -> None:
        """Count rows that were set aside and not sent again, with the fate they had."""
        fate = results["fate"].combine_chunks()
        outcome = Outcome(rejected=count_of(fate, Fate.REJECTED), held=count_of(fate, Fate.HELD))
        self.count(outcome, left_out_of(batch, batch.rows, results))

    def hold(self, batch: Batch, code: str = "NOT_SENT", message: str = "the run stopped before this row") -> None:
        results = all_as(batch, Fate.HELD, code, message)
        if batch.foregoing:
            self.unfinished += batch.rows["key"].to_pylist()
        self.count(Outcome(held=len(batch.rows)), left_out_of(batch, batch.rows, results))

    def count(self, outcome: Outcome, not_delivered: pa.Table) -> None:
        self.outcome += outcome
        self.not_delivered.append(not_delivered)
        self.progress.settled(outcome.succeeded, len(not_delivered))

    def new_id(self) -> str:
        self.made += 1
        return f"{self.run.run_id}-{self.made:04d}"


def goes_on(job_id: str) -> tuple[str, str]:
    return JOB_RUNNING, f"job {job_id} was sent; the next run reads its results"
