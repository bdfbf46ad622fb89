"""The calls of a login: sent again on faults, and any other answer is for the caller to judge."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from dinmo_dbt import wire
from dinmo_dbt.codes import NO_ANSWER
from dinmo_dbt.errors import AuthError
from dinmo_dbt.org import LOOPBACK
from dinmo_dbt.salesforce.attempt import Line, NoSuchHost, Unreached
from dinmo_dbt.salesforce.pauses import ATTEMPTS_MAX
from dinmo_dbt.salesforce.replies import NotSent, json_or_none

TOLD_AFTER = 3
# A login to a host without a name ends within 10 seconds, with `wire.LOOKUP_SECONDS_MAX` for a look-up.
NAME_ATTEMPTS_MAX = 3
NAME_AGAIN_WITHIN_S = 1.5
_NAME_HINT = "is login_url right? Setup -> My Domain. Does this machine find other names (VPN, DNS, proxy)?"


def ask(
    line: Line,
    method: str,
    url: str,
    headers: Mapping[str, str],
    body: bytes | None,
    *,
    pause: Callable[[int], None],
    say: Callable[[str], None],
) -> tuple[int, Any]:
    """Status and JSON (None if the body isn't). `pause` is called with the number of each attempt that found none."""
    reason, advice, began = "", "", time.monotonic()
    for attempt in range(ATTEMPTS_MAX):
        if attempt == TOLD_AFTER:  # a first answer that is lost is nothing to speak of
            say(f"no answer from {urlsplit(url).hostname} ({reason}): asking again for a while")
        kind = {"Accept": "application/json"}
        try:
            status, text = line.answer(method, url, {**kind, **headers}, body)
            if 200 <= status < 500 and status not in (420, 429):
                return status, json_or_none(text)
            reason = f"HTTP {status}"
        except NoSuchHost as fault:
            reason, advice = str(fault), _NAME_HINT
            if attempt + 1 == NAME_ATTEMPTS_MAX or time.monotonic() - began > NAME_AGAIN_WITHIN_S:
                break
        except (NotSent, wire.Broken) as fault:
            reason = str(fault)
            advice = _reach_hint(url) if isinstance(fault, Unreached) else ""
        pause(attempt)
    raise AuthError(NO_ANSWER, f"no answer from {urlsplit(url).hostname}: {reason}", hint=advice)


def _reach_hint(url: str) -> str:
    """Why a host may give no connection, though its name is known or needs none."""
    if urlsplit(url).hostname in LOOPBACK:
        return "does it run? The local org: dinmo-dbt emulator serve"
    return "is login_url right? Does this machine reach the host (VPN, firewall)?"
