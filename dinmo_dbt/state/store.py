"""State wherever it is kept: one writer per activation; files first, then a pointer to them together with the results.

`local` keeps it in a folder of this machine, `warehouse` in tables of the user's own. Each gives this module
transactions over the same tables, files that are whole or not there, and its own way to have one writer.
"""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from dinmo_dbt.activation import Activation
from dinmo_dbt.delivery.sync import Clock
from dinmo_dbt.errors import Problem, StateError
from dinmo_dbt.rows.changes import Flag
from dinmo_dbt.state import activity, copied, daily, seal
from dinmo_dbt.state.expendable import damage, out_of_reach
from dinmo_dbt.state.files import Files, Stored, first_bent, stored_of
from dinmo_dbt.state.imaging import image_place
from dinmo_dbt.state.journal import ActivationState, bent, file_serial, snapshot_place, spool_place
from dinmo_dbt.state.lease import LEASE_S, Held, Holder, has_lapsed, held_error, holder_of, this_process
from dinmo_dbt.state.marks import Marks
from dinmo_dbt.state.runs import KEPT_S, Runs
from dinmo_dbt.state.seal import ENDED
from dinmo_dbt.state.snapshot import FileSnapshot
from dinmo_dbt.state.state_id import OWN, StateId

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
    "daily": daily.TABLE,
}
# What is known of past runs. Apart, where that can be: it grows with the runs and not with the rows, and only the
# journal is looked through before each run.
HISTORY = {
    "run": f"""
  id TEXT PRIMARY KEY, {_ID}, started DOUBLE PRECISION NOT NULL,
  finished DOUBLE PRECISION, status TEXT NOT NULL, detail TEXT NOT NULL, not_delivered TEXT,
  number BIGINT NOT NULL""",
    **activity.TABLES,
}
# Statements, for a database that looks for a row in all of them unless it is told better.
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


@dataclass(frozen=True, slots=True)
class Known:
    """One activation's state, as `state show` prints it. `unknown` are inserts that may have been made;
    `given_up`: rows that Salesforce refused for too long. `problem`: why its rows can't be read."""

    org_id: str
    target: str
    name: str
    model: str
    object: str
    serial: int
    rows: int
    left: int
    unknown: int
    pending: int
    given_up: int
    in_flight: int
    bytes: int
    kept_serials: tuple[int, ...]
    held_by: str | None
    problem: str | None

    @property
    def id(self) -> StateId:
        return StateId(self.org_id, self.target, self.name)


@dataclass(frozen=True)
class Lock:
    """What a writer has before it takes the lease. `condition`: when the lease may be taken, in SQL with one `?` for
    now, '' for always; `taken` is called once it is."""

    condition: str
    taken: Callable[[], None] = lambda: None


