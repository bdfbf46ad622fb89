"""Per activation and dbt target: when it last ran or was looked at, whether it is paused, the warnings that stand, and
the notices that are still to be sent.

Functions over a connection of the state, each within the caller's transaction; `Activity` opens its own.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from dinmo_dbt.activation import WarningKind
from dinmo_dbt.state.damage import history_damaged
from dinmo_dbt.state.expendable import expendable
from dinmo_dbt.state.storage import Storage
from dinmo_dbt.state.tables import Connection
from dinmo_dbt.watch.history import RunRecord, number, read, text
from dinmo_dbt.watch.notice import Notice, Severity
from dinmo_dbt.watch.schedule import Past
from dinmo_dbt.watch.standing import OpenWarning

Made = TypeVar("Made")

INVOCATIONS_KEPT = 20
AHEAD_S = 300.0  # clocks are put right by less than this every day
_DIGEST = " digest"  # no activation can have that name


@dataclass(frozen=True, slots=True)
class Pause:
    """An activation that is paused: since when, why, and whether by itself or by hand."""

    at: float
    reason: str
    by_itself: bool


@dataclass(frozen=True, slots=True)
class Unsent:
    """A notice, when it was made, and the places that took it already; `tried`: some place did not take it."""

    notice: Notice
    made: float
    sent: frozenset[str]
    tried: bool = False


class Activity:
    """What is known of a dbt target's activations besides what they acknowledged."""

    def __init__(self, store: Storage, target: str) -> None:
        self._store, self.target = store, target

    @expendable
    def pasts(self, names: Iterable[str]) -> dict[str, Past]:
        """Of each activation what its schedule needs. One that was never seen starts now, once `see` has noted it."""
        now, found = self._store.clock.now(), dict(self._read("activity", lambda row: (row["name"], _past(row))))
        return {name: found.get(name, Past(now)) for name in names}

    @expendable
    def see(self, names: Iterable[str]) -> None:
        """Note activations that are seen for the first time: a cron line counts from here on."""
        known = set(self._read("activity", lambda row: row["name"]))
        new = [name for name in names if name not in known]
        if new:
            with self._store.connection(writing=True, history=True) as connection:
                for name in new:
                    _seen(connection, self.target, name, self._store.clock.now())

    @expendable
    def put_back(self) -> float:
        """Moments that are still to come were noted by a clock that ran ahead: each counts as now, or its activation
        would be due only after it. By how many seconds the latest was ahead; 0 for none worth a word."""
        now = self._store.clock.now()
        sinces = self._read("activity", lambda row: max(row["since"], row["owed_at"] or 0.0))
        ahead = max(sinces, default=0.0) - now
        if ahead <= AHEAD_S:
            return 0.0
        with self._store.connection(writing=True, history=True) as connection:
            for table, column in (("activity", "since"), ("activity", "owed_at"), ("standing", "since")):
                connection.execute(
                    f"UPDATE {table} SET {column} = ? WHERE target = ? AND {column} > ?", (now, self.target, now)
                )
        return float(ahead)

    @expendable
    def owe(self, built_by: Mapping[str, str]) -> None:
        """Note for each activation the dbt command that built its model, and that no run has followed."""
        if built_by:
            with self._store.connection(writing=True, history=True) as connection:
                connection.executemany(
                    "UPDATE activity SET owed = ?, owed_at = ? WHERE target = ? AND name = ?",
                    [(built, self._store.clock.now(), self.target, name) for name, built in built_by.items()],
                )

    @expendable
    def pauses(self) -> dict[str, Pause]:
        return {name: pause for name, pause in self._read("activity", lambda row: (row["name"], _pause(row))) if pause}

    @expendable
    def pause(self, name: str, reason: str, notices: Sequence[Notice] = ()) -> None:
        """By hand."""
        with self._store.connection(writing=True, history=True) as connection:
            now = self._store.clock.now()
            pause(connection, self.target, name, at=now, reason=reason, by_itself=False)
            keep_notices(connection, self.target, notices, now)

    @expendable
    def resume(self, name: str, notices: Sequence[Notice] = ()) -> None:
        """What was due meanwhile is not made up for, but what dbt built meanwhile is due."""
        with self._store.connection(writing=True, history=True) as connection:
            now = self._store.clock.now()
            connection.execute(
                "UPDATE activity SET paused = NULL, reason = '', by_itself = 0, since = ? "
                "WHERE target = ? AND name = ?",
                (now, self.target, name),
            )
            keep_notices(connection, self.target, notices, now)

    @expendable
    def resume_by_itself(self, name: str, notices: Sequence[Notice] = ()) -> None:
        """It is about to run: what it is due for stays due until that run has ended. Of two processes one resumes."""
        with self._store.connection(writing=True, history=True) as connection:
            resumed = connection.execute(
                "UPDATE activity SET paused = NULL, reason = '', by_itself = 0 "
                "WHERE target = ? AND name = ? AND paused IS NOT NULL AND by_itself = 1",
                (self.target, name),
            ).rowcount
            if resumed:
                keep_notices(connection, self.target, notices, self._store.clock.now())

    @expendable
    def looked(self, name: str) -> None:
        """A paused activation was due, was looked at, and stays paused."""
        with self._store.connection(writing=True, history=True) as connection:
            now = self._store.clock.now()
            _seen(connection, self.target, name, now)
            connection.execute("UPDATE activity SET since = ? WHERE target = ? AND name = ?", (now, self.target, name))

    @expendable
    def standing(self) -> list[OpenWarning]:
        return self._read("standing", _standing)

    @expendable
    def begin_standing(self, standing: OpenWarning, notice: Notice) -> None:
        """What concerns no single activation stands from now on; nothing if it stood before."""
        with self._store.connection(writing=True, history=True) as connection:
            if not standing_of(connection, self.target, standing.activation):
                keep_standing(connection, self.target, standing.activation, [standing])
                keep_notices(connection, self.target, [notice], self._store.clock.now())

    @expendable
    def end_standing(self, standing: OpenWarning, notice: Notice) -> None:
        with self._store.connection(writing=True, history=True) as connection:
            keep_standing(connection, self.target, standing.activation, [])
            keep_notices(connection, self.target, [notice], self._store.clock.now())

    @expendable
    def last_digest(self) -> float | None:
        """Of what time the last digest was; None before there was one."""
        return dict(self._read("activity", lambda row: (row["name"], row["since"]))).get(_DIGEST)

    @expendable
    def note_digest(self, moment: float, notices: Sequence[Notice]) -> None:
        """Of two processes that make one, one has it sent."""
        with self._store.connection(writing=True, history=True) as connection:
            _seen(connection, self.target, _DIGEST, 0.0)
            noted = connection.execute(
                "UPDATE activity SET since = ? WHERE target = ? AND name = ? AND since < ?",
                (moment, self.target, _DIGEST, moment),
            ).rowcount
            if noted:
                keep_notices(connection, self.target, notices, self._store.clock.now())

    @expendable
    def unsent(self) -> list[Unsent]:
        """Notices of this target that some place has not taken yet, oldest first."""
        found = self._read("notice", _unsent)
        return sorted(found, key=lambda each: (each.made, each.notice.id))

    @expendable
    def add(self, notices: Sequence[Notice]) -> None:
        if notices:
            with self._store.connection(writing=True, history=True) as connection:
                keep_notices(connection, self.target, notices, self._store.clock.now())

    @expendable
    def sent(self, notice_ids: Iterable[str], place: str) -> None:
        """One place has taken the notices."""
        with self._store.connection(writing=True, history=True) as connection:
            for notice_id in notice_ids:
                row = connection.execute("SELECT sent FROM notice WHERE id = ?", (notice_id,)).fetchone()
                if row is not None:
                    sent = sorted({*json.loads(row["sent"]), place})
                    connection.execute("UPDATE notice SET sent = ? WHERE id = ?", (json.dumps(sent), notice_id))

    @expendable
    def tried(self, notice_ids: Iterable[str]) -> None:
        """Some place has not taken these."""
        if chosen := [(each,) for each in sorted(notice_ids)]:
            with self._store.connection(writing=True, history=True) as connection:
                connection.executemany("UPDATE notice SET tried = 1 WHERE id = ?", chosen)

    @expendable
    def forget(self, notice_ids: Sequence[str]) -> None:
        """Every place has taken them, or they are not worth sending any more."""
        if notice_ids:
            with self._store.connection(writing=True, history=True) as connection:
                connection.executemany("DELETE FROM notice WHERE id = ?", [(each,) for each in notice_ids])

    def _read(self, table: str, make: Callable[[Any], Made]) -> list[Made]:
        if not self._store.exists(history=True):
            return []
        with self._store.connection(writing=False, history=True) as connection:
            rows = connection.execute(f"SELECT * FROM {table} WHERE target = ?", (self.target,)).fetchall()
            return parsed(self._store, make, rows)


