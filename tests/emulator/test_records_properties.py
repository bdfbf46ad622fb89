"""Laws of records beside their values: ids, batches of upserts, what a deletion takes along, record types, permissions.

`make deep` takes more examples, at random.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from .datarules import Refusal, Rule, World, matched, suffix
from .deep import examples
from .doors import Bulk, Collections, Reply, Singles, bulk_text
from .mounted import Mounted

Json = dict[str, Any]


@pytest.fixture(scope="module")
def org(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mounted]:
    mounted = Mounted(tmp_path_factory.mktemp("plain"))
    yield mounted
    mounted.close()


def errors(reply: Any) -> list[Refusal]:
    return [Refusal(e["errorCode"], e["message"], tuple(e.get("fields", ()))) for e in reply.json]


def found(org: Mounted, soql: str, call: str = "query") -> list[Json]:
    reply = org.api("GET", f"/{call}", query_string={"q": soql})
    assert reply.status_code == 200, reply.text
    return [{k: v for k, v in r.items() if k != "attributes"} for r in reply.json["records"]]  # type: ignore[index]


# --- ids -----------------------------------------------------------------------------------------------------------


@st.composite
def id_forms(draw: st.DrawFn, rid: str, other: str) -> tuple[str, str]:
    """A text for an id, and what it is: of the record, of another object, of no record, or no id at all."""
    short = rid[:15]
    match draw(st.sampled_from(["own", "own", "suffix", "other", "unknown", "case", "length", "symbol"])):
        case "own":
            return draw(st.sampled_from([rid, short])), "own"
        case "suffix":
            place, other_one = draw(st.integers(15, 17)), draw(st.sampled_from("ABCZ05az"))
            wrong = (rid[:place] + other_one + rid[place + 1 :])[15:]
            return short + wrong, "own" if wrong == rid[15:] else "malformed"
        case "other":
            return draw(st.sampled_from([other, other[:15]])), "other"
        case "unknown":
            counter = draw(st.text("0123456789ABCxyz", min_size=6, max_size=6))
            changed = short[:3] + draw(st.sampled_from([short[3:6], "9z9"])) + "z00" + counter
            return draw(st.sampled_from([changed, changed + suffix(changed)])), "unknown"
        case "case":  # in 18 characters the suffix tells, in 15 it is another id
            letters = [place for place, char in enumerate(short) if char.isalpha()]
            if not letters:
                return rid, "own"
            place = draw(st.sampled_from(letters))
            return short[:place] + short[place].swapcase() + rid[place + 1 :], "malformed"
        case "length":
            return draw(st.sampled_from([rid[:14], rid[:16], rid[:17], rid + "A", short[:3]])), "malformed"
        case _:
            place = draw(st.integers(0, 14))
            return short[:place] + draw(st.sampled_from("-_é ")) + short[place + 1 :], "malformed"


@pytest.mark.slow
@examples(60)
@given(st.data())
def test_an_id_is_taken_in_both_forms_and_known_for_what_it_is(org: Mounted, data: st.DataObject) -> None:
    rid, other = org.create("Contact", {"LastName": "own"}), org.create("Account", {"Name": "other"})
    text, what = data.draw(id_forms(rid, other))
    bad = Refusal("MALFORMED_ID", f"Contact ID: id value of incorrect type: {text}", ("Id",))
    gone = Refusal("INVALID_CROSS_REFERENCE_KEY", "invalid cross reference id")
    refused = {"own": None, "unknown": gone}.get(what, bad)

    body = {"records": [{"attributes": {"type": "Contact"}, "id": text, "FirstName": "many"}]}
    (item,) = org.api("PATCH", "/composite/sobjects", body).json  # type: ignore[misc]
    said = [Refusal(e["statusCode"], e["message"], tuple(e["fields"])) for e in item["errors"]]
    assert said == ([refused] if refused else [])

    job = org.job("Contact", f"Id,FirstName\n{text},file\n", "update")
    assert org.info(job)["numberRecordsFailed"] == (1 if refused else 0)
    assert [r["sf__Error"] for r in org.rows(job, "failedResults")] == ([bulk_text(refused)] if refused else [])

    retrieved = org.api("POST", "/composite/sobjects/Contact", {"ids": [text], "fields": ["FirstName"]}).json
    assert [r and r["FirstName"] for r in retrieved] == ["file" if what == "own" else None]  # type: ignore[union-attr]

    read = org.api("GET", "/query", query_string={"q": f"SELECT FirstName FROM Contact WHERE Id = '{text}'"})
    if what == "malformed":
        assert (read.status_code, errors(read)[0].code) == (400, "INVALID_QUERY_FILTER_OPERATOR")
    else:
        assert [r["FirstName"] for r in read.json["records"]] == (["file"] if what == "own" else [])  # type: ignore[index]

    if what == "own":
        assert org.api("GET", f"/sobjects/Contact/{text}").json["Id"] == rid  # type: ignore[index]
        assert org.api("DELETE", f"/sobjects/Contact/{text}").status_code == 204
    assert len(found(org, f"SELECT Id FROM Contact WHERE Id = '{rid}'")) == (0 if what == "own" else 1)


# --- upserts in batches --------------------------------------------------------------------------------------------

KEYS = [
    Rule("Folded__c", "Text", length=20, unique=True, external_id=True),
    Rule("Exact__c", "Text", length=20, unique=True, case_sensitive=True, external_id=True),
    Rule("Loose__c", "Text", length=20, external_id=True),
    Rule("Count__c", "Number", unique=True, external_id=True),
    Rule("Mail__c", "Email", external_id=True),
]
KEY_TEXTS = {
    "Text": ["abc", "ABC", " abc ", "é", "É", "x1", "x2", "x3"],
    "Number": ["1", "1.0", "+1", "2", "2.5", "25e-1", "3", "4"],
    "Email": ["a@b.co", "A@b.co", "b@b.co", "c@b.co"],
}


@pytest.fixture(scope="module")
def keyed(org: Mounted) -> Mounted:
    fields = {r.name: r.declared() for r in KEYS} | {"Mark__c": {"type": "Text", "length": 20}}
    org.app.change_schema({"objects": {"Many__c": {"fields": fields}, "File__c": {"fields": fields}}})
    return org


def stored(key: Rule, text: str | None) -> Any:
    if text is None or not text.strip():
        return None
    return float(text) if key.kind == "Number" else text.strip().lower() if key.kind == "Email" else text.strip()


@pytest.mark.slow
@examples(60)
@given(st.sampled_from(KEYS), st.data())
def test_a_batch_of_upserts_updates_creates_and_refuses_by_the_keys_rules(
    keyed: Mounted, key: Rule, data: st.DataObject
) -> None:
    texts = st.sampled_from(KEY_TEXTS[key.kind])
    before = data.draw(st.lists(texts, max_size=4))
    batch = data.draw(st.lists(texts | st.just(""), min_size=1, max_size=6))
    if key.unique:
        before = list({matched(key, stored(key, t)): t for t in before}.values())
    for name in ("Many__c", "File__c"):
        everything = found(keyed, f"SELECT Id FROM {name}")
        for start in range(0, len(everything), 200):
            ids = ",".join(r["Id"] for r in everything[start : start + 200])
            assert all(i["success"] for i in keyed.api("DELETE", f"/composite/sobjects?ids={ids}").json)  # type: ignore[union-attr]
        old = {keyed.create(name, {key.name: t, "Mark__c": f"old{n}"}): stored(key, t) for n, t in enumerate(before)}
        if name == "Many__c":
            kind = {"attributes": {"type": name}}
            records = [{**kind, key.name: t or None, "Mark__c": f"new{n}"} for n, t in enumerate(batch)]
            items = keyed.api("PATCH", f"/composite/sobjects/{name}/{key.name}", {"records": records}).json
            replies = _items(items)
        else:
            replies = _rows(keyed, name, key, [(t, f"new{n}") for n, t in enumerate(batch)])
        counts = Counter(matched(key, stored(key, t)) for t in batch if t)
        expected = {rid: f"old{list(old).index(rid)}" for rid in old}
        for n, (text, reply) in enumerate(zip(batch, replies, strict=True)):
            value = stored(key, text)
            hits = [rid for rid, have in old.items() if value is not None and matched(key, have) == matched(key, value)]
            faults = []
            if value is None:
                faults.append(Refusal("MISSING_ARGUMENT", f"{key.name} not specified"))
            elif counts[matched(key, value)] > 1:
                faults.append(Refusal("DUPLICATE_VALUE", f"Duplicate external id specified: {value}", (key.name,)))
            if len(hits) > 1:
                message = f"{key.name}: more than one record found for external id field: [{', '.join(hits)}]"
                faults.append(Refusal("DUPLICATE_EXTERNAL_ID", message, (key.name,)))
            assert reply.refused == bool(faults), (reply, faults)
            assert reply.among(faults), (reply, faults)
            if not faults:
                assert reply.created == (not hits) and (not hits or reply.id == hits[0])
                expected[reply.id] = f"new{n}"
        assert {r["Id"]: r["Mark__c"] for r in found(keyed, f"SELECT Id, Mark__c FROM {name}")} == expected


def _items(items: Any) -> list[Reply]:
    return [
        Reply(
            item.get("id", ""), item["success"] and item["created"],
            tuple(Refusal(e["statusCode"], e["message"], tuple(e["fields"])) for e in item["errors"]),
        )
        for item in items
    ]  # fmt: skip


def _rows(org: Mounted, name: str, key: Rule, cells: list[tuple[str, str]]) -> list[Reply]:
    """One job; its rows are told apart by Mark__c."""
    text = f"{key.name},Mark__c\n" + "".join(f'"{k}",{mark}\n' for k, mark in cells)
    job = org.job(name, text, "upsert", externalIdFieldName=key.name)
    assert org.info(job)["state"] == "JobComplete"
    good = {r["Mark__c"]: Reply(r["sf__Id"], r["sf__Created"] == "true") for r in org.rows(job, "successfulResults")}
    bad = {r["Mark__c"]: Reply(text=r["sf__Error"]) for r in org.rows(job, "failedResults")}
    return [(good | bad)[mark] for _, mark in cells]


# --- all or none ---------------------------------------------------------------------------------------------------

BAD: list[tuple[Json, str]] = [
    ({"Email": "x"}, "INVALID_EMAIL_ADDRESS"), ({"Nope__c": 1}, "INVALID_FIELD"),
    ({"Birthdate": "today"}, "JSON_PARSER_ERROR"), ({"CreatedDate": None}, "INVALID_FIELD_FOR_INSERT_UPDATE"),
    ({"AccountId": "x"}, "MALFORMED_ID"), ({"LastName": ""}, "REQUIRED_FIELD_MISSING"),
]  # fmt: skip


@pytest.mark.slow
@examples(50)
@given(
    st.lists(
        st.tuples(st.sampled_from(["Contact", "Account"]), st.none() | st.sampled_from(BAD)), min_size=1, max_size=6
    ),
    st.booleans(),
    st.sampled_from(["create", "update", "delete"]),
)
def test_a_collection_keeps_what_is_good_or_nothing(
    org: Mounted, given_records: list[tuple[str, tuple[Json, str] | None]], all_or_none: bool, how: str
) -> None:
    records, codes, ids = [], [], []
    for name, bad in given_records:
        good: Json = {"Name": "old"} if name == "Account" else {"LastName": "old"}
        ids.append(org.create(name, good) if how != "create" else "")
        flaw = bad if name == "Contact" else bad and ({"Nope__c": 1}, "INVALID_FIELD")
        fields = dict.fromkeys(good, "new") | (flaw[0] if flaw else {})
        records.append({"attributes": {"type": name}, **({"id": ids[-1]} if how == "update" else {}), **fields})
        codes.append(flaw[1] if flaw else "")
    before = {n: org.count(n) for n in ("Contact", "Account")}
    if how == "delete":
        asked = [
            rid if not code else rid[:15] + ("AAA" if rid[15:] != "AAA" else "AAB")
            for rid, code in zip(ids, codes, strict=True)
        ]
        codes = ["MALFORMED_ID" if code else "" for code in codes]
        path = f"/composite/sobjects?ids={','.join(asked)}&allOrNone={str(all_or_none).lower()}"
        items = org.api("DELETE", path).json
    else:
        body = {"allOrNone": all_or_none, "records": records}
        items = org.api("POST" if how == "create" else "PATCH", "/composite/sobjects", body).json
    undone = all_or_none and any(codes)
    expected = [code or ("ALL_OR_NONE_OPERATION_ROLLED_BACK" if undone else "") for code in codes]
    assert [i["errors"][0]["statusCode"] if i["errors"] else "" for i in items] == expected  # type: ignore[union-attr]
    assert [i["success"] for i in items] == [not code for code in expected]  # type: ignore[union-attr]
    kept = Counter(name for (name, _), code in zip(given_records, expected, strict=True) if not code)
    sign = {"create": 1, "update": 0, "delete": -1}[how]
    assert {n: org.count(n) - before[n] for n in before} == {n: sign * kept[n] for n in before}
    for rid, (name, _), code in zip(ids, given_records, expected, strict=True):
        if how == "update":
            record = org.get(f"/sobjects/{name}/{rid}")
            assert record["Name" if name == "Account" else "LastName"] == ("old" if code else "new")


# --- deletion ------------------------------------------------------------------------------------------------------

# A child's lookup: whom it may point to, and what becomes of it with its parent.
LINKS = {
    "Detail__c": ("Boss__c", "master"), "Part__c": ("Detail__c", "master"), "Follower__c": ("Boss__c", "cascade"),
    "Note__c": ("Detail__c", "clear"), "Hold__c": ("Part__c", "restrict"), "Brake__c": ("Boss__c", "restrict"),
}  # fmt: skip


@pytest.fixture(scope="module")
def tree(org: Mounted) -> Mounted:
    objects: Json = {"Boss__c": {}}
    for name, (parent, how) in LINKS.items():
        link = {"type": "MasterDetail" if how == "master" else "Lookup", "to": parent, "relationship_name": name[:-3]}
        objects[name] = {"fields": {"Up__c": link | ({} if how == "master" else {"on_delete": how})}}
    org.app.change_schema({"objects": objects})
    return org


@pytest.mark.slow
@examples(40)
@given(st.data())
def test_a_record_takes_along_clears_or_is_held_back_by_what_points_to_it(tree: Mounted, data: st.DataObject) -> None:
    up: dict[str, str | None] = {}
    kind: dict[str, str] = {}
    for name in ("Boss__c", *LINKS):
        parents = [rid for rid, k in kind.items() if name != "Boss__c" and k == LINKS[name][0]]
        for _ in range(data.draw(st.integers(1 if name == "Boss__c" else 0, 3))):
            parent = data.draw(st.sampled_from(parents)) if parents else None
            if parent is None and name in ("Detail__c", "Part__c"):
                break
            rid = tree.create(name, {} if name == "Boss__c" else {"Up__c": parent})
            up[rid], kind[rid] = parent, name
    alive = set(kind)

    def below(rid: str, *how: str) -> list[str]:
        return [c for c in alive if up[c] == rid and LINKS[kind[c]][1] in how]

    def held(rid: str) -> bool:
        return bool(below(rid, "restrict")) or any(held(c) for c in below(rid, "master", "cascade"))

    def leave(rid: str) -> None:
        for child in below(rid, "master", "cascade"):
            leave(child)
        for child in below(rid, "clear"):
            up[child] = None
        alive.discard(rid)

    for rid in data.draw(st.lists(st.sampled_from(list(kind)), min_size=1, max_size=4)):
        door = data.draw(st.sampled_from([Singles, Collections, Bulk]))(tree, kind[rid], {}, World())
        reply = door.delete(rid)
        if rid not in alive:
            assert reply.said(Refusal("ENTITY_IS_DELETED", "entity is deleted"))
        elif held(rid):
            assert reply.refused and "DELETE_FAILED" in (reply.text or reply.errors[0].code)
        else:
            assert not reply.refused, reply
            leave(rid)
        for name in ("Boss__c", *LINKS):
            mine = {r for r in kind if kind[r] == name}
            fields = "Id, IsDeleted" + (", Up__c" if name in LINKS else "")
            rows = {r["Id"]: r for r in found(tree, f"SELECT {fields} FROM {name}", "queryAll") if r["Id"] in mine}
            assert {r for r in rows if not rows[r]["IsDeleted"]} == mine & alive
            assert all(rows[r]["Up__c"] == up[r] for r in mine & alive if name in LINKS)
    for rid in set(kind) - alive:
        assert tree.api("GET", f"/sobjects/{kind[rid]}/{rid}").status_code == 404
        detail = {"Boss__c": "Detail__c", "Detail__c": "Part__c"}.get(kind[rid])
        if detail:
            refused = tree.api("POST", f"/sobjects/{detail}", {"Up__c": rid})
            assert errors(refused) == [Refusal("ENTITY_IS_DELETED", "entity is deleted")]


# --- record types --------------------------------------------------------------------------------------------------


@examples(25)
@given(st.data())
def test_a_record_has_a_type_that_its_user_may_choose(tree: Mounted, data: st.DataObject) -> None:
    names = ["Direct", "Partner", "Gone", "Hidden"]
    default = data.draw(st.sampled_from(["", "Direct", "Partner"]))
    given_types = {
        n: {"active": n != "Gone", "available": n != "Hidden", "default": n == default} for n in names
    }  # fmt: skip
    tree.app.change_schema({"objects": {"Boss__c": {"record_types": given_types}}})
    infos = tree.get("/sobjects/Boss__c/describe")["recordTypeInfos"]
    ids = {info["developerName"]: info["recordTypeId"] for info in infos}
    assert ids.keys() == {*names, "Master"}
    assert [i["developerName"] for i in infos if i["defaultRecordTypeMapping"]] == [default or "Master"]
    name = data.draw(st.sampled_from(["", *names]))
    wire = {"RecordTypeId": (ids[name],) * 2} if name else {}
    door = data.draw(st.sampled_from([Singles, Collections, Bulk]))
    rules = {
        "RecordTypeId": Rule("RecordTypeId", "Text"),
        "Name": Rule("Name", "Text"),
        "Row__c": Rule("Row__c", "Text"),
    }
    if door is Bulk:
        cells = [["RecordTypeId", "Name"], [wire.get("RecordTypeId", ("", ""))[1], "x"]]
        job = tree.job("Boss__c", "".join(",".join(c) + "\n" for c in cells))
        tree.info(job)
        good, bad = tree.rows(job, "successfulResults"), tree.rows(job, "failedResults")
        reply = Reply(good[0]["sf__Id"]) if good else Reply(text=bad[0]["sf__Error"])
    else:
        (reply,) = door(tree, "Boss__c", rules, World()).insert([wire])
    if name in ("Gone", "Hidden"):
        message = f"Record Type ID: this ID value isn't valid for the user: {ids[name]}"
        assert reply.said(Refusal("INVALID_CROSS_REFERENCE_KEY", message, ("RecordTypeId",)))
        return
    soql = f"SELECT RecordTypeId, RecordType.DeveloperName FROM Boss__c WHERE Id = '{reply.id}'"
    (record,) = found(tree, soql)
    wanted = name or default
    assert record["RecordTypeId"] == (ids[wanted] if wanted else None)
    assert (record["RecordType"] and record["RecordType"]["DeveloperName"]) == (wanted or None)


# --- permissions ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
@examples(25)
@given(st.data())
def test_what_a_permission_closes_is_closed_at_every_door(tree: Mounted, data: st.DataObject) -> None:
    access = {f: data.draw(st.sampled_from(["none", "read", "edit"])) for f in ("A__c", "B__c", "C__c")}
    fields = {f: {"type": "Text", "length": 20} for f in access}
    tree.app.change_schema({"objects": {"Thing__c": {"fields": fields, "access": {"create": True}}}})
    tree.app.change_schema({"objects": {"Thing__c": {"fields": {f: {"access": "edit"} for f in access}}}})
    rid = tree.create("Thing__c", dict.fromkeys(access, "old"))
    tree.app.change_schema({"objects": {"Thing__c": {"fields": {f: {"access": a} for f, a in access.items()}}}})
    seen = {f["name"]: (f["createable"], f["updateable"]) for f in tree.get("/sobjects/Thing__c/describe")["fields"]}
    sent = data.draw(st.lists(st.sampled_from(list(access)), min_size=1, max_size=3, unique=True))
    hidden = [f for f in sent if access[f] == "none"]
    closed = tuple(f for f in sent if access[f] == "read")
    for name, how in access.items():
        assert seen.get(name) == {"none": None, "read": (False, False), "edit": (True, True)}[how]
        read = tree.api("GET", "/query", query_string={"q": f"SELECT {name} FROM Thing__c WHERE Id = '{rid}'"})
        if how == "none":
            assert f"No such column '{name}' on entity 'Thing__c'" in errors(read)[0].message
        else:
            assert read.json["records"][0][name] == "old"  # type: ignore[index]
    body = dict.fromkeys(sent, "new")
    single = tree.api("PATCH", f"/sobjects/Thing__c/{rid}", body)
    records = [{"attributes": {"type": "Thing__c"}, "id": rid, **body}]
    many = tree.api("PATCH", "/composite/sobjects", {"records": records})
    job = tree.job("Thing__c", f"Id,{','.join(sent)}\n{rid}{',new' * len(sent)}\n", "update")
    info = tree.info(job)
    if hidden:
        message = f"No such column '{hidden[0]}' on sobject of type Thing__c"
        assert (single.status_code, errors(single)) == (400, [Refusal("INVALID_FIELD", message)])
        assert Refusal("INVALID_FIELD", message) in _errors_of(many.json)
        assert (info["state"], info["numberRecordsProcessed"]) == ("Failed", 0)
        assert info["errorMessage"] == f"InvalidBatch : Field name not found : {hidden[0]}"
    elif closed:
        text = (
            f"Unable to create/update fields: {', '.join(closed)}. Please check the security settings of this field "
            "and verify that it is read/write for your profile or permission set."
        )
        refusal = Refusal("INVALID_FIELD_FOR_INSERT_UPDATE", text, closed)
        assert errors(single) == [refusal]
        assert _errors_of(many.json) == [refusal]
        rows = csv.DictReader(io.StringIO(tree.results(job, "failedResults"), newline=""))
        assert [r["sf__Error"] for r in rows] == [bulk_text(refusal)]
    else:
        assert (single.status_code, _errors_of(many.json), info["numberRecordsFailed"]) == (
            204,
            [],
            0,
        )
    tree.app.change_schema({"objects": {"Thing__c": {"fields": {f: {"access": "edit"} for f in access}}}})
    record = tree.get(f"/sobjects/Thing__c/{rid}")
    assert {f: record[f] for f in access} == {
        f: "new" if f in sent and not hidden and not closed else "old" for f in access
    }


def _errors_of(items: Any) -> list[Refusal]:
    return [Refusal(e["statusCode"], e["message"], tuple(e["fields"])) for i in items for e in i["errors"]]


# --- bodies --------------------------------------------------------------------------------------------------------

NAMES = st.sampled_from([
    "attributes", "type", "records", "ids", "fields", "allOrNone", "Id", "id", "Name", "LastName", "Email", "AccountId",
    "Account", "DoNotCall", "Birthdate", "OwnerId", "Owner", "Nope__c", "CreatedDate",
])  # fmt: skip
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(allow_nan=False), st.text(max_size=5),
    st.sampled_from(["Contact", "Account", "2024-01-01", "a@b.co", "003000000000000AAA"]),
)  # fmt: skip
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4), max_leaves=12
)
CONTACT = st.dictionaries(NAMES, VALUES, max_size=5).map(lambda r: {"attributes": {"type": "Contact"}, **r})
BODIES = st.one_of(
    VALUES,
    CONTACT,
    st.fixed_dictionaries({"records": st.lists(CONTACT | VALUES, max_size=3)}),
    st.fixed_dictionaries({"ids": st.lists(VALUES, max_size=3), "fields": st.lists(NAMES | VALUES, max_size=3)}),
)
CALLS = [
    ("POST", "/sobjects/Contact"), ("PATCH", "/sobjects/Contact/{}"), ("PATCH", "/sobjects/Contact/Email/a@b.co"),
    ("POST", "/composite/sobjects"), ("PATCH", "/composite/sobjects"), ("PATCH", "/composite/sobjects/Contact/Email"),
    ("PATCH", "/composite/sobjects/Contact/Id"), ("POST", "/composite/sobjects/Contact"), ("POST", "/jobs/ingest"),
    ("POST", "/jobs/query"),
]  # fmt: skip


@pytest.mark.slow
@examples(200)
@given(st.sampled_from(CALLS), BODIES)
def test_no_body_breaks_the_server(org: Mounted, call: tuple[str, str], body: Any) -> None:
    rid = org.create("Contact", {"LastName": "x"})
    method, path = call
    reply = org.api(method, path.format(rid), body)
    assert reply.status_code in (200, 201, 204, 300, 400, 404), (call, body)
    if reply.status_code in (400, 404):
        assert all({"errorCode", "message"} <= error.keys() for error in reply.json or [])
