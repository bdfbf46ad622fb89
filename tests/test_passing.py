"""Unique values that pass from one record to another: in one run, with nothing lost, whenever the run ends."""

from __future__ import annotations

import dataclasses
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from emulator.deep import examples
from hypothesis import given
from hypothesis import strategies as st
from memory_org import THING, FieldMapping, Killed, Match, MemoryOrg, Model, Trip, World, activation, fates

from dinmo_dbt.activation import Activation
from dinmo_dbt.delivery.run import SyncRun

UNIQUE = (FieldMapping("a", "A__c"), FieldMapping("u", "Unique__c"))
WAYS = {
    "the match, by collections": activation("upsert"),
    "the match, by bulk": activation("upsert", api="bulk"),
    "a mapped field, by collections": activation("update", match=Match("code", "Code__c"), fields=UNIQUE),
    "a mapped field, by bulk": activation("update", match=Match("code", "Code__c"), fields=UNIQUE, api="bulk"),
    "a mapped field of an upsert": activation("upsert", match=Match("code", "Ext__c"), key=("code",), fields=UNIQUE),
}


def rows_of(values: dict[str, str | None]) -> list[dict[str, str | None]]:
    """By key the unique value; what else there is stays with the key."""
    return [
        {"id": key, "code": f"c{key}", "ext": value, "u": value, "a": f"a{key}", "b": "y"}
        for key, value in values.items()
    ]


def world_of(folder: Path, act: Activation, values: dict[str, str | None]) -> World:
    """An org whose records of those keys hold these values, all acknowledged."""
    folder.mkdir(parents=True)
    world = World(folder)
    if act.mode == "update":
        for key, value in values.items():
            world.org.add(Code__c=f"c{key}", A__c="before", Unique__c=None if value is None else f"old {value}")
    run = world.sync(act, Model.of(rows_of(values)))
    assert run.outcome.succeeded == len(values)
    return world


def held(world: World, act: Activation) -> dict[str, tuple[str, str | None]]:
    """By key: its record, and the unique value that holds. A key is told by what never passes."""
    name = "Ext__c" if act.match and act.match.column == "ext" else "Unique__c"
    return {str(r["A__c"]): (i, r.get(name)) for i, r in world.org.records["Thing__c"].items()}


