"""What a worker's memory comes to, beside what is promised: cubes ten times as large as all workers' limits together, reduced over time and
written to Zarr.

    python -m benchmarks.memory [--page]

Promised to each worker is

    resident after imports + threads × (chunk + larger of sources and workspace) + fetch budget + kept

*Sources* are a chunk's pixels in the files' own types, which wait to be converted (none where a cube keeps the files' type); *workspace* is
what the reduction allocates beside its input, by NumPy's own account (tracemalloc) for one chunk in a process of its own; *kept* is what
Python, Dask and the allocator hold beside all that, 12 MiB a process and 8 MiB a thread; the docs say what it is made of. Peaks are the
kernel's (VmHWM), begun anew when a worker has imported everything. The fetch budget is small, and the tiles hardly compress, so that it is
made use of.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import tempfile
import time
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from math import prod
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import xarray as xr
from affine import Affine

import rasteret_dask as rd
from benchmarks.marks import put
from rasteret_dask.cluster.profiles import Local, open_profile
from rasteret_dask.model import RatePolicy, StorageOptions
from rasteret_dask.pipeline import config, steps
from rasteret_dask.pipeline.run import run
from rasteret_dask.testing.cog import make_cog
from rasteret_dask.testing.server import RangeServer
from rasteret_dask.write.zarr import write_zarr

MB = 2**20
TIMES = 10
"""How much larger the cube is than all limits together."""
SPAN = 256
"""Pixels of a tile; a chunk is one tile at all dates."""
BUDGET = 4 * MB
BANDS = ("red", "scl")
CORNER = Affine(10.0, 0.0, 500_000.0, 0.0, -10.0, 5_200_000.0)
KEPT = 12 * MB, 8 * MB
"""Bytes beside what tasks compute with: of a process, and of each of its threads."""
STORAGE = StorageOptions(rate=RatePolicy(budget=BUDGET))


@dataclass(frozen=True)
class Case:
    """One way to compute.

    Parameters
    ----------
    how : str
        The reduction.
    by : str
        Whose: a pipeline's own, or xarray's.
    masked, mask : bool
        Whether nodata becomes NaN, and whether a mask band is read as well.
    """

    how: str
    by: str
    masked: bool
    mask: bool = False

    @property
    def cube(self) -> dict[str, Any]:
        """Arguments of the read."""
        chunks = {"time": -1, "y": SPAN, "x": SPAN}
        mask = {"mask": {"band": "scl", "keep": [4, 5, 6, 7]}} if self.mask else {}
        return {"bands": ["red"], "masked": self.masked, "chunks": chunks, **mask}

    @property
    def itemsize(self) -> int:
        return 4 if self.masked else 2

    def sources(self, chunk: tuple[int, ...]) -> int:
        """Bytes that wait beside a chunk to be converted."""
        return prod(chunk) * (2 * self.masked + self.mask)

    def reduced(self, dataset: xr.Dataset) -> xr.Dataset:
        """The lazy result."""
        if self.by == "xarray":
            found: xr.Dataset = getattr(dataset, self.how)("time")
            return found
        return steps.apply(dataset, self.pipeline("c", "o").steps)

    def pipeline(self, collection: str, target: str, storage: str | None = None) -> config.Pipeline:
        told = {} if storage is None else {"storage": storage}
        return config.from_mapping(
            {
                "version": 1,
                "collection": {"load": collection, **told},
                "cube": self.cube,
                "steps": [{"reduce": {"how": self.how, "dim": "time"}}],
                "outputs": [{"zarr": target}],
            }
        )

    def __str__(self) -> str:
        kind = "plain" if not self.masked else "masked by a band" if self.mask else "masked"
        return f"{self.how}, {'of a pipeline' if self.by == 'pipeline' else 'by xarray'}, {kind}"


CASES = (
    Case("mean", "pipeline", True),
    Case("median", "pipeline", True),
    Case("mean", "pipeline", True, True),
    Case("median", "pipeline", True, True),
    Case("mean", "xarray", False),
    Case("median", "xarray", False),
)


class Held:
    """An array that Dask does not copy, as it does what it is given."""

    def __init__(self, values: Any) -> None:
        self.values = values
        self.shape, self.dtype, self.ndim = values.shape, values.dtype, values.ndim

    def __getitem__(self, index: Any) -> Any:
        return self.values[index]


# --- what is promised ------------------------------------------------------------------------------
def workspace(case: Case, dates: int) -> int:
    """Bytes that reducing one chunk takes beside it; run in a process of its own."""
    shape = (dates, SPAN, SPAN)
    block = np.random.default_rng(0).integers(1, 4000, shape).astype("f4" if case.masked else "u2")
    lazy = xr.Dataset({"red": (("time", "y", "x"), da.from_array(Held(block), chunks=-1))})
    case.reduced(lazy.isel(y=slice(4))).compute(scheduler="synchronous")  # imports
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    tracemalloc.reset_peak()
    case.reduced(lazy).compute(scheduler="synchronous")
    return tracemalloc.get_traced_memory()[1] - before


# --- what it comes to; these run on workers --------------------------------------------------------
def _status(name: str) -> int:
    found = re.search(name + r":\s+(\d+)", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def begin(case: Case, collection: str, target: str) -> int:
    """Read, reduce and write a little, so that everything is imported; the peak begins anew."""
    cube = rd.load(collection).head(2).get_xarray(**case.cube, storage=STORAGE)
    with dask.config.set(scheduler="synchronous"):
        write_zarr(case.reduced(cube.isel(y=slice(SPAN), x=slice(SPAN))), target)
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def peak() -> int:
    """Bytes that this process held at most since then."""
    return _status("VmHWM")


# --- the campaign ----------------------------------------------------------------------------------
@dataclass
class Found:
    """What one case came to, in bytes; lists have one entry for each worker."""

    case: Case
    threads: int
    cube: int
    chunk: int
    workspace: int
    resident: list[int]
    promised: list[int]
    peaks: list[int]
    """None when a worker has died."""
    seconds: float
    right: bool

    @property
    def verdict(self) -> str:
        """Empty when all is well."""
        if not self.peaks:
            return "a worker died"
        if not self.right:
            return "WRONG"
        return "" if all(p < q for p, q in zip(self.peaks, self.promised)) else "MORE"


@dataclass(frozen=True)
class Place:
    """A folder with files, a server for them, and a collection of each length."""

    folder: Path
    server: RangeServer
    side: int
    pixels: list[Any]

    def collection(self, dates: int) -> str:
        names = [f"d{k:03d}" for k in range(dates)]
        files = {
            f"{name}/{band}.tif": f"{band}{k % 2}.tif"
            for k, name in enumerate(names)
            for band in BANDS
        }
        self.server.configure(aliases=files)
        space = self.folder / f"ws{dates}"
        if not space.exists():
            rd.build_from_items(
                [item(self.server, k, name) for k, name in enumerate(names)],
                name="c",
                workspace_dir=space,
            )
        return str(space / "c")


def item(server: RangeServer, k: int, name: str) -> dict[str, Any]:
    """The STAC item of one date."""
    day = f"{2010 + k // 336}-{1 + k // 28 % 12:02d}-{1 + k % 28:02d}"
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": name,
        "bbox": [15.0, 46.0, 16.1, 47.0],
        "geometry": None,
        "properties": {"datetime": f"{day}T10:00:00Z"},
        "links": [],
        "assets": {
            band: {"href": server.url_of(f"{name}/{band}.tif"), "type": "image/tiff"}
            for band in BANDS
        },
    }


@contextmanager
def place(side: int) -> Iterator[Place]:
    """Two scenes of so many pixels a side, which take turns."""
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory(prefix="memory-") as name:
        folder = Path(name)
        pixels = []
        for k in range(2):
            image = rng.integers(1, 4000, (side, side), dtype=np.uint16)
            bands: dict[str, Any] = {"red": image, "scl": (4 + image % 4).astype(np.uint8)}
            for band, values in bands.items():
                path = folder / f"{band}{k}.tif"
                make_cog(path, values, transform=CORNER, nodata=0, blocksize=SPAN)
            pixels.append(image)
        with RangeServer(folder) as server:
            yield Place(folder, server, side, pixels)


def measure(case: Case, at: Place, workers: int, threads: int, limit: int, times: float) -> Found:
    """Compute one case on a cluster of its own; a limit is of one worker, in bytes."""
    # Both scenes are as frequent, so the result is their mean whatever the reduction.
    dates = 2 * max(1, round(times * workers * limit / (2 * at.side**2 * case.itemsize)))
    shape = (dates, SPAN, SPAN)
    with ProcessPoolExecutor(1, get_context("spawn")) as apart:
        space = apart.submit(workspace, case, dates).result()
    collection, target = at.collection(dates), at.folder / "out.zarr"
    storage = at.folder / "storage.yaml"
    storage.write_text(json.dumps({"rate": {"budget": BUDGET}}))
    profile = Local(kind="local", workers=workers, threads=threads, memory=str(limit))
    with open_profile(profile) as client:
        assert client is not None
        known = list(client.scheduler_info(n_workers=-1)["workers"])
        resident = [
            client.run(begin, case, collection, f"{target}-{k}", workers=[one])[one]
            for k, one in enumerate(known)
        ]
        begun, start = client.run(os.getpid), time.perf_counter()
        if case.by == "pipeline":
            run(case.pipeline(collection, str(target), str(storage)), client=client)
        else:
            cube = rd.load(collection).get_xarray(**case.cube, storage=STORAGE)
            write_zarr(case.reduced(cube), target)
        seconds = time.perf_counter() - start
        alive = client.run(os.getpid) == begun
        peaks = client.run(peak) if alive else {}
    chunk = prod(shape) * case.itemsize
    task = chunk + max(space, case.sources(shape))
    fixed = BUDGET + KEPT[0] + threads * KEPT[1]
    values = xr.open_zarr(target).red.values[::97, ::89]
    wanted = np.mean([image[::97, ::89] for image in at.pixels], axis=0)
    return Found(
        case,
        threads,
        dates * at.side**2 * case.itemsize,
        chunk,
        space,
        resident,
        [here + threads * task + fixed for here in resident],
        [peaks[one] for one in known] if alive else [],
        seconds,
        bool(np.allclose(values, wanted)),
    )


# --- the table -------------------------------------------------------------------------------------
def _sizes(sizes: list[int]) -> str:
    return ", ".join(f"{size / MB:.0f}" for size in sizes) or "–"


def table(results: list[Found]) -> list[str]:
    """As Markdown; MiB."""
    return [
        "| what | threads | cube | chunk | workspace | resident | promised | peak | seconds | |",
        "|---|---|---|---|---|---|---|---|---|---|",
        *(
            f"| {r.case} | {r.threads} | {r.cube / MB:,.0f} | {r.chunk / MB:.1f} | {r.workspace / MB:.1f} | {_sizes(r.resident)} "
            f"| {_sizes(r.promised)} | {_sizes(r.peaks)} | {r.seconds:.0f} | {r.verdict} |"
            for r in results
        ),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="of each worker")
    parser.add_argument("--limit", type=int, default=512, help="MiB of each worker")
    parser.add_argument("--times", type=float, default=TIMES, help="all limits together")
    parser.add_argument("--side", type=int, default=8192, help="pixels of a scene")
    parser.add_argument("--only", type=int, nargs="+", help="numbers of cases, from 0")
    parser.add_argument("--page", action="store_true", help="write the table into the docs")
    given = parser.parse_args()
    size = given.limit * MB
    results = []
    with place(given.side) as at:
        cases = [CASES[k] for k in (range(len(CASES)) if given.only is None else given.only)]
        for case, threads in product(cases, given.threads):
            results.append(measure(case, at, given.workers, threads, size, given.times))
            print(table(results)[-1], flush=True)
    lines = table(results)
    print("\n" + "\n".join(lines))
    if given.page:
        put("memory", lines)
    if any(r.verdict for r in results):
        raise SystemExit("more than was promised, or not the right result")


if __name__ == "__main__":
    main()
