"""Joining result files to rows: laws over shuffled, re-formatted results; the error grammar; groups that look alike."""

import io
import random
import time
from decimal import Decimal
from itertools import product

import numpy as np
import pyarrow as pa
import pytest
from emulator.deep import examples
from hypothesis import given
from hypothesis import strategies as st

from dinmo_dbt.destination import Api, Batch, Field, Operation, PayloadColumn
from dinmo_dbt.rows import values
from dinmo_dbt.salesforce import results
from dinmo_dbt.salesforce.results import ResultFiles

NAME = PayloadColumn("Name", Field("Name", "Name", "string", length=255))
CODE = PayloadColumn("Code__c", Field("Code__c", "Code", "double", external_id=True, unique=True))
EXT = PayloadColumn("Ext__c", Field("Ext__c", "Ext", "string", external_id=True, unique=True))
EXACT = PayloadColumn("Ext__c", Field("Ext__c", "Ext", "string", external_id=True, unique=True, case_sensitive=True))
ID = PayloadColumn("Id", Field("Id", "Id", "id"))
MRR = PayloadColumn("MRR__c", Field("MRR__c", "MRR", "currency"))
ACTIVE = PayloadColumn("Active__c", Field("Active__c", "Active", "boolean"))


def batch_of(columns: dict[PayloadColumn, list], operation: Operation, match: str | None = None) -> Batch:
    rows = {c.header: pa.array(data, values.canonical_type(c.field)) for c, data in columns.items()}
    return Batch("b1", operation, "Thing__c", Api.BULK, tuple(columns), match, pa.table(rows))


def files_of(succeeded=(), failed=(), unprocessed=()) -> ResultFiles:
    """Rows as dicts of text; sf__ columns first, as the files have them."""
    return ResultFiles(*(_table(list(rows)) for rows in (succeeded, failed, unprocessed)))


def _table(rows: list[dict[str, str]]) -> pa.Table:
    names = list(rows[0]) if rows else []
    return pa.table({name: pa.array([row[name] for row in rows], pa.utf8()) for name in names})


def ok(n: int, **columns: str) -> dict[str, str]:
    return {"sf__Id": f"a00{n:012d}AAA", "sf__Created": "true", **columns}


def bad(error: str, **columns: str) -> dict[str, str]:
    return {"sf__Id": "", "sf__Error": error, **columns}


def sf_id(n: int) -> str:
    return f"a00{n:012d}AAA"


@given(st.lists(st.sampled_from("sfu"), min_size=1, max_size=60), st.randoms(use_true_random=False))
def test_an_upsert_joins_on_its_external_id_whatever_the_order(fates, rng: random.Random):
    numbers = rng.sample(range(1, 10**9), len(fates))
    batch = batch_of({CODE: [Decimal(n) for n in numbers], NAME: ["same"] * len(fates)}, Operation.UPSERT, "Code__c")
    rows: dict[str, list] = {"s": [], "f": [], "u": []}
    for n, fate in zip(numbers, fates, strict=True):
        echo = {"Code__c": repr(float(n)).replace("e+", "E"), "Name": "same"}  # Java writes 9.1E8
        rows[fate].append(
            {"s": ok(n, **echo), "f": bad("DUPLICATE_VALUE:no:Name --", **echo), "u": {**echo, "Code__c": str(n)}}[fate]
        )
    for group in rows.values():
        rng.shuffle(group)
    joined = results.join(batch, files_of(rows["s"], rows["f"], rows["u"]), touched=True).to_pylist()
    for n, fate, row in zip(numbers, fates, joined, strict=True):
        assert row["fate"] == {"s": "succeeded", "f": "rejected", "u": "held"}[fate]
        assert row["record_id"] == (sf_id(n) if fate == "s" else None)
        assert row["code"] == {"s": None, "f": "DUPLICATE_VALUE", "u": "UNPROCESSED"}[fate]


rows_to_insert = st.tuples(
    st.none() | st.sampled_from(["a", "a ", " a", "b", "line\nline", '"q"', "é"]),
    st.none() | st.sampled_from([Decimal("1"), Decimal("1.0000000000000001"), Decimal("2.5"), Decimal("912260031")]),
    st.none() | st.booleans(),
)


def echo_of(name, mrr, active) -> dict[str, str]:
    number = "" if mrr is None else repr(float(mrr))
    flag = "" if active is None else str(active).lower()
    return {"Name": (name or "").strip().replace("\n", "\r\n"), "MRR__c": number, "Active__c": flag}


