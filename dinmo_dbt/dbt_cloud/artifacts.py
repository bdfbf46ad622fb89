"""What a job's runs left, as one dbt command would have left it in a target folder.

A job is several dbt commands, each with artifacts of its own. A model may be built by one and tested by another, and
the last is often `docs generate`, which calls every model a success. So the verdict is the union of all that built or
tested, and a later word on a node counts more than an earlier one. `merged` folds them; `tables` says which they are.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dinmo_dbt.artifacts.gate import BUILDS, BUILT, NOTHING_DONE, TESTS, Result, RunResults, parse_run_results
from dinmo_dbt.codes import CLOUD_ARTIFACTS_UNUSABLE, CLOUD_NO_ARTIFACTS, CLOUD_NOT_FOUND
from dinmo_dbt.dbt_cloud.client import CloudClient, JobRun, JobRunStatus
from dinmo_dbt.errors import ConfigError, DbtCloudError, Problem

KEPT_MEMORY_MAX = 128 << 20  # about, of the results of all runs that one look asks for, as far as they are kept
_RESULT_BYTES = 600  # beside its texts
_UNTESTED = ("skipped", *NOTHING_DONE)  # of a test: it was not asked, and an earlier answer stands
_KEPT = ("unique_id", "status", "timing", "relation_name")  # of a result, as dbt wrote it


@dataclass(frozen=True, slots=True)
class Step:
    """A step that built or tested: its number in the run, and its run_results.json as it is and as it is read."""

    number: int
    document: dict[str, Any]
    read: RunResults
    run_id: str = "0"
    job_id: str = "0"

    @property
    def builds(self) -> bool:
        return self.read.which in BUILDS


@dataclass(frozen=True, slots=True)
class RunArtifacts:
    """What a run that ended left: its steps, or why it can't be used."""

    run: JobRun
    steps: tuple[Step, ...] = ()
    problem: Problem | None = None
    memory: int = 0  # about the bytes that the results take

    @property
    def is_lost(self) -> bool:
        """Whether it may have built models that can't be judged. dbt that breaks off before it builds anything ends by
        an error and without results; one that is cancelled, or whose results are gone, may have built."""
        if self.problem is None or self.problem.code == CLOUD_NOT_FOUND:
            return False
        return self.problem.code != CLOUD_NO_ARTIFACTS or (
            self.run.builds and self.run.status is not JobRunStatus.ERROR
        )


@dataclass
class Library:
    """What runs left, read once: after a run's end that does not change. All that one look asks for has a bound, past
    which a run can't be used; what only earlier looks asked for is forgotten where it takes much."""

    client: CloudClient
    _left: dict[str, RunArtifacts] = field(default_factory=dict)
    _asked: set[str] = field(default_factory=set)  # in this look

    def begin(self) -> None:
        """Another look."""
        self._asked.clear()

    def left(self, run: JobRun) -> RunArtifacts:
        """Raises DbtCloudError where dbt Cloud has no answer, which says nothing of the run."""
        if run.run_id not in self._left:
            if sum(left.memory for left in self._left.values()) > KEPT_MEMORY_MAX / 2:
                self.keep(self._asked)
            taken = sum(left.memory for run_id, left in self._left.items() if run_id in self._asked)
            self._left[run.run_id] = _left(self.client, run, KEPT_MEMORY_MAX - taken)
        self._asked.add(run.run_id)
        return self._left[run.run_id]

    def give_up(self, left: RunArtifacts, problem: Problem) -> None:
        """What the run left is of no use, for a reason that only who uses it finds."""
        self._left[left.run.run_id] = RunArtifacts(left.run, problem=problem)

    def keep(self, run_ids: set[str]) -> None:
        """Forget every other run."""
        self._left = {run_id: left for run_id, left in self._left.items() if run_id in run_ids}


def _left(client: CloudClient, run: JobRun, room: int) -> RunArtifacts:
    try:
        run = client.run(run.run_id, steps=True)
        steps, memory = _steps(client, run, room)
    except DbtCloudError as error:
        problem = error.problems[0]
        if problem.code not in (CLOUD_ARTIFACTS_UNUSABLE, CLOUD_NOT_FOUND):
            raise
        return RunArtifacts(run, problem=problem)
    if steps:
        return RunArtifacts(run, steps, memory=memory)
    message = f"dbt Cloud run {run.run_id} ({run.status.word}) left no results of a build or a test"
    return RunArtifacts(
        run, problem=Problem(CLOUD_NO_ARTIFACTS, message, hint="see its steps: it may have failed before dbt began")
    )


