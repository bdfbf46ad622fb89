"""A job in dbt Cloud, whose steps a real dbt ran, is synced from outside."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from dbt_cloud_standin import TOKEN, Fault, Ran, StandIn, Step, cloned, step_of
from test_channels import Receiver

from .lab import DINMO, MODELS, Lab, Org, dbt, until
from .test_scheduling import CHANNELS

pytestmark = pytest.mark.slow

NAMES = ("people_to_crm", "events_to_crm", "companies_to_crm")
TWICE = "select * from ({0}) union all select * from ({0}) where person_id = 'P1'\n".format(MODELS["people"][1])


@pytest.fixture(scope="module")
def ran(built: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Step]:
    """Steps of a job by name: what dbt's target folder was after each command, run one after another in one project.

    `people` has a key twice until `again`, so that its test fails.
    """
    root = Path(shutil.copytree(built, tmp_path_factory.mktemp("cloud") / "lab"))
    shutil.rmtree(root / "target")
    steps: dict[str, Step] = {}

    def step(name: str, *command: str, code: int = 0) -> None:
        done = dbt(root, *command)
        assert done.returncode == code, done.stdout + done.stderr
        steps[name] = step_of(f"dbt {' '.join(command)}", root / "target")

    step("parse", "parse")
    step("build", "build")
    step("docs", "docs", "generate")
    (root / "models" / "people.sql").write_text(TWICE)
    step("bad build", "build", code=1)
    step("bad docs", "docs", "generate")
    step("run", "run")
    step("list", "ls")
    step("bad test", "test", code=1)
    (root / "models" / "people.sql").write_text(MODELS["people"][1])
    step("again", "run", "--select", "people")
    step("test", "test")
    return steps


@pytest.fixture
def cloud() -> Iterator[StandIn]:
    with StandIn().serve() as cloud:
        yield cloud


@pytest.fixture
def away(lab: Lab) -> Lab:
    """The project as a runner checks it out: no dbt ran in it. Its warehouse is the one that the job built."""
    shutil.rmtree(lab.root / "target")
    return lab


def job(cloud: StandIn, ran: dict[str, Step], *names: str, statuses: tuple[int, ...] = (10,)) -> None:
    cloud.runs[70] = Ran(1, list(statuses), [cloned(), *(ran[name] for name in names)])


def test_what_a_job_built_arrives_once_it_has_ended(away: Lab, org: Org, cloud: StandIn, ran: dict[str, Step]) -> None:
    job(cloud, ran, "build", "docs", statuses=(3, 10))
    synced = away.process("sync", "--dbt-cloud-job", "1", "--wait", **cloud.environment)
    assert synced.code == 0, synced.all
    assert [line[10:] for line in synced.out.splitlines()[:2]] == [
        "dbt Cloud run 70 is running",
        "dbt Cloud run 70 of job 1 ended as success; by its steps 2 (build)",
    ]
    assert (org.count("Person__c"), org.count("Event__c")) == (30, 20)
    folder = away.root / "target" / "dbt_cloud" / "job-1"
    told = json.loads((folder / "dinmo_run_results.json").read_text())
    assert (
        told["metadata"]["dbt_invocation_id"]
        == json.loads((folder / "manifest.json").read_text())["metadata"]["invocation_id"]
    )
    assert not (away.root / "target" / "dinmo_run_results.json").exists()
    again = away.run("sync", "--dbt-cloud-job", "1", "--json", **cloud.environment)
    assert again.code == 0 and [again.result(name)["outcome"]["succeeded"] for name in NAMES[:2]] == [0, 0]
    assert TOKEN not in synced.all + again.all
    planned = away.run("plan", "--target-path", "target/dbt_cloud/job-1")
    assert planned.code == 0, planned.all


@pytest.mark.parametrize(
    ("steps", "told"),
    [
        (("bad build",), "2 (build)"),
        (("bad build", "bad docs"), "2 (build)"),
        (("run", "bad test"), "2 (run), 3 (test)"),
        (("run", "list", "bad test", "bad docs"), "2 (run), 4 (test)"),
        (("run", "bad test", "again"), "2 (run), 3 (test), 4 (run)"),
    ],
)
def test_a_test_that_fails_in_any_step_blocks_its_model(
    away: Lab, org: Org, cloud: StandIn, ran: dict[str, Step], steps: tuple[str, ...], told: str
) -> None:
    job(cloud, ran, *steps, statuses=(20,))
    synced = away.run("sync", "--dbt-cloud-job", "1", "--json", **cloud.environment)
    assert synced.code == 4, synced.all
    assert [synced.result(name)["status"] for name in NAMES] == ["blocked", "success", "success"]
    assert "test failed: unique_people_person_id" in synced.err
    assert f"ended as error; by its steps {told}" in synced.err
    assert org.count("Person__c") == 0


def test_a_test_that_passes_in_a_later_step_lets_its_model_through(
    away: Lab, org: Org, cloud: StandIn, ran: dict[str, Step]
) -> None:
    job(cloud, ran, "run", "bad test", "again", "test", "docs")
    synced = away.run("sync", "--dbt-cloud-job", "1", "--run", "70", "--json", **cloud.environment)
    assert synced.code == 0, synced.all
    assert org.count("Person__c") == 30
    assert "note:" not in synced.err, "manifest and results are of one command"


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (("--dbt-cloud-job", "1"), "DB223 dbt Cloud run 70 of job 1 is running"),
        (("--dbt-cloud-job", "2"), "DB222 dbt Cloud job 2 has no run"),
        (("--dbt-cloud-job", "1", "--run", "7"), "DB222 dbt Cloud has no run 7"),
        (("--dbt-cloud-job", "2", "--run", "70"), "DB222 dbt Cloud run 70 is of job 1, not of 2"),
        (("--dbt-cloud-job", "3"), "DB225 dbt Cloud run 80 (cancelled) left no results"),
    ],
)
def test_a_run_that_can_t_be_synced_is_reported_and_nothing_is_sent(
    away: Lab, org: Org, cloud: StandIn, ran: dict[str, Step], flags: tuple[str, ...], told: str
) -> None:
    job(cloud, ran, "parse", "build", statuses=(3,))
    cloud.runs[80] = Ran(3, [30], [cloned(), ran["parse"]])
    synced = away.run("sync", *flags, **cloud.environment)
    assert synced.code == 1, synced.all
    assert told in " ".join(synced.err.split())
    assert len(synced.err.splitlines()) <= 4
    assert org.count("Person__c") == 0


def test_a_token_that_is_refused_is_not_shown(away: Lab, cloud: StandIn, ran: dict[str, Step]) -> None:
    job(cloud, ran, "build")
    wrong = cloud.environment | {"DINMO_DBT_CLOUD_TOKEN": "dbtc_OTHER"}
    refused = away.run("sync", "--dbt-cloud-job", "1", **wrong)
    assert refused.code == 1 and "DB221" in refused.err
    assert "dbtc_OTHER" not in refused.all


def test_channels_hear_once_that_dbt_cloud_can_t_be_asked_and_once_that_it_answers(
    away: Lab, org: Org, cloud: StandIn, ran: dict[str, Step], receiver: Receiver
) -> None:
    (away.root / "dinmo.yml").write_text(DINMO + CHANNELS)
    job(cloud, ran, "build", statuses=(3, 10))
    right = cloud.environment | {"HOOK": f"http://127.0.0.1:{receiver.port}/x"}
    wrong = right | {"DINMO_DBT_CLOUD_TOKEN": "dbtc_OTHER"}
    sync = ("sync", "--dbt-cloud-job", "1")
    assert [away.run(*sync, **each).code for each in (right, wrong, wrong, right, right)] == [1, 1, 1, 0, 0]
    told = [json.loads(asked[3]) for asked in receiver.asked]
    assert [each["title"] for each in told] == [
        "dinmo-dbt [dev]: dbt Cloud can't be asked what it built",
        "dinmo-dbt [dev]: dbt Cloud answers again",
    ]
    assert "DB221" in told[0]["message"] and "dbtc_OTHER" not in str(told)


def test_what_is_not_set_is_named_at_once(away: Lab) -> None:
    ran = away.run("sync", "--dbt-cloud-job", "1", DINMO_DBT_CLOUD_HOST="emea.dbt.com")
    assert ran.code == 2
    assert "not set: DINMO_DBT_CLOUD_ACCOUNT_ID, DINMO_DBT_CLOUD_TOKEN\n" in ran.err


@pytest.mark.parametrize("flag", [("--run", "70"), ("--wait",)])
def test_flags_of_a_job_without_a_job_are_refused(lab: Lab, flag: tuple[str, ...]) -> None:
    ran = lab.run("sync", *flag)
    assert ran.code == 2
    assert f"{flag[0]} says which run of a dbt Cloud job" in ran.err


def test_an_interrupt_ends_the_waiting_at_once(away: Lab, cloud: StandIn, ran: dict[str, Step]) -> None:
    job(cloud, ran, "build", statuses=(3,))
    child = away.start("sync", "--dbt-cloud-job", "1", "--wait", **cloud.environment)
    until(lambda: len(cloud.asked) > 0)
    until(lambda: "S" in Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2][:3])
    assert child.stdout is not None and "is running" in child.stdout.readline()
    os.kill(child.pid, signal.SIGINT)
    _, err = child.communicate(timeout=60)
    assert child.returncode == 130, err


def test_an_interrupt_breaks_off_a_reply_that_does_not_come(away: Lab, cloud: StandIn, ran: dict[str, Step]) -> None:
    job(cloud, ran, "build")
    cloud.faults = [Fault(pause_s=600)]
    child = away.start("sync", "--dbt-cloud-job", "1", **cloud.environment)
    until(lambda: len(cloud.asked) > 0)
    os.kill(child.pid, signal.SIGTERM)
    _, err = child.communicate(timeout=60)
    assert child.returncode == 143, err