@pytest.mark.slow
@given(st.lists(rows_to_insert, min_size=1, max_size=40), st.randoms(use_true_random=False))
def test_an_insert_never_gives_a_row_a_fate_that_is_not_its_own(rows, rng: random.Random):
    """A row's stated fate is its true one, or unknown, or that of a row with the very same payload."""
    truth = [rng.choice("sfu") for _ in rows]
    batch = batch_of(
        {NAME: [r[0] for r in rows], MRR: [r[1] for r in rows], ACTIVE: [r[2] for r in rows]}, Operation.INSERT
    )
    files: dict[str, list] = {"s": [], "f": [], "u": []}
    for n, (row, fate) in enumerate(zip(rows, truth, strict=True)):
        echo = echo_of(*row)
        files[fate].append({"s": ok(n, **echo), "f": bad("X:y:--", **echo), "u": echo}[fate])
    for group in files.values():
        rng.shuffle(group)
    joined = results.join(batch, files_of(files["s"], files["f"], files["u"]), touched=True).to_pylist()
    word = {"s": "succeeded", "f": "rejected", "u": "held"}
    payloads = list(zip(*(batch.rows.column(c.header).to_pylist() for c in batch.columns), strict=True))
    for payload in set(payloads):
        alike = [i for i, p in enumerate(payloads) if p == payload]
        told = sorted(joined[i]["fate"] for i in alike)
        assert told == sorted(word[truth[i]] for i in alike) or set(told) == {"unknown"}
    for n, row in enumerate(joined):
        if row["record_id"] is not None:
            assert row["record_id"] == sf_id(n)
    slots = results.job_slots(batch.rows, batch.columns)
    if not slots.any():  # nothing looks alike that is not alike: then nothing may be unknown
        assert all(row["fate"] != "unknown" for row in joined)


@given(st.lists(rows_to_insert, max_size=60))
def test_in_one_slot_rows_that_look_alike_are_alike(rows):
    batch = batch_of(
        {NAME: [r[0] for r in rows], MRR: [r[1] for r in rows], ACTIVE: [r[2] for r in rows]}, Operation.INSERT
    )
    slots = results.job_slots(batch.rows, batch.columns)
    payloads = list(zip(*(batch.rows.column(c.header).to_pylist() for c in batch.columns), strict=True))
    seen: dict[tuple, tuple] = {}
    of_payload: dict[tuple, int] = {}
    for payload, slot in zip(payloads, slots.tolist(), strict=True):
        look = tuple(echo_of(*payload).values())
        look = (look[0], look[1], look[2] or "false")
        if slot < results.SLOTS - 1:
            assert seen.setdefault((slot, look), payload) == payload
        assert of_payload.setdefault(payload, slot) == slot
    assert slots.dtype == np.int8


def test_equal_payloads_share_fates_but_no_record_id():
    batch = batch_of({NAME: ["x", "x", "y"]}, Operation.INSERT)
    files = files_of([ok(1, Name="x"), ok(2, Name="y")], [bad("A:b:--", Name="x")])
    rows = results.join(batch, files, touched=True).to_pylist()
    assert sorted(r["fate"] for r in rows[:2]) == ["rejected", "succeeded"]
    assert rows[0]["record_id"] is None and rows[1]["record_id"] is None
    assert rows[2]["record_id"] == sf_id(2)


def test_rows_that_look_alike_with_mixed_fates_are_unknown_and_with_one_fate_are_not():
    batch = batch_of({NAME: ["x", "x ", "y", " y"]}, Operation.INSERT)
    files = files_of([ok(1, Name="x"), ok(2, Name="y"), ok(3, Name="y")], [bad("A:b:--", Name="x")])
    rows = results.join(batch, files, touched=True).to_pylist()
    assert [r["fate"] for r in rows] == ["unknown", "unknown", "succeeded", "succeeded"]
    assert {r["code"] for r in rows[:2]} == {"INDISTINGUISHABLE"}


def test_look_alikes_with_different_errors_do_not_swap_them():
    batch = batch_of({NAME: ["x", "x "]}, Operation.INSERT)
    files = files_of([], [bad("A:b:--", Name="x"), bad("C:d:--", Name="x")])
    rows = results.join(batch, files, touched=True).to_pylist()
    assert [(r["fate"], r["code"]) for r in rows] == [("rejected", "INDISTINGUISHABLE")] * 2


def test_a_row_in_no_file_is_unknown_only_if_the_job_did_anything():
    batch = batch_of({NAME: ["x", "y"]}, Operation.INSERT)
    touched = results.join(batch, files_of([ok(1, Name="x")]), touched=True).to_pylist()
    assert [r["fate"] for r in touched] == ["succeeded", "unknown"]
    untouched = results.join(batch, files_of(), touched=False, job_error="InvalidBatch : no").to_pylist()
    assert [(r["fate"], r["code"], r["message"]) for r in untouched] == [
        ("held", "UNPROCESSED", "InvalidBatch : no")
    ] * 2