def assert_passed(world: World, act: Activation, before: dict[str, tuple[str, str | None]], after: dict) -> None:
    assert held(world, act) == {f"a{key}": (before[f"a{key}"][0], value) for key, value in after.items()}
    assert world.plan(act, Model.of(rows_of(after))).counts.unchanged == len(after)


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    if not os.access("/dev/shm", os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield Path(folder)


START = {"1": "v1", "2": "v2", "3": "v3", "4": "v4"}
PASSES = {
    "a swap": {**START, "1": "v2", "2": "v1"},
    "a ring of three": {**START, "1": "v2", "2": "v3", "3": "v1"},
    "two swaps": {"1": "v2", "2": "v1", "3": "v4", "4": "v3"},
    "a chain that frees": {"1": "v2", "2": "v3", "3": "v4", "4": "v5"},
    "a chain from its end": {"1": "v0", "2": "v1", "3": "v2", "4": "v3"},
}


@pytest.mark.parametrize("passes", PASSES)
@pytest.mark.parametrize("way", WAYS)
def test_values_that_pass_from_row_to_row_are_delivered_in_one_run(memory: Path, way: str, passes: str) -> None:
    act, after = WAYS[way], PASSES[passes]
    world = world_of(memory / "w", act, START)
    before = held(world, act)
    run = world.sync(act, Model.of(rows_of(after)))
    run.check_counts()
    changed = sum(after[key] != START[key] for key in after)
    assert (run.outcome.succeeded, fates(run), run.problem) == (changed, {}, None)
    assert_passed(world, act, before, after)


@pytest.mark.slow
@pytest.mark.parametrize("way", ["the match, by collections", "a mapped field, by bulk"])
def test_killed_at_every_call_the_next_run_delivers_them_or_what_they_were(memory: Path, way: str) -> None:
    act, after = WAYS[way], PASSES["a ring of three"]
    start = world_of(memory / "start", act, START)
    before, trip = held(start, act), Trip()
    start.copy(memory / "whole").sync(act, Model.of(rows_of(after)), trip=trip)
    for at in range(len(trip.seen)):
        for then in (after, START):
            world = start.copy(memory / f"{at}{then is after}")
            with pytest.raises(Killed):
                world.sync(act, Model.of(rows_of(after)), trip=Trip(at, True))
            run = world.sync(act, Model.of(rows_of(then)))
            if fates(run):  # the dead run's job refused them: they were tried, and wait for a run
                assert act.api == "bulk", trip.seen[at]
                run = world.sync(act, Model.of(rows_of(then)))
                run = world.sync(act, Model.of(rows_of(then)))
            assert fates(run) == {}, trip.seen[at]
            assert_passed(world, act, before, then)


@pytest.mark.slow
@given(st.permutations(range(6)), st.sets(st.integers(0, 5), max_size=2), st.sampled_from(sorted(WAYS)))
@examples(40)
def test_any_permutation_is_delivered_and_what_is_another_s_is_reported(
    order: list[int], kept: set[int], way: str
) -> None:
    """`kept`: values that records of others hold, so that rows want what nobody lets go of."""
    act = WAYS[way]
    start = {str(n): f"v{n}" for n in range(6)}
    after = {str(n): f"other{m}" if m in kept else f"v{m}" for n, m in enumerate(order)}
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as folder:
        world = world_of(Path(folder) / "w", act, start)
        name = "Ext__c" if way.startswith("the match") else "Unique__c"
        others = {f"other{m}": world.org.add(A__c=f"other{m}", **{name: f"other{m}"}) for m in kept}
        before = held(world, act)
        run = world.sync(act, Model.of(rows_of(after)))
        run.check_counts()
        told = {key.removeprefix("c") for key in fates(run)}
        now = held(world, act)
        for key, value in after.items():
            record, holds = now[f"a{key}"]
            assert record == before[f"a{key}"][0]
            assert holds == (start[key] if key in told else value), "what is not delivered is as it was"
        assert {key for key in told if not after[key].startswith("other")} <= {
            key for key, value in after.items() if any(start[left] == value for left in told)
        }, "told only where a value is not let go of"
        assert all(world.org.records["Thing__c"][i][name] == text for text, i in others.items())


@pytest.mark.parametrize("refused", [("a1",), ("a1", "a2")])
def test_one_that_is_refused_after_all_gets_its_value_back_or_says_that_it_is_gone(
    memory: Path, refused: tuple[str, ...]
) -> None:
    act = WAYS["the match, by collections"]
    world = world_of(memory / "w", act, START)
    before = held(world, act)
    calls: list[object] = []

    def refuse(row: dict[str, str | None]) -> str | None:
        """A rule that minds what Salesforce did not get to before: the value was another's."""
        calls.append(row)
        return "FIELD_CUSTOM_VALIDATION_EXCEPTION:no:--" if len(calls) > 2 and row.get("A__c") in refused else None

    world.org.refuse = refuse
    run = world.sync(act, Model.of(rows_of(PASSES["a swap"])))
    run.check_counts()
    told = {row["key"]: row for table in run.not_delivered for row in table.to_pylist()}
    assert set(told) == {key[1:] for key in refused}
    if len(refused) == 2:
        assert held(world, act) == before
        assert "without its value" not in told["1"]["shown"]
    else:
        assert held(world, act) == {**before, "a1": (before["a1"][0], None), "a2": (before["a2"][0], "v1")}
        assert "Ext__c of its record is without its value" in told["1"]["shown"]
    world.org.refuse = lambda row: None
    world.sync(act, Model.of(rows_of(START)))
    assert held(world, act) == before


def test_a_field_that_may_not_be_empty_holds_the_records_id_meanwhile(memory: Path) -> None:
    act, after = WAYS["the match, by collections"], PASSES["a swap"]
    strict = dataclasses.replace(THING.fields["Ext__c"], nillable=False)
    schema = dataclasses.replace(THING, fields={**THING.fields, "Ext__c": strict})
    (memory / "w").mkdir()
    world = World(memory / "w", MemoryOrg(schema))
    world.sync(act, Model.of(rows_of(START)))
    before, seen = held(world, act), []
    world.org.refuse = lambda row: seen.append(row.get("Ext__c")) or None
    run: SyncRun = world.sync(act, Model.of(rows_of(after)))
    assert fates(run) == {}
    assert None not in seen
    assert {record for record, _ in before.values()} & set(seen)
    assert_passed(world, act, before, after)
