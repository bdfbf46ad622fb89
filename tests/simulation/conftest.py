"""A real Postgres for the histories that keep their state in it."""

from warehouse.conftest import postgres

__all__ = ["postgres"]
