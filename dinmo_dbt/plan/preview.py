"""What a plan would change in Salesforce, for its first rows: what is held now -> what would be held. Reads only.

A change is shown where one would be made, and only there: a null that keeps a field, a parent that the record has
already and a value that Salesforce holds in another form are none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dinmo_dbt.destination import Destination, Field, Operation, PayloadColumn
from dinmo_dbt.plan.plan import Plan, PlannedBatch
from dinmo_dbt.plan.records import find_parents, find_records, parent_object
from dinmo_dbt.rows import values
from dinmo_dbt.rows.changes import Kind
from dinmo_dbt.rows.field_types import type_of
from dinmo_dbt.rows.snapshot import Positions

ROWS_MAX = 20
CREATE, UPDATE, EITHER, DELETE = "create", "update", "create or update", "delete"


@dataclass(frozen=True)
class Change:
    """One field of one record, as texts; None is empty. A parent is named by the value that it was looked up by."""

    field: str
    now: str | None
    then: str | None


@dataclass(frozen=True)
class RowChange:
    """What becomes of one row's record. An upsert of a row whose record the state does not know is a "create or
    update": `note` says what Salesforce holds by now, and `record_id` is the record that it would take. One that is
    deleted is shown by the fields that the activation writes."""

    kind: str
    key: str
    record_id: str | None
    fields: tuple[Change, ...]
    note: str = ""


def preview(plan: Plan, destination: Destination, most: int = ROWS_MAX) -> list[RowChange]:
    """Up to `most` rows that would be sent, known ones first, and as many whose records are deleted or set. Raises what
    the destination does."""
    shown: dict[str, RowChange] = {}
    removing = [b for b in plan.batches if _removes(b)]
    sending = [b for b in plan.batches if not _removes(b)]
    sending.sort(key=lambda batch: batch.operation is Operation.INSERT)
    chosen = _first(plan, sending, most)
    for batch in sending:
        rows = batch.rows[np.isin(batch.rows, chosen)]
        for row in _of_batch(plan, destination, replace(batch, rows=rows)) if rows.size else ():
            shown[row.key] = _joined(shown[row.key], row) if row.key in shown else row
    removed: list[RowChange] = []
    for batch in removing:
        first = replace(batch, rows=batch.rows[: most - len(removed)])
        removed += _removed(plan, destination, first) if first.rows.size else []
    return [*shown.values(), *removed]


def _removes(batch: PlannedBatch) -> bool:
    return batch.leavers or batch.operation is Operation.DELETE


def _first(plan: Plan, batches: Sequence[PlannedBatch], most: int) -> Positions:
    chosen: list[int] = []
    for batch in batches:
        added = plan.changes.kind[batch.rows] == Kind.ADDED
        chosen += batch.rows[added.argsort(kind="stable")].tolist()
        chosen = list(dict.fromkeys(chosen))[:most]
    return np.array(sorted(chosen), np.int64)


def _joined(first: RowChange, then: RowChange) -> RowChange:
    """A row that is sent twice: without what is not there yet, then whole."""
    again = {change.field for change in then.fields}
    return replace(then, fields=(*(change for change in first.fields if change.field not in again), *then.fields))


@dataclass(frozen=True)
class _Writing:
    """What the rows write to one field of their records: `shown` is how it is shown, `then` what is compared."""

    shown_as: str
    field: Field
    shown: list[str | None]
    then: list[Any]
    keep_nulls: bool
    by: tuple[str, Field] | None = None  # the parent's object, and its field that tells which one it is


def _of_batch(plan: Plan, destination: Destination, batch: PlannedBatch) -> list[RowChange]:
    rows = plan.batch_rows(batch)
    keys = rows["key"].to_pylist()
    writing = [_writing(plan, destination, column, rows, batch) for column in batch.columns if column.header != "Id"]
    record_ids, several, freed = _records(plan, destination, batch, rows)
    names = tuple(dict.fromkeys(each.field.name for each in writing))
    wanted = tuple(dict.fromkeys(record_id for record_id in record_ids if record_id))
    read = destination.read(plan.schema.name, names, wanted) if wanted else []
    held = {str(record["Id"]): record for record in read}
    parents = {each.shown_as: _parents_held(destination, each, read) for each in writing if each.by}
    known = plan.known_ids(rows["key"].combine_chunks(), batch.rows)
    listed = []
    for number, key in enumerate(keys):
        record_id = record_ids[number]
        record = held.get(record_id or "")
        kind, note = _kind(
            plan, batch, record_id, known[number],
            several=several[number], is_there=record is not None, is_freed=freed[number],
        )  # fmt: skip
        refused = several[number] or (kind == UPDATE and record is None)
        changes = [] if refused else [_change(each, number, record or {}, parents) for each in writing]
        fields = tuple(change for change in changes if change is not None)
        listed.append(RowChange(kind, key, record_id if record is not None or kind == UPDATE else None, fields, note))
    return listed


def _removed(plan: Plan, destination: Destination, batch: PlannedBatch) -> list[RowChange]:
    """Of records that are deleted, or set because their rows left."""
    rows = plan.batch_rows(batch)
    deleting = batch.operation is Operation.DELETE
    match, columns = plan.mapping.match, plan.mapping.columns
    known = [column.field for column in ([match] if match else []) + [c for c in columns if c.lookup is None]]
    setting = [_of_constant(column, rows) for column in batch.columns if column.header != "Id"]
    fields = known if deleting else [each.field for each in setting]
    names = tuple(dict.fromkeys(field.name for field in fields if field.name != "Id"))
    ids = rows["Id"].to_pylist()
    held = {str(record["Id"]): record for record in destination.read(plan.schema.name, names, tuple(ids))}
    listed = []
    for number, (key, record_id) in enumerate(zip(rows["key"].to_pylist(), ids, strict=True)):
        record = held.get(record_id, {})
        if deleting:
            changes = [_emptied(field, record) for field in dict.fromkeys(fields)]
        else:
            changes = [_change(each, number, record, {}) for each in setting] if record else []
        gone = "" if record else "the record is gone already"
        note = "; ".join(part for part in ("left the segment" if batch.leavers else "", gone) if part)
        shown = tuple(change for change in changes if change is not None)
        listed.append(RowChange(DELETE if deleting else UPDATE, key, record_id, shown, note))
    return listed


def _of_constant(column: PayloadColumn, rows: pa.Table) -> _Writing:
    texts = values.text(rows[column.header].combine_chunks(), column.field).to_pylist()
    return _Writing(column.header, column.field, texts, texts, column.keep_nulls)


def _emptied(field: Field, record: dict[str, object]) -> Change | None:
    now = _as_sent(_as_text(record.get(field.name)), field)
    return None if now is None else Change(field.name, now, None)


def _kind(
    plan: Plan, batch: PlannedBatch, record_id: str | None, known: str | None,
    *, several: bool, is_there: bool, is_freed: bool,
) -> tuple[str, str]:  # fmt: skip
    """What is done with a row's record, and what is to be said of it."""
    if batch.operation is Operation.INSERT:
        return CREATE, ""
    if batch.operation is Operation.UPDATE:
        return UPDATE, "" if is_there else "no such record: Salesforce will refuse it"
    if is_there and record_id == known:
        return UPDATE, ""
    by = f"{plan.schema.name}.{batch.match}"
    if several:
        return EITHER, f"several records hold this {by}: Salesforce will refuse it"
    if is_freed:
        return CREATE, f"the record that holds this {by} now is another row's, and gets another value first"
    return EITHER, f"it holds this {by} now" if is_there else f"no record holds this {by} now"