class Store(ABC):
    """One state location, opened for one dbt target. Reading makes nothing; the first run makes what is missing."""

    clock: Clock
    target: str
    files: Files
    marks: Marks
    location: Path | str  # as a message names it
    history_s: float = KEPT_S  # how long runs are kept
    tell: Callable[[Problem], None] = staticmethod(lambda _: None)  # of a damaged history, once
    _remains: Any = None  # of a damaged history, in memory: what readers have until somebody writes
    _told = _told_of_loss = False

    @abstractmethod
    def exists(self, *, history: bool = False) -> bool:
        """Whether there is a journal to read, or a history."""

    @abstractmethod
    def connection(self, *, writing: bool, history: bool = False) -> AbstractContextManager[Connection]:
        """A connection to the journal, or to the history, where nothing of the other can be relied on; with `writing`,
        one transaction that commits at the end or not at all, and that no other writer of the same activation is in
        meanwhile. StateError DB502, DB510, DB514 or DB515."""

    @property
    @abstractmethod
    def place(self) -> copied.Place:
        """The location as dinmo.yml names it."""

    @property
    @abstractmethod
    def history_place(self) -> str:
        """Where the history is, as a message names it."""

    @abstractmethod
    def salvage_history(self) -> int:
        """From here on a reader has what can be read of the history, and the next one that writes puts the rest aside.
        How many entries can't be read."""

    def _tell_of_damage(self, lost: int) -> None:
        if not self._told:
            self._told = True
            entries = "" if not lost else ": 1 entry can't be read" if lost == 1 else f": {lost} entries can't be read"
            self.tell(damage(self.history_place, entries))

    def _tell_of_loss(self) -> None:
        if not self._told_of_loss:
            self._told_of_loss = True
            self.tell(out_of_reach(self.history_place))

    @abstractmethod
    def exclusive(self, own: StateId) -> AbstractContextManager[Lock]:
        """A lock for one writer of the activation; it is the writer once it has taken the lease. StateError DB501."""

    @abstractmethod
    def now(self, connection: Connection) -> float:
        """The time by which leases are measured: seconds since the epoch, UTC."""

    @abstractmethod
    def take_back(self) -> None:
        """Before a command that will write reads anything: take back a commit that was cut off, which no reader may."""

    @abstractmethod
    def mend(self) -> None:
        """Before a writer reads: take back what was cut off, refuse what is bent."""

    @abstractmethod
    def check(self) -> None:
        """Before a reader reads: refuse what is bent."""

    @abstractmethod
    def rest(self) -> None:
        """After a writer: nothing more is to come for now."""

    @abstractmethod
    def start_anew(self) -> int | None:
        """Remove a state of an older format whole, and say which; None, and nothing goes, where there is none.
        StateError DB501 while a run holds it, DB514 for a newer format."""

    def refuse_copied(self) -> None:
        """StateError DB533 where the target's state was copied to another place, or has not come from one yet."""
        refusal = None
        with suppress(StateError):  # what else is wrong with it, who uses it is told
            if self.exists():
                with self.connection(writing=False) as connection:
                    refusal = copied.refusal(connection, self.target, self.place)
        if refusal is not None:
            raise refusal

    def begun(self) -> set[StateId]:
        """What runs have begun under the target that the store is opened for, and no copy has taken elsewhere."""
        if not self.exists():
            return set()
        with self.connection(writing=False) as connection:
            if copied.refusal(connection, self.target, self.place) is not None:
                return set()
            told = "SELECT org_id, name FROM activation WHERE target = ? AND runs > 0"
            rows = connection.execute(told, (self.target,)).fetchall()
            return {self.own(row["org_id"], row["name"]) for row in rows}

    def close(self) -> None:  # noqa: B027 - a folder has nothing to give back
        """Give back what it is reached by, if that is its own; it is reached again when it is needed."""

    def own(self, org_id: str, name: str) -> StateId:
        """That activation's state under the target that the store is opened for."""
        return StateId(org_id, self.target, name)

    def view(self, org_id: str, activation: Activation) -> ActivationState:
        """The activation's state as it is now, without a lock. StateError when it belongs to something else."""
        self.check()
        own = self.own(org_id, activation.name)
        with suppress(StateError):  # a run may settle a batch between our look at the journal and at its rows
            return ActivationState(self, own, activation, writing=False)
        return ActivationState(self, own, activation, writing=False)

    @contextmanager
    def locked(self, org_id: str, activation: Activation, run_id: str = "") -> Iterator[ActivationState]:
        """The activation's state for one writer. StateError DB501 while another run holds it."""
        own = self.own(org_id, activation.name)
        with self.exclusive(own) as lock:
            if self.exists():
                self.mend()
            state = ActivationState(self, own, activation, writing=True)
            state.start(lock, this_process(self.clock.now(), run_id))
            try:
                self.history.clear_up(own)
                yield state
            finally:
                with suppress(StateError):  # a lease that can't be given back runs out
                    state.release()
                    self.rest()

    @contextmanager
    def alone(self, what: str, otherwise: StateError) -> Iterator[None]:
        """Of the processes that want to do that, which no activation's name may be, one does; the others raise
        `otherwise`."""
        with ExitStack() as stack:
            try:
                stack.enter_context(self._alone(what))
            except StateError as error:
                raise otherwise if error.problems[0].code == "DB501" else error from None
            yield

    @abstractmethod
    def _alone(self, what: str) -> AbstractContextManager[None]:
        """StateError DB501 where another process does it."""

    @property
    def history(self) -> Runs:
        return Runs(self, self.history_s)

    def activity(self, target: str) -> activity.Activity:
        return activity.Activity(self, target)

    # The lease

    def take(self, connection: Connection, lock: Lock, own: StateId, holder: Holder) -> Any:
        """Make the lease ours with a new epoch, in which no earlier writer can write: the activation's row as it was
        before, made if need be. StateError DB501 if it may not be taken."""
        refusal = copied.refusal(connection, own.target, self.place)
        if refusal is not None:
            raise refusal
        if connection.execute(f"SELECT name FROM activation WHERE {OWN}", own).fetchone() is None:
            _begin(connection, own, 0)
        now = self.now(connection)
        condition = f" AND {lock.condition}" if lock.condition else ""
        taken = connection.execute(
            f"UPDATE activation SET epoch = epoch + 1, lease_owner = ?, lease_until = ? WHERE {OWN}{condition}",
            (holder.as_text(), now + LEASE_S, *own, *((now,) if condition else ())),
        ).rowcount
        row = connection.execute(f"SELECT * FROM activation WHERE {OWN}", own).fetchone()
        if not taken:
            raise held_error(own.name, self._held(connection, row))
        return row

    def held(self, name: str | None = None) -> list[Held]:
        """Which activations are held, of that name or at all. A lease that its process gave back is none."""
        if not self.exists():
            return []
        self.check()
        with self.connection(writing=False) as connection:
            rows = connection.execute(
                "SELECT * FROM activation WHERE lease_owner IS NOT NULL ORDER BY org_id, target, name"
            ).fetchall()
            found = [self._held(connection, row) for row in rows if name in (None, row["name"])]
        return [held for held in found if held]

    def _held(self, connection: Connection, row: Mapping[str, Any]) -> Held | None:
        if not row["lease_owner"]:
            return None
        until, own = row["lease_until"] or 0.0, _own(row)
        return Held(
            *own,
            row["epoch"],
            holder_of(row["lease_owner"]),
            until,
            _in_flight(connection, own),
            overdue=has_lapsed(until, self.now(connection)),
        )

    def unlock(self, held: Held) -> None:
        """Take the lease from its holder: the epoch moves on, so that it can't write any more. StateError DB501 if
        somebody else holds it by now."""
        with self.connection(writing=True) as connection:
            moved = connection.execute(
                "UPDATE activation SET epoch = epoch + 1, lease_owner = NULL, lease_until = NULL "
                f"WHERE {OWN} AND epoch = ?",
                (*held.id, held.epoch),
            ).rowcount
            if not moved:
                raise StateError("DB501", f"{held.name} has changed hands meanwhile", hint="look at it again")
            # Before the commit: without the lock but with its lease, a run is as good as over.
            self.forget_lock(held.id)
        self.rest()

    @abstractmethod
    def forget_lock(self, own: StateId) -> None:
        """Whatever else than the lease keeps others out goes."""

    # Looking

    def lineage(self, connection: Connection) -> str:
        """Which state this is, of all that were ever made. StateError DB502 if it does not say so."""
        row = connection.execute("SELECT value FROM meta WHERE key = 'lineage'").fetchone()
        found = str(row["value"]) if row else ""
        if not re.fullmatch(r"[0-9a-f]{32}", found):
            raise bent(str(self.location))
        return found

    def known_lineage(self) -> str | None:
        if not self.exists():
            return None
        with self.connection(writing=False) as connection:
            return self.lineage(connection)

    def known(self) -> list[Known]:
        """Every activation's state, by org, target and name."""
        if not self.exists():
            return []
        self.check()
        with self.connection(writing=False) as connection:
            rows = connection.execute(
                "SELECT * FROM activation WHERE runs > 0 ORDER BY org_id, target, name"
            ).fetchall()
            return [self._known(connection, row) for row in rows]

    def _known(self, connection: Connection, row: Mapping[str, Any]) -> Known:
        own = _own(row)
        rows = left = unknown = 0
        files: list[Stored] = []
        kept: tuple[int, ...] = ()
        problem = None
        try:
            if not seal.is_whole(connection, own):
                raise self._broken(own)
            kept = tuple(pointer["serial"] for pointer in json.loads(row["previous"]))
            files = [stored_of(value) for value in json.loads(row["files"])]
            names, place = [file.name for file in files], snapshot_place(own)
            flags = FileSnapshot(self.files.fetch(place, names), names).flags
            left = int(np.count_nonzero(flags & Flag.LEFT))
            rows = len(flags) - left
            unknown = int(np.count_nonzero(flags & Flag.UNKNOWN))
        except StateError as error:
            problem = error.problems[0].message
        counted = f"SELECT count(*) AS n FROM pending WHERE {OWN} AND given_up"
        waiting = connection.execute(f"{counted} = 0", own).fetchone()
        given_up = connection.execute(f"{counted} <> 0", own).fetchone()
        held = self._held(connection, row)
        return Known(
            *own,
            row["model"],
            row["object"],
            row["serial"],
            rows,
            left,
            unknown,
            waiting["n"],
            given_up["n"],
            _in_flight(connection, own),
            sum(file.bytes for file in files),
            kept,
            f"{held.holder}{' (gone)' if held.holder.lives is False else ''}" if held else None,
            problem,
        )

    # Going another way

    def newest(self, connection: Connection, own: StateId, serial: int) -> int:
        """The newest serial there was, as far as can be told: that one, the mark's, or a file's."""
        numbers = [file_serial(file) for file in self.files.names(snapshot_place(own))]
        return max(serial, self.marks.get(self.lineage(connection), own), *numbers, 0)

    def reset(self, own: StateId) -> bool:
        """Forget one activation's state, unsettled jobs included; whether there was any. Serials go on from
        the newest. StateError DB501 while a run holds it."""
        if not self.exists():
            return False
        with self._taking(own) as (connection, row):
            serial = self.newest(connection, own, row["serial"]) + 1
            connection.execute(
                "UPDATE activation SET serial = ?, born = ?, runs = 0, finished_runs = 0, admitted = 0, "
                f"identity = '{{}}', mappings = '[]', files = '[]', previous = '[]' WHERE {OWN}",
                (serial, serial, *own),
            )
            spools = connection.execute(f"SELECT spool FROM batch WHERE {OWN}", own).fetchall()
            for table in ("batch", "pending", "watched", "daily"):
                connection.execute(f"DELETE FROM {table} WHERE {OWN}", own)
            gone = [(place, self.files.names(place)) for place in _places(own)]
        gone += [(folder, [file]) for folder, file in (spool_place(spool["spool"]) for spool in spools)]
        for folder, names in gone:
            self.files.remove(folder, names)
        self.rest()
        return bool(row["runs"])

    def go_back(self, own: StateId, serial: int) -> None:
        """Make a kept serial the state again, or accept the one that is there although a newer one was seen. What was
        acknowledged since is sent again. StateError DB516 if it is not kept or not whole, DB519 for inserts, which
        would be made again, DB501 while a run holds it, DB502 if somebody has changed it by hand."""
        self._refuse_broken(own)
        with self._taking(own) as (connection, row):
            pointers = [
                {"serial": row["serial"], "files": json.loads(row["files"]), "mappings": json.loads(row["mappings"])},
                *json.loads(row["previous"]),
            ]
            pointer = next((p for p in pointers if p["serial"] == serial), None)
            where = f"{self.location}: {own}"
            if pointer is None or not row["runs"]:
                kept = ", ".join(str(p["serial"]) for p in pointers) if row["runs"] else "none"
                raise StateError("DB516", f"serial {serial} is not kept; kept: {kept}", where=where)
            if json.loads(row["identity"]).get("mode") == "insert":
                raise StateError(
                    "DB519",
                    "the rows inserted since would be inserted again",
                    where=where,
                    hint="restore the newer state, or take over what Salesforce holds: "
                    f"dinmo-dbt state adopt {own.name}",
                )
            files = [stored_of(value) for value in pointer["files"]]
            bent = first_bent(self.files.fetch(snapshot_place(own), [f.name for f in files]), files)
            if bent:
                raise StateError("DB516", f"serial {serial} is not whole either: {bent.name} is damaged", where=where)
            connection.execute(
                f"UPDATE activation SET serial = ?, files = ?, mappings = ?, previous = '[]' WHERE {OWN}",
                (
                    self.newest(connection, own, row["serial"]) + 1,
                    json.dumps(pointer["files"]),
                    json.dumps(pointer.get("mappings", json.loads(row["mappings"]))),
                    *own,
                ),
            )
        self.rest()

    def move(self, old: StateId, new: StateId) -> None:
        """Give the state of a renamed activation, or of a renamed dbt target, to the new name in the same org.
        StateError DB516 if that has state already, or DB501 while a run holds either."""
        self._refuse_broken(old)
        with self.exclusive(new) as lock:
            with self._taking(old) as (connection, source):
                target = self.take(connection, lock, new, this_process(self.clock.now()))
                taken = connection.execute(
                    "SELECT 1 AS found FROM activation "
                    "WHERE org_id = ? AND target = ? AND lower(name) = lower(?) AND runs > 0",
                    new,
                ).fetchall()
                if taken or not source["runs"]:
                    own, reason = (new, "already has state") if taken else (old, "has no state")
                    message = f"{own.name} {reason} in org {own.org_id} under dbt target {own.target}"
                    raise StateError("DB516", message, where=str(self.location))
                serial = max(source["serial"], self.newest(connection, new, target["serial"]))
                for place, to in zip(_places(old), _places(new), strict=True):
                    self.files.remove(to, self.files.names(to))  # left from a state of that name that was reset
                    self.files.copy(place, to)
                connection.execute(f"DELETE FROM activation WHERE {OWN}", new)
                connection.execute(
                    f"UPDATE activation SET serial = ?, lease_owner = NULL, lease_until = NULL WHERE {OWN}",
                    (serial, *old),
                )
                for table in ("activation", "batch", "pending", "watched", "daily"):
                    connection.execute(
                        f"UPDATE {table} SET target = ?, name = ? WHERE {OWN}", (new.target, new.name, *old)
                    )
                seal.renew(connection, new)
                _begin(connection, old, serial)
                self.history.move(old, new)
                gone = [(place, self.files.names(place)) for place in _places(old)]
            lock.taken()
        for folder, names in gone:
            self.files.remove(folder, names)
        self.rest()

    def _refuse_broken(self, own: StateId) -> None:
        if self.exists():
            with self.connection(writing=False) as connection:
                if not seal.is_whole(connection, own):
                    raise self._broken(own)

    def _broken(self, own: StateId) -> StateError:
        return seal.broken(f"{self.location}: {own}", f"start again: dinmo-dbt state reset {own.name}")

    @contextmanager
    def _taking(self, own: StateId) -> Iterator[tuple[Connection, Any]]:
        """One transaction as the activation's writer, and its row as it was; the lease is given back with it."""
        with self.exclusive(own) as lock:
            with self.connection(writing=True) as connection:
                row = self.take(connection, lock, own, this_process(self.clock.now()))
                yield connection, row
                connection.execute(f"UPDATE activation SET lease_owner = NULL, lease_until = NULL WHERE {OWN}", own)
                seal.renew(connection, own)
            lock.taken()


def _begin(connection: Connection, own: StateId, serial: int) -> None:
    """A row for an activation that nothing is known of, unless another process has made one."""
    connection.execute(
        "INSERT INTO activation (org_id, target, name, model, object, serial, epoch, runs, finished_runs, identity, "
        "mappings, files, previous, born) VALUES (?, ?, ?, '', '', ?, 0, 0, 0, '{}', '[]', '[]', '[]', ?) "
        "ON CONFLICT (org_id, target, name) DO NOTHING",
        (*own, serial, serial),
    )
    seal.renew(connection, own)


def _own(row: Mapping[str, Any]) -> StateId:
    return StateId(row["org_id"], row["target"], row["name"])


def _places(own: StateId) -> tuple[str, ...]:
    """The folders whose files belong to an activation's state."""
    return snapshot_place(own), image_place(own)


def _in_flight(connection: Connection, own: StateId) -> int:
    row = connection.execute(
        f"SELECT coalesce(sum(rows), 0) AS n FROM batch WHERE {OWN} AND state NOT IN (?, ?)",
        (*own, *ENDED),
    ).fetchone()
    return int(row["n"])
