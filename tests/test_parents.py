"""Parents: rows wait for theirs in every mode, go after them where one run makes both, and are made once."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from memory_org import (
    PARENT,
    THING,
    Ceilings,
    FieldMapping,
    Killed,
    Match,
    MemoryOrg,
    Model,
    Trip,
    World,
    activation,
    fates,
    text_field,
)

from dinmo_dbt.delivery.run import Status
from dinmo_dbt.destination import Field
from dinmo_dbt.plan import parents
from dinmo_dbt.rows.mapping import MappedColumn
from dinmo_dbt.rows.snapshot import Flag

UP = Field("Up__c", "Up", "reference", length=18, reference_to=("Thing__c",), relationship_name="Up__r")
TREE = dataclasses.replace(THING, fields={**THING.fields, "Up__c": UP})
TREE_FIELDS = (FieldMapping("a", "A__c"), FieldMapping("up", "Up__r.Ext__c"))
BY_PARENT = (FieldMapping("a", "A__c"), FieldMapping("p", "Parent__r.Code__c"))
FIRST = Ceilings(first_sync=True)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "state", MemoryOrg(TREE, PARENT))


def tree(**ups: str | None) -> Model:
    """Rows by their id, each with its parent's."""
    return Model.of([{"id": name, "ext": name, "a": name, "up": up} for name, up in ups.items()])


def children(**given: str | None) -> Model:
    return Model.of([{"id": name, "ext": name, "a": name, "p": parent} for name, parent in given.items()])


def held_tree(world: World) -> dict[str, str | None]:
    """Each record's value and its parent's."""
    records = world.org.records["Thing__c"]
    found = {r["A__c"]: (records[up]["A__c"] if (up := r.get("Up__c")) else None) for r in records.values()}
    assert len(found) == len(records), "nothing is doubled"
    return found  # type: ignore[return-value]


WAYS = [
    ("insert", {}),
    ("upsert", {}),
    ("upsert", {"match": Match("ext", "Code__c", create=True)}),
    ("update", {}),
]


# Parents that are not there


@pytest.mark.parametrize("api", ["bulk", "collections"])
@pytest.mark.parametrize(
    ("mode", "more"),
    [*WAYS, ("update", {"match": Match("ext", "Code__c")})],
)
def test_a_row_whose_parent_is_missing_is_held_in_every_mode(world: World, api: str, mode: str, more: dict) -> None:
    act = activation(mode, fields=BY_PARENT, api=api, **more)
    if mode == "update":
        for name in "xyz":
            world.org.add(Ext__c=name, Code__c=name)
    there = world.org.add("Parent__c", Code__c="here")
    model = children(x="here", y="nowhere", z=None)
    run = world.sync(act, model, FIRST)
    assert fates(run) == {"y": ("held", "PARENT_MISSING")}
    assert (run.status, run.plan_counts.held, run.plan_counts.waiting) == (Status.SUCCESS, 1, 0)
    assert [row for row in world.org.held("A__c", "Parent__c") if row[0]] == [("x", there), ("z", None)]
    late = world.org.add("Parent__c", Code__c="nowhere")
    run = world.sync(act, model)
    assert (fates(run), run.outcome.succeeded) == ({}, 1)
    assert ("y", late) in world.org.held("A__c", "Parent__c")
    assert world.sync(act, model).outcome.rows == 0


@pytest.mark.parametrize("mode", ["insert", "upsert", "update"])
def test_a_missing_parent_is_rejected_where_it_is_not_to_be_waited_for(world: World, mode: str) -> None:
    act = activation(mode, fields=BY_PARENT, missing_parent="reject")
    world.org.add(Ext__c="y")
    model = children(y="nowhere")
    for _ in range(3):
        run = world.sync(act, model, FIRST)
        assert fates(run) == {"y": ("rejected", "PARENT_MISSING")}
        assert (run.status, run.plan_counts.rejected) == (Status.REJECTED, 1), "as long as it is missing"
    world.org.add("Parent__c", Code__c="nowhere")
    assert world.sync(act, model, FIRST).outcome.succeeded == 1


