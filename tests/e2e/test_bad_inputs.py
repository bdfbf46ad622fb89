"""Each kind of bad input through the real command: its code, exit code, place and whole message, and nothing written.

`tests/bad_inputs.yml` lists every kind with the tests that hold it. The texts are in tests/golden/bad_inputs;
DINMO_UPDATE_GOLDEN=1 writes them anew.
"""

from __future__ import annotations

import copy
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from dinmo_dbt.cli.clock import SystemClock

from .lab import DINMO, EVENTS, PEOPLE, Lab, Org
from .test_reach import CLIENT, free_port, url_of

pytestmark = pytest.mark.slow

GOLDEN = Path(__file__).parent.parent / "golden" / "bad_inputs"
NOTED = ("dinmo_answers.json", "state.db", "history.db", "dinmo_run_results.json")  # how a run ended
Change = Callable[[Lab], None]


@dataclass(frozen=True)
class Case:
    """A change to a sound project, the command that meets it, and what it must say."""

    code: str
    change: Change
    where: str = ""
    exit: int = 2
    argv: tuple[str, ...] = ("sync",)
    env: dict[str, str] = field(default_factory=dict)


def dinmo(text: str | bytes) -> Change:
    raw = text if isinstance(text, bytes) else text.encode()
    return lambda lab: (lab.root / "dinmo.yml").write_bytes(raw) and None


def target(inner: str) -> Change:
    return dinmo(f"destinations:\n  crm:\n    targets:\n      dev:\n{inner}")


def login(lab: Lab, **of: str) -> str:
    return CLIENT.format(url=of.get("url") or url_of(lab))


def meta(**changes: Any) -> Change:
    """`people_to_crm` with these keys; None takes one away."""
    written = {key: value for key, value in {**PEOPLE, **changes}.items() if value is not ...}
    return lambda lab: lab.only("people", written)


def mapped(**more: Any) -> Change:
    return meta(fields={**PEOPLE["fields"], **more})


def rows(*statements: str) -> Change:
    def change(lab: Lab) -> None:
        lab.only("people", PEOPLE)
        lab.sql(*statements)

    return change


def twice(first: str, second: str) -> Change:
    return rows(f"insert into people (person_id, name) values ('{first}', 'a'), ('{second}', 'b')")


def manifest(edit: Callable[[Any], None]) -> Change:
    def change(lab: Lab) -> None:
        path = lab.root / "target" / "manifest.json"
        document = json.loads(path.read_text())
        edit(document)
        path.write_text(json.dumps(document))

    return change


def node(**changes: Any) -> Change:
    return manifest(lambda document: document["nodes"]["model.lab.people"].update(copy.deepcopy(changes)))


def both(*changes: Change) -> Change:
    def change(lab: Lab) -> None:
        for each in changes:
            each(lab)

    return change


def ephemeral(document: Any) -> None:
    document["nodes"]["model.lab.people"]["config"]["materialized"] = "ephemeral"


def disabled(document: Any) -> None:
    document["disabled"] = {"model.lab.people": [document["nodes"].pop("model.lab.people")]}


def results(status: str, **metadata: str) -> Change:
    def change(lab: Lab) -> None:
        path = lab.root / "target" / "run_results.json"
        document = json.loads(path.read_text())
        for result in document["results"]:
            if result["unique_id"] == "model.lab.people":
                result["status"] = status
        path.write_text(json.dumps(document))

    return change


def synced_then(*changes: Change) -> Change:
    """After a sync of `people`: what only a second run can get wrong."""

    def change(lab: Lab) -> None:
        lab.only("people", {**PEOPLE, "guards": {"max_change": 3}})
        lab.sql("insert into people (person_id, name) select 'X' || i, 'many' from range(1100) t(i)")
        assert lab.run("sync").code == 0
        for each in changes:
            each(lab)

    return change


def removed(*names: str) -> Change:
    return lambda lab: [(lab.root / name).unlink() for name in names] and None


def cut(name: str, count: int) -> Change:
    def change(lab: Lab) -> None:
        raw = (lab.root / name).read_bytes()
        (lab.root / name).write_bytes(raw[:count])

    return change


