"""The embedded org: `{org: emulator}` as a child process for as long as a command needs it."""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from dinmo_dbt.codes import EMULATOR_NOT_STARTED
from dinmo_dbt.config.project import EmulatorConfig
from dinmo_dbt.durable import read_file
from dinmo_dbt.errors import DestinationError, Interrupted
from dinmo_dbt.org import Credentials, Org, Secret

START_MAX_S = 60.0


class EmbeddedOrg:
    """The emulator of the project's data folder, for one command: every `{org: emulator}` destination is this org.

    A standing `emulator serve` of the same folder is used as it is; otherwise a child serves it on a free loopback
    port until `close`, or until this process dies: it stops when its stdin closes. Starting does not wait for it.
    """

    def __init__(self, config: EmulatorConfig) -> None:
        self._known = _standing(config.data)
        self._child = None if self._known else _start(config)
        self._asking = threading.Lock()

    def address(self, org: Org) -> Org:
        """`org` with the emulator's address and token. DestinationError DB630 if it did not start."""
        with self._asking:
            if self._known is None:
                assert self._child is not None
                try:
                    self._known = _announced(self._child)
                except Interrupted:
                    self._child.kill()  # it looks at its stdin only when it serves
                    raise
        credentials = Credentials(
            flow="access_token",
            instance_url=self._known["instance_url"],
            access_token=Secret(self._known["access_token"]),
        )
        return Org(org.destination, org.target, credentials, self._known["organization_id"], org.api_share)

    def close(self) -> None:
        if self._child is not None:
            stop(self._child)


def sources(config: EmulatorConfig) -> tuple[Path | None, Path | None]:
    """Schema and starting records of the org. The usual folders need not be there; what dinmo.yml names must, and the
    org says so."""
    return (
        config.schema if "schema" in config.named or config.schema.exists() else None,
        config.records if "records" in config.named or config.records.exists() else None,
    )


def _start(config: EmulatorConfig) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "dinmo_dbt", "emulator", "serve", "--port", "0", "--json", "--exit-with-stdin"]
    command += ["--private", "--data", str(config.data)]
    for flag, path in zip(("--schema", "--records"), sources(config), strict=True):
        command += [flag, str(path)] if path else []
    # A session of its own: a Ctrl-C in the terminal reaches this process, which ends the child in its own time.
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )


def stop(child: subprocess.Popen[bytes]) -> None:
    """End a server that was started with --exit-with-stdin, and wait for it."""
    assert child.stdin is not None
    child.stdin.close()
    try:
        child.wait(timeout=15)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
    for pipe in (child.stdout, child.stderr):
        if pipe is not None:
            pipe.close()


def _announced(child: subprocess.Popen[bytes]) -> dict[str, Any]:
    assert child.stdout is not None
    assert child.stderr is not None
    with selectors.DefaultSelector() as selector:  # select() takes no file descriptor above 1,023
        selector.register(child.stdout, selectors.EVENT_READ)
        ready = selector.select(START_MAX_S)
    line = child.stdout.readline() if ready else b""
    if not line:
        child.kill()
        message = child.stderr.read().decode(errors="replace").strip()
        raise DestinationError(
            EMULATOR_NOT_STARTED, message or "the embedded emulator did not start", where="org: emulator"
        )
    announced: dict[str, Any] = json.loads(line)
    return announced


def _standing(data: Path) -> dict[str, Any] | None:
    """What a standing server of that folder wrote about itself, if it still lives."""
    try:
        server: dict[str, Any] = json.loads(read_file(data / "server.json"))
        os.kill(server["pid"], 0)
        known = [server[key] for key in ("instance_url", "access_token", "organization_id")]
        standing = server["standing"] is True and all(isinstance(text, str) for text in known)
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
        return None
    return server if standing else None
