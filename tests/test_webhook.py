"""dbt Cloud's webhooks over real HTTP: only what is signed comes in, each event once, and none is lost."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st
from loopback import served

from dinmo_dbt.dbt_cloud import Event, Inbox, inbox, receiver, webhook
from dinmo_dbt.errors import StateError, UsageError
from dinmo_dbt.org import Secret

SECRET = "CANARY-webhook-secret"


@dataclass
class Clock:
    time: float = 1_800_000_000.0

    def now(self) -> float:
        self.time += 1
        return self.time

    def monotonic(self) -> float:
        return self.now()

    def sleep(self, seconds: float) -> None:
        raise AssertionError


def event(event_id: str = "wev_1", kind: str = "job.run.completed", **data: Any) -> dict[str, Any]:
    """As dbt documents it."""
    return {
        "accountId": 1,
        "webhookId": "wsu_1",
        "eventId": event_id,
        "timestamp": "2026-11-27T10:00:00.742843678Z",
        "eventType": kind,
        "webhookName": "dinmo",
        "data": {"jobId": "123", "jobName": "Daily", "runId": "12345", "runStatus": "Success", **data},
    }


def post(url: str, content: object, *, secret: str = SECRET, **headers: str) -> requests.Response:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    signature = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    return requests.post(f"{url}/dbt-cloud", data=body, headers={"Authorization": signature} | headers, timeout=60)


@pytest.fixture
def box(tmp_path: Path) -> Inbox:
    return Inbox(tmp_path / "inbox", Clock())


@pytest.fixture
def url(box: Inbox) -> Iterator[str]:
    with served(receiver(box, Secret(SECRET)), threads=20) as url:
        yield url


def test_a_run_that_ended_is_kept_before_it_is_answered(box: Inbox, url: str, tmp_path: Path) -> None:
    answer = post(url, event())
    assert (answer.status_code, answer.json()) == (202, {"message": "kept"})
    again = Inbox(tmp_path / "inbox", Clock())
    (kept,) = again.pending().events
    assert (kept.event_id, kept.job_id, kept.run_id, kept.status) == ("wev_1", "123", "12345", "Success")
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "inbox").rglob("*.json")} == {0o600}


def test_a_failed_run_is_kept_too_for_the_gate_decides(box: Inbox, url: str) -> None:
    assert post(url, event("wev_1", "job.run.errored", runStatus="Errored")).status_code == 202
    assert post(url, event("wev_2", runStatus="Errored", jobId=123, runId=12345)).status_code == 202
    assert [(e.event_id, e.run_id, e.status) for e in box.pending().events] == [
        ("wev_1", "12345", "Errored"),
        ("wev_2", "12345", "Errored"),
    ]


def test_which_events_are_kept_is_the_callers_choice(box: Inbox) -> None:
    with served(receiver(box, Secret(SECRET), events=["job.run.completed"]), threads=20) as url:
        assert post(url, event(kind="job.run.errored")).status_code == 200
        assert post(url, event()).status_code == 202
    assert len(box.pending().events) == 1


@pytest.mark.parametrize("kind", ["job.run.started", "webhook.test", "", "something.new"])
def test_what_needs_no_sync_is_answered_and_let_go(box: Inbox, url: str, kind: str) -> None:
    answer = post(url, {"eventType": kind, "eventId": "wev_1"})
    assert (answer.status_code, answer.json()) == (200, {"message": "nothing to do"})
    assert box.pending().events == []


@pytest.mark.parametrize(
    "signature",
    ["", "0" * 64, "Bearer x", "é", hmac.new(SECRET.encode(), b"{}", hashlib.sha256).hexdigest()],
)
def test_what_is_not_signed_stays_out(box: Inbox, url: str, signature: str) -> None:
    answer = requests.post(f"{url}/dbt-cloud", json=event(), headers={"Authorization": signature.encode()}, timeout=20)
    assert answer.status_code == 401
    assert post(url, event(), secret="another").status_code == 401
    assert requests.post(f"{url}/dbt-cloud", json=event(), timeout=20).status_code == 401
    assert box.pending().events == []


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not JSON",
        b"\xff\xfe",
        b"[" * 200_000,
        [],
        {"eventType": 3},
        {"eventType": "job.run.completed"},
        event(""),
        event("x" * 201),
        event(jobId=None),
        event(runId="12; rm"),
        event(runId=True),
        event(runId="-1"),
        {**event(), "data": []},
        {**event(), "eventId": 7},
    ],
)
def test_an_event_that_says_too_little_is_refused(box: Inbox, url: str, content: object) -> None:
    assert post(url, content).status_code == 400
    assert box.pending().events == []


def test_a_large_body_is_refused(box: Inbox, url: str) -> None:
    assert post(url, event(note="x" * 990_000)).status_code == 202
    assert post(url, event(note="x" * 1_000_000)).status_code == 413
    chunks = iter([b"x" * 500_000] * 3)
    assert requests.post(f"{url}/dbt-cloud", data=chunks, timeout=20).status_code == 413
    assert len(box.pending().events) == 1


def test_other_methods_and_paths_are_refused(url: str) -> None:
    refused = requests.get(f"{url}/dbt-cloud", timeout=20)
    assert (refused.status_code, refused.headers["Allow"]) == (405, "POST")
    assert requests.post(f"{url}/", timeout=20).status_code == 404
    assert requests.post(f"{url}/dbt-cloud/x", timeout=20).status_code == 404


def test_a_repeated_event_is_kept_once_also_when_it_is_done_and_after_a_restart(tmp_path: Path) -> None:
    for restart in range(4):
        box = Inbox(tmp_path / "inbox", Clock())
        with served(receiver(box, Secret(SECRET)), threads=20) as url:
            answer = post(url, event())
            assert answer.status_code == (200 if restart else 202)
            if restart:
                assert answer.json() == {"message": "already received"}
        assert len(box.pending().events) == (1 if restart < 2 else 0)
        if restart == 1:
            box.done(box.pending().events[0])


def test_two_hundred_at_once_are_all_kept_once(box: Inbox, url: str) -> None:
    sent = [event(f"wev_{number % 100}", runId=str(number % 100)) for number in range(200)]
    began = time.process_time()
    with ThreadPoolExecutor(40) as threads:
        answers = list(threads.map(lambda each: post(url, each), sent))
    spent_s = time.process_time() - began
    assert sorted(answer.status_code for answer in answers) == [200] * 100 + [202] * 100
    assert {each.event_id for each in box.pending().events} == {f"wev_{number}" for number in range(100)}
    assert spent_s < 10, "dbt Cloud gives up after 10 seconds, and here both sides of 200 calls are in one process"


def test_the_oldest_comes_first_and_what_is_done_no_more(box: Inbox) -> None:
    events = [Event(f"wev_{n}", "1", str(n), "Success", 1_000.0 - n) for n in range(5)]
    assert all(box.accept(each) for each in events)
    assert box.pending().events == events[::-1]
    box.done(events[4])
    box.done(events[4])
    assert box.pending().events == events[3::-1]


def test_ids_are_known_for_thirty_days_and_at_least_the_latest_ten_thousand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox, "KEPT_MIN", 3)
    clock = Clock()
    box = Inbox(tmp_path, clock)
    events = [Event(f"wev_{n}", "1", "1", "Success", clock.now()) for n in range(8)]
    for each in events[:6]:
        box.accept(each)
        box.done(each)
    assert not any(box.accept(each) for each in events[:6]), "none is 30 days old"
    clock.time += 31 * 86_400
    for each in events[6:]:
        box.accept(each)
        box.done(each)
    assert [box.accept(each) for each in events] == [True] * 5 + [False] * 3
    assert box.pending().events == events[:5]


@given(st.text(min_size=1, max_size=20), st.text(max_size=60))
def test_any_event_id_is_only_a_name(event_id: str, status: str) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        box = Inbox(Path(folder) / "inbox", Clock())
        kept = Event(event_id, "1", "2", status, 3.0)
        assert box.accept(kept) and not box.accept(kept)
        assert box.pending().events == [kept]
        assert os.listdir(folder) == ["inbox"]


def test_an_event_id_of_half_a_character_does_no_harm(box: Inbox, url: str) -> None:
    assert post(url, b'{"eventType":"job.run.completed","eventId":"\\ud800","data":{"jobId":1,"runId":2}}').ok
    assert box.pending().events[0].event_id == "\ufffd"


def test_what_can_t_be_kept_is_answered_so_that_it_comes_again(
    box: Inbox, url: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise StateError("DB510", "the disk is full")

    monkeypatch.setattr(Inbox, "accept", full)
    assert post(url, event()).status_code == 503
    monkeypatch.undo()
    assert "DB510 the disk is full" in capfd.readouterr().err
    assert post(url, event()).status_code == 202


def test_a_file_that_is_damaged_is_set_aside_and_keeps_no_other_back(box: Inbox, url: str, tmp_path: Path) -> None:
    bent = [json.dumps({**vars_of(event()), **wrong}) for wrong in ({"received": "now"}, {"run_id": "7l"})]
    assert post(url, event()).status_code == 202
    (whole,) = box.pending().events
    folder = tmp_path / "inbox" / "events"
    for number, content in enumerate(("{", "[]", '{"event_id": "x"}', *bent)):
        path = folder / f"{number}.json"
        path.write_text(content)
        assert box.pending() == ([whole], [path])
        assert box.set_aside(path) == path.with_suffix(".damaged")
        assert path.with_suffix(".damaged").read_text() == content and not path.exists()
    assert box.pending() == ([whole], [])
    (folder / f"{whole.key}.json").write_text("{")
    (damaged,) = box.pending().damaged
    box.set_aside(damaged)
    assert post(url, event()).status_code == 202, "it is not known any more, so its next delivery is taken"
    assert [each.event_id for each in box.pending().events] == [whole.event_id]


def test_a_file_that_the_system_does_not_give_stays_where_it_is(box: Inbox, url: str, tmp_path: Path) -> None:
    path = tmp_path / "inbox" / "events" / "0.json"
    path.mkdir()  # root may read whatever it may not
    with pytest.raises(StateError, match=r"DB510.*0\.json"):
        box.pending()
    path.rmdir()
    assert box.pending() == ([], [])
    with pytest.raises(StateError, match=r"DB510.*0\.json"):
        box.set_aside(path)


def vars_of(content: dict[str, Any]) -> dict[str, Any]:
    data = content["data"]
    return {"event_id": "e", "job_id": data["jobId"], "run_id": data["runId"], "status": "", "received": 1.0}


def test_an_empty_secret_is_refused(box: Inbox) -> None:
    with pytest.raises(UsageError, match="DB220"):
        receiver(box, Secret(""))


def test_a_signature_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []
    monkeypatch.setattr(hmac, "compare_digest", lambda a, b: compared.append((a, b)) or False)
    assert not webhook.is_signed(b"x", "y", Secret(SECRET))
    assert len(compared) == 1


# Processes that are killed

KILLED = """
import os, signal, sys, time
from pathlib import Path
sys.path[:0] = [{tests!r}]
from loopback import served
from test_webhook import SECRET, Clock
from dinmo_dbt.dbt_cloud import Inbox, receiver
from dinmo_dbt.org import Secret

