"""`emulator import`: a real org's schema into the project, whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .lab import Lab, Org

pytestmark = pytest.mark.slow

REMOTE = """destinations:
  crm:
    targets:
      dev:
        login_url: "{url}"
        auth: {{flow: access_token, instance_url: "{url}", access_token: "{{{{ env_var('LAB_TOKEN') }}}}"}}
emulator: {{schema: from_org}}
"""
OFFLINE = "destinations:\n  crm:\n    targets:\n      dev: {org: emulator}\nemulator: {schema: from_org, data: own}\n"


def describe(org: Org, name: str) -> dict[str, object]:
    found: dict[str, object] = org.http.get(f"{org.base}/sobjects/{name}/describe").json()
    return found


def token(org: Org) -> str:
    return str(org.http.headers["Authorization"]).removeprefix("Bearer ")


def remote(lab: Lab, org: Org) -> None:
    (lab.root / "dinmo.yml").write_text(REMOTE.format(url=org.base.partition("/services")[0]))


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_activations_run_offline_against_the_schema_pulled_from_an_org(lab: Lab, org: Org) -> None:
    remote(lab, org)
    ran = lab.run("emulator", "import", "--from", "org:crm", "--json", LAB_TOKEN=token(org))
    assert ran.code == 0, ran.all
    assert ran.json["objects"] == ["Account", "Event__c", "Person__c"]
    assert token(org) not in "".join(map(str, files(lab.root / "from_org").values()))
    real = {name: describe(org, name) for name in ran.json["objects"]}

    (lab.root / "dinmo.yml").write_text(OFFLINE)
    with lab.emulator() as (own, _):
        assert {name: describe(own, name) for name in real} == real
        synced = lab.run("sync", "--json")
        assert synced.code in (0, 3), synced.all
        assert own.count("Person__c") == 30
        assert own.count("Event__c") == 20


def test_only_the_named_objects_and_their_parents_are_pulled(lab: Lab, org: Org) -> None:
    remote(lab, org)
    ran = lab.run(
        "emulator", "import", "--from", "org:crm", "--object", "Event__c", "--to", str(lab.root / "own"),
        LAB_TOKEN=token(org),
    )  # fmt: skip
    assert ran.code == 0, ran.all
    assert sorted(files(lab.root / "own")) == ["Event__c.describe.json", "Person__c.describe.json"]
    assert "2 objects into" in ran.out


def test_a_tree_and_a_describe_lie_side_by_side(lab: Lab, org: Org) -> None:
    own = lab.root / "own"
    (lab.root / "account.json").write_text(json.dumps({"status": 0, "result": describe(org, "Account")}))
    (lab.root / "more.yml").write_text("objects: {Extra__c: {fields: {Note__c: {type: Text, length: 10}}}}\n")
    for source, objects in (
        ("force-app", "Account, Event__c, Person__c"), ("account.json", "Account"), ("more.yml", "Extra__c")
    ):  # fmt: skip
        ran = lab.run("emulator", "import", "--from", str(lab.root / source), "--to", str(own))
        assert ran.code == 0, ran.all
        assert f"into {own}: {objects}\n" in ran.out
    with lab.emulator("--schema", str(own), "--data", str(lab.root / "other")) as (org, _):
        assert org.count("Extra__c") == org.count("Person__c") == 0
        assert "Score__c" in {f["name"] for f in describe(org, "Account")["fields"]}  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("broken.json", "{", "broken.json is not JSON"),
        ("other.json", '{"records": []}', "other.json is no describe of an object"),
        ("lookup.yml", "objects: {A__c: {fields: {B__c: {type: Lookup, to: Gone__c}}}}", "refers to Gone__c"),
        ("typo.yml", "objects: {A__c: {fields: {B__c: {typ: Text}}}}", "objects.A__c.fields.B__c.typ"),
        ("notes.txt", "hello", "holds no describe JSON"),
    ],
)
def test_what_the_emulator_can_not_serve_changes_nothing(lab: Lab, name: str, text: str, said: str) -> None:
    folder = lab.root / "force-app"
    before = files(folder)
    (lab.root / name).write_text(text)
    ran = lab.run("emulator", "import", "--from", str(lab.root / name))
    assert ran.code == 1, ran.all
    assert "DB632" in ran.err
    assert said in " ".join(ran.err.split())
    assert "Traceback" not in ran.all
    assert files(folder) == before
    assert not [p for p in lab.root.iterdir() if p.name.startswith(".force-app")]


def test_objects_to_pull_must_be_known(lab: Lab, org: Org) -> None:
    missing = lab.run("emulator", "import", "--from", "gone.json")
    assert missing.code == 1
    assert " ".join(missing.err.split()) == "DB632 gone.json no such file or folder"
    chosen = lab.run("emulator", "import", "--from", "force-app", "--object", "Account")
    assert (chosen.code, "DB811" in chosen.err) == (2, True)
    itself = lab.run("emulator", "import", "--from", "org:crm")
    assert (itself.code, "is the emulator itself" in itself.err) == (2, True)
    nowhere = lab.run("emulator", "import", "--from", "org:cmr")
    assert (nowhere.code, "DB120" in nowhere.err) == (2, True)
    remote(lab, org)
    unknown = lab.run("emulator", "import", "--from", "org:crm", "--object", "Acount", LAB_TOKEN=token(org))
    assert (unknown.code, "DB301" in unknown.err) == (2, True)
    assert "Account" in unknown.err
    lab.declare("companies")
    lab.declare("events")
    lab.declare("people")
    nothing = lab.run("emulator", "import", "--from", "org:crm", LAB_TOKEN=token(org))
    assert (nothing.code, "DB811" in nothing.err) == (2, True)
    assert not (lab.root / "from_org").exists()
