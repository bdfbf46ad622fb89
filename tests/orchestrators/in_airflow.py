"""Run by Airflow's own environment: load the folder of DAGs as its processor does, and run the named tasks by their
operators. One JSON line: the tasks in order, and how each ended."""

import json
import sys

from airflow.dag_processing.dagbag import DagBag

bag = DagBag(sys.argv[1])
assert not bag.import_errors, bag.import_errors
(dag,) = bag.dags.values()
ended = {}
for task in dag.topological_sort():
    if task.task_id in sys.argv[2:] and all(ended.get(each, "done") == "done" for each in task.upstream_task_ids):
        try:
            task.execute({})
            ended[task.task_id] = "done"
        except Exception as error:  # noqa: BLE001 - Airflow's own, or whatever it meets
            ended[task.task_id] = str(error)
order = [task.task_id for task in dag.topological_sort()]
told = {"tasks": order, "ended": ended, "retries": {task.task_id: task.retries for task in dag.tasks}}
print("\n" + json.dumps(told))
