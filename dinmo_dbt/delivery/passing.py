"""Unique values that pass from one record to another: which records must let go of theirs before others may take it.

Where two rows swap a value, or three hand theirs round, Salesforce refuses each: every value is still another record's.
So one record of each pair lets go first, its field emptied, and then all rows go as they are. Reads only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc

from dinmo_dbt.destination import Api, Batch, Destination, Field, Operation, PayloadColumn
from dinmo_dbt.rows import values
from dinmo_dbt.rows.field_types import type_of

ROWS_MAX = 2_000  # of one run: they are few, or the model is wrong
_PARKED_LENGTH_MIN = 18


@dataclass(frozen=True)
class LettingGo:
    """Records that let go of one unique field: `batch` empties it, `back` puts back what they held. Columns `Id` and
    the field, both by collections."""

    batch: Batch
    back: Batch

    @property
    def name(self) -> str:
        return self.batch.columns[1].header


def may_pass(batch: Batch) -> bool:
    """Whether a refusal for a value that another record holds may pass once that record has let go of it."""
    return batch.operation in (Operation.UPDATE, Operation.UPSERT) and not batch.leavers and bool(_unique(batch))


def letting_go(batches: Sequence[Batch], destination: Destination) -> list[LettingGo]:
    """What has to be let go, so that rows of these batches (of one object, refused for a value that another record
    holds) may take it. None of a row whose value a record outside of them holds: it would be refused again."""
    fields = {column.header: column.field for batch in batches for column in _unique(batch)}
    wants = {name: _wanted(batches, name, field) for name, field in fields.items()}
    holders = {name: _holders(batches[0].object, field, wants[name], destination) for name, field in fields.items()}
    moving = {row for wanted in wants.values() for row in wanted}
    for wanted in wants.values():
        often = Counter(wanted.values())
        moving -= {row for row, value in wanted.items() if value is not None and often[value] > 1}
    while stuck := {row for row in moving if _is_stuck(row, moving, fields, wants, holders)}:
        moving -= stuck
    found = []
    for name, field in fields.items():
        taken = {wants[name].get(row) for row in moving}
        going = [
            (record, held)
            for value, (record, held) in holders[name].items()
            if record in moving and value in taken and wants[name][record] != value
        ]
        if going:
            found.append(_parked(batches[0].object, field, going))
    return found


def _unique(batch: Batch) -> list[PayloadColumn]:
    """What an upsert is matched by is no value to let go: it would make a second record."""
    return [c for c in batch.columns if c.field.unique and not c.is_parent_path and c.header != batch.match]


def _wanted(batches: Sequence[Batch], name: str, field: Field) -> dict[str, str | None]:
    """By the row's record, the value it is to hold, as Salesforce compares it. A row without a record has a name of
    its own."""
    wanted: dict[str, str | None] = {}
    for number, batch in enumerate(batches):
        for column in _unique(batch):
            if column.header == name:
                ids = batch.rows["Id" if batch.operation is Operation.UPDATE else "record_id"].to_pylist()
                folded = _compared(batch.rows[name].combine_chunks(), field).to_pylist()
                for row, (record, value) in enumerate(zip(ids, folded, strict=True)):
                    if value is not None or not column.keep_nulls:
                        wanted[record or f"{number}:{row}"] = value
    return wanted


def _holders(
    object_name: str, field: Field, wanted: dict[str, str | None], destination: Destination
) -> dict[str, tuple[str, object]]:
    """By each wanted value the record that holds it now, and what that holds exactly."""
    texts = pa.array(sorted({value for value in wanted.values() if value is not None}), pa.utf8())
    distinct = values.from_text(texts, field).drop_null()
    if not len(distinct):
        return {}
    records = destination.lookup(object_name, field, distinct)
    folded = _compared(records["value"].combine_chunks(), field).to_pylist()
    pairs = zip(records["record_id"].to_pylist(), records["value"].to_pylist(), strict=True)
    return {value: pair for value, pair in zip(folded, pairs, strict=True) if value is not None}


def _is_stuck(
    row: str,
    moving: set[str],
    fields: dict[str, Field],
    wants: dict[str, dict[str, str | None]],
    holders: dict[str, dict[str, tuple[str, object]]],
) -> bool:
    """Whether a value that the row is to hold stays another record's: one that does not move, or keeps it, or can't be
    without."""
    for name, field in fields.items():
        value = wants[name].get(row)
        holder = holders[name].get(value, (row, None))[0] if value is not None else row
        if holder == row:
            continue
        if holder not in moving or wants[name].get(holder, value) == value or not _can_let_go(field):
            return True
    return False


def _can_let_go(field: Field) -> bool:
    return field.nillable or (type_of(field).is_text and field.length >= _PARKED_LENGTH_MIN)


def _parked(object_name: str, field: Field, going: Sequence[tuple[str, object]]) -> LettingGo:
    """Nothing, or where the field may not be empty the record's own id, which no other holds."""
    ids = pa.array([record for record, _ in going], pa.utf8())
    held = pa.array([value for _, value in going], values.canonical_type(field))
    columns = (PayloadColumn("Id", _ID), PayloadColumn(field.name, field))
    rows = pa.table({"Id": ids, field.name: pa.nulls(len(ids), held.type) if field.nillable else ids})
    batch = Batch("", Operation.UPDATE, object_name, Api.COLLECTIONS, columns, None, rows)
    return LettingGo(batch, replace(batch, rows=pa.table({"Id": ids, field.name: held})))


def _compared(array: pa.Array, field: Field) -> pa.Array:
    """Values as texts, equal where they are one to Salesforce."""
    return pc.cast(values.text(values.fold(values.echo_form(array, field), field), field), pa.utf8())


_ID = Field(name="Id", label="Record ID", type="id", length=18, nillable=False, id_lookup=True)
