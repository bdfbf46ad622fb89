"""An activation against the object's schema: what it resolves to, and one text for every way it can't."""

import dataclasses

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from memory_org import PARENT, THING, FieldMapping, Match, activation, text_field

from dinmo_dbt.destination import Field, ObjectSchema
from dinmo_dbt.rows.field_types import TYPES
from dinmo_dbt.rows.mapping import Constant, MappedColumn, Mapping, from_header
from dinmo_dbt.rows.parent_paths import referenced_objects
from dinmo_dbt.rows.resolve import resolve

OTHER = ObjectSchema(
    "Other__c", "Other", "a02", True, True, True, True, {"Key__c": text_field("Key__c", id_lookup=True)}
)
WHERE = "things.config.meta.dinmo.activations[0]"


def extended(**changes):
    more = (
        Field("Total__c", "Total", "string", calculated=True),
        Field("Number__c", "Number", "string", auto_number=True),
        Field("Locked__c", "Locked", "string", createable=False, updateable=False),
        Field("Fixed__c", "Fixed", "string", updateable=False),
        Field("Long__c", "Long", "textarea", filterable=False),
        Field("Where__c", "Where", "location"),
        Field("Body__c", "Body", "base64"),
        Field("Tier__c", "Tier level", "picklist", picklist=("Gold",), restricted_picklist=True),
        Field("Day__c", "Day", "date"),
        Field("WhoId", "Who", "reference", length=18, reference_to=("Parent__c", "Other__c"), relationship_name="Who"),
    )
    fields = {**THING.fields, **{f.name: f for f in more}}
    return dataclasses.replace(THING, fields=fields, **changes)


SCHEMA = extended()
RELATION = pa.schema(
    [(name, pa.utf8()) for name in ("id", "ext", "a", "b", "Twice", "TWICE")]
    + [("real", pa.float64()), ("flag", pa.bool_()), ("n", pa.int64())]
)
PARENTS = {"Parent__c": PARENT, "Other__c": OTHER}


def resolved(mode="upsert", schema=SCHEMA, relation=RELATION, **changes):
    return resolve(activation(mode, **changes), schema, PARENTS.__getitem__, relation)


def fields(column="a", target="A__c"):
    return {"fields": (FieldMapping(column, target),)}