@pytest.mark.parametrize("api", ["bulk", "collections"])
@pytest.mark.parametrize("mode", ["upsert", "update"])
def test_a_row_goes_without_its_parent_and_once_more_when_that_is_there(world: World, mode: str, api: str) -> None:
    act = activation(mode, fields=BY_PARENT, missing_parent="set_null", api=api)
    before = world.org.add("Parent__c", Code__c="before")
    world.org.add(Ext__c="y", Parent__c=before)
    model = children(y="nowhere")
    run = world.sync(act, model)
    assert (fates(run), run.outcome.succeeded) == ({}, 1)
    assert world.org.held("A__c", "Parent__c") == [("y", None)]
    assert world.snapshot(act)["y"][1] & Flag.UNFINISHED
    for _ in range(2):
        run = world.sync(act, model)
        assert (fates(run), run.outcome.rows, run.status) == (
            {"y": ("held", "PARENT_MISSING")},
            0,
            Status.SUCCESS,
        ), "it is not sent again as it is"
    late = world.org.add("Parent__c", Code__c="nowhere")
    assert world.sync(act, model).outcome.succeeded == 1
    assert world.org.held("A__c", "Parent__c") == [("y", late)]
    assert not world.snapshot(act)["y"][1] & Flag.UNFINISHED
    assert world.sync(act, model).outcome.rows == 0


@pytest.mark.parametrize("is_there", [True, False])
def test_a_row_without_its_parent_still_lacks_it_when_a_field_joins(world: World, is_there: bool) -> None:
    rows = Model.of([{"id": "y", "ext": "y", "a": "y", "b": "b", "p": "nowhere"}])
    world.sync(activation(fields=BY_PARENT, missing_parent="set_null"), rows)
    late = world.org.add("Parent__c", Code__c="nowhere" if is_there else "elsewhere")
    act = activation(fields=(*BY_PARENT, FieldMapping("b", "B__c")), missing_parent="set_null")
    assert world.sync(act, rows).outcome.succeeded == 1
    assert world.org.held("A__c", "B__c", "Parent__c") == [("y", "b", late if is_there else None)]
    late = late if is_there else world.org.add("Parent__c", Code__c="nowhere")
    world.sync(act, rows)
    assert world.org.held("A__c", "B__c", "Parent__c") == [("y", "b", late)]
    assert world.sync(act, rows).outcome.rows == 0


@pytest.mark.parametrize("is_there", [True, False])
def test_a_row_without_its_parent_is_sent_with_it_by_the_run_in_which_a_field_leaves(
    world: World, is_there: bool
) -> None:
    rows = Model.of([{"id": "y", "ext": "y", "a": "y", "b": "b", "p": "nowhere"}])
    world.sync(activation(fields=(*BY_PARENT, FieldMapping("b", "B__c")), missing_parent="set_null"), rows)
    parent = world.org.add("Parent__c", Code__c="nowhere") if is_there else None
    act = activation(fields=BY_PARENT, missing_parent="set_null")
    told = fates(world.sync(act, rows))
    assert told == ({} if is_there else {"y": ("held", "PARENT_MISSING")})
    assert world.org.held("A__c", "Parent__c") == [("y", parent)]
    parent = parent or world.org.add("Parent__c", Code__c="nowhere")
    assert world.sync(act, rows).outcome.rows == (0 if is_there else 1)
    assert world.org.held("A__c", "B__c", "Parent__c") == [("y", "b", parent)]
    assert world.sync(act, rows).outcome.rows == 0


def test_an_insert_goes_without_its_parent_and_is_not_made_again(world: World) -> None:
    act = activation("insert", fields=BY_PARENT, missing_parent="set_null")
    model = children(y="nowhere")
    world.sync(act, model, FIRST)
    world.org.add("Parent__c", Code__c="nowhere")
    assert world.sync(act, model).outcome.rows == 0
    assert world.org.held("A__c", "Parent__c") == [("y", None)]


