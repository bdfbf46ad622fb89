"""One org: its store, its worker, and what can be done with it besides asking it by HTTP.

Opens the data folder and sees that Bulk jobs go on.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from dinmo_dbt.emulator.bulk.ingest import Ingest
from dinmo_dbt.emulator.bulk.job import JobTable
from dinmo_dbt.emulator.bulk.pace import Pace
from dinmo_dbt.emulator.bulk.processing import Processing
from dinmo_dbt.emulator.bulk.queryjobs import QueryJobs
from dinmo_dbt.emulator.bulk.results import Results
from dinmo_dbt.emulator.bulk.uploads import Uploads
from dinmo_dbt.emulator.bulk.worker import Worker
from dinmo_dbt.emulator.clock import Clock
from dinmo_dbt.emulator.drift import Drift
from dinmo_dbt.emulator.errors import EmulatorError
from dinmo_dbt.emulator.faults.armed import Faults
from dinmo_dbt.emulator.identity import Identity, chance_of
from dinmo_dbt.emulator.limits import Limits, Usage, with_requests
from dinmo_dbt.emulator.logins import Logins
from dinmo_dbt.emulator.records.collections import Collections
from dinmo_dbt.emulator.records.engine import Org
from dinmo_dbt.emulator.records.guard import Guard
from dinmo_dbt.emulator.records.locks import Locks
from dinmo_dbt.emulator.records.seed import load_records, seed_org
from dinmo_dbt.emulator.records.single import Records
from dinmo_dbt.emulator.schema.source import read_schema
from dinmo_dbt.emulator.store import Store
from dinmo_dbt.emulator.web.auth import Sessions
from dinmo_dbt.emulator.web.call import Site
from dinmo_dbt.emulator.web.calls import Calls
from dinmo_dbt.emulator.web.freshness import Freshness
from dinmo_dbt.emulator.web.gate import Gate
from dinmo_dbt.emulator.web.names import every_name
from dinmo_dbt.emulator.web.routes import route_map
from dinmo_dbt.emulator.web.snapshot import Memory, Snapshot, Snapshots


class Instance:
    """One Salesforce org. `close()` stops its worker and releases its folder.

    While `clock` runs, jobs go on in a background thread, mounted in process or served, so a client polls as it would
    poll Salesforce; with a stopped clock, or a `pace` by poll, there is no thread and calls carry jobs on.
    `batch_delay_s` is `Pace.batch_s` where no pace is given. The keywords are those of OrgOptions.

    `faults`, `clock`, `limits`, `logins`, `pace`, `lock`, `locks`, `calls`, `change_schema` are what `/emulator/...`
    offers.
    """

    def __init__(
        self, *, schema: Path | None, data: Path | None, records: Path | None = None,
        batch_delay_s: float = 0.0, daily_api_requests: int | None = None, public_key: str | None = None,
        clock: Clock | None = None, pace: Pace | None = None, limits: Limits | None = None,
        session_s: int | None = None, seed: int | None = None, logins: Logins | None = None,
    ) -> None:  # fmt: skip
        self.chance = chance_of(seed)
        self._gate = Gate()
        self._source = source = read_schema(schema)
        self._records_folder = records
        self._store = Store(data, source, seed=seed)
        try:
            self.drift = Drift(self._store, source)
            first_clock = clock.text() if clock is not None else Clock().text()
            self.clock = clock = clock or self._own_clock()
            self._map = route_map()
            self.faults = Faults(lambda: self._store.schema, every_name(self._map))
            self.calls = Calls()
            self.snapshots = Snapshots()
            org = Org(self._store, clock)
            sessions = Sessions(
                self._store, clock, chance=self.chance, public_key=public_key, session_s=session_s,
                logins=logins or Logins(),
            )  # fmt: skip
            seed_org(self._store, clock)
            load_records(self._store, org, records)
            usage = Usage(self._store, clock, with_requests(limits, daily_api_requests))
            self.locks = Locks(self._store, clock)
            org.guard = Guard(self.faults, self.locks, usage)
            pace = pace or Pace(batch_s=batch_delay_s)
            jobs = JobTable(self._store, clock)
            common: dict[str, Any] = {"faults": self.faults, "usage": usage}
            uploads = Uploads(self._store, org, jobs, usage)
            processing = Processing(self._store, org, jobs, uploads, pace=pace, **common)
            results = Results(self._store, jobs, uploads)
            queries = QueryJobs(self._store, clock, jobs, pace=pace, wake=self._wake, **common)
            worker = Worker(self._store, jobs, clock, {"ingest": processing, "query": queries}, pace)
            self.site = Site(
                clock=clock, store=self._store, org=org, records=Records(self._store, org),
                collections=Collections(self._store, org), sessions=sessions, jobs=jobs,
                ingest=Ingest(self._store, org, jobs, processing, results, wake=self._wake, **common),
                queries=queries, worker=worker, usage=usage, faults=self.faults, freshness=Freshness(clock),
            )  # fmt: skip
            self._closed = False
            self._first = replace(self._memory(), clock=first_clock)
            worker.tend()
        except BaseException:
            self._store.close()
            raise

    @property
    def identity(self) -> Identity:
        """Who the org is: ids, user, client and the folder's own access token."""
        return self.site.sessions.identity

    @property
    def limits(self) -> Limits:
        """What the org allows; set it to change that at once."""
        return self.site.usage.limits

    @limits.setter
    def limits(self, limits: Limits) -> None:
        self.site.usage.limits = limits

    @property
    def logins(self) -> Logins:
        """Which logins the org takes; set it to change that at once."""
        return self.site.sessions.logins

    @logins.setter
    def logins(self, logins: Logins) -> None:
        self.site.sessions.logins = logins

    @property
    def pace(self) -> Pace:
        """How jobs go on; set it to change that for the steps to come."""
        return self.site.worker.pace

    @pace.setter
    def pace(self, pace: Pace) -> None:
        self.site.worker.pace = pace
        self.site.worker.wake()

    def change_schema(self, document: dict[str, Any]) -> None:
        """Lay a schema document over the running org (`drift` lists and clears them). SchemaError where it can't be."""
        self.drift.lay(document)

    def lock(self, ids: Iterable[str], seconds: float) -> None:
        """A user's transaction holds these records for a time on the clock (`locks` says which, and releases)."""
        self.locks.hold(ids, seconds)

    def snapshot(self) -> Snapshot:
        """The org as it is, to go back to as often as wanted: a millisecond for 1,000 records.

        In it are records, recycle bin, jobs and their files, sessions, cursors, schema changes, limits and their use,
        logins, pace, clock, faults and how far each has come, locks, the last calls and, of a seeded org, its chance.
        It lasts until it is let go of or the app is closed. Waits and raises as `restore` does.
        """
        with self._gate.alone():
            self.site.usage.save()
            return Snapshot(self._store, self._store.save(), self._memory())

    def restore(self, snapshot: Snapshot) -> None:
        """Be as at the snapshot. A clock that ran then runs on, as far from real time as it was.

        Waits for the calls under way, for at most 10 s; a file that is still being read may end early. Raises
        EmulatorError for a snapshot of another org or when calls do not end.
        """
        if snapshot.store is not self._store:
            raise EmulatorError("restore: that snapshot is of another org")
        with self._gate.alone():
            self.site.worker.rest()
            self._store.load(snapshot.saved)
            self._go_on(snapshot.memory)

    def reset(self) -> None:
        """Be as at the first start of a new folder, with the same identity and the options the app was made with.

        Starting records are loaded again. Waits and raises as `restore` does.
        """
        with self._gate.alone():
            self.site.worker.rest()
            self._store.empty(self._source)
            self.clock.become(self._first.clock)
            seed_org(self._store, self.clock)
            load_records(self._store, self.site.org, self._records_folder)
            self._go_on(self._first)

    def _go_on(self, memory: Memory) -> None:
        """From what the store has now, and from `memory`."""
        self.drift.reload()
        self.site.sessions.reload()
        self.site.usage.reload()
        self._put_back(memory)
        self.site.worker.tend()

    def close(self) -> None:
        """Stop after the batch in hand; what is unfinished goes on when the folder is opened again."""
        if self._closed:
            return
        self._closed = True
        self.site.worker.close()
        self.site.usage.save()
        self._store.close()

    def _own_clock(self) -> Clock:
        """The folder's own clock: moved or stopped, it stays so over a restart, and jobs with it."""
        kept = self._store.meta("clock")
        clock = Clock.kept(kept) if kept is not None else Clock()
        clock.moved = lambda: self._store.set_meta("clock", clock.text())
        return clock

    def _wake(self) -> None:
        self.site.worker.wake()

    def _memory(self) -> Memory:
        return Memory(
            clock=self.clock.text(), limits=self.limits, logins=self.logins, pace=self.pace, faults=self.faults.kept(),
            locks=self.locks.kept(), calls=self.calls.kept(), chance=_state(self.chance),
        )  # fmt: skip

    def _put_back(self, memory: Memory) -> None:
        self.clock.become(memory.clock)
        self.limits = memory.limits
        self.logins = memory.logins
        self.pace = memory.pace
        self.faults.restore(memory.faults)
        self.locks.restore(memory.locks)
        self.calls.restore(memory.calls)
        if memory.chance is not None:
            self.chance.setstate(memory.chance)


def _state(chance: random.Random) -> Any:
    return None if isinstance(chance, random.SystemRandom) else chance.getstate()
