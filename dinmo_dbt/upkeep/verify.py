"""What Salesforce holds now, compared with what it acknowledged. Reads only.

The model is read and hashed as for a plan. A row whose check hash is the snapshot's is what Salesforce acknowledged,
so its record has to hold it; the others are pending, and a sync's business. Values are compared in the form in which
two of them are one to Salesforce (`values.echo_form`), so what it trims, folds or cuts off is no drift.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dinmo_dbt.activation import Activation, Mode
from dinmo_dbt.destination import Destination, Field, ObjectSchema
from dinmo_dbt.errors import ConfigError
from dinmo_dbt.plan.plan import Source, StateView, flying, reading
from dinmo_dbt.plan.records import find_records, ids_missing
from dinmo_dbt.rows import values
from dinmo_dbt.rows.changes import ChangeSet, Kind
from dinmo_dbt.rows.compare import between
from dinmo_dbt.rows.field_types import type_of
from dinmo_dbt.rows.key_problems import key_refusal, keys_refused
from dinmo_dbt.rows.mapping import MappedColumn, Mapping
from dinmo_dbt.rows.resolve import resolve
from dinmo_dbt.rows.rowhash import NO_DIGESTS, as_arrow, digest_columns, same_digests
from dinmo_dbt.rows.sets import among
from dinmo_dbt.rows.snapshot import Flag, Positions, Spool

# Up to here records are read by id; above, every record of the object by one Bulk query.
BY_ID_MAX = 2_000
_ID_ROWS = 1 << 20

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Scan:
    """The segment as it is today, every row that could be sent in the spool; `found` numbers them."""

    activation: Activation
    schema: ObjectSchema
    mapping: Mapping
    found: ChangeSet
    spool: Spool
    state: StateView

    @cached_property
    def known(self) -> Positions:
        """Spool rows that Salesforce acknowledged as they are now, none of them in flight."""
        same = np.flatnonzero((self.found.kind == Kind.SAME) & ~self.flying)
        flags = self.flags_of(same)
        unsure = Flag.LEFT | Flag.STALE | Flag.UNKNOWN | Flag.UNFINISHED
        kept: Positions = same[flags & unsure == 0]
        return kept

    @cached_property
    def flying(self) -> Flags:
        """Spool rows whose key is in a batch that has not been settled."""
        return flying(
            self.state.in_flight, self.found.kh, lambda rows: self.spool.take(rows, ["key"])["key"].combine_chunks()
        )

    def flags_of(self, rows: Positions) -> npt.NDArray[np.uint8]:
        """The snapshot's flags of these spool rows; 0 for new ones."""
        flags = np.zeros(len(rows), np.uint8)
        position = self.found.position[rows]
        known = position >= 0
        flags[known] = np.asarray(self.state.snapshot.flags)[position[known]]
        return flags


def scan(activation: Activation, source: Source, destination: Destination, state: StateView, spool: Spool) -> Scan:
    """Read the segment and class every row against the snapshot. ConfigError for a mapping that does not fit the
    object, KeysRefused DB410 for a model whose keys or matches are not unique."""
    schema = destination.describe(activation.object)
    with reading(activation, by_condition=False):
        relation = source.schema(activation.model.relation_name)
    mapping, problems = resolve(activation, schema, destination.describe, relation)
    if mapping is None:
        raise ConfigError.of(problems)
    batches = source.read(activation.model.relation_name, mapping.sources, activation.where)
    # Rows that wait, and those of an older mapping, are pending like any other change: only equal rows are told apart.
    with reading(activation):
        found = between(batches, mapping, state.snapshot, spool, resend=True, finding=activation.only_finds)
    if found.refusals:
        problem = key_refusal(found.refusals, activation.model.relation_name, activation.name)
        raise keys_refused(problem, mapping, found.refusals)
    return Scan(activation, schema, mapping, found, spool, state)


# What is compared


