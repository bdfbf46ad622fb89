"""The wire forms of a batch: CSV that a strict reader reads back as it was, JSON that says the same."""

import csv
import datetime as dt
import io
import json
from decimal import Decimal

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dinmo_dbt.destination import Api, Batch, Field, ObjectSchema, Operation, PayloadColumn
from dinmo_dbt.rows import values
from dinmo_dbt.salesforce import encode

TEXT = Field("Name", "Name", "string", length=255)
NUMBER = Field("MRR__c", "MRR", "currency")
FLAG = Field("Active__c", "Active", "boolean")
DAY = Field("Since__c", "Since", "date")
MOMENT = Field("Seen__c", "Seen", "datetime")
PARENT = Field("Customer_Id__c", "Customer", "string", external_id=True)
LOOKUP = Field("Customer__c", "Customer", "reference", relationship_name="Customer__r")
SCHEMA = ObjectSchema("Thing__c", "Thing", "a00", True, True, True, True, {"Customer__c": LOOKUP})

# Any text Arrow can hold, without the one text that means null.
texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=40).filter(lambda t: t != "#N/A")


def batch_of(columns: dict[PayloadColumn, list], operation: Operation = Operation.UPDATE, match=None) -> Batch:
    rows = {c.header: pa.array(data, values.canonical_type(c.field)) for c, data in columns.items()}
    return Batch("b1", operation, "Thing__c", Api.BULK, tuple(columns), match, pa.table(rows))


def csv_rows(batch: Batch) -> list[list[str]]:
    file = io.BytesIO()
    size = encode.write_csv(batch, file)
    assert size == len(file.getvalue())
    return list(csv.reader(io.StringIO(file.getvalue().decode(), newline=""), strict=True))


def lf(text: str | None) -> str:
    return "#N/A" if text is None else text.replace("\r\n", "\n").replace("\r", "\n")


@given(st.lists(st.tuples(st.none() | texts, st.none() | texts), max_size=20))
def test_any_text_survives_the_csv_with_newlines_as_lf(rows):
    columns = {PayloadColumn("Name", TEXT): [a for a, _ in rows], PayloadColumn("Note__c", TEXT): [b for _, b in rows]}
    assert csv_rows(batch_of(columns)) == [["Name", "Note__c"], *([lf(a), lf(b)] for a, b in rows)]


@given(st.lists(st.none() | texts, min_size=1, max_size=20))
def test_any_text_survives_the_json_and_ends_as_by_csv(names):
    batch = batch_of({PayloadColumn("Name", TEXT): names})
    records = json.loads(encode.json_records(batch, SCHEMA))["records"]
    assert [r["Name"] for r in records] == [None if n is None else lf(n) for n in names]


def test_the_header_keeps_its_case_and_the_file_has_no_bom():
    file = io.BytesIO()
    encode.write_csv(batch_of({PayloadColumn("Customer__r.Customer_Id__c", PARENT): ["a"]}), file)
    assert file.getvalue() == b'"Customer__r.Customer_Id__c"\n"a"\n'


def test_typed_values_take_their_wire_forms():
    moment = dt.datetime(2024, 1, 31, 8, 0, 0, 7000, tzinfo=dt.UTC)
    columns = {
        PayloadColumn("MRR__c", NUMBER): [Decimal("0.000000000000000001"), Decimal("-12345678901234567890.5"), None],
        PayloadColumn("Active__c", FLAG): [True, False, None],
        PayloadColumn("Since__c", DAY): [dt.date(1969, 12, 31), None, dt.date(2024, 2, 29)],
        PayloadColumn("Seen__c", MOMENT): [moment, None, moment],
    }
    batch = batch_of(columns)
    assert csv_rows(batch)[1:] == [
        ["0.000000000000000001", "true", "1969-12-31", "2024-01-31T08:00:00.007Z"],
        ["-12345678901234567890.5", "false", "#N/A", "#N/A"],
        ["#N/A", "#N/A", "2024-02-29", "2024-01-31T08:00:00.007Z"],
    ]
    body = encode.json_records(batch, SCHEMA).decode()
    assert '"MRR__c":-12345678901234567890.5,"Active__c":false,"Since__c":null,"Seen__c":null' in body
    assert json.loads(body)["records"][0]["Active__c"] is True


def test_kept_nulls_are_an_empty_cell_and_an_omitted_key():
    batch = batch_of({PayloadColumn("Name", TEXT): ["a", "b"], PayloadColumn("M__c", NUMBER, True): [None, Decimal(2)]})
    assert csv_rows(batch)[1:] == [["a", ""], ["b", "2"]]
    records = json.loads(encode.json_records(batch, SCHEMA))["records"]
    assert "M__c" not in records[0] and records[1]["M__c"] == 2


def test_a_text_that_means_null_never_reaches_the_csv():
    with pytest.raises(ValueError, match="Name"):
        encode.write_csv(batch_of({PayloadColumn("Name", TEXT): ["#N/A"]}), io.BytesIO())


def test_a_parent_path_nests_and_a_null_one_clears_the_lookup():
    batch = batch_of({PayloadColumn("Customer__r.Customer_Id__c", PARENT): ['C"1', None]})
    records = json.loads(encode.json_records(batch, SCHEMA))["records"]
    assert records[0]["Customer__r"] == {"Customer_Id__c": 'C"1'}
    assert records[1] == {"attributes": {"type": "Thing__c"}, "Customer__c": None}


def test_an_identifying_null_is_left_out_of_the_json():
    columns = {PayloadColumn("Ext__c", TEXT): [None], PayloadColumn("Name", TEXT): [None]}
    records = json.loads(encode.json_records(batch_of(columns, Operation.UPSERT, "Ext__c"), SCHEMA))["records"]
    assert records == [{"attributes": {"type": "Thing__c"}, "Name": None}]
