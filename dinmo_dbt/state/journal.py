"""One activation's state: what a plan is drawn from, and the journal of the run that sends it.

Every transaction of the journal first makes sure that the lease is still ours, and renews it.
"""

from __future__ import annotations

import json
import re
import secrets
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dinmo_dbt.activation import Activation, Mode
from dinmo_dbt.delivery.sync import BatchState, Journalled, Settlement, check_transition
from dinmo_dbt.destination import Api, Batch, Operation
from dinmo_dbt.errors import StateError
from dinmo_dbt.plan.guards import Counted, Day
from dinmo_dbt.plan.plan import InFlight, Plan
from dinmo_dbt.rows.changes import GIVEN_UP, Flag, Pending, snapshot_rows
from dinmo_dbt.rows.mapping import from_header
from dinmo_dbt.rows.rowhash import DIGEST, HASH_VERSION, from_arrow
from dinmo_dbt.state import daily, imaging, seal
from dinmo_dbt.state.expendable import HistoryDamaged
from dinmo_dbt.state.files import Stored, first_bent, stored_of
from dinmo_dbt.state.lease import LEASE_S, RENEW_S, Holder, taken_over
from dinmo_dbt.state.seal import ENDED
from dinmo_dbt.state.snapshot import BASE, DELTA, FileSnapshot, damaged, writer
from dinmo_dbt.state.spool import batch_writer, describe_batch, read_batch
from dinmo_dbt.state.state_id import OWN, StateId
from dinmo_dbt.upkeep.audit import WATCHED

if TYPE_CHECKING:
    from dinmo_dbt.state.store import Connection, Lock, Store

DELTAS_MAX = 16
DELTA_SHARE_MAX = 0.10
SERIALS_KEPT = 3
TRACE_S = 30 * 86_400.0  # Salesforce forgets a job 7 days after its end, and a job may last
TRACE_MIN = 2_000  # whatever the clock says: it may have run ahead
# A permanently rejected row is tried again after 1, 2, 4… runs, but at least once a day.
BACK_OFF_MAX_S = 24 * 3600
_HOLD_EVERY_S = 1.0
GIVEN_UP_RUNS = 32
_HELD_ROWS = 1 << 20  # of others' records, looked at at one time


