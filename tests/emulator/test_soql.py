"""SOQL: what runs, what it means, how mistakes and what is not emulated are refused."""

# ruff: noqa: E501 (Salesforce's messages are kept whole)

from __future__ import annotations

import pytest

from .conftest import Org

NAMES = ["alpha", "Alpha", "beta", "it's", 'say "x"', "under_score", "50%", "back\\slash", "né"]


@pytest.fixture(scope="module", autouse=True)
def records(org: Org) -> None:
    parent = org.create("Account", {"Name": "Parent", "Industry": "Energy"})
    for number, name in enumerate(NAMES):
        record = {"Name": name, "Amount__c": number * 1.5, "Active__c": number % 2 == 0, "Loose__c": f"L{number}"}
        if number < 3:
            record |= {
                "Account__c": parent,
                "Plan__c": "p",
                "Day__c": f"2024-01-0{number + 1}",
                "Tags__c": "Gold;Silver",
            }
        if number == 0:
            record |= {"Moment__c": "2024-01-01T00:00:00+01:00", "Ref__c": "Ref"}
        org.create("Customer__c", record)


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("Name = 'ALPHA'", {"alpha", "Alpha"}),
        ("Name IN ('beta', 'it\\'s')", {"beta", "it's"}),
        ("Name = 'say \\\"x\\\"'", {'say "x"'}),
        ("Name LIKE 'ALPH_'", {"alpha", "Alpha"}),
        ("Name LIKE '%\\_%'", {"under_score"}),
        ("Name LIKE '50\\%'", {"50%"}),
        ("Name = 'back\\\\slash'", {"back\\slash"}),
        ("Name = 'n\\u00e9'", {"né"}),
        ("Plan__c = null", set(NAMES[3:])),
        ("Plan__c = ''", set(NAMES[3:])),
        ("Plan__c != 'p'", set(NAMES[3:])),
        ("NOT Plan__c = 'p'", set(NAMES[3:])),
        ("NOT (Plan__c = 'p' OR Name = 'it\\'s')", set(NAMES[4:])),
        ("Plan__c NOT IN ('p')", set(NAMES[3:])),
        ("Plan__c != null AND Active__c = TRUE", {"alpha", "beta"}),
        ("(Amount__c > 10 OR Amount__c < 1) AND Active__c = true", {"alpha", "né"}),
        ("Amount__c >= 1.5 AND Amount__c <= 3", {"Alpha", "beta"}),
        ("Amount__c <> 0 AND Amount__c < 3", {"Alpha"}),
        ("Day__c = 2024-01-02", {"Alpha"}),
        ("Day__c > 2024-01-01", {"Alpha", "beta"}),
        ("Moment__c = 2023-12-31T23:00:00Z", {"alpha"}),
        ("Moment__c <= 2024-01-01T00:00:00+01:00", {"alpha"}),
        ("CreatedDate = TODAY AND Name = 'beta'", {"beta"}),
        ("CreatedDate < LAST_N_DAYS:3", set()),
        ("Account__r.Name = 'parent' AND Account__r.Owner.IsActive = true", set(NAMES[:3])),
        ("Tags__c INCLUDES ('Silver')", set(NAMES[:3])),
        ("Tags__c EXCLUDES ('Gold;Silver')", set(NAMES[3:])),
        ("Ref__c = 'ref'", set()),
        ("Loose__c = 'l3'", {"it's"}),
    ],
)  # fmt: skip
def test_where(org: Org, where: str, expected: set[str]) -> None:
    assert {r["Name"] for r in org.query(f"SELECT Name FROM Customer__c WHERE {where}")} == expected


def test_order_limit_offset(org: Org) -> None:
    def names(tail: str) -> list[str]:
        return [r["Name"] for r in org.query(f"select name from customer__c {tail}")]

    assert names("ORDER BY Amount__c DESC LIMIT 2") == ["né", "back\\slash"]
    assert names("ORDER BY Day__c NULLS LAST, Name LIMIT 3") == ["alpha", "Alpha", "beta"]
    assert names("ORDER BY Day__c DESC NULLS LAST LIMIT 1 OFFSET 1") == ["Alpha"]
    assert len(names("LIMIT 0")) == 0


