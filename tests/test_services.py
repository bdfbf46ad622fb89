"""What each service is posted, as Apprise writes it: names and commands as they are, one message, one incident.

Nothing leaves this machine: in the process that makes the posts, `requests` hands them back.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from html import unescape
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dinmo_dbt.channels.fitting import one_message
from dinmo_dbt.channels.incidents import _HOSTS, _KEYS, KEY_MAX, Keeps, keeps

POSTING = """
import json, sys, requests
posts = []
class Reply:
    status_code, ok, headers, reason, url = 200, True, {}, "OK", ""
    text = '{"ok": true, "requestId": "r", "room_id": "!r:h", "user_id": "@u:h", "access_token": "a", "result": {}}'
    content = text.encode()
    def json(self): return json.loads(self.text)
    def close(self): ...
def request(self, method, url, **more):
    data = more.get("json") or more.get("data")
    data = data.decode() if isinstance(data, bytes) else data
    posts.append([url, more.get("params"), json.loads(data) if isinstance(data, str) else data])
    reply = Reply()
    if "hooks.slack.com" in url:
        reply.text, reply.content = "ok", b"ok"
    return reply
requests.Session.request = request
from dinmo_dbt.channels.attempt import answer
told = []
for each in json.load(sys.stdin):
    posts.clear()
    answered = answer(each)
    told.append([answered, list(posts)])
