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
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer

from dinmo_dbt.cli import cloud, options
from dinmo_dbt.cli.console import Console
from dinmo_dbt.cli.options import Flags
from dinmo_dbt.cli.scheduling import due_now, moment, next_due_at
from dinmo_dbt.cli.sending import deliver, telling_of_all
from dinmo_dbt.cli.session import Session
from dinmo_dbt.cli.stopping import Stop
from dinmo_dbt.cli.syncing import Gating, sync_chosen
from dinmo_dbt.errors import DbtCloudError, DinmoError, Interrupted, Problem, StateError, UsageError

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from dinmo_dbt.dbt_cloud import Inbox

WATCH_S = 2.0  # how often the artifacts' times are looked at
LOOK_S = 60.0  # a look at least so often: activations may be resumed, or run by hand
AGAIN_S = 30.0  # after a look that failed
STUCK_S = 300.0  # without a look and without a run for so long, the service is not well


@dataclass
class Health:
    """What the endpoint tells; written by the loop, read by the server's threads."""

    target: str = ""
    started: float = 0.0
    looked: float = 0.0
    running: bool = False
    due_next: dict[str, float] = field(default_factory=dict)
    problem: Problem | None = None

    def told(self, now: float) -> tuple[HTTPStatus, dict[str, Any]]:
        from dinmo_dbt import __version__, render

        stuck = not self.running and now - max(self.looked, self.started) > STUCK_S
        well = self.problem is None and not stuck
        first = min(self.due_next.items(), key=lambda each: (each[1], each[0]), default=None)
        return HTTPStatus.OK if well else HTTPStatus.SERVICE_UNAVAILABLE, {
            "status": "ok" if well else "stuck" if stuck else "failing",
            "dinmo_dbt": __version__,
            "target": self.target,
            "started": moment(self.started),
            "looked": moment(self.looked) if self.looked else None,
            "running": self.running,
            "next": {"activation": first[0], "at": moment(first[1])} if first else None,
            "problem": render.problem_json(self.problem) if self.problem else None,
        }


