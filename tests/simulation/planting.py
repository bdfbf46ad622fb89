"""Plant faults of one line in a copy of our code, and see whether the simulation finds each.

python -m simulation.planting                 every fault of planted/, at most 1,000 seeds each
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import yaml

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


@dataclass(frozen=True)
class Planted:
    """In `file`, `old` becomes `new`; `what` says what that means. `seeds`: how many it may take, where that is more
    than the command says."""

    name: str
    what: str
    file: str
    old: str
    new: str
    seeds: int = 0

    def plant(self, folder: Path) -> None:
        """Make `folder/dinmo_dbt` our package with this fault."""
        shutil.copytree(ROOT / "dinmo_dbt", folder / "dinmo_dbt", ignore=shutil.ignore_patterns("__pycache__"))
        text = (folder / self.file).read_text(encoding="utf-8")
        assert text.count(self.old) == 1, f"{self.name}: {self.file} has its place {text.count(self.old)} times"
        (folder / self.file).write_text(text.replace(self.old, self.new), encoding="utf-8")


def every(folder: Path = HERE / "planted") -> list[Planted]:
    return [Planted(path.stem, **yaml.safe_load(path.read_text())) for path in sorted(folder.glob("*.yml"))]


def found(planted: Planted, seeds: int) -> str | None:
    """The first seed that breaks with the fault planted, and what it breaks; None if none does."""
    with tempfile.TemporaryDirectory() as name:
        planted.plant(Path(name))
        done = subprocess.run(
            [sys.executable, "-m", "simulation", "--seeds", str(max(seeds, planted.seeds)), "--stop"],
            cwd=ROOT / "tests", env={**os.environ, "PYTHONPATH": name}, capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert done.returncode in (0, 1), done.stderr
    said = re.search(r"^seed .*", done.stdout, re.MULTILINE)
    return said[0] if said else None


def main() -> int:
    return tell(__doc__, every(), found, seeds=1000)


def tell(what: str | None, faults: list[Planted], found: Callable[[Planted, int], str | None], *, seeds: int) -> int:
    """Plant each fault, or those that are named, and say what finds it; 1 if any is missed."""
    parser = argparse.ArgumentParser(description=what, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=seeds)
    parser.add_argument("names", nargs="*")
    given = parser.parse_args()
    missed = played = 0
    for planted in faults:
        if given.names and planted.name not in given.names:
            continue
        seen = found(planted, given.seeds)
        missed += seen is None
        print(f"{planted.name:27} {planted.what}\n{'':27} -> {seen or 'NOT FOUND'}", flush=True)
        played += 1
    print(f"{played} faults planted, {played - missed} found")
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
