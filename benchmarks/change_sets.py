"""What changed between two versions of a model: ours beside others' ways to find it, in turn, with equal answers.

    python benchmarks/change_sets.py --rows 1000000 [--rounds 3] [--write]

Ours reads version 2 and knows version 1 by its snapshot, which holds hashes; the others have both versions whole, as
tables of one DuckDB file. Each finds the keys that were added, changed and removed; all must find the same ones. Each
measurement is a process of its own: CPU seconds, wall seconds and peak memory are that process's. `scan` is one read of
version 2 as Arrow batches, to which all are compared. `--write` puts the figures into benchmarks/results.md.

pandas, polars and reladiff come from an environment of their own, build/peers, made by `make bench` of
benchmarks/peers.txt; where it is missing they are left out, which is said.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

HERE = Path(__file__).parent
PEERS = HERE.parent / "build" / "peers" / "bin" / "python"
RESULTS = HERE / "results.md"
Keys = tuple[Iterable[str], Iterable[str], Iterable[str]]  # added, changed, removed


def digest(keys: Keys) -> dict[str, object]:
    """Counts of the keys that were added, changed and removed, and a digest of them all."""
    sorts = [sorted(each) for each in keys]
    whole = hashlib.sha256("\n".join("|".join(each) for each in sorts).encode()).hexdigest()
    return {"counts": [len(each) for each in sorts], "digest": whole[:16]}


HEAD = """\
# Change sets, measured

