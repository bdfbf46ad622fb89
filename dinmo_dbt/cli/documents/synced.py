"""plan and sync: what would be sent, what was, and what a sync leaves in target/."""

from __future__ import annotations

from typing import Literal

from dinmo_dbt.cli.documents.parts import Counts, Document, Group, Moment, Outcomes, Part, Problem, Result


class Batch(Part):
    """Rows that would be sent in one way."""

    operation: str
    api: str
    rows: int
    left_segment: bool
    """Whether they are rows that left the segment."""
    fields: list[str]


class Change(Part):
    """One field of a record. Null is empty."""

    field: str
    now: str | None
    then: str | None


class Sample(Part):
    """A row that would be sent, with values."""

    kind: Literal["create", "update", "create or update", "delete"]
    key: str
    record_id: str | None
    fields: list[Change]
    note: str


class Repeated(Part):
    """A key or a match value, as it is compared, and how many rows have it; null: rows that have none."""

    key: str | None
    rows: int


class NotToldApart(Part):
    """Some keys or match values that do not identify their rows, and a query that finds these rows in the warehouse."""

    columns: list[str]
    values: list[Repeated]
    query: str


class Replaced(Part):
    left: str
    came: str


class Planned(Part):
    """What a sync of one activation would do."""

    activation: str
    model: str
    relation: str
    destination: str
    object: str
    mode: str
    org_id: str
    state_serial: int
    first_sync: bool
    counts: Counts
    batches: list[Batch]
    left_out: list[Group]
    api_calls_estimate: int
    refusal: Problem | None
    in_flight_jobs: list[str]
    notes: list[str]
    samples: list[Sample] | None = None
    """With --show-values; `keys_replaced` and `not_told_apart` too."""
    keys_replaced: list[Replaced] | None = None
    not_told_apart: list[NotToldApart] | None = None
    """Where keys or match values are null or repeated."""


class Skipped(Part):
    """An activation that would be skipped, and why."""

    activation: str
    skipped: str


class Unplanned(Part):
    """An activation of which no plan could be made."""

    activation: str
    problems: list[Problem]


class Plan(Document):
    command: Literal["plan"]
    activations: list[Planned | Skipped | Unplanned]


class Sync(Document):
    """`run` is dbt, then sync."""

    command: Literal["sync", "run", "retry"]
    exit_code: int
    results: list[Result]
    api_calls: int | None = None
    """Missing where nothing was to be done."""


class ResultsMetadata(Part):
    dinmo_schema_version: str
    dinmo_version: str
    generated_at: Moment
    dbt_invocation_id: str


class ResultsArgs(Part):
    target: str
    select: list[str]
    exclude: list[str]


class FileResult(Outcomes):
    """A result as of `sync`, with dbt's names: `unique_id` for `model`, `execution_time`, in seconds, for `seconds`."""

    unique_id: str
    execution_time: float


class RunResults(Part):
    """`target/dinmo_run_results.json`, which each sync leaves, with the names that dbt's `run_results.json` has."""

    metadata: ResultsMetadata
    args: ResultsArgs
    elapsed_time: float
    """Seconds."""
    results: list[FileResult]


class LogInfo(Part):
    level: Literal["info", "warn", "error"]
    msg: str
    ts: Moment


class LogLine(Part):
    """A line of `--log-format json`, with the names that dbt's has."""

    info: LogInfo