def test_two_missing_parents_are_one_row_left_out(world: World) -> None:
    act = activation(fields=(*BY_PARENT, FieldMapping("up", "Up__r.Ext__c")))
    model = Model.of([{"id": "y", "ext": "y", "a": "y", "p": "nowhere", "up": "nowhere"}])
    assert fates(world.sync(act, model)) == {"y": ("held", "PARENT_MISSING")}


def test_a_parent_that_several_records_are_is_ambiguous(world: World) -> None:
    for _ in range(2):
        world.org.add("Parent__c", Code__c="twice")
    run = world.sync(activation(fields=BY_PARENT), children(y="twice"))
    assert fates(run) == {"y": ("ambiguous", "PARENT_AMBIGUOUS")}


# A parent by a field that is no external id


BY_NAME = (FieldMapping("a", "A__c"), FieldMapping("p", "Parent__r.Name"))
NAMED = dataclasses.replace(PARENT, fields={**PARENT.fields, "Name": text_field("Name")})
NAMED_TREE = (FieldMapping("a", "A__c"), FieldMapping("up", "Up__r.A__c"))


@pytest.fixture
def named(tmp_path: Path) -> World:
    return World(tmp_path / "state", MemoryOrg(TREE, NAMED))


@pytest.mark.parametrize("api", ["bulk", "collections"])
@pytest.mark.parametrize(
    ("mode", "more"),
    [*WAYS, ("update", {"match": Match("ext", "Id")})],
)
def test_a_parent_is_found_by_any_field_that_can_be_searched(named: World, api: str, mode: str, more: dict) -> None:
    act = activation(mode, fields=BY_NAME, api=api, **more)
    ids = {n: n for n in "vwxyz"}
    if mode == "update":
        made = {n: named.org.add(Ext__c=n, Code__c=n) for n in ids}
        ids = made if more else ids
    here, _, _ = (named.org.add("Parent__c", Name=name) for name in ("Here GmbH", "twice", "Twice"))
    given = {"v": "here gmbh", "w": "Here GmbH ", "x": "twice", "y": "nowhere", "z": None}

    def model(**parents: str | None) -> Model:
        return Model.of([{"id": n, "ext": ids[n], "a": n, "p": parent} for n, parent in {**given, **parents}.items()])

    run = named.sync(act, model(), FIRST)
    assert fates(run) == {"x": ("ambiguous", "PARENT_AMBIGUOUS"), "y": ("held", "PARENT_MISSING")}
    there = [("v", here), ("w", here), ("z", None)]
    assert [row for row in named.org.held("A__c", "Parent__c") if row[0]] == there
    late = named.org.add("Parent__c", Name="Nowhere")
    run = named.sync(act, model(x="here gmbh"), FIRST)
    assert (fates(run), run.outcome.succeeded) == ({}, 2)
    assert named.org.held("A__c", "Parent__c") == sorted([*there, ("x", here), ("y", late)])
    assert named.sync(act, model(x="here gmbh"), FIRST).outcome.rows == 0
    if mode != "insert":
        run = named.sync(act, model(v=None, w="nowhere", x="here gmbh"), FIRST)
        assert (fates(run), run.outcome.succeeded) == ({}, 2)
        now = [("v", None), ("w", late), ("x", here), ("y", late), ("z", None)]
        assert named.org.held("A__c", "Parent__c") == now


@pytest.mark.parametrize("api", ["bulk", "collections"])
def test_a_row_goes_without_a_parent_that_has_no_external_id(named: World, api: str) -> None:
    act = activation("upsert", fields=BY_NAME, missing_parent="set_null", api=api)
    here = named.org.add("Parent__c", Name="here")
    model = children(x="here", y="nowhere")
    run = named.sync(act, model)
    assert (fates(run), run.outcome.succeeded) == ({}, 2)
    assert named.org.held("A__c", "Parent__c") == [("x", here), ("y", None)]
    assert fates(named.sync(act, model)) == {"y": ("held", "PARENT_MISSING")}
    late = named.org.add("Parent__c", Name="nowhere")
    assert named.sync(act, model).outcome.succeeded == 1
    assert named.org.held("A__c", "Parent__c") == [("x", here), ("y", late)]
    assert fates(named.sync(activation(fields=BY_NAME, missing_parent="reject"), children(x="gone"))) == {
        "x": ("rejected", "PARENT_MISSING")
    }


