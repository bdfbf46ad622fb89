"""What a run of a job left, as one dbt command would have left it in a target folder.

A job is several dbt commands, each with artifacts of its own. A model may be built by one and tested by another, and
the last is often `docs generate`, which calls every model a success. So the verdict is the union of all that built or
tested, and a later word on a node counts more than an earlier one.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dinmo_dbt.dbt_cloud.client import Client, Run
from dinmo_dbt.durable import make_folder, whole_file
from dinmo_dbt.errors import DbtCloudError
from dinmo_dbt.gate import BUILDS, BUILT, NOTHING_DONE, TESTS, RunResults, parse_run_results

NO_ARTIFACTS = "DB225"
_UNTESTED = ("skipped", *NOTHING_DONE)  # of a test: it was not asked, and an earlier answer stands


@dataclass(frozen=True, slots=True)
class Step:
    """A step that built or tested: its number in the run, and its run_results.json as it is and as it is read."""

    number: int
    document: dict[str, Any]
    read: RunResults

    @property
    def builds(self) -> bool:
        return self.read.which in BUILDS


def fetch(client: Client, run: Run, folder: Path) -> tuple[Step, ...]:
    """Write the run's manifest.json and run_results.json into `folder`; the steps that they are made of.

    Raises DbtCloudError, DB225 where the run left nothing that says what was built or tested.
    """
    steps = _steps(client, client.run(run.run_id, steps=True))
    if not steps:
        raise DbtCloudError(
            NO_ARTIFACTS,
            f"dbt Cloud run {run.run_id} ({run.status.word}) left no results of a build or a test",
            hint="see the run's steps in dbt Cloud: it may have failed before dbt began",
        )
    leading = _leading(steps)
    make_folder(folder)
    with whole_file(folder / "manifest.json") as file:
        if not client.copy(run, leading.number, "manifest.json", file):
            raise DbtCloudError(
                NO_ARTIFACTS,
                f"step {leading.number} of dbt Cloud run {run.run_id} left no manifest.json",
                hint="run the job again",
            )
    with whole_file(folder / "run_results.json") as file:
        file.write(json.dumps(merged(steps)).encode())
    return steps


def merged(steps: Sequence[Step]) -> dict[str, Any]:
    """One run_results.json that says of every node what the last of `steps` to act on it said. At least one step.

    It is that of the last building step otherwise, so that it pairs with that step's manifest. A test that was skipped
    does not take back what an earlier step found. `empty` and `sample` hold if they do for anything that still stands.
    """
    standing: dict[str, tuple[Any, Step]] = {}
    for step in steps:
        for raw, result in zip(step.document["results"], step.read.results, strict=True):
            kind = result.unique_id.partition(".")[0]
            idle = _UNTESTED if kind in TESTS else NOTHING_DONE
            if result.unique_id not in standing or result.status not in idle:
                standing[result.unique_id] = raw, step
    leading = _leading(steps)
    built = [step for unique_id, (_, step) in standing.items() if unique_id.partition(".")[0] in BUILT]
    args = dict(leading.document["args"])
    for name, holds in (
        ("empty", any(step.read.empty for step in (leading, *built))),
        ("sample", any(step.read.sample for step in (leading, *built))),
    ):
        if holds:
            args[name] = True
    return {**leading.document, "args": args, "results": [raw for raw, _ in standing.values()]}


def _leading(steps: Sequence[Step]) -> Step:
    """The last that built; of a run that only tested, the last."""
    return next((step for step in reversed(steps) if step.builds), steps[-1])


def _steps(client: Client, run: Run) -> tuple[Step, ...]:
    """The run's steps that built or tested, in order. dbt's target folder is one for all steps, and one that writes no
    run results, such as `dbt source freshness`, still shows those of an earlier step: they are that one's."""
    found: list[Step] = []
    for number in run.steps:
        document = client.json(run, number, "run_results.json")
        if document is None:
            continue
        where = f"run_results.json of step {number} of dbt Cloud run {run.run_id}"
        step = Step(number, document, parse_run_results(document, where))
        seen = step.read.invocation_id and any(step.read.invocation_id == each.read.invocation_id for each in found)
        if not seen and (step.builds or step.read.which == "test"):
            found.append(step)
    return tuple(found)
