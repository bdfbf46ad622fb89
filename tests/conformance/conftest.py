"""Orgs for clients that others wrote, and npm packages, installed from their lock files."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest
from emulator.conftest import Org, start, write_schema

from .exercised import PAGE, Watch, told

HERE = Path(__file__).parent
JSFORCE = HERE / "jsforce"
NODE_MIN = 18


@pytest.fixture(scope="session")
def schema(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_schema(tmp_path_factory.mktemp("force-app"))


@pytest.fixture(scope="module")
def org(schema: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Org]:
    running = start(schema=schema, data=tmp_path_factory.mktemp("data"))
    switched = running.http.post(
        f"{running.url}/emulator/logins", json={"password_flow": True}
    )  # clients still have it
    assert switched.ok, switched.text
    yield running
    running.stop()


@pytest.fixture(scope="module", autouse=True)
def exercised(request: pytest.FixtureRequest) -> Iterator[None]:
    """After all tests of a client's module: the page says of it what the org saw, no more and no less."""
    client = getattr(request.module, "CLIENT", None)
    if client is None:
        yield
        return
    watch = Watch(request.getfixturevalue("org"))
    yield
    seen = watch.end()
    if seen and _whole(request.config):
        assert seen == told(client), f"docs/{PAGE}: the calls of {client} are {seen}"


def _whole(config: pytest.Config) -> bool:
    """Whether all tests of each module run, and not some chosen ones."""
    chosen = any(config.getoption(name) for name in ("keyword", "markexpr", "deselect", "lf"))
    return not chosen and not any("::" in each for each in config.args)


@pytest.fixture(scope="session")
def node_packages(request: pytest.FixtureRequest) -> Callable[[str], Path]:
    """The node_modules of a folder's lock file, as npm ships them; kept between runs beside pytest's own cache."""
    _need_node()

    def installed(name: str) -> Path:
        assert request.config.cache is not None
        folder = request.config.cache.mkdir(name)
        lock = (HERE / name / "package-lock.json").read_bytes()
        done = folder / "installed.json"
        if not done.exists() or done.read_bytes() != lock:
            for file in ("package.json", "package-lock.json", ".npmrc"):
                shutil.copy(HERE / name / file, folder / file)
            command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
            subprocess.run(command, cwd=folder, check=True, timeout=300)
            done.write_bytes(lock)
        return folder / "node_modules"

    return installed


def _need_node() -> None:
    """Node tests are skipped where there is no Node, but not in CI: there that would go unseen."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        _without("Node's tests need node and npm on the PATH")
    version = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True, timeout=30).stdout
    if int(version.removeprefix("v").partition(".")[0]) < NODE_MIN:
        _without(f"Node's tests need Node {NODE_MIN} or newer, not {version.strip()}")


def _without(what: str) -> NoReturn:
    if os.environ.get("CI") == "true":
        pytest.fail(what)
    pytest.skip(what)


@pytest.fixture(scope="module")
def node(node_packages: Callable[[str], Path], org: Org) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run one file of Node's own tests against the module's org."""
    packages = node_packages("jsforce")

    def run(file: str, **environment: str) -> subprocess.CompletedProcess[str]:
        told = {
            "ORG": json.dumps(org.line), "NODE_PATH": str(packages), "NODE_EXTRA_CA_CERTS": org.line["ca_file"],
            **environment,
        }  # fmt: skip
        return subprocess.run(
            ["node", "--test", "--test-reporter=tap", JSFORCE / file],
            env={**os.environ, **told}, capture_output=True, text=True, timeout=120,
        )  # fmt: skip

    return run