def _records(
    plan: Plan, destination: Destination, batch: PlannedBatch, rows: pa.Table
) -> tuple[list[str | None], list[bool], list[bool]]:
    """The record that each row would be written to, as it is now; where several are in question; and where the one that
    is found by its match value is updated before, and holds another value then."""
    none = [False] * len(rows)
    if batch.operation is Operation.INSERT:
        return [None] * len(rows), none, none
    if batch.operation is Operation.UPDATE:
        return rows["Id"].to_pylist(), none, none
    match = next(column for column in batch.columns if column.header == batch.match)
    ids, several = find_records(destination, plan.schema.name, match.field, rows[match.header].combine_chunks())
    updated = [b.rows for b in plan.batches if b.operation is Operation.UPDATE and not b.leavers]
    theirs = plan.record_ids.take(pa.array(np.concatenate([np.empty(0, np.int64), *updated])))
    freed = pc.is_in(ids, value_set=theirs.drop_null())
    return pc.if_else(freed, pa.scalar(None, ids.type), ids).to_pylist(), several.tolist(), freed.to_pylist()


def _writing(
    plan: Plan, destination: Destination, column: PayloadColumn, rows: pa.Table, batch: PlannedBatch
) -> _Writing:
    sent = rows[column.header].combine_chunks()
    texts = values.text(sent, column.field).to_pylist()
    if column.is_parent_path:
        _, _, relationship = column.header.rpartition(".")[0].rpartition(":")
        lookup = plan.schema.relationship(relationship)
        assert lookup is not None, column.header
        ids, _ = find_parents(destination, plan.schema.name, column.header, lookup, column.field, sent)
        by = (parent_object(column.header, lookup), column.field)
        return _Writing(column.header, lookup, texts, ids.to_pylist(), column.keep_nulls, by)
    path = next((c for c in plan.mapping.columns if c.lookup is not None and c.lookup.name == column.header), None)
    if path is None:
        return _of_constant(column, rows)
    # The plan has looked for its parents already; those that an earlier plan makes have no id yet.
    spooled = plan.spool.take(batch.rows, ["key", path.header])
    place = pc.index_in(rows["key"].combine_chunks(), value_set=spooled["key"].combine_chunks())
    wanted = spooled[path.header].combine_chunks().take(place)
    if path.header in plan.emptied:
        left = pa.array(plan.emptied[path.header][batch.rows]).take(place)
        wanted = pc.if_else(left, pa.scalar(None, wanted.type), wanted)
    texts = values.text(wanted, path.field).to_pylist()
    by = (parent_object(path.header, column.field), path.field)
    return _Writing(path.header, column.field, texts, sent.to_pylist(), column.keep_nulls, by)