def of_type(sql_type: str, value: str = "null") -> Change:
    def change(lab: Lab) -> None:
        mapped(odd="Note__c")(lab)
        lab.sql(f"create or replace table people as select *, cast({value} as {sql_type}) as odd from people")

    return change


def keyed(column: str, sql: str) -> Change:
    def change(lab: Lab) -> None:
        lab.only("people", PEOPLE, key=column)
        lab.sql(f"create or replace table people as select *, {sql} as {column} from people")

    return change


URL = '        login_url: "{}"\n        auth: {{flow: jwt, client_id: a, username: b, private_key_path: k.pem}}\n'
BOMB = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{b}: &{b} [{','.join([f'*{a}'] * 10)}]\n" for a, b in ("ab", "bc", "cd", "de")
)
YML = DINMO.encode()

CASES: dict[str, Case] = {
    # Where things are
    "no_dinmo_yml": Case("DB101", removed("dinmo.yml")),
    "no_dbt_project": Case("DB100", removed("dbt_project.yml")),
    "no_manifest": Case("DB201", removed("target/manifest.json")),
    "no_profiles": Case("DB701", removed("profiles.yml"), env={"HOME": "/nowhere"}),
    "no_such_target": Case("DB703", dinmo(DINMO), argv=("sync", "--target", "prd")),
    # manifest.json
    "manifest_newer": Case(
        "DB204", manifest(lambda d: d["metadata"].update(dbt_schema_version="https://x/dbt/manifest/v99.json"))
    ),
    "manifest_truncated": Case("DB202", cut("target/manifest.json", 5000)),
    "manifest_empty": Case("DB202", cut("target/manifest.json", 0)),
    "manifest_of_something_else": Case("DB203", manifest(lambda d: d.pop("metadata"))),
    "manifest_of_another_project": Case("DB205", manifest(lambda d: d["metadata"].update(project_name="shop"))),
    # dinmo.yml as YAML
    "yaml_syntax": Case("DB103", dinmo("destinations: {crm: ["), "dinmo.yml:1:22"),
    "yaml_tab": Case("DB103", dinmo("destinations:\n\tcrm: 1\n"), "dinmo.yml:2:1"),
    "yaml_not_utf8": Case("DB102", dinmo(YML + b"x: \xff\n"), "dinmo.yml:5"),
    "yaml_nul": Case("DB103", dinmo(YML + b"x: \0\n"), "dinmo.yml:5"),
    "yaml_duplicate_key": Case("DB104", dinmo(DINMO + "state: {location: a}\nstate: {location: b}\n"), "dinmo.yml:6"),
    "yaml_alias_bomb": Case("DB105", dinmo(BOMB)),
    "yaml_too_large": Case("DB105", dinmo(b"#" * 1_000_001)),
    "yaml_too_deep": Case("DB105", dinmo("a: " + "[" * 60 + "]" * 60)),
    "yaml_tag": Case("DB106", dinmo(DINMO + "state: !!python/object:os.system {}\n"), "dinmo.yml:5"),
    "yaml_norway_key": Case("DB107", dinmo(DINMO.replace("dev:", "on:")), "dinmo.yml:4"),
    "yaml_norway_value": Case("DB111", dinmo(DINMO + "state: {location: no}\n"), "dinmo.yml:5: state.location"),
    "yaml_octal": Case("DB111", dinmo(DINMO + "state: {location: 010}\n"), "dinmo.yml:5: state.location"),
    "yaml_exponent": Case("DB111", dinmo(DINMO + "state: {location: 1.0e+3}\n"), "dinmo.yml:5: state.location"),
    "yaml_base_60": Case("DB111", dinmo(DINMO + "state: {location: 12:30}\n"), "dinmo.yml:5: state.location"),
    "yaml_tilde": Case("DB111", dinmo(DINMO + "state: {location: ~}\n"), "dinmo.yml:5: state.location"),
    # Keys and values
    "unknown_key": Case("DB110", meta(segmnt="x"), "people.config.meta.dinmo.activations[0]"),
    "unknown_key_in_dinmo_yml": Case("DB110", dinmo(DINMO + "sate: {}\n"), "dinmo.yml:5: sate"),
    "wrong_type": Case("DB111", meta(mode=["upsert"]), "activations[0].mode"),
    "text_for_a_number": Case("DB111", meta(guards={"max_change": "5"}), "activations[0].guards.max_change"),
    "true_for_a_number": Case("DB111", meta(guards={"max_change": True}), "activations[0].guards.max_change"),
    "norway_in_meta": Case("DB111", meta(mode=False), "activations[0].mode"),
    "norway_as_a_constant": Case("DB316", meta(constants={"Nick__c": False}), "constants.Nick__c"),
    "octal_as_a_constant": Case("DB316", meta(constants={"Nick__c": 493}), "constants.Nick__c"),
    "base_60_as_what_is_set": Case("DB316", meta(on_removed={"set": {"Seen__c": 45000}}), "on_removed.set.Seen__c"),
    "norway_as_a_column": Case("DB151", mapped(false="Nick__c"), "fields.false"),
    "octal_as_a_column": Case("DB151", mapped(**{"493": "Nick__c"}), "fields.493"),
    "zero": Case("DB111", meta(auto_pause=0), "activations[0].auto_pause"),
    "negative": Case("DB112", meta(guards={"max_change": -1}), "activations[0].guards.max_change"),
    "not_a_number": Case("DB112", meta(constants={"Score__c": float("nan")}), "activations[0].constants.Score__c"),
    "required": Case("DB113", meta(object=...), "activations[0]"),
    "not_in_the_list": Case("DB112", meta(mode="mirror"), "activations[0].mode"),
    "wrong_case": Case("DB112", meta(mode="Upsert"), "activations[0].mode"),
    "insert_with_a_match": Case("DB114", meta(mode="insert"), "activations[0].match"),
    "delete_with_fields": Case("DB114", meta(mode="delete", guards={"max_delete": 5}), "activations[0]"),
    "same_name_twice": Case("DB130", lambda lab: lab.only("people", PEOPLE, PEOPLE)),
    "same_field_twice": Case("DB139", mapped(note="Name"), "activations[0].fields.note"),
    "several_at_once": Case("DB110", meta(mode="upsrt", schdule="manual", guards={"max_change": "x"}, object="A B")),
    # Variables, secrets, templates
    "variable_unset": Case("DB117", lambda lab: dinmo(login(lab))(lab), "auth.client_secret"),
    "variable_empty": Case("DB117", lambda lab: dinmo(login(lab))(lab), "auth.client_secret", env={"LAB_SECRET": " "}),
    "secret_in_dinmo_yml": Case(
        "DB115", lambda lab: dinmo(login(lab).replace("{{ env_var('LAB_SECRET') }}", "hunter2"))(lab), "dinmo.yml:6"
    ),
    "secret_in_meta": Case("DB115", meta(client_secret="hunter2"), "activations[0].client_secret"),
    "template_of_more": Case(
        "DB116", dinmo(DINMO + "state: {location: \"{{ ''.__class__.__mro__ }}\"}\n"), "dinmo.yml:5"
    ),
    "template_that_loops": Case(
        "DB116", dinmo(DINMO + 'state: {location: "{% for i in range(10**9) %}x{% endfor %}"}\n'), "dinmo.yml:5"
    ),
    "secret_file_absent": Case("DB122", target(URL.format("https://acme.my.salesforce.com")), "private_key_path"),
    "state_under_target": Case("DB112", dinmo(DINMO + "state: {location: target/x}\n"), "dinmo.yml:5: state.location"),
    "password_flow": Case(
        "DB119", target("        auth: {flow: password, username: a, password: hunter2}\n"), "dinmo.yml:5"
    ),
    # URLs
    "url_http": Case("DB118", target(URL.format("http://acme.my.salesforce.com")), "dinmo.yml:5"),
    "url_not_salesforce": Case("DB118", target(URL.format("https://evil-salesforce.com")), "dinmo.yml:5"),
    "url_with_user": Case("DB118", target(URL.format("https://ada:hunter2@acme.my.salesforce.com")), "dinmo.yml:5"),
    "url_with_path": Case("DB118", target(URL.format("https://acme.my.salesforce.com/x")), "dinmo.yml:5"),
    "url_with_port": Case("DB118", target(URL.format("https://acme.my.salesforce.com:8443")), "dinmo.yml:5"),
    "url_of_an_address": Case("DB118", target(URL.format("https://169.254.169.254")), "dinmo.yml:5"),
    # Models
    "no_such_selection": Case("DB853", dinmo(DINMO), argv=("sync", "-s", "peple")),
    "destination_unknown": Case("DB120", meta(destination="crn")),
    "destination_without_the_target": Case("DB121", dinmo(DINMO.replace("dev:", "prod:"))),
    "model_disabled": Case("DB132", manifest(disabled), exit=0, argv=("sync", "-s", "people")),
    "model_ephemeral": Case(
        "DB133", both(node(relation_name=None), manifest(ephemeral)), argv=("sync", "-s", "people")
    ),
    "model_not_built": Case("DB702", rows("drop table people"), exit=1),
    "no_activation": Case("DB140", lambda lab: lab.only("nothing")),
    # Columns
    "column_missing": Case("DB151", mapped(nome="Nick__c"), "fields.nome"),
    "column_without_a_name": Case("DB112", mapped(**{"": "Nick__c"}), "activations[0].fields"),
    "column_of_bytes": Case("DB314", of_type("blob")),
    "column_of_a_list": Case("DB314", of_type("integer[]")),
    "column_of_a_struct": Case("DB314", of_type("struct(a integer)")),
    "column_of_a_map": Case("DB314", of_type("map(varchar, integer)")),
    "column_of_an_interval": Case("DB314", of_type("interval")),
    "column_of_text_for_a_number": Case("DB314", mapped(name="Big__c")),
    # Keys
    "key_null": Case("DB410", rows("insert into people (name) values ('nobody')"), exit=4),
    "key_blank": Case("DB410", rows("insert into people (person_id, name) values ('', 'a')"), exit=4),
    "key_whitespace": Case("DB410", rows("insert into people (person_id, name) values (' \t ', 'a')"), exit=4),
    "key_twice": Case("DB410", twice("P1", "Q"), exit=4),
    "key_twice_when_trimmed": Case("DB410", twice("Q", " Q "), exit=4),
    "key_twice_in_another_case": Case("DB410", twice("q1", "Q1"), exit=4),
    "key_of_doubles": Case("DB317", keyed("real", "random()")),
    "key_of_booleans": Case("DB317", keyed("flag", "true")),
    "key_of_json": Case("DB317", keyed("doc", "{'a': 1}")),
    # Salesforce's schema
    "object_unknown": Case("DB301", meta(object="Persn__c")),
    "object_by_its_label": Case("DB112", meta(object="Person Record"), "activations[0].object"),
    "field_unknown": Case("DB302", mapped(nick="Nickname__c"), "fields.nick"),
    "field_by_its_label": Case("DB315", mapped(tax_id="Tax_Id"), "fields.tax_id"),
    "field_that_salesforce_writes": Case("DB303", mapped(note="CreatedById"), "fields.note"),
    "match_that_is_no_external_id": Case("DB308", meta(match={"person_id": "Nick__c"}), "match.person_id"),
    "relationship_unknown": Case(
        "DB305", lambda lab: lab.only("events", {**EVENTS, "fields": {"person_id": "Persn__r.Person_Id__c"}}), "fields"
    ),
    "parent_field_that_can_not_be_searched": Case(
        "DB306", lambda lab: lab.only("events", {**EVENTS, "fields": {"person_id": "Person__r.Note__c"}}), "fields"
    ),
    "parent_by_its_record_id": Case(
        "DB306", lambda lab: lab.only("events", {**EVENTS, "fields": {"person_id": "Person__r.Id"}}), "fields"
    ),
    "constant_not_in_the_picklist": Case("DB316", lambda lab: meta(
        fields={"name": "Name"}, constants={"Plan__c": "Gold"})(lab), "constants.Plan__c"),
    "insert_of_a_unique_field": Case(
        "DB311", lambda lab: lab.only("people", {k: v for k, v in {**PEOPLE, "mode": "insert",
        "fields": {"tax_id": "Tax_Id__c"}}.items() if k != "match"}), "fields.tax_id"),
    # Login and org
    "login_refused": Case("DB601", lambda lab: dinmo(login(lab))(lab), exit=1, env={"LAB_SECRET": "CANARY"}),
    "salesforce_cli_not_there": Case(
        "DB615", target("        auth: {flow: sf_cli, alias: mine}\n"), exit=1, env={"PATH": "/nonexistent"}
    ),
    "org_not_the_pinned_one": Case(
        "DB602", lambda lab: dinmo(
            login(lab).replace("client_id: lab", f"client_id: {told(lab)['client_id']}").rstrip()
            + "\n        organization_id: 00D000000000001EAA\n")(lab),
        exit=1, env={"LAB_SECRET": "@client_secret"},
    ),
    "org_id_mistyped": Case(
        "DB123", lambda lab: dinmo(login(lab).rstrip() + "\n        organization_id: 00D000000000001AAA\n")(lab),
        "dinmo.yml:7", env={"LAB_SECRET": "CANARY"},
    ),
    "org_not_there": Case(
        "DB607", lambda lab: dinmo(login(lab, url=f"http://127.0.0.1:{free_port()}"))(lab), exit=1,
        env={"LAB_SECRET": "CANARY"},
    ),
    # Command line
    "flag_unknown": Case("", dinmo(DINMO), argv=("sync", "--nothing", "5")),
    "flag_number_negative": Case("", dinmo(DINMO), argv=("sync", "--allow-changes", "-1")),
    "flag_number_text": Case("", dinmo(DINMO), argv=("sync", "--allow-changes", "many")),
    "flags_that_differ": Case(
        "DB804", dinmo(DINMO), argv=("run", "--target", "dev", "--", "dbt", "build", "--target", "prod")
    ),
    "vars_no_yaml": Case("DB801", dinmo(DINMO), argv=("sync", "--vars", "{a: [")),
    "vars_no_mapping": Case("DB801", dinmo(DINMO), argv=("sync", "--vars", "a")),
    "vars_no_date": Case("DB801", dinmo(DINMO), argv=("sync", "--vars", "{a: 2026-13-45}")),
    "nothing_left_to_select": Case("DB853", dinmo(DINMO), argv=("sync", "--exclude", "*")),
    "graph_operator": Case("DB852", dinmo(DINMO), argv=("sync", "-s", "+people")),
    "selection_method": Case("DB851", dinmo(DINMO), argv=("sync", "-s", "state:modified")),
    # Guards and gates
    "model_empty": Case("DB402", synced_then(lambda lab: lab.sql("delete from people")), exit=4),
    "too_many_changes": Case("DB403", synced_then(lambda lab: lab.sql("update people set name = 'other'")), exit=4),
    "first_insert_into_records": Case(
        "DB401", lambda lab: lab.only("companies", {
            "name": "companies_in", "destination": "crm", "object": "Account", "mode": "insert",
            "fields": {"website": "Name"}}), exit=4,
    ),
    "model_not_successful": Case("", both(rows(), results("error")), exit=4),
    "built_with_empty": Case("DB451", lambda lab: args(lab, empty=True), exit=4),
    "built_with_sample": Case("DB452", lambda lab: args(lab, sample="3 days"), exit=4),
    "built_for_another_target": Case("DB456", lambda lab: args(lab, target="prod"), exit=4),
}  # fmt: skip


