"""SIGKILL before a system call that changes a file: between any two writes, and in the middle of SQLite's commits.

strace counts the calls of one sync and kills the next at the n-th of them. `EVERY=1` takes each call in its turn
(`make kill`), CI every 80th.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from .lab import Lab, environment
from .test_kill_points import MODES, declared, delivered_once

EVERY = int(os.environ.get("EVERY", "80"))
CALLS = "fsync,fdatasync,rename,link,unlink,pwrite64,ftruncate"
STRACE = shutil.which("strace")

pytestmark = [pytest.mark.slow, pytest.mark.skipif(STRACE is None, reason="needs strace")]


def traced(root: Path, *options: str) -> int:
    """The exit code of a sync under strace."""
    command = [str(STRACE), "-f", "-qq", "-e", "signal=none", "-e", f"trace={CALLS}", *options]
    command += [sys.executable, "-m", "dinmo_dbt", "sync", "--first-sync"]
    return subprocess.run(
        command, cwd=root, env=environment(), capture_output=True, timeout=120, check=False
    ).returncode


@pytest.mark.parametrize("mode", MODES)
def test_killed_at_the_nth_call(built: Path, tmp_path: Path, mode: str) -> None:
    lab = Lab(Path(shutil.copytree(built, tmp_path / "first")))
    name, field = declared(lab, mode)
    calls, whole = tmp_path / "calls", Path(shutil.copytree(lab.root, tmp_path / "whole"))
    with Lab(whole).serve():
        assert traced(whole, "-o", str(calls)) == 0
    seen = Counter(re.findall(r"^(\d+) +(\w+)\(", calls.read_text(), re.MULTILINE))
    points = [
        f"{call}:signal=KILL:when={number}"
        for call in CALLS.split(",")
        # strace counts each call by itself, and by thread; one thread does all that matters.
        for number in range(1, max((n for (_, c), n in seen.items() if c == call), default=0) + 1)
    ]
    assert len(points) > 100
    for point in points[::EVERY]:
        root = Path(shutil.copytree(lab.root, tmp_path / "killed"))
        with Lab(root).serve() as org:
            code = traced(root, "-e", f"inject={point}")
            assert code in (-signal.SIGKILL, 128 + signal.SIGKILL), f"{point}: exit {code}"
            delivered_once(Lab(root), org, name, field)
        shutil.rmtree(root)
