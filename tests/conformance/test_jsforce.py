"""jsforce, unchanged from its package: each file of Node tests is one test here."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable

import pytest

from .conftest import JSFORCE

pytestmark = pytest.mark.slow

CLIENT = "jsforce"


@pytest.mark.parametrize("file", sorted(f.name for f in JSFORCE.glob("*.test.js")))
def test_jsforce(node: Callable[..., subprocess.CompletedProcess[str]], file: str) -> None:
    done = node(file)
    assert done.returncode == 0, done.stdout + done.stderr
    passed = re.search(r"^# pass (\d+)$", done.stdout, re.MULTILINE)
    assert passed is not None and int(passed[1]) > 1, done.stdout
