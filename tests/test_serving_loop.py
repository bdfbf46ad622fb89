"""serve's loop on a clock that somebody sets: when it looks, and what it says of itself."""

from __future__ import annotations

import io
import sys
import time

import pytest

from dinmo_dbt.cli import service as serving
from dinmo_dbt.cli.console import Console
from dinmo_dbt.cli.health import STUCK_S
from dinmo_dbt.cli.service import Service


class Clocks:
    """The clock on the wall, and the one that nobody sets."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.passed, self.wall = 1000.0, 1_800_000_000.0
        monkeypatch.setattr(time, "time", lambda: self.wall + self.passed)
        monkeypatch.setattr(time, "monotonic", lambda: self.passed)


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> Clocks:
    return Clocks(monkeypatch)


def service() -> Service:
    made = Service(None, Console(), None)  # type: ignore[arg-type]
    made._next_look(time.time() + serving.LOOK_S, serving.LOOK_S)
    made._notice_the_clock()
    return made


@pytest.mark.parametrize("step", [86_400.0, 365 * 86_400.0, 3_600.0])
def test_a_clock_that_is_set_back_puts_no_look_off(clocks: Clocks, step: float) -> None:
    made = service()
    assert not made._is_time()
    clocks.wall -= step
    clocks.passed += serving.LOOK_S - 1
    assert not made._is_time()
    clocks.passed += 1
    assert made._is_time()


@pytest.mark.parametrize("step", [86_400.0, -86_400.0])
def test_a_clock_that_is_set_is_said_once_and_what_is_due_is_looked_for(
    clocks: Clocks, step: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, said = service(), io.StringIO()
    monkeypatch.setattr(sys, "stderr", said)
    clocks.wall += step
    for _ in range(3):
        clocks.passed += 2.0
        made._notice_the_clock()
    assert made._is_time()
    way = "forward, or this machine slept" if step > 0 else "back"
    assert said.getvalue().count("DB539") == 1 and way in said.getvalue()


def test_it_is_stuck_by_the_clock_that_nobody_sets(clocks: Clocks) -> None:
    made = service()
    for step in (-86_400.0, 2 * 86_400.0):
        clocks.wall += step
        assert made.health.report()[0] == 200
    clocks.passed += STUCK_S + 1
    status, told = made.health.report()
    assert (status, told["status"]) == (503, "stuck")