@pytest.mark.parametrize(("mode", "api"), [("upsert", "bulk"), ("upsert", "collections"), ("insert", "bulk")])
def test_a_hierarchy_by_such_a_field_is_made_level_by_level(world: World, mode: str, api: str) -> None:
    act = activation(mode, fields=NAMED_TREE, api=api)
    ups = {"s1": None, "s2": "S1", "s3": "s2"} | ({"s9": "s9", "s8": "s9"} if mode == "upsert" else {})
    run = world.sync(act, tree(**ups), FIRST)
    assert (fates(run), run.outcome.succeeded, run.outcome.created) == ({}, len(ups), len(ups))
    assert held_tree(world) == {**ups, "s2": "s1"}
    assert world.sync(act, tree(**ups)).outcome.rows == 0


def test_no_row_is_made_the_child_of_one_of_two_that_have_the_name_after_the_run(world: World) -> None:
    act = activation(fields=NAMED_TREE)
    rows = [{"id": n, "ext": n, "a": "twin", "up": None} for n in ("t1", "t2")]
    run = world.sync(act, Model.of([*rows, {"id": "c", "ext": "c", "a": "c", "up": "twin"}]))
    assert fates(run) == {"c": ("ambiguous", "PARENT_AMBIGUOUS")}
    world.org.add(A__c="there")
    run = world.sync(act, Model.of([*rows, {"id": "n", "ext": "n", "a": "there", "up": None},
                                    {"id": "c", "ext": "c", "a": "c", "up": "there"}]))  # fmt: skip
    assert fates(run) == {"c": ("ambiguous", "PARENT_AMBIGUOUS")}


@pytest.mark.parametrize("api", ["bulk", "collections"])
@pytest.mark.parametrize("more", [{}, {"match": Match("ext", "Code__c", create=True)}, {"key": ("id",)}])
def test_names_that_pass_on_in_the_run_lead_to_who_has_them_then(world: World, api: str, more: dict) -> None:
    act = activation(fields=NAMED_TREE, api=api, **more)

    def model(*rows: tuple[str, str, str | None]) -> Model:
        return Model.of([{"id": n, "ext": n, "a": a, "up": up} for n, a, up in rows])

    world.sync(act, model(("x", "one", None), ("y", "two", None)))
    ids = {a: i for i, a in ((i, r["A__c"]) for i, r in world.org.records["Thing__c"].items())}
    run = world.sync(act, model(("x", "two", None), ("y", "one", None), ("c", "c", "one"), ("d", "d", "two")))
    assert (fates(run), run.outcome.succeeded) == ({}, 4)
    ups = {r["A__c"]: r.get("Up__c") for r in world.org.records["Thing__c"].values()}
    assert ups == {"two": None, "one": None, "c": ids["two"], "d": ids["one"]}
    run = world.sync(act, model(("x", "other", None), ("y", "one", None), ("c", "c", "one"), ("d", "d2", "two")))
    assert fates(run) == {"d": ("held", "PARENT_MISSING")}, "nobody has the name any more"


