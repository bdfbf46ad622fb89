"""What a plan sends, leaves out and refuses: every row once, no record twice, guards at their exact limits."""

import dataclasses

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from memory_org import (
    ORG,
    PARENT,
    THING,
    Ceilings,
    FieldMapping,
    Flag,
    Match,
    MemoryOrg,
    Model,
    World,
    activation,
    fates,
)

from dinmo_dbt.activation import Ceiling, Guards
from dinmo_dbt.destination import Api, Operation
from dinmo_dbt.errors import ConfigError, Refused, StateError
from dinmo_dbt.plan import batches as batching
from dinmo_dbt.plan.draw import draw
from dinmo_dbt.rows import spooled
from dinmo_dbt.rows.reasons import Reason
from dinmo_dbt.state.spool import ScanSpool

THREE = (FieldMapping("a", "A__c"), FieldMapping("b", "B__c"), FieldMapping("c", "Code__c"))


@pytest.fixture
def world(tmp_path):
    return World(tmp_path / "state")


def rows(*texts, **columns):
    """`1 e1 x y` is id, ext, a and b; further columns are the same for every row."""
    return Model.of([dict(zip(("id", "ext", "a", "b"), text.split(), strict=True)) | columns for text in texts])


def batches(plan):
    return [(str(b.operation), str(b.api), [c.header for c in b.columns], len(b.rows)) for b in plan.batches]


def sent(plan):
    return [
        {k: v for k, v in row.items() if k not in ("kh", "ck", "flags")}
        for b in plan.batches
        for row in plan.batch_rows(b).to_pylist()
    ]


# Batches


def test_few_rows_go_by_collections_and_many_by_bulk(world, monkeypatch):
    monkeypatch.setattr(batching, "COLLECTIONS_ROWS_MAX", 2)
    two, three = rows("1 e1 x y", "2 e2 x y"), rows("1 e1 x y", "2 e2 x y", "3 e3 x y")
    assert [b.api for b in world.plan(activation(), two).batches] == [Api.COLLECTIONS]
    assert [b.api for b in world.plan(activation(), three).batches] == [Api.BULK]
    assert [b.api for b in world.plan(activation(api="bulk"), two).batches] == [Api.BULK]
    forced = world.plan(activation(api="collections"), three)
    assert [(b.api, len(b.rows)) for b in forced.batches] == [(Api.COLLECTIONS, 2), (Api.COLLECTIONS, 1)]
    assert [b.api for b in world.plan(activation("insert", api="collections"), two).batches] == [Api.BULK]


def test_batches_are_cut_by_rows_and_by_bytes(world, monkeypatch):
    monkeypatch.setattr(batching, "BULK_ROWS_MAX", 3)
    model = rows(*(f"{n} e{n} x y" for n in range(8)))
    assert [len(b.rows) for b in world.plan(activation("insert"), model).batches] == [3, 3, 2]
    monkeypatch.setattr(batching, "BULK_ROWS_MAX", 1000)
    monkeypatch.setattr(batching, "BULK_BYTES_MAX", 32_000 + 150)
    cut = world.plan(activation("insert"), model).batches
    assert len(cut) > 1
    assert sorted(np.concatenate([b.rows for b in cut]).tolist()) == list(range(8))
    monkeypatch.setattr(batching, "BULK_BYTES_MAX", 32_000 + 1)
    assert [len(b.rows) for b in world.plan(activation("insert"), model).batches] == [1] * 8


def test_the_byte_count_is_never_too_small(world, tmp_path):
    from dinmo_dbt.plan.plan import payload_batch
    from dinmo_dbt.salesforce.encode import write_csv

    parent = world.org.add("Parent__c", Code__c="p")
    assert parent
    fields = (FieldMapping("a", "A__c"), FieldMapping("n", "N__c"), FieldMapping("p", "Parent__r.Code__c"))
    act = activation("insert", fields=fields, constants=(("Source__c", '"é"' * 40),))
    model = Model.of([{"id": str(n), "a": '"' * 60 + "é\n", "n": "1", "p": "p"} for n in range(50)])
    model.table = model.table.set_column(2, "n", pa.array([-12345678901234.56] * 50))
    plan = world.plan(act, model)
    [planned] = plan.batches
    with (tmp_path / "csv").open("w+b") as file:
        size = write_csv(payload_batch(plan, planned, "b", plan.batch_rows(planned)), file)
    constant = 2 * len(('"é"' * 40).encode()) + 3
    bound = int(plan.changes.width.sum()) + 50 * (constant + 19)
    assert size - 100 <= bound, "the header has its own allowance"


