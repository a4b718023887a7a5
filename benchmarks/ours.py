"""The same work by this package, through its public interface alone."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from contextlib import nullcontext
from functools import cache
from pathlib import Path
from typing import Any

import dask
import numpy as np
from shapely import box
from shapely import points as make_points

import rasteret_dask as rd
from benchmarks.peers import Job
from benchmarks.workloads import Workload, make, reduce_median


def _name(work: Workload) -> str:
    return f"{work.name}-{work.variant}"


def _build(work: Workload, root: str, where: str) -> Any:
    return rd.build_from_items(
        [scene.stac(root) for scene in work.scenes], name=_name(work), workspace_dir=where
    )


def build(folder: Path, root: str, variants: list[str], workloads: list[str]) -> None:
    """Build the collections that the measurements open; W6 measures this itself."""
    for variant in variants:
        for name in workloads:
            if name == "W6":
                continue
            work = make(name, variant)
            _build(work, root, str(folder))
            _build(work.warm(), root, str(folder))


def _open(work: Workload) -> Any:
    return rd.load(_name(work), workspace_dir=os.environ["RASTERET_BENCH_COLLECTIONS"])


def _cube(work: Workload, window: tuple[int, int, int, int], **options: Any) -> Any:
    return _open(work).get_xarray(
        work.bounds(window), list(work.bands), geometry_crs=32633, groupby="time", **options
    )


def threads(work: Workload, root: str) -> Job:
    """Lazy cubes on Dask's threads, as in a notebook."""
    return _lazy(work, root, nullcontext())


def cluster(work: Workload, root: str) -> Job:
    """Lazy cubes on a LocalCluster of two processes; its start is not measured."""
    client = _client()
    job = _lazy(work, root, client)
    if not work.name.endswith("-warm"):
        return job

    def every_worker() -> Any:
        # The spare work is too little for two: each does it once.
        for address in client.scheduler_info()["workers"]:
            with dask.annotate(workers=[address], allow_other_workers=False):
                result = job()
        return result

    return every_worker


@cache
def _client() -> Any:
    # Not at the top: what threads need of memory must not hold it.
    from distributed import Client, LocalCluster

    return Client(
        LocalCluster(
            n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0"
        )
    )


def _lazy(work: Workload, root: str, keep: Any) -> Job:
    def windows() -> Any:
        with dask.config.set(array__slicing__split_large_chunks=False):
            cubes = dask.compute(*[_cube(work, window) for window in work.windows])
        stacks = [np.stack([cube[band].values for band in work.bands], axis=1) for cube in cubes]
        return np.stack(stacks)

    def median() -> Any:
        # As a user writes it: chunks that hold all of time, so that a median needs no rechunk.
        cube = _cube(work, work.windows[0], chunks={"time": -1, "y": "tile", "x": "tile"})
        red, nir = cube.B04.astype("float32"), cube.B08.astype("float32")
        visible = (cube.B02.astype("uint32") + cube.B03).sum("time", dtype="uint32")
        ndvi, visible = dask.compute(
            ((nir - red) / (nir + red)).median("time", skipna=False), visible
        )
        return {"ndvi": ndvi.values, "visible": visible.values}

    def warp() -> Any:
        cube = _cube(work, work.windows[0], crs=32633, resolution=10)
        return cube[work.bands[0]].values

    def points() -> Any:
        left, _, _, top = work.bounds((0, 0, 1, 1))
        x = left + (work.points[:, 1] + 0.5) * 10
        y = top - (work.points[:, 0] + 0.5) * 10
        sampled = _open(work).sample_points(make_points(x, y), list(work.bands), geometry_crs=32633)
        # By scene, then point: every point lies on every scene.
        return sampled["value"].to_numpy().reshape(len(work.scenes), -1)

    def headers() -> Any:
        with tempfile.TemporaryDirectory() as where:
            made = _build(work, root, where)
            return np.array(len(made) * len(work.bands))

    jobs = {"windows": windows, "median": median, "warp": warp, "points": points}
    job = {**jobs, "headers": headers}[work.kind]
    job.keep = keep  # type: ignore[attr-defined]  # a cluster lives as long as its job
    return job


def numpy(work: Workload, root: str) -> Job:
    """Eager arrays."""

    def windows() -> Any:
        boxes = [box(*work.bounds(window)) for window in work.windows]
        pixels = _open(work).get_numpy(boxes, list(work.bands), geometry_crs=32633)
        # Windows, then scenes by time within each.
        stack = pixels.reshape(
            len(work.windows), len(work.scenes), len(work.bands), *work.windows[0][2:]
        )
        return reduce_median(stack[0]) if work.kind == "median" else stack

    if work.kind not in ("windows", "median"):
        return threads(work, root)
    return windows


OURS: dict[str, Callable[[Workload, str], Job]] = {
    "ours": threads,
    "ours-numpy": numpy,
    "ours-cluster": cluster,
}
