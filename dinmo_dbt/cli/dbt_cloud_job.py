"""A sync that follows a job of dbt Cloud: what the job's runs left, fetched into a target folder of its own."""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING, Annotated

import typer

from dinmo_dbt.cli.notices import CLOUD_RUN, DBT_CLOUD, tell_of, tell_that_ended, telling_of_all
from dinmo_dbt.codes import (
    CLOUD_ARTIFACTS_UNUSABLE,
    CLOUD_EVENT_UNREADABLE,
    CLOUD_NO_ARTIFACTS,
    CLOUD_NOT_FOUND,
    CLOUD_RUN_GOES_ON,
    NO_CLOUD_JOB,
)
from dinmo_dbt.errors import DbtCloudError, Problem, UsageError
from dinmo_dbt.text.whole_text import whole_environment

if TYPE_CHECKING:
    from dinmo_dbt import dbt_cloud
    from dinmo_dbt.cli.console import Console
    from dinmo_dbt.cli.session import Session

_ID_MAX = 10**18
SET_ASIDE_TOLD = 10
Job = Annotated[
    int | None,
    typer.Option("--dbt-cloud-job", min=1, max=_ID_MAX, help="Sync what this job's latest run in dbt Cloud built."),
]
Run = Annotated[int | None, typer.Option("--run", min=1, max=_ID_MAX, help="That run of the job, not the latest.")]
Wait = Annotated[bool, typer.Option("--wait", help="Wait until the job's run has ended.")]


def following(job: int | None, run: int | None, *, wait: bool) -> Following | None:
    """Of a sync's flags; without a job None, and no other of them."""
    if job is not None:
        return Following(job)
    if run is not None or wait:
        given = "--run" if run is not None else "--wait"
        hint = "dinmo-dbt sync --dbt-cloud-job JOB --wait"
        raise UsageError(NO_CLOUD_JOB, f"{given} says which run of a dbt Cloud job, and no job is given", hint=hint)
    return None


class Following:
    """A job of dbt Cloud, by whose runs a sync goes. What they left is in the session's target folder, and is fetched
    again where something has begun or ended since. Safe to use from several threads."""

    def __init__(self, job: int) -> None:
        self.job = job
        self._run: dbt_cloud.JobRun | None = None  # the one that was chosen by hand
        self._library: dbt_cloud.Library | None = None
        self.picture: dbt_cloud.Picture | None = None
        self._one_at_a_time = threading.Lock()

    def begin(self, session: Session, run: int | None, *, wait: bool) -> None:
        """Fetch what the job's latest run left, or `run`; with `wait`, once it has ended."""
        with telling_of_all(session, DBT_CLOUD), self._one_at_a_time:
            chosen = _chosen(self._client(session), session.console, str(self.job), run, wait=wait)
            if run is not None:
                self._run = chosen
        self.look(session)
        assert self.picture is not None
        if chosen.run_id in self.picture.unusable:
            raise DbtCloudError.of(self.picture.unusable[chosen.run_id])

    def look(self, session: Session) -> dbt_cloud.Picture:
        """What dbt Cloud says by now, in the session's target folder. Raises DbtCloudError."""
        from dinmo_dbt import dbt_cloud

        with telling_of_all(session, DBT_CLOUD), self._one_at_a_time:
            library = self._library
            if library is None:
                library = self._library = dbt_cloud.Library(self._client(session))
            library.client = self._client(session)
            before, project = self.picture, session.project_name
            now = dbt_cloud.fetch(
                library, str(self.job), session.target_path, run=self._run, project=project, last=before
            )
            self.picture = now
        if now is not before:
            _say(session, now, before)
        return now

    def has_changed(self, session: Session) -> bool:
        """Whether a run has begun or ended since the last look; what it left is in the folder by now."""
        before = self.picture
        return self.look(session) is not before

    def problem_with(self, session: Session, run_id: str) -> Problem | None:
        """Why a run of the job can't be used; None if it can, or goes on."""

        assert self._library is not None
        try:
            run = self._client(session).run(run_id)
        except DbtCloudError as error:
            if error.problems[0].code != CLOUD_NOT_FOUND:
                raise
            return error.problems[0]
        if run.job_id != str(self.job):
            return Problem(CLOUD_NOT_FOUND, f"dbt Cloud run {run_id} is of job {run.job_id}, not of {self.job}")
        return self._library.left(run).problem if run.status.is_final else None

    def _client(self, session: Session) -> dbt_cloud.CloudClient:
        from dinmo_dbt import dbt_cloud

        client = dbt_cloud.CloudClient(dbt_cloud.account_of(whole_environment(os.environ)), session.clock)
        session.stack.callback(client.close)
        return client


def _say(session: Session, now: dbt_cloud.Picture, before: dbt_cloud.Picture | None) -> None:
    """Which run is gone by now, and which can't be, to those who look on and once to those who don't."""
    if before is None or now.run != before.run:
        steps = ", ".join(f"{step.number} ({step.read.which})" for step in now.steps)
        message = f"dbt Cloud run {now.run.run_id} of job {now.run.job_id} ended as {now.run.status.word}"
        session.console.timed(f"{message}; by its steps {steps}")
    for run_id, problem in now.unusable.items():
        if before is None or run_id not in before.unusable:
            session.console.note(problem)
            tell_of(session, CLOUD_RUN, problem)
    if not now.unusable:
        tell_that_ended(session, CLOUD_RUN)


