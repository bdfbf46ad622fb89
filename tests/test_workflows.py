"""The workflows of .github and the hooks before a commit: linted, harmless, and their steps run here where they are
short."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
WORKFLOWS: dict[str, dict[str, Any]] = {
    path.stem: yaml.safe_load(path.read_text(encoding="utf-8"))
    for path in sorted((ROOT / ".github" / "workflows").glob("*.yml"))
}
JOBS = [(f"{name}.{job}", body) for name, workflow in WORKFLOWS.items() for job, body in workflow["jobs"].items()]
COLUMNS: list[dict[str, str]] = WORKFLOWS["tests"]["jobs"]["versions"]["strategy"]["matrix"]["include"]


def shell(
    command: str, cwd: Path = ROOT, path: str = os.environ["PATH"], **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command], cwd=cwd, env={**os.environ, "PATH": path, **environment},
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip


def make(arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """make with this environment as it is: nothing is installed."""
    return shell(f"make -o .venv/.dev BIN={BIN} {arguments}", cwd=cwd)


def runs(job: str) -> list[str]:
    return [step["run"] for step in dict(JOBS)[job]["steps"] if "run" in step]


@pytest.mark.skipif(sys.platform != "linux", reason="the linter's package is for Linux")
def test_the_workflows_are_what_actionlint_takes(tmp_path: Path) -> None:
    assert shell(f"{BIN}/actionlint .github/workflows/*.yml").stdout == ""
    (tmp_path / "wrong.yml").write_text("on: push\njobs: {a: {runs-on: ubuntu-24.04, steps: [{rum: x}]}}\n")
    assert "rum" in shell(f"{BIN}/actionlint wrong.yml", cwd=tmp_path).stdout


@pytest.mark.parametrize(("job", "body"), JOBS, ids=[name for name, _ in JOBS])
def test_a_job_may_only_read_ends_in_time_and_uses_tagged_actions_of_github(job: str, body: dict[str, Any]) -> None:
    assert WORKFLOWS[job.partition(".")[0]]["permissions"] == {"contents": "read"}
    assert "permissions" not in body
    assert 0 < body["timeout-minutes"] <= 90
    for step in body["steps"]:
        if "uses" in step:
            assert re.fullmatch(r"actions/[\w-]+@v\d+", step["uses"])
        if "checkout" in step.get("uses", ""):
            assert step["with"]["persist-credentials"] is False


@pytest.mark.parametrize("job", [name for name, _ in JOBS])
def test_what_a_job_runs_is_there(job: str) -> None:
    assert runs(job)
    for command in runs(job):
        program, *arguments = command.split()
        if program == "make":
            target, *settings = arguments
            assert re.search(rf"^{target}:", MAKEFILE, re.MULTILINE), command
            for setting in settings:
                assert re.search(rf"\$\({setting.partition('=')[0]}\)", MAKEFILE), command
        else:
            script = ROOT / (arguments[0] if program == "python" else program)
            assert script.is_file(), command
            assert program == "python" or os.access(script, os.X_OK), command


@pytest.mark.slow
def test_the_job_that_lints_passes_here() -> None:
    for command in runs("lint.lint"):
        assert command.startswith("make ")
        done = make(command.removeprefix("make "))
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_the_job_of_the_changelog_asks_for_a_file_in_changes(tmp_path: Path) -> None:
    (command,) = runs("lint.changelog")
    for name in ("Makefile", "pyproject.toml", "CHANGELOG.md", "changes/README.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    as_somebody = "-c user.name=a -c user.email=a@example.com"
    commit = f"git add -A && git {as_somebody} commit -qm x"
    assert shell(f"git init -qb main && {commit} && git checkout -qb topic", cwd=tmp_path).returncode == 0
    check = f"{command.removeprefix('make ')} BASE=main"

    (tmp_path / "code.py").touch()
    assert shell(commit, cwd=tmp_path).returncode == 0
    assert "No new newsfragments" in make(check, cwd=tmp_path).stdout
    (tmp_path / "changes" / "7.fixed.md").write_text("A fault is gone.\n")
    assert shell(commit, cwd=tmp_path).returncode == 0
    assert make(check, cwd=tmp_path).returncode == 0
    told = make("changelog", cwd=tmp_path).stdout
    assert "### Fixed\n\n- A fault is gone. (#7)" in told


def test_the_columns_are_the_versions_that_we_allow() -> None:
    classifiers = " ".join(PYPROJECT["project"]["classifiers"])
    allowed = set(re.findall(r"Python :: (3\.\d+)", classifiers))
    assert {"3.11", *(column["python"] for column in COLUMNS)} == allowed
    (dbt,) = [each for each in PYPROJECT["project"]["dependencies"] if each.startswith("dbt-core")]
    below = int(dbt.partition("<1.")[2])
    tried = {int(column["pins"].partition("dbt 1.")[2]) for column in COLUMNS if "dbt" in column["pins"]}
    assert tried == set(range(9, below))
    assert {"locked", "lowest"} < {column["pins"] for column in COLUMNS}


@pytest.mark.parametrize("column", COLUMNS, ids=[f"{each['python']} {each['pins']}" for each in COLUMNS])
def test_the_steps_of_a_column_lead_to_its_versions_and_to_the_tests_alone(
    column: dict[str, str], tmp_path: Path
) -> None:
    for name in ("Makefile", "pyproject.toml", "constraints.txt", ".ci/pins.py", ".ci/needs"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("apt-get", "sudo"):  # told, not done
        (programs / name).write_text("#!/bin/sh\n")
        (programs / name).chmod(0o755)
    (programs / "python").symlink_to(sys.executable)
    *before, test = [run.replace("${{ matrix.pins }}", column["pins"]) for run in runs("tests.versions")]
    for command in before:
        done = shell(command, cwd=tmp_path, path=f"{programs}:{os.environ['PATH']}")
        assert done.returncode == 0, done.stderr
    pins = dict(line.split("==") for line in (tmp_path / "pins.txt").read_text().splitlines() if line[0] != "#")
    lowest_numpy = next(each for each in PYPROJECT["project"]["dependencies"] if each.startswith("numpy"))
    match column["pins"].split():
        case ["lowest"]:
            assert pins["numpy"] == lowest_numpy.partition(">=")[2]
        case ["dbt", minor]:
            assert pins["dbt-core"] == f"{minor}.*"
            assert "numpy" not in pins
    assert "pytest" in pins

    told = shell(f"{test} -n", cwd=tmp_path).stdout
    assert "-c pins.txt" in told
    assert "-m pytest" in told
    assert "mypy" not in told


def test_the_hooks_before_a_commit_are_checks_of_make_lint_and_need_no_network() -> None:
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    (repository,) = config["repos"]
    assert repository["repo"] == "local"
    lint = MAKEFILE.partition("\nlint:")[2].partition("\n\n")[0].replace("$(BIN)", ".venv/bin")
    for hook in repository["hooks"]:
        assert hook["language"] == "system"
        program = hook["entry"].split()[0]
        assert program.startswith(".venv/bin/")
        assert program in lint
        assert (BIN / Path(program).name).exists() or sys.platform != "linux"
    assert shell(f"{BIN}/pre-commit validate-config").returncode == 0
