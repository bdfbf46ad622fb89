"""What a user may not do to an object or a record is refused alike at every door."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from .mounted import Mounted

Mount = Callable[..., Mounted]
TREE = {
    "objects": {
        "Boss__c": {},
        "Detail__c": {"fields": {"Boss__c": {"type": "MasterDetail", "to": "Boss__c", "relationship_name": "Details"}}},
        "Holder__c": {
            "fields": {
                "Detail__c": {
                    "type": "Lookup", "to": "Detail__c", "relationship_name": "Holders", "on_delete": "restrict"
                }
            }
        },
    }
}  # fmt: skip


def codes(errors: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(e.get("errorCode") or e["statusCode"], e["message"]) for e in errors]


@pytest.mark.parametrize(("door", "access", "what"), [("create", "create", "inserted"), ("update", "edit", "updated")])
def test_an_object_closed_to_its_user_is_refused_at_every_door(mount: Mount, door: str, access: str, what: str) -> None:
    org = mount()
    rid = org.create("Customer__c", {"Code__c": "old"})
    org.app.change_schema({"objects": {"Customer__c": {"access": {access: False}}}})
    refused = [("CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY", f"entity type cannot be {what}: Customer")]
    record = {"attributes": {"type": "Customer__c"}, "Name": "x"}
    if door == "create":
        single = org.api("POST", "/sobjects/Customer__c", {"Name": "x"})
        upsert = org.api("PATCH", "/sobjects/Customer__c/Code__c/new", {"Name": "x"})
        many = org.api("POST", "/composite/sobjects", {"records": [record]})
        job = org.job("Customer__c", "Name\nx\n")
    else:
        single = org.api("PATCH", f"/sobjects/Customer__c/{rid}", {"Name": "x"})
        upsert = org.api("PATCH", "/sobjects/Customer__c/Code__c/old", {"Name": "x"})
        many = org.api("PATCH", "/composite/sobjects", {"records": [{**record, "id": rid}]})
        job = org.job("Customer__c", f"Id,Name\n{rid},x\n", operation="update")
    assert [single.status_code, upsert.status_code, many.status_code] == [400, 400, 200]
    assert codes(single.json) == codes(upsert.json) == codes(many.json[0]["errors"]) == refused
    org.info(job)
    assert org.rows(job, "failedResults")[0]["sf__Error"] == ":".join([*refused[0], "--"])
    assert org.count("Customer__c") == 1
    assert org.get(f"/sobjects/Customer__c/{rid}")["Name"] == rid


def test_a_record_is_held_back_by_a_lookup_to_one_of_its_details(mount: Mount) -> None:
    org = mount()
    org.app.change_schema(TREE)
    boss, free = org.create("Boss__c", {}), org.create("Boss__c", {})
    details = [org.create("Detail__c", {"Boss__c": b}) for b in (boss, boss, free)]
    holder = org.create("Holder__c", {"Detail__c": details[0]})
    refused = org.api("DELETE", f"/composite/sobjects?ids={boss},{free}").json
    assert [item["success"] for item in refused] == [False, True]
    assert codes(refused[0]["errors"])[0][0] == "DELETE_FAILED"
    assert (org.count("Boss__c"), org.count("Detail__c")) == (1, 2)
    assert org.api("DELETE", f"/sobjects/Holder__c/{holder}").status_code == 204
    assert org.api("DELETE", f"/sobjects/Boss__c/{boss}").status_code == 204
    assert (org.count("Boss__c"), org.count("Detail__c")) == (0, 0)


def test_a_required_field_with_a_default_may_be_left_out_but_not_cleared(mount: Mount) -> None:
    org = mount()
    field = {"type": "Text", "length": 9, "required": True, "default": "dbt"}
    org.app.change_schema({"objects": {"Thing__c": {"fields": {"Source__c": field}}}})
    rid = org.create("Thing__c", {})
    assert org.get(f"/sobjects/Thing__c/{rid}")["Source__c"] == "dbt"
    for method, path in (("POST", "/sobjects/Thing__c"), ("PATCH", f"/sobjects/Thing__c/{rid}")):
        refused = org.api(method, path, {"Source__c": None})
        assert codes(refused.json) == [("REQUIRED_FIELD_MISSING", "Required fields are missing: [Source__c]")]


def test_an_auto_number_finds_records_and_is_not_given_to_one(mount: Mount) -> None:
    org = mount()
    key = {"type": "AutoNumber", "format": "A-{000}", "external_id": True}
    org.app.change_schema({"objects": {"Thing__c": {"fields": {"Key__c": key, "Plan__c": {"type": "Text"}}}}})
    rid = org.create("Thing__c", {})
    assert org.api("PATCH", "/sobjects/Thing__c/Key__c/a-001", {"Plan__c": "x"}).status_code in (400, 404)
    assert org.api("PATCH", "/sobjects/Thing__c/Key__c/A-001", {"Plan__c": "x"}).json["id"] == rid  # type: ignore[index]
    refused = org.api("PATCH", "/sobjects/Thing__c/Key__c/A-009", {"Plan__c": "x"})
    assert codes(refused.json)[0][0] == "INVALID_FIELD_FOR_INSERT_UPDATE"
    assert org.count("Thing__c") == 1
