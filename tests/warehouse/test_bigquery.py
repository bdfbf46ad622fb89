"""BigQuery's types, without its client: whole runs against a stand-in are in tests/stand_ins."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import pytest

from dinmo_dbt.rows.forms import type_name
from dinmo_dbt.warehouse.bigquery.columns import column_of


@dataclass(frozen=True)
class SchemaField:
    field_type: str
    mode: str = "NULLABLE"
    name: str = "c"
    fields: tuple[SchemaField, ...] = ()


@pytest.mark.parametrize(
    ("kind", "arrives", "named"),
    [
        ("STRING", pa.utf8(), "text"),
        ("INTEGER", pa.int64(), "whole number"),
        ("INT64", pa.int64(), "whole number"),
        ("NUMERIC", pa.decimal128(38, 9), "decimal(9)"),
        ("FLOAT", pa.float64(), "float"),
        ("FLOAT64", pa.float64(), "float"),
        ("BOOLEAN", pa.bool_(), "boolean"),
        ("BOOL", pa.bool_(), "boolean"),
        ("BYTES", pa.binary(), "binary"),
        ("DATE", pa.date32(), "date"),
        ("TIME", pa.time64("us"), "time"),
        ("DATETIME", pa.timestamp("us"), "timestamp"),
        ("TIMESTAMP", pa.timestamp("us", "UTC"), "timestamp with time zone"),
        ("JSON", pa.utf8(), "json"),
        ("GEOGRAPHY", pa.utf8(), "geography"),
    ],
)
def test_a_type_of_arrow_is_asked_for_as_it_is(kind: str, arrives: pa.DataType, named: str) -> None:
    column = column_of(SchemaField(kind))
    assert (column.field.type, type_name(column.field)) == (arrives, named)
    assert (column.asked, column.is_stored, column.is_json) == ("`c`", True, kind == "JSON")
    listed = column_of(SchemaField(kind, "REPEATED"))
    assert (listed.field.type, listed.asked, listed.is_stored) == (pa.list_(arrives), "`c`", True)


@pytest.mark.parametrize(
    ("kind", "arrives", "named"),
    [
        ("BIGNUMERIC", pa.decimal256(76, 38), "decimal(38)"),
        ("INTERVAL", pa.utf8(), "interval"),
        ("RANGE", pa.utf8(), "range"),
        ("NEWEST", pa.utf8(), "newest"),
    ],
)
def test_what_arrow_has_no_type_for_is_asked_for_as_text(kind: str, arrives: pa.DataType, named: str) -> None:
    column = column_of(SchemaField(kind))
    assert (column.field.type, type_name(column.field)) == (arrives, named)
    assert (column.asked, column.is_stored) == ("cast(`c` as string) as `c`", False)
    listed = column_of(SchemaField(kind, "REPEATED"))
    assert listed.asked.startswith("array(select cast(dinmo_element as string) from unnest(`c`)")
    assert (listed.field.type, listed.is_stored) == (pa.list_(arrives), False)


def test_a_struct_has_the_types_of_its_fields() -> None:
    inner = (SchemaField("INT64", name="i"), SchemaField("STRING", "REPEATED", "s"))
    column = column_of(SchemaField("RECORD", fields=inner))
    assert column.field.type == pa.struct([("i", pa.int64()), ("s", pa.list_(pa.utf8()))])


def test_a_name_that_is_more_than_letters_is_quoted_in_a_query() -> None:
    column = column_of(SchemaField("STRING", name="Größe `in` m²"))
    assert (column.asked, column.is_stored) == ("`Größe \\`in\\` m²`", False)
