"""The lab: one `dbt build` per test session, a copy of it per test."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_channels import Receiver

from .lab import Lab, Org, dbt, write_project


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("built") / "lab"
    write_project(root)
    done = dbt(root, "build")
    assert done.returncode == 0, done.stdout + done.stderr
    return root


@pytest.fixture
def lab(built: Path, tmp_path: Path) -> Lab:
    return Lab(Path(shutil.copytree(built, tmp_path / "lab")))


@pytest.fixture
def org(lab: Lab) -> Iterator[Org]:
    with lab.serve() as org:
        yield org


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()
