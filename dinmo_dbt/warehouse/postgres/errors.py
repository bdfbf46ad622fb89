"""What Postgres refused, and why: a statement's error by its SQLSTATE. Pure."""

from __future__ import annotations

import psycopg2

from dinmo_dbt.text.redaction import SQLSTATES, Foreign
from dinmo_dbt.warehouse.query import Cause, QueryRefused, cause_of


def refused(error: BaseException, sql: str) -> QueryRefused:
    """A statement's error, by its SQLSTATE. Without one it is libpq, or the system, that speaks: of the connection."""
    state = error.pgcode or "" if isinstance(error, psycopg2.Error) else ""
    if not isinstance(error, psycopg2.Error) or not state:
        return QueryRefused(Cause.LOST, "", Foreign(str(error), link=True))
    # A function may raise any state with any text: only known ones are named.
    known, at = SQLSTATES.get(state, ""), error.diag.statement_position or ""
    foreign = Foreign(
        error.diag.message_primary or str(error),
        known or type(error).__name__,
        state if known else "",
        sql,
        int(at) - 1 if at.isdigit() else None,
    )
    return QueryRefused(cause_of(state), "", foreign)
