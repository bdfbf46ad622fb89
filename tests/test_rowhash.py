"""Row hashes are part of the state format: the numbers below change only together with HASH_VERSION."""

import datetime as dt
from decimal import Context, Decimal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dinmo_dbt import rowhash
from dinmo_dbt.changes import key_hash
from dinmo_dbt.destination import Field
from dinmo_dbt.mapping import Column, Constant, Mapping
from dinmo_dbt.rowhash import hash_columns
from dinmo_dbt.values import DATETIME, DECIMAL, TIME

VALUES = {
    "null": (None, pa.utf8()),
    "empty": ("", pa.utf8()),
    "letter": ("a", pa.utf8()),
    "eight": ("12345678", pa.utf8()),
    "nine": ("123456789", pa.utf8()),
    "long": ("the quick brown fox jumps over the lazy dog", pa.utf8()),
    "emoji": ("é 漢字 😀", pa.utf8()),
    "false": (False, pa.bool_()),
    "true": (True, pa.bool_()),
    "no bool": (None, pa.bool_()),
    "zero": (Decimal(0), DECIMAL),
    "number": (Decimal("19.99"), DECIMAL),
    "negative": (Decimal("-99999999999999999999.999999999999999999"), DECIMAL),
    "no number": (None, DECIMAL),
    "day": (dt.date(1969, 12, 31), pa.date32()),
    "moment": (dt.datetime(2024, 2, 29, 23, 59, 59, 999000, dt.UTC), DATETIME),
    "time": (dt.time(23, 59, 59), TIME),
}
GOLDEN = {
    "null": "0d943d1f57f72417",
    "empty": "44810cba2364a555",
    "letter": "f65f31fbf49f27f5",
    "eight": "5b305faa3fb72c33",
    "nine": "9a0ded07280e2dab",
    "long": "971c390a1beb3e32",
    "emoji": "b268ec64a7651148",
    "false": "0774c03d3630e6f2",
    "true": "7fe75a0c907d26a4",
    "no bool": "0d943d1f57f72417",
    "zero": "4d2152791f0f5f21",
    "number": "99f4cc5778f2bce9",
    "negative": "8341a5a8ae0ea87d",
    "no number": "3db5cb94b2bed9a8",
    "day": "69e56116fd389ec8",
    "moment": "0226d2761f5fc8aa",
    "time": "70df4cae5627940f",
}


def one(name):
    value, kind = VALUES[name]
    return pa.array([value], kind)


def test_the_hashes_of_known_values_stay_what_they_are():
    assert rowhash.HASH_VERSION == 1
    assert {name: f"{int(hash_columns([one(name)])[0]):016x}" for name in VALUES} == GOLDEN


def test_the_hash_of_a_row_of_a_key_and_of_a_mapping_stay_what_they_are():
    row = [one(name) for name in VALUES]
    assert f"{int(hash_columns(row, seed=7)[0]):016x}" == "c6dc9a985e81653f"
    assert f"{int(key_hash(pa.array(['customer-1']))[0]):016x}" == "a491ebd73c498129"
    text, number = Field("A__c", "A", "string"), Field("N__c", "N", "currency")
    mapping = Mapping(
        ("id",),
        Column("ext", "Ext__c", text),
        (Column("a", "A__c", text), Column("n", "N__c", number, keep_nulls=True)),
        (Constant("S__c", text, pa.array(["dbt"])),),
    )
    assert f"{mapping.digest:016x}" == "f9e7b90b44a672fb"


def test_values_that_look_alike_hash_apart():
    hashes = {name: int(hash_columns([one(name)])[0]) for name in VALUES}
    texts = [hashes[name] for name in ("null", "empty", "letter", "eight", "nine")]
    assert len(set(texts)) == len(texts)
    pairs = [("ab", "c"), ("a", "bc"), ("abc", ""), ("", "abc"), ("abc", None), (None, "abc"), ("a\0", ""), ("a", "\0")]
    columns = [pa.array([pair[n] for pair in pairs]) for n in (0, 1)]
    assert len(set(hash_columns(columns).tolist())) == len(pairs)
    assert hash_columns([one("letter")], seed=1) != hash_columns([one("letter")], seed=2)


texts = st.lists(st.one_of(st.none(), st.text(max_size=40)), min_size=1, max_size=30)
numbers = st.lists(st.one_of(st.none(), st.integers(-(10**38) + 1, 10**38 - 1)), min_size=1, max_size=30)


EXACT = Context(prec=60)  # the default of 28 digits would round


def decimals(unscaled):
    return pa.array([None if n is None else Decimal(n).scaleb(-18, EXACT) for n in unscaled], DECIMAL)


@settings(max_examples=150, deadline=None)
@given(values=texts, start=st.integers(0, 29), length=st.integers(0, 30), before=st.text(max_size=9))
def test_a_slice_hashes_as_the_same_rows_of_their_own(values, start, length, before):
    array = pa.array([before, *values], pa.utf8()).slice(1)
    part = array.slice(start, length)
    own = pa.array(part.to_pylist(), pa.utf8())
    assert hash_columns([part]).tolist() == hash_columns([own]).tolist()
    assert hash_columns([part]).tolist() == [int(hash_columns([pa.array([v], pa.utf8())])[0]) for v in own.to_pylist()]


@pytest.mark.parametrize("name", [name for name in VALUES if VALUES[name][1] != pa.utf8()])
def test_every_type_hashes_alike_sliced_or_not_with_nulls_or_without(name):
    value, kind = VALUES[name]
    array = pa.array([None, value, None, value, value, value, None, value, value, None], kind)
    for start in range(10):
        for length in range(10 - start):
            own = pa.array(array.slice(start, length).to_pylist(), kind)
            assert hash_columns([array.slice(start, length)]).tolist() == hash_columns([own]).tolist()
    if value is not None:
        whole = pa.array([value] * 3, kind)
        assert set(hash_columns([whole]).tolist()) == {int(hash_columns([array])[1])}


@settings(max_examples=200, deadline=None)
@given(values=st.lists(st.text(max_size=30), min_size=2, max_size=30, unique=True))
def test_texts_that_differ_hash_apart(values):
    assert len(set(hash_columns([pa.array(values)]).tolist())) == len(values)


@settings(max_examples=100, deadline=None)
@given(values=numbers)
def test_numbers_hash_by_their_value(values):
    hashes = hash_columns([decimals(values)]).tolist()
    assert len(set(hashes)) == len(set(values))


def test_a_change_of_one_word_is_never_missed():
    """The fold is a bijection of each 64-bit word: no two of these differ in one word and agree."""
    random = np.random.default_rng(5)
    words = np.unique(np.concatenate([1 << np.arange(63), random.integers(-(2**62), 2**62, 200_000)]))
    moments = pa.array(words).cast(pa.timestamp("ms")).cast(DATETIME)
    assert len(np.unique(hash_columns([one("long").take(pa.array(np.zeros(len(words), np.int64))), moments]))) == len(
        words
    )


def test_no_rows_and_no_buffers_are_fine():
    for kind in (pa.utf8(), pa.bool_(), DECIMAL, pa.date32(), DATETIME, TIME):
        assert hash_columns([pa.array([], kind)]).tolist() == []
        assert len(set(hash_columns([pa.nulls(3, kind)]).tolist())) == 1
