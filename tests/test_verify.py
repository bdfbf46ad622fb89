"""What Salesforce holds against what it acknowledged: no false alarm, and no edit that is missed."""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa
import pytest
from memory_org import THING, Flag, Match, Model, World, activation

from dinmo_dbt.activation import Activation, FieldMapping
from dinmo_dbt.destination import Field
from dinmo_dbt.errors import Refused
from dinmo_dbt.state.spool import ScanSpool
from dinmo_dbt.upkeep import verify as verifying

ROWS = [{"id": str(i), "ext": f"e{i}", "a": f"x{i}", "b": "y"} for i in range(8)]
CASES = {
    "insert": activation("insert"),
    "upsert": activation("upsert"),
    "update": activation("update", match=Match("ext", "Code__c")),
}


def verify(world: World, act: Activation, model: Model, *, with_values: bool = False) -> verifying.Verification:
    spool = ScanSpool(world.folder.parent)
    state = world.state().view(world.org.org_id, act)
    found = verifying.verify(act, model, world.org, state, spool, with_values=with_values)
    spool.close()
    told = found.verified + len(found.drifted) + len(found.gone) + found.unverifiable + sum(found.pending.values())
    assert found.read == told, "every row is counted once"
    return found


def synced(folder, act: Activation, rows=ROWS) -> World:
    world = World(folder)
    if act.mode == "update":
        for row in rows:
            world.org.add(Code__c=row["ext"])
    assert world.sync(act, Model.of(rows)).outcome.succeeded == len(rows)
    return world


def of(world: World, key: str, act: Activation) -> dict:
    """The record of a key."""
    record_id, _ = world.snapshot(act)[key]
    return world.org.records["Thing__c"][record_id]


def drifted(found: verifying.Verification) -> dict[str, list[str]]:
    return {row["key"]: row["fields"] for row in found.drifted.to_pylist()}


@pytest.mark.parametrize("name", list(CASES))
def test_what_was_delivered_is_verified(name, tmp_path):
    world = synced(tmp_path / "s", CASES[name])
    found = verify(world, CASES[name], Model.of(ROWS))
    assert (found.verified, found.holds) == (8, True)
    assert sum(found.pending.values()) == 0


@pytest.mark.parametrize("name", list(CASES))
@pytest.mark.parametrize("many", [False, True])
def test_edits_and_deletes_by_others_are_found(name, many, tmp_path, monkeypatch):
    if many:  # every record of the object is read, those of others among them
        monkeypatch.setattr(verifying, "BY_ID_MAX", 0)
    act = CASES[name]
    world = synced(tmp_path / "s", act)
    world.org.add(A__c="x1", B__c="y", Ext__c="theirs")
    of(world, "3", act)["A__c"] = "theirs"
    of(world, "4", act).update(A__c=None, B__c="z")
    gone, _ = world.snapshot(act)["6"]
    world.org.delete(gone)
    found = verify(world, act, Model.of(ROWS), with_values=True)
    assert drifted(found) == {"3": ["A__c"], "4": ["A__c", "B__c"]}
    told = {row["key"]: (row["model"], row["salesforce"]) for row in found.drifted.to_pylist()}
    assert told == {"3": (["x3"], ["theirs"]), "4": (["x4", "y"], [None, "z"])}
    assert [(row["key"], row["record_id"]) for row in found.gone.to_pylist()] == [("6", gone)]
    assert (found.verified, found.holds) == (5, False)


def test_rows_that_are_not_acknowledged_as_they_are_are_pending(tmp_path):
    act = CASES["upsert"]
    world = synced(tmp_path / "s", act)
    world.org.refuse = lambda row: "REQUIRED:no:--" if row["A__c"] == "refused" else None
    rows = [*ROWS, {"id": "r", "ext": "er", "a": "refused", "b": "y"}]
    world.sync(act, Model.of(rows))
    rows = [{**ROWS[0], "a": "changed"}, *ROWS[1:], rows[-1], {"id": "n", "ext": "en", "a": "new", "b": "y"}]
    rows.append({"id": "i", "ext": "ei", "a": "x" * 300, "b": "y"})
    of(world, "0", act)["A__c"] = "theirs"
    found = verify(world, act, Model.of(rows))
    pending = {name: number for name, number in found.pending.items() if number}
    assert pending == {"changed": 1, "waiting": 1, "added": 1, "invalid": 1}
    assert (found.verified, found.holds) == (7, True), "what a sync overwrites anyway is no drift"


