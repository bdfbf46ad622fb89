"""schedule, pause, status, history and rejected: what runs have left behind."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from dinmo_dbt.cli.documents.parts import Document, Group, Moment, Part, Run


class Paused(Part):
    since: Moment
    by_itself: bool
    reason: str


class Scheduled(Part):
    """When an activation ran, and is due."""

    activation: str
    schedule: str
    quiet_hours: str | None
    enabled: bool
    paused: Paused | None
    last_run: Run | None
    due: str | None
    """Why it is due now; null where it is not."""
    next: Moment | None


class Schedule(Document):
    command: Literal["schedule"]
    activations: list[Scheduled] | None = None
    emit: str | None = None
    """With --emit, and then `lines` in place of `activations`."""
    lines: list[str] | None = None


class Pausing(Document):
    command: Literal["pause", "resume"]
    target: str
    activations: list[str]
    """Those that were not paused, or resumed, before."""


class Standing(Part):
    """A warning that stands."""

    kind: str
    critical: bool
    since: Moment
    said: str


class Known(Part):
    """What is known of one activation in one org."""

    org_id: str
    rows: int
    left: int
    unknown: int
    waiting: int
    given_up: int
    in_flight: int
    problem: str | None
    """Why its rows can't be read."""


class ActivationStatus(Part):
    activation: str
    enabled: bool
    last_run: Run | None
    held: int
    paused: Paused | None
    warnings: list[Standing]
    orgs: list[Known]


class Status(Document):
    command: Literal["status"]
    activations: list[ActivationStatus]


class History(Document):
    command: Literal["history"]
    runs: list[Run] | None = None
    """Newest first; with a run's id, `run` in place of it."""
    run: Run | None = None


class RejectedRow(Part):
    """A row that was not delivered. Its message has values only with --show-values."""

    key: str | None
    fate: str
    code: str | None
    class_: str | None = Field(alias="class")
    fields: list[str]
    record_id: str | None
    message: str | None
    hint: str | None


class UnfinishedRun(Part):
    run_id: str
    status: str


class RejectedRows(Part):
    activation: str
    run_id: str
    """The latest run that came to the activation's rows, or the one that was asked for."""
    total: int
    groups: list[Group]
    rows: list[RejectedRow]
    """The first of them, up to --limit."""
    unfinished: UnfinishedRun | None
    """The latest run, where it did not do its work, so that `rows` may not be all."""


class Rejected(Document):
    command: Literal["rejected"]
    activations: list[RejectedRows]
    exported: str | None = None
    """The file of --export."""
