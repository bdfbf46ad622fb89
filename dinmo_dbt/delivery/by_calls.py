"""A batch by sObject Collections: calls that are sent again where that does no harm, settled as one."""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc

from dinmo_dbt.delivery.batch_state import BatchState
from dinmo_dbt.delivery.by_job import ATTEMPTS_MAX, RETRY_PAUSE_S
from dinmo_dbt.delivery.settlement import all_as
from dinmo_dbt.delivery.underway import Delivery
from dinmo_dbt.destination import Batch, Fate, Operation
from dinmo_dbt.errors import DestinationError, Interrupted, NotApplied, OutcomeUnknown

COLLECTIONS_CALL_ROWS = 200
# Of a row that left the segment, where nothing says whether its record was deleted or set.
REMOVAL_DOUBTFUL = ("REMOVAL_DOUBTFUL", "no reply says whether this was done; the next run asks Salesforce first")


def by_calls(delivery: Delivery, batch: Batch, call_rows: int) -> None:
    batch = replace(batch, id=delivery.new_id())
    delivery.journal.planned(batch, delivery.run.run_id)
    delivery.journal.advance(batch.id, BatchState.SENDING)
    parts: list[pa.Table] = []
    for start in range(0, len(batch.rows), call_rows):
        call = replace(batch, rows=batch.rows.slice(start, call_rows))
        if delivery.problem is None:
            try:
                parts.append(_call(delivery, call))
                delivery.progress.sent(len(call.rows))
                continue
            except (DestinationError, Interrupted) as failure:
                delivery.stop(failure)
                delivery.doubt(call)
        if batch.leavers:
            parts.append(all_as(call, Fate.UNKNOWN, *REMOVAL_DOUBTFUL))
        else:
            parts.append(all_as(call, Fate.HELD, "NOT_SENT", "no reply says that this row was written"))
    try:
        delivery.settle(batch, pa.concat_tables(parts))
    except (DestinationError, Interrupted) as failure:
        # Leavers only: Salesforce was asked what became of them and did not answer, so the batch stays open.
        delivery.stop(failure)
        delivery.hold(batch, *REMOVAL_DOUBTFUL)


def _call(delivery: Delivery, batch: Batch) -> pa.Table:
    """One call of at most 200 rows. Upserts, updates and deletes may be repeated; inserts never come here."""
    assert batch.operation is not Operation.INSERT
    sent = 0

    def before() -> None:
        nonlocal sent
        delivery.journal.hold()
        sent += 1

    for attempt in range(ATTEMPTS_MAX):
        try:
            delivery.clock.sleep(0)
            results = delivery.destination.send(batch, before)
        except (NotApplied, OutcomeUnknown):
            if attempt == ATTEMPTS_MAX - 1:
                raise
            delivery.clock.sleep(RETRY_PAUSE_S * 2**attempt)
        else:
            if sent > 1:  # what this time was refused may have been written before, and that reply be lost
                refused = pc.not_equal(results["fate"], Fate.SUCCEEDED.value)
                delivery.doubt(replace(batch, rows=batch.rows.filter(refused)))
            return results
    raise AssertionError("unreachable: the last attempt returns or raises")
