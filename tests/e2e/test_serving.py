"""`serve` as a user runs it: real processes, real HTTP, real artifacts."""

from __future__ import annotations

import sqlite3

import pytest

from .lab import PEOPLE, Lab, Org
from .test_scheduling import rebuilt


@pytest.mark.parametrize("command", [("sync",), ("sync", "--due"), ("pause", "--reason", "x")])
def test_a_commit_cut_off_in_sqlite_itself_is_mended_by_the_next_command_that_writes(
    lab: Lab, org: Org, command: tuple[str, ...]
) -> None:
    lab.only("people", PEOPLE)
    assert lab.run("sync").code == 0
    path, rest = lab.root / ".dinmo/state.db", lab.root / ".dinmo/state.db-journal"
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA cache_size = 1")
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("CREATE TABLE filler (x)")
    connection.executemany("INSERT INTO filler VALUES (?)", [("x" * 3000,) for _ in range(200)])
    half, journal = path.read_bytes(), rest.read_bytes()
    connection.execute("ROLLBACK")
    connection.close()
    path.write_bytes(half)
    rest.write_bytes(journal)
    rebuilt(lab)
    ran = lab.run(*command)
    assert ran.code == 0, ran.all
