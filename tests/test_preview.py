"""What `plan --show-values` shows: each change that a sync makes, and no other."""

import copy
import dataclasses
from decimal import Decimal

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from memory_org import PARENT, THING, Ceilings, FieldMapping, Match, MemoryOrg, Model, World, activation, fates
from test_leavers import adopt

from dinmo_dbt.cli import render
from dinmo_dbt.destination import Field
from dinmo_dbt.plan.preview import preview
from dinmo_dbt.rows import values

UP = Field("Up__c", "Up", "reference", length=18, reference_to=("Thing__c",), relationship_name="Up__r")
TREE = dataclasses.replace(THING, fields={**THING.fields, "Up__c": UP})
KINDS = {"n": pa.decimal128(10, 3), "on": pa.bool_()}
FIRST = Ceilings(first_sync=True)


@pytest.fixture
def world(tmp_path):
    return World(tmp_path / "state", MemoryOrg(TREE, PARENT))


def model(*rows):
    names = ("id", "ext", "a", "n", "on", "p", "up")
    listed = [{name: row.get(name) for name in names} for row in rows]
    return Model(pa.table({n: pa.array([row[n] for row in listed], KINDS.get(n, pa.utf8())) for n in names}))


def shown(world, act, rows, **more):
    return {row.key: row for row in preview(world.plan(act, rows, FIRST, **more), world.org)}


def changed(row):
    return [(change.field, change.now, change.then) for change in row.fields]


# The law

KEYS = st.sampled_from("abcd")
ROW = st.fixed_dictionaries(
    {
        "ext": st.sampled_from(["own", "own", "e1", "e2"]),
        "a": st.sampled_from(["x", "y", " x ", None]),
        "n": st.sampled_from([None, Decimal("1"), Decimal("1.500"), Decimal("1.239")]),
        "on": st.sampled_from([True, False]),
        "p": st.sampled_from(["p", "q", "none", None]),
        "up": st.sampled_from([*"abcd", None]),
    }
)
SAME = {"ext": "own", "a": "x", "n": None, "on": True, "p": "p", "up": None}
STEPS = st.lists(st.dictionaries(KEYS, ROW, min_size=1), min_size=1, max_size=3)
EDITS = st.lists(st.tuples(st.integers(0, 6), st.sampled_from(["A__c", "N__c", "Parent__c", "gone"])), max_size=4)
FIELDS = {"id": "Code__c", "a": "A__c", "n": "N__c", "on": "On__c", "p": "Parent__r.Code__c", "up": "Up__r.Ext__c"}


