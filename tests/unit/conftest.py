"""What holds for every unit test."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# By default an example that takes 0.2 s fails its test, and so do examples that are slow to make:
# a busy machine is no fault of ours.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")
