"""Which of Salesforce's codes may pass later, which stop the run, and that hints name fields and never values."""

import pytest

from dinmo_dbt.salesforce.errors import ErrorClass, classify, hint


@pytest.mark.parametrize(
    ("code", "message", "expected"),
    [
        ("UNABLE_TO_LOCK_ROW", "", ErrorClass.TRANSIENT),
        ("SERVER_UNAVAILABLE", "", ErrorClass.TRANSIENT),
        ("UNPROCESSED", "", ErrorClass.TRANSIENT),
        ("INSERT_UPDATE_DELETE_NOT_ALLOWED_DURING_MAINTENANCE", "", ErrorClass.TRANSIENT),
        (
            "CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY",
            "Too many retries of batch save in the presence of Apex triggers with failures",
            ErrorClass.TRANSIENT,
        ),
        ("CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY", "T: execution of BeforeInsert", ErrorClass.PERMANENT),
        ("REQUIRED_FIELD_MISSING", "", ErrorClass.PERMANENT),
        ("SOMETHING_NEW", "", ErrorClass.PERMANENT),
        ("STORAGE_LIMIT_EXCEEDED", "", ErrorClass.STOP),
        ("REQUEST_LIMIT_EXCEEDED", "", ErrorClass.STOP),
    ],
)
def test_codes_have_a_class(code, message, expected):
    assert classify(code, message) is expected


def test_hints_name_the_fields_or_say_the_field():
    assert "Name,Stage__c" in hint("REQUIRED_FIELD_MISSING", "Name,Stage__c")
    assert "the field" in hint("REQUIRED_FIELD_MISSING")
    assert hint("SOMETHING_NEW", "Name") == ""
    assert hint("STRING_TOO_LONG", "{curly}").count("{curly}") == 1