@pytest.mark.slow
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=STEPS,
    edits=EDITS,
    mode=st.sampled_from(["insert", "update", "upsert"]),
    kept=st.sets(st.sampled_from(["a", "n", "p", "up"])),
    mapped=st.sets(st.sampled_from(["a", "n", "on", "p", "up"]), min_size=1),
    missing=st.sampled_from(["hold", "set_null", "reject"]),
    by_ext=st.booleans(),
    api=st.sampled_from(["bulk", "auto"]),
    removed=st.sampled_from(["ignore", "delete", "set"]),
)
@example(  # of one row the match value goes to another, which the state does not know
    steps=[{"a": SAME | {"ext": "e1"}}, {"a": SAME | {"ext": "e2"}, "c": SAME | {"ext": "e1"}}],
    edits=[], mode="upsert", kept=set(), mapped={"a"}, missing="hold", by_ext=False, api="bulk", removed="ignore",
)  # fmt: skip
@example(  # the record of a row that left is gone by then
    steps=[{"c": SAME}, {"a": SAME}], edits=[(2, "gone")], mode="insert",
    kept=set(), mapped={"a"}, missing="hold", by_ext=False, api="bulk", removed="set",
)  # fmt: skip
@example(  # the parent that a row gets leaves, and its record is deleted
    steps=[{"c": SAME, "d": SAME}, {"c": SAME | {"up": "d"}}], edits=[], mode="upsert",
    kept=set(), mapped={"up"}, missing="hold", by_ext=False, api="bulk", removed="delete",
)  # fmt: skip
def test_what_is_shown_is_what_becomes_of_the_records(
    tmp_path_factory, steps, edits, mode, kept, mapped, missing, by_ext, api, removed
):
    """Applied to what Salesforce held before a sync, the shown changes give what it holds after it."""
    world = World(tmp_path_factory.mktemp("w") / "state", MemoryOrg(TREE, PARENT))
    org = world.org
    parents = [org.add("Parent__c", Code__c=name) for name in "pq"]
    for key in "ab":  # there before, as nobody's
        org.add(Ext__c=f"own{key}", Code__c=key, A__c="theirs", Parent__c=parents[0], N__c="1.5")
    fields = [FieldMapping(n, FIELDS[n], "keep" if n in kept else "clear") for n in ("id", *sorted(mapped))]
    match = None if mode == "insert" else Match("ext", "Ext__c")
    act = activation(mode, fields=tuple(fields), match=match, key=("ext",) if by_ext else ("id",),
                     missing_parent=missing, api=api, on_removed=removed,
                     on_removed_set=(("A__c", "left"), ("Up__c", None)) if removed == "set" else ())  # fmt: skip
    for number, step in enumerate(steps):
        rows = [row | {"id": key, "ext": row["ext"].replace("own", f"own{key}")} for key, row in step.items()]
        rows = list({row["ext"]: row | {"up": row["up"] and f"own{row['up']}"} for row in rows}.values())
        if number == len(steps) - 1:
            edit(org, edits, parents)
        changes = preview(world.plan(act, model(*rows), FIRST), org)
        before = copy.deepcopy(org.records["Thing__c"])
        run = world.sync(act, model(*rows), FIRST)
        by_key = {row["ext" if by_ext else "id"]: row["id"] for row in rows}
        # Salesforce empties a lookup to a record that is deleted, by the same run too.
        gone = {change.record_id for change in changes if change.kind == "delete"} & before.keys()
        emptied = gone | {before[record_id].get(name) for record_id in gone for name in ("Ext__c", "Code__c")}
        for change in changes:
            if change.key not in fates(run):
                held_as_shown(org, before, change, by_key.get(change.key), emptied)


def edit(org, edits, parents):
    for at, what in edits:
        ids = list(org.records["Thing__c"])
        if at >= len(ids):
            continue
        if what == "gone":
            org.delete(ids[at])
        else:
            org.records["Thing__c"][ids[at]][what] = {"A__c": "x", "N__c": "1.24", "Parent__c": parents[1]}[what]


def held_as_shown(org, before, change, code, emptied):
    after = org.records["Thing__c"]
    if change.kind == "delete":
        held = before.get(change.record_id, {})
        assert change.record_id not in after and all(each.now == held[each.field] for each in change.fields)
        return
    if "gone" in change.note:
        assert change.record_id not in before and change.record_id not in after and not change.fields
        return
    if change.record_id is None:
        [record_id] = [i for i, r in after.items() if i not in before and r.get("Code__c") == code]
    else:
        record_id = change.record_id
    was, now = before.get(record_id, {}), after[record_id]
    told = {each.field: each for each in change.fields}
    for name in TREE.fields:
        field = TREE.fields[name]
        header = name if name in told else {"Parent__c": "Parent__r.Code__c", "Up__c": "Up__r.Ext__c"}.get(name, name)
        if name == "Id":
            continue
        wanted = told[header].then if header in told else was.get(name)
        if header != name and header in told:
            assert told[header].now == reached(before, org, name, was.get(name))
            held = reached(after, org, name, now.get(name))
            assert held == wanted or (held is None and wanted in emptied)
        else:
            is_emptied = header != name and now.get(name) is None and wanted in emptied
            assert is_emptied or alike(now.get(name), wanted, field), (name, was.get(name), now.get(name), wanted)
            assert header not in told or not was or not alike(was.get(name), wanted, field), "no change is none"


def reached(things, org, name, record_id):
    if record_id is None:
        return None
    if name == "Up__c":
        return things.get(record_id, {}).get("Ext__c") or record_id
    return org.records["Parent__c"][record_id]["Code__c"]


def alike(first, second, field):
    both = [values.held_form(values.from_text(pa.array([t], pa.utf8()), field), field)[0] for t in (first, second)]
    return both[0] == both[1]


