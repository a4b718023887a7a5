"""The same work by other libraries, tuned as their manuals say. One function each: (workload, root) → job."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np

from benchmarks import floor, peers_async
from benchmarks.data import SIDE, Scene
from benchmarks.workloads import Job, Unable, Workload, reduce_lazily, reduce_median, split
from benchmarks.workloads import Window as Pixels

GDAL: dict[str, Any] = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_HTTP_MERGE_CONSECUTIVE_RANGES": "YES",
    "GDAL_INGESTED_BYTES_AT_OPEN": "32768",
    "GDAL_HTTP_MULTIPLEX": "YES",
    "CPL_VSIL_CURL_ALLOWED_EXTENSIONS": ".tif",
    "VSI_CACHE": "TRUE",
    "GDAL_CACHEMAX": 512,
}


# --- rasterio ------------------------------------------------------------------------------------
def rasterio_threads(work: Workload, root: str, threads: int = 16) -> Job:
    import rasterio
    from rasterio.vrt import WarpedVRT
    from rasterio.windows import Window

    local = threading.local()

    def source(scene: Scene, band: str) -> Any:
        # A dataset is no thread's but its own; each opens what it needs once.
        if not hasattr(local, "env"):
            local.env = rasterio.Env(**GDAL)
            local.env.__enter__()
            local.open = {}
        path = scene.paths[band]
        if path not in local.open:
            image = rasterio.open(f"{root}/{path}")
            if work.kind == "warp" and scene.epsg != 32633:
                # The window itself is the warp's target, so that no more than it needs is read.
                left, _, _, top = work.bounds(work.windows[0])
                rows, columns = work.windows[0][2:]
                image = WarpedVRT(
                    image,
                    crs="EPSG:32633",
                    width=columns,
                    height=rows,
                    transform=rasterio.Affine(10, 0, left, 0, -10, top),
                )
            local.open[path] = image
        return local.open[path]

    def windows() -> Any:
        shape = work.windows[0][2:]
        stack = np.empty((len(work.windows), len(work.scenes), len(work.bands), *shape), "uint16")
        # A whole scene is cut into rows of tiles; windows are read as they are.
        step = 1024 if shape[0] > 4096 else shape[0]

        def read(task: tuple[int, int, int]) -> None:
            s, b, first = task
            image = source(work.scenes[s], work.bands[b])
            for w, (row, column, rows, columns) in enumerate(work.windows):
                part = stack[w, s, b, first : first + step]
                if isinstance(image, WarpedVRT):
                    image.read(1, out=part)
                    continue
                image.read(
                    1,
                    window=Window(column, row + first, columns, min(step, rows - first)),
                    out=part,
                )

        tasks = [
            (s, b, first)
            for s in range(len(work.scenes))
            for b in range(len(work.bands))
            for first in range(0, shape[0], step)
        ]
        _spread(read, tasks, threads)
        if work.kind == "median":
            return reduce_median(split(stack[0]))
        return stack[0, :, 0] if work.kind == "warp" else stack

    def chips() -> Any:
        def read(chip: tuple[int, int, int]) -> int:
            scene, row, column = chip
            image = source(work.scenes[scene], work.bands[0])
            pixels = image.read(1, window=Window(column, row, 256, 256))
            return int(pixels.sum(dtype="uint64"))

        return np.array(_spread(read, work.chips, threads), "uint64")

    def points() -> Any:
        result = np.empty((len(work.scenes), len(work.points)), "uint16")
        (r0, c0), (r1, c1) = work.points.min(0), work.points.max(0) + 1

        def read(s: int) -> None:
            block = source(work.scenes[s], work.bands[0]).read(
                1, window=Window(c0, r0, c1 - c0, r1 - r0)
            )
            result[s] = block[work.points[:, 0] - r0, work.points[:, 1] - c0]

        _spread(read, range(len(work.scenes)), threads)
        return result

    def headers() -> Any:
        def read(task: tuple[Scene, str]) -> int:
            with (
                rasterio.Env(**GDAL),
                rasterio.open(f"{root}/{task[0].paths[task[1]]}") as image,
            ):
                return len(image.overviews(1)) and 1

        tasks = [(scene, band) for scene in work.scenes for band in work.bands]
        return np.array(sum(_spread(read, tasks, threads)))

    if work.kind == "lazy":
        raise Unable("rasterio opens nothing lazily")
    kinds = {"points": points, "headers": headers, "chips": chips}
    return Job(kinds.get(work.kind, windows))


def rasterio_serial(work: Workload, root: str) -> Job:
    """One file after another, as TorchGeo's RasterDataset reads."""
    return rasterio_threads(work, root, threads=1)


def _spread(function: Callable[[Any], Any], tasks: Any, threads: int) -> list[Any]:
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(function, tasks))


