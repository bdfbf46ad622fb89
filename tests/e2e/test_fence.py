"""An older copy of the state, on a machine that has seen no newer one: what the org knows keeps it from inserting."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from .lab import EVENTS, Lab, Org

INSERT = {**EVENTS, "fields": {"event_id": "Ref__c", "kind": "Kind__c"}}


@pytest.fixture
def put_back(lab: Lab, tmp_path: Path) -> Callable[[], Callable[[], None]]:
    """Keeps the state as it is now; what it gives puts that in the place of whatever is there by then."""
    folder, kept = lab.root / ".dinmo", tmp_path / "kept"

    def keep() -> Callable[[], None]:
        shutil.copytree(folder, kept, ignore=shutil.ignore_patterns("emulator"))

        def put() -> None:
            for path in folder.iterdir():
                if path.name != "emulator":
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
            shutil.copytree(kept, folder, dirs_exist_ok=True)

        return put

    return keep


def more_events(lab: Lab) -> None:
    lab.sql("insert into events by name select * replace (event_id || '-more' as event_id) from events")


def test_an_older_copy_inserts_nothing_again_until_its_records_are_taken_over(
    lab: Lab, org: Org, put_back: Callable[[], Callable[[], None]], tmp_path: Path
) -> None:
    lab.only("events", INSERT)
    assert lab.run("sync").code == 0
    put = put_back()
    more_events(lab)
    assert lab.run("sync").code == 0
    there = org.count("Event__c")
    put()
    elsewhere = str(tmp_path / "elsewhere")
    for command in ("plan", "sync", "sync"):
        ran = lab.run(command, XDG_STATE_HOME=elsewhere)
        assert ran.code == 5, ran.all
        assert "DB522" in ran.all
        assert f"made {there // 2} of the {there // 2} rows that this run would insert" in ran.all.replace("\n  ", " ")
        assert org.count("Event__c") == there
    assert (
        lab.run("state", "adopt", "events_to_crm", "--match", "event_id=Ref__c", "--yes", XDG_STATE_HOME=elsewhere).code
        == 0
    )
    done = lab.run("sync", XDG_STATE_HOME=elsewhere)
    assert done.code == 0, done.all
    assert org.count("Event__c") == there
