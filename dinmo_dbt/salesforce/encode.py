"""A batch as Salesforce reads it: CSV for Bulk API 2.0, JSON for sObject Collections. Pure; no HTTP.

Both forms are made column by column from the same text, so that a row ends the same by either way: newlines inside
a value are `\\n`, a null clears its field (`#N/A`, `null`) or, under `keep_nulls`, leaves it alone (an empty cell, no
key). CSV: UTF-8 without BOM, header in describe's exact case, LF (Bulk API 2.0 guide, "Prepare CSV Files").

A null parent is `#N/A` in a column of the lookup itself: no source says what an org does with it in a relationship
column, so such a file is not written (`jobs` makes batches apart). In JSON too the lookup itself is set to null.
"""

from __future__ import annotations

import json
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from dinmo_dbt.destination import Batch, ObjectSchema, Operation, PayloadColumn
from dinmo_dbt.rows import values
from dinmo_dbt.rows.field_types import type_of
from dinmo_dbt.rows.texts import BULK_NULL

# Bulk API 2.0 takes 150 MB after base64, which is 100 MB of CSV (Salesforce Developer Limits, "Bulk API 2.0").
FILE_BYTES_MAX = 100_000_000
_SLICE_ROWS = 16_384
_WRITE_ROWS = 4_096


def write_csv(batch: Batch, file: BinaryIO) -> int:
    """The batch as CSV into `file`; its size in bytes."""
    table = batch.rows.select([column.header for column in batch.columns])
    header = ",".join(f'"{column.header}"' for column in batch.columns)
    size = file.write(header.encode() + b"\n")
    # Nulls are filled a column at a time (`_cells`): pyarrow's null_string is one choice for the whole file.
    options = pacsv.WriteOptions(include_header=False, batch_size=_WRITE_ROWS)
    for rows in table.to_batches(max_chunksize=_SLICE_ROWS):
        cells = [_cells(array, column) for array, column in zip(rows.columns, batch.columns, strict=True)]
        sink = pa.BufferOutputStream()
        pacsv.write_csv(pa.RecordBatch.from_arrays(cells, names=table.column_names), sink, options)
        size += file.write(sink.getvalue())
    return size


def json_records(batch: Batch, schema: ObjectSchema) -> bytes:
    """The body of a collections call: `{"allOrNone":false,"records":[...]}`; numbers exactly as canonical."""
    count = batch.rows.num_rows
    columns = [_json_members(batch, column, schema) for column in batch.columns]
    attributes = f'{{"attributes":{{"type":{json.dumps(batch.object)}}}'
    records = []
    for row in range(count):
        members = [column[row] for column in columns if column[row]]
        records.append(",".join([attributes, *members]) + "}")
    return ('{"allOrNone":false,"records":[' + ",".join(records) + "]}").encode()


def texts(array: pa.Array, column: PayloadColumn) -> pa.Array:
    """A canonical column as wire text, newlines as `\\n`; nulls stay null."""
    text = values.text(array, column.field)
    if type_of(column.field).is_text and pc.any(pc.match_substring(text, "\r")).as_py():
        text = pc.replace_substring(pc.replace_substring(text, "\r\n", "\n"), "\r", "\n")
    return text


def _cells(array: pa.Array, column: PayloadColumn) -> pa.Array:
    text = texts(array, column)
    if type_of(column.field).is_text and pc.any(pc.equal(text, BULK_NULL)).as_py():
        # It would clear the field instead of writing the text: the plan makes such rows invalid or sends them by REST.
        raise ValueError(f"a text {BULK_NULL} in {column.header} can't travel by Bulk API 2.0")
    if text.null_count == 0:
        return text
    if column.is_parent_path and not column.keep_nulls:
        raise ValueError(f"a null in {column.header} can't travel by Bulk API 2.0 but as its lookup's own")
    return pc.fill_null(text, "" if column.keep_nulls else BULK_NULL)


def _json_members(batch: Batch, column: PayloadColumn, schema: ObjectSchema) -> list[str]:
    """`"Name":value` for each row, '' where the key is left out."""
    array = batch.rows.column(column.header).combine_chunks()
    present = texts(array, column).to_pylist()
    bare = type_of(column.field).is_bare
    if column.is_parent_path:
        opening, closing, cleared = _parent(column, schema)
    else:
        opening, closing, cleared = f"{json.dumps(column.header)}:", "", f"{json.dumps(column.header)}:null"
    absent = "" if column.keep_nulls or _identifies(batch, column) else cleared
    members = []
    for text in present:
        if text is None:
            members.append(absent)
        else:
            members.append(opening + (text if bare else json.dumps(text, ensure_ascii=False)) + closing)
    return members


def _identifies(batch: Batch, column: PayloadColumn) -> bool:
    """A null Id may not be sent as null in an update, nor a null external id in an upsert: no key, and Salesforce
    names what is missing in that row's own error."""
    return column.header == "Id" or (batch.operation is Operation.UPSERT and column.header == batch.match)


def _parent(column: PayloadColumn, schema: ObjectSchema) -> tuple[str, str, str]:
    """`Customer__r.Customer_Id__c` as a nested object, and what clears the lookup: the lookup field itself.

    A polymorphic lookup names its object first: `Lead:Who.Email`.
    """
    path, field = column.header.rsplit(".", 1)
    kind, _, relationship = path.rpartition(":")
    lookup = schema.relationship(relationship)
    assert lookup is not None, f"{schema.name} has no relationship {relationship}"
    attributes = f'"attributes":{{"type":{json.dumps(kind)}}},' if kind else ""
    opening = f"{json.dumps(relationship)}:{{{attributes}{json.dumps(field)}:"
    return opening, "}", f"{json.dumps(lookup.name)}:null"
