"""A batch by Bulk API 2.0: its job, its commit point, and the results that settle it."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

import pyarrow.compute as pc

from dinmo_dbt.codes import JOB_FAILED, JOB_GOES_ON
from dinmo_dbt.delivery.batch_state import BatchState
from dinmo_dbt.delivery.run import POLL_MAX_S
from dinmo_dbt.delivery.settlement import all_as
from dinmo_dbt.delivery.underway import Delivery
from dinmo_dbt.destination import Batch, Fate, Job, Operation, Remedy
from dinmo_dbt.errors import DestinationError, Interrupted, NotApplied, OutcomeUnknown, Problem, StillRunning, TooLarge
from dinmo_dbt.watch.history import JOB_RUNNING

# The first looks at a job follow each other closely; of one that lasts, a look is soon enough a twentieth of its age
# later: each counts against the org's daily calls.
POLL_FIRST_S, POLL_SOON_S, POLL_AGE_SHARE, POLL_LONGEST_S = 0.2, 5.0, 0.05, 60.0
# Attempts to bring one batch to its commit point, and one collections call to a whole reply.
ATTEMPTS_MAX = 3
RETRY_PAUSE_S = 1.0


def by_job(delivery: Delivery, batch: Batch) -> bool:
    """Bring the batch to its commit point, wait for the job, settle. False where its data was refused for its size: it
    is for others to send then, in parts."""
    for attempt in range(ATTEMPTS_MAX):
        attempted = replace(batch, id=delivery.new_id())
        delivery.journal.planned(attempted, delivery.run.run_id)
        try:
            job_id = _upload(delivery, attempted)
        except DestinationError as error:
            # UploadComplete was not asked for, so nothing can have been processed.
            delivery.journal.abandon(attempted.id)
            if isinstance(error, TooLarge):
                return False
            again = isinstance(error, NotApplied | OutcomeUnknown) and attempt < ATTEMPTS_MAX - 1
            if not again:
                delivery.problem = error.problems[0]
                delivery.hold(batch)
                return True
            delivery.clock.sleep(RETRY_PAUSE_S * 2**attempt)
        else:
            delivery.run.jobs.append(job_id)
            _commit(delivery, attempted, job_id)
            return True
    raise AssertionError("unreachable: the last attempt returns")


def _upload(delivery: Delivery, batch: Batch) -> str:
    """Create a job and upload its data: everything before the commit point."""
    job_id = delivery.destination.create_job(batch)
    delivery.journal.advance(batch.id, BatchState.OPENED, job_id)
    try:
        delivery.destination.upload(job_id, batch)
    except DestinationError:
        _fence(delivery, job_id)
        raise
    return job_id


def _commit(delivery: Delivery, batch: Batch, job_id: str) -> None:
    """UploadComplete, then wait and settle. From here on the job is only asked, never sent again."""
    delivery.journal.advance(batch.id, BatchState.CLOSING)
    try:
        _close(delivery, job_id)
        delivery.journal.advance(batch.id, BatchState.CLOSED)
        delivery.progress.sent(len(batch.rows))
        settle_job(delivery, batch, job_id, poll(delivery, job_id, len(batch.rows), delivery.run.patience_s))
    except (DestinationError, Interrupted) as error:
        # The job is journalled and goes on without us: the next run reads what became of it.
        delivery.stop(error)
        delivery.hold(batch, *goes_on(job_id))


def _fence(delivery: Delivery, job_id: str) -> None:
    """Abort a job that was never closed; if even that is not heard, an open job holds data nobody processes."""
    with suppress(DestinationError):
        delivery.destination.abort(job_id)


def _close(delivery: Delivery, job_id: str) -> None:
    """The commit point. When its reply is lost the job itself says whether it was reached."""
    for attempt in range(ATTEMPTS_MAX):
        delivery.journal.hold()
        try:
            return delivery.destination.close(job_id)
        except (NotApplied, OutcomeUnknown):
            job = delivery.destination.job(job_id)
            if job is not None and not job.is_open:
                return None
            delivery.clock.sleep(RETRY_PAUSE_S * 2**attempt)
    # Not closed after all: aborted, and its results will say what was processed.
    return delivery.destination.abort(job_id)


def poll(delivery: Delivery, job_id: str, rows: int, patience_s: float) -> Job | None:
    """The job once it is done; StillRunning when it has not moved for so long, or runs for a day."""
    pause, waited, moved_at, before = POLL_FIRST_S, 0.0, 0.0, None
    while True:
        delivery.journal.hold()
        job = delivery.destination.job(job_id)
        if job is None or job.is_terminal:
            return job
        delivery.progress.processed(job, rows)
        if job != before:
            before, moved_at = job, waited
        if waited - moved_at >= patience_s or waited >= POLL_MAX_S:
            raise StillRunning(
                JOB_GOES_ON,
                f"job {job_id} is {job.state} at Salesforce, {job.processed:,} of {rows:,} rows processed",
                hint="the next run asks for it again; if it never ends, abort it in Setup, Bulk Data Load Jobs",
            )
        delivery.clock.sleep(pause)
        waited += pause
        pause = min(pause * 1.5, max(POLL_SOON_S, waited * POLL_AGE_SHARE), POLL_LONGEST_S)


def settle_job(delivery: Delivery, batch: Batch, job_id: str, job: Job | None) -> None:
    """Read a terminal job's results and settle them. A job that Salesforce no longer knows, or whose results it no
    longer has, can't be read: an insert's rows are `unknown` and never sent again by themselves, others are sent
    again."""
    results = delivery.destination.results(job.id, batch) if job is not None else None
    if results is None:
        fate = Fate.UNKNOWN if batch.operation is Operation.INSERT or batch.leavers else Fate.HELD
        results = all_as(batch, fate, "JOB_GONE", f"Salesforce no longer has the results of job {job_id}")
        delivery.doubt(batch)
    else:
        delivery.doubt(replace(batch, rows=batch.rows.filter(pc.equal(results["fate"], Fate.UNKNOWN.value))))
    # A job that ended on locks left rows that may pass; one that was aborted was aborted by somebody.
    error = job.error if job is not None and job.state == "Failed" else ""
    passing = delivery.destination.diagnose("", error).remedy is Remedy.AGAIN
    settlement = delivery.settle(batch, results, unprocessed=Remedy.AGAIN if passing else None)
    if job is not None and job.state != "JobComplete" and (settlement.held or not passing):
        delivery.problem = Problem(
            JOB_FAILED,
            f"job {job.id} was {job.state.lower()}: {job.error or 'Salesforce gave no reason'}",
            f"{batch.object}, {batch.operation}",
            "rows that were not processed are held and sent again by the next run",
        )


def goes_on(job_id: str) -> tuple[str, str]:
    return JOB_RUNNING, f"job {job_id} was sent; the next run reads its results"
