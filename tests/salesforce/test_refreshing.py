"""Refresh tokens that rotate: the next one is on disk before the old one is given up, whatever happens between."""

import errno
import json
import os
import random
import stat
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import parse_qs

import pytest
from mounted_org import URL, mounted

from dinmo_dbt import emulator
from dinmo_dbt.errors import AuthError, StateError
from dinmo_dbt.org import Credentials, Org, Secret
from dinmo_dbt.salesforce import connect, refreshing

from .scripted_org import LOST, ORG_ID, Answer, token_reply

GIVEN, NEXT, LAST = (f"5Aep861CANARY_{name}" for name in ("GIVEN", "NEXT", "LAST"))
TOKEN_PATH = "/services/oauth2/token"
SPENT = {"error": "invalid_grant", "error_description": "expired access/refresh token"}


@pytest.fixture
def folder(tmp_path):
    return tmp_path / ".dinmo" / "logins"


@pytest.fixture
def log_in(server, folder, tmp_path, naps):
    def log_in(given=GIVEN, url="", secret="", client_id="app", sleep=naps.append):
        kind = {"client_secret": Secret(secret)} if secret else {}
        who = Credentials("refresh_token", url or server.url, client_id=client_id, refresh_token=Secret(given), **kind)
        return connect(
            Org("crm", "prod", who),
            scratch=tmp_path,
            sleep=sleep,
            rng=random.Random(1),
            now=lambda: 0.0,
            logins=folder,
        )

    return log_in


def sent(server):
    return [parse_qs(seen.body.decode())["refresh_token"][0] for seen in server.asked("POST", TOKEN_PATH)]


def test_the_next_token_is_kept_for_its_owner_alone_and_used(server, log_in, folder):
    server.on("POST", TOKEN_PATH, token_reply(server, refresh_token=NEXT), token_reply(server, refresh_token=LAST))
    assert log_in().org_id == ORG_ID
    log_in()
    log_in()
    assert sent(server) == [GIVEN, NEXT, LAST]
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for path in folder.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
        assert GIVEN not in path.name and GIVEN not in path.read_text()
    assert (folder / ".gitignore").read_text() == "*\n"


def test_a_token_that_stays_is_not_written(server, log_in, folder):
    server.on("POST", TOKEN_PATH, token_reply(server))
    log_in()
    log_in(secret="CANARY_SECRET")
    assert sent(server) == [GIVEN, GIVEN]
    assert [header.get("Authorization", "")[:6] for header in (s.headers for s in server.seen)] == ["", "Basic "]
    assert "CANARY" not in "".join(path.read_text() for path in folder.iterdir())


def test_a_new_token_in_dinmo_yml_starts_over(server, log_in):
    server.on("POST", TOKEN_PATH, token_reply(server, refresh_token=NEXT))
    log_in()
    log_in("5Aep861CANARY_OTHER")
    assert sent(server) == [GIVEN, "5Aep861CANARY_OTHER"]


def test_a_lost_answer_is_asked_for_again_and_reported_where_the_token_is_gone(server, log_in, folder):
    server.on("POST", TOKEN_PATH, LOST, token_reply(server, refresh_token=NEXT))
    assert log_in().org_id == ORG_ID, "the org had not taken it"
    server.on("POST", TOKEN_PATH, LOST, Answer(400, SPENT))
    with pytest.raises(AuthError, match="DB616") as caught:
        log_in()
    assert sent(server) == [GIVEN, GIVEN, NEXT, NEXT]
    assert "authorize the app again" in str(caught.value) and str(folder) in str(caught.value)
    assert "CANARY" not in str(caught.value)
    server.on("POST", TOKEN_PATH, Answer(400, SPENT))
    with pytest.raises(AuthError, match="DB616"):
        log_in()  # a later run knows it too


def test_a_refusal_that_nothing_was_lost_before_is_a_plain_one(server, log_in):
    server.on("POST", TOKEN_PATH, Answer(400, SPENT))
    with pytest.raises(AuthError, match="DB601") as caught:
        log_in()
    assert "Refresh Token Policy" in str(caught.value)


