"""Rows through `dinmo-dbt sync` to the emulator: a first sync, then a second with nothing changed.

    python benchmarks/sync_million.py                  1,000,000 rows x 20 columns
    python benchmarks/sync_million.py --rows 100000    a smaller one, as CI runs it

Prints, per run: rows sent, wall seconds, rows a second, our own process's CPU and peak memory, HTTP calls; then how
long the emulator worked on the jobs of the first sync, and its share of that sync's wall time. The emulator is a
process of its own and is not counted in ours. Figures depend on the machine: compare runs side by side.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import requests

COLUMNS = 20

PROJECT = """\
name: bench
version: "1.0"
profile: bench
model-paths: [models]
"""
PROFILES = """\
bench:
  target: dev
  outputs:
    dev: {type: duckdb, path: bench.duckdb, threads: 2}
"""
DINMO = """\
destinations:
  crm:
    targets:
      dev: {org: emulator}
emulator: {schema: force-app}
"""
# 20 columns of the kinds a customer table has; every row differs, nothing is random.
MODEL = """\
{{ config(materialized='table') }}
select
  'K' || lpad(i::varchar, 9, '0') as id,
  'Customer ' || (i * 7919 % 1000003) as name,
  'user' || i || '@example.com' as email,
  'Street ' || (i % 997) || ', building ' || (i % 31) as street,
  ['Paris', 'Lyon', 'Berlin', 'Madrid', 'Oslo', 'Rome'][1 + i % 6] as city,
  ['FR', 'DE', 'ES', 'NO', 'IT'][1 + i % 5] as country,
  '+33' || (600000000 + i) as phone,
  ['free', 'team', 'business'][1 + i % 3] as plan,
  'Segment ' || (i % 12) as segment,
  'note ' || md5(i::varchar) as note,
  (i % 5000)::integer as seats,
  (i % 100000)::bigint as points,
  (i % 1000000 / 100.0)::decimal(12, 2) as mrr,
  (i % 10000 / 7.0)::double as score,
  (i % 101)::double as health,
  i % 2 = 0 as is_active,
  i % 3 = 0 as is_partner,
  date '2020-01-01' + (i % 2000)::integer as signed_up_on,
  timestamp '2024-01-01' + to_seconds(i % 10000000) as last_seen_at,
  timestamp '2023-01-01' + to_seconds(i % 50000000) as updated_at
