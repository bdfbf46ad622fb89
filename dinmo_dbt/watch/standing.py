"""A warning that is open, and what a run goes by."""

from __future__ import annotations

from dataclasses import dataclass

from dinmo_dbt.activation import WarningKind
from dinmo_dbt.watch.notice import Notice


@dataclass(frozen=True, slots=True)
class OpenWarning:
    """A warning that was sent, and has not recovered yet. `since` and `run_id` are of the run it began with, `said`
    is its cause in short, as the latest run knows it. `incident`: its notice's; '' for what concerns no activation."""

    activation: str
    target: str
    kind: WarningKind
    since: float
    run_id: str
    critical: bool
    said: str
    incident: str = ""


@dataclass(frozen=True, slots=True)
class Noticed:
    """All that stand after the run, and what is to be sent, in order."""

    standing: tuple[OpenWarning, ...]
    notices: tuple[Notice, ...]
