"""A batch as it can be sent: its parents looked up where batches before it made them, and cut into parts of which each
is one job or call that means what it says. Reads only."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dinmo_dbt.destination import Api, Batch, Destination, Field, Operation, PayloadColumn
from dinmo_dbt.plan.records import find_parents, ids_missing
from dinmo_dbt.rows.sets import distinct


def with_parents(batch: Batch, destination: Destination) -> tuple[Batch, npt.NDArray[np.bool_]]:
    """The batch, and which of its rows have a parent that no record is, or several are. Parents are named by their ids
    from then on where Salesforce does not find them by that field, and by an insert: its results tell them so
    (`salesforce.results`)."""
    missing = np.zeros(len(batch.rows), np.bool_)
    columns, rows = list(batch.columns), batch.rows
    for number, column in enumerate(batch.columns):
        if not column.is_parent_path or not len(rows):
            continue
        lookup = lookup_of(batch, column, destination)
        wanted = rows[column.header].combine_chunks()
        ids, _ = find_parents(destination, batch.object, column.header, lookup, column.field, wanted)
        missing |= ids_missing(ids) & ~ids_missing(wanted)
        if batch.operation is Operation.INSERT or not column.field.identifies:
            columns[number] = PayloadColumn(lookup.name, lookup, column.keep_nulls)
            rows = rows.set_column(rows.column_names.index(column.header), lookup.name, ids)
    return replace(batch, columns=tuple(columns), rows=rows), missing


def jobs(batch: Batch, destination: Destination) -> Iterator[Batch]:
    """The batch in parts. An insert's rows of different payloads that would look alike in one job's results go by
    several jobs. By Bulk rows without a parent go apart from those with one: `#N/A` empties a lookup in the lookup's
    own column, and no document says what it does in a column of its parent's external id."""
    if batch.operation is Operation.INSERT:
        slots = destination.job_slots(batch.rows, batch.columns)
        for slot in distinct(slots):
            yield replace(batch, rows=batch.rows.filter(pa.array(slots == slot)))
        return
    paths = [c for c in batch.columns if c.is_parent_path and not c.keep_nulls] if batch.api is Api.BULK else []
    if not any(batch.rows[column.header].null_count for column in paths):
        yield batch
        return
    empty = np.stack([ids_missing(batch.rows[column.header].combine_chunks()) for column in paths], axis=1)
    patterns, which = np.unique(empty, axis=0, return_inverse=True)  # noqa: TID251
    for number, pattern in enumerate(patterns):
        part = replace(batch, rows=batch.rows.filter(pa.array(which.ravel() == number)))
        for column in (column for column, is_empty in zip(paths, pattern, strict=True) if is_empty):
            part = _emptied(part, column, lookup_of(batch, column, destination))
        yield part


def _emptied(batch: Batch, column: PayloadColumn, lookup: Field) -> Batch:
    """The batch, all of whose rows have no parent by that column, with the lookup itself in its place."""
    columns = tuple(PayloadColumn(lookup.name, lookup) if c is column else c for c in batch.columns)
    nothing = pa.nulls(len(batch.rows), pa.utf8())
    rows = batch.rows.set_column(batch.rows.column_names.index(column.header), lookup.name, nothing)
    return replace(batch, columns=columns, rows=rows)


def lookup_of(batch: Batch, column: PayloadColumn, destination: Destination) -> Field:
    """The lookup behind a parent path."""
    _, _, relationship = column.header.rsplit(".", 1)[0].rpartition(":")
    lookup = destination.describe(batch.object).relationship(relationship)
    assert lookup is not None, column.header
    return lookup
