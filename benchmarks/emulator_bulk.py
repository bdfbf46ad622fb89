"""Rows a second through the emulator's Bulk API 2.0: upload to JobComplete, validation included.

    python benchmarks/emulator_bulk.py                         1,000,000 rows x 20 columns, once
    python benchmarks/emulator_bulk.py --rows 300000 --rounds 3

Sends rows over HTTP to servers of their own, in jobs of at most 100 MB: inserts them; upserts them by external id into
another org; upserts them there again with every tenth row changed; reads the results back. Prints each round, then
the slowest and the median rate of each operation, and the most memory a server took.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import requests

SERVER = """
import json, pathlib, resource, sys
from dinmo_dbt import emulator
schema, data = map(pathlib.Path, sys.argv[1:])
emulator.serve(schema=schema, data=data, records=None, exit_with_stdin=True,
               announce=lambda line: print(json.dumps(line), flush=True))
used = resource.getrusage(resource.RUSAGE_SELF)
print(f"{used.ru_maxrss // 1024} MiB peak memory, {used.ru_utime + used.ru_stime:.1f} s of CPU", flush=True)
"""
FIELDS = {
    "Key__c": ("Text", "<length>40</length><externalId>true</externalId><unique>true</unique>"),
    **{f"Text{i}__c": ("Text", "<length>80</length>") for i in range(7)},
    **{f"Number{i}__c": ("Number", "<precision>18</precision><scale>2</scale>") for i in range(4)},
    **{f"Flag{i}__c": ("Checkbox", "<defaultValue>false</defaultValue>") for i in range(2)},
    "Day__c": ("Date", ""), "Moment__c": ("DateTime", ""), "Email__c": ("Email", ""), "Web__c": ("Url", ""),
    "Tier__c": ("Picklist", "<valueSet><restricted>true</restricted><valueSetDefinition>"
                "<value><fullName>Gold</fullName><label>Gold</label></value>"
                "<value><fullName>Silver</fullName><label>Silver</label></value></valueSetDefinition></valueSet>"),
}  # fmt: skip
NAMESPACE = 'xmlns="http://soap.sforce.com/2006/04/metadata"'
JOB_BYTES = 99_000_000


def write_schema(folder: Path) -> None:
    item = folder / "objects" / "Item__c"
    (item / "fields").mkdir(parents=True)
    (item / "Item__c.object-meta.xml").write_text(
        f"<CustomObject {NAMESPACE}><label>Item</label><pluralLabel>Items</pluralLabel>"
        "<nameField><label>Name</label><type>Text</type></nameField></CustomObject>"
    )
    for name, (kind, rest) in FIELDS.items():
        (item / "fields" / f"{name}.field-meta.xml").write_text(
            f"<CustomField {NAMESPACE}><fullName>{name}</fullName><label>{name}</label><type>{kind}</type>{rest}"
            "</CustomField>"
        )


def row(i: int, changed: bool) -> str:
    n = i * 2_654_435_761 % 1_000_003
    texts = ",".join(f"text {k} of {n + changed}" for k in range(7))
    return (
        f"K-{n:07d}-{i},{texts},{n}.25,{i},{n / 7:.2f},1e3,true,0,20{i % 20 + 10}-0{i % 9 + 1}-11,"
        f"2024-03-0{i % 9 + 1}T10:00:00.000Z,user{i}@example.com,https://example.com/{i},Gold,name {i}\n"
    )


def files(folder: Path, rows: int, *, changed: bool) -> list[Path]:
    """The rows as uploads; every tenth one differs between the two versions."""
    header = ",".join([*FIELDS, "Name"]) + "\n"
    made: list[Path] = []
    i = 0
    while i < rows:
        made.append(folder / f"{changed}-{len(made)}.csv")
        size = 0
        with made[-1].open("w") as file:
            file.write(header)
            while i < rows and size < JOB_BYTES:
                size += file.write(row(i, changed and i % 10 == 0))
                i += 1
    return made


@contextmanager
def server(folder: Path, schema: Path) -> Iterator[tuple[requests.Session, str]]:
    """A server with an empty org: a session that is logged in, and the address of its ingest jobs."""
    command = [sys.executable, "-c", SERVER, str(schema), str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdin is not None
        line = json.loads(process.stdout.readline())
        with requests.Session() as session:
            session.headers["Authorization"] = f"Bearer {line['access_token']}"
            yield session, f"{line['instance_url']}/services/data/v62.0/jobs/ingest"
        process.stdin.close()
        print(f"  server: {process.stdout.readline().strip()}")


def send(session: requests.Session, jobs: str, parts: list[Path], label: str, **spec: str) -> float:
    """Rows a second of all jobs, one after another."""
    made: list[str] = []
    rows = failed = 0
    started = time.perf_counter()
    for path in parts:
        job = f"{jobs}/{session.post(jobs, json={'object': 'Item__c', 'lineEnding': 'LF', **spec}).json()['id']}"
        with path.open("rb") as file:
            session.put(f"{job}/batches", data=file, headers={"Content-Type": "text/csv"}).raise_for_status()
        session.patch(job, json={"state": "UploadComplete"}).raise_for_status()
        while (info := session.get(job).json())["state"] in ("UploadComplete", "InProgress"):
            time.sleep(0.1)
        assert info["state"] == "JobComplete", info
        rows += info["numberRecordsProcessed"]
        failed += info["numberRecordsFailed"]
        made.append(job)
    spent = time.perf_counter() - started
    assert not failed, failed
    started = time.perf_counter()
    size = 0
    for job in made:
        with session.get(f"{job}/successfulResults", stream=True) as reply:
            size += sum(map(len, reply.iter_content(1 << 20)))
    reading = time.perf_counter() - started
    print(
        f"  {label:15} {rows:>9,} rows  {spent:6.2f} s  {rows / spent:>8,.0f} rows/s   "
        f"results {size / 1e6:4.0f} MB  {reading:5.2f} s  {rows / reading:>8,.0f} rows/s",
        flush=True,
    )
    return rows / spent


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=1)
    options = parser.parse_args()
    upsert = {"operation": "upsert", "externalIdFieldName": "Key__c"}
    rates: dict[str, list[float]] = {"insert": [], "first upsert": [], "tenth changed": []}
    with tempfile.TemporaryDirectory(prefix="dinmo-bench-") as name:
        folder = Path(name)
        schema = folder / "schema"
        write_schema(schema)
        rows, changed = (files(folder, options.rows, changed=c) for c in (False, True))
        size = sum(p.stat().st_size for p in rows) / 1e6
        print(f"{options.rows:,} rows x {len(FIELDS) + 1} columns, {size:.0f} MB, {os.cpu_count()} cores")
        for number in range(options.rounds):
            print(f"round {number + 1}")
            with server(folder / f"insert{number}", schema) as (session, jobs):
                rates["insert"].append(send(session, jobs, rows, "insert", operation="insert"))
            with server(folder / f"upsert{number}", schema) as (session, jobs):
                rates["first upsert"].append(send(session, jobs, rows, "first upsert", **upsert))
                again = send(session, jobs, changed, "tenth changed", **upsert)
                rates["tenth changed"].append(again)
    for label, measured in rates.items():
        print(f"{label:15} min {min(measured):>8,.0f}  median {statistics.median(measured):>8,.0f} rows/s")


if __name__ == "__main__":
    main()
