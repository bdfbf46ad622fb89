"""How plain text is written for a service that reads markup in it, so that a name or a command is shown, and copied, as
it is.

In a code block where the service has one: nothing in it is read as anything else. What each service reads is in its own
documentation; docs/warnings.md lists what goes out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from typing import Any


@dataclass(frozen=True, slots=True)
class Markup:
    """`declared`: the format that Apprise converts from; None: it converts nothing."""

    title: Callable[[str], str]
    body: Callable[[str], str]
    declared: str | None


def _same(text: str) -> str:
    return text


def _block(text: str) -> str:
    """Only three backticks end it."""
    return "```\n" + text.replace("```", "'''") + "\n```"


def _inline(text: str) -> str:
    return "`" + text.replace("`", "'") + "`"


def _preformatted(text: str) -> str:
    return f"<pre>{escape(text, quote=False)}</pre>"


_PLAIN = Markup(_same, _same, "text")
_AS_IT_IS = Markup(_same, _same, None)
_BLOCK = Markup(_inline, _block, None)
_TITLED_BLOCK = Markup(_same, _block, None)  # the title is a field of its own, and plain

# By the schema of Apprise's URL: what Apprise takes for plain text, or does not make right.
_OF = {
    "discord": _BLOCK,
    "guilded": _BLOCK,
    "fluxer": _BLOCK,
    "fluxers": _BLOCK,
    "revolt": _TITLED_BLOCK,
    "mmost": _BLOCK,
    "mmosts": _BLOCK,
    "zulip": _TITLED_BLOCK,
    "tgram": Markup(escape, _preformatted, "html"),
}


def of(kind: str, service: Any) -> Markup:
    """The markup of a service of Apprise's, which is made to send it."""
    if kind == "slack" and service.mode in ("hook", "gov-hook", "bot"):
        _read_by_slack(service)
        return Markup(_same, _block, "markdown")  # Apprise escapes &, < and >
    if kind in ("workflow", "workflows"):
        _as_text_runs(service)
        return _AS_IT_IS
    if kind in _OF:
        return _OF[kind]
    if service.notify_format == "markdown":  # and nothing else
        return _TITLED_BLOCK if service.title_maxlen else _BLOCK
    return _PLAIN


def _read_by_slack(service: Any) -> None:
    """Slack reads markup in an attachment's text where `mrkdwn_in` says so."""
    post = service._send

    def send(url: str, payload: Any, *others: Any, **more: Any) -> Any:
        if isinstance(payload, dict):
            for attachment in payload.get("attachments") or ():
                attachment["mrkdwn_in"] = ["text"]
        return post(url, payload, *others, **more)

    service._send = send
    if service.use_blocks:  # https://docs.slack.dev/reference/block-kit/blocks: a section's text, a header's
        service.body_maxlen, service.title_maxlen = 3000, 150


def _as_text_runs(service: Any) -> None:
    """Cards read Markdown in a TextBlock, and none in a TextRun; a line each, for a TextRun is one line."""
    make = service.gen_payload

    def payload(body: str, title: str = "", **more: Any) -> Any:
        made = make(body, title, **more)
        if made and not service.template:
            for attachment in made["attachments"]:
                card = attachment["content"]
                card["body"] = [block for element in card["body"] for block in _runs(element)]
                card["msteams"] = {"width": "full"}  # <at> in a text mentions nobody
        return made

    service.gen_payload = payload


def _runs(element: dict[str, Any]) -> list[dict[str, Any]]:
    if element["type"] != "TextBlock":
        return [element]
    title = element["id"] == "title"
    how = {"weight": "Bolder", "size": "Large"} if title else {"fontType": "Monospace"}
    return [
        {
            "type": "RichTextBlock",
            "spacing": "Default" if title or number == 0 else "None",
            "inlines": [{"type": "TextRun", "text": line or " ", **how}],
        }
        for number, line in enumerate(element["text"].splitlines())
    ]
