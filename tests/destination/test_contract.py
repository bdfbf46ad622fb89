"""What every destination does: the in-memory org of the tests, and our client on the emulator, mounted and over a port.

Each test is a promise of `Destination`'s docstrings. Where Salesforce's guides say more than the contract (which code a
row gets), the emulator has it from them, and the in-memory org does the same.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from dinmo_dbt.destination import (
    RESULTS,
    Api,
    ErrorClass,
    Field,
    ListedJob,
    Operation,
    PayloadColumn,
    Remedy,
    StateRecord,
)
from dinmo_dbt.errors import ConfigError, NotApplied, OutcomeUnknown
from dinmo_dbt.rows import values

from .conftest import STATES, Lab

INSERT, UPDATE, UPSERT, DELETE = Operation.INSERT, Operation.UPDATE, Operation.UPSERT, Operation.DELETE
NO_JOB = "750000000000999AAA"
both_ways = pytest.mark.parametrize("way", list(Api))


def field_of(lab: Lab, name: str, object_name: str = "Thing__c") -> Field:
    field = lab.destination.describe(object_name).field(name)
    assert field is not None
    return field


def absent(lab: Lab, name: str = "Thing__c") -> str:
    """The id of a record that never was."""
    prefix = lab.destination.describe(name).key_prefix
    return str(values.canonical(pa.array([f"{prefix}000009999999"]), field_of(lab, "Id"))[0][0])


def said(rows: list[dict[str, Any]], *names: str) -> list[tuple[Any, ...]]:
    return [tuple(row[name] for name in names) for row in rows]


def pairs(table: pa.Table) -> list[tuple[Any, ...]]:
    return sorted(zip(*(column.to_pylist() for column in table.columns), strict=True))


# The schema


def test_a_schema_is_found_in_any_case_and_speaks_in_the_orgs_own(lab: Lab) -> None:
    schema = lab.destination.describe("thing__C")
    assert (schema.name, schema.createable, schema.updateable, schema.deletable) == ("Thing__c", True, True, True)
    ext = schema.field("EXT__C")
    assert ext is not None
    assert (ext.name, ext.type, ext.length) == ("Ext__c", "string", 40)
    assert ext.external_id and ext.unique and ext.identifies and values.folds_case(ext)
    assert not any(values.folds_case(field_of(lab, name)) for name in ("Exact__c", "Loose__c"))
    lookup = schema.relationship("parent__R")
    assert lookup is not None and (lookup.name, lookup.reference_to) == ("Parent__c", ("Parent__c",))
    assert schema.field("Nope__c") is None and schema.relationship("Nope__r") is None


def test_a_schema_is_asked_for_once_a_session(lab: Lab) -> None:
    first = lab.destination.describe("Thing__c")
    calls = lab.destination.calls
    assert lab.destination.describe("THING__C") is first
    assert lab.destination.calls == calls


@pytest.mark.parametrize("name", ["Nope__c", "Thing", "", "Thing__c/describe", "x'y"])
def test_an_object_that_the_org_lacks_is_named(lab: Lab, name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        lab.destination.describe(name)
    [problem] = caught.value.problems
    assert (problem.code, problem.where) == ("DB301", f"object {name}")


def test_a_request_for_what_the_org_lacks_is_not_applied(lab: Lab) -> None:
    org, ext = lab.destination, field_of(lab, "Ext__c")
    record_ids = lab.insert(Ext__c=["x"])
    nowhere = replace(lab.batch(INSERT, Api.BULK, {"Ext__c": ["y"]}), object="Nope__c")
    asking: list[Callable[[], object]] = [
        lambda: org.has_records("Nope__c"),
        lambda: org.lookup("Nope__c", ext, pa.array(["x"])),
        lambda: org.lookup("Thing__c", replace(ext, name="Nope__c"), pa.array(["x"])),
        lambda: org.lookup("Thing__c", ext, pa.array(["x"]), ("Nope__c", "x")),
        lambda: org.read("Nope__c", ("Ext__c",), tuple(record_ids)),
        lambda: org.read("Thing__c", ("Nope__c",), tuple(record_ids)),
        lambda: org.read_many("Thing__c", ("Nope__c",), pa.array(record_ids)),
        lambda: list(org.read_pages("Thing__c", ("Nope__c",), None)),
        lambda: list(org.read_pages("Thing__c", ("Parent__r.Nope__c",), None)),
        lambda: org.create_job(nowhere),
    ]
    for number, ask in enumerate(asking):
        with pytest.raises(NotApplied):
            ask()
            pytest.fail(f"asking {number} is answered")
    with pytest.raises(ConfigError, match="DB301"):
        org.send(replace(nowhere, api=Api.COLLECTIONS))


# Calls and clocks


def test_calls_are_counted(lab: Lab) -> None:
    calls = [lab.destination.calls]
    for ask in (
        lambda: lab.destination.has_records("Thing__c"),
        lambda: lab.destination.send(lab.batch(INSERT, Api.COLLECTIONS, {"Ext__c": ["x"]})),
        lambda: lab.destination.create_job(lab.batch(INSERT, Api.BULK, {"Ext__c": ["y"]})),
    ):
        lab.destination.describe("Thing__c")
        before = lab.destination.calls
        ask()
        calls.append(lab.destination.calls)
        assert calls[-1] == before + 1


def test_what_a_reply_tells_of_the_org(lab: Lab) -> None:
    assert len(lab.destination.org_id) == 18 and lab.destination.org_id.startswith("00D")
    lab.destination.has_records("Thing__c")
    usage, now = lab.destination.usage, lab.destination.org_time
    assert 0 <= usage.used <= usage.limit
    assert now is None or now == pytest.approx(lab.clock.now(), abs=2)


# Reading


def test_an_object_has_records_or_has_none(lab: Lab) -> None:
    assert lab.destination.has_records("Thing__c") is False
    [record_id] = lab.insert(Ext__c=["x"])
    assert lab.destination.has_records("Thing__c") is True
    assert lab.destination.has_records("Parent__c") is False
    lab.delete(record_id)
    assert lab.destination.has_records("Thing__c") is False


TEXTS = ["plain", "O'Brien \\ 'x'", 'say "hi"', "100%_", "é 漢字 😀", "a\tb", "x' OR Name != '", "(a),b"]


@pytest.mark.parametrize("more", [0, 2_001])
def test_a_look_up_finds_each_record_that_holds_a_value(lab: Lab, more: int) -> None:
    """`more` values that nobody holds: then it is a query of Bulk API 2.0."""
    ids = lab.insert(Loose__c=[*TEXTS, "plain", "other"])
    wanted = pa.array([*TEXTS, *(f"none {n}" for n in range(more or 1))])
    found = lab.destination.lookup("Thing__c", field_of(lab, "Loose__c"), wanted)
    assert found.column_names == ["value", "record_id"]
    assert pairs(found) == sorted(zip([*TEXTS, "plain"], ids[:-1], strict=True))


@pytest.mark.parametrize("more", [0, 2_001])
def test_a_look_up_gives_texts_as_they_are_and_perhaps_those_of_another_case(lab: Lab, more: int) -> None:
    ids = lab.insert(Exact__c=["Abc", "aBC", "abcd"], Loose__c=["Abc", "aBC", "abcd"])
    wanted = pa.array(["aBC", *(f"none {n}" for n in range(more))])
    found = lab.destination.lookup("Thing__c", field_of(lab, "Exact__c"), wanted)
    assert {("aBC", ids[1])} <= set(pairs(found)) <= {("Abc", ids[0]), ("aBC", ids[1])}
    found = lab.destination.lookup("Thing__c", field_of(lab, "Loose__c"), wanted)
    assert pairs(found) == [("Abc", ids[0]), ("aBC", ids[1])]


@pytest.mark.parametrize("more", [0, 2_001])
def test_a_look_up_can_be_of_some_records_alone(lab: Lab, more: int) -> None:
    ids = lab.insert(Loose__c=["x", "x", "x"], Note__c=["ours", "it's theirs", None])
    wanted = pa.array(["x", *(f"none {n}" for n in range(more))])
    for note, expected in (("ours", ids[:1]), ("it's theirs", ids[1:2]), ("nobody's", [])):
        found = lab.destination.lookup("Thing__c", field_of(lab, "Loose__c"), wanted, ("Note__c", note))
        assert found["record_id"].to_pylist() == expected


def test_a_look_up_speaks_in_the_fields_own_type(lab: Lab) -> None:
    [parent] = lab.insert("Parent__c", Key__c=["p"])
    ids = lab.insert(Code__c=[Decimal(7), Decimal(8)], Parent__c=[parent, None], Since__c=[None, dt.date(2024, 2, 29)])
    for name, given, holder in (
        ("Code__c", Decimal(7), ids[0]),
        ("Parent__c", parent, ids[0]),
        ("Since__c", dt.date(2024, 2, 29), ids[1]),
        ("Id", ids[1], ids[1]),
    ):
        field = field_of(lab, name)
        wanted, _ = values.canonical(pa.array([given]), field)
        found = lab.destination.lookup("Thing__c", field, wanted)
        assert pairs(found) == [(wanted[0].as_py(), holder)], name
        assert found.schema.types == [wanted.type, pa.utf8()]
        nothing = lab.destination.lookup("Thing__c", field, wanted.slice(0, 0))
        assert (nothing.num_rows, nothing.schema.types) == (0, found.schema.types), name


def test_records_are_read_as_json_and_a_missing_one_is_left_out(lab: Lab) -> None:
    [parent] = lab.insert("Parent__c", Key__c=["p"])
    ids = lab.insert(
        Ext__c=["x", "y"], Amount__c=[Decimal("19.99"), None], Open__c=[True, False],
        Since__c=[dt.date(1969, 12, 31), None], Parent__c=[parent, None],
    )  # fmt: skip
    fields = ("Ext__c", "Amount__c", "Open__c", "Since__c", "Parent__c")
    read = lab.destination.read("Thing__c", fields, (ids[1], absent(lab), ids[0]))
    assert {record["Id"]: record for record in read} == {
        ids[0]: dict(zip(("Id", *fields), (ids[0], "x", 19.99, True, "1969-12-31", parent), strict=True)),
        ids[1]: dict(zip(("Id", *fields), (ids[1], "y", None, False, None, None), strict=True)),
    }
    assert lab.destination.read("Thing__c", ("Id",), ()) == []
    with pytest.raises(AssertionError):
        lab.destination.read("Thing__c", ("Ext__c",), (ids[0],) * 201)


@pytest.mark.parametrize("more", [0, 2_001])
def test_many_records_are_read_as_text_and_a_missing_one_is_left_out(lab: Lab, more: int) -> None:
    """`more` ids of nothing: then it is a query of Bulk API 2.0."""
    ids = lab.insert(Ext__c=["x", "y", "z"], Amount__c=[Decimal("0.50"), None, Decimal(3)], Open__c=[True, False, True])
    prefix = ids[0][:3]
    nobody, _ = values.canonical(pa.array([f"{prefix}{8_000_000 + n:012d}" for n in range(more)]), field_of(lab, "Id"))
    wanted = pa.concat_arrays([pa.array(ids[:2]), nobody])
    read = lab.destination.read_many("Thing__c", ("Ext__c", "Amount__c", "Open__c", "Note__c"), wanted)
    assert read.column_names == ["Id", "Ext__c", "Amount__c", "Open__c", "Note__c"]
    assert set(read.schema.types) == {pa.utf8()}
    rows = {row["Id"]: row for row in read.to_pylist()}
    assert set(rows) == set(ids[:2])
    assert Decimal(rows[ids[0]].pop("Amount__c")) == Decimal("0.5")
    assert rows[ids[0]] == {"Id": ids[0], "Ext__c": "x", "Open__c": "true", "Note__c": None}
    assert rows[ids[1]] == {"Id": ids[1], "Ext__c": "y", "Amount__c": None, "Open__c": "false", "Note__c": None}
    nothing = lab.destination.read_many("Thing__c", ("Id", "Ext__c"), wanted.slice(0, 0))
    assert (nothing.num_rows, nothing.column_names) == (0, ["Id", "Ext__c"])


def test_pages_hold_every_record_once_and_the_fields_of_its_parent(lab: Lab) -> None:
    parents = lab.insert("Parent__c", Key__c=["p", "q"])
    ids = lab.insert(Ext__c=[f"x{n}" for n in range(7)], Parent__c=[parents[0]] * 3 + [parents[1]] * 3 + [None])
    fields = ("Ext__c", "Parent__r.Key__c")
    expected = {i: (f"x{n}", ["p", "q", None][n // 3]) for n, i in enumerate(ids)}
    assert lab.held(*fields) == expected
    pages = list(lab.destination.read_pages("Thing__c", fields, pa.array([ids[0], absent(lab), ids[6]])))
    assert all(page.schema == pa.schema([(name, pa.utf8()) for name in ("Id", *fields)]) for page in pages)
    assert pairs(pa.concat_tables(pages).select(["Id"])) == sorted([(ids[0],), (ids[6],)])
    assert {row["Id"]: (row["Ext__c"], row["Parent__r.Key__c"]) for page in pages for row in page.to_pylist()} == {
        i: expected[i] for i in (ids[0], ids[6])
    }
    for record_ids in (None, pa.array([], pa.utf8())):
        pages = list(lab.destination.read_pages("Parent__c" if record_ids is not None else STATES, ("Id",), record_ids))
        assert pages and sum(page.num_rows for page in pages) == 0


# Rows by either way


@both_ways
def test_a_row_is_answered_in_its_place(lab: Lab, way: Api) -> None:
    """450 rows are three calls of a job's, whose result files have their own order."""
    lab.insert(Exact__c=["e7", "e11"])
    count = 450 if way is Api.BULK else 200
    columns = {"Ext__c": [f"x{n}" for n in range(count)], "Exact__c": [f"e{n}" for n in range(count)]}
    batch = lab.batch(INSERT, way, columns)
    rows = lab.carry_out(batch)
    assert Counter(said(rows, "fate", "created")) == {("succeeded", True): count - 2, ("rejected", None): 2}
    assert [n for n, row in enumerate(rows) if row["fate"] == "rejected"] == [7, 11]
    assert said([rows[7], rows[11]], "code", "record_id") == [("DUPLICATE_VALUE", None)] * 2
    assert "Exact__c" in rows[7]["message"]
    held = lab.held("Ext__c")
    for n, row in enumerate(rows):
        if n not in (7, 11):
            assert len(row["record_id"]) == 18
            assert held[row["record_id"]] == (f"x{n}",)
            assert (row["code"], row["message"], row["fields"]) == (None, None, None)
    assert len(held) == count


