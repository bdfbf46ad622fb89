"""Every mode, by Bulk and by collections, against the emulator over real HTTP: what was sent is what is stored."""

from __future__ import annotations

import datetime as dt
import random
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest
from emulator.deep import examples
from hypothesis import given
from hypothesis import strategies as st
from loopback import served

from dinmo_dbt import emulator
from dinmo_dbt.destination import Api, Batch, Operation, PayloadColumn
from dinmo_dbt.errors import AuthError, ConfigError
from dinmo_dbt.org import Credentials, Org, Secret
from dinmo_dbt.rows import values
from dinmo_dbt.rows.field_types import type_of
from dinmo_dbt.salesforce import SalesforceDestination, connect

FIELDS = {
    "Customer__c": {
        "Customer_Id__c": "<type>Text</type><length>40</length><externalId>true</externalId>" + "<unique>true</unique>"
    },
    "Thing__c": {
        "Ext__c": "<type>Text</type><length>40</length><externalId>true</externalId><unique>true</unique>",
        "Code__c": "<type>Number</type><precision>18</precision><scale>0</scale><externalId>true</externalId>",
        "Note__c": "<type>LongTextArea</type><length>32000</length><visibleLines>3</visibleLines>",
        "MRR__c": "<type>Currency</type><precision>18</precision><scale>2</scale>",
        "Active__c": "<type>Checkbox</type><defaultValue>false</defaultValue>",
        "Since__c": "<type>Date</type>",
        "Seen__c": "<type>DateTime</type>",
        "Mail__c": "<type>Email</type>",
        "Customer__c": "<type>Lookup</type><referenceTo>Customer__c</referenceTo>"
        "<relationshipName>Things</relationshipName>",
    },
}
NASTY = [
    "plain",
    "",
    'say "hi"',
    "a,b;c\td",
    "line\nline",
    "carriage\r\nreturn",
    "O'Brien \\ 'x'",
    "é 漢字 😀 \u2028 \u00a0end",
    "=1+1",
    "{{ env_var('X') }}",
    "</script>&amp;",
    "  trimmed  ",
    "NULL",
    "x" * 255,
]


@pytest.fixture(scope="module")
def org(tmp_path_factory) -> Iterator[Org]:
    schema = tmp_path_factory.mktemp("schema")
    for name, fields in FIELDS.items():
        folder = schema / "objects" / name / "fields"
        folder.mkdir(parents=True)
        head = '<?xml version="1.0" encoding="UTF-8"?>'
        space = 'xmlns="http://soap.sforce.com/2006/04/metadata"'
        (folder.parent / f"{name}.object-meta.xml").write_text(
            f"{head}<CustomObject {space}><label>{name}</label><nameField><label>Name</label><type>Text</type>"
            "</nameField></CustomObject>"
        )
        for field, body in fields.items():
            text = f"{head}<CustomField {space}><fullName>{field}</fullName><label>{field}</label>{body}</CustomField>"
            (folder / f"{field}.field-meta.xml").write_text(text)
    app = emulator.app(schema=schema, data=tmp_path_factory.mktemp("data"))
    who = app.identity
    with served(app) as url:
        credentials = Credentials(
            "client_credentials", url, client_id=who.client_id, client_secret=Secret(who.client_secret)
        )
        yield Org("crm", "dev", credentials, organization_id=who.organization_id)
    app.close()


@pytest.fixture(scope="module")
def destination(org, tmp_path_factory) -> SalesforceDestination:
    scratch = tmp_path_factory.mktemp("scratch")
    return connect(org, scratch=scratch, sleep=time.sleep, rng=random.Random(1), now=time.time)


def batch_of(
    destination: SalesforceDestination,
    operation: Operation,
    api: Api,
    columns: dict[str, list],
    *,
    match: str | None = None,
    keep: tuple[str, ...] = (),
    name: str = "Thing__c",
) -> Batch:
    payload, rows = [], {}
    for header, data in columns.items():
        if "." in header:
            field = destination.describe("Customer__c").field(header.split(".")[1])
        else:
            field = destination.describe(name).field(header)
        assert field is not None, header
        payload.append(PayloadColumn(header, field, header in keep))
        given = pa.array(data, pa.utf8()) if type_of(field).is_quoted else pa.array(data)
        array, reasons = values.canonical(given, field, keep_nulls=header in keep)
        assert reasons is None
        rows[header] = array
    return Batch("b", operation, name, api, tuple(payload), match, pa.table(rows))


