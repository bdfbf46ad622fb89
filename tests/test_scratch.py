"""Folders for temporary files: what a killed command left goes, what another one uses stays."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from dinmo_dbt.cli.scratch import scratch_folder

HOLDS = """
import sys, time
from pathlib import Path
from dinmo_dbt.cli.scratch import scratch_folder
with scratch_folder(Path(sys.argv[1])) as folder:
    (folder / "rows").write_text("x")
    print(folder.name, flush=True)
    sys.stdin.read()
"""


def test_a_folder_of_a_killed_process_goes_with_the_next_and_one_in_use_stays(tmp_path: Path) -> None:
    theirs = tmp_path / "dinmo-of-the-user"
    theirs.mkdir()
    with subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        name = other.stdout.readline().strip()
        with scratch_folder(tmp_path) as own:
            assert {path.name for path in tmp_path.iterdir()} == {name, own.name, theirs.name}
        other.send_signal(signal.SIGKILL)
    assert (tmp_path / name / "rows").exists()
    with scratch_folder(tmp_path) as own:
        assert {path.name for path in tmp_path.iterdir()} == {own.name, theirs.name}
    assert list(tmp_path.iterdir()) == [theirs]
