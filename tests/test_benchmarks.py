"""The benchmarks run: small versions, for their answers and bounds, never for their times."""

import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


def run(script: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / script), *arguments], capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_sync_of_many_rows_sends_them_once_within_its_memory_and_calls():
    told = run("sync_million.py", "--rows", "20000")
    assert "first plan          20,000 to be sent" in told
    assert "first sync          20,000 sent" in told
    assert "nothing changed          0 sent" in told


@pytest.mark.slow
def test_change_detection_finds_what_was_planted():
    told = run("plan_ratio.py", "--rows", "40000", "--rounds", "1")
    assert "'rows': 40000, 'unchanged': 0, 'left': 0, 'added': 40000, 'changed': 0" in told
    assert "'rows': 40000, 'unchanged': 40000, 'left': 0, 'added': 0, 'changed': 0" in told
    assert "'changed': 0," in told.splitlines()[-1]
    assert "x scan" in told


@pytest.mark.slow
def test_csv_is_written_by_both_ways():
    told = run("csv_rate.py", "--rows", "5000", "--rounds", "1")
    assert len([line for line in told.splitlines() if "MB per CPU second" in line]) == 2


@pytest.mark.slow
def test_rows_whose_keys_moved_are_all_found():
    told = run("moved_keys.py", "--rows", "20000")
    assert " 2,000 rows, 2,000 found" in told and " 20,000 rows, 20,000 found" in told


@pytest.mark.slow
def test_small_commands_are_counted_beside_those_of_dbt():
    told = run("small_runs.py", "--runs", "1", "--models", "200").splitlines()
    assert [line for line in told if line.startswith("dbt run, one model") and line.rstrip().endswith("peak")]
    assert {"list", "plan", "sync", "status"} <= {line.split()[0] for line in told}


@pytest.mark.slow
def test_all_ways_find_the_same_changes():
    told = run("change_sets.py", "--rows", "20000", "--rounds", "1")
    assert "20,000 rows x 21 columns; " in told and "all found the same keys" in told
    assert len([line for line in told.splitlines() if line.startswith("| DuckDB, ")]) == 2