def test_more_results_than_rows_prove_nothing():
    batch = batch_of({NAME: ["x", "y"]}, Operation.INSERT)
    rows = results.join(batch, files_of([ok(1, Name="x"), ok(2, Name="x")]), touched=True).to_pylist()
    assert [r["fate"] for r in rows] == ["unknown", "unknown"]


def test_an_external_id_folds_case_only_where_the_field_does():
    for column, fates in ((EXT, ["succeeded", "succeeded"]), (EXACT, ["unknown", "succeeded"])):
        batch = batch_of({column: ["AbC", "d"]}, Operation.UPSERT, "Ext__c")
        rows = results.join(batch, files_of([ok(1, Ext__c="abc"), ok(2, Ext__c="d")]), touched=True).to_pylist()
        assert [r["fate"] for r in rows] == fates


def test_update_and_delete_join_on_the_record_id_echoed_or_not():
    ids = [values.from_text(pa.array([f"a00{n:012d}"]), ID.field)[0].as_py() for n in (1, 2)]
    errors = ("ENTITY_IS_DELETED:entity is deleted:--", "INVALID_CROSS_REFERENCE_KEY:invalid cross reference id:--")
    for operation, error in product((Operation.UPDATE, Operation.DELETE), errors):
        batch = batch_of({ID: ids}, operation)
        short = {"sf__Id": ids[1], "sf__Created": "false", "Id": ids[1][:15]}
        gone = {"sf__Id": ids[0], "sf__Error": error}
        rows = results.join(batch, files_of([short], [gone]), touched=True).to_pylist()
        assert rows[1]["fate"] == "succeeded" and rows[1]["record_id"] == ids[1] and rows[1]["created"] is False
        assert rows[0]["fate"] == ("succeeded" if operation is Operation.DELETE else "rejected")


def test_a_column_that_is_not_echoed_makes_groups_larger_not_answers_wrong():
    batch = batch_of({NAME: ["x", "x", "y"], MRR: [Decimal(1), Decimal(2), Decimal(1)]}, Operation.INSERT)
    files = files_of([ok(1, Name="x"), ok(2, Name="y")], [bad("A:b:--", Name="x")])
    assert [r["fate"] for r in results.join(batch, files, touched=True).to_pylist()] == ["unknown"] * 2 + ["succeeded"]


@pytest.mark.parametrize(
    ("text", "code", "message", "fields"),
    [
        (
            "REQUIRED_FIELD_MISSING:Required fields are missing: [Name]:Name --",
            "REQUIRED_FIELD_MISSING",
            "Required fields are missing: [Name]",
            "Name",
        ),
        ("ENTITY_IS_DELETED:entity is deleted:--", "ENTITY_IS_DELETED", "entity is deleted", None),
        ("X:Required fields are missing: [A, B]:A B --", "X", "Required fields are missing: [A, B]", "A,B"),
        ("X:m:A__c, ns__B__c --", "X", "m", "A__c,ns__B__c"),
        ("X:m:[A, B] --", "X", "m", "A,B"),
        (
            "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST:Client: bad value for restricted picklist field: "
            "Macy&#39;s &amp; Co:type__c --",
            "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST",
            "Client: bad value for restricted picklist field: Macy's & Co",
            "type__c",
        ),
        (
            "CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY:T: execution of BeforeInsert\n\ncaused by: a.B: c\n\nline 6:--",
            "CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY",
            "T: execution of BeforeInsert\n\ncaused by: a.B: c\n\nline 6",
            None,
        ),
        (
            "DUPLICATE_VALUE:duplicate value found: Ext__c duplicates value on record with id: 0065g00000:--",
            "DUPLICATE_VALUE",
            "duplicate value found: Ext__c duplicates value on record with id: 0065g00000",
            None,
        ),
        ("something else", "UNKNOWN_EXCEPTION", "something else", None),
        ("", "UNKNOWN_EXCEPTION", "", None),
    ],
)
def test_error_texts_follow_their_grammar(text, code, message, fields):
    codes, messages, names = results.parse_errors(pa.array([text, text]))
    assert (codes[1].as_py(), messages[1].as_py(), names[1].as_py()) == (code, message, fields)


def test_a_megabyte_of_error_text_is_parsed_at_once():
    text = "X:" + ":a --" * 200_000
    started = time.thread_time()
    results.parse_errors(pa.array([text]))
    assert time.thread_time() - started < 5


KNOWN = frozenset({"sf__Id", "sf__Created", "sf__Error", "Name", "a", "b"})


def read(content: bytes, *, rows_max: int = 1_000) -> pa.Table:
    return results.read_file(io.BytesIO(content), rows_max=rows_max, names=KNOWN)


