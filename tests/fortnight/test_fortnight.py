"""A small share of what `make fortnight` plays, and whether it could find anything."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from . import planting
from .__main__ import played
from .judge import cron_moments
from .play import Fortnight, as_ever
from .process import Process, database, numbered
from .world import HOUR, LOGIN, Trouble, World


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_around_the_change_of_the_clocks_each_due_run_is_made_once_and_reported_once(seed: int) -> None:
    met, broken = played(seed, days=1.0, fewer=4)
    assert broken == [], f"seed {seed}"
    for each in ("runs every", "runs cron", "runs after_dbt", "processes killed", "told warnings", "told recoveries"):
        assert met[each], f"the days are too calm: no {each}"


@pytest.mark.slow
def test_a_seed_is_one_story_to_the_letter() -> None:
    assert played(3, days=0.5, fewer=8) == played(3, days=0.5, fewer=8)


@pytest.mark.parametrize(
    ("line", "day", "expected"),
    [
        ("30 2 * * *", (2026, 3, 29), ["01:00"]),  # skipped: right after
        ("30 2 * * *", (2026, 10, 25), ["00:30"]),  # repeated: once
        ("10 2-4 * * *", (2026, 3, 29), ["01:00", "01:10", "02:10"]),
        ("0 * * * *", (2026, 10, 25), [f"{hour:02}:00" for hour in range(6)]),
    ],
)
def test_the_judge_knows_what_debian_does(line: str, day: tuple[int, int, int], expected: list[str]) -> None:
    start = datetime(*day, tzinfo=UTC).timestamp() - 1
    found = cron_moments(line, "Europe/Paris", start, start + 5 * 3600 + 60)
    assert [datetime.fromtimestamp(moment, UTC).strftime("%H:%M") for moment in found] == expected


# What fortnights broke on the way here, each as the smallest story of its own.


@pytest.fixture
def story(tmp_path: Path) -> Iterator[Fortnight]:
    """A quiet world: every activation is seen, has run, and nothing goes wrong by itself."""
    world = World(0, tmp_path / "world", days=1.0, fewer=8)
    world.troubles.clear()
    (world.folder / "scratch").mkdir(parents=True)
    (world.folder / "target").mkdir()
    fortnight = Fortnight(world)
    fortnight.calm = True
    with numbered(fortnight.tokens), as_ever(fortnight):
        fortnight.command("due")
        yield fortnight
    fortnight.judge.observe()


def beside(fortnight: Fortnight, what: str, name: str = "") -> Process:
    """A look, beside whose first wait for a reply another command runs from start to end."""
    begun: list[str] = []

    def aside(process: Process) -> None:
        if not begun:
            begun.append(what)
            fortnight.command(what, name)

    fortnight.aside = aside
    return fortnight.command("due")


def ended(fortnight: Fortnight, since: float) -> Counter[str]:
    with closing(sqlite3.connect(database(fortnight.world))) as connection:
        rows = connection.execute("SELECT name FROM run WHERE started >= ? AND finished IS NOT NULL", (since,))
        return Counter(name for (name,) in rows)


@pytest.mark.parametrize("trouble", ["", LOGIN])
def test_of_two_looks_at_once_one_runs_what_is_due_even_if_no_login_is_answered(story: Fortnight, trouble: str) -> None:
    world = story.world
    world.pass_time(2 * HOUR)
    if trouble:
        world.troubles += [Trouble(trouble, org, world.now, world.end) for org in world.orgs]
    since = world.now
    beside(story, "due")
    found = ended(story, since)
    assert found and set(found.values()) == {1}


def test_a_pause_by_hand_while_others_run_holds(story: Fortnight) -> None:
    world = story.world
    world.pass_time(2 * HOUR)
    hourly = next(a.name for a in world.activations if a.schedule.every_s == HOUR)
    beside(story, "pause", hourly)
    assert (paused := story.judge.books[hourly].paused) and not paused.by_itself


def paused_and_mended(story: Fortnight) -> str:
    """An activation that has paused by itself, for a reason that is over by now."""
    world = story.world
    declared = next(a for a in world.activations if a.schedule.kind == "every" and a.auto_pause)
    world.troubles.append(Trouble("schema", declared.name, world.now, world.now + 5 * HOUR))
    while story.judge.books[declared.name].paused is None:
        world.pass_time(HOUR)
        story.command("due")
    world.pass_time(6 * HOUR)
    return declared.name


def test_a_pause_by_hand_while_it_is_about_to_resume_by_itself_holds(story: Fortnight) -> None:
    name = paused_and_mended(story)
    before = ended(story, 0.0)[name]

    def aside(process: Process) -> None:
        if process.at == name:
            story.aside = lambda process: None
            story.command("pause", name)

    story.aside = aside
    story.command("due")
    assert (paused := story.judge.books[name].paused) and not paused.by_itself
    assert ended(story, 0.0)[name] == before


def test_what_resumes_by_itself_and_is_killed_before_it_has_run_runs_at_the_next_start(story: Fortnight) -> None:
    name = paused_and_mended(story)
    before = ended(story, 0.0)[name]

    def aside(process: Process) -> None:
        story.judge.observe()
        if story.judge.books[name].paused is None:
            story.aside = lambda process: None
            process.die("once it had resumed")

    story.aside = aside
    assert story.command("due").dead
    assert ended(story, 0.0)[name] == before
    story.command("due")
    assert ended(story, 0.0)[name] == before + 1


def test_of_two_commands_at_once_one_sends(story: Fortnight) -> None:
    world = story.world
    world.troubles += [Trouble(LOGIN, org, world.now, world.end) for org in world.orgs]
    world.pass_time(2 * HOUR)
    sent = len(world.taken)

    def aside(process: Process) -> None:
        if process.unrecorded or len(world.taken) == sent + 1:
            story.aside = lambda process: None
            story.command("due")

    story.aside = aside
    story.command("due")
    times = Counter((taken.notice.id, taken.place) for taken in world.taken[sent:])
    assert times and set(times.values()) == {1}


@pytest.mark.parametrize("planted", planting.every(), ids=lambda planted: planted.name)
def test_each_planted_fault_has_its_place(planted: planting.Planted) -> None:
    assert (planting.ROOT / planted.file).read_text(encoding="utf-8").count(planted.old) == 1


@pytest.mark.slow
def test_a_planted_fault_is_found() -> None:
    planted = next(each for each in planting.every() if each.name == "runs_in_quiet_hours")
    assert planting.found(planted, 3) is not None
