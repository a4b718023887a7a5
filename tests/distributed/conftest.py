"""What holds for every test that starts a cluster."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import dask
import pytest


@pytest.fixture(autouse=True, scope="module")
def no_scheduler_stays_behind() -> Iterator[None]:
    """A client that cannot start leaves Dask's default scheduler set until it is collected; what runs
    later would then fail for want of a client. Collecting here puts the blame where it belongs."""
    yield
    gc.collect()
    assert dask.config.get("scheduler", None) is None
