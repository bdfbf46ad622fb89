"""More than one configuration for one org: two dbt targets, a renamed target, two activations on one object."""

import dataclasses
from pathlib import Path

import pytest
from memory_org import ORG, Model, World, activation, fates
from test_plan import rows

from dinmo_dbt.config import sharing
from dinmo_dbt.config.project import load_project
from dinmo_dbt.errors import StateError
from dinmo_dbt.state import rewriting

FOUR = rows("1 e1 x y", "2 e2 y y", "3 e3 z y", "4 e4 w y")
FIRST_TWO = Model(FOUR.table.slice(0, 2))

# Two dbt targets

JWT = "flow: jwt, client_id: x, username: {}, private_key_path: key.pem"
ORGS = {
    "emulator": "{org: emulator}",
    "acme": "{login_url: https://acme.my.salesforce.com, auth: {" + JWT.format("a@b.c") + "}}",
    "acme, another user": "{login_url: https://ACME.my.salesforce.com/, auth: {" + JWT.format("d@b.c") + "}}",
    "acme by token": "{auth: {flow: access_token, instance_url: https://acme.my.salesforce.com, "
    "access_token: \"{{ env_var('T') }}\"}}",
    "a sandbox": "{login_url: https://test.salesforce.com, auth: {" + JWT.format("a@b.c.ci") + "}}",
    "another sandbox": "{login_url: https://test.salesforce.com, auth: {" + JWT.format("a@b.c.qa") + "}}",
    "pinned": "{login_url: https://test.salesforce.com, organization_id: 00D000000000001, auth: {"
    + JWT.format("e@b.c")
    + "}}",
    "pinned, 18": "{login_url: https://other.my.salesforce.com, organization_id: 00D000000000001EAA, auth: {"
    + JWT.format("f@b.c")
    + "}}",
    "pinned apart": "{login_url: https://acme.my.salesforce.com, organization_id: 00D000000000002EAA, auth: {"
    + JWT.format("a@b.c")
    + "}}",
    "pinned here": "{login_url: https://acme.my.salesforce.com, organization_id: 00D000000000001EAA, auth: {"
    + JWT.format("a@b.c")
    + "}}",
    "by a variable": "{login_url: \"{{ env_var('URL') }}\", auth: {" + JWT.format("\"{{ env_var('USER') }}\"") + "}}",
}
SAME = [
    ("emulator", "emulator"),
    ("acme", "acme, another user"),
    ("acme", "acme by token"),
    ("acme by token", "acme"),
    ("a sandbox", "a sandbox"),
    ("pinned", "pinned, 18"),
    ("by a variable", "acme"),  # of the chosen target the value is known
]
APART = [
    ("emulator", "acme"),
    ("a sandbox", "another sandbox"),
    ("pinned apart", "pinned here"),
    ("acme", "by a variable"),  # of another target it is not, and may be another there
    ("by a variable", "by a variable"),
]


def loaded(folder: Path, one: str, other: str, more: str = ""):
    (folder / "key.pem").touch(mode=0o600)
    (folder / "dinmo.yml").write_text(
        f"destinations:\n  crm:\n    targets:\n      dev: {ORGS[one]}\n"
        f"  other:\n    targets:\n      ci: {ORGS[other]}\n"
        f"      qa:\n        org: emulator\n        shares_org_with: [dev{more}]\n"
    )
    env = {"URL": "https://acme.my.salesforce.com", "USER": "a@b.c", "T": "t"}
    return load_project(folder, target="dev", env=env, vars={}, offline=False)


@pytest.mark.parametrize(("one", "other"), SAME)
def test_two_targets_of_one_org_are_named_with_both_places(tmp_path, one, other):
    [problem] = loaded(tmp_path, one, other).shared_orgs
    assert problem.code == "DB127"
    assert problem.where == "dinmo.yml:4: destinations.crm.targets.dev"
    assert "dinmo.yml:7: destinations.other.targets.ci" in problem.message
    assert "shares_org_with: [ci]" in problem.hint


@pytest.mark.parametrize(("one", "other"), APART)
def test_orgs_that_may_be_two_are_not_taken_for_one(tmp_path, one, other):
    assert loaded(tmp_path, one, other).shared_orgs == ()


def test_either_of_two_targets_may_say_that_they_share_an_org(tmp_path):
    project = loaded(tmp_path, "emulator", "acme", ", acme")
    assert project.shared_orgs == () and project.may_share == {"qa"}


def test_a_target_whose_org_is_anothers_in_the_state_is_refused_with_the_ways_out(tmp_path):
    """As a renamed target is: an insert there would make every row again."""
    world, act = World(tmp_path / "state"), activation("insert")
    world.sync(act, FOUR)
    world.target = "development"
    state = world.state().view(ORG, act)
    with pytest.raises(StateError, match=r"(?s)DB508 dinmo.yml:3.*things.*state move --from-target dev --target dev"):
        state.refuse_shared((), {"development": "dinmo.yml:3"})
    with pytest.raises(StateError, match=r"(?s)DB508.*at dinmo.yml:9.*purpose\? shares_org_with: \[dev\].*renamed\?"):
        state.refuse_shared((), {"development": "dinmo.yml:3", "dev": "dinmo.yml:9"})
    state.refuse_shared({"dev"}, {})
    rewriting.reset(world.state(), world.state().own(ORG, "things")._replace(target="dev"))
    world.state().view(ORG, act).refuse_shared((), {})


