"""Known rows under the keys that the model gives them now: which row is which. Nothing is written to Salesforce.

A row whose key is not known is paired with a known key that is in the segment no more: by what the key was under the
types of the last sync, by another spelling of it, by the row's other values, or by columns of the model that hold the
key it had. Pairs are one to one. Its check hash under the old key tells whether the row is as Salesforce acknowledged
it: nothing is sent of it then. Of the others that is not known, so an insert takes them as they are, and other modes
send them again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dinmo_dbt.activation import Activation, Mode
from dinmo_dbt.codes import NOT_MATCHED, NOT_REKEYED
from dinmo_dbt.destination import Destination
from dinmo_dbt.errors import Refused, UsageError
from dinmo_dbt.plan.plan import Source, StateView
from dinmo_dbt.plan.records import repeated
from dinmo_dbt.rows import carried, values
from dinmo_dbt.rows.key_hashes import key_hash
from dinmo_dbt.rows.keys import key_in_forms, key_text
from dinmo_dbt.rows.mapping import Mapping, as_written, from_header
from dinmo_dbt.rows.rowhash import digest_columns, same_digests
from dinmo_dbt.rows.sets import without
from dinmo_dbt.rows.snapshot import Flag, Positions, Snapshot, Spool, positions_of, snapshot_rows
from dinmo_dbt.upkeep import verify
from dinmo_dbt.upkeep.verify import Scan


@dataclass(frozen=True)
class Rekeying:
    """What `state rekey` would store: `rows` moves the snapshot (kh, ck, key, record_id, flags, op).

    `pairs` have columns old and new. Of them `equal` are as Salesforce acknowledged them. `known` rows have the key
    they had, `fresh` ones no known key that was theirs, `lost` keys no row that is theirs, `ambiguous` rows share one.
    """

    mapping: Mapping
    serial: int
    read: int
    known: int
    equal: int
    fresh: int
    lost: int
    ambiguous: int
    pairs: pa.Table
    rows: pa.Table
    batches: int = 0  # not settled yet: it is not drawn while there are any

    @property
    def moves(self) -> pa.Table:
        return self.rows


def draw(
    activation: Activation,
    source: Source,
    destination: Destination,
    state: StateView,
    spool: Spool,
    *,
    former: Sequence[str] = (),
) -> Rekeying:
    """Pair rows with known keys. `former`: the model's columns that hold the key a row had, in the key's order.
    UsageError DB813 if they can't; Refused DB417 while rows are in flight, or where an upsert's match moves with the
    key."""
    if state.in_flight:
        message = "rows are in flight: what became of them is not known yet"
        raise Refused(NOT_REKEYED, message, where=activation.meta_path, hint="dinmo-dbt sync settles them first")
    seen = verify.scan(activation, source, destination, state, spool)
    snapshot = state.snapshot
    new = np.flatnonzero(seen.found.position < 0)
    keys = _taken(seen, new, "key")
    free = _free(seen)
    slot = np.full(len(new), -1, np.int64)
    if former:
        _pair(slot, snapshot, free, _former(activation, source, seen, keys, former))
    else:
        for header in state.mappings:
            forms = header["key_forms"]
            if len(forms) == len(seen.mapping.key):
                _pair(slot, snapshot, free, key_in_forms(keys, forms))
        _pair_spellings(slot, snapshot, free, keys, seen.mapping)
        _pair_values(slot, seen, free, new)
    shared = (slot >= 0) & repeated(pa.array(slot))
    ambiguous, slot[shared] = int(shared.sum()), -1
    paired = np.flatnonzero(slot >= 0)
    rows, at = new[paired], slot[paired]
    old = snapshot.keys(at)
    if activation.mode is Mode.UPSERT and rows.size:
        _refuse_moved_match(activation, seen, rows, old)
    equal = _equal(activation, seen, rows, at, old)
    delivered = equal | (activation.mode is Mode.INSERT)  # as it is now: what changes later is another record
    return Rekeying(
        mapping=seen.mapping,
        serial=state.serial,
        read=seen.found.read,
        known=len(seen.found.kind) - len(new),
        equal=int(equal.sum()),
        fresh=len(new) - len(rows) - ambiguous,
        lost=int(free.sum()) - len(rows),
        ambiguous=ambiguous,
        pairs=pa.table({"old": old, "new": keys.take(pa.array(paired))}),
        rows=_moves(seen, rows, at, delivered),
    )


def _taken(seen: Scan, rows: Positions, column: str) -> pa.Array:
    return seen.spool.take(rows, [column])[column].combine_chunks() if rows.size else pa.array([], pa.utf8())


def _free(seen: Scan) -> npt.NDArray[np.bool_]:
    """Known keys that no row of the segment has."""
    flags = np.asarray(seen.state.snapshot.flags)
    free: npt.NDArray[np.bool_] = flags & Flag.LEFT != 0
    free[seen.found.position[seen.found.position >= 0]] = False
    free[seen.found.left] = True
    return free


def _former(activation: Activation, source: Source, seen: Scan, keys: pa.Array, columns: Sequence[str]) -> pa.Array:
    """The key that each row had, as the model's own columns say; null where they say nothing."""
    relation = source.schema(activation.model.relation_name)
    missing = [name for name in columns if name not in relation.names]
    if missing or len(columns) != len(seen.mapping.key):
        message = f"no column {', '.join(missing)}" if missing else f"the key has {len(seen.mapping.key)} columns"
        hint = f"--from with columns of {activation.model.relation_name}, one for each key column, in its order"
        raise UsageError(NOT_MATCHED, message, where=activation.meta_path, hint=hint)
    read: list[tuple[pa.Array, pa.Array]] = []
    wanted = list(dict.fromkeys([*seen.mapping.key, *columns]))
    for batch in source.read(activation.model.relation_name, wanted, activation.where):
        own = [key_text([batch.column(name) for name in names]) for names in (seen.mapping.key, columns)]
        read.append((own[0], own[1]))
    now, before = (pa.chunked_array([each[side] for each in read], pa.utf8()).combine_chunks() for side in (0, 1))
    forms = from_header(seen.state.mappings[0]).key_forms if seen.state.mappings else ()
    before = before.take(pc.index_in(keys, value_set=now))
    whole = pc.is_valid(before)
    plain = key_in_forms(before.filter(whole), forms) if forms else before.filter(whole)
    return pc.replace_with_mask(before, whole, plain)


