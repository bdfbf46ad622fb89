"""Dagster: build the models, then send to Salesforce what changed: `dagster dev -f dbt_to_salesforce.py`.

Both ops run in the dbt project, by the programs of the environment that has dbt and dinmo-dbt, which may be Dagster's
own. docs/orchestrators.md says why each line is as it is.
"""

import os
import subprocess

import dagster as dg

PROJECT = os.environ.get("DBT_PROJECT_DIR", "/opt/dbt/project")
PROGRAMS = os.environ.get("DBT_PROGRAMS", "/opt/dbt/venv/bin")
TARGET = os.environ.get("DBT_TARGET", "prod")
REJECTED = 3


def ended(*command: str) -> int:
    """Run it in the project, its output among the run's; its exit code."""
    program, *arguments = command
    return subprocess.run([f"{PROGRAMS}/{program}", *arguments], cwd=PROJECT, check=False).returncode


@dg.op
def dbt_build() -> None:
    if code := ended("dbt", "build", "--target", TARGET):
        raise dg.Failure(f"dbt build ended with exit code {code}", allow_retries=False)


# Whatever ended it: what was sent is known, and nothing is sent twice.
@dg.op(ins={"built": dg.In(dg.Nothing)}, retry_policy=dg.RetryPolicy(max_retries=3, delay=300))
def dinmo_sync(context: dg.OpExecutionContext) -> None:
    code = ended("dinmo-dbt", "sync", "--target", TARGET)
    if code == REJECTED:  # all was sent that can be: the rows wait, and a retry would change nothing
        context.log.warning("Salesforce refused some rows: dinmo-dbt rejected lists them")
    elif code:
        raise dg.Failure(f"dinmo-dbt sync ended with exit code {code}")


@dg.job(tags={"dagster/concurrency_key": "dbt"})
def dbt_to_salesforce() -> None:
    dinmo_sync(built=dbt_build())


daily = dg.ScheduleDefinition(job=dbt_to_salesforce, cron_schedule="0 6 * * *")
defs = dg.Definitions(jobs=[dbt_to_salesforce], schedules=[daily])
