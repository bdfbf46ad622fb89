"""State in a local folder: SQLite for the journal and everything small, Parquet for snapshots, Arrow for spools.

Every commit writes its file first (whole, synced, renamed), then moves the pointer in SQLite in the same transaction
as the results. A file that no pointer names is left from a crash and goes at the next locked start.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import socket
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dinmo_dbt.activation import Activation
from dinmo_dbt.changes import Flag, Pending
from dinmo_dbt.destination import Api, Batch, Operation
from dinmo_dbt.errors import StateError, unwritable
from dinmo_dbt.plan import LEFT_OUT, InFlight, Plan
from dinmo_dbt.state import imaging
from dinmo_dbt.state.files import make_folder, refuse_network, sync_folder, write_whole
from dinmo_dbt.state.snapshot import BASE, DELTA, FileSnapshot, write_rows
from dinmo_dbt.state.spool import describe_batch, read_batch, write_batch
from dinmo_dbt.sync import BatchState, Clock, Journalled, Settlement, check_transition

FORMAT = 1
DELTAS_MAX = 16
DELTA_SHARE_MAX = 0.10
SERIALS_KEPT = 3
RUNS_KEPT = 200
LOCK_WAIT_S = 10.0
# Who holds an activation must say so again before this has passed; a run does once a third has.
LEASE_S = 600.0
_HOLD_EVERY_S = 1.0
# A permanently rejected row is tried again after 1, 2, 4… runs, but at least once a day.
BACK_OFF_MAX_S = 24 * 3600

_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE activation (
  org_id TEXT NOT NULL, name TEXT NOT NULL, model TEXT NOT NULL, object TEXT NOT NULL,
  serial INTEGER NOT NULL, epoch INTEGER NOT NULL, lease_owner TEXT, lease_until REAL,
  runs INTEGER NOT NULL, finished_runs INTEGER NOT NULL, identity TEXT NOT NULL, mappings TEXT NOT NULL,
  files TEXT NOT NULL, previous TEXT NOT NULL, PRIMARY KEY (org_id, name)
) WITHOUT ROWID;
CREATE TABLE batch (
  id TEXT PRIMARY KEY, org_id TEXT NOT NULL, name TEXT NOT NULL, run_id TEXT NOT NULL, epoch INTEGER NOT NULL,
  state TEXT NOT NULL, job_id TEXT, rows INTEGER NOT NULL, spool TEXT NOT NULL, sha256 TEXT NOT NULL,
  described TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX batch_of ON batch (org_id, name, state);
CREATE TABLE pending (
  org_id TEXT NOT NULL, name TEXT NOT NULL, kh INTEGER NOT NULL, key TEXT NOT NULL, ck INTEGER NOT NULL,
  class TEXT NOT NULL, code TEXT, message TEXT, fields TEXT,
  attempts INTEGER NOT NULL, next_run INTEGER NOT NULL, next_try REAL NOT NULL,
  PRIMARY KEY (org_id, name, kh, key, ck)
) WITHOUT ROWID;
CREATE TABLE run (
  id TEXT PRIMARY KEY, org_id TEXT NOT NULL, name TEXT NOT NULL, started REAL NOT NULL, finished REAL,
  status TEXT NOT NULL, detail TEXT NOT NULL, not_delivered TEXT
) WITHOUT ROWID;
CREATE INDEX run_of ON run (name, started);
"""


@dataclass(frozen=True, slots=True)
class Known:
    """One activation's state in one org, as `state show` prints it."""

    org_id: str
    name: str
    model: str
    object: str
    serial: int
    rows: int
    left: int
    pending: int
    in_flight: int
    bytes: int


