"""Whole random queries over random rows, against the rules of SOQL written once more in Python.

A query is made together with the function that answers it. `make deep` takes more examples, at random.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cmp_to_key
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dinmo_dbt.emulator.clock import Clock

from .deep import examples
from .mounted import Mounted

Json = dict[str, Any]
NOW = datetime(2024, 2, 29, 15, 30, tzinfo=UTC)
TEAM = {"Code__c": {"type": "Text", "length": 20}, "Size__c": {"type": "Number", "precision": 9, "scale": 1}}
LEVELS = ("Low", "high", "Alpha")  # in this order, which is not the alphabet's
SCHEMA: Json = {
    "objects": {
        "Team__c": {"fields": TEAM | {"Over__c": {"type": "Lookup", "to": "Team__c", "relationship_name": "Below"}}},
        "Task__c": {
            "fields": {
                "Text__c": {"type": "Text", "length": 40},
                "Exact__c": {"type": "Text", "length": 40, "unique": True, "case_sensitive": True},
                "Number__c": {"type": "Number", "precision": 9, "scale": 1},
                "Flag__c": {"type": "Checkbox"},
                "Day__c": {"type": "Date"},
                "Moment__c": {"type": "DateTime"},
                "Level__c": {"type": "Picklist", "values": list(LEVELS)},
                "Tags__c": {"type": "MultiselectPicklist", "values": ["A", "B", "C"]},
                "Group__c": {"type": "Text", "length": 20},
                "Team__c": {"type": "Lookup", "to": "Team__c", "relationship_name": "Tasks"},
            }
        },
    }
}
KINDS = {
    "Name": "folded", "Text__c": "folded", "Group__c": "folded", "Exact__c": "exact", "Number__c": "number",
    "Flag__c": "flag", "Day__c": "day", "Moment__c": "moment", "Level__c": "level", "Tags__c": "tags",
    "Code__c": "folded", "Size__c": "number",
}  # fmt: skip
TASK_PATHS = [
    "Name",
    "Text__c",
    "Group__c",
    "Exact__c",
    "Number__c",
    "Flag__c",
    "Day__c",
    "Moment__c",
    "Level__c",
    "Tags__c",
]
TEAM_PATHS = ["Name", "Code__c", "Size__c"]
TEXTS = ["alpha", "ALPHA", "Beta", "be_a", "50%", "it's", "b\\s", "É", "é\nx", "zz", "a"]
NUMBERS = [-3.5, -1.0, 0.0, 0.5, 2.0, 10.0]
DAYS = [(NOW + timedelta(days=d)).strftime("%Y-%m-%d") for d in (-400, -40, -8, -1, 0, 1, 7, 366)]
MOMENTS = [(NOW + timedelta(hours=h)).strftime("%Y-%m-%dT%H:%M:%S.000+0000") for h in (-9000, -30, -1, 0, 9, 200)]


def or_null(values: list[Any]) -> st.SearchStrategy[Any]:
    return st.none() | st.sampled_from(values) | st.sampled_from(values)


TASKS = st.fixed_dictionaries({
    "Text__c": or_null(TEXTS), "Number__c": or_null(NUMBERS), "Flag__c": st.booleans(), "Day__c": or_null(DAYS),
    "Moment__c": or_null(MOMENTS), "Level__c": or_null([*LEVELS, "Other", "beyond"]),
    "Tags__c": or_null(["A", "B", "A;B", "B;C", "A;B;C"]), "Group__c": or_null(["x", "y", "z"]),
    "Team__c": or_null([0, 1, 2]), "Exact__c": st.sampled_from([None, *(f"{c}ey" for c in "kKjJ")]),
})  # fmt: skip
TEAMS = st.fixed_dictionaries(
    {"Code__c": or_null(["N", "n", "s", "É"]), "Size__c": or_null(NUMBERS), "Over__c": or_null([0, 1])}
)


# --- values and conditions -------------------------------------------------------------------------------------------


def value(row: Json | None, path: str) -> Any:
    """What a path names in a row, null behind an empty lookup."""
    for name in path.split("."):
        row = None if row is None else row[name]
    return row


def kind(path: str) -> str:
    return KINDS[path.rpartition(".")[2]]


def seen(path: str, have: Any) -> Any:
    """A value as it is compared."""
    return have.lower() if isinstance(have, str) and kind(path) in ("folded", "level", "tags") else have


def quote(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n") + "'"


@dataclass(frozen=True)
class Condition:
    text: str
    holds: Callable[[Json], bool]


def literals(path: str) -> st.SearchStrategy[tuple[str, Any]]:
    """A literal and the value it has."""
    match kind(path):
        case "number":
            return st.sampled_from([*NUMBERS, 1.25]).map(lambda n: (str(n), n))
        case "flag":
            return st.booleans().map(lambda b: (str(b).upper(), b))
        case "day":
            return st.sampled_from(DAYS).map(lambda d: (d, d))
        case "moment":
            return st.sampled_from(MOMENTS).flatmap(moments)
        case "level":
            return st.sampled_from([*LEVELS, "LOW", "beyond", "none"]).map(lambda t: (quote(t), t))
        case "exact":
            return st.sampled_from(["key", "Key", "KEY", "jey"]).map(lambda t: (quote(t), t))
        case _:
            return st.sampled_from([*TEXTS, "BE_A", "n", "t1", "T2"]).map(lambda t: (quote(t), t))


def moments(stored: str) -> st.SearchStrategy[tuple[str, Any]]:
    moment = datetime.fromisoformat(stored.replace("+0000", "+00:00"))
    shifted = (moment + timedelta(hours=2)).strftime("%Y-%m-%dT%H:%M:%S+02:00")
    return st.sampled_from([stored, stored.replace(".000+0000", "Z"), shifted]).map(lambda text: (text, stored))


@st.composite
def simple(draw: st.DrawFn, paths: list[str]) -> Condition:
    path = draw(st.sampled_from(paths))
    if kind(path) == "tags":
        wanted = draw(st.lists(st.sampled_from(["A", "b", "A;B", "C"]), min_size=1, max_size=2))
        word = draw(st.sampled_from(["INCLUDES", "EXCLUDES"]))

        def tagged(row: Json) -> bool:
            have = set((value(row, path) or "").lower().split(";"))
            return any(set(w.lower().split(";")) <= have for w in wanted) == (word == "INCLUDES")

        return Condition(f"{path} {word} ({', '.join(map(quote, wanted))})", tagged)
    form = draw(st.sampled_from(["compare", "compare", "null", "in", "like"]))
    if form == "null" or (form == "like" and kind(path) not in ("folded", "exact", "level")):
        same = draw(st.booleans())
        return Condition(f"{path} {'=' if same else '!='} null", lambda row: (value(row, path) is None) == same)
    if form == "in":
        listed = draw(st.lists(literals(path), min_size=1, max_size=3))
        word = draw(st.sampled_from(["IN", "NOT IN"]))
        inside = {seen(path, v) for _, v in listed}
        text = f"{path} {word} ({', '.join(t for t, _ in listed)})"
        return Condition(text, lambda row: (seen(path, value(row, path)) in inside) == (word == "IN"))
    if form == "like":
        parts = draw(st.lists(st.sampled_from(["%", "_", "\\%", "\\_", "\\\\", "a", "K", "e", "é", "\\'"]), max_size=4))
        regex = {"%": ".*", "_": ".", "\\%": "%", "\\_": "_", "\\\\": r"\\", "\\'": "'"}
        pattern = re.compile("".join(regex.get(p, p) for p in parts), re.I | re.S)
        return Condition(
            f"{path} LIKE '{''.join(parts)}'",
            lambda row: value(row, path) is not None and pattern.fullmatch(value(row, path)) is not None,
        )
    operator = draw(st.sampled_from(["=", "!="] if kind(path) == "flag" else ["=", "!=", "<>", "<", "<=", ">", ">="]))
    text, want = draw(literals(path))
    return Condition(f"{path} {operator} {text}", lambda row: compare(path, value(row, path), operator, want))


def compare(path: str, have: Any, operator: str, want: Any) -> bool:
    """A null is different from every value, and neither before nor after it. A flag behind no lookup is false."""
    if have is None:
        return operator in ("!=", "<>")
    have, want = seen(path, have), seen(path, want)
    return {
        "=": have == want, "!=": have != want, "<>": have != want, "<": have < want, "<=": have <= want,
        ">": have > want, ">=": have >= want,
    }[operator]  # fmt: skip


def chain(parts: list[Condition], word: str) -> str:
    return f" {word} ".join(f"({part.text})" for part in parts)


def conditions(paths: list[str]) -> st.SearchStrategy[Condition]:
    def joined(inner: st.SearchStrategy[Condition]) -> st.SearchStrategy[Condition]:
        several = st.lists(inner, min_size=2, max_size=3)
        return st.one_of(
            several.map(lambda cs: Condition(chain(cs, "AND"), lambda row: all(c.holds(row) for c in cs))),
            several.map(lambda cs: Condition(chain(cs, "OR"), lambda row: any(c.holds(row) for c in cs))),
            inner.map(lambda c: Condition(f"NOT ({c.text})", lambda r: not c.holds(r))),
        )

    return st.recursive(simple(paths), joined, max_leaves=5)


# --- order -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sorting:
    path: str
    descending: bool
    nulls: str

    @property
    def text(self) -> str:
        return f"{self.path} {'DESC' if self.descending else 'ASC'} {self.nulls}".strip()

    def order(self, one: Json, other: Json) -> int:
        a, b = self.key(one), self.key(other)
        if a is None or b is None:
            first = -1 if "LAST" not in self.nulls else 1
            return 0 if a is b else first if a is None else -first
        return (a > b) - (a < b) if not self.descending else (b > a) - (b < a)

    def key(self, row: Json) -> Any:
        have = value(row, self.path)
        if have is not None and kind(self.path) == "level":  # as set up, what is not set up behind
            places = [level.lower() for level in LEVELS]
            return (places.index(have.lower()) if have.lower() in places else len(places), have.lower())
        return seen(self.path, have)


def orderings(paths: list[str]) -> st.SearchStrategy[list[Sorting]]:
    one = st.builds(Sorting, st.sampled_from(paths), st.booleans(), st.sampled_from(["", "NULLS FIRST", "NULLS LAST"]))
    return st.lists(one, max_size=3)


def arranged(rows: list[Json], sorted_by: list[Sorting]) -> list[Json]:
    def order(one: Json, other: Json) -> int:
        return next((found for s in sorted_by if (found := s.order(one, other))), 0)

    return sorted(rows, key=cmp_to_key(order))


def clauses(where: Condition | None, sorted_by: list[Sorting], last: str, limit: int | None, offset: int | None) -> str:
    order = ", ".join([s.text for s in sorted_by] + ([last] if last else []))
    return (
        (f" WHERE {where.text}" if where else "") + (f" ORDER BY {order}" if order else "")
        + (f" LIMIT {limit}" if limit is not None else "") + (f" OFFSET {offset}" if offset is not None else "")
    )  # fmt: skip


# --- the org ---------------------------------------------------------------------------------------------------------


@dataclass
class World:
    """An org, and its rows as Python has them: nested parents, oldest first."""

    org: Mounted
    teams: list[Json]
    tasks: list[Json]

    def query(self, soql: str, call: str = "query") -> Json:
        reply = self.org.api("GET", f"/{call}", query_string={"q": soql})
        assert reply.status_code == 200, (soql, reply.text)
        body: Json = reply.json  # type: ignore[assignment]
        return body


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("plain")


def world(plain: Path, teams: list[Json], tasks: list[Json]) -> World:
    org = Mounted(plain, clock=Clock(NOW))
    org.app.change_schema(SCHEMA)
    made: list[Json] = []
    for n, team in enumerate(teams):
        over = made[team["Over__c"]] if team["Over__c"] is not None and team["Over__c"] < n else None
        row = {"Name": f"T{n}", **team, "Over__c": over and over["Id"]}
        made.append(row | {"Id": org.create("Team__c", row), "Over__r": over})
    taken: set[str] = set()
    rows = []
    for n, task in enumerate(tasks):
        exact = None if task["Exact__c"] in taken else task["Exact__c"]
        taken |= {exact} if exact else set()
        team = made[task["Team__c"]] if task["Team__c"] is not None and task["Team__c"] < len(made) else None
        row = {"Name": f"t{n}", **task, "Exact__c": exact, "Team__c": team and team["Id"]}
        rows.append(row | {"Id": org.create("Task__c", row), "Team__r": team})
    return World(org, made, rows)


@st.composite
def worlds(draw: st.DrawFn) -> tuple[list[Json], list[Json]]:
    return draw(st.lists(TEAMS, max_size=3)), draw(st.lists(TASKS, max_size=12))


@pytest.fixture
def opened(plain: Path) -> Iterator[Callable[[tuple[list[Json], list[Json]]], World]]:
    before: list[World] = []

    def run(rows: tuple[list[Json], list[Json]]) -> World:
        while before:
            before.pop().org.close()
        before.append(world(plain, *rows))
        return before[-1]

    yield run
    while before:
        before.pop().org.close()


ALL_PATHS = [*TASK_PATHS, *(f"Team__r.{p}" for p in TEAM_PATHS), *(f"Team__r.Over__r.{p}" for p in TEAM_PATHS)]
SORTED_PATHS = [p for p in ALL_PATHS if p != "Tags__c"]
LIMITS = st.none() | st.integers(0, 6)


def told(row: Json, paths: list[str]) -> Json:
    """A record as a query tells it."""
    record: Json = {}
    for path in paths:
        place, names = record, path.split(".")
        for depth, name in enumerate(names[:-1], 1):
            if value(row, ".".join(names[:depth])) is None:
                place[name] = None
                break
            place = place.setdefault(name, {})
        else:
            place[names[-1]] = value(row, path)
    return record


def bare(record: Any) -> Any:
    """A reply without its attributes."""
    if isinstance(record, dict):
        return {k: bare(v) for k, v in record.items() if k != "attributes"}
    return [bare(r) for r in record] if isinstance(record, list) else record


Opened = Callable[[tuple[list[Json], list[Json]]], World]


@pytest.mark.slow
@examples(70)
@given(worlds(), st.data())
def test_a_query_selects_filters_sorts_and_cuts(
    opened: Opened, rows: tuple[list[Json], list[Json]], data: st.DataObject
) -> None:
    org = opened(rows)
    gone = data.draw(st.sets(st.integers(0, 11), max_size=2))
    for n in gone:
        if n < len(org.tasks):
            assert org.org.api("DELETE", f"/sobjects/Task__c/{org.tasks[n]['Id']}").status_code == 204
    for _ in range(4):
        paths = data.draw(st.lists(st.sampled_from(ALL_PATHS), min_size=1, max_size=5, unique=True))
        where, by = data.draw(st.none() | conditions(ALL_PATHS)), data.draw(orderings(SORTED_PATHS))
        limit, offset = data.draw(LIMITS), data.draw(LIMITS)
        everything = data.draw(st.booleans())
        found = [
            t for n, t in enumerate(org.tasks) if (everything or n not in gone) and (where is None or where.holds(t))
        ]
        cut = arranged(found, by)[offset or 0 :][:limit]
        soql = f"SELECT {', '.join(paths)} FROM Task__c{clauses(where, by, 'Id', limit, offset)}"
        reply = org.query(soql, "queryAll" if everything else "query")
        assert bare(reply["records"]) == [told(t, paths) for t in cut], soql
        assert (reply["totalSize"], reply["done"]) == (len(cut), True)
        counted = f"SELECT COUNT() FROM Task__c{clauses(where, [], '', limit, offset)}"
        assert org.query(counted, "queryAll" if everything else "query")["totalSize"] == len(cut), counted
        if not everything and offset is None:
            job = org.org.api("POST", "/jobs/query", {"operation": "query", "query": soql}).json["id"]  # type: ignore[index]
            assert org.org.info(job, "query")["state"] == "JobComplete"
            text = org.org.api("GET", f"/jobs/query/{job}/results").get_data().decode()
            header, *lines = csv.reader(io.StringIO(text, newline=""))
            assert header == paths
            assert lines == [[cell(value(t, p)) for p in paths] for t in cut]


def cell(have: Any) -> str:
    if isinstance(have, bool):
        return str(have).lower()
    return "" if have is None else str(have).replace(".000+0000", ".000Z")


@pytest.mark.slow
@examples(40)
@given(worlds(), st.data())
def test_children_are_filtered_sorted_and_cut_within_each_parent(
    opened: Opened, rows: tuple[list[Json], list[Json]], data: st.DataObject
) -> None:
    org = opened(rows)
    paths = data.draw(st.lists(st.sampled_from(TASK_PATHS), min_size=1, max_size=3, unique=True))
    where, by = (
        data.draw(st.none() | conditions(TASK_PATHS)),
        data.draw(orderings([p for p in TASK_PATHS if p != "Tags__c"])),
    )
    limit = data.draw(LIMITS.filter(lambda n: n != 0))
    outer = data.draw(st.none() | conditions(TEAM_PATHS))
    inner = f"SELECT {', '.join(paths)} FROM Tasks__r{clauses(where, by, 'Id', limit, None)}"
    soql = f"SELECT Name, ({inner}) FROM Team__c{clauses(outer, [], 'Id', None, None)}"
    expected = []
    for team in org.teams:
        if outer is None or outer.holds(team):
            mine = [t for t in org.tasks if t["Team__c"] == team["Id"] and (where is None or where.holds(t))]
            found = [told(t, paths) for t in arranged(mine, by)[:limit]]
            children = {"totalSize": len(found), "done": True, "records": found} if found else None
            expected.append({"Name": team["Name"], "Tasks__r": children})
    assert bare(org.query(soql)["records"]) == expected, soql


@pytest.mark.slow
@examples(40)
@given(worlds(), st.data())
def test_semi_joins_and_anti_joins_find_what_their_subqueries_name(
    opened: Opened, rows: tuple[list[Json], list[Json]], data: st.DataObject
) -> None:
    org = opened(rows)
    inside, beside = data.draw(conditions(TEAM_PATHS)), data.draw(conditions(TASK_PATHS))
    word = data.draw(st.sampled_from(["IN", "NOT IN"]))
    joined = f"Team__c {word} (SELECT Id FROM Team__c WHERE {inside.text})"
    soql = f"SELECT Name FROM Task__c WHERE {joined} AND ({beside.text})"
    teams = {t["Id"] for t in org.teams if inside.holds(t)}
    found = [t["Name"] for t in org.tasks if (t["Team__c"] in teams) == (word == "IN") and beside.holds(t)]
    assert [r["Name"] for r in org.query(soql)["records"]] == found, soql
    soql = f"SELECT Name FROM Team__c WHERE Id {word} (SELECT Team__c FROM Task__c WHERE {beside.text})"
    named = {t["Team__c"] for t in org.tasks if beside.holds(t)}
    found = [t["Name"] for t in org.teams if (t["Id"] in named) == (word == "IN")]
    assert [r["Name"] for r in org.query(soql)["records"]] == found, soql


# --- aggregates ------------------------------------------------------------------------------------------------------


def total(values: list[Any]) -> Any:
    return sum(values) if values else None


AGGREGATES: dict[str, Callable[[list[Any]], Any]] = {
    "COUNT": len, "COUNT_DISTINCT": lambda vs: len(set(vs)), "SUM": total,
    "AVG": lambda vs: sum(vs) / len(vs) if vs else None, "MIN": lambda vs: min(vs, default=None),
    "MAX": lambda vs: max(vs, default=None),
}  # fmt: skip


@st.composite
def aggregates(draw: st.DrawFn) -> tuple[str, Callable[[list[Json]], Any]]:
    name = draw(st.sampled_from(list(AGGREGATES)))
    paths = ["Number__c", "Team__r.Size__c"] + (
        [] if name in ("SUM", "AVG") else ["Day__c", "Moment__c", "Team__r.Name"]
    )
    path = draw(st.sampled_from(paths))
    return f"{name}({path})", lambda rows: AGGREGATES[name]([v for r in rows if (v := value(r, path)) is not None])


@pytest.mark.slow
@examples(50)
@given(worlds(), st.data())
def test_aggregates_group_filter_and_sort(
    opened: Opened, rows: tuple[list[Json], list[Json]], data: st.DataObject
) -> None:
    org = opened(rows)
    keys = data.draw(
        st.lists(st.sampled_from(["Group__c", "Flag__c", "Day__c", "Team__r.Code__c"]), max_size=2, unique=True)
    )
    chosen = data.draw(st.lists(aggregates(), min_size=1, max_size=3))
    where = data.draw(st.none() | conditions(ALL_PATHS))
    text, want = data.draw(st.none() | st.tuples(aggregates(), st.integers(0, 3))) or (None, 0)
    kept = [t for t in org.tasks if where is None or where.holds(t)]
    groups: dict[tuple[Any, ...], list[Json]] = {} if keys else {(): kept}
    for row in kept if keys else []:
        groups.setdefault(tuple(value(row, k) for k in keys), []).append(row)
    having = ""
    if text and keys and "COUNT" in text[0]:
        having = f" HAVING {text[0]} > {want}"
        groups = {k: g for k, g in groups.items() if text[1](g) > want}
    selected = ", ".join([*(f"{k} k{n}" for n, k in enumerate(keys)), *(name for name, _ in chosen)])
    grouped = f" GROUP BY {', '.join(keys)}" if keys else ""
    soql = f"SELECT {selected} FROM Task__c{clauses(where, [], '', None, None)}{grouped}{having}"
    found = [[v for k, v in r.items() if k != "attributes"] for r in org.query(soql)["records"]]
    expected = [[*key, *(answer(g) for _, answer in chosen)] for key, g in groups.items()]
    assert sorted(map(repr, found)) == sorted(map(repr, expected)), soql
    if keys:
        by = [Sorting(k, data.draw(st.booleans()), data.draw(st.sampled_from(["", "NULLS LAST"]))) for k in keys]
        limit, offset = data.draw(LIMITS), data.draw(LIMITS)
        tail = clauses(None, by, "", limit, offset)
        rows_of = [group[0] for group in groups.values()]
        cut = arranged(rows_of, by)[offset or 0 :][:limit]
        found = [[v for k, v in r.items() if k != "attributes"] for r in org.query(soql + tail)["records"]]
        assert [f[: len(keys)] for f in found] == [[value(r, k) for k in keys] for r in cut], soql + tail


# --- date literals ---------------------------------------------------------------------------------------------------

# Days by the number of their unit; weeks begin on Sunday, the fiscal year with the calendar's.
NUMBERED: dict[str, Callable[[date], int]] = {
    "DAY": date.toordinal, "WEEK": lambda d: d.toordinal() // 7, "MONTH": lambda d: d.year * 12 + d.month,
    "QUARTER": lambda d: d.year * 4 + (d.month - 1) // 3, "YEAR": lambda d: d.year,
}  # fmt: skip


@st.composite
def date_literals(draw: st.DrawFn) -> tuple[str, str, int, int]:
    """A literal, and the units it spans, counted from the current one."""
    unit = draw(st.sampled_from(list(NUMBERED)))
    n = draw(st.integers(1, {"DAY": 500, "WEEK": 70, "MONTH": 20, "QUARTER": 7, "YEAR": 3}[unit]))
    named = draw(st.sampled_from([unit, f"FISCAL_{unit}"])) if unit in ("QUARTER", "YEAR") else unit
    here = 0 if unit == "DAY" else -1  # only the last n days have today among them
    counted = [
        (f"LAST_N_{named}S:{n}", unit, -n, here),
        (f"NEXT_N_{named}S:{n}", unit, 1, n),
        (f"N_{named}S_AGO:{n}", unit, -n, -n),
    ]
    fixed = {"DAY": ("YESTERDAY", "TODAY", "TOMORROW")}.get(unit, (f"LAST_{named}", f"THIS_{named}", f"NEXT_{named}"))
    near = [(name, unit, at, at) for name, at in zip(fixed, (-1, 0, 1), strict=True)]
    ninety = [("LAST_90_DAYS", "DAY", -90, 0), ("NEXT_90_DAYS", "DAY", 1, 90)]
    return draw(st.sampled_from([*counted, *near, *ninety]))


def lies(at: int, operator: str, first: int, end: int) -> bool:
    """Where a unit lies to a span of units."""
    return {
        "=": first <= at <= end, "!=": not first <= at <= end, "<": at < first, "<=": at <= end, ">": at > end,
        ">=": at >= first,
    }[operator]  # fmt: skip


@pytest.mark.slow
@examples(25)
@given(st.datetimes(datetime(1999, 12, 1), datetime(2040, 3, 2)), st.data())
def test_date_literals_name_the_days_of_their_units(plain: Path, now: datetime, data: st.DataObject) -> None:
    org = Mounted(plain, clock=Clock(now.replace(tzinfo=UTC)))
    try:
        org.app.change_schema(SCHEMA)
        steps = st.lists(st.integers(-900, 900) | st.integers(-40, 40), min_size=1, max_size=40, unique=True)
        days = [now.date() + timedelta(days=d) for d in data.draw(steps)]
        last = [f"{day}T23:59:59Z" if n % 2 else f"{day}T00:00:00Z" for n, day in enumerate(days)]
        text = "Name,Day__c,Moment__c\n" + "".join(
            f"n{n},{d},{m}\n" for n, (d, m) in enumerate(zip(days, last, strict=True))
        )
        assert org.info(org.job("Task__c", text))["numberRecordsFailed"] == 0
        for _ in range(6):
            name, unit, first, end = data.draw(date_literals())
            operator = data.draw(st.sampled_from(["=", "!=", "<", "<=", ">", ">="]))
            field = data.draw(st.sampled_from(["Day__c", "Moment__c"]))
            places = [NUMBERED[unit](day) - NUMBERED[unit](now.date()) for day in days]
            soql = f"SELECT Name FROM Task__c WHERE {field} {operator} {name} ORDER BY Id"
            reply = org.api("GET", "/query", query_string={"q": soql})
            assert reply.status_code == 200, reply.text
            found = [r["Name"] for r in reply.json["records"]]  # type: ignore[index]
            assert found == [f"n{n}" for n, at in enumerate(places) if lies(at, operator, first, end)], (soql, now)
    finally:
        org.close()


# --- pages -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def many(plain: Path) -> Iterator[World]:
    """An org of 700 rows."""
    org = Mounted(plain, clock=Clock(NOW))
    org.app.change_schema(SCHEMA)
    text = "Name,Text__c,Number__c\n" + "".join(f"n{n},{TEXTS[n % 2]},{n * 7 % 100}\n" for n in range(700))
    job = org.job("Task__c", text)
    assert org.info(job)["numberRecordsProcessed"] == 700
    yield World(org, [], [])
    org.close()


@examples(15)
@given(
    st.integers(1, 2500), orderings(["Name", "Text__c", "Number__c"]),
    st.sampled_from(["", "Number__c > 30", "Name LIKE 'n1%'"]),
    st.none() | st.integers(0, 700), st.none() | st.integers(0, 700),
)  # fmt: skip
def test_pages_together_are_the_whole_answer(
    many: World, size: int, by: list[Sorting], where: str, limit: int | None, offset: int | None
) -> None:
    condition = Condition(where, lambda _: True) if where else None
    soql = f"SELECT Name, Number__c FROM Task__c{clauses(condition, by, '', limit, offset)}"
    whole = many.query(soql)
    headers = {"Sforce-Query-Options": f"batchSize={size}"}
    page: Json = many.org.api("GET", "/query", query_string={"q": soql}, headers=headers).json  # type: ignore[assignment]
    found, rows = page["records"], min(max(size, 200), 2000)
    while not page["done"]:
        assert (page["totalSize"], len(page["records"])) == (whole["totalSize"], rows)
        path = page["nextRecordsUrl"].partition("v62.0")[2]
        page = many.org.api("GET", path, headers=headers).json  # type: ignore[assignment]
        found += page["records"]
    assert "nextRecordsUrl" not in page and found == whole["records"]
