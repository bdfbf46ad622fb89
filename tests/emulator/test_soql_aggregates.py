"""SOQL's aggregate queries: functions, GROUP BY, HAVING, their columns and their mistakes."""

# ruff: noqa: E501 (Salesforce's messages are kept whole)

from __future__ import annotations

from typing import Any

import pytest

from .conftest import Org

ROWS = [
    {"Name": "a", "Plan__c": "x", "Amount__c": 1, "Day__c": "2024-01-01", "Moment__c": "2024-01-01T23:30:00Z"},
    {"Name": "b", "Plan__c": "x", "Amount__c": 2.5, "Day__c": "2024-01-08", "Moment__c": "2024-01-08T23:10:00Z"},
    {"Name": "c", "Plan__c": "y", "Amount__c": 4, "Day__c": "2024-05-31", "Moment__c": "2023-12-31T00:00:00Z"},
    {"Name": "d", "Plan__c": None, "Amount__c": None, "Day__c": None, "Moment__c": None},
]


@pytest.fixture(scope="module", autouse=True)
def records(org: Org) -> None:
    account = org.create("Account", {"Name": "Acme", "NumberOfEmployees": 3})
    org.create("Account", {"Name": "Beta", "NumberOfEmployees": 4})
    for number, row in enumerate(ROWS):
        org.create("Customer__c", {**row, "Account__c": account if number < 2 else None})


def groups(org: Org, soql: str) -> list[list[Any]]:
    found = org.query(soql)
    assert all(r["attributes"] == {"type": "AggregateResult"} for r in found)
    return [[v for k, v in r.items() if k != "attributes"] for r in found]


@pytest.mark.parametrize(
    ("soql", "expected"),
    [
        ("SELECT COUNT(Id), COUNT(Plan__c), COUNT_DISTINCT(Plan__c), SUM(Amount__c), AVG(Amount__c), MIN(Amount__c), MAX(Amount__c) FROM Customer__c", [[4, 3, 2, 7.5, 2.5, 1.0, 4.0]]),
        ("SELECT MIN(Day__c), MAX(Moment__c), MAX(Name) FROM Customer__c", [["2024-01-01", "2024-01-08T23:10:00.000+0000", "d"]]),
        ("SELECT SUM(NumberOfEmployees), AVG(NumberOfEmployees) FROM Account", [[7, 3.5]]),
        ("SELECT COUNT(Id), SUM(Amount__c) FROM Customer__c WHERE Name = 'nobody'", [[0, None]]),
        ("SELECT Plan__c, COUNT(Id) FROM Customer__c GROUP BY Plan__c ORDER BY Plan__c", [[None, 1], ["x", 2], ["y", 1]]),
        ("SELECT COUNT(Id) n FROM Customer__c GROUP BY Plan__c ORDER BY COUNT(Id) DESC, Plan__c NULLS LAST LIMIT 2", [[2], [1]]),
        ("SELECT Plan__c FROM Customer__c GROUP BY Plan__c ORDER BY Plan__c LIMIT 1 OFFSET 1", [["x"]]),
        ("SELECT Account__r.Name, Account__r.NumberOfEmployees, COUNT(Id) FROM Customer__c GROUP BY Account__r.Name, Account__r.NumberOfEmployees ORDER BY Account__r.Name NULLS LAST", [["Acme", 3, 2], [None, None, 2]]),
        ("SELECT Plan__c, MAX(Amount__c) FROM Customer__c GROUP BY Plan__c HAVING MAX(Amount__c) > 2 AND COUNT(Id) < 3 ORDER BY Plan__c", [["x", 2.5], ["y", 4.0]]),
        ("SELECT Plan__c FROM Customer__c GROUP BY Plan__c HAVING NOT (Plan__c LIKE 'X' OR COUNT(Name) > 3) ORDER BY Plan__c", [[None], ["y"]]),
        ("SELECT CALENDAR_YEAR(Day__c), COUNT(Id) FROM Customer__c WHERE Day__c != null GROUP BY CALENDAR_YEAR(Day__c)", [[2024, 3]]),
        ("SELECT CALENDAR_MONTH(Day__c) m, COUNT(Id) FROM Customer__c GROUP BY CALENDAR_MONTH(Day__c) HAVING CALENDAR_MONTH(Day__c) > 0 ORDER BY CALENDAR_MONTH(Day__c)", [[1, 2], [5, 1]]),
        ("SELECT DAY_ONLY(Moment__c) FROM Customer__c WHERE Moment__c != null GROUP BY DAY_ONLY(Moment__c) ORDER BY DAY_ONLY(Moment__c)", [["2023-12-31"], ["2024-01-01"], ["2024-01-08"]]),
        ("SELECT HOUR_IN_DAY(convertTimezone(Moment__c)), COUNT(Id) FROM Customer__c WHERE Moment__c != null GROUP BY HOUR_IN_DAY(convertTimezone(Moment__c)) ORDER BY HOUR_IN_DAY(Moment__c)", [[0, 1], [23, 2]]),
    ],
)  # fmt: skip
def test_aggregates(org: Org, soql: str, expected: list[list[Any]]) -> None:
    assert groups(org, soql) == expected


