"""A model whose shape changes: the type is named, no row is made again, and keys that moved find their rows."""

import dataclasses
import datetime as dt
from decimal import Decimal

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from memory_org import Ceilings, FieldMapping, Match, Model, World, activation

from dinmo_dbt.destination import Field
from dinmo_dbt.errors import Refused, UsageError
from dinmo_dbt.rows import values
from dinmo_dbt.rows.forms import in_form, text_form
from dinmo_dbt.rows.keys import key_text
from dinmo_dbt.state.spool import ScanSpool
from dinmo_dbt.upkeep import rekey
from dinmo_dbt.upkeep.adopt import store

DAYS = [dt.date(2024, 1, n) for n in range(1, 13)]
TEXT = Field("A__c", "A", "string", length=255)


@pytest.fixture
def world(tmp_path):
    return World(tmp_path / "state")


def model(key, a=None, **more):
    count = len(key)
    columns = {"id": key, "a": a if a is not None else pa.array([f"a{n}" for n in range(count)])}
    columns |= {"ext": pa.array([f"e{n}" for n in range(count)]), "b": pa.array(["y"] * count)}
    return Model(pa.table({**columns, **more}), 5)


def dates(kind=None):
    return pa.array(DAYS, pa.date32()).cast(kind or pa.date32())


NUMBERS = pa.array(range(12), pa.int32())
CENTS = pa.array([Decimal(n) / 4 for n in range(12)], pa.decimal128(10, 2))

# What a key or a text was, and is: the same values, written in another way.
MOVES = {
    "date to timestamp": (dates(), dates(pa.timestamp("us")), "date", "timestamp"),
    "timestamp to date": (dates(pa.timestamp("us")), dates(), "timestamp", "date"),
    "whole number to padded text": (
        NUMBERS, pa.array([f"{n:03}" for n in range(12)]), "whole number", "text",
    ),
    "date to the text of a timestamp": (
        dates(), pa.array([f"{day} 00:00:00" for day in DAYS]), "date", "text",
    ),
}  # fmt: skip
ALIKE = {
    "int32 to int64": (NUMBERS, NUMBERS.cast(pa.int64())),
    "whole number to decimal": (NUMBERS, NUMBERS.cast(pa.decimal128(12, 0))),
    "decimal of another scale": (CENTS, CENTS.cast(pa.decimal128(12, 4))),
    "seconds to microseconds": (dates(pa.timestamp("s")), dates(pa.timestamp("us"))),
    "text in another layout": (pa.array(list("abcdefghijkl")), pa.array(list("abcdefghijkl"), pa.large_utf8())),
}


def rekeying(world, act, today, **more):
    state = world.state().view(world.org.org_id, act)
    return rekey.draw(act, today, world.org, state, ScanSpool(world.folder.parent), **more)


def stored(world, act, today, **more):
    found = rekeying(world, act, today, **more)
    with world.state().locked(world.org.org_id, act) as state:
        store(found, state)
    return found


@pytest.mark.parametrize("mode", ["insert", "upsert", "update"])
@pytest.mark.parametrize("name", list(ALIKE))
def test_a_key_of_another_type_with_the_same_text_is_quiet(world, mode, name):
    before, after = ALIKE[name]
    act = activation(mode)
    world.sync(act, model(before))
    plan = world.plan(act, model(after))
    unmatched = {"update": 12}.get(mode, 0)
    assert (plan.counts.unchanged + unmatched, plan.refusal, plan.baseline.positions.size) == (12, None, 0)
    told = {"whole number to decimal": 1, "decimal of another scale": 1}.get(name, 0)
    assert len(plan.notes) == told