def test_the_text_of_bulks_null_goes_by_collections_or_not_at_all(world):
    model = rows("1 e1 #N/A y", "2 e2 x y")
    plan = world.plan(activation(api="bulk"), model)
    assert [(b.api, len(b.rows)) for b in plan.batches] == [(Api.BULK, 1), (Api.COLLECTIONS, 1)]
    world.sync(activation(api="bulk"), model)
    assert world.org.held("A__c") == [("#N/A",), ("x",)]
    insert = world.plan(activation("insert", name="others"), rows("3 e3 #N/A y"), Ceilings(first_sync=True))
    assert insert.left_out["code"].to_pylist() == ["V-BULK-NULL-TEXT"]
    assert (insert.counts.invalid, insert.counts.planned) == (1, 0)


def test_a_row_too_long_for_bulk_goes_by_collections_or_not_at_all(world, monkeypatch):
    long, short = "é" * 30, "é" * 15
    monkeypatch.setattr(spooled, "ROW_CHARACTERS_MAX", 40)
    model = rows(f"1 e1 {long} y", f"2 e2 {short} y")
    plan = world.plan(activation(api="bulk"), model)
    assert [(b.api, len(b.rows)) for b in plan.batches] == [(Api.BULK, 1), (Api.COLLECTIONS, 1)]
    assert plan.changes.no_bulk.tolist() == [Reason.ROW_SIZE, 0], "characters count, not bytes"
    world.sync(activation(api="bulk"), model)
    assert sorted(world.org.held("A__c")) == [(short,), (long,)]
    insert = world.plan(activation("insert", name="others"), model, Ceilings(first_sync=True))
    assert insert.left_out["code"].to_pylist() == ["V-ROW-SIZE"]
    assert (insert.counts.invalid, insert.counts.planned) == (1, 1)


def test_the_half_that_an_upsert_creates_is_an_insert_with_an_inserts_care(world):
    act = activation(match=Match("ext", "Code__c", create=True), fields=(FieldMapping("a", "A__c"),))
    found = world.org.add(Code__c="e1")
    plan = world.plan(act, rows("1 e1 x y", "2 e2 #N/A y", "3 e3 x y"))
    assert batches(plan) == [
        ("update", "collections", ["Id", "Code__c", "A__c"], 1),
        ("insert", "bulk", ["Code__c", "A__c"], 1),
    ]
    assert sent(plan)[0]["Id"] == found
    assert plan.left_out["code"].to_pylist() == ["V-BULK-NULL-TEXT"]
    with_parent = dataclasses.replace(act, fields=(FieldMapping("a", "A__c"), FieldMapping("b", "Parent__r.Code__c")))
    parent = world.org.add("Parent__c", Code__c="y")
    plan = world.plan(with_parent, rows("1 e1 x y", "2 e2 x y", "3 e3 x none"))
    assert [(b.operation, len(b.rows)) for b in plan.batches] == [(Operation.UPDATE, 1), (Operation.INSERT, 1)]
    assert sent(plan)[1]["Parent__c"] == parent
    assert plan.left_out.select(["fate", "code"]).to_pylist() == [{"fate": "held", "code": "PARENT_MISSING"}]


# Records


def test_two_rows_never_have_one_record(world):
    act = activation("update", match=Match("ext", "Code__c"))
    record = world.org.add(Code__c="e1")
    world.sync(act, rows("1 e1 x y"))
    moved = world.sync(act, rows("1 moved x y"))
    assert moved.outcome.succeeded == 1, "a known row goes by its record id"
    newcomer = rows("1 moved x y", "2 e1 z z")
    run = world.sync(act, newcomer)
    assert fates(run) == {"2": ("ambiguous", "RECORD_CLAIMED_TWICE")}
    assert world.org.records["Thing__c"][record]["A__c"] == "x"
    run = world.sync(act, rows("2 e1 z z"))
    assert run.outcome.succeeded == 1, "the row that had it left the model"


