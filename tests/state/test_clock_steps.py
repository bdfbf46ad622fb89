"""A machine's clock that is set, ahead by a day or a year, and back: nothing expires by it, nothing waits for it."""

from __future__ import annotations

from pathlib import Path

import pytest
from memory_org import Model, World, activation

from dinmo_dbt.destination import RESULTS
from dinmo_dbt.errors import StateError
from dinmo_dbt.plan.plan import LEFT_OUT
from dinmo_dbt.state import imaging, runs, trace
from dinmo_dbt.watch.history import RunRecord

DAY, YEAR = 86_400.0, 365 * 86_400.0
ORG = "00D000000000001EAA"
ROWS = [{"id": str(n), "ext": f"x{n}", "a": f"a{n}", "b": "b"} for n in range(7)]


def finish(world: World, run_id: str, status: str = "success", *, by_age: bool = True) -> None:
    at = world.clock.now()
    record = RunRecord(run_id, "things", "dev", ORG, at, at + 1, status)
    world.state().history.finish(record, LEFT_OUT.empty_table(), by_age=by_age)


@pytest.mark.parametrize("ahead", [DAY, YEAR])
def test_the_run_that_came_last_is_the_last_whatever_the_clock_said(tmp_path: Path, ahead: float) -> None:
    world = World(tmp_path / "s")
    for run_id, step in (("a", 10.0), ("b", ahead), ("c", -ahead), ("d", 10.0)):
        world.clock.ahead += step
        finish(world, run_id)
    assert [run.run_id for run in world.state().history.latest()] == ["d", "c", "b", "a"]


def test_by_a_clock_that_is_not_the_org_s_no_run_expires_and_by_the_right_one_it_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "KEPT_MIN", 2)
    world = World(tmp_path / "s")
    for number in range(4):
        finish(world, f"r{number}")
    world.clock.ahead += YEAR
    finish(world, "ahead", by_age=False)
    assert len(world.state().history.latest()) == 5
    finish(world, "right")
    assert [run.run_id for run in world.state().history.latest()] == ["right", "ahead"]


def test_what_is_still_to_come_counts_as_now_once_and_small_steps_are_let_be(tmp_path: Path) -> None:
    world = World(tmp_path / "s")
    activity = world.state().activity("dev")
    world.clock.ahead += YEAR
    activity.see(["things"])
    activity.owe({"things": "build"})
    assert activity.put_back() == 0.0
    world.clock.ahead -= YEAR
    assert activity.put_back() == YEAR
    past = activity.pasts(["things"])["things"]
    assert (past.since, past.owed_at, past.owed) == (world.clock.now(), world.clock.now(), "build")
    assert activity.put_back() == 0.0
    world.clock.ahead -= 60.0
    assert activity.put_back() == 0.0
    assert activity.pasts(["things"])["things"].since == world.clock.now() + 60.0


@pytest.mark.parametrize("ahead", [DAY, YEAR])
def test_a_lease_that_a_clock_ahead_wrote_keeps_nobody_out(tmp_path: Path, ahead: float) -> None:
    world, act = World(tmp_path / "s"), activation()
    world.sync(act, Model.of(ROWS))
    world.clock.ahead += ahead
    with world.state().locked(ORG, act) as hung:
        world.clock.ahead -= ahead
        with world.state().locked(ORG, act):
            pass
        with pytest.raises(StateError, match="DB503"):
            hung.hold()


def test_what_the_state_knows_of_its_own_jobs_does_not_expire_by_a_clock_that_ran_ahead_or_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, act = World(tmp_path / "s"), activation(api="bulk")

    def run(version: str, step: float) -> frozenset[str]:
        world.clock.ahead += step
        world.sync(act, Model.of([{**row, "a": version} for row in ROWS]))
        return world.state().view(ORG, act).known_jobs()

    assert [len(run(version, step)) for version, step in (("1", 0), ("2", YEAR), ("3", -2 * YEAR), ("4", YEAR))] == [
        1, 2, 3, 4,
    ]  # fmt: skip
    monkeypatch.setattr(trace, "TRACE_MIN", 1)
    world.clock.ahead += YEAR
    with world.state().locked(ORG, act) as state:
        assert len(state.known_jobs()) == 1


def test_a_run_that_lives_renews_its_lease_as_soon_as_the_clock_is_set(tmp_path: Path) -> None:
    world, act = World(tmp_path / "s"), activation()
    world.sync(act, Model.of(ROWS))
    with world.state().locked(ORG, act) as state:
        world.clock.ahead = -DAY
        state.hold()
        with pytest.raises(StateError, match="DB501"), world.state().locked(ORG, act):
            pass


def test_a_row_that_waits_for_a_moment_of_a_clock_ahead_is_tried_again(tmp_path: Path) -> None:
    world, act = World(tmp_path / "s"), activation(api="bulk")
    world.org.refuse = lambda row: "FIELD_CUSTOM_VALIDATION_EXCEPTION:no:A__c --" if row.get("A__c") == "bad" else None
    bad = Model.of([{**ROWS[0], "a": "bad"}, *ROWS[1:]])
    world.clock.ahead += YEAR
    for _ in range(4):
        world.sync(act, bad)
    assert not world.state().view(ORG, act).pending.due.all()
    world.clock.ahead -= YEAR
    assert world.state().view(ORG, act).pending.due.all()


def test_images_of_the_latest_runs_are_kept_whatever_the_clock_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imaging, "RUNS_KEPT", 2)
    world, rows = World(tmp_path / "s"), RESULTS.empty_table()
    files = world.state().files
    for run_id in ("20260101T000000-aaaaaa", "20270101T000000-bbbbbb", "20260102T000000-cccccc"):
        imaging.keep(files, "images/o/a", run_id, rows)
        files.remove("images/o/a", imaging.expired(files, "images/o/a"))
    kept = [name.split("-")[2] for name in sorted(files.names("images/o/a"))]
    assert kept == ["bbbbbb", "cccccc"]
