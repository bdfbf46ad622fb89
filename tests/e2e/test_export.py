"""Undelivered rows as a file for a spreadsheet or another program."""

from __future__ import annotations

import csv
import stat
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dinmo_dbt.cli.export import COLUMNS, spreadsheet_safe, write

from .lab import PEOPLE, Lab, Org

pytestmark = pytest.mark.slow

NOTED = {**PEOPLE, "fields": {**PEOPLE["fields"], "note": "Note__c"}}


def rejecting(lab: Lab) -> None:
    lab.only("people", NOTED)
    lab.sql(
        "update people set person_id = '=cmd|calc', email = 'canary at nowhere' where person_id = 'P5'",
        "update people set person_id = chr(27) || ']0;title' || chr(7), email = 'wrong' where person_id = 'P6'",
    )
    assert lab.run("sync").code == 3


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_undelivered_rows_are_exported_whole_private_and_without_values(suffix: str, lab: Lab, org: Org) -> None:
    rejecting(lab)
    file = lab.root / f"rows{suffix}"
    ran = lab.run("rejected", "--limit", "1", "--export", str(file), "--json")
    assert (ran.code, ran.json["exported"]) == (0, str(file))
    if suffix == ".csv":
        with file.open(newline="") as opened:
            rows = list(csv.DictReader(opened))
    else:
        rows = pq.read_table(file).to_pylist()
    assert tuple(rows[0]) == COLUMNS
    by_code = {row["key"]: row for row in rows}
    assert len(by_code) == 2
    row = by_code["'=cmd|calc" if suffix == ".csv" else "=cmd|calc"]
    told = [row[name] for name in ("activation", "fate", "class", "code")]
    assert told == ["people_to_crm", "rejected", "data", "INVALID_EMAIL_ADDRESS"]
    assert row["run"] == ran.json["activations"][0]["run_id"]
    assert "canary" not in row["message"] and "‹value›" in row["message"]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert list(lab.root.glob(".rows*")) == []
    whole = lab.root / f"whole{suffix}"
    assert lab.run("rejected", "--show-values", "--export", str(whole)).code == 0
    assert b"canary at nowhere" in whole.read_bytes() or suffix == ".parquet"


def test_an_export_replaces_no_file_and_takes_only_known_formats(lab: Lab, org: Org) -> None:
    rejecting(lab)
    mine = lab.root / "mine.csv"
    mine.write_text("mine")
    for name in ("mine.csv", "rows.xlsx", "rows", "no/such/folder.csv"):
        ran = lab.run("rejected", "--export", str(lab.root / name))
        assert (ran.code, "DB812" in ran.err) == (2, True), ran.all
    assert mine.read_text() == "mine"


def test_a_terminal_obeys_nothing_of_a_printed_key(lab: Lab, org: Org) -> None:
    rejecting(lab)
    ran = lab.run("rejected")
    assert "]0;title" in ran.out
    assert "\x1b" not in ran.all and "\x07" not in ran.all


SIGNS = "=+-@＝＋－﹣−＠﹢﹦﹫"
PASSED_OVER = " \t\r\n\0\x0b\x0c\x1b\x85\u00a0\u200b\u2028\u2029\u3000\ufeff"


@given(st.lists(st.text(max_size=9) | st.text(alphabet=SIGNS + PASSED_OVER + "a'", max_size=9), min_size=1, max_size=9))
def test_no_cell_of_an_export_begins_like_a_formula(texts: list[str]) -> None:
    column = pa.array([text.encode(errors="ignore").decode() for text in texts], pa.utf8())
    safe = spreadsheet_safe(pa.table({"a": column}))["a"].to_pylist()
    for before, after in zip(column.to_pylist(), safe, strict=True):
        seen = after.lstrip(PASSED_OVER)
        assert not seen.startswith(tuple(SIGNS)) and not after.startswith(("\t", "\r", "\n"))
        assert after in (before, f"'{before}")


def test_a_parquet_file_holds_each_text_as_it_is(tmp_path: Path) -> None:
    rows = pa.table({name: pa.array(["=1", "\n＝1"], pa.utf8()) for name in COLUMNS})
    write(tmp_path / "rows.parquet", [rows])
    assert pq.read_table(tmp_path / "rows.parquet").to_pylist() == rows.to_pylist()