class ActivationState:
    """One activation's state: `plan.StateView`, and in a locked run `sync.Journal`."""

    def __init__(self, store: Store, own: StateId, activation: Activation, *, writing: bool) -> None:
        self.store, self.own, self.activation, self.writing = store, own, activation, writing
        self.org_id = own.org_id
        self.place = snapshot_place(own)
        self.image_place = imaging.image_place(own)
        self.where = f"{store.location}: {own}"
        self.exists, self.serial, self.epoch, self.run_number, self.finished_runs = False, 0, 0, 1, 0
        self.mappings: list[dict[str, Any]] = []
        self.files: list[Stored] = []
        self.previous: list[dict[str, Any]] = []
        self.in_flight: list[InFlight] = []
        self.other_orgs: list[str] = []
        self.other_targets: dict[str, list[str]] = {}  # whose state is of this org too: their activations
        self.siblings: list[str] = []
        self.lineage = ""
        self._given_up: frozenset[str] = frozenset()  # keys of rows that the plan does not try any more
        self._began = False  # a run has drawn a plan for it
        self.admitted = 0
        self._born = 0  # the serial at which it began, or was forgotten
        self._owner: str | None = None  # who holds the lease, as it is written there
        self._held_at = self._renewed_at = -LEASE_S  # by the clock that nobody sets
        self._set = 0.0  # how far the other clock was from it, when the lease was renewed
        self._marked_serial = -1
        self._pointer_mappings: list[dict[str, Any]] = []  # those of the serial that the pointer is at
        if store.exists():
            with self._as_written():
                self._load()
        self._snapshot = None if writing else self._read_snapshot()
        self.pending = self._pending()
        self.day = self._day()

    @property
    def snapshot(self) -> FileSnapshot:
        """What was acknowledged when it was first asked for, or asked for after `reload`: a run settles before that."""
        if self._snapshot is None:
            self._snapshot = self._read_snapshot()
        return self._snapshot

    def reload(self) -> None:
        """See what this run itself has committed: the snapshot and the waits, after a dead run's jobs were settled."""
        self._snapshot = None
        self.pending = self._pending()
        self.day = self._day()
        self.exists = self.exists or self.serial > self._born

    def _read_snapshot(self) -> FileSnapshot:
        names = [file.name for file in self.files]
        return FileSnapshot(self.store.files.fetch(self.place, names), names, self._ways_out_of_damage())

    # Reading

    @contextmanager
    def _as_written(self) -> Iterator[None]:
        """StateError DB502 when what is read is not what was written: no text of ours gives these errors."""
        try:
            yield
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise bent(str(self.store.location)) from error

    def _load(self) -> None:
        beside = self.store.files.names(self.place)  # before the pointer is read: a run that commits names its own
        with self.store.connection(writing=False) as connection:
            rows = connection.execute(
                "SELECT * FROM activation WHERE target = ? AND name = ?", (self.own.target, self.own.name)
            ).fetchall()
            self.lineage = self.store.lineage(connection)
            self.other_orgs = sorted(row["org_id"] for row in rows if row["org_id"] != self.org_id and row["runs"])
            beside_us = connection.execute(
                "SELECT target, name FROM activation WHERE org_id = ? AND target <> ? AND runs > 0 "
                "ORDER BY target, name",
                self.own[:2],
            ).fetchall()
            for row in beside_us:
                self.other_targets.setdefault(row["target"], []).append(row["name"])
            own = [row for row in rows if row["org_id"] == self.org_id]
            if own:
                self._read_row(own[0])
            self._refuse_broken(connection, beside, known=bool(own))
            if not self._began:
                self._find_siblings(connection)
            if not self.writing:
                self.in_flight = [self._flying(batch) for batch in self._open(connection)]
        if self._began:
            self._refuse_older(beside)
            self._refuse_bent()

    def _refuse_broken(self, connection: Connection, beside: Sequence[str], *, known: bool) -> None:
        """What somebody has changed by hand, or taken out: each activation that was ever run has a row."""
        remains = beside or self.store.marks.get(self.lineage, self.own) or self._open(connection)
        if remains if not known else not seal.is_whole(connection, self.own):
            raise self._broken()

    def _broken(self) -> StateError:
        return seal.broken(self.where, _ways_out(self.activation.name, self.activation))

    def _refuse_older(self, beside: Sequence[str]) -> None:
        """A copy of an earlier day that was put back looks whole: files or this user's marks know of newer serials."""
        name = self.activation.name
        newest = max(map(file_serial, beside), default=0) - 1  # the file of a commit that was cut off is one ahead
        newest = max(newest, self.store.marks.get(self.lineage, self.own))
        if self.serial < newest:
            raise StateError(
                "DB518",
                f"the state is an older copy: it has serial {self.serial}, and serial {newest} was reached before",
                where=self.where,
                hint="was this folder copied, and the other copy synced since? Give each an org of its own. "
                "Else put the newer state back, or go on from this one: "
                + _ways_out(name, self.activation, self.serial),
            )

    def _refuse_bent(self) -> None:
        """Each file is the one that was written: a page's own checksum does not cover the file's footer."""
        files = self.store.files
        folder = files.fetch(self.place, [file.name for file in self.files])
        found = first_bent(folder, self.files)
        if found:
            raise damaged(folder / found.name, self._ways_out_of_damage())

    def _ways_out_of_damage(self) -> str:
        return _ways_out(self.activation.name, self.activation, *(pointer["serial"] for pointer in self.previous))

    def _read_row(self, row: Mapping[str, Any]) -> None:
        identity, wanted = json.loads(row["identity"]), identity_of(self.activation)
        self._began = row["runs"] > 0
        names = [name for name in wanted if _folded(identity.get(name)) != _folded(wanted[name])]
        if names and self._began:
            changes = ", ".join(f"{name} was {_shown(identity.get(name))}, is {_shown(wanted[name])}" for name in names)
            raise StateError(
                "DB505",
                f"the state of {self.activation.name} is of another identity: {changes}",
                where=self.activation.meta_path,
                hint=f"undo that, give the activation another name, or {_anew(self.activation)}",
            )
        self.serial, self.epoch, self.finished_runs = row["serial"], row["epoch"], row["finished_runs"]
        self.run_number = row["runs"] + 1
        self._born, self.admitted = row["born"], row["admitted"]
        self.exists = self.serial > self._born or self.finished_runs > 0
        self.mappings = self._pointer_mappings = json.loads(row["mappings"])
        for header in self.mappings:
            self._refuse_other_hash(header["hash_version"])
            from_header(header)
        self.files = [stored_of(value) for value in json.loads(row["files"])]
        # Both are asked for later, where it would be too late to refuse a pointer without them.
        self.previous = [
            {**kept, "serial": kept["serial"], "files": kept["files"]} for kept in json.loads(row["previous"])
        ]

    def _refuse_other_hash(self, version: int) -> None:
        """Hashes of two versions can't be compared, so every row would look changed: only Salesforce can tell."""
        if version != HASH_VERSION:
            name = self.activation.name
            raise StateError(
                "DB523",
                f"the rows were hashed by version {version} of the row hash; this dinmo-dbt has version "
                f"{HASH_VERSION}, and can't tell which of them changed",
                where=self.where,
                hint=f"compare them with Salesforce, once: dinmo-dbt state reset {name}, then before any sync "
                f"{self.activation.adopting} --yes, which takes over what is equal and writes no record",
            )

    def _find_siblings(self, connection: Connection) -> None:
        """State of the same model and object under other names: one of them may be this activation's old name."""
        rows = connection.execute(
            "SELECT name FROM activation WHERE org_id = ? AND target = ? AND name <> ? AND model = ? AND object = ? "
            "AND runs > 0 AND serial > born",
            (*self.own, self.activation.model, self.activation.object),
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

    def refuse_shared(self, may_share: Collection[str], places: Mapping[str, str]) -> None:
        """StateError if another dbt target's state is of this org, and neither target says that this is meant.
        `places`: where the targets that there are declared."""
        target = self.own.target
        for other, names in self.other_targets.items():
            if other in may_share:
                continue
            declared = places.get(other)
            moving = f"renamed? dinmo-dbt state move --from-target {other} --target {target}"
            meant = f"two targets on purpose? shares_org_with: [{other}] under target {target} in dinmo.yml"
            ways = [meant, moving] if declared else [moving, meant]
            there = f"declared at {declared}" if declared else "which dinmo.yml does not have any more"
            raise StateError(
                "DB508",
                f"org {self.org_id} is dbt target {other}'s too: the state has {len(names)} of its activations there, "
                f"{names[0]} among them; {other} is {there}",
                where=places.get(target, self.where),
                hint=f"{'. '.join(ways)}. {other} not in use any more? dinmo-dbt state reset --all --of-target {other}",
            )

    def held_elsewhere(self, record_ids: pa.Array, fields: Collection[str] | None = None) -> npt.NDArray[np.bool_]:
        """Which of these records a row has that another activation, or another dbt target, keeps in this org; with
        `fields`, one that writes any of them. A file of theirs that can't be read is a StateError: nothing is known of
        their records then."""
        found = np.zeros(len(record_ids), np.bool_)
        if not len(record_ids) or not self.store.exists():
            return found
        with self.store.connection(writing=False) as connection:
            rows = connection.execute(
                "SELECT target, name, files, mappings FROM activation "
                "WHERE org_id = ? AND lower(object) = ? AND runs > 0 "
                "AND NOT (target = ? AND name = ?)",
                (self.org_id, self.activation.object.lower(), self.own.target, self.own.name),
            ).fetchall()
            for row in rows:
                own = StateId(self.org_id, row["target"], row["name"])
                if not seal.is_whole(connection, own):
                    raise seal.broken(f"{self.store.location}: {own}", f"start again: dinmo-dbt state reset {own.name}")
        for row in rows:
            if fields is not None and not _written_fields(row["mappings"]) & {name.lower() for name in fields}:
                continue
            own = StateId(self.org_id, row["target"], row["name"])
            names, place = [file["name"] for file in json.loads(row["files"])], snapshot_place(own)
            theirs = FileSnapshot(self.store.files.fetch(place, names), names, f"look at {own}: dinmo-dbt state show")
            present = np.flatnonzero(theirs.flags & Flag.LEFT == 0)
            for start in range(0, len(present), _HELD_ROWS):
                ids = theirs.record_ids(present[start : start + _HELD_ROWS])
                found |= pc.is_in(record_ids, value_set=ids.drop_null()).to_numpy(zero_copy_only=False)
        return found

    def _pending(self) -> Pending:
        if not self._began:
            return Pending.none()
        with self.store.connection(writing=False) as connection:
            rows = connection.execute(
                f"SELECT kh, ck, code, next_run, next_try, described, since FROM pending WHERE {OWN}", self.own
            ).fetchall()
        now = self.store.clock.now()
        kh = np.array([row["kh"] for row in rows], np.int64).view(np.uint64)
        with self._as_written():
            ck = from_arrow(pa.array([bytes.fromhex(row["ck"]) for row in rows], DIGEST))
        passed = [
            row["next_try"] <= now or row["next_try"] > now + BACK_OFF_MAX_S for row in rows
        ]  # or by a wrong clock
        due = np.array([row["next_run"] <= self.run_number for row in rows], np.bool_) | np.array(passed, np.bool_)
        codes = pa.array([row["code"] for row in rows], pa.utf8())
        described = pa.array([row["described"] for row in rows], pa.utf8())
        since = np.array([row["since"] if row["next_try"] else 0.0 for row in rows], np.float64)  # 0: `retry_now`
        order = np.argsort(kh, kind="stable")
        taken = pa.array(order)
        return Pending(kh[order], ck[order], due[order], codes.take(taken), described.take(taken), since[order])

    def _day(self) -> Day:
        if not self._began:
            return Day()
        with self.store.connection(writing=False) as connection, self._as_written():
            return daily.total(connection, self.own, self.store.clock.now())

    def _open(self, connection: Connection) -> list[Any]:
        return connection.execute(
            f"SELECT * FROM batch WHERE {OWN} AND state NOT IN (?, ?) ORDER BY id", (*self.own, *ENDED)
        ).fetchall()

    def _flying(self, row: Mapping[str, Any]) -> InFlight:
        batch = self._spooled(row)
        return InFlight(row["job_id"], batch.rows["kh"].to_numpy(), batch.rows["key"].combine_chunks())

    def _spooled(self, row: Mapping[str, Any]) -> Batch:
        folder, name = spool_place(row["spool"])
        path = self.store.files.fetch(folder, [name]) / name
        return read_batch(path, row["sha256"], json.loads(row["described"]))

    # Trace: what the org's list of jobs is held against

    def known_jobs(self) -> frozenset[str]:
        """Jobs that a run of this state made, whichever activation it was of, and those that were accepted."""
        if not self.store.exists():
            return frozenset()
        with self.store.connection(writing=False) as connection:
            rows = connection.execute("SELECT mark FROM trace WHERE org_id = ?", (self.org_id,)).fetchall()
        return frozenset(row["mark"] for row in rows)

    def know(self, marks: Collection[str]) -> None:
        with self._transaction() as connection:
            _know(connection, self.org_id, marks, self.store.clock.now())

    def read_jobs(self) -> frozenset[str]:
        names = self.store.files.names(trace_place(self.org_id))
        return frozenset(name.removesuffix(".parquet") for name in names if name.endswith(".parquet"))

    def job_rows(self, job_id: str) -> pa.Table | None:
        name = f"{job_id}.parquet"
        path = self.store.files.fetch(trace_place(self.org_id), [name]) / name
        try:
            return pq.read_table(path, page_checksum_verification=True, partitioning=None)
        except (OSError, pa.ArrowException):
            return None

    def keep_job_rows(self, job_id: str, rows: pa.Table) -> None:
        self.store.files.put(
            trace_place(self.org_id),
            f"{job_id}.parquet",
            lambda sink: pq.write_table(rows, sink, compression="zstd", write_page_checksum=True),
        )

    def drop_job_rows(self, jobs: Collection[str]) -> None:
        self.store.files.remove(trace_place(self.org_id), [f"{job_id}.parquet" for job_id in jobs])

    # Journal

    def start(self, lock: Lock, holder: Holder) -> None:
        """Take the lease. Files that nothing names go. StateError DB501 if somebody else has it, or the state has moved
        since it was read."""
        own = self.own
        spools = f"spool/{own.folder}"
        since = self.store.clock.monotonic()
        with self.store.connection(writing=True) as connection:
            row = self.store.take(connection, lock, own, holder)
            if (row["epoch"] - 1, row["serial"]) != (self.epoch, self.serial):
                raise StateError("DB501", "another run wrote meanwhile", where=self.where, hint="try again")
            self._owner, self.epoch = holder.as_text(), self.epoch + 1
            if not self._began:
                self.lineage = self.store.lineage(connection)
                self.serial = self._born = self.store.newest(connection, own, self.serial)
                connection.execute(
                    f"UPDATE activation SET serial = ?, born = ?, model = ?, object = ? WHERE {OWN}",
                    (self.serial, self.serial, self.activation.model, self.activation.object, *own),
                )
            connection.execute(f"DELETE FROM batch WHERE {OWN} AND state IN (?, ?)", (*self.own, *ENDED))
            connection.execute(
                "DELETE FROM trace WHERE org_id = ? AND noted < ? AND mark NOT IN "
                "(SELECT mark FROM trace WHERE org_id = ? ORDER BY noted DESC LIMIT ?)",
                (self.org_id, self.store.clock.now() - TRACE_S, self.org_id, TRACE_MIN),
            )
            seal.renew(connection, own)
            open_spools = [spool_place(row["spool"])[1] for row in self._open(connection)]
            # What is listed while no later writer can be there is ours to remove, whenever we come to it.
            named = {file.name for file in self.files}
            named |= {file["name"] for pointer in self.previous for file in pointer["files"]}
            gone = [file for file in self.store.files.names(self.place) if file not in named]
            gone_images = imaging.expired(self.store.files, self.image_place)
            gone_spools = [file for file in self.store.files.names(spools) if file not in open_spools]
        lock.taken()
        self._renewed(since)
        self.store.files.remove(self.place, gone)
        self.store.files.remove(spools, gone_spools)
        self.store.files.remove(self.image_place, gone_images)

    def _renewed(self, since: float) -> None:
        self._held_at = self._renewed_at = since
        self._set = self.store.clock.now() - self.store.clock.monotonic()

    def release(self) -> None:
        """Give the lease back, if it is still ours."""
        if self._owner is not None:
            with self.store.connection(writing=True) as connection:
                connection.execute(
                    f"UPDATE activation SET lease_owner = NULL, lease_until = NULL WHERE {OWN} AND lease_owner = ?",
                    (*self.own, self._owner),
                )

    def hold(self) -> None:
        now = self.store.clock.monotonic()
        is_set = abs(self.store.clock.now() - now - self._set) > RENEW_S
        if now < self._held_at + _HOLD_EVERY_S and not is_set:
            return
        if now >= self._renewed_at + RENEW_S or is_set:
            with self._transaction():
                return
        with self.store.connection(writing=False) as connection:
            ours = connection.execute(
                f"SELECT epoch FROM activation WHERE {OWN} AND epoch = ? AND lease_owner = ?", self._ours()
            ).fetchall()
        if not ours:
            raise taken_over(self.activation.name, self.where)
        self._held_at = now

    @contextmanager
    def kept(self) -> Iterator[None]:
        """While we only wait, for a warehouse say: the lease is renewed beside it. The next write tells if it was lost
        all the same."""
        done = threading.Event()

        def renew() -> None:
            while not done.wait(RENEW_S):
                with suppress(StateError):
                    self.hold()

        thread = threading.Thread(target=renew, name="lease", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        """One transaction of the journal, which renews the lease; refused, with nothing recorded, once another run has
        taken over."""
        since = (
            self.store.clock.monotonic()
        )  # the lease's own moment: a process may be paused as soon as it has committed
        with self.store.connection(writing=True) as connection:
            ours = connection.execute(
                f"UPDATE activation SET lease_until = ? WHERE {OWN} AND epoch = ? AND lease_owner = ?",
                (self.store.now(connection) + LEASE_S, *self._ours()),
            ).rowcount
            if not ours:
                raise taken_over(self.activation.name, self.where)
            yield connection
            seal.renew(connection, self.own)
        self._renewed(since)
        self._pointer_mappings = self.mappings
        if self._began and self.serial != self._marked_serial:
            self.store.marks.raise_to(self.lineage, self.own, self.serial)
            self._marked_serial = self.serial

    def _ours(self) -> tuple[object, ...]:
        assert self._owner is not None, "a journal is written by a locked run"
        return (*self.own, self.epoch, self._owner)

    def open_batches(self) -> Sequence[Journalled]:
        if not self.store.exists():
            return []
        with self.store.connection(writing=False) as connection:
            rows = self._open(connection)
        with self._as_written():
            return [_journalled(row) for row in rows]

    def batch(self, journalled: Journalled) -> Batch:
        with self.store.connection(writing=False) as connection:
            row = connection.execute("SELECT * FROM batch WHERE id = ?", (journalled.id,)).fetchone()
        with self._as_written():
            return self._spooled(row)

    def begin(self, plan: Plan) -> None:
        drawn_from = (plan.org_id, plan.activation.digest, plan.serial)
        if drawn_from != (self.org_id, self.activation.digest, self.serial):
            raise StateError("DB504", "the plan is stale: the state moved since it was drawn", hint="draw it again")
        rows = pa.concat_tables([self._rebased(plan), self._leaving(plan)])
        self.mappings = [plan.mapping.header(), *(older.header() for older in plan.older)]
        self.admitted = plan.admitted
        self._given_up = frozenset(plan.left_out.filter(pc.equal(plan.left_out["code"], GIVEN_UP))["key"].to_pylist())
        delta = self._write_delta(rows)
        with self._transaction() as connection:
            self._update_row(connection)
            daily.forgive(connection, self.own, plan.passed)
            if Counted.RESPELLED not in plan.passed:
                gone = np.setdiff1d(self.snapshot.kh[plan.changes.left], self.day.left)
                daily.add(connection, self.own, secrets.token_hex(8), self.store.clock.now(), Day(left=gone))
            if delta:
                self._move_pointer(connection, [*self.files, delta])

    def _rebased(self, plan: Plan) -> pa.Table:
        positions, ck = plan.baseline.positions, plan.baseline.ck
        flags = self.snapshot.flags[positions] & ~np.uint8(Flag.LEFT | Flag.STALE)
        return snapshot_rows(self.snapshot, positions, "put", flags.astype(np.uint8), ck)

    def _leaving(self, plan: Plan) -> pa.Table:
        noted = plan.leavers.noted
        flags = self.snapshot.flags[noted] | np.uint8(Flag.LEFT)
        return snapshot_rows(self.snapshot, noted, "leave", flags.astype(np.uint8))

    def amend(self, rows: pa.Table) -> None:
        """Move the snapshot by these rows and nothing else, in one transaction: kh, ck, key, record_id, flags and op
        (put | leave | forget), at most one a key. `mappings` must say what their check hashes are of. A row that is put
        waits no longer. The snapshot is read anew, so a plan drawn before is stale."""
        delta = self._write_delta(rows)
        if not delta:
            return
        with self._transaction() as connection:
            self._update_row(connection)
            self._move_pointer(connection, [*self.files, delta])
            self._resolve(connection, rows.filter(pc.equal(rows["op"], "put")))
        self.reload()

    def planned(self, batch: Batch, run_id: str) -> None:
        name = f"{self.own.folder}/{batch.id}.arrow"
        spooled = self.store.files.put(*spool_place(name), batch_writer(batch))
        with self._transaction() as connection:
            connection.execute(
                "INSERT INTO batch VALUES (?, ?, ?, ?, ?, ?, ?, NULL, ?, ?, ?, ?)",
                (
                    batch.id,
                    *self.own,
                    run_id,
                    self.epoch,
                    BatchState.PLANNED.value,
                    len(batch.rows),
                    name,
                    spooled.sha256,
                    json.dumps(describe_batch(batch)),
                ),
            )

    def keep_image(self, run_id: str, image: pa.Table) -> None:
        imaging.keep(self.store.files, self.image_place, run_id, image)

    def note_created(self, batch_id: str, created: pa.Table) -> None:
        if not len(created) or not self.store.files.names(self.image_place):
            return
        with self.store.connection(writing=False) as connection:
            row = connection.execute("SELECT run_id FROM batch WHERE id = ?", (batch_id,)).fetchone()
        if row is not None:
            imaging.note_created(self.store.files, self.image_place, row["run_id"], created)

    def image(self, run_id: str) -> pa.Table | None:
        """The before-images of a run; None if it keeps none, or none any more."""
        return imaging.load(self.store.files, self.image_place, run_id)

    def advance(self, batch_id: str, state: BatchState, job_id: str | None = None) -> None:
        with self._transaction() as connection:
            self._advance(connection, batch_id, state, job_id)

    def _advance(
        self, connection: Connection, batch_id: str, state: BatchState, job_id: str | None = None
    ) -> Mapping[str, Any]:
        row: Mapping[str, Any] | None = connection.execute("SELECT * FROM batch WHERE id = ?", (batch_id,)).fetchone()
        if row is None:
            raise StateError("DB503", "another process removed the batch from the state", where=self.where)
        check_transition(BatchState(row["state"]), state)
        connection.execute(
            "UPDATE batch SET state = ?, job_id = coalesce(?, job_id) WHERE id = ?", (state.value, job_id, batch_id)
        )
        if job_id is not None:
            _know(connection, self.org_id, [job_id], self.store.clock.now())
        return row

    def abandon(self, batch_id: str) -> None:
        with self._transaction() as connection:
            row = self._advance(connection, batch_id, BatchState.ABANDONED)
        self._drop_spool(row)

    def settle(self, settlement: Settlement) -> None:
        delta = self._write_delta(settlement.snapshot)
        with self._transaction() as connection:
            row = self._advance(connection, settlement.batch_id, BatchState.SETTLED)
            self._update_row(connection)
            self._move_pointer(connection, [*self.files, delta] if delta else self.files)
            self._resolve(connection, settlement.resolved)
            # What a dead run sent was tried in its time: waiting counts from there.
            daily.add(connection, self.own, settlement.batch_id, self.store.clock.now(), settlement.day)
            self._wait(connection, settlement.waiting, self.run_number - (row["epoch"] < self.epoch))
        self._drop_spool(row)

    def _drop_spool(self, row: Mapping[str, Any]) -> None:
        folder, name = spool_place(row["spool"])
        self.store.files.remove(folder, [name])

    def _write_delta(self, rows: pa.Table) -> Stored | None:
        return self._write("delta", writer(rows, DELTA)) if len(rows) else None

    def _write(self, kind: str, write: Callable[[pa.NativeFile], None]) -> Stored:
        """A file of the next serial. Its name is this epoch's own: a writer that was taken over while it writes does
        not write over another's."""
        return self.store.files.put(self.place, f"{kind}-{self.serial + 1:08d}.{self.epoch}.parquet", write)

    def _update_row(self, connection: Connection) -> None:
        connection.execute(
            "UPDATE activation SET model = ?, object = ?, runs = ?, finished_runs = ?, admitted = ?, identity = ?, "
            f"mappings = ? WHERE {OWN}",
            (
                self.activation.model,
                self.activation.object,
                self.run_number,
                self.finished_runs,
                self.admitted,
                json.dumps(identity_of(self.activation)),
                json.dumps(self.mappings),
                *self.own,
            ),
        )
        self._began = True

    def _move_pointer(self, connection: Connection, files: list[Stored]) -> None:
        pointer = {"serial": self.serial, "files": _plain(self.files), "mappings": self._pointer_mappings}
        self.previous = [pointer, *self.previous][: SERIALS_KEPT - 1]
        self.serial, self.files = self.serial + 1, files
        moved = connection.execute(
            f"UPDATE activation SET serial = ?, files = ?, previous = ? WHERE {OWN} AND serial = ?",
            (
                self.serial,
                json.dumps(_plain(files)),
                json.dumps(self.previous),
                *self.own,
                self.serial - 1,
            ),
        ).rowcount
        if not moved:
            raise StateError("DB503", "another process moved the state: nothing was recorded", where=self.where)

    def _resolve(self, connection: Connection, rows: pa.Table) -> None:
        if not len(self.pending.kh):
            return
        waiting = rows.filter(pc.is_in(rows["kh"], value_set=pa.array(self.pending.kh)))
        connection.executemany(
            f"DELETE FROM pending WHERE {OWN} AND kh = ? AND key = ?",
            [(*self.own, kh, key) for kh, key in zip(_signed(waiting["kh"]), waiting["key"].to_pylist(), strict=True)],
        )

    def _wait(self, connection: Connection, rows: pa.Table, tried_in: int) -> None:
        """Note rejected rows. The same row rejected again waits for twice as many runs."""
        if not len(rows):
            return
        before = connection.execute(f"SELECT kh, key, ck, attempts FROM pending WHERE {OWN}", self.own).fetchall()
        tried = {(row["kh"], row["key"], row["ck"]): row["attempts"] for row in before}
        next_try = self.store.clock.now() + BACK_OFF_MAX_S
        columns = ("fate", "code", "message", "fields", "transient", "described", "since")
        values = zip(
            _signed(rows["kh"]),
            rows["key"].to_pylist(),
            [ck.hex() for ck in rows["ck"].to_pylist()],
            *(rows[c].to_pylist() for c in columns),
            strict=True,
        )
        noted = []
        for kh, key, ck, fate, code, message, fields, transient, described, since in values:
            attempts = tried.get((kh, key, ck), 0) + 1
            wait = 1 if transient else 2 ** min(attempts - 1, 30)
            told = (fate, code, message, fields, attempts, tried_in + wait, next_try, described, since, 0)
            noted.append((*self.own, kh, key, ck, *told))
        connection.executemany(
            "INSERT INTO pending VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) "
            "ON CONFLICT (org_id, target, name, kh, key, ck) DO UPDATE SET "
            "class = excluded.class, code = excluded.code, message = excluded.message, "
            "fields = excluded.fields, attempts = excluded.attempts, next_run = excluded.next_run, "
            "next_try = excluded.next_try, described = excluded.described, given_up = 0, "
            "since = CASE WHEN pending.since > 0 THEN pending.since ELSE excluded.since END",
            noted,
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
        self._snapshot = None
        gone = np.flatnonzero(self.snapshot.flags & (Flag.LEFT | Flag.STALE) == Flag.LEFT)
        flags = (self.snapshot.flags[gone] | np.uint8(Flag.STALE)).astype(np.uint8)
        delta = self._write_delta(snapshot_rows(self.snapshot, gone, "leave", flags))
        self.mappings = self.mappings[:1]
        with self._transaction() as connection:
            self._update_row(connection)
            if delta:
                self._move_pointer(connection, [*self.files, delta])

    def watched(self) -> pa.Table:
        """`audit.WATCHED`: what the audits of earlier runs keep of some rows."""
        if not self._began:
            return WATCHED.empty_table()
        with self.store.connection(writing=False) as connection:
            rows = connection.execute(
                f"SELECT kh, ck, record_id, digests, seal FROM watched WHERE {OWN} ORDER BY kh", self.own
            ).fetchall()
        if any(row["seal"] != seal.of([row[name] for name in WATCHED.names]) for row in rows):
            raise self._broken()
        kh = np.array([row["kh"] for row in rows], np.int64).view(np.uint64)
        texts = ([row[name] for row in rows] for name in ("ck", "record_id", "digests"))
        return pa.table([pa.array(kh), *(pa.array(text, pa.utf8()) for text in texts)], schema=WATCHED)

    def watch(self, rows: pa.Table) -> None:
        """Keep these of them instead, at most one a key hash."""
        texts = (rows[name].to_pylist() for name in ("ck", "record_id", "digests"))
        told = list(zip(_signed(rows["kh"]), *texts, strict=True))
        with self._transaction() as connection:
            connection.execute(f"DELETE FROM watched WHERE {OWN}", self.own)
            connection.executemany(
                "INSERT INTO watched VALUES (?, ?, ?, ?, ?, ?, ?, ?)", [(*self.own, *row, seal.of(row)) for row in told]
            )

    def retry_now(self) -> int:
        """Make every row that waits due in the next run; how many there are."""
        with self._transaction() as connection:
            return connection.execute(f"UPDATE pending SET next_run = 0, next_try = 0 WHERE {OWN}", self.own).rowcount

    def _forget_waits(self, connection: Connection) -> None:
        """Waits that were due have been tried by now: delivered, noted anew, or of a row that changed or left. Those
        that are given up wait on, and are looked after again some runs later."""
        due = (*self.own, self.run_number)
        if self._given_up:
            found = connection.execute(
                f"SELECT kh, key, ck, since FROM pending WHERE {OWN} AND next_run <= ?", due
            ).fetchall()
            later = self.run_number + GIVEN_UP_RUNS
            connection.executemany(
                f"UPDATE pending SET given_up = 1, next_run = ? WHERE {OWN} AND kh = ? AND key = ? AND ck = ?",
                [(later, *self.own, row["kh"], row["key"], row["ck"]) for row in found if row["key"] in self._given_up],
            )
        connection.execute(f"DELETE FROM pending WHERE {OWN} AND next_run <= ?", due)

    def _should_compact(self) -> bool:
        deltas = [file.bytes for file in self.files if file.name.startswith("delta-")]
        base = sum(file.bytes for file in self.files) - sum(deltas)
        return len(deltas) > DELTAS_MAX or sum(deltas) > DELTA_SHARE_MAX * base

    def compact(self) -> None:
        """Base and deltas become one base file; the rows are the same."""
        base = self._write("base", writer(self._read_snapshot().table(), BASE))
        with self._transaction() as connection:
            self._move_pointer(connection, [base])


def _know(connection: Connection, org_id: str, marks: Collection[str], now: float) -> None:
    connection.executemany(
        "INSERT INTO trace VALUES (?, ?, ?) ON CONFLICT (org_id, mark) DO NOTHING",
        [(org_id, mark, now) for mark in marks],
    )


def trace_place(org_id: str) -> str:
    """The folder of what was read of jobs that the state does not know."""
    return f"trace/{org_id}"


def snapshot_place(own: StateId) -> str:
    """The folder of an activation's snapshot files."""
    return f"snapshots/{own.folder}"


def spool_place(stored: str) -> tuple[str, str]:
    """Folder and name of a spool, as a batch knows it."""
    path = PurePosixPath("spool") / stored
    return str(path.parent), path.name


def _written_fields(mappings: str) -> set[str]:
    """The fields, in lower case, that an activation writes, as the headers of its mappings tell; of a parent's path its
    lookup."""
    written = set()
    for mapping in map(from_header, json.loads(mappings)):
        for header in (*(column.header for column in mapping.columns), *(each.header for each in mapping.constants)):
            lookup, is_path, _ = header.rpartition(":")[2].lower().partition(".")
            written.add(header.lower())
            if is_path:
                written.add(f"{lookup[:-3]}__c" if lookup.endswith("__r") else f"{lookup}id")
    return written


def file_serial(name: str) -> int:
    """The serial a snapshot file was written for; 0 for other files."""
    found = re.match(r"(?:base|delta)-(\d+)\.", name)
    return int(found[1]) if found else 0


def bent(where: str) -> StateError:
    """DB502: what is there was not written by us, or not like this."""
    return StateError(
        "DB502",
        "the state is damaged, or is none of dinmo-dbt's; it is left as it is",
        where=where,
        hint="restore the state from a copy, or move it away and start again: insert activations then by "
        "dinmo-dbt state adopt ACTIVATION",
    )


START_ANEW = (
    "end what is under way with the dinmo-dbt that wrote it, then: dinmo-dbt state reset --all. Then for every insert, "
    "and for others whose rows are not to be sent once more: dinmo-dbt state adopt ACTIVATION, which writes no record"
)


def bent_history(where: str) -> HistoryDamaged:
    """DB502 for the history alone."""
    return HistoryDamaged("DB502", "the history of runs is damaged, or is none of dinmo-dbt's", where=where)


def _ways_out(name: str, activation: Activation, *serials: int) -> str:
    """Commands after which a refused state can be written again."""
    if activation.mode is Mode.INSERT:
        return f"take over what Salesforce holds: dinmo-dbt state reset {name}, then {activation.adopting}"
    back = f"dinmo-dbt state reset {name} --to-serial {serials[0]}, or " if serials else ""
    return f"{back}start again: dinmo-dbt state reset {name}"


def _anew(activation: Activation) -> str:
    """To begin again with another object, key or match, by which an upsert may find no record of rows that have one."""
    again = _ways_out(activation.name, activation)
    if activation.mode is not Mode.UPSERT:
        return again
    return f"{again}, then {activation.adopting}, which shows the rows that have no record: the next sync makes theirs"


def _plain(files: Sequence[Stored]) -> list[dict[str, Any]]:
    return [asdict(file) for file in files]


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


def _journalled(row: Mapping[str, Any]) -> Journalled:
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


def _signed(array: pa.ChunkedArray) -> list[int]:
    signed: list[int] = array.to_numpy().view(np.int64).tolist()
    return signed
