"""Play many histories, or one that is told.

python -m simulation --seeds 1000             seeds 0 to 999, on all cores
python -m simulation --seed 17                one history, line by line
python -m simulation --state postgres         all with their state in a Postgres server, which it starts; or in a bucket
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
from postgres_server import Postgres, running, server_programs

from dinmo_dbt.delivery.run import Status

from .auditor import Broken
from .history import History
from .org import SimulatedOrg

_MEMORY = Path("/dev/shm")
_PART = 5
_GARBAGE = (50_000, 20, 100)  # a history makes much that lasts, which the collector would look through in vain
STATE = "where all histories keep their state; without it that is drawn, and is a folder or a DuckDB file"
_org: SimulatedOrg


def begin(folder: str, state: str = "", server: Postgres | None = None) -> None:
    """In a process that is to play: its one org, in a folder of its own."""
    global _org
    pa.set_cpu_count(1)  # each core has histories of its own, and none has rows enough for two
    _org = SimulatedOrg(Path(tempfile.mkdtemp(dir=folder)), state, server)
    gc.freeze()
    gc.set_threshold(*_GARBAGE)


def part(seeds: range) -> tuple[list[tuple[int, str]], Counter[str]]:
    """`played` in the org of this process."""
    return played(_org, seeds)


def played(org: SimulatedOrg, seeds: range) -> tuple[list[tuple[int, str]], Counter[str]]:
    """Seeds that broke something, with what; and what they met, how often."""
    broken, met = [], Counter[str]()
    for seed in seeds:
        history = History(org, seed)
        try:
            history.play()
        except Broken as error:
            broken.append((seed, str(error)))
        except Exception as error:  # noqa: BLE001 (a defect of ours ends a run too)
            where = traceback.extract_tb(error.__traceback__)[-1]
            broken.append((seed, f"{type(error).__name__}: {error} ({Path(where.filename).name}:{where.lineno})"))
        met += history.met
    return broken, met


def told(seed: int, state: str) -> int:
    with _folder() as folder, _server(state) as server:
        history = History(SimulatedOrg(Path(folder), state, server), seed)
        try:
            history.play()
        except Broken as error:
            history.told.append(f"BROKEN {error}")
        print(f"seed {seed}", *history.told, sep="\n")
        history.org.close()
    return int(history.told[-1].startswith("BROKEN"))


@contextmanager
def _server(state: str) -> Iterator[Postgres | None]:
    if state != "postgres":
        yield None
        return
    programs = server_programs()
    if programs is None:
        raise SystemExit("no Postgres server on this machine: install the `postgresql` package")
    with running(programs) as server:
        yield server


def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(dir=_MEMORY if _MEMORY.is_dir() else None)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--stop", action="store_true", help="stop at the first part that breaks")
    parser.add_argument("--state", choices=("folder", "duckdb", "postgres", "bucket"), default="", help=STATE)
    given = parser.parse_args()
    if given.seed is not None:
        return told(given.seed, given.state)
    began = time.perf_counter()
    end = given.first + given.seeds
    parts = [range(start, min(start + _PART, end)) for start in range(given.first, end, _PART)]
    broken: list[tuple[int, str]] = []
    met: Counter[str] = Counter()
    with (
        _folder() as folder,
        _server(given.state) as server,
        ProcessPoolExecutor(os.cpu_count(), initializer=begin, initargs=(folder, given.state, server)) as pool,
    ):
        for found, ends in pool.map(part, parts):
            for seed, what in found:
                print(f"seed {seed}: {what}", flush=True)
            broken += found
            met += ends
            if broken and given.stop:
                pool.shutdown(cancel_futures=True)
                break
    spent = time.perf_counter() - began
    print(f"{given.seeds} seeds in {spent:.0f} s = {given.seeds / spent:.1f}/s, {len(broken)} broken")
    print(*covered(met), sep="\n")
    return int(bool(broken))


def covered(met: Counter[str]) -> list[str]:
    """What the histories met, and how often: a line a kind."""
    lines: dict[str, list[str]] = {"what happened": [], "calls": [], "disks": [], "killed at": [], "runs ended": []}
    kinds = {"fault": "calls", "disk": "disks", "killed": "killed at"}
    for name, count in met.most_common():
        first, _, rest = name.partition(" ")
        is_end = name.startswith("DB") or name in set(Status)
        kind = kinds.get(first, "what happened") if rest else "runs ended" if is_end else "what happened"
        lines[kind].append(f"{name if kind in ('what happened', 'runs ended') else rest} {count}")
    return [f"{kind}: {', '.join(each)}" for kind, each in lines.items()]


if __name__ == "__main__":
    sys.exit(main())
