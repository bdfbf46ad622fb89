"""Whatever a run would do, and whatever flags it has: no more rows pass than their own ceiling lets."""

import dataclasses
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from memory_org import FieldMapping, Killed, Model, Trip, World, activation

from dinmo_dbt.activation import Ceiling, Guards
from dinmo_dbt.delivery import fence
from dinmo_dbt.errors import Refused
from dinmo_dbt.plan import batches as batching
from dinmo_dbt.plan import guards
from dinmo_dbt.plan.guards import Ceilings, Counted, Day, Effect, Moved
from dinmo_dbt.rows.keys import respelled, spelling

ROWS = st.integers(0, 4_000)
LIMITS = st.one_of(
    st.integers(0, 3_000).map(lambda rows: Ceiling(rows=rows)),
    st.integers(0, 100).map(lambda share: Ceiling(percent=Decimal(share))),
)
ALLOWED = st.one_of(st.just(0), ROWS)
FEW = st.integers(0, 2_000).map(lambda n: np.arange(n, dtype=np.uint64))
DAYS = st.builds(Day, ROWS, FEW, ROWS, st.integers(0, 20), FEW)


@st.composite
def effects(draw):
    known = draw(ROWS)
    start = draw(st.integers(0, 3_000))
    changed = np.arange(start, start + draw(st.integers(0, known)), dtype=np.uint64)
    present, gone, created = draw(st.integers(0, known)), draw(st.integers(0, known)), draw(ROWS)
    left, away = np.arange(gone, dtype=np.uint64), np.arange(gone, gone + draw(ROWS), dtype=np.uint64)
    respelled = draw(st.integers(0, min(len(left) + len(away), created)))
    return Effect(known, present, created, changed, draw(ROWS), draw(ROWS), left, away, respelled)


def turned_over(effect, day):
    """Keys with new ones in their place: of the run, of the day, and of the run's new ones how many do that at least;
    and how many keys there were a day before."""
    before = set(day.left.tolist()) & set(effect.away.tolist())
    run = min(len(effect.left), effect.created)
    of_day = min(len(effect.left) + len(before), effect.created + day.created)
    return run, of_day, max(run, of_day - day.created), max(0, effect.present + len(before) - day.created)


def limits(mode, effect, day, act, moved):
    """What passes without a flag, written out once more: rows that the run and the day would do, and how many may."""
    g, known = act.guards, effect.known
    union = len(set(effect.changed.tolist()) | set(day.changed.tolist()))
    replaced, of_day, here, base = turned_over(effect, day)
    yield "removed", effect.removed, g.max_delete.limit(effect.present)
    if effect.removed:
        yield "removed", effect.removed + day.removed, g.max_delete.limit(effect.present + day.removed)
    if mode == "delete":
        return
    held = known >= (1 if g.max_change.rows is not None else 1_000)  # a number means what it says for a few rows, too
    if (held or mode == "insert") and len(effect.changed):  # an insert makes a record again of each
        yield "changed", union, g.max_change.limit(known)
    if mode == "update" and held and len(effect.changed) + here:
        yield "changed", union + of_day, g.max_change.limit(known)
    if mode == "insert" and moved.text:
        yield "changed", len(effect.changed), 0
    if held:
        yield "remapped", effect.remapped, g.max_change.limit(known)
    if mode in ("insert", "upsert"):
        yield "replaced", replaced, 0 if moved.key else g.max_replaced.limit(effect.present)
        if here:
            yield "replaced", of_day, g.max_replaced.limit(base)
        respelled = effect.respelled + day.respelled
        if effect.respelled and (respelled > 10 or (respelled > 1 and 2 * respelled > base)):
            yield "replaced", max(of_day, respelled), 0


@pytest.mark.slow
@settings(deadline=None)
@given(
    st.sampled_from(["insert", "upsert", "update", "delete"]),
    effects(),
    DAYS,
    st.builds(Guards, LIMITS, LIMITS, LIMITS, LIMITS),
    st.builds(Ceilings, ALLOWED, ALLOWED, ALLOWED, ALLOWED, ALLOWED, st.booleans(), st.booleans()),
    st.builds(Moved, st.sampled_from(["", "k was a date"]), st.sampled_from(["", "a was a date"])),
)
def test_no_flags_let_more_rows_pass_than_their_ceiling(mode, effect, day, held, ceilings, moved):
    act = activation(mode, guards=held)
    verdict = guards.judge(act, effect, day, ceilings, moved)
    allowed = {
        "removed": ceilings.allow_deletes,
        "changed": ceilings.allow_changes,
        "remapped": ceilings.allow_remap,
        "replaced": ceilings.allow_replaced,
    }
    over = [kind for kind, rows, limit in limits(mode, effect, day, act, moved) if rows > max(limit, allowed[kind])]
    if over:
        assert verdict.refusal, over
    new = effect.created - (turned_over(effect, day)[2] if mode == "update" else 0)
    if mode != "delete" and effect.known >= 1_000 and not verdict.refusal:
        passes = held.max_created.limit(effect.known)
        assert new <= max(passes, ceilings.allow_creates) + ceilings.allow_replaced
    if not verdict.refusal and ceilings == Ceilings():
        assert not verdict.passed, "only a flag lets anything pass"


