"""Lines as a person reads them."""

from __future__ import annotations

import pyarrow as pa
import pytest

from dinmo_dbt import render
from dinmo_dbt.errors import Problem
from dinmo_dbt.plan import LEFT_OUT, Counts
from dinmo_dbt.sync import Outcome, SyncRun


@pytest.mark.parametrize("width", [70, 88, 110])
@pytest.mark.parametrize("text", ["1 of 4 OK short", "1 of 4 START sync " + "long_name_" * 12])
def test_a_dotted_line_fills_the_width_and_no_more(text: str, width: int) -> None:
    line = render.dotted(text, "10 sent, 2 rejected in 0.10s", width)
    assert len(line) == width
    assert line.endswith("... [10 sent, 2 rejected in 0.10s]")


def test_a_long_line_is_wrapped_deeper_and_never_inside_a_word() -> None:
    fields = ", ".join(f"Field_Number_{number}__c" for number in range(12))
    lines = render.wrapped(f"  upsert 3 rows by bulk: {fields}", 80)
    assert len(lines) > 2 and all(len(line) <= 80 for line in lines)
    assert all(line.startswith("    F") for line in lines[1:])
    assert " ".join(line.strip() for line in lines) == f"upsert 3 rows by bulk: {fields}"


def test_a_problem_says_where_what_and_what_to_do() -> None:
    problem = Problem("DB401", "no", "models/x.yml", "first\nsecond")
    assert render.problem_lines(problem) == ["DB401  models/x.yml", "  no", "  -> first", "     second"]
    assert render.problem_lines(Problem("DB401", "no")) == ["DB401", "  no"]


def left_out(*rows: tuple[str, str, str | None, str]) -> pa.Table:
    columns = {
        "key": [f"K{number}" for number in range(len(rows))],
        "fate": [row[0] for row in rows],
        "code": [row[1] for row in rows],
        "message": [row[3] for row in rows],
        "fields": [row[2] for row in rows],
        "record_id": [None] * len(rows),
        "shown": [row[3] for row in rows],
    }
    return pa.table({field.name: pa.array(columns[field.name], field.type) for field in LEFT_OUT}, schema=LEFT_OUT)


def test_rows_left_out_are_grouped_without_salesforces_words() -> None:
    rows = [("rejected", "DUPLICATE_VALUE", "Tax__c", f"twin of {number}") for number in range(3)]
    lines = render.left_out_lines(left_out(*rows, ("no_match", "NO_RECORD", None, "no record holds this")))
    assert lines == ["3 rejected (DUPLICATE_VALUE [Tax__c])", "1 no match (NO_RECORD): no record holds this"]


def test_many_reasons_end_with_where_to_read_on() -> None:
    rows = [("rejected", f"CODE_{number}", None, "") for number in range(8)]
    assert render.left_out_lines(left_out(*rows))[-1] == "and 3 other reasons: dinmo-dbt rejected"


def test_a_run_tells_only_what_happened() -> None:
    run = SyncRun(
        "r", 0.0, plan_counts=Counts(read=5, unchanged=2, planned=2, no_match=1), outcome=Outcome(succeeded=2)
    )
    assert render.run_status(run, 1.0) == "2 sent, 1 no match, 2 unchanged in 1.00s"
