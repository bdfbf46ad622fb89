"""Pauses: by hand with a reason, and ended by themselves when a reason that lasts is mended."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import typer

from dinmo_dbt.cli.console import Console
from dinmo_dbt.cli.due import Turn
from dinmo_dbt.cli.notices import deliver
from dinmo_dbt.cli.options import Flags
from dinmo_dbt.cli.session import Session
from dinmo_dbt.errors import DinmoError, Problem
from dinmo_dbt.text.moments import iso, moment, said

if TYPE_CHECKING:
    from dinmo_dbt.activation import Activation
    from dinmo_dbt.state import Pause
    from dinmo_dbt.watch.notice import Notice


def set_pauses(flags: Flags, as_json: bool, reason: str | None) -> None:
    from dinmo_dbt.cli import printed

    console = Console(as_json)
    done: list[str] = []
    with Session(flags, console, offline=True) as session:
        session.state.take_back()
        pauses = session.activity.pauses()
        for activation in session.chosen:
            name, pause = activation.name, pauses.get(activation.name)
            # What paused by itself would resume by itself: a pause by hand takes the place of that.
            done_already = pause is None if reason is None else pause is not None and not pause.by_itself
            if done_already:
                console.answer([f"{name}: {'not paused' if reason is None else 'paused already'}"])
                continue
            if reason is None:
                notices = _notices(session, activation, reason="", by_hand=True, paused=False)
                session.activity.resume(name, notices)
            else:
                notices = _notices(session, activation, reason=reason, by_hand=True, paused=True)
                session.activity.pause(name, reason, notices)
            console.answer([f"{name}: {'resumed' if reason is None else 'paused'}"])
            done.append(name)
        deliver(session)
        console.answer(session.wrong_lines())
        code = session.say_wrong()
        command = "resume" if reason is None else "pause"
        console.document(printed.document(command, target=session.target[1], activations=done))
    if code:
        raise typer.Exit(code)


def paused_by_hand(session: Session, activation: Activation) -> str:
    """Why no sync may run the activation; '' if one may."""
    pause = session.activity.pauses().get(activation.name)
    if pause is None or pause.by_itself:
        return ""
    return f"paused since {moment(pause.at)}: {pause.reason} (dinmo-dbt resume -s {activation.name})"


def look_at_pause(session: Session, turn: Turn) -> tuple[Turn, tuple[str, str] | None]:
    """The turn of an activation that paused by itself: resumed if what stopped it is mended, else why it is skipped.
    Any other turn as it is."""
    activation = turn.activation
    pause = session.activity.pauses().get(activation.name)
    if pause is None:
        return turn, None
    problem = _probe(session, activation)
    if problem is not None:
        session.activity.looked(activation.name)
        still = f"paused by itself since {moment(pause.at)}, and still: {problem.code} {problem.message}"
        return turn, ("paused", still)
    notices = _notices(session, activation, reason=pause.reason, by_hand=False, paused=False)
    session.activity.resume_by_itself(activation.name, notices)
    if why := paused_by_hand(session, activation):  # while we looked
        return turn, ("skipped", why)
    said = f"{turn.trigger.said}, resumed: what paused it since {moment(pause.at)} is mended"
    kind = "resumed" if turn.trigger.by_schedule else turn.trigger.kind
    return replace(turn, trigger=replace(turn.trigger, kind=kind, said=said)), None


def _probe(session: Session, activation: Activation) -> Problem | None:
    """What would fail at once: the login, the object, a field. A describe is the one call that it takes."""
    from dinmo_dbt.rows.resolve import resolve

    try:
        destination = session.destination(activation.destination)
        schema = destination.describe(activation.object)
        relation = session.source.schema(activation.model.relation_name)
        _, problems = resolve(activation, schema, destination.describe, relation)
    except DinmoError as error:
        return error.problems[0]
    return problems[0] if problems else None


def _notices(session: Session, activation: Activation, *, reason: str, by_hand: bool, paused: bool) -> list[Notice]:
    """The notice to the channels of a pause or its end."""
    from dinmo_dbt.watch import warnings

    at, target = session.clock.now(), session.target[1]
    make = warnings.paused if paused else warnings.resumed
    notice = make(
        activation,
        target=target,
        reason=reason,
        by_hand=by_hand,
        at=at,
        id=f"{activation.name}:{target}:{at:.0f}:{'paused' if paused else 'resumed'}",
    )
    return [notice] if notice else []


def paused_json(pause: Pause | None) -> dict[str, Any] | None:
    return None if pause is None else {"since": iso(pause.at), "by_itself": pause.by_itself, "reason": pause.reason}


def paused_line(paused: dict[str, Any]) -> str:
    who = "by itself" if paused["by_itself"] else "by hand"
    return f"paused {who} since {said(paused['since'])}: {paused['reason']}"