@pytest.mark.slow
@settings(deadline=None)
@given(
    effects(), DAYS, st.sampled_from(["insert", "upsert", "update"]), st.builds(Guards, LIMITS, LIMITS, LIMITS, LIMITS)
)
def test_what_a_refusal_asks_for_is_enough_and_one_less_is_not(effect, day, mode, held):
    act = activation(mode, guards=held)
    first = guards.judge(act, effect, day, Ceilings())
    if first.refusal is None:
        return
    words = first.refusal.hint.splitlines()[-1].removeprefix("if that is right: ").split()
    asked = {words[n].lstrip("-").replace("-", "_"): int(words[n + 1]) for n in range(0, len(words), 2)}
    assert guards.judge(act, effect, day, Ceilings(**asked)).refusal is None
    for name, number in asked.items():
        less = guards.judge(act, effect, day, Ceilings(**{**asked, name: number - 1}))
        assert less.refusal is not None


def test_a_first_sync_is_not_held_by_new_rows():
    act = activation()
    assert guards.judge(act, Effect(0, 0, created=10**6), Day(), Ceilings()).refusal is None
    assert guards.judge(act, Effect(900, 900, created=900), Day(), Ceilings()).refusal is None
    twice = Effect(1_000, 1_000, created=1_000)
    assert guards.judge(act, twice, Day(), Ceilings()).refusal.code == "DB408"
    assert guards.judge(act, dataclasses.replace(twice, admitted=250), Day(), Ceilings()).refusal is None


def test_full_counts_only_what_is_not_as_it_was_acknowledged(tmp_path):
    world, act = World(tmp_path / "state"), activation(key=("ext",))
    model = [{"id": str(n), "ext": f"e{n}", "a": "x", "b": "y"} for n in range(1_000)]
    world.sync(act, Model.of(model, batch_rows=1_000))
    assert world.plan(act, Model.of(model, batch_rows=1_000), Ceilings(full=True)).refusal is None
    changed = Model.of([{**row, "a": "z"} for row in model], batch_rows=1_000)
    assert world.plan(act, changed, Ceilings(full=True)).refusal.code == "DB403"


def rows(numbers, **more):
    return Model.of([{"id": f"k{n}", "ext": f"e{n}", "a": "x", "b": "y", **more} for n in numbers], batch_rows=1_000)


@pytest.mark.slow
def test_a_day_counts_each_row_once_and_only_what_salesforce_acknowledged(tmp_path):
    """Within a day: 40 % of the rows, the same again, then others; and once the day is over they are free again."""
    world, act = World(tmp_path / "state"), activation()
    some, others, few, rest = range(400), range(400, 800), range(800, 900), range(900, 1_100)

    def model(**values):
        tables = [
            rows(numbers, a=values.get(name, "x")).table
            for name, numbers in (("some", some), ("others", others), ("few", few), ("rest", rest))
        ]
        return Model(pa.concat_tables(tables), 1_000)

    world.sync(act, model())
    world.sync(act, model(some="1"))
    world.sync(act, model(some="2"))
    refusal = world.plan(act, model(some="2", others="1")).refusal
    assert (refusal.code, refusal.hint) == ("DB403", "if that is right: --allow-changes 800")
    assert "within a day" in refusal.message
    with pytest.raises(Refused):
        world.sync(act, model(some="2", others="1"), Ceilings(allow_changes=799))
    world.clock.time -= 30 * 86_400
    assert world.plan(act, model(some="2", others="1")).refusal, "a clock set back hides nothing"
    world.sync(act, model(some="2", few="1"), Ceilings())  # it is noticed, and the day begins
    world.clock.time += 2 * 86_400
    world.sync(act, model(some="2", others="1", few="1"))
    world.sync(act, model(some="3", others="1", few="1"), Ceilings(allow_changes=800))
    assert world.plan(act, model(some="3", others="2", few="1")).refusal is None, "what a flag let pass is not held"


def test_new_rows_of_a_day_are_held_together(tmp_path):
    world, act = World(tmp_path / "state"), activation()
    world.sync(act, rows(range(1_000)))
    world.clock.time += 2 * 86_400
    world.sync(act, rows(range(1_600)))
    assert world.plan(act, rows(range(1_750))).refusal is None
    assert world.plan(act, rows(range(1_751))).refusal.hint == "if that is right: --allow-creates 751"
    world.clock.time += 2 * 86_400
    assert world.plan(act, rows(range(1_751))).refusal is None


@pytest.mark.slow
def test_a_first_sync_counts_for_no_day(tmp_path):
    world, act = World(tmp_path / "state"), activation()
    world.sync(act, rows(range(1_000)))
    world.sync(act, rows(range(1_600)))
    assert world.plan(act, rows(range(1_751))).refusal.hint == "if that is right: --allow-creates 751"


def test_a_first_sync_that_was_cut_off_goes_on(tmp_path, monkeypatch):
    """What a run was let to send and did not deliver is not held against the next one, and no more than that."""
    monkeypatch.setattr(batching, "COLLECTIONS_ROWS_MAX", 4)
    few = Guards(Ceiling(rows=1), Ceiling(rows=1), max_created=Ceiling(rows=1))
    world, act = World(tmp_path / "state"), activation(api="collections", guards=few)
    with pytest.raises(Killed):
        world.sync(act, rows(range(12)), trip=Trip(second(tmp_path, act)))
    assert len(world.snapshot(act)) == 4
    assert world.plan(act, rows(range(14))).refusal.hint == "if that is right: --allow-creates 2"
    world.sync(act, rows(range(13)))
    assert len(world.snapshot(act)) == 13
    assert world.plan(act, rows(range(15))).refusal.code == "DB408"


def second(folder, act):
    """The number of the second batch's note in the journal."""
    trip = Trip()
    World(folder / "tried" / "state").sync(act, rows(range(12)), trip=trip)
    return [number for number, name in enumerate(trip.seen) if name == "planned"][1]


SPELT = [
    ("e7", "E7"),
    ("e7 ", "e7"),
    ("7", "007"),
    ("7", "7.00"),
    ("é", "é"),
    ("2024-01-07", "2024-01-07T00:00:00.000Z"),
]


