"""Run by Dagster's own environment: load the file as its code location does, and run the named ops in their job. One
JSON line: the ops, and how each ended."""

import json
import runpy
import sys
from pathlib import Path

from dagster import RetryPolicy

RetryPolicy.calculate_delay = lambda *_: 0  # a retry waits for five minutes
(path,) = Path(sys.argv[1]).glob("*.py")
definitions = runpy.run_path(str(path))["defs"]
job = definitions.resolve_job_def("dbt_to_salesforce")
assert definitions.resolve_schedule_def("dbt_to_salesforce_schedule").job_name == job.name
done = job.execute_in_process(raise_on_error=False, op_selection=sys.argv[2:])
ended = {}
for event in done.all_events:
    if event.is_step_success:
        ended[event.node_name] = "done"
    elif event.is_step_failure or event.is_step_up_for_retry:
        failed = event.event_specific_data.error
        ended[event.node_name] = (failed.cause or failed).message if failed else "failed"
names = [node.name for node in job.nodes_in_topological_order]
policies = {node.name: node.definition.retry_policy for node in job.nodes}
told = {"tasks": names, "ended": ended, "retries": {name: p.max_retries if p else 0 for name, p in policies.items()}}
print("\n" + json.dumps(told))