def test_a_plan_counts_on_parents_that_an_earlier_plan_makes(named: World) -> None:
    made = named.plan(
        activation(
            name="parents", object="Parent__c", match=Match("ext", "Code__c"), fields=(FieldMapping("a", "Name"),)
        ),
        Model.of([{"id": "p", "ext": "p", "a": "New", "p": None}]),
    )
    coming = made.arriving({"name"})
    plan = named.plan(activation(fields=BY_NAME), children(x="new", y="never"), arriving=coming)
    assert (plan.counts.planned, plan.counts.held, plan.awaits_parents) == (1, 1, True)


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_parents_are_who_holds_the_name_once_a_plan_is_carried_out(data: st.DataObject) -> None:
    """Over any records, rows that rename or make some, and children: the one holder then, or missing, or several."""
    names = st.sampled_from(["a", "b", "c", None])
    held = dict(enumerate(data.draw(st.lists(names, max_size=4))))
    rows = data.draw(st.lists(st.tuples(names, st.sampled_from([None, *held])), max_size=5,
                              unique_by=lambda r: object() if r[1] is None else r[1]))  # fmt: skip
    wanted = data.draw(st.lists(names, min_size=1, max_size=4))
    org = MemoryOrg(TREE, NAMED)
    org.records["Thing__c"] = {f"a01{i:012d}AAA": {"A__c": name} for i, name in held.items()}
    column = MappedColumn("up", "Up__r.A__c", TREE.fields["A__c"], lookup=UP)
    link = parents.find(column, "Thing__c", np.arange(len(wanted)), pa.array(wanted, pa.utf8()), org)
    written = pa.array([None if i is None else f"a01{i:012d}AAA" for _, i in rows], pa.utf8())
    link, maker = parents.after(link, np.arange(len(rows)), pa.array([name for name, _ in rows], pa.utf8()), written)
    then = {f"a01{i:012d}AAA": name for i, name in held.items()}
    then |= {f"new {n}" if i is None else f"a01{i:012d}AAA": name for n, (name, i) in enumerate(rows)}
    by_row = {f"new {n}" if i is None else f"a01{i:012d}AAA": n for n, (name, i) in enumerate(rows)}
    for place, name in enumerate(wanted):
        holders = [i for i, has in then.items() if name is not None and has == name]
        before = [i for i, has in held.items() if name is not None and has == name]
        if link.several[place]:
            assert len(holders) > 1 or len(before) > 1, "several now are not told apart by what the run does"
        elif link.ids[place].as_py() is not None:
            assert holders == [link.ids[place].as_py()]
        elif maker[place] >= 0:
            assert [by_row[i] for i in holders] == [maker[place]]
            assert link.missing[place]
        else:
            assert holders == []
            assert link.missing[place] == (name is not None)


# A parent that becomes null


@pytest.mark.parametrize("api", ["bulk", "collections"])
def test_a_null_parent_empties_the_lookup_by_its_own_column(world: World, api: str) -> None:
    act = activation(fields=(*BY_PARENT, FieldMapping("up", "Up__r.Ext__c")), api=api)
    world.org.add("Parent__c", Code__c="here")

    def rows(*parents: str | None) -> Model:
        return Model.of(
            [
                {"id": name, "ext": name, "a": name, "p": parent, "up": up}
                for name, parent, up in zip("xyzw", parents, (None, "x", "x", "x"), strict=True)
            ]
        )

    world.sync(act, rows("here", "here", "here", "here"))
    run = world.sync(act, rows("here", None, "here", None))
    assert (fates(run), run.outcome.succeeded) == ({}, 2)
    now = {
        name: (parent is not None, up is not None) for name, parent, up in world.org.held("A__c", "Parent__c", "Up__c")
    }
    assert now == {"x": (True, False), "y": (False, True), "z": (True, True), "w": (False, True)}


# Parents that the same run makes


@pytest.mark.parametrize("api", ["bulk", "collections"])
def test_a_hierarchy_is_made_level_by_level_in_one_run(world: World, api: str) -> None:
    act = activation(fields=TREE_FIELDS, api=api)
    model = tree(s1=None, s2="s1", s3="s2", s0="s3", s9="s9")
    plan = world.plan(act, model)
    assert [(len(b.rows), b.awaits, b.without_parents) for b in plan.batches] == [
        (1, False, False),
        (1, True, False),
        (1, True, False),
        (1, True, False),
        (1, False, True),
        (1, True, False),
    ]
    assert plan.counts.planned == 5
    [coming] = plan.arriving({"ext__c"})
    assert sorted(coming.values.to_pylist()) == ["s0", "s1", "s2", "s3", "s9"], "each once"
    run = world.sync(act, model)
    assert (fates(run), run.outcome.succeeded, run.outcome.created) == ({}, 5, 5)
    assert held_tree(world) == {"s1": None, "s2": "s1", "s3": "s2", "s0": "s3", "s9": "s9"}
    assert world.sync(act, model).outcome.rows == 0


