"""The journal of a run, as whatever keeps states keeps it: each act is noted before it is done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import pyarrow as pa

from dinmo_dbt.delivery.batch_state import BatchState
from dinmo_dbt.destination import Api, Batch, Operation
from dinmo_dbt.plan.guards import Day
from dinmo_dbt.plan.plan import Plan


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
