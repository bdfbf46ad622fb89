"""The house: what ships in the wheel and runs from it, what the environment holds, what the Makefile promises."""

from __future__ import annotations

import ast
import importlib.metadata
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
CONSTRAINTS = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()


def run(*command: str | Path, cwd: Path, timeout: float = 240, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "DINMO_", "DBT_"))}
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env={**kept, **environment}, capture_output=True, text=True,
        timeout=timeout, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def tracked() -> list[str]:
    listed = run("git", "ls-files", "--cached", "--others", "--exclude-standard", cwd=ROOT).stdout.splitlines()
    return [name for name in listed if (ROOT / name).is_file()]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy of what git knows, so that nothing left in the checkout gets in; nor does what an
    earlier build left."""
    folder = tmp_path_factory.mktemp("wheel")
    left = folder / "source" / "build" / "lib" / "dinmo_dbt" / "gone.py"
    left.parent.mkdir(parents=True)
    left.write_text("", encoding="utf-8")
    for name in tracked():
        copy = folder / "source" / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes((ROOT / name).read_bytes())
    options = ("--no-deps", "--no-build-isolation", "--quiet", "--disable-pip-version-check", "-w", folder)
    run(sys.executable, "-m", "pip", "wheel", folder / "source", *options, cwd=folder)
    (made,) = folder.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel and what it requires, and nothing of the development tools.

    Its packages are links to those of this environment: the same files, without a minute of installing.
    """
    home = tmp_path_factory.mktemp("installed") / "venv"
    run(sys.executable, "-m", "venv", "--without-pip", home, cwd=home.parent)
    (packages,) = home.glob("lib/python*/site-packages")
    for name in sorted(required(wheel)):
        for file in importlib.metadata.distribution(name).files or ():
            source = Path(str(file.locate()))
            if ".." in file.parts or not source.is_file():
                continue
            link = packages / file
            link.parent.mkdir(parents=True, exist_ok=True)
            if not link.exists():
                link.symlink_to(source)
    pip = (sys.executable, "-m", "pip", "--python", home / "bin/python", "--disable-pip-version-check")
    run(*pip, "install", "--quiet", "--no-deps", "--no-index", wheel, cwd=home)
    dbt = home / "bin" / "dbt"
    dbt.write_text(f"#!{home / 'bin' / 'python'}\nfrom dbt.cli.main import cli\ncli()\n")
    dbt.chmod(0o755)
    return home


def required(wheel: Path) -> set[str]:
    """The distributions that the wheel needs, extras left out, and those that they need in turn."""
    metadata = importlib.metadata.Distribution.at(_unpacked_metadata(wheel))
    found: set[str] = set()
    todo: list[tuple[str, frozenset[str]]] = []

    def note(texts: list[str], extras: frozenset[str]) -> None:
        for requirement in map(Requirement, texts):
            if requirement.marker is None or any(
                requirement.marker.evaluate({"extra": extra}) for extra in (extras or {""})
            ):
                todo.append((canonicalize_name(requirement.name), frozenset(requirement.extras)))

    note(metadata.requires or [], frozenset())
    seen: set[tuple[str, frozenset[str]]] = set()
    while todo:
        name, extras = todo.pop()
        if (name, extras) not in seen:
            seen.add((name, extras))
            found.add(name)
            note(importlib.metadata.distribution(name).requires or [], extras)
    return found


def _unpacked_metadata(wheel: Path) -> Path:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        archive.extract(name, wheel.parent / "metadata")
    return wheel.parent / "metadata" / Path(name).parent


def test_the_wheel_holds_the_package_and_the_sample_project_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if not name.startswith("dinmo_dbt-")}
    package = {name for name in tracked() if name.startswith("dinmo_dbt/")}
    sample = {f"dinmo_dbt/{name}" for name in tracked() if name.startswith("sample_dbt_project/")}
    assert held == package | sample
    assert {"dinmo_dbt/py.typed", "dinmo_dbt/meta.schema.json", "dinmo_dbt/emulator/soql/grammar.lark"} <= held


def test_the_wheel_carries_licence_and_metadata(wheel: Path) -> None:
    folder = _unpacked_metadata(wheel)
    with zipfile.ZipFile(wheel) as archive:
        licence = archive.read(f"{folder.name}/licenses/LICENSE").decode()
    assert "Apache License" in licence
    metadata = (folder / "METADATA").read_text(encoding="utf-8")
    assert "License-Expression: Apache-2.0" in metadata
    for extra in ("postgres", "snowflake", "bigquery", "databricks", "redshift", "dev"):
        assert f"Provides-Extra: {extra}\n" in metadata


def test_the_installed_wheel_runs_without_the_development_tools(installed: Path, tmp_path: Path) -> None:
    command = installed / "bin" / "dinmo-dbt"
    assert "sync" in run(command, "--help", cwd=tmp_path).stdout
    assert re.fullmatch(r"dinmo-dbt \d+\.\d+\.\d+\n", run(command, "--version", cwd=tmp_path).stdout)
    absent = "import importlib.util as u; print([n for n in ('pytest', 'mypy', 'psycopg2') if u.find_spec(n)])"
    assert run(installed / "bin/python", "-c", absent, cwd=tmp_path).stdout == "[]\n"