@pytest.mark.parametrize(("old", "new"), SPELT)
def test_a_key_in_another_spelling_is_known(old, new):
    left, came = pa.array(["a", old, "b"]), pa.array([new, "c"])
    assert told(respelled(left, came)) == ([True, False], [(old, new)])
    assert told(respelled(came, left)) == ([False, True, False], [(new, old)])


def told(found):
    return found[0].tolist(), found[1]


def test_keys_of_their_own_are_no_spelling_of_another():
    left = pa.array(["a1", "1a", "0", "10", "2024-01-07", "-7", ""])
    came = pa.array(["a01", "01b", "00x", "100", "2024-01-07T01:00:00.000Z", "7"])
    assert told(respelled(left, came)) == ([False] * 6, [])


def test_of_two_spellings_of_a_key_that_left_one_takes_its_place():
    assert told(respelled(pa.array(["a"]), pa.array(["A", "A "]))) == ([True, False], [("a", "A"), ("a", "A ")])


PARTS = st.text("a0A7.: ", max_size=4)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(PARTS, PARTS), min_size=2, max_size=5))
def test_keys_of_several_parts_are_spelled_alike_where_each_part_is(rows):
    parts = [pa.array(part) for part in zip(*rows, strict=True)]
    whole, each = spelling(*parts).to_pylist(), [*zip(*(spelling(part).to_pylist() for part in parts), strict=True)]
    assert len({*whole}) == len({*each}) == len({*zip(whole, each, strict=True)})
    old, new = (pa.array(spelt) for spelt in zip(*SPELT, strict=True))
    assert spelling(old, new).equals(spelling(new, old))
    assert spelling(pa.array(["ab"]), pa.array(["c"])) != spelling(pa.array(["a"]), pa.array(["bc"]))


def other(numbers, key):
    return Model.of([{"id": key(n), "ext": f"e{n}", "a": "x", "b": "y"} for n in numbers], batch_rows=1_000)


@pytest.mark.parametrize("mode", ["insert", "upsert"])
@pytest.mark.parametrize("ignores", [True, False])
@pytest.mark.parametrize("count", [2, 30])
def test_keys_in_another_spelling_are_refused_and_nothing_is_sent(tmp_path, mode, ignores, count):
    world = World(tmp_path / "state")
    act = activation(mode, **({"on_change": "ignore"} if ignores and mode == "insert" else {}))
    world.sync(act, other(range(count), "k{}".format))
    before = dict(world.org.records["Thing__c"])
    plan = world.plan(act, other(range(count), "K{}".format))
    assert plan.refusal.code == "DB409"
    assert "k1" not in plan.refusal.message + plan.refusal.hint, "keys are printed only where values are asked for"
    assert plan.replacing[:2] == (("k0", "K0"), ("k1", "K1"))
    with pytest.raises(Refused):
        world.sync(act, other(range(count), "K{}".format), Ceilings(allow_replaced=count - 1, allow_creates=99))
    assert world.org.records["Thing__c"] == before
    assert world.plan(act, other(range(count), "K{}".format), Ceilings(allow_replaced=count)).refusal is None


@pytest.mark.parametrize("count", [2, 8])
@pytest.mark.parametrize(
    ("key", "code"), [("{0:032x}-made-anew".format, "DB409"), (lambda number: f"k{number - 1}", "DB419")]
)
def test_values_tell_of_few_rows_as_well_as_of_many(tmp_path, count, key, code):
    """That ten rows always pass says nothing of whether rows are meant to change their keys."""
    world, act = World(tmp_path / "state"), activation("insert")
    told = [{"id": f"k{n}", "ext": f"e{n}", "a": f"a{n}", "b": "y"} for n in range(count + 1)]
    world.sync(act, Model.of(told))
    moved = Model.of([{**row, "id": key(number)} for number, row in enumerate(told)])
    assert world.plan(act, moved).refusal.code == code
    daily = Guards(Ceiling(rows=1), Ceiling(percent=100), max_replaced=Ceiling(percent=100))
    assert world.plan(dataclasses.replace(act, guards=daily), moved).refusal is None, "as is said there"


def test_an_insert_makes_few_rows_again_however_few_are_known(tmp_path):
    """A mapped column that is not the same twice, or in another spelling: each row would be one more record."""
    world, act = World(tmp_path / "state"), activation("insert")
    world.sync(act, rows(range(30)))
    refusal = world.plan(act, rows(range(30), a="X")).refusal
    assert (refusal.code, refusal.hint.splitlines()[-1]) == ("DB403", "if that is right: --allow-changes 30")
    assert "on_change: ignore" in refusal.hint
    few = Model(pa.concat_tables([rows(range(15), a="X").table, rows(range(15, 30)).table]), 1_000)
    assert world.sync(act, few).outcome.created == 15
    more = Model(pa.concat_tables([rows(range(16), a="X").table, rows(range(16, 30)).table]), 1_000)
    assert world.plan(act, more).refusal.hint.splitlines()[-1] == "if that is right: --allow-changes 16"
    other_world, upsert = World(tmp_path / "other"), activation("upsert")
    other_world.sync(upsert, rows(range(30)))
    assert other_world.plan(upsert, rows(range(30), a="X")).refusal is None


def test_rows_that_take_turns_are_ordinary(tmp_path):
    world, act = World(tmp_path / "state"), activation("insert")
    world.sync(act, other(range(30), "k{}".format))
    assert world.plan(act, other(range(15, 45), "k{}".format)).refusal is None
    assert world.plan(act, other(range(16, 46), "k{}".format)).refusal.code == "DB409"
    assert world.plan(act, other(range(16, 30), "k{}".format)).refusal is None, "they only left"
    daily = dataclasses.replace(act, guards=Guards(Ceiling(rows=1), Ceiling(rows=1), max_replaced=Ceiling(percent=100)))
    assert world.plan(daily, other(range(30, 60), "k{}".format)).refusal is None


