"""Segment x snapshot -> ChangeSet: what changed since Salesforce last acknowledged it. Pure pyarrow and numpy.

One pass over the segment in record batches. Each row is hashed under today's mapping, and under each older mapping
that the snapshot still holds rows of; a row whose check hash of 128 bits agrees with an acknowledged one is unchanged.
64 bits of key hash choose the slot, but a slot is a row's own only if the check hash (which covers the key) agrees or
the stored key is equal, so a collision of key hashes costs a comparison and never a wrong answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dinmo_dbt.rows import values
from dinmo_dbt.rows.changes import ASIDE, Aside, ChangeSet, Kind
from dinmo_dbt.rows.forms import in_form, text_form
from dinmo_dbt.rows.index import Index
from dinmo_dbt.rows.key_hashes import as_matched, key_hash, match_digests, match_hash
from dinmo_dbt.rows.key_problems import KeyProblem, occurring, so_many_rows
from dinmo_dbt.rows.keys import key_text, why_not_key
from dinmo_dbt.rows.mapping import Column, Mapping
from dinmo_dbt.rows.numbers import NUMBER_TYPES, unkept
from dinmo_dbt.rows.reasons import Reason, Reasons, unreadable
from dinmo_dbt.rows.rowhash import NO_DIGESTS, Digests, Hashes, as_arrow, digest_columns
from dinmo_dbt.rows.snapshot import OUTCOME_UNKNOWN, Baseline, Flag, Pending, Positions, Snapshot, Spool
from dinmo_dbt.rows.texts import BULK_NULL

_Number = TypeVar("_Number", bound=np.generic)
# "Bulk API and Bulk API 2.0 Limits and Allocations": one longer record fails the whole batch that holds it.
ROW_CHARACTERS_MAX = 400_000
_ROW_BYTES = 24  # a record id, its comma, the line's end


def between(
    batches: Iterable[pa.RecordBatch],
    mapping: Mapping,
    snapshot: Snapshot,
    spool: Spool,
    *,
    older: Sequence[Mapping] = (),
    pending: Pending | None = None,
    resend: bool = False,
    inserting: bool = False,
    ignore_changes: bool = False,
    finding: bool = False,
    watched: Positions | None = None,
    hash_key: Callable[[pa.Array], Hashes] = key_hash,
) -> ChangeSet:
    """Scan the segment once and class every row; rows that may have to be sent go to `spool`.

    Spooled columns: key, kh, ck, `match` when there is one, then one column a mapped field, named by its header.
    `resend` spools unchanged rows too (--full). `inserting`: a returned or remapped row is only re-baselined;
    with `ignore_changes` a changed one too. `older` are the stored mappings besides today's, newest first; their
    model columns must all be in the batches. Key and match problems are `refusals`: nothing may be sent then.
    `finding`: rows only lead to records that are there, so that one without a match value is no reason to refuse.
    `watched`: snapshot positions whose values are kept if they are unchanged.
    """
    scan = _Scan(mapping, snapshot, spool, older, pending or Pending.none(), hash_key)
    scan.watch(watched)
    scan.resend, scan.inserting, scan.ignore_changes, scan.finding = resend, inserting, ignore_changes, finding
    for batch in batches:
        if batch.num_rows:
            scan.add(batch)
    return scan.finish()


@dataclass(frozen=True)
class _Canonical:
    """One batch in canonical types: arrays by (source, kind, keep_nulls), and why rows can't be sent."""

    arrays: dict[tuple[str, str, bool], pa.Array]
    reason: Reasons
    culprit: npt.NDArray[np.int16]  # index into the mapping's columns; -1: the match


