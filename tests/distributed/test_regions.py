"""Regions that are stored stay stored: a worker that dies takes with it what it was at, and no more."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from pathlib import Path

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from distributed import get_worker

from rasteret_dask.cluster.profiles import Local, open_profile
from rasteret_dask.testing.processes import wait_for
from rasteret_dask.write.zarr import write_zarr

REGIONS = 10


def test_a_worker_forgets_regions_that_are_stored(tmp_path: Path) -> None:
    """A task that is kept keeps the plan of all that it has read: of a wide cube more than its pixels are."""

    def known(block: np.ndarray) -> np.ndarray:
        time.sleep(0.1)
        return block + len(get_worker().state.tasks)

    row = da.map_blocks(
        known, da.zeros((8, REGIONS * 8), chunks=8, dtype="float32"), dtype="float32",
        meta=np.empty((0, 0), "float32"),
    )  # fmt: skip
    with open_profile(Local(kind="local", workers=1, threads=1)):
        write_zarr(xr.DataArray(row, dims=("y", "x"), name="a"), tmp_path / "out.zarr")
    found = xr.open_zarr(tmp_path / "out.zarr").a.values
    assert 0 < found.max() < REGIONS


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(REGIONS, 1), (1, REGIONS)], ids=["down", "across"])
def test_a_worker_that_dies_costs_the_region_that_it_was_at(
    tmp_path: Path, shape: tuple[int, int]
) -> None:
    log, markers = tmp_path / "log", tmp_path / "out.zarr.regions"
    log.mkdir()

    def noted(block: np.ndarray, block_id: tuple[int, ...], where: str = str(log)) -> np.ndarray:
        number = max(block_id)
        with open(f"{where}/{number}-{os.getpid()}-{time.monotonic_ns()}", "w"):
            pass
        time.sleep(0.4)
        return block + number

    blocks = da.map_blocks(
        noted, da.zeros((shape[0] * 8, shape[1] * 8), chunks=8, dtype="float32"), dtype="float32",
        meta=np.empty((0, 0), "float32"),
    )  # fmt: skip
    done: list[int] = []

    def kill() -> None:
        wait_for(lambda: len(list(markers.glob("*.done"))) >= 6)
        done.append(len(list(markers.glob("*.done"))))
        os.kill(pids[0], signal.SIGKILL)

    with open_profile(Local(kind="local", workers=2, threads=1)) as client:
        assert client is not None
        pids = list(client.run(os.getpid).values())
        killer = threading.Thread(target=kill)
        killer.start()
        write_zarr(xr.DataArray(blocks, dims=("y", "x"), name="a"), tmp_path / "out.zarr")
        killer.join()
    made = Counter(int(path.name.partition("-")[0]) for path in log.iterdir())
    assert set(made) == set(range(REGIONS))
    # What it was at, and what it had stored and not yet told of.
    assert sum(made.values()) <= REGIONS + 3, made
    assert done[0] >= 6
    found = xr.open_zarr(tmp_path / "out.zarr").a.values[::8, ::8].ravel()
    np.testing.assert_array_equal(found, np.arange(REGIONS))
