"""The same work by this package, through its public interface alone."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pandas as pd
from shapely import box
from shapely import points as make_points

import rasteret_dask as rd
from benchmarks.chips import load_torchgeo
from benchmarks.workloads import (
    BATCH,
    Job,
    Unable,
    Workload,
    make,
    reduce_lazily,
    reduce_median,
    split,
)

_OPEN: list[Any] = []  # what ends with this process


def _name(work: Workload) -> str:
    return f"{work.name}-{work.variant}"


def _items(work: Workload, root: str) -> list[dict[str, Any]]:
    return [scene.stac(root) for scene in work.scenes]


def _build(work: Workload, root: str, where: str) -> Any:
    return rd.build_from_items(_items(work, root), name=_name(work), workspace_dir=where)


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
    if work.kind == "windows":
        return Job(lambda: _computed(_cubes(work)), lambda cubes: _stack(work, cubes))
    return _other(work, root)


def _computed(cubes: list[Any]) -> list[Any]:
    """One cube as everybody writes it: Dask then puts a band together while the next is read. Several at once are one graph."""
    return [cubes[0].compute()] if len(cubes) == 1 else list(dask.compute(*cubes))


def cluster(work: Workload, root: str) -> Job:
    """Lazy cubes on a LocalCluster of two processes; its start is not measured, nor is moving windows to the client."""
    client = _client()
    job = _on(client, work, root)
    if not work.name.endswith("-warm"):
        return job

    def every_worker() -> Any:
        # The spare work is too little for two: each does it once.
        for address in client.scheduler_info()["workers"]:
            with dask.annotate(workers=[address], allow_other_workers=False):
                # Held by nobody, or the next worker would find it done.
                result = job.arrange(job.run())
        return result

    return Job(every_worker, client=client)


@cache
def _client() -> Any:
    """Of the profile `local`, as ``configs/clusters/local.yaml`` would open it; ended with this process."""
    # Not at the top: what threads need of memory must not hold it.
    from rasteret_dask.cluster.profiles import from_mapping, open_profile

    profile = open_profile(from_mapping({"kind": "local", "workers": 2, "threads": 1}))
    _OPEN.append(profile)
    return profile.__enter__()


def _on(client: Any, work: Workload, root: str) -> Job:
    from distributed import wait

    def windows() -> Any:
        there = dask.persist(*_cubes(work))
        wait(there)
        return there

    if work.kind == "windows":
        return Job(windows, lambda there: _stack(work, dask.compute(*there)), client)
    return replace(_other(work, root), client=client)


def _cubes(work: Workload) -> list[Any]:
    return [_cube(work, window) for window in work.windows]


def _stack(work: Workload, cubes: Any) -> Any:
    return np.stack([np.stack([c[band].values for band in work.bands], axis=1) for c in cubes])


def _other(work: Workload, root: str) -> Job:
    """What is not windows as they are; on whatever Dask runs on."""
    stages: dict[str, float] = {}

    def median() -> Any:
        # Chunks that hold all of time, so that a median needs no rechunk, and begin where tiles begin.
        cube = _cube(work, work.windows[0], chunks={"time": -1, "y": "tiles", "x": "tiles"})
        ndvi, visible = dask.compute(*reduce_lazily(cube))
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

    # What a search has found; to make it up is no part of the work.
    items = _items(work, root) if work.kind == "headers" else []

    def headers() -> Any:
        with tempfile.TemporaryDirectory() as where:
            made = rd.build_from_items(items, name=_name(work), workspace_dir=where)
            return np.array(len(made) * len(work.bands))

    def lazy() -> Any:
        began = time.perf_counter()
        cube = _open(work).get_xarray(bands=list(work.bands))
        opened = time.perf_counter()
        row, column, rows, columns = work.windows[0]
        y, x = slice(row, row + rows), slice(column, column + columns)
        got = cube.isel(time=work.chosen, y=y, x=x).compute()
        stages.update(open=opened - began, window=time.perf_counter() - opened)
        return np.stack([got[band].values for band in work.bands])

    def ndvi() -> Any:
        first, second = work.windows[0], work.windows[-1]
        began = time.perf_counter()
        _cube(work, first)[work.bands[0]].compute()
        one = time.perf_counter()
        cube = _cube(work, second)
        red, nir = (cube[band].astype("float32") for band in work.bands)
        found = ((nir - red) / (nir + red)).compute()
        stages.update(one=one - began, two=time.perf_counter() - one)
        return found.values

    jobs = {
        "median": median, "warp": warp, "points": points, "headers": headers, "lazy": lazy,
        "ndvi": ndvi, "chips": lambda: _train(work),
    }  # fmt: skip
    return Job(jobs[work.kind], stages=stages)


def _train(work: Workload) -> Any:
    """Chips as a trainer takes them: batches of a TorchGeo dataset, read ahead in this process."""
    try:
        load_torchgeo()
    except ModuleNotFoundError as error:
        raise Unable(f"chips need {error.name}") from None
    import torch
    from torchgeo.datasets import stack_samples

    from rasteret_dask.integrations.chiploader import ChipLoader

    dataset = _open(work).to_torchgeo_dataset(list(work.bands))
    left, _, _, top = work.bounds((0, 0, 1, 1))
    asked = []
    for scene, row, column in work.chips:
        x, y, when = left + 10.0 * column, top - 10.0 * row, pd.Timestamp(work.scenes[scene].when)
        asked.append((slice(x, x + 2560.0), slice(y - 2560.0, y), slice(when, when)))
    loader = ChipLoader(dataset, asked, BATCH, ahead=3, collate_fn=stack_samples)
    sums = [batch["image"].sum(dim=(1, 2, 3), dtype=torch.int64).numpy() for batch in loader]
    return np.concatenate(sums).astype("uint64")


def numpy(work: Workload, root: str) -> Job:
    """Eager arrays."""

    def windows() -> Any:
        boxes = [box(*work.bounds(window)) for window in work.windows]
        pixels = _open(work).get_numpy(boxes, list(work.bands), geometry_crs=32633)
        # Windows, then scenes by time within each.
        stack = pixels.reshape(
            len(work.windows), len(work.scenes), len(work.bands), *work.windows[0][2:]
        )
        return reduce_median(split(stack[0])) if work.kind == "median" else stack

    if work.kind not in ("windows", "median"):
        raise Unable("the same as lazily")
    return Job(windows)


OURS: dict[str, Callable[[Workload, str], Job]] = {
    "ours": threads,
    "ours-numpy": numpy,
    "ours-cluster": cluster,
}
