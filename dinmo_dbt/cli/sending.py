"""What users are told besides the terminal: notices that runs left in the state, sent to the channels of dinmo.yml.

A notice is in the state before it is sent, and leaves it once every channel has taken it: it is sent at least once, and
twice only if the process dies between the sending and the note of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from dinmo_dbt.errors import ConfigError, DinmoError, Problem, StateError, UsageError
from dinmo_dbt.notice import Notice, Severity

if TYPE_CHECKING:
    from dinmo_dbt.cli.session import Session
    from dinmo_dbt.project import Channel, Digest
    from dinmo_dbt.state import Unsent

KEPT_S = 3 * 86400.0  # what a channel has not taken by then is no news any more
GIVEN_UP = "DB653"
BUSY_DATABASE = "DB708"  # a dbt that runs has its DuckDB file to itself


def deliver(session: Session) -> None:
    """Send what is to be sent, the day's digest with it. A channel that fails never fails the command: it is said, and
    tried again by the next one."""
    if session.clock.signal:
        return
    try:
        _digest(session)
        waiting = session.activity.unsent()
        if waiting:
            _send(session, waiting)
    except StateError as error:  # the runs themselves are told and written by now
        for problem in error.problems:
            session.console.note(problem)


def _send(session: Session, waiting: list[Unsent]) -> None:
    from dinmo_dbt import channels

    activity, now = session.activity, session.clock.now()
    open_to = {each.notice.id: _open_channels(session, each) for each in waiting}
    old = [each for each in waiting if open_to[each.notice.id] and now - each.made > KEPT_S]
    fresh = [each for each in waiting if each not in old]
    pending = [(each.notice, channel) for each in fresh for channel in open_to[each.notice.id]]
    delivery = channels.deliver(pending, clock=session.clock, sent=activity.sent, attempt=session.send)
    for place, problem in {failure.place: failure.problem for failure in delivery.failed}.items():
        number = sum(failure.place == place for failure in delivery.failed)
        kept = f"{number} {'notice waits' if number == 1 else 'notices wait'} for the next command"
        session.console.note(Problem(problem.code, f"{problem.message}; {kept}", problem.where, problem.hint))
    for each in old:
        told = f"given up after {KEPT_S / 86400:.0f} days: {each.notice.title}"
        session.console.note(Problem(GIVEN_UP, told, "dinmo.yml: warnings.channels"))
    done = set(delivery.sent)
    gone = [n.id for n in (e.notice for e in fresh) if all((n.id, c.place) in done for c in open_to[n.id])]
    activity.forget([*gone, *(each.notice.id for each in old)])


def _open_channels(session: Session, unsent: Unsent) -> list[Channel]:
    """Those that are to have the notice and don't have it yet."""
    return [c for c in session.project.channels if c.takes(unsent.notice) and c.place not in unsent.sent]


# The digest


def _digest(session: Session) -> None:
    """Once a day, by whichever command is first after its time: what the day before it brought."""
    from dinmo_dbt import warnings

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


# What concerns no single activation


@contextmanager
def telling_of_all(session: Session, *, unattended: bool = False) -> Iterator[None]:
    """What keeps every activation from running is told once, and once when it is over. A mistake in the declarations is
    told only where nobody looks on: who runs a command sees it."""
    try:
        yield
    except DinmoError as error:
        passing = error.problems[0].code == BUSY_DATABASE
        if not passing and (unattended or not isinstance(error, ConfigError | UsageError)):
            try:
                _tell_of_all(session, error)
                deliver(session)
            except DinmoError as untold:  # without dinmo.yml or the state nobody can be told; the caller says why
                session.console.note(Problem(GIVEN_UP, f"no channel was told: {untold.problems[0].message}"))
        raise
    _tell_all_is_well(session)


def _tell_of_all(session: Session, error: DinmoError) -> None:
    from dinmo_dbt.activation import WarningKind
    from dinmo_dbt.warnings import Standing

    problem, now, activity = error.problems[0], session.clock.now(), session.activity
    where = f"{problem.where}\n" if problem.where else ""
    hint = f"\n{problem.hint}" if problem.hint else ""
    notice = Notice(
        f"all:{activity.target}:{now:.0f}",
        Severity.CRITICAL,
        f"dinmo-dbt [{activity.target}]: no sync can run",
        f"{where}{problem.code} {problem.message}{hint}",
    )
    activity.begin_standing(Standing("", activity.target, WarningKind.FAILED, now, "", True, problem.message), notice)


def _tell_all_is_well(session: Session) -> None:
    activity = session.activity
    for stood in activity.standing():
        if stood.activation == "":
            since = datetime.fromtimestamp(stood.since, UTC).strftime("%Y-%m-%d %H:%MZ")
            notice = Notice(
                f"all:{stood.target}:{stood.since:.0f}:recovered",
                Severity.RECOVERED,
                f"dinmo-dbt [{stood.target}]: syncs run again",
                f"None could since {since}: {stood.said}",
                ends_critical=True,
            )
            activity.end_standing(stood, notice)
