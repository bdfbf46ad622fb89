"""The embedded org: `{org: emulator}` as a child process for as long as a command needs it."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dinmo_dbt.errors import DestinationError
from dinmo_dbt.project import Credentials, EmulatorConfig, Org, Secret

START_MAX_S = 60.0


@contextmanager
def embedded(org: Org, config: EmulatorConfig) -> Iterator[Org]:
    """`org` with the address and token of the emulator that serves its data folder.

    A standing `emulator serve` of the same folder is used as it is; otherwise a child serves it on a free loopback
    port until the block ends, or until this process dies: it stops when its stdin closes.
    """
    standing = _standing(config.data)
    if standing:
        yield _addressed(org, standing)
        return
    command = [
        sys.executable,
        "-m",
        "dinmo_dbt",
        "emulator",
        "serve",
        "--port",
        "0",
        "--json",
        "--exit-with-stdin",
        "--private",
    ]
    command += ["--data", str(config.data), "--schema", str(config.schema), "--records", str(config.records)]
    # A session of its own: a Ctrl-C in the terminal reaches this process, which ends the child in its own time.
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    ) as child:
        try:
            yield _addressed(org, _announced(child))
        finally:
            assert child.stdin is not None
            child.stdin.close()
            try:
                child.wait(timeout=15)
            except subprocess.TimeoutExpired:
                child.kill()


def _announced(child: subprocess.Popen[bytes]) -> dict[str, Any]:
    assert child.stdout is not None
    assert child.stderr is not None
    ready, _, _ = select.select([child.stdout], [], [], START_MAX_S)
    line = child.stdout.readline() if ready else b""
    if not line:
        child.kill()
        told = child.stderr.read().decode(errors="replace").strip()
        raise DestinationError("DB630", told or "the embedded emulator did not start", where="org: emulator")
    announced: dict[str, Any] = json.loads(line)
    return announced


def _standing(data: Path) -> dict[str, Any] | None:
    """What a standing server of that folder wrote about itself, if it still lives."""
    try:
        told: dict[str, Any] = json.loads((data / "server.json").read_bytes())
        os.kill(told["pid"], 0)
    except (OSError, ValueError, KeyError):
        return None
    return told if told.get("standing") else None


def _addressed(org: Org, told: dict[str, Any]) -> Org:
    credentials = Credentials(
        flow="access_token", instance_url=told["instance_url"], access_token=Secret(told["access_token"])
    )
    return Org(org.destination, org.target, credentials, told["organization_id"], org.api_share)
