"""Take over records that Salesforce holds already: which row is which record. Nothing is written to Salesforce.

A row is matched if exactly one record agrees with it in every matching field, no other row has that record, and no
known row does. A known row that changed, of which an insert would make one more record, is matched as well by a record
that holds every value of it, but for a parent that it may go without: another copy of the state made that. Several are
ambiguous, never a pick: an insert of such a row may make one more record of it, so it is kept like one whose outcome is
unknown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dinmo_dbt.activation import Activation, Mode
from dinmo_dbt.codes import NOT_MATCHED, PLAN_STALE
from dinmo_dbt.destination import Destination
from dinmo_dbt.errors import StateError, UsageError
from dinmo_dbt.plan.plan import Source, StateView
from dinmo_dbt.plan.records import repeated
from dinmo_dbt.rows import values
from dinmo_dbt.rows.changes import Kind
from dinmo_dbt.rows.field_types import type_of
from dinmo_dbt.rows.mapping import Mapping, from_header
from dinmo_dbt.rows.rowhash import DIGEST
from dinmo_dbt.rows.snapshot import Flag, Positions, Spool
from dinmo_dbt.upkeep import verify
from dinmo_dbt.upkeep.verify import ByRecord, Fact, Flags, Scan

_CLAIM_ROWS = 1 << 20

SEVERAL, SHARED, CLAIMED = "several records match", "another row matches the same record", "a known row has the record"


@dataclass(frozen=True)
class Adoption:
    """What `state adopt` would store. `rows` moves the snapshot (kh, ck, key, record_id, flags, op), and `doubts` does
    for an insert's ambiguous rows, which no sync sends as they are from then on.

    `read == matched + ambiguous + unmatched + known + in_flight + invalid`; `equal` of the matched are in Salesforce
    as the model has them. `ambiguous`: key and reason; `unmatched`: key.
    """

    mapping: Mapping
    matched_by: tuple[tuple[str, str], ...]
    serial: int
    batches: int  # not settled yet
    read: int
    known: int
    in_flight: int
    invalid: int
    equal: int
    doubtful: int  # of the matched: rows that may have been inserted before
    rows: pa.Table
    doubts: pa.Table
    ambiguous: pa.Table
    unmatched: pa.Table

    @property
    def moves(self) -> pa.Table:
        return pa.concat_tables([self.rows, self.doubts])


def draw(
    activation: Activation,
    source: Source,
    destination: Destination,
    state: StateView,
    spool: Spool,
    *,
    matches: Sequence[tuple[str, str]] = (),
) -> Adoption:
    """Find the record of every row that has none, or of whose change an insert would make one. `matches` are columns
    and the fields they are mapped to, all of which must agree; for an insert, which has no match of its own.
    UsageError DB813 if they can't be used."""
    seen = verify.scan(activation, source, destination, state, spool)
    by = _matching(activation, seen.mapping, matches)
    compared, left_out = verify.facts(activation, seen.mapping)
    size = len(seen.found.kind)
    doubtful = seen.flags_of(np.arange(size)) & Flag.UNKNOWN != 0
    changed = _inserted_anew(activation, seen) & ~doubtful
    wanted = np.flatnonzero(((seen.found.position < 0) | doubtful | changed) & ~seen.flying)
    sent = _as_sent(activation, seen.mapping, compared)
    pairs = _only_whole(seen, _agreeing(seen, destination, by, compared, sent, wanted), changed)
    reason = _ambiguous(seen, pairs, size)
    matched = reason[pairs.rows] == 0
    rows, ids, equal = pairs.rows[matched], pairs.ids.filter(pa.array(matched)), pairs.equal[matched] & (not left_out)
    flags = _adopted(activation, equal, lacking=pairs.sent[matched] & ~pairs.equal[matched])
    doubts = np.flatnonzero((reason > 0) & ~doubtful & (activation.mode is Mode.INSERT))
    found = np.zeros(size, np.bool_)
    found[pairs.rows] = True
    wanted = wanted[found[wanted] | ~changed[wanted]]  # a known row without another record stays one
    flying = int(seen.flying.sum())
    return Adoption(
        mapping=seen.mapping,
        matched_by=tuple((_source(seen.mapping, fact), fact.name) for fact in by),
        serial=state.serial,
        batches=len(state.in_flight),
        read=seen.found.read,
        known=size - len(wanted) - flying,
        in_flight=flying,
        invalid=len(seen.found.aside),
        equal=int(equal.sum()),
        doubtful=int(doubtful[rows].sum()),
        rows=_moves(seen, rows, ids, flags),
        doubts=_moves(seen, doubts, pa.nulls(len(doubts), pa.utf8()), np.full(len(doubts), Flag.UNKNOWN, np.uint8)),
        ambiguous=_reasons(seen, reason),
        unmatched=_keys(seen, wanted[~found[wanted]]),
    )