def args(lab: Lab, **changes: Any) -> None:
    path = lab.root / "target" / "run_results.json"
    document = json.loads(path.read_text())
    document["args"] |= changes
    path.write_text(json.dumps(document))


def told(lab: Lab) -> dict[str, str]:
    found: dict[str, str] = json.loads((lab.data / "server.json").read_text())
    return found


def files(lab: Lab) -> dict[Path, bytes]:
    """Every file of the project but the served org's own."""
    found = (path for path in lab.root.rglob("*") if path.is_file() and lab.data not in path.parents)
    return {path: path.read_bytes() for path in found}


def steady(lab: Lab, text: str) -> str:
    """The message without what differs from run to run."""
    text = re.sub(r"\n    +(?=\S)(?!->)", " ", text)  # wrapped where the width of a path would have it
    for found, name in ((lab.root.parent, "<tmp>"), (told(lab)["organization_id"], "<id>"), (Path.cwd(), ".")):
        text = text.replace(str(found), name)
    text = re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:<port>", text)
    return re.sub(r"\d\d:\d\d:\d\d", "<time>", text)


@pytest.fixture(scope="module")
def sound(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Lab, Org]]:
    """One project and its org for every case, which puts back what it changed."""
    lab = Lab(Path(shutil.copytree(built, tmp_path_factory.mktemp("bad") / "lab")))
    manifest(lambda document: document.update(macros={}))(lab)  # dbt's own, a thousand of them: nothing is read there
    with pytest.MonkeyPatch.context() as patch, lab.serve() as org:
        patch.setattr(SystemClock, "sleep", lambda *_: None)  # between the attempts of a login
        yield lab, org


