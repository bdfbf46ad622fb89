"""The history: every run, from its start to its end, and the rows it did not deliver.

A run's end, what it means for the activation's schedule, and the notices to users are one commit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from dinmo_dbt.state.activity import (
    keep_notices,
    keep_standing,
    note_end,
    others_of,
    parsed,
    pause,
    rename,
    standing_of,
)
from dinmo_dbt.state.expendable import expendable
from dinmo_dbt.state.state_id import OWN, StateId
from dinmo_dbt.state.storage import KEPT_S, Storage
from dinmo_dbt.state.tables import Connection
from dinmo_dbt.watch.history import DONE, RunRecord, read
from dinmo_dbt.watch.notice import Notice
from dinmo_dbt.watch.standing import OpenWarning

if TYPE_CHECKING:
    import pyarrow as pa

KEPT_MIN, KEPT_MAX = 50, 10_000  # of an activation, whatever their age
EARLIER_MAX = 100  # runs by which the next is judged


@dataclass(frozen=True, slots=True)
class Judged:
    """What a run that ended changes beside the history: the warnings that stand then, what is to be sent, and why the
    activation is paused ('': it is not)."""

    standing: tuple[OpenWarning, ...] = ()
    notices: tuple[Notice, ...] = ()
    pause: str = ""


Judge = Callable[[RunRecord, Sequence[RunRecord], Sequence[OpenWarning], Sequence[OpenWarning]], Judged]
"""A run that ended, the ended ones before it (newest first), the warnings that stand for its activation and those that
stand for others: what becomes of it. Pure."""


class Runs:
    """The history of one state location."""

    def __init__(self, store: Storage, kept_s: float = KEPT_S) -> None:
        self._store = store
        self._kept_s = kept_s

    @expendable
    def latest(self, names: Sequence[str] | None = None, limit: int = 20) -> list[RunRecord]:
        """Of the store's target, newest first."""
        if not self._store.exists(history=True):
            return []
        with self._store.connection(writing=False, history=True) as connection:
            chosen = "" if names is None else f"AND name IN ({','.join('?' * len(names))})"
            rows = connection.execute(
                f"SELECT * FROM run WHERE target = ? {chosen} ORDER BY number DESC, id DESC LIMIT ?",
                (self._store.target, *(names or ()), limit),
            ).fetchall()
            return parsed(self._store, read, rows)

    @expendable
    def between(self, target: str, start: float, end: float) -> list[RunRecord]:
        """Runs of that dbt target that started in that time, oldest first."""
        if not self._store.exists(history=True):
            return []
        with self._store.connection(writing=False, history=True) as connection:
            rows = connection.execute(
                "SELECT * FROM run WHERE target = ? AND started >= ? AND started < ? ORDER BY number, id",
                (target, start, end),
            ).fetchall()
            return parsed(self._store, read, rows)

    @expendable
    def of(self, run_id: str) -> RunRecord | None:
        if not run_id.isascii() or not self._store.exists(history=True):  # no other id is ever given
            return None
        with self._store.connection(writing=False, history=True) as connection:
            rows = connection.execute("SELECT * FROM run WHERE id = ?", (run_id,)).fetchall()
            return next(iter(parsed(self._store, read, rows)), None)

    @expendable
    def clear_up(self, own: StateId) -> None:
        """For a writer of the activation: an earlier run of it that has no end was cut off, and goes by that name; what
        it had begun to list goes."""
        if not self._store.exists(history=True):
            return
        half_written = {each: each[1:].partition(".")[0] for each in self._store.files.names("runs") if each[0] == "."}
        with self._store.connection(writing=True, history=True) as connection:
            connection.execute(f"UPDATE run SET status = 'interrupted' WHERE {OWN} AND status = 'running'", own)
            # Of every run before this one: a power cut can bring a file back that was removed.
            known = f"SELECT id FROM run WHERE {OWN} AND id = ?"
            gone = [file for file, run in half_written.items() if connection.execute(known, (*own, run)).fetchall()]
        self._store.files.remove("runs", gone)

    @expendable
    def move(self, old: StateId, new: StateId) -> None:
        """Give a renamed activation's runs in that org its new name, or target, and its pause, schedule's past and
        warnings."""
        with self._store.connection(writing=True, history=True) as connection:
            connection.execute(f"UPDATE run SET target = ?, name = ? WHERE {OWN}", (new.target, new.name, *old))
            rename(connection, old[1:], new[1:])

    @expendable
    def start(self, record: RunRecord) -> None:
        """Note a run before it acts."""
        with self._store.connection(writing=True, history=True) as connection:
            _insert(connection, record)

    @expendable
    def finish(
        self, record: RunRecord, not_delivered: pa.Table, judge: Judge | None = None, *, by_age: bool = True
    ) -> tuple[Notice, ...]:
        """The end of a run, started or not, with the rows it did not deliver (`LEFT_OUT`) in a file of their own; what
        users are to know. Runs that are too many go and, with `by_age`, those that are older than is kept: whether
        the clock can be trusted with that is for the caller to know."""
        file, since = None, None
        held = 0
        if len(not_delivered):
            from dinmo_dbt.state import undelivered

            files, file = self._store.files, f"{record.run_id}.parquet"
            rows = undelivered.with_since(files, not_delivered, record.started, self._before(record))
            held, since = undelivered.keep(files, file, rows)
        record = replace(record, waiting_rows=held, waiting_since=since)
        with self._store.connection(writing=True, history=True) as connection:
            known = connection.execute("SELECT id FROM run WHERE id = ?", (record.run_id,)).fetchone()
            if known is None:
                _insert(connection, record)
            connection.execute(
                "UPDATE run SET finished = ?, status = ?, detail = ?, not_delivered = ? WHERE id = ?",
                (record.finished, record.status, record.as_text(), file, record.run_id),
            )
            notices = self._judge(connection, record, judge)
            gone = self._outdated(connection, record, by_age=by_age)
            connection.executemany("DELETE FROM run WHERE id = ?", [(run_id,) for run_id in gone])
        self._store.files.remove("runs", [f"{run_id}.parquet" for run_id in gone])
        return notices

    def _judge(self, connection: Connection, record: RunRecord, judge: Judge | None) -> tuple[Notice, ...]:
        if record.ended and record.trigger.kind != "revert":
            note_end(connection, record)
        if judge is None:
            return ()
        own = (record.target, record.activation)
        rows = connection.execute(
            "SELECT * FROM run WHERE target = ? AND name = ? AND finished IS NOT NULL AND id <> ? "
            "ORDER BY number DESC, id DESC LIMIT ?",
            (*own, record.run_id, EARLIER_MAX),
        ).fetchall()
        if not any(row["status"] in DONE for row in rows):  # whether it ever worked is asked for after any time
            done = ",".join("?" * len(DONE))
            rows += connection.execute(
                f"SELECT * FROM run WHERE target = ? AND name = ? AND id <> ? AND status IN ({done}) "
                "ORDER BY number DESC, id DESC LIMIT 1",
                (*own, record.run_id, *DONE),
            ).fetchall()
        earlier = [run for run in parsed(self._store, read, rows) if run.ended and run.trigger.kind != "revert"]
        judged = judge(record, earlier, standing_of(connection, *own), others_of(connection, *own))
        keep_standing(connection, *own, judged.standing)
        keep_notices(connection, record.target, judged.notices, self._store.clock.now())
        if judged.pause:
            pause(connection, *own, at=self._store.clock.now(), reason=judged.pause, by_itself=True)
        return judged.notices

    def _outdated(self, connection: Connection, record: RunRecord, *, by_age: bool) -> list[str]:
        """Runs of its activation and target that are too many or, with `by_age`, older than is kept."""
        own = (record.target, record.activation)

        def latest(runs: int) -> int:
            """The number of the earliest of so many; 0 if there are fewer."""
            row = connection.execute(
                "SELECT number FROM run WHERE target = ? AND name = ? ORDER BY number DESC LIMIT 1 OFFSET ?",
                (*own, runs - 1),
            ).fetchone()
            return row["number"] if row else 0

        old = self._store.clock.now() - self._kept_s if by_age else 0.0
        rows = connection.execute(
            "SELECT id FROM run WHERE target = ? AND name = ? AND (number < ? OR (number < ? AND started < ?))",
            (*own, latest(KEPT_MAX), latest(KEPT_MIN), old),
        ).fetchall()
        return [row["id"] for row in rows]

    # Rows that were not delivered

    def not_delivered(self, record: RunRecord) -> pa.Table:
        """The rows a run did not deliver: `LEFT_OUT` columns; empty if there are none."""
        from dinmo_dbt.state import undelivered

        return undelivered.read(self._store.files, record).drop_columns(["since"])

    def _before(self, record: RunRecord) -> RunRecord | None:
        """The activation's run before this one."""
        if not self._store.exists(history=True):
            return None
        with self._store.connection(writing=False, history=True) as connection:
            rows = connection.execute(
                f"SELECT * FROM run WHERE {OWN} AND id <> ? AND finished IS NOT NULL "
                "ORDER BY number DESC, id DESC LIMIT 1",
                (record.org_id, record.target, record.activation, record.run_id),
            ).fetchall()
            return next(iter(parsed(self._store, read, rows)), None)


def _insert(connection: Connection, record: RunRecord) -> None:
    """With the next number: runs are in that order, whatever the clock said when they started."""
    number = connection.execute("SELECT coalesce(max(number), 0) + 1 AS n FROM run").fetchone()["n"]
    connection.execute(
        "INSERT INTO run (id, org_id, name, started, finished, status, detail, not_delivered, target, number) "
        "VALUES (?, ?, ?, ?, NULL, 'running', ?, NULL, ?, ?)",
        (record.run_id, record.org_id, record.activation, record.started, record.as_text(), record.target, number),
    )
