"""What Redshift and its connector refused, by SQLSTATE. Pure."""

from __future__ import annotations

from dinmo_dbt.warehouse.dbt_adapter import KnownError
from dinmo_dbt.warehouse.query import Cause, cause_of


def read(error: BaseException) -> KnownError | None:
    """The server's error is a mapping of its one-letter fields; without one the connection itself failed."""
    if not type(error).__module__.startswith("redshift_connector"):
        return None
    fields = error.args[0] if error.args else None
    if not isinstance(fields, dict):
        return KnownError(Cause.LOST) if type(error).__name__ in ("InterfaceError", "OperationalError") else None
    state, at = fields.get("C", ""), fields.get("P", "")
    return KnownError(
        cause_of(state), code=state, text=fields.get("M", ""), position=int(at) - 1 if at.isdigit() else None
    )
