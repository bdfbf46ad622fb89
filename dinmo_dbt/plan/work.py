"""The change set on its way to batches: what is known of each spooled row so far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dinmo_dbt.activation import Activation
from dinmo_dbt.destination import Destination, Fate, ObjectSchema, Operation
from dinmo_dbt.plan.leavers import Leavers
from dinmo_dbt.plan.plan import LEFT_OUT, Arriving, Counts, StateView
from dinmo_dbt.plan.records import find_records
from dinmo_dbt.rows.changes import Aside, ChangeSet, Kind
from dinmo_dbt.rows.mapping import Mapping
from dinmo_dbt.rows.reasons import Reason, why_unfit
from dinmo_dbt.rows.snapshot import GIVEN_UP, OUTCOME_UNKNOWN, Flag, Pending, Positions, Spool

# In this order: a row whose match value moved lets go of the old value before another row may claim it.
IN_ORDER = (Operation.UPDATE, Operation.UPSERT, Operation.INSERT, Operation.DELETE)
_CODES = {operation: code for code, operation in enumerate(IN_ORDER, start=1)}
_UNSENT = 0
CLAIM_ROWS = 1 << 20
_WAITING = "Salesforce refused it in an earlier run, and it waits to be tried again"
_DOUBTFUL = "an earlier run may have inserted it, which can't be learned any more; it is not sent again by itself"


@dataclass
class Work:
    """The change set on its way to batches: what each spooled row does, and with which record."""

    activation: Activation
    mapping: Mapping
    schema: ObjectSchema
    destination: Destination
    state: StateView
    spool: Spool
    found: ChangeSet
    arriving: Sequence[Arriving] = ()
    older: Sequence[Mapping] = ()
    waits: Pending = field(default_factory=Pending.none)
    awaits_parents: bool = False
    parents: dict[str, pa.Array] = field(default_factory=dict)
    emptied: dict[str, npt.NDArray[np.bool_]] = field(default_factory=dict)
    leavers: Leavers = field(default_factory=Leavers)
    asides: list[pa.Table] = field(default_factory=list)
    replacing: tuple[tuple[str, str], ...] = ()
    respelled: Positions = field(default_factory=lambda: np.empty(0, np.int64))
    alike: Positions = field(default_factory=lambda: np.empty(0, np.int64))
    shifted: int = 0
    match_moved: bool = False

    def __post_init__(self) -> None:
        self.size = len(self.found.kind)
        self._operation = np.full(self.size, _UNSENT, np.uint8)
        self.record_ids = self.stored_ids = pa.nulls(self.size, pa.utf8())
        self.known_ids = np.zeros(self.size, np.bool_)
        self.found_ids = pa.nulls(self.size, pa.utf8())  # of rows that an upsert was looked up for
        self.makes = np.ones(self.size, np.bool_)  # where nothing tells that the record is there already
        self.level = np.zeros(self.size, np.int16)
        self.unfinished = np.zeros(self.size, np.bool_)
        self.lacking = self.found.position >= 0  # delivered before without what could not be sent yet
        flags = self.state.snapshot.flags[self.found.position[self.lacking]]
        self.lacking[self.lacking] = flags & Flag.UNFINISHED != 0
        self.waiting = self.in_flight = 0
        self.without: dict[Fate, int] = {}
        self.from_scan()

    def from_scan(self) -> None:
        aside = self.found.aside
        invalid = pc.equal(aside["why"], int(Aside.INVALID))
        reasons = [Reason(number) for number in range(len(Reason))]
        index = aside["reason"]
        codes, waiting = explained_waits(aside["code"])
        message = pc.if_else(invalid, self.why_invalid(index, aside["column"]), waiting)
        self.asides.append(
            pa.table(
                [
                    aside["key"],
                    pc.if_else(invalid, Fate.INVALID.value, Fate.HELD.value),
                    pc.if_else(invalid, pa.array([r.code for r in reasons]).take(index), codes),
                    message,
                    aside["column"],
                    pa.nulls(len(aside), pa.utf8()),
                    message,
                ],
                schema=LEFT_OUT,
            )
        )
        self.without[Fate.INVALID] = int(pc.sum(invalid.cast(pa.int64())).as_py() or 0)
        self.without[Fate.HELD] = len(aside) - self.without[Fate.INVALID]
        done = pa.array([OUTCOME_UNKNOWN, GIVEN_UP])
        doubtful = pc.is_in(codes, value_set=done)
        self.waiting = int(pc.sum(pc.and_(pc.invert(invalid), pc.invert(doubtful)).cast(pa.int64())).as_py() or 0)

    def why_invalid(self, reasons: pa.ChunkedArray, columns: pa.ChunkedArray) -> pa.Array:
        """The message of each row's reason, as its column's field has it."""
        fields, messages = self.mapping.field_of, []
        columns = pc.fill_null(columns, "")
        pairs = pc.binary_join_element_wise(reasons.cast(pa.utf8()), columns, " ").combine_chunks().dictionary_encode()
        for pair in pairs.dictionary.to_pylist():
            reason, _, name = pair.partition(" ")
            messages.append(why_unfit(Reason(int(reason)), fields.get(name), self.found.longest.get(name, 0)))
        return pa.array(messages, pa.utf8()).take(pairs.indices)

    def holders(self, ids: pa.Array) -> Positions:
        """How many known rows of the segment have each of these records, as the snapshot says."""
        snapshot, distinct = self.state.snapshot, pc.unique(ids.drop_null())
        present = np.asarray(snapshot.flags) & Flag.LEFT == 0
        present[self.found.left] = False
        positions = np.flatnonzero(present) if len(distinct) else np.empty(0, np.int64)
        counts: Positions = np.zeros(len(distinct) + 1, np.int64)  # the last is null's
        for start in range(0, len(positions), CLAIM_ROWS):
            held = snapshot.record_ids(positions[start : start + CLAIM_ROWS])
            found = pc.index_in(held, value_set=distinct).drop_null().to_numpy()
            counts += np.bincount(found, minlength=len(counts))
        of_each: Positions = counts[pc.index_in(ids, value_set=distinct).fill_null(len(distinct)).to_numpy()]
        return of_each

    def found_by_match(self, rows: Positions) -> tuple[pa.Array, npt.NDArray[np.bool_]]:
        """As `find_records`, of these rows."""
        assert self.mapping.match is not None
        wanted = self.spool.take(rows, ["match"])["match"].combine_chunks()
        return find_records(self.destination, self.schema.name, self.mapping.match.field, wanted)

    def send(self, rows: Positions, operation: Operation) -> None:
        self._operation[rows] = _CODES[operation]

    def sent_by(self, *operations: Operation) -> npt.NDArray[np.bool_]:
        """Which rows are sent, by one of these operations."""
        return np.isin(self._operation, [_CODES[operation] for operation in operations])

    @property
    def is_sent(self) -> npt.NDArray[np.bool_]:
        sent: npt.NDArray[np.bool_] = self._operation != _UNSENT
        return sent

    def leave_out(self, rows: Positions, fate: Fate, code: str, message: str, header: str | None = None) -> None:
        if not rows.size:
            return
        self._operation[rows] = _UNSENT
        count = len(rows)
        keys = self.spool.take(np.sort(rows), ["key"])["key"]
        texts = [pa.array([text] * count, pa.utf8()) for text in (fate.value, code, message, header)]
        self.asides.append(pa.table([keys, *texts, pa.nulls(count, pa.utf8()), texts[2]], schema=LEFT_OUT))
        self.without[fate] = self.without.get(fate, 0) + count

    def known_left_out(self) -> int:
        known = (self.found.position >= 0) & (self.found.kind != Kind.DROPPED)
        return int(np.count_nonzero(known & ~self.is_sent))

    def left_out(self) -> pa.Table:
        return pa.concat_tables(self.asides)

    @property
    def mappings(self) -> tuple[Mapping, ...]:
        """Those that the snapshot may hold rows of, today's first."""
        return (self.mapping, *self.older)

    @property
    def new(self) -> npt.NDArray[np.bool_]:
        """Rows whose key is not known."""
        new: npt.NDArray[np.bool_] = self.found.kind == Kind.ADDED
        return new

    def keys_of(self, rows: Positions) -> pa.Array:
        return self.spool.take(rows, ["key"])["key"].combine_chunks() if rows.size else pa.array([], pa.utf8())

    def counts(self) -> Counts:
        found = self.found
        return Counts(
            read=found.read,
            unchanged=found.unchanged,
            added=found.count(Kind.ADDED),
            changed=found.count(Kind.CHANGED),
            remapped=found.count(Kind.REMAPPED),
            returned=found.count(Kind.RETURNED),
            resent=found.count(Kind.SAME),
            left=len(found.left),
            planned=int(np.count_nonzero(self.is_sent)),
            invalid=self.without.get(Fate.INVALID, 0),
            rejected=self.without.get(Fate.REJECTED, 0),
            no_match=self.without.get(Fate.NO_MATCH, 0),
            ambiguous=self.without.get(Fate.AMBIGUOUS, 0),
            held=self.without.get(Fate.HELD, 0),
            in_flight=self.in_flight,
            waiting=self.waiting,
            removing=len(self.leavers.removing),
            removal_held=self.leavers.held_rows,
            removal_in_flight=self.leavers.in_flight,
        )

    @property
    def only_added(self) -> npt.NDArray[np.bool_]:
        """Rows that send the fields which joined the mapping, and no other. Where the record was only just found, or is
        made again, nothing shows that it has the others; and a row may lack some."""
        only: npt.NDArray[np.bool_] = (self.found.kind == Kind.REMAPPED) & self.known_ids & (not self.match_moved)
        return only & ~self.lacking


def explained_waits(codes: pa.Array | pa.ChunkedArray) -> tuple[pa.Array, pa.Array]:
    """Of rows that wait (`Pending.codes`): the code of each, and what is said of it."""
    codes = codes.combine_chunks() if isinstance(codes, pa.ChunkedArray) else codes
    each = codes.dictionary_encode()
    words, said = [], []
    for code in each.dictionary.to_pylist():
        word, _, rest = code.partition(" ")
        day, _, refusal = rest.partition(" ")
        words.append(word)
        why = f"Salesforce refuses it since {day}" + (f" ({refusal})" if refusal else "")
        given_up = f"{why}: it is tried again when its values change"
        said.append({GIVEN_UP: given_up, OUTCOME_UNKNOWN: _DOUBTFUL}.get(word, _WAITING))
    messages = pa.array(said, pa.utf8()).take(each.indices).fill_null(_WAITING)
    return pa.array(words, pa.utf8()).take(each.indices), messages


def placed(ids: pa.Array, rows: Positions, size: int) -> pa.Array:
    """Ids of some rows as a column over `size` rows, null for the others."""
    place = np.full(size, -1, np.int64)
    place[rows] = np.arange(len(rows))
    return ids.take(pa.array(place, mask=place < 0))
