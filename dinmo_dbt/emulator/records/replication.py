"""What changed and what was deleted in a span of time, as replicating clients ask.

Source: REST API Developer Guide, sObject Get Updated, Get Deleted; SOAP API Developer Guide, getUpdated, getDeleted:
seconds are cut off, a start lies at most 30 days back and before the end, no more than 600,000 ids are listed.
The texts of the refusals, and `earliestDateAvailable` where nothing was ever removed for good, are unverified.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from dinmo_dbt.emulator.errors import ApiError
from dinmo_dbt.emulator.store import Store, stamp
from dinmo_dbt.emulator.tables import Table

IDS_MAX = 600_000
_KEPT = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class Span:
    """From `start` up to, not including, `end`, in whole minutes; `covered` is the end, or the present before it."""

    start: datetime
    end: datetime
    covered: datetime

    @classmethod
    def asked(cls, arguments: Mapping[str, str], now: datetime) -> Span:
        """The span of a request's `start` and `end`, or Salesforce's refusal."""
        start, end = (_moment(arguments, name) for name in ("start", "end"))
        if start >= end:
            raise _refused("startDate must chronologically precede endDate")
        if start < now - _KEPT:
            raise _refused("startDate is more than 30 days before the present")
        return cls(start, end, min(end, now.astimezone(UTC).replace(second=0, microsecond=0)))

    def bounds(self) -> tuple[str, str]:
        return stamp(self.start), stamp(self.end)


def updated(store: Store, table: Table, span: Span) -> dict[str, Any]:
    """The living records created or changed in the span."""
    rows = _rows(store, table, span, deleted=False)
    return {"ids": [store.codec.encode(rid) for rid, _ in rows], "latestDateCovered": _shown(stamp(span.covered))}


def deleted(store: Store, table: Table, span: Span) -> dict[str, Any]:
    """The records that went to the recycle bin in the span and are still there."""
    records = [
        {"deletedDate": _shown(moment), "id": store.codec.encode(rid)}
        for rid, moment in _rows(store, table, span, deleted=True)
    ]
    sql = f'SELECT min("CreatedDate") FROM {table.name}'
    first = store.reading().execute(sql).fetchone()[0] or stamp(span.start)
    return {
        "deletedRecords": records, "earliestDateAvailable": _shown(first),
        "latestDateCovered": _shown(stamp(span.covered)),
    }  # fmt: skip


def _rows(store: Store, table: Table, span: Span, *, deleted: bool) -> list[tuple[int, str]]:
    sql = (
        f'SELECT rid, "SystemModstamp" FROM {table.name} WHERE "IsDeleted" = ? AND "SystemModstamp" >= ? '
        f'AND "SystemModstamp" < ? ORDER BY "SystemModstamp", rid LIMIT {IDS_MAX + 1}'
    )
    rows: list[tuple[int, str]] = store.reading().execute(sql, (int(deleted), *span.bounds())).fetchall()
    if len(rows) > IDS_MAX:
        raise ApiError(400, "EXCEEDED_ID_LIMIT", f"More than {IDS_MAX} ids: choose a shorter span")
    return rows


def _moment(arguments: Mapping[str, str], name: str) -> datetime:
    # A plus sign that was not escaped comes in as a space.
    text = arguments.get(name, "").strip().replace(" ", "+")
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise _refused(f"{name} is not a dateTime: {text}") from error
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC).replace(second=0, microsecond=0)


def _refused(message: str) -> ApiError:
    return ApiError(400, "INVALID_REPLICATION_DATE", message)


def _shown(moment: str) -> str:
    return f"{moment}.000+0000"