@pytest.mark.parametrize("name", CASES)
def test_it_is_said_before_anything_is_written(sound: tuple[Lab, Org], name: str) -> None:
    (lab, org), case = sound, CASES[name]
    first = files(lab)
    try:
        case.change(lab)
        before, records = files(lab), org.count("Person__c") + org.count("Account")
        lab.requests.clear()
        variables = {key: told(lab)[text[1:]] if text.startswith("@") else text for key, text in case.env.items()}
        ran = lab.run(*case.argv, **variables)
        assert ran.code == case.exit, ran.all
        assert case.code in ran.err and case.where in ran.err, ran.all
        assert "CANARY" not in ran.all and "hunter2" not in ran.all
        sent = [(method, path) for method, path, _ in lab.requests if method != "GET" and "oauth2" not in path]
        assert sent == [], "nothing is written to Salesforce"
        assert org.count("Person__c") + org.count("Account") == records
        left = {path for path, raw in (files(lab) | before).items() if files(lab).get(path) != raw} | (
            set(files(lab)) - set(before)
        )
        assert not [path for path in left if not path.name.startswith(NOTED) and path.suffix != ".lock"]
    finally:
        for path in set(files(lab)) - set(first):
            path.unlink()
        for path, raw in first.items():
            if not path.exists() or path.read_bytes() != raw:  # the times of the others tell when dbt ran
                path.write_bytes(raw)
    message = steady(lab, ran.err or ran.out)
    golden = GOLDEN / f"{name}.txt"
    if os.environ.get("DINMO_UPDATE_GOLDEN"):
        golden.parent.mkdir(parents=True, exist_ok=True)
        golden.write_text(message, encoding="utf-8")
    assert golden.exists(), "run once with DINMO_UPDATE_GOLDEN=1, and read what it says"
    assert message == golden.read_text(encoding="utf-8")


