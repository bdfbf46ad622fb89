"""The rows that a run did not deliver: a Parquet file of each run that left any, beside the history."""

from __future__ import annotations

import os

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dinmo_dbt.codes import STATE_NOT_OPENED
from dinmo_dbt.destination import Fate
from dinmo_dbt.durable import open_file
from dinmo_dbt.errors import StateError
from dinmo_dbt.plan.plan import LEFT_OUT
from dinmo_dbt.rows.snapshot import GIVEN_UP
from dinmo_dbt.state.files import Files
from dinmo_dbt.watch.history import RunRecord

# What a run did not deliver, and since when each row has been left out by every run.
UNDELIVERED = LEFT_OUT.append(pa.field("since", pa.float64()))


def keep(files: Files, file: str, rows: pa.Table) -> tuple[int, float | None]:
    """Write `UNDELIVERED` rows; how many of them wait for a later run, and since when the oldest does."""
    waiting = rows.filter(pc.equal(rows["fate"], Fate.HELD.value))
    waiting = waiting.filter(pc.not_equal(pc.fill_null(waiting["code"], ""), GIVEN_UP))
    files.put("runs", file, lambda sink: pq.write_table(rows, sink, compression="zstd", write_page_checksum=True))
    return len(waiting), pc.min(waiting["since"]).as_py()


def with_since(files: Files, rows: pa.Table, started: float, before: RunRecord | None) -> pa.Table:
    """`LEFT_OUT` rows with the start of the first run, of those in an unbroken row up to this, that left them out.
    A list of the run `before` that can't be read says nothing of how long."""
    since = pa.array([started] * len(rows), pa.float64())
    try:
        earlier = read(files, before) if before is not None else None
    except StateError:
        earlier = None
    if earlier is not None:
        found = pc.index_in(rows["key"].combine_chunks(), earlier["key"].combine_chunks())
        since = pc.coalesce(earlier["since"].combine_chunks().take(found), since)
    return rows.append_column("since", since)


def read(files: Files, record: RunRecord) -> pa.Table:
    """What a run did not deliver: `UNDELIVERED` rows; empty if there are none."""
    file = record.undelivered
    if not file:
        return UNDELIVERED.empty_table()
    path = files.fetch("runs", [file]) / file
    try:
        os.close(open_file(path))  # Arrow would wait for a fifo
        table = pq.read_table(path, page_checksum_verification=True)
    except (OSError, pa.ArrowException):
        table = None
    if table is None or not table.schema.equals(UNDELIVERED):
        raise StateError(
            STATE_NOT_OPENED,
            "the list of rows that the run did not deliver is missing or damaged; it is left as it is",
            where=str(path),
            hint="the next run writes its own; no sync reads this one",
        )
    return table
