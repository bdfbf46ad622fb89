"""Times as people and as programs read them."""

from __future__ import annotations

from datetime import datetime

from hypothesis import given
from hypothesis import strategies as st

from dinmo_dbt.text import moments


@given(st.floats(0, 2.5e11))
def test_a_time_is_written_in_one_form_and_read_back(seconds: float) -> None:
    told = moments.iso(seconds)
    assert len(told) == len("2026-03-09T08:00:00.000Z") and told.endswith("Z")
    assert 0 <= seconds - datetime.fromisoformat(told).timestamp() < 0.002
    assert moments.said(told) == moments.moment(seconds)
    assert moments.moment(seconds).startswith(moments.minute(seconds).removesuffix(" UTC"))


@given(st.floats(allow_nan=False))
def test_any_number_of_a_damaged_state_has_a_time(seconds: float) -> None:
    assert moments.iso(seconds) and moments.moment(seconds)
