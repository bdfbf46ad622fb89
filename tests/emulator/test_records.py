"""Single records and collections: status codes, field rules, order, all or none."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from .conftest import Org

_numbers = itertools.count()


def code() -> str:
    return f"code-{next(_numbers)}"


def refusal(reply: Any) -> tuple[int, str, str, list[str]]:
    first = reply.json()[0]
    return reply.status_code, first["errorCode"], first["message"], first.get("fields", [])


def test_create_read_update_delete(org: Org) -> None:
    reply = org.post("/sobjects/Account/", {"name": "Acme", "NumberOfEmployees": "10"})
    assert reply.status_code == 201
    rid = reply.json()["id"]
    assert reply.headers["Location"] == f"/services/data/v62.0/sobjects/Account/{rid}"
    assert reply.json() == {"id": rid, "success": True, "errors": []}
    record = org.read("Account", rid[:15])
    assert (record["Id"], record["Name"], record["NumberOfEmployees"]) == (rid, "Acme", 10)
    assert record["attributes"] == {"type": "Account", "url": f"/services/data/v62.0/sobjects/Account/{rid}"}
    changed = org.patch(f"/sobjects/Account/{rid}", {"Name": "Acme 2", "Phone": None})
    assert (changed.status_code, changed.content) == (204, b"")
    assert "Content-Type" not in changed.headers
    assert org.get(f"/sobjects/Account/{rid}", params={"fields": "Name"}).json()["Name"] == "Acme 2"
    assert org.delete(f"/sobjects/Account/{rid}").status_code == 204
    assert refusal(org.delete(f"/sobjects/Account/{rid}"))[:2] == (404, "ENTITY_IS_DELETED")
    assert refusal(org.get(f"/sobjects/Account/{rid}"))[:2] == (404, "NOT_FOUND")
    assert org.query(f"SELECT Id FROM Account WHERE Id = '{rid}'") == []
    assert org.query(f"SELECT Id, IsDeleted FROM Account WHERE Id = '{rid}'", "queryAll")[0]["IsDeleted"] is True


def test_system_fields_are_set_by_the_org(org: Org) -> None:
    record = org.read("Customer__c", org.create("Customer__c", {"Name": "x"}))
    assert record["CreatedDate"] == record["LastModifiedDate"] == record["SystemModstamp"]
    assert record["CreatedDate"].endswith(".000+0000")
    assert record["CreatedById"] == record["OwnerId"] == record["LastModifiedById"]
    assert record["IsDeleted"] is False
    assert (record["Active__c"], record["Source__c"], record["Twice__c"]) == (True, "dbt", None)


def test_a_custom_object_without_a_name_is_named_by_its_id(org: Org) -> None:
    rid = org.create("Customer__c", {})
    assert org.read("Customer__c", rid)["Name"] == rid


@pytest.mark.parametrize(
    ("name", "record", "expected"),
    [
        ("Account", {}, ("REQUIRED_FIELD_MISSING", "Required fields are missing: [Name]", ["Name"])),
        (
            "Lead",
            {},
            ("REQUIRED_FIELD_MISSING", "Required fields are missing: [LastName, Company]", ["LastName", "Company"]),
        ),
        (
            "Account",
            {"Name": "a", "BillingCity": "x" * 41},
            ("STRING_TOO_LONG", f"Billing City: data value too large: {'x' * 41} (max length=40)", ["BillingCity"]),
        ),
        (
            "Customer__c",
            {"Tier__c": "Gold tier"},
            (
                "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST",
                "Tier: bad value for restricted picklist field: Gold tier",
                ["Tier__c"],
            ),
        ),
        (
            "Customer__c",
            {"Tags__c": "Gold;Old"},
            (
                "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST",
                "Tags: bad value for restricted picklist field: Gold;Old",
                ["Tags__c"],
            ),
        ),
        (
            "Customer__c",
            {"Email__c": "XX"},
            ("INVALID_EMAIL_ADDRESS", "Email: invalid email address: XX", ["Email__c"]),
        ),
        (
            "Customer__c",
            {"Share__c": 1000},
            (
                "NUMBER_OUTSIDE_VALID_RANGE",
                "Share: value outside of valid range on numeric field: 1000.0",
                ["Share__c"],
            ),
        ),
        (
            "Account",
            {"Name": "a", "NumberOfEmployees": 250.0},
            (
                "INVALID_TYPE_ON_FIELD_IN_RECORD",
                "Employees: value not of required type: 250.0",
                ["NumberOfEmployees"],
            ),
        ),
        (
            "Customer__c",
            {"Account__c": "001000000000000"},
            ("INVALID_CROSS_REFERENCE_KEY", "invalid cross reference id", []),
        ),
        (
            "Customer__c",
            {"Account__c": "nonsense"},
            ("MALFORMED_ID", "Account: id value of incorrect type: nonsense", ["Account__c"]),
        ),
        (
            "Customer__c",
            {"Twice__c": 1, "CreatedDate": "2020-01-01T00:00:00Z"},
            (
                "INVALID_FIELD_FOR_INSERT_UPDATE",
                "Unable to create/update fields: Twice__c, CreatedDate. Please check the security settings of this "
                "field and verify that it is read/write for your profile or permission set.",
                ["Twice__c", "CreatedDate"],
            ),
        ),
        (
            "Customer__c",
            {"Account__r": {"Code__c": "nowhere"}},
            ("INVALID_FIELD", "Foreign key external ID: nowhere not found for field Code__c in entity Account", []),
        ),
        (
            "Customer__c",
            {"Nope__c": 1},
            ("INVALID_FIELD", "No such column 'Nope__c' on sobject of type Customer__c", []),
        ),
    ],
)
def test_a_broken_rule_is_refused_in_salesforce_words(
    org: Org, name: str, record: dict[str, Any], expected: tuple[str, str, list[str]]
) -> None:
    assert refusal(org.post(f"/sobjects/{name}", record)) == (400, *expected)


@pytest.mark.parametrize("value", ["2017-10-17 00:00:00", "2017-10-17", "x", "2017-13-17T00:00:00Z"])
def test_a_malformed_datetime_refuses_the_whole_request(org: Org, value: str) -> None:
    status, error, message, _ = refusal(org.post("/sobjects/Customer__c", {"Moment__c": value}))
    assert (status, error) == (400, "JSON_PARSER_ERROR")
    assert message.startswith(f"Cannot deserialize instance of datetime from VALUE_STRING value {value} ")


def test_an_id_with_a_wrong_checksum_is_malformed(org: Org) -> None:
    rid = org.create("Account", {"Name": "a"})
    wrong = rid[:15] + ("AAA" if rid[15:] != "AAA" else "BBB")
    assert refusal(org.post("/sobjects/Customer__c", {"Account__c": wrong}))[1] == "MALFORMED_ID"


def test_unique_values_clash_without_regard_to_case_unless_case_sensitive(org: Org) -> None:
    key = code()
    holder = org.create("Customer__c", {"Code__c": key, "Ref__c": key})
    clash = refusal(org.post("/sobjects/Customer__c", {"Code__c": key.upper()}))
    message = f"duplicate value found: Code__c duplicates value on record with id: {holder}"
    assert clash == (400, "DUPLICATE_VALUE", message, [])
    org.create("Customer__c", {"Ref__c": key.upper()})
    assert refusal(org.post("/sobjects/Customer__c", {"Ref__c": key}))[1] == "DUPLICATE_VALUE"
    other = org.create("Customer__c", {"Code__c": code()})
    assert refusal(org.patch(f"/sobjects/Customer__c/{other}", {"Code__c": key}))[1] == "DUPLICATE_VALUE"
    assert org.patch(f"/sobjects/Customer__c/{holder}", {"Code__c": key}).status_code == 204


def test_blanks_are_not_unique(org: Org) -> None:
    for value in (None, "", "  "):
        org.create("Customer__c", {"Code__c": value})


def test_upsert_creates_with_201_and_updates_with_200(org: Org) -> None:
    key = code()
    path = f"/sobjects/Customer__c/Code__c/{key}"
    made = org.patch(path, {"Name": "a"})
    assert (made.status_code, made.json()["created"]) == (201, True)
    again = org.patch(path.upper().replace("/SOBJECTS", "/sobjects"), {"Name": "b"})
    assert (again.status_code, again.json()) == (200, {**made.json(), "created": False})
    assert org.get(path).json()["Name"] == "b"
    old = org.http.patch(f"{org.url}/services/data/v45.0{path}", json={"Name": "c"})
    assert (old.status_code, old.content) == (204, b"")
    assert org.patch(f"/sobjects/Customer__c/Code__c/{code()}?updateOnly=true", {"Name": "a"}).status_code == 404
    assert org.delete(path).status_code == 204
    assert org.get(path).status_code == 404


def test_an_external_id_of_several_records_is_300(org: Org) -> None:
    key = code()
    both = [org.create("Customer__c", {"Loose__c": key}) for _ in range(2)]
    reply = org.patch(f"/sobjects/Customer__c/Loose__c/{key}", {"Name": "a"})
    assert reply.status_code == 300
    assert reply.json() == [f"/services/data/v62.0/sobjects/Customer__c/{rid}" for rid in both]


def test_a_loose_external_id_matches_by_case(org: Org) -> None:
    key = code()
    org.create("Customer__c", {"Loose__c": key})
    assert org.patch(f"/sobjects/Customer__c/Loose__c/{key.upper()}", {}).status_code == 201
    found = org.query(f"SELECT Loose__c FROM Customer__c WHERE Loose__c = '{key}'")
    assert {r["Loose__c"] for r in found} == {key, key.upper()}


def test_slashes_and_spaces_in_an_external_id_are_values(org: Org) -> None:
    reply = org.patch("/sobjects/Customer__c/Code__c/a%2Fb%20c%3F%23%C3%A9", {"Name": "x"})
    assert reply.status_code == 201
    assert org.read("Customer__c", reply.json()["id"])["Code__c"] == "a/b c?#é"


def test_a_numeric_external_id_matches_by_value(org: Org) -> None:
    made = org.patch("/sobjects/Customer__c/Number_Key__c/912260031", {})
    assert made.status_code == 201
    assert org.patch("/sobjects/Customer__c/Number_Key__c/9.12260031E8", {}).json()["created"] is False


def test_an_unknown_external_id_field_is_not_found(org: Org) -> None:
    assert refusal(org.patch("/sobjects/Customer__c/Nope__c/1", {}))[:2] == (404, "NOT_FOUND")


def test_a_parent_is_set_by_id_or_by_external_id_and_cleared_by_null(org: Org) -> None:
    key = code()
    parent = org.create("Account", {"Name": "p", "Code__c": key})
    rid = org.create("Customer__c", {"Account__r": {"Code__c": key}})
    assert org.read("Customer__c", rid)["Account__c"] == parent
    org.patch(f"/sobjects/Customer__c/{rid}", {"Account__c": None})
    assert org.read("Customer__c", rid)["Account__c"] is None
    org.patch(f"/sobjects/Customer__c/{rid}", {"Account__c": parent[:15]})
    assert org.read("Customer__c", rid)["Account__c"] == parent


def test_a_lookup_may_come_by_id_in_one_row_and_by_external_id_in_another(org: Org) -> None:
    key = code()
    parent = org.create("Account", {"Name": "p", "Code__c": key})
    kind = {"attributes": {"type": "Customer__c"}}
    records = [{**kind, "Account__c": parent}, {**kind, "Account__r": {"Code__c": key}}, kind]
    ids = [item["id"] for item in org.post("/composite/sobjects", {"records": records}).json()]
    assert [org.read("Customer__c", rid)["Account__c"] for rid in ids] == [parent, parent, None]


def test_a_parents_id_is_a_relationship_column_too(org: Org) -> None:
    parent = org.create("Account", {"Name": "p"})
    info, job = org.bulk("insert", "Customer__c", f"Account__r.Id\n{parent}\n{parent[:15]}\nx\n")
    assert (info["numberRecordsProcessed"], info["numberRecordsFailed"]) == (3, 1)
    assert "MALFORMED_ID:Account: id value of incorrect type: x:Account__c --" in org.results(job, "failedResults")
    customers = f"SELECT Id FROM Customer__c WHERE Account__c = '{parent}'"
    assert len(org.query(customers)) == 2


def test_a_lookup_to_nothing_is_no_missing_record(org: Org) -> None:
    gone = org.create("Account", {"Name": "gone"})
    assert org.delete(f"/sobjects/Account/{gone}").status_code == 204
    lost, deleted = "001000000000000AAA", ("ENTITY_IS_DELETED", "entity is deleted", [])
    crossed = ("INVALID_CROSS_REFERENCE_KEY", "invalid cross reference id", [])
    path = f"/sobjects/Customer__c/Code__c/{code()}"
    assert refusal(org.patch(path, {"Account__c": lost})) == (400, *crossed)
    assert refusal(org.patch(path, {"Account__c": gone})) == (400, *deleted)
    rid = org.create("Customer__c", {})
    assert refusal(org.patch(f"/sobjects/Customer__c/{rid}", {"Account__c": gone})) == (400, *deleted)
    assert refusal(org.patch(f"/sobjects/Account/{gone}", {"Name": "x" * 300})) == (404, *deleted)


def test_deleting_a_master_deletes_details_and_clears_lookups(org: Org) -> None:
    account = org.create("Account", {"Name": "p"})
    customer = org.create("Customer__c", {"Account__c": account})
    line = org.create("Line__c", {"Customer__c": customer, "Key__c": "k"})
    assert org.delete(f"/sobjects/Account/{account}").status_code == 204
    assert org.read("Customer__c", customer)["Account__c"] is None
    assert org.delete(f"/sobjects/Customer__c/{customer}").status_code == 204
    assert org.get(f"/sobjects/Line__c/{line}").status_code == 404
    assert refusal(org.post("/sobjects/Line__c", {"Customer__c": customer, "Key__c": "k"}))[1] == "ENTITY_IS_DELETED"


def test_an_owner_can_be_given_but_not_cleared(org: Org) -> None:
    blank = ("INVALID_CROSS_REFERENCE_KEY", "Owner ID: owner cannot be blank", ["OwnerId"])
    assert refusal(org.post("/sobjects/Customer__c", {"OwnerId": None})) == (400, *blank)
    rid = org.create("Customer__c", {"OwnerId": org.query("SELECT Id FROM User")[0]["Id"]})
    assert refusal(org.patch(f"/sobjects/Customer__c/{rid}", {"OwnerId": ""})) == (400, *blank)


def test_auto_numbers_count(org: Org) -> None:
    customer = org.create("Customer__c", {})
    names = [org.read("Line__c", org.create("Line__c", {"Customer__c": customer, "Key__c": "k"}))["Name"]
             for _ in range(2)]  # fmt: skip
    first, second = (int(n.removeprefix("L-")) for n in names)
    assert second == first + 1 and len(names[0]) == 6


def test_collections_answer_in_order_and_save_what_they_can(org: Org) -> None:
    records = [
        {"attributes": {"type": "Account"}, "Name": "one"},
        {"attributes": {"type": "Account"}},
        {"attributes": {"type": "Customer__c"}, "Name": "three"},
    ]
    items = org.post("/composite/sobjects", {"allOrNone": False, "records": records}).json()
    assert [i["success"] for i in items] == [True, False, True]
    assert items[1] == {
        "success": False,
        "errors": [{"statusCode": "REQUIRED_FIELD_MISSING", "message": "Required fields are missing: [Name]",
                    "fields": ["Name"]}],
    }  # fmt: skip
    changes = [
        {"attributes": {"type": "Account"}, "id": items[0]["id"], "Name": "uno"},
        {"attributes": {"type": "Account"}, "Id": items[2]["id"], "Name": "x"},
    ]
    updated = org.patch("/composite/sobjects", {"records": changes}).json()
    assert updated[0] == {"id": items[0]["id"], "success": True, "errors": []}
    assert updated[1]["errors"][0]["statusCode"] == "MALFORMED_ID"
    assert updated[1]["errors"][0]["fields"] == ["Id"]
    found = org.post("/composite/sobjects/Account", {"ids": [items[2]["id"], items[0]["id"]], "fields": ["Name"]})
    assert [r and r["Name"] for r in found.json()] == [None, "uno"]
    gone = org.delete("/composite/sobjects", params={"ids": f"{items[0]['id']},bad,{items[2]['id']}"}).json()
    assert [g["success"] for g in gone] == [True, False, True]


def test_all_or_none_rolls_the_others_back(org: Org) -> None:
    name = code()
    records = [{"attributes": {"type": "Account"}, "Name": name}, {"attributes": {"type": "Account"}}]
    items = org.post("/composite/sobjects", {"allOrNone": True, "records": records}).json()
    assert [i["errors"][0]["statusCode"] for i in items] == [
        "ALL_OR_NONE_OPERATION_ROLLED_BACK", "REQUIRED_FIELD_MISSING",
    ]  # fmt: skip
    assert org.query(f"SELECT Id FROM Account WHERE Name = '{name}'") == []


def test_collection_upsert_refuses_every_copy_of_a_duplicate(org: Org) -> None:
    one, two = code(), code()
    records = [
        {"attributes": {"type": "Customer__c"}, "Code__c": k, "Name": "n"} for k in (one, two, one.upper(), None)
    ]
    items = org.patch("/composite/sobjects/Customer__c/Code__c", {"records": records}).json()
    assert [i["success"] for i in items] == [False, True, False, False]
    assert items[0]["errors"][0] == {
        "statusCode": "DUPLICATE_VALUE", "message": f"Duplicate external id specified: {one}", "fields": ["Code__c"],
    }  # fmt: skip
    assert (items[1]["created"], items[0]["created"]) == (True, True)
    assert items[3]["errors"][0]["statusCode"] == "MISSING_ARGUMENT"
    again = org.patch("/composite/sobjects/Customer__c/Code__c", {"records": [records[1]]}).json()
    assert again == [{"id": items[1]["id"], "success": True, "errors": [], "created": False}]


def test_collection_upsert_by_id_creates_where_the_id_is_null(org: Org) -> None:
    records = [{"attributes": {"type": "Account"}, "Id": None, "Name": "new"}]
    items = org.patch("/composite/sobjects/Account/Id", {"records": records}).json()
    assert items[0]["created"] is True


def test_a_unique_value_twice_in_one_request_goes_to_the_first(org: Org) -> None:
    key = code()
    records = [{"attributes": {"type": "Customer__c"}, "Code__c": key} for _ in range(2)]
    items = org.post("/composite/sobjects", {"records": records}).json()
    assert [i["success"] for i in items] == [True, False]
    assert items[1]["errors"][0]["message"].endswith(f"record with id: {items[0]['id']}")


def test_an_unknown_field_refuses_its_record_alone(org: Org) -> None:
    kind = {"attributes": {"type": "Contact"}}
    records = [{**kind, "LastName": "good"}, {**kind, "LastName": "bad", "Nope__c": 1, "Email": "x"}]
    good, bad = org.post("/composite/sobjects", {"records": records}).json()
    message = "No such column 'Nope__c' on sobject of type Contact"
    assert (good["success"], bad["errors"][0]) == (
        True, {"statusCode": "INVALID_FIELD", "message": message, "fields": []}
    )  # fmt: skip


def test_a_collection_has_a_record(org: Org) -> None:
    reply = org.post("/composite/sobjects", {"records": []})
    error = {"message": "At least 1 record is required", "errorCode": "REQUIRED_FIELD_MISSING"}
    assert (reply.status_code, reply.json()) == (400, [error])


def test_more_than_200_records_are_refused(org: Org) -> None:
    records = [{"attributes": {"type": "Account"}, "Name": "x"}] * 201
    assert refusal(org.post("/composite/sobjects", {"records": records}))[:2] == (400, "EXCEEDED_ID_LIMIT")


def test_bodies_may_be_chunked_and_gzipped(org: Org) -> None:
    import gzip

    headers = {"Content-Type": "application/json"}
    reply = org.http.post(f"{org.base}/sobjects/Account", data=iter([b'{"Na', b'me":"c"}']), headers=headers)
    assert reply.status_code == 201
    packed = gzip.compress(b'{"Name":"g"}')
    reply = org.http.post(f"{org.base}/sobjects/Account", data=packed, headers={**headers, "Content-Encoding": "gzip"})
    assert reply.status_code == 201


def test_a_broken_body_is_a_parser_error(org: Org) -> None:
    headers = {"Content-Type": "application/json"}
    reply = org.http.post(f"{org.base}/sobjects/Account", data="{", headers=headers)
    assert refusal(reply)[:2] == (400, "JSON_PARSER_ERROR")
    path = f"{org.base}/sobjects/Account"
    assert refusal(org.http.post(path, data="x", headers={"Content-Type": "text/plain"}))[:2] == (
        415, "UNSUPPORTED_MEDIA_TYPE",
    )  # fmt: skip
    assert refusal(org.http.post(path, data="<x/>", headers={"Content-Type": "text/xml"}))[:2] == (501, "NOT_EMULATED")
    assert refusal(org.http.post(path, data="", headers=headers))[1:3] == (
        "JSON_PARSER_ERROR", "The HTTP entity body is required, but this request has no entity body.",
    )  # fmt: skip
    assert refusal(org.http.post(path, data="[]", headers=headers))[2] == (
        "Can not deserialize SObject out of START_ARRAY token at [line:1, column:1]"
    )


def test_users_and_organizations_are_read_only(org: Org) -> None:
    user = org.query("SELECT Id, Name FROM User")[0]
    assert user["Name"] == "Emulator Admin"
    assert refusal(org.delete(f"/sobjects/User/{user['Id']}"))[1] == "INSUFFICIENT_ACCESS_OR_READONLY"
    organization = org.query("SELECT Id, Name, IsSandbox, OrganizationType FROM Organization")
    assert [o["Id"] for o in organization] == [org.line["organization_id"]]


def test_record_counts_are_of_living_records(org: Org) -> None:
    before = org.get("/limits/recordCount?sObjects=Contact").json()["sObjects"][0]["count"]
    rid = org.create("Contact", {"LastName": "x"})
    assert org.get("/limits/recordCount?sObjects=Contact").json() == {
        "sObjects": [{"count": before + 1, "name": "Contact"}]
    }
    org.delete(f"/sobjects/Contact/{rid}")
    assert org.get("/limits/recordCount?sObjects=contact").json()["sObjects"][0]["count"] == before


def test_a_default_formula_is_computed_or_refused_by_name(org: Org) -> None:
    record = org.read("Defaulted__c", org.create("Defaulted__c", {"By__c": "me"}))
    assert record["Since__c"] == record["CreatedDate"][:10]
    status, error, message, fields = refusal(org.post("/sobjects/Defaulted__c", {}))
    assert (status, error, fields) == (400, "NOT_EMULATED", ["By__c"])
    assert "$User.Alias" in message


def test_what_is_in_the_path_may_not_be_in_the_body(org: Org) -> None:
    """Codes and text: REST API Developer Guide, Create a Record."""
    rid = org.create("Customer__c", {"Code__c": "body-1"})
    refused = {
        "Id": [
            org.post("/sobjects/Customer__c", {"id": rid, "Name": "x"}),
            org.patch(f"/sobjects/Customer__c/{rid}", {"Id": rid, "Name": "x"}),
            org.patch("/sobjects/Customer__c/Code__c/body-1", {"Id": rid, "Name": "x"}),
        ],
        "Code__c": [org.patch("/sobjects/Customer__c/Code__c/body-1", {"code__c": "body-1", "Name": "x"})],
    }
    for name, replies in refused.items():
        for reply in replies:
            message = f"The {name} field should not be specified in the sobject data."
            assert (reply.status_code, reply.json()) == (400, [{"message": message, "errorCode": "INVALID_FIELD"}])
    assert org.read("Customer__c", rid)["Name"] == rid
