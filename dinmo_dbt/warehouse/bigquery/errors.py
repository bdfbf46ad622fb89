"""What Google refused: by the reason that it gives, else by the kind of the error."""

from __future__ import annotations

from dataclasses import replace

from dinmo_dbt.warehouse.dbt_adapter import KnownError
from dinmo_dbt.warehouse.query import Cause

_NO_ENTRY = KnownError(Cause.OTHER, "Google does not take the credentials of this target")
_BUSY = KnownError(Cause.OTHER, "BigQuery takes no more requests just now")
# "Error messages" of BigQuery's documentation.
_BY_REASON = {
    "notFound": KnownError(Cause.MISSING),
    "accessDenied": KnownError(Cause.DENIED),
    "bytesBilledLimitExceeded": KnownError(
        Cause.OTHER, "it would read more bytes than the profile's maximum_bytes_billed"
    ),
    "billingNotEnabled": KnownError(Cause.OTHER, "the project has no billing"),
    "quotaExceeded": KnownError(Cause.OTHER, "a quota of the project is used up"),
    "rateLimitExceeded": _BUSY,
    "jobRateLimitExceeded": _BUSY,
    "responseTooLarge": KnownError(Cause.OTHER, "these are more rows than a query may give: make the model a table"),
    "resourcesExceeded": KnownError(Cause.OTHER, "the query takes more than BigQuery gives to one"),
    "stopped": KnownError(Cause.OTHER, "the query was cancelled"),
    "invalidQuery": KnownError(Cause.OTHER),
    "backendError": KnownError(Cause.LOST),
    "internalError": KnownError(Cause.LOST),
}
_BY_STATUS = {401: _NO_ENTRY, 403: KnownError(Cause.DENIED), 404: KnownError(Cause.MISSING)}


def read(error: BaseException) -> KnownError | None:
    """None for what is none of Google's errors."""
    from google.api_core.exceptions import GoogleAPICallError, RetryError
    from google.auth.exceptions import GoogleAuthError, TransportError

    if isinstance(error, GoogleAPICallError):
        given = [each.get("reason") for each in error.errors if isinstance(each, dict)]
        reason = next((each for each in given if each in _BY_REASON), "")
        status = int(error.code or 0)
        known = _BY_REASON.get(reason) or _BY_STATUS.get(status)
        return replace(known or KnownError(Cause.LOST if status >= 500 else Cause.OTHER), code=reason)
    if isinstance(error, RetryError | TransportError | OSError):
        return KnownError(Cause.LOST)
    return _NO_ENTRY if isinstance(error, GoogleAuthError) else None
