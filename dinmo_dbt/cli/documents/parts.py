"""What several documents have in common: problems, counts, runs and their outcomes."""

from __future__ import annotations

from dataclasses import fields
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, create_model

from dinmo_dbt.cli.printed import JSON_VERSION
from dinmo_dbt.delivery.run import Outcome as SyncOutcome
from dinmo_dbt.plan.plan import Counts as PlanCounts

MOMENT = r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$"
Moment = Annotated[str, Field(pattern=MOMENT, json_schema_extra={"format": "date-time"})]
RunStatus = Literal[
    "running", "success", "rejected", "unknown", "failed", "refused", "blocked", "interrupted", "on_its_way"
]


class Part(BaseModel):
    """Keys may be added to it between two releases."""

    model_config = ConfigDict(extra="allow", use_attribute_docstrings=True)


def _numbers(name: str, of: type, doc: str) -> Any:
    """Every count of a dataclass, so that none can be added there and be missing here."""
    return create_model(name, __base__=Part, __doc__=doc, **{each.name: (int, ...) for each in fields(of)})  # type: ignore[call-overload]


Counts = _numbers(
    "Counts",
    PlanCounts,
    "`read`: `unchanged` + `planned` + `invalid` + `rejected` + `no_match` + `ambiguous` + `held` + `in_flight`.",
)
Outcome = _numbers("Outcome", SyncOutcome, "Rows that were sent; `created` and `removed` are among `succeeded`.")


class Problem(Part):
    """What is wrong, where, and what to do about it."""

    code: str
    """Stable; errors.md lists them all."""
    message: str
    where: str
    """File, model and key, or whatever else it is about; may be empty."""
    hint: str
    """May be empty."""


class Group(Part):
    """Rows that were not delivered, by reason. No row value is in it."""

    fate: str
    """rejected, invalid, no_match, ambiguous, held or unknown."""
    code: str | None
    fields: list[str]
    rows: int
    class_: str | None = Field(alias="class")
    """Of what Salesforce refused: data, reference, transient, limit, ...; else null."""
    hint: str | None


class Audit(Part):
    """A look at a sample of rows after the run."""

    compared: int
    missed: int
    drifted: int
    deleted: int
    rewritten: int
    fields: list[str]
    unread: int
    left_out: str


class Trigger(Part):
    """Why a run started."""

    kind: Literal["by_hand", "due", "resumed", "revert"]
    said: str
    """The same in words."""
    due: Moment | None
    """When it was due by the clock."""
    passed: int
    """How many more such moments had passed without a run."""
    invocation: str
    """The dbt command that had built the model."""


class Run(Part):
    """One run of one activation, as the history has it."""

    run_id: str
    activation: str
    model: str
    """dbt's unique_id."""
    object: str
    mode: str
    """insert, update, upsert, delete or revert."""
    target: str
    """The dbt target."""
    org_id: str
    """Empty where the run reached no org."""
    status: RunStatus
    started: Moment
    finished: Moment | None
    seconds: float | None
    on_their_way: int
    """Rows in a job that goes on at Salesforce."""
    trigger: Trigger
    counts: Counts | dict[Any, Any]  # type: ignore[valid-type]
    """Empty where the run did not get so far; `outcome` too."""
    outcome: Outcome | dict[Any, Any]  # type: ignore[valid-type]
    recovered: Outcome  # type: ignore[valid-type]
    """Rows of an earlier run that was cut off, settled by this one."""
    left_out: list[Group]
    jobs: list[str]
    audit: Audit | None
    problem: Problem | None
    refused_rows: int
    """Rows that stand rejected or invalid, those of earlier runs included."""
    deliverable_rows: int
    waiting_rows: int
    waiting_since: Moment | None
    resent: str
    """Why all known rows were sent; empty where only changes were."""
    field_types: dict[str, str]
    calls_used: int | None
    """The org's daily API calls, of `calls_allowed`, as its last reply says."""
    calls_allowed: int | None
    versions: dict[str, str | None]
    plan_digest: str | None
    phase_seconds: dict[str, float]
    rows_per_second: int | None
    api_calls: int | None = None
    """Missing where the run ended before its login."""
    reverts: str | None = None
    """Of a revert: the run that it undid."""


class Outcomes(Part):
    """What a command made of one activation. What may be missing is there where it got so far."""

    activation: str
    object: str
    status: str
    """That of a run, or skipped, paused, under way."""
    message: str
    run_id: str | None = None
    counts: Counts | None = None  # type: ignore[valid-type]
    outcome: Outcome | None = None  # type: ignore[valid-type]
    recovered: Outcome | None = None  # type: ignore[valid-type]
    left_out: list[Group] | None = None
    jobs: list[str] | None = None
    audit: Audit | None = None
    problem: Problem | None = None
    problems: list[Problem] | None = None


class Result(Outcomes):
    model: str
    seconds: float


class Document(Part):
    """What `--json` prints, on stdout, once. A document keeps its `version` while keys are only added to it."""

    version: Literal[1]
    command: str
    dinmo_dbt: str
    """The release that wrote it."""


assert JSON_VERSION == 1  # a new version is written above, too


class Failure(Document):
    """Any command that fails before it has done anything: in place of its own document."""

    exit_code: int
    problems: list[Problem]
