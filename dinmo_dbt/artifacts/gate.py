"""run_results.json: which models the last dbt command left fit to sync, and whether it ran where we read.

`gate` never opens by a guess: dbt writes `success` for models that `compile`, `docs generate` and `show` did not
build, so only commands that build say "ok", and what failed stays blocked whatever else is unclear.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from dinmo_dbt.artifacts.manifest import Manifest, Node, read_json
from dinmo_dbt.codes import (
    ARTIFACT_UNREADABLE,
    EMPTY_BUILD,
    NO_ARTIFACT,
    NOT_RUN_RESULTS,
    OTHER_ADAPTER,
    OTHER_INVOCATION,
    OTHER_RELATIONS,
    OTHER_TARGET,
    SAMPLE_BUILD,
    UNKNOWN_TEST,
)
from dinmo_dbt.config.declaration import listed, show
from dinmo_dbt.errors import ConfigError, Problem, Refused

# dbt's commands that build, whose results say what was built; the kinds of nodes; and what their results say.
RESULTS_MAX = 150_000  # far more than a dbt command has: of each about a kilobyte is kept beside the JSON
BUILDS = ("build", "run", "seed", "snapshot", "retry", "clone")
_BUILD_NOTHING = ("test", "compile", "generate", "show", "list", "parse", "freshness", "run-operation")
BUILT = ("model", "seed", "snapshot")
TESTS = ("test", "unit_test")
NOTHING_DONE = ("no-op",)
FAILED = ("fail", "error", "runtime error")
_NO_FAILURE = ("pass", "warn", "success", "reused", "skipped", *NOTHING_DONE)  # of tests; another word may be one
_OK = ("success", "reused", "warn")  # reused: dbt found the table current, or cloned it; warn: built, dbt 2 has a word
# dbt 2 before its betas leaves models that failed or were skipped out of its results (dbt-fusion issue 1130).
_LEAVES_OUT = re.compile(r"2\.0\.0[-.]?(preview|alpha|dev|a\d)")
# What `--empty` makes of a ref, in the SQL of a model (dbt-adapters, `BaseRelation.render_limited`).
_NO_ROWS = re.compile(r"\(\s*select \* from [^()]+ where false limit 0\s*\)", re.IGNORECASE)
# And `--sample`, where the ref has an event time (`render_event_time_filtered`); a microbatch model has it always.
_A_PART = re.compile(
    r"\(\s*select \* from [^()]+ where [^']{1,200}>= '\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d[0-9.]*(?:\+00:00|Z)'",
    re.IGNORECASE,
)
# Not dbt's own words: `dbt_cloud` gives these to a model that a run builds right now, or built and left no word on.
UNDER_WAY = "executing"
LOST = "lost"
# Nor is this, of a test whose model was built for it and that never came.
NOT_RUN = "not run"
# Nor are these, of what was built with no rows, or a part of them: so it is until it is built again.
PARTIAL = ("--empty", "--sample")


class Standing(StrEnum):
    """May the model be synced? `unbuilt`: the last dbt command says nothing about it; it syncs, and that is said.
    `under way`: dbt builds it right now; it is judged when that has ended."""

    OK = "ok"
    BLOCKED = "blocked"
    UNBUILT = "unbuilt"
    UNDER_WAY = "under way"


@dataclass(frozen=True, slots=True)
class Verdict:
    standing: Standing
    reason: str = ""  # `test failed: not_null_dim_customers_customer_id`

    @property
    def is_blocked(self) -> bool:
        return self.standing in (Standing.BLOCKED, Standing.UNDER_WAY)


@dataclass(frozen=True, slots=True)
class Result:
    """One line of run_results.json. `invocation_id`: of the command that it is of. `began` and `ended`, in seconds
    since the epoch, are those of the command's end where the line has none, and None where neither tells."""

    unique_id: str
    status: str
    message: str
    invocation_id: str = ""
    relation_name: str = ""
    began: float | None = None
    ended: float | None = None

    @property
    def kind(self) -> str:
        return self.unique_id.partition(".")[0]


_NO_ANSWER = Result("", "", "")


