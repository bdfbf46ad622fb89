"""The keys of an activation that say when it runs and when someone is notified: their shapes, defaults and meaning.

`block` puts them beside the keys that say what is sent.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Annotated, Any
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError
from pydantic import Field, PlainValidator, ValidationInfo, WithJsonSchema, field_validator

from dinmo_dbt.activation import Ceiling, QuietHours, Schedule, ScheduleKind, WarningKind, Watch
from dinmo_dbt.codes import KEYS_CONFLICT, NOT_ALLOWED, UNKNOWN_KEY
from dinmo_dbt.config import declaration
from dinmo_dbt.config.declaration import Strict, show, wrong, wrong_type

PAUSE_AFTER = 3  # runs in a row that fail for a lasting reason

_EVERY = re.compile(r"every ([1-9][0-9]{0,4}) (minute|hour|day)s?")
_SPAN = re.compile(r"([1-9][0-9]{0,4}) (minute|hour|day)s?")
_CRON_ITEM = re.compile(
    r"(\*|[0-9]{1,2}-[0-9]{1,2}|[a-z]{3}-[a-z]{3})(/[0-9]{1,2})?|[0-9]{1,2}|[a-z]{3}", re.IGNORECASE
)
_UNIT_S = {"minute": 60, "hour": 3600, "day": 86400}


# When it runs


def _timezone(value: object) -> str:
    name = declaration.text(value)
    try:
        ZoneInfo(name)
    except (OSError, ValueError, KeyError):
        hint = "use a name of the IANA time zone database, such as Europe/Paris or UTC"
        raise wrong(NOT_ALLOWED, f"{show(name)} is not a time zone", hint=hint) from None
    return name


TimeZone = Annotated[str, PlainValidator(_timezone), WithJsonSchema({"type": "string"})]


def _cron(value: object) -> str:
    line = " ".join(declaration.text(value).split())
    parts = line.split(" ")
    if len(parts) != 5:
        hint = "minute, hour, day of month, month, day of week: 0 6 * * 1-5"
        raise wrong(NOT_ALLOWED, f"{show(line)} has {len(parts)} parts; a cron line has 5", hint=hint)
    for part in parts:
        if unknown := next((item for item in part.split(",") if not _CRON_ITEM.fullmatch(item)), None):
            hint = "crontab(5) has numbers, names, ranges, lists and steps: 1-5, mon, 1,15, */10, 0-30/10"
            if "L" in unknown.upper():
                hint += "; for the last day of a month take 28-31, and let the model's SQL ask for the day"
            raise wrong(NOT_ALLOWED, f"{show(line)} is not a cron line: crontab(5) has no {show(unknown)}", hint=hint)
    try:
        next(CronSim(line, datetime(2024, 1, 1, tzinfo=UTC)))
    except CronSimError as error:
        raise wrong(NOT_ALLOWED, f"{show(line)} is not a cron line: {str(error).lower()}") from None
    except StopIteration:
        raise wrong(NOT_ALLOWED, f"{show(line)} never comes: there is no such day") from None
    return line


class Cron(Strict):
    cron: Annotated[str, PlainValidator(_cron), WithJsonSchema({"type": "string"})] = Field(
        description="Five-part cron line, as crontab(5) of Debian has it."
    )
    timezone: TimeZone = Field(default="UTC", description="IANA time zone of the cron line.")


def _schedule(value: object) -> Schedule:
    if isinstance(value, Mapping):
        spec = Cron.model_validate(value)
        return Schedule(ScheduleKind.CRON, cron=spec.cron, timezone=spec.timezone)
    words = declaration.text(value)
    if words in ("after_dbt", "manual"):
        return Schedule(ScheduleKind(words))
    if every := _EVERY.fullmatch(words):
        return Schedule(ScheduleKind.EVERY, every_s=int(every[1]) * _UNIT_S[every[2]])
    hint = "allowed: after_dbt, manual, every 15 minutes (hours, days), {cron: '0 6 * * 1-5', timezone: Europe/Paris}"
    raise wrong(NOT_ALLOWED, f"{show(words)} is not a schedule", hint=hint)


ScheduleSpec = Annotated[
    Schedule,
    PlainValidator(_schedule),
    WithJsonSchema(
        {
            "anyOf": [
                {"enum": ["after_dbt", "manual"]},
                {"type": "string", "pattern": f"^{_EVERY.pattern}$"},
                Cron.model_json_schema(),
            ]
        }
    ),
]


def _clock_time(value: object) -> str:
    if not isinstance(value, str):
        raise wrong_type("text", value)  # YAML 1.1 reads an unquoted 22:00 as 1320, in base 60
    if not re.fullmatch(r"([01][0-9]|2[0-3]):[0-5][0-9]", value):
        raise wrong(NOT_ALLOWED, f"{show(value)} is not a time of day such as 22:00")
    return value


ClockTime = Annotated[str, PlainValidator(_clock_time), WithJsonSchema({"type": "string"})]


class QuietHoursSpec(Strict):
    from_: ClockTime = Field(alias="from", description="Start, `22:00`.")
    to: ClockTime = Field(description="End, `06:00`; may be on the next day.")
    timezone: TimeZone = Field(default="UTC", description="IANA time zone of both.")

    @field_validator("to")
    @classmethod
    def _some_hours(cls, value: str, info: ValidationInfo) -> str:
        if value == info.data.get("from_"):
            raise wrong(KEYS_CONFLICT, "quiet hours that never end: `from` and `to` are the same")
        return value

    def resolved(self) -> QuietHours:
        return QuietHours(_minutes(self.from_), _minutes(self.to), self.timezone)


def _minutes(clock_time: str) -> int:
    hours, _, minutes = clock_time.partition(":")
    return int(hours) * 60 + int(minutes)


def _pause_after(value: object) -> int | None:
    if isinstance(value, bool):
        return PAUSE_AFTER if value else None
    if isinstance(value, int) and 1 <= value <= 1000:
        return value
    raise wrong_type("true, false or a number of failed runs from 1 to 1000", value)


PauseAfter = Annotated[
    int | None,
    PlainValidator(_pause_after),
    WithJsonSchema({"anyOf": [{"type": "boolean"}, {"type": "integer", "minimum": 1, "maximum": 1000}]}),
]


def _moment(value: object) -> datetime:
    """A date is its first instant, UTC; so is a time without an offset."""
    words = declaration.text(value)
    try:
        if len(words) == 10:
            found = datetime.combine(date.fromisoformat(words), datetime.min.time())
        else:
            found = datetime.fromisoformat(words)
    except ValueError:
        hint = "write 2026-12-31 or 2026-12-31T18:00:00+01:00"
        raise wrong(NOT_ALLOWED, f"{show(words)} is not a date or a time", hint=hint) from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


Moment = Annotated[datetime, PlainValidator(_moment), WithJsonSchema({"type": "string"})]


# When someone is notified

_SEVERITIES = ("warning", "critical")
SPAN_SCHEMA: dict[str, Any] = {"type": "string", "pattern": f"^{_SPAN.pattern}$"}
_PERCENT_SCHEMA = {"type": "string", "pattern": r"^[0-9]{1,3}(\.[0-9]{1,6})?\s*%$"}
_ROWS_SCHEMA = {"type": "integer", "minimum": 0}


def span(value: object) -> float:
    """`30 minutes` in seconds."""
    found = _SPAN.fullmatch(declaration.text(value))
    if not found:
        raise wrong(NOT_ALLOWED, f"{show(value)} is not a time span such as 30 minutes, 24 hours or 2 days")
    return float(int(found[1]) * _UNIT_S[found[2]])


def ceiling(value: object) -> Ceiling:
    """A number of rows, or `5%`."""
    if isinstance(value, int) and not isinstance(value, bool):
        if 0 <= value <= 10**12:
            return Ceiling(rows=value)
        raise wrong(NOT_ALLOWED, f"expected a number of rows from 0 up, got {declaration.kind(value)}")
    if isinstance(value, str):
        if re.fullmatch(r"[0-9]+", value):
            raise wrong_type("a whole number or a percentage such as 5%", value)
        return Ceiling(percent=declaration.percent(value))
    raise wrong_type("a whole number or a percentage such as 5%", value)


CEILING_SCHEMA: dict[str, Any] = {"anyOf": [_ROWS_SCHEMA, _PERCENT_SCHEMA]}


def _percent(value: object) -> Decimal:
    if not isinstance(value, str):
        raise wrong_type("a percentage such as 80%", value)
    return declaration.percent(value)


# What a kind's limit is, and how it is read.
_LIMITS: dict[WarningKind, tuple[Any, dict[str, Any]]] = {
    WarningKind.REJECTED: (ceiling, CEILING_SCHEMA),
    WarningKind.HELD: (span, SPAN_SCHEMA),
    WarningKind.ROW_COUNT: (_percent, _PERCENT_SCHEMA),
    WarningKind.DURATION: (span, SPAN_SCHEMA),
    WarningKind.MISSED: (span, SPAN_SCHEMA),
    WarningKind.API_BUDGET: (_percent, _PERCENT_SCHEMA),
}

# What stands where nothing is said: severity, limit (None: the kind has none, or finds its own).
USUAL: dict[WarningKind, Watch] = {
    WarningKind.FAILED: Watch(critical=True),
    WarningKind.REJECTED: Watch(limit=Ceiling(percent=Decimal(5))),
    WarningKind.HELD: Watch(limit=86400.0),
    WarningKind.EMPTY: Watch(),
    WarningKind.ROW_COUNT: Watch(),
    WarningKind.DURATION: Watch(),
    WarningKind.MISSED: Watch(limit=600.0),
    WarningKind.FULL: Watch(),
    WarningKind.DRIFT: Watch(),
    WarningKind.API_BUDGET: Watch(limit=Decimal(80)),
    WarningKind.REFUSED: Watch(critical=True),
    WarningKind.PAUSED: Watch(critical=True),
}
# Off unless asked for: what is unusual there is no fault in many a project.
_OFF = (WarningKind.EMPTY, WarningKind.ROW_COUNT, WarningKind.DURATION, WarningKind.FULL)


def _watch(kind: WarningKind, value: object) -> Watch | None:
    """One warning as declared: `true`, `false`, a severity, the limit, or `{limit: …, severity: …}`."""
    usual = USUAL[kind]
    if isinstance(value, bool):
        return usual if value else None
    if isinstance(value, str) and value in _SEVERITIES:
        return Watch(critical=value == "critical", limit=usual.limit)
    if isinstance(value, Mapping):
        if unknown := [key for key in value if key not in ("limit", "severity")]:
            near = declaration.did_you_mean(str(unknown[0]), ("limit", "severity"))
            raise wrong(UNKNOWN_KEY, f"unknown key {show(unknown[0])}{near}", hint="limit, severity")
        severity = value.get("severity", "critical" if usual.critical else "warning")
        if severity not in _SEVERITIES:
            raise wrong(NOT_ALLOWED, f"{show(severity)} is not a severity", hint="warning or critical")
        limit = _limit(kind, value["limit"]) if "limit" in value else usual.limit
        return Watch(critical=severity == "critical", limit=limit)
    if kind not in _LIMITS:
        raise wrong_type("true, false, warning or critical", value)
    return Watch(critical=usual.critical, limit=_limit(kind, value))


def _limit(kind: WarningKind, value: object) -> Ceiling | Decimal | float:
    if kind not in _LIMITS:
        raise wrong(NOT_ALLOWED, f"`{kind}` takes no limit")
    found: Ceiling | Decimal | float = _LIMITS[kind][0](value)
    return found


def _default(kind: WarningKind) -> bool | str:
    limit = USUAL[kind].limit
    if kind in _OFF or limit is None:
        return kind not in _OFF
    if isinstance(limit, float):
        return f"{limit / 3600:g} hours" if limit >= 7200 else f"{limit / 60:g} minutes"
    return str(limit) if isinstance(limit, Ceiling) else f"{limit}%"


def _key(kind: WarningKind, meaning: str) -> Any:
    """One key of `warnings`."""
    severity: dict[str, Any] = {"enum": list(_SEVERITIES)}
    limit: dict[str, dict[str, Any]] = {"limit": _LIMITS[kind][1]} if kind in _LIMITS else {}
    whole: dict[str, Any] = {
        "type": "object",
        "properties": {"severity": severity, **limit},
        "additionalProperties": False,
    }
    schema: Any = {"anyOf": [{"type": "boolean"}, severity, *limit.values(), whole], "default": _default(kind)}
    usual = None if kind in _OFF else USUAL[kind]
    return Field(default_factory=lambda: usual, description=meaning, json_schema_extra=schema)


class WarningsSpec(Strict):
    """What to tell the channels of dinmo.yml. Each key: true, false, a severity, its limit, or
    `{limit: …, severity: …}`."""

    failed: Any = _key(WarningKind.FAILED, "A sync failed.")
    rejected: Any = _key(
        WarningKind.REJECTED,
        "More rows than this are rejected or invalid: a number, or a share of the rows that were to be delivered.",
    )
    held: Any = _key(WarningKind.HELD, "A row waits for longer than this.")
    empty: Any = _key(WarningKind.EMPTY, "The model or segment has no row.")
    row_count: Any = _key(
        WarningKind.ROW_COUNT,
        "The number of rows is outside its usual band, as the last 14 runs and those on the same weekday tell it; "
        "`30%`: so far from their median.",
    )
    duration: Any = _key(WarningKind.DURATION, "A run took longer than this; `true`: far longer than the last runs.")
    missed: Any = _key(WarningKind.MISSED, "A run started later than this after it was due, or was due twice by then.")
    full: Any = _key(WarningKind.FULL, "All rows were sent, and why: a first sync, `--full`, a new mapping.")
    drift: Any = _key(
        WarningKind.DRIFT,
        "Salesforce no longer takes what it took: the object, a field or a right is gone, or a field has another type.",
    )
    api_budget: Any = _key(WarningKind.API_BUDGET, "More than this share of the org's daily API calls is used.")
    refused: Any = _key(WarningKind.REFUSED, "A guard, the gate or the state kept a sync from starting.")
    paused: Any = _key(WarningKind.PAUSED, "The activation was paused, by itself or by hand.")

    @field_validator("*", mode="plain")
    @classmethod
    def _read(cls, value: object, info: ValidationInfo) -> Watch | None:
        return _watch(WarningKind(str(info.field_name)), value)

    def resolved(self) -> dict[WarningKind, Watch]:
        """Those that are on."""
        found = {kind: getattr(self, kind) for kind in WarningKind}
        return {kind: watch for kind, watch in found.items() if watch is not None}
