"""`dinmo-dbt demo`: from nothing to nothing, with an org in between."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from .lab import environment, hear_interrupts, until, using
from .test_json import as_golden

pytestmark = pytest.mark.slow


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-u", "-m", "dinmo_dbt", "demo", *arguments],
        cwd=folder,
        env=environment() | {"TMPDIR": str(folder)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=hear_interrupts,
        text=True,
        start_new_session=True,
    )


def test_the_demo_runs_to_its_end_and_what_is_kept_can_be_looked_at(tmp_path: Path) -> None:
    child = start(tmp_path, "--keep", "--json")
    document, story = child.communicate(timeout=180)
    assert child.returncode == 0, document + story
    for told in ("$ dinmo-dbt plan", "nothing is sent", " -> ", "[0 sent, 1,225 unchanged", "Where to look next"):
        assert told in story
    as_golden("Demo", json.loads(document))
    assert using(tmp_path) == []
    kept = next(tmp_path.iterdir()) / "sample_dbt_project"
    assert f"cd {kept} && dinmo-dbt status" in story
    command = [sys.executable, "-m", "dinmo_dbt", "status"]
    looked = subprocess.run(command, cwd=kept, env=environment(), capture_output=True, text=True, check=True)
    assert looked.stdout.count(": success at") == 4


@pytest.mark.parametrize("moment", ["$ dbt build", "$ dinmo-dbt plan"])
def test_a_ctrl_c_leaves_nothing_running(tmp_path: Path, moment: str) -> None:
    child = start(tmp_path)
    assert child.stdout is not None
    while moment not in child.stdout.readline():
        assert child.poll() is None
    os.killpg(child.pid, signal.SIGINT)
    _, err = child.communicate(timeout=60)
    assert child.returncode == 130
    assert "Traceback" not in err
    assert err.count("interrupted") == 1
    until(lambda: not using(tmp_path))
    assert list(tmp_path.iterdir()) == []