@dataclass(frozen=True, slots=True)
class RunResults:
    """What one dbt command reported. `which` is its name: build, run, test, generate (docs), show…"""

    invocation_id: str
    which: str
    target: str  # `--target` as given; empty: the profile's default, or not recorded (dbt 2)
    empty: bool
    sample: bool
    results: tuple[Result, ...]
    written: float | None = None  # by its own word, in seconds since the epoch; `started` as well
    started: float | None = None
    vars: Mapping[str, Any] | None = None  # --vars as given; None: not recorded (dbt 2)
    is_default_target: bool = False  # no target was named, so it was the profile's own
    leaves_out: bool = False  # it may say nothing of models that failed
    runs_tests: bool = False  # each test of a model that it builds is its own to run: by its flags it leaves out none
    selects: bool = False  # by --select, so by no default selector

    @property
    def built(self) -> Mapping[str, Result]:
        """Models that the command built, or was to build and did not; none for a command that builds nothing, and of
        one that nobody knows what it did not."""
        if self.which in _BUILD_NOTHING:
            return {}
        idle = NOTHING_DONE if self.which in BUILDS else (*NOTHING_DONE, *_OK)
        return {
            result.unique_id: result for result in self.results if result.kind in BUILT and result.status not in idle
        }


@dataclass(frozen=True, slots=True)
class Gate:
    """A verdict on each model the results speak of; `otherwise` is the verdict on every other."""

    verdicts: Mapping[str, Verdict]
    otherwise: Verdict
    notes: tuple[Problem, ...] = ()

    def verdict(self, model: str) -> Verdict:
        """The verdict on the model with that dbt unique_id."""
        return self.verdicts.get(model, self.otherwise)


@dataclass(frozen=True, slots=True)
class ConnectedTarget:
    """The dbt target that is connected: its name, and the default database and schema of its profile."""

    database: str
    schema: str
    target_name: str
    type: str
    default_target: str = ""  # of the profile


def load_run_results(path: Path) -> RunResults | None:
    """target/run_results.json; None when there is none. ConfigError when it is damaged or something else."""
    try:
        document = read_json(path)
    except ConfigError as error:
        if error.problems[0].code == NO_ARTIFACT:
            return None
        raise
    return parse_run_results(document, path.name)


def parse_run_results(document: object, where: str) -> RunResults:
    """Run results from their JSON values (schema v4 to v6 and dbt 2, which omits null keys)."""
    root = _mapping(document)
    metadata, args, results = _mapping(root.get("metadata")), _mapping(root.get("args")), root.get("results")
    if "/run-results/" not in _text(metadata, "dbt_schema_version") or not isinstance(results, list):
        raise ConfigError(NOT_RUN_RESULTS, "not dbt run results", where=where, hint="it is written by `dbt build`")
    invocation_id, generated = _text(metadata, "invocation_id"), moment_of(metadata.get("generated_at"))
    if len(results) > RESULTS_MAX:
        message = f"not dbt run results: more than {RESULTS_MAX:,} results"
        raise ConfigError(NOT_RUN_RESULTS, message, where=where)
    command = _text(args, "invocation_command") or _text(args, "command")
    empty = args.get("empty") is True or _has_flag(command, "--empty")
    empty = empty or ("empty" not in args and any(_holds_nothing(_mapping(result)) for result in results))
    sample = bool(args.get("sample")) or _has_flag(command, "--sample")
    sample = sample or ("sample" not in args and any(_holds_a_part(_mapping(result)) for result in results))
    named = _text(args, "target") or _named_target(command)
    partial = PARTIAL[0] if empty else PARTIAL[1] if sample else ""
    parsed = tuple(_result(result, invocation_id, generated, partial) for result in map(_mapping, results))
    if not all(result.unique_id and result.status for result in parsed):
        # A result that can't be read may be a failure: it must not pass for one that is absent.
        raise ConfigError(
            ARTIFACT_UNREADABLE, "a result has no unique_id or status", where=where, hint="run `dbt build` again"
        )
    return RunResults(
        invocation_id=invocation_id,
        which=_text(args, "which") or _first_word(command),
        target=named,
        empty=empty,
        sample=sample,
        results=parsed,
        written=generated,
        started=moment_of(metadata.get("invocation_started_at")),
        vars=_mapping(args["vars"]) if "vars" in args else None,
        is_default_target=not named and "log_path" in args,  # 1.x notes every flag that has a value
        leaves_out=_LEAVES_OUT.match(_text(metadata, "dbt_version")) is not None,
        runs_tests=args.get("which") == "build" and _leaves_out_no_test(args),
        selects=bool(args.get("select")),
    )