def _pair(slot: Positions, snapshot: Snapshot, free: npt.NDArray[np.bool_], old: pa.Array) -> None:
    """Give rows without a slot that of their old key, where it is free."""
    rows = np.flatnonzero((slot < 0) & pc.is_valid(old).to_numpy(zero_copy_only=False))
    if not rows.size:
        return
    texts = old.take(pa.array(rows))
    found = positions_of(snapshot, key_hash(texts), texts)
    found[found >= 0] = np.where(free[found[found >= 0]], found[found >= 0], -1)
    slot[rows] = found


def _pair_spellings(
    slot: Positions, snapshot: Snapshot, free: npt.NDArray[np.bool_], keys: pa.Array, mapping: Mapping
) -> None:
    """The same by another spelling of a key, where only one known key has it."""
    taken = np.zeros(len(free), np.bool_)
    taken[slot[slot >= 0]] = True
    at, rows = np.flatnonzero(free & ~taken), np.flatnonzero(slot < 0)
    if not (at.size and rows.size):
        return
    known = mapping.spelling(snapshot.keys(at))
    alone = np.flatnonzero(~repeated(known))
    index = pc.index_in(mapping.spelling(keys.take(pa.array(rows))), value_set=known.take(pa.array(alone)))
    found = pc.fill_null(index, -1).to_numpy()
    slot[rows[found >= 0]] = at[alone[found[found >= 0]]]


