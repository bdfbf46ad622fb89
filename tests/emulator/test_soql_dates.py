"""Date literals against a calendar counted day by day, and what depends on the org's clock."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from dinmo_dbt.emulator.clock import Clock
from dinmo_dbt.emulator.soql.dates import day_range

from .mounted import Mounted

NOW = datetime(2024, 2, 29, 15, 30, tzinfo=UTC)  # a Thursday
TODAY = NOW.date()
DAYS = [date(2020, 1, 1) + timedelta(days=n) for n in range(3000)]


def sunday(day: date) -> date:
    while day.weekday() != 6:
        day -= timedelta(days=1)
    return day


def month(day: date) -> int:
    return day.year * 12 + day.month


def quarter(day: date) -> int:
    return day.year * 4 + (day.month - 1) // 3


UNITS: dict[str, Callable[[date], int]] = {
    "DAY": lambda day: (day - TODAY).days,
    "WEEK": lambda day: (sunday(day) - sunday(TODAY)).days // 7,
    "MONTH": lambda day: month(day) - month(TODAY),
    "QUARTER": lambda day: quarter(day) - quarter(TODAY),
    "YEAR": lambda day: day.year - TODAY.year,
    "FISCAL_QUARTER": lambda day: quarter(day) - quarter(TODAY),
    "FISCAL_YEAR": lambda day: day.year - TODAY.year,
}


def counted() -> Iterator[tuple[str, int | None, list[date]]]:
    """Each literal with the days it stands for, by the number of units between them and today."""
    for unit, away in UNITS.items():
        for n in (1, 2):
            until = 0 if unit == "DAY" else -1  # only days count the current one in
            yield f"LAST_N_{unit}S", n, [d for d in DAYS if -n <= away(d) <= until]
            yield f"NEXT_N_{unit}S", n, [d for d in DAYS if 1 <= away(d) <= n]
            yield f"N_{unit}S_AGO", n, [d for d in DAYS if away(d) == -n]
        if unit != "DAY":
            yield f"LAST_{unit}", None, [d for d in DAYS if away(d) == -1]
            yield f"THIS_{unit}", None, [d for d in DAYS if away(d) == 0]
            yield f"NEXT_{unit}", None, [d for d in DAYS if away(d) == 1]
    yield "YESTERDAY", None, [TODAY - timedelta(days=1)]
    yield "TODAY", None, [TODAY]
    yield "TOMORROW", None, [TODAY + timedelta(days=1)]
    yield "LAST_90_DAYS", None, [TODAY - timedelta(days=n) for n in range(90, -1, -1)]
    yield "NEXT_90_DAYS", None, [TODAY + timedelta(days=n) for n in range(1, 91)]


LITERALS = list(counted())


@pytest.mark.parametrize(("name", "n", "days"), LITERALS, ids=[f"{name}:{n}" for name, n, _ in LITERALS])
def test_the_days_of_every_literal(name: str, n: int | None, days: list[date]) -> None:
    assert day_range(name, n, TODAY) == (days[0], days[-1] + timedelta(days=1))


@pytest.mark.parametrize(("name", "n"), [("TODAY", 3), ("LAST_N_DAYS", None), ("N_HOURS_AGO", 3), ("LAST_DAY", None)])
def test_what_is_no_literal(name: str, n: int | None) -> None:
    assert day_range(name, n, TODAY) is None


@pytest.fixture(scope="module")
def mounted(schema: Path) -> Iterator[Mounted]:
    org = Mounted(schema, clock=Clock(NOW))
    for day in ("2023-12-31", "2024-02-28", "2024-02-29", "2024-03-01"):
        org.create("Customer__c", {"Name": day, "Day__c": day, "Moment__c": f"{day}T23:59:59Z"})
    org.create("Customer__c", {"Name": "never"})
    yield org
    org.close()


def ask(org: Mounted, soql: str) -> Any:
    return org.api("GET", "/query", query_string={"q": soql}).json


@pytest.mark.parametrize("field", ["Day__c", "Moment__c"])
@pytest.mark.parametrize(
    ("condition", "names"),
    [
        ("= TODAY", ["2024-02-29"]),
        ("!= this_month", ["2023-12-31", "2024-03-01", "never"]),
        ("< YESTERDAY", ["2023-12-31"]),
        ("<= YESTERDAY", ["2023-12-31", "2024-02-28"]),
        ("> LAST_YEAR", ["2024-02-28", "2024-02-29", "2024-03-01"]),
        (">= TOMORROW", ["2024-03-01"]),
        ("= NEXT_N_DAYS:1", ["2024-03-01"]),
    ],
)
def test_comparisons_with_literals(mounted: Mounted, field: str, condition: str, names: list[str]) -> None:
    reply = ask(mounted, f"SELECT Name FROM Customer__c WHERE {field} {condition} ORDER BY Name")
    assert [r["Name"] for r in reply["records"]] == names
    opposite = ask(mounted, f"SELECT Name FROM Customer__c WHERE NOT {field} {condition}")
    assert len(opposite["records"]) == 5 - len(names)


def test_times_of_day(mounted: Mounted) -> None:
    mounted.create("Customer__c", {"Name": "opens", "Opens__c": "08:30:00.000Z"})
    reply = ask(mounted, "SELECT Name FROM Customer__c WHERE Opens__c >= 08:30:00Z AND Opens__c < 08:30:00.001Z")
    assert [r["Name"] for r in reply["records"]] == ["opens"]
    assert ask(mounted, "SELECT Id FROM Customer__c WHERE Opens__c = '08:30'")[0]["errorCode"] == "INVALID_FIELD"
    assert "invalid time" in ask(mounted, "SELECT Id FROM Customer__c WHERE Opens__c = 25:30:00Z")[0]["message"]


def test_a_locator_lives_two_days_in_its_own_org(schema: Path) -> None:
    org, other = Mounted(schema), Mounted(schema)
    for each in (org, other):
        rows = "LastName\n" + "".join(f"c{i}\n" for i in range(201))
        job = each.job("Contact", rows)
        while each.info(job)["state"] not in ("JobComplete", "Failed"):
            each.clock.advance(60)
    first = org.api("GET", "/query?q=SELECT+Id+FROM+Contact", headers={"Sforce-Query-Options": "batchSize=200"})
    more = first.json["nextRecordsUrl"].removeprefix("/services/data/v62.0")
    assert len(org.get(more)["records"]) == 1
    org.clock.advance(timedelta(days=2).total_seconds() - 60)
    assert org.api("GET", more).status_code == 200
    org.clock.advance(120)
    stale = [
        org.api("GET", more),
        other.api("GET", more),
        org.api("GET", more[:-3] + "999"),
        org.api("GET", "/query/x"),
    ]
    for reply in stale:
        assert reply.status_code == 400 and reply.json[0]["errorCode"] == "INVALID_QUERY_LOCATOR"
    org.close()
    other.close()
