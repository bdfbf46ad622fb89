"""How long the property tests run: a fixed, quick set of examples, or `DEEP` times as many at random."""

from __future__ import annotations

import os
from typing import Any

from hypothesis import HealthCheck, settings

DEEP = int(os.environ.get("DEEP", "0"))


def examples(count: int) -> Any:
    """Hypothesis' settings of a test that takes `count` examples unless it runs deep."""
    slow = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture]
    return settings(
        max_examples=count * max(DEEP, 1), derandomize=not DEEP, deadline=None, suppress_health_check=slow
    )  # fmt: skip