@both_ways
def test_the_results_have_their_columns_and_types(lab: Lab, way: Api) -> None:
    batch = lab.batch(INSERT, way, {"Ext__c": ["x"]})
    if way is Api.COLLECTIONS:
        assert lab.destination.send(batch).schema == RESULTS
        return
    job_id = lab.destination.create_job(batch)
    lab.destination.upload(job_id, batch)
    lab.destination.close(job_id)
    lab.ended(job_id)
    found = lab.destination.results(job_id, batch)
    assert found is not None and found.schema == RESULTS


@both_ways
def test_an_upsert_changes_the_record_that_it_finds_and_makes_the_others(lab: Lab, way: Api) -> None:
    ids = lab.insert(Ext__c=["Abc", "d"], Exact__c=["Abc", "d"], Note__c=["was", "was"])
    rows = lab.carry_out(lab.batch(UPSERT, way, {"Ext__c": ["new", "aBC"], "Note__c": ["made", "is"]}, match="Ext__c"))
    assert said(rows, "fate", "created") == [("succeeded", True), ("succeeded", False)]
    assert rows[1]["record_id"] == ids[0]
    assert lab.held("Ext__c", "Note__c") == {
        ids[0]: ("Abc", "is"), ids[1]: ("d", "was"), rows[0]["record_id"]: ("new", "made"),
    }  # fmt: skip
    exact = {"Exact__c": ["aBC", "d"], "Note__c": ["made", "is"]}
    for created in ([True, False], [False, False]):
        rows = lab.carry_out(lab.batch(UPSERT, way, exact, match="Exact__c"))
        assert said(rows, "fate", "created") == [("succeeded", each) for each in created], "it may be repeated"
        assert rows[1]["record_id"] == ids[1]
    assert lab.held("Exact__c")[rows[0]["record_id"]] == ("aBC",)