def spelt(start, numbers):
    """Of 100 rows those up to `start` have keys of today, which tell nothing of the keys they had."""
    return other(numbers, lambda n: f"{'new' if n < start else 'old'}-{n}")


@pytest.mark.parametrize("mode", ["insert", "upsert"])
def test_keys_that_change_little_by_little_are_held_together(tmp_path, mode):
    """40 % a run is no more than a run may; two such runs of a day are. A day later the count begins again."""
    world, act = World(tmp_path / "state"), activation(mode)
    world.sync(act, spelt(0, range(100)))
    assert world.plan(act, spelt(40, range(100))).notes == (
        "40 of 100 known keys left the segment while 40 new ones came; guards.max_replaced is 50%",
    )
    world.sync(act, spelt(40, range(100)))
    assert world.plan(act, spelt(50, range(100))).refusal is None
    refusal = world.plan(act, spelt(51, range(100))).refusal
    assert (refusal.code, refusal.hint.splitlines()[-1]) == ("DB409", "if that is right: --allow-replaced 51")
    assert "within a day 51 of 100 have new ones in their place" in refusal.message
    with pytest.raises(Refused):
        world.sync(act, spelt(80, range(100)), Ceilings(allow_replaced=79, allow_creates=100))
    world.clock.time += 2 * 86_400
    assert world.plan(act, spelt(80, range(100))).refusal is None


def test_keys_that_leave_in_one_run_and_come_in_the_next_are_replaced_too(tmp_path):
    world, act = World(tmp_path / "state"), activation("insert")
    world.sync(act, spelt(0, range(100)))
    world.sync(act, spelt(0, range(40, 100)))
    world.sync(act, spelt(40, range(100)))
    assert not world.plan(act, spelt(40, range(100))).has_changes
    world.sync(act, spelt(40, [*range(40), *range(80, 100)]))
    assert world.plan(act, spelt(80, range(100))).refusal.code == "DB409"
    back = world.plan(act, spelt(40, range(100)))
    assert (back.refusal, back.has_changes) == (None, False), "they came back as they were"
    world.sync(act, spelt(80, range(100)), Ceilings(allow_replaced=80))
    assert world.plan(act, spelt(100, range(100))).refusal is None, "what a flag let pass is not held"


@pytest.mark.parametrize("days", [0, 9])
def test_keys_that_left_before_are_known_in_another_spelling(tmp_path, days):
    """The segment is half of what it was, and then the others are back, in capitals."""
    world, act = World(tmp_path / "state"), activation("insert")
    world.sync(act, other(range(60), "k{}".format))
    world.sync(act, other(range(30), "k{}".format))
    world.clock.time += days * 86_400
    plan = world.plan(act, other(range(60), lambda n: f"{'k' if n < 30 else 'K'}{n}"))
    assert (plan.refusal.code, plan.refusal.hint.splitlines()[-1]) == ("DB409", "if that is right: --allow-replaced 30")


def test_a_few_keys_a_run_in_another_spelling_are_held_together(tmp_path):
    world, act = World(tmp_path / "state"), activation("insert")
    world.sync(act, other(range(60), "k{}".format))
    world.sync(act, other(range(60), lambda n: f"{'K' if n < 6 else 'k'}{n}"))
    plan = world.plan(act, other(range(60), lambda n: f"{'K' if n < 12 else 'k'}{n}"))
    assert plan.refusal.code == "DB409"
    assert "12 of them a key that left in another spelling" in plan.refusal.message


def test_an_insert_holds_a_few_keys_in_another_spelling_and_sends_the_others(tmp_path):
    world, act = World(tmp_path / "state"), activation("insert")
    model = other(range(61), lambda n: f"{'K' if n < 3 else 'k'}{n}")
    world.sync(act, other(range(60), "k{}".format))
    for _ in range(2):
        run = world.sync(act, model)
        held = pa.concat_tables(run.not_delivered).to_pylist()
        assert {(row["key"], row["fate"], row["code"]) for row in held} == {
            (f"K{n}", "held", "KEY_RESPELLED") for n in range(3)
        }
        assert "state rekey things" in held[0]["message"]
        assert len(world.org.records["Thing__c"]) == 61
    assert world.plan(act, model).counts.held == 3
    world.sync(act, model, Ceilings(allow_replaced=3))
    assert len(world.org.records["Thing__c"]) == 64
    assert world.plan(act, model).counts.held == 0


def test_an_update_under_keys_that_change_little_by_little_is_a_mass_change(tmp_path):
    world, act = World(tmp_path / "state"), activation("update")
    world.sync(activation(name="makes"), spelt(0, range(1_000)))
    world.sync(act, spelt(0, range(1_000)))
    world.sync(act, spelt(400, range(1_000)))
    refusal = world.plan(act, spelt(800, range(1_000))).refusal
    assert (refusal.code, refusal.hint) == ("DB403", "if that is right: --allow-changes 800")


def test_an_update_under_other_keys_writes_again_and_makes_nothing(tmp_path):
    world, act = World(tmp_path / "state"), activation("update")
    world.sync(activation(name="makes"), other(range(1_000), "m{}".format))
    world.sync(act, other(range(1_000), "k{}".format))
    assert world.plan(act, other(range(1_000), "K{}".format)).refusal.code == "DB403"
    assert world.plan(act, other(range(1_000), "K{}".format), Ceilings(allow_changes=1_000)).refusal is None


