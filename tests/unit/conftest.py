"""What holds for every unit test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from rasteret_dask.testing.server import RangeServer

# By default an example that takes 0.2 s fails its test, and so do examples that are slow to make:
# a busy machine is no fault of ours.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


@pytest.fixture(scope="module")
def running(folder: Path) -> Iterator[RangeServer]:
    """A server of a module's own ``folder``."""
    with RangeServer(folder) as found:
        yield found


@pytest.fixture
def server(running: RangeServer) -> Iterator[RangeServer]:
    """The same, calm and with its counters at zero; whatever a test asks of it ends with the test."""
    running.configure(faults=[], latency=0.0)
    running.reset()
    yield running
    running.configure(faults=[], latency=0.0)


@pytest.fixture(params=["tiles as they are", "beginnings of small tiles"])
def beginnings(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice: tests' tiles are so small that none would be cut, were it not for this."""
    if request.param != "tiles as they are":
        monkeypatch.setattr("rasteret_dask.plan.enough.LEAST", 1)
