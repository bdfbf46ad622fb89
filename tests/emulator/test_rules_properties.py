"""Random schemas and rows through three doors, against the data rules restated in `datarules`.

What a door accepts is read back under those rules by every way of reading; what it refuses has the stated code, text
and fields, and changes nothing. `make deep` (or `DEEP=20 pytest ...`) takes 20 times as many examples, at random.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, note
from hypothesis import strategies as st

from .datarules import CLOSED as CLOSED_TEXT
from .datarules import NUMBERS, Refusal, Rule, Verdict, World, compared, csv_says, json_verdict, matched, suffix
from .deep import examples
from .doors import DELIMITERS, ENDINGS, Bulk, Collections, Door, Reply, Row, Singles, Wire
from .mounted import Mounted

Json = dict[str, Any]
NAME = Rule("Name", "Text", length=80, shown="Thing Name")
ROW = Rule("Row__c", "Text", length=20)
SYSTEM = ("IsDeleted", "CreatedDate", "LastModifiedDate", "SystemModstamp")
DELETED = Refusal("ENTITY_IS_DELETED", "entity is deleted")


# --- schemas -------------------------------------------------------------------------------------------------------


KINDS = [
    "Text", "Text", "Email", "Number", "Number", "Picklist", "MultiselectPicklist", "Checkbox", "Date", "DateTime",
    "Time", "TextArea", "LongTextArea", "Url", "Phone", "Currency", "Percent", "Lookup", "AutoNumber", "Formula",
]  # fmt: skip


@st.composite
def a_rule(draw: st.DrawFn, number: int) -> Rule:
    kind = draw(st.sampled_from(KINDS))
    flag = st.booleans()
    more: Json = {}
    if kind in ("Text", "Email", "Number") and draw(flag):
        more = {"unique": draw(flag), "external_id": draw(flag)}
        if kind == "Text" and more["unique"]:
            more["case_sensitive"] = draw(flag)
    if kind == "Text":
        more["length"] = draw(st.integers(3, 12))
    if kind == "LongTextArea":
        more["length"] = 300
    if kind in NUMBERS:
        precision = draw(st.integers(1, 15))
        more |= {"precision": precision, "scale": draw(st.integers(0, precision))}
    if kind in ("Picklist", "MultiselectPicklist"):
        more |= {"values": ("Gold", "Macy's <b>", "é"), "inactive": ("Old",), "restricted": draw(flag)}
    if not more.get("unique"):
        default = {"Text": "dbt", "Checkbox": True, "Number": "0", "Picklist": "Gold"}.get(kind)
        more["default"] = draw(st.sampled_from([None, default]))
    if kind not in ("Checkbox", "AutoNumber", "Formula"):
        more["required"] = draw(st.sampled_from([False, False, True]))
        if not (more["required"] or more.get("unique") or more.get("external_id")):
            more["closed"] = draw(st.sampled_from([False] * 7 + [True]))
    return Rule(f"F{number}_{kind}__c", kind, **more)


@st.composite
def schemas(draw: st.DrawFn) -> list[Rule]:
    found = [draw(a_rule(n)) for n in range(draw(st.integers(1, 5)))]
    if draw(st.sampled_from([False, False, True])):
        found.append(Rule("Boss__c", "MasterDetail"))
    return found


# --- values --------------------------------------------------------------------------------------------------------

BLANK: list[Wire] = [(None, "#N/A"), ("", ""), (" ", " "), ("\t\n", "\t\n"), ("#N/A", "#N/A")]
LETTERS = "abABz09 éÉß中🎉\u00a0\t\n,;|^`'\"\\<&#%_-."
DIGITS = [
    "0",
    "-0.0",
    "7",
    " 7 ",
    "+12",
    ".5",
    "5.",
    "-3.25",
    "1e2",
    "1E+2",
    "2.5e-3",
    "237.631",
    "0.30000000000000004",
]
NO_NUMBERS = ["1,000", "abc", "1_0", "0x10", "NaN", "Infinity", "--1", "1e", "1 2", "\u0661\u0662", "$5", "5%"]
DAYS = ["1700-01-01", "1969-12-31", "2024-02-29", "4000-12-31", " 2024-01-31 "]
NO_DAYS = ["1699-12-31", "4001-01-01", "2023-02-29", "2024-13-01", "2024-1-1", "20240101", "01/02/2024", "today"]
MOMENTS = [
    "2024-02-29T12:30:45Z", "2024-02-29T12:30:45.999Z", "1969-12-31T23:59:59.5Z", "2024-03-31T02:30:00+02:00",
    "2024-03-31T02:30:00-0530", "2024-01-01T00:00:00.000+14:00", "1700-01-01T00:00:00Z", "4000-12-31T23:59:59Z",
]  # fmt: skip
NO_MOMENTS = [
    "2024-02-29", "2024-02-29 12:30:45", "2023-02-29T00:00:00Z", "2024-01-01T24:00:00Z", "2024-01-01T00:60:00Z",
    "1699-12-31T23:59:59Z", "4001-01-01T00:00:00Z", "1700-01-01T00:00:00+01:00", "now",
]  # fmt: skip
TIMES, NO_TIMES = ["00:00:00Z", "08:30:00.5Z", "23:59:59.999Z"], ["24:00:00Z", "08:60:00Z", "8:30:00Z", "noon"]
EMAILS = ["a@b.co", "Michael.Bluth@Example.COM", " x+1@y-z.io ", "e" * 68 + "@example.com"]
NO_EMAILS = ["XX", "a@b", "a b@c.de", "@b.co", "a@@b.co", "e" * 69 + "@example.com"]
OBJECTS = {"Lookup": "Account", "MasterDetail": "Boss__c"}


def alike(texts: list[str]) -> st.SearchStrategy[Wire]:
    return st.sampled_from(texts).map(lambda text: (text, text))


def texts(longest: int) -> st.SearchStrategy[str]:
    edge = [unit * size for unit in ("x", "é", "🎉") for size in (longest, longest + 1)]
    return st.text(LETTERS, max_size=min(longest + 2, 15)) | st.sampled_from(
        [*edge, f"  {'x' * longest}\t", "\u00a0x\u00a0", "\u00a0"]
    )


def numbers(rule: Rule) -> st.SearchStrategy[Wire]:
    limit = 10 ** (rule.precision - rule.scale)
    native = st.sampled_from([limit - 1, limit, -limit, 1 - limit, 0]) | st.integers(-2 * limit, 2 * limit)
    # What is not far under the limit could be rounded up to it.
    precise = st.floats(-0.9 * limit, 0.9 * limit, allow_nan=False, allow_subnormal=False)
    return (
        (native | precise).map(lambda n: (n, str(n))) | alike(DIGITS) | (native | precise).map(lambda n: (str(n),) * 2)
    )


FLAGS: list[Wire] = [
    (True, "true"), (False, "false"), ("true", "TRUE"), ("FALSE", "False"), (" true ", " true "), ("1", "1"), (0, "0"),
    ("yes", "yes"), ("t", "t"), ("2", "2"), (1.0, "1.0"),
]  # fmt: skip


# JSON of another type than the field's.
ODD: st.SearchStrategy[Wire] = st.sampled_from([(True, "true"), (False, "false"), (1.5e300, "1.5E300")])


def links(rule: Rule, *, good: bool) -> st.SearchStrategy[Wire]:
    """Names of ids, which `Orgs.row` fills in once they are known."""
    target = OBJECTS[rule.kind]
    if good:
        return alike([f"@{target} live {form}" for form in ("18", "15")])
    named = [f"@{target} {what}" for what in ("dead 18", "unknown 18", "live checksum", "elsewhere 18")]
    return alike([*named, "@User live 18", "abc", "0" * 18, "x" * 17, "é" * 15])


def good_wires(rule: Rule) -> st.SearchStrategy[Wire]:
    """Values that the field takes, at its edges too."""
    limit = 10 ** (rule.precision - rule.scale)
    match rule.kind:
        case "Checkbox":
            return st.sampled_from(FLAGS[:5])
        case "Date":
            return alike(DAYS)
        case "DateTime":
            return alike(MOMENTS)
        case "Time":
            return alike(TIMES)
        case "Email":
            return alike(EMAILS)
        case "Lookup" | "MasterDetail":
            return links(rule, good=True)
        case "Picklist":
            return alike([*rule.values, " Gold "])
        case "MultiselectPicklist":
            return alike(["Gold", "é;Gold", "Macy's <b>;é;Gold"])
        case kind if kind in NUMBERS:
            small = st.sampled_from([d for d in DIGITS if abs(float(d)) < limit])
            return small.map(lambda d: (d, d)) | numbers(rule).filter(lambda w: abs(float(w[0])) < limit)
        case _:
            free = texts(rule.longest).filter(lambda text: len(text.strip()) <= rule.longest)
            return free.map(lambda text: (text, text)) | st.sampled_from([(5, "5"), (-12, "-12")])


def any_wires(rule: Rule) -> st.SearchStrategy[Wire]:
    """Values of which some are blank, some at the edge, some bad."""
    blank: st.SearchStrategy[Wire] = st.sampled_from(BLANK)
    match rule.kind:
        case "Checkbox":
            return st.sampled_from(FLAGS) | blank
        case "Date":
            return alike(NO_DAYS + MOMENTS[:1]) | blank | ODD
        case "DateTime":
            return alike(NO_MOMENTS) | blank | ODD
        case "Time":
            return alike(NO_TIMES) | blank
        case "Email":
            return alike(NO_EMAILS) | blank
        case "Lookup":
            return links(rule, good=False) | st.sampled_from(BLANK[:2])
        case "MasterDetail":
            return links(rule, good=False)
        case "Picklist":
            return alike(["gold", "Old", "Gold tier", "Gold;é", "a'b\"<c>&", "p" * 256]) | blank
        case "MultiselectPicklist":
            return alike(["Gold;Old", "gold", "a'b"]) | blank
        case "AutoNumber" | "Formula":
            return alike(["1"])
        case kind if kind in NUMBERS:
            return numbers(rule) | alike(NO_NUMBERS) | blank | ODD
        case _:
            return texts(rule.longest).map(lambda text: (text, text)) | blank


# Of a relationship no document says that #N/A asks for null: it is a key like any other, which no record has.
KEYS = alike(["k1", " k1 ", "K1", "dup", "gone", "dead", "#N/A"]) | st.just(("", ""))


@st.composite
def rows(draw: st.DrawFn, rules: list[Rule], *, whole: bool) -> Row:
    """A row; a `whole` one names most fields. Every other row is good, so that much is stored to be read."""
    row: Row = {}
    good = draw(st.booleans())
    for rule in rules:
        if rule.read_only and (good or draw(st.integers(0, 9))):
            continue
        wanted = rule.kind == "MasterDetail" or (good and whole and rule.required)
        if wanted or draw(st.integers(0, 9)) < (8 if whole else 4):
            if rule.kind == "Lookup" and draw(st.integers(0, 3)) == 0:
                row[rule.name.replace("__c", "__r.Code__c")] = draw(alike(["k1", " k1 "]) if good else KEYS)
            elif good or draw(st.booleans()):
                row[rule.name] = draw(good_wires(rule) if not rule.read_only else any_wires(rule))
            else:
                row[rule.name] = draw(any_wires(rule))
    if draw(st.integers(0, 4)) == 0:
        row["Name"] = draw(good_wires(NAME) | any_wires(NAME))
    return row


# --- the model -----------------------------------------------------------------------------------------------------


@dataclass
class Record:
    id: str
    values: Json
    created: str
    modified: str
    deleted: bool = False


@dataclass
class Model:
    """What one object should hold, by the rules."""

    rules: dict[str, Rule]
    records: list[Record] = field(default_factory=list)

    @property
    def living(self) -> list[Record]:
        return [r for r in self.records if not r.deleted]

    def faults(self, verdicts: dict[str, Verdict], old: Record | None) -> list[Refusal]:
        """Every error that a row may get: a new one, or one for a record."""
        given = {name: v for name, v in verdicts.items() if v.given}
        found = [refusal for v in given.values() for refusal in v.refused]
        shut = [n for n in given if self.rules[n].read_only or (old and self.rules[n].kind == "MasterDetail")]
        if shut:
            found.append(Refusal("INVALID_FIELD_FOR_INSERT_UPDATE", CLOSED_TEXT.format(", ".join(shut)), tuple(shut)))
        missing = tuple(rule.name for rule in self.rules.values() if self._missing(rule, given.get(rule.name), old))
        if missing and not any(refusal.code in _FIRST for refusal in found):
            message = f"Required fields are missing: [{', '.join(missing)}]"
            found.append(Refusal("REQUIRED_FIELD_MISSING", message, missing))
        for name, verdict in given.items():
            rule = self.rules[name]
            if rule.unique and verdict.stored is not None and not verdict.refused:
                holders = [r for r in self.living if r is not old and self._same(rule, r, verdict.stored)]
                message = f"duplicate value found: {name} duplicates value on record with id: "
                found += [Refusal("DUPLICATE_VALUE", message + holder.id) for holder in holders]
        return found

    @staticmethod
    def _missing(rule: Rule, verdict: Verdict | None, old: Record | None) -> bool:
        if not (rule.required or rule.kind == "MasterDetail"):
            return False
        if verdict is None:
            return old is None and rule.default is None
        return verdict.stored is None and not verdict.refused

    @staticmethod
    def _same(rule: Rule, record: Record, stored: Any) -> bool:
        return compared(rule, record.values[rule.name]) == compared(rule, stored)

    def create(self, rid: str, verdicts: dict[str, Verdict], now: str) -> None:
        values: Json = {name: self._default(rule) for name, rule in self.rules.items()}
        values |= {name: v.stored for name, v in verdicts.items() if v.given}
        values["Name"] = values["Name"] or rid
        self.records.append(Record(rid, values, now, now))

    def update(self, record: Record, verdicts: dict[str, Verdict], now: str) -> None:
        record.values |= {name: v.stored for name, v in verdicts.items() if v.given}
        record.values["Name"] = record.values["Name"] or record.id
        record.modified = now

    @staticmethod
    def _default(rule: Rule) -> Any:
        if rule.kind == "Checkbox":
            return bool(rule.default)
        return float(rule.default) if rule.kind in NUMBERS and rule.default is not None else rule.default

    def matches(self, key: Rule, stored: Any) -> list[Record]:
        return [r for r in self.living if matched(key, r.values[key.name]) == matched(key, stored)]


# A row that breaks one of these is not looked at for what is missing.
_FIRST = {
    "JSON_PARSER_ERROR", "INVALID_FIELD", "STRING_TOO_LONG", "INVALID_EMAIL_ADDRESS", "NUMBER_OUTSIDE_VALID_RANGE",
    "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST", "MALFORMED_ID", "INVALID_FIELD_FOR_INSERT_UPDATE",
    "DUPLICATE_EXTERNAL_ID",
}  # fmt: skip


class Orgs:
    """An org with the same fields in three objects, one for each door, and what each should hold."""

    def __init__(self, schema: Path, rules: list[Rule]) -> None:
        self.org = Mounted(schema)
        self.rules = {r.name: r for r in [NAME, ROW, *rules]}
        declared = {r.name: r.declared() for r in [ROW, *rules]}
        things = {f"{n}__c": {"label": "Thing", "fields": _apart(declared, n)} for n in ("Single", "Many", "File")}
        code = {"type": "Text", "length": 20, "external_id": True}
        fields = {"Account": {"fields": {"Code__c": code}}, "Boss__c": {}}
        self.org.app.change_schema({"objects": fields | things})
        self.world, self.named = self._world()
        doors: list[tuple[type[Door], str]] = [(Singles, "Single__c"), (Collections, "Many__c"), (Bulk, "File__c")]
        self.doors = [(kind(self.org, name, self.rules, self.world), Model(self.rules)) for kind, name in doors]

    def _world(self) -> tuple[World, dict[str, str]]:
        org, world = self.org, World()
        named = {"@User live 18": org.app.identity.user_id}
        for name in ("Account", "Boss__c"):
            live, dead = (org.create(name, {"Name": n}) for n in ("live", "dead"))
            assert org.api("DELETE", f"/sobjects/{name}/{dead}").status_code == 204
            world.known[name] = {live: "live", dead: "deleted"}
            world.prefixes[name] = live[:3]
            wrong = "AAA" if live[15:] != "AAA" else "AAB"
            unknown, elsewhere = live[:6] + "zzzzzzzzz", live[:3] + "0x0" + live[6:15]
            named |= {
                f"@{name} live 18": live, f"@{name} live 15": live[:15], f"@{name} live checksum": live[:15] + wrong,
                f"@{name} dead 18": dead, f"@{name} unknown 18": unknown + suffix(unknown),
                f"@{name} elsewhere 18": elsewhere + suffix(elsewhere),
            }  # fmt: skip
        coded = [org.create("Account", {"Name": "coded", "Code__c": key}) for key in ("k1", "dup", "dup", "dead")]
        assert org.api("DELETE", f"/sobjects/Account/{coded[3]}").status_code == 204
        world.known["Account"] |= dict.fromkeys(coded[:3], "live")
        world.keys = {"k1": coded[:1], "dup": coded[1:3]}
        return world, named

    def write_files_as(self, delimiter: str, ending: str) -> None:
        for door, _ in self.doors:
            if isinstance(door, Bulk):
                door.dialect = delimiter, ending

    def row(self, row: Row) -> Row:
        """The row with its ids filled in."""
        return {
            n: (self.named.get(v, v) if isinstance(v, str) else v, self.named.get(c, c)) for n, (v, c) in row.items()
        }

    @property
    def now(self) -> str:
        return self.org.clock().strftime("%Y-%m-%dT%H:%M:%S.000+0000")

    def insert(self, given: list[Row], step: int) -> None:
        marked = [self.row(row) | {"Row__c": (f"{step}-{n}",) * 2} for n, row in enumerate(given)]
        for door, model in self.doors:
            verdicts = door.verdicts(marked)
            for reply, verdict in zip(door.insert(marked), verdicts, strict=True):
                if told(reply, model.faults(verdict, None)):
                    assert reply.created
                    model.create(reply.id, verdict, self.now)

    def update(self, place: int, row: Row, *, short: bool) -> None:
        for door, model in self.doors:
            if not model.records:
                continue
            record = model.records[place % len(model.records)]
            verdict = door.shifted(self.row(row)) if isinstance(door, Bulk) else door.verdicts([self.row(row)])[0]
            faults = [*model.faults(verdict, record), *([DELETED] if record.deleted else [])]
            reply = door.update(record.id[:15] if short else record.id, self.row(row))
            assert (reply.status == 404) == (record.deleted and door.single and not unreadable(verdict))
            if told(reply, faults):
                assert (reply.id, reply.created) == (record.id[:15] if short and door.single else record.id, False)
                model.update(record, verdict, self.now)

    def upsert(self, key: Rule, wire: Wire, row: Row) -> None:
        row = {name: w for name, w in self.row(row).items() if name != key.name}
        for door, model in self.doors:
            verdict = door.shifted(row) if isinstance(door, Bulk) else door.verdicts([row])[0]
            sought = json_verdict(key, wire[1], self.world, single=door.single)
            assume(sought.stored is not None and not sought.refused)
            hits = model.matches(key, sought.stored)
            reply = door.upsert(key, wire, row)
            if len(hits) > 1 and door.single:
                assert reply.status == 300
                continue
            whole = verdict | {key.name: sought}
            faults = model.faults(whole if not hits else verdict, hits[0] if hits else None)
            if len(hits) > 1:
                listed = ", ".join(hit.id for hit in hits)
                message = f"{key.name}: more than one record found for external id field: [{listed}]"
                faults.append(Refusal("DUPLICATE_EXTERNAL_ID", message, (key.name,)))
            if not told(reply, faults):
                continue
            assert reply.created == (not hits) and reply.status in (0, 200 if hits else 201)
            if hits:
                assert reply.id == hits[0].id
                model.update(hits[0], verdict, self.now)
            else:
                model.create(reply.id, whole, self.now)

    def delete(self, place: int, *, short: bool) -> None:
        for door, model in self.doors:
            if not model.records:
                continue
            record = model.records[place % len(model.records)]
            reply = door.delete(record.id[:15] if short else record.id)
            if told(reply, [DELETED] if record.deleted else []):
                record.deleted, record.modified = True, self.now

    def read(self) -> None:
        """Each object holds what it should, as queryAll tells it."""
        for door, model in self.doors:
            soql = f"SELECT {', '.join([*self.rules, 'Id', *SYSTEM])} FROM {door.object} ORDER BY Id"
            reply = self.org.api("GET", "/queryAll", query_string={"q": soql})
            assert reply.status_code == 200, reply.text
            assert reply.json is not None
            found = {r.pop("Id"): {k: v for k, v in r.items() if k != "attributes"} for r in reply.json["records"]}
            wanted = {r.id: self.seen(r) for r in model.records}
            seen = {k: self.compared(v) for k, v in found.items()}
            assert seen == wanted, [
                (k, n, seen[k][n], v[n]) for k, v in wanted.items() for n in v if seen[k][n] != v[n]
            ]

    def read_every_way(self) -> None:
        """Record by record, many at once, and by a Bulk query: the same."""
        for door, model in self.doors:
            names = [*self.rules, *SYSTEM]
            living = model.living
            for record in model.records:
                reply = self.org.api("GET", f"/sobjects/{door.object}/{record.id[:15]}")
                assert reply.status_code == (404 if record.deleted else 200)
                if not record.deleted:
                    assert self.compared(reply.json) == self.seen(record)
            body = {"ids": [r.id for r in model.records], "fields": names}
            many = self.org.api("POST", f"/composite/sobjects/{door.object}", body).json
            assert [m and self.compared(m) for m in many] == [  # type: ignore[union-attr]
                None if r.deleted else self.seen(r) for r in model.records
            ]
            query = {"operation": "query", "query": f"SELECT Id, {', '.join(self.rules)} FROM {door.object}"}
            job = self.org.api("POST", "/jobs/query", query).json["id"]  # type: ignore[index]
            assert self.org.info(job, "query")["state"] == "JobComplete"
            text = self.org.api("GET", f"/jobs/query/{job}/results").get_data().decode()
            told_rows = {r["Id"]: r for r in csv.DictReader(io.StringIO(text, newline=""))}
            assert told_rows.keys() == {r.id for r in living}
            for record in living:
                for name, rule in self.rules.items():
                    if rule.kind not in ("AutoNumber", "Formula"):
                        assert csv_says(rule, record.values[name], told_rows[record.id][name]), (
                            name,
                            record.values[name],
                        )

    def seen(self, record: Record) -> Json:
        values = {n: v for n, v in record.values.items() if self.rules[n].kind not in ("AutoNumber", "Formula")}
        stamps = {"CreatedDate": record.created, "LastModifiedDate": record.modified, "SystemModstamp": record.modified}
        return values | stamps | {"IsDeleted": record.deleted}

    def compared(self, record: Json) -> Json:
        kept = {n for n, rule in self.rules.items() if rule.kind not in ("AutoNumber", "Formula")} | set(SYSTEM)
        return {n: v for n, v in record.items() if n in kept}


def _apart(declared: dict[str, Json], name: str) -> dict[str, Json]:
    """The fields of one of the objects: names of relationships are the parent's, so each object has its own."""
    named = {f: f"{name}_{spec['relationship_name']}".replace(" ", "_") for f, spec in declared.items() if "to" in spec}
    return {f: spec | ({"relationship_name": named[f]} if f in named else {}) for f, spec in declared.items()}