def _steps(client: CloudClient, run: JobRun, room: int) -> tuple[tuple[Step, ...], int]:
    """The run's steps that built or tested, in order, and the memory of their results, at most `room`. dbt's target
    folder is one for all steps, and one that writes no run results, such as `dbt source freshness`, still shows those
    of an earlier step: they are that one's."""
    found: list[Step] = []
    size = 0
    for number in run.steps:
        document = client.json(run, number, "run_results.json")
        if document is None:
            continue
        where = f"run_results.json of step {number} of dbt Cloud run {run.run_id}"
        try:
            read = parse_run_results(document, where)
        except ConfigError as error:
            message = f"{where} can't be used: {error.problems[0].message}"
            raise DbtCloudError(CLOUD_ARTIFACTS_UNUSABLE, message, hint="run the job again") from None
        kept = {
            "metadata": document["metadata"],
            "args": document["args"] if isinstance(document.get("args"), dict) else {},
            "results": [{name: raw[name] for name in _KEPT if name in raw} for raw in document["results"]],
        }
        step = Step(number, kept, read, run.run_id, run.job_id)
        seen = step.read.invocation_id and any(step.read.invocation_id == each.read.invocation_id for each in found)
        if not seen and (step.builds or step.read.which == "test"):
            found.append(step)
            size += 2 * len(json.dumps(kept)) + _RESULT_BYTES * len(kept["results"])
        if size > room:
            message = f"dbt Cloud run {run.run_id} left more results than there is memory for"
            raise DbtCloudError(CLOUD_ARTIFACTS_UNUSABLE, message, hint="sync where dbt's target folder is")
    return tuple(found), size


def merged(steps: Sequence[Step], of: Sequence[Step] = (), held: Sequence[Mapping[str, str]] = ()) -> dict[str, Any]:
    """One run_results.json that says of every node what the last of `steps` to act on it said. At least one step.

    It is that of the last building step of `of` (all steps, unless given) otherwise, so that it pairs with that step's
    manifest. A test that was skipped does not take back what an earlier step found. `empty` and `sample` hold if they
    do for anything that still stands. `held` are results in the place of those of their models.
    """
    leading = leading_step(of or steps)
    standing: dict[str, tuple[dict[str, Any], Step]] = {}
    for result, raw, step in _in_time(steps):
        idle = _UNTESTED if result.kind in TESTS else NOTHING_DONE
        if result.unique_id not in standing or result.status not in idle:
            standing[result.unique_id] = {**raw, "invocation_id": step.read.invocation_id}, step
    built = [step for unique_id, (_, step) in standing.items() if unique_id.partition(".")[0] in BUILT]
    args = dict(leading.document["args"])
    if not leading.builds and (built or held):  # the word on what was built is that of other steps
        args["which"] = leading_step([*built, leading]).read.which if built else "build"
    for name, holds in (
        ("empty", any(step.read.empty for step in (leading, *built))),
        ("sample", any(step.read.sample for step in (leading, *built))),
    ):
        if holds:
            args[name] = True
    results = {unique_id: raw for unique_id, (raw, _) in standing.items()}
    for each in held:
        results[each["unique_id"]] = {**results.get(each["unique_id"], {}), **each}
    return {**leading.document, "args": args, "results": list(results.values())}


def leading_step(steps: Sequence[Step]) -> Step:
    """The last that built; of steps that only tested, the last."""
    return next((step for step in reversed(steps) if step.builds), steps[-1])


def _in_time(steps: Sequence[Step]) -> Iterator[tuple[Result, dict[str, Any], Step]]:
    """What the steps say, earliest first. Steps of one job follow each other by their numbers, whatever a clock says;
    those of two jobs may run side by side, so each result goes by its own time. A test that passed says something of
    the table as it was when the test began, one that failed still when it ended."""
    found: list[tuple[float, int, Result, dict[str, Any], Step]] = []
    timed = all(result.ended is not None for step in steps for result in step.read.results)
    floors: dict[str, float] = {}
    ordered = sorted(steps, key=lambda step: (int(step.run_id), step.number))
    for place, step in enumerate(ordered):
        floor = floors.get(step.job_id, 0.0)
        for result, raw in zip(step.read.results, step.document["results"], strict=True):
            lifts = result.kind in TESTS and result.status in ("pass", "warn")
            moment = result.began if lifts else result.ended
            at = max(floor, moment or 0.0) if timed else 0.0
            floors[step.job_id] = max(floors.get(step.job_id, 0.0), at)
            found.append((at, place, result, raw, step))
    for _, _, result, raw, step in sorted(found, key=lambda each: each[:2]):
        yield result, raw, step
