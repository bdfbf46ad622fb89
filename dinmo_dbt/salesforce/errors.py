"""Salesforce's own error codes: what each means for a row or a run, in a class and one line a person can act on.

Sources: REST API Developer Guide, "Status Codes and Error Responses"; SOAP API Developer Guide, "StatusCode".
"""

from __future__ import annotations

from enum import StrEnum

from dinmo_dbt.errors import NotApplied


class ErrorClass(StrEnum):
    """What an error code asks of us."""

    TRANSIENT = "transient"  # the same row may pass later
    PERMANENT = "permanent"  # the row is refused until its data, or the org, changes
    STOP = "stop"  # no row of this run will pass


class SalesforceRefusal(NotApplied):
    """A definite refusal of one request: nothing of it was applied. `salesforce_code` may be ''.

    `salesforce_message` is Salesforce's text, which can hold row values: it is not part of the error's own message
    when the request carried any.
    """

    def __init__(
        self, code: str, message: str, *, status: int, salesforce_code: str, salesforce_message: str, hint: str = ""
    ) -> None:
        super().__init__(code, message, hint=hint)
        self.status = status
        self.salesforce_code = salesforce_code
        self.salesforce_message = salesforce_message


_TRANSIENT = frozenset(
    {
        "UNABLE_TO_LOCK_ROW",
        "SERVER_UNAVAILABLE",
        "TXN_SECURITY_METERING_ERROR",
        "ALL_OR_NONE_OPERATION_ROLLED_BACK",
        "INSERT_UPDATE_DELETE_NOT_ALLOWED_DURING_MAINTENANCE",
        "QUERY_TIMEOUT",
        "REQUEST_RUNNING_TOO_LONG",
        "UNPROCESSED",
    }
)

_STOP = frozenset(
    {
        "REQUEST_LIMIT_EXCEEDED",
        "LIMIT_EXCEEDED",
        "EXCEEDEDQUOTA",
        "STORAGE_LIMIT_EXCEEDED",
        "API_DISABLED_FOR_ORG",
        "API_CURRENTLY_DISABLED",
        "INVALID_SESSION_ID",
        "ORG_LOCKED",
        "INACTIVE_ORG",
    }
)

# What a delete answers where there is no record any more: it is in the recycle bin, or not even there. Done, for us.
GONE = ("ENTITY_IS_DELETED", "INVALID_CROSS_REFERENCE_KEY")

# Trigger and flow failures are the row's, unless the text says that the batch, not the row, was too much.
_TRANSIENT_TEXTS = ("too many retries of batch save", "unable_to_lock_row", "unable to obtain exclusive access")

_HINTS = {
    "REQUIRED_FIELD_MISSING": "map a column to {fields}, or give the field a default in Setup",
    "STRING_TOO_LONG": "shorten the value of {fields} in the model, or lengthen the field: Setup -> Object Manager",
    "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST": "the value is not in the restricted picklist {fields}: add it in "
    "Setup -> Object Manager -> Fields & Relationships, or change the model",
    "FIELD_CUSTOM_VALIDATION_EXCEPTION": "a validation rule refused the row: Setup -> Object Manager -> "
    "Validation Rules",
    "FIELD_FILTER_VALIDATION_EXCEPTION": "the parent does not pass the lookup filter of {fields}",
    "FIELD_INTEGRITY_EXCEPTION": "the value of {fields} does not fit another value of the same record",
    "INVALID_FIELD": "the value of {fields} can't be read, or its parent record does not exist",
    "INVALID_TYPE_ON_FIELD_IN_RECORD": "the value of {fields} has the wrong type",
    "INVALID_EMAIL_ADDRESS": "{fields} is not an e-mail address",
    "NUMBER_OUTSIDE_VALID_RANGE": "the number has more digits than {fields} takes",
    "MALFORMED_ID": "the id is not one of that object",
    "INVALID_CROSS_REFERENCE_KEY": "the record, or a record it points to, does not exist",
    "ENTITY_IS_DELETED": "the record is in the recycle bin",
    "DUPLICATE_VALUE": "another record already holds this value of a unique field",
    "DUPLICATE_EXTERNAL_ID": "several records hold this external id: mark the field unique, or merge the records",
    "DUPLICATES_DETECTED": "a duplicate rule refused the row: Setup -> Duplicate Rules",
    "MISSING_ARGUMENT": "the identifying value is empty",
    "INVALID_FIELD_FOR_INSERT_UPDATE": "the user may not write {fields}: Setup -> Permission Sets -> Object Settings",
    "INSUFFICIENT_ACCESS_OR_READONLY": "the user may not edit this record: sharing settings or a locked record",
    "INSUFFICIENT_ACCESS_ON_CROSS_REFERENCE_ENTITY": "the user may not see or use a record that the row points to",
    "CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY": "a trigger of the org failed on the row",
    "CANNOT_EXECUTE_FLOW_TRIGGER": "a flow of the org failed on the row",
    "UNABLE_TO_LOCK_ROW": "another transaction held the record or its parent; it is tried again",
    "OP_WITH_INVALID_USER_TYPE_EXCEPTION": "the owner is not a user who may own such records",
    "STORAGE_LIMIT_EXCEEDED": "the org's data storage is full: Setup -> Storage Usage",
    "REQUEST_LIMIT_EXCEEDED": "the org's API calls of the last 24 hours are used up",
    "API_DISABLED_FOR_ORG": "the org, or the user's profile, has no API access",
    "UNPROCESSED": "the job ended before this row; it is sent again",
}


def classify(code: str, message: str = "") -> ErrorClass:
    """The class of a row's or request's error; an unknown code is permanent."""
    if code in _STOP:
        return ErrorClass.STOP
    text = message.lower()
    if code in _TRANSIENT or any(part in text for part in _TRANSIENT_TEXTS):
        return ErrorClass.TRANSIENT
    return ErrorClass.PERMANENT


def hint(code: str, fields: str = "") -> str:
    """One line about a frequent code, naming its fields; '' for the others. Holds no row value."""
    return _HINTS.get(code, "").format(fields=fields or "the field")