@pytest.mark.parametrize("on_removed", ["delete", "set"])
@pytest.mark.parametrize("api", ["bulk", "collections"])
@pytest.mark.parametrize("other", [{"target": "ci"}, {"name": "beside"}])
def test_a_record_that_another_state_holds_is_neither_deleted_nor_set(tmp_path, on_removed, api, other):
    world = World(tmp_path / "state")
    more = {"on_removed": on_removed, "api": api}
    if on_removed == "set":
        more["on_removed_set"] = (("Source__c", "closed"),)
    ours, theirs = activation(**more), activation(**({"name": other["name"]} if "name" in other else {}))
    world.sync(ours, FOUR)
    world.target = other.get("target", "dev")
    world.sync(theirs, Model(FOUR.table.slice(1, 2)))  # 2 and 3
    world.target = "dev"
    run = world.sync(ours, FIRST_TWO)  # 3 and 4 leave
    assert fates(run) == {"3": ("held", "RECORD_SHARED")}
    assert run.outcome.succeeded == 1
    kept = {
        record["Ext__c"] for record in world.org.records["Thing__c"].values() if record.get("Source__c") != "closed"
    }
    assert kept == {"e1", "e2", "e3"}
    world.target = other.get("target", "dev")
    world.sync(theirs, Model(FOUR.table.slice(1, 1)))  # they let it go
    world.target = "dev"
    assert world.sync(ours, FIRST_TWO).outcome.succeeded == 1
    assert world.plan(ours, FIRST_TWO).counts.held == 0


@pytest.mark.parametrize("match", ["Ext__c", "Id"])
def test_a_list_of_records_to_delete_leaves_those_that_others_hold(tmp_path, match):
    world = World(tmp_path / "state")
    world.sync(activation(), FIRST_TWO)
    ids = {record["Ext__c"]: record_id for record_id, record in world.org.records["Thing__c"].items()}
    act = activation("delete", name="gone", fields=())
    listed = [{"id": n, "ext": f"e{n}" if match == "Ext__c" else ids[f"e{n}"]} for n in ("1", "2")]
    act = dataclasses.replace(act, match=dataclasses.replace(act.match, field=match))
    plan = world.plan(act, Model.of(listed))
    assert plan.counts.planned == 0 and plan.counts.held == 2
    world.sync(activation(), Model(FOUR.table.slice(0, 1)))
    assert world.plan(act, Model.of(listed)).counts.planned == 1


# Two activations on one object


def act(name, mode="upsert", **changes):
    return activation(mode, name=name, meta_path=f"models/m.yml: {name}", **changes)


def by_name(destination):
    return destination


REMOVING = {"on_removed": "delete"}


@pytest.mark.parametrize(
    ("one", "other", "found"),
    [
        (act("a", **REMOVING), act("b"), ["a"]),
        (act("a", **REMOVING), act("b", **REMOVING), ["a", "b"]),
        (act("a"), act("b", "delete"), ["b"]),
        (act("a", "insert"), act("b", "delete"), ["b"]),
        (act("a", "delete"), act("b", "delete"), []),
        (act("a", **REMOVING), act("b", "insert"), []),  # an insert's records are its own
        (act("a", "insert", **REMOVING), act("b"), ["a"]),
        (act("a", **REMOVING), act("b", object="THING__C"), ["a"]),
        (act("a", **REMOVING), act("b", object="Other__c"), []),
        (act("a", **REMOVING), act("b", destination="elsewhere"), []),
        (act("a", **REMOVING), act("b", enabled=False), []),
        (act("a", **REMOVING, shares_object_with=("b",)), act("b"), []),
        (act("a", **REMOVING), act("b", shares_object_with=("a",)), []),
        (act("a"), act("b"), []),
    ],
)
def test_what_could_delete_anothers_records_is_refused_with_both_places(one, other, found):
    problems = sharing.removals([one, other], by_name)
    assert [problem.where for problem in problems] == [f"models/m.yml: {name}" for name in found]
    for problem in problems:
        assert problem.code == "DB145"
        assert all(f"models/m.yml: {name}" in f"{problem.where} {problem.message}" for name in "ab")


def test_destinations_that_lead_to_one_org_are_one():
    pair = [act("a", **REMOVING), act("b", destination="elsewhere")]
    assert [problem.code for problem in sharing.removals(pair, lambda _: ORG)] == ["DB145"]


@pytest.mark.parametrize(
    ("other", "fields"),
    [
        (act("b"), "a__c, b__c"),
        (act("b", "update", fields=(), constants=(("A__C", 1),)), "a__c"),
        (act("b", "delete"), ""),
    ],
)
def test_a_field_that_two_activations_write_is_noted(other, fields):
    found = sharing.same_fields([act("a"), other], by_name, "a")
    assert [problem.code for problem in found] == (["DB146"] if fields else [])
    assert all(f"both write {fields} of" in problem.message for problem in found)
    assert sharing.same_fields([act("a", "insert"), act("b", "insert")], by_name, "ab") == []


def test_a_field_that_many_write_is_noted_once_where_one_of_them_is_looked_at():
    many = [act(name) for name in "abcd"]
    [found] = sharing.same_fields(many, by_name, "c")
    assert "a, b, c, d all write a__c, b__c of" in found.message
    assert "shares_object_with: [b, c, d] on a" in found.hint
    assert sharing.same_fields(many, by_name, "") == []
    meant = [act("a", shares_object_with=("b", "c")), act("b", shares_object_with=("c",)), act("c")]
    assert sharing.same_fields(meant, by_name, "abc") == []