def test_several_records_for_a_row_and_none_are_fates_of_their_own(world):
    act = activation("update", match=Match("ext", "Code__c"))
    for text in ("E1", "e1", "e2"):
        world.org.add(Code__c=text)
    run = world.sync(act, rows("1 e1 x y", "2 E2 x y", "3 e3 x y"))
    assert fates(run) == {"1": ("ambiguous", "SEVERAL_RECORDS"), "3": ("no_match", "NO_RECORD")}
    assert run.outcome.succeeded == 1
    world.org.add(Code__c="e3")
    assert world.sync(act, rows("3 e3 x y")).outcome.succeeded == 1


def test_a_record_found_by_two_queries_is_one_record(world):
    """Values that differ only in case are asked apart and each finds the record."""
    real = world.org.lookup
    world.org.lookup = lambda *a: pa.concat_tables([real(*a), real(*a)])
    world.org.add("Parent__c", Code__c="p")
    fields = (FieldMapping("a", "A__c"), FieldMapping("b", "Parent__r.Code__c"))
    plan = world.plan(activation("insert", fields=fields), rows("1 e1 x p"))
    assert plan.counts.planned == 1


def test_a_match_value_that_moved_takes_its_record_along_before_another_row_takes_the_value(world):
    act = activation()
    world.sync(act, rows("1 e1 one y"))
    run = world.sync(act, rows("1 e2 one y", "2 e1 two y"))
    assert run.outcome.succeeded == 2
    assert world.org.held("Ext__c", "A__c") == [("e1", "two"), ("e2", "one")]


def planned_without_ids(world, act, model):
    """A plan from a snapshot that knows no record's id, as rows that look alike to Salesforce leave it."""
    state = world.state().view(ORG, act)

    class Nameless:
        kh, ck, flags, keys = state.snapshot.kh, state.snapshot.ck, state.snapshot.flags, state.snapshot.keys

        def record_ids(self, positions):
            return pa.nulls(len(positions), pa.utf8())

    state._snapshot = Nameless()  # as if it had been read
    return draw(act, model, world.org, state, ScanSpool(world.folder))


def test_a_changed_row_without_a_record_id_is_held_where_its_match_may_have_moved(world):
    act = activation()
    world.sync(act, rows("1 e1 one y"))
    plan = planned_without_ids(world, act, rows("1 e9 two y"))
    assert plan.left_out.select(["fate", "code"]).to_pylist() == [{"fate": "held", "code": "MATCH_CHANGED"}]
    assert plan.counts.add_up
    keyed = activation(name="keyed", key=("ext",))
    world.sync(keyed, rows("1 e1 one y"))
    assert batches(planned_without_ids(world, keyed, rows("1 e1 two y")))[0][0] == "upsert", "here it is the key"


@pytest.mark.parametrize("key", ["id", "ext"])
def test_a_remapped_row_without_a_record_id_is_sent_whole(world, key):
    act = activation(key=(key,))
    world.sync(act, rows("1 e1 one y", c="c"))
    wider = dataclasses.replace(act, fields=THREE)
    plan = planned_without_ids(world, wider, rows("1 e1 one y", c="c"))
    assert batches(plan) == [("upsert", "collections", ["Ext__c", "A__c", "B__c", "Code__c"], 1)]


def test_a_record_that_is_gone_is_found_or_made_again(world):
    act = activation()
    world.sync(act, rows("1 e1 one y"))
    world.org.delete(next(iter(world.org.records["Thing__c"])))
    run = world.sync(act, rows("1 e1 two y"))
    assert fates(run) == {"1": ("rejected", "ENTITY_IS_DELETED")}
    assert world.snapshot(act) == {}
    run = world.sync(act, rows("1 e1 two y"))
    assert (run.outcome.succeeded, run.outcome.created) == (1, 1)
    assert world.org.held("Ext__c", "A__c") == [("e1", "two")]