def _pair_values(slot: Positions, seen: Scan, free: npt.NDArray[np.bool_], new: Positions) -> None:
    """The same by the values that a row has, where only one known key had them."""
    rows, gone = np.flatnonzero(slot < 0), without(np.flatnonzero(free), slot)
    mappings = [seen.mapping, *(from_header(header) for header in seen.state.mappings)]
    found = carried.find(mappings, seen.state.snapshot, seen.spool, new[rows], np.full(len(rows), -1), gone)
    slot[rows[np.searchsorted(new[rows], found.rows)]] = found.slots


def _refuse_moved_match(activation: Activation, seen: Scan, rows: Positions, old: pa.Array) -> None:
    """Records are found by their match value; where that is the key, they hold the one it was."""
    match = seen.mapping.match
    if match is None or seen.mapping.key != (match.source,):
        return
    held = values.fold(values.echo_form(values.from_text(old, match.field), match.field), match.field)
    now = values.fold(values.echo_form(_taken(seen, rows, "match"), match.field), match.field)
    moved = len(rows) - int(pc.sum(pc.equal(held, now).cast(pa.int64())).as_py() or 0)
    if moved:
        message = f"{match.header} is the key itself: for {moved:,} rows Salesforce holds another value than the model"
        hint = (
            f"cast {match.source} in the model's SQL to what it was, or correct {match.header} in Salesforce, then: "
            f"dinmo-dbt state reset {activation.name}"
        )
        raise Refused(NOT_REKEYED, message, where=activation.meta_path, hint=hint)


def _equal(activation: Activation, seen: Scan, rows: Positions, at: Positions, old: pa.Array) -> npt.NDArray[np.bool_]:
    """Which rows are what Salesforce acknowledged: by the check hash that they would have under the old key and the
    types of then. Only an insert takes another text of the same value for delivered."""
    equal = np.zeros(len(rows), np.bool_)
    if not rows.size:
        return equal
    spooled = seen.spool.take(rows)
    for header in seen.state.mappings:
        stored = from_header(header)
        columns = [("match", stored.match)] if stored.match else []
        columns += [(column.header, column) for column in stored.columns]
        if any(name not in spooled.column_names for name, _ in columns):
            continue
        now = [spooled[name].combine_chunks() for name, _ in columns]
        then = as_written(now, [column for _, column in columns])
        if then is None:
            continue
        same = same_digests(seen.state.snapshot.ck[at], digest_columns([old, *then], seed=stored.digest))
        if activation.mode is not Mode.INSERT:
            for one, other in zip(now, then, strict=True):
                alike = pc.or_(pc.fill_null(pc.equal(one, other), False), pc.is_null(one))
                same &= alike.to_numpy(zero_copy_only=False)
        equal |= same
    return equal


def _moves(seen: Scan, rows: Positions, at: Positions, delivered: npt.NDArray[np.bool_]) -> pa.Table:
    """The old keys go, the new ones come in their place; what was not `delivered` is sent."""
    snapshot = seen.state.snapshot
    moved = snapshot_rows(snapshot, at, "put")
    if not rows.size:
        return moved
    taken = seen.spool.take(rows, ["kh", "ck", "key"]).combine_chunks()
    flags = snapshot.flags[at] & ~np.uint8(Flag.LEFT)
    flags = np.where(delivered, flags, flags | np.uint8(Flag.STALE)).astype(np.uint8)
    ck = pc.if_else(pa.array(delivered), taken["ck"], moved["ck"])
    for name, column in (("kh", taken["kh"]), ("key", taken["key"]), ("ck", ck), ("flags", pa.array(flags))):
        moved = moved.set_column(moved.column_names.index(name), name, column)
    gone = snapshot_rows(snapshot, at, "forget")
    return pa.concat_tables([gone.filter(pc.invert(pc.is_in(gone["key"], value_set=taken["key"]))), moved])
