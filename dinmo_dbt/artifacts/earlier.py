"""What earlier dbt commands said that the last one does not speak of: run_results.json holds one command, and the next
one writes over it.

Each look keeps what it has seen in the target folder (`remember`), and reads what other target folders hold of the same
tables. A failure stands until its test passes or its model is built again, whichever command says so. What ran and left
no word at all is known by the files that dbt writes as it runs each node (target/run/): such a model is no good to
guess about.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dinmo_dbt.artifacts.gate import (
    BUILDS,
    BUILT,
    LOST,
    NOTHING_DONE,
    TESTS,
    UNDER_WAY,
    Result,
    RunResults,
    Standing,
    Verdict,
    is_failure,
    load_run_results,
    of_built,
    why_failed,
    with_unanswered,
)
from dinmo_dbt.artifacts.manifest import Manifest, Node, load_manifest
from dinmo_dbt.durable import read_file, whole_file
from dinmo_dbt.errors import ConfigError

KEPT = "dinmo_answers.json"
IN_PLACE_S = 10.0  # results are on disk so soon after their own time: a copy of the folder has other times, of no use


def verdicts(folder: Path, siblings: Iterable[Path], manifest: Manifest, last: RunResults | None) -> dict[str, Verdict]:
    """Of models that the last dbt command, as it is in `folder`, leaves fit or does not speak of: why they are not."""
    every = [*_kept(folder), *(results for each in siblings for results in _of_sibling(each))]
    own = _named(last, manifest) if last is not None and _counts(last) else None
    standing = _standing(every, manifest, own)
    found: dict[str, Verdict] = {}
    for result in standing:
        if last is not None and result.invocation_id == last.invocation_id:
            continue  # the gate itself reads it
        if not _same(result.relation_name, _relation(result.unique_id, manifest) or ""):
            continue
        for model, verdict in _judged(manifest, result):
            found.setdefault(model, verdict)
    for model, verdict in _without_a_word(folder, manifest, last, standing).items():
        found.setdefault(model, verdict)
    return found


def remember(folder: Path, manifest: Manifest, last: RunResults | None) -> None:
    """Keep the last word on each node of the manifest beside the artifacts; OSError where the folder refuses."""
    if last is None or not _counts(last) or last.invocation_id in {each.invocation_id for each in _raw_kept(folder)}:
        return
    standing = _standing(_kept(folder), manifest, _named(last, manifest))
    content = {
        "metadata": {"dbt_schema_version": "https://schemas.getdbt.com/dbt/run-results/v6.json"},
        "args": {"which": "build"},
        "results": [_document(result) for result in standing],
    }
    with whole_file(folder / KEPT) as file:
        file.write(json.dumps(content).encode())


def _counts(results: RunResults) -> bool:
    return results.which in BUILDS or results.which == "test"


def _raw_kept(folder: Path) -> tuple[Result, ...]:
    with suppress(ConfigError):  # it is ours and expendable: dbt's own files count
        kept = load_run_results(folder / KEPT)
        return kept.results if kept else ()
    return ()


def _kept(folder: Path) -> list[RunResults]:
    results = _raw_kept(folder)
    return [RunResults("", "build", "", False, False, results)] if results else []


def _of_sibling(folder: Path) -> list[RunResults]:
    """What another target folder holds of the same tables. A damaged one is that folder's own trouble."""
    with suppress(ConfigError):
        results = load_run_results(folder / "run_results.json")
        if results is None or not _counts(results) or not any(_is_bad(each) for each in results.results):
            return []
        theirs = load_manifest(folder / "manifest.json", pause=lambda _: None)
        return [_named(results, theirs)]
    return []


def _named(results: RunResults, manifest: Manifest) -> RunResults:
    """With the tests that never came, and the tables that tests judge, by the manifest of their run: dbt names a table
    of its own there."""
    results = with_unanswered(results, manifest)
    named = (
        replace(each, relation_name=_relation(each.unique_id, manifest) or "") if each.kind in TESTS else each
        for each in results.results
    )
    return replace(results, results=tuple(named))


def _standing(every: Sequence[RunResults], manifest: Manifest, own: RunResults | None) -> list[Result]:
    """The last word on each node of the manifest, of each table that it was in, by its time. A test that passed speaks
    of when it began. What was kept of a folder comes before the folder's `own` last command, whatever a clock says."""
    said: list[tuple[float, int, Result]] = []
    kept = [each.ended or 0.0 for results in every if not results.invocation_id for each in results.results]
    for place, results in enumerate([*every, *([own] if own else [])]):
        floor = max(kept, default=0.0) if results is own else 0.0
        for each in results.results:
            idle = ("skipped", *NOTHING_DONE) if each.kind in TESTS else (*NOTHING_DONE, UNDER_WAY, LOST)
            counts = results.which in BUILDS or each.kind not in BUILT
            if counts and each.status not in idle and _relation(each.unique_id, manifest):
                lifts = each.kind in TESTS and not _is_bad(each)
                said.append((max(floor, (each.began if lifts else each.ended) or 0.0), place, each))
    ordered = sorted(said, key=lambda one: one[:2])
    return list({(each.unique_id, each.relation_name.casefold()): each for _, _, each in ordered}.values())