def test_a_parent_that_is_gone_does_not_forget_the_record(world):
    act = activation()
    world.sync(act, rows("1 e1 one y"))
    world.org.refuse = lambda row: "ENTITY_IS_DELETED:entity is deleted:Parent__c --"
    assert world.sync(act, rows("1 e1 two y")).outcome.rejected == 1
    world.org.refuse = lambda row: None
    assert list(world.snapshot(act)) == ["1"]
    world.sync(act, rows("1 e2 three y"))
    world.sync(act, rows("1 e2 three y"))
    assert world.org.held("Ext__c", "A__c") == [("e2", "three")]


def test_where_the_answer_may_speak_of_a_parent_the_record_itself_is_asked_for(world):
    parent = world.org.add("Parent__c", Code__c="p")
    act = activation(fields=(FieldMapping("a", "A__c"), FieldMapping("b", "Parent__r.Code__c")))
    world.sync(act, rows("1 e1 one p", "2 e2 one p"))
    by_match = {r["Ext__c"]: i for i, r in world.org.records["Thing__c"].items()}
    world.org.delete(by_match["e2"])
    world.org.refuse = lambda row: "ENTITY_IS_DELETED:entity is deleted:--"
    assert world.sync(act, rows("1 m1 two p", "2 m2 two p")).outcome.rejected == 2
    world.org.refuse = lambda row: None
    assert list(world.snapshot(act)) == ["1"], "the other one lives"
    world.sync(act, rows("1 m1 two p", "2 m2 two p"))
    assert world.org.held("Ext__c", "A__c", "Parent__c") == [("m1", "two", parent), ("m2", "two", parent)]


# A mapping that changed


@pytest.mark.parametrize("mode", ["upsert", "update"])
def test_an_added_field_is_all_that_is_sent(world, mode):
    act = activation(mode)
    world.org.add(Ext__c="e1")
    world.org.add(Ext__c="e2")
    world.sync(act, rows("1 e1 x y", "2 e2 x y", c="c"))
    wider = dataclasses.replace(act, fields=THREE)
    plan = world.plan(wider, rows("1 e1 x y", "2 e2 new y", c="c"))
    wide = ["Id", "Ext__c", "A__c", "B__c", "Code__c"] if mode == "upsert" else ["Id", "A__c", "B__c", "Code__c"]
    assert batches(plan) == [("update", "collections", wide, 1), ("update", "collections", ["Id", "Code__c"], 1)]
    world.sync(wider, rows("1 e1 x y", "2 e2 new y", c="c"))
    assert world.org.held("Ext__c", "A__c", "Code__c") == [("e1", "x", "c"), ("e2", "new", "c")]
    assert not world.plan(wider, rows("1 e1 x y", "2 e2 new y", c="c")).has_changes
    assert len(world.state().view(ORG, wider).mappings) == 1


def test_a_row_whose_record_is_gone_is_never_made_of_its_new_field_alone(world):
    act = activation(key=("ext",))
    world.sync(act, rows("1 e1 x y", c="c"))
    world.org.delete(next(iter(world.org.records["Thing__c"])))
    wider = dataclasses.replace(act, fields=THREE)
    assert fates(world.sync(wider, rows("1 e1 x y", c="c"))) == {"e1": ("rejected", "ENTITY_IS_DELETED")}
    world.sync(wider, rows("1 e1 x y", c="c"))
    assert world.org.held("Ext__c", "A__c", "B__c", "Code__c") == [("e1", "x", "y", "c")]


CHANGED_MAPPINGS = {
    "a field added": ({"fields": THREE}, {"Code__c"}),
    "a field removed": ({"fields": (FieldMapping("a", "A__c"),)}, set()),
    "a field renamed": ({"fields": (FieldMapping("a", "A__c"), FieldMapping("b", "Code__c"))}, {"Code__c"}),
    "a constant added": ({"constants": (("Source__c", "dbt"),)}, {"Source__c"}),
    "a nulls policy": ({"fields": (FieldMapping("a", "A__c"), FieldMapping("b", "B__c", "keep"))}, {"B__c"}),
}


