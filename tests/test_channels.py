"""Notices on the wire: real mail and real HTTP on loopback, receivers that misbehave, and no word of the URL."""

from __future__ import annotations

import email
import email.policy
import itertools
import json
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from hypothesis import given, settings
from hypothesis import strategies as st

from dinmo_dbt import channels
from dinmo_dbt.channels import Attempted, deliver
from dinmo_dbt.config.channel import Channel
from dinmo_dbt.errors import Interrupted, Problem
from dinmo_dbt.org import Secret
from dinmo_dbt.watch.notice import Notice, Severity

TOKEN = "CANARY7d3f"
DOCS = Path(__file__).parent.parent / "docs"


def channel(url: str, number: int = 0, *, only_critical: bool = False) -> Channel:
    return Channel(f"warnings.channels[{number}]", Secret(url), only_critical)


def notice(
    severity: Severity = Severity.WARNING, *, id: str = "20261126-abc", body: str = "12 rows & <more>"
) -> Notice:
    return Notice(id, severity, "people_to_crm: rows rejected", body)


class Receiver:
    """A webhook that answers as `behaviour` says: a status, or hang, drip, close, redirect."""

    def __init__(self) -> None:
        self.behaviour: int | str = 200
        self.asked: list[tuple[str, str, dict[str, str], bytes]] = []
        outer = self
        self.over = threading.Event()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                outer.asked.append((self.command, self.path, dict(self.headers), body))
                match outer.behaviour:
                    case "hang":
                        outer.over.wait()
                    case "drip":
                        self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
                        while not outer.over.wait(0.1):
                            self.wfile.write(b"x")
                    case "close":
                        self.connection.shutdown(socket.SHUT_RDWR)
                    case "redirect":
                        self.send_response(302)
                        self.send_header("Location", f"http://127.0.0.1:{outer.port}/elsewhere")
                        self.send_header("Content-Length", "0")
                        self.end_headers()
                    case int(status):
                        self.send_response(status)
                        self.send_header("Content-Length", "0")
                        self.end_headers()

            do_GET = do_POST

            def log_message(self, *_: Any) -> None: ...

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: Any) -> None: ...  # a client that was killed

        self.server = Server(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self.over.set()
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


class Mailbox:
    """What an SMTP server got. `refusal`: its answer to every message."""

    def __init__(self) -> None:
        self.refusal = ""
        self.got: list[email.message.EmailMessage] = []
        self.sender, self.recipients = "", [""]

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        self.sender, self.recipients = envelope.mail_from, envelope.rcpt_tos
        message = email.message_from_bytes(envelope.content, policy=email.policy.default)
        assert isinstance(message, email.message.EmailMessage)
        self.got.append(message)
        return self.refusal or "250 OK"


@contextmanager
def mail_server() -> Iterator[tuple[Mailbox, int]]:
    box = Mailbox()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    controller = Controller(box, hostname="127.0.0.1", port=port)
    controller.start()
    try:
        yield box, port
    finally:
        controller.stop()


# What arrives


@pytest.mark.slow
def test_an_e_mail_arrives_with_its_title_text_and_id() -> None:
    with mail_server() as (box, port):
        url = f"mailto://127.0.0.1:{port}?from=dbt@example.com&to=data@example.com,ops@example.com"
        assert channels.send(channel(url), notice()) == Attempted("mailto", None)
        assert [m["Subject"] for m in box.got] == ["people_to_crm: rows rejected"] * 2
        assert box.sender == "dbt@example.com"
        assert sorted(str(m["To"]) for m in box.got) == ["data@example.com", "ops@example.com"]
        assert box.got[0].get_content_type() == "text/plain"
        assert box.got[0].get_content().splitlines() == ["12 rows & <more>", "", "id 20261126-abc"]


def test_a_plain_webhook_gets_json_with_its_own_path_query_and_login(receiver: Receiver) -> None:
    url = f"http://ada:p%40ss@127.0.0.1:{receiver.port}/hooks/{TOKEN}%2Fx?verify=no&method=GET&y=1&y=2"
    assert channels.send(channel(url), notice()) == Attempted("webhook", None)
    ((method, path, headers, body),) = receiver.asked
    assert (method, path) == ("POST", f"/hooks/{TOKEN}%2Fx?verify=no&method=GET&y=1&y=2")
    assert headers["Authorization"] == "Basic YWRhOnBAc3M="
    assert headers["Content-Type"] == "application/json"
    assert json.loads(body) == {
        "version": "1.0",
        "title": "people_to_crm: rows rejected",
        "message": "12 rows & <more>\n\nid 20261126-abc",
        "attachments": [],
        "type": "warning",
        "id": "20261126-abc",
    }


@pytest.mark.slow
def test_each_severity_has_a_type_of_apprise(receiver: Receiver) -> None:
    url = f"json://127.0.0.1:{receiver.port}/{TOKEN}"
    for severity in Severity:
        assert channels.send(channel(url), notice(severity)).problem is None
    types = [json.loads(body)["type"] for _, _, _, body in receiver.asked]
    assert dict(zip(Severity, types, strict=True)) == {
        Severity.CRITICAL: "failure",
        Severity.WARNING: "warning",
        Severity.RECOVERED: "success",
        Severity.INFO: "info",
    }


def test_a_text_that_is_too_long_is_cut_and_says_so_with_the_id_at_its_end(receiver: Receiver) -> None:
    url = f"http://127.0.0.1:{receiver.port}/"
    assert channels.send(channel(url), notice(body="word " * 10_000)).problem is None
    [message] = [json.loads(body)["message"] for _, _, _, body in receiver.asked]
    assert message.startswith("word word ") and message.count("word") > 5_000
    assert message.endswith(" ...\n... 1 more line: dinmo-dbt status\n\nid 20261126-abc")


@pytest.mark.slow
def test_text_is_not_read_as_escapes_emoji_or_markup(receiver: Receiver) -> None:
    url = f"json://127.0.0.1:{receiver.port}/"
    text = r"C:\new :smile: *a* _b_ <@U1> {{ x }} ${HOME} é"
    assert channels.send(channel(url), notice(body=text)).problem is None
    assert json.loads(receiver.asked[0][3])["message"].startswith(text)


@pytest.mark.slow
def test_every_url_in_the_page_is_understood() -> None:
    page = (DOCS / "warnings.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([^|]+) \| `([^`]+://[^`]+)` \| `(\w+)` \|$", page, re.MULTILINE)
    assert len(rows) >= 10
    assert {url: channels.check(channel(url)) for _, url, _ in rows} == {
        url: Attempted(kind, None) for _, url, kind in rows
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("url", "reason"),
    [
        (f"https://hooks.slack.com/services/{TOKEN}", "copy it again, whole"),
        (f"https://discord.com/{TOKEN}", "copy it again, whole"),
        (f"https://acme.webhook.office.com/webhookb2/{TOKEN}", "Workflows in Teams"),
        (f"nonsense://{TOKEN}", "neither a webhook's https:// URL nor an Apprise URL"),
        (f"slack://{TOKEN}", "neither"),
        (f"https://[{TOKEN}", "neither"),
        (f"https://{TOKEN}:99999/hook", "neither"),
        (f"mqtt://{TOKEN}/topic", "needs a package"),
    ],
)
def test_a_url_that_is_not_understood_is_reported_without_it(url: str, reason: str) -> None:
    problem = channels.check(channel(url)).problem
    assert problem is not None and problem.code == "DB650" and reason in problem.message
    assert problem.where == "dinmo.yml: warnings.channels[0]"
    assert TOKEN not in str(problem)
    assert channels.send(channel(url), notice()).problem == problem


# Receivers that misbehave


@pytest.mark.slow
@pytest.mark.parametrize(
    ("behaviour", "code", "reason"),
    [
        (500, "DB652", "HTTP status 500"),
        (429, "DB652", "HTTP status 429"),
        (404, "DB651", "HTTP status 404"),
        ("redirect", "DB651", "HTTP status 302"),
        ("close", "DB652", "closed the connection"),
        ("hang", "DB652", "no answer"),
        ("drip", "DB652", "no answer within 10 seconds"),
    ],
)
def test_a_receiver_that_misbehaves_is_reported_in_bounded_time_and_asked_once(
    behaviour: int | str,
    code: str,
    reason: str,
    receiver: Receiver,
    capfd: pytest.CaptureFixture[str],
) -> None:
    receiver.behaviour = behaviour  # what hangs or drips does so until the test is over
    told = channels.send(channel(f"http://ada:{TOKEN}@127.0.0.1:{receiver.port}/{TOKEN}?k={TOKEN}"), notice())
    assert told.problem is not None and told.problem.code == code and reason in told.problem.message
    assert [path for _, path, _, _ in receiver.asked] == [f"/{TOKEN}?k={TOKEN}"]
    out = "".join(capfd.readouterr())
    assert out == ""
    assert TOKEN not in str(told) and "127.0.0.1" not in str(told) and str(receiver.port) not in str(told)


@pytest.mark.slow
def test_a_receiver_that_is_not_there_is_reported(capfd: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        for url in (f"http://127.0.0.1:{port}/{TOKEN}", f"mailto://ada:{TOKEN}@127.0.0.1:{port}?from=a@b.example"):
            problem = channels.send(channel(url), notice()).problem
            assert problem is not None
            assert (problem.code, problem.message.partition(": ")[2]) == ("DB652", "nothing listens at its address")
            assert TOKEN not in str(problem)
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
@pytest.mark.parametrize(("answer", "code"), [("554 no CANARY7d3f", "DB651"), ("451 later CANARY7d3f", "DB652")])
def test_a_mail_server_that_refuses_is_reported_by_its_code_alone(answer: str, code: str) -> None:
    with mail_server() as (box, port):
        box.refusal = answer
        url = f"mailto://127.0.0.1:{port}?from=a@b.example&to=c@d.example"
        problem = channels.send(channel(url), notice()).problem
    assert problem is not None
    assert (problem.code, problem.message) == (
        code,
        f"mailto did not take the message: the mail server answered with code {answer[:3]}",
    )


def test_nothing_of_the_users_folders_is_read_or_written(
    receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".netrc").write_text(f"default login ada password {TOKEN}\n")
    (tmp_path / ".netrc").chmod(0o600)
    for folder in (".apprise/plugins", ".config/apprise/plugins", "here"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "apprise.py").write_text("raise SystemExit('a module of the folder was imported')\n")
    before = sorted(tmp_path.rglob("*"))
    for name in ("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "TMPDIR"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.chdir(tmp_path / "here")
    told = channels.send(channel(f"http://127.0.0.1:{receiver.port}/"), notice())
    assert told == Attempted("webhook", None)
    assert "Authorization" not in receiver.asked[0][2]
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.slow
def test_an_attempt_ends_by_itself_when_nobody_waits_for_it(receiver: Receiver) -> None:
    receiver.behaviour = "drip"
    request = {"url": f"http://127.0.0.1:{receiver.port}/", "limit_s": 8}
    request["notice"] = {"id": "1", "severity": "info", "title": "t", "body": "b"}
    child = subprocess.Popen([sys.executable, "-P", "-m", "dinmo_dbt.channels.attempt"], stdin=subprocess.PIPE)
    child.communicate(json.dumps(request).encode(), timeout=60)
    assert child.returncode < 0 and receiver.asked


# The attempts of one command


class Clock:
    def __init__(self, stop_at: int = 10**9) -> None:
        self.slept: list[float] = []
        self.stop_at = stop_at

    def now(self) -> float:
        return 0.0

    def monotonic(self) -> float:
        return self.now()

    def sleep(self, seconds: float) -> None:
        if seconds:
            self.slept.append(seconds)
        self.stop_at -= 1
        if self.stop_at < 0:
            raise Interrupted(2)


A, B = channel("a", 0), channel("b", 1)
PASSING, LASTING = Problem("DB652", "later"), Problem("DB651", "never")


class Script:
    """What each channel answers, in turn; when that is used up, it takes everything."""

    def __init__(self, **answers: list[Problem | None]) -> None:
        self.answers = {channel.place: answers.get(name, []) for name, channel in (("a", A), ("b", B))}
        self.tried: list[tuple[str, str]] = []

    def __call__(self, channel: Channel, notice: Notice) -> Attempted:
        self.tried.append((notice.id, channel.place))
        answers = self.answers[channel.place]
        return Attempted("", answers.pop(0) if answers else None)


def pending(*pairs: str) -> list[tuple[Notice, Channel]]:
    return [(notice(id=pair[1:]), A if pair[0] == "a" else B) for pair in pairs]


def test_a_channel_that_only_takes_critical_ones_is_asked_for_nothing_else() -> None:
    quiet = channel("a", only_critical=True)
    notices = [Notice("1", severity, "title", "body") for severity in Severity]
    over = Notice("1:recovered", Severity.RECOVERED, "title", "body", ends_critical=True)
    assert [notice.severity for notice in notices if quiet.takes(notice)] == [Severity.CRITICAL]
    assert quiet.takes(over)
    assert all(A.takes(notice) for notice in [*notices, over])


def test_a_passing_failure_is_tried_again_after_a_pause() -> None:
    script, clock, noted = Script(a=[PASSING]), Clock(), []
    delivery = deliver(pending("a1", "a2"), clock=clock, sent=lambda *pair: noted.append(pair), attempt=script)
    assert script.tried == [("1", A.place), ("2", A.place), ("1", A.place)]
    assert delivery.sent == tuple(noted) == (("2", A.place), ("1", A.place))
    assert delivery.failed == () and clock.slept == [1.0]


def test_a_lasting_failure_is_not_tried_again() -> None:
    script, clock = Script(a=[LASTING]), Clock()
    delivery = deliver(pending("a1", "b1"), clock=clock, sent=lambda *_: None, attempt=script)
    assert script.tried == [("1", A.place), ("1", B.place)] and clock.slept == []
    assert [(f.notice_id, f.place, f.problem) for f in delivery.failed] == [("1", A.place, LASTING)]


def test_a_channel_that_fails_twice_in_a_row_is_left_alone_and_the_others_are_not() -> None:
    script, clock = Script(a=[PASSING] * 9), Clock()
    delivery = deliver(pending("a1", "b1", "a2", "a3", "b3"), clock=clock, sent=lambda *_: None, attempt=script)
    assert [pair for pair in script.tried if pair[1] == A.place] == [("1", A.place), ("2", A.place)]
    assert delivery.sent == (("1", B.place), ("3", B.place))
    assert {f.notice_id for f in delivery.failed} == {"1", "2", "3"} and clock.slept == []


ABOUT = [
    Notice("1", Severity.CRITICAL, "title", "body", incident="dev/things"),
    Notice("2", Severity.RECOVERED, "title", "body", incident="dev/things"),
    Notice("3", Severity.CRITICAL, "title", "body", incident="dev/others"),
]


def test_the_end_of_an_incident_waits_for_its_beginning_and_others_do_not() -> None:
    script, clock = Script(a=[PASSING]), Clock()
    delivery = deliver([(each, A) for each in ABOUT], clock=clock, sent=lambda *_: None, attempt=script)
    assert [id for id, _ in script.tried] == ["1", "3", "1", "2"]
    assert [id for id, _ in delivery.sent] == ["3", "1", "2"] and delivery.failed == ()
    script = Script(a=[LASTING])
    delivery = deliver([(each, A) for each in ABOUT], clock=clock, sent=lambda *_: None, attempt=script)
    assert [id for id, _ in delivery.sent] == ["2", "3"], "what is refused for good holds nothing up"
    script = Script(a=[PASSING, None, PASSING, PASSING])
    delivery = deliver([(each, A) for each in ABOUT], clock=clock, sent=lambda *_: None, attempt=script)
    assert [(each.notice_id, each.problem) for each in delivery.failed] == [("1", PASSING), ("2", PASSING)]


@pytest.mark.parametrize(
    ("url", "got"),
    [
        ("https://example.com/hook", ["critical", "warning", "recovered", "info"]),
        ("pagerduty://key@key", ["critical", "warning", "recovered"]),
        ("https://api.incident.io/v2/alert_events/http/SOURCE?token=T", ["critical", "warning", "recovered"]),
        ("betterstack://token", ["critical", "warning"]),
        ("betterstack://token@in.logs.example", ["critical", "warning", "recovered", "info"]),
    ],
)
def test_a_service_of_incidents_gets_incidents_alone(url: str, got: list[str]) -> None:
    told = [Notice("1", each, "title", "body", incident="" if each is Severity.INFO else "i") for each in Severity]
    assert [each.severity for each in told if channels.takes(channel(url), each)] == got


def test_what_was_sent_is_noted_before_a_signal_ends_the_command() -> None:
    noted: list[tuple[str, str]] = []
    with pytest.raises(Interrupted):
        deliver(pending("a1", "a2"), clock=Clock(2), sent=lambda *pair: noted.append(pair), attempt=Script())
    assert noted == [("1", A.place)]


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(
    pairs=st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 5)), unique=True, max_size=10),
    a=st.lists(st.sampled_from([None, PASSING, LASTING]), max_size=20),
    b=st.lists(st.sampled_from([None, PASSING, LASTING]), max_size=20),
)
def test_every_pair_ends_sent_or_failed_within_three_attempts(
    pairs: list[tuple[str, int]], a: list[Problem | None], b: list[Problem | None]
) -> None:
    script, clock, noted = Script(a=list(a), b=list(b)), Clock(), []
    todo = pending(*(f"{name}{number}" for name, number in pairs))
    delivery = deliver(todo, clock=clock, sent=lambda *pair: noted.append(pair), attempt=script)
    failed = [(f.notice_id, f.place) for f in delivery.failed]
    assert sorted([*delivery.sent, *failed]) == sorted((n.id, c.place) for n, c in todo)
    assert list(delivery.sent) == noted
    assert all(script.tried.count(pair) <= 3 for pair in script.tried)
    assert sum(clock.slept) <= 6
    for place, answers in ((A.place, a), (B.place, b)):
        tried = sum(1 for pair in script.tried if pair[1] == place)
        given_ = (answers + [None] * tried)[:tried]
        assert not any(x and y for x, y in itertools.pairwise(given_[:-1])), "tried after two failures"