@pytest.mark.slow
def test_the_demo_runs_from_the_installed_wheel(installed: Path, tmp_path: Path) -> None:
    told = run(installed / "bin" / "dinmo-dbt", "demo", cwd=tmp_path, TMPDIR=str(tmp_path)).stdout
    assert "everything that was started is stopped" in told
    assert list(tmp_path.iterdir()) == []


def test_constraints_pin_every_package_of_this_environment_and_name_no_place() -> None:
    pins = dict(line.split("==") for line in CONSTRAINTS if line and not line.startswith("#"))
    assert len(pins) > 50
    assert not [line for line in CONSTRAINTS if "://" in line or " @ " in line]
    names = {canonicalize_name(name) for name in pins}
    extras = PYPROJECT["project"]["optional-dependencies"]
    wanted = [*PYPROJECT["project"]["dependencies"], *extras["dev"], *extras["postgres"]]
    missing = {canonicalize_name(Requirement(text).name) for text in wanted} - names - {"dinmo-dbt"}
    assert not missing, "run `make lock`"
    assert pins["dbt-core"].startswith("1.")


def test_each_dependency_says_why_it_is_there() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for block in re.findall(r"^(?:dependencies|dev) = \[\n(.*?)^\]", text, re.DOTALL | re.MULTILINE):
        before = ""
        for line in block.splitlines():
            assert "  # " in line or before.lstrip().startswith("# ") or line.lstrip().startswith("# "), line
            before = line


def test_the_sample_project_takes_each_dbt_that_we_allow() -> None:
    (dbt,) = [Requirement(text) for text in PYPROJECT["project"]["dependencies"] if text.startswith("dbt-core")]
    sample = (ROOT / "sample_dbt_project/dbt_project.yml").read_text(encoding="utf-8")
    (wanted,) = re.findall(r'^require-dbt-version: ">=([\d.]+)"', sample, re.MULTILINE)
    assert any(each.operator == ">=" and wanted.startswith(each.version) for each in dbt.specifier)


def test_a_change_has_a_file_that_a_release_takes() -> None:
    kinds = {each["directory"] for each in PYPROJECT["tool"]["towncrier"]["type"]}
    for path in sorted((ROOT / "changes").iterdir()):
        if path.name != "README.md":
            assert re.fullmatch(rf"(\d+|\+[\w-]+)\.({'|'.join(kinds)})(\.\d+)?\.md", path.name), path.name
            assert path.read_text(encoding="utf-8").rstrip().endswith("."), path.name
    assert PYPROJECT["tool"]["towncrier"]["start_string"] in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_packages_of_the_wheel_are_those_of_the_source() -> None:
    found = {
        path.parent.relative_to(ROOT).as_posix().replace("/", ".") for path in ROOT.glob("dinmo_dbt/**/__init__.py")
    }
    assert set(PYPROJECT["tool"]["setuptools"]["packages"]) == found | {"dinmo_dbt.sample_dbt_project"}


def test_the_makefile_lists_its_targets_and_refuses_an_unfit_python(tmp_path: Path) -> None:
    listed = run("make", "help", cwd=ROOT).stdout
    for target in ("demo", "test", "lint", "docs", "picture", "bench", "lock"):
        assert f"make {target} " in listed
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "constraints.txt").touch()
    shell = tmp_path / "bin"
    shell.mkdir()
    for name in ("python3.11", "python3.12", "python3.13", "python3", "python"):
        (shell / name).write_text("#!/bin/sh\nexit 1\n")
        (shell / name).chmod(0o755)
    refused = subprocess.run(
        ["make", "-f", str(ROOT / "Makefile"), ".venv/.run"], cwd=tmp_path, capture_output=True, text=True,
        env={"PATH": f"{shell}:{os.environ['PATH']}"}, check=False,
    )  # fmt: skip
    assert refused.returncode != 0
    assert "needs Python 3.11, 3.12 or 3.13" in refused.stderr
    assert not (tmp_path / ".venv").exists()


@pytest.mark.slow
def test_no_test_judges_how_quick_something_is_by_a_clock_on_the_wall() -> None:
    """The machine may be busy. A test counts calls, rounds or the processor's time, or waits so long that only what
    hangs is caught. That something took at least so long may be asked of any clock."""
    clock = re.compile(r"^time\.(monotonic|perf_counter|time)(_ns)?\(\)$")
    found = []
    for name in tracked():
        if not re.fullmatch(r"tests/(.*/)?(test_\w+|conftest|lab)\.py", name):
            continue
        tree = ast.parse((ROOT / name).read_text(encoding="utf-8"))
        at_least = {
            id(node.left) for node in ast.walk(tree)
            if isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.Gt | ast.GtE)
        }  # fmt: skip
        found += [
            f"{name}:{node.lineno}" for node in ast.walk(tree)
            if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Sub)
            and clock.match(ast.unparse(node.left)) and id(node) not in at_least
        ]  # fmt: skip
    assert found == []


def test_no_file_names_a_machine_or_a_package_registry() -> None:
    # Written apart, so that this file does not name them either.
    pattern = re.compile(
        r"(^|[^\w.-])/(wor" r"k|far" r"m)/|pyp" r"i\.org|python" r"hosted\.org|registry\.npm" r"js|deb\.deb" r"ian"
    )
    for name in tracked():
        try:
            text = (ROOT / name).read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        found = [line for line in text.splitlines() if pattern.search(line)]
        assert not found, name
