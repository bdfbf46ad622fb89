"""The channels that notices go to: one attempt in bounded time, and the bounded attempts of one command.

Each attempt is a process of its own (`attempt`), which is killed when its time is up: no channel can hold a command up,
and nothing that the library behind it prints, logs or keeps gets out. A message names a channel by its place in
dinmo.yml and its service, never by URL or host.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dinmo_dbt.channels.incidents import Keeps, keeps
from dinmo_dbt.codes import CHANNEL_NOT_REACHED, CHANNEL_NOT_UNDERSTOOD, CHANNEL_REFUSED
from dinmo_dbt.errors import Problem
from dinmo_dbt.watch.notice import Notice, Severity

if TYPE_CHECKING:
    from dinmo_dbt.clock import Clock
    from dinmo_dbt.config.channel import Channel


LIMIT_S = 10
PAUSES_S = (1.0, 5.0)  # before the second and the third round
FAILURES_MAX = 2  # in a row, of one channel: then it is left alone for the rest of the command


@dataclass(frozen=True, slots=True)
class Attempted:
    """What an attempt found: the service (`slack`; '' where that is not known) and why it failed; None: it did not."""

    kind: str
    problem: Problem | None


def keeps_incidents(channel: Channel) -> bool:
    """Whether its service opens an incident for what it receives, by the look of its URL."""
    return keeps(channel.url.reveal()) is not Keeps.MESSAGES


def takes(channel: Channel, notice: Notice) -> bool:
    """Whether the channel is to have the notice. Where it would open an incident, only what tells of one."""
    kept = keeps(channel.url.reveal())
    ends_there = kept is Keeps.INCIDENTS or notice.severity is not Severity.RECOVERED
    return channel.takes(notice) and (kept is Keeps.MESSAGES or (bool(notice.incident) and ends_there))


def goes_on(channel: Channel, notice: Notice) -> bool:
    """Of what recovered: whether something is still open of that incident which the channel knows."""
    return notice.stands is Severity.CRITICAL or (notice.stands is not None and not channel.only_critical)


def check(channel: Channel) -> Attempted:
    """Whether the channel's URL is understood. Nothing is sent."""
    return _attempt(channel, None)


def send(channel: Channel, notice: Notice) -> Attempted:
    """One attempt to send the notice, done within LIMIT_S. A failure may still have delivered it: `Notice.id` tells."""
    return _attempt(channel, notice)


@dataclass(frozen=True, slots=True)
class Failure:
    """A notice that a channel did not get, and what the channel failed with last."""

    notice_id: str
    place: str
    problem: Problem


@dataclass(frozen=True, slots=True)
class NoticesSent:
    """What became of the notices of one command; `sent` holds pairs of notice id and the channel's place."""

    sent: tuple[tuple[str, str], ...]
    failed: tuple[Failure, ...]


def deliver(
    pending: Sequence[tuple[Notice, Channel]],
    *,
    clock: Clock,
    sent: Callable[[str, str], None],
    attempt: Callable[[Channel, Notice], Attempted] = send,
) -> NoticesSent:
    """Try each notice at its channel, in the order given, up to three times, with pauses between the rounds.

    `sent(notice id, place)` is called right after each success. A failure that lasts is not tried again, and a channel
    that fails twice in a row is left alone. Of one incident none overtakes another that is still to be tried, so that
    its beginning never comes after its end. Raises Interrupted when the user asks the command to stop.
    """
    done: list[tuple[str, str]] = []
    failed: dict[tuple[str, str], Failure] = {}
    in_a_row: dict[str, list[Problem]] = {}
    waiting = list(pending)
    for pause_s in (0.0, *PAUSES_S):
        again = [(notice, channel) for notice, channel in waiting if _open(in_a_row.get(channel.place, []))]
        waiting = []
        if again:
            clock.sleep(pause_s)
        for notice, channel in again:
            pair, before = (notice.id, channel.place), in_a_row.setdefault(channel.place, [])
            ahead = [of.id for of, to in waiting if to == channel and of.incident == notice.incident != ""]
            if ahead:
                waiting.append((notice, channel))
                failed[pair] = Failure(*pair, failed[ahead[0], channel.place].problem)
                continue
            clock.sleep(0)
            problem = attempt(channel, notice).problem if _open(before) else before[-1]
            if problem is None:
                before.clear()
                failed.pop(pair, None)
                done.append(pair)
                sent(*pair)
                continue
            before.append(problem)
            failed[pair] = Failure(*pair, problem)
            if problem.code == CHANNEL_NOT_REACHED:
                waiting.append((notice, channel))
    return NoticesSent(tuple(done), tuple(failed.values()))


def _open(failures_in_a_row: Sequence[Problem]) -> bool:
    return len(failures_in_a_row) < FAILURES_MAX


def _attempt(channel: Channel, notice: Notice | None) -> Attempted:
    request: dict[str, Any] = {"url": channel.url.reveal(), "limit_s": LIMIT_S}
    if notice is not None:
        severity = notice.severity.value
        content = {"id": notice.id, "severity": severity, "title": notice.title, "body": notice.body}
        incident = {"incident": notice.incident} if notice.incident else {}
        request["notice"] = content | incident | {"stands": goes_on(channel, notice)}
    try:
        # By stdin: arguments and environment can be read by others. -P: no module from the folder we were started in.
        # A session of its own: a Ctrl-C in the terminal reaches this process, which ends the child.
        child = subprocess.run(
            [sys.executable, "-P", "-m", "dinmo_dbt.channels.attempt"],
            input=json.dumps(request).encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=LIMIT_S,
            start_new_session=True,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return _failed(channel, CHANNEL_NOT_REACHED, f"no answer within {LIMIT_S} seconds")
    except OSError as error:
        return _failed(channel, CHANNEL_NOT_REACHED, f"no process could be started for it ({error.strerror})")
    try:
        answer = json.loads(child.stdout)
    except ValueError:
        return _failed(channel, CHANNEL_NOT_REACHED, "the attempt broke off")
    kind = str(answer["kind"])
    if not kind:
        return _failed(channel, CHANNEL_NOT_UNDERSTOOD, answer["reason"])
    if notice is None or answer["sent"]:
        return Attempted(kind, None)
    return _failed(channel, CHANNEL_NOT_REACHED if answer["passing"] else CHANNEL_REFUSED, answer["reason"], kind)


def _failed(channel: Channel, code: str, reason: str, kind: str = "") -> Attempted:
    what = (
        "the URL is not understood"
        if code == CHANNEL_NOT_UNDERSTOOD
        else f"{kind or 'the channel'} did not take the message"
    )
    hint = "docs/warnings.md has the URL of each service" if code == CHANNEL_NOT_UNDERSTOOD else ""
    return Attempted(kind, Problem(code, f"{what}: {reason}", f"dinmo.yml: {channel.place}", hint))
