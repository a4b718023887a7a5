"""A fifth of the answers is 503, one in twenty stalls, one in fifty is cut off, workers die: the same collection, the same pixels."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import xarray as xr
from distributed import Client

from rasteret_dask.cluster.profiles import Local, open_profile
from rasteret_dask.storage import counters
from rasteret_dask.testing.badday import CUBE, FAULTS, PATIENT, Found, build, files_of
from rasteret_dask.testing.catalog import write_demo_catalog
from rasteret_dask.testing.server import RangeServer


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RangeServer]:
    folder = tmp_path_factory.mktemp("demo")
    write_demo_catalog(folder, size=384, blocksize=128)
    with RangeServer(folder) as found:
        yield found


@pytest.fixture(scope="module")
def calm(server: RangeServer, tmp_path_factory: pytest.TempPathFactory) -> tuple[Found, xr.Dataset]:
    server.configure(faults=[])
    workspace = tmp_path_factory.mktemp("calm")
    cube = build(server.url, workspace).get_xarray(**CUBE).compute()
    assert float(cube.red.notnull().mean()) > 0.2
    return files_of(workspace), cube


def same(found: xr.Dataset, calm: xr.Dataset) -> None:
    assert found.identical(calm)
    for band in calm.data_vars:
        assert found[band].values.tobytes() == calm[band].values.tobytes()


def test_a_build_and_a_cube_are_as_on_a_calm_day(
    server: RangeServer, calm: tuple[Found, xr.Dataset], tmp_path: Path
) -> None:
    server.configure(faults=FAULTS)
    server.reset()
    before = counters.snapshot()
    collection = build(server.url, tmp_path)
    assert files_of(tmp_path) == calm[0]
    same(collection.get_xarray(**CUBE, storage=PATIENT).compute(), calm[1])
    spent, seen = counters.snapshot() - before, server.counters()
    assert seen.statuses[503] > 20
    assert spent.retries > seen.statuses[503]  # stalls, cuts and resets as well
    bad_files = {p for p in seen.paths if p.endswith(".tif")}
    assert len(bad_files) > 10


@pytest.mark.slow
def test_workers_that_die_take_nothing_with_them(
    server: RangeServer, calm: tuple[Found, xr.Dataset], tmp_path: Path
) -> None:
    server.configure(faults=[])
    collection = build(server.url, tmp_path)
    server.configure(faults=FAULTS, latency=0.05)
    profile = Local(kind="local", workers=2, threads=1, allowed_failures=50)
    try:
        with open_profile(profile) as client:
            assert client is not None
            stop, killed = threading.Event(), []
            killer = threading.Thread(target=kill_workers, args=(client, stop, killed))
            killer.start()
            try:
                found = collection.get_xarray(**CUBE, storage=PATIENT).compute()
            finally:
                stop.set()
                killer.join()
    finally:
        server.configure(latency=0.0)
    same(found, calm[1])
    assert killed


def kill_workers(client: Client, stop: threading.Event, killed: list[int]) -> None:
    """SIGKILL each worker once, the second when the first has been replaced."""
    nannies = list(client.cluster.workers.values())
    for nanny in nannies:
        ready = False
        while not ready and not stop.wait(0.5):
            ready = all(n.status.name == "running" for n in nannies)
        if stop.is_set():
            return
        killed.append(nanny.pid)
        os.kill(nanny.pid, signal.SIGKILL)
        stop.wait(1.0)
