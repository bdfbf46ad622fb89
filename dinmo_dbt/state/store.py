"""State wherever it is kept: one writer per activation; files first, then a pointer to them together with the results.

`local` keeps it in a folder of this machine, `warehouse` in tables of the user's own. Each gives this module
transactions over the same tables, files that are whole or not there, and its own way to have one writer.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dinmo_dbt.activation import Activation
from dinmo_dbt.codes import HELD_BY_ANOTHER, INSERT_CANT_GO_BACK, NOT_MOVED
from dinmo_dbt.errors import StateError
from dinmo_dbt.state import activity, copied, seal
from dinmo_dbt.state.files import Stored, first_damaged, stored_of
from dinmo_dbt.state.lease import Held, this_process
from dinmo_dbt.state.places import image_place, snapshot_place, spool_place
from dinmo_dbt.state.runs import Runs
from dinmo_dbt.state.state_id import OWN, StateId
from dinmo_dbt.state.storage import Storage, begin, in_flight, own_of
from dinmo_dbt.state.tables import Connection

if TYPE_CHECKING:
    from dinmo_dbt.state.journal import ActivationState


@dataclass(frozen=True, slots=True)
class StateSummary:
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


class Store(Storage):
    """One state location, opened for one dbt target."""

    def refuse_copied(self) -> None:
        """StateError DB533 where the target's state was copied to another place, or has not come from one yet."""
        refusal = None
        with suppress(StateError):  # what else is wrong with it is reported where it is used
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
            query = "SELECT org_id, name FROM activation WHERE target = ? AND runs > 0"
            rows = connection.execute(query, (self.target,)).fetchall()
            return {self.own(row["org_id"], row["name"]) for row in rows}

    def own(self, org_id: str, name: str) -> StateId:
        """That activation's state under the target that the store is opened for."""
        return StateId(org_id, self.target, name)

    def view(self, org_id: str, activation: Activation) -> ActivationState:
        """The activation's state as it is now, without a lock. StateError when it belongs to something else."""
        from dinmo_dbt.state.journal import ActivationState

        self.check()
        own = self.own(org_id, activation.name)
        with suppress(StateError):  # a run may settle a batch between our look at the journal and at its rows
            return ActivationState(self, own, activation, writing=False)
        return ActivationState(self, own, activation, writing=False)

    @contextmanager
    def locked(self, org_id: str, activation: Activation, run_id: str = "") -> Iterator[ActivationState]:
        """The activation's state for one writer. StateError DB501 while another run holds it."""
        from dinmo_dbt.state.journal import ActivationState

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

    @property
    def history(self) -> Runs:
        return Runs(self, self.history_s)

    def activity(self, target: str) -> activity.Activity:
        return activity.Activity(self, target)

    def held(self, name: str | None = None) -> list[Held]:
        """Which activations are held, of that name or at all. A lease that its process gave back is none."""
        if not self.exists():
            return []
        self.check()
        with self.connection(writing=False) as connection:
            rows = connection.execute(
                "SELECT * FROM activation WHERE lease_owner IS NOT NULL ORDER BY org_id, target, name"
            ).fetchall()
            found = [self.held_by(connection, row) for row in rows if name in (None, row["name"])]
        return [held for held in found if held]

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
                raise StateError(HELD_BY_ANOTHER, f"{held.name} has changed hands meanwhile", hint="look at it again")
            # Before the commit: without the lock but with its lease, a run is as good as over.
            self.forget_lock(held.id)
        self.rest()

    # Looking

    def known_lineage(self) -> str | None:
        if not self.exists():
            return None
        with self.connection(writing=False) as connection:
            return self.lineage(connection)

    def known(self) -> list[StateSummary]:
        """Every activation's state, by org, target and name."""
        if not self.exists():
            return []
        self.check()
        with self.connection(writing=False) as connection:
            rows = connection.execute(
                "SELECT * FROM activation WHERE runs > 0 ORDER BY org_id, target, name"
            ).fetchall()
            return [self._known(connection, row) for row in rows]

    def _known(self, connection: Connection, row: Mapping[str, Any]) -> StateSummary:
        own = own_of(row)
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
            rows, left, unknown = _counted(self.files.fetch(place, names), names)
        except StateError as error:
            problem = error.problems[0].message
        counted = f"SELECT count(*) AS n FROM pending WHERE {OWN} AND given_up"
        waiting = connection.execute(f"{counted} = 0", own).fetchone()
        given_up = connection.execute(f"{counted} <> 0", own).fetchone()
        held = self.held_by(connection, row)
        return StateSummary(
            *own,
            row["model"],
            row["object"],
            row["serial"],
            rows,
            left,
            unknown,
            waiting["n"],
            given_up["n"],
            in_flight(connection, own),
            sum(file.bytes for file in files),
            kept,
            f"{held.holder}{' (gone)' if held.holder.lives is False else ''}" if held else None,
            problem,
        )

    # Going another way

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
                raise StateError(NOT_MOVED, f"serial {serial} is not kept; kept: {kept}", where=where)
            if json.loads(row["identity"]).get("mode") == "insert":
                raise StateError(
                    INSERT_CANT_GO_BACK,
                    "the rows inserted since would be inserted again",
                    where=where,
                    hint="restore the newer state, or take over what Salesforce holds: "
                    f"dinmo-dbt state adopt {own.name}",
                )
            files = [stored_of(value) for value in pointer["files"]]
            damaged = first_damaged(self.files.fetch(snapshot_place(own), [f.name for f in files]), files)
            if damaged:
                raise StateError(
                    NOT_MOVED, f"serial {serial} is not whole either: {damaged.name} is damaged", where=where
                )
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
                    raise StateError(NOT_MOVED, message, where=str(self.location))
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
                begin(connection, old, serial)
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


def _places(own: StateId) -> tuple[str, ...]:
    """The folders whose files belong to an activation's state."""
    return snapshot_place(own), image_place(own)


def _counted(folder: Path, names: Sequence[str]) -> tuple[int, int, int]:
    """Of a snapshot's rows: those of the segment, those that left it, and inserts that may have been made."""
    if not names:
        return 0, 0, 0
    import numpy as np

    from dinmo_dbt.rows.snapshot import Flag
    from dinmo_dbt.state.snapshot import FileSnapshot

    flags = FileSnapshot(folder, names).flags
    left, unknown = (int(np.count_nonzero(flags & flag)) for flag in (Flag.LEFT, Flag.UNKNOWN))
    return len(flags) - left, left, unknown
