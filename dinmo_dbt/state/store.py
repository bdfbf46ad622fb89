"""State wherever it is kept: one writer per activation; files first, then a pointer to them together with the results.

`local` keeps it in a folder of this machine, `warehouse` in tables of the user's own. Each gives this module
transactions over the same tables, files that are whole or not there, and its own way to have one writer.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from dinmo_dbt.activation import Activation
from dinmo_dbt.changes import Flag
from dinmo_dbt.errors import StateError
from dinmo_dbt.state import activity, daily
from dinmo_dbt.state.files import Files, first_bent, stored_of
from dinmo_dbt.state.imaging import image_place
from dinmo_dbt.state.journal import ENDED, ActivationState, file_serial, snapshot_place, spool_place
from dinmo_dbt.state.lease import LEASE_S, Held, Holder, has_lapsed, held_error, holder_of, this_process
from dinmo_dbt.state.marks import Marks
from dinmo_dbt.state.runs import KEPT_S, Runs
from dinmo_dbt.state.snapshot import FileSnapshot
from dinmo_dbt.sync import Clock

FORMAT = 5

TABLES = {
    "meta": "key TEXT PRIMARY KEY, value TEXT NOT NULL",
    "activation": """
  org_id TEXT NOT NULL, name TEXT NOT NULL, model TEXT NOT NULL, object TEXT NOT NULL,
  serial BIGINT NOT NULL, epoch BIGINT NOT NULL, lease_owner TEXT, lease_until DOUBLE PRECISION,
  runs BIGINT NOT NULL, finished_runs BIGINT NOT NULL, identity TEXT NOT NULL, mappings TEXT NOT NULL,
  files TEXT NOT NULL, previous TEXT NOT NULL, born BIGINT NOT NULL DEFAULT 0, PRIMARY KEY (org_id, name)""",
    "batch": """
  id TEXT PRIMARY KEY, org_id TEXT NOT NULL, name TEXT NOT NULL, run_id TEXT NOT NULL, epoch BIGINT NOT NULL,
  state TEXT NOT NULL, job_id TEXT, rows BIGINT NOT NULL, spool TEXT NOT NULL, sha256 TEXT NOT NULL,
  described TEXT NOT NULL""",
    "pending": """
  org_id TEXT NOT NULL, name TEXT NOT NULL, kh BIGINT NOT NULL, key TEXT NOT NULL, ck BIGINT NOT NULL,
  class TEXT NOT NULL, code TEXT, message TEXT, fields TEXT,
  attempts BIGINT NOT NULL, next_run BIGINT NOT NULL, next_try DOUBLE PRECISION NOT NULL,
  described TEXT NOT NULL DEFAULT '', PRIMARY KEY (org_id, name, kh, key, ck)""",
    "watched": """
  org_id TEXT NOT NULL, name TEXT NOT NULL, kh BIGINT NOT NULL, ck TEXT NOT NULL, record_id TEXT,
  digests TEXT NOT NULL, PRIMARY KEY (org_id, name, kh)""",
    "trace": "org_id TEXT NOT NULL, mark TEXT NOT NULL, noted DOUBLE PRECISION NOT NULL, PRIMARY KEY (org_id, mark)",
    "daily": daily.TABLE,
}
# What is known of past runs. Apart, where that can be: it grows with the runs and not with the rows, and only the
# journal is looked through before each run.
HISTORY = {
    "run": """
  id TEXT PRIMARY KEY, org_id TEXT NOT NULL, name TEXT NOT NULL, started DOUBLE PRECISION NOT NULL,
  finished DOUBLE PRECISION, status TEXT NOT NULL, detail TEXT NOT NULL, not_delivered TEXT, target TEXT,
  number BIGINT NOT NULL""",
    **activity.TABLES,
}
# Statements, for a database that looks for a row in all of them unless it is told better.
HISTORY_INDEXES = (
    "CREATE INDEX run_of ON run (name, number)",
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
    """One activation's state in one org, as `state show` prints it. `unknown` are inserts that may have been made;
    `problem`: why its rows can't be read."""

    org_id: str
    name: str
    model: str
    object: str
    serial: int
    rows: int
    left: int
    unknown: int
    pending: int
    in_flight: int
    bytes: int
    kept_serials: tuple[int, ...]
    held_by: str | None
    problem: str | None


