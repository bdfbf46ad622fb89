"""Notices to users outside the terminal: runs leave them in the state, and they go to the channels of dinmo.yml.

A notice is in the state before it is sent, and leaves it once every channel has taken it: it is sent at least once, and
twice only if the process dies between the sending and the note of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING
from urllib.parse import quote
from zoneinfo import ZoneInfo

from dinmo_dbt.codes import (
    CLOUD_NO_ARTIFACTS,
    CLOUD_RUN_GOES_ON,
    DATABASE_BUSY,
    HELD_BY_ANOTHER,
    NOTICES_GIVEN_UP,
    meaning,
)
from dinmo_dbt.errors import ConfigError, DbtCloudError, DinmoError, Problem, StateError, UsageError
from dinmo_dbt.text import moments
from dinmo_dbt.watch.notice import Notice, Severity, caught_up, gathered, incident

if TYPE_CHECKING:
    from dinmo_dbt.cli.session import Session
    from dinmo_dbt.config.channel import Channel, Digest
    from dinmo_dbt.state import Unsent

KEPT_S = 3 * 86400.0  # what a channel has not taken by then is no news any more
# Nothing is wrong with what is asked: its run goes on, or left nothing.
NO_NEWS = (DATABASE_BUSY, CLOUD_RUN_GOES_ON, CLOUD_NO_ARTIFACTS)


def deliver(session: Session) -> None:
    """Send what is to be sent, the day's digest with it. A channel that fails never fails the command: it is said, and
    tried again by the next one."""
    if session.clock.signal:
        return
    try:
        _digest(session)
        if session.activity.unsent():
            with _one_sender(session):
                _send(session, session.activity.unsent())
    except StateError as error:  # the runs themselves are reported and written by now
        for problem in error.problems:
            session.console.note(problem)


def _one_sender(session: Session) -> AbstractContextManager[None]:
    """Of two commands at once one sends, so that nothing is sent twice."""
    message = "another command is sending; what it does not send the next one will"
    another = StateError(HELD_BY_ANOTHER, message, where=str(session.state.location))
    return session.state.alone(f" send {quote(session.activity.target, safe='')}", another)


def _send(session: Session, waiting: list[Unsent]) -> None:
    from dinmo_dbt import channels

    activity, now = session.activity, session.clock.now()
    open_to = {each.notice.id: _open_channels(session, each) for each in waiting}
    pending: list[tuple[Notice, Channel]] = []
    parts: dict[tuple[str, str], list[str]] = {}
    for channel in session.project.channels:
        for_it = [each for each in waiting if channel in open_to[each.notice.id]]
        one_by_one = channels.keeps_incidents(channel)
        notices = [each.notice for each in for_it] if one_by_one else _as_sent(for_it, activity.target)
        for number, notice in enumerate(notices):
            made_of = notice.of or (notice,)
            if one_by_one:  # an incident's earlier notice, refused for good, has no place after a later one
                made_of = tuple(each for each in notices[: number + 1] if each.incident == notice.incident)
            pending.append((notice, channel))
            parts[notice.id, channel.place] = [each.id for each in made_of]

    def sent(id: str, place: str) -> None:
        activity.sent(parts[id, place], place)

    delivery = channels.deliver(pending, clock=session.clock, sent=sent, attempt=session.send)
    done = {(part, place) for id, place in delivery.sent for part in parts[id, place]}
    everywhere = [
        each.notice for each in waiting if all((each.notice.id, to.place) in done for to in open_to[each.notice.id])
    ]
    # After this last attempt: by a clock that runs ahead a notice is old as soon as it is made.
    old = [each.notice for each in waiting if each.notice not in everywhere and now - each.made > KEPT_S]
    for place, problem in {failure.place: failure.problem for failure in delivery.failed}.items():
        of = [part for each in delivery.failed if each.place == place for part in parts[each.notice_id, place]]
        number = len({part for part in of if (part, place) not in done})
        if not number:
            continue  # what came later of the same incident has been taken
        kept = f"{number} {'notice waits' if number == 1 else 'notices wait'} for the next command"
        session.console.note(Problem(problem.code, f"{problem.message}; {kept}", problem.where, problem.hint))
    activity.tried({part for failure in delivery.failed for part in parts[failure.notice_id, failure.place]})
    for notice in old:
        message = f"given up after {KEPT_S / 86400:.0f} days: {notice.title}"
        session.console.note(Problem(NOTICES_GIVEN_UP, message, "dinmo.yml: warnings.channels"))
    activity.forget([notice.id for notice in (*everywhere, *old)])


def _as_sent(for_it: list[Unsent], target: str) -> list[Notice]:
    """What one channel is to have now; where it had been away, and several messages wait for it, one."""
    together = gathered([each.notice for each in for_it])
    if len(together) < 2 or not any(each.tried for each in for_it):
        return together
    at = [moments.minute(each.made) for each in for_it]
    notices = list(zip(at, [each.notice for each in for_it], strict=True))
    return [caught_up(notices, target, f"{for_it[0].notice.id}+{len(for_it) - 1}")]


def _open_channels(session: Session, unsent: Unsent) -> list[Channel]:
    """Those that are to have the notice and don't have it yet."""
    from dinmo_dbt import channels

    return [c for c in session.project.channels if channels.takes(c, unsent.notice) and c.place not in unsent.sent]


def _digest(session: Session) -> None:
    """Once a day, by the first command after its time: what the day before it brought."""
    from dinmo_dbt.watch import warnings

    digest, activity = session.project.digest, session.activity
    if digest is None or not session.project.channels:
        return
    end, last = _last(digest, session.clock.now()), activity.last_digest()
    if last is not None and last >= end:
        return
    if last is None:
        activity.note_digest(end, [])  # the first is of the day after the first command
        return
    start = _last(digest, end - 1)
    notice = warnings.digest(
        session.declared.activations,
        session.state.history.between(activity.target, start, end),
        activity.standing(),
        target=activity.target,
        start=start,
        end=end,
        id=f"digest:{activity.target}:{end:.0f}",
        paused={name: pause.reason for name, pause in activity.pauses().items()},
    )
    activity.note_digest(end, [notice])


