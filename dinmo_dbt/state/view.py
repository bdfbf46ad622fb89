"""One activation's state as it was read: what a plan is drawn from, and what refuses to be used."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dinmo_dbt.activation import Activation
from dinmo_dbt.delivery.journal import Journalled
from dinmo_dbt.destination import Batch
from dinmo_dbt.errors import StateError
from dinmo_dbt.plan.guards import Day
from dinmo_dbt.plan.plan import InFlight
from dinmo_dbt.rows.mapping import from_header
from dinmo_dbt.rows.snapshot import Pending
from dinmo_dbt.state import batches, daily, imaging, others, refusals, seal, trace, waits, watched
from dinmo_dbt.state.damage import state_damaged, ways_out
from dinmo_dbt.state.files import Stored, first_damaged, stored_of
from dinmo_dbt.state.places import file_serial, image_place, snapshot_place
from dinmo_dbt.state.snapshot import FileSnapshot, damaged
from dinmo_dbt.state.state_id import StateId
from dinmo_dbt.state.storage import Storage
from dinmo_dbt.state.tables import Connection
from dinmo_dbt.upkeep.audit import WATCHED


class View:
    """What a state holds of one activation, by one look at it. StateError where it is none of its own, or not whole."""

    def __init__(self, store: Storage, own: StateId, activation: Activation, *, writing: bool) -> None:
        self.store, self.own, self.activation, self.writing = store, own, activation, writing
        self.org_id = own.org_id
        self.place = snapshot_place(own)
        self.image_place = image_place(own)
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
        self._began = False  # a run has drawn a plan for it
        self.admitted = 0
        self._born = 0  # the serial at which it began, or was forgotten
        self._pointer_mappings: list[dict[str, Any]] = []  # those of the serial that the pointer is at
        if store.exists():
            with self._as_written():
                self._load()
        self._snapshot = None if writing else self._read_snapshot()
        self.pending = self._waiting()
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
        self.pending = self._waiting()
        self.day = self._day()
        self.exists = self.exists or self.serial > self._born

    def _read_snapshot(self) -> FileSnapshot:
        names = [file.name for file in self.files]
        return FileSnapshot(self.store.files.fetch(self.place, names), names, self._ways_out_of_damage())

    @contextmanager
    def _as_written(self) -> Iterator[None]:
        """StateError DB502 when what is read is not what was written: no text of ours gives these errors."""
        try:
            yield
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise state_damaged(str(self.store.location)) from error

    def _load(self) -> None:
        beside = self.store.files.names(self.place)  # before the pointer is read: a run that commits names its own
        with self.store.connection(writing=False) as connection:
            rows = connection.execute(
                "SELECT * FROM activation WHERE target = ? AND name = ?", (self.own.target, self.own.name)
            ).fetchall()
            self.lineage = self.store.lineage(connection)
            self.other_orgs = sorted(row["org_id"] for row in rows if row["org_id"] != self.org_id and row["runs"])
            self.other_targets = others.other_targets(connection, self.own)
            own = [row for row in rows if row["org_id"] == self.org_id]
            if own:
                self._read_row(own[0])
            self._refuse_broken(connection, beside, known=bool(own))
            if not self._began:
                self.siblings = others.siblings(connection, self.own, self.activation)
            if not self.writing:
                self.in_flight = [
                    batches.in_flight(self.store.files, batch) for batch in batches.open_rows(connection, self.own)
                ]
        if self._began:
            self._refuse_older(beside)
            self._refuse_damaged()

    def _refuse_broken(self, connection: Connection, beside: Sequence[str], *, known: bool) -> None:
        """What somebody has changed by hand, or taken out: each activation that was ever run has a row."""
        remains = beside or self.store.marks.get(self.lineage, self.own) or batches.open_rows(connection, self.own)
        if remains if not known else not seal.is_whole(connection, self.own):
            raise self._broken()

    def _broken(self) -> StateError:
        return seal.broken(self.where, ways_out(self.activation.name, self.activation))

    def _refuse_older(self, beside: Sequence[str]) -> None:
        """A copy of an earlier day that was put back looks whole: files or this user's marks know of newer serials."""
        newest = max(map(file_serial, beside), default=0) - 1  # the file of a commit that was cut off is one ahead
        newest = max(newest, self.store.marks.get(self.lineage, self.own))
        refusals.refuse_older(self.activation, self.where, self.serial, newest)

    def _refuse_damaged(self) -> None:
        """Each file is the one that was written: a page's own checksum does not cover the file's footer."""
        files = self.store.files
        folder = files.fetch(self.place, [file.name for file in self.files])
        found = first_damaged(folder, self.files)
        if found:
            raise damaged(folder / found.name, self._ways_out_of_damage())

    def _ways_out_of_damage(self) -> str:
        return ways_out(self.activation.name, self.activation, *(pointer["serial"] for pointer in self.previous))

    def _read_row(self, row: Mapping[str, Any]) -> None:
        identity = json.loads(row["identity"])
        self._began = row["runs"] > 0
        if self._began:
            refusals.refuse_other_identity(self.activation, identity)
        self.serial, self.epoch, self.finished_runs = row["serial"], row["epoch"], row["finished_runs"]
        self.run_number = row["runs"] + 1
        self._born, self.admitted = row["born"], row["admitted"]
        self.exists = self.serial > self._born or self.finished_runs > 0
        self.mappings = self._pointer_mappings = json.loads(row["mappings"])
        for header in self.mappings:
            refusals.refuse_other_hash(self.activation, self.where, header["hash_version"])
            from_header(header)
        self.files = [stored_of(value) for value in json.loads(row["files"])]
        # Both are asked for later, where it would be too late to refuse a pointer without them.
        self.previous = [
            {**kept, "serial": kept["serial"], "files": kept["files"]} for kept in json.loads(row["previous"])
        ]

    def refuse_renamed(self, declared: Sequence[str]) -> None:
        """StateError if this activation looks like one that was renamed: state without an activation, beside it."""
        if not self._began:
            refusals.refuse_renamed(self.activation, self.siblings, declared)

    def refuse_shared(self, may_share: Collection[str], places: Mapping[str, str]) -> None:
        """StateError if another dbt target's state is of this org, and neither target says that this is meant.
        `places`: where the targets that there are declared."""
        refusals.refuse_shared(self.own, self.other_targets, self.where, may_share, places)

    def held_elsewhere(self, record_ids: pa.Array, fields: Collection[str] | None = None) -> npt.NDArray[np.bool_]:
        """Which of these records a row has that another activation, or another dbt target, keeps in this org; with
        `fields`, one that writes any of them. A file of theirs that can't be read is a StateError: nothing is known of
        their records then."""
        return others.held_elsewhere(self.store, self.own, self.activation.object, record_ids, fields)

    def _waiting(self) -> Pending:
        if not self._began:
            return Pending.none()
        with self.store.connection(writing=False) as connection, self._as_written():
            return waits.waiting(connection, self.own, self.run_number, self.store.clock.now())

    def _day(self) -> Day:
        if not self._began:
            return Day()
        with self.store.connection(writing=False) as connection, self._as_written():
            return daily.total(connection, self.own, self.store.clock.now())

    def known_jobs(self) -> frozenset[str]:
        """Jobs that a run of this state made, whichever activation it was of, and those that were accepted."""
        return trace.known_jobs(self.store, self.org_id)

    def read_jobs(self) -> frozenset[str]:
        return trace.read_jobs(self.store, self.org_id)

    def job_rows(self, job_id: str) -> pa.Table | None:
        return trace.job_rows(self.store, self.org_id, job_id)

    def open_batches(self) -> Sequence[Journalled]:
        if not self.store.exists():
            return []
        with self.store.connection(writing=False) as connection:
            rows = batches.open_rows(connection, self.own)
        with self._as_written():
            return [batches.journalled(row) for row in rows]

    def batch(self, journalled: Journalled) -> Batch:
        with self.store.connection(writing=False) as connection:
            row = batches.row_of(connection, journalled.id)
        with self._as_written():
            return batches.spooled(self.store.files, row)

    def image(self, run_id: str) -> pa.Table | None:
        """The before-images of a run; None if it keeps none, or none any more."""
        return imaging.load(self.store.files, self.image_place, run_id)

    def watched(self) -> pa.Table:
        """`audit.WATCHED`: what the audits of earlier runs keep of some rows."""
        if not self._began:
            return WATCHED.empty_table()
        with self.store.connection(writing=False) as connection:
            found = watched.read(connection, self.own)
        if found is None:
            raise self._broken()
        return found