def test_what_passed_by_a_flag_is_named():
    act = activation()
    left = np.arange(30, dtype=np.uint64)
    effect = Effect(2_000, 2_000, changed=np.arange(1_500, dtype=np.uint64), removed=30, left=left)
    verdict = guards.judge(act, effect, Day(), Ceilings(allow_changes=1_500, allow_deletes=30))
    assert (verdict.refusal, verdict.passed) == (None, {Counted.CHANGED, Counted.REMOVED})


@pytest.mark.parametrize(("changed", "passes"), [(10, True), (11, False)])
def test_a_number_holds_for_a_handful_of_rows(changed, passes, tmp_path):
    ceiling = Ceiling(rows=10)
    act = dataclasses.replace(activation("upsert"), guards=dataclasses.replace(activation().guards, max_change=ceiling))
    world = World(tmp_path / "s")
    rows = [{"id": str(n), "ext": f"e{n}", "a": "x", "b": "y"} for n in range(30)]
    world.sync(act, Model.of(rows))
    new = [{**row, "a": "new"} if n < changed else row for n, row in enumerate(rows)]
    if passes:
        assert world.sync(act, Model.of(new)).outcome.succeeded == changed
    else:
        with pytest.raises(Refused, match=r"DB403.*\n.*--allow-changes 11"):
            world.sync(act, Model.of(new))


HALF = Guards(Ceiling(percent=Decimal(1)), Ceiling(percent=Decimal(50)))
NUMBERS = Guards(Ceiling(rows=20), Ceiling(rows=20), max_created=Ceiling(rows=20), max_replaced=Ceiling(rows=20))
CHANGED = np.arange(4_000, dtype=np.uint64)


def does(known, present, created=0, changed=CHANGED[:0], gone=0, away=0, **more):
    """`away` keys that left before come after the `gone` ones that leave now."""
    return Effect(known, present, created, changed, left=CHANGED[:gone], away=CHANGED[gone:][:away], **more)


MORE = "each would be one more record; for one record a key, whatever becomes of its row: on_change: ignore"
WAYS = (
    "to see keys: dinmo-dbt plan -s things --show-values\n"
    "the same rows under other keys: dinmo-dbt state rekey things\n"
    "or take over what Salesforce holds: dinmo-dbt state adopt things{0}\n"
    "or forget what is known: dinmo-dbt state reset things\n"
    "if that is right: --allow-replaced {1}"
)


