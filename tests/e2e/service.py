"""`dinmo-dbt serve` as a process of its own: what it says while it runs, and what it answers."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import json_documents
import requests

from .lab import Lab, until

HURRIED = str(Path(__file__).with_name("hurried.py"))
QUICK = (HURRIED, "0.3", "1", "1")  # seconds between watches, between looks, and after a look that failed


class Service:
    """One start of it."""

    def __init__(self, lab: Lab, *arguments: str, by: tuple[str, ...] = QUICK, **variables: str) -> None:
        self.child = lab.start("serve", "--port", "0", *arguments, by=by, **variables)
        self.lines: list[str] = []  # of both streams
        self._readers = [
            threading.Thread(target=self._read, args=(pipe,), daemon=True)
            for pipe in (self.child.stdout, self.child.stderr)
        ]
        for reader in self._readers:
            reader.start()
        self.url = self.says(" at http").split(" at ")[1].split(",")[0]

    def _read(self, pipe: IO[str] | None) -> None:
        assert pipe is not None
        for line in pipe:
            self.lines.append(line.rstrip("\n"))

    @property
    def all(self) -> str:
        return "\n".join(self.lines)

    def count(self, word: str) -> int:
        return sum(word in line for line in self.lines)

    def says(self, word: str, times: int = 1, *, seconds: float = 120.0) -> str:
        """Wait until it has said a word so often; the line that says it last."""
        until(lambda: self.count(word) >= times or self.child.poll() is not None, seconds=seconds)
        assert self.count(word) >= times, self.all
        return [line for line in self.lines if word in line][-1]

    def health(self) -> tuple[int, dict[str, Any]]:
        answer = requests.get(f"{self.url}/health", timeout=30)
        told = answer.json()
        json_documents.hold(told, "Health")
        return answer.status_code, told

    def end(self, number: int) -> tuple[int, float]:
        """Exit code, and the seconds it took to end after the signal: worth telling, and no measure of anything."""
        began = time.monotonic()
        os.kill(self.child.pid, number)
        code = self.child.wait(timeout=30)
        took = time.monotonic() - began
        for reader in self._readers:
            reader.join()
        for pipe in (self.child.stdout, self.child.stderr):
            assert pipe is not None
            pipe.close()
        assert "Traceback" not in self.all and "DB900" not in self.all, self.all
        return code, took


@contextmanager
def serving(lab: Lab, *arguments: str, by: tuple[str, ...] = QUICK, **variables: str) -> Iterator[Service]:
    """It, until the test is done with it; then it ends as asked."""
    service = Service(lab, *arguments, by=by, **variables)
    try:
        yield service
    except BaseException:
        print(service.all)
        if service.child.poll() is None:
            service.end(signal.SIGKILL)
        raise
    if service.child.poll() is None:
        assert service.end(signal.SIGTERM)[0] == 0, service.all
