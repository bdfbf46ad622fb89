"""Writing records: targets, required fields, lookups, uniqueness, system fields, the recycle bin.

One engine for REST, collections and Bulk. It works on a block of rows inside a transaction of the caller; a
row that breaks a rule gets errors and is not written, the others are. Reads nothing but the store.
"""

from __future__ import annotations

import dataclasses
import json
import re
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import repeat
from typing import Any, Literal, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dinmo_dbt.emulator.errors import ApiError, RowError
from dinmo_dbt.emulator.ids import COUNTER_BITS, COUNTER_MAX, MALFORMED, Ints
from dinmo_dbt.emulator.records.recycle import recycle
from dinmo_dbt.emulator.records.rules import Cell, Errors, Mask, Origin, convert
from dinmo_dbt.emulator.schema.definitions import TEXT_TYPES, Field, Schema, SObject
from dinmo_dbt.emulator.store import Store, Table, fold, folded_sql, quoted, stamp

Operation = Literal["insert", "update", "upsert", "delete"]
CHUNK_ROWS = 200
_SYSTEM = ("CreatedDate", "CreatedById", "LastModifiedDate", "LastModifiedById", "SystemModstamp", "IsDeleted")
_DEFAULT_FORMULAS = frozenset({("date", "TODAY()"), ("datetime", "NOW()")})
_IGNORED = b"\x00"  # bound where an update leaves a field alone; no stored value is a blob


@dataclass(frozen=True, slots=True)
class Column:
    """One column as it came in: a field, or a parent's field that identifies the parent, and its text.

    `key` is set for `Parent__r.Ext__c`. A null in `text` asks for null; `given` is None when every row has it.
    """

    field: Field
    text: pa.Array
    given: Mask | None = None
    key: tuple[SObject, Field] | None = None
    origin: Origin = dataclasses.field(default_factory=Origin)


