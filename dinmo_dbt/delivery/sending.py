"""Batches on their way: one after the other, journalled before each act, settled by what Salesforce answered."""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc

from dinmo_dbt.delivery.batch_state import BatchState
from dinmo_dbt.delivery.by_calls import COLLECTIONS_CALL_ROWS, by_calls
from dinmo_dbt.delivery.by_job import by_job
from dinmo_dbt.delivery.images import image_of
from dinmo_dbt.delivery.jobs import jobs, with_parents
from dinmo_dbt.delivery.settlement import all_as
from dinmo_dbt.delivery.underway import Delivery
from dinmo_dbt.destination import Api, Batch, Fate
from dinmo_dbt.errors import DestinationError, Interrupted
from dinmo_dbt.plan.parents import PARENT_MISSING

_TOO_LARGE = ("REQUEST_ENTITY_TOO_LARGE", "the row alone is refused for its size")
_PARENT_LEFT = (PARENT_MISSING, "the row that makes its parent was not delivered")


def deliver(delivery: Delivery, batch: Batch) -> None:
    """Send the batch for the first time."""
    if delivery.unfinished:  # what went before it, without its parents, and did not arrive is reported already
        rows = pc.invert(pc.is_in(batch.rows["key"], value_set=pa.array(delivery.unfinished, pa.utf8())))
        batch = replace(batch, rows=batch.rows.filter(rows))
    if batch.awaits and delivery.problem is None:
        batch = _with_parents(delivery, batch)
    for part in jobs(batch, delivery.destination) if len(batch.rows) else ():
        if delivery.keeps_images and delivery.problem is None:
            _keep_image(delivery, part)
        send(delivery, part)


def _with_parents(delivery: Delivery, batch: Batch) -> Batch:
    """The batch without the rows whose parents did not arrive: those are held."""
    try:
        batch, missing = with_parents(batch, delivery.destination)
    except DestinationError as error:
        delivery.stop(error)
        return batch
    if missing.any():
        delivery.hold(replace(batch, rows=batch.rows.filter(pa.array(missing))), *_PARENT_LEFT)
    return replace(batch, rows=batch.rows.filter(pa.array(~missing)))


def _keep_image(delivery: Delivery, batch: Batch) -> None:
    """What Salesforce holds goes to disk before it is overwritten; a batch without its image is not sent."""
    try:
        image = image_of(batch, delivery.destination, delivery.run.run_id)
    except (DestinationError, Interrupted) as error:
        delivery.stop(error)
    else:
        delivery.journal.keep_image(delivery.run.run_id, image)


def send(delivery: Delivery, batch: Batch, call_rows: int = COLLECTIONS_CALL_ROWS) -> None:
    """Send the batch, or hold it once the run has a problem."""
    try:
        if delivery.problem is None:
            delivery.clock.sleep(0)
            delivery.journal.hold()
            if batch.api is Api.BULK and len(batch.rows) > delivery.job_rows_max:
                return send_parts(delivery, batch, delivery.job_rows_max)
            if batch.api is Api.COLLECTIONS:
                return by_calls(delivery, batch, call_rows)
            return None if by_job(delivery, batch) else _in_halves(delivery, batch)
    except Interrupted as stop:
        # A batch that had reached its commit point is reported there; of this one nothing was processed.
        delivery.stop(stop)
    return delivery.hold(batch)


def _in_halves(delivery: Delivery, batch: Batch) -> None:
    """Send rows whose data was refused for its size in smaller jobs, as all that follow; one alone is rejected."""
    if len(batch.rows) > 1:
        delivery.job_rows_max = max(1, len(batch.rows) // 2)
        return send_parts(delivery, batch, delivery.job_rows_max)
    batch = replace(batch, id=delivery.new_id())
    delivery.journal.planned(batch, delivery.run.run_id)
    delivery.journal.advance(batch.id, BatchState.SENDING)
    delivery.settle(batch, all_as(batch, Fate.REJECTED, *_TOO_LARGE))
    return None


def send_parts(delivery: Delivery, batch: Batch, rows_max: int) -> None:
    """Send a batch in jobs of so many rows, or in one go of calls of so many."""
    if batch.api is Api.COLLECTIONS:
        return send(delivery, batch, rows_max)
    for start in range(0, len(batch.rows), rows_max):
        for part in jobs(replace(batch, rows=batch.rows.slice(start, rows_max)), delivery.destination):
            send(delivery, part)
    return None
