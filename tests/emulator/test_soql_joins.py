"""SOQL across objects: semi-joins, subqueries, TYPEOF, parents, and what queryAll sees of the recycle bin."""

# ruff: noqa: E501 (Salesforce's messages are kept whole)

from __future__ import annotations

import pytest

from .conftest import Org


@pytest.fixture(scope="module", autouse=True)
def records(org: Org) -> None:
    acme = org.create("Account", {"Name": "Acme", "Code__c": "A", "Industry": "Energy"})
    beta = org.create("Account", {"Name": "Beta", "Code__c": "B", "ParentId": acme})
    org.create("Account", {"Name": "Empty", "Code__c": "E"})
    for number, account in enumerate([acme, acme, acme, beta]):
        contact = {"LastName": f"c{number}", "AccountId": account, "Email": f"c{number}@example.com"}
        org.create("Contact", {**contact, "Title": "Boss" if number == 1 else None})
    org.create("Contact", {"LastName": "alone"})
    gone = org.create("Contact", {"LastName": "gone", "AccountId": acme})
    assert org.delete(f"/sobjects/Contact/{gone}").status_code == 204
    customer = org.create("Customer__c", {"Name": "first", "Account__c": acme})
    org.create("Customer__c", {"Name": "second", "Account__c": beta})
    org.create("Customer__c", {"Name": "third"})
    for key in ("k1", "k2"):
        org.create("Line__c", {"Customer__c": customer, "Key__c": key})
    org.create("Lead", {"LastName": "lead", "Company": "c"})


@pytest.mark.parametrize(
    ("soql", "expected"),
    [
        ("SELECT Name FROM Account WHERE Id IN (SELECT AccountId FROM Contact)", {"Acme", "Beta"}),
        ("SELECT Name FROM Account WHERE Id IN (SELECT AccountId FROM Contact WHERE Title = 'boss')", {"Acme"}),
        ("SELECT Name FROM Account WHERE Id NOT IN (SELECT AccountId FROM Contact)", {"Empty"}),
        ("SELECT Name FROM Account WHERE (Id NOT IN (SELECT AccountId FROM Contact))", {"Empty"}),
        ("SELECT Name FROM Customer__c WHERE Account__c IN (SELECT Id FROM Account WHERE Industry = 'Energy')", {"first"}),
        ("SELECT Name FROM Customer__c WHERE Account__c IN (SELECT AccountId FROM Contact WHERE Email LIKE 'C3%')", {"second"}),
        ("SELECT Name FROM Customer__c WHERE Account__c NOT IN (SELECT Id FROM Account WHERE Name = 'Acme')", {"second", "third"}),
        ("SELECT Name FROM Customer__c WHERE Id IN (SELECT Customer__c FROM Line__c WHERE Key__c = 'K1')", {"first"}),
        ("SELECT Name FROM Account WHERE Id IN (SELECT AccountId FROM Contact) AND Id NOT IN (SELECT Account__c FROM Customer__c WHERE Name = 'first') AND Name != 'x'", {"Beta"}),
        ("SELECT Name FROM Account a WHERE a.Id IN (SELECT c.AccountId FROM Contact c WHERE c.Account.Name = 'beta')", {"Beta"}),
    ],
)  # fmt: skip
def test_semi_and_anti_joins(org: Org, soql: str, expected: set[str]) -> None:
    assert {r["Name"] for r in org.query(soql)} == expected