def carry_out(destination: SalesforceDestination, batch: Batch) -> list[dict]:
    if batch.api is Api.COLLECTIONS:
        return destination.send(batch).to_pylist()
    job_id = destination.create_job(batch)
    destination.upload(job_id, batch)
    destination.close(job_id)
    for _ in range(500):
        job = destination.job(job_id)
        assert job is not None
        if job.is_terminal:
            break
        time.sleep(0.02)
    return destination.results(job_id, batch).to_pylist()


def stored(destination: SalesforceDestination, ids: list[str], *fields: str) -> list[dict]:
    by_id = {record["Id"]: record for record in destination.read("Thing__c", fields, tuple(ids))}
    return [by_id[i] for i in ids]


def as_salesforce_keeps(text: str) -> str | None:
    return text.replace("\r\n", "\n").strip(" \n\t") or None


def full_columns(prefix: str, texts: list[str]) -> dict[str, list]:
    n = len(texts)
    moment = dt.datetime(2024, 2, 29, 23, 59, 59, 0, tzinfo=dt.UTC)
    return {
        "Ext__c": [f"{prefix}{i}" for i in range(n)],
        "Name": [f"thing {i}" for i in range(n)],
        "Note__c": texts,
        "MRR__c": [Decimal("19.99") * i if i % 3 else None for i in range(n)],
        "Active__c": [i % 2 == 0 for i in range(n)],
        "Since__c": [dt.date(1969, 12, 31) if i % 4 else None for i in range(n)],
        "Seen__c": [moment if i % 5 else None for i in range(n)],
        "Mail__c": [f"Person{i}@Example.com" for i in range(n)],
    }


@pytest.mark.parametrize("api", list(Api))
@pytest.mark.parametrize("operation", [Operation.INSERT, Operation.UPSERT])
def test_what_is_sent_is_what_is_stored(destination, operation, api):
    columns = full_columns(f"{operation}-{api}-", NASTY)
    match = "Ext__c" if operation is Operation.UPSERT else None
    rows = carry_out(destination, batch_of(destination, operation, api, columns, match=match))
    assert [(r["fate"], r["created"], r["code"]) for r in rows] == [("succeeded", True, None)] * len(NASTY)
    records = stored(destination, [r["record_id"] for r in rows], *columns)
    for i, record in enumerate(records):
        assert record["Ext__c"] == columns["Ext__c"][i]
        assert record["Note__c"] == as_salesforce_keeps(NASTY[i]), i
        assert record["MRR__c"] == (None if columns["MRR__c"][i] is None else float(columns["MRR__c"][i]))
        assert record["Active__c"] is columns["Active__c"][i]
        assert record["Since__c"] == ("1969-12-31" if i % 4 else None)
        assert record["Seen__c"] == ("2024-02-29T23:59:59.000+0000" if i % 5 else None)
        assert record["Mail__c"].lower() == columns["Mail__c"][i].lower()
    if operation is Operation.UPSERT:
        again = carry_out(destination, batch_of(destination, operation, api, columns, match=match))
        assert [(r["fate"], r["created"]) for r in again] == [("succeeded", False)] * len(NASTY)
        assert [r["record_id"] for r in again] == [r["record_id"] for r in rows]


@pytest.mark.parametrize("api", list(Api))
def test_update_clears_or_keeps_nulls_and_delete_takes_the_record(destination, api):
    columns = full_columns(f"u-{api}-", NASTY[:4])
    made = carry_out(destination, batch_of(destination, Operation.INSERT, api, columns))
    ids = [r["record_id"] for r in made]
    change = {"Id": ids, "Note__c": [None] * 4, "MRR__c": [None] * 4, "Name": ["n"] * 4}
    rows = carry_out(destination, batch_of(destination, Operation.UPDATE, api, change, keep=("MRR__c",)))
    assert [(r["fate"], r["created"], r["record_id"]) for r in rows] == [("succeeded", False, i) for i in ids]
    records = stored(destination, ids, "Note__c", "MRR__c", "Name")
    assert [r["Note__c"] for r in records] == [None] * 4
    assert [r["MRR__c"] for r in records] == [None, 19.99, 39.98, None]
    for _ in range(2):  # the second time they are gone already, which is what a delete wants
        gone = carry_out(destination, batch_of(destination, Operation.DELETE, api, {"Id": ids}))
        assert [r["fate"] for r in gone] == ["succeeded"] * 4
    lost = carry_out(destination, batch_of(destination, Operation.UPDATE, api, {"Id": ids, "Name": ["n"] * 4}))
    assert [(r["fate"], r["code"]) for r in lost] == [("rejected", "ENTITY_IS_DELETED")] * 4