@pytest.mark.parametrize("first", [SPENT, {"error": "invalid_grant", "error_description": "ip restricted"}])
def test_a_refusal_leaves_no_doubt_to_the_next_login(server, log_in, first):
    server.on("POST", TOKEN_PATH, Answer(400, first), Answer(400, SPENT))
    for _ in range(2):
        with pytest.raises(AuthError, match="DB601"):
            log_in()


def test_a_doubt_outlasts_a_refusal_of_another_kind(server, log_in):
    server.on("POST", TOKEN_PATH, LOST, Answer(400, {"error": "invalid_client"}), Answer(400, SPENT))
    with pytest.raises(AuthError, match="DB601"):
        log_in()
    with pytest.raises(AuthError, match="DB616"):
        log_in()


def test_a_place_that_takes_no_token_is_named_with_what_it_is_for(server, log_in, folder):
    folder.parent.mkdir(parents=True)
    folder.write_text("")
    with pytest.raises(StateError, match="DB510") as caught:
        log_in()
    (problem,) = caught.value.problems
    assert problem.where == str(folder) and "no folder lies" in problem.message
    assert "move it away" in problem.hint and "refresh token is kept there" in problem.hint
    assert not server.asked("POST", TOKEN_PATH)


def test_a_process_that_died_while_it_asked_is_known(server, log_in, folder, monkeypatch):
    server.on("POST", TOKEN_PATH, token_reply(server, refresh_token=NEXT))

    def died(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(refreshing.Kept, "answered", died)
        with pytest.raises(KeyboardInterrupt):
            log_in()
    server.on("POST", TOKEN_PATH, Answer(400, SPENT))
    with pytest.raises(AuthError, match="earlier login's answer was lost"):
        log_in()


def test_a_full_disk_is_met_before_the_token_is_spent(server, log_in, monkeypatch):
    server.on("POST", TOKEN_PATH, token_reply(server, refresh_token=NEXT))
    log_in()

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(StateError, match="DB510"):
            log_in()
    assert sent(server) == [GIVEN]
    log_in()
    assert sent(server) == [GIVEN, NEXT]


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"refresh_token": 1, "asked": true}', b'{"asked": true}'])
def test_a_damaged_file_is_named_and_nothing_is_sent(server, log_in, folder, damage):
    server.on("POST", TOKEN_PATH, token_reply(server, refresh_token=NEXT))
    log_in()
    (path,) = folder.glob("*.json")
    path.write_bytes(damage)
    with pytest.raises(AuthError, match="DB616") as caught:
        log_in()
    assert str(path) in str(caught.value) and len(sent(server)) == 1


def test_a_file_that_others_may_read_is_refused(server, log_in, folder):
    server.on("POST", TOKEN_PATH, token_reply(server, refresh_token=NEXT))
    log_in()
    (path,) = folder.glob("*.json")
    path.chmod(0o644)
    with pytest.raises(AuthError, match="other users"):
        log_in()
    assert len(sent(server)) == 1


def test_logins_at_once_spend_no_token_twice(log_in, folder):
    """Each opens the lock anew, as processes do: flock is of an open file, not of a process."""
    app = emulator.app(schema=None, data=None, logins=emulator.Logins(rotates=True))
    who, gate = app.identity, threading.Barrier(4)

    def one(_):
        gate.wait()
        found = [
            log_in(who.refresh_token, URL, who.client_secret, who.client_id, lambda _: time.sleep(0.01)).org_id
            for _ in range(3)
        ]
        return set(found)

    try:
        with mounted(app.adapter), ThreadPoolExecutor(4) as pool:
            assert set().union(*pool.map(one, range(4))) == {who.organization_id}
        (path,) = folder.glob("*.json")
        assert json.loads(path.read_text())["asked"] is False
    finally:
        app.close()