@both_ways
def test_an_upsert_by_a_number_finds_it_as_the_org_prints_it(lab: Lab, way: Api) -> None:
    [known] = lab.insert(Code__c=[Decimal(912260031)])
    columns = {"Code__c": [Decimal(912260032), Decimal(912260031)]}
    rows = lab.carry_out(lab.batch(UPSERT, way, columns, match="Code__c"))
    assert said(rows, "fate", "created") == [("succeeded", True), ("succeeded", False)]
    assert rows[1]["record_id"] == known


@both_ways
def test_an_upsert_that_names_no_record_or_several_is_rejected(lab: Lab, way: Api) -> None:
    lab.insert(Loose__c=["two", "two", None], Note__c=["was", "was", "was"])
    columns = {"Loose__c": ["two", None, None, "TWO"], "Note__c": ["is", "is", "is", "made"]}
    rows = lab.carry_out(lab.batch(UPSERT, way, columns, match="Loose__c"))
    assert said(rows, "fate", "code", "fields", "record_id")[:3] == [
        ("rejected", "DUPLICATE_EXTERNAL_ID", "Loose__c", None),
        *[("rejected", "MISSING_ARGUMENT", None, None)] * 2,
    ]
    assert said(rows[3:], "fate", "created") == [("succeeded", True)], "of a field that is not unique case counts"
    assert Counter(lab.held("Note__c").values()) == {("was",): 3, ("made",): 1}