def told(reply: Reply, faults: list[Refusal]) -> bool:
    """Whether the row was accepted, as it must be without a fault; one with faults says why, and nothing else."""
    if not faults:
        assert not reply.refused, reply
        return True
    assert reply.refused, faults
    if len(faults) == 1:
        assert reply.said(faults[0]), (reply, faults)
    assert reply.among(faults), (reply, faults)
    return False


def unreadable(verdicts: dict[str, Verdict]) -> bool:
    return any(refusal.code == "JSON_PARSER_ERROR" for v in verdicts.values() for refusal in v.refused)


@contextmanager
def opened(schema: Path, rules: list[Rule]) -> Iterator[Orgs]:
    orgs = Orgs(schema, rules)
    try:
        yield orgs
    finally:
        orgs.org.close()


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A schema folder with nothing in it: the built-in objects alone."""
    return tmp_path_factory.mktemp("plain")


@pytest.mark.slow
@examples(60)
@given(schemas(), st.data())
def test_what_is_accepted_reads_back_and_what_is_refused_changes_nothing(
    plain: Path, rules: list[Rule], data: st.DataObject
) -> None:
    for rule in rules:
        note(str(rule))
    keys = [r for r in rules if r.external_id]
    with opened(plain, rules) as orgs:
        orgs.write_files_as(data.draw(st.sampled_from(list(DELIMITERS))), data.draw(st.sampled_from(list(ENDINGS))))
        for step in range(data.draw(st.integers(1, 4))):
            orgs.org.clock.advance(1)
            kinds = ["insert", "insert"] + (["update", "delete"] if step else []) + (["upsert"] * 2 if keys else [])
            match data.draw(st.sampled_from(kinds)):
                case "insert":
                    many = st.lists(rows(rules, whole=True), min_size=1, max_size=3)
                    orgs.insert(data.draw(many), step)
                case "update":
                    row = data.draw(rows(rules, whole=False))
                    orgs.update(data.draw(st.integers(0, 5)), row, short=data.draw(st.booleans()))
                case "upsert":
                    key = data.draw(st.sampled_from(keys))
                    orgs.upsert(key, data.draw(key_wires(key)), data.draw(rows(rules, whole=True)))
                case "delete":
                    orgs.delete(data.draw(st.integers(0, 5)), short=data.draw(st.booleans()))
            orgs.read()
        orgs.read_every_way()


def key_wires(key: Rule) -> st.SearchStrategy[Wire]:
    """Keys that can stand in a path, often the same ones in another case."""
    if key.kind in NUMBERS:
        return alike(["0", "1", "1.0", ".5", "0.50"])
    return alike(["a@b.co", "A@b.CO", "é@b.co"] if key.kind == "Email" else ["abc", "ABC", "é b", "É b", " abc "])
