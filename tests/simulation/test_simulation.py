"""A small share of what `make simulate` plays, and whether it could find anything."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest

from . import planting
from .__main__ import played
from .history import Broken, History
from .org import SimulatedOrg

# A process that is killed closes nothing.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    yield
    gc.collect()


@pytest.fixture
def org(tmp_path: Path) -> Iterator[SimulatedOrg]:
    made = SimulatedOrg(tmp_path)
    yield made
    made.close()


def test_no_history_loses_or_doubles_a_row() -> None:
    broken, met = played(range(60))
    assert broken == []
    assert met["success"] > met["killed"] > 20  # the histories are not all alike


def test_a_seed_is_one_history_to_the_letter(org: SimulatedOrg) -> None:
    def lived() -> tuple[list[str], object]:
        history = History(org, 27)
        history.play()
        return history.told, org.app.calls.latest()

    assert lived() == lived()


def test_a_record_too_many_is_seen(org: SimulatedOrg) -> None:
    history = next(h for h in (History(org, seed) for seed in range(50)) if h.mode == "insert")
    history.play()
    copied = org.held()[0]
    org.create([{"Name": "copy", "A__c": copied["A__c"], "B__c": copied["B__c"]}])
    with pytest.raises(Broken, match="I1"):
        history._check_org()


@pytest.mark.parametrize("planted", planting.every(), ids=lambda planted: planted.name)
def test_each_planted_fault_has_its_place(planted: planting.Planted) -> None:
    assert (planting.ROOT / planted.file).read_text(encoding="utf-8").count(planted.old) == 1


def test_a_planted_fault_is_found() -> None:
    pointer = next(planted for planted in planting.every() if planted.name == "pointer_stays")
    assert planting.found(pointer, 20) is not None