def _leaves_out_no_test(args: Mapping[str, Any]) -> bool:
    """By the flags as dbt 1.x notes them, each; false where they are not noted."""
    unused = ("exclude", "resource_types", "exclude_resource_types")
    is_plain = not args.get("selector") and not any("," in str(each) for each in args.get("select") or ())
    return is_plain and args.get("indirect_selection") == "eager" and all(args.get(flag) == [] for flag in unused)


def _has_flag(command: str, flag: str) -> bool:
    return any(word.partition("=")[0] == flag for word in command.split())


def _first_word(command: str) -> str:
    words = [word for word in command.split() if word != "dbt" and not word.startswith("-")]
    return words[0] if words else ""


def _named_target(command: str) -> str:
    found = re.search(r"(?:^|\s)(?:--target|-t)[ =]\s*[\"']?([^\s\"']+)", command)
    return found[1] if found else ""


def _holds_nothing(raw: Mapping[str, Any]) -> bool:
    return _NO_ROWS.search(_text(raw, "compiled_code")) is not None


def _holds_a_part(raw: Mapping[str, Any]) -> bool:
    return not raw.get("batch_results") and _A_PART.search(_text(raw, "compiled_code")) is not None


def fold(reports: Sequence[RunResults]) -> RunResults | None:
    """Several commands' results as those of one, the last word on each node by its time: an orchestrator may run dbt
    once for each model. A command that builds nothing says nothing of models. None for none."""
    if len(reports) < 2:
        return next(iter(reports), None)
    words: dict[str, tuple[float, Result]] = {}
    for report in reports:
        for each in report.results:
            counts = report.which in BUILDS or (report.which == "test" and each.kind not in BUILT)
            at = each.ended or report.written or 0.0
            if counts and each.status not in NOTHING_DONE and at >= words.get(each.unique_id, (0.0, each))[0]:
                words[each.unique_id] = at, each
    builds = [report for report in reports if report.which in BUILDS]
    last = max(builds or reports, key=lambda report: report.written or 0.0)
    targets = {report.target for report in builds}
    return replace(
        last,
        target=last.target if len(targets) == 1 else "",
        empty=False,  # each result says it of its own table
        sample=False,
        results=tuple(each for _, each in words.values()),
        is_default_target=all(report.is_default_target for report in builds),
        leaves_out=any(report.leaves_out for report in builds),
        runs_tests=False,
    )


def gate(manifest: Manifest, run_results: RunResults | None, earlier: Mapping[str, Verdict] | None = None) -> Gate:
    """The verdict of the last dbt command on every model, and of `earlier` ones where it leaves a model fit. Raises
    Refused for `--empty` and `--sample` builds."""
    found = _of_last(manifest, run_results)
    kept = {model: verdict for model, verdict in (earlier or {}).items() if not found.verdict(model).is_blocked}
    return Gate({**found.verdicts, **kept}, found.otherwise, found.notes)


def _of_last(manifest: Manifest, run_results: RunResults | None) -> Gate:
    if run_results is None:
        return Gate({}, Verdict(Standing.OK, "no run results"))
    run_results = with_unanswered(run_results, manifest)
    which = run_results.which
    builds = which in BUILDS
    if builds and run_results.empty:
        message = f"the last `dbt {which}` ran with --empty: its tables hold no rows"
        raise Refused(EMPTY_BUILD, message, hint="run it again without --empty")
    if builds and run_results.sample:
        message = f"the last `dbt {which}` ran with --sample: its tables hold a part of the rows"
        raise Refused(SAMPLE_BUILD, message, hint="run it again without --sample")

    command = "docs generate" if which == "generate" else which or "command"
    verdicts: dict[str, Verdict] = {}
    notes: list[Problem] = []
    for unique_id, result in run_results.built.items():
        verdicts[unique_id] = of_built(result)
    if which == "test" or which not in _BUILD_NOTHING:
        for result in run_results.results:
            if is_failure(result):
                notes += _block(manifest, result, verdicts)
    if run_results.invocation_id != manifest.invocation_id:
        notes += _other_invocation(manifest, run_results, verdicts)
    otherwise = f"not in the last `dbt {command}`" if builds else f"the last `dbt {command}` built nothing"
    if builds and run_results.leaves_out:
        reason = f"{otherwise}, and this dbt's results leave out what failed: build it again, or pass --ignore-gate"
        return Gate(verdicts, Verdict(Standing.BLOCKED, reason), tuple(notes))
    return Gate(verdicts, Verdict(Standing.UNBUILT, otherwise), tuple(notes))


