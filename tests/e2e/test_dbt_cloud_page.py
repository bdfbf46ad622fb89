"""Every line of shell in docs/dbt-cloud.md is run, against the stand-in, with the reader's own values in it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from dbt_cloud_standin import ACCOUNT, TOKEN, Ran, StandIn, cloned, step_of

from .lab import DINMO, Lab, Org, environment

pytestmark = pytest.mark.slow

PAGE = (Path(__file__).parents[2] / "docs" / "dbt-cloud.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(sh|crontab|yaml)\n(.*?)```", PAGE, re.DOTALL)
WORKFLOW = yaml.safe_load(next(text for kind, text in BLOCKS if kind == "yaml"))
STEPS = WORKFLOW["jobs"]["sync"]["steps"]


def lines() -> dict[str, str]:
    """Each line of shell by where it stands; what cron or a variable's file adds is not a line of its own."""
    found = {}
    for kind, text in BLOCKS:
        for line in text.splitlines() if kind != "yaml" else ():
            if kind == "crontab":
                found["cron"] = line.split(maxsplit=5)[5]
            elif not line.startswith("export "):
                found[line] = line
    for step in STEPS:
        if "run" in step:
            found[f"workflow: {step['run']}"] = step["run"]
    found |= {f"in the text: {line}": line for line in re.findall(r"`(dinmo-dbt [^`]+)`", PAGE) if " --" in line}
    return found


@pytest.fixture
def home(lab: Lab, org: Org) -> Path:
    """A reader's machine: the project in ~/analytics, the commands on the PATH, and a pip that installs nothing."""
    home = lab.root.parent
    (home / "analytics").symlink_to(lab.root)
    tools = home / "bin"
    tools.mkdir()
    (tools / "dinmo-dbt").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m dinmo_dbt "$@"\n')
    (tools / "pip").write_text('#!/bin/sh\necho "pip $*"\n')
    for tool in tools.iterdir():
        tool.chmod(0o755)
    profiles = lab.root / "profiles.yml"
    profiles.write_text(profiles.read_text() + "    prod: {type: duckdb, path: lab.duckdb, threads: 1}\n")
    (lab.root / "dinmo.yml").write_text(DINMO + "      prod: {org: emulator, shares_org_with: [dev]}\n")
    return home


def shell(home: Path, line: str, **variables: str) -> subprocess.CompletedProcess[str]:
    given = environment() | {"HOME": str(home), "PATH": f"{home / 'bin'}:/usr/local/bin:/usr/bin:/bin"} | variables
    return subprocess.run(
        ["/bin/sh", "-c", line],
        cwd=home / "analytics",
        env=given,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("place", lines())
def test_a_line_of_the_page_does_what_it_says(home: Path, lab: Lab, org: Org, place: str) -> None:
    line = lines()[place]
    with StandIn().serve() as cloud:
        cloud.runs[456] = Ran(123, steps=[cloned(), step_of("dbt build", lab.root / "target")])
        (home / ".dinmo-env").write_text(
            next(text for kind, text in BLOCKS if "export" in text)
            .replace("ab123.us1.dbt.com", cloud.url)
            .replace("4238", str(ACCOUNT))
            .replace("dbtc_...", TOKEN)
        )
        folder = lab.root / "target" / "dbt_cloud" / "job-123"
        if "--target-path" in line:
            shutil.copytree(lab.root / "target", folder)
        variables = {} if place == "cron" else cloud.environment
        done = shell(home, line, **variables)
    told = done.stdout + done.stderr + ((home / "dinmo.log").read_text() if place == "cron" else "")
    assert done.returncode == 0, told
    if " sync " in line:
        assert "dbt Cloud run 456 of job 123 ended as success; by its steps 2 (build)" in told
        assert org.count("Person__c") == 30
        assert TOKEN not in told


def test_the_workflow_hands_over_every_variable_and_one_runs_at_a_time() -> None:
    job = WORKFLOW["jobs"]["sync"]
    assert set(StandIn().environment) <= set(job["env"])
    assert "secrets." in job["env"]["DINMO_DBT_CLOUD_TOKEN"]
    assert WORKFLOW["concurrency"]["group"]
    assert set(WORKFLOW[True]) == {"schedule", "repository_dispatch"}  # YAML 1.1 reads `on` as true
