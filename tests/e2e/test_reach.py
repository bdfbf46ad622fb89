"""What is outside and wrong: named once, with the way out; never a traceback, never a secret."""

from __future__ import annotations

import json
import socket

import pytest

from dinmo_dbt.cli.clock import SystemClock

from .lab import COMPANIES, DINMO, PEOPLE, Lab, Org

pytestmark = pytest.mark.slow

ADDRESSED = """destinations:
  crm:
    targets:
      dev:
        login_url: "{url}"
        auth: {{flow: {flow}, instance_url: "{url}", access_token: "{{{{ env_var('LAB_TOKEN') }}}}"}}
"""
CLIENT = """destinations:
  crm:
    targets:
      dev:
        login_url: "{url}"
        auth: {{flow: client_credentials, client_id: lab, client_secret: "{{{{ env_var('LAB_SECRET') }}}}"}}
"""


def url_of(lab: Lab) -> str:
    return str(json.loads((lab.data / "server.json").read_text())["instance_url"])


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def test_an_org_that_can_not_be_reached_is_an_error_of_each_activation(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SystemClock, "sleep", lambda *_: None)  # between the attempts
    url = f"http://127.0.0.1:{free_port()}"
    (lab.root / "dinmo.yml").write_text(ADDRESSED.format(url=url, flow="access_token"))
    ran = lab.run("sync", "--json", LAB_TOKEN="00Dxx!CANARY_TOKEN")
    assert ran.code == 1, ran.all
    assert [result["status"] for result in ran.json["results"]] == ["failed"] * 3
    assert ran.err.count("DB6") == 3
    assert "CANARY" not in ran.all
    planned = lab.run("plan", LAB_TOKEN="00Dxx!CANARY_TOKEN")
    assert planned.code == 1
    assert "CANARY" not in planned.all


@pytest.mark.parametrize("command", [("debug",), ("sync",), ("validate", "--online")])
def test_wrong_credentials_are_said_without_the_secret(lab: Lab, org: Org, command: tuple[str, ...]) -> None:
    (lab.root / "dinmo.yml").write_text(CLIENT.format(url=url_of(lab)))
    ran = lab.run(*command, LAB_SECRET="CANARY_SECRET")
    assert ran.code == 1, ran.all
    assert "CANARY" not in ran.all
    assert "invalid_client" in ran.err or "client" in ran.err
    if command == ("debug",):
        assert "warehouse: OK" in ran.out, "what can be checked is checked"
        assert "destination crm: ERROR" in ran.out


@pytest.mark.parametrize(
    ("call", "body", "screen"),
    [
        ("logins", {"refuses": "app_blocked"}, "Setup -> Connected Apps OAuth Usage -> Unblock"),
        ("logins", {"refuses": "no_run_as"}, "Policies -> Run As"),
        ("faults", {"kind": "status", "call": "limits", "status": 403, "code": "API_DISABLED_FOR_ORG"}, "API Enabled"),
    ],
    ids=["app blocked", "no run-as user", "no API"],
)
def test_debug_names_the_screen_that_mends_a_refusal(
    lab: Lab, org: Org, call: str, body: dict[str, str], screen: str
) -> None:
    told = json.loads((lab.data / "server.json").read_text())
    text = CLIENT.format(url=url_of(lab)).replace("client_id: lab", f"client_id: {told['client_id']}")
    (lab.root / "dinmo.yml").write_text(text)
    assert lab.run("debug", LAB_SECRET=told["client_secret"]).code == 0
    assert org.http.post(f"{org.url}/emulator/{call}", json=body).ok
    ran = lab.run("debug", LAB_SECRET=told["client_secret"])
    assert ran.code == 1 and "destination crm: ERROR" in ran.out, ran.all
    assert screen in ran.all and told["client_secret"] not in ran.all


def test_an_unset_variable_is_named(lab: Lab, org: Org) -> None:
    (lab.root / "dinmo.yml").write_text(CLIENT.format(url=url_of(lab)))
    ran = lab.run("sync")
    assert ran.code == 2, ran.all
    assert "LAB_SECRET" in ran.err
    assert lab.run("validate").code == 0, "offline it is a note"


