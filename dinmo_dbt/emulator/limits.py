"""What an org allows in a rolling 24 hours and at one time, and what it has used of it.

Counted in hours of the org's clock, so a day's use leaves hour by hour. Source: Salesforce Developer Limits and
Allocations; wire reference §3.5, §4.3.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from dinmo_dbt.emulator.errors import ApiError, EmulatorError
from dinmo_dbt.emulator.settings import changed

if TYPE_CHECKING:
    from dinmo_dbt.emulator.store import Store

RECORD_KB = 2
_SAVED_EVERY = 50
_HOURS = 24
LONG_S = 20.0  # of real time: calls that run as long are those whose number is bounded (REST guide, Limits)
_SEEDED = 100  # no counter runs for the organization and its user


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """An org's limits. In JSON they carry Salesforce's names where it has one (`WIRE`)."""

    daily_api_requests: int = 100_000
    daily_bulk_api_batches: int = 15_000
    daily_bulk_v2_query_jobs: int = 10_000
    daily_bulk_rows: int = 150_000_000
    data_storage_mb: int = 1_000_000
    concurrent_requests: int = 25
    upload_bytes: int = 104_857_600  # 150 MB in base64 leaves 100 MB of CSV; whether MB or MiB is unverified
    multipart_characters: int = 100_000
    field_characters: int = 131_072
    record_characters: int = 400_000
    record_fields: int = 5_000
    header_characters: int = 32_000

    def __post_init__(self) -> None:
        for name, key in WIRE.items():
            if getattr(self, key) < 0:
                raise EmulatorError(f"limits: {name} can't be negative")

    def json(self) -> dict[str, int]:
        return {name: getattr(self, key) for name, key in WIRE.items()}

    def changed(self, given: dict[str, Any]) -> Limits:
        """These limits with some set, by their names in JSON. An unknown one is refused by name."""
        unknown = [name for name in given if name not in WIRE]
        if unknown:
            raise EmulatorError(f"limits: unknown key {unknown[0]}. Known: {', '.join(WIRE)}")
        return changed(self, {WIRE[name]: value for name, value in given.items()}, "limits")


WIRE = {
    "DailyApiRequests": "daily_api_requests", "DailyBulkApiBatches": "daily_bulk_api_batches",
    "DailyBulkV2QueryJobs": "daily_bulk_v2_query_jobs", "DailyBulkRows": "daily_bulk_rows",
    "DataStorageMB": "data_storage_mb", "ConcurrentRequests": "concurrent_requests",
    "UploadBytes": "upload_bytes", "MultipartCharacters": "multipart_characters",
    "FieldCharacters": "field_characters", "RecordCharacters": "record_characters",
    "RecordFields": "record_fields", "HeaderCharacters": "header_characters",
}  # fmt: skip
_REQUESTS, _BATCHES, _QUERIES, _ROWS = (
    "DailyApiRequests", "DailyBulkApiBatches", "DailyBulkV2QueryJobs", "DailyBulkRows",
)  # fmt: skip
_FIXED = {"FileStorageMB": 1_000_000, "DailyBulkV2QueryFileStorageMB": 976_562}


class Usage:
    """What the org has used, counted by any thread; a kill forgets at most the last 49 API calls."""

    def __init__(self, store: Store, clock: Callable[[], datetime], limits: Limits) -> None:
        self._store = store
        self._clock = clock
        self._lock = threading.Lock()
        self.limits = limits
        self._running: dict[int, float] = {}  # by thread, since when
        self._hour = 0
        self._totals: dict[str, int] = {}
        self._hours: dict[tuple[str, int], int] = {}
        self.reload()

    @property
    def requests(self) -> int:
        with self._lock:
            return self._used(_REQUESTS)

    @property
    def requests_max(self) -> int:
        return self.limits.daily_api_requests

    def begin(self) -> None:
        """Count one API call that now runs, or refuse it as Salesforce does. `end` follows when it was counted."""
        with self._lock:
            if self._used(_REQUESTS) >= self.limits.daily_api_requests:
                raise ApiError(403, "REQUEST_LIMIT_EXCEEDED", "TotalRequests Limit exceeded.")
            now = time.monotonic()
            if sum(now - since >= LONG_S for since in self._running.values()) >= self.limits.concurrent_requests:
                message = "ConcurrentRequests (Concurrent API Requests) Limit exceeded."
                raise ApiError(403, "REQUEST_LIMIT_EXCEEDED", message)
            self._running[threading.get_ident()] = now
            save = self._add(_REQUESTS, 1) % _SAVED_EVERY == 0
        if save:
            self.save()

    def end(self) -> None:
        with self._lock:
            self._running.pop(threading.get_ident(), None)

    def begin_ingest_job(self) -> None:
        """Refuse a new ingest job when the day's batches or rows are used up (text unverified)."""
        with self._lock:
            full = self._left(_BATCHES) <= 0 or self._left(_ROWS) <= 0
        if full:
            raise ApiError(400, "LIMIT_EXCEEDED", "ApiBatchItems Limit exceeded.")

    def begin_query_job(self) -> None:
        with self._lock:
            if self._left(_QUERIES) <= 0:  # text unverified
                raise ApiError(400, "LIMIT_EXCEEDED", "Max bulk v2 query jobs Limit exceeded.")
            self._add(_QUERIES, 1)
        self.save()

    def take_batch(self, rows: int) -> bool:
        """Count one internal batch of a job; False, and nothing counted, when it would go over the day's."""
        with self._lock:
            if self._left(_BATCHES) < 1 or self._left(_ROWS) < rows:
                return False
            self._add(_BATCHES, 1)
            self._add(_ROWS, rows)
        self.save()
        return True

    def exhaust(self) -> None:
        """Use up the day's API calls at once."""
        with self._lock:
            self._add(_REQUESTS, max(0, self._left(_REQUESTS)))
        self.save()

    def reload(self) -> None:
        """Count on from what the store has."""
        rows = self._store.reading().execute("SELECT name, hour, count FROM usage").fetchall()
        with self._lock:
            self._hours = {(name, hour): count for name, hour, count in rows}
            self._hour = 0  # the totals are counted again

    def clear(self) -> None:
        """Forget what was used."""
        with self._lock:
            self._hours.clear()
            self._totals.clear()
        self.save()

    def room_for(self, db: sqlite3.Connection, wanted: int) -> int:
        """How many of so many new records fit the data storage, 2 KB each; those in the recycle bin don't count.

        Record counters bound the number from above and cost one small query; records are only counted near the limit.
        """
        most = self.limits.data_storage_mb * 1024 // RECORD_KB
        made: int = db.execute("SELECT sum(next - 1) FROM sobject").fetchone()[0]
        if made + wanted + _SEEDED < most:
            return wanted
        return max(0, min(wanted, most - self._records(db)))

    def reply(self) -> dict[str, dict[str, int]]:
        """The body of `GET limits`."""
        with self._lock:
            daily = {name: (getattr(self.limits, WIRE[name]), self._left(name)) for name in (
                _REQUESTS, _BATCHES, _QUERIES)}  # fmt: skip
        used_mb = self._records(self._store.reading()) * RECORD_KB // 1024
        daily["DataStorageMB"] = (self.limits.data_storage_mb, self.limits.data_storage_mb - used_mb)
        daily |= {name: (value, value) for name, value in _FIXED.items()}
        return {name: {"Max": most, "Remaining": max(0, left)} for name, (most, left) in daily.items()}

    def used(self) -> dict[str, int]:
        with self._lock:
            return {name: self._used(name) for name in (_REQUESTS, _BATCHES, _QUERIES, _ROWS)}

    def save(self) -> None:
        with self._lock:
            rows = [(name, hour, count) for (name, hour), count in self._hours.items()]
        with self._store.writing() as db:
            db.execute("DELETE FROM usage")
            db.executemany("INSERT INTO usage VALUES (?, ?, ?)", rows)

    def _records(self, db: sqlite3.Connection) -> int:
        sql = 'SELECT count(*) FROM {} WHERE "IsDeleted" = 0'
        return sum(db.execute(sql.format(t.name)).fetchone()[0] for t in self._store.tables.values())

    def _left(self, name: str) -> int:
        most: int = getattr(self.limits, WIRE[name])
        return most - self._used(name)

    def _used(self, name: str) -> int:
        self._turn()
        return self._totals.get(name, 0)

    def _add(self, name: str, count: int) -> int:
        self._turn()
        place = (name, self._hour)
        self._hours[place] = self._hours.get(place, 0) + count
        self._totals[name] = self._totals.get(name, 0) + count
        return self._totals[name]

    def _turn(self) -> None:
        """In a new hour, leave out what is 24 hours old; hours of a clock set back don't count yet."""
        hour = int(self._clock().timestamp() // 3600)
        if hour == self._hour:
            return
        self._hour = hour
        self._hours = {place: n for place, n in self._hours.items() if place[1] > hour - _HOURS}
        self._totals = {}
        for (name, at), count in self._hours.items():
            if at <= hour:
                self._totals[name] = self._totals.get(name, 0) + count


def with_requests(limits: Limits | None, daily_api_requests: int | None) -> Limits:
    """The limits an app starts with: its own argument for API calls goes first."""
    limits = limits or Limits()
    return limits if daily_api_requests is None else replace(limits, daily_api_requests=daily_api_requests)
