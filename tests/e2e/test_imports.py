"""What a command imports: a small one starts in the time of its imports, and many are called again and again."""

from __future__ import annotations

import subprocess
import sys

import pytest

from .lab import Lab, Org, environment

pytestmark = pytest.mark.slow

ROWS = ("numpy", "pyarrow")
EDGES = ("dbt", "duckdb", "requests", "simple_salesforce")
UNUSED = ("agate", "apprise", "fsspec")


def imported(lab: Lab, *arguments: str) -> set[str]:
    """Which of all these a command has imported when it is over, which is well."""
    code = (
        f"import sys; from dinmo_dbt.cli import run; code = run({arguments!r}); "
        f"print(code, *(m for m in {ROWS + EDGES + UNUSED} if m in sys.modules))"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=lab.root, env=environment(), capture_output=True, text=True, check=True)
    code, *names = done.stdout.splitlines()[-1].split()
    assert code == "0", done.stdout + done.stderr
    return set(names)


@pytest.mark.parametrize(
    "command",
    [
        "list",
        "validate",
        "history",
        "schedule",
        "schedule --emit crontab",
        "pause --reason x -s people_to_crm",
        "resume",
    ],
)
def test_what_reads_no_row_imports_neither_numpy_nor_pyarrow(lab: Lab, org: Org, command: str) -> None:
    assert lab.run("sync").code == 0
    assert imported(lab, *command.split()) == set()


def test_the_status_counts_rows_where_there_are_any(lab: Lab, org: Org) -> None:
    assert imported(lab, "status") == set()
    assert lab.run("sync").code == 0
    assert imported(lab, "status") == set(ROWS)


def test_a_plan_over_a_plain_profile_imports_no_more_than_it_uses(lab: Lab, org: Org) -> None:
    assert lab.run("sync").code == 0
    assert imported(lab, "plan") == {*ROWS, "duckdb", "requests", "simple_salesforce"}