@pytest.mark.parametrize("ignores", ["insert", "ignore"])
@pytest.mark.parametrize("name", list(MOVES))
def test_a_key_of_another_type_stops_an_insert_and_is_rekeyed_without_a_send(world, name, ignores):
    before, after, was, now = MOVES[name]
    act = activation("insert", on_change=ignores)
    world.sync(act, model(before))
    records = world.snapshot(act)
    plan = world.plan(act, model(after))
    assert plan.refusal.code == "DB409"
    for said in (was, now, "state rekey", "state adopt", "state reset", "--allow-replaced"):
        assert said in plan.refusal.message + plan.refusal.hint
    assert f"column id was of type {was}, and is of type {now}" in plan.notes[0]
    with pytest.raises(Refused):
        world.sync(act, model(after))
    found = stored(world, act, model(after))
    assert (len(found.pairs), found.equal, found.lost, found.fresh) == (12, 12, 0, 0)
    assert sorted(world.snapshot(act).values()) == sorted(records.values()), "each row has the record it had"
    plan = world.plan(act, model(after))
    assert (plan.counts.unchanged, plan.batches, plan.refusal, plan.notes) == (12, (), None, ())
    assert world.sync(act, model(after)).outcome.succeeded == 0
    assert len(world.org.records["Thing__c"]) == 12


@pytest.mark.parametrize("few", [1, 9])
def test_one_key_of_another_text_is_enough_where_the_type_changed(world, few):
    act = activation("insert")
    world.sync(act, model(pa.array(range(few, 12 + few))))
    padded = model(pa.array([f"{n:02}" for n in range(few, 12 + few)]))
    assert world.plan(act, padded).refusal.code == "DB409"


@pytest.mark.parametrize("name", list(MOVES))
def test_mapped_text_of_another_type_makes_no_row_again(world, name):
    before, after, was, now = MOVES[name]
    act = activation("insert")
    key = pa.array(range(12))
    world.sync(act, model(key, before))
    plan = world.plan(act, model(key, after))
    assert (plan.counts.unchanged, plan.counts.planned, plan.refusal) == (12, 0, None)
    assert f"column a was of type {was}, and is of type {now}" in plan.notes[0]
    assert world.sync(act, model(key, after)).outcome.succeeded == 0
    assert len(world.org.records["Thing__c"]) == 12
    assert world.plan(act, model(key, after)).notes == ()


def test_another_scale_of_a_mapped_text_is_sent_by_others_under_the_remap_guard(world):
    act, key = activation(), pa.array(range(12))
    world.sync(act, model(key, CENTS))
    plan = world.plan(act, model(key, CENTS.cast(pa.decimal128(12, 4))))
    assert (plan.counts.remapped, plan.counts.changed) == (12, 0)
    assert [column.header for column in plan.batches[0].columns] == ["Id", "A__c"]


def test_rows_of_an_insert_that_are_not_the_same_values_stop_it(world):
    act, key = activation("insert"), pa.array(range(12))
    world.sync(act, model(key, dates()))
    moments = pa.array([dt.datetime(2024, 1, n, 8) for n in range(1, 13)], pa.timestamp("us"))
    plan = world.plan(act, model(key, moments))
    assert (plan.refusal.code, plan.counts.changed) == ("DB413", 12)
    assert "a was date, is timestamp" in plan.refusal.message
    assert world.plan(act, model(key, moments), Ceilings(allow_changes=11)).refusal
    assert world.plan(act, model(key, moments), Ceilings(allow_changes=12)).refusal is None


def test_a_column_that_leaves_the_mapping_as_its_type_changes_stops_an_insert_too(world):
    key, text = pa.array(range(12)), pa.array([str(n) for n in range(12)])
    a, b = FieldMapping("a", "A__c"), FieldMapping("b", "B__c")
    world.sync(activation("insert", fields=(a, b)), model(key, text))
    less, scaled = activation("insert", fields=(b,)), model(key, NUMBERS.cast(pa.decimal128(12, 2)))
    plan = world.plan(less, scaled)
    assert (plan.refusal.code, plan.counts.changed) == ("DB413", 12)
    assert "a was text, is decimal(2)" in plan.refusal.message
    assert world.plan(activation("insert", fields=(b,), on_change="ignore"), scaled).refusal is None
    assert world.plan(less, model(key, text)).counts.unchanged == 12


def test_a_match_of_another_text_never_makes_a_second_record(world):
    """Known rows go by their record id and take the new match value along; nothing is upserted by it."""
    act = activation(key=("ext",))

    def of(kind, a):
        ext = pa.array(range(12), pa.int64()).cast(kind)
        return Model(pa.table({"ext": ext, "id": NUMBERS, "a": pa.array([a] * 12), "b": pa.array(["y"] * 12)}), 5)

    world.sync(act, of(pa.int64(), "x"))
    for a in ("x", "z"):
        assert world.sync(act, of(pa.decimal128(21, 2), a)).outcome.succeeded == 12
        assert len(world.org.records["Thing__c"]) == 12
    assert world.org.held("Ext__c", "A__c")[0] == ("0.00", "z")
    assert not world.plan(act, of(pa.decimal128(21, 2), "z")).has_changes