REQUIRED = extended()
REQUIRED = dataclasses.replace(
    REQUIRED, fields={**REQUIRED.fields, "Must__c": Field("Must__c", "Must", "string", nillable=False)}
)
FIELD_SETUP = "Setup > Object Manager > Thing > Fields & Relationships > "
CASES = [
    (
        {"schema": extended(createable=False)},
        "DB312 {w}.object: the user may not create Thing__c records\n"
        "    Setup > Users > Permission Sets > Object Settings > Thing: tick Create",
    ),
    (
        {"mode": "update", "schema": extended(updateable=False)},
        "DB312 {w}.object: the user may not edit Thing__c records\n"
        "    Setup > Users > Permission Sets > Object Settings > Thing: tick Edit",
    ),
    (fields("aa"), "DB151 {w}.fields.aa: db.things has no column aa\n    did you mean a?"),
    (
        fields("zzz"),
        "DB151 {w}.fields.zzz: db.things has no column zzz\n"
        "    its columns are id, ext, a, b, Twice, TWICE, real, flag, n",
    ),
    (fields("twice"), "DB152 {w}.fields.twice: column twice fits several columns: Twice, TWICE"),
    (
        {"key": ("real",)},
        "DB317 {w}.key: key column real: a key is text, a whole number or a date, not double: "
        "cast it in the model's SQL",
    ),
    (
        fields("flag", "N__c"),
        "DB314 {w}.fields.flag: flag -> Thing__c.N__c: a column of type bool can't feed a field of type double: "
        "cast it in the model's SQL",
    ),
    (
        fields("a", "Where__c"),
        "DB314 {w}.fields.a: a -> Thing__c.Where__c: fields of type location can't be written; map their parts instead",
    ),
    (
        fields("a", "Tier level"),
        "DB315 {w}.fields.a: 'Tier level' is a label; its API name is Tier__c",
    ),
    (
        fields("a", "Sourse__c"),
        "DB302 {w}.fields.a: Thing__c has no field Sourse__c that the user may see\n"
        "    Setup > Object Manager > Thing > Fields & Relationships > New creates it; if it exists, the user lacks "
        "field-level security on it. Did you mean Source__c?",
    ),
    (
        fields("a", "Loyalty__c"),
        "DB302 {w}.fields.a: Thing__c has no field Loyalty__c that the user may see\n"
        "    Setup > Object Manager > Thing > Fields & Relationships > New creates it; if it exists, the user lacks "
        "field-level security on it",
    ),
    (
        fields("a", "Total__c"),
        "DB304 {w}.fields.a: Thing__c.Total__c is a formula or roll-up: Salesforce computes it\n"
        "    take it out of the mapping, and map the fields it is made of",
    ),
    (
        fields("a", "Number__c"),
        "DB304 {w}.fields.a: Thing__c.Number__c is an auto-number: Salesforce computes it\n"
        "    take it out of the mapping",
    ),
    (
        fields("a", "Locked__c"),
        "DB303 {w}.fields.a: Thing__c.Locked__c can't be created or edited by the user\n"
        f"    {FIELD_SETUP}Locked > Set Field-Level Security: Visible, not Read-Only",
    ),
    (
        {"mode": "update", **fields("a", "Fixed__c")},
        "DB303 {w}.fields.a: Thing__c.Fixed__c is a field that takes a value on new records only\n"
        "    map it with mode: upsert or insert, which send it with new records",
    ),
    (
        fields("a", "Parents__r.Code__c"),
        "DB305 {w}.fields.a: Thing__c has no relationship Parents__r\n"
        "    a lookup Parent__c is reached as Parent__r. Did you mean Parent__r?",
    ),
    (
        fields("a", "Xyz__r.Code__c"),
        "DB305 {w}.fields.a: Thing__c has no relationship Xyz__r\n    a lookup Parent__c is reached as Parent__r",
    ),
    (
        {**fields("a", "Parent__r.Name"), "parents": "name"},
        "DB306 {w}.fields.a: Parent__c.Name can't name a parent\n"
        "    name it by a field that Salesforce can search by, such as Code__c; or map a column of its record id to "
        "Parent__c",
    ),
    (
        fields("a", "Who.Code__c"),
        "DB307 {w}.fields.a: Who may point to several objects: say which, as in Parent__c:Who.Code__c, "
        "Other__c:Who.Code__c",
    ),
    (
        fields("a", "Account:Who.Code__c"),
        "DB307 {w}.fields.a: Who does not point to Account, but to Parent__c, Other__c",
    ),
    (
        fields("a", "Parent__c:Parent__r.Code__c"),
        "DB307 {w}.fields.a: Parent__r points to one object only: write Parent__r.Code__c",
    ),
    (
        {"match": Match("ext", "Code__c")},
        "DB308 {w}.match.ext: Thing__c.Code__c is not an external id, so it can't upsert\n"
        f"    {FIELD_SETUP}Code__c > Edit: tick External ID (and Unique), "
        "or write match: {ext: Code__c, create: true}",
    ),
    (
        {"mode": "update", "match": Match("ext", "Long__c")},
        "DB309 {w}.match.ext: Thing__c.Long__c can't be searched, so it can't match",
    ),
    (
        {"schema": REQUIRED},
        "DB310 {w}.fields: Thing__c.Must__c is required to create records\n"
        "    map a column to Must__c, or give it under constants",
    ),
    (
        {"mode": "insert", **fields("a", "Unique__c")},
        "DB311 {w}.fields.a: Thing__c.Unique__c is unique, so a changed row can't become a new record\n"
        "    set on_change: ignore, or use mode: upsert",
    ),
    (
        {"constants": (("On__c", "yes"),)},
        "DB316 {w}.constants.On__c: 'yes' is no value for Thing__c.On__c (boolean)",
    ),
    (
        {"constants": (("Body__c", "aGE="),)},
        "DB316 {w}.constants.Body__c: Thing__c.Body__c: fields of type base64 can't be written",
    ),
    (
        {"constants": (("Tier__c", "Silver"),)},
        "DB316 {w}.constants.Tier__c: 'Silver' is no value for Thing__c.Tier__c: "
        "the value is not in the field's restricted picklist: 'Gold'",
    ),
    (
        {"constants": (("Source__c", False),)},
        "DB316 {w}.constants.Source__c: boolean false is no text for Thing__c.Source__c (string)\n"
        "    put the value in quotes, as in 'NO'. YAML reads bare yes, on and true as true, no, off and false as false",
    ),
    (
        {"constants": (("Source__c", False),), "bare": {"constants.Source__c": "No"}},
        "DB316 {w}.constants.Source__c: boolean false is no text for Thing__c.Source__c (string)\n"
        '    put the value in quotes: "No". YAML reads bare yes, on and true as true, no, off and false as false',
    ),
    (
        {"constants": (("Day__c", 45_000),)},
        "DB316 {w}.constants.Day__c: whole number 45000 is no text for Thing__c.Day__c (date)\n"
        "    put the value in quotes, as in '0755'. YAML reads a bare 0755 as 493, 1.10 as 1.1, 12:30:00 as 45000",
    ),
    (
        {"constants": (("N__c", True),)},
        "DB316 {w}.constants.N__c: True is no value for Thing__c.N__c (double)",
    ),
    (
        {"constants": (("N__c", "1e3"),)},
        "DB316 {w}.constants.N__c: '1e3' is no value for Thing__c.N__c (double)\n"
        "    YAML reads '1e3' as text: write the number in decimal, 1000",
    ),
    (
        {"schema": REQUIRED, "constants": (("Must__c", 7),)},
        "DB316 {w}.constants.Must__c: whole number 7 is no text for Thing__c.Must__c (string)\n"
        "    put the value in quotes, as in '0755'. YAML reads a bare 0755 as 493, 1.10 as 1.1, 12:30:00 as 45000",
    ),
    (
        {"schema": REQUIRED, **fields("zzz", "Must__c")},
        "DB151 {w}.fields.zzz: db.things has no column zzz\n"
        "    its columns are id, ext, a, b, Twice, TWICE, real, flag, n",
    ),
    (
        fields("false"),
        "DB151 {w}.fields.false: db.things has no column false\n"
        "    put the name in quotes, as in 'no': YAML reads bare yes, on, no and off as true and false",
    ),
    (
        fields("493"),
        "DB151 {w}.fields.493: db.things has no column 493\n"
        "    put the name in quotes: YAML reads a bare 0755 as 493, 1.10 as 1.1, ~ as null",
    ),
    (
        {"constants": (("true", "x"),)},
        "DB302 {w}.constants.true: Thing__c has no field true that the user may see\n"
        "    put the name in quotes, as in 'no': YAML reads bare yes, on, no and off as true and false",
    ),
]


