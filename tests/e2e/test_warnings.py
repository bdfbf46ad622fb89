"""`warnings test` as a user runs it: what arrives, what is said, and no word of a URL."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path

import pytest
from test_channels import TOKEN, Receiver, mail_server

from .lab import DINMO, Lab, Org, until, using

pytestmark = pytest.mark.slow

CHANNELS = """\
warnings:
  channels:
    - "{{ env_var('HOOK') }}"
    - {url: "{{ env_var('MAIL') }}", only: critical}
"""


def declare(lab: Lab, text: str = CHANNELS) -> None:
    (lab.root / "dinmo.yml").write_text(DINMO + text)


def written(root: Path) -> bytes:
    return b"".join(path.read_bytes() for path in root.rglob("*") if path.is_file())


def test_a_sample_of_a_warning_reaches_every_channel(lab: Lab, receiver: Receiver) -> None:
    declare(lab)
    with mail_server() as (box, port):
        urls = {
            "HOOK": f"http://127.0.0.1:{receiver.port}/{TOKEN}",
            "MAIL": f"mailto://127.0.0.1:{port}?from={TOKEN}@a.example&to=b@a.example",
        }
        ran = lab.process("warnings", "test", **urls)
    assert ran.code == 0
    assert ran.out == "warnings.channels[0] (webhook): OK\nwarnings.channels[1] (mailto): OK\n" and ran.err == ""
    sent = json.loads(receiver.asked[0][3])
    assert sent["type"] == "warning" and sent["title"].startswith("TEST ")
    assert "nothing is wrong" in sent["message"] and "target dev" in sent["message"]
    assert re.search(r"\n\nid test-\d{8}T\d{6}Z$", sent["message"])
    assert len(box.got) == 1 and str(box.got[0]["Subject"]).startswith("TEST ")
    assert not (lab.root / ".dinmo" / "emulator").exists(), "no org was needed"
    assert TOKEN.encode() not in written(lab.root)


def test_a_sample_incident_is_opened_and_resolved(lab: Lab, receiver: Receiver) -> None:
    declare(lab)
    (lab.root / "dinmo.yml").write_text(DINMO + CHANNELS.partition("    - {url")[0])
    url = f"goalert://127.0.0.1:{receiver.port}/12345678-1234-1234-1234-123456789012"
    ran = lab.process("warnings", "test", HOOK=url)
    assert (ran.code, ran.out) == (0, "warnings.channels[0] (goalert): OK\n")
    opened, closed = (json.loads(body) for _, _, _, body in receiver.asked)
    assert "action" not in opened and closed["action"] == "close"
    assert opened["dedup"] == closed["dedup"] and opened["dedup"].startswith("dinmo-dbt/")


def test_a_channel_that_fails_is_reported_and_the_others_are_still_tried(lab: Lab, receiver: Receiver) -> None:
    declare(lab)
    receiver.behaviour = 500
    with mail_server() as (box, port):
        urls = {
            "HOOK": f"http://ada:{TOKEN}@127.0.0.1:{receiver.port}/{TOKEN}",
            "MAIL": f"mailto://127.0.0.1:{port}?from=a@a.example&to=b@a.example",
        }
        ran = lab.process("warnings", "test", **urls)
        document = lab.process("warnings", "test", "--json", "--channel", "0", **urls)
    assert ran.code == 1 and len(box.got) == 1
    assert ran.out == "warnings.channels[0] (webhook): ERROR\nwarnings.channels[1] (mailto): OK\n"
    assert "DB652" in ran.err and "HTTP status 500" in ran.err
    assert document.code == 1 and document.json["command"] == "warnings test"
    assert [(c["channel"], c["service"], c["ok"], c["problem"]["code"]) for c in document.json["channels"]] == [
        ("warnings.channels[0]", "webhook", False, "DB652")
    ]
    assert document.json["ok"] is False
    for text in (ran.all, document.all):
        assert TOKEN not in text and "127.0.0.1" not in text and str(receiver.port) not in text


def test_without_a_channel_the_message_says_what_to_write(lab: Lab) -> None:
    ran = lab.run("warnings", "test")
    assert ran.code == 2 and "DB126" in ran.err
    example = ran.err.partition("to its URL:")[2].replace("     ", "")
    declare(lab, example)
    ran = lab.run("warnings", "test", DINMO_SLACK_URL=f"nonsense://{TOKEN}")
    assert ran.code == 1 and "DB650" in ran.err and TOKEN not in ran.all


def test_a_number_that_no_channel_has_is_a_usage_error(lab: Lab) -> None:
    declare(lab)
    ran = lab.run("warnings", "test", "--channel", "2", HOOK="https://a.example/", MAIL="mailto://a@b.example")
    assert ran.code == 2 and "warnings.channels[0], warnings.channels[1]" in ran.err


def test_validate_online_reads_the_urls_and_sends_nothing(lab: Lab, org: Org, receiver: Receiver) -> None:
    declare(lab)
    urls = {"HOOK": f"http://127.0.0.1:{receiver.port}/", "MAIL": f"slack://{TOKEN}"}
    assert lab.run("validate").code == 0
    ran = lab.run("validate", "--online", **urls)
    assert ran.code == 2 and "DB650" in ran.err and "warnings.channels[1]" in ran.err and TOKEN not in ran.all
    assert lab.run("validate", "--online", **(urls | {"MAIL": "mailto://a@b.example"})).code == 0
    assert receiver.asked == []


def test_a_signal_ends_a_command_that_waits_for_a_channel(lab: Lab, receiver: Receiver) -> None:
    declare(lab)
    receiver.behaviour = "hang"
    hook = f"http://127.0.0.1:{receiver.port}/"
    child = lab.start("warnings", "test", HOOK=hook, MAIL=hook)
    until(lambda: receiver.asked)
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=60)
    assert child.returncode == 130, out + err
    assert len(receiver.asked) == 1 and using(lab.root) == []
