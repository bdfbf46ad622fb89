"""Whatever rows of whatever types are delivered, none of them drifts; whatever others then edit is found.

The real client against the emulator in process. What an edit changed is what the org itself says before and after.
"""

from __future__ import annotations

import datetime as dt
import itertools
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import requests
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from memory_org import Ceilings, Model, World, activation
from mounted_org import START, URL, OneClock, connected, mounted

from dinmo_dbt import emulator
from dinmo_dbt.activation import Activation, FieldMapping
from dinmo_dbt.state.spool import ScanSpool
from dinmo_dbt.upkeep import verify as verifying

SCHEMA = """
objects:
  Parent__c:
    fields:
      Code__c: {type: Text, length: 40, external_id: true, unique: true}
  Thing__c:
    fields:
      Ext__c: {type: Text, length: 40, external_id: true, unique: true}
      Source__c: {type: Text, length: 40}
      Text__c: {type: Text, length: 40}
      Long__c: {type: LongTextArea, length: 2000}
      Email__c: {type: Email}
      Url__c: {type: Url}
      Phone__c: {type: Phone}
      Pick__c: {type: Picklist, values: [Free, Team]}
      Multi__c: {type: MultiselectPicklist, values: [Red, Green, Blue]}
      Number__c: {type: Number, precision: 18, scale: 2}
      Money__c: {type: Currency, precision: 18, scale: 2}
      Percent__c: {type: Percent, precision: 10, scale: 1}
      On__c: {type: Checkbox, default: false}
      Day__c: {type: Date}
      At__c: {type: DateTime}
      Time__c: {type: Time}
      Parent__c: {type: Lookup, to: Parent__c, relationship_name: Things}
"""
TEXT = st.text(st.characters(exclude_categories=("Cs", "Cc")) | st.sampled_from("\n\t <>&'\",;é"), max_size=30)
DECIMALS = st.decimals(Decimal(-(10**12)), Decimal(10**12), places=6, allow_nan=False)
MOMENTS = st.datetimes(datetime(1900, 1, 1), datetime(2100, 1, 1))
# Column: the field, the column's type, and what the model may hold.
COLUMNS: dict[str, tuple[str, pa.DataType, st.SearchStrategy[Any]]] = {
    "text": ("Text__c", pa.utf8(), TEXT | st.sampled_from([" blank ", "#N/A", "null", "NULL", "0.0"])),
    "long": ("Long__c", pa.utf8(), TEXT | st.just("a\r\nb\rc")),
    "email": ("Email__c", pa.utf8(), st.sampled_from(["A.B@Example.com", "a@example.com", " c@example.com "])),
    "url": ("Url__c", pa.utf8(), st.sampled_from(["https://Example.com/A?b=1&c", "example.com"])),
    "phone": ("Phone__c", pa.utf8(), st.sampled_from(["+1 (555) 010", "0155"])),
    "pick": ("Pick__c", pa.utf8(), st.sampled_from(["Free", "team", "Other", " Team "])),
    "multi": ("Multi__c", pa.list_(pa.utf8()), st.lists(st.sampled_from(["Red", "Green", "Blue"]), unique=True)),
    "number": ("Number__c", pa.float64(), st.floats(-1e15, 1e15) | st.sampled_from([0.1 + 0.2, -0.0, 1e-7, 1e15])),
    "money": ("Money__c", pa.decimal128(24, 6), DECIMALS),
    "percent": ("Percent__c", pa.int64(), st.integers(-(10**8), 10**8)),
    "on": ("On__c", pa.bool_(), st.booleans()),
    "day": ("Day__c", pa.date32(), st.dates(dt.date(1900, 1, 1), dt.date(2100, 1, 1))),
    "at": ("At__c", pa.timestamp("us"), MOMENTS),
    "time": ("Time__c", pa.time64("us"), st.times()),
    "parent": ("Parent__r.Code__c", pa.utf8(), st.sampled_from(["One", "one", "TWO "])),
}
# What others may write, as JSON.
EDITS: dict[str, st.SearchStrategy[Any]] = {
    "Text__c": TEXT,
    "Long__c": TEXT,
    "Email__c": st.sampled_from(["a@example.com", "other@example.com"]),
    "Url__c": st.just("https://other.example"),
    "Phone__c": st.sampled_from(["0155", "0156"]),
    "Pick__c": st.sampled_from(["Free", "Other", "New"]),
    "Multi__c": st.sampled_from(["Red", "Green;Red", "Red;Green", "Blue;Green;Red"]),
    # Numbers are compared to 18 decimal places, which is as many as a field can have.
    "Number__c": st.integers(-1000, 1000) | st.floats(-1e9, 1e9).map(lambda number: round(number, 15)),
    "Money__c": st.integers(-1000, 1000).map(lambda cents: cents / 100),
    "Percent__c": st.integers(-1000, 1000).map(lambda tenths: tenths / 10),
    "On__c": st.booleans(),
    "Day__c": st.dates(dt.date(1900, 1, 1), dt.date(2100, 1, 1)).map(str),
    "At__c": st.integers(0, 10**9).map(lambda s: datetime.fromtimestamp(s, UTC).isoformat()),
    "Time__c": st.times().map(lambda t: t.replace(microsecond=0).isoformat() + ".000Z"),
    "Ext__c": st.sampled_from(["moved", "moved again"]),
    "Source__c": st.sampled_from(["dbt", "them"]),
}
ROWS = st.lists(st.fixed_dictionaries({name: st.none() | kind for name, (_, _, kind) in COLUMNS.items()}), max_size=6)
FIELDS = tuple(FieldMapping(name, field) for name, (field, _, _) in COLUMNS.items())
WITH_CONSTANT = {"fields": FIELDS, "constants": (("Source__c", "dbt"),)}
ACTIVATIONS = {
    "insert": activation("insert", **WITH_CONSTANT),
    "collections": activation("upsert", **WITH_CONSTANT, api="collections"),
    "bulk": activation("upsert", **WITH_CONSTANT, api="bulk"),
}
NUMBERS = itertools.count()


