"""A driver's batch in the promised types: laws that hold for whatever it gives."""

from __future__ import annotations

import datetime as dt
import json
from decimal import Decimal

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dinmo_dbt.rows.reasons import unreadable_mark
from dinmo_dbt.warehouse.casting import fitted

INT64 = st.integers(-(2**63), 2**63 - 1)
INTEGERS = {
    pa.int8(): st.integers(-(2**7), 2**7 - 1),
    pa.int16(): st.integers(-(2**15), 2**15 - 1),
    pa.int32(): st.integers(-(2**31), 2**31 - 1),
    pa.int64(): INT64,
    pa.uint64(): st.integers(0, 2**64 - 1),
}


def read(column: pa.Array, kind: pa.DataType, json_columns: tuple[str, ...] = ()) -> list[object]:
    """The values; `...` where one is marked. Times are counts of their unit: Python has no object for many of them."""
    batch = fitted(pa.RecordBatch.from_arrays([column], names=["V"]), pa.schema([pa.field("v", kind)]), json_columns)
    assert batch.schema.field(0) == pa.field("v", kind)
    batch.validate(full=True)
    values = batch.column(0)
    if unreadable_mark("v") in batch.schema.names:
        marked = batch.column(unreadable_mark("v")).to_pylist()
        assert any(marked)
        assert not any(mark and value.is_valid for mark, value in zip(marked, values, strict=True))
    else:
        marked = [False] * len(values)
    counted = values.cast(pa.int64()) if pa.types.is_temporal(kind) and kind != pa.date32() else values
    return [... if mark else value for mark, value in zip(marked, counted.to_pylist(), strict=True)]


@given(st.data())
def test_a_whole_number_is_that_number_or_marked(data: st.DataObject) -> None:
    narrow = data.draw(st.sampled_from(list(INTEGERS)))
    values = data.draw(st.lists(st.none() | INTEGERS[narrow], max_size=20))
    precision = data.draw(st.integers(1, 38))
    scale = data.draw(st.integers(0, precision))
    kind = data.draw(st.sampled_from([pa.int64(), pa.decimal128(precision, scale)]))
    limit = 10 ** (precision - scale)
    fits = (lambda v: -(2**63) <= v < 2**63) if kind == pa.int64() else (lambda v: -limit < v < limit)
    expected = [None if value is None else value if fits(value) else ... for value in values]
    assert read(pa.array(values, narrow), kind) == expected


@given(st.data())
def test_a_decimal_is_the_same_number_or_marked(data: st.DataObject) -> None:
    places = data.draw(st.integers(0, 10))
    values = data.draw(st.lists(st.none() | st.decimals(-(10**20), 10**20, places=places), max_size=20))
    precision = data.draw(st.integers(1, 38))
    scale = data.draw(st.integers(0, precision))

    def expected(value: Decimal | None) -> object:
        if value is None:
            return None
        shifted = int(value.scaleb(places)) * 10**scale
        whole = shifted % 10**places == 0 and abs(shifted // 10**places) < 10**precision
        return value if whole else ...

    found = read(pa.array(values, pa.decimal128(38, places)), pa.decimal128(precision, scale))
    assert found == [expected(value) for value in values]


@pytest.mark.parametrize("zones", [(None, None), ("America/New_York", "UTC"), ("UTC", None), (None, "UTC")])
@given(values=st.lists(st.none() | INT64, max_size=20))
def test_nanoseconds_become_the_microsecond_that_they_are_in(
    zones: tuple[str | None, str | None], values: list[int | None]
) -> None:
    column = pa.array(values, pa.int64()).cast(pa.timestamp("ns", zones[0]))
    found = read(column, pa.timestamp("us", zones[1]))
    assert found == [None if value is None else value // 1_000 for value in values]


@given(values=st.lists(st.none() | INT64, max_size=20))
def test_seconds_become_microseconds_or_are_marked(values: list[int | None]) -> None:
    def expected(value: int | None) -> object:
        return value if value is None else value * 1_000_000 if abs(value * 1_000_000) < 2**63 else ...

    found = read(pa.array(values, pa.int64()).cast(pa.timestamp("s")), pa.timestamp("us"))
    assert found == [expected(value) for value in values]


@given(values=st.lists(st.none() | st.integers(0, 86_400 * 10**9 - 1), max_size=20))
def test_a_time_of_day_goes_down_to_its_microsecond(values: list[int | None]) -> None:
    column = pa.array(values, pa.int64()).cast(pa.time64("ns"))
    assert read(column, pa.time64("us")) == [None if value is None else value // 1_000 for value in values]


@given(values=st.lists(st.none() | st.binary(max_size=6), max_size=40))
def test_bytes_that_are_no_text_are_marked_and_the_others_are_text(values: list[bytes | None]) -> None:
    def expected(value: bytes | None) -> object:
        try:
            return value if value is None else value.decode()
        except UnicodeDecodeError:
            return ...

    assert read(pa.array(values, pa.binary()), pa.utf8()) == [expected(value) for value in values]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda each: st.lists(each) | st.dictionaries(st.text(), each),
)


@given(st.lists(st.none() | JSON.map(json.dumps), max_size=5))
def test_json_is_what_it_means_if_a_text_and_else_what_is_written(values: list[str | None]) -> None:
    def expected(text: str | None) -> object:
        value = None if text is None else json.loads(text)
        return value if value is None or isinstance(value, str) else text

    assert read(pa.array(values, pa.utf8()), pa.utf8(), ("v",)) == [expected(value) for value in values]


def test_lists_of_json_hold_what_each_means() -> None:
    column = pa.array([['"a \\"b\\""', "null", None, "1", '{"c":1}'], [], None], pa.list_(pa.utf8()))
    assert read(column, column.type, ("v",)) == [['a "b"', None, None, "1", '{"c":1}'], [], None]


@given(st.lists(st.none() | st.lists(st.none() | st.text()), max_size=10))
def test_a_list_where_text_is_promised_is_json(values: list[list[str | None] | None]) -> None:
    found = read(pa.array(values, pa.list_(pa.utf8())), pa.utf8())
    assert [None if text is None else json.loads(str(text)) for text in found] == values


def test_a_map_is_an_object_and_one_with_a_key_twice_is_marked() -> None:
    kind = pa.map_(pa.utf8(), pa.int64())
    column = pa.array([[("a", 1)], None, [("a", 1), ("a", 2)]], kind)
    assert read(column, pa.utf8()) == ['{"a":1}', None, ...]


def test_a_type_that_is_never_the_other_marks_every_value() -> None:
    assert read(pa.array([[1], None], pa.list_(pa.int64())), pa.date32()) == [..., None]
    assert read(pa.array([dt.date(2024, 1, 31), None]), pa.bool_()) == [..., None]
    assert read(pa.nulls(2), pa.decimal128(9, 2)) == [None, None]


def test_columns_that_agree_are_not_copied() -> None:
    batch = pa.RecordBatch.from_pydict({"A": ["x", None], "N": [1, 2]})
    schema = pa.schema([("a", pa.utf8()), ("n", pa.int64())])
    found = fitted(batch, schema)
    assert found.schema == schema
    for before, after in zip(batch.columns, found.columns, strict=True):
        assert [b and b.address for b in before.buffers()] == [a and a.address for a in after.buffers()]