@pytest.mark.parametrize("api", list(Api))
def test_a_parent_is_found_by_its_external_id(destination, api):
    parents = {"Customer_Id__c": [f"C'1-{api}", f"C2-{api}"], "Name": ["one", "two"]}
    batch = batch_of(destination, Operation.INSERT, api, parents, name="Customer__c")
    ids = [r["record_id"] for r in carry_out(destination, batch)]
    path = "Customer__r.Customer_Id__c"
    columns = {"Ext__c": [f"p-{api}-{i}" for i in range(3)], path: [*parents["Customer_Id__c"], "nobody"]}
    rows = carry_out(destination, batch_of(destination, Operation.UPSERT, api, columns, match="Ext__c"))
    assert [r["fate"] for r in rows] == ["succeeded", "succeeded", "rejected"]
    assert rows[2]["code"] == "INVALID_FIELD"
    records = stored(destination, [r["record_id"] for r in rows[:2]], "Customer__c")
    assert [r["Customer__c"] for r in records] == ids


def test_a_null_parent_path_clears_the_lookup_by_collections(destination):
    parent = batch_of(
        destination, Operation.INSERT, Api.COLLECTIONS, {"Customer_Id__c": ["C9"], "Name": ["x"]}, name="Customer__c"
    )
    carry_out(destination, parent)
    for value, expected in (("C9", True), (None, False)):
        columns = {"Ext__c": ["clear"], "Customer__r.Customer_Id__c": [value]}
        batch = batch_of(destination, Operation.UPSERT, Api.COLLECTIONS, columns, match="Ext__c")
        (row,) = carry_out(destination, batch)
        (record,) = stored(destination, [row["record_id"]], "Customer__c")
        assert bool(record["Customer__c"]) is expected


@pytest.mark.parametrize("api", list(Api))
def test_a_bad_row_is_rejected_alone_with_its_field(destination, api):
    columns = {
        "Ext__c": [f"bad-{api}-1", f"bad-{api}-2"],
        "Note__c": ["fine", "fine"],
        "Mail__c": ["a@b.co", "not mail"],
    }
    rows = carry_out(destination, batch_of(destination, Operation.UPSERT, api, columns, match="Ext__c"))
    assert [r["fate"] for r in rows] == ["succeeded", "rejected"]
    assert (rows[1]["code"], rows[1]["fields"]) == ("INVALID_EMAIL_ADDRESS", "Mail__c")
    assert rows[1]["record_id"] is None


def test_a_number_as_external_id_joins_though_it_is_echoed_differently(destination):
    codes = [Decimal(912260031 + i) for i in range(50)]
    columns = {"Code__c": codes, "Name": ["n"] * 50}
    rows = carry_out(destination, batch_of(destination, Operation.UPSERT, Api.BULK, columns, match="Code__c"))
    assert [r["fate"] for r in rows] == ["succeeded"] * 50
    assert len({r["record_id"] for r in rows}) == 50


def test_a_job_of_several_batches_gives_each_row_its_own_record(destination):
    count = 12_000
    columns = {"Ext__c": [f"many-{i}" for i in range(count)], "MRR__c": [Decimal(i) / 8 for i in range(count)]}
    rows = carry_out(destination, batch_of(destination, Operation.INSERT, Api.BULK, columns))
    assert {r["fate"] for r in rows} == {"succeeded"}
    picked = [0, 1, 9_999, 10_000, 11_999]
    records = stored(destination, [rows[i]["record_id"] for i in picked], "Ext__c")
    assert [r["Ext__c"] for r in records] == [f"many-{i}" for i in picked]

    field = destination.describe("Thing__c").field("Ext__c")
    for asked in (3, 2_001):  # by SOQL, and by one Bulk query
        wanted = pa.array([f"many-{i}" for i in range(asked)] + ["nobody", "O'Brien \\ \n"])
        found = destination.lookup("Thing__c", field, wanted)
        expected = {(f"many-{i}", rows[i]["record_id"]) for i in range(asked)}
        assert set(zip(*(c.to_pylist() for c in found.columns), strict=True)) == expected

    number = destination.describe("Thing__c").field("MRR__c")
    ids, absent = [row["record_id"] for row in rows], "a00000000009999AAA"
    for asked in (3, 2_001):  # by collections, and by one Bulk query
        read = destination.read_many("Thing__c", ("Ext__c", "MRR__c", "Note__c"), pa.array([*ids[:asked], absent]))
        assert read.column_names == ["Id", "Ext__c", "MRR__c", "Note__c"]
        assert set(read.schema.types) == {pa.utf8()} and read["Note__c"].null_count == asked
        held = values.from_text(read["MRR__c"].combine_chunks(), number).to_pylist()
        expected = {(ids[i], f"many-{i}", Decimal(i) / 8) for i in range(asked)}
        assert set(zip(read["Id"].to_pylist(), read["Ext__c"].to_pylist(), held, strict=True)) == expected
    assert destination.read_many("Thing__c", ("Ext__c",), pa.array([], pa.utf8())).num_rows == 0


