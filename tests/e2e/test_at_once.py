"""Several real processes sync one activation at the same time: one writes, the others say so and end."""

from __future__ import annotations

import signal
from collections import Counter

import pytest

from .lab import Lab, until
from .test_kill_points import MODES, declared, delivered_once


@pytest.mark.parametrize("mode", MODES)
def test_of_six_that_start_together_one_writes(lab: Lab, mode: str) -> None:
    name, field = declared(lab, mode)
    with lab.emulator("--batch-delay", "15") as (org, _):
        children = [lab.start("sync", "--first-sync") for _ in range(6)]
        ended = [(child.communicate(timeout=120), child.returncode) for child in children]
        codes = Counter(code for _, code in ended)
        assert codes == {0: 1, 5: 5}, ended
        refused = [err for (_, err), code in ended if code == 5]
        assert all(f"{MODES[mode][1]['name']} is being synced by" in err for err in refused), refused
        delivered_once(lab, org, name, field)


@pytest.mark.parametrize("mode", MODES)
def test_a_run_that_is_killed_while_another_waits_to_start(lab: Lab, mode: str) -> None:
    """The lock goes with the process: the next one need not wait for anything."""
    name, field = declared(lab, mode)
    with lab.emulator("--batch-delay", "2") as (org, _):
        first = lab.start("sync")
        until(lambda: [job for job in org.jobs() if job["state"] == "InProgress"])
        first.send_signal(signal.SIGSTOP)  # so that it does not end while a slow machine starts the other
        second = lab.process("sync")
        assert second.code == 5, second.all
        first.send_signal(signal.SIGKILL)
        first.communicate()
        delivered_once(lab, org, name, field)