What changed between two versions of a model, by dinmo-dbt and by others' ways. `make bench SIZE=1m` (10m, 50m) writes a
section of this page; [change_sets.py](change_sets.py) says what is compared with what.
"""


# The ways


def scan(folder: Path) -> None:
    from plan_ratio import batches

    for _ in batches(folder, "v2"):
        pass


def ours(folder: Path) -> Keys:
    import numpy as np
    from plan_ratio import batches, mapping

    from dinmo_dbt.rows.changes import Kind
    from dinmo_dbt.rows.compare import between
    from dinmo_dbt.state.snapshot import FileSnapshot
    from dinmo_dbt.state.spool import ScanSpool

    snapshot, spool = FileSnapshot(folder, ["base-1.parquet"]), ScanSpool(folder)
    found = between(batches(folder, "v2"), mapping(matched=True), snapshot, spool)
    assert not found.refusals, found.refusals

    def spooled(kind: Kind) -> list[str]:
        keys: list[str] = spool.take(np.flatnonzero(found.kind == kind), ["key"])["key"].to_pylist()
        return keys

    return spooled(Kind.ADDED), spooled(Kind.CHANGED), snapshot.keys(found.left).to_pylist()


def duckdb_full_join(folder: Path) -> Keys:
    from plan_ratio import columns, connection

    differs = " or ".join(f"a.{name} is distinct from b.{name}" for name in columns() if name != "id")
    sql = (
        "select coalesce(b.id, a.id) as id, case when a.id is null then 0 when b.id is null then 2 else 1 end as kind "
        f"from v1 a full join v2 b on a.id = b.id where a.id is null or b.id is null or {differs}"
    )
    found = connection(folder).sql(sql).fetchall()
    added, changed, removed = ([key for key, kind in found if kind == wanted] for wanted in range(3))
    return added, changed, removed


def duckdb_except(folder: Path) -> Keys:
    from plan_ratio import connection

    con = connection(folder)
    new = {key for (key,) in con.sql("select id from (select * from v2 except all select * from v1)").fetchall()}
    old = {key for (key,) in con.sql("select id from (select * from v1 except all select * from v2)").fetchall()}
    return new - old, new & old, old - new


def pandas_merge(folder: Path) -> Keys:
    from plan_ratio import columns, connection

    con = connection(folder)
    old, new = (con.sql(f"select * from {name}").df() for name in ("v1", "v2"))
    both = old.merge(new, on="id", how="outer", suffixes=("_old", "_new"), indicator=True)
    matched = both["_merge"] == "both"
    differs = matched & False
    for name in columns():
        if name != "id":
            one, other = both[f"{name}_old"], both[f"{name}_new"]
            differs |= matched & ((one != other) & ~(one.isna() & other.isna()))
    ids = both["id"]
    return ids[both["_merge"] == "right_only"], ids[differs], ids[both["_merge"] == "left_only"]


def polars_join(folder: Path) -> Keys:
    import polars as pl
    from plan_ratio import columns, connection

    con = connection(folder)
    old, new = (con.sql(f"select * from {name}").pl().lazy() for name in ("v1", "v2"))
    rest = [name for name in columns() if name != "id"]
    differs = pl.any_horizontal(pl.col(name).ne_missing(pl.col(f"{name}_old")) for name in rest)
    changed = new.join(old, on="id", suffix="_old").filter(differs).select("id").collect()["id"]
    added = new.join(old, on="id", how="anti").select("id").collect()["id"]
    removed = old.join(new, on="id", how="anti").select("id").collect()["id"]
    return added.to_list(), changed.to_list(), removed.to_list()


def reladiff_join(folder: Path) -> Keys:
    from plan_ratio import columns
    from reladiff import Algorithm, connect_to_table, diff_tables

    rest = tuple(name for name in columns() if name != "id")
    place = f"duckdb://main:@{folder / 'bench.duckdb'}"
    old, new = (connect_to_table(place, name, "id", extra_columns=rest) for name in ("v1", "v2"))
    gone, come = set(), set()
    for sign, row in diff_tables(old, new, algorithm=Algorithm.JOINDIFF, extra_columns=rest):
        (gone if sign == "-" else come).add(row[0])
    return come - gone, come & gone, gone - come


WAYS: dict[str, tuple[str, Callable[[Path], Keys | None]]] = {
    "scan": ("one read of version 2, as Arrow batches", scan),
    "ours": ("change detection by the snapshot", ours),
    "duckdb_full_join": ("DuckDB, a full outer join over all columns", duckdb_full_join),
    "duckdb_except": ("DuckDB, EXCEPT ALL both ways", duckdb_except),
    "polars_join": ("polars, joins and a comparison of all columns", polars_join),
    "pandas_merge": ("pandas, an outer merge and a comparison of all columns", pandas_merge),
    "reladiff_join": ("reladiff, joindiff", reladiff_join),
}
OF_PEERS = ("polars_join", "pandas_merge", "reladiff_join")


def measured(folder: Path, way: str) -> dict[str, object]:
    """In a child process."""
    from plan_ratio import peak_mib

    began, cpu = time.perf_counter(), time.process_time()
    keys = WAYS[way][1](folder)
    used = {"wall": time.perf_counter() - began, "cpu": time.process_time() - cpu, "peak_mib": peak_mib()}
    return used if keys is None else {**used, **digest(keys)}


def run(folder: Path, way: str) -> dict[str, object] | None:
    """None where the system killed it, as it does a process that asks for more memory than there is."""
    python = PEERS if way in OF_PEERS else sys.executable
    command = [str(python), __file__, "--measure", way, "--folder", str(folder)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode == -signal.SIGKILL:
        return None
    if done.returncode:
        raise SystemExit(f"{way} ended with {done.returncode}:\n{done.stderr}")
    found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return found


def machine() -> str:
    """What the figures were measured on, in a line."""
    name = platform.processor() or platform.machine()
    told = Path("/proc/cpuinfo")
    if told.exists():
        model = re.search(r"^model name\s*: (.*)$", told.read_text(), re.MULTILINE)
        name = model[1] if model else name
    load = os.getloadavg()[0]
    return f"{name}, {os.cpu_count()} cores, Python {platform.python_version()}; load {load:.1f} when it began"


def table(rows: int, rounds: int, found: dict[str, list[dict[str, object]]], began_on: str) -> list[str]:
    """The figures as a Markdown section."""
    counts = next(each["counts"] for results in found.values() for each in results if "counts" in each)
    added, changed, removed = counts  # type: ignore[misc]
    lines = [
        f"## {rows:,} rows",
        "",
        f"{rows:,} rows x 21 columns; {added:,} added, {changed:,} changed, {removed:,} removed; all found the same "
        f"keys. {f'Medians of {rounds} rounds' if rounds > 1 else 'One round'}, taken in turn. {began_on}.",
        "",
        "| way | CPU s | x scan | x ours | wall s | peak MiB |",
        "|---|---|---|---|---|---|",
    ]

    def median(way: str, figure: str, over: str = "") -> float:
        given = [float(str(each[figure])) for each in found[way]]
        below = [float(str(each[figure])) for each in found[over]] if over else [1.0] * len(given)
        return statistics.median(one / other for one, other in zip(given, below, strict=True))

    for way, results in found.items():
        if len(results) < rounds:
            lines.append(f"| {WAYS[way][0]} | killed: there was not enough memory | | | | |")
            continue
        cells = [
            WAYS[way][0],
            f"{median(way, 'cpu'):.2f}",
            f"{median(way, 'cpu', 'scan'):.2f}",
            f"{median(way, 'cpu', 'ours'):.2f}",
            f"{median(way, 'wall'):.2f}",
            f"{median(way, 'peak_mib'):.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def write(lines: list[str]) -> None:
    """Put the section in the place of the one of its size."""
    old = RESULTS.read_text(encoding="utf-8") if RESULTS.exists() else ""
    sections = dict(re.findall(r"^(## .*)\n((?:(?!## ).*\n)*)", old, re.MULTILINE))
    sections[lines[0]] = "\n".join(lines[1:]) + "\n"
    ordered = sorted(sections.items(), key=lambda section: int(re.sub(r"\D", "", section[0])))
    body = "\n".join(f"{title}\n{text.rstrip()}\n" for title, text in ordered)
    RESULTS.write_text(f"{HEAD}\n{body}", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--write", action="store_true", help="into benchmarks/results.md")
    parser.add_argument("--measure", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        print(json.dumps(measured(given.folder, given.measure)))
        return
    from plan_ratio import prepare

    ways = [way for way in WAYS if way not in OF_PEERS or PEERS.exists()]
    for way in WAYS.keys() - set(ways):
        print(f"{way} is left out: {PEERS.parent.parent} is not there (make bench makes it)", file=sys.stderr)
    began_on = machine()
    with tempfile.TemporaryDirectory(prefix="dinmo-bench-") as name:
        folder = Path(name)
        prepare(folder, given.rows, matched=True)
        found: dict[str, list[dict[str, object]]] = {way: [] for way in ways}
        for _ in range(given.rounds):
            for way in ways:
                result = run(folder, way)
                found[way] += [result] if result is not None else []
    answers = {each["digest"] for results in found.values() for each in results if "digest" in each}
    assert len(answers) == 1, {way: [each.get("counts") for each in results] for way, results in found.items()}
    lines = table(given.rows, given.rounds, found, began_on)
    print("\n".join(lines))
    if given.write:
        write(lines)


if __name__ == "__main__":
    main()
