"""What Snowflake and its connector refused, by the number of the error. Pure."""

from __future__ import annotations

from dataclasses import replace

from dinmo_dbt.warehouse.dbt_adapter import KnownError
from dinmo_dbt.warehouse.query import Cause

_NO_WAREHOUSE = (
    "no virtual warehouse takes the query: is `warehouse:` in the profile one that the role may use and resume?"
)
_EXPIRED = "the login to Snowflake has expired"
_BY_NUMBER = {
    606: KnownError(Cause.OTHER, _NO_WAREHOUSE),  # none is chosen, or the role may not use it
    609: KnownError(Cause.OTHER, _NO_WAREHOUSE),  # it is suspended
    90073: KnownError(Cause.OTHER, _NO_WAREHOUSE),  # a resource monitor keeps it from being resumed
    2003: KnownError(Cause.MISSING),  # or hidden from the role: Snowflake does not tell which
    3001: KnownError(Cause.DENIED),
    255003: KnownError(Cause.UNREADABLE, "snowflake-connector-python is installed without Arrow: install its wheel"),
    **dict.fromkeys((390110, 390111, 390112, 390114, 390318), KnownError(Cause.LOST, _EXPIRED)),
    # Of the connector itself: not connected, closed, no answer, a chunk that can't be fetched whole.
    **dict.fromkeys((250001, 250002, 250003, 250005, 251011, 251012, 252010, 252013), KnownError(Cause.LOST)),
}


def read(error: BaseException) -> KnownError | None:
    """None for an error that has no number: nothing is known of it."""
    number = getattr(error, "errno", None)
    if not isinstance(number, int) or number <= 0:
        return None
    return replace(_BY_NUMBER.get(number, KnownError(Cause.OTHER)), code=f"{number:06}")