@both_ways
def test_two_rows_of_a_call_for_one_external_id_are_both_rejected(lab: Lab, way: Api) -> None:
    """SOAP guide, upsert(). A job's rows look alike, and each has an error of its own."""
    columns = {"Ext__c": ["a", "b", "A"], "Note__c": ["1", "2", "3"]}
    rows = lab.carry_out(lab.batch(UPSERT, way, columns, match="Ext__c"))
    assert said(rows, "fate", "record_id")[::2] == [("rejected", None)] * 2
    code = "INDISTINGUISHABLE" if way is Api.BULK else "DUPLICATE_VALUE"
    assert said(rows, "code") == [(code,), (None,), (code,)]
    assert lab.held("Ext__c", "Note__c") == {rows[1]["record_id"]: ("b", "2")}


@both_ways
def test_rows_that_are_equal_are_told_apart_by_a_call_and_not_by_a_job(lab: Lab, way: Api) -> None:
    rows = lab.carry_out(lab.batch(INSERT, way, {"Note__c": ["twin", "other", "twin"]}))
    assert said(rows, "fate", "created") == [("succeeded", True)] * 3
    held = lab.held("Note__c")
    assert sorted(held.values()) == [("other",), ("twin",), ("twin",)]
    assert held[rows[1]["record_id"]] == ("other",)
    if way is Api.BULK:
        assert rows[0]["record_id"] is rows[2]["record_id"] is None
    else:
        assert len({row["record_id"] for row in rows}) == 3


@both_ways
def test_a_unique_field_takes_no_value_twice_in_any_case_that_it_folds(lab: Lab, way: Api) -> None:
    ids = lab.insert(Ext__c=["x", "y"], Exact__c=["x", "y"])
    rows = lab.carry_out(lab.batch(INSERT, way, {"Ext__c": ["X", "z"], "Exact__c": ["1", "Y"]}))
    assert said(rows, "fate", "code", "created") == [
        ("rejected", "DUPLICATE_VALUE", None),
        ("succeeded", None, True),
    ]
    change = {"Id": ids, "Ext__c": ["Y", "y"], "Exact__c": ["x", "y"]}
    rows = lab.carry_out(lab.batch(UPDATE, way, change))
    assert said(rows, "fate", "code", "created") == [
        ("rejected", "DUPLICATE_VALUE", None),
        ("succeeded", None, False),
    ]
    assert sorted(lab.held("Ext__c").values()) == [("x",), ("y",), ("z",)]


