"""Before-images: what Salesforce holds in the fields that a batch is about to write, read just before it is sent.

One row a row of the batch: `IMAGE`, then for each field written `before:F`, Salesforce's own text of what it held
(null: nothing), and `sent:F`, a 64-bit hash of what is sent, in the form in which Salesforce may hold it (null: this
row leaves the field alone). The hash tells later whether Salesforce still holds what the run wrote, and keeps no value
of the model at rest. It is seeded by run and field, so hashes of two runs can't be compared; it is no secret: who can
guess a value can check it.
"""

from __future__ import annotations

import hashlib

import pyarrow as pa
import pyarrow.compute as pc

from dinmo_dbt.delivery.jobs import lookup_of
from dinmo_dbt.destination import Batch, Destination, Field, Operation, PayloadColumn
from dinmo_dbt.plan.records import find_parents, find_records
from dinmo_dbt.rows import values
from dinmo_dbt.rows.rowhash import hash_columns

BEFORE, SENT = "before:", "sent:"
# `existed`: whether there was a record for the row. Where there was none, the run that creates one notes its id.
IMAGE = pa.schema(
    [
        pa.field("key", pa.utf8()),
        pa.field("kh", pa.uint64()),
        pa.field("record_id", pa.utf8()),
        pa.field("operation", pa.utf8()),
        pa.field("existed", pa.bool_()),
    ]
)


def image_of(batch: Batch, destination: Destination, run_id: str) -> pa.Table:
    """The batch's records as they are now. Reads only, so it may be repeated; raises what the destination does."""
    written = [_written(batch, column, destination) for column in batch.columns if column.header != "Id"]
    record_ids = _record_ids(batch, destination)
    held = _held(batch, destination, [field.name for field, _, _ in written], record_ids)
    place = pc.index_in(record_ids, value_set=held["Id"].combine_chunks())
    found = pc.and_(pc.is_valid(place), pc.is_valid(record_ids))
    place = pc.if_else(found, place, pa.scalar(None, pa.int32()))
    columns = {
        "key": batch.rows["key"],
        "kh": batch.rows["kh"],
        "record_id": record_ids,
        "operation": pa.repeat(batch.operation.value, len(batch.rows)),
        "existed": found,
    }
    for field, sent, keep_nulls in written:
        columns[BEFORE + field.name] = held[field.name].combine_chunks().take(place)
        hashes = fingerprint(sent, field, run_id)
        left_alone = pc.is_null(sent) if keep_nulls else pa.repeat(False, len(sent))
        columns[SENT + field.name] = pc.if_else(left_alone, pa.scalar(None, pa.uint64()), hashes)
    return pa.table(columns)


def fingerprint(array: pa.Array, field: Field, run_id: str) -> pa.Array:
    """Hashes of canonical values, equal where Salesforce may hold the one for the other; null has its own."""
    seed = hashlib.sha256(f"{run_id}\0{field.name}".encode()).digest()[:8]
    held = values.held_form(array, field)
    return pa.array(hash_columns([held], seed=int.from_bytes(seed, "little")))


def joined(earlier: pa.Table, image: pa.Table) -> pa.Table:
    """The images of a run with those of one more batch. A row that is sent again has been imaged: its first stands."""
    fresh = pc.invert(pc.is_in(image["key"], value_set=earlier["key"].combine_chunks()))
    return pa.concat_tables([earlier, image.filter(fresh)], promote_options="default").combine_chunks()


def with_created(image: pa.Table, created: pa.Table) -> pa.Table:
    """The image, once Salesforce has said which rows made a record: columns key and record_id of `created`."""
    place = pc.index_in(image["key"].combine_chunks(), value_set=created["key"].combine_chunks())
    made = pc.is_valid(place)
    record_ids = created["record_id"].combine_chunks().take(place)
    record_ids = pc.if_else(made, record_ids, image["record_id"].combine_chunks())
    existed = pc.and_(image["existed"].combine_chunks(), pc.invert(made))
    for name, column in (("record_id", record_ids), ("existed", existed)):
        image = image.set_column(image.column_names.index(name), name, column)
    return image


def _written(batch: Batch, column: PayloadColumn, destination: Destination) -> tuple[Field, pa.Array, bool]:
    """The field that a column writes, what it sends in that field's own type, and whether a null leaves it alone."""
    sent = batch.rows[column.header].combine_chunks()
    if not column.is_parent_path:
        return column.field, sent, column.keep_nulls
    lookup = lookup_of(batch, column, destination)
    parents, _ = find_parents(destination, batch.object, column.header, lookup, column.field, sent)
    return lookup, parents, column.keep_nulls


def _record_ids(batch: Batch, destination: Destination) -> pa.Array:
    """The record that each row is about to write, as far as one can be known before; null for a new one."""
    if batch.operation is Operation.INSERT:
        return pa.nulls(len(batch.rows), pa.utf8())
    if batch.operation is not Operation.UPSERT:
        return batch.rows["Id"].combine_chunks()
    match = next(column for column in batch.columns if column.header == batch.match)
    ids, _ = find_records(destination, batch.object, match.field, batch.rows[match.header].combine_chunks())
    return ids


def _held(batch: Batch, destination: Destination, names: list[str], record_ids: pa.Array) -> pa.Table:
    wanted = pc.unique(record_ids.drop_null())
    if not len(wanted):
        return pa.table({name: pa.array([], pa.utf8()) for name in dict.fromkeys(("Id", *names))})
    return destination.read_many(batch.object, names, wanted)
