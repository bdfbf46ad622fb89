"""`give_up_after`: a row that Salesforce refuses for that long is left, by the org's clock, and never forgotten."""

from __future__ import annotations

from pathlib import Path

import pytest
from memory_org import FieldMapping, Model, World, activation

from dinmo_dbt.delivery.run import Status
from dinmo_dbt.plan.guards import Ceilings

DAY = 86_400.0
NOON = 1_780_000_000.0
ORG = "00D000000000001EAA"
ROWS = [{"id": str(n), "ext": f"e{n}", "a": "x", "b": "y"} for n in range(4)]
BAD = Model.of([{**ROWS[0], "a": "bad"}, *ROWS[1:]])
WAYS = {
    "insert": activation("insert", fields=(FieldMapping("a", "A__c"),), on_change="ignore", give_up_after=30 * DAY),
    "upsert": activation(give_up_after=30 * DAY),
    "upsert by bulk": activation(api="bulk", give_up_after=30 * DAY),
}


def refusing(folder: Path) -> World:
    world = World(folder / "s")
    world.org.refuse = lambda row: "FIELD_CUSTOM_VALIDATION_EXCEPTION:no:A__c --" if row.get("A__c") == "bad" else None
    world.org.org_time = NOON
    return world


def at(world: World, days: float) -> None:
    world.org.org_time = NOON + days * DAY


def told(run):
    rows = [row for table in run.not_delivered for row in table.to_pylist()]
    return {row["key"]: (row["fate"], row["code"]) for row in rows}


@pytest.mark.slow
@pytest.mark.parametrize("act", WAYS.values(), ids=WAYS)
def test_a_row_that_is_refused_for_so_long_is_named_and_not_tried(act, tmp_path):
    world = refusing(tmp_path)
    key = str(ROWS[0]["id"])
    assert world.sync(act, BAD).status is Status.REJECTED
    for day in (1, 2, 10, 29.9):
        at(world, day)
        assert world.sync(act, BAD).status is Status.REJECTED
    tried = world.org.writes.total()
    for number in range(40):
        at(world, 30 + number)
        run = world.sync(act, BAD)
        assert (run.status, told(run)) == (Status.SUCCESS, {key: ("held", "GIVEN_UP")})
    assert world.org.writes.total() == tried
    (known,) = world.state().known()
    assert (known.pending, known.given_up) == (0, 1)
    (row,) = [row for table in run.not_delivered for row in table.to_pylist()]
    assert "2026-05-28 (FIELD_CUSTOM_VALIDATION_EXCEPTION)" in row["shown"]


@pytest.mark.slow
@pytest.mark.parametrize("act", WAYS.values(), ids=WAYS)
def test_it_is_tried_again_when_its_values_change_or_somebody_asks(act, tmp_path):
    world = refusing(tmp_path)
    key = str(ROWS[0]["id"])
    world.sync(act, BAD)
    at(world, 31)
    assert world.sync(act, BAD).status is Status.SUCCESS
    with world.state().locked(ORG, act) as state:
        assert state.retry_now() == 1
    run = world.sync(act, BAD)
    assert (run.status, told(run)[key][0]) == (Status.REJECTED, "rejected")
    assert told(world.sync(act, BAD)) == {key: ("held", "GIVEN_UP")}
    if act.mode.value != "insert":
        assert world.sync(act, BAD, Ceilings(full=True)).status is Status.REJECTED
    for other in ("worse", "good"):
        world.org.refuse = lambda row: "X:no:A__c --" if row.get("A__c") in ("bad", "worse") else None
        run = world.sync(act, Model.of([{**ROWS[0], "a": other}, *ROWS[1:]]))
        assert run.status is (Status.REJECTED if other == "worse" else Status.SUCCESS)
    for _ in range(40):
        world.sync(act, Model.of([{**ROWS[0], "a": "good"}, *ROWS[1:]]))
    (known,) = world.state().known()
    assert (known.pending, known.given_up) == (0, 0)


def test_without_it_or_with_a_longer_one_it_is_tried(tmp_path):
    world, act = refusing(tmp_path), WAYS["upsert"]
    world.sync(act, BAD)
    at(world, 31)
    assert world.sync(act, BAD).status is Status.SUCCESS
    for other in (activation(), activation(give_up_after=300 * DAY)):
        assert world.sync(other, BAD).status is Status.REJECTED


@pytest.mark.parametrize("step", [400 * DAY, -400 * DAY])
def test_the_machines_clock_decides_nothing(step, tmp_path):
    world, act = refusing(tmp_path), WAYS["upsert"]
    world.clock.ahead += step
    assert world.sync(act, BAD).status is Status.REJECTED
    world.clock.ahead -= step
    assert world.sync(act, BAD).status is Status.REJECTED
    world.clock.ahead += 2 * step
    assert world.sync(act, BAD).status is Status.REJECTED


def test_an_org_that_does_not_tell_the_time_gives_nothing_up(tmp_path):
    world, act = refusing(tmp_path), WAYS["upsert"]
    world.org.org_time = None
    assert world.sync(act, BAD).status is Status.REJECTED
    at(world, 400)
    assert world.sync(act, BAD).status is Status.REJECTED, "it is not known since when"
    world.org.org_time = None
    assert world.sync(act, BAD).status is Status.REJECTED
