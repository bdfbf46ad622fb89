"""These tests run in seconds: what they import needs no dbt, no warehouse and no Salesforce."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import sys
sys.modules.update(dict.fromkeys(("dbt", "dbt_common", "duckdb", "simple_salesforce")))  # whoever imports them fails
import pytest
sys.exit(pytest.main(["rows", "--collect-only", "-q", "-p", "no:cacheprovider"]))
"""


@pytest.mark.slow
def test_these_tests_are_collected_where_there_is_no_dbt() -> None:
    tests = Path(__file__).parent.parent
    done = subprocess.run([sys.executable, "-c", CODE], cwd=tests, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert all(path.name in done.stdout for path in Path(__file__).parent.glob("test_*.py"))
