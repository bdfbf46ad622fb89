"""Numbers in Bulk's CSV: a whole column printed at once is what Java prints of each."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dinmo_dbt.emulator.soql.java import java_double, java_doubles

EDGES = [0.0, -0.0, 1e-3, 9.999999999999999e-4, 1e7, 9999999.999999998, -12.5, 5e-324, 1.7976931348623157e308]
numbers = st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from(EDGES) | st.integers(-(10**9), 10**9).map(
    lambda cents: cents / 100
)  # fmt: skip


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (250.0, "250.0"), (-0.0, "-0.0"), (0.001, "0.001"), (0.0001, "1.0E-4"), (1e7, "1.0E7"),
        (9999999.25, "9999999.25"), (912260031.0, "9.12260031E8"), (1.5e300, "1.5E300"),
    ],
)  # fmt: skip
def test_a_number_is_printed_as_java_prints_it(number: float, text: str) -> None:
    assert java_double(number) == text


@given(st.lists(st.none() | numbers, max_size=50))
def test_a_column_is_printed_as_its_numbers_are(column: list[float | None]) -> None:
    assert java_doubles(pa.array(column, pa.float64())).to_pylist() == [
        None if number is None else java_double(number) for number in column
    ]
