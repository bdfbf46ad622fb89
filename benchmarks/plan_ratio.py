"""A plan's change detection beside one plain Arrow scan of the same model, in turn: the ratio is the figure.

    python benchmarks/plan_ratio.py                   2,000,000 rows x 21 columns, 3 rounds
    python benchmarks/plan_ratio.py --rows 10000000

An upsert by the key. `first`: nothing is known; `unchanged`: all is as it was acknowledged; `changed`: version 2 of
the model, with 1 % of the rows changed, 0.5 % added and 0.2 % removed, in another row order. Each is divided by a scan
of the same table. Each measurement is a process of its own; wall and CPU seconds and peak memory are that process's.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RELATION = {"first": "v1", "changed": "v2", "unchanged": "v1"}
TEXT = ("name", "email", "street", "city", "country", "phone", "plan", "segment")
NUMBERS = ("seats", "points", "visits", "orders", "mrr", "score", "health")
OTHERS = {
    "is_active": "boolean",
    "is_partner": "boolean",
    "signed_up_on": "date",
    "last_seen_at": "datetime",
    "updated_at": "datetime",
}

MAKE = """
create table v1 as select
  'K' || lpad(i::varchar, 9, '0') as id,
  'Customer ' || (i * 7919 % 1000003) as name, 'user' || i || '@example.com' as email,
  'Street ' || (i % 997) || ', building ' || (i % 31) as street,
  ['Paris', 'Lyon', 'Berlin', 'Madrid', 'Oslo', 'Rome'][1 + i % 6] as city,
  ['FR', 'DE', 'ES', 'NO', 'IT'][1 + i % 5] as country, '+33' || (600000000 + i) as phone,
  ['free', 'team', 'business'][1 + i % 3] as plan, 'Segment ' || (i % 12) as segment,
  (i % 5000)::integer as seats, (i % 100000)::bigint as points, (i % 777)::integer as visits,
  (i % 91)::integer as orders, (i % 1000000 / 100.0)::decimal(12, 2) as mrr,
  (i % 10000 / 4.0)::double as score, (i % 101)::double as health,
  i % 2 = 0 as is_active, i % 3 = 0 as is_partner, date '2020-01-01' + (i % 2000)::integer as signed_up_on,
  timestamp '2024-01-01' + to_seconds(i % 10000000) as last_seen_at,
  timestamp '2023-01-01' + to_seconds(i % 50000000) as updated_at
from range({rows}) t(i);
create table v2 as select * replace (case when hash(id) % 100 = 0 then 'changed' else segment end as segment)
  from v1 where hash(id || 'r') % 1000 >= 2
  union all by name select * replace ('N' || id as id) from v1 where hash(id || 'a') % 1000 < 5
  order by hash(id);
"""


def columns() -> list[str]:
    return ["id", *TEXT, *NUMBERS, *OTHERS]


def connection(folder: Path):  # type: ignore[no-untyped-def]
    import duckdb

    return duckdb.connect(str(folder / "bench.duckdb"), read_only=True)


def batches(folder: Path, relation: str):  # type: ignore[no-untyped-def]
    return connection(folder).cursor().sql(f"select {', '.join(columns())} from {relation}").to_arrow_reader(32768)


def mapping(*, matched: bool = False):  # type: ignore[no-untyped-def]
    from dinmo_dbt.destination import Field
    from dinmo_dbt.rows.mapping import MappedColumn, Mapping

    kinds = {**dict.fromkeys(TEXT, "string"), **dict.fromkeys(NUMBERS, "double"), **OTHERS}
    made = [
        MappedColumn(name, f"{name}__c", Field(f"{name}__c", name, kind, length=255)) for name, kind in kinds.items()
    ]
    match = MappedColumn("id", "Key__c", Field("Key__c", "Key", "string", length=255, external_id=True, unique=True))
    return Mapping(("id",), match if matched else None, tuple(made))


def measured(folder: Path, what: str) -> dict[str, object]:
    """In a child process: scan, or detect changes against the stored snapshot."""
    began, cpu = time.perf_counter(), time.process_time()
    if what.startswith("scan"):
        rows = sum(batch.num_rows for batch in batches(folder, what.rpartition(" ")[2]))
        counts = {"rows": rows}
    else:
        from dinmo_dbt.rows.changes import Kind
        from dinmo_dbt.rows.compare import between
        from dinmo_dbt.state.snapshot import FileSnapshot
        from dinmo_dbt.state.spool import ScanSpool

        snapshot = FileSnapshot(folder, [] if what == "first" else ["base-1.parquet"])
        found = between(batches(folder, RELATION[what]), mapping(matched=True), snapshot, ScanSpool(folder))
        kinds = {kind.name.lower(): found.count(kind) for kind in Kind}
        counts = {"rows": found.read, "unchanged": found.unchanged, "left": len(found.left), **kinds}
        assert not found.refusals, found.refusals
    return {
        "wall": time.perf_counter() - began,
        "cpu": time.process_time() - cpu,
        "peak_mib": peak_mib(),
        "counts": counts,
    }


def peak_mib() -> float:
    """This process's own peak; on Linux ru_maxrss would start from the parent's."""
    status = Path("/proc/self/status")
    if status.exists():
        return next(int(line.split()[1]) / 1024 for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 / 1024


def prepare(folder: Path, rows: int, *, matched: bool = False) -> None:
    import duckdb
    import numpy as np
    import pyarrow as pa

    from dinmo_dbt.rows.compare import between
    from dinmo_dbt.state.snapshot import BASE, FileSnapshot, write_rows
    from dinmo_dbt.state.spool import ScanSpool

    with duckdb.connect(str(folder / "bench.duckdb")) as con:
        con.execute(MAKE.format(rows=rows))
    spool = ScanSpool(folder)
    found = between(batches(folder, "v1"), mapping(matched=matched), FileSnapshot(folder, []), spool)
    table = spool.take(np.arange(found.read), ["kh", "ck", "key"]).sort_by("kh")
    ids = pa.array([f"a00{number:015d}" for number in range(found.read)])
    base = table.append_column("record_id", ids).append_column("flags", pa.array(np.ones(found.read, np.uint8)))
    write_rows(folder / "base-1.parquet", base, BASE)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        print(json.dumps(measured(given.folder, given.measure)))
        return
    with tempfile.TemporaryDirectory(prefix="dinmo-bench-") as name:
        folder = Path(name)
        prepare(folder, given.rows, matched=True)
        found: dict[str, list[dict[str, object]]] = {what: [] for what in ("scan v1", "scan v2", *RELATION)}
        for _ in range(given.rounds):
            for what, results in found.items():
                command = [sys.executable, __file__, "--measure", what, "--folder", str(folder)]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                results.append(json.loads(done.stdout))
        print(f"{given.rows:,} rows x {len(columns())} columns, {os.cpu_count()} cores, {given.rounds} rounds, medians")
        for what, results in found.items():
            wall, cpu, peak = (
                statistics.median(float(str(r[k])) for r in results) for k in ("wall", "cpu", "peak_mib")
            )
            pairs = list(zip(results, found[f"scan {RELATION.get(what, what[-2:])}"], strict=True))
            by_wall, by_cpu = (
                statistics.median(float(str(r[k])) / float(str(s[k])) for r, s in pairs) for k in ("wall", "cpu")
            )
            print(
                f"{what:10} {wall:6.2f} s wall  {cpu:6.2f} s cpu  {peak:6.0f} MiB  "
                f"x scan: {by_wall:.2f}, cpu {by_cpu:.2f}"
            )
            if what in RELATION:
                print(f"           {results[0]['counts']}")


if __name__ == "__main__":
    main()
