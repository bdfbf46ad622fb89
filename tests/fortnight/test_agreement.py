"""Exit code, results file, history and health agree with what is undelivered, whatever comes together in one sync."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from dinmo_dbt.cli import health, syncing
from dinmo_dbt.cli.options import Gating
from dinmo_dbt.cli.syncing import sync_chosen
from dinmo_dbt.plan.guards import Ceilings
from dinmo_dbt.watch.history import RunRecord

from .process import Process, SimulatedSession, Tokens, numbered
from .world import DAY, HOUR, LOGIN, Trouble, World

CODES = {"success": 0, "rejected": 3, "unknown": 6, "failed": 1, "refused": 4, "blocked": 4, "skipped": 0, "paused": 4}
ORDER = (7, 5, 6, 1, 2, 4, 3, 0)
TROUBLES = ("", "", "schema", "empty", "twice", "bad", "read", "cut")


class Broken(AssertionError):
    """Two of them tell different things."""


def play(seed: int, folder: Path) -> None:
    rng, world = random.Random(seed), World(seed, folder, days=2, fewer=6)
    for name in ("scratch", "target"):
        (folder / name).mkdir(parents=True)
    tokens = Tokens()
    with numbered(tokens):
        for number in range(5):
            world.pass_time(rng.uniform(HOUR, 6 * HOUR))
            world.troubles = [
                Trouble(kind, name, 0.0, world.end + DAY)
                for name in world.by_name
                if number and (kind := rng.choice(TROUBLES))
            ]
            if rng.random() < 0.3:
                world.troubles.append(Trouble(LOGIN, rng.choice(sorted(world.orgs)), 0.0, world.end + DAY))
            process = Process(world, number, "hand", None)
            tokens.live.append(process)
            with SimulatedSession(process) as session:
                code = sync_chosen(session, session.chosen, Ceilings(), Gating())
                agree(world, process, session, code)


def agree(world: World, process: Process, session: SimulatedSession, code: int) -> None:
    results = json.loads((world.folder / "target" / "dinmo_run_results.json").read_bytes())["results"]
    statuses = {each["activation"]: each["status"] for each in results}
    if set(statuses) != {each.name for each in session.chosen}:
        raise Broken("an activation has no result")
    latest = {name: next(iter(session.state.history.latest([name], 1)), None) for name in statuses}
    if code != next(
        each for each in ORDER if each in {code_of(status, latest[name]) for name, status in statuses.items()}
    ):
        raise Broken(f"exit {code}, and {sorted(set(statuses.values()))}")
    told = {each.activation: each for each in health.undelivered(session)}
    known = health.Health(undelivered=tuple(told.values())).report()[1]
    for name, status in statuses.items():
        last = latest[name]
        if status != "skipped" and (last is None or last.status != status):
            raise Broken(f"{name}: {status}, and in the history {last and last.status}")
        delivered = status != "skipped" and status == "success" and is_delivered(world, process, name)
        if status == "success":
            world.done.add(name)
            if not delivered and not (last and last.waiting_rows):  # held after a rejection, as docs and health say
                raise Broken(f"{name} is a success, and rows of it are not in the org")
        if status != "skipped" and (name in told) == delivered:
            raise Broken(f"{name}: {status}, delivered: {delivered}; health tells of it: {name in told}")
    if bool(told) == (known["status"] == "ok"):
        raise Broken(f"health is {known['status']}, and {len(told)} are undelivered")


def code_of(status: str, last: RunRecord | None) -> int:
    """A field that is gone is a mistake in the configuration."""
    of_schema = status == "failed" and last is not None and last.problem is not None and last.problem.code[:3] == "DB3"
    return 2 if of_schema else CODES[status]


def is_delivered(world: World, process: Process, name: str) -> bool:
    declared = world.by_name[name]
    held = world.orgs[declared.destination].records[declared.object].values()
    rows = process.met[name].table.to_pylist()
    return {(row["ext"], row["a"]) for row in rows} <= {(each.get("Ext__c"), each.get("A__c")) for each in held}


SEEDS = range(4)


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_what_is_reported_is_what_is_delivered(seed: int, tmp_path: Path) -> None:
    play(seed, tmp_path)


def order_forgotten(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(syncing, "worst", max)


def health_sees_failures_alone(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(health, "_status", lambda run: run.status if run.status == "failed" else "")


@pytest.mark.parametrize("plant", [order_forgotten, health_sees_failures_alone])
def test_a_planted_fault_is_found(
    plant: Callable[[pytest.MonkeyPatch], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    with pytest.raises(Broken):
        for seed in SEEDS:
            play(seed, tmp_path / str(seed))