# What a look at the files, the org's description and the relations can't know: rows, and what a state remembers.
ROWS = ("DB401", "DB402", "DB403", "DB410", "DB451", "DB452")


@pytest.mark.parametrize(
    "name", [name for name, case in CASES.items() if case.argv[0] == "sync" and case.code and case.code not in ROWS]
)
def test_a_plan_refuses_nothing_that_validate_let_pass(sound: tuple[Lab, Org], name: str) -> None:
    (lab, _), case = sound, CASES[name]
    first = files(lab)
    try:
        case.change(lab)
        variables = {key: told(lab)[text[1:]] if text.startswith("@") else text for key, text in case.env.items()}
        planned = lab.run("plan", *case.argv[1:], **variables)
        if planned.code in (0, 10):
            return
        judged = lab.run("validate", "--online", *case.argv[1:], **variables)
        assert judged.code, planned.all + judged.all
        assert case.code in judged.err and case.where in judged.err, judged.all
    finally:
        for path in set(files(lab)) - set(first):
            path.unlink()
        for path, raw in first.items():
            if not path.exists() or path.read_bytes() != raw:
                path.write_bytes(raw)


def test_every_text_that_is_kept_has_its_case() -> None:
    assert {path.stem for path in GOLDEN.glob("*.txt")} == set(CASES)
