"""Which runs have a word on a table: the latest that ended, of every job that builds it, whichever was told of."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any

import pytest
from dbt_cloud_standin import Fault, Ran, StandIn, Step, cloned
from hypothesis import given, settings
from hypothesis import strategies as st
from test_dbt_cloud import MANIFEST, Clock, results, verdicts

from dinmo_dbt import dbt_cloud
from dinmo_dbt.dbt_cloud import JobRun, artifacts, client, tables
from dinmo_dbt.errors import DbtCloudError

MAIN, ELSEWHERE = '"db"."main"."{}"', '"db"."pr_7"."{}"'


def manifest(relation: str = MAIN, invocation: str = "i2") -> dict[str, Any]:
    nodes = {name: dict(node) for name, node in MANIFEST["nodes"].items()}
    for name in "abc":
        nodes[f"model.shop.{name}"] |= {"relation_name": relation.format(name), "config": {"meta": {"dinmo": {}}}}
    return {**MANIFEST, "metadata": {**MANIFEST["metadata"], "invocation_id": invocation}, "nodes": nodes}


def step(
    which: str, at: float = 0, *, relation: str = MAIN, name: str = "", left: bool = True, **statuses: str
) -> Step:
    """The step that ran `dbt which` and ended at that second of the day; 0: its results have no time."""
    invocation = f"{which}-{at}-{len(statuses)}-{relation}"
    document = results(which, invocation, **statuses)
    if at:
        moment = datetime.fromtimestamp(1_800_000_000 + at, UTC).isoformat()
        document["metadata"]["generated_at"] = moment
    for each in document["results"]:
        if at:
            each["timing"] = [{"name": "execute", "started_at": moment, "completed_at": moment}]
        if each["unique_id"].startswith("model."):
            each["relation_name"] = relation.format(each["unique_id"][-1])
    files = {"run_results.json": document, "manifest.json": manifest(relation, invocation)} if left else {}
    return Step(
        name or f"Invoke dbt with `dbt {which}`",
        {file: json.dumps(content).encode() for file, content in files.items()},
    )


GOOD = {"a": "success", "of_a": "pass", "b": "success", "of_b": "pass", "c": "success", "of_c": "pass"}
BAD = {**GOOD, "of_a": "fail"}


@pytest.fixture(scope="module")
def cloud() -> Iterator[StandIn]:
    with StandIn().serve() as cloud:
        yield cloud


@dataclass
class Looking:
    """Whoever goes by job 1."""

    cloud: StandIn
    folder: Path
    client: dbt_cloud.CloudClient
    last: dbt_cloud.Picture | None = None
    library: dbt_cloud.Library = field(init=False)

    def __post_init__(self) -> None:
        self.library = dbt_cloud.Library(self.client)

    def look(self) -> dict[str, str]:
        self.last = dbt_cloud.fetch(self.library, "1", self.folder, project="shop", last=self.last)
        return verdicts(self.folder)


@pytest.fixture
def looking(cloud: StandIn, tmp_path: Path) -> Iterator[Looking]:
    cloud.runs, cloud.faults, cloud.asked = {}, [], []
    client = dbt_cloud.CloudClient(dbt_cloud.account_of(cloud.environment), Clock())
    yield Looking(cloud, tmp_path, client)
    client.close()


def ran(*steps: Step, job: int = 1, status: int = 10) -> Ran:
    return Ran(job, [status], [cloned(), *steps])


def test_the_latest_run_decides_whichever_had_an_event(looking: Looking) -> None:
    looking.cloud.runs = {71: ran(step("build", **GOOD)), 72: ran(step("build", **BAD), status=20)}
    assert looking.look()["a"] == "blocked test failed: of_a"
    looking.cloud.runs[73] = ran(step("build", **GOOD))
    assert looking.look()["a"] == "ok"


def test_a_model_that_the_latest_run_does_not_build_is_judged_by_the_one_that_did(looking: Looking) -> None:
    looking.cloud.runs = {71: ran(step("build", **BAD)), 72: ran(step("build", b="success", of_b="pass"))}
    assert looking.look() == {"a": "blocked test failed: of_a", "b": "ok", "c": "ok"}


def test_runs_are_read_back_no_further_than_needed_and_once(looking: Looking) -> None:
    looking.cloud.runs = {number: ran(step("build", **GOOD)) for number in range(50, 80)}
    looking.look()
    assert sum("artifacts" in asked for asked in looking.cloud.asked) == 3, "of steps 1 and 2, and a manifest"
    looking.cloud.runs[80] = ran(step("build", b="success"))
    looking.look()
    assert sum("/79/artifacts" in asked for asked in looking.cloud.asked) == 3
    assert looking.last is not None
    before = looking.last
    looking.look()
    assert looking.last is before
    for number in range(81, 99):
        looking.cloud.runs[number] = ran(step("build", b="success"))
    looking.cloud.asked.clear()
    looking.look()
    read = {asked.split("/")[6] for asked in looking.cloud.asked if "artifacts" in asked}
    assert len(read) == tables.RUNS_READ_MAX


@pytest.mark.parametrize(
    ("theirs", "verdict"),
    [
        (ran(step("build", 20, **BAD), job=2), "blocked test failed: of_a"),
        (ran(step("build", 20, **BAD), job=2, status=20), "blocked test failed: of_a"),
        (ran(step("build", 20, **GOOD), job=2), "ok"),
        (ran(step("build", 5, **BAD), job=2), "ok"),  # ours is the later, and its test passed
        (ran(step("build", 20, relation=ELSEWHERE, **BAD), job=2), "ok"),  # a table of another schema
        (ran(step("test", 20, of_a="fail"), job=2), "blocked test failed: of_a"),
        (ran(step("test", 20, relation=ELSEWHERE, of_a="fail"), job=2), "ok"),
        (ran(step("run", 20, a="error"), job=2), "blocked build failed"),
        (ran(step("build", 20, **BAD), job=2, status=3), "ok"),  # nobody knows what job 2 builds
    ],
)
def test_another_job_that_builds_the_same_table_has_its_word(looking: Looking, theirs: Ran, verdict: str) -> None:
    for theirs_first in (True, False):
        numbers = (70, 71) if theirs_first else (71, 70)
        looking.cloud.runs = dict(zip(numbers, (theirs, ran(step("build", 10, **GOOD))), strict=True))
        looking.last = None
        looking.library.keep(set())
        assert looking.look()["a"] == verdict


def test_two_jobs_at_once_are_taken_apart_result_by_result(looking: Looking) -> None:
    """Ours ended last as a whole; theirs built the table after ours did."""
    ours, theirs = step("build", 30, **GOOD), step("build", 20, **BAD)
    document = json.loads(ours.artifacts["run_results.json"])
    early = datetime.fromtimestamp(1_800_000_010, UTC).isoformat()
    for each in document["results"]:
        each["timing"] = [{"name": "execute", "started_at": early, "completed_at": early}]
    ours.artifacts["run_results.json"] = json.dumps(document).encode()
    looking.cloud.runs = {70: ran(ours), 71: ran(theirs, job=2)}
    assert looking.look()["a"] == "blocked test failed: of_a"


def test_a_test_that_passed_by_what_it_saw_before_a_failure_lifts_nothing(looking: Looking) -> None:
    slow = step("test", 30, of_a="pass")
    document = json.loads(slow.artifacts["run_results.json"])
    document["results"][0]["timing"][0]["started_at"] = datetime.fromtimestamp(1_800_000_005, UTC).isoformat()
    slow.artifacts["run_results.json"] = json.dumps(document).encode()
    looking.cloud.runs = {70: ran(step("build", 10, **BAD)), 71: ran(slow, job=2)}
    assert looking.look()["a"] == "blocked test failed: of_a"


@pytest.mark.parametrize("status", [1, 2, 3])
def test_what_a_run_builds_right_now_waits_for_its_end(looking: Looking, status: int) -> None:
    looking.cloud.runs = {70: ran(step("build", **GOOD)), 71: ran(step("build", **BAD), status=status)}
    waits = dict.fromkeys("abc", "under way dbt Cloud run 71 of job 1 is building it")
    assert looking.look() == (waits if status == 3 else dict.fromkeys("abc", "ok"))
    looking.cloud.runs[71].statuses = [20]
    assert looking.look()["a"] == "blocked test failed: of_a"


def test_what_another_job_builds_right_now_waits_too(looking: Looking) -> None:
    theirs = step("build", 5, a="success", of_a="pass")
    looking.cloud.runs = {60: ran(theirs, job=2), 70: ran(step("build", 10, **GOOD)), 71: ran(job=2, status=3)}
    assert looking.look() == {"a": "under way dbt Cloud run 71 of job 2 is building it", "b": "ok", "c": "ok"}


def test_a_run_that_the_service_never_ended_holds_nothing_once_a_later_one_has(looking: Looking) -> None:
    looking.cloud.runs = {70: ran(status=3), 71: ran(step("build", **GOOD))}
    assert set(looking.look().values()) == {"ok"}


UNREADABLE = {
    "a manifest cut short": lambda run: run.steps[1].artifacts.update({"manifest.json": b"{"}),
    "a manifest of another version": lambda run: run.steps[1].artifacts.update(
        {
            "manifest.json": json.dumps(
                {**manifest(), "metadata": {"dbt_schema_version": "/dbt/manifest/v99.json"}}
            ).encode()
        }
    ),
    "a manifest of another project": lambda run: run.steps[1].artifacts.update(
        {
            "manifest.json": json.dumps(
                {**manifest(), "metadata": {**MANIFEST["metadata"], "project_name": "x"}}
            ).encode()
        }
    ),
    "results cut short": lambda run: run.steps[1].artifacts.update({"run_results.json": b'{"metadata": {'}),
    "results of something else": lambda run: run.steps[1].artifacts.update({"run_results.json": b"[]"}),
    "a manifest that is gone": lambda run: run.steps[1].artifacts.pop("manifest.json"),
    "artifacts that are gone": lambda run: run.steps[1].artifacts.clear(),
}


@pytest.mark.parametrize("what", UNREADABLE)
def test_a_run_that_can_t_be_used_holds_what_it_built_and_keeps_no_later_one_back(looking: Looking, what: str) -> None:
    looking.cloud.runs = {70: ran(step("build", **GOOD)), 71: ran(step("build", **GOOD))}
    UNREADABLE[what](looking.cloud.runs[71])
    assert looking.look()["a"].startswith("blocked dbt Cloud run 71 of job 1 may have built it")
    assert looking.last is not None and set(looking.last.unusable) == {"71"}
    assert looking.last.unusable["71"].code in ("DB225", "DB230")
    looking.cloud.runs[72] = ran(step("build", **GOOD))
    assert set(looking.look().values()) == {"ok"} and not looking.last.unusable


@pytest.mark.parametrize("fault", [Fault(403), Fault(410), Fault(404), Fault(body=b" " * 5_001)])
def test_an_artifact_that_is_refused_is_the_run_s_own_trouble(
    looking: Looking, fault: Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "FILE_BYTES_MAX", 5_000)
    looking.cloud.runs = {70: ran(step("build", **GOOD)), 71: ran(step("build", **GOOD))}
    looking.cloud.faults = [Fault(fault.status, fault.body, only="71/artifacts/manifest.json")]
    assert looking.look()["a"].startswith("blocked")
    assert looking.last is not None and "71" in looking.last.unusable


@pytest.mark.parametrize("fault", [Fault(401), Fault(500), Fault(429), Fault(cut=0)])
@pytest.mark.parametrize("only", ["/runs/", "71/artifacts/", "manifest.json"])
def test_a_service_that_has_no_answer_says_nothing_of_a_run(looking: Looking, fault: Fault, only: str) -> None:
    looking.cloud.runs = {70: ran(step("build", **GOOD)), 71: ran(step("build", **GOOD))}
    looking.cloud.faults = [Fault(fault.status, cut=fault.cut, only=only) for _ in range(client.ATTEMPTS_MAX)]
    with pytest.raises(DbtCloudError, match=r"DB22[167]"):
        looking.look()
    looking.cloud.faults = []
    assert set(looking.look().values()) == {"ok"}


@pytest.mark.parametrize(
    ("cut", "held"),
    [
        (ran(status=20), False),  # the checkout failed
        (ran(step("deps", left=False), status=30), False),  # cancelled before anything was built
        (ran(step("build", left=False), status=30), True),
        (ran(step("build", left=False), status=20), False),  # a mistake in the project: dbt built nothing
        (ran(step("build", left=False), status=10), True),
    ],
)
def test_a_run_without_results_holds_what_it_may_have_built(looking: Looking, cut: Ran, held: bool) -> None:
    looking.cloud.runs = {70: ran(step("build", **GOOD)), 71: cut}
    assert (looking.look()["a"] != "ok") == held
    assert looking.last is not None and looking.last.unusable["71"].code == "DB225"


def test_a_run_that_was_deleted_holds_nothing(looking: Looking) -> None:
    looking.cloud.runs = {70: ran(step("build", **GOOD)), 71: ran(step("build", **BAD))}
    looking.cloud.faults = [Fault(404, only="/runs/71/")]
    assert looking.look()["a"] == "ok"


def test_a_list_past_its_end_is_bounded(looking: Looking) -> None:
    looking.cloud.runs = {number: ran(step("build", **GOOD)) for number in range(50, 450)}
    assert set(looking.look().values()) == {"ok"}
    assert len(looking.cloud.asked) <= 8


def test_a_run_that_can_t_be_read_in_a_list_keeps_no_other_back(looking: Looking) -> None:
    looking.cloud.runs = {70: ran(step("build", **GOOD)), 71: ran(step("build", **GOOD), job=2)}
    whole = [looking.cloud._run(number) for number in (71, 70)]
    for odd in (7, {"id": None}, {**whole[1], "id": 72, "status": 11}):
        listed = json.dumps({"data": [odd, *whole]}).encode()
        looking.cloud.faults = [Fault(body=listed), Fault(body=listed)]
        looking.last = None
        waits = isinstance(odd, dict) and odd.get("status") == 11
        assert looking.look()["a"].split()[0] == ("under" if waits else "ok")


# The law


class Quick:
    """The same answers without HTTP, in the place of a client."""

    def __init__(self, cloud: StandIn) -> None:
        self.cloud = cloud

    def _listed(self) -> list[JobRun]:
        return [self.run(str(number)) for number in sorted(self.cloud.runs, reverse=True)]

    def of_project(self, _: str) -> list[JobRun]:
        return self._listed()

    def of_job(self, job_id: str) -> list[JobRun]:
        found = [run for run in self._listed() if run.job_id == job_id]
        if not found:
            raise DbtCloudError("DB222", "no such job")
        return found

    def run(self, run_id: str, *, steps: bool = False) -> JobRun:
        return client._run(self.cloud._run(int(run_id), steps=steps), steps=steps)

    def json(self, run: JobRun, number: int, name: str) -> Any:
        found = self.cloud.runs[int(run.run_id)].steps[number - 1].artifacts.get(name)
        return None if found is None else json.loads(found)

    def copy(self, run: JobRun, number: int, name: str, file: IO[bytes]) -> bool:
        return bool(file.write(self.cloud.runs[int(run.run_id)].steps[number - 1].artifacts.get(name, b"")))


WORD = st.fixed_dictionaries(
    {},
    optional={
        **{name: st.sampled_from(["success", "success", "error", "skipped"]) for name in "ab"},
        **{f"of_{name}": st.sampled_from(["pass", "pass", "fail", "warn", "skipped", "error"]) for name in "ab"},
    },
)
RUNS = st.lists(
    st.tuples(
        st.sampled_from([1, 1, 2, 3]),  # the job
        st.sampled_from(["build", "build", "run", "test", "parse"]),
        WORD,
        st.sampled_from(["ended", "ended", "ended", "going on", "cut"]),
        st.booleans(),  # whether anybody looks after it
    ),
    min_size=1,
    max_size=7,
)


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(RUNS, st.booleans())
def test_rows_whose_tests_failed_in_the_latest_run_that_built_them_are_never_let_through(
    drawn: list[tuple[int, str, dict[str, str], str, bool]], timed: bool
) -> None:
    """Whatever is looked at in between. A model is let through only if, of the runs that ended, in their order: its
    last build worked, none of its tests failed after its last answer that passed, and no run that nobody can read came
    after; and no run of a job that builds it goes on."""
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "OTHERS_READ_MAX", 10)
        cloud = StandIn()
        looking = Looking(cloud, Path(folder), Quick(cloud))  # type: ignore[arg-type]
        for number, (job, which, word, end, looks) in enumerate(drawn, 100):
            own = {name: status for name, status in word.items() if which != "test" or name.startswith("of_")}
            own = {name: status for name, status in own.items() if which != "run" or not name.startswith("of_")}
            left = end == "ended" and which != "parse"
            made = step(which, (number - 99) * 10 if timed else 0, left=left, **own)
            cloud.runs[number] = ran(made, job=job, status={"ended": 10, "going on": 3, "cut": 30}[end])
            if looks:
                check(looking, drawn[: number - 99])
        check(looking, drawn)


def check(looking: Looking, drawn: list[tuple[int, str, dict[str, str], str, bool]]) -> None:
    try:
        found = looking.look()
    except DbtCloudError as error:
        assert error.problems[0].code in ("DB222", "DB223", "DB225")
        return
    words = [word for job, which, word, end, _ in drawn if (job, end) == (1, "ended") and which in ("build", "run")]
    for name in "ab":
        built, tested, held = "", "", False
        is_ours = not any("a" in word or "b" in word for word in words) or any(name in word for word in words)
        for place, (job, which, word, end, _) in enumerate(drawn):
            builds = which in ("build", "run")
            if end == "ended" and builds and word.get(name):
                built, held = word[name], False
            if end == "ended" and which in ("build", "test") and word.get(f"of_{name}", "skipped") != "skipped":
                tested = word[f"of_{name}"]
            if job == 1 and is_ours and end == "cut" and builds:
                held = True
            later = [each for each in drawn[place + 1 :] if each[0] == job]
            going = end == "going on" and job == 1 and is_ours and all(each[3] == "going on" for each in later)
            held = held or going
        if built in ("error", "skipped") or tested in ("fail", "error") or held:
            assert found[name].split()[0] in ("blocked", "under"), (name, found, built, tested, held)


def test_the_word_on_a_step_is_folded_the_same_in_any_order_given() -> None:
    from itertools import permutations

    from dinmo_dbt.artifacts.gate import parse_run_results

    documents = [
        json.loads(step("build", at, **word).artifacts["run_results.json"]) for at, word in ((10, BAD), (20, GOOD))
    ]
    steps = [artifacts.Step(1, each, parse_run_results(each, ""), str(n), str(n)) for n, each in enumerate(documents)]
    folded = {
        json.dumps(sorted(r["status"] for r in artifacts.merged(o, steps)["results"])) for o in permutations(steps)
    }
    assert len(folded) == 1
