"""An org that the Salesforce CLI is logged in to, over a stand-in that answers as the command reference has it."""

import os
import random
import time

import pytest

from dinmo_dbt.errors import AuthError, DinmoError
from dinmo_dbt.org import Credentials, Org
from dinmo_dbt.salesforce import connect, sf_cli

from . import sf_stand_in
from .scripted_org import ORG_ID, VERSION, Answer

FIRST, SECOND = (f"{ORG_ID[:15]}!AQCANARY_{name}_TOKEN.x_y" for name in ("FIRST", "SECOND"))


@pytest.fixture
def bin_folder(tmp_path):
    return tmp_path / "bin"


@pytest.fixture
def org_of(server):
    def org_of(username="u@example.com", tokens=(FIRST,)):
        return {"username": username, "instanceUrl": server.url, "id": ORG_ID, "tokens": list(tokens)}

    return org_of


@pytest.fixture
def log_in(bin_folder, tmp_path, naps):
    def log_in(**names):
        credentials = Credentials("sf_cli", **names)
        env = {"PATH": str(bin_folder), "HOME": str(tmp_path)}
        return connect(
            Org("crm", "prod", credentials),
            scratch=tmp_path,
            sleep=naps.append,
            rng=random.Random(1),
            now=time.time,
            env=env,
        )

    return log_in


def test_an_alias_or_a_username_or_the_only_org_is_enough(bin_folder, org_of, log_in, server):
    sf_stand_in.write(bin_folder, orgs={"mine": org_of()}, before="\n")
    for names in ({"alias": "mine"}, {"username": "u@example.com"}, {}):
        assert log_in(**names).org_id == ORG_ID
    assert {seen.headers["Authorization"] for seen in server.seen} == {f"Bearer {FIRST}"}
    asked = sf_stand_in.calls(bin_folder)
    assert asked[:2] == [
        ["org", "display", "--target-org", "mine", "--json"],
        ["org", "auth", "show-access-token", "--target-org", "mine", "--json"],
    ]
    assert ["org", "list", "auth", "--json"] in asked


def test_a_session_that_ends_is_asked_for_again(bin_folder, org_of, log_in, server):
    sf_stand_in.write(bin_folder, orgs={"mine": org_of(tokens=[FIRST, SECOND])})
    destination = log_in(alias="mine")
    server.refuses_token = FIRST
    server.on("GET", "limits", Answer(200, {}))
    destination._client.get("limits")
    assert server.asked("GET", "limits")[-1].headers["Authorization"] == f"Bearer {SECOND}"
    server.refuses_token = SECOND
    with pytest.raises(AuthError, match="gave the session again") as caught:
        destination._client.get("limits")
    assert "sf org login web --alias mine" in str(caught.value)


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({}, ["not logged in to org 'mine'", "NamedOrgNotFoundError", "sf org login web --alias mine"]),
        ({"raw": "CANARY_TOKEN: not JSON"}, ["no JSON", "`sf org display`"]),
        ({"raw": "[1, 2]"}, ["no JSON"]),
        ({"raw": '{"status": 0, "result": "CANARY_TOKEN"}'}, ["does not say where"]),
        ({"raw": "", "code": 1}, ["no JSON", "exit code 1"]),
        ({"raw": '{"status": 1, "name": "CANARY TOKEN", "message": "CANARY_TOKEN"}', "code": 1}, ["unknown error"]),
        ({"raw": "x" * (5 << 20)}, ["more than"]),
    ],
    ids=["no such org", "no JSON", "a list", "a text", "nothing", "an odd error", "too much"],
)
def test_each_thing_that_goes_wrong_is_named_and_no_output_is_shown(bin_folder, log_in, told, said):
    sf_stand_in.write(bin_folder, **told)
    with pytest.raises(AuthError, match="DB615") as caught:
        log_in(alias="mine")
    for part in said:
        assert part in str(caught.value)
    assert "CANARY" not in str(caught.value) + repr(caught.value)
    assert caught.value.__context__ is None or caught.value.__suppress_context__


def test_no_sf_no_org_and_several_orgs_are_named(bin_folder, org_of, log_in):
    with pytest.raises(AuthError, match="no `sf` on the PATH"):
        log_in(alias="mine")
    sf_stand_in.write(bin_folder)
    with pytest.raises(AuthError, match="logged in to no org"):
        log_in()
    sf_stand_in.write(bin_folder, orgs={"mine": org_of(), "yours": org_of("v@example.com")})
    with pytest.raises(AuthError, match="2 orgs: 'mine', 'yours'") as caught:
        log_in()
    assert "alias: NAME" in str(caught.value)
    (bin_folder / "sf").write_text("")
    with pytest.raises(AuthError, match="can't be run"):
        log_in()


def test_an_older_cli_and_a_hidden_token_say_to_update_it(bin_folder, org_of, log_in):
    sf_stand_in.write(bin_folder, orgs={"mine": org_of()}, old=True)
    with pytest.raises(AuthError, match="does not know `sf org auth show-access-token`") as caught:
        log_in(alias="mine")
    assert "sf update" in str(caught.value)
    sf_stand_in.write(bin_folder, orgs={"mine": org_of(tokens=["[REDACTED] Use CANARY"])})
    with pytest.raises(AuthError, match="gave no token") as caught:
        log_in(alias="mine")
    assert "CANARY" not in str(caught.value)


def test_one_that_hangs_is_ended_with_all_it_started(bin_folder, org_of, log_in, monkeypatch):
    monkeypatch.setattr(sf_cli, "SECONDS_MAX", 0.8)
    sf_stand_in.write(bin_folder, orgs={"mine": org_of()}, hangs="show-access-token")
    with pytest.raises(AuthError, match="did not answer within"):
        log_in(alias="mine")
    running = [
        name
        for name in os.listdir("/proc")
        if name.isdigit() and str(bin_folder / "sf").encode() in _command_line(name)
    ]
    assert running == []


def _command_line(pid):
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read()
    except OSError:
        return b""


def test_the_users_stop_ends_the_wait(bin_folder, org_of):
    sf_stand_in.write(bin_folder, orgs={"mine": org_of()}, hangs="org display")

    class Stopped(BaseException):
        pass

    def stop(_):
        raise Stopped

    with pytest.raises(Stopped):
        sf_cli.session("mine", {"PATH": str(bin_folder)}, stop)


def test_a_token_that_the_org_refuses_says_to_log_in_again(bin_folder, org_of, log_in, server):
    sf_stand_in.write(bin_folder, orgs={"mine": org_of()})
    server.on("GET", "/services/oauth2/userinfo", Answer(403, b"Bad_OAuth_Token"))
    server.on("GET", VERSION, Answer(401, [{"errorCode": "INVALID_SESSION_ID"}]))
    with pytest.raises(DinmoError, match="sf org login web --alias mine"):
        log_in(alias="mine")