def test_parents_nest_and_are_null_without_a_lookup(org: Org) -> None:
    soql = "SELECT c.Id, Account__r.Name, Account__r.Owner.Name, Account__r.Id FROM Customer__c c WHERE Name IN {}"
    (record,) = org.query(soql.format("('beta')"))
    assert record["Account__r"]["attributes"]["type"] == "Account"
    assert record["Account__r"]["Owner"]["Name"] == "Emulator Admin"
    (record,) = org.query(soql.format("('50%')"))
    assert record["Account__r"] is None


def test_ids_filter_in_both_lengths(org: Org) -> None:
    rid = org.query("SELECT Id FROM Customer__c WHERE Name = 'beta'")[0]["Id"]
    for text in (rid, rid[:15]):
        assert len(org.query(f"SELECT Id FROM Customer__c WHERE Id IN ('{text}')")) == 1
    reply = org.get("/query", params={"q": "SELECT Id FROM Customer__c WHERE Id = 'x'"})
    assert reply.json()[0]["errorCode"] == "INVALID_QUERY_FILTER_OPERATOR"


def test_counts(org: Org) -> None:
    body = org.get("/query/?q=SELECT+COUNT()+FROM+Customer__c").json()
    assert body == {"totalSize": len(NAMES), "done": True, "records": []}
    (record,) = org.query("SELECT COUNT(Plan__c) FROM Customer__c")
    assert record == {"attributes": {"type": "AggregateResult"}, "expr0": 3}


def test_pages_follow_next_records_url(org: Org) -> None:
    items = [{"attributes": {"type": "Contact"}, "LastName": f"c{i}"} for i in range(200)]
    for _ in range(3):
        org.post("/composite/sobjects", {"records": items})
    first = org.get("/query", params={"q": "SELECT Id FROM Contact"}, headers={"Sforce-Query-Options": "batchSize=250"})
    page = first.json()
    assert (page["totalSize"], page["done"], len(page["records"])) == (600, False, 250)
    seen = {r["Id"] for r in page["records"]}
    while not page["done"]:
        url = org.url + page["nextRecordsUrl"]
        page = org.http.get(url, headers={"Sforce-Query-Options": "batchSize=250"}).json()
        seen |= {r["Id"] for r in page["records"]}
    assert len(seen) == 600 and "nextRecordsUrl" not in page
    stale = org.get("/query/01g000000000001AAA-2000")
    assert stale.json()[0]["errorCode"] == "INVALID_QUERY_LOCATOR"


def test_columns_true_describes_the_columns(org: Org) -> None:
    params = {"q": "SELECT Id, Account__r.Name FROM Customer__c", "columns": "true"}
    body = org.get("/query", params=params).json()
    assert [c["columnName"] for c in body["columnMetadata"]] == ["Id", "Account__r"]
    assert [c["columnName"] for c in body["columnMetadata"][1]["joinColumns"]] == ["Name"]
    assert (body["entityName"], body["idSelected"]) == ("Customer__c", True)