def test_an_insert_makes_a_hierarchy_too_and_holds_a_circle(world: World) -> None:
    fields = (*TREE_FIELDS, FieldMapping("ext", "Ext__c"))
    act = activation("insert", fields=fields, on_change="ignore")
    model = tree(s1=None, s2="s1", s3="s2", s9="s9", s8="s9")
    run = world.sync(act, model, FIRST)
    assert fates(run) == {"s9": ("held", "PARENT_MISSING"), "s8": ("held", "PARENT_MISSING")}
    assert held_tree(world) == {"s1": None, "s2": "s1", "s3": "s2"}
    assert world.sync(act, model).outcome.rows == 0


def test_a_row_behind_one_that_is_refused_is_held_and_follows_it(world: World) -> None:
    act = activation(fields=TREE_FIELDS)
    model = tree(s1=None, s2="s1", s3="s2", t1=None)
    world.org.refuse = lambda row: "STRING_TOO_LONG:too long:A__c --" if row["A__c"] == "s1" else None
    run = world.sync(act, model)
    assert fates(run) == {
        "s1": ("rejected", "STRING_TOO_LONG"),
        "s2": ("held", "PARENT_MISSING"),
        "s3": ("held", "PARENT_MISSING"),
    }
    assert run.status is Status.REJECTED
    world.org.refuse = lambda row: None
    assert world.sync(act, model).outcome.succeeded == 3
    assert held_tree(world) == {"s1": None, "s2": "s1", "s3": "s2", "t1": None}


def test_a_row_behind_one_that_can_not_be_sent_is_held(world: World) -> None:
    act = activation(fields=TREE_FIELDS)
    model = Model.of(
        [
            {"id": "s1", "ext": "s1", "a": "x" * 300, "up": None},
            {"id": "s2", "ext": "s2", "a": "s2", "up": "s1"},
            {"id": "s3", "ext": "s3", "a": "s3", "up": "s2"},
        ]
    )
    assert {key: fate for key, (fate, _) in fates(world.sync(act, model)).items()} == {
        "s1": "invalid",
        "s2": "held",
        "s3": "held",
    }


def test_a_circle_whose_first_pass_is_refused_is_reported_once(world: World) -> None:
    act = activation(fields=TREE_FIELDS)
    world.org.refuse = lambda row: "STRING_TOO_LONG:too long:A__c --" if row["A__c"] == "c1" else None
    run = world.sync(act, tree(c1="c2", c2="c1", c3="c2"))
    assert fates(run) == {"c1": ("rejected", "STRING_TOO_LONG"), "c2": ("held", "PARENT_MISSING")}
    assert run.outcome.succeeded == 1
    world.org.refuse = lambda row: None
    run = world.sync(act, tree(c1="c2", c2="c1", c3="c2"))
    assert held_tree(world) == {"c1": "c2", "c2": "c1", "c3": "c2"}