def _same(relation: str, other: str) -> bool:
    return not relation or relation.casefold() == other.casefold()


def _relation(unique_id: str, manifest: Manifest) -> str | None:
    """The table of a model, or of the first model that a test judges; None for what the manifest does not know."""
    test = manifest.tests.get(unique_id)
    node = manifest.nodes.get(next(iter(test.nodes), "") if test else unique_id)
    return None if node is None else node.relation_name


def _is_bad(result: Result) -> bool:
    if result.kind in TESTS:
        return is_failure(result)
    return result.kind in BUILT and of_built(result).is_blocked


def _judged(manifest: Manifest, result: Result) -> Iterable[tuple[str, Verdict]]:
    if not _is_bad(result):
        return
    test = manifest.tests.get(result.unique_id)
    if test is None:
        yield result.unique_id, Verdict(Standing.BLOCKED, f"{of_built(result).reason}, in an earlier dbt command")
        return
    for model in test.nodes:
        yield model, Verdict(Standing.BLOCKED, f"{why_failed(result)}, in an earlier dbt command: {test.name}")


def _document(result: Result) -> dict[str, Any]:
    moments = (result.began, result.ended)
    began, ended = (None if moment is None else _text(moment) for moment in moments)
    return {
        "unique_id": result.unique_id,
        "status": result.status,
        "invocation_id": result.invocation_id,
        "relation_name": result.relation_name,
        "timing": [{"started_at": began, "completed_at": ended}],
    }


def _text(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat()


def ran_unsaid(folder: Path, node: Node, last: RunResults | None) -> float | None:
    """When dbt ran a model's SQL, in a command that another one wrote over since: `dbt build` before `dbt retry`. None
    where the last command speaks of the model, where dbt runs it right now or ran it for another target's schema, and
    where the files tell no times."""
    written = _moment(folder / "run_results.json")
    if last is None or written is None or last.written is None or abs(written - last.written) > IN_PLACE_S:
        return None
    file = folder / "run" / node.ran_as
    ran = _moment(file) if node.ran_as and node.unique_id not in last.built else None
    if ran is None or ran > written:
        return None
    with suppress(OSError):
        schema = node.relation_name.rpartition(".")[0].casefold()
        return ran if schema in read_file(file).decode("utf-8", "replace").casefold() else None
    return None


def _without_a_word(
    folder: Path, manifest: Manifest, last: RunResults | None, standing: Sequence[Result]
) -> dict[str, Verdict]:
    """Models that dbt has begun to build, or whose tests ran, since the last word on them. dbt writes a node's SQL just
    before it runs it."""
    written = _moment(folder / "run_results.json")
    if last is None or written is None or last.written is None or abs(written - last.written) > IN_PLACE_S:
        return {}
    answered: dict[str, float] = {}
    for each in standing:
        answered[each.unique_id] = max(answered.get(each.unique_id, 0.0), each.ended or 0.0)
    found: dict[str, Verdict] = {}
    said = {each.unique_id for each in last.results}
    for model, node in manifest.nodes.items():
        ran = _moment(folder / "run" / node.ran_as) if node.block is not None and node.ran_as else None
        if ran is not None and ran > written:
            message = "dbt builds it right now, or was stopped before its end"
            found[model] = Verdict(Standing.UNDER_WAY, message)
        elif ran is not None and last.started is not None and ran > last.started and model not in said:
            found[model] = Verdict(
                Standing.BLOCKED, f"dbt was stopped while it built it: run `dbt build -s {node.name}`"
            )
    for unique_id, test in manifest.tests.items():
        judged = [model for model in test.nodes if model in manifest.nodes and manifest.nodes[model].block is not None]
        ran = _moment(folder / "run" / test.ran_as) if judged and test.ran_as else None
        if ran is not None and answered.get(unique_id, 0.0) < ran <= written:
            for model in judged:
                message = f"what its test {test.name} found is not known: a later dbt command wrote over the answer"
                found.setdefault(model, Verdict(Standing.BLOCKED, message))
    return found


def _moment(path: Path) -> float | None:
    try:
        return path.stat().st_mtime
    except OSError:
        return None
