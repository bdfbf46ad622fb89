"""One attempt at one channel, in a process of its own: `python -m dinmo_dbt.channels.attempt`. Apprise is only here.

It reads a request from stdin and writes one line of JSON about it: no URL, no host, no word of the other side's. What
Apprise prints, logs, waits for or leaves running stays in this process and ends with it.
"""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import sys
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict
from urllib.parse import urlsplit

from dinmo_dbt.channels import incidents, markup
from dinmo_dbt.channels.fitting import one_message

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

SOCKET_SHARE = 0.7  # of the attempt's limit: a channel that says nothing is told apart from one that says too much

# What follows stands in Apprise's own log lines: "error=404" of an HTTP reply, "(535, b'...')" of an SMTP server's.
_HTTP = re.compile(r"\berror=([1-5][0-9]{2})\b")
_SMTP = re.compile(r"\(([45][0-9]{2}), b['\"]")
_SIGNS = (
    (r"CERTIFICATE_VERIFY_FAILED|SSLCertVerification", "its certificate is not trusted"),
    (r"Connection refused", "nothing listens at its address"),
    (r"name resolution|Name or service not known|nodename nor servname|getaddrinfo", "its host name leads nowhere"),
    (r"timed out", "no answer in time"),
    (r"Connection aborted|reset by peer|Remote end closed|unexpectedly closed", "it closed the connection"),
    (r"unreachable", "there is no way to its network"),
)
_TRY_LATER = (408, 425, 429)  # RFC 9110 15.5.9, RFC 8470, RFC 6585: the same request may pass at another time
# Services whose own URLs Apprise knows. One that it does not know is mistyped, not a webhook of another kind.
_OWN_URLS = re.compile(r"hooks\.slack(-gov)?\.com|discord(app)?\.com|(.+\.)?webhook\.office\.com|outlook\.office\.com")


class Sent(TypedDict):
    """A notice as text. `incident`: what it is about, its id where it says nothing of that. `stands`: it tells of an
    end, after which more of that incident goes on."""

    id: str
    severity: str
    title: str
    body: str
    incident: NotRequired[str]
    stands: NotRequired[bool]


class AttemptRequest(TypedDict):
    """Without a notice it is only asked whether the URL is understood."""

    url: str
    limit_s: int
    notice: NotRequired[Sent]


class AttemptResult(TypedDict):
    """`kind`: Apprise's name for the service (`slack`), '' for a URL that is not understood. `passing`: it may go
    another time. `reason`: why it did not go, in our words."""

    kind: str
    sent: bool
    passing: bool
    reason: str


def main() -> None:
    request: AttemptRequest = json.load(sys.stdin)
    # Also when nobody waits any more: the default action of SIGALRM ends the process.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(request["limit_s"])
    os.environ["NETRC"] = os.devnull  # or requests would send the password of a .netrc along
    answered, sys.stdout = sys.stdout, sys.stderr
    answered.write(json.dumps(answer(request)) + "\n")
    answered.flush()
    os._exit(0)  # not waiting for a thread that a service may have left


def answer(request: AttemptRequest) -> AttemptResult:
    """Whether the URL is understood and, with a notice, what became of it."""
    lines = _Lines()
    logging.basicConfig(handlers=[lines], level=logging.DEBUG, force=True)
    import apprise

    asset = apprise.AppriseAsset(
        app_id="dinmo-dbt",
        app_desc="dinmo-dbt",
        image_url_mask="",  # no picture from Apprise's pages
        image_url_logo="",
        image_path_mask=False,
        plugin_paths=[],  # no code from a folder of the user's
        storage_mode="memory",  # nothing on disk
        pgp_autogen=False,
        pem_autogen=False,
        http_redirects=False,  # a POST that is redirected becomes a GET, which succeeds and delivers nothing
        async_mode=False,
        service_timeout=0,  # this process has a limit
        default_service_retry=0,  # the caller counts the attempts
        interpret_escapes=False,
        interpret_emojis=False,
        secure_logging=True,
    )
    notice = request.get("notice")
    parsed = apprise.plugins.url_to_dict(request["url"], secure_logging=True)
    kind = str(parsed["schema"]) if parsed else "webhook"
    read = parsed or _webhook(request["url"], notice)
    if parsed:
        parsed.pop("format", None)  # what is sent is plain text
    if parsed and notice:
        incidents.name(parsed, notice.get("incident") or notice["id"])
    service = apprise.Apprise.instantiate(read, asset=asset) if read else None
    if service is None:
        reason = _not_understood(request["url"], lines.messages)
        return {"kind": "", "sent": False, "passing": False, "reason": reason}
    if notice is None:
        return {"kind": kind, "sent": False, "passing": False, "reason": ""}
    incidents.reach(kind, service)
    service.socket_connect_timeout = service.socket_read_timeout = request["limit_s"] * SOCKET_SHARE
    service.verify_certificate = True  # no part of a URL turns that off
    shown, type_ = markup.of(kind, service), _TYPES[notice["severity"]]
    if incidents.keeps(request["url"]) is incidents.Keeps.INCIDENTS and notice.get("stands", False):
        type_ = "info"

    def notify(title: str, body: str) -> bool:
        return bool(
            apprise.Apprise(service, asset=asset).notify(
                title=shown.title(title),
                body=shown.body(body),
                notify_type=type_,
                body_format=shown.declared,
                interpret_escapes=False,
            )
        )

    title, body = _within(notice, service, kind, notify)
    lines.messages.clear()
    result = notify(title, body)
    if result:
        return {"kind": kind, "sent": True, "passing": False, "reason": ""}
    passing, reason = _why(lines.messages)
    return {"kind": kind, "sent": False, "passing": passing, "reason": reason}


