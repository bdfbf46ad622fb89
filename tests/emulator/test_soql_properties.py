"""Random conditions against the rules of SOQL written once more in Python, and random text that must never break."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dinmo_dbt.emulator.clock import Clock

from .mounted import Mounted

NOW = datetime(2024, 2, 29, 15, 30, tzinfo=UTC)
TODAY = NOW.date()
TEXTS = [None, "alpha", "ALPHA", "Beta", "be_a", "50%", "it's", "back\\slash", "É", "é\nline", "zz"]
ROWS = [
    {
        "Name": f"r{n}",
        "Plan__c": TEXTS[n % len(TEXTS)],
        "Ref__c": None if n % 7 == 0 else f"{'Key' if n % 2 else 'key'}{n // 2}",
        "Amount__c": None if n % 5 == 0 else (n % 6) * 1.5 - 3,
        "Active__c": n % 3 == 0,
        "Day__c": None if n % 6 == 5 else (TODAY + timedelta(days=(n - 15) * (n % 4))).isoformat(),
        "Moment__c": None if n % 8 == 0 else (NOW + timedelta(hours=(n - 15) * 7)).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "Tags__c": [None, "Gold", "Silver", "Gold;Silver"][n % 4],
        "Account__c": n % 3 or None,
    }
    for n in range(33)
]
ACCOUNTS = {1: "North", 2: None}  # the accounts' Industry

Row = dict[str, Any]
# A condition: SOQL text, and what it says of a row.
Condition = tuple[str, Callable[[Row], bool]]


def quote(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n") + "'"


def ordered(have: Any, operator: str, want: Any) -> bool:
    """Comparison with a value that is not null: a null is different from it, and neither less nor more."""
    if have is None:
        return operator == "!="
    return {
        "=": have == want,
        "!=": have != want,
        "<": have < want,
        "<=": have <= want,
        ">": have > want,
        ">=": have >= want,
    }[operator]


def lower(text: str | None) -> str | None:
    return None if text is None else text.lower()


OPERATORS = st.sampled_from(["=", "!=", "<", "<=", ">", ">="])
TEXT = st.sampled_from([t for t in TEXTS if t is not None]) | st.text("aBé% _'\\", max_size=3)


@st.composite
def text_compare(draw: st.DrawFn) -> Condition:
    field, fold = draw(st.sampled_from([("Plan__c", lower), ("Ref__c", lambda text: text)]))
    operator, want = draw(OPERATORS), draw(TEXT.filter(bool) | st.sampled_from(["key3", "KEY3", "Key4"]))
    return f"{field} {operator} {quote(want)}", lambda row: ordered(fold(row[field]), operator, fold(want))


@st.composite
def text_null(draw: st.DrawFn) -> Condition:
    field = draw(st.sampled_from(["Plan__c", "Ref__c", "Amount__c", "Day__c", "Tags__c", "Account__c"]))
    literal = draw(st.sampled_from(["null", "NULL"] + (["''"] if field == "Plan__c" else [])))
    if draw(st.booleans()):
        return f"{field} = {literal}", lambda row: row[field] is None
    return f"{field} != {literal}", lambda row: row[field] is not None


@st.composite
def text_in(draw: st.DrawFn) -> Condition:
    wanted = draw(st.lists(TEXT | st.none(), min_size=1, max_size=4))
    listed = ", ".join("null" if w is None else quote(w) for w in wanted)
    inside = {lower(w) or None for w in wanted}
    if draw(st.booleans()):
        return f"Plan__c IN ({listed})", lambda row: lower(row["Plan__c"]) in inside
    return f"Plan__c NOT IN ({listed})", lambda row: lower(row["Plan__c"]) not in inside


@st.composite
def like(draw: st.DrawFn) -> Condition:
    parts = draw(st.lists(st.sampled_from(["%", "_", "\\%", "\\_", "\\\\", "a", "L", "é", "\\'"]), max_size=4))
    regex = {"%": ".*", "_": ".", "\\%": "%", "\\_": "_", "\\\\": "\\\\", "\\'": "'"}
    pattern = re.compile("".join(regex.get(p, p) for p in parts), re.I | re.S)
    return (
        f"Plan__c LIKE '{''.join(parts)}'",
        lambda row: row["Plan__c"] is not None and pattern.fullmatch(row["Plan__c"]) is not None,
    )


@st.composite
def number(draw: st.DrawFn) -> Condition:
    operator, want = draw(OPERATORS), draw(st.sampled_from([-3, -1.5, 0, 1.5, 2, 4.5]))
    return f"Amount__c {operator} {want}", lambda row: ordered(row["Amount__c"], operator, want)


@st.composite
def flag(draw: st.DrawFn) -> Condition:
    operator, want = draw(st.sampled_from(["=", "!="])), draw(st.booleans())
    return f"Active__c {operator} {want}", lambda row: ordered(row["Active__c"], operator, want)


@st.composite
def day(draw: st.DrawFn) -> Condition:
    operator, want = draw(OPERATORS), TODAY + timedelta(days=draw(st.integers(-20, 20)))
    if draw(st.booleans()):
        return f"Day__c {operator} {want}", lambda row: ordered(days_of(row["Day__c"]), operator, want)
    moment = datetime(want.year, want.month, want.day, 8, 30, tzinfo=UTC)
    shown = draw(st.sampled_from([moment, moment.astimezone(tz=None)])).isoformat()
    return f"Moment__c {operator} {shown}", lambda row: ordered(moment_of(row["Moment__c"]), operator, moment)


def days_of(text: str | None) -> date | None:
    return None if text is None else date.fromisoformat(text[:10])


def moment_of(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text.replace("Z", "+00:00"))


BOUNDS = {  # the first and the last day, looked up in a calendar
    "TODAY": ("2024-02-29", "2024-02-29"),
    "LAST_WEEK": ("2024-02-18", "2024-02-24"),
    "THIS_MONTH": ("2024-02-01", "2024-02-29"),
    "NEXT_MONTH": ("2024-03-01", "2024-03-31"),
    "THIS_FISCAL_QUARTER": ("2024-01-01", "2024-03-31"),
    "LAST_N_DAYS:5": ("2024-02-24", "2024-02-29"),
    "NEXT_N_WEEKS:2": ("2024-03-03", "2024-03-16"),
    "N_MONTHS_AGO:1": ("2024-01-01", "2024-01-31"),
}


@st.composite
def literal(draw: st.DrawFn) -> Condition:
    field, name, operator = (
        draw(st.sampled_from(["Day__c", "Moment__c"])),
        draw(st.sampled_from(list(BOUNDS))),
        draw(OPERATORS),
    )
    first, last = (date.fromisoformat(d) for d in BOUNDS[name])

    def holds(row: Row) -> bool:
        have = days_of(row[field])
        if operator in ("=", "!="):
            return (have is not None and first <= have <= last) == (operator == "=")
        return ordered(have, operator, first if operator in ("<", ">=") else last)

    return f"{field} {operator} {name}", holds


@st.composite
def function(draw: st.DrawFn) -> Condition:
    name, read = draw(
        st.sampled_from(
            [
                ("CALENDAR_MONTH", lambda d: d.month),
                ("DAY_IN_WEEK", lambda d: d.isoweekday() % 7 + 1),
                ("DAY_IN_YEAR", lambda d: d.timetuple().tm_yday),
                ("WEEK_IN_MONTH", lambda d: -(-d.day // 7)),
            ]
        )
    )
    field, operator, want = draw(st.sampled_from(["Day__c", "Moment__c"])), draw(OPERATORS), draw(st.integers(1, 7))
    return f"{name}({field}) {operator} {want}", lambda row: ordered(
        None if row[field] is None else read(days_of(row[field])), operator, want
    )


@st.composite
def tags(draw: st.DrawFn) -> Condition:
    wanted = draw(st.lists(st.sampled_from(["Gold", "silver", "Gold;Silver"]), min_size=1, max_size=2))
    listed = ", ".join(quote(w) for w in wanted)

    def holds(row: Row) -> bool:
        have = set((row["Tags__c"] or "").lower().split(";"))
        return any(set(w.lower().split(";")) <= have for w in wanted)

    if draw(st.booleans()):
        return f"Tags__c INCLUDES ({listed})", holds
    return f"Tags__c EXCLUDES ({listed})", lambda row: not holds(row)


@st.composite
def parent(draw: st.DrawFn) -> Condition:
    operator, want = draw(st.sampled_from(["=", "!=", "<", ">="])), draw(st.sampled_from(["north", "Nowhere"]))
    return f"Account__r.Industry {operator} '{want}'", lambda row: ordered(
        lower(ACCOUNTS.get(row["Account__c"])), operator, want.lower()
    )


def joined(terms: st.SearchStrategy[Condition]) -> st.SearchStrategy[Condition]:
    def both(parts: list[Condition]) -> Condition:
        return " AND ".join(f"({text})" for text, _ in parts), lambda row: all(holds(row) for _, holds in parts)

    def either(parts: list[Condition]) -> Condition:
        return " OR ".join(f"({text})" for text, _ in parts), lambda row: any(holds(row) for _, holds in parts)

    def opposite(part: Condition) -> Condition:
        return f"NOT ({part[0]})", lambda row: not part[1](row)

    several = st.lists(terms, min_size=2, max_size=4)
    return several.map(both) | several.map(either) | terms.map(opposite)


SIMPLE = st.one_of(
    text_compare(), text_null(), text_in(), like(), number(), flag(), day(), literal(), function(), tags(), parent()
)
CONDITIONS = st.recursive(SIMPLE, joined, max_leaves=8)
WORDS = st.sampled_from(
    re.split(
        r"\s+",
        "SELECT FROM WHERE AND OR NOT IN LIKE GROUP BY HAVING ORDER LIMIT OFFSET TYPEOF WHEN THEN ELSE END FOR VIEW "
        "NULLS FIRST ( ) , . = != < >= Id Name Account Contact Customer__c Account__r Contacts Customers__r Tags__c "
        "Owner Amount__c Day__c Twice__c Opens__c COUNT() COUNT(Id) MAX(Name) SUM(Amount__c) "
        "CALENDAR_YEAR(CreatedDate) toLabel(Tier__c) FIELDS(ALL) 'x' '\\ud800' '%' null true 1 -1 1e999 200 "
        "2024-01-01 2024-02-30 2024-01-01T00:00:00Z 10:00:00 TODAY LAST_N_DAYS:3 NEXT_N_YEARS:99999999 INCLUDES "
        "EXCLUDES USING SCOPE mine WITH SECURITY_ENFORCED ALL ROWS : 'a;b' '' ASC DESC e n0",
    )
) | st.sampled_from(["(SELECT Id FROM Contacts)", "(SELECT AccountId FROM Contact)", "IN ('a', null)"])
HEADS = st.sampled_from(
    [
        "",
        "SELECT ",
        "SELECT Id FROM Account ",
        "SELECT Id FROM Customer__c WHERE ",
        "SELECT Name, COUNT(Id) FROM Account ",
    ]
)
GARBAGE = st.one_of(
    st.tuples(HEADS, st.lists(WORDS, max_size=12).map(" ".join)).map("".join),
    st.tuples(HEADS, st.text(max_size=30)).map("".join),
    st.lists(WORDS, max_size=12).map(lambda words: "SELECT Id FROM Customer__c WHERE " + " ".join(words) + " = 'x'"),
)
QUICK = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.fixture(scope="module")
def mounted(schema: Path) -> Iterator[Mounted]:
    org = Mounted(schema, clock=Clock(NOW))
    accounts = {n: org.create("Account", {"Name": f"a{n}", "Industry": name}) for n, name in ACCOUNTS.items()}
    for row in ROWS:
        org.create("Customer__c", {**row, "Account__c": accounts.get(row["Account__c"])})
    yield org
    org.close()


@QUICK
@given(CONDITIONS)
def test_conditions_find_the_rows_that_soqls_rules_name(mounted: Mounted, condition: Condition) -> None:
    text, holds = condition
    soql = f"SELECT Name FROM Customer__c WHERE {text}"
    reply = mounted.api("GET", "/query", query_string={"q": soql})
    assert reply.status_code == 200, reply.text
    assert [r["Name"] for r in reply.json["records"]] == [row["Name"] for row in ROWS if holds(row)], soql


@QUICK
@given(GARBAGE, st.sampled_from(["/query", "/queryAll"]), st.booleans())
def test_no_text_breaks_the_server(mounted: Mounted, text: str, path: str, columns: bool) -> None:
    query = {"q": text, **({"columns": "true"} if columns else {})}
    try:
        reply = mounted.api("GET", path, query_string=query)
    except UnicodeEncodeError:  # a lone surrogate can't be sent at all
        return
    assert reply.status_code in (200, 400, 414), text
    if reply.status_code == 400:
        assert {"errorCode", "message"} <= set(reply.json[0])
