"""A run undone: every record as it was before it, unless somebody wrote since."""

from __future__ import annotations

import copy
import dataclasses
import secrets

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from memory_org import ORG, FieldMapping, Killed, Match, Mode, Model, Trip, World, activation, fates
from test_images import KEEPING
from test_sync import AFTER, BEFORE, kill_points, memory, prepared

from dinmo_dbt.delivery.run import Status
from dinmo_dbt.destination import Field
from dinmo_dbt.errors import Refused
from dinmo_dbt.rows import values

__all__ = ["memory"]
NAMED = [row for row in AFTER if row["a"] != "same"]  # an insert's records can all be told apart


def things(world: World) -> dict[str, dict]:
    """What every record holds: a field that holds nothing is none."""
    return {i: {f: v for f, v in r.items() if v is not None} for i, r in world.org.records["Thing__c"].items()}


def synced(folder, act):
    """A world, what its org held before AFTER was synced, and that run."""
    world = prepared(folder, act)
    before = things(world)
    return world, before, world.sync(act, Model.of(NAMED))


@pytest.mark.parametrize("name", list(KEEPING))
def test_a_revert_brings_back_every_record_and_deletes_the_new_ones(name, tmp_path):
    act = KEEPING[name]
    world, before, run = synced(tmp_path / "s", act)
    undone = world.revert(act, run.run_id)
    assert things(world) == before
    assert (undone.status, undone.outcome.succeeded, fates(undone)) == (Status.SUCCESS, 4, {})
    assert undone.plan_counts.planned == 4
    again = world.revert(act, run.run_id)
    assert (again.plan_counts.planned, again.plan_counts.unchanged) == (0, 4)


@pytest.mark.parametrize("name", list(KEEPING))
def test_a_revert_can_itself_be_reverted(name, tmp_path):
    act = KEEPING[name]
    world, before, run = synced(tmp_path / "s", act)
    after = things(world)
    undone = world.revert(act, run.run_id)
    redone = world.revert(act, undone.run_id)
    assert things(world) == {i: r for i, r in after.items() if i in before}, "but for the records it deleted"
    assert {code for _, code in fates(redone).values()} <= {"DELETED"}


@pytest.mark.slow
@pytest.mark.parametrize("name", list(KEEPING))
def test_a_revert_killed_at_any_call_is_completed_by_another(name, memory):
    act = KEEPING[name]
    start, before, run = synced(memory / "start", act)
    trip = Trip()
    start.copy(memory / "whole").revert(act, run.run_id, trip=trip)
    for at, after in kill_points(trip.seen):
        world = start.copy(memory / f"{at}{after}")
        with pytest.raises(Killed):
            world.revert(act, run.run_id, trip=Trip(at, after))
        undone = world.revert(act, run.run_id)
        assert (things(world), undone.problem, fates(undone)) == (before, None, {})
        assert [name for name in world.files() if "spool" in name or name.endswith(".tmp")] == []
        assert_the_model_comes_back(world, act)


def assert_the_model_comes_back(world, act):
    """The next sync sends what the revert took back, once."""
    world.sync(act, Model.of(NAMED))
    keyed = act.match.field if act.match else "A__c"
    held = set(world.org.held(keyed, "A__c", "B__c"))
    assert held >= {(row["a"] if act.mode is Mode.INSERT else row["ext"], row["a"], row["b"]) for row in NAMED}
    assert len(things(world)) == len(world.org.held(keyed))
    again = world.sync(act, Model.of(NAMED))
    assert (again.plan_counts.planned, again.plan_counts.unchanged) == (0, len(NAMED))


@pytest.mark.slow
@pytest.mark.parametrize("name", list(KEEPING))
def test_killed_between_a_run_and_its_revert_the_next_sync_sends_the_model_again(name, memory):
    act = KEEPING[name]
    start, _, run = synced(memory / "start", act)
    trip = Trip()
    start.copy(memory / "whole").revert(act, run.run_id, trip=trip)
    for at, after in kill_points(trip.seen):
        world = start.copy(memory / f"{at}{after}")
        with pytest.raises(Killed):
            world.revert(act, run.run_id, trip=Trip(at, after))
        assert_the_model_comes_back(world, act)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["upsert by bulk", "upsert by collections", "insert"])