def _source(mapping: Mapping, fact: Fact) -> str:
    """The model's column that feeds the fact."""
    columns = [column for column in (mapping.match, *mapping.columns) if column is not None]
    return next(column.source for column in columns if column.header == fact.name)


# By what


def _matching(activation: Activation, mapping: Mapping, matches: Sequence[tuple[str, str]]) -> list[Fact]:
    """The facts that must agree, first one that Salesforce can be searched by."""
    if activation.mode is not Mode.INSERT:
        if matches or mapping.match is None:
            hint = f"leave --match out: {activation.name} has a match of its own"
            raise UsageError(NOT_MATCHED, "--match is for mode insert", where=activation.meta_path, hint=hint)
        match = mapping.match
        return [Fact(match.header, match.field, "match", folds=True)]
    mapped = {(c.source.lower(), c.header.lower()): c for c in mapping.columns}
    columns = [mapped.get((column.lower(), name.lower())) for column, name in matches]
    if not columns or None in columns:
        choices = ", ".join(f"{c.source}={c.header}" for c in mapping.columns)
        message = "an insert has no match of its own: say by which mapped fields records are told apart"
        raise UsageError(
            NOT_MATCHED, message, where=activation.meta_path, hint=f"--match with one or several of {choices}"
        )
    facts = [Fact(c.header, c.field, c.header, folds=True) for c in columns if c is not None]
    facts.sort(key=lambda fact: not _searchable(fact))
    if not _searchable(facts[0]):
        message = f"Salesforce can't be searched by {', '.join(fact.name for fact in facts)}"
        raise UsageError(
            NOT_MATCHED, message, where=activation.meta_path, hint="add a --match that it can be searched by"
        )
    return facts


def _searchable(fact: Fact) -> bool:
    return fact.field.filterable and "." not in fact.name and not type_of(fact.field).is_checkbox


# Pairs of a row and a record


@dataclass(frozen=True)
class _Pairs:
    """Rows and records that agree: parallel. `equal`: the record holds every value of the row; `sent`: it does, or
    lacks what the row may be sent without."""

    rows: Positions
    ids: pa.Array
    equal: Flags
    sent: Flags


def _as_sent(activation: Activation, mapping: Mapping, compared: Sequence[Fact]) -> Sequence[Fact]:
    """The facts of a record that a send of the row may have left: without a parent that was not there. They are
    `compared` itself where no row goes without."""
    if activation.missing_parent != "set_null":
        return compared
    lookups = {column.header for column in mapping.columns if column.lookup is not None}
    return [replace(fact, may_lack=fact.name in lookups) for fact in compared]


