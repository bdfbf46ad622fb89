"""Salesforce's own error codes: what each means for a row or a run, in a class and one line a person can act on.

Sources: REST API Developer Guide, "Status Codes and Error Responses"; SOAP API Developer Guide, "StatusCode".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dinmo_dbt.destination import Diagnosis, ErrorClass, Fate, Remedy
from dinmo_dbt.errors import NotApplied

if TYPE_CHECKING:
    import pyarrow as pa


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


class ReplyTooLarge(NotApplied):
    """A read whose reply is more than is taken: asking for less may help."""


_TRANSIENT, _AUTOMATION, _REFERENCE = ErrorClass.TRANSIENT, ErrorClass.AUTOMATION, ErrorClass.REFERENCE
_LIMIT, _AUTH, _MAINTENANCE, _DATA = ErrorClass.LIMIT, ErrorClass.AUTH, ErrorClass.MAINTENANCE, ErrorClass.DATA

_AGAIN_HINT = "another transaction held the record or its parent; it is tried again"
_QUOTA_HINT = (
    "the org's API calls of the last 24 hours are used up: Setup -> Company Information -> API Requests, Last 24 Hours"
)
_BULK_HINT = "the org's daily Bulk API limit is used up: Setup -> Bulk Data Load Jobs shows whose jobs"
_NO_API_HINT = (
    "the user, or the org's edition, has no API access: Setup -> Users -> the user's profile or permission sets -> "
    "System Permissions -> API Enabled"
)
_SESSION_HINT = (
    "the session ended and could not be renewed: Setup -> Login History; the app needs the OAuth scope api, and where "
    "Setup -> API Access Control limits apps, it must be allowed there"
)
RETIRED_HINT = "the org no longer takes this version of the API: use a newer dinmo-dbt"

# What a delete answers where there is no record any more: it is in the recycle bin, or not even there. Done, for us.
GONE = ("ENTITY_IS_DELETED", "INVALID_CROSS_REFERENCE_KEY")

# Code -> class and hint. A code that is not here is the row's own: data.
_CODES: dict[str, tuple[ErrorClass, str]] = {
    "UNABLE_TO_LOCK_ROW": (_TRANSIENT, _AGAIN_HINT),
    "SERVER_UNAVAILABLE": (_TRANSIENT, "Salesforce was too busy; it is tried again"),
    "TXN_SECURITY_METERING_ERROR": (_TRANSIENT, "the org's transaction security took too long; it is tried again"),
    "ALL_OR_NONE_OPERATION_ROLLED_BACK": (_TRANSIENT, "another row of the same call failed; it is tried again"),
    "QUERY_TIMEOUT": (_TRANSIENT, "Salesforce took too long; it is tried again"),
    "REQUEST_RUNNING_TOO_LONG": (_TRANSIENT, "Salesforce took too long; it is tried again"),
    "UNPROCESSED": (_TRANSIENT, "the job ended before this row; it is sent again"),
    "NOT_SENT": (_TRANSIENT, "the run stopped before this row; the next one sends it"),
    "JOB_RUNNING": (_TRANSIENT, "the job goes on in Salesforce; the next run reads its results"),
    "JOB_GONE": (_TRANSIENT, ""),
    "CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY": (
        _AUTOMATION,
        "a trigger of the org failed on the row: Setup -> Apex Triggers; its message names it",
    ),
    "CANNOT_EXECUTE_FLOW_TRIGGER": (_AUTOMATION, "a flow of the org failed on the row: Setup -> Flows"),
    "FLOW_EXCEPTION": (_AUTOMATION, "a flow of the org failed on the row: Setup -> Flows"),
    "APEX_ERROR": (_AUTOMATION, "Apex code of the org failed on the row; its message names it"),
    "INVALID_CROSS_REFERENCE_KEY": (_REFERENCE, "the record, or a record it points to, does not exist"),
    "ENTITY_IS_DELETED": (_REFERENCE, "the record is in the recycle bin"),
    "INSUFFICIENT_ACCESS_ON_CROSS_REFERENCE_ENTITY": (
        _REFERENCE,
        "the user may not see or use a record that the row points to",
    ),
    "FIELD_FILTER_VALIDATION_EXCEPTION": (_REFERENCE, "the parent does not pass the lookup filter of {fields}"),
    "PARENT_MISSING": (_REFERENCE, "sync the parents first; the row is tried again by every run"),
    "PARENT_AMBIGUOUS": (_REFERENCE, ""),
    "STORAGE_LIMIT_EXCEEDED": (_LIMIT, "the org's data storage is full: Setup -> Storage Usage"),
    "REQUEST_LIMIT_EXCEEDED": (_LIMIT, _QUOTA_HINT),
    "LIMIT_EXCEEDED": (_LIMIT, _BULK_HINT),
    "EXCEEDEDQUOTA": (_LIMIT, _QUOTA_HINT),
    "INVALID_SESSION_ID": (_AUTH, _SESSION_HINT),
    "API_DISABLED_FOR_ORG": (_AUTH, _NO_API_HINT),
    "API_CURRENTLY_DISABLED": (_AUTH, _NO_API_HINT),
    "ORG_LOCKED": (_AUTH, "the org is locked: ask Salesforce, or its administrator"),
    "INACTIVE_ORG": (_AUTH, "the org is inactive: ask Salesforce, or its administrator"),
    "INSERT_UPDATE_DELETE_NOT_ALLOWED_DURING_MAINTENANCE": (
        _MAINTENANCE,
        "the org is read-only for maintenance (status.salesforce.com); run sync again when it is over",
    ),
    "REQUEST_ENTITY_TOO_LARGE": (
        _DATA,
        "the row alone is more than Salesforce, or a proxy on the way, takes at once: shorten its texts in the model",
    ),
    "REQUIRED_FIELD_MISSING": (_DATA, "map a column to {fields}, or give the field a default in Setup"),
    "STRING_TOO_LONG": (
        _DATA,
        "shorten the value of {fields} in the model, or lengthen the field: Setup -> Object Manager",
    ),
    "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST": (
        _DATA,
        "the value is not in the restricted picklist {fields}: add it in "
        "Setup -> Object Manager -> Fields & Relationships, or change the model",
    ),
    "FIELD_CUSTOM_VALIDATION_EXCEPTION": (
        _DATA,
        "a validation rule refused the row: Setup -> Object Manager -> Validation Rules",
    ),
    "FIELD_INTEGRITY_EXCEPTION": (_DATA, "the value of {fields} does not fit another value of the same record"),
    "INVALID_FIELD": (_DATA, "the value of {fields} can't be read, or its parent record does not exist"),
    "INVALID_TYPE_ON_FIELD_IN_RECORD": (_DATA, "the value of {fields} has the wrong type"),
    "INVALID_EMAIL_ADDRESS": (_DATA, "{fields} is not an e-mail address"),
    "NUMBER_OUTSIDE_VALID_RANGE": (_DATA, "the number has more digits than {fields} takes"),
    "MALFORMED_ID": (_DATA, "the id is not one of that object"),
    "DUPLICATE_VALUE": (_DATA, "another record already holds this value of a unique field"),
    "DUPLICATE_EXTERNAL_ID": (_DATA, "several records hold this external id: mark the field unique, or merge them"),
    "DUPLICATES_DETECTED": (_DATA, "a duplicate rule refused the row: Setup -> Duplicate Rules"),
    "MISSING_ARGUMENT": (_DATA, "the identifying value is empty"),
    "INVALID_FIELD_FOR_INSERT_UPDATE": (
        _DATA,
        "Salesforce takes no value for {fields} here: it is written on new records only (a master-detail field, for "
        "one), or it is computed, or the user may not write it (Setup -> Permission Sets -> Object Settings)",
    ),
    "INSUFFICIENT_ACCESS_OR_READONLY": (
        _DATA,
        "the user may not edit this record: sharing settings or a locked record",
    ),
    "OP_WITH_INVALID_USER_TYPE_EXCEPTION": (_DATA, "the owner is not a user who may own such records"),
}

# Why rows wait that Salesforce did not refuse: they have no class.
_OURS = {
    "OUTCOME_UNKNOWN": "dinmo-dbt state adopt looks for the record and takes it over; "
    "dinmo-dbt retry --unknown inserts the row again, whatever became of it",
    "GIVEN_UP": "dinmo-dbt retry sends it once more; give_up_after says when a row is given up",
    **dict.fromkeys(("KEY_RESPELLED", "MATCH_CHANGED", "RECORD_ID_UNKNOWN", "RECORD_SHARED", "REMOVAL_DOUBTFUL"), ""),
    **dict.fromkeys(("CONFLICT", "DELETED", "RECORD_UNKNOWN"), ""),
}

_REMEDIES = {
    _TRANSIENT: Remedy.AGAIN,
    _LIMIT: Remedy.STOP,
    _AUTH: Remedy.STOP,
    _MAINTENANCE: Remedy.STOP,
}

# Triggers, flows and failed jobs tell in words what really was the matter; the first that is found counts.
_TEXTS: tuple[tuple[str, ErrorClass, Remedy, str], ...] = (
    ("unable_to_lock_row", _TRANSIENT, Remedy.AGAIN, _AGAIN_HINT),
    ("unable to obtain exclusive access", _TRANSIENT, Remedy.AGAIN, _AGAIN_HINT),
    ("toomanylockfailure", _TRANSIENT, Remedy.AGAIN, _AGAIN_HINT),
    ("too many retries of batch save", _AUTOMATION, Remedy.AGAIN, "other rows of its batch failed; it is tried again"),
    *(
        (text, _AUTOMATION, Remedy.SMALLER, "the org's automation used up a limit; it is sent in smaller batches")
        for text in (
            "too many soql queries",
            "too many sosl queries",
            "too many dml statements",
            "too many dml rows",
            "too many query rows",
            "too many queueable jobs",
            "too many future calls",
            "cpu time limit exceeded",
            "heap size too large",
        )
    ),
    ("foreign key external id", _REFERENCE, Remedy.CHANGE, "no record holds the parent's value of {fields}"),
)


def classify(code: str, message: str = "", fields: str = "") -> Diagnosis:
    """What a row's or request's error asks for, with its hint naming `fields`; an unknown code is data.

    The hint holds no row value, and is '' for codes that explain themselves.
    """
    found, advice = _CODES.get(code, (_DATA, ""))
    remedy = Remedy.LET_GO if code == "DUPLICATE_VALUE" else _REMEDIES.get(found, Remedy.CHANGE)
    if remedy is not Remedy.STOP:
        text = message.lower()
        entry = next((each for each in _TEXTS if each[0] in text), None)
        if entry:
            _, found, remedy, advice = entry
    return Diagnosis(found, remedy, advice.format(fields=fields or "the field"))


def hint(code: str, fields: str = "") -> str:
    """One line about a frequent code; '' for the others."""
    return classify(code, "", fields).hint


def explained(left_out: pa.Table) -> pa.Table:
    """The same rows (columns fate, code, message, fields) with their `class` and `hint`.

    Rows that Salesforce refused, or that wait, have a class; null for the others, which never were Salesforce's to
    refuse. A hint is '' where there is none, and holds no row value.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    is_refused = pc.is_in(left_out["fate"], value_set=pa.array([Fate.REJECTED.value, Fate.HELD.value]))
    parts = [pc.fill_null(left_out[name], "") for name in ("code", "message", "fields")]
    texts = pc.if_else(is_refused, pc.binary_join_element_wise(*parts, "\0"), pa.scalar(None, pa.utf8()))
    distinct = pc.unique(texts).drop_null()
    diagnoses = [_class_and_hint(*text.split("\0", 2)) for text in distinct.to_pylist()]
    index = pc.index_in(texts, value_set=distinct)
    classes = pa.array([error_class for error_class, _ in diagnoses], pa.utf8()).take(index)
    hints = pc.fill_null(pa.array([advice for _, advice in diagnoses], pa.utf8()).take(index), "")
    return left_out.append_column("class", classes).append_column("hint", hints)


def _class_and_hint(code: str, message: str, fields: str) -> tuple[str | None, str]:
    if code in _OURS:
        return None, _OURS[code]
    diagnosis = classify(code, message, fields)
    return diagnosis.error_class.value, diagnosis.hint
