"""The org's clock: stopped, moved, run again, and read at another moment."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

from dinmo_dbt.emulator.clock import Clock

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def test_a_stopped_clock_moves_only_when_asked_to() -> None:
    clock = Clock(NOON)
    assert clock.stopped and clock() == clock() == NOON
    clock.advance(90.5)
    assert clock() == NOON + timedelta(seconds=90.5)
    clock.advance(-90.5)
    assert clock() == NOON
    clock.set(datetime(2038, 1, 19, 4, 14, 8, tzinfo=timezone(timedelta(hours=1))))
    assert clock() == datetime(2038, 1, 19, 3, 14, 8, tzinfo=UTC)


def test_a_running_clock_goes_on_from_where_it_was_put() -> None:
    clock = Clock()
    assert not clock.stopped and abs(clock() - datetime.now(UTC)) < timedelta(seconds=5)
    clock.set(NOON)
    assert NOON <= clock() < NOON + timedelta(seconds=5)
    clock.advance(3600)
    clock.stop()
    stood = clock()
    assert clock() == stood and stood - NOON >= timedelta(hours=1)
    clock.run()
    assert stood <= clock() < stood + timedelta(seconds=5)


def test_a_moment_can_be_read_for_a_while() -> None:
    clock = Clock(NOON)
    with clock.at(NOON - timedelta(days=1)):
        assert clock() == NOON - timedelta(days=1)
    assert clock() == NOON