@pytest.mark.parametrize(
    ("function", "names"),
    [
        ("CALENDAR_YEAR(Day__c) = 2024", "abc"), ("CALENDAR_QUARTER(Day__c) = 2", "c"), ("FISCAL_QUARTER(Day__c) = 1", "ab"),
        ("FISCAL_YEAR(Moment__c) = 2023", "c"), ("FISCAL_MONTH(Day__c) IN (5, 6)", "c"), ("DAY_IN_MONTH(Day__c) = 31", "c"),
        ("DAY_IN_WEEK(Day__c) = 2", "ab"), ("DAY_IN_YEAR(Day__c) = 152", "c"), ("DAY_ONLY(Moment__c) = 2024-01-08", "b"),
        ("DAY_ONLY(Moment__c) < 2024-01-02", "ac"), ("HOUR_IN_DAY(Moment__c) >= 23", "ab"), ("WEEK_IN_MONTH(Day__c) = 5", "c"),
        ("WEEK_IN_YEAR(Day__c) = 2", "b"), ("WEEK_IN_YEAR(Moment__c) = 53", "c"), ("NOT CALENDAR_YEAR(Moment__c) = 2024", "cd"),
    ],
)  # fmt: skip
def test_date_functions_filter(org: Org, function: str, names: str) -> None:
    assert (
        "".join(r["Name"] for r in org.query(f"SELECT Name FROM Customer__c WHERE {function} ORDER BY Name")) == names
    )


def test_names_of_columns(org: Org) -> None:
    (record,) = org.query(
        "SELECT COUNT(Id), Plan__c, MAX(Name) top, MIN(Name), Account__r.Name who FROM Customer__c WHERE Name = 'a' GROUP BY Plan__c, Account__r.Name"
    )
    assert record == {
        "attributes": {"type": "AggregateResult"},
        "expr0": 1,
        "Plan__c": "x",
        "top": "a",
        "expr1": "a",
        "who": "Acme",
    }


def test_counts_alone(org: Org) -> None:
    def count(tail: str) -> dict[str, Any]:
        return org.get("/query", params={"q": f"SELECT COUNT() FROM Customer__c {tail}"}).json()

    assert count("WHERE Plan__c = 'X'") == {"totalSize": 2, "done": True, "records": []}
    assert [count(tail)["totalSize"] for tail in ("LIMIT 3", "LIMIT 3 OFFSET 2", "OFFSET 9")] == [3, 2, 0]


