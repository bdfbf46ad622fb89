"""dbt Cloud: what a job's run built, fetched over its Administrative API, and its word that a run has ended.

A job takes dbt commands alone, so dinmo-dbt is started from outside it: `fetch` writes what a job's runs left where the
gate and the manifest are read as after a local `dbt build`; `receiver` takes webhooks into an `Inbox`.
"""

from __future__ import annotations

from dinmo_dbt.dbt_cloud.artifacts import Library
from dinmo_dbt.dbt_cloud.client import SECRET, Account, CloudClient, JobRun, JobRunStatus, account_of
from dinmo_dbt.dbt_cloud.inbox import Event, Inbox
from dinmo_dbt.dbt_cloud.tables import Picture, fetch
from dinmo_dbt.dbt_cloud.webhook import receiver

__all__ = [
    "SECRET",
    "Account",
    "CloudClient",
    "Event",
    "Inbox",
    "JobRun",
    "JobRunStatus",
    "Library",
    "Picture",
    "account_of",
    "fetch",
    "receiver",
]
