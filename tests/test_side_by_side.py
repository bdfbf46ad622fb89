"""The order in which turns are taken side by side: drawn activations, threads and endings, and its two laws."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from memory_org import activation

from dinmo_dbt.cli import side_by_side
from dinmo_dbt.cli.console import Console
from dinmo_dbt.cli.due import Turn
from dinmo_dbt.cli.lanes import Reach
from dinmo_dbt.cli.side_by_side import free, take_all
from dinmo_dbt.warehouse.dbt_profile import as_dbt_runs
from dinmo_dbt.watch.history import Trigger

OBJECTS = ("account", "contact", "case", "lead")
REACHES = st.builds(
    Reach,
    st.sampled_from(["one", "two"]),
    st.sampled_from(OBJECTS),
    st.frozensets(st.sampled_from(OBJECTS), max_size=2),
)


@given(st.lists(REACHES, max_size=8), st.integers(1, 5), st.data())
def test_all_are_taken_and_those_that_meet_one_after_the_other_as_they_stand(
    reaches: list[Reach], threads: int, data: st.DataObject
) -> None:
    waiting, under_way, ended = list(range(len(reaches))), [], []
    while waiting or under_way:
        place = free([reaches[n] for n in waiting], [reaches[n] for n in under_way])
        begins = place is not None and len(under_way) < threads and (not under_way or data.draw(st.booleans()))
        if begins:
            number = waiting.pop(place)
            earlier = [n for n in range(number) if reaches[n].meets(reaches[number])]
            assert set(earlier) <= set(ended)
            under_way.append(number)
        else:
            assert under_way, "nothing is under way, and nothing may begin"
            ended.append(under_way.pop(data.draw(st.integers(0, len(under_way) - 1))))
    assert sorted(ended) == list(range(len(reaches)))


def test_what_meets_nothing_before_it_goes_first() -> None:
    parent, child = Reach("o", "account", frozenset()), Reach("o", "contact", frozenset({"account"}))
    lead, elsewhere = Reach("o", "lead", frozenset()), Reach("p", "account", frozenset())
    assert free([parent, child, lead], []) == 0
    assert free([child, lead], [parent]) == 1
    assert free([child], [parent, lead]) is None
    assert free([child], [elsewhere]) == 0
    assert free([parent, elsewhere], [child]) == 1


class World(SimpleNamespace):
    """What `take_all` asks of a session."""

    def beside(self) -> World:
        return World(console=self.console, is_beside=True)

    def __enter__(self) -> World:
        return self

    def __exit__(self, *_: object) -> None:
        pass


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    def reach(_session: object, of: object) -> Reach:
        return Reach("o", of.object.lower(), frozenset())  # type: ignore[attr-defined]

    monkeypatch.setattr(side_by_side, "reach", reach)
    return World(console=Console(), is_beside=False)


def turns(*objects: str) -> list[Turn]:
    return [
        Turn(activation(name=f"a{number}", object=name), "1 of 1", Trigger()) for number, name in enumerate(objects)
    ]


def test_one_thread_is_the_command_s_own_session(world: World) -> None:
    taken: list[tuple[str, bool]] = []
    take_all(world, turns("A", "B"), 1, lambda own, turn: taken.append((turn.activation.name, own.is_beside)))  # type: ignore[arg-type,attr-defined]
    take_all(world, turns("A"), 8, lambda own, turn: taken.append((turn.activation.name, own.is_beside)))  # type: ignore[arg-type,attr-defined]
    assert taken == [("a0", False), ("a1", False), ("a0", False)]
    assert not world.console.shared


def test_as_many_at_once_as_there_are_threads(world: World) -> None:
    both = threading.Barrier(3, timeout=60)
    own: set[int] = set()

    def take(_session: object, turn: Turn) -> None:
        own.add(threading.get_ident())
        assert world.console.shared
        if turn.activation.name in ("a0", "a1", "a2"):
            both.wait()  # broken where they are not taken at once

    take_all(world, turns("A", "B", "C", "D", "E"), 3, take)  # type: ignore[arg-type]
    assert len(own) == 3 and threading.get_ident() not in own
    assert not world.console.shared


@pytest.mark.parametrize("error", [ValueError("x"), SystemExit(3), KeyboardInterrupt()])
def test_a_defect_is_raised_once_what_is_under_way_is_through(world: World, error: BaseException) -> None:
    begun, failed = threading.Event(), threading.Event()
    through: list[str] = []

    def take(_session: object, turn: Turn) -> None:
        if turn.activation.name == "a0":
            assert begun.wait(60)
            failed.set()
            raise error
        begun.set()
        assert failed.wait(60)
        through.append(turn.activation.name)

    with pytest.raises(type(error)):
        take_all(world, turns("A", "B", "A", "A"), 2, take)  # type: ignore[arg-type]
    assert through == ["a1"]  # what waited is not begun
    assert not world.console.shared


def test_threads_that_can_t_be_had_are_missed_by_nobody(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    start, started = threading.Thread.start, []

    def scarce(thread: threading.Thread) -> None:
        if len(started) == most:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", scarce)
    taken: list[str] = []
    most = 1
    take_all(world, turns("A", "B", "C"), 3, lambda _own, turn: taken.append(turn.activation.name))  # type: ignore[arg-type]
    assert taken == ["a0", "a1", "a2"]
    most = len(started)
    with pytest.raises(RuntimeError, match="new thread"):
        take_all(world, turns("A", "B", "C"), 3, lambda _own, turn: taken.append(turn.activation.name))  # type: ignore[arg-type]
    assert len(taken) == 3 and not world.console.shared


def test_lines_of_one_turn_stand_together(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.console = Console()
    first, second = threading.Event(), threading.Event()

    def take(_session: object, turn: Turn) -> None:
        name = turn.activation.name
        world.console.say(f"{name} starts")
        with world.console.together():
            world.console.say(f"{name} one")
            (first if name == "a0" else second).set()
            assert (second if name == "a0" else first).wait(60)
            world.console.say(f"{name} two")

    take_all(world, turns("A", "B"), 2, take)  # type: ignore[arg-type]
    lines = capsys.readouterr().out.splitlines()
    told = [line for line in lines if "starts" not in line]
    assert sorted(lines[:2]) == ["a0 starts", "a1 starts"]
    assert told in (["a0 one", "a0 two", "a1 one", "a1 two"], ["a1 one", "a1 two", "a0 one", "a0 two"])


def test_what_is_told_while_dbt_connects_goes_where_it_belongs(capsys: pytest.CaptureFixture[str]) -> None:
    story = Console()
    with as_dbt_runs(Path.cwd()):
        story.say("a line")
        print("a login link")
    told = capsys.readouterr()
    assert (told.out, told.err) == ("a line\n", "a login link\n")
