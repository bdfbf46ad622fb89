"""The tables that a job builds, as they are now: which runs, of which jobs, have a word on them.

An event tells of one run, and a folder holds what one run left; by the time a table is read, a later run may have built
it again, of this job or of another one of the project. The runs are listed again, so what counts is the latest ended
run of every job that builds the same table. What a run builds right now, or may have built without a word that can be
read, is held until a run tells.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path

from dinmo_dbt.artifacts.gate import LOST, UNDER_WAY
from dinmo_dbt.artifacts.manifest import Manifest, load_manifest
from dinmo_dbt.codes import CLOUD_ARTIFACTS_UNUSABLE, CLOUD_NO_ARTIFACTS, CLOUD_NOT_FOUND, CLOUD_RUN_GOES_ON
from dinmo_dbt.dbt_cloud.artifacts import Library, RunArtifacts, Step, leading_step, merged
from dinmo_dbt.dbt_cloud.client import CloudClient, JobRun, JobRunStatus
from dinmo_dbt.durable import make_folder, whole_file
from dinmo_dbt.errors import ConfigError, DbtCloudError, Problem

RUNS_READ_MAX = 10  # of the job, from the latest on, until each model with an activation has been spoken of
OTHERS_READ_MAX = 3  # of another job


@dataclass(frozen=True, slots=True)
class Picture:
    """What dbt Cloud says of the tables by now.

    `run`: the run of the job whose manifest is read, and its `steps`. `unusable`: later runs of the job that can't be
    used, and why. `under_way`: runs of it that have not ended, and came after the last that did. `basis`: every run
    that was listed, and where it was: while these stay the same, so does the rest.
    """

    run: JobRun
    steps: tuple[Step, ...]
    unusable: Mapping[str, Problem]
    under_way: tuple[JobRun, ...]
    basis: frozenset[tuple[str, JobRunStatus]]


def fetch(
    library: Library,
    job_id: str,
    folder: Path,
    *,
    run: JobRun | None = None,
    project: str = "",
    last: Picture | None = None,
) -> Picture:
    """Write manifest.json and run_results.json into `folder`: those of the job's latest run that ended and can be
    used, or of `run`, with the word that every other run has on the same tables. `last`, if no run has begun or ended
    since.

    Raises DbtCloudError: DB222 without such a job or run, DB223 before its first run has ended, DB225 where no run left
    anything that says what was built or tested, DB230 where none can be used.
    """
    library.begin()
    own = library.client.of_job(job_id)
    others = [each for each in library.client.of_project(own[0].project_id) if each.job_id != job_id]
    basis = frozenset((each.run_id, each.status) for each in (*own, *others))
    if last is not None and last.basis == basis:
        return last
    ended = [each for each in own if each.status.is_final]
    if not ended and run is None:
        message = f"dbt Cloud run {own[0].run_id} of job {job_id} is {own[0].status.word}"
        raise DbtCloudError(CLOUD_RUN_GOES_ON, message, hint="pass --wait, or run again when it has ended")
    with tempfile.TemporaryDirectory(prefix="dinmo-") as scratch:
        fetched = Path(scratch) / "manifest.json"
        leading, manifest, unusable = _leading(library, [run] if run else ended[:RUNS_READ_MAX], fetched, project)
        tables = _Gathering(library, manifest, leading)
        tables.add_own(own)
        for theirs in _by_job(others).values():
            tables.add_other(theirs, Path(scratch) / "theirs.json")
        make_folder(folder)
        with whole_file(folder / "run_results.json") as file:  # first: a kill in between must not leave an old verdict
            file.write(json.dumps(tables.document()).encode())
        with whole_file(folder / "manifest.json") as file, fetched.open("rb") as copied:
            shutil.copyfileobj(copied, file)
    library.keep({run_id for run_id, _ in basis})
    return Picture(leading.run, leading.steps, unusable, _going_on(own), basis)


def _leading(
    library: Library, runs: Sequence[JobRun], file: Path, project: str
) -> tuple[RunArtifacts, Manifest, dict[str, Problem]]:
    """The first of the runs that can be used, its manifest, also in `file`; and why those before it can't be."""
    unusable: dict[str, Problem] = {}
    for run in runs:
        left = library.left(run)
        try:
            if left.problem is not None:
                raise DbtCloudError.of(left.problem)
            return left, _manifest(library.client, left, file, project), unusable
        except DbtCloudError as error:
            if error.problems[0].code not in (CLOUD_NO_ARTIFACTS, CLOUD_NOT_FOUND, CLOUD_ARTIFACTS_UNUSABLE):
                raise
            unusable[run.run_id] = error.problems[0]
            library.give_up(left, error.problems[0])
    raise DbtCloudError.of(next(iter(unusable.values())))


