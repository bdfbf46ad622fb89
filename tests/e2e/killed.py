"""dinmo-dbt in a process that ends itself by SIGKILL at a point of its own: `python killed.py POINT ARGUMENT...`.

A point is `before X`, `after X` or `commit X` (inside X, when its transaction is about to be committed). X is a method
of the journal, with the state it advances to (`advance opened`), or a call of the system and the method that makes it
(`fsync in planned`), or of a state's bucket (`create in planned`). The first X counts.
"""

from __future__ import annotations

import fcntl
import os
import signal
import sqlite3
import sys
from pathlib import Path
from typing import Any

from dinmo_dbt.__main__ import main
from dinmo_dbt.objects import Bucket
from dinmo_dbt.state.journal import ActivationState

MOMENT, _, POINT = sys.argv.pop(1).partition(" ")
JOURNAL = ("begin", "planned", "advance", "settle", "abandon", "finish")
inside: list[str] = []


def die(moment: str, point: str) -> None:
    if (moment, point) == (MOMENT, POINT):
        os.kill(os.getpid(), signal.SIGKILL)


def journal(name: str) -> None:
    kept = getattr(ActivationState, name)

    def call(*given: Any, **named: Any) -> Any:
        point = f"{name} {given[2]}" if name == "advance" else name
        die("before", point)
        inside.append(point)
        try:
            result = kept(*given, **named)
        finally:
            inside.pop()
        die("after", point)
        return result

    setattr(ActivationState, name, call)


def system(owner: Any, name: str) -> None:
    kept = getattr(owner, name)

    def call(*given: Any, **named: Any) -> Any:
        point = f"{name} in {inside[-1]}" if inside else name
        die("before", point)
        result = kept(*given, **named)
        die("after", point)
        return result

    setattr(owner, name, call)


class DeadlyConnection(sqlite3.Connection):
    def execute(self, statement: str, *given: Any) -> Any:
        if statement == "COMMIT" and inside:
            die("commit", inside[-1])
        return super().execute(statement, *given)


def connect(*given: Any, **named: Any) -> sqlite3.Connection:
    return plain_connect(*given, **named, factory=DeadlyConnection)


plain_connect = sqlite3.connect
sqlite3.connect = connect  # type: ignore[assignment]
for method in JOURNAL:
    journal(method)
for owner, calls in ((os, "fsync"), (fcntl, "flock"), (Path, "rename unlink"), (Bucket, "create upload remove names")):
    for call in calls.split():
        system(owner, call)
main()