def _agreeing(
    seen: Scan,
    destination: Destination,
    by: Sequence[Fact],
    compared: Sequence[Fact],
    sent: Sequence[Fact],
    wanted: Positions,
) -> _Pairs:
    nothing = np.empty(0, np.bool_)
    none = _Pairs(np.empty(0, np.int64), pa.array([], pa.utf8()), nothing, nothing)
    rows, ids = _candidates(seen, destination, by[0], wanted)
    if not rows.size:
        return none
    index = ByRecord(rows, iter([ids]))
    distinct = pc.unique(ids)
    parts = [none]
    read = [*compared, *by]
    for page in verify.records(
        destination, seen.schema.name, read, distinct if len(distinct) <= verify.BY_ID_MAX else None
    ):
        here, at = index.find(page["Id"].combine_chunks())
        if not here.size:
            continue
        held, taken = page.take(pa.array(at)), _taken(seen, here)
        agree, ids = verify.agree(by, taken, held), held["Id"].combine_chunks()
        equal = verify.agree(compared, taken, held)
        as_sent = equal if sent is compared else verify.agree(sent, taken, held)
        parts.append(_Pairs(here[agree], ids.filter(pa.array(agree)), equal[agree], as_sent[agree]))
    return _Pairs(
        np.concatenate([part.rows for part in parts]),
        pa.concat_arrays([part.ids for part in parts]),
        np.concatenate([part.equal for part in parts]),
        np.concatenate([part.sent for part in parts]),
    )


def _inserted_anew(activation: Activation, seen: Scan) -> Flags:
    """Known rows that changed, of which an insert makes one more record each."""
    found = seen.found
    if activation.mode is not Mode.INSERT or activation.on_change == "ignore":
        return np.zeros(len(found.kind), np.bool_)
    stale = seen.flags_of(np.arange(len(found.kind))) & Flag.STALE != 0
    again: Flags = (found.position >= 0) & np.isin(found.kind, (Kind.CHANGED, Kind.RETURNED)) & ~stale
    return again


def _only_whole(seen: Scan, pairs: _Pairs, changed: Flags) -> _Pairs:
    """Without the pairs of changed rows that another copy of the state did not make of them: the record is the one
    that the row has already, or holds what the row was before."""
    kept = ~changed[pairs.rows] | pairs.sent
    at = np.flatnonzero(changed[pairs.rows] & kept)
    own = seen.state.snapshot.record_ids(seen.found.position[pairs.rows[at]])
    kept[at] = ~pc.fill_null(pc.equal(own, pairs.ids.take(pa.array(at))), False).to_numpy(zero_copy_only=False)
    return _Pairs(pairs.rows[kept], pairs.ids.filter(pa.array(kept)), pairs.equal[kept], pairs.sent[kept])


def _candidates(seen: Scan, destination: Destination, fact: Fact, wanted: Positions) -> tuple[Positions, pa.Array]:
    """Every row with every record that holds its value of one field."""
    nothing = np.empty(0, np.int64), pa.array([], pa.utf8())
    if not wanted.size:
        return nothing
    sent = seen.spool.take(wanted, [fact.column])[fact.column].combine_chunks()
    if fact.field.name == "Id":
        known = pc.is_valid(sent).to_numpy(zero_copy_only=False)
        return wanted[known], sent.drop_null()
    distinct = pc.unique(sent.drop_null())
    if not len(distinct):
        return nothing
    records = destination.lookup(seen.schema.name, fact.field, distinct)
    held, asked = (
        values.fold(values.echo_form(array, fact.field), fact.field)
        for array in (records["value"].combine_chunks(), sent)
    )
    codes = pc.unique(asked.drop_null())
    of_record = pc.fill_null(pc.index_in(held, value_set=codes), -1).to_numpy()
    of_row = pc.if_else(pc.is_valid(asked), pc.index_in(asked, value_set=codes), -1).to_numpy()
    order = np.argsort(of_record, kind="stable")
    low = np.searchsorted(of_record[order], of_row, "left")
    high = np.where(of_row < 0, low, np.searchsorted(of_record[order], of_row, "right"))
    row, slot = verify.spread(low, high)
    return wanted[row], records["record_id"].combine_chunks().take(pa.array(order[slot]))


def _taken(seen: Scan, rows: Positions) -> pa.Table:
    """Spool rows in an order in which one may come twice."""
    distinct, places = np.unique(rows, return_inverse=True)  # noqa: TID251
    return seen.spool.take(distinct).take(pa.array(places))


