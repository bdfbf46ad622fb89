"""Execute a plan: the only way anything is written to Salesforce. The journal is written before each act.

The commit point of a Bulk API 2.0 job is its UploadComplete. Spool and intent come before the job, the job's id before
its data, and after the commit point the job is only asked, never sent again. What a dead run left is settled before
the next change set is drawn, so no row is ever on its way twice.
"""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa
import pyarrow.compute as pc

from dinmo_dbt.clock import Clock
from dinmo_dbt.delivery import sending
from dinmo_dbt.delivery.again import send_again
from dinmo_dbt.delivery.aside import ToSendAgain
from dinmo_dbt.delivery.batch_state import BatchState
from dinmo_dbt.delivery.by_calls import REMOVAL_DOUBTFUL
from dinmo_dbt.delivery.by_job import goes_on, poll, settle_job
from dinmo_dbt.delivery.journal import Journal
from dinmo_dbt.delivery.run import Progress, SyncRun
from dinmo_dbt.delivery.settlement import all_as, left_out_of
from dinmo_dbt.delivery.underway import Delivery
from dinmo_dbt.destination import Batch, Destination, Fate, Remedy
from dinmo_dbt.errors import (
    Refused,
    StillRunning,
)
from dinmo_dbt.plan.plan import Plan, payload_batch
from dinmo_dbt.rows.key_problems import keys_refused

_IN_RUN = (Remedy.AGAIN, Remedy.SMALLER, Remedy.LET_GO)


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
    run.not_delivered = [*_not_reported(run, plan.left_out["key"]), plan.left_out]
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
    delivery = Delivery(
        destination, journal, clock, run, progress, keeps_images, described, aside=ToSendAgain(set(_IN_RUN))
    )
    for batch in batches:
        sending.deliver(delivery, batch)
    send_again(delivery)
    run.problem, run.outcome = delivery.problem, delivery.outcome
    reported = [*(table["key"] for table in delivery.not_delivered), *delivery.delivered]
    run.not_delivered = [*_not_reported(run, *reported), *delivery.not_delivered]


def recover(destination: Destination, journal: Journal, clock: Clock, *, run: SyncRun, progress: Progress) -> None:
    """Settle what a dead run left, before anything is read. A job that was never to be closed is aborted and let go.
    StillRunning in the end where a job is not done: nothing may be drawn, or its rows would be on their way twice.

    A collections batch that may or may not have arrived is let go too: its rows are sent again, which does no harm for
    an upsert, update or delete, even those that are back at what was acknowledged before. Not so the removal of a row
    that left the segment: what became of that is asked for.
    """
    delivery, running = Delivery(destination, journal, clock, run, progress), None
    for journalled in journal.open_batches():
        if journalled.job_id is None or journalled.state is BatchState.OPENED:
            if journalled.job_id is not None:
                # UploadComplete was never asked for: nothing was processed, whatever has become of the job since.
                destination.abort(journalled.job_id)
            if journalled.state is BatchState.SENDING and (batch := journal.batch(journalled)).leavers:
                delivery.settle(batch, all_as(batch, Fate.UNKNOWN, *REMOVAL_DOUBTFUL))
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
            job = poll(delivery, journalled.job_id, journalled.rows, run.settling_s)
        except StillRunning as error:
            delivery.stop(error)
            run.problem, running = delivery.problem, error
            run.not_delivered.append(_running(journal.batch(journalled), journalled.job_id))
            continue
        settle_job(delivery, journal.batch(journalled), journalled.job_id, job)
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
    return left_out_of(batch, batch.rows, all_as(batch, Fate.HELD, *goes_on(job_id)))


def _not_reported(run: SyncRun, *keys: pa.ChunkedArray) -> list[pa.Table]:
    """Rows of dead runs' jobs without those that this run has a word on: each is reported once, with its last fate."""
    if not run.recovering:
        return run.not_delivered
    reported = pa.concat_arrays([pa.array([], pa.utf8()), *(chunk for column in keys for chunk in column.chunks)])
    return [table.filter(pc.invert(pc.is_in(table["key"], value_set=reported))) for table in run.not_delivered]
