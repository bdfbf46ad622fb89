"""The marks that a copy leaves: in the old place where a dbt target's state went, in the new one that it is not whole
yet. Neither is used by mistake then."""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict, dataclass
from enum import StrEnum

from dinmo_dbt.codes import STATE_COPIED
from dinmo_dbt.errors import StateError
from dinmo_dbt.state.damage import state_damaged
from dinmo_dbt.state.tables import Connection


class PlaceKind(StrEnum):
    """What can keep a state."""

    FOLDER = "folder"
    WAREHOUSE = "warehouse"
    BUCKET = "bucket"


@dataclass(frozen=True, slots=True)
class Place:
    """A place as people name it: a folder, a schema of the warehouse, or a location such as `s3://bucket/prefix`."""

    kind: PlaceKind
    name: str

    def __str__(self) -> str:
        return {PlaceKind.WAREHOUSE: "the warehouse's schema ", PlaceKind.FOLDER: "the folder ", PlaceKind.BUCKET: ""}[
            self.kind
        ] + self.name

    @property
    def setting(self) -> str:
        """Its line of dinmo.yml."""
        if self.kind is PlaceKind.WAREHOUSE:
            return f"state: {{warehouse: {{schema: {self.name}}}}}"
        return f"state: {{location: {self.name}}}"


@dataclass(frozen=True, slots=True)
class Mark:
    """One copy, and the place at its other end."""

    id: str
    place: Place


_TO, _FROM = "copied", "incoming"


def gone_to(connection: Connection, target: str) -> Mark | None:
    """Where the target's state went from here."""
    return _read(connection, _TO, target)


def coming_from(connection: Connection, target: str) -> Mark | None:
    """Where the target's state is being copied from, to here."""
    return _read(connection, _FROM, target)


def note_gone(connection: Connection, target: str, mark: Mark) -> None:
    _write(connection, _TO, target, mark)


def note_coming(connection: Connection, target: str, mark: Mark) -> None:
    _write(connection, _FROM, target, mark)


def note_whole(connection: Connection, target: str) -> None:
    """This is the place of the target's state from now on."""
    for word in (_TO, _FROM):
        connection.execute("DELETE FROM meta WHERE key = ?", (f"{word} {target}",))


def refusal(connection: Connection, target: str, here: Place) -> StateError | None:
    """DB533 where the target's state is not to be used."""
    gone, coming = gone_to(connection, target), coming_from(connection, target)
    if gone is not None:
        return StateError(
            STATE_COPIED,
            f"the state of dbt target {target} was copied to {gone.place}; what is left here is not used any more",
            where=here.name,
            hint=f"write into dinmo.yml: {gone.place.setting}\n"
            f"or go back: dinmo-dbt state copy --to {here.kind} --from {shlex.quote(gone.place.name)}",
        )
    if coming is not None:
        return StateError(
            STATE_COPIED,
            f"the state of dbt target {target} was being copied to here, from {coming.place}, and that did not end",
            where=here.name,
            hint=f"do it once more: dinmo-dbt state copy --to {here.kind} --from {shlex.quote(coming.place.name)}\n"
            f"or stay with the old one, in dinmo.yml: {coming.place.setting}",
        )
    return None


def _read(connection: Connection, word: str, target: str) -> Mark | None:
    row = connection.execute("SELECT value FROM meta WHERE key = ?", (f"{word} {target}",)).fetchone()
    if row is None:
        return None
    try:
        stored = json.loads(row["value"])
        return Mark(stored["id"], Place(PlaceKind(stored["place"]["kind"]), stored["place"]["name"]))
    except (ValueError, KeyError, TypeError) as error:
        raise state_damaged(f"meta: {word} {target}") from error


def _write(connection: Connection, word: str, target: str, mark: Mark) -> None:
    connection.execute("DELETE FROM meta WHERE key = ?", (f"{word} {target}",))
    connection.execute("INSERT INTO meta VALUES (?, ?)", (f"{word} {target}", json.dumps(asdict(mark))))
