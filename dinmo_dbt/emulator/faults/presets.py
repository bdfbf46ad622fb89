"""Refusals of rows as Salesforce words them (wire reference §4.2); each is real but for what is marked unverified."""

from __future__ import annotations

from typing import Any

from dinmo_dbt.emulator.errors import RowError

PRESETS: dict[str, RowError] = {
    "validation_rule": RowError("FIELD_CUSTOM_VALIDATION_EXCEPTION", "The discount is too high"),  # the rule's own text
    "duplicate_rule": RowError("DUPLICATES_DETECTED", "Use one of these records?"),
    "trigger": RowError(
        "CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY",
        "MyTrigger: execution of BeforeInsert\n\ncaused by: System.DmlException: Insert failed.\n\n"
        "Trigger.MyTrigger: line 6, column 1",
    ),
    "too_many_queries": RowError(
        "CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY", "MyTrigger: System.LimitException: SBQQ:Too many SOQL queries: 101"
    ),
    "cpu_limit": RowError(
        "CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY", "MyTrigger: System.LimitException: Apex CPU time limit exceeded"
    ),
    "batch_save": RowError(
        "CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY",
        "Too many retries of batch save in the presence of Apex triggers with failures",
    ),
    "flow": RowError(
        "CANNOT_EXECUTE_FLOW_TRIGGER",
        "We can’t save this record because the “My Flow” process failed. Give your Salesforce admin these details. "
        "Apex CPU time limit exceeded",
    ),
    "storage": RowError("STORAGE_LIMIT_EXCEEDED", "storage limit exceeded"),  # text unverified
    "lock": RowError("UNABLE_TO_LOCK_ROW", "unable to obtain exclusive access to this record"),
    "lookup_filter": RowError(
        "FIELD_FILTER_VALIDATION_EXCEPTION", "Value does not exist or does not match filter criteria."
    ),
    "read_only": RowError("INSUFFICIENT_ACCESS_OR_READONLY", "insufficient access rights on object id"),
    "cross_reference": RowError(
        "INSUFFICIENT_ACCESS_ON_CROSS_REFERENCE_ENTITY", "insufficient access rights on cross-reference id"
    ),
    "converted_lead": RowError("CANNOT_UPDATE_CONVERTED_LEAD", "cannot reference converted lead"),  # text unverified
    "owner": RowError("OP_WITH_INVALID_USER_TYPE_EXCEPTION", "Operation not valid for this user type", ("OwnerId",)),
    "unavailable": RowError("SERVER_UNAVAILABLE", "Server too busy"),
    "maintenance": RowError(  # text unverified
        "INSERT_UPDATE_DELETE_NOT_ALLOWED_DURING_MAINTENANCE", "Records can't be changed during maintenance"
    ),
    "security_policy": RowError(  # text as Marketo's list of Salesforce's errors has it
        "TXN_SECURITY_NO_ACCESS",
        "The operation you requested isn't allowed due to a security policy in your organization. "
        "Contact your administrator.",
    ),
    "transaction_security": RowError(
        "TXN_SECURITY_METERING_ERROR",
        "We can't complete the action because enabled transaction security policies took too long to complete.",
    ),
}


def duplicates(sobject: str, ids: tuple[str, ...]) -> dict[str, Any]:
    """What a single record's refusal by a duplicate rule has besides its text (v54 spelled it `duplicateResut`)."""
    records = [
        {
            "additionalInformation": [], "fieldDiffs": [], "matchConfidence": 100.0,
            "record": {"attributes": {"type": sobject}, "Id": rid},
        }
        for rid in ids
    ]  # fmt: skip
    matched = {
        "entityType": sobject, "errors": [], "matchEngine": "FuzzyMatchEngine", "matchRecords": records,
        "rule": f"Standard_{sobject}_Match_Rule_v1_1", "size": len(records), "success": True,
    }  # fmt: skip
    return {"duplicateResult": {
        "allowSave": True, "duplicateRule": f"Standard_{sobject}_Duplicate_Rule", "duplicateRuleEntityType": sobject,
        "errorMessage": PRESETS["duplicate_rule"].message, "matchResults": [matched],
    }}  # fmt: skip
