"""verify and revert, against what Salesforce holds; and the demo."""

from __future__ import annotations

from typing import Literal

from dinmo_dbt.cli.documents.parts import Counts, Document, Outcome, Part, Problem, Result


class VerifyCounts(Part):
    read: int
    verified: int
    drifted: int
    gone: int
    unverifiable: int
    pending: dict[str, int]
    """Rows that a sync would send anyway, by why."""


class NotCompared(Part):
    field: str
    reason: str


class BothValues(Part):
    field: str
    model: str | None
    salesforce: str | None


class Drifted(Part):
    key: str
    record_id: str | None
    fields: list[str | BothValues]
    """Names; with --show-values, with what the model and Salesforce hold."""


class Gone(Part):
    key: str
    record_id: str | None


class Repair(Part):
    marked: int
    repaired: int


class Verified(Part):
    """What became of one activation's rows. Where nothing was compared, `skipped` or `problems` say why."""

    activation: str
    object: str | None = None
    mode: str | None = None
    org_id: str | None = None
    counts: VerifyCounts | None = None
    fields: list[str] | None = None
    not_compared: list[NotCompared] | None = None
    drifted: list[Drifted] | None = None
    gone: list[Gone] | None = None
    repair: Repair | None = None
    skipped: str | None = None
    problems: list[Problem] | None = None


class Verify(Document):
    command: Literal["verify"]
    exit_code: int
    activations: list[Verified]
    results: list[Result] | None = None
    """With --repair."""


class LeftAlone(Part):
    """A record that a revert leaves as it is."""

    record_id: str | None
    fate: str
    code: str
    fields: list[str]
    message: str | None


class Revert(Document):
    command: Literal["revert"]
    exit_code: int
    reverts: str
    """The run that is undone."""
    activation: str
    org_id: str
    counts: Counts
    put_back: int
    deleted: int
    left_alone: list[LeftAlone]
    not_updateable: list[str]
    refusal: Problem | None
    run_id: str | None
    """The revert's own run, with --yes; `status` and `outcome` too."""
    status: str | None
    outcome: Outcome | None


class DemoResult(Part):
    activation: str
    status: str
    message: str


class Demo(Document):
    command: Literal["demo"]
    seconds: float
    project: str | None
    """With --keep."""
    last_sync: list[DemoResult]