def test_a_column_that_keeps_nulls_and_left_rows_are_not_compared(tmp_path):
    act = activation(fields=(FieldMapping("a", "A__c", nulls="keep"), FieldMapping("b", "B__c")))
    rows = [{**row, "a": None} for row in ROWS]
    world = synced(tmp_path / "s", act, rows)
    of(world, "1", act)["A__c"] = "theirs to keep"
    of(world, "2", act)["B__c"] = "theirs"
    assert drifted(verify(world, act, Model.of(rows))) == {"2": ["B__c"]}
    assert verify(world, act, Model.of(rows[3:])).verified == 5


def test_an_empty_name_that_the_org_fills_is_no_drift(tmp_path):
    act = activation(fields=(FieldMapping("a", "Name"), FieldMapping("b", "B__c")))
    name = Field("Name", "Name", "string", length=80, nillable=False, defaulted_on_create=True)
    world = World(tmp_path / "s")
    world.org.schemas[THING.name] = replace(THING, fields={**THING.fields, "Name": name})
    rows = [{**row, "a": None if row["id"] < "4" else row["a"]} for row in ROWS]
    world.sync(act, Model.of(rows))
    for record_id, record in world.org.records[THING.name].items():
        record["Name"] = record["Name"] or record_id
    assert verify(world, act, Model.of(rows)).verified == 8
    of(world, "5", act)["Name"] = "theirs"
    assert drifted(verify(world, act, Model.of(rows))) == {"5": ["Name"]}


def test_a_parent_is_compared_by_its_external_id(tmp_path):
    act = activation(fields=(FieldMapping("b", "B__c"), FieldMapping("a", "Parent__r.Code__c")))
    world = World(tmp_path / "s")
    world.org.add("Parent__c", Code__c="one")
    other = world.org.add("Parent__c", Code__c="two")
    rows = [{**row, "a": "one"} for row in ROWS]
    world.sync(act, Model.of(rows))
    assert verify(world, act, Model.of(rows)).verified == 8
    of(world, "1", act)["Parent__c"] = other
    of(world, "2", act)["Parent__c"] = None
    assert drifted(verify(world, act, Model.of(rows))) == {"1": ["Parent__r.Code__c"], "2": ["Parent__r.Code__c"]}


def test_rows_without_a_record_id_are_found_by_their_match_or_not_at_all(tmp_path):
    insert = CASES["insert"]
    alike = [{"id": str(i), "ext": "e", "a": "same", "b": "same"} for i in range(3)]
    world = synced(tmp_path / "s", insert, alike)
    assert {record_id for record_id, _ in world.snapshot(insert).values()} == {None}
    found = verify(world, insert, Model.of(alike))
    assert (found.unverifiable, found.verified, found.holds) == (3, 0, True)

    upsert = CASES["upsert"]
    world = synced(tmp_path / "t", upsert)
    with world.state().locked(world.org.org_id, upsert) as state:
        rows = pa.concat_tables(state.snapshot.tables())
        rows = rows.set_column(rows.column_names.index("record_id"), "record_id", pa.nulls(len(rows), pa.utf8()))
        state.amend(rows.append_column("op", pa.repeat("put", len(rows))))
    records = world.org.records["Thing__c"]
    first, second = sorted(records)[:2]
    records[first]["A__c"], records[first]["Ext__c"] = "theirs", records[first]["Ext__c"].upper()
    gone = records.pop(second)["Ext__c"].removeprefix("e")
    found = verify(world, upsert, Model.of(ROWS))
    assert (found.verified, len(found.drifted), found.gone["key"].to_pylist()) == (6, 1, [gone])


def test_marked_rows_are_pending_and_a_model_with_twins_is_refused(tmp_path):
    act = CASES["upsert"]
    world = synced(tmp_path / "s", act)
    with world.state().locked(world.org.org_id, act) as state:
        rows = pa.concat_tables(state.snapshot.tables())
        flags = pa.array([Flag.CREATED | Flag.STALE] * len(rows), pa.uint8())
        rows = rows.set_column(rows.column_names.index("flags"), "flags", flags)
        state.amend(rows.append_column("op", pa.repeat("put", len(rows))))
    found = verify(world, act, Model.of(ROWS))
    assert found.pending["changed"] == 8
    with pytest.raises(Refused, match="DB410"):
        verify(world, act, Model.of([*ROWS, ROWS[0]]))
    assert verify(world, replace(act), Model.of([])).read == 0
