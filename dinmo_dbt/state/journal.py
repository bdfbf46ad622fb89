"""The journal of the run that sends a plan, and what else a writer does to an activation's state.

Every transaction of the journal first makes sure that the lease is still ours, and renews it.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dinmo_dbt.activation import Activation
from dinmo_dbt.codes import HELD_BY_ANOTHER, PLAN_STALE, TAKEN_OVER
from dinmo_dbt.delivery.batch_state import BatchState
from dinmo_dbt.delivery.journal import Settlement
from dinmo_dbt.destination import Batch
from dinmo_dbt.errors import StateError
from dinmo_dbt.plan.guards import Counted, Day
from dinmo_dbt.plan.plan import Plan
from dinmo_dbt.rows.sets import without
from dinmo_dbt.rows.snapshot import GIVEN_UP, Flag, snapshot_rows
from dinmo_dbt.state import batches, daily, imaging, seal, trace, waits, watched
from dinmo_dbt.state.files import Stored
from dinmo_dbt.state.lease import Holder
from dinmo_dbt.state.own_lease import OwnLease, held_beside
from dinmo_dbt.state.places import spool_place
from dinmo_dbt.state.refusals import identity_of
from dinmo_dbt.state.snapshot import BASE, DELTA, FileSnapshot, in_runs, writer
from dinmo_dbt.state.spool import batch_writer
from dinmo_dbt.state.state_id import OWN, StateId
from dinmo_dbt.state.storage import Lock, Storage
from dinmo_dbt.state.tables import Connection
from dinmo_dbt.state.view import View

DELTAS_MAX = 16
DELTA_SHARE_MAX = 0.10
SERIALS_KEPT = 3


class ActivationState(View):
    """One activation's state: `plan.StateView`, and in a locked run `delivery.journal.Journal`.

    Long, because all that a writer does is one short method each, and each needs the same transaction and pointer."""

    def __init__(self, store: Storage, own: StateId, activation: Activation, *, writing: bool) -> None:
        super().__init__(store, own, activation, writing=writing)
        self._given_up: frozenset[str] = frozenset()  # keys of rows that the plan does not try any more
        self._held: OwnLease | None = None  # of a locked run
        self._marked_serial = -1

    # Trace: what the org's list of jobs is held against

    def know(self, marks: Collection[str]) -> None:
        with self._transaction() as connection:
            trace.know(connection, self.org_id, marks, self.store.clock.now())

    def keep_job_rows(self, job_id: str, rows: pa.Table) -> None:
        trace.keep_job_rows(self.store, self.org_id, job_id, rows)

    def drop_job_rows(self, jobs: Collection[str]) -> None:
        trace.drop_job_rows(self.store, self.org_id, jobs)

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
                raise StateError(HELD_BY_ANOTHER, "another run wrote meanwhile", where=self.where, hint="try again")
            self.epoch += 1
            if not self._began:
                self.lineage = self.store.lineage(connection)
                self.serial = self._born = self.store.newest(connection, own, self.serial)
                connection.execute(
                    f"UPDATE activation SET serial = ?, born = ?, model = ?, object = ? WHERE {OWN}",
                    (self.serial, self.serial, self.activation.model.unique_id, self.activation.object, *own),
                )
            batches.forget_ended(connection, own)
            trace.forget_old(connection, self.org_id, self.store.clock.now())
            seal.renew(connection, own)
            open_spools = [spool_place(row["spool"])[1] for row in batches.open_rows(connection, own)]
            # What is listed while no later writer can be there is ours to remove, whenever we come to it.
            named = {file.name for file in self.files}
            named |= {file["name"] for pointer in self.previous for file in pointer["files"]}
            gone = [file for file in self.store.files.names(self.place) if file not in named]
            gone_images = imaging.expired(self.store.files, self.image_place)
            gone_spools = [file for file in self.store.files.names(spools) if file not in open_spools]
        lock.taken()
        self._held = OwnLease(self.store, own, holder.as_text(), self.epoch, since)
        self.store.files.remove(self.place, gone)
        self.store.files.remove(spools, gone_spools)
        self.store.files.remove(self.image_place, gone_images)

    @property
    def lease(self) -> OwnLease:
        assert self._held is not None, "a journal is written by a locked run"
        return self._held

    def hold(self) -> None:
        if self.lease.is_due:
            with self._transaction():
                return
        self.lease.check()

    def kept(self) -> AbstractContextManager[None]:
        """While we only wait, for a warehouse say: the lease is renewed beside it."""
        return held_beside(self.hold)

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        """One transaction of the journal, which renews the lease; refused, with nothing recorded, once another run has
        taken over."""
        with self.lease.transaction() as connection:
            yield connection
        self._pointer_mappings = self.mappings
        if self._began and self.serial != self._marked_serial:
            self.store.marks.raise_to(self.lineage, self.own, self.serial)
            self._marked_serial = self.serial

    def begin(self, plan: Plan) -> None:
        drawn_from = (plan.org_id, plan.activation.digest, plan.serial)
        if drawn_from != (self.org_id, self.activation.digest, self.serial):
            raise StateError(PLAN_STALE, "the plan is stale: the state moved since it was drawn", hint="draw it again")
        rows = _noted_by(plan, self.snapshot)
        self.mappings = [plan.mapping.header(), *(older.header() for older in plan.older)]
        self.admitted = plan.admitted
        self._given_up = frozenset(plan.left_out.filter(pc.equal(plan.left_out["code"], GIVEN_UP))["key"].to_pylist())
        delta = self._write_delta(rows)
        with self._transaction() as connection:
            self._update_row(connection)
            daily.forgive(connection, self.own, plan.passed)
            if Counted.RESPELLED not in plan.passed:
                gone = without(self.snapshot.kh[plan.changes.left], self.day.left)
                daily.add(connection, self.own, secrets.token_hex(8), self.store.clock.now(), Day(left=gone))
            if delta:
                self._move_pointer(connection, [*self.files, delta])

    def amend(self, rows: pa.Table) -> None:
        """Move the snapshot by these rows and nothing else, in one transaction: kh, ck, key, record_id, flags and op
        (put | leave | forget), at most one a key. `mappings` must say what their check hashes are of. A row that is put
        waits no longer. The snapshot is read again, so a plan drawn before is stale."""
        delta = self._write_delta(rows)
        if not delta:
            return
        with self._transaction() as connection:
            self._update_row(connection)
            self._move_pointer(connection, [*self.files, delta])
            waits.resolve(connection, self.own, self.pending, rows.filter(pc.equal(rows["op"], "put")))
        self.reload()

    def planned(self, batch: Batch, run_id: str) -> None:
        name = f"{self.own.folder}/{batch.id}.arrow"
        spooled = self.store.files.put(*spool_place(name), batch_writer(batch))
        with self._transaction() as connection:
            batches.add(connection, self.own, batch, batches.SpooledBatch(run_id, self.epoch, name, spooled.sha256))

    def keep_image(self, run_id: str, image: pa.Table) -> None:
        imaging.keep(self.store.files, self.image_place, run_id, image)

    def note_created(self, batch_id: str, created: pa.Table) -> None:
        if not len(created) or not self.store.files.names(self.image_place):
            return
        with self.store.connection(writing=False) as connection:
            row = batches.row_of(connection, batch_id)
        if row is not None:
            imaging.note_created(self.store.files, self.image_place, row["run_id"], created)

    def advance(self, batch_id: str, state: BatchState, job_id: str | None = None) -> None:
        with self._transaction() as connection:
            self._advance(connection, batch_id, state, job_id)

    def _advance(
        self, connection: Connection, batch_id: str, state: BatchState, job_id: str | None = None
    ) -> Mapping[str, Any]:
        row = batches.advance(connection, batch_id, state, job_id, self.where)
        if job_id is not None:
            trace.know(connection, self.org_id, [job_id], self.store.clock.now())
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
            waits.resolve(connection, self.own, self.pending, settlement.resolved)
            now = self.store.clock.now()
            daily.add(connection, self.own, settlement.batch_id, now, settlement.day)
            tried_in = self.run_number - (row["epoch"] < self.epoch)  # what a dead run sent was tried in its time
            waits.note(connection, self.own, settlement.waiting, tried_in, now)
        self._drop_spool(row)

    def _drop_spool(self, row: Mapping[str, Any]) -> None:
        folder, name = spool_place(row["spool"])
        self.store.files.remove(folder, [name])

    def _write_delta(self, rows: pa.Table) -> Stored | None:
        return self._write("delta", writer(in_runs(rows), DELTA)) if len(rows) else None

    def _write(self, kind: str, write: Callable[[pa.NativeFile], None]) -> Stored:
        """A file of the next serial. Its name is this epoch's own: a writer that was taken over while it writes does
        not write over another's."""
        return self.store.files.put(self.place, f"{kind}-{self.serial + 1:08d}.{self.epoch}.parquet", write)

    def _update_row(self, connection: Connection) -> None:
        connection.execute(
            "UPDATE activation SET model = ?, object = ?, runs = ?, finished_runs = ?, admitted = ?, identity = ?, "
            f"mappings = ? WHERE {OWN}",
            (
                self.activation.model.unique_id,
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
            raise StateError(TAKEN_OVER, "another process moved the state: nothing was recorded", where=self.where)

    def finish(self, *, complete: bool) -> None:
        if complete and len(self.mappings) > 1:
            self._drop_older_mappings()
        self.finished_runs += 1
        with self._transaction() as connection:
            self._update_row(connection)
            waits.forget(connection, self.own, self.run_number, self._given_up)
        if self._should_compact():
            self.compact()

    def _drop_older_mappings(self) -> None:
        """No present row is hashed under an older mapping any more; the rows that left are, so they are marked."""
        self._snapshot = None
        delta = self._write_delta(_stale_leavers(self.snapshot))
        self.mappings = self.mappings[:1]
        with self._transaction() as connection:
            self._update_row(connection)
            if delta:
                self._move_pointer(connection, [*self.files, delta])

    def watch(self, rows: pa.Table) -> None:
        """Keep these of them instead, at most one a key hash."""
        with self._transaction() as connection:
            watched.keep(connection, self.own, rows)

    def retry_now(self) -> int:
        """Make every row that waits due in the next run; how many there are."""
        with self._transaction() as connection:
            return waits.retry_now(connection, self.own)

    def _should_compact(self) -> bool:
        deltas = [file.bytes for file in self.files if file.name.startswith("delta-")]
        base = sum(file.bytes for file in self.files) - sum(deltas)
        return len(deltas) > DELTAS_MAX or sum(deltas) > DELTA_SHARE_MAX * base

    def compact(self) -> None:
        """Base and deltas become one base file; the rows are the same."""
        base = self._write("base", writer(self._read_snapshot().tables(), BASE))
        with self._transaction() as connection:
            self._move_pointer(connection, [base])


def _noted_by(plan: Plan, snapshot: FileSnapshot) -> pa.Table:
    """The rows that move before anything is sent: those with another hash by today's mapping, and those that left."""
    positions, ck = plan.baseline.positions, plan.baseline.ck
    flags = snapshot.flags[positions] & ~np.uint8(Flag.LEFT | Flag.STALE)
    rebased = snapshot_rows(snapshot, positions, "put", flags.astype(np.uint8), ck)
    noted = plan.leavers.noted
    flags = snapshot.flags[noted] | np.uint8(Flag.LEFT)
    return pa.concat_tables([rebased, snapshot_rows(snapshot, noted, "leave", flags.astype(np.uint8))])


def _stale_leavers(snapshot: FileSnapshot) -> pa.Table:
    """The rows that left, marked: their check hashes are of a mapping that the state does not keep any more."""
    gone = np.flatnonzero(snapshot.flags & (Flag.LEFT | Flag.STALE) == Flag.LEFT)
    flags = (snapshot.flags[gone] | np.uint8(Flag.STALE)).astype(np.uint8)
    return snapshot_rows(snapshot, gone, "leave", flags)


def _plain(files: Sequence[Stored]) -> list[dict[str, Any]]:
    return [asdict(file) for file in files]