@pytest.mark.parametrize("value", [True, False, 0, 493, 1.1, -7, 1000.0])
@pytest.mark.parametrize("key", ["constants", "on_removed_set"])
@pytest.mark.parametrize("kind", sorted({*TYPES} - {"double", "currency", "percent", "int", "long", "boolean"}))
def test_what_yaml_made_of_a_bare_word_is_no_text(kind, key, value):
    """NO is false to YAML, 0755 is 493, 12:30:00 is 45000: in none of the fields whose values are texts."""
    schema = dataclasses.replace(SCHEMA, fields={**SCHEMA.fields, "F__c": Field("F__c", "F", kind)})
    removed = {"on_removed": "set"} if key == "on_removed_set" else {}
    _, problems = resolved(schema=schema, **{key: (("F__c", value),)}, **removed)
    (problem,) = problems
    assert problem.code == "DB316"
    assert problem.where == f"{WHERE}.{'constants' if key == 'constants' else 'on_removed.set'}.F__c"
    assert problem.hint.startswith("put the value in quotes")


@pytest.mark.parametrize(
    "case", CASES, ids=[text.split(":")[0].format(w="") + f"-{n}" for n, (_, text) in enumerate(CASES)]
)
def test_every_way_not_to_fit_has_its_text(case, monkeypatch):
    changes, text = dict(case[0]), case[1]
    if changes.pop("parents", None):
        name = text_field("Name", filterable=False)
        named = dataclasses.replace(PARENT, fields={**PARENT.fields, "Name": name})
        monkeypatch.setitem(PARENTS, "Parent__c", named)
    mapping, problems = resolved(**changes)
    assert mapping is None
    assert [str(problem) for problem in problems] == [text.replace("{w}", WHERE)]


