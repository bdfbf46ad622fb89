"""Every mode, by Bulk and by collections, against the emulator over real HTTP: what was sent is what is stored."""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest
from destination.conftest import Lab
from emulator.deep import examples
from hypothesis import given
from hypothesis import strategies as st
from loopback import served
from mounted_org import START, OneClock

from dinmo_dbt import emulator
from dinmo_dbt.destination import Api, Operation
from dinmo_dbt.errors import AuthError
from dinmo_dbt.org import Credentials, Org, Secret
from dinmo_dbt.rows import values
from dinmo_dbt.salesforce import SalesforceDestination, connect

ORG_CLOCK = emulator.Clock(START)
CLOCK = OneClock(ORG_CLOCK)
FIELDS = {
    "Thing__c": {
        "Ext__c": "<type>Text</type><length>40</length><externalId>true</externalId><unique>true</unique>",
        "Note__c": "<type>LongTextArea</type><length>32000</length><visibleLines>3</visibleLines>",
        "MRR__c": "<type>Currency</type><precision>18</precision><scale>2</scale>",
        "Active__c": "<type>Checkbox</type><defaultValue>false</defaultValue>",
        "Since__c": "<type>Date</type>",
        "Seen__c": "<type>DateTime</type>",
        "Mail__c": "<type>Email</type>",
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
    app = emulator.app(schema=schema, data=tmp_path_factory.mktemp("data"), clock=ORG_CLOCK)
    who = app.identity
    with served(app) as url:
        credentials = Credentials(
            "client_credentials", url, client_id=who.client_id, client_secret=Secret(who.client_secret)
        )
        yield Org("crm", "dev", credentials, organization_id=who.organization_id)
    app.close()


@pytest.fixture(scope="module")
def lab(org, tmp_path_factory) -> Lab:
    scratch = tmp_path_factory.mktemp("scratch")
    return Lab("served", connect(org, scratch=scratch, sleep=CLOCK.sleep, rng=random.Random(1), now=CLOCK.now), CLOCK)


@pytest.fixture(scope="module")
def destination(lab) -> SalesforceDestination:
    return lab.destination


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
def test_what_is_sent_is_what_is_stored(lab, destination, operation, api):
    columns = full_columns(f"{operation}-{api}-", NASTY)
    match = "Ext__c" if operation is Operation.UPSERT else None
    rows = lab.carry_out(lab.batch(operation, api, columns, match=match))
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
        again = lab.carry_out(lab.batch(operation, api, columns, match=match))
        assert [(r["fate"], r["created"]) for r in again] == [("succeeded", False)] * len(NASTY)
        assert [r["record_id"] for r in again] == [r["record_id"] for r in rows]


@pytest.mark.parametrize("api", list(Api))
def test_a_bad_row_is_rejected_alone_with_its_field(lab, destination, api):
    columns = {
        "Ext__c": [f"bad-{api}-1", f"bad-{api}-2"],
        "Note__c": ["fine", "fine"],
        "Mail__c": ["a@b.co", "not mail"],
    }
    rows = lab.carry_out(lab.batch(Operation.UPSERT, api, columns, match="Ext__c"))
    assert [r["fate"] for r in rows] == ["succeeded", "rejected"]
    assert (rows[1]["code"], rows[1]["fields"]) == ("INVALID_EMAIL_ADDRESS", "Mail__c")
    assert rows[1]["record_id"] is None


def test_a_job_of_several_batches_gives_each_row_its_own_record(lab, destination):
    count = 12_000
    columns = {"Ext__c": [f"many-{i}" for i in range(count)], "MRR__c": [Decimal(i) / 8 for i in range(count)]}
    rows = lab.carry_out(lab.batch(Operation.INSERT, Api.BULK, columns))
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


def test_another_org_is_refused_and_usage_is_counted(org, destination, tmp_path):
    wrong = Org(org.destination, org.target, org.credentials, organization_id="00D000000000009AAA")
    with pytest.raises(AuthError, match="DB602"):
        connect(wrong, scratch=tmp_path, sleep=CLOCK.sleep, rng=random.Random(1), now=CLOCK.now)
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
def test_a_lookup_finds_its_own_value_and_no_other(
    lab: Lab, destination: SalesforceDestination, texts: list[str]
) -> None:
    """The emulator's parser, which shares no code with what writes the query, is the judge of its quoting."""
    field = lab.destination.describe("Thing__c").field("Ext__c")
    assert field is not None
    batch = lab.batch(Operation.UPSERT, Api.COLLECTIONS, {"Ext__c": texts, "Name": texts}, match="Ext__c")
    assert set(lab.destination.send(batch).column("fate").to_pylist()) == {"succeeded"}
    for text in texts:
        found = lab.destination.lookup("Thing__c", field, pa.array([text]))
        assert [value.lower() for value in found.column("value").to_pylist()] == [text.lower()]
    absent = pa.array(["x' OR Name != '", "') OR (Name != '", "\\' OR Name != \\'"])
    assert lab.destination.lookup("Thing__c", field, absent).num_rows == 0