print(json.dumps(told))
"""

HEX = "0123456789abcdef" * 3
URLS = {
    "slack": "https://hooks.slack.com/services/T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ",
    "slack, a workflow's": "https://hooks.slack.com/workflows/T1JJ3T3L2/A1BRTD4JD/123456789012345/abcdefghijklmnop",
    "discord": "https://discord.com/api/webhooks/4174216298/JHMHI8qBe7bk2ZwO5U711o3dV_js",
    "teams": "workflow://h.example/0123456789abcdef/signature",
    "gchat": "https://chat.googleapis.com/v1/spaces/AAAA/messages?key=XXXX&token=XXXX",
    "mattermost": "mmosts://mattermost.example.com/3ccdd113474722377935511fc85d3dd4",
    "rocket.chat": f"rockets://{HEX[:24]}/{HEX}@h.example/%23room",
    "telegram": "tgram://123456789:abcdefg_hijklmnop/12315544/",
    "webex": f"wxteams://{HEX}{HEX[:32]}",
    "ntfy": "ntfys://ntfy.sh/TOPIC?format=markdown",
    "matrix": "matrixs://token@h.example/!room:h.example?e2ee=no&format=markdown",
    "zulip": f"zulip://botname@organisation/{HEX[:32]}/stream",
    "pushover": f"pover://{HEX[:30]}@{HEX[:30]}",
    "webhook": "https://h.example/hook",
}
INCIDENTS = {
    "pagerduty": "pagerduty://INTEGRATIONKEYINTEGRATIONKEY1234@APIKEY",
    "opsgenie": "opsgenie://apikey",
    "jira": "jira://apikey",
    "splunk": "splunk://routing@apikey",
    "signl4": "signl4://secret",
    "pagertree": "pagertree://int_0123456789",
    "incidentio": "incidentio://source/token",
    "firehydrant": "firehydrant://token",
    "ilert": "ilert://key",
    "goalerts": "goalerts://h.example/12345678-1234-1234-1234-123456789012",
    "squadcast": "squadcast://key",
    "opsimates": "opsimates://apikey@h.example",
}
KEY = "dinmo-dbt/prod/shops__Shop__c"
ID = "20261126T060000-ab12cd:failed"
TITLE = "dinmo-dbt [prod] shops__Shop__c: a*b failed"
COMMAND = "dinmo-dbt history 20261126T060000-ab12cd --target prod"
LINES = [
    "shops__Shop__c: DB301 <x> & `tick` *star* a*b [l](u) <!channel> <@U1> {{x}} :smile: C:\\new _u_ ~t~",
    "- dinmo-dbt rejected --show-values -s a_b_c",
    "# x",
    "  1. two",
    COMMAND,
    f"id {ID}",
]
BODY = "\n".join(LINES[:-1])


def posted(*requests: dict[str, Any]) -> list[tuple[dict[str, Any], list[list[Any]]]]:
    """What came of each request in one process: the answer, and the posts (address, query, body)."""
    child = subprocess.run(
        [sys.executable, "-c", POSTING], input=json.dumps(requests), capture_output=True, text=True, check=True
    )
    return [(answer, posts) for answer, posts in json.loads(child.stdout)]


def request(url: str, severity: str = "critical", body: str = BODY, title: str = TITLE, **more: Any) -> dict[str, Any]:
    notice = {"id": ID, "severity": severity, "title": title, "body": body, "incident": KEY, **more}
    return {"url": url, "limit_s": 10, "notice": notice}


@pytest.fixture(scope="module")
def shown() -> dict[str, Any]:
    """What each service is posted of the notice above: the last post, which is the message."""
    told = posted(*(request(url) for url in (URLS | INCIDENTS).values()))
    assert [answer["reason"] for answer, _ in told] == [""] * len(told)
    return {name: posts[-1][2] for name, (_, posts) in zip(URLS | INCIDENTS, told, strict=True)}


# Names and commands


def in_block(text: str) -> list[str]:
    opening, *lines, closing = text.splitlines()
    assert (opening, closing) == ("```", "```")
    return lines


def after_inline_title(text: str) -> list[str]:
    title, _, block = text.partition("\r\n")
    assert title == f"`{TITLE}`"
    return in_block(block)


def telegram(post: Any) -> list[str]:
    head, _, rest = post["text"].partition("<pre>")
    assert post["parse_mode"] == "HTML" and unescape(head).strip() == f"<b>{TITLE}</b>"
    return unescape(rest.removesuffix("</pre>")).splitlines()


def slack(post: Any) -> list[str]:
    [attachment] = post["attachments"]
    assert attachment["mrkdwn_in"] == ["text"] and unescape(attachment["title"]) == TITLE
    assert not {"<", ">"} & set(attachment["text"]), "Slack reads what is in angle brackets"
    return in_block(unescape(attachment["text"]))


def teams(post: Any) -> list[str]:
    [attachment] = post["attachments"]
    runs = [element["inlines"] for element in attachment["content"]["body"]]
    assert all(len(run) == 1 and run[0]["type"] == "TextRun" for run in runs)
    assert "entities" not in attachment["content"]["msteams"]
    title, *lines = [run[0]["text"] for run in runs]
    assert title == TITLE
    return lines


def titled(title: str, text: str, *, block: bool = False) -> Callable[[Any], list[str]]:
    def read(post: Any) -> list[str]:
        assert post[title] == TITLE
        return in_block(post[text]) if block else post[text].splitlines()

    return read


def below_title(text: str) -> list[str]:
    title, *lines = text.splitlines()
    assert title.removeprefix("# ") == TITLE
    return lines


READ: dict[str, Callable[[Any], list[str]]] = {
    "slack": slack,
    "slack, a workflow's": lambda post: unescape(post["text"]).removeprefix(f"{TITLE}: ").splitlines(),
    "discord": lambda post: after_inline_title(post["content"]),
    "teams": teams,
    "gchat": lambda post: after_inline_title(post["text"]),
    "mattermost": lambda post: after_inline_title(post["text"]),
    "rocket.chat": lambda post: after_inline_title(post["text"]),
    "telegram": telegram,
    "webex": lambda post: after_inline_title(post["markdown"]),
    "ntfy": titled("title", "message"),
    "matrix": lambda post: below_title(post["body"]),
    "zulip": titled("topic", "content", block=True),
    "pushover": titled("title", "message"),
    "webhook": titled("title", "message"),
    "pagerduty": lambda post: below_title(post["payload"]["summary"]),
    "opsgenie": titled("message", "description"),
    "jira": titled("message", "description"),
    "splunk": titled("entity_display_name", "state_message"),
    "signl4": titled("title", "body"),
    "pagertree": titled("title", "description"),
    "incidentio": titled("title", "description", block=True),
    "firehydrant": titled("summary", "body"),
    "ilert": titled("summary", "details", block=True),
    "goalerts": titled("summary", "details", block=True),
    "squadcast": titled("message", "description", block=True),
    "opsimates": titled("alertName", "summary"),
}


@pytest.mark.parametrize("name", URLS | INCIDENTS)
def test_names_and_commands_are_shown_as_they_are(name: str, shown: dict[str, Any]) -> None:
    assert [line for line in READ[name](shown[name]) if line.strip()] == LINES


def test_a_message_that_is_markup_has_a_mode_that_says_so(shown: dict[str, Any]) -> None:
    assert shown["pushover"].get("html") is None and "formatted_body" not in shown["matrix"]


# One message


@pytest.mark.slow
@pytest.mark.parametrize(("lines", "width"), [(60, 80), (2, 40_000)])
def test_a_notice_is_one_message_however_long(lines: int, width: int) -> None:
    body = "\n".join([*(f"shops_{n}__Shop__c: {'é' * width}" for n in range(lines)), COMMAND])
    title = "dinmo-dbt [prod] " + "a_long_name_of_an_activation" * 3 + ": failed"
    urls = URLS | INCIDENTS
    told = posted(*(request(url, body=body, title=title) for url in urls.values()))
    for name, (answer, posts) in zip(urls, told, strict=True):
        messages = [post for post in posts if name != "matrix" or "send" in post[0]]
        assert answer["sent"] and len(messages) == 1, name
        text = json.dumps(messages[0][2], ensure_ascii=False)
        assert ID in text and title in text, name
        if (name, lines) == ("pagerduty", 60):
            summary = messages[0][2]["payload"]["summary"]
            assert f" more lines: {COMMAND}\n\nid {ID}" in summary and len(summary) <= 1024
        if name == "ntfy":
            assert len(messages[0][2]["message"].encode()) <= 4096


@given(
    st.lists(st.text("ab é<", max_size=30), max_size=30),
    st.sampled_from(["", COMMAND]),
    st.integers(0, 400),
    st.sampled_from([len, lambda text: len(text.encode())]),
)
def test_what_is_cut_keeps_the_ending_and_counts_what_it_left_out(
    lines: list[str], last: str, limit: int, size: Callable[[str], int]
) -> None:
    body = "\n".join([*lines, *([last] if last else [])])
    text = one_message(body, "id 7", lambda text: size(text) <= limit)
    given_ = body.splitlines()
    if size("id 7") > limit:
        assert text == body
    elif size(whole := f"{body}\n\nid 7") <= limit:
        assert text == whole
    else:
        *head, ending = text.splitlines()
        assert ending == "id 7"
        if len(head) > 1 and head[-2].startswith("... "):
            *head, empty = head
            assert not empty
            told = int(head[-1].split()[1])
            whole_lines = [line for line in head[:-1] if not line.endswith(" ...")]
            assert whole_lines == given_[: len(given_) - told]
            assert head[-1].endswith(last or "dinmo-dbt status")


# One incident


MARKS: dict[str, tuple[Callable[[Any], Any], Any, Any]] = {
    "pagerduty": (lambda post: post["dedup_key"], ("event_action", "trigger"), ("event_action", "resolve")),
    "splunk": (lambda post: post["entity_id"], ("message_type", "CRITICAL"), ("message_type", "RECOVERY")),
    "signl4": (lambda post: post["X-S4-ExternalID"], ("X-S4-Status", None), ("X-S4-Status", "resolved")),
    "pagertree": (lambda post: post["id"], ("event_type", "create"), ("event_type", "resolve")),
    "incidentio": (lambda post: post["deduplication_key"], ("status", "firing"), ("status", "resolved")),
    "firehydrant": (lambda post: post["idempotency_key"], ("status", "OPEN"), ("status", "CLOSED")),
    "ilert": (lambda post: post["alertKey"], ("eventType", "ALERT"), ("eventType", "RESOLVE")),
    "goalerts": (lambda post: post["dedup"], ("action", None), ("action", "close")),
    "squadcast": (lambda post: post["event_id"], ("status", "trigger"), ("status", "resolve")),
    "opsimates": (lambda post: post["id"], ("status", "firing"), ("status", "resolved")),
}


@pytest.mark.parametrize("name", MARKS)
def test_an_end_resolves_what_its_beginning_opened_and_no_more_does(name: str) -> None:
    url = INCIDENTS[name]
    told = posted(request(url), request(url, "recovered"), request(url, "recovered", stands=True))
    key_of, begun, over = MARKS[name]
    [begin], [end], [part] = [[post for _, _, post in posts] for _, posts in told]
    assert key_of(begin) == key_of(end) == key_of(part) == KEY
    assert (begun[0], begin.get(begun[0])) == begun and (over[0], end.get(over[0])) == over
    assert part.get(over[0]) != over[1]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["opsgenie", "jira"])
def test_an_alert_is_closed_by_its_alias_from_another_process(name: str) -> None:
    url = INCIDENTS[name]
    [(_, [opened])] = posted(request(url))
    assert opened[2]["alias"] == KEY
    [(_, closed)] = posted(request(url, "recovered"))
    [(_, noted)] = posted(request(url, "recovered", stands=True))
    for posts, what in ((closed, "close"), (noted, "notes")):
        [(address, query, _)] = posts
        assert address == f"{opened[0]}/dinmo-dbt%2Fprod%2Fshops__Shop__c/{what}"
        assert query == {"identifierType": "alias"}


def test_without_an_incident_the_id_is_the_key() -> None:
    url = INCIDENTS["pagerduty"]
    notices = [{**request(url, severity)["notice"], "incident": ""} for severity in ("critical", "recovered")]
    for notice in notices:
        del notice["incident"]
    told = posted(*({"url": url, "limit_s": 10, "notice": notice} for notice in notices))
    assert [(post["event_action"], post["dedup_key"]) for _, [(_, _, post)] in told] == [
        ("trigger", ID),
        ("resolve", ID),
    ]


def test_what_the_users_own_url_says_of_an_incident_stays() -> None:
    own = f"{INCIDENTS['pagerduty']}/source?dedup=mine&action=trigger"
    told = posted(request(own), request(own, "recovered"), request("splunk://routing@apikey/theirs", "recovered"))
    [[first], [second], [third]] = [[post for _, _, post in posts] for _, posts in told]
    assert [(post["event_action"], post["dedup_key"]) for post in (first, second)] == [("trigger", "mine")] * 2
    assert first["payload"]["source"] == "source"
    assert (third["entity_id"], third["message_type"]) == ("theirs", "RECOVERY")


def test_a_key_is_never_too_long_and_stays_one() -> None:
    long = [f"dinmo-dbt/{'t' * KEY_MAX}/{n}" for n in (1, 1, 2)]
    told = posted(*(request(INCIDENTS["pagerduty"], incident=key) for key in long))
    first, again, other = (post["dedup_key"] for _, [(_, _, post)] in told)
    assert first == again != other and len(first) <= KEY_MAX


def test_every_service_of_apprises_that_resolves_by_a_key_is_known() -> None:
    from apprise.manager_plugins import NotificationManager

    plugins = NotificationManager()
    plugins.load_modules()
    resolving = set()
    for plugin in plugins.plugins():
        action = plugin.template_args.get("action", {})
        if "map" in action.get("values", ()):
            schemas = [each for each in (plugin.protocol, plugin.secure_protocol) if each]
            resolving |= {name for each in schemas for name in ([each] if isinstance(each, str) else each)}
    assert resolving == set(_KEYS)


def test_a_services_own_address_is_known_as_the_service() -> None:
    address = "https://{}/v2/incidents"
    assert all(keeps(address.format(host)) is not Keeps.MESSAGES for host in _HOSTS)
    assert {name: keeps(url) for name, url in URLS.items()} == dict.fromkeys(URLS, Keeps.MESSAGES)
    assert {name: keeps(url) for name, url in INCIDENTS.items()} == dict.fromkeys(INCIDENTS, Keeps.INCIDENTS)
    assert keeps("https://acme.xmatters.com/api/integration/1/functions/1/triggers") is Keeps.OPEN_INCIDENTS
    assert keeps("https://[not a url") is Keeps.MESSAGES
    assert (keeps("betterstack://token"), keeps("betterstack://token@h")) == (Keeps.OPEN_INCIDENTS, Keeps.MESSAGES)
