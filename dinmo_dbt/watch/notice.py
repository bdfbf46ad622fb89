"""A notice: one message to people, as it goes to the channels. It holds no secret and no row value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import quote

NAMES_MAX = 50


class Severity(StrEnum):
    """How urgent it is; `recovered` is the end of what was a warning or critical before."""

    CRITICAL = "critical"
    WARNING = "warning"
    RECOVERED = "recovered"
    INFO = "info"


@dataclass(frozen=True, slots=True)
class Notice:
    """Plain text. `id` is in what is sent: by it a receiver recognises a notice that it was sent twice.
    `ends_critical`: what recovered was critical, so its end goes to all who got it.

    `cause`: lines that the notices of all activations have in common that it concerns; '' for none. `of`: those that
    one was made of, which says the same of several activations.

    `incident`: what it is about, the same text from a warning's beginning to its end (`incident`); '' for what is no
    warning. `stands`: how loud the loudest warning is that stands for that incident after one that recovered.
    """

    id: str
    severity: Severity
    title: str
    body: str
    ends_critical: bool = False
    activation: str = ""
    cause: str = ""
    of: tuple[Notice, ...] = ()
    incident: str = ""
    stands: Severity | None = None


def incident(target: str, *of: str) -> str:
    """Of an activation by its name; of what concerns all, or something of its own, by more."""
    return "/".join(quote(part, safe=":") for part in (target, *of))


def gathered(notices: Sequence[Notice]) -> list[Notice]:
    """Notices of several activations with the same cause as one, all else as it is; in the order of
    the first of each."""
    groups: dict[object, list[Notice]] = {}
    for notice in notices:
        alike: object = (
            (notice.severity, notice.ends_critical, notice.cause, _tail(notice)) if notice.cause else notice.id
        )
        while any(each.activation == notice.activation for each in groups.get(alike, ())):
            alike = (alike, "again")  # of one activation, sent twice while a channel was away
        groups.setdefault(alike, []).append(notice)
    return [group[0] if len(group) == 1 else _one_of(group) for group in groups.values()]


def caught_up(waiting: Sequence[tuple[str, Notice]], target: str, id: str) -> Notice:
    """What a channel did not take while it was away, and what came since, as one notice, as loud as the loudest: of
    each its time and its title, oldest first."""
    notices = [notice for _, notice in waiting]
    lines = [f"{at}  {_said(notice, target)}" for at, notice in waiting[-NAMES_MAX:]]
    left_out = len(waiting) - len(lines)
    lines = [*([f"and {left_out} before: dinmo-dbt history"] if left_out else []), *lines, "", "dinmo-dbt status"]
    return Notice(
        id,
        min((notice.severity for notice in notices), key=list(Severity).index),
        f"dinmo-dbt [{target}]: {len(notices)} notices since this channel was last reached",
        "\n".join(lines),
        any(notice.ends_critical for notice in notices),
        of=tuple(notices),
    )


def _said(notice: Notice, target: str) -> str:
    return f"{notice.severity.value}: {notice.title.removeprefix(f'dinmo-dbt [{target}]: ')}"


def _one_of(group: Sequence[Notice]) -> Notice:
    first, number = group[0], len(group)
    head, _, tail = first.title.partition(f"{first.activation}: ")
    # Where to look is the last line of each.
    lines = [f"{each.activation}: {each.body.splitlines()[-1]}" for each in group[:NAMES_MAX]]
    lines += [f"and {number - NAMES_MAX} more: dinmo-dbt status"] if number > NAMES_MAX else []
    return Notice(
        f"{first.id}+{number - 1}",
        first.severity,
        f"{head}{number} activations: {tail}",
        "\n".join([first.cause, "", *lines]),
        first.ends_critical,
        of=tuple(group),
    )


def _tail(notice: Notice) -> str:
    """What the title says of the activation."""
    return notice.title.partition(f"{notice.activation}: ")[2]
