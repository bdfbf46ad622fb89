"""How much processor time a test takes, its processes' included: by that it is slow, whatever else is running.

A test that takes more than `SLOW_S` carries the mark `slow`, alone or by its file, and is no part of `make test`. One
that takes three times as much without the mark fails the run.
"""

from __future__ import annotations

import json
import os
from collections.abc import Generator
from pathlib import Path

import pytest

SLOW_S = 1.0
UNMARKED_MAX_S = 3 * SLOW_S  # a busy or a small machine takes longer
TICKS = os.sysconf("SC_CLK_TCK")


def processor_s() -> float:
    """Seconds of this process and all that it started, those that have ended included (proc(5): utime to cstime). 0
    where there is no /proc."""
    total, to_look_at = 0, [Path(f"/proc/{os.getpid()}")]
    while to_look_at:
        process = to_look_at.pop()
        total += sum(map(int, _read(process / "stat").rpartition(")")[2].split()[11:15]))
        for task in (process / "task").glob("*/children"):
            to_look_at += [Path(f"/proc/{child}") for child in _read(task).split()]
    return total / TICKS


def _read(file: Path) -> str:
    """'' of what has ended meanwhile: its parent has its time."""
    try:
        return file.read_text()
    except OSError:
        return ""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    began = processor_s()
    try:
        return (yield)
    finally:
        item.user_properties.append(("processor_s", round(processor_s() - began, 2)))
        item.user_properties.append(("slow", item.get_closest_marker("slow") is not None))


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(_Watch(config), "pace of tests")


class _Watch:
    """Where the reports come together, of all workers."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.unmarked: dict[str, float] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        told = dict(report.user_properties)
        if report.when != "call" or "processor_s" not in told or hasattr(self.config, "workerinput"):
            return
        taken = float(str(told["processor_s"]))
        if taken > UNMARKED_MAX_S and not told["slow"]:
            self.unmarked[report.nodeid] = taken
        if kept := os.environ.get("DINMO_PACE"):
            with Path(kept).open("a", encoding="utf-8") as file:
                file.write(json.dumps([report.nodeid, taken, told["slow"]]) + "\n")

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        if self.unmarked and exitstatus == 0:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self.unmarked:
            terminalreporter.section(f"slow, by more than {UNMARKED_MAX_S:g} s of processor time, and not marked so")
        for name, taken in sorted(self.unmarked.items(), key=lambda each: -each[1]):
            terminalreporter.line(f"{taken:8.2f} s  {name}")
