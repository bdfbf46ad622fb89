"""Random conditions against the rules of SOQL written once more in Python, and random text that must never break."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dinmo_dbt.emulator.clock import Clock

from .deep import examples
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
KNOWN = {
    "MALFORMED_QUERY", "INVALID_FIELD", "INVALID_TYPE", "INVALID_QUERY_FILTER_OPERATOR", "NUMBER_OUTSIDE_VALID_RANGE",
    "EXCEEDED_ID_LIMIT",
}  # fmt: skip
VALID = st.one_of(
    CONDITIONS.map(
        lambda c: f"SELECT Id, Name, Account__r.Name FROM Customer__c WHERE {c[0]} ORDER BY Name DESC LIMIT 9"
    ),
    st.sampled_from(
        [
            "SELECT Id, (SELECT Id, Plan__c FROM Customers__r WHERE Amount__c > 1 ORDER BY Id LIMIT 2) FROM Account",
            "SELECT Plan__c p, COUNT(Id), SUM(Amount__c) FROM Customer__c GROUP BY Plan__c HAVING COUNT(Id) > 1",
            "SELECT Id FROM Account WHERE Id IN (SELECT Account__c FROM Customer__c WHERE Name LIKE 'r\\_%')",
            "SELECT TYPEOF Owner WHEN User THEN Name, Email END FROM Customer__c USING SCOPE mine LIMIT 3 OFFSET 1",
            "SELECT FIELDS(ALL) FROM Customer__c WHERE CALENDAR_YEAR(Day__c) = 2024 AND Day__c > LAST_N_DAYS:3 LIMIT 5",
        ]
    ),
)


@st.composite
def mutated(draw: st.DrawFn) -> str:
    """A good statement in which some tokens are gone, doubled, swapped, cut or others."""
    tokens = re.findall(r"\w+|'(?:\\.|[^'\\])*'|\s+|.", draw(VALID), re.S)
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(tokens) - 1))
        match draw(st.sampled_from(["drop", "double", "swap", "other", "cut", "char"])):
            case "drop":
                tokens[place] = ""
            case "double":
                tokens[place] *= draw(st.integers(2, 50))
            case "swap":
                other = draw(st.integers(0, len(tokens) - 1))
                tokens[place], tokens[other] = tokens[other], tokens[place]
            case "other":
                tokens[place] = f" {draw(WORDS)} "
            case "cut":
                del tokens[place + 1 :]
            case _:
                tokens[place] += draw(st.characters(exclude_categories=["Cs"]))
    return "".join(tokens)


START = "SELECT Id FROM Customer__c WHERE "
GIANT = {
    "parentheses": START + "(" * 49_000 + "Name = 'x'" + ")" * 49_000,
    "unclosed": START + "(" * 99_000,
    "nots": START + "NOT " * 24_000 + "Name = 'x'",
    "nested": START + "(Name = null AND (" * 4_000 + "Name = 'x'" + "))" * 4_000,
    "nested nots": START + "NOT (Name = null OR NOT (" * 3_000 + "Name = 'x'" + "))" * 3_000,
    "ors": START + " OR ".join(["Name='x'"] * 8_000),
    "values": START + "Name IN (" + ",".join(["'x'"] * 24_000) + ")",
    "options": START + " OR ".join([f"Tags__c INCLUDES ('{';'.join(['a'] * 1999)}')"] * 24),
    "likes": START + " OR ".join([f"Plan__c LIKE '{'%x' * 1_990}b'"] * 24),
    "labels": START + " OR ".join(["toLabel(Tier__c)='x'"] * 4_000),
    "name": START + "a" * 99_900,
    "path": START + ".".join(["Account__r"] * 9_000) + " = 'x'",
    "functions": START + "a(" * 30_000 + "Id" + ")" * 30_000 + " = 1",
    "string": START + f"Name = '{'x' * 99_900}'",
    "number": START + f"Amount__c = {'9' * 99_900}",
    "limit": f"SELECT Id FROM Customer__c LIMIT {'9' * 99_900}",
    "order": f"SELECT Id FROM Customer__c ORDER BY {', '.join(['Id'] * 24_000)}",
    "fields": f"SELECT {', '.join(f'Plan__c a{n}' for n in range(6_000))} FROM Customer__c",
    "counts": f"SELECT {', '.join(f'COUNT(Id) a{n}' for n in range(4_500))} FROM Customer__c",
    "groups": f"SELECT COUNT(Id) FROM Customer__c GROUP BY {', '.join(['Name'] * 10_000)}",
    "children": f"SELECT {', '.join(['(SELECT Id FROM Customers__r)'] * 3_000)} FROM Account",
    "subqueries": "SELECT (" * 10_000,
    "branches": f"SELECT TYPEOF Owner {'WHEN User THEN Id ' * 5_000}END FROM Customer__c",
    "blanks": "SELECT Id" + " \n\t" * 30_000 + "FROM Account",
    "too long": "SELECT Id FROM Account WHERE Name = '" + "x" * 100_000,
}
SECONDS_MAX = 20


@pytest.fixture(scope="module")
def mounted(schema: Path) -> Iterator[Mounted]:
    org = Mounted(schema, clock=Clock(NOW))
    accounts = {n: org.create("Account", {"Name": f"a{n}", "Industry": name}) for n, name in ACCOUNTS.items()}
    for row in ROWS:
        org.create("Customer__c", {**row, "Account__c": accounts.get(row["Account__c"])})
    yield org
    org.close()


@pytest.mark.slow
@examples(150)
@given(CONDITIONS)
def test_conditions_find_the_rows_that_soqls_rules_name(mounted: Mounted, condition: Condition) -> None:
    text, holds = condition
    soql = f"SELECT Name FROM Customer__c WHERE {text}"
    reply = mounted.api("GET", "/query", query_string={"q": soql})
    assert reply.status_code == 200, reply.text
    assert [r["Name"] for r in reply.json["records"]] == [row["Name"] for row in ROWS if holds(row)], soql


@pytest.mark.slow
@examples(300)
@given(GARBAGE | mutated(), st.sampled_from(["/query", "/queryAll"]), st.booleans())
def test_no_text_breaks_the_server(mounted: Mounted, text: str, path: str, columns: bool) -> None:
    query = {"q": text, **({"columns": "true"} if columns else {})}
    try:
        reply = mounted.api("GET", path, query_string=query)
    except UnicodeEncodeError:  # a lone surrogate can't be sent at all
        return
    assert reply.status_code in (200, 400, 414), text
    if reply.status_code == 400:
        assert reply.json[0].keys() == {"errorCode", "message"} and reply.json[0]["errorCode"] in KNOWN, text


@examples(100)
@given(GARBAGE | mutated())
def test_no_text_breaks_a_bulk_query(mounted: Mounted, text: str) -> None:
    ended(mounted, text)


@pytest.mark.slow
@pytest.mark.parametrize("name", list(GIANT))
def test_no_statement_is_too_large_to_be_answered_or_refused(mounted: Mounted, name: str) -> None:
    began = time.process_time()
    ended(mounted, GIANT[name])
    assert time.process_time() - began < SECONDS_MAX


def ended(org: Mounted, text: str) -> None:
    """A Bulk query of this text is refused with a known code, or comes to an end."""
    reply = org.api("POST", "/jobs/query", {"operation": "query", "query": text})
    assert reply.status_code in (200, 400), text
    if reply.status_code == 400:
        assert reply.json[0].keys() == {"errorCode", "message"} and reply.json[0]["errorCode"] in KNOWN | {
            "API_ERROR"
        }, text
    else:
        info = org.info(reply.json["id"], "query")
        assert (info["state"], "errorMessage" in info) in (("JobComplete", False), ("Failed", True)), info