@both_ways
def test_a_null_clears_its_field_and_a_kept_one_leaves_it(lab: Lab, way: Api) -> None:
    ids = lab.insert(Note__c=["was", "was"], Amount__c=[Decimal(1), Decimal(1)], Since__c=[dt.date(2026, 1, 1)] * 2)
    change = {"Id": ids, "Note__c": [None, "is"], "Amount__c": [None, Decimal(2)], "Since__c": [None, None]}
    for _ in range(2):  # it may be repeated
        rows = lab.carry_out(lab.batch(UPDATE, way, change, keep=("Amount__c",)))
        assert said(rows, "fate", "created", "record_id") == [("succeeded", False, i) for i in ids]
        held = lab.held("Note__c", "Amount__c", "Since__c")
        assert [held[i][0] for i in ids] == [None, "is"]
        assert [float(held[i][1] or 0) for i in ids] == [1, 2]
        assert [held[i][2] for i in ids] == [None, None]
    made = {"Ext__c": ["x"], "Note__c": [None], "Since__c": [None]}
    [row] = lab.carry_out(lab.batch(UPSERT, way, made, match="Ext__c", keep=("Since__c",)))
    assert lab.held("Ext__c", "Note__c", "Since__c")[row["record_id"]] == ("x", None, None)


@both_ways
def test_a_record_that_is_gone_can_be_deleted_and_not_changed(lab: Lab, way: Api) -> None:
    ids = lab.insert(Ext__c=["x", "y"], Note__c=["was", "was"])
    lab.delete(ids[0])
    targets = [ids[0], ids[1], absent(lab)]
    rows = lab.carry_out(lab.batch(UPDATE, way, {"Id": targets, "Note__c": ["a", "b", "c"]}))
    assert said(rows, "fate", "code") == [
        ("rejected", "ENTITY_IS_DELETED"),
        ("succeeded", None),
        ("rejected", "INVALID_CROSS_REFERENCE_KEY"),
    ]
    assert lab.held("Note__c") == {ids[1]: ("b",)}
    for _ in range(2):  # it may be repeated
        rows = lab.carry_out(lab.batch(DELETE, way, {"Id": targets}))
        assert said(rows, "fate", "created", "code", "message") == [("succeeded", False, None, None)] * 3
        assert lab.held() == {}
    [row] = lab.carry_out(lab.batch(UPSERT, way, {"Ext__c": ["x"]}, match="Ext__c"))
    assert row["created"] is True, "a record in the recycle bin is not found"


@both_ways
def test_an_update_without_an_id_is_rejected_alone(lab: Lab, way: Api) -> None:
    [known] = lab.insert(Note__c=["was"])
    rows = lab.carry_out(lab.batch(UPDATE, way, {"Id": [None, known], "Note__c": ["is", "is"]}))
    assert said(rows, "fate", "code") == [("rejected", "MISSING_ARGUMENT"), ("succeeded", None)]
    assert lab.held("Note__c") == {known: ("is",)}


@both_ways
def test_two_changes_of_one_record_are_made_in_their_order(lab: Lab, way: Api) -> None:
    [known] = lab.insert(Note__c=["was"])
    rows = lab.carry_out(lab.batch(UPDATE, way, {"Id": [known] * 2, "Note__c": ["first", "second"]}))
    assert said(rows, "fate") == [("succeeded",)] * 2
    assert lab.held("Note__c") == {known: ("second",)}


@both_ways
def test_a_record_id_means_the_same_in_15_characters_and_with_a_suffix_in_any_case(lab: Lab, way: Api) -> None:
    ids = lab.insert(Note__c=["was"] * 3)
    given = [ids[0][:15], ids[1], ids[2][:15] + ids[2][15:].lower()]
    rows = lab.carry_out(lab.batch(UPDATE, way, {"Id": given, "Note__c": ["0", "1", "2"]}))
    assert said(rows, "fate", "record_id") == [("succeeded", i) for i in ids]
    assert lab.held("Note__c") == {i: (str(n),) for n, i in enumerate(ids)}


# Parents


@both_ways
def test_a_parent_is_found_by_its_external_id(lab: Lab, way: Api) -> None:
    parents = lab.insert("Parent__c", Key__c=["C'1", "c2", "c3"], Loose__c=["s", "s", "t"])
    columns = {"Ext__c": ["a", "b", "c"], "Parent__r.Key__c": ["c'1", "nobody", "C2"]}
    rows = lab.carry_out(lab.batch(UPSERT, way, columns, match="Ext__c"))
    assert said(rows, "fate", "code") == [("succeeded", None), ("rejected", "INVALID_FIELD"), ("succeeded", None)]
    diagnosis = lab.destination.diagnose(rows[1]["code"], rows[1]["message"])
    assert (diagnosis.error_class, diagnosis.remedy) == (ErrorClass.REFERENCE, Remedy.CHANGE)
    rows += lab.carry_out(lab.batch(INSERT, way, {"Ext__c": ["d", "e"], "Parent__r.Loose__c": ["s", "t"]}))
    assert said(rows[3:], "fate", "code") == [("rejected", "DUPLICATE_EXTERNAL_ID"), ("succeeded", None)]
    assert sorted(lab.held("Ext__c", "Parent__c").values()) == [("a", parents[0]), ("c", parents[1]), ("e", parents[2])]


def test_a_null_parent_path_clears_the_lookup_or_leaves_it(lab: Lab) -> None:
    [parent] = lab.insert("Parent__c", Key__c=["p"])
    ids = lab.insert(Ext__c=["x", "y"], Parent__c=[parent, parent])
    change = {"Id": ids, "Parent__r.Key__c": [None, "p"]}
    for keep, expected in ((("Parent__r.Key__c",), parent), ((), None)):
        rows = lab.carry_out(lab.batch(UPDATE, Api.COLLECTIONS, change, keep=keep))
        assert said(rows, "fate") == [("succeeded",)] * 2
        assert lab.held("Parent__c") == {ids[0]: (expected,), ids[1]: (parent,)}


