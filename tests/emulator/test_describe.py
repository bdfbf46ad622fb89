"""Describe: the keys clients read, in the values of recorded describes."""

from __future__ import annotations

from typing import Any

import pytest

from .conftest import Org

FIELD_KEYS = 57


@pytest.fixture(scope="module")
def fields(org: Org) -> dict[str, dict[str, Any]]:
    return {f["name"]: f for f in org.get("/sobjects/customer__C/describe").json()["fields"]}


def test_global_describe_has_28_keys_an_object(org: Org) -> None:
    listed = org.get("/sobjects/").json()["sobjects"]
    names = {o["name"] for o in listed}
    built_in = {"Account", "Contact", "Lead", "Opportunity", "Case", "User", "Organization", "RecordType"}
    assert built_in | {"Customer__c", "Line__c", "Defaulted__c"} == names
    assert {len(o) for o in listed} == {28}
    assert {o["name"]: o["keyPrefix"] for o in listed}["Account"] == "001"


def test_every_field_has_57_keys(org: Org) -> None:
    for name in ("Account", "Customer__c", "User"):
        assert {len(f) for f in org.get(f"/sobjects/{name}/describe").json()["fields"]} == {FIELD_KEYS}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Id", {"type": "id", "soapType": "tns:ID", "length": 18, "createable": False, "idLookup": True}),
        ("Name", {"type": "string", "nameField": True, "length": 80, "byteLength": 240}),
        ("Code__c", {"externalId": True, "unique": True, "caseSensitive": False, "idLookup": True}),
        ("Ref__c", {"unique": True, "caseSensitive": True}),
        ("Note__c", {"type": "textarea", "length": 32768, "filterable": False, "extraTypeInfo": "plaintextarea"}),
        ("Email__c", {"type": "email", "length": 80, "byteLength": 240}),
        ("Site__c", {"type": "url", "length": 255}),
        ("Phone__c", {"type": "phone", "length": 40}),
        ("Tier__c", {"type": "picklist", "restrictedPicklist": True, "length": 255}),
        ("Tags__c", {"type": "multipicklist", "length": 4099, "byteLength": 4099, "precision": 4, "sortable": False}),
        ("Active__c", {"type": "boolean", "nillable": False, "defaultedOnCreate": True, "defaultValue": True}),
        ("Amount__c", {"type": "double", "precision": 18, "scale": 2, "soapType": "xsd:double", "digits": 0}),
        ("Price__c", {"type": "currency", "precision": 16, "scale": 2}),
        ("Share__c", {"type": "percent", "precision": 5, "scale": 2}),
        ("Day__c", {"type": "date", "soapType": "xsd:date"}),
        ("Moment__c", {"type": "datetime", "soapType": "xsd:dateTime", "groupable": False}),
        ("Opens__c", {"type": "time", "soapType": "xsd:time"}),
        ("Twice__c", {"calculated": True, "createable": False, "updateable": False}),
        ("Account__c", {"type": "reference", "referenceTo": ["Account"], "relationshipName": "Account__r"}),
        ("OwnerId", {"nillable": False, "defaultedOnCreate": True, "relationshipName": "Owner"}),
        ("CreatedDate", {"createable": False, "updateable": False, "nillable": False}),
    ],
)
def test_a_field_is_described_by_its_type(
    fields: dict[str, dict[str, Any]], name: str, expected: dict[str, Any]
) -> None:
    assert {k: fields[name][k] for k in expected} == expected


def test_picklist_values_carry_api_name_label_and_activity(fields: dict[str, dict[str, Any]]) -> None:
    values = fields["Tier__c"]["picklistValues"]
    assert [(v["value"], v["label"], v["active"]) for v in values] == [
        ("Gold", "Gold tier", True), ("Silver", "Silver tier", True), ("Old", "Old", False),
    ]  # fmt: skip


def test_a_detail_has_a_required_parent_and_no_owner(org: Org) -> None:
    fields = {f["name"]: f for f in org.get("/sobjects/Line__c/describe").json()["fields"]}
    assert "OwnerId" not in fields
    assert fields["Customer__c"]["cascadeDelete"] is True
    assert (fields["Customer__c"]["nillable"], fields["Customer__c"]["updateable"]) == (False, False)
    assert (fields["Name"]["autoNumber"], fields["Name"]["createable"]) == (True, False)
    children = org.get("/sobjects/Customer__c/describe").json()["childRelationships"]
    assert [c["relationshipName"] for c in children] == ["Lines__r"]


def test_lead_name_is_not_nillable_and_not_createable(org: Org) -> None:
    fields = {f["name"]: f for f in org.get("/sobjects/Lead/describe").json()["fields"]}
    assert (fields["Name"]["nillable"], fields["Name"]["createable"]) == (False, False)
    assert fields["OwnerId"]["referenceTo"] == ["Group", "User"]


def test_an_unknown_object_is_not_found(org: Org) -> None:
    reply = org.get("/sobjects/Nothing__c/describe")
    assert reply.status_code == 404
    assert reply.json() == [{"message": "The requested resource does not exist", "errorCode": "NOT_FOUND"}]
