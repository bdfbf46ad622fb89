"""What Databricks and its connector refused, by the class of the error. Pure."""

from __future__ import annotations

import re

from dinmo_dbt.warehouse.dbt_adapter import KnownError
from dinmo_dbt.warehouse.query import Cause

# The connector hands on no code of the server's: its error classes stand in brackets at the head of the text. Only
# those of this list are ever shown.
_CLASSES = {
    "TABLE_OR_VIEW_NOT_FOUND": Cause.MISSING,
    "SCHEMA_NOT_FOUND": Cause.MISSING,
    "INSUFFICIENT_PERMISSIONS": Cause.DENIED,
    "PERMISSION_DENIED": Cause.DENIED,
    "UNRESOLVED_COLUMN": Cause.OTHER,
    "CAST_INVALID_INPUT": Cause.OTHER,
    "DIVIDE_BY_ZERO": Cause.OTHER,
    "PARSE_SYNTAX_ERROR": Cause.OTHER,
}
_HEAD = re.compile(r"\[([A-Z_]+)(?:\.[A-Z_]+)*\] ")
_LOST = frozenset({"MaxRetryDurationError", "RequestError", "SessionAlreadyClosedError", "CursorAlreadyClosedError"})


def read(error: BaseException) -> KnownError | None:
    """None for an error that is not the connector's."""
    if not type(error).__module__.startswith("databricks.sql"):
        return None
    if type(error).__name__ in _LOST:
        return KnownError(Cause.LOST)
    head = _HEAD.match(str(error))
    name = head[1] if head and head[1] in _CLASSES else ""
    return KnownError(_CLASSES.get(name, Cause.OTHER), code=name)