def test_a_run_that_was_killed_is_reverted_as_far_as_it_went(name, memory):
    act = KEEPING[name]
    start = prepared(memory / "start", act)
    before, trip = things(start), Trip()
    start.copy(memory / "whole").sync(act, Model.of(NAMED), trip=trip)
    for at, after in kill_points(trip.seen):
        world = start.copy(memory / f"{at}{after}")
        with pytest.raises(Killed):
            world.sync(act, Model.of(NAMED), trip=Trip(at, after))
        killed = f"run{world.runs:04d}"
        if world.state().view(ORG, act).image(killed) is None:
            assert things(world) == before
            continue
        undone = world.revert(act, killed)
        now, unnamed = things(world), [key for key, (_, code) in fates(undone).items() if code == "RECORD_UNKNOWN"]
        assert {i: r for i, r in now.items() if i in before} == before
        assert len(now) - len(before) <= len(unnamed), "what it made and nobody could name is said"


def test_what_somebody_wrote_since_is_left_alone_and_named(tmp_path):
    act = KEEPING["upsert by collections"]
    world, before, run = synced(tmp_path / "s", act)
    by_ext = {r["Ext__c"]: i for i, r in things(world).items()}
    world.org.records["Thing__c"][by_ext["e2"]]["A__c"] = "by hand"
    world.org.records["Thing__c"][by_ext["e3"]]["N__c"] = "7"  # a field that the run did not write
    world.org.records["Thing__c"][by_ext["e5"]]["B__c"] = "by hand"
    world.org.delete(by_ext["e6"])
    undone = world.revert(act, run.run_id)
    told = {row["key"]: (row["code"], row["fields"]) for row in pa.concat_tables(undone.not_delivered).to_pylist()}
    assert told == {"2": ("CONFLICT", "A__c"), "5": ("CONFLICT", "B__c")}
    now = things(world)
    assert now[by_ext["e2"]]["A__c"] == "by hand"
    assert now[by_ext["e3"]] == {**before[by_ext["e3"]], "N__c": "7"}
    assert now[by_ext["e5"]]["B__c"] == "by hand"
    assert (undone.plan_counts.planned, undone.plan_counts.held, undone.plan_counts.unchanged) == (1, 2, 1)


def test_what_a_later_run_wrote_is_left_alone(tmp_path):
    act = KEEPING["upsert by collections"]
    world, _, run = synced(tmp_path / "s", act)
    later = world.sync(act, Model.of([{**row, "b": "later"} if row["id"] == "2" else row for row in NAMED]))
    after = things(world)
    undone = world.revert(act, run.run_id)
    assert fates(undone) == {"2": ("held", "CONFLICT")}
    kept = {i for i, r in things(world).items() if r["Ext__c"] == "e2"}
    assert all(things(world)[i] == after[i] for i in kept)
    assert world.revert(act, later.run_id).outcome.succeeded == 1
    assert fates(world.revert(act, run.run_id)) == {}, "once the later run is undone, the earlier one can be"


def test_a_later_record_of_the_same_key_is_not_forgotten_with_an_earlier_one(tmp_path):
    act = KEEPING["insert"]
    world = World(tmp_path / "s")
    first = world.sync(act, Model.of(BEFORE))
    changed = [{**BEFORE[0], "a": "changed"}, *BEFORE[1:]]
    world.sync(act, Model.of(changed))
    undone = world.revert(act, first.run_id)
    assert (undone.outcome.succeeded, world.org.held("A__c")) == (4, [("changed",)])
    assert set(world.snapshot(act)) == {"1"}
    run = world.sync(act, Model.of(changed))
    assert (run.plan_counts.unchanged, run.outcome.succeeded) == (1, 3)