@pytest.mark.parametrize(
    ("mode", "effect", "day", "code", "message", "hint"),
    [
        (
            "upsert",
            does(1_000, 1_000, changed=CHANGED[:501]),
            Day(),
            "DB403",
            "501 of 1,000 known rows changed; guards.max_change is 50%",
            "if that is right: --allow-changes 501",
        ),
        (
            "insert",
            does(20, 20, changed=CHANGED[:11]),
            Day(),
            "DB403",
            "11 of 20 known rows changed; guards.max_change is 50%",
            f"{MORE}\nif that is right: --allow-changes 11",
        ),
        (
            "insert",
            does(20, 20, changed=CHANGED[:6]),
            Day(changed=CHANGED[5:11]),
            "DB403",
            "with 6 more, 11 of 20 known rows changed within a day; guards.max_change is 50%",
            f"{MORE}\nif that is right: --allow-changes 11",
        ),
        (
            "upsert",
            does(2_000, 2_000, changed=CHANGED[:1_001]),
            Day(),
            "DB403",
            "1,001 of 2,000 known rows changed; guards.max_change is 50%",
            "if that is right: --allow-changes 1001",
        ),
        (
            "upsert",
            does(2_000, 2_000, changed=CHANGED[:1_000]),
            Day(changed=CHANGED[999:1_100]),
            "DB403",
            "with 1,000 more, 1,100 of 2,000 known rows changed within a day; guards.max_change is 50%",
            "if that is right: --allow-changes 1100",
        ),
        (
            "update",
            does(2_000, 2_000, 500, CHANGED[:600], gone=500),
            Day(),
            "DB403",
            "1,100 of 2,000 known rows changed; guards.max_change is 50%",
            "if that is right: --allow-changes 1100",
        ),
        (
            "update",
            does(2_000, 2_000, 500, CHANGED[:400], gone=500),
            Day(changed=CHANGED[400:600]),
            "DB403",
            "with 900 more, 1,100 of 2,000 known rows changed within a day; guards.max_change is 50%",
            "if that is right: --allow-changes 1100",
        ),
        (
            "insert",
            does(2_000, 2_000, remapped=1_001),
            Day(),
            "DB404",
            "the mapping changed: 1,001 of 2,000 known rows would be sent their new fields",
            "if that is right: --allow-remap 1001",
        ),
        (
            "insert",
            does(2_000, 2_000, 1_501),
            Day(),
            "DB408",
            "1,501 new rows beside 2,000 known ones; guards.max_created is 75%",
            "if that is right: --allow-creates 1501",
        ),
        (
            "insert",
            does(2_100, 2_100, 1_600),
            Day(created=100),
            "DB408",
            "1,600 new rows beside 2,100 known ones; guards.max_created is 75%",
            "if that is right: --allow-creates 1700",
        ),
        (
            "insert",
            does(2_100, 2_100, 1_600),
            Day(created=1_101),
            "DB408",
            "1,600 new rows beside 2,100 known ones; guards.max_created is 75%",
            "if that is right: --allow-creates 1600",
        ),
        (
            "insert",
            does(2_100, 2_100, 1_401),
            Day(created=100),
            "DB408",
            "with 1,401 more, 1,501 new rows came within a day to 2,000; guards.max_created is 75%",
            "if that is right: --allow-creates 1501",
        ),
        (
            "upsert",
            does(2_000, 2_000, removed=21, gone=22),
            Day(),
            "DB407",
            "22 rows left the segment, and 21 records would be set as on_removed says; guards.max_delete is 1%",
            "if that is right: --allow-deletes 21",
        ),
        (
            "upsert",
            does(2_000, 2_000, removed=15, gone=15),
            Day(removed=6),
            "DB407",
            "15 rows left the segment, and 15 records would be set as on_removed says, after 6 within a day; "
            "guards.max_delete is 1%",
            "if that is right: --allow-deletes 21",
        ),
        (
            "delete",
            does(2_000, 2_000, removed=21),
            Day(),
            "DB407",
            "21 records would be deleted; guards.max_delete is 1%",
            "if that is right: --allow-deletes 21",
        ),
        (
            "insert",
            does(2_000, 2_000, 1_001, gone=1_002),
            Day(),
            "DB409",
            "1,002 of 2,000 known keys left the segment while 1,001 new ones came: did the key change its spelling, "
            "or is it not the same twice? Or did the segment change? A sync would make a record of each",
            WAYS.format(" --match COLUMN=FIELD", 1_001),
        ),
        (
            "upsert",
            does(2_000, 2_000, 1_001, gone=1_001, respelled=11),
            Day(),
            "DB409",
            "1,001 of 2,000 known keys left the segment while 1,001 new ones came, 11 of them a key that left in "
            "another spelling, or with its very values. A sync would make a record where it can",
            WAYS.format("", 1_001),
        ),
        (
            "insert",
            does(2_000, 2_000, 401, gone=401, away=700),
            Day(created=600, left=CHANGED[401:1_001]),
            "DB409",
            "401 of 2,000 known keys left the segment while 401 new ones came, and within a day 1,001 of 2,000 have "
            "new ones in their place: did the key change its spelling, or is it not the same twice? Or did the segment "
            "change? A sync would make a record of each",
            WAYS.format(" --match COLUMN=FIELD", 1_001),
        ),
        (
            "upsert",
            does(2_000, 999, 1_001, away=1_001),
            Day(left=CHANGED[:1_001]),
            "DB409",
            "0 of 999 known keys left the segment while 1,001 new ones came, and within a day 1,001 of 2,000 have new "
            "ones in their place: did the key change its spelling, or is it not the same twice? Or did the segment "
            "change? A sync would make a record where it can",
            WAYS.format("", 1_001),
        ),
        (
            "upsert",
            does(99, 20, 20, gone=20, away=5),
            Day(created=50, left=CHANGED[20:25]),
            "DB409",
            "20 of 20 known keys left the segment while 20 new ones came, and within a day 25 of 0 have new ones in "
            "their place: did the key change its spelling, or is it not the same twice? Or did the segment change? A "
            "sync would make a record where it can",
            WAYS.format("", 25),
        ),
        (
            "upsert",
            does(2_000, 2_000, 1, gone=1, respelled=1),
            Day(respelled=10),
            "DB409",
            "1 of 2,000 known keys left the segment while 1 new ones came, 11 of them a key that left in another "
            "spelling, or with its very values. A sync would make a record where it can",
            WAYS.format("", 11),
        ),
        (
            "update",
            does(2_000, 2_000, 300, CHANGED[:200], gone=300, away=600),
            Day(created=600, left=CHANGED[300:900]),
            "DB403",
            "with 500 more, 1,100 of 2,000 known rows changed within a day; guards.max_change is 50%",
            "if that is right: --allow-changes 1100",
        ),
        (
            "upsert",
            does(2_000, 2_000, 30, CHANGED[:1_500], gone=30, respelled=11, removed=30),
            Day(),
            "DB409",
            "30 of 2,000 known keys left the segment while 30 new ones came, 11 of them a key that left in "
            "another spelling, or with its very values. A sync would make a record where it can; 1,500 of 2,000 known "
            "rows changed; "
            "guards.max_change is 50%; 30 rows left the segment, "
            "and 30 records would be set as on_removed says; guards.max_delete is 1%",
            WAYS.format("", 30) + " --allow-changes 1500 --allow-deletes 30",
        ),
    ],
)
def test_a_refusal_says_what_the_run_would_do_and_what_allows_it(mode, effect, day, code, message, hint):
    act = activation(mode, guards=HALF)
    refusal = guards.judge(act, effect, day, Ceilings()).refusal
    assert (refusal.code, refusal.message, refusal.hint) == (code, message, hint)
    assert refusal.where == act.meta_path


def test_a_refusal_says_that_records_would_be_deleted():
    act = activation("upsert", guards=HALF, on_removed="delete")
    refusal = guards.judge(act, does(2_000, 2_000, removed=21, gone=21), Day(), Ceilings()).refusal
    assert refusal.message == "21 rows left the segment, and 21 records would be deleted; guards.max_delete is 1%"


