"""Parents of rows that are to be sent: which records they are, which rows wait for theirs, and which go first because
they make the parents of others. Reads only."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dinmo_dbt.activation import Mode
from dinmo_dbt.destination import Destination
from dinmo_dbt.plan.records import compared, find_parents, ids_missing, parent_object
from dinmo_dbt.rows.mapping import MappedColumn, Mapping
from dinmo_dbt.rows.sets import distinct

Positions = npt.NDArray[np.int64]
Rows = npt.NDArray[np.bool_]

PARENT_MISSING = "PARENT_MISSING"
PARENT_AMBIGUOUS = "PARENT_AMBIGUOUS"
# A hierarchy is sent level by level, a call or a job each at least; what is deeper is the next run's.
LEVELS_MAX = 50
CIRCLE = -1


@dataclass(frozen=True)
class Link:
    """The parents of some spool rows by one column; all arrays run parallel to `rows`.

    `wanted`: the parents' values in the form that Salesforce compares; `ids`: the one record that holds each. Where
    there is a value and no such record, `missing` or `several` says why.
    """

    column: MappedColumn
    object: str
    rows: Positions
    wanted: pa.Array
    ids: pa.Array
    missing: Rows
    several: Rows

    @property
    def name(self) -> str:
        return f"{self.object}.{self.column.field.name}"


def object_of(column: MappedColumn) -> str:
    """The object that a column's parents are of."""
    assert column.lookup is not None
    return parent_object(column.header, column.lookup)


def find(column: MappedColumn, child: str, rows: Positions, wanted: pa.Array, destination: Destination) -> Link:
    """Look for the parents that these rows, of the object `child`, name in a parent path."""
    assert column.lookup is not None
    ids, several = find_parents(destination, child, column.header, column.lookup, column.field, wanted)
    missing = pc.is_valid(wanted).to_numpy(zero_copy_only=False) & ids_missing(ids) & ~several
    return Link(column, object_of(column), rows, compared(wanted, column.field), ids, missing, several)


def maker_column(mapping: Mapping, mode: Mode, link: Link) -> str | None:
    """The spool's column that writes the field by which rows of the same object find a record as their parent."""
    name = link.column.field.name
    if mode is Mode.UPSERT and mapping.match is not None and mapping.match.field.name == name:
        return "match"
    return next((column.header for column in mapping.columns if column.header == name), None)


def after(link: Link, rows: Positions, made: pa.Array, written: pa.Array) -> tuple[Link, Positions]:
    """The link as it is once `rows` are sent, and for each of its rows which of those makes the parent; -1 for none.

    `made` is what the rows write to the field that parents are named by, `written` the records they write to (null: new
    ones). A record that is given another value is no parent by the one it had.
    """
    made = compared(made, link.column.field)
    counts = made.value_counts()
    writers = counts.field("counts").take(pc.index_in(link.wanted, value_set=counts.field("values")))
    own = pc.index_in(link.ids, value_set=written, skip_nulls=True)  # the row that writes to the record found
    keeps = pc.equal(made.take(own), link.wanted)
    keeps = pc.fill_null(keeps, False)
    lost = pc.and_(pc.is_valid(own), pc.invert(keeps)).to_numpy(zero_copy_only=False)
    others = pc.subtract(pc.fill_null(writers, 0), keeps.cast(pa.int64()))
    others = np.where(pc.is_valid(link.wanted), others.to_numpy(zero_copy_only=False), 0)
    there = ~ids_missing(link.ids) & ~lost
    several = link.several | (others + there > 1)
    makes = (others == 1) & ~there & ~several
    place = pc.fill_null(pc.index_in(link.wanted, value_set=made), 0).to_numpy(zero_copy_only=False)
    maker = np.where(makes, rows[place], -1) if len(rows) else np.full(len(makes), -1, np.int64)
    missing = pc.is_valid(link.wanted).to_numpy(zero_copy_only=False) & ~there & ~several
    ids = pc.if_else(pa.array(there & ~several), link.ids, pa.scalar(None, pa.utf8()))
    return replace(link, ids=ids, missing=missing, several=several), maker


def behind(rows: Positions, children: Positions, made_by: Positions, size: int) -> Rows:
    """Of `size` rows those that some of `rows` make the parent of, by however many steps; `rows` only if so."""
    reached = np.zeros(size, np.bool_)
    order = np.argsort(made_by, kind="stable")
    children, made_by = children[order], made_by[order]
    frontier = distinct(rows)
    while frontier.size:
        low, high = np.searchsorted(made_by, frontier, "left"), np.searchsorted(made_by, frontier, "right")
        ranges = [children[start:end] for start, end in zip(low, high, strict=True) if end > start]
        frontier = distinct(np.concatenate([children[:0], *ranges]))
        frontier = frontier[~reached[frontier]]
        reached[frontier] = True
    return reached


def levels(children: Positions, made_by: Positions, size: int) -> npt.NDArray[np.int16]:
    """How many rows, one after the other, are made before each of `size` rows: 0 for most, CIRCLE for rows that are
    their own parent by some way and those behind them, LEVELS_MAX for what is deeper than that."""
    level = np.zeros(size, np.int16)
    for depth in range(1, LEVELS_MAX):
        if not children.size:
            return level
        waits = np.zeros(size, np.bool_)
        waits[children] = True
        still = waits[made_by]
        if still.all():
            level[children] = CIRCLE
            return level
        left = np.zeros(size, np.bool_)
        left[children[still]] = True
        level[waits & ~left] = depth
        children, made_by = children[still], made_by[still]
    level[children] = LEVELS_MAX
    return level
