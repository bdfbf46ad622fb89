"""CSV as it is uploaded, in MB a CPU second: ours, and Python's csv.DictWriter over the same texts (which is how
simple-salesforce writes it), in turn.

    python benchmarks/csv_rate.py                   200,000 rows x 21 columns, 3 rounds
    python benchmarks/csv_rate.py --rows 1000000
"""

from __future__ import annotations

import argparse
import csv
import io
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
from plan_ratio import batches, columns, mapping, prepare

from dinmo_dbt.destination import Api, Batch, Operation
from dinmo_dbt.rows import values
from dinmo_dbt.salesforce.encode import write_csv


def batch_of(folder: Path) -> Batch:
    """Every row of the benchmark's model, canonical."""
    made = mapping()
    table = pa.Table.from_batches(batches(folder, "v1"))
    arrays = {
        column.header: values.canonical(table[column.source].combine_chunks(), column.field)[0]
        for column in made.columns
    }
    payload = tuple(column.payload() for column in made.columns)
    return Batch("", Operation.INSERT, "Thing__c", Api.BULK, payload, None, pa.table(arrays))


def ours(batch: Batch) -> int:
    return write_csv(batch, io.BytesIO())


def by_dict_writer(batch: Batch) -> int:
    """Values as Python has them: dates, decimals and booleans are written by their str()."""
    file = io.StringIO()
    writer = csv.DictWriter(file, [column.header for column in batch.columns], lineterminator="\n")
    writer.writeheader()
    for part in batch.rows.to_batches(max_chunksize=16_384):
        writer.writerows(part.to_pylist())
    return len(file.getvalue().encode())


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dinmo-bench-") as name:
        prepare(Path(name), given.rows)
        batch = batch_of(Path(name))
    ways: dict[str, Callable[[Batch], int]] = {"ours": ours, "csv.DictWriter": by_dict_writer}
    rates: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(given.rounds):
        for way, write in ways.items():
            began = time.process_time()
            size = write(batch)
            rates[way].append(size / 1e6 / (time.process_time() - began))
    print(f"{given.rows:,} rows x {len(columns())} columns, {given.rounds} rounds, medians")
    for way, found in rates.items():
        print(f"{way:16} {statistics.median(found):7.1f} MB per CPU second")


if __name__ == "__main__":
    main()
