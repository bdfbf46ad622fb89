"""Rows that are sent, cut into batches: of one operation and the same columns, by collections or by Bulk. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from dinmo_dbt.activation import Activation, Mode
from dinmo_dbt.destination import Api, Field, Operation, PayloadColumn
from dinmo_dbt.plan import parents
from dinmo_dbt.plan.parents import CIRCLE
from dinmo_dbt.plan.plan import PlannedBatch
from dinmo_dbt.plan.work import IN_ORDER, Work
from dinmo_dbt.rows import values
from dinmo_dbt.rows.sets import distinct
from dinmo_dbt.rows.snapshot import Positions
from dinmo_dbt.rows.texts import BULK_NULL

# Up to here by collections, 200 a call; above by Bulk API 2.0 (Bulk API 2.0 Developer Guide, "When to use").
COLLECTIONS_ROWS_MAX = 2_000
# One job: well under the 100 MB of CSV a job takes, and few enough rows that its results fit in memory.
BULK_ROWS_MAX = 200_000
BULK_BYTES_MAX = 100_000_000
_ID = Field(name="Id", label="Record ID", type="id", length=18, nillable=False, id_lookup=True)


def batches(work: Work) -> Iterator[PlannedBatch]:
    total = int(np.count_nonzero(work.is_sent)) + len(work.leavers.removing)
    for level in distinct(work.level[work.is_sent & (work.level != CIRCLE)]).tolist():
        yield from _of_level(work, work.level == level, total, awaits=level > 0)
    circle = work.level == CIRCLE
    yield from _of_level(work, circle, total, without_parents=True)
    work.makes &= ~circle  # by then they are there
    yield from _of_level(work, circle, total, awaits=True)
    yield from _removal_batches(work, total)


def _of_level(
    work: Work, here: npt.NDArray[np.bool_], total: int, *, awaits: bool = False, without_parents: bool = False
) -> Iterator[PlannedBatch]:
    """The batches of these rows, each of one operation and with the same columns."""
    for operation in IN_ORDER:
        doing = here & work.sent_by(operation)
        for makes in (True, False):
            rows = np.flatnonzero(doing & (work.makes == makes) & ~work.only_added)
            columns = _payload(work, operation, makes=makes, awaits=awaits, without_parents=without_parents)
            for batch in _cut(work, operation, rows, columns, total):
                yield replace(batch, awaits=awaits, without_parents=without_parents)
        for which, mapping in enumerate(work.older):
            rows = np.flatnonzero(doing & work.only_added & (work.found.older == which))
            only = work.mapping.added_since(mapping)
            columns = _payload(work, operation, makes=False, awaits=awaits, without_parents=without_parents, only=only)
            for batch in _cut(work, operation, rows, columns, total):
                yield replace(batch, awaits=awaits, without_parents=without_parents)


def _removal_batches(work: Work, total: int) -> Iterator[PlannedBatch]:
    """What `on_removed` does, after everything else: rows that pointed to such a record have let go of it by then
    (a detail would be deleted with its master), and nothing is deleted in a run that could not deliver the rest.
    """
    columns = (PayloadColumn("Id", _ID), *(constant.payload() for constant in work.mapping.removed))
    operation = Operation.UPDATE if work.mapping.removed else Operation.DELETE
    texts = [values.text(c.value, c.field)[0].as_py() for c in work.mapping.removed]
    wanted = work.activation.api
    by_bulk = wanted == "bulk" or (wanted == "auto" and total > COLLECTIONS_ROWS_MAX)
    api = Api.BULK if by_bulk and BULK_NULL not in texts else Api.COLLECTIONS
    size = 32 + sum(2 * len((text or BULK_NULL).encode()) + 3 for text in texts)
    fitting = max(1, (BULK_BYTES_MAX - 32_000) // size)
    most = min(fitting, BULK_ROWS_MAX) if api is Api.BULK else COLLECTIONS_ROWS_MAX
    rows: Positions = np.arange(len(work.leavers.removing))
    for start in range(0, len(rows), most):
        yield PlannedBatch(operation, api, columns, None, rows[start : start + most], leavers=True)


def _cut(
    work: Work, operation: Operation, rows: Positions, columns: tuple[PayloadColumn, ...], total: int
) -> Iterator[PlannedBatch]:
    if not rows.size:
        return
    match = work.mapping.match.header if work.mapping.match and operation is Operation.UPSERT else None
    by_bulk = _by_bulk(work, operation, rows, total)
    constants = [values.text(c.value, c.field)[0].as_py() or BULK_NULL for c in work.mapping.constants]
    fixed = sum(2 * len(text.encode()) + 3 for text in constants) + 19 * len(work.parents)
    for api in Api:
        here = rows[by_bulk] if api is Api.BULK else rows[~by_bulk]
        for part in cuts(work.found.width[here].astype(np.int64) + fixed, api):
            yield PlannedBatch(operation, api, columns, match, here[part])


def _by_bulk(work: Work, operation: Operation, rows: Positions, total: int) -> npt.NDArray[np.bool_]:
    if operation is Operation.INSERT:
        return np.ones(len(rows), np.bool_)
    unsafe = operation is Operation.DELETE and work.schema.key_prefix is None
    if not unsafe and goes_by_collections(work.activation, total):
        return np.zeros(len(rows), np.bool_)
    if operation is Operation.DELETE:
        return np.ones(len(rows), np.bool_)
    # #N/A as a text means null in a CSV file; in JSON it is itself, and a row may be longer.
    fits: npt.NDArray[np.bool_] = work.found.no_bulk[rows] == 0
    return fits


def _payload(
    work: Work,
    operation: Operation,
    *,
    makes: bool,
    awaits: bool,
    without_parents: bool,
    only: tuple[frozenset[str], frozenset[str]] | None = None,
) -> tuple[PayloadColumn, ...]:
    """The columns of a batch. `makes`: its rows make records; `awaits`: parents of their own object may not be
    there yet; `without_parents`: they go without those; `only`: these headers of columns and constants alone."""
    match = work.mapping.match
    columns: list[PayloadColumn] = []
    headers = {column.header for column in work.mapping.columns}
    if operation in (Operation.UPDATE, Operation.DELETE):
        columns.append(PayloadColumn("Id", _ID))
    carries_match = only is None and work.activation.mode is Mode.UPSERT
    if match and match.header != "Id" and carries_match and match.header not in headers:
        columns.append(match.payload())
    for column in work.mapping.columns:
        own = column.lookup is not None and parents.object_of(column) == work.schema.name
        if (only is None or column.header in only[0]) and column.goes(makes) and not (without_parents and own):
            by_id = operation is Operation.INSERT or not column.field.identifies
            resolved = by_id and column.lookup is not None and not (own and awaits)
            columns.append(column.by_id() if resolved else column.payload())
    of_all = [c for c in work.mapping.constants if c.goes(makes)]
    return (*columns, *(c.payload() for c in of_all if only is None or c.header in only[1]))


def goes_by_collections(activation: Activation, total: int) -> bool:
    """Whether that many rows, where they can go either way, go by collections."""
    return activation.api == "collections" or (activation.api == "auto" and total <= COLLECTIONS_ROWS_MAX)


def cuts(width: npt.NDArray[np.int64], api: Api) -> Iterator[slice]:
    """Where to cut rows of these CSV sizes, so that each part is one batch; a part has at least one row."""
    rows_max = BULK_ROWS_MAX if api is Api.BULK else COLLECTIONS_ROWS_MAX
    start = 0
    while start < len(width):
        size = np.cumsum(width[start : start + rows_max])
        end = start + max(1, int(np.searchsorted(size, BULK_BYTES_MAX - 32_000, side="right")))
        yield slice(start, end)
        start = end