def test_every_code_of_the_modules_has_its_case():
    from dinmo_dbt.codes import MEANINGS
    from dinmo_dbt.rows import columns, constants, fields, parent_paths, resolve

    modules = (columns, constants, fields, parent_paths, resolve)
    named = {value for module in modules for value in vars(module).values() if isinstance(value, str)}
    assert named & MEANINGS.keys() == {text[:5] for _, text in CASES}


def test_all_problems_come_at_once():
    _, problems = resolved(key=("real",), **fields("zzz", "Nope__c"), constants=(("On__c", 1),))
    assert [problem.code for problem in problems] == ["DB317", "DB151", "DB302", "DB316"]


def test_names_take_the_case_of_the_relation_and_of_describe():
    mapping, problems = resolved(
        key=("ID",),
        match=Match("EXT", "ext__c"),
        fields=(FieldMapping("A", "parent__c:who.code__C"), FieldMapping("B", "b__C")),
    )
    assert problems == ()
    assert (mapping.key, mapping.match.source, mapping.match.header) == (("id",), "ext", "Ext__c")
    assert [(c.source, c.header) for c in mapping.columns] == [("b", "B__c"), ("a", "Parent__c:Who.Code__c")]
    assert mapping.sources == ("id", "ext", "b", "a")


def test_an_upsert_by_id_makes_no_record_and_needs_nothing_that_a_new_one_would():
    mapping, problems = resolved(schema=REQUIRED, match=Match("ext", "Id"), **fields("a", "A__c"))
    assert (problems, mapping.match.header) == ((), "Id")
    assert resolved(schema=extended(createable=False), match=Match("ext", "Id"))[1] == ()
    assert [p.code for p in resolved("insert", schema=REQUIRED)[1]] == ["DB310"]
    assert resolved("insert", schema=REQUIRED, constants=(("Must__c", "x"),))[1] == ()


def test_on_change_ignore_allows_a_unique_field():
    assert resolved("insert", on_change="ignore", **fields("a", "Unique__c"))[1] == ()


def test_without_the_relation_the_declared_names_stand():
    mapping, problems = resolved(relation=None, **fields("anything"))
    assert (problems, mapping.columns[0].source) == ((), "anything")


def test_lookups_say_which_objects_come_first():
    act = activation(
        fields=(
            FieldMapping("a", "Parent__r.Code__c"),
            FieldMapping("b", "Other__c:Who.Key__c"),
            FieldMapping("c", "WhoId"),
            FieldMapping("d", "A__c"),
        )
    )
    assert list(referenced_objects(SCHEMA, act)) == ["Parent__c", "Other__c", "Parent__c", "Other__c"]


# The stored form


def test_constants_are_stored_as_they_travel():
    mapping, _ = resolved(constants=(("Source__c", "dbt"), ("N__c", 1.50), ("On__c", True), ("Day__c", "2024-01-31")))
    assert mapping.header()["constants"] == [
        ["Day__c", "2024-01-31"],
        ["N__c", "1.5"],
        ["On__c", "true"],
        ["Source__c", "dbt"],
    ]
    cleared, _ = resolved(constants=(("Source__c", None), ("N__c", None)))
    assert cleared.header()["constants"] == [["N__c", None], ["Source__c", None]]
    assert from_header(cleared.header()).digest == cleared.digest


names = st.sampled_from(["a", "b", "c"])
kinds = st.sampled_from(
    ["string", "email", "picklist", "double", "currency", "int", "boolean", "date", "datetime", "time", "reference"]
)


