"""The machine's clock is set, ahead and back, by an hour to a year: what is due runs all the same, and nothing is lost.

Steps are drawn; the laws are in the time that really passes."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from dinmo_dbt.activation import ScheduleKind
from dinmo_dbt.cli import recording
from dinmo_dbt.cli.commands.sync import sync_due
from dinmo_dbt.cli.options import Gating
from dinmo_dbt.config.project import Project
from dinmo_dbt.plan.guards import Ceilings
from dinmo_dbt.state import activity, runs

from .process import Process, SimulatedSession, Tokens, numbered
from .world import DAY, HOUR, MINUTE, World

STEPS = (HOUR, -HOUR, DAY, -DAY, 365 * DAY, -365 * DAY)
LOOKS = 40


class Broken(AssertionError):
    """A law does not hold."""


def walk(seed: int, folder: Path) -> None:
    """Looks on a clock that is set now and then, and the laws after each."""
    rng, world = random.Random(seed), World(seed, folder, days=2, fewer=6)
    world.troubles, world.project = [], _kept_long(world)
    for name in ("scratch", "target"):
        (folder / name).mkdir(parents=True)
    tokens, began, step_at = Tokens(), dict.fromkeys(world.by_name, world.now), world.now
    watched = [
        a for a in world.activations if a.schedule.kind is ScheduleKind.EVERY and not a.quiet_hours and a.enabled
    ]
    seen: list[str] = []
    with numbered(tokens):
        for number in range(LOOKS):
            world.pass_time(rng.uniform(MINUTE, HOUR))
            if rng.random() < 0.2:
                world.ahead, step_at = world.ahead + rng.choice(STEPS), world.now
            process = Process(world, number, "due", None)
            tokens.live.append(process)
            session = SimulatedSession(process)
            with session:
                sync_due(session, Ceilings(), Gating())
            found = session.state.history.latest(None, 10_000)
            for record in found:
                if record.run_id in process.run_ids:
                    began[record.activation] = world.now
            seen += process.run_ids
            kept = [record.run_id for record in reversed(found)]
            if kept != seen:
                raise Broken(f"{len(seen)} runs, kept: {len(kept)}, in the order in which they ran: {kept == seen}")
            for each in watched:
                if world.now - max(began[each.name], step_at) > 2 * each.schedule.every_s + HOUR:
                    raise Broken(f"{each.name} has not run for {(world.now - began[each.name]) / HOUR:.0f} hours")


def _kept_long(world: World) -> Project:
    return replace(world.project, history_s=90 * DAY, channels=())


SEEDS = range(4)


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "KEPT_MIN", 2)


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_whatever_the_clock_is_set_to_what_is_due_runs_and_no_run_is_forgotten(seed: int, tmp_path: Path) -> None:
    walk(seed, tmp_path)


def not_put_back(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(activity.Activity, "put_back", lambda self: 0.0)


def any_clock_is_right(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(recording.Recorder, "_clock_is_right", lambda self: True)


def ordered_by_the_clock(patch: pytest.MonkeyPatch) -> None:
    insert = runs._insert

    def by_clock(connection: object, record: runs.RunRecord) -> None:
        insert(connection, record)  # type: ignore[arg-type]
        connection.execute("UPDATE run SET number = ? WHERE id = ?", (int(record.started), record.run_id))  # type: ignore[attr-defined]

    patch.setattr(runs, "_insert", by_clock)


@pytest.mark.slow
@pytest.mark.parametrize("plant", [not_put_back, any_clock_is_right, ordered_by_the_clock])
def test_a_planted_fault_is_found(
    plant: Callable[[pytest.MonkeyPatch], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    with pytest.raises(Broken):
        for seed in SEEDS:
            walk(seed, tmp_path / str(seed))
