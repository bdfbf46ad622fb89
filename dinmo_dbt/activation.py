"""What the user declared: an activation and its parts, resolved. Pure values; `meta` makes them from a manifest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from typing import Any

from dinmo_dbt.model import Model


class Mode(StrEnum):
    """DinMo's three modes, and delete."""

    INSERT = "insert"
    UPDATE = "update"
    UPSERT = "upsert"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class FieldMapping:
    """One model column and the Salesforce field it feeds: `Plan__c`, or a parent path `Customer__r.Customer_Id__c`."""

    column: str
    field: str
    nulls: str = "clear"  # clear | keep
    write: str = "always"  # always | on_create | if_empty (the last two are not in force yet)


@dataclass(frozen=True, slots=True)
class Match:
    """The model column that identifies the record, and the Salesforce field that holds it."""

    column: str
    field: str
    create: bool = False


_ALL_PERCENT = 100


@dataclass(frozen=True, slots=True)
class Ceiling:
    """A guard's number: a share of the snapshot with a floor of 10 rows, or an absolute count of rows."""

    percent: Decimal | None = None
    rows: int | None = None

    def limit(self, snapshot_rows: int) -> int:
        """The greatest number of rows that passes, for a snapshot of that size."""
        if self.rows is not None:
            return self.rows
        assert self.percent is not None
        return max(10, int(self.percent * snapshot_rows / 100))

    def lets_all(self, snapshot_rows: int) -> bool:
        """Whether it says itself that all rows may pass, and not because they are few."""
        if self.rows is not None:
            return self.rows >= snapshot_rows
        return self.percent is not None and self.percent >= _ALL_PERCENT

    def __str__(self) -> str:
        return str(self.rows) if self.rows is not None else f"{self.percent}%"


@dataclass(frozen=True, slots=True)
class Guards:
    max_delete: Ceiling
    max_change: Ceiling
    max_created: Ceiling = Ceiling(percent=Decimal(75))
    max_replaced: Ceiling = Ceiling(percent=Decimal(50))


class ScheduleKind(StrEnum):
    AFTER_DBT = "after_dbt"
    EVERY = "every"
    CRON = "cron"
    MANUAL = "manual"


@dataclass(frozen=True, slots=True)
class Schedule:
    """When an activation is due: after dbt built its model, each `every_s` seconds, by a cron line, or never."""

    kind: ScheduleKind = ScheduleKind.AFTER_DBT
    every_s: int = 0
    cron: str = ""
    timezone: str = "UTC"

    def __str__(self) -> str:
        match self.kind:
            case ScheduleKind.EVERY:
                unit, seconds = next(
                    (u, s) for u, s in (("day", 86400), ("hour", 3600), ("minute", 60)) if not self.every_s % s
                )
                number = self.every_s // seconds
                return f"every {number} {unit}s" if number > 1 else f"every {unit}"
            case ScheduleKind.CRON:
                return f"{self.cron} ({self.timezone})"
        return self.kind.value


@dataclass(frozen=True, slots=True)
class QuietHours:
    """Minutes after midnight, in that time zone; `end` may be on the next day."""

    start: int
    end: int
    timezone: str


class WarningKind(StrEnum):
    """What a user can be notified of."""

    FAILED = "failed"
    REJECTED = "rejected"
    HELD = "held"
    EMPTY = "empty"
    ROW_COUNT = "row_count"
    DURATION = "duration"
    MISSED = "missed"
    FULL = "full"
    DRIFT = "drift"
    API_BUDGET = "api_budget"
    REFUSED = "refused"
    PAUSED = "paused"


@dataclass(frozen=True, slots=True)
class Watch:
    """One warning that is on. `limit`: rows or a share of them (`rejected`), seconds (`held`, `duration`, `missed`), a
    percentage (`row_count`, `api_budget`); None: the kind has none, or finds its own in the last runs."""

    critical: bool = False
    limit: Ceiling | Decimal | float | None = None