def test_a_refusal_says_how_the_types_moved():
    moved = Moved("k was a date", "a was a date")
    effect = does(2_000, 2_000, 5, CHANGED[:7], gone=5)
    refusal = guards.judge(activation("insert", guards=HALF), effect, Day(), Ceilings(), moved).refusal
    assert (refusal.code, refusal.message) == (
        "DB409",
        "k was a date: 5 of 2,000 known keys left the segment while 5 new ones came. A sync would make a record of "
        "each; a was a date: 7 rows are not what they were before, and would be inserted again",
    )
    assert refusal.hint == (
        WAYS.format(" --match COLUMN=FIELD", 5).replace("\nif", "\nto take them as they are, without a send: {}\nif")
        + " --allow-changes 7"
    ).format("on_change: ignore for one sync")
    many = dataclasses.replace(effect, created=1_100, left=CHANGED[:1_100])
    refusal = guards.judge(activation("insert", guards=HALF), many, Day(), Ceilings(), Moved("k was a date")).refusal
    assert "did the key change" not in refusal.message, "it is known how"
    still = dataclasses.replace(effect, created=0, left=CHANGED[:0])
    assert guards.judge(activation("upsert", guards=HALF), still, Day(), Ceilings(), moved).refusal is None
    alone = guards.judge(activation("insert", guards=HALF), still, Day(), Ceilings(), moved).refusal
    assert (alone.code, alone.hint[-17:]) == ("DB413", "--allow-changes 7")
    day = Day(changed=CHANGED[:1_001])
    more = guards.judge(activation("insert", guards=HALF), still, day, Ceilings(), moved).refusal
    assert (more.code, more.hint[-20:]) == ("DB413", "--allow-changes 1001"), "the day holds there, too"


@pytest.mark.parametrize(
    ("mode", "effect", "day"),
    [
        ("upsert", does(2_000, 2_000, changed=CHANGED[:1_000]), Day()),
        ("upsert", does(2_000, 2_000, changed=np.repeat(CHANGED[:1_000], 2)), Day(changed=CHANGED[500:1_000])),
        ("upsert", does(999, 999, changed=CHANGED[:999]), Day()),
        ("upsert", does(2_000, 2_000), Day(changed=CHANGED)),
        ("insert", does(2_000, 2_000, remapped=1_000), Day()),
        ("insert", does(999, 999, remapped=999), Day()),
        ("insert", does(20, 20, changed=CHANGED[:10]), Day(changed=CHANGED[:10])),
        ("insert", does(2_000, 2_000, 1_500), Day()),
        ("insert", does(2_000, 2_000, 2_000, admitted=500), Day()),
        ("insert", does(2_000, 2_000, 1_500, admitted=1_600), Day(created=1_000)),
        ("insert", does(2_100, 2_100, 1_400), Day(created=100)),
        ("insert", does(2_000, 2_000), Day(created=2_000)),
        ("insert", does(1_998, 1_998, 1_000), Day(created=999)),
        ("upsert", does(2_000, 2_000, removed=20, gone=20), Day()),
        ("upsert", does(1_994, 1_994, removed=14, gone=14), Day(removed=6)),
        ("upsert", does(2_000, 2_000), Day(removed=50)),
        ("insert", does(2_000, 2_000, 1_000, gone=1_000, respelled=10), Day()),
        ("insert", does(3, 3, 3, gone=3, respelled=1), Day()),
        ("insert", does(1, 1, 1, gone=1, respelled=1), Day()),
        ("insert", does(4, 4, 2, gone=2, respelled=2), Day()),
        ("insert", does(2_000, 2_000, 1, gone=1, respelled=0), Day(respelled=20)),
        ("insert", does(2_000, 2_000, 1, gone=1, respelled=1), Day(respelled=9)),
        ("insert", does(2_000, 2_000, 400, gone=400, away=700), Day(created=600, left=CHANGED[400:1_000])),
        ("insert", does(2_000, 2_000, 400, gone=400, away=600), Day(created=600, left=CHANGED[:4_000])),
        ("insert", does(2_000, 2_000, 400, gone=400), Day(created=500, left=CHANGED[:1_100])),
        ("insert", does(2_000, 1_000, 1_000, away=1_000), Day(left=CHANGED)),
        ("insert", does(2_000, 900, 0, away=1_100), Day(created=1_100, left=CHANGED)),
        ("update", does(2_000, 2_000, 1_000, gone=1_000), Day()),
        ("update", does(2_000, 2_000, 2_500, gone=1_000), Day()),
    ],
)
def test_what_is_at_its_ceiling_passes(mode, effect, day):
    verdict = guards.judge(activation(mode, guards=HALF), effect, day, Ceilings())
    assert (verdict.refusal, verdict.passed) == (None, frozenset()), "and needs no flag"


def test_two_keys_in_another_spelling_are_enough_where_they_are_most():
    effect = does(3, 3, 2, gone=2, respelled=2)
    assert guards.judge(activation("insert", guards=HALF), effect, Day(), Ceilings()).refusal.code == "DB409"


@pytest.mark.parametrize(
    ("present", "shifted", "passes"),
    [(100, 10, True), (100, 11, False), (10, 5, True), (10, 6, False), (1, 1, True), (3, 2, False)],
)
def test_values_that_go_from_key_to_key_stop_a_run_where_they_are_more_than_a_few(present, shifted, passes):
    effect = does(100, present, shifted=shifted)
    verdict = guards.judge(activation("insert", guards=HALF), effect, Day(), Ceilings())
    assert (verdict.refusal is None) == passes
    if not passes:
        assert verdict.refusal.code == "DB419"
        assert verdict.refusal.message.startswith(f"{shifted} rows have the very values that another known key had")
        assert verdict.refusal.hint.splitlines() == [
            "give the model a key that stays with its row, then start again: dinmo-dbt state reset things",
            "and take over what Salesforce holds: dinmo-dbt state adopt things --match COLUMN=FIELD",
            "where rows change places each day: guards: {max_change: 100%}",
            f"if that is right: --allow-changes {shifted}",
        ]
        allowed = Ceilings(allow_changes=shifted)
        assert guards.judge(activation("insert", guards=HALF), effect, Day(), allowed).refusal is None
    every_day = dataclasses.replace(HALF, max_change=Ceiling(percent=Decimal(100)))
    assert guards.judge(activation("insert", guards=every_day), effect, Day(), Ceilings()).refusal is None