# Cases of it


def test_a_null_that_keeps_and_a_parent_that_is_the_same_are_no_changes(world):
    p, q = (world.org.add("Parent__c", Code__c=name) for name in "pq")
    fields = (FieldMapping("a", "A__c", "keep"), FieldMapping("n", "N__c"), FieldMapping("p", "Parent__r.Code__c"))
    act = activation(fields=fields)
    world.sync(act, model({"id": "1", "ext": "e1", "a": "x", "n": Decimal(1), "p": "p"}), FIRST)
    row = shown(world, act, model({"id": "1", "ext": "e1", "a": None, "n": Decimal(2), "p": "p"}))["1"]
    assert (row.kind, changed(row)) == ("update", [("N__c", "1", "2")])
    row = shown(world, act, model({"id": "1", "ext": "e1", "a": "x", "n": Decimal(1), "p": "q"}))["1"]
    assert changed(row) == [("Parent__r.Code__c", "p", "q")]
    row = shown(world, act, model({"id": "1", "ext": "e1", "a": "x", "n": Decimal(1), "p": None}))["1"]
    assert changed(row) == [("Parent__r.Code__c", "p", None)]
    assert {p, q} == set(world.org.records["Parent__c"])


def test_an_upsert_of_a_row_that_the_state_does_not_know_may_create_or_update(world):
    there = world.org.add(Ext__c="e1", A__c="x", B__c="theirs")
    world.org.add(Ext__c="e3")
    world.org.add(Ext__c="e3")
    rows = Model.of([{"id": n, "ext": f"e{n}", "a": "x", "b": "y"} for n in "123"])
    found = shown(world, activation(), rows)
    assert {key: (row.kind, row.record_id) for key, row in found.items()} == {
        "1": ("create or update", there),
        "2": ("create or update", None),
        "3": ("create or update", None),
    }
    assert changed(found["1"]) == [("B__c", "theirs", "y")]
    assert changed(found["2"]) == [("Ext__c", None, "e2"), ("A__c", None, "x"), ("B__c", None, "y")]
    assert changed(found["3"]) == [], "it will be refused"
    told = [line for row in found.values() for line in render.sample_lines(dataclasses.asdict(row))]
    assert told == [
        f"create or update 1 ({there}, it holds this Thing__c.Ext__c now)",
        "    B__c: theirs -> y",
        "create or update 2 (no record holds this Thing__c.Ext__c now)",
        "    Ext__c: e2",
        "    A__c: x",
        "    B__c: y",
        "create or update 3 (several records hold this Thing__c.Ext__c: Salesforce will refuse it)",
    ]


def test_a_new_record_is_shown_with_each_value_that_it_is_given(world):
    """A checkbox that is not ticked among them: Salesforce may tick it by default."""
    fields = (FieldMapping("on", "On__c"), FieldMapping("n", "N__c"))
    row = shown(world, activation(fields=fields), model({"id": "1", "ext": "e1", "on": False, "n": None}))["1"]
    assert changed(row) == [("Ext__c", None, "e1"), ("On__c", None, "false")]


def test_a_record_that_is_gone_or_holds_everything_already_is_said_to_be(world):
    i = world.org.add(Ext__c="e1")
    act = activation("update")
    rows = Model.of([{"id": "1", "ext": "e1", "a": "x", "b": "y"}])
    world.sync(act, rows)
    world.org.records["Thing__c"][i] |= {"A__c": "z"}
    again = Model.of([{"id": "1", "ext": "e1", "a": "z", "b": "y"}])
    [row] = shown(world, act, again).values()
    assert render.sample_lines(dataclasses.asdict(row))[1:] == ["    nothing changes: Salesforce holds these values"]
    world.org.delete(i)
    [row] = shown(world, act, again).values()
    assert (row.kind, row.record_id, changed(row)) == ("update", i, [])
    assert row.note == "no such record: Salesforce will refuse it"


