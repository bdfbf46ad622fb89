"""Times, in seconds since the epoch, as people and as programs read them: both UTC. Pure."""

from __future__ import annotations

from datetime import UTC, datetime

_LAST = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC).timestamp()


def moment(seconds: float) -> str:
    """For people: `2026-03-09 08:00:00Z`."""
    return _at(seconds).strftime("%Y-%m-%d %H:%M:%SZ")


def minute(seconds: float) -> str:
    """For people, where seconds say nothing: `2026-03-09 08:00 UTC`."""
    return _at(seconds).strftime("%Y-%m-%d %H:%M UTC")


def iso(seconds: float) -> str:
    """For programs, the one form of every time in our JSON, ISO 8601: `2026-03-09T08:00:00.000Z`."""
    return _at(seconds).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def iso_or_none(seconds: float | None) -> str | None:
    """The same; None for a time that there is not."""
    return None if seconds is None else iso(seconds)


def said(iso: str) -> str:
    """A time of a JSON document, for people."""
    return f"{iso[:19].replace('T', ' ')}Z"


def _at(seconds: float) -> datetime:
    """A state that was damaged may hold any number: what no calendar has is its first or last moment."""
    return datetime.fromtimestamp(min(max(seconds, 0.0), _LAST), UTC)
