"""What a host in Salesforce's place makes a process take: its peak, by the kernel's count, in a child of its own."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from emulator.deep import DEEP

from .scripted_org import DATA, TOKEN, Answer, Server
from .test_client_faults import COLLECTIONS, DESCRIBE, JOB
from .test_untrusted_replies import QUERY_JOB

PEAK_MAX = 512 << 20
MIB = 1 << 20
SIZE = (400 if DEEP else 100) * MIB

# Everything that a sync does with a reply, told by the name of the call.
CHILD = f"""
import random, resource, sys
from pathlib import Path
import dinmo_dbt.cli.app, dinmo_dbt.delivery.sync, dinmo_dbt.warehouse.duckdb
sys.path[:0] = {[str(Path(__file__).parent.parent)]!r}
from peak import peak_bytes
from salesforce.test_untrusted_replies import CALLS
from salesforce.test_client_faults import JOB, batch_of
from dinmo_dbt.destination import Operation
from dinmo_dbt.errors import DinmoError
from dinmo_dbt.org import Credentials, Org, Secret
from dinmo_dbt.salesforce import connect
url, call, scratch = sys.argv[1:]
resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
who = Credentials("access_token", instance_url=url, access_token=Secret({TOKEN!r}))
org = connect(Org("crm", "dev", who), scratch=Path(scratch), sleep=lambda _: None, rng=random.Random(1), now=float)
make = CALLS[call][2] if call in CALLS else lambda d: d.results(JOB, batch_of(Operation.UPSERT))
try:
    make(org)
    print("read")
except DinmoError as error:
    print(error.problems[0].code)
print(peak_bytes())
"""


def packed(*pieces: bytes | Iterator[bytes]) -> Answer:
    packing = zlib.compressobj(1, zlib.DEFLATED, 31)
    out = bytearray()
    for piece in pieces:
        for part in [piece] if isinstance(piece, bytes) else piece:
            out += packing.compress(part)
    return Answer(200, bytes(out + packing.flush()), {"Content-Encoding": "gzip"})


def many(unit: bytes, size: int = SIZE) -> Iterator[bytes]:
    block = unit * (MIB // len(unit))
    return (block for _ in range(size // len(block)))


def columns(count: int) -> bytes:
    return ",".join(f"c{n:x}" for n in range(count)).encode() + b"\n"


JSON_SIZE = 63 * MIB
FILES: dict[str, Callable[[], Answer]] = {
    "rows of nothing": lambda: packed(b"sf__Id,sf__Created,Ext__c,Name\n", many(b",,,\n")),
    "lines": lambda: packed(b"sf__Id\n", many(b"\n")),
    "lines that are passed over": lambda: packed(b"sf__Id,Name\n", many(b"\n")),
    "columns": lambda: packed(columns(180_000), many(b"," * 99_999 + b"\n")),
    "one line": lambda: packed(b"sf__Id,Name\n", many(b"x")),
    "one cell": lambda: packed(b'sf__Id,Name\na,"', many(b"x"), b'"\n'),
    "a header": lambda: packed(many(b"x")),
}
JSONS: dict[str, Callable[[], Answer]] = {
    "lists": lambda: packed(b"[", many(b"[],", JSON_SIZE), b"[]]"),
    "records": lambda: packed(b'{"done":true,"records":[', many(b'{"Id":"a"},', JSON_SIZE), b'{"Id":"a"}]}'),
    "fields": lambda: packed(b'{"name":"a","fields":[', many(b'{"name":"a"},', JSON_SIZE), b'{"name":"a"}]}'),
    "depth": lambda: packed(many(b"[", JSON_SIZE)),
    "a wide text": lambda: packed(b'["', "\U0001f600".encode(), many(b"a", JSON_SIZE), b'"]'),
    "more than its bound": lambda: packed(many(b" ", 4 * SIZE)),
}


# Each child costs seconds, so CI has one or two of each reading; `make deep` has them all.
RESULTS = list(FILES) if DEEP else ["rows of nothing", "one cell", "columns"]
PAGES = list(FILES) if DEEP else ["rows of nothing", "lines that are passed over"]
REPLIES = [("describe", "fields"), ("lookup", "records"), ("upsert", "lists"), ("describe", "a wide text")]
if DEEP:
    REPLIES = list(itertools.product(["describe", "lookup", "upsert", "userinfo"], JSONS))


@pytest.fixture
def peak(server: Server, tmp_path: Path) -> Callable[[str], tuple[str, int]]:
    server.on("GET", "sobjects/Thing__c/describe", Answer(200, DESCRIBE))

    def peak(call: str) -> tuple[str, int]:
        child = subprocess.run(
            [sys.executable, "-c", CHILD, server.url, call, tmp_path], capture_output=True, text=True, timeout=280
        )
        assert child.returncode == 0, child.stderr
        code, size = child.stdout.split()
        return code, int(size)

    return peak


@pytest.mark.slow
@pytest.mark.parametrize("kind", RESULTS)
def test_no_result_file_makes_a_process_large(server: Server, peak: Any, kind: str) -> None:
    server.on("GET", f"jobs/ingest/{JOB}", Answer(200, {"id": JOB, "state": "JobComplete"}))
    for each in ("failedResults", "unprocessedrecords"):
        server.on("GET", f"jobs/ingest/{JOB}/{each}", Answer(200, b""))
    server.on("GET", f"jobs/ingest/{JOB}/successfulResults", FILES[kind]())
    code, size = peak("upsert results")
    assert code.startswith("DB6") and size < PEAK_MAX, (code, size)


@pytest.mark.slow
@pytest.mark.parametrize("kind", PAGES)
def test_no_page_of_a_bulk_query_makes_a_process_large(server: Server, peak: Any, kind: str) -> None:
    server.on("POST", "jobs/query", Answer(200, {"id": QUERY_JOB, "state": "UploadComplete"}))
    server.on("GET", f"jobs/query/{QUERY_JOB}", Answer(200, {"id": QUERY_JOB, "state": "JobComplete"}))
    server.on("GET", f"jobs/query/{QUERY_JOB}/results", FILES[kind]())
    _, size = peak("bulk_lookup")
    assert size < PEAK_MAX


@pytest.mark.slow
@pytest.mark.parametrize(("call", "kind"), REPLIES)
def test_no_json_makes_a_process_large(server: Server, peak: Any, call: str, kind: str) -> None:
    method, path = {
        "describe": ("GET", "sobjects/Thing__c/describe"),
        "lookup": ("GET", "query"),
        "upsert": ("PATCH", f"{COLLECTIONS}/Thing__c/Ext__c"),
        "userinfo": ("GET", "/services/oauth2/userinfo"),
    }[call]
    server.on(method, path, JSONS[kind]())
    _, size = peak(call)
    assert size < PEAK_MAX


@pytest.mark.slow
def test_a_large_describe_is_read(server: Server, peak: Any) -> None:
    """800 fields, as many as an object may have, of which fifty are lists of a thousand values."""
    values = [{"active": True, "defaultValue": False, "label": f"{n}", "validFor": None, "value": f"{n}"}
              for n in range(1_000)]  # fmt: skip
    fields = [
        {"name": f"F{n}__c", "type": "picklist", "picklistValues": values if n < 50 else [], "length": 255}
        for n in range(800)
    ]
    server.on("GET", "sobjects/Thing__c/describe", Answer(200, json.dumps({**DESCRIBE, "fields": fields}).encode()))
    code, size = peak("describe")
    assert code == "read" and size < PEAK_MAX
    assert server.asked("GET", DATA + "sobjects/Thing__c/describe")