def test_no_more_rows_are_shown_than_are_asked_for_and_known_ones_come_first(world):
    rows = Model.of([{"id": f"{n:02}", "ext": f"e{n}", "a": "x", "b": "y"} for n in range(30)])
    assert len(shown(world, activation(), rows)) == 20
    world.sync(activation(), Model(rows.table.slice(28)))
    more = Model.of([{"id": f"{n:02}", "ext": f"e{n}", "a": "z", "b": "y"} for n in range(30)])
    kinds = [row.kind for row in shown(world, activation(), more).values()]
    assert (kinds.count("update"), len(kinds)) == (2, 20)


# Records that are deleted or set


def test_records_of_rows_that_left_are_shown_as_they_are_deleted(world):
    act = activation(on_removed="delete", fields=(FieldMapping("a", "A__c"), FieldMapping("n", "N__c")))
    rows = [{"id": n, "ext": f"e{n}", "a": "x", "n": Decimal("1.5")} for n in "123"]
    world.sync(act, model(*rows), FIRST)
    left = {r["Ext__c"]: i for i, r in world.org.records["Thing__c"].items()}
    world.org.records["Thing__c"][left["e2"]]["A__c"] = "theirs"
    world.org.delete(left["e3"])
    found = shown(world, act, model({**rows[0], "a": "y"}))
    assert [found[key].kind for key in "123"] == ["update", "delete", "delete"]
    told = [line for key in "23" for line in render.sample_lines(dataclasses.asdict(found[key]))]
    assert told == [
        f"delete 2 ({left['e2']}, left the segment)",
        "    Ext__c: e2",
        "    A__c: theirs",
        "    N__c: 1.5",
        f"delete 3 ({left['e3']}, left the segment; the record is gone already)",
    ]


def test_records_of_rows_that_left_are_shown_as_they_are_set(world):
    fields = (FieldMapping("a", "A__c"), FieldMapping("p", "Parent__r.Code__c"))
    parent = world.org.add("Parent__c", Code__c="p")
    act = activation(fields=fields, on_removed="set", on_removed_set=(("A__c", "closed"), ("Parent__c", None)))
    rows = [{"id": n, "ext": f"e{n}", "a": "x", "p": "p"} for n in "12"]
    world.sync(act, model(*rows), FIRST)
    [record_id] = [i for i, r in world.org.records["Thing__c"].items() if r["Ext__c"] == "e2"]
    row = shown(world, act, model(rows[0]))["2"]
    assert (row.kind, row.record_id, row.note) == ("update", record_id, "left the segment")
    assert changed(row) == [("A__c", "x", "closed"), ("Parent__c", parent, None)]


def test_a_list_of_records_to_delete_is_shown_with_what_they_hold(world):
    there = world.org.add(Ext__c="e1", A__c="x")
    [(key, row)] = shown(world, activation("delete", fields=()), model({"id": "1", "ext": "e1"})).items()
    assert (key, row.kind, row.record_id, row.note) == ("1", "delete", there, "")
    assert changed(row) == [("Ext__c", "e1", None)]


def test_what_is_deleted_is_not_hidden_behind_what_is_changed(world):
    act = activation(on_removed="delete")
    rows = [{"id": str(n), "ext": f"e{n}", "a": "x", "b": "y"} for n in range(60)]
    world.sync(act, Model.of(rows), FIRST)
    kinds = [row.kind for row in shown(world, act, Model.of([row | {"a": "z"} for row in rows[:30]])).values()]
    assert kinds == ["update"] * 20 + ["delete"] * 20


def test_a_field_that_is_sent_to_some_and_set_for_as_many_others_is_reported_for_both(tmp_path):
    """Batches of the same columns: their rows are numbers of the spool for one, of those that left for the other."""
    world = World(tmp_path / "state")
    act = activation(
        "update", api="collections", match=Match("code", "Code__c"), fields=(FieldMapping("s", "Source__c"),),
        on_removed="set", on_removed_set=(("Source__c", "closed"),),
    )  # fmt: skip
    rows = [{"id": str(n), "code": f"c{n}", "s": "open"} for n in range(6)]
    for row in rows:
        world.org.add(Code__c=row["code"])
    world.sync(act, Model.of(rows))
    adopt(world, act)
    told = preview(world.plan(act, Model.of([{**row, "s": "new"} for row in rows[:3]])), world.org)
    assert [change.then for row in told for change in row.fields] == ["new"] * 3 + ["closed"] * 3
