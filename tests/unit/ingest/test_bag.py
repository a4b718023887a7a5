"""Slices as tasks: how many of them run at once."""

from __future__ import annotations

import dask
import pytest
from dask.system import CPU_COUNT
from distributed import Client, LocalCluster

from rasteret_dask.ingest.bag import threads


@pytest.mark.parametrize(("workers", "expected"), [(0, 1), (1, 3), (2, 6)])
def test_the_threads_of_a_cluster(workers: int, expected: int) -> None:
    """One that has no workers yet still gets work: it is what they come for."""
    how = {"threads_per_worker": 3, "processes": False, "dashboard_address": "127.0.0.1:0"}
    with LocalCluster(n_workers=workers, **how) as cluster, Client(cluster):
        assert threads() == expected


def test_the_threads_of_this_process() -> None:
    with dask.config.set(scheduler="threads"):
        assert threads() == CPU_COUNT