@pytest.mark.parametrize(
    ("soql", "code", "message"),
    [
        ("SELEKT Id FROM Account", "MALFORMED_QUERY", "unexpected token: SELEKT"),
        ("SELECT Id FROM Account WHERE", "MALFORMED_QUERY", "unexpected token: '<EOF>'"),
        ("SELECT Id FROM Account WHERE Name = 'x' OR Name = 'y' AND Name = 'z'", "MALFORMED_QUERY", "unexpected token"),
        ("SELECT Id FROM XYZZY", "INVALID_TYPE", "sObject type 'XYZZY' is not supported"),
        ("SELECT Id FROM Account WHERE Description = 'x'", "INVALID_FIELD", "can not be filtered"),
        ("SELECT Id FROM Account WHERE Name = 1", "INVALID_FIELD", "must be of type string"),
        ("SELECT Id FROM Account WHERE NumberOfEmployees = '1'", "INVALID_FIELD", "should not be enclosed in quotes"),
        ("SELECT Nope__r.Name FROM Account", "INVALID_FIELD", "Didn't understand relationship 'Nope__r'"),
        (f"SELECT Id FROM Account ORDER BY {', '.join(['Name'] * 33)}", "MALFORMED_QUERY", "No more than 32 fields"),
        (
            f"SELECT COUNT(Id) FROM Account GROUP BY {', '.join(['Name'] * 101)}",
            "MALFORMED_QUERY",
            "does not emulate more than 100 fields in GROUP BY",
        ),
        ("SELECT BillingAddress FROM Account", "MALFORMED_QUERY", "does not emulate compound fields (BillingAddress)"),
        ("SELECT Id FROM Account WHERE Name > null", "INVALID_FIELD", "null can not be compared with >"),
        ("SELECT Id x FROM Account", "MALFORMED_QUERY", "only aggregate expressions use field aliasing"),
        ("SELECT Id, Name, id FROM Account", "MALFORMED_QUERY", "duplicate field selected: Id"),
        ("SELECT Id FROM Account OFFSET 2001", "NUMBER_OUTSIDE_VALID_RANGE", "Maximum SOQL offset allowed is 2000"),
        ("SELECT Id FROM Account LIMIT -1", "MALFORMED_QUERY", "unexpected token: -1"),
        ("SELECT Id FROM Account ORDER BY Description", "MALFORMED_QUERY", "field 'Description' can not be sorted"),
        ("SELECT Id FROM Account WHERE Name = :x", "MALFORMED_QUERY", "Bind variables only allowed in Apex code"),
        (
            "SELECT Id FROM Account WHERE Name = 'a' AND Name = 'b' OR Name = 'c'",
            "MALFORMED_QUERY",
            "unexpected token: OR",
        ),
        ("SELECT Id FROM Account WHERE Name LIKE 1", "INVALID_FIELD", "must be of type string"),
        (
            "SELECT Id FROM Account WHERE CreatedDate LIKE 'x'",
            "INVALID_QUERY_FILTER_OPERATOR",
            "invalid operator on datetime",
        ),
        (
            "SELECT Id FROM Contact WHERE DoNotCall > true",
            "INVALID_QUERY_FILTER_OPERATOR",
            "invalid operator on boolean",
        ),
        ("SELECT Id FROM Contact WHERE Birthdate = 2024-02-30", "MALFORMED_QUERY", "invalid date: 2024-02-30"),
        ("SELECT Id FROM Account WHERE AnnualRevenue = 1e999", "MALFORMED_QUERY", "number out of range"),
        ("SELECT Id FROM Account WHERE Name = '\\ud800'", "MALFORMED_QUERY", "invalid character in string literal"),
        ("SELECT Id FROM Account WHERE Name = '\\q'", "MALFORMED_QUERY", "invalid string escape sequence '\\q'"),
        ("SELECT Id FROM Account WHERE Name = '" + "x" * 4001 + "'", "MALFORMED_QUERY", "longer than 4000 characters"),
        ("SELECT Id FROM Account WHERE Name = TODAY", "MALFORMED_QUERY", "unexpected token: TODAY"),
        ("SELECT Id FROM Account WHERE CreatedDate = SOMEDAY", "MALFORMED_QUERY", "unexpected token: SOMEDAY"),
        (
            "SELECT Id FROM Account WHERE CreatedDate = LAST_N_DAYS:1.5",
            "MALFORMED_QUERY",
            "unexpected token: LAST_N_DAYS:1.5",
        ),
        ("SELECT Id FROM Account WHERE CreatedDate = LAST_N_YEARS:999999", "MALFORMED_QUERY", "out of range"),
        (
            "SELECT Id FROM Account WHERE CALENDAR_YEAR(Name) = 1",
            "INVALID_FIELD",
            "does not support the function CALENDAR_YEAR",
        ),
        ("SELECT toLabel(Name) FROM Account", "INVALID_FIELD", "does not support the function toLabel"),
        (
            "SELECT CALENDAR_YEAR(CreatedDate) FROM Account",
            "MALFORMED_QUERY",
            "only be selected where its answer is grouped",
        ),
        ("SELECT FORMAT(AnnualRevenue) FROM Account", "MALFORMED_QUERY", "does not emulate the function FORMAT()"),
        (
            "SELECT convertCurrency(AnnualRevenue) FROM Account",
            "MALFORMED_QUERY",
            "does not emulate the function CONVERTCURRENCY()",
        ),
        (
            "SELECT Id FROM Account WHERE DISTANCE(X__c, GEOLOCATION(1, 2), 'mi') < 3",
            "MALFORMED_QUERY",
            "does not emulate the function DISTANCE()",
        ),
        ("SELECT Id FROM Account USING SCOPE team", "MALFORMED_QUERY", "does not emulate USING SCOPE team"),
        ("SELECT Id FROM Organization USING SCOPE mine", "MALFORMED_QUERY", "filterScope 'mine' is not supported"),
        ("SELECT Id FROM Account WITH SECURITY_ENFORCED", "MALFORMED_QUERY", "does not emulate WITH SECURITY_ENFORCED"),
        ("SELECT Id FROM Account WITH DATA CATEGORY", "MALFORMED_QUERY", "does not emulate WITH DATA"),
        ("SELECT Id FROM Account FOR SALE", "MALFORMED_QUERY", "unexpected token: SALE"),
        ("SELECT Id FROM Account UPDATE TRACKING", "MALFORMED_QUERY", "does not emulate UPDATE TRACKING"),
        ("SELECT Id FROM Account ALL ROWS", "MALFORMED_QUERY", "ALL ROWS not allowed in this context"),
        ("SELECT Id FROM Contact c, c.Account a", "MALFORMED_QUERY", "does not emulate several objects in FROM"),
        (
            "SELECT FIELDS(ALL) FROM Account",
            "MALFORMED_QUERY",
            "The SOQL FIELDS function must have a LIMIT of at most 200",
        ),
        ("SELECT FIELDS(CUSTOM) FROM Account LIMIT 201", "MALFORMED_QUERY", "LIMIT of at most 200"),
        ("SELECT COUNT() FROM Account ORDER BY Name", "MALFORMED_QUERY", "can not have an ORDER BY"),
        (
            "SELECT Account__r.Parent.Parent.Parent.Parent.Parent.Name FROM Customer__c",
            "MALFORMED_QUERY",
            "No more than 5 relationship levels",
        ),
    ],
)
def test_mistakes_and_what_is_not_emulated(org: Org, soql: str, code: str, message: str) -> None:
    reply = org.get("/query", params={"q": soql})
    assert reply.status_code == 400
    assert reply.json()[0]["errorCode"] == code
    assert message in reply.json()[0]["message"]


