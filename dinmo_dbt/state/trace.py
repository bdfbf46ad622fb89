"""What the org's list of jobs is held against: the jobs of this state's runs, and the rows of others that were read."""

from __future__ import annotations

from collections.abc import Collection

import pyarrow as pa
import pyarrow.parquet as pq

from dinmo_dbt.state.places import trace_place
from dinmo_dbt.state.storage import Storage
from dinmo_dbt.state.tables import Connection

TRACE_S = 30 * 86_400.0  # Salesforce forgets a job 7 days after its end, and a job may last
TRACE_MIN = 2_000  # whatever the clock says: it may have run ahead


def known_jobs(store: Storage, org_id: str) -> frozenset[str]:
    """Jobs that a run of this state made, whichever activation it was of, and those that were accepted."""
    if not store.exists():
        return frozenset()
    with store.connection(writing=False) as connection:
        rows = connection.execute("SELECT mark FROM trace WHERE org_id = ?", (org_id,)).fetchall()
    return frozenset(row["mark"] for row in rows)


def know(connection: Connection, org_id: str, marks: Collection[str], now: float) -> None:
    connection.executemany(
        "INSERT INTO trace VALUES (?, ?, ?) ON CONFLICT (org_id, mark) DO NOTHING",
        [(org_id, mark, now) for mark in marks],
    )


def forget_old(connection: Connection, org_id: str, now: float) -> None:
    connection.execute(
        "DELETE FROM trace WHERE org_id = ? AND noted < ? AND mark NOT IN "
        "(SELECT mark FROM trace WHERE org_id = ? ORDER BY noted DESC LIMIT ?)",
        (org_id, now - TRACE_S, org_id, TRACE_MIN),
    )


def read_jobs(store: Storage, org_id: str) -> frozenset[str]:
    names = store.files.names(trace_place(org_id))
    return frozenset(name.removesuffix(".parquet") for name in names if name.endswith(".parquet"))


def job_rows(store: Storage, org_id: str, job_id: str) -> pa.Table | None:
    name = f"{job_id}.parquet"
    path = store.files.fetch(trace_place(org_id), [name]) / name
    try:
        return pq.read_table(path, page_checksum_verification=True, partitioning=None)
    except (OSError, pa.ArrowException):
        return None


def keep_job_rows(store: Storage, org_id: str, job_id: str, rows: pa.Table) -> None:
    store.files.put(
        trace_place(org_id),
        f"{job_id}.parquet",
        lambda sink: pq.write_table(rows, sink, compression="zstd", write_page_checksum=True),
    )


def drop_job_rows(store: Storage, org_id: str, jobs: Collection[str]) -> None:
    store.files.remove(trace_place(org_id), [f"{job_id}.parquet" for job_id in jobs])
