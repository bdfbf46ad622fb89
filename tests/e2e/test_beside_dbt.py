"""dbt and dinmo-dbt at one DuckDB file, which one process has at a time when it writes: each waits for the other."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dinmo_dbt.warehouse import duckdb as engine
from dinmo_dbt.warehouse.duckdb import DuckDB

from .lab import DINMO, PEOPLE, Lab, Org

pytestmark = pytest.mark.slow

WRITES = "import duckdb, sys; duckdb.connect(sys.argv[1]).execute('create or replace table written as select 1')"


def can_write(database: Path) -> bool:
    """Whether another process can open it for writing, as dbt would."""
    done = subprocess.run([sys.executable, "-c", WRITES, str(database)], capture_output=True, text=True, check=False)
    assert done.returncode == 0 or "Could not set lock" in done.stderr, done.stderr
    return done.returncode == 0


class Asked(list[Any]):
    """The org's calls; at each that sends rows the file is tried."""

    def __init__(self, lab: Lab) -> None:
        super().__init__()
        self.lab = lab
        self.free: list[bool] = []

    def append(self, call: Any) -> None:
        super().append(call)
        method, path, body = call
        if method in ("POST", "PATCH", "PUT") and body and "oauth" not in path:
            self.free.append(can_write(self.lab.root / "lab.duckdb"))


@pytest.mark.parametrize("api", ["bulk", "collections"])
@pytest.mark.parametrize("state", ["", "state: {warehouse: {schema: kept}}\n"])
def test_the_file_is_free_while_rows_are_sent(api: str, state: str, lab: Lab, org: Org) -> None:
    """Also where the state is kept in it: a job that is stuck for hours keeps no dbt out."""
    (lab.root / "dinmo.yml").write_text(DINMO + state)
    lab.only("people", {**PEOPLE, "api": api})
    asked = lab.requests = Asked(lab)
    ran = lab.run("sync")
    assert ran.code == 0, ran.all
    assert asked.free and all(asked.free)


HOLDS = "import duckdb, sys; held = duckdb.connect(sys.argv[1]); print('held', flush=True); input(); held.close()"


@pytest.mark.parametrize("ends", [True, False])
def test_a_dbt_that_begins_before_the_rows_are_read_is_waited_for(
    ends: bool, lab: Lab, org: Org, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes the file when the columns are known and the rows are not yet read; it ends, or outlasts our wait."""
    lab.only("people", PEOPLE)
    batches, open_again = DuckDB.batches, DuckDB._open
    command = [sys.executable, "-c", HOLDS, str(lab.root / "lab.duckdb")]
    holders: list[subprocess.Popen[str]] = []

    def meanwhile(self: Any, *arguments: Any) -> Any:
        if not holders:
            holders.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
            assert holders[0].stdout is not None and holders[0].stdout.readline() == "held\n"
        return batches(self, *arguments)

    def opening(self: Any, credentials: Any) -> Any:
        if holders and ends:
            holders[0].communicate("\n")
        return open_again(self, credentials)

    monkeypatch.setattr(DuckDB, "batches", meanwhile)
    monkeypatch.setattr(DuckDB, "_open", opening)
    monkeypatch.setattr(engine, "LOCK_WAIT_S", 0.3)
    ran = lab.run("sync")
    if not ends:
        assert ran.code == 1 and "DB708" in ran.all and f"process {holders[0].pid}" in ran.all, ran.all
        holders[0].communicate("\n")
        run = json.loads(lab.run("history", "--json").out)["runs"][0]
        assert run["status"] == "interrupted", "it is not what failed, and what it was asked for is still due"
        ran = lab.run("sync")
    assert ran.code == 0, ran.all
    assert org.count("Person__c") == 30