@pytest.mark.parametrize(
    ("soql", "message"),
    [
        ("SELECT Name, COUNT(Id) FROM Account", "Field must be grouped or aggregated: Name"),
        ("SELECT Name FROM Account GROUP BY Industry", "Field must be grouped or aggregated: Name"),
        ("SELECT Account__r.Name FROM Customer__c GROUP BY Name", "Field must be grouped or aggregated: Account__r.Name"),
        ("SELECT CALENDAR_YEAR(CreatedDate) FROM Account GROUP BY CreatedById", "Field must be grouped or aggregated: CreatedDate"),
        ("SELECT COUNT(Id) FROM Account GROUP BY Industry ORDER BY Name", "Ordered field must be grouped or aggregated: Name"),
        ("SELECT COUNT(Id) FROM Account GROUP BY Industry HAVING Name = 'x'", "Having field must be grouped or aggregated: Name"),
        ("SELECT Name, MAX(Name) FROM Account GROUP BY Name", "Grouped field should not be aggregated: Name"),
        ("SELECT COUNT(Id) FROM Account GROUP BY CreatedDate", "field 'CreatedDate' can not be grouped in a query call"),
        ("SELECT COUNT(Id) FROM Account GROUP BY Description", "field 'Description' can not be grouped in a query call"),
        ("SELECT COUNT(Id) FROM Account GROUP BY AnnualRevenue", "field 'AnnualRevenue' can not be grouped in a query call"),
        ("SELECT COUNT(Tags__c) FROM Customer__c", "field Tags__c does not support aggregate operator COUNT"),
        ("SELECT COUNT(Active__c) FROM Customer__c", "field Active__c does not support aggregate operator COUNT"),
        ("SELECT SUM(Name) FROM Account", "field Name does not support aggregate operator SUM"),
        ("SELECT AVG(CreatedDate) FROM Account", "field CreatedDate does not support aggregate operator AVG"),
        ("SELECT MAX(Description) FROM Account", "field Description does not support aggregate operator MAX"),
        ("SELECT COUNT(Id) FROM Account LIMIT 1", "Non-grouped query that uses overall aggregate functions cannot also use LIMIT"),
        ("SELECT MAX(Name) FROM Account WHERE Name != 'x' HAVING MAX(Name) > 'a'", "unexpected token: HAVING"),
        ("SELECT COUNT(Id) a, MAX(Name) a FROM Account", "duplicate alias: a"),
        ("SELECT Name, Account__r.Name FROM Customer__c GROUP BY Name, Account__r.Name", "duplicate alias: Name"),
        ("SELECT COUNT(), Name FROM Account GROUP BY Name", "COUNT() must be the only element"),
        ("SELECT COUNT() FROM Account GROUP BY Name", "COUNT() must be the only element"),
        ("SELECT SUM() FROM Account", "the function SUM takes one field"),
        ("SELECT MAX(CALENDAR_YEAR(CreatedDate)) FROM Account", "the function MAX takes one field"),
        ("SELECT Name FROM Account WHERE COUNT(Id) > 1", "the aggregate function COUNT can not be used here"),
        ("SELECT COUNT(Id) FROM Account GROUP BY ROLLUP(Name)", "does not emulate GROUP BY ROLLUP"),
        ("SELECT COUNT(Id) FROM Account GROUP BY CUBE(Name, Industry)", "does not emulate GROUP BY CUBE"),
        ("SELECT GROUPING(Name) FROM Account GROUP BY Name", "does not emulate the function GROUPING()"),
        ("SELECT FIELDS(STANDARD) FROM Account GROUP BY Name", "does not emulate the function FIELDS()"),
        ("SELECT TYPEOF Owner WHEN User THEN Name END FROM Lead GROUP BY Name", "can not be used in an aggregate query"),
    ],
)  # fmt: skip
def test_mistakes_in_aggregate_queries(org: Org, soql: str, message: str) -> None:
    reply = org.get("/query", params={"q": soql})
    assert (reply.status_code, reply.json()[0]["errorCode"]) == (400, "MALFORMED_QUERY")
    assert message in reply.json()[0]["message"]


def test_the_column_that_can_not_be_aggregated_is_pointed_at(org: Org) -> None:
    (error,) = org.get("/query", params={"q": "SELECT COUNT(Description) CNT FROM Account"}).json()
    assert error["message"] == (
        "\nSELECT COUNT(Description) CNT FROM Account\n             ^\nERROR at Row:1:Column:14\n"
        "field Description does not support aggregate operator COUNT"
    )


def test_too_many_groups_for_a_page(org: Org) -> None:
    items = [{"attributes": {"type": "Contact"}, "LastName": f"c{i}"} for i in range(200)]
    assert org.post("/composite/sobjects", {"records": items}).status_code == 200
    assert org.post("/composite/sobjects", {"records": items[:1]}).status_code == 200
    options = {"Sforce-Query-Options": "batchSize=200"}
    soql = "SELECT Id, COUNT(LastName) FROM Contact GROUP BY Id"
    reply = org.get("/query", params={"q": soql}, headers=options)
    message = "Aggregate query does not support queryMore(), use LIMIT to restrict the results to a single batch"
    assert (reply.status_code, reply.json()) == (400, [{"errorCode": "EXCEEDED_ID_LIMIT", "message": message}])
    page = org.get("/query", params={"q": soql + " LIMIT 200"}, headers=options).json()
    assert (page["totalSize"], page["done"], len(page["records"])) == (200, True, 200)


def test_columns_of_an_aggregate_query(org: Org) -> None:
    soql = "SELECT Plan__c, AVG(Amount__c), COUNT(Id) n FROM Customer__c GROUP BY Plan__c"
    body = org.get("/query", params={"q": soql, "columns": "true"}).json()
    shown = [(c["columnName"], c["displayName"], c["aggregate"], c["numberType"]) for c in body["columnMetadata"]]
    assert shown == [
        ("Plan__c", "Plan__c", False, False),
        ("expr0", "avg(Amount__c)", True, True),
        ("n", "count(Id)", True, True),
    ]
    assert (body["groupBy"], body["entityName"], body["idSelected"]) == (True, "Customer__c", False)
