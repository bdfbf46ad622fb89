"""Schemas from YAML, from describe replies and from a tree with record types; changed while the org runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dinmo_dbt import emulator
from dinmo_dbt.emulator.errors import SchemaError
from dinmo_dbt.emulator.schema.source import read_schema

from .mounted import Mounted

DOCUMENT = """
objects:
  Subscription__c:
    label: Subscription
    plural_label: Subscriptions
    name_field: {type: AutoNumber, format: "S-{0000}"}
    fields:
      Subscription_Id__c: {type: Text, length: 40, unique: true, external_id: true, required: true}
      Plan__c: {type: Picklist, values: [Basic, {value: Pro, label: Professional, default: true}], restricted: true}
      MRR__c: {type: Currency, precision: 16, scale: 2, default: 9.5}
      Customer__c: {type: Lookup, to: Account, relationship_name: Subscriptions, on_delete: restrict}
      Active__c: {type: Checkbox, default: true}
      Doubled__c: {type: Number, formula: "MRR__c * 2"}
    record_types:
      Partner: {label: Partner deal, default: true}
      Old: {active: false}
  Account:
    fields:
      Tier__c: {type: Text, length: 3}
      Rating: {access: read}
      Fax: {access: none}
"""


@pytest.fixture
def document(tmp_path: Path) -> Path:
    path = tmp_path / "schema.yml"
    path.write_text(DOCUMENT)
    return path


@pytest.fixture
def org(document: Path) -> Any:
    mounted = Mounted(document)
    yield mounted
    mounted.close()


def described(org: Mounted, name: str) -> dict[str, dict[str, Any]]:
    return {f["name"]: f for f in org.get(f"/sobjects/{name}/describe")["fields"]}


def refusal(reply: Any) -> str:
    return str(reply.json[0]["errorCode"])


def test_a_yaml_document_declares_objects_in_the_words_of_setup(org: Mounted) -> None:
    fields = described(org, "Subscription__c")
    assert (fields["Subscription_Id__c"]["externalId"], fields["Subscription_Id__c"]["nillable"]) == (True, False)
    assert [v["label"] for v in fields["Plan__c"]["picklistValues"]] == ["Basic", "Professional"]
    assert (fields["MRR__c"]["type"], fields["MRR__c"]["precision"]) == ("currency", 16)
    assert fields["Doubled__c"]["calculated"] is True
    rid = org.create("Subscription__c", {"Subscription_Id__c": "a"})
    record = org.get(f"/sobjects/Subscription__c/{rid}")
    assert (record["Name"], record["Plan__c"], record["MRR__c"], record["Active__c"]) == ("S-0001", "Pro", 9.5, True)
    account = org.create("Account", {"Name": "parent"})
    org.create("Subscription__c", {"Subscription_Id__c": "b", "Customer__c": account})
    assert refusal(org.api("DELETE", f"/sobjects/Account/{account}")) == "DELETE_FAILED"


def test_every_problem_of_a_document_is_reported_at_once(tmp_path: Path) -> None:
    path = tmp_path / "bad.yml"
    path.write_text("objects:\n  A__c:\n    fields: {B__c: {typ: Text, length: -1}}\n  C__c: {lable: x}\n")
    with pytest.raises(SchemaError) as caught:
        read_schema(path)
    told = str(caught.value)
    for place in ("objects.A__c.fields.B__c.typ", "objects.A__c.fields.B__c.length", "objects.C__c.lable"):
        assert place in told
    assert told.count(str(path)) == 3


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{A__c: {fields: {B__c: {type: Location}}}}", "field type Location of A__c.B__c is not emulated"),
        ("{A__c: {fields: {B__c: {type: Picklist}}}}", "A__c.B__c: a picklist needs values"),
        ("{A__c: {fields: {B__c: {type: Lookup, to: Nope__c}}}}", "refers to Nope__c"),
        ("{Nope: {}}", "a new object's API name ends in __c"),
        ("{Account: {fields: {Name: null}}}", "a standard field can't be removed"),
        ("{Account: {fields: {Name: {access: none}}}}", "a permission can't close a required or system field"),
        ("{Account: {fields: {Id: {required: true}}}}", "Account.Id is a system field"),
        ("{Account: {fields: {Phone: {type: Text}}}}", "Account.Phone: type can't be changed"),
    ],
)
def test_what_can_not_be_is_named(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "schema.yml"
    path.write_text(f"objects: {text}\n")
    with pytest.raises(SchemaError, match=told) as caught:
        read_schema(path)
    assert told.startswith("refers") or str(path) in str(caught.value)


def test_field_permissions_are_those_of_the_orgs_user(org: Mounted) -> None:
    fields = described(org, "Account")
    assert "Fax" not in fields
    assert (fields["Rating"]["createable"], fields["Rating"]["updateable"]) == (False, False)
    assert refusal(org.api("POST", "/sobjects/Account", {"Name": "a", "Rating": "Hot"})) == (
        "INVALID_FIELD_FOR_INSERT_UPDATE"
    )
    assert refusal(org.api("POST", "/sobjects/Account", {"Name": "a", "Fax": "1"})) == "INVALID_FIELD"
    assert refusal(org.api("GET", "/query?q=SELECT+Fax+FROM+Account")) == "INVALID_FIELD"
    job = org.job("Account", "Name,Fax\na,1\n")
    org.clock.advance(1)
    info = org.info(job)
    assert (info["state"], info["errorMessage"]) == ("Failed", "InvalidBatch : Field name not found : Fax")


def test_record_types_are_described_chosen_and_checked(org: Mounted) -> None:
    infos = org.get("/sobjects/Subscription__c/describe")["recordTypeInfos"]
    assert [(i["developerName"], i["defaultRecordTypeMapping"], i["active"]) for i in infos] == [
        ("Partner", True, True), ("Old", False, False), ("Master", False, True),
    ]  # fmt: skip
    assert {len(i["recordTypeId"]) for i in infos} == {18}
    rid = org.create("Subscription__c", {"Subscription_Id__c": "a"})
    soql = "/query?q=SELECT+RecordType.DeveloperName,RecordTypeId+FROM+Subscription__c"
    (row,) = org.get(soql)["records"]
    assert (row["RecordType"]["DeveloperName"], row["RecordTypeId"]) == ("Partner", infos[0]["recordTypeId"])
    for bad in (infos[1]["recordTypeId"], org.create("Account", {"Name": "x"})):
        reply = org.api("PATCH", f"/sobjects/Subscription__c/{rid}", {"RecordTypeId": bad})
        assert refusal(reply) in ("INVALID_CROSS_REFERENCE_KEY", "MALFORMED_ID")
    listed = org.get("/query?q=SELECT+DeveloperName+FROM+RecordType+WHERE+IsActive=true")["records"]
    assert [r["DeveloperName"] for r in listed] == ["Partner"]


def test_record_types_of_a_tree_are_read(schema: Path, tmp_path: Path, mount: Callable[..., Mounted]) -> None:
    import shutil

    tree = tmp_path / "tree"
    shutil.copytree(schema, tree)
    folder = next(tree.rglob("objects/Customer__c")) / "recordTypes"
    folder.mkdir()
    (folder / "Big.recordType-meta.xml").write_text(
        '<RecordType xmlns="http://soap.sforce.com/2006/04/metadata"><fullName>Big</fullName><active>true</active>'
        "<label>Big one</label></RecordType>"
    )
    mounted = Mounted(tree)
    infos = mounted.get("/sobjects/Customer__c/describe")["recordTypeInfos"]
    assert [i["name"] for i in infos] == ["Big one", "Master"]
    mounted.close()


def test_a_describe_reply_gives_the_same_describe_back(org: Mounted, tmp_path: Path) -> None:
    """What one org describes, another reads and describes alike: keys that are not derived are kept."""
    for name in ("Subscription__c", "Account", "Contact"):
        before = org.get(f"/sobjects/{name}/describe")
        before["fields"][0]["newKey"] = {"of": "a later version"}
        before["mruEnabled"] = False
        (tmp_path / f"{name}.json").write_text(json.dumps({"status": 0, "result": before}))
    (tmp_path / "schema.yml").unlink()
    other = Mounted(tmp_path)
    for name in ("Subscription__c", "Account", "Contact"):
        before = json.loads((tmp_path / f"{name}.json").read_text())["result"]
        after = other.get(f"/sobjects/{name}/describe")
        for own in (before, after):  # ids are minted anew
            for info in own["recordTypeInfos"]:
                info["recordTypeId"] = info["urls"] = None
        assert after == before
    rid = other.create("Subscription__c", {"Subscription_Id__c": "a", "Plan__c": "Basic"})
    assert other.get(f"/sobjects/Subscription__c/{rid}")["Plan__c"] == "Basic"
    other.close()


def test_what_is_no_describe_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text('{"status": 1}')
    with pytest.raises(SchemaError, match="is no describe of an object"):
        read_schema(path)
    with pytest.raises(SchemaError, match="no such file or folder"):
        read_schema(tmp_path / "nothing")


def test_the_schema_of_a_running_org_changes_at_once(org: Mounted) -> None:
    rid = org.create("Account", {"Name": "a", "Tier__c": "x"})
    changed = org.control("POST", "/schema", {"objects": {"Account": {"fields": {"Tier__c": {"required": True}}}}})
    assert changed.status_code == 200, changed.text
    assert refusal(org.api("POST", "/sobjects/Account", {"Name": "b"})) == "REQUIRED_FIELD_MISSING"
    org.app.change_schema({"objects": {"Account": {"fields": {"Tier__c": None}}}})
    assert refusal(org.api("GET", "/query?q=SELECT+Tier__c+FROM+Account")) == "INVALID_FIELD"
    assert "Tier__c" not in described(org, "Account")
    org.create("Account", {"Name": "b"})
    assert len(org.control("GET", "/schema").json["changes"]) == 2
    assert org.control("DELETE", "/schema").json["changes"] == []
    assert org.get(f"/sobjects/Account/{rid}")["Tier__c"] == "x"


def test_a_job_under_way_meets_a_field_that_goes(org: Mounted) -> None:
    org.app.pace = emulator.Pace(batch_s=1.0)
    job = org.job("Account", "Name,Tier__c\n" + "n,t\n" * 25_000)
    org.clock.advance(1.5)
    assert org.info(job)["numberRecordsProcessed"] == 10_000
    org.app.change_schema({"objects": {"Account": {"fields": {"Tier__c": {"access": "none"}}}}})
    org.clock.advance(60)
    info = org.info(job)
    assert (info["state"], info["errorMessage"]) == ("Failed", "InvalidBatch : Field name not found : Tier__c")
    assert (org.count("Account"), len(org.rows(job, "unprocessedrecords"))) == (10_000, 15_000)


def test_changes_outlive_a_restart_and_a_bad_one_changes_nothing(document: Path, tmp_path: Path) -> None:
    org = Mounted(document, tmp_path / "data")
    org.app.change_schema(
        {"objects": {"Account": {"fields": {"New__c": {"type": "Date"}}, "access": {"create": False}}}}
    )
    refused = org.control("POST", "/schema", {"objects": {"Account": {"fields": {"Nope__c": {"required": True}}}}})
    assert refused.status_code == 400
    assert "Account.Nope__c" in refused.json["error"]
    org.close()
    again = Mounted(document, tmp_path / "data")
    assert described(again, "Account")["New__c"]["type"] == "date"
    assert again.get("/sobjects/Account/describe")["createable"] is False
    assert again.api("POST", "/sobjects/Account", {"Name": "a"}).status_code == 400
    again.close()