@pytest.mark.parametrize("name", list(CHANGED_MAPPINGS))
def test_an_insert_sends_nothing_for_a_changed_mapping(world, name):
    changed, _ = CHANGED_MAPPINGS[name]
    act = activation("insert")
    world.sync(act, rows("1 e1 x y", "2 e2 x y", c="c"))
    other = dataclasses.replace(act, **changed)
    run = world.sync(other, rows("1 e1 x y", "2 e2 x y", c="c"))
    assert (run.plan_counts.planned, run.plan_counts.unchanged) == (0, 2)
    run = world.sync(other, rows("1 e1 new y", "2 e2 x y", c="c"))
    assert (run.plan_counts.changed, run.outcome.succeeded) == (1, 1)
    run = world.sync(act, rows("1 e1 new y", "2 e2 x y", c="c"))
    assert run.plan_counts.planned == 0, "and none on the way back"


@pytest.mark.parametrize("name", list(CHANGED_MAPPINGS))
def test_an_upsert_sends_what_a_changed_mapping_adds(world, name):
    changed, added = CHANGED_MAPPINGS[name]
    act = activation()
    world.sync(act, rows("1 e1 x y", c="c"))
    other = dataclasses.replace(act, **changed)
    plan = world.plan(other, rows("1 e1 x y", c="c"))
    assert {c.header for b in plan.batches for c in b.columns} - {"Id"} == added
    assert plan.counts.remapped == (1 if added else 0)
    world.sync(other, rows("1 e1 x y", c="c"))
    assert not world.plan(other, rows("1 e1 x y", c="c")).has_changes


def test_a_field_that_changed_its_type_is_sent_again_and_never_inserted(world):
    for mode, planned in (("upsert", ["Id", "N__c"]), ("insert", None)):
        act = activation(mode, name=mode, fields=(FieldMapping("a", "A__c"), FieldMapping("n", "N__c")))
        model = Model(pa.table({"id": ["1"], "ext": ["e1"], "a": ["x"], "n": pa.array([5])}))
        as_text = {**THING.fields, "N__c": dataclasses.replace(THING.fields["A__c"], name="N__c")}
        world.org.schemas["Thing__c"] = dataclasses.replace(THING, fields=as_text)
        world.sync(act, model, Ceilings(first_sync=True))
        world.org.schemas["Thing__c"] = THING
        plan = world.plan(act, model)
        assert [[c.header for c in b.columns] for b in plan.batches] == ([planned] if planned else [])
        world.sync(act, model)
        assert not world.plan(act, model).has_changes


def test_a_row_that_could_not_be_sent_keeps_the_older_mapping(world):
    """Several mappings are stored until no known row needs them: then an insert can still tell what changed."""
    act = activation("insert")
    long = "x" * 300
    world.sync(act, rows("1 e1 x y", "2 e2 x y", c="c", d="d"))
    mappings = [THREE, (*THREE, FieldMapping("d", "Source__c")), THREE[:1], THREE[1:], THREE[2:], (THREE[0], THREE[2])]
    for fields in mappings:
        other = dataclasses.replace(act, fields=fields)
        model = rows(f"1 e1 {long} {long}", "2 e2 x y", c="c" if fields == THREE[2:] else long, d="d")
        if fields == THREE[2:]:
            model = rows("1 e1 x y", "2 e2 x y", c=long, d="d")
        assert world.sync(other, model).plan_counts.planned == 0
    run = world.sync(other, rows("1 e1 x y", "2 e2 x y", c="c", d="d"))
    assert run.plan_counts.planned == 0, "both rows are as they were inserted, however many mappings ago"
    assert len(world.org.records["Thing__c"]) == 2
    assert len(world.state().view(ORG, other).mappings) == 1


def test_a_row_that_left_under_an_older_mapping_is_not_inserted_again(world):
    act = activation("insert")
    world.sync(act, rows("1 e1 x y", "2 e2 x y", c="c"))
    world.sync(act, rows("1 e1 x y", c="c"))
    wider = dataclasses.replace(act, fields=THREE)
    world.sync(wider, rows("1 e1 x y", c="c"))
    assert world.snapshot(wider)["2"][1] & Flag.STALE
    (note,) = world.plan(wider, rows("1 e1 x y", "2 e2 other y", c="c")).notes
    assert note.startswith("1 rows are back that left before the mapping's fields or types changed")
    run = world.sync(wider, rows("1 e1 x y", "2 e2 other y", c="c"))
    assert run.plan_counts.planned == 0
    run = world.sync(wider, rows("1 e1 x y", "2 e2 third y", c="c"))
    assert run.outcome.succeeded == 1


