"""What each of Salesforce's codes asks for, and that hints name fields and never values."""

import pyarrow as pa
import pytest

from dinmo_dbt.destination import ErrorClass, Remedy
from dinmo_dbt.salesforce.errors import classify, explained, hint

TRIGGER, FLOW = "CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY", "CANNOT_EXECUTE_FLOW_TRIGGER"


@pytest.mark.parametrize(
    ("code", "message", "error_class", "remedy"),
    [
        ("UNABLE_TO_LOCK_ROW", "", "transient", "again"),
        ("SERVER_UNAVAILABLE", "", "transient", "again"),
        ("UNPROCESSED", "", "transient", "again"),
        ("", "TooManyLockFailure : Too many lock failures", "transient", "again"),
        (TRIGGER, "T: System.DmlException: UNABLE_TO_LOCK_ROW, unable to obtain", "transient", "again"),
        (TRIGGER, "Too many retries of batch save in the presence of Apex triggers", "automation", "again"),
        (TRIGGER, "T: System.LimitException: SBQQ:Too many SOQL queries: 101", "automation", "smaller"),
        (TRIGGER, "T: System.LimitException: Apex heap size too large: 6001", "automation", "smaller"),
        (FLOW, "... Apex CPU time limit exceeded", "automation", "smaller"),
        (TRIGGER, "T: execution of BeforeInsert", "automation", "change"),
        (FLOW, "no", "automation", "change"),
        ("INVALID_CROSS_REFERENCE_KEY", "invalid cross reference id", "reference", "change"),
        ("ENTITY_IS_DELETED", "entity is deleted", "reference", "change"),
        ("INVALID_FIELD", "Foreign key external ID: X not found for field Ext__c in entity A", "reference", "change"),
        ("INVALID_FIELD", "Failed to deserialize field at col 3", "data", "change"),
        ("STORAGE_LIMIT_EXCEEDED", "", "limit", "stop"),
        ("REQUEST_LIMIT_EXCEEDED", "", "limit", "stop"),
        ("INVALID_SESSION_ID", "", "auth", "stop"),
        ("API_DISABLED_FOR_ORG", "", "auth", "stop"),
        ("INSERT_UPDATE_DELETE_NOT_ALLOWED_DURING_MAINTENANCE", "", "maintenance", "stop"),
        ("REQUIRED_FIELD_MISSING", "", "data", "change"),
        ("FIELD_CUSTOM_VALIDATION_EXCEPTION", "no", "data", "change"),
        ("SOMETHING_NEW", "", "data", "change"),
    ],
)
def test_codes_have_a_class_and_a_remedy(code, message, error_class, remedy):
    verdict = classify(code, message)
    assert (verdict.error_class, verdict.remedy) == (ErrorClass(error_class), Remedy(remedy))


def test_every_class_has_a_hint():
    codes = {"UNABLE_TO_LOCK_ROW", TRIGGER, FLOW, "ENTITY_IS_DELETED", "STORAGE_LIMIT_EXCEEDED", "ORG_LOCKED"}
    codes |= {"INSERT_UPDATE_DELETE_NOT_ALLOWED_DURING_MAINTENANCE", "STRING_TOO_LONG"}
    assert {classify(code).error_class for code in codes} == set(ErrorClass)
    assert all(classify(code).hint for code in codes)


def test_hints_name_the_fields_or_say_the_field():
    assert "Name,Stage__c" in hint("REQUIRED_FIELD_MISSING", "Name,Stage__c")
    assert "the field" in hint("REQUIRED_FIELD_MISSING")
    assert hint("SOMETHING_NEW", "Name") == ""
    assert hint("STRING_TOO_LONG", "{curly}").count("{curly}") == 1


def test_rows_that_were_refused_or_wait_have_a_class_and_others_none():
    rows = pa.table(
        {
            "fate": ["rejected", "held", "no_match", "unknown", "rejected", "held"],
            "code": ["STRING_TOO_LONG", "UNABLE_TO_LOCK_ROW", "NO_RECORD", "NO_RESULT", None, "OUTCOME_UNKNOWN"],
            "message": ["too long", None, "none", "?", None, "it was inserted, perhaps"],
            "fields": ["Name", None, None, None, None, None],
        }
    )
    told = explained(rows)
    assert told["class"].to_pylist() == ["data", "transient", None, None, "data", None]
    hints = told["hint"].to_pylist()
    assert "the value of Name" in hints[0] and "tried again" in hints[1] and "state adopt" in hints[5]
    assert hints[2:5] == ["", "", ""]
    assert len(explained(rows.slice(0, 0))) == 0


def test_the_words_of_a_trigger_tell_the_class_of_its_code():
    words = ["Trigger: UNABLE_TO_LOCK_ROW", "Trigger: Too many SOQL queries: 101", "Trigger: no"]
    columns = {"fate": ["rejected"] * 3, "code": ["CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY"] * 3, "message": words}
    told = explained(pa.table({**columns, "fields": pa.nulls(3, pa.utf8())}))
    assert told["class"].to_pylist() == ["transient", "automation", "automation"]
    assert len(set(told["hint"].to_pylist())) == 3
