"""One activation's state as it was read: what a plan is drawn from, and what refuses to be used."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dinmo_dbt.activation import Activation
from dinmo_dbt.codes import IDENTITY_CHANGED, ORG_OF_ANOTHER_TARGET, OTHER_ROW_HASH, RENAMED, STATE_PUT_BACK
from dinmo_dbt.delivery.journal import BatchState, Journalled
from dinmo_dbt.destination import Api, Batch, Operation
from dinmo_dbt.errors import StateError
from dinmo_dbt.plan.guards import Day
from dinmo_dbt.plan.plan import InFlight
from dinmo_dbt.rows.mapping import from_header
from dinmo_dbt.rows.rowhash import HASH_VERSION
from dinmo_dbt.rows.snapshot import Flag, Pending
from dinmo_dbt.state import daily, imaging, seal, waits
from dinmo_dbt.state.damage import bent, ways_out, ways_out_of_identity
from dinmo_dbt.state.files import Stored, first_bent, stored_of
from dinmo_dbt.state.places import file_serial, snapshot_place, spool_place, trace_place
from dinmo_dbt.state.seal import ENDED
from dinmo_dbt.state.snapshot import FileSnapshot, damaged
from dinmo_dbt.state.spool import read_batch
from dinmo_dbt.state.state_id import OWN, StateId
from dinmo_dbt.state.storage import Storage
from dinmo_dbt.state.tables import Connection
from dinmo_dbt.upkeep.audit import WATCHED

_HELD_ROWS = 1 << 20  # of others' records, looked at at one time


class View:
    """What a state holds of one activation, by one look at it. StateError where it is none of its own, or not whole."""

    def __init__(self, store: Storage, own: StateId, activation: Activation, *, writing: bool) -> None:
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
        return seal.broken(self.where, ways_out(self.activation.name, self.activation))

    def _refuse_older(self, beside: Sequence[str]) -> None:
        """A copy of an earlier day that was put back looks whole: files or this user's marks know of newer serials."""
        name = self.activation.name
        newest = max(map(file_serial, beside), default=0) - 1  # the file of a commit that was cut off is one ahead
        newest = max(newest, self.store.marks.get(self.lineage, self.own))
        if self.serial < newest:
            raise StateError(
                STATE_PUT_BACK,
                f"the state is an older copy: it has serial {self.serial}, and serial {newest} was reached before",
                where=self.where,
                hint="was this folder copied, and the other copy synced since? Give each an org of its own. "
                "Else put the newer state back, or go on from this one: "
                + ways_out(name, self.activation, self.serial),
            )

    def _refuse_bent(self) -> None:
        """Each file is the one that was written: a page's own checksum does not cover the file's footer."""
        files = self.store.files
        folder = files.fetch(self.place, [file.name for file in self.files])
        found = first_bent(folder, self.files)
        if found:
            raise damaged(folder / found.name, self._ways_out_of_damage())

    def _ways_out_of_damage(self) -> str:
        return ways_out(self.activation.name, self.activation, *(pointer["serial"] for pointer in self.previous))

    def _read_row(self, row: Mapping[str, Any]) -> None:
        identity, wanted = json.loads(row["identity"]), identity_of(self.activation)
        self._began = row["runs"] > 0
        names = [name for name in wanted if _folded(identity.get(name)) != _folded(wanted[name])]
        if names and self._began:
            changes = ", ".join(f"{name} was {_shown(identity.get(name))}, is {_shown(wanted[name])}" for name in names)
            raise StateError(
                IDENTITY_CHANGED,
                f"the state of {self.activation.name} is of another identity: {changes}",
                where=self.activation.meta_path,
                hint=f"undo that, give the activation another name, or {ways_out_of_identity(self.activation)}",
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
                OTHER_ROW_HASH,
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
            (*self.own, self.activation.model.unique_id, self.activation.object),
        ).fetchall()
        self.siblings = [row["name"] for row in rows]

    def refuse_renamed(self, declared: Sequence[str]) -> None:
        """StateError if this activation looks like one that was renamed: state without an activation, beside it."""
        orphans = [name for name in self.siblings if name not in declared]
        if orphans and not self._began:
            raise StateError(
                RENAMED,
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
                ORG_OF_ANOTHER_TARGET,
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

    def known_jobs(self) -> frozenset[str]:
        """Jobs that a run of this state made, whichever activation it was of, and those that were accepted."""
        if not self.store.exists():
            return frozenset()
        with self.store.connection(writing=False) as connection:
            rows = connection.execute("SELECT mark FROM trace WHERE org_id = ?", (self.org_id,)).fetchall()
        return frozenset(row["mark"] for row in rows)

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

    def image(self, run_id: str) -> pa.Table | None:
        """The before-images of a run; None if it keeps none, or none any more."""
        return imaging.load(self.store.files, self.image_place, run_id)

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
    return "none" if value is None else ", ".join(value) if isinstance(value, list) else str(value)


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
