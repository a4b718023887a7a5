"""Which client computes, and tasks that wait for tasks of their own."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr
from dask.base import get_scheduler
from distributed import Client, LocalCluster, wait, worker_client

from rasteret_dask.cluster.active import computing_on
from rasteret_dask.ingest.bag import threads
from rasteret_dask.read.client import active_client
from rasteret_dask.write.zarr import write_zarr


@pytest.fixture
def cluster() -> Iterator[LocalCluster]:
    """One worker of one thread, in this process."""
    with LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0"
    ) as found:
        yield found


# --- a client that was given ---------------------------------------------------------------------
@pytest.mark.parametrize("scheduler", [None, "threads"])
def test_a_client_that_was_given_computes(cluster: LocalCluster, scheduler: str | None) -> None:
    with (
        Client(cluster, set_as_default=False) as client,
        dask.config.set({} if scheduler is None else {"scheduler": scheduler}),
    ):
        before = get_scheduler()
        with computing_on(client):
            assert active_client() is client
            assert get_scheduler().__self__ is client
            assert threads() == 1
            with computing_on(client):
                assert active_client() is client
            assert active_client() is client
        assert get_scheduler() is before
        with computing_on(None):
            assert get_scheduler() is before
    assert dask.config.get("scheduler", None) is None


def test_other_threads_compute_as_before(cluster: LocalCluster) -> None:
    with Client(cluster, set_as_default=False) as client, ThreadPoolExecutor(1) as other:
        with computing_on(client):
            assert other.submit(da.ones(3).sum().compute).result() == 3
            assert other.submit(get_scheduler).result() is None
            assert dask.config.get("scheduler", None) is None
        with dask.config.set(scheduler="distributed"), computing_on(client):
            assert get_scheduler().__self__ is client
            wait(da.ones(3).persist())


def test_another_client_than_the_default_computes(cluster: LocalCluster) -> None:
    with (
        Client(processes=False, n_workers=1, dashboard_address="127.0.0.1:0") as default,
        Client(cluster, set_as_default=False) as client,
    ):
        with computing_on(client):
            assert active_client() is client
        assert active_client() is default


# --- tasks that wait for tasks -------------------------------------------------------------------
def write(url: str) -> int:
    zeros = da.zeros((4, 4), chunks=2) + 1
    return write_zarr(xr.Dataset({"v": (("y", "x"), zeros)}), url).regions


def write_after_seceding(url: str) -> int:
    with worker_client():
        return write(url)


@pytest.mark.parametrize("task", [write, write_after_seceding])
def test_a_task_may_write_a_store(cluster: LocalCluster, tmp_path: Path, task: object) -> None:
    """The worker has one thread, and the task would keep it from the regions that it waits for."""
    with Client(cluster) as client:
        told = [client.submit(task, str(tmp_path / f"{n}.zarr")) for n in range(2)]
        assert client.gather(told, direct=False) == [4, 4]
        assert client.submit(sum, [1, 2]).result(timeout=20) == 3  # the slot is whose it was
    assert (xr.open_zarr(tmp_path / "0.zarr").v.values == 1).all()


DONE: list[tuple[int, ...]] = []


def only_first_fails(block: np.ndarray, block_id: tuple[int, ...]) -> np.ndarray:
    DONE.append(block_id)
    if len(DONE) == 1:
        raise ZeroDivisionError
    time.sleep(0.01)
    return block


def test_a_region_that_fails_takes_the_others_along(cluster: LocalCluster, tmp_path: Path) -> None:
    """They would go on beside whatever is computed next."""
    DONE.clear()
    zeros = da.zeros((100, 2), chunks=2)
    values = zeros.map_blocks(only_first_fails, dtype=float, meta=np.empty((0, 0)))
    with Client(cluster):
        with pytest.raises(ZeroDivisionError):
            write_zarr(xr.Dataset({"v": (("y", "x"), values)}), tmp_path / "v.zarr")
        ended = ("memory", "erred", "released", "forgotten")
        while any(task.state not in ended for task in list(cluster.scheduler.tasks.values())):
            time.sleep(0.005)
    assert 0 < len(DONE) < 25
