"""A delivery under way: what it works with, and what became of the rows so far."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dinmo_dbt.clock import Clock
from dinmo_dbt.codes import COUNTS_OF_BATCH, INTERRUPTED
from dinmo_dbt.delivery.aside import AGAIN_ROWS_MAX, ToSendAgain
from dinmo_dbt.delivery.journal import Journal, Settlement
from dinmo_dbt.delivery.judging import drawn, stopping
from dinmo_dbt.delivery.run import Outcome, Progress, SyncRun
from dinmo_dbt.delivery.settlement import all_as, count_of, created_of, left_out_of, settlement_of, snapshot_rows
from dinmo_dbt.destination import Batch, Destination, Fate, Operation, Remedy
from dinmo_dbt.errors import CountsError, DestinationError, Interrupted, Problem, StillRunning
from dinmo_dbt.rows.snapshot import Flag


@dataclass
class Delivery:
    """What a delivery works with, what became of the rows so far, and its problem: with one, nothing more is sent."""

    destination: Destination
    journal: Journal
    clock: Clock
    run: SyncRun
    progress: Progress
    keeps_images: bool = False
    described: str = ""
    aside: ToSendAgain = field(default_factory=ToSendAgain)
    outcome: Outcome = field(default_factory=Outcome)
    problem: Problem | None = None
    not_delivered: list[pa.Table] = field(default_factory=list)
    delivered: list[pa.ChunkedArray] = field(default_factory=list)  # keys, where dead runs' rows are reported too
    unfinished: list[str] = field(default_factory=list)  # keys of without_parents rows that did not arrive
    made: int = 0
    job_rows_max: int = AGAIN_ROWS_MAX  # fewer once a job's data was refused for its size

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

    def doubt(self, batch: Batch) -> None:
        """Nothing says whether these rows were written, so what was acknowledged of them before says nothing now: a row
        that goes back to it would look unchanged."""
        if batch.operation is Operation.INSERT or batch.leavers or batch.reverts:
            return  # inserts and leavers have fates of their own, and a revert marks its keys before it is sent
        flags = batch.rows["flags"].to_numpy() & ~np.uint8(Flag.UNFINISHED)
        rows = batch.rows.filter(pc.or_(pc.is_valid(batch.rows["record_id"]), pa.array(flags != 0)))
        flags = rows["flags"].to_numpy() & ~np.uint8(Flag.LEFT) | np.uint8(Flag.STALE)
        self.journal.amend(snapshot_rows(rows, rows["record_id"], flags.astype(np.uint8), "put"))

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
        succeeded = settlement.succeeded if not batch.without_parents else 0  # those go once more
        if batch.without_parents:
            self.unfinished += settlement.not_delivered["key"].to_pylist()
        outcome = Outcome(succeeded, settlement.rejected, settlement.held, settlement.unknown, created, removed)
        self.count(outcome, settlement.not_delivered)
        if self.run.recovering:
            self.delivered.append(settlement.resolved["key"])
        if self.run.sampling and not batch.leavers and not batch.without_parents:
            self.run.sample = drawn(self.run.sample, batch, results, self.run.sampling)
        if self.problem is None:
            self.problem = stopping(batch, results, self.destination)
        return settlement

    def tell(self, batch: Batch, results: pa.Table) -> None:
        """Count rows that were set aside and not sent again, with the fate they had."""
        fate = results["fate"].combine_chunks()
        outcome = Outcome(rejected=count_of(fate, Fate.REJECTED), held=count_of(fate, Fate.HELD))
        self.count(outcome, left_out_of(batch, batch.rows, results))

    def hold(self, batch: Batch, code: str = "NOT_SENT", message: str = "the run stopped before this row") -> None:
        results = all_as(batch, Fate.HELD, code, message)
        if batch.without_parents:
            self.unfinished += batch.rows["key"].to_pylist()
        self.count(Outcome(held=len(batch.rows)), left_out_of(batch, batch.rows, results))

    def count(self, outcome: Outcome, not_delivered: pa.Table) -> None:
        self.outcome += outcome
        self.not_delivered.append(not_delivered)
        self.progress.settled(outcome.succeeded, len(not_delivered))

    def new_id(self) -> str:
        self.made += 1
        return f"{self.run.run_id}-{self.made:04d}"