from range({{ var('rows') }}) t(i)
"""
FIELDS = {
    "name": "Text", "email": "Email", "street": "Text", "city": "Text", "country": "Text", "phone": "Phone",
    "plan": "Text", "segment": "Text", "note": "Text", "seats": "Number", "points": "Number", "mrr": "Currency",
    "score": "Number", "health": "Number", "is_active": "Checkbox", "is_partner": "Checkbox",
    "signed_up_on": "Date", "last_seen_at": "DateTime", "updated_at": "DateTime",
}  # fmt: skip


def field_name(column: str) -> str:
    return "".join(part.title() for part in column.split("_")) + "__c"


def write_project(root: Path) -> None:
    (root / "models").mkdir(parents=True)
    (root / "dbt_project.yml").write_text(PROJECT)
    (root / "profiles.yml").write_text(PROFILES)
    (root / "dinmo.yml").write_text(DINMO)
    (root / "models" / "customers.sql").write_text(MODEL)
    mapped = "".join(f"                {column}: {field_name(column)}\n" for column in FIELDS)
    (root / "models" / "customers.yml").write_text(
        "models:\n  - name: customers\n    config:\n      meta:\n        dinmo:\n          key: id\n"
        "          activation:\n            name: customers\n            destination: crm\n"
        "            object: Bench__c\n            mode: upsert\n            match: {id: BenchId__c}\n"
        f"            fields:\n{mapped.replace('                ', '              ')}"
    )
    folder = root / "force-app/main/default/objects/Bench__c"
    (folder / "fields").mkdir(parents=True)
    xml = '<?xml version="1.0" encoding="UTF-8"?>\n<{0} xmlns="http://soap.sforce.com/2006/04/metadata">{1}</{0}>\n'
    name = "<nameField><label>Number</label><type>AutoNumber</type><displayFormat>B-{0}</displayFormat></nameField>"
    body = f"<label>Bench</label><pluralLabel>Benches</pluralLabel>{name}<sharingModel>ReadWrite</sharingModel>"
    (folder / "Bench__c.object-meta.xml").write_text(xml.format("CustomObject", body))
    for column, kind in {"bench_id": "Text", **FIELDS}.items():
        extra = {
            "Text": "<length>100</length>",
            "Number": "<precision>18</precision><scale>4</scale>",
            "Currency": "<precision>18</precision><scale>2</scale>",
            "Checkbox": "<defaultValue>false</defaultValue>",
        }.get(kind, "")
        if column == "bench_id":
            extra += "<externalId>true</externalId><unique>true</unique>"
        full = field_name(column)
        body = f"<fullName>{full}</fullName><label>{full[:-3]}</label><type>{kind}</type>{extra}"
        (folder / "fields" / f"{full}.field-meta.xml").write_text(xml.format("CustomField", body))


def run(root: Path, *arguments: str) -> tuple[dict[str, object], float, float, float]:
    """One `dinmo-dbt` command: its JSON, wall seconds, CPU seconds and peak MiB of that process alone."""
    began = time.monotonic()
    command = [sys.executable, "-m", "dinmo_dbt", *arguments, "--json"]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        output = child.stdout.read()
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    wall = time.monotonic() - began
    if child.returncode:
        raise SystemExit(f"{' '.join(arguments)} ended with {child.returncode}: {output.decode()[:2000]}")
    scale = 1024 if sys.platform == "linux" else 1024 * 1024
    return json.loads(output), wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / scale


def jobs_s(line: dict[str, str]) -> float:
    """Seconds the emulator worked on its ingest jobs, from closed to complete."""
    jobs = f"{line['instance_url']}/services/data/v62.0/jobs/ingest"
    with requests.Session() as session:
        session.headers["Authorization"] = f"Bearer {line['access_token']}"
        ids = [job["id"] for job in session.get(jobs).json()["records"]]
        return sum(float(session.get(f"{jobs}/{i}").json()["totalProcessingTime"]) for i in ids) / 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--memory-max", type=int, default=1024, help="fail above this peak, MiB")
    parser.add_argument("--plan-only", action="store_true", help="plan the first sync, and send nothing")
    given = parser.parse_args()
    rows, memory_max = given.rows, given.memory_max
    with tempfile.TemporaryDirectory(prefix="dinmo-bench-") as folder:
        root = Path(folder)
        write_project(root)
        dbt = [str(Path(sys.executable).with_name("dbt")), "--quiet", "build", "--vars", json.dumps({"rows": rows})]
        environment = {**os.environ, "DBT_SEND_ANONYMOUS_USAGE_STATS": "false"}
        subprocess.run(dbt, cwd=root, check=True, env=environment)
        serve = [sys.executable, "-m", "dinmo_dbt", "emulator", "serve", "--json", "--exit-with-stdin"]
        with subprocess.Popen(serve, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as emulator:
            assert emulator.stdin is not None
            assert emulator.stdout is not None
            line = json.loads(emulator.stdout.readline())
            print(f"{rows:,} rows x {COLUMNS} columns, upsert by external id, {os.cpu_count()} cores")
            _, wall, cpu, peak = run(root, "plan")
            print(
                f"{'first plan':16} {rows:>9,} to be sent {wall:4.2f} s wall  {rows / wall:>9,.0f} rows/s  "
                f"{cpu:6.2f} s own CPU ({rows / cpu:,.0f} rows/s)  {peak:5.0f} MiB peak"
            )
            assert peak < memory_max, f"{peak:.0f} MiB is over {memory_max}"
            if given.plan_only:
                emulator.stdin.close()
                return
            for name in ("first sync", "nothing changed"):
                document, wall, cpu, peak = run(root, "sync")
                result = document["results"][0]  # type: ignore[index]
                sent, calls = result["outcome"]["succeeded"], document["api_calls"]
                print(
                    f"{name:16} {sent:>9,} sent  {wall:7.2f} s wall  {rows / wall:>9,.0f} rows/s  "
                    f"{cpu:6.2f} s own CPU ({rows / cpu:,.0f} rows/s)  {peak:5.0f} MiB peak  {calls} HTTP calls"
                )
                if name == "first sync":
                    share = f"{jobs_s(line):.2f} s on its jobs, {jobs_s(line) / wall:.0%} of the first sync"
                assert sent == (rows if name == "first sync" else 0), sent
                assert peak < memory_max, f"{peak:.0f} MiB is over {memory_max}"
            assert calls <= 10, calls
            state = sum(path.stat().st_size for path in (root / ".dinmo" / "snapshots").rglob("*") if path.is_file())
            print(f"{'state':16} {state / 1e6:.1f} MB of snapshots on disk")
            print(f"{'emulator':16} {share}")
            emulator.stdin.close()
            emulator.wait(30)
            children = resource.getrusage(resource.RUSAGE_CHILDREN)
            print(f"{'all processes':16} {children.ru_utime + children.ru_stime:.1f} s CPU, emulator and dbt included")


if __name__ == "__main__":
    main()