def test_what_is_deeper_than_one_run_sends_goes_with_the_next(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parents, "LEVELS_MAX", 3)
    act = activation(fields=TREE_FIELDS)
    model = tree(s0=None, **{f"s{n}": f"s{n - 1}" for n in range(1, 7)})
    assert len(fates(world.sync(act, model))) == 4
    assert len(fates(world.sync(act, model))) == 1
    assert world.sync(act, model).outcome.succeeded == 1
    assert len(held_tree(world)) == 7


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_levels_come_after_their_makers(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 12))
    edges = data.draw(st.lists(st.tuples(st.integers(0, size - 1), st.integers(0, size - 1)), max_size=16))
    children_, makers = np.array([c for c, _ in edges], np.int64), np.array([m for _, m in edges], np.int64)
    level = parents.levels(children_, makers, size)

    def in_or_behind_a_circle(row: int, path: tuple[int, ...] = ()) -> bool:
        return row in path or any(in_or_behind_a_circle(m, (*path, row)) for c, m in edges if c == row)

    for row in range(size):
        assert (level[row] == parents.CIRCLE) == in_or_behind_a_circle(row)
        if level[row] != parents.CIRCLE:
            assert level[row] == max((level[m] + 1 for c, m in edges if c == row), default=0)
    behind = parents.behind(np.array([0]), children_, makers, size)
    reached = {0}
    for _ in range(size):
        reached |= {c for c, m in edges if m in reached}
    expected = reached - ({0} if not any(c == 0 and m in reached for c, m in edges) else set())
    assert set(np.flatnonzero(behind).tolist()) == expected


# Killed anywhere


@pytest.mark.slow
@pytest.mark.parametrize(("mode", "api"), [("upsert", "bulk"), ("upsert", "collections"), ("insert", "bulk")])
def test_nothing_is_doubled_and_nothing_lost_wherever_it_dies(mode: str, api: str) -> None:
    fields = (*TREE_FIELDS, FieldMapping("ext", "Ext__c")) if mode == "insert" else TREE_FIELDS
    act = activation(mode, fields=fields, api=api, **({"on_change": "ignore"} if mode == "insert" else {}))
    circle: dict[str, str | None] = {"c1": "c2", "c2": "c1"} if mode == "upsert" else {}
    whole = {"s1": None, "s2": "s1", "s3": "s2", **circle}
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        trip = Trip()
        World(Path(folder) / "whole", MemoryOrg(TREE, PARENT)).sync(act, tree(**whole), FIRST, trip=trip)
        for at in range(len(api), len(trip.seen), 5):  # other seams for each case
            world = World(Path(folder) / str(at), MemoryOrg(TREE, PARENT))
            with pytest.raises(Killed):
                world.sync(act, tree(**whole), FIRST, trip=Trip(at, after=True))
            world.sync(act, tree(**whole), FIRST)
            assert held_tree(world) == whole, f"after {trip.seen[at]}"


# What a field allows


def org_with(**changed: Field) -> MemoryOrg:
    """An org that refuses to write fields on records where describe says so."""
    schema = dataclasses.replace(TREE, fields={**TREE.fields, **changed})
    org = MemoryOrg(schema, PARENT)
    write = org._write

    def careful(operation, object_name, match, columns, row):  # type: ignore[no-untyped-def]
        made = {r.get(match) for r in org.records[object_name].values()} if match else set()
        makes = operation == "insert" or (operation == "upsert" and row[match] not in made)
        for column in columns:
            name = column.header.partition(".")[0].replace("__r", "__c")
            field = schema.field(name)
            allowed = field is None or name in ("Id", "Ext__c") or (field.createable if makes else field.updateable)
            if not allowed and row[column.header] is not None:
                return f"INVALID_FIELD_FOR_INSERT_UPDATE:closed:{name} --", "", False
        return write(operation, object_name, match, columns, row)

    org._write = careful  # type: ignore[method-assign]
    return org


MASTER = dataclasses.replace(THING.fields["Parent__c"], updateable=False)


@pytest.mark.parametrize("api", ["bulk", "collections"])
@pytest.mark.parametrize("more", [{}, {"match": Match("ext", "Code__c", create=True)}])
def test_a_field_of_new_records_only_is_left_out_for_known_ones(tmp_path: Path, api: str, more: dict) -> None:
    world = World(tmp_path / "state", org_with(Parent__c=MASTER))
    act = activation(fields=BY_PARENT, api=api, **more)
    one, two = (world.org.add("Parent__c", Code__c=name) for name in ("one", "two"))
    world.org.add(Ext__c="theirs", Code__c="theirs", Parent__c=one)
    model = children(x="one", theirs="one", y="two")
    run = world.sync(act, model, FIRST)
    assert (fates(run), run.outcome.succeeded, run.outcome.created) == ({}, 3, 2)
    assert world.org.held("A__c", "Parent__c") == sorted([("x", one), ("theirs", one), ("y", two)])
    changed = Model.of(
        [{"id": "x", "ext": "x", "a": "x2", "p": "one"}, *children(theirs="one", y="two").table.to_pylist()]
    )
    assert (fates(run := world.sync(act, changed)), run.outcome.succeeded) == ({}, 1)
    assert ("x2", one) in world.org.held("A__c", "Parent__c")
    assert world.sync(act, changed).outcome.rows == 0


