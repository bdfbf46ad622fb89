"""Rows whose parents are records, or rows too: which wait, which are left out, which go first. Reads only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dinmo_dbt.destination import Fate, Operation
from dinmo_dbt.plan import parents
from dinmo_dbt.plan.parents import CIRCLE, PARENT_AMBIGUOUS, PARENT_MISSING, Link
from dinmo_dbt.plan.records import compared
from dinmo_dbt.plan.work import Work, placed
from dinmo_dbt.rows.changes import Kind
from dinmo_dbt.rows.mapping import MappedColumn
from dinmo_dbt.rows.sets import distinct
from dinmo_dbt.rows.snapshot import Positions

_IN_A_CIRCLE = "its parent is itself, or a row that waits for it: an insert can't point to it (mode: upsert can)"
_TOO_DEEP = f"its parents are more than {parents.LEVELS_MAX} levels deep, and not there yet: the next run sends more"


def meet_parents(work: Work) -> None:
    """Leave out rows whose parents are not there, or let them go without, as `missing_parent` says; let parents
    that are rows of this plan go first."""
    found = [_as_sent(work, link) for column in work.mapping.columns for link in _link_of(work, column)]
    links, made_by = [link for link, _ in found], [maker for _, maker in found]
    for link, maker in zip(links, made_by, strict=True):
        work.leave_out(
            link.rows[link.several & work.is_sent[link.rows]],
            Fate.AMBIGUOUS,
            PARENT_AMBIGUOUS,
            f"several {link.name} hold the parent's value",
            link.column.header,
        )
        _miss(work, link, link.rows[link.missing & (maker < 0) & ~_will_come(work, link)])
    _put_in_order(work, links, made_by)
    _make_first(work, *_waits_for(work, links, made_by))
    inserts = work.sent_by(Operation.INSERT).any()
    by_id = [link for link in links if inserts or not link.column.field.identifies]
    work.parents = {link.column.written.name: placed(link.ids, link.rows, work.size) for link in by_id}


def _link_of(work: Work, column: MappedColumn) -> Iterator[Link]:
    """The parents that rows to be sent name by this column; none where it does not go with them."""
    if column.lookup is None:
        return
    goes = work.is_sent & np.where(work.makes, column.goes(True), column.goes(False))
    for which, mapping in enumerate(work.older):
        if column.header not in work.mapping.added_since(mapping)[0]:
            goes &= ~(work.only_added & (work.found.older == which))
    rows = np.flatnonzero(goes)
    if rows.size:
        wanted = work.spool.take(rows, [column.header])[column.header].combine_chunks()
        yield parents.find(column, work.schema.name, rows, wanted, work.destination)


def _will_come(work: Work, link: Link) -> npt.NDArray[np.bool_]:
    """Which missing parents an earlier plan, not executed yet, will have created."""
    coming = np.zeros(len(link.rows), np.bool_)
    for arriving in work.arriving:
        if (arriving.object, arriving.field) == (link.object, link.column.field.name):
            here = pc.is_in(link.wanted, value_set=arriving.values).to_numpy(zero_copy_only=False)
            coming |= link.missing & here
    work.awaits_parents |= bool(coming.any())
    return coming


def _as_sent(work: Work, link: Link) -> tuple[Link, Positions]:
    """The link as the rows of this plan leave it, and which of them makes each parent; -1 for none."""
    name = parents.maker_column(work.mapping, work.activation.mode, link) if link.object == work.schema.name else None
    if name is None or link.wanted.null_count == len(link.wanted):
        return link, np.full(len(link.rows), -1, np.int64)
    rows = np.flatnonzero(work.is_sent)
    made = work.spool.take(rows, [name])[name].combine_chunks()
    if any(column.header == name and column.keep_nulls for column in work.mapping.columns):
        there = pc.is_valid(made)
        rows, made = rows[there.to_numpy(zero_copy_only=False)], made.filter(there)
    return parents.after(link, rows, made, _written_to(work, rows, link, made if name == "match" else None))


def _written_to(work: Work, rows: Positions, link: Link, matched: pa.Array | None) -> pa.Array:
    """The record that each of these rows is written to; null for a new one. An upsert finds it by the match value;
    where that is what parents are named by (`matched`), the link has asked for the records in question."""
    upserted = rows[work.sent_by(Operation.UPSERT)[rows]]
    if not upserted.size:
        return work.record_ids.take(pa.array(rows))
    if matched is None:
        ids, _ = work.found_by_match(upserted)
    else:
        asked = compared(matched.filter(pa.array(np.isin(rows, upserted))), link.column.field)
        ids = link.ids.take(pc.index_in(asked, value_set=link.wanted))
    by_match = placed(ids, upserted, work.size)
    kept = pa.array(~work.sent_by(Operation.UPSERT))
    return pc.if_else(kept, work.record_ids, by_match).take(pa.array(rows))


def _miss(work: Work, link: Link, rows: Positions) -> None:
    """What becomes of rows whose parent is missing."""
    rows = rows[work.is_sent[rows]]
    known = work.lacking[rows] & (work.found.kind[rows] == Kind.SAME)
    policy, header = work.activation.missing_parent, link.column.header
    if policy == "set_null":
        lost, rows = rows[~known], rows[known]
        work.emptied.setdefault(header, np.zeros(work.size, np.bool_))[lost] = True
        work.unfinished[lost] = True
    fate = Fate.REJECTED if policy == "reject" else Fate.HELD
    work.leave_out(rows, fate, PARENT_MISSING, f"no {link.name} holds the parent's value yet", header)


def _put_in_order(work: Work, links: Sequence[Link], made_by: Sequence[Positions]) -> None:
    """Rows whose parents this plan makes go after those; a circle goes twice, first without its parents. What an
    insert could not mend afterwards, and what is too deep for one run, is held."""
    while True:
        _lose_orphans(work, links, made_by)
        children, makers = _waits_for(work, links, made_by)
        work.level = parents.levels(children, makers, work.size)
        inserted = work.sent_by(Operation.INSERT)
        circle, deep = (work.level == CIRCLE) & inserted, work.level == parents.LEVELS_MAX
        if not circle.any() and not deep.any():
            return
        work.leave_out(np.flatnonzero(circle), Fate.HELD, PARENT_MISSING, _IN_A_CIRCLE)
        work.leave_out(np.flatnonzero(deep), Fate.HELD, PARENT_MISSING, _TOO_DEEP)


def _lose_orphans(work: Work, links: Sequence[Link], made_by: Sequence[Positions]) -> None:
    """Parents that this plan was to make and does not send are missing, and so are those behind them."""
    while True:
        children, makers = _waits_for(work, links, made_by)
        lost = distinct(children[~work.is_sent[makers]])
        if not lost.size:
            return
        gone = np.zeros(work.size, np.bool_)
        if work.activation.missing_parent != "set_null":
            gone = parents.behind(lost, children, makers, work.size)
        gone[lost] = True
        for link, maker in zip(links, made_by, strict=True):
            unmade = (maker >= 0) & gone[link.rows]
            if work.activation.missing_parent == "set_null":
                unmade &= ~work.is_sent[maker]
            _miss(work, link, link.rows[unmade])


def _make_first(work: Work, children: Positions, makers: Positions) -> None:
    """Rows that make records go twice where a field is written only on records that are there; so do those that
    wait for them. What an insert makes is finished by the next run."""
    if all(each.goes(True) for each in work.mapping.sent):
        return
    work.unfinished |= work.sent_by(Operation.INSERT)
    first = np.flatnonzero(work.makes & work.sent_by(Operation.UPSERT))
    work.level[first] = CIRCLE
    work.level[parents.behind(first, children, makers, work.size)] = CIRCLE


def _waits_for(work: Work, links: Sequence[Link], made_by: Sequence[Positions]) -> tuple[Positions, Positions]:
    """Rows that are sent with a parent which this plan makes, and the rows that make it: parallel."""
    none = np.empty(0, np.int64)
    children, makers = [none], [none]
    for link, maker in zip(links, made_by, strict=True):
        waits = (maker >= 0) & work.is_sent[link.rows]
        if link.column.header in work.emptied:
            waits &= ~work.emptied[link.column.header][link.rows]
        children.append(link.rows[waits])
        makers.append(maker[waits])
    return np.concatenate(children), np.concatenate(makers)