@dataclass(frozen=True)
class Lock:
    """What a writer has before it takes the lease. `condition`: when the lease may be taken, in SQL with one `?` for
    now, '' for always; `taken` is called once it is."""

    condition: str
    taken: Callable[[], None] = lambda: None


class Store(ABC):
    """One state location. Reading makes nothing; the first run makes what is missing."""

    clock: Clock
    files: Files
    marks: Marks
    location: Path | str  # as a message names it
    history_s: float = KEPT_S  # how long runs are kept

    @abstractmethod
    def exists(self, *, history: bool = False) -> bool:
        """Whether there is a journal to read, or a history."""

    @abstractmethod
    def connection(self, *, writing: bool, history: bool = False) -> AbstractContextManager[Connection]:
        """A connection to the journal, or to the history, where nothing of the other can be relied on; with `writing`,
        one transaction that commits at the end or not at all, and that no other writer of the same activation is in
        meanwhile. StateError DB502, DB510, DB514 or DB515."""

    @abstractmethod
    def exclusive(self, org_id: str, name: str) -> AbstractContextManager[Lock]:
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

    def view(self, org_id: str, activation: Activation) -> ActivationState:
        """The activation's state as it is now, without a lock. StateError when it belongs to something else."""
        self.check()
        with suppress(StateError):  # a run may settle a batch between our look at the journal and at its rows
            return ActivationState(self, org_id, activation, writing=False)
        return ActivationState(self, org_id, activation, writing=False)

    @contextmanager
    def locked(self, org_id: str, activation: Activation, run_id: str = "") -> Iterator[ActivationState]:
        """The activation's state for one writer. StateError DB501 while another run holds it."""
        with self.exclusive(org_id, activation.name) as lock:
            if self.exists():
                self.mend()
            state = ActivationState(self, org_id, activation, writing=True)
            state.start(lock, this_process(self.clock.now(), run_id))
            try:
                self.history.clear_up(org_id, activation.name)
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

    def take(self, connection: Connection, lock: Lock, org_id: str, name: str, holder: Holder) -> Any:
        """Make the lease ours with a new epoch, in which no earlier writer can write: the activation's row as it was
        before, made if need be. StateError DB501 if it may not be taken."""
        own = (org_id, name)
        connection.execute(
            "INSERT INTO activation (org_id, name, model, object, serial, epoch, runs, finished_runs, identity, "
            "mappings, files, previous) VALUES (?, ?, '', '', 0, 0, 0, 0, '{}', '[]', '[]', '[]') "
            "ON CONFLICT (org_id, name) DO NOTHING",
            own,
        )
        now = self.now(connection)
        condition = f" AND {lock.condition}" if lock.condition else ""
        taken = connection.execute(
            "UPDATE activation SET epoch = epoch + 1, lease_owner = ?, lease_until = ? "
            f"WHERE org_id = ? AND name = ?{condition}",
            (holder.as_text(), now + LEASE_S, *own, *((now,) if condition else ())),
        ).rowcount
        row = connection.execute("SELECT * FROM activation WHERE org_id = ? AND name = ?", own).fetchone()
        if not taken:
            raise held_error(name, self._held(connection, row))
        return row

    def held(self, name: str | None = None) -> list[Held]:
        """Which activations are held, of that name or at all. A lease that its process gave back is none."""
        if not self.exists():
            return []
        with self.connection(writing=False) as connection:
            rows = connection.execute(
                "SELECT * FROM activation WHERE lease_owner IS NOT NULL ORDER BY org_id, name"
            ).fetchall()
            found = [self._held(connection, row) for row in rows if name in (None, row["name"])]
        return [held for held in found if held]

    def _held(self, connection: Connection, row: Mapping[str, Any]) -> Held | None:
        if not row["lease_owner"]:
            return None
        until = row["lease_until"] or 0.0
        return Held(
            row["org_id"],
            row["name"],
            row["epoch"],
            holder_of(row["lease_owner"]),
            until,
            _in_flight(connection, (row["org_id"], row["name"])),
            overdue=has_lapsed(until, self.now(connection)),
        )

    def unlock(self, held: Held) -> None:
        """Take the lease from its holder: the epoch moves on, so that it can't write any more. StateError DB501 if
        somebody else holds it by now."""
        with self.connection(writing=True) as connection:
            moved = connection.execute(
                "UPDATE activation SET epoch = epoch + 1, lease_owner = NULL, lease_until = NULL "
                "WHERE org_id = ? AND name = ? AND epoch = ?",
                (held.org_id, held.name, held.epoch),
            ).rowcount
            if not moved:
                raise StateError("DB501", f"{held.name} has changed hands meanwhile", hint="look at it again")
            # Before the commit: without the lock but with its lease, a run is as good as over.
            self.forget_lock(held.org_id, held.name)
        self.rest()

    @abstractmethod
    def forget_lock(self, org_id: str, name: str) -> None:
        """Whatever else than the lease keeps others out goes."""

    # Looking

    def lineage(self, connection: Connection) -> str:
        """Which state this is, of all that were ever made."""
        row = connection.execute("SELECT value FROM meta WHERE key = 'lineage'").fetchone()
        return str(row["value"]) if row else ""

    def known_lineage(self) -> str | None:
        if not self.exists():
            return None
        with self.connection(writing=False) as connection:
            return self.lineage(connection)

    def known(self) -> list[Known]:
        """Every activation's state, by org and name."""
        if not self.exists():
            return []
        with self.connection(writing=False) as connection:
            rows = connection.execute("SELECT * FROM activation WHERE runs > 0 ORDER BY org_id, name").fetchall()
            return [self._known(connection, row) for row in rows]

    def _known(self, connection: Connection, row: Mapping[str, Any]) -> Known:
        own = (row["org_id"], row["name"])
        files = [stored_of(value) for value in json.loads(row["files"])]
        names, place = [file.name for file in files], snapshot_place(*own)
        rows = left = unknown = 0
        problem = None
        try:
            flags = FileSnapshot(self.files.fetch(place, names), names).flags
            left = int(np.count_nonzero(flags & Flag.LEFT))
            rows = len(flags) - left
            unknown = int(np.count_nonzero(flags & Flag.UNKNOWN))
        except StateError as error:
            problem = error.problems[0].message
        waiting = connection.execute("SELECT count(*) AS n FROM pending WHERE org_id = ? AND name = ?", own).fetchone()
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
            _in_flight(connection, own),
            sum(file.bytes for file in files),
            tuple(pointer["serial"] for pointer in json.loads(row["previous"])),
            f"{held.holder}{' (gone)' if held.holder.lives is False else ''}" if held else None,
            problem,
        )

    # Going another way

    def newest(self, connection: Connection, org_id: str, name: str, serial: int) -> int:
        """The newest serial there was, as far as can be told: that one, the mark's, or a file's."""
        numbers = [file_serial(file) for file in self.files.names(snapshot_place(org_id, name))]
        return max(serial, self.marks.get(self.lineage(connection), org_id, name), *numbers, 0)

    def reset(self, org_id: str, name: str) -> bool:
        """Forget one activation's state in one org, unsettled jobs included; whether there was any. Serials go on from
        the newest. StateError DB501 while a run holds it."""
        if not self.exists():
            return False
        own = (org_id, name)
        with self._taking(org_id, name) as (connection, row):
            serial = self.newest(connection, org_id, name, row["serial"]) + 1
            connection.execute(
                "UPDATE activation SET serial = ?, born = ?, runs = 0, finished_runs = 0, identity = '{}', "
                "mappings = '[]', files = '[]', previous = '[]' WHERE org_id = ? AND name = ?",
                (serial, serial, *own),
            )
            spools = connection.execute("SELECT spool FROM batch WHERE org_id = ? AND name = ?", own).fetchall()
            for table in ("batch", "pending", "watched", "daily"):
                connection.execute(f"DELETE FROM {table} WHERE org_id = ? AND name = ?", own)
            gone = [(place, self.files.names(place)) for place in _places(*own)]
        gone += [(folder, [file]) for folder, file in (spool_place(spool["spool"]) for spool in spools)]
        for folder, names in gone:
            self.files.remove(folder, names)
        self.rest()
        return bool(row["runs"])

    def go_back(self, org_id: str, name: str, serial: int) -> None:
        """Make a kept serial the state again, or accept the one that is there although a newer one was seen. What was
        acknowledged since is sent again. StateError DB516 if it is not kept or not whole, DB519 for inserts, which
        would be made again, DB501 while a run holds it."""
        with self._taking(org_id, name) as (connection, row):
            pointers = [
                {"serial": row["serial"], "files": json.loads(row["files"]), "mappings": json.loads(row["mappings"])},
                *json.loads(row["previous"]),
            ]
            pointer = next((p for p in pointers if p["serial"] == serial), None)
            where = f"{self.location}: {name} in org {org_id}"
            if pointer is None or not row["runs"]:
                kept = ", ".join(str(p["serial"]) for p in pointers) if row["runs"] else "none"
                raise StateError("DB516", f"serial {serial} is not kept; kept: {kept}", where=where)
            if json.loads(row["identity"]).get("mode") == "insert":
                raise StateError(
                    "DB519",
                    "the rows inserted since would be inserted again",
                    where=where,
                    hint=f"restore the newer state, or take over what Salesforce holds: dinmo-dbt state adopt {name}",
                )
            files = [stored_of(value) for value in pointer["files"]]
            bent = first_bent(self.files.fetch(snapshot_place(org_id, name), [f.name for f in files]), files)
            if bent:
                raise StateError("DB516", f"serial {serial} is not whole either: {bent.name} is damaged", where=where)
            connection.execute(
                "UPDATE activation SET serial = ?, files = ?, mappings = ?, previous = '[]' "
                "WHERE org_id = ? AND name = ?",
                (
                    self.newest(connection, org_id, name, row["serial"]) + 1,
                    json.dumps(pointer["files"]),
                    json.dumps(pointer.get("mappings", json.loads(row["mappings"]))),
                    org_id,
                    name,
                ),
            )
        self.rest()

    def move(self, org_id: str, old: str, new: str) -> None:
        """Give a renamed activation's state its new name. StateError if that name has state already, or DB501 while a
        run holds either."""
        with self.exclusive(org_id, new) as lock:
            with self._taking(org_id, old) as (connection, source):
                target = self.take(connection, lock, org_id, new, this_process(self.clock.now()))
                taken = connection.execute(
                    "SELECT 1 AS found FROM activation WHERE org_id = ? AND lower(name) = lower(?) AND runs > 0",
                    (org_id, new),
                ).fetchall()
                if taken or not source["runs"]:
                    reason = f"{new} already has state" if taken else f"{old} has no state"
                    raise StateError("DB516", f"{reason} in org {org_id}", where=str(self.location))
                serial = max(source["serial"], self.newest(connection, org_id, new, target["serial"]))
                for place, to in zip(_places(org_id, old), _places(org_id, new), strict=True):
                    self.files.remove(to, self.files.names(to))  # left from a state of that name that was reset
                    self.files.copy(place, to)
                connection.execute("DELETE FROM activation WHERE org_id = ? AND name = ?", (org_id, new))
                connection.execute(
                    "UPDATE activation SET serial = ?, lease_owner = NULL, lease_until = NULL "
                    "WHERE org_id = ? AND name = ?",
                    (serial, org_id, old),
                )
                for table in ("activation", "batch", "pending", "watched", "daily"):
                    connection.execute(f"UPDATE {table} SET name = ? WHERE org_id = ? AND name = ?", (new, org_id, old))
                self.history.move(org_id, old, new)
                gone = [(place, self.files.names(place)) for place in _places(org_id, old)]
            lock.taken()
        for folder, names in gone:
            self.files.remove(folder, names)
        self.rest()

    @contextmanager
    def _taking(self, org_id: str, name: str) -> Iterator[tuple[Connection, Any]]:
        """One transaction as the activation's writer, and its row as it was; the lease is given back with it."""
        with self.exclusive(org_id, name) as lock:
            with self.connection(writing=True) as connection:
                row = self.take(connection, lock, org_id, name, this_process(self.clock.now()))
                yield connection, row
                connection.execute(
                    "UPDATE activation SET lease_owner = NULL, lease_until = NULL WHERE org_id = ? AND name = ?",
                    (org_id, name),
                )
            lock.taken()


def _places(org_id: str, name: str) -> tuple[str, ...]:
    """The folders whose files belong to an activation's state."""
    return snapshot_place(org_id, name), image_place(org_id, name)


def _in_flight(connection: Connection, own: tuple[str, str]) -> int:
    row = connection.execute(
        "SELECT coalesce(sum(rows), 0) AS n FROM batch WHERE org_id = ? AND name = ? AND state NOT IN (?, ?)",
        (*own, *ENDED),
    ).fetchone()
    return int(row["n"])
