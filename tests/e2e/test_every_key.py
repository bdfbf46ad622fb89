"""Every key has its effect: what the product does with a key, against what it does without.

The tables below have a proof for each line of the two JSON Schemas (see `schema_keys`), and nothing else: a key that is
added has no effect until it is shown here, and one that goes takes its proof along.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from schema_keys import lines, put
from test_channels import Receiver

from dinmo_dbt.cli.clock import SystemClock
from dinmo_dbt.config import block
from dinmo_dbt.config.dinmo_yml import json_schema

from .lab import PEOPLE, Lab
from .seen import (
    UNUSUAL,
    api,
    around,
    audited,
    beside_another,
    deleted,
    digest_time,
    due_now,
    embedded,
    events,
    flags,
    header,
    images,
    left,
    many_changed,
    many_created,
    many_replaced,
    mode,
    named,
    next_start,
    nick,
    parentless,
    paused_after,
    reached,
    refused_for_long,
    resolved,
    rows,
    runs_kept,
    score,
    signed_in,
    state_folder,
    state_tables,
    statuses,
    synced,
    target,
    told,
    unflagged,
    valid,
    with_defaults,
    with_few_calls,
)
from .world import (
    BY_CLI,
    BY_REFRESH,
    BY_TOKEN,
    EMULATOR,
    HOOK,
    OTHER_ORG,
    REFRESH,
    SECRET,
    TOKEN,
    WRONG,
    Document,
    See,
    World,
)

pytestmark = pytest.mark.slow

GONE: Any = object()


@dataclass(frozen=True)
class Proof:
    """`key: value` makes of what is seen `without` what is seen `with_it`. `base`: the document without it; `also`:
    what else changes, where the value can't stand alone."""

    key: str
    value: Any
    see: See
    without: Any
    with_it: Any
    base: Document = field(default_factory=dict)
    also: Document = field(default_factory=dict)

    @property
    def document(self) -> Document:
        after = put(self.base, self.key, self.value) | self.also
        return {key: value for key, value in after.items() if value is not GONE}

    def proves(self, schema: Document, root: Document) -> list[str]:
        return list(lines(schema, root, given=put({}, self.key, self.value), whole="ActivationSpec"))

    def __str__(self) -> str:
        return f"{self.key}={json.dumps(self.value)}"