def test_keys_in_another_spelling_are_paired(world):
    act = activation("insert")
    world.sync(act, model(pa.array([f"k{n}" for n in range(12)])))
    found = stored(world, act, model(pa.array([f"K{n}" for n in range(12)])))
    assert (found.equal, found.pairs.slice(0, 1).to_pylist()) == (12, [{"old": "k0", "new": "K0"}])
    assert not world.plan(act, model(pa.array([f"K{n}" for n in range(12)]))).has_changes


def test_a_column_says_which_key_a_row_had(world):
    act = activation("insert")
    old = pa.array([f"k{n}" for n in range(12)])
    new, same = pa.array([f"uuid-{n * 7}" for n in range(12)]), pa.array(["x"] * 12)
    world.sync(act, model(old, a=same))
    assert len(rekeying(world, act, model(new, a=same)).pairs) == 0
    found = stored(world, act, model(new, a=same, was=old), former=["was"])
    assert (len(found.pairs), found.equal) == (12, 12)
    assert not world.plan(act, model(new, a=same)).has_changes
    with pytest.raises(UsageError, match="DB813"):
        rekeying(world, act, model(new), former=["nowhere"])


def test_the_other_values_of_a_row_say_which_key_it_had(world):
    """Each row on its own: two that are alike are nobody's."""
    act = activation("insert")
    values = pa.array(["x", "x", *(f"a{n}" for n in range(10))])
    world.sync(act, model(pa.array([f"k{n}" for n in range(12)]), a=values))
    today = model(pa.array([f"uuid-{n * 7}" for n in range(12)]), a=values)
    found = stored(world, act, today)
    assert (len(found.pairs), found.equal) == (10, 10)
    assert world.plan(act, today).counts.added == 2


@pytest.mark.parametrize("mode", ["insert", "update"])
def test_a_text_that_goes_to_a_number_now_is_not_compared(world, mode):
    """It was written as a date's text, which no number is."""
    act = activation(mode, fields=(FieldMapping("a", "A__c"),))
    world.sync(act, model(pa.array([f"k{n}" for n in range(12)]), a=dates()))
    thing = world.org.schemas["Thing__c"]
    number = {**thing.fields, "A__c": Field("A__c", "A", "double", precision=18, scale=2)}
    world.org.schemas["Thing__c"] = dataclasses.replace(thing, fields=number)
    today = model(pa.array([f"K{n}" for n in range(12)]), a=pa.array([float(n) for n in range(12)]))
    assert rekeying(world, act, today).equal == 0


def test_keys_that_change_places_are_paired_by_what_they_were(world):
    act = activation("insert")
    world.sync(act, model(pa.array(["a", "b", "c"])))
    found = rekeying(world, act, model(pa.array(["b", "c", "d"]), was=pa.array(["a", "b", "c"])), former=["was"])
    assert len(found.pairs) == 0, "a key that is known in the segment is that row's"


def test_composite_keys_are_paired_part_by_part(world):
    act = activation("insert", key=("id", "ext"))
    world.sync(act, model(dates()))
    found = stored(world, act, model(dates(pa.timestamp("us"))))
    assert (len(found.pairs), found.equal) == (12, 12)
    assert not world.plan(act, model(dates(pa.timestamp("us")))).has_changes


def test_two_rows_of_one_old_key_are_nobodys(world):
    act = activation("insert")
    world.sync(act, model(pa.array([1, 2])))
    found = rekeying(world, act, model(pa.array(["1", "01", "02", "002"])))
    assert (found.known, found.ambiguous, len(found.pairs)) == (1, 2, 0)