def with_unanswered(run_results: RunResults, manifest: Manifest) -> RunResults:
    """With a result of each test that never came, since dbt was stopped before it, or at another's failure."""
    answers = {result.unique_id: result for result in run_results.results}
    # A manifest of a later command may have tests that this one did not know; one of the selectors may be the default.
    is_whole = run_results.runs_tests and run_results.invocation_id == manifest.invocation_id
    is_whole = is_whole and not (manifest.has_selectors and not run_results.selects)
    stopped = "since dbt was stopped before"
    found = [
        Result(unique_id, NOT_RUN, stopped, run_results.invocation_id, "", run_results.written, run_results.written)
        for unique_id, test in manifest.tests.items()
        if is_whole and unique_id.startswith("test.") and unique_id not in answers
        if all(answers.get(node, _NO_ANSWER).status in _OK for node in test.nodes)
    ]
    known = [
        replace(each, status=NOT_RUN, message="since --fail-fast ended dbt before")
        if each.status == "skipped" and each.kind in TESTS and "fail_fast" in each.message
        else each
        for each in run_results.results
    ]
    return replace(run_results, results=(*known, *found))


def target_check(manifest: Manifest, run_results: RunResults | None, connected: ConnectedTarget) -> Problem | None:
    """Why the manifest was written for another target than the connected one; None if nothing says so.

    Relation names are baked into the manifest when dbt parses it. In order, the first evidence decides:

    1. another adapter than the connected one: stop;
    2. run results of the same invocation, or of the very relations that the manifest names, that record `--target`:
       its name decides, either way;
    3. the database, then the schema, of models without a custom one: those are the target's own. One that agrees
       is enough, since a project may override generate_schema_name for some of its models;
    4. if every model has a custom schema: the part before `_<custom>`, which dbt's own generate_schema_name puts
       there. Anything else about a custom schema is the project's own naming, and no evidence;
    5. where the project has a generate_schema_name (or generate_database_name) of its own, names tell nothing: that dbt
       built these relations for the profile's default target, which is the connected one, does.

    Names are compared without case, and only where both sides have one (Spark has no database).
    """
    hint = (
        f"run `dbt build --target {connected.target_name}`, whose results name their target, or choose the manifest's "
        "with --target; --allow-target-mismatch passes"
    )
    if manifest.adapter_type and connected.type and manifest.adapter_type != connected.type:
        message = f"the manifest was written for {manifest.adapter_type}, the connected target is {connected.type}"
        return Problem(OTHER_ADAPTER, message, hint=hint)
    same_run = run_results is not None and _are_of(run_results, manifest)
    if run_results is not None and same_run and run_results.target and connected.target_name:
        if run_results.target == connected.target_name:
            return None
        message = (
            f"dbt ran for target {show(run_results.target)}, the connected target is {show(connected.target_name)}"
        )
        return Problem(OTHER_TARGET, message, hint=hint)
    nodes = [node for node in manifest.nodes.values() if node.relation_name]
    is_default = same_run and run_results is not None and run_results.is_default_target
    is_default = is_default and connected.default_target == connected.target_name
    for what, found, expected in (
        ("database", {node.database for node in nodes if not node.custom_database}, connected.database),
        ("schema", _target_schemas(nodes), connected.schema),
    ):
        names = {name.lower() for name in found if name}
        if names and expected and expected.lower() not in names and not (is_default and what in manifest.own_naming):
            message = f"the manifest's {what} is {listed(sorted(found))}, the connected target's is {show(expected)}"
            return Problem(OTHER_RELATIONS, message, hint=hint)
    return None


def _are_of(run_results: RunResults, manifest: Manifest) -> bool:
    """Whether results and manifest are of one command, or the command built the very relations that the manifest
    names."""
    if run_results.invocation_id == manifest.invocation_id:
        return True
    built = [each for name, each in run_results.built.items() if each.relation_name and name in manifest.nodes]
    return bool(built) and all(
        each.relation_name == manifest.nodes[each.unique_id].relation_name and each.status in _OK for each in built
    )


