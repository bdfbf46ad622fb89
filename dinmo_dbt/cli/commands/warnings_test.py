"""warnings test: whether each channel of dinmo.yml takes a message."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dinmo_dbt.cli import options
from dinmo_dbt.cli.console import Console
from dinmo_dbt.cli.options import Flags
from dinmo_dbt.cli.session import Session
from dinmo_dbt.codes import BAD_VARS, NO_CHANNEL
from dinmo_dbt.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from dinmo_dbt.config.channel import Channel
    from dinmo_dbt.watch.notice import Notice

_EXAMPLE = """\
add one there, and set the variable to its URL:

warnings:
  channels:
    - "{{ env_var('DINMO_SLACK_URL') }}\""""


def try_channels(
    flags: Flags,
    number: Annotated[
        int | None, typer.Option("--channel", min=0, help="Only this one: its number in dinmo.yml, from 0.")
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Send a sample warning to every channel of dinmo.yml, and say which took it.

    The message says that it is a test. A channel that gets critical warnings only is sent a critical one. A service of
    incidents is sent the end of its incident too. Neither Salesforce nor the warehouse is asked for anything. Exit code
    1: a channel did not take it.

    \b
    Examples:
      dinmo-dbt warnings test
      dinmo-dbt warnings test --channel 1 --target prod
    """
    from dinmo_dbt import channels
    from dinmo_dbt.cli import printed

    console = Console(as_json)
    tried: list[dict[str, Any]] = []
    with Session(flags, console) as session:
        for place in session.project.silent_channels:
            console.say(f"{place}: empty here, it gets nothing")
        for channel in _chosen(session.project.channels, number):
            session.clock.sleep(0)
            sample = _sample(channel, session.clock.now(), session.target[1])
            found = session.send(channel, sample)
            if found.problem is None and channels.keeps_incidents(channel) and channels.takes(channel, _over(sample)):
                found = session.send(channel, _over(sample))
            service = f" ({found.kind})" if found.kind else ""
            console.answer([f"{channel.place}{service}: {'ERROR' if found.problem else 'OK'}"])
            if found.problem:
                console.problems([found.problem])
            problem = printed.problem_json(found.problem) if found.problem else None
            tried.append(
                {"channel": channel.place, "service": found.kind, "ok": found.problem is None, "problem": problem}
            )
    all_took_it = all(each["ok"] for each in tried)
    console.document(printed.document("warnings test", ok=all_took_it, channels=tried))
    raise typer.Exit(0 if all_took_it else 1)


def _chosen(channels: tuple[Channel, ...], number: int | None) -> tuple[Channel, ...]:
    if not channels:
        raise ConfigError(
            NO_CHANNEL, "there is no channel to send to", where="dinmo.yml: warnings.channels", hint=_EXAMPLE
        )
    if number is None:
        return channels
    chosen = tuple(channel for channel in channels if channel.place == f"warnings.channels[{number}]")
    if not chosen:
        known = ", ".join(channel.place for channel in channels)
        raise UsageError(BAD_VARS, f"--channel {number}: there is no such channel", hint=f"dinmo.yml has {known}")
    return chosen


def _sample(channel: Channel, now: float, target: str) -> Notice:
    from dinmo_dbt.watch.notice import Notice, Severity, incident

    return Notice(
        id=time.strftime("test-%Y%m%dT%H%M%SZ", time.gmtime(now)),
        severity=Severity.CRITICAL if channel.only_critical else Severity.WARNING,
        title="TEST subscriptions_to_crm: 12 rows rejected",
        body="This is a test of dinmo-dbt: nothing is wrong. A warning would look like this:\n\n"
        f"subscriptions_to_crm (target {target}): Salesforce rejected 12 of 2,400 rows, more than 0.1%.\n"
        f"The rows and the reasons: dinmo-dbt rejected -s subscriptions_to_crm --target {target}",
        incident=incident(target, ":test"),
    )


def _over(sample: Notice) -> Notice:
    from dinmo_dbt.watch.notice import Severity

    title, body = "TEST subscriptions_to_crm: rejected recovered", "The test is over."
    id = f"{sample.id}:recovered"
    return replace(sample, id=id, severity=Severity.RECOVERED, title=title, body=body, ends_critical=True)