def _last(digest: Digest, now: float) -> float:
    """The latest time of the digest up to now."""
    zone = ZoneInfo(digest.timezone)
    hour, minute = map(int, digest.at.split(":"))
    today = datetime.fromtimestamp(now, zone).date()
    moments = (
        datetime(day.year, day.month, day.day, hour, minute, tzinfo=zone).timestamp()
        for day in (today, today - timedelta(days=1))
    )
    return next(moment for moment in moments if moment <= now)


@dataclass(frozen=True, slots=True)
class Common:
    """What can keep every activation from running: how its warning is kept, in the place of an activation's name, and
    what is said when it begins and when it is over."""

    name: str
    id: str
    down: str
    up: str


ALL = Common("", "all", "no sync can run", "syncs can run again")
CLOUD_RUN = Common(
    " dbt_cloud run", "dbt_cloud_run", "a run in dbt Cloud can't be used", "runs in dbt Cloud can be used again"
)
DBT_CLOUD = Common(" dbt_cloud", "dbt_cloud", "dbt Cloud can't be asked what it built", "dbt Cloud answers again")
WRONG = Common(
    " declarations",
    "declarations",
    "an activation is left out: it is declared wrong",
    "every activation is right again",
)


@contextmanager
def telling_of_all(session: Session, what: Common = ALL, *, unattended: bool = False) -> Iterator[None]:
    """Notify the channels once of what keeps every activation from running, and once when it is over. Of a mistake in
    the declarations, and of a database that dbt has to itself while it runs, they hear only where nobody looks on: who
    runs a command sees it."""
    try:
        yield
    except DinmoError as error:
        problem = error.problems[0]
        seen = not unattended and isinstance(error, ConfigError | UsageError)
        seen = seen or (what is ALL and isinstance(error, DbtCloudError))  # it is reported as what it is
        if not seen and problem.code not in NO_NEWS:
            tell_of(session, what, problem)
        raise
    tell_that_ended(session, what)


def tell_of(session: Session, what: Common, problem: Problem) -> None:
    """Once, until it ends."""
    try:
        _tell_of_all(session, what, problem)
    except DinmoError as failed:  # without dinmo.yml or the state nobody can be notified; the caller says why
        session.console.note(Problem(NOTICES_GIVEN_UP, f"no channel was notified: {failed.problems[0].message}"))


def _tell_of_all(session: Session, what: Common, problem: Problem) -> None:
    from dinmo_dbt.activation import WarningKind
    from dinmo_dbt.watch.standing import OpenWarning

    if meaning(problem.code).of_state:
        tell_of_state(session, problem)
        return
    now, activity = session.clock.now(), session.activity
    notice = _none_runs(what.id, activity.target, now, what.down, problem)
    standing = OpenWarning(what.name, activity.target, WarningKind.FAILED, now, "", True, problem.message)
    activity.begin_standing(standing, notice)
    deliver(session)


def tell_of_wrong(session: Session) -> None:
    """Where nobody looks on: what is declared and left out of each sync."""
    if session.wrong:
        tell_of(session, WRONG, session.wrong[0].problems[0])
    else:
        tell_that_ended(session, WRONG)


def tell_that_ended(session: Session, what: Common) -> None:
    activity = session.activity
    for stood in activity.standing():
        if stood.activation == what.name:
            activity.end_standing(stood, _again(what.id, stood.target, what.up, stood.since, stood.said))


def tell_of_state(session: Session, problem: Problem) -> None:
    """An unusable state can't hold its notices, nor that they were sent: this user's marks do."""
    from dinmo_dbt import channels

    target, now = session.target[1], session.clock.now()
    place, report = f"{session.state.location} {target}", f"{now:.0f} {problem.code} {problem.message}"
    if session.state.marks.reported(place) or session.clock.signal:
        return
    notice = _none_runs("state", target, now, "the state can't be used", problem)
    pending = [(notice, channel) for channel in session.project.channels]
    delivery = channels.deliver(pending, clock=session.clock, sent=lambda *_: None, attempt=session.send)
    for failure in delivery.failed:
        session.console.note(failure.problem)
    if delivery.sent:
        session.state.marks.note_reported(place, report)


def tell_state_is_well(session: Session) -> None:
    marks, place = session.state.marks, f"{session.state.location} {session.target[1]}"
    since, _, said = marks.reported(place).partition(" ")
    if since:
        session.activity.add([_again("state", session.target[1], ALL.up, float(since), said)])
        marks.note_reported(place, "")


def _none_runs(of: str, target: str, now: float, what: str, problem: Problem) -> Notice:
    where = f"{problem.where}\n" if problem.where else ""
    hint = f"\n-> {problem.hint}" if problem.hint else ""
    text = f"{where}{problem.code} {problem.message}{hint}"
    title = f"dinmo-dbt [{target}]: {what}"
    about = incident(target, f":{of}")
    return Notice(f"{of}:{target}:{now:.0f}", Severity.CRITICAL, title, text, incident=about)


def _again(of: str, target: str, what: str, since: float, said: str) -> Notice:
    at = moments.minute(since)
    id, title = f"{of}:{target}:{since:.0f}:recovered", f"dinmo-dbt [{target}]: {what}"
    text, about = f"Not since {at}: {said}", incident(target, f":{of}")
    return Notice(id, Severity.RECOVERED, title, text, ends_critical=True, incident=about)
