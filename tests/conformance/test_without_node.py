"""Where there is no Node its clients' tests are skipped; in CI they fail, so that nobody takes them for run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent


@pytest.mark.parametrize(("ci", "code", "told"), [("", 0, "1 skipped"), ("true", 1, "need node and npm on the PATH")])
def test_without_node(tmp_path: Path, ci: str, code: int, told: str) -> None:
    command = [sys.executable, "-m", "pytest", HERE / "test_jsforce.py", "-k", "session", "-p", "no:cacheprovider"]
    done = subprocess.run(
        command, env={**os.environ, "PATH": str(tmp_path), "CI": ci}, cwd=HERE.parents[1], capture_output=True,
        text=True, timeout=120,
    )  # fmt: skip
    assert (done.returncode, told in done.stdout) == (code, True), done.stdout + done.stderr