@dataclass(slots=True)
class Work:
    """A block of rows, converted, and what is wrong with them so far."""

    table: Table
    count: int
    cells: list[Cell] = dataclasses.field(default_factory=list)
    parents: list[tuple[Cell, tuple[SObject, Field]]] = dataclasses.field(default_factory=list)
    errors: Errors = dataclasses.field(default_factory=dict)
    absent: set[int] = dataclasses.field(default_factory=set)  # rows whose own record is not there, or deleted

    def refuse(self, row: int, error: RowError) -> None:
        self.errors.setdefault(row, []).append(error)

    def alive(self, active: Mask) -> Mask:
        mask = active.copy()
        if self.errors:
            mask[list(self.errors)] = False
        return mask


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of each row: its record (0 when there is none), whether it is new, why it was refused.

    `absent` are the rows whose own record is not there, or deleted.
    """

    rids: Ints
    created: Mask
    errors: Errors
    absent: frozenset[int] = frozenset()


class Guard(Protocol):
    """Refuses rows for reasons that are not in the schema: with each block, and with the rows about to be written."""

    def before(self, work: Work, operation: str) -> None: ...

    def check(self, db: sqlite3.Connection, work: Work, cells: list[Cell], rids: Ints, active: Mask) -> None: ...


class Org:
    """The records of one org. Every method that writes runs inside the caller's `Store.writing()`."""

    def __init__(self, store: Store, clock: Callable[[], datetime]) -> None:
        self.store = store
        self.clock = clock
        self.guard: Guard | None = None

    @property
    def schema(self) -> Schema:
        return self.store.schema

    def prepare(self, table: Table, columns: Iterable[Column], count: int) -> Work:
        """Convert columns to stored values. Needs no transaction: the caller may hold none."""
        work = Work(table, count)
        for column in columns:
            if column.key is not None and column.key[1].name != "Id":  # a parent's Id is the lookup itself
                values = self._convert(column.key[1], column, work.errors)
                work.parents.append((Cell(column.field, values, column.given), column.key))
            else:
                values = self._convert(column.field, column, work.errors)
                work.cells.append(Cell(column.field, values, column.given))
        return work

    def _convert(self, field_: Field, column: Column, errors: Errors) -> pa.Array:
        if field_.type not in ("reference", "id"):
            return convert(field_, column.text, column.origin, errors)
        rids = self.store.codec.decode_many(column.text)
        wanted = np.array([self.store.tables[n].number for n in field_.reference_to if n in self.store.tables])
        wrong = np.flatnonzero(~np.isin(rids >> COUNTER_BITS, wanted))
        null = column.text.is_null().to_numpy(zero_copy_only=False) if column.text.null_count else None
        for row in wrong.tolist():
            if null is None or not null[row]:
                message = f"{field_.label}: id value of incorrect type: {column.text[row].as_py()}"
                errors.setdefault(row, []).append(RowError("MALFORMED_ID", message, (field_.name,)))
        return pa.array(rids, mask=rids == MALFORMED)

    def apply(
        self,
        db: sqlite3.Connection,
        operation: Operation,
        work: Work,
        *,
        ids: pa.Array | None = None,
        key: Field | None = None,
        chunk_rows: int = CHUNK_ROWS,
    ) -> Outcome:
        """Write the rows that can be written.

        `ids` is the text of the Id column; `key` is the external id of an upsert, None for an upsert by Id.
        Two rows of one chunk with one external id are both refused; across chunks the later one updates what
        the earlier one wrote. Two rows with one Id are written in their order (unverified).
        """  # fmt: skip
        count = work.count
        rids = np.zeros(count, np.int64)
        created = np.zeros(count, np.bool_)
        everything = np.ones(count, np.bool_)
        if self.guard is not None:
            self.guard.before(work, operation)
        if operation == "insert":
            self._save(db, work, rids, created, everything, None)
        elif operation == "upsert" and key is not None:
            self._upsert(db, work, key, rids, created, chunk_rows)
        else:
            text = ids if ids is not None else pa.nulls(count, pa.string())
            self._target(db, work, text, rids, may_create=operation == "upsert")
            if operation == "delete":
                self._delete_rows(db, work, rids)
            else:
                for turn in _turns(rids.tolist()):
                    self._save(db, work, rids, created, turn, None)
        failed = list(work.errors)
        created[failed] = False
        return Outcome(rids, created, work.errors, frozenset(work.absent))

    def _target(self, db: sqlite3.Connection, work: Work, ids: pa.Array, rids: Ints, *, may_create: bool) -> None:
        """Fill `rids` from the Id column and refuse the rows whose record is not there."""
        found = self.store.codec.decode_many(ids)
        texts = ids.to_pylist()
        number = work.table.number
        wrong = (found >> COUNTER_BITS) != number
        known = self._existing(db, work.table, found[~wrong].tolist())
        for row, rid in enumerate(found.tolist()):
            text = texts[row]
            if not text:
                if not may_create:
                    message = "Id not specified in an update call"  # of a delete unverified
                    work.refuse(row, RowError("MISSING_ARGUMENT", message))
            elif wrong[row]:
                label = work.table.sobject.every[0].label  # the Id's: "Record ID" where the object is custom
                message = f"{label}: id value of incorrect type: {text}"
                work.refuse(row, RowError("MALFORMED_ID", message, ("Id",)))
            elif rid not in known:
                work.absent.add(row)
                work.refuse(row, RowError("INVALID_CROSS_REFERENCE_KEY", "invalid cross reference id"))
            elif known[rid]:
                rids[row] = rid
                work.absent.add(row)
                work.refuse(row, RowError("ENTITY_IS_DELETED", "entity is deleted"))
            else:
                rids[row] = rid

    def _existing(self, db: sqlite3.Connection, table: Table, rids: Iterable[int]) -> dict[int, bool]:
        """Which of these records exist, and whether they are in the recycle bin."""
        sql = f'SELECT rid, "IsDeleted" FROM {table.name} WHERE rid IN (SELECT value FROM json_each(?))'
        return {r: bool(d) for r, d in db.execute(sql, (json.dumps(list(rids)),))}

    def _upsert(
        self, db: sqlite3.Connection, work: Work, key: Field, rids: Ints, created: Mask, chunk_rows: int
    ) -> None:
        cell = next(c for c in work.cells if c.field.name == key.name)
        work.cells = [c for c in work.cells if c is not cell]
        keys = _keys(key, cell.values)
        given = cell.given
        for row, value in enumerate(keys):
            if value is None or (given is not None and not given[row]):
                keys[row] = None
                if row not in work.errors:
                    # The text of Bulk 2.0 is unverified; this is the one of the other APIs.
                    work.refuse(row, RowError("MISSING_ARGUMENT", f"{key.name} not specified"))
        if len(set(keys)) < len(keys):
            self._refuse_copies(work, key, keys, cell.values, chunk_rows)
        for turn in _turns(keys):
            wanted = [v for v, on in zip(keys, turn, strict=True) if on and v is not None]
            matches = self.find(db, work.table, key, wanted)
            for row in np.flatnonzero(turn).tolist():
                hits = matches.get(keys[row])
                if hits is None:
                    continue
                if len(hits) > 1:
                    listed = ", ".join(self.store.codec.encode(r) for r in hits)
                    message = f"{key.name}: more than one record found for external id field: [{listed}]"
                    work.refuse(row, RowError("DUPLICATE_EXTERNAL_ID", message, (key.name,)))
                else:
                    rids[row] = hits[0]
            self._save(db, work, rids, created, turn, cell)

    def _refuse_copies(self, work: Work, key: Field, keys: list[Any], values: pa.Array, chunk_rows: int) -> None:
        for start in range(0, len(keys), chunk_rows):
            chunk = keys[start : start + chunk_rows]
            counts = Counter(v for v in chunk if v is not None)
            if len(counts) == len(chunk):
                continue
            for row, value in enumerate(chunk, start):
                if value is not None and counts[value] > 1:
                    shown = values[row].as_py()
                    message = f"Duplicate external id specified: {shown}"
                    work.refuse(row, RowError("DUPLICATE_VALUE", message, (key.name,)))

    def find(self, db: sqlite3.Connection, table: Table, key: Field, wanted: Sequence[Any]) -> dict[Any, list[int]]:
        """Living records by external id, as upsert matches: folded only if unique and case-insensitive.

        That a record in the recycle bin is not matched is unverified.
        """
        column = f"t.{quoted(key.name)}"
        if not key.folded:
            match = f"{column} = k.value"
        elif key.matched_folded:
            match = f"{folded_sql(column)} = k.value"
        else:
            match = f"{folded_sql(column)} = fold(k.value) AND {column} = k.value"
        return _probed(db, table, match, wanted)

    def _save(
        self, db: sqlite3.Connection, work: Work, rids: Ints, created: Mask, active: Mask, key: Cell | None
    ) -> None:
        """Insert the active rows without a record, update the others. `key` is stored by inserts only."""
        cells = _merged([*work.cells, *self._parents(db, work, active)])
        creating = active & (rids == 0)
        self._check_access(work, cells, creating, active & (rids != 0))
        if key is not None:
            if not key.field.createable:  # an auto-number: it finds records, and can't be given to one (unverified)
                for row in np.flatnonzero(creating).tolist():
                    work.refuse(row, read_only((key.field.name,)))
            cells = [*cells, key]
        _check_defaults(work, cells, creating)
        self._check_required(work, cells, creating, active & (rids != 0))
        self._check_links(db, work, cells, active)
        if self.guard is not None:
            self.guard.check(db, work, cells, rids, active)
        losers = self._check_unique(db, work, cells, rids, active, key)
        alive = work.alive(active)
        new = np.flatnonzero(alive & creating)
        if len(losers):
            new = np.setdiff1d(new, np.array(list(losers)))
        old = np.flatnonzero(alive & (rids != 0))
        if len(losers):
            old = np.setdiff1d(old, np.array(list(losers)))
        if len(new):
            first = self.store.allocate(db, work.table, len(new))
            rids[new] = np.arange(first, first + len(new))
            created[new] = True
            self._insert(db, work.table, cells, rids, new)
        if len(old):
            self._update(db, work.table, [c for c in cells if c is not key], rids, old)
        for row, (name, winner) in losers.items():
            self._refuse_duplicate(work, row, name, int(rids[winner]))

    def _parents(self, db: sqlite3.Connection, work: Work, active: Mask) -> list[Cell]:
        """Lookups given by the parent's external id, as lookups by record."""
        cells = []
        for cell, (parent, key) in work.parents:
            table = self.store.table(parent)
            keys = _keys(key, cell.values)
            matches = self.find(db, table, key, [k for k in keys if k is not None])
            found: list[int | None] = [None] * work.count
            for row in np.flatnonzero(work.alive(active)).tolist():
                value = keys[row]
                if value is None or (cell.given is not None and not cell.given[row]):
                    continue
                hits = matches.get(value, [])
                if not hits:
                    shown = cell.values[row].as_py()
                    message = f"Foreign key external ID: {shown} not found for field {key.name} in entity {parent.name}"
                    work.refuse(row, RowError("INVALID_FIELD", message))
                elif len(hits) > 1:
                    listed = ", ".join(self.store.codec.encode(r) for r in hits)
                    message = f"{key.name}: more than one record found for external id field: [{listed}]"
                    work.refuse(row, RowError("DUPLICATE_EXTERNAL_ID", message, (key.name,)))
                else:
                    found[row] = hits[0]
            cells.append(Cell(cell.field, pa.array(found, pa.int64()), cell.given))
        return cells

    def _check_access(self, work: Work, cells: list[Cell], creating: Mask, updating: Mask) -> None:
        """An object that is closed to its user, else read-only fields: one error a row that names them all."""
        sobject = work.table.sobject
        for mask, allowed, what, closed in (
            (creating, sobject.createable, "inserted", [c for c in cells if not c.field.createable]),
            (updating, sobject.updateable, "updated", [c for c in cells if not c.field.updateable]),
        ):
            if not allowed:
                for row in np.flatnonzero(mask).tolist():
                    message = f"entity type cannot be {what}: {sobject.label}"  # as users quote it
                    work.refuse(row, RowError("CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY", message))
                continue
            if not closed:
                continue
            for row in np.flatnonzero(mask).tolist():
                names = tuple(c.field.name for c in closed if c.given is None or c.given[row])
                if names:
                    work.refuse(row, read_only(names))

    def _check_required(self, work: Work, cells: list[Cell], creating: Mask, updating: Mask) -> None:
        by_name = {c.field.name: c for c in cells}
        missing: dict[int, list[str]] = {}
        for each in work.table.sobject.fields:
            cell = by_name.get(each.name)
            if each.nillable or each.type == "boolean" or not (each.createable or each.updateable):
                continue
            defaulted = self._default(work.table.sobject, each) is not None
            if cell is None:
                rows = creating if each.required and not defaulted else None
            elif cell.values.null_count == 0 and cell.given is None:
                rows = None
            else:
                null = cell.values.is_null().to_numpy(zero_copy_only=False)
                given = np.ones(work.count, np.bool_) if cell.given is None else cell.given
                if each.name == "OwnerId":
                    self._refuse_ownerless(work, (creating | updating) & given & null)
                    continue
                rows = updating & given & null
                if each.required:
                    rows = rows | (creating & (given & null if defaulted else null | ~given))
            if rows is not None:
                for row in np.flatnonzero(rows).tolist():
                    missing.setdefault(row, []).append(each.name)
        for row, names in missing.items():
            if row not in work.errors:
                listed = ", ".join(names)
                message = f"Required fields are missing: [{listed}]"
                work.refuse(row, RowError("REQUIRED_FIELD_MISSING", message, tuple(names)))

    def _refuse_ownerless(self, work: Work, rows: Mask) -> None:
        for row in np.flatnonzero(rows).tolist():  # CumulusCI #3400
            error = RowError("INVALID_CROSS_REFERENCE_KEY", "Owner ID: owner cannot be blank", ("OwnerId",))
            work.refuse(row, error)

    def _check_links(self, db: sqlite3.Connection, work: Work, cells: list[Cell], active: Mask) -> None:
        """Every lookup must point to a living record."""
        for cell in cells:
            if cell.field.type != "reference" or cell.values.null_count == work.count:
                continue
            values = cell.values.fill_null(0).to_numpy()
            if cell.field.name == "RecordTypeId":
                self._check_record_types(work, values, active)
                continue
            wanted = np.unique(values[active])
            known: dict[int, bool] = {}
            for number in np.unique(wanted >> COUNTER_BITS).tolist():
                table = self.store.table_of(number << COUNTER_BITS)
                if table is not None:
                    known |= self._existing(db, table, wanted[wanted >> COUNTER_BITS == number].tolist())
            bad = [r for r in wanted.tolist() if r and known.get(r, True)]
            if not bad:
                continue
            for row in np.flatnonzero(active & np.isin(values, bad)).tolist():
                if cell.given is not None and not cell.given[row]:
                    continue
                if values[row] in known:
                    work.refuse(row, RowError("ENTITY_IS_DELETED", "entity is deleted"))
                else:
                    error = RowError("INVALID_CROSS_REFERENCE_KEY", "invalid cross reference id")
                    work.refuse(row, error)

    def _check_record_types(self, work: Work, values: Ints, active: Mask) -> None:
        """A record type must be one of the object's that its user may choose."""
        ids = [r.id for r in work.table.sobject.record_types if r.usable and r.id is not None]
        usable = [0, *(self.store.codec.decode(i) for i in ids)]
        for row in np.flatnonzero(active & ~np.isin(values, usable)).tolist():
            shown = self.store.codec.encode(int(values[row]))
            message = f"Record Type ID: this ID value isn't valid for the user: {shown}"
            work.refuse(row, RowError("INVALID_CROSS_REFERENCE_KEY", message, ("RecordTypeId",)))

    def _check_unique(
        self, db: sqlite3.Connection, work: Work, cells: list[Cell], rids: Ints, active: Mask, key: Cell | None
    ) -> dict[int, tuple[str, int]]:
        """Refuse rows that clash with stored records; return those that clash inside the block.

        Inside the block the first row wins: the result maps a losing row to the field and the winning row.
        """
        unique = [c for c in cells if c.field.unique and not (key is not None and c is key)]
        columns: list[tuple[Cell, list[Any]]] = []
        copies = False
        for cell in unique:
            keys = [fold(v) for v in cell.values.to_pylist()] if cell.field.folded else cell.values.to_pylist()
            rows = [
                r for r in np.flatnonzero(work.alive(active)).tolist()
                if keys[r] is not None and (cell.given is None or cell.given[r])
            ]  # fmt: skip
            wanted = [keys[r] for r in rows]
            copies = copies or len(set(wanted)) < len(wanted)
            found = self._holders(db, work.table, cell.field, wanted)
            for row in rows:
                holders = [h for h in found.get(keys[row], ()) if h != rids[row]]
                if holders:
                    self._refuse_duplicate(work, row, cell.field.name, holders[0])
            columns.append((cell, keys))
        if not copies:
            return {}
        losers: dict[int, tuple[str, int]] = {}
        taken: dict[tuple[str, Any], int] = {}
        for row in np.flatnonzero(work.alive(active)).tolist():
            claims = [
                (c.field.name, k[row]) for c, k in columns
                if k[row] is not None and (c.given is None or c.given[row])
            ]  # fmt: skip
            clash = next((claim for claim in claims if claim in taken), None)
            if clash is not None:
                losers[row] = (clash[0], taken[clash])
            else:
                taken.update(dict.fromkeys(claims, row))
        return losers

    def _holders(self, db: sqlite3.Connection, table: Table, key: Field, wanted: list[Any]) -> dict[Any, list[int]]:
        """Living records that hold a unique value; the values come folded if the field is."""
        column = f"t.{quoted(key.name)}"
        match = f"{folded_sql(column) if key.folded else column} = k.value"
        return _probed(db, table, match, wanted)

    def _refuse_duplicate(self, work: Work, row: int, name: str, holder: int) -> None:
        text = self.store.codec.encode(holder) if holder > 0 else ""
        message = f"duplicate value found: {name} duplicates value on record with id: {text}"
        work.refuse(row, RowError("DUPLICATE_VALUE", message))

    def _insert(self, db: sqlite3.Connection, table: Table, cells: list[Cell], rids: Ints, rows: Ints) -> None:
        by_name = {c.field.name: c for c in cells}
        names = ["rid"]
        sources: list[Iterable[Any]] = [_ints(rids, rows)]
        for each in table.sobject.every:
            cell = by_name.get(each.name)
            if not each.stored or each.name == "Id" or each.name in _SYSTEM:
                continue
            if each.auto_number is not None:
                names.append(each.name)
                sources.append([auto_number(each.auto_number, r & COUNTER_MAX) for r in rids[rows].tolist()])
                continue
            default = self._default(table.sobject, each)
            if cell is None:
                if each.name == "Name" and each.defaulted_on_create:
                    names.append(each.name)
                    sources.append(self.store.codec.encode_many(rids[rows]).to_pylist())
                elif default is not None:
                    names.append(each.name)
                    sources.append(repeat(default, len(rows)))
                continue
            values = _python(cell.values, rows)
            if cell.given is not None and not cell.given[rows].all():
                given = cell.given[rows].tolist()
                values = [v if g else default for v, g in zip(values, given, strict=True)]
            if each.name == "Name" and each.defaulted_on_create:
                codes = self.store.codec.encode_many(rids[rows]).to_pylist()
                values = [c if v is None else v for v, c in zip(values, codes, strict=True)]
            elif not each.nillable and default is not None:
                values = [default if v is None else v for v in values]
            names.append(each.name)
            sources.append(values)
        moment, user = f"'{stamp(self.clock())}'", str(self.store.user_rid)
        system = dict(zip(_SYSTEM, (moment, user, moment, user, moment, "0"), strict=True))
        columns = ", ".join(map(quoted, [*names, *system]))
        marks = ", ".join(["?"] * len(names) + list(system.values()))
        db.executemany(f"INSERT INTO {table.name} ({columns}) VALUES ({marks})", zip(*sources, strict=True))

    def _default(self, sobject: SObject, each: Field) -> Any:
        """What an insert stores in a field it was not given."""
        if each.name == "RecordTypeId":
            ids = [r.id for r in sobject.record_types if r.default and r.usable and r.id is not None]
            return self.store.codec.decode(ids[0]) if ids else None
        if each.name == "OwnerId":
            return self.store.user_rid
        if each.default_formula is not None and (each.type, each.default_formula) in _DEFAULT_FORMULAS:
            now = stamp(self.clock())
            return now[:10] if each.type == "date" else now
        if each.type == "boolean":
            return int(bool(each.default))
        if each.default is None:
            return None
        if each.type in TEXT_TYPES:
            return str(each.default)
        errors: Errors = {}
        return convert(each, pa.array([str(each.default)]), Origin(0), errors)[0].as_py()

    def _update(self, db: sqlite3.Connection, table: Table, cells: list[Cell], rids: Ints, rows: Ints) -> None:
        """Set what is given, and the stamps, also where nothing changes (believed true; unverified)."""
        moment = f"'{stamp(self.clock())}'"
        sets: list[str] = []
        sources: list[list[Any]] = []
        for cell in cells:
            if not cell.field.stored or (cell.given is not None and not cell.given[rows].any()):
                continue
            column, values = quoted(cell.field.name), _python(cell.values, rows)
            if cell.field.name == "Name" and cell.field.custom is False and cell.field.defaulted_on_create:
                codes = self.store.codec.encode_many(rids[rows]).to_pylist()
                values = [c if v is None else v for v, c in zip(values, codes, strict=True)]
            mark = f"?{len(sources) + 1}"
            if cell.given is None or cell.given[rows].all():
                sets.append(f"{column} = {mark}")
            else:
                sets.append(f"{column} = iif(typeof({mark}) = 'blob', {column}, {mark})")
                given = cell.given[rows].tolist()
                values = [v if g else _IGNORED for v, g in zip(values, given, strict=True)]
            sources.append(values)
        sets += [f'"{name}" = {moment}' for name in ("LastModifiedDate", "SystemModstamp")]
        sets.append(f'"LastModifiedById" = {self.store.user_rid}')
        sources.append(_ints(rids, rows))
        sql = f"UPDATE {table.name} SET {', '.join(sets)} WHERE rid = ?{len(sources)}"
        db.executemany(sql, zip(*sources, strict=True))

    def _delete_rows(self, db: sqlite3.Connection, work: Work, rids: Ints) -> None:
        if not work.table.sobject.deletable:
            for row in range(work.count):
                work.refuse(row, RowError("INSUFFICIENT_ACCESS_OR_READONLY", "insufficient access rights on object id"))
            return
        if self.guard is not None:
            self.guard.check(db, work, [], rids, rids != 0)
        rows = [r for r in range(work.count) if r not in work.errors]
        seen: set[int] = set()
        for row in rows:
            rid = int(rids[row])
            if rid in seen:
                work.refuse(row, RowError("ENTITY_IS_DELETED", "entity is deleted"))
            seen.add(rid)
        refused = recycle(self.store, db, work.table, sorted(seen), moment=stamp(self.clock()))
        for row in rows:
            if int(rids[row]) in refused and row not in work.errors:
                work.refuse(row, refused[int(rids[row])])


