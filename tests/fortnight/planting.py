"""Plant faults of one line in a copy of our code, and see whether a fortnight finds each.

python -m fortnight.planting                 every fault of planted/, at most 10 seeds of two days each
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from simulation import planting
from simulation.planting import ROOT, Planted

HERE = Path(__file__).parent
DAYS = 2.0


def every() -> list[Planted]:
    return planting.every(HERE / "planted")


def found(planted: Planted, seeds: int) -> str | None:
    """The first seed that breaks with the fault planted, and what it breaks; None if none does."""
    with tempfile.TemporaryDirectory() as name:
        planted.plant(Path(name))
        done = subprocess.run(
            [
                *(sys.executable, "-m", "fortnight", "--stop"),
                *("--seeds", str(seeds), "--days", str(DAYS), "--fewer", "2"),
            ],
            cwd=ROOT / "tests",
            env={**os.environ, "PYTHONPATH": name},
            capture_output=True,
            text=True,
            check=False,
        )
    assert (done.returncode == 1) == (" BROKEN " in done.stdout), done.stderr
    said = re.search(r"^seed (\d+)\n.* BROKEN (.*)", done.stdout, re.MULTILINE)
    return f"seed {said[1]}: {said[2]}" if said else None


def main() -> int:
    return planting.tell(__doc__, every(), found, seeds=10)


if __name__ == "__main__":
    sys.exit(main())