@both_ways
def test_a_lookup_takes_the_id_of_a_record_that_is_there(lab: Lab, way: Api) -> None:
    parents = lab.insert("Parent__c", Key__c=["p", "q"])
    lab.carry_out(lab.batch(DELETE, way, {"Id": parents[1:]}, name="Parent__c"))
    ids = lab.insert(Ext__c=["a", "b", "c", "d"])
    change = {"Id": ids, "Parent__c": [parents[0], parents[1], absent(lab, "Parent__c"), None]}
    rows = lab.carry_out(lab.batch(UPDATE, way, change))
    assert said(rows, "fate", "code") == [
        ("succeeded", None),
        ("rejected", "ENTITY_IS_DELETED"),
        ("rejected", "INVALID_CROSS_REFERENCE_KEY"),
        ("succeeded", None),
    ]
    assert lab.held("Parent__c") == {ids[0]: (parents[0],), **dict.fromkeys(ids[1:], (None,))}


# Collections


@pytest.mark.parametrize("count", [0, 201])
def test_a_call_takes_one_row_to_200(lab: Lab, count: int) -> None:
    batch = lab.batch(INSERT, Api.COLLECTIONS, {"Ext__c": [f"x{n}" for n in range(count)]})
    with pytest.raises(AssertionError):
        lab.destination.send(batch)
    assert not lab.destination.has_records("Thing__c")


def test_what_is_done_before_a_call_can_keep_it_from_going(lab: Lab) -> None:
    batch, seen = lab.batch(INSERT, Api.COLLECTIONS, {"Ext__c": ["x"]}), []
    lab.destination.describe("Thing__c")

    def refuse() -> None:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        lab.destination.send(batch, refuse)
    assert not lab.destination.has_records("Thing__c")
    calls = lab.destination.calls
    assert said(lab.destination.send(batch, lambda: seen.append(lab.destination.calls)).to_pylist(), "fate") == [
        ("succeeded",)
    ]
    assert len(seen) == 1 and seen[0] <= calls + 1


def misnamed(lab: Lab, way: Api) -> Any:
    """A batch with a column that the object has no field for."""
    batch = lab.batch(INSERT, way, {"Ext__c": ["x", "y"], "Note__c": ["1", "2"]})
    columns = (batch.columns[0], PayloadColumn("Nope__c", batch.columns[1].field))
    return replace(batch, columns=columns, rows=batch.rows.rename_columns(["Ext__c", "Nope__c"]))


@both_ways
def test_a_column_that_the_object_lacks_fails_every_row(lab: Lab, way: Api) -> None:
    rows = lab.carry_out(misnamed(lab, way))
    expected = ("held", "UNPROCESSED") if way is Api.BULK else ("rejected", "INVALID_FIELD")
    assert said(rows, "fate", "code") == [expected] * 2
    assert all("Nope__c" in row["message"] for row in rows)
    assert lab.held() == {}


# Jobs


def test_a_job_does_nothing_before_it_is_closed(lab: Lab) -> None:
    org, batch = lab.destination, lab.batch(INSERT, Api.BULK, {"Ext__c": ["x", "y"], "Exact__c": ["e", "e"]})
    job_id = org.create_job(batch)
    for _ in range(2):
        job = org.job(job_id)
        assert job is not None
        assert (job.id, job.is_open, job.is_terminal, job.processed, job.failed) == (job_id, True, False, 0, 0)
        if not job.processed:
            lab.clock.sleep(3_600)
    org.upload(job_id, batch)
    lab.clock.sleep(3_600)
    job = org.job(job_id)
    assert job is not None and job.is_open
    assert lab.held() == {}
    org.close(job_id)
    assert lab.ended(job_id) == "JobComplete"
    job = org.job(job_id)
    assert job is not None and (job.processed, job.failed) == (2, 1), "the failed row is counted as processed too"
    for _ in range(2):
        org.close(job_id)
        org.abort(job_id)
    assert org.job(job_id) == job, "what has ended stays as it is"
    assert sorted(said(lab.results(job_id, batch), "fate")) == [("rejected",), ("succeeded",)]
    assert len(lab.held()) == 1


def test_a_job_can_be_closed_twice_and_runs_once(lab: Lab) -> None:
    org, batch = lab.destination, lab.batch(INSERT, Api.BULK, {"Note__c": ["x"]})
    job_id = org.create_job(batch)
    org.upload(job_id, batch)
    org.close(job_id)
    org.close(job_id)
    assert said(lab.results(job_id, batch), "fate") == said(lab.results(job_id, batch), "fate") == [("succeeded",)]
    assert len(lab.held()) == 1


