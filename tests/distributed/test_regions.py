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

from rasteret_dask.cluster.profiles import Local, open_profile
from rasteret_dask.testing.processes import wait_for
from rasteret_dask.write.zarr import write_zarr

REGIONS = 10


@pytest.mark.slow
def test_a_worker_that_dies_costs_the_region_that_it_was_at(tmp_path: Path) -> None:
    log, markers = tmp_path / "log", tmp_path / "out.zarr.regions"
    log.mkdir()

    def noted(block: np.ndarray, block_id: tuple[int, ...], where: str = str(log)) -> np.ndarray:
        (number, _) = block_id
        with open(f"{where}/{number}-{os.getpid()}-{time.monotonic_ns()}", "w"):
            pass
        time.sleep(0.4)
        return block + number

    blocks = da.map_blocks(
        noted, da.zeros((REGIONS * 8, 8), chunks=8, dtype="float32"), dtype="float32",
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
    found = xr.open_zarr(tmp_path / "out.zarr").a.values[::8, 0]
    np.testing.assert_array_equal(found, np.arange(REGIONS))
