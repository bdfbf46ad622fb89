"""Play fortnights, and say what came of them.

python -m fortnight --seed 7                  one fortnight
python -m fortnight --seeds 10 --days 2       the first ten seeds, two days each, around the change of the clocks
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import traceback
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa

from .judge import Broken
from .play import Fortnight
from .world import DAYS, World

_MEMORY = Path("/dev/shm")
STORY = 20  # events before the break


def played(seed: int, days: float, fewer: int) -> tuple[Counter[str], list[str]]:
    """What the fortnight of that seed met, and the story around what it broke; [] if nothing."""
    with tempfile.TemporaryDirectory(dir=_MEMORY if _MEMORY.is_dir() else None) as folder:
        world = World(seed, Path(folder) / "world", days=days, fewer=fewer)
        fortnight = Fortnight(world)
        broken: list[str] = []
        try:
            fortnight.play()
        except Broken as error:
            broken = _story(world, str(error), error.at)
        except Exception as error:  # noqa: BLE001 (a defect of ours ends a fortnight too)
            where = traceback.extract_tb(error.__traceback__)[-1]
            broken = _story(world, f"{type(error).__name__}: {error} ({Path(where.filename).name}:{where.lineno})")
            broken += traceback.format_exc().splitlines()[-12:]
        return world.met + fortnight.judge.counts, broken


def _story(world: World, what: str, until: float | None = None) -> list[str]:
    """What is broken, and what happened to its activation before that."""
    name = next((name for name in world.by_name if name in what), "")
    told = [(at, text) for at, text in world.story if name in text or not text.startswith(tuple(world.by_name))]
    told = [(at, text) for at, text in told if until is None or at <= until]
    return [f"{_at(world.now)} BROKEN {what}", *(f"  {_at(at)} {text}" for at, text in told[-STORY:])]


def _at(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%m-%d %H:%M:%SZ")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, help="one seed only")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--days", type=float, default=DAYS)
    parser.add_argument("--fewer", type=int, default=1, help="only every n-th of the 50 activations")
    parser.add_argument("--stop", action="store_true", help="stop at the first that breaks")
    given = parser.parse_args()
    seeds = [given.seed] if given.seed is not None else range(given.first, given.first + given.seeds)
    pa.set_cpu_count(1)  # no model has rows enough for two
    number, began, met = 0, time.perf_counter(), Counter[str]()
    for seed in seeds:
        found, broken = played(seed, given.days, given.fewer)
        met += found
        if broken:
            number += 1
            print(f"seed {seed}", *broken, sep="\n", flush=True)
            if given.stop:
                break
    for line in told(met):
        print(line)
    print(f"{len(seeds)} seeds of {given.days:g} days in {time.perf_counter() - began:.0f} s, {number} broken")
    return int(number > 0)


def told(met: Counter[str]) -> list[str]:
    return [f"{name}: {count:,}" for name, count in sorted(met.items())]


if __name__ == "__main__":
    sys.exit(main())
