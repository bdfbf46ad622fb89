"""The `dinmo` block: every error once, defaults, what is not in force, and that nothing else ever comes out."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from config_cases import activation, block, golden, insert, manifest, node, right, told
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dinmo_dbt.activation import (
    Activation,
    Ceiling,
    FieldMapping,
    Match,
    Mode,
    QuietHours,
    Schedule,
    ScheduleKind,
    WarningKind,
    Watch,
)
from dinmo_dbt.artifacts.declared import activations
from dinmo_dbt.config.block import json_schema
from dinmo_dbt.errors import ConfigError, DinmoError

ROOT = Path(__file__).parent.parent


def resolved(dinmo: Any, *, defaults: dict[str, Any] | None = None, **changes: Any) -> Activation:
    (found,) = right(activations(manifest(node(dinmo=dinmo, **changes)), defaults or {}))
    return found


def one(written: dict[str, Any], **kwargs: Any) -> Activation:
    return resolved(block(written), **kwargs)


PEM = "-----BEGIN RSA " + "PRIVATE KEY-----"

WRONG: dict[str, Any] = {
    "block_not_a_mapping": ["upsert"],
    "block_empty": {},
    "block_null_activation": {"key": "id", "activation": None},
    "block_both_forms": {"key": "id", "activation": activation(), "activations": [activation()]},
    "block_shorthand": {"key": "id", "object": "Account", "mode": "insert"},
    "block_unknown_key": block(segmets={"a": "b"}),
    "block_activations_a_mapping": {"key": "id", "activations": activation()},
    "block_activations_empty": {"key": "id", "activations": []},
    "key_boolean": block(key=True),
    "key_empty_list": block(key=[]),
    "key_blank": block(key=" "),
    "key_absent_and_unknown_to_dbt": {"activation": activation()},
    "segment_empty": block(segments={"active": ""}),
    "unknown_key": block(activation(objct="Account")),
    "unknown_key_far_from_all": block(activation(zzz=1)),
    "secret_key": block(activation(client_secret="hunter2")),
    "secret_key_in_block": block(api_token="hunter2"),
    "secret_text": block(activation(where=PEM)),
    "secret_constant": block(activation(constants={"Api_Key__c": "hunter2"})),
    "missing_keys": block({"fields": {"a": "B__c"}}),
    "mode_norway": block(activation(mode=False)),
    "mode_wrong_case": block(activation(mode="Upsert")),
    "mode_unknown": block(activation(mode="mirror")),
    "name_with_a_slash": block(activation(name="../state")),
    "name_too_long": block(activation(name="x" * 101)),
    "name_a_number": block(activation(name=7)),
    "object_is_a_label": block(activation(object="Customer Account")),
    "null_value": block(activation(where=None)),
    "match_missing": block(activation("match")),
    "match_two_columns": block(activation(match={"a": "A__c", "b": "B__c"})),
    "match_empty": block(activation(match={})),
    "match_text": block(activation(match="Customer_Id__c")),
    "match_parent_path": block(activation(match={"id": "Customer__r.Id__c"})),
    "match_in_insert": block(activation(mode="insert")),
    "match_create_in_update": block(activation(mode="update", match={"id": "Email", "create": True})),
    "match_create_with_id": block(activation(match={"id": "Id", "create": True})),
    "field_is_a_label": block(activation(fields={"plan": "Plan Name"})),
    "field_three_parts": block(activation(fields={"plan": "A__r.B__r.C__c"})),
    "field_path_through_lookup_field": block(activation(fields={"plan": "Customer__c.Customer_Id__c"})),
    "field_null": block(activation(fields={"plan": None})),
    "field_long_form_wrong": block(activation(fields={"plan": {"fild": "Plan__c", "nulls": "ignore"}})),
    "field_id": block(insert(fields={"plan": "Id"})),
    "field_twice": block(activation(fields={"plan": "Plan__c", "mrr": "plan__c"})),
    "field_twice_with_match": block(activation(fields={"plan": "CUSTOMER_ID__C"})),
    "field_twice_with_constant": block(activation(constants={"Plan__c": "pro"})),
    "field_twice_by_relationship": block(activation(fields={"a": "Parent__c", "b": "Parent__r.Ext__c"})),
    "field_twice_by_standard_relationship": block(activation(fields={"a": "AccountId", "b": "Account.Ext__c"})),
    "constant_list": block(activation(constants={"Tags__c": ["a"]})),
    "constant_not_finite": block(activation(constants={"Score__c": float("nan")})),
    "constant_parent_path": block(activation(constants={"Owner.Email": "a@b.c"})),
    "segment_unknown": block(activation(segment="actve"), segments={"active": "true"}),
    "segment_none_declared": block(activation(segment="active")),
    "segment_and_where": block(activation(segment="active", where="x"), segments={"active": "true"}),
    "on_change_in_upsert": block(activation(on_change="ignore")),
    "on_removed_in_insert": block(insert(on_removed="delete")),
    "on_removed_unknown": block(activation(on_removed="deleted")),
    "on_removed_set_empty": block(activation(on_removed={"set": {}})),
    "on_removed_sets_id": block(activation(on_removed={"set": {"ID": "x"}})),
    "on_removed_sets_match": block(activation(on_removed={"set": {"customer_id__c": None}})),
    "on_removed_in_delete": block(activation("fields", mode="delete", guards={"max_delete": 5}, on_removed="delete")),
    "on_removed_unknown_key": block(activation(on_removed={"sets": {"A__c": 1}})),
    "insert_nothing_to_write": block(insert(fields={})),
    "delete_with_fields": block(activation(mode="delete", guards={"max_delete": 5}, constants={"A__c": 1})),
    "delete_without_guard": block(activation("fields", mode="delete")),
    "delete_guard_percent": block(activation("fields", mode="delete", guards={"max_delete": "5%"})),
    "guard_number_as_text": block(activation(guards={"max_change": "5"})),
    "guard_over_100": block(activation(guards={"max_change": "101%"})),
    "guard_negative": block(activation(guards={"max_change": -1})),
    "guard_boolean": block(activation(guards={"max_change": True})),
    "audit_boolean": block(activation(audit=True)),
    "audit_number": block(activation(audit=200)),
    "audit_words": block(activation(audit="200 records")),
    "audit_over_100": block(activation(audit="101%")),
    "guard_unknown": block(activation(guards={"max_chnge": 5})),
    "api_unknown": block(activation(api="rest")),
    "schedule_unknown": block(activation(schedule="hourly")),
    "schedule_zero": block(activation(schedule="every 0 minutes")),
    "schedule_cron_parts": block(activation(schedule={"cron": "0 6 * *"})),
    "schedule_cron_range": block(activation(schedule={"cron": "0 24 * * *"})),
    "schedule_timezone": block(activation(schedule={"cron": "0 6 * * 1-5", "timezone": "Europe/Pari"})),
    "warnings_wrong": block(activation(warnings={"failed": "yes", "reject": "5%"})),
    "schedule_cron_never": block(activation(schedule={"cron": "0 6 31 2 *"})),
    "schedule_cron_last_day": block(activation(schedule={"cron": "0 9 L * *"})),
    "schedule_cron_nth_weekday": block(activation(schedule={"cron": "0 9 * * 5#2"})),
    "schedule_cron_step_of_one": block(activation(schedule={"cron": "5/15 * * * *"})),
    "schedule_cron_word": block(activation(schedule={"cron": "0 6 * * noday"})),
    "warnings_forms": block(
        activation(
            warnings={
                "empty": "loud",
                "failed": {"limit": 5},
                "held": "soon",
                "rejected": {"limt": 5},
                "duration": {"severity": "high"},
                "api_budget": 80,
            }
        )
    ),
    "quiet_hours_base_60": block(activation(quiet_hours={"from": 1320, "to": "06:00"})),
    "quiet_hours_without_end": block(activation(quiet_hours={"from": "22:00", "to": "22:00"})),
    "mute_until_wrong": block(activation(mute_until="next week")),
    "auto_pause_zero": block(activation(auto_pause=0)),
    "not_available_yet": block(
        activation(
            engine="warehouse", missing_parent="reject", fields={"plan": {"field": "Plan__c", "write": "if_empty"}}
        )
    ),
    "engine_unknown": block(activation(engine="spark")),
    "enabled_text": block(activation(enabled="true")),
    "lone_surrogate": block(activation(where="a = '\ud800'")),
    "braces_in_a_message": block(activation(match={"{a}": "{b}"})),
    "control_characters": block(activation(object="A\x1b[31m\n__c")),
    "everything_at_once": block(
        activation(mode="upsrt", match={"a": "B C"}, guards={"max_change": "x"}, colour="red"),
        insert("destination", segment="none"),
        activation(name="second", on_change="ignore", fields={"a": "A__c", "b": "a__C"}),
        sgments={},
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_each_mistake_has_its_message(case: str) -> None:
    with pytest.raises(ConfigError) as raised:
        resolved(WRONG[case])
    text = told(raised.value)
    golden(f"meta_{case}", text)
    assert "hunter2" not in text
    assert all(line.isprintable() for line in text.splitlines())


def test_a_full_activation_is_read_as_written() -> None:
    written = insert(
        on_change="ignore",
        constants={"Source__c": "dbt", "Score__c": 1.5, "Old__c": None, "Hot__c": True},
        segment="active",
        fields={"plan": "Plan__c", "who": "Lead:Who.Email", "mrr": {"field": "MRR__c", "nulls": "keep"}},
        guards={"max_change": 100},
        api="bulk",
        enabled=False,
    )
    activation = resolved(block(written, segments={"active": "status = 'active'"}, key=["customer_id", "region"]))
    assert activation.mode is Mode.INSERT
    assert activation.key == ("customer_id", "region")
    assert activation.fields[1:] == (FieldMapping("who", "Lead:Who.Email"), FieldMapping("mrr", "MRR__c", nulls="keep"))
    assert dict(activation.constants) == {"Source__c": "dbt", "Score__c": 1.5, "Old__c": None, "Hot__c": True}
    assert (activation.segment, activation.where) == ("active", "status = 'active'")
    assert activation.guards.max_change == Ceiling(rows=100)
    assert str(activation.guards.max_delete) == "1%"
    assert activation.meta_path == "models/marts/_marts.yml: dim_customers.config.meta.dinmo.activations[0]"
    assert (activation.on_change, activation.api, activation.enabled) == ("ignore", "bulk", False)


def test_one_activation_may_be_written_without_a_list() -> None:
    found = resolved({"key": "customer_id", "activation": activation("name")})
    assert found.name == "dim_customers__Customer__c"
    assert found.meta_path.endswith("dinmo.activation")


def test_a_column_called_create_is_a_column_when_its_value_is_a_field() -> None:
    assert one(activation(match={"create": "Ext__c"})).match == Match("create", "Ext__c")
    assert one(activation(match={"create": True, "id": "Email"})).match == Match("id", "Email", create=True)


def test_the_key_defaults_to_the_primary_key_that_dbt_knows() -> None:
    assert resolved({"activation": activation()}, primary_key=["customer_id"]).key == ("customer_id",)


def test_when_it_runs_is_read_as_written() -> None:
    found = one(
        activation(
            schedule={"cron": "0  6 * * mon-fri", "timezone": "Europe/Paris"},
            quiet_hours={"from": "22:00", "to": "06:30", "timezone": "Europe/Paris"},
            auto_pause=5,
            mute_until="2030-01-01T12:00:00+01:00",
        )
    )
    assert found.schedule == Schedule(ScheduleKind.CRON, cron="0 6 * * mon-fri", timezone="Europe/Paris")
    assert found.quiet_hours == QuietHours(22 * 60, 6 * 60 + 30, "Europe/Paris")
    assert (found.auto_pause, found.mute_until) == (5, 1893495600.0)
    assert one(activation(schedule="every 15 minutes")).schedule == Schedule(ScheduleKind.EVERY, every_s=900)
    assert one(activation(auto_pause=False)).auto_pause is None
    assert one(activation()).auto_pause == one(activation(auto_pause=True)).auto_pause == 3
    assert one(activation(mute_until="2030-01-01")).mute_until == 1893456000.0


def test_each_schedule_is_reported_as_it_was_written() -> None:
    for written in ("after_dbt", "manual", "every 15 minutes", "every 36 hours", "every 2 days"):
        assert str(one(activation(schedule=written)).schedule) == written
    assert str(one(activation(schedule="every 1 day")).schedule) == "every day"
    assert str(one(activation(schedule={"cron": "0 6 * * 1-5"})).schedule) == "0 6 * * 1-5 (UTC)"


def test_each_warning_is_on_as_asked_for_and_else_as_is_usual() -> None:
    usual = one(activation()).warnings
    off = {WarningKind.EMPTY, WarningKind.ROW_COUNT, WarningKind.DURATION, WarningKind.FULL}
    assert set(usual) == set(WarningKind) - off
    assert usual[WarningKind.FAILED] == Watch(critical=True)
    assert usual[WarningKind.REJECTED] == Watch(limit=Ceiling(percent=Decimal(5)))
    written = {
        "failed": False,
        "rejected": 20,
        "held": {"limit": "2 days", "severity": "critical"},
        "empty": "critical",
        "row_count": "30%",
        "duration": "45 minutes",
        "refused": "warning",
        "api_budget": {"severity": "critical"},
    }
    found = one(activation(warnings=written)).warnings
    assert WarningKind.FAILED not in found
    assert found[WarningKind.REJECTED] == Watch(limit=Ceiling(rows=20))
    assert found[WarningKind.HELD] == Watch(critical=True, limit=172800.0)
    assert found[WarningKind.EMPTY] == Watch(critical=True)
    assert found[WarningKind.ROW_COUNT] == Watch(limit=Decimal(30))
    assert found[WarningKind.DURATION] == Watch(limit=2700.0)
    assert found[WarningKind.REFUSED] == Watch()
    assert found[WarningKind.API_BUDGET] == Watch(critical=True, limit=Decimal(80))


def test_defaults_stand_below_and_guards_merge_by_key() -> None:
    defaults = {
        "destination": "crm",
        "guards": {"max_change": "10%", "max_delete": 5},
        "api": "bulk",
        "on_change": "ignore",
    }
    found = one(activation("destination", guards={"max_change": "20%"}, api="auto"), defaults=defaults)
    assert (found.destination, str(found.guards.max_change), found.guards.max_delete.rows, found.api) == (
        "crm",
        "20%",
        5,
        "auto",
    )
    assert one(insert(), defaults=defaults).on_change == "ignore"


def test_wrong_defaults_are_reported_once_where_they_were_written() -> None:
    with pytest.raises(ConfigError) as raised:
        one(activation(), defaults={"api": "rest", "colour": "red", "guards": {"max_change": "many"}})
    golden("defaults_wrong", told(raised.value))


def test_the_digest_follows_what_is_sent_and_nothing_else() -> None:
    base = one(activation()).digest
    assert base == one(activation(guards={"max_change": 3}, schedule="manual", enabled=False, name="other")).digest
    assert base == one(activation(fields={"mrr": {"field": "MRR__c", "nulls": "keep"}, "plan": "Plan__c"})).digest
    for changed in (
        activation(object="Account"),
        activation(mode="update"),
        activation(where="true"),
        activation(fields={"plan": "Plan__c"}),
        activation(constants={"A__c": 1}),
        activation(match={"customer_id": "Other__c"}),
        activation(destination="other"),
    ):
        assert one(changed).digest != base
    assert len(base) == 64


def test_activations_are_imported_without_pydantic() -> None:
    code = "import sys, dinmo_dbt.activation; sys.exit('pydantic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_schema_names_every_key_with_a_description() -> None:
    properties = json_schema()["$defs"]["ActivationSpec"]["properties"]
    assert {"write", "schedule"} & set(properties) == {"schedule"}
    assert all(value.get("description") for value in properties.values())
    assert '"null"' not in json.dumps(properties["match"])


@pytest.mark.slow
def test_the_committed_references_and_schemas_are_up_to_date() -> None:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec and spec.loader
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    for name, text in generate.pages().items():
        assert (ROOT / name).read_text(encoding="utf-8") == text, f"{name} is old: run `python docs/generate.py`"


WORDS = (
    "key segments activation activations name destination object mode match fields constants segment where on_change "
    "on_removed schedule warnings guards api enabled create field nulls write set cron timezone max_delete "
    "max_created max_replaced from"
)
KEYS = st.sampled_from(WORDS.split())
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.text(alphabet=st.characters(), max_size=4),
    st.sampled_from(["upsert", "insert", "delete", "Id", "A__c", "A__r.B__c", "5%", "every 5 minutes", "\ud800", "\0"]),
)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS | st.text(max_size=5), inner, max_size=5),
    max_leaves=20,
)
NEAR_VALID = st.dictionaries(KEYS, JSON, max_size=3).map(lambda changes: block(activation(**changes)))


@pytest.mark.slow
@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(JSON | NEAR_VALID | st.dictionaries(KEYS, JSON, max_size=4))
def test_any_block_gives_activations_or_an_error_of_ours(dinmo: Any) -> None:
    try:
        found = activations(manifest(node(dinmo=dinmo)), {}).activations
    except DinmoError as error:
        assert error.problems
        str(error).encode()
    else:
        for each in found:
            assert len(each.digest) == 64