@settings(max_examples=200, deadline=None)
@given(
    columns=st.dictionaries(
        st.sampled_from(["X__c", "Y__c", "P__r.K__c"]), st.tuples(names, kinds, st.booleans()), max_size=3
    ),
    constants=st.dictionaries(st.sampled_from(["S__c", "T__c"]), st.one_of(st.none(), st.text(max_size=5)), max_size=2),
    match=st.one_of(st.none(), st.tuples(names, kinds)),
)
def test_a_stored_mapping_is_the_mapping(columns, constants, match):
    def column(name, source, kind, keep=False):
        return MappedColumn(source, name, Field(name, name, kind, length=40, precision=18, scale=2), keep)

    mapping = Mapping(
        ("id", "part"),
        column("M__c", *match) if match else None,
        tuple(column(name, *given) for name, given in sorted(columns.items())),
        tuple(Constant(n, Field(n, n, "string"), pa.array([v], pa.utf8())) for n, v in sorted(constants.items())),
    )
    stored = from_header(mapping.header())
    assert (stored.digest, stored.header()) == (mapping.digest, mapping.header())
    assert mapping.added_since(stored) == stored.added_since(mapping) == (frozenset(), frozenset())


def test_types_of_one_kind_are_one_and_others_are_another():
    def with_type(kind):
        return Mapping(("id",), None, (MappedColumn("a", "A__c", Field("A__c", "A", kind)),))

    assert with_type("string").digest == with_type("picklist").digest == with_type("email").digest
    assert with_type("double").digest == with_type("currency").digest == with_type("int").digest
    assert (
        len({with_type(kind).digest for kind in ("string", "double", "boolean", "date", "datetime", "time", "id")}) == 7
    )
    assert with_type("string").added_since(with_type("double")) == (frozenset({"A__c"}), frozenset())


# Hints that can be followed


def hint_of(field: Field, *, parts: tuple[Field, ...] = (), mode: str = "upsert", target: str = "") -> tuple[str, str]:
    """What is said of the one field that is mapped, and what helps."""
    schema = dataclasses.replace(SCHEMA, fields={**SCHEMA.fields, **{f.name: f for f in (field, *parts)}})
    _, problems = resolved(mode=mode, schema=schema, **fields("a", target or field.name))
    [problem] = problems
    assert "Field-Level Security" not in problem.hint
    return problem.message, problem.hint


def test_a_name_of_parts_names_its_parts() -> None:
    name = text_field("Name", createable=False, updateable=False)
    parts = tuple(text_field(each, compound="Name") for each in ("FirstName", "LastName"))
    assert hint_of(name, parts=parts) == (
        "Thing__c.Name is put together by Salesforce of FirstName, LastName",
        "map columns to FirstName, LastName",
    )


def test_a_master_that_can_not_change_says_how_it_could() -> None:
    master = dataclasses.replace(
        text_field("Boss__c", updateable=False), type="reference", is_master=True, reference_to=("Parent__c",)
    )
    message, hint = hint_of(master, mode="update")
    assert "master-detail" in message
    assert "mode: upsert" in hint and "Allow reparenting" in hint
    campaign = dataclasses.replace(master, name="CampaignId", label="Campaign", is_master=False)
    message, hint = hint_of(campaign, mode="update")
    assert "new records only" in message and "reparenting" not in hint


def test_a_field_of_known_records_only_is_no_insert_s() -> None:
    message, hint = hint_of(text_field("Later__c", createable=False), mode="insert")
    assert "only on records that are there" in message and "mode: update or upsert" in hint


def test_a_parent_is_named_by_any_field_that_can_be_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    name = text_field("Name")
    monkeypatch.setitem(PARENTS, "Parent__c", dataclasses.replace(PARENT, fields={**PARENT.fields, "Name": name}))
    mapping, problems = resolved(**fields("a", "parent__r.NAME"))
    assert problems == ()
    assert [(c.header, c.field, c.lookup) for c in mapping.columns] == [
        ("Parent__r.Name", name, THING.fields["Parent__c"])
    ]
