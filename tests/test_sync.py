"""A run killed at every call it makes, and what the next run makes of it."""

import pytest
from memory_org import Killed, Match, Mode, Model, Trip, World, activation, fates

BEFORE = [
    {"id": "1", "ext": "e1", "a": "x1", "b": "y"},
    {"id": "2", "ext": "e2", "a": "x2", "b": "y"},
    {"id": "3", "ext": "e3", "a": "x3", "b": "y"},
    {"id": "4", "ext": "e4", "a": "x4", "b": "y"},
]
AFTER = [
    {"id": "1", "ext": "e1", "a": "x1", "b": "y"},
    {"id": "2", "ext": "e2", "a": "x2 new", "b": "y"},
    {"id": "3", "ext": "e3", "a": "x3", "b": "y new"},
    {"id": "5", "ext": "e5", "a": "x5", "b": "y"},
    {"id": "6", "ext": "e6", "a": "x6", "b": "y"},
    {"id": "7", "ext": "e7", "a": "same", "b": "same"},
    {"id": "8", "ext": "e8", "a": "same", "b": "same"},
]

CASES = {
    "insert": activation("insert"),
    "upsert by bulk": activation("upsert", api="bulk"),
    "upsert by collections": activation("upsert"),
    "update by bulk": activation("update", api="bulk", match=Match("ext", "Code__c")),
    "update by collections": activation("update", match=Match("ext", "Code__c")),
    "upsert that creates": activation("upsert", match=Match("ext", "Code__c", create=True)),
}


def prepared(folder, act):
    """A world in which BEFORE was synced and Salesforce knows what an update needs."""
    world = World(folder)
    if act.mode is Mode.UPDATE:
        for row in [*BEFORE, *AFTER]:
            if (row["ext"],) not in world.org.held("Code__c"):
                world.org.add(Code__c=row["ext"], Ext__c=row["ext"])
    run = world.sync(act, Model.of(BEFORE))
    assert run.outcome.succeeded == 4
    return world


def expected(act):
    if act.mode is Mode.INSERT:
        new = [row for row in AFTER if row["id"] != "1"]
        return sorted((row["a"], row["b"]) for row in [*BEFORE, *new])
    gone = [BEFORE[3]]
    rows = [*gone, *AFTER]
    return sorted((row["ext"], row["a"], row["b"]) for row in rows)


def held(world, act):
    if act.mode is Mode.INSERT:
        return world.org.held("A__c", "B__c")
    return world.org.held(act.match.field, "A__c", "B__c")


def assert_all_is_well(world, act, run):
    """One record a key, the right values, no loss, the counts add up, nothing left behind, and then quiet."""
    assert held(world, act) == expected(act)
    assert run.problem is None
    run.check_counts()
    assert fates(run) == {}
    left = [name for name in world.files() if "spool" in name or name.endswith(".tmp")]
    assert left == []
    again = world.plan(act, Model.of(AFTER))
    assert (again.counts.unchanged, again.batches) == (len(AFTER), ())
    present = {key for key, (_, flags) in world.snapshot(act).items() if not flags & 4}
    assert present == {row["id"] for row in AFTER}


def kill_points(seen):
    """After each call; that is before the next one too, so before needs a test only for a commit: it rolls back."""
    for at, call in enumerate(seen):
        if at == 0 or call == "commit":
            yield at, False
        yield at, True


@pytest.mark.parametrize("name", list(CASES))
def test_killed_at_every_call_a_run_is_completed_by_the_next(name, tmp_path):
    act, model = CASES[name], Model.of(AFTER)
    start = prepared(tmp_path / "start", act)
    trip = Trip()
    start.copy(tmp_path / "whole").sync(act, model, trip=trip)
    for at, after in kill_points(trip.seen):
        world = start.copy(tmp_path / f"{at}{after}")
        with pytest.raises(Killed):
            world.sync(act, model, trip=Trip(at, after))
        run = world.sync(act, model)
        try:
            assert_all_is_well(world, act, run)
        except AssertionError as error:
            when = "after" if after else "before"
            raise AssertionError(f"killed {when} call {at} of {trip.seen}: {error}") from error
