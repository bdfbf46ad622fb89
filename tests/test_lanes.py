"""What may run side by side: drawn turns of several threads, and the law that holds at every instant."""

from __future__ import annotations

import random
import threading
import time
from types import SimpleNamespace

import pytest
from memory_org import activation

from dinmo_dbt.cli.lanes import Lanes, Reach

OBJECTS = ("Account", "Contact", "Case", "Lead")
REFERS = {"Account": set(), "Contact": {"account"}, "Case": {"Contact", "Account"}, "Lead": set()}
CLOCK = SimpleNamespace(lived=0.0)


def reach(of, refers_to=None) -> Reach:
    referred = REFERS[of.object] if refers_to is None else refers_to
    return Reach(of.destination, of.object.lower(), frozenset(each.lower() for each in referred))


def at_odds(one, other) -> bool:
    if one.destination != other.destination:
        return False
    first, second = one.object, other.object
    refers = {name: {each.lower() for each in of} for name, of in REFERS.items()}
    return first == second or first.lower() in refers[second] or second.lower() in refers[first]


@pytest.mark.parametrize("seed", range(5))
def test_no_two_run_at_once_whose_rows_could_lock_each_other_and_each_gets_its_turn(seed: int) -> None:
    rng = random.Random(seed)
    every = [
        activation(name=f"a{n}", object=rng.choice(OBJECTS), destination=rng.choice(["one", "two"])) for n in range(8)
    ]
    lanes, runs, seen, broken, lock = Lanes(), dict.fromkeys((a.name for a in every), 0), [], [], threading.Lock()

    def lane(number: int) -> None:
        draw = random.Random(seed * 100 + number)
        for _ in range(200):
            mine = draw.choice(every)
            now = time.monotonic()
            with lanes.turn(mine, reach(mine), CLOCK, now) as why:  # type: ignore[arg-type]
                if why != "":
                    continue
                with lock:
                    broken.extend(
                        (mine.name, each.name) for each in seen if each.name == mine.name or at_odds(mine, each)
                    )
                    seen.append(mine)
                    runs[mine.name] += 1
                threading.Event().wait(0.0001)
                with lock:
                    seen.remove(mine)

    threads = [threading.Thread(target=lane, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert broken == [] and all(runs.values()) and lanes.running() == []


def test_what_was_begun_since_a_look_drew_its_list_is_left_to_its_run() -> None:
    lanes, mine, other = Lanes(), activation(name="mine"), activation(name="other", object="Lead")

    def turn(which, since):
        return lanes.turn(which, reach(which, ()), CLOCK, since)  # type: ignore[arg-type]

    first = time.monotonic()
    assert not lanes.has_begun(mine, first)
    with turn(mine, first) as why:
        assert why == "" and lanes.has_begun(mine, time.monotonic()) and not lanes.has_begun(other, first)
        with turn(mine, time.monotonic()) as again, turn(other, first) as beside:
            assert (again, beside) == (None, "")
    later = time.monotonic()
    with turn(mine, first) as why:
        assert why is None and lanes.running() == []
    with turn(mine, later) as why:
        assert why == ""


def test_what_ends_in_an_error_is_running_no_more() -> None:
    lanes, mine = Lanes(), activation()
    with pytest.raises(ValueError, match="x"), lanes.turn(mine, reach(mine, ()), CLOCK, 0.0):  # type: ignore[arg-type]
        assert [each.activation for each in lanes.running()] == [mine]
        raise ValueError("x")
    assert lanes.running() == []


def test_the_local_org_is_one_for_all_and_ends_with_the_last() -> None:
    lanes, ended = Lanes(), []
    org = SimpleNamespace(close=lambda: ended.append(1))
    with lanes.org(lambda: org) as first:  # type: ignore[arg-type,return-value]
        with lanes.org(lambda: pytest.fail("a second one")) as second:  # type: ignore[arg-type,return-value]
            assert first is second
        assert not ended
    assert ended == [1]
