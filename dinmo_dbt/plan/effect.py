"""What the rows that would be sent do, as guards look at it and as the day counts it. Pure."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dinmo_dbt.activation import Mode
from dinmo_dbt.destination import Fate
from dinmo_dbt.plan import leavers
from dinmo_dbt.plan.guards import Ceilings, Counted, Effect
from dinmo_dbt.plan.work import Work
from dinmo_dbt.rows import carried
from dinmo_dbt.rows.changes import Kind
from dinmo_dbt.rows.keys import respelled
from dinmo_dbt.rows.sets import without
from dinmo_dbt.rows.snapshot import Flag, Positions, keys_in_segment


def effect_of(work: Work) -> Effect:
    """What the rows that would be sent do, as guards look at it."""
    snapshot, found, sent = work.state.snapshot, work.found, work.is_sent
    deleting = work.activation.mode is Mode.DELETE
    came = np.flatnonzero(sent & work.new)
    _find_carried(work, came)
    return Effect(
        known=len(snapshot.kh),
        present=keys_in_segment(snapshot),
        created=len(came),
        changed=found.kh[_rewritten(work)],
        remapped=int(np.count_nonzero(sent & (found.kind == Kind.REMAPPED))),
        removed=int(np.count_nonzero(sent)) if deleting else len(work.leavers.removing),
        left=snapshot.kh[found.left],
        away=snapshot.kh[found.away],
        respelled=len(work.respelled) + len(work.alike),
        shifted=work.shifted,
        admitted=max(0, work.state.admitted - len(snapshot.kh)),
    )


def find_respelled(work: Work) -> None:
    """New keys, of rows that are sent, which are another spelling of one that left, now or at any time before."""
    came = np.flatnonzero(work.new & work.is_sent)
    gone = np.concatenate([work.found.left, work.found.away])
    if work.activation.mode is Mode.DELETE or not (came.size and gone.size):
        return
    keys, left = work.keys_of(came), work.state.snapshot.keys(gone)
    again, pairs = respelled(left, keys, work.mapping.spelling)
    work.respelled = came[again]
    work.replacing = tuple(pairs or zip(left[:5].to_pylist(), keys[:5].to_pylist(), strict=False))


def holds_respelled(work: Work, ceilings: Ceilings) -> bool:
    return work.activation.mode is Mode.INSERT and len(work.respelled) > ceilings.allow_replaced


def hold_respelled(work: Work) -> None:
    """An insert makes no second record of a row whose key is written in another way: a person says which it is."""
    name, rows = work.activation.name, work.respelled
    message = (
        f"the key is another spelling of one that left. The same row: dinmo-dbt state rekey {name}; a row of its "
        f"own: dinmo-dbt sync -s {name} --allow-replaced {len(rows)}"
    )
    work.leave_out(rows, Fate.HELD, leavers.KEY_RESPELLED, message)
    work.respelled = rows[:0]


def _makes_by_key(work: Work) -> bool:
    """Whether a row under another key makes another record."""
    match = work.mapping.match
    by_key = match is not None and match.source in work.mapping.key
    return work.activation.mode is Mode.INSERT or (work.activation.mode is Mode.UPSERT and by_key)


def values_tell(work: Work) -> bool:
    """Whether a row under another key is known by its values. Where each day has other rows (`max_replaced: 100%`),
    they may be those of yesterday."""
    present = keys_in_segment(work.state.snapshot)
    return _makes_by_key(work) and not work.activation.guards.max_replaced.lets_all(present)


def _find_carried(work: Work, came: Positions) -> None:
    """New keys with the values of one that left, and known keys with those of another: where such rows would be
    made once more."""
    work.alike, work.shifted = came[:0], 0
    if not _makes_by_key(work):
        return
    inserting = work.activation.mode is Mode.INSERT
    found, snapshot = work.found, work.state.snapshot
    gone = np.concatenate([found.left, found.away])
    other = inserting & (found.position >= 0) & np.isin(found.kind, (Kind.CHANGED, Kind.DROPPED))
    other[came] = True
    rows = np.flatnonzero(other)
    moved = carried.find(work.mappings, snapshot, work.spool, rows, found.position[rows], gone)
    respelled = np.isin(moved.rows, came) & np.isin(moved.slots, gone)
    work.shifted = int(np.count_nonzero(~respelled))
    if respelled.any() and values_tell(work):
        work.alike = without(moved.rows[respelled], work.respelled)
        old = snapshot.keys(moved.slots[respelled][:5]).to_pylist()
        new = work.keys_of(moved.rows[respelled][:5]).to_pylist()
        work.replacing = tuple(zip(old, new, strict=True))


def _rewritten(work: Work) -> Positions:
    """Known rows that are sent with values that Salesforce did not acknowledge last. Of those that are the same, as
    --full sends them, that is so where the snapshot says nothing."""
    kind, position = work.found.kind, work.found.position
    rewritten = np.isin(kind, (Kind.CHANGED, Kind.RETURNED))
    same = np.flatnonzero((kind == Kind.SAME) & (position >= 0))
    rewritten[same] = work.state.snapshot.flags[position[same]] & Flag.STALE != 0
    rows: Positions = np.flatnonzero(rewritten & work.is_sent)
    return rows


def counted_as(work: Work, passed: frozenset[Counted]) -> npt.NDArray[np.uint8]:
    """As what each row counts for the day."""
    counted = np.zeros(work.size, np.uint8)
    if work.activation.mode is Mode.DELETE:
        counted[:] = Counted.REMOVED
    else:
        counted[work.found.kind == Kind.ADDED] = Counted.CREATED
        counted[work.respelled] = counted[work.alike] = Counted.RESPELLED
        counted[_rewritten(work)] = Counted.CHANGED
    created = int(np.count_nonzero(np.isin(counted, (Counted.CREATED, Counted.RESPELLED))))
    if not work.state.exists or created <= work.state.admitted - len(work.state.snapshot.kh):
        passed |= {Counted.CREATED}  # of a first sync, or let through before
    counted[np.isin(counted, [int(each) for each in passed])] = Counted.NOT
    return counted