def test_an_unknown_column_is_pointed_at(org: Org) -> None:
    reply = org.get("/query", params={"q": "SELECT Bacon__c FROM Account LIMIT 2"})
    assert reply.json() == [{
        "message": "\nSELECT Bacon__c FROM Account LIMIT 2\n       ^\nERROR at Row:1:Column:8\nNo such column 'Bacon__c' "
        "on entity 'Account'. If you are attempting to use a custom field, be sure to append the '__c' after the custom "
        "field name. Please reference your WSDL or the describe call for the appropriate names.",
        "errorCode": "INVALID_FIELD",
    }]  # fmt: skip


def test_a_query_of_many_values_uses_the_index(org: Org) -> None:
    values = ",".join(f"'L{i}'" for i in range(800))
    assert len(org.query(f"SELECT Id FROM Customer__c WHERE Loose__c IN ({values})")) == len(NAMES)


def test_tooling_objects_do_not_exist(org: Org) -> None:
    reply = org.get("/tooling/query", params={"q": "SELECT Id FROM SandboxProcess"})
    assert (reply.status_code, reply.json()[0]["errorCode"]) == (400, "INVALID_TYPE")


def test_thousands_of_conditions_are_no_problem(org: Org) -> None:
    terms = " OR ".join(f"(Name = 'n{i}' AND Amount__c = {i})" for i in range(2000))
    soql = f"SELECT Id FROM Customer__c WHERE {terms} LIMIT 99999999999999999999"
    job = org.post("/jobs/query", {"operation": "query", "query": soql}).json()
    assert org.wait(job["id"], "query")["state"] == "JobComplete"
