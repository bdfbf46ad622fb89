"""For every test: Hypothesis gives an example no deadline, which a busy machine would miss."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

pytest_plugins = ["pace", "object_store"]

settings.register_profile("patient", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")
