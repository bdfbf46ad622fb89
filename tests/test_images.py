"""Before-images: whole and true before anything is overwritten, whatever ends the run."""

from __future__ import annotations

import dataclasses
import stat
from pathlib import Path

import pyarrow as pa
import pytest
from memory_org import Activation, FieldMapping, Killed, Mode, Model, Trip, World, own
from test_sync import AFTER, BEFORE, CASES, Unreliable, kill_points, memory, prepared

from dinmo_dbt.delivery.images import fingerprint
from dinmo_dbt.delivery.run import Status
from dinmo_dbt.destination import Field
from dinmo_dbt.errors import NotApplied, StateError
from dinmo_dbt.state import imaging, rewriting

__all__ = ["memory"]
KEEPING = {name: dataclasses.replace(act, keep_before_images=True) for name, act in CASES.items()}


def image(world: World, act: Activation, run_id: str) -> pa.Table | None:
    return world.state().view(world.org.org_id, act).image(run_id)


def rows(world: World, act: Activation, run_id: str) -> dict[str, dict]:
    found = image(world, act, run_id)
    return {} if found is None else {row["key"]: row for row in found.to_pylist()}


@pytest.mark.parametrize("name", list(KEEPING))
def test_a_run_keeps_what_it_overwrites_and_names_what_it_creates(name, tmp_path):
    act = KEEPING[name]
    world = prepared(tmp_path / "s", act)
    before = {i: dict(record) for i, record in world.org.records["Thing__c"].items()}
    run = world.sync(act, Model.of(AFTER))
    kept = rows(world, act, run.run_id)
    assert set(kept) == {"2", "3", "5", "6", "7", "8"}, "the rows that were sent, no others"
    for row in kept.values():
        assert row["existed"] == (row["record_id"] in before)
        held = before.get(row["record_id"], {})
        assert {f: row[f"before:{f}"] for f in ("A__c", "B__c")} == {f: held.get(f) for f in ("A__c", "B__c")}
        assert row["sent:A__c"] is not None
    made = {i for i in world.org.records["Thing__c"] if i not in before}
    told = {row["record_id"] for row in kept.values() if not row["existed"]}
    alike = {"7", "8"} if act.mode is Mode.INSERT else set()  # nothing tells which of the two records is whose
    assert {None if kept[key]["record_id"] is None else "" for key in alike} <= {None}
    assert told - {None} == (made if not alike else made & told)
    files = list((world.folder / "images").rglob(f"*-{run.run_id}-*.parquet"))
    assert files and {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


@pytest.mark.slow
@pytest.mark.parametrize("name", list(KEEPING))
def test_killed_at_every_call_no_value_is_gone_that_no_image_has(name, memory):
    act = KEEPING[name]
    start = prepared(memory / "start", act)
    trip = Trip()
    start.copy(memory / "whole").sync(act, Model.of(AFTER), trip=trip)
    for at, after in kill_points(trip.seen):
        world = start.copy(memory / f"{at}{after}")
        with pytest.raises(Killed):
            world.sync(act, Model.of(AFTER), trip=Trip(at, after))
        killed = f"run{world.runs:04d}"
        for job_id in world.org.jobs:  # what Salesforce has of it goes on by itself
            world.org.job(job_id), world.org.job(job_id)
        assert_every_value_is_kept(world, act, start, [killed])
        last = world.sync(act, Model.of(AFTER)).run_id
        assert_every_value_is_kept(world, act, start, [killed, last])
        assert_new_records_are_named(world, act, start, killed, last)
    assert "keep_image" in trip.seen


def assert_every_value_is_kept(world, act, start, run_ids):
    kept = [row for run_id in run_ids for row in rows(world, act, run_id).values()]
    for i, was in start.org.records["Thing__c"].items():
        for field in ("A__c", "B__c"):
            images = [row[f"before:{field}"] for row in kept if row["record_id"] == i and row["existed"]]
            assert world.org.records["Thing__c"][i].get(field) == was.get(field) or was.get(field) in images[:1]


def assert_new_records_are_named(world, act, start, killed, last):
    """By the image of the run that made them, though it was killed, unless nobody was told that it did."""
    mine, later = rows(world, act, killed), rows(world, act, last)
    new = world.org.records["Thing__c"].keys() - start.org.records["Thing__c"].keys()
    for key, (i, _) in world.snapshot(act).items():
        if i in new and key not in later:
            assert (mine[key]["record_id"], mine[key]["existed"]) == (i, False)
        elif i in new and not later[key]["existed"]:
            assert later[key]["record_id"] == i


def test_a_batch_whose_image_can_not_be_read_is_not_sent(tmp_path):
    act = KEEPING["upsert by bulk"]
    world = prepared(tmp_path / "s", act)
    before = world.org.held("Ext__c", "A__c", "B__c")
    honest = world.org
    world.org = Unreliable(honest, {"read_many": [(NotApplied, False)]})
    run = world.sync(act, Model.of(AFTER))
    assert (run.status, run.outcome.held, run.outcome.succeeded) == (Status.FAILED, 6, 0)
    assert honest.held("Ext__c", "A__c", "B__c") == before
    assert rows(world, act, run.run_id) == {}
    world.org = honest
    assert world.sync(act, Model.of(AFTER)).outcome.succeeded == 6


def test_a_field_that_a_row_leaves_alone_is_in_its_image_as_such(tmp_path):
    keeping = FieldMapping("b", "B__c", nulls="keep")
    act = dataclasses.replace(KEEPING["upsert by collections"], fields=(FieldMapping("a", "A__c"), keeping))
    world = prepared(tmp_path / "s", act)
    run = world.sync(act, Model.of([{**BEFORE[0], "a": None, "b": None}, *BEFORE[1:]]))
    (row,) = rows(world, act, run.run_id).values()
    assert (row["before:A__c"], row["before:B__c"]) == ("x1", "y")
    assert row["sent:A__c"] is not None
    assert row["sent:B__c"] is None


def test_batches_that_write_different_fields_are_images_of_one_run(tmp_path):
    act = KEEPING["upsert by collections"]
    world = prepared(tmp_path / "s", act)
    wider = dataclasses.replace(act, fields=(*act.fields, FieldMapping("ext", "Code__c")))
    run = world.sync(wider, Model.of(AFTER))
    kept = rows(world, wider, run.run_id)
    assert set(kept) == {row["id"] for row in AFTER}
    assert (kept["1"]["sent:A__c"], kept["1"]["sent:Code__c"] is None) == (None, False), "only its new field is sent"
    assert kept["2"]["sent:A__c"] is not None


def test_images_of_the_latest_runs_are_kept_and_go_with_the_state(tmp_path, monkeypatch):
    monkeypatch.setattr(imaging, "RUNS_KEPT", 2)
    act = KEEPING["upsert by collections"]
    world = prepared(tmp_path / "s", act)
    for number in range(4):
        world.sync(act, Model.of([{**BEFORE[0], "a": f"x{number}"}, *BEFORE[1:]]))
    (world.folder / "images" / own(act.name).folder / ".run0005-0001.parquet.ab.tmp").write_bytes(b"half")
    world.sync(act, Model.of([{**BEFORE[0], "a": "x3"}, *BEFORE[1:]]))
    kept = [Path(name).name.rpartition("-")[0] for name in world.files() if "images" in name]
    assert kept == ["00000004-run0004-0001", "00000005-run0005-0001"]
    rewriting.move(world.state(), own(act.name), own("renamed"))
    renamed = dataclasses.replace(act, name="renamed")
    assert rows(world, renamed, "run0005")["1"]["before:A__c"] == "x2"
    assert rows(world, act, "run0005") == {}
    rewriting.reset(world.state(), own("renamed"))
    assert [name for name in world.files() if "images" in name] == []


def test_a_damaged_image_is_refused_by_name(tmp_path):
    act = KEEPING["upsert by collections"]
    world = prepared(tmp_path / "s", act)
    (file,) = (world.folder / "images").rglob("*-run0001-0001-*.parquet")
    whole = file.read_bytes()
    for at in range(0, len(whole), 97):
        bent = whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]
        file.write_bytes(bent)
        with pytest.raises(StateError, match="DB517"):
            image(world, act, "run0001")
        assert file.read_bytes() == bent
    file.write_bytes(whole[:-1])
    with pytest.raises(StateError, match="DB517"):
        image(world, act, "run0001")


def test_nothing_is_kept_unless_it_is_asked_for(tmp_path):
    world = prepared(tmp_path / "s", CASES["upsert by collections"])
    assert [name for name in world.files() if "images" in name] == []


@pytest.mark.parametrize(
    ("kind", "sent", "held", "same"),
    [
        ("multipicklist", "b;a", "a;b", True),
        ("picklist", "FREE", "Free", True),
        ("email", "A@B.co", "a@b.co", True),
        ("string", " text\r\n", "text", True),
        ("string", "Text", "text", False),
        ("string", None, None, True),
        ("string", None, "text", False),
    ],
)
def test_a_value_is_known_in_the_form_in_which_salesforce_may_hold_it(kind, sent, held, same):
    field = Field("F__c", "F", kind, length=255)
    first, second = (fingerprint(pa.array([text], pa.utf8()), field, "run") for text in (sent, held))
    assert (first[0] == second[0]) == same
    other = fingerprint(pa.array([held], pa.utf8()), field, "another run")
    assert first[0] != other[0], "hashes of two runs can't be compared"