def _within(notice: Sent, service: Any, kind: str, notify: Callable[[str, str], bool]) -> tuple[str, str]:
    """Title and text, cut so that the service takes them as one message: what Apprise would make of them is looked at
    before anything is sent."""
    limit = min(service.title_maxlen, _TITLE_MAX.get(kind, service.title_maxlen))
    title, body = notice["title"], notice["body"]
    if 0 < limit < len(title):
        title, body = f"{title[: limit - 3]}...", f"{title}\n\n{body}"

    def fits(text: str) -> bool:
        made: list[dict[str, Any]] = []

        def take(**message: Any) -> bool:
            made.append(message)
            return True

        service.send = take
        notify(title, text)
        lines = service.body_max_line_count or len(text.splitlines())
        size = sum(len(json.dumps(message["body"])) for message in made)
        return len(made) == 1 and len(text.splitlines()) <= lines and size <= _BYTES_MAX.get(kind, size)

    send, service.overflow_mode = service.send, "split"
    text = one_message(body, f"id {notice['id']}", fits)
    service.send, service.overflow_mode = send, "truncate"  # never more than one, whatever comes
    return title, text


# Where Apprise's own limits are not the service's: of ntfy's messages (https://docs.ntfy.sh/publish/#limitations), as
# JSON, of which Apprise makes a file where it is long; and of the titles of alerts, whose rest Apprise drops.
_BYTES_MAX = {"ntfy": 4096, "ntfys": 4096}
_TITLE_MAX = {"opsgenie": 130, "jira": 130}

# Apprise's notify types, by our severities.
_TYPES = {"critical": "failure", "warning": "warning", "recovered": "success", "info": "info"}


class _Lines(logging.Handler):
    """What was logged, kept and shown to nobody: it may hold URLs."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


def _webhook(url: str, notice: Sent | None) -> dict[str, Any] | None:
    """A plain http or https URL as Apprise's JSON webhook; its query stays one, whatever Apprise would read in it."""
    try:
        parts, port = urlsplit(url), urlsplit(url).port
    except ValueError:
        return None
    if parts.scheme not in ("http", "https") or not parts.hostname or _OWN_URLS.fullmatch(parts.hostname):
        return None
    return {
        "schema": "jsons" if parts.scheme == "https" else "json",
        "host": f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname,
        "port": port,
        "user": parts.username,
        "password": parts.password,
        "fullpath": (parts.path or "/") + (f"?{parts.query}" if parts.query else ""),
        "payload": {name: text for name, text in (notice or {}).items() if name in ("id", "incident")},
    }


def _not_understood(url: str, lines: Sequence[str]) -> str:
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:
        host = ""
    if any("disabled on this system" in line for line in lines):
        return "this service needs a package, or a system, that is not here"
    if host.endswith("office.com"):
        return "webhooks of Office 365 connectors are not served: make one with Workflows in Teams"
    if _OWN_URLS.fullmatch(host):
        return "a webhook URL of this service has more parts, or other ones: copy it again, whole"
    return "it is neither a webhook's https:// URL nor an Apprise URL"


def _why(lines: Sequence[str]) -> tuple[bool, str]:
    """From what Apprise logged of a failure: whether it may pass, and the reason in our words."""
    text = "\n".join(lines)
    if found := _HTTP.search(text):
        status = int(found[1])
        return status >= 500 or status in _TRY_LATER, f"it answered with HTTP status {status}"
    if found := _SMTP.search(text):
        return found[1].startswith("4"), f"the mail server answered with code {found[1]}"
    for sign, reason in _SIGNS:
        if re.search(sign, text, re.IGNORECASE):
            return True, reason
    return True, "it can't be reached, or did not take it"


if __name__ == "__main__":
    main()