class _Scan:
    resend = inserting = ignore_changes = finding = False
    doubtful_dropped = 0

    def __init__(
        self,
        mapping: Mapping,
        snapshot: Snapshot,
        spool: Spool,
        older: Sequence[Mapping],
        pending: Pending,
        hash_key: Callable[[pa.Array], Hashes],
    ) -> None:
        self.mapping, self.snapshot, self.spool, self.older = mapping, snapshot, spool, older
        self.pending, self.hash_key = pending, hash_key
        self.index = Index(snapshot.kh)
        self.waiting = Index(pending.kh)
        # Per snapshot row: whether the segment has its key, and whether more than once.
        self.seen = np.zeros(len(snapshot.kh), np.bool_)
        self.repeated = np.zeros(len(snapshot.kh), np.bool_)
        self.last = np.zeros(len(snapshot.kh), np.int32)
        self.read = self.same_rows = self.blank_keys = self.blank_matches = self.spooled = 0
        self.kinds: list[npt.NDArray[np.uint8]] = []
        self.positions: list[Positions] = []
        self.olders: list[npt.NDArray[np.int8]] = []
        self.khs: list[Hashes] = []
        self.cks: list[Digests] = []
        self.no_bulks: list[Reasons] = []
        self.constant_characters = sum(
            len(values.text(c.value, c.field)[0].as_py() or BULK_NULL) for c in mapping.constants
        )
        self.widths: list[npt.NDArray[np.uint32]] = []
        self.asides: list[pa.Table] = []
        self.match_hashes: list[Digests] = []  # enough to call two equal hashes one value
        # Rows whose slot is known only by key hash: where they are, and their keys.
        self.candidates: list[_Candidates] = []
        self.longest: dict[str, int] = {}
        self.unjudged = 0
        self.baseline_positions: list[Positions] = []
        self.baseline_ck: list[Digests] = []
        self.watching: npt.NDArray[np.bool_] | None = None
        self.watched: list[pa.Table] = []

    def watch(self, positions: Positions | None) -> None:
        if positions is not None and len(positions):
            self.watching = np.zeros(len(self.snapshot.kh), np.bool_)
            self.watching[positions] = True

    # One batch

    def add(self, batch: pa.RecordBatch) -> None:
        self.read += batch.num_rows
        key = key_text([batch.column(name) for name in self.mapping.key])
        if key.null_count:
            self.blank_keys += key.null_count
            whole = pc.is_valid(key)
            batch, key = batch.filter(whole), key.filter(whole)
            if batch.num_rows == 0:
                return
        canonical = self.canonical(batch)
        self.note_match(canonical)
        kh = self.hash_key(key)
        ck = self.check_hash(key, self.mapping, canonical.arrays)
        slot, found = self.index.first(kh)
        same = self.index.agreeing(slot, found, kh, ck, self.snapshot.ck)
        invalid = canonical.reason != 0

        unchanged = same & ~invalid
        flags = self.flags_at(slot, unchanged)
        doubtful = flags & Flag.UNKNOWN != 0
        if not self.inserting:  # looked up by its match and sent again, it does no harm
            unchanged &= ~doubtful
        unfinished = (flags & Flag.LEFT == 0) & (flags & (Flag.STALE | Flag.UNFINISHED) != 0)
        stale = unchanged & unfinished & (not self.inserting)
        held, waiting = self.held(kh, ck, (~unchanged | stale) & ~invalid)
        unchanged &= ~held
        returned = unchanged & (flags & Flag.LEFT != 0)
        again = returned | (stale & ~held)
        self.note_unchanged(slot, ck, unchanged, returned, again)
        self.keep_watched(key, kh, ck, slot, unchanged, canonical)
        if self.inserting and doubtful.any():
            self.same_rows -= int(doubtful.sum())
            self.asides.append(_doubtful(key.filter(pa.array(doubtful)), kh[doubtful]))
        older = self.older_mapping(batch, key, kh, slot, found & ~same & ~invalid & ~held)

        spooled = ~invalid & ~held & (~unchanged | again | self.resend)
        if self.inserting:
            spooled &= ~unchanged
        self.set_aside(key, kh, slot, found, canonical, held, waiting)
        if not spooled.any():
            return
        rows = np.flatnonzero(spooled)
        kind = np.where(found, Kind.CHANGED, Kind.ADDED).astype(np.uint8)
        kind[older >= 0] = Kind.REMAPPED
        kind[unchanged] = Kind.SAME
        kind[returned] = Kind.RETURNED
        self.write(rows, key, kh, ck, canonical)
        self.kinds.append(kind[rows])
        settled = (unchanged | (older >= 0))[rows]
        self.positions.append(np.where(settled, slot[rows], -1))
        self.olders.append(older[rows])
        self.khs.append(kh[rows])
        self.cks.append(ck[rows])
        open_rows = np.flatnonzero(found[rows] & ~settled)
        if open_rows.size:
            at = rows[open_rows]
            self.candidates.append(_Candidates(slot[at], kh[at], key.take(pa.array(at)), open_rows + self.spooled))
        remapped = np.flatnonzero(older[rows] >= 0)
        self.hit(slot[rows[remapped]])
        self.spooled += len(rows)

    def canonical(self, batch: pa.RecordBatch) -> _Canonical:
        arrays: dict[tuple[str, str, bool], pa.Array] = {}
        reason = np.zeros(batch.num_rows, np.uint8)
        culprit = np.full(batch.num_rows, -1, np.int16)
        columns: list[tuple[int, Column]] = list(enumerate(self.mapping.columns))
        if self.mapping.match:
            columns.insert(0, (-1, self.mapping.match))
        for number, column in columns:
            array, unfit = values.canonical(batch.column(column.source), column.field, keep_nulls=column.keep_nulls)
            arrays[(column.source, column.header, column.keep_nulls)] = array
            self.note_length(column.header, batch.column(column.source), unfit)
            # A match is compared as a double: two that are one are refused, which says more.
            lost = None if number < 0 else unkept(batch.column(column.source), array, column.field)
            for bad in (unreadable(batch, column.source), unfit, lost):
                if bad is not None:
                    first = (bad != 0) & (reason == 0)
                    reason[first], culprit[first] = bad[first], number
        return _Canonical(arrays, reason, culprit)

    def note_length(self, header: str, given: pa.Array, unfit: Reasons | None) -> None:
        long = None if unfit is None else unfit == Reason.LENGTH
        if long is not None and long.any() and why_not_key(given.type) is None:  # it is one text
            text = key_text([given.filter(pa.array(long))])
            most = pc.max(pc.utf8_length(pc.utf8_trim_whitespace(text))).as_py() or 0
            self.longest[header] = max(most, self.longest.get(header, 0))

    def check_hash(self, key: pa.Array, mapping: Mapping, arrays: dict[tuple[str, str, bool], pa.Array]) -> Digests:
        columns = ([mapping.match] if mapping.match else []) + list(mapping.columns)
        taken = [arrays[(column.source, column.header, column.keep_nulls)] for column in columns]
        return digest_columns([key, *taken], seed=mapping.digest)

    def note_match(self, canonical: _Canonical) -> None:
        column = self.mapping.match
        if column is None:
            return
        folded = as_matched(canonical.arrays[(column.source, column.header, column.keep_nulls)], column.field)
        self.blank_matches += int(pc.sum(pc.and_(pc.is_null(folded), pa.array(canonical.reason == 0))).as_py() or 0)
        self.match_hashes.append(match_digests(folded.drop_null()))

    def flags_at(self, slot: Positions, rows: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint8]:
        flags = np.zeros(len(slot), np.uint8)
        at = np.flatnonzero(rows)
        flags[at] = self.snapshot.flags.take(slot[at])
        return flags

    def note_unchanged(
        self,
        slot: Positions,
        ck: Digests,
        unchanged: npt.NDArray[np.bool_],
        returned: npt.NDArray[np.bool_],
        again: npt.NDArray[np.bool_],
    ) -> None:
        self.hit(slot[unchanged])
        if self.inserting and returned.any():
            self.baseline_positions.append(slot[returned])
            self.baseline_ck.append(ck[returned])
        sent_again = again if not self.resend else unchanged
        self.same_rows += int(unchanged.sum()) - (0 if self.inserting else int(sent_again.sum()))

    def keep_watched(
        self,
        key: pa.Array,
        kh: Hashes,
        ck: Digests,
        slot: Positions,
        unchanged: npt.NDArray[np.bool_],
        canonical: _Canonical,
    ) -> None:
        if self.watching is None:
            return
        rows = np.flatnonzero(unchanged)
        rows = rows.compress(self.watching.take(slot.take(rows)))
        if rows.size:
            columns = self.spool_columns(rows, key, kh, ck, canonical)
            self.watched.append(pa.table({**columns, "position": slot[rows]}))

    def hit(self, positions: Positions) -> None:
        """Note that the segment has these keys; a position that comes twice, now or over time, is a repeated key."""
        order = np.arange(len(positions), dtype=np.int32)
        self.last[positions] = order  # of equal positions one wins, so the others differ
        again = self.seen.take(positions) | (self.last.take(positions) != order)
        self.repeated[positions[again]] = True
        self.seen[positions] = True

    def held(self, kh: Hashes, ck: Digests, rows: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.bool_], Positions]:
        """Rows that wait unchanged and may not be tried yet, and which pending row each is."""
        slot, found = self.waiting.first(kh)
        same = self.waiting.agreeing(slot, found & rows, kh, ck, self.pending.ck)
        if self.resend or not same.any():
            return np.zeros(len(kh), np.bool_), slot
        return same & ~self.pending.due.take(slot, mode="clip"), slot

    def older_mapping(
        self, batch: pa.RecordBatch, key: pa.Array, kh: Hashes, slot: Positions, rows: npt.NDArray[np.bool_]
    ) -> npt.NDArray[np.int8]:
        """Which older mapping each of `rows` was acknowledged under with today's values; -1 for none."""
        which = np.full(len(kh), -1, np.int8)
        for number, mapping in enumerate(self.older):
            at = np.flatnonzero(rows & (which < 0))
            if not at.size:
                break
            part, indices = batch.take(pa.array(at)), pa.array(at)
            arrays = {}
            for column in ([mapping.match] if mapping.match else []) + list(mapping.columns):
                given, typed = part.column(column.source), part.schema.field(column.source)
                array, _ = values.canonical(given, column.field, keep_nulls=column.keep_nulls)
                if column.form not in ("", text_form(typed, column.field)):
                    array = in_form(array, column.form)
                arrays[(column.source, column.header, column.keep_nulls)] = array
            ck = self.check_hash(key.take(indices), mapping, arrays)
            here = slot[at]
            agree = self.index.agreeing(here, np.ones(len(at), np.bool_), kh[at], ck, self.snapshot.ck)
            slot[at[agree]] = here[agree]
            which[at[agree]] = number
        return which

    def set_aside(
        self,
        key: pa.Array,
        kh: Hashes,
        slot: Positions,
        found: npt.NDArray[np.bool_],
        canonical: _Canonical,
        held: npt.NDArray[np.bool_],
        which: Positions,
    ) -> None:
        rows = np.flatnonzero((canonical.reason != 0) | held)
        if not rows.size:
            return
        taken = pa.array(rows)
        match = self.mapping.match.header if self.mapping.match else ""
        headers = pa.array([match, *(column.header for column in self.mapping.columns)], pa.utf8())
        invalid = canonical.reason[rows] != 0
        column = headers.take(pa.array(np.where(invalid, canonical.culprit[rows] + 1, 0)))
        waiting = pa.array(which[rows], mask=invalid)
        hashes = pa.nulls(len(rows), pa.uint64())
        if (by := self.mapping.match) is not None:
            matches = canonical.arrays[(by.source, by.header, by.keep_nulls)].take(taken)
            hashes = pa.array(match_hash(matches, by.field), mask=pc.is_null(matches).to_numpy(zero_copy_only=False))
        self.asides.append(
            pa.table(
                [
                    key.take(taken),
                    pa.array(kh[rows]),
                    pa.array(np.where(invalid, Aside.INVALID, Aside.HELD).astype(np.uint8)),
                    pa.array(canonical.reason[rows]),
                    pc.if_else(pa.array(invalid), column, pa.scalar(None, pa.utf8())),
                    self.pending.codes.take(waiting),
                    hashes,
                ],
                schema=ASIDE,
            )
        )
        here = rows[found[rows]]
        if here.size:
            self.candidates.append(_Candidates(slot[here], kh[here], key.take(pa.array(here)), np.full(len(here), -1)))

    def write(
        self,
        rows: npt.NDArray[np.int64],
        key: pa.Array,
        kh: Hashes,
        ck: Digests,
        canonical: _Canonical,
    ) -> None:
        columns = self.spool_columns(rows, key, kh, ck, canonical)
        literal = np.zeros(len(rows), np.bool_)
        width = np.full(len(rows), _ROW_BYTES, np.uint32)
        if self.mapping.match is not None:
            width += _csv_bytes(columns["match"])
        for column in self.mapping.columns:
            array = columns[column.header]
            width += _csv_bytes(array)
            if pa.types.is_string(array.type):
                equal = pc.equal(pc.utf8_trim_whitespace(array), BULK_NULL)
                if pc.any(equal).as_py():
                    literal |= pc.fill_null(equal, False).to_numpy(zero_copy_only=False)
        no_bulk = np.where(literal, np.uint8(Reason.BULK_NULL_TEXT), np.uint8(0))
        long = np.flatnonzero(width.astype(np.int64) + self.constant_characters > ROW_CHARACTERS_MAX)
        no_bulk[long[self.characters(columns, long) > ROW_CHARACTERS_MAX]] = Reason.ROW_SIZE
        self.no_bulks.append(no_bulk)
        self.widths.append(width)
        self.spool.write(pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns)))

    def spool_columns(
        self, rows: Positions, key: pa.Array, kh: Hashes, ck: Digests, canonical: _Canonical
    ) -> dict[str, pa.Array]:
        """These rows of a batch, column by column as they are spooled."""
        taken, whole = pa.array(rows), len(rows) == len(key)
        match = (("match", self.mapping.match),) if self.mapping.match else ()
        columns = {"key": key if whole else key.take(taken), "kh": pa.array(kh[rows]), "ck": as_arrow(ck[rows])}
        for name, column in (*match, *((column.header, column) for column in self.mapping.columns)):
            array = canonical.arrays[(column.source, column.header, column.keep_nulls)]
            columns[name] = array if whole else array.take(taken)
        return columns

    def characters(self, columns: dict[str, pa.Array], rows: Positions) -> npt.NDArray[np.int64]:
        """How many characters those rows have as they are sent, with a record id and the match value."""
        total = np.full(len(rows), 18 + self.constant_characters, np.int64)
        if not rows.size:
            return total
        sent = {column.header: (columns[column.header], column) for column in self.mapping.columns}
        if match := self.mapping.match:
            sent.setdefault(match.header, (columns["match"], match))
        for array, column in sent.values():
            text = values.text(array.take(pa.array(rows)), column.field)
            total += pc.fill_null(pc.utf8_length(text), 0 if column.keep_nulls else len(BULK_NULL)).to_numpy()
        return total

    # The whole segment

    def finish(self) -> ChangeSet:
        kind = _joined(self.kinds, np.uint8)
        position = _joined(self.positions, np.int64)
        older = _joined(self.olders, np.int8)
        kh, ck = _joined(self.khs, np.uint64), np.concatenate([NO_DIGESTS, *self.cks])
        known_aside = 0
        if self.candidates:
            candidates = _Candidates.all(self.candidates)
            own = self.own_slots(candidates)
            known_aside = int(np.count_nonzero((own >= 0) & (candidates.rows < 0)))
            self.hit(own[own >= 0])
            spooled = candidates.rows >= 0
            position[candidates.rows[spooled]] = own[spooled]
            kind[candidates.rows[spooled & (own < 0)]] = Kind.ADDED
        left_before = np.zeros(len(kind), np.uint8)
        known = np.flatnonzero(position >= 0)
        left_before[known] = self.snapshot.flags.take(position[known])
        self.rebase(kind, position, ck, left_before, older)
        if self.inserting:
            self.set_doubtful_aside(kind, position)
        aside = pa.concat_tables([ASIDE.empty_table(), *self.asides])
        had_left = np.asarray(self.snapshot.flags) & Flag.LEFT != 0
        dropped = int(np.count_nonzero(kind == Kind.DROPPED))
        changes = ChangeSet(
            read=self.read,
            unchanged=self.same_rows + dropped - self.doubtful_dropped,
            kind=kind,
            position=position,
            older=older,
            kh=kh,
            no_bulk=_joined(self.no_bulks, np.uint8),
            width=_joined(self.widths, np.uint32),
            aside=aside,
            baseline=Baseline(
                _joined(self.baseline_positions, np.int64), np.concatenate([NO_DIGESTS, *self.baseline_ck])
            ),
            left=np.flatnonzero(~self.seen & ~had_left),
            away=np.flatnonzero(~self.seen & had_left),
            known_aside=known_aside,
            watched=pa.concat_tables(self.watched) if self.watched else None,
            longest=self.longest,
            unjudged=self.unjudged,
        )
        changes.refusals = self.refusals(changes)
        return changes

    def own_slots(self, candidates: _Candidates) -> Positions:
        """The slot that really holds each candidate's key, or -1: stored keys are compared, neighbour by neighbour."""
        own = np.full(len(candidates.slot), -1, np.int64)
        rows, at = np.arange(len(own)), candidates.slot.copy()
        while rows.size:  # bounded by the largest group of equal key hashes
            stored = self.snapshot.keys(at)
            equal = pc.equal(stored, candidates.keys.take(pa.array(rows))).to_numpy(zero_copy_only=False)
            own[rows[equal]] = at[equal]
            rows, at = rows[~equal], at[~equal] + 1
            more = self.index.same(at, candidates.kh[rows])
            rows, at = rows[more], at[more]
        return own

    def rebase(
        self,
        kind: npt.NDArray[np.uint8],
        position: Positions,
        ck: Digests,
        flags: npt.NDArray[np.uint8],
        older: npt.NDArray[np.int8],
    ) -> None:
        """Settle what known rows are: returned ones, and those that only move their check hash."""
        left = flags & Flag.LEFT != 0
        quiet = np.zeros(len(kind), np.bool_)
        if self.inserting:
            quiet |= kind == Kind.REMAPPED
            # A row that left under a mapping no longer stored may or may not have changed: never insert on a guess.
            unjudged = (kind == Kind.CHANGED) & (flags & Flag.STALE != 0) & (not self.ignore_changes)
            self.unjudged = int(np.count_nonzero(unjudged))
            quiet |= unjudged | ((kind == Kind.CHANGED) & self.ignore_changes)
        else:
            kind[(position >= 0) & left & (kind != Kind.SAME)] = Kind.RETURNED
            kind[(position >= 0) & ~left & (flags & Flag.STALE != 0)] = Kind.SAME
            for number, mapping in enumerate(self.older):
                columns, constants = self.mapping.added_since(mapping)
                if not columns and not constants:
                    agree = (kind == Kind.REMAPPED) & (older == number)
                    kind[agree & (flags & Flag.UNFINISHED != 0)] = Kind.SAME
                    quiet |= agree & (kind == Kind.REMAPPED)
        at = np.flatnonzero(quiet)
        kind[at] = Kind.DROPPED
        self.baseline_positions.append(position[at])
        self.baseline_ck.append(ck[at])

    def set_doubtful_aside(self, kind: npt.NDArray[np.uint8], position: Positions) -> None:
        """Of the re-baselined rows, those whose insert may have been made: they wait, and are not counted unchanged."""
        rows = np.flatnonzero(kind == Kind.DROPPED)
        rows = rows[self.snapshot.flags.take(position[rows]) & Flag.UNKNOWN != 0]
        self.doubtful_dropped = len(rows)
        if rows.size:
            taken = self.spool.take(rows, ["key", "kh"]).combine_chunks()
            self.asides.append(_doubtful(taken["key"], taken["kh"]))

    def refusals(self, changes: ChangeSet) -> list[KeyProblem]:
        found, key, match = [], self.mapping.key, self.mapping.match
        if self.blank_keys:
            found.append(KeyProblem(f"{so_many_rows(self.blank_keys)} no key ({', '.join(key)} is null or blank)", key))
        repeated = self.repeated_keys(changes)
        if len(repeated):
            told = f"{occurring(len(repeated), 'key')} more than once ({', '.join(key)})"
            found.append(KeyProblem(told, key, hashes=repeated))
        if match is None:
            return found
        if self.blank_matches and not self.finding:
            told = f"{so_many_rows(self.blank_matches)} no match value ({match.source} is null or blank)"
            found.append(KeyProblem(told, (match.source,), is_match=True))
        twins = self.repeated_matches() if self.match_hashes else np.empty(0, np.uint64)
        if len(twins) and not len(repeated):
            kept = ", which keeps 15 digits of a number" if match.field.type in NUMBER_TYPES else ""
            told = f"{occurring(len(twins), 'value', f' of {match.source}')} more than once, as Salesforce compares "
            found.append(KeyProblem(f"{told}{match.header}{kept}", (match.source,), is_match=True, hashes=twins))
        return found

    def repeated_matches(self) -> Hashes:
        hashes = np.concatenate(self.match_hashes)
        ordered = np.sort(hashes[:, 0])
        twins = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
        whole, counts = np.unique(hashes[np.isin(hashes[:, 0], twins)], axis=0, return_counts=True)
        again: Hashes = whole[counts > 1, 0]
        return again

    def repeated_keys(self, changes: ChangeSet) -> Hashes:
        """Key hashes of keys that occur more than once in the segment, after comparing the keys themselves."""
        repeated = [self.snapshot.kh.take(np.flatnonzero(self.repeated))]
        # New rows have no slot to be hit twice: group them by key hash, then compare.
        fresh = np.flatnonzero((changes.position < 0) & (changes.kind == Kind.ADDED))
        hashes = np.concatenate([changes.kh[fresh], changes.aside["kh"].to_numpy()])
        ordered = np.sort(hashes)
        twins = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
        if len(twins):
            rows = fresh[np.isin(changes.kh[fresh], twins)]
            keys = self.spool.take(rows, ["key"])["key"].chunks if rows.size else []
            others = changes.aside["key"].filter(pa.array(np.isin(changes.aside["kh"].to_numpy(), twins)))
            counts = pa.chunked_array([*keys, *others.chunks], pa.utf8()).value_counts()
            again = counts.filter(pc.greater(counts.field("counts"), 1)).field("values")
            repeated.append(self.hash_key(again))
        return np.unique(np.concatenate(repeated))