def test_a_stored_column_that_left_the_model_stops_an_insert_and_is_a_note_of_an_upsert(world):
    for mode in ("insert", "upsert"):
        act = activation(mode, name=mode)
        world.sync(act, rows("1 e1 x y"), Ceilings(first_sync=True))
        narrow = dataclasses.replace(act, fields=(FieldMapping("a", "A__c"),))
        model = Model.of([{"id": "1", "ext": "e1", "a": "x"}])
        if mode == "insert":
            with pytest.raises(StateError, match=r"DB507.*gone from the model: b"):
                world.plan(narrow, model)
        else:
            plan = world.plan(narrow, model)
            assert plan.counts.changed == 1
            assert "b is gone from the model" in plan.notes[0]


def test_another_match_column_is_another_state(world):
    """Records would keep the values of the old column, and an upsert by the new ones would make second records."""
    world.sync(activation(), rows("1 e1 x y"))
    with pytest.raises(StateError, match=r"DB505.*match was ext, Ext__c, is a, Ext__c"):
        world.plan(activation(match=Match("a", "Ext__c"), fields=(FieldMapping("b", "B__c"),)), rows("1 e1 x y"))
    world.plan(activation(match=Match("EXT", "ext__C"), object="Thing__c"), rows("1 e1 x y"))


# Guards


def grown(count, changed=0, **columns):
    return rows(*(f"{n} e{n} {'new' if n < changed else 'x'} y" for n in range(count)), **columns)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("known", "ceiling", "allow", "changed", "refused"),
    [
        (1_000, Ceiling(percent=10), 0, 100, False),
        (1_000, Ceiling(percent=10), 0, 101, True),
        (1_000, Ceiling(percent=10), 101, 101, False),
        (1_000, Ceiling(percent=10), 101, 102, True),
        (1_000, Ceiling(rows=3), 0, 3, False),
        (1_000, Ceiling(rows=3), 0, 4, True),
        (1_000, Ceiling(percent=0), 0, 10, False),  # a percentage has a floor of ten rows
        (1_000, Ceiling(percent=0), 0, 11, True),
        (999, Ceiling(rows=3), 0, 4, True),  # a number holds for any number of rows
        (999, Ceiling(percent=10), 0, 999, False),
    ],
)
def test_max_change_holds_at_its_exact_limit(tmp_path_factory, known, ceiling, allow, changed, refused):
    world = World(tmp_path_factory.mktemp("w") / "state")
    act = activation(guards=Guards(Ceiling(percent=1), ceiling), key=("ext",))
    world.sync(act, grown(known))
    plan = world.plan(act, grown(known, changed), Ceilings(allow_changes=allow))
    assert (plan.refusal.code if plan.refusal else None) == ("DB403" if refused else None)
    if refused:
        assert f"--allow-changes {changed}" in plan.refusal.hint
        with pytest.raises(Refused):
            world.sync(act, grown(known, changed), Ceilings(allow_changes=allow))


@pytest.mark.slow
def test_rows_that_full_resends_are_in_no_guard_and_a_remap_has_its_own(tmp_path):
    world = World(tmp_path / "state")
    act = activation(guards=Guards(Ceiling(percent=1), Ceiling(rows=0)), key=("ext",))
    assert world.plan(act, grown(1_000)).refusal is None, "a first sync is in no guard"
    world.sync(act, grown(1_000, c="c"))
    assert world.plan(act, grown(1_750, c="c")).refusal is None
    full = world.plan(act, grown(1_000, c="c"), Ceilings(full=True))
    assert (full.refusal, full.counts.resent) == (None, 1_000)
    wider = dataclasses.replace(act, fields=THREE)
    refusal = world.plan(wider, grown(1_000, c="c")).refusal
    assert (refusal.code, refusal.hint) == ("DB404", "if that is right: --allow-remap 1000")
    assert world.plan(wider, grown(1_000, c="c"), Ceilings(allow_remap=999)).refusal.code == "DB404"
    assert world.plan(wider, grown(1_000, c="c"), Ceilings(allow_remap=1_000)).refusal is None


