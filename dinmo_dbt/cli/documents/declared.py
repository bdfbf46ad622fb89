"""list, debug and validate: what is declared, and whether it is right."""

from __future__ import annotations

from typing import Literal

from dinmo_dbt.cli.documents.parts import Document, Part, Problem


class Pair(Part):
    column: str
    field: str


class Listed(Part):
    """A declared activation."""

    activation: str
    model: str
    segment: str | None
    destination: str
    object: str
    mode: str
    key: list[str]
    match: Pair | None
    fields: list[Pair]
    schedule: str
    enabled: bool
    paused: bool
    tags: list[str]
    file: str


class List(Document):
    command: Literal["list"]
    activations: list[Listed]


class Check(Part):
    """One of the things that debug tries."""

    check: str
    ok: bool
    checked: bool
    """False where an earlier check failed for the same reason."""
    found: str | None
    problems: list[Problem]


class Debug(Document):
    command: Literal["debug"]
    ok: bool
    checks: list[Check]


class Validate(Document):
    command: Literal["validate"]
    valid: bool
    problems: list[Problem]