TABLES = st.integers(1, 4).flatmap(
    lambda width: st.lists(
        st.lists(st.text(alphabet='a,"\n\r é', max_size=12), min_size=width, max_size=width), min_size=1, max_size=40
    )
)


@given(rows=TABLES, block=st.integers(250, 900), ending=st.sampled_from(["\n", "\r\n"]), blank=st.booleans())
@examples(150)
def test_a_file_in_pieces_is_the_file(rows, block, ending, blank):
    names = ["sf__Id", "Name", "more", "a"][: len(rows[0])]
    lines = [",".join('"' + cell.replace('"', '""') + '"' for cell in row) for row in rows]
    between = ending * 2 if blank and len(names) > 1 else ending
    content = (",".join(names) + ending + between.join(lines) + between).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(results, "_BLOCK_BYTES", block)
        table = read(content)
    kept = [name for name in names if name in KNOWN]
    assert table.column_names == kept
    assert table.to_pylist() == [
        {name: cell for name, cell in zip(names, row, strict=True) if name in kept} for row in rows
    ]


@pytest.mark.parametrize(
    "content",
    [
        b"a\n" + b"\n" * 2_000,
        b"a,b\n" + b",\n" * 2_000,
        b"a,b\n" + b'"\n",\n' * 2_000,
        ",".join(f"c{n}" for n in range(23)).encode() + b"\n",
    ],
)
def test_a_file_of_more_rows_or_columns_than_it_can_have_is_unreadable(content):
    with pytest.raises(results.UnreadableFile, match=r"more (rows|columns) than were sent"):
        read(content)


def test_lines_without_a_row_take_no_memory_and_a_new_column_is_passed_over():
    assert read(b"sf__Id,Name\n" + b"\n" * 100_000).num_rows == 0
    assert read(b"sf__Id,sf__New,Name\nx,y,z\n").to_pylist() == [{"sf__Id": "x", "Name": "z"}]
    assert read(b"sf__New\ny\n").num_rows == 1


def test_result_files_are_read_as_csv_not_as_lines():
    content = '"sf__Id","sf__Error",Name\r\n"","A:b\n\nc:--","x ""q"",\u2028\r\ny"\r\n"","","é"\r\n'.encode()
    table = read(b"\xef\xbb\xbf" + content)
    assert table.column_names == ["sf__Id", "sf__Error", "Name"]
    assert table.column("Name").to_pylist() == ['x "q",\u2028\r\ny', "é"]
    assert table.column("sf__Error").to_pylist() == ["A:b\n\nc:--", ""]


@pytest.mark.parametrize("content", [b"", b"\n", b"\xef\xbb\xbf", b"\xef\xbb\xbf\n"])
def test_an_empty_body_is_an_empty_file(content):
    assert read(content).num_rows == 0


def test_a_file_of_headers_only_has_no_rows():
    assert read(b'"sf__Id","sf__Error",Name\n').num_rows == 0


@pytest.mark.parametrize(
    "content", [b'"a","b"\n"1","2"\n"3', b'"a","b"\n"1","2"\n"3","4"', b'"a"\n"\xff"\n', b'"a","a"\n"1","2"\n']
)
def test_a_file_that_breaks_off_is_unreadable(content):
    with pytest.raises(results.UnreadableFile):
        read(content)


@pytest.mark.slow
def test_a_large_batch_in_another_order_joins():
    count = 200_000
    names = [f"name {n // 2}" for n in range(count)]
    money = [Decimal(n % 977) / 4 for n in range(count)]
    columns = {NAME: names, MRR: money, **{PayloadColumn(f"T{i}__c", NAME.field): names for i in range(8)}}
    batch = batch_of(columns, Operation.INSERT)
    order = np.random.default_rng(1).permutation(count)
    echo = {c.header: batch.rows.column(c.header).take(order) for c in columns if c is not MRR}
    echo["MRR__c"] = pa.array([repr(float(money[i])) for i in order])
    ids = pa.array([sf_id(i) for i in order])
    succeeded = pa.table({"sf__Id": ids, "sf__Created": pa.array(["true"] * count), **echo})
    joined = results.join(batch, ResultFiles(succeeded, _table([]), _table([])), touched=True)
    assert joined.column("record_id").to_pylist() == [sf_id(i) for i in range(count)]


def test_a_file_may_have_every_column_that_was_sent_beside_those_that_are_read() -> None:
    header = [*KNOWN, *(f"C{number}__c" for number in range(60))]
    content = (",".join(header) + "\n" + ",".join("x" for _ in header) + "\n").encode()
    assert results.read_file(io.BytesIO(content), rows_max=1, names=KNOWN, sent=60).num_rows == 1
    with pytest.raises(results.UnreadableFile, match="more columns"):
        results.read_file(io.BytesIO(content), rows_max=1, names=KNOWN)