class LocalState:
    """A state folder. Reading makes nothing; the first run makes the folder."""

    def __init__(self, location: Path, clock: Clock) -> None:
        self.location, self.clock = location, clock
        self.database = location / "state.db"

    def exists(self) -> bool:
        return self.database.exists()

    def view(self, org_id: str, activation: Activation) -> ActivationState:
        """The activation's state as it is now, without a lock. StateError when it belongs to something else."""
        with suppress(StateError):  # a run may settle a batch between our look at the journal and at its rows
            return ActivationState(self, org_id, activation, writing=False)
        return ActivationState(self, org_id, activation, writing=False)

    @contextmanager
    def locked(self, org_id: str, activation: Activation) -> Iterator[ActivationState]:
        """The activation's state for one writer. StateError DB501 while another run holds it."""
        with self._lock(org_id, activation.name):
            if self.exists():
                self._mend()
            state = ActivationState(self, org_id, activation, writing=True)
            state.start()
            yield state

    def _mend(self) -> None:
        """Let SQLite take back a commit that was cut off, which a reader may not; refuse a database that is bent."""
        with self.connection(writing=True) as connection:
            if connection.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
                raise _damaged(self.database)

    @contextmanager
    def _lock(self, org_id: str, name: str) -> Iterator[None]:
        """An OS lock: it goes with the process, however that ends."""
        make_folder(self.location)
        refuse_network(self.location)
        path = make_folder(self.location / "locks") / f"{org_id}-{name}.lock"
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise unwritable(path, error) from error
        try:
            _take_lock(descriptor, name)
            yield
        finally:
            os.close(descriptor)

    @contextmanager
    def connection(self, *, writing: bool) -> Iterator[sqlite3.Connection]:
        """A connection; with `writing`, one immediate transaction that commits at the end or not at all."""
        if writing and not self.exists():
            self._make_database()
        try:
            with closing(self._connect(writing=writing)) as connection:  # an open transaction is rolled back
                self._check_format(connection)
                if writing:
                    connection.execute("BEGIN IMMEDIATE")
                yield connection
                if writing:
                    connection.execute("COMMIT")
        except sqlite3.OperationalError as error:
            raise _operational(self.database, error) from error
        except (sqlite3.DatabaseError, json.JSONDecodeError) as error:
            raise _damaged(self.database) from error

    def _connect(self, *, writing: bool) -> sqlite3.Connection:
        # A rollback journal, not a WAL: a reader of a WAL makes files of its own, and a plan must change nothing.
        # EXTRA also syncs the folder after the journal is gone, so that a commit can't be undone by a power cut.
        mode = "rw" if writing else "ro"
        connection = sqlite3.connect(
            f"{self.database.absolute().as_uri()}?mode={mode}", uri=True, isolation_level=None, timeout=LOCK_WAIT_S
        )
        connection.row_factory = sqlite3.Row
        if writing:
            connection.execute("PRAGMA synchronous = EXTRA")
            connection.execute("PRAGMA fullfsync = ON")
        return connection

    def _check_format(self, connection: sqlite3.Connection) -> None:
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'meta'").fetchone():
            raise _damaged(self.database)
        row = connection.execute("SELECT value FROM meta WHERE key = 'format'").fetchone()
        found = row["value"] if row else ""
        if not found.isdecimal():
            raise _damaged(self.database)
        if int(found) > FORMAT:
            raise StateError(
                "DB514",
                f"the state has format {found}; this version reads {FORMAT}",
                where=str(self.database),
                hint="use the newer dinmo-dbt that wrote it",
            )

    def _make_database(self) -> None:
        """Made whole under another name, then linked: no reader ever sees half of it, and of two makers one wins."""
        make_folder(self.location)
        temporary = self.location / f".state.db.{secrets.token_hex(4)}.tmp"
        try:
            os.close(os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600))
            with closing(sqlite3.connect(temporary, isolation_level=None)) as connection:
                connection.executescript(f"BEGIN; {_SCHEMA} INSERT INTO meta VALUES ('format', '{FORMAT}'); COMMIT;")
            with suppress(FileExistsError):
                os.link(temporary, self.database)
            sync_folder(self.location)
        except OSError as error:
            raise unwritable(self.database, error) from error
        except sqlite3.OperationalError as error:
            raise _operational(self.database, error) from error
        finally:
            temporary.unlink(missing_ok=True)

    # Looking

    def known(self) -> list[Known]:
        """Every activation's state, by org and name."""
        if not self.exists():
            return []
        with self.connection(writing=False) as connection:
            rows = connection.execute("SELECT * FROM activation WHERE runs > 0 ORDER BY org_id, name").fetchall()
            return [self._known(connection, row) for row in rows]

    def _known(self, connection: sqlite3.Connection, row: sqlite3.Row) -> Known:
        folder, files = self.folder(row["org_id"], row["name"]), json.loads(row["files"])
        snapshot = FileSnapshot(folder, files)
        left = int(np.count_nonzero(snapshot.flags & Flag.LEFT))
        own = (row["org_id"], row["name"])
        waiting = connection.execute("SELECT count(*) FROM pending WHERE org_id = ? AND name = ?", own).fetchone()[0]
        flying = connection.execute(
            "SELECT coalesce(sum(rows), 0) FROM batch WHERE org_id = ? AND name = ? AND state NOT IN (?, ?)",
            (*own, BatchState.SETTLED, BatchState.ABANDONED),
        ).fetchone()[0]
        size = sum((folder / name).stat().st_size for name in files)
        return Known(
            *own, row["model"], row["object"], row["serial"], len(snapshot.kh) - left, left, waiting, flying, size
        )

    def folder(self, org_id: str, name: str) -> Path:
        return self.location / "snapshots" / org_id / name

    def image_folder(self, org_id: str, name: str) -> Path:
        return self.location / "images" / org_id / name

    def reset(self, org_id: str, name: str) -> bool:
        """Forget one activation's state in one org, unsettled jobs included; whether there was any. StateError DB501
        while a run holds it."""
        if not self.exists():
            return False
        own = (org_id, name)
        with self._lock(org_id, name):
            with self.connection(writing=True) as connection:
                if not connection.execute("SELECT 1 FROM activation WHERE org_id = ? AND name = ?", own).fetchone():
                    return False
                spools = connection.execute("SELECT spool FROM batch WHERE org_id = ? AND name = ?", own).fetchall()
                for table in ("activation", "batch", "pending"):
                    connection.execute(f"DELETE FROM {table} WHERE org_id = ? AND name = ?", own)
            for spool in spools:
                (self.location / "spool" / spool["spool"]).unlink(missing_ok=True)
            _keep_only(self.folder(org_id, name), ())
            _keep_only(self.image_folder(org_id, name), ())
        return True

    def move(self, org_id: str, old: str, new: str) -> None:
        """Give a renamed activation's state its new name. StateError if that name has state already, or DB501 while a
        run holds either."""
        with self._lock(org_id, old), self._lock(org_id, new), self.connection(writing=True) as connection:
            taken = connection.execute(
                "SELECT 1 FROM activation WHERE org_id = ? AND lower(name) = lower(?) AND runs > 0", (org_id, new)
            ).fetchone()
            source = connection.execute(
                "SELECT 1 FROM activation WHERE org_id = ? AND name = ? AND runs > 0", (org_id, old)
            ).fetchone()
            if taken or not source:
                reason = f"{new} already has state" if taken else f"{old} has no state"
                raise StateError("DB516", f"{reason} in org {org_id}", where=str(self.location))
            folders = [(of(org_id, old), of(org_id, new)) for of in (self.folder, self.image_folder)]
            for folder, target in folders:
                make_folder(target)
                _keep_only(target, ())  # left from a crash, or from a state of that name that was reset
                for path in folder.glob("*.parquet"):
                    os.link(path, target / path.name)
                sync_folder(target)
            connection.execute(
                "DELETE FROM activation WHERE org_id = ? AND name = ?", (org_id, new)
            )  # an epoch, no more
            for table in ("activation", "batch", "pending", "run"):
                connection.execute(f"UPDATE {table} SET name = ? WHERE org_id = ? AND name = ?", (new, org_id, old))
        for folder, _ in folders:
            _keep_only(folder, ())

    # History

    def runs(self, names: Sequence[str] | None = None, limit: int = 20) -> list[dict[str, Any]]:
        """The latest runs, newest first: id, activation, org, started, finished, status and what was counted."""
        if not self.exists():
            return []
        with self.connection(writing=False) as connection:
            chosen = "" if names is None else f"WHERE name IN ({','.join('?' * len(names))})"
            rows = connection.execute(
                f"SELECT * FROM run {chosen} ORDER BY started DESC, id DESC LIMIT ?", (*(names or ()), limit)
            ).fetchall()
        return [_run(row) for row in rows]

    def run(self, run_id: str) -> dict[str, Any] | None:
        if not self.exists():
            return None
        with self.connection(writing=False) as connection:
            row = connection.execute("SELECT * FROM run WHERE id = ?", (run_id,)).fetchone()
        return _run(row) if row else None

    def start_run(self, run_id: str, org_id: str, name: str, detail: dict[str, Any]) -> None:
        with self.connection(writing=True) as connection:
            connection.execute(
                "INSERT INTO run VALUES (?, ?, ?, ?, NULL, 'running', ?, NULL)",
                (run_id, org_id, name, self.clock.now(), json.dumps(detail)),
            )

    def finish_run(self, run_id: str, status: str, detail: dict[str, Any], not_delivered: pa.Table) -> None:
        """The run's end, and the rows it did not deliver, in a file of their own. Runs beyond `RUNS_KEPT` go."""
        file = None
        if len(not_delivered):
            folder = make_folder(self.location / "runs")
            file = f"{run_id}.parquet"
            write_whole(
                folder / file,
                lambda sink: pq.write_table(not_delivered, sink, compression="zstd", write_page_checksum=True),
            )
        with self.connection(writing=True) as connection:
            connection.execute(
                "UPDATE run SET finished = ?, status = ?, detail = ?, not_delivered = ? WHERE id = ?",
                (self.clock.now(), status, json.dumps(detail), file, run_id),
            )
            old = connection.execute(
                "SELECT id FROM run WHERE name = (SELECT name FROM run WHERE id = ?) "
                "ORDER BY started DESC LIMIT -1 OFFSET ?",
                (run_id, RUNS_KEPT),
            ).fetchall()
            connection.executemany("DELETE FROM run WHERE id = ?", [(row["id"],) for row in old])
        for row in old:
            (self.location / "runs" / f"{row['id']}.parquet").unlink(missing_ok=True)

    def not_delivered(self, run: dict[str, Any]) -> pa.Table:
        """The rows a run did not deliver: `LEFT_OUT` columns; empty if there are none."""
        if not run["not_delivered"]:
            return LEFT_OUT.empty_table()
        path = self.location / "runs" / run["not_delivered"]
        try:
            table = pq.read_table(path, page_checksum_verification=True)
        except (OSError, pa.ArrowException):
            table = None
        if table is None or not table.schema.equals(LEFT_OUT):
            raise StateError(
                "DB515",
                "the list of rows that the run did not deliver is missing or damaged; it is left as it is",
                where=str(path),
                hint="the next run writes its own; no sync reads this one",
            )
        return table


