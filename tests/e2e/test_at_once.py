"""Several real processes sync one activation at the same time: one writes, the others say so and end."""

from __future__ import annotations

import signal

import pytest

from .lab import Lab, until
from .test_kill_points import MODES, declared, delivered_once

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("mode", MODES)
def test_of_six_that_start_together_one_writes(lab: Lab, mode: str) -> None:
    name, field = declared(lab, mode)
    with lab.emulator("--batch-delay", "2") as (org, _):
        children = [lab.start("sync", "--first-sync") for _ in range(6)]
        until(lambda: [job for job in org.jobs() if job["state"] == "InProgress"])
        told = lab.run("state", "show").out
        (writer,) = [child for child in children if f"held by process {child.pid}" in told]
        lab.hold_still(writer)
        others = [child for child in children if child is not writer]
        refused = [child.communicate(timeout=120)[1] for child in others]
        writer.send_signal(signal.SIGCONT)
        _, err = writer.communicate(timeout=120)
        assert (writer.returncode, [child.returncode for child in others]) == (0, [5] * 5), (err, refused)
        assert all(f"{MODES[mode][1]['name']} is being synced by" in err for err in refused), refused
        delivered_once(lab, org, name, field)


@pytest.mark.parametrize("mode", MODES)
def test_a_run_that_is_killed_while_another_waits_to_start(lab: Lab, mode: str) -> None:
    """The lock goes with the process: the next one need not wait for anything."""
    name, field = declared(lab, mode)
    with lab.emulator("--batch-delay", "2") as (org, _):
        first = lab.start("sync")
        until(lambda: [job for job in org.jobs() if job["state"] == "InProgress"])
        lab.hold_still(first)
        second = lab.process("sync")
        assert second.code == 5, second.all
        first.send_signal(signal.SIGKILL)
        first.communicate()
        delivered_once(lab, org, name, field)
