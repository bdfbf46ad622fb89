"""What keeps a state, a folder or a warehouse: transactions over the same tables, files that are whole or not there,
and its own way to have one writer."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dinmo_dbt.clock import Clock
from dinmo_dbt.codes import HELD_BY_ANOTHER
from dinmo_dbt.errors import Problem, StateError
from dinmo_dbt.state import copied, seal
from dinmo_dbt.state.damage import history_damage_note, history_out_of_reach, state_damaged
from dinmo_dbt.state.files import Files
from dinmo_dbt.state.lease import LEASE_S, Held, Holder, has_lapsed, held_error, holder_of
from dinmo_dbt.state.marks import Marks
from dinmo_dbt.state.places import file_serial, snapshot_place
from dinmo_dbt.state.seal import ENDED
from dinmo_dbt.state.state_id import OWN, StateId
from dinmo_dbt.state.tables import Connection

KEPT_S = 90 * 86_400.0


@dataclass(frozen=True)
class Lock:
    """What a writer has before it takes the lease. `condition`: when the lease may be taken, in SQL with one `?` for
    now, '' for always; `taken` is called once it is."""

    condition: str
    taken: Callable[[], None] = lambda: None


class Storage(ABC):
    """One place that keeps states. Reading makes nothing; the first run makes what is missing."""

    clock: Clock
    target: str
    files: Files
    marks: Marks
    location: Path | str  # as a message names it
    history_s: float = KEPT_S  # how long runs are kept
    tell: Callable[[Problem], None] = staticmethod(lambda _: None)  # of a damaged history, once
    _reported_damage = _reported_loss = False

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
        if not self._reported_damage:
            self._reported_damage = True
            entries = "" if not lost else ": 1 entry can't be read" if lost == 1 else f": {lost} entries can't be read"
            self.tell(history_damage_note(self.history_place, entries))

    def _tell_of_loss(self) -> None:
        if not self._reported_loss:
            self._reported_loss = True
            self.tell(history_out_of_reach(self.history_place))

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
        """Before a writer reads: take back what was cut off, refuse what is damaged."""

    @abstractmethod
    def check(self) -> None:
        """Before a reader reads: refuse what is damaged."""

    @abstractmethod
    def rest(self) -> None:
        """After a writer: nothing more is to come for now."""

    @abstractmethod
    def start_anew(self) -> int | None:
        """Remove a state of an older format whole, and say which; None, and nothing goes, where there is none.
        StateError DB501 while a run holds it, DB514 for a newer format."""

    def close(self) -> None:  # noqa: B027 - a folder has nothing to give back
        """Give back what it is reached by, if that is its own; it is reached again when it is needed."""

    @contextmanager
    def alone(self, what: str, otherwise: StateError) -> Iterator[None]:
        """Of the processes that want to do that, which no activation's name may be, one does; the others raise
        `otherwise`."""
        with ExitStack() as stack:
            try:
                stack.enter_context(self._alone(what))
            except StateError as error:
                raise otherwise if error.problems[0].code == HELD_BY_ANOTHER else error from None
            yield

    @abstractmethod
    def _alone(self, what: str) -> AbstractContextManager[None]:
        """StateError DB501 where another process does it."""

    @abstractmethod
    def forget_lock(self, own: StateId) -> None:
        """Whatever else than the lease keeps others out goes."""

    def broken(self, own: StateId) -> StateError:
        """DB502 for an activation whose seal is not the one that belongs there."""
        return seal.broken(f"{self.location}: {own}", f"start again: dinmo-dbt state reset {own.name}")

    def lineage(self, connection: Connection) -> str:
        """Which state this is, of all that were ever made. StateError DB502 if it does not say so."""
        row = connection.execute("SELECT value FROM meta WHERE key = 'lineage'").fetchone()
        found = str(row["value"]) if row else ""
        if not re.fullmatch(r"[0-9a-f]{32}", found):
            raise state_damaged(str(self.location))
        return found

    def newest(self, connection: Connection, own: StateId, serial: int) -> int:
        """The newest serial there was, as far as can be known: that one, the mark's, or a file's."""
        numbers = [file_serial(file) for file in self.files.names(snapshot_place(own))]
        return max(serial, self.marks.get(self.lineage(connection), own), *numbers, 0)

    # The lease

    def take(self, connection: Connection, lock: Lock, own: StateId, holder: Holder) -> Any:
        """Make the lease ours with a new epoch, in which no earlier writer can write: the activation's row as it was
        before, made if need be. StateError DB501 if it may not be taken."""
        refusal = copied.refusal(connection, own.target, self.place)
        if refusal is not None:
            raise refusal
        if connection.execute(f"SELECT name FROM activation WHERE {OWN}", own).fetchone() is None:
            begin(connection, own, 0)
        now = self.now(connection)
        condition = f" AND {lock.condition}" if lock.condition else ""
        taken = connection.execute(
            f"UPDATE activation SET epoch = epoch + 1, lease_owner = ?, lease_until = ? WHERE {OWN}{condition}",
            (holder.as_text(), now + LEASE_S, *own, *((now,) if condition else ())),
        ).rowcount
        row = connection.execute(f"SELECT * FROM activation WHERE {OWN}", own).fetchone()
        if not taken:
            raise held_error(own.name, self.held_by(connection, row))
        return row

    def held_by(self, connection: Connection, row: Mapping[str, Any]) -> Held | None:
        if not row["lease_owner"]:
            return None
        until, own = row["lease_until"] or 0.0, own_of(row)
        return Held(
            *own,
            row["epoch"],
            holder_of(row["lease_owner"]),
            until,
            in_flight(connection, own),
            overdue=has_lapsed(until, self.now(connection)),
        )


def begin(connection: Connection, own: StateId, serial: int) -> None:
    """A row for an activation that nothing is known of, unless another process has made one."""
    connection.execute(
        "INSERT INTO activation (org_id, target, name, model, object, serial, epoch, runs, finished_runs, identity, "
        "mappings, files, previous, born) VALUES (?, ?, ?, '', '', ?, 0, 0, 0, '{}', '[]', '[]', '[]', ?) "
        "ON CONFLICT (org_id, target, name) DO NOTHING",
        (*own, serial, serial),
    )
    seal.renew(connection, own)


def own_of(row: Mapping[str, Any]) -> StateId:
    return StateId(row["org_id"], row["target"], row["name"])


def in_flight(connection: Connection, own: StateId) -> int:
    row = connection.execute(
        f"SELECT coalesce(sum(rows), 0) AS n FROM batch WHERE {OWN} AND state NOT IN (?, ?)",
        (*own, *ENDED),
    ).fetchone()
    return int(row["n"])
