"""The org's own record of a state: who wrote it last goes on, and a copy of before does not, however runs end."""

from __future__ import annotations

import copy
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from memory_org import MemoryOrg

import dinmo_dbt
from dinmo_dbt.delivery.state_record import RecordOf
from dinmo_dbt.destination import StateRecord
from dinmo_dbt.errors import NotApplied

SENDING: Any = SimpleNamespace(refusal=None, batches=("one",))
QUIET: Any = SimpleNamespace(refusal=None, batches=())


@dataclass
class Known:
    lineage: str = "one"
    serial: int = 0
    marks: set[str] = field(default_factory=set)

    def known_jobs(self) -> frozenset[str]:
        return frozenset(self.marks)

    def know(self, marks: Collection[str]) -> None:
        self.marks |= set(marks)


class Died(BaseException):
    pass


def of(org: Any, state: Known) -> RecordOf:
    return RecordOf(org, state, "project", "dev", "things")


def is_stopped(org: MemoryOrg, state: Known) -> bool:
    return of(org, state).unknown()[0] is not None


def run(org: MemoryOrg, state: Known, name: str, recorded: int, *, dies: bool) -> None:
    """A run that moves the serial by so many; one that dies does so before its end is written."""
    with suppress(Died), of(org, state).kept(SENDING, name, pytest.fail):
        state.serial += recorded
        if dies:
            raise Died


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=1, max_size=6), st.data())
def test_who_wrote_last_goes_on_and_a_copy_of_before_does_not(
    runs: list[tuple[int, bool]], data: st.DataObject
) -> None:
    org, state, copies = MemoryOrg(), Known(), []
    for number, (recorded, dies) in enumerate(runs):
        assert not is_stopped(org, state)
        copies.append(copy.deepcopy(state))
        run(org, state, f"run{number}", recorded, dies=dies)
    assert not is_stopped(org, state)
    before = data.draw(st.integers(0, len(copies) - 1))
    assert is_stopped(org, copies[before])
    assert is_stopped(org, Known("another", state.serial + 5))
    of(org, copies[before]).accept()
    assert not is_stopped(org, copies[before])


def test_a_mark_that_is_forgotten_with_time_stops_no_state_that_is_not_behind() -> None:
    org, state = MemoryOrg(), Known()
    run(org, state, "run", 2, dies=False)
    state.marks.clear()
    assert not is_stopped(org, state)


def test_a_run_that_sends_nothing_asks_for_nothing_and_writes_nothing() -> None:
    record = of(None, Known())
    assert record.check(QUIET) == ()
    with record.kept(QUIET, "run", pytest.fail):
        pass


def test_projects_targets_and_activations_have_records_of_their_own() -> None:
    names = [("a", "b", "c"), ("a", "b", "d"), ("a", "x", "c"), ("x", "b", "c"), ("ab", "", "c"), ("a", "bc", "")]
    keys = {RecordOf(MemoryOrg(), Known(), *each).key for each in names}  # type: ignore[arg-type]
    assert len(keys) == len(names) and all(len(key) == 64 and key.isalnum() for key in keys)


class Failing(MemoryOrg):
    def state_record(self, key: str) -> StateRecord | None:
        raise NotApplied("DB606", "no right")

    def keep_state_record(self, key: str, name: str, record: StateRecord) -> None:
        raise NotApplied("DB606", "no right")


def test_what_fails_is_reported_and_stops_nothing() -> None:
    told: list[str] = []
    record = of(Failing(), Known())
    assert record.check(SENDING) == ("the org's record of this state can't be read: no right",)
    with record.kept(SENDING, "run", told.append):
        record.state.serial += 2
    assert told == ["the org's record of this state can't be written: no right"] * 2


def test_the_permission_set_that_ships_opens_what_may_be_opened() -> None:
    """A required field has no permission of its own, and Salesforce refuses a set that names one."""
    shipped = Path(dinmo_dbt.__file__).parent / "salesforce_metadata" / "force-app" / "main" / "default"
    names = {"m": "http://soap.sforce.com/2006/04/metadata"}
    fields = [ET.parse(path) for path in shipped.glob("objects/*/fields/*.xml")]
    optional = {
        f"Dinmo_State__c.{field.findtext('m:fullName', namespaces=names)}"
        for field in fields
        if field.findtext("m:required", namespaces=names) == "false"
    }
    (path,) = shipped.glob("permissionsets/*.xml")
    opened = {element.text for element in ET.parse(path).iterfind("m:fieldPermissions/m:field", names)}
    assert opened == optional and len(fields) == len(optional) + 1
