"""What Spark refused, by the condition that it names. Pure."""

from __future__ import annotations

from dinmo_dbt.warehouse.dbt_adapter import KnownError
from dinmo_dbt.warehouse.query import Cause

_MISSING = frozenset({"TABLE_OR_VIEW_NOT_FOUND", "SCHEMA_NOT_FOUND", "PATH_NOT_FOUND"})
_DENIED = frozenset({"INSUFFICIENT_PERMISSIONS", "PERMISSION_DENIED"})
_GONE = frozenset({"Py4JNetworkError", "Py4JError"})
_FAILED = "Py4JJavaError"  # of a task: its words are Java's, and name no condition


def read(error: BaseException) -> KnownError | None:
    """None for what is none of Spark's errors. Before 4.0 a condition was called an error class."""
    asked = getattr(error, "getCondition", None) or getattr(error, "getErrorClass", None)
    if asked is None:
        kind = type(error).__name__
        return KnownError(Cause.LOST) if kind in _GONE else KnownError(Cause.OTHER) if kind == _FAILED else None
    condition = str(asked() or "")
    first = condition.partition(".")[0]
    cause = Cause.MISSING if first in _MISSING else Cause.DENIED if first in _DENIED else Cause.OTHER
    return KnownError(cause, code=condition)