def _parents_held(destination: Destination, writing: _Writing, records: Sequence[dict[str, object]]) -> dict[str, str]:
    """By id of a parent that a record has now, the value of the field that parents are looked for by."""
    ids = dict.fromkeys(str(record[writing.field.name]) for record in records if record.get(writing.field.name))
    if writing.by is None or not ids:
        return {}
    parent, by = writing.by
    read = destination.read(parent, (by.name,), tuple(ids))
    return {str(record["Id"]): str(record[by.name]) for record in read if record.get(by.name) is not None}


def _change(
    writing: _Writing, number: int, record: dict[str, object], parents: dict[str, dict[str, str]]
) -> Change | None:
    """The change that a row makes to one field of its record; None if it makes none."""
    shown, then = writing.shown[number], writing.then[number]
    now = _as_text(record.get(writing.field.name))
    if shown is None and writing.keep_nulls:
        return None
    if writing.by is not None:
        held = None if now is None else parents[writing.shown_as].get(now, now)
        return (
            None
            if (shown is None and now is None) or (then is not None and then == now)
            else Change(writing.shown_as, held, shown)
        )
    if (record or shown is None) and _held_alike(now, then, writing.field):
        return None  # a new record may hold another value than none by default: a ticked checkbox
    return Change(writing.shown_as, _as_sent(now, writing.field), shown)


def _as_text(value: object) -> str | None:
    if value is None:
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _as_sent(text: str | None, field: Field) -> str | None:
    """What Salesforce holds, in the form in which it would be sent: 44, where its JSON says 44.0."""
    if text is None or not type_of(field).is_respelled:
        return text
    known = values.text(values.from_text(pa.array([text], pa.utf8()), field), field)[0].as_py()
    return known if isinstance(known, str) else text


def _held_alike(now: str | None, then: str | None, field: Field) -> bool:
    """Whether Salesforce already holds the value, as far as its own form of it tells."""
    both = [values.from_text(pa.array([text], pa.utf8()), field) for text in (now, then)]
    first, second = (values.held_form(array, field)[0].as_py() for array in both)
    return bool(first == second)
