"""A cube much larger than the memory that reading it may take: the peak is what was promised, however many scenes there are."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from affine import Affine

from rasteret_dask.testing.cog import make_cog
from rasteret_dask.testing.server import RangeServer

SIDE, STEPS, THREADS, TILE = 2048, 60, 2, 256
BUDGET = 16 * 2**20

CHILD = """
import json, resource, sys
import dask, numpy as np
import rasteret_dask as rd
from rasteret_dask.model import RatePolicy, StorageOptions
sys.path.insert(0, sys.argv[1])
from handmade import Scene, collect

urls, how, budget = json.loads(sys.argv[2]), sys.argv[3], int(sys.argv[4])
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
scenes = [
    Scene(f"s{k}", {"red": url}, f"2023-{1 + k // 28:02d}-{1 + k % 28:02d}T10:00:00")
    for k, url in enumerate(urls)
]
storage = StorageOptions(rate=RatePolicy(budget=budget))
cube = collect(*scenes).get_xarray(
    bands=["red"], masked=True, chunks={"time": -1, "y": 256, "x": 256}, storage=storage
).red
with dask.config.set(scheduler="threads", num_workers=2):
    getattr(cube[:2, :300, :300], how)("time").compute()  # all is imported and warm
    before = peak()
    found = getattr(cube, how)("time").compute()
    print(json.dumps({"grown": peak() - before, "cube": cube.nbytes, "out": found.nbytes,
                      "chunk": cube.nbytes // cube.data.npartitions,
                      "mean": float(np.nanmean(found.values))}))
"""


# What a task holds beside its chunk, in chunks: the source's pixels, and NumPy's copies while it reduces. A mean copies the values without
# NaN and a mask; a median sorts a masked array by an index of 64 bits, which is twice the chunk.
WORKSPACE = {"mean": 3, "median": 7}


@pytest.mark.slow
@pytest.mark.parametrize("how", list(WORKSPACE))
def test_a_reduction_over_time_stays_within_its_bounds(tmp_path: Path, how: str) -> None:
    rng = np.random.default_rng(0)
    small = rng.integers(1, 4000, (SIDE // 16, SIDE // 16), dtype=np.uint16)
    pixels = np.kron(small, np.ones((16, 16), dtype=np.uint16))
    transform = Affine(10.0, 0.0, 500_000.0, 0.0, -10.0, 5_200_000.0)
    make_cog(
        tmp_path / "a.tif", pixels, transform=transform, crs="EPSG:32633", nodata=0, blocksize=TILE
    )
    names = {f"s{k}.tif": "a.tif" for k in range(STEPS)}
    with RangeServer(tmp_path, aliases=names) as server:
        urls = json.dumps([server.url_of(name) for name in names])
        here = Path(__file__).resolve().parents[1]
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", CHILD, str(here), urls, how, str(BUDGET)],
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["mean"] == pytest.approx(pixels.mean(), rel=1e-5)
    promised = THREADS * (1 + WORKSPACE[how]) * found["chunk"] + BUDGET + found["out"]
    assert found["cube"] > 2.5 * promised
    assert found["grown"] < promised, found
