"""An org that the Salesforce CLI is logged in to: its address and a session, asked of `sf` each time.

Sources: Salesforce CLI Command Reference, `org auth show-access-token` (which renews the session first), `org display`
(which has shown no token since May 2026) and `org list auth`; each with --json answers `{"status", "result"}`, or
`{"status", "name", "message"}`. Of an answer nothing is passed on but names of orgs and of errors: it holds the token.
"""

from __future__ import annotations

import json
import os
import re
import selectors
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from dinmo_dbt.codes import NO_CLI_SESSION
from dinmo_dbt.config.declaration import show
from dinmo_dbt.errors import AuthError
from dinmo_dbt.org import Secret

SECONDS_MAX = 60.0  # of one command; `sf` takes about two
_BYTES_MAX = 4 << 20
_LOOK_S = 0.2
_NAMES_MAX = 10
# A session's token; what stands in its place where `sf` hides it has spaces.
_TOKEN = re.compile(r"00D[A-Za-z0-9]{12,15}![\x21-\x7e]{10,4000}")
_NO_ORG = ("NamedOrgNotFoundError", "NoAuthInfoFound", "AuthInfoCreationError", "NoDefaultEnvError", "NoUsernameFound")


def session(name: str, env: Mapping[str, str], pause: Callable[[float], None]) -> tuple[str, Secret, str]:
    """Instance URL, session token and username of the org with that alias or username; '' for the only one there is.

    AuthError DB615 if `sf` is not on the PATH of `env`, knows no such org, does not answer in `SECONDS_MAX`, or answers
    with no session. `pause(0)` is called while it works, and may raise.
    """
    sf = Cli(shutil.which("sf", path=env.get("PATH", "")) or "", env, pause)
    if not sf.path:
        raise _error("there is no `sf` on the PATH", "install the Salesforce CLI: npm install --global @salesforce/cli")
    name = name or _only_org(sf)
    shown = _result(sf, ("org", "display", "--target-org", name), name)
    url, username = (shown.get(key) if isinstance(shown, dict) else None for key in ("instanceUrl", "username"))
    if not isinstance(url, str):
        raise _error(f"`sf org display` does not say where org {show(name)} is", _LOG_IN.format(name=name))
    given = _result(sf, ("org", "auth", "show-access-token", "--target-org", name), name)
    token = given.get("accessToken") if isinstance(given, dict) else None
    if not isinstance(token, str) or not _TOKEN.fullmatch(token):
        raise _error(f"`sf org auth show-access-token` gave no token of org {show(name)}", _UPDATE)
    return url, Secret(token), username if isinstance(username, str) else ""


_LOG_IN = "log in: sf org login web --alias {name}"
_UPDATE = "update the Salesforce CLI: sf update, or npm install --global @salesforce/cli"


@dataclass(frozen=True, slots=True)
class Cli:
    """The program, the environment it runs in, and what is called while it works."""

    path: str
    env: Mapping[str, str]
    pause: Callable[[float], None]


def _only_org(sf: Cli) -> str:
    listed = _result(sf, ("org", "list", "auth"), "")
    names = []
    for org in listed if isinstance(listed, list) else []:
        aliases = org.get("aliases") if isinstance(org, dict) else None
        known = [org.get("alias"), *(aliases if isinstance(aliases, list) else []), org.get("username")] if org else []
        names += [next(text for text in known if text)] if any(isinstance(t, str) and t for t in known) else []
    if not names:
        raise _error("the Salesforce CLI is logged in to no org", "log in: sf org login web --alias NAME")
    if len(names) > 1:
        listed_names = ", ".join(show(name) for name in sorted(names)[:_NAMES_MAX])
        message = f"the Salesforce CLI is logged in to {len(names)} orgs: {listed_names}"
        raise _error(message, "say which in dinmo.yml: auth: {flow: sf_cli, alias: NAME}, or username: ...")
    return str(names[0])


def _result(sf: Cli, words: Sequence[str], name: str) -> Any:
    command = f"`sf {' '.join(words[:3] if words[1] == 'auth' else words[:2])}`"
    text, code = _run(sf, words, command)
    try:
        answer = json.loads(text[max(0, text.find("{")) :])  # some versions print warnings before it
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict):
        raise _error(f"{command} answered with no JSON (exit code {code})", f"try it in a terminal; {_UPDATE}")
    if code == 0 and answer.get("status", 0) == 0 and "result" in answer:
        return answer["result"]
    raise _refusal(command, answer, name, code)


def _refusal(command: str, answer: Mapping[str, Any], name: str, code: int) -> AuthError:
    kind = answer.get("name")
    kind = kind if isinstance(kind, str) and re.fullmatch(r"[A-Za-z_]{1,60}", kind) else "an unknown error"
    if kind in _NO_ORG:
        return _error(f"the Salesforce CLI is not logged in to org {show(name)} ({kind})", _LOG_IN.format(name=name))
    if code == 127 or "command" in kind.lower():
        return _error(f"this Salesforce CLI does not know {command}", _UPDATE)
    return _error(f"{command} failed: {kind} (exit code {code})", "try it in a terminal: it says why there")


def _run(sf: Cli, words: Sequence[str], command: str) -> tuple[str, int]:
    """What it wrote to stdout, and its exit code. Its whole group is ended when its time is up, or ours is."""
    quiet = {"SF_AUTOUPDATE_DISABLE": "true", "NO_COLOR": "1", "FORCE_COLOR": "0"}
    try:
        child = subprocess.Popen(
            [sf.path, *words, "--json"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**sf.env, **quiet},
            start_new_session=True,
        )
    except OSError as fault:
        raise _error(f"`sf` can't be run: {fault.strerror}", _UPDATE) from None
    try:
        text = _read(child, command, sf.pause)
        return text.decode("utf-8", "replace"), child.wait(timeout=5)
    except subprocess.TimeoutExpired:
        raise _late(command) from None
    finally:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        if child.stdout is not None:
            child.stdout.close()


def _read(child: subprocess.Popen[bytes], command: str, pause: Callable[[float], None]) -> bytes:
    assert child.stdout is not None
    end, text = time.monotonic() + SECONDS_MAX, bytearray()
    with selectors.DefaultSelector() as selector:
        selector.register(child.stdout, selectors.EVENT_READ)
        while time.monotonic() < end:
            pause(0)
            if not selector.select(_LOOK_S):
                continue
            piece = os.read(child.stdout.fileno(), 1 << 16)
            if not piece:
                return bytes(text)
            text += piece
            if len(text) > _BYTES_MAX:
                raise _error(f"{command} answered with more than {_BYTES_MAX:,} bytes", _UPDATE)
    raise _late(command)


def _late(command: str) -> AuthError:
    return _error(
        f"{command} did not answer within {SECONDS_MAX:g} seconds", "try it in a terminal: does it ask a question?"
    )


def _error(message: str, advice: str) -> AuthError:
    return AuthError(NO_CLI_SESSION, message, hint=advice)