class ActivationState:
    """One activation's state in one org: `plan.StateView`, and in a locked run `sync.Journal`."""

    def __init__(self, store: LocalState, org_id: str, activation: Activation, *, writing: bool) -> None:
        self.store, self.org_id, self.activation, self.writing = store, org_id, activation, writing
        self.folder = store.folder(org_id, activation.name)
        self.spool_folder = store.location / "spool" / org_id / activation.name
        self.image_folder = store.image_folder(org_id, activation.name)
        self.exists, self.serial, self.epoch, self.run_number, self.finished_runs = False, 0, 0, 1, 0
        self.mappings: list[dict[str, Any]] = []
        self.files: list[str] = []
        self.previous: list[dict[str, Any]] = []
        self.in_flight: list[InFlight] = []
        self.other_orgs = 0
        self.siblings: list[str] = []
        self._began = False  # a run has drawn a plan for it
        self._held_at = self._renewed_at = -LEASE_S
        if store.exists():
            self._load()
        self.snapshot = FileSnapshot(self.folder, self.files)
        self.pending = self._pending()

    def reload(self) -> None:
        """See what this run itself has committed: the snapshot and the waits, after a dead run's jobs were settled."""
        self.snapshot = FileSnapshot(self.folder, self.files)
        self.pending = self._pending()
        self.exists = self.exists or self.serial > 0

    # Reading

    def _load(self) -> None:
        name = self.activation.name
        with self.store.connection(writing=False) as connection:
            rows = connection.execute("SELECT * FROM activation WHERE name = ?", (name,)).fetchall()
            self.other_orgs = sum(1 for row in rows if row["org_id"] != self.org_id and row["runs"])
            own = [row for row in rows if row["org_id"] == self.org_id]
            if own:
                self._read_row(own[0])
            if not self._began:
                self._find_siblings(connection)
            if not self.writing:
                self.in_flight = [self._flying(batch) for batch in self._open(connection)]

    def _read_row(self, row: sqlite3.Row) -> None:
        identity, wanted = json.loads(row["identity"]), identity_of(self.activation)
        self._began = row["runs"] > 0
        names = [name for name in wanted if _folded(identity.get(name)) != _folded(wanted[name])]
        if names and self._began:
            changes = ", ".join(f"{name} was {_shown(identity.get(name))}, is {_shown(wanted[name])}" for name in names)
            raise StateError(
                "DB505",
                f"the state of {self.activation.name} is of another identity: {changes}",
                where=self.activation.meta_path,
                hint="undo that, give the activation another name, or start again: "
                f"dinmo-dbt state reset --select {self.activation.name}",
            )
        self.serial, self.epoch, self.finished_runs = row["serial"], row["epoch"], row["finished_runs"]
        self.run_number = row["runs"] + 1
        self.exists = self.serial > 0 or self.finished_runs > 0
        self.mappings, self.files = json.loads(row["mappings"]), json.loads(row["files"])
        self.previous = json.loads(row["previous"])

    def _find_siblings(self, connection: sqlite3.Connection) -> None:
        """State of the same model and object under other names: one of them may be this activation's old name."""
        rows = connection.execute(
            "SELECT name FROM activation WHERE org_id = ? AND model = ? AND object = ? AND name <> ? AND serial > 0",
            (self.org_id, self.activation.model, self.activation.object, self.activation.name),
        ).fetchall()
        self.siblings = [row["name"] for row in rows]

    def refuse_renamed(self, declared: Sequence[str]) -> None:
        """StateError if this activation looks like one that was renamed: state without an activation, beside it."""
        orphans = [name for name in self.siblings if name not in declared]
        if orphans and not self._began:
            raise StateError(
                "DB506",
                f"{self.activation.name} has no state, but {orphans[0]}, which is declared no more, has: "
                "same model, same object",
                where=self.activation.meta_path,
                hint=f"renamed? dinmo-dbt state move {orphans[0]} {self.activation.name}. "
                f"A new one? dinmo-dbt state reset {orphans[0]}",
            )

    def _pending(self) -> Pending:
        if not self._began:
            return Pending.none()
        with self.store.connection(writing=False) as connection:
            rows = connection.execute(
                "SELECT kh, ck, code, next_run, next_try FROM pending WHERE org_id = ? AND name = ?",
                (self.org_id, self.activation.name),
            ).fetchall()
        now = self.store.clock.now()
        kh = np.array([row["kh"] for row in rows], np.int64).view(np.uint64)
        ck = np.array([row["ck"] for row in rows], np.int64).view(np.uint64)
        due = np.array([row["next_run"] <= self.run_number or row["next_try"] <= now for row in rows], np.bool_)
        codes = pa.array([row["code"] for row in rows], pa.utf8())
        order = np.argsort(kh, kind="stable")
        return Pending(kh[order], ck[order], due[order], codes.take(pa.array(order)))

    def _open(self, connection: sqlite3.Connection) -> list[sqlite3.Row]:
        return connection.execute(
            "SELECT * FROM batch WHERE org_id = ? AND name = ? AND state NOT IN (?, ?) ORDER BY id",
            (self.org_id, self.activation.name, BatchState.SETTLED, BatchState.ABANDONED),
        ).fetchall()

    def _flying(self, row: sqlite3.Row) -> InFlight:
        batch = read_batch(self._spool(row["spool"]), row["sha256"], json.loads(row["described"]))
        return InFlight(row["job_id"], batch.rows["kh"].to_numpy(), batch.rows["key"].combine_chunks())

    def _spool(self, name: str) -> Path:
        return self.store.location / "spool" / name

    # Journal

    def start(self) -> None:
        """At the start of a locked run: a new epoch, in which no earlier writer can write. Files that nothing names go,
        and runs that ended without a word are marked. StateError DB501 if the state has moved since it was read."""
        own = (self.org_id, self.activation.name)
        read = (self.epoch, self.serial)
        with self.store.connection(writing=True) as connection:
            row = connection.execute(
                "SELECT epoch, serial FROM activation WHERE org_id = ? AND name = ?", own
            ).fetchone()
            if read != ((row["epoch"], row["serial"]) if row else (0, 0)):
                raise StateError("DB501", "another run wrote meanwhile", where=str(self.folder), hint="try again")
            self.epoch += 1
            if row is None:
                self._insert_row(connection)
            self._renew(connection)
            connection.execute(
                "UPDATE run SET status = 'interrupted' WHERE org_id = ? AND name = ? AND status = 'running'", own
            )
            ended = (BatchState.SETTLED, BatchState.ABANDONED)
            connection.execute("DELETE FROM batch WHERE org_id = ? AND name = ? AND state IN (?, ?)", (*own, *ended))
            open_spools = [Path(row["spool"]).name for row in self._open(connection)]
        named = [name for pointer in ({"files": self.files}, *self.previous) for name in pointer["files"]]
        _keep_only(make_folder(self.folder), named)
        _keep_only(make_folder(self.spool_folder), open_spools)
        for path in imaging.expired(self.image_folder):
            path.unlink(missing_ok=True)

    def hold(self) -> None:
        now = self.store.clock.now()
        if self._held_at <= now < self._held_at + _HOLD_EVERY_S:
            return
        if now < self._renewed_at + LEASE_S / 3:
            with self.store.connection(writing=False) as connection:
                self._check_epoch(connection)
            self._held_at = now
        else:
            with self._transaction():
                pass

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """One transaction of the journal: refused, with nothing recorded, once another run has taken over."""
        with self.store.connection(writing=True) as connection:
            self._check_epoch(connection)
            if self.store.clock.now() >= self._renewed_at + LEASE_S / 3:
                self._renew(connection)
            yield connection

    def _check_epoch(self, connection: sqlite3.Connection) -> None:
        row = connection.execute(
            "SELECT epoch FROM activation WHERE org_id = ? AND name = ?", (self.org_id, self.activation.name)
        ).fetchone()
        if row is None or row["epoch"] != self.epoch:
            raise StateError(
                "DB503",
                f"another run took over {self.activation.name}: nothing more was recorded",
                where=str(self.folder),
                hint="the next run settles what this one left",
            )

    def _renew(self, connection: sqlite3.Connection) -> None:
        self._held_at = self._renewed_at = self.store.clock.now()
        connection.execute(
            "UPDATE activation SET epoch = ?, lease_until = ? WHERE org_id = ? AND name = ?",
            (self.epoch, self._renewed_at + LEASE_S, self.org_id, self.activation.name),
        )

    def open_batches(self) -> Sequence[Journalled]:
        if not self.store.exists():
            return []
        with self.store.connection(writing=False) as connection:
            return [_journalled(row) for row in self._open(connection)]

    def batch(self, journalled: Journalled) -> Batch:
        with self.store.connection(writing=False) as connection:
            row = connection.execute("SELECT * FROM batch WHERE id = ?", (journalled.id,)).fetchone()
        return read_batch(self._spool(row["spool"]), row["sha256"], json.loads(row["described"]))

    def begin(self, plan: Plan) -> None:
        drawn_from = (plan.org_id, plan.activation.digest, plan.serial)
        if drawn_from != (self.org_id, self.activation.digest, self.serial):
            raise StateError("DB504", "the plan is stale: the state moved since it was drawn", hint="draw it again")
        rows = pa.concat_tables([self._rebased(plan), self._leaving(plan)])
        self.mappings = [plan.mapping.header(), *(older.header() for older in plan.older)]
        delta = self._write_delta(rows)
        with self._transaction() as connection:
            self._update_row(connection)
            if delta:
                self._move_pointer(connection, [*self.files, delta])

    def _rebased(self, plan: Plan) -> pa.Table:
        positions, ck = plan.baseline.positions, plan.baseline.ck
        flags = self.snapshot.flags[positions] & ~np.uint8(Flag.LEFT | Flag.STALE)
        return self._delta_rows(positions, ck, flags.astype(np.uint8), "put")

    def _leaving(self, plan: Plan) -> pa.Table:
        flags = self.snapshot.flags[plan.left] | np.uint8(Flag.LEFT)
        return self._delta_rows(plan.left, self.snapshot.ck[plan.left], flags.astype(np.uint8), "leave")

    def _delta_rows(self, positions: Any, ck: Any, flags: Any, op: str) -> pa.Table:
        columns = [
            pa.array(self.snapshot.kh[positions]),
            pa.array(ck, pa.uint64()),
            self.snapshot.keys(positions),
            self.snapshot.record_ids(positions),
            pa.array(flags, pa.uint8()),
            pa.repeat(op, len(positions)),
        ]
        return pa.table(columns, schema=DELTA)

    def amend(self, rows: pa.Table) -> None:
        """Move the snapshot by these rows and nothing else, in one transaction: kh, ck, key, record_id, flags and op
        (put | leave | forget), at most one a key. `mappings` must say what their check hashes are of. The snapshot is
        read anew, so a plan drawn before is stale."""
        delta = self._write_delta(rows)
        if not delta:
            return
        with self._transaction() as connection:
            self._update_row(connection)
            self._move_pointer(connection, [*self.files, delta])
        self.reload()

    def planned(self, batch: Batch, run_id: str) -> None:
        name = f"{self.org_id}/{self.activation.name}/{batch.id}.arrow"
        digest = write_batch(self._spool(name), batch)
        with self._transaction() as connection:
            connection.execute(
                "INSERT INTO batch VALUES (?, ?, ?, ?, ?, ?, NULL, ?, ?, ?, ?)",
                (
                    batch.id,
                    self.org_id,
                    self.activation.name,
                    run_id,
                    self.epoch,
                    BatchState.PLANNED,
                    len(batch.rows),
                    name,
                    digest,
                    json.dumps(describe_batch(batch)),
                ),
            )

    def keep_image(self, run_id: str, image: pa.Table) -> None:
        imaging.keep(self.image_folder, run_id, image)

    def note_created(self, batch_id: str, created: pa.Table) -> None:
        if not len(created) or not self.image_folder.exists():
            return
        with self.store.connection(writing=False) as connection:
            row = connection.execute("SELECT run_id FROM batch WHERE id = ?", (batch_id,)).fetchone()
        if row is not None:
            imaging.note_created(self.image_folder, row["run_id"], created)

    def image(self, run_id: str) -> pa.Table | None:
        """The before-images of a run; None if it keeps none, or none any more."""
        return imaging.load(self.image_folder, run_id)

    def advance(self, batch_id: str, state: BatchState, job_id: str | None = None) -> None:
        with self._transaction() as connection:
            self._advance(connection, batch_id, state, job_id)

    def _advance(
        self, connection: sqlite3.Connection, batch_id: str, state: BatchState, job_id: str | None = None
    ) -> sqlite3.Row:
        row: sqlite3.Row | None = connection.execute("SELECT * FROM batch WHERE id = ?", (batch_id,)).fetchone()
        if row is None:
            raise StateError("DB503", "another process removed the batch from the state", where=str(self.folder))
        check_transition(BatchState(row["state"]), state)
        connection.execute(
            "UPDATE batch SET state = ?, job_id = coalesce(?, job_id) WHERE id = ?", (state, job_id, batch_id)
        )
        return row

    def abandon(self, batch_id: str) -> None:
        with self._transaction() as connection:
            row = self._advance(connection, batch_id, BatchState.ABANDONED)
        self._spool(row["spool"]).unlink(missing_ok=True)

    def settle(self, settlement: Settlement) -> None:
        delta = self._write_delta(settlement.snapshot)
        with self._transaction() as connection:
            row = self._advance(connection, settlement.batch_id, BatchState.SETTLED)
            self._update_row(connection)
            self._move_pointer(connection, [*self.files, delta] if delta else self.files)
            self._resolve(connection, settlement.resolved)
            # What a dead run sent was tried in its time: waiting counts from there.
            self._wait(connection, settlement.waiting, self.run_number - (row["epoch"] < self.epoch))
        self._spool(row["spool"]).unlink(missing_ok=True)

    def _write_delta(self, rows: pa.Table) -> str | None:
        if not len(rows):
            return None
        name = f"delta-{self.serial + 1:08d}.parquet"
        (self.folder / name).unlink(missing_ok=True)
        write_rows(self.folder / name, rows, DELTA)
        return name

    def _insert_row(self, connection: sqlite3.Connection) -> None:
        """A row to hold the epoch; with no run begun it is no state yet."""
        connection.execute(
            "INSERT INTO activation VALUES (?, ?, ?, ?, 0, ?, NULL, NULL, 0, 0, '{}', '[]', '[]', '[]')",
            (self.org_id, self.activation.name, self.activation.model, self.activation.object, self.epoch),
        )

    def _update_row(self, connection: sqlite3.Connection) -> None:
        connection.execute(
            "UPDATE activation SET model = ?, object = ?, runs = ?, finished_runs = ?, identity = ?, mappings = ? "
            "WHERE org_id = ? AND name = ?",
            (
                self.activation.model,
                self.activation.object,
                self.run_number,
                self.finished_runs,
                json.dumps(identity_of(self.activation)),
                json.dumps(self.mappings),
                self.org_id,
                self.activation.name,
            ),
        )
        self._began = True

    def _move_pointer(self, connection: sqlite3.Connection, files: list[str]) -> None:
        self.previous = [{"serial": self.serial, "files": self.files}, *self.previous][: SERIALS_KEPT - 1]
        self.serial, self.files = self.serial + 1, files
        moved = connection.execute(
            "UPDATE activation SET serial = ?, files = ?, previous = ? WHERE org_id = ? AND name = ? AND serial = ?",
            (
                self.serial,
                json.dumps(files),
                json.dumps(self.previous),
                self.org_id,
                self.activation.name,
                self.serial - 1,
            ),
        )
        if moved.rowcount != 1:
            raise StateError("DB503", "another process moved the state: nothing was recorded", where=str(self.folder))

    def _resolve(self, connection: sqlite3.Connection, rows: pa.Table) -> None:
        if not len(self.pending.kh):
            return
        waiting = rows.filter(pc.is_in(rows["kh"], value_set=pa.array(self.pending.kh)))
        connection.executemany(
            "DELETE FROM pending WHERE org_id = ? AND name = ? AND kh = ? AND key = ?",
            [
                (self.org_id, self.activation.name, kh, key)
                for kh, key in zip(_signed(waiting["kh"]), waiting["key"].to_pylist(), strict=True)
            ],
        )

    def _wait(self, connection: sqlite3.Connection, rows: pa.Table, tried_in: int) -> None:
        """Note rejected rows. The same row rejected again waits for twice as many runs."""
        next_try = self.store.clock.now() + BACK_OFF_MAX_S
        columns = ("fate", "code", "message", "fields", "transient")
        values = zip(
            _signed(rows["kh"]),
            rows["key"].to_pylist(),
            _signed(rows["ck"]),
            *(rows[c].to_pylist() for c in columns),
            strict=True,
        )
        for kh, key, ck, fate, code, message, fields, transient in values:
            row = (self.org_id, self.activation.name, kh, key, ck)
            before = connection.execute(
                "SELECT attempts FROM pending WHERE org_id = ? AND name = ? AND kh = ? AND key = ? AND ck = ?", row
            ).fetchone()
            attempts = (before["attempts"] if before else 0) + 1
            wait = 1 if transient else 2 ** min(attempts - 1, 30)
            connection.execute(
                "INSERT OR REPLACE INTO pending VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (*row, fate, code, message, fields, attempts, tried_in + wait, next_try),
            )

    def finish(self, *, complete: bool) -> None:
        if complete and len(self.mappings) > 1:
            self._drop_older_mappings()
        self.finished_runs += 1
        with self._transaction() as connection:
            self._update_row(connection)
            self._forget_waits(connection)
        if self._should_compact():
            self.compact()

    def _drop_older_mappings(self) -> None:
        """No present row is hashed under an older mapping any more; the rows that left are, so they are marked."""
        self.snapshot = FileSnapshot(self.folder, self.files)
        gone = np.flatnonzero(self.snapshot.flags & (Flag.LEFT | Flag.STALE) == Flag.LEFT)
        flags = (self.snapshot.flags[gone] | np.uint8(Flag.STALE)).astype(np.uint8)
        delta = self._write_delta(self._delta_rows(gone, self.snapshot.ck[gone], flags, "leave"))
        self.mappings = self.mappings[:1]
        with self._transaction() as connection:
            self._update_row(connection)
            if delta:
                self._move_pointer(connection, [*self.files, delta])

    def retry_now(self) -> int:
        """Make every row that waits due in the next run; how many there are."""
        with self._transaction() as connection:
            waiting = connection.execute(
                "UPDATE pending SET next_run = 0, next_try = 0 WHERE org_id = ? AND name = ?",
                (self.org_id, self.activation.name),
            )
            return waiting.rowcount

    def _forget_waits(self, connection: sqlite3.Connection) -> None:
        """Waits that were due have been tried by now: delivered, noted anew, or of a row that changed or left."""
        connection.execute(
            "DELETE FROM pending WHERE org_id = ? AND name = ? AND next_run <= ?",
            (self.org_id, self.activation.name, self.run_number),
        )

    def _should_compact(self) -> bool:
        deltas = [name for name in self.files if name.startswith("delta-")]
        if len(deltas) > DELTAS_MAX:
            return True
        sizes = {name: (self.folder / name).stat().st_size for name in self.files}
        base = sum(size for name, size in sizes.items() if name not in deltas)
        return sum(sizes[name] for name in deltas) > DELTA_SHARE_MAX * base

    def compact(self) -> None:
        """Base and deltas become one base file; the rows are the same."""
        snapshot = FileSnapshot(self.folder, self.files)
        name = f"base-{self.serial + 1:08d}.parquet"
        (self.folder / name).unlink(missing_ok=True)
        write_rows(self.folder / name, snapshot.table(), BASE)
        with self._transaction() as connection:
            self._move_pointer(connection, [name])