@pytest.mark.parametrize("name", ["upsert by bulk", "upsert by collections"])
def test_a_record_that_another_activation_or_key_has_is_not_deleted(name, tmp_path):
    act, other = KEEPING[name], activation("update", name="others", fields=(FieldMapping("c", "Code__c"),))
    world = World(tmp_path / "s")
    first = world.sync(act, Model.of(BEFORE))
    world.sync(other, Model.of([{"id": "x", "ext": BEFORE[0]["ext"], "c": "theirs"}]))
    respelled = [*BEFORE[:1], {**BEFORE[1], "id": "new spelling"}, *BEFORE[2:]]
    world.sync(act, Model.of(respelled))
    undone = world.revert(act, first.run_id)
    kept = {BEFORE[0]["ext"], BEFORE[1]["ext"]}
    assert {ext for (ext,) in world.org.held("Ext__c")} == kept
    assert {code for _, code in fates(undone).values()} == {"RECORD_SHARED"}
    world.sync(act, Model.of(respelled))
    assert {ext for (ext,) in world.org.held("Ext__c")} == {row["ext"] for row in BEFORE}


@pytest.mark.parametrize("name", ["upsert by bulk", "upsert by collections"])
@pytest.mark.parametrize("target", ["dev", "ci"])
@pytest.mark.parametrize(("field", "stays"), [("A__c", True), ("Code__c", False)])
def test_a_value_that_another_activation_or_target_writes_too_is_not_put_back(name, target, field, stays, tmp_path):
    """Both say the same of it, so it holds what the run wrote; what the other has noted as delivered would be gone."""
    act, other = KEEPING[name], activation("update", name="others", fields=(FieldMapping("a", field),))
    world = World(tmp_path / "s")
    world.sync(act, Model.of(BEFORE))
    new = [{**BEFORE[0], "a": "new"}, *BEFORE[1:]]
    run = world.sync(act, Model.of(new))
    world.target = target
    world.sync(other, Model.of([{"id": "x", "ext": BEFORE[0]["ext"], "a": "new"}]))
    world.target = "dev"
    undone = world.revert(act, run.run_id)
    assert (("new",) in world.org.held("A__c")) is stays
    assert [code for _, code in fates(undone).values()] == ["FIELDS_SHARED"] * stays


def test_values_put_back_are_sent_again_under_the_key_that_the_row_has_by_then(tmp_path):
    act = KEEPING["upsert by bulk"]
    world = World(tmp_path / "s")
    world.sync(act, Model.of(BEFORE))
    changed = [{**BEFORE[0], "a": "bad"}, *BEFORE[1:]]
    run = world.sync(act, Model.of(changed))
    respelled = [{**changed[0], "id": "new spelling"}, *changed[1:]]
    world.sync(act, Model.of(respelled))
    world.revert(act, run.run_id)
    assert ("bad",) not in world.org.held("A__c")
    world.sync(act, Model.of(respelled))
    assert ("bad",) in world.org.held("A__c")


def test_deletes_of_a_revert_pass_a_guard_only_by_a_number(tmp_path):
    act = KEEPING["upsert by collections"]
    world = World(tmp_path / "s")
    run = world.sync(act, Model.of([{"id": str(n), "ext": f"e{n}", "a": "x", "b": "y"} for n in range(11)]))
    with pytest.raises(Refused, match=r"DB407.*\n.*--allow-deletes 11"):
        world.revert(act, run.run_id)
    assert len(things(world)) == 11
    world.revert(act, run.run_id, allow_deletes=11)
    assert things(world) == {}


def test_a_field_that_can_not_be_updated_now_stays_and_the_others_go_back(tmp_path):
    act = KEEPING["upsert by collections"]
    world, before, run = synced(tmp_path / "s", act)
    schema = world.org.schemas["Thing__c"]
    fixed = dataclasses.replace(schema.fields["A__c"], updateable=False)
    world.org.schemas["Thing__c"] = dataclasses.replace(schema, fields={**schema.fields, "A__c": fixed})
    after = things(world)
    world.revert(act, run.run_id)
    for i, record in things(world).items():
        assert record == {**before[i], "A__c": after[i]["A__c"]}