def read_only(names: tuple[str, ...]) -> RowError:
    """The refusal of fields that are not writable (formie #1981, SFDMU #177)."""
    message = (
        f"Unable to create/update fields: {', '.join(names)}. Please check the security settings of this field and "
        "verify that it is read/write for your profile or permission set."
    )
    return RowError("INVALID_FIELD_FOR_INSERT_UPDATE", message, names)


def auto_number(display: str, counter: int) -> str:
    """An auto-number's text: `PE-{0000}` and 7 give `PE-0007`. Date parts of a format are not emulated."""
    found = re.search(r"\{(0+)\}", display)
    if found is None:
        raise ApiError(400, "NOT_EMULATED", f"The auto-number format {display} is not emulated")
    return display[: found.start()] + str(counter).zfill(len(found[1])) + display[found.end() :]


def _probed(db: sqlite3.Connection, table: Table, match: str, wanted: Sequence[Any]) -> dict[Any, list[int]]:
    """The living records, oldest first, that `match` each wanted `k.value`."""
    # CROSS JOIN fixes the order: probe the index once per wanted value, never scan the table. Values in order share
    # index pages; one row for all that is found takes SQLite one step, not thousands that each wait for the GIL.
    sql = (
        f"SELECT json_group_array(k.key), json_group_array(t.rid) FROM json_each(?) k CROSS JOIN {table.name} t "
        f'ON {match} WHERE t."IsDeleted" = 0'
    )
    values = sorted(set(wanted))
    places, records = db.execute(sql, (json.dumps(values, ensure_ascii=False),)).fetchone()
    found: dict[Any, list[int]] = {}
    for place, rid in zip(json.loads(places), json.loads(records), strict=True):
        found.setdefault(values[place], []).append(rid)
    for rids in found.values():
        if len(rids) > 1:
            rids.sort()
    return found


