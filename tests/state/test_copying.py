"""A state that is copied to another place: whole or not at all, and nothing is sent twice after it."""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from memory_org import ORG, OWN, Killed, Model, Trip, World, activation, own

from dinmo_dbt.errors import StateError
from dinmo_dbt.state import Store
from dinmo_dbt.state.copying import copy
from dinmo_dbt.state.files import LocalFiles
from dinmo_dbt.state.local import LocalState

ROWS = [{"id": str(n), "ext": f"e{n}", "a": "x", "b": "y"} for n in range(7)]
INSERT = activation("insert", name="made")
NEW_ROW = {"id": "7", "ext": "e7", "a": "x", "b": "y"}


def beside(world: World, other: World) -> World:
    """The other place, of the same org and time."""
    other.org, other.clock, other.runs, other.target = world.org, world.clock, world.runs, world.target
    return other


def lived(world: World) -> World:
    """An upsert with deltas, images and a rejected row that waits, an insert, and a pause."""
    keeping = activation(keep_before_images=True)
    world.sync(INSERT, Model.of(ROWS))
    world.sync(keeping, Model.of([dict(row) for row in ROWS]))
    world.sync(keeping, Model.of([{**row, "a": "z"} if row["id"] == "3" else dict(row) for row in ROWS]))
    world.state().activity(world.target).pause("made", "by hand")
    return world


def now_rows() -> Model:
    return Model.of([{**row, "a": "z"} if row["id"] == "3" else dict(row) for row in ROWS])


def goes_on(world: World, before: World) -> None:
    """Nothing is sent again, and what is new is sent once."""
    known = before.org.records["Thing__c"]
    count = len(known)
    keeping = activation(keep_before_images=True)
    assert world.plan(keeping, now_rows()).counts.planned == 0
    assert world.plan(INSERT, Model.of(ROWS)).counts.planned == 0
    world.runs = 50
    assert world.sync(keeping, now_rows()).outcome.succeeded == 0
    assert world.sync(INSERT, Model.of([*ROWS, NEW_ROW])).outcome.succeeded == 1
    assert len(before.org.records["Thing__c"]) == count + 1


def told(store: Store) -> tuple[object, ...]:
    """All that a place says of its target, but for who holds it."""
    rows = [[*known.id, known.serial, known.rows, known.pending, known.kept_serials] for known in store.known()]
    runs = [run.as_text() for run in store.history.latest()]
    return rows, runs, store.activity(store.target).pauses(), store.known_lineage()


def refused(store: Store, code: str) -> bool:
    try:
        store.refuse_copied()
        with store.locked(ORG, activation()):
            return False
    except StateError as error:
        assert error.problems[0].code == code, error
        return True


@pytest.mark.slow
@pytest.mark.parametrize("way", ["there", "back"])
def test_the_whole_state_is_copied_and_the_old_place_is_left(new_world: Callable[[], World], tmp_path, way):
    folder = World(tmp_path / "folder")
    old, new = (folder, new_world()) if way == "there" else (new_world(), folder)
    lived(old)
    before = told(old.state())
    beside(old, new)
    assert copy(old.state(), new.state()) == sorted([OWN, own("made")])
    assert told(new.state()) == before
    assert refused(old.state(), "DB533")
    goes_on(new, old)
    with new.state().locked(ORG, activation(keep_before_images=True)) as state:
        assert state.image("run0003") is not None

    with pytest.raises(StateError, match=r"DB534.*it was copied to"):
        copy(old.state(), new.state())
    copy(new.state(), old.state())
    assert refused(new.state(), "DB533")
    old.runs = 90
    assert old.plan(INSERT, Model.of([*ROWS, NEW_ROW])).counts.planned == 0
    assert old.sync(activation(), now_rows()).outcome.succeeded == 0


@pytest.mark.slow
def test_a_copy_is_refused_while_rows_are_in_flight_or_a_run_is_at_work(new_world: Callable[[], World], tmp_path):
    old, new = new_world(), World(tmp_path / "new")
    probe, act = Trip(), activation(api="bulk")
    new_world().sync(act, Model.of(ROWS), trip=probe)
    at = next(n for n, step in enumerate(probe.seen) if "close" in str(step))
    with pytest.raises(Killed):
        old.sync(act, Model.of(ROWS), trip=Trip(at=at))
    old.clock.time += 1300  # its lease
    with pytest.raises(StateError, match=r"DB534.*in flight: 7 of things"):
        copy(old.state(), new.state())
    assert not new.state().known()
    old.sync(act, Model.of(ROWS))
    with old.state().locked(ORG, act), pytest.raises(StateError, match="DB501"):
        copy(old.state(), new.state())
    with pytest.raises(StateError, match=r"DB534.*no state to copy"):
        copy(World(tmp_path / "none").state(), new.state())