def test_an_aborted_job_writes_nothing_and_holds_every_row(lab: Lab) -> None:
    org, batch = lab.destination, lab.batch(INSERT, Api.BULK, {"Ext__c": ["x", "y"]})
    job_id = org.create_job(batch)
    org.upload(job_id, batch)
    org.abort(job_id)
    org.abort(job_id)
    job = org.job(job_id)
    assert job is not None and (job.state, job.is_terminal, job.is_open) == ("Aborted", True, False)
    with pytest.raises(NotApplied):
        org.close(job_id)
    assert lab.ended(job_id) == "Aborted"
    assert said(lab.results(job_id, batch), "fate", "code", "record_id") == [("held", "UNPROCESSED", None)] * 2
    assert lab.held() == {}
    made = org.made_by(job_id, ["Ext__c"])
    assert made is not None and made.num_rows == 0


def test_a_job_that_is_aborted_on_its_way_tells_what_it_wrote(lab: Lab) -> None:
    if lab.app is not None:
        lab.app.faults.arm_json({"kind": "job_aborted", "row": 400, "times": 1})
    org = lab.destination
    batch = lab.batch(INSERT, Api.BULK, {"Ext__c": [f"x{n}" for n in range(800)]})
    job_id = org.create_job(batch)
    org.upload(job_id, batch)
    org.close(job_id)
    org.abort(job_id)
    assert lab.ended(job_id) == "Aborted"
    rows = lab.results(job_id, batch)
    assert Counter(said(rows, "fate", "code")) == {("succeeded", None): 400, ("held", "UNPROCESSED"): 400}
    expected = {row["record_id"]: (f"x{n}",) for n, row in enumerate(rows) if row["fate"] == "succeeded"}
    assert lab.held("Ext__c") == expected
    made = org.made_by(job_id, ["Ext__c"])
    assert made is not None and pairs(made.select(["sf__Id", "Ext__c"])) == sorted(
        (i, x) for i, (x,) in expected.items()
    )


def test_a_job_without_data_fails_and_holds_every_row(lab: Lab) -> None:
    batch = lab.batch(INSERT, Api.BULK, {"Ext__c": ["x"]})
    job_id = lab.destination.create_job(batch)
    lab.destination.close(job_id)
    assert lab.ended(job_id) == "Failed"
    job = lab.destination.job(job_id)
    assert job is not None and job.error
    [row] = lab.results(job_id, batch)
    assert (row["fate"], row["code"], row["message"]) == ("held", "UNPROCESSED", job.error)


def test_a_job_that_the_org_does_not_know(lab: Lab) -> None:
    org, batch = lab.destination, lab.batch(INSERT, Api.BULK, {"Ext__c": ["x"]})
    assert org.job(NO_JOB) is None
    assert org.results(NO_JOB, batch) is None
    assert org.made_by(NO_JOB, ["Ext__c"]) is None
    org.abort(NO_JOB)
    for act in (lambda: org.upload(NO_JOB, batch), lambda: org.close(NO_JOB)):
        with pytest.raises(NotApplied):
            act()


def test_the_rows_that_a_job_wrote_can_be_read_by_anybody(lab: Lab) -> None:
    lab.insert(Exact__c=["taken"])
    columns = {"Ext__c": ["x", "y", "z"], "Exact__c": ["1", "taken", None], "Note__c": ["a", "b", "c"]}
    batch = lab.batch(INSERT, Api.BULK, columns)
    job_id = lab.destination.create_job(batch)
    lab.destination.upload(job_id, batch)
    lab.destination.close(job_id)
    rows = lab.results(job_id, batch)
    made = lab.destination.made_by(job_id, ["Ext__c", "Note__c", "Nope__c"])
    assert made is not None and set(made.column_names) == {"sf__Id", "Ext__c", "Note__c"}
    assert set(made.schema.types) == {pa.utf8()}
    assert pairs(made.select(["Ext__c", "Note__c", "sf__Id"])) == [
        ("x", "a", rows[0]["record_id"]),
        ("z", "c", rows[2]["record_id"]),
    ]


def test_the_orgs_jobs_are_listed(lab: Lab) -> None:
    org = lab.destination
    assert org.listed_jobs() == []
    first = lab.batch(INSERT, Api.BULK, {"Ext__c": ["x"]})
    second = lab.batch(UPSERT, Api.BULK, {"Key__c": ["p"]}, match="Key__c", name="Parent__c")
    job_ids = [org.create_job(first), org.create_job(second)]
    org.abort(job_ids[1])
    listed = org.listed_jobs()
    assert listed is not None
    by_id: dict[str, ListedJob] = {job.id: job for job in listed}
    assert [(by_id[i].operation, by_id[i].object, by_id[i].state) for i in job_ids] == [
        ("insert", "Thing__c", "Open"),
        ("upsert", "Parent__c", "Aborted"),
    ]
    for job in listed:
        assert job.as_ours and job.user.startswith("005") and float(job.api_version) >= 62
        assert dt.datetime.fromisoformat(job.created).utcoffset() == dt.timedelta(0)
        assert job.said == f"{job.operation} {job.object}, {job.created[:16].replace('T', ' ')} UTC"


