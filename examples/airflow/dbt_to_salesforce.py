"""Airflow: build the models, then send to Salesforce what changed. It goes into the folder of the DAGs.

Both tasks run in the dbt project, by the programs of the environment that has dbt and dinmo-dbt: one of their own, as
Airflow's requirements differ. docs/orchestrators.md says why each line is as it is.
"""

from __future__ import annotations

import os
from datetime import datetime, timedelta

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG

PROJECT = os.environ.get("DBT_PROJECT_DIR", "/opt/dbt/project")
PROGRAMS = os.environ.get("DBT_PROGRAMS", "/opt/dbt/venv/bin")
TARGET = os.environ.get("DBT_TARGET", "prod")

with DAG(
    "dbt_to_salesforce",
    schedule="0 6 * * *",
    start_date=datetime(2026, 1, 1),
    catchup=False,  # a sync sends what is missing now, whichever days were left out
    max_active_runs=1,  # dbt and sync go by what the one before left in target/
) as dag:
    build = BashOperator(
        task_id="dbt_build",
        bash_command=f"{PROGRAMS}/dbt build --target {TARGET}",
        cwd=PROJECT,
    )
    sync = BashOperator(
        task_id="dinmo_sync",
        # 3: all was sent that can be, and Salesforce refused some rows, which wait. A retry would change nothing, so
        # the task is done; `warnings` in dinmo.yml tell people. Without the second line it fails for that, too.
        bash_command=f"""
            {PROGRAMS}/dinmo-dbt sync --target {TARGET}
            code=$?; [ $code -eq 3 ] || exit $code
        """,
        cwd=PROJECT,
        retries=3,  # whatever ended it: what was sent is known, and nothing is sent twice
        retry_delay=timedelta(minutes=5),
        execution_timeout=timedelta(hours=6),
    )
    build >> sync
