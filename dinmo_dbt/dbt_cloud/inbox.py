"""Webhooks on disk: each event once, from before it is answered until long after it was done."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from dinmo_dbt.durable import discard, make_folder, read_file, sync_folder, whole_file
from dinmo_dbt.errors import unwritable

if TYPE_CHECKING:
    from dinmo_dbt.clock import Clock

KEPT_MIN = 10_000
KEPT_S = 30 * 86_400  # dbt Cloud keeps its own log of deliveries as long


@dataclass(frozen=True, slots=True)
class Event:
    """A run of a job has ended. `event_id` is the service's own, the same in every delivery of the event."""

    event_id: str
    job_id: str
    run_id: str
    status: str  # the run's, in the service's words: Success, Errored, Cancelled
    received: float  # seconds since the epoch

    @property
    def key(self) -> str:
        return hashlib.sha256(self.event_id.encode("utf-8", "surrogatepass")).hexdigest()


class OpenEvents(NamedTuple):
    """What is not done."""

    events: list[Event]  # oldest first
    damaged: list[Path]  # files that can't be read


class Inbox:
    """Events in a folder: `events/` has a file for each, `done/` a mark for each that was dealt with.

    An event's file stays beside its mark, so at no instant is an event neither waiting nor known. Safe to use from
    several threads and processes, and after a kill at any instant. StateError DB510 where the disk refuses.
    """

    def __init__(self, folder: Path, clock: Clock) -> None:
        self._events = make_folder(folder / "events")
        self._done = make_folder(folder / "done")
        self.clock = clock
        for left in self._events.glob(".*"):  # of a process that was killed while it wrote
            discard(left)

    def accept(self, event: Event) -> bool:
        """Keep the event, durably. False if it is known already: waiting, or done."""
        path = self._events / f"{event.key}.json"
        if path.exists():
            return False
        whole = self._events / f".{event.key}.{secrets.token_hex(4)}"
        try:
            with whole_file(whole) as file:
                file.write(json.dumps(asdict(event)).encode())
            try:
                os.link(whole, path)  # where a rename would replace what another delivery just wrote
            except FileExistsError:
                return False
            sync_folder(self._events)
        except OSError as error:
            raise unwritable(path, error) from error
        finally:
            discard(whole)
        return True

    def pending(self) -> OpenEvents:
        done = {mark.name for mark in self._done.iterdir()}
        found = {path: _read(path) for path in self._events.glob("*.json") if path.stem not in done}
        events = [event for event in found.values() if event]
        events.sort(key=lambda event: (event.received, event.event_id))
        return OpenEvents(events, sorted(path for path, event in found.items() if event is None))

    def set_aside(self, damaged: Path) -> Path:
        """Take it out of the way, for somebody to look at: where it is now. The service may deliver that event again,
        and then it is taken."""
        try:
            return damaged.rename(damaged.with_suffix(".damaged"))
        except OSError as error:
            raise unwritable(damaged, error) from error

    def done(self, event: Event) -> None:
        """It need not be looked at again, and a delivery that repeats it is refused as before."""
        mark = self._done / event.key
        try:
            descriptor = os.open(mark, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600)
            try:
                os.utime(descriptor, (self.clock.now(),) * 2)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            sync_folder(self._done)
        except OSError as error:
            raise unwritable(mark, error) from error
        self._prune()

    def _prune(self) -> None:
        """Forget what was done over 30 days ago, but always know the latest 10,000."""
        with os.scandir(self._done) as marks:
            done = [(mark.stat().st_mtime, mark.name) for mark in marks]
        if len(done) <= KEPT_MIN:
            return
        oldest = self.clock.now() - KEPT_S
        for when, key in sorted(done)[:-KEPT_MIN]:
            if when < oldest:
                discard(self._events / f"{key}.json")  # before its mark: without that it would wait again
                if not (self._events / f"{key}.json").exists():
                    discard(self._done / key)


def _read(path: Path) -> Event | None:
    """None where the content is damaged. That the system does not give it says nothing of it."""
    try:
        content = read_file(path)
    except OSError as error:
        raise unwritable(path, error) from error
    with suppress(ValueError, TypeError):
        event = Event(**json.loads(content))
        texts = (event.event_id, event.job_id, event.run_id, event.status)
        readable = all(isinstance(text, str) for text in texts) and isinstance(event.received, int | float)
        if readable and event.run_id.isdecimal():  # runs are put in order by their numbers
            return event
    return None