@dataclass(frozen=True)
class _Candidates:
    """Rows whose key hash a snapshot row has: its slot, their keys, their spool row numbers (-1: set aside)."""

    slot: Positions
    kh: Hashes
    keys: pa.Array
    rows: Positions

    @classmethod
    def all(cls, parts: Sequence[_Candidates]) -> _Candidates:
        return cls(
            np.concatenate([part.slot for part in parts]),
            np.concatenate([part.kh for part in parts]),
            pa.concat_arrays([part.keys for part in parts]),
            np.concatenate([part.rows for part in parts]),
        )


def _doubtful(keys: pa.Array | pa.ChunkedArray, kh: Hashes | pa.ChunkedArray) -> pa.Table:
    """Rows set aside because their insert may have been made."""
    count = len(keys)
    why, reason = pa.repeat(pa.scalar(int(Aside.HELD), pa.uint8()), count), pa.repeat(pa.scalar(0, pa.uint8()), count)
    nothing = (pa.nulls(count, pa.utf8()), pa.nulls(count, pa.uint64()))
    columns = [keys, kh, why, reason, nothing[0], pa.repeat(OUTCOME_UNKNOWN, count), nothing[1]]
    return pa.table(columns, schema=ASIDE)


def _csv_bytes(array: pa.Array) -> npt.NDArray[np.uint32]:
    """An upper bound of each value's bytes in a CSV file, comma included: a quote may double every byte of text."""
    if not pa.types.is_string(array.type):
        return np.full(len(array), 44, np.uint32)
    lengths = pc.fill_null(pc.binary_length(array), 4).to_numpy(zero_copy_only=False)
    bound: npt.NDArray[np.uint32] = (lengths * 2 + 3).astype(np.uint32)
    return bound


def _joined(parts: list[npt.NDArray[_Number]], kind: type[_Number]) -> npt.NDArray[_Number]:
    return np.concatenate(parts) if parts else np.empty(0, kind)