def _result(raw: Mapping[str, Any], invocation_id: str, generated: float | None, partial: str) -> Result:
    timing = raw.get("timing")
    times = [_mapping(each) for each in timing] if isinstance(timing, list) else []
    began = [moment for each in times if (moment := moment_of(each.get("started_at"))) is not None]
    ended = [moment for each in times if (moment := moment_of(each.get("completed_at"))) is not None]
    unique_id, status = _text(raw, "unique_id"), _text(raw, "status")
    is_partial = partial and status in _OK and unique_id.partition(".")[0] in BUILT
    return Result(
        unique_id=unique_id,
        status=partial if is_partial else status,
        message=_text(raw, "message"),
        invocation_id=_text(raw, "invocation_id") or invocation_id,
        relation_name=_text(raw, "relation_name"),
        began=min(began, default=generated),
        ended=max(ended, default=generated),
    )


def moment_of(text: object) -> float | None:
    """A moment as dbt and dbt Cloud write it, UTC unless it says otherwise, in seconds since the epoch; else None."""
    try:
        moment = datetime.fromisoformat(text) if isinstance(text, str) else None
        return None if moment is None else (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


def is_failure(result: Result) -> bool:
    """Whether it is of a test that failed, or may have: a status that is not known is no pass."""
    return result.kind in TESTS and result.status not in _NO_FAILURE


def why_failed(result: Result) -> str:
    """In words, of a test that `is_failure`."""
    if result.status == "fail":
        return "test failed"
    if result.status == NOT_RUN:
        return f"test did not run, {result.message}".removesuffix(", ")
    return "test could not run" if result.status in FAILED else f"test ended as {result.status}"


def of_built(result: Result) -> Verdict:
    """What the result of a build says of its model."""
    if result.status in _OK:
        return Verdict(Standing.OK)
    match result.status:
        case "skipped":
            reason = "skipped by dbt"
        case status if status == UNDER_WAY:
            return Verdict(Standing.UNDER_WAY, f"{result.message} is building it")
        case status if status == LOST:
            reason = f"{result.message} may have built it, and left nothing that can be judged"
        case status if status in PARTIAL:
            reason = f"built with {status}"
        case "error" | "runtime error" | "fail":
            reason = "build failed"
        case status:
            reason = f"build ended as {status}"
    return Verdict(Standing.BLOCKED, reason)


def _block(manifest: Manifest, result: Result, verdicts: dict[str, Verdict]) -> list[Problem]:
    """Block what a failed test judges; a build that failed stays the first reason."""
    test = manifest.tests.get(result.unique_id)
    if test is None:
        message = f"failed test {show(result.unique_id)} is not in the manifest: the models it judges are not known"
        return [Problem(UNKNOWN_TEST, message, hint="run `dbt build` again")]
    what = why_failed(result)
    for node in test.nodes:
        if not verdicts.get(node, Verdict(Standing.OK)).is_blocked:
            verdicts[node] = Verdict(Standing.BLOCKED, f"{what}: {test.name}")
    return []


def _other_invocation(manifest: Manifest, run_results: RunResults, verdicts: dict[str, Verdict]) -> list[Problem]:
    """The results are of another project, or of one that has changed. That the manifest was only written again since
    (`dbt ls`, `dbt parse` and `validate` do) is nobody's concern."""
    unknown = [result.unique_id for result in run_results.results if result.unique_id not in manifest.ids]
    if not unknown:
        return []
    for model, verdict in list(verdicts.items()):
        if not verdict.is_blocked:
            verdicts[model] = Verdict(Standing.UNBUILT, "the run results are older than the manifest")
    message = (
        f"run results name {len(unknown)} nodes the manifest lacks ({listed(unknown, most=3)}): only failures count"
    )
    return [Problem(OTHER_INVOCATION, message, hint="run `dbt build` again")]


def _target_schemas(nodes: list[Node]) -> set[str]:
    own = {node.schema for node in nodes if not node.custom_schema and node.resource_type != "snapshot"}
    if own:
        return own
    return {
        node.schema[: -len(node.custom_schema) - 1]
        for node in nodes
        if node.schema.lower().endswith(f"_{node.custom_schema.lower()}")
    }


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(raw: Mapping[str, Any], key: str) -> str:
    value = raw.get(key)
    return value if isinstance(value, str) else ""
