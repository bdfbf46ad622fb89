"""What `on_removed` does with the records of keys that left the segment. Reads only."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dinmo_dbt.activation import Mode
from dinmo_dbt.destination import Fate, Field
from dinmo_dbt.plan import guards, leavers
from dinmo_dbt.plan.batches import COLLECTIONS_ROWS_MAX
from dinmo_dbt.plan.effect import holds_respelled, values_tell
from dinmo_dbt.plan.guards import Ceilings
from dinmo_dbt.plan.leavers import Leavers
from dinmo_dbt.plan.plan import LEFT_OUT, flying
from dinmo_dbt.plan.records import ids_missing
from dinmo_dbt.plan.work import Work, explained_waits
from dinmo_dbt.rows import carried, values
from dinmo_dbt.rows.key_hashes import match_hash
from dinmo_dbt.rows.rowhash import Hashes
from dinmo_dbt.rows.sets import among
from dinmo_dbt.rows.snapshot import GIVEN_UP, Flag, Positions, keys_in_segment

_LEAVERS_HELD = {
    leavers.RECORD_ID_UNKNOWN: "the row left the segment, and its record id is not known: its record stays as it is",
    leavers.KEY_RESPELLED: "the row left the segment, but is there under another key, and not sent: its record "
    "stays as it is",
    leavers.RECORD_SHARED: "the row left the segment, but another row, activation or dbt target has its record: "
    "that stays as it is",
}


def plan_removals(work: Work, ceilings: Ceilings) -> list[str]:
    """Sort out the keys that left. Where no row was read nothing is done to a record, whatever the guards say.
    Notes on those whose records stay, although `on_removed` asks for more."""
    left, state = work.found.left, work.state
    if work.activation.on_removed == "ignore" or work.activation.mode is Mode.DELETE or not work.found.read:
        work.leavers = Leavers(noted=left)
        return []
    most = guards.deletes_max(work.activation.guards, keys_in_segment(state.snapshot), ceilings.allow_deletes)
    work.leavers = leavers.sort_out(
        left,
        state.snapshot,
        work.waits,
        flying=lambda positions: flying(
            state.in_flight, state.snapshot.kh[positions], lambda rows: state.snapshot.keys(positions[rows])
        ),
        shared=lambda ids: _shared(work, ids, most),
        moved=lambda positions: _stays_under_another_key(work, positions, ceilings),
        retry=ceilings.full,
    )
    for code, keys in work.leavers.held:
        (code,), (waiting,) = (column.to_pylist() for column in explained_waits(pa.array([code])))
        message = _LEAVERS_HELD.get(code, waiting)
        work.waiting += len(keys) if code not in (*_LEAVERS_HELD, GIVEN_UP) else 0
        texts = [pa.repeat(text, len(keys)) for text in (Fate.HELD.value, code, message)]
        nothing = pa.nulls(len(keys), pa.utf8())
        work.asides.append(pa.table([keys, *texts, nothing, nothing, texts[2]], schema=LEFT_OUT))
    return [_not_ours(work.activation.name, len(work.leavers.noted))] if len(work.leavers.noted) else []


def _stays_under_another_key(work: Work, left: Positions, ceilings: Ceilings) -> npt.NDArray[np.bool_]:
    """Which of the keys that left are here under another one, in another spelling or by their values, in a row that
    is not sent: nothing else would be left of them."""
    if not left.size:
        return np.zeros(0, np.bool_)
    aside, new = work.found.aside, work.new & ~work.is_sent
    if holds_respelled(work, ceilings):
        new[work.respelled] = True
    rows = np.flatnonzero(new)
    snapshot = work.state.snapshot
    has_record = np.asarray(snapshot.flags) & Flag.UNKNOWN == 0  # else it may have been made, or not
    unknown = ~among(aside["kh"].to_numpy(), snapshot.kh[has_record])
    keys = pa.concat_arrays([aside["key"].combine_chunks().filter(pa.array(unknown)), work.keys_of(rows)])
    same = pc.is_in(work.mapping.spelling(snapshot.keys(left)), value_set=work.mapping.spelling(keys))
    moved: npt.NDArray[np.bool_] = same.to_numpy(zero_copy_only=False)
    if rows.size and values_tell(work):
        own = np.full(len(rows), -1)
        moved |= np.isin(left, carried.find(work.mappings, snapshot, work.spool, rows, own, left).slots)
    return moved


def _shared(work: Work, ids: pa.Array, most: int) -> npt.NDArray[np.bool_]:
    """Which of these records another row of the segment has, or will have once it is sent: by record id, or because
    the record holds its match value, as it does where only the key of a row changed.

    Records are asked for their match values only where a row could have one of them, and not beyond `most` and a
    few calls: such a plan is refused as it is.
    """
    if not len(ids):
        return np.zeros(0, np.bool_)
    own = pc.is_in(ids, value_set=work.record_ids.drop_null()).to_numpy(zero_copy_only=False)
    taken: npt.NDArray[np.bool_] = (work.holders(ids) > 0) | own | work.state.held_elsewhere(ids)
    match, open_ids = work.mapping.match, ids.filter(pa.array(~taken))
    if match is None or not 0 < len(open_ids) <= max(most, COLLECTIONS_ROWS_MAX):
        return taken
    wanted = _match_hashes_without_record(work)
    if len(wanted):
        held = open_ids if match.header == "Id" else _held_matches(work, open_ids, match.field)
        claimed = among(match_hash(held, match.field), wanted)
        taken[np.flatnonzero(~taken)] = claimed & pc.is_valid(held).to_numpy(zero_copy_only=False)
    return taken


def _match_hashes_without_record(work: Work) -> Hashes:
    """The match values of the rows whose record is not known: to be sent, left out or waiting."""
    assert work.mapping.match is not None
    aside: Hashes = work.found.aside["mh"].drop_null().to_numpy()
    rows = np.flatnonzero(ids_missing(work.record_ids))
    if not rows.size:
        return aside
    spooled = work.spool.take(rows, ["match"])["match"].combine_chunks()
    return np.concatenate([aside, match_hash(spooled, work.mapping.match.field)])


def _held_matches(work: Work, ids: pa.Array, by: Field) -> pa.Array:
    """The match value that each record holds in Salesforce now; null for a record that is gone."""
    records = work.destination.read_many(work.schema.name, (by.name,), ids)
    held = records[by.name].combine_chunks()
    return values.from_text(held.take(pc.index_in(ids, value_set=records["Id"].combine_chunks())), by)


def _not_ours(name: str, number: int) -> str:
    """Of keys that left, of whose records nothing tells that they are this activation's, or nothing does any more."""
    rows = "1 row" if number == 1 else f"{number:,} rows"
    return (
        f"{rows} left the segment, and on_removed leaves the records as they are: this activation neither created nor "
        f"adopted them. Those of rows that are still there are taken over by dinmo-dbt state reset {name}, then "
        f"dinmo-dbt state adopt {name} --yes"
    )