def test_an_empty_model_is_refused_once_rows_are_known(world):
    act, empty = activation(), Model(pa.table({n: pa.array([], pa.utf8()) for n in ("id", "ext", "a", "b")}))
    assert world.plan(act, empty).refusal is None
    world.sync(act, rows("1 e1 x y"))
    for ceilings in (Ceilings(), Ceilings(full=True, allow_changes=100, first_sync=True)):
        assert world.plan(act, empty, ceilings).refusal.code == "DB402"


def test_a_first_insert_into_an_object_with_records_is_refused(world):
    world.org.add(A__c="someone's")
    act = activation("insert")
    assert world.plan(act, rows("1 e1 x y")).refusal.code == "DB401"
    with pytest.raises(Refused):
        world.sync(act, rows("1 e1 x y"))
    assert world.plan(act, rows("1 e1 x y")).refusal.code == "DB401", "a refused run is no first sync"
    world.sync(act, rows("1 e1 x y"), Ceilings(first_sync=True))
    assert world.plan(act, rows("1 e1 x y", "2 e2 x y")).refusal is None


def test_full_sends_known_rows_again_but_never_inserts_them(world):
    world.sync(activation(), rows("1 e1 x y"))
    assert world.plan(activation(), rows("1 e1 x y"), Ceilings(full=True)).counts.resent == 1
    act = activation("insert", name="insert")
    world.sync(act, rows("1 e1 x y"), Ceilings(first_sync=True))
    assert world.plan(act, rows("1 e1 x y"), Ceilings(full=True)).refusal.code == "DB406"


def test_keys_and_matches_that_repeat_or_are_blank_refuse_the_plan(world):
    plan = world.plan(activation(), rows("1 e1 x y", "1 e2 x y"))
    assert (plan.refusal.code, plan.batches) == ("DB410", ())
    unsendable = "z" * 300
    plan = world.plan(activation("insert"), rows(f"1 e1 {unsendable} y", f"1 e2 {unsendable} y"))
    assert plan.refusal.code == "DB410", "also where no row at all can be sent"
    plan = world.plan(activation(), rows("1 e1 x y", "2 E1 x y"))
    assert "occurs more than once, as Salesforce compares Ext__c" in plan.refusal.message
    plan = world.plan(activation(), Model.of([{"id": "1", "ext": None, "a": "x", "b": "y"}]))
    assert plan.refusal.message == "1 row has no match value (ext is null or blank)"


@pytest.mark.parametrize("blank", [None, "", "  ", "\u00a0"])
@pytest.mark.parametrize("mode", ["update", "delete"])
def test_a_row_without_a_match_value_has_no_record_and_stops_no_other(world, mode, blank):
    world.sync(activation(), rows("1 e1 x y", "2 e2 x y"))
    more = {"fields": (), "guards": Guards(Ceiling(rows=9), Ceiling(rows=9))} if mode == "delete" else {}
    act = activation(mode, name=mode, match=Match("ext", "Ext__c"), **more)
    plan = world.plan(
        act, Model.of([{"id": key, "ext": ext, "a": "z", "b": "y"} for key, ext in (("1", "e1"), ("2", blank))])
    )
    assert plan.refusal is None
    # The other row's record is kept by the activation that made it: no other deletes it.
    assert (plan.counts.planned, plan.counts.no_match) == (0 if mode == "delete" else 1, 1)
    assert plan.counts.add_up
    left_out = plan.left_out.select(["key", "fate", "code"]).to_pylist()
    assert {"key": "2", "fate": "no_match", "code": "NO_RECORD"} in left_out


def test_a_known_row_that_lost_its_match_value_has_no_record(world):
    act = activation("update", match=Match("ext", "Ext__c"))
    world.sync(activation(name="made"), rows("1 e1 x y"))
    world.sync(act, rows("1 e1 z y"))
    plan = world.plan(act, Model.of([{"id": "1", "ext": None, "a": "w", "b": "y"}]))
    assert (plan.refusal, plan.counts.planned, plan.counts.no_match) == (None, 0, 1)


@pytest.mark.parametrize("mode", ["update", "upsert", "delete"])
def test_a_row_without_an_id_has_no_record(world, mode):
    world.sync(activation(), rows("1 e1 x y"))
    more = {"fields": (), "guards": Guards(Ceiling(rows=9), Ceiling(rows=9))} if mode == "delete" else {}
    act = activation(mode, name="by_id", match=Match("ext", "Id"), **more)
    plan = world.plan(act, Model.of([{"id": "2", "ext": None, "a": "z", "b": "y"}]))
    assert (plan.refusal, plan.counts.planned, plan.counts.no_match) == (None, 0, 1)