# --- odc-stac ------------------------------------------------------------------------------------
def _items(work: Workload, root: str) -> list[Any]:
    import pystac

    return [pystac.Item.from_dict(scene.stac(root)) for scene in work.scenes]


def _geobox(work: Workload, window: Pixels) -> Any:
    from affine import Affine
    from odc.geo.geobox import GeoBox

    left, _, _, top = work.bounds(window)
    return GeoBox(window[2:], Affine(10, 0, left, 0, -10, top), "EPSG:32633")


def odc_threads(work: Workload, root: str) -> Job:
    import dask
    import odc.stac
    from odc.loader import configure_rio

    configure_rio(cloud_defaults=True, **GDAL)
    items = _items(work, root)

    def eager(window: Pixels) -> Any:
        return odc.stac.load(
            items, bands=list(work.bands), geobox=_geobox(work, window), pool=16, groupby="time"
        )

    def windows() -> Any:
        if work.windows[0][2] <= 4096:
            with ThreadPoolExecutor(len(work.windows)) as together:
                return list(together.map(eager, work.windows))
        with dask.config.set(scheduler="threads", num_workers=16):
            cube = odc.stac.load(
                items, bands=list(work.bands), geobox=_geobox(work, work.windows[0]),
                chunks={"x": 2048, "y": 2048}, groupby="time",
            )  # fmt: skip
            return [cube.compute()]

    def median() -> Any:
        cube = eager(work.windows[0])
        return reduce_median([cube[band].values for band in work.bands])

    def points() -> Any:
        block = eager(work.around())[work.bands[0]].values
        return work.picked(block)

    def lazy() -> Any:
        cube = odc.stac.load(
            items, bands=list(work.bands), crs="EPSG:32633", resolution=10, groupby="time",
            chunks={"x": 2048, "y": 2048},
        )  # fmt: skip
        left, bottom, right, top = work.bounds(work.windows[0])
        cut = cube.isel(time=work.chosen).sel(x=slice(left, right), y=slice(top, bottom))
        with dask.config.set(scheduler="threads", num_workers=16):
            got = cut.compute()
        return np.stack([got[band].values for band in work.bands])

    return _by_kind(work, windows, median=median, points=points, lazy=lazy)


def _by_kind(work: Workload, windows: Callable[[], Any], **others: Callable[[], Any]) -> Job:
    """The job of a tool whose windows are datasets with a variable for each band."""
    if work.kind == "headers":
        raise Unable("it keeps no index")
    if work.kind == "windows":
        return Job(windows, lambda cubes: _stack(work, cubes))
    if work.kind == "warp":
        return Job(windows, lambda cubes: cubes[0][work.bands[0]].values)
    if work.kind not in others:
        raise Unable(f"not written for {work.kind}")
    return Job(others[work.kind])


def _stack(work: Workload, cubes: Any) -> Any:
    return np.stack([np.stack([c[band].values for band in work.bands], axis=1) for c in cubes])


# --- rioxarray -----------------------------------------------------------------------------------
def rioxarray_dask(work: Workload, root: str) -> Job:
    """Chunks of the files' own tiles, 16 of Dask's threads."""
    import dask
    import rasterio
    import rioxarray
    import xarray as xr

    if work.kind not in ("windows", "median"):
        raise Unable("not written for rioxarray")
    for name, value in GDAL.items():
        os.environ[name] = str(value)

    def opened(scene: Scene, band: str, tile: int) -> Any:
        array = rioxarray.open_rasterio(
            f"{root}/{scene.paths[band]}", chunks={"x": tile, "y": tile}, lock=False, cache=False
        )
        return array.squeeze("band", drop=True)

    def windows() -> Any:
        tile = {"s2": 1024, "pc": 512, "zstd": 1024}[work.variant]
        # Opening reads headers: in threads, or it takes most of the time.
        pairs = [(scene, band) for scene in work.scenes for band in work.bands]
        with rasterio.Env(**GDAL):
            flat = _spread(lambda pair: opened(pair[0], pair[1], tile), pairs, 16)
        parts = []
        for row, column, rows, columns in work.windows:
            cut = [a[row : row + rows, column : column + columns] for a in flat]
            parts.append(xr.concat(cut, "n").data)
        with dask.config.set(scheduler="threads", num_workers=16):
            done = dask.compute(*parts)
        shape = (len(work.scenes), len(work.bands))
        stacks = [part.reshape(*shape, *part.shape[1:]) for part in done]
        return reduce_median(split(stacks[0])) if work.kind == "median" else stacks

    return Job(windows, np.stack if work.kind == "windows" else lambda result: result)


# --- clusters ------------------------------------------------------------------------------------
def _warm_worker(work: Workload, root: str) -> None:
    odc_threads(work, root).run()


