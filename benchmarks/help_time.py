"""How long `dinmo-dbt --help` takes, beside a bare interpreter and beside Typer alone, in turn.

    python benchmarks/help_time.py [--runs 15]

Prints the median of each and fails if the help's median is over 200 ms more than twice in three tries.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time

COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "python -c 'import typer'": [sys.executable, "-c", "import typer"],
    "dinmo-dbt --help": [sys.executable, "-m", "dinmo_dbt", "--help"],
}
LIMIT_MS = 200.0
TRIES = 3


def measure(runs: int) -> dict[str, float]:
    """The median wall milliseconds of each command; they take turns, so that a noisy machine is noisy for all."""
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for run in range(runs + 1):
        for name, command in COMMANDS.items():
            began = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            if run:  # the first turn warms the caches
                times[name].append((time.perf_counter() - began) * 1000)
    return {name: statistics.median(found) for name, found in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=15)
    runs = parser.parse_args().runs
    for _ in range(TRIES):
        medians = measure(runs)
        for name, median in medians.items():
            print(f"{name:26} {median:6.0f} ms")
        if medians["dinmo-dbt --help"] <= LIMIT_MS:
            return
    raise SystemExit(f"--help took more than {LIMIT_MS:.0f} ms in {TRIES} tries")


if __name__ == "__main__":
    main()