@dataclass(frozen=True)
class Fact:
    """One field whose value Salesforce is asked for. `column` names it in the spool; a constant has its own value."""

    name: str
    field: Field
    column: str = ""
    constant: pa.Array | None = None
    open_nulls: bool = False  # where null was sent, Salesforce may hold anything
    may_lack: bool = False  # it may have been sent without this value
    folds: bool = False  # found by this value, so another case of it is no other value

    def sent(self, rows: pa.Table) -> pa.Array:
        """What was sent for these spool rows."""
        if self.constant is not None:
            return self.constant.take(pa.array(np.zeros(len(rows), np.int64)))
        return rows[self.column].combine_chunks()

    def differs(self, sent: pa.Array, held: pa.Array) -> Flags:
        """Where Salesforce's text is not what it makes of the value sent."""
        ours, theirs = self._plain(sent), self._plain(self._read(held))
        equal = pc.or_(pc.fill_null(pc.equal(ours, theirs), False), pc.and_(pc.is_null(ours), pc.is_null(theirs)))
        if self.open_nulls:
            equal = pc.or_(equal, pc.is_null(sent))
        if self.may_lack:
            equal = pc.or_(equal, pc.is_null(theirs))
        differs: Flags = pc.invert(equal).to_numpy(zero_copy_only=False)
        return differs

    def _read(self, held: pa.Array) -> pa.Array:
        # The text #N/A is a value of its own where it is held: only an upload takes it for null.
        return held if type_of(self.field).is_text else values.from_text(held, self.field)

    def _plain(self, array: pa.Array) -> pa.Array:
        held = values.held_form(array, self.field)
        return values.fold(held, self.field) if self.folds else held


def facts(activation: Activation, mapping: Mapping) -> tuple[tuple[Fact, ...], tuple[tuple[str, str], ...]]:
    """The fields to compare, and those that can't be: name and why."""
    match = mapping.match
    compared: list[Fact] = []
    left_out: list[tuple[str, str]] = []
    for column in mapping.columns:
        why = _why_not(column)
        if not why and activation.mode is Mode.UPSERT and not column.goes(False):
            why = "it is written on new records only, so a later value of the model is not in it"
        if why:
            left_out.append((column.header, why))
        else:
            folds = column.lookup is not None or (match is not None and column.header == match.header)
            # A null leaves the value as it is, or the org puts its own in its place, as in a Name that is left empty.
            open_nulls = column.keep_nulls or (not column.field.nillable and column.field.defaulted_on_create)
            compared.append(Fact(column.header, column.field, column.header, open_nulls=open_nulls, folds=folds))
    sends_match = activation.mode is Mode.UPSERT and match is not None and match.header != "Id"
    if match and sends_match and match.header not in {column.header for column in mapping.columns}:
        compared.append(Fact(match.header, match.field, "match", folds=True))
    compared += [Fact(c.header, c.field, constant=c.value) for c in mapping.constants]
    return tuple(compared), tuple(left_out)


def _why_not(column: MappedColumn) -> str:
    if ":" in column.header:
        return "a lookup to several objects can't be queried by a field of one parent"
    return "rich text is cleaned by Salesforce when it is saved" if column.field.html else ""


# Records and rows


class ByRecord:
    """Finds the rows that belong to a record: 128 bits of its id and a row number, sorted; no id is kept."""

    def __init__(self, rows: Positions, ids: Iterator[pa.Array]) -> None:
        hashes = np.concatenate([NO_DIGESTS, *(digest_columns([part]) for part in ids)])
        assert len(hashes) == len(rows)
        order = np.argsort(hashes[:, 0], kind="stable")
        self.hashes, self.rows = hashes[order], rows[order]

    def find(self, ids: pa.Array) -> tuple[Positions, Positions]:
        """Parallel: the rows of these records, ascending, and which of the records each belongs to."""
        wanted, held = digest_columns([ids]), np.ascontiguousarray(self.hashes[:, 0])
        at, slot = spread(np.searchsorted(held, wanted[:, 0], "left"), np.searchsorted(held, wanted[:, 0], "right"))
        same = same_digests(self.hashes[slot], wanted[at])
        slot, at = slot[same], at[same]
        order = np.argsort(self.rows[slot], kind="stable")
        return self.rows[slot[order]], at[order]


def spread(low: Positions, high: Positions) -> tuple[Positions, Positions]:
    """Ranges of slots, one a place, written out: the places, each as often as it has slots, and the slots."""
    counts = high - low
    at = np.repeat(np.arange(len(low)), counts)
    return at, np.arange(len(at)) - np.repeat(np.cumsum(counts) - counts, counts) + low[at]