def _manifest(client: CloudClient, left: RunArtifacts, file: Path, project: str = "") -> Manifest:
    """The manifest of the run's leading step, which is now in `file`. DB225 without one, DB230 for one of no use."""
    number = leading_step(left.steps).number
    with file.open("w+b") as opened:
        if not client.copy(left.run, number, "manifest.json", opened):
            message = f"step {number} of dbt Cloud run {left.run.run_id} left no manifest.json"
            raise DbtCloudError(CLOUD_NO_ARTIFACTS, message, hint="run the job again")
    where = f"manifest.json of step {number} of dbt Cloud run {left.run.run_id} can't be used"
    try:
        manifest = load_manifest(file, pause=lambda _: None)
    except ConfigError as error:
        problem = error.problems[0]
        raise DbtCloudError(CLOUD_ARTIFACTS_UNUSABLE, f"{where}: {problem.message}", hint="run the job again") from None
    if project and manifest.project_name and manifest.project_name != project:
        message = f"{where}: it is of another project than dbt_project.yml"
        raise DbtCloudError(CLOUD_ARTIFACTS_UNUSABLE, message, hint="is --dbt-cloud-job a job of this project?")
    return manifest


def _by_job(runs: Iterable[JobRun]) -> dict[str, list[JobRun]]:
    found: dict[str, list[JobRun]] = {}
    for run in runs:
        found.setdefault(run.job_id, []).append(run)
    return found