TEXTS = st.one_of(st.none(), st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1))
NUMBERS = st.one_of(st.none(), st.decimals(-1000, 1000, places=2))
ROWS = st.lists(st.tuples(st.integers(0, 6), TEXTS, NUMBERS, st.booleans()), unique_by=lambda row: row[0], min_size=1)
EDITED = activation(
    fields=(FieldMapping("a", "A__c"), FieldMapping("n", "N__c"), FieldMapping("on", "On__c")),
    match=Match("ext", "Ext__c"),
    keep_before_images=True,
)


def model(rows):
    kinds = {"n": pa.decimal128(10, 2), "on": pa.bool_()}
    told = [{"id": str(i), "ext": f"e{i}", "a": a, "n": n, "on": on} for i, a, n, on in rows]
    return Model.of(told, kinds)


@pytest.mark.slow
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(first=ROWS, second=ROWS, api=st.sampled_from(["auto", "bulk"]))
def test_sync_then_revert_leaves_the_org_as_it_was(memory, first, second, api):
    act = dataclasses.replace(EDITED, api=api)
    world = World(memory / secrets.token_hex(8))
    world.sync(act, model(first))
    before = copy.deepcopy(things(world))
    run = world.sync(act, model(second))
    if world.state().view(ORG, act).image(run.run_id) is not None:
        undone = world.revert(act, run.run_id, allow_deletes=10)
        assert fates(undone) == {}
    assert trimmed(things(world)) == trimmed(before)


def trimmed(records):
    """As Salesforce keeps text; this org keeps what it is sent."""
    return {i: {f: v.strip() for f, v in r.items() if v.strip()} for i, r in records.items()}


def test_numbers_go_back_to_the_last_digit():
    texts = ["12345678901234.567891", "1.0E10", "-0.5", "44.0", None, "19.989999999999998437"]
    field = Field("N__c", "N", "double", precision=18, scale=2)
    held = [None if n is None else str(n.normalize()) for n in values.printed(pa.array(texts), field).to_pylist()]
    assert held == ["12345678901234.567891", "1E+10", "-0.5", "44", None, "19.989999999999998437"]


def test_records_that_a_run_deleted_are_named_and_no_field_is_touched(tmp_path):
    act = dataclasses.replace(KEEPING["upsert by collections"], on_removed="delete")
    world = prepared(tmp_path / "s", act)
    run = world.sync(act, Model.of(BEFORE[:3]))
    assert run.outcome.removed == 1
    after = things(world)
    undone = world.revert(act, run.run_id)
    assert fates(undone) == {"4": ("held", "DELETED")}
    assert (things(world), undone.plan_counts.planned) == (after, 0)


def test_fields_set_on_leavers_go_back_and_are_not_set_again(tmp_path):
    setting = {"on_removed": "set", "on_removed_set": (("Source__c", "left"),)}
    act = dataclasses.replace(KEEPING["upsert by collections"], **setting)
    world = prepared(tmp_path / "s", act)
    before = things(world)
    run = world.sync(act, Model.of(BEFORE[:3]))
    assert world.org.held("Source__c").count(("left",)) == 1
    assert world.revert(act, run.run_id).outcome.succeeded == 1
    assert things(world) == before
    again = world.sync(act, Model.of(BEFORE[:3]))
    assert (again.outcome.succeeded, things(world)) == (0, before)
    assert world.sync(act, Model.of(BEFORE)).outcome.succeeded == 1, "back in the segment, it is sent"


def test_a_text_that_means_null_in_a_file_goes_back_as_itself(tmp_path):
    act = KEEPING["upsert by bulk"]
    world = prepared(tmp_path / "s", act)
    (i,) = [i for i, r in things(world).items() if r["Ext__c"] == "e2"]
    world.org.records["Thing__c"][i]["A__c"] = "#N/A"
    before = things(world)
    run = world.sync(act, Model.of(NAMED))
    world.revert(act, run.run_id)
    assert things(world) == before