# What is a match, and what is not


_REASONS = ("", SEVERAL, SHARED, CLAIMED)


def _ambiguous(seen: Scan, pairs: _Pairs, size: int) -> Positions:
    """Per spool row why it has no one record of its own (index of `_REASONS`); 0 if it has, or has none at all."""
    reason = np.zeros(size, np.int64)
    if not pairs.rows.size:
        return reason
    snapshot = seen.state.snapshot
    here = np.asarray(snapshot.flags) & Flag.LEFT == 0
    here[seen.found.left] = False  # a key that left keeps its record from nobody
    positions = np.flatnonzero(here)
    claimed = np.zeros(len(pairs.rows), np.bool_)
    for start in range(0, len(positions), _CLAIM_ROWS):
        held = snapshot.record_ids(positions[start : start + _CLAIM_ROWS]).drop_null()
        claimed |= pc.is_in(pairs.ids, value_set=held).to_numpy(zero_copy_only=False)
    reason[pairs.rows[claimed]] = _REASONS.index(CLAIMED)
    reason[pairs.rows[repeated(pairs.ids)]] = _REASONS.index(SHARED)
    reason[np.bincount(pairs.rows, minlength=size) > 1] = _REASONS.index(SEVERAL)
    return reason


def _reasons(seen: Scan, reason: Positions) -> pa.Table:
    rows = np.flatnonzero(reason)
    return _keys(seen, rows).append_column("reason", pa.array([_REASONS[number] for number in reason[rows]], pa.utf8()))


def _keys(seen: Scan, rows: Positions) -> pa.Table:
    return seen.spool.take(rows, ["key"]) if rows.size else pa.table({"key": pa.array([], pa.utf8())})


def _adopted(activation: Activation, equal: Flags, lacking: Flags) -> npt.NDArray[np.uint8]:
    """The matched rows' flags. An insert's count as delivered, some without a parent; others that differ are sent
    again."""
    flags = np.full(len(equal), Flag.ADOPTED, np.uint8)
    if activation.mode is Mode.INSERT:
        flags[lacking] |= np.uint8(Flag.UNFINISHED)
    else:
        flags[~equal] |= np.uint8(Flag.STALE)
    return flags


def _moves(seen: Scan, rows: Positions, ids: pa.Array, flags: npt.NDArray[np.uint8]) -> pa.Table:
    """Rows as the snapshot gets them."""
    taken = _taken(seen, rows) if rows.size else None
    columns = {
        name: taken[name] if taken is not None else pa.array([], kind)
        for name, kind in (("kh", pa.uint64()), ("ck", DIGEST), ("key", pa.utf8()))
    }
    return pa.table(
        {**columns, "record_id": ids, "flags": pa.array(flags, pa.uint8()), "op": pa.repeat("put", len(rows))}
    )


# Into the state


class Ledger(Protocol):
    """The state of the activation, held by us."""

    serial: int
    mappings: list[dict[str, Any]]

    def open_batches(self) -> Sequence[object]: ...

    def amend(self, rows: pa.Table) -> None: ...


class DrawnMoves(Protocol):
    """What was found out about rows and records, to be stored: moves of the snapshot, and what they were drawn from."""

    @property
    def mapping(self) -> Mapping: ...
    @property
    def serial(self) -> int: ...
    @property
    def batches(self) -> int: ...
    @property
    def moves(self) -> pa.Table: ...


def store(found: DrawnMoves, ledger: Ledger) -> None:
    """Write what was found, in one step. StateError DB504 if the state moved since it was drawn."""
    if ledger.serial != found.serial or len(ledger.open_batches()) != found.batches:
        raise StateError(
            PLAN_STALE, "the state moved while Salesforce was asked: nothing was recorded", hint="run again"
        )
    others = [header for header in ledger.mappings if from_header(header).digest != found.mapping.digest]
    ledger.mappings = [found.mapping.header(), *others]
    ledger.amend(found.moves)
