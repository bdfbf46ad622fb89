"""The tables of a state, and the statements in a transaction that every place of a state understands."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

FORMAT = 5

_ID = "org_id TEXT NOT NULL, target TEXT NOT NULL, name TEXT NOT NULL"
TABLES = {
    "meta": "key TEXT PRIMARY KEY, value TEXT NOT NULL",
    "activation": f"""
  {_ID}, model TEXT NOT NULL, object TEXT NOT NULL,
  serial BIGINT NOT NULL, epoch BIGINT NOT NULL, lease_owner TEXT, lease_until DOUBLE PRECISION,
  runs BIGINT NOT NULL, finished_runs BIGINT NOT NULL, identity TEXT NOT NULL, mappings TEXT NOT NULL,
  files TEXT NOT NULL, previous TEXT NOT NULL, born BIGINT NOT NULL DEFAULT 0,
  admitted BIGINT NOT NULL DEFAULT 0, seal TEXT NOT NULL DEFAULT '', PRIMARY KEY (org_id, target, name)""",
    "batch": f"""
  id TEXT PRIMARY KEY, {_ID}, run_id TEXT NOT NULL, epoch BIGINT NOT NULL,
  state TEXT NOT NULL, job_id TEXT, rows BIGINT NOT NULL, spool TEXT NOT NULL, sha256 TEXT NOT NULL,
  described TEXT NOT NULL""",
    "pending": f"""
  {_ID}, kh BIGINT NOT NULL, key TEXT NOT NULL, ck TEXT NOT NULL,
  class TEXT NOT NULL, code TEXT, message TEXT, fields TEXT,
  attempts BIGINT NOT NULL, next_run BIGINT NOT NULL, next_try DOUBLE PRECISION NOT NULL,
  described TEXT NOT NULL DEFAULT '', since DOUBLE PRECISION NOT NULL DEFAULT 0,
  given_up BIGINT NOT NULL DEFAULT 0, PRIMARY KEY (org_id, target, name, kh, key, ck)""",
    "watched": f"""
  {_ID}, kh BIGINT NOT NULL, ck TEXT NOT NULL, record_id TEXT,
  digests TEXT NOT NULL, seal TEXT NOT NULL, PRIMARY KEY (org_id, target, name, kh)""",
    "trace": "org_id TEXT NOT NULL, mark TEXT NOT NULL, noted DOUBLE PRECISION NOT NULL, PRIMARY KEY (org_id, mark)",
    "daily": f"""
  id TEXT PRIMARY KEY, {_ID},
  moment DOUBLE PRECISION NOT NULL, created BIGINT NOT NULL, changed TEXT NOT NULL, removed BIGINT NOT NULL,
  respelled BIGINT NOT NULL, gone TEXT NOT NULL""",
}
# What is known of past runs. Apart, where that can be: it grows with the runs and not with the rows, and only the
# journal is looked through before each run.
HISTORY = {
    "run": f"""
  id TEXT PRIMARY KEY, {_ID}, started DOUBLE PRECISION NOT NULL,
  finished DOUBLE PRECISION, status TEXT NOT NULL, detail TEXT NOT NULL, not_delivered TEXT,
  number BIGINT NOT NULL""",
    "activity": """
  target TEXT NOT NULL, name TEXT NOT NULL, since DOUBLE PRECISION NOT NULL, ran BIGINT NOT NULL,
  invocations TEXT NOT NULL, paused DOUBLE PRECISION, by_itself BIGINT NOT NULL, reason TEXT NOT NULL,
  owed TEXT, owed_at DOUBLE PRECISION, PRIMARY KEY (target, name)""",
    "standing": """
  target TEXT NOT NULL, name TEXT NOT NULL, kind TEXT NOT NULL, since DOUBLE PRECISION NOT NULL, run_id TEXT NOT NULL,
  critical BIGINT NOT NULL, said TEXT NOT NULL, incident TEXT NOT NULL, PRIMARY KEY (target, name, kind)""",
    "notice": """
  id TEXT PRIMARY KEY, target TEXT NOT NULL, made DOUBLE PRECISION NOT NULL, severity TEXT NOT NULL,
  critical BIGINT NOT NULL, title TEXT NOT NULL, body TEXT NOT NULL, sent TEXT NOT NULL,
  tried BIGINT NOT NULL, name TEXT NOT NULL, cause TEXT NOT NULL, incident TEXT NOT NULL, stands TEXT NOT NULL""",
}
# Statements, for a database that looks for a row in all of them unless it knows better.
HISTORY_INDEXES = (
    "CREATE INDEX run_of ON run (target, name, number)",
    "CREATE INDEX run_at ON run (started)",
    "CREATE INDEX run_number ON run (number)",
)


class Rows(Protocol):
    """What a statement answers: rows by column name, or how many it changed."""

    @property
    def rowcount(self) -> int: ...
    def fetchone(self) -> Any: ...
    def fetchall(self) -> list[Any]: ...


class Connection(Protocol):
    """Statements in one transaction, with `?` for parameters, in the SQL that SQLite, DuckDB and Postgres share."""

    def execute(self, statement: str, parameters: Sequence[Any] = (), /) -> Rows: ...
    def executemany(self, statement: str, parameters: Iterable[Sequence[Any]], /) -> Any: ...
