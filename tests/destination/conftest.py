"""Three orgs that fulfil the Destination contract: in memory, the emulator in process, the emulator over a port."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from loopback import served
from memory_org import ManualClock, MemoryOrg
from mounted_org import START, URL, OneClock, mounted

from dinmo_dbt import emulator
from dinmo_dbt.destination import Api, Batch, Destination, Operation, PayloadColumn
from dinmo_dbt.emulator.web.gateway import Connection, Gateway
from dinmo_dbt.org import Credentials, Org, Secret
from dinmo_dbt.rows import values
from dinmo_dbt.rows.field_types import type_of
from dinmo_dbt.salesforce import SalesforceDestination, connect

KINDS = ("memory", "mounted", "served")
SCHEMA = """
objects:
  Thing__c:
    fields:
      Ext__c: {type: Text, length: 40, external_id: true, unique: true}
      Exact__c: {type: Text, length: 40, external_id: true, unique: true, case_sensitive: true}
      Loose__c: {type: Text, length: 40, external_id: true}
      Code__c: {type: Number, precision: 18, scale: 0, external_id: true, unique: true}
      Note__c: {type: Text, length: 255}
      Amount__c: {type: Number, precision: 18, scale: 2}
      Open__c: {type: Checkbox}
      Since__c: {type: Date}
      Parent__c: {type: Lookup, to: Parent__c}
  Parent__c:
    fields:
      Key__c: {type: Text, length: 40, external_id: true, unique: true}
      Loose__c: {type: Text, length: 40, external_id: true}
  Dinmo_State__c:
    fields:
      Key__c: {type: Text, length: 64, external_id: true, unique: true, required: true}
      Serial__c: {type: Number, precision: 18, scale: 0}
      Lineage__c: {type: Text, length: 40}
      Run__c: {type: Text, length: 40}
"""
STATES = "Dinmo_State__c"


@dataclass
class Lab:
    """An org, empty, and one session in it."""

    kind: str
    destination: Destination
    clock: Any
    app: Any = None  # the emulator, where it is one

    def batch(
        self,
        operation: Operation,
        way: Api,
        columns: Mapping[str, Any],
        *,
        match: str | None = None,
        keep: Sequence[str] = (),
        name: str = "Thing__c",
    ) -> Batch:
        """Rows of these columns, as `plan` makes them; `keep`: those whose nulls leave the field alone."""
        payload, rows = [], {}
        for header, given in columns.items():
            schema, field_name = self.destination.describe(name), header
            if "." in header:
                relationship, field_name = header.split(".")
                lookup = schema.relationship(relationship)
                assert lookup is not None
                schema = self.destination.describe(lookup.reference_to[0])
            field = schema.field(field_name)
            assert field is not None, header
            payload.append(PayloadColumn(header, field, header in keep))
            plain = pa.array(given, pa.utf8()) if type_of(field).is_quoted else pa.array(given)
            rows[header], reasons = values.canonical(plain, field, keep_nulls=header in keep)
            assert reasons is None
        return Batch("b", operation, name, way, tuple(payload), match, pa.table(rows))

    def carry_out(self, batch: Batch) -> list[dict[str, Any]]:
        """The batch by its way, to its end: `RESULTS` row by row."""
        if batch.api is Api.COLLECTIONS:
            return list(self.destination.send(batch).to_pylist())
        job_id = self.destination.create_job(batch)
        self.destination.upload(job_id, batch)
        self.destination.close(job_id)
        return self.results(job_id, batch)

    def results(self, job_id: str, batch: Batch) -> list[dict[str, Any]]:
        self.ended(job_id)
        found = self.destination.results(job_id, batch)
        assert found is not None
        return list(found.to_pylist())

    def ended(self, job_id: str) -> str:
        """In which state the job ends."""
        for _ in range(100):
            job = self.destination.job(job_id)
            assert job is not None
            if job.is_terminal:
                return job.state
            self.clock.sleep(1)
        raise AssertionError(f"job {job_id} does not end")

    def insert(self, name: str = "Thing__c", **columns: Sequence[Any]) -> list[str]:
        """Records that are there before the test begins; their ids."""
        answers = self.carry_out(self.batch(Operation.INSERT, Api.COLLECTIONS, columns, name=name))
        assert {row["fate"] for row in answers} == {"succeeded"}, answers
        return [row["record_id"] for row in answers]

    def delete(self, *record_ids: str) -> None:
        self.carry_out(self.batch(Operation.DELETE, Api.COLLECTIONS, {"Id": record_ids}))

    def held(self, *fields: str, name: str = "Thing__c") -> dict[str, tuple[str | None, ...]]:
        """Every record of the object: these fields as printed, by record id."""
        found = pa.concat_tables(self.destination.read_pages(name, fields, None)).to_pylist()
        assert len({row["Id"] for row in found}) == len(found)
        return {row["Id"]: tuple(row[field] for field in fields) for row in found}


@contextmanager
def opened(kind: str, folder: Path) -> Iterator[Callable[[], Lab]]:
    """Makes the org empty again, and a new session in it."""
    schema = folder / "schema.yml"
    schema.write_text(SCHEMA)
    app = emulator.app(schema=schema, data=None, seed=1, clock=emulator.Clock(START))
    first, clock = app.snapshot(), OneClock(app.clock)
    with ExitStack() as stack:
        stack.callback(app.close)
        if kind == "served":
            org = _org(app, stack.enter_context(served(app, connection=Connection, gateway=Gateway)))
        else:
            stack.enter_context(mounted(app.adapter))
            org = _org(app, URL)

        def session() -> SalesforceDestination:
            return connect(org, scratch=folder, sleep=clock.sleep, rng=random.Random(1), now=clock.now)

        described = [session().describe(name) for name in ("Thing__c", "Parent__c", STATES)] if kind == "memory" else []

        def lab() -> Lab:
            if kind == "memory":
                return Lab(kind, MemoryOrg(*described), ManualClock())
            app.restore(first)
            app.faults.clear()
            return Lab(kind, session(), clock, app)

        yield lab


def _org(app: Any, url: str) -> Org:
    who = app.identity
    secret = Secret(who.client_secret)
    return Org("crm", "dev", Credentials("client_credentials", url, client_id=who.client_id, client_secret=secret))


@pytest.fixture(scope="module", params=KINDS)
def labs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Lab]]:
    with opened(request.param, tmp_path_factory.mktemp(request.param)) as made:
        yield made


@pytest.fixture
def lab(labs: Callable[[], Lab]) -> Lab:
    return labs()