@pytest.mark.parametrize(
    ("soql", "message"),
    [
        ("SELECT Id FROM Account WHERE Name = 'x' OR Id IN (SELECT AccountId FROM Contact)", "Semi join sub-selects are not allowed with the 'OR' operator"),
        ("SELECT Id FROM Account WHERE NOT Id IN (SELECT AccountId FROM Contact)", "not allowed with the 'NOT' operator"),
        ("SELECT Id FROM Account WHERE Name = 'x' AND (Name = 'y' AND Id IN (SELECT AccountId FROM Contact))", "only allowed at the top level WHERE expressions"),
        ("SELECT Id FROM Account WHERE Id IN (SELECT ParentId FROM Account)", "The inner and outer selects should not be on the same object type"),
        ("SELECT Id FROM Customer__c WHERE Account__c IN (SELECT Id FROM Contact)", "The selected field 'Id' in the subquery and the left operand field in the where expression in the outer query 'Account__c' should point to the same object type"),
        ("SELECT Id FROM Account WHERE Name IN (SELECT AccountId FROM Contact)", "The left operand of a semi join must be"),
        ("SELECT Id FROM Account WHERE Parent.Id IN (SELECT AccountId FROM Contact)", "The left operand of a semi join must be"),
        ("SELECT Id FROM Account WHERE Id IN (SELECT LastName FROM Contact)", "The selected field of the sub-select of a semi join must be"),
        ("SELECT Id FROM Account WHERE Id IN (SELECT AccountId, Id FROM Contact)", "must select exactly one field"),
        ("SELECT Id FROM Account WHERE Id IN (SELECT COUNT(AccountId) FROM Contact)", "must select exactly one field"),
        ("SELECT Id FROM Account WHERE Id IN (SELECT AccountId FROM Contact ORDER BY Name)", "ORDER BY is not supported in semi join"),
        ("SELECT Id FROM Account WHERE Id IN (SELECT AccountId FROM Contact LIMIT 1)", "LIMIT is not supported in semi join"),
        ("SELECT Id FROM Account WHERE Id IN (SELECT AccountId FROM Contact WHERE Id IN (SELECT ContactId FROM Case))", "Nesting of semi join sub-selects is not supported"),
        ("SELECT Id FROM Account WHERE Id IN (SELECT AccountId FROM Contact) AND Id IN (SELECT AccountId FROM Case) AND Id IN (SELECT AccountId FROM Opportunity)", "Maximum 2 semi join sub-selects"),
        ("SELECT COUNT(Id) FROM Account GROUP BY ParentId HAVING ParentId IN (SELECT AccountId FROM Contact)", "Semi-joins are only supported in WHERE clauses"),
    ],
)  # fmt: skip
def test_semi_joins_that_salesforce_refuses(org: Org, soql: str, message: str) -> None:
    reply = org.get("/query", params={"q": soql})
    assert (reply.status_code, reply.json()[0]["errorCode"]) == (400, "MALFORMED_QUERY")
    assert message in reply.json()[0]["message"]


def test_subqueries_nest_complete_pages_and_null(org: Org) -> None:
    found = org.query(
        "SELECT Name, (SELECT Id, LastName, Account.Name FROM Contacts ORDER BY LastName DESC) FROM Account ORDER BY Name"
    )
    assert [list(r) for r in found] == [["attributes", "Name", "Contacts"]] * 3
    acme, beta, empty = (r["Contacts"] for r in found)
    assert (acme["totalSize"], acme["done"], [c["LastName"] for c in acme["records"]]) == (3, True, ["c2", "c1", "c0"])
    assert acme["records"][0]["attributes"]["url"].endswith(f"/sobjects/Contact/{acme['records'][0]['Id']}")
    assert acme["records"][0]["Account"]["Name"] == "Acme"
    assert ([c["LastName"] for c in beta["records"]], empty) == (["c3"], None)


def test_a_subquery_is_filtered_and_cut_for_each_parent(org: Org) -> None:
    def children(inner: str) -> list[list[str]]:
        found = org.query(f"SELECT Name, (SELECT LastName FROM Contacts {inner}) FROM Account ORDER BY Name")
        return [[c["LastName"] for c in (r["Contacts"] or {"records": []})["records"]] for r in found]

    assert children("ORDER BY LastName LIMIT 2") == [["c0", "c1"], ["c3"], []]
    assert children("ORDER BY LastName LIMIT 1 OFFSET 1") == [["c1"], [], []]
    assert children("WHERE Title = 'Boss' OR LastName IN ('c3')") == [["c1"], ["c3"], []]
    assert children("LIMIT 0") == [[], [], []]


def test_subqueries_have_the_names_of_describe_and_go_down_several_levels(org: Org) -> None:
    names = {c["relationshipName"] for c in org.get("/sobjects/Account/describe").json()["childRelationships"]}
    assert {"Contacts", "Customers__r"} <= names
    soql = "SELECT (SELECT Name, (SELECT Key__c FROM Lines__r ORDER BY Key__c DESC) FROM Customers__r), (SELECT Id FROM contacts) FROM Account WHERE Name = 'Acme'"
    (record,) = org.query(soql)
    (customer,) = record["Customers__r"]["records"]
    assert customer["Name"] == "first" and record["Contacts"]["totalSize"] == 3
    assert [line["Key__c"] for line in customer["Lines__r"]["records"]] == ["k2", "k1"]