def test_what_salesforce_lacks_is_named_with_the_place_that_makes_it(lab: Lab, org: Org) -> None:
    lab.declare("people", {**PEOPLE, "fields": {**PEOPLE["fields"], "nick": "Nickname__c"}})
    lab.declare("companies", {**COMPANIES, "object": "Company__c"})
    ran = lab.run("validate", "--online")
    assert ran.code == 2
    assert "Nickname__c" in ran.err and "Company__c" in ran.err
    for model in ("people", "companies"):
        assert f"models/models.yml:1: {model}.config.meta.dinmo.activations[0]" in ran.err
    assert "Object Manager" in ran.err and "Fields & Relationships" in ran.err
    document = lab.run("validate", "--online", "--json").json
    assert document["valid"] is False and len(document["problems"]) == 2
    assert lab.run("validate").code == 0, "offline it can't be known"


def test_a_column_that_the_model_lacks_is_an_error_of_its_activation(lab: Lab, org: Org) -> None:
    lab.declare("people", {**PEOPLE, "fields": {"nome": "Name"}})
    ran = lab.run("sync", "--json")
    assert ran.code == 2, ran.all
    assert "nome" in ran.err
    assert ran.result("companies_to_crm")["status"] == "success"


def test_a_warehouse_that_is_gone_is_said(lab: Lab, org: Org) -> None:
    (lab.root / "lab.duckdb").unlink()
    ran = lab.run("sync")
    assert ran.code == 1, ran.all
    assert "lab.duckdb" in ran.err


def test_debug_tells_of_a_destination_that_activations_use_and_the_target_lacks(lab: Lab, org: Org) -> None:
    (lab.root / "dinmo.yml").write_text(DINMO.replace("dev:", "prod:"))
    ran = lab.run("debug", "--json")
    assert ran.code == 2, ran.all
    told = [problem["message"] for check in ran.json["checks"] if not check["ok"] for problem in check["problems"]]
    assert told and all("destination 'crm' has no entry for dbt target 'dev'" in message for message in told)
    assert "DB121" in ran.err
    lab.only("people")
    assert lab.run("debug").code == 0, "nobody asks for it"


@pytest.mark.parametrize("key", ["schema", "records"])
def test_a_place_that_dinmo_yml_names_for_the_embedded_org_must_be_there(lab: Lab, key: str) -> None:
    usual = lab.root / {"schema": "force-app", "records": "emulator_records"}[key]
    (lab.root / "dinmo.yml").write_text(f"{DINMO}emulator: {{{key}: mistyped}}\n")
    ran = lab.run("plan", "-s", "companies")
    assert ran.code == 1 and "mistyped: no such" in ran.err, ran.all
    served = lab.process("emulator", "serve")
    assert served.code == 1 and "mistyped: no such" in served.err, served.all
    (lab.root / "dinmo.yml").write_text(DINMO)
    usual.rename(lab.root / "away")
    assert lab.run("debug").code == 0, "the usual ones need not"


def test_the_environment_speaks_dbts_and_our_words(lab: Lab, org: Org) -> None:
    assert lab.run("list", DINMO_TARGET="dev").code == 0
    nowhere = lab.run("debug", DINMO_TARGET="nowhere")
    assert nowhere.code == 2 and "nowhere" in nowhere.err
    by_dbt = lab.run("debug", DBT_TARGET="nowhere")
    assert by_dbt.code == 2 and "nowhere" in by_dbt.err
    assert lab.run("list", DBT_TARGET_PATH="elsewhere").code == 2
    assert lab.run("sync", "-q", "-s", "companies").out == ""
    quiet = lab.run("sync", "-s", "companies", DINMO_QUIET="1")
    assert quiet.code == 0 and quiet.out == ""


def test_the_story_as_json_lines(lab: Lab, org: Org) -> None:
    ran = lab.run("sync", "--log-format", "json")
    lines = [json.loads(line)["info"]["msg"] for line in ran.out.splitlines()]
    assert lines[0].startswith("Syncing 3 activations") and lines[-1].startswith("Done.")