def odc_cluster(work: Workload, root: str) -> Job:
    """odc-stac on a LocalCluster of two processes with four threads each, set up as this package's profile `local` sets one up; neither
    its start nor moving windows is measured."""
    import dask
    import odc.stac
    from distributed import wait
    from odc.loader import configure_rio

    if work.kind in ("headers", "lazy", "chips"):
        raise Unable("measured without a cluster")
    client = two_processes()
    configure_rio(cloud_defaults=True, client=client, **GDAL)
    items = _items(work, root)

    def cube(window: Pixels, side: int) -> Any:
        return odc.stac.load(
            items,
            bands=list(work.bands),
            geobox=_geobox(work, window),
            chunks={"x": side, "y": side},
            groupby="time",
        )

    def windows() -> Any:
        there = dask.persist(*[cube(window, 2048) for window in work.windows])
        wait(there)
        return there

    def median() -> Any:
        lazy = cube(work.windows[0], _MEDIAN)
        ndvi, visible = dask.compute(*reduce_lazily(lazy.chunk(time=-1)))
        return {"ndvi": ndvi.values, "visible": visible.values}

    def points() -> Any:
        r0, c0, *_ = window = work.around()
        block = cube(window, 3072)[work.bands[0]]
        # Only the points' pixels come to the client.
        rows, columns = work.points[:, 0] - r0, work.points[:, 1] - c0
        return block.data.vindex[:, rows, columns].T.compute()

    job = replace(_by_kind(work, windows, median=median, points=points), client=client)
    if not work.name.endswith("-warm"):
        return job

    def every_worker() -> Any:
        # Each worker once, by itself; then once through Dask.
        client.run(_warm_worker, work, root)
        return job.run()

    return replace(job, run=every_worker)


_MEDIAN = 1024
"""Pixels along a chunk of W4 on a cluster and for stackstac; of one chunk of 2048 the reduction would be one thread's."""


@cache
def two_processes() -> Any:
    """What helps this package's workers (they keep freed memory, more tasks wait at them) helps these."""
    from rasteret_dask.cluster.profiles import from_mapping, open_profile

    profile = open_profile(from_mapping({"kind": "local", "workers": 2, "threads": 4}))
    _OPEN.append(profile)
    return profile.__enter__()


_OPEN: list[Any] = []  # what ends with this process


# --- stackstac -----------------------------------------------------------------------------------
def stackstac_threads(work: Workload, root: str) -> Job:
    """Lazy cubes on 16 of Dask's threads."""
    import dask
    import stackstac

    if work.kind == "headers":
        raise Unable("it keeps no index")
    items = [scene.stac(root) for scene in work.scenes]
    env = stackstac.DEFAULT_GDAL_ENV.updated(
        always={name: value for name, value in GDAL.items() if name != "GDAL_CACHEMAX"}
    )

    def cube(window: Pixels) -> Any:
        return stackstac.stack(
            items,
            assets=list(work.bands),
            epsg=32633,
            resolution=10,
            bounds=work.bounds(window),
            snap_bounds=False,
            dtype=np.dtype("uint16"),
            fill_value=np.uint16(0),
            rescale=False,
            chunksize={"median": _MEDIAN, "points": 3072}.get(work.kind, 2048),
            gdal_env=env,
            properties=False,
            band_coords=False,
            sortby_date="asc",
            xy_coords="topleft",
        )

    def computed(*lazy: Any) -> Any:
        with dask.config.set(scheduler="threads", num_workers=16):
            return dask.compute(*lazy)

    def windows() -> Any:
        return [c.values for c in computed(*[cube(window) for window in work.windows])]

    def median() -> Any:
        return reduce_median(split(windows()[0]))

    def points() -> Any:
        (block,) = computed(cube(work.around())[:, 0].data)
        return work.picked(block)

    def lazy() -> Any:
        whole = cube((0, 0, SIDE, SIDE))
        row, column, rows, columns = work.windows[0]
        cut = whole[work.chosen, :, row : row + rows, column : column + columns]
        return computed(cut)[0].values

    if work.kind == "windows":
        return Job(windows, np.stack)
    if work.kind == "warp":
        return Job(windows, lambda stacks: stacks[0][:, 0])
    kinds = {"median": median, "points": points, "lazy": lazy}
    if work.kind not in kinds:
        raise Unable("not written for stackstac")
    return Job(kinds[work.kind])


TOOLS: dict[str, Callable[[Workload, str], Job]] = {
    "floor": floor.prepare,
    "floor-rows": floor.prepare_rows,
    "rasterio-serial": rasterio_serial,
    "rasterio-16": rasterio_threads,
    "rioxarray": rioxarray_dask,
    "odc-stac": odc_threads,
    "odc-stac-cluster": odc_cluster,
    "stackstac": stackstac_threads,
    **peers_async.TOOLS,
}