def identity_of(activation: Activation) -> dict[str, Any]:
    """What a state belongs to, besides its org and name; a change of it is another state."""
    mode = "update/upsert" if activation.mode.value in ("update", "upsert") else activation.mode.value
    return {
        "object": activation.object,
        "key": list(activation.key),
        "match": [activation.match.column, activation.match.field] if activation.match else None,
        "mode": mode,
    }


def _folded(value: Any) -> Any:
    """As Salesforce and most warehouses compare names: without case."""
    return [_folded(part) for part in value] if isinstance(value, list) else str(value).lower()


def _shown(value: Any) -> str:
    return ", ".join(value) if isinstance(value, list) else str(value)


def _take_lock(descriptor: int, name: str) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.pread(descriptor, 200, 0).decode(errors="replace").strip() or "another process"
        raise StateError(
            "DB501",
            f"{name} is being synced by {holder}",
            hint="wait for it; the lock goes by itself when that process ends",
        ) from error
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)


def _journalled(row: sqlite3.Row) -> Journalled:
    described = json.loads(row["described"])
    return Journalled(
        id=row["id"],
        run_id=row["run_id"],
        state=BatchState(row["state"]),
        operation=Operation(described["operation"]),
        object=described["object"],
        api=Api(described["api"]),
        rows=row["rows"],
        job_id=row["job_id"],
    )


