"""A dbt project whose warehouse is a stand-in, with a Salesforce org of its own; dbt and dinmo-dbt come from the
environment of the warehouse's adapter."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from e2e.lab import DINMO, Lab, Org, Ran, environment, hear_interrupts, object_files

from .environments import Environment

START_S = 120
COMMAND_S = 900


@dataclass(frozen=True)
class Shop:
    root: Path
    environment: Environment

    def write(self, files: dict[str, str]) -> None:
        for path, text in files.items():
            (self.root / path).parent.mkdir(parents=True, exist_ok=True)
            (self.root / path).write_text(text, encoding="utf-8")

    def dbt(self, *arguments: str) -> str:
        done = self._run("dbt", *arguments)
        assert done.code == 0, done.all
        return done.out

    def build(self, **models: str) -> None:
        self.write({f"models/{name}.sql": sql + "\n" for name, sql in models.items()})
        self.dbt("build")

    def run(self, *arguments: str) -> Ran:
        done = self._run("dinmo-dbt", *arguments)
        assert "Traceback" not in done.all and "DB900" not in done.all, done.all
        return done

    def declare(self, model: str, **meta: Any) -> None:
        """What `config.meta.dinmo` of the model says from now on, as `dbt parse` would write it."""
        path = self.root / "target" / "manifest.json"
        manifest = json.loads(path.read_text(encoding="utf-8"))
        node = manifest["nodes"][f"model.shop.{model}"]
        node["config"]["meta"] = node["meta"] = {"dinmo": meta}
        path.write_text(json.dumps(manifest), encoding="utf-8")

    @contextlib.contextmanager
    def started(self, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        """A command that the test ends; one that still runs then is killed."""
        child = subprocess.Popen(
            [str(self.environment.program("dinmo-dbt")), *arguments], cwd=self.root, env=environment(),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            preexec_fn=hear_interrupts,
        )  # fmt: skip
        try:
            yield child
        finally:
            child.kill()
            child.communicate()

    def python(self, script: str) -> str:
        """What a script prints that runs where the commands do."""
        done = self._run("python", "-c", script)
        assert done.code == 0, done.all
        return done.out

    @contextlib.contextmanager
    def org(self) -> Iterator[Org]:
        with Lab(self.root).serve() as org:
            yield org

    def _run(self, program: str, *arguments: str) -> Ran:
        done = subprocess.run(
            [str(self.environment.program(program)), *arguments], cwd=self.root, env=environment(),
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=COMMAND_S, check=False,
        )  # fmt: skip
        return Ran(done.returncode, done.stdout, done.stderr)


def project(output: dict[str, Any], models: dict[str, str], declared: list[dict[str, Any]]) -> dict[str, str]:
    """The files of a dbt project whose one target is `output`."""
    return {
        "dbt_project.yml": "name: shop\nversion: '1.0'\nprofile: shop\nmodels: {shop: {+materialized: table}}\n"
        "flags: {send_anonymous_usage_stats: false}\n",
        "profiles.yml": yaml.safe_dump({"shop": {"target": "dev", "outputs": {"dev": output}}}),
        "dinmo.yml": DINMO,
        "models/models.yml": json.dumps({"version": 2, "models": declared}),
        **{f"models/{name}.sql": sql + "\n" for name, sql in models.items()},
    }


def org_files(objects: dict[str, dict[str, str]], records: dict[str, str]) -> dict[str, str]:
    files = {f"emulator_records/{name}.csv": text for name, text in records.items()}
    for name, fields in objects.items():
        files |= object_files(name, fields)
    return files


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextlib.contextmanager
def serving(command: list[str], port: int, log: Path) -> Iterator[None]:
    """A server's process for as long as this lasts, from when its port answers."""
    with log.open("wb") as out:
        child = subprocess.Popen(
            command, stdout=out, stderr=subprocess.STDOUT, env=environment(), start_new_session=True
        )
    try:
        deadline = time.monotonic() + START_S
        while not answers(port):
            assert child.poll() is None, log.read_text(errors="replace")
            assert time.monotonic() < deadline, log.read_text(errors="replace")
            time.sleep(0.2)
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False