class _Gathering:
    """What is gathered for one look: the steps that have a word, and the models that are held."""

    def __init__(self, library: Library, manifest: Manifest, leading: RunArtifacts) -> None:
        self._library, self._manifest, self._leading = library, manifest, leading
        self._wanted = {node.unique_id for node in manifest.nodes.values() if node.block is not None}
        self._steps: list[Step] = []
        self._held: dict[str, dict[str, str]] = {}

    def document(self) -> dict[str, object]:
        return merged(self._steps, self._leading.steps, list(self._held.values()))

    def add_own(self, runs: Sequence[JobRun]) -> None:
        """The job's runs, newest first, back to one that was read before each model with an activation was built."""
        own = int(self._leading.run.run_id)
        after: list[RunArtifacts] = []
        for number, run in enumerate(each for each in runs if each.status.is_final):
            if int(run.run_id) < own and (number >= RUNS_READ_MAX or self._wanted <= _built(self._steps)):
                break
            left = self._leading if int(run.run_id) == own else self._library.left(run)
            self._steps += self._known(left.steps, own=int(run.run_id) == own)
            after.append(left)
        if self._leading not in after:
            self._steps += self._leading.steps
        builds = _built(self._steps) or set(self._manifest.nodes)
        for left in after:
            if left.is_lost:
                self._hold(builds, left.run, LOST)
        self._hold_what_is_under_way(runs, builds)

    def add_other(self, runs: Sequence[JobRun], scratch: Path) -> None:
        """Another job's runs, newest first, for the tables that are the same."""
        steps: list[Step] = []
        lost: list[JobRun] = []
        for run in [each for each in runs if each.status.is_final][:OTHERS_READ_MAX]:
            if self._wanted <= _built(steps):
                break
            left = self._library.left(run)
            steps += self._known(self._of_same_tables(left, scratch))
            lost += [left.run] if left.is_lost else []
        self._steps += steps
        for run in lost:
            self._hold(_built(steps), run, LOST)
        self._hold_what_is_under_way(runs, _built(steps))

    def _hold_what_is_under_way(self, runs: Sequence[JobRun], builds: Iterable[str]) -> None:
        """One that is queued or starts has not built anything yet."""
        for run in _going_on(runs):
            if run.status is JobRunStatus.RUNNING:
                self._hold(builds, run, UNDER_WAY)

    def _hold(self, models: Iterable[str], run: JobRun, status: str) -> None:
        """Until a run after that one builds the model again."""
        for model in models:
            failed = [
                step
                for step in self._steps
                if model in step.read.built and _is_after(step, step.read.built[model].began, run)
            ]
            if not failed and self._held.get(model, {}).get("status") != UNDER_WAY:
                what = f"dbt Cloud run {run.run_id} of job {run.job_id}"
                self._held[model] = {"unique_id": model, "status": status, "message": what}

    def _known(self, steps: Iterable[Step], *, own: bool = False) -> list[Step]:
        """Without what the manifest does not know: it was renamed, or is another project's. All of the leading run."""
        return list(steps) if own else [_only(step, self._manifest.ids) for step in steps]

    def _of_same_tables(self, left: RunArtifacts, scratch: Path) -> list[Step]:
        """The steps without the models that are another table under the same name, as a CI job's are, and their tests.
        Where the results don't name each table, the run's manifest does."""
        ours = self._manifest.nodes
        places = {name: built.relation_name for step in left.steps for name, built in step.read.built.items()}
        named = {result.unique_id for step in left.steps for result in step.read.results}
        judged = {each for test in named & set(self._manifest.tests) for each in self._manifest.tests[test].nodes}
        spoken_of = (set(places) | judged) & set(ours)
        if not all(places.get(each) for each in spoken_of):
            try:
                theirs = _manifest(self._library.client, left, scratch).nodes
            except DbtCloudError as error:
                if error.problems[0].code not in (CLOUD_NO_ARTIFACTS, CLOUD_ARTIFACTS_UNUSABLE):
                    raise
            else:
                places |= {each: theirs[each].relation_name for each in spoken_of if each in theirs}
        elsewhere = {
            each for each in spoken_of if places.get(each) and not _same(places[each], ours[each].relation_name)
        }
        tests = {
            unique_id for unique_id, test in self._manifest.tests.items() if test.nodes and elsewhere >= set(test.nodes)
        }
        return [_only(step, self._manifest.ids - elsewhere - tests) for step in left.steps]


def _going_on(runs: Sequence[JobRun]) -> tuple[JobRun, ...]:
    """Those of a job that came after the last that ended, for its runs follow each other."""
    return tuple(takewhile(lambda run: not run.status.is_final, runs))


def _built(steps: Iterable[Step]) -> set[str]:
    return {unique_id for step in steps for unique_id in step.read.built}


def _is_after(step: Step, began: float | None, run: JobRun) -> bool:
    """Whether what a step built was begun after a run had ended, as far as that is known."""
    if step.job_id != run.job_id and run.ended is not None and began is not None:
        return began > run.ended
    return int(step.run_id) > int(run.run_id)


def _only(step: Step, ids: frozenset[str] | set[str]) -> Step:
    kept = [number for number, result in enumerate(step.read.results) if result.unique_id in ids]
    document = {**step.document, "results": [step.document["results"][number] for number in kept]}
    return replace(
        step, document=document, read=replace(step.read, results=tuple(step.read.results[number] for number in kept))
    )


def _same(relation: str, other: str) -> bool:
    return relation.casefold() == other.casefold()