def test_rows_that_look_alike_and_differ_go_by_different_jobs(lab: Lab) -> None:
    """A cell that is null and one that is kept look alike in a result file; so do the same number in two forms."""
    batch = lab.batch(
        INSERT, Api.BULK, {"Note__c": ["a", "b", "a", "c"], "Open__c": [False, True, None, True]}, keep=("Open__c",)
    )
    slots = lab.destination.job_slots(batch.rows, batch.columns)
    assert slots.dtype == np.int8 and len(slots) == 4
    assert slots[0] != slots[2]
    assert (slots[1], slots[3]) == (0, 0)
    assert slots.min() >= 0 and slots.max() <= 7
    equal = lab.batch(INSERT, Api.BULK, {"Note__c": ["a"] * 3})
    assert lab.destination.job_slots(equal.rows, equal.columns).tolist() == [0, 0, 0]
    assert lab.destination.job_slots(equal.rows.slice(0, 0), equal.columns).tolist() == []


def test_a_diagnosis_says_what_may_help(lab: Lab) -> None:
    for code, message, remedy in (
        ("UNABLE_TO_LOCK_ROW", "", Remedy.AGAIN),
        ("DUPLICATE_VALUE", "", Remedy.LET_GO),
        ("STORAGE_LIMIT_EXCEEDED", "", Remedy.STOP),
        ("CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY", "Too many SOQL queries: 101", Remedy.SMALLER),
        ("NEVER_HEARD_OF", "", Remedy.CHANGE),
    ):
        assert lab.destination.diagnose(code, message).remedy is remedy, code


# The org's record of a state


def test_a_state_is_kept_by_its_key_in_the_place_of_the_last(lab: Lab) -> None:
    org, first = lab.destination, StateRecord(7, "line1", "run1")
    assert org.state_record("a1") is None
    org.keep_state_record("a1", "things", first)
    org.keep_state_record("b2", "others", replace(first, serial=1))
    assert (org.state_record("a1"), org.state_record("b2")) == (first, replace(first, serial=1))
    org.keep_state_record("a1", "n" * 100, StateRecord(8, "line2", "run2"))
    assert org.state_record("a1") == StateRecord(8, "line2", "run2")


# What can't be known. The in-memory org loses no reply: tests that want it to put `Unreliable` before it.


@pytest.fixture
def losing(lab: Lab) -> Callable[..., None]:
    """The next reply to a call of that name is lost, after the org did what it was asked."""
    if lab.app is None:
        pytest.skip("it loses no reply")
    lab.destination.describe("Thing__c")
    return lambda call, times=1: lab.app.faults.arm_json({"kind": "reply_lost", "call": call, "times": times})


def test_an_insert_whose_reply_is_lost_is_unknown_and_not_repeated(lab: Lab, losing: Callable[..., None]) -> None:
    losing("collections.*")
    sent: list[int] = []
    with pytest.raises(OutcomeUnknown):
        lab.destination.send(lab.batch(INSERT, Api.COLLECTIONS, {"Note__c": ["x"]}), lambda: sent.append(1))
    assert (len(lab.held()), len(sent)) == (1, 1)


@pytest.mark.parametrize("operation", [UPDATE, UPSERT, DELETE])
def test_another_call_whose_reply_is_lost_is_repeated(
    lab: Lab, losing: Callable[..., None], operation: Operation
) -> None:
    [known] = lab.insert(Ext__c=["x"], Note__c=["was"])
    columns = {"Id": [known], "Note__c": ["is"]} if operation is UPDATE else {"Id": [known]}
    if operation is UPSERT:
        columns = {"Ext__c": ["x"], "Note__c": ["is"]}
    losing("collections.*")
    sent: list[int] = []
    match = "Ext__c" if operation is UPSERT else None
    batch = lab.batch(operation, Api.COLLECTIONS, columns, match=match)
    rows = lab.destination.send(batch, lambda: sent.append(1)).to_pylist()
    assert (said(rows, "fate"), len(sent)) == ([("succeeded",)], 2)
    assert lab.held("Note__c") == ({} if operation is DELETE else {known: ("is",)})


def test_a_job_goes_on_whichever_reply_is_lost(lab: Lab, losing: Callable[..., None]) -> None:
    org, batch = lab.destination, lab.batch(INSERT, Api.BULK, {"Note__c": ["x"]})
    losing("ingest.create")
    job_id = org.create_job(batch)
    losing("ingest.upload")
    with pytest.raises(NotApplied):
        org.upload(job_id, batch)
    losing("ingest.abort")
    with suppress(OutcomeUnknown):
        org.abort(job_id)
    assert lab.ended(job_id) == "Aborted"
    again = org.create_job(batch)
    org.upload(again, batch)
    losing("ingest.close")
    with suppress(OutcomeUnknown):
        org.close(again)
    losing("ingest.info")
    losing("ingest.results", 2)
    assert said(lab.results(again, batch), "fate") == [("succeeded",)]
    assert len(lab.held()) == 1, "a job opened unseen does nothing"


@pytest.mark.parametrize("gone", ["results_expired", "job_deleted"])
def test_results_that_the_org_has_no_longer_are_none(lab: Lab, losing: Callable[..., None], gone: str) -> None:
    org, batch = lab.destination, lab.batch(INSERT, Api.BULK, {"Note__c": ["x"]})
    job_id = org.create_job(batch)
    org.upload(job_id, batch)
    org.close(job_id)
    lab.ended(job_id)
    lab.app.faults.arm_json({"kind": gone, "call": "ingest.results" if gone == "results_expired" else "ingest.info"})
    assert org.results(job_id, batch) is None
    assert org.made_by(job_id, ["Note__c"]) is None
