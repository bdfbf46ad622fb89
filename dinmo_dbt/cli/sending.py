"""Placeholder."""

from __future__ import annotations

from dinmo_dbt.cli.session import Session


def deliver(session: Session) -> None:
    """Placeholder."""
