"""A notice: one message to people, as it goes to the channels. It holds no secret and no row value."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """How loudly it is told; `recovered` is the end of what was a warning or critical before."""

    CRITICAL = "critical"
    WARNING = "warning"
    RECOVERED = "recovered"
    INFO = "info"


@dataclass(frozen=True, slots=True)
class Notice:
    """Plain text. `id` is in what is sent: by it a receiver recognises a notice that it was sent twice.
    `ends_critical`: what recovered was critical, so whoever was told of that is told of its end."""

    id: str
    severity: Severity
    title: str
    body: str
    ends_critical: bool = False