def serve(
    flags: Flags,
    host: Annotated[str, typer.Option("--host", help="Where the health endpoint listens.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="Its port; 0: a free one, which is said.")
    ] = 8091,
    dbt_cloud: Annotated[
        bool, typer.Option("--dbt-cloud", help="Take dbt Cloud's webhooks at /dbt-cloud, and sync what a run built.")
    ] = False,
    job: Annotated[int | None, typer.Option("--dbt-cloud-job", min=1, help="The job whose runs are synced.")] = None,
    quiet: options.Quiet = False,
    log_format: options.LogFormat = options.Log.TEXT,
) -> None:
    """Run activations as they become due, until stopped.

    GET /health tells whether it is well. A run that was missed while it was down is run once, and said. SIGTERM stops
    it within seconds: what was sent is journalled, and the next start goes on. One process serves a dbt target.

    \b
    Examples:
      dinmo-dbt serve --target prod
      dinmo-dbt serve --target prod --host 0.0.0.0 --port 8091 --dbt-cloud --dbt-cloud-job 123
    """
    if (job is None) == dbt_cloud:
        hint = "dinmo-dbt serve --dbt-cloud --dbt-cloud-job 123"
        raise UsageError("DB821", "--dbt-cloud and --dbt-cloud-job are given together, or neither", hint=hint)
    console = Console(False, quiet, log_format)
    with Stop() as stop, ExitStack() as stack:
        service = _Service(flags, console, stop, job)
        stack.enter_context(service.alone())
        app = service.app(dbt_cloud=dbt_cloud)
        url = stack.enter_context(_listening(host, port, app))
        console.timed(f"serving dbt target {service.health.target} at {url}, health at {url}/health")
        try:
            service.run()
        except Interrupted:
            console.timed("stopped as asked")
        raise typer.Exit(128 + stop.number if stop.number == 2 else 0)


@dataclass
class _Service:
    """The loop: watch, look, run what is due."""

    flags: Flags
    console: Console
    stop: Stop
    job: int | None = None
    health: Health = field(default_factory=Health)
    inbox: Inbox | None = None
    _stamps: tuple[object, ...] = ()
    _seen: tuple[object, ...] = ()
    _look_at: float = 0.0
    _fetched: Flags | None = None  # with the target folder of the job's runs

    @contextmanager
    def alone(self) -> Iterator[None]:
        """No other process serves this target from this state. Where the state is in the warehouse, only each run is
        one process's at a time, which is enough for no run to be made twice."""
        with self._session() as session:
            self.health.target, self.health.started = session.target[1], time.time()
            name = f" serve {quote(session.target[1], safe='')}"
            try:
                stack = ExitStack()
                stack.enter_context(session.state.exclusive("", name))
            except StateError as error:
                if error.problems[0].code != "DB501":
                    raise
                told = f"another process serves dbt target {session.target[1]} from this state"
                raise StateError("DB530", told, where=str(session.state.location), hint="stop that one first") from None
            with stack:
                yield

    def app(self, *, dbt_cloud: bool) -> WSGIApplication:
        receive = self._receiver() if dbt_cloud else None

        def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Any:
            path = environ.get("PATH_INFO", "")
            if receive is not None and path == "/dbt-cloud":
                return receive(environ, start_response)
            if path != "/health":
                return _reply(start_response, HTTPStatus.NOT_FOUND, {"error": "see /health"})
            return _reply(start_response, *self.health.told(time.time()))

        return answer

    def _receiver(self) -> WSGIApplication:
        from dinmo_dbt.dbt_cloud import Inbox, account_of, receiver
        from dinmo_dbt.project import Secret

        secret = os.environ.get("DINMO_DBT_CLOUD_WEBHOOK_SECRET", "")
        if not secret:
            hint = "dbt Cloud shows it when the webhook is made: Account settings > Webhooks"
            raise UsageError("DB220", "DINMO_DBT_CLOUD_WEBHOOK_SECRET is not set", hint=hint)
        account_of(os.environ)  # what is missing is said now, not at the first event
        with self._session() as session:
            self.inbox = Inbox(session.project.state_location / "dbt_cloud", session.clock)
        return receiver(self.inbox, Secret(secret))

    def run(self) -> None:
        """Until Interrupted."""
        if self.job is not None:
            self._guarded(self._latest_run)
        while not self.stop.number:
            self._events()
            if self._is_time():
                self._guarded(self._look)
            self.stop.sleep(min(WATCH_S, max(0.05, self._look_at - time.time())))

    def _is_time(self) -> bool:
        """Whether something is due by now, or the artifacts changed and nobody is writing them."""
        stamps, before = self._artifacts(), self._stamps
        self._stamps = stamps
        if stamps != before or (stamps == self._seen and time.time() < self._look_at):
            return False
        self._seen = stamps
        return True

    def _artifacts(self) -> tuple[object, ...]:
        """What tells that dbt ran, or that a declaration changed."""
        with self._session() as session:
            files = [session.target_path / name for name in ("run_results.json", "manifest.json")]
            return tuple(_stamp(path) for path in [*files, session.root / "dinmo.yml"])

    def _guarded(self, work: Callable[[], None]) -> None:
        """What fails is said once, and tried again."""
        try:
            work()
        except DinmoError as error:
            if error.problems[0] != self.health.problem:
                self.console.problems(error.problems)
            self.health.problem = error.problems[0]
            self._look_at = time.time() + AGAIN_S
        else:
            if self.health.problem is not None:
                self.console.timed("well again")
            self.health.problem = None
        self.health.looked = time.time()

    def _look(self) -> None:
        """Run what is due, tell what is to be told, and find when the next look is."""
        with self._session() as session, telling_of_all(session, unattended=True):
            chosen, triggers = session.chosen, due_now(session)
            if triggers:
                session.chosen = tuple(activation for activation in chosen if activation.name in triggers)
                self._sync(session, triggers)
            else:
                deliver(session)
            session.chosen = chosen
            self.health.due_next = next_due_at(session)
        soonest = min(self.health.due_next.values(), default=float("inf"))
        self._look_at = min(soonest, time.time() + LOOK_S)

    def _sync(self, session: Session, triggers: dict[str, Any]) -> None:
        from dinmo_dbt.plan import Ceilings

        self.health.running = True
        try:
            sync_chosen(session, Ceilings(), Gating(), triggers=triggers)
        finally:
            self.health.running = False

    # dbt Cloud

    def _latest_run(self) -> None:
        """What ended while we were down; a run that goes on will be told of."""
        from dinmo_dbt.dbt_cloud.client import STILL_RUNNING

        assert self.job is not None
        with self._session() as session:
            fetched = replace(self.flags, target_path=cloud.folder_of(session, self.job))
        try:
            fetched = cloud.of_job(self.flags, self.console, self.job, None, wait=False, stop=self.stop)
        except DbtCloudError as error:
            if error.problems[0].code != STILL_RUNNING:
                raise
            self.console.timed(f"{error.problems[0].message}: its end will be told")
        self._fetched = fetched

    def _events(self) -> None:
        """Sync what the runs built whose ends were told, one after the other. An event is done once it is synced."""
        for event in self.inbox.pending() if self.inbox else ():
            if event.job_id == str(self.job):
                self._guarded(lambda run=event.run_id: self._take_run(int(run)))  # type: ignore[misc]
                if self.health.problem is not None:
                    return  # tried again later
            else:
                self.console.timed(f"run {event.run_id} of dbt Cloud job {event.job_id}: another job, left alone")
            assert self.inbox is not None
            self.inbox.done(event)

    def _take_run(self, run_id: int) -> None:
        self._fetched = cloud.of_job(self.flags, self.console, self.job, run_id, wait=False, stop=self.stop)
        self._look()

    def _session(self) -> Session:
        return Session(self._fetched or self.flags, self.console, stop=self.stop)


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _reply(start_response: StartResponse, status: HTTPStatus, content: dict[str, Any]) -> list[bytes]:
    body = json.dumps(content, indent=2).encode() + b"\n"
    headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body))), ("Cache-Control", "no-store")]
    start_response(f"{status.value} {status.phrase}", headers)
    return [body]


@contextmanager
def _listening(host: str, port: int, app: WSGIApplication) -> Iterator[str]:
    """The endpoint's URL while it is served, by threads of its own."""
    from cheroot.wsgi import Server

    server = Server((host, port), app, numthreads=4, max=8, timeout=10, shutdown_timeout=2)
    try:
        server.prepare()
    except OSError as error:
        told = f"port {port} of {host} can't be listened on: {error.strerror or error}"
        raise UsageError("DB822", told, hint="choose another with --port") from error
    thread = threading.Thread(target=server.serve, daemon=True)
    thread.start()
    try:
        yield f"http://{host}:{server.bind_addr[1]}"
    finally:
        server.stop()
        thread.join(timeout=5)