def test_new_rows_in_the_place_of_others_are_asked_for_once():
    """Where they are refused as replaced, those beyond them may still be too many."""
    effect = does(2_000, 2_000, 2_600, gone=1_050, respelled=11)
    refusal = guards.judge(activation("insert", guards=HALF), effect, Day(), Ceilings()).refusal
    assert refusal.hint.endswith("\nif that is right: --allow-replaced 1050 --allow-creates 1550")
    known = dataclasses.replace(effect, admitted=50)
    refusal = guards.judge(activation("insert", guards=HALF), known, Day(), Ceilings()).refusal
    assert refusal.hint.endswith("\nif that is right: --allow-replaced 1050")


def test_a_number_holds_from_the_first_known_row_on():
    for effect in (does(1, 1, 21), does(1, 1, changed=CHANGED[:21]), does(1, 1, remapped=21)):
        assert guards.judge(activation("insert", guards=NUMBERS), effect, Day(), Ceilings()).refusal
    assert guards.judge(activation("insert", guards=NUMBERS), does(0, 0, 21), Day(), Ceilings()).refusal is None


def test_what_stands_for_nothing_is_nothing():
    assert [*dataclasses.asdict(Ceilings()).values()] == [0, 0, 0, 0, 0, False, False]
    for made in (Effect(0, 0), Day()):
        held = [getattr(made, each.name) for each in dataclasses.fields(made)]
        assert [each if isinstance(each, int) else len(each) for each in held] == [0] * len(held)
    assert guards.DAY_S == 86_400.0


def test_what_a_row_counts_as_is_kept_as_the_same_number():
    """The state holds them."""
    assert {each.name: int(each) for each in Counted} == {
        "NOT": 0, "CREATED": 1, "CHANGED": 2, "REMOVED": 3, "RESPELLED": 4,
    }  # fmt: skip


def test_how_many_records_may_be_deleted_is_the_guard_s_number_or_the_flag_s():
    assert [guards.deletes_max(HALF, 2_000, allowed) for allowed in (0, 20, 21)] == [20, 20, 21]


SAME_MOMENT = [
    "2024-01-07",
    "2024-01-07 00:00",
    "2024-01-07T00:00:00",
    "2024-01-07t00:00:00.000z",
    "2024-01-07 00:00:00+00",
    "2024-01-07 00:00+0000",
    "2024-01-07T00:00:00.0+00:00",
]


def test_spellings_of_one_key_and_of_others():
    assert set(spelling(pa.array(SAME_MOMENT)).to_pylist()) == {"2024-01-07"}
    assert set(spelling(pa.array(["7", "7.0", "7.00", "007", "0007.0", " 7\n"])).to_pylist()) == {"7"}
    assert spelling(pa.array(["-07", "+07.0", "-7", "0", "00", "000.0", "٠٧"])).to_pylist() == [
        "-7", "+7", "-7", "0", "0", "0", "٠٧",
    ]  # fmt: skip
    apart = ["7.5", "70", "7.", "7.0a", "a7.0", "0x7", "2024-01-07 00:01", "2024-01-07 00:00:01",
             "2024-01-07 00:00+01:00", "2024-01-07 00:00:00.001", "x2024-01-07 00:00", "2024-01-07 00:00x",
             "0a7"]  # fmt: skip
    assert spelling(pa.array(apart)).to_pylist() == apart


def test_the_first_few_respelled_keys_are_reported():
    first, pairs = respelled(pa.array(list("abcdefg")), pa.array(list("GFEDCBAX")))
    assert (first.tolist(), pairs) == (
        [True] * 7 + [False],
        [("g", "G"), ("f", "F"), ("e", "E"), ("d", "D"), ("c", "C")],
    )


def test_what_passes_in_the_place_of_others_is_noted():
    def noted(effect, mode="insert", day=None):
        return guards.replaced_note(activation(mode, guards=HALF), effect, day or Day())

    told = "5 of 2,000 known keys left the segment while 7 new ones came"
    assert noted(does(2_000, 2_000, 7, gone=5)) == noted(does(2_000, 2_000, 7, gone=5), "upsert")
    assert noted(does(2_000, 2_000, 7, gone=5)) == f"{told}; guards.max_replaced is 50%"
    spelt = does(2_000, 2_000, 7, gone=5, respelled=2)
    assert noted(spelt, day=Day(respelled=3)) == (
        f"{told}, 5 of them a key that left in another spelling, or with its very values; guards.max_replaced is 50%"
    )
    assert noted(does(2_000, 2_000, 1, respelled=1)).startswith("0 of 2,000 known keys left")
    assert noted(does(2_000, 1_995, 7, away=5), day=Day(left=CHANGED[:5])) == (
        "0 of 1,995 known keys left the segment while 7 new ones came, and within a day 5 of 2,000 have new ones in "
        "their place; guards.max_replaced is 50%"
    )
    assert not noted(does(2_000, 2_000, 7)) and not noted(does(2_000, 2_000, gone=7))
    assert not noted(does(2_000, 2_000, 7, gone=5), "update") and not noted(does(2_000, 2_000, 7, gone=5), "delete")


def test_a_hint_matches_by_the_key_or_leaves_it_to_the_user():
    by_key = (FieldMapping("a", "A__c"), FieldMapping("id", "Ext__c"))
    for mode, fields, said in (
        ("insert", by_key, "dinmo-dbt state adopt things --match id=Ext__c"),
        ("insert", by_key[:1], "dinmo-dbt state adopt things --match COLUMN=FIELD"),
        ("upsert", by_key, "dinmo-dbt state adopt things"),
    ):
        act = activation(mode, fields=fields)
        assert act.adopting == said
        assert f"{said}\n" in fence.ways_out(act)
