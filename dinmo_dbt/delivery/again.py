"""Rows that were set aside are sent again: smaller, later, or once their unique values are let go of."""

from __future__ import annotations

import random
from contextlib import suppress
from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc

from dinmo_dbt.delivery.by_calls import COLLECTIONS_CALL_ROWS
from dinmo_dbt.delivery.passing import LettingGo, letting_go
from dinmo_dbt.delivery.sending import send, send_parts
from dinmo_dbt.delivery.underway import Delivery
from dinmo_dbt.destination import Api, Batch, Fate, Operation, Remedy
from dinmo_dbt.errors import (
    DestinationError,
    Interrupted,
)
from dinmo_dbt.plan.plan import LEFT_OUT

# Rows refused for a passing reason (locks) are sent again after about so long, in twice as many jobs each time; what
# then still waits is the next run's.
AGAIN_PAUSES_S = (5.0, 20.0, 60.0)
AGAIN_JITTER = 0.5  # a pause is drawn from half to one and a half of it, so that two loaders fall out of step
AGAIN_ROWS_MIN = 200  # one chunk of a job: in fewer rows none waits for another chunk
# Rows whose transaction was too much for a trigger or flow are sent again at once, so many in a job or call.
SMALLER_ROWS = (100, 50, 25, 12)
SMALLER_BATCHES_MAX = 50


def send_again(delivery: Delivery) -> None:
    """Send what was set aside again: fewer rows at a time where there were too many, later where others were in
    the way. What does not pass within these bounds is rejected, and tried by the next run."""
    for rows_max in SMALLER_ROWS:
        _send_smaller(delivery, rows_max, last=rows_max == SMALLER_ROWS[-1])
    # Drawn from the run's id: two runs fall out of step, and one run can be played again.
    draw = random.Random(delivery.run.run_id)
    for number, pause in enumerate(AGAIN_PAUSES_S, 1):
        seconds = pause * draw.uniform(1 - AGAIN_JITTER, 1 + AGAIN_JITTER)
        _send_later(delivery, seconds, parts=2**number, last=pause == AGAIN_PAUSES_S[-1])
    _send_passed(delivery)
    for left in delivery.aside.rows:
        delivery.tell(left.batch, left.results)
    delivery.aside.rows = []


def _send_smaller(delivery: Delivery, rows_max: int, *, last: bool) -> None:
    batches = _taken(delivery, Remedy.SMALLER, last=last)
    room = SMALLER_BATCHES_MAX * rows_max
    for whole in batches:
        batch = replace(whole, rows=whole.rows.slice(0, room))
        room -= len(batch.rows)
        send_parts(delivery, batch, rows_max)
        if len(batch.rows) < len(whole.rows):
            over = replace(whole, rows=whole.rows.slice(len(batch.rows)))
            delivery.hold(over, "NOT_SENT", "one run sends so many rows in small batches and no more")


def _send_later(delivery: Delivery, seconds: float, *, parts: int, last: bool) -> None:
    batches = _taken(delivery, Remedy.AGAIN, last=last)
    try:
        if batches:
            delivery.clock.sleep(seconds)
    except Interrupted as stop:
        delivery.stop(stop)
    for batch in batches:
        if batch.api is Api.BULK:
            send_parts(delivery, batch, max(AGAIN_ROWS_MIN, -(-len(batch.rows) // parts)))
        else:
            send(delivery, batch, max(1, COLLECTIONS_CALL_ROWS // parts))


def _send_passed(delivery: Delivery) -> None:
    """Send rows again whose unique values another of them held, once those are let go of.

    A row whose record lets go counts as changed from before that call on: should this run end in between, the next
    one sends it, whatever the model says by then. One that is refused after all gets its value back, or it is said
    that its field is empty.
    """
    batches = _taken(delivery, Remedy.LET_GO, last=True)
    going: list[LettingGo] = []
    if batches:
        with suppress(DestinationError):  # then they are refused once more, and say so
            going = letting_go(batches, delivery.destination)
    for each in going:
        for batch in batches:
            mine = pc.is_in(_record_ids(batch), value_set=each.batch.rows["Id"].combine_chunks())
            delivery.doubt(replace(batch, rows=batch.rows.filter(mine)))
        _write(delivery, each.batch)
    before = len(delivery.not_delivered)
    for batch in batches:
        send(delivery, batch)
    refused = {key for table in delivery.not_delivered[before:] for key in table["key"].to_pylist()}
    rows = [(_record_ids(batch).to_pylist(), batch.rows["key"].to_pylist()) for batch in batches]
    left = {record: key for ids, keys in rows for record, key in zip(ids, keys, strict=True) if key in refused}
    for each in going:
        ids = each.back.rows["Id"].combine_chunks()
        back = replace(each.back, rows=each.back.rows.filter(pc.is_in(ids, value_set=pa.array(left, pa.utf8()))))
        empty = set(back.rows["Id"].to_pylist()) - _write(delivery, back)
        keys = pa.array([left[record] for record in empty], pa.utf8())
        words = f"; {each.name} of its record is without its value, which another row has now"
        delivery.not_delivered[before:] = [_with_words(table, keys, words) for table in delivery.not_delivered[before:]]


def _write(delivery: Delivery, batch: Batch) -> set[str]:
    """Calls that acknowledge nothing: what they write is on the way to what the rows are to hold. The ids of the
    records that were written."""
    done: set[str] = set()
    try:
        for start in range(0, len(batch.rows) if delivery.problem is None else 0, COLLECTIONS_CALL_ROWS):
            delivery.clock.sleep(0)
            call = replace(batch, rows=batch.rows.slice(start, COLLECTIONS_CALL_ROWS))
            fate = delivery.destination.send(call, delivery.journal.hold)["fate"]
            done.update(call.rows["Id"].filter(pc.equal(fate, Fate.SUCCEEDED.value)).to_pylist())
    except (DestinationError, Interrupted) as failure:
        delivery.stop(failure)
    return done


def _taken(delivery: Delivery, remedy: Remedy, *, last: bool) -> list[Batch]:
    """As `ToSendAgain.taken`; nothing once the run has a problem."""
    return delivery.aside.taken(remedy, last=last) if delivery.problem is None else []


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