def test_a_mapping_that_does_not_fit_is_every_problem_at_once(world):
    fields = (FieldMapping("a", "Nope__c"), FieldMapping("zz", "B__c"))
    with pytest.raises(ConfigError) as error:
        world.plan(activation(fields=fields), rows("1 e1 x y"))
    assert [p.code for p in error.value.problems] == ["DB302", "DB151"]


# Every row is counted once


keys = st.sampled_from("abcdef")
texts = st.sampled_from(["x", "y", "#N/A", "z" * 300, None])
models = st.dictionaries(keys, st.tuples(st.sampled_from(["p", "q", "none"]), texts, texts), max_size=6)


def eight_bits(keys):
    from dinmo_dbt.rows.key_hashes import key_hash

    return key_hash(keys) & np.uint64(0xFF) << np.uint64(56)


@pytest.mark.slow
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(models, min_size=1, max_size=3), mode=st.sampled_from(["insert", "update", "upsert"]))
def test_counts_add_up_and_every_delivered_value_is_the_models(tmp_path_factory, steps, mode):
    """Rows come, go, change, can't be sent, or have no parent; keys collide by their hash all the way to the state."""
    world = World(tmp_path_factory.mktemp("w") / "state")
    for parent in "pq":
        world.org.add("Parent__c", Code__c=parent)
    for key in "abc":
        world.org.add(Ext__c=f"e{key}")
    act = activation(
        mode, fields=(FieldMapping("a", "A__c"), FieldMapping("b", "B__c"), FieldMapping("p", "Parent__r.Code__c"))
    )
    parents = world.org.records["Parent__c"]
    kinds = {name: pa.utf8() for name in ("id", "ext", "p", "a", "b")}
    for number, step in enumerate(steps):
        listed = [{"id": k, "ext": f"e{k}", "p": p, "a": a, "b": b} for k, (p, a, b) in step.items()]
        table = pa.table({n: pa.array([row[n] for row in listed], kind) for n, kind in kinds.items()})
        if not listed and number:
            continue
        run = world.sync(act, Model(table), Ceilings(first_sync=True), hash_key=eight_bits)
        assert run.plan_counts.add_up
        undelivered = fates(run)
        assert run.plan_counts.read == len(listed)
        for row in listed:
            if row["id"] in undelivered:
                continue
            wanted = {"A__c": row["a"], "B__c": row["b"]}
            records = [
                r
                for r in world.org.records["Thing__c"].values()
                if {n: r.get(n) for n in wanted} == wanted
                and parents.get(r.get("Parent__c"), {}).get("Code__c") == row["p"]
                and (mode == "insert" or r["Ext__c"] == row["ext"])
            ]
            assert records, row
    if mode != "insert":
        matches = [r["Ext__c"] for r in world.org.records["Thing__c"].values()]
        assert len(set(matches)) == len(matches)


def test_what_is_too_long_is_reported_with_both_lengths_and_a_picklist_with_its_values(tmp_path):
    fields = {**THING.fields, "A__c": dataclasses.replace(THING.fields["A__c"], length=5)}
    fields["B__c"] = dataclasses.replace(
        THING.fields["B__c"], type="picklist", picklist=tuple("ABCDEFG"), restricted_picklist=True
    )
    world = World(tmp_path / "s", MemoryOrg(dataclasses.replace(THING, fields=fields), PARENT))
    rows = [("1", "seven77", "A"), ("2", "eleven chars", "A"), ("3", "a", "Z"), ("4", "a", "A")]
    model = Model.of([{"id": i, "ext": i, "a": a, "b": b} for i, a, b in rows])
    shown = dict(zip(*(world.plan(activation(), model).left_out[n].to_pylist() for n in ("key", "shown")), strict=True))
    long = "the text is longer than the field allows: it takes 5 characters, and the longest has 12"
    listed = "the value is not in the field's restricted picklist: 'A', 'B', 'C', 'D', 'E' and 2 more"
    assert shown == {"1": long, "2": long, "3": listed}
