"""What a host in dbt Cloud's place makes `sync` take: the process's peak, with the limits as they are. `make deep` has
every body at every place."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from dbt_cloud_standin import Fault, Ran, StandIn, Step, step_of
from emulator.deep import DEEP
from salesforce.test_memory import MIB, PEAK_MAX, many, packed

from .lab import PEOPLE, Lab, Org, environment

pytestmark = pytest.mark.slow

HEAD = b'{"metadata":{"dbt_schema_version":"https://schemas.getdbt.com/dbt/manifest/v12.json"},"nodes":{'
CHILD = f"""
import resource, runpy, sys
sys.path.append({str(Path(__file__).parent.parent)!r})
from peak import peak_bytes
resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
sys.argv = ["dinmo_dbt", "sync", "--dbt-cloud-job", "1"]
try:
    runpy.run_module("dinmo_dbt", run_name="__main__", alter_sys=True)
finally:
    print("peak", peak_bytes(), file=sys.stderr)
"""

BODIES: dict[str, Callable[[], Fault]] = {
    "lists": lambda: _gzip(b'{"data":[', many(b"[],", 95 * MIB), b"[]]}"),
    "mappings": lambda: _gzip(b'{"data":[', many(b"{},", 95 * MIB), b"{}]}"),
    "commas": lambda: _gzip(many(b",,,", 95 * MIB)),
    "runs": lambda: _gzip(b'{"data":[', many(b'{"id":1,"job_definition_id":1,"status":10},', 95 * MIB), b'{"id":1}]}'),
    "runs within the bound": lambda: _gzip(
        b'{"data":[', many(b'{"id":1,"job_definition_id":1,"status":10},', 8 * MIB), b'{"id":1}]}'
    ),
    "steps": lambda: _gzip(
        b'{"data":{"id":70,"job_definition_id":1,"status":10,"run_steps":[', many(b'{"index":1},', 9 * MIB), b"{}]}}"
    ),
    "depth": lambda: _gzip(many(b"[", 95 * MIB)),
    "a wide text": lambda: _gzip(b'{"data":"', "\U0001f600".encode(), many(b"a", 95 * MIB), b'"}'),
    "nodes": lambda: _nodes(2_000_000),
    "nodes within the bound of bytes": lambda: _nodes(900_000),
    "nodes within all bounds": lambda: _nodes(190_000),
    "disabled nodes": lambda: _gzip(HEAD, b'},"disabled":{"model.a.b":[', many(b"{},", 2 * MIB), b"{}]}}"),
    "results": lambda: _results(1_000_000),
    "results within the bound": lambda: _results(320_000),
    "zeros without end": lambda: _gzip(many(b"0", 1024 * MIB)),
    "gzip within gzip": lambda: replace(
        _gzip(_gzip(many(b"0", 512 * MIB)).body), headers={"Content-Encoding": "gzip, gzip"}
    ),
}
PLACES = {"list": "/runs/", "run": "/runs/70/", "manifest": "manifest.json", "results": "run_results.json"}
CASES = [
    ("list", "lists"),
    ("run", "steps"),
    ("manifest", "nodes within the bound of bytes"),
    ("manifest", "zeros without end"),
    ("results", "results within the bound"),
]
if DEEP:
    CASES = [(place, body) for place in PLACES for body in BODIES]


def _gzip(*pieces: object) -> Fault:
    answer = packed(*pieces)  # type: ignore[arg-type]
    return Fault(answer.status, answer.body, dict(answer.headers))


def _nodes(count: int) -> Fault:
    return _gzip(
        HEAD,
        (b'"model.a.n%d":{},' % n for n in range(count)),
        b'"model.a.b":{}}}',
    )


def _results(count: int) -> Fault:
    return _gzip(
        b'{"metadata":{"dbt_schema_version":"https://schemas.getdbt.com/dbt/run-results/v6.json","generated_at":'
        b'"2026-11-27T10:00:00Z","invocation_id":"a"},"args":{"which":"build"},"results":[',
        (b'{"unique_id":"model.a.n%d","status":"success"},' % n for n in range(count)),
        b'{"unique_id":"model.a.b","status":"success"}]}',
    )


def synced(lab: Lab, org: Org, cloud: StandIn) -> None:
    """Within its memory, and told in one message if it is not synced."""
    child = subprocess.run(
        [sys.executable, "-c", CHILD], cwd=lab.root, env={**environment(), **cloud.environment},
        capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    told, _, peak = child.stderr.rpartition("peak ")
    assert int(peak) < PEAK_MAX, (int(peak) >> 20, told)
    assert "Traceback" not in told and "DB900" not in told, told
    assert (child.returncode == 0) == (org.count("Person__c") == 30), told


@pytest.mark.parametrize(("place", "body"), CASES)
def test_no_answer_of_dbt_clouds_makes_a_sync_large(lab: Lab, org: Org, place: str, body: str) -> None:
    lab.only("people", PEOPLE)
    with StandIn().serve() as cloud:
        cloud.runs = {70: Ran(1, [10], [Step("Clone"), step_of("dbt build", lab.root / "target")])}
        cloud.faults = [replace(BODIES[body](), only=PLACES[place])] * 6
        synced(lab, org, cloud)
        assert len(cloud.faults) < 6, cloud.asked


def test_no_number_of_runs_makes_a_sync_large(lab: Lab, org: Org) -> None:
    lab.only("people", PEOPLE)
    own = step_of("dbt build", lab.root / "target")
    found = json.loads(own.artifacts["run_results.json"])
    found["results"] += [
        {"unique_id": f"model.a.n{n}", "status": "success"} for n in range(100_000 if DEEP else 60_000)
    ]
    artifacts = {**own.artifacts, "run_results.json": json.dumps(found).encode()}
    with StandIn().serve() as cloud:
        cloud.runs = {70: Ran(1, [10], [own])}
        cloud.runs |= {60 - job: Ran(job, [10], [Step(own.name, artifacts)]) for job in range(2, 8)}
        synced(lab, org, cloud)
        assert sum("run_results" in path for path in cloud.asked) == 7
