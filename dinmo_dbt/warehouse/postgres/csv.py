"""Whole rows of a CSV block, parsed by Arrow. Pure."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.csv

from dinmo_dbt.warehouse.postgres.columns import PLAIN


def end_of_rows(block: bytearray, filled: int) -> int:
    """Where the last whole row of the block ends; 0 if there is none. A line's end within quotes is part of a value."""
    end, quotes = filled, block.count(b'"', 0, filled)
    while (newline := block.rfind(b"\n", 0, end)) >= 0:
        quotes -= block.count(b'"', newline, end)
        if quotes % 2 == 0:
            return newline + 1
        # Within a value: what comes before it begins at the quote that opens it, or at one of a pair in it.
        end = block.rfind(b'"', 0, newline) + 1
    return 0


def parse(rows: pa.Buffer, schema: pa.Schema) -> tuple[pa.Table, bool]:
    """The rows, and whether all their text is UTF-8: a database in SQL_ASCII takes any bytes."""
    try:
        return _read_csv(rows, schema, check_utf8=True), True
    except pa.ArrowInvalid:
        return _read_csv(rows, schema, check_utf8=False), False


def _read_csv(rows: pa.Buffer, schema: pa.Schema, *, check_utf8: bool) -> pa.Table:
    read_as = {column.name: column.type if column.type in PLAIN.values() else pa.utf8() for column in schema}
    while True:
        try:
            return pa.csv.read_csv(
                pa.BufferReader(rows),
                read_options=pa.csv.ReadOptions(column_names=schema.names, block_size=rows.size + 1),
                parse_options=pa.csv.ParseOptions(newlines_in_values=True, ignore_empty_lines=False),
                convert_options=pa.csv.ConvertOptions(
                    check_utf8=check_utf8,
                    column_types=read_as,
                    null_values=[""],
                    strings_can_be_null=True,
                    quoted_strings_can_be_null=False,
                    true_values=["t"],
                    false_values=["f"],
                ),
            )
        except pa.ArrowCancelled:
            # A signal came meanwhile; Arrow hands it on to who listens for it, which is not for us to judge.
            continue