def test_rows_that_changed_meanwhile_are_never_inserted_on_a_guess(world):
    act = activation("insert")
    world.sync(act, model(pa.array([f"k{n}" for n in range(12)])))
    other = model(pa.array([f"K{n}" for n in range(12)]), pa.array(["z"] * 2 + [f"a{n}" for n in range(2, 12)]))
    found = stored(world, act, other)
    assert (len(found.pairs), found.equal) == (12, 10)
    assert world.sync(act, other).outcome.succeeded == 0
    assert len(world.org.records["Thing__c"]) == 12


def test_what_an_insert_takes_as_it_is_is_the_row_of_the_rekey_not_that_of_the_next_sync(world):
    act = activation("insert", fields=(FieldMapping("id", "Code__c"), FieldMapping("a", "A__c")))
    keys = pa.array([f"K{n}" for n in range(12)])
    world.sync(act, model(pa.array([f"k{n}" for n in range(12)])))
    stored(world, act, model(keys))
    later = model(keys, pa.array(["z"] * 2 + [f"a{n}" for n in range(2, 12)]))
    assert world.sync(act, later).outcome.succeeded == 2
    assert not world.plan(act, later).has_changes


def test_rows_of_an_upsert_that_changed_meanwhile_are_sent_to_their_records(world):
    act = activation()
    world.sync(act, model(pa.array([f"k{n}" for n in range(12)])))
    other = model(pa.array([f"K{n}" for n in range(12)]), pa.array(["z"] * 2 + [f"a{n}" for n in range(2, 12)]))
    stored(world, act, other)
    assert world.sync(act, other).outcome.succeeded == 2
    assert len(world.org.records["Thing__c"]) == 12


def test_an_upserts_match_that_moves_with_the_key_is_refused(world):
    act = activation(match=Match("id", "Ext__c"))
    world.sync(act, model(dates()))
    with pytest.raises(Refused, match="DB417"):
        rekeying(world, act, model(dates(pa.timestamp("us"))))


def test_adopting_takes_the_records_of_keys_that_left(world):
    from dinmo_dbt.upkeep import adopt

    act = activation("insert", fields=(FieldMapping("ext", "Code__c"), FieldMapping("a", "A__c")))
    world.sync(act, model(pa.array([f"k{n}" for n in range(12)])))
    today = model(pa.array([f"other{n}" for n in range(12)]))
    state = world.state().view(world.org.org_id, act)
    spool = ScanSpool(world.folder.parent)
    found = adopt.draw(act, today, world.org, state, spool, matches=[("ext", "Code__c")])
    assert len(found.rows) == 12
    with world.state().locked(world.org.org_id, act) as locked:
        store(found, locked)
    assert not world.plan(act, today).has_changes


NUMBER = st.decimals(min_value=-(10**6), max_value=10**6, places=2)


@given(st.lists(NUMBER, min_size=1, max_size=20), st.integers(2, 6), st.integers(2, 6))
def test_a_decimals_text_is_found_from_any_other_scale(numbers, before, after):
    old, new = (pa.array(numbers, pa.decimal128(30, scale)) for scale in (before, after))
    texts = [values.canonical(each, TEXT)[0] for each in (old, new)]
    assert in_form(texts[1], text_form(pa.field("n", old.type), TEXT)).equals(texts[0])
    whole = key_text([new])
    assert in_form(texts[1], "number").equals(whole)


@given(st.lists(st.datetimes(dt.datetime(1700, 1, 1), dt.datetime(4000, 1, 1)), min_size=1, max_size=20))
def test_a_moments_text_is_found_from_its_date_only_at_midnight(moments):
    times = pa.array(moments, pa.timestamp("us"))
    texts = values.canonical(times, TEXT)[0].to_pylist()
    found = in_form(pa.array(texts), "date").to_pylist()
    for moment, text, date in zip(moments, texts, found, strict=True):
        midnight = text.endswith("T00:00:00.000Z")
        assert date == (str(moment.date()) if midnight else text)
    assert in_form(pa.array(found), "datetime").to_pylist() == texts


@given(
    st.lists(st.text(), min_size=1, max_size=10), st.sampled_from(["date", "datetime", "number", "number.3", "text"])
)
def test_a_text_in_its_form_stays_in_it(texts, form):
    once = in_form(pa.array(texts, pa.utf8()), form)
    assert in_form(once, form).equals(once)
    assert once.null_count == 0
