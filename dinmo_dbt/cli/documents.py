"""The JSON that commands print and runs leave behind, described for those who read it.

dinmo_dbt/documents.schema.json and docs/json.md are made from these types, and every document that a test reads is held
against them. Nothing at run time imports this module.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, create_model
from pydantic.json_schema import models_json_schema

from dinmo_dbt.cli.render import JSON_VERSION
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
    """The org's daily API calls, of `calls_allowed`, as its last reply told."""
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
    told: str | None
    problems: list[Problem]


class Debug(Document):
    command: Literal["debug"]
    ok: bool
    checks: list[Check]


class Validate(Document):
    command: Literal["validate"]
    valid: bool
    problems: list[Problem]


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
    counts: Counts  # type: ignore[valid-type]
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
    counts: Counts  # type: ignore[valid-type]
    put_back: int
    deleted: int
    left_alone: list[LeftAlone]
    not_updateable: list[str]
    refusal: Problem | None
    run_id: str | None
    """The revert's own run, with --yes; `status` and `outcome` too."""
    status: str | None
    outcome: Outcome | None  # type: ignore[valid-type]


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


class OrgObject(Part):
    object: str
    label: str
    custom: bool
    createable: bool
    updateable: bool
    deletable: bool


class OrgObjects(Document):
    command: Literal["org objects"]
    org_id: str
    objects: list[OrgObject]


class OrgField(Part):
    field: str
    label: str
    type: str
    """describe's."""
    createable: bool
    updateable: bool
    length: int
    precision: int
    scale: int
    required: bool
    external_id: bool
    unique: bool
    picklist: list[str]
    restricted: bool
    refers_to: list[str]
    parent_paths: list[str]


class OrgFields(Document):
    command: Literal["org fields"]
    org_id: str
    object: str
    fields: list[OrgField]


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
    """Null where it can't be told from here."""


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


def documents() -> tuple[type[Document], ...]:
    """What commands print, in the order of the page."""
    return tuple(Document.__subclasses__())


FILES: tuple[type[Part], ...] = (RunResults, LogLine, Health)


def json_schema() -> dict[str, Any]:
    """JSON Schema of every document: one of them matches what was printed, and `$defs` has each by its name."""
    every = (*documents(), *FILES)
    _, made = models_json_schema([(each, "validation") for each in every], by_alias=True)
    definitions = {name: _plain(each) for name, each in made["$defs"].items()}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "JSON of dinmo-dbt",
        "description": "What commands print with --json, what a sync leaves in target/, log lines, and serve's health.",
        "anyOf": [{"$ref": f"#/$defs/{each.__name__}"} for each in every],
        "$defs": definitions,
    }


def _plain(definition: dict[str, Any]) -> dict[str, Any]:
    """Without what pydantic adds: a key's name in other letters, and a default for one that may be missing."""
    for value in definition.get("properties", {}).values():
        value.pop("title", None)
        value.pop("default", None)
    return definition