def _chosen(
    client: dbt_cloud.CloudClient, console: Console, job_id: str, run: int | None, *, wait: bool
) -> dbt_cloud.JobRun:
    """The run to go by, which has ended."""
    chosen = client.latest(job_id) if run is None else client.run(str(run))
    if chosen.job_id != job_id:
        message = f"dbt Cloud run {chosen.run_id} is of job {chosen.job_id}, not of {job_id}"
        raise DbtCloudError(CLOUD_NOT_FOUND, message, hint="leave --run out for the job's latest run")
    if wait:
        chosen = client.finished(chosen, console.timed)
    if not chosen.status.is_final:
        message = f"dbt Cloud run {chosen.run_id} of job {job_id} is {chosen.status.word}"
        raise DbtCloudError(CLOUD_RUN_GOES_ON, message, hint="pass --wait, or run again when it has ended")
    return chosen


class Follower:
    """What `serve` does with the events of a job. An event tells only that there is something to look at; which runs
    count is asked of dbt Cloud. So each is judged once and done, and none keeps a later one from being taken."""

    def __init__(self, following: Following, inbox: dbt_cloud.Inbox, console: Console) -> None:
        self.following, self.inbox, self._console = following, inbox, console
        self.set_aside: dict[str, Problem] = {}  # by run, of the latest that can't be used
        self._again_at: float | None = 0.0  # by the monotonic clock: when dbt Cloud is asked without a new event
        self._seen: set[str] = set()  # events that wait for dbt Cloud to know the end of their run
        self._noted: Problem | None = None

    def take(self, session: Session, again_s: float) -> bool:
        """Fetch what the job's runs left by now, and whether that changed; the events that this answers are done. What
        waits for a run's end is asked for again after `again_s`. Raises DbtCloudError where dbt Cloud has no answer:
        then every event waits."""
        events, damaged = self.inbox.pending()
        for path in damaged:
            message = "an event of dbt Cloud that was kept can't be read: the job's latest run is synced in its place"
            self._console.note(Problem(CLOUD_EVENT_UNREADABLE, message, where=str(self.inbox.set_aside(path))))
        own = [event for event in events if event.job_id == str(self.following.job)]
        for event in events:
            if event not in own:
                self._console.timed(f"run {event.run_id} of dbt Cloud job {event.job_id}: another job, left alone")
                self.inbox.done(event)
        is_time = self._again_at is not None and time.monotonic() >= self._again_at
        if not (is_time or damaged or any(event.key not in self._seen for event in own)):
            return False
        before = self.following.picture
        picture = self._look(session)
        waiting = [event for event in own if not self._is_answered(session, event, picture)]
        for event in own:
            if event not in waiting:
                self.inbox.done(event)
        self._seen = {event.key for event in waiting}
        waits = waiting or picture is None or picture.under_way
        self._again_at = time.monotonic() + again_s if waits else None
        return picture is not before

    def _look(self, session: Session) -> dbt_cloud.Picture | None:
        """None while no run of the job can be used."""

        try:
            picture = self.following.look(session)
        except DbtCloudError as error:
            if error.problems[0].code not in (CLOUD_NO_ARTIFACTS, CLOUD_RUN_GOES_ON, CLOUD_ARTIFACTS_UNUSABLE):
                raise
            self._note(error.problems[0])
            return None
        self.set_aside |= picture.unusable
        if picture.under_way:
            going, until = picture.under_way[0], "what it builds is synced when it has ended"
            message = f"dbt Cloud run {going.run_id} of job {going.job_id} is {going.status.word}"
            self._note(Problem(CLOUD_RUN_GOES_ON, message, hint=until))
        return picture

    def _note(self, problem: Problem) -> None:
        if problem != self._noted:
            self._console.note(problem)
        self._noted = problem

    def _is_answered(self, session: Session, event: dbt_cloud.Event, picture: dbt_cloud.Picture | None) -> bool:
        """Whether the run that an event tells of is synced, or was built over, or is set aside. Not while dbt Cloud has
        it under way."""
        if picture is not None and int(event.run_id) <= int(picture.run.run_id):
            if event.run_id != picture.run.run_id:
                message = f"run {event.run_id} of dbt Cloud job {event.job_id}: reported late, left alone"
                self._console.timed(f"{message}; run {picture.run.run_id} came after it")
            return True
        if picture is None or event.run_id not in picture.unusable:
            problem = self.following.problem_with(session, event.run_id)
            if problem is None:
                return False
            self._set_aside(session, event.run_id, problem)
        return True

    def _set_aside(self, session: Session, run_id: str, problem: Problem) -> None:
        self._note(problem)
        tell_of(session, CLOUD_RUN, problem)
        self.set_aside = dict([*self.set_aside.items(), (run_id, problem)][-SET_ASIDE_TOLD:])