def test_an_aborted_job_holds_every_row_and_a_header_error_names_itself(destination):
    batch = batch_of(destination, Operation.INSERT, Api.BULK, {"Ext__c": ["never"], "Name": ["never"]})
    job_id = destination.create_job(batch)
    assert destination.job(job_id).is_open
    destination.upload(job_id, batch)
    destination.abort(job_id)
    destination.abort(job_id)
    rows = destination.results(job_id, batch).to_pylist()
    assert [(r["fate"], r["code"]) for r in rows] == [("held", "UNPROCESSED")]
    field = batch.columns[1].field
    columns = (batch.columns[0], PayloadColumn("Nope__c", field))
    broken = Batch(
        "b", batch.operation, "Thing__c", Api.BULK, columns, None, batch.rows.rename_columns(["Ext__c", "Nope__c"])
    )
    (row,) = carry_out(destination, broken)
    assert (row["fate"], row["code"]) == ("held", "UNPROCESSED")
    assert "Nope__c" in row["message"]
    assert destination.job("750000000000999AAA") is None


def test_schema_is_in_the_orgs_own_case(destination):
    schema = destination.describe("thing__C")
    assert schema.name == "Thing__c" and schema.createable
    ext = schema.field("EXT__C")
    assert ext.name == "Ext__c" and ext.external_id and ext.unique and ext.length == 40
    assert schema.relationship("customer__r").name == "Customer__c"
    with pytest.raises(ConfigError, match=r"DB301.*\n.*Thing__c"):
        destination.describe("Thing")


def test_has_records_and_read(destination):
    batch = batch_of(destination, Operation.INSERT, Api.BULK, {"Ext__c": ["has"], "Name": ["x"]})
    (row,) = carry_out(destination, batch)
    assert destination.has_records("Thing__c")
    assert not destination.has_records("Lead")
    absent = "a00000000009999AAA"
    records = destination.read("Thing__c", ("Ext__c",), (row["record_id"], absent))
    assert records == [{"Id": row["record_id"], "Ext__c": "has"}]


def test_another_org_is_refused_and_usage_is_counted(org, destination, tmp_path):
    wrong = Org(org.destination, org.target, org.credentials, organization_id="00D000000000009AAA")
    with pytest.raises(AuthError, match="DB602"):
        connect(wrong, scratch=tmp_path, sleep=time.sleep, rng=random.Random(1), now=time.time)
    assert destination.usage.limit > 0 and destination.calls > 10
    assert list(Path(destination._scratch).iterdir()) == []


SIGNS = st.sampled_from("ab'\"\\%_ \n\t()=,;{}-—’é漢") | st.characters(exclude_categories=["C"])


@examples(25)
@given(
    st.lists(
        st.text(SIGNS, max_size=12).map(str.strip).filter(bool),
        min_size=2,
        max_size=5,
        unique_by=str.lower,
    )
)
def test_a_lookup_finds_its_own_value_and_no_other(destination: SalesforceDestination, texts: list[str]) -> None:
    """The emulator's parser, which shares no code with what writes the query, is the judge of its quoting."""
    field = destination.describe("Thing__c").field("Ext__c")
    assert field is not None
    batch = batch_of(destination, Operation.UPSERT, Api.COLLECTIONS, {"Ext__c": texts, "Name": texts}, match="Ext__c")
    assert set(destination.send(batch).column("fate").to_pylist()) == {"succeeded"}
    for text in texts:
        found = destination.lookup("Thing__c", field, pa.array([text]))
        assert [value.lower() for value in found.column("value").to_pylist()] == [text.lower()]
    absent = pa.array(["x' OR Name != '", "') OR (Name != '", "\\' OR Name != \\'"])
    assert destination.lookup("Thing__c", field, absent).num_rows == 0
