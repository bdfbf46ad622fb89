"""Whatever a run would do, and whatever flags it has: no more rows pass than their own ceiling lets."""

import dataclasses
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from memory_org import Killed, Model, Trip, World, activation

from dinmo_dbt import guards
from dinmo_dbt import plan as planning
from dinmo_dbt.activation import Ceiling, Guards
from dinmo_dbt.errors import Refused
from dinmo_dbt.guards import Ceilings, Counted, Day, Effect, Moved

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
    if held and len(effect.changed):
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


def test_a_first_sync_counts_for_no_day(tmp_path):
    world, act = World(tmp_path / "state"), activation()
    world.sync(act, rows(range(1_000)))
    world.sync(act, rows(range(1_600)))
    assert world.plan(act, rows(range(1_751))).refusal.hint == "if that is right: --allow-creates 751"


def test_a_first_sync_that_was_cut_off_goes_on(tmp_path, monkeypatch):
    """What a run was let to send and did not deliver is not held against the next one, and no more than that."""
    monkeypatch.setattr(planning, "COLLECTIONS_ROWS_MAX", 4)
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
    assert told(guards.respelled(left, came)) == ([True, False], [(old, new)])
    assert told(guards.respelled(came, left)) == ([False, True, False], [(new, old)])


def told(found):
    return found[0].tolist(), found[1]


def test_keys_of_their_own_are_no_spelling_of_another():
    left = pa.array(["a1", "1a", "0", "10", "2024-01-07", "-7", ""])
    came = pa.array(["a01", "01b", "00x", "100", "2024-01-07T01:00:00.000Z", "7"])
    assert told(guards.respelled(left, came)) == ([False] * 6, [])


def test_of_two_spellings_of_a_key_that_left_one_takes_its_place():
    assert told(guards.respelled(pa.array(["a"]), pa.array(["A", "A "]))) == ([True, False], [("a", "A"), ("a", "A ")])


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