def test_children_come_with_every_page(org: Org) -> None:
    items = [{"attributes": {"type": "Customer__c"}, "Name": f"page {i}"} for i in range(200)]
    for _ in range(2):
        org.post("/composite/sobjects", {"records": items})
    last = org.create("Customer__c", {"Name": "page z"})
    org.create("Line__c", {"Customer__c": last, "Key__c": "page"})
    soql = "SELECT (SELECT Key__c FROM Lines__r) FROM Customer__c WHERE Name LIKE 'page %' ORDER BY Name"
    options = {"Sforce-Query-Options": "batchSize=200"}
    page = org.get("/query", params={"q": soql}, headers=options).json()
    pages = [page]
    while not page["done"]:
        page = org.http.get(org.url + page["nextRecordsUrl"], headers=options).json()
        pages.append(page)
    assert [len(p["records"]) for p in pages] == [200, 200, 1]
    assert pages[-1]["records"][0]["Lines__r"]["records"][0]["Key__c"] == "page"


@pytest.mark.parametrize(
    ("soql", "code", "message"),
    [
        ("SELECT (SELECT Id FROM Nopes) FROM Account", "INVALID_TYPE", "Didn't understand relationship 'Nopes' in FROM part of query call. If you are attempting to use a custom relationship"),
        ("SELECT (SELECT Id FROM Contact) FROM Account", "INVALID_TYPE", "Didn't understand relationship 'Contact' in FROM part"),
        ("SELECT (SELECT COUNT(Id) FROM Contacts) FROM Account", "MALFORMED_QUERY", "aggregates can not be used in a subquery"),
        ("SELECT (SELECT Id FROM Contacts), (SELECT Name FROM Contacts) FROM Account", "MALFORMED_QUERY", "duplicate field selected: Contacts"),
        ("SELECT (SELECT Nope FROM Contacts) FROM Account", "INVALID_FIELD", "No such column 'Nope' on entity 'Contact'"),
        ("SELECT COUNT(Id), (SELECT Id FROM Contacts) FROM Account", "MALFORMED_QUERY", "can not be used in an aggregate query"),
        ("SELECT TYPEOF Owner WHEN Account THEN Name END FROM Lead", "INVALID_FIELD", "Owner can not refer to sObject type 'Account'"),
        ("SELECT TYPEOF Nope WHEN User THEN Name END FROM Lead", "INVALID_FIELD", "Didn't understand relationship 'Nope'"),
        ("SELECT TYPEOF Owner WHEN User THEN Nope END FROM Lead", "INVALID_FIELD", "No such column 'Nope' on entity 'User'"),
        ("SELECT TYPEOF Owner WHEN User THEN Manager.Name END FROM Lead", "MALFORMED_QUERY", "does not emulate a relationship inside TYPEOF"),
        ("SELECT Owner.Name, TYPEOF Owner WHEN User THEN Name END FROM Lead", "MALFORMED_QUERY", "duplicate field selected: Owner"),
        ("SELECT Owner.CompanyName FROM Lead", "INVALID_FIELD", "No such column 'CompanyName' on entity 'Name'"),
    ],
)  # fmt: skip
def test_mistakes_across_objects(org: Org, soql: str, code: str, message: str) -> None:
    reply = org.get("/query", params={"q": soql})
    assert (reply.status_code, reply.json()[0]["errorCode"]) == (400, code)
    assert message in reply.json()[0]["message"]


def test_typeof_answers_the_branch_of_the_parents_type(org: Org) -> None:
    (record,) = org.query("SELECT Id, TYPEOF Owner WHEN Group THEN Id WHEN User THEN Username, IsActive END FROM Lead")
    assert record["Owner"]["attributes"]["type"] == "User"
    assert set(record["Owner"]) == {"attributes", "Username", "IsActive"} and record["Owner"]["IsActive"] is True
    (record,) = org.query("SELECT TYPEOF Owner WHEN Group THEN Id ELSE Name END FROM Lead")
    assert set(record["Owner"]) == {"attributes", "Name"}
    (record,) = org.query("SELECT TYPEOF Owner WHEN Group THEN Id END FROM Lead")
    assert record["Owner"] is None
    found = org.query(
        "SELECT TYPEOF Account__r WHEN Account THEN Name, Industry END FROM Customer__c WHERE Name IN ('first', 'third') ORDER BY Name"
    )
    assert [r["Account__r"] and r["Account__r"]["Industry"] for r in found] == ["Energy", None]


def test_a_polymorphic_parent_is_a_name(org: Org) -> None:
    (record,) = org.query(
        "SELECT Owner.Type, Owner.Name FROM Lead WHERE Owner.Type = 'user' AND Owner.Name != 'x' ORDER BY Owner.Type"
    )
    assert record["Owner"]["attributes"]["type"] == "Name" and "/sobjects/User/" in record["Owner"]["attributes"]["url"]
    assert (record["Owner"]["Type"], record["Owner"]["Name"]) == ("User", "Emulator Admin")


