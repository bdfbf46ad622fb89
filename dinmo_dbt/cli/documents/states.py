"""The commands of a state."""

from __future__ import annotations

from typing import Literal

from dinmo_dbt.cli.documents.declared import Pair
from dinmo_dbt.cli.documents.parts import Document, Moment, Part


class StateId(Part):
    """Whose a state is."""

    org_id: str
    target: str
    activation: str


class State(StateId):
    """What is known of one activation under one dbt target in one org."""

    model: str
    object: str
    serial: int
    kept_serials: list[int]
    rows: int
    left: int
    unknown: int
    waiting: int
    given_up: int
    in_flight: int
    bytes: int
    held_by: str | None
    problem: str | None


class StateShow(Document):
    command: Literal["state show"]
    location: str
    lineage: str | None
    states: list[State]


class StateReset(Document):
    command: Literal["state reset"]
    reset: list[State]
    """What was forgotten."""
    older_format: int | None = None
    to_serial: int | None = None


class Matched(Part):
    key: str
    record_id: str


class Ambiguous(Part):
    key: str
    reason: str


class StateAdopt(Document):
    command: Literal["state adopt"]
    stored: bool
    activation: str
    object: str
    org_id: str
    matched_by: list[Pair]
    counts: dict[str, int]
    matched: list[Matched]
    ambiguous: list[Ambiguous]
    unmatched: list[str]
    """Keys."""


class Rekeyed(Part):
    old: str
    new: str


class StateRekey(Document):
    command: Literal["state rekey"]
    stored: bool
    activation: str
    object: str
    org_id: str
    counts: dict[str, int]
    pairs: list[Rekeyed]
    """Keys."""


class UnknownJob(Part):
    """A job in the org that the state does not know."""

    job_id: str
    operation: str
    object: str
    status: str
    created: Moment | None
    user_id: str
    api_version: str
    as_ours: bool


class StateRecord(Part):
    """The org's own record of the state."""

    serial: int
    lineage: str
    run_id: str


class StateAccept(Document):
    command: Literal["state accept"]
    accepted: bool
    activation: str
    jobs: list[UnknownJob]
    record: StateRecord | None


class StateCopy(Document):
    command: Literal["state copy"]
    old: str
    new: str
    setting: str
    """What dinmo.yml is to say."""
    copied: list[StateId]


class Moved(Part):
    old: StateId
    new: StateId


class StateMove(Document):
    command: Literal["state move"]
    moved: list[Moved]


class Holder(Part):
    """Who holds a state."""

    lock_id: str
    host: str
    pid: int
    user: str
    since: Moment
    run_id: str
    lives: bool | None
    """Null where it can't be known from here."""


class Held(StateId):
    epoch: int
    until: Moment
    overdue: bool
    in_flight: int
    holder: Holder


class StateUnlock(Document):
    command: Literal["state unlock"]
    unlocked: bool
    held: list[Held]