def records(
    destination: Destination, object_name: str, compared: Sequence[Fact], ids: pa.Array | None
) -> Iterator[pa.Table]:
    """Pages of what Salesforce holds of these facts, with `Id`."""
    names = tuple(dict.fromkeys(fact.name for fact in compared))
    for page in destination.read_pages(object_name, names, ids):
        if page.num_rows:
            yield page.combine_chunks()


# Verification


_GONE = pa.schema([("key", pa.utf8()), ("record_id", pa.utf8()), ("position", pa.int64())])
_TEXTS = pa.list_(pa.utf8())
_DRIFTED = pa.schema([*_GONE, ("fields", _TEXTS), ("model", _TEXTS), ("salesforce", _TEXTS)])


@dataclass
class Verification:
    """What became of what was acknowledged.

    `read == verified + drifted + gone + unverifiable + sum(pending)`. `drifted`: key, record_id, fields (list of
    names), position (in the snapshot), and with values asked for `model` and `salesforce` (lists of texts, parallel to
    fields); `gone`: key, record_id (null: it was never known), position.
    """

    read: int
    serial: int
    fields: tuple[str, ...]
    left_out: tuple[tuple[str, str], ...]
    verified: int = 0
    unverifiable: int = 0
    pending: dict[str, int] = field(default_factory=dict)
    drifted: pa.Table = field(default_factory=lambda: _DRIFTED.empty_table())
    gone: pa.Table = field(default_factory=lambda: _GONE.empty_table())

    @property
    def holds(self) -> bool:
        return not len(self.drifted) and not len(self.gone)


def verify(
    activation: Activation,
    source: Source,
    destination: Destination,
    state: StateView,
    spool: Spool,
    *,
    with_values: bool = False,
) -> Verification:
    """Compare every acknowledged row of the segment with its record. Memory: a page of records and the rows that
    drifted, besides 24 bytes a row."""
    seen = scan(activation, source, destination, state, spool)
    compared, left_out = facts(activation, seen.mapping)
    names = tuple(fact.name for fact in compared)
    found = Verification(seen.found.read, state.serial, names, left_out, pending=_pending(seen))
    rows = seen.known
    rows, ids = _with_record(seen, destination, rows, found)
    index = ByRecord(rows, iter(ids))
    there = np.zeros(len(seen.found.kind), np.bool_)
    wanted = pa.concat_arrays([pa.array([], pa.utf8()), *ids]) if len(rows) <= BY_ID_MAX else None
    drifted: list[pa.Table] = []
    for page in records(destination, seen.schema.name, compared, wanted) if len(rows) else ():
        here, at = index.find(page["Id"].combine_chunks())
        fresh = ~there[here]
        here, at = here[fresh], at[fresh]
        there[here] = True
        if here.size:
            drifted.append(_drift(seen, compared, here, page.take(pa.array(at)), with_values=with_values))
    gone = rows[~there[rows]]
    found.drifted = pa.concat_tables([found.drifted, *drifted])
    found.gone = pa.concat_tables([found.gone, _named(seen, gone)])
    found.verified = len(rows) - len(gone) - len(found.drifted)
    return found


def _with_record(
    seen: Scan, destination: Destination, rows: Positions, found: Verification
) -> tuple[Positions, list[pa.Array]]:
    """The rows whose record is known, or found by its match; their ids in parts. Of the others some are gone, and some
    can't be known."""
    ids = [
        seen.state.snapshot.record_ids(seen.found.position[rows[start : start + _ID_ROWS]])
        for start in range(0, len(rows), _ID_ROWS)
    ]
    missing = np.concatenate([np.empty(0, np.bool_), *map(ids_missing, ids)])
    if not missing.any():
        return rows, ids
    kept = [part.drop_null() for part in ids]
    nameless, rows = rows[missing], rows[~missing]
    match = seen.mapping.match
    if match is None:
        found.unverifiable = len(nameless)
        return rows, kept
    wanted = seen.spool.take(nameless, ["match"])["match"].combine_chunks()
    if match.header == "Id":
        matched, several = wanted, np.zeros(len(wanted), np.bool_)
    else:
        matched, several = find_records(destination, seen.schema.name, match.field, wanted)
    found.unverifiable = int(several.sum())
    absent = ids_missing(matched)
    found.gone = pa.concat_tables([found.gone, _named(seen, nameless[absent & ~several])])
    return np.concatenate([rows, nameless[~absent]]), [*kept, matched.drop_null()]


