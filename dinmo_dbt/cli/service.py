"""serve: what is due is run as it becomes due, by one process that stays, with a health endpoint.

Each look is what `sync --due` does, in a session of its own: nothing is kept from one to the next, so a restart and a
kill lose nothing. Between looks only the artifacts' times are watched.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from dinmo_dbt.cli import dbt_cloud_job
from dinmo_dbt.cli.console import Console
from dinmo_dbt.cli.dbt_artifacts import stamp
from dinmo_dbt.cli.due import due_now, next_due_at, worth_running
from dinmo_dbt.cli.health import Health, undelivered
from dinmo_dbt.cli.notices import deliver, tell_of_wrong, telling_of_all
from dinmo_dbt.cli.options import Flags, Gating
from dinmo_dbt.cli.session import Session
from dinmo_dbt.cli.stopping import Stop
from dinmo_dbt.cli.syncing import sync_chosen
from dinmo_dbt.codes import CLOCK_SET, SERVED_BY_ANOTHER
from dinmo_dbt.errors import ConfigError, DinmoError, Interrupted, Problem, StateError

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

WATCH_S = 2.0  # how often the artifacts' times are looked at
LOOK_S = 60.0  # a look at least so often: activations may be resumed, or run by hand
AGAIN_S = 30.0  # after a look that failed
STEP_S = 10.0  # by so much, what is done to the clock is worth a word
BESIDE_S = 20.0  # a look that lasts for so long is not waited for: others begin beside it
LANES = 4  # so many looks at once at most


@dataclass
class Service:
    """The loop: watch, look, run what is due.

    Long, because each of its steps moves the same few moments: when to look, what was seen, and since when it runs."""

    flags: Flags
    console: Console
    stop: Stop
    following: dbt_cloud_job.Following | None = None
    health: Health = field(default_factory=Health)
    follower: dbt_cloud_job.Follower | None = None
    _problems: dict[str, Problem] = field(default_factory=dict)  # by the work that failed
    _files: tuple[Path, ...] = ()
    _stamps: tuple[object, ...] = ()
    _seen: tuple[object, ...] = ()
    _look_at: float = 0.0  # when something is due, by the clock on the wall
    _look_by: float = 0.0  # at the latest, and when dbt Cloud is asked again: by the clock that nobody sets
    _ask_at: float = 0.0
    _looking_since: float | None = None  # as they are
    _sides: list[threading.Thread] = field(default_factory=list)
    _defect: BaseException | None = None  # of a look beside
    _telling: threading.Lock = field(default_factory=threading.Lock)
    _set: float | None = None  # how far the first clock is from the second

    @contextmanager
    def alone(self) -> Iterator[None]:
        """No other process serves this target from this state. Where the state is in the warehouse, only each run is
        one process's at a time, which is enough for no run to be made twice: a lock would hold a connection for good,
        and a DuckDB file with it."""
        from dinmo_dbt.state import PlaceKind

        with self._session() as session, ExitStack() as stack:
            self.health.target, self.health.started = session.target[1], time.time()
            self._files = _watched(session)
            if session.place.kind is PlaceKind.FOLDER:
                message = f"another process serves dbt target {session.target[1]} from this state"
                served = StateError(
                    SERVED_BY_ANOTHER, message, where=str(session.state.location), hint="stop that one first"
                )
                stack.enter_context(session.state.alone(f" serve {quote(session.target[1], safe='')}", served))
            yield

    def app(self, *, dbt_cloud: bool) -> WSGIApplication:
        receive = self._receiver() if dbt_cloud else None

        def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Any:
            path = environ.get("PATH_INFO", "")
            if receive is not None and path == "/dbt-cloud":
                return receive(environ, start_response)
            if path != "/health":
                return _reply(start_response, HTTPStatus.NOT_FOUND, {"error": "see /health"})
            return _reply(start_response, *self.health.report())

        return answer

    def _receiver(self) -> WSGIApplication:
        from dinmo_dbt.dbt_cloud import SECRET, Inbox, account_of, receiver
        from dinmo_dbt.org import Secret

        account_of(os.environ, SECRET)  # what is missing is said now, not at the first event
        with self._session() as session:  # of this target: another's events are for who serves it
            folder = session.project.state_location / "dbt_cloud" / quote(session.target[1], safe="")
            inbox = Inbox(folder, session.clock)
        assert self.following is not None
        self.follower = dbt_cloud_job.Follower(self.following, inbox, self.console)
        return receiver(inbox, Secret(os.environ[SECRET]))

    def run(self) -> None:
        """Until Interrupted."""
        over = threading.Event()
        overseer = threading.Thread(target=self._oversee, args=(over,), daemon=True)
        overseer.start()
        try:
            self._loop()
        finally:
            over.set()
            overseer.join()
            for side in self._sides:
                side.join()

    def _loop(self) -> None:
        while not self.stop.number:
            if self._defect is not None:
                raise self._defect
            self._notice_the_clock()
            asks = self.follower is not None and time.monotonic() >= self._ask_at
            if asks and not self._well("dbt Cloud", self._ask):
                self._ask_at = time.monotonic() + AGAIN_S
            if self._is_time() and not self._well("look", self._look):
                self._next_look(time.time() + AGAIN_S, AGAIN_S)
            changing = self._stamps != self._seen
            self.stop.sleep(WATCH_S if changing else min(WATCH_S, max(0.05, self._look_at - time.time())))

    def _oversee(self, over: threading.Event) -> None:
        """While one look lasts, others begin beside it: what is due does not wait for what takes long."""
        again_at = 0.0
        while not over.wait(min(WATCH_S, 1.0)):
            self._sides = [side for side in self._sides if side.is_alive()]
            since, now = self._looking_since, time.monotonic()
            lasts = since is not None and now - since >= BESIDE_S
            if lasts and now >= again_at and len(self._sides) < LANES - 1 and not self.stop.number:
                again_at = now + AGAIN_S
                self._sides.append(threading.Thread(target=self._beside, daemon=True))
                self._sides[-1].start()

    def _beside(self) -> None:
        try:
            self._well("look beside", self._look_beside)
        except Interrupted:
            pass
        except BaseException as defect:  # noqa: BLE001 - the loop ends by it, and tells of it
            self._defect = defect

    def _look_beside(self) -> None:
        """Run what is due and not being run; what is on another look's list, that one finds done."""
        with suppress(ConfigError), self._session() as session, telling_of_all(session, unattended=True):
            self._run_due(session)

    def _run_due(self, session: Session) -> set[str] | None:
        """Run what is due and may be run now; what is due at all, by name. None where a run of dbt Cloud began or ended
        meanwhile: what is due is then asked again, by what it left."""
        due = due_now(session)
        if due and self.following and self.following.has_changed(session):
            return None
        self.health.is_due(set(due))
        running = {each.activation.name for each in self.health.lanes.running()}
        triggers = {name: each for name, each in worth_running(session, due).items() if name not in running}
        if triggers:
            self._sync(session, triggers)
        else:
            deliver(session)
        self.health.undelivered = undelivered(session)
        return set(due)

    def _next_look(self, at: float, within_s: float) -> None:
        """At that moment; whatever is done to the clock, before so long has passed."""
        self._look_at, self._look_by = at, time.monotonic() + within_s

    def _notice_the_clock(self) -> None:
        """One that is set is said, and what is due by it is looked for."""
        from dinmo_dbt.watch.wording import span

        before, self._set = self._set, time.time() - time.monotonic()
        step = self._set - before if before is not None else 0.0
        if abs(step) > STEP_S:
            where = "forward, or this machine slept" if step > 0 else "back"
            self.console.note(Problem(CLOCK_SET, f"the clock was set by {span(abs(step))}: {where}"))
            self._look_at = 0.0

    def _is_time(self) -> bool:
        """Whether something is due by now, or the artifacts changed and nobody is writing them."""
        stamps, before = self._artifacts(), self._stamps
        self._stamps = stamps
        if stamps != before or (self.following is not None and None in stamps[:2]):  # the job's first run is to come
            return False
        return stamps != self._seen or time.time() >= self._look_at or time.monotonic() >= self._look_by

    def _artifacts(self) -> tuple[object, ...]:
        """What tells that dbt ran, or that a declaration changed: dbt's files first. None for one that is not there."""
        return tuple(map(stamp, self._files))

    def _well(self, name: str, work: Callable[[], None]) -> bool:
        """Do it. What fails is said once, and tried again."""
        failed: DinmoError | None = None
        try:
            work()
        except DinmoError as error:
            failed = error
        with self._telling:
            if failed is not None:
                problem = failed.problems[0]
                if problem not in self._problems.values():
                    self.console.failure(failed)
                self._problems[name] = problem
            elif self._problems.pop(name, None) and not self._problems:
                self.console.timed("well again")
            self.health.problems = tuple(self._problems.values())
            self.health.looked, self.health.alive = time.time(), time.monotonic()
        return failed is None

    def _look(self) -> None:
        """Run what is due, send what is to be sent, and find when the next look is."""
        self._seen = self._artifacts()
        self._looking_since = time.monotonic()
        try:
            self._look_now()
        finally:
            self._looking_since = None

    def _look_now(self) -> None:
        with self._session() as session, telling_of_all(session, unattended=True):
            self._files = _watched(session)
            try:
                due = self._run_due(session)
            except ConfigError:
                if self._artifacts() == self._seen:
                    raise
                return  # dbt writes them right now: looked at again once they rest
            if due is None:
                self._look_at = 0.0
                return
            tell_of_wrong(session)
            self._well("declarations", partial(_refuse_wrong, session))
            due_next = next_due_at(session)
        now = time.time()
        self.health.due_next = due_next
        # What was due, and still is, another process runs, or the state keeps from running.
        coming = (now + AGAIN_S if at <= now and name in due else at for name, at in due_next.items())
        self._next_look(min([now + LOOK_S, *coming]), LOOK_S)

    def _sync(self, session: Session, triggers: dict[str, Any]) -> None:
        from dinmo_dbt.plan.guards import Ceilings

        due = [activation for activation in session.chosen if activation.name in triggers]
        sync_chosen(session, due, Ceilings(), Gating(), triggers=triggers)

    # dbt Cloud

    def _ask(self) -> None:
        """Take the events of runs that ended. What these built is looked at right after."""
        assert self.follower is not None
        with self._session() as session:
            changed = self.follower.take(session, LOOK_S)
        self.health.set_aside = dict(self.follower.set_aside)
        if changed:
            self._stamps, self._look_at = self._artifacts(), 0.0

    def _session(self) -> Session:
        return Session(self.flags, self.console, stop=self.stop, following=self.following, lanes=self.health.lanes)


def _refuse_wrong(session: Session) -> None:
    """ConfigError for what is declared and can't be run, beside what is."""
    if session.wrong:
        raise ConfigError.of(list(dict.fromkeys(problem for each in session.wrong for problem in each.problems)))


def _watched(session: Session) -> tuple[Path, ...]:
    return (*(session.target_path / name for name in ("run_results.json", "manifest.json")), session.root / "dinmo.yml")


def _reply(start_response: StartResponse, status: HTTPStatus, content: dict[str, Any]) -> list[bytes]:
    body = json.dumps(content, indent=2).encode() + b"\n"
    headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body))), ("Cache-Control", "no-store")]
    start_response(f"{status.value} {status.phrase}", headers)
    return [body]
