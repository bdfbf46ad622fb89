"""serve's health, the channels of warnings, and the emulator."""

from __future__ import annotations

from typing import Literal

from dinmo_dbt.cli.documents.parts import Document, Moment, Part, Problem


class Channel(Part):
    channel: str
    """Its place in dinmo.yml; no part of its URL."""
    service: str
    ok: bool
    problem: Problem | None


class WarningsTest(Document):
    command: Literal["warnings test"]
    ok: bool
    channels: list[Channel]


class EmulatorServe(Document):
    """One line, once it listens."""

    command: Literal["emulator serve"]
    instance_url: str
    https_url: str
    ca_file: str
    organization_id: str
    username: str
    password: str
    security_token: str
    access_token: str
    refresh_token: str
    client_id: str
    client_secret: str
    pid: int


class EmulatorReset(Document):
    command: Literal["emulator reset"]
    data: str


class EmulatorImport(Document):
    command: Literal["emulator import"]
    folder: str
    objects: list[str]
    approximate: list[str]
    """What the emulator does not do as the org does."""


class HealthRun(Part):
    activation: str
    since: Moment
    seconds: int
    silent_seconds: int


class HealthNext(Part):
    activation: str
    at: Moment


class HealthUndelivered(Part):
    activation: str
    status: str
    rows: int
    since: Moment


class SetAside(Problem):
    run: str
    """Of dbt Cloud."""


class Health(Part):
    """The answer to `GET /health` of `dinmo-dbt serve`; schedules.md says what each status means."""

    status: Literal["ok", "undelivered", "failing", "stuck", "running too long", "overdue"]
    dinmo_dbt: str
    target: str
    started: Moment
    looked: Moment | None
    running: bool
    runs: list[HealthRun]
    next: HealthNext | None
    overdue: list[str]
    undelivered: list[HealthUndelivered]
    problem: Problem | None
    set_aside: list[SetAside]
