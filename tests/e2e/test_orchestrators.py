"""The examples for Airflow and Dagster: loaded by the real package, and run in a project, with an org in between."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .lab import PEOPLE, Lab, Org, environment

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]  # pip, on a machine that may be busy
ROOT = Path(__file__).parents[2]
PACKAGES = {
    "airflow": ("apache-airflow-core", "apache-airflow-providers-standard"),
    "dagster": ("dagster",),
}
Run = Callable[..., dict[str, Any]]


@pytest.fixture(params=PACKAGES)
def run(request: pytest.FixtureRequest, lab: Lab, tmp_path: Path) -> Run:
    """Runs tasks of the example by the orchestrator's own environment; what it says of them."""
    name, home = request.param, tmp_path / "orchestrator"
    subprocess.run([sys.executable, "-m", "venv", home], check=True)
    known = ROOT / "tests" / "orchestrators" / f"{name}.txt"
    install = [home / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check", "-c", known, *PACKAGES[name]]
    subprocess.run(install, check=True)
    variables = {
        "AIRFLOW_HOME": str(tmp_path / "home"),
        "DAGSTER_HOME": "",
        "DBT_PROJECT_DIR": str(lab.root),
        "DBT_PROGRAMS": str(Path(sys.executable).parent),
        "DBT_TARGET": "dev",
    }
    plain = {key: value for key, value in environment().items() if not key.startswith("PYTHON")}
    command = [home / "bin" / "python", ROOT / "tests" / "orchestrators" / f"in_{name}.py", ROOT / "examples" / name]

    def run(*tasks: str) -> dict[str, Any]:
        done = subprocess.run(
            [*command, *tasks], env=plain | variables, cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return told

    return run


def test_the_example_builds_then_syncs_and_an_exit_code_fails_what_it_should(run: Run, lab: Lab, org: Org) -> None:
    lab.only("people", PEOPLE)
    (lab.root / "models" / "models.yml").write_text(_declared(PEOPLE))
    whole = run("dbt_build", "dinmo_sync")
    assert whole["tasks"] == ["dbt_build", "dinmo_sync"]
    assert whole["retries"] == {"dbt_build": 0, "dinmo_sync": 3}
    assert whole["ended"] == {"dbt_build": "done", "dinmo_sync": "done"}
    assert org.count("Person__c") == 30

    lab.sql("update people set plan = 'Platinum' where person_id = 'P1'")
    assert run("dinmo_sync")["ended"] == {"dinmo_sync": "done"}, "exit 3: the rows wait, people are told"
    assert lab.run("sync").code == 3

    (lab.root / "dinmo.yml").write_text("destinations: {}\n")
    assert "exit code" in run("dinmo_sync")["ended"]["dinmo_sync"]

    (lab.root / "models" / "people.sql").write_text("select nothing\n")
    failed = run("dbt_build", "dinmo_sync")["ended"]
    assert failed.keys() == {"dbt_build"} and failed["dbt_build"] != "done", "nothing is sent after a build that failed"


def _declared(*activations: dict[str, Any]) -> str:
    block = {"key": "person_id", "activations": list(activations)}
    models = [{"name": "people", "config": {"meta": {"dinmo": block}}}]
    return json.dumps({"version": 2, "models": models})


def test_the_page_shows_the_examples_as_they_are() -> None:
    page = (ROOT / "docs" / "orchestrators.md").read_text(encoding="utf-8")
    for name in PACKAGES:
        (example,) = (ROOT / "examples" / name).glob("*.py")
        assert f"```python\n{example.read_text(encoding='utf-8')}```\n" in page
