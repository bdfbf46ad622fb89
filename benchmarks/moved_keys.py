"""A model whose every key moved, to keys that nothing tells of: what it takes to know the rows by their values.

    python benchmarks/moved_keys.py                   300,000 and 3,000,000 rows x 21 columns
    python benchmarks/moved_keys.py --rows 1000000

Each size is a process of its own. `scan` reads the model and finds every row new and every known one gone, as any plan
does; `find` is the search that follows. Peak memory is the process's, by the end of each.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from plan_ratio import batches, mapping, peak_mib, prepare

MOVED = "create table moved as select * replace (md5(id) as id) from v1 order by hash(id)"


def measured(folder: Path) -> dict[str, float]:
    """In a child process: the seconds and the peak of both, and how many rows were found."""
    import numpy as np

    from dinmo_dbt.rows import carried
    from dinmo_dbt.rows.compare import between
    from dinmo_dbt.state.snapshot import FileSnapshot
    from dinmo_dbt.state.spool import ScanSpool

    snapshot, spool = FileSnapshot(folder, ["base-1.parquet"]), ScanSpool(folder)
    began = time.process_time()
    found = between(batches(folder, "moved"), mapping(), snapshot, spool)
    scanned, peak = time.process_time(), peak_mib()
    rows = np.arange(found.read)
    moved = carried.find([mapping()], snapshot, spool, rows, found.position, found.left)
    return {
        "scan": scanned - began,
        "scan_mib": peak,
        "find": time.process_time() - scanned,
        "find_mib": peak_mib(),
        "found": len(moved.rows),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=3_000_000)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.folder:
        print(json.dumps(measured(given.folder)))
        return
    import duckdb

    print(f"every key moved, 21 columns, {os.cpu_count()} cores, CPU seconds")
    for rows in (given.rows // 10, given.rows):
        with tempfile.TemporaryDirectory(prefix="dinmo-bench-") as name:
            prepare(Path(name), rows)
            with duckdb.connect(str(Path(name) / "bench.duckdb")) as connection:
                connection.execute(MOVED)
            command = [sys.executable, __file__, "--folder", name]
            took = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        print(
            f"{rows:>11,} rows, {took['found']:,} found   scan {took['scan']:6.2f} s {took['scan_mib']:6.0f} MiB   "
            f"find {took['find']:6.2f} s {took['find_mib']:6.0f} MiB"
        )


if __name__ == "__main__":
    main()
