"""The control endpoint: every route, who may use it, and how it refuses."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import requests

from dinmo_dbt.emulator.web import control

from .conftest import Org
from .mounted import Mounted, names

Mount = Callable[..., Mounted]
Launch = Callable[..., Org]
CHANGES = [
    ("POST", "/faults"), ("DELETE", "/faults"), ("DELETE", "/faults/1"), ("POST", "/clock/stop"), ("POST", "/limits"),
    ("DELETE", "/limits"), ("POST", "/locks"), ("DELETE", "/locks"), ("POST", "/pace"),
]  # fmt: skip


def refused(reply: Any) -> tuple[int, str]:
    return reply.status_code, reply.json["error"]


def test_faults_are_armed_shown_and_disarmed(mount: Mount) -> None:
    org = mount()
    assert org.control("POST", "/faults", {"kind": "status", "status": 503, "times": 1}).json == {"id": 1}
    assert org.control("POST", "/faults", {"kind": "reply_lost", "call": "ingest.*"}).json == {"id": 2}
    assert org.api("GET", "/limits").status_code == 503
    assert org.control("GET", "/faults").json == {
        "faults": [
            {"id": 1, "kind": "status", "status": 503, "times": 1, "matched": 1, "fired": 1},
            {"id": 2, "kind": "reply_lost", "call": "ingest.*", "matched": 0, "fired": 0},
        ]
    }
    assert [f["id"] for f in org.control("DELETE", "/faults/1").json["faults"]] == [2]  # type: ignore[index]
    assert org.control("DELETE", "/faults").json == org.control("GET", "/faults").json == {"faults": []}
    assert org.control("POST", "/faults", {"kind": "chaos", "seed": 1, "chance": 1, "kinds": ["status"]}).json == {
        "id": 1
    }
    assert org.api("GET", "/limits").status_code >= 400


def test_the_clock_is_moved_stopped_and_run(mount: Mount) -> None:
    org = mount()
    assert org.control("GET", "/clock").json == {"now": "2026-03-01T12:00:00.000000+00:00", "stopped": True}
    after = org.control("POST", "/clock/advance", {"seconds": 0.5}).json
    assert after == {"now": "2026-03-01T12:00:00.500000+00:00", "stopped": True}
    for text in ("2038-01-19T03:14:08Z", "2038-01-19T04:14:08+01:00", "2038-01-19T03:14:08"):
        org.control("POST", "/clock/set", {"now": text})
        assert org.app.clock().isoformat() == "2038-01-19T03:14:08+00:00"
    assert org.control("POST", "/clock/run", {}).json["stopped"] is False  # type: ignore[index]
    assert org.control("POST", "/clock/stop", {}).json["stopped"] is True  # type: ignore[index]


def test_limits_are_set_and_their_use_forgotten(mount: Mount) -> None:
    org = mount()
    org.get("/sobjects")
    shown = org.control("POST", "/limits", {"DailyApiRequests": 1, "DataStorageMB": 5}).json
    assert shown is not None
    assert (shown["limits"]["DailyApiRequests"], shown["limits"]["DataStorageMB"]) == (1, 5)
    assert shown["used"]["DailyApiRequests"] == 1
    assert org.api("GET", "/sobjects").status_code == 403
    assert org.control("DELETE", "/limits").json == org.control("GET", "/limits").json
    assert org.api("GET", "/sobjects").status_code == 200


def test_records_are_held_and_released(mount: Mount) -> None:
    org = mount()
    rid = org.create("Account", {"Name": "a"})
    held = {"locks": {rid: "2026-03-01T12:00:30+00:00"}}
    assert org.control("POST", "/locks", {"ids": [rid]}).json == held
    assert org.control("GET", "/locks").json == held
    assert org.api("PATCH", f"/sobjects/Account/{rid}", {"Name": "b"}).status_code == 400
    assert org.control("DELETE", "/locks").json == {"locks": {}}
    assert org.api("PATCH", f"/sobjects/Account/{rid}", {"Name": "b"}).status_code == 204


def test_the_pace_is_changed_one_setting_at_a_time(mount: Mount) -> None:
    org = mount()
    org.control("POST", "/pace", {"by": "poll"})
    org.control("POST", "/pace", {"batch_s": 3})
    pace = {
        "by": "poll", "queue_s": 0.0, "batch_s": 3.0, "parallel_batches": 1, "share": 0.0, "seed": 0,
        "lock_retries": 1,
    }  # fmt: skip
    assert org.control("GET", "/pace").json == pace
    job = org.job("Account", names(1))
    assert [org.info(job)["state"] for _ in range(3)] == ["InProgress", "InProgress", "InProgress"]
    org.clock.advance(3)
    assert [org.info(job)["state"] for _ in range(2)] == ["InProgress", "JobComplete"]


def test_the_last_calls_tell_no_secret_and_no_value(mount: Mount) -> None:
    org = mount()
    rid = org.create("Customer__c", {"Name": "n", "Code__c": "secret-key"})
    org.api("GET", "/sobjects/Customer__c/Code__c/secret-key?fields=Name")
    org.api("GET", "/query?q=SELECT+Id+FROM+Account+WHERE+Name='secret-name'")
    org.api("GET", f"/sobjects/Customer__c/{rid}")
    org.app.faults.arm_json({"kind": "status", "status": 500})
    org.api("GET", "/limits")
    reply = org.control("GET", "/calls")
    assert "secret" not in reply.text and org.token not in reply.text
    last = reply.json["calls"]  # type: ignore[index]
    assert [(c["method"], c["name"], c["status"], c["fault"]) for c in last] == [
        ("GET", "limits", 500, "status (1)"), ("GET", "record.read", 200, None), ("GET", "query", 200, None),
        ("GET", "record.read", 200, None), ("POST", "record.create", 201, None),
    ]  # fmt: skip
    assert last[1]["path"] == f"/services/data/v62.0/sobjects/Customer__c/{rid}"
    assert last[3]["path"] == "/services/data/v62.0/sobjects/Customer__c/Code__c/...?fields="


def test_a_key_that_looks_like_an_id_is_not_shown(mount: Mount) -> None:
    org = mount()
    org.api("GET", "/sobjects/Customer__c/Code__c/ABCDE1234567890")
    last = org.control("GET", "/calls").json["calls"][0]  # type: ignore[index]
    assert last["path"] == "/services/data/v62.0/sobjects/Customer__c/Code__c/..."


def test_the_last_calls_tell_the_client_its_session_and_which_of_its_calls_it_was(mount: Mount) -> None:
    org = mount()
    for _ in range(2):
        org.api("GET", "/limits", headers={"User-Agent": "curious/1.0"})
    login = {"grant_type": "client_credentials", "client_id": org.app.identity.client_id}
    login["client_secret"] = org.app.identity.client_secret
    other = org.client.post("/services/oauth2/token", data=login).json["access_token"]  # type: ignore[index]
    org.api("GET", "/limits", headers={"Authorization": f"Bearer {other}"})
    org.api("GET", "/limits", headers={"Authorization": "Bearer nobody"})
    org.api("GET", "/limits")
    calls = org.control("GET", "/calls").json["calls"]  # type: ignore[index]
    assert [(c["session"], c["nth"]) for c in reversed(calls)] == [
        (1, 1), (1, 2), (None, None), (2, 1), (None, None), (1, 3),
    ]  # fmt: skip
    assert [c["agent"] for c in calls[-2:]] == ["curious/1.0"] * 2


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/services/data/v62.0/composite/tree/Account", "/services/data/v62.0/composite/tree/..."),
        ("/services/data/v62.0/sobjects/Account/a/secret/b", "/services/data/v62.0/sobjects/..."),
        ("/services/oauth2/authorize", "/services/oauth2/authorize"),
        ("/secret", "/..."),
    ],
)
def test_a_call_that_is_not_there_gets_salesforces_own_words(mount: Mount, path: str, told: str) -> None:
    org = mount()
    assert org.client.get(path).status_code >= 400
    assert org.app.calls.latest()[0]["path"] == told


def test_only_the_last_two_hundred_calls_are_kept(mount: Mount) -> None:
    org = mount()
    for _ in range(205):
        org.api("GET", "/limits")
    assert len(org.app.calls.latest()) == 200


def test_it_is_no_api_call_and_meets_no_fault(mount: Mount) -> None:
    org = mount()
    before = org.app.site.usage.requests
    org.control("POST", "/faults", {"kind": "status", "status": 503})
    for path in ("/faults", "/clock", "/limits", "/locks", "/pace", "/calls"):
        assert org.control("GET", path).status_code == 200
    assert org.app.site.usage.requests == before and org.app.calls.latest() == []
    assert org.app.faults.armed()[0]["matched"] == 0


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("/faults", {"kind": "gremlin"}, "fault: unknown kind gremlin. Known: request_lost"),
        ("/faults", {"kind": "slow", "speed": 1}, "fault: unknown key speed"),
        ("/faults", {"kind": "slow", "seconds": "1"}, "fault: seconds can't be '1'"),
        ("/faults", {"kind": "rows", "preset": "lock", "object": "Nope"}, "the org has no object Nope"),
        ("/clock/advance", {}, "seconds is missing or can't be None"),
        ("/clock/advance", {"seconds": True}, "seconds is missing or can't be True"),
        ("/clock/advance", {"seconds": 1e300}, "clock: seconds, forwards or backwards, go from 0"),
        ("/clock/advance", {"seconds": 1, "minutes": 1}, "unknown key minutes. Known: seconds"),
        ("/clock/set", {"now": "yesterday"}, "'yesterday' is no date and time in ISO 8601"),
        ("/clock/set", {"now": "9999-01-01"}, "clock: goes from 1970 to 4000"),
        ("/clock/set", {"now": "0001-01-01T00:00:00+14:00"}, "no date and time|clock: goes from 1970"),
        ("/limits", {"DailyApiRequest": 1}, "limits: unknown key DailyApiRequest. Known: DailyApiRequests"),
        ("/limits", {"DailyApiRequests": 1.5}, "daily_api_requests must be int, not 1.5"),
        ("/limits", {"DailyApiRequests": -1}, "DailyApiRequests can't be negative"),
        ("/locks", {}, "ids is missing"),
        ("/locks", {"ids": ["x"]}, "locks: x is not an id of this org"),
        ("/locks", {"ids": [1]}, "locks: "),
        ("/locks", {"ids": [], "seconds": True}, "locks: "),
        ("/locks", {"ids": [], "seconds": 1e300}, "locks: seconds go from 0"),
        ("/locks", {"ids": [], "hours": 1}, "unknown key hours. Known: ids, seconds"),
        ("/pace", {"by": "luck"}, "pace: by must be time or poll, not 'luck'"),
        ("/pace", {"batch_s": "1"}, "pace: batch_s must be float, not '1'"),
        ("/pace", {"batch_s": -1}, "pace: batch_s go from 0"),
        ("/pace", {"speed": 1}, "pace: unknown key speed. Known: by, queue_s"),
    ],
)
def test_what_cannot_be_is_refused_by_name_and_changes_nothing(
    mount: Mount, path: str, body: dict[str, Any], message: str
) -> None:
    org = mount()
    paths = ("/faults", "/clock", "/limits", "/locks", "/pace")
    before = [org.control("GET", p).json for p in paths]
    status, error = refused(org.control("POST", path, body))
    assert status == 400 and re.search(message, error), error
    assert [org.control("GET", p).json for p in paths] == before


@pytest.mark.parametrize(("method", "path"), CHANGES)
def test_a_change_needs_the_orgs_own_token(mount: Mount, method: str, path: str) -> None:
    org = mount()
    who = org.app.identity
    form = {"grant_type": "client_credentials", "client_id": who.client_id, "client_secret": who.client_secret}
    session = org.client.post("/services/oauth2/token", data=form).json["access_token"]  # type: ignore[index]
    for authorization in ("", "Bearer ", f"Basic {org.token}", f"Bearer {org.token}x", f"Bearer {session}", "Bearer é"):
        reply = org.control(method, path, {}, headers={"Authorization": authorization})
        assert refused(reply) == (401, "a change needs Authorization: Bearer and the org's own token")


def test_a_change_still_works_when_the_clients_session_is_over(mount: Mount) -> None:
    org = mount()
    org.control("POST", "/faults", {"kind": "session_expired"})
    assert org.api("GET", "/limits").status_code == 401
    assert org.control("DELETE", "/faults").status_code == 200
    assert org.api("GET", "/limits").status_code == 401


def test_a_body_must_be_a_json_object_of_that_type(mount: Mount) -> None:
    org = mount()

    def post(data: bytes, kind: str) -> tuple[int, str]:
        return refused(org.control("POST", "/pace", data=data, headers={"Content-Type": kind}))

    assert post(b"{}", "text/plain") == (415, "the Content-Type must be application/json")
    assert post(b"{", "application/json") == (400, "the body is not JSON")
    assert post(b"\xff", "application/json") == (400, "the body is not JSON")
    assert post(b"[]", "application/json")[0] == 400
    assert post(b'{"a":"' + b"x" * (1 << 20) + b'"}', "application/json")[0] == 400
    assert org.control("POST", "/pace", data=b"", headers={"Content-Type": "application/json"}).status_code == 200


@pytest.mark.parametrize("host", ["salesforce.example", "127.0.0.1.evil.example", "10.0.0.1:8080", "localhost:x", ""])
def test_a_host_that_is_not_loopback_is_refused_even_for_a_look(mount: Mount, host: str) -> None:
    org = mount()
    reply = org.control("GET", "/faults", headers={"Host": host})
    assert refused(reply) == (403, "the control endpoint answers a loopback Host only")


@pytest.mark.parametrize("host", ["localhost", "localhost:8080", "127.0.0.1:1", "[::1]:8080"])
def test_a_loopback_host_is_answered(mount: Mount, host: str) -> None:
    assert mount().control("GET", "/faults", headers={"Host": host}).status_code == 200


def test_what_is_not_there_is_said(mount: Mount) -> None:
    org = mount()
    assert org.control("GET", "/nothing").status_code == 404
    assert org.control("PUT", "/faults", {}).status_code == 405
    assert org.control("DELETE", "/faults/x").status_code == 404
    assert refused(org.control("DELETE", "/faults/7")) == (400, "fault: none is armed with the id 7")
    assert refused(org.control("POST", "/clock/rewind", {})) == (404, "a clock can advance, set, stop and run")
    assert org.control("GET", "//faults").status_code == 404


def test_every_route_is_in_its_description() -> None:
    told = re.findall(r"^    (GET|POST|DELETE) +(/emulator/\S+)", control.__doc__ or "", re.MULTILINE)
    for method, path, _ in control._ACTS:
        shown = re.sub(r"<int:number>", "<id>", path)
        candidates = {shown, re.sub(r"/<id>$", "[/<id>]", shown), re.sub(r"^(/emulator/faults)$", r"\1[/<id>]", shown)}
        if "<how>" in shown:
            candidates |= {shown.replace("<how>", how) for how in ("advance", "set", "stop")}
        assert any((method, c) in told or (method, f"{c},") in told for c in candidates), (method, path)


@pytest.mark.slow
def test_over_http_a_refused_body_leaves_the_connection_usable(launch: Launch, tmp_path: Any) -> None:
    org = launch(data=tmp_path)
    with requests.Session() as http:
        for _ in range(3):
            refused = http.post(f"{org.url}/emulator/faults", data=iter([b'{"kind":', b'"slow"}']))
            assert refused.status_code == 401
            assert http.get(f"{org.url}/emulator/clock").json()["stopped"] is False