def test_a_row_that_is_to_move_to_another_master_is_said_to_stay(tmp_path: Path) -> None:
    world = World(tmp_path / "state", org_with(Parent__c=MASTER))
    act = activation(fields=BY_PARENT)
    one, _ = (world.org.add("Parent__c", Code__c=name) for name in ("one", "two"))
    world.sync(act, children(x="one", y="one"))
    [note] = world.plan(act, children(x="two", y="one")).notes
    assert "1 of 1 known rows" in note
    assert "Thing__c.Parent__c" in note
    run = world.sync(act, children(x="two", y="one"))
    assert fates(run) == {}
    assert world.org.held("A__c", "Parent__c") == [("x", one), ("y", one)]


def test_a_missing_parent_of_a_known_row_holds_nothing_where_it_is_not_sent(tmp_path: Path) -> None:
    world = World(tmp_path / "state", org_with(Parent__c=MASTER))
    act = activation(fields=BY_PARENT)
    world.org.add("Parent__c", Code__c="one")
    world.sync(act, children(x="one"))
    run = world.sync(act, children(x="nowhere", y="nowhere"))
    assert fates(run) == {"y": ("held", "PARENT_MISSING")}


def test_a_field_that_joins_and_is_of_new_records_only_sends_nothing(tmp_path: Path) -> None:
    world = World(tmp_path / "state", org_with(B__c=text_field("B__c", updateable=False)))
    rows = Model.of([{"id": "x", "ext": "x", "a": "x", "b": "b"}])
    world.sync(activation(fields=(FieldMapping("a", "A__c"),)), rows)
    act = activation(fields=(FieldMapping("a", "A__c"), FieldMapping("b", "B__c")))
    assert world.sync(act, rows).outcome.rows == 0
    assert world.sync(act, rows).outcome.rows == 0


@pytest.mark.parametrize("api", ["bulk", "collections"])
def test_a_field_of_records_that_are_there_is_written_after_they_are_made(tmp_path: Path, api: str) -> None:
    world = World(tmp_path / "state", org_with(B__c=text_field("B__c", createable=False)))
    act = activation(fields=(FieldMapping("a", "A__c"), FieldMapping("b", "B__c")), api=api)
    world.org.add(Ext__c="y")
    run = world.sync(act, Model.of([{"id": n, "ext": n, "a": n, "b": "b"} for n in "xy"]))
    assert (fates(run), run.outcome.succeeded, run.outcome.created) == ({}, 2, 1)
    assert world.org.held("A__c", "B__c") == [("x", "b"), ("y", "b")]


# Rows that wait


def test_a_row_that_was_refused_keeps_the_run_from_being_green_until_it_is_delivered(world: World) -> None:
    act = activation(fields=(FieldMapping("a", "A__c"),))
    model = children(x=None, y=None)
    world.org.refuse = lambda row: "STRING_TOO_LONG:too long:A__c --" if row["A__c"] == "y" else None
    waited = 0
    for _ in range(6):
        run = world.sync(act, model)
        assert run.status is Status.REJECTED
        waited += run.plan_counts.waiting
    assert waited > 0, "some of the runs did not try it"
    assert world.sync(act, children(x=None)).status is Status.SUCCESS, "the user left it out"
    world.org.refuse = lambda row: None
    for _ in range(9):
        run = world.sync(act, model)
        if not run.plan_counts.waiting:
            break
    assert run.status is Status.SUCCESS
