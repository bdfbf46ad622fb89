"""Lines as a person reads them."""

from __future__ import annotations

import pyarrow as pa
import pytest
from memory_org import activation

from dinmo_dbt.cli import printed, render
from dinmo_dbt.delivery.run import Audited, Outcome, SyncRun
from dinmo_dbt.errors import Problem
from dinmo_dbt.plan.plan import LEFT_OUT, Counts
from dinmo_dbt.upkeep.rekey import Rekeying


@pytest.mark.parametrize("width", [70, 88, 110])
@pytest.mark.parametrize("text", ["1 of 4 OK short", "1 of 4 START sync " + "long_name_" * 12])
def test_a_dotted_line_fills_the_width_and_no_more(text: str, width: int) -> None:
    line = printed.dotted(text, "10 sent, 2 rejected in 0.10s", width)
    assert len(line) == width
    assert line.endswith("... [10 sent, 2 rejected in 0.10s]")


def test_a_long_line_is_wrapped_deeper_and_never_inside_a_word() -> None:
    fields = ", ".join(f"Field_Number_{number}__c" for number in range(12))
    lines = printed.wrapped(f"  upsert 3 rows by bulk: {fields}", 80)
    assert len(lines) > 2 and all(len(line) <= 80 for line in lines)
    assert all(line.startswith("    F") for line in lines[1:])
    assert " ".join(line.strip() for line in lines) == f"upsert 3 rows by bulk: {fields}"


def test_a_problem_says_where_what_and_what_to_do() -> None:
    problem = Problem("DB401", "no", "models/x.yml", "first\nsecond")
    assert printed.problem_lines(problem) == ["DB401  models/x.yml", "  no", "  -> first", "     second"]
    assert printed.problem_lines(Problem("DB401", "no")) == ["DB401", "  no"]


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


@pytest.mark.parametrize(
    ("changed", "deleted", "told"),
    [
        (0, 0, None),
        (1, 0, "1 was changed there since"),
        (2, 0, "2 were changed there since"),
        (0, 1, "1 was deleted there since"),
        (3, 2, "3 were changed there and 2 were deleted there since"),
    ],
)
def test_what_an_audit_found_is_reported_for_none_for_one_and_for_many(
    changed: int, deleted: int, told: str | None
) -> None:
    found = Audited(compared=30, drifted=changed + deleted, deleted=deleted)
    last = " the last delivery: dinmo-dbt verify"
    assert render.audit_lines(found) == ([f"of 30 rows compared with Salesforce, {told}{last}"] if told else [])


def test_what_an_audit_could_not_read_and_what_others_wrote_over_is_reported_for_one_and_for_many() -> None:
    one, many = (render.audit_lines(Audited(compared=n, rewritten=n, unread=n)) for n in (1, 2))
    assert "1 could not be: Salesforce did not give its record," in one[0]
    assert "2 could not be: Salesforce did not give their records," in many[0]
    assert "of 1 row compared with Salesforce, 1 just delivered holds other values" in one[1]
    assert "2 just delivered hold other values" in many[1]


@pytest.mark.parametrize("mode", ["insert", "upsert"])
@pytest.mark.parametrize("number", [0, 1, 2])
def test_paired_rows_are_reported_for_none_for_one_and_for_many(mode: str, number: int) -> None:
    pairs = pa.table({"old": [f"o{n}" for n in range(2 * number)], "new": [f"n{n}" for n in range(2 * number)]})
    found = Rekeying(None, 1, 9, 0, number, 0, number, 0, pairs, pairs)  # type: ignore[arg-type]
    told = [line for line in render.rekeying_lines(activation(mode), found, 0) if "of the paired" in line]
    inserting = mode == "insert"
    assert (
        told
        == {
            0: [],
            1: [
                "  of the paired, 1 is as it was acknowledged: nothing is sent of it",
                "  of the paired, 1 differs from what was acknowledged, or it can't be known: "
                + ("an insert takes it as it is" if inserting else "the next sync sends it"),
            ],
            2: [
                "  of the paired, 2 are as they were acknowledged: nothing is sent of them",
                "  of the paired, 2 differ from what was acknowledged, or it can't be known: "
                + ("an insert takes them as they are" if inserting else "the next sync sends them"),
            ],
        }[number]
    )
