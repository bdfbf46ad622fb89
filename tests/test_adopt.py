"""Records that Salesforce holds already are taken over: no record is made twice, and nothing is written there."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from memory_org import ORG, Ceilings, Flag, Match, Model, World, activation, fates

from dinmo_dbt.activation import Activation, FieldMapping
from dinmo_dbt.errors import UsageError
from dinmo_dbt.state.spool import ScanSpool
from dinmo_dbt.upkeep import adopt as adopting
from dinmo_dbt.upkeep import verify as verifying

INSERT = activation("insert", fields=(FieldMapping("ext", "Code__c"), FieldMapping("a", "A__c")))
UPSERT = activation("upsert")
UPDATE = activation("update", match=Match("ext", "Code__c"))
ROWS = [{"id": str(i), "ext": f"e{i}", "a": f"x{i}", "b": "y"} for i in range(6)]
BY_CODE = (("ext", "Code__c"),)


def draw(world: World, act: Activation, model: Model, matches=()) -> adopting.Adoption:
    spool = ScanSpool(world.folder.parent)
    found = adopting.draw(act, model, world.org, world.state().view(ORG, act), spool, matches=matches)
    spool.close()
    counted = len(found.rows) + len(found.ambiguous) + len(found.unmatched)
    assert found.read == counted + found.known + found.in_flight + found.invalid, "every row is counted once"
    return found


def adopt(world: World, act: Activation, model: Model, matches=()) -> adopting.Adoption:
    found = draw(world, act, model, matches)
    with world.state().locked(ORG, act) as state:
        adopting.store(found, state)
    return found


def reasons(found: adopting.Adoption) -> dict[str, str]:
    return {row["key"]: row["reason"] for row in found.ambiguous.to_pylist()}


def test_an_insert_takes_over_what_it_would_have_doubled(tmp_path):
    world = World(tmp_path / "s")
    ids = {row["id"]: world.org.add(Code__c=row["ext"], A__c="theirs") for row in ROWS[:4]}
    found = adopt(world, INSERT, Model.of(ROWS), BY_CODE)
    assert found.matched_by == (("ext", "Code__c"),)
    assert found.unmatched["key"].to_pylist() == ["4", "5"]
    assert world.snapshot(INSERT) == {key: (record_id, Flag.ADOPTED) for key, record_id in ids.items()}
    assert sum(world.org.writes.values()) == 0
    run = world.sync(INSERT, Model.of(ROWS))  # past the guard of a first sync, and only the others are new
    assert (run.outcome.created, run.plan_counts.unchanged) == (2, 4)
    assert world.org.held("Code__c") == [(f"e{i}",) for i in range(6)]
    assert world.org.records["Thing__c"][ids["1"]]["A__c"] == "theirs", "an insert changes no record"


@pytest.mark.parametrize("act", [UPSERT, UPDATE], ids=["upsert", "update"])
def test_what_differs_is_sent_again_and_what_is_equal_is_not(act, tmp_path):
    world = World(tmp_path / "s")
    name = act.match.field
    world.org.add(**{name: "E0"}, A__c="x0", B__c="y")
    world.org.add(**{name: "e1"}, A__c="theirs", B__c="y")
    found = adopt(world, act, Model.of(ROWS), ())
    assert (len(found.rows), found.equal) == (2, 1)
    flags = {key: flags for key, (_, flags) in world.snapshot(act).items()}
    assert flags == {"0": Flag.ADOPTED, "1": Flag.ADOPTED | Flag.STALE}
    run = world.sync(act, Model.of(ROWS))
    assert run.plan_counts.unchanged == 1
    assert run.plan_counts.resent == 1
    assert len(world.org.records["Thing__c"]) == (6 if act is UPSERT else 2)
    assert world.plan(act, Model.of(ROWS[:2])).counts.unchanged == 2


def test_what_another_copy_inserted_of_known_keys_that_changed_is_taken_over(tmp_path):
    world = World(tmp_path / "s")
    world.sync(INSERT, Model.of(ROWS))
    changed = [{**row, "a": "new"} if row["id"] in "012" else row for row in ROWS]
    made = {row["id"]: world.org.add(Code__c=row["ext"], A__c="new") for row in changed[:2]}
    found = adopt(world, INSERT, Model.of(changed), BY_CODE)
    assert (len(found.rows), found.equal, found.known, len(found.unmatched)) == (2, 2, 4, 0)
    assert {key: world.snapshot(INSERT)[key][0] for key in made} == made
    run = world.sync(INSERT, Model.of(changed))
    assert (run.plan_counts.changed, run.outcome.created) == (1, 1), "only what no copy made of the third"


@pytest.mark.parametrize("policy", ["hold", "set_null"])
def test_a_record_that_another_copy_made_without_its_parent_is_taken_over(policy, tmp_path):
    """Only where rows may go without: elsewhere a record without its parent is no send of the row."""
    world = World(tmp_path / "s")
    fields = (*INSERT.fields, FieldMapping("p", "Parent__r.Code__c"))
    act = activation("insert", fields=fields, missing_parent=policy)
    parent = world.org.add("Parent__c", Code__c="P1")
    known = [{**row, "p": "P1"} for row in ROWS]
    world.sync(act, Model.of(known))
    late = [{**row, "a": "new", "p": "P2"} if row["id"] in "012" else row for row in known]
    made = {row["id"]: world.org.add(Code__c=row["ext"], A__c="new") for row in late[:2]}
    other = world.org.add(Code__c="e2", A__c="new", Parent__c=parent)
    world.org.add("Parent__c", Code__c="P2")
    found = adopt(world, act, Model.of(late), BY_CODE)
    run = world.sync(act, Model.of(late))
    if policy == "hold":
        assert (len(found.rows), run.outcome.created) == (0, 3)
        return
    assert (len(found.rows), found.equal) == (2, 0)
    assert {key: world.snapshot(act)[key] for key in made} == {
        key: (record_id, Flag.ADOPTED | Flag.UNFINISHED) for key, record_id in made.items()
    }
    assert run.outcome.created == 1, "another parent is no missing one"
    assert world.org.records["Thing__c"][other]["Parent__c"] == parent
    spool = ScanSpool(world.folder.parent)
    seen = verifying.verify(act, Model.of(late), world.org, world.state().view(ORG, act), spool)
    spool.close()
    assert (seen.holds, seen.pending["unknown"], seen.verified) == (True, 0, 4), "without its parent it is no drift"


def test_two_records_of_a_known_key_that_changed_are_ambiguous(tmp_path):
    world = World(tmp_path / "s")
    world.sync(INSERT, Model.of(ROWS))
    changed = [{**ROWS[0], "a": "new"}, *ROWS[1:]]
    for _ in range(2):
        world.org.add(Code__c="e0", A__c="new")
    assert reasons(adopt(world, INSERT, Model.of(changed), BY_CODE)) == {"0": adopting.SEVERAL}
    assert world.sync(INSERT, Model.of(changed)).outcome.created == 0


def test_several_records_or_rows_are_ambiguous_never_a_pick(tmp_path):
    world = World(tmp_path / "s")
    rows = [*ROWS, {"id": "twin", "ext": "e1", "a": "x", "b": "y"}]
    for _ in range(2):
        world.org.add(Code__c="e0")
    world.org.add(Code__c="E1")
    world.sync(INSERT, Model.of(ROWS[2:3]), Ceilings(first_sync=True))
    known, _ = world.snapshot(INSERT)["2"]
    world.org.records["Thing__c"][known]["Code__c"] = "e3"
    found = draw(world, INSERT, Model.of(rows), BY_CODE)
    assert reasons(found) == {
        "0": adopting.SEVERAL,
        "1": adopting.SHARED,
        "twin": adopting.SHARED,
        "3": adopting.CLAIMED,
    }
    assert (found.known, len(found.rows)) == (1, 0)
    closer = draw(world, INSERT, Model.of(rows), (*BY_CODE, ("a", "A__c")))
    assert len(closer.unmatched) == 6, "all matching fields must agree"


def test_an_ambiguous_row_is_not_inserted_once_more_and_a_closer_match_finds_its_record(tmp_path):
    world = World(tmp_path / "s")
    its = world.org.add(Code__c="e0", A__c="x0")
    world.org.add(Code__c="e0", A__c="older")
    adopt(world, INSERT, Model.of(ROWS[:1]), BY_CODE)
    run = world.sync(INSERT, Model.of(ROWS[:2]))
    assert (run.outcome.created, fates(run)) == (1, {"0": ("held", "OUTCOME_UNKNOWN")})
    adopt(world, INSERT, Model.of(ROWS[:2]), (*BY_CODE, ("a", "A__c")))
    assert world.snapshot(INSERT)["0"] == (its, Flag.ADOPTED)
    assert world.sync(INSERT, Model.of(ROWS[:2])).plan_counts.unchanged == 2
    assert len(world.org.records["Thing__c"]) == 3


def test_inserts_of_unknown_outcome_get_their_record(tmp_path):
    world = World(tmp_path / "s")
    world.sync(INSERT, Model.of(ROWS))
    ids = {key: record_id for key, (record_id, _) in world.snapshot(INSERT).items()}
    with world.state().locked(ORG, INSERT) as state:
        rows = next(state.snapshot.tables())
        place = rows.column_names.index("flags")
        doubtful = [Flag.UNKNOWN if key in "01" else Flag.CREATED for key in rows["key"].to_pylist()]
        rows = rows.set_column(place, "flags", [[int(flag) for flag in doubtful]])
        nameless = [None if r["key"] in "01" else r["record_id"] for r in rows.select(["key", "record_id"]).to_pylist()]
        rows = rows.set_column(rows.column_names.index("record_id"), "record_id", [nameless])
        state.amend(rows.append_column("op", [["put"] * len(rows)]))
    world.org.delete(ids["1"])
    assert fates(world.sync(INSERT, Model.of(ROWS))) == dict.fromkeys("01", ("held", "OUTCOME_UNKNOWN"))
    found = adopt(world, INSERT, Model.of(ROWS), BY_CODE)
    assert (len(found.rows), found.doubtful, found.known) == (1, 1, 4)
    assert world.snapshot(INSERT)["0"] == (ids["0"], Flag.ADOPTED)
    assert fates(world.sync(INSERT, Model.of(ROWS))) == {"1": ("held", "OUTCOME_UNKNOWN")}


def test_a_row_that_waits_is_resolved_by_its_record(tmp_path):
    world = World(tmp_path / "s")
    world.org.refuse = lambda row: "DUPLICATE_VALUE:there is one:--" if row["Code__c"] == "e0" else None
    world.sync(INSERT, Model.of(ROWS))
    there = world.org.add(Code__c="e0")
    assert len(world.state().view(ORG, INSERT).pending.kh) == 1
    adopt(world, INSERT, Model.of(ROWS), BY_CODE)
    assert len(world.state().view(ORG, INSERT).pending.kh) == 0
    run = world.sync(INSERT, Model.of(ROWS))
    assert (run.plan_counts.unchanged, fates(run)) == (6, {})
    assert world.snapshot(INSERT)["0"][0] == there


@pytest.mark.parametrize(
    ("act", "matches", "said"),
    [
        (INSERT, (), "ext=Code__c"),
        (INSERT, (("ext", "A__c"),), "ext=Code__c"),
        (UPSERT, BY_CODE, "a match of its own"),
    ],
)
def test_a_match_that_can_not_be_used_is_a_usage_error(act, matches, said, tmp_path):
    with pytest.raises(UsageError, match="DB813") as raised:
        draw(World(tmp_path / "s"), act, Model.of(ROWS), matches)
    assert said in str(raised.value)


@pytest.mark.slow
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    there=st.lists(st.integers(0, 7), max_size=10),
    mode=st.sampled_from(["insert", "upsert"]),
    many=st.booleans(),
    known=st.sets(st.integers(0, 7), max_size=3),
)
def test_adopt_then_sync_is_what_a_first_sync_would_have_made(there, mode, many, known, tmp_path_factory):
    """Each matched row has one record before and after; only unmatched ones are new, and the rest is as it was."""
    act = UPSERT if mode == "upsert" else INSERT
    field = "Ext__c" if mode == "upsert" else "Code__c"
    world = World(tmp_path_factory.mktemp("law") / "s")
    rows = [{"id": str(i), "ext": f"e{i}", "a": f"x{i}", "b": "y"} for i in range(8)]
    early = [rows[i] for i in sorted(known)]
    if early:
        world.sync(act, Model.of(early), Ceilings(first_sync=True))
    there = sorted(set(there) - known) if mode == "upsert" else [i for i in there if i not in known]
    for i in there:
        world.org.add(**{field: f"e{i}", "A__c": "theirs", "B__c": "theirs"})
    before = len(world.org.records["Thing__c"])
    limit, verifying.BY_ID_MAX = verifying.BY_ID_MAX, 0 if many else verifying.BY_ID_MAX
    try:
        found = adopt(world, act, Model.of(rows), BY_CODE if mode == "insert" else ())
    finally:
        verifying.BY_ID_MAX = limit
    once = {i for i in there if there.count(i) == 1}
    several = set(there) - once
    assert {int(key) for key in found.rows["key"].to_pylist()} == once
    assert {int(key) for key in found.ambiguous["key"].to_pylist()} == several
    world.sync(act, Model.of(rows), Ceilings(first_sync=True))
    made = len(world.org.records["Thing__c"]) - before
    assert made == 8 - len(known) - len(set(there)), "of what may be there, nothing more is made"
    if mode == "upsert":
        assert world.org.held("Ext__c", "A__c", "B__c") == [(r["ext"], r["a"], r["b"]) for r in rows]
    again = world.plan(act, Model.of(rows), Ceilings(first_sync=True))
    assert (again.counts.unchanged, again.counts.held, again.batches) == (8 - len(several), len(several), ())