def _run(row: sqlite3.Row) -> dict[str, Any]:
    return {
        "run_id": row["id"],
        "activation": row["name"],
        "org_id": row["org_id"],
        "started": row["started"],
        "finished": row["finished"],
        "status": row["status"],
        "not_delivered": row["not_delivered"],
        **json.loads(row["detail"]),
    }


def _signed(array: pa.ChunkedArray) -> list[int]:
    signed: list[int] = array.to_numpy().view(np.int64).tolist()
    return signed


def _keep_only(folder: Path, names: Sequence[str]) -> None:
    """Remove every file of the folder that is not named."""
    if folder.exists():
        for path in folder.iterdir():
            if path.name not in names and not path.is_dir():
                path.unlink(missing_ok=True)


def _damaged(path: Path) -> StateError:
    return StateError(
        "DB502",
        "the state is damaged, or is none of dinmo-dbt's; it is left as it is",
        where=str(path),
        hint="restore the state folder from a copy, or move it away and start again",
    )


def _operational(path: Path, error: sqlite3.OperationalError) -> StateError:
    text = str(error)
    if "full" in text:
        return StateError("DB510", "the disk is full; what was there before is untouched", where=str(path))
    if path.with_name(f"{path.name}-journal").exists() and "locked" not in text:
        return StateError(
            "DB515",
            "a commit was cut off, and only a writer may take it back; the state is whole",
            where=str(path),
            hint="run sync: it mends that first",
        )
    if "readonly" in text:
        return StateError("DB510", "the state is read-only; it is untouched", where=str(path))
    if "locked" in text or "busy" in text:
        return StateError("DB501", "the state is being written by another process", where=str(path), hint="try again")
    return StateError("DB515", f"the state can't be used: {text}", where=str(path))