def _pending(seen: Scan) -> dict[str, int]:
    """Rows that Salesforce has not acknowledged as they are, by why; each counted once."""
    kind = seen.found.kind
    open_rows = np.ones(len(kind), np.bool_)
    open_rows[seen.known] = False
    counts = {"invalid": len(seen.found.aside)}

    def take(name: str, rows: Flags) -> None:
        chosen = open_rows & rows
        counts[name] = int(chosen.sum())
        open_rows[chosen] = False

    take("in_flight", seen.flying)
    take("waiting", _waiting(seen))
    flags = seen.flags_of(np.arange(len(kind)))
    take("unknown", flags & Flag.UNKNOWN != 0)
    take("changed", seen.found.position >= 0)
    take("added", open_rows)
    return counts


def _waiting(seen: Scan) -> Flags:
    """Rows that wait since an earlier run, unchanged."""
    pending = seen.state.pending
    waiting = np.zeros(len(seen.found.kind), np.bool_)
    rows = np.flatnonzero(among(seen.found.kh, pending.kh))
    if rows.size:
        here = seen.spool.take(rows, ["kh", "ck"])
        noted = set(zip(pending.kh.tolist(), as_arrow(pending.ck).to_pylist(), strict=True))
        pairs = zip(here["kh"].to_pylist(), here["ck"].to_pylist(), strict=True)
        waiting[rows] = [pair in noted for pair in pairs]
    return waiting


def _drift(seen: Scan, compared: Sequence[Fact], rows: Positions, held: pa.Table, *, with_values: bool) -> pa.Table:
    """Of these rows, with their records beside them, those that differ."""
    taken = seen.spool.take(rows)
    differing = differences(compared, taken, held)
    bad = np.flatnonzero(differing.any(axis=0))
    names: list[list[str]] = []
    texts: list[list[list[str | None]]] = [[], []]
    chosen, theirs = taken.take(pa.array(bad)), held.take(pa.array(bad))
    # The values of the few that differ, and only if they are to be shown.
    ours_text = [values.text(f.sent(chosen), f.field).to_pylist() for f in compared] if with_values else []
    theirs_text = [theirs[f.name].to_pylist() for f in compared] if with_values else []
    for row, column in enumerate(bad):
        which = np.flatnonzero(differing[:, column]).tolist()
        names.append([compared[n].name for n in which])
        for into, shown in zip(texts, (ours_text, theirs_text), strict=True):
            into.append([shown[n][row] for n in which] if shown else [])
    return pa.table(
        [
            chosen["key"],
            theirs["Id"],
            pa.array(seen.found.position[rows[bad]]),
            *(pa.array(lists, _TEXTS) for lists in (names, *texts)),
        ],
        schema=_DRIFTED,
    )


def differences(compared: Sequence[Fact], rows: pa.Table, held: pa.Table) -> Flags:
    """Facts x rows: where what Salesforce holds is not what these spool rows, one a record, sent or would send."""
    found = [fact.differs(fact.sent(rows), held[fact.name].combine_chunks()) for fact in compared]
    return np.array(found, np.bool_).reshape(len(found), len(rows))


def agree(compared: Sequence[Fact], rows: pa.Table, held: pa.Table) -> Flags:
    """Where a record holds all that its row sent or would send."""
    found: Flags = ~np.any(differences(compared, rows, held), axis=0)
    return found


def _named(seen: Scan, rows: Positions) -> pa.Table:
    """Key, record id and snapshot position of these spool rows."""
    rows = np.sort(rows)
    position = seen.found.position[rows]
    keys = seen.spool.take(rows, ["key"])["key"] if rows.size else pa.array([], pa.utf8())
    return pa.table([keys, seen.state.snapshot.record_ids(position), pa.array(position)], schema=_GONE)
