"""Rows a second through the emulator's Bulk API 2.0: upload to JobComplete, validation included.

    python benchmarks/emulator_bulk.py [rows] [--update]

Upserts `rows` (1,000,000) rows of 20 columns by external id over HTTP into a server of its own, in jobs of at
most 100 MB, and prints rows per second, upload to JobComplete, and the server's peak memory and CPU.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import requests

SERVER = """
import json, pathlib, resource, sys
from dinmo_dbt import emulator
folder = pathlib.Path(sys.argv[1])
emulator.serve(schema=folder / "schema", data=folder / "data", records=None, exit_with_stdin=True,
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


def row(i: int, salt: int) -> str:
    n = (i * 2_654_435_761 + salt) % 1_000_003
    texts = ",".join(f"text {k} of {n}" for k in range(7))
    return (
        f"K-{n:07d}-{i},{texts},{n}.25,{i},{n / 7:.2f},1e3,true,0,20{i % 20 + 10}-0{i % 9 + 1}-11,"
        f"2024-03-0{i % 9 + 1}T10:00:00.000Z,user{i}@example.com,https://example.com/{i},Gold,name {i}\n"
    )


def files(folder: Path, rows: int, salt: int) -> list[tuple[Path, int]]:
    header = ",".join([*FIELDS, "Name"]) + "\n"
    made: list[tuple[Path, int]] = []
    i = 0
    while i < rows:
        path = folder / f"{salt}-{len(made)}.csv"
        size, first = 0, i
        with path.open("w") as file:
            file.write(header)
            while i < rows and size < JOB_BYTES:
                size += file.write(row(i, salt))
                i += 1
        made.append((path, i - first))
    return made


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("rows", nargs="?", type=int, default=1_000_000)
    parser.add_argument("--update", action="store_true", help="upsert the same rows a second time")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_schema(folder / "schema")
        parts = files(folder, options.rows, 0)
        server = subprocess.Popen(
            [sys.executable, "-c", SERVER, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert server.stdout is not None and server.stdin is not None
        line = json.loads(server.stdout.readline())
        for label in ("insert", "update") if options.update else ("insert",):
            run(line, parts, label)
        server.stdin.close()
        print(f"server: {server.stdout.readline().strip()}")


def run(line: dict[str, str], parts: list[tuple[Path, int]], label: str) -> None:
    session = requests.Session()
    session.headers["Authorization"] = f"Bearer {line['access_token']}"
    jobs = f"{line['instance_url']}/services/data/v62.0/jobs/ingest"
    started = time.perf_counter()
    total = failed = 0
    for path, _ in parts:
        spec = {"object": "Item__c", "operation": "upsert", "externalIdFieldName": "Key__c", "lineEnding": "LF"}
        job = f"{jobs}/{session.post(jobs, json=spec).json()['id']}"
        with path.open("rb") as file:
            session.put(f"{job}/batches", data=file, headers={"Content-Type": "text/csv"}).raise_for_status()
        session.patch(job, json={"state": "UploadComplete"}).raise_for_status()
        while (info := session.get(job).json())["state"] in ("UploadComplete", "InProgress"):
            time.sleep(0.1)
        assert info["state"] == "JobComplete", info
        total += info["numberRecordsProcessed"]
        failed += info["numberRecordsFailed"]
    spent = time.perf_counter() - started
    size = sum(p.stat().st_size for p, _ in parts) / 1e6
    print(f"{label}: {total:,} rows, {failed} failed, {size:.0f} MB in {spent:.1f} s = {total / spent:,.0f} rows/s")
    started = time.perf_counter()
    got = sum(len(c) for c in session.get(f"{job}/successfulResults", stream=True).iter_content(1 << 20))
    spent = time.perf_counter() - started
    print(f"{label}: results of the last job, {got / 1e6:.0f} MB in {spent:.1f} s")


if __name__ == "__main__":
    main()