def test_parents_filter_and_sort(org: Org) -> None:
    found = org.query(
        "SELECT LastName FROM Contact WHERE Account.Parent.Name = 'acme' OR Account.Name = 'ACME' ORDER BY Account.Name DESC, LastName"
    )
    assert [r["LastName"] for r in found] == ["c3", "c0", "c1", "c2"]


def test_query_all_sees_the_recycle_bin_at_every_level(org: Org) -> None:
    def names(call: str) -> list[str]:
        soql = "SELECT (SELECT LastName FROM Contacts ORDER BY LastName) FROM Account WHERE Name = 'Acme'"
        (record,) = org.query(soql, call)
        return [c["LastName"] for c in record["Contacts"]["records"]]

    assert names("query") == ["c0", "c1", "c2"] and names("queryAll") == ["c0", "c1", "c2", "gone"]
    soql = "SELECT Name FROM Account WHERE Id IN (SELECT AccountId FROM Contact WHERE LastName = 'gone')"
    assert (len(org.query(soql)), len(org.query(soql, "queryAll"))) == (0, 1)
    assert org.query("SELECT COUNT(Id) n FROM Contact WHERE LastName = 'gone'", "queryAll")[0]["n"] == 1
    customer = org.create("Customer__c", {"Name": "binned"})
    org.create("Line__c", {"Customer__c": customer, "Key__c": "binned"})
    assert org.delete(f"/sobjects/Customer__c/{customer}").status_code == 204
    soql = "SELECT Customer__r.Name FROM Line__c WHERE Key__c = 'binned'"
    assert org.query(soql) == []
    assert org.query(soql, "queryAll")[0]["Customer__r"]["Name"] == "binned"


@pytest.mark.parametrize(
    ("soql", "message"),
    [
        ("SELECT COUNT() FROM Account", "Aggregate functions and GROUP BY are not supported in Bulk Query"),
        ("SELECT COUNT(Id) FROM Account", "Aggregate functions and GROUP BY are not supported in Bulk Query"),
        ("SELECT Name FROM Account GROUP BY Name", "Aggregate functions and GROUP BY are not supported in Bulk Query"),
        ("SELECT Id FROM Account LIMIT 1 OFFSET 1", "OFFSET is not supported in Bulk Query"),
        ("SELECT Id, (SELECT Id FROM Contacts) FROM Account", "Aggregate Relationships not supported in Bulk V2 Query with CSV content type"),
        ("SELECT TYPEOF Owner WHEN User THEN Name END FROM Lead", "TYPEOF is not supported in Bulk Query"),
    ],
)  # fmt: skip
def test_what_bulk_does_not_query(org: Org, soql: str, message: str) -> None:
    reply = org.post("/jobs/query", {"operation": "query", "query": soql})
    assert (reply.status_code, reply.json()) == (400, [{"errorCode": "API_ERROR", "message": message}])


def test_bulk_queries_with_semi_joins_and_labels(org: Org) -> None:
    org.create("Customer__c", {"Name": "bulk", "Tier__c": "Gold"})
    soql = "SELECT Name, toLabel(Tier__c) FROM Customer__c WHERE Name = 'bulk' AND Id NOT IN (SELECT Customer__c FROM Line__c)"
    job = org.post("/jobs/query", {"operation": "query", "query": soql}).json()["id"]
    assert org.wait(job, "query")["state"] == "JobComplete"
    assert org.get(f"/jobs/query/{job}/results").text.splitlines() == ['"Name","Tier__c"', '"bulk","Gold tier"']


def test_columns_of_subqueries_and_parents(org: Org) -> None:
    soql = "SELECT Owner.Name, (SELECT LastName, Account.Name FROM Contacts) FROM Account"
    body = org.get("/query", params={"q": soql, "columns": "true"}).json()
    owner, contacts = body["columnMetadata"]
    assert (owner["aggregate"], owner["foreignKeyName"], owner["joinColumns"][0]["columnName"]) == (
        False,
        "OwnerId",
        "Name",
    )
    assert (contacts["columnName"], contacts["aggregate"], contacts["apexType"]) == ("Contacts", True, None)
    assert [c["columnName"] for c in contacts["joinColumns"]] == ["LastName", "Account"]
    body = org.get(
        "/query", params={"q": "SELECT TYPEOF Owner WHEN User THEN Name END FROM Lead", "columns": "true"}
    ).json()
    assert body["columnMetadata"][0]["joinColumns"][0]["columnName"] == "Name"
