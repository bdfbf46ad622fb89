"""Sets of numbers: what Python's own sets say, in order."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dinmo_dbt.rows.sets import among, distinct, union, without

TYPES = [np.uint8, np.int16, np.int32, np.int64, np.uint64]
NUMBERS = st.lists(st.one_of(st.integers(0, 5), st.integers(0, 127)), max_size=40)
FAR = [0, 1, 2**63 - 1, 2**63, 2**64 - 1]


@pytest.mark.parametrize("kind", TYPES)
@given(NUMBERS, NUMBERS)
def test_they_are_what_python_s_sets_are(kind: type, some: list[int], others: list[int]) -> None:
    one, other = np.array(some, kind), np.array(others, kind)
    assert distinct(one).tolist() == sorted(set(some))
    assert union(one, other).tolist() == sorted({*some, *others})
    assert without(one, other).tolist() == sorted(set(some) - set(others))
    assert among(one, other).tolist() == [value in others for value in some]
    assert distinct(one).dtype == union(one, other).dtype == without(one, other).dtype == kind


@given(st.lists(st.sampled_from(FAR), max_size=12), st.lists(st.sampled_from(FAR), max_size=12))
def test_hashes_use_all_their_bits(some: list[int], others: list[int]) -> None:
    one, other = np.array(some, np.uint64), np.array(others, np.uint64)
    assert without(one, other).tolist() == sorted(set(some) - set(others))
    assert among(one, other).tolist() == [value in others for value in some]


def test_what_was_given_stays_as_it_is() -> None:
    given = np.array([3, 1, 3])
    assert distinct(given).tolist() == [1, 3]
    assert given.tolist() == [3, 1, 3]


def test_rows_of_bytes_are_values_too() -> None:
    rows = np.array([[1, 2], [1, 2], [0, 9]], np.uint64).view("V16").ravel()
    assert len(distinct(rows)) == 2