@pytest.fixture(scope="module")
def world(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    lab, receiver = Lab(Path(shutil.copytree(built, tmp_path_factory.mktemp("keys") / "lab"))), Receiver()
    with lab.serve() as org:
        yield World(lab, org, receiver)
    receiver.close()


# The `dinmo` block

LIMITS = {  # of the unusual run, each is within
    "rejected": (10, "10%"), "held": ("3 days",), "row_count": ("90%",), "duration": ("6 hours",),
    "missed": ("2 hours",), "api_budget": ("90%",),
}  # fmt: skip
CRITICAL = ("failed", "refused", "paused")


def of_warnings() -> Iterator[Proof]:
    def base(value: Any) -> Document:
        return {**PEOPLE, "warnings": {kind: value}}

    for kind in UNUSUAL:
        key, usual = f"warnings.{kind}", "critical" if kind in CRITICAL else "warning"
        yield Proof(key, True, told, [], [usual], base(False))
        yield Proof(key, False, told, [usual], [], base(True))
        for one, other in (("warning", "critical"), ("critical", "warning")):
            yield Proof(key, one, told, [other], [one], base(other))
            yield Proof(f"{key}.severity", one, told, [other], [one], base({"severity": other}))
        for limit in LIMITS.get(kind, ()):
            yield Proof(key, limit, told, [usual], [], base(True))
            yield Proof(f"{key}.limit", limit, told, [usual], [], base({}))


def people(*without: str, **changes: Any) -> Document:
    return {key: value for key, value in {**PEOPLE, **changes}.items() if key not in without}


def long_form(**keys: str) -> Document:
    return people(fields={"name": "Name", "nick": {"field": "Nick__c", **keys}})


NAME = {"name": "Name"}
BY_NICK = {"person_id": "Nick__c"}
INSERT = people("match", mode="insert", object="Event__c", fields={"plan": "Kind__c"})
CHILDREN = people("match", mode="insert", object="Event__c", fields={"person_id": "Person__r.Person_Id__c"})
TWINS = people(constants={"Tax_Id__c": "one"})
LATE = {"from": "13:00", "to": "14:00"}
AT_13_30 = {"cron": "30 13 * * *"}
BROKEN = people(fields={"name": "Nowhere__c"}, auto_pause=False)
LAX_GUARDS = {"max_delete": "90%", "max_change": "90%", "max_created": "90%", "max_replaced": "90%"}
INSERT_NAME = people("match", mode="insert", fields=NAME)
QUIET = people(schedule=AT_13_30, quiet_hours=LATE)
NICKED = people(fields=NAME, constants={"Nick__c": "dbt"})
ACTIVE = people(fields=NAME, constants={"Active__c": True})
PLAIN = people(fields=NAME)
WITH_NAME = ["Person_Id__c", "Name"]


ACTIVATION = [
    Proof("name", "other", named, "people__Person__c", "other", people("name")),
    Proof("destination", "pinned", target, ("Person__c", "crm"), "DB602", PEOPLE),
    Proof("object", "Event__c", target, ("Person__c", "crm"), ("Event__c", "crm"), INSERT_NAME),
    Proof("mode", "upsert", mode, (1, [["Person 1"]]), (30, [["Person 1"]]), people(mode="update")),
    Proof("mode", "update", mode, (30, [["Person 1"]]), (1, [["Person 1"]]), PEOPLE),
    Proof("mode", "insert", mode, (30, [["Person 1"]]), (31, [["Old"]]), PLAIN, {"match": GONE}),
    Proof("mode", "delete", mode, (30, [["Old"]]), (0, []), people("fields", guards={"max_delete": 1})),
    Proof("match", {"name": "Name"}, nick, [["Team"]], [["kept"]], people(mode="update", fields={"plan": "Nick__c"})),
    Proof("match.create", True, rows, "DB308", 30, people(match=BY_NICK, fields=NAME)),
    Proof("match.create", False, rows, 30, "DB308", people(match={**BY_NICK, "create": True}, fields=NAME)),
    Proof("fields.name", "Nick__c", header, ["Person_Id__c", "Name"], ["Person_Id__c", "Nick__c"], PLAIN),
    Proof("fields.name", ["Nick__c"], header, ["Person_Id__c", "Name"], ["Person_Id__c", "Nick__c"], PLAIN),
    Proof("fields.nick.field", "Note__c", header, [*WITH_NAME, "Nick__c"], [*WITH_NAME, "Note__c"], long_form()),
    Proof("fields.nick.nulls", "keep", nick, [[None]], [["kept"]], long_form()),
    Proof("fields.nick.nulls", "clear", nick, [["kept"]], [[None]], long_form(nulls="keep")),
    Proof("fields.nick.write", "always", rows, "DB142", 30, long_form(write="on_create")),
    Proof("fields.nick.write", "on_create", rows, 30, "DB142", long_form()),
    Proof("fields.nick.write", "if_empty", rows, 30, "DB142", long_form()),
    Proof("constants.Nick__c", "dbt", nick, [["kept"]], [["dbt"]], PLAIN),
    Proof("constants.Nick__c", None, nick, [["kept"]], [[None]], PLAIN),
    Proof("constants.Score__c", 4.5, score, [[None]], [[4.5]], PLAIN),
    Proof("constants.Active__c", True, unflagged, [[False]], [[True]], PLAIN),
    Proof("constants.Active__c", False, flags, [[True]], [[False]], PLAIN),
    Proof("segment", "few", rows, 30, 15, PEOPLE),
    Proof("where", "plan = 'Free'", rows, 30, 15, PEOPLE),
    Proof("on_change", "ignore", events, 31, 30, INSERT),
    Proof("on_change", "insert", events, 30, 31, {**INSERT, "on_change": "ignore"}),
    Proof("on_removed", "delete", left, [[None, None, False]], [], PLAIN),
    Proof("on_removed", "ignore", left, [], [[None, None, False]], people(fields=NAME, on_removed="delete")),
    Proof("on_removed.set.Nick__c", "left", left, [[None, None, False]], [["left", None, False]], PLAIN),
    Proof("on_removed.set.Score__c", 7, left, [[None, None, False]], [[None, 7.0, False]], PLAIN),
    Proof("on_removed.set.Active__c", True, left, [[None, None, False]], [[None, None, True]], PLAIN),
    Proof("on_removed.set.Active__c", False, left, [[None, None, True]], [[None, None, False]], ACTIVE),
    Proof("on_removed.set.Nick__c", None, left, [["dbt", None, False]], [[None, None, False]], NICKED),
    Proof("schedule", "manual", due_now, ["success"], [], PEOPLE),
    Proof("schedule", "after_dbt", due_now, [], ["success"], people(schedule="manual")),
    Proof("schedule", "every 15 minutes", next_start, "never", "02 12:15", people(schedule="manual")),
    Proof("schedule", "every 6 hours", next_start, "never", "02 18:00", people(schedule="manual")),
    Proof("schedule", "every 1 day", next_start, "never", "03 00:00", people(schedule="manual")),
    Proof("schedule", "every 1 day", due_now, [], ["success"], people(schedule="manual")),
    Proof("schedule.cron", "30 13 * * 2", next_start, "02 13:30", "03 13:30", people(schedule=AT_13_30)),
    Proof("schedule.timezone", "Asia/Tokyo", next_start, "02 13:30", "03 04:30", people(schedule=AT_13_30)),
    Proof("quiet_hours.from", "13:45", next_start, "02 14:00", "02 13:30", QUIET),
    Proof("quiet_hours.to", "13:35", next_start, "02 14:00", "02 13:35", QUIET),
    Proof("quiet_hours.timezone", "Asia/Tokyo", next_start, "02 14:00", "02 13:30", QUIET),
    Proof("auto_pause", True, paused_after, None, 3, BROKEN),
    Proof("auto_pause", False, paused_after, 3, None, PEOPLE),
    Proof("auto_pause", 5, paused_after, 3, 5, PEOPLE),
    Proof("auto_pause", 1, statuses, ["failed", "failed"], ["failed", "paused"], BROKEN),
    *of_warnings(),
    Proof("mute_until", "2026-03-03", told, ["critical"], [], people(warnings={"failed": True})),
    Proof("guards.max_delete", 11, deleted, 18, "DB407", people(on_removed="delete", guards=LAX_GUARDS)),
    Proof("guards.max_delete", "30%", deleted, 18, "DB407", people(on_removed="delete", guards=LAX_GUARDS)),
    Proof("guards.max_change", 599, many_changed, "ok", "DB403", people(guards=LAX_GUARDS)),
    Proof("guards.max_change", "50%", many_changed, "ok", "DB403", people(guards=LAX_GUARDS)),
    Proof("guards.max_created", 599, many_created, "ok", "DB408", people(guards=LAX_GUARDS)),
    Proof("guards.max_created", "50%", many_created, "ok", "DB408", people(guards=LAX_GUARDS)),
    Proof("guards.max_replaced", 15, many_replaced, "ok", "DB409", people(guards=LAX_GUARDS)),
    Proof("guards.max_replaced", "50%", many_replaced, "ok", "DB409", people(guards=LAX_GUARDS)),
    Proof("api", "bulk", api, "collections", "bulk", PEOPLE),
    Proof("api", "auto", api, "bulk", "collections", people(api="bulk")),
    Proof("api", "collections", api, "bulk", "collections", people(api="bulk")),
    Proof("enabled", False, due_now, ["success"], [], PEOPLE),
    Proof("enabled", True, due_now, [], ["success"], people(enabled=False)),
    Proof("keep_before_images", True, images, False, True, PEOPLE),
    Proof("keep_before_images", False, images, True, False, people(keep_before_images=True)),
    Proof("shares_object_with", ["other"], beside_another, "DB145", 30, people(on_removed="delete")),
    Proof("audit", "5 rows", audited, 30, 5, PEOPLE),
    Proof("audit", "50%", audited, 5, 15, people(audit="5 rows")),
    Proof("audit", "off", audited, 30, None, PEOPLE),
    Proof("audit", False, audited, 30, None, PEOPLE),
    Proof("audit", 0, audited, 30, None, PEOPLE),
    Proof("engine", "warehouse", rows, 30, "DB142", PEOPLE),
    Proof("engine", "arrow", rows, "DB142", 30, people(engine="warehouse")),
    Proof("missing_parent", "reject", parentless, ["held"], ["rejected"], CHILDREN),
    Proof("missing_parent", "hold", parentless, ["rejected"], ["held"], {**CHILDREN, "missing_parent": "reject"}),
    Proof("missing_parent", "set_null", parentless, ["held"], [], CHILDREN),
    Proof("give_up_after", "30 days", refused_for_long, ["DUPLICATE_VALUE"], ["GIVEN_UP"], TWINS),
]  # fmt: skip
FEW = {"key": "person_id", "segments": {"few": "plan = 'Free'"}, "activation": people(segment="few")}
BLOCK = [
    Proof("key", "plan", rows, 30, "DB410", {"key": "person_id", "activation": PEOPLE}),
    Proof("key", ["plan"], rows, 30, "DB410", {"key": ["plan", "person_id"], "activation": PEOPLE}),
    Proof("segments.few", "person_id = 'P1'", rows, 15, 1, FEW),
    Proof("activation", PEOPLE, named, "DB113", "people_to_crm", {"key": "person_id"}),
    Proof("activations", [PEOPLE], named, "DB113", "people_to_crm", {"key": "person_id"}),
]


# dinmo.yml


def to(written: Document, *without: str, **auth: str) -> Document:
    kept = {key: value for key, value in {**written["auth"], **auth}.items() if key not in without}
    return {"destinations": {"crm": {"targets": {"dev": {**written, "auth": kept}}}}}


def beside(**keys: Any) -> Document:
    return {"destinations": {"crm": EMULATOR}, **keys}


DEV, AUTH = "destinations.crm.targets.dev", "destinations.crm.targets.dev.auth"
CLIENT = "client_credentials"
BY_SECRET = {
    "login_url": "@URL",
    "auth": {"flow": CLIENT, "client_id": "@CLIENT", "client_secret": SECRET},
}
BY_KEY = {
    "login_url": "@URL",
    "auth": {"flow": "jwt", "client_id": "@CLIENT", "username": "@USER", "private_key_path": "key.pem"},
}
WITHOUT_TOKEN = to(BY_REFRESH, "refresh_token")
PROD = {"login_url": "https://acme.my.salesforce.com", "auth": BY_SECRET["auth"]}
ELSEWHERE = {"destinations": {"crm": {"targets": {"prod": PROD}}}}
AWAY = {"login_url": "https://proxy.example", "auth": BY_SECRET["auth"]}
TWO_TARGETS = {"destinations": {"crm": {"targets": {"dev": {"org": "emulator"}, "ci": {"org": "emulator"}}}}}
STANDING = beside(emulator={"data": ".dinmo/emulator"})
OWN = beside(emulator={"data": "own"})
DIGEST_AT = synced(digest_time)
TOLD = synced(lambda world: len(world.receiver.asked), telling=True)
DIGEST = beside(warnings={"channels": [HOOK], "digest": {"at": "06:00"}})

DINMO_YML = [
    Proof(f"{DEV}.org", "emulator", reached, "DB121", 30, ELSEWHERE),
    Proof(f"{DEV}.login_url", "@URL", signed_in, "DB607", CLIENT, to(BY_SECRET | {"login_url": "@DEAD"})),
    Proof(f"{AUTH}.flow", "jwt", signed_in, "DB114", "jwt-bearer", to(BY_KEY, flow="access_token")),
    Proof(f"{AUTH}.flow", "client_credentials", signed_in, "DB114", CLIENT, to(BY_SECRET, flow="jwt")),
    Proof(f"{AUTH}.flow", "access_token", signed_in, "DB114", "token", to(BY_TOKEN, flow="jwt")),
    Proof(f"{AUTH}.flow", "refresh_token", signed_in, "DB114", "refresh_token", to(BY_REFRESH, flow="jwt")),
    Proof(f"{AUTH}.flow", "sf_cli", signed_in, "DB114", "token", to(BY_CLI, flow="jwt")),
    Proof(f"{AUTH}.client_id", "@CLIENT", signed_in, "DB601", CLIENT, to(BY_SECRET, client_id="x")),
    Proof(f"{AUTH}.username", "@USER", signed_in, "DB601", "jwt-bearer", to(BY_KEY, username="x")),
    Proof(f"{AUTH}.private_key_path", "key.pem", signed_in, "DB122", "jwt-bearer", to(BY_KEY, private_key_path="x")),
    Proof(f"{AUTH}.audience", "https://acme.my.salesforce.mil", signed_in, "jwt-bearer", "DB601", to(BY_KEY)),
    Proof(f"{AUTH}.client_secret", SECRET, signed_in, "DB601", CLIENT, to(BY_SECRET, client_secret=WRONG)),
    Proof(f"{AUTH}.client_secret_path", "secret.txt", signed_in, "DB113", CLIENT, to(BY_SECRET, "client_secret")),
    Proof(f"{AUTH}.instance_url", "@URL", signed_in, "DB607", "token", to(BY_TOKEN, instance_url="@DEAD")),
    Proof(f"{AUTH}.access_token", TOKEN, signed_in, "DB604", "token", to(BY_TOKEN, access_token=WRONG)),
    Proof(f"{AUTH}.access_token_path", "token.txt", signed_in, "DB113", "token", to(BY_TOKEN, "access_token")),
    Proof(f"{AUTH}.refresh_token", REFRESH, signed_in, "DB601", "refresh_token", to(BY_REFRESH, refresh_token=WRONG)),
    Proof(f"{AUTH}.refresh_token_path", "refresh.txt", signed_in, "DB113", "refresh_token", WITHOUT_TOKEN),
    Proof(f"{AUTH}.alias", "mine", signed_in, "DB615", "token", to(BY_CLI, "alias")),
    Proof(f"{DEV}.organization_id", OTHER_ORG, signed_in, "token", "DB602", to(BY_TOKEN)),
    Proof(f"{DEV}.shares_org_with", ["ci"], reached, "DB127", 30, TWO_TARGETS),
    Proof(f"{DEV}.api_share", "1%", with_few_calls, "ok", "DB609", to(BY_TOKEN)),
    Proof(f"{DEV}.ca_file", "nowhere.pem", signed_in, "token", "DB122", to(BY_TOKEN)),
    Proof(f"{DEV}.allowed_hosts", ["proxy.example"], valid, "DB118", "ok", to(AWAY)),
    Proof("defaults.object", "Person__c", with_defaults, "DB113", 30, beside()),
    Proof("state.location", "kept", synced(state_folder), ".dinmo", "kept", STANDING),
    Proof("state.warehouse.schema", "kept", synced(state_tables), ["main"], ["kept", "main"], beside()),
    Proof("state.history", "9 days", synced(runs_kept), 62, 50, beside()),
    Proof("emulator.schema", "bare", embedded, [2, "own"], ["DB302", "own"], OWN),
    Proof("emulator.records", "few", embedded, [2, "own"], [1, "own"], OWN),
    Proof("emulator.data", "other", embedded, [2, "own"], [2, "other"], OWN),
    Proof("warnings.channels", [HOOK], TOLD, 0, 1, beside()),
    Proof("warnings.channels", [{"url": HOOK}], TOLD, 0, 1, beside()),
    Proof("warnings.channels.0.only", "critical", TOLD, 1, 0, beside(warnings={"channels": [{"url": HOOK}]})),
    Proof("warnings.digest", "08:00", DIGEST_AT, "none", "08:00", beside(warnings={"channels": [HOOK]})),
    Proof("warnings.digest.at", "08:00", DIGEST_AT, "06:00", "08:00", DIGEST),
    Proof("warnings.digest.timezone", "Asia/Tokyo", DIGEST_AT, "06:00", "21:00", DIGEST),
]  # fmt: skip


BLOCK_SCHEMA, FILE_SCHEMA = block.json_schema(), json_schema()
ONE = BLOCK_SCHEMA["$defs"]["ActivationSpec"]
TABLES = [
    ("dinmo", BLOCK, BLOCK_SCHEMA, BLOCK_SCHEMA),
    ("activation", ACTIVATION, ONE, BLOCK_SCHEMA),
    ("dinmo.yml", DINMO_YML, FILE_SCHEMA, FILE_SCHEMA),
]


@pytest.mark.parametrize(("name", "table", "schema", "root"), TABLES, ids=[name for name, *_ in TABLES])
def test_every_key_and_form_has_a_proof_and_no_other(
    name: str, table: list[Proof], schema: Document, root: Document
) -> None:
    proved = {str(proof): proof.proves(schema, root) for proof in table}
    assert [proof for proof, found in proved.items() if len(found) != 1] == [], "each is of one key"
    assert {line for found in proved.values() for line in found} == set(lines(schema, root, whole="ActivationSpec"))


def test_every_way_to_log_in_has_a_proof() -> None:
    flows = re.findall(r"`(\w+)` \(", FILE_SCHEMA["$defs"]["AuthSpec"]["properties"]["flow"]["description"])
    assert sorted(proof.value for proof in DINMO_YML if proof.key.endswith(".flow")) == sorted(flows)


@pytest.mark.parametrize("proof", [proof for _, table, *_ in TABLES for proof in table], ids=str)
def test_the_key_has_its_effect(world: World, proof: Proof, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SystemClock, "sleep", lambda *_: None)  # between the attempts to reach an org that is away
    assert proof.without != proof.with_it
    assert world.see(proof.see, proof.base) == proof.without
    assert world.see(proof.see, proof.document) == proof.with_it


@pytest.mark.parametrize("proof", ACTIVATION, ids=str)
def test_the_key_is_the_same_in_either_form_and_in_the_defaults(proof: Proof) -> None:
    whole = resolved(proof.document)
    assert resolved(proof.document, "activation") == whole
    key = proof.key.partition(".")[0]
    rest = {name: value for name, value in proof.document.items() if name != key}
    assert resolved(rest, defaults={key: proof.document[key]}) == whole


def test_what_is_for_later_is_refused_by_its_name_and_nothing_else_is(world: World) -> None:
    later = sorted(f"{proof.key}: {proof.value}" for proof in ACTIVATION if proof.with_it == "DB142")
    assert later == [
        "engine: warehouse", "fields.nick.write: if_empty", "fields.nick.write: on_create",
    ]  # fmt: skip
    for proof in (each for each in ACTIVATION if each.with_it == "DB142"):
        world.renew()
        world.block(around(proof.document))
        for command in ("validate", "plan", "sync"):
            ran = world.run(command)
            assert ran.code == 2 and f"{proof.key}\n" in ran.err and f"'{proof.value}' is not available yet" in ran.err
        assert world.org.count("Person__c") == 0
    for proof in ACTIVATION:
        refused = "DB142" in {problem.code for left in resolved(proof.document).left for problem in left.problems}
        assert refused == (proof.with_it == "DB142"), proof