@dataclass(frozen=True, slots=True)
class Activation:
    """Model or segment + destination + object + mode + mapping: one resolved declaration.

    `where` is the segment's or the activation's own SQL condition. `meta_path` says where it was written, for error
    messages (`models/marts/_marts.yml: dim_customers.config.meta.dinmo.activations[0]`).
    """

    name: str
    model: Model
    meta_path: str
    destination: str
    object: str
    mode: Mode
    key: tuple[str, ...]
    match: Match | None
    fields: tuple[FieldMapping, ...]
    constants: tuple[tuple[str, Any], ...]
    guards: Guards
    segment: str | None = None
    where: str | None = None
    on_change: str = "insert"  # insert mode: insert | ignore
    on_removed: str = "ignore"  # ignore | delete | set
    on_removed_set: tuple[tuple[str, Any], ...] = ()
    schedule: Schedule = Schedule()
    quiet_hours: QuietHours | None = None
    auto_pause: int | None = 3  # runs in a row that fail for a lasting reason; None: never
    warnings: Mapping[WarningKind, Watch] = field(default_factory=dict, hash=False)  # those that are on
    mute_until: float | None = None  # seconds since the epoch
    api: str = "auto"  # auto | bulk | collections
    enabled: bool = True
    shares_object_with: tuple[str, ...] = ()  # names of activations that write the same object, as is meant
    missing_parent: str = "hold"  # hold | reject | set_null
    give_up_after: float | None = None  # seconds that a row is tried which Salesforce refuses; None: without end
    keep_before_images: bool = False
    audit: Ceiling = Ceiling(rows=200)  # how many rows are compared after a run, value by value
    # `constants.FIELD` or `on_removed.set.FIELD`: the bare text of which YAML made another value.
    bare: Mapping[str, str] = field(default_factory=dict, hash=False, compare=False)

    @property
    def condition_path(self) -> str:
        """Where its rows' condition stands."""
        return f"{self.meta_path}.{'segment' if self.segment else 'where'}"

    @property
    def only_finds(self) -> bool:
        """Whether its rows only lead to records that are there: a row without a match value has none."""
        by_id = self.match is not None and self.match.field.lower() == "id"
        return self.mode in (Mode.UPDATE, Mode.DELETE) or (self.mode is Mode.UPSERT and by_id)

    @property
    def adopting(self) -> str:
        """The command that takes over the records that its rows have, as a hint gives it. An insert's are found by what
        its key is mapped to; where it is not mapped, only the user knows which fields tell a record."""
        command = f"dinmo-dbt state adopt {self.name}"
        if self.mode is not Mode.INSERT:
            return command
        by = {mapped.column.lower(): f" --match {mapped.column}={mapped.field}" for mapped in self.fields}
        keys = [by.get(column.lower()) for column in self.key]
        return command + ("".join(each for each in keys if each) if all(keys) else " --match COLUMN=FIELD")

    @property
    def digest(self) -> str:
        """SHA-256 over everything that decides which rows are sent, and as what; the same on every machine."""
        sent = {
            "model": self.model.unique_id,
            "relation": self.model.relation_name,
            "destination": self.destination,
            "object": self.object,
            "mode": self.mode.value,
            "key": self.key,
            "match": [self.match.column, self.match.field, self.match.create] if self.match else None,
            "fields": sorted([f.column, f.field, f.nulls, f.write] for f in self.fields),
            "constants": sorted(([field, value] for field, value in self.constants), key=lambda pair: str(pair[0])),
            "where": self.where,
            "on_change": self.on_change,
            "on_removed": self.on_removed,
            "missing_parent": self.missing_parent,
            "on_removed_set": sorted(([field, value] for field, value in self.on_removed_set), key=lambda p: str(p[0])),
        }
        return hashlib.sha256(json.dumps(sent, sort_keys=True, allow_nan=False).encode()).hexdigest()
