"""How processes end that read a warehouse: `python ending.py FOLDER READER TIMES`, in the folder of a dbt project.

One child after the other, forked from a process that has imported all there is, goes one of `WAYS` through table `t` by
READER and ends as a command does. Printed: how often each ending came of each way, such as `{"whole": {"0": 200}}`; a
child that is ended by a signal counts as its negative number, one that still runs after a minute as `late`.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from collections import Counter
from pathlib import Path

import duckdb  # noqa: F401 - in the parent, so that no child pays for it
import psycopg2  # noqa: F401
import pyarrow.csv  # noqa: F401
from dbt.adapters.duckdb import environments  # noqa: F401
from dbt.adapters.postgres.connections import PostgresConnectionManager  # noqa: F401
from dbt.config.profile import Profile  # noqa: F401

from dinmo_dbt.errors import WarehouseError
from dinmo_dbt.warehouse import connect, connection
from dinmo_dbt.warehouse.dbapi import DbApi

WAYS = ("whole", "early", "unstarted", "refused", "broken", "raised", "unclosed")


class ConsumerFailed(Exception):
    """Something of ours that went wrong while rows were read."""


def go(folder: Path, way: str) -> None:
    warehouse = connect(folder, profiles_dir=None, profile=None, target=None, vars={}, env=dict(os.environ))
    if way == "unclosed":
        next(warehouse.read("t", ["a", "b"], None))
        return
    with warehouse:
        if way == "refused":
            with contextlib.suppress(WarehouseError):
                list(warehouse.read("t", ["a", "b"], "cast(b as integer) < 99"))
            return
        rows = warehouse.read("t", ["a", "b"], None)
        if way == "whole":
            assert sum(batch.num_rows for batch in rows) == 60_000
        elif way == "early":
            next(rows)
            rows.close()  # type: ignore[attr-defined]
        elif way == "broken":
            next(rows)  # and whoever reads goes on to the end of the command
        elif way == "raised":
            try:
                for _ in rows:
                    raise ConsumerFailed
            except ConsumerFailed:
                return


def ended(pid: int) -> str:
    began = time.monotonic()
    while time.monotonic() - began < 60:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return str(os.waitstatus_to_exitcode(status))
        time.sleep(0.002)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return "late"


def main() -> None:
    folder, reader, times = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    if reader == "dbapi":
        connection._engine = lambda adapter_type, writes: DbApi  # type: ignore[assignment, return-value]
    counted: dict[str, Counter[str]] = {way: Counter() for way in WAYS}
    for way in WAYS:
        for _ in range(times):
            child = os.fork()
            if not child:
                go(folder, way)
                return
            counted[way][ended(child)] += 1
    print(json.dumps(counted))


if __name__ == "__main__":
    main()