def test_a_place_that_holds_a_state_is_not_written_over(new_world: Callable[[], World], tmp_path):
    old, new = World(tmp_path / "old"), new_world()
    lived(old)
    new.sync(activation(), Model.of(ROWS))
    before = told(new.state())
    with pytest.raises(StateError, match=r"DB534.*has a state of dbt target dev already: things"):
        copy(old.state(), new.state())
    assert told(new.state()) == before
    assert not refused(old.state(), "DB533") and not refused(new.state(), "DB533")


def test_each_target_is_copied_by_itself_and_two_states_do_not_become_one(new_world: Callable[[], World], tmp_path):
    old, new = World(tmp_path / "old"), new_world()
    lived(old)
    old.target = "prod"
    old.sync(activation(), Model.of(ROWS))
    copy(old.state(), beside(old, new).state())
    assert {known.target for known in new.state().known()} == {"prod"}
    assert new.sync(activation(), Model.of(ROWS)).outcome.succeeded == 0
    old.target = new.target = "dev"
    assert not refused(old.state(), "DB533"), "only prod is left"
    copy(old.state(), new.state())
    assert {known.target for known in new.state().known()} == {"dev", "prod"}

    stranger = World(tmp_path / "stranger", target="qa")
    stranger.sync(activation(), Model.of(ROWS))
    new.target = "qa"
    with pytest.raises(StateError, match=r"DB534.*two can't become one"):
        copy(stranger.state(), new.state())
    assert not refused(stranger.state(), "DB533")


def test_a_damaged_file_is_not_copied(new_world: Callable[[], World], tmp_path):
    old, new = World(tmp_path / "old"), new_world()
    lived(old)
    path = next((tmp_path / "old" / "snapshots" / OWN.folder).glob("*.parquet"))
    path.write_bytes(path.read_bytes()[:-9] + b"x" * 9)
    with pytest.raises(StateError, match="DB513"):
        copy(old.state(), new.state())
    assert refused(new.state(), "DB533")
    path.unlink()
    with pytest.raises(StateError, match="DB513"):
        copy(old.state(), new.state())
    assert old.state().known()[0].held_by is None


def killed_at(at: int, old: Path, new: Path, clock: object) -> bool:
    """A process that copies, and is killed at that step; whether it was."""
    child = os.fork()
    if child == 0:
        steps = itertools.count()

        def watched(method):
            def stepped(*given, **named):
                if next(steps) == at:
                    os.kill(os.getpid(), signal.SIGKILL)
                return method(*given, **named)

            return stepped

        try:
            LocalFiles.put = watched(LocalFiles.put)  # type: ignore[method-assign]
            LocalState.connection = watched(LocalState.connection)  # type: ignore[method-assign]
            copy(LocalState(old, clock, target="dev"), LocalState(new, clock, target="dev"))
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


@pytest.mark.slow
def test_killed_at_any_step_one_place_counts_and_the_next_copy_ends_it(tmp_path):
    first = lived(World(tmp_path / "first"))
    seen = set()
    for at in itertools.count():
        old = first.copy(tmp_path / f"old{at}")
        new = beside(old, World(tmp_path / f"new{at}"))
        was_killed = killed_at(at, old.folder, new.folder, old.clock)
        assert was_killed or at > 15, at
        states = (refused(old.state(), "DB533"), refused(new.state(), "DB533"))
        seen.add(states)
        if not was_killed:
            assert states == (True, False)
            break
        before = told(old.state())
        if states != (True, False):
            copy(old.state(), new.state())
        assert told(new.state()) == before
        assert new.plan(activation(), now_rows()).counts.planned == 0
        assert new.plan(INSERT, Model.of([*ROWS, NEW_ROW])).counts.planned == 1
    assert seen == {(False, False), (False, True), (True, True), (True, False)}


@pytest.mark.slow
def test_cut_off_at_any_commit_it_is_ended_by_the_next_copy(new_world: Callable[[], World], tmp_path):
    """As above, for every kind of place, by an error in the place of a kill."""
    old = lived(World(tmp_path / "old"))
    new = beside(old, new_world())
    for at, after in itertools.product(range(5), (False, True)):
        trip = Trip(at=at, after=after)
        try:
            copy(old.state(), new.state(trip))
        except Killed:
            assert refused(old.state(), "DB533") or old.plan(INSERT, Model.of(ROWS)).counts.planned == 0
        else:
            break
    assert len(trip.seen) <= at
    assert refused(old.state(), "DB533") and not refused(new.state(), "DB533")
    assert new.plan(INSERT, Model.of([*ROWS, NEW_ROW])).counts.planned == 1