def _check_defaults(work: Work, cells: list[Cell], creating: Mask) -> None:
    """Refuse new rows that need a default value this server can't compute, by the field's name."""
    by_name = {c.field.name: c for c in cells}
    for each in work.table.sobject.every:
        if each.default_formula is None or (each.type, each.default_formula) in _DEFAULT_FORMULAS:
            continue
        cell = by_name.get(each.name)
        needing = creating if cell is None else creating & ~cell.given if cell.given is not None else None
        for row in np.flatnonzero(needing).tolist() if needing is not None else ():
            message = f"The default value formula of {each.name} is not emulated: {each.default_formula}"
            work.refuse(row, RowError("NOT_EMULATED", message, (each.name,)))


def _merged(cells: list[Cell]) -> list[Cell]:
    """One cell a field: a lookup may come by id in one row and by external id in another; of both the latter counts
    (unverified).
    """
    merged: dict[str, Cell] = {}
    for cell in cells:
        before = merged.get(cell.field.name)
        if before is not None and cell.given is not None:
            given = None if before.given is None else before.given | cell.given
            cell = Cell(cell.field, pc.if_else(pa.array(cell.given), cell.values, before.values), given)
        merged[cell.field.name] = cell
    return list(merged.values())


def _keys(key: Field, values: pa.Array) -> list[Any]:
    """Values as upsert compares them."""
    listed: list[Any] = values.to_pylist()
    return [fold(v) for v in listed] if key.matched_folded else listed


def _turns(keys: list[Any]) -> list[Mask]:
    """Masks of rows that can be written together: the k-th copies of a repeated key go in turn k.

    None and 0 are no keys: such rows go in the first turn.
    """
    if len(set(keys)) == len(keys):
        return [np.ones(len(keys), np.bool_)]
    seen: Counter[Any] = Counter()
    turn = np.zeros(len(keys), np.int64)
    for row, value in enumerate(keys):
        if value:
            turn[row] = seen[value]
            seen[value] += 1
    return [turn == k for k in range(int(turn.max()) + 1)] if len(keys) else []


def _ints(rids: Ints, rows: Ints) -> list[int]:
    listed: list[int] = rids[rows].tolist()
    return listed


def _python(values: pa.Array, rows: Ints) -> list[Any]:
    """Stored values as Python objects for SQLite; a null double becomes NaN, which SQLite stores as NULL."""
    if len(rows) < len(values):
        values = values.take(pa.array(rows))
    if pa.types.is_integer(values.type) and values.null_count:
        return values.to_pylist()  # type: ignore[no-any-return]
    return values.to_numpy(zero_copy_only=False).tolist()  # type: ignore[no-any-return]
