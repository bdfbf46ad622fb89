"""The CPU of small commands, where nothing is to be sent, beside dbt's own, in turn.

    python benchmarks/small_runs.py [--runs 7] [--models 5000]

The project is the sample project, synced. Each command is counted with the processes that it starts: `plan` and `sync`
start the embedded org, and once more go to one that stands apart, as Salesforce does. `many models`: the same command
over a manifest of so many models.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SAMPLE = Path(__file__).parent.parent / "sample_dbt_project"
DINMO = [sys.executable, "-m", "dinmo_dbt"]
DBT = [sys.executable, "-m", "dbt.cli.main"]
BESIDE = "dbt run, one model"


def cpu(command: list[str], folder: Path) -> tuple[float, float]:
    """CPU seconds of a command and of all that it started and waited for, and the peak MiB of the largest."""
    child = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert child.stderr is not None
    told = child.stderr.read()
    _, status, used = os.wait4(child.pid, 0)
    child.stderr.close()
    child.returncode = os.waitstatus_to_exitcode(status)
    assert child.returncode == 0, (command, told)
    rss = used.ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)
    return used.ru_utime + used.ru_stime, rss


def project(folder: Path) -> Path:
    """The sample project, built and synced."""
    shutil.copytree(SAMPLE, folder, ignore=shutil.ignore_patterns("target", "logs", "*.duckdb", ".dinmo", ".user.yml"))
    for command in ([*DBT, "build"], [*DINMO, "sync"]):
        cpu(command, folder)
    return folder


def inflate(folder: Path, models: int) -> None:
    """Let the manifest have so many models, as dbt would write those that declare nothing."""
    file = folder / "target" / "manifest.json"
    manifest = json.loads(file.read_text())
    name, node = next((name, node) for name, node in manifest["nodes"].items() if name.endswith(".stg_customers"))
    compiled = {"compiled": True, "compiled_code": f"{node['raw_code']}\n" * 12, "checksum": node["checksum"]}
    for number in range(models - len(manifest["nodes"])):
        other = f"{name}_{number}"
        manifest["nodes"][other] = {**node, **compiled, "unique_id": other, "name": f"{node['name']}_{number}"}
        for relatives in ("parent_map", "child_map"):
            manifest[relatives][other] = list(manifest[relatives][name])
    file.write_text(json.dumps(manifest))


@contextmanager
def standing(folder: Path) -> Iterator[None]:
    """The project's org, served until the end."""
    command = [*DINMO, "emulator", "serve", "--json", "--exit-with-stdin"]
    with subprocess.Popen(command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        assert server.stdout.readline()
        try:
            yield
        finally:
            server.stdin.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--models", type=int, default=5000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        own = project(Path(root) / "own")
        apart, many = (Path(shutil.copytree(own, Path(root) / name)) for name in ("apart", "many"))
        inflate(many, given.models)
        commands = {
            BESIDE: ([*DBT, "run", "--select", "dim_customers"], own),
            "dbt ls": ([*DBT, "ls"], own),
            **{name: ([*DINMO, *name.split()], own) for name in ("--help", "list", "validate", "status", "history")},
            "schedule": ([*DINMO, "schedule"], own),
            "plan": ([*DINMO, "plan"], own),
            "sync": ([*DINMO, "sync"], own),
            "plan, org apart": ([*DINMO, "plan"], apart),
            "sync, org apart": ([*DINMO, "sync"], apart),
            "list, many models": ([*DINMO, "list"], many),
            "validate, many models": ([*DINMO, "validate"], many),
            "json.load of these": (
                [sys.executable, "-c", "import json; json.load(open('target/manifest.json'))"],
                many,
            ),
        }
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
        with standing(apart):
            for _ in range(given.runs):
                for name, (command, folder) in commands.items():
                    found[name].append(cpu(command, folder))
        size = (many / "target" / "manifest.json").stat().st_size / 1e6
    cores, load = os.cpu_count(), os.getloadavg()[0]
    print(f"nothing to do, {given.runs} runs in turn, medians; {cores} cores, load {load:.1f} at the end")
    print(f"many models: {given.models:,}, a manifest of {size:.0f} MB")
    beside = statistics.median(seconds for seconds, _ in found[BESIDE])
    for name, runs in found.items():
        seconds, peak = statistics.median(s for s, _ in runs), max(rss for _, rss in runs)
        print(f"{name:22} {seconds:5.2f} s CPU   x {BESIDE}: {seconds / beside:4.2f}   {peak:4.0f} MiB peak")


if __name__ == "__main__":
    main()
