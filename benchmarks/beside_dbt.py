"""`dbt build` again and again beside `sync --full` without a pause, on one DuckDB file: how often each found it locked.

    python benchmarks/beside_dbt.py [BUILDS] [RETRIES]

RETRIES is dbt-duckdb's `retries: {connect_attempts: RETRIES}` in the profile; 0 (the default) leaves it out.
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from pathlib import Path
from threading import Event, Thread

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from e2e.lab import Lab, dbt, write_project


def main(builds: int, retries: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "lab"
        write_project(root)
        if retries:
            profile = (root / "profiles.yml").read_text()
            profile = profile.replace("threads: 1", f"threads: 1, retries: {{connect_attempts: {retries}}}")
            (root / "profiles.yml").write_text(profile)
        first = dbt(root, "build")
        assert first.returncode == 0, first.stdout
        lab, over, synced = Lab(root), Event(), Counter[str]()

        def sync() -> None:
            while not over.is_set():
                ran = lab.process("sync", "--full", "--ignore-gate", "--exclude", "events")  # it inserts
                synced["DB708" if "DB708" in ran.all else f"exit {ran.code}"] += 1

        with lab.emulator("--batch-delay", "3"):
            beside = Thread(target=sync)
            beside.start()
            built = Counter(
                "built" if not (done := dbt(root, "build")).returncode else _why(done.stdout) for _ in range(builds)
            )
            over.set()
            beside.join()
    print(f"dbt: {dict(built)}; sync: {dict(synced)}")


def _why(told: str) -> str:
    return "locked" if "Could not set lock" in told else "failed"


if __name__ == "__main__":
    main(*map(int, [*sys.argv[1:], *["8", "0"][len(sys.argv) - 1 :]]))