class Place:
    """The org, a client of ours, and a plain one that shares nothing with it."""

    def __init__(self, app: Any, destination: Any, clock: OneClock, plain: requests.Session, folder: Path) -> None:
        self.app, self.destination, self.clock, self.plain, self.folder = app, destination, clock, plain, folder
        self.start: Any = None

    def world(self) -> World:
        self.app.restore(self.start)
        return World(self.folder / f"state{next(NUMBERS)}", self.destination, self.clock)  # type: ignore[arg-type]

    def call(self, method: str, path: str, **body: Any) -> Any:
        reply = self.plain.request(method, f"{URL}/services/data/v62.0/{path}", json=body or None)
        assert reply.ok, reply.text
        return reply.json() if reply.content else None


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("laws")
    (folder / "schema.yml").write_text(SCHEMA)
    app = emulator.app(schema=folder / "schema.yml", data=None, seed=1, clock=emulator.Clock(START))
    with mounted(app.adapter), requests.Session() as other:
        other.mount(URL, app.adapter())
        other.headers["Authorization"] = f"Bearer {app.identity.access_token}"
        one = OneClock(app.clock)
        destination = connected(app, one, folder, pinned=True)
        made = Place(app, destination, one, other, folder)
        for code in ("One", "Two"):
            made.call("POST", "sobjects/Parent__c", Name=code, Code__c=code)
        made.start = app.snapshot()
        yield made
        destination.disconnect()
    app.close()


def model_of(rows: list[dict[str, Any]]) -> Model:
    kinds = {name: kind for name, (_, kind, _) in COLUMNS.items()}
    keyed = [{"id": str(n), "ext": f"Ext {n}", **row} for n, row in enumerate(rows)]
    names = ["id", "ext", *COLUMNS]
    table = {name: pa.array([row[name] for row in keyed], kinds.get(name, pa.utf8())) for name in names}
    return Model(pa.table(table))


def verify(world: World, act: Activation, model: Model, *, every: bool) -> verifying.Verification:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(verifying, "BY_ID_MAX", 0 if every else verifying.BY_ID_MAX)
        spool = ScanSpool(world.folder.parent)
        state = world.state().view(world.org.org_id, act)
        found = verifying.verify(act, model, world.org, state, spool, with_values=True)
        spool.close()
    return found


# An example is a whole sync: a failing one is not made smaller, which would take minutes.
LAW = settings(
    max_examples=25, deadline=None, phases=[Phase.generate], suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.mark.slow
@LAW
@given(rows=ROWS, name=st.sampled_from(list(ACTIVATIONS)), every=st.booleans())
def test_nothing_drifts_that_nobody_edited(place: Place, rows: list[dict[str, Any]], name: str, every: bool) -> None:
    world, act, model = place.world(), ACTIVATIONS[name], model_of(rows)
    run = world.sync(act, model, Ceilings(first_sync=True))
    found = verify(world, act, model, every=every)
    assert found.drifted.to_pylist() == []
    assert found.gone.to_pylist() == []
    assert found.verified + found.unverifiable == run.outcome.succeeded


@pytest.mark.slow
@LAW
@given(data=st.data(), rows=ROWS.filter(bool), name=st.sampled_from(["collections", "bulk"]), every=st.booleans())
def test_every_edit_of_a_written_field_is_found(
    place: Place, data: st.DataObject, rows: list[dict[str, Any]], name: str, every: bool
) -> None:
    world, act, model = place.world(), ACTIVATIONS[name], model_of(rows)
    world.sync(act, model)
    known = {key: record_id for key, (record_id, _) in world.snapshot(act).items()}
    if not known:
        return
    expected: dict[str, list[str]] = {}
    for key in data.draw(st.sets(st.sampled_from(sorted(known)), min_size=1)):
        path = f"sobjects/Thing__c/{known[key]}"
        fields = data.draw(st.lists(st.sampled_from(sorted(EDITS)), unique=True, min_size=1, max_size=3))
        nullable = [field for field in fields if field not in ("On__c", "Ext__c")]
        edit = {f: data.draw(st.none() | EDITS[f] if f in nullable else EDITS[f]) for f in fields}
        if "Ext__c" in edit:
            edit["Ext__c"] += key  # it is unique
        before = place.call("GET", path)
        place.call("PATCH", path, **edit)
        after = place.call("GET", path)
        changed = [field for field in fields if plain(field, before[field]) != plain(field, after[field])]
        if changed:
            expected[key] = sorted(changed)
    found = verify(world, act, model, every=every)
    assert {row["key"]: sorted(row["fields"]) for row in found.drifted.to_pylist()} == expected
    assert len(found.gone) == 0
    assert found.verified == len(known) - len(expected)


def plain(field: str, value: Any) -> Any:
    """A set of values has no order."""
    return sorted(value.split(";")) if field == "Multi__c" and value else value