def parsed(store: Storage, make: Callable[[Any], Made], rows: Iterable[Any]) -> list[Made]:
    """Rows of the history as values; HistoryDamaged for one that none of our versions wrote."""
    try:
        return [make(row) for row in rows]
    except (ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
        raise history_damaged(store.history_place) from error


def note_end(connection: Connection, record: RunRecord) -> None:
    """A run that ended has done what was due before it started, and what its dbt command asked for."""
    own = (record.target, record.activation)
    _seen(connection, *own, record.started)
    row = connection.execute("SELECT * FROM activity WHERE target = ? AND name = ?", own).fetchone()
    known, asked_by = json.loads(row["invocations"]), record.trigger.invocation
    if asked_by and asked_by not in known:
        known = [*known, asked_by][-INVOCATIONS_KEPT:]
    owes = row["owed"] if row["owed"] not in known and (row["owed_at"] or 0.0) > record.started else None
    connection.execute(
        "UPDATE activity SET since = ?, ran = 1, invocations = ?, owed = ? WHERE target = ? AND name = ?",
        (max(row["since"], record.started), json.dumps(known), owes, *own),
    )


def pause(connection: Connection, target: str, name: str, *, at: float, reason: str, by_itself: bool) -> None:
    _seen(connection, target, name, at)
    connection.execute(
        "UPDATE activity SET paused = ?, reason = ?, by_itself = ? WHERE target = ? AND name = ?",
        (at, reason, int(by_itself), target, name),
    )


def rename(connection: Connection, old: tuple[str, str], new: tuple[str, str]) -> None:
    """What is known under the old target and name takes the place of what was noted under the new ones since."""
    if connection.execute("SELECT 1 AS found FROM activity WHERE target = ? AND name = ?", old).fetchone():
        for table in ("activity", "standing"):
            connection.execute(f"DELETE FROM {table} WHERE target = ? AND name = ?", new)
    for table in ("standing", "activity", "notice"):
        connection.execute(f"UPDATE {table} SET target = ?, name = ? WHERE target = ? AND name = ?", (*new, *old))


def standing_of(connection: Connection, target: str, name: str) -> list[OpenWarning]:
    rows = connection.execute(
        "SELECT * FROM standing WHERE target = ? AND name = ? ORDER BY kind", (target, name)
    ).fetchall()
    return [_standing(row) for row in rows]


def others_of(connection: Connection, target: str, name: str) -> list[OpenWarning]:
    """What stands for other activations than that one."""
    rows = connection.execute(
        "SELECT * FROM standing WHERE target = ? AND name <> ? ORDER BY name, kind", (target, name)
    ).fetchall()
    return [_standing(row) for row in rows]


def keep_standing(connection: Connection, target: str, name: str, standing: Sequence[OpenWarning]) -> None:
    connection.execute("DELETE FROM standing WHERE target = ? AND name = ?", (target, name))
    connection.executemany(
        "INSERT INTO standing VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        [(target, name, s.kind.value, s.since, s.run_id, int(s.critical), s.said, s.incident) for s in standing],
    )


def keep_notices(connection: Connection, target: str, notices: Sequence[Notice], now: float) -> None:
    connection.executemany(
        "INSERT INTO notice VALUES (?, ?, ?, ?, ?, ?, ?, '[]', 0, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING",
        [(n.id, target, now, n.severity.value, int(n.ends_critical), n.title, n.body, *_about(n)) for n in notices],
    )


def _about(notice: Notice) -> tuple[str, ...]:
    return notice.activation, notice.cause, notice.incident, notice.stands or ""


def _seen(connection: Connection, target: str, name: str, now: float) -> None:
    connection.execute(
        "INSERT INTO activity VALUES (?, ?, ?, 0, '[]', NULL, 0, '', NULL, NULL) ON CONFLICT (target, name) DO NOTHING",
        (target, name, now),
    )


def _pause(row: Any) -> Pause | None:
    if row["paused"] is None:
        return None
    return Pause(number(row["paused"]), text(row["reason"]), bool(row["by_itself"]))


def checked(row: Any) -> None:
    """ValueError or TypeError for an activity that none of our versions wrote."""
    _past(row)
    _pause(row)


def _unsent(row: Any) -> Unsent:
    notice = Notice(
        row["id"],
        Severity(row["severity"]),
        text(row["title"]),
        text(row["body"]),
        bool(row["critical"]),
        text(row["name"]),
        text(row["cause"]),
        incident=text(row["incident"]),
        stands=Severity(row["stands"]) if row["stands"] else None,
    )
    return Unsent(notice, number(row["made"]), frozenset(map(text, json.loads(row["sent"]))), bool(row["tried"]))


def _past(row: Any) -> Past:
    followed, owed = frozenset(map(text, json.loads(row["invocations"]))), text(row["owed"] or "")
    return Past(number(row["since"]), bool(row["ran"]), followed, owed, number(row["owed_at"]) if owed else 0.0)


def _standing(row: Any) -> OpenWarning:
    return OpenWarning(
        activation=row["name"],
        target=row["target"],
        kind=WarningKind(row["kind"]),
        since=number(row["since"]),
        run_id=text(row["run_id"]),
        critical=bool(row["critical"]),
        said=text(row["said"]),
        incident=text(row["incident"]),
    )


# What a table without the database's own check may hold by accident, and none of ours wrote.
CHECKS: dict[str, Callable[[Any], object]] = {
    "run": read,
    "activity": checked,
    "standing": _standing,
    "notice": _unsent,
}
