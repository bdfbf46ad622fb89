"""What is due by now, and why: for `sync --due` and `serve`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dinmo_dbt.cli.session import Session
from dinmo_dbt.codes import CLOCK_SET
from dinmo_dbt.errors import Problem, Refused
from dinmo_dbt.text.moments import moment
from dinmo_dbt.watch.history import ON_ITS_WAY, Trigger

if TYPE_CHECKING:
    from dinmo_dbt.activation import Activation
    from dinmo_dbt.watch.schedule import Past

ASK_AGE_SHARE, ASK_MIN_S, ASK_MAX_S = 0.05, 20.0, 600.0  # between two questions after a job that goes on
PROBE_PAUSE_S = 900.0  # what paused by itself and is due is looked at again after so long, or after another dbt build


@dataclass(frozen=True, slots=True)
class Turn:
    """An activation whose turn it is: its place among the others, and why it runs."""

    activation: Activation
    place: str
    trigger: Trigger


def by_hand(session: Session, activation: Activation) -> Trigger:
    return Trigger(invocation=built_by(session, activation))


def built_by(session: Session, activation: Activation, past: Past | None = None) -> str:
    """The dbt command, by its invocation id, that last built the activation's model for this target; '' where the
    artifacts do not tell. Of a command that a later one wrote over only the moment is known: by that, where no run
    came since (`past`)."""
    from dinmo_dbt.artifacts import earlier
    from dinmo_dbt.watch.schedule import BY_MOMENT

    results = session.run_results
    if results is None or (results.target and results.target != session.target[1]):
        return ""
    built = results.built.get(activation.model.unique_id)
    if built is not None:
        return built.invocation_id or results.invocation_id
    node = session.manifest.nodes.get(activation.model.unique_id)
    if past is None or node is None or session.following is not None:
        return ""
    ran = earlier.ran_unsaid(session.target_path, node, results)
    is_new = ran is not None and (not past.ran or ran > past.since)
    return f"{BY_MOMENT}{moment(ran)}" if is_new and ran is not None else ""


def due_now(session: Session) -> dict[str, Trigger]:
    """Why each of the chosen activations is due, of those that are. Those never seen before are seen from now on, and
    what dbt built for them is owed until they have run."""
    from dinmo_dbt.watch.schedule import due
    from dinmo_dbt.watch.wording import span

    session.state.take_back()
    if ahead := session.activity.put_back():
        message = f"the state has moments that are still to come, by up to {span(ahead)}: they count as now"
        hint = "this machine's clock was ahead, or is behind by now"
        session.console.note(Problem(CLOCK_SET, message, str(session.state.location), hint))
    session.activity.see([activation.name for activation in session.chosen])
    names = [activation.name for activation in session.chosen]
    session.activity.owe(_owed(session, session.activity.pasts(names)))
    pauses, pasts, now = session.activity.pauses(), session.activity.pasts(names), session.clock.now()
    found = {}
    for activation in session.chosen:
        pause, past = pauses.get(activation.name), pasts[activation.name]
        if pause and not (pause.by_itself and _is_worth_a_look(past, now)):
            continue
        trigger = due(activation, past, now=now, built_by=built_by(session, activation, past))
        if trigger is not None and not _is_under_way(session, activation):
            found[activation.name] = trigger
    return found


def _is_under_way(session: Session, activation: Activation) -> bool:
    """Whether dbt builds the model right now: what is due stays due until that is over."""
    from dinmo_dbt.artifacts.gate import Standing

    try:
        return session.gate.verdict(activation.model.unique_id).standing is Standing.UNDER_WAY
    except Refused:  # a build of no rows, or of some: the sync itself says so
        return False


def _is_worth_a_look(past: Past, now: float) -> bool:
    """Of what paused by itself: dbt has built its model since the last look, perhaps with what mends it; or it was long
    ago."""
    return past.owed_at > past.since or now - past.since >= PROBE_PAUSE_S


def _owed(session: Session, pasts: Mapping[str, Past]) -> dict[str, str]:
    """The dbt command that built each model and that its activation has not followed, where that is not noted yet: the
    next dbt command may build others, and its artifacts tell only of itself. Not of models that the gate blocks. By
    whatever schedule, for one that paused by itself: what dbt built may mend it."""
    from dinmo_dbt.activation import ScheduleKind

    resting = {name for name, pause in session.activity.pauses().items() if pause.by_itself}
    due = [
        each
        for each in session.chosen
        if each.enabled and (each.schedule.kind is ScheduleKind.AFTER_DBT or each.name in resting)
    ]
    built = {each: built_by(session, each, pasts[each.name]) for each in due}
    new = [each for each in due if not pasts[each.name].follows(built[each]) and pasts[each.name].owed != built[each]]
    try:
        return {each.name: built[each] for each in new if not session.gate.verdict(each.model.unique_id).is_blocked}
    except Refused:  # a build of no rows, or of some
        return {}


def worth_running(session: Session, triggers: Mapping[str, Trigger]) -> dict[str, Trigger]:
    """Of what is due, what there is reason to run now: a job that goes on is asked for again after a twentieth of the
    time that it takes already."""
    return {name: trigger for name, trigger in triggers.items() if not _asked_lately(session, name)}


def _asked_lately(session: Session, name: str) -> bool:
    last = next(iter(session.state.history.latest([name], 1)), None)
    if last is None or last.status != ON_ITS_WAY or last.finished is None:
        return False
    takes = last.finished - (last.waiting_since or last.started)
    pause = min(max(takes * ASK_AGE_SHARE, ASK_MIN_S), ASK_MAX_S)
    return 0 <= session.clock.now() - last.finished < pause


def is_due(session: Session, activation: Activation) -> bool:
    from dinmo_dbt.watch.schedule import due

    past = session.activity.pasts([activation.name])[activation.name]
    return due(activation, past, now=session.clock.now(), built_by=built_by(session, activation, past)) is not None


def next_due_at(session: Session) -> dict[str, float]:
    """When each of the chosen activations is due by the clock, of those that will be."""
    from dinmo_dbt.watch.schedule import next_due

    names = [activation.name for activation in session.chosen]
    pasts, now, pauses = session.activity.pasts(names), session.clock.now(), session.activity.pauses()
    found = {a.name: next_due(a, pasts[a.name], now=now) for a in session.chosen if a.name not in pauses}
    return {name: moment for name, moment in found.items() if moment is not None}


def next_lines(session: Session) -> list[str]:
    """What will be due first, and when."""
    coming = sorted(next_due_at(session).items(), key=lambda each: (each[1], each[0]))
    return [f"next: {name} at {moment(at)}" for name, at in coming[:1]]
