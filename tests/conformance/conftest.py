"""Orgs for clients that others wrote, and the jsforce package, installed from its lock file."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from emulator.conftest import Org, start, write_schema

JSFORCE = Path(__file__).parent / "jsforce"


@pytest.fixture(scope="session")
def schema(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_schema(tmp_path_factory.mktemp("force-app"))


@pytest.fixture(scope="module")
def org(schema: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Org]:
    running = start(schema=schema, data=tmp_path_factory.mktemp("data"))
    yield running
    running.stop()


@pytest.fixture(scope="session")
def node_modules(request: pytest.FixtureRequest) -> Path:
    """jsforce as its package ships it, kept between runs beside pytest's own cache."""
    folder = request.config.cache.mkdir("jsforce")
    lock = (JSFORCE / "package-lock.json").read_bytes()
    done = folder / "installed.json"
    if not done.exists() or done.read_bytes() != lock:
        for name in ("package.json", "package-lock.json", ".npmrc"):
            shutil.copy(JSFORCE / name, folder / name)
        subprocess.run(
            ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"], cwd=folder, check=True
        )
        done.write_bytes(lock)
    return folder / "node_modules"


@pytest.fixture(scope="module")
def node(node_modules: Path, org: Org) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run one file of Node's own tests against the module's org."""

    def run(file: str, **environment: str) -> subprocess.CompletedProcess[str]:
        told = {"ORG": json.dumps(org.line), "NODE_PATH": str(node_modules), **environment}
        return subprocess.run(
            ["node", "--test", "--test-reporter=tap", JSFORCE / file],
            env={**os.environ, **told}, capture_output=True, text=True, timeout=120,
        )  # fmt: skip

    return run