box = Inbox(Path({folder!r}), Clock())
app = receiver(box, Secret(SECRET))

def deadly(environ, start_response):
    answer = app(environ, start_response)
    if {dies!r}:
        os.kill(os.getpid(), signal.SIGKILL)  # it is kept, and nobody was told
    return answer

with served(deadly, threads=20) as url:
    print(url, flush=True)
    time.sleep(60)
"""


@contextlib.contextmanager
def process(folder: Path, *, dies: bool) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    code = KILLED.format(tests=str(Path(__file__).parent), folder=str(folder), dies=dies)
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    try:
        yield child.stdout.readline().strip(), child
    finally:
        child.kill()
        child.communicate()


@pytest.mark.slow
def test_an_event_survives_a_kill_between_its_writing_and_its_answer(tmp_path: Path) -> None:
    with process(tmp_path, dies=True) as (url, child):
        with pytest.raises(requests.exceptions.ConnectionError):
            post(url, event())
        assert child.wait(60) == -signal.SIGKILL
    with process(tmp_path, dies=False) as (url, _):
        assert post(url, event()).json() == {"message": "already received"}
    assert [each.event_id for each in Inbox(tmp_path, Clock()).pending().events] == ["wev_1"]


@pytest.mark.slow
def test_a_kill_at_any_moment_loses_no_answered_event_and_leaves_none_in_halves(tmp_path: Path) -> None:
    answered: list[str] = []
    for round_ in range(4):
        with process(tmp_path, dies=False) as (url, child):
            stop = threading.Timer(0.15 + 0.1 * round_, child.kill)
            stop.start()
            for number in range(500):
                name = f"wev_{round_}_{number}"
                try:
                    assert post(url, event(name)).status_code == 202
                except requests.exceptions.RequestException:
                    break
                answered.append(name)
            stop.join()
    box = Inbox(tmp_path, Clock())
    waiting = box.pending().events
    assert answered and set(answered) <= {each.event_id for each in waiting}
    assert len(waiting) <= len(answered) + 4
    assert not [path for path in (tmp_path / "events").iterdir() if path.name.startswith(".")]
    print(f"{len(answered)} answered, {len(waiting)} kept")


def test_what_is_done_stays_done_after_a_kill(tmp_path: Path) -> None:
    code = (
        f"import sys; sys.path[:0] = [{str(Path(__file__).parent)!r}]\n"
        "import os, signal\nfrom pathlib import Path\nfrom test_webhook import Clock\n"
        "from dinmo_dbt.dbt_cloud import Event, Inbox\n"
        f"box = Inbox(Path({str(tmp_path)!r}), Clock())\n"
        "for n in range(3): box.accept(Event(f'wev_{n}', '1', '2', 'Success', float(n)))\n"
        "box.done(box.pending().events[0])\nos.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -signal.SIGKILL
    box = Inbox(tmp_path, Clock())
    assert [each.event_id for each in box.pending().events] == ["wev_1", "wev_2"]
    assert not box.accept(Event("wev_0", "1", "2", "Success", 9.0))
