"""No thread of a reader is alive when the process goes: each way through a read ends with exit code 0.

`ENDINGS=200` is for `make kill`: so many processes for each reader and way.
"""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dinmo_dbt.warehouse.postgres.csv import end_of_rows

from .conftest import Postgres, Project
from .ending import WAYS

TIMES = int(os.environ.get("ENDINGS", "1"))
TABLE = "create table t as select i as a, repeat('x', 400) as b from generate_series(1, 60000) r(i)"


@pytest.mark.slow
@pytest.mark.parametrize("reader", ["postgres", "duckdb", "dbapi"])
def test_a_process_that_read_ends_well_however_it_read(
    reader: str, project: Project, fill: Callable[..., None], request: pytest.FixtureRequest
) -> None:
    if reader == "duckdb":
        project.profiles({"dev": {"type": "duckdb", "path": str(project.folder / "warehouse.duckdb")}})
        fill(TABLE)
    else:
        server: Postgres = request.getfixturevalue("postgres")
        server.run("drop schema public cascade", "create schema public", TABLE)
        project.profiles({"dev": server.output()})
    script = [sys.executable, "-m", "warehouse.ending", str(project.folder), reader]
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(4 if TIMES > 1 else 0)]
    try:
        done = subprocess.run(
            [*script, str(TIMES)],
            cwd=Path(__file__).parent.parent,
            env={**os.environ, **project.env},
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        for each in busy:
            each.kill()
            each.wait()
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {way: {"0": TIMES} for way in WAYS}


FIELDS = st.text(alphabet='"\nx,é', max_size=6)


@given(st.lists(st.tuples(FIELDS, FIELDS), max_size=8), st.integers(0, 200))
def test_a_block_is_cut_after_its_last_whole_row(rows: list[tuple[str, str]], length: int) -> None:
    written = io.StringIO()
    ends = [0]
    for row in rows:
        csv.writer(written, quoting=csv.QUOTE_ALL, lineterminator="\n").writerow(row)
        ends.append(len(written.getvalue().encode()))
    filled = min(length, ends[-1])
    block = bytearray(written.getvalue().encode()) + bytearray(b'"\n' * 9)  # what an earlier block left there
    assert end_of_rows(block, filled) == max(end for end in ends if end <= filled)
